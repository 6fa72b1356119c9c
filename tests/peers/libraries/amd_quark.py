"""AMD Quark: its emulation kernels of floats, MX, mx6, mx9 and integers, on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from quark.torch import kernel

from tests.peers.claims import Claim, of_tensors

FLOATS = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0, "fp6_e3m2": 28.0, "fp6_e2m3": 7.5, "fp4": 6.0}
MX = {
    "mxfp8_e4m3": "fp8_e4m3", "mxfp8_e5m2": "fp8_e5m2", "mxfp6_e3m2": "fp6_e3m2", "mxfp6_e2m3": "fp6_e2m3",
    "mxfp4": "fp4", "mxint8": "int8",
}  # fmt: skip
HALF_EVEN = 8


def claims() -> Iterator[Claim]:
    """Everything with a scale of one, or with blocks of its own."""
    for name, top in FLOATS.items():
        yield of_tensors(Claim(
            name, f'scaled_fake_quantize("{name}", x, 1.0, ...)', lambda x, n=name, t=top: _float(x, n, t)
        ))  # fmt: skip
    for name, element in MX.items():
        for rule in ("even", "floor", "ceil"):
            yield of_tensors(Claim(
                name, f'non_scaled_fake_quantize(x, "mx", "{element}", -1, 32, "{rule}")',
                lambda x, e=element, r=rule: kernel.non_scaled_fake_quantize(x, "mx", e, -1, 32, r),
                "round", {"scale_rule": rule},
            ))  # fmt: skip
    for name in ("mx6", "mx9"):
        yield of_tensors(Claim(
            name, f'non_scaled_fake_quantize(x, "{name}", "", -1, 16)',
            lambda x, n=name: kernel.non_scaled_fake_quantize(x, n, "", -1, 16),
        ))  # fmt: skip
    yield of_tensors(
        Claim("int8", 'scaled_fake_quantize("int8", x, scale, zero_point, ...)', _int8, "affine")
    )


def _float(x: torch.Tensor, name: str, top: float) -> torch.Tensor:
    one, zero = torch.tensor(1.0), torch.tensor(0)
    return kernel.scaled_fake_quantize(name, x, one, zero, 0, 0, -top, top, HALF_EVEN, "per_tensor", "")


def _int8(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    given = torch.tensor(scale, dtype=torch.float32), torch.tensor(zero_point, dtype=torch.int32)
    return kernel.scaled_fake_quantize("int8", x, *given, 0, 0, -128.0, 127.0, HALF_EVEN, "per_tensor", "")
