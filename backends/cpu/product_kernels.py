"""Products of rows with a quantized matrix as kernels: the sums of backends/host/product.py.

Two ways, the same sums.  `dot` decodes a few rows of codes in registers and multiplies them with a few rows
of x: one pass over the codes, for few rows of x.  `blocked` decodes rows of codes into the caches, a part
at a time, and multiplies them tile by tile with many rows of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, F64, I8, I32, I64, Lane, arithmetic
from numerics.backends.cpu.streams import load_as, vector
from numerics.backends.cpu.target import architecture, generator
from numerics.backends.host.product import LANES
from numerics.formats.grid import Grid
from numerics.formats.packing import planes

FLOAT, WORD, BYTE = vector(F32, LANES), vector(I32, LANES), vector(I8, 2 * LANES)
BYTES = 4 * LANES  # of a vector of floats
ZERO = ir.Constant(FLOAT, [0.0] * LANES)
HALVES = (*range(4), *range(8, 12), *range(4, 8), *range(12, 16))
"""Where lanes lie after bytes of two vectors were interleaved, which x86 does in halves of 128 bits."""


@dataclass(frozen=True)
class Codes:
    """Codes as a kernel reads them.

    bits, run, group: of the Order.  table: their values as float32 bits, where 16 of them have no more digits
    than bfloat16; else signed: of an integer, or f: a float's facts.
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

    @property
    def scale_bytes(self) -> int:
        """Bytes of one scale."""
        return 4 if self.scale == "float32" else 1

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Which lane stands where in a vector."""
        return HALVES if self.looks_up else tuple(range(LANES))

    @cached_property
    def name(self) -> str:
        """Says all that the instructions depend on."""
        return f"{self.bits}_{self.run}_{self.group}_{sha256(repr(self).encode()).hexdigest()[:12]}"

    @cached_property
    def looks_up(self) -> bool:
        """Are values looked up in a register?"""
        return self.table is not None and has("avx2")


@cache
def has(feature: str) -> bool:
    """Has the CPU that kernels are compiled for that feature, by LLVM's name for it?"""
    return f"+{feature}" in str(generator().magic_tuple()[2]).split(",")


def subnormals_are_cheap() -> bool:
    """Does the CPU multiply subnormal numbers without help?  AMD's do; Intel's call a routine each time."""
    return str(generator().magic_tuple()[1]).startswith("znver")


def registers() -> int:
    """Vectors of LANES floats that its registers hold."""
    return 32 if has("avx512f") else 8 if has("avx2") or has("avx") else 4


# ---- arithmetic ------------------------------------------------------------------------------------


def fused(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c, rounded once."""
    if has("fma") or architecture(builder.module.triple) == "aarch64":
        name = f"llvm.fma.v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "llvm.fma.f32"
        kind = ir.FunctionType(a.type, [a.type] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])
    return _fused_in_doubles(builder, a, b, c)


def _fused_in_doubles(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """The product is exact in float64; the sum is rounded to odd there, so that the last rounding decides."""
    width = a.type.count
    wide, bits = vector(F64, width), vector(I64, width)
    x, y, z = (builder.fpext(value, wide) for value in (a, b, c))
    p = builder.fmul(x, y)
    s = builder.fadd(p, z)
    back = builder.fsub(s, p)
    error = builder.fadd(builder.fsub(p, builder.fsub(s, back)), builder.fsub(z, back))  # Knuth's TwoSum
    word, zero, one = builder.bitcast(s, bits), ir.Constant(bits, [0] * width), ir.Constant(bits, [1] * width)
    apart = builder.icmp_signed("<", builder.xor(word, builder.bitcast(error, bits)), zero)
    even = builder.icmp_signed("==", builder.and_(word, one), zero)
    inexact = builder.fcmp_ordered("!=", error, ir.Constant(wide, [0.0] * width))
    odd = builder.select(apart, builder.sub(word, one), builder.add(word, one))
    found = builder.select(builder.and_(inexact, even), odd, word)
    return builder.fptrunc(builder.bitcast(found, wide), a.type)


def _shuffled(
    builder: ir.IRBuilder, a: ir.Value, places: Sequence[int], b: ir.Value | None = None
) -> ir.Value:
    mask = ir.Constant(vector(I32, len(places)), list(places))
    return builder.shuffle_vector(a, ir.Constant(a.type, ir.Undefined) if b is None else b, mask)


def _filled(n: int, kind: ir.Type = WORD) -> ir.Constant:
    return ir.Constant(kind, [n] * kind.count)


def _spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return Lane(builder, value).spread(LANES)


def _i64(n: int) -> ir.Constant:
    return ir.Constant(I64, n)


def _plus(builder: ir.IRBuilder, base: ir.Value, index: ir.Value, size: int | ir.Value) -> ir.Value:
    return builder.add(base, builder.mul(index, _i64(size) if isinstance(size, int) else size))


# ---- codes to values ---------------------------------------------------------------------------------


def values_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """The values of a span at an address: a vector for each place of a run."""
    if codes.looks_up:
        return _looked_up(builder, codes, address)
    if codes.f is not None and _grows(codes.f) and subnormals_are_cheap():
        return _grown(builder, codes, address)
    return [_value(builder, codes, field) for field in _fields(builder, codes, address)]


def _words(builder: ir.IRBuilder, address: ir.Value, words: int, width: int) -> list[ir.Value]:
    """The first, second, ... word of every lane, of lanes that follow each other."""
    loaded = load_as(builder, address, vector(ir.IntType(width), words * LANES))
    if width < 32:
        loaded = builder.zext(loaded, vector(I32, words * LANES))
    return [
        loaded if words == 1 else _shuffled(builder, loaded, [words * k + word for k in range(LANES)])
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
        word, shift = builder.call(funnel, [words[first // width + 1], word, _filled(shift)]), 0
    if signed:
        up = 32 - bits - shift
        word = builder.shl(word, _filled(up)) if up else word
        return builder.ashr(word, _filled(32 - bits))
    word = builder.lshr(word, _filled(shift)) if shift else word
    return builder.and_(word, _filled((1 << bits) - 1)) if shift + bits < 32 else word


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
        top = builder.shl(word, _filled(up)) if up else word
        shifted = builder.lshr(top, _filled(down)) if down > 0 else builder.shl(top, _filled(-down))
        magnitude = builder.and_(shifted, _filled(magnitudes))
        sign = builder.and_(top, _filled(-(1 << 31)))
        value = builder.fmul(builder.bitcast(builder.or_(sign, magnitude), FLOAT), factor)
        found.append(_special(builder, f, (sign, magnitude), value))
    return found


def _special(builder: ir.IRBuilder, f: Grid, parts: tuple[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    """Inf and NaN, where codes mean them."""
    sign, magnitude = parts
    drop = int(f.drop)
    if f.has_nan is not None:
        nan = builder.icmp_unsigned(">", magnitude, _filled(int(f.last) << drop))
        value = builder.select(nan, ir.Constant(FLOAT, [math.nan] * LANES), value)
    if f.inf is not None:
        infinite = builder.icmp_signed("==", magnitude, _filled(int(f.inf) << drop))
        signed = builder.bitcast(builder.or_(sign, _filled(0x7F800000)), FLOAT)
        value = builder.select(infinite, signed, value)
    if f.nan_code is not None:  # the place of -0
        negative = builder.icmp_signed("<", sign, _filled(0))
        nothing = builder.icmp_signed("==", magnitude, _filled(0))
        nan = builder.and_(negative, nothing)
        value = builder.select(nan, ir.Constant(FLOAT, [math.nan] * LANES), value)
    return value


def blocks_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> tuple[list[ir.Value], ir.Value]:
    """Values and scales of 16 blocks with microexponents (docs/layout.md), a block a lane."""
    assert codes.mantissa is not None
    bits, digits = codes.mantissa + 1, codes.mantissa
    width = 32 if codes.span_bytes % (4 * LANES) == 0 else 16
    words = _words(builder, address, 8 * codes.span_bytes // LANES // width, width)

    def field(first: int, count: int) -> ir.Value:
        return _field(builder, words, (first, count), width, None)

    (_, low), *high = planes(bits)
    one = _filled(127 << 23)
    factors = [
        builder.bitcast(builder.sub(one, builder.shl(field(16 * bits + pair, 1), _filled(23))), FLOAT)
        for pair in range(8)
    ]
    values = []
    for k in range(codes.run):
        magnitude = field(low * k, digits)
        sign = field(16 * low + k, 1) if high else field(low * k + digits, 1)
        number = builder.bitcast(builder.sitofp(magnitude, FLOAT), WORD)
        signed = builder.bitcast(builder.or_(number, builder.shl(sign, _filled(31))), FLOAT)
        values.append(builder.fmul(signed, factors[k // 2]))
    exponent = Lane(builder, field(16 * bits + 8, 8))
    scale = builder.bitcast(arithmetic().decode(exponent, codes.scale).value, FLOAT)
    return values, builder.fmul(scale, ir.Constant(FLOAT, [codes.unit] * LANES))


def _looked_up(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> list[ir.Value]:
    """16 values of 16 bits each: their low and their high bytes are two tables of a byte shuffle."""
    assert codes.table is not None
    loaded = load_as(builder, address, BYTE)
    nibbles = _filled(15, BYTE)
    kind = ir.FunctionType(BYTE, [BYTE, BYTE])
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pshuf.b")
    low, high = (
        ir.Constant(BYTE, [(value >> shift) & 255 for value in codes.table] * 2) for shift in (16, 24)
    )
    found: list[Any] = [None] * 4
    for odd, index in enumerate((loaded, builder.lshr(loaded, _filled(4, BYTE)))):
        index = builder.and_(index, nibbles)
        parts = [builder.call(shuffle, [table, index]) for table in (low, high)]
        halves = []
        for half in (0, 8):
            places = [
                n for side in (0, 16) for k in range(8) for n in (side + half + k, 32 + side + half + k)
            ]
            halves.append(builder.bitcast(_shuffled(builder, parts[0], places, parts[1]), vector(I32, 8)))
        words = _shuffled(builder, halves[0], range(16), halves[1])
        found[odd] = builder.bitcast(builder.shl(words, _filled(16)), FLOAT)
        found[odd + 2] = builder.bitcast(builder.and_(words, _filled(-65536)), FLOAT)
    return found


# ---- scales and zero points ----------------------------------------------------------------------------


def _of_groups(builder: ir.IRBuilder, codes: Codes, numbers: ir.Value) -> ir.Value:
    """A number a group, in the lanes of the group."""
    if codes.groups == 1:
        return _spread(builder, numbers)
    return _shuffled(builder, numbers, [lane * codes.run // codes.group for lane in codes.order])


def _load_items(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, count: int) -> ir.Value:
    return load_as(builder, address, kind if count == 1 else vector(kind, count))


def scales_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> ir.Value:
    """The scales of a span, in every lane its own."""
    count = codes.groups
    if codes.scale == "float32":
        return _of_groups(builder, codes, _load_items(builder, address, F32, count))
    loaded = _load_items(builder, address, I8, count)
    kind = I32 if count == 1 else vector(I32, count)
    bits = arithmetic().decode(Lane(builder, builder.zext(loaded, kind)), codes.scale).value
    scale = builder.bitcast(bits, F32 if count == 1 else vector(F32, count))
    if codes.unit != 1.0:
        unit = ir.Constant(F32, codes.unit)
        scale = builder.fmul(scale, unit if count == 1 else ir.Constant(scale.type, [codes.unit] * count))
    return _of_groups(builder, codes, scale)


def zeros_of_span(builder: ir.IRBuilder, codes: Codes, address: ir.Value) -> ir.Value:
    """The zero points of a span."""
    count = codes.groups
    loaded = _load_items(builder, address, I32, count)
    return _of_groups(builder, codes, builder.sitofp(loaded, F32 if count == 1 else vector(F32, count)))


# ---- rows of codes -------------------------------------------------------------------------------------


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
        self.spares: list[tuple[ir.Value, ir.Value, ir.Value]] = []
        short = self.builder.icmp_signed(">", self.tail, _i64(0))
        self.spans = self.builder.add(self.whole, self.builder.zext(short, I64))

    def places(self, rows: Sequence[ir.Value]) -> list[tuple[ir.Value, ir.Value, ir.Value]]:
        """Where these rows begin: codes, scales, zero points.  Their last, short spans are copied aside."""
        b, codes = self.builder, self.codes
        found = []
        for k, row in enumerate(rows):
            found.append((
                _plus(b, self.address, row, self.stride),
                _plus(b, self.scale, b.mul(row, self.beside), codes.scale_bytes),
                _plus(b, self.zero, b.mul(row, self.beside), 4),
            ))  # fmt: skip
            if len(self.spares) <= k:
                self.spares.append(tuple(
                    self._spare(size) for size in
                    (codes.span_bytes, codes.groups * codes.scale_bytes, codes.groups * 4)
                ))  # fmt: skip
        with b.if_then(b.icmp_signed(">", self.tail, _i64(0))):
            for place, spare in zip(found, self.spares, strict=False):
                first = self._group_at(self.whole)
                self._copy(spare[0], _plus(b, place[0], self.whole, codes.span_bytes), self.tail)
                if codes.group and codes.mantissa is None:
                    size = b.mul(self.tail_groups, _i64(codes.scale_bytes))
                    self._copy(spare[1], _plus(b, place[1], first, codes.scale_bytes), size)
                if codes.group and codes.zero:
                    self._copy(spare[2], _plus(b, place[2], first, 4), b.mul(self.tail_groups, _i64(4)))
        return found

    def _spare(self, size: int) -> ir.Value:
        room = cgutils.alloca_once(self.builder, I8, size=size)
        room.align = 64
        cgutils.memset(self.builder, room, _i64(size), 0)
        return self.builder.ptrtoint(room, I64)

    def _copy(self, target: ir.Value, source: ir.Value, size: ir.Value) -> None:
        pointers = [self.builder.inttoptr(address, I8.as_pointer()) for address in (target, source)]
        cgutils.raw_memcpy(self.builder, *pointers, size, _i64(1))

    def _group_at(self, span: ir.Value) -> ir.Value:
        """The first group of a span."""
        codes, width = self.codes, self.codes.run * LANES
        if not codes.group:
            return _i64(0)
        if codes.group <= width:
            return self.builder.mul(span, _i64(codes.groups))
        return self.builder.udiv(span, _i64(codes.group // width))

    def at(
        self, places: Sequence[tuple[ir.Value, ir.Value, ir.Value]], span: ir.Value
    ) -> list[tuple[list[ir.Value], ir.Value | None]]:
        """Values and scales of a span of each row."""
        b, codes = self.builder, self.codes
        last = b.icmp_signed("==", span, self.whole)
        found: list[tuple[list[ir.Value], ir.Value | None]] = []
        group = self._group_at(span)
        for place, spare in zip(places, self.spares, strict=False):
            row = b.select(last, spare[0], _plus(b, place[0], span, codes.span_bytes))
            if codes.mantissa is not None:
                found.append(blocks_of_span(b, codes, row))
                continue
            values = values_of_span(b, codes, row)
            if codes.zero:
                inside = _plus(b, place[2], group, 4)
                zero = zeros_of_span(b, codes, b.select(last, spare[2], inside) if codes.group else place[2])
                values = [b.fsub(value, zero) for value in values]
            scale = None
            if codes.group:
                beside = _plus(b, place[1], group, codes.scale_bytes)
                scale = scales_of_span(b, codes, b.select(last, spare[1], beside))
            found.append((values, scale))
        return found


def _prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    place = builder.inttoptr(address, I8.as_pointer())
    builder.call(function, [place, *(ir.Constant(I32, n) for n in (0, 3, 1))])


def _sum_of_lanes(builder: ir.IRBuilder, order: Sequence[int], lanes: ir.Value) -> ir.Value:
    """Halved until one is left, in the order of the lanes."""
    if order is HALVES:
        lanes = _shuffled(builder, lanes, [order.index(lane) for lane in range(LANES)])
    while lanes.type.count > 1:
        half = lanes.type.count // 2
        low, high = (_shuffled(builder, lanes, range(start, start + half)) for start in (0, half))
        lanes = builder.fadd(low, high)
    return builder.extract_element(lanes, ir.Constant(I32, 0))


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
        tiles = b.udiv(b.add(rows, _i64(tile - 1)), _i64(tile))
        last = b.sub(rows, _i64(1))
        with cgutils.for_range(b, tiles, intp=I64) as loop:
            numbers = [b.add(b.mul(loop.index, _i64(tile)), _i64(k)) for k in range(tile)]
            numbers = [b.select(b.icmp_signed(">", n, last), last, n) for n in numbers]
            places = reading.places(numbers)
            for row in sums:
                for room in row:
                    b.store(ZERO, room)
            ahead = b.mul(reading.stride, _i64(tile))
            with cgutils.for_range(b, spans, intp=I64) as step:
                for place in places:
                    _prefetch(b, b.add(_plus(b, place[0], step.index, codes.span_bytes), ahead))
                _take_span(b, reading.at(places, step.index), sums, (x, x_stride, step.index), codes)
            for number, row in zip(numbers, sums, strict=True):
                for m, room in enumerate(row):
                    total = _sum_of_lanes(b, codes.order, b.load(room))
                    place = _plus(b, _plus(b, out, _i64(m), b.mul(width, _i64(4))), number, 4)
                    b.store(total, b.inttoptr(place, F32.as_pointer()))

    return emit


def _take_span(
    b: ir.IRBuilder, rows: list[tuple[list[ir.Value], ir.Value | None]], sums: list[list[ir.Value]],
    x: tuple[ir.Value, ir.Value, ir.Value], codes: Codes,
) -> None:  # fmt: skip
    base, stride, span = x
    base = _plus(b, base, span, codes.run * BYTES)
    scaled = rows[0][1] is not None
    t = [[ZERO if scaled else b.load(room) for room in row] for row in sums]
    for j in range(codes.run):
        for m in range(len(sums[0])):
            place = _plus(b, b.add(base, _i64(j * BYTES)), _i64(m), stride)
            lane = load_as(b, place, FLOAT)
            for r, (values, _) in enumerate(rows):
                t[r][m] = fused(b, values[j], lane, t[r][m])
    for r, (_, scale) in enumerate(rows):
        for m, room in enumerate(sums[r]):
            b.store(t[r][m] if scale is None else fused(b, t[r][m], scale, b.load(room)), room)


# ---- many rows of x ------------------------------------------------------------------------------------

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
        with _pieces(b, rows, block) as (first_row, height), _pieces(b, spans, part) as (first, count):
            _unfold(reading, (first_row, height), (first, count), rooms)
            with (
                _pieces(b, many, _i64(X_TILE)) as (outer, inner),
                _pieces(b, height, _i64(tile)) as (n, _),
                _pieces(b, inner, _i64(together)) as (m, _),
            ):
                lines = [_at_most(b, b.add(n, _i64(k)), b.sub(height, _i64(1))) for k in range(tile)]
                last = b.sub(many, _i64(1))
                ms = [_at_most(b, b.add(b.add(outer, m), _i64(k)), last) for k in range(together)]
                place_x = [_plus(b, _plus(b, x, k, x_stride), first, codes.run * BYTES) for k in ms]
                sums = [[_plus(b, rooms[2], b.add(b.mul(k, block), n), BYTES) for k in ms] for n in lines]
                _multiply_tile(codes, b, (lines, rooms, place_x, sums), (first, count))
            done = b.icmp_signed("==", b.add(first, count), spans)
            with b.if_then(done):
                _write_sums(b, codes, (first_row, height, block), (many, rooms[2]), (out, width))

    return emit


Pair = tuple[ir.Value, ir.Value]


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
            place = _plus(b, rooms[0], span, codes.run * BYTES)
            for j, value in enumerate(values):
                _store(b, value, b.add(place, _i64(j * BYTES)))
            if scale is not None:
                _store(b, scale, _plus(b, rooms[1], span, BYTES))


def _multiply_tile(codes: Codes, b: ir.IRBuilder, places: Any, spans: Pair) -> None:
    """The sums of a few rows with a few rows of x go on over a part of the spans."""
    lines, rooms, place_x, at = places
    first, count = spans
    run = codes.run
    place_w = [_plus(b, rooms[0], b.mul(n, count), run * BYTES) for n in lines]
    place_s = [_plus(b, rooms[1], b.mul(n, count), BYTES) for n in lines]
    begun = b.icmp_signed(">", first, _i64(0))
    sums = [[cgutils.alloca_once(b, FLOAT) for _ in line] for line in at]
    for line, slots in zip(at, sums, strict=True):
        for place, slot in zip(line, slots, strict=True):
            b.store(b.select(begun, load_as(b, place, FLOAT), ZERO), slot)
    with cgutils.for_range(b, count, intp=I64) as step:
        _multiply_span(b, (place_w, place_s, place_x), sums, step.index, (run, bool(codes.group)))
    for line, slots in zip(at, sums, strict=True):
        for place, slot in zip(line, slots, strict=True):
            _store(b, b.load(slot), place)


def _write_sums(b: ir.IRBuilder, codes: Codes, rows: Any, sums: Pair, out: Pair) -> None:
    first_row, height, block = rows
    many, room = sums
    with cgutils.for_range(b, many, intp=I64) as m, cgutils.for_range(b, height, intp=I64) as n:
        lanes = load_as(b, _plus(b, room, b.add(b.mul(m.index, block), n.index), BYTES), FLOAT)
        column = b.add(first_row, n.index)
        place = _plus(b, out[0], b.add(b.mul(m.index, out[1]), column), 4)
        b.store(_sum_of_lanes(b, codes.order, lanes), b.inttoptr(place, F32.as_pointer()))


def _store(b: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=4)


def _multiply_span(
    b: ir.IRBuilder, places: tuple[list[ir.Value], ...], sums: list[list[ir.Value]], span: ir.Value,
    how: tuple[int, bool],
) -> None:  # fmt: skip
    (run, scaled), (place_w, place_s, place_x) = how, places
    t = [[ZERO if scaled else b.load(slot) for slot in line] for line in sums]
    for j in range(run):
        w = [
            load_as(b, b.add(_plus(b, place, span, run * BYTES), _i64(j * BYTES)), FLOAT) for place in place_w
        ]
        for m, place in enumerate(place_x):
            lane = load_as(b, b.add(_plus(b, place, span, run * BYTES), _i64(j * BYTES)), FLOAT)
            for r in range(len(place_w)):
                t[r][m] = fused(b, w[r], lane, t[r][m])
    for r, line in enumerate(sums):
        scale = load_as(b, _plus(b, place_s[r], span, BYTES), FLOAT) if scaled else None
        for m, slot in enumerate(line):
            b.store(t[r][m] if scale is None else fused(b, t[r][m], scale, b.load(slot)), slot)


def _at_most(b: ir.IRBuilder, n: ir.Value, last: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed(">", n, last), last, n)


@contextmanager
def _pieces(b: ir.IRBuilder, count: ir.Value, size: ir.Value) -> Iterator[Pair]:
    """Each piece of `size` of a count: its first, and how many it has."""
    pieces = b.udiv(b.add(count, b.sub(size, _i64(1))), size)
    with cgutils.for_range(b, pieces, intp=I64) as loop:
        first = b.mul(loop.index, size)
        yield first, _at_most(b, size, b.sub(count, first))
