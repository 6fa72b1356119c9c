"""Every place of an array is drawn: short loops at its end, and strides, may round in another way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.conform.inputs.shapes import steps_of
from numerics.conform.laws import chance
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.conform.verdict import numbers

CALLS = 192  # of each array: as many draws of each place
LENGTHS = (1, 7, 63, 1023, 1279, 4351)
"""All but one of what lanes, warps and blocks take at once: the most that they leave over, in 1023 all.

The longest ones leave over 255, so that of each shorter vector all but one, behind 1,024 and 4,096 numbers.
"""
SEVERAL = ((17, 31), (3, 5, 31))
"""Rows, and batches of them, of which one may draw what another drew."""
FEWEST = 15  # numbers of a row, or of a column, that are enough to tell two of them apart
MANY_TURNS = 64  # calls of one number, with a longer one after each
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
    yield from (np.resize(x, shape) for shape in SEVERAL)
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
    _expect_rows_apart(found, np.stack(every) - chance.fractions_of(target, x), x.shape)
    ups = np.sum(every, axis=0)
    found.tried += CALLS * x.size
    due = CALLS * chance.fractions_of(target, x)
    room = chance.allowed(CALLS, tests)
    wrong = np.argwhere(np.abs(ups - due) > room)
    if len(wrong) and not found.failures and x.size == 1:
        _of_one_number(target, found, x)
    if len(wrong) and not found.failures:
        at = tuple(int(place) for place in wrong[0])
        chance.fails(
            found, chance.mean, f"{ups[at]} of {CALLS} draws went away from zero",
            f"{due[at]:.0f}, {room:.0f} more or less", input=numbers(x[at].reshape(1)), differs=len(wrong),
            where=f"at {at} of an array of shape {x.shape}, strides {steps_of(x)}",
        )  # fmt: skip


def _expect_rows_apart(found: Findings, away: Array, shape: tuple[int, ...]) -> None:
    """Breaks `independent` where two rows of an array, or two columns, go one way in all calls together.

    away: of each call, what went away from zero less the probability that it does.
    """
    tests = sum(n * n for several in SEVERAL for n in several)
    for axis, n in enumerate(shape):
        lines = np.moveaxis(away, 1 + axis, 0).reshape(n, -1)
        if lines.shape[1] < FEWEST * len(away) or found.failures:
            continue
        together = np.triu(lines @ lines.T, 1)
        room = chance.allowed(lines.shape[1], chance.SHARES * tests)
        alike = np.argwhere(np.abs(together) > room)
        if len(alike):
            one, other = (int(at) for at in alike[0])
            came = (
                f"draws of {one} and of {other} along axis {axis}, of an array of shape {shape}, go one way"
            )
            due = f"0, {room:.0f} more or less, of {lines.shape[1]} pairs"
            told = f"{came}: a sum of products of {together[one, other]:.0f}"
            chance.fails(found, chance.independent, told, due, differs=len(alike))


def _of_one_number(target: Target, found: Findings, x: Array) -> None:
    """Breaks `independent` where calls of one number share a draw, which a call of many numbers changes."""
    many, came = np.resize(x, LENGTHS[-1]), set()
    for _ in range(MANY_TURNS):
        came.add(chance.went_up(target, x, alone=True).tobytes())
        chance.went_up(target, many, alone=True)
    if len(came) > 1:
        told = (
            f"{CALLS} calls of one number, one after the other, draw alike; with others between they do not"
        )
        chance.fails(found, chance.independent, told, "other draws in each", input=numbers(x.reshape(1)))
