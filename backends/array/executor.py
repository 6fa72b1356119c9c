"""The NumPy executor: chunks that stay in the cache, one pass of the shared arithmetic each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.array import primitives
from numerics.backends.bind import PRIMITIVES, bind
from numerics.backends.host.executor import Affine, Array, BlockFields, Codes, RowFunction, check_rows
from numerics.backends.host.float_bits import FLOAT32_MAX, SMALLEST_NORMAL, words
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.memory import allocate as empty
from numerics.backends.host.unfused import Composed
from numerics.formats import packing
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.codec import MAGNITUDE
from numerics.formats.dtype import Element
from numerics.formats.floats import bfloat16
from numerics.formats.grid import Grid, element_grid, float32_bits, grid, range_of, scale_grid, scale_of
from numerics.formats.rounding import BlockOptions, Draw, Rounding

CHUNK = 1 << 15  # elements: a few dozen temporaries of this size fit a second-level cache

bound: SimpleNamespace = bind({name: getattr(primitives, name) for name in PRIMITIVES})


def _chunks(n: int, size: int) -> Iterator[slice]:
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


class ArrayExecutor(Composed):
    """NumPy arrays."""

    name = "array"

    def encode(self, x: Array, dtype: Element, rounding: Rounding, out: Codes) -> None:
        """Writes the code of each of x into out."""
        _map(bound.encode, x, dtype, rounding, out)

    def round(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Writes the format's value for each of x into out, which is of x's type."""
        values = np.empty(x.shape, np.float32)
        _map(bound.round_bits, x, dtype, rounding, values.view(np.int32))
        out[...] = narrow(values, x.dtype)

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Writes the float32 value of each code into out."""
        f = grid(dtype, "half_even", dtype.default_overflow)
        bits = out.view(np.int32)
        with ieee_arithmetic():
            for part in _chunks(codes.size, CHUNK):
                bits[part] = bound.decode(codes[part].astype(np.int32), f)

    def encode_blocks(
        self, x: Array, dtype: Block, options: BlockOptions, out: BlockFields | None = None
    ) -> BlockFields:
        """Returns the rows of x as blocks, in out where it is given."""
        n = len(x)
        fields = empty_fields(n, dtype) if out is None else out
        with ieee_arithmetic():
            for part in _chunks(n, max(CHUNK // dtype.block, 1)):
                rows, cut = _rows(fields, part), _cut(options, part)
                if looks_further(x, dtype, options):
                    _encode_exactly(x[part], dtype, cut, rows)
                else:
                    _ENCODE[type(dtype)](words(x[part])[0], dtype, cut, rows)
        return fields

    def decode_blocks(
        self,
        fields: BlockFields,
        dtype: Block,
        tensor_scale: float | None,
        out: NDArray[np.float32],
    ) -> None:
        """Writes the float32 values of blocks into the rows of out."""
        bits = out.view(np.int32)
        with ieee_arithmetic():
            for part in _chunks(len(out), max(CHUNK // dtype.block, 1)):
                bits[part] = _DECODE[type(dtype)](_rows(fields, part), dtype, tensor_scale)

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Writes the format's values for the rows of x into those of out, which is of x's type."""
        if looks_further(x, dtype, options):
            values = np.empty(x.shape, np.float32)
            self.decode_blocks(self.encode_blocks(x, dtype, options), dtype, options.tensor_scale, values)
            out[...] = narrow(values, x.dtype)
            return
        with ieee_arithmetic():
            for part in _chunks(len(x), max(CHUNK // dtype.block, 1)):
                bits = _ROUND[type(dtype)](words(x[part])[0], dtype, _cut(options, part))
                out[part] = narrow(bits.view(np.float32), x.dtype)

    def pack(self, codes: Codes, bits: int) -> NDArray[np.uint8]:
        """Groups as rows; a short last group is filled with zeros and cut off again."""
        count, size = packing.group(bits)
        rows = np.zeros(-(-codes.size // count) * count, np.int32)
        rows[: codes.size] = codes
        packed = np.empty((rows.size // count, size), np.uint8)
        for k, byte in enumerate(packing.pack_group(rows.reshape(-1, count).T, bits)):
            packed[:, k] = byte
        return packed.reshape(-1)[: -(-codes.size * bits // 8)]

    def unpack(self, packed: NDArray[np.uint8], count: int, bits: int) -> Codes:
        """Returns the `count` codes that `pack` made bytes of."""
        length, size = packing.group(bits)
        rows = np.zeros(-(-count // length) * size, np.int32)
        rows[: packed.size] = packed[: rows.size]
        codes = np.empty((rows.size // size, length), np.uint8 if bits <= 8 else np.uint16)
        for k, code in enumerate(packing.unpack_group(rows.reshape(-1, size).T, bits)):
            codes[:, k] = code
        return codes.reshape(-1)[:count]

    def encode_affine(self, x: Array, dtype: Element, affine: Affine, rounding: Rounding) -> Codes:
        """clamp(round(x / scale) + zero)."""
        codes, random = np.empty(x.shape, dtype.code_dtype), rounding.draw.bits
        with ieee_arithmetic():
            for part, (scale, zero) in _shares(x.shape, affine):
                y, scale, zero = (
                    _quotient64(x[part], scale, zero) if x.dtype == np.float64 else (x[part], scale, zero)
                )
                b, low = words(y, rounding.mode == "stochastic")
                how = rounding if random is None else rounding.drawing(random[part])
                codes[part] = _affine_code((b, low), Affine(scale, zero), dtype, how)
        return codes

    def decode_affine(self, codes: Codes, dtype: Element, affine: Affine) -> Array:
        """(q - zero) * scale."""
        out = np.empty(codes.shape, affine.scale.dtype)
        with ieee_arithmetic():
            for part, (scale, zero) in _shares(codes.shape, affine):
                out[part] = _affine_value(codes[part].astype(np.int32), scale, zero, dtype)
        return out

    def by_rows(
        self, how: RowFunction, inputs: Sequence[Array], numbers: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        """A tile at a time, with the numbers of its rows beside it."""
        check_rows(how.name, (*inputs, *outputs), numbers)
        with ieee_arithmetic():
            for part in _tiles((inputs[0].shape[0], inputs[0].shape[1])):
                own = [n[part[0], None].view(np.int32) for n in numbers]
                made = how.function(bound, *how.records, *own, *(_word(x[part]) for x in inputs))
                for out, values in zip(outputs, made if isinstance(made, tuple) else (made,), strict=True):
                    out[part] = values if out.itemsize == 1 else values.view(out.dtype)

    def by_blocks(self, how: RowFunction, x: Array, outputs: Sequence[Array]) -> None:
        """Some blocks at a time."""
        block = x.shape[1]
        with ieee_arithmetic():
            for part in _chunks(len(x), max(CHUNK // block, 1)):
                made = how.function(bound, *how.records, words(x[part])[0])
                for out, values in zip(outputs, made if isinstance(made, tuple) else (made,), strict=True):
                    out[part] = self._of_blocks(values, out[part], block)

    def _of_blocks(self, values: Array, out: Array, block: int) -> Array:
        """What a function of blocks makes, as `out` stores it (Executor.by_blocks)."""
        if out.ndim == 1:
            return values[:, 0]
        if out.itemsize > 1:
            return values.view(out.dtype)
        codes = values.astype(np.uint8)
        return self.pack(codes.reshape(-1), 8 * out.shape[1] // block).reshape(out.shape)

    def extremes(self, x: Array) -> tuple[Array, Array]:
        """Finite values only: where and initial do what a loop would."""
        finite = np.isfinite(x)
        with ieee_arithmetic():
            low = np.where(finite, x, np.inf).min(
                axis=1, initial=np.inf
            )  # of columns too: axis 1 is their rows
            high = np.where(finite, x, -np.inf).max(axis=1, initial=-np.inf)
        none = ~(low <= high)
        return np.where(none, 0, low).astype(x.dtype), np.where(none, 0, high).astype(x.dtype)


def narrow(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Array:
    """float32 values in another float type, half to even."""
    if dtype.name == "bfloat16":
        codes = np.empty(values.shape, np.uint16)
        _map(bound.encode, values, bfloat16, Rounding(overflow="nonsaturate"), codes)
        return codes.view(dtype)
    with ieee_arithmetic():
        return values.astype(dtype, copy=False)


def _map(function: Callable[..., Any], x: Array, d: Element, rounding: Rounding, out: Array) -> None:
    """A function of the shared arithmetic on one-dimensional arrays."""
    mode, overflow, (_, random) = rounding
    f = grid(d, mode, overflow)
    with ieee_arithmetic():
        for part in _chunks(len(x), CHUNK):
            b, low = words(x[part], mode == "stochastic", f.lowest is None)
            out[part] = function(b, f, mode, None if random is None else random[part], low)


def _word(x: Array) -> NDArray[np.int32]:
    """Elements as words of 32 bits."""
    return x.astype(np.int32) if x.itemsize == 1 else x.view(np.int32)


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Parts of a two-dimensional array, about CHUNK elements each."""
    rows, n = shape
    width = min(n, CHUNK) or 1
    return ((r, i) for r in _chunks(rows, max(CHUNK // width, 1)) for i in _chunks(n, width))


def _shares(shape: tuple[int, ...], affine: Affine) -> Iterator[tuple[tuple[Any, ...], Affine]]:
    """Returns [rows, n] or [batches, rows, n] in parts, with the numbers to broadcast over each part."""
    if len(shape) == 2:
        for r, i in _tiles((shape[0], shape[1])):
            yield (r, i), Affine(*(None if n is None else n[r, None] for n in affine))
        return
    for batch in range(shape[0]):
        for r, i in _tiles((shape[1], shape[2])):
            yield (batch, r, i), Affine(*(None if n is None else n[batch, None, i] for n in affine))


def _quotient64(x: Array, scale: Array, zero: Array | None) -> tuple[Array, Array, Array | None]:
    """float64 is divided, and offset, in float64; what remains for the shared arithmetic is exact."""
    y = x / scale
    if zero is not None and zero.dtype.kind == "f":  # NaN counts as 0
        y, zero = np.where(np.isnan(x), zero, y + zero), np.zeros_like(zero, np.float32)
    return y, np.ones_like(scale, np.float32), zero


def _affine_code(word: tuple[Array, Array | None], affine: Affine, d: Element, rounding: Rounding) -> Any:
    """Codes of words, and of what float64 has below them."""
    (b, low), (scale, zero), (mode, _, (_, random)) = word, affine, rounding
    f, s = grid(d, mode, "saturate"), scale.view(np.int32)
    if zero is None:
        return bound.scaled_code(b, s, f, mode, random, low)
    if zero.dtype.kind == "f":
        return bound.offset_code(b, s, zero.view(np.int32), f, mode, random, low)
    return bound.affine_code(b, s, zero, f, range_of(d), mode, random, low)


def _affine_value(code: Array, scale: Array, zero: Array | None, d: Element) -> Any:
    if scale.dtype == np.float64:
        one = np.ones_like(scale, np.float32)
        value = _affine_value(code, one, None, d).astype(np.float64)
        return (value if zero is None else value - zero) * scale
    s = scale.view(np.int32)
    if zero is None:
        return bound.scaled_value(code, s, grid(d, "half_even", "saturate")).view(np.float32)
    if zero.dtype.kind == "f":
        return bound.offset_value(code, s, zero.view(np.int32), range_of(d)).view(np.float32)
    return bound.affine_value(code, s, zero, range_of(d)).view(np.float32)


def empty_fields(n: int, d: Block) -> BlockFields:
    """Room for n blocks."""
    micro = np.empty(n, d.micro_dtype) if d.sub_blocks else None
    return BlockFields(empty((n, d.block), d.code_dtype), np.empty(n, d.scale_code_dtype), micro)


def _cut(options: BlockOptions, part: slice) -> BlockOptions:
    bits = options.draw.bits
    return options if bits is None else options._replace(draw=Draw(bits=bits[part]))


def _rows(fields: BlockFields, part: slice) -> BlockFields:
    micro = fields.microexponents
    return BlockFields(fields.codes[part], fields.scale[part], None if micro is None else micro[part])


def _grid_of(d: Block, o: BlockOptions) -> Grid:
    return element_grid(cast(ElementBlock, d), o.scale_rule, o.mode)


def _encode_mx(b: Array, d: MXBlock, o: BlockOptions, out: BlockFields) -> None:
    f, s = _grid_of(d, o), scale_of(d, o.scale_rule)
    scale, out.codes[...] = bound.mx_encode(b, f, s, o.mode, o.draw.bits)
    out.scale[...] = scale[:, 0]


def _encode_scaled(b: Array, d: ScaledBlock, o: BlockOptions, out: BlockFields) -> None:
    tensor = float32_bits(o.tensor_scale or 1.0)
    grids = _grid_of(d, o), scale_grid(d)
    scale, out.codes[...] = bound.scaled_encode(b, tensor, *grids, o.scale_rule, o.mode, o.draw.bits)
    out.scale[...] = scale[:, 0]


def _encode_micro(b: Array, d: MicroexponentBlock, o: BlockOptions, out: BlockFields) -> None:
    groups = (len(b), -1, d.sub_block)
    random = None if o.draw.bits is None else o.draw.bits.reshape(groups)
    exponent, shift, code = bound.micro_encode(b.reshape(groups), d.mantissa, o.mode, random)
    out.codes[...] = code.reshape(b.shape)
    out.scale[...] = exponent[:, 0, 0]
    out.microexponents[...] = (shift[:, :, 0] << np.arange(shift.shape[1], dtype=np.int32)).sum(1)  # type: ignore[index]


def _encode_tiered(b: Array, d: TieredBlock, o: BlockOptions, out: BlockFields) -> None:
    groups = (len(b), d.pairs, 2, d.sub_block)
    random = None if o.draw.bits is None else o.draw.bits.reshape(groups)
    f = element_grid(d)
    scale, upper, lower, code = bound.tiered_encode(b.reshape(groups), d.mantissa, f, o.mode, random)
    out.codes[...] = code.reshape(b.shape)
    out.scale[...] = scale[:, 0, 0, 0]
    flags = np.concatenate([upper.reshape(len(b), -1), lower.reshape(len(b), -1)], axis=1)
    out.microexponents[...] = (flags << np.arange(d.micro_bits, dtype=np.int32)).sum(1)  # type: ignore[index]


def looks_further(x: Array, d: Block, o: BlockOptions) -> bool:
    """Does a draw see what float64 has below float32's last place?"""
    return o.draw.bits is not None and x.dtype == np.float64 and not d.in_float32


def _encode_exactly(x: Array, d: Block, o: BlockOptions, out: BlockFields) -> None:
    """float64 under stochastic rounding: shared fields first, on which no draw has an influence."""
    rule = "floor" if o.scale_rule == "bump" else o.scale_rule
    plain = BlockOptions(rule, "half_even", o.tensor_scale)
    _ENCODE[type(d)](words(x)[0], d, plain, out)
    lost, f = out.scale[:, None] == 255, _grid_of(d, o)
    steps = _step_exponents(out, d)
    b, low = words(_in_steps(x, steps, d), stochastic=True)
    if o.scale_rule == "bump":
        up = bound.mx_bump(b & MAGNITUDE, b, f, scale_of(d, o.scale_rule), o.mode, o.draw.bits, low)
        up = np.where(out.scale[:, None] < 254, up, 0)
        out.scale[...] += up[:, 0].astype(np.uint8)
        b, low = words(_in_steps(x, steps + up, d), stochastic=True)
    codes = bound.encode(b, f, o.mode, o.draw.bits, low)
    out.codes[...] = np.where(lost, out.codes, codes)


def _step_exponents(fields: BlockFields, d: Block) -> NDArray[np.int32]:
    """The exponents of what each element counts: of the scale, or of the step of its sub-block."""
    exponent = fields.scale.astype(np.int32)[:, None] - 127
    if fields.microexponents is None or not isinstance(d, MicroexponentBlock):
        return exponent
    parts = np.arange(d.sub_blocks, dtype=np.int32)
    shifts = (fields.microexponents.astype(np.int32)[:, None] >> parts) & 1
    return np.repeat(exponent - shifts, d.sub_block, axis=1) - (d.mantissa - 1)


def _in_steps(x: Array, steps: NDArray[np.int32], d: Block) -> Array:
    """float64 over powers of two; as blocks take it: no more than float32's largest, or (micro) normal."""
    x = np.clip(x, -FLOAT32_MAX, FLOAT32_MAX)
    if isinstance(d, MicroexponentBlock):
        x = np.where(np.abs(x) < SMALLEST_NORMAL, 0.0, x)
    return np.ldexp(x, -steps)


def _round_mx(b: Array, d: MXBlock, o: BlockOptions) -> Any:
    return bound.mx_round(b, _grid_of(d, o), scale_of(d, o.scale_rule), o.mode, o.draw.bits)


def _round_scaled(b: Array, d: ScaledBlock, o: BlockOptions) -> Any:
    tensor = float32_bits(o.tensor_scale or 1.0)
    grids = _grid_of(d, o), scale_grid(d)
    return bound.scaled_round(b, tensor, *grids, o.scale_rule, o.mode, o.draw.bits)


def _round_micro(b: Array, d: MicroexponentBlock, o: BlockOptions) -> Any:
    groups = (len(b), -1, d.sub_block)
    random = None if o.draw.bits is None else o.draw.bits.reshape(groups)
    return bound.micro_round(b.reshape(groups), d.mantissa, o.mode, random).reshape(b.shape)


def _round_tiered(b: Array, d: TieredBlock, o: BlockOptions) -> Any:
    groups = (len(b), d.pairs, 2, d.sub_block)
    random = None if o.draw.bits is None else o.draw.bits.reshape(groups)
    f = element_grid(d)
    return bound.tiered_round(b.reshape(groups), d.mantissa, f, o.mode, random).reshape(b.shape)


def _decode_mx(fields: BlockFields, d: MXBlock, tensor_scale: float | None) -> Any:
    return bound.mx_decode(
        fields.scale.astype(np.int32)[:, None], fields.codes.astype(np.int32), element_grid(d)
    )


def _decode_scaled(fields: BlockFields, d: ScaledBlock, tensor_scale: float | None) -> Any:
    g = scale_grid(d)
    scale, codes = fields.scale.astype(np.int32)[:, None], fields.codes.astype(np.int32)
    return bound.scaled_decode(scale, codes, float32_bits(tensor_scale or 1.0), element_grid(d), g)


def _decode_micro(fields: BlockFields, d: MicroexponentBlock, tensor_scale: float | None) -> Any:
    n, groups = len(fields.codes), d.sub_blocks
    codes = fields.codes.astype(np.int32).reshape(n, groups, -1)
    shift = (fields.microexponents.astype(np.int32)[:, None] >> np.arange(groups, dtype=np.int32)) & 1  # type: ignore[union-attr]
    exponent = fields.scale.astype(np.int32).reshape(n, 1, 1)
    return bound.micro_decode(exponent, shift[:, :, None], codes, d.mantissa).reshape(n, -1)


def tiered_ups(micro: Array, d: TieredBlock) -> NDArray[np.int32]:
    """By how many powers of two each sub-block is larger than its block's scale says: [n, sub-blocks]."""
    flags = (micro.astype(np.int32)[:, None] >> np.arange(d.micro_bits, dtype=np.int32)) & 1
    found: NDArray[np.int32] = np.repeat(flags[:, : d.pairs], 2, axis=1) + flags[:, d.pairs :]
    return found


def _decode_tiered(fields: BlockFields, d: TieredBlock, tensor_scale: float | None) -> Any:
    n = len(fields.codes)
    assert fields.microexponents is not None
    codes = fields.codes.astype(np.int32).reshape(n, d.sub_blocks, -1)
    ups, scale = tiered_ups(fields.microexponents, d), fields.scale.astype(np.int32).reshape(n, 1, 1)
    return bound.tiered_decode(scale, ups[:, :, None], codes, d.mantissa).reshape(n, -1)


_Kernels = dict[type[Block], Callable[..., Any]]
_ENCODE: _Kernels = {
    MXBlock: _encode_mx,
    ScaledBlock: _encode_scaled,
    MicroexponentBlock: _encode_micro,
    TieredBlock: _encode_tiered,
}
_DECODE: _Kernels = {
    MXBlock: _decode_mx,
    ScaledBlock: _decode_scaled,
    MicroexponentBlock: _decode_micro,
    TieredBlock: _decode_tiered,
}
_ROUND: _Kernels = {
    MXBlock: _round_mx,
    ScaledBlock: _round_scaled,
    MicroexponentBlock: _round_micro,
    TieredBlock: _round_tiered,
}
