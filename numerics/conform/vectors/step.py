"""Answers that are right, but to another line: a device that is late or early, whole or in one field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.places import orders
from numerics.conform.laws.law import sentence
from numerics.conform.vectors.operations import Fields, FoundOperation, Operation, StringOperation
from numerics.conform.vectors.unknown import answer, question
from numerics.conform.verdict import Counterexample
from numerics.formats.dtype import Element, Float

FARTHEST = 64  # vectors by which an answer may be late, or early
FEWEST = 16  # lines that must have another so far before them
LANES = (2, 4, 8, 16, 32)
"""How many lines a device may take at once."""
FEW = 128  # wrong lines, and right ones, on which a guess is tried first
NOTHING = -1
NEAR = 4  # vectors by which the lowest bits of a field may be late, or early
WORDS = {"random": "random bits", "zero-point": "zero point"}
"""What fields are called, where not by their names."""

Lines = NDArray[np.int64]
Mask = NDArray[np.bool_]


def in_step() -> None:
    """The answer of a line is that to its own question, whatever was asked before and after it."""


@dataclass(frozen=True)
class Run:
    """Lines of a run: what came, what was due, and the number of each; some may be missing between them."""

    asked: Operation
    came: Fields
    due: Fields
    places: Lines
    lanes: Lines | None = None
    """The places of a block whose answers are compared; None for all."""

    def before(self, step: int) -> Lines:
        """Which line came so many before each; NOTHING where it is not there."""
        return self.find(self.places - step)

    def find(self, numbers: Lines) -> Lines:
        """Which lines have these numbers; NOTHING where one is not there."""
        found = np.minimum(np.searchsorted(self.places, numbers), len(self.places) - 1)
        return np.where(self.places[found] == numbers, found, NOTHING)

    @property
    def fewest(self) -> int:
        """Lines that must have another: of a short run half of it."""
        return max(2, min(FEWEST, len(self.places) // 2))

    def has(self, other: Lines, due: Callable[[Lines], Fields]) -> bool:
        """Is what came that of another line for each?  due: to lines what is due where the others count."""
        told = np.flatnonzero(other != NOTHING)
        return len(told) >= self.fewest and all(
            not self.at(lines).wrong(due(lines)).any() for lines in (self.some(told), told)
        )

    def at(self, lines: Lines) -> Run:
        """Some of the lines."""
        came, due = ({name: part[lines] for name, part in fields.items()} for fields in (self.came, self.due))
        return Run(self.asked, came, due, self.places[lines], self.lanes)

    def of(self, part: Any) -> Any:
        """The columns of a field that are compared."""
        return part if self.lanes is None or part.shape[1] == 1 else part[:, self.lanes]

    def differs(self, due: Fields) -> dict[str, Mask]:
        """Where each field of the answers differs from these."""
        return {name: self.of(wrong) for name, wrong in self.asked.differs(_answers(self), due).items()}

    def wrong(self, due: Fields) -> Mask:
        """The lines whose answers differ from these."""
        found = [differs.any(axis=1) for differs in self.differs(due).values()]
        return np.asarray(np.logical_or.reduce(found))

    def some(self, lines: Lines) -> Lines:
        """Few of these lines, from end to end."""
        return lines[:: -(-len(lines) // FEW)]


def out_of_step(asked: Operation, lines: tuple[Fields, Fields, Lines]) -> tuple[Counterexample, str] | None:
    """What is late, or early, if that explains every answer; None where it does not.

    lines: what came, what was due, and the numbers of the lines, in their order.
    """
    run = Run(asked, *lines)
    wrong = np.flatnonzero(run.wrong(run.due))
    if not len(wrong):
        return None
    order = np.argsort(run.places, kind="stable")
    run = run.at(order)
    ways = (_whole, _of_answers, _of_scales, _swapped, _of_questions, _of_lanes, _turned)
    said = next((said for way in ways if (said := way(run)) is not None), None)
    return None if said is None else (_shown(run, said), said)


def _steps(farthest: int) -> Iterator[int]:
    """How late: nearest first, early ones, below 0, behind all that are late.

    >>> list(_steps(2))
    [1, 2, -1, -2]
    """
    yield from range(1, farthest + 1)
    yield from range(-1, -farthest - 1, -1)


def _of_lanes(run: Run) -> str | None:
    """Is what comes in some places of a block, where alone it is wrong, right for another line?"""
    wrong = {name: differs for name, differs in run.differs(run.due).items() if differs.any()}
    if len(wrong) != 1:
        return None
    (differs,) = wrong.values()
    lanes = np.flatnonzero(differs.any(axis=0))
    if len(lanes) > differs.shape[1] // 2:
        return None
    few = replace(run, lanes=lanes)
    said = _whole(few) or _of_answers(few) or _of_questions(few)
    places = ", ".join(map(str, lanes.tolist()))
    return said and f"at place{'s' * (len(lanes) > 1)} {places} (from 0) {said}"


def _whole(run: Run) -> str | None:
    """Is every answer that of another line?"""
    for step in _steps(FARTHEST):
        before = run.before(step)
        if run.has(before, lambda lines, before=before: _of(run.due, before[lines])):  # type: ignore[misc]
            return _late("the answer", step)
    return None


def _of(fields: Fields, lines: Lines) -> Fields:
    return {name: part[lines] for name, part in fields.items()}


def _late(what: str, step: int) -> str:
    return f"{what} {abs(step)} vector{'s' * (abs(step) > 1)} {'late' if step > 0 else 'early'}"


# ---- fields ----------------------------------------------------------------------------------------


def _parts(asked: Operation, name: str) -> Iterator[tuple[str, int]]:
    """The parts of a field that a device may keep apart: what they are called, and their bits."""
    element = getattr(asked, "dtype", None)
    element = getattr(element, "element", element)
    if name in ("input", "value"):
        yield from (("sign", 1 << 31), ("exponent", 0xFF << 23), ("fraction", 0x7FFFFF))
    elif name == "code" and isinstance(element, Float) and element.signed:
        sign = 1 << (element.bits - 1)
        fraction = (1 << element.mantissa) - 1
        yield from (("sign", sign), ("exponent", sign - 1 - fraction), ("fraction", fraction))
    elif name == "code" and isinstance(element, Element):
        sign = 1 << (element.bits - 1)
        yield from (("sign", sign), ("magnitude", sign - 1))


def _of_answers(run: Run) -> str | None:
    """Has every field of the answer, or every part of one, a step of its own at which it is right?"""
    names = [field.name for field in run.asked.answered]
    found = [step for name in names if (step := _step(run, name, None)) is not None]
    if len(found) == len(names):
        return _listed((f"the {name}", step) for name, step in zip(names, found, strict=True))
    if len(names) > 1:
        return None
    parts = [(part, _step(run, names[0], mask)) for part, mask in _parts(run.asked, names[0])]
    if not parts or any(step is None for _, step in parts):
        return None
    return _listed((f"the {part} of the {names[0]}", step or 0) for part, step in parts)


def _listed(found: Any) -> str | None:
    late = [_late(what, step) for what, step in found if step]
    return ", ".join(late) or None


def _step(run: Run, name: str, mask: int | None) -> int | None:
    """How late a field is, or some bits of it; below 0 how early; None where it is right at no step."""
    came, due = run.of(run.came[name]), run.of(run.due[name])
    nan = [
        run.of(np.broadcast_to(run.asked.nan(answers, name), run.came[name].shape))
        for answers in (_answers(run), run.due)
    ]
    bits = np.asarray(~0 if mask is None else mask).astype(came.dtype)
    for step in (0, *_steps(FARTHEST)):
        before = run.before(step)
        told = np.flatnonzero(before != NOTHING)

        def right(lines: Lines, before: Lines = before) -> bool:
            wrong = (came[lines] ^ due[before[lines]]) & bits != 0
            wrong &= ~(nan[0][lines] & nan[1][before[lines]])
            if mask is not None:
                wrong &= ~(nan[0][lines] | nan[1][lines] | nan[1][before[lines]])
            return not wrong.any()

        if len(told) >= run.fewest and right(run.some(told)) and right(told):
            return step
    return None


def _answers(run: Run) -> Fields:
    return {field.name: run.came[field.name] for field in run.asked.answered}


def _of_questions(run: Run) -> str | None:
    """Is it right for a question of which some fields, or some bits of the numbers, are another one's?"""
    return _first_due(run, _guesses(run.asked), FARTHEST) or _first_due(run, _low_guesses(run.asked), NEAR)


Guess = tuple[str, tuple[str, ...], int | None]
"""What may be another question's: what it is called, the fields, and which of their bits; None for all."""


def _guesses(asked: Operation) -> list[Guess]:
    """Parts of a field, a whole one, all but one."""
    fields = [field.name for field in asked.asked]
    guesses: list[Guess] = [
        (f"the {part} of the {name}", (name,), mask) for name in fields for part, mask in _parts(asked, name)
    ]
    if len(fields) > 1:
        guesses += [(f"the {WORDS.get(name, name)}", (name,), None) for name in fields]
        guesses += [
            (f"all but the {name}", tuple(one for one in fields if one != name), None) for name in fields
        ]
    return guesses


def _low_guesses(asked: Operation) -> list[Guess]:
    """The lowest bits of a field, and all but these."""
    found: list[Guess] = []
    for field in asked.asked:
        whole = (1 << field.bits) - 1
        for bits in range(1, field.bits):
            low, plural = (1 << bits) - 1, "s" * (bits > 1)
            which = f"{bits} " * (bits > 1) + f"bit{plural} of the {WORDS.get(field.name, field.name)}"
            found += [(f"the lowest {which}", (field.name,), low)]
            found += [(f"all but the lowest {which}", (field.name,), whole ^ low)]
    return found


def _first_due(run: Run, guesses: Sequence[Guess], farthest: int) -> str | None:
    """The first guess by which every answer is due, and how late it is."""
    every = run.wrong(run.due)
    for step in _steps(farthest) if guesses else ():
        before = run.before(step)
        told = np.flatnonzero(before != NOTHING)
        if len(told) < run.fewest:
            continue
        wrong = every[told]
        few = np.union1d(told[wrong][:FEW], told[~wrong][:FEW])
        for what, names, mask in guesses:
            if _is_due(run, few, before, names, mask) and _is_due(run, told, before, names, mask):
                return _late(what, step)
    return None


def _is_due(run: Run, lines: Lines, before: Lines, names: tuple[str, ...], mask: int | None) -> bool:
    """Is what came in these lines due where the fields, or these bits of them, are those of other lines?"""
    given = {field.name: run.came[field.name][lines] for field in run.asked.asked}
    for name in names:
        old = run.came[name][before[lines]]
        bits = np.asarray(~0 if mask is None else mask).astype(old.dtype)
        given[name] = (given[name] & ~bits) | (old & bits)
    return not run.at(lines).wrong(run.asked.due(given)).any()


# ---- scales that are found -------------------------------------------------------------------------


def _of_scales(run: Run) -> str | None:
    """Is the scale that a device found that of another line: for its codes, and as its answer, too?"""
    asked = run.asked
    if not isinstance(asked, FoundOperation):
        return None
    own = asked.found(run.came)
    for step in _steps(FARTHEST):
        before = run.before(step)
        for what, kept in (("the scale", False), ("the scale of the codes", True)):

            def due(lines: Lines, before: Lines = before, kept: bool = kept) -> Fields:
                found = asked.under(_of(run.came, lines), _of(own, before[lines]))
                return found | _of(own, lines) if kept else found

            if run.has(before, due):
                return _late(what, step)
    return None


# ---- lanes -----------------------------------------------------------------------------------------


def _swapped(run: Run) -> str | None:
    """Has every line the answer of another one of those that a device takes at once?"""
    for lanes in LANES:
        first = run.places // lanes * lanes
        whole = run.find(first + lanes - 1) != NOTHING  # the last ones may be filled with anything
        for told, order in orders(lanes):
            other = np.where(whole, run.find(first + order[run.places % lanes]), NOTHING)
            if run.has(other, lambda lines, other=other: _of(run.due, other[lines])):  # type: ignore[misc]
                return f"of every {lanes} vectors, i = 0 .. {lanes - 1}, vector i has the answer of {told}"
    return None


def _turned(run: Run) -> str | None:
    """Has every place of a line the answer of another place of it?  Of strings a law of their own says so."""
    if isinstance(run.asked, StringOperation):
        return None
    places = max(field.count for field in run.asked.answered)
    here = np.arange(len(run.places))
    for told, order in orders(places) if places > 1 else ():
        due = {name: part[:, order] if part.shape[1] == places else part for name, part in run.due.items()}
        if run.has(here, lambda lines, due=due: _of(due, lines)):  # type: ignore[misc]
            return f"of its {places} places (from 0) place i has the answer of {told}"
    return None


def _shown(run: Run, said: str) -> Counterexample:
    """The first line whose answer is wrong."""
    wrong = np.flatnonzero(run.wrong(run.due))
    at = int(wrong[0])
    came, due = (answer(run.asked, fields, at) for fields in (run.came, run.due))
    given, asked = question(run.asked, run.came, at)
    where = "; ".join(part for part in (asked, f"vector {int(run.places[at]) + 1}", said) if part)
    return Counterexample(in_step.__name__, sentence(in_step), given, came, due, len(wrong), where)
