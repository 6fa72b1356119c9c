"""A tensor in a format as a picture: data over the grid, codes in use, error against magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np

from numerics.draw.grids import Array, Rounded, decibels, grid, rounded
from numerics.draw.picture import BLACK, BLUE, GREY, ORANGE, RED, Picture, canvas, styled

BINS = 120
MOST = 512  # bars, and lines of a grid


def tensor(x: Any, d: Any, **options: Any) -> Picture:
    """Draws what becomes of a tensor: its histogram over the grid of codes, their use, and the error.

    x: an array, a torch tensor or nested lists.  d, options: as for `nx.quantize`.
    Above the values in units of their own scales, so that one grid holds for all, with the share that is
    clipped: that lies more than half a step beyond the grid's largest or smallest value; in the middle how
    often each value of the grid is taken, and which never; below the error of each value against its
    magnitude. Raises what `nx.quantize` does, and NumericsError where matplotlib is missing.

    >>> import numerics as nx
    >>> nx.draw.tensor([0.1, -0.7, 2.1, 3.5], "int4").alt
    'A tensor of shape 4 in int4: 24.6 dB, 4 of 16 values of the grid in use, 0.00 % of the elements clipped.'
    """
    found = rounded(x, d, **options)
    used, counts = _use(found)
    never = len(used) - int(np.count_nonzero(counts))
    clipped = 100 * found.cut.mean()
    with styled():
        figure, axes = canvas(3, 1, (8, 7.6), height_ratios=(1.5, 1.1, 1.4))
        figure.suptitle(
            f"{_shape(found.x)} in {found.q.spec.dtype}: {decibels(found.sqnr)}", x=0.01, ha="left"
        )
        top, middle, bottom = axes[:, 0]
        _histogram(top, found, used, clipped)
        _bars(middle, used, counts, never)
        top.sharex(middle)
        _errors(bottom, found)
    alt = (
        f"A tensor of shape {_shape(found.x)} in {found.q.spec.dtype}: {decibels(found.sqnr)}, "
        f"{len(used) - never} of {len(used)} values of the grid in use, "
        f"{clipped:.2f} % of the elements clipped."
    )
    return Picture(figure, alt)


def _shape(x: Array) -> str:
    return "x".join(map(str, x.shape)) or "()"


def _use(found: Rounded) -> tuple[Array, Array]:
    """The finite values of the grid, and how many elements took each."""
    values = grid(found.q.format)
    with np.errstate(all="ignore"):
        on = found.y / found.unit + found.zero
    on = on[np.isfinite(on)]
    places = np.clip(np.searchsorted(values, on), 1, max(len(values) - 1, 1))
    nearer = np.abs(values[places - 1] - on) <= np.abs(values[places] - on)
    counts = np.bincount(places - nearer, minlength=len(values))
    return values, counts


def _histogram(axes: Any, found: Rounded, values: Array, clipped: float) -> None:
    data = found.normal[np.isfinite(found.normal)]
    low, high = min(data.min(initial=0), values[0]), max(data.max(initial=0), values[-1])
    if len(values) <= MOST:
        for value in values:
            axes.axvline(value, color=GREY, linewidth=0.5, alpha=0.6)
    axes.hist(data, bins=np.linspace(low, high, BINS), color=BLUE, alpha=0.85)
    for end in (values[0], values[-1]):
        axes.axvline(end, color=RED, linewidth=1.4)
    axes.set(
        ylabel="elements", yscale="log",
        title="the data over the grid, in units of their scales; red: its ends\n"
        f"{clipped:.2g} % clipped: more than half a step beyond an end",
    )  # fmt: skip


def _bars(axes: Any, values: Array, counts: Array, never: int) -> None:
    share = 100 * counts / max(counts.sum(), 1)
    if len(values) <= MOST:
        axes.vlines(values, 0, share, color=BLUE, linewidth=2.2 if len(values) < 64 else 1)
        if never:
            axes.plot(values[counts == 0], np.zeros(never), "|", color=RED, markersize=7)
    else:
        axes.plot(values, share, color=BLUE, linewidth=0.6)
    said = f"; red: the {never} of {len(values)} that nobody takes" if never else f": all {len(values)}"
    axes.set(ylabel="% of elements", title=f"values of the grid in use{said}")


def _errors(axes: Any, found: Rounded) -> None:
    """The error in percent of the value, as the median and the worst of each quarter of a binade."""
    x, y = np.abs(found.x).ravel(), np.abs(found.y - found.x).ravel()
    keep = np.isfinite(x) & np.isfinite(y) & (x > 0)
    if not keep.any():
        return
    x, y = x[keep], y[keep]
    places = np.floor(4 * np.log2(x)).astype(int)
    spots = np.unique(places)
    relative = 100 * y / x
    middle = [float(np.median(relative[places == spot])) for spot in spots]
    worst = [float(relative[places == spot].max()) for spot in spots]
    at = np.exp2((spots + 0.5) / 4)
    axes.plot(at, np.minimum(worst, 100), color=ORANGE, linewidth=1.2, label="worst")
    axes.plot(at, np.minimum(middle, 100), color=BLUE, linewidth=1.8, label="median")
    axes.axhline(100, color=BLACK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set(
        xlabel="|x|", ylabel="error, % of |x|", ylim=(0, 108),
        title="error against magnitude; at 100 % nothing is left of a value",
    )  # fmt: skip
    axes.legend(loc="center left")
