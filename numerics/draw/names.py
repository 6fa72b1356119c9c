"""Names beside points: none covers another, a mark or the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numerics.draw.grids import Array
from numerics.draw.picture import GREY

SMALL = 8  # points: the names' type
Box = tuple[float, float, float, float]  # left, lower, right, upper
TALL, MARK, GAP = 10.0, 4.0, 3.0  # points of type: how tall a name is, a mark to each side, between names
ASIDE, UP = (8, 16, 28, 44, 64, 90, 120), range(-24, 25)  # where a name can stand: points of type, names
Point = tuple[float, float]
Line = tuple[Point, Point]


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
            ha="left" if x > 0 else "right", arrowprops=line if is_apart((x, y)) else None,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _places(spots: Array, widths: Sequence[float], panel: Box, every: bool) -> list[Point | None]:
    """How far from its spot each name stands, so that it covers no other, no mark and not the frame, and that
    the line to it crosses no other and no name, where there is such a place.

    Names are of the first spots; None where there is no room: such a name takes its place nevertheless where
    every one is written.
    """
    taken = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in spots]
    lines: list[Line] = []
    near = sorted(
        ((side * aside, up * TALL) for side in (1, -1) for aside in ASIDE for up in UP),
        key=lambda place: math.hypot(*place),
    )
    found: list[Point | None] = []
    for (x, y), wide in zip(spots, widths, strict=False):
        boxes = ((place, _box(x, y, place, wide)) for place in near)
        free = [one for one in boxes if _inside(one[1], panel) and not _covers(one[1], taken)]
        clear = (one for one in free if _is_clear((x, y), *one, lines, taken))
        place, box = next(clear, free[0] if free else (None, None))
        if place is not None and is_apart(place):
            lines.append(((x, y), (x + place[0], y + place[1])))
        taken += [box or _box(x, y, near[0], wide)] if box or every else []
        found.append(place)
    return found


def is_apart(place: Point) -> bool:
    """Does a name stand so far from its spot that a line leads to it?"""
    return abs(place[0]) > ASIDE[0] or place[1] != 0


def _is_clear(spot: Point, place: Point, box: Box, lines: Sequence[Line], taken: Sequence[Box]) -> bool:
    """Does no line that is there cross the name, and its own line no other and nothing but its mark?"""
    if any(_crosses_box(line, box) for line in lines):
        return False
    if not is_apart(place):
        return True
    own = (spot, (spot[0] + place[0], spot[1] + place[1]))
    others = (one for one in taken if not (one[0] <= spot[0] <= one[2] and one[1] <= spot[1] <= one[3]))
    return not any(_cross(own, line) for line in lines) and not any(_crosses_box(own, one) for one in others)


def _cross(one: Line, other: Line) -> bool:
    """Do two lines cross, within both?"""
    (a, b), (c, d) = one, other
    return _turn(a, b, c) != _turn(a, b, d) and _turn(c, d, a) != _turn(c, d, b)


def _turn(a: Point, b: Point, c: Point) -> bool:
    """Does the way from a over b to c turn left?"""
    return (b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0])


def _crosses_box(line: Line, box: Box) -> bool:
    left, low, right, high = box
    sides = (((left, low), (right, high)), ((left, high), (right, low)))
    return any(_cross(line, side) for side in sides)


def _width(figure: Any, name: str) -> float:
    """How many dots wide a name is."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=SMALL)
    return float(figure.canvas.get_renderer().get_text_width_height_descent(name, font, False)[0])


def _box(x: float, y: float, place: tuple[float, float], wide: float) -> Box:
    """Where a name lies that is so wide."""
    start, wide = x + place[0], wide + GAP
    return (start - wide * (place[0] < 0), y + place[1] - TALL / 2,
            start + wide * (place[0] > 0), y + place[1] + TALL / 2)  # fmt: skip


def _inside(box: Box, panel: Box) -> bool:
    return box[0] >= panel[0] and box[1] >= panel[1] and box[2] <= panel[2] and box[3] <= panel[3]


def _covers(box: Box, others: list[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in others
    )
