"""A counterexample asked first, in a new process: if it is right there, it depends on the calls before it."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from numerics.conform.isolation.cases import recorded, restored
from numerics.conform.laws.alone import ALONE, NOT_ALONE, inputs_of
from numerics.conform.laws.company import as_of, repeatable
from numerics.conform.laws.depends import is_wrong
from numerics.conform.laws.questions import wrong_of
from numerics.conform.products.asking import ProductTarget
from numerics.conform.scales import of_tensor
from numerics.conform.targets.faults import SENTENCES, Case, Fault
from numerics.conform.targets.target import Target
from numerics.conform.verdict import Counterexample

ARRAYS = ("layout", "short_block", "tensor_scale")
"""Laws whose counterexamples are whole arrays."""
SAID = "asked first, in a new process, it is right: it depends on the calls before it"


class First(NamedTuple):
    """What a target is to be asked first: the law that was broken, and with what."""

    law: str
    case: Case


def first_of(target: Target | ProductTarget, broken: Counterexample) -> First | None:
    """What can be asked again of a counterexample; None where nothing can, or its cause is known."""
    if broken.law in (*SENTENCES, "repeatable", "threads") or ALONE in broken.where:
        return None
    if isinstance(target, ProductTarget):
        return None if broken.problem is None else First(broken.law, (broken.problem,))
    whole = broken.law in ARRAYS and target.task.kind in ("encode", "round", "decode", "affine")
    whole = whole or (isinstance(target, Target) and target.task.rule is not None)
    if broken.tensor is None or target.task.draws_itself or not (whole or broken.law not in NOT_ALONE):
        return None
    return First(broken.law, recorded((broken.tensor, *broken.given) if whole else inputs_of(target, broken)))


def is_right(target: Target | ProductTarget, first: First) -> bool:
    """Does the target give what is due?"""
    with suppress(Fault):
        if isinstance(target, ProductTarget):
            return not target.see(first.case[0]).wrong.any()
        inputs = restored(first.case)
        if first.law == of_tensor.tensor_scale.__name__:
            return of_tensor.is_right(target, inputs)
        whole = first.law in ARRAYS or target.task.rule is not None
        return not (is_wrong(target, inputs) if whole else bool(wrong_of(target, inputs).any()))
    return False


def by_calls(broken: Counterexample) -> Counterexample:
    """The same, of the law that it breaks where it is right first."""
    return as_of(broken, repeatable, SAID)
