"""Measured figures as JSON that can be read and compared: one record a line."""

from __future__ import annotations

import json
from typing import Any

DIGITS = 4  # of a measured figure; the noise of the machine begins at the second


def text_of(data: Any) -> str:
    """Records as JSON, each a line of its own: a dict in a list, and a dict without records in it.

    >>> print(text_of({"rows": [{"case": "encode", "ratio": 1.23456}, {"case": "decode"}]}), end="")
    {
     "rows": [
      {"case": "encode", "ratio": 1.235},
      {"case": "decode"}
     ]
    }
    """
    return _lines(rounded(data), 0) + "\n"


def _lines(data: Any, depth: int) -> str:
    opening, closing = "{}" if isinstance(data, dict) else "[]"
    if isinstance(data, dict) and any(map(_holds_records, data.values())):
        items = [f"{json.dumps(name)}: {_lines(value, depth + 1)}" for name, value in data.items()]
    elif isinstance(data, list) and any(isinstance(value, dict) for value in data):
        items = [json.dumps(value) for value in data]
    else:
        return json.dumps(data)
    start = "\n" + " " * (depth + 1)
    return opening + start + f",{start}".join(items) + "\n" + " " * depth + closing


def _holds_records(data: Any) -> bool:
    if isinstance(data, dict):
        return True
    return isinstance(data, list) and any(isinstance(value, dict) for value in data)


def rounded(data: Any) -> Any:
    """Returns data with its floats rounded to four digits, those inside lists and dicts too."""
    if isinstance(data, float):
        return float(f"{data:.{DIGITS}g}")
    if isinstance(data, dict):
        return {name: rounded(value) for name, value in data.items()}
    return [rounded(value) for value in data] if isinstance(data, (list, tuple)) else data
