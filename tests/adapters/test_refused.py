"""What a host refuses it refuses in the same words with our kernels under it; what it answers it answers."""

from __future__ import annotations

import importlib
from functools import partial

import pytest

pytest.importorskip("torch")
import torch

from tests.adapters.hosts import asked, same_bits

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.linspace(-3.0, 5.0, 512).view(8, 64)
STEP, ZERO = X.abs().amax(-1) / 127, torch.zeros(8, dtype=torch.int32)
NEGATIVE = torch._neg_view(X)


def later(module, name, *given, **named):
    """A call of what a module has under a name when it is made."""
    return lambda: getattr(importlib.import_module(module), name)(*given, **named)


def torchao():
    affine = partial(later, "torchao.quantization.quant_primitives")
    mx = partial(later, "torchao.prototype.mx_formats.mx_tensor", "to_mx")
    given = (1, 64), STEP, ZERO, torch.int8
    for low in ("zzz", (1, 2), torch.tensor(3), 1 << 40):
        yield affine("quantize_affine", X, *given, low)
        yield affine("dequantize_affine", ZERO.expand(64, 8).T.to(torch.int8), *given, low)
    yield affine("quantize_affine", NEGATIVE, *given)
    yield affine("quantize_affine", X, None, *given[1:])
    yield affine("quantize_affine", X)
    yield affine("quantize_affine", X, (1, 64), STEP.to(torch.complex64), *given[2:])
    yield mx(X, torch.float8_e4m3fn, 32, None)
    yield later("torchao.prototype.mx_formats.kernels", "f32_to_f4_unpacked", NEGATIVE)


def compressed_tensors():
    cast = partial(later, "compressed_tensors.quantization.utils.fp4_utils", "cast_to_fp4")
    yield from (cast(x=X), cast(NEGATIVE), cast(X, 1), cast(None))
    pack = partial(later, "compressed_tensors.compressors.nvfp4.helpers", "pack_fp4_to_uint8")
    yield from (pack(X * size) for size in (1, 1e3, -1e30, torch.inf))  # which are not fp4's values
    yield later(
        "compressed_tensors.compressors.nvfp4.helpers", "unpack_fp4_from_uint8", X[:4].to(torch.uint8), 8, 64,
        dtype=2.5,
    )  # fmt: skip


def modelopt():
    quant = partial(later, "modelopt.torch.quantization.tensor_quant", "_tensor_quant")
    yield from (
        quant(NEGATIVE, X.amax()),
        quant(X),
        quant(X, X.amax(), unsigned=None),
        quant(X, X.amax(), no=1),
    )
    yield lambda: torch.func.vmap(lambda x: quant(x, X.amax())())(X)


def quark():
    kernel = partial(later, "quark.torch.kernel")
    whole = ZERO, 0, 0, -128.0, 127.0, 8, "per_channel"
    yield kernel("scaled_fake_quantize", "int8", X, STEP.view(2, 4, 1), *whole, "")
    yield kernel("scaled_fake_quantize", "int8", X, STEP, ZERO.bool(), *whole[1:], "")
    codes = torch.zeros(8, 64, dtype=torch.int32)
    yield kernel("dequantize", "int8", codes, STEP, ZERO.double(), 0, 0, "per_channel")
    yield kernel("dequantize", "int8", codes, STEP, ZERO.bool(), 0, 0, "per_channel")
    for low in (None, "zzz", (1, 2)):
        yield kernel("lsq_quantize", X, STEP, ZERO, 0.01, low, 127, 0, 8)
    yield kernel("lsq_quantize", X, STEP, ZERO, 0.01, -128, 127, 0, 8, 9, 10)
    yield kernel("tqt_quantize", x=X)
    nested = torch.nested.nested_tensor([X[0], X[1, :32]])
    yield kernel("lsq_quantize", nested, STEP, ZERO, 0.01, -128, 127, 0, 8)
    yield kernel("tqt_quantize", nested, STEP[:1], ZERO[:1], torch.tensor([128.0]), 8)


def answer(call):
    """What a call gives, or what kind of error it raises, and its words."""
    try:
        return call()
    except Exception as refused:
        return type(refused).__name__, str(refused)


def alike(expected, found):
    if isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor):
        return same_bits(expected, found)
    return isinstance(expected, tuple) and isinstance(found, tuple) and expected == found


@pytest.mark.parametrize("cases", [torchao, compressed_tensors, modelopt, quark])
def test_what_a_host_refuses_or_answers_stays_so(cases):
    adapter = asked(cases.__name__)
    calls = [*cases()]
    stock = [answer(call) for call in calls]
    with adapter.substituted():
        found = [answer(call) for call in calls]
    wrong = [(k, *pair) for k, pair in enumerate(zip(stock, found, strict=True)) if not alike(*pair)]
    assert not wrong, wrong[0]
