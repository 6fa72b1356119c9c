"""microxcaling's own layers on our kernels: by specs that say custom_cuda, on a CPU."""

from __future__ import annotations

import contextlib
import importlib
from itertools import islice

import pytest

pytest.importorskip("torch")
import torch

from tests.adapters.hosts import asked, same_bits

pytestmark = pytest.mark.filterwarnings("ignore")
MIXED = {"w_elem_format": "fp6_e3m2", "a_elem_format": "fp4_e2m1", "block_size": 32, "bfloat": 16}
SPECS = {
    "mixed": MIXED,
    "int8 and even": {**MIXED, "w_elem_format": "int8", "a_elem_format": "int8", "round": "even"},
    "fp8 backward alone": {
        "w_elem_format_bp": "fp8_e4m3", "a_elem_format_bp_ex": "fp8_e5m2", "block_size": 16, "fp": 12,
    },
    "one block, floor": {**MIXED, "block_size": 0, "round": "floor", "quantize_backprop": False},
    "bfloat alone": {"bfloat": 12, "bfloat_subnorms": False},
}  # fmt: skip
IMAGES, LINES = (2, 32, 6, 6), (5, 64)


def of_two(name):
    def call(mx, specs, x):
        return getattr(mx, name)(
            x, x.detach().transpose(-1, -2).contiguous().requires_grad_(), mx_specs=specs
        )

    return call


def of_one(name, **more):
    return lambda mx, specs, x: getattr(mx, name)(x, mx_specs=specs, **more)


LAYERS = {
    "Linear": (LINES, lambda mx, specs: mx.Linear(64, 16, mx_specs=specs)),
    "LayerNorm": (LINES, lambda mx, specs: mx.LayerNorm(64, mx_specs=specs)),
    "RMSNorm": (LINES, lambda mx, specs: mx.RMSNorm(64, mx_specs=specs)),
    "BatchNorm2d": (IMAGES, lambda mx, specs: mx.BatchNorm2d(32, mx_specs=specs)),
    "GroupNorm": (IMAGES, lambda mx, specs: mx.GroupNorm(4, 32, mx_specs=specs)),
    "Conv2d": (IMAGES, lambda mx, specs: mx.Conv2d(32, 8, 3, padding=1, mx_specs=specs)),
    "ConvTranspose2d": (IMAGES, lambda mx, specs: mx.ConvTranspose2d(32, 8, 3, mx_specs=specs)),
    "LSTM": ((3, 2, 64), lambda mx, specs: mx.LSTM(64, 16, mx_specs=specs)),
}
FUNCTIONS = {
    "matmul": of_two("matmul"), "softmax": of_one("softmax", dim=-1), "gelu": of_one("gelu"),
    "simd_exp": of_one("simd_exp"), "relu": of_one("relu"), "tanh": of_one("tanh"),
}  # fmt: skip


def trained(make, shape, specs, ours):
    """What a layer gives, its gradients, and what it gives once it has learned."""
    mx = importlib.import_module("mx")
    specs = mx.finalize_mx_specs({"scale_bits": 8, **specs, "custom_cuda": ours})
    assert specs["custom_cuda"] is ours
    torch.manual_seed(15)
    layer = make(mx, specs)
    learned = [*layer.parameters()] if isinstance(layer, torch.nn.Module) else []
    x = torch.randn(shape).requires_grad_()
    made = []
    for _ in range(2):
        found = layer(x)
        found = found[0] if isinstance(found, tuple) else found
        (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
        made += [found.detach(), x.grad.clone(), *(one.grad.clone() for one in learned)]
        with torch.no_grad():
            for one in learned:
                one -= 0.1 * one.grad
    return tuple(made)


@pytest.mark.parametrize("asks", [True, False], ids=["custom_cuda", "python path"])
@pytest.mark.parametrize("specs", SPECS)
@pytest.mark.parametrize("name", [*LAYERS, *FUNCTIONS])
def test_layers_with_finalized_specs_train_on_our_kernels_with_the_bits_of_the_python_path(name, specs, asks):
    adapter = asked("microxcaling")
    shape, make = LAYERS.get(name) or (LINES, lambda mx, found: lambda x: FUNCTIONS[name](mx, found, x))
    stock = trained(make, shape, SPECS[specs], False)
    with adapter.substituted() as counted:
        found = trained(make, shape, SPECS[specs], asks)
    assert same_bits(stock, found)
    assert [x.stride() for x in stock] == [x.stride() for x in found]
    assert counted.ours.total()


def test_specs_are_finalized_as_stock_and_custom_cuda_is_refused_again_afterwards():
    adapter = asked("microxcaling")
    mx = importlib.import_module("mx")
    if torch.cuda.is_available():
        pytest.skip("stock takes custom_cuda here")
    stock = mx.finalize_mx_specs({**MIXED, "round": "even"})
    with adapter.substituted():
        given = {**MIXED, "round": "even", "custom_cuda": True}
        assert mx.finalize_mx_specs(given).data == {**stock.data, "custom_cuda": True}
        assert given["custom_cuda"] is True
        assert mx.finalize_mx_specs({**MIXED, "round": "even"}).data == stock.data
        assert mx.finalize_mx_specs({"custom_cuda": True}) is None
        assert mx.finalize_mx_specs({"custom_cuda": True}, early_exit=False)["custom_cuda"] is True
        assert not torch.cuda.is_available()
    with pytest.raises(AssertionError, match="custom_cuda"):
        mx.finalize_mx_specs({**MIXED, "custom_cuda": True})


def test_whoever_does_not_ask_for_custom_cuda_is_answered_by_our_kernels_too():
    adapter = asked("microxcaling")
    cases = importlib.import_module("tests.adapters.cases.microxcaling").cases()
    calls = []
    for name, call in islice(cases, 0, None, 7):
        with contextlib.suppress(RuntimeError):  # of a number that float16 does not hold
            calls.append((name, call, call(False)))
    with adapter.substituted() as counted:
        wrong = [name for name, call, expected in calls if not same_bits(expected, call(False))]
    assert not wrong, (len(wrong), wrong[:9])
    assert counted.ours.total() + counted.passed_on.total() == len(calls), counted  # one a case, none within
    assert counted.ours.total() > len(calls) // 4, counted


def test_operators_by_specs_of_the_python_path_are_ours_and_counted():
    adapter = asked("microxcaling")
    mx_ops, elemwise = importlib.import_module("mx.mx_ops"), importlib.import_module("mx.elemwise_ops")
    specs = importlib.import_module("mx").finalize_mx_specs({**MIXED, "scale_bits": 8})
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(15))

    def both():
        return (
            mx_ops.quantize_mx_op(x, specs, elem_format="fp4_e2m1", axes=[-1]),
            elemwise.quantize_elemwise_op(x, specs),
        )

    stock = both()
    with adapter.substituted() as counted:
        assert same_bits(stock, both())
    assert (dict(counted.ours), counted.passed_on.total()) == ({"_quantize_mx": 1, "quantize_elemwise": 1}, 0)


def test_what_the_extension_does_not_have_is_the_python_path():
    adapter = asked("microxcaling")
    mx_ops = importlib.import_module("mx.mx_ops")
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(15))
    ways = (
        {"axes": [0, 1], "block_size": 8}, {"axes": [-1], "shared_exp_method": "none"},
        {"axes": [-1], "round": "dither"},
    )  # fmt: skip

    def every():
        torch.manual_seed(15)  # dither is random
        return tuple(mx_ops._quantize_mx(x, 8, "fp4_e2m1", **way) for way in ways)

    stock = every()
    with adapter.substituted() as counted:
        assert same_bits(stock, every())
        assert mx_ops._quantize_mx(x.T[::2], 8, None) is not None
        y = x.T[::2]
        assert mx_ops._quantize_mx(y, 8, None) is y
    assert counted.ours.total() + counted.passed_on.total() > len(ways)
