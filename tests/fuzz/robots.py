"""Robots that interrupt, fork and kill: python -m tests.fuzz.robots --interrupts 200 --forks 100 --kills 100.

Each has a process of its own work on; whatever it is told in the midst of it, it neither crashes nor
hangs, its results are right, and no file stays that should not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.children import child

PATIENCE = 300.0  # seconds without a word after which a process counts as hanging
HERE = Path(__file__).parent
PROMPT = ("SIGINT", "SIGTERM", "SIGHUP")  # nothing stays; after the others the next run cleans up
KILLS = (*PROMPT, "SIGKILL", "SIGQUIT", "SIGPIPE", "SIGXCPU", "SIGUSR1", "SIGALRM")

QUANTIZED = "from numerics.files.checkpoint import quantize_file as q; import sys; q(*sys.argv[1:3], 'mx6')"


@dataclass(frozen=True)
class Fault:
    """What went wrong."""

    robot: str
    said: str

    def __str__(self) -> str:
        return f"{self.robot}: {self.said}"


def interrupts(count: int, seed: int = 0) -> Iterator[Fault]:
    """Ctrl-C at random moments of threaded calls, half of them with NumPy, half with torch."""
    for library, share in (("numpy", count - count // 2), ("torch", count // 2)):
        if share:
            yield from _ended("interrupts", "interrupted.py", share, seed, library, PATIENCE)


def forks(count: int, seed: int = 0) -> Iterator[Fault]:
    """Children that need kernels of their own, forked while other threads compile into an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        yield from _ended("forks", "forked.py", count, seed, PATIENCE / 5, NUMERICS_CACHE_DIR=cache)


def _ended(robot: str, script: str, *arguments: object, **environment: str) -> Iterator[Fault]:
    """A fault where the process does not end well."""
    command = [sys.executable, "-X", "faulthandler", str(HERE / script), *map(str, arguments)]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=4 * PATIENCE, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired:
        yield Fault(robot, f"hangs: {arguments}")
        return
    if found.returncode:
        yield Fault(robot, f"{arguments} ended with {found.returncode}: {found.stderr[-2000:]}")
    else:
        print(f"  {robot} {arguments}: {found.stdout.strip()}", flush=True)


def kills(count: int, seed: int = 0) -> Iterator[Fault]:
    """quantize ended at random moments: the target is the old one or whole, and nothing stays beside it.

    What a signal that is not for ending programs leaves is cleaned up by the next run.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source, target = folder / "model.safetensors", folder / "out.safetensors"
        whole, seconds = _prepared(source, target)
        drawn = random.Random(seed)
        for k in range(count):
            name = KILLS[k % len(KILLS)]
            old = drawn.choice((None, b"what was there before"))
            target.unlink(missing_ok=True)
            if old is not None:
                target.write_bytes(old)
            _kill(source, target, name, drawn.random() * seconds)
            yield from _left(folder, target, {old, whole}, name)


def _prepared(source: Path, target: Path) -> tuple[bytes, float]:
    """The source, the bytes that are due, and how long they take."""
    import numpy as np

    import numerics as nx

    rng = np.random.default_rng(0)
    nx.save({f"w{k}": rng.standard_normal((1024, 1024)).astype(np.float32) for k in range(12)}, source)
    began = time.monotonic()
    _finished(source, target)
    return target.read_bytes(), time.monotonic() - began


def _quantize(source: Path, target: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", QUANTIZED, str(source), str(target)]
    return child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _finished(source: Path, target: Path) -> int:
    with _quantize(source, target) as process:
        return process.wait(PATIENCE)


def _kill(source: Path, target: Path, name: str, after: float) -> None:
    """One run, which a signal ends or not."""
    with _quantize(source, target) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(getattr(signal, name))
        process.wait(PATIENCE)


def _left(folder: Path, target: Path, allowed: set[bytes | None], name: str) -> Iterator[Fault]:
    """Faults of what lies there after a kill."""
    found = target.read_bytes() if target.exists() else None
    if found not in allowed:
        yield Fault("kills", f"{name} left a target that is neither the old one nor whole")
    source = folder / "model.safetensors"
    if name not in PROMPT and _finished(source, target):
        yield Fault("kills", f"the run after {name} fails")
    rests = sorted(p.name for p in folder.iterdir() if p not in (source, target))
    if rests:
        yield Fault("kills", f"{name} left {', '.join(rests)}")
        for rest in rests:
            (folder / rest).unlink()


ROBOTS: dict[str, Callable[[int, int], Iterator[Fault]]] = {
    "interrupts": interrupts,
    "forks": forks,
    "kills": kills,
}


def main(arguments: list[str] | None = None) -> int:
    """The command: exit code 1 when there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.robots", description=__doc__)
    for name, robot in ROBOTS.items():
        parser.add_argument(f"--{name}", type=int, default=0, help=(robot.__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args(arguments)
    faults = 0
    for name, robot in ROBOTS.items():
        count = getattr(asked, name)
        print(f"{name}: {count}", flush=True)
        for fault in robot(count, asked.seed) if count else ():
            faults += 1
            print(f"  FAULT {fault}", flush=True)
    print(f"{faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
