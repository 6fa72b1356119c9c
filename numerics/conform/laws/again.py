"""Asked again: the same numbers, others between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.inputs import blocks, shapes
from numerics.conform.laws.findings import Findings, Trial, misplaced, repeatable
from numerics.conform.target import Target
from numerics.conform.task import Array, Fields, Task, answers_at
from numerics.formats.block import Block

SIZE = 96  # numbers of a call, or of the elements of its blocks
BLOCKS = 24  # of a call


def trial(effort: Effort = AS_EVER) -> Trial:
    """Many calls of one shape."""
    return Trial((repeatable,), lambda target, found: _again(target, found, effort))


def _again(target: Target, found: Findings, effort: Effort) -> None:
    """Arrays of the same shape and first number; due is known of each number."""
    for x, due in arrays(target, effort.calls, effort.seed):
        found.tried += len(x)
        one, other = parts(target.task, asked(target, x), due)
        wrong = target.task.differs(one, other)
        if wrong.any():
            found.failures.append(misplaced(x, one, other, wrong, repeatable))
            return


def asked(target: Target, x: Array) -> Any:
    """What the target makes of arrays of `arrays`."""
    return target.blocks(x) if isinstance(target.task.dtype, Block) else target.elements(x)


def arrays(target: Target, calls: int, seed: int = 0, size: int = SIZE) -> Iterator[tuple[Array, Any]]:
    """So many arrays of one shape and the same first number, and what is due to them."""
    task, rng = target.task, np.random.default_rng((11, seed))
    if isinstance(task.dtype, Block):
        every = target.asked(blocks.probes(task.block, task.tensor_scale))
        base = every[:: -(-len(every) // max(BLOCKS, size // task.block.block // 8))]
    elif task.kind == "decode":
        base = np.resize(np.arange(1 << task.element.bits)[:size], size).astype(task.element.code_dtype)
    else:
        base = np.resize(target.asked(shapes.telling(task.element)), size)
    due: Any = _due(task, base)
    for _ in range(calls):
        order = np.append(0, 1 + rng.permutation(len(base) - 1))
        yield base[order], answers_at(due, order)


def _due(task: Task, x: Array) -> Any:
    if task.kind == "decode":
        return task.values(x)
    return task.answer(np.ascontiguousarray(x))


def parts(task: Task, came: Any, due: Any) -> tuple[Array, Array]:
    """What came and what is due, as arrays; of blocks, their codes, or scales that differ."""
    if isinstance(came, Fields):
        alike = task.with_same_nan(came, due)
        shared = alike.scale != due.scale
        return (alike.scale, due.scale) if shared.any() else (alike.codes, due.codes)
    return np.asarray(came), np.asarray(due)


def applies(task: Task) -> bool:
    """Is it asked of this kind?  Along the last axis, without draws."""
    if task.draws or task.kind not in ("encode", "round", "decode"):
        return False
    return not isinstance(task.dtype, Block) or (task.axis == -1 and task.kind != "decode")
