"""QTensor: a tensor in a low-precision format, as the bytes that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.affine import AffineBackend
from numerics.backends.executor import Affine
from numerics.formats import backend
from numerics.formats.block import Block, Blocks
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, one_of
from numerics.scheme import Scheme

Array = NDArray[Any]
ORIGINALS = ("float16", "bfloat16", "float32", "float64", "python")
SCALE_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "pof2": 8}
CHUNK = 1 << 18  # elements of which errors are summed at a time


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class QTensor:
    """A quantized tensor: packed codes (uint8) and what they share.  Made by `quantize` or `load`.

    shape: of the tensor, as it was.  scheme: None for block formats, which have an axis instead.
    shared: the scales that stand beside the codes: float32 (float64 for scale_type "float64") in
    the shape that the scheme gives, codes of the block's scale format, None for microexponents.
    original: the float type that was quantized; "python" for Python numbers.

    >>> import numerics as nx
    >>> nx.quantize([0.5, -1.0, 2.0, 3.5], "int4")
    QTensor(int4, shape=(4,), per_tensor(), 12 bits a value)
    """

    dtype: Dtype
    shape: tuple[int, ...]
    packed: Array
    shared: Array | None = None
    zero_point: Array | None = None
    scheme: Scheme | None = None
    axis: int | None = None
    tensor_scale: float | None = None
    scale_type: str = "float32"
    original: str = "float32"

    def __repr__(self) -> str:
        how = f"axis={self.axis}" if self.scheme is None else repr(self.scheme)
        return f"QTensor({self.dtype}, shape={self.shape}, {how}, {self.bits:.4g} bits a value)"

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # without what was unpacked

    @cached_property
    def codes(self) -> Array:
        """The codes (uint8 or uint16) in the tensor's shape, unpacked when first asked for."""
        if isinstance(self.dtype, Block):
            return cast(Array, self.blocks.codes)
        return cast(Array, cast(Element, self.dtype).unpack(self.packed, self.shape))

    @cached_property
    def blocks(self) -> Blocks:
        """The Blocks of a block format; raises NumericsError for another."""
        if not isinstance(self.dtype, Block):
            raise NumericsError(f"{self.dtype} is not a block format")
        axis = cast(int, self.axis)
        return self.dtype.unpack(
            self.packed, self.shape, axis=axis, scale=self.shared, tensor_scale=self.tensor_scale
        )

    @property
    def scale(self) -> Array:
        """The scales: floats; for block formats, bytes (dtype.Blocks)."""
        return cast(Array, self.blocks.scale if self.shared is None else self.shared)

    @property
    def microexponents(self) -> Array | None:
        """One byte a block, or None where the format has none."""
        return cast("Array | None", self.blocks.microexponents) if self.shared is None else None

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of all that they share, as stored."""
        zeros = 0 if self.zero_point is None else 4 * self.zero_point.size
        return self.packed.nbytes + self._scale_bytes + zeros + 4 * (self.tensor_scale is not None)

    @property
    def _scale_bytes(self) -> int:
        if self.shared is None:
            return 0
        bits = 8 * self.shared.itemsize if self.scheme is None else SCALE_BITS[self.scale_type]
        return self.shared.size * bits // 8

    @property
    def bits(self) -> float:
        """Bits a value, all that is shared included; the format's own where there is no value."""
        return 8 * self.nbytes / self.size if self.size else float(getattr(self.dtype, "bits", 0))

    def dequantize(self, dtype: Any = None) -> Any:
        """The values, in the type that was quantized or in `dtype`: float16, bfloat16, float32, float64.

        bfloat16 needs ml_dtypes.  A value that the type cannot hold is rounded to it half to even.
        Raises NumericsError for another type (FORMATS §6).

        >>> import numerics as nx
        >>> nx.quantize([0.5, -1.0, 2.0, 3.5], "int4").dequantize()
        [0.5, -1.0, 2.0, 3.5]
        """
        name = self.original if dtype is None else _float_name(dtype)
        if name == "bfloat16":
            needs_ml_dtypes()
        return self._backend.give(self.values(), name)

    def values(self) -> Array:
        """The values as they are computed: float32; float64 where that, or Python, was quantized."""
        wide = self.wide
        if isinstance(self.dtype, Block):
            found = self._backend.dequantize_blocks(
                self.packed, self.shared, self.dtype, self.shape, cast(int, self.axis), self.tensor_scale
            )
            return cast(Array, found).astype(wide, copy=False)
        assert self.scheme is not None
        partition = self.scheme.partition(self.shape)
        return cast(
            Array,
            self._backend.dequantize(self.codes, cast(Element, self.dtype), partition, self._affine(wide)),
        )

    @property
    def wide(self) -> str:
        """The type in which scales and values are computed."""
        return wide_type(self.original)

    def _affine(self, wide: str) -> Affine:
        zero = self.zero_point
        if zero is not None and zero.dtype.kind == "f":
            zero = zero.astype(wide)
        assert self.shared is not None
        return Affine(self.shared.astype(wide), zero)

    @property
    def _backend(self) -> AffineBackend:
        return affine_backend(self.packed)

    def error(self, x: Any) -> Error:
        """How far the values are from x, which has the tensor's shape: SQNR in dB, largest error.

        Computed in float64 over the finite elements of x.  Raises NumericsError for another shape.

        >>> import numerics as nx
        >>> nx.quantize([0.5, -1.0, 2.0, 3.5], "int4").error([0.5, -1.0, 2.0, 3.5])
        Error(sqnr=inf, max_error=0.0)
        """
        data, _ = affine_backend(x).prepare(x)
        if data.shape != self.shape:
            raise NumericsError(f"x has shape {data.shape}, the quantized tensor {self.shape}")
        sums = ErrorSums()
        sums.add(data, self.values())
        return sums.error


@dataclass(frozen=True)
class Error:
    """Signal-to-quantization-noise ratio in dB, and the largest absolute error."""

    sqnr: float
    max_error: float


@dataclass
class ErrorSums:
    """Power of a signal and of its error, summed as parts of it come; addable."""

    signal: float = 0.0
    noise: float = 0.0
    max_error: float = 0.0

    def add(self, x: Array, y: Array) -> None:
        """Takes in a part: x as it was and y as it became."""
        x, y = x.reshape(-1), y.reshape(-1)
        for start in range(0, x.size, CHUNK):
            self._add(x[start : start + CHUNK], y[start : start + CHUNK])

    def _add(self, x: Array, y: Array) -> None:
        finite = np.isfinite(x)
        signal = x[finite].astype(np.float64)
        with np.errstate(all="ignore"):
            error = np.abs(signal - y[finite])
            self.signal += float(signal @ signal)
            self.noise += float(error @ error)
        self.max_error = float(np.max(error, initial=self.max_error))

    def merge(self, other: ErrorSums) -> None:
        """Takes in the sums of another signal."""
        self.signal += other.signal
        self.noise += other.noise
        self.max_error = max(self.max_error, other.max_error)

    @property
    def error(self) -> Error:
        """What the sums say; an exact copy has an infinite SQNR."""
        if self.noise == 0:
            return Error(math.inf, self.max_error)
        ratio = self.signal / self.noise
        if not ratio > 0:
            return Error(-math.inf if ratio == 0 else ratio, self.max_error)
        return Error(10 * math.log10(ratio), self.max_error)


def affine_backend(x: Any) -> AffineBackend:
    """The backend that owns x."""
    return cast(AffineBackend, backend.of(x))


def wide_type(original: str) -> str:
    """The type in which a tensor of that type is computed: at least float32."""
    return "float64" if original in ("float64", "python") else "float32"


def _float_name(dtype: Any) -> str:
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", "")
    return one_of("float type", str(name), ORIGINALS[:-1])


def needs_ml_dtypes() -> None:
    """Raises NumericsError where NumPy has no bfloat16."""
    try:
        import ml_dtypes  # noqa: F401
    except ImportError:
        raise NumericsError(
            "NumPy has no bfloat16 of its own: pip install ml_dtypes, or ask for another type, "
            'as in dequantize("float32")'
        ) from None
