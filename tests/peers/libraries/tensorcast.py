"""tensorcast, from its sources: virtual casts to floats, MX and mx6, mx9."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tcast
import torch

from tests.peers.claims import Claim, of_tensors

FLOATS = {
    "fp8_e4m3": "e4m3fn", "fp8_e5m2": "e5m2", "fp6_e3m2": "e3m2fnuz", "fp6_e2m3": "e2m3fnuz",
    "fp4": "e2m1fnuz", "bfloat16": "bfloat16", "float16": "float16",
}  # fmt: skip
BLOCKS = {
    "mxfp8_e4m3": "mxfp8e4", "mxfp8_e5m2": "mxfp8e5", "mxfp6_e3m2": "mxfp6e3", "mxfp6_e2m3": "mxfp6e2",
    "mxfp4": "mxfp4e2", "mxint8": "mxint8", "mx6": "mx6", "mx9": "mx9",
}  # fmt: skip


def claims() -> Iterator[Claim]:
    """Rounded to even, the scale by the maximum."""
    for ours, theirs in FLOATS.items():
        kind = getattr(tcast, theirs)
        overflow = {} if ours.startswith(("fp6", "fp4")) else {"overflow": "saturate"}
        yield of_tensors(Claim(ours, f"vcast(x, {theirs})", lambda x, k=kind: _cast(x, k), "round", overflow))
    for ours, theirs in BLOCKS.items():
        kind = getattr(tcast, theirs)
        yield of_tensors(Claim(ours, f"vcast(x, {theirs})", lambda x, k=kind: _cast(x, k), "round",
                               {"whole_blocks": True}))  # fmt: skip


def _cast(x: torch.Tensor, kind: Any) -> torch.Tensor:
    return tcast.vcast(x.contiguous().clone(), kind, roundmode="even", scalemode="max").reshape(x.shape)
