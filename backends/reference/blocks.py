"""One block at a time, by fractions: OCP MX, microexponents, and float scales as in NVFP4."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from typing import SupportsFloat

from numerics.backends.reference.binary32 import (
    BINARY32,
    divide32,
    float32_bits,
    multiply32,
    to_float32,
)
from numerics.backends.reference.exact import (
    Exact,
    absolute,
    encode,
    exactly,
    floor_log2,
    has_nan,
    integer_range,
    is_finite,
    is_negative,
    largest_code,
    magnitude,
    nan_code,
    power_of_two,
    round_magnitude,
    round_to_integer,
    value,
)
from numerics.formats.block import MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float, Integer
from numerics.formats.floats import bfloat16
from numerics.formats.rounding import FOUR_OVER_SIX, BlockOptions

Numbers = Iterable[Fraction | SupportsFloat]
Randoms = Sequence[int] | None
DEFAULTS = BlockOptions()

# ------------------------------------------------------------------------------ a block's elements


def element_unit(element: Element) -> Fraction:
    """What an element's value counts: integers carry 2**-(bits - 2) (OCP MX 1.0 §5.3.4)."""
    return power_of_two(2 - element.bits) if isinstance(element, Integer) else Fraction(1)


@cache
def element_max(element: Element) -> Fraction:
    """The largest magnitude that is written (OCP MX 1.0 §5.3).

    >>> from numerics.formats import fp4, int8
    >>> element_max(fp4), element_max(int8)
    (Fraction(6, 1), Fraction(127, 64))
    """
    if isinstance(element, Integer):
        return integer_range(element)[1] * element_unit(element)
    if isinstance(element, Codebook):
        return Fraction(max(v for v in element.listed if math.isfinite(v)))
    assert isinstance(element, Float)
    return magnitude(largest_code(element), element)


@cache
def element_end(element: Element) -> Fraction:
    """What a block's largest magnitude is scaled to: the largest, or what a codebook names instead (§12).

    The largest of a codebook is its largest magnitude, of whichever sign.

    >>> from numerics.formats import fp4, posit8
    >>> element_end(fp4), element_end(posit8), element_max(posit8)
    (Fraction(6, 1), Fraction(15, 1), Fraction(16777216, 1))
    """
    if not isinstance(element, Codebook):
        return element_max(element)
    sizes = [abs(v) for v in element.listed if math.isfinite(v)]
    return Fraction(float(element.scaled_to) if element.scaled_to else max(sizes))


def encode_element(
    y: Exact, element: Element, rounding: str, random: int | None = None, symmetric: bool = True
) -> int:
    """The code of a number in units of the block's scale, saturating; integers symmetrically."""
    if isinstance(element, Integer):
        low, high = integer_range(element)
        y = exactly(min(max(y / element_unit(element), -high if symmetric else low), high))
    return encode(y, element, rounding, "saturate", random)


def rounds_past(y: Exact, element: Element, rounding: str, random: int | None = None) -> bool:
    """Does a number in units of the block's scale round past the largest, or the most negative, element?

    >>> from numerics.formats import int8
    >>> [rounds_past(Fraction(n, 128), int8, "half_even") for n in (254, 255, -255)]
    [False, True, False]
    """
    negative = is_negative(y)
    if isinstance(element, Integer):
        n = round_to_integer(absolute(y) / element_unit(element), negative, rounding, random)
        return n > (-integer_range(element)[0] if negative else integer_range(element)[1])
    assert isinstance(element, Float)
    return round_magnitude(absolute(y), element, negative, rounding, random) > largest_code(element)


def element_value(code: int, element: Element) -> Exact:
    """The number that an element's code stands for, before the block's scale."""
    v = value(code, element)
    return v * element_unit(element) if isinstance(v, Fraction) else v


def poisoned(count: int, element: Element) -> list[int]:
    """The codes of a block with a NaN or Inf: NaN where the element has one, else 0 (docs/formats.md §4)."""
    return [nan_code(element) if has_nan(element) else 0] * count


def _each(randoms: Randoms, count: int) -> Sequence[int | None]:
    return [None] * count if randoms is None else randoms


# ------------------------------------------------------------------------------------------ OCP MX


def exponent_range(scale: Float) -> tuple[int, int]:
    """The least and the largest exponent of a power-of-two scale: -127 and 127 for E8M0."""
    return -scale.bias, largest_code(scale) - scale.bias


def ceil_log2(a: Fraction) -> int:
    """The smallest e with a <= 2**e, for a > 0."""
    return floor_log2(a) + (power_of_two(floor_log2(a)) != a)


def even_addend(element: Element) -> int:
    """What the rule `even` adds to the bits: half a step of the element's precision (docs/formats.md §4)."""
    width = element.mantissa if isinstance(element, Float) else element.bits
    return 1 << (22 - width)


def scale_exponent(amax: Fraction, element: Element, rule: str) -> int:
    """The exponent of the block's scale before it is clamped (docs/formats.md §4; OCP MX 1.0 §6.3).

    >>> from numerics.formats import fp4
    >>> [scale_exponent(Fraction(7), fp4, rule) for rule in ("floor", "ceil", "even", "rceil")]
    [0, 1, 1, 1]
    """
    emax = floor_log2(element_end(element))
    if rule in ("floor", "bump"):  # where `bump` begins
        return floor_log2(amax) - emax
    if rule == "ceil":
        return ceil_log2(amax) - emax
    if rule == "rceil":
        return ceil_log2(amax / element_end(element))
    if rule == "tosa":
        exponent = floor_log2(amax) - emax
        return exponent + rounds_past(amax / power_of_two(exponent), element, "half_even")
    assert rule == "even"
    return ((float32_bits(amax) + even_addend(element)) >> 23) - 127 - emax


def encode_block(
    xs: Numbers,
    dtype: MXBlock,
    rule: str = "floor",
    rounding: str = "half_even",
    randoms: Randoms = None,
) -> tuple[int, list[int]]:
    """An MX block: the scale's byte and the elements' codes (docs/formats.md §4; OCP MX 1.0 §6.3).

    xs: the block's numbers; `even` reads them as float32.

    >>> from numerics.formats import mxfp4
    >>> encode_block([1.0, -2.0, 5.0, 0.0], mxfp4)
    (127, [2, 12, 6, 0])
    """
    element, scale = dtype.element, dtype.scale
    numbers = [exactly(x) for x in xs]
    if not all(map(is_finite, numbers)):
        return nan_code(scale), poisoned(len(numbers), element)
    low, high = exponent_range(scale)
    amax = max(absolute(x) for x in numbers)
    exponent = min(max(scale_exponent(amax, element, rule), low), high) if amax else low
    drawn = list(zip(numbers, _each(randoms, len(numbers)), strict=True))
    if rule == "bump" and exponent < high:
        exponent += any(rounds_past(x / power_of_two(exponent), element, rounding, r) for x, r in drawn)
    step, symmetric = power_of_two(exponent), rule != "bump"
    return exponent - low, [encode_element(x / step, element, rounding, r, symmetric) for x, r in drawn]


def decode_block(byte: int, codes: Sequence[int], dtype: MXBlock) -> list[Exact]:
    """The float32 values of an MX block: exact products, rounded once (OCP MX 1.0 §5.1).

    >>> from numerics.formats import mxfp4
    >>> decode_block(128, [2, 12, 6], mxfp4)
    [Fraction(2, 1), Fraction(-4, 1), Fraction(8, 1)]
    """
    element, scale = dtype.element, dtype.scale
    shared = value(byte, scale)
    if shared != shared:
        return [math.nan] * len(codes)
    return [multiply32(element_value(code, element), shared) for code in codes]


# ------------------------------------------------------------------------------------ float scales


LARGEST32 = power_of_two(128) - power_of_two(104)


def tensor_scale_of(xs: Numbers, dtype: ScaledBlock, rule: str = "floor") -> Fraction:
    """The float32 scale that brings a tensor's largest finite magnitude to the block's (docs/formats.md §8).

    1 where there is nothing to scale; never 0 where there is: the smallest float32 then.

    >>> from numerics.formats import nvfp4
    >>> tensor_scale_of([-5376.0, math.inf], nvfp4), tensor_scale_of([1536.0], nvfp4, "four_over_six")
    (Fraction(2, 1), Fraction(1, 1))
    """
    element, scale = dtype.element, dtype.scale
    amax = max((absolute(x) for x in map(exactly, xs) if is_finite(x)), default=Fraction(0))
    top = magnitude(largest_code(scale), scale)
    if rule in FOUR_OVER_SIX:  # half as much again is a scale, too
        top = power_of_two(floor_log2(top * 2 / 3))
    largest = multiply32(top, element_end(element))
    if rule == "nvidia" and amax:
        found = divide32(Fraction(1), min(divide32(largest, amax), LARGEST32))
    else:
        found = divide32(amax, largest)
    assert isinstance(found, Fraction)
    return found or (power_of_two(BINARY32.least) if amax else Fraction(1))


def encode_scaled_block(
    xs: Numbers, dtype: ScaledBlock, options: BlockOptions = DEFAULTS, randoms: Randoms = None
) -> tuple[int, list[int]]:
    """A block with a float scale: the scale's code and the elements' (docs/formats.md §8).

    Every operation is one of float32, rounded half to even.  randoms: in place of the options' draw.

    >>> from numerics.formats import nvfp4
    >>> encode_scaled_block([3.0, -1.0, 0.26], nvfp4)
    (48, [7, 12, 1])
    """
    element, scale = dtype.element, dtype.scale
    numbers = [exactly(x) for x in xs]
    if not all(map(is_finite, numbers)):
        return nan_code(scale), poisoned(len(numbers), element)
    whole = to_float32(exactly(1.0 if options.tensor_scale is None else options.tensor_scale))
    code = _scale_code(numbers, dtype, whole, options.scale_rule)
    total = multiply32(whole, value(code, scale))
    drawn = list(zip(numbers, _each(randoms, len(numbers)), strict=True))
    flag = _reads_integers(numbers, dtype, total, options.scale_rule)
    codes = [_code_of(_over(x, total, options.scale_rule), dtype, flag, options.mode, r) for x, r in drawn]
    return code | flag << (scale.bits - 1), codes


def _code_of(y: Exact, dtype: ScaledBlock, flag: bool, rounding: str, random: int | None = None) -> int:
    """The code of a quotient, in the reading that the flag says."""
    if not flag:
        return encode_element(y, dtype.element, rounding, random)
    assert dtype.integers is not None
    return encode(multiply32(y, steps_in_one(dtype)), dtype.integers, rounding, "saturate", random)


def steps_in_one(dtype: ScaledBlock) -> Exact:
    """How many counts of the second reading an element's 1 is: the largest of both, divided in float32."""
    assert dtype.integers is not None
    most = element_max(dtype.integers) / element_unit(dtype.integers)
    return divide32(most, element_end(dtype.element))


def _element_of(code: int, dtype: ScaledBlock, flag: bool) -> Exact:
    """The element that a code means, in the reading that the flag says."""
    if not flag:
        return element_value(code, dtype.element)
    assert dtype.integers is not None
    assert dtype.step is not None
    return multiply32(value(code, dtype.integers), exactly(dtype.step))


def _reads_integers(numbers: list[Exact], dtype: ScaledBlock, total: Exact, rule: str) -> bool:
    """Is the error of a block less, where its codes are counts (docs/formats.md §8)?"""
    if dtype.integers is None:
        return False
    return _error(numbers, dtype, total, rule, True) < _error(numbers, dtype, total, rule, False)


def _scale_code(numbers: list[Exact], dtype: ScaledBlock, whole: Exact, rule: str) -> int:
    """The code of the scale of finite numbers by a rule (docs/formats.md §8)."""
    scale, largest = dtype.scale, to_float32(element_end(dtype.element))
    amax = max(absolute(x) for x in numbers)
    if rule == "nvidia":
        inverse = min(divide32(Fraction(1), whole), LARGEST32)
        wanted = multiply32(amax, multiply32(inverse, divide32(Fraction(1), largest)))
    else:
        wanted = divide32(divide32(amax, largest), whole)
    code = encode(wanted, scale, "ceil" if rule == "ceil" else "half_even")
    tried = [code]
    if rule == "mse":
        tried = list(range(max(code - 8, 0), min(code + 7, largest_code(scale)) + 1))
    elif rule in FOUR_OVER_SIX:
        tried.append(encode(multiply32(wanted, Fraction(3, 2)), scale))
    if len(tried) == 1:
        return code
    flags = (False,) if dtype.integers is None else (False, True)

    def error(one: int) -> Exact:
        total = multiply32(whole, value(one, scale))
        return min(_error(numbers, dtype, total, rule, flag) for flag in flags)

    return min(tried, key=error)


def _error(numbers: list[Exact], dtype: ScaledBlock, total: Exact, rule: str, flag: bool) -> Exact:
    """The sum of a block's squares, or magnitudes, of errors, where elements round half to even."""
    codes = [_code_of(_over(x, total, rule), dtype, flag, "half_even") for x in numbers]
    values = [multiply32(total, _element_of(code, dtype, flag)) for code in codes]
    off = [_add(v, -x) for v, x in zip(values, numbers, strict=True)]
    terms = [absolute(d) if rule == "four_over_six_mae" else multiply32(d, d) for d in off]
    return _sum_in_halves(terms)


def _sum_in_halves(terms: list[Exact]) -> Exact:
    """x[0 .. h) + x[h .. 2h), until one is left; zeros fill up to a power of two."""
    half = 1 << (len(terms) - 1).bit_length()
    terms = terms + [Fraction(0)] * (half - len(terms))
    while half := half // 2:
        terms = [_add(x, y) for x, y in zip(terms[:half], terms[half:], strict=True)]
    return terms[0]


def _add(x: Exact, y: Exact) -> Exact:
    """float32(x + y); Inf where either is none, or NaN: an error beyond measure."""
    return BINARY32.rounded(Fraction(x) + Fraction(y)) if is_finite(x) and is_finite(y) else math.inf


def _over(x: Exact, total: Exact, rule: str = "floor") -> Exact:
    """float32(x / total), where a total of 0 leaves nothing but the sign; or by the reciprocal (`nvidia`)."""
    if rule != "nvidia":
        return divide32(x, total if total else math.inf)
    return multiply32(x, min(divide32(Fraction(1), total), LARGEST32) if total else LARGEST32)


def decode_scaled_block(
    code: int,
    codes: Sequence[int],
    dtype: ScaledBlock,
    tensor_scale: Fraction | SupportsFloat = 1.0,
) -> list[Exact]:
    """The float32 values: (tensor scale * scale) * element, each product rounded.

    >>> from numerics.formats import nvfp4
    >>> decode_scaled_block(48, [7, 12, 1], nvfp4)
    [Fraction(3, 1), Fraction(-1, 1), Fraction(1, 4)]
    """
    flag = dtype.integers is not None and bool(code >> (dtype.scale.bits - 1))
    code &= (1 << (dtype.scale.bits - flag)) - 1
    total = multiply32(to_float32(exactly(tensor_scale)), value(code, dtype.scale))
    if total != total:
        return [math.nan] * len(codes)
    return [multiply32(total, _element_of(code, dtype, flag)) for code in codes]


# --------------------------------------------------------------------------------- microexponents


def micro_step(exponent: int, shift: int, mantissa: int) -> Fraction:
    """The value of code 1 (docs/formats.md §5, rule 4)."""
    return power_of_two(exponent - 127 - shift - (mantissa - 1))


def encode_micro_block(
    xs: Numbers, dtype: MicroexponentBlock, rounding: str = "half_even", randoms: Randoms = None
) -> tuple[int, int, list[int]]:
    """A microexponent block: exponent, microexponents, codes (docs/formats.md §5; arXiv 2302.08007).

    Bit j of the microexponents belongs to sub-block j; a code is sign << m | magnitude.

    >>> from numerics.formats import mx6
    >>> xs = [1.0, -0.5, 0.3, 0.1] + [0.0] * 12
    >>> exponent, microexponents, codes = encode_micro_block(xs, mx6)
    >>> exponent, bin(microexponents), codes[:4]
    (127, '0b11111110', [8, 20, 5, 2])
    """
    mantissa, sub_block = dtype.mantissa, dtype.sub_block
    numbers = [exactly(x) for x in xs]
    if not all(map(is_finite, numbers)):
        return 255, 0, [0] * len(numbers)
    normal = [Fraction(x) if absolute(x) >= power_of_two(-126) else Fraction(0) for x in numbers]
    fields = [floor_log2(abs(x)) + 127 if x else 0 for x in normal]
    exponent = max(fields)
    starts = range(0, dtype.block, sub_block)
    shifts = [int(max(fields[start : start + sub_block]) < exponent) for start in starts]
    steps = [micro_step(exponent, shift, mantissa) for shift in shifts]
    draws = _each(randoms, len(normal))
    codes = [
        _micro_code(x, steps[i // sub_block], mantissa, rounding, r)
        for i, (x, r) in enumerate(zip(normal, draws, strict=True))
    ]
    return exponent, sum(shift << j for j, shift in enumerate(shifts)), codes


def _micro_code(x: Fraction, step: Fraction, mantissa: int, rounding: str, r: int | None) -> int:
    """Sign and magnitude; a round-up past the top saturates (docs/formats.md §5, rule 4)."""
    rounded = round_to_integer(abs(x) / step, x < 0, rounding, r)
    return is_negative(x) << mantissa | min(rounded, (1 << mantissa) - 1)


def decode_micro_block(
    exponent: int, microexponents: int, codes: Sequence[int], dtype: MicroexponentBlock
) -> list[Exact]:
    """The values of a microexponent block, all of them float32 (docs/formats.md §5, rule 5).

    >>> from numerics.formats import mx6
    >>> decode_micro_block(127, 0xFE, [8, 20, 5, 2] + [16] * 12, mx6)[:5]
    [Fraction(1, 1), Fraction(-1, 2), Fraction(5, 16), Fraction(1, 8), -0.0]
    """
    mantissa, sub_block = dtype.mantissa, dtype.sub_block
    if exponent == 255:
        return [math.nan] * len(codes)
    decoded: list[Exact] = []
    for i, code in enumerate(codes):
        negative, rest = divmod(code, 1 << mantissa)
        shift = microexponents >> (i // sub_block) & 1
        a = rest * micro_step(exponent, shift, mantissa)
        decoded.append((-a if a else -0.0) if negative else a)
    return decoded


# --------------------------------------------------------------------------------- two tiers: HiFloat4

LEAST_TIERED, MOST_TIERED = power_of_two(-48), Fraction(49152)


def to_bfloat16(x: Exact) -> Fraction:
    """A finite number rounded to bfloat16, half to even."""
    found = value(encode(x, bfloat16, overflow="nonsaturate"), bfloat16)
    assert isinstance(found, Fraction)
    return found


def tiered_scale_value(code: int) -> Fraction:
    """What a code of the scale means: 6 exponent bits over two digits (arXiv 2602.11287)."""
    exponent, digits = divmod(code, 4)
    return (4 + digits) * power_of_two(exponent - 50)


def tiered_scale_code(amax: Fraction) -> int:
    """The code of a block's scale: amax times bfloat16(1 / 7), as bfloat16, to three digits, half to even.

    >>> tiered_scale_code(Fraction(7)), tiered_scale_code(Fraction(0)), tiered_scale_code(Fraction(10**9))
    (192, 0, 254)
    """
    wanted = to_bfloat16(multiply32(amax, to_bfloat16(Fraction(1, 7))))
    if wanted <= LEAST_TIERED:
        return 0
    exponent = floor_log2(wanted)
    steps = round_to_integer(wanted / power_of_two(exponent - 2), False, "half_even")
    return min(4 * (exponent + 48) + steps - 4, 254)


def encode_tiered_block(
    xs: Numbers, dtype: TieredBlock, rounding: str = "half_even", randoms: Randoms = None
) -> tuple[int, int, list[int]]:
    """A block of two tiers: scale, microexponents, codes (docs/formats.md §8).

    Bit j of the microexponents belongs to pair j, and the bits above to the sub-blocks; a code is
    sign << m | magnitude.

    >>> from numerics.formats import hifloat4
    >>> scale, microexponents, codes = encode_tiered_block([7.0, -1.0, 0.4] + [0.0] * 61, hifloat4)
    >>> scale, hex(microexponents), codes[:3]
    (192, '0x101', [7, 9, 0])
    """
    numbers, m = [exactly(x) for x in xs], dtype.mantissa
    if not all(map(is_finite, numbers)):
        return 255, 0, [0] * len(numbers)
    scale = tiered_scale_code(max(absolute(x) for x in numbers))
    inverse = to_bfloat16(divide32(Fraction(1), tiered_scale_value(scale)))
    y = [Fraction(multiply32(absolute(x), inverse)) for x in numbers]
    size, micro, codes = dtype.sub_block, 0, []
    for i, (x, r) in enumerate(zip(numbers, _each(randoms, len(numbers)), strict=True)):
        pair, part = i // (2 * size), i // size
        upper = max(y[pair * 2 * size : (pair + 1) * 2 * size]) >= 4
        lower = max(y[part * size : (part + 1) * size]) >= (4 if upper else 2)
        micro |= upper << pair | lower << (dtype.block // (2 * size) + part)
        counts = y[i] * power_of_two(m - 1 - upper - lower)
        rounded = round_to_integer(counts, is_negative(x), rounding, r)
        codes.append(is_negative(x) << m | min(rounded, (1 << m) - 1))
    return scale, micro, codes


def decode_tiered_block(scale: int, micro: int, codes: Sequence[int], dtype: TieredBlock) -> list[Exact]:
    """The values of a block of two tiers, all of them float32.

    >>> from numerics.formats import hifloat4
    >>> decode_tiered_block(192, 0x101, [7, 9, 8] + [0] * 61, hifloat4)[:3]
    [Fraction(7, 1), Fraction(-1, 1), -0.0]
    """
    if scale == 255:
        return [math.nan] * len(codes)
    decoded: list[Exact] = []
    pairs = dtype.block // (2 * dtype.sub_block)
    for i, code in enumerate(codes):
        part = i // dtype.sub_block
        up = (micro >> (part // 2) & 1) + (micro >> (pairs + part) & 1)
        negative, rest = divmod(code, 1 << dtype.mantissa)
        a = rest * tiered_scale_value(scale) * power_of_two(up + 1 - dtype.mantissa)
        decoded.append((-a if a else -0.0) if negative else a)
    return decoded
