"""Which nodes become integer, and the reason of each that does not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numerics as nx
from numerics.formats import NumericsError
from numerics.model.ipu.choosing import choose
from numerics.model.ipu.configs import CONFIGS
from numerics.model.ipu.network import Network
from numerics.model.ipu.report import Report
from tests.helpers.onnx_models import model, node, numbers

X = (1, 2, 4, 4)
W = numbers(2, 2, 1, 1)
CONV = node("Conv", "x w", "c")


def chosen(nodes, constants=None, config="xint8", shape=None, **changed):
    options, report = CONFIGS[config].replace(**changed), Report(config, "stx")
    network = Network(model(nodes, {"x": X}, {"y": shape}, constants), options.keep)
    found = choose(network, options, report)
    return [group.operator for group in found.groups], found.tensors, report.rows


@pytest.mark.parametrize(
    ("nodes", "constants", "why"),
    [
        (
            [CONV, node("Round", "c", "r"), node("CumSum", "r a", "y")],
            {"w": W, "a": np.array(1)},
            "no integer",
        ),
        ([CONV, node("Conv", "x c", "y")], {"w": W}, "its weights are computed"),
        ([CONV, node("HardSigmoid", "c", "y")], {"w": W}, "HardSigmoid has the slope 1/6"),
        (
            [CONV, node("Pad", "c p v", "y")],
            {"w": W, "p": np.zeros(8, np.int64), "v": np.float32(1)},
            "pads with zeros",
        ),
        (
            [CONV, node("Pad", "c p", "y", mode="edge")],
            {"w": W, "p": np.zeros(8, np.int64)},
            "pads with zeros",
        ),
        (
            [CONV, node("AveragePool", "c", "y", kernel_shape=[3, 3], pads=[1] * 4)],
            {"w": W},
            "no one multiplier",
        ),
        (
            [CONV, node("Concat", "c w", "y", axis=2)],
            {"w": numbers(1, 2, 4, 4)[:, :, :1, :1].repeat(2, 0)},
            "a constant is part of it",
        ),
        (
            [node("Softplus", "x", "s"), node("Flatten", "s", "f"), node("Gemm", "f v", "y")],
            {"v": numbers(32, 2)},
            "it moves numbers, and nothing before it is quantized",
        ),
        (
            [CONV, node("Flatten", "c", "f"), node("Gemm", "f v", "y", transA=1)],
            {"w": W, "v": numbers(1, 2)},
            "transA",
        ),
        ([CONV, node("Sqrt", "c", "y")], {"w": W}, "steep near 0"),
    ],
)
def test_what_stays_in_float_is_listed_with_its_reason(nodes, constants, why):
    if "Concat" in nodes[-1].op_type:
        constants = {"w": numbers(2, 2, 1, 1)}
        nodes = [CONV, node("Concat", "c k", "y", axis=1)]
        constants["k"] = numbers(1, 1, 4, 4)
    _, _, rows = chosen(nodes, constants)
    kept = [row for row in rows if row.step == "keep"]
    assert why in kept[-1].why


@pytest.mark.parametrize("pool", ["AveragePool", "GlobalAveragePool"])
def test_a_mean_has_a_scale_of_its_own_where_scales_are_floats(pool):
    """That of its input made the result of a squeeze eight times coarser; in bf16 it "moved numbers"."""
    options = {"kernel_shape": [2, 2]} if pool == "AveragePool" else {}
    nodes = [node("Softplus", "x", "s"), node(pool, "s", "p", **options), node("Conv", "p w", "y")]
    for config in ("a8w8", "a16w8", "bf16"):
        assert chosen(nodes, {"w": W}, config)[0] == [pool, "Conv"]
    ops, _, rows = chosen(nodes, {"w": W}, "xint8")
    assert ops == ["Conv"]
    assert rows[1].why == "it averages integers of one scale, and nothing before it is quantized"
    net = model([CONV, node(pool, "c", "y", **options)], {"x": X}, {"y": None}, {"w": W})
    for config in ("xint8", "a8w8", "a16w8"):
        found = nx.ipu.quantize_model(net, {"x": numbers(16, *X[1:])}, config)
        assert (found.scales["c"] == found.scales["y"]) == (config == "xint8")
        layers = nx.ipu.compare(found.model, [{"x": numbers(*X, seed=k)} for k in range(8)])
        assert not any(layer.unexplained for layer in layers)


def test_what_the_user_keeps_is_listed():
    nodes = [CONV, node("Relu", "c", "y")]
    ops, tensors, rows = chosen(nodes, {"w": W}, keep=("y",))
    assert (ops, tensors, rows[0].why) == (["Conv"], ["x", "c"], "keep= names it")
    assert chosen(nodes, {"w": W}, keep=("Relu",))[0] == ["Conv"]


def test_a_function_on_an_accumulator_is_not_rounded_before():
    for op in ("Relu", "LeakyRelu"):
        assert chosen([CONV, node(op, "c", "y")], {"w": W})[:2] == ([f"Conv+{op}"], ["x", "y"])
    both = [CONV, node("Relu", "c", "r"), node("Add", "c r", "y")]
    assert chosen(both, {"w": W})[:2] == (["Conv", "Relu", "Add"], ["x", "c", "r", "y"])


def test_the_configurations_differ_where_the_table_of_operators_does():
    nodes = [CONV, node("Relu", "c", "y")]
    for config in ("xint8", "a8w8", "a16w8"):
        assert chosen(nodes, {"w": W}, config)[0] == ["Conv+Relu"]
    ops, _, rows = chosen(nodes, {"w": W}, "bf16")
    assert (ops, rows[0].why) == (["Conv"], "Ryzen AI does not list Relu for bf16")
    hard = [CONV, node("HardSigmoid", "c", "y", alpha=1 / 6, beta=0.5)]
    assert chosen(hard, {"w": W}, "xint8")[0] == ["Conv", "HardSigmoid"]
    assert chosen(hard, {"w": W}, "a16w8")[2][0].why == "Ryzen AI does not list HardSigmoid for a16w8"


def test_a_model_of_which_nothing_can_be_quantized_is_refused_with_the_reasons():
    with pytest.raises(NumericsError, match=r"nothing in this model.*to xint8: Softplus 'y': Ryzen AI does"):
        chosen([node("Softplus", "x", "y")])


@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8", "bf16"])
def test_tensors_without_elements_stay_in_float(config):
    nodes = [node("MatMul", "x w", "h"), node("Slice", "h a a", "s"), node("Concat", "s h", "y", axis=0)]
    found = model(nodes, {"x": (2, 3)}, {"y": None}, {"w": numbers(3, 3), "a": np.array([0])})
    made = nx.ipu.quantize_model(found, None if config == "bf16" else {"x": numbers(4, 3)}, config)
    assert "'s' has no elements" in {row.node: row.why for row in made.report.of("keep")}["s"]


BATCH_NORM = [CONV, node("BatchNormalization", "c g g g g", "n"), node("Sigmoid", "n", "s")]
SPLIT_UP = [*BATCH_NORM, node("Div", "s two", "d"), node("Relu", "d", "y")]
PARTS = {"w": W, "g": np.ones(2, np.float32), "two": np.float32(2)}
OTHERS = model(SPLIT_UP, {"x": X}, {"y": None}, PARTS)


@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8", "bf16"])
@pytest.mark.parametrize("name", ["s", "Sigmoid", "d", "Div"])
def test_what_is_kept_is_neither_approximated_nor_rewritten(config, name):
    """keep="Sigmoid" was a HardSigmoid of int8 in xint8, and Div by a constant a Mul."""
    options = nx.ipu.CONFIGS[config].replace(keep=(name,))
    made = nx.ipu.quantize_model(OTHERS, {"x": numbers(4, *X[1:])}, options)
    operator = {"s": "Sigmoid", "d": "Div"}.get(name, name)
    assert operator in [each.op_type for each in made.model.graph.node]
    assert operator in {row.operator for row in made.report.of("keep")}


def test_a_hard_swish_of_a_kept_sigmoid_is_none():
    nodes = [CONV, node("Sigmoid", "c", "s"), node("Mul", "c s", "y")]
    found = model(nodes, {"x": X}, {"y": None}, {"w": W})
    made = nx.ipu.quantize_model(
        found, {"x": numbers(4, *X[1:])}, nx.ipu.CONFIGS["xint8"].replace(keep=("s",))
    )
    assert not made.report.of("approximate")


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("sig", "keep= names 'sig', which is neither a node nor an operator.*operators are .*Sigmoid"),
        ("Sigmiod", "did you mean 'Sigmoid'"),
        ("LayerNormalization", "neither a node nor an operator"),
        ("n", "keep= names 'n', of which nothing is left.*BatchNormalization 'n' taken into Conv 'c'"),
        ("BatchNormalization", "BatchNormalization 'n' taken into Conv 'c'"),
    ],
)
@pytest.mark.parametrize("config", ["xint8", "bf16"])
def test_a_name_to_keep_that_keeps_nothing_is_refused(config, keep, said):
    with pytest.raises(NumericsError, match=said):
        nx.ipu.quantize_model(
            OTHERS, {"x": numbers(4, *X[1:])}, nx.ipu.CONFIGS[config].replace(keep=("c", keep))
        )


def test_a_node_without_a_name_is_kept_by_what_it_makes():
    """So the report has it, and so a refusal advises."""
    nodes = [CONV, node("Relu", "c", "r"), node("Conv", "r w", "y")]
    for each in nodes:
        each.ClearField("name")
    found = model(nodes, {"x": X}, {"y": None}, {"w": W})
    made = nx.ipu.quantize_model(
        found, {"x": numbers(4, *X[1:])}, nx.ipu.CONFIGS["xint8"].replace(keep=["r"])
    )
    assert [(row.node, row.why) for row in made.report.of("keep")] == [("r", "keep= names it")]


def test_a_model_that_computes_constants_only_is_refused_with_words():
    network = Network(OTHERS)
    network.nodes = []
    with pytest.raises(NumericsError, match=r"to xint8: all that it computes is constant"):
        choose(network, CONFIGS["xint8"], Report("xint8", "stx"))
