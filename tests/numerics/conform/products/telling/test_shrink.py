"""Is the smallest case of a product as short as what breaks it, wherever that stands in a row?"""

from __future__ import annotations

import numpy as np
import pytest

from numerics.conform import check
from numerics.conform.products.cases.order import problems
from numerics.conform.products.claim import Claim


def values(x):
    return x if isinstance(x, np.ndarray) else x.dequantize("float32")


def product(a, b):
    with np.errstate(all="ignore"):
        return (values(a).astype(np.float64) @ values(b).astype(np.float64).T).astype(np.float32)


def without_last_columns(a, b):
    found = product(a, b)
    if found.shape[1] > 16:
        found[:, found.shape[1] // 16 * 16 :] = 0
    return found


def without_sign_of_long_sums(a, b):
    return np.abs(product(a, b)) if a.shape[1] >= 8 else product(a, b)


def without_sign(a, b):
    return np.abs(product(a, b))


@pytest.mark.parametrize(
    ("kernel", "b", "due"),
    [
        (without_last_columns, "float32", "m=1 n=17 k=1"),
        (without_sign_of_long_sums, "float32", "m=1 n=1 k=8"),
        (without_sign, "mxfp8_e4m3", "m=1 n=1 k=1"),
        (without_sign, "int4 per_group(32)", "m=1 n=1 k=1"),
    ],
)
def test_a_smallest_case_had_all_terms_before_the_one_that_breaks_the_law(kernel, b, due):
    found = check(kernel, kind="matmul", a="float32", b=b, effort="quick", shapes=[(3, 17, 41)])
    assert found.counterexample.where.startswith(f"{due}, "), str(found)
    assert len(found.counterexample.terms) == 1


def test_a_smallest_square_was_as_large_as_the_first():
    def kernel(a, b):
        return product(a, b.T if len(b) == b.shape[1] > 1 else b)

    found = check(kernel, kind="matmul", a="float32", b="float32", effort="quick", shapes=[(4, 9, 9)])
    assert found.counterexample.where.startswith("m=1 n=2 k=2, "), str(found)


def test_terms_of_other_blocks_do_not_share_a_scale():
    side = next(problems(Claim.of("float32", "mxfp4"), 0, ((2, 3, 80),))).b
    assert side.of_terms([1, 40]) is None
    one, block = side.of_terms([40]), side.of_terms([*range(32, 64), 79])
    assert np.array_equal(one.values, side.values[:, [40]], equal_nan=True)
    assert np.array_equal(block.values, side.values[:, [*range(32, 64), 79]], equal_nan=True)
