"""A module that comes into a wrapped model later is named, or let in when somebody asks for it."""

from __future__ import annotations

import copy
import pickle
import weakref

import pytest
import torch
from torch import nn

import numerics as nx
from numerics.formats.errors import NumericsWarning
from numerics.model.wrapped import structure

X = torch.linspace(-1, 1, 256).reshape(4, 64)
IN = "came into this model after it was wrapped"


def made(mode="eager_mode", **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, 64))
    return nx.wrap(model, "int8", activations="int8", example=X, mode=mode, **options)


class Adapter(nn.Module):
    """A narrow product beside what it stands for, as adapters have it."""

    def __init__(self, base):
        super().__init__()
        self.base, self.lora_A, self.lora_B = base, nn.Linear(64, 4, bias=False), nn.Linear(4, 64, bias=False)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


def beside(model):
    model.append(nn.Linear(64, 64))
    return ["2"]


def in_the_place(model):
    model[1] = nn.Linear(64, 64)
    return ["1"]


def inside_of_what_stayed_float(model):
    model[0][1] = nn.Sequential(nn.Conv1d(4, 4, 1))
    return [r"0\.1\.0"]


def lazy(model):
    model[1] = nn.LazyLinear(64)
    return ["1"]


def around(model):
    model[1] = Adapter(model[1])
    return [r"1\.lora_A", r"1\.lora_B"]


def by_hand(model):
    model._modules["1"] = nn.Linear(64, 64)
    return ["1"]


CHANGES = [beside, in_the_place, inside_of_what_stayed_float, lazy, around, by_hand]
CALLS = {
    "forward": lambda m: m(X),
    "state": lambda m: m.state_dict(),
    "report": lambda m: nx.report(m, batches=[X]),
    "freeze": nx.freeze,
    "calibrate": lambda m: nx.calibrate(m, [X]),
    "export": lambda m: torch.export.export(m, (X,)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_came_in_later_ran_in_float_without_a_word(change, call):
    model = made(**({"observer": "min_max"} if call == "calibrate" else {}))
    if call != "calibrate":
        model(X)
    names = change(model)
    if change is lazy and call == "export":
        pytest.skip("torch.export looks at parameters before it calls, and refuses these in its own words")
    for _ in range(2):
        with pytest.raises(nx.NumericsError, match=IN) as caught:
            CALLS[call](model)
        assert all(name.replace("\\", "") in str(caught.value) for name in names)


@pytest.mark.parametrize("kind", ["frozen", "quantize_", "copy", "pickle", "loaded"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_came_into_a_model_of_another_kind_ran_without_a_word(change, kind, tmp_path):
    model = made()
    if kind == "quantize_":
        model = nx.quantize_(nx.unwrap(model), "int8")
    elif kind == "copy":
        model = copy.deepcopy(model)
    elif kind == "pickle":
        model = pickle.loads(pickle.dumps(model))
    else:
        nx.freeze(model)
    if kind == "loaded":
        nx.save(model.state_dict(), tmp_path / "m.safetensors")
        model = nx.load_into(nx.unwrap(made()), tmp_path / "m.safetensors")
    model(X)
    change(model)
    with pytest.raises(nx.NumericsError, match=IN):
        model(X)


@pytest.mark.parametrize("freeze", [False, True])
def test_what_is_let_in_is_refused(freeze):
    model = made()
    model = nx.freeze(model) if freeze else model
    due = model(X)
    around(model)
    with pytest.raises(nx.NumericsError, match="'head' is no module that came into this model"):
        nx.admit(model, "head")
    nx.admit(model, "1.lora_A")
    with pytest.raises(nx.NumericsError, match=r"^1\.lora_B came"):
        model(X)
    assert nx.admit(model, "*.lora_*") is model
    nn.init.zeros_(model[1].lora_B.weight)
    assert torch.equal(model(X), due)
    assert torch.equal(copy.deepcopy(model)(X), due)
    assert set(model.state_dict()) >= {"1.lora_A.weight", "1.lora_B.weight"}
    model[1].lora_B = nn.Linear(4, 64)
    with pytest.raises(nx.NumericsError, match=r"^1\.lora_B came"):
        model(X)
    nx.admit(model)(X)
    with pytest.raises(nx.NumericsError, match="has no module that came"):
        nx.admit(model)


@pytest.mark.parametrize(
    "module",
    [nn.Identity(), nn.LayerNorm(64), nn.Dropout(0.0), nn.Sequential()], ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_what_has_no_matrix_is_refused(module):
    model = made()
    model(X)
    model.append(module)
    assert model(X).shape == X.shape


def test_what_goes_around_or_away_is_refused():
    model = made()
    due = model(X)
    model[0] = nn.Sequential(model[0])
    assert torch.equal(model(X), due)
    del model[1]
    model(X)


def test_a_packed_layer_that_comes_in_is_refused():
    model, layer = nx.freeze(made()), nx.quantize_(nn.Sequential(nn.Linear(64, 64)), "int8")
    model.append(layer[0])
    model(X)


def test_a_module_that_a_graph_never_calls_came_in_without_a_word():
    model = made("fx_graph_mode")
    model(X)
    model.add_module("head", nn.Linear(64, 4))
    for call in (model, nx.freeze, lambda _: model.state_dict(), lambda _: nx.report(model)):
        with pytest.raises(nx.NumericsError, match="head came into this graph after it was wrapped"):
            call(X if call is model else model)
    with pytest.raises(nx.NumericsError, match="a graph calls no module"):
        nx.admit(model)
    del model.head
    model(X)


def test_notes_of_a_wrapped_model_stay_after_it():
    model = nx.unwrap(made())
    assert not any("numerics" in name for module in model.modules() for name in module.__dict__)


def test_torch_compile_says_nothing_of_what_it_does_not_see():
    model = made()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with pytest.warns(NumericsWarning, match="know the products of this wrapped model by their order"):
        compiled(X)
    assert torch.equal(compiled(X[:2]), model(X[:2]))  # and once
    model[1] = nn.Linear(64, 64)
    with pytest.raises(Exception, match=IN):
        compiled(X)
    nx.admit(model)
    assert torch.equal(compiled(X), model(X))


def test_torch_compile_of_weights_alone_warns():
    model = nx.wrap(nn.Sequential(nn.Linear(64, 64)), "int8", example=X)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(X), model(X))


class Lora(nn.Module):
    """A wrapper around a layer, with parameters of its own."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.lora_A, self.lora_B = (nn.Parameter(torch.ones(shape) / 64) for shape in ((4, 64), (64, 4)))

    def forward(self, x):
        return self.base(x) + (x @ self.lora_A.T) @ self.lora_B.T


@pytest.mark.parametrize("several", [False, True])
def test_the_call_that_is_named_admits_wrappers_around_layers(several):
    """The pattern of the docs was of no module, and what was named admitted the first alone."""
    model = nx.freeze(made())
    model[0][0], model[1] = Lora(model[0][0]), Lora(model[1])
    with pytest.raises(nx.NumericsError, match=IN) as caught:
        model(X)
    with pytest.raises(nx.NumericsError, match=r"'\*\.lora_A' is no module.*lets all of them in") as other:
        nx.admit(model, "*.lora_A")
    for wrong in (caught, other):
        call = str(wrong.value).partition("nx.admit(")[2].partition(") lets")[0]
        again = copy.deepcopy(model)
        exec(f"nx.admit({call})", {"nx": nx, "model": again})
        assert again(X).shape == X.shape
    if several:
        assert nx.admit(model, "0.0", "1")(X).shape == X.shape
    with pytest.raises(nx.NumericsError, match=r"is no name of a module|has no module that came"):
        nx.admit(model, "0.0", 3)


def test_a_pattern_names_wrappers_of_alike_layers():
    model = nx.quantize_(nn.Sequential(*(nn.Linear(64, 64) for _ in range(3))), "int8")
    for k in range(3):
        model[k] = Lora(model[k])
    with pytest.raises(nx.NumericsError, match=r"^\{0-2\} came.*nx\.admit\(model, '\*'\) lets all in"):
        model(X)


class Optional(nn.Linear):
    """A layer with a matrix that may be there, as some have a gate or a projection."""

    def __init__(self):
        super().__init__(64, 64)
        self.register_parameter("extra", None)
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, x):
        x = super().forward(x) * self.scale
        return x if self.extra is None else x @ self.extra


def registered(module, leaf):
    setattr(module, leaf, nn.Parameter(torch.ones(64, 64)))


def directly(module, leaf):
    module._parameters[leaf] = nn.Parameter(torch.ones(64, 64))


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("put", [registered, directly])
@pytest.mark.parametrize("keep", [None, "packed"])
@pytest.mark.parametrize("leaf", ["extra", "other", "scale", "weight"])
def test_a_parameter_that_came_in_later_was_computed_with_in_float(leaf, keep, put, mode):
    if leaf == "weight" and not keep:
        pytest.skip("that is a trained parameter")
    model = nx.wrap(nn.Sequential(Optional()), "int8", example=X, mode=mode)
    if keep:
        nx.freeze(model, keep=keep)
    model(X)
    put(model.get_submodule("0"), leaf)
    x = X.repeat(16, 1)
    for call in (lambda: model(x), model.state_dict, lambda: nx.report(model, batches=[x]), lambda: model(x)):
        with pytest.raises(nx.NumericsError, match=rf"0\.{leaf} came into this"):
            call()
    if mode == "eager_mode":
        assert leaf in "".join(nx.admit(model, f"0.{leaf}").state_dict())
        assert model(x).shape == x.shape


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_model_that_stays_as_it_is_is_not_looked_at_again(mode, monkeypatch):
    model = nx.wrap(nn.Sequential(Optional()), "int8", example=X, mode=mode)
    due, looked = model(X), []
    monkeypatch.setattr(structure, "_strangers", lambda *_: looked.append(1) or ())
    assert torch.equal(model(X), due)
    assert not looked
    model.get_submodule("0").weight = nn.Parameter(torch.ones(64, 64))
    model(X)
    model(X)
    assert len(looked) == 1


def test_what_was_looked_at_is_not_kept_from_being_freed():
    model = nx.wrap(nn.Sequential(nn.Linear(64, 64)), "int8", example=X)
    model[0].weight = nn.Parameter(torch.ones(64, 64))  # the first is of the model that was wrapped, too
    model(X)
    was = weakref.ref(model[0]._parameters["weight"])
    model[0].weight = nn.Parameter(torch.ones(64, 64))
    assert was() is None


def test_a_trained_parameter_takes_the_place_of_a_planned_one():
    model = nx.wrap(nn.Sequential(nn.Linear(64, 64)), "int8", example=X)
    model[0].weight = nn.Parameter(torch.ones(64, 64))
    assert nx.freeze(model)[0].weight.spec == nx.QuantSpec("int8")
