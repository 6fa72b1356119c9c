"""Packed codes that are wrong are shown with what was given for them, of the law that they break."""

from __future__ import annotations

import numpy as np
import pytest

from numerics.backends.reference import bits
from numerics.conform import check
from numerics.conform.laws.packing import _strings


def packed(codes, width):
    return np.frombuffer(bits.pack(np.asarray(codes).tolist(), width), np.uint8).copy()


def unpacked(given, count, width):
    return np.array(bits.unpack(np.asarray(given).tobytes(), count, width), np.uint8)


def short_by_a_tail(codes):
    """Bytes of the tail of 16, behind whole ones, without their high half."""
    found = packed(codes, 4)
    tail = len(codes) % 16
    if tail > 12 and len(codes) > 48:
        found[-1] &= 0x0F
    return found


def far(given, count):
    """From code 4096 on every fourth loses a bit."""
    found, at = unpacked(given, count, 6), np.arange(count)
    return np.where((at % 4 == 2) & (at >= 4096), found & 0x1F, found).astype(np.uint8)


def beyond(given, count):
    """The last code is lost where it ends within a byte."""
    found = unpacked(given, count, 6)
    if count * 6 % 8 and count > 64:
        found[-1] = 0
    return found


@pytest.mark.turns(6)
@pytest.mark.parametrize(
    ("kernel", "dtype", "kind", "law", "place"),
    [
        (short_by_a_tail, "int4", "pack", "order", "from place 59 of 62"),
        (far, "fp6_e3m2", "unpack", "order", "from place 3072 of 4608"),
        (beyond, "fp6_e3m2", "unpack", "last_byte", "from place 47 of 49"),
    ],
)
def test_the_beginning_was_shown_of_what_is_wrong_at_the_end(kernel, dtype, kind, law, place):
    found = check(kernel, dtype, kind=kind)
    assert found.law == law, str(found)
    assert place in found.counterexample.where, str(found)


def test_a_result_of_another_shape_was_shown_without_its_input():
    found = check(lambda codes: packed(codes[: len(codes) // 2 * 2], 4), "int4", kind="pack")
    assert found.law == "shape"
    assert "an input of shape (1,)" in found.counterexample.where


def test_each_number_of_codes_of_a_tile_is_left_over_by_a_long_string():
    """9 of 16 codes past 65,536 were never left over."""
    met = {len(codes) for codes, _ in _strings(4, "uint8")}
    for least, tile in ((1 << 10, 32), (1 << 14, 16), (1 << 16, 16)):
        assert {n % tile for n in met if n >= least} == {*range(tile)}


@pytest.mark.parametrize("width", [3, 4, 6])
def test_a_string_begins_with_the_bytes_of_its_codes(width):
    for codes, whole in _strings(width, "uint8"):
        if len(codes) < 2000:
            assert whole.tolist() == packed(codes, width).tolist()
