"""Names: modules that came around, beside or in the place of planned ones, and what reads the plan then."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import numerics as nx

X = torch.linspace(-1, 1, 2 * 64).reshape(2, 64)


class Lora(nn.Module):
    """An adapter around a layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.ones(4, 64))
        self.lora_B = nn.Parameter(torch.zeros(64, 4))

    def forward(self, x):
        return self.base(x) + (x @ self.lora_A.T) @ self.lora_B.T


def _floats():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))


def _adapted(model):
    for k in (0, 1):
        model[k] = Lora(model[k])
    return model


def _replaced(model):
    model[1] = nn.Linear(64, 8)
    return model


def _cut(model):
    del model[1]
    return model


def _doubled(model):
    return model.append(copy.deepcopy(model[1]))


def _dropped_out(model):
    model[0] = nn.Sequential(model[0], nn.Dropout(0.0))
    return model


def _checkpointed(model):
    model[0] = checkpoint_wrapper(model[0])
    return model


def _put_before(model):
    return model.insert(0, nn.Identity())


def _tied(model):
    model[1] = model[0]
    return model


CHANGES = (
    _adapted, _replaced, _cut, _doubled, _dropped_out, _checkpointed, _put_before, _tied
)  # fmt: skip
PLANS = {
    "weights": {},
    "both": {"activations": "int8"},
    "observed": {"activations": "int8", "observer": "min_max"},
    "learned": {"activations": "int8", "qat": "tqt"},
}


def _changed(change, options, frozen):
    qat = {"qat": options["qat"]} if "qat" in options else {}
    plan = {name: value for name, value in options.items() if name != "qat"}
    model = nx.wrap(_floats(), "int8", example=X, **plan, **qat)
    if "observer" in plan:
        nx.calibrate(model, [X])
    model = change(nx.freeze(model) if frozen else model)
    if change in (_adapted, _replaced):
        nx.admit(model)
    return model


@pytest.mark.turns(6)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("options", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_takes_its_own_state(change, options, frozen):
    model = _changed(change, options, frozen)
    expected, state = model(X), copy.deepcopy(model.state_dict())
    assert not any(model.load_state_dict(state))
    assert torch.equal(model(X), expected)
    assert not any(_changed(change, options, frozen).load_state_dict(state))
    assert not model.load_state_dict({}, strict=False).unexpected_keys


@pytest.mark.turns(6)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("options", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_frozen_and_copied(change, options, frozen):
    model = _changed(change, options, frozen)
    expected = model(X)
    if not frozen:
        nx.freeze(model, keep="values")
        assert torch.equal(model(X), expected)
        assert not any(getattr(type(module), "numerics_leaves", ()) for module in model.modules())
    other = copy.deepcopy(model)
    assert not any(other.load_state_dict(model.state_dict()))
    assert torch.equal(other(X), expected)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("change", [_adapted, _dropped_out, _checkpointed, _put_before])
def test_a_report_finds_the_layers_of_the_model_that_was_wrapped(change, frozen):
    plain = nx.wrap(_floats(), "int8", activations="int8", example=X)
    due = nx.report(nx.freeze(plain) if frozen else plain, None, [X])
    model = _changed(change, PLANS["both"], frozen)
    assert nx.report(model, None, [X]).layers == due.layers
    assert nx.report(model, _floats(), [X]).layers == due.layers


def test_a_report_names_layers_as_a_reference_with_the_same_adapters_does():
    model = _changed(_adapted, {}, True)
    found = nx.report(model, _adapted(_floats()), [X])
    assert {one.name for one in found.layers} == {"0.base", "1.base"}
    assert all(one.nbytes and one.local > 20 for one in found.layers)


def test_a_report_leaves_out_what_was_taken_out():
    model = nx.admit(_replaced(nx.wrap(_floats(), "int8", example=X)), "1")
    with pytest.raises(nx.NumericsError, match="do not correspond"):
        nx.report(model, None, [X])
    model = _cut(nx.wrap(_floats(), "int8", example=X))
    assert [one.name for one in nx.report(model, None, [X]).layers] == ["0"]


def test_adapters_alone_are_loaded():
    model, other = (_changed(_adapted, {}, True) for _ in range(2))
    with torch.no_grad():
        model[0].lora_B.add_(1)
    adapters = {name: x for name, x in model.state_dict().items() if "lora" in name}
    missing, unexpected = other.load_state_dict(adapters, strict=False)
    assert not unexpected
    assert {name.split(".")[1] for name in missing} == {"base"}
    assert torch.equal(other(X), model(X))


def test_a_state_of_floats_is_refused_under_the_new_names():
    model = _changed(_adapted, {}, True)
    state = dict(model.state_dict())
    state["0.base.weight"] = torch.ones(64, 64)
    with pytest.raises(nx.NumericsError, match=r"0\.base\.weight of this frozen model is packed as int8"):
        model.load_state_dict(state)
    model = _changed(_checkpointed, {}, True)
    with pytest.raises(nx.NumericsError, match=r"0\.weight of this frozen model is packed as int8"):
        model.load_state_dict(_floats().state_dict())


@pytest.mark.parametrize("options", [PLANS["weights"], PLANS["both"], PLANS["observed"]])
@pytest.mark.parametrize("change", [_adapted, _dropped_out, _cut])
def test_a_file_of_a_changed_model_makes_it_of_a_float_one(change, options, tmp_path):
    model = _changed(change, options, True)
    nx.save(model.state_dict(), tmp_path / "a.safetensors")
    loaded = nx.load_into(change(_floats()), tmp_path / "a.safetensors")
    assert torch.equal(loaded(X), model(X))
    assert torch.equal(nx.load_into(_changed(change, options, True), tmp_path / "a.safetensors")(X), model(X))


def test_a_pickle_keeps_the_names(tmp_path):
    torch.save(_changed(_adapted, PLANS["observed"], True), tmp_path / "a.pt")
    loaded = torch.load(tmp_path / "a.pt", weights_only=False)
    assert not any(loaded.load_state_dict(loaded.state_dict()))
    assert len(nx.report(loaded, _floats(), [X]).layers) == 2


def test_what_came_in_is_not_lost_where_the_wrapped_model_comes_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)).eval()
    wrapped = nx.wrap(model, "int8", example=torch.ones(1, 4, 8), fold=True)
    assert nx.unwrap(wrapped) is model
    wrapped.append(nn.Linear(6, 2))
    with pytest.raises(nx.NumericsError, match=r"2\.weight.*other modules"):
        nx.unwrap(nx.admit(wrapped, "2"))


def test_a_deleted_parameter_is_named_as_it_is_called_now():
    model = _changed(_adapted, {}, False)
    model[0].base.weight = None
    with pytest.raises(nx.NumericsError, match=r"0\.base\.weight is quantized when it is read, and was del"):
        model(X)
