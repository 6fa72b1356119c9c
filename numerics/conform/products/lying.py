"""How the arrays of a product lie in memory: turned, with gaps, or dense from some byte on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from numerics.conform.inputs.margins import roomy
from numerics.conform.task import Array

POISON = np.nan
"""What lies between the rows and the numbers of an operand, which must not be read."""
VECTOR = 4  # numbers; gaps of so many times that leave rows as they are aligned
PAST = 3  # numbers behind each row, or column, of an operand
PLACES = ("a", "b", "others", "out")
"""What lies in memory: both operands, the bias and c, the array of the result."""
OTHERS = PLACES.index("others")


class Lies(NamedTuple):
    """How each of `PLACES` lies: one of `SAID`, or "" where it is dense.

    starts: how many numbers past the start of a cache line each of them begins where it is dense.
    """

    how: tuple[str, ...] = ("",) * len(PLACES)
    starts: tuple[int, ...] = (0,) * len(PLACES)

    @classmethod
    def of(cls, **how: str) -> Lies:
        """Some of `PLACES` lie so, and the others are dense.

        >>> Lies.of(b="rows").how
        ('', 'rows', '', '')
        """
        return cls(tuple(how.get(name, "") for name in PLACES))

    @classmethod
    def alike(cls, how: str) -> Lies:
        """All that a target reads lies in one way."""
        return cls.of(a=how, b=how, others=how)

    def place(self, name: str) -> Place:
        """How one of `PLACES` lies."""
        at = PLACES.index(name)
        return Place(self.how[at], self.starts[at], GAPS[at])

    def said(self, others: str = "bias and c") -> str:
        """How all of them lie, in words; nothing where all are dense and begin at a cache line.

        others: what there is of a bias and c.
        """
        names = tuple(others if name == NAMED[OTHERS] else name for name in NAMED)
        *read, out = self.how
        if read[0] and len(set(read)) == 1:
            found = f", of operands {SAID[read[0]]}"
        else:
            named = zip(names, read, strict=False)
            found = "".join(f", of {name} {SAID[how]}" for name, how in named if how)
        found += f", in a result {SAID[out]}" if out else ""
        begun = [(name, start) for name, start in zip(names, self.starts, strict=True) if start]
        return found + "".join(f", {name} begins {numbers(start)} past {LINE}" for name, start in begun)

    def simpler(self) -> Iterator[Lies]:
        """The same with one of them dense, or at the start of a cache line, instead."""
        for at, how in enumerate(self.how):
            if how:
                yield self._replace(how=(*self.how[:at], "", *self.how[at + 1 :]))
        for at, start in enumerate(self.starts):
            if start:
                yield self._replace(starts=(*self.starts[:at], 0, *self.starts[at + 1 :]))


LINE = "the start of a cache line"


def numbers(count: int) -> str:
    """So many numbers, in words."""
    return "1 number" if count == 1 else f"{count} numbers"


DENSE = Lies()
"""Where all arrays are dense, from the start of a cache line on."""
NAMED = ("a", "b", "bias and c", "the result")
"""What a verdict calls them."""
GAPS = (PAST, PAST + 2, PAST, PAST + 1)
"""Numbers behind each row of each of them: the leading dimension of one is not that of another."""


class Place(NamedTuple):
    """How one array lies: one of `SAID` or "", numbers past a cache line, numbers in gaps behind its rows."""

    how: str = ""
    start: int = 0
    past: int = PAST

    def view(self, x: Array) -> Array:
        """An array of the same shape and type in memory that must not be touched between its numbers."""
        if not self.how:
            return self.room(x.size, x.dtype).reshape(x.shape)
        return LIES[self.how if x.ndim > 2 else ALONE.get(self.how, self.how)](x, self.past)

    def room(self, count: int, kind: Any) -> Array:
        """Memory for dense numbers of a type, beginning where they shall."""
        return roomy(count, kind, self.start * np.dtype(kind).itemsize)

    def lying(self, x: Array) -> Array:
        """The same numbers in such memory.

        >>> x = np.float32([[1, 2], [3, 4], [5, 6]])
        >>> [Place(how).lying(x).strides for how in ("gaps", "rows", "columns", "turned")]
        [(28, 8), (20, 4), (4, 24), (4, 12)]
        """
        if self.how == EXPANDED:
            return expanded(x)
        found = self.view(x)
        found[...] = x
        return found


def _gaps(x: Array, past: int) -> Array:
    """Gaps behind the rows and between the numbers."""
    found = _room(x, (*x.shape[:-1], 2 * x.shape[-1] + past))
    return found[..., 1 : 2 * x.shape[-1] + 1 : 2]


def _rows(x: Array, past: int) -> Array:
    """Rows are dense, and followed by a gap: the leading dimension is longer than they are."""
    return _room(x, (*x.shape[:-1], x.shape[-1] + past))[..., : x.shape[-1]]


def _columns(x: Array, past: int) -> Array:
    """The same of the columns: a matrix lies turned."""
    return np.swapaxes(_rows(np.swapaxes(x, -1, -2), past), -1, -2) if x.ndim > 1 else _gaps(x, past)


def _batches(x: Array, past: int) -> Array:
    """A gap behind each matrix: its stride is longer than its rows."""
    return _room(x, (*x.shape[:-2], x.shape[-2] + 1, x.shape[-1]))[..., : x.shape[-2], :]


def _between(x: Array, past: int) -> Array:
    """Rows of one number of all batches stand together, as heads of attention do."""
    return np.moveaxis(_rows(np.moveaxis(x, -2, 0), past), 0, -2)


def _turned(x: Array, past: int) -> Array:
    """Columns are dense, without gaps, as `.T` of a dense matrix has them, or `.mT` of many; so is a line."""
    return np.swapaxes(_room(x, np.swapaxes(x, -1, -2).shape), -1, -2) if x.ndim > 1 else _room(x, x.shape)


def _vectors(x: Array, past: int) -> Array:
    """Rows are followed by a gap of whole vectors: those that begin at one all do."""
    return _rows(x, past * VECTOR)


def _heads(x: Array, past: int) -> Array:
    """Rows of one number of the last axis of batches stand together, without gaps: `permute(1, 0, 2)`."""
    return np.swapaxes(_room(x, np.swapaxes(x, -2, -3).shape), -2, -3)


LIES: dict[str, Callable[[Array, int], Array]] = {
    "gaps": _gaps, "rows": _rows, "columns": _columns, "turned": _turned, "vectors": _vectors,
    "batches": _batches, "between": _between, "heads": _heads,
}  # fmt: skip
"""Views of a shape in memory of their own, in which numbers lie so."""
ALONE = {"batches": "rows", "between": "rows", "heads": "rows"}
"""How a matrix, or a bias, lies that is beside batches and has none."""
OF_A_MATRIX = ("gaps", "rows", "columns")
"""How all arrays lie of a product of each shape, and in batches the other ways, too."""
ALSO = ("turned", "vectors")
"""How they lie in shapes by turns."""
MIXED = ("", "rows", "turned", "columns")
"""Of these both operands lie in every pair: as rows or turned, dense or not."""
IN_BATCHES = ("batches", "heads")
"""How an operand of batches lies, the other one being dense."""
BEGUN = tuple(
    Lies(starts=starts) for starts in ((1, 4, 2, 8), (4, 1, 8, 2), (2, 8, 4, 1), (8, 2, 1, 4), (1, 1, 1, 1))
)
"""Dense arrays that begin past the start of a cache line: within vectors of 2, 4, 8 and 16 numbers."""
EXPANDED = "expanded"
"""How operands lie along whose axes all numbers are the same."""
SAID = {
    "gaps": "with gaps behind its rows and between its numbers",
    "rows": "with a gap behind each row",
    "columns": "whose columns are dense, with a gap behind each",
    "turned": "whose columns are dense, without gaps",
    "vectors": "with a gap of whole vectors behind each row",
    "batches": "with a gap behind each matrix",
    "between": "whose batches lie between their rows",
    "heads": "whose batches lie between their rows, without gaps",
    "expanded": "with strides of 0 where all rows, columns or batches are the same",
}
"""What a verdict says of them."""


def ways(in_batches: bool) -> tuple[str, ...]:
    """How all arrays of a product of each shape lie: those of a single matrix have no batches."""
    return (*OF_A_MATRIX, "batches", "between") if in_batches else OF_A_MATRIX


def by_turns(in_batches: bool, both: bool) -> list[Lies]:
    """How arrays lie that a target reads, by turns; both: both operands are arrays, which may lie unlike.

    >>> len(by_turns(False, True)), by_turns(False, True)[2].how
    (14, ('', 'rows', '', ''))
    """
    found = [Lies.alike(how) for how in (*ALSO, *("heads",) * in_batches)]
    if both:
        found += [Lies.of(a=a, b=b) for a in MIXED for b in MIXED if a != b]
        for how in IN_BATCHES if in_batches else ():
            found += [Lies.of(a=how), Lies.of(b=how)]
    return found


def results(in_batches: bool) -> list[Lies]:
    """How the array of a result lies that a target fills, by turns; turned also where all others are."""
    found = [Lies.of(out=how) for how in (*ALSO, *("heads",) * in_batches)]
    return [*found, Lies(("turned",) * len(PLACES))]


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


def _room(x: Array, shape: tuple[int, ...]) -> Array:
    """Memory of a shape full of poison."""
    room = roomy(int(np.prod(shape)), x.dtype).reshape(shape)
    room[...] = POISON if x.dtype.kind == "f" or x.dtype.name == "bfloat16" else 0x55
    return room
