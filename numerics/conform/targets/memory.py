"""The memory of a call: what a target may read, and what it fills."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.edges import Edge
from numerics.conform.inputs.margins import UNUSED, memory_of, spaced, unused_about
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.held import Form
from numerics.conform.task import Array

SMALL = 1 << 24
"""Bytes of an array, at most, whose own bytes are told from those beside them."""
OTHERWISE = 0xFF
"""Bits that differ between two fillings of the memory for a result."""
CHANGED = {
    "inputs_unchanged": "an input that is no longer what it was",
    "within": "memory beside an input, or in its gaps, that is no longer what it was",
}
"""What came where a target wrote into memory that it was given to read."""
OUTSIDE = "memory before or behind a result, or in its gaps, that is no longer what it was"


class Unchanged:
    """Arrays that a target may read; whole: the memory beside them and between their numbers is ours, too."""

    def __init__(self, arrays: tuple[Array, ...], whole: bool) -> None:
        self._arrays = arrays
        self._memory = [memory_of(x) if whole else None for x in arrays]
        self._before = [(x if m is None else m).tobytes() for x, m in zip(arrays, self._memory, strict=True)]
        self._views = [x[...] for x in arrays]  # a target may give an array another shape
        self.changed = 0

    def broken(self) -> str | None:
        """The law that is broken, if any; `changed` is then which of the arrays is another one."""
        parts = zip(self._arrays, self._views, self._memory, self._before, strict=True)
        for self.changed, (x, view, memory, was) in enumerate(parts):
            if (x if memory is None else memory).tobytes() != was:
                told = memory is not None and view.size and len(memory) <= SMALL
                return "within" if told and _numbers_of(view, was) == x.tobytes() else "inputs_unchanged"
        return None


def _numbers_of(x: Array, was: bytes) -> bytes:
    """The bytes of an array's numbers when those of all its memory were these."""
    memory = memory_of(x)
    assert memory is not None
    start = x.ctypes.data - memory.ctypes.data
    return np.ndarray(x.shape, x.dtype, was, start, x.strides).tobytes()


class Forms(NamedTuple):
    """Shapes and types of the arrays for a result; laid: makes of each one that lies otherwise in memory."""

    forms: Sequence[Form]
    laid: Callable[[Array], Array] | None = None


class Filled:
    """Arrays for a result, which a target fills: with unused memory about them, or a forbidden page.

    held: each byte of what they hold before it does.
    """

    def __init__(self, arrays: tuple[Array, ...], held: int) -> None:
        self.arrays, self.held = arrays, held
        self._about = [unused_about(x) for x in arrays]
        self._before = [about() for about in self._about]

    @classmethod
    def of(cls, forms: Iterable[Form] | Forms, edge: Edge | None, held: int = UNUSED) -> Filled:
        """Arrays of these shapes and types."""
        forms = forms if isinstance(forms, Forms) else Forms(list(forms))
        room = spaced if edge is None else edge.room
        found = []
        for shape, kind in forms.forms:
            array = room(math.prod(shape), kind)
            array.view(np.uint8)[...] = held
            array = array.reshape(shape)
            if forms.laid is not None:
                other = forms.laid(array)
                other[...] = array
                array = other
            found.append(array)
        return cls(tuple(found), held)

    @classmethod
    def by(cls, fill: Callable[[tuple[Array, ...]], Any], forms: Iterable[Form] | Forms,
           inputs: tuple[Array, ...], edge: Edge | None, held: int = UNUSED) -> Any:  # fmt: skip
        """What `fill` writes into arrays of these shapes and types, for inputs.

        Numbers that hold what they held before are asked again in memory of other bytes.  Raises Fault for
        those that are left as they were there, too, and for what is written beside the arrays.
        """
        forms = forms if isinstance(forms, Forms) else Forms(list(forms))
        first = cls.of(forms, edge, held)
        fill(first.arrays)
        if forms.laid is not None:  # numbers in gaps are missing elsewhere: the gaps say more
            first.expect_within(inputs)
        if any(left.any() for left in first.left()):
            second = cls.of(forms, edge, held ^ OTHERWISE)
            fill(second.arrays)
            first.expect_written(second, inputs)
        return first.result(inputs)

    def left(self) -> list[NDArray[np.bool_]]:
        """Which numbers of each array are what they were."""
        every = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in self.arrays)
        return [
            (part == self.held).reshape(-1, x.itemsize).all(axis=1)
            for part, x in zip(every, self.arrays, strict=True)
        ]

    def expect_written(self, other: Filled, inputs: tuple[Array, ...]) -> None:
        """Raises Fault for numbers that are as they were here, and in memory that held something else."""
        for number, (one, two) in enumerate(zip(self.left(), other.left(), strict=True), 1):
            unwritten = np.flatnonzero(one & two)
            if len(unwritten):
                shape = self.arrays[number - 1].shape
                at = tuple(int(i) for i in np.unravel_index(unwritten[0], shape))
                which = f" of array {number} of {len(self.arrays)}" if len(self.arrays) > 1 else ""
                came = f"{len(unwritten)} of {one.size} numbers left as they were, the first at {at}{which}"
                where = int(unwritten[0]) if shape == inputs[0].shape else 0
                raise Fault("written", inputs, came, "numbers that the target writes", where)

    def expect_within(self, inputs: tuple[Array, ...]) -> None:
        """Raises Fault where the target wrote beside the arrays, or into their gaps."""
        if [about() for about in self._about] != self._before:
            raise Fault("within", inputs, OUTSIDE, "the same bytes")

    def result(self, inputs: tuple[Array, ...]) -> Any:
        """What the target wrote; raises Fault where it wrote beside it."""
        self.expect_within(inputs)
        return self.arrays if len(self.arrays) > 1 else self.arrays[0]
