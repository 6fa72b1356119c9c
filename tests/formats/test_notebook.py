"""What notebooks show of everything that people look at: whole facts, foreign text made harmless."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.formats.notebook import facts_table, rows_table

X = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)


def model():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    return net, nx.wrap(net, "mxfp4", example=torch.from_numpy(X))


def observer():
    found = nx.observe.MinMax("int8")
    found.observe(X)
    return found


THINGS = {
    "format": lambda: nx.fp8_e4m3, "block format": lambda: nx.mx6, "blocks": lambda: nx.nvfp4.encode(X),
    "blocks of lists": lambda: nx.mxfp4.encode([1.0, 2.0]), "quantized": lambda: nx.quantize(X, "mxfp4"),
    "quantized by torch": lambda: nx.quantize(torch.from_numpy(X), "int4"),
    "plan": lambda: nx.plan(model()[0], "int8"),
    "report": lambda: nx.report(model()[1]), "observer": observer,
    "fresh observer": lambda: nx.observe.MSE("int4"),
}  # fmt: skip


@pytest.mark.parametrize("name", THINGS)
def test_a_notebook_shows_a_table_that_is_well_formed(name):
    found = THINGS[name]()._repr_html_()
    parsed = ElementTree.fromstring(f"<div>{found}</div>")
    assert parsed.findall(".//td")


@pytest.mark.parametrize("d", [d for d in nx.dtypes() if d.kind != "block"], ids=str)
def test_a_number_line_holds_a_line_for_every_value_that_can_be_told_apart(d):
    svg = ElementTree.fromstring(d._repr_svg_())
    path = svg.find("{*}path").get("d")
    finite = {v for v in d.values() if np.isfinite(v)}
    assert path.count("M") == len(finite) if len(finite) <= 16 else 8 < path.count("M") <= len(finite)
    assert f"{len(finite)} finite values" in svg.find("{*}title").text


def test_the_facts_of_a_format_are_whole():
    said = nx.fp8_e4m3._repr_html_()
    for fact in ("<td>448</td>", "<td>0.001953125</td>", "OCP OFP8 1.0"):
        assert fact in said


def test_foreign_text_is_shown_and_not_obeyed():
    hostile = "<script>alert(1)</script>"
    for made in (facts_table([(hostile, hostile)]), rows_table([hostile], [[hostile]], hostile)):
        assert "<script" not in made
        assert "&lt;script&gt;" in made
    assert "<script" not in nx.float_format(3, 2, name=hostile)._repr_html_()
