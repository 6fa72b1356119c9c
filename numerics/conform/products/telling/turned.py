"""Which of a product's operands comes turned, where it is right so and not as it is claimed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from math import lcm

from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases.order import problems
from numerics.conform.products.claim import Claim
from numerics.conform.products.laws import TELLING
from numerics.conform.products.layout import Layout
from numerics.conform.targets.faults import Fault
from numerics.formats.errors import NumericsError

ASKED = 3  # products that must all be right
LEAST, MOST = 4, 512  # rows, columns and terms of each
SIZES = ((1, 1, 1), (1, 2, 3), (2, 3, 1))  # how many times as many: square products, then others


def fitting_layout(target: ProductTarget) -> str | None:
    """The layout by which a target multiplies right, where its claim's own is not that.

    Square matrices are asked first, since those have one shape in every layout: none is asked to read what is
    not there.  Others are where these are right, for a kernel may take square ones alone for turned.

    >>> from numerics.conform.products.claim import Claim
    >>> fitting_layout(ProductTarget(lambda a, b: a @ b, Claim.of("float32", "float32")))
    'kn'
    """
    if all(_is_right(target, sizes) for sizes in SIZES):
        return None
    others = (ProductTarget(target.function, claim, target.takes) for claim in _turned(target.claim))
    right = (other for other in others if all(_is_right(other, sizes) for sizes in SIZES))
    return next((other.claim.layout for other in right), None)


def hint(layout: str) -> str:
    """What is said of a target that is right in another layout than it was asked in."""
    laid = Layout.of(layout)
    sides = [name for name, turned in (("a", laid.turned_a), ("b", laid.turned_b)) if turned]
    which = " and ".join(sides) + (" come turned" if len(sides) > 1 else " comes turned")
    where = which if sides else "neither operand comes turned"
    return f"it multiplies right where {where}: layout={layout!r}"


def _turned(claim: Claim) -> Iterator[Claim]:
    """The same claim with every other choice of operands that come turned; b alone first."""
    whole = claim.layout if "," in claim.layout else f"mk,{claim.layout}"
    for of_a in ("mk", "km"):
        for of_b in ("kn", "nk"):
            spelled = re.sub("nk|kn", of_b, re.sub("mk|km", of_a, whole)).removeprefix("mk,")
            if spelled != claim.layout and whole != spelled:
                try:
                    yield claim.laid_as(spelled)
                except NumericsError:  # no scheme has its scales so
                    continue


def _is_right(target: ProductTarget, sizes: tuple[int, int, int]) -> bool:
    """Does it give what is due of a few products of so many times as many rows, columns and terms?"""
    size = lcm(LEAST, *(op.size or 1 for op in (target.claim.a, target.claim.b)))
    if size > MOST:
        return False
    shape = (2,) * target.claim.laid.axes + tuple(size * times for times in sizes)
    found = (problem for problem in problems(target.claim, 0, (shape,)) if problem.law in TELLING)
    asked = [problem for problem in islice(found, ASKED) if target.takes_problem(problem)]
    try:
        return bool(asked) and not any(target.see(problem).wrong.any() for problem in asked)
    except (Fault, NumericsError):  # it has no result, or no operand lies so
        return False
