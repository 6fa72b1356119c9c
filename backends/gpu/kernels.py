"""Triton kernels: loads, stores and tiles around the shared arithmetic.

Plain functions here; build.py binds them, with what they import from formats/, into one space of
names.  UPPERCASE parameters are compiled in, and so are f, g, s, q and m, which are of formats/grid.py.
KIND names a float type; its memory comes as int32 (float32), int16 (bfloat16) or float16.  Whole
tensors are indexed in 64 bits, tiles in 32.
"""

from __future__ import annotations

import triton.language as tl

from numerics.backends.gpu.primitives import as_bits, as_float, max_of_block, minimum
from numerics.formats.codec import INF, MAGNITUDE, SIGN, decode, encode, round_bits, with_sign
from numerics.formats.scaling import (
    affine_code,
    affine_value,
    micro_decode,
    micro_encode,
    micro_round,
    mx_decode,
    mx_encode,
    mx_round,
    mx_scale,
    offset_code,
    offset_value,
    power_of_two,
    scaled_code,
    scaled_decode,
    scaled_encode,
    scaled_round,
    scaled_rounded,
    scaled_value,
)

RANDOM_MASK = 0x3FFFFFFF  # the 30 bits of formats/rounding.py

# ---- floats in memory ---------------------------------------------------------------------------


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


# ---- random bits (formats/philox.py): element i has lane i % 4 of counter i / 4 ------------------


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


# ---- hardware conversions (native.py says where they may be used) --------------------------------


def native_code(b, f, NATIVE: tl.constexpr):
    """Float32 bits to code by a conversion instruction: half to even, saturating; not for NaN."""
    if NATIVE == "fp8_e4m3":
        code = as_float(b).to(tl.float8e4nv).to(tl.uint8, bitcast=True).to(tl.int32)
    elif NATIVE == "fp8_e5m2":
        code = as_float(b).to(tl.float8e5).to(tl.uint8, bitcast=True).to(tl.int32)
    elif NATIVE == "fp4":  # converts two; the second fills the low half
        code = tl.inline_asm_elementwise(
            """{
            .reg .b8 both, none;
            mov.b16 {both, none}, 0;
            cvt.rn.satfinite.e2m1x2.f32 both, 0f00000000, $1;
            mov.b32 $0, {both, none, none, none};
            }""",
            "=r,f", [as_float(b)], dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip
    else:  # fp6 has the digits of an fp8 format: scaled onto its low end, its codes are the low ones
        clamped = minimum(b & 0x7FFFFFFF, f.limit) | (b & SIGN)
        if NATIVE == "fp6_e2m3":
            wide = (as_float(clamped) * 0.015625).to(tl.float8e4nv)  # 2**-6
        else:
            wide = (as_float(clamped) * 0.000244140625).to(tl.float8e5)  # 2**-12
        bits = wide.to(tl.uint8, bitcast=True).to(tl.int32)
        code = (bits & 31) | ((bits >> 2) & 32)
    return code


def element_code(b, f, rounding, random, low, NATIVE: tl.constexpr):
    """encode, by an instruction where one was proven equal."""
    if NATIVE is None:
        code = encode(b, f, rounding, random, low)
    else:
        code = native_code(b, f, NATIVE)
        if NATIVE == "fp8_e4m3":  # its one NaN comes out right, but for the sign
            code = with_sign(code, b, f)
        elif f.inherit is not None:
            code = tl.where((b & MAGNITUDE) > INF, with_sign(f.nan, b, f), code)
        else:
            code = tl.where((b & MAGNITUDE) > INF, f.nan, code)
    return code


def mx_codes(b, f, s, rounding, random, NATIVE: tl.constexpr):
    """mx_encode, by an instruction where one was proven equal."""
    if NATIVE is None:
        scale, code = mx_encode(b, f, s, rounding, random)
    else:
        scale = mx_scale(max_of_block(b & MAGNITUDE), s)
        y = as_bits(as_float(b) * power_of_two(254 - scale))
        code = tl.where(scale == 255, f.nan_block, native_code(y, f, NATIVE))
    return scale, code


# ---- strings of bits (formats/packing.py) --------------------------------------------------------


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


# ---- elements ------------------------------------------------------------------------------------


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


def encode_kernel(
    x, low, random, out, n, seed, f: tl.constexpr, rounding: tl.constexpr, KIND: tl.constexpr,
    DRAW: tl.constexpr, LOW: tl.constexpr, NATIVE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Floats to codes."""
    first, i, mask = run_of_elements(n, BLOCK)
    b = load_bits(x + first, i, mask, KIND)
    r = random_run(random + first, seed, first, i, mask, BLOCK, DRAW)
    fraction = None
    if LOW:
        fraction = tl.load(low + first + i, mask=mask, other=0)
    code = element_code(b, f, rounding, r, fraction, NATIVE)
    tl.store(out + first + i, code.to(out.dtype.element_ty), mask=mask)


def encode_packed_kernel(
    x, random, out, n, words, seed, f: tl.constexpr, rounding: tl.constexpr, KIND: tl.constexpr,
    DRAW: tl.constexpr, NATIVE: tl.constexpr, BITS: tl.constexpr, CODES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Floats to a string of bits; CODES codes are whole words."""
    first, i, mask = run_of_elements(n, TILE * CODES)
    b = load_bits(x + first, i, mask, KIND)
    r = random_run(random + first, seed, first, i, mask, TILE * CODES, DRAW)
    code = tl.where(mask, element_code(b, f, rounding, r, None, NATIVE), 0)
    start = tl.program_id(0).to(tl.int64) * (TILE * CODES * BITS // 32)
    store_packed(out, start, tl.reshape(code, [TILE, CODES]), words, TILE, CODES, BITS)


def decode_kernel(codes, out, n, f: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Codes to float32; BITS: of a string of bits, or None for a code a byte or two."""
    first, i, mask = run_of_elements(n, BLOCK)
    if BITS is None:
        code = tl.load(codes + first + i, mask=mask, other=0).to(tl.int32)
    else:
        code = load_packed(codes + first * BITS // 8, i, mask, BITS)
    tl.store(out + first + i, decode(code, f), mask=mask)


def round_kernel(
    x, low, random, out, n, seed, f: tl.constexpr, rounding: tl.constexpr, KIND: tl.constexpr,
    TARGET: tl.constexpr, DRAW: tl.constexpr, LOW: tl.constexpr, BFLOAT16: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Floats to the nearest values of the format, as TARGET."""
    first, i, mask = run_of_elements(n, BLOCK)
    b = load_bits(x + first, i, mask, KIND)
    r = random_run(random + first, seed, first, i, mask, BLOCK, DRAW)
    fraction = None
    if LOW:
        fraction = tl.load(low + first + i, mask=mask, other=0)
    store_bits(out + first, i, round_bits(b, f, rounding, r, fraction), mask, TARGET, BFLOAT16)


# ---- blocks: a tensor as [outer, length, inner], blocked along `length` --------------------------


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


def random_each(random, seed, start, offsets, mask, DRAW: tl.constexpr):
    """Returns random bits as random_run does, for elements that lie anywhere."""
    r = None
    if DRAW == "bits":
        r = tl.load(random + start + offsets, mask=mask, other=0)
    elif DRAW == "seed":
        r = draw_each(seed, start + offsets)
    return r


def tensor_scale_bits(tensor_scale, USED: tl.constexpr):
    """The tensor's scale; nothing where the family has none."""
    t = None
    if USED:
        t = tl.load(tensor_scale)
    return t


def scaled_kernel(
    x, random, out, scale, tensor_scale, count, length, per_line, inner, seed, words, f: tl.constexpr,
    s: tl.constexpr, rounding: tl.constexpr, FAMILY: tl.constexpr, WHAT: tl.constexpr, KIND: tl.constexpr,
    DRAW: tl.constexpr, NATIVE: tl.constexpr, BFLOAT16: tl.constexpr, ORDER: tl.constexpr, SIZE: tl.constexpr,
    WIDTH: tl.constexpr, TILE: tl.constexpr, BITS: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """Blocks under one scale (mx, scaled): WHAT is `encode`, `pack` or `round`.

    s: how the scale is found (mx) or its grid (scaled).  WIDTH: SIZE, or the power of two above it.
    """
    start, offsets, mask = place_of_blocks(
        count, length, per_line, inner, ORDER, SIZE, WIDTH, WIDTH, WIDTH, TILE
    )
    b = load_bits(x + start, offsets, mask, KIND)
    r = random_each(random, seed, start, offsets, mask, DRAW)
    t = tensor_scale_bits(tensor_scale, FAMILY == "scaled")
    if WHAT == "round":
        if FAMILY == "mx":
            y = mx_round(b, f, s, rounding, r)
        else:
            y = scaled_round(b, t, f, s, rounding, r)
        store_bits(out + start, offsets, y, mask, KIND, BFLOAT16)
    else:
        if FAMILY == "mx":
            shared, code = mx_codes(b, f, s, rounding, r, NATIVE)
        else:
            shared, code = scaled_encode(b, t, f, s, rounding, r)
        n = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)[:, None]
        tl.store(scale + n, shared.to(scale.dtype.element_ty), mask=n < count)
        if WHAT == "pack":
            first = tl.program_id(0).to(tl.int64) * (TILE * SIZE * BITS // 32)
            rows = tl.reshape(code, [TILE * SIZE // CODES, CODES])
            store_packed(out, first, rows, words, TILE * SIZE // CODES, CODES, BITS)
        else:
            tl.store(out + start + offsets, code.to(out.dtype.element_ty), mask=mask)


def unscaled_kernel(
    codes, scale, tensor_scale, out, count, length, per_line, inner, f: tl.constexpr, g: tl.constexpr,
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
        y = mx_decode(shared, code, f)
    else:
        y = scaled_decode(shared, code, tl.load(tensor_scale), f, g)
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


# ---- a scale and a zero point: a tensor as [rows, n], or as [outer, length, inner] ----------------


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
    x, low, random, scale, zero, out, rows, n, scales, length, inner, group, seed,
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
            y = scaled_rounded(b, a, f, rounding, r, fraction)
        else:
            y = scaled_code(b, a, f, rounding, r, fraction)
    else:
        z = tl.load(zero + owners, mask=held, other=0)
        if ZERO == "float":
            y = offset_code(b, a, z, f, rounding, r, fraction)
            if WHAT == "round":
                y = offset_value(y, a, z, q)
        else:
            y = affine_code(b, a, z, f, q, rounding, r, fraction)
            if WHAT == "round":
                y = affine_value(y, a, z, q)
    if WHAT == "round":
        store_bits(out + start, offsets, y, mask, KIND, BFLOAT16)
    else:
        tl.store(out + start + offsets, y.to(out.dtype.element_ty), mask=mask)


def unaffine_kernel(
    codes, scale, zero, out, rows, n, scales, length, inner, group,
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
        y = scaled_value(code, a, f)
    elif ZERO == "float":
        y = offset_value(code, a, tl.load(zero + owners, mask=held, other=0), q)
    else:
        y = affine_value(code, a, tl.load(zero + owners, mask=held, other=0), q)
    tl.store(out + start + offsets, y, mask=mask)
