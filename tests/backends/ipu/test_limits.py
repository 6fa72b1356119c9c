"""The limits of shifts and accumulators: what is outside is found, and the repair is enough.

The judge shares no code with them, and nothing here runs on, or says anything about, silicon.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")  # importing any module of the package imports its executor

from numerics.backends.array import primitives
from numerics.backends.bind import bind
from numerics.backends.ipu import limits, srs
from numerics.formats import NumericsError

rng = np.random.default_rng(8)
BOUND = bind({name: getattr(primitives, name) for name in ("where", "minimum", "maximum")}, sources=(srs,))
INT32 = (-(2**31), 2**31 - 1)


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
