"""Which files the integer reference predicts, zero points included, and which it refuses by name."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper

import numerics as nx
from numerics.formats import NumericsError
from tests.helpers.onnx_models import items, model, node, numbers, residual

FEEDS = [{"x": items(2, seed=seed)["x"]} for seed in range(3, 7)]


def statically(tmp_path, opset=17, **options):
    """The residual net by ONNX Runtime's own quantize_static."""
    tools = pytest.importorskip("onnxruntime.quantization")

    class Reader(tools.CalibrationDataReader):
        def __init__(self):
            self.left = iter(FEEDS)

        def get_next(self):
            return next(self.left, None)

    net, out = residual(), tmp_path / "static.onnx"
    net.opset_import[0].version = opset
    types = {name: getattr(tools.QuantType, options.pop(name)) for name in list(options) if "type" in name}
    tools.quantize_static(net, str(out), Reader(), quant_format=tools.QuantFormat.QDQ, **types, **options)
    return onnx.load(out)


@pytest.mark.turns(6)
@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize(
    ("activations", "weights"),
    [
        (a, w)
        for a in ("QUInt8", "QInt8", "QUInt16", "QInt16")
        for w in ("QInt8", "QUInt8")
        if (a, w) != ("QInt8", "QUInt8")
    ],  # which quantize_static refuses
)
def test_files_with_zero_points_are_predicted(tmp_path, activations, weights, channels, optimized):
    """What was subtracted nowhere gave other integers everywhere, without a word."""
    opset = 21 if "16" in activations else 17
    made = statically(tmp_path, opset, activation_type=activations, weight_type=weights, per_channel=channels)
    reference = nx.ipu.Reference(made)
    assert any(zero != 0 for zero in reference.zeros.values()) or activations == "QInt16"
    layers = nx.ipu.compare(made, FEEDS, optimized=optimized)
    assert [layer for layer in layers if layer.unexplained] == []
    assert sum(layer.elements for layer in layers) > 4 * 2 * (3 * 36 + 4 * 36)
    came = nx.ipu.session(made).run(FEEDS[0])["y"]
    due = reference.run(FEEDS[0]).outputs["y"]
    assert np.abs(came - due).max() <= 0.05 * np.abs(came).max()


def test_a_zero_point_is_what_stands_for_zero():
    """By hand: x of uint8 at 128, weights at -3 and 5 by channels, a result of int8 at 7, and padding."""
    s, t, u = np.float32(0.5), np.float32([0.25, 0.5]), np.float32(0.75)
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "w t v", "wd", axis=0),
        node("Conv", "xd wd", "c", pads=[1, 1]),
        node("QuantizeLinear", "c u o", "cq"),
        node("DequantizeLinear", "cq u o", "y"),
    ]
    w = np.array([[[1, -3, 100]], [[5, 6, -20]]], np.int8)
    constants = {"s": s, "z": np.uint8(128), "w": w, "t": t, "v": np.int8([-3, 5]), "u": u, "o": np.int8(7)}
    net = model(nodes, {"x": (1, 1, 5)}, {"y": (1, 2, 5)}, constants)
    x = numbers(1, 1, 5, spread=20.0)
    found = nx.ipu.Reference(net).run({"x": x}).integers
    xq = np.clip(np.rint(x / s) + 128, 0, 255)
    assert np.array_equal(found["xq"], xq)
    padded, weights = np.pad(xq[0, 0] - 128, 1), w[:, 0].astype(float) - [[-3], [5]]
    sums = np.array([[(padded[k : k + 3] * row).sum() for k in range(5)] for row in weights])
    due = np.clip(np.rint(sums * (s * t[:, None] / u).astype(float)) + 7, -128, 127)
    assert np.array_equal(found["cq"][0], due)
    assert all(layer.differing == 0 for layer in nx.ipu.compare(net, [{"x": x}]))


def pair(scale="s", zero="z", **attributes):
    return [
        node("QuantizeLinear", f"x {scale} {zero}".strip(), "q", **attributes),
        node("DequantizeLinear", f"q {scale} {zero}".strip(), "y", **attributes),
    ]


S = {"s": np.float32(0.1), "z": np.int8(0), "many": np.float32([0.1] * 4), "zeros": np.zeros(4, np.int8)}
REFUSED = {
    "no QuantizeLinear": [node("Relu", "x", "y")],
    r"QuantizeLinear 'q': scales by channels of a computed tensor": pair("many", "zeros", axis=1),
    r"QuantizeLinear 'q': its scale or zero point is computed": [node("Abs", "t", "c"), *pair("c")],
    r"QuantizeLinear 'q': unknown type of its scale 'float16'": pair("half"),
    r"QuantizeLinear 'q': unknown type of its integers 'int4'": pair(zero="four"),
    r"QuantizeLinear 'q': its scales are of blocks": pair("blocks", "zero_blocks", axis=1, block_size=2),
    r"QLinearSigmoid 'q' holds integers of its own": [
        *pair(),
        helper.make_node("QLinearSigmoid", ["q", "s", "z", "s", "z"], ["p"], "q", domain="com.microsoft"),
    ],
    r"DynamicQuantizeLinear that makes 'q' holds integers of its own": [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "c", "v"]),
        node("DequantizeLinear", "q c v", "y"),
    ],
    r"BFPQuantizeDequantize 'b' is an operator of 'com.amd.quark'": [
        node("BFPQuantizeDequantize", "x", "b", domain="com.amd.quark"),
        *pair(),
    ],
}


@pytest.mark.parametrize("why", REFUSED)
def test_files_that_are_not_modelled_are_refused_by_the_node(why):
    """A float model had one layer and no difference; others got integers of no meaning."""
    blocks = {"blocks": np.float32([[0.1] * 2]), "zero_blocks": np.zeros((1, 2), np.int8)}
    constants = {**S, **blocks, "half": np.float16(0.1)}
    graph = model(REFUSED[why], {"x": (1, 4), "t": ()}, {"y": (1, 4)}, constants, opset=21)
    graph.graph.initializer.append(helper.make_tensor("four", TensorProto.INT4, [], [0]))
    for call in (nx.ipu.Reference, lambda made: nx.ipu.compare(made, [])):
        with pytest.raises(NumericsError, match=why):
            call(graph)


def test_a_graph_within_a_node_and_functions_are_refused():
    inner = helper.make_graph(
        [node("Relu", "x", "r")], "inner", [], [helper.make_empty_tensor_value_info("r")]
    )
    nodes = [*pair(), node("If", "yes", "i", then_branch=inner, else_branch=inner)]
    made = model(nodes, {"x": (1, 4)}, {"y": (1, 4)}, {**S, "yes": np.array(True)})
    with pytest.raises(NumericsError, match="If 'i' holds a graph of its own"):
        nx.ipu.Reference(made)
    made = model(pair(), {"x": (1, 4)}, {"y": (1, 4)}, S)
    made.functions.append(
        helper.make_function("own", "f", ["a"], ["b"], [node("Relu", "a", "b")], made.opset_import)
    )
    with pytest.raises(NumericsError, match="function 'f'"):
        nx.ipu.Reference(made)


def test_a_model_of_bfloat16_has_no_integers():
    made = nx.ipu.quantize_model(residual(), config="bf16").model
    for call in (nx.ipu.Reference, lambda made: nx.ipu.compare(made, FEEDS)):
        with pytest.raises(NumericsError, match="a model of bf16 has no integers to predict"):
            call(made)


def test_scales_of_constant_nodes_and_missing_zero_points_are_known():
    nodes = [
        node("Constant", "", "s", value=onnx.numpy_helper.from_array(np.float32(0.1))),
        *pair(zero=""),
    ]
    nodes[0].ClearField("input")
    made = model(nodes, {"x": (1, 4)}, {"y": (1, 4)})
    x = np.float32([[-1, 0.1, 3.27, 90]])
    assert nx.ipu.Reference(made).run({"x": x}).integers["q"].tolist() == [[0, 1, 33, 255]]
    assert [layer.differing for layer in nx.ipu.compare(made, [{"x": x}])] == [0, 0]


def test_a_node_is_named_once_where_it_fails():
    nodes = [*pair(), node("Cast", "y", "c", to=TensorProto.INT64), node("Gather", "k c", "m")]
    made = model(nodes, {"x": (1, 4)}, {"m": None}, {**S, "k": numbers(4)})
    with pytest.raises(NumericsError, match=r"^Gather 'm': ") as wrong:
        nx.ipu.Reference(made).run({"x": np.full((1, 4), 9, np.float32)})  # beyond k
    assert str(wrong.value).count("Gather 'm'") == 1


@pytest.mark.parametrize("came", ["net.onnx", b"12", None, onnx.GraphProto(), onnx.ModelProto()])
def test_what_is_no_model_is_refused(came):
    for call in (nx.ipu.Reference, lambda made: nx.ipu.compare(made, [])):
        with pytest.raises(NumericsError, match=r"allowed: an onnx\.ModelProto|names no version"):
            call(came)


def test_inputs_that_are_missing_are_named():
    made = model(pair(), {"x": (1, 4)}, {"y": (1, 4)}, S)
    with pytest.raises(NumericsError, match="inputs are x; came: z"):
        nx.ipu.Reference(made).run({"z": np.zeros((1, 4), np.float32)})
