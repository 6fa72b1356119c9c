"""The Hadamard rotation: its bits by exact fractions, its way back, and its gradient."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import numerics as nx
from tests.helpers.by_fractions import rounded
from tests.helpers.tensors import everywhere

SIZES = [2, 16, 32, 128, 512]


def signs_of(size: int) -> list[int]:
    return np.random.default_rng(size).choice([-1, 1], size).tolist()


def by_fractions(row: np.ndarray, signs: list[int], inverse: bool) -> list[float]:
    """docs/formats.md §13 word by word: every sum and difference rounded to float32, half to even."""
    y = [Fraction(float(v)) * (1 if inverse else s) for v, s in zip(row, signs, strict=True)]
    distance, stages = 1, len(y).bit_length() - 1
    while distance < len(y):
        for k in range(len(y)):
            if not k & distance:
                a, b = y[k], y[k | distance]
                y[k], y[k | distance] = (Fraction(rounded(v, "float32")) for v in (a + b, a - b))
        distance *= 2
    scale = Fraction(1, 1 << (stages // 2 if inverse else stages - stages // 2))
    return [
        float(rounded(v * scale * (s if inverse else 1), "float32")) for v, s in zip(y, signs, strict=True)
    ]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_every_bit_is_that_of_the_sums_in_their_order(size, inverse):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((3, 2, size)) * np.exp2(rng.integers(-20, 20, (3, 2, size)))).astype(np.float32)
    signs = signs_of(size)
    due = np.float32([by_fractions(row, signs, inverse) for row in x.reshape(-1, size)]).reshape(x.shape)
    for data in everywhere(x):
        assert np.array_equal(np.asarray(nx.hadamard(data, size, signs=signs, inverse=inverse)), due)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_integers_come_back_exactly_and_are_those_of_the_matrix(size, kind):
    x = np.random.default_rng(2).integers(-7, 8, (5, 2 * size)).astype(kind)
    places = np.arange(size)
    matrix = 1 - 2 * (np.array([[bin(i & j).count("1") for j in places] for i in places]) % 2)
    stages = size.bit_length() - 1
    due = (x.reshape(-1, size) @ matrix * 2.0 ** -(stages - stages // 2)).reshape(x.shape)
    for data in everywhere(x):
        y = nx.hadamard(data, size)
        assert np.array_equal(np.asarray(y), due.astype(kind))
        assert np.array_equal(np.asarray(nx.hadamard(y, size, inverse=True)), x)


def test_bfloat16_is_rotated_in_float32_and_rounded_once():
    x = torch.randn(4, 128, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    due = nx.hadamard(x.float(), 128).to(torch.bfloat16)
    for name in ("cpu", "gpu"):
        with nx.use(name):
            assert torch.equal(nx.hadamard(x, 128), due)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("size", [16, 32])
def test_the_gradient_is_the_transposed_matrix(size, inverse):
    signs = signs_of(size)
    x = torch.randn(2, size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: nx.hadamard(v, size, signs=signs, inverse=inverse), (x,))


@pytest.mark.parametrize(("make", "said"), [
    (lambda: nx.hadamard([1.0] * 12, 12), "powers of two"),
    (lambda: nx.hadamard([1.0] * 12, 8), "must be a multiple"),
    (lambda: nx.hadamard(1.0, 2), "must be a multiple"),
    (lambda: nx.hadamard([1.0] * 4, 4, signs=[1, -1, 1]), "4 numbers, each 1 or -1"),
    (lambda: nx.hadamard([1.0] * 4, 4, signs=[1, -1, 0, 1]), "4 numbers, each 1 or -1"),
    (lambda: nx.hadamard([1.0] * 4, 4, signs=np.ones(4, bool)), "4 numbers, each 1 or -1"),
    (lambda: nx.hadamard([1.0] * 4, 4, signs=np.ones(4, complex)), "4 numbers, each 1 or -1"),
    (lambda: nx.hadamard([1.0] * 4, 4, inverse="yes"), "inverse"),
    (lambda: nx.hadamard(nx.quantize([1.0] * 4, "int4"), 4), "quantized already"),
])  # fmt: skip
def test_what_cannot_be_rotated_is_refused(make, said):
    with pytest.raises(nx.NumericsError, match=said):
        make()


@pytest.mark.parametrize("size", [2, 8, 16, 32, 64, 128, 256])
def test_a_product_of_rotated_operands_is_theirs_or_half_of_it(size):
    """Of an odd log2(size) the rotation shrinks by √2: twice undoes it, and so does the way back."""
    rng = np.random.default_rng(size)
    x, w = (rng.integers(-8, 9, (3, 256)).astype(np.float32) for _ in range(2))
    half = 1 + (size.bit_length() - 1) % 2
    rotated = nx.hadamard(x, size)
    assert np.array_equal(half * (rotated @ nx.hadamard(w, size).T), x @ w.T)
    assert np.array_equal(rotated @ nx.hadamard(w, size, inverse=True).T, x @ w.T)
