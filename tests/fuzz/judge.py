"""The judge: draws cases, has a worker run them, shrinks what is wrong and keeps it as a script."""

from __future__ import annotations

import hashlib
import multiprocessing
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz.worker import Outcome, serve

BATCH = 400  # cases of one run of Hypothesis
LIFE = 1500  # cases of a worker: every declared format stays in its memory
SHRINKING = 40.0  # seconds that a find may take to be made small
SLOWER = 4  # times its limit: a case that took too long has as much when it is run again
PATIENCE = 60.0  # seconds beyond its own limit until a worker is ended
SHOWN = 4000  # characters of a log: the innermost calls come first
TOO_LONG = "takes more than"
PRELOADED = ["tests.fuzz.words"]


class Worker:
    """A worker process, made anew when it has died or grown old."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit, self.log = folder, limit, folder / "worker.log"
        self.process: multiprocessing.Process | None = None
        self.started = 0

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def run(self, code: str) -> Outcome:
        """The outcome of a case; a crash or a hang is one.

        What takes too long is run again and has longer: the machine may be loaded, kernels not compiled.
        """
        outcome = self._once(code, self.limit)
        if not _too_long(outcome):
            return outcome
        self.end()
        try:
            return self._once(code, SLOWER * self.limit)
        finally:
            self.end()

    def _once(self, code: str, limit: float) -> Outcome:
        if self.process is None or self.cases >= LIFE:
            self.end()
            self._start(limit)
        self.cases += 1
        try:
            self.channel.send(code)
            if not self.channel.poll(limit + PATIENCE):
                self.end()
                return Outcome("hangs and cannot be ended from within", self._logged()[:SHOWN])
            return self.channel.recv()
        except (EOFError, OSError):
            return self._died(limit)

    def _start(self, limit: float) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.channel, theirs = context.Pipe()
        inside = self.folder / "work"
        inside.mkdir(exist_ok=True)
        self.process = context.Process(
            target=serve, args=(theirs, str(inside), str(self.log), limit), daemon=True
        )
        self.process.start()
        theirs.close()
        self.cases, self.started = 0, self.started + 1
        if not self.channel.poll(PATIENCE * 5):
            raise RuntimeError(f"no worker starts: {self._logged()[-SHOWN:]}")
        self.channel.recv()

    def _died(self, limit: float) -> Outcome:
        assert self.process is not None
        self.process.join(PATIENCE)
        code = self.process.exitcode
        self.end()
        logged = self._logged()
        if "Timeout (" in logged:
            return Outcome(f"{TOO_LONG} {limit:g} s beneath {place_in(logged)}", logged[:SHOWN])
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Outcome(f"{how} beneath {place_in(logged)}", logged[:SHOWN])

    def _logged(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def end(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.channel.close()
            self.process.kill()
            self.process.join(PATIENCE)
            self.process = None


def _too_long(outcome: Outcome) -> bool:
    return outcome.key is not None and outcome.key.startswith(TOO_LONG)


def place_in(log: str) -> str:
    """The innermost function of the package in faulthandler's stacks."""
    frames = re.findall(r'File "([^"]+)", line \d+ in (\S+)', log)
    ours = [f"{name_of(path)}:{function}" for path, function in frames if name_of(path)]
    return ours[0] if ours else f"{Path(frames[0][0]).name}:{frames[0][1]}" if frames else "nothing known"


def name_of(path: str) -> str | None:
    """The part of a source's path that says which of the package's it is."""
    parts = Path(path).parts
    for room in ("formats", "backends", "numerics"):
        if room in parts and "torch" not in parts and "tests" not in parts:
            return "/".join(parts[parts.index(room) :])
    return None


@dataclass
class Find:
    """A case that is wrong, as small as it was made."""

    target: str
    key: str
    code: str
    detail: str

    def write(self, folder: Path) -> Path:
        """Keeps it as a script for --replay."""
        name = f"{self.target}_{hashlib.sha256(self.key.encode()).hexdigest()[:8]}.py"
        told = "\n".join(f"# {line}" for line in self.detail.splitlines())
        path = folder / name
        path.write_text(f"# {self.key}\n{self.code}\n{told}\n", encoding="utf-8", errors="backslashreplace")
        return path


class Found(Exception):
    """Makes Hypothesis shrink."""


@dataclass
class Hunt:
    """All of one target: how many cases were run, and what was found."""

    target: str
    cases: st.SearchStrategy[str]
    worker: Worker
    known: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    seed: int = 0
    most: int | None = None  # cases, for a slice

    def go(self, seconds: float, tell: Callable[[Find], None]) -> None:
        """Hunts for so long, a find after the other."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (self.most is None or self.counts["cases"] < self.most):
            self.seed += 1
            find = self._batch(end)
            if find is not None:
                self.known.add(find.key)
                self.counts["finds"] += 1
                tell(find)

    def _batch(self, end: float) -> Find | None:
        hunted: Find | None = None
        seen: dict[str, Outcome] = {}
        until = end

        def tried(code: str) -> None:
            nonlocal hunted, until
            if code not in seen and self.counts["cases"] and time.monotonic() > until:
                return  # one case is run however long Hypothesis took to make it
            outcome = seen[code] if code in seen else self._run(code)
            if outcome.key is None or outcome.key in self.known:
                return
            if hunted is None:
                until = time.monotonic() + SHRINKING
            elif outcome.key != hunted.key:
                return  # another one, for another time
            seen[code] = outcome
            hunted = Find(self.target, outcome.key, code, outcome.detail)
            raise Found

        test = hypothesis.settings(
            max_examples=self.most or BATCH, deadline=None, derandomize=False, report_multiple_bugs=False,
            database=DirectoryBasedExampleDatabase(self.worker.folder / "examples" / self.target),
            suppress_health_check=list(HealthCheck), verbosity=hypothesis.Verbosity.quiet,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
        )(hypothesis.seed(self.seed)(hypothesis.given(self.cases)(tried)))  # fmt: skip
        try:
            test()
        except (Found, hypothesis.errors.Flaky, ExceptionGroup):
            assert hunted is not None
        return hunted

    def _run(self, code: str) -> Outcome:
        outcome = self.worker.run(code)
        self.counts["cases"] += 1
        self.counts["refused"] += outcome.refused
        self.counts["known again"] += outcome.key in self.known
        return outcome
