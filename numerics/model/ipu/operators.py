"""What each operator is to the device: a layer, a sum, a product, a function, or numbers that only move.

What has an integer arithmetic that is written down, by AMD or by the meaning of QuantizeLinear and
DequantizeLinear around it, becomes integer where Ryzen AI lists it (`documented.py`); every other operator
stays in float, and the report says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import NodeProto

from numerics.model.ipu.configs import Config
from numerics.model.ipu.documented import lists
from numerics.model.ipu.functions import refusal as attributes_refusal
from numerics.model.ipu.network import Network, attribute


@dataclass(frozen=True)
class Operator:
    """kind: layer, sum, product, function, table, rows, or same, whose result has the scale of what it takes.

    limit: its name in `limits.OPERATIONS`, None where no shift of its own is limited.
    values: the places of the inputs that hold values; the others are shapes, axes and bounds.  None: all.
    """

    kind: str
    limit: str | None = None
    values: tuple[int, ...] | None = (0,)


_MOVES = Operator("same", "slice")
_COMPARES = Operator("same", None)
_TABLES = (
    *(
        "Abs",
        "Ceil",
        "Celu",
        "Cos",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSwish",
        "Mish",
        "Neg",
        "Round",
    ),
    *("Shrink", "Sigmoid", "Sign", "Sin", "Softsign", "Tanh", "ThresholdedRelu"),
)
OPERATORS: Final = {
    "Conv": Operator("layer", "conv"),
    "ConvTranspose": Operator("layer", "conv"),
    "Gemm": Operator("layer", "gemm"),
    "MatMul": Operator("layer", "gemm"),
    "Add": Operator("sum", "add", None),
    "Sub": Operator("sum", "sub", None),
    "Mul": Operator("product", "mul", None),
    "HardSigmoid": Operator("function", "hard_sigmoid"),
    "Relu": Operator("function"),
    "Clip": Operator("function"),
    "LeakyRelu": Operator("function"),
    "MaxPool": Operator("same", "max_pool"),
    "GlobalMaxPool": Operator("same", "max_pool"),
    "AveragePool": Operator("same", "average_pool"),
    "GlobalAveragePool": Operator("same", "global_average_pool"),
    "Concat": Operator("same", "concat", None),
    "Pad": Operator("same", "pad"),
    **dict.fromkeys(("Slice", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"), _MOVES),
    **dict.fromkeys(("DepthToSpace", "Expand", "Gather", "Tile", "Resize"), _COMPARES),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), _COMPARES),
    **dict.fromkeys(("Max", "Min"), Operator("same", None, None)),
    "Where": Operator("same", None, (1, 2)),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), Operator("rows")),
    **dict.fromkeys(("Softmax", "LayerNormalization", "InstanceNormalization"), Operator("rows")),
    **dict.fromkeys(
        _TABLES,
        Operator("table"),
    ),
}
"""Operator of ONNX -> what it is.  HardSigmoid is what XINT8's Sigmoid becomes.

table, rows: what QuantizeLinear and DequantizeLinear around an operator say, since nothing else is written
down: the function of the exact numbers, rounded once.  The device may compute it in a way of its own.
"""

UNWRITTEN_KINDS: Final = ("table", "rows")
"""Kinds of which the device's own way is not written down."""

AVERAGES: Final = ("AveragePool", "GlobalAveragePool")
"""Pools that make numbers of their own.  A power of two is shared with their input, as on the device;
a float scale is their own, as in AMD Quark 0.13's A8W8 and A16W8, where concat shares and pools do not.
"""
TWO_COMPUTED: Final = Operator("product", "gemm", None)
"""MatMul whose second operand is computed: no weights, and no channels."""
STEEP: Final = ("Sqrt", "Reciprocal", "Log", "Pow", "Div")
"""Functions that one integer step near 0 takes from one end of their range to the other."""


def operator_of(network: Network, node: NodeProto) -> Operator:
    """What a node is, by its operator and by what it takes."""
    if node.op_type == "MatMul" and network.constant(node, 1) is None:
        return TWO_COMPUTED
    return OPERATORS[node.op_type]


def is_layer(network: Network, node: NodeProto) -> bool:
    """Is it a product with weights?"""
    return operator_of(network, node).kind == "layer"


def shares(network: Network, node: NodeProto, config: Config) -> bool:
    """Has its result the scale of what it takes?"""
    if node.op_type in AVERAGES and not config.pof2:
        return False
    return operator_of(network, node).kind == "same"


FUSED = ("Relu", "Clip", "LeakyRelu")
"""Functions that the device computes on an accumulator, before it is rounded."""


def refusal(network: Network, node: NodeProto, config: Config) -> str | None:
    """Why a node stays in float; None where it does not."""
    if not lists(node.op_type, config.name):
        return f"Ryzen AI does not list {node.op_type} for {config.name}"
    if network.is_kept(node):
        return "keep= names it"
    if node.op_type in STEEP:
        return "it is steep near 0: one integer step there is most of its range"
    if node.op_type == "Identity":
        return "it changes nothing, and gives a result its name"
    if node.op_type not in OPERATORS:
        return "no integer arithmetic is written down for it"
    operator = operator_of(network, node)
    strange = [name for name in (*_data(network, node), *node.output) if name and not network.is_float(name)]
    if strange:
        return f"{strange[0]!r} is not of float32"
    empty = [name for name in (*_data(network, node), *node.output) if 0 in network.shapes.get(name, ())]
    if empty:
        return f"{empty[0]!r} has no elements"
    return attributes_refusal(node) or _REFUSALS[operator.kind](network, node)


def _data(network: Network, node: NodeProto) -> list[str]:
    """The inputs that hold values; the others are shapes, axes and bounds."""
    places = operator_of(network, node).values
    return list(node.input) if places is None else [node.input[k] for k in places]


def values_of(network: Network, node: NodeProto) -> list[str]:
    """The inputs that hold values and are computed."""
    return [name for name in _data(network, node) if name not in network.constants]


def _layer(network: Network, node: NodeProto) -> str | None:
    if network.constant(node, 1) is None:
        return "its weights are computed"
    if len(node.input) > 2 and node.input[2] and network.constant(node, 2) is None:
        return "its bias is computed"
    if node.input[0] in network.constants:
        return "what it multiplies is a constant"
    weights, bias = network.constant(node, 1), network.constant(node, 2)
    if weights is not None and weights.ndim < 2:
        return "its weights are a vector"
    if bias is not None and bias.ndim != 1:
        return f"what it adds, {list(bias.shape)}, is no vector of its outputs"
    return None


def _elementwise(network: Network, node: NodeProto) -> str | None:
    if len(network.computed(node)) == 0:
        return "nothing in it is computed"
    constants = [network.constants[name] for name in node.input if name in network.constants]
    if node.op_type == "MatMul" and any(len(network.shapes.get(name, ())) < 2 for name in node.input):
        return "one of its operands is a vector"
    if constants and not np.isfinite(constants[0]).all():
        return "its constant is not finite"
    return None


def _function(network: Network, node: NodeProto) -> str | None:
    bounds = [network.constants.get(name) for name in node.input[1:] if name]
    if any(bound is None for bound in bounds):
        return "its bounds are computed"
    return (
        "a bound of it is NaN"
        if any(np.isnan(bound).any() for bound in bounds if bound is not None)
        else None
    )


def _same(network: Network, node: NodeProto) -> str | None:
    if any(name in network.constants for name in _data(network, node)):
        return "a constant is part of it"
    if node.op_type == "Resize":
        known = all(name in network.constants for name in node.input[1:] if name)
        return None if known else "its sizes are computed"
    if len(node.output) > 1 and node.output[1]:
        return "it gives more than values"
    if node.op_type == "Pad":
        value = network.constant(node, 2)
        filled = value is not None and bool(np.any(value != 0))
        if filled or attribute(node, "mode", "constant") != "constant":
            return "the device pads with zeros"
    return None


def _rows(network: Network, node: NodeProto) -> str | None:
    if any(name not in network.constants for name in node.input[1:] if name):
        return "what stands beside its values is computed"
    if any(node.output[1:]):
        return "it gives more than values"
    if node.input[0] in network.constants:
        return "nothing in it is computed"
    return None


_REFUSALS = {
    "layer": _layer,
    "sum": _elementwise,
    "product": _elementwise,
    "function": _function,
    "table": _rows,
    "rows": _rows,
    "same": _same,
}
