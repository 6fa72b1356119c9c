"""A product that the example never had raises by name, wherever it is; what is no product goes on."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import numerics as nx
from numerics.model.wrapped.guarding import Guarded

X = torch.linspace(-1, 1, 256).reshape(4, 64)


class Ways(nn.Module):
    """Takes a way by k, of which the example had the first."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.conv = nn.Linear(64, 64), nn.Linear(64, 64), nn.Conv1d(4, 4, 3, padding=1)
        self.rnn, self.attention = nn.LSTM(64, 64), nn.MultiheadAttention(64, 2)
        self.bare, self.table = nn.Parameter(torch.eye(64)), nn.Embedding(4, 64)
        self.norm = nn.LayerNorm((4, 64))
        self.register_buffer("mask", torch.ones(64, 64))

    def forward(self, x, k=""):
        x = self.a(x.to(self.a.weight.dtype))
        ways = {
            "again": lambda: F.linear(x, self.a.weight),
            "turned": lambda: x @ self.a.weight.t(),
            "masked": lambda: F.linear(x, self.a.weight * self.mask),
            "data": lambda: torch.einsum("ij,kj->ik", x, self.a.weight.data),
            "uncalled": lambda: self.b(x),
            "read": lambda: torch.addmm(self.b.bias, x, self.b.weight),
            "conv": lambda: self.conv(x),
            "rnn": lambda: self.rnn(x)[0],
            "attention": lambda: self.attention(x, x, x)[0],
            "bare": lambda: x @ self.bare,
            "table": lambda: x + self.table(torch.arange(4)),
            "norm": lambda: self.norm(x),
            "added": lambda: x + self.bare.mean() + self.a.weight.square().sum() + self.a.weight[:4],
            "bias": lambda: x + self.b.bias,
            "facts": lambda: x.reshape(self.b.weight.shape[0], -1).t().to(self.b.weight.device),
        }
        return ways[k]() if k else x


class Around(nn.Module):
    """Is read by a module of which nothing is quantized."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(Ways()))

    def forward(self, x, k=""):
        return self.body[0][0](x, k)


NAMES = {
    "again": "a.weight", "turned": "a.weight", "masked": "a.weight", "data": "a.weight",
    "uncalled": "b.weight", "read": "b.weight", "conv": "conv.weight", "rnn": "rnn.weight_ih_l0",
    "attention": "attention.in_proj_weight", "bare": "bare",
}  # fmt: skip
OTHERS = ("table", "norm", "added", "bias", "facts")


def made(kind=Ways):
    torch.manual_seed(0)
    return kind().eval()


def wrapped(kind=Ways, **options):
    return nx.wrap(made(kind), **({"weights": "int4", "activations": "int8", "example": X} | options))


pytestmark = pytest.mark.filterwarnings("ignore:.*since no use of them was seen")


@pytest.mark.parametrize("kind", [Ways, Around])
@pytest.mark.parametrize("state", ["wrapped", "calibrated", "learned", "frozen", "values"])
def test_a_product_that_the_example_never_had_ran_in_floats(kind, state):
    one = wrapped(
        kind,
        **(
            {"observer": "min_max"} if state == "calibrated" else {"qat": "lsq"} if state == "learned" else {}
        ),
    )
    if state == "calibrated":
        nx.calibrate(one, [X])
    if state in ("frozen", "values"):
        nx.freeze(one, "packed" if state == "frozen" else state)
    prefix = "body.0.0." if kind is Around else ""
    due = one(X)
    for way, name in NAMES.items():
        with pytest.raises(
            nx.NumericsError, match=f"{prefix}{name}: this call takes another way than the exam"
        ):
            one(X, way)
    for way in OTHERS:
        assert one(X, way).shape == X.shape
    assert torch.equal(one(X), due)


def test_what_reads_it_elsewhere_gets_the_parameter_itself():
    m = made()
    one = nx.wrap(m, "int4", activations="int8", example=X)
    assert one.b.weight is m.b.weight
    assert not isinstance(one.a.weight, Guarded)
    with pytest.raises(nx.NumericsError, match=r"b\.weight: this call takes another way"):
        one.b(X)
    back = nx.unwrap(one)
    assert type(back.b) is nn.Linear
    assert torch.equal(back(X, "uncalled"), made()(X, "uncalled"))


def copied(one, _):
    return copy.deepcopy(one)


def pickled(one, _):
    return pickle.loads(pickle.dumps(one))


def saved(one, path):
    nx.save(nx.freeze(one).state_dict(), path)
    return nx.load_into(made(), path, example=X)


@pytest.mark.parametrize("through", [copied, pickled, saved])
def test_copies_know_it_too(through, tmp_path):
    one = through(wrapped(), tmp_path / "model.safetensors")
    for way in ("again", "uncalled", "bare"):
        with pytest.raises(nx.NumericsError, match="this call takes another way"):
            one(X, way)
    assert one(X, "facts").shape == X.shape


def test_what_a_plan_leaves_in_floats_is_multiplied_in_floats():
    one = wrapped(rules={"b": None, "bare": None})
    assert torch.equal(one(X, "uncalled"), F.linear(one(X), one.b.weight, one.b.bias))
    assert torch.equal(one(X, "bare"), one(X))
    only = nx.wrap(made(), rules={"a": "int4"}, example=X)  # nothing is asked for the others
    assert only(X, "uncalled").shape == X.shape
    plain = nx.wrap(made(), "int4")  # without an example, classes say what is used how
    for way in ("uncalled", "bare", "again"):
        assert plain(X, way).shape == X.shape
    weights = wrapped(activations=None)
    assert torch.equal(weights(X, "again"), F.linear(weights(X), weights.a.weight))
    with pytest.raises(
        nx.NumericsError, match=r"b\.weight: .*linear., which .* not at all: .*rules={'b': None}"
    ):
        weights(X, "uncalled")


class Handed(nn.Module):
    """Gives a weight of one child to another, which multiplies with it, in the example too."""

    def __init__(self):
        super().__init__()
        self.table, self.body = nn.Embedding(64, 64), nn.Linear(64, 64)
        self.head = Multiplied()

    def forward(self, ids, k=0):
        x = self.body(self.table(ids))
        return self.head(x, self.body.weight if k else self.table.weight)


class Multiplied(nn.Module):
    def forward(self, x, weight):
        return F.linear(x, weight)


@pytest.mark.parametrize("weights", ["int4", None])
def test_a_weight_that_is_handed_on_is_known_where_it_is_multiplied(weights):
    ids = torch.arange(4)
    rules = {"table": "int8"} if weights else None
    one = nx.wrap(made(Handed), weights, activations="int8", rules=rules, example=ids)
    graph = nx.wrap(made(Handed), weights, activations="int8", rules=rules, example=ids, mode="fx_graph_mode")
    assert torch.equal(one(ids), graph(ids))
    with pytest.raises(nx.NumericsError, match=r"meets one with body\.weight"):
        one(ids, 1)


def test_gradients_of_what_is_no_product_are_those_of_the_parameter():
    one = wrapped()
    one(X, "added").sum().backward()
    plain = made()
    plain(X, "added").sum().backward()
    assert torch.equal(one.bare.grad, plain.bare.grad)


class Residual(nn.Linear):
    """A class of somebody else's, whose forward is no product alone."""

    def forward(self, x, k=0):
        y = x + F.linear(x, self.weight, self.bias)
        return F.linear(y, self.weight.t()) if k else y


@pytest.mark.parametrize("outputs", [None, "int8"])
def test_a_subclass_of_a_linear_layer_was_quantized_where_it_is_no_product(outputs):
    """All that came in was, in eager mode, and so was what came out."""
    torch.manual_seed(0)
    m = nn.Sequential(Residual(64, 64))
    options = {"activations": "int4", "outputs": outputs, "example": X}
    eager, graph = (nx.wrap(m, "int4", mode=mode, **options) for mode in ("eager_mode", "fx_graph_mode"))
    assert torch.equal(eager(X), graph(X))
    with nx.decoded_products():
        assert torch.equal(nx.freeze(eager)(X), graph(X))
