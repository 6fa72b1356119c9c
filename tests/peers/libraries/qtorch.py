"""qtorch: float_quantize to any exponent and mantissa; its mode `nearest`."""

from __future__ import annotations

from collections.abc import Iterator

from qtorch.quant import float_quantize

from tests.peers.claims import Claim, of_tensors

FLOATS = {
    "bfloat16": (8, 7), "fp8_e4m3": (4, 3), "fp8_e5m2": (5, 2), "fp6_e3m2": (3, 2), "fp6_e2m3": (2, 3),
    "fp4": (2, 1),
}  # fmt: skip


def claims() -> Iterator[Claim]:
    """It has no codes for Inf and NaN and counts what is too large as the largest."""
    for name, (exponent, mantissa) in FLOATS.items():
        overflow = {} if name.startswith(("fp6", "fp4")) else {"overflow": "saturate"}
        yield of_tensors(Claim(
            name, f'float_quantize(x, {exponent}, {mantissa}, "nearest")',
            lambda x, e=exponent, m=mantissa: float_quantize(x, e, m, "nearest"), "round", overflow,
        ))  # fmt: skip
