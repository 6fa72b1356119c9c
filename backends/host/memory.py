"""Arrays that begin on a cache line: what large outputs are written to fastest."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numerics.backends.partition import as_shape
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, said

LINE = 64  # bytes
PAGE = 4096  # bytes: a load that meets a store at the same place of another page waits for it
LARGE = 1 << 20  # bytes from which on it matters
ADVISED = 1 << 22  # bytes from which on NumPy asks for large pages
OTHERS = 16  # rooms of another size than the one asked for that are kept


@keywords
def empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """numpy.empty on a cache line, for `out=`: kernels then write past the caches, a third faster.

    Raises NumericsError for what is no shape, for a type that is not of numbers, and where memory ends.

    >>> empty((2, 3)).shape, empty(1 << 20).ctypes.data % 64
    ((2, 3), 0)
    """
    if not isinstance(dtype, (str, type, np.dtype)):  # NumPy would look into anything else
        raise NumericsError(f"{said(dtype)} is not a type of numbers")
    try:
        kind = np.dtype(dtype)
    except Exception as wrong:  # whatever what came raises: it is no type
        raise NumericsError(f"{said(dtype)} is not a type of numbers: {wrong}") from None
    if kind.hasobject or kind.names is not None or kind.kind in "SUMm" or not kind.itemsize:
        raise NumericsError(f"{said(dtype)} is not a type of numbers")
    sizes = as_shape(shape)
    try:
        return allocate(sizes, kind)
    except (MemoryError, ValueError):
        size = math.prod(sizes) * kind.itemsize
        raise NumericsError(f"there is no room for {size} bytes: {kind.name} of shape {sizes}") from None


def allocate(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """`empty` of a shape and a type that are known to be good."""
    kind = np.dtype(dtype)
    size = (shape if isinstance(shape, int) else math.prod(shape)) * kind.itemsize
    if size < LARGE:
        return np.empty(shape, kind)
    return _at(PAGE // 2, PAGE, shape, kind)  # other arrays of this size begin near a page's start


# ---- memory that is taken again ------------------------------------------------------------------


class _Lease:
    """Memory that some arrays have; the last of them gives it back."""

    def __init__(self, room: NDArray[np.uint8], size: int, free: list[NDArray[np.uint8]]) -> None:
        self._room, self._free = room, free
        self.__array_interface__ = {**room.__array_interface__, "shape": (size,)}

    def __del__(self) -> None:
        self._free.append(self._room)


_FREE: ContextVar[list[NDArray[np.uint8]] | None] = ContextVar("memory to take again", default=None)


@contextmanager
def taken_again() -> Iterator[None]:
    """Inside, large arrays lie where others lay that nobody has any more, on any thread of this context.

    The system's own memory comes in pages that are zeroed when they are touched first, which takes longer
    than to fill them.
    """
    before = _FREE.set([])
    try:
        yield
    finally:
        _FREE.reset(before)


def room_of(size: int) -> NDArray[np.uint8]:
    """That many bytes."""
    free = _FREE.get() if size >= LARGE else None
    if free is None:
        return np.empty(size, np.uint8)
    room = _fitting(free, size)
    return np.asarray(_Lease(np.empty(size, np.uint8) if room is None else room, size, free))


def _fitting(free: list[NDArray[np.uint8]], size: int) -> NDArray[np.uint8] | None:
    """What is free and as large, or up to twice; what is of quite another size goes back to the system.

    Of some that are twice as large, or half, as floats of 32 bits are beside those of 16, a few stay.
    """
    others: list[NDArray[np.uint8]] = []
    found = None
    with suppress(IndexError):  # other threads take, too
        while found is None:
            room = free.pop()
            if size <= room.size <= 2 * size:
                found = room
            elif max(size, room.size) <= 4 * min(size, room.size):
                others.append(room)
    free.extend(others[:OTHERS])
    return found


# ---- pages ---------------------------------------------------------------------------------------


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    """The system's madvise; None where there is none."""
    with suppress(AttributeError, OSError, TypeError):
        found = ctypes.CDLL(None).madvise
        found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
        return cast(Callable[[int, int, int], int], found)
    return None


def advise_large_pages(address: int, size: int) -> None:
    """Asks for large pages under so many bytes, as NumPy does for its own: a fifth of the time to touch them.

    What the system makes of it is its own; of fewer bytes than NumPy asks for it is not asked.
    """
    advise, large = _advise(), getattr(mmap, "MADV_HUGEPAGE", None)
    if size < ADVISED or advise is None or large is None:
        return
    first = -(-address // PAGE) * PAGE
    advise(first, (address + size - first) // PAGE * PAGE, large)


# ---- where arrays begin --------------------------------------------------------------------------


def on_a_line(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """The same on a cache line, however small: for what a kernel reads again and again.

    >>> on_a_line((3, 5)).ctypes.data % 64
    0
    """
    return _at(0, LINE, shape, np.dtype(dtype))


def _at(place: int, size: int, shape: int | tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """An array that begins at that place in a line or page of so many bytes."""
    count = (shape if isinstance(shape, int) else math.prod(shape)) * kind.itemsize
    room = room_of(count + size)
    first = (place - room.ctypes.data) % size
    return room[first : first + count].view(kind).reshape(shape)
