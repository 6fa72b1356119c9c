"""Products without terms, whose sums are 0, and products without rows, columns or batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.batches import whole
from numerics.conform.products.claim import Claim
from numerics.conform.products.problem import Problem

SHAPES = (
    (1, 1, 0), (4, 6, 0), (1, 70, 0), (33, 1, 0), (64, 130, 0), (0, 5, 40), (4, 0, 40), (0, 1, 1),
    (0, 130, 64), (0, 0, 40), (0, 0, 0),
)  # fmt: skip
"""m, n, k, one of them 0 at least: an expert without tokens, a layer that was cut to nothing."""
OF_BATCHES = (
    (2, 3, 4, 6, 0), (3, 2, 0, 5, 40), (2, 2, 4, 0, 40), (2, 0, 4, 6, 40), (0, 2, 1, 6, 8), (0, 0, 4, 6, 0),
)  # fmt: skip
"""Both axes of batches, m, n, k."""


def empty(
    claim: Claim, rng: draw.Rng, shapes: tuple[tuple[int, ...], ...] | None = None
) -> Iterator[Problem]:
    """What is asked of shapes some of whose sizes are 0; shapes: those that somebody names, among others."""
    axes = claim.laid.axes
    usual = tuple(shape[2 - axes :] for shape in OF_BATCHES) if axes else SHAPES
    for shape in usual if shapes is None else shapes:
        if 0 in shape:
            yield _of(claim, rng, shape)


def _of(claim: Claim, rng: draw.Rng, shape: tuple[int, ...]) -> Problem:
    m, n, k = whole(claim, shape)
    sides = [draw.unit(op, rows, k, rng) for op, rows in ((claim.a, m), (claim.b, n))]
    full = [side.with_codes(np.full_like(side.codes, draw.one(side.op))) for side in sides]
    bias = rng.integers(1, 9, n).astype(np.float32) if claim.bias else None
    found = Problem(claim, full[0], full[1], bias, law="empty")
    return replace(found, batch=shape[:-3], sizes=(shape[-3], shape[-2]))


def others(shapes: tuple[tuple[int, ...], ...] | None) -> tuple[tuple[int, ...], ...] | None:
    """Those of named shapes that have no 0; None where none were named."""
    return None if shapes is None else tuple(shape for shape in shapes if 0 not in shape)
