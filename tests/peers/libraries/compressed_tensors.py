"""compressed-tensors: fp4 and fp6 casts, MX and NVFP4 with their own scales, affine integers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams
from compressed_tensors.quantization.utils.fp4_utils import cast_to_fp4
from compressed_tensors.quantization.utils.fp6_utils import cast_to_fp6

from tests.peers.claims import Claim, of_tensors

BLOCKS = {"mxfp8_e4m3": 8, "mxfp6_e2m3": 6, "mxfp4": 4}


def claims() -> Iterator[Claim]:
    """Elements, blocks, integers."""
    yield of_tensors(Claim("fp4", "cast_to_fp4(x)", lambda x: cast_to_fp4(x.clone())))
    yield of_tensors(Claim("fp6_e2m3", "cast_to_fp6(x)", cast_to_fp6))
    for ours, bits in BLOCKS.items():
        arguments = QuantizationArgs(
            num_bits=bits, type="float", strategy="group", group_size=32, symmetric=True,
            scale_dtype=torch.uint8, zp_dtype=torch.uint8,
        )  # fmt: skip
        yield of_tensors(Claim(
            ours, f"fake_quantize(x, *calculate_qparams(...)), num_bits={bits}, scale_dtype=uint8",
            lambda x, a=arguments: _groups(x, a), "round", {"scale_rule": "even", "whole_blocks": True},
        ))  # fmt: skip
    integers = QuantizationArgs(num_bits=8, type="int", symmetric=False, strategy="tensor")
    yield of_tensors(
        Claim(
            "int8", "quantize(x, scale, zero_point, args, int8)", lambda *a: _affine(*a, integers), "affine"
        )
    )


def _groups(x: torch.Tensor, arguments: QuantizationArgs) -> torch.Tensor:
    """As its own observers and forward do, row by row."""
    rows = x.contiguous().reshape(-1, 32)
    low, high = rows.amin(dim=-1, keepdim=True), rows.amax(dim=-1, keepdim=True)
    scale, zero_point = calculate_qparams(low, high, arguments)
    exponents = scale.to(torch.float32)
    return fake_quantize(rows, exponents, zero_point.to(torch.float32), arguments).reshape(x.shape)


def _affine(x: torch.Tensor, scale: float, zero_point: int, arguments: QuantizationArgs) -> torch.Tensor:
    given = torch.tensor([scale], dtype=torch.float32), torch.tensor([zero_point], dtype=torch.int8)
    return quantize(x, *given, arguments, dtype=torch.int8)
