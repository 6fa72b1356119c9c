"""compressed-tensors decompresses by our kernels, with scales of any type and zero points, same bits."""

from __future__ import annotations

import importlib
from itertools import product

import pytest

pytest.importorskip("torch")
import torch

from tests.adapters.hosts import asked, same_bits

pytestmark = pytest.mark.filterwarnings("ignore")
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = (1,), (16, 1), (16, 2, 1)
"""Of scales: by tensor, by channel, by group of 32."""
BYTES = torch.arange(1024, dtype=torch.int64).to(torch.uint8).view(16, 64)
ZEROS = None, torch.int8, torch.float32


def scales(shape, kind):
    """Numbers of every magnitude that a type has, subnormal ones and such as overflow among them."""
    count = torch.Size(shape).numel()
    limits = torch.finfo(kind)
    least, most = torch.tensor([limits.smallest_normal / 8, limits.max / 4]).double().log2()
    spread = torch.exp2(torch.linspace(float(least), float(most), count, dtype=torch.float64))
    ordinary = torch.linspace(0.01, 0.3, count, dtype=torch.float64)
    return [one.to(kind).view(shape) for one in (spread, ordinary)]


def given():
    for shape, kind, of_zero, codes in product(SHAPES, FLOATS, ZEROS, (torch.int8, torch.float8_e4m3fn)):
        x = BYTES.view(codes).view(16, *((2, 32) if len(shape) == 3 else (64,)))
        count = torch.Size(shape).numel()
        zero = (torch.arange(count) % 201 - 100 if codes == torch.int8 else torch.zeros(count)).view(shape)
        for scale in scales(shape, kind):
            yield x, scale, None if of_zero is None else zero.to(of_zero)


def test_codes_are_decompressed_by_our_kernels_in_every_type_of_scales():
    adapter = asked("compressed_tensors")
    helpers = importlib.import_module("compressed_tensors.quantization.lifecycle.forward_helpers")
    calls = [
        (*one, *more)
        for one in given()
        for more in ((), (torch.bfloat16,), (torch.float32, torch.tensor([2.5])))
    ]
    stock = [helpers._dequantize(*one) for one in calls]
    with adapter.substituted() as counted:
        found = [helpers._dequantize(*one) for one in calls]
    wrong = [one[1:] for one, a, b in zip(calls, stock, found, strict=True) if not same_bits(a, b)]
    assert not wrong, (len(wrong), wrong[:2])
    assert (counted.ours["_dequantize"], counted.passed_on.total()) == (len(calls), 0)


@pytest.mark.parametrize("zero", [2.5, 200.0, -129.0, torch.nan])
def test_a_zero_point_that_no_code_is_stays_the_hosts(zero):
    adapter = asked("compressed_tensors")
    helpers = importlib.import_module("compressed_tensors.quantization.lifecycle.forward_helpers")
    one = BYTES.view(torch.int8), torch.full((16, 1), 0.1), torch.full((16, 1), zero)
    stock = helpers._dequantize(*one)
    with adapter.substituted() as counted:
        assert same_bits(stock, helpers._dequantize(*one))
    assert counted.passed_on["_dequantize"] == 1
