"""Asked again: the same numbers, others between; and a counterexample alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.inputs import blocks, shapes
from numerics.conform.laws.findings import Findings, Trial, layout, misplaced, repeatable
from numerics.conform.laws.law import sentence
from numerics.conform.target import Target
from numerics.conform.task import Array, Fields, Task, answers_at
from numerics.conform.verdict import Counterexample
from numerics.formats.block import Block

SIZE = 96  # numbers of a call, or of the elements of its blocks
BLOCKS = 24  # of a call
ALONE = ("layout", "short_block", "repeatable", "monotone", "sign_symmetry")
"""Laws whose counterexamples are more than one number or block."""


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


def alone(target: Target, broken: Counterexample, among: Array) -> Counterexample:
    """A counterexample that is asked again, alone: if it is right then, what it depends on.

    among: all that was asked when it was wrong.
    """
    x = broken.tensor
    if x is None or broken.law in ALONE or target.task.draws or not _is_right(target, x):
        return broken
    still = not _is_right(target, among)
    law = layout if still else repeatable
    said = f"among {len(among)} others; asked alone it is right" + (
        "" if still else ", and asked with the same others again, too")  # fmt: skip
    return replace(broken, law=law.__name__, sentence=sentence(law), where=said)


def _is_right(target: Target, x: Array) -> bool:
    task = target.task
    if isinstance(task.dtype, Block):
        rows = shapes.placed(np.atleast_2d(x), task.axis)
        came, due = target.blocks(rows), task.answer(np.ascontiguousarray(rows))
        if isinstance(came, Fields):
            assert isinstance(due, Fields)
            pairs = zip(task.with_same_nan(came, due), due, strict=True)
            return all(bool(np.array_equal(one, other)) for one, other in pairs if one is not None)  # type: ignore[arg-type]
        return not task.differs(np.asarray(came), np.asarray(due)).any()
    return not task.differs(target.elements(x), np.asarray(task.answer(x))).any()
