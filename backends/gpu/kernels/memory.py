"""Floats and random bits in memory: loads, stores and draws of a tile."""

from __future__ import annotations

import triton.language as tl

from numerics.backends.gpu.primitives import as_bits, as_float
from numerics.formats.codec import encode

RANDOM_MASK = 0x3FFFFFFF  # the 30 bits of formats/rounding.py


def load_bits(x, offsets, mask, KIND: tl.constexpr):
    """Any float type as the bits of a float32; what the mask leaves out is 0."""
    if KIND == "bfloat16":  # read as an integer: conversions of bfloat16 are not to be trusted
        b = tl.load(x + offsets, mask=mask, other=0).to(tl.int32) << 16
    elif KIND == "float16":
        b = as_bits(tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32))
    else:
        b = tl.load(x + offsets, mask=mask, other=0)
    return b


def store_bits(out, offsets, b, mask, KIND: tl.constexpr, BFLOAT16: tl.constexpr):
    """The bits of a float32 as any float type, half to even.  BFLOAT16: the grid of that format."""
    if KIND == "bfloat16":
        tl.store(out + offsets, encode(b, BFLOAT16, "half_even", None, None).to(tl.int16), mask=mask)
    elif KIND == "float16":
        tl.store(out + offsets, as_float(b).to(tl.float16), mask=mask)
    else:
        tl.store(out + offsets, b, mask=mask)


def draw_run(seed, first, COUNT: tl.constexpr):
    """Draws the random bits of elements first ... first + COUNT - 1; first is a multiple of 4."""
    counter = first // 4 + tl.arange(0, COUNT // 4)
    low, high = (counter & 0xFFFFFFFF).to(tl.uint32), (counter >> 32).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, low, high, low * 0, low * 0)
    words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), [COUNT])
    return words.to(tl.int32, bitcast=True) & RANDOM_MASK


def draw_each(seed, index):
    """Draws the random bits of elements anywhere: four times the work."""
    counter, lane = index // 4, index % 4
    low, high = (counter & 0xFFFFFFFF).to(tl.uint32), (counter >> 32).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, low, high, low * 0, low * 0)
    word = tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))
    return word.to(tl.int32, bitcast=True) & RANDOM_MASK


def run_of_elements(n, COUNT: tl.constexpr):
    """This program's elements: (the first, offsets from it, which of them exist)."""
    first = tl.program_id(0).to(tl.int64) * COUNT
    i = tl.arange(0, COUNT)
    return first, i, i < tl.minimum(n - first, COUNT).to(tl.int32)


def random_run(random, seed, first, offsets, mask, COUNT: tl.constexpr, DRAW: tl.constexpr):
    """What stochastic rounding takes: given bits, drawn ones, or nothing."""
    r = None
    if DRAW == "bits":
        r = tl.load(random + offsets, mask=mask, other=0)
    elif DRAW == "seed":
        r = draw_run(seed, first, COUNT)
    return r


def random_each(random, seed, start, offsets, mask, DRAW: tl.constexpr):
    """Returns random bits as random_run does, for elements that lie anywhere."""
    r = None
    if DRAW == "bits":
        r = tl.load(random + start + offsets, mask=mask, other=0)
    elif DRAW == "seed":
        r = draw_each(seed, start + offsets)
    return r
