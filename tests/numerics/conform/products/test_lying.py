"""Are operands given in every pair of ways to lie in memory, and from every start within a vector?"""

from __future__ import annotations

import re

import numpy as np
import pytest

from numerics.conform import check

FLOATS = {"a": "float32", "b": "float32"}
BATCHES = {**FLOATS, "layout": "bmk,bnk"}
INTEGERS = {"a": "int8", "b": "int8", "accumulate": "int32"}


def product(a, b):
    with np.errstate(all="ignore"):
        return np.matmul(a.astype(np.float64), np.swapaxes(b, -1, -2).astype(np.float64)).astype(np.float32)


def is_dense(x, *axes):
    """Do its axes follow each other without gaps, the first of these outermost, and has none one number?"""
    step = x.itemsize
    for axis in reversed(axes):
        if x.shape[axis] == 1 or x.strides[axis] != step:
            return False
        step *= x.shape[axis]
    return True


def in_rows(x):
    return min(x.shape) > 1 and x.strides[-1] == x.itemsize


def turned(x):
    return min(x.shape) > 1 and x.strides[-2] == x.itemsize < x.strides[-1]


def as_rows(x, *axes):
    """Memory that lies in this order of axes, read as if it were in rows."""
    return np.ascontiguousarray(x.transpose(axes)).reshape(x.shape) if is_dense(x, *axes) else x


def square_turned(x):
    return x.T if x.shape[0] == x.shape[1] and is_dense(x, 1, 0) else x


def leading_of_a(a, b):
    if in_rows(a) and in_rows(b) and a.strides[0] < b.strides[0]:
        return np.lib.stride_tricks.as_strided(b, b.shape, a.strides)
    return b


def without_last(a, b, when):
    return product(a[..., :-1], b[..., :-1]) if when else product(a, b)


def integers(a, b):
    return a.astype(np.int32) @ b.astype(np.int32).T


TURNED = {
    "a read as rows": (FLOATS, lambda a, b: product(as_rows(a, 1, 0), b), "of a whose columns are dense"),
    "b read as rows": (FLOATS, lambda a, b: product(a, as_rows(b, 1, 0)), "of b whose columns are dense"),
    "a square": (FLOATS, lambda a, b: product(square_turned(a), b), "of a whose columns are dense"),
    "b square": (
        {**FLOATS, "layout": "kn"}, lambda a, b: product(a, square_turned(b).T),
        "of b whose columns are dense",
    ),
    "integers": (INTEGERS, lambda a, b: integers(square_turned(a), b), "of a whose columns are dense"),
    "a turned, b not": (FLOATS, lambda a, b: without_last(a, b, turned(a) and in_rows(b)), "of a whose col"),
    "b turned, a not": (FLOATS, lambda a, b: without_last(a, b, in_rows(a) and turned(b)), "of b whose col"),
    "both turned": (
        FLOATS, lambda a, b: without_last(a, b, turned(a) and turned(b)), "of a whose columns are dense",
    ),
    "leading dimension of a": (FLOATS, lambda a, b: product(a, leading_of_a(a, b)), "a gap behind each row"),
    "batches turned": (BATCHES, lambda a, b: product(as_rows(a, 0, 2, 1), b), "of a whose columns are dense"),
    "batches between rows": (
        BATCHES, lambda a, b: product(as_rows(a, 1, 0, 2), b), "whose batches lie between their rows",
    ),
}  # fmt: skip
"""Kernels that read memory as it does not lie, and what is said of it."""


@pytest.mark.parametrize("name", TURNED)
def test_turned_memory_was_given_with_gaps_alone(name):
    claim, kernel, said = TURNED[name]
    shape = (3, 5, 5, 5) if claim is BATCHES else (5, 5, 5)
    found = check(kernel, kind="matmul", shapes=[shape], effort="quick", **claim)
    assert found.law == "strides", str(found)
    assert said in found.counterexample.where


@pytest.mark.parametrize("shape", [(5, 5, 7), (5, 6, 7)])
def test_a_turned_c_was_given_where_beta_is_0_alone(shape):
    def kernel(a, b, c, beta):
        found = product(a, b)
        return found if beta == 0 else (found + beta * as_rows(c, 1, 0)).astype(np.float32)

    found = check(kernel, kind="matmul", beta=True, shapes=[shape], effort="quick", **FLOATS)
    assert found.law == "strides", str(found)
    assert "of c whose columns are dense" in found.counterexample.where


def begins(x, numbers, unit=16):
    """Does a dense array of so many numbers and more begin between two vectors?"""
    return x.flags.c_contiguous and x.shape[-1] >= numbers and x.ctypes.data % unit > 0


def without_first(a, b, when):
    return product(a[:, 1:], b[:, 1:]) if when else product(a, b)


def values(x):
    return x if isinstance(x, np.ndarray) else x.dequantize("float32")


UNALIGNED = {
    "a": (FLOATS, lambda a, b: without_first(a, b, begins(a, 4))),
    "a alone": (FLOATS, lambda a, b: without_first(a, b, begins(a, 4) and not begins(b, 4))),
    "b past 32": (FLOATS, lambda a, b: without_first(a, b, b.ctypes.data % 64 == 32)),
    "float16": (
        {"a": "float16", "b": "float16", "out": "float16"},
        lambda a, b: without_first(a, b, begins(b, 4)).astype(np.float16),
    ),
    "int8": (INTEGERS, lambda a, b: integers(a[:, begins(a, 4, 4):], b[:, begins(a, 4, 4):])),
    "bias": (
        {**FLOATS, "bias": True},
        lambda a, b, bias: (product(a, b) + np.where(begins(bias, 4), 0, bias)).astype(np.float32),
    ),
    "scales": (
        {"a": "mxfp4", "b": "int8 per_channel(0)"},
        lambda a, b: product(values(a), values(b)) * np.float32(1 + begins(b.scale, 1)),
    ),
}  # fmt: skip
"""Kernels that lose what stands before the first whole vector."""


@pytest.mark.parametrize("name", UNALIGNED)
def test_dense_operands_began_at_a_cache_line(name):
    claim, kernel = UNALIGNED[name]
    for contiguous in (False, True):
        found = check(
            kernel, kind="matmul", shapes=[(4, 5, 8)], effort="quick", contiguous=contiguous, **claim
        )
        assert found.law == "strides", str(found)
        assert "past the start of a cache line" in found.counterexample.where


def test_tensors_began_at_a_cache_line():
    torch = pytest.importorskip("torch")

    def kernel(a, b):
        first = int(a.is_contiguous() and a.data_ptr() % 16 > 0)
        return (a[:, first:].double() @ b[:, first:].double().T).to(torch.bfloat16)

    claim = {"a": "bfloat16", "b": "bfloat16", "out": "bfloat16", "array": "torch"}
    found = check(kernel, kind="matmul", shapes=[(4, 5, 8)], effort="quick", **claim)
    assert found.law == "strides", str(found)


FILLED = {
    "turned as rows": lambda p, out: p.reshape(out.shape[::-1]).T if is_dense(out, 1, 0) else p,
    "turned, operands not": lambda p, out: p * (1 - turned(out)),
    "unaligned": lambda p, out: np.where(begins(out, 4), 0, p),
}


@pytest.mark.parametrize("name", FILLED)
def test_a_result_to_be_filled_was_dense_from_a_cache_line_on(name):
    def kernel(a, b, out):
        out[...] = FILLED[name](product(a, b), out)

    found = check(kernel, kind="matmul", shapes=[(4, 5, 8)], effort="quick", fills=True, **FLOATS)
    assert found.law == "strides", str(found)
    assert "result" in found.counterexample.where


def test_a_fault_of_memory_was_shown_in_a_large_product_without_numbers():
    def kernel(a, b):
        return without_last(a, b, turned(a))

    found = check(kernel, kind="matmul", effort="quick", **FLOATS).counterexample
    assert re.fullmatch(r"m=2 n=1 k=[23], result .*, of a whose columns are dense.*", found.where)
    assert len(found.terms) == 1
    assert found.given
