"""What a format is: names, derived facts, refusals."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

import numerics as nx
from numerics.formats.dtype import told_apart
from tests.helpers.dtypes import BLOCKS, DECLARED, DECLARED_BLOCKS, ELEMENTS

ALL = ELEMENTS + DECLARED + BLOCKS + DECLARED_BLOCKS

# docs/formats.md §1 and the OCP tables: bits, largest, smallest normal, smallest subnormal.
FACTS = {
    "int8": (8, 127, 1, 1),
    "uint4": (4, 15, 1, 1),
    "bfloat16": (16, (2 - 2**-7) * 2.0**127, 2.0**-126, 2.0**-133),
    "float16": (16, 65504, 2.0**-14, 2.0**-24),
    "fp8_e4m3": (8, 448, 2.0**-6, 2.0**-9),
    "fp8_e5m2": (8, 57344, 2.0**-14, 2.0**-16),
    "fp8_e3m4": (8, 15.5, 0.25, 2.0**-6),
    "fp8_e4m3fnuz": (8, 240, 2.0**-7, 2.0**-10),
    "fp8_e5m2fnuz": (8, 57344, 2.0**-15, 2.0**-17),
    "fp6_e3m2": (6, 28, 0.25, 0.0625),
    "fp6_e2m3": (6, 7.5, 1, 0.125),
    "fp4": (4, 6, 1, 0.5),
    "e8m0": (8, 2.0**127, 2.0**-127, 2.0**-127),
    "mxfp8_e4m3": (8.25, 448 * 2.0**127, 2.0**-133, 2.0**-136),
    "mxfp4": (4.25, 6 * 2.0**127, 2.0**-127, 2.0**-128),
    "nvfp4": (4.5, 2688, 2.0**-6, 2.0**-10),
    "bfp16": (9, 127 / 64 * 2.0**127, 2.0**-133, 2.0**-133),
    "mx4": (4, 3 * 2.0**126, 2.0**-126, 2.0**-128),
    "mx6": (6, 15 * 2.0**124, 2.0**-126, 2.0**-130),
    "mx9": (9, 127 * 2.0**121, 2.0**-126, 2.0**-133),
}


@pytest.mark.parametrize("name", FACTS)
def test_derived_facts(name):
    d = nx.dtype(name)
    assert (d.bits, d.max, d.smallest_normal, d.smallest_subnormal) == FACTS[name]


@pytest.mark.parametrize("d", ELEMENTS + DECLARED, ids=repr)
def test_facts_agree_with_the_values(d):
    values = [v for v in d.values() if math.isfinite(v)]
    assert len(d.values()) == 1 << d.bits
    assert (max(values), min(values)) == (d.max, d.min)
    assert min(v for v in values if v > 0) == d.smallest_subnormal


@pytest.mark.parametrize("d", ALL, ids=repr)
def test_identity_survives(d):
    assert pickle.loads(pickle.dumps(d)) is d
    assert copy.deepcopy(d) is d
    assert copy.copy(d) is d
    assert repr(d) == str(d) == d.name
    assert len({d, d}) == 1
    assert d.source


def test_every_alias_resolves():
    for d in nx.dtypes():
        assert d.aliases
        assert all(nx.dtype(alias) is d for alias in (d.name, *d.aliases))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (ml_dtypes.float8_e4m3fn, "fp8_e4m3"),
        (np.dtype(ml_dtypes.float8_e5m2), "fp8_e5m2"),
        (ml_dtypes.float4_e2m1fn, "fp4"),
        (ml_dtypes.float8_e8m0fnu, "e8m0"),
        (ml_dtypes.bfloat16, "bfloat16"),
        (np.float16, "float16"),
        (np.dtype("int8"), "int8"),
        ("torch.float8_e4m3fn", "fp8_e4m3"),
    ],
)
def test_other_libraries_types(theirs, ours):
    assert nx.dtype(theirs) is nx.dtype(ours)


def test_the_ieee_e4m3_of_ml_dtypes_is_no_alias():
    with pytest.raises(nx.NumericsError, match="float8_e4m3"):
        nx.dtype(ml_dtypes.float8_e4m3)


def test_unknown_names_get_the_nearest():
    with pytest.raises(nx.NumericsError, match="did you mean 'fp8_e4m3'"):
        nx.dtype("fp8_e4m4")
    with pytest.raises(nx.NumericsError, match="unknown format"):
        nx.dtype("zzz")
    with pytest.raises(nx.NumericsError, match="a format is needed, such as 'fp8_e4m3'"):
        nx.dtype(None)


def test_the_same_facts_are_the_same_object():
    assert nx.float_format(3, 2) is nx.float_format(3, 2)
    assert nx.float_format(3, 2) is not nx.float_format(3, 2, bias=4)
    assert nx.mx("fp4") is nx.mxfp4
    assert nx.mx("int8", block=8) is nx.bfp16
    assert nx.mx("fp4", block=64) is nx.mx("fp4", block=64)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"exponent": 0, "mantissa": 3}, "1 to 8 exponent bits"),
        ({"exponent": 9, "mantissa": 3}, "1 to 8 exponent bits"),
        ({"exponent": 4, "mantissa": -1}, "negative"),
        ({"exponent": 8, "mantissa": 9}, "at most 16"),
        ({"exponent": 4, "mantissa": 0}, "needs a mantissa"),
        ({"exponent": 1, "mantissa": 3}, "needs 2 exponent bits"),
        ({"exponent": 4, "mantissa": 3, "specials": "fnuz", "signed": False}, "needs a sign"),
        ({"exponent": 4, "mantissa": 3, "specials": "posit"}, "unknown specials"),
        ({"exponent": 4, "mantissa": 3, "has_zero": False}, "neither sign nor mantissa"),
        ({"exponent": 8, "mantissa": 3, "specials": "none"}, "do not fit in float32"),
        ({"exponent": 8, "mantissa": 3, "bias": 200}, "do not fit in float32"),
        ({"exponent": 1, "mantissa": 0, "specials": "fn"}, "no number but zero"),
    ],
)
def test_contradictory_floats_are_refused(facts, says):
    with pytest.raises(nx.NumericsError, match=says):
        nx.float_format(**facts)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"block": 0, "element": "fp4"}, "at least one element"),
        ({"block": 16}, "either element="),
        ({"block": 16, "element": "fp4", "mantissa": 3}, "either element="),
        ({"block": 16, "element": "fp4", "sub_block": 2}, "sub_block= and tiers= belong to mantissa="),
        ({"block": 16, "element": "uint4"}, "elements are signed"),
        ({"block": 16, "element": "mxfp4"}, "integers, floats or codebooks"),
        ({"block": 16, "element": "bfloat16"}, "must lie within"),
        ({"block": 16, "element": "fp9"}, "unknown format"),
        ({"block": 16, "mantissa": 3}, "must divide"),
        ({"block": 16, "mantissa": 3, "sub_block": 3}, "must divide"),
        ({"block": 32, "mantissa": 3, "sub_block": 2}, "at most 8 parts"),
        ({"block": 16, "mantissa": 16, "sub_block": 2}, "outside 1 .. 15"),
        ({"block": 16, "mantissa": 3, "sub_block": 2, "scale": "e8m0"}, "scale= belongs to element="),
        ({"block": 16, "element": "fp4", "scale": "int8"}, "scale"),
        ({"block": 16, "element": "fp4", "scale": "bfloat16"}, "scale"),
    ],
)
def test_contradictory_blocks_are_refused(facts, says):
    with pytest.raises(nx.NumericsError, match=says):
        nx.block_format(**facts)


def test_blocks_of_three_facts_had_one_name():
    facts = {"element": "fp4", "block": 8, "scale": "fp8_e4m3"}
    counts = [None, nx.integer_format(4, narrow=True), nx.float_format(1, 2, specials="none", bias=-1)]
    names = {nx.block_format(**facts, integers=integers).name for integers in counts}
    assert {"block8_fp4_fp8_e4m3", "block8_fp4_fp8_e4m3_int4_narrow"} < names
    assert len(names) == 3


@pytest.mark.parametrize(("name", "due"), [
    ("FP8-E4M3", "fp8_e4m3"), ("MX_FP4", "mxfp4"), ("mx-fp4", "mxfp4"), ("int_4", "int4"),
    ("Half", "float16"),
    ("b_float_16", "bfloat16"), ("NV FP4", "nvfp4"), ("mxfp8e4m3", "mxfp8_e4m3"), ("E4m3", "fp8_e4m3"),
])  # fmt: skip
def test_a_name_with_one_meaning_is_found_however_it_is_spelled(name, due):
    assert nx.dtype(name) is nx.dtype(due)


@pytest.mark.parametrize("name", ["fp8", "FP8", "float8", "mxfp8", "MXFP6", "fp6"])
def test_a_name_with_two_meanings_is_refused_with_both(name):
    with pytest.raises(
        nx.NumericsError, match=r"there are two: did you mean '(\w+)'.* or '(\w+)'\?"
    ) as refused:
        nx.dtype(name)
    for found in re.findall(r"'(\w+_e\dm\d)'", str(refused.value)):
        assert nx.dtype(found)


@pytest.mark.parametrize("name", ["int1_6", "fp_e4m4", "mx", "int", "e4"])
def test_a_name_that_only_looks_like_one_is_not_taken_for_it(name):
    with pytest.raises(nx.NumericsError, match="unknown format"):
        nx.dtype(name)


def test_a_format_that_was_declared_is_given_itself():
    """It was unknown, and int4 was offered in its place."""
    mine = nx.float_format(4, 2, bias=2, name="named_by_me")
    with pytest.raises(
        nx.NumericsError, match=r"'named_by_me'; you declared one of that name.*give the format itself"
    ):
        nx.quantize(np.ones(4), "named_by_me")
    assert nx.quantize(np.ones(4), mine).format is mine
    with pytest.raises(nx.NumericsError, match="unknown format 'named_by_you'"):
        nx.quantize(np.ones(4), "named_by_you")


def test_formats_of_one_name_are_told_apart_by_their_facts():
    one, other = (nx.float_format(4, 2, bias=bias, name="of_one_name") for bias in (3, 5))
    assert [told_apart(d) for d in (one, other)] == ["of_one_name(bias=3)", "of_one_name(bias=5)"]
    whole = nx.integer_format(5, name="of_one_name")
    assert told_apart(whole).startswith("of_one_name(integer, ")
    assert told_apart(nx.int4) == "int4"
    assert told_apart(nx.float_format(4, 2, bias=9, name="of_no_other")) == "of_no_other"
    first, second = (nx.mx(d, block=16) for d in (one, other))
    assert told_apart(first) != told_apart(second)
    assert "bias=3" in told_apart(first)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("mxfp4", "floor, ceil, even, rceil, tosa, bump"), ("mx6", "floor"), ("int4", "floor, full_range"),
        ("nvfp4", "floor, ceil, nvidia, mse, four_over_six, four_over_six_mae"), ("uint4", "floor"),
    ],
)  # fmt: skip
def test_an_unknown_scale_rule_is_told_those_of_the_format(name, rules):
    """All rules of all formats were offered, of which this one refuses most."""
    calls = [
        lambda: nx.quantize(np.ones(64), name, scale_rule="best"),
        lambda: nx.QuantSpec(name, scale_rule="best"),
    ]
    if name[0] in "mn":
        calls += [
            lambda: nx.conform.check(len, name, scale_rule="best"),
            lambda: getattr(nx, name).encode(np.ones(64), scale_rule="best"),
        ]
    for call in calls:
        with pytest.raises(nx.NumericsError) as refused:
            call()
        assert str(refused.value) == f"unknown scale rule 'best'; allowed: {rules}"
        for rule in rules.split(", "):
            nx.QuantSpec(name, scale_rule=rule)


@pytest.mark.parametrize(("name", "meant"), [
    ("i4", "int4"), ("i2", "int2"), ("ui4", "uint4"), ("E4M3FN", "fp8_e4m3"), ("f8e4m3fn", "fp8_e4m3"),
    ("fp4_e2m1fn", "fp4"), ("float4_e2m1fn_x2", "fp4"), ("E5M2FNUZ", "fp8_e5m2fnuz"), ("bnb_nf4", "nf4"),
    ("qint8", "int8"), ("bfloat", "bfloat16"), ("posit", "posit8"), ("int8_sym", "int8"),
    ("fp8_e4m4", "fp8_e4m3"), ("hfloat8", "hifloat8"), ("MXFP4_e3m0", "mxfp4"), ("nvfp4_e2m1", "nvfp4"),
    ("hifp8", "hifloat8"), ("bfloat4", "fp4"),
])  # fmt: skip
def test_a_name_that_is_no_formats_is_refused_with_our_name_of_the_one_that_is_meant(name, meant):
    with pytest.raises(nx.NumericsError, match=f"did you mean '{meant}'\\?"):
        nx.dtype(name)


@pytest.mark.parametrize(("name", "first", "second"), [
    ("HFP8", "fp8_e4m3", "fp8_e5m2"), ("hybrid fp8", "fp8_e4m3", "fp8_e5m2"),
    ("hybrid", "fp8_e4m3", "fp8_e5m2"), ("bfloat8", "fp8_e4m3", "fp8_e5m2"),
    ("fp8_dynamic", "fp8_e4m3", "fp8_e5m2"), ("hfp6", "fp6_e3m2", "fp6_e2m3"),
    ("mxfp8x", "mxfp8_e4m3", "mxfp8_e5m2"),
])  # fmt: skip
def test_a_name_of_a_family_is_refused_with_both_that_are_meant(name, first, second):
    """HFP8 and bfloat8 were taken for hifloat8, which is spelled alike."""
    with pytest.raises(nx.NumericsError, match=f"'{first}'.*'{second}'"):
        nx.dtype(name)


@pytest.mark.parametrize(("name", "said"), [
    ("fp8_e4m3b11fnuz", "bias=11"), ("float8_e4m3b11fnuz", "bias=11"),
    ("ternary", r"codebook_format\(\[-1, 0, 1\]\)"),
    ("w4a16", "'int4' with activations left as they are"), ("W8A8", "'int8' with activations='int8'"),
    ("msfp12", None), ("np", None), ("w", None), ("fp128", "16 bits at most"), ("posit32", "16 bits at most"),
])  # fmt: skip
def test_a_name_of_other_bits_is_not_taken_for_a_format_that_is_spelled_alike(name, said):
    """msfp12 was mxfp4, bnb_nf4 was bnb_fp4, w4a16 was S16."""
    with pytest.raises(nx.NumericsError, match=said or "unknown format") as refused:
        nx.dtype(name)
    assert "did you mean" not in str(refused.value)


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
@pytest.mark.parametrize(("name", "bits", "meant"), [
    ("fp9", 9, "'fp8_e4m3' or 'fp8_e5m2'"), ("float9", 9, "'fp8_e4m3' or 'fp8_e5m2'"),
    ("mxfp5", 5, "'mxfp4', 'mxfp6_e3m2' or 'mxfp6_e2m3'"), ("nvfp5", 5, "'nvfp4'"), ("nf5", 5, "'nf4'"),
    ("fp12", 12, "'fp8_e4m3', 'fp8_e5m2' or 'float16'"), ("mx7", 7, "'mx6'"), ("mxint9", 9, "'mxint8'"),
    ("posit16", 16, "'posit8'"), ("ocp_fp9", 9, "'fp8_e4m3' or 'fp8_e5m2'"),
])  # fmt: skip
def test_a_family_that_has_no_format_of_so_many_bits_is_told_those_nearest(name, bits, meant, spelling):
    """fp9 and mxfp5 were answered with nothing, mxint9 with mx9, posit16 with int16."""
    with pytest.raises(nx.NumericsError, match=f"; there is none of {bits} bits: did you mean {meant}\\?"):
        nx.dtype(spelling(name))


@pytest.mark.parametrize("d", nx.dtypes(), ids=str)
def test_a_name_with_one_letter_too_many_is_answered_with_a_name(d):
    """What stands before a number could have digits in it, in7t4, and then no name was said."""
    for place in range(1, len(d.name)):
        spelled = f"{d.name[:place]}x{d.name[place:]}"
        with pytest.raises(nx.NumericsError, match=r"did you mean|makes it|take"):
            nx.dtype(spelled)


@pytest.mark.parametrize(
    "text", ["int4 per_group(32)", "MXFP4 axis=0", "nf4:per_token", "fp8 e4m3 per_tensor"]
)
def test_what_stands_behind_a_format_is_told_apart_from_its_name(text):
    with pytest.raises(
        nx.NumericsError, match=r"its format is '(int4|mxfp4|nf4|fp8_e4m3)'; what stands behind"
    ):
        nx.dtype(text)


@pytest.mark.parametrize("scale", ["pof2", "power_of_two", "PO2"])
def test_a_scale_that_is_a_power_of_two_is_told_its_name(scale):
    """block_format(scale="pof2") was answered with nothing."""
    with pytest.raises(nx.NumericsError, match="powers of two alone are 'e8m0', the scale of MX blocks"):
        nx.block_format(element="fp4", block=32, scale=scale)


@pytest.mark.parametrize("name", ["takum8", "takum16", "takum", "linear_takum16"])
def test_takums_are_told_why_they_are_none(name):
    """posit16 had a reason, they had none."""
    with pytest.raises(nx.NumericsError, match=r"takums reach 2\*\*239, which float32 cannot hold"):
        nx.dtype(name)


@pytest.mark.parametrize("name", ["float8_e5m3", "fp8_e5m3", "e5m3", "f8E5M3", "ue5m3", "float8_ue5m3"])
def test_e5m3_in_8_bits_has_no_sign(name):
    """Quark calls ue5m3fn float8_e5m3; it was answered with fp8_e5m2, or with a float of 9 bits."""
    with pytest.raises(nx.NumericsError, match=r"'ue5m3fn' .* or 'ue5m3ieee'"):
        nx.dtype(name)


@pytest.mark.parametrize("name", ["ue4m3", "UE4M3", "float8_ue4m3", "fp8_ue4m3"])
def test_ue4m3_is_the_scale_of_nvfp4(name):
    """It was answered with IEEE's specials, which end at 240, where NVFP4's scale reaches 448."""
    with pytest.raises(nx.NumericsError, match=r"'fp8_e4m3'.* 448, nx\.float_format") as refused:
        nx.dtype(name)
    made = re.search(r"nx\.float_format\(.*?\)", str(refused.value))[0]
    own, known = eval(made, {"nx": nx}), nx.fp8_e4m3
    assert own.values()[:127] == known.values()[:127]
    text = re.search(r"'(\{.*\})'", str(refused.value))[1]
    assert nx.float_format(**json.loads(text)) is own


@pytest.mark.parametrize("call", [
    lambda x: nx.quantize(x, "int8", rounding="stochastic", seed=1, bits=8),
    lambda x: nx.int8.encode(x, rounding="stochastic", seed=1, bits=8),
])  # fmt: skip
def test_bits_of_a_draw_are_told_where_they_are_said(call):
    with pytest.raises(nx.NumericsError, match=r"takes no bits=;.*nx.random_bits\(shape, seed, bits=8\)"):
        call(np.ones(3, np.float32))


def test_bytes_are_no_random_bits_and_are_told_how_they_become_some():
    """8 random bits as integers below 256 are the lowest of 30, with which nothing goes up."""
    own, x = np.arange(256, dtype=np.uint8), np.full(256, 0.25, np.float32)
    with pytest.raises(nx.NumericsError, match=r"not uint8 \(256,\); .* integers << \(30 - N\)"):
        nx.int8.encode(x, rounding="stochastic", random_bits=own)
    assert nx.int8.encode(x, rounding="stochastic", random_bits=own.astype(np.uint32)).sum() == 0
    assert nx.int8.encode(x, rounding="stochastic", random_bits=own.astype(np.uint32) << 22).sum() == 64


@pytest.mark.parametrize("spelled", ["StochasticB", "stochastic_b"])
def test_p3109_s_stochastic_rules_are_told_apart(spelled):
    """All three were answered with 'stochastic', which is A; B is A with a bit below the bits."""
    with pytest.raises(nx.NumericsError, match=r"half a unit below the bits: .* \| 1 << \(29 - N\)"):
        nx.fp4.encode(1.0, rounding=spelled)
    with pytest.raises(nx.NumericsError, match="nothing here does: 'stochastic' is StochasticA"):
        nx.fp4.encode(1.0, rounding=spelled.replace("B", "C").replace("_b", "_c"))
    steps = np.arange(1024, dtype=np.float64) / 1024  # f, against r of 3 bits
    for r in range(8):
        bits = np.full(1024, r << 27 | 1 << 26, np.uint32)
        came = nx.int8.encode(steps, rounding="stochastic", random_bits=bits)
        assert np.array_equal(came, (steps * 8 + r + 0.5 >= 8).astype(np.uint8))
