"""The judge is judged: by ml_dtypes, gfloat, NumPy's float32 and by itself in two ways."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import gfloat
import gfloat.formats as foreign
import ml_dtypes
import numpy as np
import pytest
from gfloat import RoundMode

from numerics.backends.reference import bits, exact
from numerics.backends.reference.binary32 import QuantParams, to_float32
from numerics.backends.reference.blocks import (
    decode_block,
    decode_micro_block,
    decode_scaled_block,
    encode_block,
    encode_micro_block,
    encode_scaled_block,
    tensor_scale_of,
)
from numerics.backends.reference.breakpoints import (
    breakpoints,
    micro_breakpoints,
    mx_element_breakpoints,
    scale_breakpoints,
)
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.formats import (
    Block,
    Element,
    MXBlock,
    dtype,
    dtypes,
    float_format,
    mx6,
    mx9,
    mxfp4,
    mxint8,
    nvfp4,
)
from numerics.formats.rounding import DETERMINISTIC, MX_RULES, BlockOptions

REFERENCE = ReferenceExecutor()
pytestmark = pytest.mark.usefixtures("exact_judge")

OWN = [
    float_format(5, 3, signed=False, name="reference_e5m3u"),
    float_format(4, 3, signed=False, specials="none", name="reference_e4m3u"),
    float_format(3, 2, subnormals=False, specials="fn", name="reference_e3m2_no_subnormals"),
    float_format(4, 0, specials="fn", name="reference_e4m0"),
    float_format(5, 0, specials="none", signed=False, has_zero=False, name="reference_e5_no_zero"),
]
ELEMENTS = [d for d in dtypes() if isinstance(d, Element) and d not in OWN] + OWN
SMALL = [d for d in ELEMENTS if d.bits <= 8]
WIDE = [d for d in ELEMENTS if d.bits > 8]
MX = [d for d in dtypes() if isinstance(d, MXBlock)]


def as_float(magnitude_bits: int, negative: bool = False) -> float:
    """The float32 with these bits."""
    return float(np.uint32(magnitude_bits | negative << 31).view(np.float32))


def edges() -> np.ndarray:
    """Every sign, exponent and 7 leading mantissa bits, with tails at, below and above the ties."""
    tails = [0, 1, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x3000, 0x8000, 0xFFFF]
    heads = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    return (heads[:, None] | np.array(tails, np.uint32)).ravel().view(np.float32)


def around(steps: list[tuple[int, int]], last: int) -> Iterator[tuple[int, int]]:
    """(bits, code) on both sides of every step and at it."""
    for i, (first, code) in enumerate(steps):
        if i:
            yield first - 1, steps[i - 1][1]
        yield first, code
        following = steps[i + 1][0] if i + 1 < len(steps) else last + 1
        if first + 1 < following:
            yield first + 1, code


# ---------------------------------------------------------------------------------- foreign judges

ML_DTYPES: dict[str, Any] = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e3m4": ml_dtypes.float8_e3m4,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}


def ml_codes(x: np.ndarray, name: str) -> np.ndarray:
    """x cast by ml_dtypes (float16: by NumPy), as codes."""
    with np.errstate(all="ignore"):
        cast = x.astype(ML_DTYPES[name])
    return cast.view(f"u{cast.itemsize}")


@pytest.mark.turns
@pytest.mark.parametrize("name", ML_DTYPES)
def test_encode_equals_ml_dtypes(name: str) -> None:
    """Half to even, but for E8M0, whose ties ml_dtypes takes up; gfloat judges its even codes.

    docs/formats.md §2 decides two disputes: NaN into fp6 and fp4, and what is subnormal in float32 for E8M0.
    """
    d, x = dtype(name), edges()
    codes = REFERENCE.encode(x, d, "half_away" if name == "e8m0" else "half_even", d.overflows[-1], None)
    theirs = ml_codes(x, name)
    disputed = np.isnan(x) if d.specials == "none" or name == "float16" else np.zeros(x.shape, bool)
    if name == "e8m0":  # ml_dtypes takes every subnormal above 2**-127 up
        disputed = (x > 2.0**-127) & (x < 1.5 * 2.0**-127)
        assert (codes[disputed] == 0).all()
    assert (codes == theirs)[~disputed].all()
    if d.specials == "none":
        assert (codes[np.isnan(x)] == exact.largest_code(d)).all()


@pytest.mark.parametrize("name", ML_DTYPES)
def test_decode_equals_ml_dtypes(name: str) -> None:
    """Every code; NaN by class."""
    d = dtype(name)
    codes = np.arange(1 << d.bits, dtype=d.code_dtype)
    ours, theirs = REFERENCE.decode(codes, d), codes.view(ML_DTYPES[name]).astype(np.float32)
    numbers = ~np.isnan(theirs)
    assert (np.isnan(ours) == ~numbers).all()
    assert (ours.view(np.uint32) == theirs.view(np.uint32))[numbers].all()


GFLOAT = {
    "fp8_e4m3": foreign.format_info_ocp_e4m3,
    "fp8_e5m2": foreign.format_info_ocp_e5m2,
    "fp6_e3m2": foreign.format_info_ocp_e3m2,
    "fp6_e2m3": foreign.format_info_ocp_e2m3,
    "fp4": foreign.format_info_ocp_e2m1,
    "e8m0": foreign.format_info_ocp_e8m0,
    "int8": foreign.format_info_ocp_int8,
    "float16": foreign.format_info_binary16,
    "bfloat16": foreign.format_info_bfloat16,
}
GFLOAT_MODES = {
    "half_even": RoundMode.TiesToEven,
    "half_away": RoundMode.TiesToAway,
    "toward_zero": RoundMode.TowardZero,
    "floor": RoundMode.TowardNegative,
    "ceil": RoundMode.TowardPositive,
    "stochastic": RoundMode.StochasticFastest,
}


@pytest.mark.turns(54)
@pytest.mark.parametrize("mode", GFLOAT_MODES)
@pytest.mark.parametrize("name", GFLOAT)
def test_encode_equals_gfloat(name: str, mode: str) -> None:
    """Five modes and stochastic with given bits; E8M0 within its range: gfloat knows no rest."""
    d, rng = dtype(name), np.random.default_rng(0)
    steps_mode = "half_even" if mode == "stochastic" else mode
    unit = 64 if name == "int8" else 1  # gfloat's int8 is the one of MX
    for overflow, negative in product(d.overflows, (False, True)):
        places = list(around(breakpoints(d, steps_mode, overflow, negative), 0x7FFFFFFF))
        for place, _ in [places[i] for i in rng.permutation(len(places))[:300]]:
            x, random = as_float(place, negative), int(rng.integers(1 << 30))
            if x != x or (name == "e8m0" and x < 2.0**-127):
                continue
            options = {"srbits": random, "srnumbits": 30} if mode == "stochastic" else {}
            saturate = overflow == "saturate"
            theirs = gfloat.round_float(GFLOAT[name], x / unit, GFLOAT_MODES[mode], saturate, **options)
            code = exact.encode(x, d, mode, overflow, random)
            ours = float(exact.value(code, d)) / unit
            assert (ours == theirs and np.signbit(ours) == np.signbit(theirs)) or (ours != ours != theirs)


def test_to_float32_equals_numpy() -> None:
    """Doubles to float32, ties, subnormals and overflow."""
    x = edges()[::29]
    x = x[np.isfinite(x)].astype(np.float64)
    x = np.concatenate([x, x * (1 + 2.0**-24), x * (1 + 2.0**-24 + 2.0**-50), x * 2.0**-9])
    with np.errstate(all="ignore"):
        theirs = x.astype(np.float32)
    ours = np.array([float(to_float32(exact.exactly(v))) for v in x.tolist()], np.float32)
    assert (ours.view(np.uint32) == theirs.view(np.uint32)).all()


# --------------------------------------------------------------------------------- encoder's steps


@pytest.mark.turns
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("d", SMALL, ids=str)
def test_breakpoints_of_small_formats(d: Element, rounding: str) -> None:
    """The steps say what the encoder does, around every one of them."""
    for overflow, negative in product(d.overflows, (False, True)):
        steps = breakpoints(d, rounding, overflow, negative)
        assert steps[0][0] == 0
        for place, code in around(steps, 0x7FFFFFFF):
            assert exact.encode(as_float(place, negative), d, rounding, overflow) == code, hex(place)


@pytest.mark.turns(54)
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("d", WIDE, ids=str)
def test_breakpoints_of_wide_formats(d: Element, rounding: str) -> None:
    """The same for 16 bits, at 600 places and both ends."""
    negative = rounding in ("half_down", "ceil", "to_odd", "half_even")
    for overflow in d.overflows:
        places = list(around(breakpoints(d, rounding, overflow, negative), 0x7FFFFFFF))
        rng = np.random.default_rng(1)
        chosen = [places[i] for i in rng.permutation(len(places))[:600]] + places[:9] + places[-9:]
        for place, code in chosen:
            assert exact.encode(as_float(place, negative), d, rounding, overflow) == code, hex(place)


@pytest.mark.parametrize("d", ELEMENTS, ids=str)
def test_every_code_encodes_to_itself(d: Element) -> None:
    """decode, then encode: the same code, where it is one that is written."""
    codes = range(1 << d.bits) if d.bits <= 8 else range(0, 1 << d.bits, 97)
    for code in codes:
        v = exact.value(code, d)
        back = exact.encode(v, d, "to_odd", d.overflows[-1])
        unwritten = not d.subnormals if d.kind == "float" else False
        assert back == code or v != v or (v == 0 and unwritten)


@pytest.mark.parametrize(
    ("x", "name", "rounding", "overflow", "code"),
    [
        (464.0, "fp8_e4m3", "half_even", "nonsaturate", 0x7E),
        (464.0, "fp8_e4m3", "half_away", "nonsaturate", 0x7F),
        (-464.0, "fp8_e4m3", "half_up", "nonsaturate", 0xFE),
        (1e9, "fp8_e4m3", "toward_zero", "nonsaturate", 0x7E),
        (1e9, "fp8_e4m3", "to_odd", "nonsaturate", 0x7E),
        (1e9, "fp8_e5m2", "floor", "nonsaturate", 0x7B),
        (-1e9, "fp8_e5m2", "floor", "nonsaturate", 0xFC),
        (math.inf, "fp8_e5m2", "floor", "nonsaturate", 0x7C),
        (math.inf, "fp8_e5m2", "floor", "saturate", 0x7B),
        (-0.0, "fp8_e4m3", "half_even", "saturate", 0x80),
        (-1e-9, "fp8_e4m3fnuz", "half_even", "saturate", 0x00),
        (-math.inf, "fp8_e4m3fnuz", "half_even", "nonsaturate", 0x80),
        (math.nan, "fp4", "half_even", "saturate", 0x7),
        (-129.0, "int8", "half_even", "saturate", 0x80),
        (math.nan, "int8", "half_even", "saturate", 0),
        (-3.0, "uint4", "half_even", "saturate", 0),
        (0.0, "e8m0", "half_even", "saturate", 0),
        (0.0, "e8m0", "half_even", "nonsaturate", 0xFF),
        (1.5 * 2.0**127, "e8m0", "half_even", "nonsaturate", 0xFE),
        (1 + 2.0**-8 + 2.0**-40, "bfloat16", "half_even", "nonsaturate", 0x3F81),
    ],
)
def test_sentences_of_the_specification(x: float, name: str, rounding: str, overflow: str, code: int) -> None:
    """docs/formats.md §2, one sentence a row."""
    assert exact.encode(x, dtype(name), rounding, overflow) == code


def test_unsigned_and_without_subnormals() -> None:
    """What lies below an unsigned format, and between zero and the smallest normal number."""
    unsigned, _, normal = OWN[:3]
    assert exact.encode(-1e-9, unsigned, "half_even", "nonsaturate") == 0
    assert exact.encode(-1e-9, unsigned, "floor", "nonsaturate") == exact.nan_code(unsigned)
    assert exact.encode(-math.inf, unsigned, "half_even", "saturate") == 0
    tie = Fraction(1, 8)  # half of the smallest normal, 2**-2
    cases = {"half_even": 0, "half_away": 4, "half_down": 0, "to_odd": 4, "toward_zero": 0, "ceil": 4}
    assert {mode: exact.encode(tie, normal, mode) for mode in cases} == cases
    assert exact.encode(tie, normal, "stochastic", random=1 << 29) == 4
    assert exact.encode(tie, normal, "stochastic", random=(1 << 29) - 1) == 0
    assert exact.value(0b100011, normal) == 0


# ------------------------------------------------------------------------------------------ blocks


@pytest.mark.turns(18)
@pytest.mark.parametrize("rule", MX_RULES)
@pytest.mark.parametrize("d", MX, ids=str)
def test_scale_breakpoints(d: Block, rule: str) -> None:
    """The byte of a scale, around every maximum at which it changes."""
    for place, byte in around(scale_breakpoints(d, rule), 0x7FFFFFFF):
        assert encode_block([as_float(place)] + [0.0] * (d.block - 1), d, rule)[0] == byte, hex(place)


@pytest.mark.turns
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("d", MX, ids=str)
def test_mx_element_breakpoints(d: Block, rounding: str) -> None:
    """The codes of elements beside a maximum of 1, and of the smallest and the largest scale."""
    for maximum, negative in product((1.0, 2.0**-130, 2.0**127), (False, True)):
        byte, _ = encode_block([maximum], d)
        steps = mx_element_breakpoints(d, byte, rounding, negative)
        for place, code in around(steps, 0x7F7FFFFF):
            x = as_float(place, negative)
            if abs(x) <= maximum:
                assert encode_block([maximum, x], d, rounding=rounding) == (
                    byte,
                    [*_first(d, byte, rounding, maximum), code],
                )


def _first(d: Block, byte: int, rounding: str, maximum: float) -> list[int]:
    return encode_block([maximum], d, rounding=rounding)[1]


@pytest.mark.turns
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("d", [mx6, mx9], ids=str)
def test_micro_breakpoints(d: Block, rounding: str) -> None:
    """Elements in the same pair as the largest number (no shift) and in another one (shift 1)."""
    for field, shift, negative in product((1, 2, 9, 127, 254), (0, 1), (False, True)):
        top, end = float(2.0 ** (field - 127)), ((field + 1 - shift) << 23) - 1
        for place, code in around(micro_breakpoints(d.mantissa, field, shift, rounding, negative), end):
            xs = [top] + [0.0] * 15
            xs[1 + shift] = as_float(place, negative)
            exponent, micro, codes = encode_micro_block(xs, d, rounding)
            assert (exponent, micro, codes[1 + shift]) == (field, 0xFE, code), hex(place)


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4"])
def test_mx_blocks_equal_ml_dtypes(name: str) -> None:
    """Rule `floor`: frexp finds the scale, ml_dtypes the elements, NumPy the products."""
    rng = np.random.default_rng(2)
    d, theirs = dtype(f"mx{name}"), ML_DTYPES[name]
    x = rng.standard_normal((64, 32)) * 2.0 ** rng.integers(-150, 126, (64, 1))
    x = x.astype(np.float32).astype(np.float64)
    codes, scale, _ = REFERENCE.encode_blocks(x.astype(np.float32), d, BlockOptions())
    emax = {"fp8_e4m3": 8, "fp8_e5m2": 15, "fp6_e3m2": 4, "fp6_e2m3": 2, "fp4": 2}[name]
    exponents = np.clip(np.frexp(abs(x).max(axis=1))[1] - 1 - emax, -127, 127)
    limit = float(ml_dtypes.finfo(theirs).max)
    cast = np.clip(np.ldexp(x, -exponents[:, None]), -limit, limit).astype(theirs)
    values = np.ldexp(cast.astype(np.float64), exponents[:, None]).astype(np.float32)
    assert (scale == exponents + 127).all()
    assert (codes == cast.view(np.uint8)).all()
    decoded = REFERENCE.decode_blocks(codes, scale, None, None, d)
    assert (decoded.view(np.uint32) == values.view(np.uint32)).all()


def test_nvfp4_equals_numpy() -> None:
    """float32 operations in the order that the specification names, the casts by ml_dtypes."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((64, 16)) * 2.0 ** rng.integers(-20, 20, (64, 1))).astype(np.float32)
    whole = np.float32(float(tensor_scale_of(x.ravel().tolist(), nvfp4)))
    assert whole == np.float32(abs(x).max() / np.float32(448 * 6))
    wanted = np.minimum(abs(x).max(axis=1) / np.float32(6) / whole, np.float32(448))
    scale = wanted.astype(ml_dtypes.float8_e4m3fn)
    total = whole * scale.astype(np.float32)[:, None]
    with np.errstate(all="ignore"):
        y = np.where(total == 0, np.copysign(np.float32(0), x), np.clip(x / total, -6, 6))
    element = y.astype(ml_dtypes.float4_e2m1fn)
    codes, scales, none = REFERENCE.encode_blocks(x, nvfp4, BlockOptions(tensor_scale=float(whole)))
    assert none is None
    assert (scales == scale.view(np.uint8)).all()
    assert (codes == element.view(np.uint8)).all()
    decoded = REFERENCE.decode_blocks(codes, scales, None, float(whole), nvfp4)
    assert (decoded.view(np.uint32) == (total * element.astype(np.float32)).view(np.uint32)).all()


def test_poisoned_and_empty_blocks() -> None:
    """NaN and Inf take the block with them; zeros keep their signs, except with microexponents."""
    fp8 = dtype("mxfp8_e4m3")
    for bad in (math.nan, math.inf, -math.inf):
        assert encode_block([1.0, bad], fp8) == (255, [0x7F, 0x7F])
        assert encode_block([1.0, bad], mxfp4) == (255, [0, 0])
        assert encode_micro_block([bad] + [1.0] * 15, mx6) == (255, 0, [0] * 16)
        assert encode_scaled_block([bad, 1.0], nvfp4) == (0x7F, [0, 0])
    for decoded in (
        decode_block(255, [1], mxfp4),
        decode_micro_block(255, 0, [1] * 16, mx6),
        decode_scaled_block(0x7F, [1], nvfp4),
    ):
        assert all(v != v for v in decoded)
    assert encode_block([0.0, -0.0], mxfp4) == (0, [0, 8])
    assert encode_block([0.0, -0.0], mxint8) == (0, [0, 0])
    assert encode_micro_block([-0.0, 1e-39] * 8, mx6) == (0, 0, [0] * 16)
    assert encode_scaled_block([0.0, -0.0], nvfp4) == (0, [0, 8])
    assert decode_block(127, [0x80], mxint8) == [-2]
    assert encode_block([-1.999999, 1.0], mxint8)[1][0] == 0x81


# ------------------------------------------------------------------------ scales, random bits, bytes


def test_affine_equals_numpy() -> None:
    """Division, rounding, offset, in float32; both kinds of zero point."""
    rng = np.random.default_rng(4)
    int8 = dtype("int8")
    for v, s in zip(rng.normal(0, 40, 500).astype("f4"), rng.uniform(0.01, 2, 500).astype("f4"), strict=True):
        q = int(np.clip(np.rint(v / s) + 3, -128, 127))
        offset = int(np.clip(np.rint(v / s + np.float32(0.3)), -128, 127))
        assert QuantParams(s, 3).quantize(v, int8) == q
        assert QuantParams(s, np.float64(np.float32(0.3))).quantize(v, int8) == offset
        assert float(QuantParams(s, 3).dequantize(q)) == np.float32(q - 3) * s
    assert QuantParams(1.0).quantize(math.inf, int8) == 127
    assert QuantParams(1.0, 3).quantize(math.nan, int8) == 3


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter: str, key: str, words: str) -> None:
    """Random123 1.14, kat_vectors: philox4x32 10."""
    number = [[int(word, 16) for word in text.split()] for text in (counter, key, words)]
    assert list(bits.philox(number[0], number[1])) == number[2]


def test_random_bits_are_laid_out_once() -> None:
    """Four neighbours share a counter; counter and key are cut into 32-bit words, low first."""
    index, seed = (5 << 34) + 4 * 7 + 2, (9 << 32) + 11
    assert bits.random_bits(index, seed) == bits.philox((7, 5, 0, 0), (11, 9))[2] & 0x3FFFFFFF


@pytest.mark.parametrize("width", range(1, 17))
def test_pack_is_a_little_endian_string_of_bits(width: int) -> None:
    """Every width; NumPy's packbits says the same."""
    codes = np.random.default_rng(width).integers(0, 1 << width, 77).astype("u1" if width <= 8 else "u2")
    string = (codes[:, None] >> np.arange(width) & 1).astype(np.uint8).ravel()
    packed = REFERENCE.pack(codes, width)
    assert (packed == np.packbits(string, bitorder="little")).all()
    assert (REFERENCE.unpack(packed, 77, width) == codes).all()


@pytest.mark.parametrize(("name", "size"), [("mx4", 8), ("mx6", 12), ("mx9", 18)])
def test_micro_blocks_pack_and_unpack(name: str, size: int) -> None:
    """8, 12 and 18 bytes a block, and nothing lost."""
    d, x = dtype(name), np.random.default_rng(5).standard_normal((9, 16)).astype(np.float32)
    codes, scale, micro = REFERENCE.encode_blocks(x, d, BlockOptions())
    packed = REFERENCE.pack_blocks(codes, scale, micro, d)
    assert packed.size == 9 * size
    for ours, back in zip((codes, scale, micro), REFERENCE.unpack_blocks(packed, 9, d), strict=True):
        assert (ours == back).all()


@pytest.mark.turns
@pytest.mark.parametrize("d", ELEMENTS, ids=str)
def test_executor_is_the_judge_on_arrays(d: Element) -> None:
    """Steps and searching give what the scalar judge gives; float64 and stochastic go through it."""
    x = np.random.default_rng(6).permutation(edges())[:400]
    codes = REFERENCE.encode(x, d, "half_up", d.overflows[-1], None)
    assert codes.tolist() == [exact.encode(v, d, "half_up", d.overflows[-1]) for v in x]
    with np.errstate(invalid="ignore"):  # signalling NaNs
        doubles = x.astype(np.float64)
    assert (REFERENCE.encode(doubles, d, "half_up", d.overflows[-1], None) == codes).all()
    draws = np.arange(400, dtype=np.uint32) * np.uint32(0x9E3779B9)
    drawn = REFERENCE.encode(x, d, "stochastic", d.overflows[-1], draws)
    assert drawn[0] == exact.encode(x[0], d, "stochastic", d.overflows[-1], 0)


@pytest.mark.parametrize("name", ["bfloat16", "float16", "int16"])
def test_a_few_codes_of_sixteen_bits_are_decoded_as_all_are(name: str) -> None:
    d, judge, codes = dtype(name), ReferenceExecutor(), np.arange(1 << 16, dtype=np.uint16)
    few = np.concatenate([judge.decode(part, d) for part in np.split(codes, 256)])
    assert few.view(np.uint32).tolist() == judge.decode(codes, d).view(np.uint32).tolist()
