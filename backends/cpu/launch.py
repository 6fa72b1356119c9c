"""Kernels by name, compiled when first needed, and their launch: parameters, threads, stores.

Formats are run-time parameters: one kernel serves every format that has the same kinds of facts
(formats/grid.py: which fields are None), so there are tens of kernels, not hundreds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from ctypes import addressof, c_char
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numpy.typing import NDArray

from numerics.backends.cpu import compiler, kernels, locks, lookups, threads
from numerics.backends.cpu.kernels import STREAM_ALIGNMENT
from numerics.backends.cpu.lanes import I64, Lane, Runs, Table, joined_codes, kind_of_table, loaded_table
from numerics.backends.cpu.streams import WORDS, Stream
from numerics.backends.host.executor import Array
from numerics.formats.errors import NumericsError

WIDTH = 32  # lanes of a tile; four 256-bit or two 512-bit registers
SIZES = 64  # numbers of elements whose bytes an operation remembers
STREAM_BYTES = 24 << 20  # an output from here on is not kept in any cache: write past them

Run = Callable[..., None]
"""A kernel: a function of integers."""

# Fields of a Grid that are there or not, never a number.
FLAGS = ("has_nan", "inherit", "adder", "direct", "bare_zero", "flush", "prefix", "deep")


@dataclass(frozen=True)
class Number:
    """One run-time number."""

    value: Any


_joined_codes = lru_cache(maxsize=64)(joined_codes)  # a quarter of a megabyte each, at most three


def register_lanes() -> int:
    """How many steps one register holds on this machine, to be looked up there."""
    return lookups.lanes(binding.get_process_triple())


def _address_at(builder: ir.IRBuilder, address: ir.Value, at: int) -> ir.Value:
    """An address that stands among the parameters, its low half first."""
    place = builder.inttoptr(builder.add(address, ir.Constant(I64, 4 * at)), I64.as_pointer())
    return builder.load(place, align=4)


class Parameters:
    """Records of numbers (Grid, Scale, ...) as one int32 array, and back as records of lanes."""

    def __init__(self, *records: Any) -> None:
        self.records = records
        self.names = [
            [f.name for f in fields(record) if f.name not in FLAGS and getattr(record, f.name) is not None]
            for record in records
        ]
        flat = [getattr(r, name) for r, names in zip(records, self.names, strict=True) for name in names]
        self.sizes = [len(found) if isinstance(found, tuple) else None for found in flat]  # of tables
        self.joined = [self._joined(record) for record in records]
        self.kinds = [
            self._kind(record, name, joined)
            for record, names, joined in zip(records, self.names, self.joined, strict=True)
            for name in names
        ]
        numbers = [n for found in flat for n in (found if isinstance(found, tuple) else (found,))]
        for joined in self.joined:  # their addresses, in two halves
            if joined is not None:
                numbers += np.array([joined.ctypes.data], np.int64).view(np.int32).tolist()
        self._hold(np.array(numbers or [0], np.int32))

    def _hold(self, array: NDArray[np.int32]) -> None:
        self.array, self.address = array, address_of(array)

    def beginning(self, number: int) -> Parameters:
        """The same with another first number: no kernel knows which."""
        made = object.__new__(Parameters)
        made.__dict__.update(self.__dict__)
        made._hold(self.array.copy())
        made.array[0] = number
        return made

    @staticmethod
    def _joined(record: Any) -> NDArray[np.int32] | None:
        """The codes of a codebook as an encoder finds them soonest, where they are too many for registers."""
        steps = getattr(record, "steps", None)
        if steps is None or record.heights is not None or len(steps) < max(7, 2 * register_lanes()):
            return None
        return _joined_codes(steps, record.codes)

    @staticmethod
    def _kind(record: Any, name: str, joined: NDArray[np.int32] | None) -> str:
        """What is known of a table; of steps that are not searched nothing, so that kernels are few."""
        table = getattr(record, name)
        searched = name != "steps" or joined is None
        return kind_of_table(name, table) if isinstance(table, tuple) and searched else ""

    @property
    def shape(self) -> str:
        """Which numbers there are: what a kernel is compiled for."""
        flags = [[f for f in FLAGS if getattr(r, f, None) is not None] for r in self.records]
        tables = "".join(
            f"[{size}{kind}]" for size, kind in zip(self.sizes, self.kinds, strict=True) if size is not None
        )
        kinds = ";".join(",".join(names + more) for names, more in zip(self.names, flags, strict=True))
        return kinds + tables + "".join(f"+{Runs.of(joined)}" for joined in self.joined if joined is not None)

    def lanes(self, builder: ir.IRBuilder, address: ir.Value) -> list[Any]:
        """The records with lanes for numbers."""
        found = iter(self._fields(builder, address))
        made = [
            replace(record, **{name: next(found) for name in names})
            for record, names in zip(self.records, self.names, strict=True)
        ]
        at = sum(size or 1 for size in self.sizes)
        for record, joined in zip(made, self.joined, strict=True):
            if joined is not None:
                record.steps.joined = _address_at(builder, address, at), Runs.of(joined)
                at += 2
        return made

    def _fields(self, builder: ir.IRBuilder, address: ir.Value) -> Iterator[Lane | Table]:
        """Each number as a lane, each table as one."""
        loaded = kernels.numbers(builder, address, sum(size or 1 for size in self.sizes))
        at = 0
        for size, kind in zip(self.sizes, self.kinds, strict=True):
            if size is None:
                yield loaded[at]
            else:
                place = builder.add(address, ir.Constant(I64, at * self.array.itemsize))
                yield loaded_table(builder, loaded[at : at + size], place, kind)
            at += 1 if size is None else size


@dataclass(frozen=True, eq=False)
class Operation:
    """function(*records, *numbers, *lanes) over arrays, in tiles of `width`.

    rows: arrays with one number a row (a scale, a zero point); where there are any, the operation
    runs over `rows x n` elements instead of `n`.  columns: one number a column instead.
    """

    name: str
    function: Callable[..., Any]
    parameters: Parameters
    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    width: int = WIDTH
    wide: int = 2 * WIDTH  # of a tile that is written past the caches: whole lines
    rows: int = 0
    columns: bool = False
    unit: int = 1  # elements that belong together: a block
    narrow: int = 0  # of a narrower tile for what is left at the end (decoded.py); 0: there is none
    past: bool = False  # of rows: the output is a part of a large one, to be written past the caches
    kernels: dict[bool | str, Run] = field(default_factory=dict, init=False)
    """Made of it: by whether they write past the caches, and by what else they do."""
    taken: dict[int, tuple[int, ...]] = field(default_factory=dict, init=False)
    """What bytes_of found, by the number of elements."""

    def beginning(self, number: int) -> Operation:
        """The same, and by the same kernels, with another number in the place of its first."""
        made = object.__new__(Operation)
        made.__dict__.update(self.__dict__, parameters=self.parameters.beginning(number))
        return made

    @cached_property
    def cut(self) -> int:
        """Elements between which the work may be cut: whole blocks, tiles, bytes of every array, and
        cache lines of the output that is written past the caches.
        """
        bits = [stream.bits for stream in self.streams]
        lines = (8 * STREAM_ALIGNMENT / self.outputs[0].bits).numerator
        return threads.unit_of(bits, self.unit, self.width, self.wide, lines)

    @cached_property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of the inputs, then of the outputs."""
        return (*self.inputs, *self.outputs)

    def bytes_of(self, size: int) -> tuple[int, ...]:
        """How many bytes of each stream `size` elements take."""
        if len(self.taken) >= SIZES:
            self.taken.clear()
        return self.taken.setdefault(size, tuple(math.ceil(size * s.bits / 8) for s in self.streams))

    def kernel_name(self, streaming: bool) -> str:
        """Says all that its instructions depend on."""
        kinds = hashlib.sha256(self.parameters.shape.encode()).hexdigest()[:8]
        return f"{self.name}_{kinds}" + ("_streaming" if streaming else "")

    @property
    def words(self) -> int:
        """Arguments: addresses, [[first row,] rows, [of a batch,]] elements, the parameters' address."""
        return len(self.inputs) + len(self.outputs) + self.rows + 2 + bool(self.rows) + 2 * self.columns

    def emit(self, streaming: bool, builder: ir.IRBuilder, words: list[ir.Value]) -> None:
        """The instructions of the kernel."""
        arrays, fixed = words[: len(self.inputs) + len(self.outputs)], words[-1]
        function = partial(self.function, *self.parameters.lanes(builder, fixed))
        width = self.wide if streaming else self.width
        ins = list(zip(arrays, self.inputs, strict=False))
        outs = list(zip(arrays[len(self.inputs) :], self.outputs, strict=True))
        tiles, numbers = kernels.Tiles(builder, function, width, streaming), words[len(arrays) : -2]
        if self.columns:
            bases = [(base, WORDS) for base in numbers[: self.rows]]
            tiles.over_columns(ins, outs, bases, kernels.Rows(*words[-5:-1]))
        elif self.rows:
            tiles.over_rows(ins, outs, numbers[: self.rows], words[-3], words[-2])
        else:
            tiles.over(ins, outs, words[-2])
        if streaming:
            kernels.fence(builder)


class Launcher:
    """The kernels of a process."""

    def __init__(self) -> None:
        self.kernels: dict[str, compiler.Kernel] = {}

    def words(self) -> set[int]:
        """How many integers its kernels take."""
        return {kernel.words for kernel in self.kernels.values()}

    def built(self, name: str, words: int, emit: compiler.Emit) -> Run:
        """The kernel of that name, made when it is first asked for."""
        found = self.kernels.get(name)
        if found is None:
            threads.count()  # a number that is refused is refused before anything is done
            locks.give_way()
            with locks.LOCK:
                compiler.undisturbed(partial(self._build, name, words, emit))
            found = self.kernels[name]
        return found.run

    def _build(self, name: str, words: int, emit: compiler.Emit) -> None:
        if name not in self.kernels:
            self.kernels[name] = compiler.build(name, words, emit)

    def kernel(self, operation: Operation, streaming: bool = False) -> Run:
        """The compiled operation."""
        found = operation.kernels.get(streaming)
        if found is None:
            emit = partial(operation.emit, streaming)
            found = self.built(operation.kernel_name(streaming), operation.words, emit)
            operation.kernels[streaming] = found
        return found

    def run(self, operation: Operation, size: int, arrays: Sequence[Array]) -> None:
        """The operation over `size` elements of inputs and outputs."""
        _check_arrays(operation, size, arrays)
        addresses = [address_of(array) for array in arrays]
        fixed, kernel = operation.parameters.address, operation.kernels.get(False) or self.kernel(operation)
        if size < threads.WORTHWHILE:
            kernel(*addresses, size, fixed)
            return
        several, first, head = threads.count(), len(operation.inputs), 0
        moving = [*map(threads.Moving, addresses, (stream.bits for stream in operation.streams))]
        if arrays[first].nbytes >= STREAM_BYTES:
            head = _elements_to_alignment(moving, first, operation.unit)
            if head:
                kernel(*addresses, head, fixed)
            kernel = self.kernel(operation, streaming=moving[first].at(head) % STREAM_ALIGNMENT == 0)
        rest = [threads.Moving(array.at(head), array.bits) for array in moving]
        job = threads.Job(kernel, rest, (fixed,), (arrays, operation), operation.cut)
        threads.run(job, size - head, several)

    def run_rows(
        self, operation: Operation, shape: tuple[int, int], arrays: Sequence[Array], numbers: Sequence[Array]
    ) -> None:
        """The operation over rows of elements, each with its own numbers."""
        rows, n = shape
        _check_arrays(operation, rows * n, arrays)
        if 0 < rows * n < threads.WORTHWHILE:
            every = [address_of(array) for array in (*arrays, *numbers)]
            kernel = operation.kernels.get(False) or self.kernel(operation)
            kernel(*every, rows, n, operation.parameters.address)
            return
        threads.run_rows(self._job(operation, arrays, numbers, n), rows, n)

    def run_columns(
        self,
        operation: Operation,
        shape: tuple[int, int, int],
        arrays: Sequence[Array],
        numbers: Sequence[Array],
    ) -> None:
        """The operation over batches of rows, each batch with numbers for its columns."""
        batches, per_batch, n = shape
        _check_arrays(operation, batches * per_batch * n, arrays)
        threads.run_columns(self._job(operation, arrays, numbers, n), batches * per_batch, per_batch, n)

    def _job(
        self, operation: Operation, arrays: Sequence[Array], numbers: Sequence[Array], n: int
    ) -> threads.Job:
        """The operation over rows of n elements, as threads share it."""
        beside = [threads.Moving(address_of(array), Fraction(8 * array.itemsize)) for array in numbers]
        return threads.Job(
            self.kernel(operation, _past_caches(operation, arrays, n)), _moving(operation, arrays),
            (operation.parameters.address,), (arrays, numbers, operation), operation.cut, beside,
        )  # fmt: skip


def _check_arrays(operation: Operation, size: int, arrays: Sequence[Array]) -> None:
    """A kernel reads and writes what it was compiled for, whatever it is given: raises NumericsError for
    another count of arrays, and for one that is shorter than `size` elements.
    """
    taken = operation.taken.get(size) or operation.bytes_of(size)
    if len(arrays) != len(taken):
        raise NumericsError(f"{operation.name} takes {len(taken)} arrays, not {len(arrays)}")
    for array, least in zip(arrays, taken):  # noqa: B905 # as many, see above; to be strict is slower
        if array.nbytes < least:
            place = next(k for k, one in enumerate(arrays) if one is array)
            raise NumericsError(
                f"{operation.name}: array {place} has {array.nbytes} bytes, and {size} elements take {least}"
            )


def _moving(operation: Operation, arrays: Sequence[Array]) -> list[threads.Moving]:
    return [
        threads.Moving(address_of(array), stream.bits)
        for array, stream in zip(arrays, operation.streams, strict=True)
    ]


def _past_caches(operation: Operation, arrays: Sequence[Array], n: int) -> bool:
    """Is the output of rows of n elements large, or part of a large one, and every row on cache lines?"""
    out, stream = arrays[len(operation.inputs)], operation.outputs[0]
    on_lines = address_of(out) % STREAM_ALIGNMENT == 0 and n * stream.bits % (8 * STREAM_ALIGNMENT) == 0
    return on_lines and (operation.past or out.nbytes >= STREAM_BYTES)


def address_of(array: Array) -> int:
    """Where an array's elements begin; by the buffer where it can be written, which is a third as long."""
    try:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type] # arrays are buffers
    except (ValueError, TypeError, BufferError):  # read-only, empty, bfloat16, not contiguous
        address: int = array.__array_interface__["data"][0]
        return address


def _elements_to_alignment(arrays: Sequence[threads.Moving], output: int, unit: int) -> int:
    """Elements to do by ordinary stores until the output is aligned; 0 where that cannot be."""
    head = (-arrays[output].address % STREAM_ALIGNMENT) * 8 / arrays[output].bits
    alone = len(arrays) == output + 1  # one output can be aligned, not two
    together = threads.unit_of([array.bits for array in arrays], unit)
    return head.numerator if alone and (head / together).denominator == 1 else 0
