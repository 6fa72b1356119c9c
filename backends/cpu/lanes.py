"""The shared arithmetic as LLVM IR: lanes that write an instruction for every operation on them.

A Lane is one i32 or float, or one vector of them.  Calling a function of formats/ on lanes once, at
compile time, leaves its instructions in the builder; static parameters and branches vanish.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

from numerics.backends.bind import bind
from numerics.backends.cpu.target import has
from numerics.formats.grid import UNREACHED

I1, I8, I16, I32, I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()


class Lane:
    """An LLVM value under the operators that the dialect allows.

    bits: of codes that were just unpacked, how many they have; None of other numbers.
    """

    __slots__ = ("bits", "builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value, bits: int | None = None) -> None:
        self.builder = builder
        self.value = value
        self.bits = bits

    if TYPE_CHECKING:  # set below, one for every operator of the dialect

        def _operator(self, other: Any) -> Lane: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _operator
        __and__ = __rand__ = __or__ = __ror__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = (
            _operator
        )
        __lt__ = __le__ = __gt__ = __ge__ = _operator

    def __bool__(self) -> bool:
        raise TypeError("a lane has no truth value: use where, or make the parameter static")

    @property
    def width(self) -> int:
        """Elements of the vector; 0 for a scalar."""
        return self.value.type.count if isinstance(self.value.type, ir.VectorType) else 0

    @property
    def element(self) -> ir.Type:
        """The type of a scalar, or of a vector's elements."""
        return self.value.type.element if self.width else self.value.type

    def spread(self, width: int) -> ir.Value:
        """The value, repeated where a scalar meets a vector of `width`."""
        if self.width == width:
            return self.value
        vector = ir.VectorType(self.value.type, width)
        first = self.builder.insert_element(
            ir.Constant(vector, ir.Undefined), self.value, ir.Constant(I32, 0)
        )
        return self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, width), [0] * width))


def constant(value: float, element: ir.Type, width: int) -> ir.Constant:
    """A static number as an LLVM constant; integers modulo 2**32."""
    if element == I32:
        value = (int(value) + (1 << 31)) % (1 << 32) - (1 << 31)
    return (
        ir.Constant(ir.VectorType(element, width), [value] * width) if width else ir.Constant(element, value)
    )


def llvm(value: Any, element: ir.Type, width: int) -> ir.Value:
    """A lane or a number as an LLVM value of that element type and width."""
    return value.spread(width) if isinstance(value, Lane) else constant(value, element, width)


Emit = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


def _binary(on_int: Emit, on_float: Emit | None, swapped: bool) -> Callable[[Lane, Any], Lane]:
    def method(self: Lane, other: Any) -> Lane:
        width = max(self.width, other.width if isinstance(other, Lane) else 0)
        a, b = self.spread(width), llvm(other, self.element, width)
        emit = on_float if self.element == F32 else on_int
        assert emit is not None, "the dialect has no such operation on floats"
        return Lane(self.builder, emit(self.builder, b, a) if swapped else emit(self.builder, a, b))

    return method


def _instruction(name: str) -> Emit:
    return lambda builder, a, b: getattr(builder, name)(a, b)


def _comparison(sign: str) -> tuple[Emit, Emit]:
    return (
        lambda builder, a, b: builder.icmp_signed(sign, a, b),
        lambda builder, a, b: builder.fcmp_ordered(sign, a, b),
    )


_ARITHMETIC = {
    "add": ("add", "fadd"), "sub": ("sub", "fsub"), "mul": ("mul", "fmul"), "and": ("and_", None),
    "or": ("or_", None), "lshift": ("shl", None), "rshift": ("ashr", None),
}  # fmt: skip
for _name, (_int, _float) in _ARITHMETIC.items():
    _emits = _instruction(_int), _instruction(_float) if _float else None
    setattr(Lane, f"__{_name}__", _binary(*_emits, swapped=False))
    setattr(Lane, f"__r{_name}__", _binary(*_emits, swapped=True))
for _name, _sign in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    setattr(Lane, f"__{_name}__", _binary(*_comparison(_sign), swapped=False))


# ---- the primitives of the shared arithmetic ----------------------------------------------------


def where(condition: Any, yes: Any, no: Any) -> Any:
    """select; a condition on static numbers is decided now."""
    if not isinstance(condition, Lane):
        return yes if condition else no
    width = max(v.width for v in (condition, yes, no) if isinstance(v, Lane))
    builder = condition.builder
    chosen = builder.select(condition.spread(width), llvm(yes, I32, width), llvm(no, I32, width))
    return Lane(builder, chosen)


def minimum(x: Any, y: Any) -> Any:
    """The smaller, signed."""
    return where(x < y, x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger, signed."""
    return where(x > y, x, y)


CHOSEN = 16  # numbers of a table that are kept in registers, and chosen by the bits of an index


class Table:
    """A table of a record: its numbers as they were loaded, and where they stand.

    joined: of the steps of a codebook, the address of `joined_codes`; None where there are none.
    """

    __slots__ = ("address", "joined", "numbers")

    def __init__(self, numbers: list[Lane], address: ir.Value, joined: ir.Value | None = None) -> None:
        self.numbers, self.address, self.joined = numbers, address, joined

    def __len__(self) -> int:
        return len(self.numbers)


def entry(table: Any, index: Lane) -> Lane:
    """A choice by the bits of the index, or a gather from a table that registers do not hold."""
    if len(table) > CHOSEN:
        return _gathered(table, index)
    numbers = table.numbers if isinstance(table, Table) else table
    return _chosen([*numbers], [(index & (1 << k)) > 0 for k in range((len(numbers) - 1).bit_length())])


def places_up_to(steps: Any, key: Lane) -> Lane:
    """A binary search in 2**n - 1 steps: the first of them in registers, those that follow in memory."""
    depth, numbers = len(steps).bit_length(), steps.numbers if isinstance(steps, Table) else steps
    shallow = min(depth, CHOSEN.bit_length() - 1)
    place: Any = key & 0
    reached: list[Lane] = []
    for level in range(depth):
        half = 1 << (depth - level - 1)
        if level < shallow:
            pivots = [numbers[i * 2 * half + half - 1] for i in range(1 << level)]
            pivot = _chosen(pivots, reached[::-1])
        else:
            pivot = _gathered(steps, place + (half - 1))
        reached.append(key >= pivot)
        place = place + where(reached[-1], half, 0)
    return cast(Lane, place)


JOINED_BITS = 16  # of a key that say its run


def joined_codes(steps: tuple[int, ...], codes: tuple[int, ...]) -> NDArray[np.int32] | None:
    """The codes of every run of 2**16 keys as one word; None where a run has more than two.

    A word: the code below a step (8 bits), that from it on (8 bits), and the low bits of the step's key.
    """
    size = 1 << JOINED_BITS
    starts = (np.arange(size, dtype=np.int64) - (size >> 1)) << JOINED_BITS
    rising = np.array([step for step in steps if step != UNREACHED], np.int64)  # what fills up a list is none
    first, last = (np.searchsorted(rising, starts + end, "right") for end in (0, size - 1))
    if np.any(last - first > 1):
        return None
    low, high = (np.array(codes, np.uint32)[place] for place in (first, last))
    step = np.where(last > first, rising[np.minimum(first, len(rising) - 1)] - starts, 0).astype(np.uint32)
    return (low | high << np.uint32(8) | step << np.uint32(JOINED_BITS)).view(np.int32)


def code_of_key(steps: Any, codes: Any, key: Lane) -> Lane:
    """One gather, where the codes of the key's run are joined; else a search and a look-up."""
    joined = steps.joined if isinstance(steps, Table) else None
    if joined is None:
        return entry(codes, places_up_to(steps, key))
    word = _gathered(Table([], joined), (key >> JOINED_BITS) + (1 << (JOINED_BITS - 1)))
    beyond = (key & 0xFFFF) >= ((word >> JOINED_BITS) & 0xFFFF)
    return cast(Lane, where(beyond, (word >> 8) & 0xFF, word & 0xFF))


def _chosen(numbers: list[Any], bits: Sequence[Lane]) -> Any:
    """One of 2**n numbers by the n bits of its place, the lowest first."""
    for bit in bits:
        numbers = [where(bit, high, low) for low, high in zip(numbers[::2], numbers[1::2], strict=True)]
    return numbers[0]


def _gathered(table: Any, index: Lane) -> Lane:
    """The numbers at these places of memory."""
    builder, width = index.builder, index.width or 1
    if not isinstance(table, Table):
        table = _compiled_in(builder, tuple(table))
    wide = ir.VectorType(I64, width)
    offsets = builder.shl(builder.zext(index.spread(width), wide), ir.Constant(wide, [2] * width))
    base = Lane(builder, table.address).spread(width)
    places = builder.inttoptr(builder.add(base, offsets), ir.VectorType(I32.as_pointer(), width))
    kind = ir.VectorType(I32, width)
    mask = ir.Constant(ir.VectorType(I1, width), [1] * width)
    signature = ir.FunctionType(kind, [places.type, I32, mask.type, kind])
    name = f"llvm.masked.gather.v{width}i32.v{width}p0"
    gather = cgutils.get_or_insert_function(builder.module, signature, name)
    undefined = ir.Constant(kind, ir.Undefined)
    found = builder.call(gather, [places, ir.Constant(I32, 4), mask, undefined])
    return Lane(builder, found if index.width else builder.extract_element(found, ir.Constant(I32, 0)))


def _compiled_in(builder: ir.IRBuilder, numbers: tuple[int, ...]) -> Table:
    """A table that is part of the kernel."""
    kind = ir.ArrayType(I32, len(numbers))
    name = f"table.{zlib.crc32(repr(numbers).encode()):08x}"
    known = builder.module.globals.get(name)
    if known is None:
        known = ir.GlobalVariable(builder.module, kind, name)
        known.global_constant, known.linkage = True, "private"
        known.initializer = ir.Constant(kind, list(numbers))
    return Table([], builder.ptrtoint(known, I64))


def _bitcast(x: Lane, element: ir.Type) -> Lane:
    return Lane(
        x.builder, x.builder.bitcast(x.value, ir.VectorType(element, x.width) if x.width else element)
    )


def as_bits(x: Lane) -> Lane:
    """bitcast float to i32."""
    return _bitcast(x, I32)


def as_float(bits: Any) -> Any:
    """bitcast i32 to float; static bits become a Python float."""
    return _bitcast(bits, F32) if isinstance(bits, Lane) else struct.unpack("<f", struct.pack("<i", bits))[0]


def divide(x: Lane, y: Any) -> Lane:
    """fdiv: IEEE 754 division, half to even."""
    width = max(x.width, y.width if isinstance(y, Lane) else 0)
    return Lane(x.builder, x.builder.fdiv(x.spread(width), llvm(y, F32, width)))


def pick(x: Lane, indices: Sequence[int]) -> Lane:
    """The elements at these indices, as a vector."""
    undefined = ir.Constant(x.value.type, ir.Undefined)
    mask = ir.Constant(ir.VectorType(I32, len(indices)), list(indices))
    return Lane(x.builder, x.builder.shuffle_vector(x.value, undefined, mask))


def max_of_run(x: Lane, size: int) -> Lane:
    """The largest of each run of `size` elements, in each of its places."""
    if size == x.width:
        name = f"llvm.vector.reduce.smax.v{size}i32"
        kind = ir.FunctionType(I32, [x.value.type])
        reduce = cgutils.get_or_insert_function(x.builder.module, kind, name)
        return Lane(x.builder, x.builder.call(reduce, [x.value]))
    if size & (size - 1) == 0:  # a butterfly
        for step in (1 << k for k in range(size.bit_length() - 1)):
            x = maximum(x, pick(x, [i ^ step for i in range(x.width)]))
        return x
    turned = [
        pick(x, [i // size * size + (i + turn) % size for i in range(x.width)]) for turn in range(1, size)
    ]
    for other in turned:
        x = maximum(x, other)
    return x


def sum_of_run(x: Lane, size: int) -> Lane:
    """The sum of each run of `size` float elements, in each of its places: halves are added.

    What lies beyond a run is 0; in its first places, which count, partners lie `half` apart.
    """
    half = 1 << (size - 1).bit_length()
    zeros = ir.Constant(x.value.type, None)
    while half := half // 2:
        partners = [
            i // size * size + (i % size ^ half) if i % size ^ half < size else x.width
            for i in range(x.width)
        ]
        mask = ir.Constant(ir.VectorType(I32, x.width), partners)
        x = x + Lane(x.builder, x.builder.shuffle_vector(x.value, zeros, mask))
    return x if size & (size - 1) == 0 else pick(x, [i // size * size for i in range(x.width)])


IN_REGISTER = 16  # values of a table that one register of AVX-512 holds


def decoded_by_table(decode: Callable[[Lane, Any], Lane], code: Lane, f: Any) -> Lane:
    """decode(code, f): codes of four bits and fewer from a table in a register, where there is one for it.

    The table is what decode makes of every code, once: nothing of it changes in a loop.
    """
    if code.bits is None or 1 << code.bits > IN_REGISTER or code.width % IN_REGISTER or not code.width:
        return decode(code, f)
    if not has("avx512f"):
        return decode(code, f)
    builder, kind = code.builder, ir.VectorType(I32, IN_REGISTER)
    table = decode(Lane(builder, ir.Constant(kind, list(range(IN_REGISTER)))), f).value
    signature = ir.FunctionType(kind, [kind, kind])
    look = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx512.permvar.si.512")
    parts = [
        pick(code, range(first, first + IN_REGISTER)).value for first in range(0, code.width, IN_REGISTER)
    ]
    return joined([Lane(builder, builder.call(look, [table, part])) for part in parts])


def joined(parts: list[Lane]) -> Lane:
    """Lanes of one width, a power of two of them, end to end."""
    while len(parts) > 1:
        width = 2 * parts[0].width
        mask = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        parts = [
            Lane(low.builder, low.builder.shuffle_vector(low.value, high.value, mask))
            for low, high in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


@lru_cache(maxsize=256)
def arithmetic(block: int = 1, sub_block: int = 1) -> SimpleNamespace:
    """The shared arithmetic on lanes, for vectors that hold whole blocks of this size."""
    primitives = {
        "where": where,
        "minimum": minimum,
        "maximum": maximum,
        "as_bits": as_bits,
        "as_float": as_float,
        "divide": divide,
        "entry": entry,
        "places_up_to": places_up_to,
        "code_of_key": code_of_key,
        "max_of_block": lambda x: max_of_run(x, block),
        "max_of_group": lambda x: max_of_run(x, sub_block),
        "max_of_pair": lambda x: max_of_run(x, 2 * sub_block),
        "sum_of_block": lambda x: sum_of_run(x, block),
    }
    decode = bind(primitives).decode
    return bind({**primitives, "decode": partial(decoded_by_table, decode)})
