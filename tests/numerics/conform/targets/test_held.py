"""Memory holds a byte that is known while a target is called, and afterwards what it ever held."""

from __future__ import annotations

import numpy as np
import pytest

from numerics.conform.targets import held
from numerics.conform.targets.held import holding, prime_tensors

SIZES = (1, 7, 100, 1000, 2049, 70001, 1 << 20)


def part_that_is(array, byte):
    return float((array.view(np.uint8) == byte).mean())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("byte", [0xA5, 0x5A])
def test_memory_of_numpy_held_whatever_it_held(size, byte):
    if held._mallopt() is None and size > held.KEPT:
        pytest.skip("another C library than glibc")
    with holding(byte, [((size,), np.uint8)]):
        assert part_that_is(np.empty(size, np.uint8), byte) == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("byte", [0xA5, 0x5A])
def test_memory_of_torch_held_whatever_it_held(size, byte):
    torch = pytest.importorskip("torch")
    if held._mallopt() is None:
        pytest.skip("another C library than glibc")
    with holding(byte, []):
        assert part_that_is(torch.empty(size, dtype=torch.uint8).numpy(), byte) == 1


def test_memory_of_a_device_is_given_back_full_of_a_byte():
    torch = pytest.importorskip("torch")
    asked = []

    class Watched:
        uint8 = torch.uint8

        @staticmethod
        def full(size, byte, **options):
            asked.append((size, byte, options["device"]))
            return torch.full(size, byte, **options)

    prime_tensors(Watched, [12, 5], 0xA5, "cpu")
    assert asked == [((size,), 0xA5, "cpu") for size in (12, 5) for _ in range(held.PRIMED)]


def test_what_the_process_was_started_with_holds_again(monkeypatch):
    if held._mallopt() is None:
        pytest.skip("another C library than glibc")
    monkeypatch.setenv(held.AS_EVER, "90")
    try:
        with holding(0xA5, []):
            pass
        assert part_that_is(np.empty(70001, np.uint8), 90 ^ 0xFF) == 1
    finally:
        held._mallopt()(held.M_PERTURB, 0)
