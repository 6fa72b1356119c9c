"""Powers of a signal and of its error, summed so that every executor finds the same bits.

Chunks of a fixed size, and in each of them LANES sums: element i goes to sum i modulo LANES, in
order, and at the end the sums are added in halves.  So neither the number of threads nor the width of
a vector register shows in the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Array
from numerics.backends.host.ieee import ieee_arithmetic

CHUNK = 1 << 14  # elements: small beside a thread's share, large beside the sums of their ends
LANES = 16  # sums in flight: enough to hide the latency of an addition
FIGURES = 4  # of a chunk: signal, noise, elements that are not finite, largest error

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
