"""Block formats whose rows of blocks share a scale, as NVFP4 of 16 x 16 (docs/formats.md §8).

The rows of a tile are put into one long block of the same facts, so that every kernel finds its scale; then
each row keeps its codes and a copy of that scale.  What comes out is an ordinary tensor of the format.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import numpy as np

from numerics.backends.host import random_bits
from numerics.backends.host.tensors import is_tensor
from numerics.formats.block import Block, Blocks, ElementBlock, PackedBlocks
from numerics.formats.errors import NumericsError, said
from numerics.formats.protocol import Spec
from numerics.formats.rounding import BlockOptions, Draw


class Tiles:
    """The last two axes of a tensor as tiles of rows x columns; those at the end are filled with zeros.

    It moves elements of NumPy arrays and of torch tensors, and computes nothing.
    """

    def __init__(self, shape: tuple[int, ...], rows: int, columns: int) -> None:
        if len(shape) < 2:
            raise NumericsError(f"per_block needs two axes; shape {said(tuple(shape))} has {len(shape)}")
        self.shape, self.rows, self.columns = tuple(shape), min(rows, max(shape[-2], 1)), columns

    @property
    def _grid(self) -> tuple[int, int]:
        """Tiles of the two axes."""
        return -(-self.shape[-2] // self.rows), -(-self.shape[-1] // self.columns)

    def cut(self, x: Any) -> Any:
        """x as (tiles, rows * columns)."""
        (down, across), outer = self._grid, self.shape[:-2]
        whole = (*outer, down * self.rows, across * self.columns)
        if whole != self.shape:
            filled = x.new_zeros(whole) if is_tensor(x) else np.zeros(whole, x.dtype)
            filled[..., : self.shape[-2], : self.shape[-1]] = x
            x = filled
        x = x.reshape(*outer, down, self.rows, across, self.columns).swapaxes(-3, -2)
        return x.reshape(-1, self.rows * self.columns)

    def join(self, tiles: Any) -> Any:
        """The inverse of cut, without what was filled in."""
        (down, across), outer = self._grid, self.shape[:-2]
        x = tiles.reshape(*outer, down, across, self.rows, self.columns).swapaxes(-3, -2)
        x = x.reshape(*outer, down * self.rows, across * self.columns)
        x = x[..., : self.shape[-2], : self.shape[-1]]
        return _in_order(x)

    def each_row(self, scale: Any) -> Any:
        """The scales of the tiles, in the shape of those of blocks: each once a row."""
        (down, across), outer = self._grid, self.shape[:-2]
        scale = scale.reshape(*outer, down, 1, across)
        wide = (*outer, down, self.rows, across)
        spread: Any = scale.expand(wide) if is_tensor(scale) else np.broadcast_to(scale, wide)
        spread = spread.reshape(*outer, down * self.rows, across)[..., : self.shape[-2], :]
        return spread.contiguous().clone() if is_tensor(spread) else np.array(spread, order="C")  # its own


def _in_order(x: Any) -> Any:
    return x.contiguous() if is_tensor(x) else np.ascontiguousarray(x)


@lru_cache(maxsize=256)
def tile_format(d: Block, rows: int) -> Block:
    """The same format with all elements of a tile in one block."""
    if not isinstance(d, ElementBlock):
        raise NumericsError(f"{d}: its scales lie among the codes of each row, which cannot share one")
    name = f"tile{rows}x{d.block}_{d.element}_{d.scale}"
    return replace(d, name=name, block=rows * d.block)


def quantize_blocks(backend: Any, x: Any, spec: Spec, options: BlockOptions) -> PackedBlocks:
    """`encode` of the tensor's blocks or tiles, as it is stored."""
    if spec.rows == 1:
        return cast(PackedBlocks, backend.quantize_blocks(x, spec.block, spec.axis or 0, options))
    tiles = Tiles(tuple(x.shape), spec.rows, spec.block.block)
    d = tile_format(spec.block, tiles.rows)
    made = backend.encode_blocks(tiles.cut(x), d, -1, _in_tiles(options, tiles, x))
    codes, scale = tiles.join(made.codes), tiles.each_row(made.scale)
    packed = backend.pack_blocks(Blocks(spec.block, -1, codes, scale, None, made.tensor_scale))
    return PackedBlocks(spec.block, -1, tiles.shape, packed, scale, made.tensor_scale)


def round_blocks(backend: Any, x: Any, spec: Spec, options: BlockOptions) -> Any:
    """The values of the same, in x's type and shape."""
    if spec.rows == 1:
        return backend.round_blocks(x, spec.block, spec.axis or 0, options, None)
    tiles = Tiles(tuple(x.shape), spec.rows, spec.block.block)
    d = tile_format(spec.block, tiles.rows)
    return tiles.join(backend.round_blocks(tiles.cut(x), d, -1, _in_tiles(options, tiles, x), None))


def _in_tiles(options: BlockOptions, tiles: Tiles, x: Any) -> BlockOptions:
    """The options with the random bits where the elements went: a draw depends on an element's place."""
    if options.draw == Draw():
        return options
    given = options.draw.bits.cpu() if is_tensor(options.draw.bits) else options.draw.bits
    drawn = random_bits.bits(options.draw._replace(bits=given), tiles.shape)
    bits: Any = tiles.cut(cast(Any, drawn).reshape(tiles.shape))
    if is_tensor(x):
        import torch  # which is there, since a tensor came

        bits = torch.from_numpy(bits).to(x.device)
    return options._replace(draw=Draw(None, bits))
