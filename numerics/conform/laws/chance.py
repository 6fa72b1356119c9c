"""Kernels that draw for themselves, judged by statistics: a right one fails once in 10**9 checks.

The bound is Hoeffding's (1963): of n independent draws with mean f, the number that go up is further than t
from n * f with a probability of at most 2 * exp(-2 * t**2 / n).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from numerics.conform.effort import Effort
from numerics.conform.inputs.elements import values
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.inputs.random_bits import even_draws
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.laws.law import sentence
from numerics.conform.target import Target
from numerics.conform.task import Array, Float32
from numerics.conform.verdict import Counterexample, numbers

ERROR = 1e-9  # the probability that a right kernel fails a check
TIMES = 1 << 16  # that each number is asked; effort="high": 16 times as many
MOST = 1 << 20  # numbers of a call
LAGS = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""How far apart in memory two numbers lie that lanes, warps or blocks of threads may draw one bit for."""
NEAR = 2.0**-8
"""Of a step: what draws of 8 bits, the fewest of hardware, still tell from none; asked 2**16 times."""
CALLS, CALLED = 70, 16
"""Calls that are compared with each other, and how often each has each number."""


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
    repeated = Repeats(0, 0.0, 0)
    for start in range(0, times, MOST // len(x)):
        size = min(MOST // len(x), times - start)
        went = went_up(target, np.tile(x, (size, 1)))
        found.tried += went.size
        ups += went.sum(axis=0)
        for lag, pairs in beside.items():
            one, other = _apart(went, lag)
            of_one, of_other = _apart(np.broadcast_to(fractions, went.shape), lag)
            pairs.take(one, other, of_one * of_other)
        if before is None:
            repeated = _repeats(went, fractions)
        elif before.shape == went.shape:
            following.take(before, went, np.broadcast_to(fractions**2, went.shape))
        before = went
    every = [Drawn(*one, times) for one in zip(x.tolist(), fractions.tolist(), ups.tolist(), strict=True)]
    tests = 4 * (len(every) + len(LAGS) + 2)  # a quarter of the error; half is that of repeats
    _judge(found, every, tests)
    if not found.failures:
        _judge_rare(target, found, times)
    if not found.failures:
        _judge_pairs(found, [*beside.values(), following], tests)
        _judge_repeats(found, repeated)
        _judge_calls(target, found, x)


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


def went_up(target: Target, x: Float32, alone: bool = False) -> Array:
    """Which numbers went away from zero; alone: a target that is known to leave its input alone."""
    came = target.elements_alone(x) if alone else target.elements(x)
    meant = came if came.dtype.kind == "f" else target.task.values(came)
    return np.asarray(np.abs(meant) > np.abs(x))


def _judge(found: Findings, every: list[Drawn], tests: int) -> None:
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
    fails(found, mean, came, due, input=shown, differs=max(len(wrong), 1), where=where)


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


def _judge_pairs(found: Findings, every: list[Pairs], tests: int) -> None:
    """Whether both of a pair go up as often as two that draw for themselves; no pairs are no fault."""
    for pairs in every:
        room = allowed(pairs.asked, tests)
        if not found.failures and abs(pairs.both - pairs.due) > room:
            came = f"{pairs.both} of {pairs.asked} {pairs.name} both went away from zero"
            fails(found, independent, came, f"{pairs.due:.0f}, {room:.0f} more or less")


class Repeats(NamedTuple):
    """The least distance at which numbers of one call go one way, or that at which most do."""

    lag: int
    together: float
    asked: int


def _repeats(went: Array, fractions: Array) -> Repeats:
    """How alike numbers of one call are at every distance up to half of it, by Fourier's transform.

    The sum of (up - f) times that of the number so far behind: Azuma's bound (1967) is Hoeffding's, since
    what a number adds has a mean of 0, whatever went before it, and a range of at most 1.
    """
    away = (went - fractions).reshape(-1)
    size = 1 << (2 * away.size - 1).bit_length()
    alike = np.fft.irfft(np.abs(np.fft.rfft(away, size)) ** 2, size)[1 : away.size // 2 + 1]
    past = np.flatnonzero(np.abs(alike) > allowed(away.size, away.size))
    at = int(past[0]) if len(past) else int(np.abs(alike).argmax())
    return Repeats(at + 1, float(alike[at]), away.size)


def _judge_repeats(found: Findings, repeated: Repeats) -> None:
    """Whether numbers at any distance go one way: a generator of a short period, or threads of one seed."""
    room = allowed(repeated.asked, repeated.asked)
    if not found.failures and abs(repeated.together) > room:
        came = f"numbers {repeated.lag} apart that go one way: a sum of products of {repeated.together:.0f}"
        fails(found, independent, came, f"0, {room:.0f} more or less, of {repeated.asked} numbers")


def _judge_calls(target: Target, found: Findings, x: Float32) -> None:
    """Whether two of some calls give the same answers throughout: a seed that is used again."""
    calls = [went_up(target, np.tile(x, (CALLED, 1))).tobytes() for _ in range(CALLS)]
    if not found.failures and len(set(calls)) < len(calls):
        came = f"two of {CALLS} calls that gave the same answers"
        fails(found, independent, came, "other draws in each")


def fails(found: Findings, law: Callable[[], None], came: str, due: str, **more: Any) -> None:
    """Keeps a law that is broken; more: what else is said of the Counterexample."""
    broken = Counterexample(law.__name__, sentence(law), came=came, due=due, **{"input": (), **more})
    found.differs += broken.differs
    found.failures.append(broken)
