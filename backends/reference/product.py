"""Products by fractions: every fused multiply-add exact, then rounded once (backends/host/product.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from numerics.backends.reference.binary32 import to_float32
from numerics.backends.reference.exact import Exact, exactly, is_finite

LANES = 16


def fused(a: Exact, b: Exact, c: Exact) -> Exact:
    """fma(a, b, c) in float32 (IEEE 754-2019 §5.4.1), where c is no -0; what is invalid is NaN.

    >>> fused(Fraction(3), Fraction(1, 3), Fraction(1)), fused(Fraction(1, 2**200), Fraction(1), Fraction(1))
    (Fraction(2, 1), Fraction(1, 1))
    """
    if is_finite(a) and is_finite(b) and is_finite(c):
        return to_float32(Fraction(a) * Fraction(b) + Fraction(c))
    with_signs = float(a) * float(b) if a == a and b == b else math.nan
    return exactly(with_signs + (float(c) if not is_finite(c) else 0.0))


def added(a: Exact, b: Exact) -> Exact:
    """a + b in float32."""
    return fused(a, Fraction(1), b)


def product(
    values: Sequence[Exact], scales: Sequence[Exact] | None, x: Sequence[Exact], run: int, group: int
) -> Exact:
    """The sum of one row with another.  scales: of groups of so many values; None where there are none."""
    span = LANES * run
    lanes: list[Exact] = [Fraction(0)] * LANES
    for first in range(0, len(values), span):
        for lane in range(LANES):
            start = first + lane * run
            t = lanes[lane] if scales is None else Fraction(0)
            for k in range(start, min(start + run, len(values))):
                t = fused(values[k], x[k], t)
            if scales is None:
                lanes[lane] = t
            elif start < len(values):
                lanes[lane] = fused(t, scales[start // group], lanes[lane])
    return _halved(lanes)


def product_of_int8(
    values: Sequence[Exact], scales: Sequence[Exact] | None, codes: Sequence[Exact],
    x_scales: Sequence[Exact], group: int,
) -> Exact:  # fmt: skip
    """The same with integers of 8 bits, four to a lane: their sums over a group, or the row, are exact."""
    sums: list[dict[int, Exact]] = [{} for _ in range(LANES)]
    for place, (a, b) in enumerate(zip(values, codes, strict=True)):
        of_lane, key = sums[place // 4 % LANES], place // group if group else 0
        of_lane[key] = of_lane.get(key, Fraction(0)) + a * b
    lanes: list[Exact] = [Fraction(0)] * LANES
    for lane, of_lane in enumerate(sums):
        for key, t in of_lane.items():
            scale = fused(scales[key], x_scales[key], Fraction(0)) if scales is not None else Fraction(1)
            lanes[lane] = fused(to_float32(t), scale, lanes[lane])
    return _halved(lanes)


def _halved(lanes: list[Exact]) -> Exact:
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [added(a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


def exactly_each(rows: NDArray[Any]) -> list[list[Exact]]:
    """The numbers of rows, exactly."""
    return [[exactly(number) for number in row] for row in rows.tolist()]
