"""ggml's blocks against the gguf package's own quantizers, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gguf")
import gguf

import numerics as nx
from numerics.interop import to_gguf
from numerics.interop.ggml import ENCODERS, quantize_as_ggml


def numbers():
    """Of all magnitudes; ties of every kind; blocks of zeros, of subnormals, of one large value."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 64)) * np.exp2(rng.integers(-12, 12, (400, 1)))).astype(np.float32)
    ties = (rng.integers(-24, 25, (400, 64)) / 4).astype(np.float32)
    ones = np.zeros((4, 64), np.float32)
    ones[1, 5], ones[2, 7], ones[3] = 7.0, -3.0, 1e-39
    near = np.nextafter(np.exp2(rng.integers(-9, 9, (50, 64))).astype(np.float32), np.float32(0))
    return np.concatenate((x, ties, ones, near))


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_bytes_are_those_of_the_package(kind):
    x = numbers()
    with np.errstate(all="ignore"):
        due = gguf.quants.quantize(x, gguf.GGMLQuantizationType[kind])
    came = to_gguf(quantize_as_ggml(x, kind))
    wrong = np.flatnonzero(np.asarray(came).reshape(-1) != due.reshape(-1))
    assert not wrong.size, f"{wrong.size} bytes differ, the first at {wrong[0]}"


@pytest.mark.parametrize(
    ("x", "kind", "why"),
    [
        (np.ones(32, np.float32), "Q4_K", "unknown type of ggml's 'Q4_K'"),
        (np.ones(33, np.float32), "Q8_0", "whole blocks of 32"),
        (np.ones(32), "Q8_0", "not float64"),
        (np.full(32, np.nan, np.float32), "Q8_0", "no NaN"),
    ],
)
def test_what_ggml_would_not_take_is_refused(x, kind, why):
    with pytest.raises(nx.NumericsError, match=why):
        quantize_as_ggml(x, kind)
