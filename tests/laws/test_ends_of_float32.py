"""Formats at the ends of float32: what fits is taken, what is taken is right, and NaN has one sign."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import numerics as nx
from numerics.formats.rounding import DETERMINISTIC
from tests.helpers.bits import assert_same_bits
from tests.helpers.dtypes import DECLARED
from tests.helpers.inputs import edges

rng = np.random.default_rng(25)
MINE = nx.float_format(8, 1, bias=128, specials="fn", signed=False)


def declared(count: int) -> list[nx.Float]:
    """Float formats at random, most of whose numbers lie among float32's subnormals."""
    found: list[nx.Float] = []
    while len(found) < count:
        specials = str(rng.choice(["ieee", "fn", "fnuz", "extended", "none"]))
        facts = {"exponent": int(rng.integers(1, 9)), "mantissa": int(rng.integers(0, 8)),
                 "bias": int(rng.integers(120, 151)), "signed": bool(rng.integers(2)),
                 "specials": specials, "subnormals": bool(rng.integers(4))}  # fmt: skip
        try:
            found.append(nx.float_format(**facts, name=f"deep{len(found)}"))
        except nx.NumericsError:
            continue
    return found


def test_a_format_whose_numbers_are_float32s_is_not_refused():
    """`values from 2.93874e-39 to 1.70141e+38 do not fit in float32`, said of values that do."""
    assert (MINE.smallest_subnormal, MINE.smallest_normal, MINE.max) == (2.0**-128, 2.0**-127, 2.0**127)
    assert nx.float_format(2, 1, bias=149).max == 1.5 * 2.0**-147
    for facts, why in (({"bias": 151}, "exponents from -151"), ({"bias": -200}, "to 214 "),
                       ({"bias": 150, "subnormals": False}, "exponents from -150"),
                       ({"bias": 10**400}, "not fit"), ({"bias": -(10**400)}, "not fit")):  # fmt: skip
        with pytest.raises(nx.NumericsError, match=why):
            nx.float_format(4, 1, **facts)


@pytest.mark.parametrize("backend", ["array", "cpu"])
def test_deep_formats_equal_the_judge(backend):
    """Powers of two below 2**-127 were accepted, and wrong; normal numbers there were refused."""
    powers = [
        nx.float_format(
            8, 0, bias=b, specials="fn", signed=False, subnormals=False, has_zero=False, name=f"p{b}"
        )
        for b in (128, 140, 149)
    ]
    x = np.concatenate(
        [rng.choice(edges(), 300), rng.integers(0, 1 << 24, 400).astype(np.int32).view(np.float32)]
    )
    for number, d in enumerate([MINE, *powers, *declared(8 if backend == "array" else 4)]):
        for rounding in (DETERMINISTIC[number % 8], "half_even") if backend == "array" else ("half_even",):
            for overflow in d.overflows:
                options = {"rounding": rounding, "overflow": overflow}
                with nx.use("reference"):
                    due, values = d.encode(x, **options), np.array(d.values(), np.float32)
                with nx.use(backend):
                    assert_same_bits(d.encode(x, **options), due, x, on=f"{d} {options}")
                    assert_same_bits(np.array(d.values(), np.float32), values)
                    assert_same_bits(d.round(x, **options), values[due])


def test_values_are_the_definition():
    for d in [MINE, *declared(6)]:
        for code, value in enumerate(d.values()[: d.last + 1]):
            e, m = divmod(code, 1 << d.mantissa)
            step = Fraction(2) ** (max(e, 1) - d.bias - d.mantissa)
            due = (m + (bool(e) << d.mantissa)) * step
            assert Fraction(value) == (due if e or d.subnormals else 0)


KINDS = [nx.fp8_e4m3, nx.fp8_e5m2, nx.fp8_e4m3fnuz, nx.fp4, nx.int4, nx.e8m0, nx.bfloat16, *DECLARED[2:6]]


@pytest.mark.parametrize("d", KINDS, ids=str)
def test_a_nan_has_the_same_sign_with_and_without_its_code(executor, d):
    """-NaN came from fnuz codes and +NaN from rounding without them: where NaN has no sign it is positive."""
    nan = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFABCDEF], np.uint32).view(np.float32)
    x = np.concatenate([nan, np.array([np.inf, -np.inf, -0.0, 1.0, -1e-9], np.float32)])
    for overflow in d.overflows:
        rounded, decoded = d.round(x, overflow=overflow), d.decode(d.encode(x, overflow=overflow))
        assert rounded.view(np.uint32).tolist() == decoded.view(np.uint32).tolist()
    options = {"scale": 1.0, "scale_type": "float32"}
    came, due = nx.fake_quantize(x, d, **options), nx.quantize(x, d, **options).dequantize()
    assert came.view(np.uint32).tolist() == due.view(np.uint32).tolist()
    if getattr(d, "specials", None) == "fnuz":
        assert d.decode(np.array([d.nan], d.code_dtype)).view(np.uint32).tolist() == [0x7FC00000]


def test_nvfp4_keeps_the_smallest_tensors(executor):
    """1.8e-42 everywhere became 0: the tensor's scale underflowed, and was taken for 1."""
    x = np.full(32, 1.8e-42, np.float32)
    due = nx.nvfp4.round(x, tensor_scale=2.0**-149)
    assert due.all()
    assert nx.nvfp4.encode(x).tensor_scale == 2.0**-149
    for values in (nx.nvfp4.round(x), nx.fake_quantize(x, "nvfp4"), nx.quantize(x, "nvfp4").dequantize()):
        assert_same_bits(values, due)
    assert_same_bits(nx.nvfp4.round(x.astype(np.float64)), due.astype(np.float64))
    assert nx.nvfp4.encode(np.zeros(16, np.float32)).tensor_scale == 1


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nan_becomes_what_zero_becomes_whatever_the_zero_point(executor, kind):
    """NaN was 0.0 with an int32 zero point and -1.0, the least, with a float32 one."""
    x = np.array([np.nan, -1.0, 2.0, 3.0, 0.0], kind)
    for dtype in ("uint4", "int4"):
        for point in ("int32", "float32"):
            options = {"symmetric": False, "zero_point_type": point}
            q = nx.quantize(x, dtype, **options)
            assert q.codes[0] == q.codes[4]
            assert abs(q.dequantize()[0]) <= float(q.scale) / 2
            assert_same_bits(nx.fake_quantize(x, dtype, **options), q.dequantize())


def test_every_type_of_ml_dtypes_is_a_format_or_refused_in_words_that_are_true():
    names = ["bfloat16", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3fn",
             "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "int2", "int4", "uint2",
             "uint4"]  # fmt: skip
    for name in names:
        kind, d = getattr(ml_dtypes, name), nx.dtype(getattr(ml_dtypes, name))
        facts = ml_dtypes.iinfo(kind) if d.kind == "integer" else ml_dtypes.finfo(kind)
        assert (d.bits, d.max) == (facts.bits, float(facts.max))
    for name, declare in {
        "float8_e4m3": "(4, 3)",
        "float8_e4m3b11fnuz": '(4, 3, bias=11, specials="fnuz")',
    }.items():
        with pytest.raises(nx.NumericsError) as refused:
            nx.dtype(getattr(ml_dtypes, name))
        assert f"float_format{declare}" in str(refused.value)
        assert "did you mean" not in str(refused.value)
        made = eval(f"nx.float_format{declare}")
        theirs = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, name)).astype(np.float32)
        assert_same_bits(made.decode(np.arange(256, dtype=np.uint8)), theirs)
    for name in ("float32", "int64", "int1"):
        with pytest.raises(nx.NumericsError) as refused:
            nx.dtype(name)
        assert "did you mean" not in str(refused.value)


@pytest.mark.parametrize("bits", range(2, 17))
def test_an_integer_format_of_any_width_is_made_by_its_facts(bits):
    for signed in (True, False):
        d = nx.integer_format(bits, signed=signed)
        assert d is nx.integer_format(bits, signed=signed)
        x = np.array([d.min - 1, d.min, 0.5, d.max, d.max + 1, np.nan])
        assert d.round(x).tolist() == [d.min, d.min, 0.0, d.max, d.max, 0.0]
    with pytest.raises(nx.NumericsError, match="2 to 16 bits"):
        nx.integer_format(bits + 15)
