"""Every answer of a host with our kernels under it has the bits that the stock host gives."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import HOSTS
from numerics.formats.errors import NumericsError

COMPARED = [host for host in HOSTS if host != "transformers"]
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def same_bits(expected: Any, actual: Any) -> bool:
    """Are they equal in type, shape and bits?  All NaN count as one."""
    if isinstance(expected, tuple):
        return len(expected) == len(actual) and all(map(same_bits, expected, actual))
    if (expected.dtype, expected.shape) != (actual.dtype, actual.shape):
        return False
    word = WORDS[expected.element_size()]
    equal = expected.contiguous().view(word) == actual.contiguous().view(word)
    if expected.is_floating_point():
        equal |= expected.float().isnan() & actual.float().isnan()
    return bool(equal.all())


@pytest.mark.parametrize("host", COMPARED)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_a_host_gives_the_same_bits_with_our_kernels(host):
    adapter = importlib.import_module(f"numerics.adapters.{host}")
    try:
        adapter.ADAPTER.version()
    except NumericsError as missing:
        pytest.skip(str(missing))
    cases = importlib.import_module(f"tests.adapters.cases.{host}").cases()
    wrong, ours, compared = [], 0, 0
    for name, call in cases:
        try:
            expected = call(False)
        except Exception:  # what the host refuses is not compared
            continue
        with adapter.substituted() as calls:
            actual = call(True)
        ours, compared = ours + bool(calls.ours), compared + 1
        if not same_bits(expected, actual):
            wrong.append(name)
    assert not wrong, f"{len(wrong)} of {compared}: {wrong[:9]}"
    assert ours > compared // 8, f"our kernels answered {ours} of {compared} calls"
    print(f"{host}: {compared} answers have the same bits; our kernels gave {ours}")
