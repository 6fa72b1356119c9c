"""Laws of kernels that find the scales of numbers: a scale by its rule, codes under the scale that came."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numerics.conform.laws.law import Law, Mask, hardness, sentence
from numerics.conform.scales.groups import Groups, groups_of, place_of_largest
from numerics.conform.scales.rule import Float32, Found, Rule
from numerics.conform.task import Answer, Array, Fields, Task
from numerics.conform.verdict import Counterexample, code_text, numbers

SHOWN = 16  # numbers


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

    @property
    def groups(self) -> Groups:
        """Which numbers share a scale."""
        return groups_of(self.rule.scheme, self.x.shape)

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
        codes &= ~unjudged.reshape(-1)[self.groups.places]
        masks = {"found_scale": wrong & ~nothing, "scale_of_zeros": wrong & nothing, "under_scale": codes}
        if self.parts.microexponents is not None:
            masks["found_zero_point"] = self.parts.microexponents != self.rule.zero_under(self.x, self.own[0])
        return masks

    @cached_property
    def wrong(self) -> Mask:
        """Which numbers are wrong, each once; of a wrong scale or zero point all that share it."""
        every = (
            mask if law in ELEMENTS else mask.reshape(-1)[self.groups.places].reshape(self.x.shape)
            for law, mask in self.masks.items()
        )
        return np.asarray(np.logical_or.reduce(list(every)))

    def wrong_groups(self, law: str) -> Array:
        """Which groups break a law."""
        mask = self.masks.get(law)
        if mask is None or not mask.any():
            return np.zeros(0, np.int64)
        return (
            np.flatnonzero(mask)
            if mask.shape != self.x.shape or law not in ELEMENTS
            else np.unique(self.groups.places[mask])
        )

    def group(self, number: int) -> Float32:
        """The numbers of one group, as a tensor of as many axes."""
        members = self.groups.members(number)
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


def _told(seen: Scales, law: Law) -> Counterexample | None:
    """The first group that breaks a law: what decided its scale, what came and what was due."""
    wrong = seen.wrong_groups(law.__name__)
    if not len(wrong):
        return None
    number, groups = int(wrong[0]), seen.groups
    members = groups.members(number)
    flat = seen.x.reshape(-1)[members]
    (at,), amax = place_of_largest(flat)
    where = f"amax {amax:.9g}, at {at} of {len(flat)} that share a scale"
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
    first = max(0, at - SHOWN + 1)  # of many numbers those up to the largest one
    where += f"; shown from number {first} on" if first else ""
    shown = numbers(flat[first : first + SHOWN])
    return Counterexample(law.__name__, sentence(law), shown, came, due, 1, where, seen.x)


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
