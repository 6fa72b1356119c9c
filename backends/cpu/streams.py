"""How lanes meet memory: one Stream for every kind of array that a kernel reads or writes.

A kernel works in tiles of `width` elements.  A Stream knows how many bits an element takes in
memory and how a tile of them becomes a lane of int32, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from llvmlite import ir

from numerics.backends.cpu.lanes import F16, F32, F64, I1, I8, I16, I32, I64, Lane, arithmetic, pick, where
from numerics.backends.cpu.target import converts_halves
from numerics.formats.dtype import Float
from numerics.formats.floats import bfloat16, float16
from numerics.formats.grid import grid
from numerics.formats.packing import planes

Load = Callable[[ir.IRBuilder, ir.Value, int], Any]
Store = Callable[[Any, int], list[ir.Value]]


@dataclass(frozen=True)
class Stream:
    """An array of a kernel.  bits: memory an element; load: tile at an address; store: tile to values."""

    bits: Fraction
    load: Load
    store: Store
    name: str = ""  # says which it is, in the names of kernels
    lanes: int = 1  # how many lanes a tile is: more than one come and go as a tuple
    kept: tuple[int, ...] = ()  # of codes, and what is shared: the bits that are stored of each lane

    def bytes(self, width: int) -> int:
        """Bytes of a tile."""
        size = self.bits * width / 8
        assert size.denominator == 1, f"a tile of {width} elements does not end on a byte"
        return size.numerator


def vector(element: ir.Type, width: int) -> ir.Type:
    """The LLVM vector type."""
    return ir.VectorType(element, width)


def load_as(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    """An unaligned load."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


# ---- inputs: every float type as the bits of a float32 -----------------------------------------


def _load_float32(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
    return Lane(builder, load_as(builder, address, vector(I32, width)))


def _load_bfloat16(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
    half = load_as(builder, address, vector(I16, width))
    return Lane(builder, builder.zext(half, vector(I32, width))) << 16


def _load_float16(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
    if not converts_halves(builder.module.triple):
        code = _load_unsigned(I16)(builder, address, width)
        bits: Lane = arithmetic().decode(code, grid(float16, "half_even", "nonsaturate"))
        return bits
    wide = builder.fpext(load_as(builder, address, vector(F16, width)), vector(F32, width))
    return Lane(builder, builder.bitcast(wide, vector(I32, width)))


def _load_float64(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
    """Returns float32 bits rounded to odd: cut toward zero, the last bit set where anything was lost."""
    x = load_as(builder, address, vector(F64, width))
    near = builder.fptrunc(x, vector(F32, width))
    back = builder.fpext(near, x.type)
    clear = ir.Constant(vector(I64, width), [(1 << 63) - 1] * width)
    a, b = (builder.and_(builder.bitcast(v, clear.type), clear) for v in (x, back))
    beyond = Lane(builder, builder.icmp_signed(">", b, a))
    inexact = Lane(builder, builder.fcmp_ordered("!=", back, x))
    bits = Lane(builder, builder.bitcast(near, vector(I32, width)))
    return where(inexact, (bits - where(beyond, 1, 0)) | 1, bits)


def _load_unsigned(element: ir.Type) -> Load:
    def load(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
        return Lane(
            builder, builder.zext(load_as(builder, address, vector(element, width)), vector(I32, width))
        )

    return load


# ---- outputs -----------------------------------------------------------------------------------


def _store_word(x: Lane, width: int) -> list[ir.Value]:
    return [x.spread(width)]


def _store_narrow(element: ir.Type) -> Store:
    def store(x: Lane, width: int) -> list[ir.Value]:
        return [x.builder.trunc(x.spread(width), vector(element, width))]

    return store


def _store_float16(x: Lane, width: int) -> list[ir.Value]:
    if not converts_halves(x.builder.module.triple):
        return _store_rounded(x, width, float16)
    wide = x.builder.bitcast(x.spread(width), vector(F32, width))
    return [x.builder.bitcast(x.builder.fptrunc(wide, vector(F16, width)), vector(I16, width))]


def _store_bfloat16(x: Lane, width: int) -> list[ir.Value]:
    return _store_rounded(x, width, bfloat16)


def _store_rounded(x: Lane, width: int, kind: Float) -> list[ir.Value]:
    rounded = arithmetic().encode(x, grid(kind, "half_even", "nonsaturate"), "half_even", None, None)
    return _store_narrow(I16)(rounded, width)


def _store_float64(x: Lane, width: int) -> list[ir.Value]:
    narrow = x.builder.bitcast(x.spread(width), vector(F32, width))
    return [x.builder.fpext(narrow, vector(F64, width))]


FLOATS: dict[str, Stream] = {
    "float32": Stream(Fraction(32), _load_float32, _store_word, "float32"),
    "bfloat16": Stream(Fraction(16), _load_bfloat16, _store_bfloat16, "bfloat16"),
    "float16": Stream(Fraction(16), _load_float16, _store_float16, "float16"),
    "float64": Stream(Fraction(64), _load_float64, _store_float64, "float64"),
}
CODES: dict[str, Stream] = {
    "uint8": Stream(Fraction(8), _load_unsigned(I8), _store_narrow(I8), "uint8", kept=(8,)),
    "uint16": Stream(Fraction(16), _load_unsigned(I16), _store_narrow(I16), "uint16"),
}
WORDS = Stream(Fraction(32), _load_float32, _store_word, "float32")


def per_block(block: int) -> Stream:
    """One byte a block: a scale or a shared exponent."""

    def load(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
        if width == block:
            return Lane(builder, builder.zext(load_as(builder, address, I8), I32))
        return _load_unsigned(I8)(builder, address, width // block)

    def store(x: Lane, width: int) -> list[ir.Value]:
        if not x.width:
            return [x.builder.trunc(x.value, I8)]
        one = x if x.width == width // block else pick(x, range(0, width, block))
        return [x.builder.trunc(one.value, vector(I8, width // block))]

    return Stream(Fraction(8, block), load, store, kept=(8,))


def per_group(block: int, sub_block: int) -> Stream:
    """One bit a sub-block, one byte a block: microexponents."""
    groups = block // sub_block

    def load(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
        byte = pick(_load_unsigned(I8)(builder, address, width // block), [i // block for i in range(width)])
        places = [i % block // sub_block for i in range(width)]
        shifted = builder.lshr(byte.value, ir.Constant(vector(I32, width), places))
        return Lane(builder, shifted) & 1

    def store(x: Lane, width: int) -> list[ir.Value]:
        if not x.width:  # one block, which is one sub-block: its largest element is a scalar
            return [x.builder.zext(x.builder.trunc(x.value, I1), I8)]
        every = x.builder.bitcast(x.builder.trunc(x.value, vector(I1, width)), ir.IntType(width))
        packed = x.builder.trunc(_every(x.builder, every, sub_block), ir.IntType(width // sub_block))
        return [packed] if groups == 8 else [x.builder.zext(packed, I8)]

    return Stream(Fraction(8, block), load, store)


def _every(builder: ir.IRBuilder, word: ir.Value, step: int) -> ir.Value:
    """Bits 0, step, 2 step ... of a word, side by side.

    Halving the distance log2(step) times where step is a power of two: vector masks are slow to shuffle.
    """
    width, kind = word.type.width, word.type
    if step & (step - 1):
        taken = ir.Constant(kind, 0)
        for place in range(width // step):
            bit = builder.and_(builder.lshr(word, ir.Constant(kind, place * step)), ir.Constant(kind, 1))
            taken = builder.or_(taken, builder.shl(bit, ir.Constant(kind, place)))
        return taken
    run, gap = 1, step
    while True:  # runs of `run` bits that begin every run * step bits
        mask = sum(((1 << run) - 1) << start for start in range(0, width, run * gap))
        word = builder.and_(word, ir.Constant(kind, mask & ((1 << width) - 1)))
        if run * gap >= width:
            return word
        word = builder.or_(word, builder.lshr(word, ir.Constant(kind, run * (gap - 1))))
        run *= 2


def packed(bits: int) -> Stream:
    """Codes as a little-endian string of bits (formats/packing.py), `bits` up to 8."""
    if bits == 8:
        return CODES["uint8"]

    def load(builder: ir.IRBuilder, address: ir.Value, width: int) -> Lane:
        packed = load_as(builder, address, vector(I8, width * bits // 8))
        return Lane(builder, unpack_bytes(builder, packed, width, bits).value, bits)

    def store(x: Lane, width: int) -> list[ir.Value]:
        return [pack_bytes(x.builder, x.builder.trunc(x.spread(width), vector(I8, width)), bits)]

    return Stream(Fraction(bits), load, store, f"packed{bits}", kept=(bits,))


def _merge(builder: ir.IRBuilder, value: ir.Value, held: int, used: int) -> ir.Value:
    """Neighbours of `held` bits, `used` of them filled, as one of twice the size, filled below."""
    count = value.type.count // 2
    wide = vector(ir.IntType(2 * held), count)
    joined = builder.bitcast(value, wide)

    def fill(number: int) -> ir.Constant:
        return ir.Constant(wide, [number] * count)

    low = builder.and_(joined, fill((1 << used) - 1))
    high = builder.and_(builder.lshr(joined, fill(held - used)), fill(((1 << used) - 1) << used))
    return builder.or_(low, high)


def pack_bytes(builder: ir.IRBuilder, codes: ir.Value, bits: int) -> ir.Value:
    """One code a byte, packed: pairs, then pairs of pairs, until a run of codes ends on a byte."""
    width, held, used = codes.type.count, 8, bits
    while used % 8:
        codes = _merge(builder, codes, held, used)
        held, used = 2 * held, 2 * used
    as_bytes = builder.bitcast(codes, vector(I8, width))
    keep = [i * (held // 8) + k for i in range(width * 8 // held) for k in range(used // 8)]
    mask = ir.Constant(vector(I32, len(keep)), keep)
    return builder.shuffle_vector(as_bytes, ir.Constant(as_bytes.type, ir.Undefined), mask)


def unpack_bytes(builder: ir.IRBuilder, value: ir.Value, width: int, bits: int) -> Lane:
    """Returns the codes that pack_bytes made bytes of, each in a 32-bit lane."""
    if bits == 1:  # a mask
        return Lane(builder, builder.zext(builder.bitcast(value, vector(I1, width)), vector(I32, width)))
    used, codes = bits, 1
    while used % 8:
        used, codes = 2 * used, 2 * codes
    held = max(8 * codes, 32)  # a run of codes in an integer of at least 32 bits
    size, filled = held // 8, used // 8
    zero = ir.Constant(value.type, [0] * value.type.count)
    place = [
        run * filled + k if k < filled else value.type.count
        for run in range(width // codes)
        for k in range(size)
    ]
    spread = builder.shuffle_vector(value, zero, ir.Constant(vector(I32, len(place)), place))
    runs = builder.bitcast(spread, vector(ir.IntType(held), width // codes))
    each = builder.shuffle_vector(
        runs,
        ir.Constant(runs.type, ir.Undefined),
        ir.Constant(vector(I32, width), [i // codes for i in range(width)]),
    )
    shifts = ir.Constant(each.type, [i % codes * bits for i in range(width)])
    moved = builder.lshr(each, shifts)
    narrow = builder.trunc(moved, vector(I32, width)) if held > 32 else moved
    return Lane(builder, narrow) & ((1 << bits) - 1)


def _concatenate(parts: list[ir.Value], builder: ir.IRBuilder) -> ir.Value:
    """Byte vectors end to end."""
    whole = parts[0]
    for part in parts[1:]:
        size = max(whole.type.count, part.type.count)
        a, b = (_resize(builder, v, size) for v in (whole, part))
        keep = [*range(whole.type.count), *(size + k for k in range(part.type.count))]
        whole = builder.shuffle_vector(a, b, ir.Constant(vector(I32, len(keep)), keep))
    return whole


def _resize(builder: ir.IRBuilder, value: ir.Value, size: int) -> ir.Value:
    keep = [min(k, value.type.count - 1) for k in range(size)]
    mask = ir.Constant(vector(I32, size), keep)
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def _plane(code: Lane, first: int, w: int, width: int) -> ir.Value:
    """Some bits of every code as bytes; a plane of one bit is a mask."""
    builder = code.builder
    part = code >> first
    if w == 1:
        mask = builder.bitcast(builder.trunc(part.value, vector(I1, width)), ir.IntType(width))
        return builder.bitcast(mask, vector(I8, width // 8))
    return pack_bytes(builder, builder.trunc((part & ((1 << w) - 1)).value, vector(I8, width)), w)


def _merged(sizes: list[int], unit: int) -> list[int]:
    """Parts of a block in units: the first as it is, all that follows as one."""
    return [sizes[0] // unit, sum(sizes[1:]) // unit]


def _in_words(
    builder: ir.IRBuilder, parts: list[ir.Value], sizes: list[int], count: int
) -> tuple[list[ir.Value], int]:
    """The parts after the first put together as one integer a block, where these are a unit wide.

    A shuffle of a few wide units is far cheaper than one of many bytes.
    """
    unit = sum(sizes[1:])
    if unit not in (2, 4) or sizes[0] % unit:
        return parts, 1
    word, wide = vector(ir.IntType(8 * unit), count), None
    for part, size, place in zip(
        parts[1:], sizes[1:], [sum(sizes[1:k]) for k in range(1, len(sizes))], strict=True
    ):
        field = builder.zext(builder.bitcast(part, vector(ir.IntType(8 * size), count)), word)
        moved = builder.shl(field, ir.Constant(word, [8 * place] * count))
        wide = moved if wide is None else builder.or_(wide, moved)
    first = builder.bitcast(parts[0], vector(ir.IntType(8 * unit), sizes[0] * count // unit))
    return [first, wide], unit


def micro_blocks(block: int, sub_block: int, bits: int) -> Stream:
    """Whole microexponent blocks, the layout of docs/layout.md: (exponent, microexponent, code)."""
    parts = [*planes(bits), (-1, 0), (-2, 0)]  # the planes of the codes, then two bytes of fields
    sizes = [block * width // 8 if width else 1 for _, width in parts]
    shared = per_group(block, sub_block), per_block(block)

    def order(count: int, unit: int = 1) -> list[int]:
        """Where the units of each block stand, when every part holds all blocks one after another."""
        units = sizes if unit == 1 else _merged(sizes, unit)
        starts = [sum(units[:k]) * count for k in range(len(units))]
        return [
            starts[k] + j * size + i
            for j in range(count)
            for k, size in enumerate(units)
            for i in range(size)
        ]

    def store(fields: tuple[Lane, Lane, Lane], width: int) -> list[ir.Value]:
        exponent, shift, code = fields
        builder = code.builder
        found = [_plane(code, first, w, width) for first, w in planes(bits)]
        for stream, lane in zip(shared, (shift, exponent), strict=True):
            found.append(builder.bitcast(stream.store(lane, width)[0], vector(I8, width // block)))
        found, unit = _in_words(builder, found, sizes, width // block)
        keep = order(width // block, unit)
        whole = _concatenate(found, builder)
        joined = builder.shuffle_vector(whole, whole, ir.Constant(vector(I32, len(keep)), keep))
        return [builder.bitcast(joined, vector(I8, len(keep) * unit))]

    def load(builder: ir.IRBuilder, address: ir.Value, width: int) -> tuple[Lane, ...]:
        count = width // block
        whole = Lane(builder, load_as(builder, address, vector(I8, sum(sizes) * count)))
        back = {place: at for at, place in enumerate(order(count))}
        sorted_bytes = [back[k] for k in range(len(back))]
        code = Lane(builder, ir.Constant(vector(I32, width), [0] * width))
        start = 0
        for (first, w), size in zip(planes(bits), sizes, strict=False):
            part = pick(whole, sorted_bytes[start : start + size * count])
            code = code | (unpack_bytes(builder, part.value, width, w) << first)
            start += size * count
        fields = [[sorted_bytes[start + k * count + i // block] for i in range(width)] for k in range(2)]
        wide = [builder.zext(pick(whole, field).value, vector(I32, width)) for field in fields]
        places = ir.Constant(vector(I32, width), [i % block // sub_block for i in range(width)])
        shift = Lane(builder, builder.lshr(wide[0], places)) & 1
        return Lane(builder, wide[1]), shift, code

    return Stream(Fraction(8 * sum(sizes), block), load, store, lanes=3, kept=(8, 1, bits))
