"""Deviations of integers with a scale and a zero point; their kernels take (task, x, scale, zero point)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numerics.conform.deviations.deviation import Deviation, Kernel, Stage, instead
from numerics.conform.inputs.narrow import single
from numerics.conform.task import Array, Float32, Task


def exact(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """clamp(round(x / scale) + zero_point)."""
    return task.affine_codes(x, scale, zero_point)


def _by_reciprocal(first: Kernel) -> Kernel:
    """x times the reciprocal of the scale, then as it should be."""

    def kernel(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
        with np.errstate(all="ignore"):
            product = x * (np.float32(1) / np.float32(scale))
        return np.asarray(first(task, product, 1.0, zero_point))

    return kernel


def _in_float64(first: Kernel) -> Kernel:
    """x over the scale as a float64, then as it should be; float32 rounded to odd rounds as that does."""

    def kernel(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
        with np.errstate(all="ignore"):
            quotient = single(x.astype(np.float64) / np.float64(np.float32(scale)))
        return np.asarray(first(task, quotient, 1.0, zero_point))

    return kernel


def _zero_point_before_rounding(first: Kernel) -> Kernel:
    """Moved by the zero point in float32, then rounded."""

    def kernel(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
        with np.errstate(all="ignore"):
            y = x / np.float32(scale) + np.float32(zero_point)
        return np.asarray(first(task, y, 1.0, 0))

    return kernel


def _fused(first: Kernel) -> Kernel:
    """x * (1 / scale) + zero_point by one fused multiply-add of float32, then rounded."""

    def kernel(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
        with np.errstate(all="ignore"):
            product = x.astype(np.float64) * np.float64(np.float32(1) / np.float32(scale))  # exact
            y = (product + zero_point).astype(np.float32)
        return np.asarray(first(task, y, 1.0, 0))

    return kernel


def _zero_point_after_clamp(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """Clamped, moved by the zero point, clamped again."""
    d = task.element
    return np.clip(_moved(task, x, scale, zero_point), int(d.min), int(d.max)) % (1 << d.bits)


def _zero_point_wraps(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    """Clamped, moved by the zero point, cut to the low bits."""
    return _moved(task, x, scale, zero_point) % (1 << task.element.bits)


def _moved(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
    return task.values(exact(task, x, scale, 0)).astype(np.int64) + zero_point


def nan_becomes(number: Callable[[Task], float]) -> Deviation:
    """The code of one integer for NaN, whatever the zero point."""

    def bend(first: Kernel) -> Kernel:
        def kernel(task: Task, x: Float32, scale: float, zero_point: int) -> Array:
            code = int(number(task)) % (1 << task.element.bits)
            found = np.asarray(first(task, x, scale, zero_point))
            return np.where(np.isnan(x), code, found).astype(found.dtype)

        return kernel

    return Deviation(Stage.CODES, bend)


PARAMETERS = ((1.0, 0), (0.5, 1))
"""Scales and zero points, of which one is another than any."""
BY_RECIPROCAL = Deviation(Stage.OPTIONS, _by_reciprocal)  # outermost: all else sees the product
IN_FLOAT64 = Deviation(Stage.OPTIONS, _in_float64)
ZERO_POINT_BEFORE_ROUNDING = Deviation(Stage.VALUES, _zero_point_before_rounding)
FUSED = Deviation(Stage.VALUES, _fused)
ZERO_POINT_AFTER_CLAMP = instead(_zero_point_after_clamp)
ZERO_POINT_WRAPS = instead(_zero_point_wraps)
