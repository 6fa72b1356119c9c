"""Which random bits each element gets: Philox-4x32-10 (Salmon et al., SC'11; Random123).

The assignment, for every backend: the element of flat index i (C order of the tensor as the caller
gave it) under a 64-bit seed takes word i % 4 of philox(counter = (i // 4, 0), key = seed), counter
and key as 64-bit little-endian pairs of words, and uses the 30 low bits.

Written for 64-bit unsigned integers: Python's, NumPy arrays', Numba's.  Triton has its own, and so has the
judge; the laws compare them.
"""

from __future__ import annotations

from typing import Any

WORD = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Four random words from a counter of four words and a key of two.

    >>> [hex(word) for word in philox(0, 0, 0, 0, 0, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & WORD, (p0 >> 32) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3
