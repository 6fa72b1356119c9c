"""Blocks that matter: maxima where a scale turns, elements where they turn, and what is no number."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from numerics.backends.reference.breakpoints import first_maximum
from numerics.conform.inputs.elements import FLOAT32_MAX, INF, NANS, SIGN, Bits, bits_of, marks, neighbours
from numerics.conform.inputs.shapes import pairs
from numerics.conform.task import Fields, Float32
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock

PAIRED = 8  # elements of either sign that stand beside each other
MOST_MARKS = 1600  # of an element: more are thinned out
EXPONENTS = (-126, -125, -101, -24, *range(-4, 11), 64, 101, 126, 127)
EVERY_SCALE = 64  # numbers of a block: of longer ones some scales are turned
GRID_UNITS = (2.0**-100, 1.0)
SCALED_UNITS = (0.015625, 1.75)


@lru_cache(maxsize=64)
def probes(dtype: Block, tensor_scale: float | None = None) -> Float32:
    """float32 blocks [n, block] that tell a quantizer of the format from a wrong one.

    Maxima at the thresholds of every scale rule, a maximum in every binade of float32, every element of
    the grid with its neighbours and middles at some scales, NaN and Inf in every place, zeros, the ends
    of float32, and random blocks.  tensor_scale: of a format that has one; all magnitudes follow it.

    >>> from numerics.formats import mxfp4
    >>> probes(mxfp4).shape[1]
    32
    """
    rows = [_tops(dtype), lone_maxima(dtype), _grids(dtype), _pairs(dtype), _binades(dtype),
            _special_blocks(dtype), _random_blocks(dtype), twin_maxima(dtype)]  # fmt: skip
    whole = np.concatenate(rows)
    if tensor_scale not in (None, 1.0):
        whole = np.concatenate([whole * tensor_scale, _tops(dtype, tensor_scale)])
    with np.errstate(over="ignore"):
        found = np.concatenate([whole.astype(np.float32), _not_numbers(dtype)])
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
    if isinstance(dtype, MXBlock):
        found.append(_first_maxima(dtype))
    if isinstance(dtype, MicroexponentBlock):
        found.append(bits_of(powers * (2 - 2.0**-dtype.mantissa)))
    if isinstance(dtype, TieredBlock):  # scales of three digits to a seventh, and what is 2 and 4 of them
        found.append(bits_of((powers[:, None] * (np.arange(8, 17) * 7 / 8)).ravel()))
    if isinstance(dtype, ScaledBlock):
        found.append(bits_of(marks(dtype.scale) * _largest(dtype)))
    return neighbours(np.concatenate(found))


def _first_maxima(dtype: MXBlock) -> Bits:
    """The bits of the first maximum of every scale, by every rule; of some scales where blocks are long."""
    last = min(127, 128 - dtype.emax)  # its first maximum may still be a float32, by a rule that rounds up
    every = {-126, *range(-126 if dtype.block <= EVERY_SCALE else last - 1, last + 1)}
    exponents = {e - dtype.emax for e in EXPONENTS if -126 <= e - dtype.emax <= last} | every
    firsts = {first_maximum(e, dtype.element, rule) for e in exponents for rule in dtype.scale_rules}
    return np.array(sorted(first for first in firsts if first < INF), np.uint32)


def _largest(dtype: Block) -> float:
    return dtype.element_unit * dtype.element.scale_end if isinstance(dtype, ElementBlock) else 2.0


def element_marks(dtype: Block) -> NDArray[np.float64]:
    """Magnitudes on which an element may turn, in units of the block's scale.

    >>> from numerics.formats import mx4
    >>> element_marks(mx4)[:4].tolist()
    [0.0, 0.125, 0.25, 0.375]
    """
    if isinstance(dtype, ElementBlock):
        found = marks(dtype.element) * dtype.element_unit
        if isinstance(dtype, ScaledBlock) and dtype.integers is not None:
            found = np.union1d(found, marks(dtype.integers) / dtype.steps_in_one)
        return found
    m = dtype.element_bits - 1
    return np.asarray(np.ldexp(np.arange(0.0, (4 << m) + 1), -2 - (m - 1)))


def _tops(dtype: Block, tensor_scale: float = 1.0) -> NDArray[np.float64]:
    """One block a threshold: the maximum, and what shows at which scale the others were rounded."""
    bits = thresholds(dtype)
    if tensor_scale != 1:  # the threshold itself is no float32 number: those beside it
        bits = neighbours(bits_of(bits.view(np.float32).astype(np.float64) * tensor_scale), 2)
    tops = bits.view(np.float32).astype(np.float64)
    rows = np.zeros((len(tops), dtype.block))
    rows[:, 0] = tops * np.where(np.arange(len(tops)) % 2 == 0, 1, -1)
    least = element_marks(dtype)[1:4] / _largest(dtype)
    for place, ratio in enumerate(least[: dtype.block - 1], 1):
        rows[:, place] = tops * ratio * (-1) ** place
    return rows


def lone_maxima(dtype: Block) -> NDArray[np.float64]:
    """A maximum alone in its binade, of either sign, in every place: a reduction that drops a place shows.

    >>> from numerics.formats import mxfp4
    >>> lone_maxima(mxfp4).shape
    (64, 32)
    """
    n = dtype.block
    others = np.linspace(-1.0, 0.97, n) / 64 if n > 1 else np.zeros(1)
    rows = np.tile(others, (2 * n, 1))
    places = np.arange(2 * n)
    rows[places, places // 2] = np.where(places % 2 == 0, 1.5, -1.5)
    return rows


def twin_maxima(dtype: Block) -> NDArray[np.float64]:
    """The same maximum twice, of one sign and of both, in neighbouring places and half a block apart.

    >>> from numerics.formats import mxfp4
    >>> twin_maxima(mxfp4).shape, abs(twin_maxima(mxfp4)[31]).argsort()[-2:].tolist()
    ((128, 32), [0, 31])
    """
    n = dtype.block
    if n < 2:
        return np.zeros((0, n))
    others, places = np.linspace(-1.0, 0.97, n) / 64, np.arange(n)
    rows = np.tile(others, (4, n, 1))
    for at, (apart, sign) in enumerate(((1, 1.0), (1, -1.0), (n // 2, 1.0), (n // 2, -1.0))):
        rows[at, places, places] = 1.5
        rows[at, places, (places + apart) % n] = 1.5 * sign
    return rows.reshape(-1, n)


def lone_places(dtype: Block, lines: int, per_line: int) -> NDArray[np.int64]:
    """Which of the probes stand in lines of blocks, so that from line to line the maximum moves on in each.

    >>> from numerics.formats import mxfp4
    >>> row = probes(mxfp4)[lone_places(mxfp4, 2, 3)[1, 2]]
    >>> row[3], bool((abs(row) <= 1.5).all())
    (np.float32(1.5), True)
    """
    places = np.add.outer(np.arange(lines), np.arange(per_line))
    return np.asarray(len(_tops(dtype)) + 2 * (places % dtype.block) + places // dtype.block % 2)


def _pairs(dtype: Block) -> NDArray[np.float64]:
    """Every two of some elements side by side: two are converted at a time, and packed into a byte."""
    n, some = dtype.block, element_marks(dtype)
    if n < 4:
        return np.zeros((0, n))
    held = some[some <= _pilot(dtype)]
    held = held[np.linspace(0, len(held) - 1, PAIRED).astype(np.int64)]
    both = pairs(np.concatenate([held, -held]))
    width = n // 2 * 2 - 2
    rows = np.zeros((-(-len(both) // width), n))
    rows[:, 2 : 2 + width] = np.resize(both, (len(rows), width))
    rows[:, 0] = _pilot(dtype)
    return rows


def _grids(dtype: Block) -> NDArray[np.float64]:
    """The element's marks at some scales, each block led by a maximum that fixes the scale."""
    units = SCALED_UNITS if isinstance(dtype, ScaledBlock) else GRID_UNITS
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
    return _largest(dtype) if isinstance(dtype, ScaledBlock) else 2.0**dtype.emax


def _binades(dtype: Block) -> NDArray[np.float64]:
    """A maximum in every binade, and the last one before the next: as many scales as there are."""
    exponents = np.arange(-149, 128)
    pattern = np.linspace(-1.0, 0.97, dtype.block)
    tops = np.concatenate([np.ldexp(1.5, exponents), np.ldexp(2 - 2.0**-23, exponents)])
    return tops[:, None] * np.roll(pattern, 1 - dtype.block)[None] if dtype.block > 1 else tops[:, None]


def _special_blocks(dtype: Block) -> NDArray[np.float64]:
    n = dtype.block
    ordinary = np.linspace(-1.9, 1.7, n)
    alone, even = np.zeros(n), np.arange(n) % 2 == 0
    alone[-1] = 1.0
    tiny = np.full(n, 2.0**-149)
    rows = [
        np.zeros(n),
        np.full(n, -0.0),
        np.where(even, -0.0, 0.0),
        np.where(even, 0.0, -0.0),
        alone,
        -alone,
    ]
    rows += [np.ones(n), tiny, -tiny, np.full(n, 2.0**-127)]
    rows += [np.full(n, 2.0**-126), np.full(n, FLOAT32_MAX), ordinary * 2.0**-126]
    rows.append(np.where(even, -0.0, ordinary))
    rows.append(np.where(np.arange(n) == 0, 1.0, -(2.0**-60)))
    return np.array(rows)


_LARGE = np.float32(2.0**60)  # of numbers about NaN and Inf
_SHORT, _LONG = (
    256,
    1024,
)  # blocks: NaN and Inf are asked in each place twice, in each second one of longer ones


def _not_numbers(dtype: Block) -> Float32:
    """NaN of every kind and Inf, of both signs: alone in each place, among numbers or zeros; and together."""
    n = dtype.block
    slope = np.linspace(-1.9, 1.7, n).astype(np.float32)
    zeros = np.zeros(n, np.float32)
    around = [x.view(np.uint32) for x in (slope, zeros, -slope, slope * _LARGE, -slope * _LARGE)]
    turns = around * 2 if n <= _SHORT else [*around, zeros.view(np.uint32)]
    signed = np.array([bits | sign for bits in (*NANS, INF) for sign in (0, int(SIGN))], np.uint32)
    rows = [
        np.where(np.arange(n) == place, signed[(place + turn) % len(signed)], others)
        for turn, others in enumerate(turns)
        for place in (range(n) if n <= _LONG else range(turn % 2, n, 2))
    ]
    rows += [np.full(n, bits) for bits in signed]
    rows += [np.where(np.isin(np.arange(n), (0, n - 1)), bits, around[0]) for bits in signed]
    rows.append(
        np.where(np.arange(n) == 0, np.uint32(INF), np.where(np.arange(n) == n - 1, NANS[0], around[0]))
    )
    thrice = np.isin(np.arange(n), (0, n // 2, n - 1))
    rows.append(np.where(thrice, NANS[1], around[0]))
    rows.append(np.where(thrice, INF | (np.arange(n) < n // 2).astype(np.uint32) << 31, around[0]))
    return np.array(rows, np.uint32).view(np.float32)


def _random_blocks(dtype: Block) -> NDArray[np.float64]:
    rng = np.random.default_rng(2)
    exponents = np.concatenate([np.zeros(8), rng.integers(-120, 110, 12)])
    near = rng.standard_normal((len(exponents), dtype.block)) * np.exp2(exponents)[:, None]
    bits = rng.integers(0, INF, (6, dtype.block), dtype=np.uint32)
    signs = rng.integers(0, 2, bits.shape, dtype=np.uint32) << np.uint32(31)
    subnormal = rng.integers(0, 1 << 24, (4, dtype.block), dtype=np.uint32)
    patterns = np.concatenate([bits | signs, subnormal])
    return np.concatenate([near, patterns.view(np.float32).astype(np.float64)])


# ---- blocks that a decoder is given ----------------------------------------------------------------

DECODED_SCALES = (0, 1, 2, 3, 64, 120, 126, 127, 128, 129, 200, 252, 253, 254, 255)
MICROEXPONENTS = (0, 0xFF, *(1 << bit for bit in range(8)), 0xAA, 0x35)


@lru_cache(maxsize=64)
def codes(dtype: Block) -> Fields:
    """Blocks as rows: every code at some scales, and some codes at every scale.

    >>> from numerics.formats import mx6
    >>> codes(mx6).codes.shape[1]
    16
    """
    every = np.arange(1 << dtype.element_bits)[:: -(-(1 << dtype.element_bits) // MOST_MARKS)]
    rows = np.resize(every, (-(-len(every) // dtype.block), dtype.block))
    scales = np.arange(1 << dtype.scale_bits)
    some = [scale for scale in DECODED_SCALES if scale < len(scales)]
    shifts = _shifts(dtype)
    each = np.array([(r, s, m) for r in range(len(rows)) for s in some for m in shifts])
    each = np.concatenate([each, [(s % len(rows), s, m) for s in scales for m in shifts[:2]]])
    beside = _pairs_of_codes(every, dtype.block)
    each = np.concatenate([each, [(len(rows) + r, some[-1] // 2, 0) for r in range(len(beside))]])
    rows = np.concatenate([rows, beside])
    made, scale = rows[each[:, 0]].astype(dtype.code_dtype), each[:, 1].astype(np.uint8)
    found = Fields(made, scale, each[:, 2].astype(dtype.micro_dtype) if dtype.sub_blocks else None)
    for part in found:
        if part is not None:
            part.flags.writeable = False
    return found


def _shifts(dtype: Block) -> NDArray[np.int64]:
    """Microexponents of blocks: none, all, each alone, and some."""
    bits = dtype.micro_bits
    if bits <= 8:
        return np.array(MICROEXPONENTS) & ((1 << bits) - 1) if bits else np.arange(1)
    every = (1 << bits) - 1
    return np.array([0, every, *(1 << bit for bit in range(bits)), 0x5A3C96A5 & every, 0xA5C3695A & every])


def _pairs_of_codes(codes: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Every two of the codes, or of some of many, side by side in blocks."""
    both = pairs(codes[:: -(-len(codes) // (4 * PAIRED))])
    return np.resize(both, (-(-len(both) // block), block))
