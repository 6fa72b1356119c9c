"""What sums of known order, width and rounding give: the description of a product, as arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numerics.conform.products.adding.trees import Tree
from numerics.conform.products.problem import Float64


@dataclass(frozen=True)
class Cut:
    """Numbers that keep so many bits before they are multiplied: cut off, or rounded to the nearest."""

    bits: int
    toward_zero: bool

    def of(self, x: Float64) -> Float64:
        """The numbers that are left."""
        significand, exponent = np.frexp(x)
        whole = np.ldexp(significand, self.bits)
        left = np.trunc(whole) if self.toward_zero else np.rint(whole)
        return np.asarray(np.ldexp(left, exponent - self.bits))


@dataclass(frozen=True)
class Model:
    """Sums along a tree: additions of so many bits, toward zero or to nearest; products rounded first or not.

    bits: of a sum, and of terms that are added at once.
    """

    bits: tuple[int, int]
    cut: bool
    rounds_products: bool

    def total(self, tree: Tree, a: Float64, b: Float64) -> float:
        """The sum of one row."""
        if not isinstance(tree, tuple):
            return self._rounded(float(a[tree] * b[tree]))
        if len(tree) > 2:
            return self._at_once([self._term(part, a, b) for part in tree])
        leaf = [not isinstance(part, tuple) and not self.rounds_products for part in tree]
        exact = 1 if leaf[1] else 0  # a multiply-add rounds its other side first
        sides = [
            self._term(part, a, b) if leaf[i] and i == exact else self.total(part, a, b)
            for i, part in enumerate(tree)
        ]
        return self._rounded(sides[0] + sides[1])

    def _term(self, tree: Tree, a: Float64, b: Float64) -> float:
        return self.total(tree, a, b) if isinstance(tree, tuple) else float(a[tree] * b[tree])

    def _at_once(self, terms: list[float]) -> float:
        top = max((np.frexp(term)[1] for term in terms if term), default=0)
        step = 2.0 ** (int(top) - self.bits[1])
        return self._rounded(sum(float(np.trunc(term / step)) * step for term in terms))

    def _rounded(self, x: float) -> float:
        if self.bits[0] >= 53 or x == 0:
            return x
        significand, exponent = np.frexp(x)
        whole = np.ldexp(significand, self.bits[0])
        return float(np.ldexp(np.trunc(whole) if self.cut else np.rint(whole), exponent - self.bits[0]))
