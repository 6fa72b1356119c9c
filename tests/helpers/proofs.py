"""Proofs of the arithmetic of blocks: one case each, over every input that it can have."""

from __future__ import annotations

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

MX = [nx.mxfp8_e4m3, nx.mxfp8_e5m2, nx.mxfp6_e3m2, nx.mxfp6_e2m3, nx.mxfp4, nx.mxint8]
MICRO = [nx.mx4, nx.mx6, nx.mx9]
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
