"""What a number is: the formats, and the arithmetic of one element, one block, one byte."""

from numerics.formats.block import Block, Blocks, MicroexponentBlock, MXBlock, ScaledBlock
from numerics.formats.blocks import (
    bfp16,
    block_format,
    mx,
    mx4,
    mx6,
    mx9,
    mxfp4,
    mxfp6_e2m3,
    mxfp6_e3m2,
    mxfp8_e4m3,
    mxfp8_e5m2,
    mxint8,
    nvfp4,
)  # fmt: skip
from numerics.formats.dtype import Dtype, Element, Float, Integer
from numerics.formats.errors import NumericsError, NumericsWarning
from numerics.formats.floats import (
    bfloat16,
    e8m0,
    float16,
    float_format,
    fp4,
    fp6_e2m3,
    fp6_e3m2,
    fp8_e3m4,
    fp8_e4m3,
    fp8_e4m3fnuz,
    fp8_e5m2,
    fp8_e5m2fnuz,
)  # fmt: skip
from numerics.formats.integers import int2, int3, int4, int8, int16, integer_format, uint2, uint4, uint8
from numerics.formats.registry import dtype, dtypes

dtypes()  # fills in the aliases, and refuses a name that stands for two formats

__all__ = [
    "Block", "Blocks", "Dtype", "Element", "Float", "Integer", "MXBlock", "MicroexponentBlock",
    "NumericsError", "NumericsWarning", "ScaledBlock", "bfloat16",
    "bfp16", "block_format", "dtype", "dtypes", "e8m0", "float16", "float_format", "fp4", "fp6_e2m3",
    "fp6_e3m2", "fp8_e3m4", "fp8_e4m3", "fp8_e4m3fnuz", "fp8_e5m2", "fp8_e5m2fnuz", "int2", "int3", "int4",
    "int8", "int16", "integer_format", "mx", "mx4", "mx6", "mx9", "mxfp4", "mxfp6_e2m3", "mxfp6_e3m2",
    "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvfp4", "uint2", "uint4", "uint8",
]  # fmt: skip
