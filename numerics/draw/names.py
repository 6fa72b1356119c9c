"""Names beside points: none covers another, a mark or the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numerics.draw.grids import Array
from numerics.draw.picture import GREY

SMALL = 8  # points: the names' type
Box = tuple[float, float, float, float]  # left, lower, right, upper
TALL, MARK = 10.0, 4.0  # points of type: how tall a name is, and a mark to each side
ASIDE, UP = (8, 16, 28, 44, 64, 90, 120), range(-24, 25)  # where a name can stand: points of type, names
Point = tuple[float, float]


def name_points(
    panel: Any,
    points: Sequence[Point],
    names: Sequence[str],
    others: Sequence[Point] = (),
    every: bool = True,
) -> None:
    """Writes the names beside their points, with a line to those that stand further away.

    panel: has its limits and its place already.  others: marks that no name covers either.  every: a name
    for which there is no room covers what is there; else it is left away.
    """
    from matplotlib.patheffects import withStroke

    if not points:
        return
    scale = 72 / panel.figure.dpi
    low, high = panel.transAxes.transform([(0, 0), (1, 1)]) * scale
    spots = panel.transData.transform([*points, *others]) * scale
    wide = [_width(panel.figure, name) * scale for name in names]
    found = _places(spots, wide, (*low, *high), every)
    for point, place, name in zip(points, found, names, strict=True):
        if place is None and not every:
            continue
        x, y = place or (ASIDE[0], 0)
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        panel.annotate(
            name, point, xytext=(x, y), textcoords="offset points", fontsize=SMALL, va="center",
            ha="left" if x > 0 else "right", arrowprops=line if abs(x) > ASIDE[0] or y else None,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _places(spots: Array, widths: Sequence[float], panel: Box, every: bool) -> list[Point | None]:
    """How far from its spot each name stands, so that it covers no other, no mark and not the frame.

    Names are of the first spots; None where there is no room: such a name takes its place nevertheless where
    every one is written.
    """
    taken = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in spots]
    near = sorted(
        ((side * aside, up * TALL) for side in (1, -1) for aside in ASIDE for up in UP),
        key=lambda place: math.hypot(*place),
    )
    found: list[Point | None] = []
    for (x, y), wide in zip(spots, widths, strict=False):
        boxes = ((place, _box(x, y, place, wide)) for place in near)
        free = (one for one in boxes if _inside(one[1], panel) and not _covers(one[1], taken))
        place, box = next(free, (None, None))
        taken += [box or _box(x, y, near[0], wide)] if box or every else []
        found.append(place)
    return found


def _width(figure: Any, name: str) -> float:
    """How many dots wide a name is."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=SMALL)
    return float(figure.canvas.get_renderer().get_text_width_height_descent(name, font, False)[0])


def _box(x: float, y: float, place: tuple[float, float], wide: float) -> Box:
    """Where a name lies that is so wide."""
    start = x + place[0]
    return (start - wide * (place[0] < 0), y + place[1] - TALL / 2,
            start + wide * (place[0] > 0), y + place[1] + TALL / 2)  # fmt: skip


def _inside(box: Box, panel: Box) -> bool:
    return box[0] >= panel[0] and box[1] >= panel[1] and box[2] <= panel[2] and box[3] <= panel[3]


def _covers(box: Box, others: list[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in others
    )
