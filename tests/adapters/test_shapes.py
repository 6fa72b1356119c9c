"""Tensors with axes of one number: bits, shapes and strides are the stock host's, in every function."""

from __future__ import annotations

import importlib
from itertools import product

import pytest

pytest.importorskip("torch")
import torch

from tests.adapters.hosts import asked, same_bits

pytestmark = pytest.mark.filterwarnings("ignore")
SHAPES = (
    (1,), (4,), (64,), (1, 1), (4, 1), (1, 4), (64, 1), (1, 64), (0, 64), (64, 0), (1, 1, 64), (1, 64, 1),
    (64, 1, 1), (4, 64, 1), (4, 1, 64), (2, 4, 1), (64, 1, 2), (4, 32, 1, 1),
)  # fmt: skip


def numbers(shape, kind=torch.float32):
    g = torch.Generator().manual_seed(15)
    return (torch.randn(shape, generator=g) * torch.exp2(torch.randn(shape, generator=g) * 4)).to(kind)


def laid(x):
    """x, and the same numbers with another stride of its axes of one number, as views and slices have it."""
    yield x
    for other in (1, 7):
        strides = [other if size == 1 else step for size, step in zip(x.shape, x.stride(), strict=True)]
        if 1 in x.shape and x.numel() and strides != list(x.stride()):
            yield torch.empty(8 * x.numel() + 64, dtype=x.dtype).as_strided(x.shape, strides).copy_(x)


def every(shapes=SHAPES, kind=torch.float32):
    return [one for shape in shapes for one in laid(numbers(shape, kind))]


def scales_of(shape):
    """Shapes of scales beside a tensor: one, one a row, one with more axes."""
    return {(), (1,), (1, 1), (*shape[:-1], 1), (1,) * (len(shape) + 1)}


def microxcaling():
    ops = importlib.import_module("mx.mx_ops")
    ways = product(("fp4_e2m1", "fp8_e4m3", "int8"), ("nearest", "floor", "even"), (0, 2, 32))
    for x, (name, rounding, size) in product(every(), [*ways]):
        for axis in range(x.dim()):
            more = {"axes": [axis], "block_size": size, "round": rounding}
            yield (
                (x.shape, x.stride(), name, more),
                lambda x=x, n=name, m=more: ops._quantize_mx(x, 8, n, **m),
            )


def microxcaling_without_mantissa():
    ops = importlib.import_module("mx.elemwise_ops")
    x = torch.tensor(
        [1.5, 3, 6, 12, 24, -12, 1.25, 1.75, 0.75, 0.5, 0.375, 2.0**-15, 1.5 * 2.0**-15, 0.0, 48]
    )
    roundings = "nearest", "even", "floor"
    for rounding, bits in product(roundings, (9, 10)):
        yield ("bfloat", bits, rounding), lambda b=bits, r=rounding: ops._quantize_bfloat(x, b, round=r)
    for rounding, exponent, bits, largest in product(roundings, range(9), (2, 3), (1.0, 2.0, 3.0, 8.0, 16.0)):
        yield (
            (exponent, bits, largest, rounding),
            (lambda a=(bits, exponent, largest), r=rounding: ops._quantize_elemwise_core(x, *a, round=r)),
        )


def compressed_tensors():
    words = importlib.import_module("compressed_tensors.compressors.pack_quantized.helpers")
    forward = importlib.import_module("compressed_tensors.quantization.lifecycle.forward")
    helpers = importlib.import_module("compressed_tensors.quantization.lifecycle.forward_helpers")
    casts = importlib.import_module("compressed_tensors.quantization.utils")
    args = importlib.import_module("compressed_tensors.quantization").QuantizationArgs
    matrices = (8, 64), (4, 64), (64, 4), (8, 1), (1, 8), (32, 1), (1, 32), (1, 64), (16, 8), (4, 4), (1, 1)
    for bits, shape, axis in product((2, 4, 8), matrices, (0, 1)):
        half = 1 << (bits - 1)
        for codes in laid((numbers(shape) * 99).to(torch.int8) % half):
            given = codes, bits, axis
            yield ("pack", bits, shape, axis), lambda g=given: words.pack_to_int32(*g)
            packed = words.pack_to_int32(*given)
            yield (
                ("unpack", bits, shape, axis),
                (lambda p=packed, b=bits, s=shape, a=axis: words.unpack_from_int32(p, b, torch.Size(s), a)),
            )
    for x in every():
        yield ("cast", x.shape, x.stride()), lambda x=x: casts.cast_to_fp4(x)
        for shape, (kind, bits) in product(scales_of(x.shape), (("float", 8), ("float", 4), ("int", 8))):
            scale, how = torch.full(shape, 0.3), args(num_bits=bits, type=kind, strategy="channel")
            name = x.shape, x.stride(), shape, kind, bits
            yield ("fake", *name), lambda x=x, s=scale, h=how: forward.fake_quantize(x, s, None, h)
            yield ("quantize", *name), lambda x=x, s=scale, h=how: forward.quantize(x, s, None, h)
            if kind == "int":
                for codes in laid((x.contiguous() * 9).to(torch.int8)):
                    yield ("back", *name), lambda c=codes, s=scale: helpers._dequantize(c, s)


def torchao():
    primitives = importlib.import_module("torchao.quantization.quant_primitives")
    tensors = importlib.import_module("torchao.prototype.mx_formats.mx_tensor")
    for x in every():
        blocks = {tuple(x.shape), (*x.shape[:-1], 1), (1,) * (x.dim() - 1) + tuple(x.shape[-1:])}
        for block in blocks:
            mapping, name = primitives.MappingType.ASYMMETRIC, (x.shape, x.stride(), block)
            scale, zero = torch.full((x.numel() // max(1, torch.Size(block).numel()),), 0.3), None
            zero = torch.zeros(scale.shape, dtype=torch.int32)
            yield (
                ("choose", *name),
                (lambda x=x, b=block, m=mapping: primitives.choose_qparams_affine(x, m, b, torch.int8)),
            )
            yield (
                ("quantize", *name),
                (lambda x=x, b=block, s=(scale, zero): primitives.quantize_affine(x, b, *s, torch.int8)),
            )
            for codes in laid((x.contiguous() * 9).to(torch.int8)):
                yield (
                    ("back", *name),
                    (
                        lambda c=codes, b=block, s=(scale, zero): primitives.dequantize_affine(
                            c, b, *s, torch.int8
                        )
                    ),
                )
        for size in (1, 2, 32):
            yield (
                ("mx", x.shape, x.stride(), size),
                (lambda x=x, n=size: tensors.to_mx(x, torch.float8_e4m3fn, n)),
            )


def modelopt():
    quant = importlib.import_module("modelopt.torch.quantization.tensor_quant")
    for x in (*every(), *every(kind=torch.bfloat16)):
        for shape in scales_of(x.shape):
            top, name = torch.full(shape, 2.3), (x.dtype, x.shape, x.stride(), shape)
            yield ("integers", *name), lambda x=x, t=top: quant._tensor_quant(x, t, 8, False, True)
            yield ("fp8", *name), lambda x=x, t=top: quant._fp8_eager(x, t)


def quark():
    kernel = importlib.import_module("quark.torch.kernel")
    types = ("int8", -128.0, 127.0), ("fp8_e4m3", -448.0, 448.0), ("fp4", -6.0, 6.0)
    for x, (name, low, high) in product(every(), types):
        for axis in range(-x.dim(), x.dim()):
            scale = torch.linspace(0.1, 0.3, x.shape[axis])
            given = name, x, scale, torch.zeros(scale.shape, dtype=torch.int32), axis, 0, low, high, 8
            said = name, x.shape, x.stride(), axis
            yield ("fake", *said), lambda g=given: kernel.scaled_fake_quantize(*g, "per_channel", "")
            yield ("real", *said), lambda g=given: kernel.scaled_real_quantize(*g, "per_channel")
            yield ("mx", *said), lambda x=x, a=axis: kernel.non_scaled_fake_quantize(x, "mx", "fp4", a, 32)


CASES = {
    "microxcaling": ("microxcaling", microxcaling),
    "microxcaling, no mantissa": ("microxcaling", microxcaling_without_mantissa),
    "compressed-tensors": ("compressed_tensors", compressed_tensors),
    "torchao": ("torchao", torchao), "modelopt": ("modelopt", modelopt), "quark": ("quark", quark),
}  # fmt: skip


def given(call):
    """What a call gives, or the words in which it is refused."""
    try:
        return call()
    except Exception as refused:
        return f"{type(refused).__name__}: {refused}"


def alike(a, b):
    """Are two answers the same in bits, shape and strides, or the same refusal?"""
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    a, b = (one if isinstance(one, tuple) else (one,) for one in (a, b))
    same = same_bits(a, b)
    return same and all(x.stride() == y.stride() for x, y in zip(a, b, strict=True) if x.numel())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.timeout(900)
def test_a_host_gives_the_same_of_tensors_with_axes_of_one_number(case):
    host, cases = CASES[case]
    adapter = asked(host)
    taken = [*cases()]
    stock = [given(call) for _, call in taken]
    with adapter.substituted() as calls:
        ours = [given(call) for _, call in taken]
    wrong = [name for (name, _), a, b in zip(taken, stock, ours, strict=True) if not alike(a, b)]
    assert not wrong, f"{len(wrong)} of {len(taken)}: {wrong[:4]}"
    assert calls.ours.total() > len(taken) // 20, calls


# ---- NaN, whose sign is packed -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("columns", [16, 32, 48, 512])
def test_nan_is_packed_as_fp4_with_the_sign_that_the_host_gives_it(kind, columns):
    """Of bfloat16 torch's loops over vectors turn it, and those over the rest do not."""
    adapter = asked("compressed_tensors")
    packs = importlib.import_module("compressed_tensors.compressors.nvfp4.helpers").quantize_and_pack_fp4
    x, scale = numbers((2, columns), kind), torch.full((2, columns // 16), 0.5, dtype=kind)
    x[0], x[1, ::5] = torch.nan, torch.nan
    stock = packs(x, scale)
    with adapter.substituted():
        assert torch.equal(stock, packs(x, scale))
