"""Codes to values."""

from __future__ import annotations

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest


def contest(name: str, torch_name: str | None, ml_name: str) -> object:
    """decode into a preallocated array."""

    def make(n: int) -> Contest:
        d = nx.dtype(name)
        codes = np.random.default_rng(0).integers(0, 1 << d.bits, n, dtype=np.uint8)
        out = nx.empty(n, np.float32)
        copy, size = ceiling.decode(codes, n, 8)
        others = peers.decode(codes, torch_name, ml_name)
        return Contest(lambda: d.decode(codes, out=out), codes.nbytes + out.nbytes, copy, size, others)

    return make


CASES = {
    "decode fp8_e4m3": contest("fp8_e4m3", "float8_e4m3fn", "float8_e4m3fn"),
    "decode fp8_e5m2": contest("fp8_e5m2", "float8_e5m2", "float8_e5m2"),
}
