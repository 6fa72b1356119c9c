"""The exact judge as an executor: `with numerics.use("reference")` runs any call on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host import float_bits
from numerics.backends.host.executor import Affine, Array, BlockFields, Codes
from numerics.backends.host.ieee import under_ieee
from numerics.backends.host.product import Int8Rows, Matrix
from numerics.backends.host.unfused import Composed
from numerics.backends.reference.binary32 import BINARY32, BINARY64, Binary, QuantParams
from numerics.backends.reference.exact import encode, exactly, value
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.backends.reference.product import exactly_each, product, product_of_int8
from numerics.formats.block import Block
from numerics.formats.dtype import Element, Integer
from numerics.formats.floats import bfloat16
from numerics.formats.rounding import BlockOptions, Rounding

_LARGEST = float(np.finfo(np.float32).max)


@under_ieee
class Judge(Composed):
    """`ReferenceExecutor` in the shape of an Executor (backends/host/executor.py)."""

    name = "reference"

    def __init__(self) -> None:
        self.exact = ReferenceExecutor()

    def products(self, x: NDArray[np.float32] | Int8Rows, matrix: Matrix) -> NDArray[np.float32]:
        """Sums of the rows of x with those of a matrix, one fraction after the other."""
        values, scales = self.operands(matrix)
        order = matrix.order
        others = exactly_each(values)
        beside: list[Any] = [None] * len(others) if scales is None else exactly_each(scales)
        each: Callable[..., Any]
        rows: Iterable[Any]
        if isinstance(x, Int8Rows):
            each = partial(product_of_int8, group=order.group)
            rows = zip(exactly_each(x.codes), exactly_each(x.scale.reshape(len(x), -1)), strict=True)
        else:
            each = partial(product, run=order.run, group=order.group)
            rows = ((row,) for row in exactly_each(x))
        pairs = list(zip(others, beside, strict=True))
        found = [float(each(other, scale, *row)) for row in rows for other, scale in pairs]
        return np.array(found, np.float32).reshape(len(x), len(values))

    def encode(self, x: Array, dtype: Element, rounding: Rounding, out: Codes) -> None:
        """Writes the code of each of x into out."""
        mode, overflow, (_, random) = rounding
        out[...] = self.exact.encode(float_bits.to_float32(x), dtype, mode, overflow, random)

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Writes the float32 value of each code into out."""
        out[...] = self.exact.decode(codes, dtype)

    def round(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Writes the format's value for each of x into out, which is of x's type."""
        mode, overflow, (_, random) = rounding
        codes = self.exact.encode(float_bits.to_float32(x), dtype, mode, overflow, random)
        out[...] = self._narrow(self.exact.decode(codes, dtype), out.dtype)

    def _narrow(self, values: NDArray[np.float32], dtype: np.dtype[Any]) -> Array:
        if dtype.name == "bfloat16":
            codes = self.exact.encode(values.reshape(-1), bfloat16, "half_even", "nonsaturate", None)
            return codes.view(dtype).reshape(values.shape)
        with np.errstate(over="ignore"):
            return values.astype(dtype)

    def encode_blocks(
        self, x: Array, dtype: Block, options: BlockOptions, out: BlockFields | None = None
    ) -> BlockFields:
        """Block.encode; float64 beyond float32's range counts as its largest value.

        Where float32 computes with the scale (Block.in_float32), float64 is rounded (to odd) first.
        """
        x = float_bits.as_float32(x) if dtype.in_float32 else float_bits.to_float32(x)
        x = np.where(np.isfinite(x), np.clip(x, -_LARGEST, _LARGEST), x)
        fields = BlockFields(*self.exact.encode_blocks(x, dtype, options))
        for target, found in zip(out or (), fields, strict=False):
            if target is not None and found is not None:
                target[...] = found
        return fields if out is None else out

    def decode_blocks(
        self, fields: BlockFields, dtype: Block, tensor_scale: float | None, out: NDArray[np.float32]
    ) -> None:
        """Writes the float32 values of blocks into the rows of out."""
        codes, scale, microexponents = fields
        out[...] = self.exact.decode_blocks(codes, scale, microexponents, tensor_scale, dtype)

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Writes the format's values for the rows of x into those of out, which is of x's type."""
        values = np.empty(x.shape, np.float32)
        self.decode_blocks(self.encode_blocks(x, dtype, options), dtype, options.tensor_scale, values)
        out[...] = self._narrow(values, out.dtype)

    def pack(self, codes: Codes, bits: int) -> NDArray[np.uint8]:
        """Codes to a string of bits."""
        return self.exact.pack(codes, bits)

    def unpack(self, packed: NDArray[np.uint8], count: int, bits: int) -> Codes:
        """A string of bits to codes."""
        return self.exact.unpack(packed, count, bits)

    def encode_affine(self, x: Array, dtype: Element, affine: Affine, rounding: Rounding) -> Codes:
        """clamp(round(x / scale) + zero), in the arithmetic of the scale: float32, or float64."""
        x = float_bits.to_float32(x)
        codes, random = np.empty(x.shape, dtype.code_dtype), rounding.draw.bits
        for place in np.ndindex(x.shape):
            draw = None if random is None else int(random[place])
            codes[place] = _affine_code(x[place], dtype, _shared(affine, place), rounding.mode, draw)
        return codes

    def decode_affine(self, codes: Codes, dtype: Element, affine: Affine) -> Array:
        """(q - zero) * scale, each operation in the arithmetic of the scale."""
        values = np.empty(codes.shape, affine.scale.dtype)
        for place in np.ndindex(codes.shape):
            values[place] = _affine_value(int(codes[place]), dtype, *_shared(affine, place))
        return values

    def extremes(self, x: Array) -> tuple[Array, Array]:
        """The least and the largest finite value of each row, or column."""
        lines = np.moveaxis(x, 1, -1)
        rows = lines.reshape(-1, x.shape[1]).tolist()
        kept = [[v for v in row if np.isfinite(v)] or [0.0] for row in rows]
        low, high = (np.array([f(row) for row in kept], x.dtype) for f in (min, max))
        return low.reshape(lines.shape[:-1]), high.reshape(lines.shape[:-1])


def _shared(affine: Affine, place: tuple[int, ...]) -> tuple[Any, Any]:
    """The scale and the zero point of an element: of its row, or of its column of a batch."""
    owner = place[0] if len(place) == 2 else (place[0], place[2])
    return affine.scale[owner], None if affine.zero is None else affine.zero[owner]


def _affine_code(x: Any, dtype: Element, numbers: tuple[Any, Any], rounding: str, random: int | None) -> int:
    scale, zero = numbers
    kind = _arithmetic(scale)
    if not isinstance(dtype, Integer):
        return encode(kind.divide(exactly(x), exactly(scale)), dtype, rounding, "saturate", random)
    shared = QuantParams(scale, 0 if zero is None else zero.item(), kind)
    return shared.quantize(x, dtype, rounding, random) % (1 << dtype.bits)


def _affine_value(code: int, dtype: Element, scale: Any, zero: Any) -> float:
    kind, v = _arithmetic(scale), value(code, dtype)
    if not isinstance(dtype, Integer):
        return float(kind.multiply(v, exactly(scale)))
    return float(QuantParams(scale, 0 if zero is None else zero.item(), kind).dequantize(int(v)))


def _arithmetic(scale: Any) -> Binary:
    """Returns the arithmetic of a scale's type: float32's, or float64's."""
    return BINARY64 if scale.dtype == np.float64 else BINARY32
