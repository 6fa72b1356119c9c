"""Blocks, exhaustively: every maximum, every element at many scales, every code at many exponents.

`make verify` runs all scales and exponents (tests/verify.py); the cases here are a slice of it.
"""

from __future__ import annotations

import pytest

import numerics as nx
from numerics.backends.cpu import EXECUTOR
from numerics.backends.cpu.lanes import arithmetic
from numerics.backends.cpu.launch import Number
from numerics.backends.cpu.operations import alike
from numerics.backends.reference.breakpoints import (
    micro_breakpoints,
    mx_element_breakpoints,
    scale_breakpoints,
)
from numerics.conform.sweep import Sweep, sweep
from numerics.formats.grid import element_grid, scale_of
from numerics.formats.rounding import DETERMINISTIC, SCALE_RULES

MX = [nx.mxfp8_e4m3, nx.mxfp8_e5m2, nx.mxfp6_e3m2, nx.mxfp6_e2m3, nx.mxfp4, nx.mxint8]
MICRO = [nx.mx4, nx.mx6, nx.mx9]
SCALES = (0, 1, 2, 127, 200, 254)
EXPONENTS = (1, 2, 23, 127, 254)

shared = arithmetic(1, 1)


def prove_scale(dtype: nx.Block, rule: str) -> Sweep:
    """The scale byte for all 2**31 magnitudes of the block's maximum, its one element."""
    run = EXECUTOR.elementwise(
        "mx_scale",
        lambda f, s, b: shared.mx_encode(b & 0x7FFFFFFF, f, s, "half_even", None)[0],
        alike(element_grid(dtype, rule), "half_even"),
        scale_of(dtype, rule),
    )
    return sweep(run, scale_breakpoints(dtype, rule), False, "uint8")


def prove_element(dtype: nx.Block, scale: int, rounding: str) -> Sweep:
    """An element's code at a scale, for every finite input of both signs."""
    run = EXECUTOR.elementwise(
        f"mx_element_{rounding}",
        lambda f, s, b: shared.mx_element(b, s.value, f, rounding, None),
        alike(element_grid(dtype), rounding),
        Number(scale),
    )
    return sum(
        (
            sweep(
                run,
                mx_element_breakpoints(dtype, scale, rounding, negative),
                negative,
                dtype.code_dtype,
                end=0x7F800000,
            )
            for negative in (False, True)
        ),
        Sweep(0, 0),
    )


def prove_micro(dtype: nx.Block, exponent: int, shift: int, rounding: str) -> Sweep:
    """An element's code at a block exponent and microexponent, for every input that can have them."""
    m = dtype.mantissa
    assert m is not None
    run = EXECUTOR.elementwise(
        f"micro_element_{m}_{rounding}",
        lambda e, d, b: shared.micro_element(b, e.value, d.value, m, rounding, None),
        Number(exponent),
        Number(shift),
    )
    end = (exponent + 1 - shift) << 23
    return sum(
        (
            sweep(
                run,
                micro_breakpoints(m, exponent, shift, rounding, negative),
                negative,
                dtype.code_dtype,
                end=end,
            )
            for negative in (False, True)
        ),
        Sweep(0, 0),
    )


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
