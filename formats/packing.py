"""Codes to bytes and back: the order of the bits, for lanes of any executor.

Codes of `bits` bits form one little-endian string of bits, element 0 in the lowest.  A group is
the shortest run of codes that ends on a byte.  Loops run over a group at binding time: the
executor supplies lanes, this says where each bit goes.
"""

from __future__ import annotations

from math import gcd
from typing import Any

Lane = Any


def group(bits: int) -> tuple[int, int]:
    """Codes and bytes of a group.

    >>> group(4), group(6), group(8), group(3)
    ((2, 1), (4, 3), (1, 1), (8, 3))
    """
    common = gcd(bits, 8)
    return 8 // common, bits // common


def pack_group(codes: Lane, bits: int) -> list[Lane]:
    """The bytes of one group of codes: anything that gives lanes by index.

    >>> pack_group([1, 2], 4), pack_group([1, 2, 3, 4], 6)
    ([33], [129, 48, 16])
    """
    return [_gather(codes, bits, 8, k) for k in range(group(bits)[1])]


def unpack_group(packed: Lane, bits: int) -> list[Lane]:
    """The codes of one group of bytes.

    >>> unpack_group([129, 48, 16], 6)
    [1, 2, 3, 4]
    """
    return [_gather(packed, 8, bits, k) for k in range(group(bits)[0])]


def _gather(fields: Lane, width: int, wanted: int, k: int) -> Lane:
    """Field k of `wanted` bits out of the string that fields of `width` bits make."""
    first, last = k * wanted, (k + 1) * wanted
    word: Lane = 0
    for i in range(first // width, -(-last // width)):
        shift = i * width - first
        word = word | (fields[i] << shift if shift >= 0 else fields[i] >> -shift)
    return word & ((1 << wanted) - 1)


def planes(bits: int) -> list[tuple[int, int]]:
    """How a microexponent block stores its codes: (first bit, width) of each plane.

    The widest power of two first, so that no field crosses a byte, and none a 32-bit word.

    >>> planes(3), planes(5), planes(8)
    ([(0, 2), (2, 1)], [(0, 4), (4, 1)], [(0, 8)])
    """
    found, first = [], 0
    while first < bits:
        width = 1 << ((bits - first).bit_length() - 1)
        found.append((first, width))
        first += width
    return found
