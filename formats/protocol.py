"""What a backend must offer to the formats: arithmetic on data of its kind, on its device."""

from __future__ import annotations

from typing import Any, Protocol

from numerics.formats.block import Block, Blocks, PackedBlocks
from numerics.formats.dtype import Element
from numerics.formats.rounding import BlockOptions, Draw


class Backend(Protocol):
    """What a backend offers to formats: one method for each of theirs.

    Options arrive checked; data does not.  x, codes, packed, out: of the kind that the backend owns.  Each
    method returns arrays of that kind, in out where it is given, and raises NumericsError for data of a type,
    a shape or a range that cannot be.
    """

    name: str

    def check(self) -> None:
        """Raises NumericsError where what it runs on is not there."""

    def owns(self, x: Any) -> bool:
        """Is this the executor for data of x's kind, on x's device?"""

    def encode(self, x: Any, dtype: Element, rounding: str, overflow: str, draw: Draw, out: Any) -> Any:
        """Returns the codes (`dtype.code_dtype`) of values, each rounded once, in x's shape."""

    def decode(self, codes: Any, dtype: Element, out: Any) -> Any:
        """Returns the float32 values of codes; codes of the format's own type by their bits."""

    def round(self, x: Any, dtype: Element, rounding: str, overflow: str, draw: Draw, out: Any) -> Any:
        """Returns decode(encode(x)) in x's own type and shape."""

    def pack(self, codes: Any, dtype: Element) -> Any:
        """Returns codes, in C order, as ceil(size * bits / 8) bytes: one little-endian string of bits."""

    def unpack(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Returns the codes, in that shape, of bytes that `pack` made."""

    def encode_packed(self, x: Any, dtype: Element, rounding: str, overflow: str, draw: Draw) -> Any:
        """Returns pack(encode(x)): bytes."""

    def decode_packed(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Returns decode(unpack(packed)): float32 values in that shape."""

    def encode_blocks(
        self, x: Any, dtype: Block, axis: int, options: BlockOptions, out: Blocks | None
    ) -> Blocks:
        """Returns x as blocks along axis: codes in x's shape, one scale a block.

        rule: one of SCALE_RULES, for the MX family.  tensor_scale: of NVFP4; found from x where None.
        """

    def decode_blocks(self, blocks: Blocks, out: Any) -> Any:
        """Returns the float32 values of blocks, in the shape of their codes."""

    def round_blocks(self, x: Any, dtype: Block, axis: int, options: BlockOptions, out: Any) -> Any:
        """Returns decode_blocks(encode_blocks(x)) in x's own type and shape."""

    def pack_blocks(self, blocks: Blocks) -> Any:
        """Returns blocks as bytes: packed codes, or whole microexponent blocks (docs/layout.md)."""

    def unpack_blocks(self, stored: PackedBlocks) -> Blocks:
        """Returns the blocks of a tensor of that shape from bytes that `pack_blocks` made.

        scale: one a block, where the scales stand beside the bytes; None for microexponent blocks.
        """
