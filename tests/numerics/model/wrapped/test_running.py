"""What a wrapped model says of calls that cannot be: where, why, and the way out."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import numerics as nx

MODES = ("eager_mode", "fx_graph_mode")
X = torch.linspace(-1, 1, 128).reshape(2, 64)


def wrapped(mode, qat=None, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    return nx.wrap(model, "int8", activations="int8", qat=qat, example=X, mode=mode, **options)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch, in its first jvp
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", [None, "tqt", "lsq"])
def test_a_functional_call_has_other_values_or_gradients(mode, qat):
    """torch.func.grad of it said that an autograd.Function lacks a setup_context."""
    one = wrapped(mode, qat)
    own = dict(one.named_parameters())
    given = {name: x.detach().clone().requires_grad_() for name, x in own.items()}
    out = torch.func.functional_call(one, given, (X,))
    assert torch.equal(out, one(X))
    found = torch.autograd.grad(out.square().sum(), list(given.values()))
    due = torch.autograd.grad(one(X).square().sum(), list(own.values()))
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))
    plain = {name: x.detach() for name, x in own.items()}
    by_name = torch.func.grad(lambda p: torch.func.functional_call(one, p, (X,)).square().sum())(plain)
    assert all(torch.equal(by_name[name], x) for name, x in zip(own, due, strict=True))
    assert torch.equal(torch.func.functional_call(one, one.state_dict(), (X,)), out)
    with pytest.raises(nx.NumericsError, match="no derivative in forward mode"):
        torch.func.jvp(one, (X,), (X,))
    assert torch.equal(one(X), out)


@pytest.mark.filterwarnings("ignore:.*performance drop.*:UserWarning")
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_for_each_sample(mode):
    one = nx.wrap(nn.Sequential(nn.Linear(64, 4)), "int8", example=X, mode=mode, qat="lsq")
    own = {name: x.detach() for name, x in one.named_parameters()}

    def loss(p, x):
        return torch.func.functional_call(one, p, (x[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(own, X)
    for row in range(len(X)):
        one.zero_grad()
        one(X[row : row + 1]).square().sum().backward()
        for name, x in one.named_parameters():
            assert torch.allclose(found[name][row], x.grad, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("frozen", [False, True])
def test_a_pickled_graph_is_refused_in_words_of_torch(frozen):
    one = wrapped("fx_graph_mode")
    one = nx.freeze(one) if frozen else one
    for model in (one, nn.Sequential(one)):
        with pytest.raises(nx.NumericsError, match=r"torch\.export\.save"):
            pickle.dumps(model)
    assert torch.equal(copy.deepcopy(one)(X), one(X))


def test_an_error_inside_names_no_layer():
    one = wrapped("eager_mode")
    with pytest.raises(RuntimeError, match="cannot be multiplied") as found:
        one(X[:, :63])
    assert found.value.__notes__ == ["numerics: raised in 0, a Linear"]
    with pytest.raises(nx.NumericsError, match=r"0:linear\[0\] is quantized, and what came is no tensor"):
        one([1.0])


class Deep(nn.Module):
    """A layer within a part, after another."""

    def __init__(self):
        super().__init__()
        self.first, self.body = nn.Linear(64, 64), nn.Sequential(nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x):
        return self.body(self.first(x).to(x.dtype))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", [None, "ste"])
@pytest.mark.parametrize("activations", [None, "int8"])
def test_an_error_of_types_named_no_layer_in_a_graph(mode, qat, activations):
    """A line of a graph's code belongs to a layer; a quantizer's belongs to the layer that reads it."""
    one = nx.wrap(Deep(), "int8", activations=activations, mode=mode, qat=qat, example=X)
    for x in (X.double(), X.half(), torch.ones(2, 64, dtype=torch.long)):
        with pytest.raises((RuntimeError, nx.NumericsError)) as found:
            one(x)
        assert found.value.__notes__ == ["numerics: raised in first, a Linear"]
    with pytest.raises(nx.NumericsError, match="RuntimeError in first"):
        nx.report(one, Deep().double(), [X.double()])


@pytest.mark.parametrize("inner", [False, True])
def test_a_compiled_part_is_looked_for_in_a_graph(inner):
    """It was "planned, and not found in the graph", or a forward that accelerate had made."""
    layer = torch.compile(nn.Linear(64, 4), backend="eager")
    model = nn.Sequential(layer) if inner else layer
    for mode in MODES:
        with pytest.raises(nx.NumericsError, match=r"compiled by torch\.compile"):
            nx.plan(model, "int8", example=X, mode=mode)


@pytest.mark.parametrize(("dtype", "qat", "why"), [
    ("mxfp4", "lsq", "with a scale, and blocks with one of the tensor, and this plan has mxfp4 only"),
    ("bfloat16", "lsq", "this plan has bfloat16 only"),
    ("fp8_e4m3", "tqt", "learns scales of integers, and this plan has fp8_e4m3 only"),
    (nx.QuantSpec("int8", scale_type="pof2"), "lsq", r"0\.weight: qat='lsq': scale_type='pof2' has no"),
    (nx.QuantSpec("int8", rounding="floor"), "tqt", "rounding='floor' has no effect"),
    (nx.QuantSpec("int8", scale_rule="full_range"), "lsq", "scale_rule='full_range' has no effect"),
])  # fmt: skip
def test_what_is_not_learned_is_left_away(dtype, qat, why):
    """Options of a scale that is found had no effect on one that is learned, and nothing was said of it."""
    with pytest.raises(nx.NumericsError, match=why):
        nx.wrap(nn.Sequential(nn.Linear(64, 4)), dtype, qat=qat, example=X)
    spec = nx.QuantSpec("int8", scale_type="pof2")
    nx.wrap(nn.Sequential(nn.Linear(64, 4)), spec, qat="tqt", example=X)  # a power of two, as it is learned


def test_scales_of_floats_are_not_learned():
    """nx.train.LSQ learns them, and nx.wrap said that it learns those of integers only."""
    one = nx.wrap(nn.Sequential(nn.Linear(64, 4)), "fp4", activations="fp8_e4m3", qat="lsq", example=X)
    names = [name for name, _ in one.named_parameters() if name.endswith("step")]
    assert names == ["0.quantize_weight.learns.step", "0.quantize_linear_0.learns.step"]
    one(X).square().sum().backward()
    assert all(bool(one.get_parameter(name).grad) for name in names)
    out = one(X)
    with nx.decoded_products():
        assert torch.equal(nx.freeze(one)(X), out)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_the_wrapped_model_inside_of_another_is_told(mode):
    """DDP and DataParallel have it as their module."""
    x = torch.ones(2, 64)
    for around, name in ((torch.nn.DataParallel, "module"), (torch.nn.Sequential, "0")):
        model = around(nx.wrap(torch.nn.Sequential(torch.nn.Linear(64, 8)), "int8", example=x, mode=mode))
        for call in (nx.freeze, lambda m: nx.report(m, batches=[x]), lambda m: nx.calibrate(m, [x])):
            with pytest.raises(nx.NumericsError, match=rf"the model in it is, .*\('{name}'\)"):
                call(model)
