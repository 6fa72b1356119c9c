"""Every executor equals the exact judge on blocks: families x rules x roundings x axes x oddities."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import numerics as nx
from numerics.formats.rounding import FOUR_OVER_SIX, ROUNDINGS
from tests.helpers.bits import assert_same_bits
from tests.helpers.dtypes import BLOCKS, DECLARED_BLOCKS
from tests.helpers.executors import LONG, each_executor
from tests.helpers.inputs import edges

rng = np.random.default_rng(2)


def _near(low: int, high: int, rows: int) -> np.ndarray:
    return (rng.standard_normal((rows, 96)) * np.exp2(rng.integers(low, high, (rows, 1)))).astype(np.float32)


def _from_bits(low: int, high: int, rows: int) -> np.ndarray:
    bits = rng.integers(low, high, (rows, 96)).astype(np.uint32)
    return (bits | rng.integers(0, 2, bits.shape).astype(np.uint32) << np.uint32(31)).view(np.float32)


def _thresholds() -> np.ndarray:
    """Block maxima one ulp around the significands where a scale rule changes, at many exponents."""
    significands = [0, 0x400000, 0x600000, 0x700000, 0x780000, 0x7C0000, 0x7F8000, 0x7FC000, 0x7E0000]
    exponents = [0, 1, 2, 127, 128, 254]
    bits = [(e << 23) + s + d for e in exponents for s in significands for d in (-1, 0, 1)]
    tops = np.clip(bits, 0, 0x7F7FFFFF).astype(np.uint32)
    x = np.zeros((len(tops), 16), np.uint32)
    x[:, 5] = tops
    x[:, 2] = np.maximum(tops, 0x00800000) - 0x00800000
    return x.view(np.float32)


def _specials() -> np.ndarray:
    x = _near(-3, 4, 8)
    x[0, 3], x[1, 40], x[2, 95], x[3] = np.inf, -np.inf, np.nan, np.nan
    x[4], x[5], x[6, :50] = 0, -0.0, 0
    x[7, ::2] = 3.4e38
    return x


def _ties() -> np.ndarray:
    return (_near(-2, 3, 6).view(np.uint32) & np.uint32(0xFFF00000)).view(np.float32)


CASES = {  # rows of 96, but the thresholds
    "ordinary": _near(-3, 4, 4),
    "tiny": _near(-140, -110, 4),
    "huge": _near(115, 126, 4),
    "subnormal": _from_bits(1, 1 << 24, 4),
    "mixed magnitudes": _from_bits(0, 0x7F800000, 4),
    "near the largest": _from_bits(0x7F000000, 0x7F800000, 3),
    "thresholds": _thresholds(),
    "specials": _specials(),
    "ties": _ties(),
}


def _beneath(*cases: str, rows: int) -> np.ndarray:
    """The first rows of each case."""
    return np.concatenate([CASES[case][:rows] for case in CASES if case in cases])


SEARCHES = ("mse", *FOUR_OVER_SIX)


def _same(d: nx.Block, x: np.ndarray, turn: int = 0, **options) -> None:
    """On each executor whose turn it is as on the reference: blocks, values, bytes."""
    with nx.use("reference"):
        judged, values = d.encode(x, **options), d.round(x, **options)
        back, stored = judged.decode(), d.pack(judged)
    for name in each_executor(turn=turn):
        encoded = d.encode(x, **options)
        assert_same_bits(encoded.codes, judged.codes, x, name)
        assert_same_bits(encoded.scale, judged.scale, None, name)
        if judged.microexponents is not None:
            assert_same_bits(encoded.microexponents, judged.microexponents, None, name)
        assert_same_bits(encoded.decode(), back, x, name)
        assert_same_bits(d.round(x, **options), values, x, name)
        assert_same_bits(d.pack(encoded), stored, None, name)
        assert encoded.tensor_scale == judged.tensor_scale


@pytest.mark.turns(18)
@pytest.mark.parametrize("cases", ["thresholds", "all others"])
@pytest.mark.parametrize("dtype", BLOCKS + DECLARED_BLOCKS, ids=repr)
def test_blocks_equal_reference(dtype, cases):
    """Cases are put beneath each other: a launch that is interpreted costs the same for all as for one."""
    few = 400 if dtype.block <= 32 else 12
    x = CASES[cases][:few] if cases in CASES else _beneath(*(set(CASES) - {"thresholds"}), rows=few)
    for turn, rule in enumerate(dtype.scale_rules):
        some = x[::8] if rule in SEARCHES else x  # the judge tries each code by itself
        _same(dtype, some, turn if cases in CASES else 0, scale_rule=rule)


@pytest.mark.turns(18)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", BLOCKS + DECLARED_BLOCKS, ids=repr)
def test_blocks_of_every_rounding_equal_the_reference(dtype, rounding):
    seed = {"seed": 11} if rounding == "stochastic" else {}
    x = _beneath("ordinary", "mixed magnitudes", "subnormal", "ties", rows=2)
    turn = (BLOCKS + DECLARED_BLOCKS).index(dtype) + ROUNDINGS.index(rounding)
    _same(dtype, x, turn, rounding=rounding, **seed)


@pytest.mark.turns
@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("dtype", BLOCKS, ids=repr)
def test_blocks_of_every_input_type_equal_the_reference(dtype, kind):
    with np.errstate(all="ignore"):
        x = np.concatenate([CASES["ordinary"], CASES["tiny"][:1], CASES["specials"][:3]]).astype(kind)
        if kind is np.float64:
            x = np.concatenate([np.nextafter(x, 0), x[:1] * 1e-300, x[:1] * 1e300])
    _same(dtype, x)


def test_values_beyond_float32_count_as_its_largest(executor):
    largest = np.finfo(np.float32).max
    _, wide = nx.mxfp4.encode(np.array([1.0, 1e300])), nx.mxfp4.round(np.array([1.0, 1e300]))
    assert wide.tolist() == nx.mxfp4.round(np.array([1.0, float(largest)])).tolist()


@settings(max_examples=40 if LONG else 16)
@given(
    x=npst.arrays(
        np.float32,
        npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=40),
        elements=st.floats(width=32),
        fill=st.just(0.0),
    ),
    dtype=st.sampled_from(BLOCKS + DECLARED_BLOCKS),
    data=st.data(),
)
def test_blocks_of_any_shape_axis_and_strides_equal_the_reference(x, dtype, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    if data.draw(st.booleans()):
        x = x.T
    rounding = data.draw(st.sampled_from(ROUNDINGS))
    seed = {"seed": 5} if rounding == "stochastic" else {}
    rule = data.draw(st.sampled_from(dtype.scale_rules))
    _same(dtype, x, axis=axis, rounding=rounding, scale_rule=rule, **seed)


@pytest.mark.turns
@pytest.mark.parametrize("dtype", BLOCKS + DECLARED_BLOCKS, ids=repr)
def test_packed_blocks_come_back(executor, dtype):
    for shape, axis in [((3, 50), -1), ((50, 3), 0), ((7,), 0), ((2, 64), 1), ((0, 5), 1), ((4, 0), -1)]:
        x = rng.standard_normal(shape).astype(np.float32)
        made = dtype.encode(x, axis=axis)
        packed = dtype.pack(made)
        scale = None if isinstance(dtype, nx.MicroexponentBlock) else made.scale
        again = dtype.unpack(packed, shape, axis=axis, scale=scale, tensor_scale=made.tensor_scale)
        assert_same_bits(again.codes, made.codes)
        assert_same_bits(again.scale, made.scale)
        assert_same_bits(again.decode(), made.decode())
        if isinstance(dtype, nx.MicroexponentBlock):
            assert packed.size == made.scale.size * dtype.bytes_per_block


def test_the_layout_that_docs_publish(executor):
    """docs/layout.md, byte for byte: one mx6 block written by hand."""
    x = [1.0, -0.5, 0.25] + [0.0] * 13
    made = nx.mx6.encode(x)
    assert made.codes[:4] == [8, 20, 4, 0]
    packed = nx.mx6.pack(made)
    assert packed == [0x48, 0x04, 0, 0, 0, 0, 0, 0, 0b10, 0, 0b11111110, 127]


def test_stochastic_draws_do_not_depend_on_the_axis(executor):
    """Element index to counter is that of the caller's tensor, whatever is blocked how."""
    x = rng.standard_normal((16, 16)).astype(np.float32)
    bits = rng.integers(0, 1 << 30, (16, 16)).astype(np.uint32)
    a = nx.mx9.encode(x, axis=0, rounding="stochastic", random_bits=bits)
    b = nx.mx9.encode(x.T.copy(), axis=1, rounding="stochastic", random_bits=bits.T)
    assert_same_bits(a.codes, b.codes.T)


@pytest.mark.turns
@pytest.mark.parametrize("dtype", BLOCKS + DECLARED_BLOCKS, ids=repr)
def test_out_is_written_in_place(executor, dtype):
    for shape, axis in [((4, 2 * dtype.block), -1), ((50, 3), 0)]:
        x = rng.standard_normal(shape).astype(np.float32)
        due = dtype.encode(x, axis=axis)
        room = dtype.encode(np.zeros_like(x), axis=axis)
        made = dtype.encode(x, axis=axis, out=room)
        for name in ("codes", "scale", "microexponents"):
            if getattr(due, name) is not None:
                assert getattr(made, name) is getattr(room, name)
                assert_same_bits(getattr(made, name), getattr(due, name))


def test_out_of_another_shape_is_refused(executor):
    room = nx.mx6.encode(np.zeros((2, 16), np.float32))
    with pytest.raises(nx.NumericsError, match=r"out\.codes must be a uint8 (array|tensor) of shape"):
        nx.mx6.encode(np.zeros((2, 17), np.float32), out=room)
    with pytest.raises(nx.NumericsError, match="out must be Blocks of mx9"):
        nx.mx9.encode(np.zeros((2, 16), np.float32), out=room)


def test_a_tensor_scale_is_rounded_to_float32_before_use(executor):
    """1/3 lies beside float32's numbers: it is stored, and used, as the nearest of them."""
    x = edges(seed=4, random=16)[:256].reshape(4, 64)
    made = nx.nvfp4.encode(x, tensor_scale=1 / 3)
    assert made.tensor_scale == float(np.float32(1 / 3)) != 1 / 3
    with nx.use("reference"):
        due = nx.nvfp4.round(x, tensor_scale=1 / 3)
    assert_same_bits(nx.nvfp4.round(x, tensor_scale=1 / 3), due)
    assert_same_bits(made.decode(), due)
    given = nx.Blocks(nx.nvfp4, -1, made.codes, made.scale, None, 1 / 3)
    assert_same_bits(given.decode(), due)
