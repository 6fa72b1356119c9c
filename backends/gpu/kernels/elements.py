"""Kernels of single numbers, by the shared arithmetic or the GPU's own conversions (native.py)."""

from __future__ import annotations

import triton.language as tl

from numerics.backends.gpu.kernels.memory import load_bits, random_run, run_of_elements, store_bits
from numerics.backends.gpu.kernels.packing import load_packed, store_packed
from numerics.backends.gpu.primitives import as_float, minimum
from numerics.backends.gpu.values import with_tables
from numerics.formats.codec import INF, MAGNITUDE, SIGN, decode, encode, round_bits, with_sign


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


def encode_kernel(
    tables, x, low, random, out, n, seed, f: tl.constexpr, rounding: tl.constexpr, KIND: tl.constexpr,
    DRAW: tl.constexpr, LOW: tl.constexpr, NATIVE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Floats to codes."""
    first, i, mask = run_of_elements(n, BLOCK)
    b = load_bits(x + first, i, mask, KIND)
    r = random_run(random + first, seed, first, i, mask, BLOCK, DRAW)
    fraction = None
    if LOW:
        fraction = tl.load(low + first + i, mask=mask, other=0)
    code = element_code(b, with_tables(f, tables), rounding, r, fraction, NATIVE)
    tl.store(out + first + i, code.to(out.dtype.element_ty), mask=mask)


def encode_packed_kernel(
    tables, x, random, out, n, words, seed, f: tl.constexpr, rounding: tl.constexpr, KIND: tl.constexpr,
    DRAW: tl.constexpr, NATIVE: tl.constexpr, BITS: tl.constexpr, CODES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Floats to a string of bits; CODES codes are whole words."""
    first, i, mask = run_of_elements(n, TILE * CODES)
    b = load_bits(x + first, i, mask, KIND)
    r = random_run(random + first, seed, first, i, mask, TILE * CODES, DRAW)
    code = tl.where(mask, element_code(b, with_tables(f, tables), rounding, r, None, NATIVE), 0)
    start = tl.program_id(0).to(tl.int64) * (TILE * CODES * BITS // 32)
    store_packed(out, start, tl.reshape(code, [TILE, CODES]), words, TILE, CODES, BITS)


def decode_kernel(tables, codes, out, n, f: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Codes to float32; BITS: of a string of bits, or None for a code a byte or two."""
    first, i, mask = run_of_elements(n, BLOCK)
    if BITS is None:
        code = tl.load(codes + first + i, mask=mask, other=0).to(tl.int32)
    else:
        code = load_packed(codes + first * BITS // 8, i, mask, BITS)
    tl.store(out + first + i, decode(code, with_tables(f, tables)), mask=mask)


def round_kernel(
    tables, x, low, random, out, n, seed, f: tl.constexpr, rounding: tl.constexpr, KIND: tl.constexpr,
    TARGET: tl.constexpr, DRAW: tl.constexpr, LOW: tl.constexpr, BFLOAT16: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Floats to the nearest values of the format, as TARGET."""
    first, i, mask = run_of_elements(n, BLOCK)
    b = load_bits(x + first, i, mask, KIND)
    r = random_run(random + first, seed, first, i, mask, BLOCK, DRAW)
    fraction = None
    if LOW:
        fraction = tl.load(low + first + i, mask=mask, other=0)
    b = round_bits(b, with_tables(f, tables), rounding, r, fraction)
    store_bits(out + first, i, b, mask, TARGET, BFLOAT16)
