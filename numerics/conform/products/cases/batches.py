"""Products of many matrices at once: the same questions, in rows that are those of all batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from math import prod

from numerics.conform.products.claim import Claim
from numerics.conform.products.problem import Problem

Shape = tuple[int, int, int]
Shaped = Callable[[tuple[Shape, ...]], Iterator[Problem]]
"""Makes the problems of some shapes."""
ASKED: tuple[tuple[int, ...], ...] = (
    (3, 2, 1, 1, 1), (2, 3, 1, 3, 2), (3, 2, 2, 5, 31), (1, 4, 3, 8, 64), (2, 2, 4, 17, 65),
    (4, 1, 5, 4, 96), (1, 5, 7, 2, 127), (2, 3, 8, 8, 128), (1, 2, 17, 9, 33), (3, 3, 1, 16, 272),
    (1, 2, 65, 3, 40), (2, 1, 3, 66, 48), (1, 7, 2, 2, 160),
)  # fmt: skip
"""Both axes of batches, m, n, k."""
MANY = ((1, 17, 1, 2, 5), (2, 9, 2, 1, 7), (1, 65, 1, 1, 3), (9, 2, 1, 2, 4), (1, 130, 1, 1, 2))
"""More batches than kernels take at once; so many that all rows times all columns stay few."""
LENGTHS = range(1, 72, 3)  # terms, in other batches and rows each
TILES: tuple[tuple[int, ...], ...] = (
    (3, 2, 20, 18, 5), (2, 2, 33, 34, 6), (2, 3, 70, 66, 3), (1, 3, 130, 140, 4), (2, 3, 2, 260, 3),
    (3, 2, 260, 2, 3),
)  # fmt: skip
"""Second tiles of rows, of columns and of both at once, of few terms."""
SQUARE = ((2, 3, 7, 17, 17), (2, 2, 17, 5, 17), (1, 3, 32, 32, 32), (2, 2, 12, 64, 64), (1, 2, 64, 64, 64))
"""b, a or both are as long as they are wide: which axis is summed shows in the numbers alone."""
FAR = (255, 257, 383, 511, 513, 767, 1023, 1025, 1536, 2047, 4099, 4352, 16391)
"""Terms of few rows and columns of some batches."""
SIZES = (3, 2, 5, 4, 1)  # lengths of axes, of which those are taken that divide what there is


def whole(claim: Claim, shape: tuple[int, ...]) -> Shape:
    """The rows of all matrices of a, of b, and the terms, where a shape has its axes of batches first.

    >>> whole(Claim.of("float32", "float32", layout="bmk,nk"), (3, 4, 5, 6))
    (12, 5, 6)
    """
    batch, (m, n, k) = shape[:-3], shape[-3:]
    groups = [claim.laid.groups(side, batch) if batch else 1 for side in ("a", "b")]
    return m * groups[0], n * groups[1], k


def batched(claim: Claim, shaped: Shaped, shapes: tuple[tuple[int, ...], ...] | None) -> Iterator[Problem]:
    """What is asked of shapes that have axes of batches: of those that were named, or of many."""
    named = shapes is not None
    for shape in shapes if shapes is not None else _asked(claim):
        for problem in shaped((whole(claim, shape),)):
            yield replace(problem, batch=shape[:-3]) if named else problem_in(problem, shape[:-3])


def _asked(claim: Claim) -> Iterator[tuple[int, ...]]:
    """Shapes with as many axes of batches as a claim has."""
    lengths = ((1 + k % 4, 1 + k % 5, 1 + k % 3, 1 + k % 7, k) for k in LENGTHS)
    for shape in (*ASKED, *MANY, *lengths):
        yield shape[2 - claim.laid.axes :]


def past_tiles(claim: Claim) -> tuple[tuple[int, ...], ...]:
    """Shapes of batches with a length past a tile, or two that are equal.

    >>> past_tiles(Claim.of("float32", "float32", layout="bmk,nk"))[0]
    (2, 20, 18, 5)
    """
    far = ((1 + k % 2, 2 + k % 3, 1 + k % 2, 1 + k % 5, k) for k in FAR)
    return tuple(shape[2 - claim.laid.axes :] for shape in (*TILES, *SQUARE, *far))


def problem_in(problem: Problem, batch: tuple[int, ...]) -> Problem:
    """A problem in such batches, or where its rows are no multiple of them in others that divide them."""
    if _divides(problem, batch):
        return replace(problem, batch=batch)
    found = max(
        (lengths for lengths in product(SIZES, repeat=len(batch)) if _divides(problem, lengths)), key=prod
    )
    return replace(problem, batch=found)


def _divides(problem: Problem, batch: tuple[int, ...]) -> bool:
    laid = problem.claim.laid
    return all(
        rows % laid.groups(side, batch) == 0 for side, rows in zip("ab", problem.shape[:2], strict=True)
    )
