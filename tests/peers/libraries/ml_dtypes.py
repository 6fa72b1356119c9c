"""ml_dtypes: casts of NumPy arrays.  They overflow to Inf or NaN, where the format has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from tests.peers.claims import Claim

FLOATS = {
    "bfloat16": "bfloat16", "float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2", "float8_e3m4": "fp8_e3m4",
    "float8_e4m3fnuz": "fp8_e4m3fnuz", "float8_e5m2fnuz": "fp8_e5m2fnuz", "float6_e3m2fn": "fp6_e3m2",
    "float6_e2m3fn": "fp6_e2m3", "float4_e2m1fn": "fp4", "float8_e8m0fnu": "e8m0",
}  # fmt: skip
INTEGERS = {"int4": "int4", "uint4": "uint4", "int2": "int2", "uint2": "uint2"}
WITHOUT_NAN = ("fp6_e3m2", "fp6_e2m3", "fp4")


def claims() -> Iterator[Claim]:
    """Every type, both ways."""
    for theirs, ours in (FLOATS | INTEGERS).items():
        kind = getattr(ml_dtypes, theirs)
        plain = ours in WITHOUT_NAN or theirs in INTEGERS
        yield Claim(ours, f"x.astype({theirs})", lambda x, kind=kind: x.astype(kind), "encode",
                    {} if plain else {"overflow": "nonsaturate"})  # fmt: skip
        yield Claim(ours, f"codes.view({theirs}).astype(float32)", lambda c, k=kind: _decoded(c, k), "decode")


def _decoded(codes: Any, kind: Any) -> Any:
    return codes.view(kind).astype(np.float32)
