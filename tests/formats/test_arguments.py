"""Keywords that a function does not take: others' words for an option are answered with ours."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.formats.arguments import MEANT, MissingArgument, UnknownArgument, keywords
from numerics.formats.errors import nearest

X = np.ones((2, 64), np.float32)


@pytest.mark.parametrize(
    ("given", "due"),
    [
        ({"bits": 4}, "dtype="),
        ({"qtype": "nf4"}, "dtype="),
        ({"format": "e4m3"}, "dtype="),
        ({"group_size": 32}, r"scheme=nx\.per_group\(32\)"),
        ({"block_size": 32}, r"scheme=nx\.per_group\(32\)"),
        ({"granularity": "per_row"}, "scheme="),
        ({"qscheme": "per_tensor"}, "scheme="),
        ({"ch_axis": 0}, "per_channel"),
        ({"asymmetric": True}, "symmetric=False"),
        ({"mapping_type": "ASYMMETRIC"}, "symmetric=False"),
        ({"round_method": "half_even"}, "rounding="),
        ({"generator": None}, "seed="),
        ({"scale_dtype": None}, "scale_type="),
        ({"scale_calculation_mode": "even"}, "scale_rule="),
        ({"rouding": "floor"}, "did you mean 'rounding'"),
        ({"global_scale": 1.0}, "tensor_scale="),
        ({"zero_points": 1}, "zero_point="),
    ],
)
@pytest.mark.parametrize("verb", [nx.quantize, nx.fake_quantize])
def test_a_word_of_others_is_answered_with_ours_and_with_all_that_is_allowed(verb, given, due):
    with pytest.raises(nx.NumericsError, match=due) as refused:
        verb(X, "int4", **given)
    assert isinstance(refused.value, TypeError)
    assert f"takes no {next(iter(given))}=" in str(refused.value)
    for parameter in inspect.signature(verb).parameters.values():
        assert (parameter.name in str(refused.value)) is (parameter.kind is not parameter.VAR_KEYWORD)


@pytest.mark.parametrize(
    ("ask", "due"),
    [
        (lambda: nx.fp4.encode(X, round_mode="floor"), "rounding="),
        (lambda: nx.mxfp4.round(X, rmode="floor"), "rounding="),
        (lambda: nx.QuantSpec("int4", group_size=32), "per_group"),
        (lambda: nx.QuantSpec("int4").replace(group_size=32), "per_group"),
        (lambda: nx.per_group(group_size=32), "did you mean 'size'"),
        (lambda: nx.integer_format(num_bits=4), "'bits'"),
        (lambda: nx.float_format(ebits=4, mbits=3), "exponent="),
        (lambda: nx.Float(exponent_bits=4), "exponent="),
        (lambda: nx.Block(blocksize=4), "'block'"),
        (lambda: nx.observe.Percentile("int4", group_size=32), "dtype, percentile, bins, scheme"),
        (lambda: nx.observe.observer("mse", "int4", granularity="per_row"), "scheme="),
        (
            lambda: nx.wrap(torch.nn.Linear(4, 4), "int4", group_size=32),
            r"weights=nx\.QuantSpec\(\.\.\.\) says it",
        ),
        (lambda: nx.plan(torch.nn.Linear(4, 4), "int4", bits=32), r"weights=nx\.QuantSpec\(\.\.\.\) says it"),
        (lambda: nx.plan(torch.nn.Linear(4, 4), "int4", modules_to_not_convert=[]), "rules="),
        (lambda: nx.quantize_(torch.nn.Linear(4, 4), "int4", group_size=32), "per_group"),
        (lambda: nx.train.TQT("int4", bits=4), "allowed: dtype, init, scheme$"),
        (lambda: nx.draw.formats(X, ["int4"], group_size=4), "per_group"),
        (
            lambda: nx.draw.formats(X, ["int4"], bins=4),
            "^formats takes no bins=; allowed: x, formats, scheme,",
        ),
        (lambda: nx.draw.tensor(X, "int4", bins=4), "^tensor takes no bins=; allowed: x, dtype, scheme,"),
        (lambda: nx.draw.tensor(X, "int4", d="int8"), "^tensor takes no d="),
        (
            lambda: nx.draw.image(X, "int4", bins=4),
            "^image takes no bins=; allowed: x, dtype, original, scheme,",
        ),
        (
            lambda: nx.plan(torch.nn.Linear(4, 4), "int4", bins=4),
            r"takes no bins=; observer='mse\(bins=512\)'",
        ),
        (lambda: nx.wrap(torch.nn.Linear(4, 4), "int4", percentile=99), r"percentile\(99\.9\)' say it"),
        (lambda: nx.quantize_(torch.nn.Linear(4, 4), "int4", bins=4), "takes no bins=; allowed: model"),
    ],
)
def test_it_is_so_for_every_way_in(ask, due):
    with pytest.raises(UnknownArgument, match=due):
        ask()


@pytest.mark.parametrize(
    ("ask", "due"),
    [
        (lambda: nx.quantize(X), r"quantize needs dtype, as in nx\.quantize\("),
        (lambda: nx.quantize(), "needs x and dtype"),
        (lambda: nx.quantize(dtype="int4"), "needs x, as in"),
        (lambda: nx.fake_quantize(X), "fake_quantize needs dtype"),
        (lambda: nx.fp4.encode(), r"needs x, as in .*\.encode\("),
        (lambda: nx.mxfp4.unpack(X), "needs shape"),
        (lambda: nx.linear(X), "linear needs q"),
        (lambda: nx.QuantSpec(), r"QuantSpec needs dtype, as in .*QuantSpec\("),
        (lambda: nx.per_group(), r"per_group needs size, as in .*per_group\(128\)"),
        (lambda: nx.float_format(4), "needs mantissa"),
        (lambda: nx.Float(exponent=4), "needs name, mantissa, bias and specials"),
        (lambda: nx.observe.Percentile(), r"Percentile needs dtype, as in Percentile\("),
        (lambda: nx.observe.MinMax(), "needs dtype"),
        (lambda: nx.observe.observer("mse"), "needs dtype"),
        (lambda: nx.observe.MinMax("int4").observe(), "needs x"),
        (lambda: nx.train.TQT(), "needs dtype"),
        (lambda: nx.train.thresholds(), "needs model"),
        (lambda: nx.draw.formats(), "needs x"),
        (lambda: nx.scales(X), "needs dtype"),
        (lambda: nx.wrap(), "needs model"),
        (lambda: nx.quantize_(), "needs model and dtype"),
        (lambda: nx.use(), "needs name"),
        (lambda: nx.dtype(), "needs name"),
    ],
)
def test_what_is_missing_is_named_with_a_call_that_gives_it(ask, due):
    with pytest.raises(MissingArgument, match=due) as refused:
        ask()
    assert isinstance(refused.value, nx.NumericsError)
    assert isinstance(refused.value, TypeError)


def test_what_is_missing_is_named_beside_a_word_of_others():
    with pytest.raises(
        UnknownArgument, match=r"takes no bits=; dtype= .* it needs dtype, as in nx\.quantize\("
    ):
        nx.quantize(X, bits=4)


def test_a_signature_says_what_is_needed_though_it_can_be_left_out():
    for function in (nx.quantize, nx.fake_quantize, nx.fp4.encode, nx.mxfp4.round, nx.linear, nx.dtype):
        first = next(iter(inspect.signature(function).parameters.values()))
        assert first.default is first.empty


@pytest.mark.parametrize(
    ("d", "size", "due"),
    [
        ("mxfp4", 16, r"dtype=nx\.mx\('fp4', 16\) or 'nvfp4';"),
        ("nvfp4", 32, "have 16 elements, and a format says its size: dtype='mxfp4';"),
        (nx.mxfp8_e4m3, 64, r"dtype=nx\.mx\('fp8_e4m3', 64\);"),
        ("mx6", 8, r"as nx\.block_format declares one;"),
    ],
)
@pytest.mark.parametrize("word", ["block_size", "group_size"])
def test_a_size_of_blocks_is_answered_with_the_format_that_has_it(d, size, due, word):
    for verb in (lambda **given: nx.quantize(X, d, **given), lambda **given: nx.QuantSpec(d, **given)):
        with pytest.raises(UnknownArgument, match=due):
            verb(**{word: size})


def test_no_name_is_meant_that_has_next_to_nothing_in_common():
    assert nearest("fc1", ["1", "conv"]) is None
    assert nearest("bins", ["axis", "rounding"]) is None


def test_a_type_error_within_a_function_stays_what_it_is():
    @keywords
    def wrong(x, *, given=1):
        return x + None

    for options in ({}, {"given": 2}):
        with pytest.raises(TypeError, match="unsupported operand") as raised:
            wrong(1, **options)
        assert not isinstance(raised.value, nx.NumericsError)
    with pytest.raises(MissingArgument, match=r"wrong needs x, as in wrong\(x\); allowed: x, given"):
        wrong()


def test_what_others_say_is_no_word_of_ours():
    """A word that names an option here would be answered with another."""
    ours = {*inspect.signature(nx.quantize).parameters, *inspect.signature(nx.fp4.encode).parameters}
    assert not ours & set(MEANT)


def test_a_compiled_function_makes_schemes_without_a_break():
    made = torch.compile(
        lambda x: nx.fake_quantize(x, "int4", scheme=nx.per_group(32)), fullgraph=True, backend="eager"
    )
    x = torch.randn(2, 64)
    assert torch.equal(made(x), nx.fake_quantize(x, "int4", scheme=nx.per_group(32)))
