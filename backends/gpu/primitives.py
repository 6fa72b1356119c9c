"""The primitives of the shared arithmetic in Triton's language, bound like it (build.py)."""

from __future__ import annotations

from typing import Any

import triton.language as tl


def where(condition: Any, yes: Any, no: Any) -> Any:
    """Elementwise choice."""
    return tl.where(condition, yes, no)


def minimum(a: Any, b: Any) -> Any:
    """Returns the smaller of two integers."""
    return tl.minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """Returns the larger of two integers."""
    return tl.maximum(a, b)


def as_bits(x: Any) -> Any:
    """Returns the same register as int32."""
    return tl.cast(x, tl.int32, bitcast=True)


def as_float(bits: Any) -> Any:
    """Returns the same register as float32."""
    return tl.cast(bits, tl.float32, bitcast=True)


def divide(a: Any, b: Any) -> Any:
    """Correctly rounded: Triton's own operator is only nearly so."""
    return tl.div_rn(a, b)


def entry(table: Any, index: Any) -> Any:
    """A look-up in memory (tables.py); what kernels pass in blocks stays near by."""
    return tl.load(table.pointer + (index + table.start), eviction_policy="evict_last")


def places_up_to(steps: Any, key: Any) -> Any:
    """The run of the key (tables.Runs) says it, or where a search of the steps in the run begins."""
    run = run_of_key(steps, key)
    if steps.runs.depth == 1:
        place = beside_step(steps, run, key)
    else:
        place = tl.load(steps.pointer + run, eviction_policy="evict_last")
        depth: tl.constexpr = steps.runs.depth
        for level in tl.static_range(1, depth + 1):
            half = 1 << (depth - level)
            place = place + tl.where(key >= entry(steps, place + (half - 1)), half, 0)
        place = tl.minimum(place, steps.size)
    return place


def code_of_key(steps: Any, codes: Any, key: Any, a: Any, b: Any) -> Any:
    """One look-up and one comparison where the key's run has one step; else its place is looked up."""
    if steps.runs.depth == 1:
        code = beside_step(steps, run_of_key(steps, key), key)
    else:
        code = entry(codes, places_up_to(steps, key))
    return code


def run_of_key(steps: Any, key: Any) -> Any:
    """The number of the run of a key: its magnitude's, and behind them those of negative numbers."""
    magnitude = key ^ (key >> 31)
    run = tl.minimum(tl.maximum((magnitude >> steps.runs.shift) - steps.runs.first, 0), steps.runs.last)
    return tl.where(key < 0, run + (steps.runs.last + 1), run)


def beside_step(steps: Any, run: Any, key: Any) -> Any:
    """What a run says of a key: its two words are read as one of 64 bits."""
    words = steps.pointer.to(tl.pointer_type(tl.int64), bitcast=True)
    word = tl.load(words + run, eviction_policy="evict_last")
    sides = (word >> 32).to(tl.int32)
    return tl.where(key >= word.to(tl.int32), sides >> 16, sides & 0xFFFF)


def max_of_group(x: Any) -> Any:
    """Sub-blocks are the last axis of a tile."""
    return tl.max(x, len(x.shape) - 1, keep_dims=True)


def max_of_block(x: Any) -> Any:
    """Blocks are rows [n, k] of a tile, or rows of sub-blocks [n, k / s, s], or of pairs of them."""
    if len(x.shape) == 4:
        x = tl.max(x, 3, keep_dims=True)
    if len(x.shape) > 2:
        x = tl.max(x, 2, keep_dims=True)
    return tl.max(x, 1, keep_dims=True)


def max_of_pair(x: Any) -> Any:
    """Of pairs of sub-blocks the last two axes of a tile."""
    return tl.max(tl.max(x, len(x.shape) - 1, keep_dims=True), len(x.shape) - 2, keep_dims=True)


def sum_of_block(x: Any) -> Any:
    """Blocks are rows [n, k] of a tile, k a power of two: each step adds two numbers, in one order."""
    for _ in tl.static_range(0, 20):  # the longest block is of 2**20
        if x.shape[1] > 1:
            x = tl.reshape(
                tl.sum(tl.reshape(x, [x.shape[0], 2, x.shape[1] // 2]), 1), [x.shape[0], x.shape[1] // 2]
            )
    return x
