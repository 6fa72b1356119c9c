"""Quantizers of unsigned formats say what they lose: once for each site, by its name."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import numerics as nx

X = torch.linspace(-1, 1, 8 * 64).reshape(8, 64)
INPUT = (
    "0:linear[0]: 256 of 512 values are negative and become 0: uint8 is unsigned; "
    "symmetric=False shifts its range"
)


def _floats():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))


def _said(act):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        act()
    return [str(one.message) for one in told]


def _calls(model):
    for k in range(1, 6):
        model(X - k / 8)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize(
    "options", [{}, *({"observer": one} for one in ("min_max", "percentile", "mse", "kl"))]
)
def test_each_site_says_once_what_it_loses(options, mode):
    """An observer found scales of what loses half of its values in silence; without one each batch warned."""
    model = nx.wrap(_floats(), "int8", activations="uint8", example=X, mode=mode, **options)
    told = _said(lambda: nx.calibrate(model, [X]) if options else model(X))
    assert told == [INPUT]
    assert not _said(lambda: _calls(model))
    assert not _said(
        lambda: _calls(pickle.loads(pickle.dumps(model)) if mode == "eager_mode" else copy.deepcopy(model))
    )


@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_what_is_learned_says_so_where_it_begins(qat):
    told = _said(lambda: nx.wrap(_floats(), "int8", activations="uint8", qat=qat, example=X))
    assert told == [INPUT]


def test_weights_say_so_by_name():
    model = nx.wrap(_floats(), "uint8", example=X)
    told = _said(lambda: _calls(model))
    assert [one.partition(" of ")[0].split(":")[0] for one in told] == ["0.weight", "2.weight"]
    assert not _said(lambda: nx.freeze(model))
    told = _said(lambda: nx.freeze(nx.wrap(_floats(), "uint8", example=X)))
    assert [one.split(":")[0] for one in told] == ["0.weight", "2.weight"]


def test_what_is_shifted_or_signed_says_nothing():
    spec = nx.QuantSpec("uint8", symmetric=False)
    assert not _said(lambda: _calls(nx.wrap(_floats(), "int8", activations=spec, example=X)))
    positive = nx.wrap(_floats(), "int8", activations="uint8", observer="min_max", example=X.abs())
    assert not _said(lambda: nx.calibrate(positive, [X.abs()])(X.abs()))


def test_a_report_says_the_larger_share_of_weights_and_inputs():
    """Half of the inputs became 0, and 5 % were said to be clipped, as the weights are many more."""
    model = nx.wrap(_floats(), "int8", activations="uint8", observer="min_max", example=X)
    _said(lambda: nx.calibrate(model, [X]))
    found = {one.name: one.clipped for one in nx.report(model, None, [X]).layers}
    assert found["0"] == pytest.approx(0.5, abs=0.01)


def test_a_quantizer_says_whether_it_has_a_scale():
    model = nx.wrap(_floats(), "int8", activations="int8", observer="min_max", example=X)
    assert str(model[0].quantize_linear_0) == "Static(int8, waits for nx.calibrate (min_max))"
    nx.calibrate(model, [X])
    assert str(model[0].quantize_linear_0) == "Static(int8, scale=0.007874 by min_max)"
    learned = nx.freeze(nx.wrap(_floats(), "int8", activations="int8", qat="tqt", example=X))
    assert str(learned[0].quantize_linear_0).startswith("Static(int8, ")
    assert "waits" not in str(learned)
    per_channel = nx.QuantSpec("int8", scheme=nx.per_channel(-1))
    model = nx.wrap(_floats(), "int8", activations=per_channel, observer="min_max", example=X)
    assert "scale=known by min_max" in str(nx.calibrate(model, [X])[0].quantize_linear_0)
