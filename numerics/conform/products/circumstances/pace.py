"""How long a target takes for large products: a slow one is not asked all of them, as the verdict says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import TypeVar

Shape = tuple[int, int, int]
Found = TypeVar("Found")
TIMED = 1 << 18  # terms of a product from which on its time says how long larger ones take
LARGE = 1 << 21  # terms of a product past which it is not asked of a target that is slow
SECONDS = 12.0  # that all products past that may take


@dataclass
class Pace:
    """What large products have taken, and those that were left out."""

    spent: float = 0.0
    of_a_term: float = 0.0
    left: list[Shape] = field(default_factory=list)

    def allows(self, shape: Shape) -> bool:
        """Is there time for a product of this shape?  What is not asked is noted."""
        terms = prod(shape)
        if terms <= LARGE or self.spent + self.of_a_term * terms <= SECONDS:
            return True
        self.left.append(shape)
        return False

    def timed(self, shape: Shape, ask: Callable[[], Found]) -> Found:
        """What a question of this shape gives, whose time is taken."""
        terms, start = prod(shape), perf_counter()
        try:
            return ask()
        finally:
            took = perf_counter() - start
            if terms >= TIMED:
                self.of_a_term = took / terms
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
