"""Kernels that are wrong in one shape, in one order of axes, or of what stands last in an array."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.task import LAYOUTS, Task
from numerics.formats.errors import NumericsError

QUICK = {"effort": "quick"}
AFFINE = Task.of("int8", "affine")
LEAST = float(nx.fp8_e5m2.smallest_subnormal)


def e5m2(x):
    return nx.fp8_e5m2.encode(x, overflow="saturate")


def affine(x, scale, zero_point):
    return AFFINE.affine_codes(np.array(x), scale, zero_point).reshape(x.shape)


def of_rows(x):
    """int8 codes, and a scale for each row."""
    x = np.array(x)
    most = np.where(np.isfinite(x), np.abs(x), np.float32(0)).max(axis=-1, keepdims=True, initial=0)
    scale = np.where(most == 0, np.float32(1), np.maximum(most / np.float32(127), np.float32(2.0**-149)))
    with np.errstate(all="ignore"):
        return nx.int8.encode((x / scale).astype(np.float32), overflow="saturate"), scale


def values_of_rows(x):
    codes, scale = of_rows(x)
    return nx.int8.decode(codes) * scale


def of_blocks(x):
    found = nx.mxfp8_e4m3.encode(x)
    return found.codes, found.scale


KINDS = {
    "encode": (e5m2, "fp8_e5m2", {"overflow": "saturate"}),
    "decode": (nx.fp8_e5m2.decode, "fp8_e5m2", {"kind": "decode"}),
    "round": (nx.fp4.round, "fp4", {"kind": "round"}),
    "affine": (affine, "int8", {"kind": "affine"}),
    "quantize": (of_rows, "int8", {"kind": "quantize", "scheme": "per_token"}),
    "fake_quantize": (values_of_rows, "int8", {"kind": "fake_quantize", "scheme": "per_token"}),
    "blocks": (of_blocks, "mxfp8_e4m3", {}),
    "values of blocks": (nx.mxfp8_e4m3.round, "mxfp8_e4m3", {"kind": "round"}),
}


def changed(name, change):
    """A kernel of a kind whose first array is changed after it is right: change(array, x)."""
    right, dtype, options = KINDS[name]

    def kernel(x, *others):
        every = right(x, *others)
        parts = list(every) if isinstance(every, tuple) else [every]
        parts[0] = np.array(parts[0])
        change(parts[0], x)
        return tuple(parts) if isinstance(every, tuple) else parts[0]

    return check(kernel, dtype, **QUICK, **options)


def past(axes, tile):
    """Reads one place off in tiles that are not the first along any of the last axes."""

    def change(out, x):
        if x.ndim >= axes and min(x.shape[-axes:]) > tile:
            inside = (..., *[slice(tile, None)] * axes)
            out[inside] = np.roll(out[inside], 1, axis=-1)

    return change


FAST = [name for name in KINDS if "quantize" not in name]  # whose scales are given, or those of few numbers


@pytest.mark.turns(16)
@pytest.mark.parametrize(
    ("name", "tile"), [*((name, tile) for name in FAST for tile in (16, 64, 256)), ("fake_quantize", 128)]
)
def test_a_tile_that_is_not_the_first_of_two_axes_was_never_asked(name, tile):
    found = changed(name, past(2, tile))
    assert found.law in ("layout", "short_block", "found_values", "under_scale"), str(found)


@pytest.mark.turns(16)
@pytest.mark.parametrize("name", [*FAST, "quantize"])
def test_a_tile_that_is_not_the_first_of_three_axes_was_never_asked(name):
    assert not changed(name, past(3, 32 if name not in ("blocks", "values of blocks") else 4))


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", FAST)
def test_tiles_of_matrices_that_are_right_are_right(name):
    assert changed(name, lambda out, x: None)


# ---- what stands last --------------------------------------------------------------------------------

SMALL = np.float32(2.0**-14)
TAILS = {
    "subnormal results": lambda x: (np.abs(x) < SMALL) & (np.abs(x) > LEAST / 2),
    "ties of subnormal results": lambda x: np.abs(x) == np.float32(1.5 * LEAST),
    "subnormal numbers": lambda x: (np.abs(x) < 2.0**-126) & (x != 0) & np.signbit(x),
    "what overflows": lambda x: x == np.inf,
    "ties": lambda x: (
        (np.abs(x) > 1) & (np.ascontiguousarray(x).view(np.uint32) << 11 == 1 << 31).reshape(x.shape)
    ),
}
LYING = {
    "a line": lambda x: x.ndim == 1 and x.size > 4 and x.strides[0] == 4,
    "a matrix": lambda x: x.ndim == 2 and x.flags.c_contiguous,
    "three axes": lambda x: x.ndim == 3 and x.flags.c_contiguous,
    "a turned matrix": lambda x: x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous,
    "numbers with gaps": lambda x: x.ndim > 1 and x.strides[-1] == 8,
}


@pytest.mark.turns(20)
@pytest.mark.parametrize("lying", LYING)
@pytest.mark.parametrize("name", TAILS)
def test_what_is_left_over_at_the_end_never_held_every_kind_of_number(name, lying):
    def kernel(x):
        out = np.array(e5m2(x))
        last = (*[slice(-1, None)] * x.ndim,)
        if LYING[lying](x) and x.size % 4:
            out[last] ^= TAILS[name](x[last]).astype(np.uint8)
        return out

    assert check(kernel, "fp8_e5m2", overflow="saturate", **QUICK).law == "layout"


def test_small_numbers_never_stood_last_in_a_short_block():
    def kernel(x):
        codes, scale = of_blocks(x)
        codes = np.array(codes)
        if x.ndim and x.shape[-1] % 32:
            codes[..., -1] *= (codes[..., -1] & 0x7F) > 7  # to zero
        return codes, scale

    assert check(kernel, "mxfp8_e4m3", **QUICK).law == "short_block"


# ---- orders of axes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [3, 4])
def test_contiguous_arrays_of_several_axes_were_given_once(ndim):
    def kernel(x):
        out = e5m2(x)
        if x.ndim == ndim and x.flags.c_contiguous:
            x[np.abs(x) < 2.0**-126] = 0
        return out

    assert check(kernel, "fp8_e5m2", overflow="saturate", **QUICK).law == "inputs_unchanged"


@pytest.mark.turns(4)
@pytest.mark.parametrize("kind", ["encode", "blocks"])
def test_pictures_whose_channels_lie_nearest_were_never_given(kind):
    torch = pytest.importorskip("torch")
    last = torch.channels_last

    def kernel(x):
        nearest = x.dim() == 4 and x.is_contiguous(memory_format=last) and not x.is_contiguous()
        given = (x.permute(0, 2, 3, 1).reshape(x.shape) if nearest else x).numpy()
        return of_blocks(given) if kind == "blocks" else e5m2(given)

    dtype = "mxfp8_e4m3" if kind == "blocks" else "fp8_e5m2"
    assert check(kernel, dtype, array="torch", **QUICK).law == "layout"


# ---- shapes that somebody names ----------------------------------------------------------------------


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", FAST)
def test_named_shapes_were_asked_of_found_scales_alone(name):
    right, dtype, options = KINDS[name]

    def kernel(x, *others):
        every = right(x, *others)
        parts = [np.array(part) for part in (every if isinstance(every, tuple) else (every,))]
        if x.shape == (3, 4, 555):
            parts[0][2, 3, 550:] = parts[0][2, 3, 0]
        return tuple(parts) if isinstance(every, tuple) else parts[0]

    assert check(kernel, dtype, **QUICK, **options)
    assert not check(kernel, dtype, **QUICK, **options, shapes=[(3, 4, 555)])


def test_shapes_that_a_kind_has_not_are_refused():
    with pytest.raises(NumericsError, match="whose codes lie in one line"):
        check(nx.fp4.pack, "fp4", kind="pack", shapes=[(3, 5)])
    with pytest.raises(NumericsError, match="axis 1: 2 axes or more"):
        check(of_blocks, "mxfp8_e4m3", axis=1, shapes=[5])
    with pytest.raises(NumericsError, match="lines of whole blocks of 32"):
        check(of_blocks, "mxfp8_e4m3", whole_blocks=True, shapes=[(3, 65)])


# ---- what is said of a wrong scale -------------------------------------------------------------------


@pytest.mark.parametrize("layout", [None, "cublas"])
def test_a_misplaced_scale_was_told_by_a_place_among_rows_and_padding_was_not_mentioned(layout):
    def kernel(x):
        codes, scale = of_blocks(x)
        scale = np.array(scale)
        if scale.ndim == 2 and scale.shape[-1] == 320:
            scale[0, 319] = scale[0, 318]
        return codes, scale if layout is None else LAYOUTS[layout].arrange(scale)

    found = check(kernel, "mxfp8_e4m3", scale_layout=layout, **QUICK)
    told = found.counterexample
    assert found.law == "layout"
    assert "scale of block (0, 319) of an array of shape" in told.where
    assert told.came.startswith("scale 0x")
    assert told.input
    assert ("not in the order of the layout" in told.where) == (layout is not None)


@pytest.mark.turns(4)
@pytest.mark.parametrize("layout", ["cublas", "cdna4"])
def test_padding_of_tiles_that_is_not_zero_passed(layout):
    """cuBLAS says that it is zero, whoever fills it; of AMD's tiles nobody says what it is."""
    order = LAYOUTS[layout]

    def filled(held):
        def kernel(x):
            codes, scale = of_blocks(x)
            padding = order.arrange(np.ones(np.shape(scale), np.uint8)) == 0
            return codes, held(order.arrange(scale), padding)

        return check(kernel, "mxfp8_e4m3", scale_layout=layout, **QUICK)

    def with_127(laid, padding):
        return np.where(padding, np.uint8(127), laid)

    def as_memory_was(laid, padding):
        found = np.empty(laid.shape, np.uint8)
        found[~padding] = laid[~padding]
        return found

    right = filled(lambda laid, padding: laid)
    assert right, str(right)
    assert any("padding, were not judged" in note for note in right.notes) == (layout == "cdna4")
    for held, law in ((with_127, "padding"), (as_memory_was, "written")):
        found = filled(held)
        assert found.law == (law if layout == "cublas" else None), str(found)
        if law == "padding" and not found:
            assert (found.counterexample.came, found.counterexample.due) == ("127", "0")
