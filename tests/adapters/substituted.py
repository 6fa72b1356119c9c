"""A plugin of pytest that installs an adapter before tests are collected; NUMERICS_ADAPTER says which."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

ADAPTER: Any = importlib.import_module(f"numerics.adapters.{os.environ['NUMERICS_ADAPTER']}")
ADAPTER.install()


def pytest_sessionfinish() -> None:
    """Keeps the counts, and takes the adapter out."""
    calls = {"ours": dict(ADAPTER.calls.ours), "passed_on": dict(ADAPTER.calls.passed_on)}
    Path(os.environ["NUMERICS_ADAPTER_CALLS"]).write_text(json.dumps(calls), encoding="utf-8")
    ADAPTER.uninstall()
