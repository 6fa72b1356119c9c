"""An encoder as a step function of the float32 magnitudes: its whole truth in a short list.

Every list rises: (first magnitude bits, code from there on), beginning at bits 0, no two
neighbours alike.  Derived from the values of the codes, never by running an encoder over inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from itertools import pairwise

from numerics.backends.reference.binary32 import INF_BITS, float32_bits, float32_value
from numerics.backends.reference.blocks import (
    element_end,
    element_unit,
    even_addend,
    exponent_range,
    micro_step,
    poisoned,
)
from numerics.backends.reference.exact import (
    INWARD_BELOW,
    always_away,
    code_at,
    encode,
    floor_log2,
    integer_range,
    ladder,
    nan_code,
    no_negative_zero,
    overflow_code,
    power_of_two,
    shelf,
    sign_bit,
    ties_away,
    value,
)
from numerics.formats.block import MXBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float, Integer

Steps = list[tuple[int, int]]
Rungs = list[tuple[Fraction, int]]
NAN_BITS = INF_BITS + 1
KEPT = 1 << 17  # places: every rounding and overflow of a format has its steps at one of four to a rung


@lru_cache(KEPT)
def first_at(a: Fraction) -> int:
    """The bits of the first float32 magnitude at or above a; 0x7F800000 beyond the last.

    >>> first_at(Fraction(1)) == 0x3F800000, hex(first_at(Fraction(1, 3)))
    (True, '0x3eaaaaab')
    """
    bits = float32_bits(a)
    return bits if bits == INF_BITS or float32_value(bits) == a else bits + 1


@lru_cache(KEPT)
def first_above(a: Fraction) -> int:
    """The bits of the first float32 magnitude above a; 0x7F800000 beyond the last."""
    return min(float32_bits(a) + 1, INF_BITS)


def first_away(low: Fraction, high: Fraction, odd: bool, negative: bool, rounding: str) -> int:
    """The first magnitude that rounds from low to high (docs/formats.md §3).  odd: is low's code?

    >>> one, two = Fraction(1), Fraction(2)
    >>> hex(first_away(one, two, True, False, "half_even"))
    '0x3fc00000'
    """
    ties = ties_away(odd, negative)
    if rounding in ties:
        middle = (low + high) / 2
        return first_at(middle) if ties[rounding] else first_above(middle)
    return first_above(low) if always_away(odd, negative)[rounding] else first_at(high)


def climb(rungs: Rungs, negative: bool, rounding: str) -> Steps:
    """The steps between rungs, (magnitude, code) rising; the last bit says which codes are odd."""
    steps = [(0, rungs[0][1])]
    for (low, code), (high, following) in pairwise(rungs):
        steps.append((first_away(low, high, code % 2 == 1, negative, rounding), following))
    return steps


def merge(steps: Steps, end: int = NAN_BITS) -> Steps:
    """Only steps that begin at or before `end`, change the code, and are not overtaken at once.

    >>> merge([(0, 7), (5, 7), (6, 8), (6, 9), (2**31, 1)])
    [(0, 7), (6, 9)]
    """
    merged: Steps = []
    for first, code in sorted(dict(steps).items()):  # of steps at one place the last one counts
        if first <= end and (not merged or merged[-1][1] != code):
            merged.append((first, code))
    return merged


def breakpoints(dtype: Element, rounding: str, overflow: str, negative: bool) -> Steps:
    """The encoder of an element over the float32 magnitudes of one sign (docs/formats.md §2, §3).

    Includes the steps to Inf (0x7F800000) and NaN (0x7F800001).  rounding: not stochastic.

    >>> from numerics.formats import int2
    >>> [(hex(bits), code) for bits, code in breakpoints(int2, "half_even", "saturate", True)]
    [('0x0', 0), ('0x3f000001', 3), ('0x3fc00000', 2), ('0x7f800001', 0)]
    """
    if isinstance(dtype, Codebook) and shelf(dtype).zero is None:
        return listed_breakpoints(partial(_listed_code, dtype, rounding, overflow), negative)
    inf, nan = (math.copysign(x, -1.0 if negative else 1.0) for x in (math.inf, math.nan))
    specials = [
        (INF_BITS, encode(inf, dtype, rounding, overflow)),
        (NAN_BITS, encode(nan, dtype, rounding, overflow)),
    ]
    steps = _climbed(dtype, rounding, overflow, negative)
    if isinstance(dtype, Float) and not (dtype.has_zero or negative):
        # What is positive, however small, takes the least code.
        steps = [(0, encode(0.0, dtype, rounding, overflow)), (1, 0), *steps[1:]]
    return merge(steps + specials)


def _climbed(dtype: Element, rounding: str, overflow: str, negative: bool) -> Steps:
    """The climb of one sign; where the signs are alike, the places are found once for both."""
    own = rungs(dtype, rounding, overflow, negative)
    if isinstance(dtype, Float) and dtype.signed and _is_sign_blind(rounding):
        return list(zip(_places(dtype, rounding), [code for _, code in own], strict=True))
    return climb(own, negative, rounding)


@lru_cache(maxsize=8)
def _places(dtype: Float, rounding: str) -> list[int]:
    """Where a signed float's codes change, of either sign, if rounding does not look at it."""
    return [first for first, _ in climb(rungs(dtype, rounding, "saturate", False), False, rounding)]


def _is_sign_blind(rounding: str) -> bool:
    return all(
        table(odd, False).get(rounding) == table(odd, True).get(rounding)
        for table in (ties_away, always_away)
        for odd in (False, True)
    )


def _listed_code(dtype: Codebook, rounding: str, overflow: str, bits: int, negative: bool) -> int:
    """What a float32 magnitude of a sign becomes."""
    a = math.nan if bits > INF_BITS else math.inf if bits == INF_BITS else float32_value(bits)
    zero = -0.0 if negative else 0.0
    x = (-a if negative else a) if a else zero
    return encode(x, dtype, rounding, overflow)


def listed_breakpoints(code_of: Callable[[int, bool], int], negative: bool) -> Steps:
    """The steps of a codebook without a zero, whose codes change with its numbers one way: by halving.

    code_of: of magnitude bits and a sign.
    """
    last = code_of(INF_BITS, negative)
    found, at = [(0, code_of(0, negative))], 0
    while (code := found[-1][1]) != last:
        low, high = at, INF_BITS  # code holds at low, another at high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if code_of(middle, negative) == code else (low, middle)
        found.append((high, code_of(high, negative)))
        at = high
    return merge([*found, (NAN_BITS, code_of(NAN_BITS, negative))])


def rungs(dtype: Element, rounding: str, overflow: str, negative: bool) -> Rungs:
    """The magnitudes of one sign that an encoder goes to; a float's last is overflow (docs/formats.md §2).

    rounding: any; it says what overflow becomes.

    >>> from numerics.formats import fp4
    >>> [(float(v), code) for v, code in rungs(fp4, "half_even", "saturate", True)][-2:]
    [(6.0, 15), (8.0, 15)]
    """
    if isinstance(dtype, Integer):
        return _integer_rungs(dtype, negative)
    if isinstance(dtype, Codebook):
        return _listed_rungs(dtype, rounding, overflow, negative)
    assert isinstance(dtype, Float)
    if negative and not dtype.signed:
        return _rungs_below(dtype, rounding, overflow)
    return _float_rungs(dtype, rounding, overflow, negative)


def _integer_rungs(dtype: Integer, negative: bool) -> Rungs:
    low, high = integer_range(dtype)
    wrap = 1 << dtype.bits
    return [(Fraction(k), (-k if negative else k) % wrap) for k in range((-low if negative else high) + 1)]


def _listed_rungs(dtype: Codebook, rounding: str, overflow: str, negative: bool) -> Rungs:
    """The values of one sign of a codebook that has a zero; the rung past the largest is overflow."""
    found = sorted(abs(v) for v in shelf(dtype).values if v == 0 or (v < 0) is negative)
    rungs = [(a, code_at(-a if negative else a, dtype, negative)) for a in found]
    beyond = dtype.precedes if negative else dtype.follows
    if overflow == "nonsaturate" and beyond is not None:
        infinity = -math.inf if negative else math.inf
        kept = rounding in ("toward_zero", "to_odd", "ceil" if negative else "floor")
        past = rungs[-1][1] if kept else encode(infinity, dtype, rounding, overflow)
        rungs.append((abs(Fraction(beyond)), past))
    return rungs


def _float_rungs(dtype: Float, rounding: str, overflow: str, negative: bool) -> Rungs:
    """The ladder with the sign in its codes; the rung past the largest is overflow."""
    values, codes = ladder(dtype)
    signed = [sign_bit(dtype, negative) | code for code in codes]
    if no_negative_zero(dtype):
        signed[0] = 0
    signed[-1] = overflow_code(dtype, negative, rounding, overflow)
    return list(zip(values, signed, strict=True))


def _rungs_below(dtype: Float, rounding: str, overflow: str) -> Rungs:
    """Negative numbers into an unsigned format: 0, or NaN for those that round past it."""
    if overflow == "saturate":
        return [(Fraction(0), 0)]
    if not dtype.has_zero:
        return [(Fraction(0), nan_code(dtype))]
    if rounding in INWARD_BELOW:
        return [(Fraction(0), 0)]
    zero, smallest = ladder(dtype).values[:2]
    return [(zero, 0), (smallest, nan_code(dtype))]


def scale_breakpoints(dtype: MXBlock, rule: str) -> Steps:
    """The byte of an MX scale over the magnitude bits of the block's maximum (docs/formats.md §4).

    Includes the step to NaN at 0x7F800000.

    >>> from numerics.formats import mxfp4
    >>> [(hex(bits), byte) for bits, byte in scale_breakpoints(mxfp4, "floor")[:3]]
    [('0x0', 0), ('0x1800000', 1), ('0x2000000', 2)]
    """
    element, scale = dtype.element, dtype.scale
    low, high = exponent_range(scale)
    exponents = range(low + 1, high + 1)
    steps = [(first_maximum(e, element, rule), e - low) for e in exponents]
    return merge([(0, 0), *steps, (INF_BITS, nan_code(scale))])


def first_maximum(exponent: int, element: Element, rule: str) -> int:
    """The bits of the first block maximum whose scale is 2**exponent or more (docs/formats.md §4)."""
    largest = element_end(element)
    emax = floor_log2(largest)
    if rule == "floor":
        return first_at(power_of_two(exponent + emax))
    if rule in (
        "tosa",
        "bump",
    ):  # of a positive maximum that is rounded half to even: it looks at the elements
        low, high, odd = last_rungs(element, False)
        below = power_of_two(exponent - 1)
        return first_away(low * below, high * below, odd, False, "half_even")
    if rule == "ceil":
        return first_above(power_of_two(exponent + emax - 1))
    if rule == "rceil":
        return first_above(largest * power_of_two(exponent - 1))
    assert rule == "even"
    return min(max(((exponent + emax + 127) << 23) - even_addend(element), 0), INF_BITS)


def micro_breakpoints(mantissa: int, exponent_field: int, shift: int, rounding: str, negative: bool) -> Steps:
    """The code of a microexponent block's element, at its shared exponent and shift (docs/formats.md §5).

    Over the magnitude bits below (exponent_field + 1) << 23; with shift 1, below its field << 23.

    >>> [(hex(bits), code) for bits, code in micro_breakpoints(2, 127, 1, "half_even", True)]
    [('0x0', 0), ('0x800000', 4), ('0x3e000001', 5), ('0x3ec00000', 6), ('0x3f200001', 7)]
    """
    step = micro_step(exponent_field, shift, mantissa)
    scaled = [(k * step, code) for k, code in micro_rungs(mantissa, negative)]
    normal, end = 1 << 23, ((exponent_field + 1 - shift) << 23) - 1
    rounded = [(max(first, normal), code) for first, code in climb(scaled, negative, rounding)]
    return merge([(0, 0), *rounded], end)


def micro_rungs(mantissa: int, negative: bool) -> Rungs:
    """The magnitudes of a microexponent block's element, in its steps (docs/formats.md §5)."""
    sign = int(negative) << mantissa
    return [(Fraction(k), sign | k) for k in range(1 << mantissa)]


def mx_element_breakpoints(dtype: MXBlock, scale_byte: int, rounding: str, negative: bool) -> Steps:
    """The code of an MX block's element over the finite magnitudes, at a given scale (docs/formats.md §4).

    >>> from numerics.formats import mxint8
    >>> first, code = mx_element_breakpoints(mxint8, 127, "half_even", True)[-1]
    >>> first == first_above(Fraction(253, 128)), hex(code)
    (True, '0x81')
    """
    element, scale = dtype.element, dtype.scale
    shared = value(scale_byte, scale)
    if not isinstance(shared, Fraction):
        return [(0, poisoned(1, element)[0])]
    if isinstance(element, Codebook):
        return merge(
            listed_breakpoints(partial(_scaled_code, element, rounding, shared), negative), INF_BITS - 1
        )
    scaled = [(v * shared, code) for v, code in element_rungs(element, rounding, negative)]
    return merge(climb(scaled, negative, rounding), INF_BITS - 1)


def _scaled_code(element: Codebook, rounding: str, shared: Fraction, bits: int, negative: bool) -> int:
    """What a finite float32 magnitude becomes under a scale; infinity's bits read as 2**128."""
    a = float32_value(min(bits, INF_BITS)) / shared
    return encode((-a if negative else a) if a else (-0.0 if negative else 0.0), element, rounding)


def element_rungs(element: Element, rounding: str, negative: bool, symmetric: bool = True) -> Rungs:
    """The magnitudes of a block's element in units of its scale: saturating, integers symmetric."""
    found, unit = rungs(element, rounding, "saturate", negative), element_unit(element)
    if isinstance(element, Integer) and symmetric:
        found = found[: integer_range(element)[1] + 1]
    return [(v * unit, code) for v, code in found]


def last_rungs(element: Element, negative: bool) -> tuple[Fraction, Fraction, bool]:
    """The largest magnitude of a sign that an element may be, what would follow it, and whether it is odd."""
    if isinstance(element, Integer):
        last, unit = abs(integer_range(element)[0 if negative else 1]), element_unit(element)
        return last * unit, (last + 1) * unit, last % 2 == 1
    assert isinstance(element, Float)
    values, codes = ladder(element)
    return values[-2], values[-1], codes[-2] % 2 == 1
