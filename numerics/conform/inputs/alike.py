"""Arrays whose numbers are all of one class: what a kernel does with a whole tensor of them, another way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.filling import TABLE, Filling
from numerics.conform.takes import Takes
from numerics.conform.task import Array
from numerics.formats.dtype import Element

Masks = list[NDArray[np.bool_]]
LEAST_NORMAL = 2.0**-126  # of float32
LINES = (*range(1, 14), 33, 67, 4099)  # numbers of lines of one class
ROWS = ((3, 5), (67, 69), (2, 5, 131))
OCTAVE, WEIGHTS = 8, 2  # below which weights lie that are not less than 1; kinds of weights
WITHIN = 2  # which of the classes is within range
LONG = (1 << 20) + 13  # numbers of these
FEWEST = 2  # numbers of a class that is asked
OF_KIND = (67, 4099, 70_001)  # numbers of tensors of such a kind as networks have
MIXED, SPARSE = 1 << 12, 1 << 8  # numbers of their tables: of zeros and others, and of zeros and few others
MOST_WHOLE = 255  # of pixels, which are whole numbers


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


def tensors(x: Array, values: Array, long: bool) -> Iterator[tuple[Filling, Array]]:
    """Tensors such as networks have, each with what it is filled with, by which it is known what is due.

    All of weights (less than 1, or in an octave), of what is left of negative numbers when these are zeros,
    of few numbers that are not zero, of pixels, of a mask; of one number; sorted.
    values: what the numbers, or codes, stand for.  long: very long ones of weights, too.

    >>> x = np.float32([-3.0, -0.25, 0.0, 0.5, 1.0, 6.0, 300.0])
    >>> found = [line for _, line in tensors(x, x, long=False) if len(line) == 4099]
    >>> [float(abs(line).max()) for line in found]
    [0.5, 6.0, 6.0, 300.0, 6.0, 1.0, 0.0, 0.5, 300.0]
    """
    own = np.isfinite(values)
    x, values = x[own], values[own]
    size, plus = np.abs(values), ~np.signbit(values)
    left, whole = plus & (size > 0) & (size < OCTAVE), plus & (values == np.rint(values))
    zero, other = x[(values == 0) & plus][:1], x[values != 0]
    some = x[(size < 1) & (size > 0)]
    tables = [x[size < 1], x[size < OCTAVE]]
    if len(zero):
        tables += [_mixed(zero, part, count) for part, count in ((x[left], MIXED // 2), (other, SPARSE))]
        tables += [x[whole & (values <= MOST_WHOLE)], x[whole & (values <= 1)], zero]
    tables += [some[len(some) // 2 :][:1]]
    for turn, table in enumerate(tables):
        if len(table):
            yield from _of_kind(Filling(table, table, table), turn, LONG if long and turn < WEIGHTS else 0)
    rising = x[np.argsort(values, kind="stable")][:: -(-len(x) // TABLE) or 1]
    if len(rising):
        yield from _of_kind(Filling(rising, rising, rising), len(tables), 0, rises=True)


def _mixed(zero: Array, others: Array, count: int) -> Array:
    """A table of zeros and, evenly among them, so many others."""
    table = np.resize(zero, MIXED)
    if len(others):
        table[:: MIXED // count] = others[np.arange(count) * len(others) // count]
    return table


def _of_kind(
    numbers: Filling, turn: int, longest: int, rises: bool = False
) -> Iterator[tuple[Filling, Array]]:
    """Lines of several lengths that are so filled; rises: no number is followed by a smaller one."""
    for length in (*OF_KIND, *[longest] * (longest > 0)):
        yield numbers, numbers.large(length, turn, rises)
