"""Codes as kernels of products read them: the values of a span, its scales and its zero points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from numerics.backends.array.executor import bound
from numerics.backends.cpu.lanes import F32, I8, I32, I64, Lane, arithmetic
from numerics.backends.cpu.lookups import instruction, shuffled
from numerics.backends.cpu.product import vectors
from numerics.backends.cpu.product.vectors import (
    FLOAT,
    WORD,
    filled,
    spread,
    subnormals_are_cheap,
    turned,
)
from numerics.backends.cpu.streams import load_as, vector
from numerics.backends.host.product import LANES
from numerics.formats.grid import Grid
from numerics.formats.packing import planes

BYTE = vector(I8, 2 * LANES)
FEW_SCALES = 4  # of a span, that are looked up one by one
HALVES = (*range(4), *range(8, 12), *range(4, 8), *range(12, 16))
"""Where lanes lie after bytes of two vectors were interleaved, which x86 does in halves of 128 bits."""


@dataclass(frozen=True)
class Codes:
    """Codes as a kernel reads them.

    bits, run, group: of the Order.  table: the float32 bits of their values, where those are few; signed: of
    an integer, f: a float's facts.
    mantissa: bits of magnitudes under microexponents, a block of 16 a lane; None for all else.
    scale: `float32`, the facts of a float of 8 bits, or None where rows have none.  unit: what that scale is
    multiplied by.  zero: are there zero points, as many as scales, or one a row?
    """

    bits: int
    run: int
    group: int = 0
    signed: bool | None = None
    f: Grid | None = None
    table: tuple[int, ...] | None = None
    scale: Any = None
    unit: float = 1.0
    zero: bool = False
    mantissa: int | None = None

    @property
    def span_bytes(self) -> int:
        """Bytes of the codes of a span."""
        return self.bits * self.run * LANES // 8

    @property
    def groups(self) -> int:
        """Scales of a span."""
        return max(self.run * LANES // self.group, 1) if self.group else 1

    @cached_property
    def scale_bytes(self) -> int:
        """Bytes of one scale."""
        return 4 if self.scale == "float32" else 1

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Which lane stands where in a vector."""
        return HALVES if self.looks_up else tuple(range(LANES))

    @cached_property
    def name_of_order(self) -> str:
        """Says all that the order of x depends on."""
        return f"{self.run}_{'halves' if self.order is HALVES else 'lanes'}"

    @property
    def crowded(self) -> bool:
        """Do tables, sums of runs and their scales leave 16 registers no room for a second row of codes?"""
        return (self.looks_up or bool(self.group)) and not vectors.has("avx512f")

    @cached_property
    def rows(self) -> int:
        """Rows of codes that registers hold beside few rows of x: one more where decoding takes few."""
        if self.crowded:
            return 1
        return 3 if self.eases else 2

    @cached_property
    def eases(self) -> bool:
        """Does decoding take few instructions, and few registers of many?"""
        return self.run <= 4 and (self.permutes or self.f is None) and vectors.has("avx512f")

    @property
    def scales(self) -> list[int]:
        """The float32 bits of the scales that 8 bits can stand for, times the unit."""
        values = np.asarray(bound.decode(np.arange(256, dtype=np.int32), self.scale)).view(np.float32)
        return [int(bits) for bits in (values * np.float32(self.unit)).view(np.uint32)]

    @cached_property
    def name(self) -> str:
        """Says all that the instructions depend on."""
        return f"{self.bits}_{self.run}_{self.group}_{sha256(repr(self).encode()).hexdigest()[:12]}"

    @cached_property
    def looks_up(self) -> bool:
        """Are values looked up by bytes of theirs, in the order that AVX2 leaves?"""
        return self.bits == 4 and self.table is not None and vectors.has("avx2") and not self.permutes

    @cached_property
    def permutes(self) -> bool:
        """Are values looked up in registers of AVX-512, which hold 16 of 32 bits, or two 64 of 16 bits?"""
        if self.table is None or not vectors.has("avx512bw"):
            return False
        return self.bits <= 4 or not any(value & 0xFFFF for value in self.table)


# ---- codes to values ---------------------------------------------------------------------------------


def values_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """The values of a span at an address: a vector for each place of a run."""
    if codes.looks_up:
        return _looked_up(builder, codes, address)
    if codes.permutes:
        return (_permuted if codes.bits <= 4 else _permuted_in_pairs)(builder, codes, address)
    if codes.f is not None and _grows(codes.f) and subnormals_are_cheap():
        return _grown(builder, codes, address)
    return [_value(builder, codes, field) for field in _fields(builder, codes, address)]


def _words(builder: ir.IRBuilder, address: ir.Value, words: int, width: int) -> list[ir.Value]:
    """The first, second, ... word of every lane, of lanes that follow each other."""
    loaded = load_as(builder, address, vector(ir.IntType(width), words * LANES))
    if width < 32:
        loaded = builder.zext(loaded, vector(I32, words * LANES))
    return [
        loaded if words == 1 else shuffled(builder, loaded, [words * k + word for k in range(LANES)])
        for word in range(words)
    ]


def _fields(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """The codes of a span, one a lane; those of an integer with their sign."""
    bits, run, width = codes.bits, codes.run, min(32, codes.bits * codes.run)
    lanes = _words(builder, address, codes.bits * run // width, width)
    return [_field(builder, lanes, (bits * k, bits), width, codes.signed) for k in range(run)]


def _field(
    builder: ir.IRBuilder, words: list[ir.Value], where: tuple[int, int], width: int, signed: bool | None
) -> ir.Value:
    """Bits first ... first + bits - 1 of words, extended with their sign or with zeros."""
    first, bits = where
    word, shift = words[first // width], first % width
    if shift + bits > width:
        kind = ir.FunctionType(WORD, [WORD] * 3)
        funnel = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fshr.v{LANES}i32")
        word, shift = builder.call(funnel, [words[first // width + 1], word, filled(shift)]), 0
    if signed:
        up = 32 - bits - shift
        word = builder.shl(word, filled(up)) if up else word
        return builder.ashr(word, filled(32 - bits))
    word = builder.lshr(word, filled(shift)) if shift else word
    return builder.and_(word, filled((1 << bits) - 1)) if shift + bits < 32 else word


def _value(builder: ir.IRBuilder, codes: Codes, field: ir.Value) -> ir.Value:
    if codes.bits == 32:
        return builder.bitcast(field, FLOAT)
    if codes.f is None:
        return builder.sitofp(field, FLOAT)
    return builder.bitcast(arithmetic().decode(Lane(builder, field), codes.f).value, FLOAT)


def _grows(f: Grid) -> bool:
    """Is a magnitude, shifted to float32's place, its value times one power of two?"""
    odd = f.deep, f.lowest, f.prefix, f.flush, f.negative, f.wrap, f.values
    return all(fact is None for fact in odd) and isinstance(f.emin, int) and f.emin - 1 <= 254 - 127


def _grown(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """Sign and magnitude put where float32 has them, and multiplied by a power of two: exact, and shorter
    than the shared arithmetic wherever the CPU takes subnormal numbers at its usual pace.
    """
    f, bits, width = codes.f, codes.bits, min(32, codes.bits * codes.run)
    assert f is not None
    words = _words(builder, address, bits * codes.run // width, width)
    factor = ir.Constant(FLOAT, [2.0 ** (int(f.emin) - 1)] * LANES)
    magnitudes = ((1 << (bits - 1)) - 1) << int(f.drop)
    found = []
    for k in range(codes.run):
        word, shift = words[bits * k // width], bits * k % width
        if shift + bits > width:
            word, shift = _field(builder, words, (bits * k, bits), width, None), 0
        up, down = 32 - bits - shift, 32 - bits - int(f.drop)
        top = builder.shl(word, filled(up)) if up else word
        shifted = builder.lshr(top, filled(down)) if down > 0 else builder.shl(top, filled(-down))
        magnitude = builder.and_(shifted, filled(magnitudes))
        sign = builder.and_(top, filled(-(1 << 31)))
        value = builder.fmul(builder.bitcast(builder.or_(sign, magnitude), FLOAT), factor)
        found.append(_special(builder, f, (sign, magnitude), value))
    return found


def _special(builder: ir.IRBuilder, f: Grid, parts: tuple[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    """Inf and NaN, where codes mean them."""
    sign, magnitude = parts
    drop = int(f.drop)
    if f.has_nan is not None:
        nan = builder.icmp_unsigned(">", magnitude, filled(int(f.last) << drop))
        value = builder.select(nan, ir.Constant(FLOAT, [math.nan] * LANES), value)
    if f.inf is not None:
        infinite = builder.icmp_signed("==", magnitude, filled(int(f.inf) << drop))
        signed = builder.bitcast(builder.or_(sign, filled(0x7F800000)), FLOAT)
        value = builder.select(infinite, signed, value)
    if f.nan_code is not None:  # the place of -0
        negative = builder.icmp_signed("<", sign, filled(0))
        nothing = builder.icmp_signed("==", magnitude, filled(0))
        nan = builder.and_(negative, nothing)
        value = builder.select(nan, ir.Constant(FLOAT, [math.nan] * LANES), value)
    return value


def blocks_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> tuple[list[ir.Value], ir.Value]:
    """Values and scales of 16 blocks with microexponents (docs/layout.md), a block a lane."""
    assert codes.mantissa is not None
    bits, digits = codes.mantissa + 1, codes.mantissa
    words = _words_of_blocks(builder, address, codes.span_bytes // LANES)
    (_, low), *high = planes(bits)

    def field(first: int, count: int) -> ir.Value:
        return _field(builder, words, (first, count), 32, None)

    def is_set(bit: int) -> ir.Value:
        here = builder.and_(words[bit // 32], filled(1 << bit % 32))
        return builder.icmp_signed("!=", here, filled(0))

    one = filled(127 << 23)
    factors = [
        builder.bitcast(builder.sub(one, builder.shl(field(16 * bits + pair, 1), filled(23))), FLOAT)
        for pair in range(8)
    ]
    values = []
    for k in range(codes.run):
        number = builder.bitcast(_magnitude(builder, field(low * k, digits), digits), WORD)
        place = 16 * low + k if high else low * k + digits
        top = builder.shl(words[place // 32], filled(31 - place % 32))
        sign = builder.and_(top, filled(-(1 << 31)))
        value = builder.bitcast(builder.or_(sign, number), FLOAT)
        values.append(builder.fmul(value, factors[k // 2]))
    exponent = Lane(builder, field(16 * bits + 8, 8))
    scale = builder.bitcast(arithmetic().decode(exponent, codes.scale).value, FLOAT)
    return values, builder.fmul(scale, ir.Constant(FLOAT, [codes.unit] * LANES))


def _magnitude(builder: ir.IRBuilder, field: ir.Value, digits: int) -> ir.Value:
    """A number of so many digits as a float: from a table in a register, where one of AVX-512 holds it."""
    if digits > 4 or not vectors.has("avx512bw"):
        return builder.sitofp(field, FLOAT)
    table = ir.Constant(FLOAT, [float(number % (1 << digits)) for number in range(LANES)])
    return instruction(builder, "avx512.permvar.sf.512", FLOAT, table, field)


def _words_of_blocks(builder: ir.IRBuilder, address: ir.Value, size: int) -> list[ir.Value]:
    """The words of 32 bits of 16 blocks of so many bytes; of 18, the last holds 16."""
    if size % 4 == 0:
        return _words(builder, address, size // 4, 32)
    offsets = (ir.Constant(I64, size * lane) for lane in range(LANES))
    rows = [load_as(builder, builder.add(address, offset), vector(I32, 4)) for offset in offsets]
    whole = load_as(builder, address, vector(ir.IntType(16), size // 2 * LANES))
    last = shuffled(builder, whole, [size // 2 * lane + size // 2 - 1 for lane in range(LANES)])
    return [*turned(builder, rows), builder.zext(last, WORD)]


def _permuted(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """Values of 32 bits: the lower four bits of a lane name one."""
    assert codes.table is not None
    width = min(32, codes.bits * codes.run)
    words = _words(builder, address, codes.bits * codes.run // width, width)
    table = builder.bitcast(ir.Constant(WORD, codes.table * (16 // len(codes.table))), FLOAT)
    fields = (_field(builder, words, (codes.bits * k, codes.bits), width, None) for k in range(codes.run))
    return [instruction(builder, "avx512.permvar.sf.512", FLOAT, table, field) for field in fields]


def _permuted_in_pairs(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """Values of 16 bits, the upper ones of float32, two codes at once: those 16 bits apart in a lane."""
    assert codes.table is not None
    bits, found = codes.bits, []
    words = _words(builder, address, bits * codes.run // 32, 32)
    for k in range(0, codes.run, 4):
        four = _field(builder, words, (bits * k, 4 * bits), 32, None)
        upper = builder.and_(builder.shl(four, filled(16 - 2 * bits)), filled(-65536))
        pair = builder.or_(builder.and_(four, filled(65535)), upper)
        pairs = [
            _pair_of_values(builder, codes.table, builder.lshr(pair, filled(bits * second)))
            for second in range(2)
        ]
        found += [values[half] for half in range(2) for values in pairs]
    return found


def _pair_of_values(
    builder: ir.IRBuilder, table: tuple[int, ...], index: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The values that six bits of each half of a lane name; a sixth bit repeats a table of 32."""
    kind = vector(ir.IntType(16), 2 * LANES)
    halves = [bits >> 16 for bits in table] * (64 // len(table))
    low, high = ir.Constant(kind, halves[:32]), ir.Constant(kind, halves[32:])
    index = builder.bitcast(index, kind)
    word = builder.bitcast(instruction(builder, "avx512.vpermi2var.hi.512", kind, low, index, high), WORD)
    pair = builder.shl(word, filled(16)), builder.and_(word, filled(-65536))
    return builder.bitcast(pair[0], FLOAT), builder.bitcast(pair[1], FLOAT)


def _looked_up(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """16 values of two bytes, or four: each byte of theirs is a table of a byte shuffle."""
    assert codes.table is not None
    loaded = load_as(builder, address, BYTE)
    nibbles = filled(15, BYTE)
    found: list[Any] = [None] * 4
    for odd, index in enumerate((loaded, builder.lshr(loaded, filled(4, BYTE)))):
        index = builder.and_(index, nibbles)
        high = _halves_of_values(builder, codes.table, index, 16)
        found[odd] = builder.shl(high, filled(16))
        found[odd + 2] = builder.and_(high, filled(-65536))
        if any(value & 0xFFFF for value in codes.table):
            low = _halves_of_values(builder, codes.table, index, 0)
            found[odd] = builder.or_(found[odd], builder.and_(low, filled(0xFFFF)))
            found[odd + 2] = builder.or_(found[odd + 2], builder.lshr(low, filled(16)))
    return [builder.bitcast(word, FLOAT) for word in found]


def _halves_of_values(builder: ir.IRBuilder, table: tuple[int, ...], index: ir.Value, shift: int) -> ir.Value:
    """16 bits of values, from a bit on: those of every other code in the lower half of a lane, of the next
    in its upper half.
    """
    low, high = (
        instruction(
            builder,
            "avx2.pshuf.b",
            BYTE,
            ir.Constant(BYTE, [value >> first & 255 for value in table] * 2),
            index,
        )
        for first in (shift, shift + 8)
    )
    halves = []
    for half in (0, 8):
        places = [n for side in (0, 16) for k in range(8) for n in (side + half + k, 32 + side + half + k)]
        halves.append(builder.bitcast(shuffled(builder, low, places, high), vector(I32, 8)))
    return shuffled(builder, halves[0], range(16), halves[1])


# ---- scales and zero points ----------------------------------------------------------------------------


def _of_groups(builder: ir.IRBuilder, codes: Codes, numbers: ir.Value) -> ir.Value:
    """A number a group, in the lanes of the group."""
    if codes.groups == 1:
        return spread(builder, numbers)
    return shuffled(builder, numbers, [lane * codes.run // codes.group for lane in codes.order])


def _load_items(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, count: int) -> ir.Value:
    return load_as(builder, address, kind if count == 1 else vector(kind, count))


def scales_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> ir.Value:
    """The scales of a span, in every lane its own."""
    count = codes.groups
    if codes.scale == "float32":
        return _of_groups(builder, codes, _load_items(builder, address, F32, count))
    if count <= FEW_SCALES:
        return _looked_up_scales(builder, codes, address)
    loaded = _load_items(builder, address, I8, count)
    kind = I32 if count == 1 else vector(I32, count)
    bits = arithmetic().decode(Lane(builder, builder.zext(loaded, kind)), codes.scale).value
    scale = builder.bitcast(bits, F32 if count == 1 else vector(F32, count))
    if codes.unit != 1.0:
        unit = ir.Constant(F32, codes.unit)
        scale = builder.fmul(scale, unit if count == 1 else ir.Constant(scale.type, [codes.unit] * count))
    return _of_groups(builder, codes, scale)


def _looked_up_scales(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> ir.Value:
    """Scales of 8 bits from a table of them all: a load each for ten instructions."""
    kind = ir.ArrayType(I32, 256)
    table = cgutils.global_constant(builder, f"scales_{codes.name}", ir.Constant(kind, codes.scales))
    found = []
    for k in range(codes.groups):
        place = builder.inttoptr(builder.add(address, ir.Constant(I64, k)), I8.as_pointer())
        code = builder.zext(builder.load(place, align=1), I64)
        word = builder.load(builder.gep(table, [ir.Constant(I64, 0), code], inbounds=True))
        found.append(spread(builder, builder.bitcast(word, F32)))
    width, own = len(found), [lane * codes.run // codes.group for lane in codes.order]
    while width > 1:  # halves of the groups, each where the lanes that are its own take it
        width //= 2
        found = [
            shuffled(builder, a, [k + LANES * (own[k] // width % 2) for k in range(LANES)], b)
            for a, b in zip(found[:width], found[width:], strict=True)
        ]
    return found[0]


def zeros_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> ir.Value:
    """The zero points of a span."""
    count = codes.groups
    loaded = _load_items(builder, address, I32, count)
    return _of_groups(builder, codes, builder.sitofp(loaded, F32 if count == 1 else vector(F32, count)))
