"""What every executor on the host shares and none should repeat: everything but the arithmetic.

Kinds of input, checks, `out`, axes, padding and random bits, around an `Executor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host import random_bits
from numerics.backends.host.affine import HostAffine, stored_rows
from numerics.backends.host.arrays import Target, as_given, check_blocks, check_bytes, take, take_codes
from numerics.backends.host.executor import Array, BlockFields, Executor
from numerics.backends.host.float_bits import as_float32, name_of, to_float32
from numerics.backends.host.hadamard import Rotation
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.memory import allocate
from numerics.backends.host.micro_packing import pack_micro, unpack_micro
from numerics.backends.host.output import admit_blocks, check_apart
from numerics.backends.host.product import Int8Rows, Matrix, linear
from numerics.backends.host.quantizing import Prepared, Quantizing
from numerics.backends.host.tensors import as_array, is_tensor, on_host
from numerics.backends.partition import Blocking, as_shape, blocks_along, check_axis
from numerics.formats.block import Block, Blocks, PackedBlocks, ScaledBlock
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.protocol import Given, Parts, Spec
from numerics.formats.rounding import BlockOptions, Draw, Rounding

T = TypeVar("T")
_WIDE = {np.dtype(name): name for name in ("float32", "float64")}
SMALLEST = 2.0**-149  # positive number of float32


class HostBackend(HostAffine, Quantizing):
    """A Backend (formats/protocol.py) for NumPy arrays, Python numbers and torch tensors on the CPU."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.name = executor.name

    def check(self) -> None:
        """The host is there."""

    def owns(self, x: Any) -> bool:
        """NumPy arrays and scalars, Python numbers, nested lists, torch tensors on the CPU."""
        return isinstance(x, (np.ndarray, np.generic, int, float, complex, list, tuple)) or on_host(x)

    def prepare(self, x: Any) -> Prepared:
        """x as float32 or float64, and the name of what it was: a float type, or `python`."""
        data, _ = take(x)
        wide = _WIDE.get(data.dtype)
        if not hasattr(x, "dtype"):
            return Prepared(to_float32(data), "python")
        return Prepared(data, wide) if wide else Prepared(to_float32(data), name_of(data.dtype))

    def native(self, parts: Iterable[Any]) -> list[Any]:
        """The memory of tensors as arrays; arrays, and None, as they are."""
        return [as_array(part) if is_tensor(part) else part for part in parts]

    def error_sums(self, x: Array, y: Array) -> NDArray[np.float64]:
        """What backends/host/sums.py finds of arrays of any float type and byte order, and of one shape."""
        wide = (to_float32(array) for array in (x, y))
        return self.executor.error_sums(
            *(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1) for array in wide)
        )

    def error_sums_of(self, x: Array, parts: Parts, spec: Spec) -> NDArray[np.float64] | None:
        """error_sums of x and of what `dequantize` makes of parts, in one pass.

        None where the executor has no such pass, and where a figure is not finite.
        """
        if x.dtype != np.float32 or not x.size or not x.flags.c_contiguous or x.shape != tuple(parts.shape):
            return None
        of = self._sums_of_blocks if spec.blocked else self._sums_of_rows
        return _finite(of(x, parts, spec))

    def quantize_measured(
        self, x: Prepared, spec: Spec, given: Given, draw: Draw
    ) -> tuple[Parts, NDArray[np.float64] | None]:
        """`quantize_prepared` of a piece, and what `error_sums_of` finds of it, where one pass makes both."""
        measuring = self.executor.measuring(x.data)
        backend = self if measuring is None else type(self)(measuring)
        parts = backend.quantize_prepared(x, spec, given, draw, whole=False)
        return parts, None if measuring is None else _finite(measuring.figures)

    def _sums_of_blocks(self, x: Array, parts: Parts, spec: Spec) -> NDArray[np.float64] | None:
        blocking = blocks_along(spec.axis or 0, x.shape, spec.block.block)
        if not blocking.whole:
            return None
        packed, shared = _stored_rows(parts.packed, parts.shared, spec.block, blocking)
        number = parts.tensor_scale
        return self.executor.error_sums_of_blocks(x.reshape(-1), packed, shared, spec.block, number)

    def _sums_of_rows(self, x: Array, parts: Parts, spec: Spec) -> NDArray[np.float64] | None:
        view = spec.partition(x.shape).view
        if view.padded is not None or len(view.shape) != 2:
            return None
        packed, numbers = stored_rows(parts.packed, spec.element, view, self.affine_of(parts, spec))
        return self.executor.error_sums_of_rows(x.reshape(view.shape), packed, spec.element, numbers)

    def each(self, work: Callable[[int], T], count: int) -> list[T]:
        """[work(0), ..., work(count - 1)], side by side where the executor has threads."""
        found: dict[int, T] = {}
        self.executor.each(lambda place: found.__setitem__(place, work(place)), count)
        return [found[place] for place in range(count)]

    def linear(
        self, x: NDArray[np.float32] | Int8Rows, matrix: Matrix, bias: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """x (m, length) times the rows of a matrix, plus a bias (rows): (m, rows), as product.py says."""
        with ieee_arithmetic():
            return linear(self.executor.products, x, matrix, bias)

    def hadamard(self, x: Any, rotation: Rotation) -> Any:
        """numerics.hadamard: the last axis rotated, in x's type and shape."""
        data, original = self.prepare(x)
        rotation.check(data.shape)
        rows = np.ascontiguousarray(data).reshape(-1, rotation.size)
        return self.give(self.executor.rotate(rows, rotation).reshape(data.shape), original)

    # ---- elements --------------------------------------------------------------------------

    def encode(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Returns the code of each of x, in its shape; in out where it is given."""
        data, give = take(x)
        if rounding.mode == "stochastic":
            rounding = random_bits.drawn(rounding, data.shape)
        target = Target(out, (data.shape, np.dtype(dtype.code_dtype)), data, give)
        self.executor.encode(data.reshape(-1), dtype, rounding, target.flat)
        return target.done()

    def decode(self, codes: Any, dtype: Element, out: Any) -> Any:
        """Returns the float32 value of each code; in out where it is given."""
        data, give = take_codes(codes, dtype.bits, dtype.code_dtype, dtype.name)
        target = Target(out, (data.shape, np.dtype(np.float32)), data, give)
        self.executor.decode(data.reshape(-1), dtype, target.flat)
        return target.done()

    def round(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Returns the format's value for each of x, in x's type; in out where it is given."""
        data, give = take(x)
        if rounding.mode == "stochastic":
            rounding = random_bits.drawn(rounding, data.shape)
        target = Target(out, (data.shape, data.dtype), data, give)
        self.executor.round(data.reshape(-1), dtype, rounding, target.flat)
        return target.done()

    def pack(self, codes: Any, dtype: Element) -> Any:
        """Returns codes, in C order, as one little-endian string of bits (uint8)."""
        data, give = take_codes(codes, dtype.bits, dtype.code_dtype, dtype.name)
        return give(self.executor.pack(data.reshape(-1), dtype.bits))

    def unpack(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Returns the codes, in that shape, of bytes that `pack` made."""
        data, give = take_codes(packed, 8, "uint8", "packed bytes")
        shape = as_shape(shape)
        return give(self._unpack(data.reshape(-1), math.prod(shape), dtype.bits).reshape(shape))

    def _unpack(self, packed: Array, count: int, bits: int) -> Array:
        check_bytes(packed.size, count, bits)
        return self.executor.unpack(packed, count, bits)

    def encode_packed(self, x: Any, dtype: Element, rounding: Rounding) -> Any:
        """Returns the codes of x as bytes, without the codes between."""
        data, give = take(x)
        if rounding.mode == "stochastic":
            rounding = random_bits.drawn(rounding, data.shape)
        out = allocate(-(-data.size * dtype.bits // 8), np.uint8)
        self.executor.encode_packed(data.reshape(-1), dtype, rounding, out)
        return give(out)

    def decode_packed(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Returns the float32 values of packed codes, in that shape."""
        data, give = take_codes(packed, 8, "uint8", "packed bytes")
        shape = as_shape(shape)
        check_bytes(data.size, math.prod(shape), dtype.bits)
        out = allocate(shape)
        self.executor.decode_packed(data.reshape(-1), dtype, out.reshape(-1))
        return give(out)

    # ---- blocks ----------------------------------------------------------------------------

    def found_tensor_scale(self, data: Array, dtype: ScaledBlock, rule: str) -> float:
        """NVFP4's tensor scale, from the largest finite magnitude as float32 has it."""
        with ieee_arithmetic():
            low, high = (
                self.executor.extremes(as_float32(data).reshape(1, -1)) if data.size else ([0.0], [0.0])
            )
            return tensor_scale_of(max(-float(low[0]), float(high[0])), dtype, rule)

    def _rows(
        self, data: Array, dtype: Block, blocking: Blocking, options: BlockOptions
    ) -> tuple[Array, BlockOptions]:
        """The blocks as rows, and the options as executors take them: with bits that are drawn, in rows."""
        drawn, tensor_scale = random_bits.bits(options.draw, data.shape), options.tensor_scale
        rows = None if drawn is None else blocking.rows(drawn.reshape(data.shape))
        if isinstance(dtype, ScaledBlock) and tensor_scale is None:
            tensor_scale = self.found_tensor_scale(data, dtype, options.scale_rule)
        if rows is not None or tensor_scale is not options.tensor_scale:
            options = BlockOptions(options.scale_rule, options.mode, tensor_scale, Draw(bits=rows))
        return blocking.rows(data), options

    def encode_blocks(
        self, x: Any, dtype: Block, axis: int, options: BlockOptions, out: Blocks | None = None
    ) -> Blocks:
        """Returns x as blocks along axis; in the arrays of out where it is given."""
        data, give = take(x)
        blocking = blocks_along(axis, data.shape, dtype.block)
        targets = None if out is None else _block_targets(out, dtype, axis, blocking, data)
        rows, options = self._rows(data, dtype, blocking, options)
        direct = _in_place(targets, blocking)
        fields = self.executor.encode_blocks(rows, dtype, options, direct)
        micro = None if fields.microexponents is None else blocking.shared(fields.microexponents)
        found = blocking.elements(fields.codes), blocking.shared(fields.scale), micro
        if targets is None:
            parts = [None if part is None else give(part) for part in found]
        else:  # there is no target for what the format has not
            made = zip(targets, found, strict=False)
            parts = [target.done(None if direct is not None else part) for target, part in made]
        codes, scale, micro = (*parts, None)[:3]
        return Blocks(dtype, axis, codes, scale, micro, options.tensor_scale)

    def quantize_blocks(self, x: Any, dtype: Block, axis: int, options: BlockOptions) -> PackedBlocks:
        """Block.encode as stored."""
        data, _ = take(x)
        blocking = blocks_along(axis, data.shape, dtype.block)
        if blocking.whole or not dtype.scale_beside:
            rows, options = self._rows(data, dtype, blocking, options)
            packed, scale = self.executor.encode_blocks_packed(rows, dtype, options)
            beside = None if scale is None else blocking.shared(scale)
            return PackedBlocks(dtype, axis, data.shape, packed, beside, options.tensor_scale)
        made = self.encode_blocks(data, dtype, axis, options)
        packed = self.pack_blocks(made)
        return PackedBlocks(dtype, axis, data.shape, packed, made.scale, made.tensor_scale)

    def dequantize_blocks(self, stored: PackedBlocks) -> NDArray[np.float32]:
        """float32 values of what quantize_blocks made; raises NumericsError for fewer bytes or scales."""
        dtype, shape = stored.dtype, tuple(stored.shape)
        blocking = blocks_along(stored.axis, shape, dtype.block)
        if dtype.scale_beside and not blocking.whole:
            return np.asarray(self.decode_blocks(self.unpack_blocks(stored), None))
        packed, shared = _stored_rows(stored.packed, stored.scale, dtype, blocking)
        rows = allocate((blocking.count, dtype.block))
        self.executor.decode_blocks_packed(packed, shared, dtype, stored.tensor_scale, rows)
        return blocking.elements(rows)

    def decode_blocks(self, blocks: Blocks, out: Any) -> Any:
        """Returns the float32 values of blocks; in out where it is given."""
        fields, blocking, give, codes = self._fields(blocks)
        target = Target(out, (codes.shape, np.dtype(np.float32)), codes, give) if out is not None else None
        rows = allocate(fields.codes.shape)
        self.executor.decode_blocks(fields, blocks.dtype, blocks.tensor_scale, rows)
        values = blocking.elements(rows)
        return give(values) if target is None else target.done(values)

    def _fields(self, blocks: Blocks) -> tuple[BlockFields, Blocking, Callable[[Array], Any], Array]:
        d = blocks.dtype
        codes, give = take_codes(blocks.codes, d.element_bits, d.code_dtype, d.name)
        blocking = blocks_along(blocks.axis, codes.shape, d.block)
        shared = [
            _shared_rows(getattr(blocks, name), name, d, blocking) for name in d.fields if name != "codes"
        ]
        return BlockFields(blocking.rows(codes), *shared), blocking, give, codes

    def round_blocks(self, x: Any, dtype: Block, axis: int, options: BlockOptions, out: Any) -> Any:
        """Returns the values of x in blocks along axis, in x's type; in out where it is given."""
        data, give = take(x)
        blocking = blocks_along(axis, data.shape, dtype.block)
        rows, options = self._rows(data, dtype, blocking, options)
        target = Target(out, (data.shape, data.dtype), data, give)
        direct = target.array.reshape(rows.shape) if blocking.whole else None
        values = np.empty(rows.shape, data.dtype) if direct is None else direct
        self.executor.round_blocks(rows, dtype, options, values)
        return target.done(None if direct is not None else blocking.elements(values))

    def pack_blocks(self, blocks: Blocks) -> Any:
        """Returns blocks as bytes: packed codes, or whole microexponent blocks (docs/layout.md)."""
        fields, _, give, codes = self._fields(blocks)
        d = blocks.dtype
        if d.scale_beside:
            return give(self.executor.pack(codes.reshape(-1), d.element_bits))
        return give(pack_micro(self.executor, fields, d))

    def unpack_blocks(self, stored: PackedBlocks) -> Blocks:
        """Returns the blocks, of a tensor of that shape, of bytes that `pack_blocks` made."""
        dtype, axis, scale = stored.dtype, stored.axis, stored.scale
        data, give = take_codes(stored.packed, 8, "uint8", "packed bytes")
        shape = as_shape(stored.shape)
        if dtype.scale_beside:
            if scale is None:
                raise NumericsError(f"{dtype.name}: the scales stand beside the packed codes; give scale=")
            check_axis(axis, shape)
            codes = self._unpack(data.reshape(-1), math.prod(shape), dtype.element_bits)
            return Blocks(dtype, axis, give(codes.reshape(shape)), scale, None, stored.tensor_scale)
        blocking = blocks_along(axis, shape, dtype.block)
        check_blocks(data.size, blocking.count, dtype)
        fields = unpack_micro(self.executor, data.reshape(-1, dtype.bytes_per_block), dtype)
        shared = [give(blocking.shared(field)) for field in fields[1:] if field is not None]
        return Blocks(dtype, axis, give(blocking.elements(fields.codes)), *shared)


def _finite(figures: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Figures, where all are finite: others are for `error_sums`."""
    return figures if figures is not None and np.isfinite(figures).all() else None


def _block_targets(
    out: Blocks, dtype: Block, axis: int, blocking: Blocking, source: Array
) -> tuple[Target, ...]:
    """Where the parts go: codes, scale and, where the format has them, microexponents."""
    admit_blocks(out, dtype, axis, len(blocking.shape))
    targets = tuple(
        Target(
            getattr(out, name),
            (blocking.shape if name == "codes" else blocking.shared_shape, np.dtype(field.code_dtype)),
            source, as_given, f"out.{name}",
        ) for name, field in dtype.fields.items()
    )  # fmt: skip
    check_apart({f"out.{name}": getattr(out, name) for name in dtype.fields})
    return targets


def _stored_rows(packed: Any, scale: Any, dtype: Block, blocking: Blocking) -> tuple[Array, Array | None]:
    """The bytes of blocks, and the scales beside them, an entry a row; checked."""
    packed, _ = take_codes(packed, 8, "uint8", "packed bytes")
    if dtype.scale_beside:
        check_bytes(packed.size, math.prod(blocking.shape), dtype.element_bits)
        return packed, _shared_rows(scale, "scale", dtype, blocking)
    check_blocks(packed.size, blocking.count, dtype)
    return packed, None


def _shared_rows(field: Any, name: str, dtype: Block, blocking: Blocking) -> Array:
    """What blocks share, an entry a row; checked."""
    bits, kind = dtype.fields[name]
    return blocking.shared_rows(take_codes(field, bits, kind, f"{dtype.name} {name}")[0], name)


def _in_place(targets: tuple[Target, ...] | None, blocking: Blocking) -> BlockFields | None:
    """The caller's arrays as rows, where rows are their memory."""
    if targets is None or not blocking.whole or not all(target.direct for target in targets):
        return None
    codes, scale, *micro = (target.array for target in targets)
    rows = codes.reshape(-1, blocking.size)
    return BlockFields(rows, scale.reshape(-1), micro[0].reshape(-1) if micro else None)


def tensor_scale_of(amax: float, dtype: ScaledBlock, rule: str) -> float:
    """amax over the largest block scale times element; 1 where there is nothing to scale.

    One float32 division, correctly rounded, but never to 0: to the smallest float32 instead; `nvidia` takes
    the reciprocal of the reciprocal.
    """
    with ieee_arithmetic():
        largest = np.float32(dtype.largest_under(rule))
        found = np.float32(amax) / largest
        if rule == "nvidia" and amax:
            found = np.float32(1) / np.minimum(largest / np.float32(amax), np.finfo(np.float32).max)
        return max(float(found), SMALLEST) if amax else 1.0
