"""Microexponent blocks as bytes and back: the layout of docs/layout.md, by any executor's packing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import BlockFields, Executor
from numerics.formats.block import Block
from numerics.formats.packing import planes


def pack_micro(executor: Executor, fields: BlockFields, d: Block) -> NDArray[np.uint8]:
    """Whole blocks, one after the other: planes of the codes, microexponents, exponent."""
    assert fields.microexponents is not None
    parts = [_plane(executor, fields.codes, first, width) for first, width in planes(d.element_bits)]
    shared = [fields.microexponents[:, None], fields.scale[:, None]]
    return np.concatenate(parts + shared, axis=1).reshape(-1)


def _plane(executor: Executor, codes: NDArray[Any], first: int, width: int) -> NDArray[np.uint8]:
    """Some bits of the codes, each block's ending on a byte of its own."""
    n, block = codes.shape
    filled = np.zeros((n, -(-block // 8) * 8), np.uint8)
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
    return BlockFields(codes[:, : d.block].copy(), rows[:, -1].copy(), rows[:, -2].copy())
