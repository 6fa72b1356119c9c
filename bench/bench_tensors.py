"""nx.fake_quantize of a 4096 x 4096 tensor, as a user calls it: every scheme, its scale given or found.

A fresh output each time, as for the peers; so the ceiling is a copy into fresh memory, with a read
before it where the scale is found.

python -m bench.bench_tensors: what torch's operators add to the calls on arrays, for 1024 elements.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest, once

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


def overheads() -> dict[str, tuple[float, float]]:
    """Microseconds of a call on an array of 1024 elements, and of torch's operator on a tensor of it."""
    import torch

    x, numerics = torch.randn(1024), torch.ops.numerics
    array, scale = x.numpy(), torch.tensor(0.01)
    int8 = '{"dtype": "int8", "scheme": "per_tensor()"}'
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "round fp8_e4m3": (lambda: nx.fp8_e4m3.round(array), lambda: numerics.round(x, "fp8_e4m3")),
        "encode fp8_e4m3": (lambda: nx.fp8_e4m3.encode(array), lambda: numerics.encode(x, "fp8_e4m3")),
        "fake_quantize int8, scale given": (
            lambda: nx.fake_quantize(array, "int8", scale=0.01),
            lambda: numerics.fake_quantize(x, int8, scale),
        ),
        "fake_quantize int8, scale found": (
            lambda: nx.fake_quantize(array, "int8"),
            lambda: numerics.fake_quantize(x, int8),
        ),
        "fake_quantize mxfp4": (
            lambda: nx.fake_quantize(array, "mxfp4"),
            lambda: numerics.fake_quantize(x, '{"dtype": "mxfp4", "axis": -1}'),
        ),
    }
    return {name: (_microseconds(one), _microseconds(other)) for name, (one, other) in calls.items()}


def _microseconds(call: Callable[[], object]) -> float:
    call()
    return 1e6 * median(once(call, 200) for _ in range(25))


def main() -> None:
    """Prints one line a call."""
    for name, (array, operator) in overheads().items():
        print(f"{name}: array {array:.0f} us, operator {operator:.0f} us, overhead {operator - array:.0f} us")


if __name__ == "__main__":
    main()
