"""Numbers that are drawn by a seed: what goes wrong once in many, and what no list of inputs names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numerics.conform.effort import Effort
from numerics.conform.laws import again, beside, filled, frozen, stays
from numerics.conform.laws.findings import Findings, Trial, misplaced, place_or_chance
from numerics.conform.laws.questions import Question, as_given, ask, drawn_question, in_kind
from numerics.conform.takes import Takes
from numerics.conform.targets.target import Target
from numerics.conform.task import Answer, Array, Fields, Task
from numerics.conform.verdict import Counterexample

CHUNK = 1 << 18  # numbers of a call
SHOWN = 64  # wrong ones that are asked again, alone

Named = Callable[[Target, Findings, Question, Array], None]
"""Judges the wrong places of a question by the laws of its kind, each alone."""


def repeated(task: Task, takes: Takes, effort: Effort, named: Named | None = None) -> Iterator[Trial]:
    """The trials that ask again what was asked, from two threads, and what is drawn."""
    if effort.calls:
        yield again.trial(effort)
    yield stays.trial()
    if frozen.asks(takes):
        yield frozen.trial()
    if filled.asks(task, takes):
        yield filled.trial()
    if effort.rounds and not takes.one_thread:
        yield beside.trial(effort)
    if effort.drawn:
        yield Trial((), lambda target, found: _drawn(target, found, effort, named))


def _drawn(target: Target, found: Findings, effort: Effort, named: Named | None) -> None:
    rng = np.random.default_rng((17, effort.seed))
    left = effort.drawn
    while left > 0 and not found.failures:
        size = min(left, CHUNK)
        left -= size
        question = drawn_question(target, size, rng)
        found.tried += size
        came = ask(target, question)
        question = in_kind(target.task, question, came)
        wrong = question.wrong(target.task, came)
        if wrong.any():
            _judge(target, found, question, (came, wrong), named)


def _judge(
    target: Target, found: Findings, question: Question, answer: tuple[Answer, Array], named: Named | None
) -> None:
    """By the laws, where what is wrong is wrong alone; else by what it depends on."""
    came, wrong = answer
    differs = found.differs + int(wrong.sum())
    if named is not None:
        named(target, found, question, np.flatnonzero(wrong)[:SHOWN])
    found.differs = differs  # those that were asked again are among them
    if found.failures:
        return
    still = question.wrong(target.task, ask(target, question))
    broken = _shown(question, came, wrong, place_or_chance(wrong, still))
    found.failures.append(as_given(target.task, question, broken))


def _shown(question: Question, came: Answer, wrong: Array, law: Any) -> Counterexample:
    one, other = _first_unequal(came, question.due)
    unequal = (one != other) & wrong.reshape(len(wrong), *[1] * (one.ndim - 1))
    return misplaced(question.inputs[0], one, other, unequal if unequal.any() else wrong, law)


def _first_unequal(came: Answer, due: Answer) -> tuple[Array, Array]:
    """Answers as arrays; of blocks, the first field that differs."""
    if not isinstance(came, Fields) or not isinstance(due, Fields):
        return np.asarray(came), np.asarray(due)
    both = zip(came, due, strict=True)
    pairs = [(one, other) for one, other in both if one is not None and other is not None]
    return next((pair for pair in pairs if (pair[0] != pair[1]).any()), pairs[0])
