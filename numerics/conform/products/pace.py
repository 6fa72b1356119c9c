"""How long a target takes for large products: a slow one is not asked all of them, as the verdict says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from time import perf_counter, process_time
from typing import TypeVar

Sizes = tuple[int, ...]
"""The lengths of axes of batches, m, n, k."""
Found = TypeVar("Found")
TIMED = 1 << 18  # terms of a product from which on its time says how long larger ones take
LARGE = 1 << 21  # terms of a product past which it is not asked of a target that is slow
SECONDS = 12.0  # that all products past that may take
SHARE = 4  # of the time on the clock at least one part of so many counts


@dataclass
class Watch:
    """The seconds that a target has taken in those of its calls that are timed.

    On a machine that does other things, too, a call takes longer on the clock than its processors worked for
    it, which says nothing about the target; neither does it work while it waits for a device.  What
    counts is the time of the processors, at most that on the clock, and at least a fixed share of that.
    """

    seconds: float = 0.0
    stopped: bool = True

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is done within counts, unless the watch is stopped."""
        if self.stopped:
            yield
            return
        clock, worked = perf_counter(), process_time()
        try:
            yield
        finally:
            clock, worked = perf_counter() - clock, process_time() - worked
            self.seconds += min(clock, max(worked, clock / SHARE))


@dataclass
class Pace:
    """What large products have taken of a target's time, and those that were left out."""

    watch: Watch = field(default_factory=Watch)
    spent: float = 0.0
    timed_terms: int = 0
    timed_seconds: float = 0.0
    left: list[Sizes] = field(default_factory=list)

    def allows(self, sizes: Sizes) -> bool:
        """Is there time for a product of these sizes?  What is not asked is noted."""
        terms = prod(sizes)
        of_a_term = self.timed_seconds / max(self.timed_terms, 1)
        if terms <= LARGE or self.spent + of_a_term * terms <= SECONDS:
            return True
        self.left.append(sizes)
        return False

    def timed(self, sizes: Sizes, ask: Callable[[], Found]) -> Found:
        """What a question of these sizes gives; the time counts that the target takes for it."""
        terms, before = prod(sizes), self.watch.seconds
        self.watch.stopped = terms < TIMED  # to ask the clock of the processors takes long, too
        try:
            return ask()
        finally:
            took, self.watch.stopped = self.watch.seconds - before, True
            if terms >= TIMED:
                self.timed_terms += terms
                self.timed_seconds += took
            if terms > LARGE:
                self.spent += took

    @property
    def notes(self) -> tuple[str, ...]:
        """What a verdict says of products that were left out."""
        if not self.left:
            return ()
        smallest = min(self.left, key=prod)
        return (
            f"{len(self.left)} products of {smallest} and more were not asked, or not again: all of them "
            f"would take this target more than {SECONDS:g} seconds; shapes= asks those that are named",
        )
