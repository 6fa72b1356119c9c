"""Numbers that matter to integers with a scale and a zero point, and the scales and zero points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.elements import FLOAT32_MAX, INF, LARGEST, NANS, SIGN, neighbours
from numerics.conform.inputs.shapes import LEAST, SINGLES
from numerics.conform.task import Array, Float32
from numerics.formats.dtype import Element

ENDS = (2.0**126, 2.0**127, FLOAT32_MAX, 2.0**-126, 2.0**-127, 2.0**-149)
"""Float32's largest scales, whose reciprocal is subnormal, the least normal one, and subnormal ones."""
SCALES = (1.0, 0.1, 0.5, 1 / 3, 0.007874016, 3.7, 0.25, 2.0**-7, 1e-30, 1e30, 2.0**-130, 1e36, *ENDS)
WHOLE = (1.0, float(np.float32(0.1)))
"""Scales at which every integer of 8 bits is tried; at the others some are."""
SOME = 64
FEWEST = 2.0**-120  # scales that are drawn: 2**-120 to 2**120
FAR = (4e4, 6e4 + 0.5, 3e9, 1e19, 1e7)


def numbers(dtype: Element, scale: float, zero_point: int) -> Float32:
    """float32 inputs about the integers and their middles at a scale, the clamps, and the specials.

    >>> from numerics.formats import int4
    >>> bool({0.25, 0.75} <= set(numbers(int4, 0.5, 0).tolist()))
    True
    """
    low, high = int(dtype.min) - zero_point, int(dtype.max) - zero_point
    ends = {int(dtype.min), int(dtype.max), low, high, 0}
    near = [q + d for q in ends for d in (-2, -1, 0, 1, 2)]
    most = 1 << 8 if zero_point == 0 and scale in WHOLE else SOME
    integers = np.unique(np.concatenate([near, np.linspace(low, high, most).round()]))
    points = np.concatenate([integers, integers + 0.5, [2 * low - 3, 2 * high + 3], FAR])
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.unique(np.abs((points * np.float64(scale)).astype(np.float32)))
    scaled = scaled[np.isfinite(scaled)].view(np.uint32)
    magnitudes = np.concatenate([neighbours(scaled), np.array([0, 1, LARGEST, INF, NANS[0]], np.uint32)])
    return np.concatenate([magnitudes, magnitudes | SIGN]).view(np.float32)


def telling(dtype: Element) -> Float32:
    """Numbers for arrays of many shapes: quotients between integers and midway, clamps, what is no number.

    All are different: which of them stands in a place can be told from its value.

    >>> from numerics.formats import int4
    >>> len(telling(int4)) % 2
    1
    """
    past = 3.0 * float(dtype.max)
    found = [*SINGLES, 0.25, 0.75, -1.75, 0.15, past, -past, LEAST[0], LEAST[1], np.inf, -np.inf, np.nan]
    return np.array(found[: len(found) - 1 + len(found) % 2], np.float32)


def laid_out(dtype: Element) -> list[tuple[float, int]]:
    """Scales and zero points at which arrays of many shapes are asked: near each other, and unlike.

    >>> from numerics.formats import int4
    >>> [zero for _, zero in laid_out(int4)]
    [0, 4, -8, 1, 0]
    """
    low, high = int(dtype.min), int(dtype.max)
    scales, zeros = (0.5, 0.1, 1 / 3, 0.2, 0.7), (0, high // 2 + 1, low, 1, 0)
    return [(float(np.float32(scale)), zero) for scale, zero in zip(scales, zeros, strict=True)]


def scales_and_zero_points(dtype: Element) -> list[tuple[float, int]]:
    """The scales and zero points at which an affine quantizer is tried.

    >>> from numerics.formats import int4
    >>> len(scales_and_zero_points(int4))
    33
    """
    low, high = int(dtype.min), int(dtype.max)
    plain = [(float(np.float32(scale)), 0) for scale in SCALES]
    zeros = sorted({low, high, high // 2 + 1, max(low, -1), 1})
    return plain + [(float(np.float32(scale)), zero) for scale in (0.1, 1 / 3, 2.0**-7) for zero in zeros]


def drawn(dtype: Element, size: int, rng: np.random.Generator) -> tuple[Float32, float, int]:
    """Numbers about the integers that a scale and a zero point of the whole range reach, and these two."""
    scales, zeros = drawn_scales(dtype, (), rng)
    scale, zero_point = float(scales), int(zeros)
    return about(dtype, np.full(size, scale), np.full(size, zero_point), rng), scale, zero_point


def drawn_scales(
    dtype: Element, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[Float32, NDArray[np.int32]]:
    """Scales of the whole range, and zero points."""
    exponents = rng.uniform(np.log2(FEWEST), -np.log2(FEWEST), shape)
    zeros = rng.integers(int(dtype.min), int(dtype.max) + 1, shape)
    return np.asarray(np.exp2(exponents), np.float32), np.asarray(zeros, np.int32)


def about(dtype: Element, scales: Array, zeros: Array, rng: np.random.Generator) -> Float32:
    """A number about the integers that each scale and zero point reach; half of them integers and middles."""
    reach = (1.3 * end - zeros.astype(np.float64) for end in (dtype.min, dtype.max))
    wide = rng.uniform(*reach)
    near = np.where(rng.random(wide.shape) < 0.5, np.round(2 * wide) / 2, wide)
    with np.errstate(all="ignore"):
        return np.asarray(near * scales, np.float32)
