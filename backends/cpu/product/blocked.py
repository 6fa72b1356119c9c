"""Products with many rows of x: rows of codes are decoded into the caches, a part at a time, and multiplied
tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, I64
from numerics.backends.cpu.product.codes import Codes
from numerics.backends.cpu.product.rows import Rows, sum_of_lanes
from numerics.backends.cpu.product.vectors import (
    BYTES,
    FLOAT,
    ZERO,
    Pair,
    at_most,
    fused,
    i64,
    pieces,
    plus,
    store,
)
from numerics.backends.cpu.streams import load_as

BLOCKED_WORDS = 19
X_TILE = 16  # rows of x that the nearest cache holds with a part of their spans


def blocked(codes: Codes, tile: int, together: int) -> Callable[[ir.IRBuilder, list[ir.Value]], None]:
    """A kernel for many rows of x: a block of rows is decoded, a part of its spans at a time, and multiplied.

    Its words: those of `dot` up to the number of rows; then rows of x, rows of a block, spans of a part, and
    room for decoded values, scales and the sums of lanes (a vector a pair of rows).
    """

    def emit(b: ir.IRBuilder, words: list[ir.Value]) -> None:
        x, x_stride, out, width, rows, many, block, part, *rooms = words[8:]
        reading = Rows(b, codes, *words[:8])
        spans = reading.spans
        with pieces(b, rows, block) as (first_row, height), pieces(b, spans, part) as (first, count):
            _unfold(reading, (first_row, height), (first, count), rooms)
            with (
                pieces(b, many, i64(X_TILE)) as (outer, inner),
                pieces(b, height, i64(tile)) as (n, _),
                pieces(b, inner, i64(together)) as (m, _),
            ):
                lines = [at_most(b, b.add(n, i64(k)), b.sub(height, i64(1))) for k in range(tile)]
                last = b.sub(many, i64(1))
                ms = [at_most(b, b.add(b.add(outer, m), i64(k)), last) for k in range(together)]
                place_x = [plus(b, plus(b, x, k, x_stride), first, codes.run * BYTES) for k in ms]
                sums = [[plus(b, rooms[2], b.add(b.mul(k, block), n), BYTES) for k in ms] for n in lines]
                _multiply_tile(codes, b, (lines, rooms, place_x, sums), (first, count))
            done = b.icmp_signed("==", b.add(first, count), spans)
            with b.if_then(done):
                _write_sums(b, codes, (first_row, height, block), (many, rooms[2]), (out, width))

    return emit


def _unfold(reading: Rows, rows: Pair, spans: Pair, rooms: Sequence[ir.Value]) -> None:
    """Values of a part of the spans of some rows, in the order of lanes, and their scales."""
    b, codes = reading.builder, reading.codes
    (first_row, height), (first, count) = rows, spans
    with cgutils.for_range(b, height, intp=I64) as loop:
        places = reading.places([b.add(first_row, loop.index)])
        start = b.mul(loop.index, count)
        with cgutils.for_range(b, count, intp=I64) as step:
            ((values, scale),) = reading.at(places, b.add(first, step.index))
            span = b.add(start, step.index)
            place = plus(b, rooms[0], span, codes.run * BYTES)
            for j, value in enumerate(values):
                store(b, value, b.add(place, i64(j * BYTES)))
            if scale is not None:
                store(b, scale, plus(b, rooms[1], span, BYTES))


def _multiply_tile(codes: Codes, b: ir.IRBuilder, places: Any, spans: Pair) -> None:
    """The sums of a few rows with a few rows of x go on over a part of the spans."""
    lines, rooms, place_x, at = places
    first, count = spans
    run = codes.run
    place_w = [plus(b, rooms[0], b.mul(n, count), run * BYTES) for n in lines]
    place_s = [plus(b, rooms[1], b.mul(n, count), BYTES) for n in lines]
    begun = b.icmp_signed(">", first, i64(0))
    sums = [[cgutils.alloca_once(b, FLOAT) for _ in line] for line in at]
    for line, slots in zip(at, sums, strict=True):
        for place, slot in zip(line, slots, strict=True):
            b.store(b.select(begun, load_as(b, place, FLOAT), ZERO), slot)
    with cgutils.for_range(b, count, intp=I64) as step:
        _multiply_span(b, (place_w, place_s, place_x), sums, step.index, (run, bool(codes.group)))
    for line, slots in zip(at, sums, strict=True):
        for place, slot in zip(line, slots, strict=True):
            store(b, b.load(slot), place)


def _write_sums(b: ir.IRBuilder, codes: Codes, rows: Any, sums: Pair, out: Pair) -> None:
    first_row, height, block = rows
    many, room = sums
    with cgutils.for_range(b, many, intp=I64) as m, cgutils.for_range(b, height, intp=I64) as n:
        lanes = load_as(b, plus(b, room, b.add(b.mul(m.index, block), n.index), BYTES), FLOAT)
        column = b.add(first_row, n.index)
        place = plus(b, out[0], b.add(b.mul(m.index, out[1]), column), 4)
        b.store(sum_of_lanes(b, codes.order, lanes), b.inttoptr(place, F32.as_pointer()))


def _multiply_span(
    b: ir.IRBuilder, places: tuple[list[ir.Value], ...], sums: list[list[ir.Value]], span: ir.Value,
    how: tuple[int, bool],
) -> None:  # fmt: skip
    (run, scaled), (place_w, place_s, place_x) = how, places
    t = [[ZERO if scaled else b.load(slot) for slot in line] for line in sums]
    for j in range(run):
        w = [load_as(b, b.add(plus(b, place, span, run * BYTES), i64(j * BYTES)), FLOAT) for place in place_w]
        for m, place in enumerate(place_x):
            lane = load_as(b, b.add(plus(b, place, span, run * BYTES), i64(j * BYTES)), FLOAT)
            for r in range(len(place_w)):
                t[r][m] = fused(b, w[r], lane, t[r][m])
    for r, line in enumerate(sums):
        scale = load_as(b, plus(b, place_s[r], span, BYTES), FLOAT) if scaled else None
        for m, slot in enumerate(line):
            b.store(t[r][m] if scale is None else fused(b, t[r][m], scale, b.load(slot)), slot)
