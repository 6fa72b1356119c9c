"""Wide floats are a cast unless a scale is asked for: `quantize(x, "bfloat16")` is `x.astype(bfloat16)`."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import numerics as nx
from numerics.cli import commands
from numerics.files import checkpoint
from numerics.files.header import KEY
from numerics.tensor.spec import QuantSpec
from tests.helpers.bits import assert_same_bits

X = np.array([[np.inf, 1.0, -0.0, 3.39e38], [1e-40, -np.inf, 0.1, 65520.0]], np.float32)
WIDE = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
E6M9 = nx.float_format(6, 9, name="e6m9")


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("backend", ["array", "cpu", "reference", "interpreter"])
def test_an_infinity_and_a_one_stay_what_they_are(name, kind, backend):
    """[inf, 1.0] became [0.99999994] * 2 in bfloat16: the scale was amax / 3.39e38."""
    with np.errstate(over="ignore"):
        x = X.astype(kind)
        due = x.astype(WIDE[name])
        values = due.astype(kind)
    with nx.use(backend):
        q = nx.quantize(x, name)
        assert_same_bits(q.codes, due.view(np.uint16), x)
        assert float(q.scale) == 1
        assert_same_bits(q.dequantize(), values, x)
        assert_same_bits(nx.fake_quantize(x, name), values, x)


def test_tensors_are_cast_too():
    x = torch.from_numpy(X).requires_grad_()
    due = x.detach().to(torch.bfloat16).float()
    assert torch.equal(nx.quantize(x, "bfloat16").dequantize(), due)
    assert torch.equal(nx.fake_quantize(x, "bfloat16"), due)
    assert not nx.quantize(x, "bfloat16").spec.scaled
    assert nx.quantize(x, "bfloat16", scale=0.5).spec.scaled


def test_a_cast_overflows_as_encode_does():
    x = np.array([1e30, -1e30, np.inf])
    assert_same_bits(nx.quantize(x, E6M9).codes, E6M9.encode(x))
    assert nx.fake_quantize(x, "float16").tolist() == [np.inf, -np.inf, np.inf]


def test_draws_and_directed_roundings_are_those_of_encode():
    x = np.linspace(-3, 3, 101)
    for options in ({"rounding": "floor"}, {"rounding": "stochastic", "seed": 4}):
        assert_same_bits(nx.quantize(x, "bfloat16", **options).codes, nx.bfloat16.encode(x, **options))
        assert_same_bits(nx.fake_quantize(x, "bfloat16", **options), nx.bfloat16.round(x, **options))


ASKED = [{"scheme": "per_tensor"}, {"scheme": "per_channel"}, {"scale_type": "pof2"},
         {"scale_type": "float32"}, {"scale": 0.25}]  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
def test_a_scale_that_is_asked_for_is_had(asked):
    q = nx.quantize(np.array([[0.3, 7.0]], np.float32), "bfloat16", **asked)
    assert (np.asarray(q.scale) != 1).all()
    assert q.spec.scaled


def test_what_is_wide_follows_from_the_facts():
    wide = {d.name for d in nx.dtypes() if getattr(d, "wide", False)}
    assert wide == {"bfloat16", "float16"}
    assert E6M9.wide
    assert not nx.float_format(4, 11).wide
    assert not nx.float_format(5, 10, bias=25).wide


@pytest.mark.parametrize("options", [{}, {"scheme": "per_channel(0)"}, {"scale_type": "float32"}])
@pytest.mark.parametrize("dtype", ["bfloat16", E6M9])
def test_a_recipe_says_in_text_whether_it_casts(dtype, options):
    made = QuantSpec(dtype, **options)
    assert made.scaled == bool(options)
    assert QuantSpec.parse(made.text) == made


def test_a_cast_file_is_a_cast_and_a_scaled_one_of_before_still_loads(tmp_path):
    source, out, back = (tmp_path / name for name in ("in.safetensors", "q.safetensors", "back.safetensors"))
    save_file({"w": X}, source)
    done = CliRunner().invoke(commands, ["quantize", str(source), str(out), "--dtype", "bfloat16", "--quiet"])
    assert done.exit_code == 0, done.output
    assert_same_bits(load_file(out)["w"], X.astype(ml_dtypes.bfloat16).view(np.uint16))
    checkpoint.dequantize_file(out, back)
    assert_same_bits(load_file(back)["w"], X.astype(ml_dtypes.bfloat16).astype(np.float32))
    loaded = nx.load(out)["w"]
    assert not loaded.spec.scaled
    checkpoint.quantize_file(source, out, "bfloat16", scheme="per_tensor")  # as files were before
    text, tensors = _text(out), load_file(out)
    for recipe in text["recipes"]:
        del recipe["scaled"]
    save_file(tensors, out, {KEY: json.dumps(text)})
    old = nx.load(out)["w"]
    assert old.spec.scaled
    assert float(old.scale) != 1


def _text(path):
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return json.loads(header["__metadata__"][KEY])
