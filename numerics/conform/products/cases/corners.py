"""Codes at the ends of their scales: numbers that float32 holds, and narrower types do not.

One side has all its codes at a scale of the ends, the other answers: with a scale, or a number, by which
the result is near one.  A kernel that decodes a side to bfloat16, float16 or tf32, or multiplies scales in
one of them, loses bits there, or the number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import lcm

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.claim import Claim, Operand
from numerics.conform.products.problem import Problem, Side, meanings, table
from numerics.conform.task import Array

BYTES = (0, 1, 2, 20, 103, 113, 142, 232, 247, 254)
"""Codes of e8m0: the ends of float32, and what is past those of float16 and of bfloat16."""
NUMBERS = (-120, -20, 20, 110)
"""Exponents of a tensor's scale."""
EXPONENTS = {
    "float32": (-149, -140, -127, -126, -100, -20, 20, 100, 127),
    "bfloat16": (-133, -127, -126, -20, 20, 127),
    "float16": (-24, -15, -14, 15),
    "pof2": (-127, -126, -100, -20, 20, 100, 127),
}  # fmt: skip
"""Exponents of scales that are floats: the ends of their type, and what is past those of narrower ones."""
FAR = 100  # exponent of an answer, at most: times the elements alone it is still a float32 number
FEW = 8  # codes of a side where rows are whole blocks


def corners(claim: Claim, rng: draw.Rng) -> Iterator[Problem]:
    """Every code of a side at scales of the ends, the other side answering; one term in a sum."""
    ops = (claim.a, claim.b)
    whole = lcm(*(op.size or 1 for op in ops))
    for place, op in enumerate(ops):
        other = ops[1 - place]
        for length in {1: None, whole: None}:
            for side in _at_ends(op, length, rng):
                answer = _answering(other, length, int(np.clip(-_middle(side), -FAR, FAR)), rng)
                sides = (side, answer) if place == 0 else (answer, side)
                yield Problem(claim, *sides, law="corners")


def _at_ends(op: Operand, length: int, rng: draw.Rng) -> Iterator[Side]:
    """Sides of one element a row, the codes in turn, at each scale of the ends."""
    codes = _codes(op) if length == 1 else _telling(op)
    blank = draw.unit(op, len(codes), length, rng)
    blank.codes[:, length // 2] = codes
    if op.is_value or op.share == "none":
        yield blank
        return
    for scale in _scales(op):
        side = replace(blank, scale=np.full_like(blank.scale, scale))
        if op.micro is not None:  # half of what the scale says, too
            yield replace(side, micro=np.full_like(side.micro, (1 << op.micro.sub_blocks) - 1))
        if not op.number:
            yield side
        else:
            yield from (replace(side, number=2.0**exponent) for exponent in NUMBERS)


def _codes(op: Operand) -> Array:
    """All codes that are finite; of 16 bits, and of plain numbers, those that tell most."""
    if op.is_value or op.bits > 8:
        return _telling(op)
    return np.asarray(np.flatnonzero(np.isfinite(meanings(op))))


def _telling(op: Operand) -> Array:
    """Few of them: the least and the largest magnitudes, with all bits and with one."""
    if not op.is_value:
        values = np.abs(meanings(op))
        held = np.flatnonzero(np.isfinite(values) & (values != 0))
        order = held[np.argsort(values[held], kind="stable")]
        return np.asarray(np.unique(np.concatenate([order[: FEW // 2], order[-FEW // 2 :]])))
    name = str(op.name)
    (least, top), bits = draw.EXPONENTS[name], draw.SIGNIFICAND[name]
    normal, ones = least + bits - 1, 2 - 2.0 ** (1 - bits)
    found = [2.0**least, -3 * 2.0**least, (1 - 2.0 ** (1 - bits)) * 2.0**normal, -(2.0**normal)]
    return np.array([*found, ones * 2.0**normal, 2.0**top, -ones * 2.0**top, 1.5 * 2.0 ** (top - 1)])


def _scales(op: Operand) -> Array:
    """Scales of the ends, as codes or as numbers."""
    if op.micro is not None or (op.scale is not None and op.scale.name == "e8m0"):
        return np.array(BYTES, np.uint8)
    if op.scale is None:
        kind = "float32" if op.spec is None else str(op.spec.scale_type)
        ends = np.array(EXPONENTS.get(kind, EXPONENTS["float32"]))
        return np.asarray(np.ldexp(1.0, ends), np.float32)
    values = table(op.scale)
    held = np.flatnonzero((values > 0) & np.isfinite(values))
    order = held[np.argsort(values[held], kind="stable")]
    return np.asarray(np.unique(order[[0, 2, len(order) // 2, -3, -1]]))


def _middle(side: Side) -> int:
    """The exponent of the middle one of a side's magnitudes."""
    values = np.abs(side.values)
    held = values[(values != 0) & np.isfinite(values)]
    return int(np.frexp(np.median(held))[1]) - 1 if held.size else 0


def _answering(op: Operand, length: int, exponent: int, rng: draw.Rng) -> Side:
    """Three rows of one element, at a scale of this power of two or the nearest that there is."""
    side = draw.unit(op, 3, length, rng)
    if op.is_value:
        least, top = draw.EXPONENTS[str(op.name)]
        side.codes[:, length // 2] = np.ldexp([1.0, -1.0, 1.5], int(np.clip(exponent, least + 1, top)))
        return side
    finite = np.where(np.isfinite(meanings(op)), meanings(op), 0.0)
    side.codes[:, length // 2] = draw.one(op), finite.argmax(), finite.argmin()
    if op.number:
        return replace(side, number=2.0 ** int(np.clip(exponent, min(NUMBERS), max(NUMBERS))))
    if op.share == "none" or (op.scale is not None and not op.power_scale):
        return side
    assert side.scale is not None
    kind = "pof2" if op.spec is None or op.spec.scale_type is None else str(op.spec.scale_type)
    ends = EXPONENTS.get(kind, EXPONENTS["pof2"])
    near = int(np.clip(exponent, max(min(ends), -127), max(ends)))
    return replace(side, scale=draw.powers(side.scale, np.full(side.scale.shape, near)))
