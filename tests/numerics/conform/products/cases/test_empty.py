"""Are products asked that have no terms, rows, columns or batches?"""

from __future__ import annotations

import numpy as np
import pytest

from numerics.conform import check
from numerics.formats.errors import NumericsError

PLAIN = {"a": "float32", "b": "float32"}
GEMM = {**PLAIN, "alpha": True, "beta": True}
BATCHES = {**PLAIN, "layout": "bmk,bnk"}


def right(a, b, c=None, alpha=1.0, beta=0.0):
    with np.errstate(all="ignore"):
        found = alpha * np.matmul(a.astype(np.float64), np.swapaxes(b.astype(np.float64), -1, -2))
        return (found if beta == 0 else found + beta * c).astype(np.float32)


def memory_where_nothing_is_summed(a, b):
    return right(a, b) if a.shape[-1] else np.full((len(a), len(b)), 7, np.float32)


def refuses_no_rows(a, b):
    if not len(a):
        raise ValueError("no rows")
    return right(a, b)


def beta_forgotten_where_nothing_is_summed(a, b, c, alpha, beta):
    return right(a, b, c, alpha, beta) if a.shape[1] else c.copy()


def one_batch_where_there_is_none(a, b):
    return right(a, b) if len(a) else np.zeros((1, a.shape[1], b.shape[1]), np.float32)


FAULTS = {
    memory_where_nothing_is_summed: (PLAIN, "empty"),
    refuses_no_rows: (PLAIN, "runs"),
    beta_forgotten_where_nothing_is_summed: (GEMM, "empty"),
    one_batch_where_there_is_none: (BATCHES, "shape"),
}


@pytest.mark.turns(8)
@pytest.mark.parametrize("kernel", FAULTS, ids=lambda kernel: kernel.__name__)
def test_a_fault_of_an_empty_product_passed(kernel):
    claim, law = FAULTS[kernel]
    found = check(kernel, kind="matmul", effort="quick", **claim)
    assert found.law == law, str(found)
    assert found.dialect is None
    assert law != "runs" or "nonempty=True" in str(found)


@pytest.mark.turns(4)
@pytest.mark.parametrize("kernel", [memory_where_nothing_is_summed, refuses_no_rows])
def test_a_kernel_that_takes_nothing_empty_was_blamed(kernel):
    found = check(kernel, kind="matmul", effort="quick", nonempty=True, **PLAIN)
    assert found, str(found)
    assert any("empty operands" in note for note in found.notes)


@pytest.mark.parametrize("claim", [GEMM, BATCHES], ids=["gemm", "batches"])
def test_a_right_kernel_was_blamed_for_an_empty_product(claim):
    shapes = [(3, 4, 0), (0, 4, 5)] if claim is GEMM else [(0, 3, 4, 5), (2, 3, 4, 0), (2, 0, 4, 5)]
    found = check(right, kind="matmul", shapes=shapes, **claim)
    assert found, str(found)
    assert "empty" in found.laws


@pytest.mark.parametrize("b", ["mxfp4", "fp8_e4m3 per_channel(0)", "uint4 per_group(32) asymmetric"])
def test_an_empty_operand_of_codes_could_not_be_given(b):
    def kernel(a, b):
        return right(a.dequantize("float32"), b.dequantize("float32"))

    assert check(kernel, kind="matmul", a="fp8_e4m3 per_token", b=b, shapes=[(3, 4, 0), (0, 4, 5), (3, 0, 5)])


def test_a_kernel_that_takes_the_scales_of_rows_without_terms_was_blamed():
    """A scale a row is (m, 1) where k is 0, too: (m, 0) does not broadcast against the results."""

    def kernel(a, b):
        codes = a.codes.view(np.int8).astype(np.int32) @ b.codes.view(np.int8).astype(np.int32).T
        with np.errstate(all="ignore"):
            return codes.astype(np.float32) * a.scale * b.scale

    claim = {"a": "int8 per_token", "b": "int8 per_channel(0)", "shapes": [(3, 4, 0), (0, 4, 5), (3, 0, 5)]}
    found = check(kernel, kind="matmul", **claim)
    assert found, str(found)


def test_an_option_of_products_was_taken_elsewhere():
    with pytest.raises(NumericsError, match="nonempty=True is for kind='matmul' alone"):
        check(lambda x: x, "fp4", nonempty=True)
