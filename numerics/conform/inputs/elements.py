"""Inputs that matter, derived from a format's row; the same ones in every run.

What a wrong kernel does differently it does next to something: a value of the format, the middle
of two, the threshold of a scale, the ends of float32.  Each stands here with its neighbours.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import inside_ieee
from numerics.backends.reference.exact import ladder
from numerics.conform.task import REFERENCE, Float32
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float

Bits = NDArray[np.uint32]

SIGN = np.uint32(1 << 31)
LARGEST = 0x7F7FFFFF
FLOAT32_MAX = float(np.finfo(np.float32).max)
INF = 0x7F800000
NANS = (0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0x7FA00000)  # quiet, signalling, every payload bit, a payload
PAYLOADS = np.array(
    [INF | 1 << bit for bit in range(23)] + [0x7FFFFFFF ^ 1 << bit for bit in range(22)], np.uint32
)
"""NaN of one bit each, and of all bits but one: detectors that lack a bit take one of them for Inf."""
RANDOM = 2048
WALKED = 128  # middles beside which every bit is set alone; formats of 16 bits have more


@lru_cache(maxsize=64)
@inside_ieee
def values(dtype: Element) -> NDArray[np.float64]:
    """The finite values, rising, each once.

    >>> from numerics.formats import int2
    >>> values(int2).tolist()
    [-2.0, -1.0, 0.0, 1.0]
    """
    decoded = REFERENCE.decode(np.arange(1 << dtype.bits), dtype).astype(np.float64)
    return np.unique(decoded[np.isfinite(decoded)])


def beyond(dtype: Element) -> float:
    """The first value past the largest, on the grid that goes on (docs/formats.md §2).

    >>> from numerics.formats import fp8_e4m3, int8
    >>> beyond(fp8_e4m3), beyond(int8)
    (480.0, 128.0)
    """
    if isinstance(dtype, Codebook):
        return dtype.follows or 2 * dtype.extent
    return float(ladder(dtype).values[-1]) if isinstance(dtype, Float) else dtype.max + 1


@lru_cache(maxsize=64)
def middles(dtype: Element) -> NDArray[np.float64]:
    """Magnitudes midway between two neighbours, of either sign, also past the largest, and to 0.

    A codebook's values of one sign are not those of the other, and it may have no zero.

    >>> from numerics.formats import codebook_format, int2
    >>> middles(int2).tolist(), middles(codebook_format([-4.0, -1.0, 2.0, 8.0])).tolist()
    ([0.5, 1.5], [0.5, 1.0, 2.5, 5.0, 10.0, 12.0])
    """
    held, past = values(dtype), beyond(dtype)
    ends = [past, -past] if held[0] < 0 else [past]
    rising = [np.unique(np.append(held, more)) for more in (ends, 0.0)]
    return np.unique(np.abs(np.concatenate([(steps[1:] + steps[:-1]) / 2 for steps in rising])))


@lru_cache(maxsize=64)
def marks(dtype: Element) -> NDArray[np.float64]:
    """Magnitudes on which an encoder may turn: the values, those past the largest, the middles.

    >>> from numerics.formats import int2
    >>> marks(int2).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    """
    past = beyond(dtype)
    return np.unique(
        np.concatenate([np.abs(values(dtype)), middles(dtype), [0.0, past, 1.5 * past, 2 * past]])
    )


def bits_of(x: NDArray[np.float64]) -> Bits:
    """Finite magnitudes that float32 holds, as its bits; those past it as its largest."""
    narrowed = np.minimum(x, FLOAT32_MAX).astype(np.float32)
    return np.ascontiguousarray(narrowed).view(np.uint32)


def neighbours(magnitudes: Bits, radius: int = 1) -> Bits:
    """Each magnitude and those up to `radius` ulp beside it, finite, once."""
    moved = magnitudes.astype(np.int64)[:, None] + np.arange(-radius, radius + 1)
    return np.unique(np.clip(moved, 0, LARGEST)).astype(np.uint32)


@lru_cache(maxsize=1)
def everywhere() -> Bits:
    """Magnitudes all over float32: each exponent with 1, 1.5 and their neighbours, and random bits."""
    exponents = np.arange(255, dtype=np.uint32) << np.uint32(23)
    edges = neighbours(np.concatenate([exponents, exponents | np.uint32(0x400000)]))
    random = np.random.default_rng(0).integers(0, INF, RANDOM, dtype=np.uint32)
    return np.unique(np.concatenate([edges, random]))


def turning_points(dtype: Element) -> Float32:
    """The format's values, the middles of two, what lies past the largest, each with its neighbours.

    >>> from numerics.formats import fp8_e4m3
    >>> bool({464.0, 448.0, -(2.0**-10)} <= set(turning_points(fp8_e4m3).tolist()))
    True
    """
    magnitudes = neighbours(bits_of(marks(dtype)))
    return np.concatenate([magnitudes, magnitudes | SIGN]).view(np.float32)


SPECIALS = np.array([INF, *NANS, 0, 1, 0x7FFFFF, 0x800000, LARGEST], np.uint32)
"""The ends of float32, of its subnormals, and what is no number; magnitudes."""


def walking(dtype: Element) -> Bits:
    """Middles of two values with one bit more, or less: a sticky bit that lacks an input takes them for ties.

    >>> from numerics.formats import fp8_e4m3
    >>> bool(np.isin(np.float32(1.0625).view(np.uint32) + np.uint32(1 << 10), walking(fp8_e4m3)))
    True
    """
    every = bits_of(middles(dtype))
    some = every[:: -(-len(every) // WALKED)].astype(np.int64)[:, None]
    bit = np.int64(1) << np.arange(23)
    last = np.where(some == 0, 0, some & -some)
    both = np.concatenate([(some + bit)[bit < last], (some - bit)[bit < last]])
    return np.asarray(both[(both >= 0) & (both <= LARGEST)].astype(np.uint32))


@lru_cache(maxsize=64)
def probes(dtype: Element) -> Float32:
    """float32 inputs of both signs that tell an encoder of the format from a wrong one, NaNs last.

    >>> from numerics.formats import fp8_e4m3
    >>> bool({464.0, 448.0, 2.0**-10} <= set(probes(fp8_e4m3).tolist()))
    True
    """
    turning = turning_points(dtype).view(np.uint32) & ~SIGN
    found_near = _near_values(dtype), walking(dtype), everywhere()
    magnitudes = np.unique(np.concatenate([turning, *found_near, SPECIALS, PAYLOADS]))
    found = np.concatenate([magnitudes, magnitudes | SIGN]).view(np.float32)
    found.flags.writeable = False
    return found


def _near_values(dtype: Element) -> Bits:
    """Random magnitudes within the format's range, where its steps are."""
    rng = np.random.default_rng(1)
    low, high = (int(b) for b in bits_of(np.array([dtype.smallest_subnormal / 8, dtype.extent])))
    return rng.integers(low, high + 1, RANDOM, dtype=np.uint32)
