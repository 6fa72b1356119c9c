"""TABLE of the codebooks, one row each, and `codebook_format` for a user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from hashlib import sha256
from itertools import islice
from math import inf, isfinite, ldexp, nan
from typing import Any

from numerics.formats.arguments import keywords
from numerics.formats.codebook import COUNTS, MOST, Codebook, nearest_float32, wrong_count
from numerics.formats.errors import NumericsError, number_in, said
from numerics.formats.registry import row

__all__ = ["bnb_fp4", "codebook_format", "hifloat8", "nf4", "posit8"]

_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)  # fmt: skip
_PREFIXES = ((0x60, 4, 1), (0x40, 3, 2), (0x20, 2, 3), (0x10, 1, 3), (0x08, 0, 3))
"""HiFloat8's least code of a prefix (11, 10, 01, 001, 0001), and its bits of exponent and of mantissa."""
_TWELFTHS = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)  # of FP4's codes without their sign


def _hifloat8(code: int) -> float:
    """HiFloat8: after the sign a prefix says how many bits the exponent has; the rest is mantissa."""
    sign, rest = -1.0 if code >> 7 else 1.0, code & 0x7F
    if rest == 0:
        return nan if code >> 7 else 0.0
    if rest == 0x6F:
        return sign * inf
    if rest < 8:  # prefix 0000: powers of two below the others
        return sign * ldexp(1.0, rest - 23)
    exponent_bits, mantissa_bits = next(bits for least, *bits in _PREFIXES if rest >= least)
    field, digits = rest >> mantissa_bits, rest & ((1 << mantissa_bits) - 1)
    exponent = 0
    if exponent_bits:  # a sign, and a magnitude whose first bit is 1 and not written
        top = 1 << (exponent_bits - 1)
        exponent = (top | field & (top - 1)) * (-1 if field & top else 1)
    return sign * ldexp(1 + digits / (1 << mantissa_bits), exponent)


def _posit8(code: int) -> float:
    """posit8 of the standard of 2022, two exponent bits: a run of equal bits, exponent, fraction."""
    if code in (0, 0x80):
        return 0.0 if code == 0 else nan
    sign, rest = (-1.0, 256 - code) if code >> 7 else (1.0, code)
    digits = f"{rest:08b}"[1:]
    run = len(digits) - len(digits.lstrip(digits[0]))
    regime = run - 1 if digits[0] == "1" else -run
    tail = digits[run + 1 :]
    exponent, fraction = int((tail[:2] + "00")[:2], 2), tail[2:]
    return sign * ldexp(
        1 + (int(fraction, 2) / (1 << len(fraction)) if fraction else 0), 4 * regime + exponent
    )


def _asked(values: Any) -> str:
    """A caller's values as a text; raises NumericsError for what are no numbers in an order, or too many."""
    try:
        if getattr(values, "mask", None) is not None or isinstance(values, (Set, Mapping, bytes, bytearray)):
            raise TypeError("values are hidden by a mask, or stand in no order")
        came = islice(values, MOST + 1)
        found = [None if getattr(value, "shape", ()) else number_in(value) for value in came]
    except Exception:  # whatever what came raises
        found = [None]
    numbers = [number for number in found if number is not None]
    if len(numbers) < len(found):
        raise NumericsError(f"values must be real numbers, not {said(values)}")
    if len(numbers) not in COUNTS:
        raise wrong_count("values", _count(values) if len(numbers) > MOST else len(numbers))
    return book_of(_within("values", number) for number in numbers)


def _count(values: Any) -> str:
    """How many values came, of which one more than are allowed were read."""
    try:
        return str(len(values))
    except Exception:  # what is read once does not say how many it has
        return f"more than {MOST}"


def _asked_one(name: str, came: object) -> str:
    """A caller's number as a text; empty for None.  Raises NumericsError for what is no number."""
    number = None if came is None else number_in(came)
    if came is not None and number is None:
        raise NumericsError(f"{name} must be a real number, not {said(came)}")
    return "" if number is None else book_of([_within(name, number)])


def _within(name: str, number: float) -> float:
    """The number; raises NumericsError for a finite one that float32 would make infinite."""
    if isfinite(number) and not isfinite(nearest_float32(number)):
        raise NumericsError(
            f"{name}: {number!r} is beyond float32, whose largest number is 3.4028235e+38; inf itself "
            "is a value"
        )
    return number


def book_of(values: Iterable[float]) -> str:
    """Values as the text that a codebook is declared with: each rounded to float32, blanks between them."""
    return " ".join(repr(nearest_float32(float(value))) for value in values)


# fmt: off
nf4: Codebook = row(Codebook, "nf4", "arXiv 2305.14314, appendix E",
    names=("NF4", "NormalFloat4"), book=book_of(_NF4))
bnb_fp4: Codebook = row(Codebook, "bnb_fp4", "bitsandbytes, functional.get_4bit_type",
    names=("fp4_bnb",), book=book_of(sign * n / 12 for sign in (1, -1) for n in _TWELFTHS))
hifloat8: Codebook = row(Codebook, "hifloat8", "arXiv 2409.16626",
    names=("HiF8", "HiFloat8"), book=book_of(map(_hifloat8, range(256))), beyond="49152.0",
    scaled_to="15.0", default_overflow="nonsaturate")
posit8: Codebook = row(Codebook, "posit8", "Posit Standard (2022) §3",
    names=("posit8_2",), book=book_of(map(_posit8, range(256))), scaled_to="15.0")
# fmt: on


@keywords
def codebook_format(
    values: Iterable[float],
    *,
    beyond: float | None = None,
    scaled_to: float | None = None,
    name: str | None = None,
) -> Codebook:
    """Returns a format of the listed values; it gets every kernel.  The same values give the same object.

    values: 2, 4, 8 ... 256 numbers, one for each code, in any order; each is rounded to float32.  nan fills
        up codes that mean nothing; inf, -inf and -0.0 may be among them.
    beyond: what would follow the largest magnitude: from half-way there on a number overflows to Inf or NaN
        under overflow="nonsaturate", which a codebook without it does not have.
    scaled_to: what the largest magnitude of a tensor becomes where its scale is found, above 0 and at most
        the largest magnitude of the values, of either sign, which it is by default.  Of a list whose values
        lie ever farther apart that is its worst end: posit8 and hifloat8 have 15.0.  Of one whose sides
        differ in length, the end of the shorter side clips nothing on that side and more on the other.
    name: by default made of the values; not that of another format of the tables.
    Raises NumericsError for another number of values, and for values of which none is positive.
    docs/formats.md §12.

    >>> lloyd = codebook_format([-1.5, -0.45, 0.45, 1.5], name="lloyd2")
    >>> lloyd.bits, lloyd.encode([0.3, -9.0]), lloyd.round([0.3, -9.0])
    (2, [2, 0], [0.44999998807907104, -1.5])
    """
    book, past, end = _asked(values), _asked_one("beyond", beyond), _asked_one("scaled_to", scaled_to)
    facts: dict[str, Any] = {
        "name": name_of(book, past, end) if name is None else name,
        "book": book,
        "beyond": past,
        "scaled_to": end,
    }
    made: Codebook = Codebook(**facts)
    return made


def name_of(book: str, past: str, end: str) -> str:
    """The name of a codebook that was given none: the same of the same values."""
    told = ";".join([book, past, *([end] if end else [])])
    return f"codebook_{sha256(told.encode()).hexdigest()[:12]}"
