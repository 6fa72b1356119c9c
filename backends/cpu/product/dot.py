"""Products with few rows of x: codes are decoded in registers, a few rows at a time, in one pass."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, I64
from numerics.backends.cpu.product.codes import Codes
from numerics.backends.cpu.product.rows import Rows, sum_of_lanes
from numerics.backends.cpu.product.vectors import BYTES, FLOAT, ZERO, fused, i64, plus, prefetch
from numerics.backends.cpu.streams import load_as

DOT_WORDS = 13


def dot(codes: Codes, tile: int, together: int) -> Callable[[ir.IRBuilder, list[ir.Value]], None]:
    """A kernel for few rows of x: `tile` rows of codes and `together` rows of x at a time.

    Its words: codes, bytes a row, scales, zero points, groups a row, whole spans, bytes and groups of the
    tail, x in the order of lanes, bytes a row of x, out, elements a row of out, rows of codes.
    """

    def emit(b: ir.IRBuilder, words: list[ir.Value]) -> None:
        x, x_stride, out, width, rows = words[8:]
        reading = Rows(b, codes, *words[:8])
        spans = reading.spans
        sums = [[cgutils.alloca_once(b, FLOAT) for _ in range(together)] for _ in range(tile)]
        tiles = b.udiv(b.add(rows, i64(tile - 1)), i64(tile))
        last = b.sub(rows, i64(1))
        with cgutils.for_range(b, tiles, intp=I64) as loop:
            numbers = [b.add(b.mul(loop.index, i64(tile)), i64(k)) for k in range(tile)]
            numbers = [b.select(b.icmp_signed(">", n, last), last, n) for n in numbers]
            places = reading.places(numbers)
            for row in sums:
                for room in row:
                    b.store(ZERO, room)
            ahead = b.mul(reading.stride, i64(tile))
            with cgutils.for_range(b, spans, intp=I64) as step:
                for place in places:
                    prefetch(b, b.add(plus(b, place[0], step.index, codes.span_bytes), ahead))
                _take_span(b, reading.at(places, step.index), sums, (x, x_stride, step.index), codes)
            for number, row in zip(numbers, sums, strict=True):
                for m, room in enumerate(row):
                    total = sum_of_lanes(b, codes.order, b.load(room))
                    place = plus(b, plus(b, out, i64(m), b.mul(width, i64(4))), number, 4)
                    b.store(total, b.inttoptr(place, F32.as_pointer()))

    return emit


def _take_span(
    b: ir.IRBuilder, rows: list[tuple[list[ir.Value], ir.Value | None]], sums: list[list[ir.Value]],
    x: tuple[ir.Value, ir.Value, ir.Value], codes: Codes,
) -> None:  # fmt: skip
    base, stride, span = x
    base = plus(b, base, span, codes.run * BYTES)
    scaled = rows[0][1] is not None
    t = [[ZERO if scaled else b.load(room) for room in row] for row in sums]
    for j in range(codes.run):
        for m in range(len(sums[0])):
            place = plus(b, b.add(base, i64(j * BYTES)), i64(m), stride)
            lane = load_as(b, place, FLOAT)
            for r, (values, _) in enumerate(rows):
                t[r][m] = fused(b, values[j], lane, t[r][m])
    for r, (_, scale) in enumerate(rows):
        for m, room in enumerate(sums[r]):
            b.store(t[r][m] if scale is None else fused(b, t[r][m], scale, b.load(room)), room)
