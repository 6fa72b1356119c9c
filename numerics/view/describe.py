"""What the command line says of a format and of a number in it: plain data, drawn by cli/."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np

from numerics.formats.block import (
    Block,
    Blocks,
    ElementBlock,
    TieredBlock,
    reading,
    scale_values,
    tiered_scale,
)
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import NO_FACTS, Dtype, Element, Float
from numerics.formats.errors import NumericsError

FACTS = ("bits", "max", "min", "smallest_normal", "smallest_subnormal")


def facts(d: Dtype) -> dict[str, Any]:
    """Every fact of a format, declared and derived.

    >>> from numerics.formats import fp4
    >>> facts(fp4)["max"], facts(fp4)["kind"]
    (6.0, 'float')
    """
    declared = {f.name: getattr(d, f.name) for f in fields(d) if f.name not in ("name", *NO_FACTS)}
    derived = {name: getattr(d, name) for name in FACTS}
    if isinstance(d, Codebook):  # whose values are of one kind: only the least positive one is known
        del derived["smallest_normal"]
    known = {name: value for name, value in (declared | derived).items() if value is not None}
    known = {name: str(value) if isinstance(value, Dtype) else value for name, value in known.items()}
    return {"name": d.name, "kind": d.kind, **known, "aliases": list(d.aliases), "source": d.source}


def bit_fields(code: int, d: Element) -> list[tuple[str, str]]:
    """A code as (sign | exponent | mantissa | integer | code, bits) in the order in which they are written.

    >>> from numerics.formats import fp8_e4m3
    >>> bit_fields(0x2A, fp8_e4m3)
    [('sign', '0'), ('exponent', '0101'), ('mantissa', '010')]
    """
    digits = f"{code:0{d.bits}b}"
    if not isinstance(d, Float):
        return [("integer" if d.kind == "integer" else "code", digits)]
    exponent = int(d.signed) + d.exponent
    parts = [("sign", digits[: int(d.signed)]), ("exponent", digits[int(d.signed) : exponent]),
             ("mantissa", digits[exponent:])]  # fmt: skip
    return [(name, bits) for name, bits in parts if bits]


@dataclass(frozen=True)
class Encoded:
    """One number in a format: its code, what the code means, and what lies beside the number."""

    x: float
    code: int
    bits: tuple[tuple[str, str], ...]
    value: float
    error: float
    below: float | None  # the largest value of the format that is at most x
    above: float | None  # the smallest that is at least x; past the ends what would follow, if x can overflow
    tie: bool  # x is midway between the two


def encoded(d: Dtype, numbers: list[float], **options: Any) -> list[Encoded]:
    """Numbers in an element format; options as for `Element.encode`.

    Raises NumericsError for a block format, whose codes mean nothing alone.

    >>> from numerics.formats import fp4
    >>> encoded(fp4, [2.5])[0].tie
    True
    """
    if not isinstance(d, Element):
        raise NumericsError(f"{d} is a block format: one number alone has no code in it")
    finite = sorted({v for v in d.values() if math.isfinite(v)})
    codes = d.encode(numbers, **options)
    overflows = (options.get("overflow") or d.default_overflow) == "nonsaturate"
    wider = [*_past(d, -1), *finite, *_past(d, 1)] if overflows else finite
    triples = zip(numbers, codes, d.decode(codes), strict=True)
    return [
        _encoded(d, x, code, value, wider if wider[0] < x < wider[-1] else finite)
        for x, code, value in triples
    ]


def _encoded(d: Element, x: float, code: int, value: float, finite: list[float]) -> Encoded:
    return _between(x, code, tuple(bit_fields(code, d)), value, finite)


def _between(
    x: float, code: int, bits: tuple[tuple[str, str], ...], value: float, finite: list[float]
) -> Encoded:
    """A number with those of the finite values, which are sorted, between which it lies."""
    below, above = _neighbours(x, finite)
    tie = False
    if below is not None and above is not None and below != above:
        tie = 2 * Fraction(x) == Fraction(below) + Fraction(above)
    error = 0.0 if value == x else value - x
    return Encoded(x, code, bits, value, error, below, above, tie)


def _past(d: Element, sign: int) -> list[float]:
    """What would follow the largest value of a sign: half-way there a number begins to overflow."""
    if isinstance(d, Codebook):
        end = d.follows if sign > 0 else d.precedes
        return [] if end is None else [end]
    return [sign * d.beyond] if isinstance(d, Float) and (sign > 0 or d.signed) else []


def _neighbours(x: float, finite: list[float]) -> tuple[float | None, float | None]:
    if not math.isfinite(x):
        return None, None
    i, j = bisect.bisect_right(finite, x), bisect.bisect_left(finite, x)
    return finite[i - 1] if i else None, finite[j] if j < len(finite) else None


@dataclass(frozen=True)
class EncodedBlock:
    """A block: the code of its scale and what it means, its microexponents as bits, its elements.

    counts: are the codes of its elements counts?  None in formats of one reading (docs/formats.md §8).
    """

    scale: int
    scale_value: float
    microexponents: str | None
    counts: bool | None
    elements: list[Encoded]


@dataclass(frozen=True)
class EncodedBlocks:
    """Numbers in a block format: blocks in a row, and the scale of the tensor where there is one."""

    tensor_scale: float | None
    blocks: list[EncodedBlock]


def encoded_blocks(d: Block, numbers: list[float], **options: Any) -> EncodedBlocks:
    """Numbers as a row of blocks; options as for `Block.encode`.

    >>> from numerics.formats import mxfp4
    >>> block = encoded_blocks(mxfp4, [1.0, 0.3, 5.0]).blocks[0]
    >>> block.scale, block.scale_value, [one.value for one in block.elements]
    (127, 1.0, [1.0, 0.5, 4.0])
    >>> block.elements[2].below, block.elements[2].above, block.elements[2].tie
    (4.0, 6.0, True)
    """
    made = d.encode(numbers, **options)
    rows = list(zip(numbers, made.codes, d.decode(made), _beside(d, made), strict=True))
    micro = made.microexponents or [None] * len(made.scale)
    blocks = [
        EncodedBlock(
            scale, _scale_value(d, scale), None if bits is None else _flags(d, bits), _counts(d, scale),
            [_element(d, scale, row) for row in rows[k * d.block : (k + 1) * d.block]],
        )
        for k, (scale, bits) in enumerate(zip(made.scale, micro, strict=True))
    ]  # fmt: skip
    return EncodedBlocks(made.tensor_scale, blocks)


def _scale_value(d: Block, code: int) -> float:
    """What the elements are multiplied by; of microexponent blocks the shared power of two."""
    if isinstance(d, TieredBlock):
        return tiered_scale(code)
    return float(scale_values(d, code)) if isinstance(d, ElementBlock) else math.ldexp(1.0, code - 127)


def _counts(d: Block, scale: int) -> bool | None:
    """Does the scale say that its block is one of counts?  None in formats of one reading."""
    counts = getattr(d, "integers", None)
    return None if counts is None else isinstance(d, ElementBlock) and reading(d, scale) is counts


def _flags(d: Block, byte: int) -> str:
    return f"{byte:0{d.micro_bits}b}"


def _beside(d: Block, made: Blocks) -> list[list[float]]:
    """The finite values that each element can take at the scale, and the microexponents, of its block."""
    codes = np.arange(1 << d.element_bits)[:, None].repeat(len(made.codes), axis=1)
    kind = np.uint8 if d.element_bits <= 8 else np.uint16
    scale, micro = (
        None if fields is None else np.asarray(fields)[None].repeat(len(codes), axis=0)
        for fields in (made.scale, made.microexponents)
    )
    every = d.decode(Blocks(d, 1, codes.astype(kind), scale, micro, made.tensor_scale))
    return [[v.item() for v in np.unique(column[np.isfinite(column)])] for column in every.T]


def _element(d: Block, scale: int, row: tuple[float, int, float, list[float]]) -> Encoded:
    """An element of a block.  row: a number, its code and value, and the values of its place."""
    x, code, value, finite = row
    digits = f"{code:0{d.element_bits}b}"
    signed = [("sign", digits[:1]), ("mantissa", digits[1:])]
    bits = bit_fields(code, reading(d, scale)) if isinstance(d, ElementBlock) else signed
    return _between(x, code, tuple(bits), value, finite)


@dataclass(frozen=True)
class Run:
    """Codes in a row whose values are of one kind and sign: the first and the last of them."""

    kind: str
    first: int
    last: int
    begins: float
    ends: float


def runs(d: Element) -> list[Run]:
    """All codes as runs: zero, subnormal, normal, inf, nan; integers, or a codebook's, of one sign.

    >>> from numerics.formats import int16
    >>> [(run.first, run.last, run.begins, run.ends) for run in runs(int16)][-1]
    (32768, 65535, -32768.0, -1.0)
    """
    values, found = d.values(), []
    kinds = [(_kind(d, value), math.copysign(1.0, value)) for value in values]
    start = 0
    for code in range(1, len(values) + 1):
        if code == len(values) or kinds[code] != kinds[start]:
            found.append(Run(kinds[start][0], start, code - 1, values[start], values[code - 1]))
            start = code
    return found


def _kind(d: Element, value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return "nan" if math.isnan(value) else "inf"
    if value == 0:
        return "zero"
    if not isinstance(d, Float):
        return d.kind
    return "normal" if abs(value) >= d.smallest_normal else "subnormal"


def code_table(d: Element) -> list[tuple[int, float]]:
    """Every code and its value."""
    return list(enumerate(d.values()))


def has_code_table(d: Dtype) -> bool:
    """Is the table of its codes short enough to be read?"""
    return not isinstance(d, Block) and isinstance(d, Element) and d.bits <= 8


def plain(said: Any) -> Any:
    """Returns what was said as JSON can hold it: Inf and NaN, which it lacks, become strings."""
    if isinstance(said, float) and not math.isfinite(said):
        return str(said)
    if isinstance(said, dict):
        return {key: plain(value) for key, value in said.items()}
    return [plain(value) for value in said] if isinstance(said, (list, tuple)) else said
