"""The process that runs cases: it may crash, hang or grow too large, and says so by its end."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import sys
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

CASE = "<case>"  # the file that tracebacks say
ROOM = 3 << 30  # bytes of addresses beyond what the imports take


@dataclass(frozen=True)
class Outcome:
    """What became of a case.  key: None where all is well; else what finds of one kind share."""

    key: str | None
    detail: str = ""
    refused: bool = False


def serve(channel: Connection, folder: str, log: str, limit: float) -> None:
    """Answers every case that comes with its Outcome, until None comes.

    A case that takes longer than `limit` seconds ends the process, with every thread's stack in the log.
    """
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    faulthandler.enable(descriptor)
    warnings.simplefilter("ignore")
    judged = _judge()
    _limit_memory()
    channel.send(None)
    with contextlib.suppress(EOFError):
        while (code := channel.recv()) is not None:
            faulthandler.dump_traceback_later(limit, exit=True, file=descriptor)
            outcome = judged(code)
            faulthandler.cancel_dump_traceback_later()
            channel.send(outcome)


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError):  # no /proc: no limit
        taken = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _judge():  # its imports are the worker's, not the judge's
    from numerics.formats.errors import NumericsError
    from tests.fuzz import words
    from tests.fuzz.differ import Disagreement

    def judged(code: str) -> Outcome:
        words.changed()
        try:
            exec(compile(code, CASE, "exec"), dict(words.NAMESPACE))
        except NumericsError as wrong:
            return _after(words, str(wrong), refused=True)
        except Disagreement as wrong:
            return Outcome(wrong.key, str(wrong))
        except BaseException as wrong:  # SystemExit is a find too
            key = key_of(wrong)
            return Outcome(key, _told(wrong)) if key else _after(words, repr(wrong), refused=True)
        return _after(words, "")

    return judged


def _after(words, detail: str, refused: bool = False) -> Outcome:
    if words.changed():
        return Outcome("what was given has changed", detail)
    return Outcome(None, detail[:200], refused)


def key_of(wrong: BaseException) -> str | None:
    """Its type and the innermost line of the package beneath which it was raised.

    None for what Python or another library refused before the package was asked.
    """
    place, trace = None, wrong.__traceback__
    if (isinstance(wrong, AttributeError) and _asked_by_case(wrong)) or _is_of_torch(wrong):
        return None
    while trace is not None:
        module, function = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_frame.f_code.co_name
        if module.split(".")[0] == "numerics" or (
            module.startswith("tests.fuzz") and isinstance(wrong, AssertionError)
        ):
            place = f"{module}:{function}"
        trace = trace.tb_next
    return place and f"{type(wrong).__name__} beneath {place}"


def _asked_by_case(wrong: AttributeError) -> bool:
    """Did the case itself, and nothing beneath it, ask an object for a name that it does not have?"""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(wrong.__traceback__)]
    if frames[-1].co_name == "__getattr__":
        frames.pop()
    return frames[-1].co_filename == CASE and wrong.name not in dir(wrong.obj)


def _is_of_torch(wrong: BaseException) -> bool:
    """Are these torch's own words about leaves, which it says of every tensor that is changed in place?

    A QTensor lies on the way there (`q.requires_grad_(); q.add_(1)`), and has no part in it.
    """
    said = "leaf Variable that requires grad", "cannot resize variables that require grad"
    return isinstance(wrong, RuntimeError) and any(words in str(wrong) for words in said)


def _told(wrong: BaseException) -> str:
    return "".join(traceback.format_exception(wrong))[-3000:]


if __name__ == "__main__":
    sys.exit("python -m tests.fuzz")
