"""A tensor too large for memory, cut into pieces that can be quantized one by one.

A piece is one slice an axis.  Pieces come in the order in which their codes lie in the packed bytes,
each ends on a whole byte, and none cuts a block or a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.random_bits import from_seed

Piece = tuple[slice, ...]


@dataclass(frozen=True)
class Cut:
    """Where a tensor may be cut: its axes in the order of the packed bytes; bits of one code.

    axis, size: the blocked axis, which is cut only between its blocks; None where there is none.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    bits: int
    axis: int | None = None
    size: int = 1

    def pieces(self, most: int, chunk: int = 1, limit: int = 0) -> Iterator[Piece]:
        """Pieces of at most that many elements, or the smallest that can be.

        chunk: each but the last holds whole chunks of so many elements, where one of at most `limit` can.
        """
        if not self.shape:
            return iter([()])
        depth, step = self._depth(most, chunk, limit)
        lengths = [self.shape[a] for a in self.order]
        outer = product(*(_cuts(n, 1) for n in lengths[:depth]), _cuts(lengths[depth], step))
        rest = [slice(0, n) for n in lengths[depth + 1 :]]
        return (self._in_axes([*leading, *rest]) for leading in outer)

    def _depth(self, most: int, chunk: int, limit: int) -> tuple[int, int]:
        """The axis that is cut, as a place in `order`, and how many of its indices a piece takes."""
        lengths = [self.shape[a] for a in self.order]
        for depth in range(len(lengths)):
            inner = max(math.prod(lengths[depth + 1 :]), 1)
            least = self._least(depth, inner)
            if inner * least <= most or not self._deeper(depth):
                break
        whole = math.lcm(least, chunk // math.gcd(chunk, inner))
        least = whole if inner * whole <= max(most, limit) else least
        return depth, max(most // inner // least, 1) * least

    def _least(self, depth: int, inner: int) -> int:
        """The fewest indices that end on a byte and between blocks."""
        whole = 8 // math.gcd(8, inner * self.bits)
        return math.lcm(whole, self.size if self.order[depth] == self.axis else 1)

    def _deeper(self, depth: int) -> bool:
        """May the next axis be cut?  Not beyond the blocked one, nor where this one's runs end in a byte."""
        if depth + 1 == len(self.order) or self.order[depth] == self.axis:
            return False
        run = math.prod(self.shape[a] for a in self.order[depth + 1 :])
        return run * self.bits % 8 == 0 or math.prod(self.shape[a] for a in self.order[: depth + 1]) == 1

    def _in_axes(self, slices: Sequence[slice]) -> Piece:
        found = [slice(0)] * len(self.shape)
        for axis, part in zip(self.order, slices, strict=True):
            found[axis] = part
        return tuple(found)


def _cuts(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def shape_of(piece: Piece) -> tuple[int, ...]:
    """How many indices of each axis a piece takes."""
    return tuple(part.stop - part.start for part in piece)


def size(piece: Piece) -> int:
    """Elements of a piece."""
    return math.prod(shape_of(piece))


def joined(pieces: Iterable[tuple[int, Piece]], every: int, most: int) -> Iterator[tuple[int, Piece]]:
    """Pieces with their numbers; those whose numbers `every` does not divide become longer, `most` at most.

    Pieces are in the order in which they were cut; a longer one has the first number of what it was.

    >>> pieces = enumerate([(slice(k, k + 2),) for k in range(0, 12, 2)])
    >>> [(number, part.start, part.stop) for number, (part,) in joined(pieces, 4, 4)]
    [(0, 0, 2), (1, 2, 6), (3, 6, 8), (4, 8, 10), (5, 10, 12)]
    """
    held: tuple[int, Piece] | None = None
    for number, piece in pieces:
        if held is not None and number % every and held[0] % every:
            longer = _one_of(held[1], piece)
            if longer is not None and size(longer) <= most:
                held = held[0], longer
                continue
        if held is not None:
            yield held
        held = number, piece
    if held is not None:
        yield held


def _one_of(piece: Piece, other: Piece) -> Piece | None:
    """A piece and the next one as one, where they differ along one axis and meet there; else None."""
    axes = [axis for axis, part in enumerate(piece) if part != other[axis]]
    if len(axes) != 1 or piece[axes[0]].stop != other[axes[0]].start:
        return None
    longer = slice(piece[axes[0]].start, other[axes[0]].stop)
    return (*piece[: axes[0]], longer, *piece[axes[0] + 1 :])


def runs(shape: tuple[int, ...], piece: Piece) -> Iterator[tuple[int, int]]:
    """(first, count) of the stretches of a C-ordered tensor that a piece covers, in C order.

    >>> list(runs((2, 10), (slice(0, 2), slice(4, 6))))
    [(4, 2), (14, 2)]
    """
    cut = [a for a, part in enumerate(piece) if part.stop - part.start < shape[a]]
    depth = cut[-1] if cut else 0
    strides = [math.prod(shape[a + 1 :]) for a in range(len(shape))]
    count = math.prod(shape_of(piece[depth:]))
    first = sum(part.start * stride for part, stride in zip(piece[depth:], strides[depth:], strict=True))
    for index in product(*(range(part.start, part.stop) for part in piece[:depth])):
        yield first + sum(i * stride for i, stride in zip(index, strides, strict=False)), count


def random_bits(seed: int, shape: tuple[int, ...], piece: Piece) -> NDArray[np.int32]:
    """The random bits of a piece's elements: those that the whole tensor would draw by that seed."""
    drawn = []
    for first, count in runs(shape, piece):
        skip = first % 4  # Philox gives four at a time
        drawn.append(from_seed(seed, count + skip, first - skip)[skip:])
    return np.concatenate(drawn or [np.empty(0, np.int32)]).reshape(shape_of(piece))
