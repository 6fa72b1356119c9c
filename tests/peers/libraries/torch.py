"""torch: casts and its own fake-quantize, on the CPU.  e4m3 saturates since 2.13, the others do not."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.peers.claims import Claim, of_tensors

FLOATS = {
    "bfloat16": "bfloat16", "float16": "float16", "float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2",
    "float8_e4m3fnuz": "fp8_e4m3fnuz", "float8_e5m2fnuz": "fp8_e5m2fnuz", "float8_e8m0fnu": "e8m0",
}  # fmt: skip
SATURATES = ("fp8_e4m3",)


def claims() -> Iterator[Claim]:
    """Casts both ways; int8 with a scale and a zero point."""
    for theirs, ours in FLOATS.items():
        kind = getattr(torch, theirs)
        overflow = {"overflow": "saturate" if ours in SATURATES else "nonsaturate"}
        yield of_tensors(
            Claim(ours, f"x.to({theirs})", lambda x, k=kind: _codes(x.to(k)), "encode", overflow)
        )
        yield of_tensors(
            Claim(ours, f"codes.view({theirs}).float()", lambda c, k=kind: c.view(k).float(), "decode")
        )
    yield of_tensors(
        Claim("int8", "fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127)", _faked, "affine")
    )
    yield of_tensors(Claim("int8", "quantize_per_tensor(x, scale, zero_point, qint8)", _quantized, "affine"))


def _codes(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.uint8 if values.element_size() == 1 else torch.uint16)


def _faked(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, -128, 127)


def _quantized(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    return torch.quantize_per_tensor(x, scale, zero_point, torch.qint8).int_repr()
