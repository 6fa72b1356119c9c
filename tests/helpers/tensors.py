"""Tensors, and the ways to quantize them, that every recipe is tried on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import numerics as nx
from tests.helpers.executors import EXECUTORS

RECIPES = [
    ("int8", {}),
    ("uint8", {"symmetric": False, "scheme": "per_channel(1)"}),
    ("int4", {"scheme": "per_group(16)", "scale_type": "bfloat16"}),
    ("int4", {"scheme": "per_group(3, axis=0)", "symmetric": False, "zero_point_type": "float32"}),
    ("int3", {"scheme": "per_channel(0)", "scale_type": "pof2", "rounding": "half_away"}),
    ("int16", {"scale_type": "float"}),
    ("fp8_e4m3", {"scheme": "per_channel(0)", "scale_type": "float16"}),
    ("fp6_e3m2", {"scheme": "per_group(32)"}),
    ("mxfp4", {"scale_rule": "rceil"}),
    ("mxfp8_e4m3", {"axis": 0}),
    ("mxint8", {}),
    ("mx6", {}),
    ("mx9", {"axis": 0, "rounding": "toward_zero"}),
    ("nvfp4", {}),
    ("int8", {"rounding": "stochastic", "seed": 2**63 + 5}),
]


def everywhere(x: np.ndarray) -> Iterator[object]:
    """x as each executor takes it, while it is chosen; `gpu`: its kernels are interpreted."""
    for name in EXECUTORS:
        with nx.use(name):
            yield x
    for name in ("cpu", "gpu"):
        with nx.use(name):
            yield torch.from_numpy(x)


def data(kind: torch.dtype = torch.float32, shape: tuple[int, ...] = (7, 70)) -> torch.Tensor:
    """Numbers of many sizes, a row of zeros, NaN and Inf among them."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(np.asarray(rng.standard_normal(shape) * np.exp2(rng.integers(-5, 5, shape))))
    if x.ndim == 2 and x.shape[0] > 4:
        x[2], x[3, 5], x[4, 9] = 0.0, torch.nan, torch.inf
    return x.to(kind)
