"""Blocks whose scale's sign says what their codes mean (IF4 and its kin), against fractions of their own."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

import numerics as nx
from tests.helpers.bits import assert_same_bits
from tests.helpers.float_scales import E4M3, f32, nearest

DECIMALS = {
    "if4": ("0.8571428571", "1.16666666", [0, 0.5, 1, 1.5, 2, 3, 4, 6], 7, False),
    "if3": ("1.3333333333", "0.75", [0, 1, 2, 4], 3, True),
    "if6_e2m3": ("0.2419355", "4.1333333333", None, 31, True),
    "if6_e3m2": ("0.9032258065", "1.1071428571", None, 31, True),
}
"""Of each: what a count is worth, how many are 1, the floats, the most counts, is there a sign beside them?

The decimals are those of the code that goes with arXiv 2603.28765; it multiplies float32 by them.
"""
FLOATS = {
    "if6_e2m3": [k / 8 for k in range(16)] + [(8 + m) / 8 * 2**e for e in (1, 2) for m in range(8)],
    "if6_e3m2": [k / 16 for k in range(8)] + [(4 + m) / 4 * 2.0**e for e in range(-1, 5) for m in range(4)],
}
EACH = pytest.mark.parametrize("name", DECIMALS)


class Oracle:
    """A block by fractions, from the decimals alone."""

    def __init__(self, name: str):
        worth, inverse, floats, self.most, self.beside = DECIMALS[name]
        self.worth, self.inverse = f32(Fraction(worth)), f32(Fraction(inverse))
        self.floats = [Fraction(v) for v in floats or FLOATS[name]]
        self.largest = self.floats[-1]

    def element(self, y: Fraction, counts: bool) -> Fraction:
        """The element of a magnitude over both scales."""
        if not counts:
            return self.floats[nearest(y, self.floats)]
        return f32(min(round(f32(y * self.inverse)), self.most) * self.worth)

    def error(self, x: list[Fraction], total: Fraction, counts: bool) -> Fraction:
        """Squares, added in halves."""
        terms = []
        for a in x:
            y = f32(abs(a) / total) if total else Fraction(0)
            off = f32(f32(self.element(y, counts) * total) - abs(a))
            terms.append(f32(off * off))
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [f32(a + b) for a, b in zip(terms[:half], terms[half:], strict=True)]
        return terms[0]

    def block(self, x: list[Fraction], whole: Fraction, rule: str) -> tuple[int, list[Fraction]]:
        """The scale's byte and the values."""
        wanted = f32(f32(max(map(abs, x)) / self.largest) / whole)
        tried = [nearest(wanted, E4M3[:127])]
        if rule == "mse":
            tried = list(range(max(tried[0] - 8, 0), min(tried[0] + 7, 126) + 1))
        errors = [
            (self.error(x, f32(whole * E4M3[k]), counts), k, counts) for k in tried for counts in (0, 1)
        ]
        least = min(error for error, _, _ in errors)
        code = next(k for error, k, _ in errors if error == least)
        total = f32(whole * E4M3[code])
        counts = self.error(x, total, True) < self.error(x, total, False)
        values = [self.element(f32(abs(a) / total) if total else Fraction(0), counts) for a in x]
        signed = [f32(v * total) * (-1 if a < 0 else 1) for v, a in zip(values, x, strict=True)]
        return code + 128 * counts, signed


def numbers(seed: int = 0, rows: int = 40) -> np.ndarray:
    """Blocks of all sizes, some flat, some with one large number, some on the very ties of both readings."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 16)) * np.exp2(rng.uniform(-14, 6, (rows, 1)))
    x[: rows // 4] = rng.uniform(-6, 6, (rows // 4, 16))
    x[rows // 4 : rows // 2] = np.round(x[rows // 4 : rows // 2] * 4) / 4
    x[0], x[1], x[2] = 0, 6 / 7, 3.0
    x[3] = np.arange(16) * np.float64(3 / 7)
    return x.astype(np.float32)


@cache
def answers(name: str, rule: str, whole: float) -> tuple[np.ndarray, list[tuple[int, list[Fraction]]]]:
    """Numbers and what the fractions make of them: once for all executors."""
    oracle, x = Oracle(name), numbers(rows=12 if rule == "mse" else 40)
    return x, [oracle.block([Fraction(float(a)) for a in row], f32(Fraction(whole)), rule) for row in x]


@pytest.mark.turns
@EACH
@pytest.mark.parametrize("rule", ["floor", "mse"])
@pytest.mark.parametrize("whole", [1.0, 0.0371])
def test_blocks_are_those_of_fractions(executor, name, rule, whole):
    d, (x, due) = nx.dtype(name), answers(name, rule, whole)
    made = d.encode(x, scale_rule=rule, tensor_scale=whole)
    values = d.decode(made)
    assert made.scale.ravel().tolist() == [scale for scale, _ in due]
    assert np.array_equal(values, np.array([[float(v) for v in row] for _, row in due], np.float32))
    assert_same_bits(d.round(x, scale_rule=rule, tensor_scale=whole), values)
    assert len({scale >> 7 for scale, _ in due}) == 2


@EACH
def test_codes_of_counts_are_written_as_the_code_of_the_paper_writes_them(executor, name):
    """Two's complement in IF4, sign and magnitude in the others; both signs of every count are there."""
    d, (_, _, _, most, beside) = nx.dtype(name), DECIMALS[name]
    counts = np.resize(np.arange(-most, most + 1), 16 * -(-(2 * most + 1) // 16)).reshape(-1, 16)
    counts[:, 0] = most
    worth = np.float32(d.step)
    codes = np.where(counts < 0, -counts | (most + 1) if beside else counts & (2 * most + 1), counts)
    blocks = nx.Blocks(d, -1, codes.astype(np.uint8), np.full((len(counts), 1), 0xB8, np.uint8), None, 1.0)
    assert_same_bits(d.decode(blocks), counts.astype(np.float32) * worth)
    made = d.encode(counts.astype(np.float32) * worth, tensor_scale=1.0)
    assert made.scale.ravel().tolist() == [0xB8] * len(counts)
    assert np.array_equal(made.codes, codes)


def test_a_tie_of_both_errors_is_read_as_floats(executor):
    made = nx.if4.encode(np.float32([[6.0] * 16, [0.0] * 16, [-6.0, 6.0] * 8]), tensor_scale=1.0)
    assert made.scale.ravel().tolist() == [0x38, 0, 0x38]
    assert made.codes[0].tolist() == [7] * 16


def test_nan_and_the_sign_of_a_scale(executor):
    x = np.float32([[1.0, np.nan] + [7.0] * 14, [np.inf] + [1.0] * 15])
    made = nx.if4.encode(x, tensor_scale=1.0)
    assert made.scale.ravel().tolist() == [0x7F, 0x7F]
    assert not made.codes.any()
    for byte in (0x7F, 0xFF):
        blocks = nx.Blocks(nx.if4, -1, np.ones((1, 16), np.uint8), np.uint8([[byte]]), None, 1.0)
        assert np.isnan(nx.if4.decode(blocks)).all()


@EACH
@pytest.mark.parametrize("rounding", ["toward_zero", "ceil", "half_away", "stochastic"])
def test_the_reading_does_not_depend_on_the_rounding(name, rounding):
    d, x = nx.dtype(name), numbers(3, 200)
    seed = {"seed": 5} if rounding == "stochastic" else {}
    assert np.array_equal(d.encode(x, rounding=rounding, **seed).scale, d.encode(x).scale)


@EACH
def test_products_are_those_of_its_values(host_executor, name):
    w, x = numbers(7, 64).reshape(32, 32), numbers(8, 8).reshape(4, 32)
    q = nx.quantize(w, name)
    due = x.astype(np.float64) @ q.dequantize().astype(np.float64).T
    assert np.allclose(nx.linear(x, q), due, rtol=1e-5, atol=1e-5 * np.abs(due).max())
    assert (q.scale >> 7).any()


def test_it_becomes_nvfp4_where_its_blocks_are_floats():
    x = np.float32([[6.0, 4.0, 3.0, 1.5] * 4, [1.0, -0.5, 6.0, 2.0] * 4])
    q = nx.quantize(x, "if4", tensor_scale=1.0)
    assert_same_bits(nx.transcode(q, "nvfp4").dequantize(), x)
    assert_same_bits(nx.transcode(nx.quantize(x, "nvfp4", tensor_scale=1.0), "if4").dequantize(), x)
    counted = nx.quantize(np.float32([np.arange(-7, 9).clip(max=7)]) * np.float32(nx.if4.step), "if4")
    with pytest.raises(nx.NumericsError, match="values would change"):
        nx.transcode(counted, "nvfp4")
    moved = nx.transcode(counted, tensor_scale=counted.tensor_scale * 4)
    assert_same_bits(moved.dequantize(), counted.dequantize())


def test_the_gradient_is_clipped_in_the_reading_of_the_block():
    counts = [
        8.05,
        *range(-7, 8),
    ]  # under the largest scale: 6.9 is within half a step of fp4's 6, 8.05 is not
    x = torch.tensor([[448 * float(np.float32(k * nx.if4.step)) for k in counts]], requires_grad=True)
    y = nx.fake_quantize(x, nx.QuantSpec("if4"), tensor_scale=1.0, clip_gradient=True)
    y.sum().backward()
    assert x.grad.tolist() == [[0.0] + [1.0] * 15]


def test_what_cannot_be_a_second_reading_is_refused():
    narrow = nx.integer_format(4, narrow=True)
    for facts, said in (
        ({"element": "fp4", "scale": "fp8_e4m3", "integers": "int4"}, "narrow integers"),
        ({"element": "fp4", "scale": "ue5m3fn", "integers": narrow}, "signed scale"),
        ({"element": "fp4", "integers": narrow}, "go with a float scale"),
        ({"element": "fp6_e2m3", "scale": "fp8_e4m3", "integers": narrow}, "of its 6 bits"),
        ({"element": "int4", "scale": "fp8_e4m3", "integers": narrow}, "beside floats"),
        ({"mantissa": 4, "sub_block": 2, "integers": narrow}, "belong to element="),
    ):
        with pytest.raises(nx.NumericsError, match=said):
            nx.block_format(block=16, **facts)
    with pytest.raises(nx.NumericsError, match="step="):
        nx.ScaledBlock(name="x", element=nx.fp4, scale=nx.fp8_e4m3, block=16, integers=narrow, step=-1.0)
    with pytest.raises(nx.NumericsError, match="step="):
        nx.ScaledBlock(name="x", element=nx.fp4, scale=nx.fp8_e4m3, block=16, step=1.0)


def test_a_format_of_ones_own_has_the_quotient_of_the_largest_as_its_step():
    eight = nx.block_format(
        element="fp4", scale="fp8_e4m3", block=8, integers=nx.integer_format(4, narrow=True)
    )
    assert eight.step == nx.if4.step == np.float32(6 / 7)
    x = numbers()
    assert_same_bits(eight.round(x, tensor_scale=1.0)[2:3], nx.if4.round(x, tensor_scale=1.0)[2:3])
