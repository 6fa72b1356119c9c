"""Places of tensors that the explorer is asked for: indices, and rows, of which all pieces are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from numerics.formats.errors import NumericsError, integer, said
from numerics.view.text import some_of

Place = tuple[int, ...]


def places_of(at: Any) -> list[Place]:
    """The indices that `at=` asks for: an integer, the numbers of one index, or several of either in a list.

    >>> places_of(3), places_of((3, 64)), places_of([3, (5, 0)])
    ([(3,)], [(3, 64)], [(3,), (5, 0)])
    """
    if at is None:
        return []
    return [_place(one) for one in at] if isinstance(at, list) else [_place(at)]


def _place(one: Any) -> Place:
    parts = one if isinstance(one, tuple) else (one,)
    found = tuple(integer("a number of at=", part) for part in parts)
    if not found or min(found) < 0:
        raise NumericsError(
            f"at= takes a row, an index as (row, column), or a list of them, from 0 on, not {said(one)}"
        )
    return found


def is_in(place: Place, shape: Iterable[int]) -> bool:
    """Does a tensor of that shape have the place?  What a short index leaves out may be any number."""
    sizes = tuple(shape)
    return len(place) <= len(sizes) and all(k < size for k, size in zip(place, sizes, strict=False))


def check_somewhere(places: Iterable[Place], shapes: Mapping[str, Iterable[int]]) -> None:
    """Raises NumericsError for a place that no tensor has."""
    for place in places:
        if not any(is_in(place, shape) for shape in shapes.values()):
            some = some_of([f"{name} {tuple(shape)}" for name, shape in shapes.items()], 3)
            raise NumericsError(f"at={said(place)}: no tensor has that place; there are {some}")


def pieces_at(places: Iterable[Place], shape: tuple[int, ...], axis: int, length: int) -> list[int]:
    """The numbers of the pieces that hold these places, in the order in which they were asked for.

    Pieces of `length` elements lie along the axis and are counted with that axis last; shape: of the tensor.

    >>> pieces_at([(1,)], (2, 64), 1, 32), pieces_at([(33, 1)], (64, 2), 0, 32)
    ([2, 3], [3])
    """
    sizes = (*shape[:axis], *shape[axis + 1 :], -(-shape[axis] // length))
    numbers = np.moveaxis(np.arange(np.prod(sizes, dtype=int)).reshape(sizes), -1, axis)
    found: list[int] = []
    for place in places:
        if is_in(place, shape):
            index = tuple(k // length if a == axis else k for a, k in enumerate(place))
            found += np.atleast_1d(numbers[index]).ravel().tolist()
    return list(dict.fromkeys(found))
