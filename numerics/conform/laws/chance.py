"""Kernels that draw for themselves, judged by statistics: a right one fails once in 10**9 checks.

The bound is Hoeffding's (1963): of n independent draws with mean f, the number that go up is further than t
from n * f with a probability of at most 2 * exp(-2 * t**2 / n).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from numerics.conform.effort import Effort
from numerics.conform.inputs.elements import values
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.inputs.random_bits import even_draws
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.laws.law import sentence
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Float32, Task
from numerics.conform.verdict import Counterexample, numbers

ERROR = 1e-9  # the probability that a right kernel fails a check
SHARES = 10
"""The parts of it: of the numbers and their pairs, of places, of their rows, of what comes again within
a call and in the next, and six of laws/streams.py."""
TIMES = 1 << 16  # that each number is asked; effort="high": 16 times as many
MOST = 1 << 20  # numbers of a call
LAGS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""How far apart in memory two numbers lie that lanes, warps or blocks of threads may draw one bit for."""
NEAR = 2.0**-8
"""Of a step: what draws of 8 bits, the fewest of hardware, still tell from none; asked 2**16 times."""
APART = 1 << 11  # calls of one number
STREAMS = 2  # calls of which every distance is looked at
TOLD_APART = 63  # numbers, whose answers no two calls share by chance
MIDDLE = 0.3  # of a step: numbers at least so far from both neighbours


def mean() -> None:
    """Of many draws as many go up as the place between the neighbours says; one false alarm in 10**9."""


def independent() -> None:
    """Numbers beside each other, and calls one after the other, draw bits of their own."""


LAWS = (mean, independent)


@dataclass(frozen=True)
class Drawn:
    """How often a number went up: x between low and high, asked n times."""

    x: float
    fraction: float
    up: int
    asked: int

    def excess(self) -> float:
        """How far the count is from its mean, as a part of what chance allows; wrong past 1."""
        return abs(self.up - self.asked * self.fraction)


def allowed(asked: int, tests: int) -> float:
    """How far a count may be from its mean: Hoeffding's t for this number of tests.

    >>> round(allowed(1 << 14, 100))
    462
    """
    return math.sqrt(asked * math.log(2 * tests / ERROR) / 2)


def trial(effort: Effort) -> Trial:
    """Numbers between two values of the format, each asked many times."""
    return Trial(
        LAWS, lambda target, found: _chance(target, found, TIMES * (16 if effort.drawn > MOST else 1))
    )


@dataclass
class Pairs:
    """How often both numbers of a pair went up, and how often two that draw for themselves do."""

    name: str
    both: int = 0
    due: float = 0.0
    asked: int = 0

    def take(self, one: Array, other: Array, due: Array) -> None:
        """Some pairs: which went up, and the probability that both do."""
        self.both += int((one & other).sum())
        self.due += float(due.sum())
        self.asked += one.size


def _chance(target: Target, found: Findings, times: int) -> None:
    x = between(target)
    if not len(x):
        return
    fractions = fractions_of(target, x)
    ups = np.zeros(len(x), np.int64)
    beside = {lag: Pairs(f"numbers {lag} apart") for lag in LAGS}
    before, following = None, Pairs("answers of two calls")
    streams: list[Array] = []
    for start in range(0, times, MOST // len(x)):
        size = min(MOST // len(x), times - start)
        went = went_up(target, np.tile(x, (size, 1)))
        found.tried += went.size
        ups += went.sum(axis=0)
        for lag, pairs in beside.items():
            one, other = _apart(went, lag)
            of_one, of_other = _apart(np.broadcast_to(fractions, went.shape), lag)
            pairs.take(one, other, of_one * of_other)
        if len(streams) < STREAMS:
            streams.append((went - fractions).reshape(-1))
        if before is not None and before.shape == went.shape:
            following.take(before, went, np.broadcast_to(fractions**2, went.shape))
        before = went
    every = [Drawn(*one, times) for one in zip(x.tolist(), fractions.tolist(), ups.tolist(), strict=True)]
    tests = SHARES * (len(every) + len(LAGS) + 2)
    _judge(target, found, every, tests)
    if found.failures and found.failures[0].law == mean.__name__:
        _come_again(found, streams[0], ups / times - fractions)
    if not found.failures:
        _judge_rare(target, found, times)
    if not found.failures:
        judge_pairs(found, [*beside.values(), following], tests)
        _judge_streams(found, *streams)


def _come_again(found: Findings, stream: Array, off: Array) -> None:
    """Breaks `independent` instead, where the draws of a call come again: a period has no mean of its own.

    off: how far the share of each number that went up is from its due, which its draws may repeat or not.
    """
    told = Findings()
    own = stream - np.resize(off, stream.size)
    expect_chance(told, alike(own, None, 3 * own.size), "draws of one call", own.size)
    if told.failures:
        found.failures[:] = told.failures


def _judge_streams(found: Findings, first: Array, second: Array | None = None) -> None:
    """Whether numbers of one call, or of it and the next, go one way at any distance."""
    tests = 3 * first.size
    expect_chance(found, alike(first, None, tests), "draws of one call", first.size)
    if second is not None:
        expect_chance(found, alike(first, second, tests), "draws of a call and of the next", first.size)


def between(target: Target) -> Float32:
    """Numbers of the target's inputs between two values of the format; none where each number is a value."""
    x = np.unique(narrowed(even_draws(target.task.element)[0], target.task.inputs))
    held = values(target.task.element)
    return np.asarray(x[~np.isin(x, held) & (x > held[0]) & (x < held[-1])], np.float32)


def _apart(x: Array, lag: int) -> tuple[Array, Array]:
    """Pairs of numbers that lie so far apart in memory; each number in one pair."""
    flat = x.reshape(-1)
    pairs = flat[: flat.size // (2 * lag) * 2 * lag].reshape(-1, 2, lag)
    return pairs[:, 0], pairs[:, 1]


def fractions_of(target: Target, x: Float32) -> Array:
    """Where each number lies between its neighbours, counted from the one nearer to zero."""
    held = values(target.task.element)
    place = np.searchsorted(held, x)
    low, high = held[place - 1], held[place]
    fraction = (x.astype(np.float64) - low) / (high - low)
    return np.where(high <= 0, 1 - fraction, fraction)


def middling(target: Target) -> Float32:
    """Those of `between` in the middle of a step: of few draws none and all are told from their share."""
    x = between(target)
    fractions = fractions_of(target, x)
    return np.asarray(x[(fractions > MIDDLE) & (fractions < 1 - MIDDLE)])


def either(task: Task, x: Array) -> tuple[Array, Array]:
    """The two answers that a number may have: where it is a value, one."""
    low, high = (np.asarray(replace(task, rounding=way).answer(x)) for way in ("floor", "ceil"))
    return low, high


def went_up(target: Target, x: Float32, alone: bool = False) -> Array:
    """Which numbers went away from zero; alone: a target that is known to leave its input alone."""
    return has_risen(target, x, target.elements_alone(x) if alone else target.elements(x))


def has_risen(target: Target, x: Float32, came: Array) -> Array:
    """The same of an answer."""
    meant = came if came.dtype.kind == "f" else target.task.values(came)
    return np.asarray(np.abs(meant) > np.abs(x))


def _judge(target: Target, found: Findings, every: list[Drawn], tests: int) -> None:
    """Each number for itself, and all of them together."""
    whole = Drawn(0.0, sum(d.fraction for d in every) / len(every), sum(d.up for d in every),
                  sum(d.asked for d in every))  # fmt: skip
    wrong = [d for d in every if d.excess() > allowed(d.asked, tests)]
    if not wrong and whole.excess() <= allowed(whole.asked, tests):
        return
    worst = max(wrong, key=Drawn.excess) if wrong else whole
    shown = numbers(np.array([worst.x], np.float32)) if wrong else ()
    where = "" if wrong else f"{len(every)} numbers together"
    due = f"{worst.asked * worst.fraction:.0f}, {allowed(worst.asked, tests):.0f} more or less"
    came = f"{worst.up} of {worst.asked} draws went away from zero"
    law = mean
    if wrong and (alone := _is_due_alone(target, worst)):
        law, came = independent, f"{came}, of arrays; {alone}"
    fails(found, law, came, due, input=shown, differs=max(len(wrong), 1), where=where)


def _is_due_alone(target: Target, drawn: Drawn) -> str:
    """How often a number goes away from zero in calls of its own, where that is its share; else nothing.

    Numbers of one call that share draws go as far from their mean as a kernel that does not draw.
    """
    x, room = np.array([drawn.x], np.float32), allowed(APART, 1)
    if abs(drawn.up / drawn.asked - drawn.fraction) * APART < 2 * room:
        return ""
    ups = sum(int(went_up(target, x)[0]) for _ in range(APART))
    return f"alone, {ups} of {APART}" if abs(ups - APART * drawn.fraction) <= room else ""


def _judge_rare(target: Target, found: Findings, times: int) -> None:
    """Numbers so near to one neighbour that few draws leave it: some do, of exact draws."""
    x = _rare(target)
    if not len(x):
        return
    went = went_up(target, np.tile(x, (times, 1)))
    found.tried += went.size
    fractions, ups = fractions_of(target, x), went.sum(axis=0)
    wrong = np.flatnonzero(np.where(fractions < 0.5, ups == 0, ups == times))
    if len(wrong):
        at = wrong[0]
        came = f"{ups[at]} of {times} draws went away from zero"
        due = f"{times * fractions[at]:.0f}, and neither none nor all"
        fails(found, mean, came, due, input=numbers(x[at : at + 1]), differs=len(wrong))


def _rare(target: Target) -> Float32:
    """Numbers `NEAR` of a step away from either neighbour, where the target's inputs hold them."""
    held = values(target.task.element)
    zero = np.searchsorted(held, 0.0)
    places = np.unique([*np.linspace(0, len(held) - 2, 5).astype(np.int64), max(zero - 1, 0), zero])
    low, width = held[places], np.diff(held)[places]
    wide = (low[:, None] + width[:, None] * np.array([NEAR, 1 - NEAR])).reshape(-1)
    x = wide.astype(np.float32)
    return np.unique(x[(x == wide) & (narrowed(x, target.task.inputs) == wide)])


def judge_pairs(found: Findings, every: list[Pairs], tests: int) -> None:
    """Whether both of a pair go up as often as two that draw for themselves; no pairs are no fault."""
    for pairs in every:
        room = allowed(pairs.asked, tests)
        if not found.failures and abs(pairs.both - pairs.due) > room:
            came = f"{pairs.both} of {pairs.asked} {pairs.name} both went away from zero"
            fails(found, independent, came, f"{pairs.due:.0f}, {room:.0f} more or less")


@dataclass(frozen=True)
class Alike:
    """How alike two streams are at the distance where they are most, and what chance allows."""

    distance: int
    together: float
    room: float

    @property
    def is_chance(self) -> bool:
        """Is it no more than chance allows?"""
        return abs(self.together) <= self.room


def alike(one: Array, other: Array | None, tests: int) -> Alike:
    """One stream behind another at every distance, or, where there is no other, behind itself.

    tests: how many distances are looked at in all, of a share of the error.

    >>> stream = np.random.default_rng(0).integers(0, 2, 5000) - 0.5
    >>> found = alike(stream[7:], stream[:-7], 10000)
    >>> found.distance, found.is_chance, alike(stream, None, 5000).is_chance
    (7, False, True)
    """
    itself = other is None
    other = one if other is None else other
    size = 1 << (len(one) + len(other) - 1).bit_length()
    first = np.fft.rfft(one, size)
    sums = np.fft.irfft(first.conj() * (first if itself else np.fft.rfft(other, size)), size)
    if itself:
        sums = sums[1 : len(one)]
    room = allowed(min(len(one), len(other)), SHARES * tests)
    if not len(sums):
        return Alike(0, 0.0, room)
    at = int(np.abs(sums).argmax())
    return Alike(at + 1 if itself else (at if at < len(other) else at - size), float(sums[at]), room)


def expect_chance(found: Findings, told: Alike, of: str, numbers: int) -> None:
    """Breaks `independent` where two streams are more alike than chance allows; of: what they are."""
    if not told.is_chance and not found.failures:
        way = "one way" if told.together > 0 else "two ways"
        apart = f"{abs(told.distance)} apart" if told.distance else "place by place"
        came = f"{of}, {apart}, go {way}: a sum of products of {told.together:.0f}"
        due = f"0, {told.room:.0f} more or less, of {numbers} numbers"
        fails(found, independent, came, due)


def expect_apart(found: Findings, every: list[Array]) -> None:
    """Breaks `independent` where two calls of one array gave the same answers throughout."""
    size = every[0].size
    if size >= TOLD_APART and not found.failures and len({one.tobytes() for one in every}) < len(every):
        came = f"two of {len(every)} calls of {size} numbers that gave the same answers"
        fails(found, independent, came, "other draws in each")


def fails(found: Findings, law: Callable[[], None], came: str, due: str, **more: Any) -> None:
    """Keeps a law that is broken; more: what else is said of the Counterexample."""
    broken = Counterexample(law.__name__, sentence(law), came=came, due=due, **{"input": (), **more})
    found.differs += broken.differs
    found.failures.append(broken)
