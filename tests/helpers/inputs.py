"""Inputs that matter."""

from __future__ import annotations

import numpy as np


def edges(seed: int = 0, random: int = 4000) -> np.ndarray:
    """float32 inputs that matter: every exponent with fractions around ties, specials, random bits."""
    rng = np.random.default_rng(seed)
    fractions = [0, 1, 2, 0x400000, 0x3FFFFF, 0x400001, 0x7FFFFF, 0x7FFFFE]
    fractions += [(k << shift) + d for shift in (18, 20) for k in (1, 2, 3, 5, 7) for d in (-1, 0, 1)]
    exponents = np.arange(256, dtype=np.uint32)[:, None] << np.uint32(23)
    grid = (exponents | np.array(fractions, np.uint32) & np.uint32(0x7FFFFF)).ravel()
    near = (rng.standard_normal(random) * np.exp2(rng.integers(-20, 20, random))).astype(np.float32)
    bits = rng.integers(0, 1 << 32, random, dtype=np.uint64).astype(np.uint32)
    magnitudes = np.concatenate([grid, near.view(np.uint32), bits])
    return np.concatenate([magnitudes, magnitudes ^ np.uint32(1 << 31)]).view(np.float32)
