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
