"""A tensor in a format as a picture: data over the grid, codes in use, error against magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np

from numerics.backends.host.quantizing import to_host
from numerics.draw.grids import (
    PART,
    Array,
    Rounded,
    array_of,
    check_options,
    code_bits,
    grid,
    rounded,
    values,
)
from numerics.draw.picture import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    RED,
    RED_SAID,
    ROOM,
    Picture,
    canvas,
    named,
    styled,
)
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import described
from numerics.view.text import became, brief, decibels

BINS = 120
MOST = 512  # bars, and lines of a grid
MANY = 1 << 20  # values of which medians are found
LOWEST, HIGHEST = 4 * 1075, 4 * 1024 + 1  # quarters of binades of float64, below and above 1


@keywords
def tensor(x: Any, dtype: Any = None, **options: Any) -> Picture:
    """Draws what becomes of a tensor: its histogram over the grid of codes, their use, and the error.

    x: an array, a torch tensor, nested lists, or a QTensor.
    dtype, options: as for `nx.quantize`; without them a QTensor is drawn as it is stored, and nothing is
        said of an error, which nobody knows.
    Above the values in units of their own scales, so that one grid holds for all, with the share that is
    clipped: that lies more than half a step beyond the grid's largest or smallest value; in the middle how
    often each value of the grid is taken, and which never; below the error of each value against its
    magnitude. Raises what `nx.quantize` does, and NumericsError where matplotlib is missing.

    >>> import numerics as nx
    >>> nx.draw.tensor([0.1, -0.7, 2.1, 3.5], "int4").alt
    'A tensor of shape 4 in int4: 24.6 dB, 4 of 16 values of the grid in use, 0.00 % of the elements clipped.'
    >>> nx.draw.tensor(nx.quantize([0.1, -0.7, 2.1, 3.5], "int4")).alt
    'A tensor of shape 4 stored in int4: 4 of 16 values of the grid in use.'
    """
    stored = dtype is None
    if not stored:
        check_options(tensor, options, x, dtype)
    found = _stored(x, options) if stored else rounded(x, dtype, **options)
    used, counts = _use(found)
    never = len(used) - int(np.count_nonzero(counts))
    known = "" if stored else _loss(found)
    how = brief(described(found.q.spec), ROOM)
    where = f"{'stored ' if stored else ''}in {named(how)}"
    with styled():
        figure, axes = canvas(2 if stored else 3, 1, (8, 5.2 if stored else 7.6),
                              height_ratios=(1.5, 1.1) if stored else (1.5, 1.1, 1.4))  # fmt: skip
        figure.suptitle(f"{_shape(found.data)} {where}{f': {known}' if known else ''}", x=0.01, ha="left")
        top, middle = axes[:2, 0]
        nobody = stored or found.error.non_finite == found.data.size
        clipped = None if nobody else 100 * found.clipped.size / found.data.size
        _histogram(top, found, used, clipped, stored)
        _bars(middle, used, counts, never)
        top.sharex(middle)
        if not stored:
            _errors(axes[2, 0], found)
    alt = (
        f"A tensor of shape {_shape(found.data)} {'stored ' if stored else ''}in {how}: "
        f"{f'{known}, ' if known else ''}{len(used) - never} of {len(used)} values of the grid in use"
        f"{'' if clipped is None else f', {clipped:.2f} % of the elements clipped'}."
    )
    return Picture(figure, alt)


def _stored(x: Any, options: dict[str, Any]) -> Rounded:
    """A tensor that is quantized already, as it is; raises NumericsError for another, and for options."""
    if not isinstance(x, QTensor):
        raise NumericsError("a tensor of floats is drawn in a format: give dtype=, such as 'int4'")
    if options:
        names = ", ".join(f"{name}=" for name in options)
        raise NumericsError(
            f"{x!r} is quantized already, and drawn as it is: leave {names} out, or give dtype= too, for its "
            "values in another format"
        )
    return Rounded(array_of(x), x)


def _loss(found: Rounded) -> str:
    """The SQNR, how many elements are in none, and how many are why there is none."""
    error = found.error
    beside = f", {error.non_finite:,} NaN or Inf" if error.non_finite else ""
    return f"{decibels(error.sqnr)}{beside}{f', {became(found.lost)}' if found.lost else ''}"


def _shape(x: Array) -> str:
    return "x".join(map(str, x.shape)) or "()"


def _use(found: Rounded) -> tuple[Array, Array]:
    """The finite values of the grid, and how many elements took each."""
    every, ends = values(found.q.format), grid(found.q.format)
    kept, codes = np.isfinite(found.decoded), to_host(found.q.codes)
    if every.size > 1 << code_bits(found.q.format):  # what a code means is not its own affair
        with np.errstate(all="ignore"):
            on = found.y / found.unit + found.zero
        on = on[np.isfinite(on)]
        places = np.clip(np.searchsorted(ends, on), 1, max(len(ends) - 1, 1))
        nearer = np.abs(ends[places - 1] - on) <= np.abs(ends[places] - on)
        return ends, np.bincount(places - nearer, minlength=len(ends))
    taken = np.bincount(codes.reshape(-1) if kept.all() else codes[kept], minlength=every.size)
    means = np.isfinite(every)
    counts = np.zeros(len(ends), np.int64)
    np.add.at(counts, np.searchsorted(ends, every[means]), taken[means])
    return ends, counts


def _histogram(axes: Any, found: Rounded, ends: Array, clipped: float | None, stored: bool) -> None:
    data = found.normal[np.isfinite(found.normal)]
    low, high = min(data.min(initial=0), ends[0]), max(data.max(initial=0), ends[-1])
    if len(ends) <= MOST:
        for value in ends:
            axes.axvline(value, color=GREY, linewidth=0.5, alpha=0.6)
    for end in (ends[0], ends[-1]):
        axes.axvline(end, color=RED, linewidth=1.4)
    share = "" if clipped is None else f"\n{clipped:.2f} % clipped: more than half a step beyond an end"
    axes.set(ylabel="elements",
             title=f"the data over the grid, in units of their scales; {RED_SAID}: its ends"
                   f"{share}")  # fmt: skip
    if data.size:
        bins = _around(ends) if stored and len(ends) <= MOST else np.linspace(low, high, BINS)
        axes.hist(data, bins=bins, color=BLUE, alpha=0.85)
        axes.set_yscale("log")
    else:
        _nothing(axes, "no finite value")


def _around(ends: Array) -> Array:
    """Where one value of a grid becomes the next: what is stored has a bar a value, and none between two."""
    middles = (ends[1:] + ends[:-1]) / 2
    return np.concatenate([2 * ends[:1] - middles[:1], middles, 2 * ends[-1:] - middles[-1:]])


def _nothing(axes: Any, why: str) -> None:
    """What stands where there is nothing to draw."""
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center")
    axes.set_yticks([])


def _bars(axes: Any, ends: Array, counts: Array, never: int) -> None:
    share = 100 * counts / max(counts.sum(), 1)
    if len(ends) <= MOST:
        axes.vlines(ends, 0, share, color=BLUE, linewidth=2.2 if len(ends) < 64 else 1)
        if never:
            axes.plot(ends[counts == 0], np.zeros(never), "|", color=RED, markersize=7)
    else:
        axes.plot(ends, share, color=BLUE, linewidth=0.6)
    said = f"; {RED_SAID}: the {never} of {len(ends)} that nobody takes" if never else f": all {len(ends)}"
    axes.set(ylabel="% of elements", title=f"values of the grid in use{said}")


def _errors(axes: Any, found: Rounded) -> None:
    """The error in percent of the value, as the median and the worst of each quarter of a binade.

    The worst is that of all values; the median that of some, drawn by lot, where there are very many.
    """
    axes.set(xlabel="|x|", ylabel="error, % of |x|", ylim=(0, 108))
    title = "error against magnitude; at 100 % nothing is left of a value"
    x, y = found.data.reshape(-1), found.decoded.reshape(-1)
    worst = np.full(LOWEST + HIGHEST, -1.0)
    for start in range(0, x.size, PART):
        places, relative = _relative(x[start : start + PART], y[start : start + PART])
        np.maximum.at(worst, places + LOWEST, relative)
    spots = np.flatnonzero(worst >= 0)
    if not spots.size:
        axes.set_title(title)
        _nothing(axes, "no finite value but 0")
        return
    if x.size > MANY:
        some = np.random.default_rng(0).integers(x.size, size=MANY)
        x, y = x[some], y[some]
        title += f"\nmedian: of {MANY:,} of {found.data.size:,} values, drawn by lot"
    asked, middle = _medians(*_relative(x, y))
    for at, error, colour, width, label in (
        (spots - LOWEST, worst[spots], ORANGE, 1.2, "worst"), (asked, middle, BLUE, 1.8, "median")
    ):  # fmt: skip
        axes.plot(np.exp2((at + 0.5) / 4), np.minimum(error, 100), color=colour, linewidth=width, label=label)
    axes.axhline(100, color=BLACK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set_title(title)
    axes.legend(loc="center left")


def _relative(x: Array, y: Array) -> tuple[Array, Array]:
    """In which quarter of a binade each value is, and its error in percent; of those that have both."""
    with np.errstate(all="ignore"):
        size, error = np.abs(x.astype(np.float64)), np.abs(y.astype(np.float64) - x)
        kept = np.isfinite(size) & np.isfinite(error) & (size > 0)
        size, error = size[kept], error[kept]
        return np.floor(4 * np.log2(size)).astype(np.int64), 100 * (error / size)


def _medians(places: Array, errors: Array) -> tuple[Array, list[float]]:
    """The places that there are, and the median error at each."""
    order = np.argsort(places, kind="stable")
    found, starts = np.unique(places[order], return_index=True)
    return found, [float(np.median(part)) for part in np.split(errors[order], starts[1:])]
