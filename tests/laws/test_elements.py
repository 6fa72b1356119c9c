"""Every executor equals the exact judge on elements: formats x roundings x policies x input types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import numerics as nx
from numerics.backends.cpu import threads
from numerics.formats.rounding import DETERMINISTIC, ROUNDINGS
from tests.helpers.bits import assert_same_bits
from tests.helpers.dtypes import DECLARED, ELEMENTS
from tests.helpers.executors import EXECUTORS, each_executor
from tests.helpers.inputs import edges

FORMATS = ELEMENTS + DECLARED
LISTED = [d for d in FORMATS if d.kind == "codebook" and d.bits == 8]
X32 = edges()
rng = np.random.default_rng(1)


def _float64(count: int) -> np.ndarray:
    """Just off float32's values, beyond its range at both ends, and specials."""
    base = rng.choice(X32, count).astype(np.float64)
    nudged = np.concatenate([np.nextafter(base, 0), np.nextafter(base, np.inf), base * (1 + 2.0**-40)])
    wide = rng.integers(0, 1 << 63, count).view(np.float64) * rng.choice([-1.0, 1.0], count)
    return np.concatenate([nudged, wide, [1e300, -1e300, 1e-300, -1e-300, 5e-324]])


with np.errstate(all="ignore"):
    SMALL = {
        "float32": rng.choice(X32, 400),
        "float64": _float64(250),
        "float16": rng.integers(0, 1 << 16, 1000).astype(np.uint16).view(np.float16),
        "bfloat16": rng.integers(0, 1 << 16, 1000).astype(np.uint16).view(ml_dtypes.bfloat16),
    }


def _judged(what: str, d: nx.Element, x: np.ndarray, **options) -> np.ndarray:
    with nx.use("reference"):
        return getattr(d, what)(x, **options)


@pytest.mark.turns(18)
@pytest.mark.parametrize("dtype", FORMATS, ids=repr)
def test_encode_and_round_equal_reference(dtype):
    wide = dtype.bits == 16 or dtype in LISTED  # long lists of breakpoints; the proof covers every mode
    for overflow in dtype.overflows[-1:] if wide else dtype.overflows:
        for turn, rounding in enumerate(DETERMINISTIC[:: 3 if wide else 1], FORMATS.index(dtype)):
            options = {"rounding": rounding, "overflow": overflow}
            codes = _judged("encode", dtype, X32, **options)
            values = _judged("decode", dtype, codes)
            for name in each_executor(turn=0 if rounding == "half_even" else turn):
                assert_same_bits(dtype.encode(X32, **options), codes, X32, name)
                assert_same_bits(dtype.round(X32, **options), values, X32, name)


@pytest.mark.turns(22)
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("dtype", FORMATS, ids=repr)
def test_every_input_type_is_rounded_once(dtype, kind):
    x = SMALL[kind]
    overflow = dtype.overflows[-1]
    every = ROUNDINGS[
        :: 2 if dtype.bits == 16 or dtype in LISTED else 1
    ]  # the proof covers 16 bits in every mode
    roundings = ("stochastic",) if kind == "float32" else every  # the others: above
    for turn, rounding in enumerate(roundings, list(SMALL).index(kind) + FORMATS.index(dtype)):
        options = {"rounding": rounding, "overflow": overflow}
        if rounding == "stochastic":
            options["seed"] = 7
        codes, values = (_judged(what, dtype, x, **options) for what in ("encode", "round"))
        for name in each_executor(turn=turn if len(roundings) > 1 else 0):
            assert_same_bits(dtype.encode(x, **options), codes, x, name)
            assert_same_bits(dtype.round(x, **options), values, x, name)


@pytest.mark.parametrize("dtype", FORMATS, ids=repr)
def test_decode_every_code(dtype):
    codes = np.arange(1 << dtype.bits).astype(dtype.code_dtype)
    due = _judged("decode", dtype, codes)
    for name in each_executor():
        assert_same_bits(dtype.decode(codes), due, codes, name)


@pytest.mark.parametrize("dtype", FORMATS, ids=repr)
def test_encoding_a_decoded_code_gives_it_back(executor, dtype):
    codes = np.arange(1 << dtype.bits).astype(dtype.code_dtype)
    values = dtype.decode(codes)
    kept = ~np.isnan(values)
    if dtype.kind == "float" and not dtype.subnormals and dtype.has_zero:  # codes that read as zero
        kept &= (values != 0) | (codes << (16 - dtype.bits + dtype.signed) == 0)
        kept &= (values != 0) | ((codes & ((1 << (dtype.bits - dtype.signed)) - 1)) == 0)
    kept &= np.isfinite(values) | ("nonsaturate" in dtype.overflows)
    again = dtype.encode(values[kept], overflow=dtype.overflows[-1])
    assert_same_bits(again, codes[kept], values[kept])


@pytest.mark.parametrize("dtype", [nx.fp8_e4m3, nx.fp6_e2m3, nx.int4, nx.bfloat16, nx.e8m0], ids=repr)
def test_stochastic_bits_given_or_drawn(executor, dtype):
    x = SMALL["float32"]
    bits = rng.integers(0, 1 << 32, x.size, dtype=np.uint64).astype(np.uint32)
    options = {"rounding": "stochastic", "random_bits": bits}
    assert_same_bits(dtype.encode(x, **options), _judged("encode", dtype, x, **options), x)
    high = {"rounding": "stochastic", "random_bits": np.full(x.size, (1 << 30) - 1, np.uint32)}
    low = {"rounding": "stochastic", "random_bits": np.zeros(x.size, np.uint32)}
    assert_same_bits(dtype.round(x, **low), dtype.round(x, rounding="toward_zero"), x)
    exact = dtype.round(x)
    assert_same_bits(dtype.round(exact, **high), dtype.round(exact), exact)


def test_stochastic_is_unbiased_over_all_draws(executor):
    """Of 2**12 evenly spread draws, exactly the discarded fraction goes up."""
    draws = (np.arange(1 << 12, dtype=np.uint32) << np.uint32(18)).astype(np.uint32)
    for part in (0, 1, 2048, 4095):
        x = np.full(draws.shape, 1 + part / 4096 / 8, np.float32)
        up = nx.fp8_e4m3.round(x, rounding="stochastic", random_bits=draws) > 1
        assert up.sum() == part


@pytest.mark.turns
@pytest.mark.parametrize("name", EXECUTORS)
@given(
    x=npst.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
    ),
    dtype=st.sampled_from(ELEMENTS),
    rounding=st.sampled_from(ROUNDINGS),
    order=st.sampled_from(["plain", "fortran", "reversed", "strided"]),
)
def test_elements_of_any_shape_and_strides_equal_the_reference(name, x, dtype, rounding, order):
    if order == "fortran":
        x = np.asfortranarray(x)
    elif order == "reversed":
        x = x[::-1] if x.ndim else x
    elif order == "strided":
        x = x[..., ::2] if x.ndim else x
    before = x.copy()
    options = {"rounding": rounding, **({"seed": 3} if rounding == "stochastic" else {})}
    with nx.use(name):
        codes, rounded = dtype.encode(x, **options), dtype.round(x, **options)
    assert_same_bits(codes, _judged("encode", dtype, x, **options), x)
    assert_same_bits(rounded, _judged("round", dtype, x, **options), x)
    assert np.array_equal(x.view(f"u{x.itemsize}"), before.view(f"u{x.itemsize}"))


@pytest.mark.turns
@pytest.mark.parametrize("dtype", [d for d in ELEMENTS if d.bits != 8], ids=repr)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 31, 32, 33, 1000, 4099])
def test_pack_and_unpack_equal_reference(executor, dtype, count):
    codes = rng.integers(0, 1 << dtype.bits, count).astype(dtype.code_dtype)
    packed = dtype.pack(codes)
    assert_same_bits(packed, _judged("pack", dtype, codes))
    assert_same_bits(dtype.unpack(packed, count), codes)


def test_large_arrays_are_cut_into_parts_without_a_seam(executor):
    x = rng.standard_normal(threads.WORTHWHILE + 37).astype(np.float32) * 100
    assert_same_bits(nx.fp8_e4m3.encode(x), _judged("encode", nx.fp8_e4m3, x), x)
    packed = nx.fp6_e3m2.pack(nx.fp6_e3m2.encode(x))
    assert_same_bits(nx.fp6_e3m2.unpack(packed, x.shape), nx.fp6_e3m2.encode(x))


def test_out_is_written_in_place(executor):
    x = rng.standard_normal((5, 40)).astype(np.float32)
    codes = np.empty((5, 40), np.uint8)
    assert nx.fp8_e4m3.encode(x, out=codes) is codes
    assert_same_bits(codes, nx.fp8_e4m3.encode(x))
    turned = np.empty((40, 5), np.uint8).T
    assert nx.fp8_e4m3.encode(x, out=turned) is turned
    assert_same_bits(turned, codes)
    due = nx.fp8_e4m3.round(x)
    own = x.copy()
    assert nx.fp8_e4m3.round(own, out=own) is own
    assert_same_bits(own, due)
    shifted = np.concatenate([x.ravel(), x.ravel()])
    nx.fp8_e4m3.round(shifted[:200], out=shifted[7:207])
    assert_same_bits(shifted[7:207], due.ravel())


def test_python_numbers_and_lists_come_back_as_such(executor):
    assert nx.fp4.encode(0.7) == 1
    assert type(nx.fp4.encode(0.7)) is int
    assert nx.fp4.round([[0.7, -5], [100, 0.0]]) == [[0.5, -4.0], [6.0, 0.0]]
    assert nx.int8.encode([]) == []
    assert type(nx.fp4.round(np.float32(0.7))) is np.float32
