"""Blocks at scales that somebody else chose: what a wrong scale makes of the elements.

Exact, and fast: an element over its scale is one float32 number, or one that counts as the least,
so that the reference's breakpoints say its code (backends/reference/breakpoints.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import BlockFields
from numerics.backends.reference import lookup
from numerics.conform.task import REFERENCE, Array, Fields, Task
from numerics.formats.block import ElementBlock, MicroexponentBlock, ScaledBlock, TieredBlock, tiered_scale
from numerics.formats.dtype import Element, Integer
from numerics.formats.floats import bfloat16
from numerics.formats.integers import int8, int16

TINY = float(np.finfo(np.float32).smallest_subnormal)


def steps(task: Task, scale: Array, microexponents: Array | None = None) -> NDArray[np.float64]:
    """What one unit of an element counts in blocks with these shared fields: [n, block] or [n, 1].

    NaN where the shared field says NaN.

    >>> from numerics.formats import mxfp4
    >>> steps(Task.of(mxfp4), np.uint8([127, 128, 255])).ravel().tolist()
    [1.0, 2.0, nan]
    """
    d = task.block
    if isinstance(d, ElementBlock):
        unit = REFERENCE.decode(scale, d.scale)[:, None]
        unit = np.abs(unit) if d.has_two_readings else unit
        return np.asarray(unit * np.float32(task.tensor_scale or 1.0), np.float64)
    assert isinstance(d, MicroexponentBlock)
    assert microexponents is not None
    if isinstance(d, TieredBlock):
        ones = np.ones((len(scale), d.block), d.code_dtype)
        return lookup.decode_blocks(BlockFields(ones, scale, microexponents), d, None).astype(np.float64)
    shift = np.repeat(microexponents[:, None] >> np.arange(d.sub_blocks) & 1, d.sub_block, axis=1)
    exponent = scale[:, None].astype(np.int64)
    return np.where(exponent == 255, np.nan, np.ldexp(1.0, exponent - 127 - shift - (d.mantissa - 1)))


def quotients(rows: NDArray[np.float32], step: NDArray[np.float64], exact: bool) -> NDArray[np.float32]:
    """Each element over its step as float32; exact: what underflows counts as the least, not as 0."""
    with np.errstate(all="ignore"):
        if not exact:  # a float scale is divided by in float32
            return np.where(
                step > 0, rows / np.where(step > 0, step, 1).astype(np.float32), rows * np.float32(0)
            )
        over = (rows / step).astype(np.float32)
        return np.where((over == 0) & (rows != 0), np.copysign(np.float32(TINY), rows), over)


def fields_at(
    task: Task, rows: NDArray[np.float32], scale: Array, microexponents: Array | None = None
) -> Fields:
    """The blocks of float32 rows [n, block] at given shared fields.

    >>> from numerics.formats import mxfp4
    >>> rows = np.float32([[6.0] + [1.0] * 31])
    >>> fields_at(Task.of(mxfp4), rows, np.uint8([128])).codes[0, :2].tolist()
    [5, 1]
    """
    d = task.block
    step = steps(task, scale, microexponents)
    poison = ~np.isfinite(step) | ~np.isfinite(rows).all(axis=1, keepdims=True)
    if isinstance(d, ElementBlock):
        y = quotients(rows, step, not isinstance(d, ScaledBlock))
        codes = _element_codes(task, d, y)
        if isinstance(d, ScaledBlock) and d.integers is not None:
            codes = np.where(_flagged(d, scale), _counts(task, d, y), codes)
        nan_code = getattr(d.element, "nan", None) or 0
    elif isinstance(d, TieredBlock):
        codes, nan_code = _magnitudes(task, _in_counts(rows, step, scale)), 0
    else:
        normal = np.where(np.abs(rows) < np.float32(2.0**-126), np.float32(0), rows)
        codes, nan_code = _magnitudes(task, quotients(normal, step, True)), 0
    return Fields(np.where(poison, nan_code, codes).astype(d.code_dtype), scale, microexponents)


def _in_counts(rows: NDArray[np.float32], step: NDArray[np.float64], scale: Array) -> NDArray[np.float32]:
    """Elements of tiered blocks in their steps: by the reciprocal of the scale, rounded to bfloat16."""
    with np.errstate(all="ignore"):
        known = np.array([tiered_scale(code) for code in range(256)], np.float32)
        codes = REFERENCE.encode(np.float32(1) / known, bfloat16, "half_even", "nonsaturate", None)
        inverse = REFERENCE.decode(codes, bfloat16)[scale][:, None].astype(np.float32)
        over = np.where(np.isfinite(rows), rows, 0) * inverse
        return (over * (known[scale][:, None].astype(np.float64) / step)).astype(np.float32)


def _element_codes(task: Task, d: ElementBlock, y: NDArray[np.float32]) -> Array:
    if isinstance(d.element, Integer):
        y = np.clip(y / np.float32(d.element_unit), -d.element.max, d.element.max).astype(np.float32)
    return _encoded(task, d.element, y)


def _encoded(task: Task, element: Element, y: NDArray[np.float32]) -> Array:
    """The codes of an element format."""
    flat = np.ascontiguousarray(y).reshape(-1)
    return REFERENCE.encode(flat, element, task.rounding, "saturate", None).reshape(y.shape)


def _flagged(d: ElementBlock, scale: Array) -> Array:
    """Which blocks' scales say that codes are counts."""
    return np.asarray(scale >> (d.scale.bits - 1) == 1)[:, None]


def _counts(task: Task, d: ScaledBlock, y: NDArray[np.float32]) -> Array:
    """The codes of quotients in the second reading."""
    assert d.integers is not None
    return _encoded(task, d.integers, y * np.float32(d.steps_in_one))


def _magnitudes(task: Task, y: NDArray[np.float32]) -> Array:
    """Sign and magnitude: a round-up past the top saturates."""
    m = task.block.element_bits - 1
    holds = int8 if m <= 7 else int16  # the breakpoints of 16 bits take seconds
    rounded = _encoded(task, holds, y).view(holds.name)
    magnitude = np.minimum(np.abs(rounded.astype(np.int64)), (1 << m) - 1)
    return np.asarray(magnitude | np.signbit(y).astype(np.int64) << m)


def element_values(task: Task, codes: Array, scale: Array | None = None) -> NDArray[np.float64]:
    """What codes mean before the scale; NaN and Inf as they are.  scale: says in which reading."""
    d = task.block
    if isinstance(d, ElementBlock):
        decoded = REFERENCE.decode(codes.reshape(-1), d.element).reshape(codes.shape)
        found = decoded.astype(np.float64) * d.element_unit
        if scale is None or not isinstance(d, ScaledBlock) or d.integers is None:
            return found
        counts = REFERENCE.decode(codes.reshape(-1), d.integers).reshape(codes.shape)
        return np.where(_flagged(d, scale), counts * np.float32(d.step or 1.0), found)
    m = d.element_bits - 1
    magnitude = (codes & ((1 << m) - 1)).astype(np.float64)
    return np.where(codes >> m, -magnitude, magnitude)


def values_at(task: Task, fields: Fields) -> NDArray[np.float32]:
    """The float32 values of rows of blocks: each product rounded once.

    >>> from numerics.formats import mxfp4
    >>> values_at(Task.of(mxfp4), Fields(np.uint8([[7] * 32]), np.uint8([128]), None))[0, 0]
    np.float32(12.0)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product = element_values(task, fields.codes, fields.scale) * steps(
            task, fields.scale, fields.microexponents
        )
        return product.astype(np.float32)
