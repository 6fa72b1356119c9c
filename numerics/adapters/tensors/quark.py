"""Quark's real-quantized weights: packed codes, and the quantizer that has their scales."""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from torch import Tensor

from numerics.formats.block import MXBlock
from numerics.formats.blocks import mx
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, said
from numerics.formats.floats import fp4, fp6_e2m3, fp6_e3m2, fp8_e4m3, fp8_e5m2
from numerics.formats.integers import int2, int4, int8, uint2, uint4, uint8
from numerics.interop.host_tensors import (
    block_of,
    check_filled,
    elements_of,
    name_of,
    no_form,
    scales_of,
    tensor_of,
    zeros_of,
)
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec

HOST = "quark"
ELEMENTS: dict[str, Element] = {
    "int2": int2, "uint2": uint2, "int4": int4, "uint4": uint4, "int8": int8, "uint8": uint8,
    "fp8_e4m3": fp8_e4m3, "fp8_e5m2": fp8_e5m2, "fp4": fp4, "fp6_e2m3": fp6_e2m3, "fp6_e3m2": fp6_e3m2,
}  # fmt: skip
NATIVE: dict[Element, torch.dtype] = {fp8_e4m3: torch.float8_e4m3fn, fp8_e5m2: torch.float8_e5m2}
SMALL = (fp4, fp6_e2m3, fp6_e3m2)  # which Quark unpacks to values
POWERS = "e8m0"
ALLOWED = f"matrices of {', '.join(ELEMENTS)}, and MX of fp4 and fp6 along the last axis"


# ---- from Quark --------------------------------------------------------------------------------------


def from_host(weight: Any, quantizer: Any) -> QTensor:
    """Returns a weight that Quark has really quantized as a QTensor with the same codes and scales.

    weight, quantizer: `weight` and `weight_quantizer` of a QParamsLinear, packed codes and a
    StaticScaledRealQuantizer; groups of fp4 and fp6 with scale_format e8m0 are MX blocks.  Raises
    NumericsError for other quantizers and formats, and for zero points between integers.
    """
    if type(quantizer).__name__ != "StaticScaledRealQuantizer" or not quantizer.real_quantized:
        raise NumericsError(f"{type(quantizer).__name__} is no StaticScaledRealQuantizer of a real weight")
    check_filled(HOST, weight.shape)
    asked = quantizer.qspec
    element = ELEMENTS.get(asked.dtype.value)
    form = getattr(asked, "scale_format", None)
    if element is None or form not in (None, "float32", POWERS):
        raise NumericsError(f"{asked.dtype.value} with scales {said(form)} is none of {ALLOWED}")
    found = quantizer.unpack_tensor(weight.detach())
    codes = _codes(found, element)
    original = name_of(quantizer.float_dtype, "the tensor")
    block = _block(tuple(codes.shape), asked)
    if form == POWERS:
        shared = quantizer.scale.view(torch.uint8).reshape(*codes.shape[:-1], -1).contiguous()
        return QTensor.from_parts(QuantSpec(mx(element, block[-1])), codes, shared, original=original)
    scale, zero = quantizer.unpack_params()
    return elements_of(element, codes, scale, block, zero_point=zero, original=original)


def _codes(found: Tensor, element: Element) -> Tensor:
    """The codes of what Quark unpacks: integers, bytes of fp8, values of fp4 and fp6."""
    if element in SMALL:
        return cast(Tensor, element.encode(found.float().contiguous()))
    if element in NATIVE:
        return found.contiguous().view(torch.uint8)
    return (found & ((1 << element.bits) - 1)).to(torch.uint8).contiguous()


def _block(shape: tuple[int, ...], asked: Any) -> tuple[int, ...]:
    """Which elements share a scale, as a size an axis."""
    kind, axis = asked.qscheme.value, asked.ch_axis
    if kind == "per_tensor":
        return shape
    axis %= len(shape)
    if kind == "per_channel":
        return tuple(1 if at == axis else size for at, size in enumerate(shape))
    if kind == "per_group" and axis == len(shape) - 1:
        return (*(1,) * axis, asked.group_size)
    raise NumericsError(f"{kind} along axis {axis} of {shape}: groups are read along the last axis")


# ---- to Quark ----------------------------------------------------------------------------------------


def to_host(q: Any) -> tuple[Tensor, Any]:
    """Returns a QTensor as Quark's packed weight and its StaticScaledRealQuantizer.

    The two are `weight` and `weight_quantizer` of a QParamsLinear, and quantizer(weight) gives the values.
    q: a matrix of integers of 2, 4 or 8 bits, fp8, or MX of fp4 and fp6 along the last axis; scales
    per_tensor(), per_channel(axis) or per_group(size) (of integers alone).  Raises NumericsError for others.
    """
    q = tensor_of(HOST, q)
    config, element = _config(q)
    parts = importlib.import_module("quark.torch.export.nn.modules.realquantizer")
    made = parts.StaticScaledRealQuantizer(
        config, None, reorder=False, real_quantized=True, float_dtype=q.dtype, device=q.packed.device
    )  # fmt: skip
    try:
        weight = made.pack_method.pack(_unpacked(q, element), False)
        _put_scales(made, q)
    except (IndexError, NotImplementedError, ValueError) as wrong:  # sizes that its packing does not divide
        raise NumericsError(f"{HOST} has no tensor of {q.spec!r}, of {tuple(q.shape)}: {wrong}") from None
    _check_whole(weight, made, q)
    return weight, made


def _check_whole(weight: Tensor, made: Any, q: TensorQTensor) -> None:
    """Raises NumericsError where Quark's packing fills codes or zero points up."""
    codes, (scale, zero) = made.unpack_tensor(weight), made.unpack_params()
    if codes.shape != q.shape or (zero is not None and zero.shape != scale.shape):
        more = tuple(codes.shape) if codes.shape != q.shape else f"zero points {tuple(zero.shape)}"
        raise NumericsError(
            f"{HOST} has no tensor of {q.spec!r}, of {tuple(q.shape)}: it packs whole words, and makes "
            f"{more} of it"
        )


def _put_scales(made: Any, q: TensorQTensor) -> None:
    """Gives a quantizer the scales, and zero points beside those of integers, as Quark stores them."""
    if q.spec.blocked:
        made.scale = cast(Tensor, q.shared)
        return
    scale, zero = scales_of(q), zeros_of(q, torch.int32)
    if made.qspec.qscheme.value != "per_group":
        shape = () if scale.numel() == 1 else (-1,)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    made.scale = scale
    if q.spec.element.kind == "integer":
        made.zero_point = zero.clone()  # which Quark packs in place
        made.pack_zero_point()
        if zero.dim() == 0 and int(made.unpack_params()[1]) != int(zero):
            raise no_form(HOST, q, f"{ALLOWED}; the zero point of a whole int4 tensor is not negative")
    made.maybe_convert_and_transpose_scale()


def _unpacked(q: TensorQTensor, element: Element) -> Tensor:
    """What Quark packs: integers, fp8 as torch has it, values of fp4 and fp6."""
    codes = q.codes
    if element in SMALL:
        return cast(Tensor, element.decode(codes))
    if element in NATIVE:
        return codes.view(NATIVE[element])
    if not element.signed:
        return codes.to(torch.int32)
    return ((codes.view(torch.int8) << (8 - element.bits)) >> (8 - element.bits)).to(torch.int32)


def _config(q: TensorQTensor) -> tuple[Any, Element]:
    """Quark's configuration of such a tensor, and the format of its elements."""
    if q.ndim != 2:
        raise no_form(HOST, q, ALLOWED)
    element, more = _asked(q)
    name = next((name for name, known in ELEMENTS.items() if known is element), None)
    if name is None:
        raise no_form(HOST, q, ALLOWED)
    types = importlib.import_module("quark.torch.quantization.config.type")
    config = importlib.import_module("quark.torch.quantization.config.config").QTensorConfig
    observers = importlib.import_module("quark.torch.quantization.observer.observer")
    scheme = types.QSchemeType(more.pop("qscheme"))
    kind = {"per_tensor": "PerTensorMinMax", "per_channel": "PerChannelMinMax", "per_group": "PerGroupMinMax"}
    observer = "PerBlockMX" if more.get("scale_format") else kind[scheme.value]
    if element.kind == "integer":
        more |= {"symmetric": q.zero_point is None, "scale_type": types.ScaleType.float}
    made = config(
        dtype=types.Dtype(name), observer_cls=getattr(observers, f"{observer}Observer"), qscheme=scheme,
        is_dynamic=False, round_method=types.RoundType.half_even, **more,
    )  # fmt: skip
    return made, element


def _asked(q: TensorQTensor) -> tuple[Element, dict[str, Any]]:
    """The elements, and which of them share a scale, in Quark's words."""
    if q.spec.blocked:
        d = q.spec.block
        last = q.spec.blocking(tuple(q.shape)).axis == q.ndim - 1 and q.shape[-1] % d.block == 0
        if not isinstance(d, MXBlock) or d.element not in SMALL or not last:
            raise no_form(HOST, q, ALLOWED)
        groups = {"qscheme": "per_group", "ch_axis": -1, "group_size": d.block}
        return d.element, {**groups, "scale_format": POWERS}
    element, block = q.spec.element, block_of(q)
    ones = [axis for axis, one in enumerate(block) if one == 1]
    if element in SMALL:
        raise no_form(HOST, q, ALLOWED)
    if block == tuple(q.shape):
        return element, {"qscheme": "per_tensor"}
    if len(ones) == 1 and block[1 - ones[0]] == q.shape[1 - ones[0]]:
        return element, {"qscheme": "per_channel", "ch_axis": ones[0]}
    if element.kind == "integer" and ones == [0]:
        return element, {"qscheme": "per_group", "ch_axis": 1, "group_size": block[1]}
    raise no_form(HOST, q, ALLOWED)
