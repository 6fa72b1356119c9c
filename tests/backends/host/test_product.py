"""The sums of products: read in the order that docs/formats.md §11 says, on every executor."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numerics as nx
from numerics.backends.host.product import VALUES, Matrix, fused, order_of, run_of
from numerics.backends.reference import product as exact
from numerics.backends.reference.exact import exactly
from tests.helpers.bits import assert_same_bits
from tests.helpers.executors import each_executor
from tests.helpers.matrices import IN_INT8, MATRICES, matrix, rows

FLOAT32 = st.floats(width=32, allow_nan=False)


@given(FLOAT32, FLOAT32, FLOAT32)
def test_a_fused_product_was_rounded_twice(a, b, c):
    a, b, c = (np.float32(x) + np.float32(0) for x in (a, b, c))
    with np.errstate(all="ignore"):
        found = fused(np.array([a]), np.array([b]), np.array([c]))[0]
    due = np.float32(float(exact.fused(*(exactly(float(x)) for x in (a, b, c)))))
    assert found == due or (np.isnan(found) and np.isnan(due))


def test_a_sum_that_two_roundings_would_miss():
    """1 + 2**-24 + 2**-80 is above the tie that 1 + 2**-24 is."""
    tiny = np.float32(2.0**-40)
    found = fused(np.array([tiny]), np.array([tiny]), np.array([np.float32(1)]))
    assert found[0] == 1
    a, b = np.float32(1 + 2.0**-12), np.float32(1 + 2.0**-12)  # 1 + 2**-11 + 2**-24
    assert fused(np.array([a]), np.array([b]), np.array([np.float32(0)]))[0] == np.float32(1 + 2.0**-11)
    assert exact.fused(Fraction(1 + 2**-12), Fraction(1 + 2**-12), Fraction(1, 2**60)) > 1 + Fraction(
        1, 2**11
    )


@pytest.mark.parametrize(("bits", "run"), [(2, 16), (3, 32), (4, 4), (5, 32), (6, 16), (8, 4), (16, 2)])
def test_a_lane_reads_whole_words(bits, run):
    assert run_of(bits) == run


@pytest.mark.turns
@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("shape", [(1, 32), (5, 64), (3, 192)])
def test_an_executor_sums_otherwise(name, shape):
    """Against fractions: every code and scale as they come, ties and cancellation among the sums."""
    q = matrix(name, shape)
    x = rows(2, shape[1])
    with nx.use("reference"):
        due = nx.linear(x, q)
    for _ in each_executor(("array", "cpu")):
        assert_same_bits(nx.linear(x, q), due)


@pytest.mark.parametrize("name", IN_INT8)
@pytest.mark.parametrize("shape", [(1, 32), (3, 192)])
def test_an_executor_sums_integers_otherwise(name, shape):
    """Against fractions, with x quantized by the reference."""
    q, x = matrix(name, shape), rows(3, shape[1])
    with nx.use("reference"):
        due = nx.linear(x, q, compute="int8")
    for _ in each_executor(("array", "cpu")):
        assert_same_bits(nx.linear(x, q, compute="int8"), due)


@pytest.mark.parametrize("name", IN_INT8)
def test_products_in_int8_are_those_of_quantized_rows(name):
    """By float64: x quantized as the docstring says, times the values, is the same but for rounding."""
    q, x = matrix(name, (9, 192)), rows(5, 192)
    group = order_of(q.spec, q.shape).group
    near = nx.fake_quantize(x, "int8", scheme=nx.per_group(group) if group else nx.per_channel(0))
    due = near.astype(np.float64) @ q.dequantize("float64").T
    np.testing.assert_allclose(nx.linear(x, q, compute="int8"), due, rtol=1e-4, atol=1e-5 * abs(due).max())


def test_int8_multiplies_what_is_said_and_nothing_else():
    x = rows(2, 64)
    for name in MATRICES:
        if name not in IN_INT8:
            with pytest.raises(nx.NumericsError, match="compute='int8' cannot multiply this"):
                nx.linear(x, matrix(name, (8, 64)), compute="int8")
    with pytest.raises(nx.NumericsError, match="float64"):
        nx.linear(x.astype(np.float64), matrix("int4", (8, 64)), compute="int8")
    with pytest.raises(nx.NumericsError, match="compute"):
        nx.linear(x, matrix("int4", (8, 64)), compute="int4")


@pytest.mark.parametrize("name", MATRICES)
def test_codes_are_decoded_where_they_could_be_read(name):
    spec = MATRICES[name]
    decoded = name.startswith("decoded") or name == "nvfp3"  # 16 codes of 3 bits end within a word
    assert (order_of(spec, (4, 192)) == VALUES) == decoded


@pytest.mark.parametrize("length", [12, 20, 36])
def test_groups_that_a_lane_would_cut_are_decoded(length):
    spec = nx.QuantSpec("int4", scheme="per_group(6)")
    assert order_of(spec, (2, length)) == VALUES
    q = nx.quantize(rows(2, length), spec)
    with nx.use("reference"):
        due = nx.linear(rows(1, length), q)
    assert_same_bits(nx.linear(rows(1, length), q), due)


def test_sums_of_integers_leave_32_bits():
    """A zero point from elsewhere, a row of half a million: said before a kernel wraps."""
    q = matrix("int8 rows offset", (4, 64))
    zero = np.asarray(q.zero_point, np.int32)
    asked = Matrix(q.packed, np.asarray(q.scale), zero, None, q.spec, q.shape)
    assert asked.refusal is None
    assert "32 bits" in replace(asked, zero=zero + (1 << 23)).refusal
    assert "32 bits" in replace(asked, shape=(4, 1 << 20)).refusal
