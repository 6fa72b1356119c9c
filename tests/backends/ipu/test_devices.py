"""The NPU's integer semantics, device table, shift limits and bfp16ebs8 against judges of exact Fractions
and integers that share no code with them.  Nothing here runs on, or says anything about, silicon."""

from __future__ import annotations

import inspect
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

pytest.importorskip("onnxruntime")  # importing any module of the package imports its executor

from numerics.backends.array import primitives
from numerics.backends.bind import bind
from numerics.backends.ipu import bfp16ebs8, devices, limits, srs
from numerics.formats import NumericsError
from numerics.formats.rounding import ROUNDINGS
from tests.laws.test_dialect import faults

rng = np.random.default_rng(8)
BOUND = bind({name: getattr(primitives, name) for name in ("where", "minimum", "maximum")}, sources=(srs,))
INT32 = (-(2**31), 2**31 - 1)
SHIFTS = [*range(17), 23, 24, 30, 31]


# ---- SRS


def accumulators(shift: int) -> list[int]:
    """Both ends of int32, powers of two, every tie and its neighbours near zero and the ends, and random
    ones of every magnitude."""
    step, half = 1 << shift, (1 << shift) >> 1
    near = [*range(-9, 10), INT32[0] // step, INT32[0] // step + 1, INT32[1] // step, INT32[1] // step - 1]
    found = {k * step + place + d for k in near for place in (0, half) for d in (-1, 0, 1)}
    found |= {sign * (1 << p) + d for p in range(32) for sign in (-1, 1) for d in (-1, 0, 1)}
    found |= {(130 * step + half) * sign for sign in (-1, 1)}
    found |= set(rng.integers(INT32[0], INT32[1], 400, endpoint=True).tolist())
    found |= {
        int(a) >> int(s) for a, s in zip(rng.integers(*INT32, 400), rng.integers(0, 31, 400), strict=True)
    }
    return sorted(a for a in found if INT32[0] <= a <= INT32[1])


def judged(acc: int, shift: int) -> dict[str, int]:
    """acc / 2**shift by the words of UG1583, mode -> integer, not yet saturated."""
    exact = Fraction(acc, 2**shift)
    down, up = math.floor(exact), math.ceil(exact)
    inward, outward = (down, up) if acc >= 0 else (up, down)
    even, odd = (down, up) if down % 2 == 0 else (up, down)
    if down == up:
        odd = down
    tie = exact - down == Fraction(1, 2)
    nearest = down if exact - down < Fraction(1, 2) else up
    ties = {
        "neg_inf": down, "pos_inf": up, "sym_zero": inward, "sym_inf": outward, "conv_even": even,
        "conv_odd": odd,
    }  # fmt: skip
    directed = {"floor": down, "ceil": up, "sym_floor": inward, "sym_ceil": outward}
    return directed | {mode: choice if tie else nearest for mode, choice in ties.items()}


@pytest.mark.parametrize("shift", SHIFTS)
def test_srs_is_the_judge(shift):
    accs = accumulators(shift)
    due = [judged(acc, shift) for acc in accs]
    for shifts in (shift, np.full(len(accs), shift, np.int32)):
        for mode in srs.MODES:
            came = BOUND.srs(np.array(accs, np.int32), shifts, mode, *INT32)
            assert came.dtype == np.int32
            assert came.tolist() == [d[mode] for d in due], mode


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", srs.SATURATIONS)
def test_srs_saturates(name, bits):
    low, high = srs.SATURATIONS[name][bits]
    for shift, mode in itertools.product([0, 1, 7, 16, 31], srs.MODES):
        accs = accumulators(shift)
        due = [min(max(judged(acc, shift)[mode], low), high) for acc in accs]
        assert BOUND.srs(np.array(accs, np.int32), shift, mode, low, high).tolist() == due


def test_the_saturations_are_those_of_the_manual():
    top = {8: 127, 16: 32767}
    due = {
        "none": dict.fromkeys(top, INT32),
        "saturate": {bits: (-t - 1, t) for bits, t in top.items()},
        "symmetric": {bits: (-t, t) for bits, t in top.items()},
    }
    assert due == srs.SATURATIONS


def test_the_modes_are_those_of_the_manual():
    codes = {
        "floor": 0, "ceil": 1, "sym_floor": 2, "sym_ceil": 3, "neg_inf": 8, "pos_inf": 9, "sym_zero": 10,
        "sym_inf": 11, "conv_even": 12, "conv_odd": 13,
    }  # fmt: skip
    assert {name: mode.code for name, mode in srs.MODES.items()} == codes
    assert all(mode.meaning for mode in srs.MODES.values())
    assert {mode.rounding for mode in srs.MODES.values()} - {None} <= set(ROUNDINGS)


def test_srs_keeps_to_the_dialect():
    assert list(faults(inspect.getsource(srs).replace("mode", "rounding"))) == []


class Word:
    """An int32 that refuses to wrap around, to shift by what is not a count, and to be negative under a
    logical `>>` without being masked: the result of such a shift is the pattern, as on the NPU's graph."""

    def __init__(self, value: int) -> None:
        assert INT32[0] <= value <= INT32[1], value
        self.value = value

    @staticmethod
    def of(value: Word | int) -> int:
        return value.value if isinstance(value, Word) else value

    def __add__(self, other):
        return Word(self.value + Word.of(other))

    def __sub__(self, other):
        return Word(self.value - Word.of(other))

    def __rsub__(self, other):
        return Word(other - self.value)

    def __and__(self, other):
        return Word(self.value & Word.of(other))

    def __lshift__(self, count):
        assert 0 <= Word.of(count) <= 31
        return Word(((self.value << Word.of(count)) + 2**31) % 2**32 - 2**31)

    def __rlshift__(self, value):
        return Word(value) << self

    def __rshift__(self, count):
        assert 0 <= Word.of(count) <= 31
        shifted = self.value % 2**32 >> Word.of(count)
        return Word((shifted + 2**31) % 2**32 - 2**31)

    def __lt__(self, other):
        return self.value < Word.of(other)

    def __gt__(self, other):
        return self.value > Word.of(other)


def test_srs_never_leaves_int32_and_needs_no_arithmetic_shift():
    words = {
        "where": lambda condition, yes, no: Word(Word.of(yes if condition else no)),
        "minimum": lambda x, y: Word(min(Word.of(x), Word.of(y))),
        "maximum": lambda x, y: Word(max(Word.of(x), Word.of(y))),
    }
    strict = bind(words, sources=(srs,))
    for shift in SHIFTS:
        for acc in accumulators(shift)[::7] + list(INT32):
            due = judged(acc, shift)
            for mode in srs.MODES:
                assert strict.srs(Word(acc), Word(shift), mode, *INT32).value == due[mode]


@pytest.mark.parametrize("name", devices.DEVICES)
def test_requantize_uses_the_mode_of_the_device(name):
    device = devices.device(name)
    for shift in SHIFTS:
        accs = accumulators(shift)
        due = [min(max(judged(acc, shift)[device.mode], -128), 127) for acc in accs]
        assert BOUND.requantize(np.array(accs, np.int32), shift, device).tolist() == due


def test_the_devices_differ_at_ties():
    acc = np.array([-12, -4, 4, 12], np.int32)
    assert BOUND.requantize(acc, 3, devices.device("phx")).tolist() == [-1, 0, 1, 2]
    assert BOUND.requantize(acc, 3, devices.device("stx")).tolist() == [-2, 0, 0, 2]


# ---- devices

XCLBIN = "C:/Ryzen/xclbins/phoenix/4x4.xclbin"


@pytest.mark.parametrize("name", ["phx", "hpt"])
def test_the_legacy_devices(name):
    device = devices.device(name)
    assert (device.name, device.target, device.mode, device.blocks) == (name, "X1", "pos_inf", ())
    assert device.provider_options(XCLBIN, cache_dir="c") == {
        "target": "X1", "xlnx_enable_py3_round": "0", "xclbin": XCLBIN, "cache_dir": "c"
    }  # fmt: skip
    for missing in (None, ""):
        with pytest.raises(NumericsError, match=r"needs xclbin=.*phoenix/4x4\.xclbin"):
            device.provider_options(missing)


@pytest.mark.parametrize("name", ["stx", "krk"])
def test_the_present_devices(name):
    device = devices.device(name)
    assert (device.name, device.target, device.mode) == (name, "X2", "conv_even")
    assert device.blocks == ("bfp16ebs8",)
    assert device.provider_options() == {"target": "X2"}
    with pytest.raises(NumericsError, match="none may be set"):
        device.provider_options(XCLBIN)


def test_devices_are_four_frozen_rows():
    assert list(devices.DEVICES) == ["phx", "hpt", "stx", "krk"]
    assert len({hash(device) for device in devices.DEVICES.values()}) == 4
    with pytest.raises(AttributeError):
        devices.device("phx").mode = "floor"
    with pytest.raises(TypeError):
        devices.device("phx").options["target"] = "X2"


def test_bad_devices():
    with pytest.raises(NumericsError, match=r"unknown device 'phoenix'.*allowed: phx, hpt, stx, krk"):
        devices.device("phoenix")
    with pytest.raises(NumericsError, match=r"unknown SRS mode 'half_even'.*allowed: floor"):
        devices.Device("x", "", "", "X2", "half_even", {}, False)
    with pytest.raises(NumericsError, match="unknown target 'X3'"):
        devices.Device("x", "", "", "X3", "floor", {}, False)
    with pytest.raises(NumericsError, match="target: stx decides it"):
        devices.device("stx").provider_options(target="X1")


# ---- limits


def layer_holds(p: dict[str, int], leaky: bool) -> bool:
    cut = p["wpos"] + p["ipos"] - p["opos"]
    low = 0 if leaky else min(0, cut - 16)
    return 0 <= cut <= 16 and ("bpos" not in p or low <= p["wpos"] + p["ipos"] - p["bpos"] <= 15)


def add_holds(p: dict[str, int]) -> bool:
    ipos = [at for name, at in p.items() if name != "opos"]
    return max(ipos) - min(ipos) <= 7 and -7 <= min(ipos) - p["opos"] <= 25


def product_holds(p: dict[str, int], high: int) -> bool:
    return 0 <= sum(at for name, at in p.items() if name != "opos") - p["opos"] <= high


def hard_sigmoid_holds(p: dict[str, int]) -> bool:
    return 0 <= p["ipos"] <= 15 and p["opos"] >= 7 and 0 <= 14 + p["ipos"] - p["opos"] <= 31


def aligned(p: dict[str, int]) -> bool:
    return len(set(p.values())) == 1


WIDE, FEW = (-40, -12, -7, -1, 0, 3, 7, 9, 15, 16, 17, 25, 33, 50), (-30, -8, -1, 0, 5, 7, 8, 26)
LIMITS = {
    "conv": (lambda p: layer_holds(p, False), ("ipos", "wpos", "opos", "bpos"), FEW, ("wpos", "bpos")),
    "gemm": (lambda p: layer_holds(p, False), ("ipos", "wpos", "opos"), WIDE, ("wpos",)),
    "conv_leaky_relu": (
        lambda p: layer_holds(p, True),
        ("ipos", "wpos", "opos", "bpos"),
        FEW,
        ("wpos", "bpos"),
    ),
    "gemm_leaky_relu": (
        lambda p: layer_holds(p, True),
        ("ipos", "wpos", "opos", "bpos"),
        FEW,
        ("wpos", "bpos"),
    ),
    "add": (add_holds, ("ipos0", "ipos1", "ipos2", "opos"), FEW, ("ipos0", "ipos1", "ipos2", "opos")),
    "sub": (
        lambda p: abs(p["ipos0"] - p["ipos1"]) <= 7,
        ("ipos0", "ipos1", "opos"),
        WIDE,
        ("ipos0", "ipos1"),
    ),
    "mul": (lambda p: product_holds(p, 32), ("ipos0", "ipos1", "opos"), WIDE, ("opos",)),
    "swish": (lambda p: product_holds(p, 15), ("ipos0", "ipos1", "opos"), WIDE, ("opos",)),
    "hard_sigmoid": (hard_sigmoid_holds, ("ipos", "opos"), range(-40, 60), ("ipos", "opos")),
    "concat": (aligned, ("ipos0", "ipos1", "opos"), FEW, ("ipos0", "ipos1", "opos")),
    "max_pool": (aligned, ("ipos", "opos"), WIDE, ("ipos", "opos")),
    "average_pool": (aligned, ("ipos", "opos"), WIDE, ("ipos", "opos")),
    "global_average_pool": (aligned, ("ipos", "opos"), WIDE, ("ipos", "opos")),
    "pad": (aligned, ("ipos", "opos"), WIDE, ("ipos", "opos")),
    "slice": (aligned, ("ipos", "opos"), WIDE, ("ipos", "opos")),
}


def test_every_operation_is_tested():
    assert set(LIMITS) == set(limits.OPERATIONS)


@pytest.mark.parametrize("operation", LIMITS)
def test_check_finds_what_is_outside_and_the_repair_is_enough(operation):
    holds, names, values, movable = LIMITS[operation]
    for chosen in itertools.product(values, repeat=len(names)):
        positions = dict(zip(names, chosen, strict=True))
        found = limits.check(operation, **positions)
        assert (found == []) == holds(positions)
        after = limits.repaired(operation, **positions)
        assert holds(after)
        assert limits.check(operation, **after) == []
        moved = {name for name in names if after[name] != positions[name]}
        assert moved <= set(movable) & {finding.position for finding in found}
        for finding in found:  # applied in order, the list is the recipe
            assert finding.value < finding.low or (finding.high is not None and finding.value > finding.high)
            positions[finding.position] = finding.to
        assert positions == after


@pytest.mark.parametrize(
    ("operation", "positions", "text"),
    [
        ("conv", {"ipos": 6, "wpos": 14, "opos": 3}, "shift_cut is 17, allowed 0 .. 16: move wpos to 13"),
        ("conv", {"ipos": 2, "wpos": 4, "opos": 9}, "shift_cut is -3, allowed 0 .. 16: move wpos to 7"),
        (
            "gemm",
            {"ipos": 4, "wpos": 8, "bpos": -4, "opos": 4},
            "shift_bias is 16, allowed -8 .. 15: move bpos to -3",
        ),
        (
            "gemm",
            {"ipos": 4, "wpos": 8, "bpos": 21, "opos": 4},
            "shift_bias is -9, allowed -8 .. 15: move bpos to 20",
        ),
        (
            "conv_leaky_relu",
            {"ipos": 4, "wpos": 8, "bpos": 13, "opos": 4},
            "shift_bias is -1, allowed 0 .. 15: move bpos to 12",
        ),
        ("add", {"ipos0": 3, "ipos1": 12, "opos": 2}, "shift_read is 9, allowed 0 .. 7: move ipos1 to 10"),
        ("add", {"ipos0": 3, "ipos1": 3, "opos": 11}, "shift_write is -8, allowed -7 .. 25: move opos to 10"),
        ("mul", {"ipos0": 3, "ipos1": 3, "opos": 7}, "shift_write is -1, allowed 0 .. 32: move opos to 6"),
        ("swish", {"ipos0": 9, "ipos1": 9, "opos": 2}, "shift_swish is 16, allowed 0 .. 15: move opos to 3"),
        ("hard_sigmoid", {"ipos": 3, "opos": 6}, "opos is 6, allowed at least 7: move opos to 7"),
        ("hard_sigmoid", {"ipos": 3, "opos": 18}, "shift_sigmoid is -1, allowed 0 .. 31: move opos to 17"),
        ("pad", {"ipos": 3, "opos": 5}, "opos above the lowest is 2, allowed 0 .. 0: move opos to 3"),
    ],
)
def test_a_finding_says_what_repairs_it(operation, positions, text):
    (finding,) = limits.check(operation, **positions)
    assert str(finding) == text
    assert text.endswith(finding.repair)


@pytest.mark.parametrize(
    ("operation", "positions", "text"),
    [
        ("convolution", {"ipos": 1}, "unknown operation 'convolution'.*allowed: conv, gemm"),
        ("conv", {"ipos": 1, "opos": 1}, "missing: wpos"),
        ("conv", {"ipos": 1, "wpos": 1, "opos": 1, "pos": 1}, "not one of them: pos"),
        ("add", {"ipos": 1, "opos": 1}, "missing: ipos0, ipos1; not one of them: ipos"),
        ("swish", {"ipos0": 1, "ipos1": 1, "ipos2": 1, "opos": 1}, "not one of them: ipos2"),
        ("mul", {"ipos0": 1, "ipos1": 1, "opos": 1, "bpos": 1}, "not one of them: bpos"),
        ("pad", {"ipos": 1, "opos": 0.5}, "opos is 0.5; a position is an integer"),
        ("pad", {"ipos": True, "opos": 1}, "ipos is True"),
    ],
)
def test_bad_positions(operation, positions, text):
    for function in (limits.check, limits.repaired):
        with pytest.raises(NumericsError, match=text):
            function(operation, **positions)


def test_the_accumulator_bound_is_reached_and_not_exceeded():
    inputs = np.arange(-128, 128)
    every = np.stack(np.meshgrid(inputs, inputs), axis=-1).reshape(-1, 2)
    for _ in range(60):
        w = rng.integers(-128, 128, (3, 2)).astype(np.int8)
        bias = rng.integers(-(2**20), 2**20, 3) if rng.integers(2) else None
        acc = every @ w.T.astype(np.int64) + (0 if bias is None else bias)
        assert limits.accumulator_bound(w, 8, bias) == np.abs(acc).max()
        assert limits.accumulator_bound(w.T, 8, bias, axis=1) == np.abs(acc).max()


def test_the_accumulator_bound_is_exact_beyond_float64_and_int32():
    w = np.full((1, 1 << 10), -(2**31), np.int32)
    w[0, 0] += 1
    assert limits.accumulator_bound(w, 16) == 2**15 * (2**41 - 1)
    assert limits.accumulator_bound(w.reshape(1, 4, 16, 16), 16) == 2**15 * (2**41 - 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.ones((2, 2), np.float32), 8), "weights of float32"),
        ((np.ones((0, 2), np.int8), 8), "no outputs"),
        ((np.int8(1), 8), "no outputs"),
        ((np.ones((2, 2), np.int8), 8, None, 2), "along axis 2"),
        ((np.ones((2, 2), np.int8), 4), "inputs of 4 bits; allowed: 8, 16"),
        ((np.ones((2, 2), np.int8), 8, np.ones(3, np.int32)), r"allowed: integers of shape \(2,\)"),
        ((np.ones((2, 2), np.int8), 8, np.ones(2)), "a bias of float64"),
    ],
)
def test_bad_weights(arguments, text):
    with pytest.raises(NumericsError, match=text):
        limits.accumulator_bound(*arguments)


def test_float32_holds_what_is_below_2_to_24():
    assert [limits.float32_is_exact(b) for b in (0, 2**24 - 1, 2**24, 2**31)] == [True, True, False, False]
    with pytest.raises(NumericsError, match="-1"):
        limits.float32_is_exact(-1)


def test_from_2_to_24_on_float32_requantizes_wrongly():
    acc, shift = 2**24 + 8 * 2**4 + 1, 0  # odd, so float32 drops its last bit
    assert BOUND.srs(np.array([acc], np.int32), shift, "conv_even", *INT32)[0] == acc
    assert int(np.float32(acc)) != acc


# ---- bfp16ebs8


def judged_block(values: list[float], variant: str) -> tuple[int, list[int]] | None:
    """E and q by the description, in Fractions; None where E would be 255."""
    shared = max(math.frexp(v)[1] + 126 if abs(v) >= 2.0**-126 else 0 for v in values)
    rounded = math.floor if variant == "floor" else round  # Python's round of a Fraction: half to even
    q = [rounded(Fraction(v) / Fraction(2) ** (shared - 133)) for v in values]
    if variant == "even_bump" and max(q) > 127:
        shared += 1
        q = [rounded(Fraction(v) / Fraction(2) ** (shared - 133)) for v in values]
    lowest = -127 if variant == "quark" else -128
    return None if shared > 254 else (shared, [min(max(n, lowest), 127) for n in q])


def blocks_of_bits(low: int, high: int, rows: int, mask: int = 0xFFFFFFFF) -> np.ndarray:
    bits = rng.integers(low, high, (rows, 8)).astype(np.uint32) & np.uint32(mask)
    return (bits | rng.integers(0, 2, bits.shape).astype(np.uint32) << np.uint32(31)).view(np.float32)


def ties(exponent: int) -> np.ndarray:
    """Blocks under one E whose elements are n + 1/2 units, or one float32 next to it, n up to 127."""
    n = rng.integers(0, 128, (24, 8))
    x = np.ldexp(n + 0.5, exponent - 133).astype(np.float32)
    x = np.where(rng.integers(0, 3, x.shape) == 0, np.nextafter(x, np.float32(0)), x)
    x = np.where(rng.integers(0, 4, x.shape) == 0, np.nextafter(x, np.float32(np.inf)), x)
    x[:, 0] = np.ldexp(64.0, exponent - 133)
    return (x * rng.choice(np.float32([-1, 1]), x.shape)).astype(np.float32)


def bumps(exponent: int) -> np.ndarray:
    """The largest just below, at and above 127.5 units, of either sign, among others."""
    top = np.ldexp(127.5, exponent - 133).astype(np.float32)
    rows = []
    for largest in (np.nextafter(top, np.float32(0)), top, np.nextafter(top, np.float32(np.inf))):
        for sign in (-1, 1):
            row = np.ldexp(rng.integers(-255, 256, 8) / 4, exponent - 133).astype(np.float32)
            row[rng.integers(8)] = sign * largest
            rows.append(row)
    return np.array(rows, np.float32)


BLOCKS = {
    "ordinary": rng.standard_normal((150, 8)).astype(np.float32),
    "any finite": blocks_of_bits(0, 0x7F000000, 150),
    "subnormal": blocks_of_bits(0, 1 << 23, 150),
    "few bits": blocks_of_bits(0, 1 << 17, 60),
    "around the smallest normal": blocks_of_bits(1 << 22, 3 << 23, 100),
    "one binade and those below": blocks_of_bits(100 << 23, 110 << 23, 150),
    "ties": np.concatenate([ties(e) for e in (1, 2, 17, 127, 200, 253)]),
    "bump": np.concatenate([bumps(e) for e in (1, 2, 3, 60, 127, 253)]),
    "largest": blocks_of_bits(253 << 23, 0x7F800000, 100),
    "corners": np.array(
        [
            [0.0] * 8,
            [-0.0] * 8,
            [2.0**-149, -(2.0**-149), 0, 0, 0, 0, 0, 0],
            [2.0**-133, 2.0**-134, 3 * 2.0**-134, -(2.0**-134), -3 * 2.0**-134, 5 * 2.0**-134, 0, 0],
            [2.0**-126, 2.0**-127, 2.0**-149, -(2.0**-149), 0, 0, 0, 0],
            [2.0**-126 - 2.0**-149, 0, 0, 0, 0, 0, 0, 0],
            [-(2.0**-126) + 2.0**-149, 0, 0, 0, 0, 0, 0, 0],
            [1.0, 2.0**-7, 2.0**-8, -(2.0**-7), 2.0**-149, -(2.0**-149), 0.0, -0.0],
            [1.9999999] * 8,
            [-1.9999999] * 8,
            [3.4028235e38, -3.4028235e38, 1, -1, 0, 0, 0, 0],
        ],
        np.float32,
    ),
}


@pytest.mark.parametrize("variant", bfp16ebs8.VARIANTS)
@pytest.mark.parametrize("kind", BLOCKS)
def test_pack_is_the_judge(kind, variant):
    for block in BLOCKS[kind]:
        due = judged_block([float(v) for v in block], variant)
        if due is None:
            with pytest.raises(NumericsError, match=r"rounds up to 2\*\*128 in block 0"):
                bfp16ebs8.pack(block, variant)
            continue
        shared, q = due
        packed = bfp16ebs8.pack(block, variant)
        assert packed.dtype == np.uint8
        assert packed.tolist() == [[shared, *(n % 256 for n in q)]]
        if (shared, min(q)) != (254, -128):
            values = bfp16ebs8.unpack(packed)[0]
            assert [Fraction(float(v)) for v in values] == [n * Fraction(2) ** (shared - 133) for n in q]


def test_the_kinds_hold_what_they_are_for():
    def judged_kind(kind: str, variant: str) -> list:
        return [judged_block([float(v) for v in block], variant) for block in BLOCKS[kind]]

    saturated, bumped = judged_kind("bump", "even_sat"), judged_kind("bump", "even_bump")
    assert sum(b[0] == s[0] + 1 for s, b in zip(saturated, bumped, strict=True)) >= 12
    assert None in judged_kind("largest", "even_bump")
    assert judged_kind("bump", "quark") != saturated
    assert {shared for shared, _ in judged_kind("subnormal", "floor")} == {0}


def test_the_bump_rounds_the_whole_block_again():
    x = np.array([255, 3, 1, -1, -3, -255, 2, 0], np.float32) / 2  # 127.5, 1.5, 0.5 ... units of 1
    as_signed = {v: bfp16ebs8.pack(x, v).view(np.int8).tolist()[0] for v in bfp16ebs8.VARIANTS}
    assert as_signed == {
        "floor": [-123, 127, 1, 0, -1, -2, -128, 1, 0],  # E = 133
        "even_sat": [-123, 127, 2, 0, 0, -2, -128, 1, 0],
        "even_bump": [-122, 64, 1, 0, 0, -1, -64, 0, 0],
        "quark": [-123, 127, 2, 0, 0, -2, -127, 1, 0],
    }


def test_unpack_is_exact_for_every_byte():
    shared, q = np.arange(255), np.arange(-128, 128)
    packed = np.empty((255, 32, 9), np.uint8)
    packed[:, :, 0] = shared[:, None]
    packed[:, :, 1:] = q.astype(np.int8).view(np.uint8).reshape(32, 8)
    packed = packed.reshape(-1, 9)
    inside = ~((packed[:, 0] == 254) & (packed[:, 1] == 128))
    came = bfp16ebs8.unpack(packed[inside])
    due = np.ldexp(packed[inside, 1:].view(np.int8).astype(np.float64), packed[inside, :1].astype(int) - 133)
    assert came.dtype == np.float32
    assert came.astype(np.float64).tobytes() == (due + 0.0).tobytes()
    with pytest.raises(NumericsError, match="no float32"):
        bfp16ebs8.unpack(packed[~inside])


def test_blocks_lie_along_the_last_axis():
    x = rng.standard_normal((3, 5, 24)).astype(np.float32)
    whole = bfp16ebs8.pack(x, "even_bump")
    assert whole.shape == (45, 9)
    rows = [bfp16ebs8.pack(x[i, j, 8 * k : 8 * k + 8], "even_bump") for i, j, k in np.ndindex(3, 5, 3)]
    assert whole.tobytes() == np.concatenate(rows).tobytes()
    assert bfp16ebs8.pack(x.transpose(1, 0, 2), "floor").tobytes() == (
        bfp16ebs8.pack(np.ascontiguousarray(x.transpose(1, 0, 2)), "floor").tobytes()
    )
    again = bfp16ebs8.unpack(whole).reshape(x.shape)
    assert bfp16ebs8.pack(again, "floor").shape == whole.shape


@pytest.mark.parametrize("variant", bfp16ebs8.VARIANTS)
def test_each_block_is_its_own(variant):
    for x in BLOCKS["bump"], BLOCKS["corners"][:-1]:
        alone = np.concatenate([bfp16ebs8.pack(block, variant) for block in x])
        assert bfp16ebs8.pack(x, variant).tobytes() == alone.tobytes()


def test_no_blocks_at_all():
    assert bfp16ebs8.pack(np.empty((3, 0), np.float32), "floor").shape == (0, 9)
    assert bfp16ebs8.unpack(np.empty((0, 9), np.uint8)).shape == (0, 8)


def test_pack_leaves_its_input_alone():
    x = rng.standard_normal((4, 8)).astype(np.float32)
    before = x.copy()
    x.flags.writeable = False
    bfp16ebs8.pack(x, "even_bump")
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize("variant", bfp16ebs8.VARIANTS)
@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF])
def test_nan_and_inf_are_refused(bits, variant):
    x = np.ones((3, 8), np.float32)
    x.view(np.uint32)[1, 6] = bits
    with pytest.raises(NumericsError, match=r"NaN or Inf in block 1.*uncharacterised"):
        bfp16ebs8.pack(x, variant)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.ones(8), "float64"),
        (np.ones(8, np.float16), "float16"),
        (np.ones(8, ">f4"), ">f4"),
        (np.ones(7, np.float32), r"allowed: float32 \[..., 8 k\]"),
        (np.ones((8, 4), np.float32), r"\(8, 4\)"),
        (np.float32(1), r"float32 \(\)"),
    ],
)
def test_bad_values(x, text):
    with pytest.raises(NumericsError, match=text):
        bfp16ebs8.pack(x, "floor")


def test_bad_variant_and_bytes():
    with pytest.raises(NumericsError, match=r"unknown variant of bfp16ebs8 'even'.*allowed: floor, even_sat"):
        bfp16ebs8.pack(np.ones(8, np.float32), "even")
    for packed in (np.ones((1, 9), np.int8), np.ones((1, 8), np.uint8), np.ones(9, np.uint8)):
        with pytest.raises(NumericsError, match=r"allowed: uint8 \[n, 9\]"):
            bfp16ebs8.unpack(packed)
    with pytest.raises(NumericsError, match="byte 255"):
        bfp16ebs8.unpack(np.array([[255, 1, 0, 0, 0, 0, 0, 0, 0]], np.uint8))
