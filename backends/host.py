"""What every executor on the host shares and none should repeat: everything but the arithmetic.

Kinds of input, checks, `out`, axes, padding and random bits, around an `Executor`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends import randomness
from numerics.backends.affine import HostAffine
from numerics.backends.arrays import Target, as_shape, check_blocks, check_bytes, take, take_codes
from numerics.backends.blocking import Blocking, check_axis
from numerics.backends.environment import ieee_arithmetic
from numerics.backends.executor import Array, BlockFields, BlockOptions, Executor
from numerics.backends.memory import empty
from numerics.backends.micro import pack_micro, unpack_micro
from numerics.backends.tensors import as_array, is_tensor, on_host
from numerics.backends.words import as_float32, name_of, to_float32
from numerics.formats.backend import Draw
from numerics.formats.block import Block, Blocks
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError


class HostBackend(HostAffine):
    """A Backend (formats/backend.py) for NumPy arrays, Python numbers and torch tensors on the CPU."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.name = executor.name

    def check(self) -> None:
        """The host is there."""

    def owns(self, x: Any) -> bool:
        """NumPy arrays and scalars, Python numbers, nested lists, torch tensors on the CPU."""
        return isinstance(x, (np.ndarray, np.generic, int, float, complex, list, tuple)) or on_host(x)

    def prepare(self, x: Any) -> tuple[Array, str]:
        """x as float32 or float64, and the name of what it was: a float type, or `python`."""
        data, _ = take(x)
        named = name_of(data.dtype) if hasattr(x, "dtype") else "python"
        return to_float32(data), named

    def error_sums(self, x: Array, y: Array) -> NDArray[np.float64]:
        """What backends/sums.py finds of arrays of any float type and byte order, and of one shape."""
        wide = (to_float32(array) for array in (x, y))
        return self.executor.error_sums(
            *(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1) for array in wide)
        )

    # ---- elements --------------------------------------------------------------------------

    def encode(self, x: Any, dtype: Element, rounding: str, overflow: str, draw: Draw, out: Any) -> Any:
        """Element.encode."""
        data, give = take(x)
        random = randomness.bits(draw, data.shape)
        target = Target(out, data.shape, np.dtype(dtype.code_dtype), data)
        self.executor.encode(data.reshape(-1), dtype, rounding, overflow, random, target.flat)
        return give(target.done())

    def decode(self, codes: Any, dtype: Element, out: Any) -> Any:
        """Element.decode."""
        data, give = take_codes(codes, dtype.bits, dtype.code_dtype, dtype.name)
        target = Target(out, data.shape, np.dtype(np.float32), data)
        self.executor.decode(data.reshape(-1), dtype, target.flat)
        return give(target.done())

    def round(self, x: Any, dtype: Element, rounding: str, overflow: str, draw: Draw, out: Any) -> Any:
        """Element.round."""
        data, give = take(x)
        random = randomness.bits(draw, data.shape)
        target = Target(out, data.shape, data.dtype, data)
        self.executor.round(data.reshape(-1), dtype, rounding, overflow, random, target.flat)
        return give(target.done())

    def pack(self, codes: Any, dtype: Element) -> Any:
        """Element.pack."""
        data, give = take_codes(codes, dtype.bits, dtype.code_dtype, dtype.name)
        return give(self.executor.pack(data.reshape(-1), dtype.bits))

    def unpack(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Element.unpack."""
        data, give = take_codes(packed, 8, "uint8", "packed bytes")
        shape = as_shape(shape)
        return give(self._unpack(data.reshape(-1), math.prod(shape), dtype.bits).reshape(shape))

    def _unpack(self, packed: Array, count: int, bits: int) -> Array:
        check_bytes(packed.size, count, bits)
        return self.executor.unpack(packed, count, bits)

    def encode_packed(self, x: Any, dtype: Element, rounding: str, overflow: str, draw: Draw) -> Any:
        """Element.encode_packed."""
        data, give = take(x)
        random = randomness.bits(draw, data.shape)
        out = empty(-(-data.size * dtype.bits // 8), np.uint8)
        self.executor.encode_packed(data.reshape(-1), dtype, rounding, overflow, random, out)
        return give(out)

    def decode_packed(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Element.decode_packed."""
        data, give = take_codes(packed, 8, "uint8", "packed bytes")
        out = empty(as_shape(shape))
        check_bytes(data.size, out.size, dtype.bits)
        self.executor.decode_packed(data.reshape(-1), dtype, out.reshape(-1))
        return give(out)

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(
        self,
        x: Any,
        dtype: Block,
        axis: int,
        rule: str,
        rounding: str,
        tensor_scale: float | None,
        draw: Draw,
        out: Blocks | None = None,
    ) -> Blocks:
        """Block.encode."""
        data, give = take(x)
        blocking = Blocking(data.shape, check_axis(axis, data.shape), dtype.block)
        targets = self._block_targets(out, dtype, blocking, axis)
        rows, options = self._rows(data, dtype, blocking, rule, rounding, tensor_scale, draw)
        fields = self.executor.encode_blocks(rows, dtype, options, _in_place(targets, blocking))
        micro = None if fields.microexponents is None else give(blocking.shared(fields.microexponents))
        codes, scale = give(blocking.elements(fields.codes)), give(blocking.shared(fields.scale))
        if targets is None:
            return Blocks(dtype, axis, codes, scale, micro, options.tensor_scale)
        for target, found in zip(targets, (codes, scale, micro), strict=True):
            if target is not None and not np.shares_memory(target, found):
                target[...] = found
        return Blocks(dtype, axis, *targets, options.tensor_scale)

    @staticmethod
    def _block_targets(
        out: Blocks | None, dtype: Block, blocking: Blocking, axis: int
    ) -> tuple[Array, Array, Array | None] | None:
        """The caller's arrays, when they fit."""
        if out is None:
            return None
        if out.dtype is not dtype or out.axis != axis:
            raise NumericsError(
                f"out must be Blocks of {dtype} along axis {axis}, not {out.dtype}, {out.axis}"
            )
        expected = (blocking.shape, blocking.shared_shape, blocking.shared_shape)
        codes, scale, micro = (
            as_array(a) if is_tensor(a) else a for a in (out.codes, out.scale, out.microexponents)
        )
        arrays = (codes, scale, micro)
        kinds = (dtype.code_dtype, dtype.scale.code_dtype if dtype.scale else "uint8", "uint8")
        for name, array, shape, kind in zip(
            ("codes", "scale", "microexponents"), arrays, expected, kinds, strict=True
        ):
            if (array is None and dtype.family == "micro") or not (
                array is None
                or (isinstance(array, np.ndarray) and (array.shape, array.dtype) == (shape, kind))
            ):
                raise NumericsError(f"out.{name} must be a {kind} array of shape {shape}")
        return arrays

    def _rows(
        self, data: Array, dtype: Block, blocking: Blocking, rule: str, rounding: str,
        tensor_scale: float | None, draw: Draw,
    ) -> tuple[Array, BlockOptions]:  # fmt: skip
        random = randomness.bits(draw, data.shape)
        random = None if random is None else blocking.rows(random.reshape(data.shape))
        if dtype.family == "scaled" and tensor_scale is None:
            tensor_scale = found_tensor_scale(data, dtype)
        return blocking.rows(data), BlockOptions(rule, rounding, tensor_scale, random)

    def quantize_blocks(
        self,
        x: Any,
        dtype: Block,
        axis: int,
        rule: str,
        rounding: str,
        tensor_scale: float | None,
        draw: Draw,
    ) -> tuple[Array, Array | None, float | None]:
        """Block.encode as stored: packed bytes, the scales beside them or None, the tensor's scale."""
        data, _ = take(x)
        blocking = Blocking(data.shape, check_axis(axis, data.shape), dtype.block)
        if dtype.family == "micro" or blocking.whole:
            rows, options = self._rows(data, dtype, blocking, rule, rounding, tensor_scale, draw)
            packed, scale = self.executor.encode_blocks_packed(rows, dtype, options)
            return packed, None if scale is None else blocking.shared(scale), options.tensor_scale
        blocks = self.encode_blocks(data, dtype, axis, rule, rounding, tensor_scale, draw)
        return self.pack_blocks(blocks), blocks.scale, blocks.tensor_scale

    def dequantize_blocks(
        self, packed: Array, scale: Array | None, dtype: Block, shape: tuple[int, ...], axis: int,
        tensor_scale: float | None,
    ) -> NDArray[np.float32]:  # fmt: skip
        """float32 values of what quantize_blocks made."""
        blocking = Blocking(shape, check_axis(axis, shape), dtype.block)
        if dtype.family != "micro" and not blocking.whole:
            blocks = self.unpack_blocks(packed, dtype, shape, axis, scale, tensor_scale)
            return np.asarray(self.decode_blocks(blocks, None))
        rows = empty((blocking.count, dtype.block))
        shared = None if scale is None else blocking.shared_rows(scale, "scale")
        self.executor.decode_blocks_packed(packed, shared, dtype, tensor_scale, rows)
        return blocking.elements(rows)

    def decode_blocks(self, blocks: Blocks, out: Any) -> Any:
        """Block.decode."""
        fields, blocking, give, codes = self._fields(blocks)
        rows = empty(fields.codes.shape)
        self.executor.decode_blocks(fields, blocks.dtype, blocks.tensor_scale, rows)
        target = Target(out, codes.shape, np.dtype(np.float32), codes)
        return give(target.done(blocking.elements(rows)))

    def _fields(self, blocks: Blocks) -> tuple[BlockFields, Blocking, Callable[[Array], Any], Array]:
        d = blocks.dtype
        codes, give = take_codes(blocks.codes, d.element_bits, d.code_dtype, d.name)
        blocking = Blocking(codes.shape, check_axis(blocks.axis, codes.shape), d.block)
        width, kind = (8, "uint8") if d.scale is None else (d.scale.bits, d.scale.code_dtype)
        scale = blocking.shared_rows(take_codes(blocks.scale, width, kind, f"{d.name} scale")[0], "scale")
        micro = None
        if d.family == "micro":
            taken = take_codes(
                blocks.microexponents,
                d.block // (d.sub_block or 1),
                "uint8",
                f"{d.name} microexponents",
            )
            micro = blocking.shared_rows(taken[0], "microexponents")
        return BlockFields(blocking.rows(codes), scale, micro), blocking, give, codes

    def round_blocks(
        self,
        x: Any,
        dtype: Block,
        axis: int,
        rule: str,
        rounding: str,
        tensor_scale: float | None,
        draw: Draw,
        out: Any,
    ) -> Any:
        """Block.round."""
        data, give = take(x)
        blocking = Blocking(data.shape, check_axis(axis, data.shape), dtype.block)
        rows, options = self._rows(data, dtype, blocking, rule, rounding, tensor_scale, draw)
        target = Target(out, data.shape, data.dtype, data)
        direct = target.array.reshape(rows.shape) if blocking.whole else None
        values = np.empty(rows.shape, data.dtype) if direct is None else direct
        self.executor.round_blocks(rows, dtype, options, values)
        return give(target.done(None if direct is not None else blocking.elements(values)))

    def pack_blocks(self, blocks: Blocks) -> Any:
        """Block.pack."""
        fields, _, give, codes = self._fields(blocks)
        d = blocks.dtype
        if d.family != "micro":
            return give(self.executor.pack(codes.reshape(-1), d.element_bits))
        return give(pack_micro(self.executor, fields, d))

    def unpack_blocks(
        self,
        packed: Any,
        dtype: Block,
        shape: Any,
        axis: int,
        scale: Any,
        tensor_scale: float | None,
    ) -> Blocks:
        """Block.unpack."""
        data, give = take_codes(packed, 8, "uint8", "packed bytes")
        shape = as_shape(shape)
        if dtype.family != "micro":
            if scale is None:
                raise NumericsError(f"{dtype.name}: the scales stand beside the packed codes; give scale=")
            codes = self._unpack(data.reshape(-1), math.prod(shape), dtype.element_bits)
            return Blocks(dtype, axis, give(codes.reshape(shape)), scale, None, tensor_scale)
        blocking = Blocking(shape, check_axis(axis, shape), dtype.block)
        check_blocks(data.size, blocking.count, dtype)
        fields = unpack_micro(self.executor, data.reshape(-1, dtype.bytes_per_block), dtype)
        assert fields.microexponents is not None
        shared = [give(blocking.shared(field)) for field in (fields.scale, fields.microexponents)]
        return Blocks(dtype, axis, give(blocking.elements(fields.codes)), *shared)


def _in_place(targets: tuple[Array, Array, Array | None] | None, blocking: Blocking) -> BlockFields | None:
    """The caller's arrays as rows, where rows are their memory."""
    if targets is None or not blocking.whole or not all(t is None or t.flags.c_contiguous for t in targets):
        return None
    codes, scale, micro = targets
    rows = codes.reshape(-1, blocking.size)
    return BlockFields(rows, scale.reshape(-1), None if micro is None else micro.reshape(-1))


def found_tensor_scale(data: Array, dtype: Block) -> float:
    """NVFP4's tensor scale, from the largest finite magnitude as float32 has it."""
    with ieee_arithmetic():
        x = as_float32(data)
        finite = np.abs(x[np.isfinite(x)])
        return tensor_scale_of(finite.max() if finite.size else 0.0, dtype)


def tensor_scale_of(amax: float, dtype: Block) -> float:
    """amax over the largest block scale times element; 1 where there is nothing to scale.

    One float32 division, correctly rounded.
    """
    assert dtype.element is not None
    assert dtype.scale is not None
    with ieee_arithmetic():
        largest = np.float32(dtype.element_unit * dtype.element.max * dtype.scale.max)
        return float(np.float32(amax) / largest) or 1.0
