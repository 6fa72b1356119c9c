"""Does a fingerprint tell orders, operands and additions, and say what it does not know?"""

from __future__ import annotations

import numpy as np
import pytest

from numerics.conform import fingerprint

SHAPE = (4, 4, 32)


def in_turn(a, b):
    found = np.zeros((len(a), len(b)), np.float32)
    for k in range(a.shape[1]):
        found = found + a[:, k, None].astype(np.float32) * b[:, k].astype(np.float32)
    return found


def backwards(a, b):
    return in_turn(a[:, ::-1], b[:, ::-1])


def cut(x):
    return (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def lanes(a, b):
    terms = a[:, None] * b
    sums = [in_turn(a[:, lane::4], b[:, lane::4]) for lane in range(4)]
    assert terms.size
    return ((sums[0] + sums[1]) + sums[2]) + sums[3]


def compensated(a, b):
    total = np.zeros((len(a), len(b)), np.float32)
    lost = total.copy()
    for k in range(a.shape[1]):
        term = a[:, k, None] * b[:, k] - lost
        more = total + term
        lost, total = (more - total) - term, more
    return total


def halves_in_float16(a, b):
    half = a.shape[1] // 2
    parts = in_turn(a[:, :half], b[:, :half]), in_turn(a[:, half:], b[:, half:])
    return sum(part.astype(np.float16).astype(np.float32) for part in parts)


def test_a_sum_from_the_last_term_on_was_one_from_the_first():
    found = fingerprint(backwards, shape=SHAPE)
    assert (found.order, found.bits, found.reproduced) == (
        "one after the other, in the order 31 30 29 28 27 26 ...", 24, 64,
    )  # fmt: skip
    assert found.rounding == "to nearest, ties to even"


@pytest.mark.turns(6)
@pytest.mark.parametrize(("sides", "bits"), [("ab", (11, 11)), ("a", (11, 24)), ("b", (24, 11))])
def test_an_operand_that_loses_bits_was_not_told(sides, bits):
    found = fingerprint(
        lambda a, b: in_turn(cut(a) if "a" in sides else a, cut(b) if "b" in sides else b), shape=SHAPE
    )
    assert (found.a_bits, found.b_bits) == bits
    assert found.reproduced == 64, str(found)


@pytest.mark.turns(8)
@pytest.mark.parametrize(
    ("sides", "said"), [("", "kept"), ("a", "of a flushed"), ("b", "of b flushed"), ("ab", "flushed")]
)
def test_subnormal_numbers_of_one_side_were_kept(sides, said):
    def flushed(x, side):
        return np.where((np.abs(x) < 2.0**-126) & (side in sides), np.float32(0), x)

    assert fingerprint(lambda a, b: in_turn(flushed(a, "a"), flushed(b, "b")), shape=SHAPE).subnormals == said


def test_sums_of_lanes_that_are_added_one_after_the_other_were_a_tree():
    found = fingerprint(lanes, shape=SHAPE)
    assert found.order == "4 chains of 8, the first 0 4 8 12 16 20 ..., then one after the other"
    assert found.reproduced == 64


@pytest.mark.turns(4)
@pytest.mark.parametrize(
    ("kernel", "kind"), [(compensated, "float32"), (halves_in_float16, "float16")], ids=["Kahan", "halves"]
)
def test_an_order_that_is_not_known_was_described_as_if_it_were(kernel, kind):
    found = fingerprint(kernel, a=kind, b=kind, shape=SHAPE)
    assert found.reproduced < 64
    assert "none of the ways that are known here" in str(found)
    assert "none of the ways" not in str(fingerprint(in_turn, shape=SHAPE))


def narrow_terms(a, b):
    """Products of float16 that are rounded to it, summed in float32."""
    found = np.zeros((len(a), len(b)), np.float32)
    for k in range(a.shape[1]):
        found = found + (a[:, k, None] * b[:, k]).astype(np.float32)
    return found.astype(np.float16)


def narrow_sums(a, b):
    """The same, summed in float16."""
    found = np.zeros((len(a), len(b)), np.float16)
    for k in range(a.shape[1]):
        found = found + a[:, k, None] * b[:, k]
    return found


def exact_terms(a, b):
    return in_turn(a, b).astype(np.float16)


@pytest.mark.parametrize(
    ("kernel", "said"),
    [(narrow_terms, "rounded first"), (narrow_sums, "rounded first"), (exact_terms, "exact")],
)
def test_products_of_float16_were_exact_whatever_they_were(kernel, said):
    found = fingerprint(kernel, "float16", "float16", out="float16", shape=(4, 4, 8))
    assert found.products == said
    assert found.reproduced == 64 or kernel is narrow_terms
