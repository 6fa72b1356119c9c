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
    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(nx.NumericsError, match=r"torch\.autograd\.grad of"):
            transform(lambda p: torch.func.functional_call(one, p, (X,)).sum())(
                {name: x.detach() for name, x in own.items()}
            )


@pytest.mark.parametrize("call", [
    lambda x: nx.fake_quantize(x, "int8"),
    lambda x: nx.train.tqt(x, torch.tensor(1.0), "int8"),
    lambda x: nx.train.lsq(x, torch.tensor(0.5), "int4"),
])  # fmt: skip
def test_torch_func_is_refused_in_words_of_torch(call):
    with pytest.raises(nx.NumericsError, match=r"torch\.func\.grad, vjp, jvp"):
        torch.func.grad(lambda x: call(x).sum())(torch.ones(4))


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
