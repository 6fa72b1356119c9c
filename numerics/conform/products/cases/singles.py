"""Products laid out as single rows, columns and results, for which kernels have paths of their own."""

from __future__ import annotations

from collections.abc import Iterator

from numerics.conform.products.problem import Problem

ROW, COLUMN, RESULT = (1, 17), (19, 1), (1, 1)
"""m and n: as many as vectors have, and some that are left over."""
FEW = 4


def alone(problem: Problem) -> Iterator[Problem]:
    """A product of few rows and columns, then each row of a alone, each row of b alone, and pairs of them."""
    yield problem
    for m, n in (ROW, COLUMN, RESULT):
        yield from covering(problem, m, n)


def covering(problem: Problem, m: int, n: int) -> Iterator[Problem]:
    """The same as products of m rows and n columns, until each row of both sides has been in one."""
    rows, columns, _ = problem.shape
    for turn in range(max(-(-rows // m), -(-columns // n))):
        first, other = turn * m, turn * n
        yield problem.cut([(first + i) % rows for i in range(m)], [(other + j) % columns for j in range(n)])


def few(problem: Problem) -> Problem:
    """The same of a few rows and columns, the first, the last and some between."""
    m, n, _ = problem.shape
    return problem.cut(_spread(m), _spread(n))


def _spread(size: int) -> list[int]:
    return sorted({i * (size - 1) // (FEW - 1) for i in range(FEW)})
