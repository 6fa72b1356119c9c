"""What a wrapped module shows of its children: those of the float model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import numerics as nx


class Listed(nn.Sequential):
    """Runs its children as nn.Sequential does, and multiplies with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(32, 32), nn.Linear(32, 32))
        self.w = nn.Parameter(torch.randn(32, 8))

    def forward(self, x: Any) -> Any:
        return super().forward(x) @ self.w


class Named(nn.ModuleDict):
    """The same by names."""

    def __init__(self) -> None:
        super().__init__({"a": nn.Linear(32, 32), "b": nn.Linear(32, 32)})
        self.w = nn.Parameter(torch.randn(32, 8))

    def forward(self, x: Any) -> Any:
        for name, layer in self.items():
            x = layer(x)
            assert self[name] is layer
        return x @ self.w


class Plain(nn.Module):
    """The same without a container."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.w = nn.Linear(32, 32), nn.Linear(32, 32), nn.Parameter(torch.randn(32, 8))
        self.how = how

    def forward(self, x: Any) -> Any:
        for layer in self.children() if self.how == "children" else [m for _, m in self.named_children()]:
            x = layer(x)
        return x @ self.w


class Inside(nn.Module):
    """The same by torch's inner dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.w = nn.Linear(32, 32), nn.Parameter(torch.randn(32, 8))

    def forward(self, x: Any) -> Any:
        for layer in self._modules.values():
            x = layer(x)
        return x @ self.w


MAKES = {
    "list": Listed,
    "dict": Named,
    "children": lambda: Plain("children"),
    "named": lambda: Plain("named"),
}


@pytest.mark.parametrize("name", MAKES)
def test_a_quantizer_runs_as_a_layer(name: str) -> None:
    torch.manual_seed(0)
    m, x = MAKES[name]().eval(), torch.randn(4, 32)
    due = nx.wrap(m, "int8", activations="int8", example=x, mode="fx_graph_mode")(x)
    one = nx.wrap(m, "int8", activations="int8", example=x)
    assert torch.equal(one(x), due)
    assert len([*one.children()]) == 2
    assert one.train().quantize_w.training
    assert not one.eval().quantize_w.training


def test_a_list_has_other_places() -> None:
    one = nx.wrap(Listed(), "int8", activations="int8", example=torch.randn(4, 32))
    assert len(one) == 2
    assert one[-1] is one._modules["1"]
    with pytest.raises(IndexError):
        one[2]


def test_a_forward_that_meets_its_quantizers_runs_them() -> None:
    with pytest.raises(nx.NumericsError, match=r"w: the forward of Inside goes through self\._modules"):
        nx.wrap(Inside(), "int8", activations="int8", example=torch.randn(4, 32))
