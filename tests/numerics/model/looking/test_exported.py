"""Loops that are operators: the same in both modes, whatever of their operands a step sees."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as mapped
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import numerics as nx

pytestmark = [
    pytest.mark.usefixtures("decoded_products"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
MODES = ("eager_mode", "fx_graph_mode")


class Loop(nn.Module):
    """A layer in a loop of that kind, and one behind it."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer, self.out = kind, nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        if self.kind == "map":
            return self.out(mapped(lambda y: self.layer(y).relu(), x))
        if self.kind == "while_loop":
            begin = torch.tensor(0), x
            found = while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, self.layer(y).tanh()), begin)
            return self.out(found[1])

        def step(h, y):
            h = torch.tanh(self.layer(h) + y)
            return h, h.clone()

        return self.out(scan(step, x.new_zeros(32), x)[1])


class Layers(nn.Module):
    """A scan over layers, whose weights are the entries of one parameter."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3, 32, 16) / 6)
        self.back = nn.Parameter(torch.randn(3, 16, 32) / 4)

    def forward(self, x):
        def step(h, w):
            h = torch.tanh(h @ w[0]) @ w[1]
            return h, h.sum()

        return scan(step, x, (self.weights, self.back))[0]


def made(kind):
    torch.manual_seed(0)
    return Layers().eval() if kind == "layers" else Loop(kind).eval()


@pytest.mark.parametrize("kind", [pytest.param("scan", marks=pytest.mark.long), "map", "while_loop"])
def test_a_loop_has_the_same_bits_in_both_modes(kind):
    m, x, outs, states = made(kind), torch.randn(5, 32), [], []
    with torch.no_grad():
        for mode in MODES:
            one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x, mode=mode)
            nx.calibrate(one, [(x,), (-x,)])
            outs.append(one(x))
            states.append(one.state_dict())
            one.load_state_dict(states[0])
            keep = "values" if kind == "while_loop" else "packed"  # torch's while_loop takes no subclasses
            assert torch.equal(nx.freeze(one, keep)(x), outs[0])
        assert not torch.equal(outs[0], m(x)), "nothing is quantized"
    assert not [name for name in states[1] if "tensor" in name], "a graph's state has numbers of the forward"
    assert torch.equal(*outs)


@pytest.mark.long
def test_a_scan_over_layers_groups_along_what_each_sums():
    x, outs = torch.randn(5, 32), []
    spec = nx.QuantSpec("int4", scheme=nx.per_group(16))
    for mode in MODES:
        m = made("layers")
        plan = nx.plan(m, spec, example=x, mode=mode)
        assert [row.spec.scheme.axis for row in plan.rows if row.kind == "parameter"] == [1, 1]
        frozen = nx.freeze(nx.wrap(m, plan))
        with torch.no_grad():
            outs.append(frozen(x))
            by_hand = made("layers")
            for name, row in plan.parameters.items():
                getattr(by_hand, name).data = nx.fake_quantize(getattr(by_hand, name), row.spec)
            assert torch.equal(by_hand(x), outs[-1])
    assert torch.equal(*outs)


def test_a_scale_in_a_region_is_not_lost_by_export():
    """Exported graphs of loops computed with other scales, of conditions raised what nobody understood."""
    m, x = made("map"), torch.randn(5, 32)
    how = {"weights": "int8", "activations": "int8", "observer": "min_max", "example": x}
    one, graph = (nx.calibrate(nx.wrap(m, mode=mode, **how), [(x,), (-x,)]) for mode in MODES)
    with torch.no_grad():
        assert torch.equal(torch.export.export(one, (x,), strict=False).module()(x), one(x))
        with pytest.raises(nx.NumericsError, match=r"layer:linear\[0\].*torch.export would lose"):
            torch.export.export(graph, (x,), strict=False)
        free = nx.wrap(m, "mxfp4", activations="mxfp8_e4m3", example=x, mode="fx_graph_mode")
        assert torch.equal(torch.export.export(free, (x,), strict=False).module()(x), free(x))


class Compiled(nn.Module):
    """A model with a method that torch compiles."""

    def __init__(self):
        super().__init__()
        self.inside, self.out = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.out(self.body(x))

    @torch.compile(backend="eager")
    def body(self, x):
        return self.inside(x).relu()


def test_a_compiled_method_is_looked_into():
    """Its products were the model's own in eager mode, which no batch reached and no graph had."""
    m, x, outs = Compiled().eval(), torch.randn(5, 32), []
    how = {"weights": "int8", "activations": "int8", "observer": "min_max", "example": x}
    for mode in MODES:
        one = nx.calibrate(nx.wrap(m, mode=mode, **how), [(x,), (-x,)])
        assert {layer.name for layer in nx.report(one, m, [x]).layers} == {"inside", "out"}
        with torch.no_grad():
            outs.append(one(x))
            exported = torch.export.export(nx.freeze(one), (x,), strict=False)
            assert torch.equal(exported.module()(x), outs[-1])
    assert torch.equal(*outs)


@pytest.mark.long
def test_a_report_takes_a_loop_apart():
    m, x = made("while_loop"), torch.randn(5, 32)
    for mode in MODES:
        one = nx.freeze(nx.wrap(m, "int8", example=x, mode=mode))
        assert {layer.name for layer in nx.report(one, m, [x]).layers} == {"layer", "out"}
