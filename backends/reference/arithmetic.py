"""IEEE P3109's operations by fractions: each exact, then rounded once (docs/formats.md §12)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from numerics.backends.reference.exact import Exact, encode, is_finite, nan_code, value
from numerics.formats.codebook import Codebook


def operate(operation: str, dtype: Codebook, codes: Sequence[int], to: Codebook, how: tuple[str, str]) -> int:
    """The code of one result, or 0 or 1 for a comparison.

    to: the format of the result.  how: the rounding and the overflow policy; "propagate" among them.

    >>> from numerics.formats import p3109
    >>> d = p3109(8, 4)
    >>> operate("add", d, [64, 64], d, ("half_even", "saturate")), operate("less", d, [0, 64], d, ("", ""))
    (72, 1)
    """
    if operation.startswith("next_"):
        return neighbour(codes[0], dtype, operation == "next_up")
    operands = [value(code, dtype) for code in codes]
    if operation in COMPARISONS:
        return int(all(x == x for x in operands) and COMPARISONS[operation](*operands))
    found = result(operation, operands)
    rounding, overflow = how
    if overflow == "propagate" and not is_finite(found) and found in to.listed:
        return to.listed.index(float(found))
    return encode(found, to, rounding, "saturate" if overflow == "propagate" else overflow)


def neighbour(code: int, dtype: Codebook, up: bool) -> int:
    """The code of the next value, infinities among them; NaN where there is none, and of NaN."""
    x = dtype.listed[code]
    further = [v for v in dtype.listed if (v > x if up else v < x)]
    if not further:
        return nan_code(dtype)
    return dtype.listed.index(min(further) if up else max(further))


def result(operation: str, operands: Sequence[Exact]) -> Exact:
    """What the numbers give, exactly; a zero has no sign."""
    if operation in CHOICES:
        return CHOICES[operation](*operands)
    if any(x != x for x in operands):
        return math.nan
    return ARITHMETIC[operation](*operands)


def total(*terms: Exact) -> Exact:
    """The sum; of infinities of both signs NaN."""
    infinite = {x for x in terms if not is_finite(x)}
    if infinite:
        return infinite.pop() if len(infinite) == 1 else math.nan
    return sum((Fraction(x) for x in terms), Fraction(0))


def times(x: Exact, y: Exact) -> Exact:
    """The product; of zero and an infinity NaN."""
    if is_finite(x) and is_finite(y):
        return Fraction(x) * Fraction(y)
    if x == 0 or y == 0:
        return math.nan
    return math.inf if (x > 0) == (y > 0) else -math.inf


def recip(x: Exact) -> Exact:
    """One over x; of zero NaN, of infinities zero."""
    if not is_finite(x):
        return Fraction(0)
    return math.nan if x == 0 else 1 / Fraction(x)


def fma(x: Exact, y: Exact, z: Exact) -> Exact:
    """x * y + z; NaN where the product is none."""
    product = times(x, y)
    return product if product != product else total(product, z)


def magnitude_of(x: Exact) -> Exact:
    """|x|, of infinities too."""
    return -x if x < 0 else x


ARITHMETIC: dict[str, Callable[..., Exact]] = {
    "convert": lambda x: x, "negate": lambda x: -x, "abs": magnitude_of, "recip": recip,
    "add": total, "subtract": lambda x, y: total(x, -y), "multiply": times, "fma": fma, "faa": total,
}  # fmt: skip
"""What gives NaN for NaN."""


def least(x: Exact, y: Exact) -> Exact:
    """The smaller of two numbers."""
    return x if x < y else y


def largest(x: Exact, y: Exact) -> Exact:
    """The larger of two numbers."""
    return y if x < y else x


Choice = Callable[[Exact, Exact], Exact]


def of_numbers(choose: Choice) -> Choice:
    """Takes the other one for NaN."""
    return lambda x, y: y if x != x else x if y != y else choose(x, y)


def with_nan(choose: Choice) -> Choice:
    """Gives NaN for NaN."""
    return lambda x, y: math.nan if x != x or y != y else choose(x, y)


def by_magnitude(choose: Choice) -> Choice:
    """Compares magnitudes, and numbers only where those are equal."""

    def chosen(x: Exact, y: Exact) -> Exact:
        a, b = magnitude_of(x), magnitude_of(y)
        return choose(x, y) if a == b else x if choose(a, b) == a else y

    return chosen


def of_finite(choose: Choice) -> Choice:
    """Takes the finite one where only one is."""

    def chosen(x: Exact, y: Exact) -> Exact:
        return choose(x, y) if is_finite(x) == is_finite(y) else x if is_finite(x) else y

    return chosen


def same(choose: Choice) -> Choice:
    """As it is."""
    return choose


KINDS: tuple[tuple[str, Callable[[Choice], Choice], Callable[[Choice], Choice]], ...] = (
    ("", with_nan, same),
    ("_number", of_numbers, same),
    ("_magnitude", with_nan, by_magnitude),
    ("_magnitude_number", of_numbers, by_magnitude),
    ("_finite", of_numbers, of_finite),
)
"""What a name ends with, what becomes of NaN, and how two numbers are compared."""

CHOICES: dict[str, Choice] = {
    f"{name}{what}": kind(how(choose))
    for name, choose in (("minimum", least), ("maximum", largest))
    for what, kind, how in KINDS
}
"""The ten minima and maxima."""

COMPARISONS: dict[str, Callable[[Exact, Exact], bool]] = {
    "less": lambda x, y: x < y, "less_equal": lambda x, y: x <= y, "equal": lambda x, y: x == y,
    "greater": lambda x, y: x > y, "greater_equal": lambda x, y: x >= y,
}  # fmt: skip
"""Of NaN each is false."""
