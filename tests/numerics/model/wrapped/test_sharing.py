"""What a wrapped model shares with the float one, and what is not put into it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import numerics as nx

MODES = ("eager_mode", "fx_graph_mode")
X = torch.linspace(-1, 1, 128).reshape(2, 64)


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.Linear(32, 4))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", ["packed", "values"])
def test_a_frozen_state_in_a_wrapped_model_is_refused(mode, keep):
    """It was decoded into the float parameters, and quantized again when they were read."""
    state = nx.freeze(nx.wrap(two_layers(), "mxfp4", example=X, mode=mode), keep).state_dict()
    wrapped = nx.wrap(two_layers(), "int4", example=X, mode=mode)
    before = wrapped.state_dict()["0.weight"].clone()
    with pytest.raises(nx.NumericsError, match=r"nx\.load_into\(float_model, file\)"):
        wrapped.load_state_dict(state)
    assert torch.equal(wrapped.state_dict()["0.weight"], before)
    frozen = nx.freeze(nx.wrap(two_layers(), "mxfp4", example=X, mode=mode), keep)
    frozen.load_state_dict(state)
    wrapped.load_state_dict(two_layers().state_dict(), strict=False)


class Block(nn.Module):
    """A container whose layers are tied to its neighbour's, with a normalization that is not quantized."""

    def __init__(self):
        super().__init__()
        self.first, self.second = two_layers(), two_layers()
        self.second[0].weight = self.first[0].weight

    def forward(self, x):
        return self.first(x) + self.second(x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["first.0", "first.1", "first", ""])
def test_a_moved_module_moves_the_float_models(mode, name):
    """Only the root parted from the float model: w[0].half() made the float weight float16."""
    model = Block()
    wrapped = nx.wrap(model, "mxfp4", example=X, mode=mode)
    assert wrapped.get_submodule("first.1").weight is model.first[1].weight
    copied = copy.deepcopy(wrapped)
    mine = list(copied.parameters())
    wrapped.get_submodule(name).half()
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    state = wrapped.state_dict(keep_vars=True)
    assert state["first.0.weight"] is state["second.0.weight"], "what was tied no longer is"
    assert any(x.dtype == torch.float16 for x in state.values())
    copied.half()
    assert all(a is b for a, b in zip(mine, copied.parameters(), strict=True)), "a copy has its own already"


def test_modules_that_share_are_pickled_as_what_they_are():
    wrapped = nx.wrap(Block(), "mxfp4", example=X)
    assert isinstance(wrapped.first[1], nn.LayerNorm)
    for again in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert type(again.first[1]) is nn.LayerNorm
        assert torch.equal(again(X), wrapped(X))


@pytest.mark.parametrize("mode", MODES)
def test_the_docs_on_shared_buffers_are_wrong(mode):
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32))
    wrapped = nx.wrap(model, "mxfp4", example=X, mode=mode, qat="ste").train()
    wrapped(X)
    assert torch.equal(model[1].running_mean, wrapped.state_dict()["1.running_mean"])
    apart = nx.wrap(copy.deepcopy(model), "mxfp4", example=X, qat="ste").train()
    apart(X)
    assert not torch.equal(model[1].running_mean, apart[1].running_mean)
