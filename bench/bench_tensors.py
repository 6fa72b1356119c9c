"""nx.fake_quantize of a 4096 x 4096 tensor, as a user calls it: every scheme, its scale given or found.

A fresh output each time, as for the peers; so the ceiling is a copy into fresh memory, with a read
before it where the scale is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest

SIDE = 4096
SIZES = (1 << 10, SIDE * SIDE)
SCHEMES = {
    "per_tensor": nx.per_tensor(),
    "per_channel 0": nx.per_channel(0),
    "per_channel 1": nx.per_channel(1),
    "per_group 32": nx.per_group(32),
    "per_group 128 axis 0": nx.per_group(128, axis=0),
}


def contest(scheme: nx.Scheme, found: bool, symmetric: bool = True) -> Callable[[int], Contest]:
    """int8 values of an array."""

    def make(n: int) -> Contest:
        x = np.random.default_rng(0).standard_normal((max(n // SIDE, 1), min(n, SIDE)), np.float32)
        q = nx.quantize(x, "int8", scheme=scheme, symmetric=symmetric)
        given = {} if found else {"scale": q.scale, "zero_point": q.zero_point}
        copy, moved = ceiling.fresh_copy(x, read_before=found)
        options: dict[str, Any] = {"scheme": scheme, "symmetric": symmetric, **given}
        others = peers.found_scale(x, scheme) if found else peers.given_scale(x, scheme, q, symmetric)
        return Contest(lambda: nx.fake_quantize(x, "int8", **options), moved, copy, moved, others)

    return make


CASES = {
    **{f"tensor {name}, scale given": contest(scheme, False) for name, scheme in SCHEMES.items()},
    **{f"tensor {name}, scale found": contest(scheme, True) for name, scheme in SCHEMES.items()},
    "tensor per_channel 0 asymmetric, scale given": contest(nx.per_channel(0), False, False),
    "tensor per_channel 0 asymmetric, scale found": contest(nx.per_channel(0), True, False),
}
