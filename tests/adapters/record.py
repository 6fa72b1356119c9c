"""Writes tests/data/adapters.json: what the stock hosts answer to the slice that `make test` runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.adapter_slice import digest, stock

PATH = Path(__file__).parents[1] / "data" / "adapters.json"

if __name__ == "__main__":
    found = {name: digest(call()) for name, call in stock().items()}
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{len(found)} answers in {PATH.name}")
