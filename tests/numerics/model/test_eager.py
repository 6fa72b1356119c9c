"""Frozen experts in both modes, and methods of an eager model that are called from outside its forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import numerics as nx
from numerics.pytorch.qtensor import TensorQTensor

LOOPS = {
    "index": lambda w: [w[e] for e in range(len(w))],
    "unbind": lambda w: w.unbind(0),
    "turned": lambda w: [w.mT[e].mT for e in range(len(w))],
}


class Looped(nn.Module):
    """Experts one by one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.w = how, nn.Parameter(torch.randn(4, 24, 64))

    def forward(self, x: Any) -> Any:
        return torch.stack([F.linear(x, part) for part in LOOPS[self.how](self.w)])


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("how", LOOPS)
def test_a_frozen_loop_over_experts_decodes_all_of_them(how, mode, monkeypatch):
    x = torch.randn(3, 64)
    one = nx.wrap(Looped(how), "mxfp4", example=x, mode=mode)
    with nx.decoded_products(), torch.no_grad():
        due = one(x)
        frozen = nx.freeze(one)
        assert torch.equal(frozen(x), due)
    monkeypatch.setattr(TensorQTensor, "dequantize", lambda *_: pytest.fail("decoded"))
    with torch.no_grad():
        frozen(x)


class Encodes(nn.Module):
    """Methods that a forward calls, and users call too: by functions, by a module, of a module inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.plain = nn.Parameter(torch.randn(32, 32)), nn.Parameter(torch.randn(32, 32))
        self.layer = nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        return self.logits(self.layer(self.encode(x)))

    def encode(self, x: Any) -> Any:
        """A product of its own."""
        return (x @ self.w.t()).relu()

    def deep(self, x: Any) -> Any:
        """One of another method's."""
        return self.encode(x) + 1

    def projected(self, x: Any) -> Any:
        """One of a module's, which quantizes what comes in."""
        return self.layer(x)

    def logits(self, x: Any) -> Any:
        """One that the plan leaves as it is."""
        return x @ self.plain

    def ties(self) -> Any:
        """None."""
        return self.w.mean() + (self.w @ self.w).mean()


def encodes() -> nn.Module:
    kept = {"plain": None}
    return nx.wrap(Encodes(), "int8", activations="int4", rules=kept, example=torch.randn(3, 32))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["encode", "deep"])
def test_a_method_called_from_outside_has_float_activations_without_a_word(name, frozen):
    """Only the documentation said so; it is said once a method."""
    one, x = encodes(), torch.randn(3, 32)
    one = nx.freeze(one) if frozen else one
    one(x)
    with pytest.warns(nx.NumericsWarning, match=f"Encodes.{name} is called from outside a forward: the mat"):
        found = getattr(one, name)(x)
    assert torch.equal(getattr(one, name)(x), found)
    assert nx.unwrap(encodes()).encode(x).shape == (3, 32)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_method_that_leaves_nothing_unquantized_is_warned_of(frozen):
    one, x = encodes(), torch.randn(3, 32)
    one = nx.freeze(one) if frozen else one
    one.projected(x)
    one.ties()
    one.logits(x)
    one(x)
    assert type(one).encode.__doc__ == Encodes.encode.__doc__
