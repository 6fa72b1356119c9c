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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numerics.conform.target import SENTENCES, watch
from numerics.conform.verdict import Counterexample, Verdict, numbers
from numerics.formats.errors import NumericsError

SHOWN = 4
LAST, ANSWER, ASKED = "last.npy", "answer.pickle", "asked.pickle"


class Outcome(NamedTuple):
    """What a judged process has to say: the verdict as text and as JSON, whether it is true, and its law."""

    text: str
    json: str
    passed: bool
    law: str | None
    came: str


def judged(target: str, options: dict[str, Any], timeout: float) -> Outcome:
    """The verdict on "module:function", found by a process of its own; timeout: seconds, all in all.

    Raises NumericsError where the request itself is wrong, as `check` does.
    """
    from numerics.conform.checking import asked

    task: Any = _task_of(asked(_nothing, **options))
    with tempfile.TemporaryDirectory(prefix="numerics-judged-") as folder:
        room = Path(folder)
        (room / ASKED).write_bytes(pickle.dumps((target, options, [p for p in sys.path if p])))
        command = [sys.executable, "-c", "from numerics.conform.isolation import child; child()", folder]
        try:
            ended = subprocess.run(command, timeout=timeout, stdout=_stderr(), check=False).returncode
            came = _ended(ended)
        except subprocess.TimeoutExpired:
            came = f"no result for {timeout:g} seconds"
        if os.path.exists(room / ANSWER):
            answer: Outcome | NumericsError = pickle.loads((room / ANSWER).read_bytes())
            if isinstance(answer, NumericsError):
                raise answer
            return answer
        return said_of(Verdict(target, task, tuple(SENTENCES), 0, 0, (_last(room, came),)))


def _stderr() -> int:
    """Where what a target prints goes; nowhere, where standard error is no file."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL


def _nothing(*_: Any) -> None:
    """Stands for a target that is not imported here."""


def _task_of(check: Any) -> Any:
    return getattr(check.target, "task", None) or check.target.claim


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


def said_of(verdict: Verdict) -> Outcome:
    """A verdict, so that it can be sent."""
    came = verdict.counterexample.came if verdict.counterexample is not None else ""
    return Outcome(str(verdict), verdict.to_json(), bool(verdict), verdict.law, came)


def child() -> None:
    """The other process: judges, writes its answer, and notes before each call what is given."""
    from numerics.conform.checking import check

    room = Path(sys.argv[1])
    target, options, paths = pickle.loads((room / ASKED).read_bytes())
    sys.path[:] = ["", *paths]

    def note(inputs: tuple[Any, ...]) -> None:
        arrays = [x for x in inputs if isinstance(x, np.ndarray)]
        if arrays:
            np.save(room / LAST, arrays[0])

    watch(note)
    try:
        answer: Outcome | NumericsError = said_of(check(target, **options))
    except NumericsError as wrong:
        answer = NumericsError(str(wrong))
    half = room / f"{ANSWER}.half"
    half.write_bytes(pickle.dumps(answer))
    os.replace(half, room / ANSWER)
