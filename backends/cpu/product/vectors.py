"""What products are emitted of: vectors of 16 lanes, fused multiply-adds, loops over pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from llvmlite import binding, ir
from numba.core import cgutils

from numerics.backends.cpu.lanes import F32, F64, I8, I32, I64, Lane
from numerics.backends.cpu.lookups import shuffled
from numerics.backends.cpu.streams import vector
from numerics.backends.cpu.target import architecture, generator
from numerics.backends.cpu.target import has as has
from numerics.backends.host.product import LANES

FLOAT, WORD = vector(F32, LANES), vector(I32, LANES)
BYTES = 4 * LANES  # of a vector of floats
ZERO = ir.Constant(FLOAT, [0.0] * LANES)
Pair = tuple[ir.Value, ir.Value]


def subnormals_are_cheap() -> bool:
    """Does the CPU multiply subnormal numbers without help?  AMD's do; Intel's call a routine each time."""
    return str(generator().magic_tuple()[1]).startswith("znver")


@cache
def is_arm() -> bool:
    """Is it a 64-bit ARM, which fuses always, in 32 registers of four floats?"""
    return architecture(binding.get_process_triple()) == "aarch64"


def fused(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c, rounded once."""
    if has("fma") or is_arm():
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


def turned(builder: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Columns of as many rows as there are lanes: a vector for each number that a row has, up to four."""
    width = rows[0].type.count
    whole = _joined(builder, rows, width)
    parts = ([shuffled(builder, part, range(j, LANES, width)) for part in whole] for j in range(width))
    return [_joined(builder, several, 1)[0] for several in parts]


def _joined(builder: ir.IRBuilder, parts: Sequence[ir.Value], count: int) -> list[ir.Value]:
    """Vectors that follow each other as so many."""
    while len(parts) > count:
        parts = [
            shuffled(builder, low, range(2 * low.type.count), high)
            for low, high in zip(parts[::2], parts[1::2], strict=True)
        ]
    return list(parts)


def filled(n: int, kind: ir.Type = WORD) -> ir.Constant:
    return ir.Constant(kind, [n] * kind.count)


def spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return Lane(builder, value).spread(LANES)


def i64(n: int) -> ir.Constant:
    return ir.Constant(I64, n)


def plus(builder: ir.IRBuilder, base: ir.Value, index: ir.Value, size: int | ir.Value) -> ir.Value:
    return builder.add(base, builder.mul(index, i64(size) if isinstance(size, int) else size))


def prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    place = builder.inttoptr(address, I8.as_pointer())
    builder.call(function, [place, *(ir.Constant(I32, n) for n in (0, 3, 1))])


def store(b: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=4)


def at_most(b: ir.IRBuilder, n: ir.Value, last: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed(">", n, last), last, n)


@contextmanager
def pieces(b: ir.IRBuilder, count: ir.Value, size: ir.Value) -> Iterator[Pair]:
    """Each piece of `size` of a count: its first, and how many it has."""
    pieces = b.udiv(b.add(count, b.sub(size, i64(1))), size)
    with cgutils.for_range(b, pieces, intp=I64) as loop:
        first = b.mul(loop.index, size)
        yield first, at_most(b, size, b.sub(count, first))
