"""Blocks of codebooks that name an end are scaled to it, whatever their scale: by fractions of their own."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction
from functools import cache, partial

import numpy as np
import pytest

import numerics as nx
from tests.helpers.bits import assert_same_bits
from tests.helpers.float_scales import E4M3, blocks, f32, floor_log2, nearest

LEVELS = [0, 0.5, 1, 1.5, 2, 3, 4, 64]
UE5M3 = [Fraction(m, 8) * Fraction(2) ** -14 for m in range(8)] + [
    Fraction(8 + m, 8) * Fraction(2) ** (e - 15) for e in range(1, 32) for m in range(8)
]
SCALES = {"fp8_e4m3": E4M3[:127], "ue5m3fn": UE5M3[:255]}


def posits() -> list[Fraction]:
    """The magnitudes of 8 bits with two exponent bits, in the order of their codes (Posit Standard §3)."""
    found = [Fraction(0)]
    for code in range(1, 128):
        bits = f"{code:07b}"
        run = len(bits) - len(bits.lstrip(bits[0]))
        rest = bits[run + 1 :]
        exponent = int((rest[:2] + "00")[:2], 2)
        regime = run - 1 if bits[0] == "1" else -run
        part = Fraction(int(rest[2:] or "0", 2), 1 << len(rest[2:]))
        found.append((1 + part) * Fraction(2) ** (4 * regime + exponent))
    return found


def hifloats() -> list[Fraction]:
    """The magnitudes of HiFloat8 (arXiv 2409.16626): 3 digits to 2**±3, 2 to 2**±7, 1 to 2**±15."""
    found = [Fraction(0), *(Fraction(2) ** e for e in range(-22, -15))]
    for e in range(-15, 16):
        digits = 3 if abs(e) <= 3 else 2 if abs(e) <= 7 else 1
        found += [Fraction(2) ** e * (1 + Fraction(k, 1 << digits)) for k in range(1 << digits)]
    return found[:-1]  # 1.5 * 2**15 is Inf


def mine(**facts) -> nx.Dtype:
    values = [*LEVELS, -0.0, *(-v for v in LEVELS[1:])]
    return nx.codebook_format(values, scaled_to=4.0, **facts)


BOOKS = {"posit8": (posits, 15), "hifloat8": (hifloats, 15), "mine": (lambda: map(Fraction, LEVELS), 4)}
EACH = pytest.mark.parametrize("name", BOOKS)


def element(name: str) -> nx.Dtype:
    return mine() if name == "mine" else nx.dtype(name)


@cache
def book(name: str) -> tuple[list[Fraction], Fraction]:
    values, end = BOOKS[name]
    return list(values()), Fraction(end)


def to_element(a: Fraction, name: str) -> Fraction:
    """The nearest magnitude; at a tie the nearer to zero where its code is even."""
    held, d = book(name)[0], element(name)
    above = bisect_left(held, a)
    if above in (0, len(held)):
        return held[min(above, len(held) - 1)]
    low, high = held[above - 1 : above + 1]
    if a - low == high - a:
        return high if d.listed.index(float(low)) % 2 else low
    return low if a - low < high - a else high


def rounded(x: np.ndarray, totals: list[Fraction], name: str) -> np.ndarray:
    """The values of blocks under both scales, each operation one of float32."""
    found = []
    for row, total in zip(x, totals, strict=True):
        parts = [
            to_element(f32(abs(Fraction(float(a))) / total) if total else Fraction(0), name) for a in row
        ]
        found.append([float(f32(v * total)) for v in parts])
    return np.copysign(np.array(found, np.float32), x)


def assert_same_numbers(values: np.ndarray, due: np.ndarray) -> None:
    """The same bits; of zeros, which not every book has twice, the value."""
    assert_same_bits(values + np.float32(0), due + np.float32(0))


def found_scale(wanted: Fraction, held: list[Fraction], rule: str) -> Fraction:
    if rule == "ceil":
        return held[min(bisect_left(held, wanted), len(held) - 1)]
    return held[nearest(wanted, held)]


@pytest.mark.turns(144)
@EACH
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rule", ["floor", "ceil"])
@pytest.mark.parametrize("given", [None, 1.0, 0.0371])
def test_a_float_scale_brings_the_maximum_to_the_end(executor, name, scale, rule, given):
    """hifloat8's blocks were scaled to 32768, posit8's to 2**24, where one digit and none are left."""
    x, (_, end), held = blocks(rows=48), book(name), SCALES[scale]
    d = nx.block_format(element=element(name), scale=scale, block=16)
    made = d.encode(x, scale_rule=rule, tensor_scale=given)
    tops = [Fraction(float(a)) for a in np.abs(x).max(axis=1)]
    whole = f32(max(tops) / f32(end * held[-1])) if given is None else f32(Fraction(given))
    assert made.tensor_scale == float(whole)
    scales = [found_scale(f32(f32(top / end) / whole), held, rule) for top in tops]
    assert made.scale.ravel().tolist() == [held.index(s) for s in scales]
    due = rounded(x, [f32(whole * s) for s in scales], name)
    assert_same_numbers(d.decode(made), due)
    assert_same_numbers(d.round(x, scale_rule=rule, tensor_scale=given), due)


@EACH
def test_the_order_of_transformer_engine_is_scaled_to_the_end(executor, name):
    x, end = blocks(rows=48), book(name)[1]
    d = nx.block_format(element=element(name), scale="fp8_e4m3", block=16)
    made = d.encode(x, scale_rule="nvidia", tensor_scale=0.25)
    tops = [Fraction(float(a)) for a in np.abs(x).max(axis=1)]
    wanted = [f32(top * f32(4 * f32(1 / end))) for top in tops]
    assert made.scale.ravel().tolist() == [nearest(w, E4M3[:127]) for w in wanted]


def exponent(top: Fraction, end: Fraction, rule: str) -> int:
    """That of a block's scale: the formulas of docs/formats.md §4."""
    if rule == "rceil":
        top, end = top / end, Fraction(1)
    down = floor_log2(top)
    return down + (rule != "floor" and Fraction(2) ** down != top) - floor_log2(end)


@pytest.mark.turns
@EACH
@pytest.mark.parametrize("rule", ["floor", "ceil", "rceil"])
def test_a_power_of_two_brings_the_maximum_to_the_end(executor, name, rule):
    """The reference alone went on to scale to the largest value: it called every kernel wrong."""
    x, end = blocks(rows=48), book(name)[1]
    d = nx.mx(element(name), 16)
    made, tops = d.encode(x, scale_rule=rule), [Fraction(float(a)) for a in np.abs(x).max(axis=1)]
    exponents = [exponent(top, end, rule) if top else -127 for top in tops]
    assert (made.scale.ravel().astype(int) - 127).tolist() == exponents
    assert_same_numbers(d.decode(made), rounded(x, [Fraction(2) ** e for e in exponents], name))


@pytest.mark.turns
@pytest.mark.parametrize("rule", ["floor", "mse"])
def test_both_readings_of_a_block_end_where_its_book_says(executor, rule):
    """A count is worth a seventh of the end, not of the largest value."""
    d = nx.block_format(
        element=mine(), scale="fp8_e4m3", block=16, integers=nx.integer_format(4, narrow=True)
    )
    assert d.step == np.float32(4 / 7)
    assert d.steps_in_one == 1.75
    counts = np.float32([[7, -6, 5, -4, 3, -2, 1, 0] * 2]) * np.float32(d.step)
    made = d.encode(counts, tensor_scale=1.0, scale_rule=rule)
    assert made.scale.tolist() == [[0xB8]]
    assert_same_bits(d.decode(made), counts)


@pytest.mark.turns(18)
@EACH
@pytest.mark.parametrize("scale", ["e8m0", *SCALES])
def test_the_judge_takes_them(name, scale):
    d = nx.block_format(element=element(name), scale=scale, block=16)
    given = {"tensor_scale": 1.0} if d.has_tensor_scale else {}
    for rule in set(d.scale_rules) - {"mse"}:
        kernel = partial(d.round, axis=-1, scale_rule=rule, **given)
        assert nx.conform.check(kernel, d, kind="round", scale_rule=rule), rule


@pytest.mark.parametrize("scale", ["e8m0", "fp8_e4m3"])
@pytest.mark.parametrize("end", [1e-45, 2.0**-30, 0.3, 0.75])
def test_a_block_is_not_scaled_to_less_than_1(scale, end):
    """Scales above 2**127 were due, and every backend made something else of them."""
    book = nx.codebook_format([-1.0, 0.0, 0.5, 1.0], scaled_to=end)
    with pytest.raises(nx.NumericsError, match=r"scaled to .*allowed: scaled_to= from 1 on"):
        nx.block_format(element=book, scale=scale, block=16)


@pytest.mark.parametrize("end", [1.0, 1.1, 2.7, 33.3])
def test_an_end_that_is_no_short_fraction_is_the_float32_itself(executor, end):
    book = nx.codebook_format([*LEVELS, -0.0, *(-v for v in LEVELS[1:])], scaled_to=end)
    x = blocks(rows=48)
    for scale in ("e8m0", "fp8_e4m3"):
        d = nx.block_format(element=book, scale=scale, block=16)
        given = {"tensor_scale": 1.0} if d.has_tensor_scale else {}
        made = [d.encode(x, scale_rule=rule, **given).scale for rule in ("floor", "ceil")]
        with nx.use("reference"):
            due = [d.encode(x, scale_rule=rule, **given).scale for rule in ("floor", "ceil")]
        assert np.array_equal(made, due)


@pytest.mark.parametrize("name", ["hifloat8", "posit8"])
def test_little_is_lost_under_a_float_scale(name):
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    q = nx.quantize(x, nx.block_format(element=name, scale="fp8_e4m3", block=16))
    assert 10 * np.log10(np.square(x).sum() / np.square(q.dequantize() - x).sum()) > 31


# ---- lists whose negative side is the longer -------------------------------------------------------

LEFT = [-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.25, 0.5]
ITS_BLOCKS = {"e8m0": ("floor", "ceil", "rceil"), "fp8_e4m3": ("floor", "ceil", "nvidia", "mse")}


def both_ways(**facts) -> tuple[nx.Dtype, nx.Dtype]:
    """A list that reaches further below zero, and its mirror image."""
    return nx.codebook_format(LEFT, **facts), nx.codebook_format([0.0 - v for v in LEFT], **facts)


@pytest.mark.parametrize("scheme", ["per_tensor", nx.per_channel(0), nx.per_group(16)], ids=str)
def test_a_list_negated_does_to_a_tensor_negated_what_the_list_does(executor, scheme):
    """The scale was amax over the largest positive value, however short that side: [-4, -2, -1, 0.5] of its
    own values became [-8, -8, 4, 4]."""
    x, (left, right) = blocks(rows=24), both_ways()
    one, other = (nx.quantize(a, d, scheme=scheme) for a, d in ((x, left), (-x, right)))
    assert_same_bits(one.scale, other.scale)
    assert_same_numbers(one.dequantize(), -other.dequantize())
    assert_same_numbers(nx.fake_quantize(x, left, scheme=scheme), one.dequantize())
    if scheme == "per_tensor":
        assert float(one.scale) == float(f32(Fraction(float(np.abs(x).max())) / 4))


@pytest.mark.turns
@pytest.mark.parametrize("scale", ITS_BLOCKS)
def test_blocks_are_scaled_to_the_longer_side(executor, scale):
    x, (left, right) = blocks(rows=24), both_ways()
    one, other = (nx.block_format(element=d, scale=scale, block=16) for d in (left, right))
    assert (one.emax, one.min, one.max) == (2, -other.max, -other.min)
    for rule in ITS_BLOCKS[scale]:
        made, due = one.encode(x, scale_rule=rule), other.encode(-x, scale_rule=rule)
        assert_same_bits(made.scale, due.scale)
        assert_same_numbers(one.decode(made), -other.decode(due))
        assert_same_numbers(one.round(x, scale_rule=rule), one.decode(made))


@pytest.mark.parametrize("values", [[-4, -2, -1, 0.5], [-8.5, -3.0, 0.0, 0.0625]])
def test_a_tensor_of_the_values_of_a_list_is_given_back(executor, values):
    x, d = np.array(values, np.float32), nx.codebook_format(values)
    assert float(nx.quantize(x, d).scale) == 1.0
    assert_same_numbers(nx.fake_quantize(x, d), x)
    for scale in ("e8m0", "fp8_e4m3"):
        given = {} if scale == "e8m0" else {"tensor_scale": 1.0}
        assert_same_numbers(nx.fake_quantize(x, nx.block_format(element=d, scale=scale, block=4), **given), x)


@pytest.mark.turns(4)
@pytest.mark.parametrize("scale", ["e8m0", "fp8_e4m3"])
def test_the_judge_scales_to_the_longer_side(scale):
    left = both_ways()[0]
    assert nx.conform.check(left.encode, left)
    d = nx.block_format(element=left, scale=scale, block=16)
    given = {"tensor_scale": 1.0} if d.has_tensor_scale else {}
    assert nx.conform.check(partial(d.round, axis=-1, **given), d, kind="round")


def test_the_end_of_the_shorter_side_can_be_asked_for():
    d = nx.codebook_format(range(-8, 8), scaled_to=7)
    x = blocks(rows=24)
    mine, known = (
        nx.quantize(x, d, scheme=nx.per_channel(0)),
        nx.quantize(x, "int4", scheme=nx.per_channel(0)),
    )
    assert_same_bits(mine.scale, known.scale)
    assert_same_numbers(mine.dequantize(), known.dequantize())


def test_a_block_s_elements_lie_within_reach_on_both_sides():
    """The positive values alone were looked at."""
    for values in ([-(2.0**41), 0, 0.5, 1], [-(2.0**-41), 0, 0.5, 1]):
        with pytest.raises(nx.NumericsError, match=r"within 2\*\*-40 .. 2\*\*40"):
            nx.mx(nx.codebook_format(values))


def test_observers_find_what_quantize_finds():
    x, (left, right) = blocks(rows=24), both_ways()
    for kind in (nx.observe.MinMax, nx.observe.MSE, nx.observe.Percentile):
        seen = []
        for a, d in ((x, left), (-x, right)):
            observer = kind(d, scheme=nx.per_channel(0))
            observer.observe(a)
            seen.append(observer.scale)
        assert_same_bits(*seen)
        if kind is nx.observe.MinMax:
            assert_same_bits(seen[0], nx.quantize(x, left, scheme=nx.per_channel(0)).scale)


@pytest.mark.parametrize("block", [False, True])
def test_a_scale_of_the_longer_side_is_learned(block):
    """Its start and its gradients are those of the mirror image."""
    torch = pytest.importorskip("torch")
    x, came = torch.from_numpy(blocks(rows=24)), []
    weights = torch.linspace(0.5, 2.0, x.numel()).reshape(x.shape)
    for sign, d in zip((1, -1), both_ways(), strict=True):
        asked = nx.block_format(element=d, scale="fp8_e4m3", block=16) if block else d
        scale = nx.train.lsq_init(sign * x, asked).requires_grad_()
        a = (sign * x).requires_grad_()
        (nx.train.lsq(a, scale, asked) * sign * weights).sum().backward()
        came.append((scale.detach(), scale.grad, sign * a.grad))
    for mine, due in zip(*came, strict=True):
        assert torch.equal(mine, due)


@pytest.mark.parametrize("scale", ["e8m0", "fp8_e4m3"])
def test_gradients_of_blocks_are_clipped_at_either_end_of_a_list(scale):
    """The positive end was taken for both: of -4 to 0.5 all below -0.5 had no gradient."""
    torch = pytest.importorskip("torch")
    for values in (LEFT, [0.0 - v for v in LEFT]):
        d = nx.block_format(element=nx.codebook_format(values), scale=scale, block=16)
        given = {"tensor_scale": 1.0} if d.has_tensor_scale else {}
        low, *_, high = sorted(values)
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((24, 16), np.float32)).requires_grad_()
        nx.fake_quantize(x, d, clip_gradient=True, **given).sum().backward()
        steps, made = np.array(sorted(values)), nx.quantize(x.detach(), d, **given)
        least, most = low - (steps[1] - low) / 2, high + (high - steps[-2]) / 2
        over = x.detach().numpy() / d.scale.decode(made.scale.numpy()).reshape(24, 1)
        assert np.array_equal(x.grad.numpy() == 1, (least < over) & (over < most))
        assert 0 < float(x.grad.mean()) < 1
