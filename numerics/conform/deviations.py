"""How kernels deviate: an exact answer bent by another option, by other inputs, or by other results.

dialects.py names these; nothing here is arithmetic of its own beyond the deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from numerics.conform.probes import beyond
from numerics.conform.rescale import TINY, element_values, fields_at, quotients, steps, values_at
from numerics.conform.task import REFERENCE, Answer, Array, Fields, Task
from numerics.formats.block import Block
from numerics.formats.dtype import Float, Integer
from numerics.formats.floats import fp4
from numerics.formats.integers import int16
from numerics.formats.rounding import RANDOM_BITS

Float32 = NDArray[np.float32]
Bent = Callable[[Task, Float32, Array | None], Answer]
"""(task, float32 elements or rows of blocks, random bits or None) -> codes, Fields, or float32 values."""
Applies = Callable[[Task], bool]


# ---- how an exact answer is bent ----------------------------------------------------------------


def exact(task: Task, x: Float32, random: Array | None = None) -> Answer:
    """The exact codes, or Fields of rows."""
    if not isinstance(task.dtype, Block):
        return task.codes(x, random)
    rows = replace(task, axis=-1)
    fields = rows.fields(x, random)
    shared = [None if part is None else part.reshape(-1) for part in fields[1:]]
    assert shared[0] is not None
    return Fields(fields.codes, shared[0], shared[1])


def option(**options: str) -> Bent:
    """The exact answer under other options."""

    def bent(task: Task, x: Float32, random: Array | None) -> Answer:
        other = replace(task, **options)  # type: ignore[arg-type]
        return exact(other, x, random if other.rounding == "stochastic" else None)

    return bent


def before(change: Callable[[Task, Float32], Float32], then: Bent = exact) -> Bent:
    """Other inputs."""
    return lambda task, x, random: then(task, change(task, x), random)


def after(change: Callable[[Task, Float32, Array], Array], first: Bent = exact) -> Bent:
    """Other codes."""

    def bent(task: Task, x: Float32, random: Array | None) -> Answer:
        found = first(task, x, random)
        if isinstance(found, Fields):
            return found._replace(codes=change(task, x, found.codes))
        return change(task, x, found)

    return bent


def values_after(change: Callable[[Task, Float32, Float32], Float32], first: Bent = exact) -> Bent:
    """Other values than those of the codes, for targets that round."""
    return lambda task, x, random: change(task, x, as_values(task, first(task, x, random)))


def as_values(task: Task, answer: Answer) -> Float32:
    """Codes or Fields of rows as the values that they mean."""
    if isinstance(answer, Fields):
        return values_at(task, answer)
    return answer if answer.dtype.kind == "f" else task.values(answer)


def by_sign(negative: str, positive: str) -> Bent:
    """One rounding below zero, another above."""

    def bent(task: Task, x: Float32, random: Array | None) -> Answer:
        low, high = (option(rounding=name)(task, x, None) for name in (negative, positive))
        if isinstance(low, Fields) and isinstance(high, Fields):
            return high._replace(codes=np.where(np.signbit(x), low.codes, high.codes))
        assert isinstance(low, np.ndarray)
        assert isinstance(high, np.ndarray)
        return np.where(np.signbit(x), low, high)

    return bent


# ---- which tasks --------------------------------------------------------------------------------


def quantizes(task: Task) -> bool:
    """Values in, whatever comes out."""
    return task.kind in ("encode", "round")


def of_elements(task: Task) -> bool:
    """Single numbers."""
    return quantizes(task) and not isinstance(task.dtype, Block)


def of_floats(task: Task) -> bool:
    """Single floats."""
    return quantizes(task) and isinstance(task.dtype, Float)


def of_integers(task: Task) -> bool:
    """Single integers, without draws."""
    return quantizes(task) and isinstance(task.dtype, Integer) and not task.draws


def of_mx(task: Task) -> bool:
    """OCP MX blocks."""
    return quantizes(task) and task.family == "mx"


def rescaled_mx(task: Task) -> bool:
    """The same, without draws."""
    return of_mx(task) and not task.draws


def of_micro(task: Task) -> bool:
    """Microexponent blocks, without draws."""
    return quantizes(task) and task.family == "micro" and not task.draws


def of_scaled(task: Task) -> bool:
    """Blocks with a float scale, without draws."""
    return quantizes(task) and task.family == "scaled" and not task.draws


def rounds(task: Task) -> bool:
    """Values in and out."""
    return task.kind == "round"


def signed_floats(task: Task) -> bool:
    """Formats that have a negative zero."""
    d = task.dtype.element or task.dtype if isinstance(task.dtype, Block) else task.dtype
    plain = isinstance(d, Float) and d.signed and d.specials != "fnuz"
    return quantizes(task) and (plain or task.family == "micro")


def signed_floats_alone(task: Task) -> bool:
    """The same, single ones."""
    return of_elements(task) and signed_floats(task)


def decodes(task: Task) -> bool:
    """Codes of floats in, values out."""
    return task.kind == "decode" and isinstance(task.dtype, Float)


# ---- single numbers -----------------------------------------------------------------------------


def flush(task: Task, x: Float32) -> Float32:
    """Subnormal float32 numbers as zeros of their sign."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


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


def nan_becomes(value: float) -> Bent:
    """The code of a number for NaN; Inf stands for the largest value."""

    def change(task: Task, x: Float32, codes: Array) -> Array:
        d = task.element
        number = np.array([d.max if value == np.inf else value], np.float32)
        code = Task.of(d, overflow="saturate").codes(number)[0]
        return np.where(np.isnan(x), code, codes)

    return after(change)


def other_zero(task: Task, x: Float32, codes: Array) -> Array:
    """The zero of the other sign for NaN."""
    zero = np.where(np.signbit(x), 0, 1 << (task.element.bits - 1))
    return np.where(np.isnan(x), zero, codes)


def only_infinity_overflows(task: Task, x: Float32, random: Array | None) -> Answer:
    """Infinite inputs overflow, large ones saturate."""
    kept, lost = (option(overflow=name)(task, x, random) for name in ("saturate", "nonsaturate"))
    return np.where(np.isinf(x), np.asarray(lost), np.asarray(kept))


def only_finite_overflow(task: Task, x: Float32, random: Array | None) -> Answer:
    """Large inputs overflow, infinite ones saturate."""
    kept, lost = (option(overflow=name)(task, x, random) for name in ("saturate", "nonsaturate"))
    return np.where(np.isinf(x), np.asarray(kept), np.asarray(lost))


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


def keeps_infinity(task: Task, x: Float32, rounded: Float32) -> Float32:
    """Infinite inputs as they are."""
    return np.where(np.isinf(x), x, rounded)


def positive_zero(task: Task, x: Float32, rounded: Float32) -> Float32:
    """Zeros without a sign."""
    return np.where(rounded == 0, np.float32(0), rounded)


def exponent_field(task: Task, x: Float32, random: Array | None) -> Answer:
    """The field, one higher where the next bit is set and the field or the rest is not zero."""
    bits = x.view(np.uint32) & np.uint32(0x7FFFFFFF)
    field, rest = bits >> np.uint32(23), bits & np.uint32(0x3FFFFF)
    up = ((bits & np.uint32(0x400000)) != 0) & ((field > 0) | (rest != 0))
    return np.asarray(np.minimum(field + up, 255).astype(np.uint8))


def reversed_draws(task: Task, x: Float32, random: Array | None) -> Answer:
    """The draws counted from the other end."""
    assert random is not None
    most = (1 << RANDOM_BITS) - 1
    return exact(task, x, (most - (random & most)).astype(random.dtype))


# ---- blocks -------------------------------------------------------------------------------------


def ordinary(x: Float32) -> Float32:
    """What is not a number left out, as the scale sees it."""
    return np.where(np.isfinite(x), x, np.float32(0))


def largest_magnitude(x: Float32) -> Float32:
    """The largest finite magnitude of each block."""
    return np.asarray(np.max(np.abs(ordinary(x)), axis=1))


def with_scale(find: Callable[[Task, Float32], NDArray[np.int64]]) -> Bent:
    """MX blocks whose scale's exponent comes from elsewhere; the elements are exact at that scale."""

    def bent(task: Task, x: Float32, random: Array | None) -> Answer:
        amax = largest_magnitude(x)
        exponent = np.clip(find(task, np.where(amax == 0, np.float32(1), amax)), -127, 127)
        byte = np.where(amax == 0, 0, exponent + 127)
        byte = np.where(np.isfinite(x).all(axis=1), byte, 255).astype(np.uint8)
        return fields_at(task, x, byte)

    return bent


def float_log2(
    rounded: Callable[[Float32], Float32], clips: bool
) -> Callable[[Task, Float32], NDArray[np.int64]]:
    """The exponent by a logarithm that float32 rounds; clips: of the maximum over the largest element."""

    def find(task: Task, amax: Float32) -> NDArray[np.int64]:
        d = task.block
        assert d.element is not None
        if clips:
            with np.errstate(under="ignore"):
                amax = np.maximum(amax / np.float32(d.element_unit * d.element.max), np.float32(TINY))
        logarithm = np.log2(amax.astype(np.float64)).astype(np.float32)
        return rounded(logarithm).astype(np.int64) - (0 if clips else d.emax)

    return find


def fp4_threshold(task: Task, amax: Float32) -> NDArray[np.int64]:
    """`even` with fp4's mantissa, whatever the element."""
    field = (amax.view(np.uint32).astype(np.int64) + (1 << (22 - fp4.mantissa))) >> 23
    return field - 127 - task.block.emax


def lowest_integer(task: Task, x: Float32, random: Array | None) -> Answer:
    """The code that symmetric integers leave out."""
    found = exact(task, x, random)
    assert isinstance(found, Fields)
    d = task.block
    assert d.element is not None
    y = quotients(x, steps(task, found.scale), True) / np.float32(d.element_unit)
    reached = REFERENCE.encode(
        np.ascontiguousarray(y, np.float32).reshape(-1), d.element, task.rounding, "saturate", None
    )
    lowest = reached.reshape(x.shape) == 1 << (d.element.bits - 1)
    whole = np.isfinite(x).all(axis=1, keepdims=True)
    return found._replace(codes=np.where(lowest & whole, reached.reshape(x.shape), found.codes))


def scale_reciprocal(task: Task, x: Float32, random: Array | None) -> Answer:
    """x times the reciprocal of a float scale."""
    found = exact(task, x, random)
    assert isinstance(found, Fields)
    step = steps(task, found.scale).astype(np.float32)
    with np.errstate(all="ignore"):
        product = np.where(step > 0, x * (np.float32(1) / step), np.copysign(np.float32(0), x))
    ones = replace(task, tensor_scale=1.0)
    d = task.block
    assert d.element is not None
    flat = np.ascontiguousarray(product, np.float32).reshape(-1)
    codes = REFERENCE.encode(flat, d.element, ones.rounding, "saturate", None).reshape(x.shape)
    return found._replace(
        codes=np.where(np.isfinite(step) & np.isfinite(x).all(axis=1, keepdims=True), codes, found.codes)
    )


def elementwise_specials(task: Task, x: Float32, random: Array | None) -> Answer:
    """Blocks of the finite numbers; NaN and Inf put back where they were."""
    rounded = as_values(task, exact(task, ordinary(x), random))
    return np.where(np.isfinite(x), rounded, x)


def nan_stays(task: Task, x: Float32, random: Array | None) -> Answer:
    """The scale does not see a NaN, which stays where it was; an Inf still spoils the block."""
    rounded = as_values(task, exact(task, np.where(np.isnan(x), np.float32(0), x), random))
    return np.where(np.isnan(x), x, rounded)


def no_microexponents(task: Task, x: Float32, random: Array | None) -> Answer:
    """Every sub-block with the step of the block."""
    found = exact(task, x, random)
    assert isinstance(found, Fields)
    assert found.microexponents is not None
    return fields_at(task, x, found.scale, np.zeros_like(found.microexponents))


def rounded_exponents(task: Task, x: Float32, random: Array | None) -> Answer:
    """Exponents of the numbers after rounding to the element's precision."""
    d = task.block
    m = d.mantissa or 0
    half = np.uint32(1 << (23 - m))
    bits = np.abs(x).view(np.uint32)
    raised = np.where(bits >= np.uint32(0x7F800000), bits, np.minimum(bits + half, np.uint32(0x7F7FFFFF)))
    fields = np.where(bits < np.uint32(1 << 23), 0, raised >> np.uint32(23)).astype(np.int64)
    scale = fields.max(axis=1)
    below = fields.reshape(len(x), -1, d.sub_block or 1).max(axis=2) < scale[:, None]
    micro = (below << np.arange(below.shape[1])).sum(axis=1)
    micro = np.where(scale == 255, 0, micro).astype(np.uint8)
    return fields_at(task, x, scale.astype(np.uint8), micro)


def loose_clamp(task: Task, x: Float32, random: Array | None) -> Answer:
    """Values of a clamp that is a bit wider in shifted sub-blocks."""
    found = exact(task, x, random)
    assert isinstance(found, Fields)
    step = steps(task, found.scale, found.microexponents)
    values = values_at(task, found)
    top = (1 << (task.block.mantissa or 0)) - 1
    shifted = step < steps(task, found.scale, np.zeros_like(found.scale))
    with np.errstate(invalid="ignore"):
        past = shifted & (np.abs(x) >= (top + 0.5) * step)
        return np.where(past, np.copysign((top + 1) * step, x), values).astype(np.float32)


def one_of_zero_blocks(task: Task, x: Float32, random: Array | None) -> Answer:
    """The scale 1 for a block of zeros."""
    found = exact(task, x, random)
    assert isinstance(found, Fields)
    return found._replace(scale=np.where((x == 0).all(axis=1), 127, found.scale).astype(found.scale.dtype))


# ---- decoders -----------------------------------------------------------------------------------


def decoded(change: Callable[[Task, Array, Float32], Float32]) -> Bent:
    """Other values of codes, which stand where a quantizer has its float32 input."""
    return lambda task, codes, random: change(task, codes, task.values(codes)).astype(np.float32)


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


def doubled(factor: float) -> Bent:
    """Values times a factor."""
    return decoded(lambda task, codes, values: values * np.float32(factor))


# ---- a scale and a zero point -------------------------------------------------------------------

Rescaled = Callable[[Task, Float32, float, int], Array]


def by_reciprocal(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """x times the reciprocal of the scale, then as it should be."""
    with np.errstate(all="ignore"):
        product = x * (np.float32(1) / np.float32(scale))
    return task.affine_codes(product, 1.0, zero_point)


def zero_point_after_clamp(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """Clamped, moved by the zero point, clamped again."""
    d = task.element
    clamped = task.values(task.affine_codes(x, scale, 0)).astype(np.int64) + zero_point
    return np.clip(clamped, int(d.min), int(d.max)) % (1 << d.bits)


def zero_point_wraps(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """Clamped, moved by the zero point, cut to the low bits."""
    d = task.element
    return (task.values(task.affine_codes(x, scale, 0)).astype(np.int64) + zero_point) % (1 << d.bits)


def zero_point_before_rounding(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """Moved by the zero point in float32, then rounded."""
    with np.errstate(all="ignore"):
        y = x / np.float32(scale) + np.float32(zero_point)
    return task.affine_codes(np.where(np.isnan(x), np.float32(zero_point), y), 1.0, 0)


def rescaled_rounding(rounding: str) -> Rescaled:
    """Another rounding."""
    return lambda task, x, scale, zero: replace(task, rounding=rounding).affine_codes(x, scale, zero)


def rescaled_dpu(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """Half up below zero, half to even above."""
    low, high = (rescaled_rounding(name)(task, x, scale, zero_point) for name in ("half_up", "half_even"))
    return np.where(np.signbit(x), low, high)
