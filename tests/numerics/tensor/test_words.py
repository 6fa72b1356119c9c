"""Formats in words: what tables print is taken wherever a format is, with the same result."""

import itertools

import numpy as np
import pytest

import numerics as nx
from numerics.checkpoints.deciding import rules_of_texts
from numerics.formats.registry import dtypes
from numerics.model.deciding.rows import described
from numerics.tensor.words import words_in

SPECS = [
    nx.QuantSpec(dtype, **options)
    for dtype, options in [
        ("int4", {"scheme": nx.per_group(32)}), ("int4", {"scheme": nx.per_group(32), "symmetric": False}),
        ("uint8", {"scheme": nx.per_token(), "symmetric": False, "zero_point_type": "float32"}),
        ("fp8_e4m3", {"scheme": nx.per_block((16, 16))}), ("int8", {"scheme": nx.per_channel(-2)}),
        ("int8", {"scale_type": "pof2"}), ("int8", {"rounding": "half_away", "scale_rule": "full_range"}),
        ("mxfp4", {"scale_rule": "even"}), ("nvfp4", {"axis": 0}),
        ("nvfp4", {"scheme": "per_block((16, 16))"}),
        ("bfloat16", {"scheme": "per_tensor"}), ("nf4", {"scheme": "per_group(64)"}),
        ("mxfp4", {}), ("int4", {}),
    ]
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=described)
def test_what_is_printed_of_a_spec_makes_it(spec):
    text = described(spec)
    assert nx.QuantSpec(text) == spec
    assert rules_of_texts([f"*={text}"])[1] == [("*", spec)]
    assert rules_of_texts([text]) == (text, [])
    x = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert np.array_equal(nx.quantize(x, text).dequantize(), nx.quantize(x, spec).dequantize())


@pytest.mark.parametrize(
    "text", ["int4:per_group(32)", "int4 : per_group(32)", " INT4  per_group(32, axis=-1) "]
)
def test_a_colon_and_blanks_are_taken(text):
    assert nx.QuantSpec(text) == nx.QuantSpec("int4", scheme=nx.per_group(32))


def test_a_tile_is_a_scheme():
    assert nx.QuantSpec("int4 128x64") == nx.QuantSpec("int4", scheme=nx.per_block((128, 64)))


def test_asymmetric_is_a_word():
    assert nx.QuantSpec("int4 asymmetric") == nx.QuantSpec("int4", symmetric=False)


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("int4 per_group(32)", {"scheme": "per_tensor"}, "scheme='per_tensor' beside 'int4 per_group"),
        ("int4 asymmetric symmetric=False", {}, "says symmetric twice"),
        ("int5x per_group(32)", {}, "unknown format 'int5x'"),
        ("int4 per_gruop(32)", {}, "did you mean 'per_group'"),
        ("int4 per_group(32) foo=3", {}, "unknown format 'int4 per_group"),
        ("int4 symmetric=maybe", {}, "symmetric"),
        ("mxfp4 symmetric=False", {}, "symmetric"),
        ("int4 per_group(32" + "(" * 90, {}, "unknown format"),
        ("int4 per_group(" + "1" * 10**6, {}, "unknown format"),
    ],
)
def test_other_words_are_refused(text, options, told):
    with pytest.raises(nx.NumericsError, match=told.replace("(", r"\(")):
        nx.QuantSpec(text, **options)


def test_no_name_of_a_format_and_no_rule_is_words():
    names = [alias for d in dtypes() for alias in itertools.chain([d.name], d.aliases)]
    assert not [name for name in names if words_in(name)]
    assert not any(
        map(words_in, ("re:.*experts.*=mxfp4", "re:experts=mxfp4", "*.a=int8:per_channel(0)", "", 3, None))
    )
