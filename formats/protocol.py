"""What a backend must offer to the formats: arithmetic on data of its kind, on its device."""

from __future__ import annotations

from typing import Any, Protocol

from numerics.formats.block import Block, Blocks
from numerics.formats.dtype import Element
from numerics.formats.rounding import Draw, Rounding


class Backend(Protocol):
    """What an executor offers to formats.  Options arrive checked; data does not."""

    name: str

    def check(self) -> None:
        """Raises NumericsError where what it runs on is not there."""

    def owns(self, x: Any) -> bool:
        """Is this the executor for data of x's kind, on x's device?"""

    def encode(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Element.encode."""

    def decode(self, codes: Any, dtype: Element, out: Any) -> Any:
        """Element.decode."""

    def round(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Element.round."""

    def pack(self, codes: Any, dtype: Element) -> Any:
        """Element.pack."""

    def unpack(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Element.unpack."""

    def encode_packed(self, x: Any, dtype: Element, rounding: Rounding) -> Any:
        """Element.encode_packed."""

    def decode_packed(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Element.decode_packed."""

    def encode_blocks(
        self,
        x: Any,
        dtype: Block,
        axis: int,
        rule: str,
        rounding: str,
        tensor_scale: float | None,
        draw: Draw,
        out: Blocks | None,
    ) -> Blocks:
        """Block.encode."""

    def decode_blocks(self, blocks: Blocks, out: Any) -> Any:
        """Block.decode."""

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

    def pack_blocks(self, blocks: Blocks) -> Any:
        """Block.pack."""

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
