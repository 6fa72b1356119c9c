"""Integers that leave their least code out (-127 to 127): against torch's fake quantization."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.formats.rounding import DETERMINISTIC
from numerics.formats.text import dtype_of, facts_of
from tests.helpers.bits import assert_same_bits

EIGHT, FOUR = nx.integer_format(8, narrow=True), nx.integer_format(4, narrow=True)
X = np.concatenate([np.linspace(-80, 80, 2001), [-63.75, -63.5, -63.25, -0.0, np.inf, -np.inf]]).astype("f4")


@pytest.mark.parametrize("zero", [0, 3, -127, 127])
def test_a_narrow_int8_is_that_of_torch(executor, zero):
    scale = 0.5  # a power of two: torch multiplies by the reciprocal
    due = torch.fake_quantize_per_tensor_affine(torch.from_numpy(X), scale, zero, -127, 127).numpy()
    given = {"scale": scale} | ({"zero_point": zero, "symmetric": False} if zero else {})
    assert np.array_equal(nx.fake_quantize(X, EIGHT, **given), due)
    q = nx.quantize(X, EIGHT, **given)
    assert np.array_equal(q.dequantize(), due)
    assert not np.any(q.codes == 0x80)


@pytest.mark.turns
@pytest.mark.parametrize("d", [EIGHT, FOUR], ids=repr)
def test_narrow_integers_equal_the_reference(executor, d):
    with nx.use("reference"):
        due = [d.encode(X, rounding=r) for r in DETERMINISTIC]
        offset = nx.quantize(X[:-2], d, symmetric=False, zero_point_type="float32").codes
        rules = nx.mx(d).scale_rules
        blocks = [nx.mx(d).encode(X, scale_rule=rule) for rule in rules]
    for rounding, codes in zip(DETERMINISTIC, due, strict=True):
        assert_same_bits(d.encode(X, rounding=rounding), codes, X)
    codes = nx.quantize(X[:-2], d, symmetric=False, zero_point_type="float32").codes
    assert_same_bits(codes, offset, X[:-2])
    for rule, block in zip(rules, blocks, strict=True):
        came = nx.mx(d).encode(X, scale_rule=rule)
        assert_same_bits(came.codes, block.codes, X, rule)
        assert_same_bits(came.scale, block.scale, None, rule)


def test_a_zero_point_has_the_steps_of_the_narrow_range():
    q = nx.quantize(np.float32([-1, 3]), EIGHT, symmetric=False)
    assert q.scale == np.float32(4) / np.float32(254)
    assert q.zero_point == np.rint(-127 + 1 / (4 / 254))


def test_a_format_is_written_with_its_range_and_read_without_it():
    assert facts_of(EIGHT)["narrow"] is True
    assert dtype_of(facts_of(EIGHT)) is EIGHT
    before = facts_of(nx.integer_format(5))
    assert "narrow" not in before, "files that others read had one fact more"
    assert dtype_of(before) is nx.integer_format(5)
    assert nx.integer_format(8, narrow=False) is nx.int8
    assert nx.integer_format(8, narrow=True) is EIGHT is not nx.int8


def test_what_has_no_sign_has_no_narrow_range():
    with pytest.raises(nx.NumericsError, match="a narrow range is of signed integers"):
        nx.integer_format(8, signed=False, narrow=True)


def test_gradients_end_where_the_range_does():
    x = torch.tensor([-127.5, -127.49, -126.0, 127.0, 127.5], requires_grad=True)
    nx.fake_quantize(x, EIGHT, scale=torch.tensor(1.0), clip_gradient=True).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]  # -127.5 rounds to -128, as 127.5 does to 128
