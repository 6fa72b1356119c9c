"""Groups: computed tensors that share one scale, since they meet in an operation that changes no scale.

What is joined (`cat`, `stack`) or added must lie on one grid, so that a device joins or adds codes as they
are; what is pooled, reshaped, rectified or joined stays on the grid that it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from numerics.formats.errors import NumericsError
from numerics.model.deciding.rows import Row

if TYPE_CHECKING:
    from numerics.model.deciding.rules import Asked
    from numerics.model.looking.trace import Found, Meeting, Site


def shared_scales(
    rows: Sequence[Row], found: Found, folded: Mapping[str, str], asked: Asked, share: bool
) -> list[Row]:
    """The rows of computed tensors with their groups: those that were found where share, and those of rules.

    Raises NumericsError for a share that finds nothing to share, and as `grouped`.
    """
    rules = {row.name: asked.rule("group", [row.name], [(row.site.module, None)])
             for row in rows if row.site is not None and row.spec is not None}  # fmt: skip
    told = {name: rule.group for name, rule in rules.items() if rule is not None}
    meetings = found.meetings if share else ()
    alone = {row.name: row.group for row in grouped(rows, meetings, folded, {})}
    for name, where in told.items():
        rule = rules[name]
        assert rule is not None
        if where is None and alone[name] is None:
            rule.idle = rule.idle or (name, "it shares its scale with nobody")
        else:
            rule.acts = True
    if share and not any(alone.values()):
        raise NumericsError(
            "share=True has nothing to share: no two outputs of products, planned in one format with one "
            "scale a tensor, are joined, added or go into another product; give outputs=, and observer="
        )
    return grouped(rows, meetings, folded, told)


def grouped(
    rows: Sequence[Row],
    meetings: Iterable[Meeting],
    folded: Mapping[str, str],
    told: Mapping[str, str | None],
) -> list[Row]:
    """The rows of a plan, those that share a scale with the name of their group.

    meetings: the sites whose tensors met, each with the normalizations on its way, which must be folded
    away.  told: by the names of rows what rules say: a group, or None for a scale of its own.
    Raises NumericsError for what rules put into a group and cannot share.
    """
    by_site = {row.site: row for row in rows if row.site is not None and _shares(row)}
    group: dict[str, str] = {}
    for one in _joined(_of_plan(meetings, by_site, folded, told)):
        for alike in _alike([by_site[site] for site in by_site if site in one]):
            group |= {row.name: alike[0].name for row in alike if len(alike) > 1}
    group |= {name: where for name, where in told.items() if where is not None}
    _check(rows, told)
    return [replace(row, group=group.get(row.name)) for row in rows]


def _shares(row: Row) -> bool:
    """Can its scale be one for several tensors: of single numbers, one for all of them?"""
    spec = row.spec
    return (
        spec is not None and spec.scaled and not spec.blocked and spec.scheme_of_elements.kind == "per_tensor"
    )


def _of_plan(
    meetings: Iterable[Meeting], by_site: Mapping[Site, Row], folded: Mapping[str, str],
    told: Mapping[str, str | None],
) -> Iterator[set[Site]]:  # fmt: skip
    """Of each meeting the sites that are planned, whose way is free, and that no rule speaks of."""
    for meeting in meetings:
        found = {site for site, norms in meeting if site in by_site and folded.keys() >= set(norms)}
        yield {site for site in found if by_site[site].name not in told}


def _joined(sets: Iterable[set[Site]]) -> list[set[Site]]:
    """Sets without a common element, each the union of those that have one."""
    found: list[set[Site]] = []
    for one in sets:
        apart = [other for other in found if not other & one]
        found = [*apart, one.union(*(other for other in found if other & one))]
    return found


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows by format and observer, in order: a scale belongs to both."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        found.setdefault((row.spec.text if row.spec else "", row.observer), []).append(row)
    return list(found.values())


def _check(rows: Sequence[Row], told: Mapping[str, str | None]) -> None:
    """Raises NumericsError where rules put together what cannot share a scale."""
    for name in dict.fromkeys(where for where in told.values() if where is not None):
        members = [row for row in rows if told.get(row.name) == name]
        for row in members:
            if not _shares(row):
                raise NumericsError(
                    f"{row.name} is in the group {name!r} and is {row.format}: what shares a scale is of "
                    "single numbers with one scale for a tensor, such as 'int8', not of blocks (which find "
                    "theirs in each block), channels or groups"
                )
        if len(_alike(members)) > 1:
            first, other = (alike[0] for alike in _alike(members)[:2])
            raise NumericsError(
                f"the group {name!r} has {first.name} in {first.format} and {other.name} in {other.format}: "
                "one scale is for one format and one observer"
            )
        if len(members) < 2:
            raise NumericsError(f"the group {name!r} has {members[0].name} alone, which shares with nobody")
