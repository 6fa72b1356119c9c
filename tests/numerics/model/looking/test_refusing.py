"""A model that is no graph: one sentence says where, and torch prints nothing beside it."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import numerics as nx

X = torch.linspace(-1, 1, 16).reshape(2, 8)


class Part(nn.Module):
    """A layer, and what no graph has."""

    def __init__(self, what):
        super().__init__()
        self.what, self.layer = what, nn.Linear(8, 8)

    def forward(self, x):
        return self.what(self.layer(x))


def branches(x):
    if x.sum() > 0:
        return x
    return -x


def items(x):
    return x[:, : int(x.abs().sum().item()) % 8]


def loops(x):
    while x.abs().max() > 1:
        x = x / 2
    return x


def fails(x):
    if torch.compiler.is_exporting():
        raise ValueError("not this way\nand more")
    return x


NEEDS = "needs the values of a tensor to go on"
SAID = {
    branches: ("if x.sum() > 0:", NEEDS),
    items: ("% 8]", NEEDS),
    loops: ("while x.abs", NEEDS),
    fails: ("raise ValueError", "raises ValueError: not this way; mode="),
}


@pytest.mark.parametrize("what", SAID, ids=lambda one: one.__name__)
def test_torch_printed_its_graph_and_hints_beside_the_refusal(what, capfd):
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(Part(what)))
    with pytest.raises(nx.NumericsError) as caught:
        nx.wrap(model, "int8", mode="fx_graph_mode", example=X)
    said = str(caught.value)
    line, why = SAID[what]
    assert all(part in said for part in ("1.0, a Part (test_refusing.py:", line, why))
    assert len(said) < 300
    assert "TORCH" not in said
    assert "\n" not in said
    assert caught.value.__suppress_context__  # nor is torch's own shown above it
    assert capfd.readouterr() == ("", "")
    assert nx.wrap(model, "int8", example=X)(X).shape[0] == 2


def test_what_the_model_prints_itself_is_left(capfd):
    def prints(x):
        print("here")
        return branches(x)

    with pytest.raises(nx.NumericsError, match="the Part itself"):
        nx.wrap(Part(prints), "int8", mode="fx_graph_mode", example=X)
    out, err = capfd.readouterr()
    assert (set(out.split()), err) == ({"here"}, "")


def test_loggers_and_printing_are_what_they_were():
    names = "torch.export._trace", "torch.fx.experimental.symbolic_shapes"
    levels = [logging.getLogger(name).level for name in names]
    with pytest.raises(nx.NumericsError):
        nx.wrap(Part(branches), "int8", mode="fx_graph_mode", example=X)
    assert [logging.getLogger(name).level for name in names] == levels
    assert "print" not in vars(torch.export._trace)
