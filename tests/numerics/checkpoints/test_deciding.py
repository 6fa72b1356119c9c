"""What is decided of each tensor: rules, plans, partners; and rules that do nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.checkpoints import Request, Source, decide, quantize
from numerics.checkpoints.deciding import planned, rules_of_texts
from numerics.model.deciding.plan import Plan
from tests.helpers.shards import tensors_of, write_shards

NVFP4 = nx.QuantSpec("nvfp4")


@pytest.fixture
def source(tmp_path):
    return Source(write_shards(tmp_path / "model", tensors_of(), 5))


def test_the_first_rule_that_matches_holds(source):
    rules = [("lm_head", None), ("re:.*self_attn.*", "mxfp4"), ("*.q_proj", "int8"), ("*.mlp.*", "mx9")]
    with pytest.raises(nx.NumericsError, match=r"comes after 're:.*self_attn.*'"):
        decide(source, Request(nx.QuantSpec("int4"), rules))
    found = decide(source, Request(nx.QuantSpec("int4"), [rules[0], rules[2], rules[1], rules[3]]))
    formats = {name: plan.dtype.name for name, plan in found.plans.items()}
    assert formats["model.layers.1.self_attn.q_proj.weight"] == "int8"
    assert formats["model.layers.1.self_attn.k_proj.weight"] == "mxfp4"
    assert formats["model.layers.0.mlp.up_proj.weight"] == "mx9"
    assert formats["model.embed_tokens.weight"] == "int4"
    assert found.why["lm_head.weight"] == "rule 'lm_head'"
    assert found.why["model.layers.0.input_layernorm.weight"] == "fewer than two dimensions"
    assert found.plans.keys() | found.why.keys() == source.entries.keys()
    assert all(row.reason for row in found.plan.rows)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(NVFP4, {"nothing*": "int4"}), "'nothing\\*' matches no name"),
        (Request(NVFP4, {"*layernorm*": "int4"}), "rules without effect: .*layernorm"),
        (
            Request(NVFP4, {"*layernorm*": None}),
            r"matches .*layernorm.*without the rule \(fewer than two dim",
        ),
        (Request(NVFP4, include=["x"]), "include='x' matches no tensor"),
        (Request(NVFP4, exclude=["*"]), "nothing of .* would be quantized"),
        (Request(NVFP4, {"re:.*": "int4"}), "nvfp4 is the format of all .* since the rules speak of every"),
        (Request(None, {"lm_head": None}), "nothing of .* would be quantized"),
        (Request(NVFP4, {"lm_head": {"activations": "int8"}}), "says nothing of weights"),
        (Request(nx.QuantSpec("int4", scheme="per_channel(2)")), "tensor '.*': axis 2 does not exist"),
    ],
)
def test_what_has_no_effect_is_refused(source, request_, said):
    with pytest.raises(nx.NumericsError, match=said):
        decide(source, request_)


def test_only_rules_leave_the_rest(source):
    found = decide(source, Request(None, {"*.o_proj": "int8"}))
    assert sorted(found.plans) == [f"model.layers.{k}.self_attn.o_proj.weight" for k in (0, 1)]
    assert found.why["lm_head.weight"] == "no rule names it"


def test_partners_share_a_tensor_scale_in_whichever_shards_they_are(source):
    found = decide(source, Request(NVFP4))
    for layer in (0, 1):
        attention = tuple(f"model.layers.{layer}.self_attn.{k}_proj.weight" for k in "qkv")
        gated = tuple(f"model.layers.{layer}.mlp.{k}_proj.weight" for k in ("gate", "up"))
        for names in (attention, gated):
            assert len({source.shard_of[name].name for name in names}) > 1
            assert all(set(found.fused[name]) == set(names) for name in names)
    assert len(found.fused) == 10
    assert "shares its tensor scale with k_proj, v_proj" in found.reasons[
        "model.layers.0.self_attn.q_proj.weight"]  # fmt: skip


def test_formats_without_a_tensor_scale_share_none(source):
    assert decide(source, Request(nx.QuantSpec("mxfp4"))).fused == {}


def test_partners_of_different_formats_share_none(source):
    found = decide(source, Request(NVFP4, {"*.q_proj": "int8"}))
    assert set(found.fused["model.layers.0.self_attn.k_proj.weight"]) == {
        f"model.layers.0.self_attn.{k}_proj.weight" for k in "kv"
    }


def test_a_plan_that_is_saved_decides_the_same(source, tmp_path):
    first = decide(source, Request(nx.QuantSpec("int4", scheme="per_group(32)"), {"lm_head": None}))
    for name in ("plan.toml", "plan.json"):
        first.plan.save(tmp_path / name)
        again = decide(source, planned(Request(), Plan.load(tmp_path / name), source))
        assert again.plans == first.plans
        assert again.why.keys() == first.why.keys()
    other = Source(write_shards(tmp_path / "other", {"w": np.ones((4, 64), np.float32)}, 1))
    with pytest.raises(nx.NumericsError, match="the plan is of another checkpoint"):
        planned(Request(), first.plan, other)


def test_what_is_of_the_format_already_is_left(tmp_path):
    nx.save(
        {"a": np.ones((4, 64), np.float16), "b": np.ones((4, 64), np.float32)}, tmp_path / "m.safetensors"
    )
    found = decide(Source(tmp_path / "m.safetensors"), Request(nx.QuantSpec("float16")))
    assert found.why["a"] == "the format of all: it is float16 already"
    assert list(found.plans) == ["b"]


def test_rules_as_texts():
    usual, rules = rules_of_texts(
        ["lm_head=none", "int4", "re:a(?=b)=c.*=mxfp4", "*.o=int8:per_group(32, axis=0)",
         'x={"dtype": "int4", "symmetric": false}']
    )  # fmt: skip
    assert usual == "int4"
    assert rules == [
        ("lm_head", None), ("re:a(?=b)=c.*", nx.QuantSpec("mxfp4")),
        ("*.o", nx.QuantSpec("int8", scheme="per_group(32, axis=0)")),
        ("x", nx.QuantSpec("int4", symmetric=False)),
    ]  # fmt: skip
    with pytest.raises(nx.NumericsError, match="'int4' and 'int8' are each the format of all"):
        rules_of_texts(["int4", "int8"])
    with pytest.raises(nx.NumericsError, match="unknown format 'mxfp5'; there is none of 5 bits"):
        rules_of_texts(["lm_head=mxfp5"])


def test_plans_and_reports_say_which_groups_are_shorter_than_asked(tmp_path):
    """Groups of 128 were groups of 48 where rows had no more, in silence."""
    rows = {"a.weight": 48, "b.weight": 200, "c.weight": 256}
    tensors = {name: np.ones((8, n), np.float32) for name, n in rows.items()}
    nx.save(tensors, tmp_path / "m.safetensors")
    source = Source(tmp_path / "m.safetensors")
    due = {"a.weight": "groups of 48", "b.weight": "last groups of 72", "c.weight": ""}
    found = decide(source, Request(nx.QuantSpec("int4", scheme="per_group(128)")))
    assert {row.name: row.short for row in found.plan.rows} == due
    assert "2 with groups or blocks shorter than asked, such as a.weight: groups of 48" in found.plan.summary
    table = found.plan.table(full=True)
    assert "the format of all; groups of 48" in table
    assert "the format of all; last groups of 72" in table
    told = quantize(source, tmp_path / "q.safetensors", Request(nx.QuantSpec("mxfp4")))
    assert [tensor.short for tensor in told.tensors] == ["last blocks of 16", "last blocks of 8", None]


def test_a_plan_of_a_model_says_so_of_weights_and_activations():
    model = torch.nn.Sequential(torch.nn.Linear(48, 64), torch.nn.Linear(64, 32))
    plan = nx.plan(model, nx.QuantSpec("int4", scheme="per_group(128)"), "mxfp4", example=torch.ones(1, 48))
    said = {row.name: row.short for row in plan.rows if row.spec}
    assert said["0.weight"] == "groups of 48"
    assert [short for name, short in said.items() if not name.endswith("weight")] == ["last blocks of 16", ""]
    assert "groups of 48" in plan._repr_html_()


def test_a_plan_that_names_a_tensor_which_is_not_there_was_followed_without_it(source):
    first = decide(source, Request(nx.QuantSpec("mxfp4")))
    rows = [replace(row, name=row.name.replace("layers.1.", "layers.9.")) for row in first.plan.rows]
    with pytest.raises(nx.NumericsError, match=r"has no model\.layers\.9\.\S+, nor \d+ more that it names"):
        planned(Request(), Plan(rows), source)


def test_the_reason_says_why_groups_lie_along_another_axis(tmp_path):
    shapes = {"w": (16, 3), "long": (64, 128, 4), "conv.weight": (64, 64, 3, 3)}
    nx.save({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "m.safetensors")
    found = decide(Source(tmp_path / "m.safetensors"), Request(nx.QuantSpec("int4", scheme="per_group(16)")))
    assert {name: reason.split("; ")[1] for name, reason in found.reasons.items()} == {
        "w": "along axis 0, since the last one has 3 of 16",
        "long": "along axis 1, the longest of the inputs",
        "conv.weight": "along axis 1, the inputs, and never the kernel",
    }
    asked = Request(nx.QuantSpec("int4", scheme="per_group(16, axis=0)"), free=False)
    told = decide(Source(tmp_path / "m.safetensors"), asked).reasons["w"]
    assert "along axis 0" in told
    assert "since" not in told
