"""Wrapped models: both modes give the same bits, frozen ones too, and the float model stays as it was."""

from __future__ import annotations

import copy
import inspect
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import numerics as nx
from numerics.model.wrapped.quantizers import quantizers
from numerics.model.wrapped.state import state_of
from tests.helpers.models import FUSED, MODELS, model
from tests.helpers.pretrained import task_of

pytestmark = pytest.mark.usefixtures("decoded_products")  # bits of frozen models beside wrapped ones


MODES = ("eager_mode", "fx_graph_mode")
RECURRENT = ("lstm", "gru")  # torch.compile refuses them


def flat(out):
    return [x for x in pytree.tree_leaves(out) if isinstance(x, torch.Tensor)]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def run(m, x):
    with torch.no_grad():
        return m(*x)


def batches(name):
    torch.manual_seed(1)
    return [MODELS[name][1]() for _ in range(24)]


def wrapped(name, mode, **options):
    m, x = model(name)
    rules = {nn.Embedding: "int8"} if any(isinstance(one, nn.Embedding) for one in m.modules()) else None
    return (
        m,
        x,
        nx.wrap(
            m, nx.QuantSpec("int4", scheme="per_channel(0)"), rules=rules, example=x, mode=mode, **options
        ),
    )


ACTIVATIONS = {
    "dynamic": {"activations": "mxfp8_e4m3"},
    "static": {"activations": "int8", "observer": "min_max"},
    "asymmetric": {"activations": nx.QuantSpec("int8", symmetric=False), "observer": "min_max"},
    "outputs": {"outputs": "int8", "observer": "min_max"},
}


LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))
PAIRS = [(name, kind) for name in MODELS for kind in ACTIVATIONS if (name, kind) != ("lstm_cell", "outputs")]


@pytest.mark.turns(18)
@pytest.mark.parametrize(("name", "activations"), PAIRS)
def test_the_modes_differ_or_do_nothing(name, activations):
    m, x, eager = wrapped(name, MODES[0], **ACTIVATIONS[activations])
    graph = wrapped(name, MODES[1], **ACTIVATIONS[activations])[2]
    if activations != "dynamic":
        for one in (eager, graph):
            nx.calibrate(one, batches(name))
    y = run(eager, x)
    assert equal(y, run(graph, x))
    assert not equal(y, run(m, x))
    assert set(m.state_dict()) <= set(eager.state_dict())
    for one in (eager, graph):
        other = copy.deepcopy(one)
        assert equal(run(other, x), y)
        nx.freeze(other)
        assert equal(run(other, x), y)
        assert equal(run(one, x), y), "the original changed with its frozen copy"


@pytest.mark.parametrize("name", MODELS)
def test_an_unwrapped_model_is_another(name):
    m, x, eager = wrapped(name, MODES[0])
    y = run(m, x)
    found = nx.unwrap(eager)
    assert [type(one) for one in found.modules()] == [type(one) for one in m.modules()]
    assert all(a is b for a, b in zip(found.parameters(), m.parameters(), strict=True))
    assert equal(run(found, x), y)


COMPILED = [name for name in MODELS if name not in RECURRENT]


@pytest.mark.turns
@pytest.mark.parametrize("name", COMPILED if LONG else ("linear", "experts_einsum", "branches", "reads"))
def test_a_compiled_model_gives_other_bits(name):
    _, x, eager = wrapped(name, MODES[0], activations="mxfp8_e4m3")
    torch._dynamo.reset()
    assert equal(run(torch.compile(eager, fullgraph=True, backend="aot_eager"), x), run(eager, x))


UNSIGNED = ("e8m0", "ue5m3fn", "ue5m3ieee")  # of scales: half of the weights would become 0
FORMATS = [d.name for d in nx.dtypes() if d.name not in UNSIGNED]


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_format_has_no_model(dtype, tmp_path):
    m, x = model("linear")
    unsigned = dtype.startswith("uint")
    spec = nx.QuantSpec(dtype, symmetric=False) if unsigned else dtype
    outs = []
    for mode in MODES if LONG or FORMATS.index(dtype) % 8 == 0 else MODES[:1]:
        one = nx.wrap(m, rules=[(nn.Linear, spec)], example=x, mode=mode)
        y = run(one, x)
        outs.append(y)
        path = tmp_path / f"{mode}.safetensors"
        nx.save(nx.freeze(one).state_dict(), path)
        back = nx.load(path)
        assert equal(run(one, x), y)
        fresh = copy.deepcopy(m)
        for name, value in back.items():
            if isinstance(value, nx.QTensor):
                owner, _, leaf = name.rpartition(".")
                q = value.to("cpu")
                setattr(fresh.get_submodule(owner), leaf, nn.Parameter(q, requires_grad=False))
        assert equal(run(fresh, x), y)
    assert equal(outs[0], outs[-1])


PRETRAINED = [(name, dtype) for name in ("MiniLM", "crepe-tiny") for dtype in FORMATS]


@pytest.mark.long
@pytest.mark.parametrize(("name", "dtype"), [*PRETRAINED, ("silero-vad", "mxfp4"), ("g2p_en", "mxfp4")])
def test_a_pretrained_model_is_another_in_the_other_mode_or_behind_its_file(name, dtype, tmp_path):
    asked, outs = task_of(name, 2), []
    spec = nx.QuantSpec(dtype, symmetric=False) if dtype.startswith("uint") else dtype
    for mode in MODES:
        plan = nx.plan(
            asked.model, spec, "mxfp8_e4m3", rules=asked.rules or None, example=asked.example, mode=mode
        )
        assert not [row.name for row in plan.rows if row.reason.startswith("undecided")]
        one = nx.wrap(asked.model, plan)
        assert set(asked.model.state_dict()) <= set(one.state_dict())
        outs.append(run(one, asked.example))
        nx.save(nx.freeze(one).state_dict(), tmp_path / "m.safetensors")
        again = nx.load_into(copy.deepcopy(asked.model), tmp_path / "m.safetensors", example=asked.example)
        assert equal(run(again, asked.example), outs[-1])
    assert equal(*outs)


@pytest.mark.turns
@pytest.mark.parametrize("qat", ["ste", "tqt", "lsq"])
@pytest.mark.parametrize(
    "name", ["linear", "lstm", "conv_batch_norm", "bare"] if LONG else ["linear", "bare"]
)
def test_the_modes_learn_differently(name, qat):
    found = []
    for mode in MODES:
        m, x = model(name)
        m.requires_grad_(True)
        one = nx.wrap(m, "int4", activations="int4", example=x, mode=mode, qat=qat)
        assert all(not isinstance(p, nn.UninitializedParameter) for p in one.parameters())
        optimizer = torch.optim.SGD(one.parameters(), 0.01)
        for _ in range(5):
            optimizer.zero_grad()
            sum(y.square().mean() for y in flat(one(*x))).backward()  # sums diverge to NaN
            optimizer.step()
        learned = {k.rpartition(".")[2]: v for k, v in one.named_parameters() if "learns" in k}
        assert bool(learned) == (qat != "ste")
        y = run(one, x)
        nx.freeze(one)
        assert equal(run(one, x), y)
        found.append(y)
    assert equal(*found)


@pytest.mark.long
@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_a_branch_that_the_example_skips_learns_nothing(qat):
    """torch.cond was refused, since what compiles its branches asked quantizers whether they had begun."""
    m, x = model("branches")
    m.requires_grad_(True)
    one, graph = (nx.wrap(m, "int4", activations="int4", example=x, qat=qat, mode=mode) for mode in MODES)
    taken = [bool(m.c(*batch).sum() > 0) for batch in batches("branches")]
    both = [batches("branches")[taken.index(which)] for which in (True, False)]
    assert all(equal(run(one, batch), run(graph, batch)) for batch in both)
    with pytest.raises(nx.NumericsError, match="mode='eager_mode' trains"):
        graph(*x).sum().backward()
    branches = nn.ModuleList([one.a, one.b])  # c runs without gradients
    optimizer, before = torch.optim.SGD(one.parameters(), 0.01), copy.deepcopy(nx.train.thresholds(branches))
    for batch in both:
        one(*batch).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, nx.train.thresholds(branches), strict=True))
    ys = [run(one, batch) for batch in both]
    nx.freeze(one)
    assert all(equal(run(one, batch), y) for batch, y in zip(both, ys, strict=True))


def test_thresholds_of_a_state_are_not_compiled():
    m, x = model("linear")
    one, other = (nx.wrap(m, "int4", activations="int4", qat="tqt", example=x) for _ in range(2))
    for p in nx.train.thresholds(one):
        p.data += 0.7
    other.load_state_dict(one.state_dict())
    torch._dynamo.reset()
    assert equal(run(torch.compile(other, fullgraph=True, backend="aot_eager"), x), run(one, x))


def test_thresholds_follow_half():
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", example=x, qat="tqt")
    before = {k: v.clone() for k, v in one.state_dict().items() if "threshold" in k}
    one.half()
    assert m[0].weight.dtype == torch.float32, "the float model was moved as well"
    after = {k: v for k, v in one.state_dict().items() if "threshold" in k}
    assert before
    assert all(torch.equal(v, after[k]) and v.dtype == torch.float32 for k, v in before.items())
    static = nx.calibrate(nx.wrap(m, "int8", activations="int8", observer="min_max", example=x), [x])
    scales = {k: v.clone() for k, v in static.state_dict().items() if k.endswith("scale")}
    static.half()
    assert scales
    assert all(torch.equal(v, static.state_dict()[k]) for k, v in scales.items())


def test_scales_are_lost_in_a_state():
    m, x = model("linear")
    for qat, options in ((None, {"observer": "min_max"}), ("tqt", {}), ("lsq", {})):
        one = nx.wrap(m, "int8", activations="int8", example=x, qat=qat, **options)
        if qat is None:
            nx.calibrate(one, [x])
        buffer = io.BytesIO()
        torch.save(one.state_dict(), buffer)
        buffer.seek(0)
        other = nx.wrap(
            model("linear")[0], "int8", activations="int8", example=(3 * x[0],), qat=qat, **options
        )
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert equal(run(other, x), run(one, x))


def test_a_float_checkpoint_does_not_load():
    m, x = model("lstm")
    one = nx.wrap(m, "int8", example=x)
    one.load_state_dict(model("lstm")[0].state_dict(), strict=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", [None, "lsq"])
def test_what_is_tied_has_two_quantizers(mode, qat):
    m, x = model("encoder_decoder")
    m.requires_grad_(True)
    one = nx.wrap(m, "int8", rules={nn.Embedding: "int8"}, example=x, mode=mode, qat=qat)
    ours = [x for x in quantizers(one) if x.name in ("words.weight", "lm_head.weight")]
    assert [x.name for x in ours] == ["words.weight"]
    held = dict(one.named_parameters(remove_duplicate=False))
    assert held["words.weight"] is held["lm_head.weight"] is m.words.weight
    assert set(m.state_dict()) <= set(one.state_dict())
    assert all(one.state_dict()[name].shape == x.shape for name, x in m.state_dict().items())
    nx.freeze(one)
    assert one.get_parameter("words.weight") is one.get_parameter("lm_head.weight")


@pytest.mark.parametrize("options", [{}, {"activations": "int8"}, {"qat": "lsq"}, {"qat": "tqt"}])
def test_a_wrapped_model_on_meta_takes_no_state(options):
    """Whether a parameter is there was answered by quantizing it, which had no scale yet."""
    m, x = model("linear")
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 8))
    example = {"example": (x[0].to("meta"),)} if "activations" in options else {}
    one = nx.wrap(empty, "int4", **options, **example)
    due = nx.wrap(m, "int4", example=x, **options)
    one.load_state_dict(due.state_dict(), assign=True)
    assert equal(run(one, x), run(due, x))


@pytest.mark.parametrize("mode", MODES)
def test_folding_changes_what_comes_out_by_mode(mode):
    m, x = model("conv_batch_norm")
    one = nx.wrap(m, "int8", activations="int8", example=x, fold=True, mode=mode)
    assert "b1.running_mean" not in one.state_dict()
    assert equal(run(one, x), run(nx.wrap(m, "int8", activations="int8", example=x, fold=True), x))
    assert not equal(run(one, x), run(nx.wrap(m, "int8", activations="int8", example=x), x))
    assert torch.allclose(run(one, x), run(m, x), atol=0.2)
    assert nx.unwrap(one) is m


def test_products_inside_fused_functions_are_left_in_float():
    m, x = FUSED["multihead"]().eval(), (torch.randn(2, 6, 32),)
    one = nx.wrap(m, "int4", example=x)
    baked = copy.deepcopy(m)
    for name, row in nx.plan(m, "int4", example=x).parameters.items():
        with torch.no_grad():
            p = baked.get_parameter(name)
            p.copy_(nx.fake_quantize(p, row.spec))
    graph = nx.wrap(m, "int4", example=x, mode="fx_graph_mode")
    with torch.enable_grad():  # as no fast path is taken
        assert equal(one(*x), baked(*x))
    assert equal(run(one, x), run(graph, x))


@pytest.mark.long
def test_an_exported_program_does_not_come_back(tmp_path):
    m, x = model("linear")
    path = tmp_path / "m.pt2"
    for mode in MODES:
        one = nx.freeze(nx.wrap(m, "mxfp4", activations="mxfp8_e4m3", example=x, mode=mode))
        torch.export.save(torch.export.export(one, x), path)
        y = run(one, x)
        torch.save((x, y), tmp_path / "xy.pt")
        code = (
            "import sys, torch, numerics; x, y = torch.load(sys.argv[2]); "
            "print(torch.equal(torch.export.load(sys.argv[1]).module()(*x), y))"
        )
        found = subprocess.run(
            [sys.executable, "-c", code, path, tmp_path / "xy.pt"],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert found.stdout.strip() == "True", found.stderr


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # torch's own of torch
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor compiles C++, and g++ is not here")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["linear", "conv_batch_norm"])
def test_a_compiled_package_gives_other_bits(name, frozen, tmp_path):
    m, x = model(name)
    one = nx.wrap(m, "int8", activations="mxfp8_e4m3", example=x, mode=MODES[1])
    if frozen:
        nx.freeze(one)
    y = run(one, x)
    with torch.no_grad():
        program = torch.export.export(one, x)
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "m.pt2"))
        assert equal(torch._inductor.aoti_load_package(path)(*x), y)


def test_other_sizes_are_refused_by_a_graph():
    m, _ = model("linear")
    one = nx.wrap(m, "mxfp4", activations="int8", example=torch.randn(4, 32), mode="fx_graph_mode")
    x = (torch.randn(7, 32),)
    assert equal(run(one, x), run(nx.wrap(m, "mxfp4", activations="int8", example=x), x))


# ---- training around it -----------------------------------------------------------------------------


class Checkpointed(nn.Module):
    def __init__(self, lambda_: bool, reentrant: bool):
        super().__init__()
        self.w, self.inner = nn.Parameter(torch.randn(32, 32)), nn.Linear(32, 32)
        self.lambda_, self.reentrant = lambda_, reentrant

    def forward(self, x):
        if self.lambda_:
            return torch.utils.checkpoint.checkpoint(lambda y: y @ self.w, x, use_reentrant=self.reentrant)
        return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=self.reentrant) @ self.w


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_give_gradients_of_something_else(reentrant):
    torch.manual_seed(0)
    m, x = Checkpointed(False, reentrant), torch.randn(4, 32, requires_grad=True)
    one = nx.wrap(m, "int4", activations="int8", example=x, qat="ste")
    plain = nx.wrap(m, "int4", activations="int8", example=x, qat="ste")
    plain.forward = lambda y: type(plain.inner).__call__(plain.inner, y) @ plain.w  # no checkpoint
    one.train()(x).square().sum().backward()
    found = [p.grad.clone() for p in m.parameters()]
    assert all(bool(g.abs().sum() > 0) for g in found)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_function_runs_again_unquantized(reentrant):
    torch.manual_seed(0)
    m, x = Checkpointed(True, reentrant), torch.randn(4, 32, requires_grad=True)
    one = nx.wrap(m, "int4", activations="int8", rules={"inner": None}, example=x, qat="ste").train()
    with pytest.raises(nx.NumericsError, match="checkpoint a module"):
        one(x).square().sum().backward()


@pytest.mark.skipif(not LONG, reason="two more processes: make verify, NUMERICS_TEST_LONG=1")
def test_ranks_learn_something_else_than_one_process():
    """Their steps are those of one process with both batches; a shard that nobody gathers is refused."""
    worker = Path(__file__).parents[2] / "helpers" / "two_ranks_models.py"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(worker)]
    found = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert found.stdout.count("both done") == 2, found.stderr[-4000:]


def test_a_frozen_model_trains_nothing_in_silence():
    m, x = model("linear")
    m.requires_grad_(False)
    for mode in MODES:
        one = nx.freeze(nx.wrap(m, "int8", example=x, mode=mode))
        one.eval()
        with pytest.raises(nx.NumericsError, match=r"0.weight.*nothing of this model can be trained"):
            one.train()
    lora, x = model("lora")
    one = nx.freeze(nx.wrap(lora, "int8", rules={"a": None, "b": None}, example=x)).train()
    one(*x).sum().backward()
    assert one.b.weight.grad is not None


def test_values_are_kept_packed():
    m, x = model("linear")
    one = nx.wrap(m, "mxfp4", example=x)
    y = run(one, x)
    nx.freeze(one, keep="values")
    assert type(one[0].weight) is nn.Parameter
    assert equal(run(one, x), y)


def test_a_model_is_packed_in_place_without_a_word(capsys):
    m, x = model("encoder_decoder")
    y = run(nx.wrap(m, "mxfp4", rules={nn.Embedding: "int8"}, example=x), x)
    one = nx.quantize_(m, "mxfp4", rules={nn.Embedding: "int8"}, example=x)
    assert one is m
    assert equal(run(m, x), y)
    assert m.words.weight is m.lm_head.weight
    assert "13 of 27 tensors quantized" in capsys.readouterr().out
    assert "weight=mxfp4" in repr(m)
    assert "weight=int8" in repr(m)


# ---- other ways through a model than the example's ---------------------------------------------------


class Cached(nn.Module):
    """Computes a key, or takes one that was computed before."""

    def __init__(self):
        super().__init__()
        self.k, self.o = (nn.Parameter(torch.randn(32, 32) / 6) for _ in range(2))

    def forward(self, x, enc=None, k=None):
        if k is None:
            k = nn.functional.linear(enc, self.k).tanh()
        return nn.functional.linear(x * k, self.o), k


class Scan(nn.Module):
    """One step after another, as many as come."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(32, 32) / 6) for _ in range(2))

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 32)
        for t in range(x.shape[1]):
            h = h @ self.a + x[:, t] @ self.b.contiguous()
        return h


def test_a_call_that_skips_a_product_takes_the_scale_of_another():
    torch.manual_seed(0)
    m, x, enc = Cached(), torch.randn(1, 1, 32), torch.randn(1, 1, 32) * 1000
    static = {"activations": "int8", "observer": "min_max"}
    one = nx.calibrate(nx.wrap(m, "int8", example=(x, enc), **static), [(x, enc)])
    out, k = one(x, enc)
    assert torch.equal(one(x, None, k)[0], out)
    with pytest.warns(nx.NumericsWarning, match="no use of them was seen: k"):
        one = nx.calibrate(nx.wrap(m, "int8", example=(x, None, k), **static), [(x, None, k)])
    with pytest.raises(nx.NumericsError, match=r"model:linear: this call takes another way through Cached"):
        one(x, enc)


def test_steps_beyond_the_examples_run_in_float():
    torch.manual_seed(0)
    m, x = Scan(), torch.randn(2, 6, 32)
    one = nx.wrap(m, "int8", activations="int8", example=x[:, :3])
    for end in (1, 6):
        graph = nx.wrap(m, "int8", activations="int8", example=x[:, :end], mode=MODES[1])
        assert equal(run(one, (x[:, :end],)), run(graph, (x[:, :end],)))
    few = [x[:, :3]]
    one = nx.calibrate(nx.wrap(m, "int8", activations="int8", observer="min_max", example=few[0]), few)
    assert run(one, (x[:, :1],)).shape == (2, 32)
    with pytest.raises(nx.NumericsError, match=r"number 4 with a, of which it had 3.*rules="):
        one(x)


def bare(forward, shape=(32, 32)):
    """A model of one parameter w and a linear layer, with that forward."""

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.layer = nn.Parameter(torch.randn(*shape) / 6), nn.Linear(32, 32)
            self.gru = nn.GRU(32, 32)

    Bare.forward = forward
    return Bare()


@pytest.mark.filterwarnings("ignore::numerics.formats.errors.NumericsWarning")
@pytest.mark.parametrize(
    ("site", "forward"),
    [
        ("model:linear[0]", lambda self, x: self.layer.forward(x)),
        ("layer:linear[0]", lambda self, x: self.layer.forward(x) + self.layer(x)),
        ("model:gru[0]", lambda self, x: self.gru.forward(x)[0]),
        ("gru:gru[0]", lambda self, x: self.gru(hx=torch.ones(1, 32), input=x)[0]),
        ("model:mm[0]", lambda self, x: torch.ops.aten.mm(x, self.w)),
        ("model:mm[0]", lambda self, x: torch.ops.aten.mm.default(x, self.w)),
        ("model:linear[0]", lambda self, x: torch.ops.aten.linear.default(x, self.w)),
        ("model:addmm[1]", lambda self, x: x.new_zeros(2, 32).addmm_(x, self.w)),
        ("model:matmul[0]", lambda self, x: self.w.__rmatmul__(x)),
    ],
)
def test_a_product_is_quantized_in_one_mode_only(site, forward):
    torch.manual_seed(0)
    m, x = bare(forward), torch.randn(2, 32)
    found = [nx.wrap(m, "mxfp4", activations="int4", example=x, mode=mode) for mode in MODES]
    assert site in {str(one) for one in nx.plan(m, "mxfp4", "int4", example=x).sites}
    outs = [run(one, (x,)) for one in found]
    assert equal(*outs)
    assert not equal(outs[0], run(nx.wrap(m, "mxfp4", example=x), (x,)))


def test_a_hook_that_calls_a_module_leaves_another_in_float():
    torch.manual_seed(0)
    x = torch.randn(2, 32)
    m = bare(lambda self, x: self.gru(self.layer(x) @ self.w)[0])
    one = nx.wrap(m, "int8", activations="int4", example=x)
    y = run(one, (x,))

    def hook(*_):
        one.layer(x)

    one.gru.register_forward_pre_hook(hook)
    assert equal(run(one, (x,)), y)


def test_packed_sequences_leave_recurrent_weights_in_float():
    torch.manual_seed(0)
    x = torch.nn.utils.rnn.pack_sequence([torch.randn(5, 32), torch.randn(3, 32)])
    for m in (nn.LSTM(32, 32), nn.GRU(32, 32)):
        plan = nx.plan(m, "int4", "int4", example=(x,))
        assert {"weight_ih_l0", "weight_hh_l0"} == set(plan.parameters)
        baked = copy.deepcopy(m)
        for name in plan.parameters:
            baked.get_parameter(name).data = nx.fake_quantize(m.get_parameter(name).data, "int4")
        came = x._replace(data=nx.fake_quantize(x.data, "int4"))
        assert equal(run(nx.wrap(m, plan), (x,))[0].data, run(baked, (came,))[0].data)


@pytest.mark.filterwarnings("ignore::numerics.formats.errors.NumericsWarning")
def test_experts_that_vmap_runs_stay_in_float():
    torch.manual_seed(0)
    x = torch.randn(2, 32)
    m = bare(lambda self, x: torch.vmap(lambda w, r: nn.functional.linear(r, w))(self.w, x), (2, 32, 32))
    eager, graph = (nx.wrap(m, "mxfp4", example=x, mode=mode) for mode in MODES)
    assert equal(run(eager, (x,)), run(graph, (x,)))
    assert not equal(run(eager, (x,)), run(m, (x,)))
    with pytest.raises(nx.NumericsError, match="only mode='fx_graph_mode' reaches"):
        nx.wrap(m, "mxfp4", activations="int8", example=x)


def test_a_module_of_two_names_is_not_found_in_the_graph():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(32, 32)
            self.b = self.a

        def forward(self, x):
            return self.b(x)

    m, x = Twice(), torch.randn(2, 32)
    eager, graph = (nx.wrap(m, "int8", activations="int8", example=x, mode=mode) for mode in MODES)
    assert equal(run(eager, (x,)), run(graph, (x,)))


def test_a_branch_computes_by_the_formats_of_another_model():
    class OneTwice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda y: self.a(self.b(y)), lambda y: self.a(y), (x,))

    torch.manual_seed(0)
    m, x = OneTwice(), torch.randn(2, 32)
    few = nx.wrap(m, "mxfp4", example=x)
    y = run(few, (x,))
    both, graph = (nx.wrap(m, "mxfp4", activations="int4", example=x, mode=mode) for mode in MODES)
    assert equal(run(both, (x,)), run(graph, (x,)))
    assert not equal(run(both, (x,)), y)
    assert equal(run(few, (x,)), y)


def test_a_module_that_calls_itself_has_sites_that_never_run():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = (nn.Parameter(torch.randn(32, 32) / 6) for _ in range(2))

        def forward(self, x, depth=2):
            y = x @ self.w
            return (self(y, depth - 1) if depth else y) @ self.v

    x = torch.randn(2, 32)
    one = nx.wrap(Again(), "int8", activations="int8", observer="min_max", example=x)
    graph = nx.wrap(nx.unwrap(copy.deepcopy(one)), "int8", activations="int8", example=x, mode=MODES[1])
    assert run(nx.calibrate(one, [x]), (x,)).shape == run(graph, (x,)).shape
    each = nx.wrap(nx.unwrap(copy.deepcopy(one)), None, activations="mxfp4", outputs="fp4", example=x)
    due, w, v = x, each.w.detach(), each.v.detach()
    for matrix in (w, w, w, v, v, v):
        due = nx.fake_quantize(nx.fake_quantize(due, "mxfp4") @ matrix, "fp4")
    assert equal(run(each, (x,)), due)  # each product once, whichever of its calls it is of


def test_a_look_at_a_model_fills_the_cache_of_its_weights():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.kept = nn.Parameter(torch.randn(32, 32)), None

        def forward(self, x):
            if self.kept is None:
                self.kept = self.w.detach().t()
            return x @ self.kept

    m, x = Keeps(), torch.randn(2, 32)
    plan = nx.plan(m, "mxfp4", "int4", example=x)
    assert m.kept is None
    one = nx.wrap(m, plan)
    y = run(one, (x,))
    assert equal(run(one, (x,)), y)
    assert equal(run(nx.wrap(m, "mxfp4", activations="int4", example=x, mode=MODES[1]), (x,)), y)


@torch.library.custom_op("numerics_tests::grouped_mm_fallback", mutates_args=())
def fallback(input: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
    """As transformers names what it exports."""
    return torch._grouped_mm(input, weight, offs=offs)


@fallback.register_fake
def _(input, weight, offs):
    return input.new_empty(input.shape[0], weight.shape[-1])


def test_grouped_products_of_transformers_are_not_found_in_the_graph():
    def forward(self, x):
        ends = torch.tensor([4, 8], dtype=torch.int32)
        grouped = fallback if torch.compiler.is_exporting() else torch._grouped_mm
        return grouped(x, self.w, offs=ends)

    m, x = bare(forward, (2, 32, 32)), torch.randn(8, 32)
    del m.layer, m.gru
    eager, graph = (nx.wrap(m, "mxfp4", activations="int4", example=x, mode=mode) for mode in MODES)
    assert equal(run(eager, (x,)), run(graph, (x,)))


def test_a_users_module_is_taken_for_a_quantizer():
    m, x = nn.Sequential(nn.Linear(32, 8)), torch.randn(2, 32)
    m[0].quantize_later = nn.Identity()
    assert nx.unwrap(nx.wrap(m, "int8", example=x))[0].quantize_later is not None
    m[0].quantize_weight = nn.Identity()
    with pytest.raises(nx.NumericsError, match=r"0\.weight: its quantizer would be quantize_weight"):
        nx.wrap(m, "int8", example=x)
    named = nn.Sequential()
    named.add_module("quantizers", nn.Linear(32, 8))
    with pytest.raises(nx.NumericsError, match="'quantizers' of its own"):
        nx.wrap(named, "int8", example=x, mode=MODES[1])


# ---- what goes wrong --------------------------------------------------------------------------------


def test_a_scale_that_nobody_found_is_used():
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    with pytest.raises(nx.NumericsError, match=r"0:linear\[0\] has no scale yet"):
        one(*x)
    with pytest.raises(nx.NumericsError, match="never got a scale"):
        nx.freeze(one)


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "no batch came"),
        ([torch.full((2, 32), torch.nan)], "NaN"),
        ([torch.ones(0, 32)], "empty"),
        (torch.ones(2, 32), "batches is"),
        ([3], "int"),
    ],
)
def test_calibration_from_nothing_leaves_a_scale(batches, said):
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    with pytest.raises(nx.NumericsError, match=said):
        nx.calibrate(one, batches)
    with pytest.raises(nx.NumericsError, match="no scale yet"):
        one(*x)


def test_a_branch_that_no_batch_reached_has_a_scale():
    m, x = model("branches")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    with pytest.raises(nx.NumericsError, match=r"no batch reached [ab]:linear"):
        nx.calibrate(one, [x])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"qat": "qat"}, "tqt"),
        ({"qat": "tqt", "weights": "mxfp4"}, "learns scales of integers"),
        ({"qat": "tqt", "weights": nx.QuantSpec("int8", scheme="per_group(4)")}, "a threshold for a tensor"),
        ({"qat": "lsq", "weights": nx.QuantSpec("int8", symmetric=False)}, "symmetric"),
        ({"threshold_init": "_3SD"}, "belongs to qat='tqt'"),
        ({"qat": "tqt", "threshold_init": "_4SD"}, "_3SD"),
        ({"weights": None}, "quantizes nothing"),
    ],
)
def test_an_option_of_wrapping_is_taken_in_silence(options, said):
    m, x = model("linear")
    with pytest.raises(nx.NumericsError, match=said):
        nx.wrap(m, **{"weights": "int8", "example": x, **options})


def test_a_model_that_is_no_graph_says_why():
    class Data(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(32, 8)

        def forward(self, x):
            return self.a(x) if x.sum() > 0 else x

    x = torch.ones(2, 32)
    with pytest.raises(nx.NumericsError, match=r"test_wrapping\.py:\d+: return self\.a\(x\) if .*eager_mode"):
        nx.wrap(Data(), "int8", example=x, mode="fx_graph_mode")
    assert nx.wrap(Data(), "int8", example=x)(x).shape == (2, 8)


def test_a_wrapped_part_of_a_model_gets_other_formats():
    x = torch.randn(2, 32)
    part = nx.wrap(nn.Sequential(nn.Linear(32, 32)), "int4", activations="int4", example=x)
    with pytest.raises(nx.NumericsError, match="0 of this model is wrapped already"):
        nx.wrap(nn.Sequential(part, nn.Linear(32, 8)), "int8", example=x)


def test_wrapping_twice_quantizes_twice():
    m, x = model("linear")
    one = nx.wrap(m, "int8", example=x)
    for wrong, said in (
        (lambda: nx.wrap(one, "int4", example=x), "wrapped already"),
        (lambda: nx.freeze(m), "not wrapped"),
        (lambda: nx.freeze(nx.freeze(one)), "frozen already"),
        (lambda: nx.unwrap(one), "frozen"),
        (lambda: nx.calibrate(nx.wrap(m, "int8", example=x), [x]), "nothing waits"),
        (lambda: nx.wrap(m, nx.plan(m, "int8", example=x), rules={}), "beside a Plan"),
        (lambda: nx.freeze(nx.wrap(m, "int8"), keep="float"), "packed"),
    ):
        with pytest.raises(nx.NumericsError, match=said):
            wrong()


def test_a_wrapped_model_is_not_pickled():
    for name in ("linear", "lstm"):
        _, x, one = wrapped(name, MODES[0], activations="int8")
        buffer = io.BytesIO()
        torch.save(one, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
        assert equal(run(other, x), run(one, x))
        assert equal(run(nx.freeze(other), x), run(one, x))


@pytest.mark.parametrize("odd", [None, 3, "model", torch.ones(3), nn.Linear, [nn.Linear(2, 2)], {}])
def test_what_is_no_model_is_taken_for_one(odd):
    m, x = model("linear")
    for wrong in (
        lambda: nx.plan(odd, "int8"),
        lambda: nx.wrap(odd, "int8"),
        lambda: nx.wrap(odd, nx.plan(m, "int8", example=x)),
        lambda: nx.quantize_(odd, "int8"),
        lambda: nx.calibrate(odd, [x]),
        lambda: nx.freeze(odd),
        lambda: nx.unwrap(odd),
        lambda: nx.report(odd),
        lambda: nx.report(nx.wrap(m, "int8", example=x), 3 if odd is None else odd),
        lambda: nx.compare(odd, m, [x]),
        lambda: nx.compare(m, odd, [x]),
        lambda: nx.sweep(odd, ["int8"], [x]),
        lambda: nx.footprint(odd),
        lambda: nx.train.thresholds(odd),
        lambda: nx.train.parameter_groups(odd),
        lambda: nx.train.freeze_thresholds(odd),
    ):
        with pytest.raises(nx.NumericsError):
            wrong()


@pytest.mark.parametrize("odd", [3, "batch", torch.ones(2, 32), {"input": torch.ones(2, 32)}, [3], []])
def test_what_is_no_list_of_batches_is_taken_for_one(odd):
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    for wrong in (
        lambda: nx.calibrate(one, odd),
        lambda: nx.report(nx.wrap(m, "int8", example=x), m, odd),
        lambda: nx.compare(m, m, odd),
        lambda: nx.sweep(m, ["int8"], odd),
    ):
        with pytest.raises(nx.NumericsError):
            wrong()


class Ids(nn.Module):
    """Takes arguments by name, as models of transformers do."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(32, 64), nn.Linear(64, 32)

    def forward(self, ids, mask=None):
        x = self.layer(self.table(ids))
        return x if mask is None else x * mask


@pytest.mark.parametrize("mode", MODES)
def test_arguments_have_their_names_in_a_wrapped_model(mode):
    """The signature was (*args, **kwargs): torch.export could not be told of sizes by name."""
    ids = torch.randint(0, 32, (2, 5))
    one = nx.wrap(Ids().eval(), "mxfp4", activations="mxfp8_e4m3", example={"ids": ids}, mode=mode)
    rows = {"ids": {0: torch.export.Dim("rows", min=2, max=64)}}
    for made in (one, nx.freeze(copy.deepcopy(one))):
        names = list(inspect.signature(made.forward).parameters)
        assert names == ["ids", "mask"][: 1 + (mode == MODES[0])]
        program = torch.export.export(made, (), {"ids": ids}, dynamic_shapes=rows)
        more = ids.repeat(4, 1)
        assert equal(program.module()(ids=more), run(made, (more,)))


def test_scales_of_a_frozen_model_change():
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    nx.calibrate(one, [(4 * x[0],)])
    first = one[0].quantize_linear_0.scale.clone()
    nx.calibrate(one, [x])
    assert torch.equal(one[0].quantize_linear_0.scale, first / 4), "calibrate remembers an earlier call"
    frozen = nx.freeze(one)
    y = run(frozen, x)
    with pytest.raises(nx.NumericsError, match="frozen, and so are its scales"):
        nx.calibrate(frozen, [(3 * x[0],)])
    assert equal(run(frozen, x), y)


def test_a_moved_graph_is_unwrapped_to_what_it_no_longer_is():
    """The model that was wrapped came back, without what the graph had learned after it was moved."""
    m, x = model("linear")
    m.requires_grad_(True)
    one = nx.wrap(m, "int8", example=x, mode=MODES[1], qat="ste")
    assert nx.unwrap(one) is m
    one = one.double()
    one.get_parameter("0.weight").data.mul_(2)
    found = nx.unwrap(one)
    assert torch.equal(found[0].weight, 2 * m[0].weight.double())
    assert type(found) is type(m)
    assert m[0].weight.dtype == torch.float32


def test_statistics_of_a_moved_graph_are_lost_when_it_is_unwrapped():
    m = nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8)).train()
    one = nx.wrap(m, "int8", example=torch.randn(4, 32), mode=MODES[1], qat="ste").double()
    one(torch.randn(4, 32, dtype=torch.float64))
    found = nx.unwrap(one)
    assert found is not m
    assert torch.equal(found[1].running_mean, one.state_dict()["1.running_mean"])
    assert not torch.equal(found[1].running_mean.float(), m[1].running_mean)


@pytest.mark.parametrize("mode", MODES)
def test_a_trained_folded_model_is_unwrapped_to_what_it_no_longer_is(mode):
    m, x = model("conv_batch_norm")
    one = nx.wrap(m, "int8", example=x, fold=True, mode=mode, qat="ste")
    assert nx.unwrap(one) is m
    conv = next(iter(state_of(one).plan.fold.values()))
    one.get_submodule(conv)._parameters["weight"].data.mul_(2)
    with pytest.raises(nx.NumericsError, match="is not what folding makes"):
        nx.unwrap(one)


def test_the_bias_of_a_folded_normalization_is_not_trained():
    m = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    one = nx.wrap(m, "int8", example=torch.ones(1, 3, 5, 5), fold=True, qat="ste")
    assert one[0].bias.requires_grad


def test_groups_of_transposed_convolutions_do_not_fold():
    torch.manual_seed(0)
    m = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))
    x = torch.randn(2, 4, 5, 5)
    m(x)
    m[1].weight.data.uniform_(0.5, 2)
    m.eval()
    one = nx.wrap(m, "int8", example=x, fold=True)
    assert nx.compare(m, one, [x]).sqnr > 30


def test_a_plan_of_a_file_makes_no_graph(tmp_path):
    m, x = model("linear")
    nx.plan(m, "int8", "int8", example=x, mode=MODES[1]).save(tmp_path / "plan.toml")
    loaded = nx.Plan.load(tmp_path / "plan.toml")
    with pytest.raises(nx.NumericsError, match="needs a plan with an example"):
        nx.wrap(m, loaded)
    due = nx.wrap(m, "int8", activations="int8", example=x)
    assert equal(run(nx.wrap(m, loaded, example=x), x), run(due, x))
    assert loaded.example is None


def test_a_graph_of_another_size_fails_without_a_word():
    m, x = model("linear")
    one = nx.wrap(m, "int8", example=(x[0][:1],), mode=MODES[1])
    with pytest.raises(nx.NumericsError, match=r"size\(\)\[0\] == 1.*an example of two and more"):
        one(x[0])


def test_a_batch_that_does_not_fit_names_no_layer():
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    for call in (lambda b: nx.calibrate(one, [b]), lambda b: nx.compare(m, one, [b])):
        with pytest.raises(nx.NumericsError, match="RuntimeError in 0: "):
            call(torch.ones(2, 5))
        with pytest.raises(nx.NumericsError, match=r"\(a, b\) is model\(a, b\)"):
            call((x[0], torch.zeros(5)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_scripted_modules_are_seen_inside():
    m = nn.Sequential(nn.Linear(32, 32), torch.jit.script(nn.Linear(32, 4)))
    with pytest.raises(nx.NumericsError, match=r"1 is a .* of torch\.jit"):
        nx.wrap(m, "int8", example=torch.ones(1, 32))


def test_unknown_arguments_are_python_errors():
    m, x = model("linear")
    with pytest.raises(nx.NumericsError, match="weights= beside 'int4'"):
        nx.wrap(m, "int4", weights="int8")
    with pytest.raises(nx.NumericsError, match=r"rules=5 are none"):
        nx.wrap(m, "int8", rules=5, example=x)
    with pytest.raises(nx.NumericsError, match="wrap takes no activation=; did you mean 'activations'"):
        nx.wrap(m, "int8", activation="int8", example=x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_weights_becomes_a_number(bad):
    """quantize_ stored 0 for NaN, and said nothing."""
    m, x = model("linear")
    trained = nx.wrap(copy.deepcopy(m), "int8", example=x, qat="ste")
    trained[2]._parameters["weight"].data[0, 0] = bad
    m[2].weight.data[0, 0] = bad
    for call in (lambda: nx.wrap(m, "int8"), lambda: nx.quantize_(m, "int8"), lambda: nx.freeze(trained)):
        with pytest.raises(nx.NumericsError, match=r"2\.weight has NaN or Inf \(1 of"):
            call()
    assert type(m[0].weight) is nn.Parameter
    nx.wrap(m, "int8", rules={"2": None})


class Logs(nn.Sequential):
    """Makes NaN inside."""

    def forward(self, x):
        return self[1](torch.log(self[0](x)))


def test_nan_that_arises_inside_is_observed():
    one = nx.wrap(Logs(nn.Linear(32, 8), nn.Linear(8, 4)), "int8", activations="int8", observer="min_max",
                  example=torch.randn(4, 32))  # fmt: skip
    with pytest.raises(nx.NumericsError, match=r"NaN reaches 1:linear\[0\]"):
        nx.calibrate(one, [torch.randn(4, 32)])


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (torch.ones(2, 32) / 0, r"Inf reaches 0:linear\[0\]"),
        (torch.ones(2, 32, dtype=torch.int64), r"0:linear\[0\]: cannot compute with int64"),
        (torch.ones(2, 32, device="meta"), "RuntimeError in 0: Tensor on device cpu"),
        (torch.zeros(0, 32, dtype=torch.int64), "batch 0 is empty"),
    ],
)
def test_a_batch_that_has_no_scale_names_no_layer(batch, said):
    m, x = model("linear")
    one = nx.wrap(m, "int8", activations="int8", observer="min_max", example=x)
    with pytest.raises(nx.NumericsError, match=said):
        nx.calibrate(one, [batch])


@pytest.mark.parametrize("example", [torch.full((2, 32), float("nan")), torch.zeros(0, 32)])
def test_a_threshold_begins_with_nothing(example):
    m, _ = model("linear")
    with pytest.raises(nx.NumericsError, match=r"0:linear\[0\] would begin with (NaN or Inf|no values)"):
        nx.wrap(m, "int8", activations="int8", qat="tqt", example=example)


class Mapped(nn.Module):
    """A layer that torch.vmap runs entry by entry."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 4)

    def forward(self, x):
        return torch.vmap(self.layer)(x)


@pytest.mark.parametrize("mode", MODES)
def test_a_failure_in_vmap_leaves_torch_inside_of_it(mode):
    """A graph enters vmap by an operator: whatever came after the error ran batched."""
    with pytest.raises(nx.NumericsError, match=r"layer:linear\[0\] is inside torch\.vmap"):
        nx.wrap(Mapped(), "int8", activations="int8", qat="tqt", example=torch.randn(3, 2, 32), mode=mode)
    assert torch._C._functorch.get_dynamic_layer_stack_depth() == 0


def test_a_graph_of_the_user_is_taken_for_one_of_ours():
    torch.manual_seed(0)
    m, x = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(2, 32)
    due = run(nx.wrap(m, "int8", activations="int8", example=x), (x,))
    for traced in (torch.fx.symbolic_trace(m), torch.export.export(m, (x,)).module()):
        with pytest.raises(nx.NumericsError, match=r"torch\.fx\.GraphModule, whose class|only mode="):
            nx.wrap(traced, "int8", activations="int8", example=x)
        one = nx.wrap(traced, "int8", activations="int8", example=x, mode=MODES[1])
        assert equal(run(one, (x,)), due)
        assert nx.compare(traced, one, [x]).sqnr > 30


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_wrapped_model_is_planned_again_as_if_it_were_float(mode, frozen):
    m, x = model("linear")
    wrapped = nx.wrap(m, "int4", activations="int8", example=x, mode=mode)
    wrapped = nx.freeze(wrapped) if frozen else wrapped
    said = "wrapped already and frozen; the model that" if frozen else r"wrapped already; nx.unwrap\(model\)"
    for call in (
        lambda: nx.plan(wrapped, "int8", example=x),
        lambda: nx.plan(wrapped, "int8"),
        lambda: nx.quantize_(wrapped, "int8"),
        lambda: nx.wrap(wrapped, "int8", example=x),
        lambda: nx.sweep(wrapped, ["int8"], [x]),
    ):
        with pytest.raises(nx.NumericsError, match=said):
            call()
    with pytest.raises(nx.NumericsError, match="0 of this model is wrapped already, by a plan of its own"):
        nx.plan(nn.Sequential(wrapped), "int8", example=x)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_deleted_parameter_is_told_in_pythons_words(mode, gone):
    m, x = model("linear")
    wrapped = nx.wrap(m, "int4", example=x, mode=mode)
    layer, weight = wrapped.get_submodule("0"), dict(wrapped.named_parameters())["0.weight"]
    due = wrapped(*x)
    if gone:
        del layer.weight
        assert not hasattr(layer, "weight")
    else:
        layer.weight = None
    with pytest.raises(nx.NumericsError, match=r"0.weight is quantized when it is read, and was deleted"):
        wrapped(*x)
    layer.weight = weight
    assert torch.equal(wrapped(*x), due)


@pytest.mark.parametrize("qat", ["ste", "lsq", "tqt"])
def test_a_graph_of_the_other_mode_advises_what_its_model_does_not_learn(qat):
    m = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.1)).eval()
    wrapped = nx.wrap(m, "int4", activations="int8", example=torch.ones(4, 64), mode="fx_graph_mode", qat=qat)
    with pytest.raises(nx.NumericsError, match=rf"nx.wrap\(model.train\(\), qat='{qat}', mode="):
        wrapped.train()


def normalized(layer=None):
    torch.manual_seed(0)
    layers = nn.Linear(64, 64), nn.BatchNorm1d(64), layer or nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 8)
    return nn.Sequential(*layers).train()


def scales(one):
    """What every quantizer keeps, by its name, in any mode."""
    every = quantizers(one)
    return {q.name: {k: x.tolist() for k, x in q.scales().items()} for q in every if q.scales()}


class ByItsMode(nn.Module):
    """Does in training what no argument of an operator says."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5, self.training) * (3 if self.training else 1)


@pytest.mark.parametrize("layer", [nn.ReLU, ByItsMode], ids=["modules", "python"])
@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_a_graph_in_training_moved_statistics_and_drew_numbers_when_it_began(qat, layer):
    """Thresholds depended on torch's seed, were not those of eager mode, and the float model was another."""
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    found, outputs = [], []
    for mode in MODES:
        for seed in (1, 2):
            m = normalized(layer())
            before = copy.deepcopy(m.state_dict())
            torch.manual_seed(seed)
            drawn = torch.get_rng_state()
            one = nx.wrap(m, "int4", activations="int8", example=x, mode=mode, qat=qat)
            assert torch.equal(torch.get_rng_state(), drawn)
            assert all(torch.equal(a, before[name]) for name, a in m.state_dict().items())
            assert one.training
            assert m.training
            found.append(scales(one))
            outputs.append(one(x))
    assert len(found[0]) == 4
    assert all(other == found[0] for other in found[1:])
    assert torch.equal(outputs[1], outputs[3])  # of the same seed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "change", [lambda m: m, lambda m: m.double(), nx.freeze], ids=["", "moved", "frozen"]
)
def test_what_looks_at_a_model_in_training_looks_at_it_in_evaluation(mode, change):
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    m, due = normalized(), normalized().eval()
    one = change(nx.wrap(m, "int4", activations="int8", example=x, mode=mode, qat="ste"))
    plain = change(nx.wrap(due, "int4", activations="int8", example=x))
    with torch.no_grad():
        for p, q in zip(one.parameters(), plain.parameters(), strict=True):
            if p.is_floating_point() and not isinstance(p, nx.QTensor):
                p.mul_(1.5)
                q.mul_(1.5)
    x = x.to(plain[1].weight.dtype)
    m, due = m.to(x.dtype), due.to(x.dtype)
    before, drawn = copy.deepcopy(one.state_dict()), torch.get_rng_state()
    assert nx.compare(one, plain, [x, x[:3]]).equal
    assert nx.report(one, m, [x, x[:3]]).as_dict() == nx.report(plain, due, [x, x[:3]]).as_dict()
    assert torch.equal(torch.get_rng_state(), drawn)
    after = one.state_dict()
    assert all(torch.equal(a, after[name]) for name, a in before.items() if isinstance(a, torch.Tensor))
    assert not any(isinstance(b, torch.Tensor) and b.any() for name, b in m.named_buffers() if "mean" in name)


@pytest.mark.parametrize("mode", MODES)
def test_calibration_in_training_finds_the_scales_of_evaluation(mode):
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    m, due = normalized(), normalized().eval()
    options = {"activations": "int8", "observer": "min_max", "example": x}
    one = nx.calibrate(nx.wrap(m, "int4", mode=mode, qat="ste", **options), [x, 2 * x])
    plain = nx.calibrate(nx.wrap(due, "int4", **options), [x, 2 * x])
    assert scales(one) == scales(plain)


class Counting(nn.Module):
    """Writes into a buffer and an attribute in evaluation, too."""

    def __init__(self):
        super().__init__()
        self.layer, self.count = nn.Linear(64, 64), 0
        self.table = nn.Embedding(4, 64, max_norm=1.0)
        self.register_buffer("seen", torch.zeros(64))

    def forward(self, x):
        self.seen.add_(x.mean(0))
        self.count += 1
        return self.layer(x) + self.seen + self.table(torch.arange(2))


@pytest.mark.parametrize("mode", MODES)
def test_a_look_at_a_model_left_what_its_forward_writes(mode):
    x = torch.ones(2, 64)
    m = Counting().eval()
    before = m.table.weight.detach().clone()
    one = nx.wrap(m, "int4", activations="int8", observer="min_max", example=x, mode=mode)
    nx.calibrate(one, [x, x])
    nx.compare(m, one, [x])
    nx.report(one, m, [x])
    nx.sweep(m, ["int4"], [x], mode=mode)
    assert not m.seen.any()
    assert torch.equal(m.table.weight, before)
    assert m.count == 0


class Steps(nn.Module):
    """A loop of n products with one matrix."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(32) * 3)

    def forward(self, x, n=1):
        for _ in range(n):
            x = x @ self.matrix
        return x


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("options", [{"observer": "min_max"}, {"qat": "lsq"}, {"qat": "tqt"}])
def test_a_longer_scan_took_the_scale_of_the_only_step_that_was_calibrated(options, first):
    x = torch.linspace(-1, 1, 64).reshape(2, 32)
    one = nx.wrap(Steps(), "int4", activations="int8", example={"x": x, "n": first}, **options)
    if "observer" in options:
        nx.calibrate(one, [{"x": x, "n": first}])
    one(x, first)
    for n in (first + 1, first + 3):
        with pytest.raises(nx.NumericsError, match=f"meets number {first + 1} with matrix, of which it had"):
            one(x, n)
    own = nx.wrap(Steps(), "int4", activations="int8", example={"x": x, "n": first})
    assert own(x, first + 3).shape == x.shape  # each tensor brings its own scale


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_an_observer_whose_scales_are_learned_had_no_effect_and_nothing_said_so(qat, mode):
    m, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)), torch.ones(2, 64)
    given = {"activations": "int8", "example": x, "mode": mode}
    due = r"observer='percentile\(50\)' finds .* qat='" + qat + "' learns that of {0-1}:linear"
    with pytest.raises(nx.NumericsError, match=due):
        nx.wrap(m, "int8", qat=qat, observer="percentile(50)", **given)
    plan = nx.plan(m, "int8", observer="percentile(50)", **given)
    with pytest.raises(nx.NumericsError, match=due):
        nx.wrap(m, plan, qat=qat)
    nx.wrap(m, plan, qat="ste")
    by_rule = {"0": {"activations": "int4", "observer": "mse"}}
    with pytest.raises(nx.NumericsError, match="observer='mse'"):
        nx.wrap(m, "int8", qat=qat, rules=by_rule, **given)


def test_an_observer_of_what_is_not_learned_stands_beside_qat():
    m, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)), torch.ones(2, 64)
    rules = {"1": {"activations": "float8_e4m3fn"}}
    one = nx.wrap(m, "int8", activations="int8", qat="tqt", observer="mse", rules=rules, example=x)
    assert nx.calibrate(one, [x])[1].quantize_linear_0.scale is not None


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_activations_had_a_place_in_plan_and_only_a_name_in_wrap(mode):
    model, x = nn.Sequential(nn.Linear(64, 64)), torch.linspace(-1, 1, 128).reshape(2, 64)
    due = nx.wrap(model, nx.plan(model, "mxfp4", "mxfp8_e4m3", example=x, mode=mode))
    wrapped = nx.wrap(model, "mxfp4", "mxfp8_e4m3", example=x, mode=mode)
    named = nx.wrap(model, weights="mxfp4", activations="mxfp8_e4m3", example=x, mode=mode)
    assert torch.equal(wrapped(x), due(x))
    assert torch.equal(named(x), due(x))
    with pytest.raises(nx.NumericsError, match="activations beside a Plan"):
        nx.wrap(model, nx.plan(model, "mxfp4", example=x), "mxfp8_e4m3")
    with pytest.raises(TypeError):
        nx.wrap(model, "mxfp4", "mxfp8_e4m3", "int8", example=x)
    places = [
        [
            one.name
            for one in inspect.signature(call).parameters.values()
            if one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        for call in (nx.plan, nx.wrap)
    ]
    assert places == [["model", "weights", "activations"], ["model", "plan", "activations"]]


def test_quantize_takes_options_of_a_spec_and_says_where_others_are():
    def floats():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(64, 64))

    due = nx.quantize_(floats(), nx.QuantSpec("int4", scheme=nx.per_group(32)))
    for dtype, options in (("int4", {"scheme": nx.per_group(32)}), ("int4 per_group(32)", {})):
        assert torch.equal(nx.quantize_(floats(), dtype, **options)[0].weight.packed, due[0].weight.packed)
    for name, came, told in [
        ("activations", "int8", "nx.wrap"), ("exclude", ["0"], "rules="), ("group_size", 32, "scheme="),
        ("shceme", None, "did you mean 'scheme'"),
    ]:  # fmt: skip
        with pytest.raises(nx.NumericsError, match=told):
            nx.quantize_(floats(), "int4", **{name: came})
    with pytest.raises(
        nx.NumericsError, match=r"^a Plan is no format: nx\.freeze\(nx\.wrap\(model, plan\)\)"
    ):
        nx.quantize_(floats(), nx.plan(floats(), "int4"))
    with pytest.raises(nx.NumericsError, match="QuantSpec already"):
        nx.quantize_(floats(), nx.QuantSpec("int4"), scheme="per_token")


def test_rules_say_none_in_a_word_and_what_is_inside_of_a_module():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Sequential(torch.nn.Linear(64, 8)))
    rows = [nx.plan(model, "mxfp4", rules={"0": word}).rows for word in (None, "none", "keep", "float")]
    assert all([row.spec for row in some] == [row.spec for row in rows[0]] for some in rows)
    with pytest.raises(nx.NumericsError, match=r"\(did you mean '1\.\*'\?\)"):
        nx.plan(model, "mxfp4", rules={"1": "int8"})


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("spec", ["nvfp4", "mxfp4", "mx6", "int4 per_group(16)"])
def test_a_weight_that_is_cut_within_a_block_is_not_packed(spec, mode):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(32, 32) / 4)

        def forward(self, x):
            return x @ self.w[:, :24].T

    name, _, scheme = spec.partition(" ")
    spec = nx.QuantSpec(name, scheme=scheme) if scheme else name
    model, x = Cut().eval(), torch.randn(3, 24)
    wrapped = nx.wrap(model, spec, example=x, mode=mode)
    due = wrapped(x)
    with pytest.raises(nx.NumericsError, match=r"^w: a forward takes parts of it.*keep='values'"):
        nx.freeze(wrapped)
    assert torch.equal(wrapped(x), due)
    assert torch.equal(nx.freeze(wrapped, keep="values")(x), due)
    with pytest.raises(nx.NumericsError, match=r"^w: a forward takes parts"):
        nx.quantize_(model, spec, example=x)
    assert type(model.w) is nn.Parameter
