"""Who shares a block or a scale: a tensor as rows of them, and back; moving, padding, no arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError, integer, said

Array = NDArray[Any]
AXES = 64  # NumPy's
LONG = 1 << 10  # elements: shorter lines of columns are taken several at a time
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


def plain_shape(shape: Any) -> tuple[int, ...]:
    """A shape of plain integers, for what is remembered by shapes: 1.0, True and NumPy's 1 are found under 1.

    What torch.compile does not know yet, a size, stays.  Raises NumericsError as `as_shape` does.

    >>> import numpy as np
    >>> plain_shape((np.int64(2), 3)) == plain_shape((2, 3))
    True
    """
    if isinstance(shape, tuple) and all(type(size) is int or _is_unknown(size) for size in shape):
        return tuple(shape)
    return as_shape(shape)


def _is_unknown(size: Any) -> bool:
    return type(size).__name__ == "SymInt"


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

    @cached_property
    def lines(self) -> tuple[int, ...]:
        """The other axes."""
        return self.shape[: self.axis] + self.shape[self.axis + 1 :]

    @cached_property
    def per_line(self) -> int:
        """Blocks along the axis."""
        return -(-self.length // self.size)

    @property
    def count(self) -> int:
        """Blocks in all."""
        return math.prod(self.lines) * self.per_line

    @cached_property
    def last(self) -> bool:
        """Is the blocked axis the last one, so that what blocks share need not move?"""
        return self.axis == len(self.shape) - 1

    @cached_property
    def whole(self) -> bool:
        """Are the blocks simply the memory, cut evenly?"""
        return self.last and self.length % self.size == 0

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
        return self._moved_back(lines)

    def shared(self, fields: Array) -> Array:
        """[count] as the shape with `per_line` entries along the axis."""
        return self._moved_back(fields.reshape(*self.lines, self.per_line))

    def _moved_back(self, lines: Array) -> Array:
        """The blocked axis, which is the last one here, where it belongs."""
        return np.ascontiguousarray(lines if self.last else np.moveaxis(lines, -1, self.axis))

    @cached_property
    def shared_shape(self) -> tuple[int, ...]:
        """The shape of what blocks share."""
        return (*self.shape[: self.axis], self.per_line, *self.shape[self.axis + 1 :])

    def shared_rows(self, fields: Array, name: str) -> Array:
        """Returns scales, one a block, as rows; raises NumericsError for another shape."""
        expected = self.shared_shape
        if fields.shape != expected:
            raise NumericsError(f"{name} has shape {fields.shape}; codes of {self.shape} need {expected}")
        lines = fields if self.last else np.moveaxis(fields, self.axis, -1)
        return np.ascontiguousarray(lines).reshape(-1)


@lru_cache(maxsize=1024)
def _blocking(shape: tuple[int, ...], axis: int, size: int) -> Blocking:
    return Blocking(plain_shape(shape), axis, size)


def blocks_along(axis: Any, shape: tuple[int, ...], size: int) -> Blocking:
    """Blocks of `size` along an axis, made once for each shape; errors as of `check_axis`."""
    return _blocking(shape, check_axis(axis, shape), size)


@dataclass(frozen=True)
class Partition:
    """Which elements share a scale: all (axis None), each index of an axis, or groups along it.

    size: elements of a group; 0 where one group is all of a line that has none, and still has its scale.
    rows: along the axis before, how many neighbouring groups share one: 1, or more in two-dimensional blocks.
    """

    shape: tuple[int, ...]
    axis: int | None = None
    size: int | None = None
    rows: int = 1

    @cached_property
    def shared(self) -> tuple[int, ...]:
        """The shape of the scales."""
        if self.axis is None:
            return ()
        if self.size is None:
            return (self.shape[self.axis],)
        if self.size == 0:
            return (*self.shape[: self.axis], 1, *self.shape[self.axis + 1 :])
        lines = Blocking(self.shape, self.axis, self.group).shared_shape
        if self.rows == 1:
            return lines
        return (*lines[: self.axis - 1], -(-lines[self.axis - 1] // self.rows), *lines[self.axis :])

    @cached_property
    def groups(self) -> Partition:
        """The same with a scale for every group: of blocks each scale stands once a row (`each_row`)."""
        return self if self.rows == 1 else Partition(self.shape, self.axis, self.size)

    def each_row(self, field: Array) -> Array:
        """Scales of blocks, once a row: those of `groups`."""
        if self.rows == 1:
            return field
        assert self.axis is not None
        spread = np.repeat(field, self.rows, axis=self.axis - 1)
        return np.take(spread, np.arange(self.shape[self.axis - 1]), axis=self.axis - 1)

    def of_rows(self, field: Array, join: np.ufunc) -> Array:
        """One number of those of each row of a block: by a ufunc such as np.minimum."""
        if self.rows == 1 or field.size == 0:
            return field.reshape(self.shared)
        assert self.axis is not None
        starts = np.arange(0, self.shape[self.axis - 1], self.rows)
        return np.asarray(join.reduceat(field, starts, axis=self.axis - 1))

    @property
    def group(self) -> int:
        """Elements of a group, where there are groups that have some: no more than the axis has."""
        assert self.axis is not None
        assert self.size is not None
        return min(self.size, max(self.shape[self.axis], 1))

    def sharing(self, axis: int) -> int:
        """How many neighbours along that axis share a scale, where not all do; 1 where each has its own."""
        if self.size is None or self.axis is None:
            return 1
        return max(self.size, 1) if axis == self.axis else self.rows if axis == self.axis - 1 else 1

    @property
    def in_order(self) -> bool:
        """Do those that share a scale lie side by side in memory?"""
        if self.axis is None or self.size is None:
            return self.axis in (None, 0)
        if self.size == 0:
            return True
        return self.rows == 1 and Blocking(self.shape, self.axis, self.group).whole

    @cached_property
    def view(self) -> RowView:
        """The same as an executor takes it; of blocks that of their groups."""
        if self.rows > 1:
            return replace(self.groups.view, blocks=self)
        if self.axis is None:
            return RowView(self.shape, (1, math.prod(self.shape)), ())
        outer, length = math.prod(self.shape[: self.axis]), self.shape[self.axis]
        inner = math.prod(self.shape[self.axis + 1 :])
        if self.size is None:
            if inner == 1 and outer > 1:
                lines = math.gcd(outer, 1 << max(LONG // max(length, 1), 1).bit_length() - 1)
                return RowView(self.shape, (1, outer // lines, lines * length), self.shared, repeats=lines)
            return RowView(self.shape, (outer * length, inner), self.shared, repeats=max(outer, 1))
        if self.size == 0:
            return RowView(self.shape, (outer * inner, 0), self.shared)
        if length % self.group:
            blocks = Blocking(self.shape, self.axis, self.group)
            return RowView(self.shape, (blocks.count, self.group), self.shared, padded=blocks)
        groups = outer * (length // self.group)
        rows = (groups, self.group) if inner == 1 else (groups, self.group, inner)
        return RowView(self.shape, rows, self.shared)


@dataclass(frozen=True)
class RowView:
    """A tensor as executors take it: [rows, n], a scale a row; or [batches, rows, n], a scale a column.

    The memory is as it is, but where a short last group is padded.  repeats: how often the same
    scales come again, where channels are not the outermost axis.  blocks: where several rows share a scale.
    """

    whole: tuple[int, ...]
    shape: tuple[int, ...]
    shared: tuple[int, ...]
    repeats: int = 1
    padded: Blocking | None = None
    blocks: Partition | None = None

    def rows(self, x: Array) -> Array:
        """x as executors take it; a short last group is filled with zeros."""
        return x.reshape(self.shape) if self.padded is None else self.padded.rows(x)

    def elements(self, rows: Array) -> Array:
        """The inverse of rows."""
        return rows.reshape(self.whole) if self.padded is None else self.padded.elements(rows)

    def numbers(self, *fields: Array | None) -> list[Any]:
        """Scales and zero points, in the shape that they must have, as executors take them."""
        return [None if field is None else self._numbers(field) for field in fields]

    def _numbers(self, field: Array) -> Array:
        if self.blocks is not None:
            return replace(self, blocks=None)._numbers(self._each_row(self.blocks, field))
        if field.shape != self.shared:
            raise NumericsError(f"scale has shape {field.shape}; {self.whole} elements need {self.shared}")
        if self.padded is not None:
            return self.padded.shared_rows(field, "scale")
        numbers = field.reshape(-1) if self.repeats == 1 else np.tile(field, self.repeats)
        return numbers if len(self.shape) == 2 else numbers.reshape(self.shape[0], self.shape[2])

    def _each_row(self, blocks: Partition, field: Array) -> Array:
        if field.shape != blocks.shared:
            raise NumericsError(f"scale has shape {field.shape}; {self.whole} elements need {blocks.shared}")
        return blocks.each_row(field)

    def fields(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The inverse of numbers, of extremes: the least and the largest of those of one scale."""
        if self.blocks is not None:
            lines = replace(self, blocks=None).fields(low, high)
            return self.blocks.of_rows(lines[0], np.minimum), self.blocks.of_rows(lines[1], np.maximum)
        if self.padded is not None:
            return self.padded.shared(low), self.padded.shared(high)
        if self.repeats != 1:
            low = np.minimum.reduce(low.reshape(self.repeats, -1), axis=0)
            high = np.maximum.reduce(high.reshape(self.repeats, -1), axis=0)
        return low.reshape(self.shared), high.reshape(self.shared)
