"""Blocks between two readings or scales whose errors are all but equal: where the order of a sum decides."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.reference import lookup
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.task import Float32
from numerics.formats.block import Block, ScaledBlock
from numerics.formats.rounding import FOUR_OVER_SIX, BlockOptions, Draw

Words = NDArray[np.uint8]
Places = NDArray[Any]
TRIED, MOST = 512, 96  # blocks that are looked through, and those of them that are kept
NUMBERS = 1 << 18  # of them all: of long blocks fewer are looked through
BESIDE = range(-3, 4)  # units of the last place beside a threshold


@lru_cache(maxsize=64)
def close_calls(
    dtype: Block, rule: str, tensor_scale: float | None = None, inputs: str = "float32"
) -> Float32:
    """float32 blocks [n, block] of which one number more or less, by its last bit, makes another choice.

    None of a format and a rule that sum no errors.  inputs: the type whose numbers they are.

    >>> from numerics.formats import mxfp4, nvfp4
    >>> close_calls(mxfp4, "floor").shape, len(close_calls(nvfp4, "four_over_six", 1.0)) > 300
    ((0, 32), True)
    """
    sums = isinstance(dtype, ScaledBlock) and (rule in ("mse", *FOUR_OVER_SIX) or dtype.integers is not None)
    if not sums or dtype.block < 2:
        return np.zeros((0, dtype.block), np.float32)

    def choices(rows: Float32) -> Words:
        options = BlockOptions(rule, "half_even", tensor_scale, Draw())
        return np.asarray(lookup.encode_blocks(narrowed(rows, inputs), dtype, options).scale)

    found = _thresholds(dtype, choices, float(tensor_scale or 1.0))
    found = np.unique(narrowed(found, inputs), axis=0)
    found.flags.writeable = False
    return found


def _thresholds(dtype: Block, choices: Callable[[Float32], Words], unit: float) -> Float32:
    """Pairs of blocks of which the choices differ, brought together: one number of the two, then its bits."""
    rows = _pairs(dtype, unit)
    firsts, seconds = rows[choices(rows[:, 0]) != choices(rows[:, 1])][:MOST].swapaxes(0, 1)
    if not len(firsts):
        return np.zeros((0, dtype.block), np.float32)
    first, each = choices(firsts), np.arange(len(firsts))

    def turn(at: Callable[[Places], Float32], low: Places, high: Places) -> Places:
        """The last of the steps from low to high before which the choice is that of the first."""
        while (high - low > 1).any():
            middle = (low + high) // 2
            same = choices(at(middle)) == first
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return low

    def mixed(count: Places) -> Float32:
        found: Float32 = np.where(np.arange(dtype.block) < count[:, None], seconds, firsts)
        return found

    place = turn(mixed, np.zeros_like(each), np.full_like(each, dtype.block))
    before, after = (_ordered(part[each, place]) for part in (firsts, seconds))
    way = np.sign(after - before)

    def moved(steps: Places) -> Float32:
        found = mixed(place)
        found[each, place] = _float32(before + way * steps)
        return found

    last = turn(moved, np.zeros_like(each), np.abs(after - before))
    return np.concatenate([moved(last + step) for step in BESIDE])


def _pairs(dtype: Block, unit: float) -> Float32:
    """Two blocks [n, 2, block] with the same maximum: numbers evenly spread, and mostly small ones."""
    rng = np.random.default_rng(44)
    count = max(16, min(TRIED, NUMBERS // dtype.block))
    tops = np.exp2(rng.uniform(-3, 7, (count, 1, 1))) * unit
    rows = rng.uniform(-1, 1, (count, 2, dtype.block)) ** np.array([[1], [5]]) * tops
    rows[:, :, :1] = tops
    return np.asarray(rows, np.float32)


def _ordered(x: Float32) -> Places:
    """float32 numbers counted in their order: neighbours are 1 apart."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _float32(places: Places) -> Float32:
    """The numbers at these places of the order."""
    signs = np.where(places < 0, 1 << 31, 0)
    return np.asarray((np.abs(places) | signs).astype(np.uint32).view(np.float32))
