"""Microexponent blocks as bytes and back: the layout of docs/layout.md, by any executor's packing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Array, BlockFields, Executor
from numerics.formats.block import Block, TieredBlock
from numerics.formats.packing import planes


def pack_micro(executor: Executor, fields: BlockFields, d: Block) -> NDArray[np.uint8]:
    """Whole blocks, one after the other: planes of the codes, and what blocks share (`shared_bytes`)."""
    parts = [_plane(executor, fields.codes, first, width) for first, width in planes(d.element_bits)]
    return np.concatenate([*parts, shared_bytes(fields, d)], axis=1).reshape(-1)


def shared_bytes(fields: BlockFields, d: Block) -> NDArray[np.uint8]:
    """What blocks share, a row each: microexponents and exponent; of two tiers the scale before them."""
    assert fields.microexponents is not None
    if not isinstance(d, TieredBlock):
        return np.stack([fields.microexponents, fields.scale], axis=1)
    word = fields.scale.astype("<u4") | fields.microexponents.astype("<u4") << np.uint32(8)
    held: NDArray[np.uint8] = word[:, None].view(np.uint8)
    return held[:, : 1 + d.micro_bytes]


def shared_fields(rows: NDArray[np.uint8], d: Block) -> tuple[Array, Array]:
    """The scales and microexponents of such rows, which end with them."""
    if not isinstance(d, TieredBlock):
        return rows[:, -1].copy(), rows[:, -2].copy()
    held = rows[:, -1 - d.micro_bytes :].astype(np.uint32)
    micro = (held[:, 1:] << (8 * np.arange(d.micro_bytes, dtype=np.uint32))).sum(1, dtype=np.uint32)
    return held[:, 0].astype(np.uint8), micro.astype(d.micro_dtype)


def _plane(executor: Executor, codes: NDArray[Any], first: int, width: int) -> NDArray[np.uint8]:
    """Some bits of the codes, each block's ending on a byte of its own."""
    n, block = codes.shape
    filled = np.zeros((n, -(-block // 8) * 8), np.uint8 if width <= 8 else np.uint16)
    filled[:, :block] = (codes >> first) & ((1 << width) - 1)
    packed = executor.pack(filled.reshape(-1), width).reshape(n, filled.shape[1] * width // 8)
    return packed[:, : -(-block * width // 8)]


def unpack_micro(executor: Executor, rows: NDArray[np.uint8], d: Block) -> BlockFields:
    """The fields of blocks, a row of bytes each."""
    n = len(rows)
    codes = np.zeros((n, -(-d.block // 8) * 8), d.code_dtype)
    start = 0
    for first, width in planes(d.element_bits):
        size = -(-d.block * width // 8)
        filled = np.zeros((n, codes.shape[1] * width // 8), np.uint8)
        filled[:, :size] = rows[:, start : start + size]
        plane = executor.unpack(filled.reshape(-1), codes.size, width).reshape(codes.shape)
        codes |= plane.astype(codes.dtype) << first
        start += size
    return BlockFields(codes[:, : d.block].copy(), *shared_fields(rows, d))
