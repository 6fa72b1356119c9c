"""A result stays as it was returned: no later call writes into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from numerics.conform.inputs.drawn import random_inputs
from numerics.conform.inputs.margins import UNUSED
from numerics.conform.laws.again import answers
from numerics.conform.laws.findings import Findings, Trial, layout, place_or_chance, repeatable
from numerics.conform.laws.law import sentence
from numerics.conform.laws.questions import Question, drawn_question, in_place, in_question, question_of
from numerics.conform.targets.reading import arrays_of, check_same_form
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample

BUFFERS, FEW, SHORT = 17, 3, 1 << 10  # calls after one; of arrays of more numbers than SHORT, a few
USED_AGAIN = "a buffer that is used again"
SIZES = (2, 7, 96, 5000, 70001, 131_101)  # numbers of a call: buffers may be of results of one size


def _drawn(target: Target) -> Iterator[Question]:
    """What the target is asked, call by call; the first array has two rows or more, or numbers."""
    task, rng = target.task, np.random.default_rng(23)
    for size in SIZES:
        if task.draws_itself:  # nothing is due to it, and nothing need be
            x = target.asked(random_inputs(task.element, size, rng).view(np.float32))
            yield Question((x,), x)
        else:
            yield drawn_question(target, size, rng)


def trial() -> Trial:
    """Calls of one shape, and a look at what the first returned: buffers that are used in turn show.

    Both are compared with what is due, too: a wrong answer may always be the same.
    """
    return Trial((layout, repeatable), _stays)


def _stays(target: Target, found: Findings) -> None:
    for question in _drawn(target):
        if found.failures or not question.inputs[0].size:
            continue
        if not target.task.draws_itself:
            _compare(target, found, question)
        if not found.failures:
            _stays_once(target, found, in_place(target.task, question.inputs))


def _compare(target: Target, found: Findings, question: Question) -> None:
    """The same question, and its numbers in another order, beside what is due to them.

    The other one where memory holds what is due to none: the memory of earlier results may hold it.
    """
    x, *others = question.inputs
    rolled = question_of(target.task, (np.roll(x, 1, axis=0), *others))
    for one, memory in ((question, nullcontext()), (rolled, target.holding(UNUSED))):
        with memory:
            came, due = answers(target, one)
        wrong = target.task.differs(came, due)
        found.tried += wrong.size
        if wrong.any():
            with target.holding(UNUSED):
                law = place_or_chance(wrong, target.task.differs(*answers(target, one)))
            found.failures.append(in_question(target.task, one, (came, due), wrong, law))
            found.differs += int(wrong.sum())
            return


def _stays_once(target: Target, found: Findings, question: tuple[Any, ...]) -> None:
    first, *others = question
    kept = target.called(first, *others)
    before = [array.copy() for array in arrays_of(kept, (first,))]
    for turn in range(1, 1 + (FEW if first.size > SHORT else BUFFERS)):
        target.called(np.roll(first, turn, axis=-1 if first.shape[0] == 1 else 0), *others)
    for one, other in zip(before, arrays_of(kept, (first,)), strict=True):
        check_same_form(one, other, (first,))
        changed = (bytes_of(one) != bytes_of(other)).any(axis=-1)
        if changed.any():
            found.failures.append(_shown(first, one, other, changed))
            return


def bytes_of(x: Array) -> Array:
    """The bytes of each element, along an axis of their own: NaN is one of many."""
    return np.ascontiguousarray(x).reshape(*x.shape, 1).view(np.uint8)


def _shown(x: Array, before: Array, after: Array, changed: Array) -> Counterexample:
    at = tuple(int(i) for i in np.argwhere(changed)[0])
    return Counterexample(
        repeatable.__name__, sentence(repeatable), (), f"{after[at]!s}, after another call",
        f"{before[at]!s}, as it was returned", int(changed.sum()),
        f"at {at} of an earlier result: {USED_AGAIN}", x,
    )  # fmt: skip
