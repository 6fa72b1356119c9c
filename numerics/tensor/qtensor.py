"""QTensor: a tensor in a low-precision format, as the bytes that it takes.

What it says and how it is cut is written once, for every array library; ArrayQTensor keeps it in a
backend's own arrays, numerics/pytorch/qtensor.py makes it a torch tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from operator import add
from types import MappingProxyType
from typing import Any, NamedTuple, Never, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from numerics.backends.host import sums
from numerics.backends.host.backend import HostBackend
from numerics.backends.host.float_bits import bfloat16_type
from numerics.backends.host.quantizing import to_host, wide_type
from numerics.backends.host.tensors import is_of_level, is_tensor, number_of
from numerics.backends.partition import check_axis
from numerics.formats import dispatch
from numerics.formats.arguments import MISSING, keywords, required, unknown_argument
from numerics.formats.block import Blocks, ElementBlock, stored_scale
from numerics.formats.dtype import Dtype, told_apart
from numerics.formats.errors import NumericsError, a_kind_of, one_of
from numerics.formats.notebook import facts_table
from numerics.formats.protocol import Parts
from numerics.formats.registry import name_of_type
from numerics.tensor import slicing
from numerics.tensor.parts import ORIGINALS as ORIGINALS
from numerics.tensor.parts import PARTS, check_numbers, check_parts
from numerics.tensor.scheme import Scheme
from numerics.tensor.spec import QuantSpec

Array = NDArray[Any]
SCALE_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "pof2": 8}
CHUNK = 1 << 18  # elements that are counted at a time
SHOWN = 6  # values of a notebook's view


INNER = frozenset((
    "arrays", "blocks_alone", "check_numbers", "check_parts", "check_whole", "count_writes", "decoded",
    "each", "fitting", "folds", "function", "given", "kept", "kept_by_name", "made", "of_parts", "parts",
    "settled", "takes_data", "values_of", "with_parts",
))  # fmt: skip
"""Names of a QTensor that are none of its user's: `dir` and completion leave them out."""


class QTensor:
    """A quantized tensor: packed codes and the scales that they share.  Made by `quantize` and `load`.

    shape: of the tensor, as it was.  spec: the options by which it was quantized, a QuantSpec.
    packed: its codes in C order as one string of bits (uint8); of mx4, mx6, mx9 whole blocks
    (docs/layout.md).
    shared: the scales beside the codes: float32 (float64 where that is the scale type) in the shape that the
        scheme makes; of blocks codes of the scale's format, one a block; None for mx4, mx6, mx9.
    zero_point: int32, or floats, in the shape of the scales; None where symmetric, and for blocks.
    tensor_scale: NVFP4's one float32 scale; None elsewhere.
    original: the float type that was quantized, such as "float32"; "python" for Python numbers.
    Slices, device moves and files keep it quantized; arithmetic is that of its values.

    >>> import numerics as nx
    >>> nx.quantize([0.5, -1.0, 2.0, 3.5], "int4")
    QTensor(int4, shape=(4,), per_tensor(), 12 bits a value)
    """

    spec: QuantSpec
    shape: tuple[int, ...]
    packed: Any
    shared: Any
    zero_point: Any
    tensor_scale: Any
    original: str

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NumericsError("QTensor cannot be made by its name: nx.quantize and nx.load make them")

    @staticmethod
    @required
    def from_parts(
        spec: Any,
        codes: Any,
        scale: Any = None,
        *unnamed: Never,
        zero_point: Any = None,
        tensor_scale: float | None = None,
        original: str = "float32",
        **unknown: Never,
    ) -> QTensor:
        """Returns a tensor of codes and scales that another tool made; nothing is computed.

        spec: a QuantSpec, or a format.  codes: one an element, in the tensor's shape: uint8, or uint16 for
        more than 8 bits, two's complement for signed integers; a NumPy array or a torch tensor.  scale: as
        `QTensor.scale` is: floats in the shape that the scheme makes, or one byte a block.  zero_point: in
        that shape, where the spec is not symmetric.  tensor_scale: NVFP4's.  original: the float type that
        the tensor stands for.  value = (code - zero_point) * scale, and of blocks as `Block.decode` says.

        Raises NumericsError for parts of other types and shapes, codes that the format does not have, scales
        that are not finite numbers of their type, integers as zero points beyond the format's range, and
        formats whose scales lie among the codes (mx4, mx6, mx9).

        >>> import numerics as nx, numpy as np
        >>> codes, scale = np.uint8([[1, 15], [8, 7]]), np.float32([0.5, 2.0])
        >>> nx.QTensor.from_parts(nx.QuantSpec("int4", scheme="per_channel(0)"), codes, scale).dequantize()
        array([[  0.5,  -0.5],
               [-16. ,  14. ]], dtype=float32)
        """
        if unknown or unnamed or spec is MISSING or codes is MISSING:
            raise unknown_argument(QTensor.from_parts, unknown, (spec, codes), unnamed)
        found = spec if isinstance(spec, QuantSpec) else QuantSpec(spec)
        return _of_codes(found, codes, {
            "shared": scale, "zero_point": zero_point, "tensor_scale": tensor_scale,
        }, original)  # fmt: skip

    def __dir__(self) -> list[str]:
        """What a QTensor has for its user; what the house hands on is left out."""
        return [name for name in super().__dir__() if name not in INNER]

    def __repr__(self, **options: Any) -> str:
        how = f"axis={self.axis}" if self.scheme is None else repr(self.scheme)
        how = how if self.spec.rows == 1 else repr(self.spec.scheme)
        known = all(type(size) is int for size in (*self.shape, *self.packed.shape))  # a compiler's are not
        short = self.spec.short(tuple(self.shape)) if known and self.scheme is not None else ""
        how += f", {short}" if short else ""
        bits = f", {self.bits:.4g} bits a value" if known else ""
        return f"QTensor({told_apart(self.format)}, shape={tuple(self.shape)}, {how}{bits})"

    def _repr_html_(self) -> str:
        """A notebook's view: what it is, and its first values with their codes."""
        rows = [("format", repr(self.format)), ("shape", str(tuple(self.shape)))]
        rows += [("shared", f"axis {self.axis}" if self.scheme is None else repr(self.scheme))]
        rows += [("shorter", short)] if (short := self.spec.short(tuple(self.shape))) else []
        rows += [("bits a value", f"{self.bits:.4g}"), ("bytes", f"{self.nbytes:,}"), *self._first()]
        return facts_table(rows)

    def _first(self) -> list[tuple[str, str]]:
        """The first codes and values, taken out without unpacking the rest."""
        if math.prod(self.shape) == 0:
            return []
        spans = [slicing.sharing(self, axis) for axis in range(len(self.shape))]
        spans[-1:] = [span * -(-SHOWN // span) for span in spans[-1:]]
        q = self[tuple(map(slice, spans))]
        codes, values = (to_host(found).reshape(-1)[:SHOWN] for found in (q.codes, q.dequantize("float64")))
        return [("first codes", ", ".join(str(int(c)) for c in codes)),
                ("first values", ", ".join(f"{float(v):.6g}" for v in values))]  # fmt: skip

    @property
    def format(self) -> Dtype:
        """The number format of the codes."""
        return self.spec.dtype

    @property
    def scheme(self) -> Scheme | None:
        """Which elements share a scale: a Scheme; None for block formats."""
        return None if self.spec.blocked else self.spec.scheme_of_elements

    @property
    def axis(self) -> int | None:
        """The axis along which blocks lie; None for formats of single numbers."""
        return self.spec.axis

    @property
    def scale_type(self) -> str:
        """The type of the scales, as `quantize` takes it: float32, float16, bfloat16, pof2, float.

        float: the type of the tensor that was quantized, whichever that was.
        """
        return self.spec.known_scale_type

    @property
    def codes(self) -> Any:
        """The codes in the tensor's shape, unpacked: uint8, or uint16 for more than 8 bits."""
        if self.spec.blocked:
            return self.blocks_alone.codes
        return self.spec.element.unpack(self.packed, tuple(self.shape))

    @property
    def blocks(self) -> Blocks:
        """The codes with all that their blocks share, as `Block.decode` takes them.

        Raises NumericsError for a format of single numbers.
        """
        if not self.spec.blocked:
            raise NumericsError(f"{self.format} is not a block format")
        return self._unpacked(None if self.tensor_scale is None else number_of(self.tensor_scale))

    @property
    def blocks_alone(self) -> Blocks:
        """The same without the scale of the tensor where that is one itself: to read it is to wait for it.

        On "meta" it has no value, and the codes can still be had.
        """
        return self._unpacked(None) if is_tensor(self.tensor_scale) else self.blocks

    def _unpacked(self, tensor_scale: float | None) -> Blocks:
        return self.spec.block.unpack(
            self.packed, tuple(self.shape), axis=cast(int, self.axis), scale=self.shared,
            tensor_scale=tensor_scale,
        )  # fmt: skip

    @property
    def scale(self) -> Any:
        """The scales: floats in the shape that the scheme makes; of blocks one byte each, as in `Blocks`."""
        return self.blocks.scale if self.shared is None else self.shared

    @property
    def microexponents(self) -> Any:
        """The microexponents of each block, bit j for sub-block j; None where the format has none."""
        return self.blocks.microexponents if self.shared is None else None

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of all scales and zero points, as they are stored."""
        zeros = 0 if self.zero_point is None else 4 * math.prod(self.zero_point.shape)
        return int(self.packed.nbytes) + self._scale_bytes + zeros + 4 * (self.tensor_scale is not None)

    @property
    def _scale_bytes(self) -> int:
        if self.shared is None:
            return 0
        bits = (
            8 * self.shared.itemsize
            if self.scheme is None
            else SCALE_BITS[self.spec.stored_scale_type(self.original)]
        )
        return int(math.prod(self.shared.shape) * bits // 8)

    @property
    def bits(self) -> float:
        """Bits a value, scales and zero points included; the format's own where there is no value."""
        count = math.prod(self.shape)
        return 8 * self.nbytes / count if count else float(getattr(self.format, "bits", 0))

    def dequantize(self, dtype: Any = None) -> Any:
        """Returns the values in the tensor's shape.

        dtype: float16, bfloat16, float32 or float64, whoever's; None (the default) is the type that was
        quantized.  NumPy's bfloat16 needs ml_dtypes.  A value that the type cannot hold is rounded to it half
        to even.  Raises NumericsError for another type.

        >>> import numerics as nx
        >>> nx.quantize([0.5, -1.0, 2.0, 3.5], "int4").dequantize()
        [0.5, -1.0, 2.0, 3.5]
        """
        raise NotImplementedError

    @required
    def error(self, x: Any, *unnamed: Never, **unknown: Never) -> Error:
        """Returns how far the values are from x: `sqnr` in dB, and `max_error`, the largest |difference|.

        x: as for `quantize`, of the tensor's shape; or a QTensor, which counts by its values.
        Computed in float64 over the finite elements of x; how many others there are, NaN and Inf, is
        `non_finite`.  Raises NumericsError for another shape.

        >>> import numerics as nx
        >>> nx.quantize([0.5, -1.0, 2.0, 3.5], "int4").error([0.5, -1.0, 2.0, 3.5])
        Error(sqnr=inf, max_error=0.0, non_finite=0)
        """
        if unknown or unnamed or x is MISSING:
            raise unknown_argument(QTensor.error, unknown, (x,), unnamed)
        x = values_of(x)
        data = to_host(dispatch.owner(x).prepare(x).data)
        if data.shape != tuple(self.shape):
            raise NumericsError(f"x has shape {data.shape}, the quantized tensor {tuple(self.shape)}")
        sums = ErrorSums()
        sums.take(self._figures(data))
        return sums.error

    def _figures(self, x: Array) -> Figures:
        """What ErrorSums takes of x as it was, which this is of."""
        return Figures.of(x, to_host(self.decoded()))

    @keywords
    def decoded(self) -> Any:
        """Returns the values as they are computed: float32; float64 where that, or Python, was quantized."""
        return self.dequantize(wide_type(self.original))

    def __getitem__(self, index: Any) -> Any:
        """Returns a part along any axis, still quantized; along a blocked one between its blocks or groups.

        index: integers, slices and `...`.  Raises NumericsError for others, and where blocks or
        groups would be cut.

        >>> import numerics as nx
        >>> q = nx.quantize([[0.5, -7.0], [2.0, 3.5]], "int4", scheme=nx.per_channel(0))
        >>> q[1], q[:, 1:].dequantize()
        (QTensor(int4, shape=(2,), per_tensor(), 20 bits a value), [[-7.0], [3.5]])
        """
        return slicing.part(self, index)

    def to(self, *where: Any, **options: Any) -> Any:
        """Returns the same on another device, as `torch.Tensor.to` takes it; arrays become torch tensors."""
        raise NotImplementedError

    def with_parts(
        self, spec: QuantSpec, shape: tuple[int, ...], packed: Any, shared: Any, zero_point: Any
    ) -> QTensor:
        """Returns the same kind of tensor made of other parts, with this one's tensor scale."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ArrayQTensor(QTensor, NDArrayOperatorsMixin):
    """A QTensor of a backend's own arrays: NumPy's; on a GPU, those of its kernels.

    Raises NumericsError for parts that are not those of the spec and the shape (parts.py).
    """

    spec: QuantSpec
    shape: tuple[int, ...]
    packed: Any
    shared: Any = None
    zero_point: Any = None
    tensor_scale: float | None = None
    original: str = "float32"

    def __post_init__(self) -> None:
        self.check_parts()
        self.check_numbers()

    @classmethod
    def fitting(cls, spec: QuantSpec, parts: Parts) -> ArrayQTensor:
        """One of parts whose numbers were looked at before: types and shapes alone are, again."""
        made = cls.of_parts(spec, parts)
        made.check_parts()
        return made

    def check_parts(self) -> None:
        """Raises NumericsError for parts of other types and shapes than its spec says (parts.py)."""
        check_parts(self.spec, self.shape, self.original, {name: getattr(self, name) for name in PARTS})

    def check_numbers(self) -> None:
        """Raises NumericsError for scales and zero points that its spec does not have (parts.py)."""
        check_numbers(self.spec, self.original, {name: getattr(self, name) for name in PARTS})

    def __getstate__(self) -> dict[str, Any]:
        self.check_numbers()
        return {f.name: getattr(self, f.name) for f in fields(self)}  # without what was unpacked

    def __setstate__(self, state: Any) -> None:
        names = {f.name for f in fields(self)}
        if not isinstance(state, dict) or state.keys() != names:
            raise NumericsError(f"the state of a QTensor has {', '.join(sorted(names))}, and nothing else")
        self.__dict__.update(state)
        self.__post_init__()

    @cached_property
    def codes(self) -> Any:
        """The codes (uint8 or uint16) in the tensor's shape, unpacked when first asked for."""
        return super().codes

    @cached_property
    def blocks(self) -> Blocks:
        """The Blocks of a block format; raises NumericsError for another."""
        return super().blocks

    @property
    def dtype(self) -> Dtype:
        """The number format of the codes."""
        return self.format

    def __len__(self) -> int:
        """Indices of the first axis; raises NumericsError where there is none."""
        check_axis(0, self.shape)
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        """The parts along the first axis; errors as for indices."""
        return (self[place] for place in range(len(self)))

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """Its values, where NumPy is given it: always new."""
        return np.asarray(self.dequantize(), dtype)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **options: Any
    ) -> Any:
        """Arithmetic is that of the values; raises NumericsError where it would write to a QTensor."""
        if any(isinstance(x, QTensor) for x in out):
            raise NumericsError(f"{ufunc.__name__} would change a QTensor in place; dequantize it first")
        plain = [np.asarray(x) if isinstance(x, ArrayQTensor) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **options, **({"out": out} if out else {}))

    def __setitem__(self, place: Any, value: Any) -> None:
        """Raises NumericsError: arrays of parts are written by nobody."""
        raise NumericsError(
            "a QTensor of arrays is not written into: dequantize it, write, and quantize again; one of "
            "tensors (q.to('cpu')) takes QTensors of its formats"
        )

    def __eq__(self, other: object) -> Any:
        """Compared as its values are; by NumPy's operator, which answers for what is no number too."""
        return np.asarray(self) == other

    def __ne__(self, other: object) -> Any:
        """Compared as its values are."""
        return np.asarray(self) != other

    __hash__ = object.__hash__

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def T(self) -> Array:
        """The values with their axes in the opposite order."""
        return np.asarray(self).T

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @classmethod
    def of_parts(cls, spec: QuantSpec, parts: Parts) -> ArrayQTensor:
        """What a backend has just made by that spec: parts that fit, which are not looked at again."""
        made = object.__new__(cls)
        made.__dict__.update(parts._asdict(), spec=spec)
        return made

    @property
    def parts(self) -> Parts:
        """What it consists of, as a backend takes it."""
        return Parts(
            self.packed, self.shared, self.zero_point, self.tensor_scale, self.shape, self.original
        )  # fmt: skip

    @required
    def dequantize(self, dtype: Any = None, *unnamed: Never, **unknown: Never) -> Any:
        """Returns the values in the type that was quantized, or in `dtype`: a float of 16, 32 or 64 bits."""
        if unknown or unnamed:
            raise unknown_argument(QTensor.dequantize, unknown, (), unnamed)
        name = self.original if dtype is None else float_name(dtype)
        if name == "bfloat16" and not is_tensor(self.packed):
            bfloat16_type()
        return dispatch.owner(self.packed).dequantize(self.parts, self.spec, name)

    def _figures(self, x: Array) -> Figures:
        """The same, in one pass where the backend has one."""
        chunks = None if is_tensor(self.packed) else host_of(x).error_sums_of(x, self.parts, self.spec)
        return super()._figures(x) if chunks is None else Figures.of_chunks(chunks, x.size)

    def to(self, *where: Any, **options: Any) -> Any:
        """Returns the same as tensors of torch on another device, as `torch.Tensor.to` takes it."""
        tensors = dispatch.converter("torch")(self)
        try:
            return tensors.to(*where, **options)
        except (TypeError, RuntimeError, AssertionError) as wrong:  # torch's, of a device that is not here
            raise NumericsError(f"to() takes what torch.Tensor.to takes: {wrong!s:.300}") from None

    def with_parts(
        self, spec: QuantSpec, shape: tuple[int, ...], packed: Any, shared: Any, zero_point: Any
    ) -> ArrayQTensor:
        """Returns the same kind of tensor made of other parts, with this one's tensor scale."""
        parts = Parts(packed, shared, zero_point, self.tensor_scale, shape, self.original)
        return ArrayQTensor.fitting(spec, parts)


def _of_codes(spec: QuantSpec, codes: Any, parts: dict[str, Any], original: str) -> QTensor:
    """What `QTensor.from_parts` makes."""
    if spec.blocked and not spec.block.scale_beside:
        raise NumericsError(f"{spec.dtype}: its scales lie among the codes (docs/layout.md); use Block.pack")
    element = cast(ElementBlock, spec.block).element if spec.blocked else spec.element
    if not isinstance(codes, np.ndarray) and not is_tensor(codes):
        raise NumericsError(f"codes are a NumPy array or a torch tensor, not {a_kind_of(codes)}")
    parts["packed"] = element.pack(codes)
    if parts["tensor_scale"] is not None:
        parts["tensor_scale"] = stored_scale(parts["tensor_scale"])
    made = ArrayQTensor(spec=spec, shape=tuple(codes.shape), original=original, **parts)
    return cast(QTensor, dispatch.converter("torch")(made)) if is_tensor(codes) else made


@dataclass(frozen=True)
class Error:
    """Signal-to-quantization-noise ratio in dB, the largest absolute error, and what is in neither.

    sqnr: 10 log10(sum of x**2 / sum of (x - y)**2) over the finite elements of x.  inf says that the whole is
    exact: all elements are finite, and kept (none, too).  -inf where one became Inf; NaN where one became
    NaN, and where nothing can be said: no element of x is finite, or those that are are kept exactly beside
    others that are not.  max_error: over the same ones, NaN where one became NaN or none is finite.
    non_finite: how many elements of x are NaN or Inf, which the others leave out.
    """

    sqnr: float
    max_error: float
    non_finite: int = 0


def rank(sqnr: float) -> float:
    """What sorts SQNRs, the worst first: NaN before all others."""
    return -math.inf if math.isnan(sqnr) else sqnr


class Figures(NamedTuple):
    """What ErrorSums takes of a part: its chunks' sums (backends/host/sums.py), elements, those lost.

    chunks: of each figure, those of all chunks.  powers: of chunks whose squares float64 does not hold, by
    their number, the powers of 4 that the sums of x**2 and of (x-y)**2 are in units of.
    """

    chunks: list[list[float]]
    size: int
    lost: int
    powers: Mapping[int, tuple[int, int]] = MappingProxyType({})

    @classmethod
    def of(cls, x: Array, y: Array) -> Figures:
        """Returns those of x as it was and y as it became."""
        chunks = host_of(x).error_sums(x, y)
        whole = bool(np.isfinite(chunks[:, 1]).all())
        lost = 0 if whole else int(np.count_nonzero(np.isfinite(x) & ~np.isfinite(y)))
        powers = sums.scaled(chunks, x, y) if max(x.itemsize, y.itemsize) > 4 else {}
        return cls(chunks.T.tolist(), x.size, lost, powers)

    @classmethod
    def of_chunks(cls, chunks: sums.Sums, size: int) -> Figures:
        """Returns those of so many elements whose chunks' sums are all finite."""
        return cls(chunks.T.tolist(), size, 0)


@dataclass
class ErrorSums:
    """Power of a signal and of its error, summed as parts of it come; addable.

    count: elements that came, and non_finite: those of them that are in no other sum.  lost: the finite ones
    that became NaN or Inf.  signal_power, noise_power: signal is in units of 4**signal_power, noise likewise:
    0, but where float64 holds no squares of what came.
    """

    signal: float = 0.0
    noise: float = 0.0
    max_error: float = 0.0
    count: int = 0
    non_finite: int = 0
    lost: int = 0
    signal_power: int = 0
    noise_power: int = 0

    def add(self, x: Array, y: Array) -> None:
        """Takes in a part: x as it was and y as it became; of x, what is not finite is only counted."""
        self.take(Figures.of(x, y))

    def take(self, part: Figures) -> None:
        """The same of a part whose chunks are summed already."""
        self.count += part.size
        self.lost += part.lost
        signals, noises, others, errors = part.chunks
        if part.powers or self.signal_power or self.noise_power:
            for k, (signal, noise) in enumerate(zip(signals, noises, strict=True)):
                self._join(signal, noise, *part.powers.get(k, (0, 0)))
        else:
            self.signal = reduce(add, signals, self.signal)
            self.noise = reduce(add, noises, self.noise)
        self.non_finite += int(sum(others))
        self.max_error = max(self.max_error, *errors, 0.0)
        if math.isnan(self.noise):
            self.max_error = math.nan

    def merge(self, other: ErrorSums) -> None:
        """Takes in the sums of another signal."""
        self._join(other.signal, other.noise, other.signal_power, other.noise_power)
        self.count += other.count
        self.non_finite += other.non_finite
        self.lost += other.lost
        self.max_error = float(np.maximum(self.max_error, other.max_error))  # NaN stays

    def _join(self, signal: float, noise: float, signal_power: int, noise_power: int) -> None:
        """Takes in two sums, in units of these powers of 4."""
        self.signal, self.signal_power = _joined(self.signal, self.signal_power, signal, signal_power)
        self.noise, self.noise_power = _joined(self.noise, self.noise_power, noise, noise_power)

    @property
    def error(self) -> Error:
        """What the sums say; an exact copy has an infinite SQNR, and one of which a part is left out none."""
        if self.count == self.non_finite > 0:
            return Error(math.nan, math.nan, self.non_finite)
        if self.noise == 0 and self.non_finite:
            return Error(math.nan, self.max_error, self.non_finite)
        return Error(self._sqnr(), self.max_error, self.non_finite)

    def _sqnr(self) -> float:
        if self.noise == 0:
            return math.inf
        ratio, power = self.signal / self.noise, self.signal_power - self.noise_power
        if self.signal == 0 or math.isinf(self.noise):
            return -math.inf
        if power == 0 and not 0 < ratio < math.inf:  # NaN, or out of what float64 holds
            return 10 * (math.log10(self.signal) - math.log10(self.noise))
        return 10 * math.log10(ratio) + 20 * power * math.log10(2)


def _joined(one: float, power: int, other: float, of_other: int) -> tuple[float, int]:
    """The sum of two numbers in units of powers of 4, and the larger of these: its own where one is 0."""
    if power == of_other or not other:
        return one + other, power
    if not one:
        return other, of_other
    top = max(power, of_other)
    return math.ldexp(one, 2 * (power - top)) + math.ldexp(other, 2 * (of_other - top)), top


def host_of(x: Array) -> HostBackend:
    """Returns the backend that sums over x: the chosen one where it is the host's, else the fastest here."""
    finders: tuple[Callable[[], object], ...] = (lambda: dispatch.owner(x), lambda: dispatch.get("cpu"))
    for find in finders:
        with suppress(NumericsError):
            if isinstance(host := find(), HostBackend):
                return host
    return cast(HostBackend, dispatch.get("array"))


def check_quantized(what: str, q: Any) -> None:
    """Raises NumericsError for what is no QTensor."""
    if not isinstance(q, QTensor):
        if is_tensor(q) and is_of_level(q):
            raise NumericsError(
                f"{what} takes a QTensor, not what torch.vmap or another transformation of torch.func has in "
                "its place: give its values, q.dequantize(); torch's own products (F.linear, matmul) take it"
            )
        raise NumericsError(f"{what} takes a QTensor, not {type(q).__name__}")


def values_of(x: Any) -> Any:
    """x itself; of a QTensor its values."""
    return x.dequantize() if isinstance(x, QTensor) else x


def float_name(dtype: Any) -> str:
    """`float32` for a float type, whoever's; raises NumericsError for another."""
    return one_of("float type", name_of_type(dtype) or dtype, ORIGINALS[:-1])
