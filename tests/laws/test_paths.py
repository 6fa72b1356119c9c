"""Kernels with a path of their own for some arrays: wrong there alone, on numbers next to ties."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import numerics as nx
from numerics.conform import check

right = nx.fp8_e4m3.encode


def narrower(x, kind=ml_dtypes.bfloat16):
    """As a kernel that takes its input through a shorter type."""
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(kind).astype(np.float32)


def cut(x, bits=4):
    """Without the lowest bits: a sticky bit that is lost."""
    x = np.asarray(x, np.float32)
    return (
        (np.ascontiguousarray(x).reshape(-1).view(np.uint32) >> bits << bits)
        .view(np.float32)
        .reshape(x.shape)
    )


ARRAYS = {
    "no axes": lambda x: x.ndim == 0,
    "two axes": lambda x: x.ndim == 2,
    "three axes": lambda x: x.ndim == 3,
    "five axes": lambda x: x.ndim == 5,
    "six axes": lambda x: x.ndim == 6,
    "not contiguous": lambda x: not x.flags.c_contiguous,
    "another start": lambda x: x.ctypes.data % 16 == 4,
    "backward": lambda x: any(stride < 0 for stride in x.strides),
    "one column": lambda x: x.ndim == 2 and x.shape[1] == 1 < 1024 < len(x),
    "windows": lambda x: x.ndim == 2 and x.size > 100 and x.strides == (4, 4),
    "a middle axis backward": lambda x: x.ndim == 3 and x.strides[1] < 0,
    "a middle axis of stride 0": lambda x: x.ndim == 3 and x.strides[1] == 0 and x.shape[1] > 1,
    "lines past a page apart": lambda x: x.ndim == 1 and x.strides[0] > 4096,
    "rows past 65,535 of 16": lambda x: x.ndim == 2 and len(x) > 65535 and x.shape[1] == 16,
}
CLASSES = {
    "finite": np.isfinite,
    "within range": lambda x: np.abs(x) <= 448,
    "positive": lambda x: (x >= 0) & (x <= 448),
    "normal": lambda x: (np.abs(x) >= 2.0**-6) & (np.abs(x) <= 448),
    "subnormal": lambda x: np.abs(x) < 2.0**-6,
    "of one binade": lambda x: (np.abs(x) >= 1) & (np.abs(x) < 2),
}


@pytest.mark.turns(8)
@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("kind", ["encode", "round"])
def test_numbers_taken_through_a_shorter_type_in_some_arrays_passed(name, kind):
    answer = right if kind == "encode" else nx.fp8_e4m3.round
    assert not check(
        lambda x: answer(narrower(x) if ARRAYS[name](x) else x), "fp8_e4m3", kind=kind, effort="quick"
    )


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("inputs", ["float32", "float64"])
def test_a_lost_bit_in_tensors_of_one_class_passed(name, inputs):
    def mine(x):
        with np.errstate(all="ignore"):
            narrow = x.astype(np.float32)
            return right(cut(narrow) if x.size and CLASSES[name](narrow).all() else x)

    assert not check(mine, "fp8_e4m3", inputs=inputs, effort="quick")


@pytest.mark.parametrize("least", [1 << 12, 1 << 20])
def test_a_lost_bit_in_long_tensors_within_range_passed(least):
    def mine(x):
        return right(cut(x) if x.size > least and CLASSES["within range"](x).all() else x)

    assert not check(mine, "fp8_e4m3")


def test_rows_that_come_again_after_65535_passed():
    def mine(x):
        codes = right(x)
        if x.ndim == 2 and len(x) > 65535:
            codes[65535:] = codes[: len(x) - 65535]
        return codes

    assert not check(mine, "fp8_e4m3", effort="quick")


def test_affine_by_the_reciprocal_in_rows_passed():
    def mine(x, scale, zero):
        with np.errstate(all="ignore"):
            quotient = x * (np.float32(1) / np.float32(scale)) if x.ndim == 2 else x / np.float32(scale)
        whole = np.rint(np.where(np.isnan(quotient), 0, quotient).astype(np.float64)) + zero
        return np.clip(whole, -128, 127).astype(np.int8)

    assert not check(mine, "int8", kind="affine", effort="quick")


def test_random_bits_without_their_lowest_in_rows_passed():
    def mine(x, bits):
        bits = bits & ~np.uint32(1) if x.ndim == 2 else bits
        return right(x, rounding="stochastic", random_bits=bits)

    assert not check(mine, "fp8_e4m3", rounding="stochastic", effort="quick")


@pytest.mark.parametrize("name", ["one axis", "three axes", "not contiguous", "another start"])
def test_blocks_taken_through_a_shorter_type_in_some_arrays_passed(name):
    chosen = ARRAYS.get(name, lambda x: x.ndim == 1)
    assert not check(lambda x: nx.mxfp4.encode(narrower(x) if chosen(x) else x), "mxfp4", effort="quick")


def test_a_lost_bit_in_blocks_of_moderate_numbers_passed():
    def mine(x):
        plain = x.size and np.isfinite(x).all() and (np.abs(x) <= 2.0**20).all()
        return nx.mxfp4.encode(cut(x) if plain else x)

    assert not check(mine, "mxfp4", effort="quick")


def test_a_scale_decoded_otherwise_in_three_axes_passed():
    def mine(codes, scale):
        found = nx.mxfp4.decode(codes, scale)
        return np.where(np.abs(found) < 2.0**-126, 0, found) if codes.ndim == 3 else found

    assert not check(mine, "mxfp4", kind="decode", effort="quick")


def product(a, b):
    with np.errstate(all="ignore"):
        return np.asarray(a, np.float32) @ np.asarray(b, np.float32).T


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_product_that_skips_rows_of_zeros_passed(side):
    def mine(a, b):
        found = product(a, b)
        if side == "a":
            found[~a.any(axis=1)] = 0
        else:
            found[:, ~b.any(axis=1)] = 0
        return found

    assert not check(mine, kind="matmul", a="float32", b="float32", effort="quick")


@pytest.mark.parametrize("name", ["many rows", "a few rows of many terms"])
def test_a_product_of_shorter_numbers_by_its_shape_passed(name):
    def mine(a, b):
        m, k = a.shape
        shorter = m > 64 if name == "many rows" else 5 <= m <= 8 and k > 256
        return product(narrower(a) if shorter else a, b)

    assert not check(mine, kind="matmul", a="float32", b="float32", effort="quick")


def test_a_scale_a_token_is_asked_as_one_of_a_row():
    def mine(a, b):
        return product(a.dequantize(), b.dequantize())

    found = check(mine, kind="matmul", a="fp8_e4m3 per_token", b="fp8_e4m3 per_channel(0)", effort="quick")
    assert found, str(found)


def test_a_target_that_calls_seterr_is_told_so():
    def mine(x):
        np.seterr(all="raise")
        with np.errstate(all="ignore"):
            return right(x)

    found = check(mine, "fp8_e4m3", effort="quick")
    assert found, str(found)
    assert "np.seterr" in str(found)


def test_a_reference_by_dequantize_is_told_what_rounds():
    def mine(a, b):
        return product(a, b.dequantize()).astype(ml_dtypes.bfloat16)

    claim = {
        "kind": "matmul",
        "a": "bfloat16",
        "b": "int4 per_group(32)",
        "out": "bfloat16",
        "effort": "quick",
    }
    assert "dequantize('float32') is not" in str(check(mine, **claim))
    found = check(lambda a, b: product(a, b.dequantize("float32")).astype(ml_dtypes.bfloat16), **claim)
    assert found, str(found)
