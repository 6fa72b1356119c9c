"""The smallest product that still fails: fewer rows, columns and terms, a shorter sum, simpler codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.aliasing import are_the_same
from numerics.conform.products.problem import Problem, Side, with_side

Fails = Callable[[Problem], "tuple[int, int] | None"]
"""Where a problem fails; None where it does not."""
LENGTHS = (1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128, 129, 160, 192, 256, 257,
           320, 384, 512, 513, 640, 768, 1024, 1025, 2048, 2049, 4096, 4097, 8192, 16384, 32768,
           32769)  # fmt: skip
"""Rows, columns and terms, past each of which a kernel may go another way."""
IN_VAIN = 256  # times that zeros are tried in a sum which all of its terms together make wrong
SHOWN = 70  # terms whose codes are made simpler


def smallest(problem: Problem, at: tuple[int, int], fails: Fails) -> Problem:
    """Returns a problem that fails as this one does, and has as little in it as was found."""
    steps = (_one_batch, _one_result, _one_term, _shorter, _one_result, _fewer_rows, _fewer_columns,
             _one_term, _shorter, _smaller_square, _fewer, _other_terms, _one_result, _simpler)  # fmt: skip
    for step in steps:
        for candidate in step(problem, at):
            found = fails(candidate)
            if found is not None:
                problem, at = candidate, found
                if step is not _simpler and step is not _fewer:
                    break
        if step is _fewer:
            problem, at = _until_nothing(problem, at, fails)
        if step is _simpler:
            problem, at = _each(problem, at, fails)
    return problem


def _first(count: int, at: int) -> Iterator[list[int]]:
    """Indices of fewer, with one of them: itself, all up to it, one more, all."""
    yield [at]
    yield list(range(at + 1))
    yield list(range(min(at + 2, count)))
    yield list(range(count))


def _one_batch(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    """Fewer batches: the one that is wrong, those up to it, one more; nothing where there are none."""
    if not problem.batch:
        return
    index = problem.batch_of(at)
    m, n = problem.matrix
    for axes in product(*(_first(count, i) for count, i in zip(problem.batch, index, strict=True))):
        yield problem.cut([*range(m)], [*range(n)], list(axes))


def _one_result(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    m, n = problem.matrix
    for rows in _first(m, at[0] % m):
        for columns in _first(n, at[1] % n):
            yield problem.cut(rows, columns)


def _shorter(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    for length in LENGTHS:
        if length < problem.shape[2]:
            yield replace(problem, a=problem.a.short(length), b=problem.b.short(length))


def _one_term(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    """A single term of those that count, wherever it stands."""
    if problem.shape[2] > 1:
        yield from _of_terms(problem, ([int(place)] for place in _counting(problem, at)[:SHOWN]))


def _other_terms(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    """The terms that count, beside fewer of the others: of the last, or of the first of these."""
    length, counting = problem.shape[2], _counting(problem, at)
    others = np.setdiff1d(np.arange(length), counting)
    for fewer in (size - len(counting) for size in LENGTHS if len(counting) <= size < length):
        some = (others[len(others) - fewer :], others[:fewer])
        yield from _of_terms(problem, (sorted(map(int, [*counting, *zeros])) for zeros in some))


def _counting(problem: Problem, at: tuple[int, int]) -> NDArray[np.int64]:
    """The places of terms that are no zeros: NaN, too."""
    with np.errstate(all="ignore"):
        return np.flatnonzero(problem.a.values[at[0]] * problem.b.values[at[1]] != 0)


def _of_terms(problem: Problem, choices: Iterable[list[int]]) -> Iterator[Problem]:
    """The same of some terms alone, where those that share scales then still can."""
    for kept in choices:
        a, b = problem.a.of_terms(kept), problem.b.of_terms(kept)
        if a is not None and b is not None:
            yield replace(problem, a=a, b=b)


def _fewer_rows(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    m, n = problem.matrix
    if m == n and are_the_same(problem):
        yield from (problem.cut([*range(few)], [*range(few)]) for few in LENGTHS if few < m)
    yield from (problem.cut([*range(few)], [*range(n)]) for few in LENGTHS if few < m)


def _fewer_columns(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    m, n = problem.matrix
    yield from (problem.cut([*range(m)], [*range(few)]) for few in LENGTHS if few < n)


def _fewer(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    if problem.one:
        yield replace(problem, one="")
    if problem.bias is not None and problem.bias.any():
        yield replace(problem, bias=np.zeros_like(problem.bias))
    blend = problem.blend
    if blend is None:
        return
    if blend.c is not None and blend.c.any():
        yield replace(problem, blend=replace(blend, c=np.zeros_like(blend.c)))
    if blend.alpha != 1:
        yield replace(problem, blend=replace(blend, alpha=1))
    if blend.adds and blend.beta != 1:
        yield replace(problem, blend=replace(blend, beta=1))


def _smaller_square(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    """Fewer terms, and as many fewer rows or columns, where an operand is as long as it is wide."""
    m, n = problem.matrix
    length = problem.shape[2]
    for few in LENGTHS if length in (m, n) else ():
        if few < length:
            cut = problem.cut([*range(few if m == length else m)], [*range(few if n == length else n)])
            yield replace(cut, a=cut.a.short(few), b=cut.b.short(few))


def _until_nothing(problem: Problem, at: tuple[int, int], fails: Fails) -> tuple[Problem, tuple[int, int]]:
    """Zeros in place of halves, quarters ... single elements of a, as long as it goes on.

    An overflow needs all of its terms: there it ends after some trials in vain.
    """
    length, in_vain = problem.shape[2], 0
    size = max(length // 2, 1)
    if problem.a.zero is not None:
        return problem, at
    nothing = draw.zero_codes(problem.a.op)[0]
    while size:
        changed = False
        for start in range(0, length, size):
            part = slice(start, start + size)
            if not (problem.a.values[:, part] != 0).any():
                continue
            codes = problem.a.codes.copy()
            codes[:, part] = nothing
            candidate = replace(problem, a=problem.a.with_codes(codes))
            found = fails(candidate)
            if found is not None:
                problem, at, changed = candidate, found, True
                continue
            in_vain += 1
            if in_vain >= IN_VAIN:
                return problem, at
        size = size if changed and size > 1 else size // 2
    return problem, at


def _simpler(problem: Problem, at: tuple[int, int]) -> Iterator[Problem]:
    """Scales of 1, a tensor's scale of 1."""
    for name in ("a", "b"):
        side = getattr(problem, name)
        plain = draw.scales(side.op, np.zeros_like(side.scale, np.int64), np.random.default_rng(0), True) \
            if side.scale is not None else None  # fmt: skip
        if plain is not None and (plain != side.scale).any():
            yield with_side(problem, name, replace(side, scale=plain))
        if side.number != 1:
            yield with_side(problem, name, replace(side, number=1.0))


def _each(problem: Problem, at: tuple[int, int], fails: Fails) -> tuple[Problem, tuple[int, int]]:
    """Ones in place of other elements, one after the other."""
    for name in ("a", "b"):
        if getattr(problem, name).zero is not None:
            continue
        row = at[0 if name == "a" else 1]
        for k in range(min(problem.shape[2], SHOWN)):
            side: Side = getattr(problem, name)
            one = draw.one(side.op)
            if side.codes[row, k] == one or side.values[row, k] == 0:
                continue
            codes = side.codes.copy()
            codes[row, k] = one
            candidate = with_side(problem, name, side.with_codes(codes))
            found = fails(candidate)
            if found is not None:
                problem, at = candidate, found
    return problem, at
