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


MOVERS = {
    "Transpose": node("Transpose", "x", "m", perm=[0, 2, 3, 1]), "Flatten": node("Flatten", "x", "m"),
    "MaxPool": node("MaxPool", "x", "m", kernel_shape=[2, 2]), "Slice": node("Slice", "x from to along", "m"),
    "Reshape": node("Reshape", "x shape", "m"), "Gather": node("Gather", "x which", "m", axis=1),
}  # fmt: skip
PLACES = {
    "from": np.int64([0]), "to": np.int64([1]), "along": np.int64([1]), "shape": np.int64([1, 50]),
    "which": np.int64([1, 0]),
}  # fmt: skip


@pytest.mark.parametrize("opset", [13, 17, 20, 21])
@pytest.mark.parametrize("mover", MOVERS)
def test_onnx_runtime_opens_what_numbers_move_through_in_float(mover, opset):
    """From opset 21 on it put pairs around them that it then refused."""
    from onnxruntime import InferenceSession

    nodes = [node("Conv", "x w", "y"), MOVERS[mover], node("Softplus", "m", "z")]
    made = model(nodes, {"x": X}, {"y": None, "z": None}, {"w": W[0], **PLACES}, opset=opset)
    x = numbers(4, *X[1:])
    for config in ("xint8", "a8w8", "a16w8"):
        found = nx.ipu.quantize_model(made, {"x": x}, nx.ipu.CONFIGS[config].replace(keep=(mover,)))
        plain = InferenceSession(found.model.SerializeToString(), providers=["CPUExecutionProvider"])
        (came,), due = plain.run(["y"], {"x": x[:1]}), run(opened(found.model), {"x": x[:1]})["y"]
        assert np.abs(came - due).max() <= 1.01 * found.scales["y"], (
            "a step, where a sum is rounded otherwise"
        )


def test_a_file_in_which_constants_are_inputs_too_is_written_in_a_later_version():
    """onnx.version_converter, which a refusal names, leaves version 3; onnx refused what was written."""
    made = model([node("Conv", "x w", "y")], {"x": X, "w": W[0].shape}, {"y": None}, {"w": W[0]})
    made.ir_version = 3
    for config in CONFIGS:
        found = nx.ipu.quantize_model(made, None if config == "bf16" else {"x": numbers(*X)}, config)
        assert found.model.ir_version >= 4
        assert set(run(opened(found.model), {"x": numbers(*X)})) == {"y"}
    assert made.ir_version == 3


@pytest.mark.parametrize("config", ["a8w8", "a16w8"])
@pytest.mark.parametrize("norm", [1e-9, 1e-30, 0.0])
def test_a_channel_of_hardly_any_weights_keeps_its_bias(config, norm):
    """Its int32 at activation x weight overflowed, and the channel was 0."""
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c gamma beta mean variance", "y")]
    constants = {
        "w": W[0], "gamma": np.float32([1, norm]), "beta": np.float32([0, 1]),
        "mean": np.zeros(2, np.float32), "variance": np.ones(2, np.float32),
    }  # fmt: skip
    x = numbers(8, *X[1:])
    found = nx.ipu.quantize_model(model(nodes, {"x": X}, {"y": None}, constants), {"x": x}, config)
    came = run(opened(found.model), {"x": x[:1]})["y"][0, 1]
    assert np.abs(came - 1).max() < found.scales["y"]
    told = [row.what for row in found.report.of("bias") if "int32, " not in row.what]
    assert [what.startswith("1 of 2 scales of w_folded widened") for what in told] == [True] * (norm > 0)
    assert not any(layer.unexplained for layer in nx.ipu.compare(found.model, [{"x": x[:1]}]))


@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
@pytest.mark.parametrize("factor", [1e-39, 1e-42])
def test_values_below_the_normal_numbers_of_float32_are_said_to_become_0(config, factor):
    """Their scales were no normal numbers, at which runtimes divide otherwise."""
    x = numbers(4, *X[1:])
    made = model([node("Mul", "x f", "y")], {"x": X}, {"y": None}, {"f": np.float32([factor])})
    found = nx.ipu.quantize_model(made, {"x": x}, config)
    assert min(found.scales.values()) >= 2.0**-126
    assert len([row for row in found.report.of("limit") if "smallest normal" in row.why]) == 2
    assert not any(layer.unexplained for layer in nx.ipu.compare(found.model, [{"x": x[:1]}]))


@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
def test_one_tensor_that_is_concatenated_has_no_limits(config):
    """A missing position of a second one was refused in words of our own."""
    made = after("c", node("Concat", "c", "y", axis=1))
    found = nx.ipu.quantize_model(made, {"x": numbers(*X)}, config)
    assert not any(layer.unexplained for layer in nx.ipu.compare(found.model, [{"x": numbers(*X)}]))
