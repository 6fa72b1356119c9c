"""Trials of kernels that find the scales of numbers: groups of every length and place, shapes, strides."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from numerics.conform.effort import Effort
from numerics.conform.inputs import shapes
from numerics.conform.inputs.margins import UNUSED
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.inputs.spread import Shapes, far_shapes, nothing_of, shapes_of
from numerics.conform.laws import counted
from numerics.conform.laws.company import misplaced, place_or_chance
from numerics.conform.laws.drawn import repeated
from numerics.conform.laws.findings import Findings, Named, Trial, layout
from numerics.conform.laws.law import Law
from numerics.conform.laws.questions import unequal_places
from numerics.conform.scales import inputs
from numerics.conform.scales.deviations import Observed, nearest
from numerics.conform.scales.groups import groups_of
from numerics.conform.scales.laws import ELEMENTS, Scales, laws_of
from numerics.conform.scales.rule import Float32, Rule
from numerics.conform.takes import Takes
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Task
from numerics.conform.verdict import Counterexample

KEPT = 24  # tensors that a deviation has to explain
PLACES = {"quick": (256, 1 << 21), "default": (1024, 1 << 23), "high": (1 << 20, 1 << 25)}
"""In how many places of long groups a lone maximum stands, and how many numbers are asked for that."""
LONG = 1 << 16  # numbers of a tensor that is asked where memory holds no earlier result
NAMED = 1 << 26  # numbers that are asked in a shape that somebody names


def trials(task: Task, takes: Takes, effort: Effort, named: Shapes = ()) -> Iterator[Trial]:
    """Groups of every length, shapes and strides, and what is drawn; of named shapes every place."""
    rule, laws = task.rule, laws_of(task)
    assert rule is not None
    quick = effort.name == "quick"
    yield _trial(laws, lambda: inputs.tensors(rule, takes, quick), KEPT)
    yield _trial(laws, lambda: _in_places(rule, takes, effort, named))
    yield _trial((layout,), lambda: _shapes(rule, takes, effort))
    yield _trial((layout,), lambda: _counted(rule, takes))
    yield from repeated(task, takes, effort, None)


def _trial(laws: Sequence[Named], tensors: Callable[[], Iterator[Float32]], kept: int = 1) -> Trial:
    """Asks of tensors until a law is broken.

    kept: the last so many tensors are those that deviations have to explain.
    """

    def run(target: Target, found: Findings) -> None:
        seen: deque[Scales] = deque(maxlen=kept)
        for x in tensors():
            seen.append(_observed(target, found, x))
            if found.failures:
                _explained(target, found, [*seen])
                return

    return Trial(laws, run)


def _in_places(rule: Rule, takes: Takes, effort: Effort, named: Shapes) -> Iterator[Float32]:
    """A lone maximum in many places of long groups: of each lane, tile, and of what they leave over."""
    yield from inputs.usual(rule, takes, *PLACES[effort.name])
    for shape in named:
        groups = len(groups_of(rule.scheme, shape).starts)
        tensors = NAMED // max(1, math.prod(shape))
        yield from inputs.in_many_places(rule, shape, max(1, tensors) * groups)


def _shapes(rule: Rule, takes: Takes, effort: Effort) -> Iterator[Float32]:
    """Every shape that the scheme cuts, and with strides; rows and columns past 2**16."""
    rng = np.random.default_rng((61, effort.seed))
    far = far_shapes(rule.scheme, effort.name)
    for shape in (*shapes_of(rule.scheme), *nothing_of(rule.scheme), *far):
        if takes.whole_blocks and math.prod(inputs.whole(rule.scheme, shape)) > inputs.ROOM:
            continue
        x = inputs.filled(rule, shape, rng, takes)
        yield from (x,) if takes.contiguous or shape in far else _laid(x, takes.backward)


def _counted(rule: Rule, takes: Takes) -> Iterator[Float32]:
    """Every number of scales, no one of which is that of its neighbour; and one, each time another."""

    def standing(shape: tuple[int, ...], places: Array) -> Array:
        shape = inputs.whole(rule.scheme, shape) if takes.whole_blocks else shape
        return inputs.standing(rule, shape, places[: len(groups_of(rule.scheme, shape).starts)])

    yield from counted.tensors(rule.scheme, standing)


def _laid(x: Float32, backward: bool) -> Iterator[Float32]:
    """The same numbers in memory of other strides."""
    yield x
    yield np.asfortranarray(x)
    yield shapes.stepped(x)
    if backward:
        yield np.ascontiguousarray(x[..., ::-1])[..., ::-1]


# ---- asking ----------------------------------------------------------------------------------------


def _explained(target: Target, found: Findings, seen: list[Scales]) -> None:
    rule, rng = target.task.rule, np.random.default_rng(59)
    assert rule is not None

    def more() -> list[Observed]:
        some = [inputs.drawn(rule, 512, rng, target.takes) for _ in range(4)]
        every = [*seen, *(Scales(target.task, x, target.found(x)) for x in some)]
        return [Observed(one.x, one.came) for one in every]

    found.explain = lambda: nearest(target.task, more())


def _observed(target: Target, found: Findings, x: Float32) -> Scales:
    """Asks of one tensor, and judges it."""
    plain = np.ascontiguousarray(x).reshape(x.shape)  # which gives an array of shape () an axis
    with target.holding(UNUSED) if x.size > LONG else nullcontext():  # not the scales of an earlier call
        seen = Scales(target.task, narrowed(plain, target.task.inputs), target.found(x))
    found.tried += x.size
    wrong = int(seen.wrong.sum())
    if wrong:
        found.differs += wrong
        for law in laws_of(target.task):
            broken = _simpler(target, seen, law)
            if broken is not None:
                found.failures.append(broken)
        if not found.failures:
            found.failures.append(_of_places(target, x, seen))
    return seen


def _simpler(target: Target, seen: Scales, law: Law) -> Counterexample | None:
    """The simplest group that breaks a law, alone and with fewer numbers where it still does."""
    number = seen.simplest(law.__name__)
    if number is None:
        return None
    for x in _fewer(seen, law.__name__, number):
        if target.takes.whole_blocks and inputs.whole(seen.rule.scheme, x.shape) != x.shape:
            continue
        alone = Scales(target.task, x, target.found(x))
        if (broken := law(alone)) is not None:
            return replace(broken, differs=int(seen.masks[law.__name__].sum()))
    return None


def _fewer(seen: Scales, law: str, number: int) -> Iterator[Float32]:
    """The numbers of a group: the largest alone, with the one that is wrong, with zeros, all."""
    x = seen.group(number)
    flat = x.reshape(-1)
    with np.errstate(all="ignore"):
        order = np.argsort(np.where(np.isfinite(flat), -np.abs(flat), 1), kind="stable")
    ends = {int(order[0])} | (set() if seen.rule.spec.symmetric else {int(flat.argmin()), int(flat.argmax())})
    keeps = [ends, {*ends, *np.flatnonzero(~np.isfinite(flat))[:1].tolist()}]
    if law in ELEMENTS:
        wrong = seen.masks[law].reshape(-1)[seen.groups.members(number)]
        keeps += [{*keeps[1], at} for at in np.flatnonzero(wrong)[:3].tolist()]
    kept = [sorted(keep) for keep in keeps]
    if sum(n > 1 for n in x.shape) <= 1:
        axis = int(np.argmax(x.shape)) if x.ndim else 0
        for keep in kept if x.ndim else ():
            yield flat[keep].reshape([len(keep) if a == axis else 1 for a in range(x.ndim)])
    for keep in kept:
        less = np.zeros_like(flat)
        less[keep] = flat[keep]
        yield less.reshape(x.shape)
    yield x


def _of_places(target: Target, x: Array, seen: Scales) -> Counterexample:
    """A tensor whose groups are right alone: what came is that of another place, or of another call."""
    task = target.task
    came, due = seen.came, task.answer(np.ascontiguousarray(x).reshape(x.shape))
    wrong = unequal_places(task, came, due, x.shape)
    still = unequal_places(task, target.found(x), due, x.shape)
    law = place_or_chance(wrong, still)
    pairs = task.pairs(came, due)
    named = [*zip(("codes", "scales", "zero points"), pairs, strict=False)]
    for name, (one, other) in (*named[1:], *named[:1]):  # codes follow from the others
        unequal = task.differs(one, other)
        if unequal.any():
            broken = misplaced(x, one, other, unequal, law)
            return replace(broken, where=f"{name} {broken.where}", tensor=x)
    return misplaced(x, *pairs[0], seen.masks[laws_of(task)[-1].__name__], law)
