"""Sums of what codes stand for, which is never an array: a tile is decoded and summed in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, I32, I64, Lane
from numerics.backends.cpu.launch import Operation
from numerics.backends.cpu.streams import Stream, vector
from numerics.backends.cpu.sums import WIDE, Adding, Source, add_finite, least
from numerics.backends.host.sums import CHUNK, FIGURES, LANES


def words_of(operation: Operation) -> int:
    """Arguments of `error_sums`."""
    return 6 + len(operation.inputs) + operation.rows + bool(operation.rows)


def error_sums(builder: ir.IRBuilder, words: list[ir.Value], operation: Operation) -> None:
    """Writes the figures of chunks of float32 elements and of what an operation makes of their codes.

    The operation's tiles are whole, and hold LANES elements or a multiple.  Arguments: x, the operation's
    inputs and numbers, figures, the first chunk, chunks, elements, [those of a row,] the parameters' address.
    Where something of a chunk is not finite, its figures are neither finite nor those of sums.py.
    """
    decoding = _Decoding(builder, words, operation)
    figures, first, chunks, size = words[decoding.arrays : decoding.arrays + 4]
    adding = Adding.on(builder, single=True)
    with cgutils.for_range(builder, chunks, intp=I64) as chunk:
        adding.begin()
        number = builder.add(first, chunk.index)
        start = builder.mul(number, _i64(CHUNK))
        decoding.add(adding, start, least(builder, builder.add(start, _i64(CHUNK)), size))
        adding.end(builder.add(figures, builder.mul(number, _i64(8 * FIGURES))))


class _Decoding:
    """What decodes tiles of a kernel's arrays, and adds them up beside x."""

    def __init__(self, builder: ir.IRBuilder, words: list[ir.Value], operation: Operation) -> None:
        self.builder, self.operation = builder, operation
        inputs = len(operation.inputs)
        self.arrays = 1 + inputs + operation.rows
        self.x, self.codes = Source(words[0], F32), words[1 : 1 + inputs]
        self.numbers, self.length = words[1 + inputs : self.arrays], words[-2]
        self.records = operation.parameters.lanes(builder, words[-1])

    def add(self, adding: Adding, start: ir.Value, stop: ir.Value) -> None:
        """Takes in elements that lie in one chunk, row by row where the operation has rows."""
        builder, length = self.builder, self.length
        if not self.operation.rows:
            self._add_tiles(adding, start, stop, [])
            return
        first, last = builder.udiv(start, length), builder.udiv(builder.sub(stop, _i64(1)), length)
        with cgutils.for_range(builder, builder.add(builder.sub(last, first), _i64(1)), intp=I64) as loop:
            row = builder.add(first, loop.index)
            begin = builder.mul(row, length)
            bases = [builder.inttoptr(base, I32.as_pointer()) for base in self.numbers]
            own = [Lane(builder, builder.load(builder.gep(base, [row]))) for base in bases]
            end = least(builder, builder.add(begin, length), stop)
            self._add_tiles(adding, _most(builder, begin, start), end, own)

    def _add_tiles(self, adding: Adding, start: ir.Value, stop: ir.Value, own: list[Lane]) -> None:
        builder, width = self.builder, self.operation.width
        before = builder.udiv(start, _i64(width))
        tiles = builder.udiv(builder.sub(stop, start), _i64(width))
        with cgutils.for_range(builder, tiles, intp=I64) as loop:
            tile = builder.add(before, loop.index)
            y = builder.bitcast(self._values(tile, own).spread(width), vector(F32, width))
            for first in range(0, width, LANES):
                index = builder.add(builder.mul(tile, _i64(width)), _i64(first))
                some = ir.Constant(vector(I32, LANES), list(range(first, first + LANES)))
                part = builder.fpext(builder.shuffle_vector(y, y, some), WIDE)
                add_finite(adding, self.x.load(builder, self.x.at(builder, index)), part)

    def _values(self, tile: ir.Value, own: list[Lane]) -> Lane:
        """What the codes of a tile stand for, as float32 bits."""
        fields: list[Lane] = []
        for address, stream in zip(self.codes, self.operation.inputs, strict=True):
            loaded = self._load(address, stream, tile)
            fields += loaded if stream.lanes > 1 else [loaded]
        found: Lane = self.operation.function(*self.records, *own, *fields)
        return found

    def _load(self, address: ir.Value, stream: Stream, tile: ir.Value) -> Any:
        width = self.operation.width
        place = self.builder.add(address, self.builder.mul(tile, _i64(stream.bytes(width))))
        return stream.load(self.builder, place, width)


def _most(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)
