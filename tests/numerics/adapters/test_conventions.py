"""A host's convention as an argument of one kernel: the same bits as torch's own steps, on both executors."""

from __future__ import annotations

import math
from itertools import product

import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.adapters import conventions
from numerics.adapters.conventions import Convention
from numerics.formats.integers import integer_format

BACKENDS = ("cpu", "array", "reference")
"""The judge has no kernel over rows: NumPy's runs."""
ELEMENTS = (nx.int8, nx.int4, nx.fp4, nx.fp6_e2m3, nx.fp8_e4m3)
ROUNDINGS = ("half_even", "half_away")


def rows(count=6, length=70):
    """Numbers, ties, zeros of both signs, subnormals and what is far out of every range."""
    x = torch.randn(count, length, generator=torch.Generator().manual_seed(3)) * 4
    x[0, :12] = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.5, -2.5, 1e-42, -1e-42, 3e38, -3e38, -0.2, 0.25])
    x[1, :4] = torch.tensor([-1e-30, 1e-30, -128.5, 127.5])
    return x


STEPS = torch.tensor([1.0, 0.5, 0.1, 3.0, 2.0**-100, 7.3])


def same(a, b):
    return bool((a.view(torch.int32) == b.view(torch.int32)).all())


def by_steps(x, numbers, element, how):
    """The steps of the convention, each by torch or by the format."""
    first, second = (one[:, None] for one in numbers)
    y = x * first if how.multiplies else x / first
    y = y + 0.0 if how.plain else y
    made = element.round(y, rounding=how.rounding)
    if how.zeros == "kept":
        made = made.copysign(y)
    made = made + 0.0 if how.zeros == "positive" else made
    return made / second if how.divides_back else made * second


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("element", ELEMENTS, ids=str)
def test_a_convention_is_its_steps_one_after_another(element, backend):
    x = rows()
    for by, back, plain, zeros, mode in product(
        (False, True), (False, True), (False, True), ("ours", "kept", "positive"), ROUNDINGS
    ):
        how = Convention(by, back, plain, zeros, mode)
        numbers = (STEPS, STEPS.flip(0))
        with nx.use(backend):
            made = conventions.values(x, numbers, element, how)
        assert same(made, by_steps(x, numbers, element, how)), how


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_magnitude_becomes_another_before_it_is_rounded(backend):
    x = torch.tensor([[0.25, -0.25, 0.2499999, 0.0]])
    one = torch.ones(1)
    with nx.use(backend):
        made = conventions.values(x, (one, one), nx.fp4, Convention(), (0.25, 0.5))
    assert made.tolist() == [[0.5, -0.5, 0.0, 0.0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("element", [nx.int8, nx.uint8, nx.int4, integer_format(3, signed=False)], ids=str)
def test_zero_points_are_added_to_what_is_rounded(element, backend):
    x = rows()
    zero = torch.tensor([element.min, element.max, 0, 1, 2, 3], dtype=torch.int32)
    for by in (False, True):
        how = Convention(multiplies=by)
        y = x * STEPS[:, None] if by else x / STEPS[:, None]
        codes = (y.double().round() + zero[:, None]).clamp(element.min, element.max)
        with nx.use(backend):
            made = conventions.moved_values(x, (STEPS, STEPS), zero, element, how)
            limits = int(element.min), int(element.max)
            found = conventions.moved_codes(x, (STEPS, zero), element, how, limits)
        assert same(made, (codes - zero[:, None]).float() * STEPS[:, None])
        assert found.int().tolist() == (codes.int() & (1 << element.bits) - 1).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_of_32_bits_are_moved_as_integers_or_as_floats(backend):
    codes = torch.tensor([[0, 1, -1, 2**24 + 1, -(2**31), 2**31 - 1, 77, -77]], dtype=torch.int32)
    scale, zero = torch.tensor([0.3]), torch.tensor([5], dtype=torch.int32)
    with nx.use(backend):
        exactly = conventions.values_of_integers(codes, scale, zero, exactly=True)
        rounded = conventions.values_of_integers(codes, scale, zero, exactly=False)
    assert same(exactly, (codes - zero).float() * scale)
    assert same(rounded, (codes.float() - zero) * scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_number_stays_or_is_the_least(backend):
    x = torch.tensor([[torch.nan, -torch.nan, torch.inf, -torch.inf, 1.0]])
    one, zero = torch.ones(1), torch.tensor([3], dtype=torch.int32)
    for nan, due in (("ours", [0.0, 0.0]), ("kept", [torch.nan, torch.nan]), ("least", [-128.0, -128.0])):
        how = Convention(multiplies=True, nan=nan)
        with nx.use(backend):
            found = conventions.moved_values(x, (one, one), 0 * zero, nx.int8, how)
            moved = conventions.moved_values(x, (one, one), zero, nx.int8, how)
        assert_equal(found, torch.tensor([[*due, 127.0, -128.0, 1.0]]))
        assert_equal(moved, torch.tensor([[*due, 127.0, -128.0, 1.0]]) + torch.tensor(
            [[-3.0 if nan == "least" else 0.0] * 2 + [-3.0, -3.0, 0.0]]))  # fmt: skip


def assert_equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("element", [nx.int8, integer_format(4, narrow=True), nx.uint8], ids=str)
def test_the_gradients_of_a_scale_are_their_steps(element, backend):
    x = rows()[1:]
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    ties = torch.arange(-20, 20) / 2 + torch.tensor([element.min, element.max, 0, 5, -3])[:, None]
    x[:, :40] = ties
    x[:, 40:44] = torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38])
    scale, zero = torch.tensor([1.0, 1.0, 0.5, 1.0, 3.0]), torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])

    def slopes(steps, up):
        least = steps >= element.min - 0.5 if element.min % 2 == 0 else steps > element.min - 0.5
        inside = (least & (steps < element.max + 0.5)) | steps.isnan()
        added = element.round(steps) - steps
        added = torch.where((added == -0.5) & (steps < 0), 0.5, added) if up else added
        return inside, torch.where(inside, added, element.round(steps))

    with nx.use(backend):
        tqt, lsq = ([conventions.room(x), conventions.room(x)] for _ in range(2))
        conventions.tqt_slopes(x, gradient, scale, element, tqt)
        factor = torch.full_like(scale, 0.01)
        assert [*conventions.lsq_slopes(x, gradient, (scale, zero, factor), element, *lsq, [len(x)])] == [5]
    inside, slope = slopes(x / scale[:, None], up=True)
    assert same(tqt[0], torch.where(inside, gradient, 0.0))
    assert_equal(tqt[1], gradient * scale[:, None] * math.log(2.0) * slope)
    inside, slope = slopes(x / scale[:, None] + zero[:, None], up=False)
    assert same(lsq[0], inside.float() * gradient)
    slope = torch.where((x / scale[:, None]).isinf(), torch.nan, slope)  # Inf - Inf
    assert_equal(lsq[1], slope * gradient * 0.01)


SIZES = (1, 2, 8, 16, 32, 48, 128, 130)
"""Of blocks: shorter than a tile, as long, of no power of two, and longer than a kernel holds whole."""


def blocks(size, count=9):
    """Blocks of numbers of all sizes, of zeros, and with subnormals, Inf and NaN."""
    x = torch.randn(count, size, generator=torch.Generator().manual_seed(5))
    x *= torch.exp2(torch.arange(count) * 21.0 - 90)[:, None]
    x[0], x[1], x[2, 0], x[3, -1] = 0.0, 1e-41, torch.inf, torch.nan
    x[4] = -x[4].abs()  # whose sign small ones keep
    return x


def top_of(x):
    return x.abs().amax(-1)


@pytest.mark.turns(6)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["int8", "fp4", "fp8_e4m3"])
@pytest.mark.parametrize(("rule", "logarithm"), [("even", False), ("floor", True), ("bump", True)])
def test_a_block_is_rounded_by_its_rule_and_says_whether_it_is_odd(backend, size, name, rule, logarithm):
    d, x = nx.block_format(element=name, block=size), blocks(size)
    x[5, 0] = 4.0 * (2 - 2.0**-23)
    x[5, 1:] = 1.0
    for zeros in ("ours", "positive"):
        with nx.use(backend):
            made, odd = conventions.mx_values(
                x, d, rule, Convention(zeros=zeros), (2.0**-90, 2.0**40), logarithm=logarithm
            )
        due = d.round(x, scale_rule=rule)
        assert torch.equal(made.isnan(), due.isnan())
        some = ~due.isnan()
        assert same(made[some], (due + 0.0 if zeros == "positive" else due)[some])
        top = top_of(x)
        wrong = ~((top >= 2.0**-90) & (top <= 2.0**40)) & (top != 0)
        if logarithm:
            wrong |= top == 0
            wrong[5] = True
        assert odd.tolist() == wrong.nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "packed"), [("fp4", True), ("fp4", False), ("fp6_e2m3", False)])
@pytest.mark.parametrize("size", [2, 8, 16, 32, 48, 130])
def test_codes_of_blocks_stand_as_they_are_asked_for(backend, kind, name, packed, size):
    d, x = nx.mx(name, size), blocks(size).to(kind)
    for rule, least in (("floor", None), ("rceil", 2.0**-60)):
        with nx.use(backend):
            codes, scale, odd = conventions.mx_codes(x, d, rule, packed=packed, least=least)
        due = d.encode(x.float(), scale_rule=rule)
        wanted = due.codes
        if packed:
            wanted = torch.from_numpy(nx.fp4.pack(due.codes.numpy())).view(len(x), -1)
        assert codes.tolist() == wanted.tolist()
        assert scale.tolist() == due.scale.reshape(-1).tolist()
        top = top_of(x.float())
        wrong = ((scale == 0) | (scale == 255)) & (top != 0)
        if least:
            q = top / d.element.max
            wrong |= (top != 0) & (q < least)
            wrong |= ((q.view(torch.int32) + 128) & 0x7FFFFF) < 256
        assert odd.tolist() == (wrong & (top != 0)).nonzero().squeeze(1).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_blocks_over_their_power_of_two_are_numbers_on_a_grid(backend, size, rounding):
    x = blocks(size)
    x[5], x[6], x[7] = 2.0 - 2.0**-23, 2.0, 2.0 + 2.0**-22
    x[8, 0] = 2.0**127
    x[8, 1:] = 3e-39
    how, hit = Convention(plain=True, rounding=rounding), (0.25, 0.5)
    for bits, odd_ones in ((8, [1, 2, 3, 5, 7]), (4, [1, 2, 3, 5, 7, 8])):
        with nx.use(backend):
            made, odd = conventions.power_values(x, nx.fp4, how, hit, 2, bits)
        furthest = 2.0 ** (bits - 1) - 1
        power = torch.frexp(top_of(x)).exponent.float() - 1
        power = torch.where(top_of(x) > 0, power, -126.0) - 2
        far = power > furthest
        step = torch.exp2(power.clamp(min=-furthest))[:, None]
        y = x / step + 0.0
        due = nx.fp4.round(torch.where(y.abs() == 0.25, y.sign() * 0.5, y), rounding=rounding) * step
        known = sorted({*odd_ones, *far.nonzero().squeeze(1).tolist()} - {0})
        assert odd.tolist() == known
        regular = [row for row in range(len(x)) if row not in known]
        assert same(made[regular], due[regular])


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_say_whether_all_are_below_a_limit(backend):
    x = blocks(32)[[0, 1, 4, 5]]
    for number, fits in ((6.99, True), (-7.0, False), (torch.inf, False), (torch.nan, False)):
        x[3, 31] = number
        x.clamp_(-6.99, 6.99) if fits else None
        with nx.use(backend):
            made, within = conventions.limited_values(x, nx.fp4, Convention(plain=True), (0.25, 0.5), 7.0)
        assert within is fits
        finite = x[:3] + 0.0
        assert same(made[:3], nx.fp4.round(torch.where(finite == 0.25, 0.5, finite)))


def test_rows_are_those_of_the_last_axis_or_none():
    x = torch.zeros(2, 3, 4)
    found = conventions.in_rows(x, torch.tensor(2.0), torch.ones(2, 3, 1))
    assert found is not None
    assert found[0].shape == (6, 4)
    assert [len(one) for one in found[1]] == [6, 6]
    assert conventions.in_rows(x, torch.ones(3)) is None
    assert conventions.in_rows(x.half(), torch.tensor(2.0)) is None
    assert conventions.in_rows(x.mT, torch.tensor(2.0)) is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [1, 5, 7, 12])
def test_scales_of_another_count_than_rows_are_refused(backend, count):
    """A kernel read past the end of fewer."""
    with nx.use(backend), pytest.raises(nx.NumericsError, match=f"numbers has {count}, and 6 are needed"):
        conventions.values(rows(), (STEPS.repeat(2)[:count],) * 2, nx.fp4, Convention())
    with nx.use(backend), pytest.raises(nx.NumericsError, match=f"array 1 of numbers has {count}"):
        conventions.moved_codes(
            rows(), (STEPS, torch.zeros(count, dtype=torch.int32)), nx.int8, Convention(), (-128, 127)
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_another_shape_than_the_first_are_refused(backend):
    x = rows()
    out = torch.empty(6, 69), torch.empty(6, 70)
    with nx.use(backend), pytest.raises(nx.NumericsError, match="array 2 of rows has the shape"):
        conventions.tqt_slopes(x, x, STEPS, nx.int8, out)


def test_a_number_of_more_axes_than_x_is_not_taken_in_rows():
    """What it gives has those axes, too."""
    x = rows()
    assert conventions.in_rows(x, torch.ones(1, 1)) is not None
    assert conventions.in_rows(x, torch.ones(1, 1, 1)) is None
