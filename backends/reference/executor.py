"""The exact judge on arrays: what a test compares a backend with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from numerics.backends.host.ieee import inside_ieee
from numerics.backends.reference import bits as bit_strings
from numerics.backends.reference.blocks import (
    decode_block,
    decode_micro_block,
    decode_scaled_block,
    decode_tiered_block,
    encode_block,
    encode_micro_block,
    encode_scaled_block,
    encode_tiered_block,
)
from numerics.backends.reference.breakpoints import breakpoints
from numerics.backends.reference.exact import Exact, encode, value
from numerics.formats.block import Block, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.dtype import Element
from numerics.formats.rounding import BlockOptions

Array = npt.NDArray[Any]
BlockFields = tuple[Array, Array, Array | None]


def as_float32(numbers: list[Exact]) -> npt.NDArray[np.float32]:
    """Exact float32 values as an array; NaN is 0x7FC00000 with its sign."""
    return np.array([float(x) for x in numbers], np.float64).astype(np.float32)


@lru_cache(maxsize=1024)
def steps(dtype: Element, rounding: str, overflow: str, negative: bool) -> tuple[Array, Array]:
    """An encoder's breakpoints of one sign as arrays: first magnitude bits (uint32), codes."""
    firsts, codes = zip(*breakpoints(dtype, rounding, overflow, negative), strict=True)
    return np.array(firsts, np.uint32), np.array(codes, dtype.code_dtype)


SIGN = np.uint32(1 << 31)
HALF = np.uint32(16)
"""Bits of half a float32 number: the upper ones say where it is looked up."""
WORTH = 4096  # numbers from which on a table of all high halves is made


@dataclass(frozen=True)
class Ladder:
    """What float32 numbers become, by their bits: the first bits of each step, rising, and its code.

    Negative numbers, whose bits are the larger ones, come behind the others.
    """

    firsts: npt.NDArray[np.uint32]
    codes: Array

    @classmethod
    def of(cls, signs: Iterable[tuple[Array, Array]]) -> Ladder:
        """signs: the first magnitude bits, from 0 on, and codes, of positive and then of negative numbers."""
        (firsts, codes), (below, of_below) = signs
        return cls(np.concatenate([firsts, below | SIGN]), np.concatenate([codes, of_below]))

    @cached_property
    def table(self) -> tuple[Array, Array] | None:
        """Of each high half of bits its one step, where it has one, and the codes before and behind that.

        None where some half has more than one step.
        """
        halves = np.arange(1 << 16, dtype=np.uint64) << np.uint64(16)
        ends = np.searchsorted(self.firsts, np.append(halves, 1 << 32), "right")
        before = np.searchsorted(self.firsts, np.append(halves, 1 << 32)[1:], "left") - 1
        at = ends[:-1] - 1
        if (before - at > 1).any():
            return None
        return self.firsts[before], np.stack([self.codes[at], self.codes[before]], axis=1).reshape(-1)

    def __call__(self, x: npt.NDArray[np.float32]) -> Array:
        """The codes of float32 numbers."""
        bits = np.ascontiguousarray(x).view(np.uint32).reshape(x.shape)
        if x.size < WORTH or self.table is None:
            return np.asarray(self.codes[np.searchsorted(self.firsts, bits, "right") - 1])
        first, codes = self.table
        half = bits >> HALF
        return np.asarray(codes[2 * half + (bits >= first[half])])


@lru_cache(maxsize=64)
def _ladder(steps_of: Callable[..., tuple[Array, Array]], asked: tuple[Any, ...]) -> Ladder:
    return Ladder.of(steps_of(*asked, negative) for negative in (False, True))


def look_up(x: npt.NDArray[np.float32], steps_of: Callable[..., tuple[Array, Array]], *asked: Any) -> Array:
    """The codes of float32 inputs, by the breakpoints that steps_of(*asked, negative) has for each sign."""
    return _ladder(steps_of, asked)(x)


@lru_cache(maxsize=256)
@inside_ieee
def _values(dtype: Element) -> npt.NDArray[np.float32]:
    return as_float32([value(code, dtype) for code in range(1 << dtype.bits)])


FEW = 512  # codes that cost less one by one than a table of 2**16


@inside_ieee
def _values_of(codes: list[int], dtype: Element) -> npt.NDArray[np.float32]:
    return as_float32([value(code, dtype) for code in codes])


class ReferenceExecutor:
    """Elements and blocks in NumPy arrays, by the exact judge.  Arguments arrive checked.

    >>> from numerics.formats import fp4
    >>> ReferenceExecutor().encode(np.float32([0.7, -9.0]), fp4, "half_even", "saturate", None)
    array([ 1, 15], dtype=uint8)
    """

    name = "reference"

    def encode(self, x: Array, dtype: Element, rounding: str, overflow: str, random: Array | None) -> Array:
        """Codes of a flat float32 or float64 array; random: uint32, for stochastic rounding."""
        if x.dtype == np.float32 and random is None:
            return look_up(x, steps, dtype, rounding, overflow)
        draws = [None] * x.size if random is None else random.tolist()
        codes = [encode(v, dtype, rounding, overflow, r) for v, r in zip(x.tolist(), draws, strict=True)]
        return np.array(codes, dtype.code_dtype)

    def decode(self, codes: Array, dtype: Element) -> Array:
        """float32 values of a flat array of codes."""
        if dtype.bits > 8 and codes.size < FEW:
            return _values_of(codes.tolist(), dtype)
        return _values(dtype)[codes]

    def encode_blocks(self, x: Array, dtype: Block, options: BlockOptions) -> BlockFields:
        """Codes [n, block], scales [n] and microexponents [n] of float32 [n, block]."""
        draws = [None] * len(x) if options.draw.bits is None else options.draw.bits.tolist()
        rows = [_encode_row(row, dtype, options, r) for row, r in zip(x.tolist(), draws, strict=True)]
        scales, micro, codes = zip(*rows, strict=True) if rows else ((), (), ())
        return (
            np.array(codes, dtype.code_dtype).reshape(x.shape),
            np.array(scales, dtype.scale_code_dtype),
            np.array(micro, dtype.micro_dtype) if dtype.sub_blocks else None,
        )

    def decode_blocks(
        self,
        codes: Array,
        scale: Array,
        microexponents: Array | None,
        tensor_scale: float | None,
        dtype: Block,
    ) -> Array:
        """float32 values [n, block]; those of a NaN block are 0x7FC00000."""
        micro = [0] * len(codes) if microexponents is None else microexponents.tolist()
        values: list[Exact] = []
        for row, byte, shifts in zip(codes.tolist(), scale.tolist(), micro, strict=True):
            values += _decode_row(row, byte, shifts, tensor_scale, dtype)
        return as_float32(values).reshape(codes.shape)

    def pack(self, codes: Array, bits: int) -> Array:
        """A flat array of codes as bytes."""
        return np.frombuffer(bit_strings.pack(codes.tolist(), bits), np.uint8).copy()

    def unpack(self, packed: Array, count: int, bits: int) -> Array:
        """Bytes as a flat array of codes."""
        codes = bit_strings.unpack(packed.tobytes(), count, bits)
        return np.array(codes, np.uint8 if bits <= 8 else np.uint16)

    def pack_blocks(self, codes: Array, scale: Array, microexponents: Array | None, dtype: Block) -> Array:
        """Microexponent blocks as bytes, one after the other; of the others, the codes only."""
        if microexponents is None:
            return self.pack(codes.ravel(), dtype.element_bits)
        rows = zip(scale.tolist(), microexponents.tolist(), codes.tolist(), strict=True)
        pack: Callable[..., bytes] = bit_strings.pack_micro_block
        if isinstance(dtype, TieredBlock):
            pack = partial(bit_strings.pack_tiered_block, tiers=dtype.micro_bits)
        packed = [pack(*row, dtype.element_bits) for row in rows]
        return np.frombuffer(b"".join(packed), np.uint8).copy()

    def unpack_blocks(self, packed: Array, n: int, dtype: Block) -> tuple[Array, Array, Array]:
        """The codes, exponents and microexponents of n microexponent blocks."""
        tiered = isinstance(dtype, TieredBlock)
        unpack = bit_strings.unpack_tiered_block if tiered else bit_strings.unpack_micro_block
        blocks = [unpack(row.tobytes(), dtype.block, dtype.element_bits) for row in packed.reshape(n, -1)]
        codes = np.array([codes for _, _, codes in blocks], dtype.code_dtype)
        return (
            codes.reshape(n, dtype.block),
            np.array([exponent for exponent, _, _ in blocks], np.uint8),
            np.array([micro for _, micro, _ in blocks], dtype.micro_dtype),
        )


def _encode_row(
    row: list[float], dtype: Block, options: BlockOptions, randoms: list[int] | None
) -> tuple[int, int, list[int]]:
    """Scale, microexponents and codes of one block."""
    if isinstance(dtype, TieredBlock):
        return encode_tiered_block(row, dtype, options.mode, randoms)
    if isinstance(dtype, MicroexponentBlock):
        return encode_micro_block(row, dtype, options.mode, randoms)
    if isinstance(dtype, MXBlock):
        scale, codes = encode_block(row, dtype, options.scale_rule, options.mode, randoms)
    else:
        scale, codes = encode_scaled_block(row, cast(ScaledBlock, dtype), options, randoms)
    return scale, 0, codes


def _decode_row(
    row: list[int], scale: int, micro: int, tensor_scale: float | None, dtype: Block
) -> list[Exact]:
    """The values of one block."""
    if isinstance(dtype, TieredBlock):
        return decode_tiered_block(scale, micro, row, dtype)
    if isinstance(dtype, MicroexponentBlock):
        return decode_micro_block(scale, micro, row, dtype)
    if isinstance(dtype, MXBlock):
        return decode_block(scale, row, dtype)
    whole = 1.0 if tensor_scale is None else tensor_scale
    return decode_scaled_block(scale, row, cast(ScaledBlock, dtype), whole)
