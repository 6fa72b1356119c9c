"""Scales and zero points on the host: how they are found, and their use.

What is done to every element is the executor's; here is what is done once a scale (docs/formats.md §6).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host import random_bits
from numerics.backends.host.arrays import check_bytes, take_codes
from numerics.backends.host.executor import Affine, Array, Executor
from numerics.backends.host.float_bits import bfloat16_type
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.memory import allocate
from numerics.backends.host.quantizing import AffineOptions
from numerics.backends.partition import Partition, RowView
from numerics.formats.dtype import Element, Float
from numerics.formats.errors import NumericsError
from numerics.formats.floats import bfloat16, float16
from numerics.formats.rounding import Rounding

POF2_EXPONENTS = (-127, 127)  # what one E8M0 byte holds (OCP MX 1.0 §5.4.1)
NARROWING = Rounding(overflow="nonsaturate")  # of a float type to a narrower one
_KINDS = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
_CODECS: dict[str, Float] = {"float16": float16, "bfloat16": bfloat16}


class HostAffine:
    """What a `HostBackend` computes with scales and zero points, on some executor.

    Where subnormals are flushed a comparison, too, takes them for zeros: whoever asks for `extremes`,
    `find_affine` or `given_affine` does so inside `ieee_arithmetic`, one for all that is asked.
    """

    executor: Executor

    def give(self, values: Array, original: str) -> Any:
        """float32 or float64 values as what they were, half to even."""
        if original in _KINDS and values.dtype == _KINDS[original]:  # None would be float64 to NumPy
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
        view = partition.view
        if data.size == 0:
            return np.zeros(partition.shared, data.dtype), np.zeros(partition.shared, data.dtype)
        return view.fields(*self.executor.extremes(view.rows(data)))

    def find_affine(
        self, low: Array, high: Array, dtype: Element, options: AffineOptions, scale: Any = None
    ) -> Affine:
        """The scale, unless given, and the zero point for values from low to high (docs/formats.md §6).

        low, high: in the shape of the scales; their type says in which one to compute.
        """
        found = scale
        if scale is None:
            found = widest_scale(low, high, dtype, options.symmetric, options.full)
        scale = self.round_scale(found, options.scale_type).astype(low.dtype, copy=False)
        zero = None if options.symmetric else zero_point(low, scale, dtype, options.zero_point_type)
        return Affine(np.asarray(scale), None if zero is None else np.asarray(zero))

    def given_affine(
        self, scale: Array, zero: Array | None, options: AffineOptions, wide: str, data: Any = None
    ) -> Affine:
        """A scale, rounded to its type, and a zero point, both given."""
        return Affine(self.round_scale(scale, options.scale_type).astype(wide), zero)

    def round_scale(self, scale: Array, scale_type: str) -> Array:
        """The scale in its type, kept positive and finite: at least the smallest, at most the largest."""
        if scale_type == "pof2":
            return power_of_two_above(scale)
        if scale_type not in _CODECS:
            kind, least, most = _ends(scale_type)
            kept = np.array(scale, kind)
            np.minimum(np.maximum(kept, least), most, out=kept)
            return kept
        dtype, rounded = _CODECS[scale_type], np.empty(scale.shape, scale.dtype)
        self.executor.round(scale.reshape(-1), dtype, Rounding(), rounded.reshape(-1))
        return np.asarray(np.maximum(rounded, dtype.smallest_subnormal))

    def encode_affine(
        self, data: Array, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Array:
        """Codes of the shape of data: clamp(round(x / scale) + zero_point)."""
        view = partition.view
        rows, numbers, how = _by_rows(data, view, affine, rounding)
        return view.elements(self.executor.encode_affine(rows, dtype, numbers, how))

    def quantize_packed(
        self, data: Array, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Array:
        """The same codes as one string of bits, without the codes where rows are the memory."""
        view = partition.view
        if view.padded is not None:
            codes = self.encode_affine(data, dtype, partition, affine, rounding)
            return self.executor.pack(codes.reshape(-1), dtype.bits)
        rows, numbers, how = _by_rows(data, view, affine, rounding)
        return self.executor.encode_affine_packed(rows, dtype, numbers, how)

    def round_affine(
        self, data: Array, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Array:
        """dequantize_packed(quantize_packed(data)) in one pass."""
        view = partition.view
        rows, numbers, how = _by_rows(data, view, affine, rounding)
        return view.elements(self.executor.round_affine(rows, dtype, numbers, how))

    def dequantize_packed(self, packed: Array, dtype: Element, partition: Partition, affine: Affine) -> Array:
        """Values of such bytes, without the codes where rows are the memory; fewer are refused."""
        view = partition.view
        if view.padded is not None:
            count = math.prod(partition.shape)
            codes = self.executor.unpack(_bytes_of(packed, count, dtype), count, dtype.bits)
            return self.decode_affine(codes.reshape(partition.shape), dtype, partition, affine)
        packed, numbers = stored_rows(packed, dtype, view, affine)
        out = allocate(view.shape, affine.scale.dtype)
        self.executor.decode_affine_packed(packed, dtype, numbers, out)
        return view.elements(out)

    def decode_affine(self, codes: Array, dtype: Element, partition: Partition, affine: Affine) -> Array:
        """Values of the codes, in the type of the scale: (q - zero_point) * scale."""
        view = partition.view
        if codes.shape != partition.shape or codes.dtype != dtype.code_dtype:
            came = f"{codes.dtype.name} of shape {codes.shape}"
            due = f"{dtype.code_dtype} of shape {partition.shape}"
            raise NumericsError(f"codes of {dtype} must be {due}, not {came}")
        _check_numbers(affine)
        rows, numbers = view.rows(np.ascontiguousarray(codes)), Affine(*view.numbers(*affine))
        return view.elements(self.executor.decode_affine(rows, dtype, numbers))


def _by_rows(
    data: Array, view: RowView, affine: Affine, rounding: Rounding
) -> tuple[Array, Affine, Rounding]:
    """The arguments of an executor's affine operations, beside the format."""
    if rounding.mode == "stochastic":
        bits = random_bits.bits(rounding.draw, data.shape)
        rounding = rounding.drawing(None if bits is None else view.rows(bits.reshape(data.shape)))
    return view.rows(data), Affine(*view.numbers(*affine)), rounding


def stored_rows(packed: Any, dtype: Element, view: RowView, affine: Affine) -> tuple[Array, Affine]:
    """The bytes of codes, and scales and zero points as executors take them, whose rows are the memory.

    Raises NumericsError for fewer bytes, and for numbers of types that kernels do not read.
    """
    packed = _bytes_of(packed, math.prod(view.whole), dtype)
    _check_numbers(affine)
    return packed, Affine(*view.numbers(*affine))


def _bytes_of(packed: Any, count: int, dtype: Element) -> Array:
    """The bytes of so many codes; raises NumericsError for fewer."""
    if type(packed) is not np.ndarray or packed.dtype != np.uint8 or not packed.flags.c_contiguous:
        packed, _ = take_codes(packed, 8, "uint8", "packed bytes")
    check_bytes(packed.size, count, dtype.bits)
    return cast(Array, packed)


def _check_numbers(affine: Affine) -> None:
    """Raises NumericsError for scales and zero points of types that kernels do not read."""
    scale, zero = affine
    if scale.dtype not in _KINDS.values() or not (zero is None or zero.dtype in (np.int32, scale.dtype)):
        came = scale.dtype.name if zero is None else f"{scale.dtype.name} with {zero.dtype.name}"
        raise NumericsError(f"scales are float32 or float64, zero points int32 or like them, not {came}")


@lru_cache(maxsize=4)
def _ends(scale_type: str) -> tuple[Any, Any, Any]:
    """A float type, its smallest and its largest positive number."""
    facts = np.finfo(scale_type)
    return facts.dtype, np.asarray(facts.smallest_subnormal), np.asarray(facts.max)


def widest_scale(low: Array, high: Array, dtype: Element, symmetric: bool, full: bool = False) -> Array:
    """amax / scale_end, or (max - min) / (qmax - qmin); 1 where all is zero.

    full: amax / ((qmax - qmin) / 2).  A difference that overflows is taken of the halves: halving is exact.
    """
    steps = _steps(dtype, symmetric, full, low.dtype)
    if symmetric:
        extent = np.maximum(-low, high)
        scale = extent / steps
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        extent = high - low
        scale = np.where(np.isinf(extent), (high / 2 - low / 2) / (steps / 2), extent / steps)
    return np.asarray(scale + (extent == 0))


@lru_cache(maxsize=1024)
def _steps(dtype: Element, symmetric: bool, full: bool, kind: np.dtype[Any]) -> Any:
    """What the extent becomes: the end of scales, half of all steps or all, as a number of a float type."""
    every = dtype.max - dtype.min
    return kind.type((every / 2 if full else dtype.scale_end) if symmetric else every)


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
