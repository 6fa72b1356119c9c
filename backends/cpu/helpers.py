"""Threads that help a call, and a gate that keeps the caller until they are out of it.

A kernel knows addresses, not arrays: nobody may go and free an array, or be told that a call has
ended, while another thread is inside a kernel.  A signal handler may raise in the caller between any
two of its bytecodes (Ctrl-C does), so what keeps it is one call of C, which no handler interrupts, in
a `finally`.  Handlers run on the main thread only: a helper never leaves early.

Helpers take what is left of a job, the caller too: a helper that comes late, or never (no thread to
be had, an interpreter that ends, a forked child), costs time and nothing else.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from queue import SimpleQueue
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")
Call = tuple[Any, ...]

STACK = 8 << 20  # bytes: what a compiler may want of a thread's stack
WAITING = 256  # jobs that helpers have not looked at: so far behind they are of no help


def _native(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of the interpreter's own locks; ctypes lets go of the interpreter while it waits."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_allocate = _native("PyThread_allocate_lock", ctypes.c_void_p)
_acquire = _native("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_release = _native("PyThread_release_lock", None, ctypes.c_void_p)
_free = _native("PyThread_free_lock", None, ctypes.c_void_p)


class Gate:
    """Where one helper goes in and out, until the caller closes it: for good, once the helper is out."""

    def __init__(self) -> None:
        self.lock = _allocate()
        if not self.lock:
            raise MemoryError

    def enter(self) -> bool:
        """Goes in, unless it is closed."""
        return bool(_acquire(self.lock, 0))

    def leave(self, release: Callable[..., Any] = _release) -> None:
        """Goes out."""
        release(self.lock)

    def __del__(self, acquire: Any = _acquire, release: Any = _release, free: Any = _free) -> None:
        lock = getattr(self, "lock", None)
        if lock:
            acquire(lock, 0)  # nobody is left who could hold it but the caller who closed it
            release(lock)
            free(lock)


def closing(gates: Sequence[Gate]) -> Callable[[], object]:
    """What closes the gates when it is called, in one call of C: no bytecode runs in between."""
    return partial(all, map(_acquire, [gate.lock for gate in gates], repeat(1)))


class Job:
    """Calls of a function that several threads take from one list.

    keep: what lies at the addresses that the calls name; it lives as long as somebody may use them.
    """

    def __init__(
        self, function: Callable[..., object], calls: Sequence[Call], keep: object, helpers: int
    ) -> None:
        self.function, self.keep = function, keep
        self.calls = deque(calls)
        self.gates = [Gate() for _ in range(helpers)]
        self.raised: list[BaseException] = []

    def take(self) -> None:
        """Does calls until none is left."""
        while self.calls:
            try:
                call = self.calls.popleft()
            except IndexError:  # another thread took it
                return
            self.function(*call)

    def help(self, gate: Gate) -> None:
        """Runs the work on a helper's thread, if the caller still waits."""
        if gate.enter():
            try:
                self.take()
            except BaseException as wrong:
                self.raised.append(wrong)
            finally:
                gate.leave()


class Helpers:
    """Threads of our own, so that torch's and Numba's counts stay as they are; started when asked for."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Job, Gate]] = SimpleQueue()
        self._lock = threading.Lock()
        self.count = 0

    def ask(self, job: Job) -> None:
        """Tells as many as the job has gates, or as there are."""
        if self.count < len(job.gates):
            self._start(len(job.gates))
        if self._jobs.qsize() < WAITING:
            for gate in job.gates[: self.count]:
                self._jobs.put((job, gate))

    def _start(self, wanted: int) -> None:
        with self._lock:
            while self.count < wanted:
                try:
                    _thread.start_new_thread(_serve, (self._jobs,))
                except (RuntimeError, MemoryError):  # no thread to be had, now or any more
                    return
                self.count += 1


def _serve(jobs: SimpleQueue[tuple[Job, Gate]]) -> None:
    while True:
        job, gate = jobs.get()
        job.help(gate)
        del job, gate  # while it waits it keeps nothing


_pool = Helpers()
_open: WeakSet[Job] = WeakSet()
"""Jobs whose callers have not left: one that a signal handler left behind goes with its caller."""


def _forget() -> None:
    global _pool
    _pool = Helpers()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def started() -> int:
    """How many helpers there are."""
    return _pool.count


def sharing() -> bool:
    """Are helpers at work, or asked for?"""
    return bool(_open)


def share(function: Callable[..., object], calls: Sequence[Call], keep: object, helpers: int) -> None:
    """The calls by this thread and so many helpers; none is running afterwards.

    What a signal handler raises meanwhile comes out when the calls that had begun have ended.
    """
    job = Job(function, calls, keep, helpers)
    close = closing(job.gates)
    try:
        try:
            _open.add(job)
            _pool.ask(job)
            job.take()
        finally:
            job.calls.clear()  # nobody begins another
    finally:
        close()
        _open.discard(job)
        del job.function, job.keep  # a helper may look at the job much later
    if job.raised:
        raise job.raised[0]


class _Aside(Generic[T]):
    """A function on its way to a thread of its own, and what came of it."""

    result: T
    raised: BaseException | None = None

    def __init__(self, function: Callable[[], T]) -> None:
        self.function, self.gate, self.done = function, Gate(), Gate()
        self.done.enter()  # whoever waits comes in when the function has ended

    def run(self) -> None:
        if self.gate.enter():
            try:
                self.result = self.function()
            except BaseException as wrong:
                self.raised = wrong
            finally:
                self.gate.leave()
                self.done.leave()


def aside(function: Callable[[], T]) -> T:
    """function() on a thread of its own, where no signal handler runs: what it begins, it ends.

    On this thread where there is none to be had, or only one with a small stack.
    """
    if 0 < _thread.stack_size() < STACK:
        return function()
    it = _Aside(function)
    wait, close = closing([it.done]), closing([it.gate])
    try:
        try:
            _thread.start_new_thread(it.run, ())
        except (RuntimeError, MemoryError):
            return function()
        wait()
    finally:
        close()
    if it.raised:
        raise it.raised
    return it.result
