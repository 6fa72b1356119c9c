"""The other process of a judged target: what `python -c` runs there (process.py)."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from faulthandler import dump_traceback_later
from importlib import import_module
from itertools import chain
from pathlib import Path
from threading import TIMEOUT_MAX, Lock, Thread, get_ident
from time import monotonic, perf_counter
from typing import Any, BinaryIO
from weakref import finalize

from numerics.backends.temporary import within
from numerics.conform.checking import Check, asked
from numerics.conform.inputs.edges import EDGES, Edge, can_guard
from numerics.conform.isolation.calls import THREADS, Calls
from numerics.conform.isolation.cases import layouts, length, recorded, restored, size_of, smaller
from numerics.conform.isolation.first import First, first_of, is_right
from numerics.conform.isolation.messages import ANSWER, ASKED, CALLS, GIVEN, Again, Answer, Asked, sent
from numerics.conform.products.trial import ProductCheck
from numerics.conform.targets.faults import Case, Fault
from numerics.conform.targets.judged import Witness
from numerics.formats.errors import NumericsError

GUARDED = 1 << 20
"""Bytes of a case, at most, that is given again beside forbidden memory."""
LATE = 10.0  # seconds after the time in which the judge would have ended this process
OFTEN = 1.0  # seconds after which that time is counted anew, where calls go on


def judge() -> None:
    """Judges, writes the answer, and notes before each call what is given."""
    folder = _room()

    def answer(check: Check | ProductCheck) -> Any:
        check.target.witness = Noting(folder, _goes_on)
        found = check.verdict()
        return sent(found, first_of(check.target, found.failures[0]) if found.failures else None)

    calls = Calls(folder / CALLS)
    calls.begin(0, 0)  # to import the target is the first that may hang
    _answer(folder, answer, calls.clear)


def imports() -> None:
    """Imports the target's module, whatever it raises; the answer says that this process lives on."""
    folder = _room()
    wanted = _wanted(folder)
    Calls(folder / CALLS).begin(0, 0)
    with suppress(BaseException):
        import_module(wanted.target.partition(":")[0])
    _write(folder, Answer(None))


def again() -> None:
    """Gives a target what it was given in another process, or less and less of it; notes which."""
    folder = _room()

    def answer(check: Check | ProductCheck) -> None:
        wanted: Again = pickle.loads((folder / GIVEN).read_bytes())
        case = restored(wanted.case)
        calls = Calls(folder / CALLS)
        task = check.target.task if isinstance(check, Check) else check.target.claim
        for number, one in enumerate(chain(smaller(task, case) if wanted.smaller else (), [case])):
            calls.begin(0, number)
            start = perf_counter()
            with suppress(Fault):  # it came back, whatever with
                check.target.once(one, wanted.edge)
            calls.end(0, perf_counter() - start)

    _answer(folder, answer)


def first() -> None:
    """Asks a target what another process got wrong; writes whether it is right now."""
    folder = _room()
    wanted: First = pickle.loads((folder / GIVEN).read_bytes())
    _answer(folder, lambda check: is_right(check.target, wanted))


class Noting(Witness):
    """Writes down what each thread's call is given; has each layout given again beside forbidden memory.

    goes_on: told now and then that calls go on.
    """

    def __init__(self, folder: Path, goes_on: Callable[[], None] | None = None) -> None:
        self.seen: set[Any] = set()
        self._goes_on = goes_on
        self._folder, self._calls, self._lock = folder, Calls(folder / CALLS), Lock()
        self._threads: dict[int, int] = {}
        self._files: dict[int, BinaryIO] = {}
        self._start = [0.0] * THREADS
        self._number, self._counted = 0, monotonic()

    def _thread(self) -> int:
        with self._lock:
            return self._threads.setdefault(get_ident(), len(self._threads) % THREADS)

    def _file(self, thread: int) -> BinaryIO:
        """Where a thread's calls are noted, one over the other: what is left behind a pickle is not read."""
        if thread not in self._files:
            self._files[thread] = file = open(self._folder / f"{GIVEN}.{thread}", "wb")  # noqa: SIM115
            finalize(self, file.close)
        return self._files[thread]

    def _next(self) -> int:
        """The number of a call, which no other has."""
        with self._lock:
            self._number += 1
            if self._goes_on is not None and (now := monotonic()) - self._counted > OFTEN:
                self._counted = now
                self._goes_on()
            return self._number

    def before(self, case: Case, edge: Edge | None) -> None:
        """Writes it down."""
        thread = self._thread()
        file, noted = self._file(thread), pickle.dumps(Again(recorded(case), edge))
        for part in (b"\0" + noted[1:], noted[:1]):  # no pickle, until all of it is there
            file.seek(0)
            file.write(part)
            file.flush()
        number = self._next()
        self._start[thread] = perf_counter()
        self._calls.begin(thread, number)

    def after(self) -> None:
        """Notes that it came back."""
        thread = self._thread()
        self._calls.end(thread, perf_counter() - self._start[thread])

    def edges(self, case: Case) -> tuple[Edge, ...]:
        """Behind it where nothing was laid like this before, before it where no line was as long."""
        if not can_guard() or size_of(case) > GUARDED:
            return ()
        keys = layouts(case), {length(case)}
        found = tuple(edge for edge, some in zip(EDGES, keys, strict=True) if some - self.seen)
        self.seen.update(*keys)
        return found


def _room() -> Path:
    """The folder that is shared with the judge; from now on this process ends with that one."""
    folder = Path(sys.argv[1])
    within(folder)
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    Thread(target=_leave, args=(pipe, folder), daemon=True).start()
    _goes_on()
    return folder


_nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives


def _goes_on() -> None:
    """Ends this process where it goes on no more, also where the target lets no thread of Python run."""
    seconds = float(sys.argv[2]) + LATE
    dump_traceback_later(min(seconds, TIMEOUT_MAX - 1), exit=True, file=_nowhere)


def _leave(pipe: int, folder: Path) -> None:
    """Waits until the judge is gone, whatever ended it; then clears up, and ends all that it started."""
    while os.read(pipe, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _answer(
    folder: Path, ask: Callable[[Check | ProductCheck], Any], imported: Callable[[], None] | None = None
) -> None:
    """Writes what is found about the target, or why it cannot be judged; imported: called once it is."""
    wanted = _wanted(folder)
    try:
        check = asked(wanted.target, **wanted.options)
        if imported is not None:
            imported()
        found: Answer = Answer(ask(check))
    except NumericsError as wrong:
        found = Answer(None, str(wrong))
    _write(folder, found)


def _wanted(folder: Path) -> Asked:
    """What is asked of this process; modules are found from now on where that process finds them."""
    wanted: Asked = pickle.loads((folder / ASKED).read_bytes())
    sys.path[:] = ["", *wanted.paths]
    return wanted


def _write(folder: Path, found: Answer) -> None:
    """Writes the answer, whole or not at all."""
    half = folder / f"{ANSWER}.half"
    half.write_bytes(pickle.dumps(found))
    os.replace(half, folder / ANSWER)
