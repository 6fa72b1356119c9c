"""Laws of what stands beside a number, and of the calls before it; and where such a one is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from numerics.conform.inputs.shapes import steps_of
from numerics.conform.laws.law import sentence
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample, numbers

Named = Callable[..., Any]
"""What has a law's name and sentence."""
Asked = TypeVar("Asked")
LONGER = (3, 5, 9, 14)  # rows, numbers or blocks by which a call is longer than any before it
TIRED = 40  # calls of one shape, after which a kernel may take another way
WARMED = 3  # times that two questions are asked: what records a graph of calls does so after three of them


def layout() -> None:
    """A result depends on the numbers alone, not on shape, strides or place in memory."""


def short_block() -> None:
    """A last block that is short is padded with zeros that take part in nothing."""


def repeatable() -> None:
    """The same input gives the same result, whenever it is asked and whatever is asked beside it."""


def place_or_chance(wrong: Array, still: Array) -> Named:
    """layout where the same array, asked once more, is wrong in the same places; else repeatable."""
    return layout if bool((wrong == still).all()) else repeatable


def keeps_by_shape(
    both: Callable[[int], Iterable[Asked]], wrong: Callable[[Asked], bool], times: int = WARMED
) -> bool:
    """Is the first call of each new shape right, and one of those that follow, of other numbers, wrong?

    both: two questions of one shape, which is longer by so many, and of which the same is right and wrong in
    each shape, if no call before it decides.  Each comes first at some shapes, and second at the others: it
    is the call that decides, the second one of a cache, a later one of what is recorded.
    """
    for turn, more in enumerate(LONGER):
        first, second = list(both(more))[:: -1 if turn % 2 else 1]
        if wrong(first) or not any(wrong(one) for one in (second, first) * times):
            return False
    return True


def tires(both: Callable[[int], Iterable[Asked]], wrong: Callable[[Asked], bool]) -> bool:
    """Is the first call of each new shape right, and a later one of the same numbers wrong?"""
    for more in LONGER[:2]:
        first = next(iter(both(more)))
        if wrong(first) or not any(wrong(first) for _ in range(TIRED)):
            return False
    return True


def as_of(broken: Counterexample, law: Named, said: str) -> Counterexample:
    """The same counterexample, of another law; said: why, behind where it was found."""
    where = "; ".join(part for part in (broken.where, said) if part)
    return replace(broken, law=law.__name__, sentence=sentence(law), where=where)


def misplaced(x: Array, came: Array, due: Array, wrong: Array, law: Named = layout) -> Counterexample:
    """A counterexample that is an array's shape and strides: the first element that is wrong."""
    at = tuple(int(place) for place in _first(wrong))
    shown = numbers(x[at]) if x.shape == wrong.shape and x.dtype.name == "float32" else ()
    own = "" if x.shape == wrong.shape else f"results of shape {wrong.shape}, of "
    where = f"at {at} of {own}an array of shape {x.shape}, strides {steps_of(x)}"
    return Counterexample(
        law.__name__, sentence(law), shown, f"{came[at]!s}", f"{due[at]!s}", int(wrong.sum()), where, x
    )


def _first(wrong: Array) -> tuple[Any, ...]:
    return tuple(np.argwhere(wrong)[0])  # of no axes: ()
