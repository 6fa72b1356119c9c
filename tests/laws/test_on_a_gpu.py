"""What only a GPU shows: tensors, models and training there, beside the same on the CPU, bit for bit.

NUMERICS_TEST_DEVICE=cuda asks for them, since kernels are interpreted otherwise; with files of tests/laws it
runs those there.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
import torch
from torch import nn
from torch.nn import functional as F

import numerics as nx
from numerics import observe
from tests.helpers.models import Attention

pytestmark = [
    pytest.mark.skipif(os.environ.get("NUMERICS_TEST_DEVICE") != "cuda", reason="no GPU was asked for"),
    pytest.mark.filterwarnings("default"),
]
SPECS = {
    **{name: name for name in ("mxfp4", "mxfp8_e4m3", "mx6", "mx9", "nvfp4", "bfp16", "fp8_e4m3", "int8")},
    "int4 groups": nx.QuantSpec("int4", scheme="per_group(32)"),
    "int8 channels": nx.QuantSpec("int8", scheme="per_channel(0)"),
    "uint4 asymmetric": nx.QuantSpec("uint4", scheme="per_group(32)", symmetric=False),
    "fp6 channels": nx.QuantSpec("fp6_e2m3", scheme="per_channel(0)"),
}  # fmt: skip
LARGE = (1 << 31) + 4096  # elements: more than 32-bit offsets reach


def numbers(*shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))
    return (x * torch.exp2(torch.arange(shape[-1]) % 7 - 3.0)).to(kind)


def same(found: Any, due: torch.Tensor) -> bool:
    return found.is_cuda and found.dtype == due.dtype and torch.equal(found.cpu(), due)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_tensors_are_quantized_as_on_the_cpu(spec, kind):
    x = numbers(96, 128, kind=kind)
    for came in (x, numbers(128, 96, kind=kind).t(), x[:, ::2], x[:0], x[5]):
        if came.ndim < 2 and spec in (SPECS["int8 channels"], SPECS["fp6 channels"]):
            continue
        due, found = nx.quantize(came, spec), nx.quantize(came.cuda(), spec)
        for part in ("codes", "scale", "zero_point"):
            if getattr(due, part, None) is not None:
                assert same(getattr(found, part), getattr(due, part)), part
        assert same(found.dequantize(), due.dequantize())
        assert same(nx.fake_quantize(came.cuda(), spec), nx.fake_quantize(came, spec))
        assert same(found.cpu().cuda().dequantize(), due.dequantize())


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_products_and_gradients(spec):
    x, w = numbers(8, 128).cuda().requires_grad_(), numbers(96, 128)
    q = nx.quantize(w.cuda(), spec)
    dense = q.dequantize()
    assert torch.equal(F.linear(x, q), F.linear(x, dense))
    (gradient,) = torch.autograd.grad(F.linear(x, q).sum(), x)
    assert torch.equal(gradient, torch.autograd.grad(F.linear(x, dense).sum(), x)[0])
    for gone in (torch.float32, torch.bfloat16):
        leaf = w.to(gone).cuda().requires_grad_()
        nx.fake_quantize(leaf, spec).backward(torch.ones_like(leaf))
        kept = w.to(gone, copy=True).requires_grad_()
        nx.fake_quantize(kept, spec).backward(torch.ones_like(kept))
        assert same(leaf.grad, kept.grad)


@pytest.mark.parametrize("spec", ["mxfp4", "fp8_e4m3", "int8", SPECS["int4 groups"]], ids=str)
def test_compiled_graphs(spec):
    x = numbers(64, 128).cuda()

    def f(x: torch.Tensor) -> torch.Tensor:
        return nx.fake_quantize(F.gelu(x) * 1, spec)

    graph = torch.compile(f, fullgraph=True)
    inner = torch.compile(lambda x: F.gelu(x) * 1)(x)
    assert torch.equal(graph(x), nx.fake_quantize(inner, spec))
    q = nx.quantize(numbers(96, 128).cuda(), spec)
    assert torch.equal(
        torch.compile(lambda x: F.linear(x, q), fullgraph=True)(x), F.linear(x, q.dequantize())
    )


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
@pytest.mark.parametrize("activations", [None, "mxfp8_e4m3", "int8"])
def test_models(mode, activations, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(32, 32), nn.GELU(), Attention(), nn.LayerNorm(32), nn.Linear(32, 8)
    ).cuda()
    model.eval()
    x = numbers(2, 16, 32).cuda()
    observer = {"observer": "min_max"} if activations == "int8" else {}
    options = {"activations": activations, "example": (x,), "mode": mode, **observer}
    wrapped = nx.wrap(model, "mxfp4", **options)
    if observer:
        nx.calibrate(wrapped, [x])
    with torch.no_grad():
        due = wrapped(x)
        assert due.is_cuda
        assert not torch.equal(due, model(x))
        frozen = nx.freeze(wrapped)
        assert torch.equal(frozen(x), due)
    nx.save(frozen.state_dict(), tmp_path / "model.safetensors")
    assert nx.compare(model, frozen, [x]).sqnr > 5


def test_a_model_that_moves_there():
    model = nn.Linear(64, 64)
    wrapped = nx.wrap(model, "mxfp4", activations="mxfp4", example=numbers(2, 64)).cuda()
    x = numbers(4, 64)
    assert wrapped(x.cuda()).is_cuda
    assert model.weight.device.type == "cpu"
    frozen = nx.freeze(wrapped)
    assert torch.equal(frozen(x.cuda()), wrapped(x.cuda()))


@pytest.mark.parametrize("qat", ["ste", "tqt", "lsq"])
def test_training(qat):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).cuda()
    x, y = numbers(64, 32).cuda(), torch.randint(4, (64,), device="cuda")
    learner = nx.wrap(model, "int4", activations="int4", qat=qat, example=x)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(learner(x), y)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    due = learner(x)
    assert torch.equal(nx.freeze(learner)(x), due)


@pytest.mark.parametrize("kind", observe.OBSERVERS)
@pytest.mark.parametrize("scheme", ["per_tensor", "per_channel(0)"])
def test_observers(kind, scheme):
    there, here = (observe.observer(kind, "int8", scheme=scheme) for _ in range(2))
    for _ in range(3):
        x = numbers(64, 128)
        there.observe(x.cuda())
        here.observe(x)
    assert torch.equal(torch.as_tensor(there.scale).cpu(), torch.as_tensor(here.scale))


def test_streams():
    x = numbers(1 << 10, 1 << 12)
    due, there = nx.fake_quantize(x, "mxfp4"), x.cuda()
    streams = [torch.cuda.Stream() for _ in range(4)]
    found = []
    for stream in streams * 4:
        stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(stream):
            found.append(nx.fake_quantize(there, "mxfp4"))
    torch.cuda.synchronize()
    assert all(same(one, due) for one in found)


CAPTURED = {
    "mxfp4": lambda x: nx.fake_quantize(x, "mxfp4"),
    "hifloat8": nx.hifloat8.round,
    "blocks of nf4": lambda x: nx.fake_quantize(x, nx.block_format(element="nf4", block=32)),
}


@pytest.mark.parametrize("call", CAPTURED.values(), ids=CAPTURED)
def test_a_captured_graph(call):
    x = numbers(256, 128).cuda()
    for _ in range(2):
        call(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(x)
    x.copy_(x.flip(0) * 3)
    graph.replay()
    assert torch.equal(found, call(x))


@pytest.mark.parametrize("spec", ["fp8_e4m3", "mxfp4", "mx6", "int8", SPECS["int4 groups"]], ids=str)
def test_more_than_2_to_the_31_elements(spec):
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("40 GiB are needed")
    x = torch.empty(LARGE // 4096, 4096, dtype=torch.bfloat16, device="cuda").normal_()
    x[0, 0] = x.abs().max() * 2  # the scale of a tensor comes from the beginning
    ends = nx.fake_quantize(x, spec)
    q = nx.quantize(x, spec)
    assert torch.equal(q.dequantize(), ends)
    if isinstance(spec, str) and spec != "int8":  # what shares no scale with the rest
        assert same(ends[-3:], nx.fake_quantize(x[-3:].cpu(), spec)) or spec == "fp8_e4m3"
    del q
    torch.cuda.empty_cache()
