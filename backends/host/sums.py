"""Powers of a signal and of its error, summed so that every executor finds the same bits.

Chunks of a fixed size, and in each of them LANES sums: element i goes to sum i modulo LANES, in
order, and at the end the sums are added in halves.  So neither the number of threads nor the width of
a vector register shows in the result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Array
from numerics.backends.host.ieee import ieee_arithmetic

CHUNK = 1 << 14  # elements: small beside a thread's share, large beside the sums of their ends
LANES = 16  # sums in flight: enough to hide the latency of an addition
FIGURES = 4  # of a chunk: signal, noise, elements that are not finite, largest error
LEAST = 2.0**-900  # sums of squares below it, and above its inverse, are summed anew

Sums = NDArray[np.float64]


def chunks(size: int) -> int:
    """Chunks of so many elements."""
    return -(-size // CHUNK)


def error_sums(x: Array, y: Array) -> Sums:
    """The figures of each chunk of float32 or float64 arrays, in float64.

    x**2, (x-y)**2, how many elements of x are not finite, max |x-y|.  Where x is not finite, nothing is
    added to the others; a NaN in y is seen in the noise, not in the largest error.
    """
    found, room = np.zeros((chunks(x.size), FIGURES)), np.empty((2, CHUNK))
    with ieee_arithmetic():
        for k, start in enumerate(range(0, x.size, CHUNK)):
            found[k] = _chunk(x[start : start + CHUNK], y[start : start + CHUNK], room)
    return found


def scaled(figures: Sums, x: Array, y: Array) -> dict[int, tuple[int, int]]:
    """Sums the squares of chunks anew which float64 does not hold, as those of 1e-200 and 1e200.

    figures: what error_sums returned, whose first two figures are put right: in units of the powers of 4 that
    are returned for them, by the number of their chunk.
    """
    powers: dict[int, tuple[int, int]] = {}
    odd = _beyond(figures[:, 0]) | _beyond(figures[:, 1]) & (figures[:, 3] > 0)
    x, y = (np.ascontiguousarray(one).reshape(-1) for one in (x, y)) if odd.any() else (x, y)
    for k in np.flatnonzero(odd).tolist():
        part = slice(k * CHUNK, (k + 1) * CHUNK)
        signal = np.where(finite := np.isfinite(x[part]), x[part], 0).astype(np.float64)
        with np.errstate(all="ignore"):
            error = np.where(finite, signal - y[part], 0)
        powers[k] = (_anew(figures[k], 0, signal), _anew(figures[k], 1, error))
    return powers


def _beyond(squares: Any) -> Any:
    """Are sums of squares so small, or so large, that float64 lost some of them, or may lose the next?"""
    return ~((squares >= LEAST) & (squares <= 1 / LEAST))


def _anew(figures: Sums, place: int, values: Sums) -> int:
    """Puts the sum of squares there in units of a power of 4, which is returned; 0 where it stands."""
    largest = float(np.abs(values).max(initial=0))
    if not 0 < largest < math.inf or not _beyond(figures[place]):
        return 0
    power = math.frexp(largest)[1]
    values = np.ldexp(values, -power)
    figures[place] = error_sums(values, np.zeros_like(values))[:, 0].sum()
    return power


def _chunk(x: Array, y: Array, room: Sums) -> tuple[float, float, int, float]:
    filled = -(-x.size // LANES) * LANES
    room[:, x.size : filled] = 0
    signal, error = room[:, : x.size]
    signal[...] = x
    np.subtract(signal, y, out=error)
    finite = np.isfinite(x)
    if not finite.all():
        signal[~finite] = error[~finite] = 0
    largest = float(np.fmax.reduce(np.abs(error, out=error), initial=0.0))
    np.multiply(room[:, :filled], room[:, :filled], out=room[:, :filled])
    count = x.size - int(np.count_nonzero(finite))
    return _total(room[0, :filled]), _total(room[1, :filled]), count, largest


def _total(squares: Sums) -> float:
    lanes = squares.reshape(-1, LANES).sum(axis=0)
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return float(lanes[0])
