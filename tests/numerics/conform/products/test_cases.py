"""Are products asked past tiles of rows and columns, in batches, and of Inf, overflow and negative scales?"""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check, decidable
from numerics.conform.products import asking
from numerics.conform.products import trial as of_products
from numerics.conform.products.cases import problems
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
}
"""The faults that have a name."""


def judged(target, **claim):
    return check(target, kind="matmul", **claim)


@pytest.mark.turns(9)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_past_a_tile_or_of_an_end_passed(name):
    claim, law, _ = FAULTS[name]
    found = judged(fault(name), effort="quick", **claim)
    assert not found, name
    assert found.law == law, str(found)
    assert found.dialect == NAMED.get(name), str(found)


@pytest.mark.turns(3)
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


@pytest.mark.turns(3)
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
