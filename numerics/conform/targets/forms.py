"""Shape and type of each array of a result, which a target fills."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.conform.inputs.narrow import type_of
from numerics.conform.scales.groups import groups_of
from numerics.conform.scales.rule import Rule
from numerics.conform.targets.faults import Case
from numerics.conform.targets.held import Form
from numerics.conform.task import Task
from numerics.formats.block import Block


def results_of(task: Task, case: Case) -> Iterator[Form]:
    """Shape and type of each array of a result, of what a target is given."""
    x = case[0]
    if task.rule is not None:
        yield from _found_forms(task.rule, task, x.shape)
    elif task.kind == "pack":
        yield (-(-x.size * task.element.bits // 8),), np.uint8
    elif task.kind == "unpack":
        yield (case[1],), task.element.code_dtype
    elif task.kind in ("round", "decode"):
        values = type_of(task.inputs) if task.kind == "round" else np.dtype(np.float32)
        codes = x.shape if not task.packed else (*x.shape[:-1], x.shape[-1] * 8 // task.block.element_bits)
        yield codes, values
    elif not isinstance(task.dtype, Block):
        yield x.shape, task.element.code_dtype
    else:
        yield from _fields_of(task, x.shape)


def _found_forms(rule: Rule, task: Task, shape: tuple[int, ...]) -> Iterator[Form]:
    """The same of a target that finds its scales: codes, scales, zero points; or values."""
    if task.kind == "fake_quantize":
        yield shape, type_of(task.inputs)
        return
    shared = groups_of(rule.scheme, shape).shared
    yield shape, task.element.code_dtype
    yield shared, np.float32
    if not rule.spec.symmetric:
        yield shared, np.int32


def _fields_of(task: Task, shape: tuple[int, ...]) -> Iterator[Form]:
    """The same of blocks that are encoded: codes, scales, microexponents."""
    d, shared = task.block, task.blocking(shape).shared_shape
    packed = (*shape[:-1], shape[-1] * d.element_bits // 8)
    yield (packed, np.uint8) if task.packed else (shape, d.code_dtype)
    laid = (
        shared if task.scale_layout is None else task.scale_layout.arrange(np.zeros(shared, np.uint8)).shape
    )
    yield laid, np.uint8
    if d.sub_blocks:
        yield shared, d.micro_dtype
