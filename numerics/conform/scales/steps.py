"""Steps: how a kernel that finds its scales does each step, as is due or as a known deviation does it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from numerics.formats.errors import NumericsError, said

_LEAST = re.compile(r"\s*(amax|scale)\s+(\S+)\s*")


class Least(NamedTuple):
    """What a scale is at least: `one` where all numbers are 0, `none`, or amax or the scale itself a number.

    >>> Least.of("amax 1e-12").kind, Least.of(None).kind
    ('amax', 'one')
    """

    kind: str = "one"
    value: float = 0.0

    @classmethod
    def of(cls, came: Any) -> Least:
        """As it is spelled; raises NumericsError for another spelling."""
        if came is None or came in ("one", "none"):
            return cls(came or "one")
        match = _LEAST.fullmatch(came) if isinstance(came, str) else None
        try:
            number = float(np.float32(float(match[2]))) if match else 0.0
        except ValueError:
            number = 0.0
        if match is None or not 0 < number < np.inf:
            raise NumericsError(
                f"least={said(came)}; allowed: one (the scale of zeros is 1), none (it is 0), "
                "'amax 1e-12' or 'scale 1e-7', which then are at least that"
            )
        return cls(match[1], number)

    def __str__(self) -> str:
        return self.kind if self.kind in ("one", "none") else f"{self.kind} {self.value:.9g}"


class Steps(NamedTuple):
    """How each step is done; a known deviation does one of them otherwise."""

    # ---- amax, or the range
    amax: str = "finite"
    """finite; inf where Inf counts, nan where NaN does too; signed where the largest number is taken;
    flushed where a subnormal number counts as 0."""
    group: str = "own"
    """own; before or after where the numbers of the group beside it are taken; all, those of the tensor."""
    bare: bool = False
    """Is the range one in which 0 need not lie?"""
    nothing: float = 0.0
    """What amax must be larger than, lest all numbers count as 0."""
    add: float = 0.0
    """A number that is added to amax."""

    # ---- the scale
    divide: str = "divide"
    """divide; reciprocal of the maximum; or twice: 1 / (maximum / amax)."""
    end: float | None = None
    """What amax becomes, where it is another number than is due."""
    more: float = 0.0
    """A number that is added to the scale."""
    zeros: float | None = None
    """The scale of numbers that are all 0, where that is another than is due."""
    underflow: str = "kept"
    """kept above 0; zero where a scale may round to it in its type; flushed where a subnormal one does."""
    overflow: str = "kept"
    """kept finite; or inf."""
    gives: str = "scale"
    """What comes back: the scale, its inverse, or amax."""

    scale_group: str = "own"
    """own; before or after where the scale, and not the zero point, is that of the group beside it."""

    # ---- the zero point
    zero_group: str = "own"
    """own; before or after where the zero point is that of the group beside it."""
    zero: str = "half_even"
    """half_even, half_away, floor, ceil or toward_zero; apart: qmin - round(min / scale)."""
    clamped: bool = True
    """Is it kept in the range of the codes?"""

    # ---- codes
    code: str = "divide"
    """divide; reciprocal of the scale; ratio, x * (maximum / amax); unstored: the scale before its type;
    double: divided in float64; doubles: by the scale in float64; moved: rounded with the zero point in it."""
    code_scale: str = "own"
    """own; before or after where codes are under the scale of the group beside it, and its own comes back."""
    code_zero: str = "own"
    """The same of the zero point."""
    rounding: str | None = None
    middles: str = "exact"
    """exact; or float32, of lists of values: a number goes up if it is larger than the middle so rounded."""
    minus_zero: str = "kept"
    """kept; lost; or read, where -0 is taken for 0, and what rounds to 0 keeps its sign."""
    clip: bool = False
    """Are integers kept from their least number, as -128?"""


ONE, AS_DUE = Least(), Steps()
