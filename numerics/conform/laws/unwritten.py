"""Does a result follow what its memory held: has the target left numbers of it as they were?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from numerics.conform.inputs.margins import UNUSED
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.targets.memory import OTHERWISE
from numerics.conform.targets.reading import arrays_of
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample

LAW = "written"
FILLINGS = (0, 1, 1, 0, 1, 0, 0, 1)
"""Which of two bytes memory holds, call by call: in no period, as what a target counts from call to call."""


def unwritten(target: Target, case: tuple[Any, ...]) -> str | None:
    """Which numbers of what comes for a case follow what memory held, in words; None where none does."""
    try:
        first = [_came(target, case, filling) for filling in FILLINGS[:2]]
        if not _alike(first) or not any((one != other).any() for one, other in zip(*first, strict=True)):
            return None
        every = [*first, *(_came(target, case, filling) for filling in FILLINGS[2:])]
    except Fault:
        return None
    if not _alike(every):
        return None
    arrays = list(zip(*every, strict=True))
    left = [np.logical_and.reduce([_is_filled(x, f) for x, f in _with(array)]) for array in arrays]
    led = [_led(array) for array in arrays]
    if target.takes.fills or any(part.any() for part in left):
        found = [
            one if target.task.draws_itself else one | other for one, other in zip(left, led, strict=True)
        ]
    elif target.task.draws_itself or not all(map(_is_all_that_changes, arrays, led)):
        return None
    else:
        found = led
    return _told(found)


def as_unwritten(broken: Counterexample, said: str) -> Counterexample:
    """The counterexample of another law, of this one; said: which numbers of its result are not written."""
    where = "; ".join(part for part in (broken.where, said) if part)
    return replace(broken, law=LAW, sentence=SENTENCES[LAW], where=where)


def left_alone(x: Array, said: str) -> Counterexample:
    """The counterexample of a call that was asked for this alone; x: the first array that was given."""
    where = f"an input of shape {x.shape}; {said}"
    return Counterexample(
        LAW, SENTENCES[LAW], (), "what memory held", "numbers that the target writes", where=where, tensor=x
    )


def _came(target: Target, case: tuple[Any, ...], filling: int) -> list[Array]:
    """The bytes of each number of what comes where memory held that filling before."""
    with target.holding(UNUSED ^ OTHERWISE * filling):
        came = arrays_of(target.called(*case), target.arrays_in(case))
    plain = (x.astype(np.float64) if x.dtype.char == "g" else x for x in came)  # a long double has idle bytes
    return [np.ascontiguousarray(x).reshape(*x.shape, 1).view(np.uint8) for x in plain]


def _alike(every: list[list[Array]]) -> bool:
    """Have results of all calls the same shapes?"""
    return len({tuple(x.shape for x in came) for came in every}) == 1


def _with(array: tuple[Array, ...]) -> zip[tuple[Array, int]]:
    return zip(array, FILLINGS, strict=True)


def _is_filled(x: Array, filling: int) -> Array:
    """Which numbers are nothing but that filling."""
    return np.asarray((x == UNUSED ^ OTHERWISE * filling).all(axis=-1))


def _led(array: tuple[Array, ...]) -> Array:
    """Which numbers are the same in all calls of one filling, and others in those of the other one."""
    zero, one = ([x for x, filling in _with(array) if filling == wanted] for wanted in (0, 1))
    same = [np.logical_and.reduce([(x == some[0]).all(axis=-1) for x in some]) for some in (zero, one)]
    return np.asarray(same[0] & same[1] & (zero[0] != one[0]).any(axis=-1))


def _is_all_that_changes(array: tuple[Array, ...], led: Array) -> bool:
    """Does no other number change from call to call, as it does by chance?"""
    changes = np.logical_or.reduce([(x != array[0]).any(axis=-1) for x in array])
    return bool((changes == led).all())


def _told(found: list[Array]) -> str | None:
    for number, wrong in enumerate(found, 1):
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            which = f" of array {number} of {len(found)}" if len(found) > 1 else ""
            count = f"{int(wrong.sum())} of {wrong.size} numbers of its result follow what memory held"
            return f"{count}, the first at {at}{which}"
    return None
