"""Strings of bits (formats/packing.py): codes to bytes and back, alone and within other kernels."""

from __future__ import annotations

import triton.language as tl

from numerics.backends.gpu.kernels.memory import run_of_elements


def store_packed(out, first, code, words, TILE: tl.constexpr, CODES: tl.constexpr, BITS: tl.constexpr):
    """code [TILE, CODES], a whole number of 32-bit words a row, as words from `first` on.

    Bits do not overlap, so sums put them together: a few neighbours first, then these into words.
    """
    NEAR: tl.constexpr = 4 if BITS <= 8 else 2
    FAR: tl.constexpr = CODES // NEAR
    WORDS: tl.constexpr = CODES * BITS // 32
    near = tl.arange(0, NEAR)[None, :] * BITS
    run = tl.sum(tl.reshape(code.to(tl.uint32), [TILE * FAR, NEAR]) << near.to(tl.uint32), 1)
    run = tl.reshape(run, [TILE, FAR])
    row = tl.arange(0, TILE)
    exist = tl.minimum(words - first, TILE * WORDS).to(tl.int32)
    for w in tl.static_range(WORDS):
        if FAR == 1:
            word = tl.sum(run, 1)
        else:
            up = tl.arange(0, FAR)[None, :] * (NEAR * BITS) - 32 * w
            left = run << tl.minimum(tl.maximum(up, 0), 31).to(tl.uint32)
            right = run >> tl.minimum(tl.maximum(0 - up, 0), 31).to(tl.uint32)
            inside = (up > -32) & (up < 32)
            word = tl.sum(tl.where(inside, tl.where(up < 0, right, left), 0).to(tl.uint32), 1)
        place = row * WORDS + w
        tl.store(out + first + place, word.to(tl.int32, bitcast=True), mask=place < exist)


def load_packed(packed, index, mask, BITS: tl.constexpr):
    """Codes number `index` of a string of bits that begins at `packed`, byte by byte."""
    bit = index * BITS
    byte, shift = bit >> 3, (bit & 7).to(tl.int32)
    field = tl.load(packed + byte, mask=mask, other=0).to(tl.int32)
    if 8 % BITS != 0:
        more = mask & (shift + BITS > 8)
        field = field | (tl.load(packed + byte + 1, mask=more, other=0).to(tl.int32) << 8)
    if BITS > 9:
        more = mask & (shift + BITS > 16)
        field = field | (tl.load(packed + byte + 2, mask=more, other=0).to(tl.int32) << 16)
    return (field >> shift) & ((1 << BITS) - 1)


def pack_kernel(codes, out, n, words, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Codes to words: each word gathers the codes that reach into it."""
    word = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    first = word * 32 // BITS
    packed = tl.zeros([BLOCK], tl.uint32)
    for k in tl.static_range((30 + BITS) // BITS + 1):
        index = first + k
        up = (index * BITS - word * 32).to(tl.int32)
        code = tl.load(codes + index, mask=(index < n) & (up < 32), other=0).to(tl.uint32)
        left = code << tl.minimum(tl.maximum(up, 0), 31).to(tl.uint32)
        right = code >> tl.minimum(tl.maximum(0 - up, 0), 31).to(tl.uint32)
        packed = packed | tl.where(up < 0, right, left)
    tl.store(out + word, packed.to(tl.int32, bitcast=True), mask=word < words)


def unpack_kernel(packed, out, n, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """A string of bits to codes."""
    first, i, mask = run_of_elements(n, BLOCK)
    code = load_packed(packed + first * BITS // 8, i, mask, BITS)
    tl.store(out + first + i, code.to(out.dtype.element_ty), mask=mask)
