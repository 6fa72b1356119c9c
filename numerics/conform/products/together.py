"""Two threads ask products at once: what each is given back is what it would be given alone."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from threading import Barrier

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.conform.laws.beside import home_of, switching, threads, yielding
from numerics.conform.laws.law import sentence
from numerics.conform.products.asking import ProductTarget, Seen
from numerics.conform.target import Fault

LARGEST = 1 << 17  # terms of a product: long enough that the other thread is met within it
ASKED = 4  # products in turn
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
    contexts = [contextvars.copy_context() for _ in every]
    with switching(), ThreadPoolExecutor(len(every)) as pool:
        futures = [
            pool.submit(context.run, _rounds, target, one, rounds, barrier.wait)
            for context, one in zip(contexts, every, strict=True)
        ]
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
