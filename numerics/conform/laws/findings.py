"""What trials find, one after the other, and what a trial is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numerics.conform.inputs.shapes import steps_of
from numerics.conform.laws.company import Named as Named
from numerics.conform.laws.company import layout as layout
from numerics.conform.laws.company import misplaced as misplaced
from numerics.conform.laws.company import place_or_chance as place_or_chance
from numerics.conform.laws.company import repeatable as repeatable
from numerics.conform.laws.company import short_block as short_block
from numerics.conform.laws.law import Law
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample, Verdict
from numerics.conform.verdict import Named as Explains

Simpler = Callable[[Law, Counterexample], Counterexample]


@dataclass
class Findings:
    """What has been found so far."""

    laws: list[str] = field(default_factory=lambda: [*SENTENCES])
    tried: int = 0
    differs: int = 0
    failures: list[Counterexample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was not judged, and what else is to be known."""
    explain: Callable[[], tuple[Explains, ...]] = tuple
    """Looks for the dialects that explain the failures: seconds, so only when somebody asks."""

    def judge(self, laws: Sequence[Law], seen: Any, simpler: Simpler | None = None) -> None:
        """Asks every law of what was seen; simpler: looks for a simpler counterexample."""
        self.differs += int(seen.wrong.sum())
        for law in laws:
            broken = law(seen)
            if broken is not None:
                self.failures.append(simpler(law, broken) if simpler else broken)

    def verdict(self, target: Target) -> Verdict:
        """All of it."""
        takes = target.takes
        return Verdict(
            target.name, target.task, tuple(self.laws), self.tried, self.differs, tuple(self.failures),
            self._explained, (*self.notes, *takes.notes, *target.notes),
        )  # fmt: skip

    def _explained(self) -> tuple[Explains, ...]:
        """What explains the failures; nothing where the target breaks off while it is asked again."""
        try:
            return self.explain()
        except Fault:
            return ()


@dataclass(frozen=True)
class Trial:
    """Some laws, and the inputs on which they are judged together."""

    laws: Sequence[Named]
    run: Callable[[Target, Findings], None]


def together(broken: Counterexample, others: Sequence[Array], name: str) -> Counterexample:
    """The same, which says how the other arrays lie that came with it, where they have strides."""
    broken = replace(broken, given=tuple(others))
    steps = [steps_of(part) for part in others]
    if all(part.flags.c_contiguous for part in others):
        return broken
    told = " and ".join(map(str, dict.fromkeys(steps)))
    return replace(broken, where=f"{broken.where}, with {name} of strides {told}")
