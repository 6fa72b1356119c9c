"""Arrays that begin on a cache line: what large outputs are written to fastest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LINE = 64  # bytes
PAGE = 4096  # bytes: a load that meets a store at the same place of another page waits for it
LARGE = 1 << 20  # bytes from which on it matters


def empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """numpy.empty on a cache line, for `out=`: kernels then write past the caches, a third faster.

    >>> empty((2, 3)).shape, empty(1 << 20).ctypes.data % 64
    ((2, 3), 0)
    """
    kind = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    size = math.prod(sizes) * kind.itemsize
    if size < LARGE:
        return np.empty(sizes, kind)
    room = np.empty(size + PAGE, np.uint8)
    first = (PAGE // 2 - room.ctypes.data) % PAGE  # other arrays of this size begin near a page's start
    return room[first : first + size].view(kind).reshape(sizes)
