"""Arrays that begin on a cache line: what large outputs are written to fastest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numerics.backends.partition import as_shape
from numerics.formats.errors import NumericsError, said

LINE = 64  # bytes
PAGE = 4096  # bytes: a load that meets a store at the same place of another page waits for it
LARGE = 1 << 20  # bytes from which on it matters


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


def on_a_line(shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """The same on a cache line, however small: for what a kernel reads again and again.

    >>> on_a_line((3, 5)).ctypes.data % 64
    0
    """
    return _at(0, LINE, shape, np.dtype(dtype))


def _at(place: int, size: int, shape: int | tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """An array that begins at that place in a line or page of so many bytes."""
    count = (shape if isinstance(shape, int) else math.prod(shape)) * kind.itemsize
    room = np.empty(count + size, np.uint8)
    first = (place - room.ctypes.data) % size
    return room[first : first + count].view(kind).reshape(shape)
