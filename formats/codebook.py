"""Codebook: a format whose values are listed, one for every code, as NF4's are (docs/formats.md §12)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import frexp, inf, isfinite, isnan, ldexp

from numerics.formats.arguments import keywords
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, digits, said

MOST = 256  # values: a code has at most 8 bits
COUNTS = (2, 4, 8, 16, 32, 64, 128, MOST)
LENGTH = 10_000  # characters of a list of values

Numbers = str
"""Numbers as a text, blanks between them: a fact that is compared, kept and read back exactly."""


def nearest_float32(number: float) -> float:
    """The float32 nearest to a number, half to even; infinite beyond the largest.

    By integers, since a conversion would lose subnormals in a thread that flushes them.

    >>> nearest_float32(0.1), nearest_float32(1e39), nearest_float32(1e-45) == 2.0**-149
    (0.10000000149011612, inf, True)
    """
    if number == 0 or not isfinite(number):
        return number
    significand, exponent = frexp(number)
    places = min(24, exponent + 149)
    kept = ldexp(round(ldexp(significand, places)), exponent - places)
    return kept if abs(kept) < 2.0**128 else inf if number > 0 else -inf


def _single(text: str) -> float | None:
    """The one number of a text: None where it has none, Inf where it has several."""
    words = text.split()
    return None if not words else float(words[0]) if len(words) == 1 else inf


def wrong_count(what: str, count: object) -> NumericsError:
    """The error of a list that has no value for every code, or more than that."""
    return NumericsError(
        f"{what}: a codebook has 2, 4, 8 ... {MOST} values, one a code, not {count}; "
        "nan fills up the codes that mean nothing"
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Codebook(Element):
    """A list of float32 values: code k stands for the k-th of them.

    book: the values as a text, blanks between them: 2, 4, 8 ... 256 of them, in any order; `nan`, `inf` and
    `-inf` may be among them, and `-0.0`.  Of codes with the same value the least is written.
    beyond: as a text, the magnitude that would follow the largest; empty where nothing is too large.
    scaled_to: as a text, what the largest magnitude of a tensor becomes where its scale is found; empty for
        the largest magnitude of the values, of either sign.  Tapered formats name the end of their finest
        values here.

    A value goes to the nearest of the list, whatever lies between them; what every rounding does to one that
    is between two of them is in docs/formats.md §12.

    >>> Codebook(name="thirds", book="0.0 0.25 0.5 1.0").round([0.3, 0.76, 7.0])
    [0.25, 1.0, 1.0]
    """

    kind = "codebook"
    book: Numbers
    beyond: Numbers = ""
    scaled_to: Numbers = ""
    bits: int = field(init=False)
    signed: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signed", True)  # until the values are known
        object.__setattr__(self, "bits", 8)
        super().__post_init__()
        object.__setattr__(self, "book", self._exact("book", self.book))
        object.__setattr__(self, "beyond", self._exact("beyond", self.beyond))
        object.__setattr__(self, "scaled_to", self._exact("scaled_to", self.scaled_to))
        self._check_values()
        object.__setattr__(self, "bits", (len(self.listed) - 1).bit_length())
        object.__setattr__(self, "signed", self.finite[0] < 0)
        self.check_overflow(self.default_overflow)

    def _exact(self, name: str, text: object) -> str:
        """The numbers of a text as one spelling of them; raises NumericsError for what is none."""
        if not isinstance(text, str) or len(text) > LENGTH:
            raise NumericsError(f"{self.name}: {name} is a text of numbers, not {said(text)}")
        try:
            numbers = [float(word) for word in text.split()]
        except ValueError as wrong:
            raise NumericsError(f"{self.name}: {name} is a text of numbers: {wrong}") from None
        for number in numbers:
            if not isnan(number) and nearest_float32(number) != number:
                raise NumericsError(
                    f"{self.name}: {number!r} is no float32; nx.codebook_format rounds values to it"
                )
        return " ".join("nan" if isnan(number) else repr(number) for number in numbers)

    def _check_values(self) -> None:
        count, finite = len(self.listed), self.finite
        if count not in COUNTS:
            raise wrong_count(self.name, count)
        if len(finite) < 2 or finite[-1] <= 0:
            raise NumericsError(
                f"{self.name}: a codebook has at least two finite values, one of them positive"
            )
        past = self.follows
        if past is not None and not self.extent < past < 2.0**128:
            raise NumericsError(
                f"{self.name}: beyond={self.beyond} cannot be; allowed: one number larger than all values "
                f"({digits(self.extent)}) and below 2**128"
            )
        if self.scaled_to and not 0 < self.scale_end <= self.extent:
            raise NumericsError(
                f"{self.name}: scaled_to={self.scaled_to} cannot be; allowed: one number above 0 and "
                f"not above the largest magnitude of the values ({digits(self.extent)})"
            )

    @cached_property
    def listed(self) -> tuple[float, ...]:
        """The value of every code."""
        return tuple(float(word) for word in self.book.split())

    @cached_property
    def finite(self) -> tuple[float, ...]:
        """The finite values, rising, each once."""
        return tuple(sorted({value for value in self.listed if isfinite(value)}))

    @property
    def follows(self) -> float | None:
        """What would follow the largest magnitude, or None."""
        return _single(self.beyond)

    @property
    def precedes(self) -> float | None:
        """What would come before the least value, or None: past it a number overflows below.

        Where there is no sign that is one step below 0; what rounds to it has no value, and becomes NaN.
        """
        if self.follows is None:
            return None
        if self.signed:
            return -self.follows
        return -self.smallest_normal if self.has_nan and self.finite[0] == 0 else None

    @property
    def has_inf(self) -> bool:
        """Is there an infinity?"""
        return inf in self.listed

    @property
    def has_nan(self) -> bool:
        """Is there a code that is no number?"""
        return any(map(isnan, self.listed))

    @property
    def overflows(self) -> tuple[str, ...]:  # type: ignore[override]
        """The overflow policies that the format can express."""
        special = self.has_nan or (self.has_inf and (-inf in self.listed or not self.signed))
        return ("saturate", "nonsaturate") if special and self.follows else ("saturate",)

    @property
    def max(self) -> float:
        """The largest finite value."""
        return self.finite[-1]

    @property
    def extent(self) -> float:
        """How far from zero the values reach: to the end of the longer side, of whichever sign.

        Scales are found for it, so that the list negated does to the tensor negated what the list does.
        """
        return max(self.max, -self.min)

    @property
    def scale_end(self) -> float:
        """What the largest magnitude of a tensor becomes where its scale is found."""
        end = _single(self.scaled_to)
        return self.extent if end is None else end

    @property
    def min(self) -> float:
        """The smallest finite value."""
        return self.finite[0]

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value."""
        return next(value for value in self.finite if value > 0)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        return self.smallest_normal

    @property
    def nan(self) -> int:
        """The code that NaN becomes: the first that is none, else that of the largest value."""
        found = [code for code, value in enumerate(self.listed) if isnan(value)]
        return found[0] if found else self.listed.index(self.max)

    @keywords
    def ranked(self, overflow: str = "saturate") -> list[tuple[float, int]]:
        """Values that are written and their codes, rising, -0.0 before 0.0, each once.

        overflow: under "nonsaturate" what precedes and what follows are the ends, with the codes of Inf or
            of NaN.
        """
        kept: dict[str, tuple[float, int]] = {}
        for code, value in enumerate(self.listed):
            if isfinite(value):
                kept.setdefault(repr(value), (value, code))
        found = sorted(kept.values(), key=lambda pair: (pair[0], repr(pair[0])[0] != "-"))
        if overflow == "saturate" or self.follows is None:
            return found
        codes = {value: code for code, value in reversed([*enumerate(self.listed)])}
        ends = [
            None if end is None else (end, codes.get(end * inf, self.nan))
            for end in (self.precedes, self.follows)
        ]
        return [place for place in (ends[0], *found, ends[1]) if place is not None]
