"""Fused operations as two plain ones: what an executor that has no kernel for them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host import product
from numerics.backends.host.executor import (
    Affine,
    Array,
    BlockFields,
    Codes,
    Executor,
    Measuring,
    RowFunction,
)
from numerics.backends.host.hadamard import Rotation, rotated
from numerics.backends.host.micro_packing import pack_micro, unpack_micro
from numerics.backends.host.product import Int8Rows, Matrix
from numerics.backends.host.sums import error_sums
from numerics.formats.block import Block, MicroexponentBlock
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.floats import e8m0
from numerics.formats.rounding import BlockOptions, Rounding

TILE = 1 << 15  # codes that are unpacked at a time


class Composed(Executor):
    """An Executor whose packed and one-pass operations follow from the others."""

    def by_rows(
        self, how: RowFunction, inputs: Sequence[Array], numbers: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        """Raises NumericsError: what has no shared arithmetic of its own has no function of rows."""
        raise NumericsError(f"backend {self.name!r} has no kernel over rows for {how.name}")

    def by_blocks(self, how: RowFunction, x: Array, outputs: Sequence[Array]) -> None:
        """Raises NumericsError, as by_rows does."""
        raise NumericsError(f"backend {self.name!r} has no kernel over blocks for {how.name}")

    def error_sums(self, x: Array, y: Array) -> NDArray[np.float64]:
        """Figures of each chunk, by NumPy."""
        return error_sums(x, y)

    def measuring(self, data: Array) -> Measuring | None:
        """None: sums are found of what was encoded."""
        return None

    def error_sums_of_blocks(
        self,
        x: NDArray[np.float32],
        packed: NDArray[np.uint8],
        scale: Codes | None,
        dtype: Block,
        tensor_scale: float | None,
    ) -> NDArray[np.float64] | None:
        """None: they are decoded first."""
        return None

    def error_sums_of_rows(
        self, x: NDArray[np.float32], packed: NDArray[np.uint8], dtype: Element, affine: Affine
    ) -> NDArray[np.float64] | None:
        """None: they are decoded first."""
        return None

    def each(self, work: Callable[[int], object], count: int) -> None:
        """One after another."""
        for place in range(count):
            work(place)

    def rotate(self, x: Array, rotation: Rotation) -> Array:
        """Rows rotated, by NumPy."""
        return rotated(x, rotation)

    def products(self, x: NDArray[np.float32] | Int8Rows, matrix: Matrix) -> NDArray[np.float32]:
        """Sums of the rows of x with those of a matrix, by NumPy (product.py)."""
        values, scales = self.operands(matrix)
        if isinstance(x, Int8Rows):
            return product.products_of_int8(x, values, scales, matrix.order)
        return product.products(x, values, scales, matrix.order)

    def operands(self, matrix: Matrix) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The elements' values, less their zero points, and the scales of their groups."""
        if isinstance(matrix.block, MicroexponentBlock):
            return self._operands_of_blocks(matrix, matrix.block)
        if matrix.element is None:
            return matrix.packed, None
        (rows, length), order = matrix.shape, matrix.order
        flat = np.empty(rows * length, np.float32)
        self.decode_packed(matrix.packed, matrix.element, flat)
        values: NDArray[np.float32] = flat.reshape(rows, length)
        if matrix.zero is not None:
            zero = matrix.zero.astype(np.float32).reshape(rows if matrix.zero.ndim else 1, -1)
            values = values - (np.repeat(zero, order.group, axis=1)[:, :length] if order.group else zero)
        if not order.group or matrix.shared is None:
            return values, None
        scales = matrix.shared
        if matrix.block is not None:
            scales = np.empty(matrix.shared.size, np.float32)
            self.decode(matrix.shared.reshape(-1), matrix.block.scale, scales)
            scales = scales * np.float32(matrix.unit)
        return values, scales.reshape(rows, -1)

    def _operands_of_blocks(
        self, matrix: Matrix, d: MicroexponentBlock
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same of blocks with microexponents: integers times 2**-microexponent, and scales."""
        fields = unpack_micro(self, matrix.packed.reshape(-1, d.bytes_per_block), d)
        assert fields.microexponents is not None
        codes, micro = fields.codes.astype(np.int32), fields.microexponents.astype(np.int32)[:, None]
        magnitude = codes & ((1 << d.mantissa) - 1)
        shift = micro >> (np.arange(d.block) // d.sub_block) & 1
        values = np.ldexp(np.where(codes >> d.mantissa, -magnitude, magnitude).astype(np.float32), -shift)
        scales = np.empty(fields.scale.size, np.float32)
        self.decode(fields.scale.reshape(-1), e8m0, scales)
        rows, length = matrix.shape
        return values.reshape(rows, -1)[:, :length], scales.reshape(rows, -1) * np.float32(matrix.unit)

    def encode_packed(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Codes of x, as one string of bits, into out."""
        codes = np.empty(x.size, dtype.code_dtype)
        self.encode(x, dtype, rounding, codes)
        out[...] = self.pack(codes, dtype.bits)

    def decode_packed(self, packed: NDArray[np.uint8], dtype: Element, out: NDArray[np.float32]) -> None:
        """Values of a string of bits into out."""
        self.decode(self.unpack(packed, out.size, dtype.bits), dtype, out)

    def encode_blocks_packed(
        self, x: Array, dtype: Block, options: BlockOptions
    ) -> tuple[NDArray[np.uint8], Codes | None]:
        """Blocks of the rows of x as bytes, and the scales that stand beside them."""
        fields = self.encode_blocks(x, dtype, options)
        if dtype.scale_beside:
            return self.pack(fields.codes.reshape(-1), dtype.element_bits), fields.scale
        return pack_micro(self, fields, dtype), None

    def decode_blocks_packed(
        self,
        packed: NDArray[np.uint8],
        scale: Codes | None,
        dtype: Block,
        tensor_scale: float | None,
        out: NDArray[np.float32],
    ) -> None:
        """Values of such bytes into the rows of out."""
        if scale is None:
            fields = unpack_micro(self, packed.reshape(-1, dtype.bytes_per_block), dtype)
        else:
            codes = self.unpack(packed, out.size, dtype.element_bits).reshape(out.shape)
            fields = BlockFields(codes, scale, None)
        self.decode_blocks(fields, dtype, tensor_scale, out)

    def encode_affine_packed(
        self, x: Array, dtype: Element, affine: Affine, rounding: Rounding, out: Array | None = None
    ) -> NDArray[np.uint8]:
        """The codes of encode_affine as one string of bits."""
        codes = self.encode_affine(x, dtype, affine, rounding)
        return _into(out, self.pack(codes.reshape(-1), dtype.bits))

    def decode_affine_packed(
        self, packed: NDArray[np.uint8], dtype: Element, affine: Affine, out: Array
    ) -> None:
        """Values of a string of bits, into out: some at a time, so that few codes are in memory."""
        for first, place, owners in _tiles(out.shape):
            tile = out[place]
            codes = self._codes_from(packed, first, tile.size, dtype.bits).reshape(tile.shape)
            own = Affine(*(None if part is None else part[owners] for part in affine))
            tile[...] = self.decode_affine(codes, dtype, own)

    def _codes_from(self, packed: NDArray[np.uint8], first: int, count: int, bits: int) -> Codes:
        """Codes from the middle of a string of bits: eight of them always end on a byte."""
        before = first % 8
        span = slice((first - before) * bits // 8, -(-(first + count) * bits // 8))
        return self.unpack(packed[span], count + before, bits)[before:]

    def round_affine(
        self, x: Array, dtype: Element, affine: Affine, rounding: Rounding, out: Array | None = None
    ) -> Array:
        """decode_affine(encode_affine(x)), in the type of the scale."""
        codes = self.encode_affine(x, dtype, affine, rounding)
        return _into(out, self.decode_affine(codes, dtype, affine))


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[int, tuple[slice, ...], slice]]:
    """Parts of [rows, n] or [batches, rows, n] that lie together: the first element, the place, whose
    numbers they take.
    """
    rows, n = shape[-2:]
    step = max(TILE // max(n, 1), 1)
    if len(shape) == 3:
        for batch in range(shape[0]):
            for row in range(0, rows, step):
                place = slice(batch, batch + 1), slice(row, row + step)
                yield (batch * rows + row) * n, place, place[0]
        return
    width = max(n, 1) if step > 1 else TILE
    for row in range(0, rows, step):
        for at in range(0, n, width):
            place = slice(row, row + step), slice(at, at + width)
            yield row * n + at, place, place[0]


def _into(out: Array | None, made: Array) -> Array:
    if out is None:
        return made
    out[...] = made
    return out
