"""Kernels of a scale and a zero point: a tensor as [rows, n], or as [outer, length, inner]."""

from __future__ import annotations

import triton.language as tl

from numerics.backends.gpu.kernels.memory import load_bits, random_each, store_bits
from numerics.backends.gpu.kernels.packing import load_packed
from numerics.backends.gpu.values import with_tables
from numerics.formats.scaling import (
    affine_code,
    affine_value,
    affine_value_within,
    offset_code,
    offset_value,
    scaled_code,
    scaled_rounded,
    scaled_value,
)


def place_of_scales(
    rows, n, scales, length, inner, group, ORDER: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr
):
    """Where this program's elements lie and which scale is theirs: (start, offsets, mask, owners).

    ORDER "rows": row r of [rows, n] has scale r % scales; "columns": column c of it has scale c;
    "groups": element (o, l, i) of [outer, length, inner] has scale (o, l // group, i).
    """
    if ORDER == "groups":
        offsets = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)[None, :]
        start, mask = 0, offsets < n
        line = offsets // inner
        per_line = (length + group - 1) // group
        owners = (line // length * per_line + line % length // group) * inner + offsets % inner
    else:  # one axis of programs, as the others of a GPU are short
        across = (n + WIDTH - 1) // WIDTH
        first_row = tl.program_id(0).to(tl.int64) // across * TILE
        first_column = tl.program_id(0).to(tl.int64) % across * WIDTH
        start = first_row * n + first_column
        j, k = tl.arange(0, TILE)[:, None], tl.arange(0, WIDTH)[None, :]
        offsets = j * n + k
        mask = (j < tl.minimum(rows - first_row, TILE).to(tl.int32)) & (
            k < tl.minimum(n - first_column, WIDTH).to(tl.int32)
        )
        if ORDER == "rows":
            owners = (first_row + j) % scales
        else:
            owners = tl.minimum(first_column + k, scales - 1)
    return start, offsets, mask, owners


def affine_kernel(
    tables, x, low, random, scale, zero, out, rows, n, scales, length, inner, group, seed,
    f: tl.constexpr, q: tl.constexpr, rounding: tl.constexpr, WHAT: tl.constexpr, ZERO: tl.constexpr,
    KIND: tl.constexpr, BFLOAT16: tl.constexpr, DRAW: tl.constexpr, LOW: tl.constexpr, ORDER: tl.constexpr,
    TILE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """x / scale + zero to codes (WHAT `encode`) or through them to values (`round`)."""
    start, offsets, mask, owners = place_of_scales(rows, n, scales, length, inner, group, ORDER, TILE, WIDTH)
    held = (owners >= 0) & (owners < scales)
    b = load_bits(x + start, offsets, mask, KIND)
    a = tl.load(scale + owners, mask=held, other=0x3F800000)
    r = random_each(random, seed, start, offsets, mask, DRAW)
    fraction = None
    if LOW:
        fraction = tl.load(low + start + offsets, mask=mask, other=0)
    if ZERO == "none":
        if WHAT == "round":
            y = scaled_rounded(b, a, with_tables(f, tables), rounding, r, fraction)
        else:
            y = scaled_code(b, a, with_tables(f, tables), rounding, r, fraction)
    else:
        z = tl.load(zero + owners, mask=held, other=0)
        if ZERO == "float":
            y = offset_code(b, a, z, with_tables(f, tables), rounding, r, fraction)
            if WHAT == "round":
                y = offset_value(y, a, z, q)
        else:
            y = affine_code(b, a, z, with_tables(f, tables), q, rounding, r, fraction)
            if WHAT == "round":
                y = affine_value_within(y, a, z, q)
    if WHAT == "round":
        store_bits(out + start, offsets, y, mask, KIND, BFLOAT16)
    else:
        tl.store(out + start + offsets, y.to(out.dtype.element_ty), mask=mask)


def unaffine_kernel(
    tables, codes, scale, zero, out, rows, n, scales, length, inner, group,
    f: tl.constexpr, q: tl.constexpr, ZERO: tl.constexpr, BITS: tl.constexpr, ORDER: tl.constexpr,
    TILE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Codes to float32: (q - zero) * scale; BITS: of a string of bits, or None for a code a byte or two."""
    start, offsets, mask, owners = place_of_scales(rows, n, scales, length, inner, group, ORDER, TILE, WIDTH)
    held = (owners >= 0) & (owners < scales)
    if BITS is None:
        code = tl.load(codes + start + offsets, mask=mask, other=0).to(tl.int32)
    else:
        code = load_packed(codes, start + offsets, mask, BITS)
    a = tl.load(scale + owners, mask=held, other=0x3F800000)
    if ZERO == "none":
        y = scaled_value(code, a, with_tables(f, tables))
    elif ZERO == "float":
        y = offset_value(code, a, tl.load(zero + owners, mask=held, other=0), q)
    else:
        y = affine_value(code, a, tl.load(zero + owners, mask=held, other=0), q)
    tl.store(out + start + offsets, y, mask=mask)
