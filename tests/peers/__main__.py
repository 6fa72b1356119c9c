"""python -m tests.peers [LIBRARY ...] [--render]: judges libraries, each in a process of its own.

Writes tests/data/peers.json and docs/peers.md; libraries that are not named, or not installed, keep the rows
that they have there, and --render writes the page alone.  Sources that have no package (microxcaling,
tensorcast) are judged where PYTHONPATH leads to them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.records import text_of
from numerics._version import __version__
from tests.helpers.asked import add_names
from tests.peers.claims import LIBRARIES
from tests.peers.report import markdown

ROOT = Path(__file__).parents[2]
DATA, PAGE = ROOT / "tests/data/peers.json", ROOT / "docs/peers.md"
PATIENCE = 900  # seconds a library
ABSENT: dict[str, Any] = {"version": None, "rows": []}


def judged(name: str) -> dict[str, Any]:
    """What a process of its own finds; a library that fails in it ends the run, with what it said."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        run = [sys.executable, "-m", "tests.peers.judge", name, str(path)]
        found = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        if found.returncode:
            sys.exit(f"{name} could not be judged:\n{found.stderr[-4000:]}")
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def write(peers: dict[str, Any], machine: str) -> None:
    """The data and the page."""
    DATA.write_text(text_of({"machine": machine, "peers": peers}), encoding="utf-8")
    PAGE.write_text(markdown(peers, machine), encoding="utf-8")


def main() -> None:
    """Judges what was asked for."""
    options = argparse.ArgumentParser(prog="python -m tests.peers")
    add_names(options, "libraries", tuple(LIBRARIES), "LIBRARY")
    options.add_argument("--render", action="store_true")
    asked = options.parse_args()
    before = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {"machine": "", "peers": {}}
    if asked.render:
        write(before["peers"], before["machine"])
        return
    peers = {}
    for name in LIBRARIES:
        kept, found = before["peers"].get(name, ABSENT), ABSENT
        if name in asked.libraries:
            found = judged(name)
        peers[name] = found if found["version"] else kept
        print(f"{name} {peers[name]['version'] or 'is not installed'}: {len(peers[name]['rows'])} claims")
    machine = f"numerics {__version__}, Python {platform.python_version()}, {platform.machine()}"
    write(peers, machine)


if __name__ == "__main__":
    main()
