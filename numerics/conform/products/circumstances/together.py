"""Two threads ask products at once: what each is given back is what it would be given alone."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import Barrier
from time import perf_counter

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.conform.laws.beside import home_of, switching, threads, yielding
from numerics.conform.laws.law import sentence
from numerics.conform.products.asking import ProductTarget, Seen
from numerics.conform.targets.faults import Fault

LARGEST = 1 << 17  # terms of a product: long enough that the other thread is met within it
MEDIUM, TILE = 1 << 23, 32  # terms, and rows and columns, of one that takes about as long as a turn
ASKED = 4  # products in turn
FEWEST, SECONDS = 8, 0.2  # steps of a medium product, and for how long there are more of them
PATIENCE = 60  # seconds that a thread waits for the other


def at_once(target: ProductTarget, seen: Sequence[Seen], rounds: int) -> Seen | None:
    """The first wrong result of two threads in step, one of which is given what the other is, in reverse.

    seen: products that are right alone, the largest first.  Raises Fault for what is no result.
    """
    own = [one for one in seen if _terms(one) <= LARGEST][:ASKED]
    if not own:
        return None
    every = (own, [one.turned_around() for one in own])
    barrier = Barrier(len(every), timeout=PATIENCE)
    with switching():
        return _first_of([partial(_rounds, target, one, rounds, barrier.wait) for one in every])


def at_once_of_itself(target: ProductTarget, seen: Sequence[Seen]) -> Seen | None:
    """The same of one product, so large that its threads meet in C, where Python does not turn to the other.

    As where both operands are copied to a buffer, and multiplied, in one line of Python.
    """
    known = [one for one in seen if LARGEST < _terms(one) <= MEDIUM and min(one.problem.matrix) >= TILE]
    if not known:
        return None
    own = max(known, key=lambda one: one.problem.b.codes.size)
    steps = Steps(2)
    return _first_of([partial(_while_steps, target, one, steps) for one in (own, own.turned_around())])


class Steps:
    """Steps of threads that end together: after a while, and a few of them."""

    def __init__(self, threads: int) -> None:
        self.count, self.goes_on, self.started = 0, True, perf_counter()
        self.barrier = Barrier(threads, action=self._one_more, timeout=PATIENCE)

    def _one_more(self) -> None:
        self.count += 1
        self.goes_on = self.count <= FEWEST or perf_counter() < self.started + SECONDS

    def next(self) -> bool:
        """Waits for the other threads; is there a step more?"""
        self.barrier.wait()
        return self.goes_on


def _while_steps(target: ProductTarget, own: Seen, steps: Steps) -> Seen | Fault | None:
    first = None
    while steps.next():
        first = first or _wrong(target, own)
    return first


def _first_of(asked: Sequence[Callable[[], Seen | Fault | None]]) -> Seen | None:
    """The first wrong result of threads, one of which asks each; raises Fault for what is no result."""
    contexts = [contextvars.copy_context() for _ in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(context.run, ask) for context, ask in zip(contexts, asked, strict=True)]
        found = [future.result() for future in futures]
    for one in found:
        if isinstance(one, Fault):
            raise _while_another(one)
    return next((one for one in found if isinstance(one, Seen)), None)


def _terms(one: Seen) -> int:
    m, n, k = one.problem.shape
    return m * n * k


def _rounds(
    target: ProductTarget, own: Sequence[Seen], rounds: int, wait: Callable[[], int]
) -> Seen | Fault | None:
    """What is wrong first, after which the thread still keeps step with the other."""
    home, first = home_of(target.function), None
    for turn in range(rounds):
        wait()
        with yielding(home) if turn % 2 and home else nullcontext():
            first = first or _wrong(target, own[turn // 2 % len(own)])
    return first


def _wrong(target: ProductTarget, asked: Seen) -> Seen | Fault | None:
    try:
        with ieee_arithmetic():
            found = target.again(asked)
    except Fault as fault:
        return fault
    return found if found.wrong.any() else None


def _while_another(fault: Fault) -> Fault:
    """The same, of the law of threads."""
    came = f"{fault.found.came}, while another thread called"
    fault.found = replace(fault.found, law=threads.__name__, sentence=sentence(threads), came=came)
    fault.law = threads.__name__
    return fault
