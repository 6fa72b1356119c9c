"""Are more scales asked than 16 bits count?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.cases.many_scales import many_scales
from numerics.conform.products.claim import Claim

PARTS = {"scale": "shared", "zero_point": "zero_point"}


def product(a, b):
    a, b = (x if isinstance(x, np.ndarray) else np.asarray(x.dequantize("float32")) for x in (a, b))
    with np.errstate(all="ignore"):
        return a @ b.T


def counted_by_16_bits(x, part):
    """A side whose scales, or zero points, begin anew after 65,536 of them."""
    found = None if isinstance(x, np.ndarray) else getattr(x, part)
    if found is None:
        return x
    order = np.arange(found.size) & 0xFFFF
    return replace(x, **{PARTS[part]: found.reshape(-1)[order].reshape(found.shape)})


@pytest.mark.parametrize(
    ("a", "b", "part"),
    [
        ("float32", "mxfp4", "scale"),
        ("mxfp4", "float32", "scale"),
        ("float32", "nvfp4", "scale"),
        ("float32", "int4 per_group(128)", "scale"),
        ("float32", "uint4 per_group(64) asymmetric", "zero_point"),
        ("float32", "int8 per_channel(0)", "scale"),
        ("int8 per_token", "int8 per_tensor", "scale"),
    ],
)
def test_an_index_of_scales_that_has_16_bits_passed(a, b, part):
    claim = Claim.of(a, b)
    made = [problem.scattered() for problem in many_scales(Maker(claim, np.random.default_rng(0)))]
    wrong = ProductTarget(
        lambda a, b: product(counted_by_16_bits(a, part), counted_by_16_bits(b, part)), claim
    )
    right = ProductTarget(product, claim)
    assert any(wrong.see(problem).wrong.any() for problem in made)
    assert not any(right.see(problem).wrong.any() for problem in made)


def test_groups_of_so_many_numbers_that_their_scales_are_few_are_not_asked():
    claim = Claim.of("float32", "int4 per_group(1024)")
    assert not [*many_scales(Maker(claim, np.random.default_rng(0)))]
