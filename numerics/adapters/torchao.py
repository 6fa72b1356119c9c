"""torchao: affine integers, MX tensors, fp4 and fp6 elements (docs/adapters.md §2).

    from numerics.adapters import torchao
    with torchao.substituted() as calls:
        quantize_(model, Int8WeightOnlyConfig())

Scales are found by torchao's own rules, of one number a block; what happens to every element is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from numerics.adapters import conventions
from numerics.adapters import torchao_scales as scales
from numerics.adapters.base import MISSING, Adapter, Calls, Function, Maker, Seam, replaced
from numerics.adapters.conventions import Convention
from numerics.adapters.scaled import (
    FLOATS,
    between,
    has_specials,
    is_odd,
    laid_like,
    ordinary,
    row_length,
    rows_of,
    shifted_codes,
    takes,
    values_of,
    within,
)
from numerics.formats.blocks import mx
from numerics.formats.dtype import Element, Integer
from numerics.formats.floats import fp4, fp6_e2m3, fp6_e3m2
from numerics.formats.integers import int8, uint8
from numerics.interop.torchao import ELEMENTS, from_host, to_host
from numerics.quantization import quantize

__all__ = ["calls", "from_host", "install", "installed", "substituted", "to_host", "uninstall"]

PACKAGE = "torchao"
MX_TENSOR = "torchao.prototype.mx_formats.mx_tensor"
KERNELS = "torchao.prototype.mx_formats.kernels"

CONTAINERS: dict[torch.dtype, Integer] = {torch.int8: int8, torch.uint8: uint8}
ENCODERS = {
    "f32_to_f4_unpacked": fp4,
    "f32_to_f6_e2m3_unpacked": fp6_e2m3,
    "f32_to_f6_e3m2_unpacked": fp6_e3m2,
}
DECODERS = {
    "f4_unpacked_to_f32": fp4,
    "f6_e2m3_unpacked_to_f32": fp6_e2m3,
    "f6_e3m2_unpacked_to_f32": fp6_e3m2,
}
WIDE = (torch.float32, torch.bfloat16)  # what to_mx takes
CHUNK = 1 << 16  # blocks that the host computes at once
LEAST = 2.0**-120  # a quotient below it is next to float32's subnormals


# ---- integers ------------------------------------------------------------------------------------


def _affine(host: Function, correct: bool) -> Function:
    """quantize_affine: clamp(round(x * (1 / scale)) + zero_point)."""

    def quantize_affine(
        input: Tensor, block_size: Sequence[int], scale: Tensor, zero_point: Tensor | None,
        output_dtype: torch.dtype, quant_min: Any = None, quant_max: Any = None,
    ) -> Any:  # fmt: skip
        limits = _limits(output_dtype, quant_min, quant_max)
        length = row_length(input, block_size)
        if limits is None or length is None or not takes(scale, zero_point) or zero_point is None:
            return NotImplemented
        container = CONTAINERS[output_dtype]
        rows, zero = input.view(-1, length), zero_point.reshape(-1)
        step = scale.reshape(-1, 1)
        if len(zero) != len(step) or not within(zero, container) or len(step) != len(rows):
            return NotImplemented
        # The reciprocal is rounded first, which can move a tie: `correct` divides.
        first = (step if correct else 1.0 / step).squeeze(1)
        plain = rows.dtype == first.dtype == torch.float32 and bool(ordinary(first).all())
        if plain and between(zero, *limits):
            how = Convention(multiplies=not correct, nan="ours" if correct else "code 0")
            codes = conventions.moved_codes(rows, (first, zero.int()), container, how, limits)
            return codes.view(output_dtype).view(input.shape)
        quotient = rows / step if correct else rows * (1.0 / step)
        codes = _codes(quotient, zero, container, limits).view(output_dtype).view(input.shape)
        if not correct:  # a NaN is 0 to a cast, after all else
            codes[torch.isnan(quotient).view(input.shape)] = 0
        return codes

    return quantize_affine


def _limits(kind: Any, low: Any, high: Any) -> tuple[int, int] | None:
    """The range of codes, where it is one of integers that the type holds."""
    container = CONTAINERS.get(kind)
    if container is None:
        return None
    least, most = int(container.min), int(container.max)
    low, high = least if low is None else low, most if high is None else high
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float))):
        return None
    if not (float(low).is_integer() and float(high).is_integer() and least <= low <= high <= most):
        return None
    return int(low), int(high)


def _codes(quotient: Tensor, zero: Tensor, container: Integer, limits: tuple[int, int]) -> Tensor:
    """Codes of rows, at a zero point each."""
    first = zero[0]
    if bool((zero == first).all()):
        zero = first
    codes = container.encode(quotient) if not zero.any() else shifted_codes(quotient, zero.int(), container)
    return _limited(codes, container, limits)


def _limited(codes: Tensor, container: Integer, limits: tuple[int, int]) -> Tensor:
    """Codes of a narrower range, where one is asked for."""
    if limits != (container.min, container.max):
        view = codes.view(torch.int8) if container.signed else codes
        view.clamp_(*limits)
    return codes


def _dequantize(host: Function, correct: bool) -> Function:
    """dequantize_affine: (code - zero_point) * scale."""

    def dequantize_affine(
        input: Tensor, block_size: Sequence[int], scale: Tensor, zero_point: Tensor | None,
        input_dtype: torch.dtype, quant_min: Any = None, quant_max: Any = None, *,
        output_dtype: torch.dtype = torch.float32,
    ) -> Any:  # fmt: skip
        container = CONTAINERS.get(input_dtype)
        if _limits(input_dtype, quant_min, quant_max) is None:
            return NotImplemented
        if container is None or not takes(input, scale) or input.dtype != input_dtype or is_odd(input):
            return NotImplemented
        length = rows_of(input.shape, tuple(block_size)) if input.is_contiguous() else None
        step = scale.reshape(-1).float()
        if length is None or length * len(step) != input.numel() or output_dtype not in FLOATS:
            return NotImplemented
        if scale.dtype not in (torch.float32, output_dtype) or not bool(
            ((step > 0) & (step < torch.inf)).all()
        ):
            return NotImplemented
        zero = None
        if zero_point is not None:
            zero = zero_point.reshape(-1)
            if not takes(zero) or len(zero) != len(step) or not within(zero, container):
                return NotImplemented
            zero = zero.int()
        made = values_of(input.view(-1, length), step, zero, container)
        return made.view(input.shape).to(output_dtype)

    return dequantize_affine


# ---- MX ------------------------------------------------------------------------------------------


def _to_mx(host: Function, correct: bool) -> Function:
    """to_mx: scales by torchao's rule, or by the standard's; codes by us."""

    def to_mx(
        data_hp: Tensor, elem_dtype: Any, block_size: int, scaling_mode: Any = MISSING,
        is_swizzled_scales: bool = False,
    ) -> Any:  # fmt: skip
        scaling_mode = _floor() if scaling_mode is MISSING else scaling_mode
        if not takes(data_hp) or data_hp.dtype not in WIDE or elem_dtype not in ELEMENTS:
            return NotImplemented
        if is_swizzled_scales or data_hp.shape[-1] % block_size or not data_hp.is_contiguous():
            return NotImplemented
        if elem_dtype == torch.float4_e2m1fn_x2 and block_size % 2:
            return NotImplemented
        if correct:
            scale, codes = _encoded(data_hp, elem_dtype, block_size, scaling_mode)
            return scale.view(torch.float8_e8m0fnu), _stored(codes, elem_dtype, data_hp.shape)
        return _followed(host, data_hp, elem_dtype, block_size, scaling_mode)

    return to_mx


def _floor() -> Any:
    from torchao.prototype.mx_formats.config import ScaleCalculationMode

    return ScaleCalculationMode.FLOOR


def _encoded(x: Tensor, kind: Any, size: int, mode: Any) -> tuple[Tensor, Tensor]:
    """The scale bytes and the stored codes of OCP MX 1.0 §6.3 with the scale rule of that name."""
    block, rule = mx(ELEMENTS[kind], size), mode.name.lower()
    if isinstance(kind, str):  # which torchao does not pack
        made = block.encode(x, scale_rule=rule)
        return made.scale, made.codes
    q: Any = quantize(x, block, scale_rule=rule)
    return q.scale, q.packed


def _stored(codes: Tensor, kind: Any, shape: Sequence[int]) -> Tensor:
    """Codes, of fp4 packed ones, as torchao keeps them."""
    if kind == torch.float4_e2m1fn_x2:
        return codes.view(*shape[:-1], shape[-1] // 2)
    return codes.view(shape) if isinstance(kind, str) else codes.view(kind).view(shape)


def _followed(host: Function, x: Tensor, kind: Any, size: int, mode: Any) -> tuple[Tensor, Tensor]:
    """The same as torchao has it, bit for bit: the blocks where it departs from the rule are its own."""
    packed = kind == torch.float4_e2m1fn_x2  # others are a byte each
    least = LEAST if mode.name == "RCEIL" else None
    rows, block = x.view(-1, size), mx(ELEMENTS[kind], size)
    blocks, byte, odd = conventions.mx_codes(rows, block, mode.name.lower(), packed=packed, least=least)
    for at in odd.split(CHUNK) if len(odd) else ():  # torch splits nothing into one piece
        scale, data = host(rows[at], kind, size, mode)
        byte[at], blocks[at] = scale.view(torch.uint8).squeeze(-1), data.view(torch.uint8)
    scale = byte.view(torch.float8_e8m0fnu).view(*x.shape[:-1], x.shape[-1] // size)
    return scale, _stored(blocks, kind, x.shape)


# ---- elements ------------------------------------------------------------------------------------


def _encoder(element: Element) -> Maker:
    def made(host: Function, correct: bool) -> Function:
        def encode(x: Tensor) -> Any:
            if not takes(x) or x.dtype != torch.float32:
                return NotImplemented
            codes = element.encode(x)
            if not correct and has_specials(x):  # NaN is read as a number: 1 and its payload
                nan = torch.isnan(x)
                codes[nan] = host(x[nan])
            return laid_like(codes, x)

        return encode

    return made


def _decoder(element: Element) -> Maker:
    def made(host: Function, correct: bool) -> Function:
        def decode(x: Tensor) -> Any:
            if not takes(x) or x.dtype != torch.uint8 or int(x.max()) >> element.bits:
                return NotImplemented
            return laid_like(element.decode(x), x)

        return decode

    return made


# ---- the adapter ---------------------------------------------------------------------------------

FUNCTIONS: dict[str, dict[str, Maker]] = {
    scales.PRIMITIVES: {
        "quantize_affine": _affine, "dequantize_affine": _dequantize,
        "choose_qparams_affine": scales.of_tensors,
        "_choose_qparams_affine_dont_preserve_zero": scales.of_blocks,
        "_choose_qparams_affine_tinygemm": scales.of_blocks,
        "_choose_scale_float8": scales.of_float8,
    },
    MX_TENSOR: {"to_mx": _to_mx},
    KERNELS: {name: _encoder(d) for name, d in ENCODERS.items()}
    | {name: _decoder(d) for name, d in DECODERS.items()},
}  # fmt: skip


CORRECTED: dict[str, dict[str, Maker]] = {
    scales.PRIMITIVES: {"choose_qparams_affine_with_min_max": scales.of_ends},
}
"""Functions that only the standard's results are asked of: torchao's own are as quick."""
GRADLESS = ("quantize_affine", "choose_qparams_affine", "_choose_qparams_affine_tinygemm")
"""Functions that torchao itself computes under no_grad."""


def _seams(correct: bool, calls: Calls) -> list[Seam]:
    tables = (FUNCTIONS, CORRECTED) if correct else (FUNCTIONS,)
    return [seam for one in tables for seam in replaced(PACKAGE, one, correct, calls, GRADLESS)]


ADAPTER = Adapter("torchao", "torchao", ("0.18.0",), _seams)
install, uninstall, substituted = ADAPTER.install, ADAPTER.uninstall, ADAPTER.substituted
installed, calls = ADAPTER.installed, ADAPTER.calls
to_host, from_host = ADAPTER.known(to_host), ADAPTER.known(from_host)
