"""Arrays whose numbers are all of one class: what a kernel does with a whole tensor of them, another way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.filling import Filling
from numerics.conform.takes import Takes
from numerics.conform.task import Array
from numerics.formats.dtype import Element

Masks = list[NDArray[np.bool_]]
LEAST_NORMAL = 2.0**-126  # of float32
LINES = (*range(1, 14), 33, 67, 4099)  # numbers of lines of one class
ROWS = ((3, 5), (67, 69), (2, 5, 131))
WITHIN = 2  # which of the classes is within range
LONG = (1 << 20) + 13  # numbers of these
FEWEST = 2  # numbers of a class that is asked


def classes(x: Array, dtype: Element) -> Masks:
    """Which of the numbers are finite, within range, of one sign, normal, subnormal ...

    >>> from numerics.formats import fp4
    >>> [int(found.sum()) for found in classes(np.float32([0.75, -0.75, 7.0, np.nan]), fp4)]
    [3, 3, 2, 2, 1, 1, 0, 2, 0, 0]
    """
    with np.errstate(invalid="ignore"):
        size, plus = np.abs(x), ~np.signbit(x)
        finite, number = np.isfinite(x), ~np.isnan(x)
        inside = size <= min(abs(dtype.min), abs(dtype.max)) if dtype.signed else (size <= dtype.max) & plus
        normal = inside & (size >= max(dtype.smallest_normal, LEAST_NORMAL))
        small = inside & (size < dtype.smallest_normal) & (size > 0)
        return [
            *(finite, number, inside, finite & plus, inside & plus, inside & ~plus),
            *(normal, small, (size < LEAST_NORMAL) & (size > 0), inside & (size >= 1) & (size < 2)),
        ]


def arrays(x: Array, masks: Masks, takes: Takes) -> Iterator[Array]:
    """Lines and tensors of the numbers of each class.

    >>> from numerics.conform.takes import ANYTHING
    >>> x = np.float32([1, 2, 3])
    >>> [found.shape for found in arrays(x, [x > 1], ANYTHING)][-4:]
    [(4099,), (3, 5), (67, 69), (2, 5, 131)]
    """
    for turn, mask in enumerate(masks):
        if mask.sum() < FEWEST:
            continue
        numbers = Filling.of(x[mask])
        yield from (numbers.filled(length, turn) for length in LINES)
        if not takes.contiguous:
            yield from (numbers.filled(shape, turn) for shape in ROWS)
