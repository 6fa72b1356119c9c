"""A result of a product in words: its terms, what stands beside them, and what is added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numerics.conform.products.cases.draw import Integers
from numerics.conform.products.problem import Problem, Side, meanings, table
from numerics.conform.task import Array
from numerics.conform.verdict import Number, numbers

LISTED = 8  # numbers of a bias, or zero points, that are shown
SHOWN = 4  # terms of a sum that are shown
USUAL_NAN = 0x7FC00000


def terms(problem: Problem, at: tuple[int, int]) -> tuple[str, ...]:
    """The terms of one result that are not zero, the first of them; its bias, or alpha, beta and c.

    Where all are zero, those of which one factor is none: a kernel may multiply its code, or its zero point.
    """
    with np.errstate(all="ignore"):
        there = problem.a.values[at[0]] * problem.b.values[at[1]] != 0  # NaN times 0 too
    beside = [side.codes[row] != 0 for side, row in zip((problem.a, problem.b), at, strict=True)]
    beside += [side.factors.zero[row] != 0 for side, row in zip((problem.a, problem.b), at, strict=True)]
    short = len(there) <= SHOWN  # what stands beside zeros is shown, too: a scale may be found of it
    telling = np.flatnonzero(there if there.any() and not short else there | np.any(beside, axis=0))
    lines = [
        f"k={p}: {_text(problem.a, at[0], p)} times {_text(problem.b, at[1], p)}" for p in telling[:SHOWN]
    ]
    if len(telling) > SHOWN:
        lines.append(f"and {len(telling) - SHOWN} terms more")
    lines += _of_zeros(problem, at, telling, np.setdiff1d(np.flatnonzero(np.any(beside, axis=0)), telling))
    if not there.any():
        lines.append("every term is 0" if len(there) else "there are no terms")
    lines += _of_others(problem)
    if problem.bias is not None:
        lines.append(_of_bias(problem.bias, at[1]))
    if problem.blend is not None:
        c = problem.blend.c
        lines.append(f"{problem.blend}" + (f", {_listed('c', c, at)}" if c is not None else ""))
    return tuple(lines)


def _of_zeros(problem: Problem, at: tuple[int, int], shown: Integers, hidden: Integers) -> Iterator[str]:
    """The largest factors of hidden terms, which are 0, where none that is shown is as large."""
    found = []
    for name, side, row in (("a", problem.a, at[0]), ("b", problem.b, at[1])):
        most, least = (float(np.abs(side.values[row, some]).max(initial=0)) for some in (hidden, shown))
        if most > least:
            found.append(f"{name} is up to {most:.9g}")
    if found:
        yield f"and {len(hidden)} that are 0, in which {' and '.join(found)}"


def _of_others(problem: Problem) -> Iterator[str]:
    """The zero points of a case of several rows, of the first ones: they may be taken for each other's."""
    for name, side in (("a", problem.a), ("b", problem.b)):
        if side.zero is not None and side.zero.shape[1] == 1 and len(side.zero) > 1:
            some = " ".join(str(int(x)) for x in side.zero[:LISTED, 0])
            yield f"zero points of {name}'s rows {some}" + " ..." * (len(side.zero) > LISTED)


def _of_bias(bias: Array, column: int) -> str:
    """The bias of a column, and where others stand beside it what they are, too."""
    return _listed("bias", bias, (column,))


def _listed(name: str, numbers: Array, at: tuple[int, ...]) -> str:
    """One of some numbers, and where others stand beside it the first of them, a row after the other."""
    own, every = f"{name} {numbers[at]:.9g}", numbers.reshape(-1)
    if every.size == 1:
        return own
    some = " ".join(f"{x:.9g}" for x in every[:LISTED])
    return f"{own}, of {some}" + " ..." * (every.size > LISTED)


def result(x: Any) -> str:
    """A number that came, or that is due: an integer as it is, a float with its bits."""
    if x.dtype.kind != "f":
        return str(int(x))
    number: Number = numbers(np.array([x], np.float32))[0]
    return str(number)


def _text(side: Side, row: int, k: int) -> str:
    """One element: its code and what it means, its zero point, its scale."""
    op, code = side.op, side.codes[row, k]
    if op.is_value:
        return _number(code)
    found = f"0x{int(code):02X} ({meanings(op)[code]:g})"
    if side.zero is not None:
        found += f" less {int(side.factors.zero[row, k])}"
    if side.scale is None:
        return found
    scale = side.spread(side.scale)[row, k]
    means = table(op.scale)[scale] if op.scale is not None else float(side.factors.scale[row, k])
    return (
        f"{found} * {f'0x{int(scale):02X} ({means:g})' if scale.dtype.kind != 'f' else f'{float(scale):g}'}"
    )


def _number(code: Any) -> str:
    """A plain number; of a NaN that is not the usual one its bits, too."""
    bits = int(np.float32(code).view(np.uint32))
    return f"nan (0x{bits:08X})" if np.isnan(code) and bits != USUAL_NAN else f"{float(code):.9g}"
