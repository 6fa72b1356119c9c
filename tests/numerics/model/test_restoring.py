"""A model that was looked at is what it was before: buffers, attributes and renormalized embeddings."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

import numerics as nx


class Writing(nn.Module):
    """Has a forward that writes into all that a module can hold."""

    def __init__(self):
        super().__init__()
        self.layer, self.table = nn.Linear(8, 8), nn.Embedding(8, 8, max_norm=0.1)
        self.register_buffer("keys", torch.zeros(4, 8))
        self.register_buffer("mean", torch.zeros(8))
        self.step, self.log, self.by_name, self.seen = 0, [], {}, torch.zeros(3)

    def forward(self, x, ids):
        y = self.layer(x) + self.table(ids)
        self.keys[self.step] = y[0].detach()
        self.mean = self.mean + y[0].detach()
        self.step += 1
        self.log.append(self.step)
        self.by_name[self.step] = True
        self.seen.add_(1)
        self.cached = self.layer.weight.detach().t()
        return y


X = (torch.ones(2, 8), torch.tensor([1, 2]))


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # torch's own, of what is assigned in a forward
@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("look", [nx.plan, partial(nx.wrap, qat="tqt")], ids=["plan", "wrap"])
def test_looking_at_a_model_changes_it(mode, look):
    """The cache of keys went on by a step, and an embedding was renormalized."""
    torch.manual_seed(0)
    model = Writing().eval()
    before = copy.deepcopy(model)
    look(model, "int8", activations="int8", example=X, mode=mode)
    assert all(torch.equal(x, before.state_dict()[name]) for name, x in model.state_dict().items())
    assert (model.step, model.log, model.by_name) == (0, [], {})
    assert not hasattr(model, "cached")
    assert torch.equal(model.seen, torch.zeros(3))
    model(*X)
    assert (model.step, model.log) == (1, [1])
    assert bool(model.keys[0].any())


class Trains(nn.Linear):
    """Writes into its own weight."""

    def forward(self, x):
        self.weight.mul_(0.5)
        return super().forward(x)


def test_a_forward_that_writes_into_a_parameter_goes_unsaid():
    with pytest.raises(nx.NumericsError, match=r"writes into weight.*copy\.deepcopy"):
        nx.plan(Trains(8, 8), "int8", example=X[0])
