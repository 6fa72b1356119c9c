"""Open an ONNX model to quantize it, and refuse by name what cannot be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from numerics.backends.paths import kind_of, path_of
from numerics.formats.errors import NumericsError, said
from numerics.model.ipu.network import MOST_BYTES, Network, check_bytes, named

OLDEST, NEWEST, ADVISED = 13, 21, 17
"""Versions of the standard operators: per-channel QuantizeLinear came with 13; Ryzen AI 1.8 advises 17."""
OWN_CONSTANTS = 4
"""The version of files from which on constants are not inputs besides."""
NESTED = ("If", "Loop", "Scan", "SequenceMap")
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear")
STANDARD = ("", "ai.onnx")


def open_model(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Network:
    """Returns a model as a Network of fixed shapes; the model that came stays as it is.

    model: a ModelProto, its bytes, or the path of a file; data beside the file is read too.  shapes: input
    name -> shape, for inputs whose sizes the model leaves open.  Raises NumericsError, naming the node or
    tensor, for what is no valid model, for more than 2 GB, for versions of operators outside 13 .. 21, for
    models that are quantized already, nested graphs, operators of other domains, open sizes, and NaN.
    """
    found = _read(model)
    _check_opset(found)
    found.ir_version = max(found.ir_version, OWN_CONSTANTS)
    _check_nodes(found)
    _fix_shapes(found, shapes)
    try:
        onnx.checker.check_model(found, full_check=True)
    except Exception as wrong:
        raise NumericsError(f"this is no valid ONNX model: {_words(wrong)}") from wrong
    network = Network(found)
    _check_constants(network)
    return network


def _words(wrong: Exception) -> str:
    return f"{' '.join(str(wrong).split()):.300}"


def _read(model: Any) -> ModelProto:
    if isinstance(model, ModelProto):
        found = ModelProto()
        found.CopyFrom(model)
        _check_whole(found, "the model")
        _check_size(found, Path())
        return found
    if isinstance(model, bytes):
        return _parsed(model, "the model")
    path = path_of(model)
    try:
        what = kind_of(path.stat().st_mode)
    except OSError as wrong:
        what = f"not there ({wrong.strerror})"
    if what is not None:
        raise NumericsError(f"cannot open {path}: it is {what}; allowed: the file of an ONNX model")
    if path.stat().st_size > MOST_BYTES:
        raise NumericsError(f"{path} has {path.stat().st_size:,} bytes; a model has at most {MOST_BYTES:,}")
    found = _parsed(path.read_bytes(), str(path))
    _check_size(found, path.parent)
    try:
        onnx.load_external_data_for_model(found, str(path.parent))
    except Exception as wrong:
        raise NumericsError(f"{path}: its data beside the file cannot be read: {_words(wrong)}") from wrong
    return found


def _parsed(content: bytes, name: str) -> ModelProto:
    found = ModelProto()
    try:
        found.ParseFromString(content)
    except Exception as wrong:
        raise NumericsError(f"{name} is no ONNX model: {_words(wrong)}") from wrong
    _check_whole(found, name)
    return found


def _check_whole(model: ModelProto, name: str) -> None:
    if not model.graph.node or not model.opset_import:
        raise NumericsError(f"{name} is no ONNX model: it has no nodes or names no operators' version")


def files_beside(path: str | os.PathLike[str]) -> list[Path]:
    """The files in which a model keeps data beside its own; none of what is no model."""
    file, found = path_of(path), ModelProto()
    try:
        found.ParseFromString(file.read_bytes())
    except Exception:  # whoever opens the model says why
        return []
    tensors = list(found.graph.initializer)
    tensors += [each.t for node in found.graph.node for each in node.attribute if each.HasField("t")]
    beside = [tensor for tensor in tensors if tensor.data_location == TensorProto.EXTERNAL]
    names = {each.value for tensor in beside for each in tensor.external_data if each.key == "location"}
    return [file.parent / name for name in sorted(names)]


def _check_size(model: ModelProto, folder: Path) -> None:
    """Raises NumericsError where all tensors are more than a model in memory may have."""
    sizes = {tensor.name: _bytes_of(tensor, folder) for tensor in model.graph.initializer}
    held = {
        node.output[0]: _bytes_of(attribute.t, folder)
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.HasField("t")
    }
    check_bytes({**sizes, **held}, model.graph.node, "this model")


def _bytes_of(tensor: TensorProto, folder: Path) -> int:
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor.ByteSize()
    facts = {each.key: each.value for each in tensor.external_data}
    if "length" in facts:
        return int(facts["length"])
    file = folder / facts.get("location", "")
    return os.path.getsize(file) if os.path.isfile(file) else 0


def _check_opset(model: ModelProto) -> None:
    version = next((each.version for each in model.opset_import if each.domain in STANDARD), 0)
    if not OLDEST <= version <= NEWEST:
        first = named(model.graph.node[0])
        raise NumericsError(
            f"the operators of this model are of opset {version}, {first} the first of them; allowed: "
            f"{OLDEST} .. {NEWEST}, and Ryzen AI advises {ADVISED}: export it with that opset, or "
            f"onnx.version_converter.convert_version(model, {ADVISED})"
        )


def _check_nodes(model: ModelProto) -> None:
    _check_names(model)
    for node in model.graph.node:
        if node.op_type in NESTED:
            raise NumericsError(
                f"{named(node)} holds a graph of its own, which cannot be quantized: way out, simplify the "
                "model for one case, or cut it there (onnx.utils.extract_model)"
            )
        if node.op_type in QUANTIZED:
            raise NumericsError(f"{named(node)}: this model is quantized already; give the float one")
        if node.domain not in STANDARD:
            raise NumericsError(
                f"{named(node)} is an operator of {node.domain!r}, of which nothing is known here; allowed: "
                "ONNX's own"
            )
    if model.functions:
        raise NumericsError(
            f"function {model.functions[0].name!r}: inline it first, onnx.inliner.inline_local_functions"
        )


def _check_names(model: ModelProto) -> None:
    """Raises NumericsError for two nodes of one name, which no runtime opens, and for sparse constants."""
    seen: dict[str, NodeProto] = {}
    for node in model.graph.node:
        other = seen.setdefault(node.name, node)
        if node.name and other is not node:
            raise NumericsError(
                f"{named(other)} and {named(node)} have one name: neither a report nor keep= can tell them "
                "apart; give each node its own"
            )
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise NumericsError(f"{name!r} is a sparse constant, which the device does not have; make it dense")


def _fix_shapes(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    strange = sorted(set(shapes) - set(inputs))
    if strange:
        raise NumericsError(f"shapes= names {', '.join(strange)}; the inputs are {', '.join(inputs)}")
    for name, value in inputs.items():
        if name in shapes:
            _set_shape(value, shapes[name])
        _check_fixed(model, value)
    if shapes:  # what was inferred for open sizes is not true any more
        del model.graph.value_info[:]
        for value in model.graph.output:
            for size in value.type.tensor_type.shape.dim:
                size.Clear()


def _set_shape(value: ValueInfoProto, shape: tuple[int, ...]) -> None:
    there = value.type.tensor_type.shape.dim
    sizes = tuple(shape)
    fits = len(sizes) == len(there) and all(
        isinstance(size, int) and size > 0 and (not old.HasField("dim_value") or old.dim_value == size)
        for size, old in zip(sizes, there, strict=False)
    )
    if not fits:
        allowed = [old.dim_value if old.HasField("dim_value") else old.dim_param or "?" for old in there]
        raise NumericsError(f"shape {said(shape)} does not fit input {value.name!r}, which has {allowed}")
    for size, old in zip(sizes, there, strict=True):
        old.dim_value = size


def _check_fixed(model: ModelProto, value: ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    sizes = [old.dim_value if old.HasField("dim_value") else old.dim_param or "?" for old in tensor.shape.dim]
    if tensor.HasField("shape") and all(isinstance(size, int) and size > 0 for size in sizes):
        return
    users = [named(node) for node in model.graph.node if value.name in node.input]
    raise NumericsError(
        f"input {value.name!r} of {users[0] if users else 'no node'} has the dynamic shape {sizes}; the "
        f"device's compiler takes fixed ones: give shapes={{{value.name!r}: (...)}}, on the command line "
        f"--shape {value.name}=1,..."
    )


def _check_constants(network: Network) -> None:
    for name, array in network.constants.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            users = network.consumers(name)
            if any(node.op_type in ("Conv", "Gemm", "MatMul", "BatchNormalization") for node in users):
                raise NumericsError(f"{name!r} of {named(users[0])} has NaN or Inf: no scale holds them")
