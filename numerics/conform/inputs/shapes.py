"""The same numbers in other shapes and strides, and blocks along any axis: where kernels lose their place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.conform.takes import Takes
from numerics.conform.task import Array, Task

LENGTHS = (*range(72), 257, 1025, 70001)
"""Every remainder of lanes up to 64 wide, more than one block of threads, more than a cache."""
SHAPES = ((), (3, 5), (2, 3, 4), (0, 3), (2, 2, 3, 5))
SINGLES = np.array([1.0, -0.3, 0.7, 2.5, -1.25, 0.0, 3.3, -100.0, 0.01], np.float32)
"""Single numbers, all different, that short formats round and clip."""
EVERY = 37  # one code of so many in layouts: no power of two


def shaped(x: Array, takes: Takes) -> Iterator[Array]:
    """Arrays of many shapes filled with x; unless contiguous, strided, turned and reversed ones too.

    >>> from numerics.conform.takes import ANYTHING
    >>> x = np.float32([1, 2, 3])
    >>> len(list(shaped(x, ANYTHING))), len(list(shaped(x, Takes(contiguous=True))))
    (88, 75)
    """
    for length in LENGTHS:
        yield np.resize(x, length).astype(x.dtype)
    if takes.contiguous:
        return
    for shape in SHAPES:
        yield np.resize(x, shape).astype(x.dtype)
    yield np.resize(x, 64)[::2]
    yield np.resize(x, 64)[1::3]
    yield np.resize(x, (5, 9)).T
    yield np.resize(x, (5, 9))[:, 2:7]
    yield np.resize(x, (4, 5, 6)).transpose(2, 0, 1)
    yield np.broadcast_to(np.resize(x, 7), (3, 7))
    if takes.array == "numpy":  # torch has no negative strides
        yield np.resize(x, 33)[::-1]
        yield np.resize(x, (5, 9))[:, ::-1]


def places(count: int, x: Array, numbers: Array) -> Array:
    """Which of the numbers stands where in an array that `shaped` filled with them; all are different.

    >>> numbers = np.float32([1, 2, 3])
    >>> places(3, np.resize(numbers, (2, 2)), numbers).tolist()
    [[0, 1], [2, 0]]
    """
    order = np.argsort(numbers)
    return order[np.searchsorted(numbers[order], x)].reshape(x.shape) if count else np.zeros(x.shape, int)


def some_draws(shape: tuple[int, ...]) -> Array:
    """Random bits for stochastic rounding."""
    return np.random.default_rng(3).integers(0, 1 << 30, shape).astype(np.uint32)


def kept(x: Array) -> Array:
    """Returns the same numbers in memory of their own, of the same strides.

    >>> x = np.resize(np.float32([1, 2, 3]), (2, 6))[:, ::-2]
    >>> y = kept(x)
    >>> bool((x == y).all()), y.strides == x.strides, np.shares_memory(x, y)
    (True, True, False)
    """
    if not x.size or x.flags.c_contiguous:
        return x.copy()
    turned = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)
    return like(x[turned], x[turned])[turned]


def like(numbers: Array, x: Array) -> Array:
    """Numbers in memory of their own, with the order and the gaps of x; neither strides backward."""
    if not x.size or x.flags.c_contiguous:
        return np.array(numbers, order="C", copy=True)
    strides = tuple(stride // x.itemsize * numbers.itemsize for stride in x.strides)
    last = sum((n - 1) * stride for n, stride in zip(x.shape, strides, strict=True))
    room = np.zeros(last // numbers.itemsize + 1, numbers.dtype)
    found = np.lib.stride_tricks.as_strided(room, x.shape, strides)
    found[...] = numbers
    return found


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


def lengths(block: int) -> list[int]:
    """Lengths of the blocked axis: short blocks first, then whole ones.

    >>> lengths(4)
    [1, 2, 3, 5, 11, 0, 4, 8, 12]
    """
    short = sorted({1, 2, block - 1, block + 1, 2 * block + 3} - {0})
    return [n for n in short if n % block] + [0, block, 2 * block, 3 * block]


NUMBERS = np.array([0.3, 77.7, -0.0011, 1.9, -5.3, 3e-5, 1000.0], np.float32)
"""Numbers that no short format holds, of unlike magnitudes, so that neighbours show."""


def tensors(task: Task, whole_blocks: bool = False) -> Iterator[Array]:
    """Tensors of blocks with short last blocks (unless whole_blocks), whole ones, and more axes."""
    block = task.block.block
    for length in lengths(block):
        if whole_blocks and length % block:
            continue
        scales = np.array([1.0, 4096.0, 2.0**-12], np.float32)[:, None]
        yield placed(np.resize(NUMBERS, (3, length)).astype(np.float32) * scales, task.axis)
    deep = np.resize(NUMBERS, (2, 3, 2 * block if whole_blocks else block + 1)).astype(np.float32)
    if -3 <= task.axis <= 2:
        yield np.ascontiguousarray(np.moveaxis(deep, -1, task.axis))
    if task.axis in (0, -1):
        yield np.resize(NUMBERS, 2 * block).astype(np.float32)


def strided(task: Task) -> Iterator[Array]:
    """Returns the same numbers in memory that is not contiguous."""
    lines = placed(np.resize(NUMBERS, (4, 2 * task.block.block)).astype(np.float32), task.axis)
    yield np.asfortranarray(lines)
    yield np.repeat(lines, 2, axis=-1)[..., ::2]
