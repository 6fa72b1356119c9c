"""Do the texts of a verdict say what decides, so that its case can be made again?"""

from __future__ import annotations

import numpy as np
import pytest

from numerics.conform import check, fingerprint
from numerics.conform.products.certificate import negated_zeros
from numerics.conform.products.claim import Claim
from numerics.conform.products.given import problem_of
from numerics.conform.products.telling.terms import terms

PLAIN = {"a": "float32", "b": "float32"}


def product(a, b):
    with np.errstate(all="ignore"):
        return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)


def test_a_negated_zero_passed():
    def kernel(a, b):
        found = product(a, b)
        return np.where(found == 0, np.float32(-0.0), found)

    found = check(kernel, kind="matmul", effort="quick", **PLAIN)
    assert not found
    assert (found.counterexample.came, found.counterexample.due) == ("0x80000000 (-0)", "0x00000000 (0)")


@pytest.mark.parametrize(
    ("a", "b", "wrong"),
    [
        ([1, 1], [1, -1], True), ([0, -1], [1, 0], True), ([-1, -1], [0, 0], False), ([-0.0], [1], False),
        ([0], [1], True), ([0, -0.0], [1, 1], True),
    ],
)  # fmt: skip
def test_the_sign_of_a_zero_is_decided_unless_all_terms_are_negative_zeros(a, b, wrong):
    problem = problem_of(np.float32([a]), np.float32([b]), "float32")
    assert negated_zeros(problem, np.float32([[-0.0]]), np.ones((1, 1), bool)).item() is wrong
    assert not negated_zeros(problem, np.float32([[0.0]]), np.ones((1, 1), bool)).any()


def test_a_kernel_that_starts_with_the_first_term_was_blamed_for_negative_zeros():
    def kernel(a, b):
        found = a[:, :1] * b[:, :1].T if a.shape[1] else np.zeros((len(a), len(b)), np.float32)
        for k in range(1, a.shape[1]):
            found = found + a[:, k, None] * b[:, k]
        return found

    assert check(kernel, kind="matmul", shapes=[(3, 5, 4), (4, 3, 33), (2, 2, 1)], **PLAIN)


def test_a_bias_that_decides_was_not_shown():
    def kernel(a, b, bias):
        return product(a, b) if bias.size and bias[0] == 0 else (product(a, b) + bias).astype(np.float32)

    found = check(kernel, kind="matmul", effort="quick", bias=True, **PLAIN)
    assert found.law == "bias", str(found)
    assert any(line.startswith("bias ") and ", of 0 " in line for line in found.counterexample.terms)


def test_zero_points_that_decide_were_hidden_where_every_term_is_0():
    def kernel(a, b):
        length = max(a.shape[1] // 32 * 32, min(a.shape[1], 32))
        codes, zero = b.codes.astype(np.float64), np.repeat(b.zero_point, 32, axis=1)[:, : a.shape[1]]
        zero = np.where(np.arange(a.shape[1]) < length, zero, 0)
        scale = np.repeat(b.scale, 32, axis=1)[:, : a.shape[1]].astype(np.float64)
        return product(a, (codes - zero) * scale)

    found = check(kernel, kind="matmul", effort="quick", a="float32", b="uint4 per_group(32) asymmetric")
    assert not found
    assert any(" less " in line for line in found.counterexample.terms), str(found)


def test_the_zero_point_of_another_row_was_not_shown():
    def kernel(a, b):
        codes, zero = a.codes.astype(np.int64), np.asarray(a.zero_point, np.int64).reshape(-1, 1).copy()
        zero[2:] = zero[:1]
        signed = b.codes.astype(np.int8).astype(np.int64)
        scales = np.asarray(a.scale, np.float64).reshape(-1, 1) * np.asarray(b.scale, np.float64).reshape(
            1, -1
        )
        return (((codes - zero) @ signed.T) * scales).astype(np.float32)

    found = check(
        kernel, kind="matmul", effort="quick", a="uint8 per_token asymmetric", b="int8 per_channel(0)"
    )
    assert not found
    assert any(line.startswith("zero points of a's rows ") for line in found.counterexample.terms), str(found)


def test_codes_that_are_not_decoded_were_told_as_a_rounding():
    """A subnormal code that counts 0 in one row is no fault of the rounding to what comes out."""

    def kernel(a, b):
        a, b = (x.dequantize("float32").astype(np.float64) / np.float64(x.scale) for x in (a, b)), b
        left, right = a
        if len(left) == 1:
            right = np.where(np.abs(right) < 2.0**-6, 0, right)
        return product(left * 1.0, right)

    operand = "fp8_e4m3 per_tensor"
    found = check(kernel, kind="matmul", effort="quick", a=operand, b=operand)
    assert found.law != "output", str(found)


def test_a_claim_without_zero_points_has_none_to_show():
    assert Claim.of(**PLAIN).splits is False


# ---- what a verdict says ------------------------------------------------------------------------------

QUICK = {"kind": "matmul", "a": "float32", "b": "float32", "effort": "quick"}
BLENDED = {**QUICK, "alpha": True, "beta": True}


def test_a_layout_was_named_in_which_square_products_alone_are_right():
    def kernel(a, b):
        with np.errstate(all="ignore"):
            return a @ b.T if a.shape[0] == a.shape[1] else a.T @ b.T

    found = check(kernel, layout="km,nk", **QUICK)
    assert not found
    assert not any("multiplies right" in note for note in found.notes)


def test_a_turned_c_was_a_wrong_sum_of_no_terms():
    def kernel(a, b, c, alpha, beta):
        with np.errstate(all="ignore"):
            found = product(a, b) * np.float32(alpha)
            return found + np.float32(beta) * (c.T if len(a) == len(b) else c) if beta else found

    found = check(kernel, **BLENDED)
    assert found.law == "beta"
    assert any(", of " in term for term in found.counterexample.terms)


def test_which_input_was_changed_was_not_said():
    def kernel(a, b):
        if b.size > 1:
            b[0, -1] += 1
        return product(a, b)

    found = check(kernel, shapes=[(2, 3, 5)], **QUICK)
    assert found.law == "inputs_unchanged"
    assert found.counterexample.came.endswith(": b")


def test_products_of_few_bits_were_described_as_operands_of_few_bits():
    def of_products(a, b):
        terms = (a[:, None].astype(np.float32) * b).astype(np.float16)
        return terms.astype(np.float64).sum(axis=2).astype(np.float32)

    def of_operands(a, b):
        return (a.astype(np.float16).astype(np.float64) @ b.astype(np.float16).T.astype(np.float64)).astype(
            np.float32
        )

    with np.errstate(all="ignore"):
        products, operands = (fingerprint(f, shape=(8, 8, 4)) for f in (of_products, of_operands))
    assert "11 bits of each product are kept" in str(products)
    assert "11 bits of a and 11 of b are kept" in str(operands)


def test_a_larger_number_beside_a_zero_was_hidden():
    """Of rows that share a scale it decides: the terms that were shown are right without it."""

    def kernel(a, b):
        with np.errstate(all="ignore"):
            step = np.ldexp(np.float64(1), np.frexp(np.abs(a).max(axis=1, initial=0))[1] - 11)[:, None]
            held = np.where(np.isfinite(a / step), np.rint(a / step) * step, a) if a.shape[1] > 8 else a
        return product(held, b)

    found = check(kernel, kind="matmul", effort="quick", shapes=[(3, 5, 40)], **PLAIN)
    assert not found
    kept = problem_of(np.float32([[1, 0.001, 64, 0, 0, 0]]), np.float32([[0, 1, 0, 1, 1, 1]]), "float32")
    assert "and 5 that are 0, in which a is up to 64" in terms(kept, (0, 0))


def test_which_nan_is_wrong_was_not_said():
    """Rounded to bfloat16 by a carry, the NaN of all bits becomes -0, and the usual one stays NaN."""
    ml_dtypes = pytest.importorskip("ml_dtypes")

    def kernel(a, b):
        bits = product(a, b).view(np.uint32)
        with np.errstate(over="ignore"):
            carried = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
        return carried.astype(np.uint16).view(ml_dtypes.bfloat16)

    found = check(kernel, kind="matmul", effort="quick", out="bfloat16", **PLAIN)
    assert not found
    assert any("nan (0x7F" in line for line in found.counterexample.terms), str(found)
