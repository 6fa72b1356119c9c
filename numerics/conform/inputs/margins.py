"""Memory about the arrays that a target is given: what it writes beside them, or into their gaps, shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numerics.conform.task import Array

LINE = 64  # bytes of a cache line
UNUSED = 0xA5  # each byte of memory that is no array's


def roomy(count: int, kind: Any, past: int = 0, unit: int = LINE) -> Array:
    """So many numbers of a type, with unused memory before and behind them.

    past: bytes after the start of a cache line, or of another unit of bytes.

    >>> found = roomy(3, np.float32)
    >>> found[:] = 7
    >>> memory = memory_of(found)
    >>> len(memory), int(memory[0]) == int(memory[-1]) == UNUSED
    (268, True)
    """
    kind = np.dtype(kind)
    size = count * kind.itemsize
    memory = np.empty(size + 3 * LINE + unit, np.uint8)
    start = LINE + (past - LINE - memory.ctypes.data) % unit
    memory[:start] = UNUSED
    memory[start + size :] = UNUSED
    found: Array = memory[start : start + size].view(kind)
    return found


def spaced(count: int, kind: Any) -> Array:
    """The same, with what is unused within, too: room for numbers with gaps between them."""
    found = roomy(count, kind)
    found.view(np.uint8)[:] = UNUSED
    return found


def memory_of(x: Array) -> Array | None:
    """All memory that was made for an array, as bytes; None where it is not known."""
    root: Any = x
    while (base := getattr(root, "base", None)) is not None:
        root = base
    known = isinstance(root, np.ndarray) and root.dtype == np.uint8 and root.ndim == 1
    return root if known else None


def unused_about(x: Array) -> Callable[[], bytes]:
    """Reads what lies before and behind an array, and in its gaps."""
    memory = memory_of(x)
    if memory is None:
        return bytes
    start = x.ctypes.data - memory.ctypes.data
    if not x.flags.c_contiguous:
        own = np.zeros(len(memory), np.bool_)
        np.ndarray((*x.shape, x.itemsize), np.bool_, own, start, (*x.strides, 1))[...] = True
        beside = np.flatnonzero(~own)
        return lambda: memory[beside].tobytes()
    return lambda: memory[:start].tobytes() + memory[start + x.nbytes :].tobytes()
