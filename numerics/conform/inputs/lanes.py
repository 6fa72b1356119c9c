"""Whole vectors of one kind of number: shortcuts of kernels that look at all lanes of a vector at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.elements import LARGEST, NANS, marks, middles, values
from numerics.conform.task import Array, Float32
from numerics.formats.dtype import Element

LANES = 64
"""Numbers of a row: the most lanes that a vector has; each of its parts is a vector of fewer."""
WIDTHS = (4, 8, 16, 32)
"""Lanes of shorter vectors, which are asked alone."""
SOME = 5  # values, ties and numbers past the largest, each of which fills rows of its own
CODES = 17  # codes that stand in every lane
DRAWN = 71


@lru_cache(maxsize=64)
def kinds(dtype: Element) -> tuple[NDArray[np.float64], ...]:
    """Magnitudes of one kind each: zero, a value, ties, subnormal, too large, Inf, NaN.

    >>> from numerics.formats import fp4
    >>> [float(kind[0]) for kind in kinds(fp4)][:3]
    [0.0, 0.5, 1.0]
    """
    held, between = np.unique(np.abs(values(dtype))), middles(dtype)
    held, past = held[held > 0], marks(dtype)[-3:]
    inside = between[between < dtype.extent] if (between < dtype.extent).any() else between
    tiny = dtype.smallest_subnormal * np.array([1.0, 0.5, 0.25, 0.75])
    least = np.array([1, LARGEST >> 8, 0x7FFFFF, 0x800000], np.uint32).view(np.float32).astype(np.float64)
    alone = [*_some(held), *_some(inside), *past, *tiny, *least[[0, 2]], 0.3 * dtype.extent]
    mixed = [inside, np.append(past, np.inf), tiny, least, held]
    with np.errstate(invalid="ignore"):
        nan = np.array(NANS, np.uint32).view(np.float32).astype(np.float64)
    return (np.zeros(1), *(np.array([one]) for one in alone), *mixed, np.array([np.inf]), nan)


def _some(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return numbers[np.linspace(0, len(numbers) - 1, SOME).astype(np.int64)] if len(numbers) else numbers


def _signs() -> NDArray[np.float64]:
    """All plus, all minus, in turn, the first alone, the last alone, and drawn."""
    lane = np.arange(LANES)
    drawn = np.random.default_rng(DRAWN).random(LANES) < 0.5
    minus = [lane < 0, lane >= 0, lane % 2 == 1, lane % 4 == 0, lane % 4 == 3, drawn]
    return np.where(np.array(minus), -1.0, 1.0)


@lru_cache(maxsize=64)
def alike(dtype: Element) -> Float32:
    """Rows whose lanes are all of one kind: each kind of magnitude with signs of every pattern.

    >>> from numerics.formats import fp4
    >>> rows = alike(fp4)
    >>> rows.shape[1], bool((rows[:6] == 0).all()), bool(np.signbit(rows[1]).all())
    (64, True, True)
    """
    every = np.array([np.resize(kind, LANES) for kind in kinds(dtype)])
    with np.errstate(all="ignore"):
        found = (every[:, None] * _signs()).reshape(-1, LANES).astype(np.float32)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=64)
def but_one(dtype: Element) -> Float32:
    """Rows of zeros, of a tie, of what is too large, of Inf and of NaN, but for another number in one lane.

    >>> from numerics.formats import fp4
    >>> rows = but_one(fp4)
    >>> (rows[:64] != 0).sum(axis=1).tolist() == [1] * 64
    True
    """
    every = kinds(dtype)
    tie = middles(dtype)[:1]
    base = np.array([np.resize(kind, LANES) for kind in (every[0], tie, every[-5][-2:-1], *every[-2:])])
    rows = np.repeat(base[:, None], LANES, axis=1)
    lane = np.arange(LANES)
    rows[:, lane, lane] = np.array([0.3 * dtype.extent] * 4 + [np.inf])[: len(base), None]
    rows[:, lane[1::2], lane[1::2]] *= -1
    with np.errstate(all="ignore"):
        found = rows.reshape(-1, LANES).astype(np.float32)
    found.flags.writeable = False
    return found


def codes(bits: int) -> Array:
    """Rows of one code each, and of that code and the one with the other highest bit in turn.

    >>> codes(2)[:3, :4].tolist()
    [[0, 0, 0, 0], [0, 2, 0, 2], [1, 1, 1, 1]]
    """
    every = np.arange(1 << bits)
    if len(every) > 1 << 9:
        every = every[:: -(-len(every) // CODES)]
        every = np.unique([*every, *(1 << np.arange(bits)), (1 << bits) - 1])
    pairs = np.stack([every, every, every, every ^ 1 << (bits - 1)], axis=1).reshape(-1, 2)
    return np.tile(pairs, LANES // 2)
