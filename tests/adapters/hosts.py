"""What tests with hosts share: the adapter of a host that is there, and when two answers are the same."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from numerics.formats.errors import NumericsError

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def asked(host: str) -> Any:
    """A host's adapter; skips the test that calls it where the host is missing, or of another version."""
    found = importlib.import_module(f"numerics.adapters.{host}")
    try:
        found.ADAPTER.version()
    except NumericsError as missing:
        pytest.skip(str(missing))
    return found


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
