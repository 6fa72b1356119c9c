"""Which dialects does a kernel speak?  The fewest known deviations that explain all that it returned.

One after the other the deviations are put on that explain most, until nothing is left, or nothing helps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations import affine, elements, places
from numerics.conform.deviations.deviation import as_values, bent
from numerics.conform.deviations.draws import drawings
from numerics.conform.deviations.table import AFFINE_DIALECTS, DIALECTS, REVERSED, Dialect
from numerics.conform.inputs.rescale import values_at
from numerics.conform.task import Answer, Array, Fields, Task, answers_at
from numerics.formats.block import Block

Seen = Any  # what was observed of a kernel with scales: the Scaled of conform/laws/affine.py
Places = NDArray[np.int64]
Dialects = tuple[Dialect, ...]
MOST = 6  # deviations at once
BEAM = 3  # guesses that are followed
RIGHT = 48  # inputs with right answers that a dialect must leave right, before all are asked
WRONG = 16  # inputs with wrong answers, of every law
FEW_BLOCKS = 4  # the same of blocks, which cost more
AGAIN = 3  # times that inputs are added on which a guess failed


@dataclass(frozen=True)
class Asked:
    """What a target was asked and returned: elements, rows of blocks, or codes."""

    task: Task
    x: Array
    came: Answer
    random: Array | None = None

    def unexplained(self, spoken: Sequence[Dialect], places: Places | None = None) -> NDArray[np.bool_]:
        """Which answers (at these places) are not those of the dialects."""
        x, came, random = self.x, self.came, self.random
        if places is not None:
            x, came = x[places], answers_at(came, places)
            random = None if random is None else random[places]
        kernel = bent(elements.exact, [dialect.deviation for dialect in spoken])
        with np.errstate(all="ignore"):
            answer = kernel(self.task, x, random)
        if self.task.kind != "encode":
            answer = as_values(self.task, answer)
        elif isinstance(answer, np.ndarray) and answer.dtype.kind == "f":
            return np.ones(len(x), np.bool_)  # a deviation of values, but codes came
        return _unequal(self.task, came, answer)


def nearest(asked: Asked, wrong: NDArray[np.bool_], labels: Array) -> Dialects:
    """The dialects that together give exactly what came, on every input; none where there are none.

    asked: of float32 elements, float32 rows of blocks, or an element's codes when the task decodes.
    wrong: which of them did not give what was due; labels: the laws that they fall under.

    >>> from numerics.formats import fp4
    >>> x = np.float32([0.25, 0.75, -0.25, -0.0])
    >>> wrong = np.array([True, False, True, True])
    >>> asked = Asked(Task.of(fp4), x, np.uint8([1, 2, 9, 0]))
    >>> found = nearest(asked, wrong, np.array(["ties"] * 3 + ["zero"]))
    >>> [dialect.name for dialect in found]
    ['ties away', 'loses -0']
    """
    task, blocks = asked.task, asked.x.ndim > 1
    few = _telling(wrong, labels, FEW_BLOCKS if blocks else WRONG, 2 * FEW_BLOCKS if blocks else RIGHT)
    plain = [dialect for dialect in DIALECTS if dialect.applies(task)]
    for _ in range(AGAIN):
        known = plain + _drawn(asked, few) + _elsewhere(asked, few)  # others where the few have become more
        spoken = _fewest(known, lambda guess, few=few: int(asked.unexplained(guess, few).sum()))  # type: ignore[misc]
        if not spoken:
            return ()
        rest = np.flatnonzero(asked.unexplained(spoken))
        if not len(rest):
            return spoken
        few = np.union1d(few, rest[:: -(-len(rest) // (FEW_BLOCKS if blocks else WRONG))])
    return ()


def _drawn(asked: Asked, few: Places) -> list[Dialect]:
    """The few other ways of drawing that explain most, also of draws that are reversed.

    There are 150 ways, and each would be tried beside all other deviations.
    """
    if not asked.task.draws:
        return []
    turned = [dialect for dialect in DIALECTS if dialect.name == REVERSED]
    guesses = [(way, *more) for way in drawings(asked.task) for more in ((), turned)]
    left = sorted(guesses, key=lambda guess: int(asked.unexplained(guess, few).sum()))
    return list(dict.fromkeys(guess[0] for guess in left[:BEAM]))


def _elsewhere(asked: Asked, few: Places) -> list[Dialect]:
    """The way in which the places of blocks stand for each other that explains most; none where none does.

    There are as many as a block has numbers, and more: what is due is found once for all of them.
    """
    if not isinstance(asked.task.dtype, Block):
        return []
    task, came = asked.task, answers_at(asked.came, few)
    due = elements.exact(task, asked.x[few], None if asked.random is None else asked.random[few])
    assert isinstance(due, Fields)

    def left(found: Fields) -> int:
        return int(_unequal(task, came, found if task.kind == "encode" else as_values(task, found)).sum())

    ways = [(left(places.placed(task, due, spoken)), spoken) for spoken in places.of_block(task)]
    least, best = min(ways, key=lambda way: way[0])
    return [best] if least < left(due) else []


def decoded_elsewhere(task: Task, rows: Fields, came: Array) -> Dialects:
    """The way in which a decoder of blocks [n, block] gives each place the value of another, if it is one."""
    found = (
        spoken for spoken in places.of_block(task)
        if not _unequal(task, came, values_at(task, places.placed(task, rows, spoken))).any()
    )  # fmt: skip
    return tuple(islice(found, 1))


def _fewest(known: Sequence[Dialect], unexplained: Callable[[Dialects], int]) -> Dialects:
    """The fewest dialects that leave nothing unexplained, the likeliest guesses first; none where none do."""
    guesses: list[tuple[int, Dialects]] = [(unexplained(()), ())]
    for _ in range(MOST):
        better = [
            (left, spoken)
            for before, guess in guesses
            for dialect in known
            if dialect not in guess
            and (left := unexplained(spoken := tuple(sorted((*guess, dialect), key=known.index)))) < before
        ]
        guesses = sorted(better, key=lambda found: found[0])[:BEAM]
        if not guesses or guesses[0][0] == 0:
            break
    return guesses[0][1] if guesses and guesses[0][0] == 0 else ()


def _telling(wrong: NDArray[np.bool_], labels: Array, most_wrong: int, most_right: int) -> Places:
    """Inputs spread over all, and some that are wrong, of every law."""
    chosen = [_spread(np.flatnonzero(~wrong), most_right)]
    chosen += [_spread(np.flatnonzero(wrong & (labels == label)), most_wrong) for label in np.unique(labels)]
    return np.unique(np.concatenate(chosen))


def _spread(places: Places, most: int) -> Places:
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(np.int64)]


def _unequal(task: Task, came: Answer, due: Answer) -> NDArray[np.bool_]:
    """Which elements or blocks differ."""
    if isinstance(came, Fields) and isinstance(due, Fields):
        alike = task.with_same_nan(came, due)
        parts = zip(alike, due, strict=True)
        wrong = [(one != other).reshape(len(one), -1).any(axis=1) for one, other in parts if one is not None]
        return np.asarray(np.logical_or.reduce(wrong))
    assert isinstance(came, np.ndarray)
    assert isinstance(due, np.ndarray)
    differs = task.differs(came, due.astype(came.dtype))
    return np.asarray(differs.reshape(len(differs), -1).any(axis=1))


def nearest_affine(every: list[Seen]) -> Dialects:
    """Returns the fewest deviations that explain all answers of integers with a scale and a zero point.

    every: what came at each scale and zero point that was tried.
    """
    few = [_few(seen) for seen in every]
    for _ in range(AGAIN):
        spoken = _fewest(AFFINE_DIALECTS, lambda guess, few=few: _affine_unexplained(guess, few))  # type: ignore[misc]
        if not spoken:
            return ()
        missed = [affine_differs(spoken, seen) for seen in every]
        if not any(wrong.any() for wrong in missed):
            return spoken
        few += [
            _part(seen, _spread(np.flatnonzero(wrong), 3)) for seen, wrong in zip(every, missed, strict=True)
        ]
    return ()


def _few(seen: Seen) -> Seen:
    return _part(seen, _telling(seen.wrong, seen.labels, 3, 8))


def _part(seen: Seen, places: Places) -> Seen:
    return replace(seen, x=seen.x[places], came=seen.came[places], due=seen.due[places])


def _affine_unexplained(guess: Dialects, every: list[Seen]) -> int:
    return sum(int(affine_differs(guess, seen).sum()) for seen in every)


def affine_differs(spoken: Dialects, seen: Seen) -> NDArray[np.bool_]:
    """Which answers at a scale and a zero point are not those of the dialects."""
    kernel = bent(affine.exact, [dialect.deviation for dialect in spoken])
    codes: Any = kernel(seen.task, seen.x, seen.scale, seen.zero_point)
    if seen.came.dtype.kind == "f":
        values = seen.task.affine_values(codes, seen.scale, seen.zero_point)
        return np.asarray(seen.task.differs(seen.came, values))
    return np.asarray(seen.came != codes)
