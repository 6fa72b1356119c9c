"""The way of a call with a tensor: torch's operator where torch looks on, its kernel at once elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import numerics as nx
from numerics.pytorch import operators

X = torch.linspace(-3, 3, 64).reshape(2, 32)


class Seen(TorchDispatchMode):
    """Remembers every operator of ours."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "numerics":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


class Passes(TorchFunctionMode):
    """Lets every call pass."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


Q = nx.quantize(X, "int4")
CALLS = {
    "encode": lambda x: nx.fp8_e4m3.encode(x), "round": lambda x: nx.fp4.round(x),
    "round_blocks": lambda x: nx.mxfp4.round(x), "encode_blocks": lambda x: nx.mx6.encode(x).codes,
    "quantize": lambda x: nx.quantize(x, "mxfp8_e4m3").dequantize(),
    "fake_quantize": lambda x: nx.fake_quantize(x, "int4", scheme="per_channel(0)"),
    "dequantize": lambda x: Q.dequantize(),
}  # fmt: skip


@pytest.fixture
def marked(monkeypatch):
    """Kernels that are called at once raise; those that torch calls are not these."""

    def came(*_):
        raise AssertionError("at once")

    for name in CALLS:
        monkeypatch.setitem(operators.OPERATORS, name, replace(operators.OPERATORS[name], kernel=came))


@pytest.mark.parametrize("name", CALLS)
def test_a_small_call_went_all_the_way_through_torch(name, marked):
    with pytest.raises(AssertionError, match="at once"):
        CALLS[name](X)


@pytest.mark.parametrize("name", CALLS)
def test_a_mode_of_torchs_did_not_see_an_operator(name, marked):
    with Seen() as mode:
        CALLS[name](X)
    assert name in mode.names
    with Passes():
        CALLS[name](X)


@pytest.mark.parametrize("name", CALLS)
def test_the_ways_of_a_call_give_other_bits(name):
    at_once = CALLS[name](X)
    with Seen():
        assert torch.equal(CALLS[name](X), at_once)
    assert not at_once.requires_grad


def test_a_gradient_was_lost_at_once(marked):
    x = X.clone().requires_grad_()
    nx.fake_quantize(x, "int4").sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    with torch.no_grad(), pytest.raises(AssertionError, match="at once"):
        nx.fake_quantize(x, "int4")


def test_a_transformation_was_passed_by(marked):
    with pytest.raises(RuntimeError, match="functorch"):  # torch's own refusal, no wrong gradient
        torch.func.grad(lambda x: nx.mxfp4.round(x).sum())(X)
