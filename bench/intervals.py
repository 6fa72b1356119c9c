"""What counts of successes can tell: 95 % intervals of a share, and of the difference of two shares."""

from __future__ import annotations

import importlib
from math import sqrt


def wilson(successes: int, items: int) -> tuple[float, float]:
    """Returns the score interval of a share (Wilson, JASA 22, 1927), low and high, within 0 and 1.

    >>> [round(end, 3) for end in wilson(60, 100)]
    [0.502, 0.691]
    """
    found = importlib.import_module("scipy.stats").binomtest(successes, items).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def paired(right: int, gained: int, lost: int, items: int) -> tuple[float, float, float]:
    """Returns the difference of two shares of the same items, and its interval, low and high.

    right: items on which the first is right.  gained: those on which only the second is; lost: those on which
    only the first is.  The difference is the second's share less the first's.  Its interval is that of
    Newcombe (Statistics in Medicine 17, 1998, p. 2635, method 10), from the score intervals of both shares
    and their correlation: it has a width where nothing was gained or lost, which a bootstrap has not.

    >>> [round(end, 4) for end in paired(38, 12, 2, 50)]  # an example of that paper
    [0.2, 0.0569, 0.3404]
    """
    before, after = right / items, (right + gained - lost) / items
    (low1, high1), (low2, high2) = wilson(right, items), wilson(right + gained - lost, items)
    phi = _correlation(right - lost, gained, lost, items - right - gained)
    down = _distance(after - low2, high1 - before, phi)
    up = _distance(high2 - after, before - low1, phi)
    return after - before, after - before - down, after - before + up


def _distance(a: float, b: float, phi: float) -> float:
    return sqrt(max(a * a - 2 * phi * a * b + b * b, 0))


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Returns phi of a table of two by two, its numerator corrected for continuity where it is positive."""
    sides = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if sides == 0:
        return 0.0
    product = both * neither - gained * lost
    corrected = max(product - (both + gained + lost + neither) / 2, 0) if product > 0 else product
    return corrected / sqrt(sides)


def mcnemar(gained: int, lost: int) -> float:
    """Returns how probable so unequal counts are where neither side is better (McNemar's exact test,
    two-sided).

    >>> round(mcnemar(2, 12), 4), mcnemar(0, 0)
    (0.0129, 1.0)
    """
    if gained + lost == 0:
        return 1.0
    return float(importlib.import_module("scipy.stats").binomtest(gained, gained + lost).pvalue)
