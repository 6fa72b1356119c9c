"""What each operator is to the device: a layer, a sum, a product, a function, or numbers that only move.

The columns of DOCUMENTED: Ryzen AI Software 1.8, `ops_support.rst`.  What is here is what has an integer
arithmetic that is written down; an operator that the provider also takes, in a way of its own that is not,
stays in float here and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import NodeProto

from numerics.model.ipu.configs import Config
from numerics.model.ipu.network import Network, attribute

EVERY = ("xint8", "a8w8", "a16w8")
BF16 = "bf16"


@dataclass(frozen=True)
class Operator:
    """kind: layer, sum, product, function, or same, whose result has the scale of what it takes.

    limit: its name in `limits.OPERATIONS`, None where no shift of its own is limited.
    documented: the configurations that Ryzen AI lists it for.
    """

    kind: str
    limit: str | None
    documented: tuple[str, ...]


OPERATORS: Final = {
    "Conv": Operator("layer", "conv", (*EVERY, BF16)),
    "Gemm": Operator("layer", "gemm", (*EVERY, BF16)),
    "MatMul": Operator("layer", "gemm", (*EVERY, BF16)),
    "Add": Operator("sum", "add", (*EVERY, BF16)),
    "Sub": Operator("sum", "sub", (*EVERY, BF16)),
    "Mul": Operator("product", "mul", (*EVERY, BF16)),
    "HardSigmoid": Operator("function", "hard_sigmoid", ("a8w8", "xint8")),
    "Relu": Operator("function", None, EVERY),
    "Clip": Operator("function", None, EVERY),
    "LeakyRelu": Operator("function", None, EVERY),
    "MaxPool": Operator("same", "max_pool", (*EVERY, BF16)),
    "GlobalMaxPool": Operator("same", "max_pool", EVERY),
    "AveragePool": Operator("same", "average_pool", (*EVERY, BF16)),
    "GlobalAveragePool": Operator("same", "global_average_pool", (*EVERY, BF16)),
    "Concat": Operator("same", "concat", (*EVERY, BF16)),
    "Pad": Operator("same", "pad", (*EVERY, BF16)),
    "Slice": Operator("same", "slice", (*EVERY, BF16)),
    "Reshape": Operator("same", "slice", (*EVERY, BF16)),
    "Flatten": Operator("same", "slice", (*EVERY, BF16)),
    "Transpose": Operator("same", "slice", (*EVERY, BF16)),
    "Squeeze": Operator("same", "slice", (*EVERY, BF16)),
    "Unsqueeze": Operator("same", "slice", (*EVERY, BF16)),
}
"""Operator of ONNX -> what it is.  HardSigmoid is what XINT8's Sigmoid becomes."""


def is_layer(node: NodeProto) -> bool:
    """Is it a product with weights?"""
    found = OPERATORS.get(node.op_type)
    return found is not None and found.kind == "layer"


FUSED = ("Relu", "Clip", "LeakyRelu")
"""Functions that the device computes on an accumulator, before it is rounded."""


def refusal(network: Network, node: NodeProto, config: Config) -> str | None:
    """Why a node stays in float; None where it does not."""
    operator = OPERATORS.get(node.op_type)
    if operator is None:
        return "no integer arithmetic of the device is written down for it"
    if config.name not in operator.documented:
        return f"Ryzen AI does not list {node.op_type} for {config.name}"
    if node.name in config.keep or node.op_type in config.keep:
        return "keep= names it"
    strange = [name for name in (*_data(node), *node.output) if name and not network.is_float(name)]
    if strange:
        return f"{strange[0]!r} is not of float32"
    return _REFUSALS[operator.kind](network, node)


def _data(node: NodeProto) -> list[str]:
    """The inputs that hold values; the others are shapes, axes and bounds."""
    return list(node.input) if node.op_type in ("Concat", "Add", "Sub", "Mul") else list(node.input[:1])


def values_of(network: Network, node: NodeProto) -> list[str]:
    """The inputs that hold values and are computed."""
    return [name for name in _data(node) if name not in network.constants]


def _layer(network: Network, node: NodeProto) -> str | None:
    if network.constant(node, 1) is None:
        return "a product of two computed tensors has no weights"
    if len(node.input) > 2 and node.input[2] and network.constant(node, 2) is None:
        return "its bias is computed"
    if node.input[0] in network.constants:
        return "what it multiplies is a constant"
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return "transA: the device multiplies rows"
    weights = network.constant(node, 1)
    if weights is not None and weights.ndim < 2:
        return "its weights are a vector"
    return None


def _elementwise(network: Network, node: NodeProto) -> str | None:
    if len(network.computed(node)) == 0:
        return "nothing in it is computed"
    constants = [network.constants[name] for name in node.input if name in network.constants]
    if constants and not np.isfinite(constants[0]).all():
        return "its constant is not finite"
    return None


def _function(network: Network, node: NodeProto) -> str | None:
    if node.op_type == "HardSigmoid" and abs(attribute(node, "alpha", 0.2) - 1 / 6) > 1e-6:
        return "the device's HardSigmoid has the slope 1/6"
    if node.op_type == "HardSigmoid" and attribute(node, "beta", 0.5) != 0.5:
        return "the device's HardSigmoid has beta 0.5"
    if node.op_type == "Clip" and not all(name in network.constants for name in node.input[1:] if name):
        return "its bounds are computed"
    return None


def _same(network: Network, node: NodeProto) -> str | None:
    if any(name in network.constants for name in _data(node)):
        return "a constant is part of it"
    if len(node.output) > 1 and node.output[1]:
        return "it gives more than values"
    if node.op_type == "Pad":
        value = network.constant(node, 2)
        filled = value is not None and bool(np.any(value != 0))
        if filled or attribute(node, "mode", "constant") != "constant":
            return "the device pads with zeros"
    if (
        node.op_type == "AveragePool"
        and any(attribute(node, "pads", [0]))
        and not attribute(node, "count_include_pad", 0)
    ):
        return "windows at the edge count fewer values: no one multiplier"
    return None


_REFUSALS = {
    "layer": _layer,
    "sum": _elementwise,
    "product": _elementwise,
    "function": _function,
    "same": _same,
}
