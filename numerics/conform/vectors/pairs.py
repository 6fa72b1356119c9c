"""Specials of every operation, each of which is asked behind each: what a device keeps of a line shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.reference.executor import ReferenceExecutor
from numerics.conform.inputs.elements import SIGN, middles
from numerics.conform.inputs.shapes import NUMBERS, pairs
from numerics.conform.vectors.lines import Words
from numerics.formats.dtype import Element

MAGNITUDES = (0, 1, 0x7FFFFF, 0x7F7FFFFF, 0x7F800000, 0x7FC00000)
"""Of float32, of either sign: zero, the ends of subnormal numbers, the largest, Inf, NaN."""
_exact = ReferenceExecutor()


def in_pairs(rows: NDArray[Any]) -> NDArray[Any]:
    """Each of them once behind each, and behind itself.

    >>> in_pairs(np.array([3, 5])).tolist()
    [3, 3, 3, 5, 5, 3, 5, 5]
    """
    return np.asarray(rows[pairs(np.arange(len(rows)))])


def special_numbers(dtype: Element) -> Words:
    """Zeros, Inf, NaN, the ends of float32 and of a format, subnormal numbers and a tie, of either sign."""
    tie = middles(dtype)[-2:-1]
    ends = sorted({float(dtype.max), float(dtype.extent)}, reverse=True)
    own = np.abs([*ends, dtype.smallest_subnormal, *tie]).astype(np.float32).view(np.uint32)
    magnitudes = np.concatenate([np.array(MAGNITUDES, np.uint32), own])
    return np.concatenate([magnitudes, magnitudes | SIGN])


def special_codes(dtype: Element) -> Words:
    """The first and the last code of each zero, of NaN, of each Inf, and of the ends of either sign.

    >>> from numerics.formats import fp8_e4m3
    >>> [hex(code) for code in special_codes(fp8_e4m3)]
    ['0x0', '0x1', '0x7e', '0x7f', '0x80', '0x81', '0xfe', '0xff']
    """
    codes = np.arange(1 << dtype.bits, dtype=np.uint32)
    values = _exact.decode(codes.astype(dtype.code_dtype), dtype)
    found = [np.isnan(values)]
    for side in (values[~np.signbit(values) & ~found[0]], values[np.signbit(values) & ~found[0]]):
        magnitudes = np.abs(side)
        inside = magnitudes[np.isfinite(side) & (side != 0)]
        ends = (0.0, np.inf, *((inside.min(), inside.max()) if inside.size else ()))
        sign = bool(np.signbit(side[:1]).any())
        found += [(np.abs(values) == end) & (np.signbit(values) == sign) for end in ends]
    places = [np.flatnonzero(one)[[0, -1]] for one in found if one.any()]
    return np.unique(np.concatenate(places)).astype(np.uint32)


def special_rows(size: int) -> Words:
    """Blocks, or groups, of zeros of either sign, of ends, of plain numbers, and with NaN or Inf in one."""
    plain = np.resize(NUMBERS, size).astype(np.float32)
    same = np.array([0, SIGN, 1, 0x7F7FFFFF, 0x7F7FFFFF | SIGN], np.uint32)
    spoiled = np.tile(plain.view(np.uint32), (3, 1))
    spoiled[:, size // 2] = 0x7FC00000, 0x7F800000, 0x7F800000 | SIGN
    return np.concatenate([np.repeat(same[:, None], size, axis=1), plain.view(np.uint32)[None], spoiled])
