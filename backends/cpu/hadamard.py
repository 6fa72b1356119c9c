"""The Hadamard rotation as a kernel: a row is a vector, a stage one shuffle, one sum and one difference."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, F64, I32, I64
from numerics.backends.cpu.streams import load_as, vector

WORDS = 4  # arguments: x, the factors before the sums and after them, out, rows
LONGEST = 256  # elements that one vector holds
TYPES = {"float32": (F32, 4), "float64": (F64, 8)}


def hadamard(builder: ir.IRBuilder, words: list[ir.Value], size: int, kind: str) -> None:
    """Rotates rows as backends/host/hadamard.py says."""
    x, factors, out, rows = words
    element, itemsize = TYPES[kind]
    wide, step = vector(element, size), ir.Constant(I64, size * itemsize)
    before, after = load_as(builder, factors, wide), load_as(builder, builder.add(factors, step), wide)
    with cgutils.for_range(builder, rows, intp=I64) as row:
        place = builder.mul(row.index, step)
        y = builder.fmul(load_as(builder, builder.add(x, place), wide), before)
        for stage in range(size.bit_length() - 1):
            y = _stage(builder, y, size, 1 << stage)
        to = builder.inttoptr(builder.add(out, place), wide.as_pointer())
        builder.store(builder.fmul(y, after), to, align=itemsize)


def _stage(builder: ir.IRBuilder, y: ir.Value, size: int, distance: int) -> ir.Value:
    """(a, b) to (a + b, a - b), for all pairs at that distance."""
    first = [k & ~distance for k in range(size)]
    a, b = (
        builder.shuffle_vector(y, y, ir.Constant(vector(I32, size), places))
        for places in (first, [k | distance for k in range(size)])
    )
    chosen = [k if k & distance == 0 else size + k for k in range(size)]
    return builder.shuffle_vector(
        builder.fadd(a, b), builder.fsub(a, b), ir.Constant(vector(I32, size), chosen)
    )
