"""Tensors of every number of scales: what tiles of scales leave over, and of one scale alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.conform.inputs.spread import rank_of
from numerics.tensor.scheme import Scheme

COUNTS = range(1, 131)
"""Numbers of scales: every remainder of tiles of up to 64, and of 128."""
ROOM = 1 << 21  # numbers of all tensors of one kind: of long groups, fewer counts are asked
WIDE = 5  # numbers that have a scale where groups have no length of their own
FEW = ((1,), (7,), (96,), (1, 1), (1, 7), (1, 96), (1, 1, 1), (1, 1, 40))
"""Shapes of one row, or one number, which are asked again and again, each time with other scales."""
TIMES = 4

Shape = tuple[int, ...]


def counted(scheme: Scheme) -> Iterator[Shape]:
    """Shapes of 1 to 130 scales along each axis that a scheme cuts, whose last group may be short.

    >>> [len(list(counted(Scheme.parse(text)))) for text in ("per_tensor", "per_token", "per_group(32)")]
    [0, 130, 260]
    >>> list(counted(Scheme.parse("per_group(32)")))[2:5]
    [(1, 65), (1, 97), (1, 129)]
    """
    if scheme.kind == "per_tensor":
        return
    if scheme.block is not None:
        yield from _along([1, 1], -1, scheme.block[1], scheme.block[0])
        yield from _along([1, 1], -2, scheme.block[0], scheme.block[1])
        return
    rank = rank_of(scheme)
    axis = 0 if scheme.axis is None else scheme.axis % rank
    other = 0 if axis == rank - 1 else rank - 1
    shape = [1] * rank
    if scheme.size is None:
        shape[other] = WIDE
        yield from _along(shape, axis, 1, WIDE)
        return
    yield from _along(shape, axis, scheme.size, 1)
    shape[axis] = min(scheme.size, WIDE)
    yield from _along(shape, other, 1, scheme.size)


def _along(shape: list[int], axis: int, size: int, wide: int) -> Iterator[Shape]:
    """So many groups along an axis, of one number the last; wide: numbers beside each, in whole groups."""
    room = ROOM
    for count in COUNTS:
        room -= count * size * wide
        if room < 0:
            return
        found = [*shape]
        found[axis] = (count - 1) * size + 1
        yield tuple(found)


def few(scheme: Scheme) -> Iterator[Shape]:
    """Shapes of one row, or one number, each several times.

    >>> list(dict.fromkeys(few(Scheme.parse("per_channel(1)"))))
    [(1, 1), (1, 7), (1, 96), (1, 1, 1), (1, 1, 40)]
    """
    for _ in range(TIMES):
        yield from ((),) * (scheme.kind == "per_tensor")
        yield from (shape for shape in FEW if _cuts(scheme, shape))


def _cuts(scheme: Scheme, shape: Shape) -> bool:
    if scheme.block is not None:
        return len(shape) >= len(scheme.block)
    return scheme.axis is None or -len(shape) <= scheme.axis < len(shape)


def unlike(count: int, kinds: int, first: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Which of some kinds each of so many scales is: never that of the one beside it.

    >>> unlike(5, 3, 2).tolist()
    [2, 0, 1, 2, 0]
    """
    return (np.arange(count) + first) % kinds
