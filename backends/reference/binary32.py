"""float32 by fractions: its bits, its arithmetic, and the integers with a scale that use it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import SupportsFloat

from numerics.backends.reference.exact import (
    Exact,
    absolute,
    exactly,
    floor_log2,
    integer_range,
    is_finite,
    is_negative,
    power_of_two,
    round_to_integer,
    rounds_away,
)
from numerics.formats.dtype import Integer

INF_BITS = 0x7F800000
"""+Inf (IEEE 754-2019 §3.4); the bits above it are NaN."""


def float32_value(bits: int) -> Fraction:
    """The value of a float32 magnitude's bits; 0x7F800000 reads as the 2**128 that follows.

    >>> float32_value(0x3F800000), float32_value(1) == Fraction(1, 2**149)
    (Fraction(1, 1), True)
    """
    field, fraction = bits >> 23, bits & 0x7FFFFF
    return (fraction + (bool(field) << 23)) * power_of_two(max(field, 1) - 150)


def float32_bits(a: Fraction) -> int:
    """The bits of the largest float32 magnitude at or below a; 0x7F800000 from 2**128 on.

    >>> hex(float32_bits(Fraction(1, 3))), float32_bits(Fraction(1, 2**150))
    ('0x3eaaaaaa', 0)
    """
    if a <= 0:
        return 0
    e = max(floor_log2(a), -126)
    return min(math.floor(a * power_of_two(23 - e)) + ((e + 126) << 23), INF_BITS)


def to_float32(x: Exact) -> Exact:
    """Rounded to float32, half to even, subnormals and overflow included (IEEE 754-2019 §4.3.1).

    >>> to_float32(Fraction(2**25 + 3)), to_float32(Fraction(2**128))
    (Fraction(33554436, 1), inf)
    >>> to_float32(Fraction(-1, 2**150))
    -0.0
    """
    if isinstance(x, float):
        return x
    a = abs(x)
    bits = float32_bits(a)
    if bits < INF_BITS:
        low, high = float32_value(bits), float32_value(bits + 1)
        bits += rounds_away((a - low) / (high - low), bits % 2 == 1, x < 0, "half_even")
    rounded: Exact = math.inf if bits >= INF_BITS else float32_value(bits)
    return exactly(math.copysign(rounded, -1.0)) if x < 0 else rounded


def multiply32(x: Exact, y: Exact) -> Exact:
    """float32(x * y); an invalid product is a positive NaN (IEEE 754-2019 §5.4.1)."""
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        negative_zero = (x == 0) != (y == 0) and (x < 0 or y < 0)
        return -0.0 if negative_zero else to_float32(x * y)
    if x != x or y != y:
        return x if x != x else y
    product = float(x) * float(y)
    return math.nan if product != product else exactly(product)


def divide32(x: Exact, y: Exact) -> Exact:
    """float32(x / y), for y > 0, Inf included (IEEE 754-2019 §5.4.1).

    >>> divide32(Fraction(1), Fraction(3)) == Fraction(0xAAAAAB, 2**25), divide32(-0.0, Fraction(3))
    (True, -0.0)
    """
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return to_float32(x / y)
    return x if not is_finite(x) else exactly(math.copysign(0.0, x))


def add32(x: Exact, y: Exact) -> Exact:
    """float32(x + y), y finite; for the offsets below, which need no sign of zero."""
    return to_float32(Fraction(x) + Fraction(y)) if is_finite(x) else x


# ------------------------------------------------------------------ integers with scale and offset


def quantize_affine(
    x: Fraction | SupportsFloat,
    scale: Fraction | SupportsFloat,
    zero_point: int | float,
    dtype: Integer,
    rounding: str = "half_even",
    random: int | None = None,
) -> int:
    """q = clamp(round(x / scale) + zero_point), the division in float32 (FORMATS §6).

    scale > 0.  An integer zero point is added after rounding, a float one before it, in float32.
    NaN counts as 0 when rounded.  Returns the value q, not its code.

    >>> from numerics.formats import int4, uint4
    >>> quantize_affine(1.0, 0.4, 0, int4), quantize_affine(-1.0, 0.5, 3, uint4)
    (2, 1)
    """
    low, high = integer_range(dtype)
    y = divide32(exactly(x), exactly(scale))
    if isinstance(zero_point, float):
        y = add32(y, exactly(zero_point))
        zero_point = 0
    if y != y:
        y = Fraction(0)
    if is_finite(y):
        a = round_to_integer(absolute(y), is_negative(y), rounding, random)
        y = Fraction(-a if is_negative(y) else a)
    return int(min(max(y + zero_point, low), high))


def dequantize_affine(q: int, scale: Fraction | SupportsFloat, zero_point: int | float) -> Exact:
    """(q - zero_point) * scale, each operation in float32 (FORMATS §6).

    >>> dequantize_affine(1, 0.5, 3)
    Fraction(-1, 1)
    """
    return multiply32(add32(Fraction(q), -exactly(zero_point)), exactly(scale))
