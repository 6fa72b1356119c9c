"""brevitas: OCP float and MX weight quantizers, on a weight of a linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from brevitas.nn import QuantLinear
from brevitas.quant.float_quant_ocp import FpOCPWeight
from brevitas.quant.mx_quant_ocp import MXFloat8e4m3Weight, MXInt8Weight

from tests.peers.claims import Claim, of_tensors

WHOLE = {"whole_blocks": True}
FLOATS = {"fp8_e4m3": (4, 3), "fp8_e5m2": (5, 2), "fp6_e3m2": (3, 2), "fp6_e2m3": (2, 3), "fp4": (2, 1)}


def claims() -> Iterator[Claim]:
    """Elements with a scale of one, MX floats, MXINT8."""
    for name, (exponent, mantissa) in FLOATS.items():
        bits = {"bit_width": 1 + exponent + mantissa, "exponent_bit_width": exponent,
                "mantissa_bit_width": mantissa}  # fmt: skip
        said = f"bit widths {exponent}, {mantissa}"
        yield _claim(name, f"FpOCPWeight, {said}", FpOCPWeight.let(**bits), {})
        yield _claim(f"mx{name}", f"MXFloat8e4m3Weight, {said}", MXFloat8e4m3Weight.let(**bits), WHOLE)
    yield _claim("mxint8", "MXInt8Weight", MXInt8Weight, WHOLE)


def _claim(dtype: str, said: str, quantizer: Any, options: dict[str, Any]) -> Claim:
    return of_tensors(Claim(dtype, said, lambda x: _weight(x, quantizer), "round", options))


@torch.no_grad()
def _weight(x: torch.Tensor, quantizer: Any) -> torch.Tensor:
    if not x.numel():
        return x.clone()
    rows = x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x.reshape(1, -1)
    layer = QuantLinear(rows.shape[1], rows.shape[0], bias=False, weight_quant=quantizer)
    layer.weight.data.copy_(rows)
    return layer.quant_weight().value.reshape(x.shape).detach()
