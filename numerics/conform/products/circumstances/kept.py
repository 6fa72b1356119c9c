"""Does a product depend on the calls before it, as where weights are packed once for each shape?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from numerics.conform.products.asking import Seen, unequal
from numerics.conform.products.cases import draw
from numerics.conform.products.certificate import answer
from numerics.conform.products.problem import Problem, Side, rounded, table, with_side
from numerics.formats.dtype import Integer

BEFORE = "it depends on the calls before it"
ADDS = f"{BEFORE}: it adds to what came of the last one of that shape"
BY_SHAPE = f"{BEFORE}: the first product of a shape is right, others of that shape are not"


class Part(NamedTuple):
    """What a kernel may keep of an operand: its name in words, and which field of a side it is; "" of all."""

    name: str
    field: str

    def of(self, side: Side, earlier: Side) -> Side | None:
        """The side with this part of an earlier one; None where either has none."""
        if not self.field:
            return earlier
        old = getattr(earlier, self.field)
        return (
            None if old is None or getattr(side, self.field) is None else replace(side, **{self.field: old})
        )

    def varies(self, side: Side) -> bool:
        """Has this part of a side several numbers?  A constant may be what a kernel takes at every call."""
        return np.unique(getattr(side, self.field or "codes")).size > 1


PARTS = (
    Part("", ""),
    Part("'s codes", "codes"),
    Part("'s scales", "scale"),
    Part("'s zero points", "zero"),
    Part("'s tensor scale", "number"),
)


class Kept(NamedTuple):
    """That an earlier call explains what came: in words, of which operand and part, and is it no chance?

    Where it may be, as of a part that is one number, a kernel that takes that number at each call gives the
    same: it is asked further, with `two_longer`.
    """

    said: str
    name: str = "b"
    part: Part = PARTS[0]
    certain: bool = True


def kept(seen: Seen, before: Sequence[Seen]) -> Iterator[Kept]:
    """Which operands of an earlier product of that shape explain all that came."""
    if _adds(seen, before):
        yield Kept(ADDS)
    for name in ("b", "a"):
        side = getattr(seen.problem, name)
        alike = [one for one in before if getattr(one.problem, name).codes.shape == side.codes.shape]
        for which, earlier in (("first", alike[:1]), ("last", alike[-1:])):
            for part in PARTS:
                for one in earlier:
                    old = getattr(one.problem, name)
                    other = part.of(side, old)
                    if other is not None and _explains(seen, with_side(seen.problem, name, other)):
                        said = f"it takes {name}{part.name} of the {which} one with {name} like this"
                        yield Kept(f"{BEFORE}: {said}", name, part, part.varies(old))


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


def two_longer(problem: Problem, more: int, name: str = "b", part: Part = PARTS[0]) -> Iterator[Problem]:
    """The problem with some rows of both sides once more; the same with another operand, or part of it.

    Of an operand, b unless its name is said, codes are in other places.  Where that is the same product, as
    of a single column, it is zeros instead, or ones in place of zeros.
    """
    m, n = problem.matrix
    longer = problem.cut([*range(m)] + [0] * more, [*range(n)] + [0] * more)
    yield longer
    side: Side = getattr(longer, name)
    if part.field not in ("", "codes"):
        yield with_side(longer, name, _with_another(side, part.field))
        return
    turned = side.rows([*range(len(side.codes))][::-1])
    moved = with_side(longer, name, turned.with_codes(np.roll(turned.codes, 1, axis=1)))
    if np.array_equal(moved.exact, longer.exact, equal_nan=True):
        code = draw.zero_codes(side.op)[0] if side.values.any() else draw.one(side.op)
        moved = with_side(longer, name, side.with_codes(np.full_like(side.codes, code)))
    yield moved


def _with_another(side: Side, field: str) -> Side:
    """The same with other zero points, other scales, or another scale of the tensor."""
    if field == "number":
        return replace(side, number=2 * side.number)
    if field == "zero":
        element = side.op.element
        assert isinstance(element, Integer)
        assert side.zero is not None
        least, count = int(element.min), int(element.max) - int(element.min) + 1
        return replace(side, zero=(side.zero - least + 1) % count + least)
    scale, scales = side.scale, side.op.scale
    assert scale is not None
    if scale.dtype.kind == "f":
        return replace(side, scale=np.where(np.abs(scale) > 1, scale / 2, scale * 2).astype(scale.dtype))
    if scales is None or side.op.power_scale:
        return replace(side, scale=np.where(scale > 127, scale - 1, scale + 1).astype(scale.dtype))
    exponents = np.frexp(table(scales)[scale])[1] - 1
    return replace(
        side, scale=draw.power_codes(side.op, np.where(exponents > 0, exponents - 1, exponents + 1))
    )
