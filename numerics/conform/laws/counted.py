"""Every number of scales, zero points and blocks: the rest of a tile has its own, not its neighbour's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from numerics.conform.inputs import affine
from numerics.conform.inputs.counted import COUNTS, ROOM, counted, few, unlike
from numerics.conform.inputs.spread import spread
from numerics.conform.laws.questions import Question, question_of
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.tensor.scheme import Scheme

SCALES = (0.25, 3.7, 0.007874016, 1 / 3, 40.0, 2.0**-7, 1000.0)
"""So unlike that a number is another one under its neighbour's."""


def affine_questions(target: Target) -> Iterator[Question]:
    """Of 1 to 130 scales and zero points; of one again and again, each time another."""
    task, rng = target.task, np.random.default_rng(83)
    assert task.scheme is not None
    zeros = _zero_points(target)
    for turn, shape in enumerate(chain(counted(task.scheme), few(task.scheme))):
        places = spread(task.scheme, shape)
        count = math.prod(places.shared)
        scales = np.array(SCALES, np.float32)[unlike(count, len(SCALES), turn)]
        points = np.array(zeros, np.int32)[unlike(count, len(zeros), turn)]
        own, zero = (part[places.places] for part in (scales, points))
        x = affine.about(task.element, own, zero, rng)
        yield question_of(task, (x, scales.reshape(places.shared), points.reshape(places.shared)))


def _zero_points(target: Target) -> list[int]:
    d = target.task.element
    low, high = int(d.min), int(d.max)
    return sorted({low, high, (low + high) // 2, (low + 3 * high) // 4})


def orders(block: int, scales: Array, kept: Array) -> Iterator[Array]:
    """Which of some blocks stand in lines: 1 to 130 of them in one line, and one in each of as many.

    scales: the scale of each.  kept: which of them a target takes.
    No block has the scale of its neighbour.
    """
    _, first = np.unique(scales[kept], return_index=True)
    some = np.random.default_rng(89).permutation(kept[first])
    room = ROOM
    for count in COUNTS:
        room -= count * block
        if room >= 0 and len(some):
            order = some[unlike(count, len(some), 7 * count)]
            yield order[None]
            yield order[:, None]


def tensors(scheme: Scheme, standing: Callable[[tuple[int, ...], Array], Array]) -> Iterator[Array]:
    """Tensors for kernels that find their scales, of 1 to 130 of them; of one, each time another.

    standing: a tensor of a shape, in each of whose groups the largest number stands in such a place.
    """
    powers = np.ldexp(1.0, np.array([0, 5, -6, 3, -2, 9, -4]))
    for turn, shape in enumerate(chain(counted(scheme), few(scheme))):
        x = standing(shape, np.arange(max(1, math.prod(shape))) + turn)
        yield np.asarray(x * np.float32(powers[turn % 7]))
