"""Subnormal numbers: as operands, as products, as sums, and as results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.maker import Maker, Shape
from numerics.conform.products.claim import Operand
from numerics.conform.products.problem import SMALLEST, Problem

LARGE_FLOAT, LARGE_HALF = 100, 12
"""Exponents of numbers that make subnormal numbers ordinary: of the range of float32, and of float16."""
"""Exponents of numbers that make subnormal numbers ordinary: of the range of float32, and of float16."""
TINY = -127
"""Times this power of two, one is subnormal in float32."""
"""Times this power of two, one is subnormal in float32."""


def subnormal(maker: Maker, shape: Shape) -> Iterator[Problem]:
    """Sums among the subnormal numbers of what comes out, by small numbers or scales of either side."""
    movable = [_moves(maker, op) for op in (maker.claim.a, maker.claim.b)]
    if maker.claim.accumulator.least > -149:
        return
    for moves in ((True, False), (False, True), (True, True)):
        found = maker.fitted(maker.long(shape), 12)
        top = np.abs(found.exact).max()
        if top and all(can or not moved for can, moved in zip(movable, moves, strict=True)):
            need = _normal(maker) - int(np.frexp(top)[1])
            share = need // sum(moves)
            sides = [
                draw.moved(side, share) if moved else side
                for side, moved in zip((found.a, found.b), moves, strict=True)
            ]
            yield replace(found, a=sides[0], b=sides[1], bias=None, law="subnormals")


def tiny(maker: Maker, k: int) -> Iterator[Problem]:
    """Subnormal numbers of a plain side, one a row, times one and times a large number.

    An operand that is flushed shows, also where the result is no subnormal number.
    """
    ops = (maker.claim.a, maker.claim.b)
    for place, op in enumerate(ops):
        if not op.is_value or maker.claim.accumulator.least > -149:
            continue
        least, bits = draw.EXPONENTS[str(op.name)][0], draw.SIGNIFICAND[str(op.name)]
        numbers = np.ldexp([1.0, -3.0, 5.0, 64.0, 1 - 2.0 ** (bits - 1)], least)
        side = draw.unit(op, len(numbers), k, maker.rng)
        side.codes[np.arange(len(numbers)), np.arange(len(numbers)) * 11 % k] = numbers
        other = draw.unit(ops[1 - place], 4, k, maker.rng)
        other.codes[:] = draw.one(other.op)
        if other.op.is_value:
            other.codes[2:] *= 2.0 ** (LARGE_HALF if other.op.name == "float16" else LARGE_FLOAT)
        yield maker.beside(place, side, other, "subnormals")
        if not other.op.is_value and draw.movable(other.op):
            yield maker.beside(place, side, draw.moved(other, LARGE_FLOAT), "subnormals")


def small_results(maker: Maker, k: int) -> Iterator[Problem]:
    """One term a row whose product is subnormal in what comes out, of factors that are not, if can be."""
    sides = []
    for op, rows in ((maker.claim.a, 4), (maker.claim.b, 3)):
        side = draw.unit(op, rows, k, maker.rng)
        side.codes[:] = draw.one(op)
        if op.is_value:
            side.codes[:] *= np.array([1, -1, 1.5, 1.25], np.float32)[:rows, None]
        sides.append(side)
    sides[0] = maker.kept(sides[0], 1, 1)
    moves = [_moves(maker, side.op) for side in sides]
    if maker.claim.accumulator.least > -149 or not any(moves):
        return
    for less in (1, 6, 9):
        first = (_normal(maker) - less) // sum(moves) * moves[0]
        by = first, (_normal(maker) - less - first) * moves[1]
        moved = [draw.moved(side, n) if n else side for side, n in zip(sides, by, strict=True)]
        yield Problem(maker.claim, moved[0], moved[1], law="subnormals")


def beside_tiny(maker: Maker, k: int) -> Iterator[Problem]:
    """What tells one flush from another, one row each.

    Subnormal numbers of a side whose products are not; products whose sum is subnormal, or alone is not.
    """
    ops = (maker.claim.a, maker.claim.b)
    if maker.claim.accumulator.least > -149 or any(op.zero for op in ops):
        return
    for place, op in enumerate(ops):
        other = draw.unit(ops[1 - place], 2, k, maker.rng)
        other.codes[:] = draw.one(ops[1 - place])
        if draw.movable(op) and draw.movable(other.op):
            side = draw.unit(op, 3, k, maker.rng)
            side.codes[np.arange(3), np.arange(3) * 11 % k] = draw.one(op)
            yield maker.beside(place, draw.moved(side, TINY), draw.moved(other, -TINY - 20), "subnormals")
        if op.name in ("float32", "bfloat16") and k > 1:
            side = draw.unit(op, 2, k, maker.rng)
            side.codes[:, :2] = np.array([[1.5, -1.0], [0.5, 0.5]]) * 2.0**-126
            yield maker.beside(place, side, other, "subnormals")


def _normal(maker: Maker) -> int:
    """The exponent of the smallest normal number of what comes out."""
    return int(np.frexp(SMALLEST[maker.claim.out])[1]) - 1


def _moves(maker: Maker, op: Operand) -> bool:
    """Has a side numbers, or scales, that make results subnormal?"""
    return draw.movable(op) or (op.name == "float16" and maker.claim.out == "float16")
