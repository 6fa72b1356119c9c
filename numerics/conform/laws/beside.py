"""Two threads at once: what each is given back is what it would be given alone."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from threading import Barrier
from time import sleep
from typing import Any

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.conform.effort import Effort
from numerics.conform.laws.again import answers, questions
from numerics.conform.laws.findings import Findings, Trial, misplaced, repeatable
from numerics.conform.laws.law import sentence
from numerics.conform.laws.questions import Question, as_given
from numerics.conform.target import Fault, Target
from numerics.conform.verdict import Counterexample

WORKQUEUE = "not called from two threads: Numba's layer 'workqueue' ends the process there"
SIZE = 1 << 13  # numbers of a call: long enough that the other thread is met within it
FEW = (64, 8, 512)  # of them in calls between: buffers may be of calls of a size
ASKED_ALONE = 3  # times, by one thread
SWITCH = 1e-6  # seconds after which Python gives the other thread its turn


def threads() -> None:
    """Two threads may call at once: neither sees the other (one_thread=True where none of it is claimed)."""


def trial(effort: Effort) -> Trial:
    """Calls from two threads, each with numbers of its own, in step."""
    return Trial((threads,), lambda target, found: _beside(target, found, effort))


def _beside(target: Target, found: Findings, effort: Effort) -> None:
    if aborts():
        found.notes.append(WORKQUEUE)
        return
    sizes = (SIZE, *FEW)
    asked = (
        list(questions(target, 3, effort.seed, size))[::2] for size in sizes
    )  # of affine, two share numbers
    every = list(zip(*asked, strict=True))
    for question in every:
        one, other = answers(target, question[0])  # what is made at a first call is made
        wrong = target.task.differs(one, other)
        if wrong.any():
            broken = misplaced(question[0].inputs[0], one, other, wrong, repeatable)
            found.failures.append(as_given(target.task, question[0], broken))
            return
        found.tried += effort.rounds * len(question[0].inputs[0])
    for failure in _asked_at_once(target, every, effort.rounds):
        if failure is not None and not found.failures:
            found.failures.append(_in_a_thread(target, failure, every[0][0]))


def _in_a_thread(target: Target, broken: Counterexample, question: Question) -> Counterexample:
    """The same, which says whether one thread that calls alone is wrong, too: not the one of before."""
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        alone = [pool.submit(context.run, _wrong, target, question).result() for _ in range(ASKED_ALONE)]
    said = (
        "while another thread called: alone each is right"
        if not any(alone)
        else "in a thread that calls alone, too: it depends on the thread"
    )
    return replace(broken, where="; ".join(part for part in (broken.where, said) if part))


def aborts() -> bool:
    """Does Numba run its parallel loops by the layer that bears one caller?  Two end the process."""
    numba = sys.modules.get("numba")
    try:
        return numba is not None and numba.threading_layer() == "workqueue"
    except ValueError:  # nothing parallel has run
        return False


def _asked_at_once(
    target: Target, every: list[tuple[Question, ...]], rounds: int
) -> Iterator[Counterexample | None]:
    """Each one's questions by a thread of its own, which sees the context of this one."""
    barrier = Barrier(len(every), timeout=60)
    contexts = [contextvars.copy_context() for _ in every]
    with switching(), ThreadPoolExecutor(len(every)) as pool:
        futures = [
            pool.submit(context.run, _rounds, target, own, rounds, barrier.wait)
            for context, own in zip(contexts, every, strict=True)
        ]
        yield from [future.result() for future in futures]


@contextmanager
def switching() -> Iterator[None]:
    """Threads of Python take turns more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _rounds(
    target: Target, own: tuple[Question, ...], rounds: int, wait: Callable[[], int]
) -> Counterexample | None:
    """The first wrong answer, after which the thread still keeps step with the other."""
    home, first = home_of(target.function), None
    for turn in range(rounds):
        for question in (own[0], own[1 + turn // 2 % len(FEW)]):
            wait()
            with yielding(home) if turn % 2 and home else nullcontext():
                first = first or _wrong(target, question)
    return first


@contextmanager
def yielding(home: str) -> Iterator[None]:
    """The other thread gets its turn at every line of this one that stands in the file `home`."""
    before = sys.gettrace()

    def yields(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != home:
            return None
        sleep(0)
        return yields

    sys.settrace(yields)
    try:
        yield
    finally:
        sys.settrace(before)


def home_of(function: Any) -> str | None:
    """The file in which a target is written; None where it is not Python."""
    function = getattr(function, "func", function)  # of functools.partial
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return None if code is None else str(code.co_filename)


def _wrong(target: Target, question: Question) -> Counterexample | None:
    try:
        with ieee_arithmetic():
            one, other = answers(target, question)
    except Fault as fault:
        came = f"{fault.found.came}, while another thread called"
        return Counterexample(threads.__name__, sentence(threads), (), came, fault.found.due)
    wrong = target.task.differs(one, other)
    return misplaced(question.inputs[0], one, other, wrong, threads) if wrong.any() else None
