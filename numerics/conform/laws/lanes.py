"""Vectors whose lanes are all alike: what a kernel does with a whole vector, it does with each number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numerics.conform.inputs import lanes
from numerics.conform.inputs.lanes import LANES, WIDTHS
from numerics.conform.inputs.spread import rank_of, spread
from numerics.conform.inputs.strings import packed
from numerics.conform.laws.findings import Findings, Trial, layout, place_or_chance
from numerics.conform.laws.questions import Question, ask, in_kind, in_question, question_of
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Float32, Task
from numerics.formats.dtype import Element

SCALES = (0.5, 2.0**-7, 8.0)
"""Powers of two, under which ties stay ties."""
SHORT = 6  # rows of each kind: one of every pattern of signs


Beside = Callable[[Target, Array, Array], Array]
"""What is due to numbers for which that came, of a kernel that draws for itself."""


def trial(beside: Beside | None = None) -> Trial:
    """Rows of vectors, and vectors alone."""
    return Trial((layout,), lambda target, found: _lanes(target, found, beside))


def _lanes(target: Target, found: Findings, beside: Beside | None) -> None:
    for question in _questions(target):
        came, due = _answers(target, question, beside)
        found.tried += came.size
        wrong = target.task.differs(came, due)
        if wrong.any():
            law = place_or_chance(wrong, target.task.differs(*_answers(target, question, beside)))
            found.failures.append(in_question(target.task, question, (came, due), wrong, law))
            found.differs += int(wrong.sum())
            return


def _answers(target: Target, question: Question, beside: Beside | None) -> tuple[Array, Array]:
    came = ask(target, question)
    assert isinstance(came, np.ndarray)
    if beside is not None:
        return came, beside(target, question.inputs[0], came)
    return came, np.asarray(in_kind(target.task, question, came).due)


def _questions(target: Target) -> Iterator[Question]:
    """Short vectors of some rows; then all rows in one array, where vectors stand beside others."""
    task = target.task
    if task.kind == "affine":
        yield from _affine(target)
        return
    for inputs in _given(target):
        if task.draws_itself:  # what is due depends on what comes
            yield Question(inputs, inputs[0])
        else:
            yield question_of(task, inputs)


def _given(target: Target) -> Iterator[tuple[Any, ...]]:
    task = target.task
    if task.kind in ("decode", "pack", "unpack"):
        rows = lanes.codes(task.element.bits).astype(task.element.code_dtype)
        for codes in _pieces(rows, max(1, len(rows) // 64)):
            if task.kind == "unpack":
                yield packed(codes, task.element.bits), len(codes)
            else:
                yield (codes,)
        return
    rows = target.asked(lanes.alike(task.element))
    for x in _pieces(np.concatenate([rows, target.asked(lanes.but_one(task.element))]), 1, len(rows)):
        for random in _draws(task, x.shape) if task.draws else ((),):
            yield (x, *random)


def _pieces(rows: Array, step: int, short: int | None = None) -> Iterator[Array]:
    """Short vectors, each alone; then all rows as one array.  step, short: of which rows."""
    yield from (row[:width].copy() for row in rows[:short:step] for width in WIDTHS)
    if rows.size:
        yield rows.reshape(-1)


def _draws(task: Task, shape: tuple[int, ...]) -> Iterator[tuple[Array]]:
    """Random bits that are all 0, all 1, and the least and greatest in turn."""
    most = np.uint32((1 << task.drawing.bits) - 1)
    turn = np.arange(shape[0]) % 2 == 0
    yield from ((np.full(shape, bits, np.uint32),) for bits in (np.uint32(0), most))
    if shape[0] > LANES:
        yield (np.where(turn, most, np.uint32(0)),)


# ---- integers with a scale and a zero point ---------------------------------------------------------


def _affine(target: Target) -> Iterator[Question]:
    """The same under scales that are powers of two, and several zero points."""
    task, d = target.task, target.task.element
    rows = np.concatenate([lanes.alike(d), lanes.but_one(d)])
    zeros = _zero_points(d)
    if task.scheme is not None:
        yield _of_arrays(target, rows, zeros)
        return
    for turn, scale in enumerate(SCALES):
        zero = zeros[turn % len(zeros)]
        asked = target.asked(_scaled(rows, np.float32(scale)))
        for x in _pieces(asked, SHORT, len(lanes.alike(d))):
            yield question_of(task, (x, scale, zero))


def _zero_points(d: Element) -> list[int]:
    return [int(d.max) // 2 + 1, int(d.min), int(d.max)]


def _scaled(rows: Float32, scales: Any) -> Float32:
    """Rows times scales; numbers of float32's subnormal range stay as they are."""
    with np.errstate(all="ignore"):
        return np.where(np.abs(rows) < 2.0**-100, rows, rows * scales).astype(np.float32)


def _of_arrays(target: Target, rows: Float32, zeros: list[int]) -> Question:
    """Rows of a matrix, where each channel, group or block has its own scale and zero point."""
    task = target.task
    assert task.scheme is not None
    rows = rows[np.isfinite(rows).all(axis=1)] if target.takes.finite else rows
    shape = (*[1] * (rank_of(task.scheme) - 2), *rows.shape)
    places = spread(task.scheme, shape)
    turns = np.arange(int(np.prod(places.shared))).reshape(places.shared)
    scales = np.asarray(np.array(SCALES, np.float32)[turns % len(SCALES)])
    points = np.asarray(np.array(zeros, np.int32)[turns % len(zeros)])
    own = scales.reshape(-1)[places.places]
    return question_of(task, (_scaled(rows.reshape(shape), own), scales, points))
