"""Hunts for so many minutes; exit code 1, and a script for each, when something is found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.judge import Find, Hunt, Worker
from tests.fuzz.targets import TARGETS

TURNS = 6  # of every target, at least
TURN = 60.0  # seconds of one, at most


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    asked = _parser().parse_args(arguments)
    folder = Path(asked.folder or Path(tempfile.gettempdir()) / "numerics-fuzz").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if asked.replay:
        return _replay(Path(asked.replay), folder, asked.limit)
    hunts = _hunt(asked.only or list(TARGETS), folder, 60 * asked.minutes, asked.limit, asked.seed)
    for hunt in hunts:
        print(_summary(hunt))
    return int(any(hunt.counts["finds"] for hunt in hunts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="to hunt; 60 by default")
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="a target; may be repeated")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds that a case may take")
    parser.add_argument("--folder", help="for finds and examples; in the temporary folder by default")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="another one every time by default"
    )
    parser.add_argument("--replay", metavar="FILE", help="run the script of a find again")
    return parser


def _hunt(names: list[str], folder: Path, seconds: float, limit: float, seed: int) -> list[Hunt]:
    """The targets in turn until the time is over."""
    end = time.monotonic() + seconds
    turn = min(TURN, max(2.0, seconds / len(names) / TURNS))
    with Worker(folder, limit) as worker:
        hunts = [Hunt(name, TARGETS[name](), worker, seed=seed) for name in names]
        while time.monotonic() < end:
            for hunt in hunts:
                hunt.go(min(turn, end - time.monotonic()), lambda find: _tell(find, folder))
                print(
                    f"{max(end - time.monotonic(), 0) / 60:5.1f} minutes left; {_summary(hunt)}", flush=True
                )
    return hunts


def _summary(hunt: Hunt) -> str:
    counted = hunt.counts
    return (
        f"{hunt.target}: {counted['cases']} cases, {counted['refused']} refused in words, "
        f"{counted['finds']} finds, met again in {counted['known again']} cases"
    )


def _tell(find: Find, folder: Path) -> None:
    print(f"\nFOUND {find.target}: {find.key}\n  {find.code.replace(chr(10), chr(10) + '  ')}", flush=True)
    print(f"  python -m tests.fuzz --replay {find.write(folder)}", flush=True)


def _replay(script: Path, folder: Path, limit: float) -> int:
    with Worker(folder, limit) as worker:
        outcome = worker.run(script.read_text(encoding="utf-8"))
    print(outcome.key or "nothing is wrong", outcome.detail, sep="\n")
    return int(outcome.key is not None)


if __name__ == "__main__":
    sys.exit(main())
