"""The same numbers in other shapes and strides, and blocks along any axis: where kernels lose their place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.conform.task import Array, Task

SHAPES = ((0,), (), (1,), (2,), (3,), (7,), (31,), (33,), (257,), (1025,), (3, 5), (2, 3, 4), (0, 3))


def shaped(x: Array, contiguous: bool = False) -> Iterator[Array]:
    """Arrays of many shapes filled with x; unless contiguous, strided, turned and reversed ones too.

    >>> len(list(shaped(np.float32([1, 2, 3])))), len(list(shaped(np.float32([1, 2, 3]), contiguous=True)))
    (17, 9)
    """
    for shape in SHAPES:
        if not contiguous or len(shape) == 1:
            yield np.resize(x, shape).astype(x.dtype)
    if contiguous:
        return
    yield np.resize(x, 64)[::2]
    yield np.resize(x, 64)[1::3]
    yield np.resize(x, (5, 9)).T
    yield np.resize(x, (5, 9))[:, 2:7]


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
    [1, 2, 3, 5, 11, 0, 4, 8]
    """
    short = sorted({1, 2, block - 1, block + 1, 2 * block + 3} - {0})
    return [n for n in short if n % block] + [0, block, 2 * block]


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


def strided(task: Task) -> Iterator[Array]:
    """The same numbers in memory that is not contiguous."""
    lines = placed(np.resize(NUMBERS, (4, task.block.block)).astype(np.float32), task.axis)
    yield np.asfortranarray(lines)
    yield np.repeat(lines, 2, axis=-1)[..., ::2]
