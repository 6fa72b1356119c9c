"""Which tasks a deviation can have."""

from __future__ import annotations

from collections.abc import Callable

from numerics.conform.task import Task
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock, MXBlock, ScaledBlock
from numerics.formats.dtype import Float, Integer

Applies = Callable[[Task], bool]


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
    return quantizes(task) and isinstance(task.dtype, MXBlock)


def rescaled_mx(task: Task) -> bool:
    """The same, without draws."""
    return of_mx(task) and not task.draws


def of_micro(task: Task) -> bool:
    """Microexponent blocks, without draws."""
    return quantizes(task) and type(task.dtype) is MicroexponentBlock and not task.draws


def of_scaled(task: Task) -> bool:
    """Blocks with a float scale, and one reading of their codes, without draws."""
    d = task.dtype
    return quantizes(task) and isinstance(d, ScaledBlock) and not d.has_two_readings and not task.draws


def rounds(task: Task) -> bool:
    """Values in and out."""
    return task.kind == "round"


def signed_floats(task: Task) -> bool:
    """Formats that have a negative zero."""
    d = task.dtype.element if isinstance(task.dtype, ElementBlock) else task.dtype
    plain = isinstance(d, Float) and d.signed and not d.nan_is_negative_zero
    return quantizes(task) and (plain or isinstance(d, MicroexponentBlock))


def of_short_floats(task: Task) -> bool:
    """Single floats that are float32 with fewer bits of fraction, as bfloat16."""
    d = task.dtype
    if not isinstance(d, Float) or not of_elements(task):
        return False
    return d.signed and d.has_inf and (d.exponent, d.bias) == (8, 127) and d.bits < 32


def signed_floats_alone(task: Task) -> bool:
    """The same, single ones."""
    return of_elements(task) and signed_floats(task)


def decodes(task: Task) -> bool:
    """Codes of floats in, values out."""
    return task.kind == "decode" and isinstance(task.dtype, Float)
