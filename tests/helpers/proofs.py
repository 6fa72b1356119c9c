"""Proofs of the arithmetic: one case each, over every input that it can have, or over those that decide."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

import numerics as nx
from numerics.backends.cpu import EXECUTOR
from numerics.backends.cpu.lanes import arithmetic
from numerics.backends.cpu.launch import Number
from numerics.backends.cpu.operations import alike
from numerics.backends.reference.binary32 import divide32, float32_value, multiply32
from numerics.backends.reference.blocks import tiered_scale_code, tiered_scale_value, to_bfloat16
from numerics.backends.reference.breakpoints import (
    listed_breakpoints,
    micro_breakpoints,
    mx_element_breakpoints,
    scale_breakpoints,
)
from numerics.backends.reference.exact import round_to_integer
from numerics.conform.sweep import CHUNK, SIGN, Encoder, Sweep, sweep
from numerics.formats.grid import element_grid, float32_bits, scale_of

MX = [nx.mxfp8_e4m3, nx.mxfp8_e5m2, nx.mxfp6_e3m2, nx.mxfp6_e2m3, nx.mxfp4, nx.mxint8]
MICRO = [nx.mx4, nx.mx6, nx.mx9]
LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))  # make verify: every input of every case
MX += [nx.mxfp3] if LONG else []
DECIDING = 1 << 19  # inputs around the steps of one sign
STRIDE = 65_521  # of the inputs between the steps; prime, so that all low bits are met
shared = arithmetic(1, 1)
Proof = Callable[..., Sweep]
"""`sweep`, or `near_steps` in its place."""


def near_steps(
    encode: Encoder, steps: Sequence[tuple[int, int]], negative: bool, code_dtype: str, end: int = SIGN
) -> Sweep:
    """As `sweep`, over the inputs that decide: both sides of every step, both ends, and some of the rest.

    An encoder whose steps are those of the list can be wrong between two of them only in a place that
    nothing in the arithmetic singles out; `make verify` looks there too.
    """
    firsts = np.array([first for first, _ in steps], np.int64)
    codes = np.array([code for _, code in steps], code_dtype)
    wide = max(8, DECIDING // 2 // len(steps))
    around = (np.append(firsts, end)[:, None] + np.arange(-wide, wide)).ravel()
    places = np.sort(np.concatenate([around, np.arange(0, end, STRIDE)]))
    places = places[(places >= 0) & (places < end) & (np.diff(places, prepend=-1) > 0)]
    total = Sweep(0, 0)
    for start in range(0, len(places), CHUNK):
        part = places[start : start + CHUNK]
        bits = (part + (SIGN if negative else 0)).astype(np.uint32)
        out = np.empty(len(bits), code_dtype)
        encode(bits.view(np.float32), out)
        due = codes[np.searchsorted(firsts, part, "right") - 1]
        wrong = np.flatnonzero(out != due)
        first = (int(bits[wrong[0]]), int(out[wrong[0]]), int(due[wrong[0]])) if len(wrong) else None
        total += Sweep(len(bits), len(wrong), first)
    return total


def prove_scale(dtype: nx.Block, rule: str, over: Proof = sweep) -> Sweep:
    """The scale byte for all 2**31 magnitudes of the block's maximum, its one element."""
    run = EXECUTOR.elementwise(
        "mx_scale",
        lambda f, s, b: shared.mx_encode(b & 0x7FFFFFFF, f, s, "half_even", None)[0],
        alike(element_grid(dtype, rule), "half_even"),
        scale_of(dtype, rule),
    )
    return over(run, scale_breakpoints(dtype, rule), False, "uint8")


def prove_element(dtype: nx.Block, scale: int, rounding: str, over: Proof = sweep) -> Sweep:
    """An element's code at a scale, for every finite input of both signs."""
    run = EXECUTOR.elementwise(
        f"mx_element_{rounding}",
        lambda f, s, b: shared.mx_element(b, s.value, f, rounding, None),
        alike(element_grid(dtype), rounding),
        Number(scale),
    )
    return sum(
        (
            over(
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


def prove_micro(dtype: nx.Block, exponent: int, shift: int, rounding: str, over: Proof = sweep) -> Sweep:
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
            over(
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


def prove_tiered_scale(over: Proof = sweep) -> Sweep:
    """The scale of hifloat4 for all 2**31 magnitudes of the block's maximum."""
    run = EXECUTOR.elementwise("tiered_scale", lambda b: shared.tiered_scale(b & 0x7FFFFFFF))

    def code_of(bits: int, negative: bool) -> int:
        return tiered_scale_code(float32_value(bits)) if bits < 0x7F800000 else 255

    return over(run, listed_breakpoints(code_of, False), False, "uint8")


def prove_tiered_element(scale: int, up: int, rounding: str, over: Proof = sweep) -> Sweep:
    """A code of hifloat4 under a scale and its microexponents, for every finite input of both signs."""
    d = nx.hifloat4
    inverse = to_bfloat16(divide32(Fraction(1), tiered_scale_value(scale)))
    factor = float32_bits(float(inverse))

    def element(r, u, f, b):
        y = shared.as_bits(shared.as_float(b & 0x7FFFFFFF) * shared.as_float(r.value + (b & 0)))
        counts = shared.tiered_counts(y, u.value, d.mantissa)
        return shared.with_sign(shared.count(counts, b, f, rounding, None, None), b, f)

    records = Number(factor), Number(up), alike(element_grid(d), rounding)
    run = EXECUTOR.elementwise(f"tiered_element_{rounding}", element, *records)

    def code_of(bits: int, negative: bool) -> int:
        y = multiply32(float32_value(min(bits, 0x7F7FFFFF)), inverse)
        counts = (
            1 << 40 if y == float("inf") else round_to_integer(y * Fraction(4, 1 << up), negative, rounding)
        )
        return negative << d.mantissa | min(counts, 7)

    return sum(
        (over(run, listed_breakpoints(code_of, negative), negative, "uint8", end=0x7F800000)
         for negative in (False, True)),
        Sweep(0, 0),
    )  # fmt: skip
