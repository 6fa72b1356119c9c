"""Every place of an array is drawn: short loops at its end, and strides, may round in another way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.conform.laws import chance
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.target import Target
from numerics.conform.task import Array
from numerics.conform.verdict import numbers

CALLS = 192  # of each array: as many draws of each place
LENGTHS = (1, 7, 63, 1023)
"""All but one of what lanes, warps and blocks take at once: the most that they leave over, in 1023 all."""
STRIDED = 31  # numbers of a line with strides


def trial() -> Trial:
    """Arrays of a few shapes, each asked many times."""
    return Trial((chance.mean, chance.independent), _places)


def _places(target: Target, found: Findings) -> None:
    x = chance.middling(target)
    every = list(_arrays(x, target)) if len(x) else []
    tests = chance.SHARES * sum(array.size for array in every)
    for array in every:
        if not found.failures:
            _count(target, found, array, tests)


def _arrays(x: Array, target: Target) -> Iterator[Array]:
    yield from (np.resize(x, length) for length in LENGTHS)
    if target.takes.contiguous:
        return
    yield np.resize(x, ())
    yield np.resize(x, 2 * STRIDED)[::2]
    yield np.resize(x, (5, 9)).T
    yield np.resize(x, (3, STRIDED + 1))[:, :STRIDED]
    if target.takes.backward:
        yield np.resize(x, STRIDED)[::-1]


def _count(target: Target, found: Findings, x: Array, tests: int) -> None:
    """How often the number of each place goes away from zero.

    Where some calls draw as others did, and not all do, few draws of a place are no sample of its share.
    """
    every = [chance.went_up(target, x, alone=call > 0) for call in range(CALLS)]
    if any((one != every[0]).any() for one in every):
        chance.expect_apart(found, every)
    ups = np.sum(every, axis=0)
    found.tried += CALLS * x.size
    due = CALLS * chance.fractions_of(target, x)
    room = chance.allowed(CALLS, tests)
    wrong = np.argwhere(np.abs(ups - due) > room)
    if len(wrong) and not found.failures:
        at = tuple(int(place) for place in wrong[0])
        steps = tuple(stride // x.itemsize for stride in x.strides)
        chance.fails(
            found, chance.mean, f"{ups[at]} of {CALLS} draws went away from zero",
            f"{due[at]:.0f}, {room:.0f} more or less", input=numbers(x[at].reshape(1)), differs=len(wrong),
            where=f"at {at} of an array of shape {x.shape}, strides {steps}",
        )  # fmt: skip
