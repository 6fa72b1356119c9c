"""ModelOpt's compressed weights: a QTensorWrapper, and the scales that its quantizer keeps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from numerics.formats.blocks import mxfp4, mxfp8_e4m3, nvfp4
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, said
from numerics.formats.floats import fp4, fp8_e4m3
from numerics.formats.integers import int4, int8
from numerics.interop.host_tensors import (
    block_of,
    check_filled,
    elements_of,
    name_of,
    no_form,
    scales_of,
    tensor_of,
)
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec

HOST = "modelopt"
WHERE = "modelopt.torch.quantization.qtensor"
MIDDLE = 8  # its int4 codes are counted from there
ALLOWED = (
    "int8, fp8_e4m3, mxfp8_e4m3, mxfp4, nvfp4 along the last axis, int4 in groups of even rows with "
    "scales 2**k"
)


def from_host(weight: Any, scale: Any, double_scale: Any = None, block_sizes: Any = None) -> QTensor:
    """Returns a weight that ModelOpt has compressed as a QTensor with the same codes and scales.

    weight: a QTensorWrapper, or what its get_qtensor() gives.  scale, double_scale, block_sizes: what
    `dequantize` of that takes; of a layer weight_quantizer._scale, ._double_scale and .block_sizes.
    Raises NumericsError for NF4, whose scales are quantized, and for int4 with scales that are not powers of
    two: ModelOpt divides by them, and a product with the rounded reciprocal is another number.
    """
    inside = weight.get_qtensor() if hasattr(weight, "get_qtensor") else weight
    make = _KINDS.get(type(inside).__name__)
    if make is None:
        raise NumericsError(f"{type(inside).__name__} is none of ModelOpt's {', '.join(_KINDS)}")
    check_filled(HOST, inside.metadata["shape"])
    sizes = {key: size for key, size in dict(block_sizes or {}).items() if type(key) is int}
    return make(inside, scale, double_scale, sizes)


def _original(x: Any) -> str:
    return name_of(x.metadata["dtype"], "the tensor")


def _plain(element: Element) -> Callable[..., QTensor]:
    """INT8QTensor, FP8QTensor: a code an element; a scale for all, for each index, or a block."""

    def made(x: Any, scale: Tensor, second: Any, sizes: Mapping[int, int]) -> QTensor:
        codes = x._quantized_data.view(torch.uint8)
        if tuple(codes.shape) != tuple(x.metadata["shape"]):
            raise NumericsError(f"codes {tuple(codes.shape)} for {tuple(x.metadata['shape'])} are filled up")
        grid = scale.shape if scale.dim() else (1,) * codes.dim()
        block = [-(-size // count) for size, count in zip(codes.shape, grid, strict=True)]
        for axis, size in sizes.items():
            block[axis] = size
        return elements_of(element, codes, scale, block, original=_original(x))

    return made


def _mxfp8(x: Any, scale: Tensor, second: Any, sizes: Mapping[int, int]) -> QTensor:
    codes = x._quantized_data.view(torch.uint8)
    return QTensor.from_parts(QuantSpec(mxfp8_e4m3), codes, scale.contiguous(), original=_original(x))


def _mxfp4(x: Any, scale: Tensor, second: Any, sizes: Mapping[int, int]) -> QTensor:
    _check_size(sizes, mxfp4.block)
    codes = _nibbles(x)
    grid = (*codes.shape[:-1], codes.shape[-1] // mxfp4.block)
    return QTensor.from_parts(
        QuantSpec(mxfp4), codes, scale.reshape(grid).contiguous(), original=_original(x)
    )  # fmt: skip


def _nvfp4(x: Any, scale: Tensor, second: Any, sizes: Mapping[int, int]) -> QTensor:
    _check_size(sizes, nvfp4.block)
    if second is None or second.numel() != 1 or scale.dtype != torch.float8_e4m3fn:
        raise NumericsError("NVFP4 has scales of float8_e4m3fn, and one scale of the tensor, as double_scale")
    return QTensor.from_parts(
        QuantSpec(nvfp4), _nibbles(x), scale.view(torch.uint8).contiguous(), tensor_scale=float(second),
        original=_original(x),
    )  # fmt: skip


def _nibbles(x: Any) -> Tensor:
    """Codes of two a byte, the first in the low half."""
    packed = x._quantized_data
    return cast(Tensor, fp4.unpack(packed.reshape(-1), (*packed.shape[:-1], 2 * packed.shape[-1])))


def _check_size(sizes: Mapping[int, int], block: int) -> None:
    if sizes.get(-1, block) != block:
        raise NumericsError(f"blocks of {said(dict(sizes))}: here they are {block} along the last axis")


def _int4(x: Any, scale: Tensor, second: Any, sizes: Mapping[int, int]) -> QTensor:
    """INT4QTensor: the first code in the high half, counted from the middle; scales that divide."""
    shape, size = tuple(x.metadata["shape"]), sizes.get(-1, 0)
    if size < 1 or shape[-1] % size:
        raise NumericsError(f"groups of {said(dict(sizes))} do not fill the rows of {shape}")
    packed = x._quantized_data.reshape(-1)
    codes = torch.stack((packed >> 4, packed & 15), dim=-1).view(shape) ^ MIDDLE
    block = (*(1,) * (len(shape) - 1), size)
    return elements_of(int4, codes, _reciprocal(scale), block, original=_original(x))


def _reciprocal(scale: Tensor) -> Tensor:
    """1 / scale, where that is exact: of powers of two."""
    mantissa = torch.frexp(scale.float()).mantissa
    if not bool(((mantissa == 0.5) & torch.isfinite(1 / scale.float())).all()):
        raise NumericsError(
            "ModelOpt divides int4 codes by their scales; only of powers of two is the product with the "
            "reciprocal the same: quantize with scale_type='pof2', or take its values: weight.dequantize"
        )
    return 1 / scale


_KINDS: dict[str, Callable[..., QTensor]] = {
    "INT8QTensor": _plain(int8), "FP8QTensor": _plain(fp8_e4m3), "MXFP8QTensor": _mxfp8,
    "MXFP4QTensor": _mxfp4, "NVFP4QTensor": _nvfp4, "INT4QTensor": _int4,
}  # fmt: skip


# ---- to ModelOpt -------------------------------------------------------------------------------------


def to_host(q: Any) -> tuple[Any, dict[str, Any]]:
    """Returns a QTensor as a QTensorWrapper of ModelOpt's, and the arguments that its dequantize takes.

    The arguments are scale, double_scale and block_sizes; a layer keeps the scales in its weight_quantizer as
    _scale and _double_scale.  q: int8, fp8_e4m3, mxfp8_e4m3, mxfp4 or nvfp4 along the last axis; int4 in
    groups where scales are powers of two.  Raises NumericsError for others.
    """
    q = tensor_of(HOST, q)
    kind, data, beside = _blocks_of(q) if q.spec.blocked else _elements_of(q)
    hosts = importlib.import_module(WHERE)
    wrapper = hosts.base_qtensor.QTensorWrapper(getattr(hosts, kind)(q.shape, q.dtype, data))
    return wrapper, {"double_scale": None, "block_sizes": None, **beside}


def _blocks_of(q: TensorQTensor) -> tuple[str, Tensor, dict[str, Any]]:
    d, shared = q.spec.block, cast(Tensor, q.shared)
    last = q.spec.blocking(tuple(q.shape)).axis == q.ndim - 1 and q.shape[-1] % d.block == 0
    if d not in (mxfp8_e4m3, mxfp4, nvfp4) or not last:
        raise no_form(HOST, q, ALLOWED)
    sizes: dict[Any, Any] = {-1: d.block, "type": "dynamic", "scale_bits": (4, 3) if d is nvfp4 else (8, 0)}
    if d is mxfp8_e4m3:
        return "MXFP8QTensor", q.codes.view(torch.float8_e4m3fn), {"scale": shared, "block_sizes": sizes}
    pairs = q.packed.view(*q.shape[:-1], q.shape[-1] // 2)
    if d is mxfp4:
        return "MXFP4QTensor", pairs, {"scale": shared.reshape(-1, 1), "block_sizes": sizes}
    scale, second = shared.view(torch.float8_e4m3fn), cast(Tensor, q.tensor_scale).reshape(())
    return "NVFP4QTensor", pairs, {"scale": scale, "double_scale": second, "block_sizes": sizes}


def _elements_of(q: TensorQTensor) -> tuple[str, Tensor, dict[str, Any]]:
    d, block = q.spec.element, block_of(q)
    if d not in (int8, int4, fp8_e4m3) or q.zero_point is not None:
        raise no_form(HOST, q, ALLOWED)
    scale = scales_of(q)
    whole = [one == size for one, size in zip(block, q.shape, strict=True)]
    cut = {at - q.ndim: one for at, one in enumerate(block) if one != 1 and not whole[at]}
    if d is int4:
        beside = any(one != 1 for one in block[:-1])  # of which its groups, of one row, have none
        if set(cut) != {-1} or beside or q.shape[-1] % 2:  # it keeps two codes of a row a byte
            raise no_form(HOST, q, ALLOWED)
        codes = (q.codes ^ MIDDLE).reshape(-1, 2)
        data = ((codes[:, 0] << 4) | codes[:, 1]).view(*q.shape[:-1], q.shape[-1] // 2)
        return "INT4QTensor", data, {"scale": _reciprocal(scale).reshape(-1, 1), "block_sizes": cut}
    if scale.numel() == 1:
        scale = scale.reshape(())
    kind, native = ("INT8QTensor", torch.int8) if d is int8 else ("FP8QTensor", torch.float8_e4m3fn)
    return kind, q.codes.view(native), {"scale": scale, **({"block_sizes": cut} if cut else {})}
