"""Products in int8: codes of 4 or 8 bits times integers of 8 bits, in integers where x86 can.

The products of a lane's four elements are summed exactly, so that any way to them gives the same bits: by
VNNI, whose instruction sums four products of bytes onto 32 bits, by AVX2, or one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

from numerics.backends.cpu.lanes import I8, I64
from numerics.backends.cpu.lookups import instruction, shuffled
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
)
from numerics.backends.cpu.streams import load_as, vector
from numerics.backends.host.memory import on_a_line
from numerics.backends.host.product import LANES, RUN_OF_INT8, Int8Rows, Order

I16 = ir.IntType(16)
BYTES, HALVES = vector(I8, 2 * LANES), vector(I16, LANES)
SPAN = LANES * RUN_OF_INT8
WHOLE = vector(I8, SPAN)
MORE = 128  # that bytes of x are beside VNNI, which takes one of its operands without a sign
SHORT = 32767  # what sums of 16 bits hold


def bytes_of_fours() -> int:
    """Bytes of a register whose products are summed four by four; 0 where no instruction does so."""
    return SPAN if vectors.has("avx512vnni") else SPAN // 2 if vectors.has("avxvnni") else 0


@dataclass(frozen=True)
class Counted(Codes):
    """Codes whose values are counts of a step: of 4 bits by a table.

    A value is step * (count + least); step: a power of two.  counts: from 0, or with signs where four
    products are summed at once.  together: spans whose products are summed as integers; 0: all of a row.
    """

    counts: tuple[int, ...] | None = None
    least: int = 0
    step: float = 1.0
    together: int = 0

    @property
    def short(self) -> bool:
        """Are those sums of 16 bits, of four products each?"""
        most = 0 if self.counts is None else max(self.counts) * 127 * RUN_OF_INT8 * self.together
        return 0 < most <= SHORT and vectors.has("avx2") and not bytes_of_fours()

    @property
    def element(self) -> str:
        """What integers of x are stored as beside these codes."""
        return "i1" if self.bits == 4 or bytes_of_fours() else "i2"

    @property
    def x_bytes(self) -> int:
        """Bytes of a span of x."""
        return SPAN * np.dtype(self.element).itemsize

    @property
    def beside(self) -> tuple[str, ...]:
        """What stands behind the spans of a record of x."""
        return ("scale",) * bool(self.group) + ("sums",) * bool(self.least or self.zero)


@lru_cache(maxsize=64)
def record(element: str, beside: tuple[str, ...], together: int) -> np.dtype[Any]:
    """Spans of a row of x that are summed together, as kernels read them: a structure of NumPy's.

    x: in order and MORE where four are summed at once, else the even elements of a span before the odd ones.
    scale: of the lane's group.  sums: of the elements of a lane; times `least` where zero points are none.
    """
    kinds = {"scale": "f4", "sums": "i4"}
    return np.dtype([("x", element, (together, SPAN)), *((name, kinds[name], LANES) for name in beside)])


def in_records(x: Int8Rows, order: Order, codes: Counted) -> NDArray[Any]:
    """Rows of x as records: (m, records of a row); what is behind their end is 0."""
    (many, length), spans = x.codes.shape, order.spans(x.codes.shape[1])
    together = codes.together or spans
    count = -(-spans // together)
    if count * together * SPAN == length and x.codes.flags.c_contiguous:
        whole = x.codes.reshape(many, count, together, SPAN)
    else:
        whole = np.zeros((many, count, together, SPAN), np.int8)
        whole.reshape(many, -1)[:, :length] = x.codes
    found = on_a_line((many, count), record(codes.element, codes.beside, together))
    if bytes_of_fours():
        np.bitwise_xor(whole, np.int8(-MORE), out=found["x"])
    else:
        found["x"][..., : SPAN // 2], found["x"][..., SPAN // 2 :] = whole[..., ::2], whole[..., 1::2]
    if "sums" in codes.beside:
        runs = whole.reshape(many, count, together, LANES, RUN_OF_INT8)
        found["sums"] = runs.sum(axis=(2, 4), dtype=np.int32) * (1 if codes.zero else codes.least)
    if "scale" in codes.beside:
        found["scale"] = x.scale[:, _groups_of_lanes(count, together, order.group, x.scale.shape[1])]
    return found


@lru_cache(maxsize=64)
def _groups_of_lanes(count: int, together: int, group: int, groups: int) -> NDArray[np.intp]:
    """Which group each lane of each record is of: (records, lanes)."""
    first = (np.arange(count)[:, None] * together * LANES + np.arange(LANES)) * RUN_OF_INT8
    return np.minimum(first // group, groups - 1)


class _Record(NamedTuple):
    """A record of x: its address, that of what is beside its spans, and the codes that it meets."""

    address: ir.Value
    behind: ir.Value
    codes: Counted

    def part(self, b: ir.IRBuilder, span: ir.Value, kind: ir.Type, first: int = 0) -> ir.Value:
        """Elements of one of its spans, from a byte on."""
        return load_as(b, b.add(plus(b, self.address, span, self.codes.x_bytes), i64(first)), kind)

    def beside(self, b: ir.IRBuilder, name: str, kind: ir.Type) -> ir.Value:
        """What stands behind its spans."""
        return load_as(b, b.add(self.behind, i64(self.codes.beside.index(name) * vectors.BYTES)), kind)


def dot_of_int8(codes: Counted, tile: int, together: int) -> Emit:
    """The kernel for products in int8; x lies in records."""
    return of_few(codes, tile, together, _add_records)


def _add_records(reading: Rows, places: list[Place], x: vectors.Pair, sums: list[list[ir.Value]]) -> None:
    b, codes = reading.builder, reading.codes
    assert isinstance(codes, Counted)
    several = i64(codes.together) if codes.together else reading.spans
    with vectors.pieces(b, reading.spans, several) as (first, count):
        at = plus(
            b, plus(b, x[0], first, codes.x_bytes), b.udiv(first, several), len(codes.beside) * vectors.BYTES
        )
        begun = [plus(b, at, i64(m), x[1]) for m in range(len(sums[0]))]
        others = [_Record(place, plus(b, place, several, codes.x_bytes), codes) for place in begun]
        _sum_together(reading, places, (first, count), others, sums)


def _sum_together(reading: Rows, places: Any, spans: vectors.Pair, others: list[_Record], sums: Any) -> None:
    """The sums of rows of codes go on over some spans, in integers, for each row of x."""
    b, (first, count) = reading.builder, spans
    codes = reading.codes
    assert isinstance(codes, Counted)
    kind = HALVES if codes.short else WORD
    found = [[cgutils.alloca_once(b, kind) for _ in others] for _ in places]
    for slot in (slot for line in found for slot in line):
        b.store(filled(0, kind), slot)
    ahead = b.mul(reading.stride, i64(len(places)))
    with _each_span(b, codes, count) as step:
        span = b.add(first, step)
        for address, line in zip(reading.addresses(places, span), found, strict=True):
            prefetch(b, b.add(address, ahead))
            add_products = _multiplier(b, codes, address)
            for x, slot in zip(others, line, strict=True):
                b.store(add_products(b.load(slot), x, step), slot)
    for beside, line, slots in zip(reading.spans_at(places, first), found, sums, strict=True):
        for x, integers, slot in zip(others, line, slots, strict=True):
            _add(b, codes, beside, x, (integers, slot))


@contextmanager
def _each_span(b: ir.IRBuilder, codes: Counted, count: ir.Value) -> Iterator[ir.Value]:
    """The spans of a record: a loop, but for one."""
    if codes.together == 1:
        yield i64(0)
    else:
        with cgutils.for_range(b, count, intp=I64) as loop:
            yield loop.index


def _add(b: ir.IRBuilder, codes: Counted, span: Span, x: _Record, slots: vectors.Pair) -> None:
    """Integers of 16 lanes, as the values that they count, times both scales, onto the sums."""
    whole = b.load(slots[0])
    if whole.type != WORD:
        whole = b.sext(whole, WORD)
    if span.zero is not None:
        lower = b.sub(filled(codes.least), b.fptosi(span.zero, WORD))
        whole = b.add(whole, b.mul(lower, x.beside(b, "sums", WORD)))
    elif codes.least:
        whole = b.add(whole, x.beside(b, "sums", WORD))
    t, before = b.sitofp(whole, FLOAT), b.load(slots[1])
    if codes.step != 1.0:
        t = b.fmul(t, ir.Constant(FLOAT, [codes.step] * LANES))
    if span.scale is None:
        b.store(t, slots[1])
    else:
        b.store(fused(b, t, b.fmul(span.scale, x.beside(b, "scale", FLOAT)), before), slots[1])


Multiplier = Callable[[ir.Value, _Record, ir.Value], ir.Value]
"""Sums, and a span of x, to the sums with four products more in each lane."""


def _multiplier(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """What multiplies the codes there."""
    if not vectors.has("avx2"):
        return _one_by_one(b, codes, address)
    if bytes_of_fours():
        return _of_fours(b, codes, address)
    return _of_bytes(b, codes, address) if codes.bits == 8 else _of_nibbles(b, codes, address)


def _one_by_one(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """Everywhere: a vector for each place of a run."""
    scaled = [
        b.fmul(v, ir.Constant(FLOAT, [1 / codes.step] * LANES)) for v in values_of_span(b, codes, address)
    ]
    counts = [b.sub(b.fptosi(value, WORD), filled(codes.least)) for value in scaled]

    def add_products(sums: ir.Value, x: _Record, span: ir.Value) -> ir.Value:
        whole = x.part(b, span, vector(I8 if codes.element == "i1" else I16, SPAN))
        for k, count in enumerate(counts):
            own = shuffled(b, whole, range(SPAN // 2 * (k % 2) + k // 2, SPAN // 2 * (k % 2 + 1), 2))
            sums = b.add(sums, b.mul(count, b.sext(own, WORD)))
        return sums

    return add_products


def _of_fours(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """Counts times bytes of x, four to a lane, by VNNI; less what x has too much."""
    size, counts = bytes_of_fours(), b.bitcast(_counts_in_order(b, codes, address), WORD)

    def added(sums: ir.Value, x: ir.Value) -> ir.Value:
        return _by_parts(b, f"avx512.vpdpbusd.{8 * size}", SPAN // size, WORD, sums, x, counts)

    more = added(filled(0), b.bitcast(filled(MORE, WHOLE), WORD))

    def add_products(sums: ir.Value, x: _Record, span: ir.Value) -> ir.Value:
        return added(b.sub(sums, more), x.part(b, span, WORD))

    return add_products


def _counts_in_order(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> ir.Value:
    """The counts of a span, a byte with a sign each."""
    if codes.bits == 8:
        return b.sub(load_as(b, address, WHOLE), filled(codes.least, WHOLE))
    pairs = b.zext(load_as(b, address, BYTES), vector(I16, 2 * LANES))
    both = b.or_(pairs, b.shl(pairs, filled(4, pairs.type)))
    index, counts = b.bitcast(b.and_(both, filled(0x0F0F, both.type)), WHOLE), codes.counts
    assert counts is not None
    if counts == tuple(range(16)):
        return index
    name, parts = ("avx512.pshuf.b.512", 1) if vectors.has("avx512bw") else ("avx2.pshuf.b", 2)
    return _by_parts(
        b, name, parts, WHOLE, ir.Constant(WHOLE, [count & 255 for count in counts] * RUN_OF_INT8), index
    )


def _of_nibbles(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """Counts of codes of 4 bits times bytes of x, by AVX2: one instruction sums pairs of products."""
    counts = codes.counts
    assert counts is not None
    loaded = load_as(b, address, BYTES)
    halves = [b.and_(part, filled(15, BYTES)) for part in (loaded, b.lshr(loaded, filled(4, BYTES)))]
    if counts != tuple(range(16)):
        table = ir.Constant(BYTES, [*counts] * 2)
        halves = [instruction(b, "avx2.pshuf.b", BYTES, table, part) for part in halves]

    def add_products(sums: ir.Value, x: _Record, span: ir.Value) -> ir.Value:
        even, odd = (
            instruction(b, "avx2.pmadd.ub.sw", HALVES, part, x.part(b, span, BYTES, first))
            for part, first in zip(halves, (0, SPAN // 2), strict=True)
        )
        if max(counts) * 127 * RUN_OF_INT8 > SHORT:
            return b.add(sums, b.add(b.sext(even, WORD), b.sext(odd, WORD)))
        added = b.add(even, odd)
        return b.add(sums, added if codes.short else b.sext(added, WORD))

    return add_products


def _of_bytes(b: ir.IRBuilder, codes: Counted, address: ir.Value) -> Multiplier:
    """Integers of 8 bits times x, by AVX2."""
    extend, eight = b.ashr if codes.signed else b.lshr, filled(8, HALVES)
    parts = []
    for first in (0, 2 * LANES):
        loaded = load_as(b, b.add(address, i64(first)), HALVES)
        parts.append((extend(b.shl(loaded, eight), eight), extend(loaded, eight)))

    def add_products(sums: ir.Value, x: _Record, span: ir.Value) -> ir.Value:
        found = []
        for first, halves in enumerate(parts):
            even, odd = (
                instruction(b, "avx2.pmadd.wd", vector(WORD.element, LANES // 2), part,
                             x.part(b, span, HALVES, SPAN * turn + 2 * LANES * first))
                for turn, part in enumerate(halves)
            )  # fmt: skip
            found.append(b.add(even, odd))
        return b.add(sums, shuffled(b, found[0], range(LANES), found[1]))

    return add_products


def _by_parts(b: ir.IRBuilder, name: str, count: int, result: ir.VectorType, *operands: ir.Value) -> ir.Value:
    """An instruction whose registers hold a part of the operands, over all of them."""

    def part(value: ir.Value, k: int) -> ir.Value:
        size = value.type.count // count
        return shuffled(b, value, range(k * size, (k + 1) * size))

    kind = vector(result.element, result.count // count)
    found = [instruction(b, name, kind, *(part(value, k) for value in operands)) for k in range(count)]
    return found[0] if count == 1 else shuffled(b, found[0], range(result.count), found[1])
