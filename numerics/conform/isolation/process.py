"""A process that lives no longer than this one, and a folder that neither leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from numerics.conform import watching
from numerics.conform.isolation.calls import UNDER_WAY, Calls, Progress
from numerics.conform.isolation.messages import ANSWER
from numerics.files.signals import terminable

POLL = 0.05  # seconds between two looks
STILL = 600.0  # seconds without a call, at most: the judge's own work between two of them takes less
LEAVING = 5.0  # seconds in which a process ends that has answered; a thread of the target may keep it
NAME = "numerics-judged-"
BEFORE = ", before a verdict"


Patience = Callable[[int], float]
"""Seconds that a call of a number may take."""


class Hangs(Exception):
    """A process did not come to its end in time; its text says how long that was."""


@contextmanager
def room() -> Iterator[Path]:
    """A folder, gone afterwards: also where a signal ends this process; of SIGKILL the child sees to it."""
    with terminable(), tempfile.TemporaryDirectory(prefix=NAME, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Limits(NamedTuple):
    """How long a process may take.

    still: seconds in which no call begins or comes back, and none is under way; call: seconds of a single
    one, by its number; whole: seconds of them all together.
    """

    still: float
    call: Patience | None = None
    whole: float = inf


def run(part: str, folder: Path, calls: Calls, limits: Limits) -> str:
    """Runs a function of isolation/child.py in a process of its own; returns how that process ended.

    Raises Hangs where it takes longer than the limits say.
    What it prints goes to standard error.  Its standard input is a pipe, by whose end it knows of ours.
    """
    command = [sys.executable, "-c", f"from numerics.conform.isolation.child import {part}; {part}()"]
    process = subprocess.Popen(
        [*command, str(folder), str(limits.still)],
        stdin=subprocess.PIPE,
        stdout=_stderr(),
        start_new_session=True,
    )
    try:
        return _text(_waited(process, folder, calls, limits))
    finally:
        _end(process)


def _waited(process: subprocess.Popen[bytes], folder: Path, calls: Calls, limits: Limits) -> int:
    """Its exit code; 0 where it has answered, and does not end."""
    clock, start = Clock(), monotonic()
    answered = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(POLL, limits.still))
        now, seen = monotonic(), calls.progress()
        clock.look(seen, now)
        if answered is None and os.path.exists(folder / ANSWER):
            answered = now
        if answered is not None:
            if now - answered > LEAVING:
                return 0
        elif now - start > limits.whole:
            raise Hangs(f"no result for {limits.whole:.3g} seconds")
        elif (most := clock.over(limits, now)) is not None:
            raise Hangs(f"no result for {most:.3g} seconds")


class Clock:
    """Since when each thread's call has been under way, and since when nothing has happened."""

    def __init__(self) -> None:
        self._moved = monotonic()
        self._seen: Progress | None = None
        self._since: dict[int, tuple[int, float]] = {}

    def look(self, seen: Progress, now: float) -> None:
        """Notes what is so now."""
        if seen != self._seen:
            self._seen, self._moved = seen, now
            watching.at(seen.returned)
        since = {}
        for thread in seen.those(UNDER_WAY):
            number, before = seen.threads[thread][0], self._since.get(thread)
            since[thread] = before if before is not None and before[0] == number else (number, now)
        self._since = since

    def over(self, limits: Limits, now: float) -> float | None:
        """The limit that a call has passed, or the pause between two; None where none has."""
        if not self._since:
            return limits.still if now - self._moved > limits.still else None
        if limits.call is not None:
            for number, start in self._since.values():
                if now - start > (most := limits.call(number)):
                    return most
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends it, where it is not over, and what it has started itself."""
    if process.returncode is None:
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def _stderr() -> int:
    """Where what a target prints goes; nowhere, where standard error is no file."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL


def _text(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}{BEFORE}"
