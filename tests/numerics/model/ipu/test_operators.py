"""A census: every operator of ONNX up to opset 17 becomes integer by a rule, or stays in float, with why."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

import numerics as nx
from numerics.model.ipu.documented import DOCUMENTED
from numerics.model.ipu.loading import NESTED, QUANTIZED
from numerics.model.ipu.network import Network
from numerics.model.ipu.operators import OPERATORS, refusal
from tests.helpers.onnx_models import model, node, numbers

LONG = os.environ.get("NUMERICS_TEST_LONG") == "1"
long = pytest.mark.skipif(not LONG, reason="make verify")
X = (2, 4, 6, 6)
W1 = {"w1": numbers(4, 4, 1, 1, seed=3)}
CONV = node("Conv", "x w1", "c")


def between(op, more="", constants=None, before=(), taken="c", **attributes):
    """A convolution, the operator, and a ReLU behind it: three nodes."""
    nodes = [CONV, *before, node(op, f"{taken} {more}".strip(), "o", **attributes), node("Relu", "o", "y")]
    return nodes, {**W1, **(constants or {})}


F = np.float32
CHANNELS = {"a": numbers(4, seed=5) + 2, "b": numbers(4, seed=6)}
ROWS = {"a": numbers(6, seed=5) + 2, "b": numbers(6, seed=6)}
EACH = {
    "Abs": between("Abs"),
    "Add": between("Add", "x"),
    "AveragePool": between("AveragePool", kernel_shape=[3, 3]),
    "Ceil": between("Ceil"),
    "Celu": between("Celu", alpha=0.5),
    "Clip": between("Clip", "a b", {"a": F(0), "b": F(6)}),
    "Concat": between("Concat", "x", axis=1),
    "Conv": between("Conv", "w1"),
    "ConvTranspose": between("ConvTranspose", "t b", {"t": numbers(4, 3, 3, 3), "b": numbers(3)},
                             strides=[2, 1], pads=[1, 0, 1, 2], output_padding=[1, 0]),
    "ConvTranspose by groups": between("ConvTranspose", "t", {"t": numbers(4, 2, 2, 3)}, group=2,
                                       dilations=[1, 2]),
    "Cos": between("Cos"),
    "DepthToSpace": between("DepthToSpace", blocksize=2),
    "Div by a constant": between("Div", "a", {"a": F([[[3.0]], [[8.0]], [[0.5]], [[-2.0]]])}),
    "Elu": between("Elu", alpha=0.7),
    "Erf": between("Erf"),
    "Exp": between("Exp"),
    "Expand": between("Expand", "a", {"a": np.array([3, 1, 1, 1, 1])}),
    "Flatten": between("Flatten"),
    "Floor": between("Floor"),
    "Gather": between("Gather", "a", {"a": np.array([1, 0])}, axis=1),
    "Gemm": between("Gemm", "g b", {"g": numbers(3, 144), "b": numbers(3)}, taken="f", transB=1,
                    before=[node("Flatten", "c", "f")]),
    "GlobalAveragePool": between("GlobalAveragePool"),
    "GlobalMaxPool": between("GlobalMaxPool"),
    "HardSigmoid": between("HardSigmoid", alpha=1 / 6, beta=0.5),
    "HardSwish": between("HardSwish"),
    "InstanceNormalization": between("InstanceNormalization", "a b", CHANNELS),
    "LayerNormalization": between("LayerNormalization", "a b", ROWS),
    "LeakyRelu": between("LeakyRelu", alpha=0.3),
    "MatMul": between("MatMul", "a", {"a": numbers(6, 5)}),
    "MatMul of two": between("MatMul", "t", before=[node("Transpose", "x", "t", perm=[0, 1, 3, 2])]),
    "MatMul of a constant": ([CONV, node("MatMul", "a c", "o"), node("Relu", "o", "y")],
                             {**W1, "a": numbers(5, 6)}),
    "Max": between("Max", "x"),
    "MaxPool": between("MaxPool", kernel_shape=[2, 2]),
    "Min": between("Min", "x"),
    "Mul": between("Mul", "x"),
    "Neg": between("Neg"),
    "PRelu of one slope": between("PRelu", "a", {"a": F([[[0.25]]])}),
    "Pad": between("Pad", "a", {"a": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
    "ReduceMax": between("ReduceMax", axes=[2, 3]),
    "ReduceMean": between("ReduceMean", axes=[-1], keepdims=0),
    "ReduceMin": between("ReduceMin", axes=[1]),
    "ReduceSum": between("ReduceSum", "a", {"a": np.array([2, 3])}),
    "Relu": between("Relu"),
    "Reshape": between("Reshape", "a", {"a": np.array([2, -1])}),
    "Resize, nearest": between("Resize", "- a", {"-": F([]), "a": F([1, 1, 2, 2.5])}, mode="nearest"),
    "Resize, linear": between("Resize", "- a", {"-": F([]), "a": F([1, 1, 2, 2])}, mode="linear"),
    "Resize, align_corners": between("Resize", "- - a", {"-": F([]), "a": np.array([2, 4, 11, 3])},
                                     mode="linear", coordinate_transformation_mode="align_corners"),
    "Round": between("Round"),
    "Shrink": between("Shrink", bias=0.25, lambd=0.4),
    "Sigmoid": between("Sigmoid"),
    "Sign": between("Sign"),
    "Sin": between("Sin"),
    "Slice": between("Slice", "a b", {"a": np.array([0, 1]), "b": np.array([2, 3])}),
    "Softmax": between("Softmax", axis=1),
    "Softsign": between("Softsign"),
    "Split": ([CONV, onnx.helper.make_node("Split", ["c", "a"], ["o", "p"], "split", axis=1),
               node("Relu", "p", "r"), node("Add", "o r", "y")], {**W1, "a": np.array([2, 2])}),
    "Squeeze": between("Squeeze", "a", {"a": np.array([1])}, taken="r",
                       before=[node("ReduceMax", "c", "r", axes=[1])]),
    "Sub": between("Sub", "x"),
    "Tanh": between("Tanh"),
    "ThresholdedRelu": between("ThresholdedRelu", alpha=0.3),
    "Tile": between("Tile", "a", {"a": np.array([1, 2, 1, 1])}),
    "Transpose": between("Transpose", perm=[0, 2, 3, 1]),
    "Unsqueeze": between("Unsqueeze", "a", {"a": np.array([0])}),
    "Where": ([CONV, node("Greater", "c x", "g"), node("Where", "g c x", "o"), node("Relu", "o", "y")], W1),
}  # fmt: skip
FEEDS = [{"x": numbers(*X, seed=seed, spread=1.5)} for seed in (6, 7)]


def made(case, config, opset=17):
    nodes, constants = case
    found = model(nodes, {"x": X}, {"y": None}, constants, opset)
    return nx.ipu.quantize_model(found, {"x": numbers(8, *X[1:], seed=1, spread=1.5)}, config)


@pytest.mark.turns(6)
@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("optimized", [True, pytest.param(False, marks=long)])
def test_every_operator_is_predicted_or_stays_in_float_and_the_report_says_why(name, config, optimized):
    """And the reason is that Ryzen AI does not list it, nothing else, where there is a rule."""
    found = made(EACH[name], config)
    operators = {each.op_type for each in EACH[name][0]}
    for row in found.report.of("keep"):
        if row.operator in operators - {"Relu", "Greater", "Add"}:
            assert row.why == f"Ryzen AI does not list {row.operator} for {config}", row
            assert config not in DOCUMENTED.get(row.operator, ())
    for layer in nx.ipu.compare(found.model, FEEDS, optimized=optimized):
        assert layer.unexplained == 0, layer
        assert layer.most <= 1
        if config == "xint8":
            assert layer.differing == layer.near, layer


@pytest.mark.parametrize(("name", "opset", "options"), [
    ("Gelu", 20, {}), ("Gelu", 20, {"approximate": "tanh"}), ("Mish", 18, {}),
])  # fmt: skip
def test_operators_that_came_after_opset_17_too(name, opset, options):
    found = made(between(name, **options), "xint8", opset)
    assert name in {row.operator.split("+")[0] for row in found.report.of("quantize")}
    for layer in nx.ipu.compare(found.model, FEEDS):
        assert layer.differing == layer.near, layer


FOLDED = ("BatchNormalization", "Constant", "Div", "Dropout", "Identity", "PRelu", "Shape", "Split")
"""Gone, or become others, before anything is chosen."""


def every_operator():
    return sorted({s.name for s in onnx.defs.get_all_schemas_with_history()
                   if s.domain == "" and s.since_version <= 17})  # fmt: skip


@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
def test_no_operator_of_onnx_is_left_without_a_rule_or_a_reason(config):
    network = Network(model([node("Relu", "x", "y")], {"x": X}, {"y": X}))
    shown = {part.op_type for nodes, _ in EACH.values() for part in nodes}
    reasons = {}
    for name in every_operator():
        if name in OPERATORS:
            assert name in shown, name
        elif name not in (*NESTED, *QUANTIZED, *FOLDED):
            reasons[name] = refusal(network, node(name, "x", "y"), nx.ipu.CONFIGS[config])
    assert len(reasons) > 100
    listed = {name for name in reasons if config in DOCUMENTED.get(name, ())}
    for name, why in reasons.items():
        due = ("it is steep", "no integer arithmetic") if name in listed else ("Ryzen AI does not list",)
        assert why.startswith(due), (name, why)


@pytest.mark.parametrize(("case", "why"), [
    (between("Resize", "- a", {"-": F([]), "a": F([1, 1, 2, 2])}, mode="cubic"), "its mode is cubic"),
    (between("Resize", "r a", {"r": F([0, 0, 0, 0, 1, 1, 1, 1]), "a": F([1, 1, 2, 2])},
             coordinate_transformation_mode="tf_crop_and_resize"), "have no rule here"),
    (between("Sqrt", taken="p", before=[node("Abs", "c", "p")]), "it is steep near 0"),
    (between("Div", "e", before=[node("Exp", "x", "e")]), "it is steep near 0"),
    (between("Max", "a", {"a": F(0.1)}), "a constant is part of it"),
    (between("LRN", size=3), "Ryzen AI does not list LRN"),
    (between("CumSum", "a", {"a": np.array(1)}), "no integer arithmetic is written down"),
])  # fmt: skip
def test_what_stays_in_float_says_why(case, why):
    found = made(case, "xint8")
    assert any(why in row.why for row in found.report.of("keep")), str(found.report)
    assert all(layer.unexplained == 0 for layer in nx.ipu.compare(found.model, FEEDS))
