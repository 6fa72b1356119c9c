"""Errors measured by parts of any length, to the bits of the whole: chunks that parts share are joined."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.sums import CHUNK
from numerics.tensor.qtensor import ErrorSums, Figures

Array = NDArray[Any]
Pair = tuple[Array, Array]  # values as they were, and as they became


class Stretch(NamedTuple):
    """Elements that follow each other: the figures of their whole chunks, and what lies before and after."""

    before: Pair
    figures: Figures
    after: Pair

    @classmethod
    def of(cls, x: Array, y: Array, first: int) -> Stretch:
        """Returns those of a flat part that begins with that element."""
        begin = min(-first % CHUNK, x.size)
        end = begin + (x.size - begin) // CHUNK * CHUNK
        figures = Figures.of(x[begin:end], y[begin:end])
        before, after = ((x[cut].copy(), y[cut].copy()) for cut in (slice(begin), slice(end, None)))
        return cls(before, figures, after)

    @classmethod
    def whole(cls, figures: Figures) -> Stretch:
        """Returns those of a part that has no chunk with another one."""
        nothing = np.empty(0, np.float32), np.empty(0, np.float32)
        return cls(nothing, figures, nothing)


class Joined:
    """The sums of stretches that come in order.  following: each begins where the one before it ended."""

    def __init__(self, following: bool) -> None:
        self._following, self._sums = following, ErrorSums()
        self._open: list[Pair] = []  # of a chunk that has begun

    def add(self, stretch: Stretch) -> None:
        """Takes in the next one."""
        self._keep(stretch.before)
        if stretch.figures.size or stretch.after[0].size or not self._following:
            self._close()
        self._sums.take(stretch.figures)
        self._keep(stretch.after)
        if not self._following:
            self._close()

    def _keep(self, pair: Pair) -> None:
        if pair[0].size:
            self._open.append(pair)

    def _close(self) -> None:
        """The chunk that has begun ends here."""
        if self._open:
            self._sums.add(*(np.concatenate(some) for some in zip(*self._open, strict=True)))
        self._open = []

    def end(self) -> ErrorSums:
        """Returns the sums of all."""
        self._close()
        return self._sums
