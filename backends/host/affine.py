"""Scales and zero points on the host: who shares one, how they are found, and their use.

`HostAffine` is what a `HostBackend` (host.py) offers to numerics/quantization.py.  What is done to
every element is the executor's; here is what is done once a scale (FORMATS §6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host import random_bits
from numerics.backends.host.executor import Affine, Array, Executor
from numerics.backends.host.float_bits import bfloat16_type, name_of
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.partition import Blocking
from numerics.formats.block import Block
from numerics.formats.dtype import Element, Float
from numerics.formats.errors import NumericsError
from numerics.formats.floats import bfloat16, float16
from numerics.formats.rounding import Draw, Rounding

POF2_EXPONENTS = (-127, 127)  # what one E8M0 byte holds (OCP MX 1.0 §5.4.1)
LONG = 1 << 10  # elements: shorter lines of columns are taken several at a time
NARROWING = Rounding(overflow="nonsaturate")  # of a float type to a narrower one
_WIDE = (np.dtype(np.float32), np.dtype(np.float64))
_CODECS: dict[str, Float] = {"float16": float16, "bfloat16": bfloat16}


@dataclass(frozen=True)
class Partition:
    """Which elements share a scale: all (axis None), each index of an axis, or groups along it."""

    shape: tuple[int, ...]
    axis: int | None = None
    size: int | None = None

    @property
    def shared(self) -> tuple[int, ...]:
        """The shape of the scales."""
        if self.axis is None:
            return ()
        if self.size is None:
            return (self.shape[self.axis],)
        return Blocking(self.shape, self.axis, self.group).shared_shape

    @property
    def group(self) -> int:
        """Elements of a group, where there are groups: no more than the axis has."""
        assert self.axis is not None
        assert self.size is not None
        return min(self.size, max(self.shape[self.axis], 1))

    @property
    def in_order(self) -> bool:
        """Do those that share a scale lie side by side in memory?"""
        if self.axis is None or self.size is None:
            return self.axis in (None, 0)
        return Blocking(self.shape, self.axis, self.group).whole

    @cached_property
    def cut(self) -> Cut:
        """The same as an executor takes it."""
        if self.axis is None:
            return Cut(self.shape, (1, math.prod(self.shape)), ())
        outer, length = math.prod(self.shape[: self.axis]), self.shape[self.axis]
        inner = math.prod(self.shape[self.axis + 1 :])
        if self.size is None:
            if inner == 1 and outer > 1:
                lines = math.gcd(outer, 1 << max(LONG // max(length, 1), 1).bit_length() - 1)
                return Cut(self.shape, (1, outer // lines, lines * length), self.shared, repeats=lines)
            return Cut(self.shape, (outer * length, inner), self.shared, repeats=max(outer, 1))
        if length % self.group:
            blocks = Blocking(self.shape, self.axis, self.group)
            return Cut(self.shape, (blocks.count, self.group), self.shared, padded=blocks)
        groups = outer * (length // self.group)
        rows = (groups, self.group) if inner == 1 else (groups, self.group, inner)
        return Cut(self.shape, rows, self.shared)


@dataclass(frozen=True)
class Cut:
    """A tensor as executors take it: [rows, n], a scale a row; or [batches, rows, n], a scale a column.

    The memory is as it is, but where a short last group is padded.  repeats: how often the same
    scales come again, where channels are not the outermost axis.
    """

    whole: tuple[int, ...]
    shape: tuple[int, ...]
    shared: tuple[int, ...]
    repeats: int = 1
    padded: Blocking | None = None

    def rows(self, x: Array) -> Array:
        """x as executors take it; a short last group is filled with zeros."""
        return x.reshape(self.shape) if self.padded is None else self.padded.rows(x)

    def elements(self, rows: Array) -> Array:
        """The inverse of rows."""
        return rows.reshape(self.whole) if self.padded is None else self.padded.elements(rows)

    def numbers(self, field: Array) -> Array:
        """Scales or zero points, in the shape that they must have, as executors take them."""
        if field.shape != self.shared:
            raise NumericsError(f"scale has shape {field.shape}; {self.whole} elements need {self.shared}")
        if self.padded is not None:
            return self.padded.shared_rows(field, "scale")
        field = np.ascontiguousarray(field)
        numbers = field.reshape(-1) if self.repeats == 1 else np.tile(field, self.repeats)
        return numbers if len(self.shape) == 2 else numbers.reshape(self.shape[0], self.shape[2])

    def field(self, numbers: Array, join: np.ufunc) -> Array:
        """The inverse of numbers; those of one scale are joined."""
        if self.padded is not None:
            return self.padded.shared(numbers)
        if self.repeats != 1:
            numbers = join.reduce(numbers.reshape(self.repeats, -1), axis=0)
        return numbers.reshape(self.shared)


class AffineOptions(NamedTuple):
    """How a scale and a zero point are found and kept."""

    symmetric: bool
    scale_type: str  # float64, float32, float16, bfloat16 or pof2
    zero_point_type: str  # int32 or float32


class AffineBackend(Protocol):
    """What a backend offers to numerics/quantization.py; data is what its `prepare` made."""

    def prepare(self, x: Any) -> tuple[Any, str]:
        """x as the backend's own float32 or float64 array, and the name of what it was."""

    def give(self, values: Any, original: str) -> Any:
        """float32 or float64 values as what they were."""

    def extremes(self, data: Any, partition: Partition) -> tuple[Any, Any]:
        """The least and the largest finite value of those that share a scale."""

    def find_affine(
        self, low: Any, high: Any, dtype: Element, options: AffineOptions, scale: Any = None
    ) -> Affine:
        """The scale, unless it is given, and the zero point for values from low to high."""

    def given_affine(self, scale: Any, zero: Any, options: AffineOptions, wide: str, data: Any) -> Affine:
        """A scale, rounded to its type, and a zero point, both given as NumPy arrays, for that data."""

    def quantize(
        self, data: Any, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Any:
        """Codes of the shape of data."""

    def quantize_packed(
        self, data: Any, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Any:
        """The same codes as one string of bits."""

    def fake_quantize(
        self, data: Any, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Any:
        """dequantize(quantize(data)) in one pass."""

    def dequantize(self, codes: Any, dtype: Element, partition: Partition, affine: Affine) -> Any:
        """Values of the codes, in the type of the scale."""

    def quantize_blocks(
        self,
        x: Any,
        dtype: Block,
        axis: int,
        rule: str,
        rounding: str,
        tensor_scale: float | None,
        draw: Draw,
    ) -> tuple[Any, Any, float | None]:
        """Block.encode as stored: packed bytes, the scales beside them or None, the tensor's scale."""

    def dequantize_blocks(
        self,
        packed: Any,
        scale: Any,
        dtype: Block,
        shape: tuple[int, ...],
        axis: int,
        tensor_scale: float | None,
    ) -> Any:
        """float32 values of what quantize_blocks made."""


class HostAffine:
    """AffineBackend on some executor, but for `prepare`."""

    executor: Executor

    def give(self, values: Array, original: str) -> Any:
        """float32 or float64 values as what they were, half to even."""
        if original == name_of(values.dtype):
            return values
        if original == "python":
            return values.tolist()
        if original == "bfloat16":
            kind, codes = bfloat16_type(), np.empty(values.shape, np.uint16)
            self.executor.encode(values.reshape(-1), bfloat16, NARROWING, codes.reshape(-1))
            return codes.view(kind)
        with ieee_arithmetic():
            return values.astype(original, copy=False)

    def extremes(self, data: Array, partition: Partition) -> tuple[Array, Array]:
        """The least and the largest finite value of those that share a scale; 0 where there is none."""
        cut = partition.cut
        if data.size == 0:
            return np.zeros(partition.shared, data.dtype), np.zeros(partition.shared, data.dtype)
        low, high = self.executor.extremes(cut.rows(data))
        with ieee_arithmetic():  # a comparison, too, takes subnormals for zeros where they are flushed
            return cut.field(low, np.minimum), cut.field(high, np.maximum)

    def find_affine(
        self, low: Array, high: Array, dtype: Element, options: AffineOptions, scale: Any = None
    ) -> Affine:
        """FORMATS §6; low and high have the shape of the scales and say in which type to compute."""
        with ieee_arithmetic():
            found = widest_scale(low, high, dtype, options.symmetric) if scale is None else scale
            scale = self.round_scale(found, options.scale_type).astype(low.dtype)
            zero = None if options.symmetric else zero_point(low, scale, dtype, options.zero_point_type)
        return Affine(np.asarray(scale), None if zero is None else np.asarray(zero))

    def given_affine(
        self, scale: Array, zero: Array | None, options: AffineOptions, wide: str, data: Any = None
    ) -> Affine:
        """A scale, rounded to its type, and a zero point, both given."""
        with ieee_arithmetic():
            return Affine(self.round_scale(scale, options.scale_type).astype(wide), zero)

    def round_scale(self, scale: Array, scale_type: str) -> Array:
        """The scale in its type, kept positive and finite: at least the smallest, at most the largest."""
        if scale_type == "pof2":
            return power_of_two_above(scale)
        if scale_type not in _CODECS:
            kind, least, most = _ends(scale_type)
            return np.asarray(np.minimum(np.maximum(scale.astype(kind), least), most))
        dtype, rounded = _CODECS[scale_type], np.empty(scale.shape, scale.dtype)
        self.executor.round(scale.reshape(-1), dtype, Rounding(), rounded.reshape(-1))
        return np.asarray(np.maximum(rounded, dtype.smallest_subnormal))

    def quantize(
        self, data: Array, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Array:
        """Codes of the shape of data: clamp(round(x / scale) + zero_point)."""
        cut = partition.cut
        return cut.elements(self.executor.encode_affine(*_by_rows(data, dtype, cut, affine, rounding)))

    def quantize_packed(
        self, data: Array, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Array:
        """The same codes as one string of bits, without the codes where rows are the memory."""
        cut = partition.cut
        if cut.padded is None:
            return self.executor.encode_affine_packed(*_by_rows(data, dtype, cut, affine, rounding))
        codes = self.quantize(data, dtype, partition, affine, rounding)
        return self.executor.pack(codes.reshape(-1), dtype.bits)

    def fake_quantize(
        self, data: Array, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Array:
        """dequantize(quantize(data)) in one pass."""
        cut = partition.cut
        return cut.elements(self.executor.round_affine(*_by_rows(data, dtype, cut, affine, rounding)))

    def dequantize(self, codes: Array, dtype: Element, partition: Partition, affine: Affine) -> Array:
        """Values of the codes, in the type of the scale: (q - zero_point) * scale."""
        cut = partition.cut
        if codes.shape != partition.shape or codes.dtype != dtype.code_dtype:
            came = f"{codes.dtype.name} of shape {codes.shape}"
            due = f"{dtype.code_dtype} of shape {partition.shape}"
            raise NumericsError(f"codes of {dtype} must be {due}, not {came}")
        _check_numbers(affine)
        rows = cut.rows(np.ascontiguousarray(codes))
        return cut.elements(self.executor.decode_affine(rows, dtype, _as_rows(affine, cut)))


def _by_rows(
    data: Array, dtype: Element, cut: Cut, affine: Affine, rounding: Rounding
) -> tuple[Array, Element, Affine, Rounding]:
    """The arguments of an executor's affine operations."""
    rounding = random_bits.drawn(rounding, data.shape)
    if rounding.draw.bits is not None:
        rounding = rounding.drawing(cut.rows(rounding.draw.bits.reshape(data.shape)))
    return cut.rows(data), dtype, _as_rows(affine, cut), rounding


def _check_numbers(affine: Affine) -> None:
    """Raises NumericsError for scales and zero points of types that kernels do not read."""
    scale, zero = affine
    if scale.dtype not in _WIDE or not (zero is None or zero.dtype in (np.int32, scale.dtype)):
        came = scale.dtype.name if zero is None else f"{scale.dtype.name} with {zero.dtype.name}"
        raise NumericsError(f"scales are float32 or float64, zero points int32 or like them, not {came}")


def _as_rows(affine: Affine, cut: Cut) -> Affine:
    return Affine(*(None if part is None else cut.numbers(part) for part in affine))


@lru_cache(maxsize=4)
def _ends(scale_type: str) -> tuple[Any, Any, Any]:
    """A float type, its smallest and its largest positive number."""
    facts = np.finfo(scale_type)
    return facts.dtype, facts.smallest_subnormal, facts.max


def widest_scale(low: Array, high: Array, dtype: Element, symmetric: bool) -> Array:
    """amax / max, or (max - min) / (qmax - qmin); 1 where all is zero.

    A difference that overflows is taken of the halves: halving is exact.
    """
    if symmetric:
        extent = np.maximum(-low, high)
        scale = extent / low.dtype.type(dtype.max)
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        extent, steps = high - low, low.dtype.type(dtype.max - dtype.min)
        scale = np.where(np.isinf(extent), (high / 2 - low / 2) / (steps / 2), extent / steps)
    return np.asarray(np.where(extent == 0, low.dtype.type(1), scale))


def zero_point(low: Array, scale: Array, dtype: Element, zero_point_type: str) -> Array:
    """clamp(round_half_even(qmin - min / scale)); a float zero point is not rounded to an integer."""
    kind = low.dtype.type
    wanted = kind(dtype.min) - np.minimum(low, 0) / scale
    if zero_point_type == "int32":
        return np.asarray(np.clip(np.rint(wanted), dtype.min, dtype.max), np.int32)
    return np.asarray(np.clip(wanted, dtype.min, dtype.max), np.float32).astype(low.dtype)


def power_of_two_above(scale: Array) -> Array:
    """2**ceil(log2(scale)) by taking the exponent out; a float log2 is wrong next to powers of two."""
    facts = np.finfo(scale.dtype)
    mantissa, exponent = np.frexp(np.clip(scale, facts.smallest_subnormal, facts.max))
    power: NDArray[np.int32] = np.clip(exponent - (mantissa == 0.5), *POF2_EXPONENTS)
    return np.asarray(np.ldexp(scale.dtype.type(1), power))
