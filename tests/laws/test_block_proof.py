"""Blocks, exhaustively: every maximum, every element at many scales, every code at many exponents.

`make verify` runs all scales and exponents (tests/verify.py); the cases here are a slice of it.
"""

from __future__ import annotations

import pytest

from numerics.formats.rounding import DETERMINISTIC, SCALE_RULES
from tests.helpers.proofs import MICRO, MX, prove_element, prove_micro, prove_scale

SCALES = (0, 1, 2, 127, 200, 254)
EXPONENTS = (1, 2, 23, 127, 254)


@pytest.mark.proof
@pytest.mark.parametrize("rule", SCALE_RULES)
@pytest.mark.parametrize("dtype", MX, ids=repr)
def test_every_block_maximum(dtype, rule):
    found = prove_scale(dtype, rule)
    assert found.inputs == 1 << 31
    assert found.mismatches == 0, str(found)


@pytest.mark.proof
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", MX, ids=repr)
def test_every_element_at_a_scale(dtype, scale):
    """half_even at each scale; at the ends one other mode too: they take turns over the formats."""
    other = DETERMINISTIC[1:][(MX.index(dtype) + (scale == 254)) % 7]
    for rounding in ("half_even", other) if scale in (0, 254) else ("half_even",):
        found = prove_element(dtype, scale, rounding)
        assert found.inputs == 2 * 0x7F800000
        assert found.mismatches == 0, f"{rounding}: {found}"


@pytest.mark.proof
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dtype", MICRO, ids=repr)
def test_every_element_at_a_block_exponent(dtype, exponent):
    other = DETERMINISTIC[1:][(MICRO.index(dtype) + 3 * (exponent == 254)) % 7]
    for rounding in ("half_even", other) if exponent in (1, 254) else ("half_even",):
        for shift in (0, 1):
            found = prove_micro(dtype, exponent, shift, rounding)
            assert found.mismatches == 0, f"{rounding}, microexponent {shift}: {found}"
