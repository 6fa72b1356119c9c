"""Plans: every parameter, buffer and computed tensor of a model, with its format and the reason."""

from __future__ import annotations

import json
import re
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import numerics as nx
from numerics.checkpoints import Source, decide
from numerics.checkpoints.deciding import Request
from numerics.model.looking.trace import Site
from numerics.view.screen import Screen
from numerics.view.table import clauses
from numerics.view.text import cells
from tests.helpers.models import FUSED, MODELS, model, row_of


@pytest.mark.parametrize("name", MODELS)
def test_a_parameter_or_buffer_has_no_row_or_no_reason(name):
    m, x = model(name)
    plan = nx.plan(m, "mxfp4", "mxfp8_e4m3", example=x)
    names = {n for r in plan.rows if r.kind in ("parameter", "buffer") for n in r.names}
    assert names == {n for n, _ in [*m.named_parameters(remove_duplicate=False), *m.named_buffers()]}
    assert all(r.reason and not r.reason.startswith("undecided") for r in plan.rows)


@pytest.mark.parametrize(
    ("name", "parameter", "axis"),
    [
        ("linear", "0.weight", -1),
        ("experts_bmm", "up", 1),
        ("experts_einsum", "up", 1),
        ("experts_index", "up", 1),
        ("experts_index", "down", 1),
        ("bare", "w", 0),
        ("bare", "v", 0),
        ("bare", "u", -1),
        ("state_space", "b", 0),
        ("state_space", "c", 0),
        ("conv_transposed", "0.weight", 0),
        ("reflect", "0.weight", 1),
        ("lstm", "r.weight_ih_l0", -1),
        ("convnext", "stem.weight", 2),
        ("conv_batch_norm", "c2.weight", 1),
    ],
)
def test_blocks_lie_along_another_axis_than_the_one_that_is_summed(name, parameter, axis):
    m, x = model(name)
    assert row_of(nx.plan(m, "mxfp4", example=x), parameter).spec.axis == axis


def test_an_axis_that_was_asked_for_is_not_kept():
    m, x = model("reflect")
    assert row_of(nx.plan(m, nx.QuantSpec("mx9", axis=0), example=x), "0.weight").spec.axis == 0


@pytest.mark.parametrize(
    ("shape", "axis", "weight"),
    [
        ((64, 32), 0, lambda w: w.t().contiguous()),
        ((64, 32), 0, lambda w: w.t().clone().float()),
        ((64, 32), 0, lambda w: w.t().reshape(2, 16, 64).flatten(0, 1)),
        ((64, 32), 0, lambda w: w.t()[torch.arange(8)]),
        ((64, 64), -1, lambda w: torch.stack([w, w], 1)[:, 0]),
        ((64, 64), 0, lambda w: torch.cat([w, w], 1).t().contiguous()),
    ],
)
def test_a_copy_of_a_view_has_the_axes_of_another_order(shape, axis, weight):
    class Copied(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(*shape))

        def forward(self, x):
            return nn.functional.linear(x, weight(self.w))

    for mode in ("eager_mode", "fx_graph_mode"):
        plan = nx.plan(Copied(), "mxfp4", example=torch.ones(2, 64), mode=mode)
        assert row_of(plan, "w").spec.axis == axis


def test_a_tie_is_two_rows():
    m, x = model("encoder_decoder")
    plan = nx.plan(m, "mxfp4", rules={nn.Embedding: "int8"}, example=x)
    assert row_of(plan, "lm_head.weight").names == ("words.weight", "lm_head.weight")


def test_a_rule_for_a_module_takes_its_bias():
    m, x = model("linear")
    plan = nx.plan(m, rules={"0": "mxfp6_e2m3"}, example=x)
    assert row_of(plan, "0.weight").spec.dtype is nx.mxfp6_e2m3
    assert row_of(plan, "0.bias").spec is None


def test_a_tied_head_of_another_name_is_quantized():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out, self.inner = nn.Embedding(40, 32), nn.Linear(32, 40), nn.Linear(32, 32)
            self.out.weight = self.words.weight

        def forward(self, ids):
            return self.out(self.inner(self.words(ids)))

    ids = torch.arange(4)
    plan = nx.plan(Tied(), "int8", example=ids)
    assert (row_of(plan, "words.weight").format, row_of(plan, "inner.weight").format) == ("-", "int8")
    assert row_of(plan, "words.weight").reason.startswith("the head")
    assert row_of(nx.plan(Tied(), "int8", rules={"out": "int4"}, example=ids), "out.weight").format == "int4"


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_part_of_a_normed_weight_is_quantized():
    m = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(32, 32)), nn.Linear(32, 32))
    for mode in ("eager_mode", "fx_graph_mode"):
        plan = nx.plan(m, "int4", example=torch.ones(1, 32), mode=mode)
        assert list(plan.parameters) == ["1.weight"]
        assert "remove_weight_norm" in row_of(plan, "0.weight_g").reason


def test_arithmetic_with_a_parameter_is_not_told():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.layer = nn.Parameter(torch.randn(32, 32)), nn.Linear(32, 32)

        def forward(self, x):
            return self.layer(x) + (x[:, None] * self.w).sum(-1)

    plan = nx.plan(Added(), "int8", example=torch.ones(2, 32))
    assert "1 of two dimensions and more no product takes as they are, such as w" in plan.summary


def test_a_plain_tensor_stays_in_float_without_a_word():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.ws = torch.randn(32, 32), [nn.Parameter(torch.randn(32, 32))]
            self.layer = nn.Linear(32, 32)

        def forward(self, x):
            return self.layer(x @ self.w @ self.ws[0])

    with (
        pytest.warns(
            nx.NumericsWarning, match="^ws stay as they are: a parameter that the model does not have"
        ),
        pytest.warns(nx.NumericsWarning, match="^w stay as they are.*Parameter or a buffer"),
    ):
        plan = nx.plan(Plain(), "int8", example=torch.ones(2, 32))
    assert [r.name for r in plan.rows if r.kind == "module"] == ["w", "ws"]


def test_the_steps_of_a_scan_fill_screens():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(32, 32))

        def forward(self, x):
            for _ in range(50):
                x = x @ self.w
            return x

    plan = nx.plan(Steps(), "int8", "int8", example=torch.ones(2, 32))
    assert "model:matmul#{1-49}[0]" in str(plan)
    assert len(str(plan).splitlines()) < 8


def test_a_rule_takes_the_bias_of_a_norm_for_a_weight():
    m = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32))
    plan = nx.plan(m, rules={"*": "bfloat16"}, example=torch.ones(1, 32))
    assert [r.format for r in plan.rows if r.kind == "parameter"] == ["bfloat16", "-", "bfloat16", "-"]


def test_biases_and_outputs_are_not_planned():
    m, x = model("linear")
    plan = nx.plan(m, "int8", outputs="int8", biases=nx.QuantSpec("int8", scale_type="pof2"), example=x)
    assert row_of(plan, "2.bias").spec.dtype is nx.int8
    assert Site("2", "linear", 0, -1) in plan.sites


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"nothing": "int8"}, "matches no name"),
        ({"0": "int8", "0.weight": "int4"}, "comes after '0'"),
        ({"0": "int8", "0.weight": None}, "comes after '0', which takes the weights of 0.weight.*first"),
        ({"*.bias": "int8"}, "has no weights"),
        ({"1": "int8"}, "has no weights"),
        ({nn.Conv2d: "int8"}, "Conv2d"),
        ({"re:(": "int8"}, "regular expression"),
        ({"0": {"weight": "int8"}}, "weight"),
        ({"0": {}}, "says nothing"),
        ({3: "int8"}, "no place"),
        ({"0": "int9"}, "int9"),
        ({"0.bias": {"weights": "int8"}}, "has no weights"),
        ([("0",)], "pair"),
        ({"0": {"weights": "int8", "observer": "mse"}}, "observer= finds the scales of activations"),
        ({"0": {"observer": "mse"}}, "observer= finds the scales of activations"),
        ({"0": {"weights": "int8", "biases": "int8"}, "1": None}, "has no weights or activations"),
    ],
)
def test_a_rule_without_effect_or_meaning_is_taken_in_silence(rules, said):
    m, x = model("linear")
    with pytest.raises(nx.NumericsError, match=said):
        nx.plan(m, "mxfp4", rules=rules, example=x)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"norm": None}, r"'norm' keeps norm.weight, which stays as it is without the rule \(a norm\)"),
        ({nn.LayerNorm: {"weights": None}}, "LayerNorm.*a norm"),
        ({"lm_head": None}, r"lm_head.* keeps words.weight.*the head"),
        ({"decoder.q:*": {"activations": None}}, r"keeps decoder.q:linear\[0\].*activations=None"),
        ({"words": {"weights": "int8", "activations": "int8"}}, "gives activations a format, and takes no"),
    ],
)
def test_a_rule_that_changes_nothing_is_taken_in_silence(rules, said):
    """rules={"norm": None} was accepted, as if norms were quantized without it."""
    m, x = model("encoder_decoder")
    with pytest.raises(nx.NumericsError, match=f"rules without effect: .*{said}.*leave them out"):
        nx.plan(m, "mxfp4", rules=rules, example=x)


def test_a_rule_that_keeps_what_another_would_take_is_refused():
    m, x = model("encoder_decoder")
    plan = nx.plan(m, "mxfp4", rules={"norm": None, "*": "int8"}, example=x)
    assert (row_of(plan, "norm.weight").format, row_of(plan, "words.weight").format) == ("-", "int8")
    asked = {"encoder.q": None, "cross.q:*": {"activations": None}}
    idle = nn.Sequential(nn.Linear(32, 8))
    idle.other = nn.Linear(32, 8)
    idle.forward = lambda x: idle[0](x)
    plan = nx.plan(idle, "int8", rules={"other": None}, example=torch.ones(1, 32))
    assert row_of(plan, "other.weight").reason == "rule other"  # which was undecided, with a warning
    plan = nx.plan(m, "mxfp4", "mxfp8_e4m3", rules=asked, example=x)
    assert {"encoder.q.weight", "cross.q:linear[0]"} <= {r.name for r in plan.rows if "rule" in r.reason}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": "int8", "observer": "min_max"}, "nothing to observe"),
        ({"weights": "int8", "activations": "mxfp4", "observer": "min_max"}, "nothing to observe"),
        ({"weights": "int8", "observer": "min_mix"}, "min_max"),
        ({"weights": "int8", "mode": "eager"}, "eager_mode"),
        ({"weights": "int8", "device": "NPU"}, "IPU"),
        ({"weights": "mxfp4", "device": "IPU"}, "pof2"),
        ({"weights": "int8", "fold": True}, "no batch normalization"),
        ({"weights": nx.QuantSpec("int8", rounding="stochastic")}, "stochastic"),
    ],
)
def test_an_option_without_effect_is_taken_in_silence(options, said):
    m, x = model("linear")
    with pytest.raises(nx.NumericsError, match=said):
        nx.plan(m, example=x, **options)


def test_the_formats_of_the_ipu_are_refused_on_it():
    m, x = model("linear")
    spec = nx.QuantSpec("int8", scale_type="pof2")
    assert nx.plan(m, spec, spec, example=x, device="IPU").device == "IPU"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_a_weight_is_planned_as_if_it_were_a_number(bad):
    """Only wrapping and freezing said it."""
    m, x = model("linear")
    m[2].weight.data[0, 0] = bad
    with pytest.raises(nx.NumericsError, match=r"2\.weight has NaN or Inf \(1 of 192 .*'2.weight': None"):
        nx.plan(m, "int8", example=x)
    assert row_of(nx.plan(m, "int8", rules={"2": None}, example=x), "2.weight").format == "-"


@pytest.mark.parametrize("layer", [lambda: nn.Conv2d(4, 4, 3, padding=1), lambda: nn.Linear(8, 8)])
def test_planning_keeps_what_the_model_lets_go(layer):
    """The outputs of all convolutions lay in memory until the last."""
    seen, alive = [], []
    m = nn.Sequential(*[layer() for _ in range(6)])

    def count(module, args, out):
        seen.append(weakref.ref(out))
        alive.append(sum(one() is not None for one in seen))

    for one in m:
        one.register_forward_hook(count)
    nx.plan(m, "int8", example=torch.randn(2, 4, 8, 8))
    assert len(alive) == 6
    assert max(alive) <= 2


def test_a_convolution_takes_in_the_normalization_of_another_that_lies_where_its_output_lay():
    norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(4)]
    convs = [nn.Conv2d(4, 4, 1) for _ in range(12)]
    m = nn.Sequential(*convs[:6], norms[0], *convs[6:], nn.ReLU(), norms[1]).eval()
    plan = nx.plan(m, nx.QuantSpec("int8"), example=torch.randn(2, 4, 8, 8), fold=True)
    assert plan.fold == {"6": "5"}


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 32))

    def forward(self, x):
        return torch.nn.functional.cosine_similarity(x[:, None], self.w, dim=-1)


def test_an_operation_nobody_knows_leaves_a_parameter_in_float_without_a_word():
    x = torch.randn(5, 32)
    with pytest.raises(nx.NumericsError, match=r"cosine_similarity takes w of shape \(6, 32\)"):
        nx.plan(Unknown(), "mxfp4", example=x)
    assert row_of(nx.plan(Unknown(), "mxfp4", rules={"w": "mx9"}, example=x), "w").spec.dtype is nx.mx9


def test_what_grows_is_quantized():
    m = nn.Sequential(nn.Linear(2, 8))
    with pytest.raises(nx.NumericsError, match="would grow"):
        nx.plan(m.half(), nx.QuantSpec("int8", scheme="per_group(1)"), example=torch.ones(1, 2).half())


def test_fused_functions_hide_their_products():
    m, x = FUSED["multihead"]().eval(), torch.randn(2, 6, 32)
    plan = nx.plan(m, "int8", "int8", example=x)
    assert row_of(plan, "self_attn.in_proj_weight").spec
    assert row_of(plan, "self_attn.out_proj.weight").spec
    hidden = [str(site) for site, r in plan.sites.items() if r.graph]
    assert hidden == ["self_attn:linear[0]", "self_attn:linear#1[0]"]
    with pytest.raises(
        nx.NumericsError, match=r"self_attn:linear\[0\].*fx_graph_mode|fx_graph_mode.*self_attn"
    ):
        nx.wrap(m, plan)
    assert nx.wrap(m, nx.plan(m, "int8", "int8", example=x, mode="fx_graph_mode"))(x).shape == x.shape


def test_a_model_without_an_example_loses_parameters_in_silence():
    m, _ = model("experts_bmm")
    with pytest.warns(nx.NumericsWarning, match="up, down"):
        plan = nx.plan(m, "mxfp4")
    assert "2 undecided" in plan.summary
    with pytest.raises(nx.NumericsError, match="example="):
        nx.plan(m, "mxfp4", "mxfp8_e4m3")


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_plan_is_another_after_its_file(tmp_path, suffix):
    m, x = model("conv_batch_norm")
    plan = nx.plan(m, "int4", "int8", observer="mse", rules={"f": None}, example=x, fold=True)
    path = tmp_path / f"plan.{suffix}"
    plan.save(path)
    again = nx.Plan.load(path)
    assert (again.rows, again.mode, again.device, again.fold) == (
        plan.rows,
        plan.mode,
        plan.device,
        plan.fold,
    )
    nx.wrap(m, again)
    with pytest.raises(nx.NumericsError, match="another model"):
        nx.wrap(model("linear")[0], again)


SPECS = {
    "mxfp4": '{dtype = "mxfp4", axis = -1}',
    "int4": '{dtype = "int4", scheme = "per_group(32, axis=-1)", symmetric = false}',
    "codebook": "{dtype = {",
    "block": None,  # it says null, which TOML has not
}


def spec_named(name):
    if name == "int4":
        return nx.QuantSpec("int4", scheme=nx.per_group(32), symmetric=False)
    if name == "codebook":
        return nx.QuantSpec(nx.codebook_format([-1.0, 0.0, 0.5, 1.0]))
    return nx.QuantSpec(
        nx.mxfp4 if name == "mxfp4" else nx.block_format(block=16, element="fp4_e2m1", scale="e8m0")
    )


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_was_a_text_in_a_text(name, tmp_path):
    m = nn.Sequential(nn.Linear(64, 64))
    plan = nx.plan(m, spec_named(name), example=torch.ones(1, 64))
    plan.save(tmp_path / "plan.toml")
    text = (tmp_path / "plan.toml").read_text(encoding="utf-8")
    assert ("\\" in text) is (SPECS[name] is None)
    assert SPECS[name] is None or f"spec = {SPECS[name]}" in text
    again = nx.Plan.load(tmp_path / "plan.toml")
    assert again.rows == plan.rows
    (row,) = (row for row in plan.as_dict()["rows"] if "spec" in row)
    escaped = re.sub(r"^spec = .*$", lambda _: f"spec = {json.dumps(row['spec'])}", text, flags=re.M)
    (tmp_path / "text.toml").write_text(escaped, encoding="utf-8")
    assert nx.Plan.load(tmp_path / "text.toml").rows == plan.rows


@pytest.mark.parametrize(
    "spec", ['{dtype = "int99"}', "{}", "{dtype = 1979-05-27}", '{dtype = "int4", no = 1}', "[1]"]
)
def test_a_table_that_is_no_spec_is_one(spec, tmp_path):
    nx.plan(nn.Sequential(nn.Linear(64, 64)), "mxfp4", example=torch.ones(1, 64)).save(tmp_path / "plan.toml")
    text = (tmp_path / "plan.toml").read_text(encoding="utf-8")
    (tmp_path / "plan.toml").write_text(re.sub(r"(?m)^spec = .*$", f"spec = {spec}", text), encoding="utf-8")
    with pytest.raises(nx.NumericsError, match=r"rows\[\d\]\.spec"):
        nx.Plan.load(tmp_path / "plan.toml")


def _small():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("formats", [("mxfp4",), ("mxfp4", "mxfp8_e4m3")])
def test_a_plan_of_a_smaller_model_left_the_rest_of_a_larger_one_in_floats(tmp_path, mode, formats):
    """Nothing said so: neither a warning, nor a row in a report."""
    x = torch.ones(2, 64)
    plan = nx.plan(_small(), *formats, example=x, mode=mode)
    path = tmp_path / "m.safetensors"
    nx.save(nx.freeze(nx.wrap(_small(), plan)).state_dict(), path)
    plan.save(tmp_path / "plan.toml")
    more = {
        "3.weight": nn.Linear(8, 64),
        "3.running_mean": nn.BatchNorm1d(8, affine=False),
        "3.weight, 3.bias": nn.LayerNorm(8),
    }
    for name, layer in more.items():
        larger = nn.Sequential(*_small(), layer)
        for made in (plan, nx.Plan.load(tmp_path / "plan.toml")):
            with pytest.raises(nx.NumericsError, match=f"of another model: {name}"):
                nx.wrap(larger, made, example=x)
        before = larger.state_dict()
        with pytest.raises(nx.NumericsError, match=r"3\."):
            nx.load_into(larger, path, example=x)
        assert all(torch.equal(larger.state_dict()[k], v) for k, v in before.items())


def test_a_plan_is_of_its_model_whatever_that_keeps_unsaved_and_ties():
    """A cache that a forward makes is none of a plan's tensors; a tie has a row by one of its names."""
    m = _small()
    plan = nx.plan(m, "mxfp4", example=torch.ones(2, 64))
    m.register_buffer("cache", torch.ones(4), persistent=False)
    m.register_buffer("count", torch.ones(1, dtype=torch.long))
    m[1].tied = m[0].weight
    assert nx.freeze(nx.wrap(m, plan))[0].weight.spec == nx.QuantSpec("mxfp4")


def test_a_page_shows_names_as_markup(tmp_path):
    m = nn.ModuleDict({"<b>": nn.Linear(32, 8)})
    m.forward = lambda x: m["<b>"](x)
    nx.plan(m, "int8", example=torch.ones(1, 32)).save(tmp_path / "p.html")
    assert "&lt;b&gt;.weight" in (tmp_path / "p.html").read_text(encoding="utf-8")
    with pytest.raises(nx.NumericsError, match=r"\.toml"):
        nx.plan(m, "int8", example=torch.ones(1, 32)).save(tmp_path / "p.yaml")


@pytest.mark.parametrize("text", ["", "format = 3", '{"format": "numerics plan 1"}', "[[", '{"format": []}'])
@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_file_that_is_no_plan_is_one(tmp_path, text, suffix):
    path = tmp_path / f"plan.{suffix}"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(nx.NumericsError):
        nx.Plan.load(path)


def test_equal_layers_fill_screens():
    m = nn.Sequential(*[nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32)) for _ in range(12)])
    plan = nx.plan(m, "mxfp4", example=torch.ones(1, 32))
    assert "{0-11}.0.weight" in str(plan)
    assert len(str(plan).splitlines()) < 10 < len(plan.table(full=True).splitlines())


def test_looking_at_a_model_changes_it():
    m, x = model("conv_batch_norm")
    m.train()
    m.c1.eval()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    state = torch.random.get_rng_state()
    nx.plan(m, "int8", "int8", example=x)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert m.training
    assert not m.c1.training
    assert not m._forward_hooks
    assert not m.c1._forward_pre_hooks
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


def test_a_module_that_never_ran_is_not_told():
    m = nn.Sequential(nn.Linear(32, 8))
    m.idle = nn.Linear(32, 8)
    m.forward = lambda x: m[0](x)
    with pytest.warns(nx.NumericsWarning, match=r"idle\.weight"):
        plan = nx.plan(m, "int8", example=torch.ones(1, 32))
    assert row_of(plan, "idle").reason == "never called"
    with pytest.raises(nx.NumericsError, match="never used"):
        nx.plan(m, "int8", rules={"idle": "int4"}, example=torch.ones(1, 32))


def test_an_example_that_does_not_fit_is_told_in_torchs_words_alone():
    m, _ = model("linear")
    for x in (torch.ones(1, 31), torch.ones(1, 32, device="meta"), torch.ones(1, 32, dtype=torch.float64)):
        with pytest.raises(nx.NumericsError, match=r"does not run on the example: .* in or after 0: "):
            nx.plan(m, "int8", example=x)
    lazy = nn.Sequential(nn.LazyLinear(8))
    with pytest.raises(nx.NumericsError, match=r"0\.weight, 0\.bias have no shape yet"):
        nx.plan(lazy, "int8", example=torch.ones(1, 32))


class Merged(nn.Module):
    """A weight with an update of low rank, which two parameters make."""

    def __init__(self):
        super().__init__()
        self.u, self.v, self.base = (nn.Parameter(torch.randn(*n)) for n in ((32, 4), (4, 48), (32, 48)))

    def forward(self, x):
        return x @ (self.u @ self.v * 0.5 + self.base)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_weight_that_products_of_parameters_change_stays_in_float(mode):
    m, x = Merged(), torch.randn(3, 32)
    made = nx.plan(m, "mxfp4", "mxfp8_e4m3", outputs="bfloat16", example=x, mode=mode)
    assert row_of(made, "base").format == "mxfp4 axis=0"
    assert row_of(made, "model:matmul#1[0]").spec is not None
    assert "model:matmul[out]" not in {one.name for one in made.rows}  # of parameters alone
    q = {n: nx.fake_quantize(p.detach(), made.parameters[n].spec) for n, p in m.named_parameters()}
    due = nx.fake_quantize(x, "mxfp8_e4m3") @ (q["u"] @ q["v"] * 0.5 + q["base"])
    assert torch.equal(nx.wrap(m, made)(x), nx.fake_quantize(due, "bfloat16"))


def test_layers_of_parameters_are_taken_for_weights():
    """Queries that a model learns go through layers: what comes out is computed, and quantized."""

    class Queries(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries, self.q, self.o = (
                nn.Parameter(torch.randn(4, 32)),
                nn.Linear(32, 32),
                nn.Linear(32, 8),
            )

        def forward(self, x):
            return self.o(self.q(self.queries)) @ x

    made = nx.plan(Queries(), "int8", "int8", example=torch.randn(8, 3))
    assert row_of(made, "o:linear[0]").spec is not None


def test_parametrizations_are_unknown_to_a_graph():
    m = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(32, 8)), nn.Linear(8, 8))
    for mode in ("eager_mode", "fx_graph_mode"):
        made = nx.plan(m, "int8", example=torch.ones(2, 32), mode=mode)
        assert row_of(made, "0.parametrizations.weight.original1").reason.startswith("a part of a param")


def test_modules_in_lists_of_pythons_stay_in_float_without_a_word():
    class Hides(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.beside, self.also = nn.Linear(32, 32), [nn.Linear(32, 32)], {}
            self.also["l"] = self.layer  # which the model has

        def forward(self, x):
            return torch.nn.functional.linear(self.beside[0](self.also["l"](x)), AFAR)

    with pytest.warns(nx.NumericsWarning, match="beside, what model.* stay as they are: a parameter that"):
        made = nx.plan(Hides(), "int8", example=torch.ones(2, 32))
    assert [one.name for one in made.rows if one.kind == "module"] == [
        "beside",
        "what model:linear#1[1] takes",
    ]
    with pytest.warns(nx.NumericsWarning, match="beside stay as they are"):
        nx.plan(Hides(), "int8")


AFAR = nn.Parameter(torch.randn(4, 32))


def test_a_buffer_that_is_a_weight_is_one_of_many():
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(32, 32)
            self.register_buffer("w", torch.randn(32, 8))

        def forward(self, x):
            return self.layer(x) @ self.w

    made = nx.plan(Buffered(), "int8", example=torch.ones(2, 32))
    assert row_of(made, "w").reason == "a buffer, which products take as it is: a Parameter is planned"
    assert "the buffer w is multiplied as it is" in made.summary


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_function_hides_a_weight():
    scripted = torch.jit.script(_product)

    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.layer = nn.Parameter(torch.randn(8, 32)), nn.Linear(32, 32)

        def forward(self, x):
            return scripted(self.layer(x), self.w)

    made = nx.plan(Calls(), "int8", "int8", example=torch.ones(2, 32))
    assert row_of(made, "w").spec is not None
    with pytest.raises(nx.NumericsError, match=r"only mode='fx_graph_mode' reaches model:linear\[0\]"):
        nx.wrap(Calls(), made)


def _product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, w)


def test_a_test_of_a_rule_fails_in_pythons_words():
    with pytest.raises(nx.NumericsError, match="fails on 'the model', a Linear: ZeroDivisionError"):
        nx.plan(nn.Linear(32, 4), "int8", rules={lambda name, module: 1 / 0: None}, example=torch.ones(1, 32))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d["rows"][-1]["site"].__setitem__(1, "nope"), "whose name is 2:nope"),
        (
            lambda d: d["rows"][-1].update(site=["2", "linear", 0, 9], name="2:linear[9]"),
            r"of another model: 2:linear\[9\]",
        ),
        (lambda d: d["rows"].append(d["rows"][0]), "0.weight has two rows"),
        (lambda d: d["rows"][0].update(value_bits="z"), r"no plan: rows\[0\].value_bits='z'"),
        (lambda d: d["fold"].update({"1": "0"}), "of another model: 1 after 0"),
    ],
)
def test_a_plan_that_was_edited_is_half_carried_out(edit, said):
    m, x = model("linear")
    came = nx.plan(m, "int8", "int8", example=x).as_dict()
    edit(came)
    with pytest.raises(nx.NumericsError, match=said):
        nx.wrap(m, nx.Plan.from_dict(came))


def test_a_path_that_is_none_is_told_in_pythons_words():
    made = nx.plan(nn.Linear(32, 4), "int8")
    for call in (made.save, nx.Plan.load):
        with pytest.raises(nx.NumericsError, match="path=3 is no path"):
            call(3)


class Sums(nn.Module):
    """Products that say what they sum."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (
            nn.Parameter(torch.randn(*n)) for n in ((32, 32), (8, 32), (4, 8, 32), (32, 8))
        )

    def forward(self, x):
        y = torch.tensordot(x, self.a, dims=([1], [0])).inner(self.b)
        z = torch.tensordot(x[:, None, :8] * x[:, :4, None], b=self.c, dims=2)
        return y + torch.linalg.matmul(z, other=self.d)


def test_sums_over_axes_that_are_told_are_unknown():
    torch.manual_seed(0)
    m, x = Sums(), torch.randn(3, 32)
    one, graph = (nx.wrap(m, nx.QuantSpec("int4", scheme="per_group(8)"), activations="mxfp8_e4m3", example=x,
                          mode=mode) for mode in ("eager_mode", "fx_graph_mode"))  # fmt: skip
    plan = nx.plan(m, nx.QuantSpec("int4", scheme="per_group(8)"), "mxfp8_e4m3", example=x)
    axes = {name: row.spec.scheme.axis for name, row in plan.parameters.items()}
    assert axes == {"a": 0, "b": -1, "c": 1, "d": 0}
    assert sum(row.spec is not None for row in plan.rows if row.kind == "activation") == 4
    assert torch.equal(one(x), graph(x))


def test_parameters_of_narrow_floats_are_quantized_again():
    m = nn.Linear(32, 32)
    m.weight = nn.Parameter(m.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(nx.NumericsError, match="has no effect: narrow floats: float8_e4m3fn"):
        nx.plan(m, "mxfp4")


def test_a_site_could_not_be_named_as_the_plan_prints_it():
    """Its brackets were a class of letters."""
    layer = nn.Sequential(nn.Linear(32, 32))
    made = nx.plan(layer, "int8", "int8", rules={"0:linear[0]": {"activations": "mxfp8_e4m3"}},
                   example=torch.ones(2, 32))  # fmt: skip
    assert [row.format for row in made.rows if row.name == "0:linear[0]"] == ["mxfp8_e4m3"]


@pytest.mark.parametrize("came", [np.array(4), torch.tensor(4), 4, "int8", [1], ["ab"], [("0",)],
                                  {1: "int8"}, {"0": np.array(4)}, {"0": {1: "int8"}}], ids=repr)  # fmt: skip
def test_rules_that_are_none_were_an_error_of_python(came):
    """TypeError: iteration over a 0-d array."""
    model, x = nn.Sequential(nn.Linear(32, 4)), torch.ones(2, 32)
    for call in (nx.plan, nx.wrap):
        with pytest.raises(nx.NumericsError, match="rule"):
            call(model, "int8", rules=came, example=x)


def test_an_array_of_no_axes_in_the_place_of_a_list_was_an_error_of_python():
    model, x = nn.Sequential(nn.Linear(32, 4)), torch.ones(2, 32)
    for formats, batches in ((np.array(4), [x]), (torch.tensor(4), [x]), (["int8"], np.array(4))):
        with pytest.raises(nx.NumericsError, match=r"formats=|batches="):
            nx.sweep(model, formats, batches)


# ---- scales of channels -----------------------------------------------------------------------------


class Channels(torch.nn.Module):
    """A weight of each kind: of experts both ways round, of convolutions both ways round, of a product."""

    def __init__(self):
        super().__init__()
        self.conv, self.turned = torch.nn.Conv1d(16, 24, 3), torch.nn.ConvTranspose1d(3, 24, 5)
        self.experts = torch.nn.Parameter(torch.randn(4, 64, 32))
        self.others = torch.nn.Parameter(torch.randn(4, 32, 64))
        self.matrix, self.linear = torch.nn.Parameter(torch.randn(32, 48)), torch.nn.Linear(32, 8)

    def forward(self, x):
        rows = x.reshape(-1, 32)
        each = [torch.nn.functional.linear(rows, w).sum() for w in self.experts]
        other = torch.bmm(rows.expand(4, *rows.shape), self.others)
        return (torch.stack(each).sum() + other.sum() + (rows @ self.matrix).sum() + self.linear(x).sum()
                + self.conv(x).sum() + self.turned(x[:, :3]).sum())  # fmt: skip


SCALES = {
    "conv.weight": (24,), "turned.weight": (24,), "experts": (4, 64, 1), "others": (4, 1, 64),
    "matrix": (48,), "linear.weight": (8,),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_per_channel_is_a_scale_for_each_output_channel_and_expert(mode):
    plan = nx.plan(
        Channels(), nx.QuantSpec("int8", scheme="per_channel"), example=torch.randn(2, 16, 32), mode=mode
    )
    found = {name: plan.parameters[name].spec.shared_shape(plan.parameters[name].shape) for name in SCALES}
    assert found == SCALES
    assert "256 scales, one for each output channel of 4 x 64" in plan.parameters["experts"].reason
    assert "48 scales, one for each output channel" in plan.parameters["matrix"].reason
    assert plan.parameters["linear.weight"].reason == "weights="


def test_another_axis_holds_and_its_scales_are_counted():
    rules = {"experts": nx.QuantSpec("int8", scheme="per_channel(-3)")}
    plan = nx.plan(Channels(), "int8", rules=rules, example=torch.randn(2, 16, 32))
    row = plan.parameters["experts"]
    assert row.spec == rules["experts"]
    assert row.reason == "rule experts: 4 scales, one for each index of axis -3 alone"


def test_a_frozen_model_has_the_scales_that_were_planned():
    model, x = Channels(), torch.randn(2, 16, 32)
    with nx.decoded_products():
        wrapped = nx.wrap(model, nx.QuantSpec("int8", scheme="per_channel"), example=x)
        due = wrapped(x)
        frozen = nx.freeze(wrapped)
        assert torch.equal(frozen(x), due)
    assert tuple(frozen.experts.scale.shape) == (4, 64, 1)


@pytest.mark.parametrize(("axis", "shape"), [(None, (4, 64, 1)), (0, (4,))])
def test_a_job_finds_scales_for_each_output_channel_where_no_axis_is_said(tmp_path, axis, shape):
    state = {"mlp.experts.up": torch.randn(4, 64, 32), "conv.weight": torch.randn(8, 64, 32),
             "features.0.weight": torch.randn(8, 64, 3), "linear.weight": torch.randn(8, 64)}  # fmt: skip
    nx.save(state, tmp_path / "m.safetensors")
    spec = nx.QuantSpec("int8", scheme="per_channel")
    found = decide(Source(tmp_path / "m.safetensors"), Request(spec, free=axis is None))
    scales = {name: plan.spec.shared_shape(plan.shape) for name, plan in found.plans.items()}
    assert scales == {"mlp.experts.up": shape, "conv.weight": (8,), "features.0.weight": (8,),
                      "linear.weight": (8,)}  # fmt: skip
    assert f"{4 if axis == 0 else 256} scales, one for each" in found.reasons["mlp.experts.up"]
    assert found.reasons["linear.weight"] == "the format of all"


def test_what_a_plan_says_of_channels_holds_in_a_job(tmp_path):
    nx.save({"w": torch.randn(8, 64, 32)}, tmp_path / "m.safetensors")
    source = Source(tmp_path / "m.safetensors")
    plan = decide(source, Request(nx.QuantSpec("int8", scheme="per_channel"), free=False)).plan
    assert decide(source, Request(plan=plan)).plans["w"].spec.scheme == nx.per_channel(0)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
@pytest.mark.parametrize("example", [None, torch.tensor([[1, 2]])])
@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_an_embedding_that_its_forward_writes_into_was_planned(kind, example, mode):
    """What it wrote was lost, and each call of the frozen model raised."""
    if example is None and mode == "fx_graph_mode":
        return
    model = nn.Sequential(kind(20, 64, max_norm=1.0), nn.Linear(64, 8))
    own = {"example": example, "mode": mode}
    for rules in ({"0": "int8"}, {kind: "int8"}, {"*.weight": "int8"}):
        with pytest.raises(
            nx.NumericsError, match=r"0.weight: rule .* each forward of 0 writes into it: max_"
        ):
            nx.plan(model, "int4", rules=rules, **own)
    with pytest.raises(nx.NumericsError, match="max_norm=None there changes nothing"):
        nx.quantize_(model, "int4", rules={"0": "int8"})
    plan = nx.plan(model, "int4", **own)
    assert [row.name for row in plan.rows if row.spec] == ["1.weight"]
    assert type(model[0].weight) is nn.Parameter
    model[0].max_norm = None
    assert nx.plan(model, "int4", rules={"0": "int8"}, **own).parameters["0.weight"].format == "int8"


@pytest.mark.parametrize("where", ["*:linear[0]", "[0-2]:linear[0]", "*:lin*[0]", "?:linear[0]"])
def test_the_place_of_a_site_is_no_set_of_characters(where):
    """A pattern that ends as sites do, in a number in brackets, matched no name."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    x = torch.linspace(-1, 1, 64).reshape(1, 64)
    plan = nx.plan(model, "int8", "int8", rules={where: {"activations": "int4"}}, example=x)
    assert [row.format for row in plan.sites.values()] == ["int4", "int4"]
    out = {where.replace("[0]", "[out]"): {"outputs": "int4"}}
    found = nx.plan(model, "int8", rules=out, example=x, observer="min_max").sites
    assert [str(site) for site in found] == ["0:linear[out]", "2:linear[out]"]


# ---- printed ---------------------------------------------------------------------------------------------


class Deep(nn.Module):
    """Names and reasons that no screen has room for."""

    def __init__(self):
        super().__init__()
        kinds = ("self_attention_query_projection", "feed_forward_output_projection")
        self.blocks = nn.ModuleList(nn.ModuleDict({k: nn.Linear(64, 64) for k in kinds}) for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            for layer in block.values():
                x = layer(x)
        return x


def deep():
    group = nx.QuantSpec("int4", scheme=nx.per_group(32))
    rules = {"blocks.1.feed_forward_output_projection": nx.QuantSpec("int8", symmetric=False)}
    x = torch.linspace(-1, 1, 128).reshape(2, 64)
    model = Deep()
    plan = nx.plan(model, group, "mxfp8_e4m3", rules=rules, example=x)
    report = nx.report(nx.wrap(model, plan), model, [x])
    sweep = nx.sweep(model, [group, "mxfp4", "per_group"], [x], activations="same")
    return plan, report, sweep, nx.footprint(nx.quantize_(model, "mxfp4"))


@pytest.mark.parametrize("columns", [None, 60, 80, 100, 200])
def test_a_plan_was_printed_as_wide_as_its_longest_line(columns, monkeypatch):
    """In a session, where what is shown is printed, too; what has no room is named."""
    monkeypatch.setenv("COLUMNS", str(columns or 0))  # 0 is what nobody knows
    for one in deep():
        lines = str(one).splitlines()
        assert max(map(cells, lines)) <= (columns or 80)
        assert repr(one) == str(one)
        assert not any(line.startswith("─") for line in lines)


def test_what_is_printed_keeps_numbers_and_says_where_the_rest_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    plan, report, _, _ = deep()
    text = str(plan)
    assert "…" in text
    assert re.search(r"left out: .*; a wider terminal or table\(full=True\) shows", text)
    assert text.endswith("\n".join(clauses(plan.summary, Screen(80))))
    assert all(" ".join(text.split()).count(part) == 1 for part in plan.summary.split("; "))
    for one in report.layers:
        assert f"{one.local:.1f}" in str(report)
    assert "as_dict()" in str(report)


def test_the_full_table_is_every_row_and_letter():
    plan, *_ = deep()
    lines = plan.table(full=True).splitlines()
    assert len(lines) == len(plan.rows) + 2
    for row in plan.rows:
        assert any(all(part in line for part in (row.name, row.format, row.reason)) for line in lines)


def test_the_command_line_and_python_print_a_plan_alike(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    plan, *_ = deep()
    drawn = [line for line in plan.lines(Screen(90)) if not line.startswith("─")]
    said = str(plan).replace("table(full=True)", "--json").splitlines()
    assert drawn == said


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.RNN, nn.GRU, nn.LSTM])
def test_the_state_of_a_recurrence_has_a_row_that_says_that_it_stays(kind, mode):
    model = nn.Sequential(kind(8, 12))
    x = torch.randn(3, 8)
    made = nx.plan(model, "int4", "int4", example=x, mode=mode)
    came, state = (row for row in made.rows if row.site is not None)
    assert (came.site.place, state.site.place, state.shape[0], state.shape[-1]) == (0, 1, 3, 12)
    assert came.spec is not None
    assert state.spec is None
    assert state.reason.startswith("a recurrence's state")
    assert "1 of 2 computed tensors" in made.summary
    with pytest.raises(nx.NumericsError, match=r"without effect.*a recurrence's state"):
        nx.plan(model, "int4", "int4", example=x, rules={"0:*[1]": {"activations": "int8"}})
    rows = [{**row, "spec": "int4"} if row["name"] == state.name else row for row in made.as_dict()["rows"]]
    with pytest.raises(nx.NumericsError, match=r"int4|another model"):
        type(made).from_dict({**made.as_dict(), "rows": rows}).check_model(model)
