"""A target judged in a process of its own: a crash, an exit or a hang becomes a verdict, not the end of ours.

What the target prints goes to standard error, so that a verdict in JSON stands alone.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numerics.conform.target import SENTENCES
from numerics.conform.verdict import Counterexample, Verdict, numbers
from numerics.formats.errors import NumericsError, said

SHOWN = 4
LAST, ANSWER, ASKED = "last.npy", "answer.pickle", "asked.pickle"


class Spoken(NamedTuple):
    """A dialect that was found elsewhere: its name, and what it does."""

    name: str
    text: str

    def __str__(self) -> str:
        return self.text


class Sent(NamedTuple):
    """What a verdict holds, but for the task, so that it can be sent."""

    target: str
    laws: tuple[str, ...]
    tried: int
    differs: int
    failures: tuple[Counterexample, ...]
    spoken: tuple[Spoken, ...]
    notes: tuple[str, ...]
    inputs: str

    def verdict(self, task: Any) -> Verdict:
        """The verdict, of that task."""
        parts = self._asdict()
        return Verdict(task=task, explain=partial(tuple, parts.pop("spoken")), **parts)


def judged(target: str, options: dict[str, Any], timeout: float, task: Any) -> Verdict:
    """The verdict on "module:function", found by a process of its own; timeout: seconds, all in all.

    options: what `check` is asked; task: what that comes to.  Raises NumericsError as `check` does.
    """
    with tempfile.TemporaryDirectory(prefix="numerics-judged-") as folder:
        room = Path(folder)
        (room / ASKED).write_bytes(pickle.dumps((target, options, [p for p in sys.path if p])))
        command = [sys.executable, "-c", "from numerics.conform.isolated import child; child()", folder]
        try:
            ended = subprocess.run(command, timeout=timeout, stdout=_stderr(), check=False).returncode
            came = _ended(ended)
        except subprocess.TimeoutExpired:
            came = f"no result for {timeout:g} seconds"
        if os.path.exists(room / ANSWER):
            answer: Sent | NumericsError = pickle.loads((room / ANSWER).read_bytes())
            if isinstance(answer, NumericsError):
                raise answer
            return answer.verdict(task)
        return Verdict(target, task, tuple(SENTENCES), 0, 0, (_last(room, came),))


def name_of(target: Any) -> str:
    """How another process finds a target; raises NumericsError for one that has no name there.

    >>> import math
    >>> name_of(math.sqrt), name_of("mypkg.kernels:encode")
    ('math:sqrt', 'mypkg.kernels:encode')
    """
    if isinstance(target, str):
        return target
    found: Any = sys.modules.get(getattr(target, "__module__", None) or "")
    path = str(getattr(target, "__qualname__", ""))
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is None or found is not target or target.__module__ == "__main__":
        raise NumericsError(
            f"isolated=True needs a target that another process can import, which {said(target)} is not: put "
            "it into a module, or name it as in 'mypkg.kernels:encode'"
        )
    return f"{target.__module__}:{path}"


def _stderr() -> int:
    """Where what a target prints goes; nowhere, where standard error is no file."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL


def _ended(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}, before a verdict"


def _last(room: Path, came: str) -> Counterexample:
    """What the target was given last."""
    shown, where = (), "before it was given anything"
    with contextlib.suppress(OSError, ValueError):
        x = np.load(room / LAST)
        where = f"an input of shape {x.shape}"
        if x.dtype == np.float32:
            shown = numbers(x.reshape(-1)[:SHOWN])  # type: ignore[assignment]
    return Counterexample("runs", SENTENCES["runs"], shown, came, "a result", where=where)


def sent(verdict: Verdict) -> Sent:
    """A verdict, so that it can be sent; what only this process can be asked again is left out."""
    failures = tuple(replace(failure, given=()) for failure in verdict.failures)
    spoken = tuple(Spoken(dialect.name, str(dialect)) for dialect in verdict.dialects)
    return Sent(verdict.target, verdict.laws, verdict.tried, verdict.differs, failures, spoken,
                verdict.notes, verdict.inputs)  # fmt: skip
