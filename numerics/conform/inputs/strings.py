"""Codes as one string of bits, element 0 in the lowest (docs/formats.md §2), by NumPy's packing of bits.

Or in the highest, as others have it: the string then begins with the highest bit of its first byte.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def packed(codes: Array, width: int, highest_first: bool = False) -> Array:
    """Codes [..., n] of `width` bits as bytes [..., ceil(n * width / 8)]; spare bits are 0.

    >>> packed(np.uint8([1, 2, 15]), 4).tolist(), packed(np.uint8([1, 2, 15]), 4, highest_first=True).tolist()
    ([33, 15], [18, 240])
    """
    bits = (codes[..., None] >> _places(width, highest_first).astype(codes.dtype)).astype(np.uint8) & 1
    return np.packbits(bits.reshape(*codes.shape[:-1], -1), axis=-1, bitorder=_order(highest_first))


def unpacked(strings: Array, count: int, width: int, highest_first: bool = False) -> Array:
    """The first `count` codes of bytes [..., m], as [..., count] of uint32.

    >>> unpacked(np.uint8([33, 15]), 3, 4).tolist()
    [1, 2, 15]
    """
    bits = np.unpackbits(
        strings.astype(np.uint8), axis=-1, count=count * width, bitorder=_order(highest_first)
    )
    weights = np.uint32(1) << _places(width, highest_first)
    return np.asarray((bits.reshape(*strings.shape[:-1], count, width) * weights).sum(-1, dtype=np.uint32))


def _places(width: int, highest_first: bool) -> NDArray[np.uint32]:
    """The bits of a code in the order in which they stand in a string."""
    places = np.arange(width, dtype=np.uint32)
    return places[::-1] if highest_first else places


def _order(highest_first: bool) -> Literal["little", "big"]:
    return "big" if highest_first else "little"
