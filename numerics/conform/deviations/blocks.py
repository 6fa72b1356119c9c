"""Deviations of blocks: other scales, other microexponents, other elements at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.deviation import Deviation, Kernel, Stage, as_values, instead
from numerics.conform.deviations.elements import exact
from numerics.conform.inputs.rescale import TINY, fields_at, quotients, steps
from numerics.conform.task import REFERENCE, Answer, Array, Fields, Float32, Task
from numerics.formats.block import MicroexponentBlock
from numerics.formats.floats import fp4

MOST_BYTE = 254  # the largest scale of an MX block
ONE = np.float32(1)
BLOCK_SCALES: dict[str, Callable[[Float32, np.float32, np.float32], Float32]] = {
    "amax · (1 / E) / ts": lambda amax, end, whole: amax * (ONE / end) / whole,
    "amax / E · (1 / ts)": lambda amax, end, whole: amax / end * (ONE / whole),
    "amax · (1 / E) · (1 / ts)": lambda amax, end, whole: amax * (ONE / end) * (ONE / whole),
    "amax · (1 / ts) · (1 / E)": lambda amax, end, whole: amax * (ONE / whole) * (ONE / end),
    "amax · (1 / ts · (1 / E))": lambda amax, end, whole: amax * ((ONE / whole) * (ONE / end)),
    "amax / (E · ts)": lambda amax, end, whole: amax / (end * whole),
    "amax / ts / E": lambda amax, end, whole: amax / whole / end,
}
"""What a float scale is the nearest to, if not to amax / E / ts: ts the tensor's, E the largest element."""


def ordinary(x: Float32) -> Float32:
    """What is not a number left out, as the scale sees it."""
    return np.where(np.isfinite(x), x, np.float32(0))


def largest_magnitude(x: Float32) -> Float32:
    """The largest finite magnitude of each block."""
    return np.asarray(np.max(np.abs(ordinary(x)), axis=1))


def with_scale(find: Callable[[Task, Float32], NDArray[np.int64]]) -> Deviation:
    """MX blocks whose scale's exponent comes from elsewhere; the elements are exact at that scale."""

    def kernel(task: Task, x: Float32, random: Array | None) -> Answer:
        amax = largest_magnitude(x)
        exponent = np.clip(find(task, np.where(amax == 0, np.float32(1), amax)), -127, 127)
        byte = np.where(amax == 0, 0, exponent + 127)
        byte = np.where(np.isfinite(x).all(axis=1), byte, 255).astype(np.uint8)
        return fields_at(task, x, byte)

    return instead(kernel)


def float_log2(
    rounded: Callable[[Float32], Float32], clips: bool
) -> Callable[[Task, Float32], NDArray[np.int64]]:
    """The exponent by a logarithm that float32 rounds; clips: of the maximum over the largest element."""

    def find(task: Task, amax: Float32) -> NDArray[np.int64]:
        d = task.elements
        if clips:
            with np.errstate(under="ignore"):
                amax = np.maximum(amax / np.float32(d.element_unit * d.element.scale_end), np.float32(TINY))
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
    d = task.elements
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
    d = task.elements
    flat = np.ascontiguousarray(product, np.float32).reshape(-1)
    codes = REFERENCE.encode(flat, d.element, ones.rounding, "saturate", None).reshape(x.shape)
    return found._replace(
        codes=np.where(np.isfinite(step) & np.isfinite(x).all(axis=1, keepdims=True), codes, found.codes)
    )


def block_scale_by(find: Callable[[Float32, np.float32, np.float32], Float32]) -> Deviation:
    """A float scale that is the nearest to another number; the elements are exact at that scale.

    find: of the largest magnitudes of blocks, what a magnitude becomes, and the tensor's scale.
    """

    def kernel(task: Task, x: Float32, random: Array | None) -> Answer:
        found, d = exact(task, x, random), task.elements
        assert isinstance(found, Fields)
        end = np.float32(d.element_unit * d.element.scale_end)
        with np.errstate(all="ignore"):
            wanted = find(largest_magnitude(x), end, np.float32(task.tensor_scale or 1.0))
        scale = REFERENCE.encode(np.asarray(wanted, np.float32), d.scale, "half_even", "saturate", None)
        whole = np.isfinite(x).all(axis=1)
        return fields_at(task, x, np.where(whole, scale, found.scale).astype(np.uint8))

    return instead(kernel)


def no_microexponents(task: Task, x: Float32, random: Array | None) -> Answer:
    """Every sub-block with the step of the block."""
    found = exact(task, x, random)
    assert isinstance(found, Fields)
    assert found.microexponents is not None
    return fields_at(task, x, found.scale, np.zeros_like(found.microexponents))


def rounded_exponents(task: Task, x: Float32, random: Array | None) -> Answer:
    """Exponents of the numbers after rounding to the element's precision."""
    d = task.block
    assert isinstance(d, MicroexponentBlock)
    m = d.mantissa
    half = np.uint32(1 << (23 - m))
    bits = np.abs(x).view(np.uint32)
    raised = np.where(bits >= np.uint32(0x7F800000), bits, np.minimum(bits + half, np.uint32(0x7F7FFFFF)))
    fields = np.where(bits < np.uint32(1 << 23), 0, raised >> np.uint32(23)).astype(np.int64)
    scale = fields.max(axis=1)
    below = fields.reshape(len(x), -1, d.sub_block).max(axis=2) < scale[:, None]
    micro = (below << np.arange(below.shape[1])).sum(axis=1)
    micro = np.where(scale == 255, 0, micro).astype(np.uint8)
    return fields_at(task, x, scale.astype(np.uint8), micro)


def loose_clamp(first: Kernel) -> Kernel:
    """Values of a clamp that is a bit wider in shifted sub-blocks."""

    def kernel(task: Task, x: Float32, *others: Any) -> Answer:
        found = first(task, x, *others)
        assert isinstance(found, Fields)
        step = steps(task, found.scale, found.microexponents)
        top = (1 << (task.block.element_bits - 1)) - 1
        shifted = step < steps(task, found.scale, np.zeros_like(found.scale))
        with np.errstate(invalid="ignore"):
            past = shifted & (np.abs(x) >= (top + 0.5) * step)
            loose = np.copysign((top + 1) * step, x)
        return np.where(past, loose, as_values(task, found)).astype(np.float32)

    return kernel


def scale_of_zeros(byte: int) -> Deviation:
    """Another scale for a block of zeros."""

    def change(task: Task, x: Float32, found: Fields) -> Fields:
        zeros = (x == 0).all(axis=1)
        return found._replace(scale=np.where(zeros, byte, found.scale).astype(found.scale.dtype))

    return fields_after(change)


def fields_after(change: Callable[[Task, Float32, Fields], Fields]) -> Deviation:
    """Other fields of blocks: change(task, rows, fields)."""

    def bend(first: Kernel) -> Kernel:
        def kernel(task: Task, x: Float32, *others: Any) -> Answer:
            found = first(task, x, *others)
            assert isinstance(found, Fields)
            return change(task, x, found)

        return kernel

    return Deviation(Stage.CODES, bend)


def least_scale_counts_twice(task: Task, x: Float32, found: Fields) -> Fields:
    """Elements over 2**-126 where the scale says 2**-127."""
    least = found.scale == 0
    codes = fields_at(task, x, np.where(least, 1, found.scale).astype(np.uint8)).codes
    return found._replace(codes=np.where(least[:, None], codes, found.codes))


def infinity_is_large(largest: bool) -> Deviation:
    """An Inf counts as 2**128, or takes the largest scale; a NaN still makes the block NaN."""

    def change(task: Task, x: Float32, found: Fields) -> Fields:
        d = task.elements
        rows = np.asarray(np.isinf(x).any(axis=1) & ~np.isnan(x).any(axis=1))
        byte = MOST_BYTE if largest or task.scale_rule == "rceil" else 127 + 128 - d.emax
        scale = np.where(rows, min(byte, MOST_BYTE), found.scale).astype(np.uint8)
        codes = fields_at(task, ordinary(x), scale).codes
        ends = Task.of(d.element).codes(np.array([-d.element.max, d.element.max], np.float32))
        codes = np.where(np.isinf(x), np.where(x > 0, ends[1], ends[0]), codes)
        return Fields(np.where(rows[:, None], codes, found.codes).astype(d.code_dtype), scale, None)

    return fields_after(change)
