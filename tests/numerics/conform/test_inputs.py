"""Kernels of float16, bfloat16 and float64 values."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.backends.host.float_bits import as_float32
from numerics.conform import check
from numerics.conform.inputs import blocks, strings

TYPES = ("bfloat16", "float16", "float64")


def e4m3(x):
    return nx.fp8_e4m3.encode(x)


@pytest.mark.turns(30)
@pytest.mark.parametrize("dtype", [nx.fp8_e4m3, nx.int8, nx.mxfp4, nx.mx6, nx.nvfp4], ids=repr)
@pytest.mark.parametrize("inputs", TYPES)
def test_right_kernels_of_other_types_pass(dtype, inputs):
    options = {"tensor_scale": 1.0} if dtype is nx.nvfp4 else {}
    for kind in ("encode", "round"):
        found = check(lambda x, k=kind: getattr(dtype, k)(x, **options), dtype, kind=kind, inputs=inputs)
        assert found, str(found)


@pytest.mark.turns(6)
@pytest.mark.parametrize("inputs", TYPES)
def test_values_came_in_another_type(inputs):
    seen = set()

    def kernel(x):
        seen.add(x.dtype.name)
        return e4m3(x)

    assert check(kernel, "fp8_e4m3", inputs=inputs)
    assert seen == {inputs}


@pytest.mark.turns
def test_torch_gives_its_own_types():
    torch = pytest.importorskip("torch")
    seen = set()

    def kernel(x):
        seen.add(x.dtype)
        return x.float().to(torch.float8_e5m2).to(x.dtype)

    options = {"kind": "round", "overflow": "nonsaturate", "array": "torch"}
    assert check(kernel, "fp8_e5m2", inputs="bfloat16", **options)
    assert seen == {torch.bfloat16}


@pytest.mark.parametrize("inputs", ["bfloat16", "float16"])
def test_one_number_of_65536_was_not_asked(inputs):
    def kernel(x):
        return e4m3(x) ^ (x.view(np.uint16) == 0x3DB7).astype(np.uint8)

    found = check(kernel, "fp8_e4m3", inputs=inputs)
    assert not found
    assert found.counterexample.input[0].value == np.uint16(0x3DB7).view(found_type(inputs)).astype(
        np.float32
    )


def found_type(name):
    import ml_dtypes

    return ml_dtypes.bfloat16 if name == "bfloat16" else np.float16


def test_a_float64_that_is_rounded_twice_passed():
    found = check(lambda x: e4m3(x.astype(np.float32)), "fp8_e4m3", inputs="float64")
    assert found.law == "nearest", str(found)
    assert "as a float64" in found.counterexample.where
    assert found.dialect == "double rounding through float32"
    assert len(found.failures) == 1, "it is monotone, and symmetric"


def test_a_float64_is_compared_with_its_own_negative_and_the_next_one():
    """Two float64 numbers have one float32 that stands for them: it is not their order, nor their mirror."""

    def lopsided(x):
        found = e4m3(as_float32(x))
        return np.where((x > 1.0625) & (x < 1.06250001), found - 1, found).astype(np.uint8)

    found = {one.law: one for one in check(lopsided, "fp8_e4m3", inputs="float64").failures}
    assert set(found) == {"nearest", "sign_symmetry"}
    number = float(found["sign_symmetry"].where.removeprefix("as a float64 "))
    assert 1.0625 < abs(number) < 1.06250001


@pytest.mark.turns
def test_draws_beside_narrow_values():
    def kernel(x, random):
        return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=random)

    assert check(kernel, "fp8_e4m3", rounding="stochastic", inputs="bfloat16")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": "float8"}, "unknown inputs 'float8'"),
        ({"inputs": "float16", "kind": "decode"}, "inputs=float16 is for kind='encode' and 'round'"),
        ({"inputs": "float16", "exhaustive": True}, "exhaustive=True is for float32 inputs"),
    ],
)
def test_types_that_cannot_be_asked(options, said):
    with pytest.raises(nx.NumericsError, match=said):
        check(e4m3, "fp8_e4m3", **options)


# ---- arrays of scales, codes in bytes, scales in tiles ---------------------------------------------


def by_arrays(scheme):
    def quantizes(x, scale, zero_point):
        q = nx.quantize(x, "int8", scheme=scheme, symmetric=False, scale=scale, zero_point=zero_point)
        return q.codes

    return quantizes


@pytest.mark.turns(8)
@pytest.mark.parametrize(
    "scheme", ["per_channel(0)", "per_channel(1)", "per_group(32)", "per_group(16, axis=0)"]
)
def test_scales_came_one_by_one_alone(scheme):
    assert check(by_arrays(scheme), "int8", kind="affine", scheme=scheme)
    numbers = by_arrays(scheme)

    def first_of_all(x, scale, zero_point):
        return numbers(x, np.full_like(scale, scale.flat[0]), zero_point)

    assert check(first_of_all, "int8", kind="affine", scheme=scheme).law == "scale_arrays"


def in_blocks(x, scale, zero_point, rows=4, columns=8):
    def spread(shared):
        wide = np.repeat(np.repeat(shared, rows, -2), columns, -1)
        return wide[..., : x.shape[-2], : x.shape[-1]]

    with np.errstate(all="ignore"):
        q = np.rint(np.where(np.isnan(x), 0, x) / spread(scale)).astype(np.float64)
    return np.clip(q + spread(zero_point), -128, 127).astype(np.int8)


@pytest.mark.turns
def test_blocks_of_two_axes_had_no_judge():
    assert check(in_blocks, "int8", kind="affine", scheme=(4, 8))
    turned = lambda x, s, z: in_blocks(x, s, np.flip(z, -1))  # noqa: E731
    assert check(turned, "int8", kind="affine", scheme="4x8").law == "scale_arrays"


@pytest.mark.turns(6)
@pytest.mark.parametrize("which", ["scales", "zero points", "both"])
def test_arrays_that_were_read_turned_in_grids_of_unlike_sides_passed(which):
    def turned(part):
        if part.ndim < 2 or min(part.shape[-2:]) < 2 or part.shape[-2] == part.shape[-1]:
            return part
        *lead, rows, columns = part.shape
        return part.reshape(*lead, columns, rows).swapaxes(-1, -2)

    def wrong(x, s, z):
        return in_blocks(
            x, s if which == "zero points" else turned(s), z if which == "scales" else turned(z), 128, 128
        )

    assert check(wrong, "int8", kind="affine", scheme=(128, 128)).law == "scale_arrays"
    assert check(lambda x, s, z: in_blocks(x, s, z, 128, 128), "int8", kind="affine", scheme=(128, 128))


@pytest.mark.turns
def test_affine_is_asked_in_shapes_that_are_named():
    numbers = by_arrays("per_channel(0)")

    def wrong(x, scale, zero_point):
        came = np.array(numbers(x, scale, zero_point))
        came[..., 900:] = 0 if x.shape == (7, 1000) else came[..., 900:]
        return came

    options = {"kind": "affine", "scheme": "per_channel(0)", "effort": "quick"}
    assert check(wrong, "int8", **options)
    assert not check(wrong, "int8", **options, shapes=[(7, 1000)])


def packed(x, layout=nx.layouts.CUBLAS, low=0):
    made = nx.mxfp4.encode(x)
    pairs = made.codes.reshape(*x.shape[:-1], -1, 2)
    return pairs[..., low] | pairs[..., 1 - low] << 4, layout.arrange(made.scale)


@pytest.mark.turns
def test_codes_in_bytes_and_scales_in_tiles_had_no_judge():
    options = {"packed": True, "scale_layout": "cublas"}
    assert check(packed, "mxfp4", **options)
    assert check(lambda x: packed(x, nx.layouts.CDNA4), "mxfp4", packed=True, scale_layout="cdna4")
    assert check(lambda x: packed(x, low=1), "mxfp4", **options).law == "elements"
    assert check(lambda x: packed(x, nx.layouts.CDNA4), "mxfp4", **options).law == "shape"
    rows = nx.layouts.ScaleLayout(rows=(32, 4), columns=(4,), order=(1, 0, 2))
    assert check(lambda x: packed(x, rows), "mxfp4", **options).law == "layout"


def unpacked(codes, scale):
    pairs = np.stack([codes & 15, codes >> 4], -1).reshape(*codes.shape[:-1], -1)
    shared = nx.layouts.CUBLAS.restore(scale, (*pairs.shape[:-1], -(-pairs.shape[-1] // 32)))
    return nx.Blocks(nx.mxfp4, -1, pairs, shared).decode()


def in_whole_blocks(x, fill):
    """A kernel that fills a short last block with `fill(x, how many)`, and cuts its codes off again."""
    short = -x.shape[-1] % 32
    whole = np.concatenate([x, fill(x, short)], axis=-1) if short else x
    strings, scale = packed(whole)
    return strings[..., : x.shape[-1] // 2], scale


@pytest.mark.turns
def test_short_blocks_of_packed_codes_were_not_asked():
    options = {"packed": True, "scale_layout": "cublas", "effort": "quick"}
    assert check(
        lambda x: in_whole_blocks(x, lambda x, n: np.zeros((*x.shape[:-1], n), x.dtype)), "mxfp4", **options
    )
    for wrong in (
        lambda x, n: np.full((*x.shape[:-1], n), 4096, x.dtype),
        lambda x, n: np.repeat(x[..., -1:], n, axis=-1) * 2,
    ):
        found = check(lambda x, wrong=wrong: in_whole_blocks(x, wrong), "mxfp4", **options)
        assert found.law == "short_block", str(found)
        assert check(lambda x, wrong=wrong: in_whole_blocks(x, wrong), "mxfp4", whole_blocks=True, **options)


def flat(x):
    """The numbers that stand one after the other in memory from the first one on: gaps, too."""
    memory = np.ascontiguousarray(np.lib.stride_tricks.as_strided(x, (x.size,), (x.itemsize,)))
    return memory.reshape(x.shape)


@pytest.mark.turns(16)
@pytest.mark.parametrize("dtype", ["mxfp4", "mxfp6_e2m3"])
@pytest.mark.parametrize("layout", [None, "cublas"])
@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_packed_codes_with_gaps_were_not_asked(kind, layout, dtype):
    d, options = nx.dtype(dtype), {"kind": kind, "packed": True, "scale_layout": layout, "effort": "quick"}

    def right(*given):
        if kind == "encode":
            made = d.encode(given[0])
            scale = made.scale if layout is None else nx.layouts.CUBLAS.arrange(np.atleast_2d(made.scale))
            return strings.packed(made.codes, d.element_bits), scale
        codes, scale = given
        codes = strings.unpacked(codes, codes.shape[-1] * 8 // d.element_bits, d.element_bits).astype(
            np.uint8
        )
        shape = (*codes.shape[:-1], -(-codes.shape[-1] // 32))
        return nx.Blocks(
            d, -1, codes, scale if layout is None else nx.layouts.CUBLAS.restore(scale, shape)
        ).decode()

    found = check(right, dtype, **options)
    assert found, str(found)

    def wrong(x, *others):
        """Right with strides of 0, and of less than 0: what lies before an array is not its own."""
        return right(x if x.flags.c_contiguous or min(x.strides) < 1 else flat(x), *others)

    found = check(wrong, dtype, **options)
    assert found.law == "layout", str(found)
    assert "it depends on the strides" in found.counterexample.where
    assert check(wrong, dtype, contiguous=True, **options)


@pytest.mark.turns
def test_decoders_of_bytes_and_tiles_had_no_judge():
    options = {"kind": "decode", "packed": True, "scale_layout": "cublas"}
    assert check(unpacked, "mxfp4", **options)
    assert not check(lambda c, s: unpacked(c << 4 | c >> 4, s), "mxfp4", **options)


@pytest.mark.parametrize(
    ("dtype", "options", "said"),
    [
        ("int8", {"scheme": "per_group(32)"}, "is for kind='affine': its scales are given"),
        ("nf4", {"scheme": "per_group(64)"}, "of integers, which nf4 is not: .*kind='quantize'"),
        ("fp8_e4m3", {"scheme": "per_token"}, "of integers, which fp8_e4m3 is not: .*kind='quantize'"),
        (
            "nf4",
            {"kind": "affine", "scheme": "per_group(64)"},
            "affine is for integers, .*kind='quantize'",
        ),
        ("mxfp4", {"kind": "quantize"}, "kind='encode' or 'round'"),
        ("int8", {"scheme": (1, 2, 3), "kind": "affine"}, "per_block takes two sizes"),
        ("fp4", {"packed": True}, "packed=True is for encode and decode of blocks"),
        ("mx6", {"scale_layout": "cublas"}, "scale_layout='cublas' is for encode and decode of blocks"),
        ("mxfp4", {"scale_layout": "cutlass"}, "unknown scale layout 'cutlass'"),
    ],
)
def test_places_that_cannot_be_asked(dtype, options, said):
    with pytest.raises(nx.NumericsError, match=said):
        check(e4m3, dtype, **options)


# ---- few random bits, other rules, kernels that draw for themselves ---------------------------------


def of_gfloat(rule, bits):
    """gfloat's three ways to compare N random bits with a fraction, beside the letters of P3109."""
    gfloat = pytest.importorskip("gfloat")
    formats = pytest.importorskip("gfloat.formats")
    modes = gfloat.RoundMode
    mode = {"a": modes.StochasticFastest, "b": modes.StochasticFast, "c": modes.Stochastic}[rule]
    row = formats.format_info_ocp_e4m3

    def encodes(x, random):
        drawn = {"srbits": random.astype(np.int64), "srnumbits": bits}
        rounded = gfloat.round_ndarray(row, x.astype(np.float64), mode, sat=True, **drawn)
        return gfloat.encode_ndarray(row, rounded).astype(np.uint8)

    return encodes


@pytest.mark.turns(8)
@pytest.mark.parametrize(
    ("rule", "bits"),
    [
        ("a", 8),
        ("b", 8),
        ("c", 8),
        ("c", 16),
        *(pytest.param(rule, 16, marks=pytest.mark.long) for rule in "ab"),
    ],
)
def test_kernels_of_few_random_bits_pass_by_their_own_rule_alone(rule, bits):
    options = {"rounding": "stochastic"}
    kernel = of_gfloat(rule, bits)
    for other in "abc":
        found = check(kernel, "fp8_e4m3", draw=f"{other}{bits}", **options)
        assert bool(found) == (other == rule), str(found)
        assert found.law in (None, "draws")


@pytest.mark.turns
def test_blocks_of_few_random_bits():
    def encodes(x, random):
        wide = random << np.uint32(22)
        return nx.mxfp4.encode(x, rounding="stochastic", random_bits=wide)

    assert check(encodes, "mxfp4", rounding="stochastic", draw="a8")
    assert not check(encodes, "mxfp4", rounding="stochastic", draw="b8")


RNG = np.random.default_rng(12)


def drawing(bits):
    return lambda x: nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=bits(x.shape))


OWN = {
    "30 bits": (drawing(lambda shape: RNG.integers(0, 1 << 30, shape, np.uint32)), None),
    "8 bits": (drawing(lambda shape: RNG.integers(0, 256, shape, np.uint32) << np.uint32(22)), None),
    "none": (e4m3, "mean"),
    "a bias of one in a hundred": (
        drawing(lambda shape: RNG.integers(0, 99 * (1 << 30) // 100, shape, np.uint32)),
        "mean",
    ),
    "one for all": (drawing(lambda shape: np.full(shape, RNG.integers(1 << 30), np.uint32)), "independent"),
    "one for two": (
        drawing(lambda s: np.resize(np.repeat(RNG.integers(0, 1 << 30, (4, 64), np.uint32), 2, 0), s)),
        "independent",
    ),
    "the same in every call": (
        drawing(lambda shape: np.random.default_rng(0).integers(0, 1 << 30, shape, np.uint32)),
        "independent",
    ),
    "too far": (
        lambda x: np.where(np.abs(x) == 17, e4m3(x) + 2, drawing(lambda s: nx.random_bits(s, 1))(x)),
        "one_step",
    ),
}


@pytest.mark.turns(20)
@pytest.mark.parametrize("name", OWN)
def test_a_kernel_that_draws_for_itself_is_judged_by_statistics(name):
    kernel, law = OWN[name]
    found = check(kernel, "fp8_e4m3", rounding="stochastic", draw="own")
    if name == "one for two":
        assert found.law in ("mean", "independent"), str(found)
    else:
        assert found.law == law, str(found)


@pytest.mark.parametrize("draw", ["d8", "a31", "b30", "a", 8, "a0"])
def test_draws_that_are_none(draw):
    with pytest.raises(nx.NumericsError, match="allowed: own, or a rule and its bits"):
        check(e4m3, "fp8_e4m3", rounding="stochastic", draw=draw)
    with pytest.raises(nx.NumericsError, match="is for rounding='stochastic'"):
        check(e4m3, "fp8_e4m3", draw="a8")


def test_a_maximum_that_stands_twice_was_not_asked():
    """A reduction that drops the last two places is right wherever the maximum stands once before them."""
    rows = blocks.twin_maxima(nx.mxfp4)
    top = np.abs(rows) == np.abs(rows).max(axis=1, keepdims=True)
    places = {tuple(np.flatnonzero(row)) for row in top}
    assert {(p, p + 1) for p in range(31)} | {(0, 31)} | {(p, p + 16) for p in range(16)} <= places
