"""Products with few rows of x: codes are decoded in registers, a few rows at a time, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, I64
from numerics.backends.cpu.lookups import shuffled
from numerics.backends.cpu.product.codes import Codes
from numerics.backends.cpu.product.rows import Place, Rows, sum_of_lanes
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
    prefetch,
    store,
    turned,
)
from numerics.backends.cpu.streams import load_as, vector
from numerics.backends.host.product import LANES

WORDS = 15
LANES_WORDS = 7
Emit = Callable[[ir.IRBuilder, list[ir.Value]], None]
Add = Callable[[Rows, list[Place], Pair, list[list[ir.Value]]], None]


def of_few(codes: Codes, tile: int, together: int, add: Add) -> Emit:
    """A kernel for few rows of x: `tile` rows of codes and `together` rows of x at a time.

    Its words: codes, bytes a row, scales, zero points, groups a row, whole spans, bytes and groups of the
    tail, x as `add` reads it, bytes a row of x, out, elements a row of out, rows of codes; how many times so
    many rows of x there are, and rows of codes that a cache holds for all of them.  add: emits the sums of
    lanes of some rows, given where those begin, x and its bytes a row, and room for the sums.
    """

    def emit(b: ir.IRBuilder, words: list[ir.Value]) -> None:
        x, x_stride, out, width, rows, times, most = words[8:]
        reading = Rows(b, codes, *words[:8])
        sums = [[cgutils.alloca_once(b, FLOAT) for _ in range(together)] for _ in range(tile)]
        last = b.sub(rows, i64(1))
        with pieces(b, rows, most) as (first, height), cgutils.for_range(b, times, intp=I64) as turn:
            own = b.mul(turn.index, i64(together))
            others, target = plus(b, x, own, x_stride), plus(b, out, own, b.mul(width, i64(4)))
            with pieces(b, height, i64(tile)) as (start, _):
                numbers = [at_most(b, b.add(b.add(first, start), i64(k)), last) for k in range(tile)]
                places = reading.places(numbers)
                for slot in (slot for line in sums for slot in line):
                    b.store(ZERO, slot)
                add(reading, places, (others, x_stride), sums)
                for number, line in zip(numbers, sums, strict=True):
                    for m, slot in enumerate(line):
                        total = sum_of_lanes(b, codes.order, b.load(slot))
                        place = plus(b, plus(b, target, i64(m), b.mul(width, i64(4))), number, 4)
                        b.store(total, b.inttoptr(place, F32.as_pointer()))

    return emit


def lanes(order: Sequence[int], run: int) -> Emit:
    """A kernel that lays rows of x in the order of lanes, (rows, spans, run, lanes), zeros behind their end.

    Its words: x, bytes a row of it, the room, bytes a row of that; rows, whole spans, and bytes behind those.
    """

    def emit(b: ir.IRBuilder, words: list[ir.Value]) -> None:
        x, stride, room, step, rows, whole, rest = words
        spare = cgutils.alloca_once(b, FLOAT, size=run)
        cgutils.memset(b, spare, i64(run * BYTES), 0)
        with cgutils.for_range(b, rows, intp=I64) as row:
            source, target = plus(b, x, row.index, stride), plus(b, room, row.index, step)
            with cgutils.for_range(b, whole, intp=I64) as span:
                _lay_span(b, order, run, *(plus(b, at, span.index, run * BYTES) for at in (source, target)))
            with b.if_then(b.icmp_signed(">", rest, i64(0))):
                left, behind = (plus(b, at, whole, run * BYTES) for at in (source, target))
                cgutils.raw_memcpy(b, spare, b.inttoptr(left, spare.type), rest, i64(1))
                _lay_span(b, order, run, b.ptrtoint(spare, I64), behind)

    return emit


def _lay_span(b: ir.IRBuilder, order: Sequence[int], run: int, source: ir.Value, target: ir.Value) -> None:
    """A span of x in the order of lanes; a few places of every lane are turned at once."""
    few = min(run, 4)
    with cgutils.for_range(b, i64(run // few), intp=I64) as step:
        read, write = plus(b, source, step.index, 4 * few), plus(b, target, step.index, few * BYTES)
        parts = [load_as(b, b.add(read, i64(4 * run * lane)), vector(F32, few)) for lane in order]
        if run == few:  # lanes follow each other
            whole = (load_as(b, b.add(read, i64(BYTES * k)), FLOAT) for k in range(run))
            parts = [
                shuffled(b, v, range(few * k, few * (k + 1))) for v in whole for k in range(LANES // few)
            ]
            parts = [parts[lane] for lane in order]
        for j, found in enumerate(turned(b, parts)):
            store(b, found, b.add(write, i64(j * BYTES)))


def dot(codes: Codes, tile: int, together: int) -> Emit:
    """The kernel of few rows for products in float32; x lies in the order of lanes."""
    return of_few(codes, tile, together, _add_spans)


def _add_spans(reading: Rows, places: list[Place], x: Pair, sums: list[list[ir.Value]]) -> None:
    """The last, short span is taken apart: to ask at each whole one whether it is that costs a third."""
    b, codes = reading.builder, reading.codes
    ahead = b.mul(reading.stride, i64(len(places)))

    def take(span: ir.Value, short: bool) -> None:
        base = plus(b, x[0], span, codes.run * BYTES)
        _take_span(b, reading.at(places, span, short), sums, (base, x[1]), codes)

    with cgutils.for_range(b, reading.whole, intp=I64) as step:
        for place in places:
            prefetch(b, b.add(plus(b, place[0], step.index, codes.span_bytes), ahead))
        take(step.index, short=False)
    with b.if_then(b.icmp_signed("<", reading.whole, reading.spans)):
        take(reading.whole, short=True)


def _take_span(
    b: ir.IRBuilder, rows: list[tuple[list[ir.Value], ir.Value | None]], sums: list[list[ir.Value]],
    x: Pair, codes: Codes,
) -> None:  # fmt: skip
    base, stride = x
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
