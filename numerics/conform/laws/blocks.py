"""The laws of blocks: each judges what was observed and gives None or the simplest counterexample.

As with elements, every wrong block falls under exactly one law, by what it holds and where it went
wrong: the scale before the microexponents before the elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.elements import values
from numerics.conform.inputs.rescale import element_values, fields_at, quotients, steps, values_at
from numerics.conform.laws.law import Law, Mask, hardness, sentence
from numerics.conform.task import Answer, Array, Fields, Task, answers_at
from numerics.conform.verdict import Counterexample, listed, numbers
from numerics.formats.block import ElementBlock, MicroexponentBlock
from numerics.formats.rounding import NEAREST

MARKED = 4  # wrong elements whose places are named
LABEL = "U16"  # holds the name of any law of blocks


@dataclass(frozen=True)
class SeenBlocks:
    """What a target made of whole float32 blocks [n, block], beside what was due.

    came, due: Fields of rows from a target that encodes, float32 values from one that rounds.
    truth: the exact Fields, in both cases.  blame: the shared field that is known to be wrong, or "";
    None where these blocks are all that is known.
    """

    task: Task
    x: NDArray[np.float32]
    came: Answer
    due: Answer
    truth: Fields
    random: Array | None = None
    blame: str | None = None

    @cached_property
    def wrong_elements(self) -> Mask:
        """Where an element's code or value differs."""
        if isinstance(self.came, Fields) and isinstance(self.due, Fields):
            return np.asarray(self.came.codes != self.due.codes)
        assert isinstance(self.came, np.ndarray)
        assert isinstance(self.due, np.ndarray)
        return self.task.differs(self.came, self.due)

    @cached_property
    def wrong(self) -> Mask:
        """Which blocks differ in anything."""
        return self.wrong_elements.any(axis=1) | self.wrong_scale | self.wrong_microexponents

    @cached_property
    def wrong_scale(self) -> Mask:
        """Blocks whose scale is wrong; of rounded values, those that the scale next to it would give."""
        if isinstance(self.came, Fields):
            return np.asarray(self.came.scale != self.truth.scale)
        return self._beside_scale & (self.blamed == "scale_rule")

    @cached_property
    def wrong_microexponents(self) -> Mask:
        """Blocks whose microexponents are wrong; of rounded values, those that others would give."""
        if self.truth.microexponents is None:
            return np.zeros(len(self.x), np.bool_)
        if isinstance(self.came, Fields):
            return np.asarray(self.came.microexponents != self.truth.microexponents)
        return self._other_microexponents & (self.blamed == "microexponents")

    @cached_property
    def blamed(self) -> str:
        """The shared field that explains every wrong block of rounded values; "" where none does."""
        if self.blame is not None or isinstance(self.came, Fields):
            return self.blame or ""
        ordinary = self.wrong_elements.any(axis=1) & np.isfinite(self.x).all(axis=1)
        for name, explained in (("scale_rule", "_beside_scale"), ("microexponents", "_other_microexponents")):
            if ordinary.any() and getattr(self, explained)[ordinary].all():
                return name
        return ""

    @cached_property
    def _beside_scale(self) -> Mask:
        moved = [self._matches(self._scale_moved(by)) for by in (-1, 1)]
        return (moved[0] | moved[1]) & self.wrong_elements.any(axis=1)

    @cached_property
    def _other_microexponents(self) -> Mask:
        micro = self.truth.microexponents
        if micro is None or self.task.draws:
            return np.zeros(len(self.x), np.bool_)
        every = (1 << self.task.block.micro_bits) - 1
        explained: Mask = ~self.wrong_elements
        for shifts in (0, every):
            fields = fields_at(self.task, self.x, self.truth.scale, np.full_like(micro, shifts))
            explained = explained | ~self.task.differs(np.asarray(self.came), values_at(self.task, fields))
        return np.asarray(self.wrong_elements.any(axis=1) & explained.all(axis=1))

    def _scale_moved(self, by: int) -> Array:
        moved = np.clip(self.truth.scale.astype(np.int64) + by, 0, 254)
        return moved.astype(self.truth.scale.dtype)

    def _matches(self, scale: Array) -> Mask:
        if self.task.draws:
            return np.zeros(len(self.x), np.bool_)
        fields = fields_at(self.task, self.x, scale, self.truth.microexponents)
        return np.asarray(~self.task.differs(np.asarray(self.came), values_at(self.task, fields)).any(axis=1))

    @cached_property
    def _element_labels(self) -> Array:
        """What each element is, on the grid of its own block: past the end, a tie, or between."""
        task, d = self.task, self.task.block
        y = np.abs(quotients(self.x, steps(task, self.truth.scale, self.truth.microexponents), False))
        y = y.astype(np.float64)
        held = np.arange(1 << (d.element_bits - 1)) * 1.0
        if isinstance(d, ElementBlock):
            held = values(d.element) * d.element_unit
        held = np.unique(np.abs(held[np.abs(held) <= held[-1]]))
        place = np.clip(np.searchsorted(held, y, "right"), 1, len(held) - 1)
        with np.errstate(invalid="ignore"):
            tie = (2 * y == held[place - 1] + held[place]) & (task.rounding in NEAREST)
            classes = {"negative_zero": self._both_zero, "saturates": y > held[-1], "element_ties": tie}
        return np.select(list(classes.values()), list(classes), default="elements")

    @cached_property
    def _both_zero(self) -> Mask:
        if isinstance(self.came, Fields):
            both = [element_values(self.task, codes) == 0 for codes in (self.came.codes, self.truth.codes)]
            return np.asarray(both[0] & both[1])
        return np.asarray((self.came == 0) & (self.due == 0))

    @cached_property
    def labels(self) -> Array:
        """The law that each wrong block falls under; "" for those that are right."""
        found = np.zeros(len(self.x), LABEL)
        if self.wrong.any():
            found[self.wrong] = self._part(self.wrong)._every_label
        return found

    def _part(self, which: Mask) -> SeenBlocks:
        """Some of the blocks, with what all of them say about the shared fields."""
        came, due, truth = (answers_at(answer, which) for answer in (self.came, self.due, self.truth))
        assert isinstance(truth, Fields)
        random = None if self.random is None else self.random[which]
        return SeenBlocks(self.task, self.x[which], came, due, truth, random, self.blamed)

    @cached_property
    def _every_label(self) -> Array:
        """The law that each block would fall under."""
        x, wrong = self.x, self.wrong_elements
        micro = type(self.task.dtype) is MicroexponentBlock
        least = np.float32(2.0**-126) if micro else np.float32(0)
        labels = self._element_labels
        bumped = self.wrong_scale & (labels == "saturates").any(axis=1) & micro
        classes = {
            "nan_block": ~np.isfinite(x).all(axis=1),
            "zero_block": ((np.abs(x) < least) | (x == 0)).all(axis=1),
            "scale_rule": self.wrong_scale & ~bumped,
            "microexponents": self.wrong_microexponents & ~bumped,
        }
        for name in ("elements", "element_ties", "saturates", "negative_zero"):
            classes[name] = (wrong & (labels == name)).any(axis=1)
        classes["saturates"] |= bumped
        return np.select(list(classes.values()), list(classes), default="elements")

    def failing(self, law: Law) -> NDArray[np.int64]:
        """The blocks on which a law fails."""
        return np.flatnonzero((self.labels == law.__name__) & self.wrong)

    def simplest(self, law: Law) -> Counterexample | None:
        """The simplest of the blocks on which a law fails: few numbers, of few bits."""
        places = self.failing(law)
        if not len(places):
            return None
        rows = self.x[places]
        cost = np.where(rows == 0, np.signbit(rows), (1 << 14) + hardness(rows).reshape(rows.shape)).sum(
            axis=1
        )
        at = int(places[cost.argmin()])
        block = self.x[at]
        told = np.flatnonzero((block.view(np.uint32) != 0) | self.wrong_elements[at])
        last = int(told[-1]) + 1 if len(told) else 1
        return Counterexample(
            law.__name__, sentence(law), numbers(block[:last]), self._text(self.came, at, last),
            self._text(self.due, at, last), len(places), "; ".join(self._beside(at, last)), block,
            given=() if self.random is None else (self.random[at],),
        )  # fmt: skip

    def _beside(self, at: int, last: int) -> Iterator[str]:
        """What belongs to a block beside its first numbers: zeros, which elements are wrong, random bits."""
        rest = self.x.shape[1] - last
        if rest:
            yield f"then {rest} zeros"
        if len(marked := self._marked(at, last)):
            some = ", ".join(map(str, marked[:MARKED])) + ", ..." * (len(marked) > MARKED)
            yield f"wrong at place{'s' * (len(marked) > 1)} {some} (from 0)"
        if self.random is not None:
            yield "random bits " + listed((f"0x{int(bits):08X}" for bits in self.random[at, :last]), " ")

    def _marked(self, at: int, last: int) -> NDArray[np.int64]:
        """The wrong elements of a block, where others are right, and the scale, too."""
        wrong = self.wrong_elements[at, :last]
        shared = self.wrong_scale[at] or self.wrong_microexponents[at]
        return np.flatnonzero(wrong & ~wrong.all() & ~shared)

    def _text(self, answer: Answer, at: int, last: int) -> str:
        """One answer; elements that are wrong among others that are right stand in brackets."""
        marked = set(self._marked(at, last).tolist())

        def shown(texts: Iterable[str], between: str) -> str:
            return listed((f"[{t}]" if i in marked else t for i, t in enumerate(texts)), between)

        if isinstance(answer, np.ndarray):
            return shown(map(str, numbers(answer[at, :last])), ", ")
        shared = f"scale 0x{int(answer.scale[at]):02X}, "
        if answer.microexponents is not None:
            shared += f"microexponents 0x{int(answer.microexponents[at]):02X}, "
        return f"{shared}codes {shown((f'{int(code):x}' for code in answer.codes[at, :last]), ' ')}"


def scale_rule(seen: SeenBlocks) -> Counterexample | None:
    """The shared scale is the one that the rule gives for the largest magnitude of the block."""
    return seen.simplest(scale_rule)


def microexponents(seen: SeenBlocks) -> Counterexample | None:
    """A microexponent is 1 exactly where its sub-block lies below the shared one (of tiers: above it)."""
    return seen.simplest(microexponents)


def elements(seen: SeenBlocks) -> Counterexample | None:
    """An element over the shared scale is rounded on the element's own grid, as if exact."""
    return seen.simplest(elements)


def element_ties(seen: SeenBlocks) -> Counterexample | None:
    """An element midway between two values of its grid goes where the rounding says."""
    return seen.simplest(element_ties)


def saturates(seen: SeenBlocks) -> Counterexample | None:
    """An element past the largest saturates, integers at both ends alike; it never bumps the scale."""
    return seen.simplest(saturates)


def negative_zero(seen: SeenBlocks) -> Counterexample | None:
    """An element that becomes zero keeps its sign, where elements have one; of mx4, mx6, mx9 it is +0."""
    return seen.simplest(negative_zero)


def zero_block(seen: SeenBlocks) -> Counterexample | None:
    """A block of zeros has the least scale and codes of zero, signs kept as the format says."""
    return seen.simplest(zero_block)


def nan_block(seen: SeenBlocks) -> Counterexample | None:
    """A NaN or Inf anywhere makes the whole block NaN."""
    return seen.simplest(nan_block)


BLOCK_LAWS: tuple[Law, ...] = (
    scale_rule, microexponents, elements, element_ties, saturates, negative_zero, zero_block, nan_block,
)  # fmt: skip
"""The laws of whole blocks, the most telling first."""


# ---- decoding -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeenFields:
    """What a target made of blocks [n, block]: float32 values, beside those that were due."""

    task: Task
    fields: Fields
    came: NDArray[np.float32]
    due: NDArray[np.float32]

    @cached_property
    def wrong(self) -> Mask:
        """Which values differ."""
        return self.task.differs(self.came, self.due)

    @cached_property
    def labels(self) -> Array:
        """The law that each element falls under."""
        poisoned = ~np.isfinite(steps(self.task, self.fields.scale, self.fields.microexponents))
        small = (np.abs(self.due) < np.float32(2.0**-126)) & (self.due != 0)
        classes = {
            "nan_scale": poisoned & np.ones_like(self.wrong),
            "small_values": small,
            "shared_microexponents": self._unshifted & (self.due != 0),
        }
        return np.select(list(classes.values()), list(classes), default="every_code")

    @cached_property
    def _unshifted(self) -> Mask:
        """Which values are those of a block without microexponents."""
        micro = self.fields.microexponents
        if micro is None:
            return np.zeros_like(self.wrong)
        plain = values_at(self.task, self.fields._replace(microexponents=np.zeros_like(micro)))
        return ~self.task.differs(self.came, plain)

    def simplest(self, law: Law) -> Counterexample | None:
        """The first element on which a law fails."""
        places = np.argwhere((self.labels == law.__name__) & self.wrong)
        if not len(places):
            return None
        row, column = (int(place) for place in places[0])
        micro = self.fields.microexponents
        shared = "" if micro is None else f", microexponents 0x{int(micro[row]):02X}"
        code, scale = int(self.fields.codes[row, column]), int(self.fields.scale[row])
        where = f"code 0x{code:X} at place {column}, scale 0x{scale:02X}{shared}"
        came, due = (str(numbers(v[row, column : column + 1])[0]) for v in (self.came, self.due))
        codes, *others = (part[row : row + 1] for part in self.fields if part is not None)
        return Counterexample(law.__name__, sentence(law), (), came, due, len(places), where, codes,
                              given=tuple(others))  # fmt: skip


def every_code(seen: SeenFields) -> Counterexample | None:
    """Every code decodes to its element's value times the shared scale, rounded once."""
    return seen.simplest(every_code)


def small_values(seen: SeenFields) -> Counterexample | None:
    """Values below the smallest normal float32 are exact: nothing is flushed."""
    return seen.simplest(small_values)


def shared_microexponents(seen: SeenFields) -> Counterexample | None:
    """A microexponent of 1 halves the step of its sub-block."""
    return seen.simplest(shared_microexponents)


def nan_scale(seen: SeenFields) -> Counterexample | None:
    """A shared scale of NaN makes every value NaN."""
    return seen.simplest(nan_scale)


BLOCK_DECODE_LAWS: tuple[Law, ...] = (every_code, shared_microexponents, small_values, nan_scale)
