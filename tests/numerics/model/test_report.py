"""Reports, comparisons, sweeps: what they say is what plain sums over plain outputs say."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import pytest
import torch

import numerics as nx
from numerics.model import report as report_module
from tests.helpers.models import model

pytestmark = pytest.mark.usefixtures("decoded_products")  # bits of frozen models beside wrapped ones


def sqnr(x, y):
    x, y = x.double(), y.double()
    return 10 * math.log10(float(x.square().sum() / (x - y).square().sum()))


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_layer_is_judged_by_other_sums_than_its_own(mode):
    m, x = model("linear")
    one = nx.wrap(m, "int4", activations="int8", example=x, mode=mode)
    found = nx.report(one, m, [x])
    by_name = {layer.name: layer for layer in found.layers}
    with torch.no_grad():
        due = m[1](m[0](*x))
        first = nx.wrap(m, "int4", activations="int8", example=x)
        assert by_name["2"].local == pytest.approx(sqnr(m[2](due), first[2](due)), rel=1e-12)
        assert found.output == pytest.approx(sqnr(m(*x), one(*x)), rel=1e-12)
        assert by_name["2"].cumulative == pytest.approx(found.output, rel=1e-12)
    assert [layer.local for layer in found.layers] == sorted(layer.local for layer in found.layers)
    assert by_name["0"].nbytes == 32 * 24 // 2 + 4
    assert by_name["0"].float_nbytes == 4 * 32 * 24
    json.dumps(found.as_dict(), allow_nan=False)
    assert "cumulative dB" in str(found)


def test_what_is_cut_off_is_not_counted():
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    nx.calibrate(one, [(x[0] / 4,)])
    clipped = {layer.name: layer.clipped for layer in nx.report(one, m, [x]).layers}
    scale = one[0].quantize_linear_0.scale
    due = float(((x[0] / scale).abs() > 127.5).double().mean())  # its weights lose nothing
    assert clipped["0"] == pytest.approx(due)
    assert clipped["0"] > 0


def test_a_folded_normalization_counts_as_an_error():
    m, x = model("conv_batch_norm")
    for mode in ("eager_mode", "fx_graph_mode"):
        one = nx.wrap(m, "int8", activations="int8", example=x, fold=True, mode=mode)
        assert min(layer.local for layer in nx.report(one, batches=[x]).layers) > 25


def test_frozen_models_are_reported_otherwise():
    m, x = model("encoder_decoder")
    for mode in ("eager_mode", "fx_graph_mode"):
        one = nx.wrap(m, "int4", activations="int8", rules={torch.nn.Embedding: "int8"}, example=x, mode=mode)
        before = nx.report(one, m, [x])
        after = nx.report(nx.freeze(one), m, [x])
        assert after == before


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize(
    ("dtype", "qat"), [("mxfp4", None), ("int4", "lsq"), ("int4", "tqt"), ("nvfp4", None)]
)
def test_what_a_packed_weight_lost_is_not_counted(mode, dtype, qat):
    """A frozen model has no quantizer of its weights left, and clipped said that nothing was cut off."""
    m, x = model("linear")
    one = nx.wrap(m, dtype, qat=qat, example=x, mode=mode)
    with torch.no_grad():
        for name, scale in one.named_parameters():
            if name.endswith(("step", "log2_threshold")):
                scale.sub_(2) if qat == "tqt" else scale.mul_(0.2)
    before = nx.report(one, m, [x, x])
    assert qat is None or all(layer.clipped for layer in before.layers)
    assert nx.report(nx.freeze(one), m, [x, x]) == before


def test_equal_models_differ():
    m, x = model("linear")
    found = nx.compare(m, m, [x])
    assert found.equal
    assert found.sqnr == math.inf
    assert found.agreement == 1
    other = nx.compare(m, nx.wrap(m, "int2", example=x), [x])
    with torch.no_grad():
        assert not other.equal
        assert other.sqnr == pytest.approx(sqnr(m(*x), nx.wrap(m, "int2")(*x)), rel=1e-12)
    with pytest.raises(nx.NumericsError, match="no batch"):
        nx.compare(m, m, [])
    with pytest.raises(nx.NumericsError, match="correspond"):
        nx.compare(m, torch.nn.Linear(32, 3), [x])


def test_formats_are_out_of_order():
    m, _x = model("linear")
    order = ["bfloat16", "mx9", "mxfp8_e4m3", "mx6", "mxfp4", "mx4"]
    found = nx.sweep(m, [*reversed(order), "int9"], [(torch.randn(64, 32),)], activations="same")
    assert [row.format for row in found.rows] == order
    assert "int9" in found.refused
    assert "int9" in str(found)
    json.dumps(found.as_dict(), allow_nan=False)


def test_an_exact_output_was_exact_db():
    m, x = model("linear")
    found = nx.report(nx.wrap(m.bfloat16().float(), "bfloat16", example=x))  # whose weights are that already
    assert "output: exact over 1 batch" in str(found)
    zero, minus = (torch.nn.Flatten() for _ in range(2))
    minus.register_forward_hook(lambda _module, _came, out: -out)
    assert "exact, largest difference 0; " in str(nx.compare(zero, minus, [torch.zeros(2, 3)]))


def attention():
    """A model in evaluation whose attention is one fused function, and its input."""
    torch.manual_seed(0)
    return torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval(), torch.randn(2, 6, 32)


def test_a_layer_that_never_ran_is_exact():
    """out_proj's forward never runs: MultiheadAttention reads its weight."""
    m, x = attention()
    found = nx.report(nx.wrap(m, "int4", example=x))
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["self_attn.out_proj"].inside == "in self_attn"
    assert math.isnan(by_name["self_attn.out_proj"].local)
    assert found.layers[-1] is by_name["self_attn.out_proj"]
    assert by_name["self_attn"].inside == ""
    assert by_name["self_attn"].local < 40
    assert "exact" not in str(found)
    assert str(found).endswith("over 1 batch")
    assert "in self_attn" in str(found)
    assert "out_proj" not in nx.draw.model(found).alt
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.turns
@pytest.mark.parametrize("options", [{}, {"observer": "min_max"}])
def test_a_graph_that_reaches_inside_attention_is_not_taken_apart(options):
    m, x = attention()
    one = nx.wrap(m, "int4", activations="int8", example=x, mode="fx_graph_mode", **options)
    if options:
        nx.calibrate(one, [x / 4])
    found = nx.report(one)
    by_name = {layer.name: layer for layer in found.layers}
    with torch.no_grad():
        assert found.output == pytest.approx(sqnr(m(x), one(x)), rel=1e-12)
    weights = nx.report(nx.wrap(m, "int4", example=x))
    assert by_name["self_attn"].local < next(a.local for a in weights.layers if a.name == "self_attn")
    assert (by_name["self_attn"].clipped > 0) is bool(options)
    after = nx.report(nx.freeze(one))
    assert [(a.name, a.cumulative) for a in after.layers] == [(a.name, a.cumulative) for a in found.layers]


def test_a_graph_that_reaches_inside_a_model_of_one_function_is_taken_apart():
    m, x = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval(), torch.randn(2, 6, 32)
    one = nx.wrap(m, "int8", activations="int8", example=(x, x, x), mode="fx_graph_mode")
    with pytest.raises(nx.NumericsError, match=r"fused function.*nx\.compare"):
        nx.report(one)


def test_a_sweep_stops_at_a_format_that_eager_mode_does_not_reach():
    m, x = attention()
    eager = nx.sweep(m, ["int8"], [x], activations="same")
    assert not eager.rows
    assert "fx_graph_mode" in eager.refused["int8"]
    assert [
        row.format for row in nx.sweep(m, ["int8"], [x], activations="same", mode="fx_graph_mode").rows
    ] == ["int8"]


def test_a_sweep_takes_the_letters_of_a_text_for_formats():
    m, x = model("linear")
    with pytest.raises(nx.NumericsError, match=r"\['mxfp4'\] for one"):
        nx.sweep(m, "mxfp4", [x])
    with pytest.raises(nx.NumericsError, match="fx_graph_mode"):
        nx.sweep(m, ["mxfp4"], [x], mode="graph")


def test_sizes_beside_each_other_have_two_units():
    m = torch.nn.Sequential(torch.nn.Linear(256, 500), torch.nn.Linear(500, 8))
    assert "MB become 0.0" in nx.plan(m, "mxfp4").summary
    assert "bytes become" not in nx.plan(m, "mxfp4").summary
    assert "bytes become" in nx.plan(model("linear")[0], "mxfp4").summary


@dataclasses.dataclass
class Result:
    """What torch's trees do not look into."""

    states: object


OUTPUTS = {
    "dataclass": Result,
    "complex": lambda y: {"a": [torch.complex(y, -y)]},
    "sparse": lambda y: y.relu().to_sparse(),
}


class Odd(torch.nn.Module):
    """Returns what is no plain tensor."""

    def __init__(self, what):
        super().__init__()
        self.layer, self.what = torch.nn.Linear(32, 8), what

    def forward(self, x):
        return self.what(self.layer(x))


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_other_kinds_are_exact(name):
    """A report compared nothing, and said that all was exact."""
    torch.manual_seed(0)
    m, x = Odd(OUTPUTS[name]), torch.randn(4, 32)
    one = nx.wrap(m, "mxfp4", example=x)
    found = nx.report(one, m, [x]).output
    assert 5 < found < 40
    assert nx.compare(m, one, [x]).sqnr == found


def test_a_report_of_nothing_is_exact():
    m, x = Odd(lambda y: y.argmax(-1)), torch.randn(4, 32)
    one = nx.wrap(m, "mxfp4", example=x)
    for call in (lambda: nx.report(one, m, [x]), lambda: nx.compare(m, one, [x])):
        with pytest.raises(nx.NumericsError, match="no floats in what comes out, a Tensor"):
            call()


class Tied(torch.nn.Module):
    """An embedding that is the head of two tasks, and a layer of two names."""

    def __init__(self):
        super().__init__()
        self.embedding, self.layer = torch.nn.Embedding(64, 32), torch.nn.Linear(32, 32)
        self.head, self.other = (torch.nn.Linear(32, 64, bias=False) for _ in range(2))
        self.head.weight = self.other.weight = self.embedding.weight
        self.again = self.layer

    def forward(self, ids):
        x = self.again(self.layer(self.embedding(ids)))
        return self.head(x) + self.other(x.relu())


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_every_module_of_a_tied_weight_is_a_layer_and_its_bytes_count_once(mode):
    model = nx.wrap(Tied(), "mxfp4", rules={"*embedding.weight": "int8"}, example=torch.arange(6), mode=mode)
    for found in (nx.report(model), nx.report(nx.freeze(model))):
        layers = {one.name: one for one in found.layers}
        assert layers.keys() == {"embedding", "head", "other", "layer"}
        assert layers["head"].also == ("embedding", "other")
        assert layers["layer"].also == ("again",)
        assert [layers[name].nbytes for name in ("embedding", "head", "other")] == [64 * 32 + 4, 0, 0]
        assert sum(one.nbytes for one in found.layers) == 64 * 32 + 4 + 32 * 32 // 2 + 32
        assert all(math.isfinite(one.local) and one.formats for one in found.layers)
        assert "head = embedding = other" in str(found)
        assert "head = embedding = other" in nx.draw.model(found).alt


def test_what_is_given_in_another_order_or_without_its_list_is_said():
    m, x = model("linear")
    one = nx.wrap(m, "int4", example=x)
    with pytest.raises(nx.NumericsError, match="the wrapped model comes first"):
        nx.report(m, one, [x])
    with pytest.raises(nx.NumericsError, match=r"not a Tensor; one batch is a list of it, \[batch\]"):
        nx.report(one, m, x[0])
    with pytest.raises(nx.NumericsError, match=r"a model is quantized by nx.quantize_\(model"):
        nx.quantize(m, "int4")


def test_a_column_of_a_report_was_not_explained():
    one = nx.wrap(
        torch.nn.Linear(8, 4), "int8", activations="int8", observer="min_max", example=torch.ones(2, 8)
    )
    found = nx.report(nx.calibrate(one, [torch.ones(2, 8)]), batches=[torch.full((2, 8), 9.0)])
    assert "clipped: of the values that are quantized, those cut off" in str(found)


class Spoiled(torch.nn.Module):
    """A model of whose output some rows are something else."""

    def __init__(self, inner, what):
        super().__init__()
        self.inner, self.what = inner, what

    def forward(self, x):
        y = self.inner(x).clone()
        y[2:] = self.what
        return y


def rows_of_four():
    return torch.nn.Linear(32, 8), torch.linspace(-1, 1, 128).reshape(4, 32)


@pytest.mark.parametrize("what", [math.nan, math.inf, -math.inf])
def test_a_reference_with_nan_or_inf_reads_as_exact(what):
    m, x = rows_of_four()
    found = nx.compare(Spoiled(m, what), m, [x])
    assert (found.non_finite, found.lost, found.equal, found.max_error) == (16, 0, False, 0)
    assert math.isnan(found.sqnr)
    assert found.agreement == 0.5
    assert str(found).startswith("no finite value differs; 16 values of the first are NaN or Inf, in no SQNR")
    both = nx.compare(Spoiled(m, what), Spoiled(m, what), [x])
    assert (both.non_finite, both.agreement, both.equal) == (16, 0.5, True)
    assert math.isnan(both.sqnr)
    assert "16 values of the first are NaN or Inf" in str(both)
    every = nx.compare(Spoiled(Spoiled(m, what), what), m, [x[2:].repeat(2, 1)[2:]])
    assert "exact" not in str(every)


@pytest.mark.parametrize(("what", "due"), [(math.nan, math.nan), (math.inf, -math.inf)])
def test_nan_and_inf_of_the_second_are_not_counted(what, due):
    m, x = rows_of_four()
    found = nx.compare(m, Spoiled(m, what), [x])
    assert found.sqnr == due or (math.isnan(found.sqnr) and math.isnan(due))
    assert (found.non_finite, found.lost, found.equal) == (0, 16, False)
    assert "16 values of the second are NaN or Inf, and finite in the first" in str(found)


def test_zeros_of_another_sign_are_equal_bit_for_bit():
    class Zero(torch.nn.Module):
        def __init__(self, zero):
            super().__init__()
            self.zero = zero

        def forward(self, x):
            return torch.full_like(x, self.zero)

    assert not nx.compare(Zero(0.0), Zero(-0.0), [torch.ones(2, 4)]).equal
    assert nx.compare(Zero(-0.0), Zero(-0.0), [torch.ones(2, 4)]).equal


def test_a_batch_with_nan_is_left_out_of_a_sweep_without_a_word():
    m, x = rows_of_four()
    found = nx.sweep(m, ["int4", "int8", "mxfp4"], [x, torch.full((2, 32), math.nan)])
    assert [row.non_finite for row in found.rows] == [16] * 3
    assert found.rows[0].format == "int8"
    assert "16 values of the float model's output are NaN or Inf, in no SQNR or error" in str(found)
    assert found.as_dict()["rows"][0]["non_finite"] == 16
    with pytest.raises(nx.NumericsError, match="no format to try"):
        nx.sweep(m, [], [x])


def test_a_format_without_an_sqnr_is_not_last_in_a_sweep(monkeypatch):
    m, x = rows_of_four()
    found = iter([math.nan, 3.0, math.inf, -math.inf])
    real = report_module.compare

    def compared(*args):
        return dataclasses.replace(real(*args), sqnr=next(found))

    monkeypatch.setattr(report_module, "compare", compared)
    rows = nx.sweep(m, ["int4", "fp8_e4m3", "mxfp4", "int8"], [x]).rows
    assert [row.format for row in rows][:2] == ["mxfp4", "fp8_e4m3"]


def test_a_row_of_nan_is_left_out_of_a_report_without_a_word():
    m, x = rows_of_four()
    x[1] = math.nan
    found = nx.report(nx.wrap(m, "int4", activations="int8", example=x[:1]), m, [x])
    assert (found.non_finite, found.layers[0].non_finite, found.lost) == (8, 8, 0)
    assert "8 values of the reference's output are NaN or Inf, in no SQNR or error" in str(found)
    assert "NaN or Inf: 8 in the model of the reference's layers" in str(found)
    assert found.as_dict()["non_finite"] == 8


def test_tensors_are_no_models_to_compare():
    """It was a TypeError about batches."""
    x = torch.ones(4)
    for one in (x, nx.quantize(x, "int8"), x.numpy()):
        with pytest.raises(nx.NumericsError, match=r"compare takes two models and batches.*q.error\(x\)"):
            nx.compare(one, x)
    with pytest.raises(nx.NumericsError, match="compare needs batches="):
        nx.compare(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))


def test_formats_of_one_name_are_two_rows_of_a_sweep_and_of_a_plan():
    one, other = (nx.float_format(4, 3, bias=bias, name="swept_twice") for bias in (4, 6))
    model, x = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.Linear(8, 8)), torch.randn(4, 32)
    names = ["swept_twice(bias=4)", "swept_twice(bias=6)"]
    found = nx.sweep(model, [one, other], [x], activations="same")
    assert sorted((row.format, row.activations) for row in found.rows) == list(zip(names, names, strict=True))
    table = nx.plan(model, one, rules={"1": other}, example=x).table()
    assert all(name in table for name in names)


class Listed(torch.nn.Module):
    """Parameters in a list, which has no forward of its own."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.ParameterList(torch.nn.Parameter(torch.randn(32, 32) / 6) for _ in range(3))

    def forward(self, x):
        for w in self.w:
            x = (x @ w).relu()
        return x


SEVERAL = {  # a model, the layer of several parameters, what reads them, and their names in that
    "experts_bmm": ("", "", ["up", "down"]),
    "experts_index": ("", "", ["up", "down"]),
    "bare": ("", "", ["w", "v", "u"]),
    "lstm": (
        "r",
        "r",
        [f"weight_{k}_l{n}{r}" for k in ("ih", "hh") for n in (0, 1) for r in ("", "_reverse")],
    ),
    "listed": ("w", "", ["w.0", "w.1", "w.2"]),
}


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("name", SEVERAL)
def test_parameters_of_one_module_are_one_row(name, mode):
    torch.manual_seed(0)
    m, x = (Listed().eval(), (torch.randn(5, 32),)) if name == "listed" else model(name)
    layer, at, names = SEVERAL[name]
    one = nx.wrap(m, "mxfp4", example=x, mode=mode)
    found = nx.report(one, m, [x])
    whole = next(one for one in found.layers if one.name == layer)
    every = {p.name: p for p in whole.parameters}
    due = {f"{at}.{leaf}" if at else leaf: leaf for leaf in names}
    assert every.keys() == due.keys()
    inner, eager = m.get_submodule(at), nx.wrap(m, "mxfp4", example=x)
    for full, leaf in due.items():
        owner, _, last = full.rpartition(".")
        module = eager.get_submodule(owner)
        with torch.no_grad():
            value = getattr(module, last).clone()
            quantizer = getattr(module, f"quantize_{last}")
            cut = 1 - float(report_module.within(quantizer, m.get_parameter(full)).double().mean())
            out, changed = inner(*x), torch.func.functional_call(inner, {leaf: value}, x)
        out, changed = (y[0] if isinstance(y, tuple) else y for y in (out, changed))
        if name != "lstm":  # whose second result is its state
            assert every[full].local == pytest.approx(sqnr(out, changed), rel=1e-12), full
        assert math.isfinite(every[full].local)
        assert every[full].clipped == pytest.approx(cut)
        assert every[full].float_nbytes == 4 * m.get_parameter(full).numel()
    locals_ = [p.local for p in whole.parameters]
    assert locals_ == sorted(locals_)
    assert sum(p.nbytes for p in whole.parameters) == whole.nbytes
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    for text in (str(found), found._repr_html_(), json.dumps(told)):
        assert all(full in text for full in due)
    with nx.decoded_products():
        assert nx.report(nx.freeze(one), m, [x]) == found


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_parameter_that_another_module_reads_has_no_figure(mode):
    """out_proj's forward never runs; what its weight costs attention is known all the same."""
    m, x = attention()
    found = nx.report(nx.wrap(m, "int4", example=x, mode=mode))
    layer = next(one for one in found.layers if one.name == "self_attn.out_proj")
    (weight,) = layer.parameters
    assert weight.name == "self_attn.out_proj.weight"
    assert 20 < weight.local < 60
    assert weight.nbytes == layer.nbytes


class Routed(torch.nn.Module):
    """One of two layers, or both, as it is called."""

    def __init__(self):
        super().__init__()
        self.own = torch.nn.Parameter(torch.randn(32, 32) / 6)
        self.experts = torch.nn.ModuleList([torch.nn.GRU(32, 32, batch_first=True) for _ in range(2)])

    def forward(self, x, chosen):
        return sum(self.experts[k](x @ self.own)[0] for k in chosen) @ self.own


class Branches(torch.nn.Module):
    """Two weights and a branch, of which only a graph shows what is inside."""

    def __init__(self):
        super().__init__()
        self.w, self.v = (torch.nn.Parameter(torch.randn(32, 32) / 6) for _ in range(2))

    def forward(self, x):
        x = torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (x @ self.w,))
        return (x @ self.v).relu()


BELOW = {  # a model, and the layer that reads its parameters, which the plan names for other reasons
    "alone": (lambda: torch.nn.MultiheadAttention(32, 4, batch_first=True), ""),
    "layer": (lambda: torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), "self_attn"),
    "encoder": (lambda: torch.nn.TransformerEncoder(attention()[0], 2), "layers.1.self_attn"),
    "decoder": (lambda: torch.nn.TransformerDecoderLayer(32, 4, 64, batch_first=True), "multihead_attn"),
    "branches": (lambda: torch.nn.Sequential(Branches(), torch.nn.Linear(32, 4)), "0"),
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name in BELOW for mode in ("eager_mode", "fx_graph_mode")[: 1 + (name != "branches")]],
)
def test_a_parameter_is_judged_elsewhere_than_its_layer(name, mode):
    """What has fused functions or branches inside was taken for what never ran: 33 dB for 17."""
    make, layer = BELOW[name]
    torch.manual_seed(0)
    m, x = make().eval(), torch.randn(2, 6, 32)
    batch = {"alone": (x, x, x), "decoder": (x, torch.randn(2, 5, 32))}.get(name, (x,))
    found = nx.report(nx.wrap(m, "mxfp4", example=batch, mode=mode), m, [batch])
    inner, came, eager = m.get_submodule(layer), [], nx.wrap(m, "mxfp4", example=batch)
    handle = inner.register_forward_hook(lambda *call: came.append(call[1:]), with_kwargs=True)
    with torch.no_grad():
        m(*batch)
        handle.remove()
        ((args, kwargs, out),) = came
        every = [p for one in found.layers for p in one.parameters if p.name.startswith(layer)]
        for p in every:
            leaf = p.name.removeprefix(layer).removeprefix(".")
            owner, _, last = p.name.rpartition(".")
            value = getattr(eager.get_submodule(owner), last).clone()
            made = torch.func.functional_call(inner, {leaf: value}, args, kwargs)
            parts = [report_module.floats_in(y) for y in (out, made)]
            sums = report_module.ErrorSums()
            report_module.add(sums, *parts)
            assert p.local == pytest.approx(sums.error.sqnr, rel=1e-4), p.name
    assert len(every) == 2


@pytest.mark.parametrize("first", [0, 1])
def test_a_layer_that_runs_in_a_later_batch_is_judged_around_it(first):
    """Its parameters are judged where its line is, whichever batches came before."""
    torch.manual_seed(0)
    m, x = Routed().eval(), torch.rand(2, 6, 32)
    one = nx.wrap(m, "mxfp4", example=(x, (0, 1)))
    both, alone = nx.report(one, m, [(x, (first,)), (x, (1 - first,))]), nx.report(one, m, [(x, (1,))])
    for name, there in (("experts.0", nx.report(one, m, [(x, (0,))])), ("experts.1", alone)):
        due, got = (next(a for a in found.layers if a.name == name) for found in (there, both))
        assert not got.inside
        assert {p.name: p.local for p in got.parameters} == {p.name: p.local for p in due.parameters}
    unrun = next(a for a in alone.layers if a.name == "experts.0")
    assert unrun.inside == "in the model"
    assert {p.local for p in unrun.parameters} == {math.inf}


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_folded_convolution_has_no_rows_of_its_bias(mode):
    m, x = model("conv_batch_norm")
    one = nx.wrap(m, "int8", biases="int8", example=x, fold=True, mode=mode)
    layer = next(one for one in nx.report(one, m, [x]).layers if one.name == "c2")
    assert {p.name for p in layer.parameters} == {"c2.weight", "c2.bias"}
    assert all(20 < p.local < 80 for p in layer.parameters)


class Cast(torch.nn.Module):
    """Layers in autocast's blocks, and one of what they made."""

    def __init__(self):
        super().__init__()
        self.first, self.out = torch.nn.Linear(32, 32), torch.nn.Linear(32, 8)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.first(x)
            with torch.autocast("cpu", enabled=False):
                x = self.first(x.float())
            return self.out(x.bfloat16()).float()


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_layer_is_run_again_under_the_autocast_that_it_had(mode):
    """A layer of what autocast made raised torch's error of types, another was run in float32."""
    torch.manual_seed(0)
    m, x = Cast().eval(), torch.randn(4, 32)
    one = nx.wrap(m, "int4", activations="int8", example=x, mode=mode)
    by_name = {layer.name: layer for layer in nx.report(one, m, [x]).layers}
    with torch.no_grad():
        first = nx.wrap(m, "int4", activations="int8", example=x)
        with torch.autocast("cpu", torch.bfloat16):
            came = m.first(x)
            due, own = [came.float()], [first.first(x).float()]
        due.append(m.first(due[0])), own.append(first.first(due[0]))
        with torch.autocast("cpu", torch.bfloat16):
            last = due[1].bfloat16()
            assert by_name["out"].local == pytest.approx(sqnr(m.out(last), first.out(last)), rel=1e-12)
    assert by_name["first"].local == pytest.approx(sqnr(torch.cat(due), torch.cat(own)), rel=1e-12)


class _Emptied(torch.nn.Module):
    """A model of which nothing comes out."""

    def __init__(self):
        super().__init__()
        self.inner = model("linear")[0]

    def forward(self, x):
        return self.inner(x)[:0]


class _Idle(torch.nn.Module):
    """Two experts, one of which gets no token."""

    def __init__(self):
        super().__init__()
        self.busy, self.idle = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

    def forward(self, x):
        return self.busy(x) + self.idle(x[:0]).sum()


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_nothing_that_was_compared_read_as_exact(mode):
    m, (x,) = model("linear")
    one = nx.wrap(m, "mxfp4", example=x, mode=mode)
    for batches in ([x[:0]], [x, x[:0]]):
        due = rf"batch {len(batches) - 1} is empty: its shape is \(0, {x.shape[1]}\)"
        for call in (
            lambda b=batches: nx.compare(m, one, b),
            lambda b=batches: nx.report(one, m, b),
            lambda b=batches: nx.sweep(m, ["mxfp4"], b, mode=mode),
        ):
            with pytest.raises(nx.NumericsError, match=due):
                call()
    emptied = _Emptied()
    other = nx.wrap(emptied, "mxfp4", example=x, mode=mode)
    for call in (lambda: nx.compare(emptied, other, [x]), lambda: nx.report(other, emptied, [x])):
        with pytest.raises(nx.NumericsError, match="no value to compare"):
            call()
    assert "no value to compare" in nx.sweep(emptied, ["mxfp4"], [x], mode=mode).refused["mxfp4"]


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_layer_that_made_no_values_is_not_exact(mode):
    m, x = _Idle(), torch.randn(4, 64)
    found = nx.report(nx.wrap(m, "mxfp4", example=x, mode=mode), m, [x])
    assert {one.name: one.inside for one in found.layers} == {"busy": "", "idle": "no values"}
    assert math.isnan(found.layers[-1].local)
    assert "no values" in str(found)


class Both(torch.nn.Module):
    """Two layers of the same input, which can share its scale."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

    def forward(self, x):
        return self.a(x) + self.b(x)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_what_a_group_cuts_off_is_no_part_of_weights(mode):
    """The name of a group that a rule gave was taken for that of a weight, whose values diluted the share."""
    torch.manual_seed(0)
    model, x = Both(), torch.randn(4, 64)

    def clipped(rules):
        wrapped = nx.wrap(model, "int8", "int8", observer="min_max", rules=rules, example=x, mode=mode)
        found = nx.report(nx.calibrate(wrapped, [x / 4]), model, [x])
        return {layer.name: layer.clipped for layer in found.layers}

    alone = clipped(None)
    assert min(alone.values()) > 0
    assert clipped({"*": {"group": "g"}}) == alone


class Tokens(torch.nn.Module):
    """The head of a vision transformer: bare parameters beside layers."""

    def __init__(self, size=64):
        super().__init__()
        self.cls_token, self.pos_embed = (torch.nn.Parameter(torch.randn(1, n, size)) for n in (1, 5))
        self.proj, self.head = torch.nn.Linear(size, size), torch.nn.Linear(size, 8)

    def forward(self, x):
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), self.proj(x)], 1)
        return self.head(x + self.pos_embed)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("at", ["", "0"])
@pytest.mark.parametrize("names", [("pos_embed",), ("cls_token", "pos_embed")])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_parameter_beside_quantized_layers_had_no_line(names, at, mode, frozen):
    """Its layer's line is of all that is inside it: what it alone costs stood nowhere."""
    torch.manual_seed(0)
    model, x = Tokens() if not at else torch.nn.Sequential(Tokens()), torch.randn(2, 4, 64)
    places = [f"{at}.{name}" if at else name for name in names]
    wrapped = nx.wrap(model, "mxfp4", rules=dict.fromkeys(places, "int8"), example=x, mode=mode)
    found = nx.report(nx.freeze(wrapped) if frozen else wrapped, model, [x])
    (layer,) = (one for one in found.layers if one.name == at)
    assert {one.name for one in layer.parameters} == set(places)
    alone = copy.deepcopy(model)
    for place in places:
        with torch.no_grad():
            held = alone.get_parameter(place)
            held.copy_(nx.fake_quantize(held, "int8"))
            due = nx.compare(model, alone, [x]).sqnr
            held.copy_(model.get_parameter(place))
        (one,) = (one for one in layer.parameters if one.name == place)
        assert one.local == pytest.approx(due)
        assert f"  {place}" in str(found)
    assert not any(one.parameters for one in found.layers if one.name != at)


def test_a_layer_inside_vmap_is_refused_by_name():
    class Mapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16, 16)

        def forward(self, x):
            return torch.vmap(self.layer)(x)

    model, x = Mapped().eval(), torch.randn(3, 16)
    wrapped = nx.wrap(model, "int4", example=x)
    with pytest.raises(nx.NumericsError, match=r"layer is called inside torch\.vmap.*nx\.compare"):
        nx.report(wrapped, model, [x])
    assert nx.compare(wrapped, model, [x]) is not None
