"""The primitives of the shared arithmetic on NumPy arrays of int32 and float32."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

minimum, maximum = np.minimum, np.maximum
divide = np.divide


def _word(value: Any) -> Any:
    return np.int32(value) if isinstance(value, int) else value


def where(condition: Any, yes: Any, no: Any) -> Any:
    """np.where that keeps Python integers 32 bits wide."""
    return np.where(condition, _word(yes), _word(no))


def as_bits(x: Any) -> Any:
    """Returns the same memory as int32."""
    return np.asarray(x, np.float32).view(np.int32)


def as_float(bits: Any) -> Any:
    """Returns the same memory as float32."""
    return np.asarray(bits, np.int32).view(np.float32)


@lru_cache(maxsize=1024)
def _array(table: tuple[int, ...]) -> NDArray[np.int32]:
    return np.array(table, np.int32)


def entry(table: Any, index: Any) -> Any:
    """Indexing."""
    return _array(table)[index]


def places_up_to(steps: Any, key: Any) -> Any:
    """A binary search."""
    return np.searchsorted(_array(steps), key, "right").astype(np.int32)


def max_of_block(x: Any) -> Any:
    """Blocks are rows [n, k], or rows of sub-blocks [n, k / s, s]."""
    return x.max(axis=tuple(range(1, x.ndim)), keepdims=True)


def max_of_group(x: Any) -> Any:
    """Sub-blocks are the last axis."""
    return x.max(axis=-1, keepdims=True)


def max_of_pair(x: Any) -> Any:
    """Of pairs of sub-blocks, [n, k / 2s, 2, s], the last two axes."""
    return x.max(axis=(-2, -1), keepdims=True)


def sum_of_block(x: Any) -> Any:
    """Blocks are rows [n, k]; halves of a power of two are added until one number is left."""
    half = 1 << (x.shape[1] - 1).bit_length()
    if half > x.shape[1]:
        x = np.pad(x, ((0, 0), (0, half - x.shape[1])))
    while half := half // 2:
        x = x[:, :half] + x[:, half:]
    return x
