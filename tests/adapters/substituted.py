"""Runs a host's tests with an adapter in it, then again in the same process once it is taken out.

    python substituted.py FOLDER ADAPTER [argument of pytest ...]

FOLDER gets the reports 0.xml and 1.xml and the counts of calls as JSON.  An ADAPTER of "" is none, one run.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest


def main(folder: Path, name: str, arguments: list[str]) -> None:
    """One run of the stock host, or one with the adapter and one after it."""
    if not name:
        pytest.main([*arguments, f"--junitxml={folder / '0.xml'}"])
        return
    adapter: Any = importlib.import_module(f"numerics.adapters.{name}")
    adapter.install()
    pytest.main([*arguments, f"--junitxml={folder / '0.xml'}"])
    calls = {"ours": dict(adapter.calls.ours), "passed_on": dict(adapter.calls.passed_on)}
    adapter.uninstall()
    adapter.calls.clear()
    pytest.main([*arguments, f"--junitxml={folder / '1.xml'}"])
    calls["after"] = adapter.calls.ours.total() + adapter.calls.passed_on.total()
    (folder / "calls.json").write_text(json.dumps(calls), encoding="utf-8")


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))  # whose names are not the host's
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
