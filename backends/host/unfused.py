"""Fused operations as two plain ones: what an executor that has no kernel for them does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Affine, Array, BlockFields, Codes, Executor
from numerics.backends.host.micro_packing import pack_micro, unpack_micro
from numerics.backends.host.sums import error_sums
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.rounding import BlockOptions, Rounding

TILE = 1 << 15  # codes that are unpacked at a time


class Composed(Executor):
    """An Executor whose packed and one-pass operations follow from the others."""

    def error_sums(self, x: Array, y: Array) -> NDArray[np.float64]:
        """Figures of each chunk, by NumPy."""
        return error_sums(x, y)

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
