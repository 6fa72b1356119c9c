"""Modules that are converted while a graph, an exported program or a reference holds their QTensors."""

import copy
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn

import numerics as nx

X = torch.linspace(-1, 1, 2 * 64).reshape(2, 64)
TYPES = (torch.float16, torch.bfloat16, torch.float64)
FORMATS = (
    "mxfp4",
    "int4",
    "nvfp4",
    "nf4",
    "fp8_e4m3",
    nx.QuantSpec("int8", symmetric=False, scheme="per_token"),
)


def _plain(fmt):
    """Modules of torch's own, with QTensors that somebody put there, tied."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64))
    for module in (model[0], model[2]):
        module.weight = nn.Parameter(nx.quantize(module.weight.detach(), fmt), requires_grad=False)
    model.append(nn.Linear(64, 64)).append(nn.LayerNorm(64))
    model[4].weight = model[0].weight
    return model


def _frozen(fmt):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8), nn.LayerNorm(8))
    return nx.freeze(nx.wrap(model, fmt, example=X))


def _graph(fmt):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8), nn.LayerNorm(8))
    return nx.freeze(nx.wrap(model, fmt, example=X, mode="fx_graph_mode"))


def _output(model):
    return model(X)


def _output_and_gradient(model):
    return model(X.clone().requires_grad_())


def _program(model):
    return torch.export.export(model, (X,))


def _weak(model):
    return [weakref.ref(x) for x in model.parameters()]


def _state(model):
    return model.state_dict(keep_vars=True)


HOLDERS = (_output, _output_and_gradient, _program, _weak, _state)


def _held(model):
    return {name: x for name, x in model.named_parameters() if isinstance(x, nx.QTensor)}


@pytest.mark.turns(6)
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("made", [_plain, _frozen, _graph])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_model_whose_weights_are_held_becomes_the_same_as_one_whose_are_not(made, holder, dtype):
    due = made("mxfp4").to(dtype)
    model = made("mxfp4")
    before, kept = _held(model), holder(model)
    with warnings.catch_warnings():
        if dtype == torch.float64:  # in which other values are due, so that the weights become floats
            warnings.simplefilter("ignore", nx.NumericsWarning)
        assert model.to(dtype) is model
    assert {x.dtype for x in model.parameters()} == {dtype}
    assert torch.equal(model(X.to(dtype)), due(X.to(dtype)))
    assert all(x is before[name] for name, x in _held(model).items())
    assert bool(_held(model)) == (dtype != torch.float64)
    assert not any(model.load_state_dict(model.state_dict()))
    assert kept is not None


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_keeps_its_codes_and_reads_as_the_new_type(fmt):
    model, due = _plain(fmt), _plain(fmt).half()
    out = model(X)
    model.half()
    for name, x in model.named_parameters(remove_duplicate=False):
        other = due.get_parameter(name)
        assert (type(x), x.dtype) == (type(other), other.dtype)
        if isinstance(x, nx.QTensor):
            assert (x.spec, x.original) == (other.spec, "float16")
            assert torch.equal(x.packed, other.packed)
        values, expected = ((y.dequantize() if isinstance(y, nx.QTensor) else y) for y in (x, other))
        assert torch.equal(values, expected)
    assert model[4].weight is model[0].weight
    assert out.dtype == torch.float32


def test_there_and_back_and_what_is_made_of_it():
    model = _plain("mxfp4")
    due, out = model[0].weight.dequantize(), model(X)
    model.bfloat16().float()
    assert torch.equal(model[0].weight.dequantize(), due)
    assert out.dtype == model(X).dtype
    again = pickle.loads(pickle.dumps(model[0].weight))
    assert torch.equal(again.dequantize(), copy.deepcopy(model[0].weight).dequantize())
    assert not any(model.load_state_dict(model.state_dict()))


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_held_goes_to_another_device_and_stays_tied(holder):
    model = _plain("mxfp4")
    kept = holder(model)
    model.to("meta")
    assert {x.device.type for x in model.parameters()} == {"meta"}
    assert model[4].weight is model[0].weight
    assert isinstance(model[0].weight, nx.QTensor)
    assert isinstance(model[0].weight, nn.Parameter)
    assert kept is not None


def test_the_same_codes_outside_of_a_module():
    q = nn.Parameter(nx.quantize(torch.ones(4, 64), "mxfp4"), requires_grad=False)
    kept = nn.functional.linear(X.clone().requires_grad_(), q)
    assert isinstance(q.half(), nx.QTensor)
    assert q.dtype == torch.float32
    assert kept.grad_fn is not None


@pytest.mark.parametrize("make", [_frozen, _graph, _plain])
@pytest.mark.parametrize("held", [False, True])
def test_a_gradient_of_packed_weights_goes_along(make, held):
    """`out_param.grad must not be None` of torch's left the model half in another type."""
    model = make("int8").requires_grad_(True)
    y = model(X)
    y.sum().backward(retain_graph=held)
    before = {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}
    count = len(list(model.parameters()))
    if not held:
        del y
    model.double()
    assert before
    assert {x.dtype for x in model.parameters()} == {torch.float64}
    assert len(list(model.parameters())) == count
    for name, x in model.named_parameters():
        if name in before:
            assert torch.equal(x.grad, before[name].double())
    assert model(X.double()).dtype == torch.float64
