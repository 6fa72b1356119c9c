"""Kernels of blocks: a tensor as [outer, length, inner], blocked along `length`."""

from __future__ import annotations

import triton.language as tl

from numerics.backends.gpu.kernels.elements import native_code
from numerics.backends.gpu.kernels.memory import load_bits, random_each, store_bits
from numerics.backends.gpu.kernels.packing import load_packed, store_packed
from numerics.backends.gpu.primitives import as_bits, as_float, max_of_block
from numerics.backends.gpu.values import with_tables
from numerics.formats.codec import MAGNITUDE
from numerics.formats.scaling import (
    micro_decode,
    micro_encode,
    micro_round,
    mx_decode,
    mx_encode,
    mx_round,
    mx_scale,
    power_of_two,
    scaled_decode,
    scaled_encode,
    scaled_round,
    tiered_decode,
    tiered_encode,
    tiered_round,
)


def mx_codes(b, f, s, rounding, random, NATIVE: tl.constexpr):
    """mx_encode, by an instruction where one was proven equal."""
    if NATIVE is None:
        scale, code = mx_encode(b, f, s, rounding, random)
    else:
        scale = mx_scale(max_of_block(b & MAGNITUDE), s)
        y = as_bits(as_float(b) * power_of_two(254 - scale))
        code = tl.where(scale == 255, f.nan_block, native_code(y, f, NATIVE))
    return scale, code


def place_of_blocks(
    count, length, per_line, inner, ORDER: tl.constexpr, SIZE: tl.constexpr, SUB: tl.constexpr,
    WIDTH: tl.constexpr, SUB_WIDE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Where the elements of this program's blocks lie, [TILE, WIDTH]: (start, offsets, mask).

    Block number (o * per_line + p) * inner + i begins at element (o * length + p * SIZE) * inner + i.
    ORDER "rows": blocks are the memory, cut evenly; "columns": the TILE blocks of a program lie side by
    side; "any": neither.  Lanes are powers of two: sub-blocks of SUB elements take SUB_WIDE of them.
    """
    lane = tl.arange(0, WIDTH)[None, :]
    k = lane
    if SUB != SUB_WIDE:
        k = lane // SUB_WIDE * SUB + lane % SUB_WIDE
    first = tl.program_id(0).to(tl.int64) * TILE
    j = tl.arange(0, TILE)[:, None]
    mask = j < tl.minimum(count - first, TILE).to(tl.int32)
    if SIZE != WIDTH:
        mask = mask & (k < SIZE) & (lane % SUB_WIDE < SUB)
    if ORDER == "rows":
        start, offsets = first * SIZE, j * SIZE + k
    elif ORDER == "columns":
        line = first // inner
        p = line % per_line
        start = (line // per_line * length + p * SIZE) * inner + tl.multiple_of(first % inner, TILE)
        offsets = k * inner + j
        mask = mask & (k < tl.minimum(length - p * SIZE, SIZE).to(tl.int32))
    else:
        n = first + j
        line = n // inner
        p = line % per_line
        start = first * 0
        offsets = (line // per_line * length + p * SIZE + k) * inner + n % inner
        mask = mask & (p * SIZE + k < length)
    return start, offsets, mask


def tensor_scale_bits(tensor_scale, USED: tl.constexpr):
    """The tensor's scale; nothing where the family has none."""
    t = None
    if USED:
        t = tl.load(tensor_scale)
    return t


def scaled_kernel(
    tables, x, random, out, scale, tensor_scale, count, length, per_line, inner, seed, words, f: tl.constexpr,
    s: tl.constexpr, rule: tl.constexpr, rounding: tl.constexpr, FAMILY: tl.constexpr, WHAT: tl.constexpr,
    KIND: tl.constexpr, DRAW: tl.constexpr, NATIVE: tl.constexpr, BFLOAT16: tl.constexpr, ORDER: tl.constexpr,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, BITS: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """Blocks under one scale (mx, scaled): WHAT is `encode`, `pack` or `round`.

    s: how the scale is found (mx), or its grid (scaled), and the rule.  WIDTH: a power of two, SIZE or more.
    """
    start, offsets, mask = place_of_blocks(
        count, length, per_line, inner, ORDER, SIZE, WIDTH, WIDTH, WIDTH, TILE
    )
    b = load_bits(x + start, offsets, mask, KIND)
    r = random_each(random, seed, start, offsets, mask, DRAW)
    t = tensor_scale_bits(tensor_scale, FAMILY == "scaled")
    if WHAT == "round":
        if FAMILY == "mx":
            y = mx_round(b, with_tables(f, tables), s, rounding, r)
        else:
            y = scaled_round(b, t, with_tables(f, tables), s, rule, rounding, r)
        store_bits(out + start, offsets, y, mask, KIND, BFLOAT16)
    else:
        if FAMILY == "mx":
            shared, code = mx_codes(b, with_tables(f, tables), s, rounding, r, NATIVE)
        else:
            shared, code = scaled_encode(b, t, with_tables(f, tables), s, rule, rounding, r)
        n = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)[:, None]
        tl.store(scale + n, shared.to(scale.dtype.element_ty), mask=n < count)
        if WHAT == "pack":
            first = tl.program_id(0).to(tl.int64) * (TILE * SIZE * BITS // 32)
            rows = tl.reshape(code, [TILE * SIZE // CODES, CODES])
            store_packed(out, first, rows, words, TILE * SIZE // CODES, CODES, BITS)
        else:
            tl.store(out + start + offsets, code.to(out.dtype.element_ty), mask=mask)


def unscaled_kernel(
    tables, codes, scale, tensor_scale, out, count, length, per_line, inner, f: tl.constexpr, g: tl.constexpr,
    FAMILY: tl.constexpr, ORDER: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
    BITS: tl.constexpr,
):  # fmt: skip
    """Their values; BITS: of packed codes in rows, or None."""
    start, offsets, mask = place_of_blocks(
        count, length, per_line, inner, ORDER, SIZE, WIDTH, WIDTH, WIDTH, TILE
    )
    if BITS is None:
        code = tl.load(codes + start + offsets, mask=mask, other=0).to(tl.int32)
    else:
        code = load_packed(codes, start + offsets, mask, BITS)
    n = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)[:, None]
    shared = tl.load(scale + n, mask=n < count, other=0).to(tl.int32)
    if FAMILY == "mx":
        y = mx_decode(shared, code, with_tables(f, tables))
    else:
        y = scaled_decode(shared, code, tl.load(tensor_scale), with_tables(f, tables), g)
    tl.store(out + start + offsets, y, mask=mask)


def micro_kernel(
    x, random, out, scale, micro, count, length, per_line, inner, seed, m: tl.constexpr,
    rounding: tl.constexpr, WHAT: tl.constexpr, KIND: tl.constexpr, DRAW: tl.constexpr,
    BFLOAT16: tl.constexpr, ORDER: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr,
    WIDE: tl.constexpr, SUB: tl.constexpr, SUB_WIDE: tl.constexpr, TILE: tl.constexpr, PLANE: tl.constexpr,
):  # fmt: skip
    """Microexponent blocks: WHAT is `encode`, `pack` (PLANE: bits of the first plane) or `round`."""
    start, offsets, mask = place_of_blocks(
        count, length, per_line, inner, ORDER, SIZE, SUB, WIDE * SUB_WIDE, SUB_WIDE, TILE
    )
    b = tl.reshape(load_bits(x + start, offsets, mask, KIND), [TILE, WIDE, SUB_WIDE])
    r = random_each(random, seed, start, offsets, mask, DRAW)
    if r is not None:
        r = tl.reshape(r, [TILE, WIDE, SUB_WIDE])
    if WHAT == "round":
        y = tl.reshape(micro_round(b, m, rounding, r), [TILE, WIDE * SUB_WIDE])
        store_bits(out + start, offsets, y, mask, KIND, BFLOAT16)
    else:
        exponent, shift, code = micro_encode(b, m, rounding, r)
        code = tl.reshape(code, [TILE, WIDE * SUB_WIDE])
        exponent = tl.reshape(exponent, [TILE])
        group = tl.arange(0, WIDE)[None, :]
        shifts = tl.sum(tl.where(group < GROUPS, tl.reshape(shift, [TILE, WIDE]) << group, 0), 1)
        n = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
        if WHAT == "pack":
            store_micro(out, code, shifts | (exponent << 8), n, count, m, SIZE, TILE, PLANE)
        else:
            tl.store(scale + n, exponent.to(tl.uint8), mask=n < count)
            tl.store(micro + n, shifts.to(tl.uint8), mask=n < count)
            tl.store(out + start + offsets, code.to(out.dtype.element_ty), mask=mask)


def store_micro(
    out, code, fields, n, count, m: tl.constexpr, SIZE: tl.constexpr, TILE: tl.constexpr, PLANE: tl.constexpr
):
    """Whole blocks as in docs/layout.md: a plane of PLANE bits, one of a bit where m says so, two bytes.

    In words where the second plane fills one together with the fields, else in half words.
    """
    UNIT: tl.constexpr = 32 if m >= PLANE else 16
    EACH: tl.constexpr = UNIT // PLANE
    UNITS: tl.constexpr = SIZE // EACH
    near = (tl.arange(0, EACH)[None, :] * PLANE).to(tl.uint32)
    low = (code & ((1 << PLANE) - 1)).to(tl.uint32)
    plane = tl.reshape(tl.sum(tl.reshape(low, [TILE * UNITS, EACH]) << near, 1), [TILE, UNITS])
    row = n * (UNITS + 1)
    unit = tl.arange(0, UNITS)[None, :]
    tl.store(out + row[:, None] + unit, plane.to(out.dtype.element_ty), mask=n[:, None] < count)
    tail = fields.to(tl.uint32)
    if UNIT == 32:
        high = (code >> PLANE).to(tl.uint32) << tl.arange(0, SIZE)[None, :].to(tl.uint32)
        tail = tl.sum(high, 1) | (tail << 16)
    tl.store(out + row + UNITS, tail.to(out.dtype.element_ty), mask=n < count)


def unmicro_kernel(
    codes, scale, micro, out, count, length, per_line, inner, m: tl.constexpr, ORDER: tl.constexpr,
    SIZE: tl.constexpr, GROUPS: tl.constexpr, WIDE: tl.constexpr, SUB: tl.constexpr, SUB_WIDE: tl.constexpr,
    TILE: tl.constexpr, PLANE: tl.constexpr,
):  # fmt: skip
    """Their values; PLANE: of packed whole blocks in rows, or None."""
    start, offsets, mask = place_of_blocks(
        count, length, per_line, inner, ORDER, SIZE, SUB, WIDE * SUB_WIDE, SUB_WIDE, TILE
    )
    n = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    if PLANE is None:
        code = tl.load(codes + start + offsets, mask=mask, other=0).to(tl.int32)
        exponent = tl.load(scale + n, mask=n < count, other=0).to(tl.int32)
        shifts = tl.load(micro + n, mask=n < count, other=0).to(tl.int32)
    else:
        FIRST: tl.constexpr = SIZE * PLANE // 8
        SECOND: tl.constexpr = SIZE // 8 if m >= PLANE else 0
        row = codes + n * (FIRST + SECOND + 2)
        k = tl.arange(0, SIZE)[None, :]
        code = load_packed(row[:, None], k, mask, PLANE)
        if SECOND:
            code = code | (load_packed((row + FIRST)[:, None], k, mask, 1) << PLANE)
        shifts = tl.load(row + FIRST + SECOND, mask=n < count, other=0).to(tl.int32)
        exponent = tl.load(row + FIRST + SECOND + 1, mask=n < count, other=0).to(tl.int32)
    shift = (shifts[:, None] >> tl.arange(0, WIDE)[None, :]) & 1
    y = micro_decode(exponent[:, None, None], shift[:, :, None], tl.reshape(code, [TILE, WIDE, SUB_WIDE]), m)
    tl.store(out + start + offsets, tl.reshape(y, [TILE, WIDE * SUB_WIDE]), mask=mask)


def tiered_kernel(
    tables, x, random, out, scale, micro, count, length, per_line, inner, seed, m: tl.constexpr,
    f: tl.constexpr, rounding: tl.constexpr, WHAT: tl.constexpr, KIND: tl.constexpr, DRAW: tl.constexpr,
    BFLOAT16: tl.constexpr, ORDER: tl.constexpr, SIZE: tl.constexpr, PAIRS: tl.constexpr, SUB: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Microexponents in two tiers: WHAT is `encode` or `round`; all sizes are powers of two."""
    start, offsets, mask = place_of_blocks(
        count, length, per_line, inner, ORDER, SIZE, SIZE, SIZE, SIZE, TILE
    )
    b = tl.reshape(load_bits(x + start, offsets, mask, KIND), [TILE, PAIRS, 2, SUB])
    r = random_each(random, seed, start, offsets, mask, DRAW)
    if r is not None:
        r = tl.reshape(r, [TILE, PAIRS, 2, SUB])
    if WHAT == "round":
        y = tl.reshape(tiered_round(b, m, with_tables(f, tables), rounding, r), [TILE, SIZE])
        store_bits(out + start, offsets, y, mask, KIND, BFLOAT16)
    else:
        shared, upper, lower, code = tiered_encode(b, m, with_tables(f, tables), rounding, r)
        pair = tl.arange(0, PAIRS)[None, :]
        part = tl.arange(0, 2 * PAIRS)[None, :] + PAIRS
        flags = tl.sum(tl.reshape(upper, [TILE, PAIRS]) << pair, 1)
        flags = flags | tl.sum(tl.reshape(lower, [TILE, 2 * PAIRS]) << part, 1)
        n = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
        tl.store(scale + n, tl.reshape(shared, [TILE]).to(tl.uint8), mask=n < count)
        tl.store(micro + n, flags.to(micro.dtype.element_ty), mask=n < count)
        tl.store(out + start + offsets, tl.reshape(code, [TILE, SIZE]).to(out.dtype.element_ty), mask=mask)


def untiered_kernel(
    codes, scale, micro, out, count, length, per_line, inner, m: tl.constexpr, ORDER: tl.constexpr,
    SIZE: tl.constexpr, PAIRS: tl.constexpr, SUB: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Their values."""
    start, offsets, mask = place_of_blocks(
        count, length, per_line, inner, ORDER, SIZE, SIZE, SIZE, SIZE, TILE
    )
    n = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    code = tl.load(codes + start + offsets, mask=mask, other=0).to(tl.int32)
    shared = tl.load(scale + n, mask=n < count, other=0).to(tl.int32)
    flags = tl.load(micro + n, mask=n < count, other=0).to(tl.int32)
    part = tl.arange(0, 2 * PAIRS)[None, :]
    up = ((flags[:, None] >> (part // 2)) & 1) + ((flags[:, None] >> (part + PAIRS)) & 1)
    rows = tl.reshape(code, [TILE, 2 * PAIRS, SUB])
    y = tiered_decode(shared[:, None, None], up[:, :, None], rows, m)
    tl.store(out + start + offsets, tl.reshape(y, [TILE, SIZE]), mask=mask)
