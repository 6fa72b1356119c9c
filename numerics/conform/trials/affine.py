"""Trials of integers with a scale and a zero point."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from numerics.conform.deviations.search import nearest_affine
from numerics.conform.inputs import affine, shapes
from numerics.conform.laws import AFFINE_LAWS, Scaled
from numerics.conform.target import Target
from numerics.conform.task import Array, Task
from numerics.conform.trials.findings import Findings, Trial, layout, misplaced

ORDER = [law.__name__ for law in AFFINE_LAWS]


def trials() -> Iterator[Trial]:
    """Scales and zero points, and the same numbers in other shapes."""
    yield Trial(AFFINE_LAWS, _scaled)
    yield Trial((layout,), _layouts)


def _scaled(target: Target, found: Findings) -> None:
    """At each scale and zero point the integers, their middles, the clamps."""
    task = target.task
    every = [_observe(target, *given) for given in affine.scales_and_zero_points(task.element)]
    found.tried += sum(len(seen.x) for seen in every)
    for seen in every:
        already = {failure.law for failure in found.failures}
        found.judge([law for law in AFFINE_LAWS if law.__name__ not in already], seen)
    found.failures.sort(key=lambda broken: ORDER.index(broken.law))
    if found.failures:
        found.explain = lambda: nearest_affine(every)


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


def _layouts(target: Target, found: Findings) -> None:
    """Tries the same numbers in other shapes and strides, at two scales and zero points in turn."""
    task = target.task
    numbers = shapes.SINGLES
    given = [(0.5, 0), (float(np.float32(0.1)), int(task.element.max) // 2 + 1)]
    for turn, x in enumerate(shapes.shaped(numbers, target.takes)):
        scale, zero_point = given[turn % 2]
        shortest = task.affine_codes(numbers, scale, zero_point)
        due = shortest[shapes.places(len(numbers), x, numbers)]
        came = target.affine(x, scale, zero_point)
        if came.dtype.kind == "f":
            due = task.affine_values(due.reshape(-1), scale, zero_point).reshape(x.shape)
        found.tried += x.size
        wrong = task.differs(came, due)
        if wrong.any():
            found.failures.append(misplaced(x, came, due, wrong))
            return
