"""How a tensor is quantized and comes back: the steps in their order, the same on every backend.

What a step does to every element is the backend's, and so is where its arrays lie.  Which scale is taken,
given or found, and in which types it is kept, is said here, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.arrays import listed
from numerics.backends.host.executor import Affine
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.tensors import as_array, is_tensor
from numerics.backends.host.tiles import quantize_blocks, round_blocks
from numerics.backends.partition import Partition
from numerics.formats.block import Block, PackedBlocks
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, digits, warn
from numerics.formats.protocol import Backend, Given, Parts, Spec
from numerics.formats.rounding import BlockOptions, Draw, Rounding

Array = NDArray[Any]


class AffineOptions(NamedTuple):
    """How a scale and a zero point are found and kept."""

    symmetric: bool
    scale_type: str  # float64, float32, float16, bfloat16 or pof2
    zero_point_type: str  # int32 or float32
    full: bool = False  # symmetric integers: amax is half of the range


class Prepared(NamedTuple):
    """A tensor as the backend's own array of a float type, and the float type that it stands for."""

    data: Any
    original: str


class AffineBackend(Backend, Protocol):
    """What a backend computes for `Quantizing` beside; data is what its `prepare` made."""

    def prepare(self, x: Any) -> Prepared:
        """x as the backend's own float32 or float64 array, and the name of what it was."""
        ...

    def native(self, parts: Iterable[Any]) -> list[Any]:
        """Arrays or tensors as the backend's own arrays, in the same memory; None for None."""
        ...

    def give(self, values: Any, original: str) -> Any:
        """float32 or float64 values as what they were."""

    def extremes(self, data: Any, partition: Partition) -> tuple[Any, Any]:
        """The least and the largest finite value of those that share a scale; asked in IEEE arithmetic."""
        ...

    def find_affine(
        self, low: Any, high: Any, dtype: Element, options: AffineOptions, scale: Any = None
    ) -> Affine:
        """The scale, unless it is given, and the zero point for values from low to high; asked so, too."""
        ...

    def given_affine(self, scale: Any, zero: Any, options: AffineOptions, wide: str, data: Any) -> Affine:
        """A scale, rounded to its type, and a zero point, both given as NumPy arrays, for that data."""
        ...

    def quantize_packed(
        self, data: Any, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Any:
        """clamp(round(x / scale) + zero_point) as one string of bits."""

    def dequantize_packed(self, packed: Any, dtype: Element, partition: Partition, affine: Affine) -> Any:
        """Values of such bytes, in the type of the scale: (q - zero_point) * scale."""

    def round_affine(
        self, data: Any, dtype: Element, partition: Partition, affine: Affine, rounding: Rounding
    ) -> Any:
        """dequantize_packed(quantize_packed(data)) in one pass."""

    def quantize_blocks(self, x: Any, dtype: Block, axis: int, options: BlockOptions) -> PackedBlocks:
        """Returns what `encode_blocks` finds, as it is stored."""
        ...

    def dequantize_blocks(self, stored: PackedBlocks) -> Any:
        """Returns the float32 values of what quantize_blocks made."""


class Quantizing(AffineBackend, Protocol):
    """`quantize`, `fake_quantize` and `dequantize` of a backend that computes what they are made of."""

    def quantize(self, x: Any, spec: Spec, given: Given, draw: Draw) -> Parts:
        """numerics.quantize: the parts of the quantized tensor, as the backend's own arrays."""
        return self.quantize_prepared(self.prepare(x), spec, given, draw)

    def quantize_prepared(
        self, x: Prepared, spec: Spec, given: Given, draw: Draw, whole: bool = True
    ) -> Parts:
        """The same of what may stand for another type than it has.

        whole: False for a piece of a tensor, whose losses are for others to count and to say (`Clipped`).
        """
        data, original = x
        shape = tuple(data.shape)
        if given.scale is not None or given.zero_point is not None or given.tensor_scale is not None:
            spec.check_given(given)
        if spec.blocked:
            made = quantize_blocks(self, data, spec, _block_options(spec, given, draw))
            return Parts(made.packed, made.scale, None, made.tensor_scale, shape, original)
        with ieee_arithmetic():
            affine, partition, options = self._affine(x, spec, given, whole)
            if spec.scaled or given.scale is not None:
                how = Rounding(spec.rounding, draw=draw)
                packed = self.quantize_packed(data, spec.element, partition, affine, how)
            else:
                if whole:
                    say_what_is_lost(spec, data)
                packed = self.encode_packed(data, spec.element, _cast(spec, draw))
            return Parts(packed, *self.stored(affine, options), None, shape, original)

    def quantize_measured(
        self, x: Prepared, spec: Spec, given: Given, draw: Draw
    ) -> tuple[Parts, NDArray[np.float64] | None]:
        """The same of a piece, and the figures of its chunks (sums.py) where they come with it."""
        return self.quantize_prepared(x, spec, given, draw, whole=False), None

    def stored(self, affine: Affine, options: AffineOptions) -> Affine:
        """A scale and a zero point in the types in which they are kept."""
        scale, zero = affine
        if scale.itemsize == 8 and options.scale_type != "float64":
            scale = self.give(scale, "float32")
        if zero is not None and options.zero_point_type == "float32":
            zero = self.give(zero, "float32")
        return Affine(scale, zero)

    def fake_quantize(self, x: Any, spec: Spec, given: Given, draw: Draw, clip: bool = False) -> Any:
        """numerics.fake_quantize; clip: of gradients, which arrays have not."""
        came = self.prepare(x)
        data, original = came
        if given.scale is not None or given.zero_point is not None or given.tensor_scale is not None:
            spec.check_given(given)
        if spec.blocked:
            options = _block_options(spec, given, draw)
            values = round_blocks(self, data, spec, options)
        elif not spec.scaled and given.scale is None:
            say_what_is_lost(spec, data)
            values = self.round(data, spec.element, _cast(spec, draw), None)
        else:
            with ieee_arithmetic():
                affine, partition, _ = self._affine(came, spec, given)
                how = Rounding(spec.rounding, draw=draw)
                values = self.round_affine(data, spec.element, partition, affine, how)
        return self.give(values, original)

    def dequantize(self, parts: Parts, spec: Spec, original: str) -> Any:
        """numerics.dequantize: the values, as that float type."""
        packed, scale, _, number, shape, was = parts
        if spec.blocked:
            stored = PackedBlocks(spec.block, spec.axis or 0, shape, packed, scale, number)
            values = self.dequantize_blocks(stored)
            return self.give(self.give(values, wide_type(was)), original)
        affine = self.affine_of(parts, spec)
        values = self.dequantize_packed(packed, spec.element, spec.partition(shape), affine)
        return self.give(values, original)

    def affine_of(self, parts: Parts, spec: Spec) -> Affine:
        """The scale and the zero point of a quantized tensor in the types in which values are computed."""
        scale, zero, wide = parts.shared, parts.zero_point, wide_type(parts.original)
        if zero is not None and spec.zero_point_type == "float32":
            zero = self.give(zero, wide)
        return Affine(self.give(scale, wide), zero)

    def _affine(
        self, x: Prepared, spec: Spec, given: Given, whole: bool = True
    ) -> tuple[Affine, Partition, AffineOptions]:
        """The scale and the zero point of a tensor: found, or given and checked; 1 of a cast.

        whole: False for a piece of a tensor, of which nothing is said.
        """
        (data, original), zero, scale = x, None, None
        partition: Partition = spec.partition(tuple(data.shape))
        options: AffineOptions = spec.affine_options(original)
        if given.scale is not None:
            scale = _positive("scale", given.scale, partition.shared)
        elif not spec.scaled:
            scale = np.ones(partition.shared)
        if given.zero_point is not None:
            beside = None if given.scale is None else scale
            zero = _given_zero(spec, given.zero_point, beside, wide_type(original))
        if scale is not None and (spec.symmetric or zero is not None):
            wide = wide_type(original)
            return self.given_affine(scale, zero, options, wide, data), partition, options
        low, high = self.extremes(data, partition)
        if whole and spec.clips and bool((low < 0).any()):
            say_what_is_lost(spec, data)
        if whole and isinstance(high, np.ndarray) and not (high.any() or low.any()):
            _say_nan(data, spec.element)
        return self.find_affine(low, high, spec.element, options, scale), partition, options


def wide_type(original: str) -> str:
    """The type in which a tensor of that type is computed: at least float32."""
    return "float64" if original in ("float64", "python") else "float32"


def _cast(spec: Spec, draw: Draw) -> Rounding:
    """How a wide float is cast."""
    return Rounding(spec.rounding, spec.element.default_overflow, draw)


def _block_options(spec: Spec, given: Given, draw: Draw) -> BlockOptions:
    asked = BlockOptions(spec.scale_rule, spec.rounding, given.tensor_scale, draw)
    return spec.block.check_options(asked)


_TELLER: ContextVar[Callable[[str], None] | None] = ContextVar("numerics_teller", default=None)


@contextmanager
def told_by(tell: Callable[[str], None]) -> Iterator[None]:
    """Hands what an unsigned format loses, in words, to who knows whose values they are."""
    before = _TELLER.set(tell)
    try:
        yield
    finally:
        _TELLER.reset(before)


_COUNTED: ContextVar[bool] = ContextVar("numerics_counts_nan", default=False)


@contextmanager
def nan_is_counted() -> Iterator[None]:
    """For who says itself how many values of a tensor are not finite, as pictures do: nobody is warned."""
    before = _COUNTED.set(True)
    try:
        yield
    finally:
        _COUNTED.reset(before)


@dataclass
class Clipped:
    """How many values an unsigned format loses, counted over the pieces of a tensor."""

    dtype: Element
    count: int = 0
    size: int = 0

    def add(self, data: Any) -> None:
        """Counts those of a piece."""
        with ieee_arithmetic():
            self.count += int((data < 0).sum())
        self.size += math.prod(data.shape)

    def say(self, where: str = "") -> None:
        """Warns where there are any; where: the words before."""
        if self.count:
            d = self.dtype
            keeps = (
                "symmetric=False shifts its range" if d.kind == "integer" else "a signed format keeps them"
            )
            tell = _TELLER.get() or warn
            tell(
                f"{where}{self.count} of {self.size} values are negative and become {d.min:g}: "
                f"{d} is unsigned; {keeps}"
            )


def _say_nan(data: Array, d: Element) -> None:
    """Warns of NaN that a format does not have, where no finite value but 0 is beside them.

    Of a tensor that has others nothing is said: `QTensor.error` reads it once more, which this does not.
    """
    count = 0 if _COUNTED.get() or getattr(d, "has_nan", False) else int(np.isnan(data).sum())
    if count:
        becomes = 0 if d.kind == "integer" else d.max
        tell = _TELLER.get() or warn
        tell(f"{count} of {math.prod(data.shape)} values are NaN and become {becomes:g}: {d} has no NaN")


def say_what_is_lost(spec: Spec, data: Any) -> None:
    """Warns of the negative values of a whole tensor, where the format of the spec is unsigned."""
    if spec.clips:
        lost = Clipped(spec.element)
        lost.add(data)
        lost.say()


# ---- scales and zero points that are given -------------------------------------------------------


def _given_zero(spec: Spec, came: Any, scale: Array | None, wide: str) -> Array:
    if spec.symmetric:
        raise NumericsError("symmetric=True has no zero point; zero_point belongs to symmetric=False")
    if scale is None:
        raise NumericsError("zero_point is given without its scale; give scale= too")
    found = _numbers("zero_point", came, scale.shape)
    check_in_range(found, spec.element)
    if spec.zero_point_type == "float32":
        return found.astype(np.float32).astype(wide)
    if not np.all(found == np.rint(found)):
        raise NumericsError(f"zero_point {_first(found, found == np.rint(found))} is not an integer; "
                            "zero_point_type='float32' takes others")  # fmt: skip
    return found.astype(np.int32)


def check_in_range(zero: Array, d: Element) -> None:
    """Raises NumericsError for zero points beyond the range of a format, NaN among them."""
    if zero.size and not (d.min <= zero.min() and zero.max() <= d.max):
        first = _first(zero, np.asarray((d.min <= zero) & (zero <= d.max)))
        raise NumericsError(f"zero_point {first} is outside {d.min:g} .. {d.max:g}, the range of {d}")


def check_finite(name: str, found: Array) -> None:
    """Raises NumericsError for scales or zero points that are NaN or infinite."""
    good = np.asarray(np.isfinite(found))
    if not good.all():
        raise NumericsError(f"{name} {_first(found, good)} is not finite")


def _numbers(name: str, came: Any, shape: tuple[int, ...]) -> Array:
    try:
        found = to_host(came) if is_tensor(came) else listed(name, came)
        if found.dtype != np.float64 and found.dtype.kind in "fiuV":
            found = found.astype(np.float64)
    except (ValueError, TypeError) as wrong:
        raise NumericsError(f"{name} cannot be read as numbers: {wrong}") from None
    if found.dtype != np.float64:
        raise NumericsError(f"{name} must be real numbers, not {found.dtype.name}")
    if found.shape != shape:
        raise NumericsError(f"{name} has shape {found.shape}; the scheme needs {shape}")
    return found


def _positive(name: str, came: Any, shape: tuple[int, ...]) -> Array:
    found = _numbers(name, came, shape)
    if found.size == 1 and 0 < found.item() < np.inf:
        return found
    good = np.asarray((found > 0) & (found < np.inf))
    if not good.all():
        raise NumericsError(f"{name} {_first(found, good)} is not allowed: positive and finite")
    return found


def _first(found: Array, good: Array) -> str:
    """The first one that is not good."""
    return digits(found[~good][0] if found.ndim else found)


def to_host(x: Any) -> Array:
    """An array of any backend as NumPy's."""
    if not is_tensor(x):
        return np.asarray(x)
    return as_array(x if x.is_meta else x.cpu())  # of a meta tensor there is nothing to copy
