"""What a wrapped model shares with the float one, and what is not put into it."""

from __future__ import annotations

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
