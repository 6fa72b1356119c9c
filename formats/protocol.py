"""What a backend must offer to the formats: arithmetic on data of its kind, on its device."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from numerics.formats.block import Block, Blocks, PackedBlocks
from numerics.formats.dtype import Dtype, Element
from numerics.formats.rounding import BlockOptions, Draw, Rounding


class Given(NamedTuple):
    """The scales of a tensor that are given instead of found, and its zero points, each or None."""

    scale: Any = None
    zero_point: Any = None
    tensor_scale: Any = None


class Parts(NamedTuple):
    """What a quantized tensor consists of, as arrays of one kind; None for what its format has not.

    packed: bytes of the codes.  shared: the scales.  tensor_scale: a number.  shape: of the tensor.
    original: the float type that it stands for, `python` for Python's numbers.
    """

    packed: Any
    shared: Any
    zero_point: Any
    tensor_scale: float | None
    shape: tuple[int, ...]
    original: str


class Spec(Protocol):
    """How a tensor is quantized, as a backend sees it: options that are checked and fit together."""

    @property
    def dtype(self) -> Dtype:
        """The format."""
        ...

    @property
    def element(self) -> Element:
        """The format, where it is one of single numbers."""
        ...

    @property
    def block(self) -> Block:
        """The format, where it is one of blocks."""
        ...

    @property
    def blocked(self) -> bool:
        """Is it a format of blocks?"""
        ...

    @property
    def axis(self) -> int | None:
        """Along which blocks lie."""
        ...

    @property
    def rows(self) -> int:
        """Of a block format: how many rows of blocks share a scale."""
        ...

    @property
    def scaled(self) -> bool:
        """False for a plain cast."""
        ...

    @property
    def clips(self) -> bool:
        """Does it lose negative values?"""
        ...

    @property
    def symmetric(self) -> bool:
        """Is there no zero point?"""
        ...

    @property
    def zero_point_type(self) -> str:
        """int32, or float32 for one that is not rounded."""
        ...

    @property
    def rounding(self) -> str:
        """The rounding mode."""
        ...

    @property
    def scale_rule(self) -> str:
        """How MX blocks find their scales."""
        ...

    def partition(self, shape: tuple[int, ...]) -> Any:
        """Who shares a scale in a tensor of that shape: a Partition (backends/partition.py)."""

    def affine_options(self, original: str) -> Any:
        """How scales of a tensor of that float type are found: AffineOptions (host/quantizing.py)."""

    def check_given(self, given: Given) -> None:
        """Raises NumericsError for a scale or a zero point that the format finds itself, or has not."""


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
        """Is this the backend for data of x's kind, on x's device?"""

    def encode(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Returns the codes (`dtype.code_dtype`) of values, each rounded once, in x's shape."""

    def decode(self, codes: Any, dtype: Element, out: Any) -> Any:
        """Returns the float32 values of codes; codes of the format's own type by their bits."""

    def round(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Returns decode(encode(x)) in x's own type and shape."""

    def pack(self, codes: Any, dtype: Element) -> Any:
        """Returns codes, in C order, as ceil(size * bits / 8) bytes: one little-endian string of bits."""

    def unpack(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Returns the codes, in that shape, of bytes that `pack` made."""

    def encode_packed(self, x: Any, dtype: Element, rounding: Rounding) -> Any:
        """Returns pack(encode(x)): bytes."""

    def decode_packed(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Returns decode(unpack(packed)): float32 values in that shape."""

    def encode_blocks(
        self, x: Any, dtype: Block, axis: int, options: BlockOptions, out: Blocks | None
    ) -> Blocks:
        """Returns x as blocks along axis: codes in x's shape, one scale a block.

        options: the scale rule of MX blocks, the rounding, the tensor scale (NVFP4: found from x where None).
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

    def quantize(self, x: Any, spec: Spec, given: Given, draw: Draw) -> Any:
        """numerics.quantize: Parts, or a quantized tensor of x's own library."""

    def fake_quantize(self, x: Any, spec: Spec, given: Given, draw: Draw, clip: bool = False) -> Any:
        """numerics.fake_quantize; clip: its gradient passes only within the range of the format."""

    def dequantize(self, parts: Parts, spec: Spec, original: str) -> Any:
        """numerics.dequantize: the values of such parts, as that float type."""
