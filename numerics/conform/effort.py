"""How much a target is asked, and with which numbers beside those that matter."""

from __future__ import annotations

from typing import Any, NamedTuple

from numerics.conform.kinds import EFFORTS
from numerics.formats.errors import one_of
from numerics.formats.rounding import check_seed

_DRAWN = {"quick": 0, "default": 1 << 14, "high": 1 << 24}
_CALLS = {"quick": 0, "default": 130, "high": 1300}  # more than a cache's or a counter's hundred, or thousand
_ROUNDS = {"quick": 0, "default": 24, "high": 240}
_SEEDS = {"quick": 1, "default": 1, "high": 8}

LEFT_OUT = (
    "quick: not asked from two threads, nor in a long run of calls, and in fewer shapes and strides; "
    "effort='default' (--effort default) is"
)


class Effort(NamedTuple):
    """quick, default or high, and the seed of what is drawn.

    >>> Effort.of("high", 7).drawn
    16777216
    """

    name: str = "default"
    seed: int = 0

    @classmethod
    def of(cls, name: str = "default", seed: Any = None) -> Effort:
        """Both checked; raises NumericsError for another effort, or a seed outside 0 .. 2**64 - 1."""
        return cls(one_of("effort", name, EFFORTS), 0 if seed is None else check_seed(seed))

    @property
    def drawn(self) -> int:
        """How many numbers are drawn."""
        return _DRAWN[self.name]

    @property
    def calls(self) -> int:
        """How often arrays of one shape are asked."""
        return _CALLS[self.name]

    @property
    def rounds(self) -> int:
        """How often two threads call at once."""
        return _ROUNDS[self.name]

    @property
    def seeds(self) -> range:
        """Of products: the seeds with which all of them are drawn anew."""
        return range(self.seed, self.seed + _SEEDS[self.name])

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said of a verdict that was quick."""
        return (LEFT_OUT,) * (self.name == "quick")


AS_EVER, QUICK = Effort(), Effort("quick")
