"""Numbers with random bits for stochastic rounding, of single numbers and of blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.elements import SIGN, SPECIALS, Bits, beyond, probes, turning_points, values
from numerics.conform.inputs.rescale import quotients, steps
from numerics.conform.task import GIVEN, Array, Fields, Float32, Task
from numerics.formats.block import Block, ElementBlock, ScaledBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element
from numerics.formats.rounding import RANDOM_BITS

DRAWN = 1 << 13  # numbers of a kind that are tried with draws: all values and middles of 8 bits
STEPS_OF_DRAWS = 64
BELOW = 3  # binades of fractions that are less than a unit of the random bits
GREATEST = (1 << RANDOM_BITS) - 1
THIRD = (1 << 32) // 3


@lru_cache(maxsize=64)
def elements(dtype: Element) -> tuple[Float32, Bits]:
    """Numbers and random bits for stochastic rounding: each number just below and at its threshold.

    Where there is no threshold, since the number is exact or too large, with the least and the greatest
    bits; these and what lies beside a threshold also in turn.

    >>> from numerics.formats import fp4
    >>> x, random = elements(fp4)
    >>> x.shape == random.shape, int(random.max()) < 1 << 30
    (True, True)
    """
    telling = np.concatenate([SPECIALS, SPECIALS | SIGN]).view(np.float32)
    held = _magnitudes(dtype)
    simple, others = _simple(held.astype(np.float64)), (turning_points(dtype), probes(dtype))
    x = np.concatenate([telling, simple, *map(_thinned, others)])
    threshold = thresholds_of_draws(np.where(np.isfinite(x), np.abs(x), 0).astype(np.float64), held)
    turns = np.stack([np.zeros_like(threshold), threshold + 1, np.full_like(threshold, GREATEST)])
    turning = np.take_along_axis(turns, (np.arange(len(x)) % len(turns))[None], axis=0)[0]
    random = np.clip(np.stack([threshold - 1, threshold, turning]), 0, GREATEST).astype(np.uint32)
    return np.tile(x, len(random)), random.reshape(-1)


@lru_cache(maxsize=64)
def _magnitudes(dtype: Element) -> NDArray[np.float64]:
    """Those of the values, rising, and the first one past the largest."""
    return np.unique(np.append(np.abs(values(dtype)), beyond(dtype)))


def _simple(held: NDArray[np.float64]) -> Float32:
    """Numbers past 1, or the value next below it, by simple fractions of a step: these tell rules apart.

    And past the least value, 0, where a float32 tells fractions that are less than all random bits.
    """
    one = min(max(int(np.searchsorted(held, 1.0, "right")) - 1, 0), len(held) - 2)
    powers = 2.0 ** -np.arange(1, RANDOM_BITS + 1 + BELOW)
    fractions = np.concatenate([powers, 1 - powers, 1.5 * powers, 1 - 1.5 * powers])
    return np.concatenate([_past(held, at, fractions) for at in dict.fromkeys((one, 0))])


def _past(held: NDArray[np.float64], at: int, fractions: NDArray[np.float64]) -> Float32:
    """What lies between a value and the next one, by fractions of the step between them."""
    x = np.unique((held[at] + fractions * (held[at + 1] - held[at])).astype(np.float32))
    return np.asarray(x[(x > held[at]) & (x < held[at + 1])])


def _thinned(x: Float32) -> Float32:
    """Some of the numbers, from end to end, no more than are tried; all where they are few."""
    return x[:: -(-len(x) // DRAWN)]


def thresholds_of_draws(magnitude: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.int64]:
    """The least random bits that round a magnitude up; held: the magnitudes of the grid, rising.

    >>> thresholds_of_draws(np.array([1.0, 1.25, 1.5]), np.array([0.0, 1.0, 2.0])).tolist()
    [1073741824, 805306368, 536870912]
    """
    place = np.clip(np.searchsorted(held, magnitude, "right"), 1, len(held) - 1)
    low, high = held[place - 1], held[place]
    fraction = np.clip((magnitude - low) / (high - low), 0, 1)
    return np.ceil((1 - fraction) * (1 << RANDOM_BITS)).astype(np.int64)


def beside(thresholds: Array, rng: np.random.Generator) -> Bits:
    """Random bits for an array's numbers: at the threshold of each, just below it, or any, in places drawn.

    >>> beside(np.array([1 << 28, 1 << 29]), np.random.default_rng(0)).shape
    (2,)
    """
    drawn = rng.integers(0, 1 << 32, thresholds.shape, np.uint32)
    below = drawn < THIRD
    turning = np.minimum(np.maximum(thresholds.astype(np.int32) - below, 0), GREATEST).view(np.uint32)
    return np.where(drawn < 2 * THIRD, turning, drawn & GREATEST)


def thresholds(dtype: Element, x: Float32) -> NDArray[np.int64]:
    """The least random bits that round each number away from zero; 2**30 where none do.

    >>> from numerics.formats import fp4
    >>> thresholds(fp4, np.float32([1.25, 1.0])).tolist()
    [536870912, 1073741824]
    """
    finite = np.where(np.isfinite(x), np.abs(x), 0).astype(np.float64)
    return thresholds_of_draws(finite, _magnitudes(dtype))


def turning(task: Task, x: Array) -> Array | None:
    """What every draw makes of each number: a threshold, what is due to draws below it, and from it on.

    None of rules and formats whose answers to the least and the greatest draw are not these.

    >>> from numerics.formats import fp4
    >>> task = Task.of(fp4, rounding="stochastic")
    >>> turning(task, np.float32([1.25, 1.0])).tolist()
    [(536870912, 2, 3), (1073741824, 2, 2)]
    """
    if task.drawing.rule == "c" or isinstance(task.element, Codebook):
        return None
    given = replace(task, drawing=GIVEN)

    def due(draws: Array) -> Array:
        return np.asarray(given.answer(x, np.broadcast_to(draws, x.shape).astype(np.uint32)))

    found = thresholds(task.element, x)
    below, above = due(np.clip(found - 1, 0, GREATEST)), due(np.minimum(found, GREATEST))
    least, most = due(np.array(0)), due(np.array(GREATEST))
    if (task.differs(below, least) | task.differs(above, most)).any():
        return None
    kept = np.empty(x.shape, [("threshold", np.int32), ("below", below.dtype), ("above", above.dtype)])
    kept["threshold"], kept["below"], kept["above"] = found, below, above
    return kept


def of_blocks(task: Task, rows: Float32, fields: Fields) -> Bits:
    """Random bits for rows of blocks: of each element at its threshold and beside it, least and greatest.

    fields: the rows' exact blocks, whose shared fields do not depend on draws.
    """
    d = task.block
    exact = not isinstance(d, ScaledBlock)
    y = np.abs(quotients(rows, steps(task, fields.scale, fields.microexponents), exact))
    held = grid(d)
    threshold = thresholds_of_draws(np.nan_to_num(y.astype(np.float64), nan=0.0, posinf=0.0), held)
    turns = [
        threshold - 1,
        threshold,
        threshold + 1,
        np.zeros_like(threshold),
        np.full_like(threshold, GREATEST),
    ]
    turn = np.random.default_rng(5).choice(len(turns), rows.shape, p=[0.35, 0.35, 0.1, 0.1, 0.1])
    return np.clip(np.choose(turn, turns), 0, GREATEST).astype(np.uint32)


def grid(dtype: Block) -> NDArray[np.float64]:
    """The magnitudes of a block's elements in units of its step, and the one past them."""
    if isinstance(dtype, ElementBlock):
        return _magnitudes(dtype.element) * dtype.element_unit
    return np.arange(float((1 << (dtype.element_bits - 1)) + 1))


@lru_cache(maxsize=64)
def even_draws(dtype: Element) -> tuple[Float32, Bits]:
    """Numbers between neighbouring values, each with evenly spaced draws: their mean is the number.

    >>> from numerics.formats import fp4
    >>> x, random = even_draws(fp4)
    >>> len(x) // len(set(x.tolist()))
    64
    """
    held = values(dtype)
    places = np.unique(np.linspace(0, len(held) - 2, 8).astype(np.int64))
    low, width = held[places], np.diff(held)[places]
    between = low[:, None] + width[:, None] * np.array([1, 5, 8, 15]) / 16
    x = np.unique(between.astype(np.float32))
    random = (np.arange(STEPS_OF_DRAWS) << (RANDOM_BITS - 6)).astype(np.uint32)
    return np.repeat(x, len(random)), np.tile(random, len(x))
