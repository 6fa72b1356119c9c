"""Known faults of products: each bends what a side means, or what the claim says, and predicts every result.

No order of additions is assumed: a deviation is judged on those results that are decided under it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from numerics.conform.products.problem import Float64, Problem, Side

Bend = Callable[[Problem], "Problem | None"]
"""What it makes of a problem; None where it says nothing of it."""


@dataclass(frozen=True)
class ProductDeviation:
    """A known way to be wrong: name, sentence, who was seen to do it, and what it makes of a problem."""

    name: str
    sentence: str
    bend: Bend
    seen_in: str = ""

    def __str__(self) -> str:
        return self.sentence + (f" (seen in {self.seen_in})" if self.seen_in else "")


def bent(side: Side, **changes: Float64) -> Side:
    """A side that stands for other numbers than its codes say."""
    return replace(side, meant=replace(side.factors, **changes))


def of_sides(change: Callable[[Side, Problem], Side], *names: str) -> Bend:
    """A bend of one side or both."""

    def bend(problem: Problem) -> Problem:
        sides = {name: change(getattr(problem, name), problem) for name in names or ("a", "b")}
        return replace(problem, a=sides.get("a", problem.a), b=sides.get("b", problem.b))

    return bend


def of_claim(**changes: object) -> Bend:
    """Another accumulator, or another rounding of what comes out."""

    def bend(problem: Problem) -> Problem:
        return replace(problem, claim=replace(problem.claim, **changes))  # type: ignore[arg-type]

    return bend
