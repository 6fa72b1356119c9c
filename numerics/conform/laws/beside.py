"""Two threads at once: what each is given back is what it would be given alone."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain, count
from threading import Barrier, Event
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.laws import laid
from numerics.conform.laws.again import answers, questions, rolled
from numerics.conform.laws.alone import DEPENDS
from numerics.conform.laws.company import as_of, layout, misplaced, repeatable
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.laws.law import sentence
from numerics.conform.laws.questions import Question, as_given, drawn_question, in_place
from numerics.conform.laws.stays import bytes_of
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.reading import arrays_of, check_same_form
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample

WORKQUEUE = "not called from two threads: Numba's layer 'workqueue' ends the process there"
SIZE = (1 << 13) + 13  # numbers of a call: long enough that the other thread is met within it
FEW = (67, 9, 517)  # of them in calls between: buffers may be of calls of a size
TAILS = (65, 66, 67, 79)  # of them in calls in which each number is the last
LONG = 100_003  # of calls within which a kernel of C, that lets other threads run, meets the other one
WHILE, MOST_LONG = 0.1, 500  # seconds for which these are called, and how often at most
SLOW = 0.005  # seconds of a call of SIZE numbers, from which on these are not longer
ASKED_ALONE = 3  # times, by one thread
ROUNDS, UNLIKE = 4, 2  # of arrays of every layout, and in which the threads have arrays of unlike forms
LEAST, SHARED = 64, 2  # numbers of arrays that both threads are given, and how many of these
PAUSE, PAUSES = 1e-4, 48  # seconds at each step of a target whose arrays another thread reads, and how often
SWITCH = 1e-6  # seconds after which Python gives the other thread its turn


def threads() -> None:
    """Two threads may call at once: neither sees the other (one_thread=True where none of it is claimed)."""


def trial(effort: Effort) -> Trial:
    """Calls from two threads, each with numbers of its own, in step."""
    return Trial((threads,), lambda target, found: _beside(target, found, effort))


class Met(NamedTuple):
    """What was wrong in a thread, and what asks it again, in the thread that calls it."""

    broken: Counterexample
    ask: Callable[[], Counterexample | None]


class Plan(NamedTuple):
    """What each thread asks: so many rounds of its own questions, and all of these once."""

    rounds: int
    tails: tuple[Question, ...]


class Known(NamedTuple):
    """What a target is given, as it lies, and what a call alone returned for it."""

    case: tuple[Any, ...]
    due: list[Array]

    @classmethod
    def of(cls, target: Target, case: tuple[Any, ...]) -> Known:
        """Asks the target now."""
        return cls(case, [x.copy() for x in arrays_of(target.called_once(*case), target.arrays_in(case))])


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
        broken = _wrong(target, question[0])  # what is made at a first call is made
        if broken is not None:
            found.failures.append(_of_one_thread(target, broken, lambda: _wrong(target, question[0])))  # noqa: B023
            return
        found.tried += effort.rounds * len(question[0].inputs[0])
    plan = Plan(effort.rounds, tuple(question for n in TAILS for question in rolled(target, n)))
    asked_at_once = (
        _asked_at_once(target, every, plan),
        _laid(target, effort),
        _shared(target),
        _long(target, effort),
    )
    for met in chain(*asked_at_once):
        if met is not None and not found.failures:
            found.failures.append(_in_a_thread(target, met))


def _laid(target: Target, effort: Effort) -> Iterator[Met | None]:
    """Arrays of every rank, size and layout, others in each thread: a result is that of a call alone."""
    every = [[Known.of(target, case) for case in laid.cases(target, turn)] for turn in range(2)]
    times = max(1, effort.rounds // AS_EVER.rounds)
    yield from _at_once([partial(_laid_rounds, target, own, (turn, times)) for turn, own in enumerate(every)])


def _laid_rounds(
    target: Target, own: list[Known], which: tuple[int, int], wait: Callable[[], int]
) -> Met | None:
    """Each of one's arrays beside the other thread's of the same form, then beside the next one.

    which: of the two threads, and how often each is asked.
    """
    home, first = home_of(target.function), None
    turn, times = which
    for round_ in range(ROUNDS * times):
        for at in range(len(own)):
            known = own[(at + turn * (round_ % ROUNDS == UNLIKE)) % len(own)]
            wait()
            with yielding(home, round_ % ROUNDS == ROUNDS - 1) if round_ % 2 and home else nullcontext():
                first = first or _otherwise(target, known)
    return first


def _shared(target: Target) -> Iterator[Met | None]:
    """The same arrays for two threads: one that writes into them, and restores them, spoils the other."""
    some = [case for case in laid.cases(target, 0) if LEAST <= np.size(case[0]) <= SIZE][:SHARED]
    with target.giving(shared={}):
        own = [(Known.of(target, case), Event()) for case in some]
        yield from _at_once([partial(_held_up, target, own), partial(_meanwhile, target, own)])


def _held_up(target: Target, own: list[tuple[Known, Event]], wait: Callable[[], int]) -> Met | None:
    """The first wrong answer of a thread that pauses at steps of the target; says when each has come."""
    home, first = home_of(target.function), None
    for known, done in own:
        wait()
        with yielding(home, True, PAUSE) if home else nullcontext():
            first = first or _otherwise(target, known)
        done.set()
    return first


def _meanwhile(target: Target, own: list[tuple[Known, Event]], wait: Callable[[], int]) -> Met | None:
    """The first wrong answer of one that calls again and again until the other's has come."""
    first = None
    for known, done in own:
        wait()
        while first is None and not done.is_set():
            first = _otherwise(target, known)
    return first


def _long(target: Target, effort: Effort) -> Iterator[Met | None]:
    """Long arrays, other ones in each thread, for a while: each result is that of a call alone."""
    rng = np.random.default_rng((37, effort.seed))
    size = LONG if _seconds(target, drawn_question(target, SIZE, rng)) < SLOW else SIZE
    cases = [in_place(target.task, drawn_question(target, size, rng).inputs) for _ in range(2)]
    every = [Known.of(target, case) for case in cases]
    until = perf_counter() + WHILE * max(1, effort.rounds // AS_EVER.rounds)
    yield from _at_once([partial(_again_and_again, target, own, until) for own in every])


def _seconds(target: Target, question: Question) -> float:
    """How long a call takes: the least of a few, as another program may have had its turn within one."""
    case, took = in_place(target.task, question.inputs), []
    for _ in range(ASKED_ALONE):
        start = perf_counter()
        target.called_once(*case)
        took.append(perf_counter() - start)
    return min(took)


def _again_and_again(target: Target, known: Known, until: float, wait: Callable[[], int]) -> Met | None:
    """The first result that is another one than that of the call alone."""
    wait()
    for _ in range(MOST_LONG):
        if (met := _otherwise(target, known)) is not None or perf_counter() > until:
            return met
    return None


def _otherwise(target: Target, known: Known) -> Met | None:
    """What is returned, asked now, that is another result than that of the call alone."""

    def ask() -> Counterexample | None:
        case, arrays = known.case, target.arrays_in(known.case)
        with ieee_arithmetic():
            now = arrays_of(target.called_once(*case), arrays)
        for one, due in zip(now, known.due, strict=True):
            check_same_form(due, one, arrays)
            if one.tobytes() != due.tobytes():
                wrong = (bytes_of(one) != bytes_of(due)).any(axis=-1)
                return replace(misplaced(case[0], one, due, wrong, threads), given=tuple(case[1:]))
        return None

    return _met(ask)


def _met(ask: Callable[[], Counterexample | None]) -> Met | None:
    try:
        broken = ask()
    except Fault as fault:
        broken = _of_fault(fault)
    return None if broken is None else Met(broken, ask)


def _in_a_thread(target: Target, met: Met) -> Counterexample:
    """The same, which says whether one thread that calls alone is wrong, too: not the one of before.

    Of another law, where the thread of before is wrong, now that nobody else calls.  Raises Fault where
    that thread is given no result, either.
    """
    if (again := met.ask()) is not None:
        return _of_one_thread(target, again, met.ask)
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        alone = [pool.submit(context.run, _met, met.ask).result() for _ in range(ASKED_ALONE)]
    said = (
        "while another thread called: alone each is right"
        if not any(alone)
        else "in a thread that calls alone, too: it depends on the thread"
    )
    return replace(met.broken, where="; ".join(part for part in (met.broken.where, said) if part))


def _of_one_thread(
    target: Target, broken: Counterexample, ask: Callable[[], Counterexample | None]
) -> Counterexample:
    """What is wrong in the thread of before, too: a law of places if it always is, else one of calls."""
    if all(ask() is not None for _ in range(ASKED_ALONE)):
        return as_of(broken, layout, "")
    return as_of(broken, repeatable, f"asked again it is right in some calls: it {DEPENDS}")


def aborts() -> bool:
    """Does Numba run its parallel loops by the layer that bears one caller?  Two end the process."""
    numba = sys.modules.get("numba")
    try:
        return numba is not None and numba.threading_layer() == "workqueue"
    except ValueError:  # nothing parallel has run
        return False


def _asked_at_once(target: Target, every: list[tuple[Question, ...]], plan: Plan) -> Iterator[Met | None]:
    """Each one's questions by a thread of its own."""
    yield from _at_once([partial(_rounds, target, own, plan) for own in every])


def _at_once(every: Sequence[Callable[..., Met | None]]) -> Iterator[Met | None]:
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


def _rounds(target: Target, own: tuple[Question, ...], plan: Plan, wait: Callable[[], int]) -> Met | None:
    """The first wrong answer, after which the thread still keeps step with the other."""
    home, first = home_of(target.function), None
    for turn in range(plan.rounds):
        for question in (own[0], own[1 + turn // 2 % len(FEW)]):
            wait()
            singly = turn % 4 == 3 and question is not own[0]
            with yielding(home, singly) if turn % 2 and home else nullcontext():
                first = first or _met(partial(_wrong, target, question))
    for question in plan.tails:
        first = first or _met(partial(_wrong, target, question))
    return first


@contextmanager
def yielding(home: str, singly: bool = False, pause: float = 0.0) -> Iterator[None]:
    """The other thread gets its turn at every line of this one that stands in the file `home`.

    singly: within a line, too, after each of the steps that Python takes.  pause: seconds of the first turns.
    """
    before, turns = sys.gettrace(), count()

    def yields(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != home:
            return None
        frame.f_trace_opcodes = singly
        if pause and next(turns) >= PAUSES:  # the other one has looked: the rest is done at once
            frame.f_trace_opcodes = False
            sys.settrace(None)
            return None
        sleep(pause)
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
    """What is wrong of a question, asked now.  Raises Fault where nothing comes that can be judged."""
    with ieee_arithmetic():
        one, other = answers(target, question)
    wrong = target.task.differs(one, other)
    if not wrong.any():
        return None
    return as_given(target.task, question, misplaced(question.inputs[0], one, other, wrong, threads))


def _of_fault(fault: Fault) -> Counterexample:
    """What broke another law in a thread, as one of threads."""
    came = f"{fault.found.came}, while another thread called"
    return Counterexample(threads.__name__, sentence(threads), (), came, fault.found.due)
