"""Planned parameters that a forward reads aside of their modules: quantized in a graph, else refused."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import numerics as nx
from numerics.formats.errors import NumericsError

pytestmark = pytest.mark.filterwarnings("ignore::numerics.formats.errors.NumericsWarning")
N = 16


class _Model(nn.Module):
    """Two parameters and a layer, and a way to them that its subclass has."""

    def __init__(self, keep=None):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (nn.Parameter(torch.randn(N, N) / 4) for _ in range(2))
        self.l = nn.Linear(N, N, bias=False)
        if keep is not None:
            keep(self)


def _made(forward, keep=None):
    return type("Made", (_Model,), {"forward": forward})(keep).eval()


def _keep_object(m):
    m.kept = type("Box", (), {})()
    m.kept.weight = m.a


def _keep_closure(m):
    weight = m.a
    m.function = lambda x: x @ weight.T


def _keep(name, find):
    return lambda m: setattr(m, name, find(m))


def _loop(m, x):
    for p in m.parameters():
        x = F.linear(x, p)
    return x


def _beside(m, x):
    return x @ m.a + (x.unsqueeze(1) * m._parameters["a"]).sum(2)


HELD = {
    "list": (lambda m, x: F.linear(F.linear(x, m.ws[0]), m.ws[1]), _keep("ws", lambda m: [m.a, m.b]), "a, b"),
    "mapping": (lambda m, x: F.linear(m.l(x), m.t["k"][0]), _keep("t", lambda m: {"k": (m.l.weight,)}),
                "l.weight"),
    "partial": (lambda m, x: m.p(x) @ m.b, _keep("p", lambda m: functools.partial(F.linear, weight=m.a)),
                "a"),
    "object": (lambda m, x: x @ m.kept.weight, _keep_object, "a"),
    "closure": (lambda m, x: m.function(x) @ m.b, _keep_closure, "a"),
    "view": (lambda m, x: F.linear(x, m.d[0]) @ m.a, _keep("d", lambda m: [m.a.data]), "a"),
}  # fmt: skip
READ = {
    "parameters()": (_loop, None, "a, b, l.weight"),
    "named_parameters()": (lambda m, x: F.linear(x, dict(m.named_parameters())["a"]), None, "a"),
    "_parameters": (lambda m, x: F.linear(x, m._parameters["a"]), None, "a"),
    "vars": (lambda m, x: F.linear(x, vars(m)["_parameters"]["a"]), None, "a"),
    "__getattr__": (lambda m, x: F.linear(x, m.__getattr__("b")), None, "b"),
    "get_parameter": (lambda m, x: x @ m.get_parameter("l.weight"), None, "l.weight"),
    "state_dict": (lambda m, x: F.linear(x, m.state_dict()["a"]), None, "a"),
    "unpacked": (lambda m, x: F.linear(x, *m.l.parameters()), None, "l.weight"),
    "cast": (lambda m, x: x.double() @ next(m.parameters()).double().T, None, "a"),
    "entry by entry": (_beside, None, "a"),
}
FINE = {
    "a type": lambda m, x: x.to(next(m.parameters()).dtype).to(next(m.parameters())) @ m.a,
    "zeros like": lambda m, x: (x + torch.zeros_like(next(m.parameters()))[:1]) @ m.a,
    "a penalty": lambda m, x: (x @ m.a).sum() + sum(p.pow(2).sum() for p in m.parameters()),
    "kept alone": lambda m, x: x @ m.a @ m.b,
}


def _quantized(model, names):
    """The model with these parameters quantized, wherever it has them."""
    made = copy.deepcopy(model)
    own = dict(made.named_parameters())
    with torch.no_grad():
        for name in names:
            own[name].copy_(nx.fake_quantize(own[name].detach(), "int4"))
    return made


def _planned(plan):
    return [row.name for row in plan.rows if row.kind == "parameter" and row.spec]


@pytest.mark.parametrize("case", [*HELD, *READ])
def test_eager_mode_refuses_by_name_what_it_cannot_reach(case):
    forward, keep, names = (HELD | READ)[case]
    model, x = _made(forward, keep), torch.randn(3, N)
    with pytest.raises(NumericsError, match=f"^{names}: the forward of Made.*fx_graph_mode"):
        nx.wrap(model, "int4", activations="int8", example=x)
    before = dict(model.named_parameters())
    with pytest.raises(NumericsError, match=f"^{names}: "):
        nx.quantize_(model, "int4", example=x)
    after = dict(model.named_parameters())
    assert all(after[name] is x for name, x in before.items())


@pytest.mark.parametrize("case", [name for name in (*HELD, *READ) if name not in ("closure", "view")])
def test_a_graph_takes_it_quantized(case):
    forward, keep, _ = (HELD | READ)[case]
    model, x = _made(forward, keep), torch.randn(3, N)
    plan = nx.plan(model, "int4", example=x, mode="fx_graph_mode")
    wrapped = nx.wrap(model, plan)
    due = _quantized(model, _planned(plan))(x)
    assert torch.equal(wrapped(x), due)
    assert not torch.equal(due, model(x))
    assert torch.equal(nx.freeze(wrapped, keep="values")(x), due)


def test_a_graph_takes_what_a_function_closed_over():
    model, x = _made(*HELD["closure"][:2]), torch.randn(3, N)
    wrapped = nx.wrap(model, "int4", example=x, mode="fx_graph_mode")
    a, b = (nx.fake_quantize(p.detach(), "int4") for p in (model.a, model.b))
    assert torch.equal(wrapped(x), x @ a.T @ b)


@pytest.mark.parametrize("case", FINE)
def test_what_takes_no_values_of_a_parameter_is_left_alone(case):
    model, x = _made(FINE[case], _keep("ws", lambda m: [m.a, m.b])), torch.randn(3, N)
    wrapped = nx.wrap(model, "int4", example=x)
    due = wrapped(x)
    assert torch.equal(nx.freeze(wrapped, keep="values")(x), due) or case == "a penalty"


def test_without_an_example_the_first_call_says_it():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.l = nn.Linear(N, N, bias=False)
            self.kept = [self.l.weight]

        def forward(self, x):
            return F.linear(self.l(x), self.kept[0])

    x = torch.randn(3, N)
    for made in (nx.wrap(Shared(), "int4"), nx.quantize_(Shared(), "int4")):
        for _ in range(2):
            with pytest.raises(NumericsError, match=r"^l\.weight: the forward of Shared"):
                made(x)
    copied = copy.deepcopy(nx.quantize_(Shared(), "int4"))
    with pytest.raises(NumericsError, match=r"^l\.weight: the forward of Shared"):
        copied(x)


def test_what_the_example_does_not_read_is_refused_when_a_call_does():
    def forward(m, x):
        return x @ m.a @ m.b if len(x) < 5 else x @ m.ws[0] @ m.b

    model = _made(forward, _keep("ws", lambda m: [m.a]))
    wrapped = nx.wrap(model, "int4", example=torch.randn(3, N))
    for made in (wrapped, nx.freeze(copy.deepcopy(wrapped)), nx.freeze(wrapped)):
        made(torch.randn(3, N))
        with pytest.raises(NumericsError, match=r"^a: the forward of Made"):
            made(torch.randn(8, N))


def test_a_parameter_is_got_by_its_name_from_outside():
    model = nn.Sequential(nn.Linear(N, N))
    wrapped = nx.wrap(model, "int4", example=torch.randn(2, N))
    assert wrapped.get_parameter("0.weight") is model[0].weight


def test_a_slice_of_a_list_of_parameters_is_quantized_and_trained():
    class Slices(nn.Module):
        def __init__(self):
            super().__init__()
            self.all = nn.ParameterList([nn.Parameter(torch.randn(N, N) / 4) for _ in range(3)])

        def forward(self, x):
            for p in self.all[1:]:
                x = F.linear(x, p)
            return x @ self.all[-3]

    model, x = Slices(), torch.randn(3, N)
    wrapped = nx.wrap(model, "int4", example=x)
    assert torch.equal(wrapped(x), _quantized(model, ["all.0", "all.1", "all.2"])(x))
    wrapped(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
