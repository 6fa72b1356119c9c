"""Sums of what codes stand for, which is never an array: a tile is decoded and summed in registers.

Of codes that are there, or of those that the same kernel makes of x and stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.kernels import load, offset, write
from numerics.backends.cpu.lanes import F32, I32, I64, Lane
from numerics.backends.cpu.launch import Operation
from numerics.backends.cpu.streams import FLOATS, Stream, vector
from numerics.backends.cpu.sums import WIDE, Adding, add_finite, least
from numerics.backends.host.sums import CHUNK, FIGURES, LANES

Pair = Callable[[ir.Value, int, Sequence[Lane]], tuple[ir.Value, ir.Value]]
"""x and what became of it, float vectors: of which tile, of how many elements, and its row's numbers."""


def words_of(operation: Operation) -> int:
    """Arguments of `error_sums`."""
    return 1 + len(operation.inputs) + _beside(operation) + 1


def _beside(operation: Operation) -> int:
    """Arguments between arrays and parameters: numbers, figures, first chunk, chunks, elements, a row's."""
    return operation.rows + 4 + bool(operation.rows)


def tiles_are_whole(operation: Operation, size: int, row: int) -> bool:
    """Do tiles of an operation over so many elements hold LANES each, or a multiple?  row: of a row, or 0."""
    width = operation.narrow or operation.width
    return size > 0 and not (width % LANES or CHUNK % operation.width or (row or size) % width)


def error_sums(builder: ir.IRBuilder, words: list[ir.Value], operation: Operation) -> None:
    """Writes the figures of chunks of float32 elements and of what an operation makes of their codes.

    `tiles_are_whole` holds.  Arguments: x, the operation's inputs and numbers, figures, the first chunk,
    chunks, elements, [those of a row,] the parameters' address.
    Where something of a chunk is not finite, its figures are neither finite nor those of sums.py.
    """
    inputs = operation.inputs
    x, codes, rest = words[0], words[1 : 1 + len(inputs)], words[1 + len(inputs) :]
    decode = _Function(builder, operation, words[-1])

    def pair(tile: ir.Value, width: int, own: Sequence[Lane]) -> tuple[ir.Value, ir.Value]:
        fields = _loaded(builder, tile, zip(codes, inputs, strict=True), width)
        [source] = _loaded(builder, tile, [(x, FLOATS["float32"])], width)
        return _floats(source, width), _floats(decode(*own, *fields), width)

    _over_chunks(builder, operation, rest, pair)


class Measured(NamedTuple):
    """An operation that makes codes of float32, and the one that makes values of them again.

    Nothing but their functions meets: what the one stores, the other would load.
    """

    encoding: Operation
    decoding: Operation

    @property
    def words(self) -> int:
        """Arguments of `emit`."""
        return len(self.encoding.inputs) + len(self.encoding.outputs) + _beside(self.encoding) + 2

    @property
    def name(self) -> str:
        """Says all that the instructions depend on."""
        made, again = (operation.kernel_name(False) for operation in self)
        return f"measured_{made}_{again}"

    def emit(self, builder: ir.IRBuilder, words: list[ir.Value]) -> None:
        """Stores the codes, and writes the figures of chunks as `error_sums` does.

        Arguments: the inputs, outputs and numbers of the encoding, figures, the first chunk, chunks,
        elements, [those of a row,] the addresses of both operations' parameters.
        """
        encoding, decoding = self
        inputs, outputs = encoding.inputs, encoding.outputs
        count, arrays = len(inputs), len(inputs) + len(outputs)
        sources, targets = zip(words, inputs, strict=False), zip(words[count:], outputs, strict=False)
        read, written = list(sources), list(targets)
        encode, decode = _Function(builder, encoding, words[-2]), _Function(builder, decoding, words[-1])

        def pair(tile: ir.Value, width: int, own: Sequence[Lane]) -> tuple[ir.Value, ir.Value]:
            lanes = _loaded(builder, tile, read, width)
            found = encode(*own, *lanes)
            places = [offset(builder, address, tile, stream, width) for address, stream in written]
            write(found, outputs, places, width)
            kept = decode(*own, *_read_again(found, decoding.inputs))
            return _floats(lanes[0], width), _floats(kept, width)

        _over_chunks(builder, encoding, words[arrays:-1], pair)


def _read_again(found: Any, streams: Sequence[Stream]) -> list[Lane]:
    """What loading gives of fields that were stored: every number in the bits that are kept of it.

    What a block shares every one of its lanes has, as it made its elements with it.
    """
    fields = found if isinstance(found, tuple) else (found,)
    bits = [count for stream in streams for count in stream.kept]
    return [
        Lane(field.builder, (field & ((1 << count) - 1)).value, count)
        for field, count in zip(fields, bits, strict=True)
    ]


class _Function:
    """An operation's function, its records loaded."""

    def __init__(self, builder: ir.IRBuilder, operation: Operation, address: ir.Value) -> None:
        self.function, self.records = operation.function, operation.parameters.lanes(builder, address)

    def __call__(self, *lanes: Lane) -> Any:
        return self.function(*self.records, *lanes)


def _over_chunks(builder: ir.IRBuilder, operation: Operation, words: list[ir.Value], pair: Pair) -> None:
    """Writes the figures of chunks of pairs.  words: the operation's numbers and all that follows them."""
    figures, first, chunks, size = words[operation.rows : operation.rows + 4]
    walk = _Walk(builder, operation, words[: operation.rows], words[-2], pair)
    adding = Adding.on(builder, single=True)
    with cgutils.for_range(builder, chunks, intp=I64) as chunk:
        adding.begin()
        number = builder.add(first, chunk.index)
        start = builder.mul(number, _i64(CHUNK))
        walk.add(adding, start, least(builder, builder.add(start, _i64(CHUNK)), size))
        adding.end(builder.add(figures, builder.mul(number, _i64(8 * FIGURES))))


@dataclass(frozen=True)
class _Walk:
    """What goes over elements tile by tile.  numbers: of rows of that length, where it has rows."""

    builder: ir.IRBuilder
    operation: Operation
    numbers: Sequence[ir.Value]
    length: ir.Value
    pair: Pair

    def add(self, adding: Adding, start: ir.Value, stop: ir.Value) -> None:
        """Takes in elements that lie in one chunk, row by row where the operation has rows."""
        builder, length = self.builder, self.length
        if not self.numbers:
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
        """Whole tiles, and narrower ones for the rest."""
        width, narrow = self.operation.width, self.operation.narrow
        start = self._add_whole(adding, start, stop, width, own)
        if 0 < narrow < width:
            self._add_whole(adding, start, stop, narrow, own)

    def _add_whole(
        self, adding: Adding, start: ir.Value, stop: ir.Value, width: int, own: list[Lane]
    ) -> ir.Value:
        """As many tiles of that width as there are; returns where they end.  start: a multiple of it."""
        builder = self.builder
        before = builder.udiv(start, _i64(width))
        tiles = builder.udiv(builder.sub(stop, start), _i64(width))
        with cgutils.for_range(builder, tiles, intp=I64) as loop:
            both = self.pair(builder.add(before, loop.index), width, own)
            for first in range(0, width, LANES):
                some = ir.Constant(vector(I32, LANES), list(range(first, first + LANES)))
                parts = [builder.fpext(builder.shuffle_vector(one, one, some), WIDE) for one in both]
                add_finite(adding, *parts)
        return builder.mul(builder.add(before, tiles), _i64(width))


def _loaded(
    builder: ir.IRBuilder, tile: ir.Value, arrays: Iterable[tuple[ir.Value, Stream]], width: int
) -> list[Lane]:
    """A tile of each array."""
    some = list(arrays)
    places = [offset(builder, address, tile, stream, width) for address, stream in some]
    return load(builder, [stream for _, stream in some], places, width)


def _floats(bits: Lane, width: int) -> ir.Value:
    return bits.builder.bitcast(bits.spread(width), vector(F32, width))


def _most(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _i64(value: int) -> ir.Constant:
    return ir.Constant(I64, value)
