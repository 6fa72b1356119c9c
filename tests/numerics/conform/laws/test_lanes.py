"""Shortcuts that look at all lanes of a vector at once: right on every number, wrong on vectors."""

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.inputs import lanes


def _affine(x, scale, zero):
    """Integers of 8 bits; scales and zero points a row."""
    scale, zero = (np.reshape(part, (-1,) + (1,) * (x.ndim - 1)) if np.ndim(part) else part
                   for part in (scale, zero))  # fmt: skip
    with np.errstate(all="ignore"):
        whole = np.rint(x / scale)
    return np.clip(np.where(np.isnan(whole), 0, whole) + zero, -128, 127).astype(np.int8)


def _by_vectors(right, lanes, all_of, made):
    """A kernel that does something else with vectors of which all lanes are of one kind."""

    def kernel(x, *given):
        found = np.array(right(x, *given))
        whole = x.size // lanes * lanes
        vectors = np.ascontiguousarray(x).reshape(-1)[:whole].reshape(-1, lanes)
        told = all_of(vectors).all(axis=1)
        found.reshape(-1)[:whole].reshape(-1, lanes)[told] = made(vectors[told])
        return found

    return kernel


def _codes(x):
    return nx.fp8_e4m3.encode(x)


SHORTCUTS = {
    "zeros lose their sign": (lambda x: x == 0, lambda x: np.zeros(x.shape, np.uint8)),
    "equal magnitudes get the sign of the first": (
        lambda x: np.abs(x) == np.abs(x[:, :1]),
        lambda x: np.repeat(_codes(x[:, :1]), x.shape[1], axis=1),
    ),
    "what is too large gets the sign of the first": (
        lambda x: np.abs(x) > 464,
        lambda x: np.repeat(_codes(np.copysign(np.float32(500), x[:, :1])), x.shape[1], axis=1),
    ),
    "NaN is the largest value": (np.isnan, lambda x: np.full(x.shape, 0x7E, np.uint8)),
}


@pytest.mark.turns(12)
@pytest.mark.parametrize("lanes", [4, 8, 64])
@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_shortcut_of_vectors_is_found(name, lanes):
    found = check(_by_vectors(_codes, lanes, *SHORTCUTS[name]), "fp8_e4m3", effort="quick")
    assert not found


@pytest.mark.turns
def test_a_shortcut_that_is_right_is_right():
    splat = _by_vectors(_codes, 8, lambda x: x.view(np.uint32) == x.view(np.uint32)[:, :1],
                        lambda x: np.repeat(_codes(x[:, :1]), 8, axis=1))  # fmt: skip
    assert check(splat, "fp8_e4m3", effort="quick")


@pytest.mark.turns(8)
@pytest.mark.parametrize("scheme", [None, "per_channel(0)"])
@pytest.mark.parametrize("all_of", [lambda x: x == 0, np.isnan])
def test_zeros_that_forget_the_zero_point_are_found(scheme, all_of):
    wrong = _by_vectors(_affine, 8, all_of, lambda x: np.zeros(x.shape, np.int8))
    assert not check(wrong, "int8", kind="affine", scheme=scheme, effort="quick")
    assert check(_affine, "int8", kind="affine", scheme=scheme, effort="quick")


def _rest_of(right, tile, rest, axis):
    """The last scale of a rest is its neighbour's."""

    def kernel(x, scales, zeros):
        scales = np.array(scales)
        if len(scales) > tile and len(scales) % tile == rest:
            scales[-1] = scales[-2]
        turned = np.ascontiguousarray(np.moveaxis(x, axis, 0))
        return np.moveaxis(right(turned, scales, np.asarray(zeros)), 0, axis)

    return kernel


@pytest.mark.turns
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("tile", "rest"), [(8, 6), (16, 13), (32, 31), (64, 63)])
def test_the_rest_of_a_tile_of_scales_is_found(tile, rest, axis):
    kernel = _rest_of(_affine, tile, rest, axis)
    found = check(kernel, "int8", kind="affine", scheme=f"per_channel({axis})", effort="quick")
    assert not found
    assert found.failures[0].law == "scale_arrays"


@pytest.mark.parametrize("scale", [2.0**127, 2.0**-126])
def test_a_scale_at_the_ends_of_float32_is_found(scale):
    def wrong(x, given, zero):
        return _affine(x, np.where(np.float32(given) == np.float32(scale), np.float32(1), given), zero)

    assert not check(wrong, "int8", kind="affine", effort="quick")


def test_scales_that_are_kept_by_their_address_are_found():
    kept = {}

    def wrong(x, scales, zeros):
        address = scales.ctypes.data, len(scales)
        if kept.get("address") != address:
            kept.update(address=address, scales=scales.copy(), zeros=zeros.copy())
        return _affine(x, kept["scales"], kept["zeros"])

    found = check(wrong, "int8", kind="affine", scheme="per_channel(0)", effort="quick")
    assert [broken.law for broken in found.failures] == ["repeatable"]


@pytest.mark.turns(4)
@pytest.mark.parametrize("shape_of", [lambda x: x.shape[0] == 1, lambda x: x.ndim == 1])
def test_the_first_scale_of_one_row_kept_for_all_is_found(shape_of):
    kept = []

    def wrong(x):
        made = nx.quantize(x, nx.int8, scheme="per_token")
        scales = np.array(made.scale)
        if x.size and shape_of(x):
            kept.append(scales)
            scales = np.full_like(scales, kept[0].reshape(-1)[0])
        return made.codes, scales

    assert not check(wrong, "int8", kind="quantize", scheme="per_token", effort="quick")


@pytest.mark.turns(4)
@pytest.mark.parametrize(("tile", "rest"), [(8, 3), (32, 24)])
def test_the_rest_of_a_tile_of_blocks_is_found(tile, rest):
    def wrong(x):
        made = nx.quantize(x, nx.mxfp4)
        scale = np.array(made.scale)
        flat = scale.reshape(-1)
        if flat.size > tile and flat.size % tile == rest:
            flat[-1] = flat[-2]
        return made.codes, scale

    assert not check(wrong, "mxfp4", effort="quick")


@pytest.mark.parametrize("values", [[-8.0, -6.0, -4.0, -2.0, 0.0, 0.25, 0.5, 1.0], [-7.0, -5.0, -2.0, 1.0]])
def test_ties_past_the_largest_of_the_shorter_side_stood_in_no_vector(values):
    """Where the negative side of a list of values is the longer one, vectors had ties of the positive one."""
    dtype = nx.codebook_format(values)
    low = np.sort(np.abs(np.float32(values)))
    ties = (low[1:] + low[:-1])[low[1:] > dtype.max] / 2
    rows = np.abs(lanes.alike(dtype))
    whole = rows[(rows == rows[:, :1]).all(axis=1), 0]
    assert set(ties.tolist()) & set(whole.tolist())
    assert (np.abs(lanes.but_one(dtype)) < -dtype.min).any()
    assert (lanes.but_one(dtype) != lanes.but_one(dtype)[:, :1]).any()


@pytest.mark.turns
def test_a_shortcut_of_ties_of_the_longer_side_passed():
    dtype = nx.codebook_format([-8.0, -6.0, -4.0, -2.0, 0.0, 0.25, 0.5, 1.0])
    tie = np.float32(-7.0)

    def kernel(x):
        found = np.array(dtype.encode(x))
        flat, whole = np.ascontiguousarray(x).reshape(-1), x.size // 8 * 8
        told = (flat[:whole].reshape(-1, 8) == tie).all(axis=1)
        found.reshape(-1)[:whole].reshape(-1, 8)[told] = dtype.encode(np.float32([-4.0]))[0] ^ 1
        return found

    assert check(dtype.encode, dtype, effort="quick")
    assert not check(kernel, dtype, effort="quick")
