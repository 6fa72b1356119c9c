"""The laws of products: what each kind of input shows.  Their first lines are the sentences of a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numerics.conform.laws.beside import threads

Named = Callable[..., Any]


def one_term() -> None:
    """A sum of one term is the product of two decoded numbers, rounded once."""


def sums() -> None:
    """A sum that the accumulator holds is exact, whatever the order: every element counts once."""


def output() -> None:
    """An exact sum is rounded to the type that comes out once, to nearest even; what is too large is Inf."""


def bias() -> None:
    """A bias is added to the sums of its column once, with all its bits, and comes out alone beside zeros."""


def alpha() -> None:
    """alpha multiplies each sum once, with all its bits, before it is rounded to the type that comes out."""


def beta() -> None:
    """beta times c, each with all its bits, is added once, before the sum is rounded to what comes out."""


def unread() -> None:
    """Where beta is 0, c is not read: NaN and Inf in it reach no result (BLAS)."""


def two_terms() -> None:
    """A sum of two terms is the nearest number of the accumulator."""


def empty() -> None:
    """A sum of no terms is 0, its bias, or beta times c; without rows, columns or batches there is none."""


def integers() -> None:
    """Products of integers add up exactly, modulo 2**32."""


def pairs() -> None:
    """Every code of one side times every code of the other is the product of what they stand for."""


def scale_range() -> None:
    """Every code of a scale counts what it says, the least, the largest and a negative one too."""


def corners() -> None:
    """A code at the ends of its scale counts what it says, which no type narrower than float32 holds."""


def special() -> None:
    """NaN and Inf reach the results of their row or column, and no other."""


def subnormals() -> None:
    """Subnormal numbers are kept: as operands, and as results."""


def accumulator() -> None:
    """2**j + 1 - 2**j is 1, for every j that the accumulator holds."""


def aliasing() -> None:
    """A matrix times itself is a product like others: of one array, of one memory, of the same numbers."""


def strides() -> None:
    """A result depends on the numbers alone, not on where arrays begin, on strides or gaps."""


def repeatable() -> None:
    """The same product gives the same result, whenever it is asked."""


LAWS: dict[str, Named] = {
    law.__name__: law
    for law in (one_term, sums, output, bias, alpha, beta, unread, two_terms, integers, empty, pairs,
                scale_range, special, subnormals, accumulator, corners, aliasing, strides,
                repeatable, threads)
}  # fmt: skip
"""The laws of products by name."""
TELLING = ("sums", "integers", "two_terms")
"""Those whose products say most where they are asked again."""
ANY_SUMS = ("one_term", "two_terms", "sums", "pairs")
"""Those of numbers of all kinds: what breaks one of them may break it at an end alone."""
