"""Plans in files: TOML and JSON to be read again, HTML to look at."""

from __future__ import annotations

import html
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerics.files.replacement import Replacement
from numerics.formats.errors import NumericsError

if TYPE_CHECKING:
    from numerics.model.plan import Plan

KINDS = (".toml", ".json", ".html")
FORMAT = "numerics plan 1"


def written(plan: Plan, path: Path) -> None:
    """Writes a plan; raises NumericsError for a name that says no kind of file."""
    if path.suffix not in KINDS:
        raise NumericsError(
            f"{path.name!r} says no kind of plan; allowed: names that end in {', '.join(KINDS)}"
        )
    came = {"format": FORMAT, **plan.as_dict()}
    text = {".toml": _toml, ".json": lambda x: json.dumps(x, indent=1) + "\n"}.get(path.suffix, None)
    with Replacement(path) as file:
        file.write(0, (text(came) if text else _html(plan)).encode())


def loaded(path: Path) -> Plan:
    """Reads a plan; raises NumericsError for what is none."""
    from numerics.model.plan import Plan

    if path.suffix not in KINDS[:2]:
        raise NumericsError(f"{path.name!r} is no plan to be read; allowed: names that end in .toml or .json")
    try:
        text = path.read_text(encoding="utf-8")
        came = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as wrong:
        raise NumericsError(f"{path}: {wrong}") from None
    if not isinstance(came, dict) or came.get("format") != FORMAT:
        raise NumericsError(f"{path} is not a plan: its first line would say format = {FORMAT!r}")
    return Plan.from_dict(came)


def _toml(came: dict[str, Any]) -> str:
    lines = [f"{key} = {_value(x)}" for key, x in came.items() if not isinstance(x, (dict, list))]
    lines += ["", "[fold]", *(f"{_value(key)} = {_value(x)}" for key, x in came["fold"].items())]
    for row in came["rows"]:
        lines += ["", "[[rows]]", *(f"{key} = {_value(x)}" for key, x in row.items())]
    return "\n".join(lines) + "\n"


def _value(x: Any) -> str:
    """A text, number, truth value or list of them: what JSON writes of those is TOML, but for DEL."""
    return json.dumps(x, ensure_ascii=True).replace("\x7f", "\\u007f")


def _html(plan: Plan) -> str:
    from numerics.model.folded import groups

    body = []
    for group in groups(plan.rows):
        row = group.rows[0]
        cells = (row.kind, len(group.rows), group.name, "x".join(map(str, row.shape)), row.format, row.reason,
                 ", ".join(row.uses[:3]))  # fmt: skip
        kept = ' class="kept"' if row.spec is None else ""
        body.append(f"<tr{kept}>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in cells)}</tr>")
    heads = "".join(
        f"<th>{head}</th>" for head in ("kind", "n", "name", "shape", "format", "reason", "used by")
    )
    style = (
        "body{font:14px system-ui,sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.3em .8em;"
        "text-align:left;border-bottom:1px solid #ccc}.kept{color:#777}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>plan</title><style>{style}</style>'
        f"<p>{html.escape(plan.summary)}</p><table><tr>{heads}</tr>{''.join(body)}</table></html>\n"
    )
