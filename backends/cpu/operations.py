"""Operations: a function of the shared arithmetic, its records, and what it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

from numerics.backends.cpu.lanes import Lane, arithmetic
from numerics.backends.cpu.launch import WIDTH, Number, Operation, Parameters, register_lanes
from numerics.backends.cpu.streams import (
    CODES,
    FLOATS,
    WORDS,
    Stream,
    micro_blocks,
    packed,
    per_block,
    per_group,
)
from numerics.backends.host.executor import WIDEST, Array, RowFunction
from numerics.backends.host.sums import LANES
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.dtype import Element
from numerics.formats.grid import (
    Grid,
    element_grid,
    float32_bits,
    grid,
    other_grid,
    range_of,
    scale_grid,
    scale_of,
)
from numerics.formats.rounding import BlockOptions, Rounding

_STORED = {"float32": WORDS, "int32": WORDS, "uint8": CODES["uint8"]}


def alike(f: Grid, rounding: str) -> Grid:
    """Returns an equal grid with numbers for facts that do not matter here: so formats share a kernel."""
    even = rounding == "half_even"
    return replace(
        f,
        inf=-1 if f.inf is None else f.inf,  # no code is -1
        adder=f.adder if even else None,
        direct=f.direct if even else None,
    )


def _element(function: Callable[..., Any], rounding: str) -> Callable[..., Any]:
    def element(f: Any, b: Lane, random: Lane | None = None) -> Any:
        return function(b, f, rounding, random, None)

    return element


def _sources(kind: str, rounding: str) -> tuple[Stream, ...]:
    return (FLOATS[kind], WORDS) if rounding == "stochastic" else (FLOATS[kind],)


def encode_operation(x: Array, d: Element, rounding: Rounding, target: Stream) -> Operation:
    """Floats of x's type to codes, one a byte or packed, as `target` stores them."""
    kind, mode = x.dtype.name, rounding.mode
    return Operation(
        f"encode_{kind}_{target.name}_{mode}",
        _element(arithmetic().encode, mode),
        Parameters(alike(grid(d, mode, rounding.overflow), mode)),
        _sources(kind, mode),
        (target,),
    )


def round_operation(x: Array, d: Element, rounding: Rounding) -> Operation:
    """Floats to the nearest values of the format, in their own type."""
    kind, mode = x.dtype.name, rounding.mode
    return Operation(
        f"round_{kind}_{mode}",
        _element(arithmetic().round_bits, mode),
        Parameters(alike(grid(d, mode, rounding.overflow), mode)),
        _sources(kind, mode),
        (FLOATS[kind],),
    )


def decode_operation(d: Element, source: Stream) -> Operation:
    """Codes, as `source` stores them, to float32."""
    decode = arithmetic().decode
    parameters = Parameters(alike(grid(d, "half_even", "saturate"), "decoding"))
    return Operation(f"decode_{source.name}", lambda f, c: decode(c, f), parameters, (source,), (WORDS,))


def copy_operation(name: str, source: Stream, target: Stream) -> Operation:
    """Returns the operation that stores the same codes another way."""
    return Operation(name, lambda lane: lane, Parameters(), (source,), (target,))


def block_operation(
    what: str, kind: str, d: Block, o: BlockOptions, outputs: tuple[Stream, ...]
) -> Operation:
    """Floats to blocks: `encode` to fields, `pack` to stored bytes, `round` to values."""
    verb = "round" if what == "round" else "encode"
    function = getattr(_arithmetic(d), f"{d.stem}_{verb}")
    records, arguments = _block_records(d, o)

    def block(*lanes: Any) -> Any:
        taken, b, random = lanes[: len(records)], lanes[len(records)], lanes[len(records) + 1 :]
        found = function(b, *arguments(*taken), o.mode, random[0] if random else None)
        whole = what == "round" or (what == "pack" and not d.scale_beside)
        return found if whole else (found[-1], *found[:-1])  # the order of BlockFields

    rule = f"_{o.scale_rule}" if isinstance(d, ScaledBlock) else ""
    name = f"{d.stem}_{what}_{_shape(d)}_{kind}_{o.mode}{rule}"
    width = _width(d, o.scale_rule)
    sources = _sources(kind, o.mode)
    return Operation(
        name, block, Parameters(*records), sources, outputs, width, width, unit=d.block, narrow=_narrow(d)
    )


def unblock_operation(what: str, d: Block, inputs: tuple[Stream, ...]) -> Operation:
    """Blocks to float32: `decode` from fields, `unpack` from stored bytes."""
    function = getattr(_arithmetic(d), f"{d.stem}_decode")
    records, arguments = _block_records(d, BlockOptions(), decoding=True)

    def block(*lanes: Any) -> Any:
        fields = lanes[len(records) :]
        if what == "decode" or d.scale_beside:  # in the order of BlockFields
            fields = (*fields[1:], fields[0])
        return function(*fields, *arguments(*lanes[: len(records)]))

    name = f"{d.stem}_{what}_{_shape(d)}"
    width = _width(d)
    return Operation(
        name, block, Parameters(*records), inputs, (WORDS,), width, width, unit=d.block, narrow=_narrow(d)
    )


def _arithmetic(d: Block) -> Any:
    """The shared arithmetic over vectors of blocks."""
    return arithmetic(d.block, d.sub_block if isinstance(d, MicroexponentBlock) else 1)


def _block_records(
    d: Block, o: BlockOptions, decoding: bool = False
) -> tuple[list[Any], Callable[..., Sequence[Any]]]:
    """The records of a block kernel, and the arguments of the shared function made of them.

    A tensor's scale is the first number of the first record; each call brings its own (`beginning`).
    """
    if isinstance(d, MicroexponentBlock):
        return [], lambda: (d.mantissa,)
    f = element_grid(d, o.scale_rule, o.mode)
    if isinstance(d, MXBlock):
        if decoding:
            return [alike(f, "decoding")], lambda f: (f,)
        return [alike(f, o.mode), scale_of(d, o.scale_rule)], lambda f, s: (f, s)
    elements = alike(replace(f, other=None), "decoding" if decoding else o.mode)
    records = [Number(float32_bits(1.0)), elements, alike(scale_grid(d), "half_even")]
    records += [] if f.other is None else [alike(f.other, "half_even")]
    rule = () if decoding else (o.scale_rule,)
    return records, lambda t, f, g, other=None: (t.value, replace(f, other=other), g, *rule)


class AffineKind(NamedTuple):
    """What a kernel is made for that goes over rows, or columns, with a scale and a zero point each.

    verb: `encode` and `pack` give codes, `round` values; `decode` and `unpack` take codes.  source: the
    type of what is read, for packed codes that of the values.  mode: the rounding, one of ROUNDINGS; empty
    where nothing is rounded.  zero: `none`, `integer` or `float`.  columns: one scale a column of a batch.
    width: of a tile of its rows (`widths`).
    """

    verb: str
    dtype: Element
    source: Any
    mode: str
    zero: str
    columns: bool
    width: tuple[int, int]

    @property
    def records(self) -> list[Any]:
        """The facts of the format that the arithmetic asks for."""
        f = alike(grid(self.dtype, self.mode or "half_even", "saturate"), self.mode or "decoding")
        return [f, range_of(self.dtype)] if self.dtype.kind == "integer" else [f]

    @property
    def cut(self) -> str:
        """Of the kernel's name: how rows are cut."""
        return ("_columns" if self.columns else "") + f"_{self.width[0]}_{self.width[1]}"

    @property
    def numbers(self) -> int:
        """Arrays with one number a row or column."""
        return 1 + (self.zero != "none")


@lru_cache(maxsize=4096)
def widths(n: int) -> tuple[int, int]:
    """Lanes of a tile of rows of n elements, by ordinary stores and past the caches.

    Rows that are short are cut evenly where they can be: a rest beside whole tiles costs a copy.
    """
    even = n & -n
    if n % WIDTH == 0 or n >= 8 * WIDTH or even < 8:
        return WIDTH, 2 * WIDTH if n % (2 * WIDTH) == 0 or n >= 8 * WIDTH else WIDTH
    return even, even


@lru_cache(maxsize=4096)
def widths_with_sums(n: int) -> tuple[int, int]:
    """The same of tiles that are encoded and summed: few steps of a long way wait for each other."""
    return (4 * WIDTH, 4 * WIDTH) if n % (4 * WIDTH) == 0 else widths(n)


def affine_operation(kind: AffineKind) -> Operation:
    """What goes over rows, or columns, with a scale each."""
    return _unaffine(kind) if kind.verb in ("decode", "unpack") else _affine(kind)


def _affine(kind: AffineKind) -> Operation:
    """Rows or columns with a scale each: `encode` and `pack` to codes, `round` to values."""
    verb, d, source, mode, zero_kind, columns, width = kind
    shared, records = arithmetic(), kind.records
    target = {"encode": CODES[d.code_dtype], "round": WORDS}.get(verb) or packed(d.bits)

    def element(*lanes: Any) -> Any:
        f, q, rest = lanes[0], lanes[len(records) - 1], lanes[len(records) :]
        scale, zero = rest[0], rest[1] if zero_kind != "none" else None
        b, *drawn = rest[1 + (zero is not None) :]
        draw = (mode, drawn[0] if drawn else None, None)
        if zero_kind == "none" and verb == "round":
            return shared.scaled_rounded(b, scale, f, *draw)
        if zero_kind == "none":
            code = shared.scaled_code(b, scale, f, *draw)
        elif zero_kind == "float":
            code = shared.offset_code(b, scale, zero, f, *draw)
        else:
            code = shared.affine_code(b, scale, zero, f, q, *draw)
        return _affine_value(zero_kind, code, (scale, zero), f, q) if verb == "round" else code

    name = f"affine_{verb}_{zero_kind}_{source.name}_{target.name}_{mode}{kind.cut}"
    streams = _sources(source.name, mode), (target,)
    return Operation(name, element, Parameters(*records), *streams, *width, kind.numbers, columns)


def row_operation(
    how: RowFunction, kinds: tuple[tuple[str, ...], ...], numbers: int, width: tuple[int, int]
) -> Operation:
    """A function of elements and their row's numbers; kinds: the types of its inputs and of its outputs."""
    inputs, outputs = (tuple(_STORED[kind] for kind in some) for some in kinds)
    name = f"rows_{how.name}_{'_'.join(kinds[0])}_{'_'.join(kinds[1])}_{width[0]}_{width[1]}"
    function = partial(how.function, arithmetic())
    return Operation(
        name, function, Parameters(*how.records), inputs, outputs, *width, numbers, past=how.past
    )


def function_of_blocks(how: RowFunction, kind: str, block: int, outputs: tuple[Stream, ...]) -> Operation:
    """A function of whole blocks of floats of that type."""
    width, names = _width_of_blocks(block), "_".join(stream.name or "block" for stream in outputs)
    function = partial(how.function, arithmetic(block))
    name = f"blocks_{how.name}_{block}_{kind}_{names}"
    return Operation(
        name, function, Parameters(*how.records), (FLOATS[kind],), outputs, width, width, unit=block
    )


def stream_of_blocks(out: Array, block: int) -> Stream:
    """How a function of blocks stores one of its words (Executor.by_blocks)."""
    if out.ndim == 1:
        return per_block(block)
    return WORDS if out.itemsize > 1 else packed(8 * out.shape[1] // block)


def _unaffine(kind: AffineKind) -> Operation:
    """Codes, or bytes, of rows or columns with a scale each to float32."""
    verb, d, _, _, zero_kind, columns, width = kind
    records = kind.records

    def element(*lanes: Any) -> Any:
        f, q, rest = lanes[0], lanes[len(records) - 1], lanes[len(records) :]
        zero = rest[1] if zero_kind != "none" else None
        return _affine_value(zero_kind, rest[-1], (rest[0], zero), f, q)

    source = packed(d.bits) if verb == "unpack" else CODES[d.code_dtype]
    name = f"affine_decode_{zero_kind}_{source.name}{kind.cut}"
    streams = (source,), (WORDS,)
    return Operation(name, element, Parameters(*records), *streams, *width, kind.numbers, columns)


def _affine_value(zero_kind: str, code: Lane, numbers: tuple[Lane, Any], f: Any, q: Any) -> Any:
    """What a code stands for under a scale and a zero point; q: the integers of the format."""
    shared, (scale, zero) = arithmetic(), numbers
    if zero_kind == "none":
        return shared.scaled_value(code, scale, f)
    value = shared.offset_value if zero_kind == "float" else shared.affine_value
    return value(code, scale, zero, q)


# ---- the shapes of blocks ------------------------------------------------------------------------


@lru_cache(maxsize=256)
def field_streams(d: Block) -> tuple[Stream, ...]:
    """What blocks are as fields: codes, scales, microexponents."""
    streams = (CODES[d.code_dtype], per_block(d.block))
    return (*streams, per_group(d.block, d.sub_block)) if isinstance(d, MicroexponentBlock) else streams


@lru_cache(maxsize=256)
def packed_streams(d: Block) -> tuple[Stream, ...]:
    """What blocks are as stored: whole, or packed codes and the scales beside them."""
    if isinstance(d, MicroexponentBlock):
        return (micro_blocks(d.block, d.sub_block, d.element_bits),)
    return packed(d.element_bits), per_block(d.block)


def fits(d: Block) -> bool:
    """Does a vector hold a block, and has it no second tier?"""
    return d.block <= WIDEST and d.scale_bits <= 8 and not isinstance(d, TieredBlock)


def packs(d: Block) -> bool:
    """Do its parts end on bytes, so that a kernel writes them as they are stored?"""
    return fits(d) and _full_bytes(d) and d.block % 8 == 0 and d.element_bits <= 8


def _width(d: Block, rule: str = "") -> int:
    """Elements of a tile, in whole blocks; rule: of the scale, where it is looked for.

    Of several blocks, whose scales are found side by side in one vector: the instructions for one block wait
    for each other.  Fewer where a rule tries every element many times, so that none takes long to compile.
    Microexponents stay with their elements, as every lane has its own, and fill whole bytes.
    """
    if not _full_bytes(d):
        return d.block
    if isinstance(d, MicroexponentBlock):
        return _width_of_blocks(d.block, 2 * WIDTH)
    tried = {"mse": 16}.get(rule, 1) * (1 if other_grid(cast(ElementBlock, d)) is None else 2)
    return _width_of_blocks(d.block, 16 * max(register_lanes(), 4) // tried)


def _narrow(d: Block) -> int:
    """Elements of the narrower tiles that sums have at the end; 0 of a format that has none."""
    return 0 if isinstance(d, MicroexponentBlock) else max(d.block, LANES)


def _width_of_blocks(block: int, least: int = WIDTH) -> int:
    """Of a power of two so many elements at least; of another block its own."""
    return max(least, block) if block & (block - 1) == 0 else block


def _full_bytes(d: Block) -> bool:
    """Do the microexponents of a block, where it has some, fill their byte?"""
    return d.sub_blocks in (0, 8)


def _shape(d: Block) -> str:
    element = f"{d.sub_block}_{d.mantissa}" if isinstance(d, MicroexponentBlock) else f"{d.element_bits}"
    return f"{d.block}_{element}_{d.code_dtype}"
