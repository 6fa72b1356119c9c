"""The formats of IEEE P3109 (interim report 4.0), made by one rule: bits, precision, sign, domain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextvars import ContextVar
from math import inf, ldexp, nan

from numerics.formats.arguments import keywords
from numerics.formats.codebook import Codebook
from numerics.formats.codebooks import book_of
from numerics.formats.dtype import FAMILIES, Float, Specials
from numerics.formats.errors import NumericsError, integer, said, truth
from numerics.formats.p3109_names import numbers_of

__all__ = ["p3109"]

SOURCE = "IEEE P3109, report 4.0"
WIDTHS = (3, 15)
"""Bits of a code, the least and the most that the report has."""
LISTED = 8
"""Bits up to which a format lists its values, so that `operate` computes by tables; wider ones are floats."""
BEGUN = re.compile(r"binary(\d{1,3})(?=p)")
"""How a name of the report begins."""
EXPONENTS = 8
"""Exponent bits of float32, which holds every value here."""
_making: ContextVar[bool] = ContextVar("numerics_making_p3109", default=False)
"""Is a format of the family being made?  Only then is one declared under such a name."""


@keywords
def p3109(bits: int, precision: int, *, signed: bool = True, extended: bool = True) -> Codebook | Float:
    """Returns a format of IEEE P3109, such as Binary8p3se: `p3109(8, 3)`.

    bits: of a code, K in the report, 3 to 15.  Up to 8 it is a codebook, with which nx.operate computes;
        above a float of uint16 codes.
    precision: of the significand with its hidden bit, P in the report: 1 to bits - 1; to bits without a sign.
        At least bits - 8 (bits - 7 without a sign): below that values lie beyond float32.
    signed: True (s in the name): the sign is the highest bit, and NaN stands in the place of -0.  False (u):
        NaN is the highest code.
    extended: True (e): there are infinities.  False (f): every code but NaN is a number.

    Its roundings are those of every format: half_even (NearestTiesToEven; at precision 1 a tie goes to the
    even code), half_away, toward_zero, floor, ceil, to_odd, and stochastic with 30 bits.
    overflow="saturate" is its SatFinite, "nonsaturate" its SatNone.  Raises NumericsError for numbers out of
    range.  docs/formats.md §12.

    >>> p3109(8, 4), p3109(8, 4).max, p3109(8, 4).encode([1.0, -0.0, float("inf")])
    (binary8p4se, 224.0, [64, 0, 126])
    >>> p3109(12, 5, signed=False, extended=False), p3109(12, 5).encode([1.0, float("nan")])
    (binary12p5uf, [1024, 2048])
    """
    bits, precision = integer("bits", bits), integer("precision", precision)
    signed, extended = truth("signed", signed), truth("extended", extended)
    least, most = WIDTHS
    if not least <= bits <= most:
        raise NumericsError(f"bits={said(bits)} is outside {least} .. {most}")
    if not 1 <= precision <= bits - signed:
        raise NumericsError(f"precision={said(precision)} is outside 1 .. {bits - signed}, for {bits} bits")
    exponent = bits - precision + (not signed)
    if exponent > EXPONENTS:
        raise NumericsError(
            f"precision={said(precision)} of {bits} bits leaves {exponent} for the exponent, whose values "
            f"float32 cannot hold; allowed: {bits - EXPONENTS + (not signed)} .. {bits - signed}"
        )
    name = f"binary{bits}p{precision}{'s' if signed else 'u'}{'e' if extended else 'f'}"
    before = _making.set(True)
    try:
        return _made(name, bits, precision, signed, extended)
    finally:
        _making.reset(before)


def _made(name: str, bits: int, precision: int, signed: bool, extended: bool) -> Codebook | Float:
    """The format of these numbers, which are in range: a list of values, or above 8 bits a float."""
    if bits > LISTED:
        specials: Specials = "extended" if extended else "fnuz" if signed else "fn"
        exponent = bits - precision + (not signed)
        bias = 1 << (exponent - 1)
        floats: Float = Float(
            name=name, source=SOURCE, exponent=exponent, mantissa=precision - 1, bias=bias,
            specials=specials, signed=signed,
        )  # fmt: skip
        return floats
    last = (1 << (bits - signed)) - 1 - extended - (not signed)
    past = _magnitude(last + 1, bits, precision, signed)
    values = book_of(_values(bits, precision, signed, extended))
    listed: Codebook = Codebook(name=name, source=SOURCE, book=values, beyond=book_of([past]))
    return listed


def called(name: str) -> Codebook | Float | None:
    """Returns the format of that name, whatever its case; None for a name that is not P3109's.

    Raises NumericsError for one whose numbers are out of range.

    >>> called("Binary8p3se"), called("p3109(12, 5)"), called("binary16")
    (binary8p3se, binary12p5se, None)
    """
    numbers = numbers_of(name)
    return None if numbers is None else p3109(**numbers)


def _kept(name: str) -> Codebook | Float | None:
    """The format that a name is kept for, unless it is made now; raises NumericsError where there is none."""
    try:
        return None if _making.get() else called(name)
    except NumericsError as wrong:
        raise NumericsError(f"the name {said(name)} is of a form that IEEE P3109 keeps: {wrong}") from None


FAMILIES.append(_kept)


def begun(text: str) -> list[str]:
    """Returns the names of P3109's formats that begin so, where the beginning says how many bits they have.

    >>> begun("binary4p3"), begun("bin")
    (['binary4p3se', 'binary4p3sf', 'binary4p3ue', 'binary4p3uf'], [])
    """
    if not (bits := BEGUN.match(text.lower())) or not WIDTHS[0] <= int(bits[1]) <= WIDTHS[1]:
        return []
    names = (
        f"binary{bits[1]}p{precision}{sign}{domain}"
        for sign in "su"
        for precision in range(max(1, int(bits[1]) - EXPONENTS + (sign == "u")), int(bits[1]) + (sign == "u"))
        for domain in "ef"
    )
    return sorted(name for name in names if name.startswith(text.lower()))


def _magnitude(code: int, bits: int, precision: int, signed: bool) -> float:
    """The value of a code without its sign: digits after a binary point, and an exponent above them."""
    bias = 1 << (bits - precision - 1) if signed else 1 << (bits - precision)
    exponent, fraction = divmod(code, 1 << (precision - 1))
    digits = fraction + ((1 << (precision - 1)) if exponent else 0)
    return ldexp(digits, max(exponent, 1) - bias - (precision - 1))


def _values(bits: int, precision: int, signed: bool, extended: bool) -> Iterator[float]:
    """The value of every code."""
    half = 1 << (bits - 1)
    for code in range(1 << bits):
        rest, sign = (code % half, -1.0 if code >= half else 1.0) if signed else (code, 1.0)
        if code == (half if signed else (1 << bits) - 1):
            yield nan
        elif extended and rest == (half - 1 if signed else (1 << bits) - 2):
            yield sign * inf
        else:
            yield sign * _magnitude(rest, bits, precision, signed)
