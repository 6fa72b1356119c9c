"""Groups: which elements of a tensor share a scale, group by group."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.spread import spread
from numerics.tensor.scheme import Scheme

Array = NDArray[Any]


class Groups(NamedTuple):
    """Which elements share a scale: the scales' shape, each element's place, and the elements by groups."""

    shared: tuple[int, ...]
    places: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many elements each group has."""
        return np.diff(self.starts, append=len(self.order))

    def members(self, group: int) -> NDArray[np.int64]:
        """The elements of a group, counted in C order."""
        first = self.starts[group]
        return self.order[first : first + self.sizes[group]]

    def laid(self, x: Array, shape: tuple[int, ...]) -> Array:
        """The tensor of numbers that come group by group."""
        tensor = np.zeros_like(x)
        tensor[self.order] = x
        return tensor.reshape(shape)


@lru_cache(maxsize=4)
def groups_of(scheme: Scheme, shape: tuple[int, ...]) -> Groups:
    """The groups of a shape.

    >>> from numerics.conform.inputs.spread import sharing
    >>> groups_of(sharing("per_channel(1)"), (2, 2)).members(1).tolist()
    [1, 3]
    """
    shared, places = spread(scheme, shape)
    flat = places.reshape(-1)
    rising = bool((flat[1:] >= flat[:-1]).all())
    order = np.arange(flat.size) if rising else np.argsort(flat, kind="stable")
    flat = flat if rising else flat[order]
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)[: flat.size]
    return Groups(shared, places, order, starts)


def place_of_largest(x: NDArray[np.float32]) -> tuple[tuple[int, ...], float]:
    """Where the largest finite magnitude of an array stands, and which it is; 0 where none is finite.

    >>> place_of_largest(np.float32([[1, -3], [np.inf, 2]]))
    ((0, 1), 3.0)
    """
    finite = np.where(np.isfinite(x), np.abs(x), np.float32(0))
    at = tuple(int(place) for place in np.unravel_index(int(finite.argmax()), x.shape))
    return at, float(finite[at])
