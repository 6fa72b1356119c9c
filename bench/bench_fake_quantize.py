"""Values to the format's nearest values, in one pass."""

from __future__ import annotations

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest


def contest(name: str, torch_name: str | None, top: float) -> object:
    """round into a preallocated array."""

    def make(n: int) -> Contest:
        d = nx.dtype(name)
        x = np.random.default_rng(0).standard_normal(n, np.float32)
        out = nx.empty(x.shape)
        copy, size = ceiling.copy(x)
        others = peers.fake_quantize(x, torch_name, name, top) if torch_name else {}
        return Contest(lambda: d.round(x, out=out), 2 * x.nbytes, copy, size, others)

    return make


CASES = {
    "fake_quantize fp8_e4m3": contest("fp8_e4m3", "float8_e4m3fn", 448.0),
    "fake_quantize fp6_e2m3": contest("fp6_e2m3", None, 7.5),
    "fake_quantize bfloat16": contest("bfloat16", "bfloat16", 3.3895e38),
}
