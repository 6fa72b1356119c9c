"""More scales than a counter of 16 bits counts, as the layers of language models have them."""

from __future__ import annotations

from collections.abc import Iterator

from numerics.conform.products.cases import tiles
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.claim import Operand
from numerics.conform.products.problem import Problem

BLOCKS = 33
"""Blocks of a row: a counter that begins anew does so within a row, at another one of its blocks."""
ROWS, MORE_ROWS = 2056, 65_600
"""Rows of so many blocks, and rows of a scale each, that have more than 65,536 scales."""
FEW = 3
"""Rows of the other side; terms where each row has one scale."""
MOST = 1 << 24
"""Numbers of a side: of larger groups, of 256 and more, so many scales are not asked."""


def many_scales(maker: Maker) -> Iterator[Problem]:
    """Dense sums of few rows of one side, and so many of the other that its scales are many."""
    for place, op in enumerate((maker.claim.a, maker.claim.b)):
        for rows, k in _sizes(op):
            shape = (rows, FEW, k) if place == 0 else (1, rows, k)
            yield tiles.scattered(maker, shape, maker.long(tiles.of_few(shape)))


def _sizes(op: Operand) -> Iterator[tuple[int, int]]:
    """Rows and terms of a side with so many scales; nothing where it has few, whatever its size."""
    if op.share == "row":
        yield MORE_ROWS, FEW
    if op.share == "block" and ROWS * BLOCKS * op.size <= MOST:
        yield ROWS, BLOCKS * op.size
