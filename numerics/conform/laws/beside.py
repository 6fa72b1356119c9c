"""Two threads at once: what each is given back is what it would be given alone."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from threading import Barrier
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.laws.again import answers, questions, rolled
from numerics.conform.laws.findings import Findings, Trial, misplaced, repeatable
from numerics.conform.laws.law import sentence
from numerics.conform.laws.questions import Question, as_given, drawn_question, in_place
from numerics.conform.laws.stays import bytes_of
from numerics.conform.target import Fault, Target, arrays_of, check_same_form
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample

WORKQUEUE = "not called from two threads: Numba's layer 'workqueue' ends the process there"
SIZE = (1 << 13) + 13  # numbers of a call: long enough that the other thread is met within it
FEW = (67, 9, 517)  # of them in calls between: buffers may be of calls of a size
TAILS = (65, 66, 67, 79)  # of them in calls in which each number is the last
LONG = 100_003  # of calls within which a kernel of C, that lets other threads run, meets the other one
WHILE, MOST_LONG = 0.25, 500  # seconds for which these are called, and how often at most
SLOW = 0.005  # seconds of a call of SIZE numbers, from which on these are not longer
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
    plan = Plan(effort.rounds, tuple(question for n in TAILS for question in rolled(target, n)))
    for failure in (*_asked_at_once(target, every, plan), *_long(target, effort)):
        if failure is not None and not found.failures:
            asked_of = (one for one in (*chain(*every), *plan.tails) if one.inputs[0] is failure.tensor)
            found.failures.append(_in_a_thread(target, failure, next(asked_of, every[0][0])))


class Plan(NamedTuple):
    """What each thread asks: so many rounds of its own questions, and all of these once."""

    rounds: int
    tails: tuple[Question, ...]


def _long(target: Target, effort: Effort) -> Iterator[Counterexample | None]:
    """Long arrays, other ones in each thread, for a while: each result is that of a call alone."""
    rng = np.random.default_rng((37, effort.seed))
    size = LONG if _seconds(target, drawn_question(target, SIZE, rng)) < SLOW else SIZE
    cases = [in_place(target.task, drawn_question(target, size, rng).inputs) for _ in range(2)]
    every = [(case, arrays_of(target.called_once(*case), target.arrays_in(case))) for case in cases]
    until = perf_counter() + WHILE * max(1, effort.rounds // AS_EVER.rounds)
    yield from _at_once([partial(_again_and_again, target, *own, until) for own in every])


def _seconds(target: Target, question: Question) -> float:
    """How long a call takes."""
    case = in_place(target.task, question.inputs)
    start = perf_counter()
    target.called_once(*case)
    return perf_counter() - start


def _again_and_again(
    target: Target, case: tuple[Any, ...], before: list[Array], until: float, wait: Callable[[], int]
) -> Counterexample | None:
    """The first result that is another one than that of the call alone."""
    wait()
    for _ in range(MOST_LONG):
        try:
            with ieee_arithmetic():
                now = arrays_of(target.called_once(*case), target.arrays_in(case))
        except Fault as fault:
            return _of_fault(fault)
        for one, due in zip(now, before, strict=True):
            check_same_form(due, one, target.arrays_in(case))
            if one.tobytes() != due.tobytes():
                wrong = (bytes_of(one) != bytes_of(due)).any(axis=-1)
                return replace(misplaced(case[0], one, due, wrong, threads), given=tuple(case[1:]))
        if perf_counter() > until:
            return None
    return None


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
    target: Target, every: list[tuple[Question, ...]], plan: Plan
) -> Iterator[Counterexample | None]:
    """Each one's questions by a thread of its own."""
    yield from _at_once([partial(_rounds, target, own, plan) for own in every])


def _at_once(every: Sequence[Callable[..., Counterexample | None]]) -> Iterator[Counterexample | None]:
    """What each finds in a thread of its own, which sees the context of this one; it is given a barrier."""
    barrier = Barrier(len(every), timeout=60)
    contexts = [contextvars.copy_context() for _ in every]
    with switching(), ThreadPoolExecutor(len(every)) as pool:
        futures = [
            pool.submit(context.run, asks, barrier.wait)
            for context, asks in zip(contexts, every, strict=True)
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
    target: Target, own: tuple[Question, ...], plan: Plan, wait: Callable[[], int]
) -> Counterexample | None:
    """The first wrong answer, after which the thread still keeps step with the other."""
    home, first = home_of(target.function), None
    for turn in range(plan.rounds):
        for question in (own[0], own[1 + turn // 2 % len(FEW)]):
            wait()
            singly = turn % 4 == 3 and question is not own[0]
            with yielding(home, singly) if turn % 2 and home else nullcontext():
                first = first or _wrong(target, question)
    for question in plan.tails:
        first = first or _wrong(target, question)
    return first


@contextmanager
def yielding(home: str, singly: bool = False) -> Iterator[None]:
    """The other thread gets its turn at every line of this one that stands in the file `home`.

    singly: within a line, too, after each of the steps that Python takes.
    """
    before = sys.gettrace()

    def yields(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != home:
            return None
        frame.f_trace_opcodes = singly
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
        return _of_fault(fault)
    wrong = target.task.differs(one, other)
    return misplaced(question.inputs[0], one, other, wrong, threads) if wrong.any() else None


def _of_fault(fault: Fault) -> Counterexample:
    """What broke another law in a thread, as one of threads."""
    came = f"{fault.found.came}, while another thread called"
    return Counterexample(threads.__name__, sentence(threads), (), came, fault.found.due)
