"""The exact judge by look-up: a million elements or ten thousand blocks in a second.

executor.py takes blocks, and stochastic rounding, one number at a time.  Here the same truth
(breakpoints.py: an encoder is a short list of steps) is looked up for whole arrays.  What is computed
beside the search is exact: float32 numbers scaled by powers of two in float64, where they always fit;
or it is one operation of float32 that the format itself asks for, as in NVFP4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Array, BlockFields
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.reference.binary32 import QuantParams
from numerics.backends.reference.blocks import (
    element_end,
    element_unit,
    exponent_range,
    poisoned,
    steps_in_one,
    tiered_scale_value,
    to_bfloat16,
)
from numerics.backends.reference.breakpoints import (
    Rungs,
    climb,
    element_rungs,
    first_away,
    last_rungs,
    merge,
    micro_rungs,
    rungs,
    scale_breakpoints,
)
from numerics.backends.reference.exact import (
    code_at,
    integer_range,
    largest_code,
    nan_code,
    round_to_integer,
    shelf,
)
from numerics.backends.reference.exact import encode as encode_one
from numerics.backends.reference.executor import Ladder, ReferenceExecutor, look_up, steps
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Integer
from numerics.formats.floats import bfloat16
from numerics.formats.rounding import FOUR_OVER_SIX, RANDOM_BITS, BlockOptions

FRACTION = np.uint32(23)
MAGNITUDE = np.uint32(0x7FFFFFFF)
SMALLEST_NORMAL = 2.0**-126
LARGEST32 = np.finfo(np.float32).max

_exact = ReferenceExecutor()

# ---------------------------------------------------------------------------------------- elements


def encode(
    x: NDArray[np.float32], dtype: Element, rounding: str, overflow: str, random: Array | None
) -> Array:
    """Codes of float32 inputs; random: 30-bit integers of x's shape, for stochastic rounding.

    >>> from numerics.formats import int8
    >>> x = np.float32([0.25, 0.25, -0.25])
    >>> encode(x, int8, "stochastic", "saturate", np.uint32([3 << 28, (3 << 28) - 1, 3 << 28]))
    array([  1,   0, 255], dtype=uint8)
    """
    if random is None:
        return look_up(x, steps, dtype, rounding, overflow)
    if isinstance(dtype, Codebook):
        return _drawn_listed(x, dtype, overflow, random)
    codes = _drawn(x, random, _rungs, dtype, rounding, overflow)
    for special, code in _specials(dtype, rounding, overflow):
        alike = np.isnan(x) if special != special else np.abs(x) == abs(special)
        codes[alike & (np.signbit(x) == np.signbit(special))] = code
    return codes


@lru_cache(maxsize=64)
def _specials(dtype: Element, rounding: str, overflow: str) -> tuple[tuple[float, int], ...]:
    """Zero, infinity and NaN of either sign, and their codes, which draws do not change."""
    every = [math.copysign(special, sign) for special in (0.0, math.inf, math.nan) for sign in (1, -1)]
    return tuple((x, encode_one(x, dtype, rounding, overflow, 0)) for x in every)


class _Rungs(NamedTuple):
    """The rungs of both signs, those of negative numbers behind the others: the place of one is a code."""

    at: Ladder
    values: NDArray[np.float64]
    gaps: NDArray[np.float64]
    last: NDArray[np.float64]
    codes: Array


@lru_cache(maxsize=64)
def _both(rungs_of: Callable[..., tuple[NDArray[np.float64], Array]], asked: tuple[Any, ...]) -> _Rungs:
    signs = [rungs_of(*asked, negative) for negative in (False, True)]
    firsts = [np.append(np.uint32(0), _at_least(values[1:])) for values, _ in signs]
    places = np.split(np.arange(sum(map(len, firsts))), [len(firsts[0])])
    return _Rungs(
        Ladder.of(zip(firsts, places, strict=True)),
        np.concatenate([values for values, _ in signs]),
        np.concatenate([np.append(np.diff(values), math.inf) for values, _ in signs]),
        np.concatenate([np.full(len(values), values[-1]) for values, _ in signs]),
        np.concatenate([after for _, after in signs]),
    )


def _at_least(values: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The bits of the least float32 numbers that are not smaller than these positive ones."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    return np.where(near < values, np.nextafter(near, np.float32(math.inf)), near).view(np.uint32)


def _drawn(
    x: NDArray[np.float32],
    random: Array,
    rungs_of: Callable[..., tuple[NDArray[np.float64], Array]],
    *asked: Any,
) -> Array:
    """Stochastic rounding between the rungs of each sign, in exact float64 (docs/formats.md §3).

    Up when f + R / 2**30 >= 1, f = (a - low) / (high - low): differences of neighbours have few bits.
    """
    rungs, whole = _both(rungs_of, asked), 1 << RANDOM_BITS
    at = rungs.at(x)
    with np.errstate(invalid="ignore"):  # NaN, of which nothing is said here
        a = np.minimum(np.abs(x).astype(np.float64), rungs.last[at])
        short = (whole - (random & (whole - 1)).astype(np.float64)) * rungs.gaps[at]
        return np.asarray(rungs.codes[at + ((a - rungs.values[at]) * whole >= short)])


def _drawn_listed(x: NDArray[np.float32], dtype: Codebook, overflow: str, random: Array) -> Array:
    """Codebooks under stochastic rounding, whose fractions are float32's (docs/formats.md §12).

    What lies between two values takes one of their codes; of what does not, draws only decide what lies past
    the largest, where that overflows: these few numbers are asked for one at a time.
    """
    values, codes = _listed(dtype)
    at = np.clip(np.searchsorted(values, x, "right") - 1, 0, len(values) - 2)
    between = (values[at] < x) & (x < values[at + 1])
    found = np.empty(x.shape, dtype.code_dtype)
    number, at = x[between], at[between]
    inward = values[at + 1] <= 0
    near, far = np.where(inward, values[at + 1], values[at]), np.where(inward, values[at], values[at + 1])
    with ieee_arithmetic():
        fraction = np.abs(number - near) / np.abs(far - near)
    whole = 1 << RANDOM_BITS
    away = np.floor(fraction * np.float64(whole)) + (random[between] & (whole - 1)) >= whole
    found[between] = codes[np.signbit(number).astype(np.int64), at + (away != inward)]
    found[~between] = look_up(x[~between], steps, dtype, "half_even", overflow)
    if overflow == "nonsaturate":
        turning = np.isfinite(x) & ((x < values[0]) | (x > values[-1]))
        pairs = zip(x[turning].tolist(), random[turning].tolist(), strict=True)
        found[turning] = [encode_one(v, dtype, "stochastic", overflow, r) for v, r in pairs]
    return found


@lru_cache(maxsize=64)
def _listed(dtype: Codebook) -> tuple[NDArray[np.float32], Array]:
    """The values of a codebook, rising, and their codes for numbers above zero and below."""
    values = shelf(dtype).values
    codes = [[code_at(v, dtype, negative) for v in values] for negative in (False, True)]
    return np.array(values, np.float32), np.array(codes, dtype.code_dtype)


def _as_arrays(found: Rungs, code_dtype: str) -> tuple[NDArray[np.float64], Array]:
    return np.array([float(v) for v, _ in found]), np.array([code for _, code in found], code_dtype)


@lru_cache(maxsize=64)
def _rungs(dtype: Element, rounding: str, overflow: str, negative: bool) -> tuple[NDArray[np.float64], Array]:
    return _as_arrays(rungs(dtype, rounding, overflow, negative), dtype.code_dtype)


# ---------------------------------------------------------------- integers with a scale and offset


def encode_affine(x: NDArray[np.float32], shared: QuantParams, dtype: Integer, rounding: str) -> Array:
    """Codes of float32 inputs: QuantParams.quantize of each; shared: float32 numbers, rounding draws none.

    A scale and a whole zero point may be arrays, of a number for each input.

    >>> from numerics.formats import uint4
    >>> encode_affine(np.float32([-1.0, 9.0]), QuantParams(0.5, 3), uint4, "half_even")
    array([ 1, 15], dtype=uint8)
    """
    low, high = integer_range(dtype)
    with ieee_arithmetic():
        taken = np.where(np.isnan(x), np.float32(0), x)
        y: NDArray[np.float32] = np.divide(taken, _scales(shared), dtype=np.float32)
        if isinstance(shared.zero_point, float):
            y += np.float32(shared.zero_point)
        integers = _integers(y, rounding)
    if not isinstance(shared.zero_point, float):
        integers += shared.zero_point
    np.clip(integers, low, high, out=integers)
    integers &= (1 << dtype.bits) - 1
    return integers.astype(dtype.code_dtype)


def decode_affine(integers: NDArray[np.int64], shared: QuantParams) -> NDArray[np.float32]:
    """float32 values of integers: QuantParams.dequantize of each; of arrays, too, as in `encode_affine`.

    >>> decode_affine(np.array([1, 5]), QuantParams(0.5, 3))
    array([-1.,  1.], dtype=float32)
    """
    with ieee_arithmetic():
        moved: NDArray[np.float32] = integers.astype(np.float32) - np.asarray(shared.zero_point, np.float32)
        found: NDArray[np.float32] = moved * _scales(shared)
        return found


def _scales(shared: QuantParams) -> Any:
    """The scale, or an array of them, as float32."""
    scale: Any = shared.scale
    return scale.astype(np.float32) if isinstance(scale, np.ndarray) else np.float32(float(scale))


FARTHEST = np.float32(2.0**40)  # past every integer of a format, whatever is added to it


def _integers(y: NDArray[np.float32], rounding: str) -> NDArray[np.int64]:
    """Numbers rounded to integers: away from zero where one with such a sign, parity and fraction goes."""
    if rounding == "half_even":  # which NumPy has
        near = np.asarray(np.clip(y, -FARTHEST, FARTHEST))
        return np.rint(near, out=near).astype(np.int64)
    doubled = 2 * np.minimum(np.abs(y), FARTHEST)
    halves = np.floor(doubled)
    negative, more = np.signbit(y), doubled != halves
    whole = halves.astype(np.int64)
    which = 8 * negative + 2 * (whole & 3) + more  # sign, parity, half, and whether there is more
    whole = (whole >> 1) + _goes_away(rounding).reshape(-1)[which]
    return np.asarray(np.where(negative, -whole, whole))


@lru_cache(maxsize=64)
def _goes_away(rounding: str) -> NDArray[np.int64]:
    """How far an integer and none, one, two or three quarters go, by sign and parity of the integer."""
    found = np.zeros((2, 2, 4), np.int64)
    for negative, odd, quarters in np.ndindex(found.shape):
        a = odd + Fraction(quarters, 4)
        found[negative, odd, quarters] = round_to_integer(a, bool(negative), rounding) - odd
    return found


# ------------------------------------------------------------------------------ a block's elements


def _rungs_of(dtype: Block, rounding: str, rule: str, negative: bool) -> Rungs:
    """The magnitudes of an element in units of its scale, or of its step."""
    if isinstance(dtype, ElementBlock):
        return element_rungs(dtype.element, rounding, negative, symmetric=rule != "bump")
    return micro_rungs(dtype.element_bits - 1, negative)  # beside the sign


@lru_cache(maxsize=64)
def _block_steps(dtype: Block, rounding: str, rule: str, negative: bool) -> tuple[Array, Array]:
    if isinstance(dtype, ElementBlock) and isinstance(dtype.element, Codebook):
        return steps(dtype.element, rounding, "saturate", negative)
    found = merge(climb(_rungs_of(dtype, rounding, rule, negative), negative, rounding))
    firsts, codes = zip(*found, strict=True)
    return np.array(firsts, np.uint32), np.array(codes, dtype.code_dtype)


@lru_cache(maxsize=64)
def _block_rungs(
    dtype: Block, rounding: str, rule: str, negative: bool
) -> tuple[NDArray[np.float64], Array]:  # fmt: skip
    return _as_arrays(_rungs_of(dtype, rounding, rule, negative), dtype.code_dtype)


def _encode_elements(y: NDArray[np.float32], dtype: Block, options: BlockOptions) -> Array:
    asked = dtype, options.mode, options.scale_rule
    if options.draw.bits is None:
        return look_up(y, _block_steps, *asked)
    if isinstance(dtype, ElementBlock) and isinstance(dtype.element, Codebook):
        return _drawn_listed(y, dtype.element, "saturate", options.draw.bits)
    return _drawn(y, options.draw.bits, _block_rungs, *asked)


def _past(y: NDArray[np.float32], dtype: MXBlock, options: BlockOptions) -> NDArray[np.bool_]:
    """Which elements round past the largest of their sign."""
    element, past = dtype.element, np.zeros(y.shape, bool)
    for negative in (False, True):
        low, high, odd = last_rungs(element, negative)
        chosen = np.signbit(y) == negative
        if options.draw.bits is None:
            first = np.uint32(first_away(low, high, odd, negative, options.mode))
            past |= chosen & ((y.view(np.uint32) & MAGNITUDE) >= first)
        else:
            short = ((1 << RANDOM_BITS) - (options.draw.bits & ((1 << RANDOM_BITS) - 1))) * float(high - low)
            past |= chosen & ((np.abs(y).astype(np.float64) - float(low)) * (1 << RANDOM_BITS) >= short)
    return past


def _scaled(x: Array, exponents: Array) -> NDArray[np.float32]:
    """x / 2**exponents as float32, but for what lies below its normal numbers: that becomes the least.

    No step of an element but the one away from zero lies there, so that no code changes.
    """
    y = np.ldexp(x.astype(np.float64), -exponents.astype(np.int32))
    tiny = np.copysign(np.maximum(np.abs(y), SMALLEST_NORMAL), y)
    return np.where(y == 0, y, tiny).astype(np.float32)


# ------------------------------------------------------------------------------------------ blocks


def encode_blocks(x: NDArray[np.float32], dtype: Block, options: BlockOptions) -> BlockFields:
    """Codes, scales and microexponents of the rows of x (docs/formats.md §4, §5, §8).

    >>> from numerics.formats import block_format
    >>> four = block_format(element="fp4", block=4)
    >>> encode_blocks(np.float32([[1, -2, 5, 0]]), four, BlockOptions())
    BlockFields(codes=array([[ 2, 12,  6,  0]], dtype=uint8), scale=array([127], dtype=uint8), \
microexponents=None)
    """
    lost = np.any(~np.isfinite(x), axis=1)
    with ieee_arithmetic():
        fields = _ENCODE[type(dtype)](np.where(lost[:, None], np.float32(0), x), dtype, options)
    _poison(fields, lost, dtype)
    return fields


def _poison(fields: BlockFields, lost: NDArray[np.bool_], dtype: Block) -> None:
    """A NaN or Inf in a block makes all of it NaN."""
    if isinstance(dtype, ElementBlock):
        fields.scale[lost], fields.codes[lost] = nan_code(dtype.scale), poisoned(1, dtype.element)[0]
    else:
        fields.scale[lost], fields.codes[lost] = 255, 0
    if fields.microexponents is not None:
        fields.microexponents[lost] = 0


def _encode_mx(x: NDArray[np.float32], dtype: MXBlock, options: BlockOptions) -> BlockFields:
    scale = dtype.scale
    low, _ = exponent_range(scale)
    firsts, after = _scale_steps(dtype, "floor" if options.scale_rule == "bump" else options.scale_rule)
    maxima = (x.view(np.uint32) & MAGNITUDE).max(axis=1)
    shared = after[np.searchsorted(firsts, maxima, "right") - 1]
    y = _scaled(x, shared[:, None] + np.int32(low))
    if options.scale_rule == "bump":
        up = (shared < largest_code(scale)) & _past(y, dtype, options).any(axis=1)
        shared = shared + up.astype(np.uint8)
        y = _scaled(x, shared[:, None] + np.int32(low))
    return BlockFields(_encode_elements(y, dtype, options), shared, None)


@lru_cache(maxsize=64)
def _scale_steps(dtype: MXBlock, rule: str) -> tuple[Array, Array]:
    firsts, codes = zip(*scale_breakpoints(dtype, rule), strict=True)
    return np.array(firsts, np.uint32), np.array(codes, np.uint8)


def _encode_scaled(x: NDArray[np.float32], dtype: ScaledBlock, options: BlockOptions) -> BlockFields:
    """Every operation is one of float32, as the format says (docs/formats.md §8)."""
    whole = np.float32(1.0 if options.tensor_scale is None else options.tensor_scale)
    shared = _scale_codes(x, dtype, whole, options.scale_rule)
    total = whole * _exact.decode(shared, dtype.scale)
    y = _over(x, total, options.scale_rule)
    codes = _encode_elements(y, dtype, options)
    if dtype.integers is not None:
        errors = [_errors(x, total, dtype, options.scale_rule, counts) for counts in (False, True)]
        flag = errors[1] < errors[0]
        codes = np.where(flag[:, None], _encode_counts(y, dtype, options), codes)
        shared = shared | (flag.astype(shared.dtype) << (dtype.scale.bits - 1))
    return BlockFields(codes, shared, None)


def _encode_counts(y: NDArray[np.float32], dtype: ScaledBlock, options: BlockOptions) -> Array:
    """The codes of quotients in a block's second reading."""
    assert dtype.integers is not None
    counts = y * np.float32(float(steps_in_one(dtype)))
    bits = None if options.draw.bits is None else options.draw.bits.reshape(-1)
    return encode(counts.reshape(-1), dtype.integers, options.mode, "saturate", bits).reshape(y.shape)


@lru_cache(maxsize=64)
def _worth(dtype: ScaledBlock) -> NDArray[np.float32]:
    """What every code means in the second reading, before the block's scale."""
    assert dtype.integers is not None
    codes = np.arange(1 << dtype.integers.bits).astype(dtype.integers.code_dtype)
    found: NDArray[np.float32] = _exact.decode(codes, dtype.integers) * np.float32(dtype.step or 1.0)
    return found


def _scale_codes(x: NDArray[np.float32], dtype: ScaledBlock, whole: np.float32, rule: str) -> Array:
    """The code of each block's scale, by the rule."""
    amax, largest = np.abs(x).max(axis=1), np.float32(float(element_end(dtype.element)))
    if rule == "nvidia":
        wanted = amax * (min(np.float32(1) / whole, LARGEST32) * (np.float32(1) / largest))
    else:
        wanted = amax / largest / whole
    found = encode(wanted, dtype.scale, "ceil" if rule == "ceil" else "half_even", "saturate", None)
    tried = [found]
    if rule == "mse":
        codes = found.astype(np.int64)[:, None] + np.arange(-8, 8)
        tried = list(np.clip(codes, 0, largest_code(dtype.scale)).astype(found.dtype).T)
    elif rule in FOUR_OVER_SIX:
        tried.append(encode(wanted * np.float32(1.5), dtype.scale, "half_even", "saturate", None))
    if len(tried) == 1:
        return found
    totals = [whole * _exact.decode(codes, dtype.scale) for codes in tried]
    errors = [_errors(x, total, dtype, rule) for total in totals]
    if dtype.integers is not None:
        counted = [_errors(x, total, dtype, rule, counts=True) for total in totals]
        errors = [np.minimum(one, other) for one, other in zip(errors, counted, strict=True)]
    chosen: Array = np.choose(np.argmin(errors, axis=0), tried)  # the first of equals
    return chosen


def _over(x: NDArray[np.float32], total: NDArray[np.float32], rule: str) -> Any:
    """x over both scales, or times the reciprocal of their product."""
    none = total == 0
    if rule == "nvidia":
        inverse = np.minimum(np.float32(1) / np.where(none, np.float32(1), total), LARGEST32)
        return x * np.where(none, LARGEST32, inverse)[:, None]
    return x / np.where(none, np.float32(math.inf), total)[:, None]


@lru_cache(maxsize=64)
def _element_values(element: Element) -> NDArray[np.float32]:
    """The value of every code, before the block's scale."""
    codes = np.arange(1 << element.bits).astype(element.code_dtype)
    found: NDArray[np.float32] = _exact.decode(codes, element) * np.float32(float(element_unit(element)))
    return found


def _errors(
    x: NDArray[np.float32], total: NDArray[np.float32], dtype: ScaledBlock, rule: str, counts: bool = False
) -> Array:
    """The error of each block, or of its second reading; Inf where it is NaN."""
    y, rounding = _over(x, total, rule), BlockOptions(rule)
    if counts:
        values = _worth(dtype)[_encode_counts(y, dtype, rounding)]
    else:
        values = _element_values(dtype.element)[_encode_elements(y, dtype, rounding)]
    off = values * total[:, None] - x
    terms = np.abs(off) if rule == "four_over_six_mae" else off * off
    half = 1 << (dtype.block - 1).bit_length()
    terms = np.concatenate([terms, np.zeros((len(x), half - dtype.block), np.float32)], axis=1)
    while half := half // 2:
        terms = terms[:, :half] + terms[:, half:]
    return np.where(np.isnan(terms[:, 0]), np.float32(math.inf), terms[:, 0])


def _encode_micro(x: NDArray[np.float32], dtype: MicroexponentBlock, options: BlockOptions) -> BlockFields:
    normal = np.where(np.abs(x) < np.float32(SMALLEST_NORMAL), np.float32(0), x)
    exponents = (normal.view(np.uint32) & MAGNITUDE) >> FRACTION
    shared = exponents.max(axis=1)
    parted = exponents.reshape(len(x), dtype.sub_blocks, dtype.sub_block).max(axis=2)
    shifts = (parted < shared[:, None]).astype(np.int32)
    micro = (shifts << np.arange(shifts.shape[1], dtype=np.int32)).sum(axis=1).astype(np.uint8)
    y = _scaled(normal, _micro_steps(shared, shifts, dtype))
    codes = _encode_elements(y, dtype, options)
    return BlockFields(codes, shared.astype(np.uint8), micro)


def _micro_steps(shared: Array, shifts: Array, dtype: MicroexponentBlock) -> NDArray[np.int32]:
    """The exponent of each element's step (docs/formats.md §5, rule 4)."""
    of_parts = shared.astype(np.int32)[:, None] - 127 - shifts - (dtype.mantissa - 1)
    return np.repeat(of_parts, dtype.sub_block, axis=1)


def _encode_tiered(x: NDArray[np.float32], dtype: TieredBlock, options: BlockOptions) -> BlockFields:
    """Products are those of float32; scales, by their middles, and reciprocals those of bfloat16."""
    seventh = np.float32(float(to_bfloat16(Fraction(1, 7))))
    wanted = _narrowed(np.abs(x).max(axis=1) * seventh)
    known = np.array([float(tiered_scale_value(code)) for code in range(255)])
    middles = (known[1:] + known[:-1]) / 2  # a tie goes to the even code
    low = np.searchsorted(middles, wanted.astype(np.float64), "left")
    high = np.searchsorted(middles, wanted.astype(np.float64), "right")
    scale = np.where(low % 2 == 0, low, high).astype(np.uint8)
    inverse = _narrowed(np.float32(1) / known.astype(np.float32))[scale]
    y = np.abs(x) * inverse[:, None]
    fours = y.reshape(len(x), dtype.sub_blocks, -1).max(axis=2)
    eights = fours.reshape(len(x), dtype.pairs, 2).max(axis=2) >= 4
    over = np.repeat(eights, 2, axis=1)
    lower = fours >= np.where(over, 4, 2)
    flags = np.concatenate([eights, lower], axis=1).astype(np.uint32)
    micro = (flags << np.arange(dtype.micro_bits, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    ups = np.repeat(over.astype(np.int32) + lower, dtype.sub_block, axis=1)
    counts = np.copysign(np.ldexp(y, dtype.mantissa - 1 - ups), x).astype(np.float32)
    return BlockFields(_encode_elements(counts, dtype, options), scale, micro.astype(dtype.micro_dtype))


def _narrowed(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 rounded to bfloat16, by the breakpoints of that format."""
    codes = encode(x, bfloat16, "half_even", "nonsaturate", None)
    return np.asarray(_exact.decode(codes, bfloat16), np.float32)


_ENCODE: dict[type[Block], Callable[..., BlockFields]] = {
    MXBlock: _encode_mx,
    ScaledBlock: _encode_scaled,
    MicroexponentBlock: _encode_micro,
    TieredBlock: _encode_tiered,
}


# ---------------------------------------------------------------------------------------- decoding


def decode_blocks(fields: BlockFields, dtype: Block, tensor_scale: float | None) -> NDArray[np.float32]:
    """float32 values of blocks as rows; all of a NaN block are 0x7FC00000.

    >>> from numerics.formats import block_format
    >>> four = block_format(element="fp4", block=4)
    >>> decode_blocks(BlockFields(np.uint8([[2, 12, 6, 0]]), np.uint8([128]), None), four, None)
    array([[ 2., -4.,  8.,  0.]], dtype=float32)
    """
    with ieee_arithmetic():
        if isinstance(dtype, ElementBlock):
            return _decode_elements(fields, dtype, tensor_scale)
        if isinstance(dtype, TieredBlock):
            return _decode_tiered(fields, dtype)
        return _decode_micro(fields, cast(MicroexponentBlock, dtype))


def _decode_elements(
    fields: BlockFields, dtype: ElementBlock, tensor_scale: float | None
) -> NDArray[np.float32]:
    values = _exact.decode(fields.codes, dtype.element) * np.float32(float(element_unit(dtype.element)))
    scale: Any = fields.scale
    if isinstance(dtype, ScaledBlock) and dtype.integers is not None:
        flag = scale >> (dtype.scale.bits - 1) == 1
        scale = scale & ((1 << (dtype.scale.bits - 1)) - 1)
        values = np.where(flag[:, None], _worth(dtype)[fields.codes], values)
    shared = _exact.decode(scale, dtype.scale)
    if dtype.has_tensor_scale:
        shared = _multiply(np.float32(1.0 if tensor_scale is None else tensor_scale), shared)
    found = _multiply(values, shared[:, None])
    return np.where(np.isnan(shared)[:, None], np.float32(math.nan), found)


def _multiply(x: Array | np.float32, y: Array) -> Array:
    """float32(x * y): the NaN that came keeps its sign, an invalid product is positive."""
    product = x * y
    product = np.where(np.isnan(product), np.float32(math.nan), product)
    return np.where(np.isnan(y), y, np.where(np.isnan(x), x, product))


def _decode_micro(fields: BlockFields, dtype: MicroexponentBlock) -> NDArray[np.float32]:
    mantissa = dtype.mantissa
    assert fields.microexponents is not None
    parts_of = np.arange(dtype.sub_blocks, dtype=np.uint8)
    shifts = (fields.microexponents[:, None] >> parts_of & 1).astype(np.int32)
    magnitudes = (fields.codes & ((1 << mantissa) - 1)).astype(np.float64)
    signed = np.where(fields.codes >> mantissa == 1, -magnitudes, magnitudes)
    values = np.ldexp(signed, _micro_steps(fields.scale, shifts, dtype)).astype(np.float32)
    return np.where(fields.scale[:, None] == 255, np.float32(math.nan), values)


def _decode_tiered(fields: BlockFields, dtype: TieredBlock) -> NDArray[np.float32]:
    mantissa = dtype.mantissa
    assert fields.microexponents is not None
    flags = fields.microexponents[:, None] >> np.arange(dtype.micro_bits, dtype=np.uint32) & 1
    ups = np.repeat(flags[:, : dtype.pairs], 2, axis=1) + flags[:, dtype.pairs :]
    known = np.array([*(float(tiered_scale_value(code)) for code in range(255)), math.nan])
    magnitudes = (fields.codes & ((1 << mantissa) - 1)).astype(np.float64)
    signed = np.where(fields.codes >> mantissa == 1, -magnitudes, magnitudes)
    steps = np.ldexp(known[fields.scale][:, None], ups.astype(np.int32) + (1 - mantissa))
    values = (signed * np.repeat(steps, dtype.sub_block, axis=1)).astype(np.float32)
    return np.where(fields.scale[:, None] == 255, np.float32(math.nan), values)
