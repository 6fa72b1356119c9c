"""The NPU's shift, round and saturate against exact Fractions.

The judge shares no code with them, and nothing here runs on, or says anything about, silicon.
"""

from __future__ import annotations

import inspect
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")  # importing any module of the package imports its executor

from numerics.backends.array import primitives
from numerics.backends.bind import bind
from numerics.backends.ipu import devices, srs
from numerics.formats.rounding import ROUNDINGS
from tests.helpers.dialect import faults

rng = np.random.default_rng(8)
BOUND = bind({name: getattr(primitives, name) for name in ("where", "minimum", "maximum")}, sources=(srs,))
INT32 = (-(2**31), 2**31 - 1)
SHIFTS = [*range(17), 23, 24, 30, 31]


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


@pytest.mark.turns
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
