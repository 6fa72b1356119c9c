"""Are products asked past tiles of rows and columns, in batches, and of Inf, overflow and negative scales?"""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check, decidable
from numerics.conform.products import asking
from numerics.conform.products import trial as of_products
from numerics.conform.products.cases.order import problems
from numerics.conform.products.certificate import answer
from numerics.conform.products.claim import Claim
from tests.helpers.asked_again import kept
from tests.helpers.tile_faults import (
    BATCHED,
    BF16,
    BIASED,
    DIALECTS,
    FAULTS,
    U4,
    W4,
    W4_FLOAT32,
    fault,
    product,
)

NAMED = {
    "Inf becomes NaN": "Inf becomes NaN",
    "magnitudes of scales": "scales without their sign",
    "bias dropped past 1024 terms": "bias ignored",
    "rounded before the bias past 300 terms": "bias after rounding",
}
"""The faults that have a name, in all shapes or in those that are long enough."""


def judged(target, **claim):
    """Kernels here are written for products that have terms; the law `empty` is tested apart."""
    return check(target, kind="matmul", **{"nonempty": True, **claim})


@pytest.mark.turns(54)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_past_a_tile_or_of_an_end_passed(name):
    claim, law, _ = FAULTS[name]
    found = judged(fault(name), effort="quick", **claim)
    assert not found, name
    assert found.law == law, str(found)
    assert found.dialect == NAMED.get(name), str(found)


@pytest.mark.turns(6)
@pytest.mark.parametrize("claim", [W4, BIASED, U4], ids=["int4", "batches with a bias", "zero points"])
def test_a_right_product_was_blamed_where_tiles_meet(claim):
    assert judged(product(claim), effort="quick", **claim)


@pytest.mark.long
@pytest.mark.parametrize("claim", [BF16, BATCHED, W4_FLOAT32], ids=["bfloat16", "batches", "groups of 32"])
@pytest.mark.parametrize("order", ["reversed", "in parts of float32", "einsum"])
def test_a_right_product_of_another_order_was_blamed_where_tiles_meet(claim, order):
    def sums(a, b):
        if order == "reversed":
            return a[..., ::-1] @ b[..., ::-1, :]
        if order == "einsum":
            return np.einsum("...mk,...kn->...mn", a, b)
        parts = [a[..., k : k + 96].astype(np.float32) @ b[..., k : k + 96, :].astype(np.float32)
                 for k in range(0, a.shape[-1], 96)]  # fmt: skip
        return sum(parts[1:], start=parts[0])

    assert judged(product(claim, sums=sums), **claim)


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", DIALECTS)
def test_a_rounding_on_the_way_had_no_name(name):
    found = judged(product(BF16, **DIALECTS[name]), effort="quick", **BF16)
    assert found.dialect == name, str(found)


def test_nan_in_place_of_inf_was_blamed_where_zero_points_are_summed_apart():
    """An Inf less an Inf is NaN; no finite number is right, and the verdict says what was asked."""
    kernel = product(U4, write=lambda total, k: np.where(np.isinf(total.astype(np.float32)), np.nan, total))
    found = judged(kernel, effort="quick", **U4)
    assert found, str(found)
    assert any("that they are no finite number" in note for note in found.notes)
    assert not judged(kernel, effort="quick", zero_point="folded", **U4)
    wrong = judged(fault("Inf beside zero points becomes 0"), effort="quick", **U4)
    assert wrong.counterexample.due.endswith(", or NaN")


def test_an_inf_beside_integers_without_zero_points_was_not_decided():
    a = np.float32([[np.inf, 1, 1, 1], [np.nan, 1, 1, 1], [3e38, 3e38, 3e38, 3e38]])
    b = np.float32([[1, 2, 3, 7]])
    whole = nx.quantize(b, "int4", scheme=nx.per_group(32))
    assert decidable(a, whole).tolist() == [[True], [True], [False]]
    apart = nx.quantize(b, "uint4", scheme=nx.per_group(32), symmetric=False)
    assert decidable(a, apart).tolist() == [[False], [True], [False]]


# ---- what tests keep of the judge's questions ----------------------------------------------------------


def test_questions_that_are_kept_are_those_that_are_made():
    claim = Claim.of("float32", "mxfp4")
    first = [*islice(of_products.problems(claim, 0, None), 20)]
    again = [*islice(of_products.problems(claim, 0, None), 30)]
    assert all(one is other for one, other in zip(first, again, strict=False))
    for one, other in zip(again, islice(problems(claim), 30), strict=True):
        assert one.law == other.law
        for side, fresh in ((one.a, other.a), (one.b, other.b)):
            assert side.codes.tobytes() == fresh.codes.tobytes()
        for kept_of, right in zip(asking.answer(one), answer(other), strict=True):
            assert kept_of.tobytes() == right.tobytes()


def test_a_maker_that_was_interrupted_begins_anew():
    """A generator that raised has ended: whoever asked it again would have been given fewer questions."""
    interrupted = []

    @kept
    def numbers(count):
        for number in range(count):
            if number == 2 and not interrupted:
                interrupted.append(number)
                raise KeyboardInterrupt
            yield number

    with pytest.raises(KeyboardInterrupt):
        list(numbers(4))
    assert [*numbers(4)] == [*numbers(4)] == [0, 1, 2, 3]


AT = {"single": (19, 23, 66), "batches": (3, 5, 7, 34)}
"""Shapes that nobody asks who is not told of them."""
NAMED_FAULTS = {
    "NaN is 0": ("special", lambda x: np.where(np.isnan(x), np.float32(0), x)),
    "the largest number for Inf": ("special", lambda x: np.clip(x, -(top := np.finfo(np.float32).max), top)),
    "subnormal results are 0": ("subnormals", lambda x: np.where(np.abs(x) < 2.0**-126, np.float32(0), x)),
    "sums past the largest number stay": (
        *("output", lambda x: np.where(np.abs(x) > 2.0**127, np.sign(x) * np.float32(2.0**127), x)),
    ),
}
"""Law, and what becomes of results in the shape that is named alone."""


@pytest.mark.turns
@pytest.mark.parametrize("shape", AT)
@pytest.mark.parametrize("name", NAMED_FAULTS)
def test_a_fault_of_an_end_passed_in_a_shape_that_was_named(name, shape):
    law, change = NAMED_FAULTS[name]

    def kernel(a, b):
        with np.errstate(all="ignore"):
            found = a @ b.mT
            there = found.shape == (AT[shape][:-1]) and a.shape[-1] == AT[shape][-1]
            return np.where(there, change(found), found).astype(np.float32)

    claim = {"a": "float32", "b": "float32", "effort": "quick"}
    claim |= {"layout": "bmk,bnk"} if shape == "batches" else {}
    found = judged(kernel, shapes=[AT[shape]], **claim)
    assert found.law in (law, "special"), str(found)
    assert judged(lambda a, b: a @ b.mT, shapes=[AT[shape]], **claim)


def test_a_bias_of_all_bits_was_not_asked_in_a_shape_that_was_named():
    def kernel(a, b, bias):
        return a @ b.T + (bias if len(a) != 19 else bias.astype(np.float16).astype(np.float32))

    claim = {"a": "float32", "b": "float32", "bias": True, "effort": "quick"}
    with np.errstate(all="ignore"):
        assert judged(kernel, shapes=[AT["single"]], **claim).law == "bias"


def test_sums_of_extreme_codes_were_not_asked_in_a_shape_that_was_named():
    """Sums past 24 bits, which float32 rounds, are of the largest codes alone."""

    def kernel(a, b):
        return (a.astype(np.float32) @ b.astype(np.float32).T).astype(np.int32)

    claim = {"a": "uint8", "b": "int8", "accumulate": "int32", "effort": "quick"}
    assert judged(kernel, shapes=[(2, 3, 1030)], **claim).law == "integers"


@pytest.mark.turns(4)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_subnormal_numbers_were_asked_in_small_products_alone(kind):
    """As in kernels that leave small products to a loop of its own, and flush in large ones."""

    def kernel(a, b):
        x, y = (np.asarray(z, np.float32) for z in (a, b))
        if len(x) * y.size > 4096:
            x, y = (np.where(np.abs(z) < 2.0**-126, np.float32(0), z) for z in (x, y))
        return x @ y.T

    found = judged(kernel, a=kind, b=kind, effort="quick")
    assert found.law == "subnormals"
    assert "flushes subnormal inputs" in found.dialect
    assert "in shapes like this one" in str(found)


def bits_of(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def of_one_term(a, b, found):
    """Of one term a row, rows past the eighth are those of the first."""
    return np.where((np.arange(len(a)) > 7)[:, None], found[:1], found) if a.shape[1] == 1 else found


def in_tf32(a, b, found):
    """A long single row is cut to tf32."""
    long = len(a) == 1 and a.shape[1] > 2048
    return (bits_of(a) & np.uint32(0xFFFFE000)).view(np.float32) @ b.T if long else found


PLACES = {
    "one term a row, in tiles": of_one_term,
    "a long single row in tf32": in_tf32,
    "rows of zeros are left out": lambda a, b, found: np.where(a.any(axis=1)[:, None], found, np.float32(0)),
    "NaN of the other sign is 0": lambda a, b, found: (
        np.where(np.isnan(a) & np.signbit(a), np.float32(0), a) @ b.T
    ),
    "NaN that signals is 0": lambda a, b, found: (
        np.where(np.isnan(a) & (bits_of(a) >> 22 & 1 == 0), np.float32(0), a) @ b.T
    ),
    "rows with -0 lose the sign of Inf": lambda a, b, found: np.where(
        (np.signbit(a) & (a == 0)).any(axis=1)[:, None] & np.isinf(found), np.abs(found), found
    ),
}
"""What becomes of a product in places, and of numbers, that were not asked."""


@pytest.mark.turns(8)
@pytest.mark.parametrize("name", PLACES)
def test_a_fault_of_single_terms_zeros_or_other_nans_passed(name):
    def kernel(a, b):
        with np.errstate(all="ignore"):
            return PLACES[name](a, b, a @ b.T).astype(np.float32)

    assert not judged(kernel, a="float32", b="float32", effort="quick")


def _int64(a, b, alpha=1):
    return a.astype(np.int64) @ b.astype(np.int64).T * alpha


def _saturated(a, b, alpha=1):
    return np.clip(_int64(a, b, alpha), -(2**31), 2**31 - 1).astype(np.int32)


OVERFLOWS = {
    "sums saturate": ("uint8", "uint8", {}, _saturated),
    "the sign bit is lost": ("uint8", "uint8", {}, lambda a, b: (_int64(a, b) & 0x7FFFFFFF).astype(np.int32)),
    "alpha saturates": ("int8", "int8", {"alpha": True}, _saturated),
}
"""Sums of integers that are due modulo 2**32."""


@pytest.mark.parametrize("name", OVERFLOWS)
def test_sums_past_int32_were_not_asked(name):
    a, b, given, kernel = OVERFLOWS[name]
    claim = {"kind": "matmul", "a": a, "b": b, "accumulate": "int32", "effort": "quick", **given}
    found = check(kernel, **claim)
    assert found.law in ("integers", "alpha"), str(found)
    with np.errstate(over="ignore"):
        assert check(lambda *given: _int64(*given).astype(np.int32), **claim)


def test_scales_of_0_were_not_asked():
    """A scale of 0 may multiply a sum, which makes -0 of a negative one."""

    def product(a, b, scale):
        return (a @ b.codes.view(np.int8).astype(np.float32).T) * scale.reshape(1, -1)

    claim = {"kind": "matmul", "a": "float32", "b": "int8 per_channel(0)", "effort": "quick"}
    found = check(lambda a, b: product(a, b, np.where(b.scale == 0, 1, b.scale)), **claim)
    assert found.law == "scale_range", str(found)
    assert check(lambda a, b: product(a, b, b.scale), **claim)
