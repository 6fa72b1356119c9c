"""Answers in the places of others: within a block, or within the bytes that hold its codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.deviation import after
from numerics.conform.deviations.table import Dialect
from numerics.conform.inputs.strings import packed, unpacked
from numerics.conform.task import Array, Fields, Task


def orders(lanes: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Ways in which so many lanes may stand for each other: what lane i has, and for each lane which.

    Neighbours, groups of them and both ends change places; all move on; a matrix of lanes is transposed.

    >>> [told for told, _ in orders(4)]                 # doctest: +ELLIPSIS
    ['i xor 1', 'i xor 2', '3 - i', '(i + 1) mod 4', ..., '2 * (i mod 2) + i div 2']
    """
    lane = np.arange(lanes)
    for mask in range(1, lanes):
        if lanes % (1 << mask.bit_length()) == 0:
            yield f"i xor {mask}" if mask < max(lanes - 1, 2) else f"{mask} - i", lane ^ mask
    if lanes & (lanes - 1):
        yield f"{lanes - 1} - i", lanes - 1 - lane
    for step in range(1, lanes):
        yield f"(i + {step}) mod {lanes}", (lane + step) % lanes
    for rows in (rows for rows in range(2, lanes) if lanes % rows == 0):
        yield f"{lanes // rows} * (i mod {rows}) + i div {rows}", lanes // rows * (lane % rows) + lane // rows


def of_strings(change: Callable[[Array], Array] = lambda codes: codes) -> Dialect:
    """Codes that stand in their bytes the other way around: of four bits, the two of a byte swapped.

    change: what codes become that are written in the one order and read in the other.
    """
    return _dialect(
        "first code in the highest bits", "a byte holds its first code in its highest bits", change
    )


def of_block(task: Task) -> Iterator[Dialect]:
    """Every way in which a block's places may stand for each other; of packed codes that of bytes first."""
    width, reads = task.block.element_bits, task.kind == "decode"

    def in_bytes(codes: Array) -> Array:
        found = unpacked(packed(codes, width, not reads), codes.shape[-1], width, highest_first=reads)
        return found.astype(codes.dtype)

    if task.packed:
        yield of_strings(in_bytes)
    for told, order in orders(task.block.block):
        said = f"of the places of a block, from 0, place i has the answer of {told}"
        yield _dialect(f"place {told}", said, partial(_in_order, order))


def _in_order(order: NDArray[np.int64], codes: Array) -> Array:
    return codes[:, order]


def _dialect(name: str, sentence: str, change: Callable[[Array], Array]) -> Dialect:
    return Dialect(name, sentence, lambda task: True, after(lambda task, x, codes: change(codes)))


def placed(task: Task, rows: Fields, spoken: Dialect) -> Fields:
    """Blocks whose codes stand where a dialect has them."""
    found = spoken.deviation.bend(lambda *_: rows)(task, None)
    assert isinstance(found, Fields)
    return found
