"""Every kind of layout, of one to six axes, each ended by a number of each kind: a tie, NaN, Inf, -0 ..."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np

from numerics.conform.inputs.filling import Filling
from numerics.conform.takes import Takes
from numerics.conform.task import Array

View = Callable[[Array], Array]
"""Makes of a contiguous array a view that lies otherwise."""
SHAPES = ((13,), (4, 7), (3, 4, 5), (2, 3, 2, 5), (2, 3, 2, 2, 3), (2, 1, 3, 2, 2, 3))
"""Of one to six axes."""
STARTS = 16  # elements of a cache line, at each of which an array begins
PAST = 65  # numbers of the least of these: past a vector of 64
WIDTHS = (512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 8192)
"""Numbers of the lines that networks have, for which kernels have paths of their own."""
WIDEST = (11008, 14336, 28672)  # of their widest lines
LINES = (8191, 24 * 41 + 23, 24 * 171 + 23, 3 * 640, 7 * 640, 5 * 768, 2 * 5120, 3 * 5120)
"""Numbers of single lines: multiples of those widths, and one less than whole tiles of 24 and of 8,192."""


REMAINDERS = (97, 129, 191, 193, 255, 511, 769, 2047)
"""Numbers of lines past a tile of 64 to 1,024: one and a half, and all but one of the next, are left over."""
SIZES = (720, 1000, 6144, 12_345)  # numbers of lines that no large power of two divides
COUNTED = (1 << 15, (1 << 16) - 1, 1 << 16, (1 << 16) + 1)
"""Numbers of longer ones: what 16 bits count, and one more and less."""
SEVEN = (2, 1, 3, 2, 1, 2, 2)
"""Of seven axes."""
GAPPED = ((67, 5, 1), (1031, 3, 1), (5, 20_000, 9), (3, 300_000, 5))
"""Rows, the numbers from one to the next, and of each: of one number; further apart than 64 KiB, 1 MiB."""
COLUMN, COLUMNS = 67, (100, 1500)  # numbers of a column of a matrix, and from one to the next
LATE = (2, 4, 1)  # numbers by which arrays of three axes begin after a cache line
MOST_APART = 1 << 11  # numbers of such arrays, at most
PAGED = (5, 67, 1001, 4099)  # numbers of lines that end where a page of memory does
WHOLE = (1 << 18, 655_363, 3 << 18, 1 << 20)
"""Multiples of the tiles of large arrays, and a number between half of 2**20 and that."""
LEFT_OVER = ((1 << 10, 128), (1 << 14, 16), (1 << 16, 16))
"""Numbers, from which on lines leave over every number of a tile; and the numbers of the tile."""
ODD_TILES = (
    *(20, 24, 40, 48, 56, 72, 80, 96, 112, 120, 144, 160, 192, 224, 240, 288, 320, 352, 384, 448, 480, 500),
    *(576, 640, 768, 896, 1000, 1280, 1536, 3072, 5120),
)
"""Numbers of tiles that are no power of two: lines leave over all but one of them, and one."""
FAR_ODD = 5000  # numbers, past which that is asked of each tile once more
FAR_LEFT_OVER = ((1 << 18, 8), (1 << 20, 8))  # the same of the longest lines
NEAR = 1  # which of the kinds is next to a tie, and is rounded away from zero
TIES = (3, 4)  # which of the kinds are ties, to both sides
AT_TAILS = (NEAR, *TIES)  # in which lines and matrices end in turn that leave over some of a tile
TELLING = (*TIES, 7, 16)  # these, NaN, and one and a half of the least number


def sized(numbers: Filling, few: bool) -> Iterator[Array]:
    """Lines of these numbers: shorter ones end in each kind, others in ties and NaN.

    few: all end in ties, NaN or a small number alone, and none of the longest is given.

    >>> found = list(sized(Filling.of(np.float32([1, 2])), few=False))
    >>> len(found), [float(x[-1]) for x in found[:2]], max(map(len, found))
    (44, [1.0, 2.0], 1048576)
    """
    turns = TELLING if few else range(len(numbers.ends))
    yield from (numbers.ended((n,), plain, turn) for n in (*REMAINDERS, *SIZES) for turn in turns)
    yield from (numbers.ended((n,), plain, turn) for n in COUNTED for turn in TELLING)
    for place, n in enumerate(() if few else WHOLE):
        yield numbers.ended((n,), plain, TIES[place % len(TIES)])


def left_over(far: bool) -> list[int]:
    """Numbers of lines that leave over each number of numbers of a tile; far: of the longest ones, too.

    >>> found = left_over(far=True)
    >>> [len({n % tile for n in found if n >= least}) for least, tile in ((1 << 10, 128), (1 << 20, 8))]
    [128, 8]
    """
    every = (*LEFT_OVER, *FAR_LEFT_OVER * far)
    return [least + 5 * left % 7 * tile + left for least, tile in every for left in range(tile)]


def of_odd_tiles() -> list[int]:
    """Numbers of lines that leave over all but one number of a tile that is no power of two, and one number.

    >>> found = of_odd_tiles()
    >>> {n % 640 for n in found} >= {639, 1}, len(found)
    (True, 124)
    """
    return [
        tiles * tile + left
        for tile in ODD_TILES for tiles in (3, 1 + FAR_ODD // tile) for left in (-1, 1)
    ]  # fmt: skip


def tailed(numbers: Filling, far: bool) -> Iterator[Array]:
    """Lines of so many numbers, which end beside a tie, and shorter ones in a tie, too."""
    for place, n in enumerate(of_odd_tiles()):
        yield numbers.ended((n,), plain, AT_TAILS[place % len(AT_TAILS)])
    for place, n in enumerate(left_over(far)):
        yield numbers.ended((n,), plain, NEAR)
        if n < COUNTED[0]:
            yield numbers.ended((n,), plain, TIES[place % len(TIES)])


def paged(numbers: Filling) -> Iterator[Array]:
    """Lines of less than a page of memory and more, which end in a tie, in NaN and in a small number."""
    yield from (numbers.ended((n,), plain, turn) for n in PAGED for turn in TELLING)


def long(numbers: Filling, length: int) -> Array:
    """A line that ends in a tie, and has one after each power of two of numbers, from 2**15 on."""
    return numbers.ended((length,), plain, TIES[0])


def ended(numbers: Filling, takes: Takes, few: bool = False) -> Iterator[Array]:
    """Arrays whose last number, and first one, is of each kind: from every start, of common widths, laid.

    few: laid in each way, they end in every second kind.

    >>> from numerics.conform.takes import ANYTHING
    >>> x = Filling.of(np.float32([1, 2]))
    >>> len(list(ended(x, ANYTHING))), len(list(ended(x, Takes(contiguous=True))))
    (288, 55)
    >>> len(list(ended(x, ANYTHING, few=True)))
    186
    """
    turns = range(len(numbers.ends))
    for turn in turns:
        for start in range(STARTS):
            length = PAST + start + (7 * turn + 5 * start) % 16
            yield numbers.ended((length,), partial(_after, start), turn)
        yield from (numbers.ended((width,), plain, turn) for width in WIDTHS[turn % 2 :: 2])
    yield from (numbers.ended((length,), plain, turn) for turn, length in enumerate((*LINES, *WIDEST)))
    if takes.contiguous:
        return
    for turn in turns:
        yield from (numbers.ended((1 + (turn % 4 == 0), width), plain, turn) for width in WIDTHS)
        yield numbers.ended((2, 1 + turn % 3, WIDTHS[turn % len(WIDTHS)]), plain, turn)
        for shape in SHAPES:
            every = islice(views(len(shape), takes.backward), turn % 2 * few, None, 1 + few)
            yield from (numbers.ended(shape, view, turn) for view in every)
    yield from (numbers.ended((2, width), plain, turn) for turn, width in enumerate(WIDEST))


def apart(numbers: Filling, takes: Takes) -> Iterator[Array]:
    """Arrays of seven axes, of a repeated inner one, of strides longer than pages and caches, and begun late.

    All hold a number of each kind, as far as they have room.

    >>> from numerics.conform.takes import ANYTHING
    >>> found = list(apart(Filling.of(np.float32([1, 2])), ANYTHING))
    >>> max(x.ndim for x in found), max(x.strides[0] for x in found), min(x.strides[0] for x in found)
    (7, 1200000, -40000)
    """
    if takes.contiguous:
        return
    every, kind = np.arange(MOST_APART), numbers.table.dtype
    rooms = [np.zeros(SEVEN, kind), np.zeros(SEVEN[::-1], kind).T]
    rooms += [np.zeros((lines, gap), kind)[:, :width] for lines, gap, width in GAPPED]
    rooms += [np.zeros((COLUMN, gap), kind)[:, 3] for gap in COLUMNS]
    rooms += [
        np.zeros(60 + start, kind)[start:].reshape(shape) for start in LATE for shape in ((3, 4, 5), (6, 10))
    ]
    if takes.backward:
        rooms.append(np.zeros((5, 10_000), kind)[::-1, :9])
    for turn, room in enumerate(rooms):
        room[...] = numbers.ends[(every[: room.size] + 5 * turn) % len(numbers.ends)].reshape(room.shape)
        yield room
    for axis in (1, 2):
        whole = np.zeros((2, 3, 4, 5), kind)
        whole[...] = numbers.ends[(every[: whole.size] + axis) % len(numbers.ends)].reshape(whole.shape)
        yield _repeated(axis, whole)


def views(rank: int, backward: bool) -> Iterator[View]:
    """Views of arrays of so many axes: as they are, turned, with gaps, repeated, and backward if asked.

    >>> len(list(views(1, True))), len(list(views(2, True))), len(list(views(4, True)))
    (5, 13, 21)
    """
    axes = sorted({0, rank // 2, rank - 1})
    yield plain
    for axis in axes:
        yield partial(_sliced, axis, slice(None, None, 2))
        yield partial(_sliced, axis, slice(1, None))
        yield partial(_repeated, axis)
    if backward:
        yield from (partial(_sliced, axis, slice(None, None, -1)) for axis in axes)
    if rank > 1:
        yield np.transpose
        yield from (np.flip,) * backward
        yield from (partial(_turned_back, axis) for axis in axes if backward)
    if rank > 2:
        yield partial(np.moveaxis, source=-1, destination=1)  # channels nearest in memory
        yield partial(np.moveaxis, source=0, destination=-1)
        yield partial(np.swapaxes, axis1=-1, axis2=-2)


def plain(x: Array) -> Array:
    return x


def _after(start: int, x: Array) -> Array:
    return x[start:]


def _sliced(axis: int, part: slice, x: Array) -> Array:
    return x[(*[slice(None)] * axis, part)]


def _repeated(axis: int, x: Array) -> Array:
    """The first of an axis, as often as the axis is long: a stride of zero."""
    return np.broadcast_to(_sliced(axis, slice(0, 1), x), x.shape)


def _turned_back(axis: int, x: Array) -> Array:
    return np.flip(x.T, axis)
