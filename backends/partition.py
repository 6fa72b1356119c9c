"""A tensor as rows of blocks along one axis, and back: moving, padding, cutting; no arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError, integer, said

Array = NDArray[Any]
AXES = 64  # NumPy's
ELEMENTS = 1 << 59  # of 8 bytes they are as many as an address reaches


def check_axis(axis: Any, shape: tuple[int, ...]) -> int:
    """The axis counted from the front; raises NumericsError where the shape has no such axis."""
    rank = len(shape)
    if type(axis) is int and -rank <= axis < rank:
        return axis % rank
    try:
        found = integer("axis", axis)
    except NumericsError:
        found = rank
    if not -rank <= found < rank:
        allowed = f"{-rank} .. {rank - 1}" if rank else "none: a single number has no axis to block"
        raise NumericsError(f"axis {said(axis)} does not exist in shape {tuple(shape)}; allowed: {allowed}")
    return found % rank


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape from an integer or a sequence of them; raises NumericsError for one that no array has."""
    try:
        came = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else (shape,)
        sizes = tuple(integer("a size", size) for size in came)
    except Exception:  # whatever what came raises: it is no shape
        raise NumericsError(f"{said(shape)} is not a shape: it has integers of 0 and more") from None
    if min(sizes, default=0) < 0:
        raise NumericsError(f"{said(shape)} is not a shape: it has integers of 0 and more")
    if not fits_array(sizes):
        raise NumericsError(
            f"{said(shape)} is not a shape that an array has: "
            f"{AXES} axes and 2**{ELEMENTS.bit_length() - 1} elements are the most"
        )
    return sizes


def fits_array(sizes: Sequence[int]) -> bool:
    """Can NumPy have an array of that shape, whatever its type?  Axes of 0 count as 1, as they do there."""
    return len(sizes) <= AXES and math.prod(size or 1 for size in sizes) <= ELEMENTS


@dataclass(frozen=True)
class Blocking:
    """Blocks of `size` along `axis` of `shape`; the last one of each line may be short."""

    shape: tuple[int, ...]
    axis: int
    size: int

    @property
    def length(self) -> int:
        """Elements along the blocked axis."""
        return self.shape[self.axis]

    @property
    def lines(self) -> tuple[int, ...]:
        """The other axes."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    @property
    def per_line(self) -> int:
        """Blocks along the axis."""
        return -(-self.length // self.size)

    @property
    def count(self) -> int:
        """Blocks in all."""
        return math.prod(self.lines) * self.per_line

    @property
    def whole(self) -> bool:
        """Are the blocks simply the memory, cut evenly?"""
        return self.axis == len(self.shape) - 1 and self.length % self.size == 0

    def rows(self, x: Array) -> Array:
        """x as [count, size]; short last blocks filled with zeros."""
        if self.whole:
            return x.reshape(-1, self.size)
        moved = np.moveaxis(x, self.axis, -1)
        rows = np.zeros((*self.lines, self.per_line * self.size), x.dtype)
        rows[..., : self.length] = moved
        return rows.reshape(-1, self.size)

    def elements(self, rows: Array) -> Array:
        """[count, size] back to the shape, the filling cut off."""
        if self.whole:
            return rows.reshape(self.shape)
        lines = rows.reshape(*self.lines, self.per_line * self.size)[..., : self.length]
        return np.ascontiguousarray(np.moveaxis(lines, -1, self.axis))

    def shared(self, fields: Array) -> Array:
        """[count] as the shape with `per_line` entries along the axis."""
        return np.ascontiguousarray(np.moveaxis(fields.reshape(*self.lines, self.per_line), -1, self.axis))

    @property
    def shared_shape(self) -> tuple[int, ...]:
        """The shape of what blocks share."""
        return (*self.shape[: self.axis], self.per_line, *self.shape[self.axis + 1 :])

    def shared_rows(self, fields: Array, name: str) -> Array:
        """Returns scales, one a block, as rows; raises NumericsError for another shape."""
        expected = self.shared_shape
        if fields.shape != expected:
            raise NumericsError(f"{name} has shape {fields.shape}; codes of {self.shape} need {expected}")
        return np.ascontiguousarray(np.moveaxis(fields, self.axis, -1)).reshape(-1)
