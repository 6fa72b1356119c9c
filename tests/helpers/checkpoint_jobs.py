"""Checkpoint jobs of tests as processes: ranks that share one, and runs that are killed until it is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.helpers.children import LIMIT, child

Process = subprocess.Popen[str]


@contextmanager
def started(code: str, *arguments: Any, rank: int = 0, world: int = 1) -> Iterator[Process]:
    """A process that runs code, as a launcher starts one of so many."""
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "NUMERICS_NUM_THREADS": "1"}
    with child([sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True,
               stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # fmt: skip
        yield process


def run_ranks(code: str, *arguments: Any, world: int) -> None:
    """Runs code as all ranks at once; none fails."""
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(started(code, *arguments, rank=rank, world=world)) for rank in range(world)
        ]
        for rank in ranks:
            out, err = rank.communicate(timeout=LIMIT)
            assert rank.returncode == 0, out + err


AT_A_NAME = """
import os, signal
replace = os.replace
def killed(source, target):
    shard = os.fspath(target).endswith(".safetensors")
    if shard and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if shard:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = killed
"""


def kill_at_a_name(code: str, *arguments: Any, before: bool) -> None:
    """Runs code that is killed just before, or just after, it gives a shard its name."""
    with started(AT_A_NAME.format(before=before) + code, *arguments) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL, out + err


def kill_until_done(
    start: Callable[[], AbstractContextManager[Process]], out: Path, wait: Callable[[Process, int], Any],
    runs: int,
) -> dict[str, int]:  # fmt: skip
    """Kills one run after the other, until one ends by itself: no finished shard is ever touched again.

    wait: returns when the run is to be killed; it is given how many were.  Returns the time of each shard
    that was seen finished before the end.
    """
    kills, stamps = 0, dict[str, int]()
    for _ in range(runs):
        with start() as process:
            wait(process, kills)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=LIMIT)
        kills += process.returncode == -signal.SIGKILL
        for shard in out.glob("*.safetensors"):
            now = shard.stat().st_mtime_ns
            assert stamps.setdefault(shard.name, now) == now
        if process.returncode == 0:
            break
    assert kills
    return stamps
