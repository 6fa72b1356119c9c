"""Inputs that matter, derived from a format's row; the same ones in every run.

What a wrong kernel does differently it does next to something: a value of the format, the middle
of two, the threshold of a scale, the ends of float32.  Each stands here with its neighbours.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from numerics.backends.reference.breakpoints import first_maximum
from numerics.backends.reference.exact import ladder
from numerics.conform.task import REFERENCE, Fields
from numerics.formats.block import Block
from numerics.formats.dtype import Element, Float
from numerics.formats.rounding import RANDOM_BITS, SCALE_RULES

Float32 = NDArray[np.float32]
Bits = NDArray[np.uint32]

SIGN = np.uint32(1 << 31)
LARGEST = 0x7F7FFFFF
FLOAT32_MAX = float(np.finfo(np.float32).max)
INF = 0x7F800000
NANS = (0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0x7FA00000)  # quiet, signalling, every payload bit, a payload
RANDOM = 2048
MOST_MARKS = 1600  # of an element, in blocks: more are thinned out


@lru_cache(maxsize=64)
def values(dtype: Element) -> NDArray[np.float64]:
    """The finite values, rising, each once.

    >>> from numerics.formats import int2
    >>> values(int2).tolist()
    [-2.0, -1.0, 0.0, 1.0]
    """
    decoded = REFERENCE.decode(np.arange(1 << dtype.bits), dtype).astype(np.float64)
    return np.unique(decoded[np.isfinite(decoded)])


def beyond(dtype: Element) -> float:
    """The first value past the largest, on the grid that goes on (FORMATS §2).

    >>> from numerics.formats import fp8_e4m3, int8
    >>> beyond(fp8_e4m3), beyond(int8)
    (480.0, 128.0)
    """
    return float(ladder(dtype).values[-1]) if isinstance(dtype, Float) else dtype.max + 1


@lru_cache(maxsize=64)
def marks(dtype: Element) -> NDArray[np.float64]:
    """Magnitudes on which an encoder may turn: the values, those past the largest, the middles.

    >>> from numerics.formats import int2
    >>> marks(int2).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    """
    held = np.unique(np.abs(values(dtype)))
    past = beyond(dtype)
    steps = np.unique(np.concatenate([held, [0.0, past]]))
    middles = (steps[1:] + steps[:-1]) / 2
    return np.unique(np.concatenate([steps, middles, [1.5 * past, 2 * past]]))


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


@lru_cache(maxsize=64)
def probes(dtype: Element) -> Float32:
    """float32 inputs of both signs that tell an encoder of the format from a wrong one, NaNs last.

    >>> from numerics.formats import fp8_e4m3
    >>> bool({464.0, 448.0, 2.0**-10} <= set(probes(fp8_e4m3).tolist()))
    True
    """
    turning = turning_points(dtype).view(np.uint32) & ~SIGN
    magnitudes = np.unique(np.concatenate([turning, _near_values(dtype), everywhere(), SPECIALS]))
    found = np.concatenate([magnitudes, magnitudes | SIGN]).view(np.float32)
    found.flags.writeable = False
    return found


def _near_values(dtype: Element) -> Bits:
    """Random magnitudes within the format's range, where its steps are."""
    rng = np.random.default_rng(1)
    low, high = (int(b) for b in bits_of(np.array([dtype.smallest_subnormal / 8, dtype.max])))
    return rng.integers(low, high + 1, RANDOM, dtype=np.uint32)


# ---- blocks -------------------------------------------------------------------------------------

EXPONENTS = (-126, -125, -101, -24, *range(-4, 11), 64, 101, 126, 127)
GRID_UNITS = (2.0**-100, 1.0)
SCALED_UNITS = (0.015625, 1.75)


@lru_cache(maxsize=64)
def block_probes(dtype: Block) -> Float32:
    """float32 blocks [n, block] that tell a quantizer of the format from a wrong one.

    Maxima at the thresholds of every scale rule, every element of the grid with its neighbours and
    middles at some scales, NaN, Inf, zeros, the ends of float32, and random blocks.

    >>> from numerics.formats import mxfp4
    >>> block_probes(mxfp4).shape[1]
    32
    """
    rows = [_tops(dtype), _grids(dtype), _special_blocks(dtype), _random_blocks(dtype)]
    found = np.concatenate(rows).astype(np.float32)
    found.flags.writeable = False
    return found


def thresholds(dtype: Block) -> Bits:
    """Magnitudes of a block's maximum on which its scale may turn, with their neighbours.

    >>> from numerics.formats import mxfp4
    >>> bool(np.isin(np.float32([6.0, 7.0, 8.0]).view(np.uint32), thresholds(mxfp4)).all())
    True
    """
    powers = np.ldexp(1.0, np.array(EXPONENTS))
    found = [bits_of(powers)]
    if dtype.family == "mx" and dtype.element is not None:
        exponents = [e - dtype.emax for e in EXPONENTS if -126 <= e - dtype.emax <= 127]
        firsts = [first_maximum(e, dtype.element, rule) for e in exponents for rule in SCALE_RULES]
        found.append(np.array(firsts, np.uint32))
    if dtype.family == "micro":
        found.append(bits_of(powers * (2 - 2.0 ** -(dtype.mantissa or 0))))
    if dtype.family == "scaled" and dtype.scale is not None:
        found.append(bits_of(marks(dtype.scale) * _largest(dtype)))
    return neighbours(np.concatenate(found))


def _largest(dtype: Block) -> float:
    return dtype.element_unit * dtype.element.max if dtype.element else 2.0


def element_marks(dtype: Block) -> NDArray[np.float64]:
    """Magnitudes on which an element may turn, in units of the block's scale.

    >>> from numerics.formats import mx4
    >>> element_marks(mx4)[:4].tolist()
    [0.0, 0.125, 0.25, 0.375]
    """
    if dtype.element is not None:
        return marks(dtype.element) * dtype.element_unit
    m = dtype.mantissa or 0
    return np.asarray(np.ldexp(np.arange(0.0, (4 << m) + 1), -2 - (m - 1)))


def _tops(dtype: Block) -> NDArray[np.float64]:
    """One block a threshold: the maximum, and what shows at which scale the others were rounded."""
    tops = thresholds(dtype).view(np.float32).astype(np.float64)
    rows = np.zeros((len(tops), dtype.block))
    rows[:, 0] = tops * np.where(np.arange(len(tops)) % 2 == 0, 1, -1)
    least = element_marks(dtype)[1:4] / _largest(dtype)
    for place, ratio in enumerate(least[: dtype.block - 1], 1):
        rows[:, place] = tops * ratio * (-1) ** place
    return rows


def _grids(dtype: Block) -> NDArray[np.float64]:
    """The element's marks at some scales, each block led by a maximum that fixes the scale."""
    units = SCALED_UNITS if dtype.family == "scaled" else GRID_UNITS
    near = neighbours(bits_of(element_marks(dtype)))
    near = near[:: -(-len(near) // MOST_MARKS)]
    found = near.view(np.float32).astype(np.float64)
    signed = found * np.where(np.arange(len(found)) % 3 == 1, -1.0, 1.0)
    both = np.concatenate([signed, -signed])
    width = max(dtype.block - 1, 1)
    rows = np.zeros((-(-len(both) // width), dtype.block))
    filled = np.resize(both, len(rows) * width).reshape(len(rows), width)
    rows[:, -width:] = filled
    rows[:, 0] = _pilot(dtype) if dtype.block > 1 else rows[:, 0]
    return np.concatenate([rows * unit for unit in units])


def _pilot(dtype: Block) -> float:
    """A maximum that gives the scale 1 by the default rule."""
    return _largest(dtype) if dtype.family == "scaled" else 2.0**dtype.emax


def _special_blocks(dtype: Block) -> NDArray[np.float64]:
    n = dtype.block
    ordinary = np.linspace(-1.9, 1.7, n)
    alone = np.zeros(n)
    alone[-1] = 1.0
    tiny = np.full(n, 2.0**-149)
    rows = [np.zeros(n), np.full(n, -0.0), alone, -alone, np.ones(n), tiny, -tiny, np.full(n, 2.0**-127)]
    rows += [np.full(n, 2.0**-126), np.full(n, FLOAT32_MAX), ordinary * 2.0**-126]
    for special in (np.nan, -np.nan, np.inf, -np.inf):
        for place in {0, n // 2, n - 1}:
            rows.append(np.where(np.arange(n) == place, special, ordinary))
        rows.append(np.where(np.arange(n) == 0, special, 0.0))
    rows.append(np.where(np.arange(n) % 2 == 0, -0.0, ordinary))
    rows.append(np.where(np.arange(n) == 0, 1.0, -(2.0**-60)))
    return np.array(rows)


def _random_blocks(dtype: Block) -> NDArray[np.float64]:
    rng = np.random.default_rng(2)
    exponents = np.concatenate([np.zeros(8), rng.integers(-120, 110, 12)])
    near = rng.standard_normal((len(exponents), dtype.block)) * np.exp2(exponents)[:, None]
    bits = rng.integers(0, INF, (6, dtype.block), dtype=np.uint32)
    signs = rng.integers(0, 2, bits.shape, dtype=np.uint32) << np.uint32(31)
    subnormal = rng.integers(0, 1 << 24, (4, dtype.block), dtype=np.uint32)
    patterns = np.concatenate([bits | signs, subnormal])
    return np.concatenate([near, patterns.view(np.float32).astype(np.float64)])


# ---- integers with a scale and a zero point -----------------------------------------------------

SCALES = (1.0, 0.5, 0.1, 1 / 3, 0.007874016, 3.7, 1e-30, 1e30)


def affine_probes(dtype: Element, scale: float, zero_point: int, most: int = 64) -> Float32:
    """float32 inputs about the integers and their middles at a scale, the clamps, and the specials.

    >>> from numerics.formats import int4
    >>> bool({0.25, 0.75} <= set(affine_probes(int4, 0.5, 0).tolist()))
    True
    """
    low, high = int(dtype.min) - zero_point, int(dtype.max) - zero_point
    ends = {int(dtype.min), int(dtype.max), low, high, 0}
    near = [q + d for q in ends for d in (-2, -1, 0, 1, 2)]
    integers = np.unique(np.concatenate([near, np.linspace(low, high, most).round()]))
    points = np.concatenate([integers, integers + 0.5, [2 * low - 3, 2 * high + 3, 1e7, -1e7]])
    scaled = np.unique(np.abs((points * np.float64(scale)).astype(np.float32))).view(np.uint32)
    magnitudes = np.concatenate([neighbours(scaled), np.array([0, 1, LARGEST, INF, NANS[0]], np.uint32)])
    return np.concatenate([magnitudes, magnitudes | SIGN]).view(np.float32)


def scales_and_zero_points(dtype: Element) -> list[tuple[float, int]]:
    """The scales and zero points at which an affine quantizer is tried.

    >>> from numerics.formats import int4
    >>> len(scales_and_zero_points(int4))
    11
    """
    low, high = int(dtype.min), int(dtype.max)
    plain = [(float(np.float32(scale)), 0) for scale in SCALES]
    return plain + [(float(np.float32(0.1)), zero) for zero in (low, high, (low + high) // 3 + 1)]


# ---- random bits --------------------------------------------------------------------------------

DRAWN = 300  # numbers that are tried with draws
STEPS_OF_DRAWS = 64


@lru_cache(maxsize=64)
def drawn_probes(dtype: Element) -> tuple[Float32, Bits]:
    """Numbers and random bits for stochastic rounding: each number just below and at its threshold.

    >>> from numerics.formats import fp4
    >>> x, random = drawn_probes(fp4)
    >>> x.shape == random.shape, int(random.max()) < 1 << 30
    (True, True)
    """
    every = probes(dtype)
    inside = every[
        np.isfinite(every) & (np.abs(every) <= bits_of(np.array([beyond(dtype)])).view(np.float32))
    ]
    x = np.concatenate([inside[:: max(len(inside) // DRAWN, 1)], every[~np.isfinite(every)]])
    held = np.append(np.unique(np.abs(values(dtype))), beyond(dtype))
    magnitude = np.where(np.isfinite(x), np.abs(x), 0).astype(np.float64)
    place = np.clip(np.searchsorted(held, magnitude, "right"), 1, len(held) - 1)
    low, high = held[place - 1], held[place]
    fraction = np.clip((magnitude - low) / (high - low), 0, 1)
    threshold = np.ceil((1 - fraction) * (1 << RANDOM_BITS)).astype(np.int64)
    least = np.zeros_like(threshold)
    choices = [least, threshold - 1, threshold, threshold + 1, least + (1 << RANDOM_BITS) - 1]
    random = np.clip(np.stack(choices), 0, (1 << RANDOM_BITS) - 1).astype(np.uint32)
    return np.tile(x, len(choices)), random.reshape(-1)


@lru_cache(maxsize=64)
def even_draws(dtype: Element) -> tuple[Float32, Bits]:
    """Numbers between neighbouring values, each with evenly spaced draws: their mean is the number.

    >>> from numerics.formats import fp4
    >>> x, random = even_draws(fp4)
    >>> len(x) // len(set(x.tolist()))
    64
    """
    held = values(dtype)
    places = np.unique(np.linspace(0, len(held) - 2, 8).astype(np.int64))
    low, width = held[places], np.diff(held)[places]
    between = low[:, None] + width[:, None] * np.array([1, 5, 8, 15]) / 16
    x = np.unique(between.astype(np.float32))
    random = (np.arange(STEPS_OF_DRAWS) << (RANDOM_BITS - 6)).astype(np.uint32)
    return np.repeat(x, len(random)), np.tile(random, len(x))


# ---- blocks that a decoder is given -------------------------------------------------------------

DECODED_SCALES = (0, 1, 2, 3, 64, 120, 126, 127, 128, 129, 200, 252, 253, 254, 255)
MICROEXPONENTS = (0, 0xFF, 0x01, 0xAA)


@lru_cache(maxsize=64)
def block_codes(dtype: Block) -> Fields:
    """Blocks as rows: every code at some scales, and some codes at every scale.

    >>> from numerics.formats import mx6
    >>> block_codes(mx6).codes.shape[1]
    16
    """
    every = np.arange(1 << dtype.element_bits)[:: -(-(1 << dtype.element_bits) // MOST_MARKS)]
    rows = np.resize(every, (-(-len(every) // dtype.block), dtype.block))
    scales = np.arange(1 << (dtype.scale.bits if dtype.scale else 8))
    some = [scale for scale in DECODED_SCALES if scale < len(scales)]
    shifts = np.arange(1) if dtype.element else np.array(MICROEXPONENTS) & ((1 << _sub_blocks(dtype)) - 1)
    each = np.array([(r, s, m) for r in range(len(rows)) for s in some for m in shifts])
    each = np.concatenate([each, [(s % len(rows), s, m) for s in scales for m in shifts[:2]]])
    codes, scale = rows[each[:, 0]].astype(dtype.code_dtype), each[:, 1].astype(np.uint8)
    return Fields(codes, scale, None if dtype.element else each[:, 2].astype(np.uint8))


def _sub_blocks(dtype: Block) -> int:
    return dtype.block // (dtype.sub_block or 1)
