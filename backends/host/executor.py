"""What an executor on the host must offer: whole arrays in, whole arrays out, nothing else.

`HostBackend` (backend.py) does for each of them what is not arithmetic: kinds of input, checks, axes,
padding, random bits.  x is C-contiguous float16, bfloat16, float32 or float64 and one-dimensional,
blocks are the rows of such an array [n, block]; `rounding.draw.bits` holds 30-bit integers as int32, in
x's shape, or is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.hadamard import Rotation
from numerics.backends.host.product import Int8Rows, Matrix
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import BlockOptions, Rounding

Array = NDArray[Any]
Codes = NDArray[np.uint8] | NDArray[np.uint16]


class BlockFields(NamedTuple):
    """Blocks as rows: codes [n, block], scale [n], microexponents [n] or None."""

    codes: Codes
    scale: Codes
    microexponents: Array | None = None


class Affine(NamedTuple):
    """A scale, and a zero point or None, for each row; arrays of the backend, float32 or float64 as x is."""

    scale: Any
    zero: Any


WIDEST = 128  # elements of a block that kernels hold whole; longer ones are NumPy's


class RowFunction(NamedTuple):
    """A function in the dialect of the shared arithmetic (docs/dialect.md) of elements and of their row.

    name: says, with the kinds of its records and of its arrays, which function it is.  function: of the
    shared arithmetic as a target binds it, the records, the numbers of the row and the elements, all as
    32-bit words; it returns one word, or a tuple of them.  Of blocks it has the elements alone, and what it
    needs of a block it reduces itself.  past: of rows, whether its first output goes past the caches, however
    small it is: it is a part of what no cache holds.
    """

    name: str
    function: Callable[..., Any]
    records: tuple[Any, ...]
    past: bool = False


def wrong_count(name: str, place: int, array: Array, count: int) -> NumericsError:
    """The error of an array of numbers that does not hold one for each of `count` rows, or columns.

    A kernel would read past the end of a shorter one.
    """
    return NumericsError(f"{name}: array {place} of numbers has {array.size}, and {count} are needed")


def check_rows(name: str, arrays: Sequence[Array], numbers: Sequence[Array]) -> None:
    """Raises NumericsError where arrays are not rows of one shape, each with its numbers."""
    shape = arrays[0].shape
    for place, array in enumerate(arrays):
        if array.ndim != 2 or array.shape != shape:
            raise NumericsError(
                f"{name}: array {place} of rows has the shape {array.shape}, and the first has {shape}; "
                "all have the same two dimensions"
            )
    for place, array in enumerate(numbers):
        if array.size != shape[0]:
            raise wrong_count(name, place, array, shape[0])


class Executor(Protocol):
    """The operations of an executor on the host."""

    name: str

    def encode(self, x: Array, dtype: Element, rounding: Rounding, out: Codes) -> None:
        """Codes of x into out."""

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Values of codes into out."""

    def round(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Values nearest to x into out."""

    def encode_blocks(
        self, x: Array, dtype: Block, options: BlockOptions, out: BlockFields | None = None
    ) -> BlockFields:
        """Blocks of the rows of x, into out where it is given."""
        ...

    def decode_blocks(
        self,
        fields: BlockFields,
        dtype: Block,
        tensor_scale: float | None,
        out: NDArray[np.float32],
    ) -> None:
        """Values of blocks into the rows of out."""

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Values nearest to the rows of x into the rows of out, which is of x's type."""

    def pack(self, codes: Codes, bits: int) -> NDArray[np.uint8]:
        """One-dimensional codes to bytes."""
        ...

    def unpack(self, packed: NDArray[np.uint8], count: int, bits: int) -> Codes:
        """Bytes to `count` codes."""
        ...

    def encode_affine(self, x: Array, dtype: Element, affine: Affine, rounding: Rounding) -> Codes:
        """Codes of x: [rows, n] with a scale and zero point a row [rows], or [batches, rows, n] with
        one a column [batches, n].
        """
        ...

    def decode_affine(self, codes: Codes, dtype: Element, affine: Affine) -> Array:
        """Values of codes cut as for encode_affine, in the type of the scale."""
        ...

    def extremes(self, x: Array) -> tuple[Array, Array]:
        """The least and the largest finite value of each row, or column; 0 where there is none."""
        ...

    def error_sums(self, x: Array, y: Array) -> NDArray[np.float64]:
        """What backends/host/sums.py finds of one-dimensional arrays of float32 or float64."""
        ...

    def error_sums_of_blocks(
        self,
        x: NDArray[np.float32],
        packed: NDArray[np.uint8],
        scale: Codes | None,
        dtype: Block,
        tensor_scale: float | None,
    ) -> NDArray[np.float64] | None:
        """error_sums of x and of what decode_blocks_packed gives, in one pass; None where there is none.

        Where a figure that it returns is not finite, the figures are those of error_sums nowhere.
        """

    def error_sums_of_rows(
        self, x: NDArray[np.float32], packed: NDArray[np.uint8], dtype: Element, affine: Affine
    ) -> NDArray[np.float64] | None:
        """The same of rows x [rows, n] and of what decode_affine_packed gives."""

    def measuring(self, data: Array) -> Measuring | None:
        """One for that tensor, whose sums come with its codes in one pass; None where there is none."""

    def each(self, work: Callable[[int], object], count: int) -> None:
        """work(0) .. work(count - 1), in any order, side by side where the executor has threads."""

    def rotate(self, x: Array, rotation: Rotation) -> Array:
        """The rows of x [n, size], float32 or float64, rotated as hadamard.py says."""
        ...

    def products(self, x: NDArray[np.float32] | Int8Rows, matrix: Matrix) -> NDArray[np.float32]:
        """Sums of the rows of x (m, length) with those of a matrix, as product.py says: (m, rows)."""
        ...

    def by_rows(
        self, how: RowFunction, inputs: Sequence[Array], numbers: Sequence[Array], outputs: Sequence[Array]
    ) -> None:
        """how's function over arrays [rows, n] of float32, int32 or uint8, with numbers [rows] of 32 bits."""

    def by_blocks(self, how: RowFunction, x: Array, outputs: Sequence[Array]) -> None:
        """how's function over blocks, the rows of x [n, block] in float32, bfloat16 or float16.

        outputs: [n, block] of float32; codes as uint8, [n, block] or packed so that a row is whole bytes;
        [n] of uint8, a number a block.
        """

    def encode_packed(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Codes of x, as one string of bits, into out."""

    def decode_packed(self, packed: NDArray[np.uint8], dtype: Element, out: NDArray[np.float32]) -> None:
        """Values of a string of bits into out."""

    def encode_blocks_packed(
        self, x: Array, dtype: Block, options: BlockOptions
    ) -> tuple[NDArray[np.uint8], Codes | None]:
        """Blocks of the rows of x as bytes, and the scales that stand beside them."""
        ...

    def decode_blocks_packed(
        self,
        packed: NDArray[np.uint8],
        scale: Codes | None,
        dtype: Block,
        tensor_scale: float | None,
        out: NDArray[np.float32],
    ) -> None:
        """Values of such bytes into the rows of out."""

    def encode_affine_packed(
        self, x: Array, dtype: Element, affine: Affine, rounding: Rounding, out: Array | None = None
    ) -> NDArray[np.uint8]:
        """The codes of encode_affine as one string of bits."""
        ...

    def decode_affine_packed(
        self, packed: NDArray[np.uint8], dtype: Element, affine: Affine, out: Array
    ) -> None:
        """decode_affine of one string of bits, into out, which has the shape of the rows."""

    def round_affine(
        self, x: Array, dtype: Element, affine: Affine, rounding: Rounding, out: Array | None = None
    ) -> Array:
        """decode_affine(encode_affine(x)), in the type of the scale."""
        ...


class Measuring(Executor, Protocol):
    """An executor for one tensor.

    figures: what error_sums_of_blocks or error_sums_of_rows finds of it, once it has encoded it packed where
    it lies; None before, and where it has no kernel for that.
    """

    figures: NDArray[np.float64] | None
