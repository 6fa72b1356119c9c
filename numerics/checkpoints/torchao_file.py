"""torchao's safetensors: what a header says of each weight, and the weight as a QTensor, or why it is none.

torchao keeps `layer.weight` as `layer._weight_qdata`, `layer._weight_scale` and so on, and under the weight's
name, in the header's metadata, its class with the facts of it as JSON.  torchao is not needed to read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from numerics.checkpoints.foreign import Left, Parts, Weight
from numerics.files.safetensors import ML_DTYPES, Entry
from numerics.formats.errors import NumericsError, said
from numerics.formats.text import json_in
from numerics.tensor.qtensor import QTensor

NAMES = "tensor_names"
PLAIN = "Tensor"
LONGEST = 1 << 16  # characters of what is said of one weight
TYPES = (
    "bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn_x2",
    *(f"int{bits}" for bits in range(1, 9)),
)  # fmt: skip
"""Types of torch that are named in facts."""
KINDS = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor", "MXTensor", "NVFP4Tensor")
ATTRIBUTES = (
    "act_pre_scale", "act_quant_kwargs", "act_quant_scale", "act_quant_zero_point", "activation_quantization",
    "act_per_tensor_scale", "block_size", "dtype", "elem_dtype", "is_swizzled_scales", "orig_dtype",
    "target_dtype",
)  # fmt: skip
"""What is asked of the facts; all else that they say is about how torchao computes."""


def weights_in(metadata: Mapping[str, str], entries: Mapping[str, Entry]) -> Iterator[Weight]:
    """The weights of a file of torchao's; none of another file.

    metadata: of its header.  entries: all tensors of the checkpoint, since parts may lie in other shards.
    """
    for name in _names(metadata):
        facts = _json(metadata.get(name))
        names = facts.get("_tensor_data_names") if isinstance(facts, dict) else None
        module, _, leaf = name.rpartition(".")
        if not isinstance(facts, dict) or not isinstance(names, list) or not module:
            continue  # a plain tensor, or nothing that torchao wrote
        parts = {str(part): f"{module}._{leaf}_{part}" for part in names}
        found = {role: part for role, part in parts.items() if part in entries}
        if "qdata" in found:
            roles = {"codes" if role == "qdata" else role: part for role, part in found.items()}
            yield Weight(name, "torchao", roles, partial(_made, facts))


def _names(metadata: Mapping[str, str]) -> list[str]:
    found = _json(metadata.get(NAMES), len(metadata) * LONGEST)
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _json(text: str | None, longest: int = LONGEST) -> Any:
    try:
        return None if text is None or len(text) > longest else json_in(text)
    except ValueError:
        return None


def _made(facts: Mapping[str, Any], parts: Parts) -> QTensor:
    """The QTensor; raises Left for a class that has none, and where the facts contradict the tensors."""
    kind, told = facts.get("_type"), facts.get("_data")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Left(f"torchao's {said(kind)} is none of {', '.join(KINDS)}, which are read")
    try:
        from numerics.files.save_load import on_host
        from numerics.interop.torchao import read_host
    except ImportError as missing:
        raise Left("torchao's weights are read by way of torch: pip install torch") from missing
    try:
        stands = type(kind, (), _attributes(told, parts))()
        found: QTensor = on_host("weight", read_host(stands))
        return found
    except (KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError) as wrong:
        raise Left(f"what is said of torchao's {kind} does not fit its tensors: {wrong!s:.200}") from wrong
    except NumericsError as wrong:
        raise Left(str(wrong)) from wrong


def _attributes(told: Any, parts: Parts) -> dict[str, Any]:
    """What a tensor of torchao's has, from the JSON and from the file."""
    if not isinstance(told, dict):
        raise TypeError("its facts are no table")
    found = {name: _fact(told[name]) for name in ATTRIBUTES if name in told}
    tensors = {role: _tensor(parts, role) for role in parts.roles}
    codes = found["qdata"] = tensors.pop("codes")
    found = {"act_quant_kwargs": None, "per_tensor_scale": None, "zero_point": None, **found, **tensors}
    shape = tuple(codes.shape)
    halves = parts.entry("codes").dtype == "U8" and _is_fp4(found)
    found["shape"] = (*shape[:-1], 2 * shape[-1]) if halves else shape
    found["dtype"] = found.get("dtype", found.get("orig_dtype"))
    return found


def _is_fp4(found: Mapping[str, Any]) -> bool:
    return "float4" in str(found.get("elem_dtype", "float4"))  # NVFP4 names no element


def _fact(value: Any) -> Any:
    """A type of torch's where one is told; numbers and texts as they are; what is about inputs as a table."""
    import torch

    if isinstance(value, dict) and value.get("_type") == "torch.dtype":
        if value.get("_data") not in TYPES:
            raise TypeError(f"the type {said(value.get('_data'))} is not known")
        return getattr(torch, value["_data"])
    if isinstance(value, list):
        if not all(type(size) is int and 0 < size < 1 << 31 for size in value):
            raise TypeError(f"{said(value)} are no sizes")
        return tuple(value)
    return value


def _tensor(parts: Parts, role: str) -> Any:
    import torch

    words, kind = parts.words(role), parts.entry(role).dtype
    found = torch.from_numpy(words.view(np.int16) if kind == "BF16" else words)
    return found.view(getattr(torch, ML_DTYPES[kind])) if kind in ML_DTYPES else found


# ---- to torchao -----------------------------------------------------------------------------------


def said_of_plain(names: Sequence[str]) -> dict[str, str]:
    """What a header says of a file before any of its tensors is quantized."""
    return {NAMES: json.dumps(list(names)), **dict.fromkeys(names, json.dumps({"_type": PLAIN}))}


def flattened(name: str, q: QTensor) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors that torchao stores for a QTensor of torch, and what its header says of them.

    Raises NumericsError where torchao is not installed, has no tensor of that format, or for a name that is
    not that of a layer's parameter.
    """
    try:
        from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    except ImportError as missing:
        raise NumericsError(
            f"to='torchao' needs torchao, which cannot be imported: pip install torchao ({missing})"
        ) from missing
    from numerics.interop.torchao import to_host

    if "." not in name:
        raise NumericsError(f"torchao stores parameters of layers, such as layer.weight, not {name!r}")
    try:
        tensors, said = flatten_tensor_state_dict({name: to_host(q)})
    except NumericsError as wrong:
        raise NumericsError(f"tensor {name!r}: {wrong}") from None
    return tensors, {name: said[name]}
