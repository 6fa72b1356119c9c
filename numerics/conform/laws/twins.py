"""Questions that a careless key of a cache takes for one, and the same question in a shape that is new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from numerics.conform.deviations.affine import PARAMETERS
from numerics.conform.laws.questions import Question, ask, in_kind, question_of
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Task

HEAD = 1024  # numbers that two such questions begin with; a key may be made of these
ENDS = 8  # numbers at either end
SHORT, LEAST = 300, 64  # numbers of a question, at most, of which fewer are its head, and how many
ROWS = 64  # rows of such a head, where rows are not the lines of memory
NEW = (1009, 2003)  # numbers, or rows, by which a question is longer than any of its trial

Inputs = tuple[Any, ...]


class Twin(NamedTuple):
    """Other inputs of the same shapes; alike: in what they are alike, in words."""

    alike: str
    inputs: Inputs


def twins(task: Task, inputs: Inputs) -> Iterator[Twin]:
    """Inputs that have the same numbers, the same ends, the same head, the same magnitudes; or the same x.

    >>> from numerics.formats import fp4
    >>> [twin.inputs[0][::6].tolist() for twin in twins(Task.of(fp4), (np.float32(range(24)),))]
    [[23.0, 17.0, 11.0, 5.0], [0.0, 6.0, 11.0, 18.0], [0.0, 6.0, 12.0, 18.0], [-0.0, -6.0, -12.0, -18.0]]
    """
    x, *others = inputs
    line = np.ascontiguousarray(x).reshape(-1)
    yield Twin("of the same numbers", (_shaped(line[::-1], x), *others))
    inner = np.concatenate(
        [line[:ENDS], line[ENDS : line.size - ENDS][::-1], line[max(ENDS, line.size - ENDS) :]]
    )
    yield Twin("of the same numbers, that begin and end alike", (_shaped(inner, x), *others))
    yield Twin("alike in a long head, at their ends and in each second number", (_headed(task, x), *others))
    if x.dtype == np.float32:
        yield Twin("of the same magnitudes", (-x, *others))
    if others and task.kind != "unpack":
        yield Twin("of the same numbers, with others beside them", (x, *_others(task, others)))
    if task.draws:
        alike = (_headed(task, part) for part in others)
        yield Twin("of the same numbers, with random bits that begin and end alike", (x, *alike))


def _shaped(line: Array, x: Array) -> Array:
    return np.ascontiguousarray(line).reshape(x.shape)


def _headed(task: Task, x: Array) -> Array:
    """The same but for each second number past the head and before the end, which stand in another order."""
    found = np.array(x)
    line = found.reshape(-1)
    head = LEAST if line.size <= SHORT else HEAD
    if x.ndim > 1 and task.axis not in (-1, x.ndim - 1):  # rows of blocks whose numbers lie apart
        head = max(head, ROWS * x.shape[-1])
    at = np.arange(min(head, line.size // 2) | 1, line.size - ENDS, 2)
    line[at] = np.roll(line[at][::-1], 1)
    return found


def _others(task: Task, others: list[Any]) -> Inputs:
    """Random bits, scales and zero points from last to first; of single ones, others."""
    if all(np.ndim(part) for part in others):
        return tuple(np.ascontiguousarray(np.flip(part)) for part in others)
    pair = next(pair for pair in PARAMETERS if pair != tuple(others))
    return tuple(
        np.asarray(new, part.dtype) if isinstance(part, np.ndarray) else new
        for new, part in zip(pair, others, strict=True)
    )


# ---- the same in another shape ---------------------------------------------------------------------


def longer(task: Task, inputs: Inputs, more: int) -> Inputs | None:
    """The same with so many of their last numbers, or rows, once more at the end; None of other kinds.

    Their first number and their last one are the same, and no number, or block, is new.

    >>> from numerics.formats import fp4
    >>> longer(Task.of(fp4), (np.float32([1, 2, 3]),), 2)[0].tolist()
    [1.0, 2.0, 3.0, 2.0, 3.0]
    """
    if task.kind == "unpack" or task.scheme is not None or not len(inputs[0]):
        return None
    return tuple(np.concatenate([part, _last(part, more)]) if np.ndim(part) else part for part in inputs)


def _last(part: Array, more: int) -> Array:
    """So many of the last numbers, or rows, of all of them again and again."""
    return part[(np.arange(-more, 0) % len(part))]


def wrong_as_first(target: Target, inputs: Inputs) -> bool:
    """Are they wrong as the first question of a shape, too?  Then no call before them has to do with it."""
    every = [longer(target.task, inputs, more) for more in NEW]
    return all(one is not None and is_wrong_now(target, question_of(target.task, one)) for one in every)


def is_wrong_now(target: Target, question: Question) -> bool:
    """Is anything wrong of a question, asked now?"""
    try:
        came = ask(target, question)
        return bool(in_kind(target.task, question, came).wrong(target.task, came).any())
    except Fault:
        return True
