"""What is offered for one format is offered for all of them: no room of the house knows a format by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import numerics as nx
from numerics import cli
from numerics.formats import text
from tests.helpers.bits import assert_same_bits

X = np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32)
DECLARED = [
    nx.codebook_format([-1.5, -0.45, 0.45, 1.5], name="four_levels"),
    nx.codebook_format([0.0, 1.0, -0.0, float("nan")], beyond=2.0),
    nx.block_format(element="nf4", block=32),
    nx.block_format(element="nf4", scale="fp8_e4m3", block=16),
    nx.p3109(12, 5),
    nx.p3109(13, 8, signed=False),
]
EVERY = pytest.mark.parametrize("d", [*nx.dtypes(), *DECLARED], ids=str)


def scaled(d: nx.Dtype) -> np.ndarray:
    """Numbers that the format takes without a warning."""
    return np.abs(X) if d.kind != "block" and d.min >= 0 else X


@EVERY
def test_every_format_comes_back_from_its_facts(d):
    assert text.parse(text.text_of(d)) is d
    assert nx.QuantSpec.parse(nx.QuantSpec(d).text).dtype is d


@EVERY
def test_the_command_line_shows_every_format(d):
    name = d.name if d in nx.dtypes() else json.dumps(text.facts_of(d))
    shown = CliRunner().invoke(cli.commands, ["show", name, "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["name"] == d.name


@pytest.mark.turns(18)
@EVERY
def test_every_format_is_a_tensor_a_file_and_a_product(d, tmp_path):
    q = nx.quantize(scaled(d), d)
    assert_same_bits(nx.fake_quantize(scaled(d), d), q.dequantize())
    nx.save({"w": q}, tmp_path / "all.safetensors")
    back = nx.load(tmp_path / "all.safetensors")["w"]
    assert back.format is d
    assert_same_bits(back.dequantize(), q.dequantize())
    products = [nx.linear(X, q)]
    for name in ("reference", "array"):
        with nx.use(name):
            products.append(nx.linear(X, q))
    assert_same_bits(products[0], products[1])
    assert_same_bits(products[0], products[2])


@pytest.mark.turns(18)
@EVERY
def test_every_format_becomes_another_and_is_judged(d):
    q = nx.quantize(scaled(d), d)
    assert_same_bits(nx.transcode(q, d).dequantize(), q.dequantize())
    kernel = d.round if d.kind != "block" else lambda x: d.round(x, axis=-1, **_whole(d))
    assert nx.conform.check(kernel, d, kind="round")


@pytest.mark.turns(18)
@EVERY
def test_every_format_is_drawn_explored_and_wrapped(d):
    assert nx.draw.format(d)._repr_png_()
    assert nx.explore({"w": scaled(d)}, [d])
    model, values = torch.nn.Linear(64, 4), torch.nn.Linear(64, 4)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(scaled(d)))
        values.weight.copy_(torch.from_numpy(nx.fake_quantize(scaled(d), d)))
        values.bias.copy_(model.bias)
    wrapped, x = nx.wrap(model, nx.plan(model, d)), torch.from_numpy(X)
    assert_same_bits(wrapped(x).detach(), values(x).detach())


def _whole(d: nx.Block) -> dict[str, float]:
    return {"tensor_scale": 1.0} if d.has_tensor_scale else {}
