"""What a graph has of its model: its operators, its products, and what is said of states."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import numerics as nx
from numerics.model.looking import exported
from numerics.model.looking.products import name_of

MODES = ("eager_mode", "fx_graph_mode")
X = torch.linspace(-1, 1, 128).reshape(2, 64)


class Noted(nn.Module):
    """A module without parameters that has more to say in a state."""

    def __init__(self):
        super().__init__()
        self.said = 3

    def forward(self, x):
        return x.relu()

    def get_extra_state(self):
        return self.said

    def set_extra_state(self, state):
        self.said = state


class Hooked(nn.Module):
    """A model whose hooks add keys to states, take them out, and read what the model has."""

    def __init__(self):
        super().__init__()
        self.first, self.noted, self.out, self.version = nn.Linear(64, 32), Noted(), nn.Linear(32, 4), 7
        self.register_state_dict_post_hook(self.write)
        self.register_load_state_dict_pre_hook(self.read)
        self.register_load_state_dict_post_hook(
            lambda m, keys: keys.missing_keys.extend(["late"] * m.wants())
        )
        self.first.register_state_dict_post_hook(
            lambda m, state, prefix, _: state.update({f"{prefix}old": X})
        )
        self.first.register_load_state_dict_pre_hook(lambda m, state, prefix, *_: state.pop(f"{prefix}old"))

    @staticmethod
    def write(module, state, prefix, _):
        state[f"{prefix}version"] = torch.tensor(module.version)

    @staticmethod
    def read(module, state, prefix, *_):
        assert state.pop(f"{prefix}version") == 7

    def wants(self):
        return False

    def forward(self, x):
        return self.out(self.noted(self.first(x)))


@pytest.mark.parametrize("copied", [False, True])
def test_states_go_from_mode_to_mode_with_what_hooks_make_of_them(copied):
    """What a hook of the float model adds to a state was unexpected in a graph's."""
    torch.manual_seed(0)
    m = Hooked().eval()
    made = [nx.wrap(m, "int8", activations="int8", example=X, mode=mode) for mode in MODES]
    made = [copy.deepcopy(one) for one in made] if copied else made
    states = [one.state_dict() for one in made]
    extra = {"version", "first.old", "noted._extra_state"}
    assert {*states[0]} == {*states[1]} == {*m.state_dict()} >= extra
    for one in made:
        for state in states:
            one.load_state_dict(state)
        with pytest.raises(RuntimeError, match=r"noted\._extra_state"):
            one.load_state_dict({k: x for k, x in states[0].items() if "extra" not in k})
    assert torch.equal(*(one(X) for one in made))


def test_what_is_not_in_the_graph_is_refused_with_a_way_out():
    """A region that torch compiles once loses its modules in a graph."""

    class Region(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(64, 4)

        @torch.compiler.nested_compile_region
        def body(self, x):
            return self.first(x)

        def forward(self, x):
            return self.body(x)

    m = Region().eval()
    eager = nx.wrap(m, "int8", activations="int8", example=X)
    assert not torch.equal(eager(X), m(X))
    with pytest.raises(nx.NumericsError, match=r"not found in the graph.*mode='eager_mode'"):
        nx.wrap(m, "int8", activations="int8", example=X, mode="fx_graph_mode")


# ---- kernels that ATen picks by requires_grad ------------------------------------------------------------


class Recurrent(nn.Module):
    """A recurrence, or the cell of one, and a layer behind it."""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind.__name__.endswith("Cell")
        self.r = kind(32, 32) if self.cell else kind(32, 32, 2, batch_first=True)
        self.out = nn.Linear(32, 4)

    def forward(self, x):
        found = self.r(x[:, 0]) if self.cell else self.r(x)
        return self.out(found[0] if isinstance(found, tuple) else found)


@pytest.mark.turns
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_modes_are_compared_where_both_have_gradients_or_neither(kind, learns, frozen):
    """ATen takes another kernel of a GRU where a gradient is asked for: bits are the same where that is."""
    torch.manual_seed(0)
    model, x = Recurrent(kind).requires_grad_(learns).eval(), torch.randn(3, 5, 32)
    made = [nx.wrap(model, "mxfp8_e4m3", "mxfp8_e4m3", example=x, mode=mode) for mode in MODES]
    made = [nx.freeze(one) for one in made] if frozen else made
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            eager, graph = (one(x) for one in made)
        assert eager.requires_grad is graph.requires_grad
        assert torch.equal(eager, graph)


# ---- graphs that are taken apart ---------------------------------------------------------------------------


class Whole(nn.Module):
    """Operators that torch writes as several others where a graph is decomposed."""

    def __init__(self):
        super().__init__()
        self.norm, self.one, self.two = nn.LayerNorm(64), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        y = self.norm(x)
        y = F.scaled_dot_product_attention(self.one(y), self.two(y), y)
        return F.gelu(y).softmax(-1)


WHOLE = {"linear", "layer_norm", "scaled_dot_product_attention", "gelu", "softmax"}


def operators(graph):
    return {name_of(node.target) for node in graph.graph.nodes if node.op == "call_function"}


def test_a_graph_is_of_the_operators_that_the_model_calls():
    """Decomposed, MiniLM's is 2.2e-6 off the model: no bits could be compared, and no products found."""
    torch.manual_seed(0)
    model, x = Whole().eval(), torch.randn(2, 3, 64)
    graph = exported.export(model, x, dynamic=True)
    assert operators(graph) >= WHOLE
    assert not operators(graph) & {"addmm", "mm", "bmm", "native_layer_norm", "erf"}
    assert torch.equal(graph(x), model(x))
    wrapped = nx.wrap(model, "mxfp4", "mxfp8_e4m3", example=x, mode=MODES[1])
    assert operators(wrapped) >= WHOLE
    assert torch.equal(wrapped(x), nx.wrap(model, "mxfp4", "mxfp8_e4m3", example=x)(x))


def test_a_wrapped_graph_that_is_exported_again_is_whole():
    torch.manual_seed(0)
    model, x = Whole().eval(), torch.randn(2, 3, 64)
    frozen = nx.freeze(nx.wrap(model, "mxfp4", "mxfp8_e4m3", example=x, mode=MODES[1]))
    again = torch.export.export(frozen, (x,)).module()
    assert operators(again) >= WHOLE
    assert torch.equal(again(x), frozen(x))


# ---- what a quantizing pass left in floats without a word --------------------------------------------------


class Branches(nn.Module):
    """Products in both branches of a condition, and one before it; without gradients where that is asked."""

    def __init__(self, without_gradients=False):
        super().__init__()
        self.before, self.yes, self.no = (nn.Linear(64, 64) for _ in range(3))
        self.without_gradients = without_gradients

    def forward(self, x):
        if self.without_gradients:
            with torch.no_grad():
                return self.branched(x)
        return self.branched(x)

    def branched(self, x):
        x = self.before(x)
        return torch.cond(x.sum() > 0, lambda x: self.yes(x).relu(), lambda x: self.no(x).tanh(), (x,))


@pytest.mark.turns(6)
@pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("without_gradients", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_product_in_a_branch_is_quantized_or_said_to_be_none(without_gradients, sign):
    torch.manual_seed(0)
    model, x = Branches(without_gradients), sign * torch.randn(2, 64).abs()
    plan = nx.plan(model, "mxfp4", "mxfp8_e4m3", example=x, mode=MODES[1])
    assert set(plan.parameters) == {"before.weight", "yes.weight", "no.weight"}
    assert {site.module for site in plan.sites} == {"before", "yes", "no"}
    due = copy.deepcopy(model)
    with torch.no_grad():
        for layer in (due.before, due.yes, due.no):
            layer.weight.copy_(nx.fake_quantize(layer.weight, "mxfp4"))
            layer.register_forward_pre_hook(lambda _, args: (nx.fake_quantize(args[0], "mxfp8_e4m3"),))
        h = due.before(x)
        expected = due.yes(h).relu() if h.sum() > 0 else due.no(h).tanh()
        assert torch.equal(nx.wrap(model, plan)(x), expected)


@pytest.mark.parametrize("mode", MODES)
def test_an_observer_that_no_pass_knows_leaves_no_float_product(mode):
    """Frozen, each product has its scale, and nothing waits or is left in floats."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(4, 64)
    waiting = nx.wrap(model, "int8", "int8", observer="percentile(99.9)", example=x, mode=mode)
    with pytest.raises(nx.NumericsError, match="calibrate"):
        waiting(x)
    with pytest.raises(nx.NumericsError, match="calibrate"):
        nx.freeze(waiting)
    frozen = nx.freeze(nx.calibrate(waiting, [x]))
    packed = [p for p in frozen.parameters() if isinstance(p, nx.QTensor)]
    assert len(packed) == 2
    assert not torch.equal(frozen(x), model(x))


@pytest.mark.parametrize("mode", MODES)
def test_normalizations_are_folded_where_the_plan_says_so_alone(mode):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval(), torch.randn(2, 3, 6, 6)
    for fold in (False, True):
        plan = nx.plan(model, "int8", example=x, mode=mode, fold=fold)
        assert plan.fold == ({"1": "0"} if fold else {})
        wrapped = nx.wrap(model, plan)
        assert ("1.running_mean" in wrapped.state_dict()) is not fold
