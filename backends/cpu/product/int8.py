"""Products in int8: codes of 4 or 8 bits times integers of 8 bits, in integers where AVX2 can.

The products of a lane's four elements are summed exactly, so that any way to them gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

from numerics.backends.cpu.lanes import F32, I8, I64
from numerics.backends.cpu.product import vectors
from numerics.backends.cpu.product.codes import Codes, values_of_span
from numerics.backends.cpu.product.rows import Rows, Span, sum_of_lanes
from numerics.backends.cpu.product.vectors import (
    FLOAT,
    WORD,
    ZERO,
    filled,
    fused,
    i64,
    plus,
    prefetch,
    shuffled,
)
from numerics.backends.cpu.streams import load_as, vector
from numerics.backends.host.product import LANES, RUN_OF_INT8, Int8Rows, Order

I16 = ir.IntType(16)
BYTES, HALVES = vector(I8, 2 * LANES), vector(I16, LANES)
SPAN = LANES * RUN_OF_INT8
NARROW = 64  # counts up to which four products and their sum fit 16 bits


@dataclass(frozen=True)
class Counted(Codes):
    """Codes whose values are counts of a step: of 8 bits integers, of 4 bits by a table, from 0.

    A value is step * (count + least); step: a power of two.
    """

    counts: tuple[int, ...] | None = None
    least: int = 0
    step: float = 1.0

    @property
    def in_integers(self) -> bool:
        """Are products summed in integers?"""
        return vectors.has("avx2")


@lru_cache(maxsize=64)
def record(bits: int) -> np.dtype[Any]:
    """A span of a row of x as kernels read it: a structure of NumPy's.

    even, odd: elements by turns, int8 beside codes of 4 bits and int16 beside those of 8.  sums: of the four
    elements of a lane.  shift: the same times `least`.  scale: of the lane's group.
    """
    element = "i1" if bits == 4 else "i2"
    return np.dtype([
        ("even", element, 2 * LANES), ("odd", element, 2 * LANES), ("sums", "f4", LANES),
        ("shift", "i4", LANES), ("scale", "f4", LANES),
    ])  # fmt: skip


def in_records(x: Int8Rows, order: Order, codes: Counted) -> NDArray[Any]:
    """Rows of x as records: (m, spans); what is behind their end is 0."""
    (many, length), spans = x.codes.shape, order.spans(x.codes.shape[1])
    whole = np.zeros((many, spans * SPAN), np.int8)
    whole[:, :length] = x.codes
    found = np.empty((many, spans), record(codes.bits))
    parts = whole.reshape(many, spans, 2 * LANES, 2)
    found["even"], found["odd"] = parts[..., 0], parts[..., 1]
    found["sums"] = whole.reshape(many, spans, LANES, RUN_OF_INT8).sum(axis=-1, dtype=np.int32)
    found["shift"] = found["sums"] * codes.least
    if order.group:
        first = np.arange(spans * LANES) * RUN_OF_INT8 // order.group
        groups = np.minimum(first, x.scale.shape[1] - 1).reshape(spans, LANES)
        found["scale"] = x.scale[:, groups]
    return found


class _Record(NamedTuple):
    """Where the parts of a record of x lie."""

    base: ir.Value
    bits: int

    def at(self, b: ir.IRBuilder, name: str, kind: ir.Type, skipped: int = 0) -> ir.Value:
        fields = record(self.bits).fields
        assert fields is not None
        return load_as(b, b.add(self.base, i64(int(fields[name][1]) + skipped)), kind)


WORDS = 13


def dot_of_int8(codes: Counted, tile: int, together: int) -> Callable[[ir.IRBuilder, list[ir.Value]], None]:
    """A kernel of `tile` rows of codes and `together` rows of x at a time.

    Its words: codes, bytes a row, scales, zero points, groups a row, whole spans, bytes and groups of the
    tail, records of x, bytes a row of x, out, elements a row of out, rows of codes.
    """

    def emit(b: ir.IRBuilder, words: list[ir.Value]) -> None:
        x, x_stride, out, width, rows = words[8:]
        reading = Rows(b, codes, *words[:8])
        sums = [[cgutils.alloca_once(b, FLOAT) for _ in range(together)] for _ in range(tile)]
        tiles, last = b.udiv(b.add(rows, i64(tile - 1)), i64(tile)), b.sub(rows, i64(1))
        with cgutils.for_range(b, tiles, intp=I64) as loop:
            numbers = [vectors.at_most(b, plus(b, i64(k), loop.index, tile), last) for k in range(tile)]
            places = reading.places(numbers)
            for slot in (slot for line in sums for slot in line):
                b.store(ZERO, slot)
            ahead = b.mul(reading.stride, i64(tile))
            with cgutils.for_range(b, reading.spans, intp=I64) as step:
                for place in places:
                    prefetch(b, b.add(plus(b, place[0], step.index, codes.span_bytes), ahead))
                base = plus(b, x, step.index, record(codes.bits).itemsize)
                others = [_Record(plus(b, base, i64(m), x_stride), codes.bits) for m in range(together)]
                for span, line in zip(reading.spans_at(places, step.index), sums, strict=True):
                    _take(b, codes, span, others, line)
            for number, line in zip(numbers, sums, strict=True):
                for m, slot in enumerate(line):
                    place = plus(b, plus(b, out, i64(m), b.mul(width, i64(4))), number, 4)
                    total = sum_of_lanes(b, codes.order, b.load(slot))
                    b.store(total, b.inttoptr(place, F32.as_pointer()))

    return emit


def _take(b: ir.IRBuilder, codes: Counted, span: Span, others: list[_Record], sums: list[ir.Value]) -> None:
    """The sums of a row of codes go on over a span, for each row of x."""
    multiply = _in_integers(b, codes, span) if codes.in_integers else _in_floats(b, codes, span)
    for x, slot in zip(others, sums, strict=True):
        t, before = multiply(x), b.load(slot)
        if span.scale is None:
            b.store(b.fadd(before, t), slot)
        else:
            scale = b.fmul(span.scale, x.at(b, "scale", FLOAT))
            b.store(fused(b, t, scale, before), slot)


def _in_floats(b: ir.IRBuilder, codes: Counted, span: Span) -> Callable[[_Record], ir.Value]:
    """Everywhere: values times integers, float32 numbers that are exact, as are their sums."""
    values = values_of_span(b, codes, span.address)
    if span.zero is not None:
        values = [b.fsub(value, span.zero) for value in values]

    def multiply(x: _Record) -> ir.Value:
        kind = vector(I8 if codes.bits == 4 else I16, 2 * LANES)
        parts = [x.at(b, name, kind) for name in ("even", "odd")]
        t = ZERO
        for k, value in enumerate(values):
            own = shuffled(b, parts[k % 2], range(k // 2, 2 * LANES, 2))
            t = b.fadd(t, b.fmul(value, b.sitofp(own, FLOAT)))
        return t

    return multiply


def _in_integers(b: ir.IRBuilder, codes: Counted, span: Span) -> Callable[[_Record], ir.Value]:
    """By AVX2: pairs of products are summed by one instruction."""
    sums_of = _bytes_times(b, codes, span) if codes.bits == 8 else _nibbles_times(b, codes, span)

    def multiply(x: _Record) -> ir.Value:
        whole = sums_of(x)
        if codes.least:
            whole = b.add(whole, x.at(b, "shift", WORD))
        t = b.sitofp(whole, FLOAT)
        if codes.step != 1.0:
            t = b.fmul(t, ir.Constant(FLOAT, [codes.step] * LANES))
        if span.zero is not None:
            t = b.fsub(t, b.fmul(span.zero, x.at(b, "sums", FLOAT)))  # exact: less than 2**24
        return t

    return multiply


def _nibbles_times(b: ir.IRBuilder, codes: Counted, span: Span) -> Callable[[_Record], ir.Value]:
    """Counts of codes of 4 bits times bytes of x: sums of four, int32."""
    assert codes.counts is not None
    loaded = load_as(b, span.address, BYTES)
    halves = [b.and_(part, filled(15, BYTES)) for part in (loaded, b.lshr(loaded, filled(4, BYTES)))]
    if codes.counts != tuple(range(16)):
        table = ir.Constant(BYTES, [*codes.counts] * 2)
        halves = [_instruction(b, "pshuf.b", BYTES, table, part) for part in halves]

    def multiply(x: _Record) -> ir.Value:
        pairs = [
            _instruction(b, "pmadd.ub.sw", HALVES, part, x.at(b, name, BYTES))
            for part, name in zip(halves, ("even", "odd"), strict=True)
        ]
        assert codes.counts is not None
        if max(codes.counts) > NARROW:
            pairs = [b.sext(pair, WORD) for pair in pairs]
        return b.sext(b.add(*pairs), WORD) if max(codes.counts) <= NARROW else b.add(*pairs)

    return multiply


def _bytes_times(b: ir.IRBuilder, codes: Counted, span: Span) -> Callable[[_Record], ir.Value]:
    """Integers of 8 bits times x: sums of four, int32."""
    extend, eight = b.ashr if codes.signed else b.lshr, filled(8, HALVES)
    parts = []
    for first in (0, 2 * LANES):
        loaded = load_as(b, b.add(span.address, i64(first)), HALVES)
        parts.append((extend(b.shl(loaded, eight), eight), extend(loaded, eight)))

    def multiply(x: _Record) -> ir.Value:
        found = []
        for first, (even, odd) in enumerate(parts):
            pairs = [
                _instruction(
                    b, "pmadd.wd", vector(WORD.element, 8), part, x.at(b, name, HALVES, 2 * LANES * first)
                )
                for part, name in ((even, "even"), (odd, "odd"))
            ]
            found.append(b.add(*pairs))
        return b.shuffle_vector(*found, ir.Constant(WORD, [*range(LANES)]))

    return multiply


def _instruction(b: ir.IRBuilder, name: str, result: ir.Type, *operands: ir.Value) -> ir.Value:
    """An instruction of AVX2 for bytes or words of 256 bits."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.x86.avx2.{name}"), operands)
