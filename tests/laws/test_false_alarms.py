"""Right kernels by other routes than ours, under many seeds: none may be blamed."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import gfloat
import gfloat.formats
import ml_dtypes
import numba
import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import numerics as nx
from numerics.conform import check

SEEDS = 56  # of each route: a thousand in all
WORDS = 1 << 16  # of a block of Triton
E4M3, E5M2 = "fp8_e4m3", "fp8_e5m2"


def clipped(x, most):
    """As saturating: past the largest, and Inf, the largest; NaN stays."""
    return np.where(np.isnan(x), x, np.clip(x, -most, most)).astype(np.float32)


def by_ml_dtypes(x):
    return clipped(x, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def decoded(codes):
    return codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)


def signed_bytes(x):
    return by_ml_dtypes(x).view(np.int8)


def float8(x):
    return clipped(x, 57344).astype(ml_dtypes.float8_e5m2)


def by_torch(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn)


def by_gfloat(x):
    info = gfloat.formats.format_info_ocp_e4m3
    values = gfloat.round_ndarray(info, x.astype(np.float64), gfloat.RoundMode.TiesToEven, True)
    return np.asarray(gfloat.encode_ndarray(info, values)).astype(np.uint8).reshape(x.shape)


TABLE = np.sort(np.array(nx.fp4.values(), np.float64))
MIDDLES = (TABLE[1:] + TABLE[:-1]) / 2
CODES = {value: code for code, value in enumerate(nx.fp4.values()) if not (value == 0 and code)}


def by_table(x):
    """The values in order, and their middles; ties to the even code by hand."""
    wide = np.nan_to_num(x.astype(np.float64), nan=6.0)
    low, high = np.searchsorted(MIDDLES, wide, "left"), np.searchsorted(MIDDLES, wide, "right")
    codes = np.vectorize(lambda at: CODES[TABLE[at]], otypes=[np.uint8])(np.arange(len(TABLE)))
    found = np.where(codes[low] % 2, codes[high], codes[low]) & 7
    return np.where(np.isnan(x), 7, found | np.signbit(x) * 8).astype(np.uint8)


def by_float64(x):
    """The step of each number's binade, and rint."""
    wide = clipped(x, 448).astype(np.float64)
    step = np.ldexp(1.0, np.maximum(np.frexp(wide)[1] - 4, -9))
    with np.errstate(all="ignore"):
        return (np.rint(wide / step) * step).astype(np.float32)


@numba.njit
def _bfloat16(words, out):
    for i in range(words.size):
        word = words[i]
        if word & 0x7FFFFFFF > 0x7F800000:
            out[i] = word >> 16 | 64
        else:
            out[i] = (word + 0x7FFF + (word >> 16 & 1)) >> 16


def by_numba(x):
    words = np.ascontiguousarray(x).view(np.uint32).reshape(-1).astype(np.int64)
    out = np.empty(words.size, np.uint16)
    _bfloat16(words, out)
    return out.reshape(x.shape)


SOURCE = r"""
#include <math.h>
#include <stdint.h>
void affine(const float *x, long n, float scale, int zero, uint8_t *out) {
  for (long i = 0; i < n; ++i) {
    float q = rintf(x[i] / scale);
    q = q != q ? 0 : fmaxf(-1e6f, fminf(1e6f, q));
    long c = (long)q + zero;
    out[i] = (uint8_t)(c < -128 ? -128 : c > 127 ? 127 : c);
  }
}
"""


def library_of(source, name, *command):
    """A shared library of a source, compiled; whoever lacks the compiler skips the test."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    folder = Path(tempfile.mkdtemp(prefix="numerics-routes-"))
    (folder / name).write_text(source, encoding="utf-8")
    subprocess.run([*command, name], cwd=folder, check=True, capture_output=True, timeout=100)
    return ctypes.CDLL(str(folder / "library.so"))


def in_c():
    flags = ("-O2", "-ffp-contract=off", "-shared", "-fPIC", "-o", "library.so")
    library = library_of(SOURCE, "affine.c", "cc", *flags)

    def affine(x, scale, zero_point):
        flat, out = np.ascontiguousarray(x, np.float32), np.empty(x.shape, np.uint8)
        library.affine(
            flat.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(flat.size), ctypes.c_float(scale),
            ctypes.c_int(zero_point), out.ctypes.data_as(ctypes.c_void_p),
        )  # fmt: skip
        return out

    return affine


ENCODER = r"""
#include <stdint.h>
#include <string.h>
void encode(const float *x, long n, uint8_t *out) { /* OCP E4M3, half to even, saturating */
  for (long i = 0; i < n; ++i) {
    uint32_t bits, a;
    float sum;
    memcpy(&bits, x + i, 4);
    a = bits & 0x7fffffff;
    memcpy(&sum, &a, 4);
    sum += 16384.0f;
    uint32_t low;
    memcpy(&low, &sum, 4);
    uint32_t code = a >= 0x3c800000 ? ((a + 0x7ffff + (a >> 20 & 1)) >> 20) - (120 << 3) : low & 15;
    if (a >= 0x43e00000) code = 0x7e;
    if (a > 0x7f800000) code = 0x7f;
    out[i] = (uint8_t)(bits >> 24 & 0x80 | code);
  }
}
"""
IN_RUST = r"""
#[no_mangle]
pub unsafe extern "C" fn encode(x: *const u32, n: i64, out: *mut u8) {
    for i in 0..n as usize {
        let bits = *x.add(i);
        let a = bits & 0x7fffffff;
        let code = if a > 0x7f800000 { 0x7f }
            else if a >= 0x43e00000 { 0x7e }
            else if a >= 0x3c800000 { ((a + 0x7ffff + (a >> 20 & 1)) >> 20) - (120 << 3) }
            else { (f32::from_bits(a) + 16384.0).to_bits() & 15 };
        *out.add(i) = (bits >> 24 & 0x80 | code) as u8;
    }
}
"""


def encoding(library):
    """What a library's `encode` makes of an array."""

    def encode(x):
        flat, out = np.ascontiguousarray(x, np.float32), np.empty(x.shape, np.uint8)
        given = (flat.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(flat.size))
        library.encode(*given, out.ctypes.data_as(ctypes.c_void_p))
        return out

    return encode


def under_ofast():
    """Where the compiler links what makes a process flush subnormal numbers, that is undone afterwards."""
    library = library_of(ENCODER, "encode.c", "cc", "-Ofast", "-shared", "-fPIC", "-o", "library.so")
    torch.set_flush_denormal(False)
    return encoding(library)


def in_rust():
    flags = ("-O", "--crate-type", "cdylib", "-o", "library.so")
    return encoding(library_of(IN_RUST, "encode.rs", "rustc", *flags))


def compiled():
    return torch.compile(by_torch, dynamic=True)


@triton.jit
def _bfloat16_words(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    word = tl.load(x + at, mask=at < n, other=0).to(tl.int64) & 0xFFFFFFFF
    rounded = (word + 0x7FFF + (word >> 16 & 1)) >> 16
    nan = (word & 0x7FFFFFFF) > 0x7F800000
    tl.store(out + at, tl.where(nan, word >> 16 | 64, rounded).to(tl.int16), mask=at < n)


def in_triton():
    """Interpreted: tests/conftest.py says so."""

    def encode(x):
        words = x.contiguous().view(torch.int32).reshape(-1)
        out = torch.empty(words.numel(), dtype=torch.int16)
        if words.numel():
            _bfloat16_words[(triton.cdiv(words.numel(), WORDS),)](words, out, words.numel(), BLOCK=WORDS)
        return out.reshape(x.shape)

    return encode


def by_bits(codes):
    bits = np.unpackbits(np.ascontiguousarray(codes).reshape(-1, 1), axis=1, count=6, bitorder="little")
    return np.packbits(bits.reshape(-1), bitorder="little")


def by_python(packed, count):
    whole = int.from_bytes(np.ascontiguousarray(packed).tobytes(), "little")
    return np.array([whole >> 6 * at & 63 for at in range(count)], np.uint8)


def by_shifts(packed, count):
    """Four codes in three bytes."""
    padded = np.zeros(-(-count // 4) * 3, np.uint32)
    padded[: packed.size] = packed
    three = padded.reshape(-1, 3)
    words = three[:, 0] | three[:, 1] << np.uint32(8) | three[:, 2] << np.uint32(16)
    return (words[:, None] >> np.arange(0, 24, 6, dtype=np.uint32) & 63).reshape(-1)[:count].astype(np.uint8)


def mxfp4(x):
    """OCP MX in float64: the largest magnitude's exponent, less 2."""
    over = -x.shape[-1] % 32
    rows = np.concatenate([x, np.zeros((*x.shape[:-1], over), np.float32)], -1).astype(np.float64)
    rows = rows.reshape(*x.shape[:-1], -1, 32)
    with np.errstate(all="ignore"):
        top = np.abs(rows).max(-1) if rows.size else np.zeros(rows.shape[:-1])
        shared = np.where(top == 0, -127, np.clip(np.frexp(top)[1] - 3, -127, 127))
        bad = ~np.isfinite(rows).all(-1)
        codes = by_table(np.ldexp(rows, -shared[..., None]))
    scale = np.where(bad, 255, shared + 127).astype(np.uint8)
    return codes.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]], scale


def drawn(x, random):
    """Two neighbours of float64, and the fraction between them."""
    wide = np.abs(clipped(x, 448).astype(np.float64))
    step = np.ldexp(1.0, np.maximum(np.frexp(wide)[1] - 4, -9))
    down = np.floor(wide / step)
    with np.errstate(all="ignore"):  # cut off: of 54 bits the sum would be rounded
        up = np.floor((wide / step - down) * 2.0**30) + (random & 0x3FFFFFFF) >= 2.0**30
    value = np.minimum((down + up) * step, 448.0)
    return np.copysign(np.where(np.isnan(x), np.nan, value), x).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


class Own:
    """Draws of its own, a stream for each object."""

    def __init__(self):
        self.rng = np.random.default_rng(2026)

    def __call__(self, x):
        return drawn(x, self.rng.integers(0, 1 << 30, x.shape, np.uint32))


def added(a, b):
    """The terms one after the other."""
    found = np.zeros((len(a), len(b)), np.float32)
    with np.errstate(all="ignore"):
        for k in range(a.shape[1]):
            found += np.multiply.outer(a[:, k], b[:, k])
    return found


def integers(a, b):
    return a.astype(np.int32) @ b.astype(np.int32).T


WIDE = {"kind": "matmul", "a": "float32", "b": "float32"}


class Made(NamedTuple):
    """A kernel that is compiled when it is asked for."""

    make: Callable[[], Any]


@cache
def made(kernel):
    return kernel.make() if isinstance(kernel, Made) else kernel


SLOW = {"torch.compile", "Triton, interpreted"}  # asked once: a check takes minutes
ROUTES = {
    "ml_dtypes": (by_ml_dtypes, E4M3, {}),
    "a view as int8": (signed_bytes, E4M3, {}),
    "ml_dtypes' own type": (float8, E5M2, {}),
    "torch": (by_torch, E4M3, {"array": "torch"}),
    "gfloat": (by_gfloat, E4M3, {"one_thread": True}),
    "a table": (by_table, "fp4", {}),
    "float64": (by_float64, E4M3, {"kind": "round"}),
    "numba": (by_numba, "bfloat16", {}),
    "C": (Made(in_c), "int8", {"kind": "affine"}),
    "C under -Ofast": (Made(under_ofast), E4M3, {}),
    "Rust": (Made(in_rust), E4M3, {}),
    "torch.compile": (Made(compiled), E4M3, {"array": "torch", "contiguous": True}),
    "Triton, interpreted": (Made(in_triton), "bfloat16", {"array": "torch"}),
    "bits of NumPy": (by_bits, "fp6_e2m3", {"kind": "pack"}),
    "shifts": (by_shifts, "fp6_e2m3", {"kind": "unpack"}),
    "blocks in float64": (mxfp4, "mxfp4", {}),
    "drawn in float64": (drawn, E4M3, {"rounding": "stochastic"}),
    "its own draws": (Own(), E4M3, {"rounding": "stochastic", "draw": "own"}),
    "a product of NumPy": (lambda a, b: a @ b.T, None, WIDE),
    "one after the other": (added, None, WIDE),
    "int32": (integers, None, {"kind": "matmul", "a": "int8", "b": "int8", "accumulate": "int32"}),
    "ml_dtypes decodes": (decoded, E4M3, {"kind": "decode"}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, where it compiles
@pytest.mark.turns(12)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in SLOW else ()) for name in ROUTES]
)
def test_a_right_kernel_was_blamed(name):
    kernel, dtype, options = ROUTES[name]
    found = check(made(kernel), dtype, effort="quick", **options)
    assert found, str(found)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in ROUTES if name not in SLOW])
def test_a_right_kernel_was_blamed_under_some_seed(name):
    kernel, dtype, options = ROUTES[name]
    kernel = made(kernel)
    for seed in range(1, SEEDS + 1):
        found = check(kernel, dtype, seed=seed, **options)
        assert found, f"seed {seed}: {found}"


@numba.njit
def _by_rows(a, b, out):
    for m in range(a.shape[0]):
        for n in range(b.shape[0]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += a[m, k] * b[n, k]
            out[m, n] = total


def by_rows(a, b):
    out = np.empty((len(a), len(b)), np.float32)
    _by_rows(a, b, out)
    return out


def halves(a, b):
    """Two parts of the terms, each by NumPy, and their sum."""
    middle = a.shape[1] // 2
    with np.errstate(all="ignore"):
        return a[:, :middle] @ b[:, :middle].T + a[:, middle:] @ b[:, middle:].T


def in_float64(a, b):
    with np.errstate(all="ignore"):
        return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)


PRODUCTS = {
    "NumPy": (lambda a, b: a @ b.T, "numpy"),
    "torch": (lambda a, b: a @ b.T, "torch"),
    "one after the other": (added, "numpy"),
    "numba": (by_rows, "numpy"),
    "two halves": (halves, "numpy"),
    "float64": (in_float64, "numpy"),
}


@pytest.mark.long
def test_a_right_product_was_blamed_in_ten_million_results():
    decided = 0
    for name, (kernel, array) in PRODUCTS.items():
        found = check(kernel, array=array, **WIDE)
        assert found, f"{name}: {found}"
        decided += found.tried
    assert decided > 10_000_000
