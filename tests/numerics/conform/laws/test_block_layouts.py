"""Lines of many blocks, whole ones and short last ones: those of networks, and longer ones."""

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.effort import Effort
from numerics.conform.laws.block_layouts import long_lines
from numerics.conform.task import Task

FORMATS = ("mxfp4", "mxfp8_e5m2", "mx6")


def _fields(x, dtype):
    found = nx.dtype(dtype).encode(x)
    return [np.array(part) for part in (found.codes, found.scale, found.microexponents) if part is not None]


def _decoded(dtype, codes, *shared):
    return np.array(nx.Blocks(nx.dtype(dtype), -1, codes, *shared).decode())


def _last_of_line(first):
    """Which blocks of a line are spoiled: those from that one on."""
    return lambda x, size: np.arange(-(-x.shape[-1] // size)) >= first


WHERE = {
    "past the 320th": _last_of_line(320),
    "past the 1,024th": _last_of_line(1024),
    "past the 65,535th": _last_of_line(65536),
    "of a line past the 128th": lambda x, size: _last_of_line(128)(x, size) & (x.ndim == 1),
    "of rows of 11,008": lambda x, size: (
        _last_of_line(0)(x, size) & (x.ndim == 2 and x.shape[1] // size * size == 11008)
    ),
}


@pytest.mark.turns(12)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("dtype", FORMATS)
def test_scales_of_long_lines_were_never_asked(dtype, where):
    size = nx.dtype(dtype).block

    def kernel(x):
        parts = _fields(x, dtype)
        if x.ndim and x.size:
            parts[1] ^= WHERE[where](x, size).astype(np.uint8)
        return tuple(parts)

    assert check(kernel, dtype, effort="quick").law == "layout"


@pytest.mark.turns(8)
@pytest.mark.parametrize("dtype", FORMATS)
def test_values_and_codes_of_long_lines_were_never_asked(dtype):
    def rounds(x):
        out = np.array(nx.dtype(dtype).round(x))
        out[..., 30_000:] = np.abs(out[..., 30_000:])
        return out

    def decodes(*given):
        out = _decoded(dtype, *given)
        out[..., 20_000:] = np.abs(out[..., 20_000:])
        return out

    assert check(rounds, dtype, kind="round", effort="quick").law == "layout"
    assert check(decodes, dtype, kind="decode", effort="quick").law == "layout"


@pytest.mark.turns(6)
@pytest.mark.parametrize("dtype", FORMATS)
def test_a_short_block_at_the_end_of_a_long_line_was_never_asked(dtype):
    size = nx.dtype(dtype).block

    def kernel(x):
        parts = _fields(x, dtype)
        if x.ndim and x.shape[-1] > 10_000 and x.shape[-1] % size:
            parts[1][..., -1] ^= 1
        return tuple(parts)

    assert not check(kernel, dtype, effort="quick")
    assert check(kernel, dtype, effort="quick", whole_blocks=True)


def test_tensors_past_three_million_numbers_are_asked_by_default():
    def kernel(x):
        parts = _fields(x, "mxfp4")
        parts[1][..., -1:] ^= x.size > 3_000_000
        return tuple(parts)

    assert check(kernel, "mxfp4", effort="quick")
    assert check(kernel, "mxfp4").law == "layout"


@pytest.mark.turns(8)
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_long_lines_lie_along_every_axis(axis):
    def kernel(x):
        found = nx.mxfp4.encode(x, axis=axis)
        scale = np.array(found.scale)
        np.moveaxis(scale, axis, -1)[..., 600:] ^= 1
        return found.codes, scale

    assert check(lambda x: nx.mxfp4.encode(x, axis=axis), "mxfp4", axis=axis, effort="quick")
    assert check(kernel, "mxfp4", axis=axis, effort="quick").law == "layout"


def test_long_lines_of_long_blocks_are_few():
    """A line that is shorter than a block is none; none has more numbers than are asked of short blocks."""
    task = Task.of(nx.block_format(element="fp4", block=2048), "encode")
    shapes = [*long_lines(task, False, Effort.of("quick"))]
    assert min(shape[-1] for shape in shapes) >= 2048
    assert max(np.prod(shape) for shape in shapes) <= 1 << 22


def _strides(x):
    return tuple(step // x.itemsize for step in x.strides)


LYING = {
    "turned, of whole blocks": lambda x: x.ndim == 2 and _strides(x)[0] == 1 and x.size % 1024 == 0 < x.size,
    "a stack that is turned": lambda x: x.ndim == 3 and _strides(x)[1] == 1 < x.shape[2] and x.shape[1] > 64,
    "rows of 1,024 with a pitch": lambda x: x.ndim == 2 and _strides(x)[0] > x.shape[1] >= 1024,
    "a row of a wider matrix": lambda x: x.ndim == 2 and len(x) == 1 and _strides(x)[0] > x.shape[1],
    "90,000 lines of two axes": lambda x: x.ndim == 3 and x.shape[0] * x.shape[1] > 65_535,
    "blocks of one number each": lambda x: (
        x.size > 0 and x.shape[-1] % 32 == 0 and bool((np.ptp(x.reshape(-1, 32), axis=1) == 0).all())
    ),
}  # fmt: skip


@pytest.mark.parametrize("lying", LYING)
def test_what_such_tensors_hold_told_no_rounding_from_another(lying):
    """A square of blocks that is turned was asked with numbers that are truncated as they are rounded."""

    def kernel(x):
        with np.errstate(invalid="ignore"):
            found = nx.mxfp4.encode(x, rounding="toward_zero" if LYING[lying](x) else "half_even")
        return found.codes, found.scale

    law = "elements" if lying == "blocks of one number each" else "layout"
    assert check(kernel, "mxfp4", effort="quick").law == law


def test_a_decoder_of_codes_that_are_all_one_is_asked():
    def kernel(codes, scale):
        found = _decoded("mxfp4", codes, scale)
        return -found if codes.size > 32 and (codes == codes.flat[0]).all() and codes.flat[0] else found

    assert check(kernel, "mxfp4", kind="decode", effort="quick").law == "layout"
