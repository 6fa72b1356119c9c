"""Matrices that are turned, parts of wider ones, or of one row, and long lines with gaps are given."""

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.inputs.filling import Filling
from numerics.conform.inputs.matrices import Share, laid, tailed
from numerics.conform.inputs.shapes import kept, kinds, telling
from numerics.conform.takes import ANYTHING, Takes

QUICK = {"effort": "quick"}


def _steps(x):
    return tuple(step // x.itemsize for step in x.strides)


def _is_turned(x, tile, other=1):
    return x.ndim == 2 and _steps(x) == (1, x.shape[0]) and x.shape[0] % tile == x.shape[1] % other == 0


def _is_pitched(x, width):
    return x.ndim == 2 and x.shape[1] >= width and _steps(x)[1] == 1 and _steps(x)[0] > x.shape[1]


LYING = {
    "turned, of tiles of 16": lambda x: _is_turned(x, 16, 16) and x.shape[1] % 32,
    "turned, of tiles of 32": lambda x: _is_turned(x, 32, 32) and x.shape[1] % 64,
    "turned, of tiles of 64": lambda x: _is_turned(x, 64, 64) and x.shape[0] != x.shape[1],
    "turned, its rows of whole tiles": lambda x: _is_turned(x, 1, 64) and x.shape[0] % 2,
    "turned, its columns of whole tiles": lambda x: _is_turned(x, 64) and x.shape[1] % 2,
    "turned, with a pitch": lambda x: x.ndim == 2 and _steps(x)[0] == 1 and _steps(x)[1] > x.shape[0] >= 32,
    "a stack that is turned": lambda x: x.ndim == 3 and _steps(x)[1] == 1 and min(x.shape[1:]) >= 96,
    "heads of a batch": lambda x: x.ndim == 4 and _steps(x)[1] == 32 and x.shape[2:] == (64, 32),
    "rows of 1,024 with a pitch": lambda x: _is_pitched(x, 1024),
    "rows of 4,096 with a pitch": lambda x: _is_pitched(x, 4096),
    "a pitch of 1,024": lambda x: _is_pitched(x, 512) and _steps(x)[0] == 1024,
    "a row that is turned": lambda x: x.shape[1:] == (1,) and _steps(x) == (1, len(x)) and len(x) > 2,
    "a row of a wider matrix": lambda x: x.ndim == 2 and x.shape[0] == 1 and _steps(x)[0] > x.shape[1] > 1,
    "a row with an axis of stride 0": lambda x: x.shape[:1] == (1,) and x.size > 2 and _steps(x)[0] == 0,
    "an inner axis of one number": lambda x: x.ndim == 3 and x.shape[1] == 1 and _steps(x)[1] > x.shape[2],
    "a long line with gaps": lambda x: x.ndim == 1 and x.strides[0] == 8 and x.size >= 1 << 16,
}  # fmt: skip


@pytest.mark.parametrize("lying", LYING)
def test_what_lies_so_is_given_and_tells_one_rounding_from_another(lying):
    """Of a turned matrix of whole tiles each number could be truncated: none of whole tiles was asked."""
    few = Filling.of(telling(nx.fp8_e4m3), ends=kinds(nx.fp8_e4m3))
    met = [x for x in map(kept, laid(few, ANYTHING, few=False)) if LYING[lying](x)]
    cut = [nx.fp8_e4m3.encode(x, rounding="toward_zero") != nx.fp8_e4m3.encode(x) for x in met]
    assert met
    assert any(wrong[(-1,) * wrong.ndim] for wrong in cut)


def test_where_memory_is_to_be_contiguous_none_of_it_is_given():
    few = Filling.of(kinds(nx.fp4))
    assert not list(laid(few, Takes(contiguous=True), few=False))
    assert not list(tailed(few, Takes(contiguous=True), Share.EVERY))


@pytest.mark.parametrize(("lying", "said"), [
    ("turned, of tiles of 64", "in contiguous memory it is right"),
    ("a row of a wider matrix", "the stride of an axis of one number"),
])  # fmt: skip
def test_a_wrong_kernel_of_what_lies_so_is_told(lying, said):
    def kernel(x):
        return nx.fp8_e4m3.encode(x, rounding="toward_zero" if LYING[lying](x) else "half_even")

    found = check(kernel, "fp8_e4m3", **QUICK)
    assert found.law == "layout"
    assert said in str(found)


def _rest(x, columns, left, rows=2):
    return x.ndim == 2 and len(x) >= rows and x.shape[1] > columns and x.shape[1] % columns == left


def without_last_columns(there):
    """An encoder that loses the last column of some arrays."""

    def kernel(x):
        codes = np.array(nx.fp8_e4m3.encode(x))
        if there(x):
            codes[..., -1] = 0
        return codes

    return kernel


LEFT_OVER = {
    "7 of 8 columns": lambda x: _rest(x, 8, 7),
    "10 of 16 columns": lambda x: _rest(x, 16, 10),
    "2 of 4 columns beside 64 rows": lambda x: _rest(x, 4, 2, 64),
    "6 of 8 columns beside 16 rows": lambda x: _rest(x, 8, 6, 16),
    "39 of 64 columns beside 64 rows": lambda x: _rest(x, 64, 39, 64),
    "7 of 8 rows of a turned matrix": lambda x: _rest(x.T, 8, 7) and _steps(x)[0] == 1 and len(x) > 64,
    "a pitch, and 2 of 4 columns": lambda x: _rest(x, 4, 2, 64) and _steps(x)[0] > x.shape[1],
    "7 of 8 rows and columns": lambda x: _rest(x, 8, 7) and _rest(x.T, 8, 7),
}


@pytest.mark.turns(4)
@pytest.mark.parametrize("left", LEFT_OVER)
def test_what_the_rows_of_a_matrix_leave_over_was_not_asked(left):
    """Lines of every length were asked, and rows of few lengths: a kernel of rows has a tail of its own."""

    found = check(without_last_columns(LEFT_OVER[left]), "fp8_e4m3", **QUICK)
    assert found.law == "layout", str(found)
    assert LEFT_OVER[left](found.counterexample.tensor)


STACKED = {
    "7 of 8 columns of a stack": lambda x: (
        x.ndim == 3 and x.shape[2] > 32 and x.shape[2] % 8 == 7 and x.shape[1] > 32
    ),
    "2 of 4 columns of long rows": lambda x: _rest(x, 4, 2) and x.shape[1] > 1024,
    "5 of 8 columns beside 512 rows": lambda x: _rest(x, 8, 5, 512),
}


@pytest.mark.turns(3)
@pytest.mark.parametrize("left", STACKED)
def test_what_stacks_and_long_rows_leave_over_was_not_asked(left):
    assert check(without_last_columns(STACKED[left]), "fp8_e4m3").law == "layout"


def test_a_scale_beside_what_rows_leave_over_was_not_asked():
    """Arrays of 71 rows and 71 columns were asked again alone, and told as what depends on earlier calls."""

    def kernel(x, scale, zero_point):
        own, zeros = (part.reshape(-1, *[1] * (x.ndim - 1)) for part in (scale, zero_point))
        own = np.array(np.broadcast_to(own, x.shape))
        if x.ndim == 2 and x.shape[1] > 8 and x.shape[1] % 8 == 7:
            own[:, -1] = np.roll(own[:, -1], 1)
        with np.errstate(all="ignore"):
            codes = np.clip(np.rint(x / own) + zeros, -128, 127)
        return np.where(np.isnan(x), zeros, codes).astype(np.int8)

    assert check(kernel, "int8", kind="affine", scheme="per_channel(0)", **QUICK).law == "scale_arrays"
