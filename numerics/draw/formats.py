"""Formats beside each other on one tensor: what is left of it against the bits that it takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from numerics.draw.grids import Array, array_of, check_options, formats_asked, rounded
from numerics.draw.names import name_points
from numerics.draw.picture import BLUE, GREEN, GREY, ORANGE, RED, Picture, canvas, named, styled
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Integer
from numerics.formats.errors import NumericsError
from numerics.formats.registry import dtypes
from numerics.tensor.spec import QuantSpec, described
from numerics.view.table import MADE, Column, Table, measured, name_column
from numerics.view.text import became, decibels

Progress = Callable[[str, int, int], None]
FEW = 12  # formats whose names have room beside each other
TICKS = (2, 3, 4, 6, 8, 12, 16)  # bits
MARKS = {
    "integer": ("s", ORANGE), "float": ("o", BLUE), "codebook": ("^", RED), "block": ("D", GREEN)
}  # fmt: skip


class Kept(NamedTuple):
    """What a format leaves of a tensor: SQNR in dB, bits a value, how many finite values became NaN or Inf.

    name, kind: the format's.
    """

    sqnr: float
    bits: float
    name: str
    kind: str
    lost: int = 0

    @property
    def said(self) -> str:
        """What is left, in words."""
        return decibels(self.sqnr) + (f", {became(self.lost)}" if self.lost else "")


@keywords
def formats(x: Any, formats: Iterable[Any] | None = None, **options: Any) -> Picture:
    """Draws formats by what each leaves of a tensor, in dB, and the bits that it takes for a value.

    x: an array, a torch tensor or nested lists.  formats: what `nx.quantize` takes, one or several; None (the
    default) for every format of the tables that has negative values.  options: as for `nx.quantize`, for all.
    The line joins those that no other beats in both. Raises what `nx.quantize` does, and NumericsError
    where matplotlib is missing.

    >>> import numpy as np, numerics as nx
    >>> x = np.random.default_rng(0).standard_normal(4096, np.float32)
    >>> nx.draw.formats(x, ["int4", "mxfp4"]).alt
    'Formats by what they leave of 4096 values: mxfp4 4.25 bits, 19.0 dB; int4 4.008 bits, 17.1 dB.'
    """
    _check(options, x)
    data = array_of(x)
    return pictured(compared(data, formats, options), data.size)


def _check(options: dict[str, Any], x: Any) -> None:
    """Raises UnknownArgument for options that `formats` does not take, whose own parameter has its name."""
    check_options(formats, options, x)


def compared(
    data: Array, formats: Iterable[Any] | None, options: dict[str, Any], progress: Progress | None = None
) -> list[Kept]:
    """What each of the formats leaves of a tensor, the one that leaves most first; `formats` says of what.

    progress: called with the name of a format, how many are done, and of how many.
    """
    wanted = [d for d in dtypes() if _signed(d)] if formats is None else formats_asked(formats)
    if not wanted:
        raise NumericsError("no format was given: name one, or several")
    rows: list[Kept] = []
    for place, one in enumerate(wanted):
        spec = one if isinstance(one, QuantSpec) else QuantSpec(one)
        name = described(spec)
        if progress is not None:
            progress(name, place, len(wanted))
        found = rounded(data, one, **options)
        rows.append(Kept(found.sqnr, found.q.bits, name, spec.dtype.kind, found.lost))
    rows.sort(key=lambda row: (not math.isnan(row.sqnr), *row), reverse=True)
    return rows


def table_of(rows: list[Kept]) -> Table:
    """A line a format."""
    any_lost = any(row.lost for row in rows)
    made = Table([name_column("format"), Column("bits"), Column("SQNR dB"), *[MADE] * any_lost])
    for row in rows:
        known = measured(row.sqnr, "{:.2f}".format)
        made.add(row.name, f"{row.bits:.4g}", known, *[f"{row.lost:d}"] * any_lost)
    return made


def pictured(rows: list[Kept], count: int) -> Picture:
    """The picture of what formats leave of so many values."""
    with styled():
        figure = _scatter(rows, count)
    said = "; ".join(f"{row.name} {row.bits:.4g} bits, {row.said}" for row in rows)
    return Picture(figure, f"Formats by what they leave of {count} values: {said}.")


def _signed(d: Any) -> bool:
    """Can it hold numbers of either sign, by itself?"""
    return bool(d.min < 0) and not (isinstance(d, Integer) and not d.signed)


def _scatter(rows: list[Kept], count: int) -> Any:
    figure, axes = canvas(1, 1, (8, 7) if len(rows) <= FEW else (11, 10))
    panel = axes[0, 0]
    finite = [row for row in rows if math.isfinite(row.sqnr)]
    best: list[tuple[float, float]] = []
    for row in sorted(finite, key=lambda row: (row.bits, -row.sqnr)):
        if not best or row.sqnr > best[-1][1]:
            best.append((row.bits, row.sqnr))
    panel.plot(
        [bits for bits, _ in best],
        [sqnr for _, sqnr in best],
        color=GREY,
        linewidth=0.9,
        drawstyle="steps-post",
        zorder=1,
    )
    for kind, (mark, colour) in MARKS.items():
        some = [(row.bits, row.sqnr) for row in finite if row.kind == kind]
        if some:
            panel.scatter(*zip(*some, strict=True), marker=mark, s=34, color=colour, label=kind, zorder=2,
                          edgecolors="white", linewidths=0.6)  # fmt: skip
    panel.set(
        xlabel="bits a value, scales included", ylabel="SQNR, dB (higher is better)",
        title=f"{count:,} values in {len(rows)} formats; grey: no other is better for fewer bits"
        f"{_not_drawn(rows)}",
    )  # fmt: skip
    panel.margins(x=0.12, y=0.07)
    if len(rows) > FEW:  # most have 3 to 9 bits, which are apart so
        panel.set_xscale("log", base=2)
        panel.set_xticks(TICKS, list(map(str, TICKS)))
        panel.minorticks_off()
    if finite:
        panel.legend(loc="lower right")
    figure.draw_without_rendering()  # now the panel has its place
    points = [(row.bits, row.sqnr) for row in finite]
    name_points(panel, points, [named(row.name) for row in finite])
    return figure


def _not_drawn(rows: list[Kept]) -> str:
    """How many formats have no place in the picture, and why."""
    said = Counter(decibels(row.sqnr) for row in rows if not math.isfinite(row.sqnr))
    return f"\nnot drawn: {', '.join(f'{count} {why}' for why, count in said.items())}" if said else ""
