"""NVFP4 by NumPy, whose scales of the tensor and of blocks are found in any way."""

from __future__ import annotations

import numpy as np

import numerics as nx

F = np.float32
ONE = F(1)


def ordinary(x):
    return np.where(np.isfinite(x), np.abs(x), F(0))


def by(tensor, block=lambda amax, ts: amax / F(6) / ts):
    """NVFP4 along the last axis: tensor(amax) and block(amax of blocks, ts) find the scales."""

    def encode(x):
        x = np.ascontiguousarray(x, F)
        right = nx.nvfp4.encode(x)
        with np.errstate(all="ignore"):
            amax = ordinary(x).max(initial=0)
            ts = F(tensor(amax)) if amax else ONE
            ts = ts if 0 < ts < np.inf else F(right.tensor_scale)
            padded = np.zeros((*x.shape[:-1], -(-x.shape[-1] // 16) * 16), F)
            padded[..., : x.shape[-1]] = x
            rows = padded.reshape(*x.shape[:-1], -1, 16)
            scale = nx.fp8_e4m3.encode(block(ordinary(rows).max(axis=-1), ts).astype(F), overflow="saturate")
            total = nx.fp8_e4m3.decode(scale)[..., None] * ts
            codes = nx.fp4.encode(np.where(total == 0, np.copysign(F(0), rows), rows / total).astype(F))
        whole = np.isfinite(rows).all(axis=-1)
        scale = np.where(whole, scale, right.scale)
        codes = np.where(whole[..., None], codes, 0).astype(np.uint8)
        return codes.reshape(padded.shape)[..., : x.shape[-1]], scale, ts

    return encode


BLOCKS = {
    "amax · (1 / E) / ts": lambda amax, ts: amax * (ONE / F(6)) / ts,
    "amax / E · (1 / ts)": lambda amax, ts: amax / F(6) * (ONE / ts),
    "amax · (1 / E) · (1 / ts)": lambda amax, ts: amax * (ONE / F(6)) * (ONE / ts),
    "amax · (1 / ts) · (1 / E)": lambda amax, ts: amax * (ONE / ts) * (ONE / F(6)),
    "amax · (1 / ts · (1 / E))": lambda amax, ts: amax * ((ONE / ts) * (ONE / F(6))),
    "amax / (E · ts)": lambda amax, ts: amax / (F(6) * ts),
    "amax / ts / E": lambda amax, ts: amax / ts / F(6),
}
"""Ways to find what a block's scale is the nearest to."""
GIVEN = float(F(0.3))


def of_blocks(way):
    """A kernel that finds the scales of blocks in that way, where that of the tensor is GIVEN."""
    encode = by(lambda _: F(GIVEN), BLOCKS[way])
    return lambda x: encode(x)[:2]
