"""Arrays that cannot be written to, as those of mapped files: who writes the same bytes shows, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from numerics.conform.inputs.drawn import random_inputs
from numerics.conform.laws.again import answers
from numerics.conform.laws.findings import Findings, Trial, layout
from numerics.conform.laws.law import sentence
from numerics.conform.laws.questions import Question, drawn_question, in_question
from numerics.conform.takes import Takes
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.targets.target import Target

SIZES = (9, 67, 5003)  # numbers of a call
WRITES = ("destination is read-only", "output array is read-only", "modify readonly")
"""What NumPy and Numba say to whoever writes into an array that cannot be written to."""
UNCHANGED = "inputs_unchanged"
FROZEN = "in arrays that cannot be written to"
REFUSES = "it takes no arrays that cannot be written to, and so was asked none"


def trial() -> Trial:
    """A few calls with arrays that cannot be written to."""
    return Trial((layout,), _frozen)


def asks(takes: Takes) -> bool:
    """Has the target such arrays?  torch has none."""
    return takes.array == "numpy"


def _frozen(target: Target, found: Findings) -> None:
    """A call that writes breaks `inputs_unchanged`; one that refuses such arrays is told in a note."""
    rng = np.random.default_rng(41)
    for size in SIZES:
        question = _question(target, size, rng)
        try:
            with target.giving(frozen=True):
                if target.task.draws_itself:
                    target.elements(*question.inputs)
                    continue
                one, other = answers(target, question)
        except Fault as fault:
            if fault.law != "runs":
                raise
            if any(word in fault.found.came for word in WRITES):
                found.failures.append(
                    replace(
                        fault.found, law=UNCHANGED, sentence=SENTENCES[UNCHANGED], due="nothing is written"
                    )
                )
            else:
                found.notes.append(f"{REFUSES}: {fault.found.came}")
            return
        wrong = target.task.differs(one, other)
        found.tried += size
        if wrong.any():
            broken = in_question(target.task, question, (one, other), wrong, layout)
            where = "; ".join(part for part in (broken.where, FROZEN) if part)
            found.failures.append(replace(broken, where=where, sentence=sentence(layout)))
            return


def _question(target: Target, size: int, rng: np.random.Generator) -> Question:
    """About so many numbers; of a target that draws for itself nothing is due to them."""
    if not target.task.draws_itself:
        return drawn_question(target, size, rng)
    x = target.asked(random_inputs(target.task.element, size, rng).view(np.float32))
    return Question((x,), x)
