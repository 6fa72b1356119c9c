"""What is decided of each tensor: rules, plans, partners; and rules that do nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.checkpoints import Request, Source, decide, quantize
from numerics.checkpoints.deciding import planned, rules_of_texts
from numerics.files.checkpoint import quantize_file
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


# ---- which axis is summed -------------------------------------------------------------------------

JOINED = {"m.experts.gate_up_proj": (4, 64, 192), "m.experts.down_proj": (4, 96, 64)}


def _decided(folder, shapes, spec, config=None, **asked):
    folder.mkdir(exist_ok=True)
    nx.save({name: np.ones(shape, np.float32) for name, shape in shapes.items()},
            folder / "model.safetensors")  # fmt: skip
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return decide(Source(folder), Request(nx.QuantSpec(**spec), **asked))


@pytest.mark.parametrize(
    ("shapes", "config", "axis", "why"),
    [
        (JOINED, {"model_type": "gpt_oss"}, 1, "inputs first, as down_proj beside it says"),
        (JOINED, None, 1, "inputs first, as down_proj beside it says"),
        ({"m.experts.gate_up_proj": (4, 64, 64)}, {"model_type": "gpt_oss"}, 1, "inputs first in gpt_oss"),
        ({"m.experts.gate_up_proj": (4, 64, 64)},
         {"model_type": "llama4", "text_config": {"model_type": "llama4_text"}}, 1, "first in llama4"),
        ({"m.experts.gate_up_proj": (4, 64, 96), "m.experts.gate_up_proj_bias": (4, 96)}, None, 1,
         "as its bias of 96"),
        ({"h.0.attn.c_attn.weight": (64, 192)}, {"model_type": "gpt2"}, 0, "inputs first in gpt2"),
        ({"h.0.attn.c_proj.weight": (64, 64)}, {"model_type": "openai-gpt"}, 0, "inputs first in openai-gpt"),
        ({"h.0.mlp.c_fc.weight": (64, 256), "h.0.mlp.c_fc.bias": (256,)}, None, 0, "as its bias of 256 says"),
    ],
)  # fmt: skip
def test_blocks_ran_along_the_outputs_where_inputs_are_stored_first(tmp_path, shapes, config, axis, why):
    """`numerics quantize` of gpt-oss, Llama 4 and GPT-2 took the last axis, and said nothing."""
    name = next(iter(shapes))
    found = _decided(tmp_path / "m", shapes, {"dtype": "mxfp4"}, config)
    assert found.plans[name].axis == axis
    assert why in found.reasons[name]
    channels = _decided(tmp_path / "m", shapes, {"dtype": "int8", "scheme": "per_channel"}, config)
    *before, _, outputs = shapes[name]
    shared = channels.plans[name].spec.shared_shape(shapes[name])
    assert [n for n in shared if n > 1] == [*before, outputs]
    assert why in channels.reasons[name]
    told = _decided(tmp_path / "m", shapes, {"dtype": "mxfp4"}, config, free=False)
    assert told.plans[name].axis == len(shapes[name]) - 1
    assert "first" not in told.reasons[name]


@pytest.mark.parametrize(
    ("shapes", "config"),
    [
        ({"m.experts.gate_up_proj": (4, 192, 64), "m.experts.down_proj": (4, 64, 96)},
         {"model_type": "gpt_oss"}),
        ({"h.c_attn.weight": (96, 64), "h.c_attn.bias": (96,)}, {"model_type": "gpt_bigcode"}),
        ({"h.c_attn.weight": (96, 64)}, {"model_type": "gpt_bigcode"}),
        ({"a.weight": (64, 64), "a.bias": (64,)}, None),
        ({"a.weight": (64, 96), "b.bias": (96,)}, None),
    ],
)  # fmt: skip
def test_weights_with_outputs_first_keep_their_axis(tmp_path, shapes, config):
    found = _decided(tmp_path / "m", shapes, {"dtype": "mxfp4"}, config)
    assert {plan.axis for name, plan in found.plans.items() if "bias" not in name} == {
        len(shapes[next(iter(shapes))]) - 1
    }
    assert not any("first" in reason for reason in found.reasons.values())


def test_names_that_leave_the_axis_open_are_said(tmp_path):
    found = _decided(tmp_path / "m", {"m.experts.gate_up_proj": (4, 64, 96)}, {"dtype": "mxfp4"})
    assert "along the last axis, as if its inputs were that" in found.reasons["m.experts.gate_up_proj"]


@pytest.mark.parametrize("shape", [(32, 64, 3, 3), (16, 48, 3), (8, 32, 3, 3, 3), (32, 64, 1, 1)])
@pytest.mark.parametrize("tile", [(128, 128), (32, 32), (1, 128)])
def test_tiles_lay_over_the_kernels_of_convolutions(tmp_path, shape, tile):
    shapes, spec = (
        {"conv.weight": shape, "w": (64, 64)},
        {"dtype": "fp8_e4m3", "scheme": f"per_block({tile})"},
    )
    found = _decided(tmp_path / "m", shapes, spec)
    kernel = "x".join(map(str, shape[2:]))
    assert f"tiles of {tile[0]}x{tile[1]} would lie over its kernel, of {kernel}" in found.why["conv.weight"]
    assert list(found.plans) == ["w"]
    with pytest.raises(nx.NumericsError, match=r"'conv\.weight': tiles of .* would lie over its kernel"):
        _decided(tmp_path / "m", shapes, {"dtype": "int8"}, rules={"conv": nx.QuantSpec(**spec)})
    nx.save({"conv.weight": np.ones(shape, np.float32)}, tmp_path / "one")
    (report,) = quantize_file(tmp_path / "one", tmp_path / "q", **spec).tensors
    assert report.why == found.why["conv.weight"]


def test_a_plan_of_a_model_lays_no_tiles_over_kernels():
    model = torch.nn.Sequential(torch.nn.Conv2d(64, 32, 3), torch.nn.Conv2d(32, 32, 1))
    spec = nx.QuantSpec("fp8_e4m3", scheme="per_block((128, 128))")
    with pytest.raises(
        nx.NumericsError, match=r"has no effect: .*tiles of 128x128 would lie over its kernel"
    ):
        nx.plan(model, spec, example=torch.ones(1, 64, 8, 8))


# ---- what is no weight by its name ----------------------------------------------------------------

NAMED = {
    "m.experts.gate_up_proj": (8, 64, 96), "m.experts.gate_up_proj_bias": (8, 96), "norm.weight": (1, 64),
    "a.q_norm.weight": (4, 64), "h.ln_1.weight": (2, 64), "norms.0.weight": (2, 64), "pos.bias": (64, 64),
    "a.weight": (64, 64), "a.weight_scale": (64, 64), "relative_attention_bias.weight": (32, 32),
    "normal.weight": (64, 64), "norm1.linear.weight": (64, 64),
}  # fmt: skip
WEIGHTS = {"m.experts.gate_up_proj", "a.weight", "relative_attention_bias.weight", "normal.weight",
           "norm1.linear.weight"}  # fmt: skip


def test_biases_norms_and_scales_of_two_axes_were_quantized(tmp_path):
    found = _decided(tmp_path / "m", NAMED, {"dtype": "mxfp4"})
    assert found.plans.keys() == WEIGHTS
    assert found.why["m.experts.gate_up_proj_bias"] == "a bias by its name"
    assert found.why["norms.0.weight"] == found.why["norm.weight"] == "a norm's by its name"
    assert found.why["a.weight_scale"] == "a scale of a.weight by its name"


def test_a_rule_that_says_the_word_takes_them_and_a_wider_one_does_not(tmp_path):
    rules = {"re:.*experts.*": "mxfp8_e4m3", "*_bias": "int8", "norm": "int8", "a.weight_scale": "int8"}
    found = _decided(tmp_path / "m", NAMED, {"dtype": "mxfp4"}, rules=rules)
    assert found.plans.keys() - WEIGHTS == {"m.experts.gate_up_proj_bias", "norm.weight", "a.weight_scale"}
    assert found.plans["m.experts.gate_up_proj_bias"].dtype.name == "int8"
    assert not found.plans.keys() & found.why.keys()
    kept = {"*q_norm*": None, "*norm*": "int8"}
    found = _decided(tmp_path / "m", NAMED, {"dtype": "mxfp4"}, rules=kept)
    assert "norm.weight" in found.plans
    assert found.why["a.q_norm.weight"] == "rule '*q_norm*'"
    with pytest.raises(nx.NumericsError, match=r"'\*q_norm\*' matches .* without the rule \(a norm's by"):
        _decided(tmp_path / "m", NAMED, {"dtype": "mxfp4"}, rules={"*q_norm*": None, "re:a.*": "int8"})
    found = _decided(tmp_path / "m", NAMED, {"dtype": "int8"}, include=["pos.bias"])
    assert list(found.plans) == ["pos.bias"]


def test_a_plan_takes_them_too_and_none_that_cannot_be(tmp_path):
    made = _decided(tmp_path / "m", NAMED, {"dtype": "int8"}, rules={"*_bias": "int8"})
    again = decide(Source(tmp_path / "m"), planned(Request(), made.plan, Source(tmp_path / "m")))
    assert again.plans == made.plans
    nx.save({"w": np.ones((4, 64), np.float32), "g": np.ones(64, np.float32)}, tmp_path / "s.safetensors")
    source = Source(tmp_path / "s.safetensors")
    rows = [replace(row, spec=nx.QuantSpec("int8")) for row in decide(source, Request(NVFP4)).plan.rows]
    with pytest.raises(nx.NumericsError, match="the plan quantizes g, which stays as it is: fewer than two"):
        decide(source, planned(Request(), Plan(rows), source))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request(NVFP4, exclude=["*norm*"]), "fewer than two dimensions"),
        (Request(None, {"*.o_proj": "int8"}, exclude=["lm_head"]), "no rule names it"),
        (Request(NVFP4, {"lm_head": None}, exclude=["lm_head"]), "rule 'lm_head'"),
        (Request(NVFP4, include=["*.o_proj"], exclude=["lm_head"]), "not included"),
    ],
)  # fmt: skip
def test_exclude_of_what_stays_anyway_is_refused(source, request_, why):
    with pytest.raises(nx.NumericsError, match=f"matches only what stays as it is without it.*{why}"):
        decide(source, request_)


def test_exclude_of_what_would_be_refused_is_taken(source):
    rules = {"re:lm_head|.*o_proj": nx.QuantSpec("int8", scheme="per_group(1)")}
    with pytest.raises(nx.NumericsError, match=r"would take 40 bits a value.*exclude it"):
        decide(source, Request(NVFP4, {"lm_head": rules["re:lm_head|.*o_proj"]}))
    with pytest.raises(nx.NumericsError, match=r"would take 40 bits a value.*exclude it"):
        decide(source, Request(NVFP4, rules, exclude=["lm_head"]))
    assert decide(source, Request(NVFP4, exclude=["lm_head"])).why["lm_head.weight"] == "excluded"
