"""Questions of every kind, drawn by a seed: what a target is given, and what it is due to return."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from numerics.conform.inputs import affine
from numerics.conform.inputs.drawn import random_blocks, random_inputs
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.inputs.shapes import placed
from numerics.conform.inputs.spread import shape_of, spread
from numerics.conform.inputs.strings import packed, unpacked
from numerics.conform.laws.company import misplaced
from numerics.conform.laws.rows import as_rows, fields_of_rows, values_of_rows
from numerics.conform.scales import inputs as scale_inputs
from numerics.conform.scales.groups import groups_of
from numerics.conform.targets.target import Target
from numerics.conform.task import Answer, Array, Fields, Task
from numerics.conform.verdict import Counterexample, numbers
from numerics.formats.block import Block


@dataclass(frozen=True)
class Question:
    """What a target is given, and what it is due to return.  of: the inputs whose places the answers have."""

    inputs: tuple[Any, ...]
    due: Answer

    def wrong(self, task: Task, came: Answer) -> Array:
        """Which elements of the first input differ, or which of its rows of blocks."""
        if task.rule is not None:
            wrong = unequal_places(task, came, self.due, self.inputs[0].shape)
            return np.asarray(wrong.any(axis=tuple(range(1, wrong.ndim))))
        if isinstance(came, Fields):
            assert isinstance(self.due, Fields)
            pairs = zip(task.with_same_nan(came, self.due), self.due, strict=True)
            found = [
                (one != other).reshape(len(one), -1).any(axis=1) for one, other in pairs if one is not None
            ]
            return np.asarray(np.logical_or.reduce(found))
        differs = task.differs(np.asarray(came), np.asarray(self.due))
        return np.asarray(differs.any(axis=1)) if differs.ndim > 1 else differs


def unequal_places(task: Task, came: Answer, due: Answer, shape: tuple[int, ...]) -> Array:
    """Which elements of a tensor are wrong, of those with a wrong scale or zero point all."""
    assert task.rule is not None
    wrong, *shared = (task.differs(*pair) for pair in task.pairs(came, due))
    for part in shared:
        wrong = wrong | part.reshape(-1)[groups_of(task.rule.scheme, shape).places]
    return np.asarray(wrong)


def question_of(task: Task, inputs: tuple[Any, ...]) -> Question:
    """The question of these inputs; of blocks, whose rows they are, of one block a row."""
    if task.kind == "affine":
        return Question(inputs, task.affine_codes(*each_with_its_own(task, inputs)))
    if task.kind in ("pack", "unpack"):
        return Question(inputs, _string_of(task, inputs))
    if task.kind == "decode":
        due = (
            values_of_rows(task, given_fields(inputs))
            if isinstance(task.dtype, Block)
            else task.values(*inputs)
        )
        return Question(inputs, due)
    if not isinstance(task.dtype, Block):
        return Question(inputs, task.answer(*inputs))
    fields = fields_of_rows(task, *inputs)
    return Question(inputs, fields if task.kind == "encode" else rounded_values(task, fields))


def rounded_values(task: Task, fields: Fields) -> Array:
    """What rows of blocks stand for, in the type that values come back in."""
    return narrowed(values_of_rows(task, fields), task.inputs)


def given_fields(inputs: tuple[Any, ...]) -> Fields:
    """The blocks that a decoder is given."""
    codes, scale, *micro = inputs
    return Fields(codes, scale, micro[0] if micro else None)


def in_kind(task: Task, question: Question, came: Answer) -> Question:
    """The same question, of values where an affine target returned them in place of codes."""
    if task.kind != "affine" or isinstance(came, Fields) or came.dtype.kind != "f":
        return question
    _, scale, zero_point = each_with_its_own(task, question.inputs)
    assert isinstance(question.due, np.ndarray)
    return Question(question.inputs, task.affine_values(question.due, scale, zero_point))


def each_with_its_own(task: Task, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers, with the scale and the zero point of each where these come as arrays."""
    if task.scheme is None:
        return inputs
    x, *shared = inputs
    places = spread(task.scheme, x.shape).places
    return x, *(part.reshape(-1)[places] for part in shared)


def _string_of(task: Task, inputs: tuple[Any, ...]) -> Array:
    """The bytes of codes, or the codes of bytes."""
    width = task.element.bits
    if task.kind == "pack":
        return packed(inputs[0], width)
    strings, count = inputs
    return unpacked(strings, count, width).astype(task.element.code_dtype)


def wrong_of(target: Target, inputs: tuple[Any, ...]) -> Array:
    """Which of these numbers, or rows of blocks, the target gets wrong when it is asked them now."""
    question = question_of(target.task, inputs)
    came = ask(target, question)
    return in_kind(target.task, question, came).wrong(target.task, came)


def ask(target: Target, question: Question) -> Answer:
    """What the target returns, of blocks as rows."""
    task, inputs = target.task, question.inputs
    if task.kind == "affine":
        return target.affine(*inputs)
    if task.kind == "pack":
        return target.packed(inputs[0], len(question.due))
    if task.kind == "unpack":
        return target.unpacked(*inputs)
    if task.rule is not None:
        return target.found(*inputs)
    if not isinstance(task.dtype, Block):
        return target.elements(*inputs)
    return as_rows(task, target.blocks(*in_place(task, inputs)))


def in_place(task: Task, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs as a target of blocks is given them, along its axis; of other kinds as they are."""
    if not isinstance(task.dtype, Block):
        return inputs
    return tuple(placed(part[:, None] if part.ndim == 1 else part, task.axis) for part in inputs)


def as_given(task: Task, question: Question, broken: Counterexample) -> Counterexample:
    """A counterexample of a whole question, with what the target was given: it can be asked again."""
    first, *others = in_place(task, question.inputs)
    return replace(broken, tensor=first, given=tuple(others))


def in_question(
    task: Task, question: Question, answers: tuple[Array, Array], wrong: Array, law: Any
) -> Counterexample:
    """The first wrong place of a question, with what decides it: its block, or its scale and zero point."""
    x = question.inputs[0]
    broken = as_given(task, question, misplaced(x, *answers, wrong, law))
    at = tuple(np.argwhere(wrong)[0])
    if task.kind == "affine" and wrong.shape == x.shape:
        _, scale, zero = (np.asarray(part) for part in each_with_its_own(task, question.inputs))
        own = [part[at] if part.ndim else part for part in (scale, zero)]
        said = f"scale {numbers(np.array([own[0]], np.float32))[0]}, zero point {int(own[1])}"
        return replace(broken, where=f"{said}, {broken.where}")
    if isinstance(task.dtype, Block) and x.dtype == np.float32 and x.ndim == 2:
        return replace(broken, input=numbers(x[at[0]]))
    return broken


def drawn_question(target: Target, size: int, rng: np.random.Generator) -> Question:
    """A question of the target's kind, of about so many numbers."""
    task = target.task
    if task.kind == "affine":
        return _affine(target, size, rng)
    if task.kind in ("pack", "unpack"):
        return _strings(task, size, rng)
    if task.rule is not None:
        return question_of(task, (scale_inputs.drawn(task.rule, size, rng, target.takes),))
    if isinstance(task.dtype, Block):
        return _of_blocks(target, size, rng)
    if task.kind == "decode":
        codes = rng.integers(0, 1 << task.element.bits, size).astype(task.element.code_dtype)
        return question_of(task, (codes,))
    x = target.asked(random_inputs(task.element, size, rng).view(np.float32))
    drawn = [rng.integers(0, 1 << task.drawing.bits, x.shape, dtype=np.uint32)] * task.draws
    return question_of(task, (x, *drawn))


def _of_blocks(target: Target, size: int, rng: np.random.Generator) -> Question:
    """Rows of one block each, which the target is given along its axis."""
    task, d = target.task, target.task.block
    count = -(-size // d.block)
    if task.kind == "decode":
        micro = [rng.integers(0, 1 << d.micro_bits, count).astype(d.micro_dtype)] if d.sub_blocks else []
        codes = rng.integers(0, 1 << d.element_bits, (count, d.block)).astype(d.code_dtype)
        scale = rng.integers(0, 1 << d.scale_bits, count).astype(np.uint8)
        return question_of(task, (codes, scale, *micro))
    x = target.asked(random_blocks(d, count, rng, task.tensor_scale).view(np.float32))
    drawn = [rng.integers(0, 1 << task.drawing.bits, x.shape, dtype=np.uint32)] * task.draws
    return question_of(task, (x, *drawn))


def _affine(target: Target, size: int, rng: np.random.Generator) -> Question:
    """A scale and a zero point of the whole range, and numbers about the integers that they reach."""
    task = target.task
    if task.scheme is not None:
        places = spread(task.scheme, shape_of(task.scheme, size))
        scales, zeros = affine.drawn_scales(task.element, places.shared, rng)
        own, zero = (part.reshape(-1)[places.places] for part in (scales, zeros))
        x = affine.about(task.element, own, zero, rng)
        x[~target.keeps(x.reshape(-1)).reshape(x.shape)] = 0
        return question_of(task, (x, scales, zeros))
    drawn, scale, zero_point = affine.drawn(task.element, size, rng)
    return question_of(task, (target.asked(drawn), scale, zero_point))


def _strings(task: Task, size: int, rng: np.random.Generator) -> Question:
    """A string of codes, whose last byte is as full as it comes; its bytes by NumPy's bits."""
    width, kind = task.element.bits, task.element.code_dtype
    codes = rng.integers(0, 1 << width, size - int(rng.integers(0, 8))).astype(kind)
    string = packed(codes, width)
    return Question((codes,), string) if task.kind == "pack" else Question((string, len(codes)), codes)
