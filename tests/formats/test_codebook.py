"""Codebooks: what their values are by their own texts, and what is refused (formats/codebook.py)."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from statistics import NormalDist

import ml_dtypes
import numpy as np
import pytest
import torch

import numerics as nx
from numerics.formats.dtype import TABLES, Element
from numerics.formats.text import dtype_of, facts_of
from tests.helpers.executors import each_executor
from tests.helpers.inputs import edges


def test_nf4_is_the_quantiles_of_its_paper():
    """arXiv 2305.14314: eight quantiles above the middle, seven below it, and 0, over their largest."""
    offset = (1 - 1 / 30 + 1 - 1 / 32) / 2
    upper = [NormalDist().inv_cdf(offset + (0.5 - offset) * k / 8) for k in range(8)]
    lower = [-NormalDist().inv_cdf(offset + (0.5 - offset) * k / 7) for k in range(7)]
    due = np.array(sorted([*lower, 0.0, *upper])) / max(upper)
    assert np.abs(np.array(nx.nf4.values()) - due).max() < 2.0**-21


def test_fp4_of_bitsandbytes_is_twelfths_rounded_once():
    due = [Fraction(n, 192) for n in (0, 1, 128, 192, 64, 96, 32, 48)]
    values = nx.bnb_fp4.values()
    assert values[:8] == [float(np.float32(float(v))) for v in due]
    assert [-v for v in values[:8]] == values[8:]
    assert math.copysign(1, values[8]) == -1


def test_posit8_is_the_formula_of_its_standard():
    """Posit Standard (2022) §3.3: ((1 - 3s) + f) * 2**((1 - 2s) * (4r + e + s)) of the bits as they stand."""
    for code, value in enumerate(nx.posit8.values()):
        bits = f"{code:08b}"
        if code in (0, 128):
            continue
        s, body = int(bits[0]), bits[1:]
        k = len(body) - len(body.lstrip(body[0]))
        r = -k if body[0] == "0" else k - 1
        rest = body[k + 1 :].ljust(2, "0")
        e, digits = int(rest[:2], 2), rest[2:]
        f = Fraction(int(digits, 2), 1 << len(digits)) if digits else Fraction(0)
        due = ((1 - 3 * s) + f) * Fraction(2) ** ((1 - 2 * s) * (4 * r + e + s))
        assert Fraction(value) == due, bits
    assert nx.posit8.values()[0] == 0
    assert math.isnan(nx.posit8.values()[128])


def test_hifloat8_has_the_values_of_its_paper():
    """arXiv 2409.16626, table 3: three digits up to 2**3, two up to 2**7, one up to 2**15, then 7 powers."""
    due = {0.0, *(2.0**e for e in range(-22, -15))}
    for e in range(-15, 16):
        digits = 3 if abs(e) <= 3 else 2 if abs(e) <= 7 else 1
        due |= {(1 + m / (1 << digits)) * 2.0**e for m in range(1 << digits)}
    due -= {1.5 * 2.0**15}  # it is infinity's code
    assert set(nx.hifloat8.finite) == due | {-v for v in due}
    assert [nx.hifloat8.encode(v) for v in (math.nan, math.inf, -math.inf, -0.0)] == [0x80, 0x6F, 0xEF, 0]


BOOKS = [
    nx.codebook_format([-1.5, -0.45, 0.45, 1.5]),
    nx.codebook_format([1.0, 2.0, 4.0, 8.0]),
    nx.codebook_format([3.0, -0.0, 0.0, math.nan], beyond=5.0),
    nx.codebook_format([-1.0, 1e-30, 1.0, -2.0]),
    nx.codebook_format([0.0, 0.5, 0.5, 1.0, -1.0, math.inf, -math.inf, math.nan], beyond=1.5),
]


@pytest.mark.parametrize("d", BOOKS, ids=lambda d: d.book)
def test_every_book_rounds_as_the_judge_says(d):
    """Without a zero, without negatives, with both zeros, with neighbours far apart, with values twice."""
    x = np.concatenate([edges(random=400)[::7], np.float32([0.0, -0.0, 0.5, -0.5])])
    for turn, rounding in enumerate(nx.formats.rounding.ROUNDINGS):
        for overflow in d.overflows:
            options = {"rounding": rounding, "overflow": overflow}
            if rounding == "stochastic":
                options["seed"] = 3
            with nx.use("reference"):
                due = d.encode(x, **options)
            for name in each_executor(turn=turn):
                assert np.array_equal(d.encode(x, **options), due), (name, options)


def test_a_tie_of_values_of_24_digits_is_told_from_what_lies_beside_it():
    """A sum of two numbers far apart, as float64 has it, lies on the middle of another pair."""
    low, high = 2.0**-60, 1.0
    d = nx.codebook_format([low, high])
    assert [d.encode(v, rounding="half_up") for v in (0.5, 0.5 + 2.0**-24)] == [0, 1]


@pytest.mark.parametrize(
    ("values", "said"),
    [([0.0], "2, 4, 8"), ([0, 1, 2], "not 3"), ([0] * 300, "not 300"),
     (iter([0] * 300), "not more than 256"), ([0.0, -1.0], "positive"),
     (["a", 1], "real numbers"), ([0.0, 1e39], "1e.39 is beyond float32"),
     ([0, 1, 2, -1e300], "beyond float32"),
     ([0.0, float("inf")], "two finite"), ([[1], [2]], "real numbers"),
     (7, "real numbers")],
)  # fmt: skip
def test_what_is_no_book_is_refused_in_words(values, said):
    with pytest.raises(nx.NumericsError, match=said):
        nx.codebook_format(values)


@pytest.mark.parametrize("came", [True, np.True_, torch.tensor(True), "4", b"4", 4j, np.complex64(4), [4.0]])
def test_what_is_no_real_number_is_no_fact_of_a_book(came):
    """float() takes all but the list: True was 1, a text its number, a complex one its real part."""
    for fact in ("scaled_to", "beyond"):
        with pytest.raises(nx.NumericsError, match=f"{fact} must be a real number, not "):
            nx.codebook_format([-1.0, 0.0, 1.0, 3.0], **{fact: came})
    with pytest.raises(nx.NumericsError, match="values must be real numbers, not "):
        nx.codebook_format([came, 8.0])


@pytest.mark.parametrize(
    "values",
    [np.array([False, True]), torch.tensor([False, True]), np.array([0j, 1]), np.array(["0", "1"]), "01",
     b"\x00\x01", {0.0, 1.0}, {0.0: 1, 1.0: 0}, np.ones((2, 1))],
    ids=str,
)  # fmt: skip
def test_what_are_no_numbers_in_an_order_are_no_book(values):
    with pytest.raises(nx.NumericsError, match="values must be real numbers, not"):
        nx.codebook_format(values)


@pytest.mark.parametrize(
    "kind", [np.float16, np.float32, np.float64, np.int8, ml_dtypes.bfloat16, torch.tensor]
)
def test_numbers_of_all_libraries_are_facts_of_a_book(kind):
    book = [-1.0, 0.0, 1.0, 3.0]
    made = nx.codebook_format(map(kind, book), beyond=kind(4.0), scaled_to=kind(2.0))
    assert made is nx.codebook_format(book, beyond=4.0, scaled_to=2.0)


def test_a_book_that_files_bring_is_checked():
    facts = nx.formats.text.facts_of(nx.nf4)
    for wrong in ("0.1 1.0", "0.0 1.0 2.0", "zero one", 7, "0 1", ["0", "1"]):
        if wrong == "0 1":
            assert nx.formats.text.dtype_of(facts | {"name": "ours", "book": wrong}).book == "0.0 1.0"
        else:
            with pytest.raises(nx.NumericsError):
                nx.formats.text.dtype_of(facts | {"name": "mine", "book": wrong})
    with pytest.raises(nx.NumericsError, match="larger than all values"):
        nx.codebook_format([0.0, 1.0], beyond=0.5)
    assert nx.codebook_format([0.0, 1.0]) is not nx.codebook_format([-0.0, 1.0])


@pytest.mark.parametrize("count", [1, 3, 5, 33])
@pytest.mark.parametrize("book", [nx.nf4, nx.codebook_format([-1, 0.5, 0.7, 2], name="no_zero")], ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_spare_bits_of_the_last_byte_held_the_code_of_zero(executor, book, kind, count):
    """That code is 7 in NF4: bytes of the same codes differed."""
    x = np.linspace(0.4, 0.9, count).astype(kind)
    made = np.asarray(book.encode_packed(x))
    assert made.tobytes() == np.asarray(book.pack(book.encode(x))).tobytes()
    assert made[-1] >> (count * book.bits % 8 or 8) == 0


WIDE = [d for d in {id(d): d for d in TABLES.values()}.values()
        if isinstance(d, Element) and d.signed and d.bits >= 6 and d.kind != "integer"]  # fmt: skip


@pytest.mark.parametrize("d", WIDE, ids=lambda d: d.name)
def test_a_found_scale_puts_a_tensor_where_the_format_is_fine(d):
    """hifloat8 lost 12 dB and posit8 29 dB, their largest values being the coarsest.

    Beside the found scale stand sixty others, powers of two apart, tried by the format's rounding alone.
    """
    x = np.random.default_rng(0).standard_normal(1 << 14).astype(np.float32)
    q = nx.quantize(x, d, scheme="per_tensor")
    scales = (float(q.scale) * 2.0 ** np.arange(-30, 31)).astype(np.float32)
    errors = [
        np.square(scale * np.asarray(d.round(x / scale)) - x).mean() for scale in scales if scale > 2e-38
    ]
    assert np.square(q.dequantize() - x).mean() < 1.3 * np.nanmin(errors), d


def test_a_scale_is_found_for_the_end_that_a_codebook_names():
    x = np.array([[-3.0, 1.0], [0.5, 6.0]], np.float32)
    d = nx.codebook_format([-64.0, -4.0, -1.0, 0.0, 1.0, 2.0, 4.0, 64.0], scaled_to=4.0)
    assert nx.quantize(x, d, scheme="per_channel").scale.tolist() == [0.75, 1.5]
    assert d.scale_end == 4.0
    assert nx.fp8_e4m3.scale_end == nx.fp8_e4m3.max
    assert d is not nx.codebook_format([-64.0, -4.0, -1.0, 0.0, 1.0, 2.0, 4.0, 64.0])
    assert pickle.loads(pickle.dumps(d)) is d


@pytest.mark.parametrize("name", ["hifloat8", "posit8"])
@pytest.mark.parametrize("rule", ["floor", "ceil", "rceil"])
def test_blocks_are_scaled_to_where_their_elements_are_fine(name, rule):
    """MX blocks of hifloat8 had 15 dB, where groups have 32: their scale was that of the largest value."""
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    d = nx.mx(name, 32)
    q = nx.quantize(x, d, scale_rule=rule)
    largest = np.abs(x.reshape(-1, 32)).max(1) / 2.0 ** (np.asarray(q.scale, np.float64).reshape(-1) - 127)
    assert largest.min() >= {"floor": 8, "ceil": 4, "rceil": 7.5}[rule]
    assert largest.max() <= {"floor": 16, "ceil": 8, "rceil": 15}[rule]
    assert 10 * np.log10(np.square(x).sum() / np.square(q.dequantize() - x).sum()) > 31


@pytest.mark.parametrize("end", [0, -1.0, 64.5, math.nan, math.inf])
def test_an_end_that_is_no_value_within_the_list_is_refused(end):
    allowed = r"allowed: one number above 0 and not above the largest magnitude of the values \(64\)$"
    with pytest.raises(nx.NumericsError, match=rf"scaled_to=\S+ cannot be; {allowed}"):
        nx.codebook_format([-64.0, -4.0, -1.0, 0.0, 1.0, 2.0, 4.0, 64.0], scaled_to=end)


BEFORE = [
    nx.codebook_format([-1.0, 0.0, 0.5, 2.0]),
    nx.p3109(8, 3),
    nx.posit8,
    nx.hifloat8,
    nx.mx("posit8"),
    nx.mx("hifloat8"),
]


@pytest.mark.parametrize("d", BEFORE, ids=str)
def test_a_file_or_a_pickle_that_knows_of_no_end_of_scales_is_read(d):
    """They were written before codebooks had one: those of the tables have theirs, others none."""

    def before(facts):
        kept = {name: before(fact) if isinstance(fact, dict) else fact for name, fact in facts.items()}
        kept.pop("scaled_to", None)
        return kept

    assert dtype_of(before(facts_of(d))) is d
    restore, (kind, facts) = d.__reduce__()
    assert restore(kind, tuple(fact for fact in facts if fact[0] != "scaled_to")) is d


def test_a_list_that_ends_below_1_is_told_how_it_becomes_a_block():
    """Lloyd-Max lists of blocks that were divided by their largest end at 0.97."""
    values = [-0.96, -0.3, 0.3, 0.96]
    with pytest.raises(nx.NumericsError, match=r"reach 1, .*: 2 times the list does.*per_group\(32\)"):
        nx.mx(nx.codebook_format(values), 32)
    nx.mx(nx.codebook_format([2 * v for v in values]), 32)
    with pytest.raises(nx.NumericsError, match="8 times the list does"):
        nx.mx(nx.codebook_format([v / 6 for v in values]), 32)


def test_facts_that_are_missing_are_named():
    with pytest.raises(nx.NumericsError, match=r"scaled_to; name, default_overflow, beyond are missing$"):
        dtype_of({"kind": "codebook", "book": "-1 0 0.5 1"})
    facts = {**facts_of(nx.codebook_format([-1, 0, 0.5, 1])), "past": 2}
    with pytest.raises(nx.NumericsError, match=r"\['past'\] are none of them$"):
        dtype_of(facts)


def test_two_lists_of_one_name_are_told_apart_wherever_they_are_shown():
    """Both were `same_name` in every repr."""
    books = [np.linspace(-1, 1, 16), np.linspace(-1, 1, 16) ** 3, [-1, 0, 0.5, 1]]
    made = [nx.codebook_format(book, name="same_name") for book in books]
    x = np.ones((2, 4), np.float32)
    for shown in (lambda d: repr(nx.quantize(x, d)), lambda d: repr(nx.observe.MinMax(d))):
        texts = [shown(d) for d in made]
        assert len(set(texts)) == 3
        assert all("same_name(book=-1" in text and len(text) < 120 for text in texts)
