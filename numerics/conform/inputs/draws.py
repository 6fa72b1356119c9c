"""How a stochastic kernel draws: N random bits beside its values, and how they are compared; or by itself."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError, said
from numerics.formats.rounding import RANDOM_BITS

Bits = NDArray[np.uint32]
RULES = ("a", "b", "c")
ALL_RULES = (*RULES, "up")
"""Those that a target may claim, and one that it may be found to have."""


class Drawing(NamedTuple):
    """A rule and its number of bits; the rule "own" for a kernel that draws for itself.

    Away from zero goes a number whose discarded fraction of a step is f, with an integer R of N bits:

    a: where the first N bits of f, and R, reach 2**N: P3109's StochasticA, gfloat's StochasticFastest
    b: the same with half a unit added to R: P3109's StochasticB, gfloat's StochasticFast
    c: where f * 2**N, rounded to an integer, ties to even, and R reach 2**N: gfloat's Stochastic
    up: where f * 2**N, rounded up, and R reach 2**N; no target may claim it
    """

    rule: str = "a"
    bits: int = RANDOM_BITS

    @classmethod
    def of(cls, text: Any) -> Drawing:
        """From its spelling; raises NumericsError for another one.

        >>> Drawing.of("b8"), Drawing.of("own").is_own
        (Drawing(rule='b', bits=8), True)
        """
        if text is None:
            return cls()
        if isinstance(text, str) and text == "own":
            return cls("own", 0)
        found = re.fullmatch(r"([abc])([1-9][0-9]?)", text) if isinstance(text, str) else None
        drawing = None if found is None else cls(found[1], int(found[2]))
        if drawing is None or not drawing.is_asked:
            raise NumericsError(
                f"draw={said(text)}; allowed: own, or a rule and its bits: a1 .. a30, b1 .. b29, c1 .. c29"
            )
        return drawing

    def __str__(self) -> str:
        return "its own draws" if self.is_own else f"{self.bits} random bits, rule {self.rule}"

    @property
    def spelling(self) -> str:
        """As `of` takes it."""
        return "own" if self.is_own else f"{self.rule}{self.bits}"

    @property
    def is_asked(self) -> bool:
        """May a target claim it?"""
        return self.is_own or (self.rule in RULES and self.bits <= RANDOM_BITS - (self.rule != "a"))

    @property
    def sentence(self) -> str:
        """When a number goes up, as a law says it of this rule.

        >>> Drawing("c", 8).sentence
        'Up, away from zero, when f * 2**8, rounded half to even, + R >= 2**8 (f: the fraction of a step).'
        """
        n = f"2**{self.bits}"
        sums = {"a": f"f * {n}, rounded down, + R", "b": f"f * {n} + R + 1/2",
                "c": f"f * {n}, rounded half to even, + R", "up": f"f * {n}, rounded up, + R"}  # fmt: skip
        return f"Up, away from zero, when {sums[self.rule]} >= {n} (f: the fraction of a step)."

    @property
    def is_own(self) -> bool:
        """Does the kernel draw for itself?"""
        return self.rule == "own"

    @property
    def needs_numbers(self) -> bool:
        """Is it judged for single numbers alone?"""
        return self.rule in ("own", "c")

    def narrow(self, random: Bits) -> Bits:
        """30 random bits cut to those that a kernel is given; every second one rounded up.

        >>> Drawing("a", 8).narrow(np.uint32([1 << 22, 3 << 21, 3 << 21])).tolist()
        [1, 2, 1]
        """
        if self.bits == RANDOM_BITS:
            return random
        shift = RANDOM_BITS - self.bits
        up = (np.arange(random.size).reshape(random.shape) % 2 * ((1 << shift) - 1)).astype(np.int64)
        return np.asarray(np.minimum((random + up) >> shift, (1 << self.bits) - 1).astype(np.uint32))

    def wide(self, random: Bits) -> Bits:
        """The 30 random bits R' with which f + R' / 2**30 >= 1 says the same; c: but for middles.

        >>> Drawing("a", 8).wide(np.uint32([255])).tolist(), Drawing("b", 8).wide(np.uint32([255])).tolist()
        ([1069547520], [1071644672])
        """
        fewer = RANDOM_BITS - self.bits
        if fewer < 0:  # whole units of 2**-30 are compared alike
            return np.asarray(random >> np.uint32(-fewer))
        more = {"a": 0, "up": (1 << fewer) - 1}.get(self.rule, 1 << fewer >> 1)
        return np.asarray(((random.astype(np.int64) << fewer) + more).astype(np.uint32))

    def goes_up(self, fraction: NDArray[np.float64], random: Bits) -> NDArray[np.bool_]:
        """Rule c, by its own words: exact, for a fraction of a step is a float64.

        >>> Drawing("c", 8).goes_up(np.array([2.0**-9, 3 * 2.0**-9]), np.uint32([255, 254])).tolist()
        [False, True]
        """
        return np.asarray(np.rint(fraction * 2.0**self.bits) + random >= 2.0**self.bits)
