"""Kernels of float16, bfloat16 and float64 values."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check

TYPES = ("bfloat16", "float16", "float64")


def e4m3(x):
    return nx.fp8_e4m3.encode(x)


@pytest.mark.turns
@pytest.mark.parametrize("dtype", [nx.fp8_e4m3, nx.int8, nx.mxfp4, nx.mx6, nx.nvfp4], ids=repr)
@pytest.mark.parametrize("inputs", TYPES)
def test_right_kernels_of_other_types_pass(dtype, inputs):
    options = {"tensor_scale": 1.0} if dtype is nx.nvfp4 else {}
    for kind in ("encode", "round"):
        found = check(lambda x, k=kind: getattr(dtype, k)(x, **options), dtype, kind=kind, inputs=inputs)
        assert found, str(found)


@pytest.mark.parametrize("inputs", TYPES)
def test_values_came_in_another_type(inputs):
    seen = set()

    def kernel(x):
        seen.add(x.dtype.name)
        return e4m3(x)

    assert check(kernel, "fp8_e4m3", inputs=inputs)
    assert seen == {inputs}


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
        q = np.rint(np.nan_to_num(x, nan=0.0) / spread(scale)).astype(np.float64)
    return np.clip(q + spread(zero_point), -128, 127).astype(np.int8)


def test_blocks_of_two_axes_had_no_judge():
    assert check(in_blocks, "int8", kind="affine", scheme=(4, 8))
    turned = lambda x, s, z: in_blocks(x, s, np.flip(z, -1))  # noqa: E731
    assert check(turned, "int8", kind="affine", scheme="4x8").law == "scale_arrays"


def packed(x, layout=nx.layouts.CUBLAS, low=0):
    made = nx.mxfp4.encode(x)
    pairs = made.codes.reshape(*x.shape[:-1], -1, 2)
    return pairs[..., low] | pairs[..., 1 - low] << 4, layout.arrange(made.scale)


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
    shared = nx.layouts.CUBLAS.restore(scale, (*pairs.shape[:-1], pairs.shape[-1] // 32))
    return nx.Blocks(nx.mxfp4, -1, pairs, shared).decode()


def test_decoders_of_bytes_and_tiles_had_no_judge():
    options = {"kind": "decode", "packed": True, "scale_layout": "cublas"}
    assert check(unpacked, "mxfp4", **options)
    assert not check(lambda c, s: unpacked(c << 4 | c >> 4, s), "mxfp4", **options)


@pytest.mark.parametrize(
    ("dtype", "options", "said"),
    [
        ("int8", {"scheme": "per_group(32)"}, "is for kind='affine'"),
        ("int8", {"scheme": (1, 2, 3), "kind": "affine"}, "rows, columns"),
        ("fp4", {"packed": True}, "packed and scale_layout are for"),
        ("mx6", {"scale_layout": "cublas"}, "packed and scale_layout are for"),
        ("mxfp4", {"scale_layout": "cutlass"}, "unknown scale layout 'cutlass'"),
    ],
)
def test_places_that_cannot_be_asked(dtype, options, said):
    with pytest.raises(nx.NumericsError, match=said):
        check(e4m3, dtype, **options)
