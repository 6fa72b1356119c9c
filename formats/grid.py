"""What the arithmetic must know of a format: its values as a grid laid over float32's.

A Grid is derived from a Dtype, a rounding mode and an overflow policy; nothing here is a fact of
its own.  None means "this format has none of it" and is always static; numbers may be run-time
lanes.  An integer is a float whose numbers are all subnormal: one grid serves both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import copysign, frexp, isinf, isnan, ldexp
from typing import Any

from numerics.formats.block import ElementBlock, MicroexponentBlock, MXBlock, ScaledBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float, Integer
from numerics.formats.rounding import NEAREST

Number = Any  # int, or an executor's lane
ONE = 1 << 23  # one unit of float32's exponent field


@dataclass(frozen=True)
class Grid:
    """The parameters of codec.py."""

    emin: Number  # float32 exponent field of the smallest normal
    drop: Number  # float32 fraction bits that the format does not have
    sign: Number  # position of the sign bit = bits of the magnitude
    last: Number  # code of the largest finite magnitude; of a codebook its last place
    limit: Number  # float32 bits to which larger magnitudes are clamped before rounding, and to which a
    # block's maximum is scaled; of a codebook, whose ends are its limits, only the latter
    nan: Number  # code that a NaN becomes
    negative_limit: Number | None = None  # the same for negative inputs, where it differs
    overflow: Number | None = None  # code that an infinity becomes, where clamping does not say it
    negative: Number | None = None  # unsigned formats: code that inputs below zero become
    wrap: Number | None = None  # two's complement: the mask of a code
    has_nan: Number | None = None  # some codes mean NaN
    inherit: Number | None = None  # NaN keeps its sign
    nan_code: Number | None = None  # fnuz, extended: the one code that means NaN, where -0 would be
    inf: Number | None = None  # magnitude code that means infinity
    prefix: Number | None = None  # float32's exponent and bias: codes are its upper bits
    flush: Number | None = None  # there are no subnormals
    lowest: Number | None = None  # powers of two without a zero: bits of the smallest
    deep: Number | None = None  # normal numbers (has_zero), or powers of two, too small to be float32's own
    adder: Number | None = None  # one float32 addition rounds half to even
    bare_zero: Number | None = None  # signed numbers, but one zero
    direct: Number | None = None  # signed, and rounding half to even needs no code between
    nan_block: Number = 0  # what elements of a block with NaN or Inf become
    values: Any = None  # a codebook: the float32 bits of every code
    steps: Any = None  # the keys (codec.py) from which on each of its places begins, but the first
    codes: Any = None  # the code of each place
    heights: Any = None  # stochastic rounding: the float32 bits of each place, overflow's as if it were one
    other: Any = None  # of blocks: the Grid of what codes mean where their scale has its sign bit set
    step: Number | None = None  # there: the float32 bits of what a count is worth
    inverse: Number | None = None  # and of how many counts are 1


@dataclass(frozen=True)
class Scale:
    """How an MX block finds its scale (scaling.mx_scale)."""

    emax: Number  # exponent of the element's largest normal number
    addend: Number  # the rule: what is added to the bits of the block's largest magnitude
    subnormal_addend: Number  # the same where that magnitude is a float32 subnormal
    past: Number | None = None  # the rule `bump`: bits of what follows the largest element
    least: Number | None = None  # and the count of the most negative one


@dataclass(frozen=True)
class Range:
    """The integers of a format (scaling.affine_code)."""

    low: Number  # the smallest
    high: Number  # the largest
    mask: Number  # of a code


def float32_bits(value: float) -> int:
    """The bits of a positive value that float32 holds exactly.

    By integers, since a conversion would lose subnormals in a thread that flushes them.

    >>> hex(float32_bits(448.0)), hex(float32_bits(2.0**-127))
    ('0x43e00000', '0x400000')
    """
    significand, exponent = frexp(value)
    field = exponent + 126
    if field < 1:
        return int(ldexp(significand, exponent + 149))
    return (field << 23) + int(ldexp(significand, 24)) - ONE


_TRUNCATING = {"toward_zero": (0, 0), "to_odd": (0, 0), "floor": (0, 1), "ceil": (1, 0)}


@lru_cache(maxsize=4096)
def grid(d: Element, rounding: str, overflow: str) -> Grid:
    """The grid of an element format under a rounding mode and an overflow policy."""
    if isinstance(d, Codebook):
        return of_codebook(d, rounding, overflow)
    return of_integer(d) if d.kind == "integer" else of_float(d, rounding, overflow)  # type: ignore[arg-type]


def of_integer(d: Integer, exponent: int = 0, symmetric: bool = False) -> Grid:
    """Integers times 2**exponent; symmetric: without the most negative one."""
    digits = d.bits - d.signed
    last = (1 << digits) - 1
    top = float32_bits(float(last)) + (exponent << 23)
    emin = 127 + digits + exponent
    return Grid(
        emin=emin,
        drop=23 - digits,
        sign=digits,
        last=last,
        limit=top,
        nan=0,
        negative_limit=None if symmetric or d.narrow or not d.signed else emin << 23,
        negative=None if d.signed else 0,
        wrap=(2 << digits) - 1 if d.signed else None,
        adder=1,
        bare_zero=1,
        direct=1 if d.signed else None,
    )


def of_float(d: Float, rounding: str, overflow: str) -> Grid:
    """A float format: IEEE 754-2019 §3.3 with the specials of its row."""
    drop, sign = 23 - d.mantissa, d.exponent + d.mantissa
    top = float32_bits(d.max)
    beyond = float32_bits(d.beyond)
    limit = negative_limit = top
    if overflow == "nonsaturate":  # IEEE 754-2019 §7.4: directed roundings stop at the largest
        up, down = _TRUNCATING.get(rounding, (1, 1))
        limit, negative_limit = beyond if up else top, beyond if down else top
        if not (down or d.signed) and d.has_zero:  # below zero there is nothing: inward is 0
            negative_limit = 0
    emin = 128 - d.bias - (not d.has_zero)
    deep = emin < d.has_zero
    adder = d.subnormals and d.mantissa and not deep and (beyond >> 23) + drop <= 254
    prefix = (d.exponent, d.bias, d.subnormals) == (8, 127, True)
    direct = (adder and overflow == "saturate") or (prefix and d.specials == "ieee")
    return Grid(
        emin=emin,
        drop=drop,
        sign=sign,
        last=d.last,
        limit=limit,
        nan=d.last if d.nan is None else d.nan,
        negative_limit=None if negative_limit == limit else negative_limit,
        overflow=d.last + 1 if overflow == "nonsaturate" else None,
        negative=None if d.signed else (d.nan if overflow == "nonsaturate" else 0),
        has_nan=1 if d.has_nan else None,
        inherit=1 if d.signed and d.specials in ("ieee", "fn") else None,
        nan_code=d.nan if d.nan_is_negative_zero else None,
        inf=d.inf,
        prefix=1 if prefix else None,
        flush=None if d.subnormals or not d.has_zero else 1,
        deep=1 if deep else None,
        lowest=None if d.has_zero else float32_bits(d.smallest_normal),
        bare_zero=1 if d.nan_is_negative_zero else None,
        adder=1 if adder else None,
        direct=1 if direct and d.signed else None,
    )


# ---- codebooks (docs/formats.md §12) -----------------------------------------------------------------

INFINITY = 0x7F800000
UNREACHED = 0x7FFFFFFF  # a key past every number: places beyond the last begin there


def of_codebook(d: Codebook, rounding: str, overflow: str) -> Grid:
    """A list of values: where each begins, in the order of numbers.

    Lists are filled up, so that books of as many bits share their kernels.
    """
    places = d.ranked(overflow)
    room = (1 << d.bits) << (len(places) > 1 << d.bits)
    steps = [_step(low, high, rounding) for low, high in pairwise(places)]
    if overflow == "nonsaturate" and rounding not in (*NEAREST, "stochastic"):
        steps = _stopping(steps, d.precedes is not None, rounding)
    heights = [signed_bits(value) for value, _ in places]
    codes = [code for _, code in places]
    return Grid(
        emin=0, drop=0, sign=d.bits, last=len(codes) - 1, limit=float32_bits(d.scale_end), nan=d.nan,
        has_nan=1 if d.has_nan else None,
        nan_block=d.nan if d.has_nan else 0,
        values=tuple(map(signed_bits, d.listed)),
        steps=tuple(steps + [UNREACHED] * (room - 1 - len(steps))),
        codes=tuple(codes + codes[-1:] * (room - len(codes))),
        heights=tuple(heights + heights[-1:] * (room - len(heights))) if rounding == "stochastic" else None,
    )  # fmt: skip


def signed_bits(value: float) -> int:
    """The bits of any float32 as int32; of NaN 0x7FC00000.

    >>> signed_bits(-0.0) == -(2**31), signed_bits(1.0) == 0x3F800000
    (True, True)
    """
    if isnan(value):
        return 0x7FC00000
    bits = INFINITY if isinf(value) else float32_bits(abs(value)) if value else 0
    return bits - (1 << 31) if copysign(1.0, value) < 0 else bits


def first_key(value: float, above: bool = False) -> int:
    """The key of the first float32 at or above a number, or above it; -0.0 and 0.0 lie at one place.

    A float32's key is its bits, a negative one's -1 less its magnitude's: keys rise as numbers do.

    >>> first_key(0.0), first_key(0.0, above=True), first_key(-0.0, above=True)
    (-1, 1, 1)
    """
    if value == 0:
        return 1 if above else -1
    magnitude = min(float32_bits(abs(value)), INFINITY)
    exact = value_of_bits(magnitude) == abs(value)
    if value > 0:
        return magnitude + (above or not exact)
    return -1 - magnitude + (above and exact)


def value_of_bits(magnitude: int) -> float:
    """The number that a finite float32's bits stand for, without its sign."""
    field = magnitude >> 23
    return ldexp((magnitude & (ONE - 1)) + (ONE if field else 0), max(field, 1) - 150)


def _step(low: tuple[float, int], high: tuple[float, int], rounding: str) -> int:
    """The first key that goes to the higher of two neighbours.

    The neighbour nearer to zero is the lower one, unless both are 0 or less; half_even and to_odd look at
    its code.
    """
    below, above = low[0], high[0]
    if below == above:  # -0.0 and 0.0
        return 0
    negative = above <= 0
    odd = (high if negative else low)[1] % 2 == 1
    away = {
        "half_even": odd, "half_away": True, "half_up": not negative, "half_down": negative,
        "toward_zero": False, "stochastic": False, "floor": negative, "ceil": not negative, "to_odd": not odd,
    }[rounding]  # fmt: skip
    upward = away is not negative
    if rounding in NEAREST:
        middle = (below + above) / 2
        off = (
            Fraction(below) + Fraction(above) - 2 * Fraction(middle)
        )  # of neighbours far apart it is rounded
        return first_key(middle, above=off > 0 or (off == 0 and not upward))
    return first_key(below, above=True) if upward else first_key(above)


def _stopping(steps: list[int], below: bool, rounding: str) -> list[int]:
    """Directed roundings that go inward stop at the largest: only infinity overflows (IEEE 754-2019 §7.4)."""
    inward = {
        "toward_zero": (True, True),
        "to_odd": (True, True),
        "floor": (False, True),
        "ceil": (True, False),
    }
    low, high = inward[rounding]
    first = [-INFINITY] if below and low else steps[:1]
    last = [INFINITY] if high else steps[-1:]
    return [*first, *steps[1:-1], *last]


@lru_cache(maxsize=4096)
def element_grid(
    d: ElementBlock | MicroexponentBlock, rule: str = "floor", rounding: str = "half_even"
) -> Grid:
    """The grid of a block's elements: they saturate, and integers carry an implied exponent.

    rule: of the scale; `bump` uses the most negative integer, and must see the codes.  rounding: of the
    elements, which only codebooks ask for.
    """
    if isinstance(d, MicroexponentBlock):
        return of_magnitudes(d.mantissa)
    element, bumps = d.element, rule == "bump"
    if isinstance(element, Codebook):
        return replace(grid(element, rounding, "saturate"), other=other_grid(d))
    if isinstance(element, Integer):
        found, nan = of_integer(element, exponent=2 - element.bits, symmetric=not bumps), 0
    else:
        found, nan = of_float(element, "half_even", "saturate"), element.nan or 0
    return replace(found, nan_block=nan, direct=None if bumps else found.direct, other=other_grid(d))


@lru_cache(maxsize=4096)
def scale_grid(d: ScaledBlock) -> Grid:
    """The grid of a block's float scale."""
    return grid(d.scale, "half_even", "saturate")


def other_grid(d: ElementBlock) -> Grid | None:
    """The grid of what codes mean where a block's scale has its sign bit set; None where that is no flag."""
    if not isinstance(d, ScaledBlock) or d.integers is None:
        return None
    steps = float32_bits(d.step or 1.0), float32_bits(d.steps_in_one)
    return replace(grid(d.integers, "half_even", "saturate"), step=steps[0], inverse=steps[1])


def of_magnitudes(digits: int) -> Grid:
    """Sign and magnitude of that many bits: what elements under microexponents are, in steps."""
    last = (1 << digits) - 1
    top = float32_bits(float(last))
    return Grid(emin=127 + digits, drop=23 - digits, sign=digits, last=last, limit=top, nan=0, adder=1)


def _rounding_past(d: MXBlock) -> tuple[int, int]:
    """What a maximum lacks to 2 from which on it rounds half to even past the largest element."""
    element = d.element
    if isinstance(element, Codebook):
        return 0, 0  # which has no such rule
    following = element.beyond if isinstance(element, Float) else element.max + 1
    middle = float32_bits(d.element_unit * (element.max + following) / 2) & (ONE - 1)
    stays = isinstance(element, Float) and element.last % 2 == 0  # a tie between the two
    return ONE - stays - middle, ONE - stays - (ONE + middle) // 2


@lru_cache(maxsize=4096)
def scale_of(d: MXBlock, rule: str) -> Scale:
    """The scale rules of docs/formats.md §4 as numbers.

    A maximum is a significand times a power of two; each rule says from which significand on the
    scale is one higher, so adding what is missing to 2 and truncating decides it.  Subnormal
    maxima lie in the one binade 2**-127 .. 2**-126, at half the distance.
    """
    element = d.element
    top = float32_bits(d.element_unit * element.scale_end) & (ONE - 1)
    digits = element.mantissa if isinstance(element, Float) else element.bits
    even = 1 << (22 - digits)
    addend, subnormal = {
        "floor": (0, 0),
        "bump": (0, 0),
        "ceil": (ONE - 1, ONE // 2 - 1),
        "even": (even, even),
        "rceil": (ONE - 1 - top, ONE - 1 - (ONE + top) // 2),
        "tosa": _rounding_past(d),
    }[rule]
    if rule != "bump":
        return Scale(d.emax, addend, subnormal)
    last = element_grid(d).last
    if isinstance(element, Integer):
        return Scale(
            d.emax, addend, subnormal, float32_bits((last + 1) * d.element_unit), last + (not element.narrow)
        )
    assert isinstance(element, Float)  # codebooks have no such rule
    return Scale(d.emax, addend, subnormal, float32_bits(element.beyond), last)


@lru_cache(maxsize=256)
def range_of(d: Integer) -> Range:
    """The integers that a format holds."""
    return Range(int(d.min), int(d.max), (1 << d.bits) - 1)
