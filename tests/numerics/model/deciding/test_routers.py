"""What chooses among experts is seen by its name and its neighbours, and whoever quantizes it is told."""

from __future__ import annotations

import pytest
import torch

import numerics as nx
from numerics.checkpoints import Source, decide
from numerics.checkpoints.deciding import Request
from numerics.model.deciding.routers import ROUTER, routers, told_routers

EXPERTS = {f"experts.{k}.w1.weight": (48, 32) for k in range(8)}
STACKED = {"experts.gate_up_proj": (8, 96, 32), "experts.down_proj": (8, 32, 48)}


@pytest.mark.parametrize(
    ("name", "shape", "beside"),
    [
        ("mlp.gate.weight", (8, 32), EXPERTS), ("mlp.gate.weight", (8, 32), STACKED),
        ("mlp.gate.wg.weight", (8, 32), EXPERTS), ("mlp.gate", (32, 8), STACKED),
        ("mlp.w", (8, 32), {"w1": (8, 32, 48)}),
        ("block_sparse_moe.gate.weight", (8, 32), EXPERTS), ("mlp.choose.weight", (8, 32), STACKED),
        ("mlp.router.classifier.weight", (8, 32), {}), ("mlp.router.layer.weight", (8, 32), EXPERTS),
        ("mlp.shared_expert_gate.weight", (1, 32), EXPERTS), ("mlp.router_weight", (8, 32), {}),
    ],
)  # fmt: skip
def test_a_router_is_found(name, shape, beside):
    around = {f"layers.0.{name.partition('.')[0]}.{leaf}": what for leaf, what in beside.items()}
    every = {
        f"layers.0.{name}": shape,
        "layers.0.self_attn.q_proj.weight": (32, 32),
        "lm_head.weight": (8, 32),
    }
    assert routers({**every, **around}) == {f"layers.0.{name}"}


@pytest.mark.parametrize(
    "shapes",
    [
        {"mlp.gate_proj.weight": (48, 32), "mlp.up_proj.weight": (48, 32)},
        {"mlp.gate.weight": (64, 32)},  # a gate of values
        {"mlp.gate.weight": (48, 32), **{f"mlp.{name}": what for name, what in EXPERTS.items()}},
        {"conv.weight": (8, 4, 3), "linear.weight": (8, 32)},
        {"mlp.shared_experts.up_proj.weight": (8, 32), **{f"mlp.{k}": v for k, v in STACKED.items()}},
        {"experts.0.router_of_values.weight": (8, 32)},
    ],
)
def test_what_is_none_is_not_taken_for_one(shapes):
    assert routers(shapes) == set()


class Mixture(torch.nn.Module):
    """Four experts of three axes, of which two outputs are mixed."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(32, 4, bias=False)
        self.up, self.down = (torch.nn.Parameter(torch.randn(4, 64, 32)) for _ in range(2))

    def forward(self, x):
        chosen = self.gate(x).softmax(-1)
        hidden = torch.einsum("td,ehd->eth", x, self.up).relu()
        return torch.einsum("te,etd->td", chosen, torch.bmm(hidden, self.down))


class Blocks(torch.nn.Module):
    """Mixtures, one behind the other."""

    def __init__(self, count):
        super().__init__()
        self.layers = torch.nn.ModuleList(Mixture() for _ in range(count))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


X = torch.randn(5, 32)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_plan_says_that_a_router_is_quantized_and_how_to_keep_it(mode):
    plan = nx.plan(Blocks(3), "mxfp4", example=X, mode=mode)
    assert plan.parameters["layers.1.gate.weight"].reason == f"weights=, {ROUTER}"
    assert "3 routers are quantized (a rule 'layers.*.gate': none keeps them)" in str(plan)
    one = nx.plan(Blocks(1), "mxfp4", example=X, mode=mode)
    assert "1 router is quantized (a rule 'layers.0.gate': none keeps it)" in one.summary
    kept = nx.plan(Blocks(3), "mxfp4", rules={"layers.*.gate": None}, example=X, mode=mode)
    assert "router" not in str(kept)
    assert {row.format for row in kept.rows if "gate" in row.name} == {"-"}


def test_routers_of_several_names_have_a_rule_each():
    said = told_routers(
        [f"layers.{k}.{name}.weight" for k in range(2) for name in ("gate", "shared_expert_gate")]
    )
    assert said == (
        "4 routers are quantized (rules 'layers.*.gate', 'layers.*.shared_expert_gate': none keep them)"
    )
    assert told_routers([]) == ""


def test_transformers_is_warned_of_a_router_that_is_a_linear_layer():
    transformers = pytest.importorskip("transformers")
    from numerics.model.huggingface import NumericsConfig, choose

    config = transformers.SwitchTransformersConfig(
        vocab_size=64, d_model=32, d_ff=64, d_kv=8, num_heads=4, num_layers=2, num_decoder_layers=2,
        num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, decoder_start_token_id=0,
    )  # fmt: skip
    model = transformers.SwitchTransformersForConditionalGeneration(config)
    found = choose(model, NumericsConfig("mxfp4"))
    linear = {name for name in found.specs if "router" in name and found.specs[name] is not None}
    assert set(found.routers) == linear
    assert linear
    assert choose(model, NumericsConfig("mxfp4", rules={"*router.classifier": None})).routers == []


def test_whoever_names_a_router_in_a_rule_is_not_told():
    plan = nx.plan(Blocks(2), "mxfp4", rules={"*.gate": "int8"}, example=X)
    assert plan.parameters["layers.1.gate.weight"].reason == "rule *.gate"
    assert "router" not in str(plan)


def test_a_job_says_which_of_a_checkpoint_are_routers(tmp_path):
    nx.save(Blocks(2).state_dict(), tmp_path / "m.safetensors")
    source = Source(tmp_path / "m.safetensors")
    found = decide(source, Request(nx.QuantSpec("mxfp4")))
    assert found.reasons["layers.0.gate.weight"] == f"the format of all, {ROUTER}"
    assert "2 routers are quantized" in found.plan.summary
    found = decide(source, Request(nx.QuantSpec("mxfp4"), rules={"*.gate": None}))
    assert "router" not in str(found.plan)
