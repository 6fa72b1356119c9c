"""Rows of a plan as a table: those that differ in one part of their names only become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numerics.model.deciding.rows import Row
from numerics.view.patterns import Pattern, patterns
from numerics.view.screen import Screen
from numerics.view.table import Table, name_column, text_column
from numerics.view.text import brief, hanging, named, wrapped

PARTS = r"([.:#\[\]])"  # where the parts of a name end: numbers within a part are no part of their own
WAY = "table(full=True)"  # what shows everything in Python


@dataclass(frozen=True)
class _Group:
    """Rows that are alike, by the pattern of their names."""

    pattern: Pattern
    rows: list[Row]

    @property
    def name(self) -> str:
        return str(self.pattern)


def groups(rows: Sequence[Row]) -> list[_Group]:
    """The rows, those that are alike and have names of one pattern together."""
    by_kind: dict[object, dict[str, list[Row]]] = {}
    for row in rows:
        key = row.kind, row.shape, row.format, row.reason, _operations(row)
        by_kind.setdefault(key, {}).setdefault(row.name, []).append(row)
    found = [
        _Group(pattern, [row for name in pattern.names for row in alike[name]])
        for alike in by_kind.values()
        for pattern in patterns(alike, PARTS)
    ]
    order = {id(row): k for k, row in enumerate(rows)}
    return sorted(found, key=lambda group: order[id(group.rows[0])])


def _operations(row: Row) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(use.rpartition(":")[2].partition("[")[0].partition("#")[0] for use in row.uses)
    )


def table(rows: Sequence[Row], full: bool, screen: Screen) -> list[str]:
    """The rows as the lines of a table.  full: none folded.  screen: where it has to fit."""
    shown = Table([
        text_column("kind", spare=1), text_column("n"), name_column("name", least=24), text_column("shape"),
        text_column("format"), name_column("reason", least=18), name_column("used by", least=8, spare=2),
    ], way=WAY)  # fmt: skip
    every = [group for row in rows for group in groups([row])] if full else groups(rows)
    for group in every:
        row = group.rows[0]
        ties = "".join(f" = {name}" for name in row.also) if len(group.rows) == 1 else ""
        shown.add(
            row.kind, str(len(group.rows)), f"{named(group.name)}{ties}", "x".join(map(str, row.shape)),
            brief(row.format, screen.width),
            row.told, ", ".join(_operations(row)),
        )  # fmt: skip
    lines, reasons = shown.lines(screen), list[str]()
    if screen.width is not None and any(_cut([group.rows[0].told for group in every], lines, screen)):
        shown, reasons = shown.numbered("reason")
        lines = shown.lines(screen)
    told = [line for text in map(screen.text, reasons) for line in hanging(text, screen.width or len(text))]
    below = [*told, *_in_full(every, lines, screen), *_counted(every, screen), *shown.left_out(screen)]
    return [line.rstrip() for line in (*lines, *below)]


def _in_full(every: Sequence[_Group], lines: Sequence[str], screen: Screen) -> list[str]:
    """The names that were shortened, each once and whole."""
    if screen.width is None:
        return []
    cut = _cut([group.name for group in every], lines, screen)
    return [line for text in cut for line in wrapped(f"in full: {text}", screen.width)]


def _cut(said: Sequence[str], lines: Sequence[str], screen: Screen) -> list[str]:
    """Which texts stand whole on no line, each once."""
    return [text for text in map(screen.text, dict.fromkeys(said)) if not any(text in line for line in lines)]


def _counted(every: Sequence[_Group], screen: Screen) -> list[str]:
    """Who names the tensors that braces only count."""
    if not any(group.pattern.counts for group in every):
        return []
    said = f"+N: so many more names, which {WAY if screen.plain else '--all'} shows"
    return wrapped(said, screen.width or len(said))
