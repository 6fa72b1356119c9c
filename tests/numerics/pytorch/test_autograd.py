"""Gradients by torch.func are those of backward, at every level; what has no rule is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

import numerics as nx

X = torch.linspace(-2, 3, 128).reshape(2, 64)
Q = nx.quantize(torch.linspace(-1, 1, 256).reshape(4, 64), "int8")
T, S = torch.tensor(0.3), torch.tensor(0.125)
pytestmark = [pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr.*:UserWarning"),
              pytest.mark.filterwarnings("ignore:.*performance drop.*:UserWarning"),
              pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")]  # fmt: skip
CALLS = {
    "round": lambda x: nx.fp8_e4m3.round(x),
    "round_blocks": lambda x: nx.mxfp4.round(x),
    "fake_quantize": lambda x: nx.fake_quantize(x, "int4"),
    "clipped": lambda x: nx.fake_quantize(x, "int4", scale=0.1, clip_gradient=True),
    "blocks": lambda x: nx.fake_quantize(x, "nvfp4"),
    "hadamard": lambda x: nx.hadamard(x, 16),
    "linear": lambda x: torch.nn.functional.linear(x, Q),
    "tqt": lambda x: nx.train.tqt(x, T, "int4"),
    "lsq": lambda x: nx.train.lsq(x, S, "int4"),
    "lsq of a zero point": lambda x: nx.train.lsq(x, S, "uint4", zero_point=3),
}


def weighed(name, x):
    """A loss whose gradient is not the same everywhere."""
    return (CALLS[name](x) ** 3).sum()


def due(name, x, more=0):
    x = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(weighed(name, x), x, create_graph=bool(more))
    return torch.autograd.grad(found.sum(), x)[0] if more else found


@pytest.mark.parametrize("name", CALLS)
def test_torch_func_was_refused(name):
    """An autograd.Function lacked a setup_context."""
    assert torch.equal(grad(lambda x: weighed(name, x))(X), due(name, X))
    assert torch.equal(jacrev(lambda x: weighed(name, x))(X), due(name, X))
    _, back = vjp(lambda x: weighed(name, x), X)
    assert torch.equal(back(torch.ones(()))[0], due(name, X))
    x = X.clone().requires_grad_()  # torch.func inside of a recorded computation
    grad(lambda y: weighed(name, y))(x).sum().backward()
    assert torch.equal(x.grad, due(name, X, more=1))


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_of_a_gradient_is_that_of_autograd(name):
    found = grad(lambda x: grad(lambda y: weighed(name, y))(x).sum())(X)
    assert torch.equal(found, due(name, X, more=1))
    assert bool(found.any())


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_for_each_sample(name):
    rows = X.reshape(2, 1, 64)
    found = vmap(grad(lambda x: weighed(name, x)))(rows)
    assert torch.equal(found, torch.stack([due(name, row) for row in rows]))
    assert torch.equal(grad(lambda x: vmap(lambda row: weighed(name, row))(x).sum())(rows), found)


@pytest.mark.parametrize("name", ["tqt", "lsq", "LSQ+"])
def test_a_gradient_of_what_is_learned(name):
    made = {"tqt": lambda: nx.train.TQT("int4"), "lsq": lambda: nx.train.LSQ("int4", scheme="per_channel"),
            "LSQ+": lambda: nx.train.LSQ("uint4", zero_point="learned")}[name]()  # fmt: skip
    with pytest.raises(nx.NumericsError, match=r"call it once before torch\.func"):
        grad(lambda x: made(x).sum())(X)
    assert not made.initialized
    made(X)
    own = {key: x.detach() for key, x in made.named_parameters()}
    found, of_x = grad(lambda p, x: (functional_call(made, p, (x,)) ** 3).sum(), argnums=(0, 1))(own, X)
    x = X.clone().requires_grad_()
    (made(x) ** 3).sum().backward()
    assert torch.equal(of_x, x.grad)
    assert all(torch.equal(found[key], one.grad) for key, one in made.named_parameters())


def straight_through(x, scale, zero, d, share):
    """LSQ+ as arXiv 2004.09576 writes it, by torch alone: the gradients of its gradients are torch's."""
    shrunk = share**-0.5
    s, z = (one * shrunk + (one - one * shrunk).detach() for one in (scale, zero))
    v = x / s + z
    inside = (d.min < v) & (v < d.max)
    code = torch.where(inside, (v.round() - v).detach() + v, v.detach().round().clamp(d.min, d.max))
    return (code - z) * s


@pytest.mark.parametrize("learned", [True, False])
def test_second_gradients_of_a_scale_are_those_of_the_formula(learned):
    """torch warned that they may be wrong, and torch.func gave 0."""
    x = torch.linspace(-2, 3, 30, dtype=torch.float64)
    along = torch.linspace(-1, 2, 30, dtype=torch.float64)
    d = nx.uint4 if learned else nx.int4

    def second(function):
        leaves = [x.clone(), torch.tensor(0.23, dtype=torch.float64), torch.tensor(4.5, dtype=torch.float32)]
        leaves = [one.requires_grad_() for one in leaves[: 2 + learned]]
        y = function(*leaves)
        first = torch.autograd.grad((along * y**2).sum(), leaves, create_graph=True)
        mixed = sum((one * (k + 1)).sum() for k, one in enumerate(first))
        return [*first, *torch.autograd.grad(mixed, leaves)]

    def ours(x, scale, zero=None):
        return nx.train.lsq(x, scale, d, zero_point=zero)

    def formula(x, scale, zero=T * 0):
        return straight_through(x, scale, zero.double(), d, x.numel() * d.max)

    for a, b in zip(second(ours), second(formula), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-6)


def test_second_gradients_of_a_threshold_are_those_of_the_formula():
    x, along = torch.linspace(-2, 3, 30, dtype=torch.float64), torch.linspace(-1, 2, 30, dtype=torch.float64)

    def second(function):
        leaves = [x.clone().requires_grad_(), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)]
        first = torch.autograd.grad((along * function(*leaves) ** 2).sum(), leaves, create_graph=True)
        return [*first, *torch.autograd.grad(first[0].sum() + 3 * first[1], leaves)]

    def formula(x, t):
        s = 2.0 ** ((t.ceil() - t).detach() + t) / 8
        v = x / s
        inside = (v > -8.5) & (v < 7.5)
        return torch.where(inside, (v.round() - v).detach() + v, v.detach().round().clamp(-8, 7)) * s

    for a, b in zip(second(lambda x, t: nx.train.tqt(x, t, "int4")), second(formula), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "linear"])
def test_a_derivative_forward_was_0_without_a_word(name):
    with pytest.raises(nx.NumericsError, match="no derivative in forward mode"):
        jvp(CALLS[name], (X,), (X,))
    with pytest.raises(nx.NumericsError, match="no derivative in forward mode"):
        hessian(lambda x: weighed(name, x))(X)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, X)
        with pytest.raises(nx.NumericsError, match="no derivative in forward mode"):
            CALLS[name](dual)
        assert torch.equal(CALLS[name](X), CALLS[name](X.clone())), "what has no tangent is refused, too"


def test_a_product_has_a_derivative_forward():
    assert torch.equal(jvp(CALLS["linear"], (X,), (2 * X,))[1], CALLS["linear"](2 * X))


# ---- codes have no derivative ------------------------------------------------------------------------------

FP8, MX, NV = nx.fp8_e4m3, nx.mxfp4, nx.nvfp4
CODED = {
    "quantize": lambda x: nx.quantize(x, "int8").dequantize(),
    "of rows": lambda x: nx.quantize(x, "int4", scheme=nx.per_channel(0)).dequantize(),
    "of groups": lambda x: nx.quantize(x, "uint4", scheme=nx.per_group(32), symmetric=False).dequantize(),
    "a spec": lambda x: nx.quantize(x, nx.QuantSpec("nvfp4")).dequantize(),
    "a part": lambda x: nx.quantize(x, "mxfp4")[0].dequantize(),
    "values": lambda x: nx.quantize(x, "int8") * 2,
    "encode": lambda x: FP8.decode(FP8.encode(x)),
    "encode_packed": lambda x: FP8.decode_packed(FP8.encode_packed(x), x.shape),
    "blocks": lambda x: MX.decode(MX.encode(x)),
    "a found tensor scale": lambda x: NV.decode(NV.encode(x)),
    "a given scale": lambda x: nx.quantize(X, "int8", scale=x.abs().amax() / 100).dequantize(),
    "a given tensor scale": lambda x: NV.decode(NV.encode(X, tensor_scale=x.abs().amax())),
    "a scale of a gradient's way": lambda x: nx.fake_quantize(X, "int8", scale=x.abs().amax() / 100),
    "a product": lambda x: x @ nx.quantize(x, "int8").t(),
    "a product on the left": lambda x: nx.quantize(x, "int8") @ x.t(),
    "a layer": lambda x: torch.nn.functional.linear(x, nx.quantize(x, "int8")),
    "nx.linear": lambda x: nx.linear(x, nx.quantize(x, "int4"), compute="int8"),
    "an embedding": lambda x: torch.nn.functional.embedding(torch.tensor([1, 0]), nx.quantize(x, "int8")),
    "an operator": lambda x: torch.ops.numerics.encode(x, "fp8_e4m3").float(),
}  # fmt: skip


def dual_tangent(f):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(X, X))).tangent


DERIVATIVES = {
    "grad": lambda f: grad(lambda x: x.sum() + f(x).sum())(X),
    "vjp": lambda f: vjp(f, X),
    "jacrev": lambda f: jacrev(f)(X),
    "jvp": lambda f: jvp(f, (X,), (X,)),
    "jacfwd": lambda f: jacfwd(f)(X),
    "hessian": lambda f: hessian(lambda x: f(x).sum())(X),
    "linearize": lambda f: linearize(f, X),
    "dual numbers": dual_tangent,
    "of each sample": lambda f: vmap(grad(lambda x: f(x).sum()))(X.expand(2, 2, 64)),
    "of samples": lambda f: grad(lambda x: vmap(lambda y: f(y).sum())(x).sum())(X.expand(2, 2, 64)),
    "an outer level": lambda f: grad(lambda x: grad(lambda y: (y * f(x).sum()).sum())(X).sum())(X),
}


@pytest.mark.parametrize("how", DERIVATIVES)
@pytest.mark.parametrize("name", CODED)
def test_a_derivative_of_codes_was_0_without_a_word(name, how):
    """It was hidden by a detach; where codes were read again torch spoke of a TensorWrapper's storage."""
    with pytest.raises(nx.NumericsError, match="detach"):
        DERIVATIVES[how](CODED[name])


@pytest.mark.parametrize("name", [name for name in CODED if "given" not in name and "gradient" not in name])
def test_a_constant_has_codes_in_every_derivative(name):
    """What is not differentiated, or is detached, is quantized there as anywhere."""
    learned = torch.nn.Parameter(X.clone())
    for held in (X, learned):  # under autograd codes have no graph, and no error
        due = CODED[name](X)
        assert torch.equal(grad(lambda x: (x.sum() * CODED[name](held)).sum())(X), due.sum().expand(2, 64))  # noqa: B023
    found = grad(lambda x: (x.sum() * CODED[name](x.detach())).sum())(X)
    assert torch.equal(found, due.sum().expand(2, 64))
    assert torch.equal(jvp(lambda x: x.sum() * CODED[name](x.detach()), (X,), (X,))[1], X.sum() * due)
    if name != "a found tensor scale":  # a number of Blocks, of which there is one
        batch = torch.stack([X, 2 * X])
        loop = torch.stack([CODED[name](x) for x in batch])
        torch.testing.assert_close(vmap(CODED[name])(batch), loop)


@pytest.mark.turns(6)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["quantize", "encode", "blocks", "a product"])
def test_a_derivative_of_codes_is_refused_in_a_compiled_graph(name, backend):
    torch._dynamo.reset()
    for derive in (grad(lambda x: CODED[name](x).sum()), lambda x: jvp(CODED[name], (x,), (x,))[1]):
        with pytest.raises(Exception, match=r"x\.detach\(\) is a constant"):
            torch.compile(derive, fullgraph=True, backend=backend)(X)
    kept = grad(lambda x: (x * CODED[name](x.detach()).sum()).sum())
    torch.testing.assert_close(torch.compile(kept, fullgraph=True, backend=backend)(X), kept(X))
    plain, traced = X.clone().requires_grad_(), X.clone().requires_grad_()
    (plain * CODED[name](plain).sum()).sum().backward()
    whole = torch.compile(lambda x: x * CODED[name](x).sum(), fullgraph=True, backend=backend)
    whole(traced).sum().backward()
    torch.testing.assert_close(traced.grad, plain.grad)


def test_a_part_that_is_learned_has_no_derivative_forward():
    """A gradient to a scale was refused, its derivative forward was 0."""

    def values(scale):
        q = nx.quantize(X, "int8")
        q.shared = scale
        return q.dequantize()

    for derive in (lambda: jvp(values, (S,), (S,)), lambda: grad(lambda s: values(s).sum())(S)):
        with pytest.raises(nx.NumericsError, match=r"detach|requires_grad_"):
            derive()


PRODUCTS = {
    "nx.linear": lambda x, w: nx.linear(x, w) if isinstance(w, nx.QTensor) else x @ w.t(),
    "linear": torch.nn.functional.linear,
    "a part": lambda x, w: torch.nn.functional.linear(x, w[1:3]),
    "nx.linear of a part": lambda x, w: nx.linear(x, w[1:]) if isinstance(w, nx.QTensor) else x @ w[1:].t(),
    "matmul": lambda x, w: x @ w.t(),
    "einsum": lambda x, w: torch.einsum("ik,jk->ij", x, w),
    "aten.einsum": lambda x, w: torch.ops.aten.einsum("ik,jk->ij", [x, w]),
    "addmm": lambda x, w: torch.addmm(torch.ones(4), x, w.t(), alpha=2),
    "made within": lambda x, w: x @ (nx.quantize(W, "int8") if isinstance(w, nx.QTensor) else w).t(),
    "embedding": lambda x, w: torch.nn.functional.embedding(torch.tensor([3, 0]), w) * x,
}
W = torch.linspace(-1, 1, 256).reshape(4, 64)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_has_every_derivative(name):
    dense = Q.dequantize()

    def ours(x):
        return PRODUCTS[name](x, Q)

    def plain(x):
        return PRODUCTS[name](x, dense)

    for derive in (
        lambda f: jvp(f, (X,), (X + 1,))[1], lambda f: jacfwd(f)(X), lambda f: jacrev(f)(X),
        lambda f: hessian(lambda x: f(x).square().sum())(X), lambda f: linearize(f, X)[1](X),
        lambda f: vjp(f, X)[1](f(X))[0], lambda f: vmap(f)(X.expand(3, 2, 64)), dual_tangent,
        lambda f: vmap(lambda t: jvp(f, (X,), (t,))[1])(X.expand(3, 2, 64)),
        lambda f: torch.func.functionalize(f)(X),
    ):  # fmt: skip
        torch.testing.assert_close(derive(ours), derive(plain), rtol=1e-5, atol=1e-5)
    x = X.clone().requires_grad_()
    (due,) = torch.autograd.grad(ours(x).square().sum(), x)
    assert torch.equal(grad(lambda x: ours(x).square().sum())(X), due)


_READERS = {
    "nx.linear": nx.linear, "linear": torch.nn.functional.linear, "t": lambda x, q: x @ q.t(),
    "times": lambda x, q: x[:, None, :] * q, "view": lambda x, q: x @ q[:8].t(),
    "parameter": lambda x, q: x @ torch.nn.Parameter(q).t(),
    "compiled": lambda x, q: torch.compile(torch.nn.functional.linear, backend="aot_eager")(x, q),
}  # fmt: skip


@pytest.mark.parametrize("reader", _READERS)
@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int8", "if4", "mx6"])
def test_a_part_written_before_the_gradient_gave_a_wrong_one(name, reader):
    """Torch looks whether a QTensor was written into: a write into a part of it is one."""
    more = {"scheme": "per_channel(0)", "symmetric": False} if name == "int8" else {}
    for part in ("packed", "shared", "zero_point", "tensor_scale"):
        x = torch.randn(3, 64, requires_grad=True)
        q = nx.quantize(torch.randn(16, 64), name, **more)
        held = getattr(q, part)
        if held is not None:
            y = _READERS[reader](x, q)
            held.add_(1)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()


_MADE = {
    "clone": lambda q: q.clone(), "without gradients": torch.no_grad()(lambda q: torch.clone(q)),
    "detach": lambda q: q.detach(), "data": lambda q: q.data, "alias": torch.ops.aten.alias.default,
    "t": lambda q: q.t().t(), "view_as": lambda q: q.view_as(q), "contiguous": lambda q: q.contiguous(),
    "to": lambda q: q.to(torch.float64, copy=True), "cpu": lambda q: q.to("cpu", copy=True),
    "double": lambda q: q.double(), "deepcopy": copy.deepcopy, "copy": copy.copy,
    "pickle": lambda q: pickle.loads(pickle.dumps(q)), "rows": lambda q: q[4:12],
    "chunk": lambda q: q.chunk(2)[1], "parameter": lambda q: torch.nn.Parameter(q, requires_grad=False),
    "module": lambda q: torch.nn.ParameterList([torch.nn.Parameter(q, requires_grad=False)]).double()[0],
    "of a clone": lambda q: q.clone().detach().t().t().clone(),
}  # fmt: skip


@pytest.mark.parametrize("made", _MADE)
@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int8", "nf4"])
def test_a_part_of_what_an_operation_made_was_written_without_a_word(name, made):
    """Torch counted writes into the parts of what was quantized, loaded, sliced; not of a clone or a view."""
    of = nx.quantize(torch.randn(16, 64), name, **({} if "fp4" in name else {"scheme": "per_channel(0)"}))
    for part in ("packed", "shared"):
        q = _MADE[made](of)
        if not isinstance(q, nx.QTensor):
            pytest.skip("it is values")
        x = torch.randn(3, 64, requires_grad=True, dtype=q.dtype)
        y = torch.nn.functional.linear(x, q)
        getattr(q, part).add_(0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_a_write_into_a_copy_is_none_into_what_it_is_of():
    x, q = torch.randn(3, 64, requires_grad=True), nx.quantize(torch.randn(16, 64), "int8")
    copied, seen = q.clone(), q.t()
    y, z = torch.nn.functional.linear(x, q), x @ seen
    copied.packed.add_(1)
    y.sum().backward()
    q.packed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()
    assert torch.equal(seen.t().dequantize(), q.dequantize())  # in the same memory
