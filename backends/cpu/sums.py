"""The sums of backends/host/sums.py as a kernel: one pass over both arrays, at the speed of memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, F64, I8, I32, I64
from numerics.backends.cpu.streams import load_as, vector
from numerics.backends.cpu.target import fuses
from numerics.backends.host.sums import CHUNK, FIGURES, LANES

WORDS = 5  # arguments: x, y, figures, chunks, elements
TYPES = {"float32": F32, "float64": F64}
WIDE = vector(F64, LANES)
_ZERO, _ONE = (ir.Constant(WIDE, [number] * LANES) for number in (0.0, 1.0))


class Adding(NamedTuple):
    """The sums of a chunk.  lanes: where LANES of each figure stand.

    single: float32 is compared with float32, so that the largest square stands for the largest error, whose
    root it has: 2**-149 and 2**128 have squares that float64 holds.
    """

    builder: ir.IRBuilder
    lanes: list[ir.Value]
    single: bool

    @classmethod
    def on(cls, builder: ir.IRBuilder, single: bool) -> Adding:
        """Room for them."""
        return cls(builder, [cgutils.alloca_once(builder, WIDE) for _ in range(FIGURES)], single)

    def begin(self) -> None:
        """A chunk begins."""
        for lane in self.lanes:
            self.builder.store(_ZERO, lane)

    def end(self, place: ir.Value) -> None:
        """Writes the figures of a chunk."""
        builder = self.builder
        for k, lane in enumerate(self.lanes):
            join = partial(_larger, builder) if k == FIGURES - 1 else builder.fadd
            total = _halved(builder, builder.load(lane), join)
            if k == FIGURES - 1 and self.single:
                total = _call(builder, "llvm.sqrt.f64", total)
            target = builder.inttoptr(builder.add(place, _i64(8 * k)), F64.as_pointer())
            builder.store(total, target)


Add = Callable[[Adding, ir.Value, ir.Value], None]


class Source(NamedTuple):
    """An array of the kernel: where it begins, and LLVM's type of its elements."""

    address: ir.Value
    element: ir.Type

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 8 if self.element == F64 else 4

    def at(self, builder: ir.IRBuilder, index: ir.Value) -> ir.Value:
        """The address of an element."""
        return builder.add(self.address, builder.mul(index, _i64(self.itemsize)))

    def load(self, builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
        """LANES elements from an address on, in float64."""
        found = load_as(builder, address, vector(self.element, LANES))
        return found if self.element == F64 else builder.fpext(found, WIDE)

    def short(self, builder: ir.IRBuilder, address: ir.Value, count: ir.Value) -> ir.Value:
        """Fewer elements, and zeros in the places of the others: nothing behind the array is read."""
        room = cgutils.alloca_once(builder, I8, size=LANES * self.itemsize)
        cgutils.memset(builder, room, _i64(LANES * self.itemsize), 0)
        given = builder.inttoptr(address, I8.as_pointer())
        cgutils.raw_memcpy(builder, room, given, builder.mul(count, _i64(self.itemsize)), _i64(1))
        return self.load(builder, builder.ptrtoint(room, I64))


def error_sums(builder: ir.IRBuilder, words: list[ir.Value], kinds: tuple[str, str]) -> None:
    """Writes the figures of each chunk; kinds: the float types of x and y."""
    x, y = (Source(word, TYPES[kind]) for word, kind in zip(words, kinds, strict=False))
    figures, chunks, size = words[2:]
    adding = Adding.on(builder, single=kinds == ("float32", "float32"))
    with cgutils.for_range(builder, chunks, intp=I64) as chunk:
        first = builder.mul(chunk.index, _i64(CHUNK))
        count = least(builder, builder.sub(size, first), _i64(CHUNK))
        _add_chunk(adding, (x, y), (first, count), add_finite)
        signal = _halved(builder, builder.load(adding.lanes[0]), builder.fadd)
        with builder.if_then(
            builder.fcmp_unordered("!=", builder.fsub(signal, signal), ir.Constant(F64, 0.0))
        ):
            _add_chunk(adding, (x, y), (first, count), _add)
        adding.end(builder.add(figures, builder.mul(chunk.index, _i64(8 * FIGURES))))


def _add_chunk(
    adding: Adding, pair: tuple[Source, Source], where: tuple[ir.Value, ir.Value], add: Add
) -> None:
    """A chunk from the beginning.  where: its first element, and how many it has."""
    builder, (first, count) = adding.builder, where
    adding.begin()
    tiles, rest = builder.udiv(count, _i64(LANES)), builder.urem(count, _i64(LANES))
    with cgutils.for_range(builder, tiles, intp=I64) as tile:
        index = builder.add(first, builder.mul(tile.index, _i64(LANES)))
        add(adding, *(source.load(builder, source.at(builder, index)) for source in pair))
    with builder.if_then(builder.icmp_unsigned("!=", rest, _i64(0))):
        index = builder.add(first, builder.mul(tiles, _i64(LANES)))
        add(adding, *(source.short(builder, source.at(builder, index), rest) for source in pair))


def least(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The smaller of two integers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _add(adding: Adding, x: ir.Value, y: ir.Value) -> None:
    """Takes LANES elements in; those of x that are not finite are counted, and zeros that became zeros."""
    builder, lanes, _ = adding
    finite = builder.fcmp_ordered("==", builder.fsub(x, x), _ZERO)
    other = builder.select(finite, _ZERO, _ONE)
    builder.store(builder.fadd(builder.load(lanes[2]), other), lanes[2])
    add_finite(adding, *(builder.select(finite, value, _ZERO) for value in (x, y)))


def add_finite(adding: Adding, x: ir.Value, y: ir.Value) -> None:
    """The same where all of x is finite; what is not shows in the signal, which is no number then."""
    builder, lanes, single = adding
    error = builder.fsub(x, y)
    square = builder.fmul(error, error)
    signal, noise, _, largest = (builder.load(lane) for lane in lanes)
    if single and fuses(builder.module.triple):  # the square of a float32 is exact
        signal = _call(builder, f"llvm.fma.v{LANES}f64", x, x, signal)
    else:
        signal = builder.fadd(signal, builder.fmul(x, x))
    builder.store(signal, lanes[0])
    builder.store(builder.fadd(noise, square), lanes[1])
    size = square if single else _call(builder, f"llvm.fabs.v{LANES}f64", error)
    builder.store(_larger(builder, size, largest), lanes[3])


def _call(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    """A function of LLVM's own whose result is of the type of its arguments."""
    kind = ir.FunctionType(arguments[0].type, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _larger(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The larger of each pair; b where a is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _halved(
    builder: ir.IRBuilder, lanes: ir.Value, join: Callable[[ir.Value, ir.Value], ir.Value]
) -> ir.Value:
    """The lanes joined: the first half with the second, until one is left."""
    while lanes.type.count > 1:
        half = lanes.type.count // 2
        low, high = (
            builder.shuffle_vector(
                lanes, lanes, ir.Constant(vector(I32, half), list(range(start, start + half)))
            )
            for start in (0, half)
        )
        lanes = join(low, high)
    return builder.extract_element(lanes, ir.Constant(I32, 0))


def _i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)
