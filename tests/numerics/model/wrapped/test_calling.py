"""What a graph is called with: the example's arguments, or an error that names the one that differs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import numerics as nx

X = torch.linspace(-1, 1, 4 * 32).reshape(4, 32)


class Options(nn.Module):
    """Computes otherwise with each of its arguments."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(32, 32)

    def forward(self, x: Any, mask: Any = None, *, scale: float = 1.0, extra: Any = None) -> Any:
        y = self.layer(x) * scale
        y = y if mask is None else y * mask
        return y if extra is None else y + extra["a"] + extra.get("b", 0)


def graph(example: Any) -> nn.Module:
    return nx.wrap(Options().eval(), "int8", example=example, mode="fx_graph_mode")


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return graph((X,))


@pytest.fixture(scope="module")
def named() -> nn.Module:
    return graph({"extra": {"a": X}, "scale": 2.0, "x": X})


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((X,), {"mask": X}, "does not know the argument 'mask': its example had x alone.*eager_mode"),
        ((X, X), {}, "does not know the argument 'mask'"),
        ((X,), {"scale": 2.0}, "does not know the argument 'scale'"),
        ((X,), {"other": 1}, "does not know the argument 'other'"),
        ((X, None, X), {}, "takes x, mask, each once"),
        ((X,), {"x": X}, "takes x, mask, each once"),
        ((), {}, "is called without 'x', which its example had"),
        ((3,), {}, "x is an int in this call of a graph, whose example had x a Tensor"),
        (([X],), {}, r"x\[0\] is a Tensor in this call"),
    ],
)
def test_an_argument_that_the_example_lacked_is_refused_in_torchs_words(plain, args, kwargs, said):
    for one in (plain, copy.deepcopy(plain)):
        with pytest.raises(nx.NumericsError, match=said):
            one(*args, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"extra": {"a": X, "b": X}}, r"extra\['b'\] is a Tensor in this call of a graph, whose example"),
        ({"extra": {}}, r"extra\['a'\] is missing"),
        ({"extra": None}, "extra is a NoneType"),
        ({"extra": {"a": X}, "scale": 3.0}, r"other sizes or values: .*scale == 2\.0"),
        ({"extra": {"a": X}}, r"other sizes or values: .*scale == 2\.0"),
    ],
)
def test_a_part_that_the_example_lacked_is_dropped_in_silence(named, kwargs, said):
    """An entry more in a dict was left out: the graph's result was another than the model's."""
    with pytest.raises(nx.NumericsError, match=said):
        named(X, **({"scale": 2.0} if kwargs.get("extra") != {"a": X} else {}), **kwargs)


def test_a_call_that_says_the_same_otherwise_is_refused(plain, named):
    eager = nx.wrap(Options().eval(), "int8", example=(X,))
    more = torch.cat([X, X])
    with torch.no_grad():
        for call in (((X,), {}), ((), {"x": X}), ((X, None), {}), ((X,), {"mask": None, "scale": 1.0}),
                     ((more,), {})):  # fmt: skip
            assert torch.equal(plain(*call[0], **call[1]), eager(*call[0], **call[1]))
        due = eager(X, scale=2.0, extra={"a": X})
        assert torch.equal(named(X, scale=2.0, extra={"a": X}), due), "the model's order, not the example's"
        assert torch.equal(named(extra={"a": X}, x=X, scale=2.0), due)


def test_a_model_without_names_of_arguments_is_called_with_none():
    class Many(nn.Sequential):
        def forward(self, *xs: Any) -> Any:
            return self[0](torch.stack(xs).sum(0))

    one = nx.wrap(Many(nn.Linear(32, 8)), "int8", example=(X, X), mode="fx_graph_mode")
    assert one(X, X).shape == (4, 8)
