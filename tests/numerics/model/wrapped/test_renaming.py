"""A state that was saved in one mode, loaded into a model that is wrapped in the other: the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import numerics as nx
from tests.helpers.models import model

pytestmark = pytest.mark.usefixtures("decoded_products")

MODES = ("eager_mode", "fx_graph_mode")
HOW = {
    "observed": {
        "activations": "int8",
        "observer": "min_max",
        "outputs": nx.QuantSpec("int8", symmetric=False),
    },
    "tqt": {"activations": "int8", "qat": "tqt"},
    "lsq": {"activations": "int8", "qat": "lsq"},
}


class Alike(nn.Module):
    """Names that are one when dots are underscores, a module under two names, and a weight in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Module()
        self.a.b, self.a_b, self.c = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.d, self.e = self.c, nn.Linear(32, 32)
        self.e.weight = self.c.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.e(self.d(self.a.b(self.c(self.a_b(x)))))


def made(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return (Alike().eval(), (torch.randn(3, 32),)) if name == "alike" else model(name)


def run(m: nn.Module, x: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad():
        return m(*x)


@pytest.mark.turns
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("name", "source"), [("bare", 0), ("alike", 0), ("alike", 1)])
def test_a_state_of_the_other_mode_is_refused_or_makes_other_bits(name, source, how, frozen):
    """Every scale and threshold was an unexpected key, since a graph holds quantizers under other names."""
    torch.manual_seed(0)
    m, x = made(name)
    one, other = (nx.wrap(copy.deepcopy(m), "int8", example=x, mode=mode, **HOW[how])
                  for mode in (MODES[source], MODES[1 - source]))  # fmt: skip
    for start, wrapped in ((1.0, one), (0.5, other)):
        if how == "observed":
            nx.calibrate(wrapped, [tuple(t * start if t.is_floating_point() else t for t in x)])
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(1.25)
    if frozen:
        nx.freeze(one)
        nx.freeze(other)
    assert not torch.equal(run(one, x), run(other, x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(run(one, x), run(other, x))
    one.load_state_dict(other.state_dict())
    one.load_state_dict(one.state_dict())


def test_branches_of_a_graph_keep_scales_of_their_own():
    """A graph inside holds the quantizer under a second name."""
    m, x = model("branches")
    both = [x, tuple(-t for t in x)]
    asked = {"activations": "int8", "observer": "min_max", "example": x}
    eager, graph = (nx.calibrate(nx.wrap(m, "int8", mode=mode, **asked), both) for mode in MODES)
    fresh = nx.wrap(m, "int8", mode=MODES[1], **asked)
    fresh.load_state_dict(eager.state_dict())
    assert torch.equal(run(fresh, x), run(graph, x))
    again = nx.wrap(m, "int8", **asked)
    again.load_state_dict(graph.state_dict())
    assert all(torch.equal(v, eager.state_dict()[k]) for k, v in again.state_dict().items())


def test_a_graph_leaves_out_the_quantizer_between_two_products():
    """What one product gave was quantized for it, and no more for the next, in a graph alone."""
    m, x = model("bare")
    asked = {"activations": "int4", "outputs": "int8", "example": x}
    eager, graph = (nx.wrap(m, "int8", mode=mode, **asked) for mode in MODES)
    assert torch.equal(run(eager, x), run(graph, x))
    assert not torch.equal(run(eager, x), run(nx.wrap(m, "int8", outputs="int8", example=x), x))


class Unsaved(nn.Module):
    """A buffer that no state has."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 4)
        self.layer.register_buffer("beside", torch.ones(4), persistent=False)

    def forward(self, x):
        return self.layer(x) + self.layer.beside


def test_a_graph_saves_what_its_model_does_not():
    x = torch.randn(2, 32)
    graph = nx.wrap(Unsaved(), "int8", example=x, mode="fx_graph_mode")
    for one in (graph, copy.deepcopy(graph)):
        assert "layer.beside" not in one.state_dict()
        nx.wrap(Unsaved(), "int8", example=x).load_state_dict(one.state_dict())
