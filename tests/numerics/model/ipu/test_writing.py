"""The written model: names that the model has already, open sizes, constants that nodes share, its bytes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import helper

import numerics as nx
from numerics.formats import NumericsError
from numerics.model.ipu import network as networks
from numerics.model.ipu.running import opened, run
from tests.helpers.onnx_models import model, node, numbers

CONFIGS = ("xint8", "a8w8", "a16w8", "bf16")
X = (1, 2, 5, 5)
W = [numbers(2, 2, 1, 1, seed=seed) for seed in range(3)]
SQUARE = {"w": numbers(3, 3)}


def after(first, *nodes, **constants):
    """A convolution of x to the tensor first, then nodes; y at the end."""
    return model([node("Conv", "x w", first), *nodes], {"x": X}, {"y": None}, {"w": W[0], **constants})


SAID = {
    "scale_of_another": after("c_scale", node("Conv", "x v", "c"), node("Add", "c c_scale", "y"), v=W[1]),
    "constant_in_float": after("c", node("Pow", "c c_scale", "p"), node("Conv", "p v", "y"),
                               c_scale=np.float32(2), v=W[1]),
    "zeros": after("zero_int8", node("Conv", "zero_int8 v", "zero_int16"), node("Relu", "zero_int16", "y"),
                   v=W[1]),
    "integers": after(
        "x_quantized", node("Relu", "x_quantized", "x_dequantized"),
        node("Conv", "x_dequantized w_quantized", "w_quantized_scale"),
        node("Relu", "w_quantized_scale", "y"),
        w_quantized=W[1],
    ),
    "casts": after("c", node("Conv", "c w_bfloat16", "d"), node("Conv", "d w_rounded", "y"),
                   w_bfloat16=W[1], w_rounded=W[2]),
    "computed_casts": after("w_bfloat16", node("Conv", "w_bfloat16 v", "w_rounded"),
                            node("Conv", "w_rounded w", "y"), v=W[1]),
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", SAID)
def test_names_that_are_taken_are_left_to_who_has_them(name, config):
    x = numbers(4, *X[1:], seed=9)
    found = nx.ipu.quantize_model(SAID[name], None if config == "bf16" else {"x": x}, config)
    due, came = (run(opened(each), {"x": x[:1]})["y"] for each in (SAID[name], found.model))
    assert ((due - came) ** 2).sum() < 0.02 * (due**2).sum()
    if config != "bf16":
        assert not any(layer.unexplained for layer in nx.ipu.compare(found.model, [{"x": x[:1]}], "stx"))
    names = [each.name for each in found.model.graph.node]
    assert len(names) == len(set(names))


SHARED = {
    "turned": [node("Gemm", "x w", "h"), node("Gemm", "h w", "y", transB=1)],
    "turned_back": [node("Gemm", "x w", "h", transB=1), node("Gemm", "h w", "y")],
    "added_first": [node("Add", "x w", "h"), node("MatMul", "h w", "y")],
    "added_last": [node("MatMul", "x w", "h"), node("Add", "h w", "y")],
}


@pytest.mark.parametrize("config", ["a8w8", "a16w8"])
@pytest.mark.parametrize("name", SHARED)
def test_a_constant_that_nodes_take_along_different_axes_has_the_scales_of_each(name, config):
    w = np.float32([[1, 10, 100], [2, 20, 200], [3, -30, 300]])
    found = model(SHARED[name], {"x": (3, 3)}, {"y": (3, 3)}, {"w": w})
    x = numbers(12, 3)
    made = nx.ipu.quantize_model(found, {"x": x}, config).model
    held = {each.name: onnx.numpy_helper.to_array(each) for each in made.graph.initializer}
    for each in made.graph.node:
        scale = held.get(each.input[1]) if each.op_type == "DequantizeLinear" else None
        if each.input[0] not in held or scale is None or scale.ndim == 0:
            continue
        axis = helper.get_attribute_value(each.attribute[0])
        largest = np.abs(held[each.input[0]].astype(int)).max(1 - axis)
        assert (largest == 127).all(), each  # each channel's own scale reaches its end
    assert not any(layer.unexplained for layer in nx.ipu.compare(made, [{"x": x[:3]}], "stx"))


def test_sizes_that_only_a_run_says_stay_open():
    nodes = [node("Conv", "x w", "c"), node("NonZero", "c", "z"), node("Cast", "z", "y", to=1)]
    found = nx.ipu.quantize_model(model(nodes, {"x": X}, {"y": None}, {"w": W[0]}), {"x": numbers(4, *X[1:])})
    rank, count = found.model.graph.output[0].type.tensor_type.shape.dim
    assert rank.dim_value == 4
    assert not count.HasField("dim_value")


def test_constants_that_grow_when_they_are_computed_are_refused_before_work(monkeypatch):
    nodes = [node("Cast", "w16", "w", to=1), node("MatMul", "x w", "y")]
    found = model(nodes, {"x": (1, 64)}, {"y": (1, 64)}, {"w16": numbers(64, 64).astype(np.float16)})
    monkeypatch.setattr(networks, "MOST_BYTES", 64 * 64 * 3)
    with pytest.raises(NumericsError, match=r"with its constants computed, have 16,384 bytes.*'w' of MatMul"):
        nx.ipu.quantize_model(found, {"x": numbers(4, 64)})


def test_a_quantized_model_that_is_too_large_is_refused_before_calibration(monkeypatch):
    """Who shares a constant has its integers for itself; who keeps it in float has the floats too."""
    nodes = [node("MatMul", "x w", "h0"), *(node("MatMul", f"h{k} w", f"h{k + 1}") for k in range(7))]
    found = model(nodes, {"x": (1, 64)}, {"h7": (1, 64)}, {"w": numbers(64, 64)})
    monkeypatch.setattr(networks, "MOST_BYTES", 64 * 64 * 6)

    def seen(*_):
        raise AssertionError("it was calibrated")

    with pytest.raises(
        NumericsError, match="the quantized model have 32,768 bytes, the largest 'w' of MatMul"
    ):
        nx.ipu.quantize_model(found, {"x": numbers(4, 64)}, progress=seen)
