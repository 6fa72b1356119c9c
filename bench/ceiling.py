"""The memory ceiling: kernels that read and write as many bytes as ours and compute next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

import numerics as nx
from numerics.backends.cpu.lanes import I8, I32, Lane, pick
from numerics.backends.cpu.launch import Launcher, Operation, Parameters
from numerics.backends.cpu.streams import CODES, FLOATS, Stream, vector

_launcher = Launcher()


def _sink(bits: int) -> Stream:
    """Takes float32 lanes and stores `bits` bits of each eight: every lane is read, few are written."""

    def store(x: Lane, width: int) -> list[Any]:
        part = width // 8
        runs = [pick(x, range(k * part, (k + 1) * part)) for k in range(8)]
        kept = runs[:bits]
        for k, run in enumerate(runs[bits:]):
            kept[k % bits] = kept[k % bits] | run
        narrow = [x.builder.trunc(run.value, vector(I8, part)) for run in kept]
        return narrow if bits > 1 else [x.builder.bitcast(narrow[0], vector(I8, part))]

    return Stream(Fraction(bits), FLOATS["float32"].load, store, f"sink{bits}")


def _source(bits: int) -> Stream:
    """The other way round: `bits` bits of memory an element, spread over float32 lanes."""

    def load(builder: Any, address: Any, width: int) -> Lane:
        from numerics.backends.cpu.streams import load_as

        size = width * bits // 8
        few = Lane(builder, builder.zext(load_as(builder, address, vector(I8, size)), vector(I32, size)))
        return pick(few, [i % size for i in range(width)])

    return Stream(Fraction(bits), load, FLOATS["float32"].store, f"source{bits}")


def encode(x: np.ndarray, bits: int) -> tuple[Callable[[], None], int]:
    """x read, `bits` bits an element written; the call and its bytes."""
    out = nx.empty(max(x.size * bits // 8, 1), np.uint8)
    target = CODES["uint8"] if bits == 8 else _sink(bits)
    source = FLOATS[x.dtype.name]
    return _copy(f"ceiling_{source.name}_{bits}", source, target, x, out)


def decode(packed: np.ndarray, elements: int, bits: int) -> tuple[Callable[[], None], int]:
    """`bits` bits an element read, float32 written."""
    out = nx.empty(elements, np.float32)
    source = CODES["uint8"] if bits == 8 else _source(bits)
    return _copy(f"ceiling_{bits}_float32", source, FLOATS["float32"], packed, out)


def copy(x: np.ndarray) -> tuple[Callable[[], None], int]:
    """x read and written."""
    stream = FLOATS[x.dtype.name]
    return _copy(f"ceiling_{stream.name}", stream, stream, x, nx.empty(x.shape, x.dtype))


def fresh_copy(x: np.ndarray, read_before: bool) -> tuple[Callable[[], None], int]:
    """x read and written to memory that nobody used before, as a call that returns a new array does.

    read_before: x is read once more beforehand, as where a scale is found.
    """
    flat = x.reshape(-1)
    stream = FLOATS[x.dtype.name]
    copying = Operation("ceiling_fresh", lambda lane: lane, Parameters(), (stream,), (stream,), 128, 128)
    reading, read = encode(flat, 1) if read_before else (lambda: None, 0)

    def run() -> None:
        reading()
        _launcher.run(copying, flat.size, (flat, nx.empty(flat.shape, x.dtype)))

    return run, 2 * x.nbytes + read


def _copy(name: str, source: Stream, target: Stream, x: np.ndarray, out: np.ndarray) -> Any:
    operation = Operation(name, lambda lane: lane, Parameters(), (source,), (target,), 128, 128)
    elements = int(max(x.nbytes * 8 / source.bits, 1))
    return lambda: _launcher.run(operation, elements, (x, out)), x.nbytes + out.nbytes
