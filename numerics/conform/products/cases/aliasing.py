"""A matrix times itself: operands that are one array, share memory, or hold the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.batches import whole
from numerics.conform.products.claim import Claim, Operand
from numerics.conform.products.problem import Problem, Side, meanings
from numerics.tensor.parts import PARTS
from numerics.tensor.qtensor import QTensor

ONE = {
    "object": ", of operands that are one object",
    "memory": ", of operands that are two views of the same memory",
    "": ", of operands that hold the same numbers",
}
"""How operands may be the same, and what a verdict says of it."""
TURNED = {
    "object": ", of b that is a turned, a view of it",
    "memory": ", of b that is a turned, a view of it",
    "": ", of b that holds the numbers of a turned",
}
"""The same where b is no more than a's transpose."""
SHAPES = ((1, 5), (4, 24), (17, 33), (33, 64), (64, 40), (130, 32))
"""Rows of both sides, and terms."""
SQUARE = (5, 33, 64)
"""Rows and terms of a matrix that is multiplied by itself as it lies, or by itself turned."""
BATCH = (3, 2)


def aliased(claim: Claim, rng: draw.Rng) -> Iterator[Problem]:
    """Products of which b is a, turned or not: where both are given alike, and in each way."""
    if claim.a != claim.b or claim.laid.a != claim.laid.b:
        return
    for m, k in SHAPES:
        side = _small(claim, rng, whole(claim, (*BATCH[2 - claim.laid.axes :], m, m, k))[0], k)
        yield from _each_way(claim, side, side)
    for size in SQUARE if claim.a.spec is None and not claim.laid.axes else ():
        side = _small(claim, rng, size, size)
        yield from _each_way(claim, side, side.with_codes(side.codes.T))


def _each_way(claim: Claim, a: Side, b: Side) -> Iterator[Problem]:
    batch = BATCH[2 - claim.laid.axes :]
    bias = np.zeros(len(b.codes), np.float32) if claim.bias else None
    yield from (Problem(claim, a, b, bias, "aliasing", batch=batch, one=one) for one in ONE)


def _small(claim: Claim, rng: draw.Rng, rows: int, k: int) -> Side:
    """Ones of both signs, and zeros: sums of their products fit in every accumulator."""
    op = claim.a
    side = draw.unit(op, rows, k, rng)
    few = [draw.one(op), side.codes.flat[0], *_minus_one(op)]
    return side.with_codes(rng.choice(np.array(few), (rows, k)))


def _minus_one(op: Operand) -> list[float]:
    """The code of minus what `draw.one` is; none where no code has a sign, as of unsigned integers."""
    if not draw.has_signs(op):
        return []
    return [-1.0 if op.is_value else draw.code_of(op, -float(meanings(op)[int(draw.one(op))]))]


def as_one(problem: Problem, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same operands, of which b is a itself, or lies in its memory, where that is what it holds."""
    a, b, *others = arguments
    if not problem.one:
        return arguments
    if isinstance(a, QTensor):
        return (a, a, *others) if _parts(a) == _parts(b) else arguments
    for view in (a, np.swapaxes(a, -1, -2)):
        if view.shape == b.shape and view.tobytes() == b.tobytes():
            return (a, view if problem.one == "object" else view[...], *others)
    return arguments


def _parts(q: Any) -> list[Any]:
    """The bytes and shapes of all parts of a QTensor."""
    found = (getattr(q, name) for name in PARTS)
    return [(x.shape, x.tobytes()) if isinstance(x, np.ndarray) else x for x in found]


def relation(problem: Problem) -> str:
    """What a verdict says of the operands of a problem that are the same; nothing of one of another law."""
    return "" if problem.law != "aliasing" else (TURNED if is_turned(problem) else ONE)[problem.one]


def is_turned(problem: Problem) -> bool:
    """Is b as it is given a turned, and not a itself, where they are one?

    Where one of them comes turned, a itself has for rows what are b's columns.
    """
    if problem.law != "aliasing":
        return False
    laid, a, b = problem.claim.laid, problem.a.codes, problem.b.codes
    rows = a if laid.turned_a == laid.turned_b else a.T
    return rows.shape != b.shape or rows.tobytes() != b.tobytes()


def are_the_same(problem: Problem) -> bool:
    """Does b hold what a does, as it is or turned?"""
    a, b = problem.a.codes, problem.b.codes
    return any(x.shape == b.shape and x.tobytes() == b.tobytes() for x in (a, a.T))
