"""Rows of codes: where each begins, and its spans, of which the last may be short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import I8, I32, I64
from numerics.backends.cpu.lookups import shuffled
from numerics.backends.cpu.product.codes import (
    HALVES,
    Codes,
    blocks_of_span,
    scales_of_span,
    values_of_span,
    zeros_of_span,
)
from numerics.backends.cpu.product.vectors import i64, plus
from numerics.backends.host.product import LANES

Place = tuple[ir.Value, ir.Value, ir.Value]
"""Where a row begins: its codes, its scales, its zero points."""


class Span(NamedTuple):
    """Where the codes of a span lie, and what stands beside them: its scales and zero points, a lane each."""

    address: ir.Value
    scale: ir.Value | None
    zero: ir.Value | None


@dataclass
class Rows:
    """A kernel's rows of codes, and what lies beside them: addresses, and bytes from a row to the next.

    whole: spans that are whole; tail: bytes of codes after those, and how many groups they reach into.
    """

    builder: ir.IRBuilder
    codes: Codes
    address: ir.Value
    stride: ir.Value
    scale: ir.Value
    zero: ir.Value
    beside: ir.Value  # groups of a row
    whole: ir.Value
    tail: ir.Value
    tail_groups: ir.Value

    def __post_init__(self) -> None:
        self.spares: list[Place] = []
        short = self.builder.icmp_signed(">", self.tail, i64(0))
        self.spans = self.builder.add(self.whole, self.builder.zext(short, I64))

    def places(self, rows: Sequence[ir.Value]) -> list[Place]:
        """Where these rows begin: codes, scales, zero points.  Their last, short spans are copied aside."""
        b, codes = self.builder, self.codes
        found = []
        for k, row in enumerate(rows):
            found.append((
                plus(b, self.address, row, self.stride),
                plus(b, self.scale, b.mul(row, self.beside), codes.scale_bytes),
                plus(b, self.zero, b.mul(row, self.beside), 4),
            ))  # fmt: skip
            if len(self.spares) <= k:
                self.spares.append(tuple(
                    self._spare(size) for size in
                    (codes.span_bytes, codes.groups * codes.scale_bytes, codes.groups * 4)
                ))  # fmt: skip
        with b.if_then(b.icmp_signed(">", self.tail, i64(0))):
            for place, spare in zip(found, self.spares, strict=False):
                first = self._group_at(self.whole)
                self._copy(spare[0], plus(b, place[0], self.whole, codes.span_bytes), self.tail)
                if codes.group and codes.mantissa is None:
                    size = b.mul(self.tail_groups, i64(codes.scale_bytes))
                    self._copy(spare[1], plus(b, place[1], first, codes.scale_bytes), size)
                if codes.group and codes.zero:
                    self._copy(spare[2], plus(b, place[2], first, 4), b.mul(self.tail_groups, i64(4)))
        return found

    def _spare(self, size: int) -> ir.Value:
        room = cgutils.alloca_once(self.builder, I8, size=size)
        room.align = 64
        cgutils.memset(self.builder, room, i64(size), 0)
        return self.builder.ptrtoint(room, I64)

    def _copy(self, target: ir.Value, source: ir.Value, size: ir.Value) -> None:
        pointers = [self.builder.inttoptr(address, I8.as_pointer()) for address in (target, source)]
        cgutils.raw_memcpy(self.builder, *pointers, size, i64(1))

    def _group_at(self, span: ir.Value) -> ir.Value:
        """The first group of a span."""
        codes, width = self.codes, self.codes.run * LANES
        if not codes.group:
            return i64(0)
        if codes.group <= width:
            return self.builder.mul(span, i64(codes.groups))
        return self.builder.udiv(span, i64(codes.group // width))

    def at(
        self, places: Sequence[Place], span: ir.Value, short: bool | None = None
    ) -> list[tuple[list[ir.Value], ir.Value | None]]:
        """Values and scales of a span of each row.  short: is it the last, short one, where that is known?"""
        b, codes = self.builder, self.codes
        found: list[tuple[list[ir.Value], ir.Value | None]] = []
        for row in self.spans_at(places, span, short):
            if codes.mantissa is not None:
                found.append(blocks_of_span(b, codes, row.address))
                continue
            values = values_of_span(b, codes, row.address)
            if row.zero is not None:
                values = [b.fsub(value, row.zero) for value in values]
            found.append((values, row.scale))
        return found

    def _either(self, span: ir.Value, short: bool | None) -> Callable[[ir.Value, ir.Value], ir.Value]:
        """Which of two addresses is a span's: beside the rows, where the last, short one lies, or in them."""
        if short is not None:
            return lambda beside, inside: beside if short else inside
        return partial(self.builder.select, self.builder.icmp_signed("==", span, self.whole))

    def addresses(self, places: Sequence[Place], span: ir.Value, short: bool | None = None) -> list[ir.Value]:
        """Where the codes of a span of each row lie."""
        either = self._either(span, short)
        return [
            either(spare[0], plus(self.builder, place[0], span, self.codes.span_bytes))
            for place, spare in zip(places, self.spares, strict=False)
        ]

    def spans_at(self, places: Sequence[Place], span: ir.Value, short: bool | None = None) -> list[Span]:
        """A span of each row, as it is stored."""
        b, codes = self.builder, self.codes
        either, group = self._either(span, short), self._group_at(span)
        found, addresses = [], self.addresses(places, span, short)
        for row, place, spare in zip(addresses, places, self.spares, strict=False):
            zero = scale = None
            if codes.zero and codes.mantissa is None:
                inside = plus(b, place[2], group, 4)
                zero = zeros_of_span(b, codes, either(spare[2], inside) if codes.group else place[2])
            if codes.group and codes.mantissa is None:
                beside = plus(b, place[1], group, codes.scale_bytes)
                scale = scales_of_span(b, codes, either(spare[1], beside))
            found.append(Span(row, scale, zero))
        return found


def sum_of_lanes(builder: ir.IRBuilder, order: Sequence[int], lanes: ir.Value) -> ir.Value:
    """Halved until one is left, in the order of the lanes."""
    if order is HALVES:
        lanes = shuffled(builder, lanes, [order.index(lane) for lane in range(LANES)])
    while lanes.type.count > 1:
        half = lanes.type.count // 2
        low, high = (shuffled(builder, lanes, range(start, start + half)) for start in (0, half))
        lanes = builder.fadd(low, high)
    return builder.extract_element(lanes, ir.Constant(I32, 0))


def sums_of_lanes(builder: ir.IRBuilder, order: Sequence[int], several: Sequence[ir.Value]) -> ir.Value:
    """The sums of 16 vectors' lanes, each as `sum_of_lanes` adds them, two vectors in one at each halving."""
    vectors, where = list(several), [order.index(lane) for lane in range(LANES)]
    own, size = LANES, LANES
    while own > 1:
        half = own // 2
        low, high = (
            [place + k * own for k in range(size // own) for place in where[start : start + half]]
            for start in (0, half)
        )
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [
            builder.fadd(*(
                shuffled(builder, a, [*part, *(size + place for place in part)], b) for part in (low, high)
            ))
            for a, b in pairs
        ]  # fmt: skip
        own, where = half, list(range(half))
    return vectors[0]
