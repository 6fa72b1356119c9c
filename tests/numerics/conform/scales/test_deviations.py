"""Kernels that do one step otherwise, each planted: the step is named, beside the least input to show it."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.scales.rule import to_odd
from numerics.conform.task import Task

F = np.float32
EPS = F(2.0**-23)


def finite(x):
    return np.where(np.isfinite(x), x, F(0))


def plain(x):
    return np.abs(finite(x)).max(axis=-1, keepdims=True, initial=0)


def one_for_zeros(scale, most, zeros=1.0):
    return np.where(most == 0, F(zeros), np.maximum(scale, F(2.0**-149))).astype(F)


def kernel(dtype="int8", end=127.0, amax=plain, scale=None, code=None):
    """A scale for each row; scale: of (amax, the numbers); code: of (the numbers, scales, amax)."""
    element = nx.dtype(dtype)

    def encode(x):
        x = np.ascontiguousarray(x)
        with np.errstate(all="ignore"):
            most = amax(x)
            own = (scale or (lambda most, _: one_for_zeros(most / F(end), most)))(most, x).astype(F)
            y = (code or (lambda x, own, most: x / own))(x, own, most)
        found = y if y.dtype.kind in "iu" else element.encode(y.astype(F), overflow="saturate")
        return found, own

    return encode


def fp8(**steps):
    return kernel("fp8_e4m3", 448.0, **steps)


def nf4(**steps):
    return kernel("nf4", 1.0, **steps)


def ranged(steps=255.0, zero=None, code=None, whole=True):
    """uint8 with a zero point a row."""

    def encode(x):
        kept, x = finite(x), np.where(np.isnan(x), F(0), x)
        low, high = (part(axis=-1, keepdims=True, **{"initial": 0} if whole else {}) if x.shape[-1] else
                     np.zeros((*x.shape[:-1], 1), F) for part in (kept.min, kept.max))  # fmt: skip
        with np.errstate(all="ignore"):
            extent = high - low
            scale = np.where(np.isinf(extent), (high / 2 - low / 2) / F(steps / 2), extent / F(steps))
            scale = one_for_zeros(scale, extent)
            found = np.clip(np.rint(-low / scale), 0, 255) if zero is None else zero(low, scale)
            y = np.rint(x / scale).astype(np.float64) + found if code is None else code(x, scale, found)
        return np.clip(y, 0, 255).astype(np.uint8), scale, found.astype(np.int32)

    return encode


def float16(scale):
    with np.errstate(all="ignore"):
        return scale.astype(np.float16).astype(F)


def in_float64(most, own):
    return np.where(most / F(127) == own, most / np.float64(127), own)


def middles():
    values = nx.nf4.decode(np.arange(16, dtype=np.uint8)).astype(np.float64)
    return ((values[1:] + values[:-1]) / 2).astype(F)


def by_middles(x, own, _):
    y = x / own
    codes = np.searchsorted(middles(), y, side="left").astype(np.uint8)
    return np.where(np.isfinite(y), codes, nx.nf4.encode(y))


def neighbour(step):
    return lambda x: np.roll(plain(x), step, axis=0) if x.ndim > 1 else plain(x)


def no_minus(x, own, _):
    codes = nx.fp8_e4m3.encode(x / own, overflow="saturate")
    return np.where(codes == 0x80, 0, codes).astype(np.uint8)


def counts_from(most, _):
    return one_for_zeros(most / F(127), np.where(most <= F(2.0**-24), F(0), most))


ROWS = {"scheme": "per_token"}
RANGED = {"scheme": "per_token", "dtype": "uint8 symmetric=False"}
FP8 = {"scheme": "per_token", "dtype": "fp8_e4m3"}
NF4 = {"scheme": "per_token", "dtype": "nf4"}
HALF = {"scheme": "per_token", "dtype": "int8 scale_type=float16"}

PLANTED = {
    # what is put in the place of a scale of 0
    "only zeros have the scale 0": ("scale_of_zeros", ROWS, kernel(
        scale=lambda most, _: one_for_zeros(most / F(127), most, 0))),
    "zeros have the scale 1.19209e-07": ("scale_of_zeros", ROWS, kernel(
        scale=lambda most, _: one_for_zeros(most / F(127), most, EPS))),
    "zeros have the scale 1.17549e-38": ("scale_of_zeros", ROWS, kernel(
        scale=lambda most, _: one_for_zeros(most / F(127), most, 2.0**-126))),
    "scale at least 1.17549e-38": ("found_scale", ROWS, kernel(
        scale=lambda most, _: np.maximum(most / F(127), F(2.0**-126)))),
    "scale at least 3e-09": ("found_scale", ROWS, kernel(
        scale=lambda most, _: np.maximum(most / F(127), F(3e-9)))),
    "amax is at least 2.5e-06": ("found_scale", ROWS, kernel(
        scale=lambda most, _: np.maximum(most, F(2.5e-6)) / F(127))),
    "adds 1e-12": ("found_scale", ROWS, kernel(scale=lambda most, _: (most + F(1e-12)) / F(127))),
    "adds 3e-06": ("found_scale", ROWS, kernel(scale=lambda most, _: (most + F(3e-6)) / F(127))),
    "adds 1e-08 to the scale": ("found_scale", ROWS, kernel(scale=lambda most, _: most / F(127) + F(1e-8))),
    "adds 1.19209e-07 to the scale": ("found_scale", ROWS, kernel(
        scale=lambda most, _: most / F(127) + EPS)),
    "amax up to 5.96046e-08 counts as 0": ("found_scale", ROWS, kernel(scale=counts_from)),
    # ranges
    "amax over 126": ("found_scale", ROWS, kernel(end=126)),
    "amax over 128": ("found_scale", ROWS, kernel(end=128)),
    "amax over 63": ("found_scale", ROWS, kernel(end=63)),
    "amax over 100": ("found_scale", ROWS, kernel(end=100)),
    "the range over 254": ("found_scale", RANGED, ranged(steps=254.0)),
    "the range over 256": ("found_scale", RANGED, ranged(steps=256.0)),
    "range without 0": ("found_scale", RANGED, ranged(whole=False)),
    # groups
    "scale of the group before it": ("layout", ROWS, kernel(amax=neighbour(1))),
    "scale of the group after it": ("layout", ROWS, kernel(amax=neighbour(-1))),
    "one scale for the tensor": ("layout", ROWS, kernel(
        amax=lambda x: np.full((*x.shape[:-1], 1), plain(x).max(initial=0)))),
    "subnormal amax counts as 0": ("found_scale", ROWS, kernel(
        amax=lambda x: np.where(plain(x) < 2.0**-126, F(0), plain(x)))),
    # types of scales
    "scales underflow to 0": ("found_scale", HALF, kernel(
        scale=lambda most, _: np.where(most == 0, F(1), np.minimum(float16(most / F(127)), F(65504))))),
    "subnormal scales become 0": ("found_scale", HALF, kernel(
        scale=lambda most, _: np.where(most == 0, F(1), np.where(
            float16(most / F(127)) < 2.0**-14, F(0), np.minimum(float16(most / F(127)), F(65504)))))),
    "scales overflow to Inf": ("found_scale", HALF, kernel(
        scale=lambda most, _: np.where(most == 0, F(1), np.maximum(float16(most / F(127)), F(2.0**-24))))),
    # zero points
    "zero point floor": ("found_zero_point", RANGED, ranged(
        zero=lambda low, scale: np.clip(np.floor(-low / scale), 0, 255))),
    "range without 0 + zero point toward_zero + zero point not clamped": ("found_zero_point", RANGED, ranged(
        zero=lambda low, scale: np.trunc(-low / scale), whole=False)),
    "zero point half_away": ("found_zero_point", RANGED, ranged(
        zero=lambda low, scale: np.clip(np.floor(-low / scale + F(0.5)), 0, 255))),
    "zero point before rounding": ("under_scale", RANGED, ranged(
        code=lambda x, scale, zero: np.rint((x / scale + zero.astype(F)).astype(F)))),
    # codes
    "codes in float64": ("under_scale", ROWS, kernel(
        code=lambda x, own, _: to_odd(x.astype(np.float64) / own))),
    "codes by a float64 scale": ("under_scale", ROWS, kernel(
        code=lambda x, own, most: to_odd(x / in_float64(most, own)))),
    "x times maximum over amax": ("under_scale", FP8, fp8(
        code=lambda x, own, most: x * (F(448) / np.where(most == 0, F(448), most)))),
    "loses -0": ("under_scale", FP8, fp8(code=no_minus)),
    "reads -0 as 0": ("under_scale", FP8, fp8(code=lambda x, own, _: np.where(x == 0, F(0), x) / own)),
    "middles in float32": ("under_scale", NF4, nf4(code=by_middles)),
}  # fmt: skip
"""By its name: the law that is broken, what is claimed, the kernel."""


def judged(target, claim, **options):
    claim = {"dtype": "int8", **claim}
    return check(target, claim.pop("dtype"), **claim, **{"kind": "quantize", "effort": "quick", **options})


@pytest.mark.turns(8)
@pytest.mark.parametrize(
    ("target", "claim"),
    [(kernel(), ROWS), (ranged(), RANGED), (fp8(), FP8), (nf4(), NF4)],
    ids=["int8", "uint8", "fp8", "nf4"],
)
def test_these_kernels_are_right_without_their_deviation(target, claim):
    found = judged(target, claim)
    assert found, str(found)


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_deviation_is_named(name):
    law, claim, wrong = PLANTED[name]
    found = judged(wrong, claim)
    assert law in [broken.law for broken in found.failures], str(found)
    assert found.dialect == name, str(found)
    assert len(found.counterexample.input) <= 3, str(found)


VALUES = ("amax over 126", "adds 3e-06", "scale of the group before it", "codes in float64",
          "middles in float32", "range without 0", "loses -0")  # fmt: skip


@pytest.mark.turns(14)
@pytest.mark.parametrize("name", VALUES)
def test_values_alone_show_it_too(name):
    _, claim, wrong = PLANTED[name]

    def values(x):
        codes, scale, *zero = wrong(x)
        whole = nx.dtype(claim.get("dtype", "int8").split()[0]).decode(codes)
        return ((whole - zero[0] if zero else whole) * scale).astype(F)

    found = judged(values, claim, kind="fake_quantize")
    assert found.law in ("found_values", "layout"), str(found)
    assert found.dialect == name or name.startswith("adds"), str(found)


def test_numbers_round_to_odd():
    x = np.array([1, 1 + 2.0**-30, 1 - 2.0**-30, -1 - 2.0**-30, 2.0**-160, np.inf, 1e300])
    assert to_odd(x).view(np.uint32).tolist() == [
        0x3F800000, 0x3F800001, 0x3F7FFFFF, 0xBF800001, 1, 0x7F800000, 0x7F7FFFFF]  # fmt: skip


# ---- what is a neighbour's -----------------------------------------------------------------------------


def of_a_neighbour(dtype, options, by, scale=False, zero=False, told=True):
    """A kernel whose groups have the scale or the zero point of another; told: it comes back, too."""
    rule = Task.of(dtype, "quantize", **options).rule

    def turned(part, turns):
        return part if part is None or not turns else np.roll(part, by)

    def target(x):
        x = np.ascontiguousarray(x).reshape(np.shape(x))
        found = rule.find(x)
        used = turned(found.scale, scale), turned(found.zero, zero)
        back = used if told else (found.scale, found.zero)
        return rule.codes(x, *used, found), *(part for part in back if part is not None)

    return target


ASYMMETRIC = ("uint8 symmetric=False", {"scheme": "per_group(32)"})


@pytest.mark.turns(12)
@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize(
    ("form", "faults", "name"),
    [
        (("int8", {"scheme": "per_token"}), {"scale": True}, "scale of {}"),
        (("int8", {"scheme": "per_token"}), {"scale": True, "told": False}, "codes by the scale of {}"),
        (ASYMMETRIC, {"zero": True}, "zero point of {}"),
        (ASYMMETRIC, {"zero": True, "told": False}, "codes by the zero point of {}"),
        (ASYMMETRIC, {"scale": True}, "scale of {}, zero point of its own"),
        (ASYMMETRIC, {"scale": True, "zero": True}, "scale of {}"),
    ],
)
def test_the_zero_point_of_a_neighbour_was_a_fault_of_layout_without_a_name(form, faults, name, by):
    dtype, options = form
    found = check(
        of_a_neighbour(dtype, options, by, **faults), dtype, kind="quantize", effort="quick", **options
    )
    assert found.law == "layout"
    which = "the group before it" if by == 1 else "the group after it"
    assert found.dialect == name.format(which), str(found)
    if faults.get("told", True):  # codes follow from the others
        assert found.counterexample.where.startswith("scales" if "scale" in faults else "zero points")
