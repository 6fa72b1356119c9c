"""Scales as the device takes them: every limit broken by a model of three nodes and repaired, and sharing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numerics as nx
from numerics.backends.ipu import limits
from numerics.formats import NumericsError
from numerics.model.ipu import scales as scaling
from numerics.model.ipu.choosing import choose
from numerics.model.ipu.configs import CONFIGS
from numerics.model.ipu.fused import shown
from numerics.model.ipu.integers import Reference
from numerics.model.ipu.network import Network
from numerics.model.ipu.report import Report
from numerics.model.ipu.writing import Writer, write_integers
from tests.helpers.onnx_models import model, node, numbers

X = (1, 2, 4, 4)
W = {"w": numbers(2, 2, 1, 1), "b": numbers(2)}
CONV = node("Conv", "x w b", "c")
HARD = node("HardSigmoid", "x", "h", alpha=1 / 6, beta=0.5)


def three(*nodes, constants=None):
    """A model of x whose last node makes y."""
    return model([*nodes], {"x": X}, {"y": None}, constants or {})


MODELS = {
    "conv": three(CONV, node("Relu", "c", "y"), constants=W),
    "leaky": three(CONV, node("LeakyRelu", "c", "y", alpha=0.125), constants=W),
    "gemm": three(
        node("Relu", "x", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f v", "y"),
        constants={"v": numbers(32, 3)},
    ),
    "add": three(node("Relu", "x", "r"), node("Add", "x r", "y")),
    "sub": three(node("Relu", "x", "r"), node("Sub", "x r", "y")),
    "mul": three(node("Relu", "x", "r"), node("Mul", "x r", "y")),
    "hard": three(HARD, node("Relu", "h", "y")),
    "swish": three(HARD, node("Mul", "x h", "y")),
    "concat": three(node("Relu", "x", "r"), node("Concat", "x r", "y", axis=1)),
    "max_pool": three(node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[2, 2])),
    "average_pool": three(node("Relu", "x", "r"), node("AveragePool", "r", "y", kernel_shape=[2, 2])),
    "global": three(node("Relu", "x", "r"), node("GlobalAveragePool", "r", "y")),
    "pad": three(
        node("Relu", "x", "r"), node("Pad", "r p", "y"), constants={"p": np.array([0, 0, 1, 1] * 2)}
    ),
    "slice": three(
        node("Relu", "x", "r"),
        node("Slice", "r s e", "y"),
        constants={"s": np.array([0]), "e": np.array([1])},
    ),
}


def prepared(name, positions):
    """The model ready to be limited, with these positions of tensors, weights and biases."""
    network, report = Network(MODELS[name]), Report("xint8", "stx")
    chosen = choose(network, CONFIGS["xint8"], report)
    tables = {"tensors": {}, "constants": {}, "biases": {}}
    for tensor, at in positions.items():
        table = "constants" if tensor in ("w", "v") else "biases" if tensor == "b" else "tensors"
        key = "c" if tensor == "b" else tensor
        tables[table][key] = np.float32(2.0**-at) if table == "constants" else 2.0**-at
    assert set(tables["tensors"]) == set(chosen.tensors)
    return network, chosen, scaling.Scales(**tables), report


CASES = [
    ("conv", {"x": 6, "w": 14, "y": 3}, "shift_cut was 17, allowed 0 .. 16", "wpos of w 14 became 13"),
    ("conv", {"x": 2, "w": 4, "y": 9}, "shift_cut was -3, allowed 0 .. 16", "wpos of w 4 became 7"),
    (
        "conv",
        {"x": 4, "w": 8, "b": -4, "y": 4},
        "shift_bias was 16, allowed -8 .. 15",
        "bpos of c -4 became -3",
    ),
    (
        "conv",
        {"x": 4, "w": 8, "b": 21, "y": 4},
        "shift_bias was -9, allowed -8 .. 15",
        "bpos of c 21 became 20",
    ),
    (
        "leaky",
        {"x": 4, "w": 8, "b": 13, "y": 4},
        "shift_bias was -1, allowed 0 .. 15",
        "bpos of c 13 became 12",
    ),
    (
        "gemm",
        {"x": 6, "r": 6, "f": 6, "v": 14, "y": 3},
        "shift_cut was 17, allowed 0 .. 16",
        "wpos of v 14 became 13",
    ),
    ("add", {"x": 3, "r": 12, "y": 2}, "shift_read was 9, allowed 0 .. 7", "ipos1 of r 12 became 10"),
    ("add", {"x": 3, "r": 3, "y": 11}, "shift_write was -8, allowed -7 .. 25", "opos of y 11 became 10"),
    ("add", {"x": 3, "r": 3, "y": -23}, "shift_write was 26, allowed -7 .. 25", "opos of y -23 became -22"),
    ("sub", {"x": 13, "r": 3, "y": 2}, "shift_read was 10, allowed 0 .. 7", "ipos0 of x 13 became 10"),
    ("mul", {"x": 3, "r": 3, "y": 7}, "shift_write was -1, allowed 0 .. 32", "opos of y 7 became 6"),
    ("mul", {"x": 20, "r": 20, "y": 7}, "shift_write was 33, allowed 0 .. 32", "opos of y 7 became 8"),
    ("hard", {"x": 16, "h": 7, "y": 7}, "ipos was 16, allowed 0 .. 15", "ipos of x 16 became 15"),
    ("hard", {"x": -1, "h": 7, "y": 7}, "ipos was -1, allowed 0 .. 15", "ipos of x -1 became 0"),
    ("hard", {"x": 3, "h": 6, "y": 6}, "opos was 6, allowed at least 7", "opos of h 6 became 7"),
    ("hard", {"x": 3, "h": 18, "y": 6}, "shift_sigmoid was -1, allowed 0 .. 31", "opos of h 18 became 17"),
    ("swish", {"x": 9, "h": 9, "y": 2}, "shift_swish was 16, allowed 0 .. 15", "opos of y 2 became 3"),
    (
        "concat",
        {"x": 3, "r": 5, "y": 4},
        "ipos1 above the lowest was 2, allowed 0 .. 0",
        "ipos1 of r 5 became 3",
    ),
    *(
        (
            name,
            {"x": 3, "r": 5, "y": 4},
            "ipos above the lowest was 1, allowed 0 .. 0",
            "ipos of r 5 became 4",
        )
        for name in ("max_pool", "average_pool", "global", "pad", "slice")
    ),
]


@pytest.mark.parametrize(("name", "positions", "why", "what"), CASES)
def test_a_limit_that_is_broken_is_found_and_repaired(name, positions, why, what):
    network, chosen, scales, report = prepared(name, positions)
    scaling.limit(network, chosen, scales, report)
    rows = report.of("limit")
    assert (what, why) in [(row.what, row.why) for row in rows]
    for group in chosen.groups:
        operation, places = scaling.operation_of(network, group, scales)
        if operation is not None:
            at = {
                key: scaling.position(float(getattr(scales, place.table)[place.name]))
                for key, place in places.items()
            }
            assert limits.check(operation, **at) == []
    before = len(report.rows)
    scaling.limit(network, chosen, scales, report)
    assert len(report.rows) == before


def test_every_limit_of_the_device_has_a_case():
    tested = {why.split(" was")[0] for _, _, why, _ in CASES}
    assert {"shift_cut", "shift_bias", "shift_read", "shift_write", "shift_swish", "shift_sigmoid"} <= tested
    operations = set()
    for name, positions, *_ in CASES:
        network, chosen, scales, _ = prepared(name, positions)
        operations |= {scaling.operation_of(network, group, scales)[0] for group in chosen.groups}
    assert set(limits.OPERATIONS) - operations == {"gemm_leaky_relu"}  # conv_leaky_relu under another name


@pytest.mark.parametrize(("name", "positions", "why", "what"), CASES[:8])
def test_a_repaired_model_runs_and_is_predicted(name, positions, why, what):
    network, chosen, scales, report = prepared(name, positions)
    scaling.limit(network, chosen, scales, report)
    written = write_integers(Writer(network, chosen, CONFIGS["xint8"], report), scales)
    feeds = {"x": numbers(*X)}
    reference = Reference(written)
    for optimized in (True, False):
        _, came = shown(written, reference.constants, reference.zeros, optimized).run(feeds)
        due = reference.run(feeds).integers
        assert all((came[tensor] == due[tensor]).all() for tensor in came)
    assert came.keys() == due.keys()


def test_limits_that_contradict_each_other_name_the_node():
    """ipos of a HardSigmoid is 0 at least, and what a pool takes as coarse as its result."""
    nodes = [
        node("MaxPool", "x", "p", kernel_shape=[1, 1]),
        node("HardSigmoid", "p", "h", alpha=1 / 6, beta=0.5),
        node("Add", "x h", "y"),
    ]
    MODELS["all"] = three(*nodes)
    network, chosen, scales, report = prepared("all", {"x": -9, "p": -9, "h": 7, "y": 0})
    with pytest.raises(NumericsError, match=r"no positions meet its limits.*keep it in float"):
        scaling.limit(network, chosen, scales, report)


def test_nodes_whose_limits_contradict_each_other_are_all_named_at_once():
    """Each had to be found by another run."""
    nodes = []
    for k, end in ("a", "c"), ("b", "d"):
        nodes += [
            node("Relu", f"x{k}", f"p{k}"),
            node("HardSigmoid", f"p{k}", f"h{k}", alpha=1 / 6, beta=0.5),
            node("Add", f"x{k} h{k}", end),
        ]
    MODELS["two"] = model([*nodes, node("Concat", "c d", "y", axis=1)],
                          {"xa": (1, 2, 3, 3), "xb": (1, 2, 3, 3)}, {"y": None})  # fmt: skip
    starts = {f"{name}{k}": p for k in "ab" for name, p in {"x": -9, "p": -9, "h": 7}.items()}
    network, chosen, scales, report = prepared("two", {**starts, "c": 0, "d": 0, "y": 0})
    with pytest.raises(
        NumericsError, match=r"keep them in float: config.replace\(keep=\('.*', '.*'\)\).*--keep"
    ):
        scaling.limit(network, chosen, scales, report)


def test_what_only_moves_shares_the_largest_scale():
    nodes = [node("Relu", "x", "r"), node("Concat", "x r", "c", axis=1), node("Flatten", "c", "y")]
    MODELS["all"] = three(*nodes)
    network, chosen, scales, report = prepared("all", {"x": 3, "r": 5, "c": 4, "y": 6})
    scaling.share(network, chosen, CONFIGS["xint8"], scales, report)
    assert set(scales.tensors.values()) == {2.0**-3}
    assert [(row.node, row.step) for row in report][-3:] == [("c", "share"), ("c", "share"), ("y", "share")]


def test_a_chain_that_is_coarser_at_its_end_is_shared_to_its_beginning():
    nodes = [
        node("Relu", "x", "r"),
        node("MaxPool", "r", "p", kernel_shape=[1, 1]),
        node("Flatten", "p", "y"),
    ]
    MODELS["all"] = three(*nodes)
    network, chosen, scales, report = prepared("all", {"x": 3, "r": 5, "p": 4, "y": 2})
    scaling.share(network, chosen, CONFIGS["xint8"], scales, report)
    assert scales.tensors == {"x": 2.0**-3, "r": 0.25, "p": 0.25, "y": 0.25}


def test_a_scale_that_is_no_power_of_two_has_no_position():
    with pytest.raises(NumericsError, match=r"0\.3 is no power of two"):
        scaling.position(0.3)


@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
@pytest.mark.parametrize("after", ["Concat", "Add"])
def test_a_branch_that_was_0_in_calibration_has_no_say_in_the_scale_of_others(config, after):
    """Its scale, 1, was the largest, and took the fine numbers of what it was put beside."""
    nodes = [node("Sub", "x far", "s"), node("Relu", "s", "dead"), node("Mul", "x fine", "live")]
    nodes += [node(after, "live dead", "y", **({"axis": 1} if after == "Concat" else {}))]
    weights = {"far": np.full(1, 99, np.float32), "fine": np.full(1, 1e-3, np.float32)}
    found = nx.ipu.quantize_model(
        model(nodes, {"x": (2, 6)}, {"y": None}, weights), {"x": numbers(8, 6)}, config
    )
    assert found.scales["dead"] == found.scales["live"] < 1e-4
    assert [row.node for row in found.report.of("calibrate")] == ["dead"]


@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
def test_constants_that_become_0_are_said_and_integers_where_a_function_is_steep(config):
    """The epsilon of a normalization was gone, and the result NaN, without a word."""
    nodes = [node("Mul", "x x", "s"), node("Add", "s e", "a"), node("Div", "x a", "y")]
    weights = {"e": np.float32(1e-5)}
    net = model(nodes, {"x": (2, 6)}, {"y": None}, weights)
    rows = nx.ipu.quantize_model(net, {"x": 9 * numbers(8, 6)}, config).report.of("limit")
    assert [row.node for row in rows if "takes a in steps of" in row.what] == ["y"]
    gone = [row.node for row in rows if row.what == "e became 0"]
    assert gone == (["a"] if config == "xint8" else [])  # elsewhere it has a scale of its own


def test_channels_of_weights_that_become_0_are_counted():
    weights = {
        "w": np.eye(3, dtype=np.float32) * np.float32([1, 1e-6, 1])[:, None],
        "b": np.full(3, 1e4, np.float32),
    }
    nodes = [node("Gemm", "x w b", "y")]
    found = nx.ipu.quantize_model(
        model(nodes, {"x": (2, 3)}, {"y": None}, weights), {"x": 1e-3 * numbers(8, 3)}, "a8w8"
    )
    said = [row.what for row in found.report.of("limit") if "became 0" in row.what]
    assert [what.split(" of ", 1)[1] for what in said] == ["3 channels of w became 0"]
