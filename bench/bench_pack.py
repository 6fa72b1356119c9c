"""Values straight to packed bytes, and back."""

from __future__ import annotations

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.bench_encode import ML
from bench.measure import Contest
from numerics.backends.cpu import EXECUTOR
from numerics.formats.rounding import Rounding


def packing(name: str) -> object:
    """encode_packed; peers do not pack."""

    def make(n: int) -> Contest:
        d = nx.dtype(name)
        x = np.random.default_rng(0).standard_normal(n, np.float32) * 2
        out = nx.empty(n * d.bits // 8, np.uint8)
        copy, size = ceiling.encode(x, d.bits)
        others = peers.encode(x, None, ML[name], d.max) if name in ML else {}
        run = EXECUTOR.encode_packed
        return Contest(lambda: run(x, d, Rounding(), out), x.nbytes + out.nbytes, copy, size, others)

    return make


def unpacking(name: str) -> object:
    """decode_packed."""

    def make(n: int) -> Contest:
        d = nx.dtype(name)
        packed = np.random.default_rng(0).integers(0, 256, n * d.bits // 8, dtype=np.uint8)
        out = nx.empty(n, np.float32)
        copy, size = ceiling.decode(packed, n, d.bits)
        run = EXECUTOR.decode_packed
        return Contest(lambda: run(packed, d, out), packed.nbytes + out.nbytes, copy, size)

    return make


CASES = {
    "encode_packed fp4": packing("fp4"),
    "encode_packed fp6_e2m3": packing("fp6_e2m3"),
    "encode_packed int4": packing("int4"),
    "decode_packed fp4": unpacking("fp4"),
    "decode_packed fp6_e2m3": unpacking("fp6_e2m3"),
}
