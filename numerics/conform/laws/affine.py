"""Integers with a scale and a zero point (docs/formats.md §6): their laws, and their trials."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.search import Dialects, nearest_affine
from numerics.conform.effort import Effort
from numerics.conform.inputs import affine, alike, matrices, shapes
from numerics.conform.inputs.filling import Filling
from numerics.conform.inputs.margins import UNUSED
from numerics.conform.inputs.spread import Shapes, Spread, far_shapes, nothing_of, shape_of, shapes_of, spread
from numerics.conform.laws import counted, lanes
from numerics.conform.laws.again import answers
from numerics.conform.laws.alone import ALONE, alone, confirmed_affine
from numerics.conform.laws.company import as_of, layout, misplaced, place_or_chance, repeatable
from numerics.conform.laws.drawn import repeated
from numerics.conform.laws.findings import Findings, Trial, together
from numerics.conform.laws.law import Law, Mask, hardness, sentence
from numerics.conform.laws.questions import Question, each_with_its_own, question_of, wrong_of
from numerics.conform.takes import Takes
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Task
from numerics.conform.verdict import Counterexample, code_text, numbers


@dataclass(frozen=True)
class Scaled:
    """What a target made of float32 numbers at a scale and a zero point."""

    task: Task
    scale: float
    zero_point: int
    x: NDArray[np.float32]
    came: Array
    due: Array

    @cached_property
    def wrong(self) -> Mask:
        """Where what came differs from what was due."""
        return self.task.differs(self.came, self.due)

    @cached_property
    def labels(self) -> Array:
        """The law that each input falls under."""
        d, scale = self.task.element, np.float32(self.scale)
        with np.errstate(all="ignore"):
            quotient = self.x / scale
            product = self.x * (np.float32(1) / scale)
            whole = np.rint(quotient.astype(np.float64))
            outside = [(q < d.min) | (q > d.max) for q in (whole, whole + self.zero_point)]
            classes = {
                "nan_is_zero": np.isnan(self.x),
                "zero_point": (outside[0] | outside[1]) & (self.zero_point != 0),
                "clamp": outside[0],
                "division": np.rint(product) != np.rint(quotient),
                "midway": np.abs(quotient - np.trunc(quotient)) == np.float32(0.5),
            }
        return np.select(list(classes.values()), list(classes), default="quotient")

    def simplest(self, law: Law) -> Counterexample | None:
        """The simplest of the wrong inputs that a law speaks of."""
        places = np.flatnonzero((self.labels == law.__name__) & self.wrong)
        if not len(places):
            return None
        at = int(places[hardness(self.x[places]).argmin()])
        chosen = self.x[at : at + 1]
        return Counterexample(
            law.__name__, sentence(law), numbers(chosen), self.text(self.came, at), self.text(self.due, at),
            len(places), self.place, chosen, given=(self.scale, self.zero_point),
        )  # fmt: skip

    @property
    def place(self) -> str:
        """The scale and the zero point, in words."""
        return f"scale {numbers(np.array([self.scale], np.float32))[0]}, zero point {self.zero_point}"

    def text(self, answers: Array, at: int) -> str:
        """One answer: a code and its integer, or a value."""
        if answers.dtype.kind == "f":
            return str(numbers(answers[at : at + 1])[0])
        d = self.task.element
        return code_text(int(answers[at]), d, float(self.task.values(answers[at : at + 1])[0]))


def quotient(seen: Scaled) -> Counterexample | None:
    """q = clamp(round(x / scale) + zero_point), and its value is (q - zero_point) * scale."""
    return seen.simplest(quotient)


def division(seen: Scaled) -> Counterexample | None:
    """x is divided by the scale; a product with its reciprocal differs in the last bit."""
    return seen.simplest(division)


def zero_point(seen: Scaled) -> Counterexample | None:
    """The zero point is added after rounding and before the clamp."""
    return seen.simplest(zero_point)


def clamp(seen: Scaled) -> Counterexample | None:
    """What lies past the largest or smallest integer becomes that integer: it does not wrap."""
    return seen.simplest(clamp)


def midway(seen: Scaled) -> Counterexample | None:
    """A quotient midway between two integers goes where the rounding says."""
    return seen.simplest(midway)


def nan_is_zero(seen: Scaled) -> Counterexample | None:
    """NaN becomes the zero point, whose value is 0."""
    return seen.simplest(nan_is_zero)


AFFINE_LAWS: tuple[Law, ...] = (quotient, midway, division, clamp, zero_point, nan_is_zero)


MORE = 1 << 12  # numbers that are asked before a deviation is named


def scale_arrays() -> None:
    """Every element has the scale and the zero point of its own channel, group or block."""


ORDER = [law.__name__ for law in AFFINE_LAWS]


# ---- trials ----------------------------------------------------------------------------------------


def trials(task: Task, takes: Takes, effort: Effort, named: Shapes = ()) -> Iterator[Trial]:
    """Scales and zero points, the same numbers in other shapes, those that are named, and what is drawn."""
    if task.scheme is not None:
        far = tuple(far_shapes(task.scheme, effort.name))
        yield Trial((*AFFINE_LAWS, scale_arrays), lambda target, found: _arrays(target, found, named, far))
        yield Trial((*AFFINE_LAWS, scale_arrays), _counted)
        yield lanes.trial()
        yield from repeated(task, takes, effort, None)
        return
    yield Trial(AFFINE_LAWS, _scaled)
    yield Trial((layout,), lambda target, found: _layouts(target, found, named, effort.seed))
    yield lanes.trial()
    yield from repeated(task, takes, effort, _alone)


def _alone(target: Target, found: Findings, question: Question, at: Array) -> None:
    """Judges numbers that were wrong among many."""
    x, scale, zero_point = question.inputs
    task, x = target.task, x[at]
    came, due = target.affine(x, scale, zero_point), task.affine_codes(x, scale, zero_point)
    due = due if came.dtype.kind != "f" else task.affine_values(due, scale, zero_point)
    found.judge(AFFINE_LAWS, Scaled(task, scale, zero_point, x, came, due))


def _scaled(target: Target, found: Findings) -> None:
    """At each scale and zero point the integers, their middles, the clamps."""
    task = target.task
    pairs = affine.scales_and_zero_points(task.element)
    first = next((at for at, (scale, zero) in enumerate(pairs) if scale != 1 and zero), 0)
    order = [first, *(at for at in range(len(pairs)) if at != first)]  # a kept 0 is no forgotten one
    every = [_observe(target, *pairs[at]) for at in order]
    found.tried += sum(len(seen.x) for seen in every)
    for seen in (*every[1 : first + 1], every[0], *every[first + 1 :]):
        already = {failure.law for failure in found.failures}
        laws = [law for law in AFFINE_LAWS if law.__name__ not in already]
        given = (seen.x, seen.scale, seen.zero_point)
        found.judge(laws, seen, lambda law, broken, given=given: alone(target, broken, given))  # type: ignore[misc]
    kept = _kept(every) if found.failures else None
    if kept is not None:
        found.failures.insert(0, as_of(found.failures[0], repeatable, kept))
    found.failures.sort(key=lambda broken: broken.law in ORDER and ORDER.index(broken.law))
    if found.failures:
        found.explain = confirmed_affine(target, lambda: nearest_affine(every), every)


def _kept(every: list[Scaled]) -> str | None:
    """Which scale or zero point of an earlier call explains all that came; every: in the order of calls."""
    before = {"first call": every[:1] * len(every), "call before": [every[0], *every[:-1]]}
    for call, earlier in before.items():
        for name, scale, zero in (("scale", 1, 0), ("zero point", 0, 1), ("scale and zero point", 1, 1)):
            given = [
                ((old if scale else seen).scale, (old if zero else seen).zero_point)
                for seen, old in zip(every, earlier, strict=True)
            ]
            if all(_is_due(seen, *pair) for seen, pair in zip(every, given, strict=True)):
                return f"it depends on the calls before it: the {name} of the {call}, and not its own"
    return None


def _is_due(seen: Scaled, scale: float, zero_point: int) -> bool:
    due = seen.task.affine_codes(seen.x, scale, zero_point)
    if seen.came.dtype.kind == "f":
        due = seen.task.affine_values(due, scale, zero_point)
    return not seen.task.differs(seen.came, due).any()


def _observe(target: Target, scale: float, zero_point: int) -> Scaled:
    task = target.task
    x = affine.numbers(task.element, scale, zero_point)
    kept = target.keeps(x)
    came = target.affine(x[kept], scale, zero_point)
    due = _truth(task, scale, zero_point)[kept]
    due = due if came.dtype.kind != "f" else task.affine_values(due, scale, zero_point)
    return Scaled(task, scale, zero_point, x[kept], came, due)


@lru_cache(maxsize=256)
def _truth(task: Task, scale: float, zero_point: int) -> Array:
    return task.affine_codes(affine.numbers(task.element, scale, zero_point), scale, zero_point)


def _arrays(target: Target, found: Findings, named: Shapes, far: Shapes) -> None:
    """Each scale and zero point with the numbers that matter to it, in the places that share it.

    far: shapes that are asked in plain memory alone.
    """
    scheme = target.task.scheme
    assert scheme is not None
    for turn, shape in enumerate((*shapes_of(scheme), *nothing_of(scheme), *named, *far)):
        if found.failures:
            return
        question = _spread_question(target, spread(scheme, shape), turn)
        with target.holding(UNUSED) if shape in far else nullcontext():  # not the codes of an earlier call
            _compare_arrays(target, found, question)
        if target.takes.contiguous or shape in far:
            continue
        x, *scales = question.inputs
        for given in shapes.beside(np.asfortranarray(x), *scales):
            if not found.failures:
                _compare_arrays(target, found, Question(given, question.due))


def _counted(target: Target, found: Findings) -> None:
    """Every number of scales, no one of which is that of its neighbour; in memory that is written anew."""
    memory: dict[Any, Array] = {}
    for question in counted.affine_questions(target):
        if not found.failures:
            with target.giving(rewritten=memory):
                told = answers(target, question)
            _judge_told(target, found, question, told)


def _spread_question(target: Target, places: Spread, turn: int) -> Question:
    """Numbers with arrays of scales and zero points, and the codes that are due."""
    task, d = target.task, target.task.element
    rng = np.random.default_rng(turn)
    every = affine.scales_and_zero_points(d)
    count = math.prod(places.shared)
    chosen = rng.permutation(max(len(every), count))[:count] % len(every)
    x, own = np.zeros(places.places.shape, np.float32), chosen[places.places]
    for at in np.unique(own).tolist():
        here = own == at
        x[here] = rng.choice(target.asked(affine.numbers(d, *every[at])), int(here.sum()))
    scales, zeros = (np.array(part)[chosen].reshape(places.shared) for part in zip(*every, strict=True))
    return question_of(task, (x, scales.astype(np.float32), zeros.astype(np.int32)))


def _compare_arrays(target: Target, found: Findings, question: Question) -> None:
    _judge_told(target, found, question, answers(target, question))


def _judge_told(target: Target, found: Findings, question: Question, told: tuple[Array, Array]) -> None:
    came, due = told
    found.tried += question.inputs[0].size
    wrong = target.task.differs(came, due)
    if wrong.any():
        found.differs += int(wrong.sum())
        _judge_arrays(target, found, question, (came, due))


def _judge_arrays(target: Target, found: Findings, question: Question, told: tuple[Array, Array]) -> None:
    """By the laws of numbers, where one is wrong alone with its own scale; else by where the scales lie."""
    every = list(_by_scales(target.task, question, told))
    for seen in every:
        for law in AFFINE_LAWS:
            if law.__name__ not in {failure.law for failure in found.failures}:
                broken = law(seen)
                if broken is not None and _is_wrong_alone(target, broken, question.inputs[0].ndim):
                    found.failures.append(_alone_with_its_own(target, broken, question.inputs[0].ndim))
    if not found.failures:
        found.failures.append(_of_places(target, question, told))
        return
    found.failures.sort(key=lambda broken: ORDER.index(broken.law))
    found.explain = lambda: _explained(target, every)


def _explained(target: Target, every: list[Scaled]) -> Dialects:
    """The deviations that explain what was seen, and as many numbers again."""
    assert target.task.scheme is not None
    question = _spread_question(target, spread(target.task.scheme, shape_of(target.task.scheme, MORE)), 29)
    try:
        told = answers(target, question)
    except Fault:
        return ()
    return nearest_affine([*every, *_by_scales(target.task, question, told)])


def _by_scales(task: Task, question: Question, told: tuple[Array, Array]) -> Iterator[Scaled]:
    """The numbers of each scale and zero point, with their answers."""
    x, scales, zeros = (np.ascontiguousarray(part) for part in each_with_its_own(task, question.inputs))
    for scale, zero in sorted({(float(s), int(z)) for s, z in zip(scales.flat, zeros.flat, strict=True)}):
        own = (scales == np.float32(scale)) & (zeros == zero)
        yield Scaled(task, scale, zero, x[own], *(part[own] for part in told))


def _single(target: Target, broken: Counterexample, axes: int) -> tuple[Array, ...]:
    """A number with its scale and zero point, in an array of one number of so many axes."""
    assert target.task.scheme is not None
    assert broken.tensor is not None
    scale, zero = broken.given
    shared = spread(target.task.scheme, (1,) * axes).shared
    x = broken.tensor.reshape((1,) * axes)
    return x, np.full(shared, scale, np.float32), np.full(shared, zero, np.int32)


def _is_wrong_alone(target: Target, broken: Counterexample, axes: int) -> bool:
    return bool(wrong_of(target, _single(target, broken, axes)).any())


def _alone_with_its_own(target: Target, broken: Counterexample, axes: int) -> Counterexample:
    """The same, to be asked again as it is given: with arrays."""
    x, *shared = _single(target, broken, axes)
    return replace(broken, tensor=x, given=tuple(shared))


def _of_places(target: Target, question: Question, told: tuple[Array, Array]) -> Counterexample:
    """A number that is right alone: what came is that of another place."""
    task, x = target.task, question.inputs[0]
    came, due = told
    wrong = task.differs(came, due)
    still = task.differs(*answers(target, question))
    law = scale_arrays if place_or_chance(wrong, still) is layout else repeatable
    broken = misplaced(x, came, due, wrong, law)
    at = int(wrong.reshape(-1).argmax())
    _, scales, zeros = (part.reshape(-1)[at : at + 1] for part in each_with_its_own(task, question.inputs))
    seen = Scaled(task, float(scales[0]), int(zeros[0]), x.reshape(-1)[at : at + 1],
                  *(part.reshape(-1)[at : at + 1] for part in told))  # fmt: skip
    where = f"{seen.place}, {broken.where}; {ALONE}"
    broken = replace(broken, where=where, came=seen.text(seen.came, 0), due=seen.text(seen.due, 0))
    return together(broken, question.inputs[1:], "scales and zero points")


def _filling(target: Target, given: list[tuple[float, int]], seed: int) -> Filling:
    """A few numbers of every kind, those about the integers of each scale, and some that are drawn."""
    d, rng = target.task.element, np.random.default_rng((23, seed))
    near = np.unique(np.concatenate([affine.numbers(d, *pair) for pair in given]).view(np.uint32))
    own, zeros = (np.repeat(part, MORE) for part in zip(*given, strict=True))
    every = rng.permutation(near).view(np.float32), affine.about(d, own, zeros, rng)
    return Filling.of(*(target.asked(part) for part in (affine.telling(d), *every)))


def _of_one_class(target: Target, numbers: Filling, given: list[tuple[float, int]]) -> Iterator[Array]:
    """Arrays of which no number is NaN, or clamped, or negative ... at any of the scales."""
    x = numbers.table
    least = min(given)
    with np.errstate(all="ignore"):
        masks = alike.classes(x / np.float32(least[0]), target.task.element)
    return alike.arrays(x, masks, target.takes)


def _layouts(target: Target, found: Findings, named: Shapes, seed: int) -> None:
    """Such numbers in other shapes and strides, at some scales and zero points in turn."""
    task = target.task
    given = affine.laid_out(task.element)
    numbers = _filling(target, given, seed)
    every = chain(
        shapes.shaped(numbers, target.takes, named),
        matrices.laid(numbers, target.takes, few=False),
        matrices.tailed(numbers, target.takes, matrices.Share.EVERY),
        _of_one_class(target, numbers, given),
    )
    for turn, x in enumerate(every):
        scale, zero_point = given[turn % len(given)]
        due = task.affine_codes(x, scale, zero_point)
        came = target.affine(x, scale, zero_point)
        if came.dtype.kind == "f":
            due = task.affine_values(due, scale, zero_point)
        found.tried += x.size
        wrong = task.differs(came, due)
        if wrong.any():
            at = int(wrong.reshape(-1).argmax())
            flat = (np.ascontiguousarray(part).reshape(-1) for part in (x, came, due))
            seen = Scaled(task, scale, zero_point, *flat)
            broken = misplaced(x, came, due, wrong)
            found.failures.append(
                replace(broken, where=f"{seen.place}, {broken.where}", came=seen.text(seen.came, at),
                        due=seen.text(seen.due, at), given=(scale, zero_point))
            )  # fmt: skip
            return
