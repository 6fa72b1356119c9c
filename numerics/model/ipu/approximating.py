"""Operators as the device computes them, in the place of those that it only approximates.

AveragePool, GlobalAveragePool   the sum of a window times k / 2**n, near 1 / window
LeakyRelu                        a slope of round(256 alpha) / 256; 0.1 becomes 26 / 256
Sigmoid, HardSigmoid of 1/6      (clip(x + 3, 0, 6) * 2731) / 16384: HardSigmoid of that slope
x * Sigmoid(x), HardSwish        x * HardSigmoid(x), of that slope

Source: AMD Quark 0.13 (MIT), quark/onnx: simulate_dpu's multipliers, ConvertSigmoidToHardSigmoid; the shift
of 14 bits is the one whose limits `numerics.backends.ipu.limits` checks.  Each pass says in the report how
far the operator is from what stood there: of formulas over all inputs, in units of the output.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import numpy as np
from onnx import NodeProto, helper

from numerics.model.ipu.functions import refusal
from numerics.model.ipu.network import Array, Network, attribute, label, set_attribute
from numerics.model.ipu.operators import AVERAGES
from numerics.model.ipu.report import Report

SLOPE: Final = Fraction(2731, 16384)
"""Of the device's HardSigmoid: 1/6 in 14 bits."""
HARD = Fraction(6) * SLOPE  # what stands behind a HardSigmoid of slope 1/6
SOURCE = "AMD Quark 0.13, as the DPU computes it"
_FIXED = {9: Fraction(63, 64), 25: Fraction(250, 256), 36: Fraction(252, 256), 49: Fraction(1029, 1024),
          196: Fraction(4116, 4096)}  # fmt: skip
"""Windows -> multiplier, those that the device has by themselves."""


def multiplier(window: int) -> Fraction:
    """What the device multiplies the mean of a window by: window * k / 2**n, near 1.

    window: how many values it has.  Sizes with a multiplier of their own: 3 x 3, 5 x 5, 6 x 6, 7 x 7 and
    14 x 14; of others n is the first with the least difference, below log2(128 window).

    >>> multiplier(9), multiplier(4), multiplier(49), multiplier(10)
    (Fraction(63, 64), Fraction(1, 1), Fraction(1029, 1024), Fraction(255, 256))
    """
    if window in _FIXED:
        return _FIXED[window]
    tried = range(math.ceil(math.log2(128 * window)) if window > 1 else 1)
    best = min(tried, key=lambda n: abs(Fraction(round(2**n / window), 2**n) - Fraction(1, window)))
    return window * Fraction(round(2**best / window), 2**best)


def approximate(network: Network, report: Report) -> None:
    """All passes, in their order."""
    for step in (hard_sigmoids, swishes, sigmoids, leaky_relus, average_pools):
        step(network, report)
    network.infer()


def _free(network: Network, *operators: str) -> list[NodeProto]:
    """The nodes of such operators that are not to stay as they are."""
    return [node for node in network.walk_free() if node.op_type in operators]


def leaky_relus(network: Network, report: Report) -> None:
    """Slopes in 256ths."""
    for node in _free(network, "LeakyRelu"):
        before = attribute(node, "alpha", 0.01)
        after = round(256 * before) / 256 if refusal(node) is None else before
        if after != before:
            set_attribute(node, "alpha", after)
            report.about(
                node,
                "approximate",
                f"alpha {before:.6g} became {round(256 * before)}/256",
                f"{SOURCE}; differs by {abs(after - before):.3g} |x| below 0",
            )


def sigmoids(network: Network, report: Report) -> None:
    """Sigmoid as the device's HardSigmoid."""
    far = _farthest(_sigmoid, _hard_sigmoid)
    for node in _free(network, "Sigmoid"):
        network.replace(node, *_hard_sigmoid_nodes(network, node, node.input[0], node.output[0]))
        why = f"{SOURCE}; differs by {far:.3g} at most"
        report.about(node, "approximate", "became HardSigmoid, 2731/16384", why)


def hard_sigmoids(network: Network, report: Report) -> None:
    """HardSigmoid of slope 1/6 with the device's slope; what has it already is left alone."""
    for node in _free(network, "HardSigmoid"):
        if refusal(node) is None and not _is_multiplied(network, node):
            network.replace(node, *_hard_sigmoid_nodes(network, node, node.input[0], node.output[0]))
            why = f"{SOURCE}; differs by {float(HARD - 1):.3g} of it at most"
            report.about(node, "approximate", f"times {HARD}, for a slope of 2731/16384", why)


def _is_multiplied(network: Network, node: NodeProto) -> bool:
    after = network.only_consumer(node.output[0])
    factor = None if after is None or after.op_type != "Mul" else network.constant(after, 1)
    return factor is not None and factor.ndim == 0 and np.float32(factor) == np.float32(float(HARD))


def swishes(network: Network, report: Report) -> None:
    """HardSwish as a product with HardSigmoid; of x * Sigmoid(x) the sigmoid is replaced by `sigmoids`."""
    far = _farthest(lambda x: x * _sigmoid(x), lambda x: x * _hard_sigmoid(x))
    for node in _free(network, "HardSwish", "Mul"):
        if node.op_type == "HardSwish":
            gate = network.new_name(f"{node.output[0]}_gate")
            nodes = _hard_sigmoid_nodes(network, node, node.input[0], gate)
            product = helper.make_node("Mul", [node.input[0], gate], list(node.output), name=node.name)
            network.replace(node, *nodes, product)
            report.about(
                node,
                "approximate",
                "became x * HardSigmoid(x), 2731/16384",
                f"{SOURCE}; differs by {float(HARD - 1):.3g} |x| at most",
            )
        elif _is_swish(network, node):
            report.about(
                node,
                "approximate",
                "x * Sigmoid(x) became a hard swish",
                f"{SOURCE}; differs by {far:.3g} at most",
            )


def _is_swish(network: Network, node: NodeProto) -> bool:
    for gate, x in (tuple(node.input), tuple(reversed(node.input))):
        made = network.producer(gate)
        if made is None or made.op_type != "Sigmoid" or network.is_kept(made):
            continue
        if made.input[0] == x:
            return True
    return False


def _hard_sigmoid_nodes(network: Network, node: NodeProto, x: str, y: str) -> list[NodeProto]:
    """HardSigmoid of slope 1/6, then what makes it the device's slope."""
    inner = network.new_name(f"{y}_hard")
    factor = network.add_constant(f"{y}_multiplier", np.array(float(HARD), np.float32))
    return [
        helper.make_node("HardSigmoid", [x], [inner], name=inner, alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [inner, factor], [y], name=network.new_name(f"{y}_multiplied")),
    ]


def average_pools(network: Network, report: Report) -> None:
    """The device's multiplier after every mean of a window that has one."""
    for node in _free(network, *AVERAGES):
        window = _window(network, node) if refusal(node) is None else None
        if window is None or multiplier(window) == 1:
            continue
        factor, name, y = multiplier(window), label(node), node.output[0]
        mean = network.new_name(f"{y}_mean")
        constant = network.add_constant(f"{y}_multiplier", np.array(float(factor), np.float32))
        node.output[0] = mean
        network.replace(
            node,
            node,
            helper.make_node("Mul", [mean, constant], [y], name=network.new_name(f"{name}_multiplied")),
        )
        report.add(
            name,
            node.op_type,
            "approximate",
            f"times {factor}, for a window of {window}",
            f"{SOURCE}; differs by {abs(float(factor - 1)):.3g} of the mean",
        )


def _window(network: Network, node: NodeProto) -> int | None:
    if node.op_type == "AveragePool":
        return math.prod(attribute(node, "kernel_shape"))
    if node.op_type == "GlobalAveragePool":
        sizes = network.shapes.get(node.input[0], ())[2:]
        return math.prod(int(size) for size in sizes)
    return None


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _hard_sigmoid(x: Array) -> Array:
    return np.asarray(np.clip(x + 3, 0, 6) * float(SLOPE))


def _farthest(one: object, other: object) -> float:
    """The largest difference of two functions, on a grid of 2**-10 within -16 .. 16."""
    x = np.arange(-16, 16, 2.0**-10)
    return float(np.abs(one(x) - other(x)).max())  # type: ignore[operator]
