"""One number at a time, by Python integers and fractions: what every other backend must equal.

Nothing here is clever.  A format is the rising ladder of the magnitudes that it can write;
encoding finds the two rungs around a number and takes one of them; decoding is the definition.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction
from functools import cache, lru_cache
from typing import NamedTuple, SupportsFloat

from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float, Integer

Exact = Fraction | float
"""A fraction, or a Python float for what fractions lack: -0.0, and Inf and NaN of either sign."""

HALF = Fraction(1, 2)
INWARD_BELOW = ("toward_zero", "ceil", "to_odd")
"""Roundings that stop at the largest magnitude of negative numbers, or at 0 where there are none."""
DRAWS = 1 << 30  # random bits of stochastic rounding
KEPT = 1 << 16  # answers that a function remembers: blocks are full of zeros, and asked for every executor


def exactly(x: Fraction | SupportsFloat) -> Exact:
    """The number that a scalar is (IEEE 754-2019 §3.3).

    >>> exactly(0.1) == Fraction(0xCCCCCCCCCCCCD, 2**55), exactly(-0.0)
    (True, -0.0)
    """
    if isinstance(x, Fraction):
        return x
    x = float(x)
    lacking = not math.isfinite(x) or (x == 0 and is_negative(x))
    return x if lacking else Fraction(x)


def is_negative(x: Exact) -> bool:
    """The sign bit, of zeros and NaN too (IEEE 754-2019 §5.7.2, isSignMinus)."""
    return math.copysign(1.0, x) < 0 if isinstance(x, float) else x < 0


def is_finite(x: Exact) -> bool:
    """Neither Inf nor NaN (IEEE 754-2019 §5.7.2)."""
    return isinstance(x, Fraction) or math.isfinite(x)


def absolute(x: Exact) -> Fraction:
    """|x| of a finite number (IEEE 754-2019 §5.5.1, abs)."""
    return abs(x) if isinstance(x, Fraction) else Fraction(abs(x))


@cache
def power_of_two(exponent: int) -> Fraction:
    """2**exponent."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def floor_log2(a: Fraction) -> int:
    """The largest e with 2**e <= a, for a > 0 (IEEE 754-2019 §5.3.3, logB).

    >>> floor_log2(Fraction(8)), floor_log2(Fraction(799, 100)), floor_log2(Fraction(1, 3))
    (3, 2, -2)
    """
    e = a.numerator.bit_length() - a.denominator.bit_length()
    return e if power_of_two(e) <= a else e - 1


# ------------------------------------------------------------------------------ what a code means


@cache
def largest_code(dtype: Float) -> int:
    """The code of the largest finite magnitude (docs/formats.md §1).

    >>> from numerics.formats import fp8_e4m3, fp8_e5m2
    >>> hex(largest_code(fp8_e4m3)), hex(largest_code(fp8_e5m2))
    ('0x7e', '0x7b')
    """
    ones = (1 << (dtype.exponent + dtype.mantissa)) - 1
    taken = {"ieee": 1 << dtype.mantissa, "fn": 1, "fnuz": 0, "extended": 1 + (not dtype.signed), "none": 0}
    return ones - taken[dtype.specials]


def nan_code(dtype: Element, negative: bool = False) -> int:
    """The one NaN that is written, or what stands for NaN where there is none (docs/formats.md §2).

    >>> from numerics.formats import float16, fp4, fp8_e4m3, int8
    >>> hex(nan_code(float16, True)), hex(nan_code(fp8_e4m3)), nan_code(fp4, True), nan_code(int8)
    ('0xfe00', '0x7f', 7, 0)
    """
    if isinstance(dtype, Integer):
        return 0
    if isinstance(dtype, Codebook):
        lacking = [code for code, v in enumerate(dtype.listed) if v != v]
        return lacking[0] if lacking else dtype.listed.index(max(v for v in dtype.listed if math.isfinite(v)))
    assert isinstance(dtype, Float)
    if no_negative_zero(dtype):
        return 1 << (dtype.bits - 1)
    if dtype.specials == "extended":
        return (1 << dtype.bits) - 1
    if dtype.specials == "none":
        return largest_code(dtype)
    quiet = 1 << (dtype.mantissa - 1) if dtype.specials == "ieee" else 0
    return sign_bit(dtype, negative) | (largest_code(dtype) + 1) | quiet


def no_negative_zero(dtype: Float) -> bool:
    """Does NaN stand where -0 would (docs/formats.md §1)?"""
    return dtype.signed and dtype.specials in ("fnuz", "extended")


def has_nan(dtype: Element) -> bool:
    """Has the format a code that is no number (docs/formats.md §1)?"""
    if isinstance(dtype, Codebook):
        return any(v != v for v in dtype.listed)
    return isinstance(dtype, Float) and dtype.specials != "none"


def sign_bit(dtype: Float, negative: bool) -> int:
    """The highest bit of the code where the format has a sign and x is negative."""
    return int(dtype.signed and negative) << (dtype.bits - 1)


def magnitude(code: int, dtype: Float) -> Fraction:
    """The magnitude of a code without its sign, on the grid that has no end (IEEE 754-2019 §3.4).

    >>> from numerics.formats import fp8_e4m3
    >>> [int(magnitude(code, fp8_e4m3)) for code in (0x7E, 0x7F, 0x80)]
    [448, 480, 512]
    """
    exponent, fraction = divmod(code, 1 << dtype.mantissa)
    if exponent == 0 and dtype.has_zero:
        return fraction * dtype.subnormals * power_of_two(1 - dtype.bias - dtype.mantissa)
    return (fraction + (1 << dtype.mantissa)) * power_of_two(exponent - dtype.bias - dtype.mantissa)


@lru_cache(KEPT)
def value(code: int, dtype: Element) -> Exact:
    """The number that a code stands for (docs/formats.md §1, §2).

    >>> from numerics.formats import fp8_e4m3, fp8_e4m3fnuz, int4
    >>> value(0x01, fp8_e4m3), value(0x80, fp8_e4m3), value(0x80, fp8_e4m3fnuz), value(15, int4)
    (Fraction(1, 512), -0.0, nan, Fraction(-1, 1))
    """
    if isinstance(dtype, Integer):
        wraps = dtype.signed and code >> (dtype.bits - 1)
        return Fraction(code - (1 << dtype.bits) if wraps else code)
    if isinstance(dtype, Codebook):
        return exactly(dtype.listed[code])
    assert isinstance(dtype, Float)
    negative, rest = divmod(code, 1 << (dtype.bits - dtype.signed))
    if no_negative_zero(dtype) and negative and rest == 0:
        return math.nan
    last = largest_code(dtype)
    if rest > last:
        infinite = dtype.specials in ("ieee", "extended") and rest == last + 1
        special = math.inf if infinite else math.nan
        return math.copysign(special, -negative)
    a = magnitude(rest, dtype)
    return (-a if a else -0.0) if negative else a


# --------------------------------------------------------------------------------------- rounding


def ties_away(odd: bool, negative: bool) -> dict[str, bool]:
    """The modes that take the nearest: does a tie go away from zero (IEEE 754-2019 §4.3.1)?"""
    return {"half_even": odd, "half_away": True, "half_up": not negative, "half_down": negative}


def always_away(odd: bool, negative: bool) -> dict[str, bool]:
    """The directed modes: does all that is inexact go away from zero (IEEE 754-2019 §4.3.2)?"""
    return {"toward_zero": False, "floor": negative, "ceil": not negative, "to_odd": not odd}


def rounds_away(f: Fraction, odd: bool, negative: bool, rounding: str, random: int | None = None) -> bool:
    """Does a number round away from zero (docs/formats.md §3; IEEE 754-2019 §4.3)?

    f: the discarded fraction of a step, 0 <= f < 1.  odd: is the code toward zero odd?
    negative: is the number?  random: R, for stochastic rounding.

    >>> rounds_away(HALF, True, False, "half_even"), rounds_away(HALF, True, True, "half_up")
    (True, False)
    """
    if rounding == "stochastic":
        assert random is not None
        return f + Fraction(random % (1 << 30), 1 << 30) >= 1
    ties = ties_away(odd, negative)
    if rounding in ties:
        return f > HALF or (f == HALF and ties[rounding])
    return f > 0 and always_away(odd, negative)[rounding]


def round_to_integer(a: Fraction, negative: bool, rounding: str, random: int | None = None) -> int:
    """A magnitude rounded to an integer (docs/formats.md §3).

    >>> round_to_integer(Fraction(5, 2), False, "half_even")
    2
    """
    whole = math.floor(a)
    return whole + rounds_away(a - whole, whole % 2 == 1, negative, rounding, random)


class Ladder(NamedTuple):
    """The magnitudes that a float format writes, rising, and the first one that it lacks."""

    values: list[Fraction]
    codes: list[int]


@cache
def ladder(dtype: Float) -> Ladder:
    """The ladder of a format; docs/formats.md §2, "the grid continued past the largest value".

    >>> from numerics.formats import fp4
    >>> [float(v) for v in ladder(fp4).values]
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
    """
    codes = list(range(largest_code(dtype) + 2))
    if dtype.has_zero and not dtype.subnormals:
        del codes[1 : 1 << dtype.mantissa]
    return Ladder([magnitude(code, dtype) for code in codes], codes)


@lru_cache(KEPT)
def round_magnitude(
    a: Fraction, dtype: Float, negative: bool, rounding: str, random: int | None = None
) -> int:
    """The code of a magnitude on the continued grid; above `largest_code`: too large.

    >>> from numerics.formats import fp8_e4m3
    >>> [hex(round_magnitude(Fraction(a), fp8_e4m3, False, "half_even")) for a in (464, 465, 9e9)]
    ['0x7e', '0x7f', '0x7f']
    """
    values, codes = ladder(dtype)
    at = bisect_right(values, a) - 1
    if at < 0:  # below the smallest of a format without zero
        return 0
    if at + 1 == len(values):
        return codes[at]
    f = (a - values[at]) / (values[at + 1] - values[at])
    return codes[at + rounds_away(f, codes[at] % 2 == 1, negative, rounding, random)]


# --------------------------------------------------------------------------------------- encoding


def encode(
    x: Fraction | SupportsFloat,
    dtype: Element,
    rounding: str = "half_even",
    overflow: str = "saturate",
    random: int | None = None,
) -> int:
    """The code of a number, rounded once (docs/formats.md §2, §3).

    x: a Python or NumPy float, or a fraction.  random: R in [0, 2**30), for stochastic rounding.

    >>> from numerics.formats import float16, fp8_e4m3, int8
    >>> hex(encode(0.3, fp8_e4m3)), hex(encode(-70000.0, float16, overflow="nonsaturate"))
    ('0x2a', '0xfc00')
    >>> encode(-0.6, int8), encode(0.25, int8, "stochastic", random=3 << 28)
    (255, 1)
    """
    x = exactly(x)
    if x != x:
        return nan_code(dtype, is_negative(x))
    if isinstance(dtype, Codebook):
        return encode_listed(x, dtype, rounding, overflow, random)
    if isinstance(dtype, Integer):
        return _encode_integer(x, dtype, rounding, random)
    assert isinstance(dtype, Float)
    if not dtype.signed and (is_negative(x) or (x == 0 and not dtype.has_zero)):
        return _encode_below(x, dtype, rounding, overflow, random)
    return _encode_float(x, dtype, rounding, overflow, random)


def _encode_float(x: Exact, dtype: Float, rounding: str, overflow: str, random: int | None) -> int:
    negative = is_negative(x)
    if not is_finite(x):
        return overflow_code(dtype, negative, rounding, overflow, infinite=True)
    code = round_magnitude(absolute(x), dtype, negative, rounding, random)
    if code > largest_code(dtype):
        return overflow_code(dtype, negative, rounding, overflow)
    if code == 0 and no_negative_zero(dtype):  # the code of -0 is taken by NaN
        return 0
    return sign_bit(dtype, negative) | code


def overflow_code(dtype: Float, negative: bool, rounding: str, overflow: str, infinite: bool = False) -> int:
    """What a number becomes that is too large, or infinite (docs/formats.md §2; IEEE 754-2019 §7.4)."""
    inward = INWARD_BELOW if negative else ("toward_zero", "to_odd", "floor")
    if overflow == "saturate" or (rounding in inward and not infinite):
        return sign_bit(dtype, negative) | largest_code(dtype)
    if dtype.specials in ("ieee", "extended"):
        return sign_bit(dtype, negative) | (largest_code(dtype) + 1)
    return nan_code(dtype, negative)


def _encode_below(x: Exact, dtype: Float, rounding: str, overflow: str, random: int | None) -> int:
    """A number below all that an unsigned format holds: its least code, or NaN."""
    if overflow == "saturate":
        return 0
    vanishes = dtype.has_zero and is_finite(x)
    if vanishes and rounding in INWARD_BELOW:
        return 0
    if vanishes and round_magnitude(absolute(x), dtype, True, rounding, random) == 0:
        return 0
    return nan_code(dtype)


@cache
def integer_range(dtype: Integer) -> tuple[int, int]:
    """The least and the largest value (docs/formats.md §1)."""
    low = dtype.narrow - (1 << (dtype.bits - 1)) if dtype.signed else 0
    return low, (1 << (dtype.bits - dtype.signed)) - 1


def _encode_integer(x: Exact, dtype: Integer, rounding: str, random: int | None) -> int:
    low, high = integer_range(dtype)
    if is_finite(x):
        a = round_to_integer(absolute(x), is_negative(x), rounding, random)
        x = Fraction(-a if is_negative(x) else a)
    return int(min(max(x, low), high)) % (1 << dtype.bits)


# --------------------------------------------------------------------------------------- codebooks


class Shelf(NamedTuple):
    """The values that are written, rising, and their codes; the codes of -0.0 and 0.0 where they differ."""

    values: list[Fraction]
    codes: list[int]
    minus_zero: int | None
    zero: int | None


@cache
def shelf(dtype: Codebook) -> Shelf:
    """Of codes with one value the least; of 0.0 and -0.0, where both are there, each has its own.

    >>> from numerics.formats import codebook_format
    >>> shelf(codebook_format([1.0, 0.5, 0.5, -1.0])).codes
    [3, 1, 0]
    """
    first: dict[str, int] = {}
    for code, v in enumerate(dtype.listed):
        first.setdefault(repr(v), code)
    plus, minus = first.get("0.0", first.get("-0.0")), first.get("-0.0", first.get("0.0"))
    found: dict[Fraction, int] = {}
    for code, v in enumerate(dtype.listed):
        if math.isfinite(v):
            found.setdefault(Fraction(v), code)
    values = sorted(found)
    return Shelf(values, [found[v] for v in values], minus, plus)


def as_float32(x: Exact, rounding: str) -> Exact:
    """A number as codebooks take it: float32, rounded to odd, or cut toward zero where bits are drawn.

    >>> float(as_float32(Fraction(1) + Fraction(1, 2**40), "half_even")), float(as_float32(1.5, "floor"))
    (1.0000001192092896, 1.5)
    """
    if not isinstance(x, Fraction) or x == 0:
        return x
    a, drawn = abs(x), rounding == "stochastic"
    exponent = floor_log2(a)
    step = power_of_two(max(exponent - 23, -149))
    count = math.floor(a / step)
    if count * step != a and not drawn:
        count |= 1
    cut = count * step
    if exponent > 127:
        if drawn:
            return math.inf if x > 0 else -math.inf
        cut = power_of_two(128) - power_of_two(104)
    if cut == 0:
        return -0.0 if x < 0 else Fraction(0)
    return -cut if x < 0 else cut


def encode_listed(x: Exact, dtype: Codebook, rounding: str, overflow: str, random: int | None) -> int:
    """The code of a number that is no NaN: of one of its two neighbours, or of overflow.

    >>> from numerics.formats import nf4
    >>> [encode_listed(Fraction(v), nf4, "half_even", "saturate", None) for v in (-9, 0, 1)]
    [0, 7, 15]
    """
    x = as_float32(x, rounding)
    if x == 0 and shelf(dtype).zero is not None:
        return code_at(Fraction(0), dtype, is_negative(x))
    return _code_of(x, dtype, rounding, overflow, random)


@lru_cache(KEPT)
def _code_of(x: Exact, dtype: Codebook, rounding: str, overflow: str, random: int | None) -> int:
    """The same of a float32 number for which no sign of zero matters."""
    values = shelf(dtype).values
    low, high = values[0], values[-1]
    if x > high or x < low:
        edge = high if x > high else low
        if overflow == "nonsaturate" and (x > high or dtype.precedes is not None):
            return _overflow(x, edge, dtype, rounding, random)
        return code_at(edge, dtype, x < 0)
    number = Fraction(x)
    at = bisect_right(values, number) - 1
    if values[at] == number:
        return code_at(number, dtype, is_negative(x))
    near, far = values[at], values[at + 1]
    if far <= 0:
        near, far = far, near
    gap = Gap(near, far, code_at(near, dtype, far < near) % 2 == 1)
    away = gap.is_crossed(number, rounding, random)
    return code_at(far if away else near, dtype, is_negative(x))


def code_at(v: Fraction, dtype: Codebook, negative: bool) -> int:
    """The code that is written for a value; negative: of zero, where it has a code for each sign."""
    found = shelf(dtype)
    if v == 0:
        code = found.minus_zero if negative else found.zero
        assert code is not None
        return code
    return found.codes[found.values.index(v)]


def nearest32(a: Fraction) -> Fraction:
    """A magnitude as float32 has it, half to even."""
    step = power_of_two(max(floor_log2(a) - 23, -149)) if a else Fraction(1)
    return round_to_integer(a / step, False, "half_even") * step


class Gap(NamedTuple):
    """Two neighbours of a codebook, the one nearer to zero first; odd: is the nearer one's code?"""

    near: Fraction
    far: Fraction
    odd: bool

    def is_crossed(self, x: Fraction, rounding: str, random: int | None) -> bool:
        """Does a number between them go to the neighbour further from zero?"""
        passed, width = x - self.near, self.far - self.near
        if rounding == "stochastic":
            assert random is not None
            fraction = nearest32(nearest32(abs(passed)) / nearest32(abs(width)))
            return math.floor(fraction * DRAWS) + random % DRAWS >= DRAWS
        return rounds_away(passed / width, self.odd, width < 0, rounding)


def _overflow(x: Exact, edge: Fraction, dtype: Codebook, rounding: str, random: int | None) -> int:
    """A number past the last value of its side: that, or Inf, or NaN (IEEE 754-2019 §7.4)."""
    negative, kept = x < 0, code_at(edge, dtype, x < 0)
    infinity = -math.inf if negative else math.inf
    code = dtype.listed.index(infinity) if infinity in dtype.listed else nan_code(dtype)
    if not isinstance(x, Fraction):
        return code
    if rounding in ("toward_zero", "to_odd", "ceil" if negative else "floor"):
        return kept
    beyond = dtype.precedes if negative else dtype.follows
    assert beyond is not None
    past = Fraction(beyond)
    if abs(x) >= abs(past):
        return code
    return code if Gap(edge, past, kept % 2 == 1).is_crossed(x, rounding, random) else kept
