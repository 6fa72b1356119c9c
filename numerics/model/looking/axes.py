"""Where the axes of a parameter are in what is made of it: by sizes where it is reshaped, by strides else.

Of each axis of what is made it is noted which axis of the parameter it is, or a part of; None where that is
not known.  Several that lie in one are noted piece by piece, the innermost last, so that a reshaping that
takes them apart again finds them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, takewhile
from typing import Any, NamedTuple

import torch

from numerics.model.looking.products import MOVED, RESHAPED, TURNS, classified


class Piece(NamedTuple):
    """A part of an axis of a parameter: so many of its entries, each so many behind the one before."""

    axis: int | None
    size: int
    step: int = 1


Place = int | tuple[Piece, ...] | None
"""Which axis of a parameter an axis of what is made of it is: a whole one, pieces, or none that is known."""


def settled(place: Place) -> int | None:
    """The one axis that all of it is of, or else the one that its neighbours lie along."""
    if not isinstance(place, tuple):
        return place
    alone = {piece.axis for piece in place}
    return alone.pop() if len(alone) == 1 else place[-1].axis if place[-1].step == 1 else None


def inside(places: Sequence[Place]) -> list[int | None]:
    """Every axis of the parameter that lies in some axes."""
    every = [place if isinstance(place, tuple) else (Piece(place, 1),) for place in places]
    return [piece.axis for pieces in every for piece in pieces]


def agreed(one: Place, other: Place) -> Place:
    """What two ways to the same axis both say of it."""
    if one == other:
        return one
    known = settled(one)
    if known is None or known != settled(other):
        return None
    return (Piece(known, 1),)  # neighbours lie along it; a reshaping does not find more


def axes_of(view: Any, of: Any, axes: tuple[Place, ...], operation: str) -> tuple[Place, ...]:
    """The axes of what an operation made of a tensor, in what that is made of; None where that is not known.

    Strides tell where the result is a view; a reshaping, even one that copies, is one of the logical order.
    """
    shape, before = tuple(view.shape), tuple(of.shape)
    if operation in RESHAPED:
        return _reshaped(tuple(map(int, shape)), tuple(map(int, before)), axes)
    if shape == before and operation not in MOVED:
        return axes if classified(operation) and operation not in TURNS else (None,) * len(axes)
    if operation in MOVED or torch._C._is_alias_of(view, of):  # type: ignore[attr-defined]
        return _by_strides(shape, view.stride(), before, of.stride(), axes)
    if len(shape) == len(before):  # rows that were picked, tensors that were joined or repeated
        return tuple(
            tuple(_pieces(was, place)) if n > was > 1 else place
            for n, was, place in zip(shape, before, axes, strict=True)
        )
    if len(shape) > len(before):  # it was broadcast
        return (None,) * (len(shape) - len(before)) + axes
    kept = [one for one in combinations(range(len(before)), len(shape)) if _sizes(before, one) == shape]
    found = [{one[k] for one in kept} for k in range(len(shape))]
    return tuple(axes[places.pop()] if len(places) == 1 else None for places in found)


def _sizes(shape: tuple[int, ...], places: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[place] for place in places)


def _by_strides(
    shape: Any, strides: Any, before: Any, strides_before: Any, axes: tuple[Place, ...]
) -> tuple[Place, ...]:
    known = {s: axis for s, n, axis in zip(strides_before, before, axes, strict=True) if n != 1}
    return tuple(known.get(s) if n != 1 else None for s, n in zip(strides, shape, strict=True))


def _reshaped(shape: tuple[int, ...], before: tuple[int, ...], axes: tuple[Place, ...]) -> tuple[Place, ...]:
    """The axes after a reshaping: each takes, from the innermost on, as many values as its size says.

    Sizes that both begin or end with are of axes that stay as they are.
    """
    if 0 in shape or math.prod(shape) != math.prod(before):
        return (None,) * len(shape)
    first = _alike(shape, before)
    last = _alike(shape[first:][::-1], before[first:][::-1])
    inner, outer = slice(first, len(shape) - last), slice(first, len(before) - last)
    left = [piece for n, place in zip(before[outer], axes[outer], strict=True) for piece in _pieces(n, place)]
    made = reversed([_joined(_taken(n, left)) for n in reversed(shape[inner])])
    return (*axes[:first], *made, *axes[len(axes) - last :])


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many sizes both begin with."""
    return len(list(takewhile(lambda sizes: sizes[0] == sizes[1], zip(one, other, strict=False))))


def _pieces(n: int, place: Place) -> list[Piece]:
    """What lies in an axis of that size: of several some of which are gone, the innermost alone is known."""
    if not isinstance(place, tuple):
        return [Piece(place, n)]
    if math.prod(piece.size for piece in place) == n:
        return list(place)
    last = math.gcd(n, place[-1].size)
    return [Piece(None, n // last), place[-1]._replace(size=last)]


def _taken(n: int, left: list[Piece]) -> list[Piece]:
    """So many values off the end of what is left: whole pieces, or a part of one whose size n divides.

    Where neither is, the innermost piece says along what neighbours lie, and what is around it is not known.
    """
    found: list[Piece] = []
    while n > 1:
        piece = left.pop()
        if piece.size > n and piece.size % n == 0:
            left.append(piece._replace(size=piece.size // n, step=piece.step * n))
            piece = piece._replace(size=n)
        elif n % piece.size:
            whole = piece.size
            while whole % n:
                whole *= left.pop().size
            left.append(Piece(None, whole // n))
            piece = Piece(None, n) if found else piece._replace(size=n)
        found.insert(0, piece)
        n //= piece.size
    return found


def _joined(pieces: list[Piece]) -> Place:
    """Pieces as one axis: those of one axis that lie behind one another are one."""
    found: list[Piece] = []
    for piece in pieces:
        if piece.size == 1:
            continue
        before = found[-1] if found else None
        if before is not None and before.axis == piece.axis and before.step == piece.size * piece.step:
            found[-1] = piece._replace(size=before.size * piece.size)
        else:
            found.append(piece)
    if all(piece.axis is None for piece in found):
        return None
    return found[0].axis if len(found) == 1 and found[0].step == 1 else tuple(found)
