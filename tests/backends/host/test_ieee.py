"""Scales and codes where the caller's thread flushes subnormals: every entrance has its guard."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.files.checkpoint import quantize_file
from numerics.observe import MSE, MinMax, Pof2
from tests.helpers.bits import assert_same_bits

X = (np.linspace(-3, 3, 48) * 2.0**-131).astype(np.float32).reshape(6, 8)  # all of them subnormals
RECIPES = {
    "found": {"scheme": "per_tensor"}, "found of columns": {"scheme": "per_channel(1)"},
    "found of short groups": {"scheme": "per_group(3)"}, "found with a zero point": {"symmetric": False},
    "float zero point": {"symmetric": False, "zero_point_type": "float32"},
    "power of two": {"scale_type": "pof2"}, "bfloat16": {"scale_type": "bfloat16"},
    "given": {"scale": np.float32(2.0**-133)},
    "given with a zero point": {"symmetric": False, "scale": np.float32(2.0**-133), "zero_point": 1},
}  # fmt: skip


def flushed(call):
    """What a call gives in a thread that flushes subnormals."""
    torch.set_flush_denormal(True)
    try:
        assert np.float32(1e-40) * np.float32(1) == 0, "this thread keeps subnormals: nothing is tested"
        return call()
    finally:
        torch.set_flush_denormal(False)


def parts(q):
    return [part for part in (q.packed, q.shared, q.zero_point) if part is not None]


def assert_alike(call):
    for came, due in zip(flushed(call), call(), strict=True):
        assert_same_bits(np.asarray(came), np.asarray(due))


@pytest.mark.parametrize("executor", ["cpu", "array", "reference"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_quantizing_takes_subnormals_for_zeros(name, executor):
    options = RECIPES[name]
    with nx.use(executor):
        assert_alike(lambda: parts(nx.quantize(X, "int8", **options)))
        assert_alike(lambda: [nx.fake_quantize(X, "int8", **options)])
        assert_alike(lambda: [nx.quantize(X, "int8", **options).dequantize()])


@pytest.mark.parametrize("kind", [MinMax, MSE, Pof2])
@pytest.mark.parametrize("symmetric", [True, False])
def test_an_observer_takes_subnormals_for_zeros(kind, symmetric):
    def found():
        watching = kind("int8", symmetric=symmetric, scheme="per_channel(1)")
        watching.observe(X)
        return [watching.scale] if symmetric else [watching.scale, watching.zero_point]

    assert_alike(found)


@pytest.mark.parametrize("scheme", ["per_tensor", "per_channel(1)"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_pieces_of_a_file_take_subnormals_for_zeros(tmp_path, scheme, symmetric):
    nx.save({"w": np.vstack([X] * 8)}, tmp_path / "w.safetensors")

    def made():
        target = tmp_path / "q.safetensors"
        quantize_file(tmp_path / "w.safetensors", target, "int8", scheme=scheme, symmetric=symmetric,
                         max_memory=1 << 12)  # fmt: skip
        return parts(nx.load(target)["w"])

    assert_alike(made)


def test_negative_subnormals_are_lost_without_a_word(tmp_path):
    with pytest.warns(nx.NumericsWarning, match="24 of 48 values are negative"):
        flushed(lambda: nx.quantize(X, "uint8"))
    nx.save({"w": X}, tmp_path / "w.safetensors")
    with pytest.warns(nx.NumericsWarning, match="24 of 48 values are negative"):
        flushed(lambda: quantize_file(tmp_path / "w.safetensors", tmp_path / "q.safetensors", "uint8"))


def test_the_thread_keeps_the_arithmetic_of_the_guard():
    def inside_and_after():
        with ieee_arithmetic():
            kept = np.float32(1e-40) * np.float32(1) != 0
        return kept, np.float32(1e-40) * np.float32(1) == 0

    assert flushed(inside_and_after) == (True, True)
