"""What is in a checkpoint, and what differs between two: a tensor at a time, of any kind of file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.checkpoints.foreign import lone_codes
from numerics.checkpoints.gguf_file import Undecoded
from numerics.checkpoints.loading import Opened, open_any
from numerics.files.checkpoint import PathLike, Progress
from numerics.formats.block import Block, ElementBlock, element_of, scale_values
from numerics.formats.dtype import Integer
from numerics.formats.errors import NumericsError
from numerics.tensor.qtensor import ErrorSums, QTensor
from numerics.tensor.spec import RECORD, QuantSpec, described
from numerics.view.text import figure

Array = NDArray[Any]
FLOATS = ("float16", "bfloat16", "float32", "float64")
RECORD_OF = "record of "
UNREAD = "not decoded"
ENOUGH = 16  # values for each code of a format: with fewer, chance leaves codes unused


@dataclass(frozen=True)
class Look:
    """One tensor, as it is.

    format: what it is read as: that of its codes with their options, or the type of an array; of the records
    in a wrapped model's state "record of" the spec that the scales beside it have.
    bits, nbytes: of a value, and of all, as the file has them: with scales, zero points, the tensor's scale.
    amax: the largest finite magnitude, None of what is no number and where none is finite.  scales: the
    least and the largest one.
    odd: what a look should stop at: NaN among values or scales, blocks of zeros, half of the codes unused.
    stored: what the file has where that is something else: GGUF's type, another tool's name.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    bits: float
    nbytes: int
    amax: float | None = None
    scales: tuple[float, float] | None = None
    odd: tuple[str, ...] = ()
    stored: str | None = None

    @property
    def record(self) -> str | None:
        """Of a record: the spec that it says."""
        return self.format.removeprefix(RECORD_OF) if self.format.startswith(RECORD_OF) else None


def inspect(path: PathLike) -> Iterator[Look]:
    """Yields what each tensor of a file or folder of any kind is, one at a time in memory.

    path: as for `numerics.checkpoints.loading.open_any`.  A tensor of several names comes under each, and
    takes bytes under the first.  Raises NumericsError as open_any does.

    >>> import numerics as nx, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": nx.quantize(np.float32([[0] * 32, [1] * 32]), "mxfp4")}, f"{folder}/a.safetensors")
    ...     (look,) = inspect(f"{folder}/a.safetensors")
    >>> look.format, look.scales, look.odd[0]
    ('mxfp4', (5.877471754111438e-39, 0.25), '1 of 2 blocks are zeros')

    """
    opened = open_any(path, mapped=False)
    for name in opened.names:
        look = _look(opened, name)
        yield look
        for alias in (alias for alias, kept in opened.ties.items() if kept == name):
            yield replace(look, name=alias, nbytes=0, odd=(f"tied: it is {name}",))


def _look(opened: Opened, name: str) -> Look:
    """A tensor as it comes out of the file, its bits and bytes as the file has them."""
    try:
        x = opened.tensor(name)
        why = opened.left.get(name) or lone_codes(x)
        look = _quantized(name, x) if isinstance(x, QTensor) else _plain(name, x, (why,) if why else ())
    except Undecoded as wrong:
        look = Look(name, wrong.shape, UNREAD, math.nan, 0, odd=(wrong.why,))
    stored, count = opened.stored(name), math.prod(look.shape)
    if stored is None:
        return look
    codes = name in opened.left and look.format not in FLOATS  # words of several codes, or parts of one
    bits = look.bits if codes or not count else 8 * stored.nbytes / count
    return replace(look, bits=bits, nbytes=stored.nbytes, stored=stored.kind)


def _plain(name: str, x: Any, odd: tuple[str, ...]) -> Look:
    kind = x.dtype.name
    bits = 8.0 * x.dtype.itemsize
    if kind not in FLOATS:
        return Look(name, x.shape, _recorded(name, x) or kind, bits, int(x.nbytes), odd=odd)
    values = x.astype(np.float64 if kind == "float64" else np.float32, copy=False)
    amax, bad = _finite(values)
    told = (*odd, *([f"{bad} values are NaN or Inf"] if bad else []))
    if values.size > 1 and amax == 0:
        told = (*told, f"all {'others' if bad else 'values'} are zero")
    return Look(name, x.shape, kind, bits, int(x.nbytes), amax, odd=told)


def _recorded(name: str, x: Array) -> str | None:
    """Of the record in a wrapped model's state: of which spec it says that the scales beside it are."""
    if name.rpartition(".")[2] != RECORD or x.dtype != np.uint8 or x.ndim != 1:
        return None
    try:
        return RECORD_OF + described(QuantSpec.parse(x.tobytes().decode()))
    except (NumericsError, UnicodeDecodeError):
        return None  # of a module of somebody's


def _finite(values: Array) -> tuple[float | None, int]:
    """The largest finite magnitude, None where none is finite, and how many values are not."""
    good = np.isfinite(values)
    bad = values.size - int(np.count_nonzero(good))
    rest = values if not bad else values[good]
    return (float(np.abs(rest).max()) if rest.size else None), bad


def _quantized(name: str, q: QTensor) -> Look:
    odd: list[str] = []
    values = cast(Array, q.decoded())
    amax, bad = _finite(values)
    if bad:
        odd.append(f"{bad} values are NaN or Inf")
    scale = _scales(q)
    scales = None
    if scale is not None and scale.size:
        good = scale[np.isfinite(scale)]
        scales = (float(good.min()), float(good.max())) if good.size else None
        if good.size < scale.size:
            odd.append(f"{scale.size - good.size} of {scale.size} scales are NaN")
    odd += [*_zero_blocks(q, values), *_unused(q)]
    return Look(
        name, tuple(q.shape), described(q.spec), q.bits, q.nbytes, amax, scales, tuple(odd)
    )  # fmt: skip


def _scales(q: QTensor) -> Array | None:
    """The scales as numbers; None where they lie among the codes."""
    if not q.spec.blocked:
        return np.asarray(q.scale).reshape(-1)
    if not isinstance(q.spec.dtype, ElementBlock):
        return None
    found = np.asarray(scale_values(q.spec.dtype, np.asarray(q.scale))).reshape(-1)
    return found if q.tensor_scale is None else found * np.float32(q.tensor_scale)


def _zero_blocks(q: QTensor, values: Array) -> list[str]:
    """Blocks and groups of which every value is zero."""
    if q.spec.blocked:
        axis, size, rows = cast(int, q.axis), q.spec.block.block, 1
    else:
        partition = q.spec.partition(tuple(q.shape))
        if partition.size is None or partition.axis is None:
            return []
        axis, size, rows = partition.axis, partition.size, partition.rows
    if not values.size:
        return []
    starts = np.arange(0, values.shape[axis], size)
    largest = np.maximum.reduceat(np.abs(values), starts, axis=axis)
    if rows > 1:
        largest = np.maximum.reduceat(largest, np.arange(0, values.shape[axis - 1], rows), axis=axis - 1)
    zeros = int(np.count_nonzero(largest == 0))
    return [f"{zeros} of {largest.size} blocks are zeros"] if zeros else []


def _unused(q: QTensor) -> list[str]:
    """Where half of the codes or fewer are used: a bit of the format is wasted.

    Codes of one value, as those of 0 and -0, count once, those of NaN and Inf never.  But of integers those
    count from the least magnitude that is used: what is below it is there for other tensors.
    """
    d = q.spec.block if q.spec.blocked else q.spec.element
    codes = np.asarray(q.codes)
    bits = int(d.element_bits if isinstance(d, Block) else d.bits)
    if bits > 8 or codes.size < ENOUGH << bits:
        return []
    used = np.bincount(codes.reshape(-1), minlength=1 << bits) > 0
    values = _values_of(d, bits)
    own = np.unique(values[used & np.isfinite(values)])
    every, least = np.unique(values[np.isfinite(values)]), ""
    if not isinstance(getattr(d, "element", d), Integer) and own.any():
        smallest = np.abs(own[own != 0]).min()
        every, own = (one[np.abs(one) >= smallest] for one in (every, own))
        least = f" from {figure(float(smallest))} up"
    few = 0 < 2 * own.size <= every.size
    return [f"only {own.size} of {every.size} codes{least} are used"] if few else []


def _values_of(d: Any, bits: int) -> Array:
    """The values of a format's codes; of blocks whose codes are read in two ways, or in tiers, the codes."""
    element = element_of(d)
    if element is not None:
        return np.array(element.values(), np.float64)
    return np.arange(1 << bits, dtype=np.float64)


# ---- two of them ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """How a tensor differs between two checkpoints.

    formats: of the first and of the second.  codes: how many codes differ, None where the formats do;
    scales: how many scales do, as numbers, None where they cannot be told apart from codes.
    values: how many values differ; first: the index of the first of them, with both values.  sqnr: of the
    second as an approximation of the first, in dB, over the finite values of the first, as of `Error`; inf
    where all of them are equal, NaN where there are none.  non_finite: how many values of the first are NaN
    or Inf, and lost: how many finite ones are that in the second.  why: it was not compared.
    type: as what the values were compared, float32 or float64.
    types: as what the values of quantized tensors come back, those of the first and of the second; empty of
    others.  bits: how many values of plain arrays that are equal as numbers have other bits: 0 and -0, NaN.
    """

    name: str
    formats: tuple[str, str]
    size: int = 0
    codes: int | None = None
    values: int = 0
    first: tuple[tuple[int, ...], float, float] | None = None
    sqnr: float = math.inf
    why: str | None = None
    non_finite: int = 0
    lost: int = 0
    type: str = "float32"
    scales: int | None = None
    types: tuple[str, ...] = ()
    bits: int = 0

    @property
    def equal(self) -> bool:
        """Are all values equal, however they are stored?"""
        return not self.values and self.why is None

    @property
    def same(self) -> bool:
        """Are all values equal, and stored in the same way: the formats, the codes and the scales?"""
        return self.equal and not self.stored

    @property
    def stored(self) -> str:
        """What differs in how it is stored, in words; nothing where nothing does."""
        if self.formats[0] != self.formats[1]:
            return f"{self.formats[0]} and {self.formats[1]}"
        told = [(self.codes, "codes"), (self.scales, "scales"), (self.bits, "bits of 0 or NaN")]
        types = [f"values of {' and '.join(self.types)}"] if len(set(self.types)) > 1 else []
        return ", ".join([*types, *(f"other {what}" for count, what in told if count)])


@dataclass
class Comparison:
    """What differs between two checkpoints: tensors by name, and names that only one of them has."""

    tensors: list[Difference] = field(default_factory=list)
    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Have both the same tensors, stored in the same way, with the same values?"""
        return self._of_both and all(one.same for one in self.tensors)

    @property
    def equal(self) -> bool:
        """Have both the same tensors with the same values, however they are stored?"""
        return self._of_both and all(one.equal for one in self.tensors)

    @property
    def _of_both(self) -> bool:
        return not self.only_first and not self.only_second


def compare(first: PathLike, second: PathLike, progress: Progress | None = None) -> Comparison:
    """Returns what differs between two checkpoints of any kinds, a tensor of each at a time in memory.

    A tensor that has several names is compared under each.  progress: called with the name of a tensor, how
    many are done, and of how many.
    Values are compared as float32 (float64 where one is that), NaN with NaN as equal.  Raises NumericsError
    as `open_any` does.
    """
    a, b = open_any(first, mapped=False), open_any(second, mapped=False)
    known, others = ({name: name for name in one.names} | dict(one.ties) for one in (a, b))
    found = Comparison(only_first=[n for n in known if n not in others],
                       only_second=[n for n in others if n not in known])  # fmt: skip
    both = [name for name in known if name in others]
    for place, name in enumerate(both):
        if progress is not None:
            progress(name, place, len(both))
        found.tensors.append(_difference(name, a.tensor(known[name]), b.tensor(others[name])))
    return found


def _difference(name: str, x: Any, y: Any) -> Difference:
    formats = _format(x), _format(y)
    if tuple(x.shape) != tuple(y.shape):
        why = f"shapes {tuple(x.shape)} and {tuple(y.shape)}"
        return Difference(name, formats, why=why)
    found = Difference(name, formats, **_stored(x, y))
    try:
        left, right = _values(x), _values(y)
    except NumericsError as wrong:
        return replace(found, why=str(wrong))
    if left.shape != right.shape:
        return replace(found, why="of complex and real numbers")
    wrong_ones = _unlike(left, right)
    count = int(np.count_nonzero(wrong_ones))
    found = replace(found, size=left.size)
    if not count:
        bad = left.size - int(np.count_nonzero(np.isfinite(left)))
        sqnr = math.nan if bad and bad == left.size else math.inf
        return replace(found, sqnr=sqnr, non_finite=bad)
    place = tuple(int(k) for k in np.unravel_index(int(np.argmax(wrong_ones)), left.shape))
    sums = ErrorSums()
    sums.add(np.ascontiguousarray(left).reshape(-1), np.ascontiguousarray(right).reshape(-1))
    first = place, float(left[place]), float(right[place])
    error, kind = sums.error, np.result_type(left, right).name
    return replace(found, values=count, first=first, sqnr=error.sqnr, non_finite=error.non_finite,
                   lost=sums.lost, type=kind)  # fmt: skip


def _stored(x: Any, y: Any) -> dict[str, Any]:
    """What differs in how two tensors are stored: codes, scales, types of values, bits of equal numbers."""
    codes, scales = _parts(x, y)
    if isinstance(x, QTensor) and isinstance(y, QTensor):
        types = tuple("float64" if one.original == "python" else one.original for one in (x, y))
        return {"codes": codes, "scales": scales, "types": types}
    plain = not isinstance(x, QTensor) and not isinstance(y, QTensor) and x.dtype == y.dtype
    return {"bits": _bits(x, y) if plain and x.dtype.kind not in "iub" else 0}


def _bits(left: Array, right: Array) -> int:
    """How many numbers that are equal, NaN with NaN, have other bits."""
    if not left.size:
        return 0
    real = [_values(x) for x in (left, right)]
    words = [np.ascontiguousarray(x).view(np.uint8).reshape(*one.shape, -1)
             for x, one in zip((left, right), real, strict=True)]  # fmt: skip
    return int(np.count_nonzero((words[0] != words[1]).any(axis=-1) & ~_unlike(*real)))


def _parts(x: Any, y: Any) -> tuple[int | None, int | None]:
    """How many codes and how many scales differ; None where two tensors have not the same of these."""
    if not (isinstance(x, QTensor) and isinstance(y, QTensor) and x.format is y.format):
        return None, None
    codes = int(np.count_nonzero(np.asarray(x.codes) != np.asarray(y.codes)))
    left, right = _scales(x), _scales(y)
    if left is None or right is None or left.shape != right.shape:
        return codes, None
    return codes, int(np.count_nonzero(_unlike(left, right)))


def _unlike(left: Array, right: Array) -> NDArray[np.bool_]:
    """Where two arrays differ, NaN and NaN being equal."""
    return cast("NDArray[np.bool_]", (left != right) & ~(np.isnan(left) & np.isnan(right)))


def _format(x: Any) -> str:
    return described(x.spec) if isinstance(x, QTensor) else str(x.dtype.name)


def _values(x: Any) -> Array:
    """As float32, or float64 where that is it, and for integers; of complex ones the parts in a last axis."""
    if isinstance(x, QTensor):
        return cast(Array, x.decoded())
    if x.dtype.kind in "iub":
        return cast(Array, x.astype(np.float64))
    if x.dtype.kind == "c":
        return cast(Array, np.ascontiguousarray(x)[..., None].view(f"f{x.dtype.itemsize // 2}"))
    return cast(Array, x.astype(np.float64 if x.dtype.name == "float64" else np.float32))
