"""Every function of torch's that multiplies and sums: which obey docs/formats.md §11, and which do not."""

import re
from functools import lru_cache

import pytest

pytest.importorskip("torch")
import torch
import torch.nn.functional as F
from torch.overrides import get_overridable_functions

import numerics as nx
from numerics.backends.host.tensors import as_array
from numerics.tensor.product import columns_times
from tests.helpers.bits import assert_same_bits
from tests.helpers.matrices import MATRICES, rows

LENGTH, EXPERTS, COUNT = 64, 3, 8
SOME = ["mxfp4", "mx6", "nvfp4", "int4 groups", "int8 rows", "uint4 groups", "fp8_e4m3fnuz"]


class Operands:
    """x, rows to multiply, and q, the second of the experts of q3; v is a row of it."""

    def __init__(self, name, kind="float32", batch=2, many=5, length=LENGTH):
        self.kind = getattr(torch, kind)
        values = rows(EXPERTS * COUNT, length, seed=3).reshape(EXPERTS, COUNT, length)
        spec = MATRICES[name]
        if spec.scheme is not None and str(spec.scheme) == "per_channel(0)":
            spec = spec.replace(scheme=nx.per_token())  # a scale a row, of three axes too
        self.q3 = nx.quantize(torch.from_numpy(values).to(self.kind), spec)
        self.q = self.q3[1]
        x = rows(batch * EXPERTS * many, length).reshape(batch, EXPERTS, many, length)
        self.x4 = torch.from_numpy(x).to(self.kind)
        self.c = torch.from_numpy(rows(1, COUNT)[0]).to(self.kind)
        self.views()

    def views(self):
        self.x3, self.x, self.row = self.x4[0], self.x4[0, 0], self.x4[0, 0, 0]
        self.across = self.x3.transpose(0, 1)  # not contiguous

    def due(self, multiply):
        """For every row of x4 and every expert: [batch, of x, of q, row, row of q]."""
        found = [multiply(self.x4, self.q3[e]) for e in range(EXPERTS)]
        return torch.stack(found, 2)

    def diagonal(self, d):
        """Each expert with rows of its own: [batch, expert, row, row of q]."""
        return torch.stack([d[:, e, e] for e in range(EXPERTS)], 1)


def empty(*shape):
    return torch.empty(shape)


def attention(o, x, packed=None):
    """Each row attends to itself; the last linear layer is q's, those before it that of an identity."""
    zeros, one = torch.zeros(2 * LENGTH, LENGTH), torch.eye(LENGTH)
    own = torch.full((len(x), len(x)), -torch.inf).fill_diagonal_(0).to(o.kind)
    found, _ = F.multi_head_attention_forward(
        x, x, x, LENGTH, 1, torch.cat([zeros, one]).to(o.kind) if packed is None else packed,
        torch.arange(3.0 * LENGTH).to(o.kind) * (packed is not None), None, None, False, 0.0, o.q, o.c,
        training=False, attn_mask=own,
    )  # fmt: skip
    return found


OBEYS = {
    "linear": (lambda o: F.linear(o.x, o.q), lambda o, d: d[0, 0, 1]),
    "linear: a vector": (lambda o: F.linear(o.row, o.q), lambda o, d: d[0, 0, 1, 0]),
    "linear: four axes": (lambda o: F.linear(o.x4, o.q), lambda o, d: d[:, :, 1]),
    "linear: not contiguous": (lambda o: F.linear(o.across, o.q), lambda o, d: d[0, :, 1].transpose(0, 1)),
    "linear: by its operator": (lambda o: torch.ops.aten.linear(o.across, o.q),
                                lambda o, d: d[0, :, 1].transpose(0, 1)),
    "linear: names": (lambda o: F.linear(weight=o.q, input=o.across),
                      lambda o, d: d[0, :, 1].transpose(0, 1)),
    "linear: a vector as weight": (lambda o: F.linear(o.across, o.q[2]), lambda o, d: d[0, :, 1, :, 2].T),
    "linear: q as x": (lambda o: F.linear(o.q, o.x, o.c[: len(o.x)]),
                       lambda o, d: d[0, 0, 1].T + o.c[: len(o.x)]),
    "linear: experts as x": (lambda o: F.linear(o.q3, o.x, o.c[: len(o.x)]),
                             lambda o, d: d[0, 0].mT + o.c[: len(o.x)]),
    "matmul": (lambda o: torch.matmul(o.x, o.q.T), lambda o, d: d[0, 0, 1]),
    "matmul: names": (lambda o: torch.matmul(input=o.x3, other=o.q3.mT), lambda o, d: o.diagonal(d)[0]),
    "matmul: a vector": (lambda o: o.row @ o.q.t(), lambda o, d: d[0, 0, 1, 0]),
    "matmul: a quantized vector": (lambda o: o.x4 @ o.q[2], lambda o, d: d[:, :, 1, :, 2]),
    "matmul: two vectors": (lambda o: o.row @ o.q[2], lambda o, d: d[0, 0, 1, 0, 2]),
    "matmul: four axes": (lambda o: o.x4 @ o.q.mT, lambda o, d: d[:, :, 1]),
    "matmul: not contiguous": (lambda o: o.across @ o.q.T, lambda o, d: d[0, :, 1].transpose(0, 1)),
    "matmul: expanded": (lambda o: o.x.expand(4, -1, -1) @ o.q.T, lambda o, d: d[0, 0, 1].expand(4, -1, -1)),
    "matmul: by its operator": (lambda o: torch.ops.aten.matmul(o.across, o.q.T),
                                lambda o, d: d[0, :, 1].transpose(0, 1)),
    "matmul: experts": (lambda o: o.x3 @ o.q3.mT, lambda o, d: o.diagonal(d)[0]),
    "matmul: experts, one x": (lambda o: o.x @ o.q3.mT, lambda o, d: d[0, 0]),
    "matmul: experts, one batch": (lambda o: o.x3[:1] @ o.q3.mT, lambda o, d: d[0, 0]),
    "matmul: experts, a vector": (lambda o: o.row @ o.q3.mT, lambda o, d: d[0, 0, :, 0]),
    "matmul: experts, four axes": (lambda o: o.x4 @ o.q3.mT, lambda o, d: o.diagonal(d)),
    "matmul: one expert": (lambda o: o.x3 @ o.q3[1:2].mT, lambda o, d: d[0, :, 1]),
    "matmul: an axis before": (lambda o: o.x3 @ o.q[None].mT, lambda o, d: d[0, :, 1]),
    "matmul: axes before": (lambda o: o.x @ o.q.expand(4, 2, -1, -1).mT,
                            lambda o, d: d[0, 0, 1].expand(4, 2, -1, -1)),
    "matmul: an axis before, on the left": (lambda o: o.q.unsqueeze(0) @ o.x.T,
                                            lambda o, d: d[0, 0, 1].T[None]),
    "matmul: q on the left": (lambda o: o.q @ o.x.T, lambda o, d: d[0, 0, 1].T),
    "matmul: q on the left of a vector": (lambda o: o.q @ o.row, lambda o, d: d[0, 0, 1, 0]),
    "matmul: q on the left of three axes": (lambda o: o.q @ o.x3.mT, lambda o, d: d[0, :, 1].mT),
    "matmul: experts on the left": (lambda o: o.q3 @ o.x3.mT, lambda o, d: o.diagonal(d)[0].mT),
    "matmul: experts on the left of one x": (lambda o: o.q3 @ o.x.mT, lambda o, d: d[0, 0].mT),
    "matmul: experts on the left of a vector": (lambda o: o.q3 @ o.row, lambda o, d: d[0, 0, :, 0]),
    "matmul: a quantized vector on the left": (lambda o: o.q[2] @ o.x3.mT, lambda o, d: d[0, :, 1, :, 2]),
    "matmul: a part of it": (lambda o: o.x @ o.q.chunk(2)[1].T, lambda o, d: d[0, 0, 1, :, 4:]),
    "matmul: out": (lambda o: torch.matmul(o.x3, o.q.T, out=empty(3, 5, 8).to(o.kind)),
                    lambda o, d: d[0, :, 1]),
    "matmul: experts, out": (lambda o: torch.matmul(o.x, o.q3.mT, out=empty(0).to(o.kind)),
                             lambda o, d: d[0, 0]),
    "__matmul__": (lambda o: o.x.__matmul__(o.q.T), lambda o, d: d[0, 0, 1]),
    "__rmatmul__": (lambda o: o.q3.mT.__rmatmul__(o.x), lambda o, d: d[0, 0]),
    "linalg_matmul": (lambda o: torch.linalg.matmul(o.x, o.q3.mT), lambda o, d: d[0, 0]),
    "mm": (lambda o: torch.mm(o.x, o.q.t()), lambda o, d: d[0, 0, 1]),
    "mm: q on the left": (lambda o: torch.mm(o.q, o.x.t()), lambda o, d: d[0, 0, 1].T),
    "mm: out": (lambda o: torch.mm(o.x, o.q.t(), out=empty(8, 5).to(o.kind).t()), lambda o, d: d[0, 0, 1]),
    "bmm": (lambda o: torch.bmm(o.x3, o.q3.mT), lambda o, d: o.diagonal(d)[0]),
    "bmm: q on the left": (lambda o: torch.bmm(o.q3, o.x3.mT), lambda o, d: o.diagonal(d)[0].mT),
    "bmm: out": (lambda o: torch.bmm(o.x3, o.q3.mT, out=empty(3, 5, 8).to(o.kind)),
                 lambda o, d: o.diagonal(d)[0]),
    "bmm: one matrix": (lambda o: torch.bmm(o.x3, o.q.t().expand(3, -1, -1)), lambda o, d: d[0, :, 1]),
    "bmm: one matrix on the left": (lambda o: torch.bmm(o.q.expand(3, -1, -1), o.x3.mT),
                                    lambda o, d: d[0, :, 1].mT),
    "mv": (lambda o: torch.mv(o.q, o.row), lambda o, d: d[0, 0, 1, 0]),
    "mv: a quantized vector": (lambda o: torch.mv(o.x, o.q[2]), lambda o, d: d[0, 0, 1, :, 2]),
    "mv: out": (lambda o: torch.mv(o.q, o.row, out=empty(8).to(o.kind)), lambda o, d: d[0, 0, 1, 0]),
    "dot": (lambda o: torch.dot(o.row, o.q[2]), lambda o, d: d[0, 0, 1, 0, 2]),
    "vdot": (lambda o: torch.vdot(o.q[2], o.row), lambda o, d: d[0, 0, 1, 0, 2]),
    "inner": (lambda o: torch.inner(o.x, o.q), lambda o, d: d[0, 0, 1]),
    "inner: experts": (lambda o: torch.inner(o.x3, o.q3), lambda o, d: d[0].transpose(1, 2)),
    "inner: q on the left": (lambda o: o.q.inner(o.x3), lambda o, d: d[0, :, 1].permute(2, 0, 1)),
    "tensordot": (lambda o: torch.tensordot(o.x3, o.q, ([2], [1])), lambda o, d: d[0, :, 1]),
    "tensordot: a number": (lambda o: torch.tensordot(o.x3, o.q.T, dims=1), lambda o, d: d[0, :, 1]),
    "tensordot: experts": (lambda o: torch.tensordot(o.q3, o.x, ([-1], [-1])), lambda o, d: d[0, 0].mT),
    "einsum": (lambda o: torch.einsum("bmk,nk->bnm", o.x3, o.q), lambda o, d: d[0, :, 1].mT),
    "einsum: a list": (lambda o: torch.einsum("mk, nk", [o.x, o.q]), lambda o, d: d[0, 0, 1]),
    "einsum: lists": (lambda o: torch.einsum(o.x, [0, 1], o.q, [2, 1], [0, 2]), lambda o, d: d[0, 0, 1]),
    "einsum: dots": (lambda o: torch.einsum("...k,nk->n...", o.x4, o.q),
                     lambda o, d: d[:, :, 1].permute(3, 0, 1, 2)),
    "einsum: dots of both": (lambda o: torch.einsum("...mk,...nk->...mn", o.x3, o.q3),
                             lambda o, d: o.diagonal(d)[0]),
    "einsum: experts": (lambda o: torch.einsum("enk,bemk->benm", o.q3, o.x4), lambda o, d: o.diagonal(d).mT),
    "einsum: experts, one x": (lambda o: torch.einsum("mk,enk->emn", o.x, o.q3), lambda o, d: d[0, 0]),
    "einsum: rows in pairs": (lambda o: torch.einsum("ek,ek->e", o.x3[:, 0], o.q3[:, 2]),
                              lambda o, d: o.diagonal(d)[0, :, 0, 2]),
    "addmm": (lambda o: torch.addmm(o.c, o.x, o.q.t()), lambda o, d: d[0, 0, 1] + o.c),
    "addmm: a matrix is added": (lambda o: torch.addmm(o.c.expand(5, 8), o.x, o.q.t()),
                                 lambda o, d: d[0, 0, 1] + o.c),
    "addmm: alpha, beta": (lambda o: torch.addmm(o.c, o.x, o.q.t(), beta=3, alpha=0.3),
                           lambda o, d: d[0, 0, 1] * 0.3 + o.c.float() * 3),
    "addmm: q on the left": (lambda o: torch.addmm(o.c[:, None], o.q, o.x.t()),
                             lambda o, d: d[0, 0, 1].T + o.c[:, None]),
    "addmm: out": (lambda o: torch.addmm(o.c, o.x, o.q.t(), out=empty(5, 8).to(o.kind)),
                   lambda o, d: d[0, 0, 1] + o.c),
    "addmm_": (lambda o: o.c.expand(5, 8).clone().addmm_(o.x, o.q.t()), lambda o, d: d[0, 0, 1] + o.c),
    "addmv": (lambda o: torch.addmv(o.c, o.q, o.row, alpha=2), lambda o, d: d[0, 0, 1, 0] * 2 + o.c),
    "addmv_": (lambda o: o.c.clone().addmv_(o.q, o.row, beta=0), lambda o, d: d[0, 0, 1, 0]),
    "baddbmm": (lambda o: torch.baddbmm(o.c, o.x3, o.q3.mT, beta=0.5),
                lambda o, d: o.diagonal(d)[0] + o.c.float() * 0.5),
    "baddbmm_": (lambda o: o.c.expand(3, 5, 8).clone().baddbmm_(o.x3, o.q3.mT),
                 lambda o, d: o.diagonal(d)[0] + o.c),
    "addbmm": (lambda o: torch.addbmm(o.c, o.x3, o.q3.mT),
               lambda o, d: (d[0, 0, 0] + d[0, 1, 1]) + d[0, 2, 2] + o.c),
    "addbmm_": (lambda o: o.c.expand(5, 8).clone().addbmm_(o.x3, o.q3.mT, beta=0),
                lambda o, d: (d[0, 0, 0] + d[0, 1, 1]) + d[0, 2, 2]),
    "chain_matmul": (lambda o: torch.chain_matmul(o.x, o.q.t()), lambda o, d: d[0, 0, 1]),
    "linalg_multi_dot": (lambda o: torch.linalg.multi_dot([o.x, o.q.t()]), lambda o, d: d[0, 0, 1]),
    "multi_head_attention_forward": (lambda o: attention(o, o.across),
                                     lambda o, d: d[0, :, 1].transpose(0, 1) + o.c),
    "vmap": (lambda o: torch.vmap(lambda x: F.linear(x, o.q))(o.x3), lambda o, d: d[0, :, 1]),
    "vmap: rows": (lambda o: torch.vmap(lambda x: o.q @ x)(o.x), lambda o, d: d[0, 0, 1]),
    "vmap: aten.einsum": (lambda o: torch.vmap(lambda x: torch.ops.aten.einsum("ik,jk->ij", [x, o.q]))(o.x3),
                          lambda o, d: d[0, :, 1]),
    "aten.einsum": (lambda o: torch.ops.aten.einsum("...k,jk->...j", [o.x3, o.q]), lambda o, d: d[0, :, 1]),
    "aten.einsum.default": (lambda o: torch.ops.aten.einsum.default("bik,bjk->bij", [o.x3, o.q3]),
                            lambda o, d: o.diagonal(d)[0]),
    "aten.inner": (lambda o: torch.ops.aten.inner(o.x3, o.q3), lambda o, d: d[0].transpose(1, 2)),
    "aten.tensordot": (lambda o: torch.ops.aten.tensordot(o.x3, o.q3, [2], [2]),
                       lambda o, d: d[0].transpose(1, 2)),
}  # fmt: skip
"""Each function by its name, how it is called, and what comes of it: of d, the sums in float32."""


@lru_cache(maxsize=32)
def exact(name, kind):
    """The sums by fractions, in float32."""
    o = Operands(name, kind)

    def multiply(x, q):
        with nx.use("reference"):
            found = nx.linear(as_array(x.float()), nx.interop.as_arrays(q.to(torch.float32)))
        return torch.from_numpy(found)

    return o.due(multiply)


def wrong_ones(o, d, skipped=()):
    """The entrances that give other bits than are due."""
    wrong = []
    for entrance, (call, due) in OBEYS.items():
        if not any(word in entrance for word in skipped):
            found, right = call(o).detach(), due(o, d).to(o.kind)
            same = found.shape == right.shape and torch.equal(found, right)
            wrong += [] if same and not (found == 0).logical_and(found.signbit()).any() else [entrance]
    return wrong


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:An output with one or more")
@pytest.mark.turns(50)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("name", SOME)
def test_a_product_of_torchs_has_other_bits_than_the_exact_model(name, mode):
    """The model knows one row of x and one row of q, and no batch."""
    with mode():
        assert not wrong_ones(Operands(name), exact(name, "float32"))


@pytest.mark.filterwarnings("ignore:torch.chain_matmul")
@pytest.mark.parametrize("name", ["mxfp4", "int4 groups"])
def test_a_product_that_is_recorded_has_other_bits(name):
    o = Operands(name)
    o.x4.requires_grad_()
    o.views()
    assert not wrong_ones(o, exact(name, "float32"), ("out", "_:"))


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:An output with one or more")
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_products_of_16_bits_are_rounded_more_than_once(kind):
    """A bias was added to a product that was rounded, where x was not contiguous or a vector."""
    assert not wrong_ones(Operands("mxfp4", kind), exact("mxfp4", kind))


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:An output with one or more")
@pytest.mark.turns
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["mxfp4", "int8 rows", "nvfp4"])
def test_a_row_depends_on_its_batch(name, threads, monkeypatch):
    """Each row alone is what it is among many: there torch goes other ways."""
    monkeypatch.setenv("NUMERICS_NUM_THREADS", str(threads))
    o = Operands(name)

    def alone(x, q):
        return torch.stack([F.linear(row, q) for row in x.reshape(-1, LENGTH)]).reshape(*x.shape[:-1], len(q))

    assert not wrong_ones(o, o.due(alone))
    for batch, many in ((7, 33), (1, 1)):
        o = Operands(name, batch=batch, many=many)
        d, few = o.due(alone), ("out", "as x", "addmm: a matrix", "addmm_", "addbmm", "baddbmm_")
        assert not wrong_ones(o, d, few)


def test_attention_of_16_bits_depends_on_its_batch():
    """Of a batch of one its linear layers added the bias in float32, of more they rounded before."""
    o = Operands("mxfp4", "bfloat16")
    packed = nx.quantize(torch.from_numpy(rows(3 * LENGTH, LENGTH)).to(o.kind), "mxfp4")
    x = o.x3.transpose(0, 1)
    whole = attention(o, x, packed)
    for place in range(x.shape[1]):
        assert torch.equal(attention(o, x[:, place : place + 1], packed), whole[:, place : place + 1])


NOT_COMPILED = "vmap", "chain", "mm: out", "matmul: experts, out"  # torch compiles no out= of another layout
COMPILED = [name for name in OBEYS if not name.startswith(NOT_COMPILED)][::3]


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_graph_of_products_gives_other_bits(dynamic):
    o = Operands("mxfp4")
    torch._dynamo.reset()
    x4, q3 = o.x4, o.q3

    def all_of_them(x4, q3):
        o.x4, o.q3, o.q = x4, q3, q3[1]
        o.views()
        return [OBEYS[name][0](o) for name in COMPILED]

    due = all_of_them(x4, q3)
    found = torch.compile(all_of_them, fullgraph=True, backend="aot_eager", dynamic=dynamic)(x4, q3)
    assert [name for name, a, b in zip(COMPILED, found, due, strict=True) if not torch.equal(a, b)] == []


def test_a_product_or_its_gradient_decodes_a_weight(monkeypatch):
    o = Operands("mxfp4")
    o.x4.requires_grad_()
    o.views()

    def refuse(*_, **__):
        raise AssertionError("a weight was decoded")

    monkeypatch.setattr(type(o.q), "dequantize", refuse)
    for entrance, (call, _) in OBEYS.items():
        if not any(word in entrance for word in ("out", "_:", "vector", "dot", "pairs", "chain")):
            torch.autograd.grad(call(o).sum(), o.x4)


@pytest.mark.parametrize("name", MATRICES)
def test_a_row_is_another_vector(name):
    """A vector is a row of a matrix, however its scales lie."""
    w, x = torch.from_numpy(rows(40, 64, seed=3)), torch.from_numpy(rows(6, 64))
    q = nx.quantize(w.abs() if name == "uint8" else w, MATRICES[name])
    due = nx.linear(x, q)
    if "across" in name:
        return
    for place in (0, 7):
        assert torch.equal(x @ q[place], due[:, place])
        assert torch.equal(torch.dot(q[place], x[2]), due[2, place])


SCHEMES = [
    "int8", nx.QuantSpec("int8", scheme="per_channel(0)"), nx.QuantSpec("int8", scheme="per_channel(1)"),
    nx.QuantSpec("int8", scheme="per_channel(2)"), nx.QuantSpec("int4", scheme="per_group(4, 1)"),
    nx.QuantSpec("fp8_e4m3", scheme="per_block((4, 32))"), nx.QuantSpec("nvfp4", scheme="per_block((8, 16))"),
    nx.QuantSpec("uint4", symmetric=False, zero_point_type="float32"), "mx9", "nf4",
]  # fmt: skip


@pytest.mark.parametrize("spec", SCHEMES, ids=str)
def test_experts_of_a_scheme_are_multiplied_otherwise(spec):
    q = nx.quantize(torch.from_numpy(rows(24, LENGTH)).reshape(3, 8, LENGTH), spec)
    x = torch.from_numpy(rows(5, LENGTH))
    due = torch.stack([nx.linear(x, q[e]) for e in range(3)])
    assert torch.equal(x @ q.mT, due)
    assert torch.equal(q @ x.T, due.mT)
    assert torch.equal(torch.einsum("enk,mk->nem", q, x), due.permute(2, 0, 1))
    assert torch.equal(torch.bmm(q, x.T.expand(3, -1, -1)), due.mT)


ACROSS = {
    "matmul": lambda o, x: x @ o.q,
    "a vector": lambda o, x: torch.stack([row @ o.q for row in x]),
    "on the left": lambda o, x: (o.q.T @ x.T).T,
    "linear": lambda o, x: F.linear(x, o.q.T),
    "three axes": lambda o, x: (x.expand(3, -1, -1) @ o.q)[1],
    "experts": lambda o, x: (x @ o.q3)[1],
    "bmm": lambda o, x: torch.bmm(x.expand(3, -1, -1), o.q3)[1],
    "addmm": lambda o, x: torch.addmm(torch.zeros(LENGTH, dtype=o.kind), x, o.q),
    "einsum": lambda o, x: torch.einsum("mn,enk->mek", x, o.q3)[:, 1],
    "inner": lambda o, x: torch.inner(x, o.q.T),
    "tensordot": lambda o, x: torch.tensordot(x, o.q, 1),
    "a gradient": lambda o, x: torch.autograd.grad(
        F.linear(zeros := torch.zeros(len(x), LENGTH, dtype=o.kind).requires_grad_(), o.q), zeros, x
    )[0],
}


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["mxfp4", "int4 groups", "int8 rows"])
def test_sums_over_rows_of_q_are_others(name, kind):
    o = Operands(name, kind)
    x = torch.from_numpy(rows(5, COUNT)).to(o.kind)
    with nx.use("reference"):
        held = nx.interop.as_arrays(o.q.to(torch.float32))
        due = torch.from_numpy(columns_times(as_array(x.float()), held)).to(o.kind)
    for entrance, call in ACROSS.items():
        assert torch.equal(call(o, x), due), entrance
        assert torch.equal(call(o, x[2:3]), due[2:3]), entrance


def test_both_are_quantized():
    """The first one's values are x."""
    o = Operands("mxfp4")
    x, x3 = nx.quantize(o.x, "int8"), nx.quantize(o.x3, "int4")
    assert torch.equal(x @ o.q.T, nx.linear(x.dequantize(), o.q))
    due = torch.stack([nx.linear(x3[e].dequantize(), o.q3[e]) for e in range(EXPERTS)])
    for found in (x3 @ o.q3.mT, torch.bmm(x3, o.q3.mT), torch.einsum("emk,enk->emn", x3, o.q3)):
        assert torch.equal(found, due)
    assert torch.equal(x @ o.q[2], nx.linear(x.dequantize(), o.q)[:, 2])
    assert torch.equal(F.linear(x, o.q, nx.quantize(o.c, "bfloat16")), nx.linear(
        x.dequantize(), o.q, nx.quantize(o.c, "bfloat16").dequantize()))  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:An output with one or more")
def test_decoded_products_are_not_those_of_a_dense_weight():
    o, dense = Operands("mxfp4"), Operands("mxfp4")
    dense.q3, dense.q = o.q3.dequantize(), o.q.dequantize()
    with nx.decoded_products():
        assert [name for name, (call, _) in OBEYS.items() if not torch.equal(call(o), call(dense))] == []


def test_transformations_of_torchs_go_round_the_codes():
    o = Operands("mxfp4")
    due = torch.stack([nx.linear(o.x3[e], o.q3[e]) for e in range(EXPERTS)])
    assert torch.equal(torch.vmap(lambda x, q: x @ q.T)(o.x3, o.q3), due)
    x = o.x.clone().requires_grad_()
    (due,) = torch.autograd.grad((x @ o.q3.mT).sum(), x)
    assert torch.equal(torch.func.grad(lambda x: (x @ o.q3.mT).sum())(o.x), due)


def entry_by_entry(f, *batches):
    return torch.stack([f(*entry) for entry in zip(*batches, strict=True)])


@pytest.mark.turns(30)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SOME)
def test_a_product_under_vmap_is_not_that_of_a_loop(name, kind):
    """Torch's rules for a batch turned a dot product to a view of q, and rounded before they added."""
    o, wrong = Operands(name, kind), []
    batch = torch.stack([o.x4, o.x4.flip(-1) * 1.5, o.x4 * 0.3 + 1])
    for entrance, (call, _) in OBEYS.items():
        attention_of_short = entrance.startswith("multi_head") and kind != "float32"  # which is not said
        if attention_of_short or "out" in entrance.split() or entrance.startswith("chain"):
            continue
        if entrance.endswith("_"):  # torch has no rule for what is written in place, for out=, for chains
            continue

        def entry(x4, call=call):
            o.x4 = x4
            o.views()
            return call(o)

        due = entry_by_entry(entry, batch)
        found = [
            torch.vmap(entry)(batch),
            torch.vmap(entry, in_dims=4, out_dims=-1)(batch.movedim(0, 4)).movedim(-1, 0),
            torch.vmap(torch.vmap(entry, in_dims=2), in_dims=0)(torch.stack([batch] * 2).movedim(1, 3))[1],
        ]
        wrong += [] if all(torch.equal(one, due) for one in found) else [entrance]
    assert not wrong


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_what_vmap_goes_along_changes_bits(kind):
    o = Operands("int8 rows", kind)
    row, many, names = o.q[2], o.x3.flatten(0, 1), torch.ops.aten
    rows_of = {
        "matmul": lambda r: row @ r, "dot": lambda r: row.dot(r),
        "names": lambda r: torch.dot(input=row, tensor=r),
        "vdot": lambda r: torch.vdot(r, row), "inner": lambda r: torch.inner(row, r),
        "by its operator": lambda r: names.dot(row, r),
        "aten.dot.default": lambda r: names.dot.default(row, r),
        "aten.matmul": lambda r: names.matmul(row, r),
        "aten.linear": lambda r: names.linear(r[None], o.q, o.c),
        "aten.tensordot": lambda r: names.tensordot(row, r, [0], [0]),
        "nx.linear": lambda r: nx.linear(r, o.q, o.c), "linear": lambda r: F.linear(o.q, r[None], r[:1]),
    }  # fmt: skip
    for name, f in rows_of.items():
        due = entry_by_entry(f, many)
        assert torch.equal(torch.vmap(f)(many), due), name
        assert torch.equal(torch.vmap(f, in_dims=1)(many.T), due), name
    added = torch.stack([o.c, 3 * o.c])
    for f in (lambda c: F.linear(o.x, o.q, c), lambda c: torch.addmm(c, o.x, o.q.t(), alpha=0.3),
              lambda c: torch.addmv(c, o.q, o.row, beta=2)):  # fmt: skip
        assert torch.equal(torch.vmap(f)(added), entry_by_entry(f, added))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_factor_that_a_graph_does_not_know_yet_left_the_codes(backend):
    """A symbolic integer was none of the numbers that a product is multiplied by."""
    o = Operands("int8 rows")

    def call(c, x, q, times):
        return torch.addmm(c, x, q.t(), alpha=times, beta=times)

    torch._dynamo.reset()
    compiled = torch.compile(call, dynamic=True, fullgraph=True, backend=backend)
    for times in (2, 3, 5, 0, 1, 0.3, 0.7):
        assert torch.equal(compiled(o.c, o.x, o.q, times), call(o.c, o.x, o.q, times)), times


def test_a_gradient_under_vmap_is_that_of_a_loop():
    o = Operands("int4 groups")
    for f in (lambda r: o.q[2] @ r, lambda r: torch.addmv(o.c, o.q, r, alpha=2).sum()):
        (alone,) = torch.autograd.grad(f(r := o.row.clone().requires_grad_()), r)
        found = torch.vmap(torch.func.grad(f))(o.x)
        assert torch.equal(found[0], torch.func.grad(f)(o.row))
        assert torch.equal(found[0], alone)


def test_out_is_written_by_other_rules_than_torchs():
    o = Operands("mxfp4")
    with pytest.raises(RuntimeError, match="Expected out tensor to have dtype"):
        torch.matmul(o.x3, o.q.T, out=torch.empty(3, 5, 8, dtype=torch.float64))
    with pytest.warns(UserWarning, match="was resized"):
        found = torch.matmul(o.x3, o.q.T, out=(out := torch.zeros(3)))
    assert found is out
    assert torch.equal(out, nx.linear(o.x3, o.q))
    for product in (torch.mm, torch.matmul):
        with pytest.raises(nx.NumericsError, match="in place"):
            product(o.x, o.q.T, out=nx.quantize(torch.zeros(5, 8), "int8"))
    with pytest.raises(nx.NumericsError, match="requires a gradient"):
        torch.matmul(o.x3.clone().requires_grad_(), o.q.T, out=torch.zeros(3, 5, 8))
    with pytest.raises(RuntimeError, match="single memory location"):
        torch.mm(o.x, o.q.T, out=torch.zeros(1).expand(5, 8))
    with pytest.raises(RuntimeError, match="Bad in-place call"):
        torch.zeros(1, 8).addmm_(o.x, o.q.T)
    square = nx.quantize(torch.from_numpy(rows(LENGTH, LENGTH)), "mxfp4")
    due = o.x @ square
    assert torch.equal(torch.mm(o.x, square, out=o.x), due)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (2, 0, 3), (0,)])
def test_rows_that_are_none_are_multiplied_otherwise(shape):
    o = Operands("mxfp4")
    for q in (o.q.T, o.q3.mT[:, :, :0], o.q3.mT[:0], o.q3.mT):
        x = torch.zeros(*shape, LENGTH)
        dense = q.dequantize()
        try:
            due = x @ dense
        except RuntimeError:
            with pytest.raises(RuntimeError):
                x @ q
        else:
            assert (x @ q).shape == due.shape
    nothing = nx.quantize(torch.zeros(8, 0), "int4")
    assert torch.equal(F.linear(torch.zeros(2, 3, 0), nothing, o.c), o.c.expand(2, 3, 8))
    assert torch.equal(nothing @ torch.zeros(0), torch.zeros(8))


def test_a_weight_that_learns_has_no_gradient():
    """The values of q have one, as those of any weight."""
    o = Operands("mxfp4")
    for name in ("matmul: experts, one x", "einsum", "inner", "baddbmm", "matmul: axes before", "mv", "dot"):
        o.q3 = o.q3.detach().requires_grad_()
        o.q = o.q3[1]
        found = torch.autograd.grad(OBEYS[name][0](o).sum(), o.q3)[0]
        dense = Operands("mxfp4")
        dense.q3 = o.q3.dequantize().detach().requires_grad_()
        dense.q = dense.q3[1]
        due = torch.autograd.grad(OBEYS[name][0](dense).sum(), dense.q3)[0]
        torch.testing.assert_close(found, due)


# ---- what does not obey ------------------------------------------------------------------------------------

TWO = torch.from_numpy(rows(2, COUNT))
DEQUANTIZES = {
    "conv1d": lambda o, w: F.conv1d(o.x3.mT, w[..., None]),
    "conv2d": lambda o, w: F.conv2d(o.x3.mT[..., None], w[..., None, None]),
    "conv3d": lambda o, w: F.conv3d(o.x3.mT[..., None, None], w[..., None, None, None]),
    "conv_transpose1d": lambda o, w: F.conv_transpose1d(o.x3.mT, w.mT[..., None]),
    "conv_transpose2d": lambda o, w: F.conv_transpose2d(o.x3.mT[..., None], w.mT[..., None, None]),
    "conv_transpose3d": (
        lambda o, w: F.conv_transpose3d(o.x3.mT[..., None, None], w.mT[..., None, None, None])
    ),
    "convolution": lambda o, w: torch.convolution(o.x3.mT, w[..., None], None, [1], [0], [1], False, [0], 1),
    "conv_tbc": lambda o, w: torch.conv_tbc(o.x3, w.mT[None], o.c, 0),
    "bilinear": lambda o, w: F.bilinear(TWO, o.x[:2], w[None]),
    "cdist": lambda o, w: torch.cdist(o.x, w),
    "cosine_similarity": lambda o, w: F.cosine_similarity(o.x[:, None], w),
    "kron": lambda o, w: torch.kron(o.x, w),
    "outer": lambda o, w: torch.outer(o.row, w[0]),
    "ger": lambda o, w: torch.ger(o.row, w[0]),
    "addr": lambda o, w: torch.addr(torch.ones(LENGTH, LENGTH), o.row, w[0]),
    "addr_": lambda o, w: torch.ones(LENGTH, LENGTH).addr_(o.row, w[0]),
    "cross": lambda o, w: torch.cross(o.x[:3], w[:3], dim=0),
    "linalg_cross": lambda o, w: torch.linalg.cross(o.x[:3], w[:3], dim=0),
    "linalg_vecdot": lambda o, w: torch.linalg.vecdot(o.x, w[2]),
    "linalg_householder_product": lambda o, w: torch.linalg.householder_product(w.mT, o.c),
    "lstm": lambda o, w: recurrent(torch.nn.LSTM, 2, w)(o.x3)[0],
    "sspaddmm": (
        lambda o, w: torch.sspaddmm(torch.zeros(5, COUNT).to_sparse(), o.x.to_sparse(), w.mT).to_dense()
    ),
    "mm: sparse": lambda o, w: torch.sparse.mm(o.x.to_sparse(), w.mT),
    "einsum: two axes": lambda o, w: torch.einsum("nk,mnk->m", w, eight(o)),
    "einsum: three operands": lambda o, w: torch.einsum("mk,nk,n->m", o.x, w, o.c),
    "einsum: nothing is summed": lambda o, w: torch.einsum("mk,nk->mnk", o.x, w),
    "tensordot: two axes": lambda o, w: torch.tensordot(eight(o), w, 2),
    "matmul: experts in blocks": lambda o, w: o.x @ across(w).mT,
    "matmul: float64": lambda o, w: o.x.double() @ w.to(torch.float64).T,
}  # fmt: skip
"""Each function by its name: the bits are those of torch's product with `q.dequantize()`."""

AS_TORCH_HAS_IT = {
    "gru", "rnn_relu", "rnn_tanh", "lstm_cell", "gru_cell", "rnn_relu_cell", "rnn_tanh_cell",
    "linear_cross_entropy", "matrix_power", "linalg_matrix_power", "scaled_dot_product_attention",
}  # fmt: skip
"""What torch makes of other products inside: where those are of matrices, codes are read; no more is said."""

NO_PRODUCTS = {
    "mul", "mul_", "multiply", "multiply_", "__mul__", "__imul__", "__rmul__", "addcmul",
    "addcmul_", "prod", "cumprod",
    "cumprod_", "cartesian_prod",
}  # fmt: skip
NOT_OF_FLOATS = re.compile("fbgemm_|quantized_|miopen_|^(dsmm|hsmm|hspmm|saddmm|smm|spmm)$")
"""Of integers, of another device, or of sparse tensors with a dense one."""


def eight(o):
    return o.x4.reshape(-1, LENGTH)[: 3 * COUNT].reshape(3, COUNT, LENGTH)


def across(w):
    """Experts, of which blocks reach over all: of those values or of the QTensor, as w is one."""
    q = nx.quantize(torch.from_numpy(rows(32 * COUNT, LENGTH)).reshape(32, COUNT, LENGTH), "mxfp4", axis=0)
    return q if isinstance(w, nx.QTensor) else q.dequantize()


def recurrent(kind, many, w):
    layer = kind(LENGTH, many)
    with torch.no_grad():
        for place, part in enumerate(layer.parameters()):
            part.copy_(torch.linspace(-1, 1, part.numel()).reshape(part.shape) + place)
    layer.weight_ih_l0 = torch.nn.Parameter(w, requires_grad=False)
    return layer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DEQUANTIZES)
def test_what_is_left_to_torch_is_another_product(name):
    o = Operands("mxfp4")
    found, due = DEQUANTIZES[name](o, o.q), DEQUANTIZES[name](o, o.q.dequantize())
    assert_same_bits(found.detach().numpy(), due.detach().numpy())


MULTIPLIES = re.compile(
    r"mm|mv|mul|dot|inner|einsum|linear|conv|lstm|gru|rnn|attention|outer|^ger$|addr|kron|cdist|cross|chain|"
    r"matrix_power|similarity|prod|matmul"
)
OTHER = re.compile("cumm|cumul|binary|^cross_entropy|multi_?margin|multinomial|multilabel|gamm|comm|accumul")


SPACES = "torch", "torch.functional", "torch.nn.functional", "torch.linalg", "Tensor"


def test_a_function_that_multiplies_is_in_no_table():
    """A torch of tomorrow brings new ones: put each where it belongs, and into docs/formats.md."""
    known = {entrance.partition(":")[0] for entrance in (*OBEYS, *DEQUANTIZES)}
    known |= AS_TORCH_HAS_IT | NO_PRODUCTS
    names = {
        getattr(function, "__name__", "")
        for space, functions in get_overridable_functions().items()
        for function in functions
        if getattr(space, "__name__", "") in SPACES
    }
    found = {name for name in names if MULTIPLIES.search(name) and not OTHER.search(name)}
    assert {name for name in found - known if not NOT_OF_FLOATS.search(name)} == set()


def test_every_name_of_a_plan_is_in_a_table():
    """What `nx.plan` calls a product is told apart here, too."""
    from numerics.model.looking.products import PRODUCTS

    known = {entrance.partition(":")[0].removesuffix("_") for entrance in (*OBEYS, *DEQUANTIZES)}
    rest = set(PRODUCTS) - known - AS_TORCH_HAS_IT
    assert rest <= {"embedding", "embedding_bag", "grouped_mm", "_grouped_mm"}  # rows that are picked; below


def test_arrays_are_kept_until_the_scale_of_a_tensor_is_written():
    """Whoever writes it by .data leaves no version behind: its bits are read at each call."""
    x, q = torch.randn(2, 32), nx.quantize(torch.randn(4, 32), "nvfp4")
    before, kept = F.linear(x, q), q.arrays
    assert q.arrays is kept
    q.tensor_scale.data.mul_(2)
    assert torch.equal(F.linear(x, q), 2 * before)
    assert q.arrays is not kept
