"""Scaled integers by exact fractions: docs/formats.md §6 word by word, rounded where a standard rounds."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import ml_dtypes
import numpy as np

import numerics as nx

TYPES = {  # significant bits, exponent of the smallest subnormal, largest finite
    "float64": (53, -1074, Fraction(np.finfo(np.float64).max)),
    "float32": (24, -149, Fraction(float(np.finfo(np.float32).max))),
    "float16": (11, -24, Fraction(65504)),
    "bfloat16": (8, -133, Fraction(float(ml_dtypes.finfo(ml_dtypes.bfloat16).max))),
}


def half_even(x: Fraction) -> int:
    return round(x)  # Python's own rounding of a Fraction is half to even


def rounded(x: Fraction, kind: str) -> Fraction | float:
    """x in a float type; infinite where it overflows."""
    digits, lowest, largest = TYPES[kind]
    if x == 0:
        return Fraction(0)
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    exponent += Fraction(2) ** exponent <= abs(x)
    step = Fraction(2) ** max(exponent - digits, lowest)
    near = half_even(x / step) * step
    return near if abs(near) <= largest else math.inf if near > 0 else -math.inf


def kept(scale: Fraction, kind: str) -> Fraction:
    """The scale in its type: never zero, never infinite."""
    if kind == "pof2":
        power = next(e for e in range(-127, 128) if Fraction(2) ** e >= scale or e == 127)
        return Fraction(2) ** power
    _, lowest, largest = TYPES[kind]
    near = rounded(scale, kind)
    return largest if near == math.inf else max(near, Fraction(2) ** lowest)


def found_scale(finite: list[Fraction], d, symmetric: bool, wide: str) -> Fraction:
    low, high = min([0, *finite]), max([0, *finite])
    if symmetric:
        extent, steps = max(-low, high), Fraction(d.max)
    else:
        extent, steps = high - low, Fraction(d.max) - Fraction(d.min)
    if extent == 0:
        return Fraction(1)
    near = rounded(Fraction(extent), wide)
    if near == math.inf:  # as if the type went on
        near = 2 * rounded(Fraction(extent) / 2, wide)
    return rounded(near / steps, wide)


def found_zero(low: Fraction, scale: Fraction, d, wide: str) -> Fraction:
    quotient = rounded(min(low, Fraction(0)) / scale, wide)
    if quotient == -math.inf:
        return Fraction(d.max)
    wanted = rounded(Fraction(d.min) - quotient, wide)
    return min(max(wanted, Fraction(d.min)), Fraction(d.max))


def expected_group(values: list[float], d, symmetric, scale_type, zero_type, wide):
    """Scale, zero point, codes as integers, and values of one integer group."""
    zero_type = "int32" if symmetric else zero_type  # there is none
    return _expected_group(np.array(values).tobytes(), d, symmetric, scale_type, zero_type, wide)


@lru_cache(4096)
def _expected_group(numbers: bytes, d, symmetric, scale_type, zero_type, wide):
    """expected_group of float64s by their bits, which tell NaN from NaN and -0.0 from 0.0."""
    values = np.frombuffer(numbers).tolist()
    finite = [Fraction(v) for v in values if math.isfinite(v)]
    scale = kept(found_scale(finite, d, symmetric, wide), scale_type)
    zero = Fraction(0)
    if not symmetric:
        zero = found_zero(min([Fraction(0), *finite]), scale, d, wide)
        zero = Fraction(half_even(zero)) if zero_type == "int32" else rounded(zero, "float32")
    codes = [code_of(v, scale, zero, d, wide, zero_type == "float32" and not symmetric) for v in values]
    return scale, zero, codes, [value_of(q, scale, zero, wide) for q in codes]


def code_of(v: float, scale, zero, d, wide, offset: bool) -> int:
    low, high = int(d.min), int(d.max)
    if math.isnan(v):  # as 0 is
        return min(max(half_even(zero), low), high)
    quotient = v if math.isinf(v) else rounded(Fraction(v) / scale, wide)
    if offset and math.isfinite(quotient):
        quotient = rounded(quotient + zero, wide)
    if not math.isfinite(quotient):
        return high if quotient > 0 else low
    n = half_even(quotient) + (0 if offset else int(zero))
    return min(max(n, low), high)


def value_of(q: int, scale, zero, wide) -> float:
    value = rounded(rounded(Fraction(q) - zero, wide) * scale, wide)
    return float(value)


def groups(scheme, shape):
    """The indices that share a scale, by the scale's index."""
    found = {}
    for index in np.ndindex(*shape):
        if scheme.kind == "per_tensor":
            key = ()
        elif scheme.kind == "per_channel":
            key = (index[scheme.axis],)
        else:
            axis = scheme.axis % len(shape)
            key = (*index[:axis], index[axis] // scheme.size, *index[axis + 1 :])
        found.setdefault(key, []).append(index)
    return found


def signed(codes, d):
    codes = codes.astype(int)
    return np.where(codes > d.max, codes - (1 << d.bits), codes)


SCHEMES = [nx.per_tensor(), nx.per_channel(0), nx.per_channel(1), nx.per_group(4), nx.per_group(2, axis=0)]
SCALES = ("float32", "float", "float16", "bfloat16", "pof2")
KINDS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
