"""Formats beside each other on one tensor: what is left of it against the bits that it takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numerics.draw.grids import array_of, decibels
from numerics.draw.picture import BLUE, GREEN, GREY, ORANGE, Picture, canvas, styled
from numerics.formats.dtype import Integer
from numerics.formats.errors import NumericsError
from numerics.formats.registry import dtype, dtypes
from numerics.quantization import quantize
from numerics.tensor.spec import QuantSpec

LABEL, HEIGHT = 9.5, 340.0  # points of type: of a name, and of the panel where there are points
MARKS = {"integer": ("s", ORANGE), "float": ("o", BLUE), "block": ("D", GREEN)}


def formats(x: Any, formats: Iterable[Any] | None = None, **options: Any) -> Picture:
    """Draws formats by what each leaves of a tensor, in dB, and the bits that it takes for a value.

    x: an array, a torch tensor or nested lists.  formats: what `nx.quantize` takes, each; None (the default)
    for every format of the tables that has negative values.  options: as for `nx.quantize`, for all.
    The line joins those that no other beats in both. Raises what `nx.quantize` does, and NumericsError
    where matplotlib is missing.

    >>> import numpy as np, numerics as nx
    >>> x = np.random.default_rng(0).standard_normal(4096, np.float32)
    >>> nx.draw.formats(x, ["int4", "mxfp4"]).alt
    'Formats by what they leave of 4096 values: mxfp4 4.25 bits, 19.0 dB; int4 4.008 bits, 17.1 dB.'
    """
    data = array_of(x)
    wanted = [d for d in dtypes() if _signed(d)] if formats is None else list(formats)
    if not wanted:
        raise NumericsError("no format was given: name one, or several")
    rows = []
    for one in wanted:
        q = quantize(data, one, **options)
        d = one.dtype if isinstance(one, QuantSpec) else dtype(one)
        rows.append((q.error(data).sqnr, q.bits, str(d), d.kind))
    rows.sort(reverse=True)
    with styled():
        figure = _scatter(rows, data.size)
    said = "; ".join(f"{name} {bits:.4g} bits, {decibels(sqnr)}" for sqnr, bits, name, _ in rows)
    return Picture(figure, f"Formats by what they leave of {data.size} values: {said}.")


def _signed(d: Any) -> bool:
    """Can it hold numbers of either sign, by itself?"""
    return bool(d.min < 0) and not (isinstance(d, Integer) and not d.signed)


def _scatter(rows: list[tuple[float, float, str, str]], count: int) -> Any:
    figure, axes = canvas(1, 1, (8, 6.2))
    panel = axes[0, 0]
    finite = [row for row in rows if row[0] < float("inf")]
    best: list[tuple[float, float]] = []
    for sqnr, bits, _, _ in sorted(finite, key=lambda row: (row[1], -row[0])):
        if not best or sqnr > best[-1][1]:
            best.append((bits, sqnr))
    panel.plot(*zip(*best, strict=True), color=GREY, linewidth=0.9, drawstyle="steps-post", zorder=1)
    for kind, (mark, colour) in MARKS.items():
        some = [(bits, sqnr) for sqnr, bits, _, its in finite if its == kind]
        if some:
            panel.scatter(*zip(*some, strict=True), marker=mark, s=34, color=colour, label=kind, zorder=2)
    for (bits, sqnr), points, name in _spread([row[:3] for row in finite]):
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6} if abs(points) > LABEL / 2 else None
        panel.annotate(
            name, (bits, sqnr), xytext=(14 if line else 7, points), textcoords="offset points",
            fontsize=8, va="center", arrowprops=line,
        )  # fmt: skip
    panel.set(
        xlabel="bits a value, scales included", ylabel="SQNR, dB (higher is better)",
        title=f"{count:,} values in {len(rows)} formats; grey: no other is better for fewer bits",
    )  # fmt: skip
    panel.margins(x=0.12)
    panel.legend(loc="lower right")
    return figure


def _spread(rows: list[tuple[float, float, str]]) -> list[tuple[tuple[float, float], float, str]]:
    """The points, with how far up or down, in points of type, each name goes, so that none covers another."""
    if not rows:
        return []
    unit = (max(row[0] for row in rows) - min(row[0] for row in rows) or 1.0) / HEIGHT
    wide = (max(row[1] for row in rows) - min(row[1] for row in rows) or 1.0) / 8
    placed: list[tuple[float, float]] = []
    found = []
    for sqnr, bits, name in sorted(rows, key=lambda row: (-row[0], row[1])):
        at = sqnr
        while near := [
            other for b, other in placed if abs(b - bits) < wide and abs(other - at) < LABEL * unit
        ]:
            at = min(near) - 1.01 * LABEL * unit
        placed.append((bits, at))
        found.append(((bits, sqnr), (at - sqnr) / unit, name))
    return found
