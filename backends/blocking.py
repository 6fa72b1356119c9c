"""A tensor as rows of blocks along one axis, and back: moving, padding, cutting; no arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError

Array = NDArray[Any]


def check_axis(axis: Any, shape: tuple[int, ...]) -> int:
    """The axis counted from the front; raises NumericsError where the shape has no such axis."""
    rank = len(shape)
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool) or not -rank <= axis < rank:
        allowed = f"{-rank} .. {rank - 1}" if rank else "none: a single number has no axis to block"
        raise NumericsError(f"axis {axis!r} does not exist in shape {shape}; allowed: {allowed}")
    return int(axis) % rank


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
        """The inverse of `shared`; raises NumericsError for another shape."""
        expected = self.shared_shape
        if fields.shape != expected:
            raise NumericsError(f"{name} has shape {fields.shape}; codes of {self.shape} need {expected}")
        return np.ascontiguousarray(np.moveaxis(fields, self.axis, -1)).reshape(-1)
