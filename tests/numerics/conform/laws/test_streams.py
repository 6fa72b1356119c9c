"""Draws that come again: in one call, in the next, in another shape, in another thread."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.laws import chance
from tests.helpers.own_draws import FAULTS, IN_A_THREAD, RIGHT, counter, kernel, repeated_after
from tests.helpers.proofs import LONG

OWN = {"rounding": "stochastic", "draw": "own"}
SEEDS = range(40) if LONG else (0,)


@pytest.mark.turns(60)
@pytest.mark.parametrize("name", FAULTS)
def test_a_draw_that_is_used_again_passed(name):
    found = check(kernel(FAULTS[name]()), "fp8_e5m2", **OWN)
    assert found.law == "independent", str(found)


@pytest.mark.turns(16)
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("period", [2, 16, 100, 4096])
def test_a_short_period_was_told_as_a_mean(period, seed):
    found = check(kernel(counter(lambda n: n, repeated_after(period), seed=seed)), "fp8_e5m2", **OWN)
    assert found.law == "independent", str(found)


@pytest.mark.parametrize("name", IN_A_THREAD)
def test_a_second_thread_that_does_not_draw_passed(name):
    found = check(kernel(IN_A_THREAD[name]()), "fp8_e5m2", **OWN)
    assert found.law == "threads", str(found)
    assert "in a second thread" in found.counterexample.came
    assert check(kernel(IN_A_THREAD[name]()), "fp8_e5m2", one_thread=True, **OWN)


@pytest.mark.turns(18)
@pytest.mark.parametrize("name", RIGHT)
def test_right_draws_are_right(name):
    for seed in SEEDS:
        dtype = ("fp8_e5m2", "fp4", "bfloat16", "int8", "fp8_e4m3")[seed % 5]
        found = check(kernel(RIGHT[name](seed), dtype), dtype, **OWN)
        assert found, (seed, str(found))


@pytest.mark.turns
def test_a_kernel_that_does_not_draw_is_no_kernel_of_draws_that_depend_on_each_other():
    for rounding in ("toward_zero", "half_even"):
        found = check(lambda x, way=rounding: nx.fp8_e5m2.encode(x, rounding=way), "fp8_e5m2", **OWN)
        assert found.law == "mean", str(found)


def test_streams_of_one_generator_are_alike_at_no_distance():
    """The bound holds, and is not so wide that draws which are shared would pass."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        one, other = (rng.integers(0, 2, 4000) - 0.5 for _ in range(2))
        assert chance.alike(one, None, 4000).is_chance
        assert chance.alike(one, other, 8000).is_chance
        shared = np.where(rng.random(4000) < 0.5, np.roll(one, -1234), other)
        told = chance.alike(one, shared, 8000)
        assert not told.is_chance
        assert told.distance == -1234


def test_a_stream_of_one_call_has_no_distance():
    told = chance.alike(np.array([0.5]), None, 1)
    assert told.is_chance
    assert told.together == 0


@pytest.mark.turns
def test_a_value_that_few_draws_move_was_wrong_by_its_place():
    """Random bits of 1 to 2**16, not of 0 to 2**16 - 1: one draw of 65,536 moves a value of the format."""
    rng = np.random.default_rng(5)

    def kernel(x):
        bits = np.array(x).view(np.uint32).reshape(x.shape)
        up = rng.integers(1, (1 << 16) + 1, x.shape, np.uint32)
        with np.errstate(all="ignore"):
            found = np.where(np.isinf(x), bits, bits + up) >> np.uint32(16)
        return np.where(np.isnan(x), bits >> np.uint32(16) | 0x40, found).astype(np.uint16)

    found = check(kernel, "bfloat16", **OWN)
    assert found.law in ("round_trip", "negative_zero"), str(found)
    assert "of 262144 draws" in found.counterexample.where
