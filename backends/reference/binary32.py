"""float32, and float64's arithmetic, by fractions; and the integers with a scale that use it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple, SupportsFloat

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


class Binary(NamedTuple):
    """Arithmetic of a binary format, each operation exact and then rounded half to even.

    digits: of a significand.  least: the exponent of the smallest subnormal.  top: of what is infinite.

    >>> BINARY32.divide(Fraction(1), Fraction(3)) == Fraction(0xAAAAAB, 2**25)
    True
    >>> BINARY64.rounded(Fraction(1, 3)) == Fraction(1 / 3), BINARY64.rounded(Fraction(-1, 2**1075))
    (True, -0.0)
    """

    digits: int
    least: int
    top: int

    def rounded(self, x: Exact) -> Exact:
        """x in this format, subnormals and overflow included (IEEE 754-2019 §4.3.1).

        >>> BINARY32.rounded(Fraction(2**25 + 3)), BINARY32.rounded(Fraction(2**128))
        (Fraction(33554436, 1), inf)
        """
        if isinstance(x, float):
            return x
        step = power_of_two(max(floor_log2(abs(x)) + 1 - self.digits, self.least)) if x else Fraction(1)
        a = round_to_integer(abs(x) / step, x < 0, "half_even") * step
        magnitude = math.inf if a >= power_of_two(self.top) else a
        return exactly(math.copysign(magnitude, -1.0)) if x < 0 else magnitude

    def multiply(self, x: Exact, y: Exact) -> Exact:
        """x * y; an invalid product is a positive NaN (IEEE 754-2019 §5.4.1)."""
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            negative_zero = (x == 0) != (y == 0) and (x < 0 or y < 0)
            return -0.0 if negative_zero else self.rounded(x * y)
        if x != x or y != y:
            return x if x != x else y
        product = float(x) * float(y)
        return math.nan if product != product else exactly(product)

    def divide(self, x: Exact, y: Exact) -> Exact:
        """x / y, for y > 0, Inf included (IEEE 754-2019 §5.4.1); -0.0 and NaN keep their sign."""
        if isinstance(x, Fraction) and isinstance(y, Fraction):
            return self.rounded(x / y)
        return x if not is_finite(x) else exactly(math.copysign(0.0, x))

    def add(self, x: Exact, y: Exact) -> Exact:
        """x + y, y finite; for the offsets below, which need no sign of zero."""
        return self.rounded(Fraction(x) + Fraction(y)) if is_finite(x) else x


BINARY32, BINARY64 = Binary(24, -149, 128), Binary(53, -1074, 1024)
to_float32, multiply32, divide32 = BINARY32.rounded, BINARY32.multiply, BINARY32.divide


# ------------------------------------------------------------------ integers with scale and offset


class QuantParams(NamedTuple):
    """What integers share, and the arithmetic that they are divided and multiplied in (docs/formats.md §6).

    scale > 0.  zero_point: an integer is added after rounding, a float before it.

    >>> from numerics.formats import int4, uint4
    >>> QuantParams(0.4).quantize(1.0, int4), QuantParams(0.5, 3).quantize(-1.0, uint4)
    (2, 1)
    >>> QuantParams(0.5, 3).dequantize(1)
    Fraction(-1, 1)
    """

    scale: Fraction | SupportsFloat
    zero_point: int | float = 0
    kind: Binary = BINARY32

    def quantize(
        self, x: Fraction | SupportsFloat, dtype: Integer, rounding: str = "half_even",
        random: int | None = None,
    ) -> int:  # fmt: skip
        """q = clamp(round(x / scale) + zero_point): the value q, not its code.

        NaN counts as 0, whatever the zero point.
        """
        low, high = integer_range(dtype)
        number, zero_point = exactly(x), self.zero_point
        y = self.kind.divide(Fraction(0) if number != number else number, exactly(self.scale))
        if isinstance(zero_point, float):
            y, zero_point = self.kind.add(y, exactly(zero_point)), 0
        if is_finite(y):
            a = round_to_integer(absolute(y), is_negative(y), rounding, random)
            y = Fraction(-a if is_negative(y) else a)
        return int(min(max(y + zero_point, low), high))

    def dequantize(self, q: int) -> Exact:
        """(q - zero_point) * scale, each operation rounded, of numbers of that arithmetic."""
        zero = self.kind.rounded(exactly(self.zero_point))
        moved = self.kind.add(Fraction(q), -zero)
        return self.kind.multiply(moved, exactly(self.scale))
