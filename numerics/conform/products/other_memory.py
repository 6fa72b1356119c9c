"""Products whose arrays lie otherwise in memory than those that are usually asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from numerics.conform.products import draw
from numerics.conform.products.aliasing import ONE
from numerics.conform.products.lying import EXPANDED, SAID
from numerics.conform.products.problem import Problem
from numerics.conform.products.shrink import with_side


def alike(problem: Problem) -> Iterator[Problem]:
    """The same with operands all of whose rows, or matrices, or columns are the first, by strides of 0.

    Also with such a c, beside zeros, and a bias that is one number.
    """
    problem = replace(problem, lies=EXPANDED)
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


def laid(problem: Problem) -> str:
    """How the arrays of a problem lie, in words; nothing where all are dense."""
    said = f", of operands {SAID[problem.lies]}" if problem.lies else ""
    said += ONE[problem.one] if problem.law == "aliasing" else ""
    return said + (f", in a result {SAID[problem.out_lies]}" if problem.out_lies else "")
