"""One element: round, encode, decode.  Whatever rounds a number to an element does it here.

But for ties of codebooks, which grid.py decides when it makes their table, and the half to even of
microexponents, which scaling.py does at once.

b        a float32 given by its bits (int32 lane); a: the same without the sign
code     the format's code in the low bits of an int32 lane
f        a Grid (grid.py): emin, drop, limit ... as Python ints or as run-time lanes
rounding a name from rounding.py, always static
random   int32 lane of which the low 30 bits are used, or None
low      what a wider input has below the last place of b: a 30-bit fraction of it, or None; given for
         float64 under stochastic rounding alone, which comes rounded to odd else (host/float_bits.py)

The rules this file obeys, and why, are in docs/dialect.md; tests/laws/test_dialect.py holds it
to them.
"""

from __future__ import annotations

from numerics.formats.grid import Grid
from numerics.formats.primitives import (
    Lane,
    Table,
    as_bits,
    as_float,
    divide,
    entry,
    maximum,
    minimum,
    places_up_to,
    where,
)

SIGN = -0x80000000
MAGNITUDE = 0x7FFFFFFF
INF = 0x7F800000
NAN = 0x7FC00000
ONE = 0x00800000  # one unit of float32's exponent field; also the hidden bit
TINY = 0x00400000  # 2**-127, the smallest power of two that is an E8M0 scale
LIFT = 0x4F800000  # 2**32: it makes every float32 subnormal normal
LOW = 0x3FFFFFFF  # the bits of `low`


def encode(b: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """Float32 bits to code."""
    return finish(count(b & MAGNITUDE, b, f, rounding, random, low), b, f)


def count(a: Lane, b: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """Magnitude to the code of the magnitude; b gives the sign that some roundings look at."""
    limit = f.limit
    if f.negative_limit is not None:
        limit = where(b < 0, f.negative_limit, f.limit)
    return count_up_to(a, limit, b, f, rounding, random, low)


def count_up_to(a: Lane, limit: Lane, b: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """As `count` under another limit, the magnitude bits of a step of the grid: no draw passes it."""
    if f.steps is not None:  # a codebook: its ends are its limits
        code = listed_code(a, b, f, rounding, random)
    else:
        code = count_to_limit(a, limit, b, f, rounding, random, low)
    return code


def count_to_limit(a: Lane, limit: Lane, b: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """As `count_up_to`, of a format with a step in every binade."""
    c = minimum(a, limit)
    if low is not None:  # what is cut off at the limit has nothing below it
        low = where(a < limit, low, 0)
    if f.lowest is not None:
        code = count_powers(c, b, f, rounding, random, low)
    elif f.prefix is not None:  # the format is float32 cut short: its bits are the digits
        code = shift_right(c, f.drop, 0, b, rounding, random, low)
    elif rounding == "half_even":
        if f.adder is not None:
            code = count_by_adder(c, f)
        else:
            code = count_by_shift(c, b, f, rounding, random, low)
    else:
        code = count_by_shift(c, b, f, rounding, random, low)
    return code


def magic(c: Lane, f: Grid) -> Lane:
    """Bits of the power of two whose last place is one step of the grid at c."""
    return maximum(c & INF, f.emin << 23) + (f.drop << 23)


def count_by_adder(c: Lane, f: Grid) -> Lane:
    """Half to even: one float32 sum rounds subnormals and normals alike and carries upward."""
    m = magic(c, f)
    steps = as_bits(as_float(c) + as_float(m)) - m
    return steps + ((m >> f.drop) - ((f.emin + f.drop) << (23 - f.drop)))


def count_by_shift(c: Lane, b: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """Every rounding, in integers: the significand over the step of its binade."""
    e = maximum(c >> 23, 1)
    digits = c - ((e - 1) << 23)
    if f.deep is not None:
        missing = missing_digits(c)
        e = e - missing
        digits = digits << missing
        if low is not None:
            digits = digits + (low >> (30 - missing))
            low = (low << missing) & LOW
        c = digits + ((e - 1) << 23)
    step = maximum(e, f.emin)
    base = (step - f.emin) << (23 - f.drop)
    code = base + shift_right(digits, step - e + f.drop, base, b, rounding, random, low)
    if f.flush is not None:  # no subnormals: below the smallest normal there is only zero
        ones = shift_right(digits, maximum(f.emin - e + 23, 1), 0, b, rounding, random, low)
        code = where(c < (f.emin << 23), ones << (23 - f.drop), code)
    return code


def count_powers(c: Lane, b: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """A format of powers of two without a zero: the exponent field, rounded, is the code."""
    if low is not None:  # what is raised to the smallest has nothing below it
        low = where(c < f.lowest, 0, low)
    c = maximum(c, f.lowest)
    if f.deep is not None:
        missing = missing_digits(c)
        if low is not None:
            c = where(c < ONE, (c << missing) + (low >> (30 - missing)), c)
            low = (low << missing) & LOW
        else:
            c = c << missing
        c = c - (missing << 23)
    elif low is not None:
        spread = ((c - TINY) << 1) + (low >> 29)
        low = where(c < ONE, (low << 1) & LOW, low)
        c = where(c < ONE, spread, c)
    else:
        c = where(c < ONE, (c - TINY) << 1, c)
    return shift_right(c - (f.emin << 23), 23, 0, b, rounding, random, low)


def missing_digits(c: Lane) -> Lane:
    """How far the digits of a float32 subnormal are from their place: 1 .. 23; 0 for other magnitudes."""
    lifted = as_bits(as_float(minimum(c, ONE)) * as_float(LIFT + (c & 0)))
    return minimum(33 - (lifted >> 23), 23)


def shift_right(n: Lane, shift: Lane, base: Lane, b: Lane, rounding: str, random: Lane, low: Lane) -> Lane:
    """n / 2**shift to an integer, 0 <= n < 2**31, shift >= 1: an addend below one step, then >>.

    base is what the quotient will be added to: its last bit takes part in what "even" means.
    """
    s = minimum(shift, 30)
    rest = (1 << s) - 1
    half = 1 << (s - 1)
    odd = ((n >> s) + base) & 1
    if rounding == "half_even":
        add = half - 1 + odd
    elif rounding == "half_away":
        add = half
    elif rounding == "half_up":
        add = half - where(b < 0, 1, 0)
    elif rounding == "half_down":
        add = half - where(b < 0, 0, 1)
    elif rounding == "floor":
        add = where(b < 0, rest, 0)
    elif rounding == "ceil":
        add = where(b < 0, 0, rest)
    elif rounding == "to_odd":
        add = where(odd == 0, rest, 0)
    elif rounding == "stochastic":  # up when fraction + random / 2**30 >= 1
        n = n >> minimum(shift - s, 31)
        r = random & 0x3FFFFFFF
        add = r >> (30 - s)
        if low is not None:
            add = add + (((low >> s) + (r & ((1 << (30 - s)) - 1))) >> (30 - s))
    else:  # toward_zero
        add = 0
    return (n + add) >> s


# ---- codebooks: a list of values (docs/formats.md §12) -----------------------------------------------


def listed_code(a: Lane, b: Lane, f: Grid, rounding: str, random: Lane) -> Lane:
    """The code of the magnitude a under the sign of b; a key rises as numbers do, and -0.0 has its own."""
    steps: Table = f.steps
    codes: Table = f.codes
    key = where(b < 0, -1 - a, a)
    if rounding == "stochastic":
        place = drawn_place(a | (b & SIGN), places_up_to(steps, key), f, random)
        code = entry(codes, place)
    else:
        code = code_of_key(steps, codes, key, a, b)
    return code


def code_of_key(steps: Table, codes: Table, key: Lane, a: Lane, b: Lane) -> Lane:
    """The code of the place where a key lies: of the float32 of magnitude a, and of the sign of b."""
    return entry(codes, places_up_to(steps, key))


def drawn_place(b: Lane, place: Lane, f: Grid, random: Lane) -> Lane:
    """The place of the neighbour nearer to zero, or one further when fraction + random / 2**30 >= 1.

    The fraction is the float32 quotient of two float32 differences, down to its 30th digit.
    """
    heights: Table = f.heights
    near = entry(heights, place)
    apart = as_bits(as_float(b) - as_float(near))
    further = place + where(apart < 0, -1, where(apart > 0, 1, 0))
    further = minimum(maximum(further, 0), f.last)
    step = as_bits(as_float(entry(heights, further)) - as_float(near)) & MAGNITUDE
    q = as_bits(divide(as_float(apart & MAGNITUDE), as_float(where(step > 0, step, INF))))
    e = q >> 23
    digits = (q & (ONE - 1)) | ONE
    n = where(e < 120, digits >> minimum(maximum(120 - e, 0), 31), digits << minimum(maximum(e - 120, 0), 7))
    return where(n + (random & LOW) > LOW, further, place)


def finish(code: Lane, b: Lane, f: Grid) -> Lane:
    """Infinity, NaN and sign."""
    a = b & MAGNITUDE
    if f.overflow is not None:
        code = where(a == INF, f.overflow, code)
    if f.inherit is not None:  # NaN keeps its sign
        code = with_sign(where(a > INF, f.nan, code), b, f)
    else:
        code = where(a > INF, f.nan, with_sign(code, b, f))
    return code


def with_sign(code: Lane, b: Lane, f: Grid) -> Lane:
    """The code of a magnitude under the sign of b, as the format writes signs; a codebook's says it."""
    if f.steps is not None:
        r = code
    else:
        r = signed_code(code, b, f)
    return r


def signed_code(code: Lane, b: Lane, f: Grid) -> Lane:
    """As `with_sign`, of a format whose codes are a magnitude's and a sign."""
    if f.negative is not None:  # unsigned: what is below zero becomes this
        code = where(b < 0, where(code > 0, f.negative, code), code)
        if f.lowest is not None:  # and there is no zero either
            code = where(b < 1, f.negative, code)
    elif f.wrap is not None:  # two's complement
        code = where(b < 0, 0 - code, code) & f.wrap
    else:
        sign = (b >> (31 - f.sign)) & (1 << f.sign)
        if f.nan_code is not None:  # the code of -0 means NaN, so zero has no sign
            code = where(code == 0, 0, code | sign)
        else:
            code = code | sign
    return code


def decode(code: Lane, f: Grid) -> Lane:
    """Code to float32 bits."""
    if f.values is not None:
        values: Table = f.values
        r = entry(values, code)
    elif f.negative is not None:
        r = magnitude_bits(code, code, f)
    elif f.wrap is not None:
        negative = (code >> f.sign) & 1
        r = magnitude_bits(where(negative == 1, f.wrap + 1 - code, code), code, f) | (negative << 31)
    else:
        r = magnitude_bits(code & ((1 << f.sign) - 1), code, f) | ((code >> f.sign) << 31)
        if f.nan_code is not None:  # it stands where -0 would, and has no sign
            r = where(code == f.nan_code, NAN, r)
    return r


def magnitude_bits(magnitude: Lane, code: Lane, f: Grid) -> Lane:
    """The magnitude's float32 bits; NaN for the codes that mean it."""
    if f.deep is not None:
        r = deep_bits(magnitude, f)
    elif f.lowest is not None:
        r = maximum((magnitude + f.emin) << 23, TINY)
    else:
        base = f.emin << 23
        bits = magnitude << f.drop
        if f.prefix is not None:
            subnormal = bits
        elif f.flush is not None:
            subnormal = bits & 0
        else:  # plant the digits under a power of two, then take it away
            subnormal = as_bits(as_float(bits + base) - as_float(base))
        r = where(bits < ONE, subnormal, bits + (base - ONE))
    if f.has_nan is not None:
        r = where(magnitude > f.last, NAN, r)
    if f.inf is not None:
        r = where(magnitude == f.inf, INF, r)
    return r


def deep_bits(magnitude: Lane, f: Grid) -> Lane:
    """The magnitude's bits where the format's normal numbers begin among float32's subnormals."""
    if f.lowest is not None:
        field = magnitude + f.emin
        bits = ONE + (field << 23)
        digits = ONE
    else:
        bits = magnitude << f.drop
        e = maximum(bits >> 23, 1)
        digits = bits - ((e - 1) << 23)
        if f.flush is not None:
            digits = where(bits < ONE, 0, digits)
        field = e + f.emin - 1
        bits = bits + (f.emin << 23)
    return where(field > 0, bits - ONE, digits >> minimum(maximum(1 - field, 0), 31))


def round_bits(b: Lane, f: Grid, rounding: str, random: Lane, low: Lane) -> Lane:
    """decode(encode(b)): the nearest value of the format, as float32 bits."""
    if rounding == "half_even":
        if f.direct is not None:
            r = round_directly(b, f)
        else:
            r = decode(encode(b, f, rounding, random, low), f)
    else:
        r = decode(encode(b, f, rounding, random, low), f)
    return r


def round_directly(b: Lane, f: Grid) -> Lane:
    """The nearest value without its code, where clamping says all about overflow."""
    a = b & MAGNITUDE
    if f.negative_limit is not None:
        r = round_magnitude(minimum(a, where(b < 0, f.negative_limit, f.limit)), f)
    else:
        r = round_magnitude(minimum(a, f.limit), f)
    if f.inherit is not None:
        r = where(a > INF, NAN, r) | (b & SIGN)
    elif f.wrap is not None:
        r = where(a > INF, 0, value_with_sign(r, b, f))
    elif f.has_nan is not None:
        r = where(a > INF, NAN, value_with_sign(r, b, f))
    else:  # a NaN was clamped to the largest; it has no sign
        r = r | where(a > INF, 0, b & SIGN)
    return r


def round_magnitude(c: Lane, f: Grid) -> Lane:
    """A magnitude to the grid, half to even."""
    if f.prefix is not None:
        r = shift_right(c, f.drop, 0, c, "half_even", None, None) << f.drop
    else:
        m = as_float(magic(c, f))
        r = as_bits((as_float(c) + m) - m)
    return r


def value_with_sign(r: Lane, b: Lane, f: Grid) -> Lane:
    """Magnitude bits under the sign of b; a zero without sign where the format has no other."""
    signed = r | (b & SIGN)
    if f.bare_zero is not None:
        signed = where(r == 0, 0, signed)
    return signed
