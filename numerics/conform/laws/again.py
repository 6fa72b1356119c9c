"""Asked again: the same numbers, others between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.inputs import affine, blocks, shapes
from numerics.conform.inputs.spread import shape_of, spread
from numerics.conform.laws.findings import Findings, Named, Trial, layout, repeatable
from numerics.conform.laws.questions import Question, ask, drawn_question, in_kind, in_question, question_of
from numerics.conform.laws.twins import twins, wrong_as_first
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, answers_at
from numerics.formats.block import Block

SIZE = 96  # numbers of a call, or of the elements of its blocks
BLOCKS = 24  # of a call
ROLLED = 48  # of its numbers, each of which is the last in turn
TWINS = (160, 5004)  # numbers of questions that a key takes for one
REWRITTEN = 12  # calls whose arrays lie where those of the calls before them did


def trial(effort: Effort = AS_EVER) -> Trial:
    """Many calls of one shape."""
    return Trial((layout, repeatable), lambda target, found: _again(target, found, effort))


def _again(target: Target, found: Findings, effort: Effort) -> None:
    """Arrays of the same shape and first number; due is known of each number.

    Then in the same memory, written anew: what is kept by an array's address shows.  At last those that a
    key takes for one: of a head, of ends, of a sample of the numbers, of the bytes without their shape.
    """
    _ask(target, found, questions(target, effort.calls, effort.seed))
    if not found.failures:
        with target.giving(rewritten={}):
            _ask(target, found, questions(target, REWRITTEN, effort.seed + 1))
    for size in TWINS:
        if not found.failures:
            _ask(target, found, _alike(target, size, effort.seed))


def _alike(target: Target, size: int, seed: int) -> Iterator[Question]:
    """A question, each time before one that is like it; then its bytes in another shape."""
    task = target.task
    if task.kind == "affine" or task.rule is not None:
        first = drawn_question(target, size, np.random.default_rng((13, seed)))
    else:
        first = question_of(task, base(target, size))
    yield first
    for twin in twins(task, first.inputs):
        yield question_of(task, twin.inputs)
    rows = first.inputs[0]
    whole = task.kind in ("encode", "round", "decode") and not isinstance(task.dtype, Block)
    if whole and not target.takes.contiguous and rows.size % 2 == 0:
        assert isinstance(first.due, np.ndarray)
        yield Question(tuple(part.reshape(2, -1) for part in first.inputs), first.due.reshape(2, -1))


def _ask(target: Target, found: Findings, asked: Iterator[Question]) -> None:
    before = None
    for question in asked:
        x = question.inputs[0]
        found.tried += len(x)
        one, other = answers(target, question)
        wrong = target.task.differs(one, other)
        if wrong.any():
            law = _law(target, question, before)
            found.failures.append(in_question(target.task, question, (one, other), wrong, law))
            return
        before = question


def _law(target: Target, question: Question, before: Question | None) -> Named:
    """layout for what is wrong in each call and as the first one of a shape, too; else repeatable."""
    for _ in range(2):
        if not target.task.differs(*answers(target, question)).any():
            return repeatable
        if before is not None:
            answers(target, before)
    return layout if wrong_as_first(target, question.inputs) else repeatable


def answers(target: Target, question: Question) -> tuple[Array, Array]:
    """What the target makes of a question, and what is due; of blocks, their codes, or scales that differ."""
    came = ask(target, question)
    due = in_kind(target.task, question, came).due
    codes, *shared = target.task.pairs(came, due)
    return next((pair for pair in shared if (pair[0] != pair[1]).any()), codes)


def questions(target: Target, calls: int, seed: int = 0, size: int = SIZE) -> Iterator[Question]:
    """So many questions of one shape and the same first number, and what is due to them."""
    rng = np.random.default_rng((11, seed))
    if target.task.kind == "affine":
        yield from _scaled(target, calls, size, rng)
        return
    if target.task.rule is not None:  # each its own: another order has other scales
        yield from (drawn_question(target, size, rng) for _ in range(calls))
        return
    whole = question_of(target.task, base(target, size))
    count = len(whole.inputs[0])
    for _ in range(calls):
        order = np.append(0, 1 + rng.permutation(count - 1))
        if target.task.kind == "pack":
            yield question_of(target.task, (whole.inputs[0][order],))
        elif target.task.kind == "unpack":
            yield question_of(target.task, (whole.inputs[0][order], whole.inputs[1]))
        else:
            yield Question(tuple(part[order] for part in whole.inputs), answers_at(whole.due, order))


def rolled(target: Target, size: int) -> Iterator[Question]:
    """Questions of about so many numbers, of which each number, or block, is the last in one.

    None of kinds whose numbers have scales of their own.
    """
    task = target.task
    if task.kind in ("affine", "unpack") or task.rule is not None:
        return
    whole = question_of(task, base(target, size))
    count = len(whole.inputs[0])
    for turn in range(min(count, ROLLED)):
        order = (np.arange(count) + turn) % count
        if task.kind == "pack":
            yield question_of(task, (whole.inputs[0][order],))
        else:
            yield Question(tuple(part[order] for part in whole.inputs), answers_at(whole.due, order))


def base(target: Target, size: int) -> tuple[Any, ...]:
    """About so many numbers, or a few blocks, of every kind."""
    task = target.task
    if isinstance(task.dtype, Block):
        return _some_blocks(target, max(2, min(size // 4, max(BLOCKS, size // task.block.block // 8))))
    if task.kind == "unpack":
        count = -(-size * 8 // task.element.bits)
        return np.resize(np.arange(256), -(-count * task.element.bits // 8)).astype(np.uint8), count
    if task.kind in ("decode", "pack"):
        return (np.resize(np.arange(1 << task.element.bits)[:size], size).astype(task.element.code_dtype),)
    x = np.resize(target.asked(shapes.telling(task.element)), size)
    return x, *shapes.draws_of(task, x.shape)


def _some_blocks(target: Target, count: int) -> tuple[Array, ...]:
    task = target.task
    if task.kind == "decode":
        every = blocks.codes(task.block)
        step = -(-len(every.codes) // count)
        return tuple(part[::step] for part in every if part is not None)
    rows = target.asked(blocks.probes(task.block, task.tensor_scale))
    rows = rows[:: -(-len(rows) // count)]
    return rows, *shapes.draws_of(task, rows.shape)


def _scaled(target: Target, calls: int, size: int, rng: np.random.Generator) -> Iterator[Question]:
    """Numbers at other scales and zero points from call to call; each second time the numbers of before."""
    task = target.task
    every = affine.scales_and_zero_points(task.element)
    shape = (size,) if task.scheme is None else shape_of(task.scheme, size)
    x = np.zeros(shape, np.float32)
    for turn in range(calls):
        scale, zero = every[turn % len(every)]
        if turn % 2 == 0:
            x = rng.permutation(np.resize(target.asked(affine.numbers(task.element, scale, zero)), x.size))
            x[0] = 1.0
            x = x.reshape(shape)
        if task.scheme is None:
            yield question_of(task, (x, scale, zero))
            continue
        shared = spread(task.scheme, shape).shared
        chosen = (turn + rng.integers(0, len(every), shared)) % len(every)
        scales, zeros = (np.array(part)[chosen] for part in zip(*every, strict=True))
        yield question_of(task, (x, np.asarray(scales, np.float32), np.asarray(zeros, np.int32)))
