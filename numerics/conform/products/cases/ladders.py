"""Rows of 2**j, 1 and -2**j: how many bits an accumulator holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.draw import Integers
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.problem import Problem, Side, meanings


def ladders(maker: Maker, k: int) -> Iterator[Problem]:
    """Rows of 2**j, 1 and -2**j: the one is there at the end, for every j that the accumulator holds."""
    a, b = maker.claim.a, maker.claim.b
    if k < 3 or a.zero or b.zero or not (a.is_value or (a.size and a.power_scale)):
        return
    places = ((0, 1, k - 1), (1, 0, k - 1), (0, k // 2, k - 1))
    steps = np.arange(1, maker.claim.accumulator.bits - 2 * b.shifts)
    for large, small, back in places:
        left, right = draw.unit(a, len(steps), k, maker.rng), draw.unit(b, 4, k, maker.rng)
        right.codes[:] = draw.one(b)
        found = _ladder(left, steps, (large, small, back))
        if found is not None:
            yield Problem(maker.claim, found, right, law="accumulator")


def _ladder(side: Side, steps: Integers, places: tuple[int, int, int]) -> Side | None:
    large, small, back = places
    op, codes = side.op, side.codes.copy()
    if op.is_value:
        unit = 2.0**-9 if op.name == "float16" else 1.0
        codes[:, large], codes[:, small], codes[:, back] = unit * 2.0**steps, unit, -unit * 2.0**steps
        return side.with_codes(codes)
    blocks = [place // op.size for place in places]
    if blocks[1] in (blocks[0], blocks[2]) or not draw.has_signs(op):
        return None
    assert side.scale is not None
    scale = side.scale.copy()
    scale[:, blocks[0]] = scale[:, blocks[2]] = draw.powers(scale, steps)
    unit_value = float(meanings(op)[int(draw.one(op))])
    codes[:, large] = codes[:, small] = draw.one(op)
    codes[:, back] = draw.code_of(op, -unit_value)
    return replace(side.with_codes(codes), scale=scale)
