"""Scales and zero points of torchao's integers: which are ours, and when torchao is asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import torchao_scales as scales
from tests.helpers.adapter_slice import refuses

ASYMMETRIC, SYMMETRIC = SimpleNamespace(name="ASYMMETRIC"), SimpleNamespace(name="SYMMETRIC")


def test_a_range_that_overflows_its_type_has_a_scale_where_it_is_correct():
    x = torch.tensor([[-40000.0, 40000.0, 0.0, 1.0]], dtype=torch.float16)
    scale, zero = scales.of_tensors(refuses, True)(x, ASYMMETRIC, (1, 4), torch.int8)
    assert (scale.dtype, scale.tolist(), zero.tolist()) == (torch.float16, [313.75], [-1])
    x = torch.tensor([[-3e38, 3e38]])
    scale, zero = scales.of_tensors(refuses, True)(x, ASYMMETRIC, (1, 2), torch.int8)
    assert scale.tolist() == pytest.approx([6e38 / 255])
    assert zero.tolist() == [0]


def test_a_zero_point_of_bfloat16_is_rounded_once_where_it_is_correct():
    """-1.0 / 0.00823975: 121.36 -> 121; of a quotient in bfloat16, 121.5, torchao makes 122."""
    x = torch.tensor([[-1.0, 1.1016]], dtype=torch.bfloat16)
    scale, zero = scales.of_tensors(refuses, True)(x, ASYMMETRIC, (1, 2), torch.uint8)
    assert zero.item() == round(1.0 / scale.item())


@pytest.mark.parametrize(
    "x",
    [[0.0, 0.0], [1.0, float("inf")], [1.0, float("nan")], [1e-37, 0.0]],
    ids=["no extent", "inf", "nan", "least scale"],
)
def test_torchao_is_asked_of_two_numbers_where_it_leaves_the_rule(x):
    came = []

    def host(input, block_size, **_):
        came.append((input, block_size))
        return input[:, 0] * 0 + 3, torch.full((len(input),), 7, dtype=torch.int32)

    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0], [*x, *x]])
    found = scales.of_tensors(host, True)(rows, ASYMMETRIC, (1, 4), torch.int8)
    assert [ends.shape for ends, _ in came] == [(1, 2)]
    assert came[0][1] == (1, 2)
    assert (found[0].tolist()[0], found[1].tolist()) == (pytest.approx(4 / 255), [-128, 7])


def test_ends_that_were_found_already_and_shapes_that_are_kept():
    low, high = torch.tensor([[-1.0], [0.5]]), torch.tensor([[2.0], [3.0]])
    choose = scales.of_ends(refuses, False)
    scale, zero = choose(low, high, SYMMETRIC, block_size=(1, 4), target_dtype=torch.int8)
    assert scale.tolist() == [[pytest.approx(2 / 127.5)], [pytest.approx(3 / 127.5)]]
    assert zero.dtype == torch.float32
    x = torch.arange(64.0).view(4, 16)
    for keepdim, shape in ((False, (4, 2)), (True, (4, 2))):
        found = scales.of_tensors(refuses, True)(x, ASYMMETRIC, (1, 8), torch.int8, keepdim=keepdim)
        assert [one.shape for one in found] == [shape, shape]
    found = scales.of_tensors(refuses, True)(x, ASYMMETRIC, (1, 16), torch.int8, keepdim=True)
    assert [one.shape for one in found] == [(4, 1), (4, 1)]


def test_what_is_not_taken_is_said():
    x = torch.arange(64.0).view(4, 16)
    choose = scales.of_tensors(refuses, False)
    assert choose(x, ASYMMETRIC, (4, 1), torch.int8) is NotImplemented  # columns
    assert choose(x.T, ASYMMETRIC, (1, 4), torch.int8) is NotImplemented  # not in order
    assert choose(x, ASYMMETRIC, (1, 16), torch.int8, eps=0.0) is NotImplemented  # the sign of a zero
    assert choose(x.double(), ASYMMETRIC, (1, 16), torch.int8) is NotImplemented
