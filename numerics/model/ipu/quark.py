"""export_quark: a wrapped torch model as an ONNX model with the operators of AMD Quark, com.amd.quark.

Blocks as BFPQuantizeDequantize and MXQuantizeDequantize, integers as ExtendedQuantizeLinear and
ExtendedDequantizeLinear, with the attributes that amd-quark 0.13 gives them.  Such a file runs where Quark's
library of operators is loaded, on the host's CPU: none of these are types of the NPU.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from numerics._version import __version__
from numerics.backends.ipu.export import QUARK, quark_operator
from numerics.files.replacement import replace_file
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.model.ipu.exporting import exported, frozen_copy, unpacked

if TYPE_CHECKING:
    from torch import nn

TYPES: Final = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16,
                "uint16": TensorProto.UINT16}  # fmt: skip


@keywords
def export_quark(model: nn.Module, path: str | os.PathLike[str]) -> ModelProto:
    """Writes a wrapped torch model with AMD Quark's operators; returns it as an onnx.ModelProto.

    model: what `nx.wrap` returned, trained, calibrated or frozen, with an example; it stays as it is.  Of its
        formats mx4, mx6, mx9, bfp16, MXFP8, MXFP6, MXFP4 and int8, uint8, int16, uint16 have an operator.
    path: the file, written whole or not at all.
    Raises NumericsError for other formats, roundings and scale rules, which Quark's operators do not have.

    >>> import tempfile, torch, numerics as nx
    >>> x, net = torch.linspace(-1, 1, 64).reshape(2, 32), torch.nn.Linear(32, 4).eval()
    >>> wrapped = nx.wrap(net, "mxfp4", activations="mx9", example=x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = nx.ipu.export_quark(wrapped, f"{folder}/net.onnx")
    >>> [node.op_type for node in found.graph.node if node.domain == "com.amd.quark"]
    ['MXQuantizeDequantize', 'BFPQuantizeDequantize']
    """
    frozen, example = frozen_copy(model)
    packed = unpacked(frozen)
    for q in packed.values():
        _checked(q.spec)
    made = exported(frozen, example, _nodes)
    _put_weights(made, packed)
    if not any(each.domain == QUARK for each in made.opset_import):
        made.opset_import.append(helper.make_opsetid(QUARK, 1))
    made.producer_name, made.producer_version = "numerics", __version__
    onnx.checker.check_model(made)
    replace_file(path, made.SerializeToString())
    return made


def _checked(spec: Any) -> None:
    """Raises NumericsError for what Quark's operators do not compute."""
    if not spec.blocked and spec.dtype.name not in TYPES:
        raise NumericsError(f"AMD Quark has no operator for {spec}; allowed: blocks, {', '.join(TYPES)}")
    if spec.rounding != "half_even" or (spec.blocked and spec.scale_rule not in (None, "floor")):
        raise NumericsError(f"AMD Quark's operators round half_even, with scale_rule='floor': not {spec}")
    if spec.blocked:
        quark_operator(spec.dtype)
        if spec.scheme is not None:
            raise NumericsError(f"AMD Quark's operators have a scale a block, not one of {spec.scheme_text}")


# ---- weights --------------------------------------------------------------------------------------


def _put_weights(model: ModelProto, packed: dict[str, Any]) -> None:
    """Quark keeps weights as floats with its operators behind them."""
    graph = model.graph
    names = {each.name for each in graph.initializer}
    for name, q in packed.items():
        if name not in names:
            raise NumericsError(
                f"torch.onnx.export changed the weights {name!r}: no operator fits behind them"
            )
        for node in graph.node:
            for place, taken in enumerate(node.input):
                if taken == name:
                    node.input[place] = f"{name}_rounded"
        for node in reversed(_weight_nodes(graph, name, q)):
            graph.node.insert(0, node)


def _weight_nodes(graph: Any, name: str, q: Any) -> list[Any]:
    after = f"{name}_rounded"
    if q.spec.blocked:
        operator, attributes = quark_operator(q.spec.dtype)
        axis = q.spec.axis % len(q.shape)
        return [
            helper.make_node(
                operator, [name], [after], f"{name}_quark", domain=QUARK, axis=axis, **attributes
            )
        ]
    scale = np.asarray(q.scale.detach().cpu().numpy(), np.float32)
    if q.zero_point is not None or (scale.size > 1 and max(scale.shape) != scale.size):
        raise NumericsError(f"{name} in {q.spec}: AMD Quark's operators take one scale a tensor or a channel")
    axis = int(np.argmax(scale.shape)) if scale.size > 1 else 0
    flat = scale.reshape(-1) if scale.size > 1 else scale.reshape(())
    zero = helper.make_tensor(f"{name}_zero", TYPES[q.spec.dtype.name], flat.shape, [0] * flat.size)
    graph.initializer.extend([numpy_helper.from_array(flat, f"{name}_scale"), zero])
    parameters = [f"{name}_scale", f"{name}_zero"]
    integers = f"{name}_integers"
    facts: dict[str, Any] = {"domain": QUARK, "axis": axis}
    return [
        helper.make_node(
            "ExtendedQuantizeLinear", [name, *parameters], [integers], f"{integers}_node", **facts
        ),
        helper.make_node(
            "ExtendedDequantizeLinear", [integers, *parameters], [after], f"{after}_node", **facts
        ),
    ]


# ---- activations ----------------------------------------------------------------------------------


def _operator(name: str, types: str, inputs: int, attributes: Any = ()) -> Any:
    """An operator of com.amd.quark as onnxscript takes it."""
    from onnxscript import values

    kind = onnx.defs.OpSchema
    words = [kind.FormalParameter(word, "T" if word != "z" else "Z") for word in "xsz"[:inputs]]
    known = {int: kind.AttrType.INT, str: kind.AttrType.STRING}
    schema = kind(
        name, QUARK, 1, inputs=words, outputs=[kind.FormalParameter("y", types)],
        type_constraints=[("T", ["tensor(float)"], ""), ("Z", [f"tensor({each})" for each in TYPES], "")],
        attributes=[kind.Attribute(word, known[type(value)]) for word, value in attributes],
    )  # fmt: skip
    return values.Op(values.Opset(QUARK, 1), name, schema)


def _nodes(x: Any, spec: Any, scale: Any, zero_point: Any) -> Any:
    """fake_quantize in AMD Quark's operators."""
    from onnxscript import opset18

    _checked(spec)
    if spec.blocked:
        name, attributes = quark_operator(spec.dtype)
        attributes = {**attributes, "axis": spec.axis % len(x.shape)}
        return _operator(name, "T", 1, attributes.items())(x, **attributes)
    if scale is None or scale.shape is None or len(scale.shape):
        raise NumericsError(
            f"an activation in {spec} has no one scale of its own; way out: nx.wrap(..., "
            "observer='min_max') and nx.calibrate"
        )
    zero = opset18.Constant(value_int=0) if zero_point is None else zero_point
    zero = opset18.Cast(zero, to=TYPES[spec.dtype.name])
    q = _operator("ExtendedQuantizeLinear", "Z", 3)(x, scale, zero)
    return _operator("ExtendedDequantizeLinear", "T", 3)(q, scale, zero)
