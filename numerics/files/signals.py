"""Signals that end a process, turned into an exception, so that what was begun is put away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ASKED = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGBREAK")  # by people, terminals and schedulers
_OTHERS = ("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGUSR1", "SIGUSR2", "SIGIO", "SIGPWR", "SIGSTKFLT")


@contextmanager
def terminable() -> Iterator[None]:
    """A signal that would end the process becomes SystemExit inside, so that contexts clean up.

    Only in the main thread, and only signals that nobody else handles or ignores; the first one counts.
    SIGKILL and faults cannot be caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    closing = False

    def end(number: int, frame: object) -> None:
        came.append(number)
        if len(came) == 1 and not closing:
            raise SystemExit(128 + number)

    free = _unhandled()
    try:
        for number in free:
            signal.signal(number, end)
        yield
    finally:
        closing, before = True, len(came)
        for number in free:
            signal.signal(number, signal.SIG_DFL)
        if not before and came:
            raise SystemExit(128 + came[0])


def _unhandled() -> list[signal.Signals]:
    """Returns the signals that would end the process now; what C code handles, Python does not know of."""
    taken = _handled_in_c()
    names = [*_ASKED, *(name for name in _OTHERS if taken is not None)]
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [
        number
        for number in numbers
        if signal.getsignal(number) is signal.SIG_DFL and not (taken or 0) >> (number - 1) & 1
    ]


def _handled_in_c() -> int | None:
    """Signals with a handler of any kind, a bit each, as Linux has it; None elsewhere."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("SigCgt:")[2].split(None, 1)[0], 16)
    except (OSError, ValueError, IndexError):
        return None
