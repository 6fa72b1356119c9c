"""Keys of caches that two arrays share; and what is not told of the calls before, as it is not of them."""

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.laws.twins import longer, twins
from numerics.conform.task import Task

e4m3 = nx.fp8_e4m3


def kept_by(key):
    """An encoder that keeps what it made of the first array of each key."""
    known = {}

    def kernel(x, *others):
        codes = known.setdefault(
            (np.shape(x), key(np.ascontiguousarray(x).reshape(-1))), np.array(e4m3.encode(x))
        )
        return codes.copy()

    return kernel


KEYS = {
    "256 bytes": lambda x: x[:64].tobytes(),
    "4,096 bytes": lambda x: x[:1024].tobytes(),
    "both ends": lambda x: x[:4].tobytes() + x[-4:].tobytes(),
    "each 1,024th": lambda x: x[::1024].tobytes() if x.size > 2048 else x.tobytes(),
    "magnitudes": lambda x: np.abs(x).tobytes(),
}


@pytest.mark.turns
@pytest.mark.parametrize("key", KEYS)
def test_a_cache_whose_key_is_a_part_of_the_numbers_is_told_as_one(key):
    """No two questions had the same 256 bytes at their head; other keys were told of a layout."""
    found = check(kept_by(KEYS[key]), "fp8_e4m3")
    assert found.law == "repeatable", str(found)


@pytest.mark.parametrize("key", ["256 bytes", "4,096 bytes", "both ends", "each 1,024th", "magnitudes"])
def test_two_questions_share_such_a_key_and_differ(key):
    x = np.random.default_rng(3).standard_normal(5004).astype(np.float32)
    shared = [twin for twin in twins(Task.of("fp8_e4m3"), (x,)) if KEYS[key](twin.inputs[0]) == KEYS[key](x)]
    assert shared
    assert all((twin.inputs[0] != x).any() for twin in shared)


@pytest.mark.parametrize("axis", [-1, 0])
def test_two_questions_of_blocks_share_a_head_along_each_axis(axis):
    task = Task.of("mxfp4", axis=axis)
    x = np.random.default_rng(3).standard_normal((160, 32)).astype(np.float32)
    lie = np.ascontiguousarray if axis else lambda x: np.ascontiguousarray(x.T)
    shared = [
        twin.inputs[0]
        for twin in twins(task, (x,))
        if (lie(twin.inputs[0]).flat[:64] == lie(x).flat[:64]).all()
    ]
    assert any((one != x).any() for one in shared)


def test_a_longer_question_begins_and_ends_alike_and_has_no_new_block():
    x = np.arange(96, dtype=np.float32).reshape(3, 32)
    (more,) = longer(Task.of("mxfp4"), (x,), 5)
    assert more.shape == (8, 32)
    assert (more[[0, -1]] == x[[0, -1]]).all()
    assert {row.tobytes() for row in more} == {row.tobytes() for row in x}
    assert longer(Task.of("int8", "affine", scheme="per_token"), (x, x[:, 0], x[:, 0]), 5) is None


def test_scales_that_are_kept_by_their_number_were_told_as_a_wrong_quotient():
    known = {}

    def kernel(x, scale, zero):
        own = known.setdefault(np.shape(scale), np.array(scale))
        rows = [slice(None)] + [None] * (np.ndim(x) - 1)
        whole = np.zeros(np.shape(x), np.int32)
        plain = Task.of("int8", "affine")
        return plain.affine_codes(
            np.array(x, order="C"), own[tuple(rows)] + np.float32(whole), zero[tuple(rows)] + whole
        )

    found = check(kernel, "int8", kind="affine", scheme="per_channel(0)")
    assert found.law == "repeatable", str(found)
    assert "with others beside them" in str(found)


def test_what_takes_another_way_after_ten_calls_was_told_of_an_array():
    calls = {}

    def kernel(x):
        calls[x.shape] = calls.get(x.shape, 0) + 1
        return e4m3.encode(x, rounding="half_even" if calls[x.shape] <= 10 else "half_away")

    found = check(kernel, "fp8_e4m3")
    assert found.law == "repeatable", str(found)
    assert "a later one of the same numbers is not" in str(found)


@pytest.mark.turns(6)
@pytest.mark.parametrize(("dtype", "lane"), [("mxfp8_e4m3", 31), ("mxfp8_e4m3", 0), ("nvfp4", 3)])
def test_one_lane_that_rounds_otherwise_was_told_of_calls_or_of_short_blocks(dtype, lane):
    """Which of two arrays has a tie there was by chance, and taken for what a call leaves behind."""
    size, options = nx.dtype(dtype).block, {"tensor_scale": 1.0} if dtype == "nvfp4" else {}

    def kernel(x):
        right, away = (nx.dtype(dtype).encode(x, rounding=r, **options) for r in ("half_even", "half_away"))
        at = np.arange(x.shape[-1]) % size == lane
        return np.where(at, away.codes, right.codes), np.array(right.scale)

    found = check(kernel, dtype, effort="quick")
    assert found.law == "element_ties", str(found)
    assert "depends" not in str(found)


def test_a_cache_whose_key_is_the_head_of_the_random_bits_passed():
    known = {}

    def kernel(x, random):
        key = (
            x.shape,
            np.ascontiguousarray(x).tobytes(),
            np.ascontiguousarray(random).reshape(-1)[:16].tobytes(),
        )
        made = e4m3.encode(x, rounding="stochastic", random_bits=random)
        return known.setdefault(key, np.array(made)).copy()

    assert check(kernel, "fp8_e4m3", rounding="stochastic").law == "repeatable"
