"""Every answer of a host with our kernels under it has the bits that the stock host gives."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from functools import partial
from itertools import islice, product

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import HOSTS
from tests.adapters.hosts import asked, same_bits

COMPARED = [host for host in HOSTS if host != "transformers"]

AT_ONCE = 200  # cases between an install and its uninstall, which look at every name of a host


def answered(cases):
    """The next cases with the stock host's answers; those that it refuses are left out."""
    found = []
    for name, call in cases:
        with contextlib.suppress(Exception):  # what the host refuses is not compared
            found.append((name, call, call(False)))
    return found


@pytest.mark.parametrize("host", COMPARED)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_a_host_gives_the_same_bits_with_our_kernels(host):
    adapter = asked(host)
    cases = importlib.import_module(f"tests.adapters.cases.{host}").cases()
    wrong, compared, ours, names = [], 0, 0, Counter()
    while batch := list(islice(cases, AT_ONCE)):
        taken = answered(batch)
        with adapter.substituted() as calls:
            for name, call, expected in taken:
                before = calls.ours.total()
                if not same_bits(expected, call(True)):
                    wrong.append(name)
                ours += calls.ours.total() > before
            names += calls.ours
        compared += len(taken)
    assert not wrong, f"{len(wrong)} of {compared}: {wrong[:9]}"
    assert ours > compared // 8, f"our kernels answered {ours} of {compared} calls"
    print(f"{host}: {compared} answers have the same bits; our kernels gave {ours}: {dict(names)}")


DEFAULTS = (torch.float64, torch.bfloat16, torch.float16)
"""What torch makes of numbers without a type, which hosts leave to it."""


@pytest.fixture
def default():
    """Sets torch's default type, which is float32 again at the end."""
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("host", COMPARED)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_a_host_gives_the_same_bits_whatever_torchs_default_type(host, default):
    adapter = asked(host)
    cases = [*islice(importlib.import_module(f"tests.adapters.cases.{host}").cases(), 0, None, 23)]
    for kind in DEFAULTS:
        default(kind)
        taken = answered(cases)
        with adapter.substituted():
            wrong = [name for name, call, expected in taken if not same_bits(expected, call(True))]
        assert not wrong, (kind, wrong[:9])
        default(torch.float32)


def test_a_largest_magnitude_of_any_type_and_shape_is_what_modelopt_takes_it_for(default):
    adapter = asked("modelopt")
    quant = importlib.import_module("modelopt.torch.quantization.tensor_quant")
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    tops = [torch.full(shape, 2.3, dtype=kind) for shape in ((), (1,)) for kind in (*DEFAULTS, torch.float32)]
    ways = product((4, 8, 14), (False, True), (False, True))
    cases = [*product((x, x.abs(), x.bfloat16(), x[0, 0]), tops, ways)]

    def every():
        found = []
        for y, top, way in cases:
            try:
                found.append(quant._tensor_quant(y, top, *way))
            except TypeError as refused:  # negative numbers in a range without a sign
                found.append(str(refused))
        return found

    for kind in DEFAULTS:
        default(kind)
        stock = every()
        with adapter.substituted() as calls:
            ours = every()
        default(torch.float32)
        wrong = [k for k, (a, b) in enumerate(zip(stock, ours, strict=True)) if not alike(a, b)]
        assert not wrong, (kind, cases[wrong[0]], stock[wrong[0]], ours[wrong[0]])
        assert calls.ours["_tensor_quant"] > len(cases) // 3


def alike(a, b):
    """Are two answers the same, or the same refusal?"""
    return a == b if isinstance(a, str) else isinstance(b, torch.Tensor) and same_bits(a, b)


SHAPES = (), (1,), (1, 1, 1), (64, 1)
ZEROS_OF = None, torch.tensor(3, dtype=torch.int8), torch.tensor(-2.3), torch.tensor([100.7])


def fakes():
    """compressed-tensors' fake and real quantization in every type of x and of scales of every shape."""
    forward = importlib.import_module("compressed_tensors.quantization.lifecycle.forward")
    args = importlib.import_module("compressed_tensors.quantization").QuantizationArgs
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    every = product(
        (x, x.bfloat16(), x.half(), x[0], x[0, 0]), (("int", 8), ("int", 4), ("float", 8), ("float", 4)),
        product(SHAPES, (torch.float32, *DEFAULTS)), ZEROS_OF, (None, torch.tensor(2.5), torch.tensor([2.5])),
    )  # fmt: skip
    for y, (kind, bits), (shape, of_scale), zero, second in every:
        scale = torch.linspace(0.03, 0.05, 64)[: max(1, shape[0] if shape else 1)].reshape(shape).to(of_scale)
        how = args(num_bits=bits, type=kind, strategy="channel" if shape == (64, 1) else "tensor")
        for name in ("fake_quantize", "quantize"):
            yield (
                (name, y.dtype, y.shape, how, scale, zero, second),
                partial(getattr(forward, name), y, scale, zero, how, global_scale=second),
            )


def test_compressed_tensors_divides_in_the_type_that_x_and_scale_have_together():
    adapter = asked("compressed_tensors")
    taken = []
    for name, call in fakes():
        with contextlib.suppress(Exception):
            taken.append((name, call, call()))
    with adapter.substituted() as calls:
        wrong = [name for name, call, expected in taken if not same_bits(expected, call())]
    assert not wrong, (len(wrong), wrong[:3])
    assert calls.ours.total() > len(taken) // 2


def quotients_beyond_float32():
    """Quark's fake and real quantization of finite numbers, of which some are infinite over their scale."""
    kernel = importlib.import_module("quark.torch.kernel")
    ends = {
        "fp4": 6.0,
        "fp6_e2m3": 7.5,
        "fp6_e3m2": 28.0,
        "fp8_e4m3": 448.0,
        "fp8_e5m2": 57344.0,
        "int8": 127.0,
    }
    schemes = ("per_group", -1, (2, 1)), ("per_channel", 0, (2,)), ("per_tensor", 0, (1,))
    sizes = (1e30, 1e-10), (1.0, 1e-40), (1.0, 2.0**-128), (1e-3, 1e-42), (1e38, 1e-30), (2.0, 2.0**-126)
    for (name, most), (scheme, axis, shape), (size, step) in product(ends.items(), schemes, sizes):
        x = torch.full((2, 16), size)
        x[:, ::2] *= -1
        x[:, 2:4] = torch.tensor([step / 2, -step / 8])
        given = x, torch.full(shape, step), torch.zeros(shape, dtype=torch.int32), axis, 16
        how = -128.0 if name == "int8" else -most, most, 8, scheme
        yield (name, size, scheme), partial(kernel.scaled_fake_quantize, name, *given, *how, "")
        yield (name, size, scheme, "real"), partial(kernel.scaled_real_quantize, name, *given, *how)


def zero_scales_of_float16():
    """torchao's scales of zeros, where the least scale that is asked for may be 0 in their type."""
    primitives = importlib.import_module("torchao.quantization.quant_primitives")
    zeros = torch.zeros(4, 32)
    zeros[torch.rand(4, 32, generator=torch.Generator().manual_seed(3)) < 0.5] = -0.0
    asked_for = product(primitives.MappingType, (1e-30, 1e-8, 1e-7, None), (8, 16, 32), (True, False))
    for mapping, eps, size, half in asked_for:
        x = zeros.half() if half else zeros
        yield (
            (mapping, eps, size, half),
            lambda x=x, mapping=mapping, size=size, eps=eps: primitives.choose_qparams_affine(
                x, mapping, (1, size), torch.int8, eps=eps
            ),
        )


@pytest.mark.parametrize(
    ("host", "cases", "fewest"),
    [("quark", quotients_beyond_float32, 80), ("torchao", zero_scales_of_float16, 40)],
)
def test_what_is_rare_among_random_numbers_has_the_hosts_bits(host, cases, fewest):
    adapter = asked(host)
    taken = []
    for name, call in cases():
        with contextlib.suppress(Exception):
            taken.append((name, call, call()))
    with adapter.substituted() as calls:
        found = [call() for _, call, _ in taken]
    assert calls.ours.total() >= fewest
    wrong = [name for (name, _, due), one in zip(taken, found, strict=True) if not same_bits(due, one)]
    assert not wrong, (len(wrong), wrong[:3])
