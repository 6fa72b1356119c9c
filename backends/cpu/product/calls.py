"""Which kernels serve a product of rows with a quantized matrix: backends/host/product.py says its sums."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.array.executor import bound
from numerics.backends.cpu import threads
from numerics.backends.cpu.launch import Launcher, address_of
from numerics.backends.cpu.product.blocked import BLOCKED_WORDS, blocked
from numerics.backends.cpu.product.codes import HALVES, Codes
from numerics.backends.cpu.product.dot import DOT_WORDS, dot
from numerics.backends.cpu.product.vectors import BYTES, registers
from numerics.backends.host.executor import Array
from numerics.backends.host.memory import allocate as empty
from numerics.backends.host.product import LANES, Matrix, Order
from numerics.formats.block import MicroexponentBlock
from numerics.formats.dtype import Element
from numerics.formats.floats import e8m0
from numerics.formats.grid import Grid, grid

FEW = 8  # rows of x up to which codes are decoded again for every few of them
WORTHWHILE = 1 << 18  # multiplications below which a second thread costs more than it saves
BLOCK = 48  # rows that are decoded together
NEAR = 1 << 11  # bytes of a row of x that the nearest cache is to hold beside X_TILE others


class Tile(NamedTuple):
    """Rows of codes and rows of x whose sums the registers hold."""

    rows: int
    together: int


def products(launcher: Launcher, x: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """The sums of rows of x (m, length) with those of a matrix: (m, rows)."""
    many, (rows, length) = len(x), matrix.shape
    found = empty((many, rows), np.float32)
    if not found.size:
        return found
    order, codes = matrix.order, _codes(matrix)
    lanes = in_lanes(x, order, codes.order)
    whole, rest = divmod(length, order.span)
    begin = (
        address_of(matrix.packed), length * codes.bits // 8, _address(matrix.shared), _address(matrix.zero),
        _beside(matrix, order), whole, rest * codes.bits // 8, -(-rest // order.group) if order.group else 0,
    )  # fmt: skip
    work = Work(codes, begin, lanes, found, (x, matrix))
    if many > FEW:
        _by_blocks(launcher, work)
    else:
        _by_rows(launcher, work)
    return found


class Work(NamedTuple):
    """A product: its codes, the words that say where they are, x in lanes, what is found, what is kept."""

    codes: Codes
    begin: tuple[int, ...]
    lanes: Array
    found: Array
    keep: object


def in_lanes(x: NDArray[np.float32], order: Order, lanes: tuple[int, ...]) -> NDArray[np.float32]:
    """Rows of x as kernels read them: (m, spans, run, lanes), zeros behind their end."""
    many, length = x.shape
    spans = order.spans(length)
    if spans * order.span != length:
        x = np.concatenate([x, np.zeros((many, spans * order.span - length), np.float32)], axis=1)
    runs = x.reshape(many, spans, LANES, order.run)
    if lanes is HALVES:
        runs = runs[:, :, list(lanes)]
    return np.ascontiguousarray(runs.swapaxes(2, 3))


def _by_rows(launcher: Launcher, work: Work) -> None:
    """A few rows of x at a time, all rows of codes."""
    codes, begin, lanes, found, _ = work
    many, rows = found.shape
    step, first = lanes.strides[0], 0
    while first < many:
        together = 4 if many - first >= 4 else 2 if many - first >= 2 else 1
        tile = Tile(2, together)
        kernel = launcher.built(
            f"product_dot_{tile.rows}_{together}_{codes.name}", DOT_WORDS, dot(codes, *tile)
        )
        at = address_of(lanes) + first * step, step, address_of(found) + 4 * first * rows, rows
        calls = [
            (*_from_row(codes, begin, start), at[0], at[1], at[2] + 4 * start, at[3], count)
            for start, count in _shares(rows, tile.rows, rows * lanes[0].size * together)
        ]
        threads.work(kernel, calls, work)
        first += together


def _by_blocks(launcher: Launcher, work: Work) -> None:
    """Many rows of x: rows of codes are decoded into the caches, a block at a time."""
    codes, begin, lanes, found, _ = work
    many, rows = found.shape
    tile = Tile(4, 4) if registers() >= 32 else Tile(4, 1)
    kernel = launcher.built(
        f"product_blocked_{tile.rows}_{tile.together}_{codes.name}", BLOCKED_WORDS, blocked(codes, *tile)
    )
    spans, part = lanes.shape[1], max(NEAR // (codes.run * BYTES), 1)
    calls, rooms = [], []
    for start, count in _shares(rows, tile.rows, rows * lanes[0].size * many):
        block = min(BLOCK, count)
        sizes = (
            block * min(part, spans) * codes.run * BYTES,
            block * min(part, spans) * BYTES,
            many * block * BYTES,
        )
        room = [empty((size,), np.uint8) for size in sizes]
        rooms.append(room)
        calls.append((
            *_from_row(codes, begin, start), address_of(lanes), lanes.strides[0],
            address_of(found) + 4 * start, rows, count, many, block, part, *map(address_of, room),
        ))  # fmt: skip
    threads.work(kernel, calls, (work, rooms))


def _from_row(codes: Codes, words: tuple[int, ...], row: int) -> tuple[int, ...]:
    """The same words for the rows from one on."""
    address, stride, scale, zero, beside, *rest = words
    moved = row * beside
    return address + row * stride, stride, scale + moved * codes.scale_bytes, zero + 4 * moved, beside, *rest


def _shares(rows: int, tile: int, work: int) -> list[tuple[int, int]]:
    """Rows for each thread: the first, and how many."""
    several = min(threads.count(), -(-rows // tile)) if work >= WORTHWHILE else 1
    step = -(-rows // (several * tile)) * tile
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]


def _address(part: Array | None) -> int:
    return 0 if part is None else address_of(part)


def _beside(matrix: Matrix, order: Order) -> int:
    """Scales and zero points of a row: its groups; one, or none of its own."""
    if order.group:
        return -(-matrix.shape[1] // order.group)
    return 0 if matrix.zero is None or matrix.zero.ndim == 0 else 1


# ---- what kernels know of codes ------------------------------------------------------------------------


def _codes(matrix: Matrix) -> Codes:
    if isinstance(matrix.block, MicroexponentBlock):
        return _codes_of_blocks(matrix.block, matrix.order, matrix.unit)
    return _codes_of(matrix.element, matrix.order, matrix.block, matrix.unit, matrix.zero is not None)


@lru_cache(maxsize=64)
def _codes_of_blocks(d: MicroexponentBlock, order: Order, unit: float) -> Codes:
    scale = grid(e8m0, "half_even", "nonsaturate")
    bits = 8 * d.bytes_per_block // d.block
    return Codes(bits, order.run, order.group, scale=scale, unit=unit, mantissa=d.mantissa)


@lru_cache(maxsize=1024)
def _codes_of(element: Element | None, order: Order, block: Any, unit: float, zero: bool) -> Codes:
    if element is None:
        return Codes(32, 1)
    scale = None
    if order.group:
        scale = "float32" if block is None else grid(block.scale, "half_even", "nonsaturate")
    signed = element.min < 0 if element.kind == "integer" else None
    f = None if element.kind == "integer" else grid(element, "half_even", element.default_overflow)
    return Codes(element.bits, order.run, order.group, signed, f, _table(element, f), scale, unit, zero)


def _table(element: Element, f: Grid | None) -> tuple[int, ...] | None:
    """The float32 bits of 16 values, where their lower halves are zeros."""
    if element.bits != 4:
        return None
    codes = np.arange(16, dtype=np.int32)
    if f is None:
        values = np.where(codes > element.max, codes - 16, codes).astype(np.float32).view(np.uint32)
    else:
        values = bound.decode(codes, f).view(np.uint32)
    return None if (values & 0xFFFF).any() else tuple(map(int, values))
