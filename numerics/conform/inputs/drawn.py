"""Inputs that are drawn: numbers alike from every step of an encoder, blocks over a format's whole range."""

from __future__ import annotations

from itertools import cycle
from math import frexp

import numpy as np

from numerics.backends.reference.executor import steps
from numerics.conform.inputs.elements import SIGN, Bits
from numerics.formats.block import Block
from numerics.formats.dtype import Element

EVERY = 1 << 32
NOTABLE = (0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF)
"""float32 magnitudes: 0, the least and largest subnormal, the least and largest normal, Inf, NaN."""


def random_inputs(dtype: Element, count: int, rng: np.random.Generator) -> Bits:
    """float32 bits: half of them any, the others alike from every step of the encoder."""
    bits = rng.integers(0, EVERY, count, dtype=np.uint32)
    for negative, part in enumerate((slice(0, count // 4), slice(count // 4, count // 2))):
        firsts = steps(dtype, "half_even", dtype.default_overflow, bool(negative))[0].astype(np.int64)
        at = rng.integers(0, len(firsts), len(bits[part]))
        bits[part] = rng.integers(firsts[at], np.append(firsts, 1 << 31)[at + 1]) | int(SIGN) * negative
    return rng.permutation(bits)


def random_blocks(
    dtype: Block, count: int, rng: np.random.Generator, tensor_scale: float | None = None
) -> Bits:
    """float32 bits [count, block]: maxima over the format's whole range, fractions next to ties.

    One block in eight is of zeros, or holds the least or largest magnitudes, an Inf, or a NaN.
    """
    shape = (count, dtype.block)
    low, high = exponents_of(dtype, tensor_scale)
    exponents = rng.integers(low, high + 1, (count, 1)) - rng.geometric(0.3, shape) + 1
    dropped = rng.integers(0, 24, shape)
    fractions = rng.integers(0, 1 << 23, shape) >> dropped << dropped
    magnitudes = (np.maximum(exponents, 0) << 23) + fractions + rng.integers(-1, 2, shape)
    magnitudes[rng.random(shape) < 1 / 16] = 0
    for row, notable in zip(range(7, count, 8), cycle(NOTABLE), strict=False):
        some = rng.random(shape[1]) < (1 / 4 if notable else 1)
        some[rng.integers(shape[1])] = True
        magnitudes[row, some] = notable
    signs = rng.integers(0, 2, shape) << 31
    bits: Bits = (np.maximum(magnitudes, 0) | signs).astype(np.uint32)
    return bits


def exponents_of(dtype: Block, tensor_scale: float | None = None) -> tuple[int, int]:
    """The least and largest exponent field of a block's maximum that says something."""
    low, high = (
        frexp(value * (tensor_scale or 1.0))[1] + 126
        for value in (dtype.smallest_subnormal, max(dtype.max, -dtype.min))
    )
    return min(max(low - 2, 0), 254), min(max(high + 1, 0), 254)
