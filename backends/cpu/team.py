"""torch's own threads, where they are a team of OpenMP: kernels of the package run on them, too.

OpenMP keeps its threads awake for a while after each operation.  While a model runs, threads of our own
would have to be woken for every product, and would then share their CPUs with torch's, which wait there.

Whoever calls a team waits for all of it, also for a thread that another program keeps from its CPU, and
that had nothing to do any more.  So the time is taken of each wait, and after a long one a team rests.

A team is entered and left in one call of C, so no signal handler runs while another thread is in a kernel,
and what one raises comes before or after.

OpenMP gives each thread that calls it a set of threads, and ends the process where the system has none left
for one.  So few threads have a team, the main thread among them, and one at a time works with it.

Threads of OpenMP do not outlive a fork, and the child's torch would wait for those that its one thread
had: they end before.  A child has no team, as nobody knows whether torch's own operations left it threads.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any
from weakref import WeakSet

from llvmlite import ir

from numerics.backends.cpu import compiler, locks
from numerics.backends.cpu.lanes import F64, I64

HEAD = 5
"""Words before those of the calls: the number of the next call, the kernel, how many calls, the clock, and
the time when a thread first found no call left."""
LATE = 5e-4
"""Seconds that a team may keep its caller waiting, if they are more than the work took."""
SHARE = 10
"""A tenth of all time may go into such waits: each is owed for ten times as long as it took."""
GRACE = 0.1
"""Seconds that it may owe, a hundredth of a second of waits; while it owes more it rests."""

SEATS = 4
"""Threads that may have a team at a time, and the main thread."""

_Word = ctypes.c_int64
_SOFT = 1  # omp_pause_soft: threads end, settings stay


class _Token:
    """It stands for a call, or a thread, as long as that lasts."""


_seats: WeakSet[_Token] = WeakSet()
_own = threading.local()


class Team:
    """A team of OpenMP.  library: what has, or is linked with what has, its functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        data = ctypes.c_void_p
        kind = ctypes.CFUNCTYPE(None, data, data, ctypes.c_uint, ctypes.c_uint)
        self._parallel = kind(("GOMP_parallel", library))
        self._clock = ctypes.PYFUNCTYPE(ctypes.c_double)(("omp_get_wtime", library))
        self._pause = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(("omp_pause_resource_all", library))
        self._owes_until = 0.0
        self._working: WeakSet[_Token] = WeakSet()

    @property
    def rests(self) -> bool:
        """Did it keep its callers waiting too much of late?"""
        return self._owes_until > 0.0 and self._owes_until > self._clock() + GRACE

    @property
    def serves(self) -> bool:
        """May this thread have it now?"""
        return not self._working and not self.rests and self._seated()

    def _seated(self) -> bool:
        """Has this thread a seat, which it then keeps until it ends?  The main thread always gets one."""
        if not hasattr(_own, "seat"):
            if len(_seats) >= SEATS and threading.current_thread() is not threading.main_thread():
                return False
            _own.team, _own.seat = self, _Token()
            _seats.add(_own.seat)
        return True

    def end(self) -> None:
        """Ends the threads that this thread's calls left waiting; the next operation gets new ones."""
        self._pause(_SOFT)

    def run(self, kernel: Callable[..., None], calls: Sequence[tuple[int, ...]], count: int) -> None:
        """The calls of a kernel by so many threads; each takes the next, until none is left."""
        working = _Token()  # whatever a signal handler raises, and wherever, it goes with this frame
        self._working.add(working)
        try:
            self._run(kernel, calls, count)
        finally:
            self._working.discard(working)

    def _run(self, kernel: Callable[..., None], calls: Sequence[tuple[int, ...]], count: int) -> None:
        take, began = taking(len(calls[0])), self._clock()
        head = (0, _address(kernel), len(calls), _address(self._clock), 0)
        numbers = (*head, *(word for call in calls for word in call))
        data = (_Word * len(numbers))(*numbers)
        self._parallel(take, ctypes.addressof(data), count, 0)
        self._note(began, ctypes.c_double.from_buffer(data, 8 * (HEAD - 1)).value, self._clock())

    def _note(self, began: float, first: float, ended: float) -> None:
        """Counts how long it kept its caller waiting.  first: when a thread first found no call left."""
        late = ended - first
        if late > max(LATE, first - began):
            self._owes_until = max(self._owes_until, ended) + SHARE * late


_lost = False


def _before_fork() -> None:
    if hasattr(_own, "seat"):
        _own.team.end()


def _lose() -> None:
    global _lost
    _lost = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_lose)


def _core() -> Any:
    """torch's own library, once it is loaded; None before, or where something stands in for it.

    The module `torch` may be one that is imported when it is first asked for something.
    """
    found = sys.modules.get("torch._C")
    return found if isinstance(getattr(found, "get_num_threads", None), BuiltinFunctionType) else None


def size() -> int | None:
    """How many threads torch's operations use; None where nobody has imported it."""
    core = _core()
    return None if core is None else int(core.get_num_threads())


def of_torch() -> Team | None:
    """The team of torch's threads, if it serves this thread now; None where it has none of OpenMP."""
    core = _core()
    found = None if core is None or _lost else _team(str(core.__file__))
    return found if found is not None and found.serves else None


@lru_cache(maxsize=1)
def _team(core: str) -> Team | None:
    """That of OpenMP as the library of torch beside its core has it, which is loaded.

    The loader asks what all may see first (LD_PRELOAD), then what that library is linked with.
    """
    library = str(Path(core).parent / "lib" / "libtorch_cpu.so")
    try:
        linked = Team(ctypes.CDLL(library, mode=getattr(os, "RTLD_NOLOAD", 0)))
    except (OSError, AttributeError):  # another system, or threads of another kind
        return None
    with suppress(AttributeError):
        return Team(ctypes.CDLL(None))
    return linked


def _address(function: Any) -> int:
    """Where the machine code of a function of ctypes is."""
    return int(ctypes.c_void_p.from_buffer(function).value or 0)


_made: dict[int, compiler.Kernel] = {}


def taking(words: int) -> int:
    """The address of what each thread of a team does: calls of a kernel of so many integers."""
    if words not in _made:
        locks.give_way()
        with locks.LOCK:
            compiler.undisturbed(partial(_build, words))
    return _address(_made[words].run)


def _build(words: int) -> None:
    if words not in _made:
        _made[words] = compiler.build(name(words), 1, partial(_take, words=words))


def made() -> set[int]:
    """Of how many integers there are such by now."""
    return set(_made)


def name(words: int) -> str:
    """The name of what threads of a team do with kernels of so many integers."""
    return f"team_{words}"


def _take(builder: ir.IRBuilder, arguments: list[ir.Value], words: int) -> None:
    """Writes it: while the number that it draws is one of a call, it does that call.

    One thread draws the number after the last: it is the first that finds no call left.
    """

    def at(place: ir.Value, word: int) -> ir.Value:
        return builder.gep(place, [ir.Constant(I64, word)])

    def function(address: ir.Value, result: ir.Type, taken: list[ir.Type]) -> ir.Value:
        return builder.inttoptr(builder.load(address), ir.FunctionType(result, taken).as_pointer())

    data = builder.inttoptr(arguments[0], I64.as_pointer())
    kernel = function(at(data, 1), ir.VoidType(), [I64] * words)
    count, clock = builder.load(at(data, 2)), function(at(data, 3), F64, [])
    draw, do, none, first, done = (
        builder.append_basic_block(name) for name in ("draw", "do", "none", "first", "done")
    )
    builder.branch(draw)
    builder.position_at_end(draw)
    number = builder.atomic_rmw("add", data, ir.Constant(I64, 1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", number, count), do, none)
    builder.position_at_end(do)
    call = builder.gep(at(data, HEAD), [builder.mul(number, ir.Constant(I64, words))])
    builder.call(kernel, [builder.load(at(call, word)) for word in range(words)])
    builder.branch(draw)
    builder.position_at_end(none)
    builder.cbranch(builder.icmp_signed("==", number, count), first, done)
    builder.position_at_end(first)
    builder.store(builder.bitcast(builder.call(clock, []), I64), at(data, HEAD - 1))
    builder.branch(done)
    builder.position_at_end(done)
