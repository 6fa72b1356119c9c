"""Arrays for results that lie otherwise in memory: a target that fills them writes where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from numerics.conform.inputs.margins import spaced
from numerics.conform.laws.again import answers, base
from numerics.conform.laws.findings import Findings, Trial, layout
from numerics.conform.laws.questions import Question, drawn_question, in_question, question_of
from numerics.conform.takes import Takes
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Task
from numerics.formats.block import Block

SIZE = 240  # numbers of a call
SHAPES = ((SIZE,), (15, 16), (3, 5, 16))  # of single numbers
PAST = 3  # numbers behind each row
RESULT = "in a result"
HINT = "contiguous=True (--contiguous) gives contiguous ones alone"

Lying = Callable[[Array], Array]
"""Makes of an array one of its shape and type that lies otherwise in memory of its own."""


def asks(task: Task, takes: Takes) -> bool:
    """May its results lie so?  Not where they are strings of bytes, or tiles, or are to be contiguous."""
    plain = task.kind not in ("pack", "unpack") and not task.packed and task.scale_layout is None
    return takes.fills and not takes.contiguous and plain and not task.draws_itself


def trial() -> Trial:
    """A few calls whose results have gaps, lie turned and backward."""
    return Trial((layout,), _filled)


def ways(takes: Takes) -> dict[str, Lying]:
    """How results may lie, in words; backward where the target's arrays may."""
    found: dict[str, Lying] = {"with gaps between its numbers": _gaps, "with a gap behind each row": _rows}
    found["that lies turned"] = _turned
    if takes.backward:
        found["that lies backward"] = _backward
    return found


def _room(shape: tuple[int, ...], x: Array) -> Array:
    return spaced(int(np.prod(shape)), x.dtype).reshape(shape)


def _gaps(x: Array) -> Array:
    return _room((*x.shape, 2), x)[..., 1]


def _rows(x: Array) -> Array:
    """Of no axes, as it is."""
    return _room((*x.shape[:-1], x.shape[-1] + PAST), x)[..., : x.shape[-1]] if x.ndim else x


def _turned(x: Array) -> Array:
    return _room(x.shape[::-1], x).T


def _backward(x: Array) -> Array:
    return np.flip(_room(x.shape, x))


def _filled(target: Target, found: Findings) -> None:
    for question in _questions(target):
        for said, lying in ways(target.takes).items():
            where = f"{RESULT} {said}: {HINT}"
            try:
                with target.giving(laid=lying):
                    one, other = answers(target, question)
            except Fault as fault:
                told = "; ".join(part for part in (fault.found.where, where) if part)
                found.failures.append(replace(fault.found, where=told))
                return
            wrong = target.task.differs(one, other)
            found.tried += wrong.size
            if wrong.any():
                broken = in_question(target.task, question, (one, other), wrong, layout)
                found.failures.append(replace(broken, where=f"{broken.where}, {where}"))
                found.differs += int(wrong.sum())
                return


def _questions(target: Target) -> Iterator[Question]:
    """Numbers in lines and in tensors; of blocks, and of arrays with scales, in rows."""
    task = target.task
    if isinstance(task.dtype, Block):
        yield question_of(task, base(target, SIZE))
    elif task.kind == "affine" or task.rule is not None:
        yield drawn_question(target, SIZE, np.random.default_rng(97))
    else:
        whole = base(target, SIZE)
        size = len(whole[0])
        for shape in SHAPES:
            yield question_of(task, tuple(np.resize(part, shape) for part in whole) if size else whole)
