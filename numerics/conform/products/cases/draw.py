"""Sides of a product, drawn: codes of chosen exponents, scales, zero points."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.products.claim import Claim, Operand
from numerics.conform.products.problem import Side, meanings, table, to_bfloat16
from numerics.conform.task import Array
from numerics.formats.dtype import Integer

Integers = NDArray[np.int64]
Rng = np.random.Generator

SIGNIFICAND = {"float32": 24, "bfloat16": 8, "float16": 11}
EXPONENTS = {"float32": (-149, 127), "bfloat16": (-133, 127), "float16": (-24, 15)}
"""Of the least and the largest power of two of plain numbers."""
SPREAD = {"float32": 20, "bfloat16": 20, "float16": 5}
"""How far exponents of plain numbers move about 0 in a sum."""
POWERS = range(-3, 4)  # exponents of a tensor's scale


@lru_cache(maxsize=64)
def classes(op: Operand) -> dict[int, Array]:
    """The codes of finite values that are not zero, by the exponent of the value; of integers all under 0."""
    return _by_exponent(meanings(op), op.is_integer or op.micro is not None)


@lru_cache(maxsize=64)
def scale_classes(op: Operand) -> dict[int, Array]:
    """The codes of positive scales by exponent."""
    assert op.scale is not None
    found = table(op.scale)
    return _by_exponent(np.where(found > 0, found, 0.0), False)


def _by_exponent(values: NDArray[np.float64], as_one: bool) -> dict[int, Array]:
    held = np.isfinite(values) & (values != 0)
    if as_one:
        return {0: np.flatnonzero(held)}
    exponent = np.frexp(np.where(held, values, 1.0))[1] - 1
    return {int(e): np.flatnonzero(held & (exponent == e)) for e in np.unique(exponent[held])}


@lru_cache(maxsize=64)
def zero_codes(op: Operand) -> Array:
    """The codes of zeros; of plain numbers 0."""
    return np.zeros(1) if op.is_value else np.flatnonzero(meanings(op) == 0)


def code_of(op: Operand, value: float) -> float:
    """The code of a value before its scale, or the plain number itself; KeyError where there is none."""
    if op.is_value:
        return value
    found = np.flatnonzero(meanings(op) == value)
    if not len(found):
        raise KeyError(f"{op} has no code of {value}")
    return int(found[0])


def has(op: Operand, *values: float) -> bool:
    """Are there codes of these values?"""
    return op.is_value or all(bool((meanings(op) == value).any()) for value in values)


def one(op: Operand) -> float:
    """The code of 1, or of what comes next to it."""
    if has(op, 1.0):
        return code_of(op, 1.0)
    positive = np.flatnonzero((meanings(op) > 0) & np.isfinite(meanings(op)))
    return int(positive[np.abs(np.log2(meanings(op)[positive])).argmin()])


def has_signs(op: Operand) -> bool:
    """Has it a code of minus the value of `draw.one`?"""
    return op.is_value or has(op, -float(meanings(op)[int(one(op))]))


def blank(op: Operand, rows: int, length: int, rng: Rng) -> Array:
    """Zeros of every sign, as codes or plain numbers."""
    if op.is_value:
        odd = (np.arange(rows)[:, None] + np.arange(length)) % 2 == 1
        return np.where(odd, np.float32(-0.0), np.float32(0.0))
    return rng.choice(zero_codes(op), (rows, length)).astype(np.uint16 if op.bits > 8 else np.uint8)


def unit(op: Operand, rows: int, length: int, rng: Rng) -> Side:
    """Zeros at scale 1 (or what comes next to it), zero points 0."""
    scale = scales(op, np.zeros(op.shared(rows, length), np.int64), rng, plain=True)
    zero = np.zeros(op.shared(rows, length), np.int64) if op.zero else None
    return Side(op, blank(op, rows, length, rng), scale, zero, _micro(op, rows, length, None))


def scales(op: Operand, exponents: Integers, rng: Rng, plain: bool = False) -> Array | None:
    """Scales near these powers of two: codes, or float32.  plain: the powers themselves."""
    if op.share == "none":
        return None
    if op.micro is not None or (op.scale is not None and op.scale.name == "e8m0"):
        return np.clip(127 + exponents, 0, 254).astype(np.uint8)
    if op.scale is not None:
        held = scale_classes(op)
        near = np.clip(exponents, min(held), max(held))
        pick = (lambda e: held[e][0]) if plain else (lambda e: rng.choice(held[e]))
        return np.asarray(np.vectorize(pick, otypes=[np.uint8])(near))
    if op.spec is not None and op.spec.scale_type == "float16":
        exponents = np.clip(exponents, -8, 8)
    significand = 1.0 if plain or op.power_scale else rng.integers(4, 8, exponents.shape) / 4
    return np.ldexp(significand, exponents).astype(np.float32)


def powers(scale: Array, exponents: Any) -> Array:
    """These powers of two as scales like others: codes of e8m0, or numbers that any float type has."""
    if scale.dtype.kind != "f":
        return np.asarray(np.clip(127 + exponents, 0, 254)).astype(np.uint8)
    return np.asarray(np.ldexp(1.0, np.clip(exponents, -127, 127))).astype(np.float32)


def zero_points(op: Operand, rows: int, length: int, rng: Rng) -> Array | None:
    """Zero points of the codes' whole range."""
    if not op.zero:
        return None
    element = op.element
    assert isinstance(element, Integer)
    return rng.integers(int(element.min), int(element.max) + 1, op.shared(rows, length))


def _micro(op: Operand, rows: int, length: int, rng: Rng | None) -> Array | None:
    if op.micro is None:
        return None
    shape = op.shared(rows, length)
    most = 1 << op.micro.sub_blocks
    return (np.zeros(shape, int) if rng is None else rng.integers(0, most, shape)).astype(np.uint8)


def op_range(op: Operand) -> range:
    """The exponents of its elements, where a code has one; (0,) of plain numbers and integers."""
    if op.is_value:
        return range(1)
    held = classes(op)
    return range(min(held), max(held) + 1)


def of_exponents(op: Operand, exponents: Integers, rows: int, window: int, rng: Rng) -> Array:
    """Codes [rows, length] whose values have these exponents, or up to `window` less."""
    length = len(exponents)
    if op.is_value:
        bits = {"float32": 11}.get(str(op.name), 7)
        whole = rng.integers(-(1 << bits), (1 << bits) + 1, (rows, length)).astype(np.float64)
        return np.ldexp(whole, np.clip(exponents, EXPONENTS[str(op.name)][0], 7)).astype(np.float32)
    kind = np.uint16 if op.bits > 8 else np.uint8
    if op.is_integer or op.micro is not None:
        return rng.integers(0, 1 << op.bits, (rows, length)).astype(kind)
    held = classes(op)
    found = np.zeros((rows, length), kind)
    for top in np.unique(exponents):
        places = np.flatnonzero(exponents == top)
        pool = [held[e] for e in range(int(top) - window, int(top) + 1) if e in held]
        found[:, places] = rng.choice(np.concatenate(pool or [held[min(held)]]), (rows, len(places)))
    return found


def short(op: Operand, codes: Array, bits: int, rng: Rng) -> Array:
    """The same codes, with others in place of those whose significands have more bits, where there are."""
    values = np.where(np.isfinite(meanings(op)), meanings(op), 0.0)
    scaled = np.ldexp(np.frexp(values)[0], bits)
    few = scaled == np.rint(scaled)
    held = np.flatnonzero(few & (values != 0))
    if few.all() or not len(held):
        return codes
    return np.where(few[codes], codes, rng.choice(held, codes.shape)).astype(codes.dtype)


def coarse(side: Side) -> Side:
    """The same of integers: no zeros, codes and zero points are multiples of a quarter of their range."""
    kept, quarter = -1 << (side.op.bits - 2), 1 << (side.op.bits - 2)
    zero = None if side.zero is None else side.zero & kept
    codes = side.codes & (kept & ((1 << side.op.bits) - 1))
    return replace(side.with_codes(np.where(codes == 0, quarter, codes)), zero=zero)


def finish(op: Operand, codes: Array, scale: Array | None, rng: Rng) -> Side:
    """A side with drawn zero points, microexponents and a scale of the tensor."""
    rows, length = codes.shape
    number = 2.0 ** int(rng.choice(POWERS)) if op.number else 1.0
    return Side(op, codes, scale, zero_points(op, rows, length, rng), _micro(op, rows, length, rng), number)


def anything(op: Operand, rows: int, centre: Integers, bits: int, rng: Rng) -> Side:
    """All finite codes, at scales about a centre [length]: exponents that every element's block has.

    bits: of the significands of plain numbers, and of scales that are floats.
    """
    length = len(centre)
    if op.is_value:
        return Side(op, _plain(op, rows, length, bits, rng))
    finite = np.flatnonzero(np.isfinite(meanings(op)))
    codes = rng.choice(finite, (rows, length)).astype(np.uint16 if op.bits > 8 else np.uint8)
    shape = op.shared(rows, length)
    near = np.broadcast_to(centre[:: op.size][None] if op.size else np.zeros((1, 1), np.int64), shape)
    near = near + rng.integers(-6, 7, shape)
    scale: Array | None
    if op.share == "none" or op.power_scale:
        scale = scales(op, near, rng)
    elif op.scale is not None:
        positive = np.flatnonzero((table(op.scale) > 0) & np.isfinite(table(op.scale)))
        scale = rng.choice(positive, shape).astype(np.uint8)
    else:
        bits = min(bits, scale_bits(op))
        scale = np.ldexp(rng.integers(1 << (bits - 1), 1 << bits, shape), near - bits).astype(np.float32)
    return finish(op, codes, scale, rng)


def significands(shape: tuple[int, ...], bits: int, rng: Rng) -> NDArray[np.float64]:
    """Numbers of 1 to 2 whose significands have so many bits, the last one set: whatever cuts them shows."""
    return np.asarray(np.ldexp(rng.integers(1 << (bits - 1), 1 << bits, shape) | 1, 1 - bits))


def of_powers(op: Operand, rows: int, length: int, split: bool, rng: Rng) -> Side:
    """Powers of two alone, as codes and as scales; plain numbers of both signs.

    split: where codes are shifted to unsigned ones, and zero points split off, all parts are powers of two.
    """
    scale = scales(op, rng.integers(-3, 4, op.shared(rows, length)), rng, plain=True)
    if op.scale is not None and not op.power_scale:
        scale = power_codes(op, rng.integers(-3, 4, op.shared(rows, length)))
    if op.is_value:
        codes = np.ldexp(rng.choice([-1.0, 1.0], (rows, length)), rng.integers(-6, 7, (rows, length)))
        return Side(op, codes.astype(np.float32), scale)
    values = meanings(op)
    power = np.isfinite(values) & (np.abs(np.frexp(values)[0]) == 0.5)
    element = op.element
    if (
        split and isinstance(element, Integer) and element.signed
    ):  # half of all codes is what it is shifted by
        power &= values == -float(1 << (op.bits - 1))
    pool = np.flatnonzero(power) if power.any() else np.array([int(one(op))])
    codes = rng.choice(pool, (rows, length)).astype(np.uint16 if op.bits > 8 else np.uint8)
    zero = None
    if op.zero:
        zero = np.zeros(op.shared(rows, length), np.int64)
        if isinstance(element, Integer) and not element.signed:
            zero = np.where(
                rng.random(zero.shape) < 0.3, rng.choice(values[pool].astype(np.int64), zero.shape), 0
            )
            codes = np.where(Side(op, codes, scale, zero).factors.zero != 0, 0, codes)
    return Side(op, codes, scale, zero, _micro(op, rows, length, rng))


def power_codes(op: Operand, exponents: Integers) -> Array:
    """Codes of scales that are these powers of two, or the ones next to them."""
    assert op.scale is not None
    values = table(op.scale)
    powers = [e for e in range(-20, 20) if (values == 2.0**e).any()]
    held = {e: int(np.flatnonzero(values == 2.0**e)[0]) for e in powers}
    near = np.clip(exponents, min(held), max(held))
    return np.asarray(np.vectorize(held.__getitem__, otypes=[np.uint8])(near))


def long_parts(op: Operand) -> tuple[str, ...]:
    """What of an operand has more bits than its codes: its plain numbers, its scales, that of the tensor."""
    if op.is_value:
        return ("codes",)
    return ("scale",) * is_loose(op) + ("number",) * op.number


def with_long(side: Side, part: str, bits: int, rng: Rng) -> Side:
    """The same, one part of which has all the bits of its type, or so many; of a format all its codes."""
    op = side.op
    if part == "codes" and not op.is_value:
        finite = np.flatnonzero(np.isfinite(meanings(op)))
        return side.with_codes(rng.choice(finite, side.codes.shape))
    if part == "number":
        return replace(side, number=float(significands((1,), min(bits, 24), rng)[0]))
    if part == "scale":
        assert side.scale is not None
        long = significands(side.scale.shape, min(bits, scale_bits(op)), rng)
        return replace(side, scale=(side.scale * long).astype(np.float32))
    long = significands(side.codes.shape, min(bits, SIGNIFICAND[str(op.name)]), rng)
    return side.with_codes(side.codes * long)


def scale_bits(op: Operand) -> int:
    """Bits of the significand of a scale that is a float."""
    kind = op.spec.scale_type if op.spec is not None else None
    return SIGNIFICAND.get(str(kind), 24)


def bits_of(op: Operand, part: str) -> int:
    """Bits of the significand of a part: its codes or plain numbers, its scale, that of the tensor."""
    if part != "codes":
        return 24 if part == "number" else scale_bits(op)
    if op.is_value:
        return SIGNIFICAND[str(op.name)]
    return op.bits if op.is_integer or op.micro is not None else getattr(op.element, "mantissa", 23) + 1


def room_of(op: Operand) -> tuple[int, int]:
    """By which powers of two `of_powers` of plain numbers may be moved, all their bits with them."""
    least, top = EXPONENTS[str(op.name)]
    return least + SIGNIFICAND[str(op.name)] + 6, top - 7


def _plain(op: Operand, rows: int, length: int, bits: int, rng: Rng) -> Array:
    bits = min(bits, SIGNIFICAND[str(op.name)])
    low, high = (-10, 4) if op.name == "float16" else (-20, 8)
    whole = rng.integers(-(1 << bits) + 1, 1 << bits, (rows, length)).astype(np.float64)
    exact = np.ldexp(whole, rng.integers(low, high, (rows, length)) - max(0, bits - 11))
    return to_bfloat16(exact) if op.name == "bfloat16" else exact.astype(op.name).astype(np.float32)


def loose_bits(claim: Claim) -> int:
    """Bits of a float32 product that codes leave to scales and plain numbers: of both sides together."""
    taken = 0
    for op in (claim.a, claim.b):
        if op.is_integer or op.micro is not None:
            taken += op.bits + 1
        elif op.element is not None:
            taken += getattr(op.element, "mantissa", 0) + 1
        if op.scale is not None and not op.power_scale:
            taken += getattr(op.scale, "mantissa", 0) + 1
    return 24 - taken


def is_loose(op: Operand) -> bool:
    """Has it plain numbers, or scales of many bits?"""
    return op.is_value or (op.share != "none" and not op.power_scale and op.scale is None)


def movable(op: Operand) -> bool:
    """Has a side numbers, or scales, of the exponents of float32?"""
    if op.spec is None or op.share == "none":
        return op.name in ("float32", "bfloat16")
    return op.power_scale or (op.scale is None and op.spec.scale_type in ("float32", "bfloat16"))


def moved(side: Side, by: int) -> Side:
    """A side times a power of two."""
    if side.op.is_value:  # what has bits below the type's last one becomes 0
        moved = np.ldexp(side.codes.astype(np.float64), by)
        least = 2.0 ** EXPONENTS[str(side.op.name)][0]
        return side.with_codes(np.where(np.rint(moved / least) * least == moved, moved, 0.0))
    assert side.scale is not None
    whole = side.scale.dtype.kind != "f"
    exponents = side.scale.astype(np.int64) - 127 if whole else np.frexp(side.scale)[1] - 1
    return replace(side, scale=powers(side.scale, exponents + by))


def of_few_exponents(op: Operand) -> bool:
    """Are its scales codes of few exponents?"""
    return op.scale is not None and op.scale.name != "e8m0"
