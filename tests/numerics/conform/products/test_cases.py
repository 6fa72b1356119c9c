"""Are products asked past tiles of rows and columns, in batches, and of Inf, overflow and negative scales?"""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check, decidable
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
