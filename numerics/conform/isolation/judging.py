"""A target judged in a process of its own: a crash, an exit or a hang becomes a verdict, not the end of ours.

What the target prints goes to standard error, so that a verdict in JSON stands alone.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

from numerics.conform.isolation.calls import IMPORTS, UNDER_WAY, Calls
from numerics.conform.isolation.first import by_calls
from numerics.conform.isolation.messages import ANSWER, ASKED, CALLS, GIVEN, Asked, Sent, answer_in
from numerics.conform.isolation.narrowing import SECONDS, Narrowing
from numerics.conform.isolation.process import BEFORE, STILL, Hangs, Limits, room, run
from numerics.conform.targets.faults import SENTENCES
from numerics.conform.verdict import Verdict
from numerics.formats.errors import NumericsError, said


def judged(target: str, options: dict[str, Any], timeout: float, task: Any) -> Verdict:
    """The verdict on "module:function", found by a process of its own; timeout: seconds of a call.

    options: what `check` is asked; task: what that comes to.  Raises NumericsError as `check` does, where to
    import the target ends that process or takes longer than a call may, and where the process does nothing
    between two calls: a thread that the target has left may hold it.
    """
    limits = Limits(max(STILL, timeout), lambda _: timeout)
    with room() as folder, Calls(folder / CALLS) as calls:
        asked = Asked(target, options, [path for path in sys.path if path])
        (folder / ASKED).write_bytes(pickle.dumps(asked))
        try:
            came = run("judge", folder, calls, limits)
        except Hangs as wrong:
            came = str(wrong)
            if not calls.progress().those(UNDER_WAY):
                raise NumericsError(
                    f"{target} cannot be judged: for {limits.still:g} seconds its process neither called it "
                    "nor ended"
                ) from None
        if os.path.exists(folder / ANSWER):
            return _asked_first(folder, calls, answer_in(folder), timeout).verdict(task)
        if calls.progress().threads[0] == IMPORTS:
            raise _not_imported(target, came)
        found = Narrowing(folder, calls, task, timeout).counterexample(came)
        return Verdict(target, task, tuple(SENTENCES), 0, 0, (found,))


def imported(target: str, timeout: float) -> None:
    """Imports the module of "module:function" in a process of its own: nothing it does there ends this one.

    Raises NumericsError where that process ends, or takes longer than so many seconds; not for what the
    module raises, which whoever imports it is told.
    """
    limits = Limits(max(STILL, timeout), lambda _: timeout)
    with room() as folder, Calls(folder / CALLS) as calls:
        (folder / ASKED).write_bytes(pickle.dumps(Asked(target, {}, [path for path in sys.path if path])))
        try:
            came = run("imports", folder, calls, limits)
        except Hangs as wrong:
            came = str(wrong)
        if not os.path.exists(folder / ANSWER):
            raise _not_imported(target, came)


def _not_imported(target: str, came: str) -> NumericsError:
    return NumericsError(f"target {said(target)} cannot be imported: {came.removesuffix(BEFORE)}")


def _asked_first(folder: Path, calls: Calls, found: Sent, timeout: float) -> Sent:
    """The same, of the law `repeatable` where its counterexample is right as the first call of a process."""
    if found.first is None:
        return found
    (folder / GIVEN).write_bytes(pickle.dumps(found.first))
    (folder / ANSWER).unlink()
    calls.clear()
    try:
        run("first", folder, calls, Limits(SECONDS, whole=SECONDS))
        right = os.path.exists(folder / ANSWER) and answer_in(folder)
    except (Hangs, NumericsError):
        right = False
    if not right:
        return found
    return found._replace(failures=(by_calls(found.failures[0]), *found.failures[1:]))


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
