"""Products whose arrays lie otherwise in memory than those that are usually asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.aliasing import relation
from numerics.conform.products.lying import BEGUN, EXPANDED, Lies, by_turns, results, ways
from numerics.conform.products.problem import Problem, with_side
from numerics.conform.products.telling.shrink import Fails


def alike(problem: Problem) -> Iterator[Problem]:
    """The same with operands all of whose rows, or matrices, or columns are the first, by strides of 0.

    Also with such a c, beside zeros, and a bias that is one number.
    """
    problem = replace(problem, lies=Lies.alike(EXPANDED))
    for name, size in zip("ab", problem.matrix, strict=True):
        side = getattr(problem, name)
        if side.op.spec is not None:  # a QTensor is dense
            continue
        rows = len(side.codes)
        for first in {1, size} - {rows}:
            yield with_side(problem, name, side.rows([at % first for at in range(rows)]))
        if side.codes.shape[1] > 1:
            yield with_side(
                problem, name, side.with_codes(np.repeat(side.codes[:, :1], side.codes.shape[1], 1))
            )
    if problem.bias is not None and len(problem.bias) > 1:
        yield replace(problem, bias=np.full_like(problem.bias, problem.bias[0]))
    yield from _of_c(problem)


def _of_c(problem: Problem) -> Iterator[Problem]:
    if problem.blend is None or problem.blend.c is None or problem.a.zero is not None:
        return
    if problem.few is not None:  # what is due of large ones is found for few rows, of c as well
        return
    m, n, k = problem.shape
    nothing = draw.blank(problem.a.op, m, k, np.random.default_rng(0))
    c = (np.arange(m)[:, None] * 3 + np.arange(n) * 2 + 1).astype(problem.blend.c.dtype) % 120
    for same in (c[:1], c[:, :1]):
        blend = replace(
            problem.blend, alpha=1, beta=1, c=np.ascontiguousarray(np.broadcast_to(same, c.shape))
        )
        yield replace(problem, a=problem.a.with_codes(nothing), blend=blend)


def memories(problem: Problem, fills: bool, contiguous: bool, turn: int | None) -> Iterator[Lies]:
    """How the arrays of a problem lie in memory in every way; turn: in some, and by turns in others.

    fills: the target is given the array of its result.  contiguous: it is given no gaps.

    >>> from numerics.conform.products.given import problem_of
    >>> problem = problem_of(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), "float32")
    >>> [len(list(memories(problem, True, False, turn))) for turn in (None, 0)]
    [28, 9]
    """
    claim, batches = problem.claim, bool(problem.batch)
    some: list[list[Lies]] = [[*BEGUN]]
    if not contiguous:
        if claim.takes_arrays:
            yield from map(Lies.alike, ways(batches))
            some.append(by_turns(batches, claim.a.spec is None and claim.b.spec is None))
        if fills:
            yield from (Lies.of(out=how) for how in ways(batches))
            some.append(results(batches))
    for lies in some:
        yield from lies if turn is None else lies[turn % len(lies) :][:1]


def simpler_lies(problem: Problem, fails: Fails) -> Problem:
    """The same, of which fewer arrays lie otherwise than dense, as long as it fails."""
    simpler = (replace(problem, lies=lies) for lies in problem.lies.simpler())
    found = next((one for one in simpler if fails(one) is not None), None)
    return problem if found is None else simpler_lies(found, fails)


def laid(problem: Problem) -> str:
    """How the arrays of a problem lie, in words; nothing where all are dense."""
    claim = problem.claim
    others = ["bias"] * claim.bias + ["c"] * (claim.beta and not claim.in_place)
    return relation(problem) + problem.lies.said(" and ".join(others))
