"""Rules by which scales are found, against the formulas of those who made them, by fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import numerics as nx

MX = [d for d in nx.dtypes() if isinstance(d, nx.MXBlock) and d.block == 32]


def floor_log2(a: Fraction) -> int:
    k = a.numerator.bit_length() - a.denominator.bit_length()
    return k - (Fraction(2) ** k > a)


def tosa(d: nx.MXBlock, amax: float) -> int:
    """TOSA's calc_block_scale: e4m3 has a limit of its own, above which the exponent is one more."""
    a = Fraction(amax)
    if d.element is nx.fp8_e4m3:
        exponent = floor_log2(a / 464)
        exponent += Fraction(2) ** exponent != a / 464
    else:
        largest = Fraction(d.element.max) * Fraction(d.element_unit)
        digits = getattr(d.element, "mantissa", d.element.bits - 2)
        ulp = Fraction(2) ** (floor_log2(largest) - digits)
        exponent = floor_log2(a / (largest + ulp / 2)) + 1
    return min(max(exponent, -127), 127) + 127


def maxima() -> np.ndarray:
    """Around every significand on which an element's rule may turn, in binades at both ends, and any."""
    turns = np.array([464 / 256, 1.75, 1.9375, 1.96875, 255 / 128, 1.875, 1.0]) * (1 << 23)
    bits = [(e << 23) + int(t) - (1 << 23) for e in (1, 2, 3, 100, 127, 200, 253, 254) for t in turns]
    subnormal = [1, 2, *(int(t) >> 1 for t in turns), 0x7FFFFF]
    near = np.array([*bits, *subnormal])[:, None] + [-1, 0, 1]
    some = np.random.default_rng(0).integers(1, 0x7F800000, 200)
    return np.unique(np.clip(np.append(near, some), 1, 0x7F7FFFFF)).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("d", MX, ids=repr)
def test_tosa_is_the_formula_of_its_specification(executor, d):
    x = maxima()
    scale = d.encode(x.reshape(-1, 1), scale_rule="tosa").scale.ravel()
    due = np.array([tosa(d, float(a)) for a in x], np.uint8)
    assert np.array_equal(scale, due), x[scale != due][:4]
