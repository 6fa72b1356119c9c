"""Models that nobody here had in mind, from the plan to a file and back, by formats of every kind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils import _pytree as pytree

import numerics as nx
from tests.helpers.inventions import FUSED, INVENTIONS, invention

pytestmark = [
    pytest.mark.usefixtures("decoded_products"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

MODES = ("eager_mode", "fx_graph_mode")
INT4 = nx.QuantSpec("int4", scheme="per_channel(0)")
HOW = {
    "observed": {"weights": "int8", "activations": nx.QuantSpec("int8", symmetric=False),
                 "observer": "min_max"},
    "mx": {"weights": "mxfp4", "activations": "mxfp8_e4m3"},
    "nvfp4": {"weights": "nvfp4", "activations": "nvfp4"},
    "nf4": {"weights": nx.QuantSpec("nf4", scheme=nx.per_group(16))},
    "bfp16": {"weights": "bfp16", "activations": "bfp16"},
    "mx6": {"weights": "mx6", "activations": "mx9"},
    "ste": {"weights": "int4", "activations": "fp8_e4m3", "qat": "ste"},
    "tqt": {"weights": "int8", "activations": "int8", "qat": "tqt"},
    "lsq": {"weights": INT4, "activations": "int8", "qat": "lsq"},
    "lsq of floats": {"weights": "fp4", "activations": "fp8_e4m3", "qat": "lsq"},
    "lsq of codebooks": {"weights": "nf4", "activations": "hifloat8", "qat": "lsq"},
}  # fmt: skip


def run(model, x):
    with torch.no_grad():
        return pytree.tree_leaves(model(*x))


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def learn(model, x):
    """One step of an optimizer, after which everything that learns is another."""
    out = pytree.tree_leaves(model(*x))
    sum(t.square().mean() for t in out).backward()
    torch.optim.SGD(model.parameters(), 1e-2).step()


@pytest.mark.turns(600)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", INVENTIONS)
def test_a_model_of_the_week_breaks(name, how, tmp_path):
    m, x = invention(name)
    options, outs, states = dict(HOW[how]), [], []
    qat = options.pop("qat", None)
    rules = {FUSED[name]: {"activations": None}} if name in FUSED and "activations" in options else None
    before = run(m, x)
    for mode in MODES:
        plan = nx.plan(m, example=x, mode=mode, rules=rules, **options)
        one, other = (nx.wrap(copy.deepcopy(m), plan, qat=qat) for _ in range(2))
        if "observer" in options:
            nx.calibrate(one, [x])
        if qat is not None:
            learn(one, x)
        out = run(one, x)
        assert not equal(out, before), "nothing is quantized"
        assert equal(run(copy.deepcopy(one), x), out)
        for state in (one.state_dict(), *states):
            other.load_state_dict(state)
            assert equal(run(other, x), out), "a state makes other bits"
        states, outs = [one.state_dict()], [*outs, out]
        nx.save(nx.freeze(one).state_dict(), tmp_path / "frozen.safetensors")
        assert equal(run(one, x), out), "freezing changes values"
        again = nx.load_into(invention(name)[0], tmp_path / "frozen.safetensors", example=x)
        assert equal(run(again, x), out), "a file changes values"
    assert equal(*outs), "the modes differ"
