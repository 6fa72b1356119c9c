"""Codes as bytes: the laws of packing and unpacking, and their trials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from numerics.backends.reference import bits
from numerics.conform.deviations import places
from numerics.conform.deviations.table import Dialect
from numerics.conform.effort import Effort
from numerics.conform.inputs import strings
from numerics.conform.inputs.layouts import left_over
from numerics.conform.inputs.shapes import LENGTHS
from numerics.conform.laws import lanes
from numerics.conform.laws.drawn import repeated
from numerics.conform.laws.findings import Findings, Trial, layout, misplaced
from numerics.conform.laws.law import Law, sentence
from numerics.conform.takes import Takes
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Task
from numerics.conform.verdict import Counterexample

STEPS = (2, 3, -1, -2)  # from one code to the next
STRIDED = (96, 67, 517, 1029)  # codes
SHOWN = 24  # codes or bytes of a string that are shown


@dataclass(frozen=True)
class Packing:
    """One string of codes and its bytes: what the target made of the one or the other."""

    task: Task
    codes: Array
    packed: Array
    came: Array

    @property
    def due(self) -> Array:
        """Bytes for a target that packs, codes for one that unpacks."""
        return self.packed if self.task.kind == "pack" else self.codes

    @cached_property
    def first(self) -> int | None:
        """The first byte, or code, that is wrong."""
        wrong = np.flatnonzero(self.came != self.due)
        return int(wrong[0]) if len(wrong) else None

    @property
    def differs(self) -> int:
        """How many codes are others; one where only spare bits are."""
        if self.task.kind == "unpack":
            return int(np.count_nonzero(self.came != self.codes))
        came = strings.unpacked(self.came, len(self.codes), self.task.element.bits)
        return max(1, int(np.count_nonzero(came != self.codes)))

    @property
    def is_at_the_end(self) -> bool:
        """Is that of a last byte which codes do not fill?"""
        assert self.first is not None
        width = self.task.element.bits
        byte = self.first if self.task.kind == "pack" else ((self.first + 1) * width - 1) // 8
        return len(self.codes) * width % 8 != 0 and byte == len(self.packed) - 1

    def broken(self, law: Law) -> Counterexample:
        """What is wrong, and what was given for it."""
        assert self.first is not None
        width, at = self.task.element.bits, self.first
        if self.task.kind == "pack":
            given, name, source = self.codes, "codes", at * 8 // width
        else:
            given, name, source = self.packed, "bytes", at * width // 8
        where = f"{name} {_hex(given, source)}" + (f", {len(self.codes)} codes" * (name == "bytes"))
        return Counterexample(
            law.__name__, sentence(law), (), _hex(self.came, at), _hex(self.due, at), 1, where, given,
            given=() if name == "codes" else (len(self.codes),),
        )  # fmt: skip


def _hex(numbers: Array, about: int = 0) -> str:
    """All of few numbers; of many, those that begin with the one before a place."""
    first = max(0, about - 1) if len(numbers) > SHOWN else 0
    shown = " ".join(f"{int(n):02x}" for n in numbers[first : first + SHOWN]) or "nothing"
    return shown if len(numbers) <= SHOWN else f"{shown}, from place {first} of {len(numbers)}"


def order(seen: Packing) -> Counterexample | None:
    """Codes form one little-endian string of bits, element 0 in the lowest (docs/formats.md §2)."""
    return None if seen.first is None or seen.is_at_the_end else seen.broken(order)


def last_byte(seen: Packing) -> Counterexample | None:
    """Codes that do not fill their last byte leave zeros in it, and come back all the same."""
    return seen.broken(last_byte) if seen.first is not None and seen.is_at_the_end else None


# ---- trials ----------------------------------------------------------------------------------------


def trials(task: Task, takes: Takes, effort: Effort) -> Iterator[Trial]:
    """Strings of many lengths; unless contiguous, in memory that is not; and long ones that are drawn."""
    yield Trial((order, last_byte), _packing)
    if not takes.contiguous:
        yield Trial((layout,), _strided)
    yield lanes.trial()
    yield from repeated(task, takes, effort)


def _packing(target: Target, found: Findings) -> None:
    """Strings of codes, the shortest and simplest first."""
    task = target.task
    for codes, packed in _strings(task.element.bits, task.element.code_dtype):
        came = (
            target.packed(codes, len(packed)) if task.kind == "pack" else target.unpacked(packed, len(codes))
        )
        found.tried += len(codes)
        seen = Packing(task, codes, packed, came)
        broken = [told for law in (order, last_byte) if (told := law(seen)) is not None]
        if broken:
            found.differs += seen.differs
            found.failures += broken
            found.explain = lambda: _explained(target)
            return


def _explained(target: Target) -> tuple[Dialect, ...]:
    """Do all strings begin with the highest bits, where the order of codes has a name?"""
    width = target.task.element.bits

    def answers(codes: Array) -> bool:
        due = strings.packed(codes, width, highest_first=True)
        if target.task.kind == "pack":
            return np.array_equal(target.packed(codes, len(due)), due)
        return np.array_equal(target.unpacked(due, len(codes)), codes)

    every = _strings(width, target.task.element.code_dtype)
    return (places.of_strings(),) if all(answers(codes) for codes, _ in every) else ()


def _strided(target: Target, found: Findings) -> None:
    """Codes, or bytes, with gaps between them, and backward; strings that end in parts of a byte, too."""
    width, kind = target.task.element.bits, target.task.element.code_dtype
    steps = [step for step in STEPS if step > 0 or target.takes.backward]
    for step, count in product(steps, STRIDED):
        codes = _random(width, kind, count)
        packed = _bytes(codes, width)
        given, due = (codes, packed) if target.task.kind == "pack" else (packed, codes)
        apart = np.repeat(given[:: np.sign(step)], abs(step))[::step]
        came = target.packed(apart, len(due)) if target.task.kind == "pack" else target.unpacked(apart, count)
        found.tried += count
        if not np.array_equal(came, due):
            broken = misplaced(apart, came, due, came != due)
            counted = () if target.task.kind == "pack" else (count,)
            found.failures.append(replace(broken, given=counted))
            return


def _bytes(codes: Array, width: int) -> Array:
    return np.frombuffer(bits.pack(codes.tolist(), width), np.uint8)


def _strings(width: int, kind: str) -> Iterator[tuple[Array, Array]]:
    """One code in each place of whole bytes, then random ones, with a short last byte, too; and the bytes."""
    whole = 8
    for place in range(whole):
        for code in (1, (1 << width) - 1):
            codes = np.where(np.arange(whole) == place, code, 0).astype(kind)
            yield codes, _bytes(codes, width)
    random = _random(width, kind, max(LENGTHS))
    packed = _bytes(random, width)
    yield from ((random[:count], _head(packed, count * width)) for count in (*LENGTHS, *left_over(far=False)))


def _head(packed: Array, count: int) -> Array:
    """The first so many bits of a string; the spare ones of its last byte are 0.

    >>> _head(np.uint8([255, 255, 255]), 11).tolist()
    [255, 7]
    """
    found = packed[: -(-count // 8)].copy()
    if count % 8:
        found[-1] &= (1 << count % 8) - 1
    return found


def _random(width: int, kind: str, count: int) -> Array:
    return np.random.default_rng(4).integers(0, 1 << width, count).astype(kind)
