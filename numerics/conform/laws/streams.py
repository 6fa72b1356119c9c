"""Kernels that draw for themselves: no draw is used twice, in one call, in two, or by two threads.

Which numbers went away from zero, less the probability that they do, is a stream; two streams, or one and
itself, are laid over each other at every distance. The sum of the products is compared with Azuma's bound
(1967), which is Hoeffding's here: what a pair adds has a mean of 0, whatever went before it, and a range of
at most 1. Each trial takes its share of the error of laws/chance.py.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from threading import Barrier

import numpy as np

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.conform.effort import Effort
from numerics.conform.inputs.shapes import steps_of
from numerics.conform.laws import chance
from numerics.conform.laws.beside import WORKQUEUE, aborts, home_of, switching, threads, yielding
from numerics.conform.laws.chance import Pairs, independent
from numerics.conform.laws.findings import Findings, Trial, misplaced
from numerics.conform.laws.law import sentence
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Float32
from numerics.conform.verdict import Counterexample
from numerics.conform.verdict import numbers as shown

Ask = Callable[[Target, Findings, Float32], None]
CALLS = {1: 1024, 7: 512, 63: 1024, 511: 128, 2047: 64}
"""How often arrays of a length are asked: lengths that leave most of a vector, warp, block or tile over."""
SHORT, AGAIN = range(33, 65), 384
"""Short lengths, of every remainder of 32, and how often each is asked: any two numbers may share a draw."""
SHAPES = ((301, 211), (24, 41, 65), (5, 6, 40, 51))
TWO, TURNS = (961, 1013), 24  # lengths that are asked in turn, and how often
FAR = tuple(1 << k for k in range(19, 22))
"""How far apart numbers lie in one long array, of more than a grid of a million."""
LONG = (1 << 22) + 1001
SIZE, ROUNDS = 1021, 32  # numbers of a thread's call, and its calls


def trial(effort: Effort) -> Trial:
    """Calls of one length, arrays of several axes, two lengths in turn; unless quick, one long array."""
    every = (_short, _calls, _shapes, _in_turn, *(_far,) * (effort.name != "quick"))
    return Trial((independent,), lambda target, found: _judge(target, found, every))


def trial_of_threads() -> Trial:
    """The first thread, two others one after the other, and two at once."""
    return Trial((threads, independent), _threads)


def _judge(target: Target, found: Findings, every: tuple[Ask, ...]) -> None:
    x = chance.middling(target)
    for ask in every if len(x) else ():
        if not found.failures:
            ask(target, found, x)


def _away(target: Target, x: Float32, fractions: Array) -> Array:
    """Which numbers went away from zero, less the probability that they do."""
    return chance.went_up(target, x, alone=True) - fractions


# ---- one thread ------------------------------------------------------------------------------------


def _calls(target: Target, found: Findings, numbers: Float32) -> None:
    """Calls of one length, one after the other: a counter that advances too little, or comes back."""
    tests = sum(size * calls for size, calls in CALLS.items())
    for size, calls in CALLS.items():
        x = np.resize(numbers, size)
        fractions = chance.fractions_of(target, x)
        every = [_away(target, x, fractions) for _ in range(calls)]
        found.tried += size * calls
        chance.expect_apart(found, every)
        told = chance.alike(np.concatenate(every), None, tests)
        of = f"draws of {calls} calls of {size} numbers, one after the other"
        chance.expect_chance(found, told, of, size * calls)


def _short(target: Target, found: Findings, numbers: Float32) -> None:
    """Two numbers of a short array, at its end above all, that go one way in all calls together.

    All numbers are the one that goes either way most evenly, by which two that share a draw are told best.
    """
    near = np.abs(chance.fractions_of(target, numbers) - 0.5)
    tests = sum(size * size for size in SHORT)
    room = chance.allowed(AGAIN, chance.SHARES * tests)
    for size in SHORT:
        x = np.full(size, numbers[near.argmin()], np.float32)
        fractions = chance.fractions_of(target, x)
        every = np.stack([_away(target, x, fractions) for _ in range(AGAIN)])
        found.tried += every.size
        together = np.triu(every.T @ every, 1)
        shared = np.argwhere(np.abs(together) > room)
        if len(shared):
            one, other = (int(at) for at in shared[-1])
            way = "one way" if together[one, other] > 0 else "two ways"
            told = f"a sum of products of {together[one, other]:.0f}"
            came = f"numbers {one} and {other} of {size} go {way}: {told}"
            due = f"0, {room:.0f} more or less, of {AGAIN} calls"
            chance.fails(found, independent, came, due, input=shown(x[:1]), differs=len(shared))
            return


def _shapes(target: Target, found: Findings, numbers: Float32) -> None:
    """Arrays of several axes, each call for itself, along the first axis and along the last."""
    arrays = list(_arrays(target, numbers))
    tests = 2 * sum(x.size for x in arrays)
    for x in arrays:
        went = _away(target, x, chance.fractions_of(target, x))
        found.tried += x.size
        for flat in (went.reshape(-1), went.T.reshape(-1)):
            of = f"draws of an array of shape {x.shape}, strides {steps_of(x)}"
            chance.expect_chance(found, chance.alike(flat, None, tests), of, x.size)


def _arrays(target: Target, x: Float32) -> Iterator[Float32]:
    if target.takes.contiguous:
        return
    for shape in SHAPES:
        yield np.resize(x, shape)
        yield np.resize(x, shape[::-1]).T
    rows, columns = SHAPES[0]
    yield np.resize(x, (rows, 2 * columns))[:, ::2]
    if target.takes.backward:
        yield np.resize(x, (rows, columns))[::-1]


def _in_turn(target: Target, found: Findings, numbers: Float32) -> None:
    """Two lengths, in turn: a generator for each shape, all of one seed."""
    arrays = [np.resize(numbers, size) for size in TWO]
    fractions = [chance.fractions_of(target, x) for x in arrays]
    every: list[list[Array]] = [[], []]
    for turn in range(2 * TURNS):
        which = turn % 2
        every[which].append(_away(target, arrays[which], fractions[which]))
    one, other = (np.concatenate(part) for part in every)
    found.tried += len(one) + len(other)
    of = f"draws of calls of {TWO[0]} and of {TWO[1]} numbers"
    chance.expect_chance(found, chance.alike(one, other, len(one) + len(other)), of, len(one))


def _far(target: Target, found: Findings, numbers: Float32) -> None:
    """One long array, of which numbers lie apart as blocks of threads, and grids of them, do."""
    x = np.resize(numbers, LONG)
    fractions = np.resize(chance.fractions_of(target, numbers), LONG)
    went = chance.went_up(target, x, alone=True)
    found.tried += x.size
    for lag in FAR:
        pairs = Pairs(f"numbers {lag} apart")
        pairs.take(went[lag:], went[:-lag], fractions[lag:] * fractions[:-lag])
        chance.judge_pairs(found, [pairs], chance.SHARES * len(FAR))


# ---- two threads -----------------------------------------------------------------------------------


@dataclass
class Caller:
    """One who calls again and again: what it is called, the numbers that it gives, what comes back."""

    name: str
    x: Float32
    fractions: Array
    beside: tuple[Array, Array]
    away: list[Array] = field(default_factory=list)
    broken: Counterexample | None = None

    @classmethod
    def of(cls, name: str, target: Target, x: Float32) -> Caller:
        """Who gives x."""
        return cls(name, x, chance.fractions_of(target, x), chance.either(target.task, x))

    def call(self, target: Target) -> None:
        """Calls once more; keeps the first answer that is neither of the two values beside a number."""
        try:
            with ieee_arithmetic():
                came = target.elements(self.x)
        except Fault as fault:
            said = f"{fault.found.came}, in {self.name}"
            told = Counterexample(threads.__name__, sentence(threads), (), said, fault.found.due)
            self.broken = self.broken or told
            return
        low, high = self.beside
        wrong = target.task.differs(came, low) & target.task.differs(came, high)
        if wrong.any() and self.broken is None:
            told = misplaced(self.x, came, low, wrong, threads)
            self.broken = replace(told, due=f"{told.due}, or the next", where=f"{told.where}, in {self.name}")
        self.away.append(chance.has_risen(target, self.x, came) - self.fractions)

    def alone(self, target: Target) -> None:
        """All its calls, one after the other."""
        for _ in range(ROUNDS):
            self.call(target)

    def in_step(self, target: Target, barrier: Barrier) -> None:
        """All its calls, each when the others call; at every second one they take turns at every line."""
        home = home_of(target.function)
        for turn in range(ROUNDS):
            barrier.wait()
            with yielding(home) if turn % 2 and home else nullcontext():
                self.call(target)


def _threads(target: Target, found: Findings) -> None:
    numbers = chance.middling(target)
    if aborts() or not len(numbers):
        found.notes += [WORKQUEUE] * aborts()
        return
    x = np.resize(numbers, SIZE)
    names = (
        "the first thread",
        "a second thread",
        "a third one",
        "one of two at once",
        "the other of two at once",
    )
    callers = [Caller.of(name, target, np.roll(x, place * SIZE // 5)) for place, name in enumerate(names)]
    callers[0].alone(target)
    for caller in callers[1:3]:
        _in_threads([lambda caller=caller: caller.alone(target)])  # type: ignore[misc]
    barrier = Barrier(2, timeout=60)
    with switching():
        _in_threads([lambda caller=caller: caller.in_step(target, barrier) for caller in callers[3:]])  # type: ignore[misc]
    found.tried += ROUNDS * SIZE * len(callers)
    broken = next((caller.broken for caller in callers if caller.broken is not None), None)
    if broken is not None:
        found.failures.append(broken)
        return
    _judge_threads(found, callers)


def _in_threads(calls: Sequence[Callable[[], None]]) -> None:
    """Each by a new thread, which sees the context of this one."""
    contexts = [contextvars.copy_context() for _ in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(context.run, call) for context, call in zip(contexts, calls, strict=True)]:
            future.result()


def _judge_threads(found: Findings, callers: list[Caller]) -> None:
    """Whether as many go away from zero in each thread as in another, and no two draw the same."""
    every = [np.concatenate(caller.away) for caller in callers]
    pairs = list(combinations(range(len(callers)), 2))
    tests = len(callers) + 2 * len(pairs) * ROUNDS * SIZE
    for caller, away in zip(callers, every, strict=True):
        room = chance.allowed(away.size, chance.SHARES * tests)
        if abs(away.sum()) > room and not found.failures:
            came = f"{away.sum():+.0f} more draws than are due went away from zero in {caller.name}"
            chance.fails(found, threads, came, f"0, {room:.0f} more or less, of {away.size} draws")
    for one, other in pairs:
        told = chance.alike(every[one], every[other], tests)
        of = f"draws of {callers[one].name} and of {callers[other].name}"
        chance.expect_chance(found, told, of, every[one].size)
