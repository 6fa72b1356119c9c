"""Operators in the words of those that the device takes, on small networks: the same numbers, and a row."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

from numerics.model.ipu.network import Network
from numerics.model.ipu.plainer import plainer
from numerics.model.ipu.report import Report
from numerics.model.ipu.running import opened, run
from tests.helpers.onnx_models import model, node, numbers

SPLIT = onnx.helper.make_node("Split", ["x", "a"], ["p", "q"], "split", axis=-1)
HALVES = onnx.helper.make_node("Split", ["x"], ["p", "q"], "split", axis=1)


@pytest.mark.parametrize(
    ("nodes", "constants", "became", "why"),
    [
        ([SPLIT, node("Concat", "q p", "y", axis=2)], {"a": np.array([4, 1])}, "Slice", "same numbers"),
        ([HALVES, node("Mul", "q p", "y")], {}, "Slice", "same numbers"),
        ([node("Gather", "x a", "y", axis=1)], {"a": np.array(-1)}, "Squeeze", "same numbers"),
        ([node("Gather", "x a", "y", axis=2)], {"a": np.array([3])}, "Slice", "same numbers"),
        ([node("Gather", "x a", "y", axis=-1)], {"a": np.array([0, -3, 4])}, "Slice", "same numbers"),
        ([node("Gather", "x a", "y", axis=2)], {"a": np.array([4, 3])}, "Gather", None),
        ([node("Gather", "x a", "y", axis=2)], {"a": np.array([1, 1])}, "Gather", None),
        ([node("Gather", "x a", "y", axis=2)], {"a": np.array([[0, 1]])}, "Gather", None),
        ([node("Div", "x a", "y")], {"a": np.float32(8)}, "Mul", "same numbers"),
        ([node("Div", "x a", "y")], {"a": np.float32([3, 7, -1, 2, 5])}, "Mul", "rounding of the reciprocal"),
        ([node("Div", "x a", "y")], {"a": np.float32(0)}, "Div", None),
        ([node("Div", "a x", "y")], {"a": np.float32(2)}, "Div", None),
        ([node("PRelu", "x a", "y")], {"a": np.float32([[0.25], [0.25]])}, "LeakyRelu", "same numbers"),
        ([node("PRelu", "x a", "y")], {"a": np.float32([[0.25], [0.5]])}, "PRelu", None),
    ],
)
def test_an_operator_becomes_one_that_the_device_takes(nodes, constants, became, why):
    network, report = Network(model(nodes, {"x": (2, 2, 5)}, {"y": None}, constants)), Report("xint8", "stx")
    feeds = {"x": numbers(2, 2, 5)}
    due = run(opened(network.model()), feeds)["y"]
    plainer(network, report)
    assert became in [each.op_type for each in network.nodes]
    assert [why in row.why for row in report] == ([] if why is None else [True])
    came = run(opened(network.model()), feeds)["y"]
    assert np.allclose(came, due, rtol=3e-7, atol=0) if "rounding" in (why or "") else (came == due).all()


def test_a_part_of_a_split_that_nobody_takes_has_no_slice():
    split = node("Split", "x", "a", axis=-1)
    split.output.append("")
    found = Network(model([split, node("Relu", "a", "y")], {"x": (2, 4)}, {"y": None}))
    plainer(found, Report("a8w8", "stx"))
    assert [each.op_type for each in found.nodes] == ["Slice", "Relu"]


def test_the_slices_of_a_split_leave_names_to_who_has_them():
    after = onnx.helper.make_node("Mul", ["q", "p"], ["y"], "p_slice")
    found = Network(model([HALVES, after], {"x": (2, 2, 5)}, {"y": None}))
    plainer(found, Report("a8w8", "stx"))
    names = [each.name for each in found.nodes]
    assert len(set(names)) == len(names) == 3
