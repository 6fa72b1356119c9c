"""IEEE P3109's formats are gfloat's, code by code, and round as it does."""

from __future__ import annotations

import pickle
from fractions import Fraction
from itertools import pairwise

import gfloat
import gfloat.formats
import numpy as np
import pytest

import numerics as nx
from numerics.formats.text import dtype_of, parse, text_of
from tests.helpers.executors import EXECUTORS

EVERY = [
    (bits, precision, signed, extended)
    for bits in range(3, 9)
    for signed in (True, False)
    for precision in range(1, bits + (not signed))
    for extended in (True, False)
]
WIDE = [
    (bits, precision, signed, extended)
    for bits in range(9, 16)
    for signed in (True, False)
    for precision in range(bits - 7 - signed, bits + (not signed))
    for extended in (True, False)
]
ROUNDINGS = {
    "TiesToEven": "half_even", "TiesToAway": "half_away", "TowardZero": "toward_zero",
    "TowardNegative": "floor", "TowardPositive": "ceil",
}  # fmt: skip


def theirs(bits, precision, signed, extended):
    sign = gfloat.Signedness.Signed if signed else gfloat.Signedness.Unsigned
    domain = gfloat.Domain.Extended if extended else gfloat.Domain.Finite
    return gfloat.formats.format_info_p3109(bits, precision, sign, domain)


def named(facts):
    return nx.p3109(*facts[:2], signed=facts[2], extended=facts[3])


def turning(d) -> np.ndarray:
    """Values, middles, ends and what is past them, with their neighbours."""
    held = np.unique([v for v in d.values() if np.isfinite(v)])
    follows = d.beyond if isinstance(d, nx.Float) else d.follows
    past = np.array([min(follows, 1e38), min((follows + d.max) / 2, 1e38), 1e38, np.inf])
    x = np.float32([*held, *((held[1:] + held[:-1]) / 2), *past, *-past, np.nan])
    x = np.concatenate([x, *(np.nextafter(x, np.float32(end)) for end in (np.inf, -np.inf))])
    return x


@pytest.mark.turns(18)
@pytest.mark.parametrize(
    "facts", EVERY, ids=lambda facts: nx.p3109(*facts[:2], signed=facts[2], extended=facts[3]).name
)
def test_every_format_is_gfloats(facts):
    bits, precision, signed, extended = facts
    d, info = nx.p3109(bits, precision, signed=signed, extended=extended), theirs(*facts)
    due = gfloat.decode_ndarray(info, np.arange(1 << bits))
    assert np.array_equal(np.array(d.values()), due, equal_nan=True)
    x = turning(d)
    x = x if signed else x[~(x < 0)]  # of which gfloat makes negative numbers
    for name, rounding in list(ROUNDINGS.items())[:: 1 if bits > 6 else 2]:
        for saturates in (True, False):
            rounded = gfloat.round_ndarray(info, x.astype(np.float64), gfloat.RoundMode[name], saturates)
            codes = gfloat.encode_ndarray(info, rounded)
            overflow = "saturate" if saturates else "nonsaturate"
            assert np.array_equal(d.encode(x, rounding=rounding, overflow=overflow), codes), (name, saturates)


def by_fractions(code: int, bits: int, precision: int, signed: bool, extended: bool) -> float | Fraction:
    """What a code stands for, by the report's words (4.0, Decode)."""
    half = 1 << (bits - 1)
    if code == (half if signed else 2 * half - 1):
        return np.nan
    negative = signed and code > half
    code -= half * negative
    if extended and code == (half - 1 if signed else 2 * half - 2):
        return -np.inf if negative else np.inf
    bias = 1 << (bits - precision - signed)
    exponent, fraction = divmod(code, 1 << (precision - 1))
    digits = fraction + ((1 << (precision - 1)) if exponent else 0)
    found = digits * Fraction(2) ** (max(exponent, 1) - bias - (precision - 1))
    return -found if negative else found


@pytest.mark.turns(18)
@pytest.mark.parametrize("facts", WIDE, ids=lambda facts: named(facts).name)
def test_codes_of_sixteen_bits_are_gfloats_and_the_reports(facts):
    """K 9 to 15 were refused: codes by exact fractions, and encoding as gfloat does."""
    d, info, bits = named(facts), theirs(*facts), facts[0]
    came = d.decode(np.arange(1 << bits, dtype=np.uint16))
    assert np.array_equal(came, gfloat.decode_ndarray(info, np.arange(1 << bits)), equal_nan=True)
    due = [by_fractions(code, *facts) for code in range(1 << bits)]
    assert all(v != v if w != w else Fraction(v) == w if abs(w) != np.inf else v == w
               for v, w in zip(came.tolist(), due, strict=True))  # fmt: skip
    numbers = np.flatnonzero(np.isfinite(came)).astype(np.uint16)
    assert np.array_equal(d.encode(came[numbers]), numbers)
    packed = d.pack(numbers)
    assert packed.size == -(-numbers.size * bits // 8)
    assert np.array_equal(d.unpack(packed, numbers.size), numbers)
    assert np.array_equal(d.encode_packed(came[numbers]), packed)
    x = turning(d)
    x = np.random.default_rng(bits).choice(x if facts[2] else x[~(x < 0)], 4000)
    for name, rounding in ROUNDINGS.items():
        for saturates in (True, False):
            rounded = gfloat.round_ndarray(info, x.astype(np.float64), gfloat.RoundMode[name], saturates)
            codes = gfloat.encode_ndarray(info, rounded)
            overflow = "saturate" if saturates else "nonsaturate"
            assert np.array_equal(d.encode(x, rounding=rounding, overflow=overflow), codes), (name, saturates)


JUDGED = [(8, 3, True, True), (4, 1, True, False), (8, 1, False, False), (9, 1, True, True),
          (11, 4, False, True), (12, 5, True, True), (15, 7, True, False), (15, 15, False, True)]  # fmt: skip


@pytest.mark.parametrize("facts", JUDGED, ids=str)
def test_every_executor_rounds_them_as_the_judge(facts):
    bits, precision, signed, extended = facts
    d = nx.p3109(bits, precision, signed=signed, extended=extended)
    x = np.random.default_rng(1).choice(turning(d), 500)
    for rounding in ("half_even", "to_odd"):
        with nx.use("reference"):
            due = d.encode(x, rounding=rounding, overflow="nonsaturate")
        for name in EXECUTORS:
            with nx.use(name):
                came = d.encode(x, rounding=rounding, overflow="nonsaturate")
            assert np.array_equal(came, due), name


NEGATIVE = {  # of a step below 0, under SatNone: the magnitudes that become 0, and whether -Inf alone is NaN
    "half_even": (0.5, False), "half_away": (0.49, False), "half_up": (0.5, False),
    "half_down": (0.49, False), "toward_zero": (1e30, True), "ceil": (1e30, True), "to_odd": (1e30, True),
    "floor": (0, False),
}  # fmt: skip


@pytest.mark.parametrize("facts", [(8, 3, False, True), (5, 1, False, False), (12, 5, False, True)], ids=str)
def test_what_is_below_zero_is_nan_where_there_is_no_sign_and_nothing_saturates(facts):
    """It became 0, which is SatFinite's answer (report 4.0, Saturate)."""
    d = nx.p3109(*facts[:2], signed=facts[2], extended=facts[3])
    step = d.smallest_subnormal
    for rounding, (most, kept) in NEGATIVE.items():
        x = [-step * part for part in (1e-6, 0.49, 0.5, 0.51, 1.0, 3.0)]
        due = [0 if -v <= most * step or kept else d.nan for v in x] + [d.nan]
        for name in EXECUTORS:
            with nx.use(name):
                came = d.encode([*x, -np.inf], rounding=rounding, overflow="nonsaturate")
                assert came == due, (rounding, name)
                assert d.encode([*x, -np.inf], rounding=rounding, overflow="saturate") == [0] * 7


def test_powers_of_two_tie_to_the_even_code():
    """Precision 1: a significand has no last digit, so that the code says what is even (report 4.0)."""
    d = nx.p3109(4, 1)
    held = [v for v in d.finite if v > 0]
    ties = [(low + high) / 2 for low, high in pairwise(held)]
    assert all(code % 2 == 0 for code in d.encode(ties))


@pytest.mark.parametrize("name", ["binary8p3se", "Binary12p5SE", "p3109(8, 3)", "binary99p3se"])
def test_no_other_format_takes_a_name_of_p3109(name):
    facts = {"kind": "integer", "name": name, "signed": True, "bits": 5}
    for declare in (lambda: nx.integer_format(5, name=name), lambda: nx.float_format(4, 4, name=name),
                    lambda: nx.codebook_format([0, 1], name=name), lambda: dtype_of(facts)):  # fmt: skip
        with pytest.raises(nx.NumericsError, match="name"):
            declare()


def test_a_format_of_p3109_comes_back_from_its_text_and_its_pickle():
    for d in (nx.p3109(8, 3), nx.p3109(12, 5), nx.p3109(9, 9, signed=False, extended=False)):
        assert parse(text_of(d)) is d
        assert pickle.loads(pickle.dumps(d)) is d


@pytest.mark.parametrize("facts", [(2, 1), (16, 8), (8, 8), (8, 0), ("8", 3), (8, 2.5), (12, 3)])
def test_what_cannot_be_is_refused(facts):
    with pytest.raises(nx.NumericsError):
        nx.p3109(*facts)


@pytest.mark.parametrize("bits", [8, 12])
def test_it_is_of_the_report_and_not_of_a_user(bits):
    assert nx.p3109(bits, 5).source == "IEEE P3109, report 4.0"
