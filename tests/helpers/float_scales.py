"""Blocks, and what their scales are by fractions: the values of E4M3, float32, the nearest of a list."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction

import numpy as np

E4M3 = [Fraction(m, 8) / 64 for m in range(8)] + [
    Fraction(8 + m, 8) * Fraction(2) ** (e - 7) for e in range(1, 16) for m in range(8)
]
"""The magnitudes of its codes as if the highest, NaN, were a number."""


def floor_log2(a: Fraction) -> int:
    k = a.numerator.bit_length() - a.denominator.bit_length()
    return k - (Fraction(2) ** k > a)


def f32(a: Fraction) -> Fraction:
    """The nearest float32, half to even, subnormals too; what is too large is left as it is."""
    if not a:
        return a
    k = abs(a.numerator).bit_length() - a.denominator.bit_length()
    k -= Fraction(2) ** k > abs(a)
    unit = Fraction(2) ** (max(k, -126) - 23)
    return round(a / unit) * unit  # Python rounds a fraction half to even


def nearest(a: Fraction, held: list[Fraction]) -> int:
    """The place of the nearest, at a tie the even one; what is beyond goes to the last."""
    above = bisect_left(held, a)
    if above in (0, len(held)):
        return min(above, len(held) - 1)
    under, over = a - held[above - 1], held[above] - a
    return above - above % 2 if under == over else above - (under < over)


def blocks(seed: int = 0, rows: int = 400) -> np.ndarray:
    """Blocks of 16 of all shapes and sizes, some of one value, of few bits, with one large number."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 16)) * np.exp2(rng.uniform(-9, 3, (rows, 1)))
    x[: rows // 8] = np.round(x[: rows // 8] * 8) / 8
    x[rows // 8 : rows // 4, 1:] /= 16
    x[rows // 4], x[rows // 4 + 1] = 0, 3.0
    return x.astype(np.float32)
