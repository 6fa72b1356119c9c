"""The law of a smallest case, which may be another one than that of the product in which it was found."""

from __future__ import annotations

import numpy as np

from numerics.conform.products.asking import Seen
from numerics.conform.products.cases.aliasing import are_the_same
from numerics.conform.products.laws import ANY_SUMS, beta, empty, output, subnormals
from numerics.conform.products.problem import SMALLEST, Problem


def law_of(seen: Seen, at: tuple[int, int], law: str) -> str:
    """The law that a smallest case breaks, whose product broke another one."""
    if law != empty.__name__ and _is_c_alone(seen.problem, at):
        return beta.__name__
    return _of_an_end(seen, at, _of_what_is_left(seen, at, law))


def _is_c_alone(problem: Problem, at: tuple[int, int]) -> bool:
    """Is a result beta * c, beside terms that are all zeros?"""
    blend = problem.blend
    if blend is None or blend.c is None or not blend.adds or not blend.c[at]:
        return False
    with np.errstate(all="ignore"):
        return not (problem.a.values[at[0]] * problem.b.values[at[1]] != 0).any()


def _of_what_is_left(seen: Seen, at: tuple[int, int], law: str) -> str:
    """The law that the smallest case breaks, where it has no more of what the law of the first one asks.

    Nothing is rounded, as by `output`, where the exact sum is a number of what comes out; a product is no
    longer one of a matrix and itself.
    """
    problem = seen.problem
    if law == "aliasing" and not are_the_same(problem):
        return "sums"
    if law != "output" or float(seen.due[at]) != problem.exact[at] or not np.isfinite(problem.exact[at]):
        return law
    if problem.bias is not None and problem.bias.any():
        return "bias"
    with np.errstate(all="ignore"):
        terms_there = np.count_nonzero(problem.a.values[at[0]] * problem.b.values[at[1]])
    return "one_term" if terms_there <= 1 else "sums"


def _of_an_end(seen: Seen, at: tuple[int, int], law: str) -> str:
    """The law that a smallest case breaks: that of ends, where a sum is all right but for its end.

    A finite sum is past the largest number there, or what is subnormal, a number or the result, counts 0.
    """
    if law not in ANY_SUMS or seen.came.dtype.kind != "f":
        return law
    problem, due = seen.problem, seen.due[at]
    if np.isinf(due) and np.isfinite(problem.exact[at]):
        return output.__name__
    small = abs(due) < SMALLEST[problem.claim.out] or any(
        side.op.is_value
        and (np.abs(side.codes[row][side.codes[row] != 0]) < SMALLEST[str(side.op.name)]).any()
        for side, row in zip((problem.a, problem.b), at, strict=True)
    )
    return subnormals.__name__ if due != 0 and seen.came[at] == 0 and small else law
