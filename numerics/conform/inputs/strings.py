"""Codes as one string of bits, element 0 in the lowest (docs/formats.md §2), by NumPy's packing of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def packed(codes: Array, width: int) -> Array:
    """Codes [..., n] of `width` bits as bytes [..., ceil(n * width / 8)]; spare bits are 0.

    >>> packed(np.uint8([1, 2, 15]), 4).tolist()
    [33, 15]
    """
    bits = (codes[..., None] >> np.arange(width, dtype=codes.dtype)).astype(np.uint8) & 1
    return np.packbits(bits.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def unpacked(strings: Array, count: int, width: int) -> Array:
    """The first `count` codes of bytes [..., m], as [..., count] of uint32.

    >>> unpacked(np.uint8([33, 15]), 3, 4).tolist()
    [1, 2, 15]
    """
    bits = np.unpackbits(strings.astype(np.uint8), axis=-1, count=count * width, bitorder="little")
    weights = np.uint32(1) << np.arange(width, dtype=np.uint32)
    return np.asarray((bits.reshape(*strings.shape[:-1], count, width) * weights).sum(-1, dtype=np.uint32))
