"""The coverage of the oracle: what the kernels take, the reference takes, and says the same.

Wrong values of float64 under a draw stayed unseen because the reference refused that input.  So the
whole space of options is walked here, as the package itself lists it.
"""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np
import pytest

import numerics as nx
from numerics.formats.rounding import ROUNDINGS
from numerics.tensor.spec import SCALE_TYPES, ZERO_POINT_TYPES
from tests.helpers.bits import assert_same_bits
from tests.helpers.dtypes import BLOCKS, DECLARED, DECLARED_BLOCKS, ELEMENTS
from tests.helpers.marks import either_sign

KINDS = [np.dtype(kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]
X = np.array([[-1.3, 0.11, np.nan, 2.7], [1e-3, -0.0, 1.0, -2.5]])
SCHEMES = [nx.per_tensor(), nx.per_channel(0), nx.per_channel(1), nx.per_group(2), nx.per_group(3, axis=0)]
BITS = np.random.default_rng(3).integers((1 << 30) - (1 << 20), 1 << 30, X.shape).astype(np.uint32)


def draws(rounding: str) -> list[dict]:
    return [{"seed": 5}, {"random_bits": BITS}] if rounding == "stochastic" else [{}]


def agree(call, *inputs, **options) -> None:
    """NumPy's executor and the reference take a call, and give the same."""
    found = []
    for name in ("array", "reference"):
        with nx.use(name):
            found.append(call(*inputs, **options))
    for came, due in zip(*(one if isinstance(one, tuple) else (one,) for one in found), strict=True):
        assert_same_bits(came, due, on=f"{options}")


def quantized(x, d, **options):
    q = nx.quantize(x, d, **options)
    zero = () if q.zero_point is None else (q.zero_point,)
    return np.asarray(q.codes), np.asarray(q.scale), *zero, q.dequantize(), nx.fake_quantize(x, d, **options)


def affine_options(d):
    """Every way in which an element format may be quantized."""
    points = [{"symmetric": True}]
    if d.kind == "integer":
        points += [{"symmetric": False, "zero_point_type": kind} for kind in ZERO_POINT_TYPES]
    yield from product(points, SCALE_TYPES)


@pytest.mark.turns
@either_sign
@pytest.mark.parametrize("d", ELEMENTS + DECLARED, ids=str)
def test_the_reference_quantizes_whatever_the_kernels_quantize(d):
    every = 1 if d in (nx.uint4, nx.fp4) else 17  # all of it, or a part that differs by options
    for number, (point, scale_type) in enumerate(affine_options(d)):
        for place, (rounding, kind) in enumerate(product(ROUNDINGS, KINDS)):
            if (number + place) % every:
                continue
            scheme = SCHEMES[(number + place) % len(SCHEMES)]
            for draw in draws(rounding):
                agree(quantized, X.astype(kind), d=d, scheme=scheme, scale_type=scale_type, rounding=rounding,
                      **point, **draw)  # fmt: skip
        given = 0.7 if point["symmetric"] else 0.3
        agree(quantized, X, d=d, scale=given, scale_type=scale_type, rounding="stochastic", seed=1, **point)


@pytest.mark.turns
@pytest.mark.parametrize("d", ELEMENTS + DECLARED, ids=str)
def test_the_reference_encodes_whatever_the_kernels_encode(d):
    for number, (rounding, kind, overflow) in enumerate(product(ROUNDINGS, KINDS, d.overflows)):
        if d.bits > 8 and number % 11:  # whose steps take the reference long
            continue
        for draw in draws(rounding):
            options = {"rounding": rounding, "overflow": overflow, **draw}
            agree(lambda x, o=options: (d.encode(x, **o), d.round(x, **o)), X.astype(kind))


@pytest.mark.turns
@pytest.mark.parametrize("d", BLOCKS + DECLARED_BLOCKS, ids=str)
def test_the_reference_encodes_whatever_blocks_the_kernels_encode(d):
    rules = d.scale_rules
    for number, (rounding, kind, rule) in enumerate(product(ROUNDINGS, KINDS, rules)):
        if d not in (nx.mxfp4, nx.nvfp4, nx.mx6) and number % 7:
            continue
        for draw in draws(rounding):
            options = {"rounding": rounding, "scale_rule": rule, **draw}

            def both(x, o=options):
                made = d.encode(x, **o)
                shared = () if made.microexponents is None else (made.microexponents,)
                return made.codes, made.scale, *shared, d.round(x, **o)

            agree(both, np.where(np.isnan(X), 0.5, X).astype(kind))
