"""Simpler counterexamples: fewer numbers, fewer bits, nearer to 1, as long as the same law is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from numerics.conform.laws.law import Law, hardness
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Float32, Task
from numerics.conform.verdict import Counterexample
from numerics.formats.block import Block


def shortened(x: np.float32) -> Float32:
    """A number with its significand cut to fewer and fewer bits, the fewest first.

    >>> shortened(np.float32(1.75))[:3].tolist()
    [1.0, 1.5, 1.75]
    """
    bits = np.float32(x).view(np.uint32)
    masks = np.array([0xFFFFFFFF << shift & 0xFFFFFFFF for shift in range(23, -1, -1)], np.uint32)
    return np.unique(bits & masks).view(np.float32)


def smallest_that_fails(target: Target, fault: Fault) -> Fault:
    """Returns the same fault on as few numbers, or rows of blocks, as bring it about."""
    while fault.law in ("runs", "code_range", "within", "written", "inputs_unchanged"):
        found = (fault_of(target, half) for half in _halves(target.task, fault.inputs))
        smaller = next((one for one in found if one is not None and one.law == fault.law), None)
        if smaller is None:
            break
        fault = smaller
    return fault


def _halves(task: Task, inputs: tuple[Array, ...]) -> list[tuple[Array, ...]]:
    """Both halves of inputs that hold numbers or lines beside each other; none where it is not so.

    Scales of an affine target lie along axes of their own, bytes are not cut between codes, and blocks are
    cut across the axis along which they lie.
    """
    x = inputs[0]
    placed = task.kind == "decode" and (task.packed or task.scale_layout is not None)
    if task.kind not in ("encode", "round", "decode") or placed or not x.ndim:
        return []
    axis = 0
    if isinstance(task.dtype, Block) and task.axis % x.ndim == 0:
        axis = 1
    if axis >= x.ndim or x.shape[axis] < 2:
        return []
    half = x.shape[axis] // 2
    parts = [slice(None)] * axis
    return [tuple(one[(*parts, cut)] for one in inputs) for cut in (slice(0, half), slice(half, None))]


def fault_of(target: Target, inputs: tuple[Array, ...]) -> Fault | None:
    """What goes wrong where the target is given these alone; None where nothing does."""
    ask = target.blocks if isinstance(target.task.dtype, Block) else target.elements
    try:
        ask(*inputs)
    except Fault as fault:
        return fault
    return None


def simpler_number(law: Law, broken: Counterexample, observe: Callable[[Float32], Any]) -> Counterexample:
    """Returns the same law broken by a number of fewer bits, where it fails there too."""
    if broken.tensor is None or len(broken.tensor) != 1 or not np.isfinite(broken.tensor[0]):
        return broken
    found = law(observe(shortened(broken.tensor[0])))
    if found is None or found.tensor is None or hardness(found.tensor)[0] >= hardness(broken.tensor)[0]:
        return broken
    return replace(found, differs=broken.differs)


def simpler_block(law: Law, broken: Counterexample, observe: Callable[[Float32], Any]) -> Counterexample:
    """Returns the same law broken by a block with fewer numbers that are not zero, or of fewer bits."""
    assert broken.tensor is not None
    row = broken.tensor

    def first_failing(candidates: list[Float32]) -> Float32 | None:
        if not candidates:
            return None
        failing = observe(np.stack(candidates)).failing(law)
        return candidates[int(failing[0])] if len(failing) else None

    row = _fewer(row, first_failing)
    row = _first(row, first_failing)
    row = _nearer(row, first_failing)
    row = _shorter(row, first_failing)
    found = law(observe(row[None]))
    return broken if found is None else replace(found, differs=broken.differs)


Search = Callable[[list[Float32]], "Float32 | None"]


def _fewer(row: Float32, first_failing: Search) -> Float32:
    """Zeros instead of halves, quarters ... single numbers, as long as it goes on."""
    size = len(row)
    while size:
        starts = range(0, len(row), size)
        tried = [
            _zeroed(row, start, start + size)
            for start in starts
            if row[start : start + size].view(np.uint32).any()
        ]
        found = first_failing([one for one in tried if one.view(np.uint32).any() or size == 1])
        if found is None:
            size //= 2
        else:
            row = found
    return row


def _zeroed(row: Float32, start: int, stop: int) -> Float32:
    changed = row.copy()
    changed[start:stop] = 0
    return changed


def _first(row: Float32, first_failing: Search) -> Float32:
    """The numbers that are left at the head of the block."""
    kept = row[row.view(np.uint32) != 0]
    found = first_failing([np.concatenate([kept, np.zeros(len(row) - len(kept), np.float32)])])
    return row if found is None else found


def _nearer(row: Float32, first_failing: Search) -> Float32:
    """The whole block by a power of two, its largest number then being about 1."""
    finite = np.abs(row[np.isfinite(row)])
    if not finite.size or not finite.max():
        return row
    exponent = int(np.frexp(finite.max())[1]) - 1
    with np.errstate(all="ignore"):
        found = first_failing([np.ldexp(row, -exponent).astype(np.float32)])
    return row if found is None else found


def _shorter(row: Float32, first_failing: Search) -> Float32:
    """Each number with as few bits as will do."""
    for place in np.flatnonzero(np.isfinite(row) & (row != 0)):
        tried = []
        for number in shortened(row[place])[:-1]:
            changed = row.copy()
            changed[place] = number
            tried.append(changed)
        found = first_failing(tried)
        row = row if found is None else found
    return row
