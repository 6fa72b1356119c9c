"""nvidia-modelopt: quantized tensors of MXFP4, MXFP8, NVFP4, and fp8, as it computes them on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor, NVFP4QTensor
from modelopt.torch.quantization.tensor_quant import fp8_eager

from tests.peers.claims import Claim, of_tensors

WHOLE = {"whole_blocks": True}


def claims() -> Iterator[Claim]:
    """fp8 without a scale, three block formats."""
    yield of_tensors(Claim("fp8_e4m3", "fp8_eager(x, None)", lambda x: fp8_eager(x, None)))
    rule = {"scale_rule": "rceil", **WHOLE}
    yield of_tensors(Claim("mxfp4", "MXFP4QTensor.quantize(x, 32)", _mxfp4, "encode", rule))
    yield of_tensors(Claim("mxfp8_e4m3", "MXFP8QTensor.quantize(x)", _mxfp8, "encode", rule))
    yield of_tensors(Claim("nvfp4", "NVFP4QTensor.quantize(x, 16, None, 1.0)", _nvfp4, "encode", WHOLE))


def _codes(packed: torch.Tensor, shape: Any) -> torch.Tensor:
    return torch.stack([packed & 15, packed >> 4], dim=-1).reshape(shape)


def _shared(scale: torch.Tensor, shape: Any, block: int) -> torch.Tensor:
    return scale.view(torch.uint8).reshape(*shape[:-1], shape[-1] // block)


def _mxfp4(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    made, scale = MXFP4QTensor.quantize(x.contiguous(), 32)
    return _codes(made._quantized_data, x.shape), _shared(scale, x.shape, 32)


def _mxfp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    made, scale = MXFP8QTensor.quantize(x.contiguous().reshape(-1, x.shape[-1]))
    return made._quantized_data.view(torch.uint8).reshape(x.shape), _shared(scale, x.shape, 32)


def _nvfp4(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = x.contiguous().reshape(-1, x.shape[-1])
    made, scale, _ = NVFP4QTensor.quantize(rows, 16, None, torch.tensor(1.0))
    return _codes(made._quantized_data, x.shape), _shared(scale, x.shape, 16)
