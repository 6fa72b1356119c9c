"""Axes of a parameter in what is made of it, against the places that its entries have there."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import numerics as nx
from numerics.model.looking.axes import axes_of, settled

MODES = ("eager_mode", "fx_graph_mode")


def varying(places, at):
    """The axes of the parameter whose index changes along one axis of what is made of it."""
    return {k for k, index in enumerate(places) if (index != index.narrow(at, 0, 1)).any()}


def factored(rng, n):
    """Sizes whose product is n, in some order, ones among them."""
    primes = [p for p in (2, 3, 5) for _ in range(8) if n % p == 0 and (n := n // p) is not None]
    found = [1, *primes]
    while len(found) > 1 and rng.random() < 0.7:
        found.append(found.pop(rng.randrange(len(found))) * found.pop(rng.randrange(len(found))))
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_axes_are_those_along_which_places_change(seed):
    rng = random.Random(seed)
    shape = rng.choice([(4, 6), (2, 12, 5), (8, 9), (6, 1, 10), (3, 4, 5, 2)])
    of = torch.zeros(shape)
    places = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    axes = tuple(range(len(shape)))
    for _ in range(6):
        if rng.random() < 0.6:
            sizes = factored(rng, of.numel())
            (name, change) = "reshape", lambda x, sizes=sizes: x.reshape(sizes)
        else:
            order = rng.sample(range(of.ndim), of.ndim)
            (name, change) = "permute", lambda x, order=order: x.permute(order).contiguous()
        made = change(of)
        axes = axes_of(made if name == "reshape" else of.permute(order), of, axes, name)
        of, places = made, [change(index) for index in places]
    for at, n in enumerate(of.shape):
        assert n == 1 or settled(axes[at]) in (*varying(places, at), None)


def test_what_a_whole_axis_became_is_followed_wherever_it_goes():
    """Merged with others, moved and taken apart again, each is found, and nothing is guessed."""
    x = torch.zeros(4, 6, 10)
    steps = [(24, 10), (240,), (4, 60), (2, 2, 6, 10), (4, 3, 20), (4, 6, 10)]
    axes, found = (0, 1, 2), []
    for sizes in steps:
        made = x.reshape(sizes)
        axes, x = axes_of(made, x, axes, "reshape"), made
        found.append(tuple(map(settled, axes)))
    assert found == [(1, 2), (2,), (0, 2), (0, 0, 1, 2), (0, 1, 2), (0, 1, 2)]


def test_sizes_that_no_axis_has_are_not_guessed():
    made = torch.zeros(2, 8, 3)
    assert tuple(map(settled, axes_of(made, torch.zeros(2, 6, 4), (0, 1, 2), "view"))) == (0, None, 2)


WAYS = {
    "flat": (0, lambda x, w: x @ w.reshape(-1).reshape(8, 64)),
    "flat and turned": (0, lambda x, w: F.linear(x, w.flatten().unflatten(0, (8, 64)).t())),
    "turned and flat": (0, lambda x, w: x @ w.t().reshape(-1).view(64, 8).t()),
    "other sizes between": (0, lambda x, w: x @ w.view(2, 4, 64).view(32, 16).view(8, 64)),
    "heads": (0, lambda x, w: torch.einsum("bhd,hdo->bo", x.view(4, 2, 4), w.view(-1).view(2, 4, 64))),
    "of heads": (0, lambda x, w: torch.einsum("bh,hdo->bdo", x[:, :2], w.reshape(2, 4, 64))[:, 0]),
    "the last": (-1, lambda x, w: F.linear(x.repeat(1, 8), w.reshape(-1).view(8, 8, 8).view(8, 64))),
    "squeezed": (0, lambda x, w: x @ w[None].reshape(1, -1).squeeze(0).reshape(1, 8, 64)[0]),
}


class Made(nn.Module):
    """A product with what is made of a parameter, and a layer, so that there is something to plan."""

    def __init__(self, way):
        super().__init__()
        self.w, self.layer, self.way = nn.Parameter(torch.randn(8, 64)), nn.Linear(8, 8), way

    def forward(self, x):
        return self.way(self.layer(x), self.w)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WAYS)
def test_an_axis_that_sizes_tell_was_refused(name, mode):
    axis, way = WAYS[name]
    plan = nx.plan(Made(way), "mxfp4", example=torch.ones(4, 8), mode=mode)
    assert plan.parameters["w"].spec.axis == axis


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "way",
    [
        lambda x, w: x[:, :6] @ w.reshape(-1)[:384].reshape(6, 64),
        lambda x, w: x @ w.reshape(16, 32)[:8],
        lambda x, w: x[:, :6] @ w.reshape(-1)[4:100].reshape(6, 16),
    ],
)
def test_an_axis_that_nothing_tells_is_refused(way, mode):
    with pytest.raises(nx.NumericsError, match=r"w of shape \(8, 64\).*not decided by guessing"):
        nx.plan(Made(way), "mxfp4", example=torch.ones(4, 8), mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("operations", "way"),
    [
        ("mul", lambda x, w: w * x.mean()),
        ("mul", lambda x, w: w * x.mean(0)[:, None]),
        ("mul", lambda x, w: (x[:, :, None] * w).sum(1)),
        ("mul", lambda x, w: x @ (w * x.mean())),
        ("add and mul", lambda x, w: (w + x.mean()) * w.view(8, 64)),
    ],
)
def test_a_product_with_a_scalar_or_a_vector_was_none_at_all(operations, way, mode):
    plan = nx.plan(Made(way), "mxfp4", example=torch.ones(4, 8), mode=mode)
    (row,) = (row for row in plan.rows if row.name == "w")
    assert row.reason == f"no product takes it as it is, only {operations} (a rule can take it)"
    assert "1 of two dimensions and more no product takes as they are, such as w" in plan.summary
    taken = nx.plan(Made(way), "mxfp4", rules={"w": "mxfp4"}, example=torch.ones(4, 8), mode=mode)
    assert taken.parameters["w"].spec.axis == -1
