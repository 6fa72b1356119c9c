"""The arithmetic of accumulators, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from numerics.formats import NumericsError
from numerics.model.ipu.fixed import Fixed, Geometry, convolved, exact_product, requantized

rng = np.random.default_rng(4)
INT8, INT16 = (-128, 127), (-(2**15), 2**15 - 1)


def due(q: int, ratio: Fraction, mode: str, bits: int) -> int:
    """By fractions: ties toward +Inf, or to even."""
    x = q * ratio
    nearest = floor(x + Fraction(1, 2))
    if mode == "conv_even" and x + Fraction(1, 2) == nearest and nearest % 2:
        nearest -= 1
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, nearest))


@pytest.mark.parametrize("mode", ["pos_inf", "conv_even"])
@pytest.mark.parametrize("ratio", [Fraction(1, 8), Fraction(4), Fraction(63, 64 * 16), Fraction(2731, 2**20)])
def test_a_dyadic_ratio_is_an_integer_product_and_a_shift(mode, ratio):
    q = np.concatenate([np.arange(-600, 600), rng.integers(-(2**18), 2**18, 200)])
    found = requantized(Fixed(q, Fraction(1, 4) * ratio), Fraction(1, 4), mode, INT8)
    assert found.integers.tolist() == [due(int(n), ratio, mode, 8) for n in q]
    assert found.tie.tolist() == [(n * ratio).denominator == 2 for n in q.tolist()]


@pytest.mark.parametrize("mode", ["pos_inf", "conv_even"])
def test_another_ratio_is_a_product_in_float64(mode):
    q = rng.integers(-(2**20), 2**20, 500)
    found = requantized(Fixed(q, Fraction(1, 3)), Fraction(1000, 7), mode, INT16)
    assert found.integers.tolist() == [due(int(n), Fraction(7, 3000), mode, 16) for n in q]


def test_an_accumulator_beyond_int32_is_refused():
    with pytest.raises(NumericsError, match="accumulator of 2,147,483,648 leaves int32"):
        requantized(Fixed(np.array([2**31]), Fraction(1)), Fraction(4), "pos_inf", INT8)
    with pytest.raises(NumericsError, match="shift by 32"):
        requantized(Fixed(np.array([1]), Fraction(1, 2**32)), Fraction(1), "pos_inf", INT8)


def test_sums_on_the_way_that_float32_does_not_hold_are_wide():
    small = Fixed(np.array([1, 2]), Fraction(1), np.array([2**24 - 1, 2**24]))
    assert requantized(small, Fraction(1), "pos_inf", INT8).wide.tolist() == [False, True]


def test_a_product_that_float64_may_not_hold_is_refused():
    a = np.full((1, 4), 2**26)
    assert exact_product(a[:, :1], a.T[:1] - 1).tolist() == [[2**26 * (2**26 - 1)]]
    with pytest.raises(NumericsError, match="beyond what float64 holds"):
        exact_product(a, a.T)


def one_by_one(x, w, strides, dilations, pads, groups):
    """The convolution of [channels, width], a sum at a time."""
    padded = np.pad(x, [(0, 0), pads])
    reach = (w.shape[2] - 1) * dilations + 1
    per = w.shape[0] // groups
    made = []
    for output in range(w.shape[0]):
        mine = padded[output // per * w.shape[1] :][: w.shape[1]]
        places = range(0, padded.shape[1] - reach + 1, strides)
        made.append([int((mine[:, p : p + reach : dilations] * w[output]).sum()) for p in places])
    return made


@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("dilations", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_is_the_sum_of_its_products(strides, dilations, groups):
    x, w = rng.integers(-128, 128, (4, 11)), rng.integers(-128, 128, (4, 4 // groups, 3))
    found = convolved(x[None], w, Geometry((strides,), (dilations,), (2, 1), groups))
    assert found[0].tolist() == one_by_one(x, w, strides, dilations, (2, 1), groups)
