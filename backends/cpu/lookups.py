"""Tables that vectors of indices are looked up in: in registers by permutations, or in memory one by one.

Gathers are slower than either: of 16 numbers twice as slow as 16 loads.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from numerics.backends.cpu.target import architecture, has

I16, I32, I64 = (ir.IntType(width) for width in (16, 32, 64))
MOST = 8  # registers that a table fills at most: of more, loads are as fast

# The lanes of a register, and what permutes one table of it, or two.
_WORDS_OF_AVX512 = 16, "avx512.permvar.si.512", "avx512.vpermi2var.d.512"
_WORDS_OF_AVX2 = 8, "avx2.permd", None
_HALVES_OF_AVX512 = 32, "avx512.permvar.hi.512", "avx512.vpermi2var.hi.512"
Permutation = tuple[int, str, str | None]


def permutation(triple: str, element: ir.Type) -> Permutation | None:
    """What permutes registers of such elements on the machine that kernels are compiled for."""
    if architecture(triple) != "x86":
        return None
    if element == I16:
        return _HALVES_OF_AVX512 if has("avx512bw") else None
    return _WORDS_OF_AVX512 if has("avx512f") else _WORDS_OF_AVX2 if has("avx2") else None


def lanes(triple: str) -> int:
    """How many int32 a register has whose numbers are permuted; 1 where none is."""
    found = permutation(triple, I32)
    return 1 if found is None else found[0]


def room(triple: str, element: ir.Type = I32) -> int:
    """How many numbers a table has at most that is looked up in registers; 0 where none is."""
    found = permutation(triple, element)
    return 0 if found is None else found[0] * (MOST if found[2] else 2)


def shifts_bits_in(triple: str) -> bool:
    """Has that machine a shift of vectors that takes its bits from other ones?"""
    return architecture(triple) == "x86" and has("avx512vbmi2")


def shifted_in(builder: ir.IRBuilder, n: ir.Value, other: ir.Value) -> ir.Value:
    """The int32 of a vector, one bit to the left, with the highest bits of the other's as the lowest."""
    kind = ir.FunctionType(n.type, [n.type] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fshl.v{n.type.count}i32")
    return builder.call(function, [n, other, ir.Constant(n.type, [1] * n.type.count)])


def instruction(builder: ir.IRBuilder, name: str, result: ir.Type, *operands: ir.Value) -> ir.Value:
    """One of x86, by LLVM's name for it."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), operands)


def shuffled(
    builder: ir.IRBuilder, a: ir.Value, places: Sequence[int], b: ir.Value | None = None
) -> ir.Value:
    """The elements at these places of a, and behind them of b."""
    mask = ir.Constant(ir.VectorType(I32, len(places)), list(places))
    return builder.shuffle_vector(a, ir.Constant(a.type, ir.Undefined) if b is None else b, mask)


def in_registers(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    """table[index] of two vectors of the same elements, the table's 2**n of them, by permutations."""
    found = permutation(builder.module.triple, table.type.element)
    assert found is not None, "this machine permutes nothing"
    step, size, width = found[0], table.type.count, index.type.count
    registers = [
        shuffled(builder, table, [k % size for k in range(first, first + step)])
        for first in range(0, size, step)
    ]
    parts = []
    for first in range(0, width, step):
        part = shuffled(builder, index, [min(k, width - 1) for k in range(first, first + step)])
        parts.append(_permuted(builder, registers, part, found))
    return shuffled(builder, _joined(builder, parts), range(width))


def _permuted(
    builder: ir.IRBuilder, registers: Sequence[ir.Value], index: ir.Value, by: Permutation
) -> ir.Value:
    """A register of numbers, each from one of 2**n registers of them; bits of an index above are ignored."""
    step, one, two = by
    if len(registers) == 1:
        return instruction(builder, one, index.type, registers[0], index)
    if len(registers) == 2 and two:
        return instruction(builder, two, index.type, registers[0], index, registers[1])
    half = len(registers) // 2
    low, high = (_permuted(builder, some, index, by) for some in (registers[:half], registers[half:]))
    bit = builder.and_(index, ir.Constant(index.type, [half * step] * step))
    return builder.select(builder.icmp_unsigned("!=", bit, ir.Constant(index.type, None)), high, low)


def _joined(builder: ir.IRBuilder, parts: Sequence[ir.Value]) -> ir.Value:
    """Vectors of one size end to end."""
    whole = parts[0]
    for k, part in enumerate(parts[1:], 1):
        size = part.type.count
        held = whole.type.count
        wide = part if k == 1 else shuffled(builder, part, [min(i, size - 1) for i in range(held)])
        whole = shuffled(builder, whole, range(held + size), wide)
    return whole


def in_memory(builder: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    """The int32 at these places behind an address, each loaded by itself; an index is not negative."""
    base = builder.inttoptr(address, I32.as_pointer())
    if not isinstance(index.type, ir.VectorType):
        return builder.load(builder.gep(base, [builder.zext(index, I64)]), align=4)
    found = ir.Constant(index.type, ir.Undefined)
    for k, place in enumerate(_places(builder, index)):
        number = builder.load(builder.gep(base, [place]), align=4)
        found = builder.insert_element(found, number, ir.Constant(I32, k))
    return found


def _places(builder: ir.IRBuilder, index: ir.Value) -> list[ir.Value]:
    """Every index as a word of 64 bits; on x86 two leave a vector by one instruction."""
    width = index.type.count
    if width % 2 or architecture(builder.module.triple) != "x86":
        every = [builder.extract_element(index, ir.Constant(I32, k)) for k in range(width)]
        return [builder.zext(one, I64) for one in every]
    pairs = builder.bitcast(index, ir.VectorType(I64, width // 2))
    found = []
    for k in range(width // 2):
        pair = builder.extract_element(pairs, ir.Constant(I32, k))
        found += [builder.and_(pair, ir.Constant(I64, 0xFFFFFFFF)), builder.lshr(pair, ir.Constant(I64, 32))]
    return found
