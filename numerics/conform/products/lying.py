"""How the arrays of a product lie in memory: rows with gaps behind them, numbers with gaps, turned ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numerics.conform.inputs.margins import roomy
from numerics.conform.products.problem import Problem
from numerics.conform.task import Array

POISON = np.nan
"""What lies between the rows and the numbers of an operand, which must not be read."""
PAST = 3  # numbers behind each row, or column, of an operand


def _gaps(x: Array) -> Array:
    """Gaps behind the rows and between the numbers."""
    found = _room(x, (*x.shape[:-1], 2 * x.shape[-1] + PAST))
    return found[..., 1 : 2 * x.shape[-1] + 1 : 2]


def _rows(x: Array) -> Array:
    """Rows are dense, and followed by a gap: the leading dimension is longer than they are."""
    return _room(x, (*x.shape[:-1], x.shape[-1] + PAST))[..., : x.shape[-1]]


def _columns(x: Array) -> Array:
    """The same of the columns: a matrix lies turned."""
    return np.swapaxes(_rows(np.swapaxes(x, -1, -2)), -1, -2) if x.ndim > 1 else _gaps(x)


def _batches(x: Array) -> Array:
    """A gap behind each matrix: its stride is longer than its rows."""
    return _room(x, (*x.shape[:-2], x.shape[-2] + 1, x.shape[-1]))[..., : x.shape[-2], :]


def _between(x: Array) -> Array:
    """Rows of one number of all batches stand together, as heads of attention do."""
    return np.moveaxis(_rows(np.moveaxis(x, -2, 0)), 0, -2)


LIES: dict[str, Callable[[Array], Array]] = {"gaps": _gaps, "rows": _rows, "columns": _columns,
                                                "batches": _batches, "between": _between}  # fmt: skip
"""Views of a shape in memory of their own, in which numbers lie so."""
ALONE = {"batches": "rows", "between": "rows"}
"""How a matrix, or a bias, lies that is beside batches and has none."""
EXPANDED = "expanded"
"""How operands lie along whose axes all numbers are the same."""
SAID = {
    "gaps": "with gaps behind its rows and between its numbers",
    "rows": "with a gap behind each row",
    "columns": "whose columns are dense, with a gap behind each",
    "batches": "with a gap behind each matrix",
    "between": "whose batches lie between their rows",
    "expanded": "with strides of 0 where all rows, columns or batches are the same",
}
"""What a verdict says of them."""


def ways(problem: Problem) -> tuple[str, ...]:
    """How the arrays of a problem may lie: those of a single matrix have no batches."""
    return tuple(LIES) if problem.batch else ("gaps", "rows", "columns")


def as_lies(x: Array, how: str) -> Array:
    """An array of the same shape and type in memory that must not be touched between its numbers."""
    return LIES[how if x.ndim > 2 else ALONE.get(how, how)](x)


def expanded(x: Array) -> Array:
    """The same numbers with strides of 0 along all axes of which they do not depend, as expand makes them.

    >>> expanded(np.float32([[1, 2], [1, 2]])).strides, expanded(np.float32([[1, 2], [3, 4]])).strides
    ((0, 4), (8, 4))
    """
    steps = [slice(1) if _is_alike(x, axis) else slice(None) for axis in range(x.ndim)]
    few = x[tuple(steps)]
    room = roomy(few.size, x.dtype).reshape(few.shape)
    room[...] = few
    strides = [0 if n != x.shape[at] else room.strides[at] for at, n in enumerate(few.shape)]
    return np.lib.stride_tricks.as_strided(room, x.shape, strides)


def _is_alike(x: Array, axis: int) -> bool:
    """Are all slices along an axis the same bytes?"""
    first = np.ascontiguousarray(np.broadcast_to(x.take([0], axis), x.shape))
    return x.shape[axis] > 1 and first.tobytes() == np.ascontiguousarray(x).tobytes()


def lying(x: Array, how: str) -> Array:
    """The same matrix, or bias, in memory that must not be read between its numbers.

    >>> x = np.float32([[1, 2], [3, 4], [5, 6]])
    >>> [lying(x, how).strides for how in ("gaps", "rows", "columns")]
    [(28, 8), (20, 4), (4, 24)]
    """
    if how == EXPANDED:
        return expanded(x)
    found = as_lies(x, how)
    found[...] = x
    return found


def _room(x: Array, shape: tuple[int, ...]) -> Array:
    """Memory of a shape full of poison."""
    room = roomy(int(np.prod(shape)), x.dtype).reshape(shape)
    room[...] = POISON if x.dtype.kind == "f" or x.dtype.name == "bfloat16" else 0x55
    return room
