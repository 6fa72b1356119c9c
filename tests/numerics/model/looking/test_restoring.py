"""A model that was looked at is what it was before: buffers, attributes and renormalized embeddings."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

import numerics as nx


class Writing(nn.Module):
    """Has a forward that writes into all that a module can hold."""

    def __init__(self):
        super().__init__()
        self.layer, self.table = nn.Linear(8, 8), nn.Embedding(8, 8, max_norm=0.1)
        self.register_buffer("keys", torch.zeros(4, 8))
        self.register_buffer("mean", torch.zeros(8))
        self.step, self.log, self.by_name, self.seen = 0, [], {}, torch.zeros(3)

    def forward(self, x, ids):
        y = self.layer(x) + self.table(ids)
        self.keys[self.step] = y[0].detach()
        self.mean = self.mean + y[0].detach()
        self.step += 1
        self.log.append(self.step)
        self.by_name[self.step] = True
        self.seen.add_(1)
        self.cached = self.layer.weight.detach().t()
        return y


X = (torch.ones(2, 8), torch.tensor([1, 2]))


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # torch's own, of what is assigned in a forward
@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("look", [nx.plan, partial(nx.wrap, qat="tqt")], ids=["plan", "wrap"])
def test_looking_at_a_model_changes_it(mode, look):
    """The cache of keys went on by a step, and an embedding was renormalized."""
    torch.manual_seed(0)
    model = Writing().eval()
    before = copy.deepcopy(model)
    look(model, "int8", activations="int8", example=X, mode=mode)
    assert all(torch.equal(x, before.state_dict()[name]) for name, x in model.state_dict().items())
    assert (model.step, model.log, model.by_name) == (0, [], {})
    assert not hasattr(model, "cached")
    assert torch.equal(model.seen, torch.zeros(3))
    model(*X)
    assert (model.step, model.log) == (1, [1])
    assert bool(model.keys[0].any())


class Trains(nn.Linear):
    """Writes into its own weight."""

    def forward(self, x):
        self.weight.mul_(0.5)
        return super().forward(x)


def test_a_forward_that_writes_into_a_parameter_goes_unsaid():
    with pytest.raises(nx.NumericsError, match=r"writes into weight.*copy\.deepcopy"):
        nx.plan(Trains(8, 8), "int8", example=X[0])


class Net(nn.Module):
    """Has a normalization, tied weights, and a parameter whose output channels are its second axis."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.u, self.t, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Parameter(torch.randn(16, 8))
        self.t.weight = self.u.weight

    def forward(self, x):
        return self.t(self.u(self.norm(self.conv(x))).relu()) @ self.v


MODES = ("eager_mode", "fx_graph_mode")
ROWS = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(5))
PER_CHANNEL = nx.QuantSpec("int4", scheme="per_channel")


def learned(mode="eager_mode", qat="lsq", weights=PER_CHANNEL):
    torch.manual_seed(0)
    return nx.wrap(Net().eval(), weights, activations="int8", qat=qat, example=ROWS, mode=mode)


def observed(mode):
    torch.manual_seed(0)
    options = {"activations": "int8", "observer": "min_max", "example": ROWS, "mode": mode}
    return nx.calibrate(nx.wrap(Net().eval(), "int4", **options), [ROWS])


@pytest.mark.parametrize("keep", ["packed", "values"])
@pytest.mark.parametrize("mode", MODES)
def test_output_channels_of_another_axis_are_not_frozen(mode, keep):
    one = learned(mode)
    out = one(ROWS)
    nx.freeze(one, keep)
    with nx.decoded_products():
        assert torch.equal(one(ROWS), out)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("qat", ["lsq", "tqt"])
@pytest.mark.parametrize("mode", MODES)
def test_a_learned_value_that_is_no_number_is_frozen(mode, qat, bad):
    one = learned(mode, qat, PER_CHANNEL if qat == "lsq" else "int4")
    out = one(ROWS)
    for k, threshold in enumerate(nx.train.thresholds(one)):
        before = threshold.detach().clone()
        threshold.data.fill_(bad)
        with pytest.raises(
            nx.NumericsError, match=r"NaN or Inf is in the scales of [\w.:\[\]]+: (step|log2)"
        ):
            nx.freeze(one, ("packed", "values")[k % 2])
        threshold.data.copy_(before)
        assert torch.equal(one(ROWS), out)


def interrupted(call, at):
    """Did the call end before its function of numerics.model of that number, in which it is interrupted?"""
    count = 0

    def step(frame, event, _):
        nonlocal count
        name = frame.f_globals.get("__name__", "")
        ours = name.startswith("numerics.model") and name != "numerics.model.looking.restoring"
        if event == "call" and ours and frame.f_code.co_name != "<genexpr>":  # whose end raises nothing
            count += 1
            if count == at:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(step)
    try:
        call()
    except KeyboardInterrupt:
        return False
    finally:
        sys.setprofile(None)
    return True


def parts(one):
    """What a model has: its modules, their classes and children, and the tensors of its state."""
    modules = [(name, type(x), list(map(id, x._modules.values())), len(x._state_dict_hooks))
               for name, x in one.named_modules(remove_duplicate=False)]  # fmt: skip
    state = one.state_dict(keep_vars=True)
    return modules, [(name, id(x), x.tolist()) for name, x in state.items() if name[-6:] != "_state"]


CHANGES = {
    **{f"freeze {mode}": (lambda mode=mode: learned(mode), nx.freeze) for mode in MODES},
    **{f"unwrap {mode}": (lambda mode=mode: learned(mode), nx.unwrap) for mode in MODES},
    **{f"calibrate {mode}": (lambda mode=mode: observed(mode), lambda one: nx.calibrate(one, [2 * ROWS]))
       for mode in MODES},
    "quantize_": (lambda: Net().eval(), lambda one: nx.quantize_(one, "int4", example=ROWS)),
}  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", CHANGES)
def test_an_interrupt_leaves_half_a_change(name):
    make, change = CHANGES[name]
    one, at = make(), 1
    before, out = parts(one), one(ROWS)
    while not interrupted(lambda: change(one), at):
        assert parts(one) == before, at
        assert torch.equal(one(ROWS), out), at
        at += 1 if at < 60 else 17
    assert at > 5


def test_a_failed_calibration_begins_what_is_learned():
    x, floats = torch.randn(3, 8), nn.Sequential(nn.Linear(8, 8))
    plan = replace(nx.plan(floats, "int4", activations="int8", example=x), example=None)  # as of a file
    one, other = nx.wrap(floats, plan, qat="lsq"), nx.wrap(floats, plan, qat="lsq")
    learns = nx.train.thresholds(one)
    with pytest.raises(nx.NumericsError, match="batch 1 has NaN"):
        nx.calibrate(one, [x, x * float("nan")])
    assert list(map(id, nx.train.thresholds(one))) == list(map(id, learns))
    assert list(map(is_lazy, learns)) == [False, True], "the activation's waits as before"
    nx.calibrate(one, [2 * x])
    assert torch.equal(one(x), nx.calibrate(other, [2 * x])(x))


def test_a_file_that_breaks_off_is_half_loaded(tmp_path, monkeypatch):
    torch.manual_seed(0)
    one, other = Net(), Net()
    nx.save(other.state_dict(), tmp_path / "a.safetensors")
    before = parts(one)

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr("numerics.model.loading.replace", fails)
    with pytest.raises(MemoryError):
        nx.load_into(one, tmp_path / "a.safetensors")
    assert parts(one) == before
