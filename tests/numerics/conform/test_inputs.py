"""Kernels of float16, bfloat16 and float64 values."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check

TYPES = ("bfloat16", "float16", "float64")


def e4m3(x):
    return nx.fp8_e4m3.encode(x)


@pytest.mark.turns
@pytest.mark.parametrize("dtype", [nx.fp8_e4m3, nx.int8, nx.mxfp4, nx.mx6, nx.nvfp4], ids=repr)
@pytest.mark.parametrize("inputs", TYPES)
def test_right_kernels_of_other_types_pass(dtype, inputs):
    options = {"tensor_scale": 1.0} if dtype is nx.nvfp4 else {}
    for kind in ("encode", "round"):
        found = check(lambda x, k=kind: getattr(dtype, k)(x, **options), dtype, kind=kind, inputs=inputs)
        assert found, str(found)


@pytest.mark.parametrize("inputs", TYPES)
def test_values_came_in_another_type(inputs):
    seen = set()

    def kernel(x):
        seen.add(x.dtype.name)
        return e4m3(x)

    assert check(kernel, "fp8_e4m3", inputs=inputs)
    assert seen == {inputs}


def test_torch_gives_its_own_types():
    torch = pytest.importorskip("torch")
    seen = set()

    def kernel(x):
        seen.add(x.dtype)
        return x.float().to(torch.float8_e5m2).to(x.dtype)

    options = {"kind": "round", "overflow": "nonsaturate", "array": "torch"}
    assert check(kernel, "fp8_e5m2", inputs="bfloat16", **options)
    assert seen == {torch.bfloat16}


@pytest.mark.parametrize("inputs", ["bfloat16", "float16"])
def test_one_number_of_65536_was_not_asked(inputs):
    def kernel(x):
        return e4m3(x) ^ (x.view(np.uint16) == 0x3DB7).astype(np.uint8)

    found = check(kernel, "fp8_e4m3", inputs=inputs)
    assert not found
    assert found.counterexample.input[0].value == np.uint16(0x3DB7).view(found_type(inputs)).astype(
        np.float32
    )


def found_type(name):
    import ml_dtypes

    return ml_dtypes.bfloat16 if name == "bfloat16" else np.float16


def test_a_float64_that_is_rounded_twice_passed():
    found = check(lambda x: e4m3(x.astype(np.float32)), "fp8_e4m3", inputs="float64")
    assert found.law == "nearest", str(found)
    assert "as a float64" in found.counterexample.where


def test_draws_beside_narrow_values():
    def kernel(x, random):
        return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=random)

    assert check(kernel, "fp8_e4m3", rounding="stochastic", inputs="bfloat16")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": "float8"}, "unknown inputs 'float8'"),
        ({"inputs": "float16", "kind": "decode"}, "inputs=float16 is for kind='encode' and 'round'"),
        ({"inputs": "float16", "exhaustive": True}, "exhaustive=True is for float32 inputs"),
    ],
)
def test_types_that_cannot_be_asked(options, said):
    with pytest.raises(nx.NumericsError, match=said):
        check(e4m3, "fp8_e4m3", **options)
