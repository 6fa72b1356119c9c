"""Does a result follow what its memory held, as where a kernel adds to an array that nobody has cleared?"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.margins import UNUSED
from numerics.conform.products.asking import HELD, ProductTarget, unequal
from numerics.conform.products.certificate import STEPS, answer
from numerics.conform.products.circumstances.other_memory import laid
from numerics.conform.products.problem import Problem, rounded
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample

BYTES = (HELD, UNUSED, HELD)
"""Each byte of the memory of a result before a call, and before two others: large numbers, and small ones."""
SLACK = 4  # steps of the larger number, by which roundings on the way may move a sum
ADDS = "it adds to what memory held, which it neither clears nor overwrites"
FOLLOWS = "they follow what memory held"


def followed(
    target: ProductTarget, problems: Iterable[Problem], broken: Counterexample
) -> Counterexample | None:
    """The same counterexample, of the law `written`, where a result of a problem follows its memory."""
    if target.claim.in_place:  # it holds c, which is read
        return None
    for problem in problems:
        try:
            found = _followed(target, problem)
        except Fault:
            continue
        if found is not None:
            told, said = found
            at = tuple(int(i) for i in np.argwhere(told)[0])
            said = f"of {told.size} results {int(told.sum())} are wrong: {said}"
            where = f"{problem.where(at)}{laid(problem)}; {said}"
            return replace(broken, law="written", sentence=SENTENCES["written"], where=where, problem=problem)
    return None


def _followed(target: ProductTarget, problem: Problem) -> tuple[NDArray[np.bool_], str] | None:
    """Which results follow the memory, and how; None where none does.

    A target that makes the array itself may have memory of others: there all that counts is that it adds.
    """
    first, second, third = (target.leaving(problem, byte) for byte in BYTES)
    told = _alike(first, third) & ~_alike(first, second)
    if not told.any():
        return None
    decided = told & answer(problem)[1]
    adds = _adds(first, problem, BYTES[0], decided) and _adds(second, problem, BYTES[1], decided)
    if decided.any() and adds:
        return told, ADDS
    return (told, FOLLOWS) if target.takes.fills else None


def _alike(one: Array, other: Array) -> NDArray[np.bool_]:
    bits = (np.ascontiguousarray(x).reshape(*x.shape, 1).view(np.uint8) for x in (one, other))
    return np.asarray(np.equal(*bits).all(axis=-1))


def _adds(came: Array, problem: Problem, byte: int, decided: NDArray[np.bool_]) -> bool:
    """Is what came what is due, added to numbers of that byte, but for roundings on the way?"""
    held = _number(byte, problem.claim.out)
    with np.errstate(all="ignore"):
        due = rounded(problem.exact + held, problem.claim.out)
        room = SLACK * STEPS[problem.claim.out] * np.maximum(np.abs(problem.exact), abs(held))
        far = np.abs(came.astype(np.float64) - due) > room
    return not (unequal(came, due) & far & decided).any()


def _number(byte: int, out: str) -> float:
    """A number of a type whose bytes are all the same."""
    kind = np.dtype(np.float32 if out == "bfloat16" else out)
    bytes_of = np.full(kind.itemsize, byte, np.uint8)
    if out == "bfloat16":
        bytes_of[:2] = 0  # the lower half of a float32, most significant bytes last
        bytes_of = bytes_of if sys.byteorder == "little" else bytes_of[::-1].copy()
    return float(bytes_of.view(kind)[0])
