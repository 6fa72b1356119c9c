"""torch's own threads, where they are a team of OpenMP: kernels of the package run on them, too.

OpenMP keeps its threads awake for a while after each operation.  While a model runs, threads of our own
would have to be woken for every product, and would then share their CPUs with torch's, which wait there.

Whoever calls a team waits for all of it, also for a thread that another program keeps from its CPU, and
that had nothing to do any more.  So the time is taken of each wait, and after a long one a team rests.

A team is entered and left in one call of C, so no signal handler runs while another thread is in a kernel,
and what one raises comes before or after.  Threads of OpenMP do not outlive a fork: a child has none.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from llvmlite import ir

from numerics.backends.cpu import compiler, locks
from numerics.backends.cpu.lanes import F64, I64

HEAD = 5
"""Words before those of the calls: the number of the next call, the kernel, how many calls, the clock, and
the time when a thread first found no call left."""
LATE = 5e-4
"""Seconds that a team may keep its caller waiting, if they are more than the work took."""
REST = 50
"""Times as long as it kept its caller waiting it is then left alone: so such waits are 2 % of all time."""

_Word = ctypes.c_int64


class Team:
    """A team of OpenMP.  library: what has, or is linked with what has, its functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        data = ctypes.c_void_p
        kind = ctypes.CFUNCTYPE(None, data, data, ctypes.c_uint, ctypes.c_uint)
        self._parallel = kind(("GOMP_parallel", library))
        self._clock = ctypes.PYFUNCTYPE(ctypes.c_double)(("omp_get_wtime", library))
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """Did it keep a caller waiting of late?"""
        return self._rests_until > 0.0 and self._clock() < self._rests_until

    def run(self, kernel: Callable[..., None], calls: Sequence[tuple[int, ...]], count: int) -> None:
        """The calls of a kernel by so many threads; each takes the next, until none is left."""
        take, began = _taking(len(calls[0])), self._clock()
        head = (0, _address(kernel), len(calls), _address(self._clock), 0)
        numbers = (*head, *(word for call in calls for word in call))
        data = (_Word * len(numbers))(*numbers)
        self._parallel(take, ctypes.addressof(data), count, 0)
        self._note(began, ctypes.c_double.from_buffer(data, 8 * (HEAD - 1)).value, self._clock())

    def _note(self, began: float, first: float, ended: float) -> None:
        """Lets it rest where it kept its caller waiting.  first: when a thread first found no call left."""
        late = ended - first
        if late > max(LATE, first - began):
            self._rests_until = ended + REST * late


_lost = False


def _lose() -> None:
    global _lost
    _lost = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose)


def size() -> int | None:
    """How many threads torch's operations use; None where nobody has imported it."""
    asked = getattr(sys.modules.get("torch"), "get_num_threads", None)
    return None if asked is None else asked()


def of_torch() -> Team | None:
    """The team of torch's threads, unless it rests; None where it has none of OpenMP."""
    torch = sys.modules.get("torch")
    found = None if torch is None or _lost else _team(str(torch.__file__))
    return None if found is None or found.rests else found


@lru_cache(maxsize=1)
def _team(torch: str) -> Team | None:
    """That of the library of OpenMP which torch's own library is linked with."""
    try:
        return Team(ctypes.CDLL(str(Path(torch).parent / "lib" / "libtorch_cpu.so")))
    except (OSError, AttributeError):  # another system, or threads of another kind
        return None


def _address(function: Any) -> int:
    """Where the machine code of a function of ctypes is."""
    return int(ctypes.c_void_p.from_buffer(function).value or 0)


_made: list[compiler.Kernel] = []  # whose code lives as long as these


@lru_cache(maxsize=64)
def _taking(words: int) -> int:
    """The address of what each thread of a team does: calls of a kernel of so many integers."""
    locks.give_way()
    with locks.LOCK:
        emit = partial(_take, words=words)
        made = compiler.undisturbed(partial(compiler.build, f"team_{words}", 1, emit))
    _made.append(made)
    return _address(made.run)


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
