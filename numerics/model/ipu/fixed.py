"""Integers with an exact scale, and the arithmetic of a device's accumulators on them.

Sums of products are taken in float64 by BLAS, where every integer below 2**53 is exact, and checked against
that bound; nothing else is rounded before `requantized`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from numerics.backends.array import primitives
from numerics.backends.bind import PRIMITIVES, bind
from numerics.backends.ipu import limits, srs
from numerics.formats.errors import NumericsError

Array = NDArray[Any]
EXACT: Final = 2**53  # below it every integer is a float64
INT32: Final = 2**31
_bound = bind({name: getattr(primitives, name) for name in PRIMITIVES}, sources=(srs,))


@dataclass(frozen=True)
class Fixed:
    """Numbers q * scale.

    q: int64; float64 where sums of different scales left no integers.  scale: a Fraction; or float64, in a
    shape that broadcasts with q, where every channel has its own.  reach: what a partial sum on the way to q
    can have been at most, in magnitude; it broadcasts with q.
    """

    q: Array
    scale: Any
    reach: Any = 0

    @property
    def values(self) -> Array:
        """The numbers, in float64."""
        scale = float(self.scale) if isinstance(self.scale, Fraction) else self.scale
        return np.asarray(self.q * scale)

    def moved(self, q: Array) -> Fixed:
        """The same scale on other integers, which come of one accumulator each."""
        return Fixed(q, self.scale, self.reach)


@dataclass(frozen=True)
class Rounded:
    """What an accumulator became.

    integers: int64, saturated.  tie: where it lay midway between two integers.  wide: where the sum, or a
    partial sum, may have more digits than float32 keeps.  near: where it lay within 2**-20, of what is
    summed, of midway, or midway by scales that are no powers of two, so that float32 operations in some
    order may round it elsewhere.
    """

    integers: Array
    tie: Array
    wide: Array
    near: Array = field(repr=False)


def requantized(x: Fixed, scale: Fraction, mode: str, ends: tuple[int, int], zero: int = 0) -> Rounded:
    """x in units of another scale, rounded in an AIE-ML mode, moved by a zero point, saturated to the ends.

    By the shift of `srs` where the scales are in a ratio of n / 2**k; else by a product in float64, in the
    modes pos_inf and conv_even.  Raises NumericsError where n times the accumulator leaves int32.
    """
    low, high = ends[0] - zero, ends[1] - zero
    ratio = x.scale / scale if isinstance(x.scale, Fraction) else None
    if ratio is None or x.q.dtype.kind == "f" or not _is_dyadic(ratio):
        return _by_product(x, scale, mode, (low, high), zero)
    acc, shift = x.q * ratio.numerator, ratio.denominator.bit_length() - 1
    if np.abs(acc).max(initial=0) >= INT32:
        raise NumericsError(
            f"an accumulator of {int(np.abs(acc).max()):,} leaves int32: the device's are narrower; "
            "coarser scales before it are needed"
        )
    if shift > 31:
        raise NumericsError(f"a shift by {shift}: the device shifts by 31 at most")
    integers = _bound.srs(acc.astype(np.int32), shift, mode, low, high).astype(np.int64)
    rest, half = acc & ((1 << shift) - 1), (1 << shift) >> 1
    tie = (rest == half) & (shift > 0)
    most = np.maximum(np.maximum(1 << shift, np.abs(acc)), x.reach * ratio.numerator)
    near = (np.abs(rest - half) <= most * 2.0**-20) & (shift > 0)
    exact = is_power_of_two(x.scale) and is_power_of_two(scale) and zero % 2 == 0
    return Rounded(integers + zero, tie, _is_wide(x), near & (not exact))


def is_power_of_two(scale: Fraction) -> bool:
    """Are numbers of that scale exact in float32, while their integers are?"""
    n, d = scale.numerator, scale.denominator
    return n & (n - 1) == 0 and d & (d - 1) == 0


def _is_wide(x: Fixed) -> Array:
    """Where float32 may not hold the sum, or what it was on the way."""
    return np.asarray(np.maximum(np.abs(x.q), x.reach) >= limits.FLOAT32_INTEGERS)


def _is_dyadic(ratio: Fraction) -> bool:
    """Is it n / 2**k, and n, but for its powers of two, as small as the device's multipliers?

    Those of means and hard sigmoids are below 2**15; what is larger comes from float scales.
    """
    n = ratio.numerator
    return ratio.denominator & (ratio.denominator - 1) == 0 and n < 1 << 20 and n // (n & -n) < 1 << 15


def _by_product(x: Fixed, scale: Fraction, mode: str, ends: tuple[int, int], zero: int) -> Rounded:
    exact = x.values / float(scale)
    rounded = np.floor(exact + 0.5) if mode == "pos_inf" else np.rint(exact)
    apart = np.abs(exact - np.floor(exact) - 0.5)
    summands = np.asarray(x.moved(x.reach).values) / float(scale)  # float32 loses digits of the largest
    near = apart <= np.maximum(np.maximum(1.0, np.abs(exact)), summands) * 2.0**-20
    return Rounded(np.clip(rounded, *ends).astype(np.int64) + zero, apart == 0, _is_wide(x), near)


# ---- products -------------------------------------------------------------------------------------


def exact_product(a: Array, b: Array) -> Array:
    """a @ b of integers, [..., n, k] and [k, m], exactly; raises NumericsError where float64 may not be."""
    bound = float(np.abs(a).max(initial=0)) * float(np.abs(b).max(initial=0)) * a.shape[-1]
    if bound >= EXACT:
        raise NumericsError(f"a sum of products may reach {bound:.3g}, beyond what float64 holds exactly")
    return np.asarray((a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64))


def convolved(x: Array, w: Array, geometry: Geometry) -> Array:
    """The convolution of integers [n, channels, ...] and [outputs, channels / groups, ...], exactly."""
    windows = windows_of(x, w.shape[2:], geometry)  # [n, channels, *out, *kernel]
    rank = w.ndim - 2
    per_group = w.shape[0] // geometry.groups
    parts = []
    for group in range(geometry.groups):
        mine = windows[:, group * w.shape[1] : (group + 1) * w.shape[1]]
        rows = np.moveaxis(mine, 1, 1 + rank)  # [n, *out, channels, *kernel]
        shape = rows.shape[: 1 + rank]
        flat = w[group * per_group : (group + 1) * per_group].reshape(per_group, -1)
        product = exact_product(rows.reshape(*shape, -1), flat.T)
        parts.append(np.moveaxis(product, -1, 1))
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Geometry:
    """Of windows: strides, dilations and pads (before each axis, then after each), and groups."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1


def windows_of(x: Array, kernel: tuple[int, ...], geometry: Geometry) -> Array:
    """The windows of [n, channels, ...] as [n, channels, *out, *kernel]; what is padded is 0."""
    rank = len(kernel)
    ends = list(zip(geometry.pads[:rank], geometry.pads[rank:], strict=True))
    padded = np.pad(x, [(0, 0), (0, 0), *ends])
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, geometry.dilations, strict=True))
    every = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None), slice(None), *(slice(None, None, s) for s in geometry.strides)]
    steps += [slice(None, None, d) for d in geometry.dilations]
    return every[tuple(steps)]
