"""Decoders of single numbers: their laws, and the trial of every code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.search import Asked, nearest
from numerics.conform.laws.alone import alone as alone_of
from numerics.conform.laws.alone import confirmed
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.laws.law import Law, Mask, sentence
from numerics.conform.laws.questions import Question
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Task
from numerics.conform.verdict import Counterexample, numbers
from numerics.formats.dtype import Float


@dataclass(frozen=True)
class Codes:
    """What a target made of codes: float32 values, beside those that were due."""

    task: Task
    codes: Array
    came: NDArray[np.float32]
    due: NDArray[np.float32]

    @cached_property
    def wrong(self) -> Mask:
        """Where what came differs from what was due."""
        return self.task.differs(self.came, self.due)

    def simplest(self, law: Law, where: Mask) -> Counterexample | None:
        """The least wrong code that a law speaks of."""
        places = np.flatnonzero(where & self.wrong)
        if not len(places):
            return None
        at = int(places[0])
        came, due = (str(numbers(v[at : at + 1])[0]) for v in (self.came, self.due))
        width = -(-self.task.element.bits // 4)
        code = f"code 0x{int(self.codes[at]):0{width}X}"
        tensor = self.codes[at : at + 1]
        return Counterexample(law.__name__, sentence(law), (), came, due, len(places), code, tensor)


def table(seen: Codes) -> Counterexample | None:
    """Every code decodes to the value that the format's row gives it."""
    return seen.simplest(table, np.isfinite(seen.due) & (seen.due != 0) & ~_is_subnormal(seen))


def subnormal_codes(seen: Codes) -> Counterexample | None:
    """The codes below the smallest normal decode to their own values, not to zero."""
    return seen.simplest(subnormal_codes, _is_subnormal(seen))


def _is_subnormal(seen: Codes) -> Mask:
    d = seen.task.dtype
    below = d.smallest_normal if isinstance(d, Float) else 0.0
    found: Mask = (seen.due != 0) & (np.abs(seen.due) < below)
    return found


def zeros(seen: Codes) -> Counterexample | None:
    """Zero decodes to zero with its sign."""
    return seen.simplest(zeros, seen.due == 0)


def special_codes(seen: Codes) -> Counterexample | None:
    """The codes of Inf and NaN decode to Inf and NaN."""
    return seen.simplest(special_codes, ~np.isfinite(seen.due))


DECODE_LAWS: tuple[Law, ...] = (table, subnormal_codes, zeros, special_codes)


def trial() -> Trial:
    """Every code."""
    return Trial(DECODE_LAWS, _decode)


def alone(target: Target, found: Findings, question: Question, at: Array) -> None:
    """Judges codes that were wrong among many: those that are wrong alone, too."""
    task, codes = target.task, question.inputs[0][at]
    own = [bool(task.differs(target.elements(one), task.values(one)).any()) for one in codes[:, None]]
    codes = codes[own]
    if len(codes):
        found.judge(DECODE_LAWS, Codes(task, codes, target.elements(codes), task.values(codes)))


def _decode(target: Target, found: Findings) -> None:
    task = target.task
    codes = np.arange(1 << task.element.bits).astype(task.element.code_dtype)
    seen = Codes(task, codes, target.elements(codes), task.values(codes))
    found.tried += len(codes)
    found.judge(DECODE_LAWS, seen, lambda law, broken: alone_of(target, broken, (codes,)))
    if found.failures:
        asked = Asked(task, codes, seen.came)
        found.explain = confirmed(target, lambda: nearest(asked, seen.wrong, np.zeros(len(codes))), (codes,))
