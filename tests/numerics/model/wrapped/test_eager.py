"""Frozen experts in both modes, and methods of an eager model that are called from outside its forward."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import numerics as nx
from numerics.model.wrapped import eager
from numerics.model.wrapped.quantizers import quantizers
from numerics.pytorch.qtensor import TensorQTensor

LOOPS = {
    "index": lambda w: [w[e] for e in range(len(w))],
    "unbind": lambda w: w.unbind(0),
    "turned": lambda w: [w.mT[e].mT for e in range(len(w))],
}


class Looped(nn.Module):
    """Experts one by one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.w = how, nn.Parameter(torch.randn(4, 24, 64))

    def forward(self, x: Any) -> Any:
        return torch.stack([F.linear(x, part) for part in LOOPS[self.how](self.w)])


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("how", LOOPS)
def test_a_frozen_loop_over_experts_decodes_all_of_them(how, mode, monkeypatch):
    x = torch.randn(3, 64)
    one = nx.wrap(Looped(how), "mxfp4", example=x, mode=mode)
    with nx.decoded_products(), torch.no_grad():
        due = one(x)
        frozen = nx.freeze(one)
        assert torch.equal(frozen(x), due)
    monkeypatch.setattr(TensorQTensor, "dequantize", lambda *_: pytest.fail("decoded"))
    with torch.no_grad():
        frozen(x)


def counted(one: nn.Module) -> list[str]:
    """The names of what quantizers are called for, from now on."""
    found: list[str] = []
    for each in quantizers(one):
        each.register_forward_hook(lambda called, *_: found.append(called.name))
    return found


@pytest.mark.parametrize("qat", ["ste", "tqt", "lsq"])
@pytest.mark.parametrize("how", LOOPS)
def test_a_loop_over_experts_quantizes_all_of_them_at_every_step(how, qat, monkeypatch):
    x, gradients = torch.randn(3, 64), []
    for once in (eager._once, lambda w, quantizer: quantizer(w)):
        monkeypatch.setattr(eager, "_once", once)
        one = nx.wrap(Looped(how), "int4", example=x, qat=qat)
        calls = counted(one)
        one(x).square().sum().backward()
        with torch.no_grad():
            one(x)
        gradients.append([p.grad for p in one.parameters()])
        assert calls == ["w"] * (2 if len(gradients) == 1 else len(calls))
    (weight, *learned), (due, *due_learned) = gradients
    assert torch.equal(weight, due)
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(learned, due_learned, strict=True))


class Reads(nn.Module):
    """Reads its weight before something happens to it, and after."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.between = nn.Parameter(torch.randn(64, 64) / 8), between

    def forward(self, x: Any) -> Any:
        y = x @ self.w
        return self.between(self, y) @ self.w


def doubled(m: Any, y: Any) -> Any:
    if not torch.is_grad_enabled():
        m._parameters["w"].mul_(2)
    return y


def written(m: Any, y: Any) -> Any:
    with torch.no_grad():
        m.w.zero_()
    return y


def learned(m: Any, y: Any) -> Any:
    if torch.is_grad_enabled():
        y.sum().backward()
    return y.detach()


def again(m: Any, y: Any) -> Any:
    return checkpoint(lambda z: z @ m.w, y, use_reentrant=False)


def mapped(m: Any, y: Any) -> Any:
    return torch.vmap(lambda row: row @ m.w)(y)


@pytest.mark.parametrize("between", [doubled, written, learned, again, mapped])
def test_a_weight_that_was_read_is_kept_when_something_happens_to_it(between, monkeypatch):
    found = []
    for once in (eager._once, lambda w, quantizer: quantizer(w)):
        monkeypatch.setattr(eager, "_once", once)
        x = torch.randn(3, 64, generator=torch.manual_seed(1))
        m = Reads(lambda _, y: y)
        one = nx.wrap(m, "int4", example=x, qat="tqt")
        one.between = between
        with torch.no_grad():
            unlearned = one(x)
        out = one(x)
        out.square().sum().backward()
        found.append([unlearned, out, *(p.grad for p in one.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(found[0][:2], found[1][:2], strict=True))
    for a, b in zip(found[0][2:], found[1][2:], strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-4)  # a sum of gradients in another order


class Encodes(nn.Module):
    """Methods that a forward calls, and users call too: by functions, by a module, of a module inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.plain = nn.Parameter(torch.randn(32, 32)), nn.Parameter(torch.randn(32, 32))
        self.layer = nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        return self.logits(self.layer(self.encode(x)))

    def encode(self, x: Any) -> Any:
        """A product of its own."""
        return (x @ self.w.t()).relu()

    def deep(self, x: Any) -> Any:
        """One of another method's."""
        return self.encode(x) + 1

    def projected(self, x: Any) -> Any:
        """One of a module's, which quantizes what comes in."""
        return self.layer(x)

    def logits(self, x: Any) -> Any:
        """One that the plan leaves as it is."""
        return x @ self.plain

    def ties(self) -> Any:
        """None."""
        return self.w.mean() + (self.w @ self.w).mean()


def encodes() -> nn.Module:
    kept = {"plain": None}
    return nx.wrap(Encodes(), "int8", activations="int4", rules=kept, example=torch.randn(3, 32))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["encode", "deep"])
def test_a_method_called_from_outside_has_float_activations_without_a_word(name, frozen):
    """Only the documentation said so; it is said once a method."""
    one, x = encodes(), torch.randn(3, 32)
    one = nx.freeze(one) if frozen else one
    one(x)
    with pytest.warns(nx.NumericsWarning, match=f"Encodes.{name} is called from outside a forward: the mat"):
        found = getattr(one, name)(x)
    assert torch.equal(getattr(one, name)(x), found)
    assert nx.unwrap(encodes()).encode(x).shape == (3, 32)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_method_that_leaves_nothing_unquantized_is_warned_of(frozen):
    one, x = encodes(), torch.randn(3, 32)
    one = nx.freeze(one) if frozen else one
    one.projected(x)
    one.ties()
    one.logits(x)
    one(x)
    assert type(one).encode.__doc__ == Encodes.encode.__doc__


class Inner(nn.Module):
    """A layer that is not quantized, and holds a name that a class of ours had."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self._base = nn.Parameter(torch.ones(64)), 2.0

    def forward(self, x):
        return x * self.gain * self._base


class OwnNames(nn.Module):
    """A model whose own names are those that the classes of wrapped modules had, in every kind of place."""

    _base = "a class has it"

    def __init__(self) -> None:
        super().__init__()
        self.inner, self._leaves = Inner(), [1, 2]
        self.weight = nn.Parameter(torch.linspace(-1, 1, 512).reshape(8, 64))
        self.layer = nn.Linear(8, 8)

    def _computed(self, x):
        return self.layer(x)

    def _watched(self, x):
        return torch.nn.functional.linear(x, self.weight)

    def forward(self, x):
        assert type(self)._base == "a class has it"
        return self._computed(self._watched(self.inner(x))) * len(self._leaves)


@pytest.mark.parametrize("qat", [None, "lsq"])
def test_a_model_may_have_the_names_that_wrapped_classes_had(qat):
    """`self._computed(x)` called our method of that name, and `_base` and `_leaves` were taken for ours."""
    model, x = OwnNames(), torch.linspace(-2, 2, 256).reshape(4, 64)
    options = {"activations": "int8", "example": x, "qat": qat}
    wrapped = nx.wrap(model, "int8", **options)
    y = wrapped(x)
    assert torch.equal(y, nx.wrap(model, "int8", mode="fx_graph_mode", **options)(x))
    for again in copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped)):
        assert torch.equal(again(x), y)
    frozen = nx.freeze(copy.deepcopy(wrapped), keep="values")
    assert torch.equal(frozen(x), y)
    assert nx.unwrap(wrapped)._leaves == [1, 2]
    assert type(wrapped) is OwnNames
    assert torch.equal(wrapped(x), model(x))


class _Calls(nn.Module):
    """Calls a layer with a weight that it makes of parameters."""

    def __init__(self):
        super().__init__()
        self.l, self.s = nn.Linear(16, 16), nn.Parameter(torch.randn(16, 16) / 4)

    def forward(self, x):
        return torch.func.functional_call(self.l, {"weight": self.l.weight * 1.5 + self.s}, (x,))


def _int4(x):
    return nx.fake_quantize(x.detach(), "int4")


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_what_a_forward_makes_of_quantized_weights_is_not_quantized_again(mode):
    model, x = _Calls().eval(), torch.randn(3, 16)
    due = torch.nn.functional.linear(x, _int4(model.l.weight) * 1.5 + _int4(model.s), model.l.bias)
    wrapped = nx.wrap(model, "int4", example=x, mode=mode)
    assert torch.equal(wrapped(x), due)
    assert torch.equal(nx.freeze(copy.deepcopy(wrapped), keep="values")(x), due)
    with nx.decoded_products():
        assert torch.equal(nx.freeze(wrapped)(x), due)


def test_what_functional_call_gives_a_whole_model_is_quantized():
    model, x = _Calls().eval(), torch.randn(3, 16)
    wrapped = nx.wrap(model, "int4", example=x)
    given = {name: p.detach() * 2 for name, p in wrapped.named_parameters()}
    due = torch.nn.functional.linear(x, _int4(given["l.weight"]) * 1.5 + _int4(given["s"]), given["l.bias"])
    assert torch.equal(torch.func.functional_call(wrapped, given, (x,)), due)


@pytest.mark.filterwarnings("ignore::numerics.formats.errors.NumericsWarning")
@pytest.mark.parametrize("activations", [None, "int8"])
def test_a_layer_is_called_with_a_weight_that_another_makes(activations):
    class Makes(nn.Module):
        def __init__(self):
            super().__init__()
            self.l, self.h = nn.Linear(16, 16), nn.Linear(4, 256)

        def forward(self, x, c):
            return torch.func.functional_call(self.l, {"weight": self.h(c).view(16, 16)}, (x,))

    model, args = Makes().eval(), (torch.randn(3, 16), torch.randn(4))
    modes = ("eager_mode", "fx_graph_mode")
    a, b = (nx.wrap(model, "int4", activations=activations, example=args, mode=mode)(*args) for mode in modes)
    assert torch.equal(a, b)
    assert not torch.equal(a, model(*args))


def test_torch_compile_refuses_a_tensor_in_the_place_of_a_parameter():
    x = torch.randn(3, 16)
    wrapped = nx.wrap(_Calls().eval(), "int4", example=x)
    with torch.no_grad(), pytest.raises(nx.NumericsError, match=r"l\.weight: torch\.func\.functional_call"):
        torch.compile(wrapped, backend="eager")(x)
    torch._dynamo.reset()


def _by_a_branch(forward):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(16, 16) / 4), nn.Linear(16, 16)

        def forward(self, x):
            return forward(self, x)

    return Branches().eval()


@pytest.mark.filterwarnings("ignore::numerics.formats.errors.NumericsWarning")
def test_a_product_in_a_branch_is_refused_where_its_weight_is_used_outside_too():
    def forward(m, x):
        return torch.cond(x.sum() > 0, lambda t: t * 2, lambda t: t @ m.w, (x,)) @ m.w

    with pytest.raises(nx.NumericsError, match=r"only mode='fx_graph_mode' reaches model:matmul\[0\]"):
        nx.wrap(_by_a_branch(forward), "int8", activations="mxfp8_e4m3", example=torch.randn(3, 16))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_layer_in_a_branch_beside_a_product_outside_has_the_numbers_of_the_graph(sign):
    def forward(m, x):
        return torch.cond(x.sum() > 0, lambda t: t * 2, lambda t: m.b(t), (x,)) @ m.w

    model, x = _by_a_branch(forward), torch.randn(3, 16)
    modes = ("eager_mode", "fx_graph_mode")
    plans = [nx.plan(model, "int8", "mxfp8_e4m3", example=x, mode=mode) for mode in modes]
    a, b = (nx.wrap(model, plan)(sign * x.abs()) for plan in plans)
    assert torch.equal(a, b)


@pytest.mark.turns(6)
@pytest.mark.parametrize("padding", ["reflect", "circular", "replicate"])
@pytest.mark.parametrize(("kind", "axes"), [(nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3)])
@pytest.mark.parametrize("way", ["percentile(90)", "kl", "mse", "lsq"])
def test_a_convolution_quantizes_what_was_padded_in_both_modes(padding, kind, axes, way):
    torch.manual_seed(0)
    model = nn.Sequential(kind(4, 4, 3, padding=1, padding_mode=padding)).eval()
    batches = [torch.randn(2, 4, *[6] * axes) for _ in range(2)]
    made = []
    for mode in ("eager_mode", "fx_graph_mode"):
        observer, qat = (None, way) if way == "lsq" else (way, None)
        plan = nx.plan(model, "int4", "int4", example=batches[0], mode=mode, observer=observer)
        wrapped = nx.wrap(model, plan, qat=qat)
        made.append((wrapped if qat else nx.calibrate(wrapped, batches))(batches[1]))
    assert torch.equal(*made)
