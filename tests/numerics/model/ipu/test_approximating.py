"""Operators as the device computes them, and how far they are from what stood there."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from numerics.model.ipu import approximating
from numerics.model.ipu.network import Network
from numerics.model.ipu.report import Report
from numerics.model.ipu.running import opened, run
from tests.helpers.onnx_models import model, node

GRID = np.linspace(-8, 8, 2 * 18 * 18, dtype=np.float32).reshape(1, 2, 18, 18)


def approximated(nodes, shape=(1, 2, 18, 18)):
    """Both results, the operators, and the row."""
    found = model(nodes, {"x": GRID.shape}, {"y": shape})
    network, report = Network(found), Report("xint8", "stx")
    approximating.approximate(network, report)
    before, after = (run(opened(m), {"x": GRID})["y"] for m in (found, network.model()))
    return before, after, [each.op_type for each in network.nodes], report.rows


def stated(row) -> float:
    """The difference that a row states."""
    return float(re.search(r"differs by ([0-9.e+-]+)", row.why)[1])


def test_the_slope_of_a_leaky_relu_is_in_256ths():
    nodes = [node("Relu", "x", "r"), node("Sub", "x r", "s"), node("LeakyRelu", "s", "y", alpha=0.1)]
    before, after, ops, (row,) = approximated(nodes)
    assert ops == ["Relu", "Sub", "LeakyRelu"]
    assert row.what == "alpha 0.1 became 26/256"
    assert (after == np.where(GRID < 0, GRID * np.float32(26 / 256), 0)).all()
    assert np.abs(after - before).max() <= 8 * stated(row) * 1.005


def test_a_slope_in_256ths_already_is_left_alone():
    nodes = [node("LeakyRelu", "x", "y", alpha=0.125)]
    assert approximated(nodes)[3] == []


def test_sigmoid_becomes_the_devices_hard_sigmoid():
    nodes = [node("Relu", "x", "r"), node("Sub", "x r", "s"), node("Sigmoid", "x", "y")]
    before, after, ops, (row,) = approximated(nodes)
    assert ops == ["Relu", "Sub", "HardSigmoid", "Mul"]
    due = np.clip(GRID.astype(np.float64) + 3, 0, 6) * 2731 / 16384
    assert np.abs(after - due).max() < 2.0**-22  # float32 of a formula in float64
    assert np.abs(after - before).max() <= stated(row) * 1.005
    assert np.abs(after - before).max() >= stated(row) * 0.99


@pytest.mark.parametrize("turned", [False, True])
def test_a_product_with_its_own_sigmoid_becomes_a_hard_swish(turned):
    product = "s x" if turned else "x s"
    before, after, ops, rows = approximated([node("Sigmoid", "x", "s"), node("Mul", product, "y")])
    assert ops == ["HardSigmoid", "Mul", "Mul"]
    assert rows[0].what == "x * Sigmoid(x) became a hard swish"
    assert stated(rows[0]) * 0.99 <= np.abs(after - before).max() <= stated(rows[0]) * 1.005


def test_hard_swish_gets_the_devices_slope():
    before, after, ops, (row,) = approximated([node("HardSwish", "x", "y")])
    assert ops == ["HardSigmoid", "Mul", "Mul"]
    assert np.abs(after - before).max() <= 8 * stated(row) * 1.005


def test_a_hard_sigmoid_that_stands_alone_gets_the_devices_slope():
    """That of every squeeze-excite kept the slope 1/6, and no row said so."""
    before, after, ops, (row,) = approximated([node("HardSigmoid", "x", "y", alpha=1 / 6, beta=0.5)])
    assert ops == ["HardSigmoid", "Mul"]
    assert row.what == "times 8193/8192, for a slope of 2731/16384"
    due = np.clip(GRID.astype(np.float64) + 3, 0, 6) * 2731 / 16384
    assert np.abs(after - due).max() < 2.0**-22
    assert stated(row) * 0.99 <= np.abs(after - before).max() <= stated(row) * 1.005


def test_a_product_with_its_own_hard_sigmoid_gets_the_devices_slope():
    nodes = [node("HardSigmoid", "x", "h", alpha=1 / 6, beta=0.5), node("Mul", "x h", "y")]
    before, after, ops, (row,) = approximated(nodes)
    assert ops == ["HardSigmoid", "Mul", "Mul"]
    assert np.abs(after - before).max() <= 8 * stated(row) * 1.005


def test_a_hard_sigmoid_of_another_slope_or_with_the_slope_is_left_alone():
    assert approximated([node("HardSigmoid", "x", "y", alpha=0.2, beta=0.5)])[3] == []
    *_, ops, rows = approximated([node("Sigmoid", "x", "y")])
    found = model([node("Sigmoid", "x", "y")], {"x": GRID.shape}, {"y": GRID.shape})
    network, report = Network(found), Report("xint8", "stx")
    for _ in range(2):  # a network that was approximated before
        approximating.approximate(network, report)
    assert ([each.op_type for each in network.nodes], report.rows) == (ops, rows)


KEPT = {
    "HardSigmoid": [node("HardSigmoid", "x", "y", alpha=1 / 6, beta=0.5)],
    "HardSwish": [node("HardSwish", "x", "y")],
    "Sigmoid": [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")],
    "LeakyRelu": [node("LeakyRelu", "x", "y", alpha=0.1)],
    "AveragePool": [node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)],
}


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("operator", KEPT)
def test_what_is_kept_in_float_is_not_approximated(operator, by_name):
    network = Network(model(KEPT[operator], {"x": GRID.shape}, {"y": GRID.shape}))
    report = Report("xint8", "stx")
    network.keep = (network.nodes[0].name if by_name else operator,)
    approximating.approximate(network, report)
    assert [each.SerializeToString() for each in network.nodes] == [
        each.SerializeToString() for each in KEPT[operator]
    ]
    assert report.rows == []


@pytest.mark.parametrize(
    ("kernel", "factor"),
    [
        ((3, 3), "63/64"),
        ((5, 5), "125/128"),
        ((6, 6), "63/64"),
        ((7, 7), "1029/1024"),
        ((14, 14), "1029/1024"),
        ((2, 5), "255/256"),
        ((3, 4), "255/256"),
    ],
)
def test_a_mean_of_a_window_gets_the_devices_multiplier(kernel, factor):
    shape = (1, 2, 19 - kernel[0], 19 - kernel[1])
    nodes = [node("AveragePool", "x", "y", kernel_shape=kernel)]
    before, after, ops, (row,) = approximated(nodes, shape)
    assert ops == ["AveragePool", "Mul"]
    assert row.what == f"times {factor}, for a window of {kernel[0] * kernel[1]}"
    assert (after == before * np.float32(float(Fraction(factor)))).all()


def test_windows_of_a_power_of_two_need_no_multiplier():
    assert approximated([node("AveragePool", "x", "y", kernel_shape=[2, 4])], (1, 2, 17, 15))[3] == []
    assert all(approximating.multiplier(2**k) == 1 for k in range(9))


def test_a_global_mean_has_the_window_of_its_whole_input():
    *_, (row,) = approximated([node("GlobalAveragePool", "x", "y")], (1, 2, 1, 1))
    assert row.what.endswith("for a window of 324")


def test_every_multiplier_is_a_shift_and_an_integer_near_one():
    for window in range(1, 1025):
        factor = approximating.multiplier(window)
        below = (factor / window).denominator
        assert below & (below - 1) == 0
        assert abs(factor - 1) < Fraction(1, 32)
