"""Inputs of every precision as 32-bit words: what the shared arithmetic takes.

float16 and bfloat16 widen exactly.  float64 is cut toward zero to float32 with the last bit set
where anything was lost (round to odd): a second, deterministic rounding to at most 22 bits then gives
what a single one would have given.  Stochastic rounding looks further down: `low` holds the next 30
bits; and further up: what is 2**128 or more is past every format whatever is drawn, as infinity is.
"""

from __future__ import annotations

from math import frexp, inf, ldexp, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError

Words = NDArray[np.int32]
_NAMES = {np.dtype(name): name for name in ("float16", "float32", "float64", "uint8", "uint16", "int32")}
BEYOND = 2.0**128  # what would follow the largest float32
FLOAT32_MAX = np.float32(np.finfo(np.float32).max)
SMALLEST_NORMAL = 2.0**-126  # of float32


def bfloat16_type() -> np.dtype[Any]:
    """NumPy's bfloat16, which ml_dtypes brings; raises NumericsError where that is not installed."""
    try:
        import ml_dtypes
    except ImportError:
        raise NumericsError(
            "NumPy has no bfloat16 of its own: pip install ml_dtypes, or ask for another type, "
            'as in dequantize("float32")'
        ) from None
    kind: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return kind


def bits_of(number: float) -> int:
    """The bits of a float32 number that is positive and finite.

    By integers, since a conversion would lose subnormals in a thread that flushes them.

    >>> bits_of(1.0) == 0x3F800000, bits_of(2.0**-149)
    (True, 1)
    """
    significand, exponent = frexp(number)
    if exponent < -125:
        return int(ldexp(number, 149))
    return (exponent + 125 << 23) + int(ldexp(significand, 24))


def number_of_bits(bits: int) -> float:
    """Returns the float32 of these bits: negative, Inf and NaN are for the caller to refuse."""
    field, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if field == 255:
        magnitude = nan if fraction else inf
    else:
        magnitude = ldexp(fraction + ((field > 0) << 23), max(field, 1) - 150)
    return -magnitude if bits < 0 else magnitude


def name_of(dtype: np.dtype[Any]) -> str:
    """Its name, which NumPy takes microseconds to say."""
    return _NAMES.get(dtype) or dtype.name


def to_float32(x: NDArray[Any]) -> NDArray[Any]:
    """float16 and bfloat16 as float32; float32 and float64 as they are."""
    if name_of(x.dtype) == "bfloat16":
        return (x.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x.astype(np.float32) if x.dtype == np.float16 else x


def truncate(x: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """float64 cut toward zero to float32, and where something was lost.  Finite stays finite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        near = x.astype(np.float32)
        cut = np.where(np.abs(near.astype(np.float64)) > np.abs(x), np.nextafter(near, np.float32(0)), near)
        cut = np.where(np.isfinite(x) & np.isinf(near), np.copysign(FLOAT32_MAX, near), cut)
    return cut, (cut.astype(np.float64) != x) & ~np.isnan(x)


def round_to_odd(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """float64 to float32; an inexact result takes the odd neighbour (Boldo & Melquiond 2008)."""
    cut, lost = truncate(x)
    return (cut.view(np.int32) | lost.astype(np.int32)).view(np.float32)


def split_sum(x: Any, y: Any) -> tuple[Any, Any]:
    """x + y as the nearest float64 and what that lacks, exactly (Knuth's TwoSum); arrays or tensors."""
    near = x + y
    back = near - x
    return near, (x - (near - back)) + (y - back)


def odd_sum(x: Any, y: Any, where: Any = np.where, word: Any = np.int64) -> Any:
    """x + y in float64, rounded to odd: arrays, or what has a `where` and a 64-bit integer of its own."""
    near, lacking = split_sum(x, y)
    bits = near.view(word)
    inexact = (lacking != 0) & (lacking == lacking) & (bits & 1 == 0)  # NaN where the sum is infinite
    moved = bits + where((near > 0) == (lacking > 0), 1, -1)
    return where(inexact, moved, bits).view(near.dtype)


def as_float32(x: NDArray[Any]) -> NDArray[np.float32]:
    """Any float type as float32: widened, or rounded to odd."""
    return round_to_odd(x) if x.dtype == np.float64 else to_float32(x)


def words(x: NDArray[Any], stochastic: bool = False, has_zero: bool = True) -> tuple[Words, Words | None]:
    """Returns the bits of x as float32, and of float64 under stochastic rounding the next 30 bits; else None.

    has_zero: has the format a zero?  Where it has none, a positive float64 below all of float32 becomes the
    least subnormal instead of 0.
    """
    if x.dtype != np.float64 or not stochastic:
        return as_float32(x).view(np.int32), None
    cut, lost = truncate(x)
    beyond = np.abs(x) >= BEYOND
    bits = np.where(beyond, np.copysign(np.float32(np.inf), cut), cut).view(np.int32)
    if not has_zero:
        raised = (bits == 0) & (x > 0)
        bits, lost = np.where(raised, np.int32(1), bits), lost & ~raised
    field = np.maximum((bits & 0x7FFFFFFF) >> 23, 1)
    with np.errstate(invalid="ignore"):  # an exact fraction of the last place: no rounding here
        rest = np.where(lost & ~beyond, np.abs(x) - np.abs(cut.astype(np.float64)), 0.0)
    return bits, np.ldexp(rest, 150 - field + 30).astype(np.int32)
