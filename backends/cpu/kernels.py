"""Kernels: a function of lanes, run over whole arrays in tiles.

Every kernel takes 64-bit integers: addresses, a count and what else it needs; so one signature
serves all, calls are cheap, and no array type multiplies what is compiled.  It runs under IEEE 754
arithmetic whatever mode the caller's thread is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import I8, I32, I64, Lane, constant
from numerics.backends.cpu.streams import Stream
from numerics.backends.cpu.target import architecture

Function = Callable[..., Any]

STREAM_ALIGNMENT = 64  # bytes: non-temporal stores of whole cache lines; of parts they are slow
PREFETCH = 2048  # bytes ahead of the tile at hand
NEUTRAL = (0x7FFFFFFF, -0x80000000)  # keys of extremes before anything was seen
_DEFAULT_MXCSR = 0x1F80  # round half to even, no flush to zero, no denormals as zero, all masked
_DEFAULT_FPCR = 0  # the same of AArch64


class ieee_arithmetic:
    """Rounding half to even and gradual underflow inside, the caller's mode again outside."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        self.machine = architecture(builder.module.triple)

    def _call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}")
        return self.builder.call(function, arguments)

    def _mxcsr(self, verb: str, word: ir.Value) -> None:
        place = self.builder.bitcast(word, I8.as_pointer())
        self._call(f"x86.sse.{verb}mxcsr", ir.VoidType(), place)

    def __enter__(self) -> None:
        if self.machine == "x86":
            self.saved = cgutils.alloca_once(self.builder, I32)
            ours = cgutils.alloca_once_value(self.builder, ir.Constant(I32, _DEFAULT_MXCSR))
            self._mxcsr("st", self.saved)
            self._mxcsr("ld", ours)
        elif self.machine == "aarch64":
            self.saved = self._call("aarch64.get.fpcr", I64)
            self._call("aarch64.set.fpcr", ir.VoidType(), _i64(_DEFAULT_FPCR))

    def __exit__(self, *_: object) -> None:
        if self.machine == "x86":
            self._mxcsr("ld", self.saved)
        elif self.machine == "aarch64":
            self._call("aarch64.set.fpcr", ir.VoidType(), self.saved)


Arrays = Sequence[tuple[ir.Value, Stream]]
"""Addresses, and how each is read or written."""


@dataclass(frozen=True)
class Tiles:
    """A function of lanes, emitted to run over arrays in tiles.

    builder: where to.  function: what it gives for the lanes of all inputs.  width: elements of a tile.
    streaming: write the first output past the caches; it begins on a cache line.
    """

    builder: ir.IRBuilder
    function: Function
    width: int
    streaming: bool = False

    def over(self, inputs: Arrays, outputs: Arrays, count: ir.Value) -> None:
        """outputs = function(inputs) over `count` elements.

        The last tile, when short, works on a copy beside the arrays, so that nothing outside them is
        read or written.
        """
        builder, width, arrays = self.builder, self.width, [*inputs, *outputs]
        tiles, rest = builder.udiv(count, _i64(width)), builder.urem(count, _i64(width))
        short = builder.icmp_unsigned("!=", rest, _i64(0))
        spare = [_spare(builder, stream, width) for _, stream in arrays]
        last = [offset(builder, address, tiles, stream, width) for address, stream in arrays]
        with builder.if_then(short):
            for (_, stream), room, place in zip(inputs, spare, last, strict=False):
                _fill(builder, room, stream.bytes(width))
                _copy(builder, room, place, _size(builder, stream, rest))
        total = builder.add(tiles, builder.zext(short, I64))
        with cgutils.for_range(builder, total, intp=I64) as loop:
            places = [offset(builder, address, loop.index, stream, width) for address, stream in arrays]
            if self.streaming:
                for (_, stream), place in zip(inputs, places, strict=False):
                    _prefetch(builder, place, stream.bytes(width))
            at_end = builder.icmp_unsigned("==", loop.index, tiles)
            places = [builder.select(at_end, *either) for either in zip(spare, places, strict=True)]
            self._one(inputs, outputs, places)
        with builder.if_then(short):
            split = len(inputs)
            for (_, stream), room, place in zip(outputs, spare[split:], last[split:], strict=True):
                _copy(builder, place, room, _size(builder, stream, rest))

    def over_rows(
        self, inputs: Arrays, outputs: Arrays, numbers: Sequence[ir.Value], rows: ir.Value, count: ir.Value
    ) -> None:
        """`over` each row of `count` elements; function also gets the row's own 32-bit numbers."""
        builder, split = self.builder, len(inputs)
        with self._rows([*inputs, *outputs], rows, count) as (row, moved):
            own = [
                Lane(builder, builder.load(builder.gep(builder.inttoptr(base, I32.as_pointer()), [row])))
                for base in numbers
            ]
            of_row = replace(self, function=lambda *lanes: self.function(*own, *lanes))
            of_row.over(moved[:split], moved[split:], count)

    def over_columns(self, inputs: Arrays, outputs: Arrays, numbers: Arrays, rows: Rows) -> None:
        """`over` each row; function also gets a number for every column, those of the row's batch."""
        builder, split = self.builder, len(inputs)
        with self._rows([*inputs, *outputs], rows.count, rows.length) as (row, moved):
            batch = builder.udiv(builder.add(rows.first, row), rows.per_batch)
            own = [
                (builder.add(base, builder.mul(batch, _size(builder, stream, rows.length))), stream)
                for base, stream in numbers
            ]
            self.over([*own, *moved[:split]], moved[split:] or own, rows.length)

    @contextmanager
    def _rows(self, arrays: Arrays, rows: ir.Value, count: ir.Value) -> Iterator[tuple[ir.Value, Arrays]]:
        """A loop over rows of `count` elements: which one, and where it begins in each array."""
        builder = self.builder
        sizes = [_size(builder, stream, count) for _, stream in arrays]
        with cgutils.for_range(builder, rows, intp=I64) as row:
            yield (
                row.index,
                [
                    (builder.add(address, builder.mul(row.index, size)), stream)
                    for (address, stream), size in zip(arrays, sizes, strict=True)
                ],
            )

    def _one(self, inputs: Arrays, outputs: Arrays, places: list[ir.Value]) -> None:
        """A tile: loads its lanes, and stores what function makes of them."""
        read = [stream for _, stream in inputs]
        lanes = load(self.builder, read, places[: len(inputs)], self.width)
        streams = [stream for _, stream in outputs]
        write(self.function(*lanes), streams, places[len(inputs) :], self.width, self.streaming)


def load(
    builder: ir.IRBuilder, streams: Sequence[Stream], places: Sequence[ir.Value], width: int
) -> list[Lane]:
    """The lanes of a tile of each array."""
    lanes: list[Lane] = []
    for stream, place in zip(streams, places, strict=True):
        found = stream.load(builder, place, width)
        lanes += found if stream.lanes > 1 else [found]
    return lanes


def write(
    results: Any, streams: Sequence[Stream], places: Sequence[ir.Value], width: int, streaming: bool = False
) -> None:
    """Stores a tile of each array: what a function gave for it.  streaming: the first past the caches."""
    left = list(results) if isinstance(results, tuple) else [results]
    for k, (stream, place) in enumerate(zip(streams, places, strict=True)):
        taken, left = left[: stream.lanes], left[stream.lanes :]
        values = stream.store(taken[0] if stream.lanes == 1 else tuple(taken), width)
        _write(taken[0].builder, values, place, streaming and k == 0)


def _prefetch(builder: ir.IRBuilder, address: ir.Value, size: int) -> None:
    """Asks for a later tile: the CPU's own prefetcher stops at pages, and long tiles keep it waiting."""
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, keep, data = (ir.Constant(I32, n) for n in (0, 3, 1))
    for line in range(PREFETCH, PREFETCH + size, STREAM_ALIGNMENT):
        place = builder.inttoptr(builder.add(address, _i64(line)), I8.as_pointer())
        builder.call(function, [place, read, keep, data])


def fence(builder: ir.IRBuilder) -> None:
    """Makes non-temporal stores visible before whatever follows."""
    if architecture(builder.module.triple) == "x86":
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.sfence"), [])


class Rows(NamedTuple):
    """Rows of a kernel's call: the first one's place, how many, how many make a batch, elements of each."""

    first: ir.Value
    count: ir.Value
    per_batch: ir.Value
    length: ir.Value


def extremes_of_columns(
    builder: ir.IRBuilder, words: list[ir.Value], stream: Stream, word: Stream, width: int
) -> None:
    """Widens the extremes of columns by rows: (x, low, high, first, count, per_batch, length).

    low, high: monotone keys (`_monotone`), an int32 a column of every batch, in and out.
    """
    x, low, high, *rows = words

    def widen(least: Lane, most: Lane, x: Lane) -> tuple[Lane, ...]:
        return tuple(Lane(builder, key) for key in _wider(builder, (least.value, most.value), x))

    columns = Tiles(builder, widen, width)
    columns.over_columns([(x, stream)], [], [(low, word), (high, word)], Rows(*rows))


def extremes_of_rows(builder: ir.IRBuilder, words: list[ir.Value], stream: Stream, width: int) -> None:
    """The least and largest finite value of each row: (x, low, high, rows, n), float32 outputs.

    Floats are compared by their bits, made monotone; what is not finite counts as the least of all.
    """
    x, low, high, rows, count = words
    with cgutils.for_range(builder, rows, intp=I64) as row:
        base = builder.add(x, builder.mul(row.index, builder.mul(count, _i64(stream.bytes(1)))))
        least, most = _extremes(builder, base, count, stream, width)
        for array, key in ((low, least), (high, most)):
            place = builder.gep(builder.inttoptr(array, I32.as_pointer()), [row.index])
            builder.store(_monotone(builder, key), place)


def _monotone(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """Float bits whose order as integers is that of the floats; its own inverse."""

    def fill(n: int) -> ir.Constant:
        return constant(n, I32, bits.type.count if isinstance(bits.type, ir.VectorType) else 0)

    return builder.xor(bits, builder.and_(builder.ashr(bits, fill(31)), fill(0x7FFFFFFF)))


def _extremes(
    builder: ir.IRBuilder, base: ir.Value, count: ir.Value, stream: Stream, width: int
) -> list[ir.Value]:
    """Keys of the extremes of one row: vectors first, then what is left one by one."""
    wide = [cgutils.alloca_once_value(builder, constant(n, I32, width)) for n in NEUTRAL]
    for room, n in zip(wide, NEUTRAL, strict=True):
        builder.store(constant(n, I32, width), room)
    tiles = builder.udiv(count, _i64(width))
    with cgutils.for_range(builder, tiles, intp=I64) as loop:
        place = builder.add(base, builder.mul(loop.index, _i64(stream.bytes(width))))
        _widen(builder, wide, stream.load(builder, place, width))
    name = f"v{width}i32"
    single = []
    for room, kind in zip(wide, ("smin", "smax"), strict=True):
        reduce = ir.FunctionType(I32, [ir.VectorType(I32, width)])
        function = cgutils.get_or_insert_function(builder.module, reduce, f"llvm.vector.reduce.{kind}.{name}")
        one = cgutils.alloca_once(builder, ir.VectorType(I32, 1))
        found = builder.call(function, [builder.load(room)])
        vector = builder.insert_element(
            ir.Constant(ir.VectorType(I32, 1), ir.Undefined), found, ir.Constant(I32, 0)
        )
        builder.store(vector, one)
        single.append(one)
    rest = builder.urem(count, _i64(width))
    with cgutils.for_range(builder, rest, intp=I64) as loop:
        index = builder.add(builder.mul(tiles, _i64(width)), loop.index)
        place = builder.add(base, builder.mul(index, _i64(stream.bytes(1))))
        _widen(builder, single, stream.load(builder, place, 1))
    return [builder.extract_element(builder.load(one), ir.Constant(I32, 0)) for one in single]


def _widen(builder: ir.IRBuilder, rooms: list[ir.Value], x: Lane) -> None:
    held = [builder.load(room) for room in rooms]
    for room, wider in zip(rooms, _wider(builder, held, x), strict=True):
        builder.store(wider, room)


def _wider(builder: ir.IRBuilder, held: Sequence[ir.Value], x: Lane) -> list[ir.Value]:
    """The least and the largest key, x taken in where it is finite."""
    finite, key = (x & 0x7FFFFFFF) < 0x7F800000, _monotone(builder, x.value)
    found = []
    for room, n, sign in zip(held, NEUTRAL, ("<", ">"), strict=True):
        taken = builder.select(finite.value, key, constant(n, I32, x.width))
        found.append(builder.select(builder.icmp_signed(sign, taken, room), taken, room))
    return found


def _write(builder: ir.IRBuilder, values: list[ir.Value], address: ir.Value, streaming: bool) -> None:
    for value in values:
        size = _bytes_of(value.type)
        store = builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)
        if streaming and size % 16 == 0:  # the widest power of two that divides it, a cache line at most
            store.align = min(size & -size, STREAM_ALIGNMENT)
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
        address = builder.add(address, _i64(size))


def _bytes_of(kind: ir.Type) -> int:
    bits = kind.count * _width_of(kind.element) if isinstance(kind, ir.VectorType) else _width_of(kind)
    return bits // 8


def _width_of(kind: ir.Type) -> int:
    return {"half": 16, "float": 32, "double": 64}.get(str(kind)) or kind.width


def _i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def offset(builder: ir.IRBuilder, address: ir.Value, tile: ir.Value, stream: Stream, width: int) -> ir.Value:
    """Where a tile of an array begins."""
    return builder.add(address, builder.mul(tile, _i64(stream.bytes(width))))


def _size(builder: ir.IRBuilder, stream: Stream, elements: ir.Value) -> ir.Value:
    """Bytes of fewer elements than a tile has."""
    bits = builder.mul(elements, _i64(stream.bits.numerator))
    step = 8 * stream.bits.denominator
    return builder.udiv(builder.add(bits, _i64(step - 1)), _i64(step))


def _spare(builder: ir.IRBuilder, stream: Stream, width: int) -> ir.Value:
    room = cgutils.alloca_once(builder, I8, size=stream.bytes(width))
    room.align = STREAM_ALIGNMENT
    return builder.ptrtoint(room, I64)


def _fill(builder: ir.IRBuilder, address: ir.Value, size: int) -> None:
    cgutils.memset(builder, builder.inttoptr(address, I8.as_pointer()), _i64(size), 0)


def _copy(builder: ir.IRBuilder, target: ir.Value, source: ir.Value, size: ir.Value) -> None:
    pointers = [builder.inttoptr(a, I8.as_pointer()) for a in (target, source)]
    cgutils.raw_memcpy(builder, *pointers, size, _i64(1))


def numbers(builder: ir.IRBuilder, address: ir.Value, count: int) -> list[Lane]:
    """Run-time parameters: int32 at an address, read before any loop."""
    base = builder.inttoptr(address, I32.as_pointer())
    return [Lane(builder, builder.load(builder.gep(base, [_i64(k)]))) for k in range(count)]
