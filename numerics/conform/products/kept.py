"""Does a product depend on the calls before it, as where weights are packed once for each shape?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from numerics.conform.products import draw
from numerics.conform.products.asking import Seen, unequal
from numerics.conform.products.certificate import answer
from numerics.conform.products.problem import Problem, Side, rounded
from numerics.conform.products.shrink import with_side

BEFORE = "it depends on the calls before it"
ADDS = f"{BEFORE}: it adds to what came of the last one of that shape"
BY_SHAPE = f"{BEFORE}: the first product of a shape is right, others of that shape are not"


class Part(NamedTuple):
    """What a kernel may keep of an operand: its name, and a side with that part of an earlier one."""

    name: str
    kept: Callable[[Side, Side], Side | None]


def _part(name: str) -> Callable[[Side, Side], Side | None]:
    def kept(side: Side, earlier: Side) -> Side | None:
        old = getattr(earlier, name)
        return None if old is None or getattr(side, name) is None else replace(side, **{name: old})

    return kept


PARTS = (
    Part("", lambda side, earlier: earlier),
    Part("'s codes", _part("codes")),
    Part("'s scales", _part("scale")),
    Part("'s zero points", _part("zero")),
    Part("'s tensor scale", _part("number")),
)


def kept(seen: Seen, before: Sequence[Seen]) -> str | None:
    """Which operand of an earlier product of that shape explains all that came; None where none does."""
    if _adds(seen, before):
        return ADDS
    for name in ("b", "a"):
        side = getattr(seen.problem, name)
        alike = [one for one in before if getattr(one.problem, name).codes.shape == side.codes.shape]
        for which, earlier in (("first", alike[:1]), ("last", alike[-1:])):
            for part in PARTS:
                for one in earlier:
                    other = part.kept(side, getattr(one.problem, name))
                    if other is not None and _explains(seen, with_side(seen.problem, name, other)):
                        return (
                            f"{BEFORE}: it takes {name}{part.name} of the {which} one with {name} like this"
                        )
    return None


def _adds(seen: Seen, before: Sequence[Seen]) -> bool:
    """Is everything that came due, and added to what came of the last product of that shape?

    Some of it is no zero, as what is flushed or left out is, too.
    """
    alike = [one for one in before if one.came.shape == seen.came.shape]
    if not alike or seen.problem.claim.in_place:
        return False
    with np.errstate(all="ignore"):
        due = rounded(seen.problem.exact + alike[-1].came, seen.problem.claim.out)
        told = seen.decided & np.isfinite(seen.problem.exact) & np.isfinite(alike[-1].came)
    return bool((seen.wrong & told & (seen.came != 0)).any()) and not (unequal(seen.came, due) & told).any()


def _explains(seen: Seen, problem: Problem) -> bool:
    """Is everything that came due to this problem, and some of it wrong and no zero, as what is flushed?"""
    due, decided = answer(problem)
    told = bool((seen.wrong & decided & (seen.came != 0)).any())
    return told and not (unequal(seen.came, due) & decided).any()


def two_longer(problem: Problem, more: int) -> Iterator[Problem]:
    """The problem with some rows of both sides once more; the same with b's codes in other places.

    Where that is the same product, as of a single column, b is zeros instead, or ones in place of zeros.
    """
    m, n = problem.matrix
    longer = problem.cut([*range(m)] + [0] * more, [*range(n)] + [0] * more)
    yield longer
    b = longer.b.rows([*range(len(longer.b.codes))][::-1])
    moved = replace(longer, b=b.with_codes(np.roll(b.codes, 1, axis=1)))
    if np.array_equal(moved.exact, longer.exact, equal_nan=True):
        code = draw.zero_codes(b.op)[0] if longer.b.values.any() else draw.one(b.op)
        moved = replace(longer, b=longer.b.with_codes(np.full_like(longer.b.codes, code)))
    yield moved
