"""NaN and Inf in numbers, codes and scales: in every kind of place, and beside zeros."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.maker import Maker, Shape
from numerics.conform.products.claim import Operand
from numerics.conform.products.problem import Problem, Side, meanings, table, with_side

NANS = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFBFFFFF, 0x7FFFFFFF], np.uint32).view(np.float32)
"""NaN: as it is usually written, of the other sign, two that signal, and one of all bits."""


def special(maker: Maker, shape: Shape) -> Problem:
    """NaN and Inf in some rows' codes, numbers and scales, also beside zeros of the other side."""
    found = maker.sums(shape, bits=min(16, maker.claim.accumulator.bits), law="special")
    for name, other in (("a", "b"), ("b", "a")):
        side, beside = getattr(found, name), getattr(found, other)
        rows = len(side.codes)
        chosen = (
            maker.rng.permutation(rows)[: max(1, rows // 3)]
            if rows > 1
            else range(int(maker.rng.integers(2)))
        )
        for row in chosen:
            side, beside = _spoiled(maker, side, beside, int(row))
        found = replace(found, **{name: side, other: beside})
    return _with_zeros(maker, found)


def _with_zeros(maker: Maker, found: Problem) -> Problem:
    """The same with a row of zeros in each side that has some, all of whose numbers were finite."""
    for name in ("a", "b"):
        side: Side = getattr(found, name)
        held = np.flatnonzero(np.isfinite(side.values).all(axis=1))
        if side.zero is None and len(held) > 1:
            codes = side.codes.copy()
            codes[held[-1]] = draw.blank(side.op, 1, codes.shape[1], maker.rng)[0]
            found = with_side(found, name, side.with_codes(codes))
    return found


def beside_zeros(maker: Maker, shape: Shape, name: str, nothing: bool) -> Iterator[Problem]:
    """NaN and Inf in every third row of one side; rows of the other are zeros, or one number and zeros.

    nothing: all of its rows are zeros.  0 times NaN or Inf is NaN, also to a kernel that skips zeros.
    """
    found = maker.sums(shape, bits=min(16, maker.claim.accumulator.bits), law="special")
    other = "b" if name == "a" else "a"
    side, beside = getattr(found, name), getattr(found, other)
    if beside.zero is not None:
        return
    rows = range(0, len(side.codes), 3)
    if kinds := _not_finite(side.op):
        codes = side.codes.copy()
        for turn, row in enumerate(rows):
            codes[row, (5 * turn + row) % shape[2]] = kinds[turn % len(kinds)]
        side = side.with_codes(codes)
    elif (spoiler := _nan_scale(side.op)) is not None:
        scale = side.scale.copy()
        for row in rows:
            scale[row, row % scale.shape[1]] = spoiler
        side = replace(side, scale=scale)
    else:
        return
    zeros, codes = maker.nothing(beside), beside.codes.copy()
    codes[::2] = zeros[::2]
    codes[1::4, 1:] = zeros[1::4, 1:]
    yield replace(found, **{name: side, other: beside.with_codes(zeros if nothing else codes)})


def no_scales(maker: Maker, shape: Shape) -> Iterator[Problem]:
    """Scales of a float type that are 0, of some rows, groups, or the tensor: all under them is 0."""
    for name in ("a", "b"):
        op: Operand = getattr(maker.claim, name)
        if op.share == "none" or op.power_scale or op.scale is not None or op.micro is not None:
            continue
        found = maker.sums(shape, bits=min(16, maker.claim.accumulator.bits), law="scale_range")
        side: Side = getattr(found, name)
        assert side.scale is not None
        scale = side.scale.copy()
        scale[::2, int(maker.rng.integers(scale.shape[1]))] = 0
        yield with_side(found, name, replace(side, scale=scale))


def last(maker: Maker, shape: Shape, turn: int) -> Iterator[Problem]:
    """NaN and Inf in the last place of some rows of a side, the last one too, no zeros beside them."""
    found = maker.sums(shape, bits=min(16, maker.claim.accumulator.bits), law="special")
    sides = {"a": found.a, "b": found.b}
    name, other = ("a", "b") if turn % 2 == 0 else ("b", "a")
    kinds = _not_finite(sides[name].op)
    if not len(kinds):
        return
    side, beside = sides[name].codes.copy(), sides[other].codes.copy()
    for row in range(min(len(side), len(kinds))):  # the last one, then the first ones
        side[row - 1, -1] = _nan_of(sides[name].op, kinds[(turn // 2 + row) % len(kinds)], turn + row)
    if sides[other].zero is None:
        beside[sides[other].values[:, -1] == 0, -1] = draw.one(sides[other].op)
    sides = {name: sides[name].with_codes(side), other: sides[other].with_codes(beside)}
    yield replace(found, a=sides["a"], b=sides["b"])


def _spoiled(maker: Maker, side: Side, beside: Side, row: int) -> tuple[Side, Side]:
    k = int(maker.rng.integers(side.codes.shape[1]))
    kinds = _not_finite(side.op)
    spoiler = _nan_scale(side.op)
    if spoiler is not None and maker.rng.random() < 1 / (1 + len(kinds)) + 0.2:
        return _with_scale(maker, side, beside, (row, k // side.op.size), spoiler)
    if not kinds:
        return side, beside
    codes, others = side.codes.copy(), beside.codes.copy()
    codes[row, k] = _nan_of(side.op, kinds[int(maker.rng.integers(len(kinds)))], row + k)
    if beside.zero is None and maker.rng.random() < 0.5:
        others[int(maker.rng.integers(len(others))), k] = draw.zero_codes(beside.op)[0]
    return side.with_codes(codes), beside.with_codes(others)


def _with_scale(maker: Maker, side: Side, beside: Side, at: tuple[int, int], byte: int) -> tuple[Side, Side]:
    """A scale that says NaN, over numbers of one sign: an Inf in its place would stay Inf."""
    assert side.scale is not None
    scale = side.scale.copy()
    scale[at] = byte
    block = slice(at[1] * side.op.size, (at[1] + 1) * side.op.size)
    codes, others = side.codes.copy(), beside.codes.copy()
    if maker.rng.random() < 0.6:
        codes[:, block], others[:, block] = draw.one(side.op), draw.one(beside.op)
    elif beside.zero is None:
        others[int(maker.rng.integers(len(others))), block] = draw.zero_codes(beside.op)[0]
    return replace(side.with_codes(codes), scale=scale), beside.with_codes(others)


def _not_finite(op: Operand) -> list[float]:
    """NaN and both Inf as plain numbers, or the codes of such."""
    return [np.nan, np.inf, -np.inf] if op.is_value else list(np.flatnonzero(~np.isfinite(meanings(op))))


def _nan_of(op: Operand, number: float, turn: int) -> float:
    """A number that is not finite; a NaN of float32 in turn of another sign and payload, quiet or not."""
    if op.name != "float32" or not np.isnan(number):
        return number
    found: float = NANS[turn % len(NANS)]
    return found


def _nan_scale(op: Operand) -> int | None:
    """The scale that says NaN, where there is one."""
    if not op.size or (op.scale is None and op.micro is None):
        return None
    if op.micro is not None:
        return 255
    assert op.scale is not None
    found = np.flatnonzero(np.isnan(table(op.scale)))
    return int(found[0]) if len(found) else None
