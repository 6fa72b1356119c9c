"""TABLE of the block formats, one row each, and `mx` and `block_format` for a user's own."""

from __future__ import annotations

from typing import Any

from numerics.formats.block import Block, MicroexponentBlock, MXBlock, ScaledBlock
from numerics.formats.dtype import NAME_LENGTH, Element, Float
from numerics.formats.errors import integer, said, shortened
from numerics.formats.floats import e8m0, fp4, fp6_e2m3, fp6_e3m2, fp8_e4m3, fp8_e5m2
from numerics.formats.integers import int8
from numerics.formats.registry import dtype, dtypes, row

__all__ = [
    "bfp16", "block_format", "mx", "mx4", "mx6", "mx9", "mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3",
    "mxfp8_e5m2", "mxint8", "nvfp4",
]  # fmt: skip

_MX = "OCP MX 1.0 §5.2"
_MICRO = "arXiv 2302.08007 §3, table 2"

# fmt: off
mxfp8_e4m3: MXBlock = row(MXBlock, "mxfp8_e4m3", _MX,
    names=("MXFP8_E4M3", "MXFP8 E4M3"), element=fp8_e4m3, scale=e8m0, block=32)
mxfp8_e5m2: MXBlock = row(MXBlock, "mxfp8_e5m2", _MX,
    names=("MXFP8_E5M2", "MXFP8 E5M2"), element=fp8_e5m2, scale=e8m0, block=32)
mxfp6_e3m2: MXBlock = row(MXBlock, "mxfp6_e3m2", _MX,
    names=("MXFP6_E3M2", "MXFP6 E3M2"), element=fp6_e3m2, scale=e8m0, block=32)
mxfp6_e2m3: MXBlock = row(MXBlock, "mxfp6_e2m3", _MX,
    names=("MXFP6_E2M3", "MXFP6 E2M3"), element=fp6_e2m3, scale=e8m0, block=32)
mxfp4: MXBlock = row(MXBlock, "mxfp4", _MX,
    names=("MXFP4", "mxfp4_e2m1"), element=fp4, scale=e8m0, block=32)
mxint8: MXBlock = row(MXBlock, "mxint8", _MX,
    names=("MXINT8",), element=int8, scale=e8m0, block=32)
bfp16: MXBlock = row(MXBlock, "bfp16", "AMD Quark's ONNX kernel (its torch kernel: scale_rule='bump')",
    names=("BFP16",), element=int8, scale=e8m0, block=8)
nvfp4: ScaledBlock = row(ScaledBlock, "nvfp4", "NVIDIA PTX ISA 8.7, mxf4nvf4",
    names=("NVFP4",), element=fp4, scale=fp8_e4m3, block=16)
mx4: MicroexponentBlock = row(MicroexponentBlock, "mx4", _MICRO,
    names=("MX4",), mantissa=2, block=16, sub_block=2)
mx6: MicroexponentBlock = row(MicroexponentBlock, "mx6", _MICRO,
    names=("MX6",), mantissa=4, block=16, sub_block=2)
mx9: MicroexponentBlock = row(MicroexponentBlock, "mx9", _MICRO,
    names=("MX9",), mantissa=7, block=16, sub_block=2)
# fmt: on


def block_format(
    *,
    block: int,
    element: Element | str | None = None,
    scale: Float | str | None = None,
    mantissa: int | None = None,
    sub_block: int | None = None,
    name: str | None = None,
) -> Block:
    """A block format of your own; it gets every kernel.  The same facts give the same object.

    element and scale (e8m0 by default: MX; another float: as NVFP4), or mantissa and sub_block
    (microexponents, as mx6).  block: elements a block, 1 to 2**20.  name: as for `float_format`.
    Raises NumericsError for facts that contradict each other.

    >>> bfp = block_format(element="int4", block=64, name="bfp4")
    >>> bfp.bits, bfp.round([1.0, 0.3])
    (4.125, [1.0, 0.25])
    """
    facts: dict[str, Any] = {"block": block, "mantissa": mantissa, "sub_block": sub_block}
    if element is not None:
        facts |= {"element": dtype(element), "scale": dtype(e8m0 if scale is None else scale)}
    elif scale is not None:
        facts |= {"scale": dtype(scale)}
    if name is None:
        shared = f"{sub_block}_m{mantissa}" if element is None else f"{facts['element']}_{facts['scale']}"
        name = shortened(f"block{said(block)}_{shared}", NAME_LENGTH)
    made: Block = Block(name=name, **facts)
    return made


def mx(element: Element | str = "fp4", block: int = 32) -> Block:
    """The general OCP MX block: `block` elements and one e8m0 scale.

    The six concrete formats of the standard come back as the objects of the table.

    >>> mx("fp4") is mxfp4, mx("fp6_e2m3", block=16)
    (True, mx16_fp6_e2m3)
    """
    wanted, block = dtype(element), integer("block", block)
    for known in dtypes():
        if isinstance(known, MXBlock) and (known.element, known.block) == (wanted, block):
            return known
    name = shortened(f"mx{said(block)}_{wanted}", NAME_LENGTH)
    return block_format(element=wanted, block=block, name=name)  # type: ignore[arg-type]
