"""What ended a process is given to new ones, less and less of it: the least that does it is shown."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from numerics.conform.isolation.calls import BACK, NOTHING, UNDER_WAY, Calls, Progress
from numerics.conform.isolation.cases import recorded, restored, smaller
from numerics.conform.isolation.messages import ANSWER, GIVEN, Again
from numerics.conform.isolation.process import Hangs, Limits, run
from numerics.conform.isolation.showing import shown
from numerics.conform.targets.faults import SENTENCES
from numerics.conform.verdict import Counterexample

SECONDS = 60.0  # in which an input is narrowed, at most
TRIES = 24  # processes
PATIENCE, SLOWER = 2.0, 3.0  # seconds of a call; and times the longest one that came back
FIRST = 20.0  # seconds of a call, where none came back: it may compile
NO_TIME = "there was no time for more"
LAST = 10.0  # seconds in which the result is tried once more, whatever it took to find it


class Spent(Exception):
    """There is no time left, or no try; its text says which."""


class Ended(NamedTuple):
    """The first of some cases that ended a process: its number; how."""

    number: int
    came: str


class Narrowing:
    """What ended the process of a target, sought by others; at most SECONDS long, in TRIES processes.

    calls: of the process that ended.  task: a Task or a product's Claim.  timeout: seconds of a call there.
    """

    def __init__(self, folder: Path, calls: Calls, task: Any, timeout: float) -> None:
        self._folder, self._calls, self._task = folder, calls, task
        self._progress = calls.progress()
        self._until = monotonic() + SECONDS
        slow = max(PATIENCE, SLOWER * self._progress.longest)
        self._patience = min(slow if self._progress.returned else FIRST, timeout)
        self._tries = TRIES

    def counterexample(self, came: str) -> Counterexample:
        """The least that was found; came: how the first process ended."""
        given = self._given()
        if not given:
            where = "before it was given anything"
            return Counterexample("runs", SENTENCES["runs"], (), came, "a result", where=where)
        for again in given:
            found = self._least(again, came)
            if found is not None:
                return found
        return self._shown(given[0], came, self._not_alone(len(given)))

    def _given(self) -> list[Again]:
        """What the calls that were under way had been given; of none, what came back last."""
        threads = self._progress.those(UNDER_WAY) or _latest(self._progress)
        found = []
        for thread in threads:
            try:
                found.append(pickle.loads((self._folder / f"{GIVEN}.{thread}").read_bytes()))
            except (OSError, EOFError, pickle.UnpicklingError):
                continue  # it ended while this was written
        return found

    def _not_alone(self, threads: int) -> str:
        parts = [f"what came before it ({self._progress.returned:,} calls)"] * bool(self._progress.returned)
        parts += ["other threads"] * (threads > 1)
        return f"alone, in a new process, this comes back: it depends on {' or '.join(parts) or 'chance'}"

    def _first(self, again: Again, seconds: float = 0.0) -> Ended | None:
        """The first case that ends a new process; None where all come back.  Raises Spent."""
        left = max(self._until - monotonic(), seconds)
        if not seconds and (left <= 0 or not self._tries):
            raise Spent(NO_TIME if left <= 0 else f"{TRIES} processes were tried")
        self._tries -= 1
        self._calls.clear()
        (self._folder / ANSWER).unlink(missing_ok=True)
        (self._folder / GIVEN).write_bytes(pickle.dumps(again))
        start = monotonic()
        try:
            came = run("again", self._folder, self._calls, Limits(left, self._patience_with, left))
        except Hangs as hangs:
            if monotonic() - start >= left:
                raise Spent(NO_TIME) from None
            came = str(hangs)
        number, state = self._calls.progress().threads[0]
        return None if os.path.exists(self._folder / ANSWER) or state == NOTHING else Ended(number, came)

    def _patience_with(self, number: int) -> float:
        """Seconds of a call; the first of a process may compile, and what follows it is less of the same."""
        return min(PATIENCE, self._patience) if number else self._patience

    def _least(self, again: Again, came: str) -> Counterexample | None:
        """Less and less of a case that ends a process alone, as long as it does; None where it does not."""
        whole, tried = again, False
        try:
            while (ended := self._first(again._replace(smaller=True))) is not None:
                came = ended.came
                less = next(islice(self._less(again), ended.number, None), None)
                if less is None:
                    return self._alone(again, ended) or self._whole(whole)
                again, tried = less, True
        except Spent as spent:
            said = "the least that was found" if tried else "it was not tried alone"
            return self._shown(again, came, f"{said}: {spent}")
        return self._whole(whole) if tried else None

    def _less(self, again: Again) -> Iterator[Again]:
        return (again._replace(case=recorded(case)) for case in smaller(self._task, restored(again.case)))

    def _alone(self, again: Again, ended: Ended) -> Counterexample | None:
        """A case as the first of a process, unless it was that already; None where it comes back."""
        try:
            alone = self._first(again, LAST) if ended.number else ended
        except Spent:
            return None
        return self._shown(again, alone.came, "", True) if alone else None

    def _whole(self, again: Again) -> Counterexample | None:
        """The case of which less ended a process only after other calls; None where it does not itself."""
        try:
            ended = self._first(again, LAST)
        except Spent:
            ended = None
        return self._shown(again, ended.came, "less of it does so only after other calls") if ended else None

    def _shown(self, again: Again, came: str, said: str, alone: bool = False) -> Counterexample:
        """A counterexample; alone: a new process ended in the same way."""
        found = shown(self._task, restored(again.case))
        parts, law, text = [found.where, said], "runs", SENTENCES["runs"]
        if again.edge is not None:
            if alone and self._only_beside(again):
                law, text = "within", SENTENCES["within"]
                came += ", and not where the memory there is free"
            parts.append(
                "in memory that ends where nothing may be touched"
                if again.edge.behind
                else "in memory that begins where nothing before it may be touched"
            )
        where = "; ".join(part for part in parts if part)
        return Counterexample(law, text, found.input, came, "a result", 1, where, found.tensor, found.terms)

    def _only_beside(self, again: Again) -> bool:
        """Does the target come back where the same input lies in the same place, and nothing is forbidden?"""
        assert again.edge is not None
        free = again._replace(edge=again.edge._replace(guarded=False))
        try:
            return self._first(free, LAST) is None
        except Spent:
            return False


def _latest(progress: Progress) -> list[int]:
    """The thread whose call came back last, if any did."""
    back = progress.those(BACK)
    return [max(back, key=lambda thread: progress.threads[thread])] if back else []
