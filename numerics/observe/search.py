"""Observers that try ranges and take the one that loses least by the bins: MSE, Pof2MSE.

The ranges tried are fractions of the widest one, sixteen an octave, down to where less cannot be lost
any more; then, about the best of them, ever finer ones.  Symmetric: of its threshold.  Asymmetric: of
both ends together, then twice of the upper one and of the lower one.  Of those that lose the same the
widest is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Affine
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.observe.base import POF2, host, with_pof2
from numerics.observe.histogram import Histogram, Seen

NEAREST = "half_even"  # by which a range is tried
Array = NDArray[Any]
PER_OCTAVE = 16
FINER = 8  # ranges on each side of the best one, each time it is searched more finely
ZOOMS = 2
OCTAVES = 2200  # of float64, and some
NARROW = 1e-6  # of a step: a bin that is narrower is taken for a point
UPPER, LOWER = (False, True), (True, False)
PASSES = {True: ((True, True),), False: ((True, True), UPPER, LOWER, UPPER, LOWER)}
"""Which ends move, by `symmetric`."""


@dataclass
class Best:
    """The best ranges of some scales so far: what they lose, their ends, and which fraction they are."""

    loss: Array
    low: Array
    high: Array
    fraction: Array

    def take(self, scales: Array, loss: Array, low: Array, high: Array, fraction: Array) -> None:
        """Takes over what is better, of these scales."""
        better = loss < self.loss[scales]
        where = scales[better]
        self.loss[where], self.fraction[where] = loss[better], fraction[better]
        self.low[where], self.high[where] = low[better], high[better]


@dataclass(frozen=True, eq=False)
class Ranges:
    """The widest ranges of some scales, and which of their ends are tried nearer to zero.

    scales: where in Best they are.
    """

    seen: Seen
    scales: NDArray[np.intp]
    low: Array
    high: Array
    moves: tuple[bool, bool]

    def at(self, fraction: Array | float) -> tuple[Array, Array]:
        """Fractions of the ranges."""
        lower, upper = (fraction if moved else 1 for moved in self.moves)
        return self.low * lower, self.high * upper

    def of(self, which: NDArray[np.bool_]) -> Ranges:
        """Returns the ranges of some of the scales."""
        seen = self.seen.of(np.flatnonzero(which))
        return Ranges(seen, self.scales[which], self.low[which], self.high[which], self.moves)

    def have_values(self, low: Array, high: Array) -> NDArray[np.bool_]:
        """Are there values between zero and those of these ends that move?"""
        bins, owner = self.seen.bins, self.seen.owner
        lower, upper = (bins.largest < 0) & (bins.largest >= low[owner]), bins.least <= high[owner]
        inside = (self.moves[0] & lower) | (self.moves[1] & (bins.least > 0) & upper)
        return np.asarray(sums(self.seen, inside) > 0)


class Search(Histogram):
    """Tries ranges; what a range loses, rounded half to even, is for its subclasses to say."""

    per_octave: ClassVar[int] = PER_OCTAVE
    zooms: ClassVar[int] = ZOOMS

    @keywords
    def __init__(self, dtype: Any, **options: Any) -> None:
        super().__init__(dtype, **options)
        if self.spec.rounding != NEAREST:
            raise NumericsError(
                f"{type(self).__name__} looks for the scale that loses least under {NEAREST}, not under "
                f"{self.spec.rounding}; give rounding={NEAREST!r}"
            )

    def _takes_blocks(self) -> bool:
        return False  # a tensor scale's range clips no block

    def _choose(self, seen: Seen) -> tuple[Array, Array]:
        symmetric, scales = self.spec.symmetric, np.arange(len(seen.low))
        ends = (-seen.amax, seen.amax) if symmetric else (seen.low, seen.high)
        low, high = (end.astype(np.float64) for end in ends)
        best = Best(np.full(low.shape, np.inf), low.copy(), high.copy(), np.ones(low.shape))
        for moves in PASSES[symmetric]:
            widest, found = (low, high), (best.low, best.high)
            start = [(widest if moved else found)[end].copy() for end, moved in enumerate(moves)]
            whole, now = widest[moves[1]], found[moves[1]]
            best.fraction[:] = np.divide(now, whole, out=np.ones(whole.shape), where=whole != 0)
            ranges = Ranges(seen, scales, start[0], start[1], moves)
            self._descend(ranges, best)
            for zoom in range(self.zooms):
                self._refine(ranges, best, self.per_octave * FINER**zoom)
        return best.low, best.high

    def _descend(self, ranges: Ranges, best: Best) -> None:
        """From the widest range down, until no narrower one can be better."""
        for octave in range(OCTAVES):
            narrow = ranges.at(math.ldexp(0.5, -octave))
            if self._worth_trying(ranges, octave):
                for step in range(self.per_octave):
                    fraction = math.ldexp(1 - step / (2 * self.per_octave), -octave)
                    self._try(ranges, best, np.full(len(ranges.scales), fraction))
            going = ranges.have_values(*narrow)
            going &= ~self._over(ranges.seen, *narrow, best.loss[ranges.scales])
            if not going.any():
                return
            if not going.all():
                ranges = ranges.of(going)

    def _refine(self, ranges: Ranges, best: Best, per_octave: int) -> None:
        """About the best range, up to the two beside it when an octave has so many."""
        about = best.fraction.copy()
        gap = np.ldexp(0.5 / per_octave / FINER, np.frexp(about)[1])
        for step in [step for step in range(FINER, -FINER - 1, -1) if step]:
            self._try(ranges, best, np.minimum(about + gap * step, 1))

    def _try(self, ranges: Ranges, best: Best, fraction: Array) -> None:
        low, high = ranges.at(fraction)
        best.take(ranges.scales, self._loss(ranges.seen, low, high), low, high, fraction)

    def _worth_trying(self, ranges: Ranges, octave: int) -> bool:
        """Can a range of that octave, counted from the widest, be better than wider ones?"""
        return True

    def _loss(self, seen: Seen, low: Array, high: Array) -> Array:
        """What each scale loses, if its range goes from low to high."""
        raise NotImplementedError

    def _over(self, seen: Seen, low: Array, high: Array, least: Array) -> Array:
        """Is it certain that no range within this one loses less than `least`?"""
        raise NotImplementedError

    def _found(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The scale and the zero point for a range, as `quantize` finds them; float64."""
        options, kind = self.spec.affine_options(self.original), self.low.dtype
        with ieee_arithmetic():
            ends = low.astype(kind), high.astype(kind)
            affine: Affine = host().find_affine(*ends, self.spec.element, options)
        zero = np.zeros(low.shape) if affine.zero is None else affine.zero
        return affine.scale.astype(np.float64), np.asarray(zero, np.float64)


class MSE(Search):
    """Observes values, and finds the range for which quantizing them has the least mean squared error.

    dtype and the other options: as for `Observer`.
    bins: how many an octave is cut into, a power of two from 64 to 2**20, by default 256; as for `Histogram`.

    The error of a range is a sum over all bins: the exact mean of (x - fake_quantize(x))**2 for values that
    spread evenly from the least in the bin to the largest, times their count, with the scale and the zero
    point as they are stored.  A bin hides 1 / bins of a value at most, never a step of the format: so
    the error of the range found is within 1 % (asymmetric: 2 %) of the least of all ranges up to the
    widest where thousands of values spread smoothly, within 5 % where they are few or repeat, and for
    asymmetric formats of two bits.
    Arguments and errors as `Histogram`; NumericsError for block formats too.

    >>> import numpy as np, numerics as nx
    >>> x = np.append(np.linspace(-1, 1, 1001), 2.5).astype(np.float32)
    >>> for watching in MSE("int4"), MSE("int4", scale_type="pof2"):
    ...     watching.observe(x)
    ...     round(float(watching.scale * 7), 3)
    0.96
    0.875
    """

    def _loss(self, seen: Seen, low: Array, high: Array) -> Array:
        scale, steps = self._steps(seen, low, high)
        with ieee_arithmetic():
            unit = (scale / np.where(seen.amax > 0, seen.amax, 1).astype(np.float64)) ** 2
            total = sums(seen, seen.bins.counts * levels(self.spec.element).error(*steps)) * unit
        return np.where(np.isnan(total), np.inf, total)

    def _over(self, seen: Seen, low: Array, high: Array, least: Array) -> Array:
        """By what lies beyond the range: clipping it to a narrower one loses more."""
        scale, (first, last) = self._steps(seen, low, high)
        grid = levels(self.spec.element).values
        beyond = np.maximum(np.maximum(first - grid[-1], grid[0] - last) - 0.5, 0)
        with ieee_arithmetic():
            unit = (scale / np.where(seen.amax > 0, seen.amax, 1).astype(np.float64)) ** 2
            return np.asarray(~(sums(seen, seen.bins.counts * beyond**2) * unit < least))

    def _steps(self, seen: Seen, low: Array, high: Array) -> tuple[Array, tuple[Array, Array]]:
        """The scales, and the ends of each bin in the numbers that codes stand for."""
        scale, zero = self._found(low, high)
        with ieee_arithmetic():
            own, shift = scale[seen.owner], zero[seen.owner]
            return scale, (seen.bins.least / own + shift, seen.bins.largest / own + shift)


def sums(seen: Seen, each: Array) -> Array:
    """Returns the sums, for each scale, of numbers of its bins."""
    return np.bincount(seen.owner, each, len(seen.low))


@dataclass(frozen=True, eq=False)
class Levels:
    """The numbers that a format has, ascending, and what rounding to the nearest of them loses."""

    values: NDArray[np.float64]
    middles: NDArray[np.float64]
    upto: NDArray[np.float64]
    """The integral of the squared error from zero to each of the values."""
    evenly: bool

    def nearest(self, x: Array) -> Array:
        """Which of the values is nearest."""
        if self.evenly:
            steps = np.rint(x) - self.values[0]
            return np.asarray(np.clip(steps, 0, len(self.values) - 1), np.int64)
        return np.asarray(np.searchsorted(self.middles, x))

    def error(self, first: Array, last: Array) -> Array:
        """The mean squared error of what spreads evenly from first to last."""
        width, below, above = last - first, self.nearest(first), self.nearest(last)
        inside = ((first + last) / 2 - self.values[below]) ** 2 + width**2 / 12
        crossing = np.flatnonzero((below != above) & (width > NARROW))
        if crossing.size:
            whole = self._integral(last[crossing], above[crossing])
            whole -= self._integral(first[crossing], below[crossing])
            inside[crossing] = whole / width[crossing]
        return np.asarray(inside)

    def _integral(self, x: Array, place: Array) -> Array:
        return self.upto[place] + (x - self.values[place]) ** 3 / 3


@lru_cache(maxsize=64)
def levels(element: Element) -> Levels:
    """Returns the levels of a format of single numbers."""
    if element.kind == "integer":
        values = np.arange(element.min, element.max + 1)
    else:
        every = np.array(element.values())
        values = np.unique(every[np.isfinite(every)] + 0)
    middles = values[:-1] / 2 + values[1:] / 2
    halves = ((middles - values[:-1]) ** 3 + (values[1:] - middles) ** 3) / 3
    upto = np.append(0, halves.cumsum())
    return Levels(values, middles, upto - upto[np.abs(values).argmin()], element.kind == "integer")


class Pof2MSE(MSE):
    """Observes values, and finds the power of two for a scale with the least mean squared error.

    dtype and the other options: as for `Observer`.
    bins: how many an octave is cut into, a power of two from 64 to 2**20, by default 256; as for `Histogram`.
    scale_type: pof2, the only one; a QuantSpec that says no scale_type means it, too.

    Tried are the power of two that clips nothing, its half, and so on, as long as `MSE` goes on.  Raises
    NumericsError as `MSE`, and for a scale_type that is not pof2.

    >>> import numpy as np
    >>> watching = Pof2MSE("int4")
    >>> watching.observe(np.append(np.linspace(-1, 1, 1001), 2.5))
    >>> float(watching.scale)
    0.125
    """

    per_octave: ClassVar[int] = 1
    zooms: ClassVar[int] = 0

    @keywords
    def __init__(self, dtype: Any, *, scale_type: str = POF2, **options: Any) -> None:
        dtype, asked = with_pof2(dtype, scale_type)
        super().__init__(dtype, **options, **asked)
