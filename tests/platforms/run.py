"""One machine's run of the corpus: an interpreter, an environment, and what became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus.py")
LIMIT = 4 * 3600.0  # seconds of a section: every kernel is compiled for every level


@dataclass(frozen=True)
class Machine:
    """Where the corpus runs.  command: of the interpreter.  backend: of the package."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    backend: str = "cpu"
    sections: tuple[str, ...] | None = None  # all

    def run(self, section: str, folder: Path, options: Sequence[str] = ()) -> dict[str, str] | str:
        """The digests of a section, or how the run ended without."""
        place = folder / self.name
        place.mkdir(parents=True, exist_ok=True)
        out = place / f"{section.replace(' ', '_')}.json"
        out.unlink(missing_ok=True)
        cache = {"NUMERICS_CACHE_DIR": str(place / "cache"), "PYTHONPATH": str(ROOT)}
        command = [*self.command, str(CORPUS), str(out), section, "--backend", self.backend, *options]
        found = subprocess.run(
            command, env={**os.environ, **cache, **self.environment}, capture_output=True, text=True,
            timeout=LIMIT, cwd=place,
        )  # fmt: skip
        if found.returncode == 0:
            return dict(json.loads(out.read_text(encoding="utf-8")))
        now = out.with_suffix(".now")
        at = now.read_text(encoding="utf-8") if now.exists() else "its start"
        last = found.stderr.strip().splitlines()[-1:] or [""]
        return f"{_ended(found.returncode)} in {at!r} {last[0]}".strip()


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def differences(found: dict[str, str] | str, due: dict[str, str] | str) -> list[str]:
    """What is wrong with digests, beside those that are due."""
    if isinstance(found, str) or isinstance(due, str):
        return [found if isinstance(found, str) else f"nothing to compare with: {due}"]
    wrong = [f"{name} differs" for name in due.keys() & found.keys() if due[name] != found[name]]
    wrong += [f"{name} differs under flush-to-zero" for name in found if flushes(found, name)]
    wrong += [f"{name} is missing" for name in due.keys() ^ found.keys()]
    return sorted(wrong)


def flushes(found: dict[str, str], name: str) -> bool:
    """Is it another result in a thread that flushes subnormals?"""
    return found.get(f"flushed {name}", found[name]) != found[name]
