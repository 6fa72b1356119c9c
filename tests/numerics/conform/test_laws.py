"""Faults that hide: in one length, one stride, one scale, one draw, one thread.  Each is found."""

from __future__ import annotations

import itertools
import threading
import warnings
from dataclasses import fields
from functools import partial

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.checking import asked
from numerics.conform.effort import LEFT_OUT
from numerics.conform.laws import everything
from numerics.conform.products.claim import Claim
from numerics.conform.task import Task
from numerics.conform.verdict import Counterexample, Verdict
from numerics.formats.block import Blocks
from tests.helpers.proofs import LONG, near_steps

SIGN = np.uint32(1 << 31)


def wrong_where(where, right, change=lambda c: c ^ 1):
    """A kernel whose answers change where the input is such."""

    def kernel(x, *others):
        answer = right(x, *others)
        parts = list(answer) if isinstance(answer, tuple) else [answer]
        if where(x, *others) if callable(where) else where:
            parts[0] = change(parts[0])
        return tuple(parts) if isinstance(answer, tuple) else parts[0]

    return kernel


def blocks(dtype, **options):
    """An encoder of blocks as plain tuples."""

    def encode(x, *random):
        drawn = {"rounding": "stochastic", "random_bits": random[0]} if random else {}
        made = dtype.encode(x, **options, **drawn)
        parts = (made.codes, made.scale, made.microexponents)
        return tuple(part for part in parts if part is not None)

    return encode


def decoder(dtype):
    def decode(codes, scale, micro=None):
        scaled = 1.0 if isinstance(dtype, nx.ScaledBlock) else None
        return Blocks(dtype, -1, codes, scale, micro, scaled).decode()

    return decode


def e4m3(x):
    return nx.fp8_e4m3.encode(x)


# ---- shapes, strides, lengths ---------------------------------------------------------------------

LAYOUTS = {
    "a tail of 4": lambda x: x.size % 8 == 4,
    "a tail of 6": lambda x: x.size % 8 == 6,
    "a tail of 47 in 64": lambda x: x.size % 64 == 47,
    "many": lambda x: x.size > 50000,
    "four axes": lambda x: x.ndim == 4,
    "a negative stride": lambda x: any(stride < 0 for stride in x.strides),
    "a stride of zero": lambda x: x.size > 1 and any(s == 0 for s in x.strides),
    "three axes, turned": lambda x: x.ndim == 3 and not x.flags.c_contiguous,
    "a square that lies turned": lambda x: x.ndim == 2 and x.shape[0] == x.shape[1] > 1 and x.strides[0] == 4,
    "whole lanes, backward": lambda x: x.ndim == 1 and x.strides[0] < 0 and x.size % 4 == 0,
}


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_found(name):
    found = check(wrong_where(LAYOUTS[name], e4m3), "fp8_e4m3")
    assert found.law == "layout", str(found)


@pytest.mark.turns(4)
@pytest.mark.parametrize("dtype", [nx.fp8_e4m3, nx.float16], ids=str)
def test_a_decoder_that_misreads_strided_memory_is_found(dtype):
    high = lambda c, v: np.where(c >= 64, -v, v)  # noqa: E731
    kernel = lambda c: dtype.decode(c) if c.flags.c_contiguous else high(c, dtype.decode(c))  # noqa: E731
    assert check(kernel, dtype, kind="decode").law == "layout"


@pytest.mark.turns(8)
@pytest.mark.parametrize("count", [4, 6, 12, 70001])
def test_a_length_of_bytes_is_found(count):
    kernel = wrong_where(lambda c: c.size == count, nx.fp4.pack)
    assert check(kernel, "fp4", kind="pack").law in ("order", "last_byte")


@pytest.mark.turns
def test_codes_apart_are_packed_too():
    kernel = wrong_where(lambda c: not c.flags.c_contiguous, nx.fp4.pack)
    assert check(kernel, "fp4", kind="pack").law == "layout"
    assert check(kernel, "fp4", kind="pack", contiguous=True)


def test_a_signalling_nan_of_bfloat16_was_asked_as_a_quiet_one():
    """A cast from float32 makes NaN quiet: 252 of the 65,536 numbers were never asked."""

    def kernel(x):
        word = x.view(np.uint16)
        return np.where(word & 0x7FFF == 0x7F81, word >> 8 & 0x80 | 0x7B, nx.fp8_e5m2.encode(x))

    assert check(kernel, "fp8_e5m2", inputs="bfloat16", effort="quick").law == "nan"


@pytest.mark.turns(4)
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_all_numbers_of_a_type_of_16_bits_are_asked(name):
    seen = np.zeros(1 << 16, np.bool_)

    def kernel(x):
        seen[np.unique(np.ascontiguousarray(x).view(np.uint16))] = True
        return nx.fp4.encode(x)

    assert check(kernel, "fp4", inputs=name, effort="quick")
    assert seen.all()


@pytest.mark.turns
def test_a_channel_past_those_that_a_byte_counts_is_found():
    def kernel(x, scale, zero_point):
        scale = scale.copy()
        scale[128:] = scale[127:128]
        return nx.quantize(
            x, "int8", scheme=nx.per_channel(0), symmetric=False, scale=scale, zero_point=zero_point
        ).codes

    assert check(kernel, "int8", kind="affine", scheme="per_channel(0)").law == "scale_arrays"


def of_channels(x, scale, zero_point, reciprocal=False):
    """A right int8 kernel of scales along the first axis."""
    scale, zero_point = (part.reshape(-1, *[1] * (x.ndim - 1)) for part in (scale, zero_point))
    with np.errstate(all="ignore"):
        y = x * (np.float32(1) / scale) if reciprocal else x / scale
        y = np.where(np.isnan(x), 0, y).astype(np.float64)
    return np.clip(np.rint(y) + zero_point, -128, 127).astype(np.int8)


def spoiled(start=None, rows=None):
    """Zeros from a number, or a row, on."""

    def kernel(x, scale, zero_point):
        found = of_channels(x, scale, zero_point)
        (found.reshape(-1)[start:] if rows is None else found[rows:])[...] = 0
        return found

    return kernel


def channels_of_16_bits(x, scale, zero_point):
    own = np.arange(len(scale)).astype(np.uint16)
    return of_channels(x, scale[own], zero_point[own])


class Counted:
    """One answer in so many has a wrong last number."""

    def __init__(self, every):
        self.every, self.calls = every, 0

    def __call__(self, x, scale, zero_point):
        self.calls += 1
        found = of_channels(x, scale, zero_point)
        if self.calls % self.every == 0 and found.size:
            found.reshape(-1)[-1] ^= 1
        return found


def no_empty_arrays(x, scale, zero_point):
    assert x.size
    return of_channels(x, scale, zero_point)


SCALED = {
    "300 rows": (spoiled(rows=300), "scale_arrays"), "1024 rows": (spoiled(rows=1024), "scale_arrays"),
    "65536 rows": (spoiled(rows=65536), "scale_arrays"), "4096": (spoiled(4096), "scale_arrays"),
    "5000": (spoiled(5000), "scale_arrays"), "65536": (spoiled(65536), "scale_arrays"),
    "channels in 16 bits": (channels_of_16_bits, "scale_arrays"),
    "the 50th call": (Counted(50), "repeatable"),
    "empty": (no_empty_arrays, "runs"),
    "reciprocal": (lambda *given: of_channels(*given, reciprocal=True), "division"),
    "clamp": (lambda *given: np.minimum(of_channels(*given), 126).astype(np.int8), "clamp"),
    "another's scale": (lambda x, s, z: of_channels(x, np.roll(s, 1), z), "scale_arrays"),
}  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", SCALED)
def test_a_wrong_kernel_of_arrays_of_scales_passed(name):
    """Of schemes 94 to 108 calls were asked, of 4,290 numbers and 300 rows at the most."""
    kernel, law = SCALED[name]
    found = check(kernel, "int8", kind="affine", scheme="per_channel(0)", effort="quick")
    assert found.law == law, str(found)
    if law in ("scale_arrays", "division", "clamp"):
        assert "scale 0x" in found.counterexample.where
        assert found.counterexample.due.endswith(")")
    assert (found.dialect == "reciprocal of the scale") == (name == "reciprocal")


SHARED = np.empty(1 << 21, np.int8)


def shared_by_threads(x, scale, zero_point):
    room = SHARED[: x.size].reshape(x.shape) if x.size < 1 << 14 else np.empty(x.shape, np.int8)
    room[...] = of_channels(x, scale, zero_point)
    return room.copy()


@pytest.mark.turns
def test_calls_again_threads_and_drawn_numbers_were_not_asked_of_arrays_of_scales():
    options = {"kind": "affine", "scheme": "per_channel(0)"}
    assert check(of_channels, "int8", **options)
    assert check(shared_by_threads, "int8", **options).law == "threads"
    assert check(spoiled(1 << 21), "int8", **options).law == "scale_arrays"
    kernels = [Counted(1 << 20) for _ in range(2)]
    for kernel, effort in zip(kernels, ("quick", "default"), strict=True):
        check(kernel, "int8", effort=effort, **options)
    assert kernels[0].calls + 130 < kernels[1].calls


@pytest.mark.parametrize(
    ("dtype", "options"),
    [("int8", {"kind": "affine"}), ("int8", {"kind": "affine", "scheme": "per_token"}),
     ("int4", {"kind": "pack"}), ("int4", {"kind": "unpack"}), ("mxfp4", {"kind": "decode"}),
     ("mxfp4", {"axis": 0}), ("mxfp4", {"rounding": "stochastic"}), ("fp4", {"rounding": "stochastic"})],
)  # fmt: skip
def test_calls_again_and_threads_are_asked_of_every_kind(dtype, options):
    calls = []
    for effort in ("quick", "default"):
        seen = asked(lambda *_: None, dtype, effort=effort, **options)
        calls.append([law.__name__ for trial in seen.trials for law in trial.laws])
    assert "threads" not in calls[0]
    assert "threads" in calls[1]
    assert calls[1].count("repeatable") > calls[0].count("repeatable")


# ---- draws of its own -----------------------------------------------------------------------------


def drawn_by(bits):
    """A kernel that draws for itself: bits(count) are its random bits."""

    def kernel(x):
        return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=bits(x.size).reshape(x.shape))

    return kernel


def antithetic(rng):
    def bits(count):
        half = rng.integers(0, 1 << 30, -(-count // 2), np.uint32)
        return np.stack([half, (1 << 30) - 1 - half], 1).reshape(-1)[:count].astype(np.uint32)

    return bits


def a_seed_for_two_calls(rng):
    calls = []

    def bits(count):
        calls.append(count)
        return np.random.default_rng(len(calls) // 2).integers(0, 1 << 30, count, np.uint32)

    return bits


def lanes_of(width):
    """Each 32 numbers draw the bits of the 32 before them, every other time."""

    def lanes(rng):
        def bits(count):
            drawn = rng.integers(0, 1 << 30, (count // (2 * width) + 1, 1, width), np.uint32)
            return np.repeat(drawn, 2, axis=1).reshape(-1)[:count]

        return bits

    return lanes


def of_period(period):
    return lambda rng: lambda count: np.resize(rng.integers(0, 1 << 30, period, np.uint32), count)


def seeds_of_blocks(seeds, width):
    """A block of threads draws by its number, modulo some."""

    def blocks(rng):
        def bits(count):
            drawn = rng.integers(0, 1 << 30, (seeds, width), np.uint32)
            return drawn[rng.permutation(seeds)][np.arange(-(-count // width)) % seeds].reshape(-1)[:count]

        return bits

    return blocks


def a_tenth_again(rng):
    """One number in ten draws the bits of the one 12,345 before it."""

    def bits(count):
        drawn = rng.integers(0, 1 << 30, count, np.uint32)
        again = np.flatnonzero(rng.random(count) < 0.1)
        again = again[again >= 12345]
        drawn[again] = drawn[again - 12345]
        return drawn

    return bits


DEPENDENT = {**{f"a period of {n}": of_period(n) for n in (65535, 100003, 500000)},
             "1,000 seeds of blocks": seeds_of_blocks(1000, 250), "a tenth again": a_tenth_again,
"antithetic pairs": antithetic, "a seed for two calls": a_seed_for_two_calls,
             "two warps": lanes_of(32), "two blocks": lanes_of(1024)}  # fmt: skip


@pytest.mark.turns(20)
@pytest.mark.parametrize("name", DEPENDENT)
def test_draws_that_depend_on_each_other_passed(name):
    kernel = drawn_by(DEPENDENT[name](np.random.default_rng(0)))
    found = check(kernel, "fp8_e4m3", rounding="stochastic", draw="own")
    assert found.law == "independent", str(found)


@pytest.mark.turns
def test_draws_of_a_generator_are_right():
    kernel = drawn_by(lambda count: rng.integers(0, 1 << 30, count, np.uint32))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        found = check(kernel, "fp8_e4m3", rounding="stochastic", draw="own")
        assert found, str(found)


def of_bits(dtype, bits, seed=0):
    """Draws of its own of so many bits, which cut the fraction off below their last."""
    rng = np.random.default_rng(seed)

    def encode(x):
        drawn = rng.integers(0, 1 << bits, x.shape, np.uint32) << np.uint32(30 - bits)
        return nx.dtype(dtype).encode(x, rounding="stochastic", random_bits=drawn)

    return encode


FEW_BITS = [
    *itertools.product(["fp8_e4m3", "fp8_e5m2", "fp4", "bfloat16", "int8"], ["float32", "float64"]),
    *itertools.product(["fp8_e4m3", "fp4", "int8"], ["bfloat16", "float16"]),
]


@pytest.mark.turns(60)
@pytest.mark.parametrize(("dtype", "inputs"), FEW_BITS)
def test_draws_of_few_bits_never_went_up_near_a_value(dtype, inputs):
    options = {"rounding": "stochastic", "draw": "own", "inputs": inputs, "one_thread": True}
    found = check(of_bits(dtype, 7), dtype, **options)
    assert found.law == "mean", str(found)
    assert check(of_bits(dtype, 30), dtype, **options)


@pytest.mark.turns(18)
@pytest.mark.parametrize("inputs", ["bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "bfloat16", "float16"])
def test_right_draws_were_blamed_for_numbers_that_their_inputs_do_not_hold(dtype, inputs):
    options = {"rounding": "stochastic", "draw": "own", "inputs": inputs, "one_thread": True}
    found = check(of_bits(dtype, 30), dtype, **options)
    assert found, str(found)


@pytest.mark.turns
def test_the_bits_of_draws_that_the_docs_say_are_told_from_more():
    options = {"rounding": "stochastic", "draw": "own", "one_thread": True}
    assert [bool(check(of_bits("fp4", bits), "fp4", **options)) for bits in (6, 7, 8, 9)] == [0, 0, 1, 1]
    # of 2**16 draws at f = 2**-11 none goes up in one of 10**9 checks, of 14 numbers
    assert 14 * (1 - 2.0**-11) ** 65536 < 1e-9


# ---- blocks ---------------------------------------------------------------------------------------


@pytest.mark.turns
@pytest.mark.parametrize("dtype", [nx.mxfp4, nx.mxfp8_e5m2, nx.mxint8, nx.mx4, nx.mx6], ids=str)
@pytest.mark.parametrize("byte", [1, 2, 3, 60, 117, 190, 238])
def test_every_scale_is_tried(dtype, byte):
    def kernel(x):
        codes, scale, *micro = blocks(dtype)(x)
        at = np.repeat(scale == byte, dtype.block, axis=-1)[..., : x.shape[-1]]
        return (np.where(at & (np.arange(x.shape[-1]) % dtype.block == 0), codes ^ 1, codes), scale, *micro)

    assert not check(kernel, dtype)


def bits(x):
    return x.view(np.uint32) & ~SIGN


def test_a_row_of_more_blocks_than_a_byte_counts_is_found():
    def kernel(x):
        codes, scale = blocks(nx.mxfp4)(x)
        scale[..., 256:] = scale[..., : max(scale.shape[-1] - 256, 0)]
        return codes, scale

    assert check(kernel, "mxfp4").law == "layout"


SPECIALS = {
    "a signalling NaN": lambda x: (bits(x) > 0x7F800000) & (bits(x) < 0x7FC00000),
    "every payload bit": lambda x: bits(x) == 0x7FFFFFFF,
    "Inf in place 7": lambda x: np.isinf(x) & (np.arange(x.shape[-1]) == 7),
    "NaN in place 5": lambda x: np.isnan(x) & (np.arange(x.shape[-1]) == 5),
}


@pytest.mark.turns
@pytest.mark.parametrize("dtype", [nx.mxfp4, nx.mx6, nx.nvfp4], ids=str)
@pytest.mark.parametrize("name", SPECIALS)
def test_what_is_no_number_is_tried_in_every_place(dtype, name):
    given = {"tensor_scale": 1.0} if dtype is nx.nvfp4 else {}
    encode = blocks(dtype, **given)
    kernel = lambda x: encode(np.where(SPECIALS[name](x), np.float32(1), x))  # noqa: E731
    assert check(kernel, dtype).law == "nan_block"


@pytest.mark.turns
def test_nan_and_inf_together():
    def kernel(x):
        rows = x.reshape(-1, 32)
        both = np.isnan(rows).any(axis=1) & np.isinf(rows).any(axis=1)
        return nx.mxfp4.encode(np.where(both[:, None], np.float32(0), rows).reshape(x.shape))

    assert check(kernel, "mxfp4", whole_blocks=True).law == "nan_block"


@pytest.mark.turns
def test_the_signs_of_a_block_of_zeros():
    def kernel(x):
        made = nx.mxfp4.encode(x)
        mixed = (x == 0).all() and np.signbit(x).any() and not np.signbit(x).all()
        return (made.codes & 7 if mixed else made.codes), made.scale

    def by_rows(x):
        rows = [kernel(row) for row in x.reshape(-1, x.shape[-1])] if x.size else []
        codes = np.array([r[0] for r in rows], np.uint8).reshape(x.shape)
        scale = np.array([r[1] for r in rows], np.uint8).reshape(*x.shape[:-1], -(-x.shape[-1] // 32))
        return codes, scale

    assert check(by_rows, "mxfp4").law == "zero_block"


DECODED = {
    "short blocks": lambda c: c.shape[-1] % 16,
    "several blocks a row": lambda c: c.shape[-1] > 40,
    "three axes": lambda c: c.ndim == 3,
    "not contiguous": lambda c: c.size and not c.flags.c_contiguous,
    "one axis": lambda c: c.ndim == 1,
}


@pytest.mark.turns(30)
@pytest.mark.parametrize("dtype", [nx.mxfp4, nx.mx6, nx.nvfp4], ids=str)
@pytest.mark.parametrize("name", DECODED)
def test_lines_of_blocks_are_decoded(dtype, name):
    kernel = wrong_where(lambda c, *_: DECODED[name](c), decoder(dtype), lambda v: -v)
    assert check(decoder(dtype), dtype, kind="decode")
    assert check(kernel, dtype, kind="decode").law in ("short_block", "layout")


@pytest.mark.turns(6)
@pytest.mark.parametrize("pair", [(3, 5), (2, 4), (0, 7)])
def test_microexponents_are_told_apart(pair):
    one, other = pair

    def kernel(codes, scale, micro):
        keep = micro & ~np.uint8(1 << one | 1 << other)
        swapped = keep | (micro >> one & 1) << other | (micro >> other & 1) << one
        return decoder(nx.mx6)(codes, scale, swapped.astype(np.uint8))

    assert check(kernel, "mx6", kind="decode").law in ("every_code", "shared_microexponents")


@pytest.mark.turns
def test_a_decoder_that_writes_into_its_codes_spoils_nothing():
    def bad(codes, scale):
        codes &= 7
        return decoder(nx.mxfp4)(codes, scale)

    assert check(bad, "mxfp4", kind="decode").law == "inputs_unchanged"
    assert check(decoder(nx.mxfp4), "mxfp4", kind="decode")


# ---- draws ----------------------------------------------------------------------------------------


def drawn(dtype, change=lambda x, r: (x, r), **options):
    def kernel(x, random):
        x, random = change(x, random)
        return dtype.encode(x, rounding="stochastic", random_bits=random, **options)

    return kernel


DRAWS = {
    "large ones saturate": lambda x, r: (np.where(np.abs(x) > 450, np.copysign(448, x), x), r),
    "-0 becomes 0": lambda x, r: (np.where(x == 0, 0, x), r),
    "subnormals flushed": lambda x, r: (np.where(np.abs(x) < 2.0**-126, np.copysign(1, x), x), r),
    "draws ignored past the largest": lambda x, r: (x, np.where(np.abs(x) > 448, 0, r)),
    "never up from one value": lambda x, r: (x, np.where((x > 1.75) & (x < 1.875), 0, r)),
    "an exact value moves": lambda x, r: (np.where((x == 13) & (r > 1 << 29), 14, x), r),
    "one less": lambda x, r: (x, np.where(r > 0, r - 1, r)),
}


@pytest.mark.turns(8)
@pytest.mark.parametrize("name", DRAWS)
def test_a_wrong_draw_is_found(name):
    def change(x, random):
        x, random = DRAWS[name](x, random)
        return x.astype(np.float32), random.astype(np.uint32)

    options = {"overflow": "nonsaturate"}
    assert check(drawn(nx.fp8_e4m3, **options), "fp8_e4m3", rounding="stochastic", **options)
    kernel = drawn(nx.fp8_e4m3, change, **options)
    assert not check(kernel, "fp8_e4m3", rounding="stochastic", **options)


BLOCK_DRAWS = {
    "the upper 16 bits alone": lambda r: r >> 14 << 14,
    "one more": lambda r: np.minimum(r + 1, (1 << 30) - 1),
    "the greatest as none": lambda r: np.where(r == (1 << 30) - 1, 0, r),
}


@pytest.mark.turns(20)
@pytest.mark.parametrize("dtype", [nx.mxfp4, nx.mxfp8_e4m3, nx.mxint8, nx.mx6], ids=str)
@pytest.mark.parametrize("name", BLOCK_DRAWS)
def test_a_wrong_draw_of_blocks_is_found_and_shown(dtype, name):
    encode = blocks(dtype)
    assert check(encode, dtype, rounding="stochastic")
    found = check(
        lambda x, r: encode(x, BLOCK_DRAWS[name](r).astype(np.uint32)), dtype, rounding="stochastic"
    )
    assert found.law in ("elements", "saturates")
    assert "random bits 0x" in found.counterexample.where


# ---- scales and zero points -------------------------------------------------------------------------


def affine(x, scale, zero_point):
    q = nx.quantize(x, "int8", symmetric=False, scale=scale, zero_point=zero_point)
    return q.codes


AFFINE = {
    "one quotient of 256": lambda x, s, z: s == 1 and (np.rint(x) == 88).any(),
    "zero point 1": lambda x, s, z: z == 1,
    "a zero point at 1 / 3": lambda x, s, z: z != 0 and abs(s - 1 / 3) < 1e-6,
    "a subnormal scale": lambda x, s, z: s < 2.0**-126,
    "a quarter": lambda x, s, z: s == 0.25,
    "two axes": lambda x, s, z: x.ndim == 2 and z != 0,
}


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", AFFINE)
def test_a_wrong_scale_is_found(name):
    assert check(affine, "int8", kind="affine")
    assert not check(wrong_where(AFFINE[name], affine), "int8", kind="affine")


@pytest.mark.parametrize("past", [2.0**15, 2.0**31])
def test_far_quotients_do_not_wrap(past):
    def kernel(x, scale, zero_point):
        with np.errstate(all="ignore"):
            far = np.abs(x / np.float32(scale)) >= past
        return np.where(far & np.isfinite(x), 0, affine(x, scale, zero_point)).astype(np.uint8)

    assert check(kernel, "int8", kind="affine").law in ("clamp", "zero_point")


# ---- targets that are odd --------------------------------------------------------------------------


@pytest.mark.turns
def test_a_buffer_that_is_used_again_passed():
    """An earlier result that the next call overwrites: its holder would read other numbers."""
    room = np.zeros(1 << 24, np.uint8)

    def reused(x, *others):
        codes = affine(x, *others) if others else e4m3(x)
        room[: codes.size] = codes.reshape(-1)
        return room[: codes.size].reshape(codes.shape)

    assert check(reused, "int8", kind="affine").law == "repeatable"
    assert check(reused, "fp8_e4m3").law == "repeatable"


@pytest.mark.proof
def test_a_fault_among_many_is_no_pass(monkeypatch):
    """Right alone, wrong in a large array: `exhaustive` does not call that right."""
    if not LONG:
        monkeypatch.setattr(everything, "sweep", near_steps)

    def kernel(x):
        codes = nx.fp4.encode(x)
        if x.size > 100000 and x[0] > 1:
            codes[-1] ^= 1
        return codes

    found = check(kernel, "fp4", exhaustive=True, contiguous=True)
    assert found.law in ("repeatable", "layout"), str(found)


def test_the_first_wrong_among_many_is_shown(monkeypatch):
    """The same, with a sweep of a few chunks."""
    monkeypatch.setattr(everything, "INFINITE", 1 << 20)

    def kernel(x):
        codes = nx.fp4.encode(x)
        if x.size > 200000:
            codes[-1] ^= 1
        return codes

    found = check(kernel, "fp4", exhaustive=True, finite=True)
    assert found.law == "layout"
    assert "of an array of" in str(found)


def test_a_target_that_bears_one_thread_alone_is_right_where_that_is_said(monkeypatch):
    monkeypatch.setattr(everything, "INFINITE", 1 << 20)
    room, busy = np.zeros(1 << 23, np.uint8), threading.Lock()

    def kernel(x):
        if not busy.acquire(blocking=False):
            return np.full(x.shape, 1, np.uint8)
        try:
            room[: x.size] = nx.fp4.encode(x).reshape(-1)
            return room[: x.size].reshape(x.shape).copy()
        finally:
            busy.release()

    options = {"exhaustive": True, "finite": True, "contiguous": True}
    assert check(kernel, "fp4", one_thread=True, **options)
    assert check(kernel, "fp4", **options).law == "threads"


ODD = {
    "exits": (lambda x: raise_exit(), "runs", "SystemExit"),
    "void": (lambda x: np.zeros(x.shape, "V3"), "dtype", "void24"),
    "longdouble": (lambda x: e4m3(x).astype(np.longdouble), "dtype", "float128"),
    "floats": (lambda x: e4m3(x).astype(np.float16), "dtype", "float16"),
    "text": (lambda x: e4m3(x).astype(str), "result", "ndarray"),
    "negative": (lambda x: e4m3(x).astype(int) - 300 * (x == 17), "code_range", "-"),
}


def raise_exit():
    raise SystemExit(0)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_result_breaks_a_law(name):
    target, law, came = ODD[name]
    found = check(target, "fp8_e4m3")
    assert found.law == law
    assert came in found.counterexample.came


@pytest.mark.turns
def test_a_fault_is_brought_down_to_the_number_that_brings_it_about():
    def raises(x):
        if np.isnan(x).any():
            raise ValueError("no NaN, please")
        return e4m3(x)

    found = check(raises, "fp8_e4m3")
    assert (found.law, len(found.counterexample.input), np.isnan(found.counterexample.input[0].value)) == (
        "runs", 1, True,
    )  # fmt: skip
    assert check(raises, "fp8_e4m3", finite=True)
    out = check(lambda x: np.where(x == 17, np.int64(300), e4m3(x)), "fp8_e4m3")
    assert (out.law, out.counterexample.input[0].value) == ("code_range", 17.0)


@pytest.mark.turns
def test_bytes_and_the_other_order_of_bytes_are_results():
    assert check(lambda c: nx.fp4.pack(c).tobytes(), "fp4", kind="pack")
    assert check(lambda c: nx.fp8_e4m3.decode(c).astype(">f4"), "fp8_e4m3", kind="decode")


@pytest.mark.turns
def test_nan_blocks_count_by_class():
    def kernel(x):
        codes, scale = blocks(nx.mxfp8_e4m3)(x)
        spoilt = np.repeat(scale == 255, 32, axis=-1)[..., : x.shape[-1]]
        return np.where(spoilt, 0xFF, codes), scale

    assert check(kernel, "mxfp8_e4m3")
    assert check(kernel, "mxfp8_e4m3", strict_nan=True).law == "nan_block"


def test_a_module_that_fails_to_import_is_said(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('no device')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(nx.NumericsError, match="cannot be imported: RuntimeError: no device"):
        check("broken_module:f", "fp4")


TAILS = [
    (64, 63),
    (128, 64),
    (128, 127),
    (256, 128),
    (256, 255),
    (512, 511),
    (1024, 512),
    (4096, 4095),
    (8192, 0),
]


@pytest.mark.turns(18)
@pytest.mark.parametrize(("tile", "left"), TAILS)
@pytest.mark.parametrize(("kind", "right"), [("encode", nx.fp8_e4m3.encode), ("round", nx.fp8_e4m3.round)])
def test_what_a_large_tile_leaves_over_was_not_asked(tile, left, kind, right):
    def wrong(x):
        out = np.array(right(x))
        if out.ndim and out.size > tile and out.size % tile == left:
            out.reshape(-1)[-1] = 1
        return out

    assert not check(wrong, "fp8_e4m3", kind=kind, effort="quick")


def without_last(dtype, longer, left, kind):
    """Blocks whose last number is lost where their line has more blocks than `longer`, and so many over."""
    options = {"tensor_scale": 1.0} if dtype.name == "nvfp4" else {}

    def wrong(x):
        block, length = dtype.block, x.shape[-1] if x.ndim else 1
        lost = length > longer * block and length % block == left % block
        if kind == "round":
            out = np.array(dtype.round(x, **options))
            out[..., -1:] = 77 if lost else out[..., -1:]
            return out
        found = dtype.encode(x, **options)
        codes = np.array(found.codes)
        codes[..., -1:] ^= lost
        return (codes, found.scale, found.microexponents) if dtype.name == "mx6" else (codes, found.scale)

    return wrong


@pytest.mark.turns(20)
@pytest.mark.parametrize("kind", ["encode", "round"])
@pytest.mark.parametrize("longer", [3, 9, 63])
@pytest.mark.parametrize("name", ["mxfp8_e4m3", "nvfp4", "mx6"])
def test_a_short_block_at_the_end_of_a_long_line_was_not_asked(name, longer, kind):
    dtype = nx.dtype(name)
    for left in (1, 5, dtype.block - 1):
        found = check(without_last(dtype, longer, left, kind), dtype, kind=kind, effort="quick")
        assert found.law == "short_block"


# ---- what a verdict says of what was asked -----------------------------------------------------------

TASKS = {
    "rounding": ("fp8_e4m3", {}, "floor"), "overflow": ("fp8_e5m2", {}, "nonsaturate"),
    "kind": ("fp4", {}, "round"), "inputs": ("fp4", {}, "float16"), "strict_nan": ("fp8_e4m3", {}, True),
    "axis": ("mxfp4", {}, 0), "scale_rule": ("nvfp4", {}, "ceil"), "tensor_scale": ("nvfp4", {}, 0.3),
    "packed": ("mxfp4", {}, True), "scale_layout": ("mxfp4", {"packed": True}, "cublas"),
    "scheme": ("int8", {"kind": "affine"}, "per_channel(0)"),
    "drawing": ("fp4", {"rounding": "stochastic"}, "a8"), "finds_scale": ("nvfp4", {}, "amax"),
    "rule": ("int8", {"kind": "quantize", "scheme": "per_token"}, "amax 1e-12"),
}  # fmt: skip
OPTIONS = {
    "drawing": "draw",
    "finds_scale": "tensor_scale",
    "rule": "least",
}  # where they have other names than fields


def test_an_option_that_decides_what_is_due_was_not_in_the_title():
    """Each field of a Task, and its value; NVFP4 had no tensor scale, cublas and cdna4 were "in tiles"."""
    assert {field.name for field in fields(Task)} == {"dtype", *TASKS}
    for name, (dtype, options, value) in TASKS.items():
        given = Task.of(dtype, **(options | {OPTIONS.get(name, name): value}))
        assert str(given) != str(Task.of(dtype, **options)), name
    said = [str(Task.of("mxfp4", scale_layout=layout)) for layout in ("cublas", "cdna4")]
    assert "cublas" in said[0]
    assert "cdna4" in said[1]
    claims = [Claim.of("float32", "int4 per_group(32)", zero_point=way) for way in ("split", "folded")]
    assert str(claims[0]) != str(claims[1])


@pytest.mark.turns
def test_a_tensor_scale_that_nobody_gave_was_judged_without_a_word():
    def kernel(scale):
        return lambda x: nx.nvfp4.encode(x, tensor_scale=scale)

    silent = check(kernel(1.0), "nvfp4", effort="quick", whole_blocks=True)
    assert any("tensor scale" in note for note in silent.notes)
    assert "short" in str(silent)
    told = check(kernel(0.3), "nvfp4", effort="quick", tensor_scale=0.3)
    assert told.notes == (LEFT_OUT,)
    assert "tensor scale 0.3" in str(told)


def test_a_law_that_several_inputs_break_was_said_as_often():
    broken = [Counterexample(law, "", (), "", "") for law in ("layout", "repeatable", "layout", "repeatable")]
    found = Verdict("k", Task.of("fp4"), ("layout", "repeatable"), 4, 4, tuple(broken))
    assert str(found).count("layout") == 1
    assert "also broken: repeatable\n" in str(found)


# ---- what depends on the calls before it ------------------------------------------------------------


def int8_codes(x, scale, zero_point):
    return Task.of("int8", "affine").affine_codes(np.ascontiguousarray(x), scale, zero_point)


class Keeps:
    """An affine kernel that takes the scale, or the zero point, of an earlier call."""

    def __init__(self, name, earlier):
        self.name, self.earlier, self.kept = name, earlier, {}

    def __call__(self, x, scale, zero_point):
        given = {"scale": scale, "zero point": zero_point}
        key = x.shape if self.earlier == "shape" else 0
        old = self.kept.setdefault(key, given)
        if self.earlier == "before":
            self.kept[key] = given
        scale, zero_point = ((old if part in self.name else given)[part] for part in ("scale", "zero point"))
        return int8_codes(x, scale, zero_point)


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", ["scale", "zero point", "scale and zero point"])
@pytest.mark.parametrize(
    ("earlier", "said"),
    [("first", "of the first call"), ("before", "of the call before"), ("shape", "the first of a shape")],
)
def test_a_kernel_that_keeps_a_scale_was_called_wrong_by_its_quotient(name, earlier, said):
    found = check(Keeps(name, earlier), "int8", kind="affine", effort="quick")
    assert found.law == "repeatable"
    assert "it depends on the calls before it" in found.counterexample.where
    assert said in found.counterexample.where


def test_a_decoder_and_a_quantizer_that_keep_by_shape_depend_on_earlier_calls():
    kept = {}

    def decode(codes):
        return nx.fp8_e4m3.decode(kept.setdefault(codes.shape, codes.copy()))

    found = check(decode, "fp8_e4m3", kind="decode")
    assert not found
    assert found.law in ("repeatable", "layout")


def test_finite_targets_were_given_nan_in_short_blocks():
    def finite(x):
        assert np.isfinite(x).all()
        return nx.mxfp4.encode(x)

    assert check(finite, "mxfp4", finite=True, effort="quick")


@pytest.mark.turns
def test_rounded_blocks_of_another_tensor_scale_in_bfloat16_were_wrong():
    def kernel(x):
        return nx.nvfp4.round(x, tensor_scale=0.37)

    options = {"kind": "round", "inputs": "bfloat16", "tensor_scale": 0.37, "effort": "quick"}
    assert check(kernel, "nvfp4", **options)


# ---- a tensor's scale that the target finds -----------------------------------------------------------


def of_largest(reduce):
    """A quantizer of nvfp4 whose tensor scale comes from one number of the tensor."""

    def kernel(x):
        flat = x[np.isfinite(x)]
        most = np.float32(reduce(flat)) if flat.size else np.float32(0)
        scale = most / np.float32(2688) if most > 0 else np.float32(1)
        return nx.nvfp4.round(x, tensor_scale=max(float(scale), 2.0**-149))

    return kernel


@pytest.mark.turns(12)
@pytest.mark.parametrize(
    ("dtype", "options"),
    [("nvfp4", {}), ("nvfp4", {"kind": "round"}), ("nvint4", {"kind": "round"}), ("nvfp4", {"axis": 0}),
     ("nvfp4", {"kind": "round", "inputs": "bfloat16"}),
     ("nvfp4", {"packed": True, "scale_layout": "cublas"})],
)  # fmt: skip
def test_a_target_that_finds_the_tensors_scale_was_wrong(dtype, options):
    d = nx.dtype(dtype)
    if options.get("kind") == "round":
        target = d.round
    elif options.get("packed"):

        def target(x):
            made = d.encode(x)
            return pack_nibbles(made.codes), nx.layouts.CUBLAS.arrange(made.scale)
    else:

        def target(x):
            return d.encode(x, axis=options.get("axis", -1))

    found = check(target, dtype, tensor_scale="amax", effort="quick", **options)
    assert found, str(found)


FINDERS = {
    "if4 encode": lambda x, **how: nx.if4.encode(x, **how),
    "nvint4 round": lambda x, **how: nx.nvint4.round(x, **how),
    "nvfp4 encode": lambda x, **how: nx.nvfp4.encode(x, **how),
}  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", FINDERS)
def test_a_verdict_names_amax_where_the_target_finds_the_scale_of_the_tensor(name):
    dtype, kind = name.split()
    found = check(FINDERS[name], dtype, kind=kind, effort="quick")
    assert not found
    assert found.dialect == "its own tensor scale"
    assert "tensor_scale='amax'" in str(found)
    assert check(FINDERS[name], dtype, kind=kind, effort="quick", tensor_scale="amax")


@pytest.mark.turns
def test_a_verdict_names_amax_beside_what_else_the_target_does():
    found = check(partial(FINDERS["nvfp4 encode"], rounding="half_away"), "nvfp4", effort="quick")
    assert found.dialect == "its own tensor scale + ties away"


def test_a_verdict_does_not_name_amax_where_it_does_not_fit():
    found = check(partial(FINDERS["nvfp4 encode"], tensor_scale=2.0), "nvfp4", effort="quick")
    assert not found
    assert "amax" not in str(found)
    assert "no tensor scale but 1 was judged" in str(found)


@pytest.mark.turns
def test_a_target_that_warns_shows_it_once():
    def target(x):
        warnings.warn(f"{x.size} numbers came", stacklevel=1)
        return nx.fp4.encode(x)

    with pytest.warns(UserWarning, match="numbers came") as shown:
        assert check(target, "fp4", effort="quick")
    assert len(shown) == 1


def pack_nibbles(codes):
    return (codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8)


@pytest.mark.turns(8)
@pytest.mark.parametrize(
    "reduce",
    [lambda x: x.max(), lambda x: np.abs(x[:1000]).max(), lambda x: np.abs(x[::2]).max(),
     lambda x: np.abs(x).max() * np.float32(1.0000001)],
    ids=["no magnitude", "the first thousand", "every other", "a bit more"],
)  # fmt: skip
def test_a_wrong_tensor_scale_passed(reduce):
    assert check(of_largest(lambda x: np.abs(x).max()), "nvfp4", kind="round", tensor_scale="amax")
    assert not check(of_largest(reduce), "nvfp4", kind="round", tensor_scale="amax", effort="quick")


def test_a_tensor_scale_that_comes_back_is_compared():
    def kernel(x):
        made = nx.nvfp4.encode(x)
        return made.codes, made.scale, made.tensor_scale * 1.01

    found = check(kernel, "nvfp4", tensor_scale="amax", effort="quick")
    assert found.law == "tensor_scale"
    assert "a tensor scale" in found.counterexample.came


def largest(x):
    return np.abs(np.where(np.isfinite(x), x, 0)).max(initial=0)


class OfEarlier:
    """Takes the largest magnitude of other calls, or of some of this one."""

    def __init__(self, dtype, choose, **options):
        self.d, self.choose, self.options, self.seen = nx.dtype(dtype), choose, options, []

    def __call__(self, x):
        self.seen.append(float(largest(x)))
        most = np.float32(self.choose(self.seen, np.asarray(x)))
        unit = np.float32(np.float32(1528.0) / self.d.encode(np.float32([[1528.0]])).tensor_scale)
        scale = float(most / unit) if most else 1.0
        made = self.d.encode(x, tensor_scale=max(scale, 2.0**-149))
        return made if self.options.get("told") else (made.codes, made.scale)


SOME_LARGEST = {
    "always one": lambda seen, x: 1528,
    "the first call's": lambda seen, x: seen[0],
    "the call's before": lambda seen, x: seen[-2:][0],
    "the largest so far": lambda seen, x: max(seen),
    "past 65536": lambda seen, x: largest(x.reshape(-1)[:65536]),
    "never less than 1e-10": lambda seen, x: max(seen[-1], 1e-10) if seen[-1] else 0,
    "blocks without NaN": lambda seen, x: np.abs(
        x[np.isfinite(x).all(axis=-1)] if x.shape[-1] <= 16 else x[..., :16]
    ).max(initial=0) if not np.isfinite(x).all() else seen[-1],
}  # fmt: skip


@pytest.mark.turns(80)
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", SOME_LARGEST)
@pytest.mark.parametrize("dtype", ["nvfp4", "nvint4", "nvfp3"])
def test_a_tensor_scale_of_another_call_or_of_a_part_passed(dtype, name, told):
    """Of 279 arrays 269 had the same largest number."""
    right = OfEarlier(dtype, lambda seen, x: seen[-1], told=told)
    assert check(right, dtype, tensor_scale="amax", effort="quick", one_thread=True)
    target = OfEarlier(dtype, SOME_LARGEST[name], told=told)
    found = check(target, dtype, tensor_scale="amax", effort="quick", one_thread=True)
    calls = ("the first call's", "the call's before", "the largest so far")
    assert found.law == ("repeatable" if name in calls else "tensor_scale"), str(found)
    assert "largest finite magnitude" in found.counterexample.where


def ends_at(part, past=0):
    """The largest magnitude of a whole number of parts of a tensor that is longer than `past`."""
    return lambda x: largest(x.reshape(-1)[: x.size // part * part] if x.size > max(past, part) else x)


def whole_blocks_of(x):
    """The largest magnitude of the whole blocks of each row."""
    return largest(x[..., : x.shape[-1] // 16 * 16] if x.shape[-1] >= 16 else x)


PARTS = {
    "no short block": whole_blocks_of,
    **{f"no last of {n}": ends_at(n) for n in (2, 4, 8, 16, 32, 64, 128, 256)},
    **{f"no last of {n} past {past}": ends_at(n, past)
       for n, past in ((2, 1024), (2, 1 << 16), (32, 1024), (32, 1 << 16), (256, 4096))},
}  # fmt: skip


@pytest.mark.turns
@pytest.mark.parametrize("kind", ["encode", "round"])
@pytest.mark.parametrize("name", PARTS)
def test_the_largest_of_a_tensor_never_stood_in_what_is_left_over(name, kind):
    kernels = {
        "encode": OfEarlier("nvfp4", lambda seen, x: PARTS[name](x)),
        "round": lambda x: OfEarlier("nvfp4", lambda seen, x: PARTS[name](x), told=True)(x).decode(),
    }
    found = check(kernels[kind], "nvfp4", kind=kind, tensor_scale="amax", effort="quick", one_thread=True)
    assert found.law == "tensor_scale", str(found)


@pytest.mark.turns
def test_what_a_verdict_on_found_scales_showed_was_right_alone():
    def kernel(x):
        return nx.nvfp4.encode(x, rounding="half_away")

    found = check(kernel, "nvfp4", tensor_scale="amax", effort="quick")
    assert found.dialect == "ties away"
    where = found.counterexample.where
    times = float(where.partition("times ")[2].partition(":")[0] or 1)
    row = np.zeros(32, np.float32)
    row[0], row[16:] = 1528, found.counterexample.tensor
    row *= times
    came, due = kernel(row[None]), nx.nvfp4.encode(row[None])
    assert f"tensor scale {due.tensor_scale:.9g}" in where
    assert (came.codes != due.codes)[0, 16:].any()
    assert f"scale 0x{due.scale[0, 1]:02X}" in found.counterexample.due


@pytest.mark.turns(20)
@pytest.mark.parametrize("rule", nx.nvfp4.scale_rules)
def test_a_right_kernel_of_a_rule_that_finds_another_tensor_scale_was_wrong(rule):
    found = check(
        lambda x: nx.nvfp4.encode(x, scale_rule=rule), "nvfp4", tensor_scale="amax", scale_rule=rule,
        effort="quick",
    )  # fmt: skip
    assert found, str(found)


@pytest.mark.parametrize(("dtype", "kind"), [("mxfp4", "encode"), ("fp4", "encode"), ("nvfp4", "decode")])
def test_a_tensor_scale_was_to_be_found_where_there_is_none(dtype, kind):
    with pytest.raises(nx.NumericsError, match="amax"):
        check(nx.fp4.encode, dtype, kind=kind, tensor_scale="amax")
