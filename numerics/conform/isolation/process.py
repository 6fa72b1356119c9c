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
from pathlib import Path
from time import monotonic

from numerics.conform import watching
from numerics.conform.isolation.calls import UNDER_WAY, Calls
from numerics.files.signals import terminable

POLL = 0.05  # seconds between two looks
NAME = "numerics-judged-"


Patience = Callable[[int], float]
"""Seconds that a call of a number may take."""


class Hangs(Exception):
    """A process did not come to its end in time; its text says how long that was."""


@contextmanager
def room() -> Iterator[Path]:
    """A folder, gone afterwards: also where a signal ends this process; of SIGKILL the child sees to it."""
    with terminable(), tempfile.TemporaryDirectory(prefix=NAME, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run(part: str, folder: Path, calls: Calls, seconds: float, patience: Patience | None = None) -> str:
    """Runs a function of isolation/child.py in a process of its own; returns how that process ended.

    Raises Hangs after so many seconds in all, and where a single call takes longer than `patience` says.
    What it prints goes to standard error.  Its standard input is a pipe, by whose end it knows of ours.
    """
    command = [sys.executable, "-c", f"from numerics.conform.isolation.child import {part}; {part}()"]
    process = subprocess.Popen(
        [*command, str(folder), str(seconds)], stdin=subprocess.PIPE, stdout=_stderr(), start_new_session=True
    )
    try:
        return _text(_waited(process, calls, seconds, patience))
    finally:
        _end(process)


def _waited(process: subprocess.Popen[bytes], calls: Calls, seconds: float, patience: Patience | None) -> int:
    """Its exit code."""
    start = moved = monotonic()
    before = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(POLL, seconds))
        now, seen = monotonic(), calls.progress()
        if seen != before:
            before, moved = seen, now
            watching.at(seen.returned)
        if now - start > seconds:
            raise Hangs(f"no result for {seconds:g} seconds")
        if patience is not None and seen.those(UNDER_WAY):
            most = patience(seen.threads[0][0])
            if now - moved > most:
                raise Hangs(f"no result for {most:.2g} seconds")


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
    return f"the process ended with exit code {code}, before a verdict"
