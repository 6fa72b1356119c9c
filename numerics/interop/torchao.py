"""torchao's tensors: Int8Tensor, IntxUnpackedToInt8Tensor, Float8Tensor, MXTensor, NVFP4Tensor."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from numerics.formats.block import Block, MXBlock
from numerics.formats.blocks import mx, nvfp4
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.floats import fp4, fp6_e2m3, fp6_e3m2, fp8_e4m3, fp8_e5m2
from numerics.formats.integers import integer_format
from numerics.interop.host_tensors import (
    block_of,
    check_filled,
    elements_of,
    name_of,
    no_form,
    refuse,
    scales_of,
    tensor_of,
    zeros_of,
)
from numerics.interop.layouts import CUBLAS
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec

HOST = "torchao"
WHERE = "torchao.quantization"
FORMATS = "torchao.prototype.mx_formats"
FLOAT8 = {fp8_e4m3: torch.float8_e4m3fn, fp8_e5m2: torch.float8_e5m2}
ELEMENTS: dict[Any, Element] = {
    torch.float8_e4m3fn: fp8_e4m3, torch.float8_e5m2: fp8_e5m2, "fp6_e2m3": fp6_e2m3, "fp6_e3m2": fp6_e3m2,
    torch.float4_e2m1fn_x2: fp4,
}  # fmt: skip
"""What torchao calls the elements of MX blocks."""
INPUTS = ("act_quant_kwargs", "act_quant_scale", "act_quant_zero_point", "act_pre_scale",
          "act_per_tensor_scale", "activation_quantization")  # fmt: skip
NARROW = (torch.float32, torch.bfloat16, torch.float16)  # what IntxUnpackedToInt8Tensor stands for
ALLOWED = "integers of 2 to 8 bits, signed, fp8_e4m3, fp8_e5m2, MX floats and nvfp4 along the last axis"


def _module(name: str) -> Any:
    return importlib.import_module(name)


# ---- from torchao ------------------------------------------------------------------------------------


def from_host(x: Any) -> QTensor:
    """Returns a tensor of torchao's as a QTensor with the same codes and scales.

    x: an Int8Tensor, IntxUnpackedToInt8Tensor, Float8Tensor, MXTensor or NVFP4Tensor; scales in the order of
    NVIDIA's tensor cores are put back in rows.  Raises NumericsError for another, for a transposed one, and
    for one that says how inputs are quantized, which a QTensor does not hold.
    """
    if type(x).__name__ not in _KINDS or not type(x).__module__.startswith(f"{HOST}."):
        raise NumericsError(f"{type(x).__name__} is none of torchao's {', '.join(_KINDS)}")
    return read_host(x)


def read_host(x: Any) -> QTensor:
    """The same of whatever has the name of such a class, and its attributes."""
    check_filled(HOST, x.shape)
    refuse(x, INPUTS)
    if not x.qdata.is_contiguous():
        raise _transposed(x)
    return _KINDS[type(x).__name__](x)


def _transposed(x: Any) -> NumericsError:
    return NumericsError(f"a transposed {type(x).__name__} is not read: give x.t()")


def _int8(x: Any) -> QTensor:
    bits = 8
    if type(x).__name__ != "Int8Tensor":
        bits = int(str(x.target_dtype).removeprefix("torch.int"))
    if not 2 <= bits <= 8 or x.qdata.dtype != torch.int8:
        raise NumericsError(f"codes of {bits} bits as {x.qdata.dtype} are not read: 2 to 8 bits as int8")
    if not bool((((x.qdata << (8 - bits)) >> (8 - bits)) == x.qdata).all()):
        raise NumericsError(f"its codes are not all of {bits} bits")
    codes = x.qdata.view(torch.uint8) & ((1 << bits) - 1)
    given = {"zero_point": x.zero_point, "original": name_of(x.dtype, "the tensor")}
    return elements_of(integer_format(bits), codes, x.scale, x.block_size, **given)


def _float8(x: Any) -> QTensor:
    element = next((d for d, kind in FLOAT8.items() if kind == x.qdata.dtype), None)
    if element is None:
        raise NumericsError(f"a Float8Tensor of {x.qdata.dtype} is of no format here")
    block = x.block_size or tuple(x.qdata.shape)
    original = name_of(x.dtype, "the tensor")
    return elements_of(element, x.qdata.view(torch.uint8), x.scale, block, original=original)


def _mx(x: Any) -> QTensor:
    element, codes = ELEMENTS[x.elem_dtype], x.qdata.view(torch.uint8)
    if element is fp4:
        codes = fp4.unpack(codes.reshape(-1), tuple(x.shape))
    return _blocks(x, mx(element, x.block_size), codes)


def _nvfp4(x: Any) -> QTensor:
    if x.block_size != nvfp4.block:
        raise NumericsError(f"an NVFP4Tensor of blocks of {x.block_size}: nvfp4 has blocks of {nvfp4.block}")
    second = x.per_tensor_scale
    if second is not None and second.numel() != 1:
        raise NumericsError(f"an NVFP4Tensor with {second.numel()} scales of experts: give one at a time")
    codes = fp4.unpack(x.qdata.view(torch.uint8).reshape(-1), tuple(x.shape))
    return _blocks(x, nvfp4, codes, 1.0 if second is None else float(second))


def _blocks(x: Any, block: Block, codes: Tensor, tensor_scale: float | None = None) -> QTensor:
    """Codes with the byte of each block beside."""
    if x.shape[-1] % block.block:  # of one row, which lies in memory as its transpose does
        raise _transposed(x)
    shape, scale = tuple(x.shape), x.scale.view(torch.uint8)
    grid = (*shape[:-1], shape[-1] // block.block)
    if x.is_swizzled_scales:
        scale = CUBLAS.restore(scale.reshape(-1), (math.prod(grid[:-1]), grid[-1]))
    beside: dict[str, Any] = {"tensor_scale": tensor_scale, "original": name_of(x.dtype, "the tensor")}
    return QTensor.from_parts(QuantSpec(block), codes, scale.reshape(grid).contiguous(), **beside)


_KINDS: dict[str, Callable[[Any], QTensor]] = {
    "Int8Tensor": _int8, "IntxUnpackedToInt8Tensor": _int8, "Float8Tensor": _float8, "MXTensor": _mx,
    "NVFP4Tensor": _nvfp4,
}  # fmt: skip


# ---- to torchao --------------------------------------------------------------------------------------


def to_host(q: Any) -> Any:
    """Returns a QTensor as a tensor of torchao's with the same codes and scales.

    q: int8 becomes an Int8Tensor, signed integers of 2 to 7 bits an IntxUnpackedToInt8Tensor, fp8 a
    Float8Tensor, MX floats an MXTensor, nvfp4 an NVFP4Tensor; blocks lie along the last axis and fill it.
    Raises NumericsError for other formats, and for groups that the last axis cuts.
    """
    q = tensor_of(HOST, q)
    if q.spec.blocked:
        return _to_blocks(q)
    d = q.spec.element
    if d.kind == "integer" and d.signed and 2 <= d.bits <= 8 and d is integer_format(d.bits):
        return _to_integers(q)
    if d in FLOAT8 and q.zero_point is None:
        made = _module(f"{WHERE}.quantize_.workflows.float8.float8_tensor").Float8Tensor
        return made(q.codes.view(FLOAT8[d]), scales_of(q), list(block_of(q)), dtype=q.dtype)
    raise no_form(HOST, q, ALLOWED)


def _to_integers(q: TensorQTensor) -> Any:
    """Codes as int8, their sign extended."""
    bits, block = q.spec.element.bits, list(block_of(q))
    codes = (q.codes.view(torch.int8) << (8 - bits)) >> (8 - bits)
    zero, scale = zeros_of(q, torch.int8), scales_of(q)
    if bits == 8:
        made = _module(f"{WHERE}.quantize_.workflows.int8.int8_tensor").Int8Tensor
        return made(codes, scale, block, q.dtype, zero_point=zero)
    if q.dtype not in NARROW:
        raise NumericsError(
            f"{HOST} has integers of less than 8 bits of float32, bfloat16 and float16, not of {q.original}"
        )
    made = _module(f"{WHERE}.quantize_.workflows.intx.intx_unpacked_to_int8_tensor").IntxUnpackedToInt8Tensor
    return made(codes, scale, zero, getattr(torch, f"int{bits}"), tuple(block), q.dtype, None)


def _to_blocks(q: TensorQTensor) -> Any:
    """MX and NVFP4: blocks along the last axis, which they fill."""
    d = q.spec.block
    last = q.spec.blocking(tuple(q.shape)).axis == q.ndim - 1 and q.shape[-1] % d.block == 0
    if d is nvfp4 and last:
        return _to_nvfp4(q)
    if not isinstance(d, MXBlock) or d.element not in ELEMENTS.values() or not last:
        raise no_form(HOST, q, ALLOWED)
    kind = next(kind for kind, element in ELEMENTS.items() if element is d.element)
    codes = _pairs(q) if d.element is fp4 else q.codes if isinstance(kind, str) else q.codes.view(kind)
    emulated = _module(f"{WHERE}.quantize_.common.kernel_preference").KernelPreference.EMULATED
    made = _module(f"{FORMATS}.mx_tensor").MXTensor
    scale = cast(Tensor, q.shared).view(torch.float8_e8m0fnu)
    return made(codes, scale, kind, d.block, q.dtype, emulated, None, False)


def _to_nvfp4(q: TensorQTensor) -> Any:
    if q.ndim < 2:
        raise NumericsError(
            f"{HOST} has no NVFP4Tensor of one axis, as of {tuple(q.shape)}: reshape it first"
        )
    scale, second = cast(Tensor, q.shared).view(torch.float8_e4m3fn), cast(Tensor, q.tensor_scale)
    made = _module(f"{FORMATS}.nvfp4_tensor").NVFP4Tensor
    return made(_pairs(q), scale, nvfp4.block, q.dtype, None if second == 1 else second.reshape(()))


def _pairs(q: TensorQTensor) -> Tensor:
    """Two codes a byte, row by row."""
    return q.packed.view(*q.shape[:-1], q.shape[-1] // 2)
