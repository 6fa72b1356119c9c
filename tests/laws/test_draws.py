"""Stochastic rounding of float64: no draw passes a bound, and every draw sees the whole number.

float64 has digits below float32's last place, and numbers above its largest; a draw decides by both
(docs/formats.md §3: up when f + R / 2**30 >= 1, and what is exact never moves).
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, ldexp

import numpy as np
import pytest

import numerics as nx
from numerics.backends.reference import exact
from tests.helpers.bits import assert_same_bits
from tests.helpers.dtypes import DECLARED, ELEMENTS

WHOLE = 1 << 30
rng = np.random.default_rng(22)
DEEP = [
    nx.float_format(8, 1, bias=128, specials="fn", signed=False),
    nx.float_format(4, 3, bias=140, specials="ieee"),
    nx.float_format(8, 0, bias=149, specials="fn", signed=False, subnormals=False, has_zero=False),
]


def code_of(x: float, scale: float, zero: float, d: nx.Integer, draw: int) -> int:
    """q = clamp(round(x / scale) + zero), in float64 as docs/formats.md §6 says, by fractions; its code."""
    y = x / scale if isinstance(zero, int) else x / scale + zero
    a, negative = abs(Fraction(y)), y < 0
    n = floor(a)
    n += a - n + Fraction(draw, WHOLE) >= 1
    q = (-n if negative else n) + (zero if isinstance(zero, int) else 0)
    return int(min(max(q, d.min), d.max)) % (1 << d.bits)


@pytest.mark.turns
@pytest.mark.parametrize("d", [nx.uint4, nx.int8, nx.int16, nx.integer_format(5)], ids=str)
@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_no_draw_wraps_a_float64_past_an_integers_range(executor, d, kind):
    """-2.53 in an int16 became +2.82: the bound came before the rounding, and what lay below it stayed."""
    ends = np.array([d.min, d.max, 0.0])
    near = np.concatenate([ends + k for k in (-1.5, -1.0, -(2.0**-31), 0.0, 2.0**-31, 0.3, 1.0, 1.5)])
    for zero in (int(d.max), int(d.min) + 3):
        x = np.concatenate([near - zero, rng.uniform(3 * d.min - 9, 3 * d.max + 9, 24)]) * 0.3
        for draws in (np.full(x.size, WHOLE - 1), rng.integers(WHOLE - 64, WHOLE, x.size)):
            options = {"symmetric": False, "scale": 0.3, "scale_type": "float", "zero_point": zero,
                       "zero_point_type": kind, "rounding": "stochastic",
                       "random_bits": draws.astype(np.uint32)}  # fmt: skip
            point = zero if kind == "int32" else float(zero)
            due = [code_of(v, 0.3, point, d, int(r)) for v, r in zip(x.tolist(), draws, strict=True)]
            assert nx.quantize(x, d, **options).codes.tolist() == due


def test_found_int16_scales_flip_no_element():
    x = np.random.default_rng(479).standard_normal(200)
    q = nx.quantize(x, "int16", symmetric=False, rounding="stochastic", seed=479)
    assert np.abs(q.dequantize() - x).max() < 2 * float(q.scale)


RANGES = [d for d in ELEMENTS + DECLARED if getattr(d, "exponent", 0) == 8] + DEEP[:2] + [nx.fp8_e4m3, nx.fp4]


@pytest.mark.turns
@pytest.mark.parametrize("d", RANGES, ids=str)
def test_float64_past_float32_is_past_every_format(executor, d):
    """1e300 in bfloat16 was finite, once in 2**16 draws: Inf or NaN is due, whatever is drawn."""
    top = 2.0**128
    x = np.array(
        [top, 1e300, 1.7e308, np.nextafter(top, 0), float(np.finfo(np.float32).max), top * (1 - 2**-30)]
    )
    x = np.concatenate([x, -x, [np.inf, -np.inf]])
    for overflow in d.overflows:
        for draw in (0, WHOLE - 1):
            draws = np.full(x.shape, draw, np.uint32)
            came = d.encode(x, rounding="stochastic", overflow=overflow, random_bits=draws)
            due = [exact.encode(v, d, "stochastic", overflow, draw) for v in x.tolist()]
            assert came.tolist() == due
            values = d.round(x, rounding="stochastic", overflow=overflow, random_bits=draws)
            assert_same_bits(values, d.decode(came).astype(np.float64))
        for rounding in ("floor", "to_odd"):
            due = [exact.encode(v, d, rounding, overflow) for v in x.tolist()]
            assert d.encode(x, rounding=rounding, overflow=overflow).tolist() == due


def fractions_of(d: nx.Element) -> tuple[np.ndarray, np.ndarray]:
    """float64 between a format's neighbours at known fractions; draws at and just below what moves them."""
    steps = sorted({v for v in d.values() if np.isfinite(v)})
    at = rng.integers(0, len(steps) - 1, 40)
    at[:5] = 0, 1, len(steps) - 2, len(steps) // 2 - 1, len(steps) // 2
    low, high = (np.array([steps[k + i] for k in at]) for i in (0, 1))
    parts = rng.integers(1, WHOLE, at.size)
    x = np.where(low < 0, high - (high - low) * (parts / WHOLE), low + (high - low) * (parts / WHOLE))
    x, parts = np.tile(x, 3), np.tile(parts, 3)
    draws = WHOLE - parts - np.repeat([0, 1, 2], at.size)
    return x, np.maximum(draws, 0).astype(np.uint32)


SMALL = [nx.fp8_e4m3fnuz, nx.fp6_e2m3, nx.int4, nx.e8m0, DECLARED[0], *DEEP]


@pytest.mark.parametrize("d", SMALL, ids=str)
def test_a_draw_sees_the_true_fraction_of_a_float64(executor, d):
    """Also below float32's normal numbers, and for powers of two below 2**-126, whose fraction was halved."""
    x, draws = fractions_of(d)
    for overflow in d.overflows:
        came = d.encode(x, rounding="stochastic", overflow=overflow, random_bits=draws)
        pairs = zip(x.tolist(), draws.tolist(), strict=True)
        assert came.tolist() == [exact.encode(v, d, "stochastic", overflow, r) for v, r in pairs]


def test_nothing_below_the_smallest_power_of_two_is_drawn_past_it(executor):
    x = np.array([np.nextafter(2.0**-127, 0), 2.0**-127 * (1 - 2**-26), 1e-300, 2.0**-149, 2.0**-127])
    draws = np.full(x.shape, WHOLE - 1, np.uint32)
    assert nx.e8m0.encode(x, rounding="stochastic", random_bits=draws).tolist() == [0] * 5
    tiny = DEEP[2]
    assert tiny.encode(x / 2.0**22, rounding="stochastic", random_bits=draws).tolist() == [0] * 5


@pytest.mark.parametrize("d", [nx.mxfp4, nx.bfp16, nx.mx6], ids=str)
def test_a_draw_sees_all_of_a_float64_in_a_block(executor, d):
    """Blocks cut float64 to float32 before the draw: one element in a million moved though it should not."""
    digits = {"mxfp4": 1, "bfp16": 6, "mx6": 4}[d.name]
    parts = rng.integers(1, WHOLE, (4, d.block))
    base = 1 + rng.integers(0, 1 << digits, parts.shape) / (1 << digits)
    x = (base + parts / ldexp(1.0, 30 + digits)) * rng.choice([1, -1], parts.shape)
    draws = (WHOLE - parts - rng.integers(0, 2, parts.shape)).astype(np.uint32)
    rules = ("floor", "bump") if isinstance(d, nx.MXBlock) else ("floor",)
    for scaled in (x, x * 2.0**-130):
        for rule in rules:
            options = {"rounding": "stochastic", "random_bits": draws, "scale_rule": rule}
            came, values = d.encode(scaled, **options), d.round(scaled, **options)
            with nx.use("reference"):
                due, exactly = d.encode(scaled, **options), d.round(scaled, **options)
            assert_same_bits(came.scale, due.scale)
            assert_same_bits(came.codes, due.codes, scaled)
            assert_same_bits(values, exactly)
