"""Deviation: what bends an exact kernel into a wrong one.  Several can be put on, one over the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np

from numerics.conform.inputs.rescale import values_at
from numerics.conform.task import Answer, Array, Fields, Float32, Task

Kernel = Callable[..., Answer]
"""(task, x, random bits or None) -> codes, Fields of rows, or float32 values.  x: float32 elements, float32
rows of blocks, or codes.  For integers with a scale: (task, x, scale, zero point) -> codes."""


class Stage(IntEnum):
    """Where a deviation sits: the later, the further outside."""

    CORE = 0  # other arithmetic
    INPUTS = 1  # other inputs
    CODES = 2  # other codes
    DECODED = 3  # other values of the codes
    VALUES = 4  # other values; for targets that return values
    OPTIONS = 5  # the same under other options


@dataclass(frozen=True)
class Deviation:
    """One bend of a kernel."""

    stage: Stage
    bend: Callable[[Kernel], Kernel]


def bent(exact: Kernel, deviations: Iterable[Deviation]) -> Kernel:
    """A kernel with all of these deviations.

    >>> from numerics.conform.deviations.elements import bare_zero, exact
    >>> from numerics.formats import fp4
    >>> wrong = bent(exact, [option(rounding="half_away"), after(bare_zero)])
    >>> wrong(Task.of(fp4), np.float32([-0.0, 0.25, -0.1]), None).tolist()
    [0, 1, 0]
    """
    kernel = exact
    for deviation in sorted(deviations, key=lambda deviation: deviation.stage):
        kernel = deviation.bend(kernel)
    return kernel


def option(**options: str) -> Deviation:
    """The kernel under other options."""
    return Deviation(
        Stage.OPTIONS,
        lambda first: lambda task, *inputs: first(replace(task, **options), *inputs),
    )


def instead(kernel: Kernel) -> Deviation:
    """Another kernel."""
    return Deviation(Stage.CORE, lambda first: kernel)


def before(change: Callable[[Task, Float32], Float32]) -> Deviation:
    """Other inputs."""
    return Deviation(
        Stage.INPUTS, lambda first: lambda task, x, *others: first(task, change(task, x), *others)
    )


def after(change: Callable[[Task, Float32, Array], Array]) -> Deviation:
    """Other codes: change(task, x, codes)."""

    def bend(first: Kernel) -> Kernel:
        def kernel(task: Task, x: Float32, *others: Any) -> Answer:
            found = first(task, x, *others)
            if isinstance(found, Fields):
                return found._replace(codes=change(task, x, found.codes))
            return change(task, x, found)

        return kernel

    return Deviation(Stage.CODES, bend)


def values_after(change: Callable[[Task, Float32, Float32], Float32]) -> Deviation:
    """Other values than those of the codes: change(task, x, values)."""
    return Deviation(
        Stage.VALUES,
        lambda first: lambda task, x, *others: change(task, x, as_values(task, first(task, x, *others))),
    )


def as_values(task: Task, answer: Answer) -> Float32:
    """Codes or Fields of rows as the values that they mean."""
    if isinstance(answer, Fields):
        return values_at(task, answer)
    return answer if answer.dtype.kind == "f" else task.values(answer)


def by_sign(negative: str, positive: str) -> Deviation:
    """One rounding below zero, another above."""

    def bend(first: Kernel) -> Kernel:
        def kernel(task: Task, x: Float32, *others: Any) -> Answer:
            low, high = (first(replace(task, rounding=name), x, *others) for name in (negative, positive))
            if isinstance(low, Fields) and isinstance(high, Fields):
                return high._replace(codes=np.where(np.signbit(x), low.codes, high.codes))
            return np.where(np.signbit(x), np.asarray(low), np.asarray(high))

        return kernel

    return Deviation(Stage.OPTIONS, bend)
