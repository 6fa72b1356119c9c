"""Fewer random bits than 30 round as hardware does that adds them to the first of the discarded ones."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx


def test_bits_that_are_asked_for_round_as_the_seed_does():
    x = np.random.default_rng(0).standard_normal((7, 33)).astype(np.float32)
    given = nx.random_bits(x.shape, 5)
    due = nx.fp4.encode(x, rounding="stochastic", seed=5)
    assert np.array_equal(nx.fp4.encode(x, rounding="stochastic", random_bits=given), due)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_n_bits_are_added_to_the_first_n_of_the_discarded_fraction(executor, bits):
    """PTX cvt.rs, IEEE P3109 StochasticA: up when floor(f * 2**N) + R reaches 2**N, for every R."""
    fractions = np.arange(0, 1 << 10, 7)
    draws = np.arange(1 << bits)
    f, r = (part.ravel() for part in np.meshgrid(fractions, draws))
    x = (1 + f / (1 << 10) / 2).astype(np.float32)  # between 1 and 1.5 of fp4
    given = (r << (30 - bits)).astype(np.uint32)
    up = nx.fp4.round(x, rounding="stochastic", random_bits=given) > 1
    due = ((f << bits) >> 10) + r >= 1 << bits
    assert np.array_equal(up, due)


def test_eight_bits_of_a_seed_do_not_leave_a_gradient_at_zero():
    """A kernel that drew nothing rounded all that is small to 0."""
    x = np.full(1 << 16, 0.01, np.float32)
    drawn = nx.random_bits(x.shape, 1, bits=8)
    assert np.all(drawn & ((1 << 22) - 1) == 0)
    assert len(np.unique(drawn)) == 256
    mean = nx.fp4.round(x, rounding="stochastic", random_bits=drawn).mean()
    assert 0.008 < mean < 0.012  # 5 of 256 draws go up, to 0.5: 0.0098


WRONG = [(3, 0, 0), (3, 0, 31), (3, -1, 8), (-3, 0, 8), (3, 0, 2.5)]


@pytest.mark.parametrize(("shape", "seed", "bits"), WRONG)
def test_what_cannot_be_drawn_is_refused(shape, seed, bits):
    with pytest.raises(nx.NumericsError):
        nx.random_bits(shape, seed, bits=bits)
