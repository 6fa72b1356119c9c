"""torchao: MX tensors by four scale rules, NVFP4, fp4 and fp6 elements, affine integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torchao.prototype.mx_formats import kernels
from torchao.prototype.mx_formats.mx_tensor import ScaleCalculationMode, to_dtype, to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize
from torchao.quantization.quant_primitives import quantize_affine

from tests.peers.claims import Claim, of_tensors

ELEMENTS = {"f4": "fp4", "f6_e2m3": "fp6_e2m3", "f6_e3m2": "fp6_e3m2"}
BLOCKS: dict[str, Any] = {
    "mxfp8_e4m3": torch.float8_e4m3fn, "mxfp8_e5m2": torch.float8_e5m2, "mxfp6_e3m2": "fp6_e3m2",
    "mxfp6_e2m3": "fp6_e2m3", "mxfp4": torch.float4_e2m1fn_x2,
}  # fmt: skip
RULES = ("floor", "ceil", "even", "rceil")


def claims() -> Iterator[Claim]:
    """Elements and blocks."""
    for theirs, ours in ELEMENTS.items():
        encode = getattr(kernels, f"f32_to_{theirs}_unpacked")
        decode = getattr(kernels, f"{theirs}_unpacked_to_f32")
        yield of_tensors(Claim(ours, f"f32_to_{theirs}_unpacked(x)", encode, "encode"))
        yield of_tensors(Claim(ours, f"{theirs}_unpacked_to_f32(codes)", decode, "decode"))
    for ours, element in BLOCKS.items():
        for rule in RULES:
            mode = ScaleCalculationMode[rule.upper()]
            yield of_tensors(Claim(
                ours, f"to_mx(x, {element}, 32, {mode.name})", lambda x, e=element, m=mode: _mx(x, e, m),
                "encode", {"scale_rule": rule, "whole_blocks": True},
            ))  # fmt: skip
        yield of_tensors(Claim(
            ours, f"to_dtype(data, scale, {element}, 32, float32)", lambda c, s, e=element: _values(c, s, e),
            "decode", {"whole_blocks": True},
        ))  # fmt: skip
    yield of_tensors(Claim("nvfp4", "nvfp4_quantize(x, 16, 1.0)", _nvfp4, "encode", {"whole_blocks": True}))
    yield of_tensors(
        Claim("int8", "quantize_affine(x, x.shape, scale, zero_point, int8, -128, 127)", _affine, "affine")
    )


def _mx(x: torch.Tensor, element: Any, mode: ScaleCalculationMode) -> tuple[torch.Tensor, torch.Tensor]:
    scale, data = to_mx(x.contiguous(), element, 32, mode)
    codes = kernels.unpack_uint4(data) if element == torch.float4_e2m1fn_x2 else data.view(torch.uint8)
    return codes.reshape(x.shape), scale.view(torch.uint8)


def _values(codes: torch.Tensor, scale: torch.Tensor, element: Any) -> torch.Tensor:
    codes = codes.contiguous()
    if element == torch.float4_e2m1fn_x2:
        data = kernels.pack_uint4(codes)
    else:
        data = codes if isinstance(element, str) else codes.view(element)
    return to_dtype(data, scale.contiguous().view(torch.float8_e8m0fnu), element, 32, torch.float32)


def _nvfp4(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = x.contiguous().reshape(-1, x.shape[-1])
    scale, data = nvfp4_quantize(rows, 16, torch.tensor(1.0))
    shared = (*x.shape[:-1], x.shape[-1] // 16)
    return kernels.unpack_uint4(data).reshape(x.shape), scale.view(torch.uint8).reshape(shared)


def _affine(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    given = torch.tensor(scale, dtype=torch.float32), torch.tensor(zero_point, dtype=torch.int32)
    return quantize_affine(x, tuple(x.shape), *given, torch.int8, -128, 127)
