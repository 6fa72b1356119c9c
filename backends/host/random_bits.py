"""Random bits for stochastic rounding, on the host: drawn by seed (formats/philox.py) or given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.arrays import listed
from numerics.backends.host.tensors import as_array, is_tensor
from numerics.backends.partition import as_shape
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, integer, said, warn
from numerics.formats.philox import WORD, philox
from numerics.formats.rounding import RANDOM_BITS, Draw, Rounding, check_seed

CHUNK = 1 << 14  # counters at a time
MASK = (1 << RANDOM_BITS) - 1
MANY, FEW = 64, 16  # so many random bits are not all of so few digits by chance


def drawn(rounding: Rounding, shape: tuple[int, ...]) -> Rounding:
    """The same with the bits of its draw, flat, as an executor takes them."""
    draw = rounding.draw
    if draw.seed is None and draw.bits is None:
        return rounding
    return rounding.drawing(bits(draw, shape))


def bits(draw: Draw, shape: tuple[int, ...]) -> NDArray[np.int32] | None:
    """One 30-bit integer an element, flat in C order; None when nothing is drawn."""
    if draw.seed is not None:
        return from_seed(draw.seed, math.prod(shape))
    return None if draw.bits is None else _given(draw.bits, shape)


def _given(came: Any, shape: tuple[int, ...]) -> NDArray[np.int32]:
    array = as_array(came) if is_tensor(came) else listed("random_bits", came)
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 4 or array.shape != shape:
        raise wrong_bits(shape, f"{array.dtype.name} {array.shape}")
    if array.dtype.itemsize > 4 and array.size:
        check_words(int(array.min()), int(array.max()), array.size)
    return (array & MASK).astype(np.int32).reshape(-1)


def wrong_bits(shape: Sequence[int], came: str) -> NumericsError:
    """The error of random bits of another type or shape."""
    return NumericsError(
        f"random_bits must be uint32 of shape {tuple(shape)}, not {came}; N bits a number are the highest of "
        f"{RANDOM_BITS}: integers << ({RANDOM_BITS} - N), as nx.random_bits(shape, seed, bits=N) gives them"
    )


def check_words(low: int, high: int, count: int) -> None:
    """Raises NumericsError where random bits between these, in a type of 64 bits, are no uint32.

    Warns of so many of 16 bits or fewer, as `randint(0, 256)` gives them: none are drawn so from 30.
    """
    if low < 0 or high > WORD:
        raise NumericsError(f"random_bits must be uint32: {low if low < 0 else high} is outside 0 .. {WORD}")
    if count >= MANY and 0 < high < 1 << FEW:
        n = max(high.bit_length(), 1)
        warn(
            f"random_bits are at most {high}, of {RANDOM_BITS} bits: next to nothing goes away from zero; "
            f"{n} bits a number are the highest, random_bits << {RANDOM_BITS - n}"
        )


@keywords
def random_bits(shape: int | tuple[int, ...], seed: int, *, bits: int = RANDOM_BITS) -> NDArray[np.uint32]:
    """Returns random bits for `random_bits=` of stochastic rounding, as `seed=` draws them, or fewer.

    shape: of the tensor, an integer or a tuple.  seed: 0 .. 2**64 - 1.
    bits: how many bits decide, 1 to 30: hardware adds N random bits to the first N of the discarded fraction
        (`cvt.rs` of PTX: 8 or so), which is what 30 bits do of which only the highest N are drawn.  So bits
        of one's own, integers of 0 .. 2**N - 1, go to `random_bits=` as `own << (30 - N)`: unshifted they
        are the lowest of 30, too small to move what they are added to.
    Returns uint32 in that shape; those of 30 bits round as `seed=seed` does.  Raises NumericsError for other
    bits, seeds and shapes.  docs/formats.md §3.

    >>> [hex(b) for b in random_bits(2, 0)], [hex(b) for b in random_bits(2, 0, bits=8)]
    (['0x2627e8d5', '0x2169c58d'], ['0x26000000', '0x21400000'])
    """
    sizes, seed, bits = as_shape(shape), check_seed(seed), integer("bits", bits)
    if not 1 <= bits <= RANDOM_BITS:
        raise NumericsError(f"bits={said(bits)} is outside 1 .. {RANDOM_BITS}")
    kept = MASK ^ ((1 << (RANDOM_BITS - bits)) - 1)
    return (from_seed(seed, math.prod(sizes)) & kept).astype(np.uint32).reshape(sizes)


def from_seed(seed: int, count: int, first: int = 0) -> NDArray[np.int32]:
    """The bits of elements first, first + 1, ...; `first` is a multiple of 4.

    >>> [hex(b) for b in from_seed(0, 2)]
    ['0x2627e8d5', '0x2169c58d']
    """
    drawn = np.empty((-(-count // 4), 4), np.int32)
    key = (np.uint64(seed & WORD), np.uint64(seed >> 32))
    zero = np.zeros((), np.uint64)
    for start in range(0, len(drawn), CHUNK):
        part = drawn[start : start + CHUNK]
        counter = np.arange(first // 4 + start, first // 4 + start + len(part), dtype=np.uint64)
        words = philox(counter & np.uint64(WORD), counter >> np.uint64(32), zero, zero, *key)
        for lane, word in enumerate(words):
            part[:, lane] = word & np.uint64(MASK)
    return drawn.reshape(-1)[:count]
