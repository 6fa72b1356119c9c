"""How a fault bends a product: what a side means, what the claim says, what is scaled and added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from numerics.conform.products.blend import Blend
from numerics.conform.products.claim import ACCUMULATORS, Operand
from numerics.conform.products.problem import (
    SMALLEST,
    VIA,
    Factors,
    Float64,
    Parts,
    Problem,
    Side,
    flush,
    meanings,
    to_bfloat16,
)
from numerics.conform.products.telling.deviations.deviation import Bend, bent, of_claim, of_sides


def nibbles_swapped(problem: Problem) -> Problem | None:
    """Behind the last code of an odd row stands what nobody knows."""
    side, length = problem.b, problem.shape[2]
    if side.op.bits != 4 or length % 2:
        return None
    order = np.arange(length) ^ 1
    return replace(problem, b=bent(side, element=side.factors.element[:, order]))


def shifted_byte(*bytes_: int) -> Callable[[Side, Problem], Side]:
    """Some bytes of e8m0 as a shift makes float32 of them; all others as they are."""

    def change(side: Side, problem: Problem) -> Side:
        if side.op.scale is None or side.op.scale.name != "e8m0" or side.scale is None:
            return side
        values = (side.scale.astype(np.uint32) << np.uint32(23)).view(np.float32).astype(np.float64)
        shifted = np.asarray(side.spread(values) * side.number)
        return bent(
            side, scale=np.where(side.spread(np.isin(side.scale, bytes_)), shifted, side.factors.scale)
        )

    return change


def no_subnormals(side: Side, problem: Problem) -> Side:
    """Codes below the least normal number of their format as zeros."""
    element = side.op.element
    least = getattr(element, "smallest_normal", None)
    if least is None or side.op.is_integer:
        return side
    f = side.factors
    return bent(side, element=np.where(np.abs(f.element) < least, 0.0, f.element))


def nan_is_large(side: Side, problem: Problem) -> Side:
    """A code that says NaN as the number that would stand there if all codes were numbers."""
    f, element = side.factors, side.op.element
    if element is None or side.op.is_value or not np.isnan(f.element).any():
        return side
    past = element.max * 480 / 448 if element.name == "fp8_e4m3" else element.max
    sign = np.where(side.codes >> (element.bits - 1) & 1, -1.0, 1.0)
    return bent(side, element=np.where(np.isnan(f.element), sign * past, f.element))


def other_table(dtype: object) -> Callable[[Side, Problem], Side]:
    """Codes of fp8_e4m3, read by the table of another format."""

    def change(side: Side, problem: Problem) -> Side:
        if side.op.element is None or side.op.element.name != "fp8_e4m3":
            return side
        other = Operand.of(dtype)
        return bent(side, element=meanings(other)[side.codes])

    return change


def in_bfloat16(side: Side, problem: Problem) -> Side:
    """Plain numbers, or what codes stand for, rounded to bfloat16."""
    f = side.factors
    if side.op.is_value:
        return bent(side, element=to_bfloat16(f.element).astype(np.float64))
    if side.op.share == "none":
        return side
    return meaning(side, to_bfloat16(f.values).astype(np.float64))


def in_float16(side: Side, problem: Problem) -> Side:
    """Numbers, or what codes stand for, rounded to float16."""
    with np.errstate(over="ignore"):
        return meaning(side, side.values.astype(np.float16).astype(np.float64))


def in_tf32(more: Callable[[NDArray[np.uint32]], NDArray[np.uint32]]) -> Callable[[Side, Problem], Side]:
    """Numbers of 11 bits; more: what is added to the bits of a float32 before its last 13 are cut off."""

    def change(side: Side, problem: Problem) -> Side:
        with np.errstate(over="ignore"):
            bits = side.values.astype(np.float32).view(np.uint32)
        kept = ((bits + more(bits)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
        return meaning(side, np.where(np.isfinite(side.values), kept, side.values))

    return change


def meaning(side: Side, values: Float64) -> Side:
    """A side that stands for these numbers, whatever its scales and zero points are."""
    ones = np.ones_like(values)
    return bent(side, element=values, zero=ones * 0, scale=ones)


def in_int8(reach: int) -> Callable[[Side, Problem], Side]:
    """Plain numbers quantized to int8: a scale for so many neighbours, the largest of which becomes 127."""

    def change(side: Side, problem: Problem) -> Side:
        if not side.op.is_value:
            return side
        rows, length = side.codes.shape
        size = min(reach, length)
        groups = -(-length // size)
        room = np.zeros((rows, groups * size), np.float32)
        room[:, :length] = side.codes
        room = room.reshape(rows, groups, size)
        with np.errstate(all="ignore"):
            scale = np.abs(room).max(axis=2, keepdims=True) / np.float32(127)
            whole = np.where(scale > 0, np.rint(room / np.where(scale > 0, scale, 1)), 0)
        codes, scales = (
            np.broadcast_to(part, room.shape).reshape(rows, -1)[:, :length].astype(np.float64)
            for part in (whole, scale)
        )
        return bent(side, element=codes, zero=np.zeros_like(codes), scale=scales)

    return change


def rounded_scale(kind: str) -> Callable[[Side, Problem], Side]:
    """Scales of float32 rounded to a narrower type."""

    def change(side: Side, problem: Problem) -> Side:
        if side.scale is None or side.scale.dtype.kind != "f":
            return side
        with np.errstate(over="ignore"):
            one = (
                to_bfloat16(side.scale.astype(np.float64))
                if kind == "bfloat16"
                else side.scale.astype(np.float16)
            )
        return bent(side, scale=np.asarray(side.spread(one.astype(np.float64)) * side.number))

    return change


def absolute_scale(side: Side, problem: Problem) -> Side:
    """Scales without their sign."""
    return bent(side, scale=np.abs(side.factors.scale))


def assumed_zero(zero: float | None) -> Callable[[Side, Problem], Side]:
    """One zero point everywhere, whatever is given; None: the middle of the codes."""

    def change(side: Side, problem: Problem) -> Side:
        if side.zero is None:
            return side
        due = float(1 << (side.op.bits - 1)) if zero is None else zero
        return bent(side, zero=np.full_like(side.factors.zero, due))

    return change


def no_number(side: Side, problem: Problem) -> Side:
    """A tensor's own scale, beside those of its blocks, counts 1."""
    return bent(side, scale=side.factors.scale / side.number)


def scale_of(shift: Callable[[int, int], int]) -> Callable[[Side, Problem], Side]:
    """The scale of another block: shift(block, blocks)."""

    def change(side: Side, problem: Problem) -> Side:
        if side.op.size == 0 or side.scale is None:
            return side
        blocks = side.scale.shape[1]
        order = [shift(j, blocks) for j in range(blocks)]
        micro = None if side.micro is None else side.micro[:, order]
        other = replace(side, scale=side.scale[:, order], micro=micro, meant=None)
        return bent(side, scale=other.factors.scale)

    return change


def rows_swapped(side: Side, problem: Problem) -> Side:
    """The scale of the neighbour among rows, in pairs."""
    rows = len(side.codes)
    if side.scale is None or len(side.scale) != rows:
        return side
    order = np.minimum(np.arange(rows) ^ 1, rows - 1)
    return bent(side, scale=replace(side, scale=side.scale[order], meant=None).factors.scale)


def without_tail(unit: int, single: bool = False) -> Callable[[Side, Problem], Side]:
    """Terms past whole units count 0; single: where a has one row."""

    def change(side: Side, problem: Problem) -> Side:
        length = side.codes.shape[1]
        if single and len(problem.a.codes) != 1:
            return side
        keep = np.arange(length) < length // unit * unit
        f: Factors = side.factors
        return bent(
            side,
            element=np.where(keep, f.element, 0.0),
            zero=np.where(keep, f.zero, 0.0),
            scale=np.where(keep, f.scale, 1.0),
        )

    return change


def unsigned(side: Side, problem: Problem) -> Side:
    """Codes of integers, read without a sign."""
    if not side.op.is_integer or side.zero is not None:
        return side
    return bent(side, element=side.codes.astype(np.float64))


def signed(side: Side, problem: Problem) -> Side:
    """Codes of 8 bits without a sign, read as int8."""
    if not side.op.is_integer or side.zero is not None or getattr(side.op.element, "signed", True):
        return side
    half = 1 << (side.op.bits - 1)
    codes = side.codes.astype(np.float64)
    return bent(side, element=np.where(codes >= half, codes - 2 * half, codes))


def small_values(which: Callable[[Side], bool]) -> Callable[[Side, Problem], Side]:
    """Subnormal numbers of some sides as zeros: plain ones of their type, decoded ones of float32."""

    def change(side: Side, problem: Problem) -> Side:
        kind = str(side.op.name) if side.op.is_value else "float32"
        return meaning(side, flush(side.values, SMALLEST[kind])) if which(side) else side

    return change


def flushed_products(problem: Problem) -> Problem:
    """Products of two elements that are subnormal count 0."""
    return replace(problem, flushed=True)


flushed_inputs = small_values(lambda side: side.op.is_value)
INPUTS = of_sides(flushed_inputs)
WEIGHTS = of_sides(small_values(lambda side: not side.op.is_value))
RESULTS = of_claim(rounding="flushed")


def flushed_everywhere(problem: Problem) -> Problem | None:
    """Inputs, weights, products and results that are subnormal count 0."""
    found: Problem | None = problem
    for bend in (INPUTS, WEIGHTS, flushed_products, RESULTS):
        found = None if found is None else bend(found)
    return found


def accumulates(name: str) -> Bend:
    """Sums in an accumulator; of a narrow type the nearest number of it, as a sum of two terms shows."""
    kept = {"rounding": name} if name in VIA else {}
    return of_claim(accumulate=ACCUMULATORS[name], **kept)


def pairs_within_int16(problem: Problem) -> Problem:
    """Sums of two neighbours saturate at int16, as vpmaddubsw does it."""
    return replace(problem, parts=Parts(2, "int16")) if problem.claim.integers else problem


def with_blend(change: Callable[[Blend], Blend]) -> Bend:
    """Another alpha, beta or way to add c, where there is one."""

    def bend(problem: Problem) -> Problem:
        return problem if problem.blend is None else replace(problem, blend=change(problem.blend))

    return bend


def c_where_alpha_is_0(problem: Problem) -> Problem | None:
    """c where alpha is 0 and beta is not; where both are, the result is memory of which nobody knows."""
    blend = problem.blend
    if blend is None or blend.alpha != 0:
        return problem
    return None if blend.beta == 0 else replace(problem, blend=replace(blend, beta=1.0))


def of_bfloat16(blend: Blend) -> Blend:
    """Alpha and beta rounded to bfloat16."""
    alpha, beta = to_bfloat16(np.array([blend.alpha, blend.beta], np.float64))
    return replace(blend, alpha=float(alpha), beta=float(beta))


def with_bias(added: Callable[[Problem, Float64], Float64]) -> Bend:
    """The bias added in another way, where there is one."""

    def bend(problem: Problem) -> Problem:
        return problem if problem.bias is None else replace(problem, added=added)

    return bend
