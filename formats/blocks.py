"""TABLE of the block formats, one row each, and `mx` and `block_format` for a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from numerics.formats.arguments import SIZED, keywords
from numerics.formats.block import Block, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.dtype import NAME_LENGTH, Element, Float
from numerics.formats.errors import NumericsError, integer, said, shortened
from numerics.formats.floats import e8m0, float_format, fp3, fp4, fp6_e2m3, fp6_e3m2, fp8_e4m3, fp8_e5m2
from numerics.formats.integers import int4, int8, integer_format
from numerics.formats.registry import dtype, dtypes, row

__all__ = [
    "bfp16", "block_format", "hifloat4", "if3", "if4", "if6_e2m3", "if6_e3m2", "mx",
    "mx4", "mx6", "mx9", "mxfp3", "mxfp4", "mxfp6_e2m3", "mxfp6_e3m2",
    "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvfp3", "nvfp4", "nvint4",
]  # fmt: skip

_MX = "OCP MX 1.0 §5.2"
_IF = "arXiv 2603.28765, its code"
_MICRO = "arXiv 2302.08007 §3, table 2"

_int4 = integer_format(4, narrow=True)


def _counts(bits: int) -> Float:
    """Integers of sign and magnitude, as a float whose numbers are all subnormal or next to them."""
    return float_format(1, bits - 2, bias=3 - bits, specials="none", name=f"int{bits}_sign_magnitude")


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
nvint4: ScaledBlock = row(ScaledBlock, "nvint4", "arXiv 2510.25602 (NVINT4)",
    names=("NVINT4",), element=int4, scale=fp8_e4m3, block=16)
if4: ScaledBlock = row(ScaledBlock, "if4", _IF,
    names=("IF4",), element=fp4, scale=fp8_e4m3, block=16, integers=_int4, step=0.8571428571)
if3: ScaledBlock = row(ScaledBlock, "if3", _IF,
    names=("IF3",), element=fp3, scale=fp8_e4m3, block=16, integers=_counts(3), step=1.3333333333)
if6_e2m3: ScaledBlock = row(ScaledBlock, "if6_e2m3", _IF,
    names=("IF6_E2M3",), element=fp6_e2m3, scale=fp8_e4m3, block=16, integers=_counts(6), step=0.2419355)
if6_e3m2: ScaledBlock = row(ScaledBlock, "if6_e3m2", _IF,
    names=("IF6_E3M2",), element=fp6_e3m2, scale=fp8_e4m3, block=16, integers=_counts(6), step=0.9032258065)
nvfp3: ScaledBlock = row(ScaledBlock, "nvfp3", _IF,
    names=("NVFP3",), element=fp3, scale=fp8_e4m3, block=16)
mxfp3: MXBlock = row(MXBlock, "mxfp3", _IF,
    names=("MXFP3",), element=fp3, scale=e8m0, block=32)
mx4: MicroexponentBlock = row(MicroexponentBlock, "mx4", _MICRO,
    names=("MX4",), mantissa=2, block=16, sub_block=2)
mx6: MicroexponentBlock = row(MicroexponentBlock, "mx6", _MICRO,
    names=("MX6",), mantissa=4, block=16, sub_block=2)
mx9: MicroexponentBlock = row(MicroexponentBlock, "mx9", _MICRO,
    names=("MX9",), mantissa=7, block=16, sub_block=2)
hifloat4: TieredBlock = row(TieredBlock, "hifloat4", "arXiv 2602.11287; CANN's HiFloat4",
    names=("HiFloat4", "HiF4", "hif4"), mantissa=3, block=64, sub_block=4)
# fmt: on


@keywords
def block_format(
    *,
    block: int,
    element: Element | str | None = None,
    scale: Float | str | None = None,
    integers: Element | str | None = None,
    mantissa: int | None = None,
    sub_block: int | None = None,
    name: str | None = None,
) -> Block:
    """Returns a block format of your own; it gets every kernel.  The same facts give the same object.

    block: elements a block, 1 to 2**20.
    element: a signed format of single numbers, or its name: a block is OCP MX, or as NVFP4.
    scale: with element: e8m0 (the default: a power of two a block, OCP MX), or a float format of at most
        8 bits with a zero and NaN, such as fp8_e4m3: a float scale a block and a float32 scale a tensor.
    integers: with a float scale that has a sign: what codes mean where that is set, as in IF4, each worth the
        largest element over the largest of these; integer_format(4, narrow=True) beside fp4.
    mantissa, sub_block: instead of element: bits of a magnitude, 1 to 15, and how many elements share a
        microexponent, as in mx6 (4, 2); sub_block divides block into at most 8 parts.
    name: by default made of the facts; not that of another format of the tables.
    Raises NumericsError for facts that contradict each other.  docs/formats.md §9.

    >>> bfp = block_format(element="int4", block=64, name="bfp4")
    >>> bfp.bits, bfp.round([1.0, 0.3])
    (4.125, [1.0, 0.25])
    """
    block = integer("block", block)  # which names the format, whatever type of integer it is
    facts: dict[str, Any] = {"block": block, "mantissa": mantissa, "sub_block": sub_block}
    facts |= {} if integers is None else {"integers": dtype(integers)}
    if element is not None:
        facts |= {"element": dtype(element), "scale": dtype(e8m0 if scale is None else scale)}
    elif scale is not None:
        facts |= {"scale": dtype(scale)}
    if name is None:
        own = [str(facts[fact]) for fact in ("element", "scale", "integers") if fact in facts]
        shared = f"{sub_block}_m{mantissa}" if element is None else "_".join(own)
        name = shortened(f"block{said(block)}_{shared}", NAME_LENGTH)
    made: Block = Block(name=name, **facts)
    return made


@keywords
def mx(element: Element | str = "fp4", block: int = 32) -> Block:
    """Returns the OCP MX format of `block` elements and one e8m0 scale, a power of two.

    element: a signed format of single numbers, or its name, fp4 by default.  block: elements that share a
    scale, 32 by default, 1 to 2**20.  The standard's six formats come back as the objects of the table
    (OCP MX 1.0 §5.2).  Raises NumericsError for an element or a size that cannot be.

    >>> mx("fp4") is mxfp4, mx("fp6_e2m3", block=16)
    (True, mx16_fp6_e2m3)
    """
    wanted, block = dtype(element), integer("block", block)
    for known in dtypes():
        if isinstance(known, MXBlock) and (known.element, known.block) == (wanted, block):
            return known
    name = shortened(f"mx{said(block)}_{wanted}", NAME_LENGTH)
    return block_format(element=wanted, block=block, name=name)  # type: ignore[arg-type]


def _block_of(size: Any, needed: Sequence[Any]) -> str:
    """What is said of blocks of another size: the format that has it; nothing where no block format came."""
    d = None
    for came in needed:
        if isinstance(came, str):
            with suppress(NumericsError):
                came = dtype(came)
        d = came if isinstance(came, Block) else d
    if d is None:
        return ""
    element = getattr(d, "element", None)
    every = (one for one in dtypes() if isinstance(one, Block) and one.block == size)
    alike = [said(one.name) for one in every if element and getattr(one, "element", None) is element
             and getattr(one, "integers", None) is getattr(d, "integers", None)]  # fmt: skip
    if getattr(d, "stem", None) == "mx" and isinstance(size, int) and size > 0:
        alike.insert(0, f"nx.mx({element.name!r}, {size})")  # type: ignore[union-attr]
    return f" blocks of {d} have {d.block} elements, and a format says its size" + (
        f": dtype={' or '.join(alike)};" if alike else ", as nx.block_format declares one;"
    )


SIZED.append(_block_of)
