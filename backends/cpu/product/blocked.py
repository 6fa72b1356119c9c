"""Products with many rows of x: rows of codes are decoded into the caches, a part at a time, and multiplied
tile by tile.

Decoded rows and rows of x lie as the innermost loop reads them, which is how fast products of dense matrices
do it (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008): the rows of a tile
side by side, a register of lanes after the other.  The sums of a tile stay in registers over a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, I64
from numerics.backends.cpu.lookups import shuffled
from numerics.backends.cpu.product.codes import Codes
from numerics.backends.cpu.product.rows import Rows, sums_of_lanes
from numerics.backends.cpu.product.vectors import (
    BYTES,
    FLOAT,
    Pair,
    at_most,
    fused,
    has,
    i64,
    is_arm,
    pieces,
    plus,
    store,
)
from numerics.backends.cpu.streams import load_as, vector
from numerics.backends.host.product import LANES

BLOCKED_WORDS = 20
PANELS_WORDS = 9
REGISTERS = 32  # of AVX-512
STEP = 4  # elements of a lane that the innermost loop spells out


class Tile(NamedTuple):
    """Rows of codes and rows of x whose sums the registers hold, so many lanes of them at a time."""

    rows: int
    together: int
    width: int

    @property
    def name(self) -> str:
        """Its sizes, for the names of kernels."""
        return "_".join(map(str, self))

    @property
    def sides(self) -> int:
        """Registers that the 16 lanes fill."""
        return LANES // self.width

    @property
    def kind(self) -> ir.Type:
        """What a register holds."""
        return vector(F32, self.width)

    @property
    def bytes(self) -> int:
        """Bytes of a register."""
        return 4 * self.width


def best_tile(codes: Codes) -> Tile:
    """12 sums, 3 rows and one of x fill 16 registers; of 32, 16 sums, 4 rows and one of x fill most, or 12
    sums of runs beside those of rows.

    Where nothing fuses, a sum takes many instructions and registers of its own.
    """
    if is_arm():
        return Tile(4, 4, 4)
    if not has("fma"):
        return Tile(2, 2, 4)
    if not has("avx512f"):
        return Tile(3, 4, 8)
    return Tile(3, 4, LANES) if codes.group else Tile(4, 4, LANES)


def holds_both(tile: Tile) -> bool:
    """Do registers hold the sums of runs and those of rows, of codes whose groups have scales?"""
    return has("avx512f") and 2 * tile.rows * tile.together + tile.rows < REGISTERS


def panels(order: Sequence[int], run: int, tile: Tile) -> Callable[[ir.IRBuilder, list[ir.Value]], None]:
    """A kernel that lays rows of x as `blocked` reads them: part after part, tile after tile.

    Its words: x, bytes a row of it, the room for panels, rows of x, those with the last tile filled up (by
    the last row again), spans, spans of a part; the first row to lay, and how many.
    """

    def emit(b: ir.IRBuilder, words: list[ir.Value]) -> None:
        x, stride, room, many, whole, spans, part, start, rows = words
        with pieces(b, spans, part) as (first, count), cgutils.for_range(b, rows, intp=I64) as loop:
            m = b.add(start, loop.index)
            within = b.urem(m, i64(tile.together))
            source = plus(b, x, at_most(b, m, b.sub(many, i64(1))), stride)
            source = plus(b, source, first, run * BYTES)
            before = b.add(b.mul(first, whole), b.mul(b.sub(m, within), count))
            target = plus(b, plus(b, room, before, run * BYTES), within, tile.bytes)
            side = b.mul(count, i64(run * tile.together * tile.bytes))
            with cgutils.for_range(b, b.mul(count, i64(run)), intp=I64) as place:
                span, j = b.udiv(place.index, i64(run)), b.urem(place.index, i64(run))
                read = plus(b, plus(b, source, span, run * BYTES), j, 4)
                write = plus(b, target, place.index, tile.together * tile.bytes)
                for at, lane in enumerate(order):
                    to = b.add(plus(b, write, side, at // tile.width), i64(4 * (at % tile.width)))
                    store(b, load_as(b, b.add(read, i64(4 * run * lane)), F32), to)

    return emit


def blocked(codes: Codes, tile: Tile) -> Callable[[ir.IRBuilder, list[ir.Value]], None]:
    """A kernel for many rows of x: a block of rows is decoded, a part of its spans, and multiplied.

    Its words: those of `dot` up to the groups of the tail; panels of x and their rows, the last tile filled
    up; out, elements a row of out, rows of codes; rows of x, rows of a block, spans of a part, spans that the
    nearest cache holds; room for decoded values, scales and the sums of lanes: those of all rows of x with a
    block, or where a part is a row those of a tile.
    """

    def emit(b: ir.IRBuilder, words: list[ir.Value]) -> None:
        reading = Rows(b, codes, *words[:8])
        x, whole, out, width, rows, many, block, part, near, *rooms = words[8:]
        several = b.zext(b.icmp_signed(">", reading.spans, part), I64)
        with pieces(b, rows, block) as lines, pieces(b, reading.spans, part) as spans:
            _unfold(reading, tile, lines, spans, rooms)
            own = _Product(b, codes, tile, block, spans, near)
            last = b.icmp_signed("==", b.add(*spans), reading.spans)
            with pieces(b, many, i64(tile.together)) as (m, height):
                panel = b.add(b.mul(spans[0], whole), b.mul(m, spans[1]))
                sums = plus(b, rooms[2], b.mul(b.mul(m, several), block), BYTES)
                _multiply_block(own, (plus(b, x, panel, codes.run * BYTES), *rooms[:2], sums), lines[1])
                with b.if_then(last):
                    place = plus(b, plus(b, out, b.mul(m, width), 4), lines[0], 4)
                    _write_sums(b, codes, (sums, block), (place, width), (height, lines[1]))

    return emit


def _unfold(reading: Rows, tile: Tile, lines: Pair, spans: Pair, rooms: Sequence[ir.Value]) -> None:
    """Values of a part of the spans of some rows, as tiles read them, and their scales."""
    b = reading.builder
    (first_row, height), (first, count) = lines, spans
    with cgutils.for_range(b, height, intp=I64) as loop:
        places = reading.places([b.add(first_row, loop.index)])
        within = b.urem(loop.index, i64(tile.rows))
        begun = b.mul(b.sub(loop.index, within), count)
        with cgutils.for_range(b, count, intp=I64) as step:
            ((values, scale),) = reading.at(places, b.add(first, step.index))
            for room, several in ((rooms[0], values), (rooms[1], [] if scale is None else [scale])):
                size = len(several) * tile.rows * tile.bytes
                place = plus(b, plus(b, room, begun, len(several) * BYTES), within, tile.bytes)
                place = plus(b, place, step.index, size)
                for j, value in enumerate(several):
                    for side in range(tile.sides):
                        part = shuffled(b, value, range(side * tile.width, (side + 1) * tile.width))
                        to = b.add(plus(b, place, count, side * size), i64(j * tile.rows * tile.bytes))
                        store(b, part, to)


@dataclass(frozen=True)
class _Product:
    """A block of rows times a tile of rows of x, over a part of their spans: the first, and how many.

    near: spans that the nearest cache holds.
    """

    builder: ir.IRBuilder
    codes: Codes
    tile: Tile
    block: ir.Value
    spans: Pair
    near: ir.Value

    @property
    def nothing(self) -> ir.Constant:
        """A register of zeros."""
        return ir.Constant(self.tile.kind, [0.0] * self.tile.width)

    def vector_at(self, place: ir.Value, number: int) -> ir.Value:
        """The register's worth of numbers that lies so many behind a place."""
        b = self.builder
        return load_as(b, b.add(place, i64(number * self.tile.bytes)), self.tile.kind)


def _multiply_block(own: _Product, places: Sequence[ir.Value], height: ir.Value) -> None:
    """One side of all lanes after the other, a few spans at a time: those of x stay in the nearest cache."""
    b, tile, run = own.builder, own.tile, own.codes.run
    x, values, scales, sums = places
    first, count = own.spans
    with cgutils.for_range(b, i64(tile.sides), intp=I64) as side, pieces(b, count, own.near) as (start, some):
        begun = b.icmp_signed(">", b.add(first, start), i64(0))
        skipped = b.add(b.mul(side.index, count), start)
        place_x = plus(b, x, skipped, run * tile.together * tile.bytes)
        with pieces(b, height, i64(tile.rows)) as (n, _):
            before = b.mul(n, count)
            place_w, place_s = (
                plus(b, plus(b, room, before, size * BYTES), skipped, size * tile.rows * tile.bytes)
                for room, size in ((values, run), (scales, 1))
            )
            slots = _slots(own, plus(b, plus(b, sums, n, BYTES), side.index, tile.bytes))
            multiply = _multiply_groups if own.codes.group else _multiply_rows
            multiply(own, (place_x, place_w, place_s), slots, (some, begun))


def _slots(own: _Product, place: ir.Value) -> list[list[ir.Value]]:
    """Where the sums of a tile lie, those of one row of x beside each other."""
    b, tile = own.builder, own.tile
    lines = [plus(b, place, own.block, m * BYTES) for m in range(tile.together)]
    return [
        [b.inttoptr(b.add(line, i64(n * BYTES)), tile.kind.as_pointer()) for n in range(tile.rows)]
        for line in lines
    ]


def _multiply_rows(
    own: _Product, places: Sequence[ir.Value], slots: list[list[ir.Value]], spans: Pair
) -> None:
    """The sums of a tile go on over some spans, in registers.  spans: how many; do any come before them?"""
    b, (count, begun) = own.builder, spans
    with _in_registers(own, slots, begun) as sums, cgutils.for_range(b, count, intp=I64) as step:
        _multiply_span(own, places, step.index, sums)


@contextmanager
def _in_registers(
    own: _Product, slots: list[list[ir.Value]], begun: ir.Value
) -> Iterator[list[list[ir.Value]]]:
    """Registers that go on from what lies in slots, where anything does, and are written there again."""
    b = own.builder
    sums = [[cgutils.alloca_once(b, own.tile.kind) for _ in line] for line in slots]
    pairs = [pair for lines in zip(sums, slots, strict=True) for pair in zip(*lines, strict=True)]
    for register, slot in pairs:
        b.store(b.select(begun, b.load(slot, align=4), own.nothing), register)
    yield sums
    for register, slot in pairs:
        b.store(b.load(register), slot, align=4)


def _multiply_groups(
    own: _Product, places: Sequence[ir.Value], slots: list[list[ir.Value]], spans: Pair
) -> None:
    """The same for codes whose groups have scales: the sums of a run fill the registers, those of the row
    are read and written once a span, or lie beside them.
    """
    b, tile, (count, begun) = own.builder, own.tile, spans
    if holds_both(tile):
        with _in_registers(own, slots, begun) as held:
            _add_groups(own, places, held, count)
        return
    with b.if_then(b.not_(begun)):
        for slot in (slot for line in slots for slot in line):
            b.store(own.nothing, slot, align=4)
    _add_groups(own, places, slots, count)


def _add_groups(
    own: _Product, places: Sequence[ir.Value], slots: list[list[ir.Value]], count: ir.Value
) -> None:
    b, tile = own.builder, own.tile
    sums = [[cgutils.alloca_once(b, tile.kind) for _ in line] for line in slots]
    with cgutils.for_range(b, count, intp=I64) as step:
        _multiply_span(own, places, step.index, sums)
        place = plus(b, places[2], step.index, tile.rows * tile.bytes)
        scales = [own.vector_at(place, n) for n in range(tile.rows)]
        for line, into in zip(sums, slots, strict=True):
            for t, scale, slot in zip(line, scales, into, strict=True):
                b.store(fused(b, b.load(t), scale, b.load(slot, align=4)), slot, align=4)


def _multiply_span(
    own: _Product, places: Sequence[ir.Value], span: ir.Value, sums: list[list[ir.Value]]
) -> None:
    """The elements of a span, a few at a time: a run of 32 spelled out would be 400 instructions.

    The first product of a group's run is not added to +0: a -0 that comes of that is lost in the row's sum.
    """
    run, tile, b = own.codes.run, own.tile, own.builder
    first = b.mul(span, i64(run * tile.bytes))
    at = plus(b, places[0], first, tile.together), plus(b, places[1], first, tile.rows)
    if run <= STEP:
        for j in range(run):
            _multiply_place(own, at, sums, (j, j > 0 or not own.codes.group))
        return
    if own.codes.group:
        for slot in (slot for line in sums for slot in line):
            b.store(own.nothing, slot)
    with cgutils.for_range(b, i64(run // STEP), intp=I64) as step:
        some = b.mul(step.index, i64(STEP * tile.bytes))
        here = plus(b, at[0], some, tile.together), plus(b, at[1], some, tile.rows)
        for j in range(STEP):
            _multiply_place(own, here, sums, (j, True))


def _multiply_place(own: _Product, places: Pair, sums: list[list[ir.Value]], which: tuple[int, bool]) -> None:
    """One element of every lane; which: its place in the run, and whether the sums have begun."""
    b, tile = own.builder, own.tile
    j, begun = which
    rows = [own.vector_at(places[1], j * tile.rows + n) for n in range(tile.rows)]
    for m, line in enumerate(sums):
        x = own.vector_at(places[0], j * tile.together + m)
        for row, slot in zip(rows, line, strict=True):
            b.store(fused(b, row, x, b.load(slot)) if begun else b.fmul(row, x), slot)


def _write_sums(b: ir.IRBuilder, codes: Codes, sums: Pair, out: Pair, size: Pair) -> None:
    """Sums of lanes of a tile of rows of x and a block of rows, LANES of them at a time."""
    (room, block), (target, width), (many, height) = sums, out, size
    spare = cgutils.alloca_once(b, FLOAT)
    with cgutils.for_range(b, many, intp=I64) as m, pieces(b, height, i64(LANES)) as (n, count):
        place = plus(b, room, b.add(b.mul(m.index, block), n), BYTES)
        lanes = [load_as(b, b.add(place, i64(k * BYTES)), FLOAT) for k in range(LANES)]
        found = sums_of_lanes(b, codes.order, lanes)
        to = plus(b, target, b.add(b.mul(m.index, width), n), 4)
        with b.if_else(b.icmp_signed("==", count, i64(LANES))) as (whole, short):
            with whole:
                store(b, found, to)
            with short:
                b.store(found, spare)
                pointers = b.inttoptr(to, F32.as_pointer()), b.bitcast(spare, F32.as_pointer())
                cgutils.raw_memcpy(b, *pointers, count, i64(4))
