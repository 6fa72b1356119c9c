"""Values to codes, one code a byte."""

from __future__ import annotations

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest

TORCH = {"fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}
ML = TORCH | {"fp6_e2m3": "float6_e2m3fn", "fp4": "float4_e2m1fn"}


def contest(name: str, rounding: str = "half_even", source: str = "float32") -> object:
    """encode into a preallocated array."""

    def make(n: int) -> Contest:
        d = nx.dtype(name)
        x = np.random.default_rng(0).standard_normal(n, np.float32)
        if source != "float32":
            x = x.astype(source)
        out = nx.empty(n, np.uint8)
        copy, size = ceiling.encode(x, 8)
        others = peers.encode(x, TORCH.get(name), ML.get(name, ""), d.max) if rounding == "half_even" else {}
        return Contest(
            lambda: d.encode(x, rounding=rounding, out=out), x.nbytes + out.nbytes, copy, size, others
        )

    return make


CASES = {
    "encode fp8_e4m3": contest("fp8_e4m3"),
    "encode fp8_e5m2": contest("fp8_e5m2"),
    "encode fp6_e2m3": contest("fp6_e2m3"),
    "encode fp8_e4m3 floor": contest("fp8_e4m3", "floor"),
    "encode fp8_e4m3 float16": contest("fp8_e4m3", source="float16"),
}
