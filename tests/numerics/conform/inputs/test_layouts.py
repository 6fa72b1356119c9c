"""Every kind of layout ends in a number of every kind: a tie, NaN, Inf, -0, what overflows, what is small."""

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.inputs.filling import Filling
from numerics.conform.inputs.layouts import (
    SHAPES,
    WIDTHS,
    apart,
    ended,
    left_over,
    long,
    sized,
    tailed,
    views,
)
from numerics.conform.inputs.shapes import kept, kinds
from numerics.conform.takes import ANYTHING, Takes

QUICK = {"effort": "quick"}
LYING = {
    "rows backward": lambda x: x.ndim == 2 and x.strides[0] < 0,
    "columns backward": lambda x: x.ndim == 2 and x.strides[1] < 0,
    "both backward": lambda x: x.ndim == 2 and x.strides[0] < 0 and x.strides[1] < 0 and x.shape[0] > 1,
    "turned and backward": lambda x: x.ndim == 2 and abs(x.strides[0]) == 4 and min(x.strides) < 0,
    "the third axis backward": lambda x: x.ndim == 5 and x.strides[2] < 0,
    "channels nearest": lambda x: x.ndim == 4 and x.strides[1] == 4 and not x.flags.c_contiguous,
    "repeated": lambda x: any(step == 0 and n > 1 for step, n in zip(x.strides, x.shape, strict=True)),
    "rows with gaps": lambda x: x.ndim == 3 and x.strides[-1] == 4 and x.strides[1] > 4 * x.shape[2],
    "five axes": lambda x: x.ndim == 5 and x.flags.c_contiguous,
    "six axes": lambda x: x.ndim == 6,
    "rows of 768": lambda x: x.ndim == 2 and x.shape[1] == 768,
    "a line of 1,280": lambda x: x.shape == (1280,),
    "an address two numbers past a line": lambda x: x.ctypes.data % 64 == 8 and 64 < x.size < 100,
}
ENDS = {
    "a tie": lambda x: np.ascontiguousarray(x).view(np.uint32) & 0x1FFFFF == 0x100000,
    "NaN": np.isnan,
    "Inf": np.isinf,
    "-0": lambda x: (x == 0) & np.signbit(x),
    "what overflows": lambda x: (np.abs(x) > 1e5) & np.isfinite(x),
    "a subnormal number": lambda x: (np.abs(x) < 2.0**-14) & (np.abs(x) > 2.0**-17),
}


def test_every_layout_ends_in_every_kind_of_number():
    met = set()
    for x in ended(Filling.of(kinds(nx.fp8_e5m2)), ANYTHING):
        last = x[(*[slice(-1, None)] * x.ndim,)]
        met |= {(lying, end) for lying in LYING for end in ENDS if LYING[lying](x) and ENDS[end](last).all()}
    lines = {("a line of 1,280", end) for end in ENDS}  # of which each second kind ends such a line
    assert met | lines == {(lying, end) for lying in LYING for end in ENDS}


@pytest.mark.turns(12)
@pytest.mark.parametrize(("lying", "end"), [*zip(LYING, [*ENDS] * 3, strict=False)])
def test_a_layout_never_ended_in_such_a_number(lying, end):
    def kernel(x):
        out = np.array(nx.fp8_e5m2.encode(x, overflow="saturate"))
        if x.size and LYING[lying](x):
            last = (*[slice(-1, None)] * x.ndim,)
            out[last] ^= np.uint8(2) * np.asarray(ENDS[end](x[last]), np.uint8).reshape(out[last].shape)
        return out

    assert check(kernel, "fp8_e5m2", overflow="saturate", **QUICK).law == "layout"


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("rank", range(1, 7))
def test_every_view_begins_and_ends_in_every_number(rank, place):
    filling = Filling.of(kinds(nx.fp8_e4m3))
    for view in views(rank, backward=True):
        met = set()
        for turn in range(len(filling.ends)):
            x = filling.ended(SHAPES[rank - 1], view, turn)
            met.add(x.flat[-1 if place == "last" and x.strides != (0,) else 0].tobytes())
        assert met == {number.tobytes() for number in filling.ends}


def test_what_is_due_to_a_view_is_told_by_its_places():
    filling = Filling.of(kinds(nx.fp4))
    for x in ended(filling, ANYTHING):
        due = filling.by_place(x, nx.fp4.encode)
        assert (due == nx.fp4.encode(x)).all()


def test_widths_of_networks_are_rows_of_matrices_and_lines():
    shapes = {x.shape for x in ended(Filling.of(kinds(nx.fp4)), ANYTHING)}
    assert all({(width,), (1, width), (2, width)} <= shapes for width in WIDTHS)


@pytest.mark.turns
def test_random_bits_of_numbers_that_repeat_are_their_own():
    """Bits that lie as such numbers do are the same in all their places: what is due was that of others."""
    assert check(
        lambda x, r: nx.fp4.encode(x, rounding="stochastic", random_bits=r),
        "fp4",
        rounding="stochastic",
        **QUICK,
    )


LEFT = {64: (33, 63, 1), 128: (127, 65), 256: (255,), 512: (257,), 1024: (1023,)}


@pytest.mark.parametrize("few", [False, True])
def test_lines_leave_over_one_and_a_half_tiles_and_all_but_one_of_the_next(few):
    """33 of 64, and 1,023 of 1,024, were left over by lines that ended in other numbers than a tie or NaN."""
    met = {(len(x), float(x[-1])) for x in sized(Filling.of(kinds(nx.fp8_e4m3)), few)}
    for tile, left in LEFT.items():
        for n in left:
            last = [end for size, end in met if size > tile and size % tile == n]
            assert {12.5, 13.5} <= set(last), (tile, n)
            assert any(map(np.isnan, last)), (tile, n)


def test_sizes_that_a_counter_of_16_bits_or_a_whole_tile_meets_are_asked():
    """65,536 numbers are 0 of 16 bits; every size asked near it was another one."""
    sizes = {x.size for x in sized(Filling.of(kinds(nx.fp4)), few=False)}
    assert {1000, 720, 6144, 12_345, 32_768, 65_535, 65_536, 65_537, 1 << 18, 3 << 18, 1 << 20} <= sizes
    assert any(1 << 19 < n < 1 << 20 and n % 2 for n in sizes)


def test_each_number_of_a_tile_is_left_over_by_a_long_line():
    """A kernel lost the last numbers of lines past 2**20 that leave over 2 of 4: no such line was asked."""
    met = left_over(far=True)
    for least, tile in ((1 << 10, 32), (1 << 14, 16), (1 << 16, 16), (1 << 18, 8), (1 << 20, 8)):
        assert {n % tile for n in met if n >= least} == {*range(tile)}
    assert max(left_over(far=False)) < 1 << 17


def test_such_a_line_ends_in_a_number_that_tells_one_rounding_from_another():
    for x in tailed(Filling.of(kinds(nx.fp8_e4m3)), far=False):
        if x.size >= 1 << 16:
            assert nx.fp8_e4m3.encode(x[-1:], rounding="toward_zero") != nx.fp8_e4m3.encode(x[-1:])


def test_a_tail_of_2_of_16_past_16_384_was_never_asked():
    def kernel(x):
        codes = np.array(nx.fp8_e4m3.encode(x))
        if x.size > 1 << 14 and x.size % 16 == 2:
            codes.reshape(-1)[-1:] = nx.fp8_e4m3.encode(x.reshape(-1)[-1:], rounding="toward_zero")
        return codes

    assert check(kernel, "fp8_e4m3", **QUICK).law == "layout"


def test_a_long_line_has_a_tie_where_its_places_need_one_more_bit():
    x = long(Filling.of(kinds(nx.fp8_e4m3)), (1 << 21) + 13)
    assert {float(x[1 << bits]) for bits in range(15, 22)} == {12.5, 13.5}


@pytest.mark.turns
def test_the_last_of_65_536_numbers_was_never_asked():
    def kernel(x):
        codes = np.array(nx.fp8_e4m3.encode(x))
        codes.reshape(-1)[-1:] ^= np.uint8(x.size == 1 << 16)
        return codes

    assert check(kernel, "fp8_e4m3", **QUICK).law == "layout"


APART = {
    "seven axes": lambda x: x.ndim == 7,
    "an inner axis of four repeated": lambda x: x.ndim == 4 and x.strides[1] == 0 and x.shape[1] > 1,
    "rows of one number with gaps": lambda x: x.ndim == 2 and x.shape[1] == 1 and x.strides[0] > 4,
    "a column of a matrix": lambda x: x.ndim == 1 and x.strides[0] >= 256,
    "rows 64 KiB apart": lambda x: x.ndim == 2 and x.strides[0] > 1 << 16,
    "rows 1 MiB apart": lambda x: x.ndim == 2 and x.strides[0] > 1 << 20,
    "rows 32 KiB backward": lambda x: x.ndim == 2 and x.strides[0] < -(1 << 15),
    "three axes begun 8 bytes late": lambda x: (
        x.ndim == 3 and x.flags.c_contiguous and x.ctypes.data % 16 == 8 and x.size > 1
    ),
}


def test_what_lies_far_apart_or_begins_late_is_given():
    given = [kept(x) for x in apart(Filling.of(kinds(nx.fp8_e5m2)), ANYTHING)]
    for name, is_such in APART.items():
        assert any(is_such(x) for x in given), name
    assert not list(apart(Filling.of(kinds(nx.fp8_e5m2)), Takes(contiguous=True)))


@pytest.mark.turns(4)
@pytest.mark.parametrize("lying", ["rows 1 MiB apart", "three axes begun 8 bytes late"])
def test_what_lies_far_apart_was_never_asked(lying):
    def kernel(x):
        return nx.fp8_e5m2.encode(-x if APART[lying](x) else x)

    assert check(kernel, "fp8_e5m2", **QUICK).law == "layout"


@pytest.mark.turns(4)
@pytest.mark.parametrize("tile", [48, 320, 640, 5120])
def test_what_a_line_leaves_over_of_a_tile_that_is_no_power_of_two_was_not_asked(tile):
    def kernel(x):
        codes = np.array(nx.fp8_e4m3.encode(x))
        if x.ndim == 1 and x.size > 300 and x.size % tile == tile - 1:
            codes[-1] = 0
        return codes

    assert check(kernel, "fp8_e4m3", **QUICK).law == "layout"
