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
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

from numerics.backends.bind import bind
from numerics.backends.cpu import lookups
from numerics.formats.codec import SIGN
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
        """The value, repeated where it meets a vector of `width`: of fewer elements, each in its run."""
        if self.width == width:
            return self.value
        if self.width:
            return pick(self, [i * self.width // width for i in range(width)]).value
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


CHOSEN = 4  # numbers of a table that are chosen by the bits of an index where nothing permutes
REGISTER = 16  # int32 of the widest register
LARGEST = 0x7F7FFFFF  # the bits of the largest float32
FINITE, LOWER, UPPER = "finite", "lower", "upper"  # what tables may be known to be (kind_of_table)


class Runs(NamedTuple):
    """What kernels are compiled for of `joined_codes`: how many runs there are, and are some cut?"""

    total: int
    cut: bool

    @staticmethod
    def of(joined: NDArray[np.int32]) -> Runs:
        """Those of all keys are a power of two; parts are fewer, and follow."""
        count = 1 << (len(joined).bit_length() - 1)
        return Runs(count, len(joined) != count)

    def __str__(self) -> str:
        return f"{self.total}{'cut' if self.cut else ''}"


class Table:
    """A table of a record: its numbers as they were loaded, and where they stand.

    vector: all of them; of 16 bits, to be shifted, where no number has others and registers hold them so.
    floats: of the steps of a codebook, the float32 bits of each; None where not all are finite.
    joined: of them, the address of `joined_codes` and which runs they are; None where there are none.
    """

    __slots__ = ("address", "floats", "joined", "numbers", "shift", "vector")

    def __init__(self, numbers: list[Lane], address: ir.Value, vector: ir.Value) -> None:
        self.numbers, self.address, self.vector = numbers, address, vector
        self.shift = 0
        self.floats: ir.Value | None = None
        self.joined: tuple[ir.Value, Runs] | None = None

    def __len__(self) -> int:
        return len(self.numbers)


def kind_of_table(name: str, numbers: Sequence[int]) -> str:
    """What kernels may make of a table of that name; empty where nothing but itself.

    `finite`: of steps that are keys of finite numbers, but for what fills up.  `lower`, `upper`: of others
    that have only these 16 bits, and are more than a register holds of 32.
    """
    if name == "steps":
        return FINITE if all(-0x7F800000 <= n <= LARGEST or n == UNREACHED for n in numbers) else ""
    if len(numbers) <= REGISTER:
        return ""
    if all(0 <= n <= 0xFFFF for n in numbers):
        return LOWER
    return "" if any(n & 0xFFFF for n in numbers) else UPPER


def loaded_table(builder: ir.IRBuilder, numbers: list[Lane], address: ir.Value, kind: str) -> Table:
    """The table of these numbers, which stand at an address; kind: what `kind_of_table` says of them."""
    size = len(numbers)
    words = ir.VectorType(I32, size)
    vector = builder.load(builder.inttoptr(address, words.as_pointer()), align=4)
    table = Table(numbers, address, vector)
    if kind in (LOWER, UPPER) and lookups.room(builder.module.triple, I16) >= size:
        table.shift = 16 if kind == UPPER else 0
        moved = builder.lshr(vector, constant(table.shift, I32, size))
        table.vector = builder.trunc(moved, ir.VectorType(I16, size))
    elif kind == FINITE:
        key = minimum(Lane(builder, vector), LARGEST)  # what fills up a list: the last code's, too
        table.floats = where(key < 0, (-1 - key) | -0x80000000, key).value
    return table


def entry(table: Any, index: Lane) -> Lane:
    """In registers, where they hold the table; else a choice by the bits of the index, or loads."""
    found = _in_registers(table, index, range(len(table)))
    if found is not None:
        return found
    if len(table) > CHOSEN or not index.width:
        return _loaded(table, index)
    numbers = [*(table.numbers if isinstance(table, Table) else table)]
    bits = [(index & (1 << k)) > 0 for k in range((len(numbers) - 1).bit_length())]
    return cast(Lane, _chosen(numbers, bits))


def _in_registers(table: Any, index: Lane, places: Sequence[int]) -> Lane | None:
    """The numbers of a table at these places, by permutations; None where registers do not hold them."""
    if isinstance(table, Table):
        found = _permuted(table.vector, index, places)
        return found if found is None else found << table.shift
    return _permuted(ir.Constant(ir.VectorType(I32, len(table)), list(table)), index, places)


def _permuted(vector: ir.Value, index: Lane, places: Sequence[int]) -> Lane | None:
    """As `_in_registers`, of the elements of a vector."""
    builder, element = index.builder, vector.type.element
    if not index.width or lookups.room(builder.module.triple, element) < len(places):
        return None
    chosen = lookups.shuffled(builder, vector, places)
    if element == I32:
        return Lane(builder, lookups.in_registers(builder, chosen, index.value))
    narrow = builder.trunc(index.value, ir.VectorType(I16, index.width))
    return Lane(builder, builder.zext(lookups.in_registers(builder, chosen, narrow), index.value.type))


def places_up_to(steps: Any, key: Lane) -> Lane:
    """A binary search in 2**n - 1 steps."""
    return _search(steps, key).place


class _Found(NamedTuple):
    """A place as a search ends: in which pair of places, times `repeats`; and is it the upper one?"""

    pair: Lane
    repeats: int
    upper: Lane

    @property
    def place(self) -> Lane:
        """As a number."""
        pair = self.pair >> (self.repeats.bit_length() - 1)
        return pair + pair + where(self.upper, 1, 0)


def _search(steps: Any, key: Lane) -> _Found:
    """A binary search; the steps in the middle of what is left are looked up at each level.

    The first levels, as many as a register serves, set bits of one index from the highest on: an instruction
    each, and 1 takes more.  Then every level doubles it.
    """
    depth, lanes = len(steps).bit_length(), lookups.lanes(key.builder.module.triple) if key.width else 1
    pair, repeats = key & 0, lanes
    reached: list[Lane] = []
    for level in range(depth):
        upper = key >= _middle(steps, pair, reached, repeats)
        if level == depth - 1:
            break
        reached.append(upper)
        if repeats == 1:
            pair = pair + pair
        repeats = max(repeats >> 1, 1)
        pair = pair + where(upper, repeats, 0)
    return _Found(pair, repeats, upper)


def _middle(steps: Any, part: Lane, reached: Sequence[Lane], repeats: int) -> Any:
    """The step in the middle of each part, of 2**len(reached); part: its number times `repeats`."""
    level, numbers = len(reached), steps.numbers if isinstance(steps, Table) else steps
    half = (len(steps) + 1) >> (level + 1)
    middles = range(half - 1, len(steps), 2 * half)
    if not level:
        return numbers[half - 1]
    found = _in_registers(steps, part, [middle for middle in middles for _ in range(repeats)])
    if found is not None:
        return found
    if level < CHOSEN.bit_length() - 1 and part.width:
        return _chosen([numbers[k] for k in middles], reached[::-1])
    return _loaded(steps, (part << (2 * half).bit_length() - 1) + (half - 1))


def _of_pair(table: Any, found: _Found) -> Lane:
    """The number of a table at the place that a search found: both of a pair, where registers hold them."""
    sides = [[k for k in range(side, len(table), 2) for _ in range(found.repeats)] for side in range(2)]
    low, high = (_in_registers(table, found.pair, places) for places in sides)
    return entry(table, found.place) if low is None else cast(Lane, where(found.upper, high, low))


def _code_by_signs(steps: Any, codes: Any, number: Lane) -> Lane | None:
    """The code by a search in floats: what lies below a step differs from it by a negative number.

    The sign of a difference moves into an index by one instruction, and no mask is made; -0.0 lies below 0.0,
    as in keys.  None where registers do not hold the steps, or where that takes more instructions.
    """
    builder, size = number.builder, len(steps) + 1
    triple = builder.module.triple
    if not isinstance(steps, Table) or steps.floats is None or not number.width:
        return None
    if size > 2 * lookups.room(triple) or not lookups.shifts_bits_in(triple):
        return None
    below = number & 0
    for half in (size >> level for level in range(1, size.bit_length())):
        middles = range(size - half - 1, -1, -2 * half)  # the highest first: an index counts from above
        if half == size >> 1:
            step: Any = Lane(builder, lookups.shuffled(builder, steps.floats, [*middles] * number.width))
        else:
            step = _permuted(steps.floats, below, middles)
        apart = as_bits(as_float(number) - as_float(step))
        below = Lane(builder, lookups.shifted_in(builder, below.value, apart.value))
    found = _in_registers(codes, below, range(size - 1, -1, -1))
    return entry(codes, (size - 1) - below) if found is None else found


LEAST_RUN = 15  # of keys whose codes are joined, as a power of two: half a megabyte of runs
MOST_PARTS = 1 << 16  # of runs that are cut into parts: a quarter of a megabyte
WIDTH_BITS, CUT = 4, 1 << 31  # of a run that is cut: the width of a part, as a power of two; its mark


def joined_codes(steps: tuple[int, ...], codes: tuple[int, ...]) -> NDArray[np.int32] | None:
    """The codes of every run of 2**16 keys as one word; of 2**15 where a run has more than two.

    A word: the code below a step (8 bits), that from it on (8 bits), and the low bits of the step's key.
    Where runs of 2**15, too, have more than two codes, they are cut into parts, each with such a word; the
    words of parts follow those of all runs, and the run's own says where they begin (`_cut_runs`).
    None where that takes too many parts.
    """
    rising = np.array([step for step in steps if step != UNREACHED], np.int64)  # what fills up a list is none
    for run in range(16, LEAST_RUN - 1, -1):
        starts = np.arange(-(1 << 31), 1 << 31, 1 << run, dtype=np.int64)
        words, crowded = _words(starts, run, run, rising, codes)
        if not np.any(crowded):
            return words.view(np.int32)
    return _cut_runs(words, starts, crowded, rising, codes)


def _words(
    starts: NDArray[np.int64], width: int, run: int, rising: NDArray[np.int64], codes: tuple[int, ...]
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """The words of 2**width keys each, whose steps count from the start of their run; have some two steps?"""
    first, last = (np.searchsorted(rising, starts + end, "right") for end in (0, (1 << width) - 1))
    low, high = (np.array(codes, np.uint32)[place] for place in (first, last))
    step = rising[np.minimum(first, len(rising) - 1)]
    crowded = rising[np.maximum(last - 1, 0)] > step  # several steps at one key are one
    offset = np.where(last > first, step & ((1 << run) - 1), 0).astype(np.uint32)
    return low | high << np.uint32(8) | offset << np.uint32(16), crowded & (last > first)


def _cut_runs(
    words: NDArray[np.uint32],
    starts: NDArray[np.int64],
    crowded: NDArray[np.bool_],
    rising: NDArray[np.int64],
    codes: tuple[int, ...],
) -> NDArray[np.int32] | None:
    """The words of runs, then those of the parts of crowded ones; None where they are too many.

    The word of a run that is cut: its mark, the place of its first part, and the width of a part (4 bits).
    """
    made, count = [words], len(words)
    for place in np.flatnonzero(crowded):
        for width in range(LEAST_RUN - 1, -1, -1):
            parts = starts[place] + np.arange(0, 1 << LEAST_RUN, 1 << width)
            found, still = _words(parts, width, LEAST_RUN, rising, codes)
            if not np.any(still):
                break
        words[place] = CUT | count << WIDTH_BITS | width
        made.append(found)
        count += len(found)
        if count > len(words) + MOST_PARTS:
            return None
    return np.concatenate(made).view(np.int32)


def code_of_key(steps: Any, codes: Any, key: Lane, a: Lane, b: Lane) -> Lane:
    """One look-up, where the codes of the key's run are joined; else a search and a look-up."""
    if isinstance(steps, Table) and steps.joined is not None:
        return _joined_code(*steps.joined, key)
    found = _code_by_signs(steps, codes, a | (b & SIGN))
    return _of_pair(codes, _search(steps, key)) if found is None else found


def _joined_code(address: ir.Value, runs: Runs, key: Lane) -> Lane:
    """The code of a key by the words of `joined_codes`."""
    bits = runs.total.bit_length() - 1
    run = (key >> (32 - bits)) + (runs.total >> 1)
    within = key & ((1 << (32 - bits)) - 1)
    word = Lane(key.builder, lookups.in_memory(key.builder, address, run.value))
    if runs.cut:
        word = _word_of_part(address, word, run, within)
    beyond = within >= ((word >> 16) & 0xFFFF)
    return cast(Lane, where(beyond, (word >> 8) & 0xFF, word & 0xFF))


def _word_of_part(address: ir.Value, word: Lane, run: Lane, within: Lane) -> Lane:
    """The words of parts instead of those of cut runs; few numbers lie in one, and others jump over it."""
    builder, before = word.builder, word.builder.block
    cut = word < 0
    some = builder.bitcast(cut.value, ir.IntType(cut.width)) if cut.width else cut.value
    with builder.if_then(builder.icmp_unsigned("!=", some, ir.Constant(some.type, 0)), likely=False):
        part = ((word & 0x7FFFFFFF) >> WIDTH_BITS) + (within >> (word & ((1 << WIDTH_BITS) - 1)))
        found, after = lookups.in_memory(builder, address, where(cut, part, run).value), builder.block
    chosen = builder.phi(found.type)
    chosen.add_incoming(word.value, before)
    chosen.add_incoming(found, after)
    return Lane(builder, chosen)


def _chosen(numbers: list[Any], bits: Sequence[Lane]) -> Any:
    """One of 2**n numbers by the n bits of its place, the lowest first."""
    for bit in bits:
        numbers = [where(bit, high, low) for low, high in zip(numbers[::2], numbers[1::2], strict=True)]
    return numbers[0]


def _loaded(table: Any, index: Lane) -> Lane:
    """The numbers at these places of memory."""
    builder = index.builder
    address = table.address if isinstance(table, Table) else _compiled_in(builder, tuple(table))
    return Lane(builder, lookups.in_memory(builder, address, index.value))


def _compiled_in(builder: ir.IRBuilder, numbers: tuple[int, ...]) -> ir.Value:
    """Where a table stands that is part of the kernel."""
    kind = ir.ArrayType(I32, len(numbers))
    name = f"table.{zlib.crc32(repr(numbers).encode()):08x}"
    known = builder.module.globals.get(name)
    if known is None:
        known = ir.GlobalVariable(builder.module, kind, name)
        known.global_constant, known.linkage = True, "private"
        known.initializer = ir.Constant(kind, list(numbers))
    return builder.ptrtoint(known, I64)


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


def max_of_block(x: Lane, size: int) -> Lane:
    """The largest of each run of `size` elements: once, where they are a power of two."""
    if size == x.width or size & (size - 1):
        return max_of_run(x, size)
    while size > 1:
        x, size = maximum(*_halves(x, size)), size // 2
    return x


def _halves(x: Lane, size: int) -> list[Lane]:
    """The first, and the second half of every run."""
    places = [[i for i in range(x.width) if i % size // (size // 2) == half] for half in range(2)]
    return [pick(x, some) for some in places]


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
    builder, few = code.builder, code.bits is not None and 1 << code.bits <= IN_REGISTER
    if not few or not code.width or code.width % IN_REGISTER:
        return decode(code, f)
    if lookups.lanes(builder.module.triple) < IN_REGISTER:
        return decode(code, f)
    every = ir.Constant(ir.VectorType(I32, IN_REGISTER), list(range(IN_REGISTER)))
    table = decode(Lane(builder, every), f).value
    return Lane(builder, lookups.in_registers(builder, table, code.value))


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
        "max_of_block": lambda x: (max_of_block if sub_block == 1 else max_of_run)(x, block),
        "max_of_group": lambda x: max_of_run(x, sub_block),
        "max_of_pair": lambda x: max_of_run(x, 2 * sub_block),
        "sum_of_block": lambda x: sum_of_run(x, block),
    }
    decode = bind(primitives).decode
    return bind({**primitives, "decode": partial(decoded_by_table, decode)})
