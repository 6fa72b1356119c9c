"""Deviations of single numbers, of encoders and of decoders: functions for deviation.py's constructors.

Nothing here is arithmetic of its own beyond the deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from numerics.conform.deviations.deviation import Deviation, Kernel, Stage, after, as_values
from numerics.conform.inputs.elements import beyond
from numerics.conform.inputs.rescale import element_values
from numerics.conform.task import REFERENCE, Answer, Array, Fields, Float32, Task
from numerics.formats.block import Block
from numerics.formats.dtype import Float
from numerics.formats.integers import int16


def exact(task: Task, x: Array, random: Array | None = None) -> Answer:
    """What is due: codes, Fields of rows, or the values of codes."""
    draws = random if task.rounding == "stochastic" else None
    if task.kind == "decode":
        return task.values(x)
    if not isinstance(task.dtype, Block):
        return task.codes(x, draws)
    fields = replace(task, axis=-1).fields(x, draws)
    shared = [None if part is None else part.reshape(-1) for part in fields[1:]]
    assert shared[0] is not None
    return Fields(fields.codes, shared[0], shared[1])


# ---- single numbers -----------------------------------------------------------------------------


def flush(task: Task, x: Float32) -> Float32:
    """Subnormal float32 numbers as zeros of their sign."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def flush_small(task: Task, x: Float32) -> Float32:
    """Numbers below the format's smallest normal as zero, before they are rounded up to it."""
    return np.where(np.abs(x) < task.element.smallest_normal, np.copysign(np.float32(0), x), x)


def through(other: Float) -> Callable[[Task, Float32], Float32]:
    """Numbers rounded to another float format first."""

    def change(task: Task, x: Float32) -> Float32:
        there = Task.of(other, overflow="nonsaturate")
        return there.values(there.codes(x))

    return change


def largest_overflows(task: Task, x: Float32) -> Float32:
    """What exceeds the largest value as an infinity."""
    past = (np.abs(x) > np.float32(task.element.max)) & np.isfinite(x)
    return np.where(past, np.copysign(np.float32(np.inf), x), x)


def add_half(task: Task, x: Float32) -> Float32:
    """The sum |x| + 0.5, in units of the least step, rounds up to 1 where |x| is just below 0.5."""
    least = np.float32(task.element.smallest_subnormal)
    below = np.nextafter(least / 2, np.float32(0))
    return np.where(np.abs(x) == below, np.copysign(least, x), x)


def flush_codes(task: Task, x: Float32, codes: Array) -> Array:
    """Codes of subnormal values as those of zero."""
    d = task.element
    small = np.abs(task.values(codes)) < d.smallest_normal
    return np.where(small, codes & (1 << (d.bits - 1)), codes) if d.signed else np.where(small, 0, codes)


def bare_zero(task: Task, x: Float32, codes: Array) -> Array:
    """Codes of zero without a sign."""
    meant = element_values(task, codes) if isinstance(task.dtype, Block) else task.values(codes)
    return np.where(meant == 0, 0, codes)


def other_zero(task: Task, x: Float32, codes: Array) -> Array:
    """The zero of the other sign for NaN."""
    zero = np.where(np.signbit(x), 0, 1 << (task.element.bits - 1))
    return np.where(np.isnan(x), zero, codes)


def wrap(task: Task, x: Float32, codes: Array) -> Array:
    """Rounded on the widest grid of integers, then cut."""
    d = task.element
    inside = np.isfinite(x) & (np.abs(x) < 2.0**15 - 1)
    flat = np.where(inside, x, np.float32(0)).reshape(-1)
    wide = REFERENCE.encode(flat, int16, task.rounding, "saturate", None).reshape(x.shape)
    return np.where(inside, wide & ((1 << d.bits) - 1), codes)


def symmetric_range(task: Task, x: Float32) -> Float32:
    """Numbers not below the negative of the largest integer."""
    return np.maximum(x, -np.float32(task.element.max), where=~np.isnan(x), out=x.copy())


def no_sign(task: Task, x: Float32) -> Float32:
    """Magnitudes."""
    return np.abs(x)


def unused_specials(task: Task, x: Float32, rounded: Float32) -> Float32:
    """The code past the largest as the number that it would be; Inf and NaN too become it."""
    past = np.float32(beyond(task.element))
    over = ~(np.abs(x) < (past + np.float32(task.element.max)) / 2)
    return np.where(over, np.copysign(past, x), rounded)


def infinite(task: Task, x: Float32, rounded: Float32) -> Float32:
    """Inf for what is too large, whether the format has one or not."""
    middle = (np.float32(beyond(task.element)) + np.float32(task.element.max)) / 2
    return np.where(np.abs(x) >= middle, np.copysign(np.float32(np.inf), x), rounded)


def plain_zero(task: Task, x: Float32) -> Float32:
    """-0 as 0; what becomes zero keeps its sign."""
    return np.where(x == 0, np.float32(0), x)


def minus_zero(task: Task, x: Float32, codes: Array) -> Array:
    """Every zero as -0."""
    d = task.dtype
    meant = element_values(task, codes) if isinstance(d, Block) else task.values(codes)
    bits = d.element_bits if isinstance(d, Block) else task.element.bits
    return np.where(meant == 0, 1 << (bits - 1), codes).astype(codes.dtype)


def nan_becomes(value: float) -> Deviation:
    """The code of a number for NaN; Inf stands for the largest value."""

    def change(task: Task, x: Float32, codes: Array) -> Array:
        d = task.element
        number = np.array([d.max if value == np.inf else value], np.float32)
        code = Task.of(d, overflow="saturate").codes(number)[0]
        return np.where(np.isnan(x), code, codes)

    return after(change)


def nan_as_number(task: Task, x: Float32) -> Float32:
    """NaN as 1 and its payload, with its sign."""
    bits = x.view(np.uint32) & np.uint32(0x807FFFFF) | np.uint32(0x3F800000)
    return np.where(np.isnan(x), bits.view(np.float32), x)


def nan_by_bits(rounded: str) -> Deviation:
    """The bits of a NaN as those of a number: cut, or rounded, into the format that has float32's exponents.

    rounded: away or even, by what is added before the low bits are cut; "" where nothing is.
    """

    def change(task: Task, x: Float32, codes: Array) -> Array:
        d = task.element
        cut = 32 - d.bits
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(x.shape)
        half, odd = 1 << (cut - 1), (bits >> np.uint32(cut)) & np.uint32(1)
        added: Array = {"": 0 * odd, "away": 0 * odd + np.uint32(half), "even": odd + np.uint32(half - 1)}[
            rounded
        ]
        found = (bits + added) >> np.uint32(cut)  # past the sign, as in uint32
        return np.where(np.isnan(x), found, codes).astype(codes.dtype)

    return after(change)


def overflowing(which: Callable[[Float32], Array]) -> Deviation:
    """Some inputs overflow to Inf or NaN, the others saturate."""

    def bend(first: Kernel) -> Kernel:
        def kernel(task: Task, x: Float32, *others: Array | None) -> Answer:
            kept, lost = (
                np.asarray(first(replace(task, overflow=name), x, *others))
                for name in ("saturate", "nonsaturate")
            )
            return np.where(which(x), lost, kept)

        return kernel

    return Deviation(Stage.OPTIONS, bend)


def staying(which: Callable[[Float32], Array]) -> Deviation:
    """Some inputs stay as they are, and nothing else sees them."""

    def bend(first: Kernel) -> Kernel:
        def kernel(task: Task, x: Float32, *others: Array | None) -> Answer:
            stays = which(x)
            rest = as_values(task, first(task, np.where(stays, np.float32(0), x), *others))
            return np.where(stays, x, rest)

        return kernel

    return Deviation(Stage.VALUES, bend)


def nan_for_infinity(task: Task, x: Float32, rounded: Float32) -> Float32:
    """NaN for infinite inputs."""
    return np.where(np.isinf(x), np.float32(np.nan), rounded)


def exponent_overflows(task: Task, x: Float32, rounded: Float32) -> Float32:
    """NaN where the float32 logarithm of a finite number rounds up to 128."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log2(np.abs(x).astype(np.float64)).astype(np.float32)
    return np.where(np.isfinite(x) & (logarithm >= 128), np.float32(np.nan), rounded)


# ---- e8m0 ---------------------------------------------------------------------------------------


def exponent_field(task: Task, x: Float32, random: Array | None = None) -> Answer:
    """The field, one higher where the next bit is set and the field or the rest is not zero."""
    bits = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
    field, rest = bits >> np.uint32(23), bits & np.uint32(0x3FFFFF)
    up = ((bits & np.uint32(0x400000)) != 0) & ((field > 0) | (rest != 0))
    return np.asarray(np.minimum(field + up, 255).astype(np.uint8))


def positive_field(task: Task, x: Float32, codes: Array) -> Array:
    """As `exponent_field` for positive numbers; the codes of the others stay."""
    return np.where((x > 0) & np.isfinite(x), np.asarray(exponent_field(task, x)), codes)


# ---- stochastic rounding --------------------------------------------------------------------------


def reversed_draws(first: Kernel) -> Kernel:
    """The draws counted from the other end."""

    def kernel(task: Task, x: Float32, random: Array | None) -> Answer:
        assert random is not None
        most = (1 << task.drawing.bits) - 1
        return first(task, x, (most - (random & most)).astype(random.dtype))

    return kernel


# ---- decoders -----------------------------------------------------------------------------------


def flat_subnormals(task: Task, codes: Array, values: Float32) -> Float32:
    """Zeros for values below the smallest normal."""
    small = np.abs(values) < np.float32(task.element.smallest_normal)
    return np.where(small, np.copysign(np.float32(0), values), values)


def unsigned_zero(task: Task, codes: Array, values: Float32) -> Float32:
    """Values with a zero that has no sign."""
    return np.where(values == 0, np.float32(0), values)


def numbers_for_specials(task: Task, codes: Array, values: Float32) -> Float32:
    """The highest exponent as one more binade of numbers."""
    d = task.element
    assert isinstance(d, Float)
    magnitude = codes.astype(np.int64) & ((1 << (d.exponent + d.mantissa)) - 1)
    field, fraction = magnitude >> d.mantissa, magnitude & ((1 << d.mantissa) - 1)
    with np.errstate(over="ignore"):
        number = np.ldexp(1 + fraction / (1 << d.mantissa), field - d.bias).astype(np.float32)
    signs = np.where(codes >> (d.bits - 1) & int(d.signed), np.float32(-1), np.float32(1))
    return np.where(np.isfinite(values), values, number * signs)


def times(factor: float) -> Callable[[Task, Array, Float32], Float32]:
    """Values times a factor."""
    return lambda task, codes, values: values * np.float32(factor)
