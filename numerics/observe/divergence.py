"""KL: the range by which quantized values are distributed most like the values themselves."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.observe.bins import Bins
from numerics.observe.histogram import Seen
from numerics.observe.search import OCTAVES, Ranges, Search, levels, sums

Array = NDArray[Any]
CUTS = 8  # of what becomes one level: TensorRT has 1 to 16 bins there, the more the wider the range
SLACK = 1 + 2.0**-20  # the largest value is in the widest range, however its scale was rounded


class KL(Search):
    """Observes values, and finds the range whose quantized values are distributed most like them.

    dtype and the other options: as for `Observer`.
    bins: how many an octave is cut into, a power of two from 64 to 2**20, by default 256; as for `Histogram`.

    This is TensorRT's entropy calibration (S. Migacz, GTC 2017), for every format and for both signs, with a
    resolution that follows range and data: for each range that is tried, what becomes one level is cut
    into 8 equal parts, what becomes zero into 8 of equal ratios an octave, down to the value nearest to
    zero.  The divergence of a range: the sum over all parts of P * log(P / Q).  P is how many values a
    part holds, what the range clips added to the outermost parts that have values.  Q spreads the values
    of each level over its parts that have some, by their widths, without what is clipped.  Zeros are in
    neither, since every format keeps them.  Values of one bin are taken to spread evenly from its least
    to its largest: so few values count where they are.  Tried are sixteen ranges an octave, in every
    octave that has values, down to where half of them would be clipped.  Raises NumericsError as `MSE`,
    and where bins are too wide for the levels: codes above 2 * bins.

    >>> import numpy as np
    >>> watching = KL("int4")
    >>> watching.observe(np.append(np.linspace(-1, 1, 100001), 2.5))
    >>> round(float(watching.scale * 7), 3)
    1.25
    """

    zooms: ClassVar[int] = 0

    @keywords
    def __init__(self, dtype: Any, **options: Any) -> None:
        super().__init__(dtype, **options)
        codes = 1 << self.spec.element.bits
        if codes > 2 * self.bins:
            raise NumericsError(
                f"{self.spec.dtype} has {codes} codes, too many for {self.bins} bins an octave; "
                f"allowed: bins={codes // 2} and more"
            )

    def _choose(self, seen: Seen) -> tuple[Array, Array]:
        return super()._choose(seen.where(seen.bins.least != 0))

    def _worth_trying(self, ranges: Ranges, octave: int) -> bool:
        """Where it has values, or the octave below has."""
        ends = (ranges.at(math.ldexp(1.0, -power)) for power in (octave, octave + 2))
        wide, narrow = (_within(ranges.seen, *end) for end in ends)
        return bool((wide > narrow).any())

    def _over(self, seen: Seen, low: Array, high: Array, least: Array) -> Array:
        """Where half of the values are clipped."""
        return 2 * _within(seen, low, high) <= sums(seen, seen.bins.counts)

    def _loss(self, seen: Seen, low: Array, high: Array) -> Array:
        scale, zero = self._found(low, high)
        ends, found = boundaries(self.spec.element), np.full(len(scale), np.inf)
        for place in range(len(scale)):
            own = seen.bins.part(slice(*seen.starts[place : place + 2]))
            if own.counts.size:
                with ieee_arithmetic():
                    found[place] = _divergence(own, (ends - zero[place]) * scale[place])
        return found


def _within(seen: Seen, low: Array, high: Array) -> Array:
    """How many values each range keeps, by bins."""
    kept = (seen.bins.largest >= low[seen.owner]) & (seen.bins.least <= high[seen.owner])
    return sums(seen, seen.bins.counts * kept)


@lru_cache(maxsize=64)
def boundaries(element: Element) -> NDArray[np.float64]:
    """What lies between two of these becomes one level; in the numbers that codes stand for.

    The least level of a format without zero, such as e8m0, takes what is nearer to zero, too.
    """
    found = levels(element)
    return np.concatenate([np.minimum(found.values[:1], 0), found.middles, found.values[-1:]])


def _divergence(bins: Bins, ends: NDArray[np.float64]) -> float:
    """Returns the divergence of one scale, for levels with these boundaries."""
    edges, level = _parts(ends, float(np.minimum(np.abs(bins.least), np.abs(bins.largest)).min()))
    below = _below(bins, edges)
    kept, widths = np.diff(below), np.diff(edges)
    filled = np.flatnonzero(kept)
    if filled.size == 0:
        return np.inf
    p = kept.copy()
    p[filled[0]] += below[0]
    p[filled[-1]] += bins.counts.sum() - below[-1]
    level, widths = level[filled], widths[filled]
    q = widths * (np.bincount(level, kept[filled]) / np.bincount(level, widths))[level]
    p, q = p[filled] / p.sum(), q / kept.sum()
    return float((p * np.log(p / q)).sum())


def _parts(ends: NDArray[np.float64], nearest: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The edges of the parts of all levels, and the level of each part.

    The level about zero is cut by octaves, down to the value that is nearest to zero: however wide a
    level becomes, the shape of what it swallows is seen.
    """
    zero = min(int(np.searchsorted(ends, 0, side="right")), len(ends) - 1) - 1
    below, above = (_by_octaves(end, nearest) for end in ends[zero : zero + 2])
    edges = np.concatenate([
        _evenly(ends[: zero + 1])[:-1], -below, above[::-1], _evenly(ends[zero + 1 :])[1:],
    ])  # fmt: skip
    about = len(below) + len(above) - 1
    level = np.concatenate([
        np.arange(CUTS * zero) // CUTS, np.full(about, zero),
        np.arange(CUTS * (len(ends) - zero - 2)) // CUTS + zero + 1,
    ])  # fmt: skip
    edges[0], edges[-1] = edges[0] * SLACK, edges[-1] * SLACK
    return edges, level


def _evenly(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ends and what cuts the levels between them into equal parts."""
    return np.interp(np.arange(CUTS * (len(ends) - 1) + 1) / CUTS, np.arange(len(ends)), ends)


def _by_octaves(end: float, nearest: float) -> NDArray[np.float64]:
    """The end of a level about zero, and what cuts its octaves in equal ratios, descending to `nearest`.

    nearest: 0 where a scale is so wide that the quotient is no float64, as float16's of 5e-324.
    """
    with ieee_arithmetic():
        octaves = min(max(np.log2(abs(end) / np.float64(nearest)), 0), OCTAVES) if end else 0
    return np.asarray(abs(end) * np.exp2(-np.arange(CUTS * octaves + 1) / CUTS))


def _below(bins: Bins, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many values are below each edge."""
    first, last = (end.astype(np.float64) for end in (bins.least, bins.largest))
    upto = np.append(0, bins.counts.cumsum()).astype(np.float64)
    which = np.searchsorted(last, edges)  # the first bin that does not lie below
    at = np.minimum(which, last.size - 1)
    width = last[at] - first[at]
    share = np.where(width > 0, np.clip((edges - first[at]) / np.where(width > 0, width, 1), 0, 1), 0)
    return upto[which] + np.where(which < last.size, bins.counts[at] * share, 0)
