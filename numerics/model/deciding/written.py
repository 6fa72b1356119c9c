"""Plans in files: TOML and JSON to be read again, HTML to look at."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numerics.backends.paths import check_regular
from numerics.files.replacement import Replacement
from numerics.formats.errors import NumericsError
from numerics.formats.notebook import rows_table
from numerics.formats.text import parsed_by
from numerics.model.deciding.folded import groups
from numerics.model.deciding.rows import Row

KINDS = (".toml", ".json", ".html")
FORMAT = "numerics plan 1"
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def written(came: Mapping[str, Any], rows: Sequence[Row], summary: str, path: Path) -> None:
    """Writes a plan; raises NumericsError for a name that says no kind of file."""
    if path.suffix not in KINDS:
        raise NumericsError(
            f"{path.name!r} says no kind of plan; allowed: names that end in {', '.join(KINDS)}"
        )
    if path.suffix == ".html":
        text = _html(rows, summary)
    else:
        values = {"format": FORMAT, **came}
        text = _toml(values) if path.suffix == ".toml" else json.dumps(values, indent=1) + "\n"
    check_replaced(path)
    with Replacement(path) as file:
        file.write(0, text.encode())


def check_replaced(path: str | Path) -> None:
    """Raises NumericsError where another file than a plan is there, which a plan must not replace."""
    path = Path(path)
    if path.suffix not in KINDS[:2] or not os.path.isfile(path) or not os.path.getsize(path):
        return
    try:
        read(path)
    except NumericsError:
        raise NumericsError(
            f"{path} is there and is no plan, which a plan would replace: name another file"
        ) from None


def read(path: Path) -> Mapping[str, Any]:
    """What `written` was given; raises NumericsError for a file that is no plan."""
    if path.suffix not in KINDS[:2]:
        raise NumericsError(f"{path.name!r} is no plan to be read; allowed: names that end in .toml or .json")
    check_regular(path)
    try:
        text = path.read_text(encoding="utf-8")
        came = parsed_by(tomllib.loads if path.suffix == ".toml" else json.loads, text)
    except OSError as wrong:
        raise NumericsError(f"cannot read {path}: {wrong.strerror or wrong}") from None
    except ValueError as wrong:
        raise NumericsError(f"{path}: {wrong}") from None
    if not isinstance(came, dict) or came.get("format") != FORMAT:
        raise NumericsError(f"{path} is not a plan: its first line would say format = {FORMAT!r}")
    if isinstance(came.get("rows"), list):
        came["rows"] = [_closed(row) for row in came["rows"]]
    return came


def _closed(row: Any) -> Any:
    """A row whose spec is a text, as `Plan.as_dict` has it; in TOML it is a table."""
    spec = row.get("spec") if isinstance(row, dict) else None
    return {**row, "spec": json.dumps(spec, default=str)} if isinstance(spec, dict) else row


def _opened(spec: str) -> Any:
    """The table that a text says; the text where it says null, which TOML has not (formats of one's own)."""
    return spec if re.search(r"[:\[,] ?null\b", spec) else json.loads(spec)


def _toml(came: dict[str, Any]) -> str:
    lines = [f"{key} = {_value(x)}" for key, x in came.items() if not isinstance(x, (dict, list))]
    lines += ["", "[fold]", *(f"{_value(key)} = {_value(x)}" for key, x in came["fold"].items())]
    for row in came["rows"]:
        opened = {**row, "spec": _opened(row["spec"])} if "spec" in row else row
        lines += ["", "[[rows]]", *(f"{key} = {_value(x)}" for key, x in opened.items())]
    return "\n".join(lines) + "\n"


def _value(x: Any) -> str:
    """A text, number, truth value, list of them, or a table of them in one line, in TOML's words.

    What JSON writes of texts and numbers is TOML, but for DEL and what is not finite.
    """
    if isinstance(x, dict):
        return f"{{{', '.join(f'{_key(name)} = {_value(one)}' for name, one in x.items())}}}"
    if isinstance(x, list):
        return f"[{', '.join(map(_value, x))}]"
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    return json.dumps(x, ensure_ascii=True).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


HEADINGS = ("kind", "n", "name", "shape", "format", "reason", "used by")


def shown(rows: Sequence[Row], summary: str) -> str:
    """The rows of a plan as an HTML table, equal ones folded into one, and the line that sums them up."""
    body = []
    for group in groups(rows):
        row = group.rows[0]
        body.append((row.kind, str(len(group.rows)), group.name, "x".join(map(str, row.shape)), row.format,
                     row.told, ", ".join(row.uses[:3])))  # fmt: skip
    return rows_table(HEADINGS, body, summary)


def _html(rows: Sequence[Row], summary: str) -> str:
    style = (
        "body{font:14px system-ui,sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ccc}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>plan</title><style>{style}</style>'
        f"<body>{shown(rows, summary)}</body></html>\n"
    )
