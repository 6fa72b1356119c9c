"""Which terms of a product its accumulator holds together: the others are given zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.products.certificate import MARGIN, NONE, Bounds, Mask, power, some_columns
from numerics.conform.products.claim import Accumulator
from numerics.conform.products.problem import Float64


@dataclass
class Fitting:
    """Sums [m, n] so far: magnitudes added, and the last bit of any term.

    A term that does not fit now never will: sums only grow, and last bits only fall.
    """

    accumulator: Accumulator
    total: Float64
    lowest: NDArray[np.int64]

    @classmethod
    def of(cls, accumulator: Accumulator, rows: int, start: Float64 | None, columns: int) -> Fitting:
        """Sums that start with a bias, or with nothing."""
        first = np.zeros(columns) if start is None else np.abs(start)
        lowest = np.full((rows, columns), NONE if start is None else 0, np.int64)
        return cls(accumulator, np.tile(first, (rows, 1)), lowest)

    def kept(self, a: Bounds, b: Bounds, order: NDArray[np.int64]) -> Mask:
        """[m, k]: which terms fit in all sums of their row, added in this order."""
        found = np.zeros(a.magnitude.shape, np.bool_)
        for places in some_columns(order, self.total.size):
            terms = a.magnitude[:, None, places] * b.magnitude[:, places]
            last = np.where(terms == 0, NONE, a.lowest[:, None, places] + b.lowest[:, places])
            found[:, places] = self._added(terms, last)
        return found

    def _added(self, terms: Float64, last: NDArray[np.int64]) -> Mask:
        """[m, places]: as many as fit before the first that does not, then of those that still may, again."""
        kept = np.zeros((len(terms), terms.shape[2]), np.bool_)
        total, lowest = self.total + terms.sum(axis=2), np.minimum(self.lowest, last.min(axis=2))
        if self._fits(total[:, :, None], lowest[:, :, None]).all():
            self.total, self.lowest = total, lowest
            return ~kept
        left = np.ones_like(kept)
        while left.any():
            now = left[:, None]
            more = np.where(now, terms, 0.0)
            more[:, :, 0] += self.total
            more = np.cumsum(more, axis=2)
            lower = np.minimum.accumulate(np.where(now, last, NONE), axis=2)
            lower = np.minimum(lower, self.lowest[:, :, None])
            fit = np.logical_and.accumulate(self._fits(more, lower), axis=1)
            kept |= fit & left
            self._goes_to(more, lower, fit.sum(axis=1) - 1)
            left &= ~fit
            left &= self._fits(self.total[:, :, None] + terms, np.minimum(self.lowest[:, :, None], last))
        return kept

    def _fits(self, total: Float64, lowest: NDArray[np.int64]) -> Mask:
        room = power(np.clip(lowest, -MARGIN, MARGIN) + self.accumulator.bits)
        return np.asarray(((total <= room) & (lowest >= self.accumulator.least)).all(axis=1))

    def _goes_to(self, total: Any, lowest: Any, place: Any) -> None:
        """The sums of each row are those at a place; none where it is before the first."""
        rows = np.flatnonzero(place >= 0)
        self.total[rows] = total[rows, :, place[rows]]
        self.lowest[rows] = lowest[rows, :, place[rows]]
