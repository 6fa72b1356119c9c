"""Are single rows, columns and results asked what tiles are, and single terms with all their bits?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.conform import check, decidable
from tests.helpers.single_faults import (
    FLOATS,
    FP8_ROWS,
    HALF,
    PLACES,
    faults,
    in_place,
    of_operand,
    of_terms,
    scales_rounded,
    toward_zero,
    without_low_halves,
)
from tests.helpers.tile_faults import BF16, product

PLANTED = [*faults()]
NAMES = [f"{name}-{claim['a']}-{claim['b']}-{place}" for name, claim, _, _, place in PLANTED]


def judged(target, **claim):
    return check(target, kind="matmul", effort="quick", nonempty=True, **claim)


@pytest.mark.turns(216)
@pytest.mark.parametrize("case", PLANTED, ids=NAMES)
def test_a_fault_of_single_rows_columns_or_results_passed(case):
    _, claim, law, kernel, _ = case
    found = judged(kernel, **claim)
    assert not found
    assert law in ("", found.law), str(found)


@pytest.mark.turns(4)
@pytest.mark.parametrize("change", [toward_zero, without_low_halves])
def test_a_product_that_is_not_rounded_to_the_nearest_number_passed(change):
    """The product of two float32 numbers has up to 48 bits: of one term beside zeros it is rounded once."""
    found = judged(of_terms(change), **FLOATS)
    assert found.law == "one_term"
    assert "m=1 n=1 " in str(found)


@pytest.mark.turns
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("names", ["a", "b", "ab"])
def test_a_scale_that_was_rounded_before_use_was_lost_in_a_result_of_16_bits(kind, names):
    claim = {**FP8_ROWS, "out": kind}
    kernel = scales_rounded(claim, kind, names)

    def target(a, b):
        out = kernel(a, b)
        return out.astype(np.float16) if kind == "float16" else torch.from_numpy(out).bfloat16()

    found = judged(target, **claim)
    assert not found
    assert found.law in ("one_term", "output", "corners")
    if kind == "bfloat16":
        assert found.dialect == "scales" + {"a": " of a", "b": " of b", "ab": ""}[names] + " in bfloat16"


DIALECTS = {
    "flushes subnormal inputs of a": (FLOATS, of_operand("a", FLOATS)),
    "flushes subnormal inputs of b": (HALF, of_operand("b", HALF)),
    "flushes subnormal results": (
        HALF, {"write": lambda x, exact: np.where(np.abs(x) < 2.0**-14, 0.0, x)},
    ),
    "finite sums saturate": (
        HALF, {"write": lambda x, exact: np.where(np.isfinite(exact), np.clip(x, -65504, 65504), x)},
    ),
}  # fmt: skip


@pytest.mark.turns(8)
@pytest.mark.parametrize("name", DIALECTS)
def test_a_flush_or_a_saturation_had_no_name_or_another_law(name, monkeypatch):
    claim, change = DIALECTS[name]
    monkeypatch.setitem(PLACES, "everywhere", lambda m, n: True)
    found = judged(in_place(claim, "everywhere", **change), **claim)
    assert found.law == ("output" if "saturate" in name else "subnormals"), str(found)
    assert found.dialect == name, str(found)


# ---- what is right ---------------------------------------------------------------------------------------


def fused(a, b):
    """Products added by fused operations, from the last one on."""
    total = np.zeros((len(a), len(b)), np.float32)
    for k in range(a.shape[1])[::-1]:
        exact = a[:, k, None].astype(np.longdouble) * b[:, k].astype(np.longdouble)
        total = (total.astype(np.longdouble) + exact).astype(np.float32)
    return total


def rounded_products(a, b):
    """float32 products, then float32 sums."""
    total = np.zeros((len(a), len(b)), np.float32)
    for k in range(a.shape[1]):
        total = total + a[:, k, None] * b[:, k]
    return total


RIGHT = {
    "numpy": lambda a, b: a @ b.T,
    "einsum": lambda a, b: np.einsum("mk,nk->mn", a, b),
    "torch": lambda a, b: (torch.from_numpy(a.copy()) @ torch.from_numpy(b.copy()).T).numpy(),
    "fused": fused,
    "rounded products": rounded_products,
    "float64": lambda a, b: (a.astype(np.float64) @ b.T.astype(np.float64)).astype(np.float32),
}


@pytest.mark.turns(12)
@pytest.mark.parametrize("route", RIGHT)
def test_a_right_product_of_float32_was_blamed_for_its_rounding(route):
    def kernel(a, b):
        with np.errstate(all="ignore"):
            return RIGHT[route](a, b)

    assert judged(kernel, **FLOATS)


ORDERS = {
    "scales first": lambda a, b, s, t: (a @ b.T) * (s * t.T),
    "scales last": lambda a, b, s, t: (a @ b.T) * s * t.T,
    "decoded": lambda a, b, s, t: (a * s) @ (b * t).T,
    "a decoded": lambda a, b, s, t: ((a * s) @ b.T) * t.T,
}


@pytest.mark.turns(24)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("out", ["float32", "bfloat16", "float16"])
def test_a_right_order_of_factors_was_blamed(order, out):
    """Of results of 16 bits all are judged that no order of roundings in float32 can change."""

    def kernel(a, b):
        codes = [nx.fp8_e4m3.decode(np.asarray(x.codes)) for x in (a, b)]
        scales = [np.asarray(x.scale, np.float32).reshape(-1, 1) for x in (a, b)]
        with np.errstate(all="ignore"):
            found = torch.from_numpy(np.ascontiguousarray(ORDERS[order](*codes, *scales), np.float32))
        return found.to(getattr(torch, out))

    assert judged(kernel, **{**FP8_ROWS, "out": out})


@pytest.mark.turns(4)
@pytest.mark.parametrize("claim", [BF16, HALF], ids=["bfloat16", "float16"])
def test_a_right_product_of_16_bits_was_blamed(claim):
    def sums(a, b):
        return np.float32(0) + sum(
            a[:, k, None].astype(np.float32) * b[k].astype(np.float32) for k in range(len(b))
        )

    assert judged(product(claim, sums=sums), **claim)


def test_one_term_of_more_than_24_bits_was_not_decided():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, 1)).astype(np.float32) for n in (50, 60))
    assert decidable(a, b).all()
    assert decidable(a * np.float32(2.0**-70), b * np.float32(2.0**-70)).all()
    assert decidable(a * np.float32(2.0**70), b * np.float32(2.0**70)).all()
    zeros = np.zeros_like(a)
    assert decidable(np.hstack([zeros, a]), np.hstack([b, b])).all()
    assert not decidable(np.hstack([a, a]), np.hstack([b, b])).any()
    assert not decidable(a, b, accumulate=nx.conform.Accumulator(24, "toward_zero")).any()
    assert decidable(a, b, accumulate="float64").all()


def test_a_term_of_two_long_factors_was_not_decided_and_one_of_three_is_not():
    a = np.float32([[1 + 2.0**-20 + 2.0**-23]])
    two = nx.quantize(np.float32([[7.0]]), "fp4", scheme=nx.per_channel(0), scale_type="pof2")
    assert decidable(a, two).all()
    three = nx.quantize(np.float32([[4.3]]), "fp4", scheme=nx.per_channel(0))
    assert not decidable(a, three).any()
