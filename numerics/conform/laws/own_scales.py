"""Kernels that find the scales of single numbers: a scale by its rule, codes under the scale that came."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np

from numerics.conform.deviations.own_scales import Observed, nearest
from numerics.conform.effort import Effort
from numerics.conform.inputs import own_scales, shapes
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.inputs.spread import Shapes, far_shapes, nothing_of, shapes_of
from numerics.conform.laws.company import misplaced, place_or_chance
from numerics.conform.laws.drawn import repeated
from numerics.conform.laws.findings import Findings, Trial, layout
from numerics.conform.laws.law import Law, Mask, hardness, sentence
from numerics.conform.laws.questions import unequal_places
from numerics.conform.rule import Float32, Found, Rule, groups_of
from numerics.conform.takes import Takes
from numerics.conform.target import Target
from numerics.conform.task import Answer, Array, Fields, Task
from numerics.conform.verdict import Counterexample, code_text, numbers

KEPT = 24  # tensors that a deviation has to explain
SHOWN = 16  # numbers
PLACES = {"quick": (256, 1 << 21), "default": (1024, 1 << 23), "high": (1 << 20, 1 << 25)}
"""In how many places of long groups a lone maximum stands, and how many numbers are asked for that."""
NAMED = 1 << 26  # numbers that are asked in a shape that somebody names


@dataclass(frozen=True)
class Scales:
    """What a target made of a tensor, beside what is due."""

    task: Task
    x: Float32
    came: Answer

    @property
    def rule(self) -> Rule:
        """How the scales are due to be found."""
        assert self.task.rule is not None
        return self.task.rule

    @cached_property
    def found(self) -> Found:
        """The scales and zero points that are due."""
        return self.rule.find(self.x)

    @cached_property
    def parts(self) -> Fields:
        """What came, where codes did."""
        assert isinstance(self.came, Fields)
        return self.came

    @cached_property
    def own(self) -> tuple[Float32, Array | None]:
        """The scales and zero points under which the codes are judged: those that came, where they can be."""
        scale, zero = self.parts.scale, self.parts.microexponents
        usable = np.isfinite(scale) & ((scale > 0) | ((scale == 0) & (self.found.scale == 0)))
        scale = np.asarray(np.where(usable, scale, self.found.scale))
        if zero is None:
            return scale, None
        d = self.task.element
        inside = (zero >= d.min) & (zero <= d.max)
        return scale, np.asarray(np.where(inside, zero, self.rule.zero_under(self.x, scale)))

    @cached_property
    def due(self) -> Array:
        """The codes that are due under those; or the values under the scales that are."""
        if isinstance(self.came, Fields):
            return self.rule.codes(self.x, *self.own)
        return np.asarray(self.task.found(self.rule, self.x))

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """Which scales, zero points and codes are wrong, by law."""
        if not isinstance(self.came, Fields):
            return {"found_values": self.task.differs(np.asarray(self.came), self.due)}
        wrong = self.task.differs(self.parts.scale, self.found.scale)
        nothing = self.found.extent <= (self.rule.least.value if self.rule.least.kind == "amax" else 0)
        codes = self.task.differs(self.parts.codes, self.due)
        unjudged = (self.own[0] == 0) & (self.found.extent > 0)  # it underflowed: nothing is due under it
        codes &= ~unjudged.reshape(-1)[groups_of(self.rule.scheme, self.x.shape).places]
        masks = {"found_scale": wrong & ~nothing, "scale_of_zeros": wrong & nothing, "under_scale": codes}
        if self.parts.microexponents is not None:
            masks["found_zero_point"] = self.parts.microexponents != self.rule.zero_under(self.x, self.own[0])
        return masks

    @cached_property
    def wrong(self) -> Mask:
        """Which numbers are wrong, each once; of a wrong scale or zero point all that share it."""
        places = groups_of(self.rule.scheme, self.x.shape).places
        every = (
            mask if law in ELEMENTS else mask.reshape(-1)[places].reshape(self.x.shape)
            for law, mask in self.masks.items()
        )
        return np.asarray(np.logical_or.reduce(list(every)))

    def wrong_groups(self, law: str) -> Array:
        """Which groups break a law."""
        mask = self.masks.get(law)
        if mask is None or not mask.any():
            return np.zeros(0, np.int64)
        groups = groups_of(self.rule.scheme, self.x.shape)
        return (
            np.flatnonzero(mask)
            if mask.shape != self.x.shape or law not in ELEMENTS
            else np.unique(groups.places[mask])
        )

    def group(self, number: int) -> Float32:
        """The numbers of one group, as a tensor of as many axes."""
        members = groups_of(self.rule.scheme, self.x.shape).members(number)
        at = np.unravel_index(members, self.x.shape)
        return np.ascontiguousarray(self.x[tuple(slice(int(a.min()), int(a.max()) + 1) for a in at)])

    def simplest(self, law: str) -> int | None:
        """The group among those that break it whose largest magnitude is the simplest, and that is short."""
        wrong = self.wrong_groups(law)
        if not len(wrong):
            return None
        hard = hardness(self.found.extent.reshape(-1)[wrong])
        return int(wrong[hard.argmin()])


def found_scale(seen: Scales) -> Counterexample | None:
    """A scale is what its rule makes of the largest finite magnitude of the numbers that share it."""
    return _told(seen, found_scale)


def scale_of_zeros(seen: Scales) -> Counterexample | None:
    """Where all numbers that share a scale are 0, it is what is claimed: 1, or what least= says."""
    return _told(seen, scale_of_zeros)


def found_zero_point(seen: Scales) -> Counterexample | None:
    """A zero point is clamp(round(qmin - min / scale)), with the scale that came beside it."""
    return _told(seen, found_zero_point)


def under_scale(seen: Scales) -> Counterexample | None:
    """Each code is that of the number over the scale that came beside it."""
    return _told(seen, under_scale)


def found_values(seen: Scales) -> Counterexample | None:
    """Each value is the number over the scale that is due, rounded, times that scale."""
    return _told(seen, found_values)


ELEMENTS = ("under_scale", "found_values")
"""Laws of single numbers; the others are of groups."""


def laws_of(task: Task) -> tuple[Law, ...]:
    """Those of a kind."""
    if task.kind == "fake_quantize":
        return (found_values,)
    zero = () if task.rule is None or task.rule.spec.symmetric else (found_zero_point,)
    return (found_scale, scale_of_zeros, *zero, under_scale)


def trials(task: Task, takes: Takes, effort: Effort, named: Shapes = ()) -> Iterator[Trial]:
    """Groups of every length, shapes and strides, and what is drawn; of named shapes every place."""
    laws = laws_of(task)
    quick = effort.name == "quick"
    yield Trial(laws, lambda target, found: _lengths(target, found, quick))
    yield Trial(laws, lambda target, found: _in_places(target, found, effort, named))
    yield Trial((layout,), lambda target, found: _shapes(target, found, effort))
    yield from repeated(task, takes, effort, None)


def _lengths(target: Target, found: Findings, quick: bool) -> None:
    """Until a law is broken; then the rest of the short ones, so that deviations are told apart."""
    seen: list[Scales] = []
    rule = target.task.rule
    assert rule is not None
    for x in own_scales.tensors(rule, target.takes.finite, quick):
        seen.append(_observed(target, found, x))
        if found.failures:
            break
    if found.failures:
        _explained(target, found, seen[-KEPT:])


def _in_places(target: Target, found: Findings, effort: Effort, named: Shapes) -> None:
    """A lone maximum in many places of long groups: of each lane, tile, and of what they leave over."""
    rule = target.task.rule
    assert rule is not None
    many = [own_scales.usual(rule, *PLACES[effort.name])]
    for shape in named:
        groups = len(groups_of(rule.scheme, shape).starts)
        tensors = NAMED // max(1, math.prod(shape))
        many.append(own_scales.in_many_places(rule, shape, max(1, tensors) * groups))
    for x in chain(*many):
        seen = _observed(target, found, x)
        if found.failures:
            _explained(target, found, [seen])
            return


def _explained(target: Target, found: Findings, seen: list[Scales]) -> None:
    rule, rng = target.task.rule, np.random.default_rng(59)
    assert rule is not None

    def more() -> list[Observed]:
        some = [own_scales.drawn(rule, 512, rng, target.takes.finite) for _ in range(4)]
        every = [*seen, *(Scales(target.task, x, target.found(x)) for x in some)]
        return [Observed(one.x, one.came) for one in every]

    found.explain = lambda: nearest(target.task, more())


def _observed(target: Target, found: Findings, x: Float32) -> Scales:
    """Asks of one tensor, and judges it."""
    seen = Scales(target.task, narrowed(np.ascontiguousarray(x), target.task.inputs), target.found(x))
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
        groups = groups_of(seen.rule.scheme, seen.x.shape)
        wrong = seen.masks[law].reshape(-1)[groups.members(number)]
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


def _told(seen: Scales, law: Law) -> Counterexample | None:
    """The first group that breaks a law: what decided its scale, what came and what was due."""
    wrong = seen.wrong_groups(law.__name__)
    if not len(wrong):
        return None
    number, groups = int(wrong[0]), groups_of(seen.rule.scheme, seen.x.shape)
    members = groups.members(number)
    flat = seen.x.reshape(-1)[members]
    finite = np.where(np.isfinite(flat), np.abs(flat), 0)
    at = int(finite.argmax())
    where = f"amax {float(finite[at]):.9g}, at {at} of {len(flat)} that share a scale"
    if seen.x.size > len(flat):
        where += f", group {number} of a tensor of shape {seen.x.shape}"
    if law.__name__ in ELEMENTS:
        place = int(members[seen.masks[law.__name__].reshape(-1)[members].argmax()])
        came, due = _element(seen, place, number)
        where += f"; wrong: {numbers(seen.x.reshape(-1)[place : place + 1])[0]}"
    elif law.__name__ == "found_zero_point":
        own = seen.own[0].reshape(-1)[number]
        came = f"a zero point of {int(seen.parts.microexponents.reshape(-1)[number])}"  # type: ignore[union-attr]
        due = (
            f"{int(seen.rule.zero_under(seen.x, seen.own[0]).reshape(-1)[number])}, under its scale {own:.9g}"
        )
    else:
        scales = (part.reshape(-1)[number : number + 1] for part in (seen.parts.scale, seen.found.scale))
        came, due = (f"a scale of {numbers(part)[0]}" for part in scales)
        due += f", of {float(seen.found.extent.reshape(-1)[number]):.9g} / {seen.rule.end:.9g}"
    return Counterexample(law.__name__, sentence(law), numbers(flat[:SHOWN]), came, due, 1, where, seen.x)


def _element(seen: Scales, place: int, number: int) -> tuple[str, str]:
    """One code or value that came, and the one that is due, with the scale by which it is judged."""
    if not isinstance(seen.came, Fields):
        came, due = (
            str(numbers(np.asarray(part).reshape(-1)[place : place + 1])[0]) for part in (seen.came, seen.due)
        )
        return came, f"{due}, under the scale {float(seen.found.scale.reshape(-1)[number]):.9g}"
    d = seen.task.element
    codes = [part.reshape(-1)[place : place + 1] for part in (seen.parts.codes, seen.due)]
    came, due = (code_text(int(code[0]), d, float(seen.task.values(code)[0])) for code in codes)
    scale, own = seen.own[0].reshape(-1)[number], seen.parts.scale.reshape(-1)[number]
    whose = "the scale that came" if scale.tobytes() == own.tobytes() else "the scale that is due"
    return came, f"{due}, under {whose}, {float(scale):.9g}"


def _of_places(target: Target, x: Array, seen: Scales) -> Counterexample:
    """A tensor whose groups are right alone: what came is that of another place, or of another call."""
    task = target.task
    came, due = seen.came, task.answer(np.ascontiguousarray(x))
    wrong = unequal_places(task, came, due, x.shape)
    still = unequal_places(task, target.found(x), due, x.shape)
    law = place_or_chance(wrong, still)
    pairs = task.pairs(came, due)
    for name, (one, other) in zip(("codes", "scales", "zero points"), pairs, strict=False):
        unequal = task.differs(one, other)
        if unequal.any():
            broken = misplaced(x, one, other, unequal, law)
            return replace(broken, where=f"{name} {broken.where}", tensor=x)
    return misplaced(x, *pairs[0], seen.masks[laws_of(task)[-1].__name__], law)


def _shapes(target: Target, found: Findings, effort: Effort) -> None:
    """Every shape that the scheme cuts, and with strides; rows and columns past 2**16."""
    rule, rng = target.task.rule, np.random.default_rng((61, effort.seed))
    assert rule is not None
    seen: list[Scales] = []
    far = far_shapes(rule.scheme, effort.name)
    for shape in (*shapes_of(rule.scheme), *nothing_of(rule.scheme), *far):
        x = own_scales.filled(rule, shape, rng, target.takes.finite)
        for laid in (x,) if target.takes.contiguous or shape in far else _laid(x, target.takes.backward):
            if not found.failures:
                seen.append(_observed(target, found, laid))
    if found.failures:
        _explained(target, found, seen[-1:])


def _laid(x: Float32, backward: bool) -> Iterator[Float32]:
    """The same numbers in memory of other strides."""
    yield x
    yield np.asfortranarray(x)
    yield shapes.stepped(x)
    if backward:
        yield np.ascontiguousarray(x[..., ::-1])[..., ::-1]
