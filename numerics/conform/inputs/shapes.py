"""The same numbers in other shapes and strides, and blocks along any axis: where kernels lose their place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np

from numerics.conform.inputs import layouts
from numerics.conform.inputs.elements import marks, middles
from numerics.conform.inputs.filling import Filling
from numerics.conform.inputs.margins import LINE, roomy, spaced
from numerics.conform.inputs.narrow import cast
from numerics.conform.takes import Takes
from numerics.conform.task import Array, Task
from numerics.formats.dtype import Element

Room = Callable[[int, Any], Array]
"""Memory for so many numbers of a type."""
TILES = tuple(base + beside for j in range(6, 15) for base in (1 << j, 3 << (j - 1)) for beside in (-1, 0, 1))
"""Whole tiles of 64 to 16,384 numbers, one and a half, and a number less and more than these."""
LENGTHS = (*sorted({*range(72), *TILES}), 70001, (1 << 21) + 13)
"""Every remainder of lanes up to 64 wide, what tiles leave over, more than caches, than 65,535 warps."""
FARTHEST = (1 << 24) + 13  # elements: more than float32 counts, than 65,535 blocks of 256 threads
SHAPES = (
    (),
    (1,),
    (3, 5),
    (1, 7),
    (2, 3, 4),
    (0, 3),
    (3, 0),
    (2, 2, 3, 5),
    (2, 1, 3, 1, 4),
    (3, 1000),
    (3, 70001),
    (70001, 3),
    *((2, 0, 3), (2, 3, 0, 5), (0, 2, 1), (1031, 1), (1, 66001), (65549, 1, 3), (2, 65549, 1), (65551, 16)),
    *((2, 3, 1, 2, 3), (2, 1, 2, 3, 1, 2), (1, 1, 1, 37), (3, 5, 7, 11, 13), (9, 10, 11, 12)),
)
TILED = (
    *((259, 517), (512, 256), (3, 259, 261), (259, 3, 261), (261, 259, 3), (70, 71, 73)),
    *((2, 3, 67, 131), (3, 4, 5, 37), (5, 1, 3, 18), (2, 3, 2, 5, 7)),
)
"""Two and three long axes: past tiles of 16 to 256 numbers either way, with some left over, and whole ones;
and short arrays of three axes and more."""
CLOSED = ((3, 7), (5, 12), (2, 3, 9), (2, 2, 3, 5))
"""Shapes of a few rows, of which each number is the last in turn."""
ROWS_OF = (5, 36, 131)  # numbers of rows, of which each ends in another number
CHANNELS = ((2, 67, 5, 7), (2, 3, 5, 7), (3, 17, 9, 33), (1, 4, 8, 8), (2, 3, 2, 4, 5))
"""Batches, channels and two or three axes of pictures, whose channels lie nearest in memory."""
APART = (*range(2, 18), 31, 32, 33, 64, 256)
"""Lengths of lines that stride by two, or backward: remainders of lanes, and whole ones."""
STEPS = (2, 3, 4, 5, 8, -1, -2, -3, -4)
"""Elements from one number of a strided line to the next."""
STRIDED = (65, 130, 257, 1027)  # numbers of lines of every such step: past what lanes, warps, blocks take
PADDED = (9, 33, 129, 515)  # numbers of rows that have gaps after them, or between their numbers
LONGER = 1024  # numbers before an end that a short loop takes
ENDS = 64  # of so many numbers each is the last in every remainder of 4, of more in both of 2
ALONE, MORE_ALONE = 64, 256  # of the few numbers, and of all, that are asked one at a time
LARGE = 4096  # numbers of which it is told by their places what is due
FEW_NUMBERS = 72  # shorter lines are asked twice
BEGUN = 1091  # numbers of longer arrays that begin at every element of a cache line
FAR_LINES = 1100  # numbers from one to the next: more than a page
OFFSETS = 16  # elements by which an array begins past a cache line
FAR_APART = 40503  # times a number, its places in lines look as if drawn
SINGLES = np.array([1.0, -0.3, 0.7, 2.5, -1.25, 0.0, 3.3, -100.0, 0.01], np.float32)
"""Single numbers, all different, that short formats round and clip."""
NEAR = 2.0**-13  # of a tie: how far a number beside it is from it
LEAST = (2.0**-149, -1e-40)
"""Subnormal numbers of float32."""
CUT = (
    *(1, 2, 3, 7, 15, 17, 31, 33, 63, 65, 127, 129, 255, 257, 511, 513, 1001, 1021, 1023, 1025, 1537, 2049),
    *(2303, 3077, 4095, 4097, 5121, 8193, 8209, 12289, 16387, 65537, 65551, 131073),
)
"""Numbers of tensors of one line, which leave over some of every vector, tile and block."""
BEFORE_END = (0, 1, 2, 6, 14, 30, 62, 126, 200)
"""How many numbers follow the largest of such a line."""


def shaped(
    numbers: Filling, takes: Takes, named: Iterable[tuple[int, ...]] = (), few: bool = False
) -> Iterator[Array]:
    """Arrays of many shapes filled with numbers; unless contiguous, strided, turned and reversed ones too.

    named: more shapes, that somebody wants to be asked; few: fewer of those that end in each kind of number.

    >>> from numerics.conform.takes import ANYTHING
    >>> x = Filling.of(np.float32([1, 2, 3]))
    >>> len(list(shaped(x, ANYTHING))), len(list(shaped(x, Takes(contiguous=True))))
    (1412, 568)
    """
    x, filled = numbers.few, numbers.filled
    alone = np.concatenate([x[:: -(-len(x) // ALONE)], filled(MORE_ALONE)])
    for length in LENGTHS:
        yield numbers.line(length) if length < LARGE else layouts.long(numbers, length)
        if length < FEW_NUMBERS:
            yield filled(length, turn=1)
    yield from ended(numbers)
    for offset in range(OFFSETS):
        yield filled(77 + offset)[offset:]
    yield from begun(numbers)
    yield pairs(x)
    yield from (alone[at : at + 1] for at in range(len(alone)))
    yield from (filled(shape) for shape in named)
    yield from layouts.ended(numbers, takes, few)
    if takes.contiguous:
        return
    yield from (alone[at : at + 1].reshape(()) for at in range(len(alone)))
    yield from (numbers.large(shape) for shape in SHAPES)
    yield from tiled(numbers)
    yield from closed(numbers)
    yield from (filled(2 * length)[::2] for length in APART)
    yield filled(64)[1::3]
    yield filled((5, 9)).T
    yield filled((8, 8)).T
    yield filled((4, 4, 4)).transpose(2, 1, 0)
    yield filled((6, 6, 6)).transpose(0, 2, 1)
    yield filled((5, 9), 1)[:, 2:7]
    yield filled((4, 5, 6)).transpose(2, 0, 1)
    yield np.broadcast_to(filled(7), (3, 7))
    yield np.broadcast_to(filled((5, 1)), (5, 7))
    yield np.broadcast_to(filled(1), (3, 7))
    yield np.broadcast_to(filled((5, 1, 7)), (5, 3, 7))
    yield np.lib.stride_tricks.sliding_window_view(filled(45), 7)
    yield filled((9, FAR_LINES)).T
    yield filled(9 * FAR_LINES)[::FAR_LINES]
    yield filled((3, 200))[:, :9]
    yield from gapped(numbers, takes.backward)
    if takes.backward:
        yield from (filled(length)[::-1] for length in APART)
        yield filled((5, 9), 2)[:, ::-1]
        yield filled((4, 8))[::-1]
        yield filled((5, 9), 3)[::-1, ::-1]
        yield filled((4, 5, 7))[:, ::-1]
        yield filled((4, 5, 7), 1)[..., ::-1]
        yield filled((2, 3, 4, 5))[..., ::-1]
        yield filled((2, 3, 4, 5), 1)[:, :, ::-1]


def begun(numbers: Filling) -> Iterator[Array]:
    """Longer arrays that begin at every element of a cache line; each of the few numbers is first in two.

    >>> [(len(found), float(found[0])) for found in begun(Filling.of(np.float32([1, 2])))][:3]
    [(1091, 1.0), (1091, 1.0), (1091, 2.0)]
    """
    for place, first in enumerate(numbers.few):
        for offset in (place % OFFSETS, (7 * place + 5) % OFFSETS):
            found = numbers.filled(BEGUN + offset, place)[offset:]
            found[0] = first
            yield found


def ended(numbers: Filling) -> Iterator[Array]:
    """Longer arrays, in which each of the few numbers is the last one of lengths of several remainders.

    >>> [(len(found), float(found[-1])) for found in ended(Filling.of(np.float32([1, 2])))][:4]
    [(1025, 1.0), (1030, 1.0), (1035, 1.0), (1040, 1.0)]
    """
    x = numbers.few
    for place in range(len(x)):
        before = np.roll(x, -place - 1)  # the number itself is the last of these
        for turn in range(4 if len(x) <= ENDS else 2):
            length = LONGER + 1 + (place + 5 * turn) % 16
            found = numbers.filled(length, place)
            found[-min(len(x), length) :] = before[-min(len(x), length) :]
            yield found


def tiled(numbers: Filling) -> Iterator[Array]:
    """Arrays of several long axes; in other orders of axes, and with gaps, too.

    >>> [found.shape for found in tiled(Filling.of(np.float32([1, 2])))][6:9]
    [(2, 3, 67, 131), (3, 4, 5, 37), (5, 1, 3, 18)]
    """
    filled = numbers.large
    yield from (filled(shape) for shape in TILED)
    rows, columns = TILED[0]
    yield filled((columns, rows)).T
    yield filled((rows, columns + 3))[:, :columns]
    yield filled((rows, 2 * columns))[:, ::2]
    for shape in CHANNELS:
        yield np.moveaxis(filled((shape[0], *shape[2:], shape[1])), -1, 1)
    yield filled((17, 37, 19)).transpose(1, 0, 2)
    yield filled((17, 37, 19)).transpose(1, 2, 0)


def closed(numbers: Filling) -> Iterator[Array]:
    """Arrays of several axes in which each of the few numbers is the last: of a row, and of all of it.

    >>> [found[:, -1].tolist() for found in closed(Filling.of(np.float32([1, 2])))][0]
    [1.0, 2.0]
    """
    x = numbers.few
    for length in ROWS_OF:
        rows = numbers.filled((len(x), 2 * length))
        rows[:, [length - 1, -2, -1]] = x[:, None]
        yield rows[:, :length]  # rows with gaps between them
        yield rows[:, ::2]
        yield np.ascontiguousarray(rows[:, :length])
        yield np.asfortranarray(rows[:, :length])
    for place, shape in product(range(len(x)), CLOSED):
        for turn in range(2 if len(x) <= ENDS else 1):
            found = numbers.filled((*shape[:-1], shape[-1] + turn), place)
            found[..., -1] = x[place]
            yield found
            apart = np.repeat(found, 2, axis=-1)[..., ::2]
            yield apart if turn else np.asfortranarray(found)


def gapped(numbers: Filling, backward: bool) -> Iterator[Array]:
    """Lines of every step and of many numbers; rows with gaps after them, and between their numbers."""
    filled = numbers.filled
    for step in STEPS:
        if step > 0 or backward:
            yield from (filled(abs(step) * length)[::step] for length in STRIDED)
    for length in PADDED:
        yield from (filled((4, length + gap))[:, :length] for gap in (1, 3, 16))
        yield from (filled((4, 2 * length + gap))[:, gap::2] for gap in (0, 1))
        yield filled((8, length))[::2]
        yield filled((3, 4, length + 1))[:, :, 1:]
        yield filled((3, 8, length))[:, ::2]


def pairs(x: Array) -> Array:
    """Every two of the numbers side by side: what is converted two at a time may look at the other.

    >>> pairs(np.float32([1, 2])).tolist()
    [1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0]
    """
    return np.stack([np.repeat(x, len(x)), np.tile(x, len(x))], axis=1).reshape(-1)


def telling(dtype: Element) -> Array:
    """Numbers of every kind that a short loop at an array's end may treat otherwise: ties, NaN, Inf, -0 ...

    >>> from numerics.formats import fp4
    >>> len(telling(fp4)) % 2
    1
    """
    steps = np.unique(np.abs(marks(dtype)))
    held = steps[(steps > 0) & (steps < dtype.extent)]
    some = held[np.linspace(0, len(held) - 1, 8).astype(np.int64)]
    wide = 3.0 * dtype.extent
    ends = [np.nan, np.inf, -np.inf, -0.0, wide, -wide, dtype.smallest_subnormal / 2]
    small = dtype.smallest_subnormal * np.array([1.0, 1.5, 0.75, 2.5])
    with np.errstate(over="ignore", under="ignore"):
        told = (SINGLES, some, -some, ends, ends[:3], small, -small, LEAST)
        found = np.concatenate(told).astype(np.float32)
    return found[: len(found) - 1 + len(found) % 2]


def kinds(dtype: Element) -> Array:
    """One number of each kind, or two: exact, inexact, ties to both sides, NaN, Inf, -0, too large, small.

    >>> from numerics.formats import fp4
    >>> kinds(fp4)[:6].tolist()
    [1.0, 2.50030517578125, -2.49969482421875, 2.5, 3.5, -2.5]
    """
    between = middles(dtype)
    inside = between[between < dtype.extent] if (between < dtype.extent).any() else between
    tie, other = np.resize(inside[2 * len(inside) // 3 :], 2)
    least, wide = dtype.smallest_subnormal, 3.0 * dtype.extent
    near = [1.0, tie * (1 + NEAR), -tie * (1 - NEAR)]
    ends = [np.nan, -np.nan, np.inf, -np.inf, -0.0, wide, -wide]
    with np.errstate(over="ignore", under="ignore"):
        told = [*near, tie, other, -tie, -other, *ends, least / 2, -least / 2, 1.5 * least, -least, LEAST[-1]]
        return np.array(told).astype(np.float32)


def some_draws(shape: tuple[int, ...]) -> Array:
    """Random bits for stochastic rounding."""
    return np.random.default_rng(3).integers(0, 1 << 30, shape).astype(np.uint32)


def draws_of(task: Task, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """The random bits that a target takes beside numbers of that shape; none where it takes none."""
    return (task.drawing.narrow(some_draws(shape)),) if task.draws else ()


def steps_of(x: Array) -> tuple[int, ...]:
    """The strides of an array in elements, as they are told to people.

    >>> steps_of(np.zeros((3, 4), np.float32)[:, ::2])
    (4, 2)
    """
    return tuple(stride // x.itemsize for stride in x.strides)


def is_plain(x: Array) -> bool:
    """Has an array no gaps, and the strides that new memory of its shape has, along axes of one number, too?

    Such a stride leads nowhere, so that NumPy calls an array contiguous whatever it is.

    >>> x = np.zeros((4, 64), np.float32)[:1, :60]
    >>> x.strides, x.flags.c_contiguous, is_plain(x)
    ((256, 4), True, False)
    """
    if not x.size or not x.flags.c_contiguous or 1 not in x.shape:
        return not x.size or bool(x.flags.c_contiguous)
    return all(step == x.itemsize * math.prod(x.shape[at + 1 :]) for at, step in enumerate(x.strides))


def kept(x: Array, kind: Any = None, room: Room | None = None) -> Array:
    """Returns the same numbers in memory of their own, of the same strides.

    kind: of another type.  room: gives the memory; otherwise it begins as x does within a cache line.

    >>> x = np.resize(np.float32([1, 2, 3]), (2, 6))[:, ::-2]
    >>> y = kept(x)
    >>> bool((x == y).all()), y.strides == x.strides, np.shares_memory(x, y)
    (True, True, False)
    """
    if room is None and is_plain(x):
        return aligned_as(x, kind)
    return like(x if kind is None else cast(x, kind), x, room or spaced)


def aligned_as(x: Array, kind: Any = None) -> Array:
    """Returns a copy that begins as many elements past a cache line as x does; kind: of another type."""
    kind = x.dtype if kind is None else kind
    past = x.ctypes.data % LINE // x.itemsize * kind.itemsize
    found: Array = roomy(x.size, kind, past).reshape(x.shape)
    found[...] = x if x.dtype == kind else cast(x, kind)
    return found


def like(numbers: Array, x: Array, room: Room = np.zeros) -> Array:
    """Numbers in memory of their own, with the order, the gaps and the directions of x; room: gives it.

    >>> x = np.zeros((2, 6), np.float32)[::-1, ::2]
    >>> found = like(np.uint8([[1, 2, 3], [4, 5, 6]]), x)
    >>> found.tolist(), found.strides
    ([[1, 2, 3], [4, 5, 6]], (-6, 2))
    """
    if is_plain(x):
        whole = room(numbers.size, numbers.dtype).reshape(numbers.shape)
        whole[...] = numbers
        return whole
    turned = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)
    strides = tuple(abs(stride) // x.itemsize * numbers.itemsize for stride in x.strides)
    last = sum((n - 1) * stride for n, stride in zip(x.shape, strides, strict=True))
    memory = room(last // numbers.itemsize + 1, numbers.dtype)
    found = np.lib.stride_tricks.as_strided(memory, x.shape, strides)
    found[turned] = numbers
    return found[turned]


def beside(x: Array, *others: Array) -> Iterator[tuple[Array, ...]]:
    """Returns what a target is given together: as it is; where x has strides, the others too, or they alone.

    >>> x, bits = np.zeros((2, 6), np.float32)[:, ::2], np.uint32([[1, 2, 3], [4, 5, 6]])
    >>> [[part.strides for part in given] for given in beside(x, bits)]
    [[(24, 8), (12, 4)], [(24, 8), (24, 8)], [(12, 4), (24, 8)]]
    """
    yield x, *others
    if x.flags.c_contiguous or not others:
        return
    apart = [like(part, x) if part.shape == x.shape else stepped(part) for part in others]
    yield x, *apart
    yield np.ascontiguousarray(x), *apart


def stepped(numbers: Array) -> Array:
    """Returns the same numbers in memory whose first axis is the nearest, with a gap after each.

    >>> stepped(np.zeros((3, 2), np.uint8)).strides, stepped(np.zeros(3, np.uint8)).strides
    ((2, 6), (2,))
    """
    return np.repeat(numbers.T, 2, axis=-1)[..., ::2].T if numbers.ndim else numbers


def placed(rows: Array, axis: int) -> Array:
    """Lines [n, length] as an array whose `axis` runs along the lines.

    >>> placed(np.zeros((3, 32)), -1).shape, placed(np.zeros((3, 32)), 0).shape
    ((3, 32), (32, 3))
    >>> placed(np.zeros((3, 32)), 2).shape, placed(np.zeros((3, 32)), -3).shape
    ((3, 1, 32), (32, 3, 1))
    """
    rank = max(2, axis + 1 if axis >= 0 else -axis)
    lines = rows.reshape(rows.shape[0], *[1] * (rank - 2), rows.shape[1])
    return np.ascontiguousarray(np.moveaxis(lines, -1, axis))


def led(x: Array, axis: int, size: int, first: float) -> Array:
    """The same with a block of zeros before each line, in one of which a number stands, or its negative.

    Where, depends on the shape.  Its axes have the order and the directions of x, and gaps where x has any.

    >>> led(np.float32([[1, 2]]), -1, 2, 7.0).tolist()
    [[-7.0, 0.0, 1.0, 2.0]]
    """
    axis %= x.ndim
    shape = [n + size * (at == axis) for at, n in enumerate(x.shape)]
    order = sorted(range(x.ndim), key=lambda at: -abs(x.strides[at]))
    gap = 1 if x.flags.c_contiguous or abs(x.strides[order[-1]]) == x.itemsize else 2
    room = np.zeros([shape[at] for at in order[:-1]] + [shape[order[-1]] * gap], x.dtype)[..., ::gap]
    found = room.transpose(np.argsort(order))[
        tuple(slice(None, None, -1 if stride < 0 and x.size else 1) for stride in x.strides)
    ]
    behind(found, axis, size)[...] = x
    turn = sum(x.shape)
    if found.size and first:
        place = [(turn * FAR_APART + at) % (size if at == axis else n) for at, n in enumerate(shape)]
        found[tuple(place)] = -first if turn % 2 else first
    return found


def behind(x: Array, axis: int, size: int) -> Array:
    """What is left along an axis behind so many."""
    return x[(*[slice(None)] * (axis % x.ndim), slice(size, None))]


def fitting(x: Array, most: float) -> Array:
    """Numbers times a power of two, so that none is larger than `most`; in memory like x's.

    >>> fitting(np.float32([3000.0, -1.0, np.inf]), 1000.0).tolist()
    [750.0, -0.25, inf]
    """
    finite = np.abs(x[np.isfinite(x)])
    top = float(finite.max()) if finite.size else 0.0
    if top <= most:
        return x
    with np.errstate(all="ignore"):
        return like(np.ldexp(x, -int(np.ceil(np.log2(top / most)))).astype(x.dtype), x)


def lengths(block: int) -> list[int]:
    """Lengths of the blocked axis: short blocks first, then whole ones.

    >>> lengths(4), len(lengths(256)), len(lengths(2048))
    ([1, 2, 3, 5, 11, 0, 4, 8, 12], 261, 662)
    """
    short = sorted({*_lefts(block), block + 1, 2 * block + 3})
    return [n for n in short if n % block] + [0, block, 2 * block, 3 * block]


def _lefts(block: int) -> list[int]:
    """Lengths of a short block: every one, or of long blocks the least, the greatest and every remainder."""
    every = range(1, block)
    if block <= LONG:
        return list(every)
    return [n for n in every if n <= EDGE or block - n <= EDGE or n % 7 == 0 or n % 32 in (31, 0, 1)]


LONG, EDGE = 256, 130  # blocks of more numbers are cut short at some lengths, near both ends at each
MANY_LINES, MANY_NUMBERS = 130, 1 << 15  # lines past 128, unless their blocks are long
CUBED = 64  # numbers of a block, at most, of which cubes are asked
EVERY_LEFT = 64  # blocks of so many numbers are cut short at every length
WIDE = ((259, True), (5, 259, True), (259, 5, True), (67, 69, False), (2, 3, 37, True))
"""Lines of tensors with long axes, and whether lines are of many blocks, or of one."""
WIDEST, MOST_WIDE = 512, 1 << 20  # numbers of such a line, or a short block more; of all of them, at most
FAR_LINE = 4096  # numbers of a line, after which a short block is the last
NUMBERS = np.array([0.3, 77.7, -0.0011, 1.9, -5.3, 3e-5, 1000.0], np.float32)
"""Numbers that no short format holds, of unlike magnitudes, so that neighbours show."""


def tensors(task: Task, whole_blocks: bool = False) -> Iterator[Array]:
    """Tensors of blocks with short last blocks (unless whole_blocks), whole ones, and more axes."""
    block = task.block.block
    for length in lengths(block):
        if whole_blocks and length % block:
            continue
        scales = np.array([1.0, 4096.0, 2.0**-12], np.float32)[:, None]
        lines = np.resize(NUMBERS, (3, length)).astype(np.float32) * scales
        if block > EVERY_LEFT and length:
            _lead(lines, length % block or block)
        yield placed(lines, task.axis)
        if length % block:
            lines = lines.copy()
            lines[:, -1] = np.array([np.nan, -0.0, np.inf], np.float32)
            yield placed(lines, task.axis)
    yield from (placed(lines, task.axis) for lines in lone_lines(block, whole_blocks))
    if not whole_blocks:
        yield from (placed(lines, task.axis) for lines in long_lines(block))
    deep = np.resize(NUMBERS, (2, 3, 2 * block if whole_blocks else block + 1)).astype(np.float32)
    if -3 <= task.axis <= 2:
        yield np.ascontiguousarray(np.moveaxis(deep, -1, task.axis))
        if block <= CUBED:  # an axis may be taken for another by its length
            side = block if whole_blocks else block + 1
            yield uneven(side * side, side, block).reshape(side, side, side)
        for lines in lone_lines(block, whole_blocks):
            deep = lines[: len(lines) // 5 * 5].reshape(5, -1, lines.shape[1])
            yield np.ascontiguousarray(np.moveaxis(deep, -1, task.axis))
    if task.axis in (0, -1):
        yield np.resize(NUMBERS, 2 * block).astype(np.float32)


def _lead(lines: Array, left: int) -> None:
    """Puts the maximum of three lines last, midway and first in their last block, of `left` numbers."""
    for line, back in zip(lines, (1, 1 + left // 2, left), strict=True):
        line[-back] = -3 * np.abs(line).max()


def long_tensors(task: Task, whole_blocks: bool, named: Iterable[tuple[int, ...]]) -> Iterator[Array]:
    """Tensors with two and three long axes, of whose blocks none has its neighbours' scale; and named ones.

    The last blocks of lines are short, unless whole_blocks; of very long blocks there are fewer lines.
    """
    block = task.block.block
    for *lines, blocks in WIDE:
        length = max(WIDEST // block, 2 if block <= LONG else 1) * block if blocks else block
        length += 0 if whole_blocks else min(5, block - 1)
        lines[0] = max(1, min(lines[0], MOST_WIDE // (length * math.prod(lines[1:]))))
        if -1 - len(lines) <= task.axis <= len(lines):
            yield _turned(task, (*lines, length))
    for shape in named:
        at = task.axis % len(shape)
        yield _turned(task, (*shape[:at], *shape[at + 1 :], shape[at]))


def _turned(task: Task, shape: tuple[int, ...]) -> Array:
    """Uneven lines in such a shape, whose last axis is then the one along which blocks lie."""
    lines = uneven(math.prod(shape[:-1]), shape[-1], task.block.block).reshape(shape)
    return np.ascontiguousarray(np.moveaxis(lines, -1, task.axis))


def uneven(lines: int, length: int, block: int) -> Array:
    """Lines of which no block has the scale of its neighbours, in the line or beside it.

    >>> np.abs(uneven(2, 14, 7)).max(axis=1).tolist(), np.abs(uneven(2, 14, 7)[:, :7]).max(axis=1).tolist()
    ([4000.0, 64000.0], [1000.0, 16000.0])
    """
    shifts = (4 * np.arange(lines)[:, None] + 2 * (np.arange(length) // block)) % 13
    found: Array = np.ldexp(np.resize(NUMBERS, (lines, length)), shifts).astype(np.float32)
    return found


def lone_lines(block: int, whole_blocks: bool) -> Iterator[Array]:
    """Many lines of two blocks and one that is short or whole, whose maximum stands in every place.

    >>> [lines.shape for lines in lone_lines(4, False)]
    [(130, 9), (130, 10), (130, 11), (130, 12)]
    """
    lines = max(3, min(MANY_LINES, MANY_NUMBERS // block))
    lefts = range(1, block + 1) if block <= EVERY_LEFT else (1, 2, 3, block // 2, block - 1, block)
    for left in [block] if whole_blocks else lefts:
        found = uneven(lines, 2 * block + left, block)
        row = np.arange(lines)
        found[row, -1 - row % left] = np.where(row % 2, -1.0, 1.0) * np.abs(found).max(axis=1) * 3
        yield found


def long_lines(block: int) -> Iterator[Array]:
    """Lines of 4, of 10 and of many blocks and a short one of every length, whose maximum stands in it.

    >>> sorted({lines.shape for lines in long_lines(4)})[:4], len(list(long_lines(32)))
    ([(1, 4097), (1, 4098), (1, 4099), (3, 17)], 93)
    """
    lefts = range(1, block) if block <= EVERY_LEFT else (1, 2, 3, block // 2, block - 1)
    for blocks, lines in ((4, 3), (10, 3), (max(11, FAR_LINE // block), 1)):
        for left in lefts:
            found = uneven(lines, blocks * block + left, block)
            row = np.arange(lines)
            found[row, -1 - row % left] = 3 * np.abs(found).max(axis=1)
            yield found


def strided(task: Task, backward: bool = False) -> Iterator[Array]:
    """The same numbers in memory that is not contiguous: turned, stepped, with gaps, backward if asked."""
    block = task.block.block
    side = (
        2 * block if block <= LONG else block
    )  # of a square, whose rows are taken for its columns by its shape
    for rows, length in ((4, 2 * block), (side, side)):
        lines = placed(uneven(rows, length, block), task.axis)
        yield np.asfortranarray(lines)
        yield np.repeat(lines, 2, axis=-1)[..., ::2]
    long = placed(uneven(33, max(2, 160 // block) * block, block), task.axis)
    yield np.repeat(long, 3, axis=-1)[..., ::3]
    yield np.repeat(long, 2, axis=0)[::2]
    for gap in (1, 3, 16):
        yield np.pad(long, [(0, 0)] * (long.ndim - 1) + [(0, gap)])[..., : long.shape[-1]]
    yield np.broadcast_to(long[:1], long.shape)
    if -4 <= task.axis < 4:  # pictures whose channels lie nearest in memory, blocks along any axis
        pictures = _turned(task, (2, 3, 5, 2 * block))
        yield np.moveaxis(np.ascontiguousarray(np.moveaxis(pictures, 1, -1)), -1, 1)
    if backward:
        yield long[..., ::-1]
        yield long[::-1]
