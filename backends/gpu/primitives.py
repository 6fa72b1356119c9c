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


def entry(table: tl.constexpr, index: Any) -> Any:
    """A choice among the numbers of a table, which are compiled in."""
    found = index & 0
    for k in tl.static_range(0, len(table)):
        found = tl.where(index == k, (index & 0) + table[k], found)
    return found


def places_up_to(steps: tl.constexpr, key: Any) -> Any:
    """A sum of comparisons with numbers that are compiled in."""
    found = key & 0
    for k in tl.static_range(0, len(steps)):
        found += (key >= steps[k]).to(tl.int32)
    return found


def code_of_key(steps: tl.constexpr, codes: tl.constexpr, key: Any) -> Any:
    """The code of the last step that is at or below a key: one comparison and choice a step."""
    found = (key & 0) + codes[0]
    for k in tl.static_range(0, len(steps)):
        found = tl.where(key >= steps[k], (key & 0) + codes[k + 1], found)
    return found


def max_of_group(x: Any) -> Any:
    """Sub-blocks are the last axis of a tile."""
    return tl.max(x, len(x.shape) - 1, keep_dims=True)


def max_of_block(x: Any) -> Any:
    """Blocks are rows [n, k] of a tile, or rows of sub-blocks [n, k / s, s]."""
    if len(x.shape) == 3:
        x = tl.max(x, 2, keep_dims=True)
    return tl.max(x, 1, keep_dims=True)


def sum_of_block(x: Any) -> Any:
    """Blocks are rows [n, k] of a tile, k a power of two: each step adds two numbers, in one order."""
    for _ in tl.static_range(0, 20):  # the longest block is of 2**20
        if x.shape[1] > 1:
            x = tl.reshape(
                tl.sum(tl.reshape(x, [x.shape[0], 2, x.shape[1] // 2]), 1), [x.shape[0], x.shape[1] // 2]
            )
    return x
