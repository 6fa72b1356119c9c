"""Are NaN, Inf, sums past the largest number and subnormal numbers asked where m, n and k are large?"""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import pytest

from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases import order
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.cases.order import problems
from numerics.conform.products.cases.tile_ends import SHAPES, tile_ends, tile_ends_of_batches
from numerics.conform.products.claim import Claim

SHORT = {"a": "bfloat16", "b": "bfloat16", "out": "bfloat16"}
PLAIN = {"a": "float32", "b": "float32"}
BATCHED = {**PLAIN, "layout": "bmk,bnk"}
CODES = {"a": "float32", "b": "mxfp4"}


@cache
def asked(**claim):
    claim = Claim.of(**claim)
    maker = Maker(claim, np.random.default_rng(0))
    made = tile_ends_of_batches(maker) if claim.laid.axes else tile_ends(maker)
    return claim, [problem.scattered() for problem in made]


def flush(x):
    return np.where(np.abs(x) < 2.0**-126, np.copysign(np.float32(0), x), x)


def nan_is_0(x):
    return np.where(np.isnan(x), np.float32(0), x)


def no_inf(x):
    return np.clip(x, -3.3895e38, 3.3895e38)


def same(x):
    return x


def past(least, axes=2):
    """Are m and n, or m, n and k, so large?"""
    return lambda sizes: min(sizes[:axes]) >= least


def kernel(claim, inputs=same, results=same, when=lambda sizes: True):
    """A product of which operands, or results, are changed in some shapes."""

    def product(a, b):
        a, b = (np.asarray(x if isinstance(x, np.ndarray) else x.dequantize("float32"), np.float32)
                for x in (a, b))  # fmt: skip
        with np.errstate(all="ignore"):
            if not when((a.shape[-2], b.shape[-2], a.shape[-1])):
                found = a @ b.mT
            else:
                found = results(inputs(a) @ inputs(b).mT)
            return found.astype(ml_dtypes.bfloat16 if claim.out == "bfloat16" else np.float32)

    return product


FAULTS = {
    **{f"subnormal inputs are 0, m n k past {size}": ("subnormals", PLAIN, {"inputs": flush}, past(size, 3))
       for size in (32, 64, 128)},
    **{f"subnormal results are 0, m n past {size}": ("subnormals", PLAIN, {"results": flush}, past(size))
       for size in (32, 64, 128)},
    **{f"NaN is 0, m n past {size}": ("special", PLAIN, {"results": nan_is_0}, past(size))
       for size in (32, 64, 128)},
    **{f"bfloat16 saturates, m n past {size}": ("output", SHORT, {"results": no_inf}, past(size))
       for size in (32, 64, 128)},
    "float32 saturates, m n past 128": ("output", PLAIN, {"results": no_inf}, past(128)),
    "float32 saturates, n past 256": ("output", PLAIN, {"results": no_inf}, lambda sizes: sizes[1] > 256),
    "subnormal results are 0, k past 256": ("subnormals", PLAIN, {"results": flush}, lambda s: s[2] > 256),
    "subnormal weights are 0, m n past 128": ("subnormals", CODES, {"inputs": flush}, past(128)),
    "batches of NaN that are 0": ("special", BATCHED, {"results": nan_is_0}, past(128, 3)),
}  # fmt: skip
"""The law, the claim, what is changed, and in which shapes."""


@pytest.mark.turns(4)
@pytest.mark.parametrize("name", FAULTS)
def test_ends_of_numbers_were_asked_in_thin_products_alone(name):
    law, options, change, when = FAULTS[name]
    claim, made = asked(**options)
    target = ProductTarget(kernel(claim, **change, when=when), claim)
    assert any(target.see(problem).wrong.any() for problem in made if problem.law == law)


@pytest.mark.parametrize("options", [SHORT, PLAIN, BATCHED, CODES])
def test_a_right_product_was_blamed_at_ends_of_numbers_in_tiles(options):
    claim, made = asked(**options)
    target = ProductTarget(kernel(claim), claim)
    assert not any(target.see(problem).wrong.any() for problem in made)
    assert {"special", "subnormals", "output"} <= {problem.law for problem in made}


def test_a_quick_check_asks_ends_of_numbers_in_one_shape_of_tiles(monkeypatch):
    monkeypatch.setattr(order, "_single", lambda *asked: iter(()))
    claim = Claim.of("float32", "float32")
    every, quick = ({problem.shape for problem in problems(claim, 0, None, how)} for how in (False, True))
    assert every == set(SHAPES)
    assert quick == {SHAPES[0]}
