"""Arrays of scales: which element of a tensor has which scale, by channels, groups or blocks of two axes."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.partition import as_shape, check_axis
from numerics.formats.errors import NumericsError, said
from numerics.tensor.scheme import Scheme, per_tensor

Shapes = tuple[tuple[int, ...], ...]
SHAPES = (
    *((5, 7), (16, 64), (33, 130), (3, 4, 40), (1, 96), (64, 1), (300, 3), (3, 300)),
    *(
        (1, 5, 7),
        (4, 1, 6),
        (3, 5, 1),
        (1, 4, 3, 3),
        (2, 3, 1, 5),
        (2, 3, 4, 5),
        (1, 1, 4, 5),
        (2, 1, 3, 2, 4),
    ),
    *((6, 6), (5, 5, 5), (4, 4, 4, 4)),
)
"""Whole groups and short ones, one row, one column, two to five axes, batches of one, more scales
than a byte counts; axes of one length, of which one is taken for another by its length alone."""
FAR = 65541  # rows, or columns
TILED = ((259, 517), (512, 256), (3, 259, 261), (70, 71, 73), (3, 4, 67, 131))
"""Past tiles of 16 to 256 numbers along two axes and three, with some left over, and whole ones."""
TAILED = tuple((least + left, 64 + left) for left in range(1, 16) for least in (1, 16, 64))
"""Few rows, some and many, that leave over each number of columns of a tile of 16, and as many rows."""
LARGE = 1 << 14  # elements that share a scale: of more, few shapes are asked
EVERY = 512  # of so many the last group is asked in every length
MOST = 1 << 20  # elements that share a scale
MOST_NAMED, MOST_NUMBERS = 64, 1 << 26  # shapes that somebody names, and numbers of each


class Spread(NamedTuple):
    """The shape of the scales, and for each element the place of its own among them, counted in C order."""

    shared: tuple[int, ...]
    places: NDArray[np.int64]


def sharing(scheme: Any) -> Scheme:
    """A scheme, as `Scheme.parse` takes it; raises NumericsError for anything else.

    >>> sharing("per_group(32)"), sharing((128, 128)), sharing("128x64")
    (per_group(32, axis=-1), per_block((128, 128)), per_block((128, 64)))
    """
    return _judged(Scheme.parse(scheme))


def _judged(scheme: Scheme) -> Scheme:
    """The scheme, where arrays of some of its groups are made in memory; else raises NumericsError."""
    if math.prod(scheme.block or (scheme.size or 1,)) > MOST:
        raise NumericsError(f"scheme={scheme} is not judged: {MOST} elements may share a scale, and no more")
    return scheme


def spread(scheme: Scheme, shape: tuple[int, ...]) -> Spread:
    """Which elements of a shape share a scale.

    >>> spread(sharing((2, 2)), (3, 4)).places.tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    >>> spread(sharing("per_channel(1)"), (2, 3)).places.tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    sizes = [1] * len(shape)
    if scheme.block is not None:
        sizes[-2:] = scheme.block
    elif scheme == per_tensor():
        return Spread((), np.zeros(shape, np.int64))
    elif scheme.kind == "per_token":
        sizes[-1] = shape[-1]
    else:
        axis = check_axis(scheme.axis, shape)
        if scheme.size is None:
            places = np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))])
            return Spread((shape[axis],), np.broadcast_to(places, shape))
        sizes[axis] = scheme.size
    shared = tuple(-(-n // size) for n, size in zip(shape, sizes, strict=True))
    steps = [math.prod(shared[k + 1 :]) for k in range(len(shared))]
    places = np.zeros(shape, np.int64)  # one array alone: shapes past 2**24 are cut
    for index, size, step in zip(np.ogrid[tuple(map(slice, shape))], sizes, steps, strict=True):
        places += index // size * step
    return Spread(shared, places)


def shape_of(scheme: Scheme, size: int) -> tuple[int, ...]:
    """A shape of about so many numbers, of as few axes as the scheme cuts.

    >>> shape_of(sharing("per_channel(0)"), 96), shape_of(sharing("per_group(32)"), 96)
    ((10, 10), (3, 35))
    """
    axis, rank = scheme.axis or 0, rank_of(scheme)
    columns = (scheme.block or (1, scheme.size or 1))[1]
    wide = max(round(size**0.5), min(columns + 3, size // 2), 1)
    shape = [1] * rank
    shape[axis], shape[0 if axis % rank == rank - 1 else -1] = -(-size // wide), wide
    if scheme.size is not None:
        shape[axis], shape[0 if axis % rank == rank - 1 else -1] = wide, -(-size // wide)
    return tuple(shape)


def shapes_of(scheme: Scheme) -> list[tuple[int, ...]]:
    """Shapes that a scheme cuts; larger ones where its groups are large."""
    whole = scheme.block or (2, scheme.size or 1)
    found: list[tuple[int, ...]] = [(2 * whole[0] + 1, 2 * whole[1] + 3), (whole[0], 3 * whole[1])]
    side = max(whole) + 3
    found += [(side, side)] if side <= EVERY else []
    found += [
        (whole[0] + more[0], whole[1] + more[1])
        for more in zip_longest(*(_left_over(size, math.prod(whole)) for size in whole), fillvalue=0)
    ]
    if scheme.axis is not None:
        found = [shape for shape in (*found, *(pair[::-1] for pair in found)) if -2 <= scheme.axis < 2]
    return [shape for shape in SHAPES if _has(scheme, shape)] + _grids(scheme) + found


def _grids(scheme: Scheme) -> list[tuple[int, ...]]:
    """Shapes whose scales have axes of unlike lengths, none of them 1: to read them turned shows.

    >>> _grids(sharing((128, 128)))
    [(129, 257), (257, 129), (2, 257, 385)]
    >>> _grids(sharing("per_group(32)")), _grids(sharing("per_group(32, axis=2)"))[:2]
    ([(2, 65), (3, 33), (2, 3, 129)], [(2, 2, 65), (3, 3, 33)])
    """
    if scheme.block is not None:
        rows, columns = scheme.block
        deep = [(2, 2 * rows + 1, 3 * columns + 1)] * (rows * columns <= LARGE)
        return [(rows + 1, 2 * columns + 1), (2 * rows + 1, columns + 1), *deep]
    if scheme.axis is None or scheme.size is None:
        return []
    rank, found = rank_of(scheme), []
    grids = [([2] * rank, 3), ([3] * rank, 2), ([*range(2, 3 + rank)], 5)]
    for shape, groups in grids if scheme.size <= LARGE else grids[:2]:
        shape[scheme.axis] = (groups - 1) * scheme.size + 1
        found.append(tuple(shape))
    return found


def rank_of(scheme: Scheme) -> int:
    """The fewest axes, two at least, of which one is the scheme's.

    >>> rank_of(sharing("per_channel(0)")), rank_of(sharing("per_group(4, axis=-3)"))
    (2, 3)
    """
    axis = scheme.axis or 0
    return max(2, axis + 1, -axis)


def far_shapes(scheme: Scheme, effort: str) -> list[tuple[int, ...]]:
    """Shapes past every tile and with each number left over of one, and past 65,536 rows, or columns.

    Not if quick, of more numbers than 2**21.

    With the effort high also one of more than 2**24, past which float32 does not count.

    >>> far_shapes(sharing("per_token"), "quick")[:7]
    [(65541, 3), (3, 65541), (259, 517), (512, 256), (3, 259, 261), (70, 71, 73), (3, 4, 67, 131)]
    """
    found = [(FAR, 3), (3, FAR), *TILED, *TAILED]
    found += [(FAR, 33), (33, FAR)] * (effort != "quick") + [(FAR, 257)] * (effort == "high")
    return [shape for shape in found if _has(scheme, shape)]


def nothing_of(scheme: Scheme) -> list[tuple[int, ...]]:
    """Shapes of no numbers that a scheme cuts."""
    shapes = ((0, 3),) if scheme.kind == "per_token" else ((0, 3), (3, 0))
    return [shape for shape in shapes if _has(scheme, shape)]


def named_shapes(
    came: Any, kind: str, scheme: Scheme | None, axis: int | None = None, whole: int = 1
) -> Shapes:
    """Shapes of tensors that somebody wants to be asked, each of which the scheme cuts; none where none came.

    scheme: None where a kind has none, or its scales are no arrays.  axis: of blocks, along which they lie;
    whole: how many numbers their lines are a multiple of.
    Raises NumericsError for anything else.

    >>> named_shapes([(64, 5120), 768], "quantize", per_tensor())
    ((64, 5120), (768,))
    """
    if came is None:
        return ()
    if kind in ("pack", "unpack"):
        raise NumericsError(f"shapes={said(came)} is not for {kind!r}, whose codes lie in one line")
    given = list(came)[: MOST_NAMED + 1] if isinstance(came, (list, tuple)) else []
    found = tuple(map(as_shape, given))
    if not found or len(found) > MOST_NAMED or any(min(one, default=1) < 1 for one in found):
        raise NumericsError(f"shapes={said(came)}; allowed: 1 to {MOST_NAMED} shapes, as in [(64, 5120)]")
    if scheme is not None:
        axis = scheme.axis
    axes = max(axis + 1, -axis) if axis is not None else 2 if scheme is not None and scheme.block else 0
    beside = f" with {scheme}" if scheme is not None else f" along axis {axis}" if axis is not None else ""
    for shape in found:
        if len(shape) < axes or math.prod(shape) > MOST_NUMBERS:
            raise NumericsError(
                f"shapes={said(shape)}; allowed{beside}: {axes} axes or more, 2**26 numbers at most"
            )
        if axis is not None and shape[axis] % whole:
            raise NumericsError(f"shapes={said(shape)}; allowed{beside}: lines of whole blocks of {whole}")
    return found


def _left_over(size: int, shared: int) -> list[int]:
    """How many rows or columns the last group has: every number of small groups, of large ones some."""
    if shared <= EVERY:
        return list(range(1, size))
    return [1, 2, 3, size // 2, size // 2 + 1, size - 1] if shared <= LARGE else [1]


def _has(scheme: Scheme, shape: tuple[int, ...]) -> bool:
    return scheme.axis is None or -len(shape) <= scheme.axis < len(shape)
