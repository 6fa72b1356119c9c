"""Has a product of operands in a narrower type a name, whichever of them are in it?"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from numerics import fp4
from numerics.conform import check
from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases.corners import corners
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.cases.not_finite import special
from numerics.conform.products.claim import Claim
from numerics.conform.products.telling.deviations.search import explained

PLAIN = {"kind": "matmul", "a": "float32", "b": "float32", "effort": "quick"}
SHAPES = [(4, 5, 8), (3, 6, 33)]


def tf32(more):
    """float32 numbers of 11 bits; more: what is added before the last 13 bits are cut off."""

    def narrowed(x):
        bits = np.ascontiguousarray(x).view(np.uint32)
        kept = (bits + np.asarray(more(bits), np.uint32)) & np.uint32(0xFFFFE000)
        return np.where(np.isfinite(x), kept.view(np.float32), x)

    return narrowed


NARROWED = {
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32),
    "float16": lambda x: x.astype(np.float16).astype(np.float32),
    "tf32": tf32(lambda bits: 0 * bits),
    "tf32, to nearest": tf32(lambda bits: 0xFFF + (bits >> 13 & 1)),
    "tf32, halves away": tf32(lambda bits: 0 * bits + 0x1000),
}


def product(a, b):
    with np.errstate(all="ignore"):
        return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)


def narrowing(kind, which, when=lambda m, n, k: True):
    """A product of which a, b or both are in a narrower type, in some shapes."""

    def kernel(a, b):
        with np.errstate(all="ignore"):
            if when(len(a), len(b), a.shape[1]):
                a, b = (
                    NARROWED[kind](x) if which in (name, "both") else x for name, x in (("a", a), ("b", b))
                )
            return product(a, b)

    return kernel


@pytest.mark.turns
@pytest.mark.parametrize("kind", NARROWED)
@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_operands_in_a_narrower_type_had_no_name(kind, which):
    found = check(narrowing(kind, which), shapes=SHAPES, **PLAIN)
    assert found.dialect == f"{which} in {kind}", str(found)


@pytest.mark.turns
def test_operands_in_a_narrower_type_of_large_products_had_another_name():
    kernel = narrowing("tf32, to nearest", "both", lambda m, n, k: min(m, n, k) >= 64)
    found = check(kernel, shapes=[(64, 64, 64), (4, 5, 8)], **PLAIN)
    assert found.dialect == "both in tf32, to nearest", str(found)


@pytest.mark.turns
def test_operands_and_results_in_a_narrower_type_had_no_name():
    """As where a product is called under autocast, and its result is made float32 again."""

    def kernel(a, b):
        with np.errstate(all="ignore"):
            return NARROWED["bfloat16"](narrowing("bfloat16", "both")(a, b))

    found = check(kernel, shapes=SHAPES, **PLAIN)
    assert set(found.dialect.split(" + ")) == {"both in bfloat16", "through bfloat16"}, str(found)


def in_pairs(a, b):
    """Sums of every two neighbouring terms, held within int16, and then added."""
    length = a.shape[1] + a.shape[1] % 2
    a, b = (np.pad(x.astype(np.int64), [(0, 0), (0, length - x.shape[1])]) for x in (a, b))
    pairs = (a[:, None] * b).reshape(len(a), len(b), -1, 2).sum(axis=3)
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=2).astype(np.int32)


def as_int8(a, b):
    return np.ascontiguousarray(a).view(np.int8).astype(np.int32) @ b.astype(np.int32).T


def half_away(a, b):
    bits = product(a, b).view(np.uint32)
    kept = np.where(np.isfinite(bits.view(np.float32)), bits + np.uint32(0x8000), bits) >> np.uint32(16)
    return kept.astype(np.uint16).view(ml_dtypes.bfloat16)


@pytest.mark.turns(6)
@pytest.mark.parametrize(
    ("kernel", "claim", "said"),
    [
        (in_pairs, {"a": "uint8", "b": "int8", "accumulate": "int32"}, "pairs saturate at int16"),
        (as_int8, {"a": "uint8", "b": "int8", "accumulate": "int32"}, "codes of a read as signed"),
        (half_away, {"a": "bfloat16", "b": "bfloat16", "out": "bfloat16"}, "output half away"),
    ],
)
def test_a_fault_of_integer_or_short_products_had_no_name(kernel, claim, said):
    found = check(kernel, kind="matmul", effort="quick", shapes=SHAPES, **claim)
    assert found.dialect == said, str(found)


@pytest.mark.turns
def test_operands_in_a_narrower_type_had_no_name_where_long_sums_flush_subnormal_numbers():
    """As torch's bfloat16 on CPUs with AVX-512, which multiply larger products in another way."""

    def kernel(a, b):
        found = narrowing("bfloat16", "both")(a, b)
        return np.where((np.abs(found) < 2.0**-126) & (a.shape[1] >= 32), np.float32(0), found)

    found = check(kernel, shapes=SHAPES, **PLAIN)
    assert found.dialect == "both in bfloat16", str(found)
    assert "subnormal numbers it does not explain" in str(found)


@pytest.mark.turns
def test_sums_that_were_rounded_once_were_said_to_be_kept_in_a_narrower_type():
    kernel = narrowing("bfloat16", "both")
    found = check(lambda a, b: NARROWED["bfloat16"](kernel(a, b)), shapes=[(4, 33, 65)], **PLAIN)
    assert set(found.dialect.split(" + ")) == {"both in bfloat16", "through bfloat16"}, str(found)


def in_int8(a, b):
    """a is quantized by rows, multiplied as integers, and scaled last, which is rounded otherwise."""
    with np.errstate(all="ignore"):
        scale = np.abs(a).max(axis=1, initial=0, keepdims=True) / np.float32(127)
        scale = np.where(scale == 0, np.float32(1), scale)
        return product(np.rint(a / scale), b.codes.view(np.int8)) * scale * b.scale


def every_second_scale(a, b):
    """Blocks in odd places have the scale of the one before."""
    length = b.shape[1]
    codes = b.codes.astype(np.int64)
    codes = np.where(codes > 7, codes - 16, codes)
    return product(a, (codes * b.scale[:, np.arange(length) // 64 * 2]).astype(np.float32))


@pytest.mark.turns(4)
@pytest.mark.parametrize(
    ("kernel", "b", "said"),
    [(in_int8, "int8 per_channel(0)", "a in int8/row"), (every_second_scale, "int4 per_group(32)", None)],
)
def test_an_accumulator_that_leaves_nothing_decided_was_said_to_explain_what_came(kernel, b, said):
    found = check(kernel, kind="matmul", a="float32", b=b, effort="quick", shapes=[(3, 4, 5), (2, 3, 96)])
    assert not found
    assert found.dialect == said, str(found)


def shifted(*bytes_):
    """Some bytes of scales become float32 by a shift."""

    def kernel(a, b):
        scale = np.ldexp(np.float32(1), b.scale.astype(np.int64) - 127)
        scale = np.where(b.scale == 255, np.float32(np.nan), scale)
        wrong = (b.scale.astype(np.uint32) << np.uint32(23)).view(np.float32)
        scale = np.where(np.isin(b.scale, bytes_), wrong, scale)
        values = fp4.decode(b.codes) * np.repeat(scale, 32, axis=1)[:, : b.shape[1]]
        return product(a, values)

    return kernel


@pytest.mark.parametrize(
    ("bytes_", "said"),
    [((0,), "scale byte 0 counts 0"), ((255,), "scale byte 255 is Inf"), ((0, 255), "scale byte << 23")],
)
def test_bytes_of_scales_that_are_shifted_had_one_name(bytes_, said):
    claim = Claim.of("float32", "mxfp4")
    target, maker = ProductTarget(shifted(*bytes_), claim), Maker(claim, np.random.default_rng(0))
    asked = [
        *maker.scale_ranges(),
        *corners(claim, maker.rng),
        *(special(maker, (4, 6, 40)) for _ in range(8)),
    ]
    found = explained([target.see(problem) for problem in asked])
    assert [one.name for one in found] == [said]
