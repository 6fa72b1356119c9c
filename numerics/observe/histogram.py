"""Histograms that grow with what they see, and the observers that need nothing else: Percentile.

The bins are as wide as a power of two, the smallest for which half of them reach the largest
magnitude seen.  When a larger one comes, neighbours are added: so the counts depend on the values
only, not on their order nor on how they came in batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.affine import Partition
from numerics.backends.words import to_float32
from numerics.formats.errors import NumericsError
from numerics.observe.base import Observer, check_within
from numerics.tensor import CHUNK, to_host

Array = NDArray[Any]
Counts = NDArray[np.int64]
Exponents = NDArray[np.int64]
BINS = 4096
FEWEST = 64


@dataclass(frozen=True)
class Bins:
    """Histograms of some scales: counts [scales, bins], low and high [scales] as Observer has them.

    With w = 2**exponent and h = bins / 2: bin h + m counts the values with m <= x / w < m + 1, bin
    h - 1 - m those below zero with m <= -x / w < m + 1.
    """

    counts: Counts
    low: Array
    high: Array

    @cached_property
    def exponent(self) -> Exponents:
        """Of the width of the bins of each scale."""
        return width_exponent(self.low, self.high, self.counts.shape[-1])

    @cached_property
    def amax(self) -> Array:
        """The largest magnitude of each scale."""
        return np.asarray(np.maximum(-self.low, self.high))

    @cached_property
    def centres(self) -> Array:
        """The middle of each bin, exactly, in the type of low and high."""
        bins = self.counts.shape[-1]
        middle = np.arange(bins) + (0.5 - bins // 2)
        return np.asarray(np.ldexp(middle, self.exponent[:, None]), self.low.dtype)

    @property
    def magnitudes(self) -> Counts:
        """Histograms of |x|, [scales, bins / 2]."""
        half = self.counts.shape[-1] // 2
        return cast(Counts, self.counts[:, half:] + self.counts[:, half - 1 :: -1])

    def edge(self, number: Array) -> Array:
        """That many widths of each scale's bins, float64."""
        return np.asarray(np.ldexp(number.astype(np.float64), self.exponent))


def width_exponent(low: Array, high: Array, bins: int) -> Exponents:
    """The least e for which the largest magnitude is below 2**e * bins / 2; middles of bins stay exact."""
    amax = np.maximum(-low, high)
    least = int(np.frexp(np.finfo(amax.dtype).smallest_subnormal)[1])
    exponent = np.frexp(amax)[1].astype(np.int64) - int(math.log2(bins // 2))
    return np.asarray(np.where(amax == 0, least, np.maximum(exponent, least)))


def coarser(counts: Counts, times: Exponents) -> Counts:
    """Histograms with bins 2**times as wide, about the same middle: neighbours are added."""
    bins, counts = counts.shape[-1], counts.copy() if times.any() else counts
    middle = slice(bins // 4, bins - bins // 4)
    for done in range(min(int(times.max(initial=0)), int(math.log2(bins // 2)))):
        rows = times > done
        pairs = counts[rows].reshape(-1, bins // 2, 2).sum(-1)
        counts[rows] = 0
        counts[rows, middle] = pairs
    return counts


def owners(partition: Partition, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whose scale the elements at these places of a tensor take; all places are counted in C order."""
    axis, shape = partition.axis, partition.shape
    if axis is None:
        return np.zeros_like(places)
    outer, inner = np.divmod(places, math.prod(shape[axis + 1 :]))
    line, along = np.divmod(outer, shape[axis])
    if partition.size is None:
        return np.asarray(along)
    group = line * partition.shared[axis] + along // partition.size
    return np.asarray(group * math.prod(shape[axis + 1 :]) + inner)


def have_finite(data: Any, partition: Partition) -> NDArray[np.bool_]:
    """For each scale: is one of the values that share it finite?"""
    found, flat = np.zeros(math.prod(partition.shared), bool), data.reshape(-1)
    for start in range(0, math.prod(data.shape), CHUNK):
        finite = np.flatnonzero(np.isfinite(to_float32(to_host(flat[start : start + CHUNK]))))
        found[owners(partition, finite + start)] = True
    return found.reshape(partition.shared)


class Histogram(Observer):
    """Counts the values of every scale in bins; what chooses a range by them builds on it.

    bins: how many, a power of two, at least 64, half of them for values below zero.  Their int64
    counts are the memory it takes beside the batch itself: 8 * bins bytes a scale, whatever comes.

    counts: int64, in the shape of the scales with one axis more; `Bins` says of which values.
    Raises NumericsError as `Observer`, and for another number of bins.

    >>> watching = Histogram("int8", bins=64)
    >>> watching.observe([31.0, -1.0, 0.0, 0.5])
    >>> watching.counts[30:34], watching.counts[-1]
    (array([1, 0, 2, 0]), np.int64(1))
    """

    own: ClassVar[tuple[str, ...]] = ("bins",)
    arrays: ClassVar[tuple[str, ...]] = (*Observer.arrays, "counts")
    counts: Counts

    def __init__(self, dtype: Any, *, bins: int = BINS, **options: Any) -> None:
        super().__init__(dtype, **options)
        if not isinstance(bins, int) or bins < FEWEST or bins & (bins - 1):
            raise NumericsError(f"bins={bins!r} is not allowed: a power of two, at least {FEWEST}")
        self.bins = bins

    def _blank(self, original: str, shared: tuple[int, ...]) -> dict[str, Array]:
        counts = np.zeros((*shared, self.bins), np.int64)
        return {**super()._blank(original, shared), "counts": counts}

    def _take(self, low: Array, high: Array, data: Any, partition: Partition) -> None:
        before = self._exponent
        super()._take(low, high, data, partition)
        self.counts = coarser(self.counts, self._exponent - before)
        flat = data.reshape(-1)
        for start in range(0, math.prod(data.shape), CHUNK):
            self._count(to_float32(to_host(flat[start : start + CHUNK])), start, partition)

    def _count(self, x: Array, start: int, partition: Partition) -> None:
        finite = np.flatnonzero(np.isfinite(x))
        owner = owners(partition, finite + start)
        bins, exponent = self.bins, self._exponent.reshape(-1)[owner]
        widths = np.ldexp(x[finite].astype(np.float64), -exponent)  # exact, or far below one
        magnitude = np.abs(widths).astype(np.int64)
        place = bins // 2 + np.where(x[finite] < 0, -1 - magnitude, magnitude)
        np.add.at(self.counts.reshape(-1), owner * bins + place, 1)

    @property
    def _exponent(self) -> Exponents:
        return width_exponent(self.low, self.high, self.bins)

    def _merge(self, other: Observer) -> None:
        assert isinstance(other, Histogram)
        mine, theirs = self._exponent, other._exponent
        super()._merge(other)
        widest = self._exponent
        self.counts = coarser(self.counts, widest - mine) + coarser(other.counts, widest - theirs)

    def _range(self) -> tuple[Array, Array]:
        """Chosen for some scales at a time, so that memory stays bounded."""
        counts = self.counts.reshape(-1, self.bins)
        low, high, step = self.low.reshape(-1), self.high.reshape(-1), max(CHUNK // self.bins, 1)
        chosen = np.empty((2, len(counts)))
        for start in range(0, len(counts), step):
            part = slice(start, start + step)
            chosen[:, part] = self._choose(Bins(counts[part], low[part], high[part]))
        return chosen[0].reshape(self.low.shape), chosen[1].reshape(self.low.shape)

    def _choose(self, seen: Bins) -> tuple[Array, Array]:
        """The range of each scale, float64."""
        return seen.low, seen.high


class Percentile(Histogram):
    """The range that keeps so many percent of the values, zeros included.

    percentile: 0 < p <= 100.  Symmetric: the threshold beyond which lie at most (100 - p) percent of
    the magnitudes.  Asymmetric: half as many beyond each end.  The first edge of a bin for which
    that holds, or the extreme value where that is nearer.  Raises NumericsError as `Histogram`, and
    for another percentile.

    >>> import numpy as np
    >>> watching = Percentile("int8", symmetric=False, percentile=98)
    >>> watching.observe(np.concatenate([np.arange(100.0), [1e3], [-1e3]]))
    >>> watching.low, watching.high, (watching.scale * 255).round(1)
    (array(-1000.), array(1000.), np.float32(99.5))
    """

    own: ClassVar[tuple[str, ...]] = ("percentile", *Histogram.own)

    def __init__(self, dtype: Any, *, percentile: float = 99.99, **options: Any) -> None:
        super().__init__(dtype, **options)
        self.percentile = check_within("percentile", percentile, 100)

    def _choose(self, seen: Bins) -> tuple[Array, Array]:
        beyond = 1 - Fraction(str(self.percentile)) / 100  # what was written, not its nearest float
        if self.recipe.symmetric:
            threshold = np.minimum(seen.edge(_kept(seen.magnitudes, beyond)), seen.amax)
            return -threshold, threshold
        above, below = _kept(seen.counts, beyond / 2), _kept(seen.counts[:, ::-1], beyond / 2)
        low, high = seen.edge(self.bins // 2 - below), seen.edge(above - self.bins // 2)
        return np.maximum(low, seen.low), np.minimum(high, seen.high)


def _kept(counts: Counts, beyond: Fraction) -> NDArray[np.int64]:
    """How many of the first bins to keep so that at most this share of the values lies beyond them."""
    total = counts.sum(axis=-1)
    most = np.array([math.floor(int(n) * beyond) for n in total])
    return np.asarray(np.argmax(total[:, None] - counts.cumsum(axis=-1) <= most[:, None], axis=-1) + 1)
