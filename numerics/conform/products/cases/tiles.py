"""Products of ordinary sizes, in which m, n and k are past tiles at once: what is due of them costs little.

Their rows are a few ones in a drawn order, so that exact sums are found for a few rows of each side alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from numerics.conform.products.cases.batches import whole
from numerics.conform.products.cases.maker import Maker, Shape
from numerics.conform.products.problem import Problem, Scatter

UNLIKE = 12
"""Rows of a side that differ from each other; half as many where sums are long."""
SIZES = (((16, 8, 4), (3, 7, 13)), ((64, 48, 32, 128), (50, 33, 100, 65)), ((256, 384), (261, 274, 300)))
"""Few, some and many rows, columns or terms: whole tiles of them, and what tiles leave over."""
LONG = ((512, 768, 1024, 2048, 4096), (523, 777, 1043, 2051, 4100))
"""Long axes, whole tiles and not: rows and columns of some hundreds beside those of models."""
LEAST_TERMS = 1000  # of a long sum
MOST = 1 << 23  # terms of a product, as far as its long axes can keep within them
ONCE = 1 << 24  # terms of a product with long axes from which on it is whole tiles or not by turns
ODD_ONE = ((), (0,), (1,))
"""Of m, n, k in a triple of classes: which of them are whole tiles where the others are not."""
ALL_MANY: tuple[Shape, ...] = (
    (256, 256, 300), (256, 274, 256), (261, 512, 256), (256, 300, 261), (274, 256, 512), (300, 274, 512),
    (512, 512, 512), (523, 515, 530),
)  # fmt: skip
"""More of many rows, columns and terms, so that all eight ways to be whole or not are there."""
DECODING: tuple[Shape, ...] = (
    (1, 1024, 1024), (1, 1030, 1043), (4, 512, 2048), (8, 2051, 520), (16, 1024, 512), (13, 768, 1541),
    (2, 4096, 512), (3, 4100, 260), (1, 256, 4096), (5, 300, 4104),
)  # fmt: skip
"""Few rows beside the matrices of models: a token, or some of them."""
SERVING: tuple[Shape, ...] = (
    (24, 777, 768), (32, 1024, 1030), (40, 512, 523), (17, 1043, 1024), (72, 523, 512), (96, 520, 777),
    (112, 768, 512), (144, 512, 523), (200, 523, 512), (192, 400, 520), (18, 3072, 768), (66, 256, 2060),
    (40, 72, 4100),
)  # fmt: skip
"""A batch of rows, of each count of tiles, beside the matrices of models."""
PREFILLING: tuple[Shape, ...] = ((2304, 128, 64), (2051, 72, 40), (4099, 20, 136), (1040, 140, 520))
"""Many rows, past counters of tiles."""
OF_BATCHES: tuple[tuple[int, ...], ...] = (
    (2, 2, 66, 70, 130), (1, 3, 64, 64, 128), (2, 1, 261, 256, 300), (1, 2, 256, 274, 256),
    (3, 2, 1, 512, 512), (1, 3, 7, 530, 523), (2, 2, 128, 128, 64), (1, 2, 300, 64, 96),
    (1, 5, 17, 20, 33), (2, 4, 16, 16, 128), (4, 16, 16, 18, 64), (1, 33, 20, 24, 40), (3, 8, 1, 70, 64),
    (2, 8, 3, 256, 72), (5, 7, 50, 33, 13), (2, 6, 64, 64, 64), (1, 12, 32, 128, 100), (1, 4, 33, 65, 1043),
    (2, 4, 64, 64, 1024), (1, 5, 130, 140, 136), (1, 8, 128, 130, 64),
)  # fmt: skip
"""Both axes of batches, m, n, k: tiles in all three of these, and few, some and many batches."""
ENDLESS: tuple[Shape, ...] = ((1, 3, 32800), (3, 1, 65600))
"""More terms than counters of 15 and 16 bits count."""
ALL_BITS: tuple[Shape, ...] = (
    (1, 1030, 1043),
    (16, 1024, 512),
    (256, 256, 300),
    (300, 274, 512),
    (64, 261, 384),
)
"""Asked of numbers of all their bits, too."""


def shapes() -> tuple[Shape, ...]:
    """All m, n, k, those of few terms first.

    Each of the three is few, some or many, in all 27 ways, twice: of any two of them, both are whole tiles,
    neither is, and either alone is.  Those of which one or two are long are asked twice, too, or once where
    another is few, or the product large.

    >>> len(shapes()), shapes()[0], shapes()[-1]
    (132, (3, 7, 13), (384, 523, 1024))
    """
    found: list[Shape] = []
    for turn, classes in enumerate(product(range(len(SIZES) + 1), repeat=3)):
        if min(classes) == len(SIZES):
            continue  # all three are long in ALL_MANY
        others = ODD_ONE[sum(classes) % len(ODD_ONE)]
        for rest in (turn % 2 == 0, turn % 2 == 1):
            triple = [(*SIZES, LONG)[one][rest ^ (axis in others)] for axis, one in enumerate(classes)]
            found.append(_of_lengths(triple, turn))
            if len(SIZES) in classes and (min(classes) == 0 or prod(found[-1]) >= ONCE):
                break
    of_models = (*DECODING, *SERVING, *PREFILLING)
    return tuple(sorted((*found, *ALL_MANY, *of_models, *ENDLESS), key=prod))


def _of_lengths(triple: Sequence[tuple[int, ...]], turn: int) -> Shape:
    """One length of each of m, n and k by turns; of long ones those that keep within so many terms.

    First k is as long as may be, then n, then m.

    >>> _of_lengths((SIZES[0][0], LONG[0], LONG[1]), 0), _of_lengths((SIZES[2][1], LONG[0], LONG[1]), 0)
    ((16, 512, 1043), (261, 512, 1043))
    """
    found = [
        min(x for x in some if axis < 2 or x > LEAST_TERMS)
        if some in LONG
        else some[(turn + axis) % len(some)]
        for axis, some in enumerate(triple)
    ]
    for axis in (2, 1, 0):
        if triple[axis] in LONG:
            others = prod(found) // found[axis]
            found[axis] = max(found[axis], *(x * (x * others <= MOST) for x in triple[axis]))
    return found[0], found[1], found[2]


def tiled(maker: Maker) -> Iterator[Problem]:
    """What is asked of single products: sums in which every element counts, and some numbers of all bits."""
    for turn, shape in enumerate(shapes()):
        yield scattered(maker, shape, _dense(maker, shape))
        if shape in ALL_BITS and not maker.claim.integers:
            for problem in maker.whole(of_few(shape), -1 - turn % 2):
                yield scattered(maker, shape, problem)


def tiled_batches(maker: Maker) -> Iterator[Problem]:
    """The same of batches."""
    for full in OF_BATCHES:
        shape = full[2 - maker.claim.laid.axes :]
        rows = whole(maker.claim, shape)
        yield scattered(maker, rows, _dense(maker, rows), shape[:-3])


def of_few(shape: Shape) -> Shape:
    """Returns as many terms, in sums of as many rows and columns as differ."""
    unlike = UNLIKE if shape[2] <= LEAST_TERMS else UNLIKE // 2
    return min(shape[0], unlike), min(shape[1], unlike), shape[2]


def _dense(maker: Maker, shape: Shape) -> Problem:
    few = of_few(shape)
    return maker.integers(few) if maker.claim.integers else maker.long(few)


def scattered(maker: Maker, shape: Shape, problem: Problem, batch: tuple[int, ...] = ()) -> Problem:
    """Returns a problem whose rows and columns are to be those of a larger one, each of them somewhere."""
    places = []
    for count, few in zip(shape, problem.shape[:2], strict=False):
        drawn = maker.rng.integers(0, few, count)
        drawn[maker.rng.permutation(count)[:few]] = np.arange(few)
        places.append([int(place) for place in drawn])
    return replace(problem, scatter=Scatter(places[0], places[1], batch))
