"""Is what a verdict says of a wrong product true?"""

from __future__ import annotations

import numpy as np

from numerics.conform import check, fingerprint

PLAIN = {"kind": "matmul", "a": "float32", "b": "float32", "effort": "quick"}
BLENDED = {**PLAIN, "alpha": True, "beta": True}


def product(a, b):
    with np.errstate(all="ignore"):
        return a @ b.T


def test_a_layout_was_named_in_which_square_products_alone_are_right():
    def kernel(a, b):
        with np.errstate(all="ignore"):
            return a @ b.T if a.shape[0] == a.shape[1] else a.T @ b.T

    found = check(kernel, layout="km,nk", **PLAIN)
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

    found = check(kernel, shapes=[(2, 3, 5)], **PLAIN)
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
