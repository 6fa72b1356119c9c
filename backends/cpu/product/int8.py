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

from numerics.backends.cpu.lanes import I8, I64
from numerics.backends.cpu.product import vectors
from numerics.backends.cpu.product.codes import Codes, values_of_span
from numerics.backends.cpu.product.dot import Emit, of_few
from numerics.backends.cpu.product.rows import Place, Rows, Span
from numerics.backends.cpu.product.vectors import (
    FLOAT,
    WORD,
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
SHORT = 32767  # what sums of 16 bits hold


@dataclass(frozen=True)
class Counted(Codes):
    """Codes whose values are counts of a step: of 8 bits integers, of 4 bits by a table, from 0.

    A value is step * (count + least); step: a power of two.  together: spans whose products are summed as
    integers; 0: all of a row.
    """

    counts: tuple[int, ...] | None = None
    least: int = 0
    step: float = 1.0
    together: int = 0

    @property
    def short(self) -> bool:
        """Do those sums fit 16 bits, of four products each?"""
        return self.counts is not None and 0 < max(self.counts) * 127 * RUN_OF_INT8 * self.together <= SHORT


@lru_cache(maxsize=64)
def record(bits: int, together: int) -> np.dtype[Any]:
    """Spans of a row of x that are summed together, as kernels read them: a structure of NumPy's.

    even, odd: elements by turns, int8 beside codes of 4 bits and int16 beside those of 8.  sums: of the
    elements of a lane.  shift: the same times `least`.  scale: of the lane's group.
    """
    element = "i1" if bits == 4 else "i2"
    parts = [("even", element, 2 * LANES), ("odd", element, 2 * LANES)]
    return np.dtype([
        ("parts", parts, together), ("sums", "i4", LANES), ("shift", "i4", LANES), ("scale", "f4", LANES),
    ])  # fmt: skip


def in_records(x: Int8Rows, order: Order, codes: Counted) -> NDArray[Any]:
    """Rows of x as records: (m, records of a row); what is behind their end is 0."""
    (many, length), spans = x.codes.shape, order.spans(x.codes.shape[1])
    together = codes.together or spans
    count = -(-spans // together)
    whole = np.zeros((many, count * together * SPAN), np.int8)
    whole[:, :length] = x.codes
    found = np.empty((many, count), record(codes.bits, together))
    pairs = whole.reshape(many, count, together, 2 * LANES, 2)
    found["parts"]["even"], found["parts"]["odd"] = pairs[..., 0], pairs[..., 1]
    runs = whole.reshape(many, count, together, LANES, RUN_OF_INT8)
    found["sums"] = runs.sum(axis=(2, 4), dtype=np.int32)
    found["shift"] = found["sums"] * codes.least
    if order.group:
        first = (np.arange(count)[:, None] * together * LANES + np.arange(LANES)) * RUN_OF_INT8
        found["scale"] = x.scale[:, np.minimum(first // order.group, x.scale.shape[1] - 1)]
    return found


class _Record(NamedTuple):
    """A record of x: its address, and where its parts lie in it."""

    address: ir.Value
    bits: int
    spans: ir.Value  # that it has

    def part(self, b: ir.IRBuilder, span: ir.Value, name: str, place: tuple[ir.Type, int]) -> ir.Value:
        """Elements of one of its spans."""
        half = 2 * LANES * (1 if self.bits == 4 else 2)
        base = plus(b, self.address, span, 2 * half)
        return load_as(b, b.add(base, i64((half if name == "odd" else 0) + place[1])), place[0])

    def beside(self, b: ir.IRBuilder, name: str, kind: ir.Type) -> ir.Value:
        """What stands behind its spans."""
        fields = record(self.bits, 1).fields
        assert fields is not None
        size = 4 * LANES * (1 if self.bits == 4 else 2)
        behind = plus(b, self.address, self.spans, size)
        return load_as(b, b.add(behind, i64(int(fields[name][1]) - size)), kind)


def dot_of_int8(codes: Counted, tile: int, together: int) -> Emit:
    """The kernel of few rows for products in int8; x lies in records."""
    return of_few(codes, tile, together, _add_records)


def _add_records(reading: Rows, places: list[Place], x: vectors.Pair, sums: list[list[ir.Value]]) -> None:
    b, codes = reading.builder, reading.codes
    assert isinstance(codes, Counted)
    several = i64(codes.together) if codes.together else reading.spans
    with vectors.pieces(b, reading.spans, several) as (first, count):
        at = plus(b, x[0], first, 4 * LANES * (1 if codes.bits == 4 else 2))
        at = plus(b, at, b.udiv(first, several), 3 * vectors.BYTES)
        others = [_Record(plus(b, at, i64(m), x[1]), codes.bits, several) for m in range(len(sums[0]))]
        _sum_together(reading, places, (first, count), others, sums)


def _sum_together(reading: Rows, places: Any, spans: vectors.Pair, others: list[_Record], sums: Any) -> None:
    """The sums of rows of codes go on over some spans, in integers, for each row of x."""
    b, (first, count) = reading.builder, spans
    codes = reading.codes
    assert isinstance(codes, Counted)
    short = codes.short and vectors.has("avx2")
    kind, nothing = (HALVES, filled(0, HALVES)) if short else (WORD, filled(0))
    found = [[cgutils.alloca_once(b, kind) for _ in others] for _ in places]
    for slot in (slot for line in found for slot in line):
        b.store(nothing, slot)
    ahead = b.mul(reading.stride, i64(len(places)))
    with cgutils.for_range(b, count, intp=I64) as step:
        span = b.add(first, step.index)
        for address, line in zip(reading.addresses(places, span), found, strict=True):
            prefetch(b, b.add(address, ahead))
            multiply = _multiplier(b, codes, address)
            for x, slot in zip(others, line, strict=True):
                b.store(b.add(b.load(slot), multiply(x, step.index)), slot)
    for beside, line, slots in zip(reading.spans_at(places, first), found, sums, strict=True):
        for x, integers, slot in zip(others, line, slots, strict=True):
            _add(b, codes, beside, x, (integers, slot))


def _add(b: ir.IRBuilder, codes: Counted, span: Span, x: _Record, slots: vectors.Pair) -> None:
    """Integers of 16 lanes, as the values that they count, times both scales, onto the sums."""
    whole = b.load(slots[0])
    if whole.type != WORD:
        whole = b.sext(whole, WORD)
    if codes.least:
        whole = b.add(whole, x.beside(b, "shift", WORD))
    if span.zero is not None:
        whole = b.sub(whole, b.mul(b.fptosi(span.zero, WORD), x.beside(b, "sums", WORD)))
    t, before = b.sitofp(whole, FLOAT), b.load(slots[1])
    if codes.step != 1.0:
        t = b.fmul(t, ir.Constant(FLOAT, [codes.step] * LANES))
    if span.scale is None:
        b.store(t, slots[1])
    else:
        b.store(fused(b, t, b.fmul(span.scale, x.beside(b, "scale", FLOAT)), before), slots[1])


Multiplier = Callable[[_Record, ir.Value], ir.Value]


def _multiplier(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """What gives the sums of four products, int32 or short, of the codes there and a span of x."""
    if not vectors.has("avx2"):
        return _one_by_one(b, codes, address)
    return _of_bytes(b, codes, address) if codes.bits == 8 else _of_nibbles(b, codes, address)


def _one_by_one(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """Everywhere: a vector for each place of a run."""
    scaled = [
        b.fmul(v, ir.Constant(FLOAT, [1 / codes.step] * LANES)) for v in values_of_span(b, codes, address)
    ]
    counts = [b.sub(b.fptosi(value, WORD), filled(codes.least)) for value in scaled]

    def multiply(x: _Record, span: ir.Value) -> ir.Value:
        kind = vector(I8 if codes.bits == 4 else I16, 2 * LANES)
        parts = [x.part(b, span, name, (kind, 0)) for name in ("even", "odd")]
        t = filled(0)
        for k, count in enumerate(counts):
            own = shuffled(b, parts[k % 2], range(k // 2, 2 * LANES, 2))
            t = b.add(t, b.mul(count, b.sext(own, WORD)))
        return t

    return multiply


def _of_nibbles(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """Counts of codes of 4 bits times bytes of x, by AVX2: one instruction sums pairs of products."""
    counts = codes.counts
    assert counts is not None
    loaded = load_as(b, address, BYTES)
    halves = [b.and_(part, filled(15, BYTES)) for part in (loaded, b.lshr(loaded, filled(4, BYTES)))]
    if counts != tuple(range(16)):
        table = ir.Constant(BYTES, [*counts] * 2)
        halves = [_instruction(b, "pshuf.b", BYTES, table, part) for part in halves]

    def multiply(x: _Record, span: ir.Value) -> ir.Value:
        even, odd = (
            _instruction(b, "pmadd.ub.sw", HALVES, part, x.part(b, span, name, (BYTES, 0)))
            for part, name in zip(halves, ("even", "odd"), strict=True)
        )
        if max(counts) * 127 * RUN_OF_INT8 > SHORT:
            return b.add(b.sext(even, WORD), b.sext(odd, WORD))
        return b.add(even, odd) if codes.short else b.sext(b.add(even, odd), WORD)

    return multiply


def _of_bytes(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """Integers of 8 bits times x, by AVX2."""
    extend, eight = b.ashr if codes.signed else b.lshr, filled(8, HALVES)
    parts = []
    for first in (0, 2 * LANES):
        loaded = load_as(b, b.add(address, i64(first)), HALVES)
        parts.append((extend(b.shl(loaded, eight), eight), extend(loaded, eight)))

    def multiply(x: _Record, span: ir.Value) -> ir.Value:
        found = []
        for first, halves in enumerate(parts):
            even, odd = (
                _instruction(b, "pmadd.wd", vector(WORD.element, LANES // 2), part,
                             x.part(b, span, name, (HALVES, 2 * LANES * first)))
                for part, name in zip(halves, ("even", "odd"), strict=True)
            )  # fmt: skip
            found.append(b.add(even, odd))
        return b.shuffle_vector(*found, ir.Constant(WORD, [*range(LANES)]))

    return multiply


def _instruction(b: ir.IRBuilder, name: str, result: ir.Type, *operands: ir.Value) -> ir.Value:
    """An instruction of AVX2 for bytes or words of 256 bits."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.x86.avx2.{name}"), operands)
