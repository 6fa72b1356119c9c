"""Computed tensors that share one scale: who does, in both modes, in files, and who cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import numerics as nx

MODES = ("eager_mode", "fx_graph_mode")
STATIC = {"activations": "int8", "outputs": "int8", "observer": "min_max"}


class Meets(nn.Module):
    """What two convolutions return is joined and pooled, what two products return is added."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv1d(4, 8, 3), nn.Conv1d(4, 8, 3)
        self.c, self.d, self.e = nn.Linear(32, 16), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x):
        y = torch.cat([self.a(x), F.relu(self.b(x) * 1)], 1)
        y = F.max_pool1d(torch.cat([y[:, :8], self.b(x)], 1), 3).flatten(1)
        return self.e(self.c(y) + self.d(y) + self.d(y).tanh())


def batches():
    return [x * torch.randn(3, 4, 8, generator=torch.manual_seed(k)) for k, x in enumerate((1, 2, 3))]


def groups(plan):
    return {row.name: row.group for row in plan.rows if row.group}


def test_what_is_joined_or_added_has_two_scales():
    """A product between (b, times one) or a function of another grid (tanh) parts what meets."""
    found = groups(nx.plan(Meets(), "int8", example=batches()[0], share=True, **STATIC))
    joined = dict.fromkeys(["a:conv1d[out]", "b:conv1d[out]", "c:linear[0]", "d:linear[0]"], "a:conv1d[out]")
    assert found == joined | dict.fromkeys(["c:linear[out]", "d:linear[out]"], "c:linear[out]")


@pytest.mark.turns
@pytest.mark.parametrize("qat", [None, "tqt"])
def test_a_shared_scale_is_another_in_the_other_mode(qat, tmp_path):
    x, outs, states = batches()[0], [], []
    options = {k: v for k, v in STATIC.items() if k != "observer" or qat is None}
    for mode in MODES:
        plan = nx.plan(Meets(), "int8", example=x, share=True, mode=mode, **options)
        plan.save(tmp_path / "plan.toml")
        assert nx.Plan.load(tmp_path / "plan.toml").rows == plan.rows
        one = nx.wrap(Meets().eval(), plan, qat=qat)
        if qat is None:
            nx.calibrate(one, batches())
            assert len({float(v) for k, v in one.state_dict().items() if k.endswith("scale")}) == 5
        for state in states:
            one.load_state_dict(state)
        states.append(one.state_dict())
        outs.append(one(x))
        nx.save(nx.freeze(one).state_dict(), tmp_path / "frozen.safetensors")
        again = nx.load_into(Meets().eval(), tmp_path / "frozen.safetensors", example=x)
        with nx.decoded_products():
            assert torch.equal(again(x), outs[-1])
        assert nx.report(one).output > 20
    assert torch.equal(*outs)
    apart = nx.calibrate(nx.wrap(Meets().eval(), "int8", example=x, **STATIC), batches())
    assert not torch.equal(apart(x), outs[0])


def test_a_rule_does_not_move_a_scale():
    rules = {"b:conv1d[[]out]": {"group": None}, "[ae]:*[[]out]": {"group": "mine"}}
    plan = nx.plan(Meets(), "int8", example=batches()[0], share=True, rules=rules, **STATIC)
    found = groups(plan)
    assert found["a:conv1d[out]"] == found["e:linear[out]"] == "mine"
    assert "b:conv1d[out]" not in found
    alone = nx.plan(Meets(), "int8", example=batches()[0], rules={"*[[]out]": {"group": "all"}}, **STATIC)
    assert len(groups(alone)) == 5
    assert "one scale for all" in str(alone)
    one = nx.calibrate(nx.wrap(Meets().eval(), alone), batches())
    assert one.a.quantize_conv1d_out is one.e.quantize_linear_out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rules": {"a:conv1d[[]out]": {"group": "x"}}}, "has a:conv1d.out. alone"),
        ({"rules": {"e:linear[[]out]": {"group": None}}}, "it shares its scale with nobody"),
        ({"rules": {"e:linear[[]out]": {"group": 3}}}, "group=3 is no name"),
        ({"outputs": "mxfp4", "rules": {"*[[]out]": {"group": "x"}}}, "is mxfp4.*not of blocks"),
        ({"rules": {"[ab]:*": {"group": "x"}, "a:*": {"outputs": "int4"}}}, "a:conv1d.out. in int4"),
        ({"outputs": None, "share": True}, "share=True has nothing to share"),
        ({"outputs": "mxfp8_e4m3", "share": True}, "share=True has nothing to share"),
        ({"share": 3}, "share"),
        ({"observer": None, "share": True}, "observer='min_max'"),
    ],
)
def test_what_cannot_share_a_scale_shares_one(options, said):
    with pytest.raises(nx.NumericsError, match=said):
        nx.wrap(Meets(), "int8", example=batches()[0], **(STATIC | options))
