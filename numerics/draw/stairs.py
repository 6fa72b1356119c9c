"""Roundings as staircases: what comes out against what goes in, and where ties go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from numerics.draw.grids import Array, grid
from numerics.draw.picture import BLACK, BLUE, GREY, RED, RED_SAID, Picture, canvas, named, styled
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, said
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.rounding import check_rounding

STEPS = 4  # of the grid on each side of zero
STOCHASTIC = "stochastic"
DRAWS = 64  # of stochastic rounding, at each place


@keywords
def rounding(
    dtype: Any, rounding: str | Sequence[str] = "half_even", *, around: float | None = None
) -> Picture:
    """Draws roundings of a format as staircases: a panel each, a dot where each tie goes.

    dtype: an element format or its name.  rounding: one of the modes of `Element.encode`, or several.  Of
    stochastic rounding the mean of 64 draws is drawn (seed 0 … 63).
    around: the value in the middle; None (the default) for 0, or for the lowest values where unsigned.
    Raises NumericsError for a block format, another rounding, a middle that is no finite number, and where
    matplotlib is missing.

    >>> import numerics as nx
    >>> nx.draw.rounding("fp4", ["half_even", "toward_zero"]).alt
    'Roundings of fp4 from -2 to 2: half_even, toward_zero. Ties go: half_even, -1.75 to -2, -1.25 to -1, \
-0.75 to -1, -0.25 to -0, 0.25 to 0, 0.75 to 1, 1.25 to 1, 1.75 to 2.'
    """
    d = find_dtype(dtype)
    if not isinstance(d, Element):
        raise NumericsError(
            f"{d} is a block format: nx.draw.block shows how it rounds; here an element format"
        )
    middle = _middle(around)
    modes = [check_rounding(one) for one in ([rounding] if isinstance(rounding, str) else rounding)]
    if not modes:
        raise NumericsError("no rounding was given: name one, such as 'half_even'")
    shown = _window(grid(d), middle)
    columns = min(len(modes), 4)
    with styled():
        rows = -(-len(modes) // columns)
        figure, axes = canvas(rows, columns, (max(3.0 * columns, 4.5), 3.2 * rows), sharex=True, sharey=True)
        ties = f"; {RED_SAID}: ties" if any(mode != STOCHASTIC for mode in modes) else ""
        figure.suptitle(f"{named(str(d))}: what comes out against what goes in{ties}", x=0.01, ha="left")
        for panel, mode in zip(axes.flat, modes, strict=False):
            _stairs(panel, d, mode, shown)
        for panel in axes.flat[len(modes) :]:
            panel.set_visible(False)
    return Picture(figure, _alt(d, modes, shown))


def _middle(around: Any) -> float:
    """The value in the middle; raises NumericsError for what is no finite number."""
    try:
        found = 0.0 if around is None else float(around)
    except Exception:  # whatever what came raises: it is no number
        found = math.nan
    if not math.isfinite(found):
        raise NumericsError(f"around={said(around)} is no value; allowed: a finite number")
    return found


def _window(found: Array, around: float) -> Array:
    """Values of the grid around one."""
    middle = int(np.argmin(np.abs(found - np.clip(around, found.min(), found.max()))))
    low = max(0, min(middle - STEPS, len(found) - 2 * STEPS - 1))
    return found[low : low + 2 * STEPS + 1]


def _stairs(axes: Any, d: Element, mode: str, shown: Array) -> None:
    ends = shown[[0, -1]]
    x = np.unique(np.concatenate([np.linspace(a, b, 65) for a, b in pairwise(shown)]))
    axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=":")
    if mode == STOCHASTIC:
        axes.plot(x, _mean(d, x), color=BLUE, linewidth=1.6)
    else:
        y = d.round(x, rounding=mode)
        jumps = np.flatnonzero(np.diff(y))
        broken, at = np.insert(y, jumps + 1, np.nan), np.insert(x, jumps + 1, np.nan)
        axes.plot(at, broken, color=BLUE, linewidth=2.2, solid_capstyle="butt")
        middle = (shown[1:] + shown[:-1]) / 2
        axes.plot(middle, d.round(middle, rounding=mode), "o", color=RED, markersize=4.5)
    axes.plot(shown, shown, "_", color=BLACK, markersize=4)
    axes.set_title(f"{mode}\nmean of {DRAWS} draws" if mode == STOCHASTIC else mode)
    axes.set_aspect("equal" if mode != STOCHASTIC else "auto")


def _mean(d: Element, x: Array) -> Array:
    draws = [d.round(x, rounding=STOCHASTIC, seed=seed) for seed in range(DRAWS)]
    return np.asarray(np.mean(draws, axis=0))


def _alt(d: Element, modes: list[str], shown: Array) -> str:
    middle = (shown[1:] + shown[:-1]) / 2
    said = []
    for mode in modes:
        if mode.startswith("half"):
            ties = zip(middle, d.round(middle, rounding=mode), strict=True)
            said.append(f"{mode}, " + ", ".join(f"{x:g} to {y:g}" for x, y in ties))
    ends = f" Ties go: {'; '.join(said)}." if said else ""
    names = [f"{mode} (the mean of {DRAWS} draws)" if mode == STOCHASTIC else mode for mode in modes]
    return f"Roundings of {d} from {shown[0]:g} to {shown[-1]:g}: {', '.join(names)}.{ends}"
