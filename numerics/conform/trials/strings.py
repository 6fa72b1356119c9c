"""Trials of codes as bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.backends.reference import bits
from numerics.conform.inputs.shapes import LENGTHS
from numerics.conform.laws import Packing, last_byte, order
from numerics.conform.target import Target
from numerics.conform.task import Array
from numerics.conform.trials.findings import Findings, Trial, layout, misplaced


def trials(contiguous: bool) -> Iterator[Trial]:
    """Strings of many lengths; unless contiguous, in memory that is not."""
    yield Trial((order, last_byte), _packing)
    if not contiguous:
        yield Trial((layout,), _strided)


def _packing(target: Target, found: Findings) -> None:
    """Strings of codes, the shortest and simplest first."""
    task = target.task
    for codes in _strings(task.element.bits, task.element.code_dtype):
        packed = _bytes(codes, task.element.bits)
        came = (
            target.packed(codes, len(packed)) if task.kind == "pack" else target.unpacked(packed, len(codes))
        )
        found.tried += len(codes)
        law = last_byte if len(codes) * task.element.bits % 8 else order
        broken = law(Packing(task, codes, packed, came))
        if broken is not None:
            found.differs += 1
            found.failures.append(broken)
            return


def _strided(target: Target, found: Findings) -> None:
    """Every second code, or byte."""
    task = target.task
    codes = _random(task.element.bits, task.element.code_dtype, 96)
    packed = _bytes(codes, task.element.bits)
    given, due = (codes, packed) if task.kind == "pack" else (packed, codes)
    apart = np.repeat(given, 2)[::2]
    came = target.packed(apart, len(due)) if task.kind == "pack" else target.unpacked(apart, len(due))
    found.tried += len(codes)
    if not np.array_equal(came, due):
        found.failures.append(misplaced(apart, came, due, came != due))


def _bytes(codes: Array, width: int) -> Array:
    return np.frombuffer(bits.pack(codes.tolist(), width), np.uint8)


def _strings(width: int, kind: str) -> Iterator[Array]:
    """One code in each place of whole bytes, then random codes, then those with a short last byte."""
    whole = 8
    for place in range(whole):
        for code in (1, (1 << width) - 1):
            yield np.where(np.arange(whole) == place, code, 0).astype(kind)
    random = _random(width, kind, max(LENGTHS))
    yield from (random[:count] for count in LENGTHS)


def _random(width: int, kind: str, count: int) -> Array:
    return np.random.default_rng(4).integers(0, 1 << width, count).astype(kind)
