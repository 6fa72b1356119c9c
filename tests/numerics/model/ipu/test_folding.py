"""Folding changes no result: the numbers are chosen so that every order of operations is exact."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numerics as nx
from numerics.model.ipu import folding
from numerics.model.ipu.network import Network
from numerics.model.ipu.report import Report
from numerics.model.ipu.running import opened, run
from tests.helpers.bits import assert_same_bits
from tests.helpers.onnx_models import model, node, numbers

X = (2, 2, 4, 4)
whole = np.random.default_rng(0).integers(-4, 5, (4, 2, 1, 1)).astype(np.float32)
NORM = {
    "g": np.float32([1, 2, -3, 0.5]), "b": np.float32([0, 1, -1, 2]), "m": np.float32([1, -2, 0, 3]),
    "v": np.float32([4, 16, 1, 0.25]),
}  # fmt: skip


def folded(found):
    """The operators after folding, and the rows; the results are compared."""
    network, report = Network(found), Report("xint8", "stx")
    folding.fold(network, report)
    feeds = {"x": np.random.default_rng(1).integers(-8, 8, X).astype(np.float32)}
    before = run(opened(found, optimized=False), feeds)
    assert_same_bits(run(opened(network.model(), optimized=False), feeds)["y"], before["y"])
    return [each.op_type for each in network.nodes], report


def test_a_normalization_goes_into_the_convolution_before_it():
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c g b m v", "n", epsilon=0.0),
        node("Relu", "n", "y"),
    ]
    ops, report = folded(model(nodes, {"x": X}, {"y": (2, 4, 4, 4)}, {"w": whole, **NORM}))
    assert ops == ["Conv", "Relu"]
    assert [(row.node, row.what) for row in report] == [("n", "taken into Conv 'c'")]


def test_a_normalization_goes_into_a_transposed_convolution_by_groups():
    w = whole.reshape(2, 4, 1, 1)
    for group, channels in ((1, 4), (2, 8)):
        norm = {k: np.concatenate([a, a])[:channels] for k, a in NORM.items()}
        nodes = [
            node("ConvTranspose", "x w", "c", group=group),
            node("BatchNormalization", "c g b m v", "n", epsilon=0.0),
            node("Relu", "n", "y"),
        ]
        ops, _ = folded(model(nodes, {"x": X}, {"y": (2, channels, 4, 4)}, {"w": w, **norm}))
        assert ops == ["ConvTranspose", "Relu"]


def test_a_normalization_without_a_layer_becomes_a_convolution():
    norm = {k: a[:2] for k, a in NORM.items()}
    nodes = [
        node("Relu", "x", "r"),
        node("BatchNormalization", "r g b m v", "n", epsilon=0.0),
        node("Relu", "n", "y"),
    ]
    ops, report = folded(model(nodes, {"x": X}, {"y": X}, norm))
    assert ops == ["Relu", "Conv", "Relu"]
    assert report.of("fold")[0].what == "became a Conv of 1 x 1 by channels"


def test_a_normalization_of_a_result_that_others_take_is_not_folded_into_the_layer():
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c g b m v", "n", epsilon=0.0),
        node("Add", "c n", "y"),
    ]
    ops, report = folded(model(nodes, {"x": X}, {"y": (2, 4, 4, 4)}, {"w": whole, **NORM}))
    assert ops == ["Conv", "Conv", "Add"]
    assert report.of("fold")[0].why.startswith("others take the result of Conv 'c' before it; ")


def test_a_normalization_after_a_layer_of_computed_constants_says_so():
    """The row said that no layer stands before it."""
    nodes = [
        node("ReduceMax", "x", "k", axes=[0, 2, 3], keepdims=0),
        node("Concat", "k k", "bias", axis=0),
        node("Conv", "x w bias", "c"),
        node("BatchNormalization", "c g b m v", "y", epsilon=0.0),
    ]
    _, report = folded(model(nodes, {"x": X}, {"y": (2, 4, 4, 4)}, {"w": whole, **NORM}))
    assert report.of("fold")[0].why.startswith("the weights or the bias of Conv 'c' before it are computed; ")


@pytest.mark.parametrize(
    ("nodes", "due"),
    [
        ([node("CastLike", "zero x", "k")], 0.0),
        ([node("Size", "x", "n"), node("CastLike", "n x", "k")], 64.0),
        ([node("Relu", "x", "r"), node("CastLike", "zero r", "e"), node("Expand", "e one", "k")], [0.0]),
        ([node("Reshape", "x rows", "r"), node("EyeLike", "r", "e"), node("ReduceSum", "e", "k")], [[8.0]]),
    ],
)
def test_what_depends_on_a_type_or_a_shape_alone_is_computed(nodes, due):
    """torch.onnx.export writes the bias of a layer that has none so: as 0 in the type of its input."""
    constants = {"zero": np.int64(0), "one": np.array([1]), "rows": np.array([8, 8])}
    found = model([*nodes, node("Add", "x k", "y")], {"x": X}, {"y": X}, constants)
    network = Network(found)
    folding.fold(network, Report("xint8", "stx"))
    assert network.constants["k"].dtype == np.float32
    assert network.constants["k"].tolist() == due
    assert "Add" in folded(found)[0]


@pytest.mark.parametrize("layer", ["Conv", "ConvTranspose"])
def test_a_layer_without_a_bias_as_torch_writes_it_takes_its_normalization(layer):
    weights = whole if layer == "Conv" else np.ascontiguousarray(whole.swapaxes(0, 1))
    nodes = [
        node("Shape", "w", "n", start=0, end=1)
        if layer == "Conv"
        else node("Constant", "", "n", value_ints=[4]),
        node("CastLike", "zero x", "typed"),
        node("Expand", "typed n", "bias"),
        node(layer, "x w bias", "c"),
        node("BatchNormalization", "c g b m v", "y", epsilon=0.0),
    ]
    constants = {"zero": np.float32(0), "w": weights, **NORM}
    ops, _ = folded(model(nodes, {"x": X}, {"y": (2, 4, 4, 4)}, constants))
    assert ops == [layer]


def test_a_constant_that_is_added_becomes_the_bias():
    nodes = [node("Conv", "x w", "c"), node("Add", "a c", "s"), node("Relu", "s", "y")]
    added = np.float32([1, 2, 3, 4]).reshape(4, 1, 1)
    ops, _ = folded(model(nodes, {"x": X}, {"y": (2, 4, 4, 4)}, {"w": whole, "a": added}))
    assert ops == ["Conv", "Relu"]
    wrong = np.float32([1, 2, 3, 4]).reshape(1, 1, 4)  # along the width, which is as long
    ops, _ = folded(model(nodes, {"x": X}, {"y": (2, 4, 4, 4)}, {"w": whole, "a": wrong}))
    assert ops == ["Conv", "Add", "Relu"]


def test_a_product_with_a_constant_added_becomes_gemm():
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w", "p"), node("Add", "p a", "y")]
    w = np.random.default_rng(2).integers(-3, 4, (32, 3)).astype(np.float32)
    ops, _ = folded(model(nodes, {"x": X}, {"y": (2, 3)}, {"w": w, "a": np.float32([1, 2, 3])}))
    assert ops == ["Flatten", "Gemm"]


def test_a_product_on_three_axes_keeps_its_sum_and_says_so():
    """It is rounded twice, which no row said; Gemm with Reshapes around it was no better by what it costs."""
    weights = {"w": np.float32([[1, -2, 3], [2, 0, 1], [0, 1, 1], [1, 1, 2]]), "k": np.float32([1, -2, 3])}
    nodes = [node("MatMul", "x w", "m"), node("Add", "k m", "y")]
    ops, report = folded(model(nodes, {"x": X}, {"y": None}, weights))
    assert ops == ["MatMul", "Add"]
    (row,) = report.of("bias")
    assert (row.node, row.what) == ("y", "stays a sum: MatMul 'm' is rounded before it")
    nodes[1] = node("Add", "rows m", "y")
    _, report = folded(model(nodes, {"x": X}, {"y": None}, {**weights, "rows": np.ones((4, 1), np.float32)}))
    assert report.of("bias") == []


def test_what_depends_on_no_input_is_computed():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s k", "n"),
        node("Concat", "n rest", "to", axis=0),
        node("Reshape", "x to", "y"),
        node("Identity", "y", "z"),
    ]
    constants = {"k": np.array([0]), "rest": np.array([-1])}
    network, report = Network(model(nodes, {"x": X}, {"z": (2, 32)}, constants)), Report("xint8", "stx")
    folding.fold(network, report)
    assert [each.op_type for each in network.nodes] == ["Reshape", "Identity"]
    assert network.constants["to"].tolist() == [2, -1]
    assert [row.node for row in report if row.what == "became a constant"] == ["s", "n", "to"]


LINEAR = {"w": np.float32([[1, -2, 3, 4], [2, 0, 1, -1]]), "k": np.float32([1, -2, 3, 4])}


def same(nodes, constants, shape=(4, 2), x=None):
    """The operators after folding, whose result is the same."""
    found = model(nodes, {"x": shape}, {"y": None}, constants)
    network, report = Network(found), Report("a8w8", "stx")
    folding.fold(network, report)
    feeds = {"x": np.random.default_rng(2).integers(-8, 8, shape).astype(np.float32)}
    due, came = (run(opened(each, optimized=False), feeds)["y"] for each in (found, network.model()))
    assert np.allclose(came, due, rtol=1e-5, atol=1e-5)
    return [each.op_type for each in network.nodes]


NORMAL = node("BatchNormalization", "c g b m v", "y", epsilon=0.0)


@pytest.mark.parametrize(
    ("layer", "constants", "left"),
    [
        (node("Gemm", "x w k", "c", alpha=0.5, beta=0.25), LINEAR, ["Gemm"]),
        (node("Gemm", "x w", "c", alpha=0.5), LINEAR, ["Gemm"]),
        (node("Gemm", "x w one", "c", beta=2.0), {**LINEAR, "one": np.float32(3)}, ["Gemm"]),
        (node("Gemm", "x w k", "c"), {**LINEAR, "k": np.float32([[1, -2, 3, 4]])}, ["Gemm"]),
        (node("Gemm", "x w k", "c"), {**LINEAR, "k": np.float32([[1], [-2], [3], [4]])}, ["Gemm", "Ba"]),
    ],
)
def test_a_normalization_after_a_gemm_keeps_its_factors(layer, constants, left):
    operators = same([layer, NORMAL], {**constants, **NORM})
    assert [each[: len(due)] for each, due in zip(operators, left, strict=True)] == left


def test_a_normalization_does_not_forget_a_computed_bias():
    nodes = [node("ReduceSum", "x", "s", keepdims=0), node("Reshape", "s to", "one")]
    nodes += [node("Expand", "one four", "k"), node("Gemm", "x w k", "c"), NORMAL]
    constants = {"w": LINEAR["w"], **NORM, "to": np.array([1]), "four": np.array([4])}
    assert "BatchNormalization" in same(nodes, constants)


def test_a_normalization_that_finds_its_statistics_is_no_constant_factor():
    norm = node("BatchNormalization", "c g b m v", "y", training_mode=1)
    norm.output.extend(["mean_now", "variance_now"])
    assert same([node("Gemm", "x w", "c"), norm], {"w": LINEAR["w"], **NORM}) == [
        "Gemm",
        "BatchNormalization",
    ]


@pytest.mark.parametrize("v", [[-1, 1, 1, 1], [1e-60, 1, 1, 1]])
def test_a_normalization_without_numbers_stays_where_it_is(v):
    network = Network(model([node("Gemm", "x w", "c"), NORMAL], {"x": (4, 2)}, {"y": None},
                            {"w": LINEAR["w"], **NORM, "v": np.float32(v)}))  # fmt: skip
    folding.fold(network, Report("a8w8", "stx"))
    assert [each.op_type for each in network.nodes] == ["Gemm", "BatchNormalization"]


def test_a_dropout_whose_mask_is_taken_stays():
    drop = node("Dropout", "c", "d")
    drop.output.append("mask")
    nodes = [node("Gemm", "x w", "c"), drop, node("Cast", "mask", "m", to=1), node("Mul", "d m", "y")]
    assert "Dropout" in same(nodes, {"w": LINEAR["w"]})


def test_a_layer_without_a_name_is_called_by_what_it_made_before_it_was_folded():
    """It was named by what the normalization made, which the file that came calls another node."""
    nodes = [node("MatMul", "x w", "m"), node("Add", "m b", "y")]
    weights = {"w": numbers(6, 6), "b": numbers(6)}
    for each in nodes:
        each.name = ""
    found = nx.ipu.quantize_model(model(nodes, {"x": (4, 6)}, {"y": None}, weights), {"x": numbers(8, 6)})
    assert [row.node for row in found.report.of("quantize")] == ["m"]
    assert next(row.what for row in found.report.of("fold")).endswith("'m'")
