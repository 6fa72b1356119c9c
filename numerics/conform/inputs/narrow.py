"""Inputs of another type than float32: what a float32 number becomes in it, and the numbers that it has."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.float_bits import as_float32
from numerics.formats.errors import NumericsError

Float32 = NDArray[np.float32]
FAR = (1e300, 3e-42, 1e-300, 5e-324)  # past both ends of float32, and between its last numbers
BITS = 52  # of a float64's fraction


def type_of(name: str) -> Any:
    """NumPy's dtype; raises NumericsError for bfloat16 without ml_dtypes, which NumPy needs for it.

    >>> type_of("float16")
    dtype('float16')
    """
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise NumericsError("inputs='bfloat16' needs ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def narrowed(x: Float32, name: str) -> Float32:
    """float32 numbers, each as the nearest one that a type of 16 bits has; of the others as they are.

    >>> narrowed(np.float32([1 + 2.0**-9, 1e6]), "float16").tolist()
    [1.001953125, inf]
    """
    if name in ("float32", "float64"):
        return x
    with np.errstate(all="ignore"):
        found: Float32 = cast(x, type_of(name)).astype(np.float32)
        return found


def cast(x: Float32, kind: Any) -> NDArray[Any]:
    """float32 numbers in another type, in the order of x; of NaN the upper bits of the payload.

    A cast makes a signalling NaN quiet (ml_dtypes' does), and a kernel that takes it for Inf is not found.

    >>> cast(np.uint32([0x7F810000]).view(np.float32), np.dtype(np.float16)).view(np.uint16).tolist()
    [31752]
    """
    with np.errstate(all="ignore"):
        found = x.astype(kind)
    lost = np.isnan(x) & (found.dtype.itemsize == 2)
    if lost.any():
        bits = np.ascontiguousarray(x[lost]).view(np.uint32)
        fraction = 7 if found.dtype.name == "bfloat16" else 10
        payload = (bits & 0x7FFFFF) >> (23 - fraction)
        payload[payload == 0] = 1 << (fraction - 1)
        exponent = 0x8000 - (1 << fraction)
        found[lost] = (bits >> 16 & 0x8000 | exponent | payload).astype(np.uint16).view(found.dtype)
    return found


def is_held(x: Float32, name: str) -> NDArray[np.bool_]:
    """Which float32 numbers a type holds.

    >>> is_held(np.float32([1.0, 1 + 2.0**-9, np.nan]), "bfloat16").tolist()
    [True, False, True]
    """
    return np.asarray((narrowed(x, name) == x) | np.isnan(x))


@lru_cache(maxsize=4)
def every(name: str) -> Float32:
    """All numbers of a type of 16 bits, NaN of every payload among them, as float32."""
    found: Float32 = np.arange(1 << 16, dtype=np.uint16).view(type_of(name)).astype(np.float32)
    found.flags.writeable = False
    return found


def doubles(x: Float32) -> NDArray[np.float64]:
    """float64 numbers beside finite float32 ones: one bit of the fraction more or less, from the last up.

    >>> bool((doubles(np.float32([1.0])) == 1 + 2.0**-24).any())
    True
    """
    wide = x[np.isfinite(x)].astype(np.float64).view(np.int64)
    bits = np.int64(1) << np.arange(0, BITS - 23, 4)
    moved = wide[:, None] + np.concatenate([bits, -bits])
    found = moved[(moved & np.int64(0x7FFFFFFFFFFFFFFF)) > 0].reshape(-1).view(np.float64)
    return np.concatenate([found[np.isfinite(found)], FAR, np.negative(FAR), beyond()])


def exactly(x: np.float64) -> str:
    """A float64 as it is shown: NaN by its bits.

    >>> exactly(np.float64(0.1)), exactly(np.float64("nan"))
    ('0.1', 'NaN of bits 0x7FF8000000000000')
    """
    return f"NaN of bits 0x{x.view(np.uint64):016X}" if np.isnan(x) else repr(float(x))


def beyond() -> NDArray[np.float64]:
    """NaN of each single bit, Inf, and powers of two over the whole range of float64, of both signs.

    >>> bool(np.isnan(beyond()[:52]).all()), bool(np.isinf(beyond()[52]))
    (True, True)
    """
    infinite = np.int64(0x7FF) << 52
    bits = np.concatenate([infinite | np.int64(1) << np.arange(52), [infinite], np.arange(0, 0x7FF, 29) << 52,
                           np.int64(1) << np.arange(0, 52, 5)])  # fmt: skip
    found = np.asarray(bits, np.int64).view(np.float64)
    return np.concatenate([found, np.copysign(found, -1.0)])


def beside(x: Float32, units: NDArray[np.int64]) -> NDArray[np.float64]:
    """float32 numbers as float64, moved by so many units of its last place; 0 stays.

    >>> beside(np.float32([1.0, 0.0]), np.array([-1, -1])).tolist()
    [0.9999999999999999, 0.0]
    """
    wide = x.astype(np.float64)
    return np.where(x == 0, wide, (wide.view(np.int64) + units).view(np.float64))


def single(x: NDArray[np.float64]) -> Float32:
    """float64 as float32, rounded to odd: to narrower formats it then rounds as the float64 does."""
    return as_float32(x)
