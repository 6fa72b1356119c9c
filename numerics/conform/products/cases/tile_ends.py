"""What is no ordinary number in products of full tiles: m and n, or k too, past 32, 64 and 128 at once.

Kernels go there another way than in thin products: one that saturates, flushes or loses a NaN there alone is
right in all of them.  Rows are a few ones in a drawn order, so that exact sums cost little.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from numerics.conform.products.cases import tiles
from numerics.conform.products.cases.batches import whole
from numerics.conform.products.cases.ends import single_ends
from numerics.conform.products.cases.maker import Maker, Shape
from numerics.conform.products.cases.not_finite import last, special
from numerics.conform.products.cases.subnormals import subnormal
from numerics.conform.products.problem import Problem

SHAPES: tuple[Shape, ...] = (
    (33, 34, 33), (66, 66, 17), (130, 130, 5), (34, 33, 300), (66, 70, 66), (131, 130, 132), (3, 261, 33),
    (261, 3, 33),
)  # fmt: skip
"""m, n, k: past one tile, of few terms and of many; as many terms as rows; past 256 on a single side."""
OF_BATCHES: tuple[tuple[int, ...], ...] = ((2, 3, 33, 34, 33), (1, 2, 130, 131, 132))
"""Both axes of batches, m, n, k."""


def tile_ends(maker: Maker, quick: bool = False) -> Iterator[Problem]:
    """Ends of numbers in full tiles, of single products; quick: in the smallest of them."""
    for turn, shape in enumerate(SHAPES[:1] if quick else SHAPES):
        for problem in _ends(maker, tiles.of_few(shape), turn):
            yield tiles.scattered(maker, shape, problem)


def tile_ends_of_batches(maker: Maker, quick: bool = False) -> Iterator[Problem]:
    """The same of batches."""
    for turn, full in enumerate(OF_BATCHES[:1] if quick else OF_BATCHES):
        shape = full[2 - maker.claim.laid.axes :]
        rows = whole(maker.claim, shape)
        for problem in _ends(maker, tiles.of_few(rows), turn):
            yield tiles.scattered(maker, rows, problem, shape[:-3])


def _ends(maker: Maker, few: Shape, turn: int) -> Iterator[Problem]:
    """All ends in rows that differ, at most as many as these."""
    made = (
        [special(maker, few)],
        last(maker, few, turn),
        subnormal(maker, few),
        maker.biases(few) if maker.claim.bias else (),
        single_ends(maker, few[2]),
    )
    for problem in chain(*made):
        m, n = (min(sizes) for sizes in zip(few, problem.shape[:2], strict=False))
        yield problem.cut([*range(m)], [*range(n)])
