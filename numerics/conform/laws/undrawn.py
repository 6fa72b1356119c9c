"""Kernels that draw for themselves: all that no draw decides, and that every place of an array is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from numerics.conform.effort import Effort
from numerics.conform.inputs import matrices, shapes
from numerics.conform.inputs.drawn import random_inputs
from numerics.conform.inputs.spread import Shapes
from numerics.conform.laws import chance, frozen, lanes, places, stays, streams
from numerics.conform.laws.elements import Elements, draws, element_laws, filling, numbers_of
from numerics.conform.laws.findings import Findings, Trial, layout, misplaced
from numerics.conform.laws.law import Law
from numerics.conform.takes import Takes
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Float32, Task

CHUNK = 1 << 18  # numbers of a call
SOME, SELDOM = 8, 0.01  # wrong numbers that are drawn again, and in what part of draws one is wrong by chance


def trials(task: Task, takes: Takes, effort: Effort, named: Shapes = ()) -> Iterator[Trial]:
    """What draws must not change, in every shape and in those that are named, and then the draws."""
    yield Trial(_laws(task), _everything)
    yield Trial((layout,), lambda target, found: _layouts(target, found, named))
    yield lanes.trial(neighbours)
    yield chance.trial(effort)
    yield places.trial()
    yield streams.trial(effort)
    yield stays.trial()
    if frozen.asks(takes):
        yield frozen.trial()
    if effort.rounds and not takes.one_thread:
        yield streams.trial_of_threads()
    if effort.drawn:
        yield Trial((), lambda target, found: _many(target, found, effort))


def _laws(task: Task) -> tuple[Law, ...]:
    """All but the one that random bits decide."""
    return tuple(law for law in element_laws(task) if law is not draws)


def neighbours(target: Target, x: Array, came: Array) -> Array:
    """What came, where it is one of the two values beside a number; else the one nearer to zero.

    Numbers that are values, specials and what rounds past the largest either way have one answer.
    """
    task = target.task
    below, above = chance.either(task, x)
    right = ~task.differs(came, below) | ~task.differs(came, above)
    return np.where(right, came, np.where(np.signbit(x), above, below))


def _judge(target: Target, found: Findings, x: Float32) -> None:
    came = target.elements(x)
    found.tried += len(x)
    seen = Elements(target.task, x, came, neighbours(target, x, came))
    found.judge(_laws(target.task), seen)
    if found.failures:
        _by_chance(target, found, x[seen.wrong])


def _by_chance(target: Target, found: Findings, wrong: Float32) -> bool:
    """Whether one of the numbers that were wrong is so in some draws alone; if so, all that is told.

    Such a number breaks the law of what it is, wherever it stands.
    """
    for number in wrong[:SOME]:
        x = np.full(CHUNK, number, np.float32)
        came = target.elements(x)
        seen = Elements(target.task, x, came, neighbours(target, x, came))
        if 0 < seen.wrong.mean() < SELDOM:
            found.failures.clear()
            found.judge(_laws(target.task), seen)
            said = f"in {int(seen.wrong.sum())} of {CHUNK} draws"
            found.failures[:] = [replace(broken, where=said, tensor=None) for broken in found.failures]
            return True
    return False


def _everything(target: Target, found: Findings) -> None:
    """Exact numbers, specials, overflow, the sign of zero; any other becomes one of its neighbours."""
    _judge(target, found, numbers_of(target))


def _layouts(target: Target, found: Findings, named: Shapes) -> None:
    """The same of other shapes and strides."""
    numbers = filling(target)
    tailed = matrices.tailed(numbers, target.takes, matrices.Share.FEW)
    for x in chain(shapes.shaped(numbers, target.takes, named), tailed):
        came = target.elements(x)
        due = neighbours(target, x, came)
        found.tried += x.size
        wrong = target.task.differs(came, due)
        if wrong.any():
            found.differs += int(wrong.sum())
            if _by_chance(target, found, x[wrong]):
                return
            found.failures.append(misplaced(x, came, due, wrong))
            return


def _many(target: Target, found: Findings, effort: Effort) -> None:
    """The same of numbers that are drawn by a seed."""
    rng = np.random.default_rng((17, effort.seed))
    for start in range(0, effort.drawn, CHUNK):
        if not found.failures:
            drawn = random_inputs(target.task.element, min(CHUNK, effort.drawn - start), rng)
            _judge(target, found, target.asked(drawn.view(np.float32)))
