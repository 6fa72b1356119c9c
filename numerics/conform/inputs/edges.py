"""Memory before or behind which nothing may be touched: whoever reads past the end of an input crashes there.

POSIX alone: Windows gives arrays like these without what guards them, so that nothing is asked of them.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numerics.conform.task import Array

PAGE = mmap.PAGESIZE


def at_ends(size: int) -> tuple[int, int]:
    """Bytes past the start of a page at which an array of so many bytes begins: with a page; to end with one.

    >>> at_ends(12) == (0, PAGE - 12)
    True
    """
    return 0, -size % PAGE


class Edge(NamedTuple):
    """Where the forbidden page lies: behind the last number, or before the first.

    guarded: False for the same place in memory with nothing forbidden.
    """

    behind: bool = True
    guarded: bool = True

    def __str__(self) -> str:
        return "behind it" if self.behind else "before it"

    def room(self, count: int, kind: Any) -> Array:
        """So many numbers of a type, beside the forbidden page.

        >>> Edge().room(3, np.float32).ctypes.data % PAGE == PAGE - 12
        True
        >>> Edge(behind=False).room(3, np.float32).ctypes.data % PAGE
        0
        """
        kind = np.dtype(kind)
        size = count * kind.itemsize
        pages = -(-size // PAGE) * PAGE
        memory = _memory(pages + PAGE)
        if self.guarded:
            _forbid(memory, pages if self.behind else 0)
        return np.ndarray(count, kind, buffer=memory, offset=pages - size if self.behind else PAGE)


EDGES = (Edge(), Edge(behind=False))


@lru_cache(maxsize=1)
def can_guard() -> bool:
    """Does this system forbid single pages?"""
    return sys.platform != "win32" and hasattr(ctypes.CDLL(None), "mprotect")


def _memory(size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _forbid(memory: mmap.mmap, start: int) -> None:
    """Makes a page one that ends the process which touches it."""
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    nothing = 0  # PROT_NONE
    if protect(np.frombuffer(memory, np.uint8).ctypes.data + start, PAGE, nothing):
        raise OSError(ctypes.get_errno(), "mprotect")
