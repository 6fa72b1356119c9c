"""What a number is: the formats, and the arithmetic of one element, one block, one byte."""

from numerics.formats import blocks, codebooks, floats, integers
from numerics.formats.block import Block, Blocks, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.blocks import *  # noqa: F403
from numerics.formats.codebook import Codebook
from numerics.formats.codebooks import *  # noqa: F403
from numerics.formats.dtype import Dtype, Element, Float, Integer
from numerics.formats.errors import NumericsError, NumericsWarning
from numerics.formats.floats import *  # noqa: F403
from numerics.formats.integers import *  # noqa: F403
from numerics.formats.p3109 import p3109
from numerics.formats.registry import dtype, dtypes

__all__ = [
    "Block", "Blocks", "Codebook", "Dtype", "Element", "Float", "Integer", "MXBlock", "MicroexponentBlock",
    "NumericsError", "NumericsWarning", "ScaledBlock", "TieredBlock", "dtype", "dtypes", "p3109",
]  # fmt: skip
__all__ += integers.__all__
__all__ += floats.__all__
__all__ += codebooks.__all__
__all__ += blocks.__all__
