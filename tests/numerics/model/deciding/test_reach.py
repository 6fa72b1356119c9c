"""What only a graph reaches: a plan says it, and its advice is taken as it stands."""

import re

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import numerics as nx

IDS = torch.tensor([[1, 2, 3, 4]])


class Attending(nn.Module):
    """Attention, which torch computes in one function, and a layer."""

    def __init__(self, name):
        super().__init__()
        self.add_module(name, nn.MultiheadAttention(16, 2, batch_first=True))
        self.name, self.fc = name, nn.Linear(16, 16)

    def forward(self, x):
        attn = self.get_submodule(self.name)
        return x + self.fc(attn(x, x, x)[0])


class Model(nn.Module):
    """Blocks, some of them under names that a pattern of another would take too."""

    def __init__(self, names):
        super().__init__()
        self.words = nn.Embedding(8, 16)
        self.blocks = nn.ModuleList(Attending(name) for name in names)

    def forward(self, ids):
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.turns(6)
@pytest.mark.parametrize("names", [["attn"] * 9, ["0", "attn", "attn", "fc2"]])
@pytest.mark.parametrize("asked", [{"activations": "int8"}, {"activations": "int8", "outputs": "int8"}])
def test_a_plan_approved_what_wrap_refused(names, asked):
    """The advice named six of eighteen sites, and each rule moved the error on."""
    model = Model(names)
    plan = nx.plan(model, "int4", example=IDS, **asked)
    with pytest.raises(nx.NumericsError, match="only mode='fx_graph_mode' reaches") as refused:
        nx.wrap(model, plan)
    assert f"nx.wrap refuses it as it is: {refused.value}" in plan.summary
    (rules,) = re.findall(r"rules=(\{.*\}) leaves them", str(refused.value))
    followed = nx.plan(model, "int4", example=IDS, rules=eval(rules), **asked)
    assert "refuses" not in followed.summary
    nx.wrap(model, followed)(IDS)
    kept = [row for row in plan.rows if row.site and row.spec and not row.graph]
    assert [row.name for row in followed.rows if row.site and row.spec] == [row.name for row in kept]
    assert "refuses" not in nx.plan(model, "int4", example=IDS, mode="fx_graph_mode", **asked).summary


def test_many_blocks_are_one_pattern():
    told = nx.plan(Model(["attn"] * 9), "int4", "int8", example=IDS).summary
    assert told.endswith("rules={'blocks.*.attn': {'activations': None}} leaves them")
    assert "blocks.{0-8}.attn:linear[0]" in told
