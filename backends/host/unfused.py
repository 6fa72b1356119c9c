"""Fused operations as two plain ones: what an executor that has no kernel for them does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Affine, Array, BlockFields, Codes, Executor
from numerics.backends.host.micro_packing import pack_micro, unpack_micro
from numerics.backends.host.sums import error_sums
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.rounding import BlockOptions


class Composed(Executor):
    """An Executor whose packed and one-pass operations follow from the others."""

    def error_sums(self, x: Array, y: Array) -> NDArray[np.float64]:
        """Figures of each chunk, by NumPy."""
        return error_sums(x, y)

    def encode_packed(
        self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None, out: Array
    ) -> None:
        """Codes of x, as one string of bits, into out."""
        codes = np.empty(x.size, dtype.code_dtype)
        self.encode(x, dtype, rounding, overflow, random, codes)
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
        self,
        x: Array,
        dtype: Element,
        affine: Affine,
        rounding: str,
        random: Array | None,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The codes of encode_affine as one string of bits."""
        codes = self.encode_affine(x, dtype, affine, rounding, random)
        return _into(out, self.pack(codes.reshape(-1), dtype.bits))

    def round_affine(
        self,
        x: Array,
        dtype: Element,
        affine: Affine,
        rounding: str,
        random: Array | None,
        out: Array | None = None,
    ) -> Array:
        """decode_affine(encode_affine(x)), in the type of the scale."""
        codes = self.encode_affine(x, dtype, affine, rounding, random)
        return _into(out, self.decode_affine(codes, dtype, affine))


def _into(out: Array | None, made: Array) -> Array:
    if out is None:
        return made
    out[...] = made
    return out
