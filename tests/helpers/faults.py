"""Kernels with one planted fault each, which `numerics.conform` must catch and name."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

import numerics as nx

SIGN = np.uint32(1 << 31)


def encoder(**options):
    """An encoder of fp8_e4m3 with other options than it is asked for."""
    return lambda x: nx.fp8_e4m3.encode(x, **options)


def e4m3(x):
    return nx.fp8_e4m3.encode(x)


def edited(change, dtype=nx.fp8_e4m3, **options):
    """The right codes, changed afterwards: change(x, codes)."""
    return lambda x: change(x, dtype.encode(x, **options))


def given(change, dtype=nx.fp8_e4m3, **options):
    """The right codes of changed inputs."""
    return lambda x: dtype.encode(change(x).astype(np.float32), **options)


def table_lookup(bits):
    """Sticky bits lost: what lies below the upper `bits` bits of a float32 is not looked at."""
    mask = np.uint32(0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF)

    def encode(x):
        kept = x.view(np.uint32) & mask
        return nx.fp8_e4m3.encode(np.where(np.isnan(x), x, kept.view(np.float32)))

    return encode


def log2_scale(x):
    """MXFP4 whose scale is found by a float32 logarithm."""
    blocks = nx.mxfp4.encode(x)
    amax = np.abs(np.where(np.isfinite(x), x, 0)).reshape(-1, 32).max(axis=1).astype(np.float64)
    found = np.floor(np.log2(np.where(amax == 0, 1, amax)).astype(np.float32)) - 2 + 127
    ok = (amax > 0) & np.isfinite(x).reshape(-1, 32).all(axis=1)
    scale = np.where(ok, np.clip(found, 0, 254), blocks.scale.reshape(-1)).astype(np.uint8)
    step = np.ldexp(1.0, scale.astype(np.int64) - 127)[:, None]
    y = np.where(ok[:, None], x.reshape(-1, 32) / step, 0)
    codes = np.where(ok[:, None], nx.fp4.encode(y), blocks.codes.reshape(-1, 32))
    return codes.reshape(x.shape), scale.reshape(blocks.scale.shape)


def blocks_of(dtype, change, **options):
    """The right blocks, changed afterwards: change(x, codes, scale, microexponents) -> the same."""

    def encode(x):
        made = dtype.encode(x, **options)
        micro = None if made.microexponents is None else made.microexponents.copy()
        found = change(x, made.codes.copy(), made.scale.copy(), micro)
        return tuple(part for part in found if part is not None)

    return encode


def no_padding(dtype):
    """Short last blocks left as they are."""

    def rounded(x):
        size = x.shape[-1] // dtype.block * dtype.block
        return np.concatenate([dtype.round(x[..., :size]), x[..., size:]], axis=-1)

    return rounded


def padded_with_ones(dtype):
    def rounded(x):
        missing = -x.shape[-1] % dtype.block
        wide = np.concatenate([x, np.ones((*x.shape[:-1], missing), np.float32)], axis=-1)
        return dtype.round(wide)[..., : x.shape[-1]]

    return rounded


def reversed_pairs(x):
    """mx6 whose microexponents lie in the opposite order of bits."""
    made = nx.mx6.encode(x)
    order = np.array([int(f"{i:08b}"[::-1], 2) for i in range(256)], np.uint8)
    return made.codes, made.scale, order[made.microexponents]


def bumped(x):
    """mx6 that raises the shared exponent on a round-up past the top, as some hardware does."""
    made = nx.mx6.encode(x)
    rows, exponent = x.reshape(-1, 16), made.scale.reshape(-1)
    with np.errstate(all="ignore"):
        top = np.abs(rows).max(axis=1) * np.ldexp(1.0, -(exponent.astype(np.int64) - 127)) >= 31 / 16
    raised = np.where(top & (exponent < 254), exponent + 1, exponent).astype(np.uint8)
    return made.codes, raised.reshape(made.scale.shape), made.microexponents


def mx6_without_shifts(x):
    """mx6 in which every pair has the block's own step."""
    made = nx.mx6.encode(x)
    step = np.repeat(np.ldexp(1.0, made.scale.astype(int) - 130), 16, axis=-1)[..., : x.shape[-1]]
    normal = np.where(np.abs(x) < 2.0**-126, 0, x)
    with np.errstate(all="ignore"):
        values = np.copysign(np.minimum(np.rint(np.abs(normal) / step), 15) * step, normal).astype(np.float32)
    return np.where(np.isnan(made.decode()), np.float32(np.nan), values)


def affine(x, scale, zero_point, dtype=nx.int8, change=None):
    """Integers with a scale and a zero point, right unless changed."""
    with np.errstate(all="ignore"):
        y = np.where(np.isnan(x), 0, x / np.float32(scale)).astype(np.float64)
        q = (
            np.clip(np.rint(y) + zero_point, dtype.min, dtype.max)
            if change is None
            else change(y, zero_point)
        )
    return q.astype(np.int64).astype(np.uint8)


def reciprocal(x, scale, zero_point):
    with np.errstate(all="ignore"):
        y = np.where(np.isnan(x), 0, x * (np.float32(1) / np.float32(scale))).astype(np.float64)
    return np.clip(np.rint(y) + zero_point, -128, 127).astype(np.int64).astype(np.uint8)


def pack4(codes, swapped=False):
    filled = np.zeros(len(codes) + len(codes) % 2, np.uint8)
    filled[: len(codes)] = codes
    low, high = (filled[1::2], filled[0::2]) if swapped else (filled[0::2], filled[1::2])
    return low | high << 4


def unpack4(packed, count, swapped=False):
    pairs = np.stack([packed & 15, packed >> 4], axis=1)
    return (pairs[:, ::-1] if swapped else pairs).reshape(-1)[:count]


def as_if_contiguous(x):
    """What a kernel sees that takes a pointer and a count."""
    if not x.size:
        return x
    memory = (ctypes.c_char * x.nbytes).from_address(x.ctypes.data)
    return np.frombuffer(memory, x.dtype).reshape(x.shape).copy()


def at_another_tensor_scale(x):
    """NVFP4's codes and scales at a tensor scale of 2, which is not given."""
    blocks = nx.nvfp4.encode(x, tensor_scale=2.0)
    return blocks.codes, blocks.scale


def by_channel(x, scale, zero_point):
    """int8 at a scale and a zero point for each place of the first axis."""
    scale, zero_point = (part.reshape(-1, *[1] * (x.ndim - 1)) for part in (scale, zero_point))
    with np.errstate(all="ignore"):
        whole = np.clip(np.nan_to_num(np.rint(x / scale), nan=0), -1e9, 1e9) + zero_point
    return np.clip(whole, -128, 127).astype(np.int8).view(np.uint8)


def drawn_e4m3(x, random):
    return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=random)


def draws_itself(change=lambda x, codes: codes, spoiled=lambda bits: bits):
    """An encoder of fp8_e5m2 that draws for itself; spoiled(bits of a line): in place of its own."""
    rng = np.random.default_rng(0)

    def encode(x):
        bits = spoiled(rng.integers(0, 1 << 30, x.size, np.uint32)).reshape(x.shape)
        return change(x, nx.fp8_e5m2.encode(x, rounding="stochastic", random_bits=bits))

    return encode


def tail(put):
    """What a loop of 8 numbers leaves over draws `put` in place of its own bits."""
    return lambda bits: np.where(np.arange(bits.size) < bits.size // 8 * 8, bits, np.uint32(put))


OWN = {"rounding": "stochastic", "draw": "own"}


def drawn_mxfp4(x, random):
    return nx.mxfp4.encode(x, rounding="stochastic", random_bits=random)


@dataclass
class Fault:
    """A wrong target, the law that it must break, and the dialect that it is, where it is one."""

    target: Any
    dtype: str
    law: str
    dialect: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def flushed(x):
    return np.where(np.abs(x) < 2.0**-126, np.copysign(0, x), x)


PER_CHANNEL = {"kind": "affine", "scheme": "per_channel(0)"}
FAULTS = {
    # single numbers: roundings
    "ties away": Fault(encoder(rounding="half_away"), "fp8_e4m3", "ties", "ties away"),
    "ties up": Fault(encoder(rounding="half_up"), "fp8_e4m3", "ties", "ties up"),
    "ties down": Fault(encoder(rounding="half_down"), "fp8_e4m3", "ties", "ties down"),
    "truncation": Fault(encoder(rounding="toward_zero"), "fp8_e4m3", "nearest", "truncates"),
    "odd": Fault(encoder(rounding="to_odd"), "fp8_e4m3", "nearest", "rounds to odd"),
    "floor for truncation": Fault(
        encoder(rounding="floor"), "fp8_e4m3", "directed", "floors", {"rounding": "toward_zero"}
    ),
    "ceil for floor": Fault(encoder(rounding="ceil"), "fp8_e4m3", "directed", "ceils", {"rounding": "floor"}),
    "sticky bit lost": Fault(table_lookup(16), "fp8_e4m3", "nearest"),
    "one bit of sticky lost": Fault(table_lookup(31), "fp8_e4m3", "nearest"),
    "double rounding": Fault(
        given(lambda x: x.astype(np.float16)), "fp8_e4m3", "nearest", "double rounding through float16"
    ),
    "double rounding by bfloat16": Fault(
        given(lambda x: x.astype(ml_dtypes.bfloat16)),
        "fp8_e4m3",
        "nearest",
        "double rounding through bfloat16",
    ),
    "just below half a step": Fault(
        given(
            lambda x: np.where(
                np.abs(x) == np.nextafter(np.float32(2.0**-10), np.float32(0)), np.copysign(2.0**-9, x), x
            )
        ),
        "fp8_e4m3",
        "nearest",
        "floor(|x| + 0.5)",
    ),
    # single numbers: values
    "bias off by one": Fault(given(lambda x: x * 2), "fp8_e4m3", "round_trip"),
    "code off by one": Fault(edited(lambda x, c: np.where(c == 0x40, 0x41, c)), "fp8_e4m3", "round_trip"),
    "sign lost": Fault(given(np.abs), "fp8_e4m3", "round_trip", "loses the sign"),
    "byte for byte": Fault(edited(lambda x, c: c ^ 0x80), "fp8_e4m3", "round_trip"),
    "subnormals flushed": Fault(
        edited(lambda x, c: np.where(c & 0x7F < 8, c & 0x80, c)),
        "fp8_e4m3",
        "subnormals",
        "flushes subnormal results",
    ),
    "inputs flushed": Fault(
        given(flushed, nx.bfloat16), "bfloat16", "subnormals", "flushes subnormal inputs"
    ),
    "-0 lost": Fault(edited(lambda x, c: np.where(c == 0x80, 0, c)), "fp8_e4m3", "negative_zero", "loses -0"),
    "-0 of -0 only lost": Fault(given(lambda x: x + np.float32(0)), "fp8_e4m3", "negative_zero"),
    # single numbers: specials
    "NaN dropped": Fault(
        edited(lambda x, c: np.where(np.isnan(x), 0x7E, c)), "fp8_e4m3", "nan", "NaN becomes the largest"
    ),
    "NaN to zero": Fault(
        edited(lambda x, c: np.where(np.isnan(x), 0, c)), "fp8_e4m3", "nan", "NaN becomes 0"
    ),
    "signalling NaN dropped": Fault(
        edited(lambda x, c: np.where(x.view(np.uint32) & 0x7FFFFFFF == 0x7F800001, 0x7E, c)),
        "fp8_e4m3",
        "nan",
    ),
    "NaN payload": Fault(
        edited(lambda x, c: np.where(np.isnan(x), c | 3, c), nx.float16),
        "float16",
        "canonical_nan",
        None,
        {"strict_nan": True},
    ),
    "Inf saturates": Fault(
        edited(lambda x, c: np.where(np.isinf(x), c - 1, c), nx.float16),
        "float16",
        "infinity",
        "only finite numbers overflow",
    ),
    "overflow at 448": Fault(
        given(lambda x: np.where(np.abs(x) > 448, x * np.float32(np.inf), x), overflow="nonsaturate"),
        "fp8_e4m3",
        "overflow",
        "overflows past the largest",
        {"overflow": "nonsaturate"},
    ),
    "no saturation": Fault(encoder(overflow="nonsaturate"), "fp8_e4m3", "infinity", "does not saturate"),
    "saturation": Fault(
        encoder(overflow="saturate"), "fp8_e4m3", "infinity", "saturates", {"overflow": "nonsaturate"}
    ),
    "fp4 NaN": Fault(
        edited(lambda x, c: np.where(np.isnan(x), 8, c), nx.fp4), "fp4", "nan", "NaN becomes -0"
    ),
    "ml_dtypes fp4": Fault(
        lambda x: x.astype(ml_dtypes.float4_e2m1fn), "fp4", "nan", "NaN becomes the other zero"
    ),
    "integers wrap": Fault(
        lambda x: (
            np.where(np.abs(x) < 1e4, np.rint(x), nx.int8.decode(nx.int8.encode(x)))
            .astype(np.int64)
            .astype(np.uint8)
        ),
        "int8",
        "overflow",
    ),
    "127 is not reached": Fault(
        edited(lambda x, c: np.where(c == 127, 126, c), nx.int8), "int8", "round_trip"
    ),
    "-128 is not reached": Fault(
        edited(lambda x, c: np.where(c == 128, 129, c), nx.int8), "int8", "round_trip", "symmetric integers"
    ),
    "nearest e8m0 ties up": Fault(
        lambda x: nx.e8m0.encode(x, rounding="half_up"), "e8m0", "ties", "ties away"
    ),
    "rounds to another grid": Fault(
        lambda x: nx.fp8_e5m2.round(x), "fp8_e4m3", "round_trip", None, {"kind": "round"}
    ),
    "microxcaling": Fault(
        lambda x: (
            np.where(
                np.abs(x) >= 464, np.copysign(np.inf, x), nx.fp8_e4m3.round(x, rounding="half_away")
            ).astype(np.float32)
            + np.float32(0)
        ),
        "fp8_e4m3",
        "ties",
        "ties away + overflows to Inf + loses -0",
        {"kind": "round"},
    ),
    # decoding
    "decode by another bias": Fault(
        lambda c: nx.fp8_e4m3.decode(c) * 2, "fp8_e4m3", "table", "bias one too small", {"kind": "decode"}
    ),
    "decode flushes": Fault(
        lambda c: np.where(c & 0x7F < 8, nx.fp8_e4m3.decode(c & 0x80), nx.fp8_e4m3.decode(c)),
        "fp8_e4m3",
        "subnormal_codes",
        "subnormals read as zero",
        {"kind": "decode"},
    ),
    "decode loses -0": Fault(
        lambda c: nx.fp8_e4m3.decode(c) + np.float32(0),
        "fp8_e4m3",
        "zeros",
        "-0 read as 0",
        {"kind": "decode"},
    ),
    "decode 480": Fault(
        lambda c: np.where(c & 0x7F == 0x7F, np.where(c >> 7, -480, 480), nx.fp8_e4m3.decode(c)).astype(
            np.float32
        ),
        "fp8_e4m3",
        "special_codes",
        "specials read as numbers",
        {"kind": "decode"},
    ),
    # bytes
    "nibbles swapped": Fault(lambda c: pack4(c, True), "fp4", "order", None, {"kind": "pack"}),
    "unpacked swapped": Fault(lambda b, n: unpack4(b, n, True), "fp4", "order", None, {"kind": "unpack"}),
    "last nibble dropped": Fault(
        lambda c: pack4(np.where(np.arange(len(c)) == (len(c) | 1) - 1, 0, c) if len(c) % 2 else c),
        "fp4",
        "last_byte",
        None,
        {"kind": "pack"},
    ),
    # blocks
    "scale rule ceil": Fault(
        lambda x: nx.mxfp4.encode(x, scale_rule="ceil"), "mxfp4", "scale_rule", "scale rule ceil"
    ),
    "scale rule even, rounded": Fault(
        lambda x: nx.mxfp4.round(x, scale_rule="even"),
        "mxfp4",
        "scale_rule",
        "scale rule even",
        {"kind": "round"},
    ),
    "log2 scale": Fault(log2_scale, "mxfp4", "scale_rule", "floor by float log2"),
    "scale off by one": Fault(
        blocks_of(nx.mxfp8_e4m3, lambda x, c, s, m: (c, s + (s < 254))), "mxfp8_e4m3", "scale_rule"
    ),
    "block ties away": Fault(
        lambda x: nx.mxfp6_e2m3.encode(x, rounding="half_away"), "mxfp6_e2m3", "element_ties", "ties away"
    ),
    "block truncation": Fault(
        lambda x: nx.mxfp6_e2m3.round(x, rounding="toward_zero"),
        "mxfp6_e2m3",
        "elements",
        "truncates",
        {"kind": "round"},
    ),
    "microexponent truncation": Fault(
        lambda x: nx.mx6.round(x, rounding="toward_zero"), "mx6", "elements", "truncates", {"kind": "round"}
    ),
    "microexponents never set": Fault(
        lambda x: mx6_without_shifts(x), "mx6", "microexponents", "no microexponents", {"kind": "round"}
    ),
    "block -0 lost": Fault(
        blocks_of(nx.mxfp4, lambda x, c, s, m: (np.where(c == 8, 0, c), s)),
        "mxfp4",
        "negative_zero",
        "loses -0",
    ),
    "-128 reached": Fault(
        blocks_of(
            nx.mxint8,
            lambda x, c, s, m: (
                np.where(
                    (c == 0x81)
                    & (
                        x / np.repeat(np.ldexp(1.0, s.astype(int) - 127), 32, -1)[..., : x.shape[-1]]
                        <= -127.5 / 64
                    ),
                    0x80,
                    c,
                ),
                s,
            ),
        ),
        "mxint8",
        "saturates",
        "the lowest integer",
    ),
    "zero block": Fault(
        blocks_of(
            nx.mxfp4,
            lambda x, c, s, m: (
                (
                    c,
                    np.where(
                        np.add.reduceat(x != 0, np.arange(0, x.shape[-1], 32), axis=-1) == 0, 127, s
                    ).astype(np.uint8),
                )
                if x.size
                else (c, s)
            ),
        ),
        "mxfp4",
        "zero_block",
        "a zero block has scale 1",
    ),
    "NaN ignored": Fault(
        lambda x: nx.mxfp4.encode(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)),
        "mxfp4",
        "nan_block",
    ),
    "NaN stays": Fault(
        lambda x: np.where(np.isfinite(x), nx.mx6.round(np.where(np.isfinite(x), x, 0)), x),
        "mx6",
        "nan_block",
        "Inf and NaN stay where they are",
        {"kind": "round"},
    ),
    "microexponents ignored": Fault(reversed_pairs, "mx6", "microexponents"),
    "exponent bump": Fault(bumped, "mx6", "saturates"),
    "microexponent codes": Fault(
        blocks_of(nx.mx9, lambda x, c, s, m: (c, s, m ^ 1)), "mx9", "microexponents"
    ),
    "nvfp4 by reciprocals": Fault(
        lambda x: nx.nvfp4.encode(x, scale_rule="nvidia", tensor_scale=1.0),
        "nvfp4",
        "scale_rule",
        "scale rule nvidia",
    ),
    "nvfp4 scale": Fault(at_another_tensor_scale, "nvfp4", "scale_rule"),
    "nvfp4 scale, returned": Fault(lambda x: nx.nvfp4.encode(x, tensor_scale=2.0), "nvfp4", "result"),
    "no padding": Fault(no_padding(nx.mxfp4), "mxfp4", "short_block", None, {"kind": "round"}),
    "padded with ones": Fault(padded_with_ones(nx.mxfp4), "mxfp4", "short_block", None, {"kind": "round"}),
    "blocks of another axis": Fault(
        lambda x: nx.mxfp4.encode(x, axis=-1), "mxfp4", "result", None, {"axis": 0}
    ),
    "another axis": Fault(blocks_of(nx.mxfp4, lambda *a: a[1:]), "mxfp4", "shape", None, {"axis": 0}),
    "NaN scale decodes to Inf": Fault(
        lambda c, s: np.where(
            np.repeat(s, 32, -1) == 255, np.float32(np.inf), nx.Blocks(nx.mxfp4, -1, c, s).decode()
        ),
        "mxfp4",
        "nan_scale",
        None,
        {"kind": "decode"},
    ),
    "small values flushed": Fault(
        lambda c, s: flushed(nx.Blocks(nx.mxfp4, -1, c, s).decode()).astype(np.float32),
        "mxfp4",
        "small_values",
        None,
        {"kind": "decode"},
    ),
    "microexponents not read": Fault(
        lambda c, s, m: nx.Blocks(nx.mx6, -1, c, s, m & 0).decode(),
        "mx6",
        "shared_microexponents",
        None,
        {"kind": "decode"},
    ),
    "codes read wrong": Fault(
        lambda c, s: nx.Blocks(nx.mxfp4, -1, c ^ (c == 3), s).decode(),
        "mxfp4",
        "every_code",
        None,
        {"kind": "decode"},
    ),
    # integers with a scale and a zero point
    "reciprocal": Fault(reciprocal, "int8", "division", "reciprocal of the scale", {"kind": "affine"}),
    "zero point after the clamp": Fault(
        lambda x, s, z: affine(
            x, s, z, change=lambda y, z: np.clip(np.clip(np.rint(y), -128, 127) + z, -128, 127)
        ),
        "int8",
        "zero_point",
        "zero point after the clamp",
        {"kind": "affine"},
    ),
    "zero point wraps": Fault(
        lambda x, s, z: affine(x, s, z, change=lambda y, z: np.clip(np.rint(y), -128, 127) + z),
        "int8",
        "zero_point",
        "zero point wraps",
        {"kind": "affine"},
    ),
    "affine ties away": Fault(
        lambda x, s, z: affine(
            x, s, z, change=lambda y, z: np.clip(np.sign(y) * np.floor(np.abs(y) + 0.5) + z, -128, 127)
        ),
        "int8",
        "midway",
        "ties away",
        {"kind": "affine"},
    ),
    "zero point forgotten": Fault(
        lambda x, s, z: affine(x, s, 0), "int8", "quotient", None, {"kind": "affine"}
    ),
    "affine does not clamp": Fault(
        lambda x, s, z: affine(
            x, s, z, change=lambda y, z: np.where(np.abs(y) < 1e6, np.rint(y) + z, np.clip(y, -128, 127))
        ),
        "int8",
        "clamp",
        None,
        {"kind": "affine"},
    ),
    # stochastic rounding
    "draws reversed": Fault(
        lambda x, r: nx.fp8_e4m3.encode(
            x, rounding="stochastic", random_bits=((1 << 30) - 1 - r).astype(np.uint32)
        ),
        "fp8_e4m3",
        "draws",
        "draws reversed",
        {"rounding": "stochastic"},
    ),
    "draws unused": Fault(
        lambda x, r: nx.fp8_e4m3.encode(x), "fp8_e4m3", "draws", "ties to even", {"rounding": "stochastic"}
    ),
    "two steps": Fault(
        lambda x, r: np.minimum(
            nx.fp8_e4m3.encode(x, rounding="toward_zero") + 2 * (r > 1 << 29), 0xFE
        ).astype(np.uint8),
        "fp8_e4m3",
        "round_trip",
        None,
        {"rounding": "stochastic"},
    ),
    # the call itself
    "raises": Fault(lambda x: 1 / 0, "fp8_e4m3", "runs"),
    "writes its input": Fault(lambda x: (x.fill(0), e4m3(x))[1], "fp8_e4m3", "inputs_unchanged"),
    "another shape": Fault(lambda x: e4m3(x)[:-1], "fp8_e4m3", "shape"),
    "floats for codes": Fault(lambda x: e4m3(x).astype(np.float32), "fp8_e4m3", "dtype"),
    "wide values": Fault(
        lambda x: nx.fp8_e4m3.round(x).astype(np.float64), "fp8_e4m3", "dtype", None, {"kind": "round"}
    ),
    "codes out of range": Fault(lambda x: nx.fp4.encode(x) | 0x70, "fp4", "code_range"),
    "nothing": Fault(lambda x: None, "fp8_e4m3", "result"),
    "codes without scales": Fault(lambda x: nx.mxfp4.encode(x).codes, "mxfp4", "result"),
    "tail forgotten": Fault(
        lambda x: (
            np.concatenate([c := e4m3(x[: len(x) // 2 * 2]), np.zeros(len(x) % 2, c.dtype)])
            if x.ndim == 1
            else e4m3(x)
        ),
        "fp8_e4m3",
        "layout",
    ),
    "strides ignored": Fault(lambda x: e4m3(as_if_contiguous(x)), "fp8_e4m3", "layout"),
    "strides of random bits ignored": Fault(
        lambda x, r: drawn_e4m3(x, as_if_contiguous(r)),
        "fp8_e4m3",
        "layout",
        None,
        {"rounding": "stochastic"},
    ),
    # draws of its own
    "own draws overflow": Fault(
        draws_itself(
            lambda x, c: np.where(np.isfinite(x) & (np.abs(x) > 1e6), c & 0x80 | 0x7C, c).astype(np.uint8)
        ),
        "fp8_e5m2",
        "overflow",
        None,
        OWN,
    ),
    "own draws lose -0": Fault(
        draws_itself(lambda x, c: np.where(c == 0x80, 0, c).astype(np.uint8)),
        "fp8_e5m2",
        "negative_zero",
        None,
        OWN,
    ),
    "own draws lose the sign of what becomes 0": Fault(
        draws_itself(lambda x, c: np.where((c == 0x80) & (x != 0), 0, c).astype(np.uint8)),
        "fp8_e5m2",
        "negative_zero",
        None,
        OWN,
    ),
    "own draws of a tail that rounds to nearest": Fault(
        draws_itself(spoiled=tail(1 << 29)), "fp8_e5m2", "mean", None, OWN
    ),
    "own draws of a tail that is truncated": Fault(
        draws_itself(spoiled=tail(0)), "fp8_e5m2", "mean", None, OWN
    ),
    "own draws ignore strides": Fault(
        lambda x: draws_itself()(as_if_contiguous(x)), "fp8_e5m2", "layout", None, OWN
    ),
    "strides of a block's random bits ignored": Fault(
        lambda x, r: drawn_mxfp4(x, as_if_contiguous(r)), "mxfp4", "layout", None, {"rounding": "stochastic"}
    ),
    "strides of scales ignored": Fault(
        lambda x, s, z: by_channel(x, as_if_contiguous(s), z), "int8", "scale_arrays", None, PER_CHANNEL
    ),
    "strides of zero points ignored": Fault(
        lambda x, s, z: by_channel(x, s, as_if_contiguous(z)), "int8", "scale_arrays", None, PER_CHANNEL
    ),
    "strides of a block's scales ignored": Fault(
        lambda c, s: nx.Blocks(nx.mxfp4, -1, c, as_if_contiguous(s)).decode(),
        "mxfp4",
        "layout",
        None,
        {"kind": "decode"},
    ),
    "strides of microexponents ignored": Fault(
        lambda c, s, m: nx.Blocks(nx.mx6, -1, c, s, as_if_contiguous(m)).decode(),
        "mx6",
        "layout",
        None,
        {"kind": "decode"},
    ),
}
