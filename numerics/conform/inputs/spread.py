"""Arrays of scales: which element of a tensor has which scale, by channels, groups or blocks of two axes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.partition import as_shape, check_axis
from numerics.formats.errors import NumericsError, said
from numerics.tensor.scheme import Scheme, per_tensor

Sharing = Scheme | tuple[int, int]
SHAPES = ((5, 7), (16, 64), (33, 130), (3, 4, 40), (1, 96), (64, 1))
"""Whole groups and short ones, one row, one column, three axes."""


class Spread(NamedTuple):
    """The shape of the scales, and for each element the place of its own among them, counted in C order."""

    shared: tuple[int, ...]
    places: NDArray[np.int64]


def sharing(scheme: Any) -> Sharing:
    """A scheme, or rows and columns of a block; raises NumericsError for anything else.

    >>> sharing("per_group(32)"), sharing((128, 128)), sharing("128x64")
    (per_group(32, axis=-1), (128, 128), (128, 64))
    """
    both = re.fullmatch(r"(\d{1,9})x(\d{1,9})", scheme) if isinstance(scheme, str) else None
    if both is None and not isinstance(scheme, (tuple, list)):
        found = Scheme.parse(scheme)
        return found.block if found.block is not None else found
    sizes = as_shape([int(both[1]), int(both[2])] if both else scheme)
    if len(sizes) != 2 or min(sizes) < 1:
        raise NumericsError(f"scheme={said(scheme)}; allowed: a scheme, or (rows, columns) of a block")
    return sizes[0], sizes[1]


def spread(scheme: Sharing, shape: tuple[int, ...]) -> Spread:
    """Which elements of a shape share a scale.

    >>> spread((2, 2), (3, 4)).places.tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    >>> spread(sharing("per_channel(1)"), (2, 3)).places.tolist()
    [[0, 1, 2], [0, 1, 2]]
    """
    sizes = [1] * len(shape)
    if isinstance(scheme, tuple):
        sizes[-2:] = scheme
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
    at = [index // size for index, size in zip(np.indices(shape), sizes, strict=True)]
    return Spread(shared, np.asarray(np.ravel_multi_index(at, shared)))


def shapes_of(scheme: Sharing) -> list[tuple[int, ...]]:
    """Shapes that a scheme cuts; larger ones where its groups are large."""
    whole = scheme if isinstance(scheme, tuple) else (2, scheme.size or 1)
    found: list[tuple[int, ...]] = [(2 * whole[0] + 1, 2 * whole[1] + 3), (whole[0], 3 * whole[1])]
    if not isinstance(scheme, tuple) and scheme.axis is not None:
        found = [shape for shape in (*found, *(pair[::-1] for pair in found)) if -2 <= scheme.axis < 2]
    fits = [shape for shape in SHAPES if isinstance(scheme, tuple) or _has(scheme, shape)]
    return fits + found


def _has(scheme: Scheme, shape: tuple[int, ...]) -> bool:
    return scheme.axis is None or -len(shape) <= scheme.axis < len(shape)
