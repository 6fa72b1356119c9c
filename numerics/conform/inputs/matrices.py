"""Matrices, and stacks of them, as they lie in memory in networks: turned, parts of wider ones, of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

import numpy as np

from numerics.conform.inputs.filling import Filling
from numerics.conform.inputs.layouts import AT_TAILS, NEAR, TIES, plain
from numerics.conform.takes import Takes
from numerics.conform.task import Array

SHORT = 1 << 14  # numbers of arrays that end in two kinds of number, one after the other


class Lying(NamedTuple):
    """An array within contiguous memory: the memory's shape, and the view of it that the array is."""

    memory: tuple[int, ...]
    view: Callable[[Array], Array]

    def room(self, kind: np.dtype) -> Array:
        """Such an array, of zeros.

        >>> Lying((2, 3), np.transpose).room(np.dtype(np.float32)).strides
        (4, 12)
        """
        return self.view(np.zeros(self.memory, kind))


def _turned(axes: tuple[int, ...], x: Array) -> Array:
    return x.transpose(axes)


def _part(part: tuple[slice | int | None, ...], x: Array) -> Array:
    return x[(..., *part)]


def _turned_part(part: slice, x: Array) -> Array:
    return x[:, part].T


TURNED = (
    *((48, 16), (32, 96), (64, 32), (64, 64), (96, 64), (128, 128), (192, 64), (256, 320)),
    *((37, 64), (64, 37), (101, 128), (128, 101)),
)
"""Matrices whose sides are whole tiles of 16 to 128, both or one of them, and which are turned."""
STACKED = (
    *(((2, n, m), (0, 2, 1)) for n, m in ((128, 96), (160, 192), (96, 64), (32, 48), (37, 64))),
    *(((64, 4, 64), (1, 0, 2)), ((32, 3, 64), (2, 1, 0)), ((64, 2, 96), (2, 0, 1)), ((64, 2, 96), (1, 2, 0))),
    *(((2, 64, 4, 32), (0, 2, 1, 3)), ((2, 64, 4, 32), (0, 2, 3, 1)), ((2, 3, 64, 32), (0, 1, 3, 2))),
)
"""Stacks of such matrices, and batches of heads, in another order of axes."""
PITCHED = (
    *(((4, 2048), slice(1024)), ((5, 1024), slice(1000)), ((33, 1024), slice(512, None))),
    *(((3, 8192), slice(4096, None)), ((3, 12_288), slice(4096, 8192)), ((2, 8256), slice(8192))),
    *(((4, 1088), slice(64, None)), ((9, 128), slice(96)), ((5, 257), slice(256))),
    *(((2, 3, 2048), slice(1024)), ((2, 4096), slice(None, None, 2))),
)
"""Rows in memory, and the part of each that is given: half of it, the second of three, each second number."""
LINES = ((8, 1024), (6, 4096))  # of whose rows each second one is given
OF_ONE = (2, 60, 1000)  # numbers of a line that is a matrix of one row, or of one column
IN_WIDER = ((4, 64, 60), (4, 1024, 1000), (3, 33, 32))
"""Rows, the numbers of each, and how many of these are given of one row."""
FAR_APART = (1 << 16, 70_003)  # numbers of a line with a gap after each
LEFT_OVER = 64  # columns of a tile: each number of them is left over, beside few rows, some and many
ROWS = ((2, 5), (16, 64), (64, 64))  # the fewest of each class, and how many numbers of rows it has
DEEP, LONG, MANY = (2, 33, 32), (3, 1040), (515, 16)
"""Axes from which on stacks, longer rows and more rows leave over each number of a tile of 16."""


def of_one() -> Iterator[Lying]:
    """Arrays with an axis of one number, whose stride is none that a contiguous array has there.

    >>> [lying.room(np.dtype(np.uint8)).strides for lying in of_one()][:4]
    [(1, 2), (0, 1), (1, 0), (1, 60)]
    """
    for n in OF_ONE:
        yield Lying((1, n), np.transpose)
        yield Lying((n,), partial(_part, (None, slice(None))))
        yield Lying((n,), partial(_part, (slice(None), None)))
    for rows, pitch, width in IN_WIDER:
        yield Lying((rows, pitch), partial(_part, (slice(0, 1), slice(0, width))))
        yield Lying((rows, pitch), partial(_part, (slice(1, 2), slice(pitch - width, None))))
        yield Lying((rows, pitch), partial(_turned_part, slice(1, 2)))
        yield Lying((2, rows, pitch), partial(_part, (slice(0, 1), slice(0, width))))
        yield Lying((rows, pitch), partial(_part, (slice(None), None, slice(0, width))))


def every() -> Iterator[Lying]:
    """All of these, those of one row first.

    >>> shapes = [lying.room(np.dtype(np.uint8)).shape for lying in every()]
    >>> (64, 64) in shapes, (2, 96, 128) in shapes, (4, 1024) in shapes, (70003,) in shapes
    (True, True, True, True)
    """
    yield from of_one()
    yield from (Lying(shape, np.transpose) for shape in TURNED)
    yield from (Lying(shape, partial(_turned_part, slice(shape[1] // 2))) for shape in TURNED[3:6])
    yield from (Lying(shape, partial(_turned, axes)) for shape, axes in STACKED)
    yield from (Lying(shape, partial(_part, (part,))) for shape, part in PITCHED)
    yield from (Lying(shape, partial(_part, (slice(None, None, 2), slice(None)))) for shape in LINES)
    yield from (Lying((2 * n,), partial(_part, (slice(None, None, 2),))) for n in FAR_APART)


class Share(Enum):
    """How many matrices that leave over some of a tile are asked."""

    FEW = auto()  # of each number left over one, with few, some or many rows in turn
    SOME = auto()  # each with few, some and many rows, one of them turned and part of a wider one, too
    EVERY = auto()  # all of these turned, and parts of wider ones; stacks, long rows and many rows


def left_over(share: Share) -> Iterator[Lying]:
    """Matrices whose rows leave over each number of columns of a tile, and whose columns as many rows.

    >>> shapes = [lying.room(np.dtype(np.uint8)).shape for lying in left_over(Share.EVERY)]
    >>> len(shapes), len({shape[-1] % 64 for shape in shapes if shape[0] >= 64})
    (640, 64)
    >>> len(list(left_over(Share.SOME))), len(list(left_over(Share.FEW)))
    (320, 64)
    """
    for left in range(LEFT_OVER):
        width = LEFT_OVER * (1 + left % 3) + left
        ways: tuple[Callable[[Array], Array], ...] = plain, np.transpose, partial(_part, (slice(width),))
        for place, (least, count) in enumerate(ROWS):
            rows, turn = least + left % count, left % len(ROWS) == place
            memory = (rows, width), (width, rows), (rows, width + 1 + left % 7)
            every = [Lying(shape, view) for shape, view in zip(memory, ways, strict=True)]
            if share is not Share.FEW:
                yield from every if turn or share is Share.EVERY else every[:1]
            elif turn:
                yield every[left // len(ROWS) % len(every)]
    for left in range(16 if share is Share.EVERY else 0):
        yield Lying((*DEEP[:-1], DEEP[-1] + left), plain)
        yield Lying((LONG[0], LONG[1] + left), plain)
        yield Lying((MANY[0], MANY[1] + left), plain)
        yield Lying((LONG[1] + left, LONG[0]), np.transpose)


def tailed(numbers: Filling, takes: Takes, share: Share) -> Iterator[Array]:
    """Matrices of these numbers that leave over some of a tile, and end in a tie or next to one."""
    for place, lying in enumerate(() if takes.contiguous else left_over(share)):
        yield numbers.ended(lying.memory, lying.view, AT_TAILS[place % len(AT_TAILS)])


def laid(numbers: Filling, takes: Takes, few: bool) -> Iterator[Array]:
    """Arrays of these numbers that so lie, which end in a number next to a tie, and shorter ones in a tie.

    few: those of one row alone.

    >>> from numerics.conform.takes import ANYTHING
    >>> x = Filling.of(np.float32([1, 2]))
    >>> len(list(laid(x, ANYTHING, few=False))), len(list(laid(x, Takes(contiguous=True), few=False)))
    (122, 0)
    """
    if takes.contiguous:
        return
    for place, (memory, view) in enumerate(of_one() if few else every()):
        yield numbers.ended(memory, view, NEAR)
        if not few and np.prod(memory) <= SHORT:
            yield numbers.ended(memory, view, TIES[place % len(TIES)])
