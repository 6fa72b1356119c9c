"""ModelOpt's own tensors, which quantize on a CPU: its blocks, a kernel for GPUs, are compared with them."""

from __future__ import annotations

import copy
import importlib

import pytest

pytest.importorskip("torch")
import torch

from tests.adapters.hosts import asked, same_bits

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = (1.0, 1e-6, 1e4)
ODD_TIES = (0.75, 1.75, 3.5)  # of fp4, between an odd code below and an even one above
KINDS = {
    "MXFP4QTensor": (32, (4, 2, 9, 8), (32,)),
    "MXFP8QTensor": (32, (8, 4, 9, 8), ()),
    "NVFP4QTensor": (16, (4, 2, 8, 4), (16,)),
}


def both(name, x):
    """What a tensor of ModelOpt's makes of x, ours, and the tensor's scales."""
    adapter = asked("modelopt")
    block, bits, given = KINDS[name]
    own = getattr(importlib.import_module("modelopt.torch.quantization.qtensor"), name)
    made, *scales = own.quantize(x.clone(), *given)
    named = dict(zip(("scale", "double_scale"), scales, strict=False))
    theirs = made.dequantize(dtype=x.dtype, **named, block_sizes={-1: block})
    with adapter.substituted() as counted:
        quant = importlib.import_module("modelopt.torch.quantization.tensor_quant")
        ours = quant.dynamic_block_quantize_op(x, block, x.abs().amax(), *bits)
    assert counted.ours["dynamic_block_quantize_op"] == 1
    return theirs, ours, scales


def numbers(kind, size):
    x = torch.randn(512, 256, generator=torch.Generator().manual_seed(15)) * size
    return x.clamp(torch.finfo(kind).min, torch.finfo(kind).max).to(kind)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", KINDS)
def test_blocks_of_float32_are_those_of_modelopts_own_tensors(name, size):
    theirs, ours, _ = both(name, numbers(torch.float32, size))
    if name == "NVFP4QTensor":  # which has no -0
        assert not (theirs.signbit() & (theirs == 0)).any()
        ours = ours + 0.0
    assert same_bits(theirs, ours)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_mxfp4_of_16_bits_differs_where_modelopts_tensor_gives_a_tie_to_the_lower_number(kind, size):
    x = numbers(kind, size)
    theirs, ours, (scale,) = both("MXFP4QTensor", x)
    steps = torch.exp2(scale.float() - 127).repeat_interleave(32).view(x.shape)
    quotient = (x.float() / steps).abs()
    ties = torch.isin(quotient, torch.tensor(ODD_TIES))
    assert ties.any()
    assert torch.equal(theirs != ours, ties)
    assert (ours.float().abs() > theirs.float().abs())[ties].all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_mxfp8_of_16_bits_is_that_of_modelopts_own_tensor(kind, size):
    theirs, ours, _ = both("MXFP8QTensor", numbers(kind, size))
    assert same_bits(theirs.float() + 0.0, ours.float() + 0.0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_nvfp4_of_16_bits_differs_where_a_blocks_scale_is_a_tie_once_amax_over_6_is_rounded(kind):
    differing = 0
    for size in (1.0, 1e-6, 2e-6, 3e-6, 1e4):
        x = numbers(kind, size)
        theirs, ours, (scale, of_tensor) = both("NVFP4QTensor", x)
        top = x.float().abs().view(512, 16, 16).amax(-1)
        at_once = (top / (6 * of_tensor)).clamp(2**-9, 448).to(torch.float8_e4m3fn)
        in_two = (top / 6 / of_tensor).clamp(2**-9, 448).to(torch.float8_e4m3fn)
        assert same_bits(at_once, scale)
        other = (at_once.float() != in_two.float()).repeat_interleave(16).view(x.shape)
        assert not ((theirs != ours) & ~other).any()
        differing += int((theirs != ours).sum())
    assert differing or kind == torch.float16


@pytest.mark.parametrize("name", ["MXFP8", "MXFP4", "NVFP4"])
def test_a_compiled_model_has_our_blocks_forward_and_backward(name):
    """Stock, a compiled model ends in ModelOpt's search for CUDA, as one that is not compiled does."""
    adapter = asked("modelopt")
    import modelopt.torch.quantization as mtq

    x = numbers(torch.float32, 1.0)[:8, :64].contiguous()
    model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 32, bias=False))

    def both(model):
        given = x.clone().requires_grad_()
        made = model(given)
        made.sum().backward()
        return made.detach(), given.grad

    with adapter.substituted() as counted:
        model = mtq.quantize(model, copy.deepcopy(getattr(mtq, f"{name}_DEFAULT_CFG")), lambda m: m(x))
        due = both(model)
        counted.clear()
        compiled = torch.compile(model, backend="aot_eager")
        assert same_bits(both(compiled), due)
        assert counted.ours["dynamic_block_quantize_op"] == 4  # of two layers weights and inputs
    torch._dynamo.reset()
    with pytest.raises(Exception, match="CUDA"):
        torch.compile(model, backend="aot_eager")(x)
    torch._dynamo.reset()
