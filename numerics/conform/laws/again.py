"""Asked again: the same numbers, others between, an earlier result; and a counterexample alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from numerics.conform.inputs import blocks, shapes
from numerics.conform.laws.findings import Findings, Trial, layout, misplaced, repeatable
from numerics.conform.laws.law import sentence
from numerics.conform.target import Target, numpy_array
from numerics.conform.task import Array, Fields, Task, answers_at
from numerics.conform.verdict import Counterexample
from numerics.formats.block import Block

CALLS = 130  # of one shape, with the same first number: more than a cache's or a counter's hundred
BLOCKS = 24  # of a call
ALONE = ("layout", "short_block", "repeatable", "monotone", "sign_symmetry")
"""Laws whose counterexamples are more than one number or block."""


def trial() -> Trial:
    """Many calls of one shape, and a result that must stay as it was."""
    return Trial((repeatable,), _again)


def _again(target: Target, found: Findings) -> None:
    """Arrays of the same shape and first number; due is known of each number."""
    for x, due in _arrays(target):
        came = target.blocks(x) if isinstance(target.task.dtype, Block) else target.elements(x)
        found.tried += len(x)
        one, other = _parts(target.task, came, due)
        wrong = target.task.differs(one, other)
        if wrong.any():
            found.failures.append(misplaced(x, one, other, wrong, repeatable))
            return
    _stays(target, found)


def _arrays(target: Target) -> Iterator[tuple[Array, Any]]:
    task, rng = target.task, np.random.default_rng(11)
    if isinstance(task.dtype, Block):
        every = target.asked(blocks.probes(task.block, task.tensor_scale))
        base = every[:: -(-len(every) // BLOCKS)]
    elif task.kind == "decode":
        base = np.arange(1 << task.element.bits)[:96].astype(task.element.code_dtype)
    else:
        base = np.resize(target.asked(shapes.telling(task.element)), 96)
    due: Any = _due(task, base)
    for _ in range(CALLS):
        order = np.append(0, 1 + rng.permutation(len(base) - 1))
        yield base[order], answers_at(due, order)


def _due(task: Task, x: Array) -> Any:
    if task.kind == "decode":
        return task.values(x)
    return task.answer(np.ascontiguousarray(x))


def _parts(task: Task, came: Any, due: Any) -> tuple[Array, Array]:
    if isinstance(came, Fields):
        alike = task.with_same_nan(came, due)
        return alike.codes, due.codes
    return np.asarray(came), np.asarray(due)


def _stays(target: Target, found: Findings) -> None:
    """A result that another call changes: a buffer that is used again."""
    if found.failures:
        return
    (first, _), (second, _), *_ = _arrays(target)
    kept = target.call(first)
    kept = kept[0] if isinstance(kept, tuple) else getattr(kept, "codes", kept)
    before = numpy_array(kept).copy()
    target.call(second)
    after = numpy_array(kept)
    changed = before.view(np.uint8) != np.ascontiguousarray(after).view(np.uint8)
    if changed.any():
        at = tuple(int(i) for i in np.argwhere(before != after)[0]) if (before != after).any() else (0,)
        found.failures.append(Counterexample(
            repeatable.__name__, sentence(repeatable), (), f"{after[at]!s}, after another call",
            f"{before[at]!s}, as it was returned", int(changed.sum()),
            f"at {at} of an earlier result: a buffer that is used again", first,
        ))  # fmt: skip


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
