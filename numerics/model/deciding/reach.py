"""What a plan quantizes and its mode does not reach, and the rules that leave it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from numerics.model.deciding.rows import Row
from numerics.view.text import folded

_NUMBER = re.compile(r"(?<![^.])[0-9]+(?![^.])")


def pattern_of(name: str) -> str:
    """A module's name as a pattern of all layers that are alike: "*" for each number between its dots.

    >>> pattern_of("layers.10.linear1")
    'layers.*.linear1'
    """
    return _NUMBER.sub("*", name)


def unreached(rows: Sequence[Row]) -> str | None:
    """What is said of computed tensors that only a graph reaches, with rules for all of them; None for none.

    rows: of a plan in eager mode.
    """
    alone = [row for row in rows if row.graph and row.spec is not None and row.site is not None]
    if not alone:
        return None
    kinds = dict.fromkeys(f"{row.kind}s" for row in alone)
    nothing = "{" + ", ".join(f"{kind!r}: None" for kind in kinds) + "}"
    rules = ", ".join(f"{where!r}: {nothing}" for where in _patterns(rows, alone))
    return (
        f"only mode='fx_graph_mode' reaches {folded(str(row.site) for row in alone)}: they are inside fused "
        f"functions or regions of control flow; rules={{{rules}}} leaves them"
    )


def _patterns(rows: Sequence[Row], alone: Sequence[Row]) -> list[str]:
    """As few patterns as name all modules of these rows and none whose tensors are reached."""
    reached = [row.site.module for row in rows if row.site and row.spec and not row.graph]
    found: dict[str, None] = {}
    for row in alone:
        assert row.site is not None
        module = row.site.module
        if not module or module in reached:
            found[str(row.site)] = None
            continue
        where = pattern_of(module)
        found[module if any(fnmatch.fnmatchcase(one, where) for one in reached) else where] = None
    return list(found)
