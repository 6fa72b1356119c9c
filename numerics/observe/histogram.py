"""Histograms whose resolution follows the data, and the observer that needs nothing else: Percentile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.float_bits import to_float32
from numerics.backends.host.quantizing import to_host, wide_type
from numerics.backends.partition import Partition
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, digits, integer, said
from numerics.observe.base import Observer, check_within
from numerics.observe.bins import MOST_VALUES, OCTAVES, Bins, count, join, numbers, owners_of
from numerics.tensor.qtensor import CHUNK

Array = NDArray[Any]
Integers = NDArray[np.int64]
BINS = 256
FEWEST, MOST = 64, 1 << 20


@dataclass(frozen=True, eq=False)
class Seen:
    """What some scales saw: their bins, the scale of each (from 0), and the ends as Observer has them."""

    bins: Bins
    owner: Integers
    low: Array
    high: Array

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Where the bins of each scale begin, and where the last ones end."""
        return np.searchsorted(self.owner, np.arange(len(self.low) + 1))

    @cached_property
    def amax(self) -> Array:
        """The largest magnitude of each scale."""
        return np.asarray(np.maximum(-self.low, self.high))

    def magnitudes(self, per_octave: int) -> Seen:
        """Returns the same counts by magnitude: negative values in the bins of positive ones."""
        folded, first = self.bins.magnitudes(per_octave), (self.bins.owners(per_octave) - self.owner)[:1]
        return Seen(folded, folded.owners(per_octave) - first, self.low, self.high)

    def where(self, which: Any) -> Seen:
        """Returns the same scales with some of their bins."""
        return Seen(self.bins.part(which), self.owner[which], self.low, self.high)

    def of(self, scales: NDArray[np.intp]) -> Seen:
        """Returns what some of the scales saw; they ascend."""
        place = np.full(len(self.low), -1)
        place[scales] = np.arange(len(scales))
        owner = place[self.owner]
        kept = np.flatnonzero(owner >= 0)
        return Seen(self.bins.part(kept), owner[kept], self.low[scales], self.high[scales])


def have_finite(data: Any, partition: Partition) -> NDArray[np.bool_]:
    """For each scale: is one of the values that share it finite?"""
    found, flat = np.zeros(math.prod(partition.shared), bool), data.reshape(-1)
    for start in range(0, math.prod(data.shape), CHUNK):
        finite = np.flatnonzero(np.isfinite(to_float32(to_host(flat[start : start + CHUNK]))))
        found[owners_of(partition, finite + start)] = True
    return found.reshape(partition.shared)


class Histogram(Observer):
    """Counts the values of every scale in bins; what chooses a range by them builds on it.

    dtype and the other options: as for `Observer`.
    bins: how many equal bins an octave is cut into, a power of two from 64 to 2**20, by default 256.

    So every bin is at most 1 / bins as wide as its values are large, whatever outliers come.  Only bins that
    hold something are kept, at 24 bytes (float64: 32) each: a few thousand a scale for what has one bell or
    two, never more than there are values, nor than the octaves of the type times 2 * bins.

    `places`, `counts`, `least` and `largest` are arrays with an element for each bin, in the order of the
    scales and of the values.  Raises NumericsError as `Observer`, and for another number of bins.

    >>> watching = Histogram("int8", bins=64)
    >>> watching.observe([31.0, -1.0, 0.0, 1.001, 1.0])
    >>> watching.counts, watching.least
    (array([1, 1, 2, 1]), array([-1.,  0.,  1., 31.]))
    """

    own: ClassVar[tuple[str, ...]] = ("bins",)
    listed: ClassVar[tuple[str, ...]] = ("places", "counts", "least", "largest")
    arrays: ClassVar[tuple[str, ...]] = (*Observer.arrays, *listed)
    default_bins: ClassVar[int] = BINS

    _bins: Bins
    _coming: list[Bins]

    @keywords
    def __init__(self, dtype: Any, *, bins: int | None = None, **options: Any) -> None:
        super().__init__(dtype, **options)
        self.bins = self.default_bins if bins is None else integer("bins", bins)
        if not FEWEST <= self.bins <= MOST or self.bins & (self.bins - 1):
            raise NumericsError(
                f"bins={said(bins)} is not allowed: how many an octave is cut into, "
                f"a power of two from {FEWEST} to {MOST}"
            )

    @property
    def places(self) -> Integers:
        """Which bin each is, as one ascending number: its scale, its octave, its place in that (bins.py)."""
        return self._joined().places

    @property
    def counts(self) -> Integers:
        """How many values each bin holds."""
        return self._joined().counts

    @property
    def least(self) -> Array:
        """The least value in each bin."""
        return self._joined().least

    @property
    def largest(self) -> Array:
        """The largest value in each bin."""
        return self._joined().largest

    # ---- counting --------------------------------------------------------------------------------

    def _blank(self, original: str, shared: tuple[int, ...]) -> dict[str, Array]:
        none = Bins.none(wide_type(original)).fields
        return {**super()._blank(original, shared), **dict(zip(self.listed, none, strict=True))}

    def _put(self, arrays: dict[str, Array]) -> None:
        super()._put({name: arrays[name] for name in Observer.arrays})
        self._bins, self._coming = Bins(*(arrays[name] for name in self.listed)), []

    def _take(self, low: Array, high: Array, data: Any, partition: Partition) -> None:
        super()._take(low, high, data, partition)
        flat = data.reshape(-1)
        for start in range(0, math.prod(data.shape), CHUNK):
            self._count(to_float32(to_host(flat[start : start + CHUNK])), start, partition)

    def _count(self, x: Array, start: int, partition: Partition) -> None:
        finite, owner = np.isfinite(x), None
        if self.low.size > 1:
            places = np.flatnonzero(finite)
            owner, x = owners_of(partition, places + start), x[places]
        elif not finite.all():
            x = x[finite]
        self._coming.append(count(x, owner, self.bins))
        if sum(bins.counts.size for bins in self._coming) > max(CHUNK, self._bins.counts.size):
            self._joined()

    def _joined(self) -> Bins:
        """The bins of all that was seen: joined when somebody asks, or when as many came as there are."""
        if self._coming:
            self._bins, self._coming = join([self._bins, *self._coming]), []
        return self._bins

    def _merge(self, other: Observer) -> None:
        assert isinstance(other, Histogram)
        self._bins = join([self._joined(), other._joined()])
        super()._merge(other)

    # ---- its state -------------------------------------------------------------------------------

    def _check_state(self, arrays: dict[str, Array]) -> None:
        super()._check_state(arrays)
        bins, low, high = Bins(*(arrays[name] for name in self.listed)), arrays["low"], arrays["high"]
        if len({field.size for field in bins.fields}) > 1:
            raise NumericsError(f"{', '.join(self.listed)} of a state are of one length")
        if not (bins.counts > 0).all() or sum(bins.counts.tolist()) > MOST_VALUES:
            raise NumericsError("counts of a state are 1 and more, together at most 2**63 - 1")
        if not self._are_bins(bins, low.size):
            raise NumericsError(f"places, least and largest of a state are not the bins of {self!r}")
        owners = bins.owners(self.bins)
        seen = np.zeros((2, low.size), low.dtype)
        np.minimum.at(seen[0], owners, bins.least)
        np.maximum.at(seen[1], owners, bins.largest)
        if not np.array_equal(seen, [low.reshape(-1), high.reshape(-1)]):
            raise NumericsError("low and high of a state are not the ends of its bins")

    def _are_bins(self, bins: Bins, scales: int) -> bool:
        """Are they bins in their order, with values where they say they are?"""
        ends, owners = (bins.least, bins.largest), bins.owners(self.bins)
        if not all(np.isfinite(end).all() for end in ends) or not (bins.least <= bins.largest).all():
            return False
        places = [owners * (OCTAVES * self.bins) + numbers(end, self.bins) for end in ends]
        alike = all(np.array_equal(found, bins.places) for found in places)
        ordered = (bins.places[1:] > bins.places[:-1]).all()
        return bool(alike and ordered and (owners >= 0).all() and (owners < scales).all())

    # ---- what was found --------------------------------------------------------------------------

    def _range(self) -> tuple[Array, Array]:
        """Chosen for some scales at a time, so that memory stays bounded."""
        chosen = np.zeros((2, self.low.size))
        for part, seen in self._parts():
            chosen[:, part] = self._choose(seen)
        return chosen[0].reshape(self.low.shape), chosen[1].reshape(self.low.shape)

    def _parts(self) -> Iterator[tuple[slice, Seen]]:
        """What was seen, some scales at a time: with about CHUNK bins."""
        bins, low, high = self._joined(), self.low.reshape(-1), self.high.reshape(-1)
        owner = bins.owners(self.bins)
        step = max(CHUNK * low.size // max(owner.size, 1), 1)
        for start in range(0, low.size, step):
            part = slice(start, start + step)
            which = slice(*np.searchsorted(owner, [start, start + step]))
            yield part, Seen(bins.part(which), owner[which] - start, low[part], high[part])

    def _choose(self, seen: Seen) -> tuple[Array, Array]:
        """The range of each scale, float64."""
        return seen.low, seen.high


class Percentile(Histogram):
    """Observes the range that keeps so many percent of the values, zeros included.

    dtype and the other options: as for `Observer`.
    bins: how many an octave is cut into, a power of two from 64 to 2**20, by default 256; as for `Histogram`.
    percentile: p, in per cent, 1 < p <= 100, by default 99.99.

    A symmetric range ends at the threshold beyond which lie at most (100 - p) per cent of the magnitudes; an
    asymmetric one leaves half as many beyond each end.  The threshold is a value that was seen, the outermost
    in the bin of the exact order statistic: this one itself, or above it by less than 1 / bins of it (0.4 %),
    whatever the data.  Raises NumericsError as `Histogram`, and for another percentile.

    >>> import numpy as np
    >>> watching = Percentile("int8", symmetric=False, percentile=98)
    >>> watching.observe(np.concatenate([np.arange(100.0), [1e3], [-1e3]]))
    >>> watching.low, watching.high, (watching.scale * 255).round(1)
    (array(-1000.), array(1000.), np.float32(99.0))
    """

    own: ClassVar[tuple[str, ...]] = ("percentile", *Histogram.own)

    @keywords
    def __init__(self, dtype: Any, *, percentile: float = 99.99, **options: Any) -> None:
        super().__init__(dtype, **options)
        self.percentile = check_within("percentile", percentile, 100)
        if self.percentile <= 1:
            share, meant = digits(self.percentile), float(100 * Fraction(str(self.percentile)))
            raise NumericsError(
                f"percentile={share} is not allowed: it is in per cent, above 1, at most 100; "
                f"{digits(meant)} keeps the share {share}"
            )

    def _choose(self, seen: Seen) -> tuple[Array, Array]:
        beyond = 1 - Fraction(str(self.percentile)) / 100  # what was written, not its nearest float
        if self.spec.symmetric:
            threshold = _kept(seen.magnitudes(self.bins), beyond)[1]
            return -threshold, threshold
        return _kept(seen, beyond / 2)


def _kept(seen: Seen, beyond: Fraction) -> tuple[Array, Array]:
    """The ends of each scale's values when at most this share of them is left out at an end; 0 for none."""
    if seen.owner.size == 0:
        return np.zeros(len(seen.low)), np.zeros(len(seen.low))
    upto = np.append(0, seen.bins.counts.cumsum())
    first, last = upto[seen.starts[:-1]], upto[seen.starts[1:]]
    most = np.array([math.floor(total * beyond) for total in (last - first).tolist()], np.int64)
    lower = np.searchsorted(upto[:-1], first + most, side="right") - 1
    upper = np.minimum(np.searchsorted(upto[1:], last - most), seen.owner.size - 1)
    some = last > first
    low, high = seen.bins.least[lower], seen.bins.largest[upper]
    return np.where(some, low, 0).astype(np.float64), np.where(some, high, 0).astype(np.float64)
