"""What a judge and the process of its target say to each other, in files of a folder."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from numerics.conform.inputs.edges import Edge
from numerics.conform.targets.faults import Case
from numerics.conform.verdict import Counterexample, Verdict
from numerics.formats.errors import NumericsError

ANSWER, ASKED, CALLS, GIVEN = "answer.pickle", "asked.pickle", "calls", "given.pickle"
"""Files of the folder that both processes share; of each thread, GIVEN with its number."""


class Asked(NamedTuple):
    """What is to be judged: a name, what `check` is asked, and where modules are found."""

    target: str
    options: dict[str, Any]
    paths: list[str]


class Again(NamedTuple):
    """What a target was given (cases.recorded), and beside what; smaller: all that is less of it, first."""

    case: Case
    edge: Edge | None
    smaller: bool = False


class Answer(NamedTuple):
    """What a process came to; wrong: why the target cannot be judged."""

    found: Any
    wrong: str | None = None


class Spoken(NamedTuple):
    """A dialect that was found elsewhere: its name, and what it does."""

    name: str
    text: str

    def __str__(self) -> str:
        return self.text


class Sent(NamedTuple):
    """What a verdict holds, but for the task, so that it can be sent."""

    target: str
    laws: tuple[str, ...]
    tried: int
    differs: int
    failures: tuple[Counterexample, ...]
    spoken: tuple[Spoken, ...]
    notes: tuple[str, ...]
    inputs: str
    first: Any = None
    """The first counterexample, as it can be asked in another process (first.py)."""

    def verdict(self, task: Any) -> Verdict:
        """The verdict, of that task."""
        parts = self._asdict()
        del parts["first"]
        return Verdict(task=task, explain=partial(tuple, parts.pop("spoken")), **parts)


def sent(verdict: Verdict, first: Any = None) -> Sent:
    """A verdict, so that it can be sent; what only this process can be asked again is left out."""
    failures = tuple(replace(failure, given=(), problem=None) for failure in verdict.failures)
    spoken = tuple(Spoken(dialect.name, str(dialect)) for dialect in verdict.dialects)
    return Sent(verdict.target, verdict.laws, verdict.tried, verdict.differs, failures, spoken,
                verdict.notes, verdict.inputs, first)  # fmt: skip


def answer_in(folder: Path) -> Any:
    """What a process has found; raises NumericsError where it says that the target cannot be judged."""
    answer: Answer = pickle.loads((folder / ANSWER).read_bytes())
    if answer.wrong is not None:
        raise NumericsError(answer.wrong)
    return answer.found
