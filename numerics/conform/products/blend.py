"""Products that are scaled and added to a matrix, as gemm of BLAS has them: alpha * product + beta * c."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.task import Array

Float64 = NDArray[np.float64]
Way = Callable[["Blend", Float64, Callable[[Float64], Array]], Float64]
"""Of a blend, exact products, and what rounds to the type that comes out: the results before that."""


def as_blas(blend: Blend, product: Float64, rounded: Callable[[Float64], Array]) -> Float64:
    """alpha * product + beta * c, exactly; where beta is 0, c is not read, whatever it holds."""
    found = blend.alpha * product
    return found + blend.added if blend.adds else found


@dataclass(frozen=True)
class Blend:
    """What a product is multiplied by, and what is added to it.

    c: numbers [m, n] of all rows of a and of b of a problem; None where the claim has none.
    reads: of a deviation, is c multiplied by beta also where that is 0?  way: how it blends; as_blas is due.

    >>> blend = Blend(2.0, 0.0, np.float32([[np.nan]]))
    >>> blend.of(np.array([[3.0]]), lambda x: x).tolist(), blend.adds
    ([[6.0]], False)
    """

    alpha: float = 1.0
    beta: float = 1.0
    c: Array | None = None
    reads: bool = False
    way: Way = as_blas

    @property
    def adds(self) -> bool:
        """Is something added, be it zeros?"""
        return self.c is not None and (self.reads or self.beta != 0)

    @property
    def plain(self) -> bool:
        """Is the product itself due, without a further rounding wherever alpha and beta go?"""
        return self.alpha == 1 and not (self.adds and self.numbers.any())

    @property
    def numbers(self) -> Float64:
        """c in float64; a zero where there is none."""
        return np.zeros((1, 1)) if self.c is None else self.c.astype(np.float64)

    @property
    def added(self) -> Float64:
        """What is added, beta * c."""
        with np.errstate(all="ignore"):
            return self.beta * self.numbers if self.adds else np.zeros((1, 1))

    def of(self, product: Float64, rounded: Callable[[Float64], Array]) -> Float64:
        """The results for these products, before they are rounded."""
        with np.errstate(all="ignore"):
            return self.way(self, product, rounded)

    def kept(self, rows: Any, columns: Any) -> Blend:
        """The same of some rows and columns, by their indices."""
        return self if self.c is None else replace(self, c=self.c[np.ix_(rows, columns)])

    def __str__(self) -> str:
        return f"alpha {self.alpha:.9g}" + f", beta {self.beta:.9g}" * (self.c is not None)


# ---- ways that are known to be wrong ---------------------------------------------------------------


def scaling_both(blend: Blend, product: Float64, rounded: Callable[[Float64], Array]) -> Float64:
    """alpha multiplies what beta * c has been added to."""
    return blend.alpha * (product + blend.added)


def scaling_late(blend: Blend, product: Float64, rounded: Callable[[Float64], Array]) -> Float64:
    """alpha multiplies sums that have been rounded to the type that comes out."""
    return blend.alpha * rounded(product).astype(np.float64) + blend.added


def adding_late(blend: Blend, product: Float64, rounded: Callable[[Float64], Array]) -> Float64:
    """beta * c is added to products that have been rounded to the type that comes out."""
    return rounded(blend.alpha * product).astype(np.float64) + blend.added
