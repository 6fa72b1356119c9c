"""The strategies give what matters, and the laws hold on all that they give."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import find, given, seed, settings
from hypothesis import strategies as st

import numerics as nx
from numerics.conform import strategies
from numerics.conform.laws.blocks import BLOCK_LAWS, SeenBlocks
from numerics.conform.laws.elements import Elements, element_laws
from numerics.conform.task import Fields, Task
from numerics.formats.rounding import DETERMINISTIC

SEEDS = 1000 if os.environ.get("NUMERICS_TEST_LONG") else 50
ELEMENTS = (nx.fp8_e4m3, nx.fp8_e5m2, nx.fp6_e3m2, nx.fp4, nx.e8m0, nx.fp8_e4m3fnuz, nx.int8, nx.uint4)
BLOCKS = (nx.mxfp4, nx.mxfp8_e5m2, nx.mxint8, nx.mx6, nx.mx9)


@pytest.mark.turns
@seed(1)
@settings(max_examples=SEEDS, derandomize=False, database=None)
@given(data=st.data())
def test_a_right_kernel_never_breaks_a_law(data):
    dtype, rounding = data.draw(st.sampled_from(ELEMENTS)), data.draw(st.sampled_from(DETERMINISTIC))
    task = Task.of(
        dtype, rounding=rounding, overflow=data.draw(st.sampled_from(dtype.overflows)), strict_nan=True
    )
    x = data.draw(strategies.arrays(dtype, max_side=12))
    came = dtype.encode(x, rounding=rounding, overflow=task.overflow).reshape(-1)
    flat = np.ascontiguousarray(x).reshape(-1)
    if flat.size:
        seen = Elements(task, flat, came, task.codes(flat))
        assert [law(seen) for law in element_laws(task)] == [None] * len(element_laws(task))


@pytest.mark.turns
@seed(2)
@settings(max_examples=SEEDS, derandomize=False, database=None)
@given(data=st.data())
def test_right_blocks_never_break_a_law(data):
    dtype = data.draw(st.sampled_from(BLOCKS))
    rule = data.draw(st.sampled_from(dtype.scale_rules))
    task = Task.of(dtype, rounding=data.draw(st.sampled_from(DETERMINISTIC)), scale_rule=rule)
    x = data.draw(strategies.blocks(dtype))
    made = dtype.encode(x, rounding=task.rounding, scale_rule=rule)
    blocking = task.blocking(x.shape)
    came, due = (
        Fields(
            blocking.rows(f.codes),
            f.scale.reshape(-1),
            None if f.microexponents is None else f.microexponents.reshape(-1),
        )
        for f in (made, task.fields(x))
    )
    if len(came.scale):
        seen = SeenBlocks(task, blocking.rows(x), came, due, due)
        assert [law(seen) for law in BLOCK_LAWS] == [None] * len(BLOCK_LAWS)


@seed(3)
@settings(max_examples=30, derandomize=False, database=None)
@given(data=st.data())
def test_stochastic_rounding_on_any_bits(data):
    x = data.draw(strategies.arrays(nx.fp8_e4m3, max_side=5))
    bits = data.draw(strategies.random_bits(x.shape))
    task = Task.of("fp8_e4m3", rounding="stochastic")
    came = nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=bits)
    assert np.array_equal(came, task.codes(x, bits))


@settings(max_examples=30)
@given(codes=strategies.codes(nx.fp6_e3m2, max_side=6))
def test_codes_are_codes(codes):
    assert nx.fp6_e3m2.encode(nx.fp6_e3m2.decode(codes)).tolist() == codes.tolist()


@pytest.mark.turns
@pytest.mark.parametrize(
    "wanted",
    [
        lambda x: 448 < abs(x) <= 464,
        lambda x: np.isfinite(x) and x.view(np.uint32) & 0xFFFFF == 0x80000,
        lambda x: np.isfinite(x) and x.view(np.uint32) & 0xFFFFF == 0x80001,
        lambda x: x == 0 and np.signbit(x),
        np.isnan,
        np.isinf,
        lambda x: 0 < abs(x) < 2.0**-126,
        lambda x: x.view(np.uint32) & 0x7FFFFFFF == 0x7F800001,
    ],
)
def test_what_matters_is_drawn(wanted):
    assert wanted(
        find(strategies.values(nx.fp8_e4m3), wanted, settings=settings(max_examples=4000, database=None))
    )


@pytest.mark.turns
@pytest.mark.parametrize(
    "wanted",
    [
        lambda x: x.shape[-1] % 32,
        lambda x: x.shape[0] > 1 and x.shape[-1] > 32,
        lambda x: np.nextafter(np.float32(8), np.float32(0)) in np.abs(x),
        lambda x: np.isnan(x).any(),
        lambda x: x.size and not (x != 0).any(),
    ],
)
def test_blocks_that_matter_are_drawn(wanted):
    assert wanted(
        find(strategies.blocks(nx.mxfp4), wanted, settings=settings(max_examples=4000, database=None))
    )


def test_blocks_lie_along_their_axis():
    assert find(strategies.blocks(nx.mxfp4, axis=0), lambda x: x.shape == (33, 1)).shape == (33, 1)
