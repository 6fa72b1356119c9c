"""nx.fake_quantize of a 4096 x 4096 tensor: every scheme, its scale given (one pass) or found (two)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest

SIDE = 4096
SCHEMES = {
    "per_tensor": nx.per_tensor(),
    "per_channel 0": nx.per_channel(0),
    "per_channel 1": nx.per_channel(1),
    "per_group 32": nx.per_group(32),
    "per_group 128 axis 0": nx.per_group(128, axis=0),
}


def contest(scheme: nx.Scheme, found: bool, symmetric: bool = True) -> Callable[[int], Contest]:
    """int8, as a user calls it: a fresh output each time.  The ceiling: a copy, with a read where found."""

    def make(n: int) -> Contest:
        rows = max(n // SIDE, 1)
        x = np.random.default_rng(0).standard_normal((rows, n // rows), np.float32)
        options: dict[str, Any] = {"scheme": scheme, "symmetric": symmetric}
        q = nx.quantize(x, "int8", **options)
        if not found:
            options |= {"scale": q.scale, "zero_point": q.zero_point}
        copy, moved = ceiling.fresh_copy(x, found)
        others = peers.fake_quantize_affine(x, scheme, q) if not found else peers.found_affine(x, scheme)
        return Contest(lambda: nx.fake_quantize(x, "int8", **options), moved, copy, moved, others)

    return make


CASES = {
    **{f"tensor int8 {name}": contest(scheme, False) for name, scheme in SCHEMES.items()},
    **{f"tensor int8 {name} found": contest(scheme, True) for name, scheme in SCHEMES.items()},
    "tensor int8 per_channel 0 asymmetric found": contest(nx.per_channel(0), True, symmetric=False),
}
