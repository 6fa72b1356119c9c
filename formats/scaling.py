"""One block: the shared scale, microexponents, and the scaled elements.  Also one affine element.

b, f, rounding, random: as in codec.py.  A block is whatever `max_of_block` reduces over.
"""

from __future__ import annotations

from numerics.formats.codec import (
    INF,
    MAGNITUDE,
    NAN,
    ONE,
    SIGN,
    TINY,
    count,
    count_up_to,
    decode,
    finish,
    round_bits,
    round_magnitude,
    shift_right,
    value_with_sign,
    with_sign,
)
from numerics.formats.grid import Grid, Range, Scale
from numerics.formats.primitives import (
    Lane,
    Other,
    as_bits,
    as_float,
    divide,
    max_of_block,
    max_of_group,
    max_of_pair,
    maximum,
    minimum,
    sum_of_block,
    where,
)

FLOAT_ONE = 0x3F800000
ONE_AND_A_HALF = 0x3FC00000
LARGEST = 0x7F7FFFFF  # float32's largest number

# ---- OCP MX (1.0 §6.3): one power of two for the block -----------------------------------------


def mx_scale(top: Lane, s: Scale) -> Lane:
    """E8M0 byte from the block's largest magnitude; the rule is a number added to its bits."""
    field = (top + where(top < ONE, s.subnormal_addend, s.addend)) >> 23
    byte = minimum(maximum(field - s.emax, 0), 254)
    return where(top < INF, byte, 255)


def power_of_two(field: Lane) -> Lane:
    """2.0**(field - 127) for 0 <= field <= 254; a negative field gives 2.0**-127."""
    return as_float(maximum(field << 23, TINY))


def mx_quotient(b: Lane, scale: Lane, rounding: str) -> Lane:
    """|x| / 2**(scale - 127), as float32 bits that every rounding takes for the exact quotient."""
    a = b & MAGNITUDE
    y = as_bits(as_float(a) * power_of_two(254 - scale))
    if rounding == "half_even":
        r = y
    else:  # what underflows to 0 must still count as "not 0"
        r = maximum(y, minimum(a, 1))
    return r


def mx_element(b: Lane, scale: Lane, f: Grid, rounding: str, random: Lane) -> Lane:
    """x / 2**(scale - 127) to a code, as if the quotient were exact."""
    code = count(mx_quotient(b, scale, rounding), b, f, rounding, random, None)
    return where(scale == 255, f.nan_block, with_sign(code, b, f))


def mx_bump(y: Lane, b: Lane, f: Grid, s: Scale, rounding: str, random: Lane, low: Lane) -> Lane:
    """1 where an element of the block, its magnitude over the scale y, would round past the largest."""
    n = count_up_to(y, s.past, b, f, rounding, random, low)
    return max_of_block(where(n > where(b < 0, s.least, f.last), 1, 0))


def mx_encode(b: Lane, f: Grid, s: Scale, rounding: str, random: Lane) -> tuple[Lane, Lane]:
    """The block's scale byte and the codes of its elements."""
    scale = mx_scale(max_of_block(b & MAGNITUDE), s)
    if s.past is not None:
        up = mx_bump(mx_quotient(b, scale, rounding), b, f, s, rounding, random, None)
        scale = where(scale < 254, scale + up, scale)
    return scale, mx_element(b, scale, f, rounding, random)


def mx_decode(scale: Lane, code: Lane, f: Grid) -> Lane:
    """Element value times 2**(scale - 127), as float32 bits."""
    r = decode(code, f)
    y = keep_nan(as_bits(as_float(r) * power_of_two(scale)), r, f)
    return where(scale == 255, NAN, y)


def keep_nan(y: Lane, r: Lane, f: Grid) -> Lane:
    """The product y, but an element's NaN as it was: what hardware makes of it differs."""
    if f.has_nan is not None:
        y = where((r & MAGNITUDE) > INF, r, y)
    return y


def mx_round(b: Lane, f: Grid, s: Scale, rounding: str, random: Lane) -> Lane:
    """mx_decode(mx_encode(b))."""
    if rounding == "half_even":
        if f.direct is not None:
            r = mx_round_directly(b, f, s)
        else:
            scale, code = mx_encode(b, f, s, rounding, random)
            r = mx_decode(scale, code, f)
    else:
        scale, code = mx_encode(b, f, s, rounding, random)
        r = mx_decode(scale, code, f)
    return r


def mx_round_directly(b: Lane, f: Grid, s: Scale) -> Lane:
    """Rounds a block without its codes: each element between two exact scalings."""
    a = b & MAGNITUDE
    scale = mx_scale(max_of_block(a), s)
    y = as_bits(as_float(a) * power_of_two(254 - scale))
    r = as_bits(as_float(round_magnitude(minimum(y, f.limit), f)) * power_of_two(scale))
    return where(scale == 255, NAN, value_with_sign(r, b, f))


# ---- a float scale a block and a float32 scale a tensor, as NVFP4 ------------------------------


def scaled_total(scale: Lane, tensor_scale: Lane, g: Grid) -> Lane:
    """Tensor scale times block scale, as float32 bits."""
    return as_bits(as_float(decode(scale, g)) * as_float(tensor_scale))


def scaled_encode(
    b: Lane, tensor_scale: Lane, f: Grid, g: Grid, rule: str, rounding: str, random: Lane
) -> tuple[Lane, Lane]:
    """The block's scale in format g, as the rule says, and the codes of x over both scales.

    f.other: what codes mean instead where the scale has its sign bit set (IF4).
    """
    top = max_of_block(b & MAGNITUDE)
    scale = where(top < INF, scaled_scale(b, tensor_scale, f, g, rule), g.nan)
    total = scaled_total(scale, tensor_scale, g)
    y = scaled_quotient(b & MAGNITUDE, total, rule)
    code = with_sign(count(y, b, f, rounding, random, None), b, f)
    if f.other is not None:
        h: Other = f.other
        counted = with_sign(count(scaled_counts(y, h), b, h, rounding, random, None), b, h)
        less = scaled_error_of_counts(b, total, h, rule) < scaled_error(b, total, f, rule)
        code = where(less, counted, code)
        scale = scale + where(less, 1 << g.sign, 0)  # of a block with Inf or NaN both errors are infinite
    return scale, where(top < INF, code, f.nan_block)


def scaled_scale(b: Lane, tensor_scale: Lane, f: Grid, g: Grid, rule: str) -> Lane:
    """The code of a finite block's scale."""
    wanted = scaled_wanted(max_of_block(b & MAGNITUDE), tensor_scale, f, rule)
    if rule == "ceil":
        scale = finish(count(wanted, wanted, g, "ceil", None, None), wanted, g)
    else:
        scale = scaled_nearest(wanted, g)
    if rule == "mse":
        _, scale = scaled_least_of_sixteen(b, scale - 8, tensor_scale, f, g)
    elif rule == "four_over_six":
        four = scaled_nearest(as_bits(as_float(wanted) * as_float(ONE_AND_A_HALF + (wanted & 0))), g)
        error = scaled_error(b, scaled_total(scale, tensor_scale, g), f, rule)
        scale = where(scaled_error(b, scaled_total(four, tensor_scale, g), f, rule) < error, four, scale)
    elif rule == "four_over_six_mae":
        four = scaled_nearest(as_bits(as_float(wanted) * as_float(ONE_AND_A_HALF + (wanted & 0))), g)
        error = scaled_error(b, scaled_total(scale, tensor_scale, g), f, rule)
        scale = where(scaled_error(b, scaled_total(four, tensor_scale, g), f, rule) < error, four, scale)
    return scale


def scaled_wanted(top: Lane, tensor_scale: Lane, f: Grid, rule: str) -> Lane:
    """The block's scale before it is rounded: its maximum over where elements end and the tensor's scale."""
    if rule == "nvidia":  # by reciprocals, as TransformerEngine multiplies
        one = FLOAT_ONE + (top & 0)
        inverse = minimum(as_bits(divide(as_float(one), as_float(tensor_scale))), LARGEST)
        unit = as_float(inverse) * divide(as_float(one), as_float(f.limit))
        r = as_bits(as_float(top) * unit)
    else:
        r = as_bits(divide(divide(as_float(top), as_float(f.limit)), as_float(tensor_scale)))
    return r


def scaled_nearest(wanted: Lane, g: Grid) -> Lane:
    """That in format g, half to even, saturating."""
    return finish(count(wanted, wanted, g, "half_even", None, None), wanted, g)


def scaled_quotient(a: Lane, total: Lane, rule: str) -> Lane:
    """A magnitude over both scales; under a product of 0 nothing is left (but by `nvidia`'s reciprocal)."""
    divisor = where(total > 0, total, ONE)
    if rule == "nvidia":
        inverse = as_bits(divide(as_float(FLOAT_ONE + (divisor & 0)), as_float(divisor)))
        inverse = where(total > 0, minimum(inverse, LARGEST), LARGEST)
        y = as_bits(as_float(a) * as_float(inverse))
    else:
        y = where(total > 0, as_bits(divide(as_float(a), as_float(divisor))), 0)
    return y


def scaled_error(b: Lane, total: Lane, f: Grid, rule: str) -> Lane:
    """The error of a block under both scales' product, elements rounded half to even, as float32 bits.

    The sum, in halves, of (value - x)**2, or of its magnitudes where the rule says so; Inf for NaN.
    """
    y = scaled_quotient(b & MAGNITUDE, total, rule)
    code = with_sign(count(y, b, f, "half_even", None, None), b, f)
    off = as_float(decode(code, f)) * as_float(total) - as_float(b)
    if rule == "four_over_six_mae":
        r = sum_of_block(as_float(as_bits(off) & MAGNITUDE))
    else:
        r = sum_of_block(off * off)
    return minimum(as_bits(r) & MAGNITUDE, INF)


def scaled_counts(y: Lane, h: Grid) -> Lane:
    """A quotient of magnitudes in counts of a block's other reading: one float32 product."""
    return as_bits(as_float(y) * as_float(h.inverse + (y & 0)))


def scaled_worth(code: Lane, h: Grid) -> Lane:
    """The element that a code of the other reading means: counts times what one is worth."""
    return as_bits(as_float(decode(code, h)) * as_float(h.step + (code & 0)))


def scaled_error_of_counts(b: Lane, total: Lane, h: Grid, rule: str) -> Lane:
    """As `scaled_error`, of a block's other reading, in squares."""
    y = scaled_counts(scaled_quotient(b & MAGNITUDE, total, rule), h)
    code = with_sign(count(y, b, h, "half_even", None, None), b, h)
    off = as_float(scaled_worth(code, h)) * as_float(total) - as_float(b)
    return minimum(as_bits(sum_of_block(off * off)) & MAGNITUDE, INF)


def scaled_least_error(b: Lane, scale: Lane, tensor_scale: Lane, f: Grid, g: Grid) -> Lane:
    """The least square error under a code of the scale, of both readings where there are two."""
    total = scaled_total(scale, tensor_scale, g)
    error = scaled_error(b, total, f, "mse")
    if f.other is not None:
        h: Other = f.other
        error = minimum(error, scaled_error_of_counts(b, total, h, "mse"))
    return error


def scaled_least_of_two(b: Lane, first: Lane, tensor_scale: Lane, f: Grid, g: Grid) -> tuple[Lane, Lane]:
    """The least square error under a code of the scale and the next, and that code; at a tie the first."""
    low, high = minimum(maximum(first, 0), g.last), minimum(maximum(first + 1, 0), g.last)
    error = scaled_least_error(b, low, tensor_scale, f, g)
    other = scaled_least_error(b, high, tensor_scale, f, g)
    return minimum(error, other), where(other < error, high, low)


def scaled_least_of_four(b: Lane, first: Lane, tensor_scale: Lane, f: Grid, g: Grid) -> tuple[Lane, Lane]:
    """The same of four codes in a row."""
    error, low = scaled_least_of_two(b, first, tensor_scale, f, g)
    other, high = scaled_least_of_two(b, first + 2, tensor_scale, f, g)
    return minimum(error, other), where(other < error, high, low)


def scaled_least_of_eight(b: Lane, first: Lane, tensor_scale: Lane, f: Grid, g: Grid) -> tuple[Lane, Lane]:
    """The same of eight."""
    error, low = scaled_least_of_four(b, first, tensor_scale, f, g)
    other, high = scaled_least_of_four(b, first + 4, tensor_scale, f, g)
    return minimum(error, other), where(other < error, high, low)


def scaled_least_of_sixteen(b: Lane, first: Lane, tensor_scale: Lane, f: Grid, g: Grid) -> tuple[Lane, Lane]:
    """The same of sixteen: with three digits of a scale, from half of the ninth to twice it."""
    error, low = scaled_least_of_eight(b, first, tensor_scale, f, g)
    other, high = scaled_least_of_eight(b, first + 8, tensor_scale, f, g)
    return minimum(error, other), where(other < error, high, low)


def scaled_decode(scale: Lane, code: Lane, tensor_scale: Lane, f: Grid, g: Grid) -> Lane:
    """Element value times both scales, as float32 bits."""
    r = decode(code, f)
    if f.other is not None:  # the scale's sign says how codes are read
        h: Other = f.other
        r = where((scale >> g.sign) == 1, scaled_worth(code, h), r)
        scale = scale & ((1 << g.sign) - 1)
    total = scaled_total(scale, tensor_scale, g)
    y = keep_nan(as_bits(as_float(r) * as_float(total)), r, f)
    return where((total & MAGNITUDE) > INF, NAN, y)


def scaled_round(
    b: Lane, tensor_scale: Lane, f: Grid, g: Grid, rule: str, rounding: str, random: Lane
) -> Lane:
    """scaled_decode(scaled_encode(b))."""
    scale, code = scaled_encode(b, tensor_scale, f, g, rule, rounding, random)
    return scaled_decode(scale, code, tensor_scale, f, g)


# ---- shared microexponents (arXiv 2302.08007 §3): mx4, mx6, mx9 --------------------------------


def micro_fields(a: Lane) -> tuple[Lane, Lane]:
    """Exponent field of the block, and 1 where a whole sub-block lies below it; 0 in a NaN block."""
    exponent = max_of_block(a) >> 23
    below = where(exponent == 255, 0, exponent)
    return exponent, where((max_of_group(a) >> 23) < below, 1, 0)


def micro_taken(b: Lane, exponent: Lane) -> Lane:
    """The bits that take part: +0 for magnitudes below 2**-126 and -0, and for all of a NaN block."""
    return where((b & MAGNITUDE) > where(exponent == 255, MAGNITUDE, ONE - 1), b, 0)


def micro_element(b: Lane, exponent: Lane, shift: Lane, m: Lane, rounding: str, random: Lane) -> Lane:
    """x over its sub-block's step to sign and m-bit magnitude; a round-up past the top saturates."""
    taken = micro_taken(b, exponent)
    a = taken & MAGNITUDE
    if rounding == "half_even":
        one = (151 - m - shift) << 23  # the power of two whose last place is a count of 1
        n = as_bits(as_float(a) * power_of_two(254 - exponent) + as_float(one)) - one
    else:
        e = maximum(a >> 23, 1)
        n = shift_right(a - ((e - 1) << 23), exponent - shift - e + (24 - m), 0, b, rounding, random, None)
    return minimum(n, (1 << m) - 1) | ((taken >> (31 - m)) & (1 << m))


def micro_encode(b: Lane, m: Lane, rounding: str, random: Lane) -> tuple[Lane, Lane, Lane]:
    """Exponent field, microexponent and code; a block with Inf or NaN is (255, 0, 0)."""
    exponent, shift = micro_fields(b & MAGNITUDE)
    return exponent, shift, micro_element(b, exponent, shift, m, rounding, random)


def micro_decode(exponent: Lane, shift: Lane, code: Lane, m: Lane) -> Lane:
    """Sign and magnitude times the step, as float32 bits."""
    one = (151 - m - shift) << 23
    n = code & ((1 << m) - 1)
    value = as_bits((as_float(n + one) - as_float(one)) * power_of_two(exponent))
    return where(exponent == 255, NAN, value | ((code >> m) << 31))


def micro_round(b: Lane, m: Lane, rounding: str, random: Lane) -> Lane:
    """micro_decode(micro_encode(b))."""
    if rounding == "half_even":
        r = micro_round_directly(b, m)
    else:
        exponent, shift, code = micro_encode(b, m, rounding, random)
        r = micro_decode(exponent, shift, code, m)
    return r


def micro_round_directly(b: Lane, m: Lane) -> Lane:
    """Rounds a block without its codes: the count of steps stays planted under its power of two."""
    exponent, shift = micro_fields(b & MAGNITUDE)
    taken = micro_taken(b, exponent)
    one = (151 - m - shift) << 23
    n = as_bits(as_float(taken & MAGNITUDE) * power_of_two(254 - exponent) + as_float(one))
    n = minimum(n, one + ((1 << m) - 1))
    r = as_bits((as_float(n) - as_float(one)) * power_of_two(exponent))
    return where(exponent == 255, NAN, r | (taken & SIGN))


# ---- microexponents in two tiers under a scale of three digits (arXiv 2602.11287): HiFloat4 --------

SEVENTH = 0x3E120000  # 1/7, rounded to bfloat16
LEAST = 316  # 2**-48 without float32's last 21 digits: the scale of code 0
LAST = 254  # code of the largest scale, 1.5 * 2**15; the next one means NaN
BELOW_TWO = 0x3FFFFFFF
BELOW_FOUR = 0x407FFFFF


def nearest_bfloat16(b: Lane) -> Lane:
    """A magnitude rounded to bfloat16, half to even."""
    return shift_right(b, 16, 0, b, "half_even", None, None) << 16


def tiered_scale(top: Lane) -> Lane:
    """The scale's code from the block's largest magnitude: a seventh of it, to bfloat16, then to E6M2."""
    t = nearest_bfloat16(as_bits(as_float(top) * as_float(SEVENTH + (top & 0))))
    code = shift_right(t, 21, 0, t, "half_even", None, None) - LEAST
    return where(top < INF, minimum(maximum(code, 0), LAST), LAST + 1)


def tiered_unit(scale: Lane) -> Lane:
    """The scale, as float32 bits; of the code that means NaN some number."""
    return (minimum(scale, LAST) + LEAST) << 21


def tiered_fields(a: Lane) -> tuple[Lane, Lane, Lane, Lane]:
    """The scale, the microexponents of pairs and of sub-blocks, and magnitudes over the scale.

    A magnitude is multiplied by the reciprocal of the scale, which is rounded to bfloat16.
    """
    scale = tiered_scale(max_of_block(a))
    one = FLOAT_ONE + (scale & 0)
    inverse = nearest_bfloat16(as_bits(divide(as_float(one), as_float(tiered_unit(scale)))))
    y = where(scale > LAST, 0, as_bits(as_float(a) * as_float(inverse)))
    upper = where(max_of_pair(y) > BELOW_FOUR, 1, 0)
    lower = where(max_of_group(y) > where(upper == 1, BELOW_FOUR, BELOW_TWO), 1, 0)
    return scale, upper, lower, y


def tiered_counts(y: Lane, up: Lane, m: Lane) -> Lane:
    """A magnitude over its scale and 2**up, in steps of m-bit magnitudes."""
    return as_bits(as_float(y) * power_of_two((126 + m) - up))


def tiered_encode(b: Lane, m: Lane, f: Grid, rounding: str, random: Lane) -> tuple[Lane, Lane, Lane, Lane]:
    """Scale, both microexponents and code; a block with Inf or NaN is (255, 0, 0, 0)."""
    scale, upper, lower, y = tiered_fields(b & MAGNITUDE)
    counts = tiered_counts(y, upper + lower, m)
    code = with_sign(count(counts, b, f, rounding, random, None), b, f)
    return scale, upper, lower, where(scale > LAST, 0, code)


def tiered_decode(scale: Lane, up: Lane, code: Lane, m: Lane) -> Lane:
    """Sign and magnitude times the scale and 2**up, as float32 bits; all of it is exact."""
    one = ((151 - m) + up) << 23
    n = code & ((1 << m) - 1)
    value = as_bits((as_float(n + one) - as_float(one)) * as_float(tiered_unit(scale)))
    return where(scale > LAST, NAN, value | ((code >> m) << 31))


def tiered_round(b: Lane, m: Lane, f: Grid, rounding: str, random: Lane) -> Lane:
    """tiered_decode(tiered_encode(b))."""
    scale, upper, lower, code = tiered_encode(b, m, f, rounding, random)
    return tiered_decode(scale, upper + lower, code, m)


# ---- a scale and a zero point (docs/formats.md §6) ---------------------------------------------

MAGIC = 0x4B000000  # 2**23: the last place of its binade is 1
WHOLE = 0x47800000  # 2**16


def quotient(b: Lane, scale: Lane) -> Lane:
    """x / scale as float32 bits; a division, since a product with the reciprocal differs."""
    return as_bits(divide(as_float(b & MAGNITUDE), as_float(scale))) | (b & SIGN)


def scaled_code(b: Lane, scale: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """x / scale to a code: floats, and integers without a zero point."""
    y = quotient(b, scale)
    return finish(count(y & MAGNITUDE, y, f, rounding, random, low), y, f)


def scaled_rounded(b: Lane, scale: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """scaled_value(scaled_code(b)), as float32 bits."""
    r = round_bits(quotient(b, scale), f, rounding, random, low)
    return keep_nan(as_bits(as_float(r) * as_float(scale)), r, f)


def scaled_value(code: Lane, scale: Lane, f: Grid) -> Lane:
    """The code's value times the scale, as float32 bits."""
    r = decode(code, f)
    return keep_nan(as_bits(as_float(r) * as_float(scale)), r, f)


def affine_code(
    b: Lane, scale: Lane, zero: Lane, f: Grid, q: Range, rounding: str, random: Lane, low: Lane
) -> Lane:
    """clamp(round(x / scale) + zero) for an integer zero point inside the range; NaN counts as 0."""
    y = quotient(b, scale)
    a = y & MAGNITUDE
    room = float_of(where(y < 0, zero - q.low, q.high - zero))
    n = count_up_to(a, room, y, f, rounding, random, low)
    n = where(a > INF, 0, n)
    return (zero + where(y < 0, 0 - n, n)) & q.mask


def affine_value(code: Lane, scale: Lane, zero: Lane, q: Range) -> Lane:
    """(q - zero) * scale for any int32 as zero point; 0 * scale has the sign of the scale, whichever."""
    return offset_value(code, scale, float_of_any(zero), q)


def affine_value_within(code: Lane, scale: Lane, zero: Lane, q: Range) -> Lane:
    """affine_value for a zero point inside the range, as affine_code takes it: fewer steps an element."""
    n = signed(code, q) - zero
    a = float_of(where(n < 0, 0 - n, n)) | where(n < 0, SIGN, 0)
    return as_bits(as_float(a) * as_float(scale))


def offset_code(b: Lane, scale: Lane, zero: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """clamp(round(x / scale + zero)) for a float zero point; NaN counts as 0."""
    y = as_bits(as_float(quotient(b, scale)) + as_float(zero))
    y = where((b & MAGNITUDE) > INF, zero, y)
    return finish(count(y & MAGNITUDE, y, f, rounding, random, low), y, f)


def offset_value(code: Lane, scale: Lane, zero: Lane, q: Range) -> Lane:
    """(q - zero) * scale for a float zero point, as float32 bits."""
    n = signed(code, q)
    a = float_of(where(n < 0, 0 - n, n)) | where(n < 0, SIGN, 0)
    return as_bits((as_float(a) - as_float(zero)) * as_float(scale))


def signed(code: Lane, q: Range) -> Lane:
    """The integer that a code means."""
    return code - where(code > q.high, q.mask + 1, 0)


def float_of(n: Lane) -> Lane:
    """An integer, 0 <= n < 2**23, as float32 bits."""
    return as_bits(as_float(n + MAGIC) - as_float(MAGIC + (n & 0)))


def float_of_any(n: Lane) -> Lane:
    """Any int32 as float32 bits, half to even: both halves are exact, and their sum is rounded once."""
    high = as_float(float_of((n >> 16) & 0xFFFF)) - as_float(where(n < 0, WHOLE, 0))
    return as_bits(high * as_float(WHOLE + (n & 0)) + as_float(float_of(n & 0xFFFF)))
