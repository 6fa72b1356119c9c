"""The way of a call with a tensor: torch's operator where torch looks on, its kernel at once elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import numerics as nx
from numerics.formats import dispatch
from numerics.pytorch import operators
from numerics.pytorch.qtensor import TensorQTensor

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
    monkeypatch.setattr(TensorQTensor, "arrays", property(came))


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


@pytest.mark.parametrize("name", ["int4", "mxfp4", "nvfp4", "mx6"])
def test_a_qtensor_gave_the_values_of_bytes_that_it_held_before(name):
    q = nx.quantize(X, name)
    q.dequantize()
    q.packed.bitwise_xor_(17)  # in the same memory
    other = q.packed.clone()
    assert torch.equal(q.dequantize(), replaced(q, other).dequantize())
    other.bitwise_xor_(68)
    q.packed.data = other  # in another
    assert torch.equal(q.dequantize(), replaced(q, other).dequantize())
    q.packed.untyped_storage().resize_(0)
    with pytest.raises(nx.NumericsError, match="freed"):
        q.dequantize()


def test_a_qtensor_gave_its_scales_before_they_were_negated():
    q = nx.quantize(X, "int4")
    before = q.dequantize()
    z = torch.complex(torch.zeros(()), -q.shared)
    q.shared.data = z.conj().imag  # the same number, of which torch keeps the sign as a mark
    assert torch.equal(q.dequantize(), before)
    z.mul_(2)
    assert torch.equal(q.dequantize(), 2 * before)


def replaced(q, packed):
    """A QTensor of other bytes, which nobody has looked at."""
    return q.with_parts(q.spec, q.shape, packed.clone(), q.shared, q.zero_point)


def test_a_gradient_was_lost_at_once(marked):
    x = X.clone().requires_grad_()
    nx.fake_quantize(x, "int4").sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    with torch.no_grad(), pytest.raises(AssertionError, match="at once"):
        nx.fake_quantize(x, "int4")


def test_a_transformation_was_passed_by(marked):
    assert torch.equal(torch.func.grad(lambda x: nx.mxfp4.round(x).sum())(X), torch.ones_like(X))


# ---- who waits for a gradient, and gets none ----------------------------------------------------------

GIVEN = {"scale": 0.5, "symmetric": False, "zero_point_type": "float32"}
NO_GRADIENT = {
    "signs": lambda x, t: nx.hadamard(x, 16, signs=t.expand(16)),
    "scale": lambda x, t: nx.fake_quantize(x, "int8", scale=t),
    "zero_point": lambda x, t: nx.fake_quantize(x, "int8", zero_point=t, **GIVEN),
    "a zero_point of codes": lambda x, t: nx.quantize(x, "int8", zero_point=t, **GIVEN),
    "tensor_scale": lambda x, t: nx.fake_quantize(x, "nvfp4", tensor_scale=t),
    "tensor_scale of round": lambda x, t: nx.nvfp4.round(x, tensor_scale=t),
    "tensor_scale of encode": lambda x, t: nx.nvfp4.encode(x, tensor_scale=t),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_a_tensor_that_waits_for_a_gradient_got_none_without_a_word(name):
    """nx.hadamard(signs=) and a zero point: backward went, and .grad stayed None."""
    for x in (X, X.clone().requires_grad_(), X.numpy()):
        if isinstance(x, np.ndarray) and "signs" not in name:
            continue
        with pytest.raises(nx.NumericsError, match=r"requires a gradient, and has none here.*\.detach\(\)"):
            NO_GRADIENT[name](x, torch.tensor(1.0, requires_grad=True))
    NO_GRADIENT[name](X, torch.tensor(1.0))


# ---- autocast ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", ["int8", "mxfp4"])
def test_autocast_changed_what_nx_linear_gives_and_its_int8_not(d, kind):
    """nx.linear gave bfloat16 of float32 there, though it says x's type; torch's own products are cast."""
    x, q = torch.randn(3, 32), nx.quantize(torch.randn(8, 32), d)
    bias = torch.randn(8)
    due = nx.linear(x, q, bias)
    cast = F.linear(x.to(kind), q.to(kind), bias.to(kind))
    with torch.autocast("cpu", dtype=kind):
        assert torch.equal(nx.linear(x, q, bias), due)
        assert nx.linear(x, q, compute="int8").dtype == torch.float32
        assert nx.linear(x.to(kind), q.to(kind)).dtype == kind
        assert nx.fake_quantize(x, d).dtype == nx.hadamard(x, 32).dtype == torch.float32
        for found in (F.linear(x, q, bias), F.linear(x.to(kind), q, bias)):
            assert found.dtype == kind
            assert torch.equal(found, cast)
        assert torch.equal(x @ q.t(), F.linear(x.to(kind), q.to(kind)))
        torch._dynamo.reset()
        assert torch.equal(torch.compile(nx.linear, backend="eager", fullgraph=True)(x, q, bias), due)


@pytest.mark.filterwarnings("error")
def test_scales_in_an_array_that_may_not_be_written_were_no_real_numbers():
    """torch warns of such memory, once a process; where warnings are errors, scales were refused."""
    x, once = torch.randn(4, 64), np.broadcast_to(np.float32(0.5), (4,))
    torch.set_warn_always(True)
    try:
        by_row = nx.quantize(x, "int8", scheme=nx.per_channel(0), scale=once)
        due = nx.quantize(x, "int8", scheme=nx.per_channel(0), scale=np.array(once))
        assert torch.equal(by_row.dequantize(), due.dequantize())
        read = nx.quantize(x.numpy(), "int4")
        read.packed.setflags(write=False)
        assert dispatch.converter("torch")(read).packed.numpy().flags.writeable
    finally:
        torch.set_warn_always(False)


@pytest.mark.turns(12)
@pytest.mark.parametrize("verb", ["round", "encode", "decode"])
@pytest.mark.parametrize("name", ["fp8_e4m3", "int8", "nf4", "mxfp4", "mx6", "nvfp4"])
def test_out_in_a_graph_died_of_a_context_variable(name, verb):
    """The graph ends before it, and says so where it must not."""
    d, x = nx.dtype(name), torch.linspace(-1, 1, 128).reshape(4, 32)
    codes = d.encode(x)
    out = d.encode(x * 0) if verb == "encode" else torch.zeros(4, 32)
    given = codes if verb == "decode" else x

    def call(given):
        getattr(d, verb)(given, out=out)
        return given

    torch._dynamo.reset()
    torch.compile(call, backend="aot_eager")(given)
    if verb == "encode" and not isinstance(codes, torch.Tensor):
        assert torch.equal(out.codes, codes.codes)
        assert torch.equal(out.scale, codes.scale)
    else:
        assert torch.equal(out, getattr(d, verb)(given))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="out= is checked in memory"):
        torch.compile(call, backend="aot_eager", fullgraph=True)(given)
