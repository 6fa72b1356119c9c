"""The sums of products: read in the order that docs/formats.md §11 says, on every executor."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

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
@pytest.mark.parametrize("shape", [(1, 32), (5, 64), (3, 192), (2, 24), (3, 120)])
def test_an_executor_sums_otherwise(name, shape):
    """Against fractions: every code and scale as they come, ties and cancellation among the sums."""
    q = matrix(name, shape)
    x = rows(2, shape[1])
    with nx.use("reference"):
        due = nx.linear(x, q)
    for _ in each_executor(("array", "cpu")):
        assert_same_bits(nx.linear(x, q), due)


@pytest.mark.parametrize("name", IN_INT8)
@pytest.mark.parametrize("shape", [(1, 32), (3, 192), (2, 24), (3, 120)])
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


def reasons(spec, shape):
    """Why docs/formats.md §11 says that a matrix is decoded first, in its own words."""
    d, length = spec.dtype, shape[1]
    blocks, micro, bits = spec.blocked, bool(getattr(d, "sub_blocks", 0)), getattr(d, "element_bits", d.bits)
    axis = (spec.axis or 0) % 2 if blocks else spec.partition(shape).axis
    group = d.block if blocks else spec.partition(shape).size
    run = d.block if micro else 4 if bits == 4 else np.lcm(32, bits) // bits
    span = 16 * run
    a_row = not blocks and group is not None and axis == 1 and group >= length
    whole = a_row or group is None or axis != 1 or not (group % run or (span % group and group % span))
    scaled = blocks or spec.scaled
    return [text for text, holds in {
        "blocks along another axis": blocks and axis == 0,
        "a scale a column": not blocks and (axis == 1 if group is None else axis == 0),
        "zero points that are no integers": not spec.symmetric and spec.zero_point_type == "float32",
        "groups or blocks that a lane or a span would cut": not whole,
        "rows that do not end on a byte": not micro and length * bits % 8,
        "codes of more than 16 bits, and in blocks of more than 8": bits > (8 if blocks else 16),
        "scales of blocks that take no byte": blocks and not micro and d.scale_bits != 8,
        "blocks of two readings": getattr(d, "has_two_readings", False),
        "microexponents beside those of mx4, mx6 and mx9":
            micro and (d.block, d.sub_block, d.mantissa) not in [(16, 2, m) for m in (2, 4, 7)],
        "elements with a scale that reach 2<sup>40</sup>":
            not micro and scaled and (d.element if blocks else d).max >= 2.0**40,
    }.items() if holds]  # fmt: skip


def every_spec():
    """Formats of every kind, and some of nobody's, with each scheme that they take."""
    made = [
        {"element": "fp4", "block": 24}, {"element": "fp8_e5m2", "block": 8},
        {"element": "fp6_e2m3", "block": 16},
        {"element": "int8", "block": 12}, {"element": "fp4", "block": 16, "scale": nx.float_format(4, 2)},
        {"element": "float16", "block": 32},
        {"block": 16, "mantissa": 3, "sub_block": 2}, {"block": 32, "mantissa": 4, "sub_block": 4},
    ]  # fmt: skip
    blocks = [d for d in nx.dtypes() if d.kind == "block"] + [nx.block_format(**facts) for facts in made]
    yield from (nx.QuantSpec(d, axis=axis) for d in blocks for axis in (-1, 0, 1))
    schemes = ["per_tensor", "per_channel(0)", "per_channel(1)", "per_token", "per_block((2, 16))"]
    schemes += [
        f"per_group({size}{axis})" for size in (4, 6, 16, 24, 32, 48, 128) for axis in ("", ", axis=0")
    ]
    for d in nx.dtypes():
        if d.kind != "block":
            offset = [{}, {"symmetric": False}] if d.kind == "integer" else [{}]
            offset += [{"symmetric": False, "zero_point_type": "float32"}] * (d.kind == "integer")
            yield from (nx.QuantSpec(d, scheme=scheme, **more) for scheme in schemes for more in offset)
            yield nx.QuantSpec(d)


@pytest.mark.parametrize("length", [4, 12, 20, 24, 100, 112, 120, 192])
def test_what_is_decoded_is_what_the_page_says(length):
    """Rows that end in a short block were decoded, and the page did not say so."""
    page = " ".join(Path("docs/formats.md").read_text(encoding="utf-8").split())
    told = page.partition("and summed with runs of one:")[2].partition("A short last group")[0]
    seen = set()
    for spec in every_spec():
        why = reasons(spec, (6, length))
        assert all(text in told for text in why)
        assert (order_of(spec, (6, length)) == VALUES) == bool(why), (spec, why)
        seen.update(why)
    assert length != 100 or len(seen) == 10, seen


@pytest.mark.parametrize("name", MATRICES)
def test_codes_are_decoded_where_they_could_be_read(name):
    spec = MATRICES[name]
    decoded = name.startswith(("decoded", "if")) or name in ("nvfp3", "hifloat4")  # see `order_of`
    assert (order_of(spec, (4, 192)) == VALUES) == decoded


@pytest.mark.parametrize("length", [12, 20, 36])
def test_groups_that_a_lane_would_cut_are_decoded(length):
    spec = nx.QuantSpec("int4", scheme="per_group(6)")
    assert order_of(spec, (2, length)) == VALUES
    q = nx.quantize(rows(2, length), spec)
    with nx.use("reference"):
        due = nx.linear(rows(1, length), q)
    assert_same_bits(nx.linear(rows(1, length), q), due)


ONE_A_ROW = ["per_token", "per_group(160)", "per_group(512)", "per_block((1, 160))"]


@pytest.mark.parametrize("scheme", ONE_A_ROW)
@pytest.mark.parametrize("length", [24, 64, 160])
def test_a_scale_a_row_was_read_as_a_group(scheme, length):
    """The same codes and scales, asked for in another way, gave other bits; at 160 they were decoded."""
    x = rows(3, length)
    for name in ["int4", "int8", "uint4", "int3", "int16", "fp4", "fp8_e4m3", "fp6_e2m3", "nf4", "float16"]:
        for offset in [{}, {"symmetric": False}] if "int" in name else [{}]:
            w = abs(rows(5, length, seed=3))
            due = nx.quantize(w, name, scheme="per_channel(0)", **offset)
            q = nx.quantize(w, name, scheme=scheme, **offset)
            assert_same_bits(np.ravel(q.scale), np.ravel(due.scale))
            for compute in ["float32", "int8"] if name in ("int4", "int8", "uint4", "fp4") else ["float32"]:
                for _ in each_executor(("array", "cpu")):
                    assert_same_bits(nx.linear(x, q, compute=compute), nx.linear(x, due, compute=compute))


def test_rows_of_nothing_have_no_groups():
    q = nx.quantize(np.zeros((4, 0), np.float32), "int8", scheme="per_token")
    assert nx.linear(np.zeros((2, 0), np.float32), q).tolist() == [[0.0] * 4] * 2


def test_sums_of_integers_leave_32_bits():
    """A zero point from elsewhere, a row of half a million: said before a kernel wraps."""
    q = matrix("int8 rows offset", (4, 64))
    zero = np.asarray(q.zero_point, np.int32)
    asked = Matrix(q.packed, np.asarray(q.scale), zero, None, q.spec, q.shape)
    assert asked.refusal is None
    assert "32 bits" in replace(asked, zero=zero + (1 << 23)).refusal
    assert "32 bits" in replace(asked, shape=(4, 1 << 20)).refusal
