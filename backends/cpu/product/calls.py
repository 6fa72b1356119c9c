"""Which kernels serve a product of rows with a quantized matrix: backends/host/product.py says its sums."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from numerics.backends.array.executor import bound
from numerics.backends.cpu import threads
from numerics.backends.cpu.launch import Launcher, Run, address_of
from numerics.backends.cpu.product import vectors
from numerics.backends.cpu.product.blocked import (
    BLOCKED_WORDS,
    PANELS_WORDS,
    Tile,
    best_tile,
    blocked,
    panels,
)
from numerics.backends.cpu.product.codes import Codes
from numerics.backends.cpu.product.dot import LANES_WORDS, WORDS, dot, lanes
from numerics.backends.cpu.product.int8 import MORE, Counted, bytes_of_fours, dot_of_int8, in_records
from numerics.backends.cpu.product.vectors import BYTES
from numerics.backends.host.executor import Array
from numerics.backends.host.memory import LINE, allocate, on_a_line
from numerics.backends.host.product import LANES, Int8Rows, Matrix, Order, step_of
from numerics.formats.block import MicroexponentBlock
from numerics.formats.dtype import Element
from numerics.formats.floats import e8m0
from numerics.formats.grid import Grid, grid

TABLE = 6  # bits of codes whose values are looked up
FEW = 8  # rows of x up to which codes are decoded again for every few of them
FEW_AT_EASE = 32  # the same, of codes that are decoded in few instructions
FEW_OF_SMALL = 16  # the same, of matrices so small that decoding them apart does not pay
WORTHWHILE = 1 << 22  # multiplications, 80 us of a core: below, a second costs more than it saves
BLOCK = 48  # rows that are decoded together, at most
CACHED = 1 << 18  # bytes of codes that are read again for other rows of x
NEAR = 1 << 12  # bytes of a row whose tile the nearest cache holds, one side of the lanes at a time
ROOM = 1 << 17  # bytes of decoded rows that stay in a cache for all rows of x
NEAR_ROOM = 24 << 10  # the same of the nearest cache, beside a tile of x: for parts of long rows
LONG = 1 << 12  # bytes of a decoded row, beyond which it is decoded in parts
PART = 1 << 11  # bytes of such a part


class Way(NamedTuple):
    """A kernel for few rows of x: its name, what emits it, and how many rows of codes it takes at
    once with so many rows of x.
    """

    name: str
    emit: Callable[..., Any]
    rows: Callable[[Codes, int], int]


DOT = Way("dot", dot, lambda codes, together: codes.rows)
INT8 = Way("int8", dot_of_int8, lambda codes, together: 2 if together < 4 or vectors.has("avx512f") else 1)


def products(launcher: Launcher, x: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """The sums of rows of x (m, length) with those of a matrix: (m, rows)."""
    if not len(x) or not matrix.shape[0]:
        return np.empty((len(x), matrix.shape[0]), np.float32)
    reading = _reading(matrix, _codes)
    found = allocate((len(x), matrix.shape[0]))
    few = FEW_AT_EASE if reading.codes.eases else FEW
    if len(x) > (few if found.size * matrix.shape[1] >= WORTHWHILE else max(few, FEW_OF_SMALL)):
        _by_blocks(launcher, reading, x, found)
    else:
        _by_rows(launcher, reading, _in_lanes(launcher, reading.codes, x), found, DOT)
    return found


def products_of_int8(launcher: Launcher, x: Int8Rows, matrix: Matrix) -> NDArray[np.float32]:
    """The sums of rows of integers (m, length) with those of a matrix: (m, rows)."""
    if not len(x) or not matrix.shape[0]:
        return np.empty((len(x), matrix.shape[0]), np.float32)
    reading = _reading(matrix, _codes_of_int8)
    records = in_records(x, matrix.order, cast(Counted, reading.codes))
    found = allocate((len(x), matrix.shape[0]))
    _by_rows(launcher, reading, Laid(records, address_of(records), records.strides[0]), found, INT8)
    return found


class Reading(NamedTuple):
    """A matrix as kernels find it: what they know of its codes, the words that say where those are, what is
    to be kept for them, and the kernels for few rows of x, with how many rows of codes each takes at once.
    """

    codes: Codes
    begin: tuple[int, ...]
    keep: Any
    kernels: dict[tuple[Way, int], tuple[Run, int]]


class Laid(NamedTuple):
    """Rows of x as a kernel for few of them reads them: what they are kept in, where, and bytes of a row."""

    keep: Array
    address: int
    stride: int


_readings: WeakKeyDictionary[Matrix, dict[Callable[[Matrix], Codes], Reading]] = WeakKeyDictionary()


def _reading(matrix: Matrix, codes_of: Callable[[Matrix], Codes]) -> Reading:
    """How a matrix is read, found once for each: a copy of it lies elsewhere, and is another."""
    known = _readings.setdefault(matrix, {})
    if codes_of not in known:
        codes = codes_of(matrix)
        parts = matrix.packed, matrix.shared, matrix.zero
        known[codes_of] = Reading(codes, _begin(matrix, codes.bits), parts, {})
    return known[codes_of]


def _begin(matrix: Matrix, bits: int) -> tuple[int, ...]:
    order = matrix.order
    length = order.stored(matrix.shape[1])
    whole, rest = divmod(length, order.span)
    return (
        address_of(matrix.packed), length * bits // 8, _address(matrix.shared), _address(matrix.zero),
        _beside(matrix, order), whole, rest * bits // 8, -(-rest // order.group) if order.group else 0,
    )  # fmt: skip


def _in_lanes(launcher: Launcher, codes: Codes, x: NDArray[np.float32]) -> Laid:
    """Rows of x in the order of lanes."""
    span = codes.run * LANES
    whole, rest = divmod(x.shape[1], span)
    stride = (whole + bool(rest)) * span * 4
    room = np.empty(len(x) * stride + LINE, np.uint8)
    address = -(-address_of(room) // LINE) * LINE
    kernel = launcher.built(
        f"product_lanes_{codes.name_of_order}", LANES_WORDS, lanes(codes.order, codes.run)
    )
    kernel(address_of(x), x.strides[0], address, stride, len(x), whole, 4 * rest)
    return Laid(room, address, stride)


def _by_rows(launcher: Launcher, reading: Reading, x: Laid, found: Array, way: Way) -> None:
    """A few rows of x at a time, all rows of codes: as many of them as a cache holds, where x comes again."""
    (many, rows), first, length = found.shape, 0, reading.begin[1] * 8 // reading.codes.bits
    out, width, work = address_of(found), 4 * rows, found.size * length
    while first < many:
        together = 4 if many - first >= 4 else 2 if many - first >= 2 else 1
        times = (many - first) // together
        kernel, tile = _kernel_of_few(launcher, reading, way, together)
        most = max(CACHED // max(reading.begin[1], 1), 1) * tile
        other, into = x.address + first * x.stride, out + first * width
        if work < WORTHWHILE:
            kernel(*reading.begin, other, x.stride, into, rows, rows, times, most)
        else:
            calls = [
                (*_from_row(reading, start), other, x.stride, into + 4 * start, rows, count, times, most)
                for start, count in _shares(rows, tile, work)
            ]
            threads.work(kernel, calls, (reading, x, found))
        first += times * together


def _kernel_of_few(launcher: Launcher, reading: Reading, way: Way, together: int) -> tuple[Run, int]:
    """A kernel for so many rows of x at a time, and how many rows of codes it takes."""
    known = reading.kernels.get((way, together))
    if known is None:
        codes = reading.codes
        tile = way.rows(codes, together)
        name = f"product_{way.name}_{tile}_{together}_{codes.name}"
        known = launcher.built(name, WORDS, way.emit(codes, tile, together)), tile
        reading.kernels[way, together] = known
    return known


def _by_blocks(launcher: Launcher, reading: Reading, x: Array, found: Array) -> None:
    """Many rows of x: rows of codes are decoded into the caches, a block at a time."""
    codes = reading.codes
    (many, rows), tile, unit = found.shape, best_tile(codes), codes.run * BYTES
    spans = -(-x.shape[1] // (codes.run * LANES))
    short = spans * unit <= LONG
    part = spans if short else -(-spans // -(-spans * unit // PART))
    laid, whole = _in_panels(launcher, codes, x, tile, part)
    name = f"product_blocked_{tile.name}_{codes.name}"
    kernel = launcher.built(name, BLOCKED_WORDS, blocked(codes, tile))
    calls, rooms = [], []
    for start, count in _shares(rows, tile.rows, rows * laid.size):
        most = min(BLOCK, (ROOM if short else NEAR_ROOM) // (part * unit)) // tile.rows
        block = min(max(most, 1), -(-count // tile.rows)) * tile.rows
        sums = (tile.together if part == spans else whole) * block + LANES  # the last are read LANES at once
        room = [
            on_a_line(size, np.uint8) for size in (block * part * unit, block * part * BYTES, sums * BYTES)
        ]
        rooms.append(room)
        calls.append((
            *_from_row(reading, start), address_of(laid), whole, address_of(found) + 4 * start, rows,
            count, many, block, part, max(NEAR // unit, 1), *map(address_of, room),
        ))  # fmt: skip
    threads.work(kernel, calls, (reading, laid, found, rooms))


def _in_panels(launcher: Launcher, codes: Codes, x: Array, tile: Tile, part: int) -> tuple[Array, int]:
    """Rows of x as kernels of many rows read them, and how many they are with the last tile filled up."""
    span = codes.run * LANES
    spans = -(-x.shape[1] // span)
    x = _filled(x, spans * span)
    whole = -(-len(x) // tile.together) * tile.together
    room = on_a_line(whole * spans * span)
    name = f"product_panels_{tile.name}_{codes.name_of_order}"
    kernel = launcher.built(name, PANELS_WORDS, panels(codes.order, codes.run, tile))
    calls = [
        (address_of(x), x.strides[0], address_of(room), len(x), whole, spans, part, first, count)
        for first, count in _shares(whole, tile.together, 4 * room.size)
    ]
    threads.work(kernel, calls, (x, room))
    return room, whole


def _filled(x: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Rows of x with zeros behind their end."""
    if x.shape[1] == length:
        return np.ascontiguousarray(x)
    return np.concatenate([x, np.zeros((len(x), length - x.shape[1]), np.float32)], axis=1)


def _from_row(reading: Reading, row: int) -> tuple[int, ...]:
    """The words for the rows of codes from one on."""
    codes, (address, stride, scale, zero, beside, *rest) = reading.codes, reading.begin
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


def _codes_of_int8(matrix: Matrix) -> Counted:
    """What kernels of products in int8 know of its codes."""
    assert matrix.element is not None
    return _counted(matrix.element, matrix.order, matrix.block, matrix.unit, matrix.zero is not None)


@lru_cache(maxsize=256)
def _counted(element: Element, order: Order, block: Any, unit: float, zero: bool) -> Counted:
    """The same codes, as products in int8 read them."""
    codes, step, least, counts = _codes_of(element, order, block, unit, zero), step_of(element), 0, None
    assert step is not None
    if element.bits == 8 and bytes_of_fours():
        least = 0 if codes.signed else MORE
    if element.bits == 4:
        each = _values_of(element, codes.f) / np.float32(step)
        least = 0 if bytes_of_fours() else int(each.min())
        counts = tuple(int(count) - least for count in each)
    return Counted(
        codes.bits, codes.run, codes.group, codes.signed, codes.f, None, codes.scale, unit, zero,
        counts=counts, least=least, step=step, together=order.together(0) // order.span,
    )  # fmt: skip


def _table(element: Element, f: Grid | None) -> tuple[int, ...] | None:
    """The float32 bits of all values, where those are few."""
    return tuple(map(int, _values_of(element, f).view(np.uint32))) if element.bits <= TABLE else None


def _values_of(element: Element, f: Grid | None) -> NDArray[np.float32]:
    codes = np.arange(1 << element.bits, dtype=np.int32)
    if f is None:
        return np.where(codes > element.max, codes - (1 << element.bits), codes).astype(np.float32)
    return np.asarray(bound.decode(codes, f)).view(np.float32)
