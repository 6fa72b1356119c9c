"""Files whose integers can be predicted: pairs of QuantizeLinear and DequantizeLinear with fixed scales.

Everything else is refused by the name of its node, before anything is computed: a number from a rule that
does not hold for a file would look like a prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from numerics.formats.errors import NumericsError, one_of, said
from numerics.model.ipu.folding import is_random
from numerics.model.ipu.network import Array, attribute, named

PAIR: Final = ("QuantizeLinear", "DequantizeLinear")
NARROW: Final = ("int8", "uint8", "int16", "uint16")
TYPES: Final[dict[str, tuple[str, ...]]] = {"QuantizeLinear": NARROW, "DequantizeLinear": (*NARROW, "int32")}
DOMAINS: Final = ("", "ai.onnx", "com.microsoft")
INTEGER: Final = (
    "QLinear",
    "QGemm",
    "QAttention",
    "QOrdered",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantize",
)
"""How operators begin that hold integers of their own."""


def opset_of(model: Any) -> int:
    """The version of the standard operators; raises NumericsError for what is no model, and without one."""
    if not isinstance(model, ModelProto):
        raise NumericsError(f"model is {said(model)}; allowed: an onnx.ModelProto, as onnx.load gives it")
    for each in model.opset_import:
        if each.domain in ("", "ai.onnx"):
            return int(each.version)
    raise NumericsError("this model names no version of ONNX's operators (opset_import)")


def check(model: ModelProto, constants: Mapping[str, Array]) -> None:
    """Raises NumericsError, naming the node, for what nothing here predicts.

    constants: those of the model, Constant nodes among them, by name.
    """
    if model.functions:
        raise NumericsError(f"function {model.functions[0].name!r}: inline it first, onnx.inliner")
    for node in model.graph.node:
        _check_node(node, constants)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise NumericsError(_why_none(model))


def _check_node(node: NodeProto, constants: Mapping[str, Array]) -> None:
    if is_random(node, constants):
        raise NumericsError(f"{named(node)} draws numbers, others at every run: nothing predicts them")
    if node.domain not in DOMAINS:
        raise NumericsError(f"{named(node)} is an operator of {node.domain!r}, which nothing here predicts")
    if any(each.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for each in node.attribute):
        raise NumericsError(f"{named(node)} holds a graph of its own, which nothing here predicts")
    if node.op_type.startswith(INTEGER):
        raise NumericsError(
            f"{named(node)} holds integers of its own, which nothing here predicts; allowed: pairs of "
            "QuantizeLinear and DequantizeLinear (QuantFormat.QDQ of quantize_static)"
        )
    if node.op_type in PAIR:
        _check_pair(node, constants)


def _check_pair(node: NodeProto, constants: Mapping[str, Array]) -> None:
    try:
        scale = constants.get(node.input[1])
        if scale is None or (len(node.input) > 2 and node.input[2] and node.input[2] not in constants):
            raise NumericsError("its scale or zero point is computed; allowed: constants")
        one_of("type of its scale", scale.dtype.name, ("float32",))
        if node.op_type == "QuantizeLinear" or node.input[0] in constants:
            came = constants[node.input[0]] if node.input[0] in constants else zero_of(node, constants)
            one_of("type of its integers", came.dtype.name, TYPES[node.op_type])
        if attribute(node, "block_size", 0) or scale.ndim > 1:
            raise NumericsError(
                "its scales are of blocks; allowed: one a tensor, or one a channel of weights"
            )
        if scale.size != 1 and node.input[0] not in constants:
            raise NumericsError("scales by channels of a computed tensor; allowed: one, but for constants")
    except NumericsError as wrong:
        raise NumericsError(f"{named(node)}: {wrong}; nothing here predicts it") from wrong


def zero_of(node: NodeProto, constants: Mapping[str, Array], place: int = 1) -> Array:
    """The zero point behind the scale at that place of a node's inputs; a uint8 of 0 where none is given.

    place: 1 is that of the scale of a QuantizeLinear and a DequantizeLinear.
    """
    if len(node.input) > place + 1 and node.input[place + 1]:
        return np.asarray(constants[node.input[place + 1]])
    return np.zeros((), np.uint8)


def _why_none(model: ModelProto) -> str:
    narrow = any(
        node.op_type == "Cast" and attribute(node, "to") == TensorProto.BFLOAT16 for node in model.graph.node
    ) or any(each.data_type == TensorProto.BFLOAT16 for each in model.graph.initializer)
    if narrow:
        return (
            "a model of bf16 has no integers to predict: its sums are float32, whose order is the runtime's; "
            "compare the outputs of nx.ipu.session with the float model's"
        )
    return "this model has no QuantizeLinear, so no integers to predict; allowed: a quantized one"
