"""compressed-tensors' compressed weights: the tensors of a layer by their names, and its scheme."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from numerics.checkpoints.foreign import read, weights_of
from numerics.files.safetensors import ML_DTYPES, NUMPY, Entry
from numerics.formats.errors import NumericsError, said
from numerics.formats.integers import integer_format
from numerics.interop.host_tensors import check_filled, elements_of, name_of, tensor_of
from numerics.model.compressed_tensors import stored_weight
from numerics.pytorch.convert import as_tensors
from numerics.pytorch.qtensor import FLOATS
from numerics.tensor.qtensor import QTensor

HOST = "compressed-tensors"
WORDS = (2, 4, 8)  # bits of codes of which none lies in two words, which all its versions pack alike
KINDS = {np.dtype(spelled).name: kind for kind, spelled in NUMPY.items()} | {
    name: kind for kind, name in ML_DTYPES.items()
}
"""safetensors' names of types, by torch's."""


def to_host(q: Any) -> tuple[dict[str, Tensor], Any]:
    """Returns a QTensor as compressed-tensors compresses a layer: its tensors, and its QuantizationScheme.

    The tensors are what `BaseCompressor.get_value_from_registry(scheme.format)` decompresses: weight_packed
    or weight, weight_scale, and what else the format has.  q: a matrix in mxfp4, mxfp6_e2m3, mxfp8_e4m3,
    nvfp4, fp8_e4m3 or integers of 2 to 8 bits.  Raises NumericsError for others.
    """
    stored = stored_weight("the tensor", tensor_of(HOST, q))
    inverse = stored.tensors.get("weight_global_scale")
    if inverse is not None and not torch.equal(inverse.reciprocal(), q.tensor_scale.reshape(1)):
        raise NumericsError(
            f"{HOST} stores the inverse of a tensor scale, and {float(q.tensor_scale)!r} is no float32's: "
            f"quantize with tensor_scale={float(inverse.reciprocal())!r}"
        )
    quantization = importlib.import_module("compressed_tensors.quantization")
    weights = quantization.QuantizationArgs(**json.loads(stored.scheme.weights))
    scheme = quantization.QuantizationScheme(
        targets=["Linear"], weights=weights, format=stored.scheme.format
    )  # fmt: skip
    return dict(stored.tensors), scheme


def from_host(tensors: Any, scheme: Any, dtype: Any = None) -> QTensor:
    """Returns a weight that compressed-tensors has compressed as a QTensor with the same codes and scales.

    tensors: those of the layer by their names within it, as `compress` gives them and as
    `get_direct_state_dict(module)` does: weight_packed or weight, weight_scale, and what stands beside.
    scheme: the layer's QuantizationScheme.  dtype: torch's type that the weight stands for, which
    compressed-tensors does not keep; None is that of its scales, and of MX and NVFP4 bfloat16, to which it
    decompresses them.  `from_host(*to_host(q), dtype=q.dtype)` has q's type again.

    Raises NumericsError, with the reason, for a weight that is no QTensor's: with an order of its groups
    (weight_g_idx), or of a format that is not here.
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(x, Tensor) for x in tensors.values()):
        raise NumericsError(
            f"from_host of {HOST} takes tensors by their names in a layer, not {said(tensors)}"
        )
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype in FLOATS):
        raise NumericsError(
            f"dtype is {said(dtype)}; allowed are {said(sorted(FLOATS.values()))} of torch, and None"
        )
    args = getattr(scheme, "weights", None)
    if args is None:
        raise NumericsError(f"{said(scheme)} says nothing of weights: give the layer's quantization_scheme")
    plain = {name: _plain(x) for name, x in tensors.items() if name.startswith("weight")}
    for x in plain.values():
        check_filled(HOST, x.shape)
    if "weight_shape" in plain and (args.num_bits not in WORDS or len(plain["weight_packed"]) == 1):
        return _standing_for(_dense(plain, args), dtype)
    entries = {name: Entry(_kind(name, x), tuple(x.shape)) for name, x in plain.items()}
    found = weights_of(entries)
    if len(found) != 1:
        raise NumericsError(f"{sorted(tensors)} are not the parts of one compressed weight")
    config = {name: getattr(args, name) for name in ("num_bits", "group_size", "block_structure")}
    made = read(next(iter(found.values())), entries, lambda name: _bytes(plain[name]), config)
    if isinstance(made, str):
        raise NumericsError(f"the weight cannot be a QTensor: {made}")
    return _standing_for(as_tensors(made), dtype)


def _standing_for(q: Any, dtype: torch.dtype | None) -> QTensor:
    """The same codes and scales, of a weight of that type."""
    if dtype is None or dtype == q.dtype:
        return cast(QTensor, q)
    return cast(QTensor, q.each(lambda part: part, dtype))


def _dense(parts: Mapping[str, Tensor], args: Any) -> QTensor:
    """Integers of 3, 5, 6, 7 bits, which this version packs across words; it unpacks them itself.

    And those of one row, whose packed zero points have the shape of the scales.
    """
    if "weight_g_idx" in parts:
        raise NumericsError("the weight cannot be a QTensor: its groups are by activation order (g_idx)")
    helpers = importlib.import_module("compressed_tensors.compressors.pack_quantized.helpers")
    bits, scale, zero = args.num_bits, parts["weight_scale"], parts.get("weight_zero_point")
    shape = tuple(parts["weight_shape"].tolist())
    codes = helpers.unpack_from_int32(parts["weight_packed"], bits, shape).view(torch.uint8)
    if zero is not None and zero.dtype == torch.int32:
        words = zero.t().reshape(-1).view(zero.shape[::-1])  # whose rows compressed-tensors views as bytes
        zero = helpers.unpack_from_int32(words, bits, (scale.shape[1], scale.shape[0])).t()
    block = shape if scale.numel() == 1 else (1, args.group_size or shape[1])
    codes = (codes & ((1 << bits) - 1)).contiguous()
    original = name_of(scale.dtype, "the scale")
    return elements_of(integer_format(bits), codes, scale, block, zero_point=zero, original=original)


def _plain(x: Tensor) -> Tensor:
    """Its numbers in rows of memory; an axis of one number may say any step, which `contiguous` leaves."""
    return x.detach().clone(memory_format=torch.contiguous_format)


def _kind(name: str, x: Tensor) -> str:
    """safetensors' name of a type."""
    short = str(x.dtype).removeprefix("torch.")
    if short not in KINDS:
        raise NumericsError(f"{name} is {x.dtype}, which compressed-tensors does not store")
    return KINDS[short]


def _bytes(x: Tensor) -> Any:
    return x.reshape(-1).view(torch.uint8).cpu().numpy()
