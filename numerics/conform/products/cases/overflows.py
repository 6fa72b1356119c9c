"""Results about the largest number of what comes out, and past it: of one term, and of sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.problem import TOP, Problem, Side, meanings

TERMS_PAST = ((2, 127, 1), (2, 127, -1), (3, 127, 1), (5, 127, -1), (40, 123, 1), (40, 127, -1))
"""Of sums past float32: how many terms, the exponent of each, their sign."""
"""Of sums past float32: how many terms, the exponent of each, their sign."""
FEWEST_PAST = 2
LARGE_SUMS = (
    (256, 0, 0),
    (448, 56, 7),
    (448, 60, 2),
    (448, 60, 1),
    (-448, -56, -7),
    (384, 120, 0),
    (64, 60, 3),
    (127, 127, 127),
)


def past_largest(maker: Maker, k: int) -> Iterator[Problem]:
    """One term a row, about the largest number of what comes out and past it."""
    top = int(np.frexp(TOP[maker.claim.out])[1]) - 1
    ops = (maker.claim.a, maker.claim.b)
    for place, op in enumerate(ops):
        sides = []
        for one, numbers in ((op, None), (ops[1 - place], [1.0, 2.0, -1.0, 1.25])):
            side = draw.unit(one, 4, k, maker.rng)
            if one.is_value:
                most = (2 - 2.0 ** (1 - draw.SIGNIFICAND[str(one.name)])) * 2.0**top
                of_top = [most, -most, 2.0**top, -1.5 * 2.0 ** (top - 1)]
                side.codes[:] = np.array(of_top if numbers is None else numbers)[:, None]
            else:
                finite = np.where(np.isfinite(meanings(one)), meanings(one), 0.0)
                side.codes[:] = np.array([draw.one(one), finite.argmax(), finite.argmin(), draw.one(one)])[
                    :, None
                ]
                if numbers is None and draw.movable(one):
                    side = draw.moved(side, top - int(np.frexp(finite.max())[1]) + 1)
            sides.append(side)
        if op.name == "float16" and top > draw.EXPONENTS["float16"][1]:
            continue
        sides[0] = maker.kept(sides[0], 1, 1)
        found = maker.beside(place, sides[0], sides[1], law="output")
        if np.isinf(found.due()).any():
            yield found


def overflow(maker: Maker) -> Problem | None:
    """Exact results about the largest number of what comes out, and past it."""
    a, b = maker.claim.a, maker.claim.b
    if a.zero or b.zero:
        return None
    if maker.claim.out == "float32":
        return _past_float32(maker)
    top = 2.0 ** (16 if maker.claim.out == "float16" else 127)
    goals = top * np.array([0.5, 1 - 2.0**-8, 1 - 2.0**-9, 1 - 2.0**-11, 1 - 2.0**-12, 1.0, -1.0, 1.5])
    left, right = draw.unit(a, len(goals), 3, maker.rng), draw.unit(b, 4, 3, maker.rng)
    right.codes[:] = draw.one(b)
    if a.name in ("float32", "bfloat16"):
        largest = 2.0**127 * (2 - 2.0**-7) if maker.claim.out == "bfloat16" else 65504.0
        step = 2.0**119 if maker.claim.out == "bfloat16" else 16.0  # half of the last bit
        left.codes[:, 0] = largest * (-1.0) ** np.arange(len(goals))
        left.codes[:, 1] = step * np.array([0, 0, 0.5, -0.5, 1, -1, 2, -2])
        return Problem(maker.claim, left, right, law="output")
    if a.share in ("row", "block", "tensor") and a.scale is None and a.micro is None:
        assert left.scale is not None
        left.codes[:, 0] = draw.one(a)
        if a.share == "tensor":
            return _overflow_by_codes(maker, left, right, top)
        left = replace(left, scale=np.repeat(goals[:, None], left.scale.shape[1], 1).astype(np.float32))
        return Problem(maker.claim, left, right, law="output")
    return None


def _past_float32(maker: Maker) -> Problem | None:
    """One term a row, whose scales, and numbers, float32 holds, but not their product."""
    a, b = maker.claim.a, maker.claim.b
    if not all(op.size and op.power_scale for op in (a, b)):
        return None
    sides = []
    for op in (a, b):
        side = draw.unit(op, 3, 40, maker.rng)
        assert side.scale is not None
        values = meanings(op)
        codes = side.codes if op is b else side.codes.copy()
        codes[:, 0 if op is a else slice(None)] = np.nanargmax(np.where(np.isfinite(values), values, np.nan))
        scale = draw.powers(side.scale, np.full(side.scale.shape, 62))
        sides.append(replace(side.with_codes(codes), scale=scale))
    return Problem(maker.claim, sides[0], sides[1], law="output")


def past_float32(maker: Maker, k: int) -> Iterator[Problem]:
    """Terms of one sign, each of which float32 holds, but not their sum: Inf is due in any order."""
    ops = (maker.claim.a, maker.claim.b)
    if maker.claim.out == "float16" or k < FEWEST_PAST:
        return
    for place, op in enumerate(ops):
        other = draw.unit(ops[1 - place], 4, k, maker.rng)
        other.codes[:] = draw.one(other.op)
        side = draw.unit(op, len(TERMS_PAST), k, maker.rng)
        found = _large(side, int(np.frexp(other.values[0, 0])[1]) - 1)
        if found is not None:
            yield maker.beside(place, found, other, law="output")


def _large(side: Side, less: int) -> Side | None:
    """Rows of so many terms of either sign, which times 2**less are past float32; None where none is."""
    op, codes = side.op, side.codes.copy()
    wide = op.spec is not None and (op.power_scale or op.spec.scale_type in ("float32", "bfloat16"))
    by_scale = wide and op.micro is None and side.scale is not None
    if less < 0 or not (op.name in ("float32", "bfloat16") or by_scale):
        return None
    unit = 1.0 if op.is_value else float(meanings(op)[int(draw.one(op))])
    for row, (count, exponent, sign) in enumerate(TERMS_PAST):
        if count > codes.shape[1]:
            continue
        places = np.arange(count) * codes.shape[1] // count
        one = unit * (sign if op.is_value or draw.has_signs(op) else 1)
        large = one * 1.5 * 2.0 ** (exponent - less)
        codes[row, places] = large if op.is_value else draw.code_of(op, one)
    if op.is_value:
        return side.with_codes(codes)
    assert side.scale is not None
    scale: Any = 254 - less if op.scale is not None else 2.0 ** (127 - less)
    return replace(side.with_codes(codes), scale=np.full_like(side.scale, scale))


def _overflow_by_codes(maker: Maker, left: Side, right: Side, top: float) -> Problem:
    """Sums of three codes beside 512 at a scale by which 512 is past the largest number."""
    scale = 2 * top / 512 if maker.claim.out == "bfloat16" else top / 512
    rows = [row for row in LARGE_SUMS if draw.has(left.op, *row)]
    for place, row in enumerate(rows[: len(left.codes)]):
        left.codes[place] = [draw.code_of(left.op, value) for value in row]
    left = replace(left, scale=np.full((1, 1), scale, np.float32))
    return Problem(maker.claim, left, right, law="output")
