"""Observers that try ranges and take the one that loses least by the histogram: MSE, KL, Pof2MSE.

The ranges tried are fractions of the widest one, sixteen an octave and exact in binary, down to where
a histogram tells no more.  Symmetric: of its threshold.  Asymmetric: of both ends together, then of
the upper one, then of the lower one.  Of those that lose the same the widest is taken.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numerics.backends.affine import Partition
from numerics.formats.backend import Draw
from numerics.formats.errors import NumericsError, one_of
from numerics.observe.base import host
from numerics.observe.histogram import Bins, Histogram

Array = NDArray[Any]
NARROWEST = 16  # bins within the narrowest range that is tried
PASSES = {True: ((True, True),), False: ((True, True), (False, True), (True, False))}
"""Which ends move, by `symmetric`."""


class Search(Histogram):
    """Tries ranges; what a range loses is for its subclasses to say."""

    per_octave: ClassVar[int] = 16

    @property
    def fractions(self) -> list[float]:
        """Of the widest range, what is tried: descending from 1."""
        steps, octaves = 2 * self.per_octave, int(math.log2(self.bins // 2 // NARROWEST))
        first = [step / steps for step in range(steps, steps // 2, -1)]
        return [*(fraction / 2**octave for octave in range(octaves) for fraction in first), 0.5**octaves]

    def _choose(self, seen: Bins) -> tuple[Array, Array]:
        symmetric = self.recipe.symmetric
        low, high = (-seen.amax, seen.amax) if symmetric else (seen.low, seen.high)
        least = self._loss(seen, low, high)
        for moves in PASSES[symmetric]:
            ends = low, high
            for fraction in self.fractions[1:]:
                tried = [end * (fraction if moved else 1) for end, moved in zip(ends, moves, strict=True)]
                loss = self._loss(seen, *tried)
                better = loss < least
                least = np.where(better, loss, least)
                low, high = (np.where(better, *pair) for pair in zip(tried, (low, high), strict=True))
        return low, high

    def _loss(self, seen: Bins, low: Array, high: Array) -> Array:
        """What each scale loses, if its range goes from low to high."""
        raise NotImplementedError

    def _rounded(self, seen: Bins, low: Array, high: Array) -> Array:
        """What the middles of the bins become, quantized for that range: by `quantize`, to nearest."""
        element, middles = self.recipe.element, seen.centres
        affine = host().find_affine(low, high, element, self.recipe.options(self.original))
        partition = Partition(middles.shape, axis=0)
        return np.asarray(host().fake_quantize(middles, element, partition, affine, "half_even", Draw()))


class MSE(Search):
    """The range for which quantizing loses the least mean squared error.

    The error of a range: the sum over the bins of count * (c - fake_quantize(c))**2, c the middle of
    the bin, the scale and the zero point in their types, values rounded half to even; in float64, in
    widths of a bin.  Arguments and errors as `Histogram`.

    >>> import numpy as np, numerics as nx
    >>> x = np.append(np.linspace(-1, 1, 1001), 2.5).astype(np.float32)
    >>> for watching in MSE("int4"), MSE("int4", scale_type="pof2"):
    ...     watching.observe(x)
    ...     float(watching.scale * 7)
    0.9765625
    0.875
    """

    def _loss(self, seen: Bins, low: Array, high: Array) -> Array:
        moved = seen.centres.astype(np.float64) - self._rounded(seen, low, high)
        widths = np.where(seen.counts == 0, 0, np.ldexp(moved, -seen.exponent[:, None]))
        return np.asarray((seen.counts * widths**2).sum(axis=-1))


class Pof2MSE(MSE):
    """The power of two for a scale by which quantizing loses the least mean squared error.

    Tries the one that clips nothing and its halves, as `MSE` does.  Raises NumericsError as
    `Histogram`, and for a scale_type that is not pof2.

    >>> import numpy as np
    >>> watching = Pof2MSE("int4")
    >>> watching.observe(np.append(np.linspace(-1, 1, 1001), 2.5))
    >>> float(watching.scale)
    0.125
    """

    per_octave: ClassVar[int] = 1

    def __init__(self, dtype: Any, *, scale_type: str = "pof2", **options: Any) -> None:
        super().__init__(dtype, scale_type=one_of("scale type", scale_type, ("pof2",)), **options)


class KL(Search):
    """The range for which the quantized values are distributed most like the values themselves.

    TensorRT's entropy calibration (S. Migacz, GTC 2017), for every format and for bins of both
    signs.  The divergence of a range: the sum over its bins of P * log(P / Q).  P is the histogram,
    what the range clips added to its outermost bins that have values.  Q is the histogram without
    what is clipped, averaged over the bins that have values and whose middles are quantized to one
    number.  Ranges with fewer bins than the format has codes are not tried, as there.  Raises
    NumericsError as `Histogram`, and where the codes are more than a quarter of the bins.

    >>> import numpy as np
    >>> watching = KL("int4")
    >>> watching.observe(np.append(np.linspace(-1, 1, 100001), 2.5))
    >>> float(watching.scale * 7)
    1.25
    """

    def __init__(self, dtype: Any, **options: Any) -> None:
        super().__init__(dtype, **options)
        self.codes = 1 << self.recipe.element.bits
        if self.codes > self.bins // 4:
            raise NumericsError(
                f"{self.recipe.dtype} has {self.codes} codes, too many for {self.bins} bins; "
                f"allowed: bins={4 * self.codes} and more"
            )

    def _loss(self, seen: Bins, low: Array, high: Array) -> Array:
        first, stop = _within(seen, low, high)
        place = np.arange(self.bins)
        kept = np.where((first <= place) & (place < stop), seen.counts, 0)
        p, q = _clipped(seen.counts, kept), _averaged(kept, self._rounded(seen, low, high))
        with_values = kept > 0
        p, q = p / p.sum(axis=-1, keepdims=True), q / kept.sum(axis=-1, keepdims=True)
        divergence = np.where(with_values, p * np.log(p / q), 0).sum(axis=-1)
        tried = with_values.any(axis=-1) & ((stop - first)[:, 0] >= self.codes)
        return np.where(tried, divergence, np.inf)


def _within(seen: Bins, low: Array, high: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first bin that a range touches and the one after the last, [scales, 1]."""
    middle = seen.counts.shape[-1] // 2
    below, above = (np.ldexp(end.astype(np.float64), -seen.exponent) for end in (-low, high))
    first, stop = middle - 1 - below.astype(np.int64), middle + 1 + above.astype(np.int64)
    return first[:, None], stop[:, None]


def _clipped(counts: NDArray[np.int64], kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """The kept bins, with all that lies beyond the outermost ones that have values added to these."""
    bins, rows = np.arange(counts.shape[-1]), np.arange(len(counts))
    first = np.argmax(kept > 0, axis=-1)
    last = len(bins) - 1 - np.argmax(kept[:, ::-1] > 0, axis=-1)
    found = kept.copy()
    found[rows, first] += np.where(bins < first[:, None], counts, 0).sum(axis=-1)
    found[rows, last] += np.where(bins > last[:, None], counts, 0).sum(axis=-1)
    return found


def _averaged(kept: NDArray[np.int64], values: Array) -> Array:
    """The mean of the bins that have values, over neighbours with the same value."""
    new = np.ones(values.shape, bool)
    new[:, 1:] = values[:, 1:] != values[:, :-1]
    group = new.cumsum() - 1
    filled = np.bincount(group, (kept > 0).reshape(-1))
    return np.asarray((np.bincount(group, kept.reshape(-1)) / filled)[group].reshape(kept.shape))
