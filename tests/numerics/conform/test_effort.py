"""How much is asked: what only many calls, two threads, or millions of numbers show."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check


def e4m3(x):
    return nx.fp8_e4m3.encode(x)


def affine(x, scale, zero_point):
    return nx.quantize(x, "int8", symmetric=False, scale=scale, zero_point=zero_point).codes


def once_in_a_million(right):
    """A kernel one of whose answers in 10**6 has another last bit."""
    rng = np.random.default_rng(0)

    def kernel(x, *others):
        made = right(x, *others)
        codes = np.array(getattr(made, "codes", made))
        for at in rng.integers(0, max(codes.size, 1), rng.binomial(codes.size, 1e-6)):
            codes.reshape(-1)[at] ^= 1
        return (codes, made.scale) if hasattr(made, "scale") else codes

    return kernel


RARE = {
    "encode": (e4m3, "fp8_e4m3"),
    "pack": (nx.fp4.pack, "fp4"),
    "unpack": (nx.fp6_e2m3.unpack, "fp6_e2m3"),
    "affine": (affine, "int8"),
    "blocks": (nx.mxfp4.encode, "mxfp4"),
}


@pytest.mark.turns
def test_a_wrong_answer_of_one_size_that_is_always_the_same_passed():
    assert not check(lambda x: e4m3(x) ^ np.uint8(x.shape == (5000,)), "fp8_e4m3", effort="quick")


@pytest.mark.turns
@pytest.mark.parametrize("name", RARE)
def test_one_wrong_answer_in_a_million_passed(name):
    kernel, dtype = RARE[name]
    kind = "encode" if name == "blocks" else name
    assert not check(once_in_a_million(kernel), dtype, kind=kind, effort="high")


class Shared:
    """Answers lie in one room until they are copied: a second caller finds the first one's."""

    def __init__(self, most=1 << 22):
        self.room, self.most = np.zeros(1 << 22, np.uint8), most

    def __call__(self, x):
        if x.size > self.most:
            return e4m3(x)
        room = self.room[: x.size]
        room[...] = e4m3(x).reshape(-1)

        return room.reshape(x.shape).copy()


@pytest.mark.turns(6)
@pytest.mark.parametrize("most", [4096, 100, 16])
def test_small_answers_of_another_thread_passed(most):
    found = check(Shared(most), "fp8_e4m3")
    assert found.law == "threads", str(found)


@pytest.mark.turns
def test_answers_of_another_thread_passed():
    found = check(Shared(), "fp8_e4m3")
    assert found.law == "threads", str(found)
    assert check(Shared(), "fp8_e4m3", one_thread=True)
    assert check(Shared(), "fp8_e4m3", effort="quick")


def test_an_answer_that_is_wrong_once_was_a_fault_of_its_place():
    seen = []

    def kernel(x):
        codes = e4m3(x)
        if x.size == 257 and not seen:
            seen.append(1)
            codes.reshape(-1)[100] ^= 1
        return codes

    assert check(kernel, "fp8_e4m3").law == "repeatable"


@pytest.mark.turns
def test_a_seed_draws_other_numbers():
    asked = []

    def kernel(x):
        asked.append(x.tobytes())
        return e4m3(x)

    for seed in (0, 0, 1):
        assert check(kernel, "fp8_e4m3", seed=seed, one_thread=True)
        asked.append("next")
    ends = [at for at, entry in enumerate(asked) if entry == "next"]
    last = [asked[at - 1] for at in ends]
    assert last[0] == last[1] != last[2]


@pytest.mark.turns
def test_more_scales_than_those_of_the_list():
    """A scale in a range that no listed one lies in."""

    def kernel(x, scale, zero_point):
        return affine(x, scale, zero_point) ^ np.uint8(
            1e-10 < scale < 1e10 and zero_point in range(-100, -50)
        )

    assert not check(kernel, "int8", kind="affine", effort="high")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"effort": "hi"}, "unknown effort 'hi'"),
        ({"seed": -1}, "seed -1 is outside 0"),
        ({"seed": 1 << 64}, "seed 18446744073709551616 is outside 0"),
        ({"one_thread": None}, "one_thread=None is not allowed"),
    ],
)
def test_an_effort_that_is_none(options, said):
    with pytest.raises(nx.NumericsError, match=said):
        check(e4m3, "fp8_e4m3", **options)


def ignores_its_leading_dimension(side):
    """A product whose rows of a, or of b, are taken to lie one behind the other."""

    def dense(x):
        step = max(x.strides[0] // x.itemsize, 1)
        memory = np.lib.stride_tricks.as_strided(x, ((len(x) - 1) * step + x.shape[1],), (x.itemsize,))
        return memory[: x.size].reshape(x.shape)

    def kernel(a, b):
        gaps = [min(x.shape) > 1 and x.strides[1] == x.itemsize for x in (a, b)]
        return (dense(a) if side == "a" and gaps[0] else a) @ (dense(b) if side == "b" and gaps[1] else b).T

    return kernel


@pytest.mark.turns(4)
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_quick_check_of_a_product_gave_no_gaps(side):
    found = check(
        ignores_its_leading_dimension(side),
        kind="matmul",
        a="float32",
        b="float32",
        effort="quick",
        nonempty=True,
    )
    assert found.law == "strides", str(found)


@pytest.mark.turns
def test_a_quick_verdict_says_what_was_not_asked():
    told = str(check(e4m3, "fp8_e4m3", effort="quick"))
    assert "quick: not asked from two threads" in told
    assert "quick:" not in str(check(e4m3, "fp8_e4m3"))


@pytest.mark.turns
def test_a_path_for_32_rows_was_not_given_gaps():
    """It writes the rows of its result one behind the other."""

    def kernel(a, b, out):
        made = a @ b.T
        if len(a) == 32 and out.strides[1] == out.itemsize:
            flat = np.lib.stride_tricks.as_strided(out, (out.size,), (out.itemsize,))
            flat[...] = made.reshape(-1)
        else:
            out[...] = made

    found = check(kernel, kind="matmul", a="float32", b="float32", fills=True)
    assert found.law == "within", str(found)
    assert "m=32 " in found.counterexample.where
