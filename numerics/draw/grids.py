"""What pictures and pages ask of tensors: plain arrays, the grid of a format, what is shared by whom."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.arrays import FLOATS
from numerics.backends.host.quantizing import nan_is_counted, to_host
from numerics.backends.host.tensors import check_plain
from numerics.backends.partition import Partition
from numerics.formats import dispatch
from numerics.formats.arguments import taken, unknown_argument
from numerics.formats.block import (
    E6M2,
    Block,
    Blocks,
    ElementBlock,
    MicroexponentBlock,
    ScaledBlock,
    TieredBlock,
    scale_values,
    tiered_scale,
)
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, said
from numerics.quantization import quantize
from numerics.tensor.qtensor import Error, ErrorSums, QTensor, values_of
from numerics.tensor.spec import QuantSpec

Array = NDArray[Any]
PART = 1 << 18  # elements that are looked at together


class Decoded(np.ndarray[Any, Any]):
    """Values that were quantized in a file, and which no QTensor holds.  kind: what the file calls them."""

    kind: str = ""

    @classmethod
    def of(cls, x: Array, kind: str) -> Decoded:
        """The same values, and of which kind they were."""
        found = x.view(cls)
        found.kind = kind
        return found


def array_of(x: Any) -> Array:
    """The numbers of what came, on the host; raises NumericsError where there are none."""
    x = x.view(np.ndarray) if isinstance(x, Decoded) else values_of(x)
    if isinstance(x, (list, tuple)):
        check_plain("x", x)
        try:
            x = np.asarray(x, np.float64)
        except Exception:  # whatever what came raises: it is no number
            raise NumericsError(f"numbers are needed, not {said(x)}") from None
    data: Array = to_host(dispatch.owner(x).prepare(x).data)
    if data.dtype.kind != "f":  # bfloat16 is no kind of NumPy's own
        data = np.asarray(data, np.float32)
    if data.size == 0:
        raise NumericsError("there is nothing to draw: the tensor has no elements")
    return data


def values(d: Dtype) -> Array:
    """Every value of an element format, in the order of its codes; of a block format those of an element.

    Of blocks in units of the shared scale, in both readings where there are two; of microexponent blocks
    at microexponent 0, then at 1, or by the number of tiers that are 1.

    >>> from numerics.formats import fp4, mx4, mxint8
    >>> values(fp4)[:4], values(mx4)[:4], values(mxint8).max()
    (array([0. , 0.5, 1. , 1.5]), array([0. , 0.5, 1. , 1.5]), np.float64(1.984375))
    """
    if isinstance(d, Element):
        return np.array(d.values())
    if isinstance(d, ElementBlock):
        floats = np.array(d.element.values()) * d.element_unit
        if not isinstance(d, ScaledBlock) or d.integers is None:
            return floats
        return np.concatenate([floats, np.array(d.integers.values(), np.float32) * np.float32(d.step or 1)])
    assert isinstance(d, MicroexponentBlock)
    count = 1 << d.element_bits
    blocks = -(-count // d.block)
    found = []
    one = 4 * E6M2["bias"] if isinstance(d, TieredBlock) else 127
    some = {(1 << d.pairs) - 1} if isinstance(d, TieredBlock) else set()  # one tier's alone
    for micro in sorted({0, *some, (1 << d.micro_bits) - 1}):
        codes = list(range(count)) + [0] * (d.block * blocks - count)
        made = Blocks(d, 0, codes, [one] * blocks, [micro] * blocks)
        found.append(np.array(d.decode(made))[:count])
    return np.concatenate(found)


def grid(d: Dtype) -> Array:
    """The finite values, in order, each once."""
    every = values(d)
    return np.unique(every[np.isfinite(every)])


def code_bits(d: Dtype) -> int:
    """Bits of a code: of an element format, or of an element of blocks."""
    return int(d.bits if isinstance(d, Element) else cast(Block, d).element_bits)


@lru_cache(maxsize=256)
def _ends(d: Dtype) -> Array:
    """Of each code: is it an end of the grid, or beyond?  Of a block's elements in any reading."""
    every, finite = values(d), grid(d)
    with np.errstate(invalid="ignore"):  # NaN is no end
        at_end = (every >= finite[-1]) | (every <= finite[0])
    found: Array = at_end.reshape(-1, 1 << code_bits(d)).any(axis=0)
    return found


def _looked_up(said: Array, codes: Array) -> Array:
    """What is said of each code; of bytes by their own table, which costs a tenth of indices."""
    if codes.itemsize > 1:
        return np.take(said, codes.reshape(-1))
    return np.frombuffer(codes.tobytes().translate(said.tobytes().ljust(256, b"\0")), bool)


@dataclass(frozen=True)
class Rounded:
    """A tensor and what became of it; what is asked of it is computed once, when it is asked.

    data: the tensor as it came, of any type of floats.  q: quantized.
    """

    data: Array
    q: QTensor

    @cached_property
    def decoded(self) -> Array:
        """The values of q as they are computed."""
        return to_host(self.q.decoded())

    @cached_property
    def x(self) -> Array:
        """The tensor in float64."""
        return self.data.astype(np.float64)

    @cached_property
    def y(self) -> Array:
        """The values of q in float64."""
        return self.decoded.astype(np.float64)

    @property
    def unit(self) -> Array:
        """What a value of the format's grid is worth, in x's shape."""
        return self._everywhere[0]

    @property
    def zero(self) -> Array:
        """The grid's value that means 0, in x's shape."""
        return self._everywhere[1]

    @cached_property
    def _everywhere(self) -> tuple[Array, Array]:
        return self.shared(np.ix_(*map(np.arange, self.data.shape)))

    def shared(self, at: Sequence[Array]) -> tuple[Array, Array]:
        """`unit` and `zero` of the elements at these indices: an array of them for each axis."""
        q, shares = self.q, partition_of(self.q)
        unit = shared_by(scales(q.spec.block, q.blocks) if q.spec.blocked else q.scale, shares, at)
        if q.zero_point is None:
            return unit, np.zeros(unit.shape)
        return unit, shared_by(q.zero_point, shares, at)

    @cached_property
    def normal(self) -> Array:
        """x in units of its own scale, so that one grid holds for all."""
        found, every = np.empty(self.data.shape), [np.arange(size) for size in self.data.shape]
        for rows in self._parts():
            unit, zero = self.shared(np.ix_(*(axis[rows] for axis in every[:1]), *every[1:]))
            with np.errstate(all="ignore"):
                found[rows] = self.data[rows] / unit + zero
        return found

    def _parts(self) -> list[Any]:
        """The tensor in parts along its first axis, which a cache holds where its lines are not too long."""
        if not self.data.ndim:
            return [...]
        rows = max(1, PART // max(math.prod(self.data.shape[1:]), 1))
        return [slice(start, start + rows) for start in range(0, len(self.data), rows)]

    @property
    def cut(self) -> Array:
        """Which values were clipped: finite, at an end of the grid, and further from it than half a step."""
        found = np.zeros(self.data.size, bool)
        found[self.clipped] = True
        return found.reshape(self.data.shape)

    @cached_property
    def clipped(self) -> Array:
        """The places of the values that were clipped, in the order of memory; few are looked at."""
        ends = grid(self.q.format)
        here = _looked_up(_ends(self.q.format), to_host(self.q.codes))
        if self.data.dtype.itemsize > 4:  # blocks take what float32 does not hold for its largest number
            here = here | (np.abs(self.data.reshape(-1)) > np.finfo(np.float32).max)
        places = np.flatnonzero(here)
        x = self.data.reshape(-1)[places].astype(np.float64)
        unit, zero = self.shared(np.unravel_index(places, self.data.shape or (1,)))
        with np.errstate(all="ignore"):  # a block of zeros can have the scale 0
            on = x / unit + zero
            beyond = (on > ends[-1] + (ends[-1] - ends[-2]) / 2) | (on < ends[0] - (ends[1] - ends[0]) / 2)
        found: Array = places[beyond & np.isfinite(x)]
        return found

    @cached_property
    def _sums(self) -> ErrorSums:
        sums = ErrorSums()
        sums.add(self.data, self.decoded)
        return sums

    @property
    def error(self) -> Error:
        """What was lost, over what is finite."""
        return self._sums.error

    @property
    def lost(self) -> int:
        """How many finite values became NaN or Inf."""
        return self._sums.lost

    @property
    def sqnr(self) -> float:
        """In dB, over what is finite."""
        return self.error.sqnr


NO_FLOATS = "no floats"
ALLOWED = f"allowed: {', '.join(FLOATS)} (x.float() or x.astype(...) first)"


def why_nothing(x: Any) -> str:
    """Why there is nothing to draw of what came; nothing where there are floats that are quantized, or were.

    >>> why_nothing(np.zeros((0, 4))), why_nothing(np.arange(3)), why_nothing(np.ones(3))
    ('empty', 'no floats', '')
    """
    try:
        known = isinstance(x, QTensor) or _type_of(x) in FLOATS
        if not known and re.match("float[468]_", _type_of(x)):  # as float8_e4m3fn
            return "codes without a scale"
        return NO_FLOATS if not known else "" if math.prod(x.shape) else "empty"
    except Exception:  # whatever what came raises: it is no tensor
        return NO_FLOATS


def _type_of(x: Any) -> str:
    return str(getattr(x.dtype, "name", x.dtype)).removeprefix("torch.")


def nothing_said(x: Any, name: str = "") -> str:
    """Of what there is nothing to draw, as a message repeats it: what it is, or its name, its type, and why.

    >>> nothing_said(np.zeros((0, 4))), nothing_said(np.arange(3), "ids"), nothing_said(None)
    ('<ndarray of shape (0, 4)> of float64 (empty)', "'ids' of int64 (no floats)", 'None')
    """
    what = repr(name) if name else said(x)
    return f"{what} of {_type_of(x)} ({why_nothing(x)})" if hasattr(x, "dtype") else what


def partition_of(q: QTensor) -> Partition:
    """Which elements of a quantized tensor share a scale: of blocks those of a block."""
    shape = tuple(q.shape)
    if q.spec.blocked:
        return Partition(shape, cast(int, q.axis) % len(shape), q.spec.block.block)
    return q.spec.partition(shape)


def formats_asked(formats: Any) -> list[Any]:
    """The formats that were asked for; one alone stands for itself.

    >>> formats_asked("mxfp4"), formats_asked(("int4", "fp4"))
    (['mxfp4'], ['int4', 'fp4'])
    """
    if isinstance(formats, (str, Dtype, QuantSpec)):
        return [formats]
    try:
        return list(formats)
    except Exception:  # whatever what came raises: it is no list
        raise NumericsError(f"formats= takes a list of formats, not {said(formats)}") from None


def rounded(x: Any, d: Any, **options: Any) -> Rounded:
    """x quantized by the options of `nx.quantize`, with what the pictures show of it."""
    data = array_of(x)
    with nan_is_counted():
        return Rounded(data, quantize(data, d, **options))


def check_options(drawing: Callable[..., Any], options: Mapping[str, Any], *given: Any) -> None:
    """Raises UnknownArgument, in the name of what draws, for options that `nx.quantize` does not take.

    given: the tensor and its format, in the order in which the function takes them.
    """
    allowed = taken(quantize)[2:]
    unknown = {name: value for name, value in options.items() if name not in allowed}
    if unknown:
        raise unknown_argument(drawing, unknown, given, also=allowed)


def scales(d: Block, blocks: Blocks) -> Array:
    """What an element's value is multiplied by, one a block, the scale of the tensor included."""
    codes = to_host(blocks.scale)
    if isinstance(d, ElementBlock):
        found = np.asarray(scale_values(d, codes), np.float64)
        if blocks.tensor_scale is None:
            return found
        return np.asarray(np.float32(found) * np.float32(blocks.tensor_scale), np.float64)  # as decode does
    if isinstance(d, TieredBlock):
        return np.array([tiered_scale(code) for code in codes.ravel().tolist()]).reshape(codes.shape)
    return np.ldexp(1.0, codes.astype(np.int64) - 127)


def tensor_scale(x: Array, d: Block, rule: str) -> float | None:
    """The scale of a whole tensor that `nx.quantize` finds by that rule; None where the format has none.

    >>> from numerics.formats import mxfp4, nvfp4
    >>> x = np.float32([2688.0, 1.0])
    >>> [tensor_scale(x, nvfp4, rule) for rule in ("floor", "four_over_six")], tensor_scale(x, mxfp4, "floor")
    ([1.0, 1.75], None)
    """
    return dispatch.host().found_tensor_scale(x, d, rule) if isinstance(d, ScaledBlock) else None


def shared_by(shared: Any, shares: Partition, at: Sequence[Array]) -> Array:
    """Shared numbers in float64, each for the elements at these indices that share it."""
    numbers, shape = to_host(shared), np.broadcast_shapes(*(index.shape for index in at))
    if shares.axis is None:
        return np.broadcast_to(numbers.reshape(()), shape).astype(np.float64)
    if shares.size is None:
        return np.broadcast_to(numbers.reshape(-1)[at[shares.axis]], shape).astype(np.float64)
    index = [part // shares.group if axis == shares.axis else part for axis, part in enumerate(at)]
    found: Array = shares.each_row(numbers)[tuple(index)]
    return found.astype(np.float64)


def differing(y: Array, other: Array) -> dict[str, float]:
    """Where another result differs from this, by place; -0 from 0, too.

    >>> differing(np.array([1.0, 0.0, np.nan]), np.array([1.0, -0.0, np.nan]))
    {'1': -0.0}
    """
    same = (y == other) & (np.signbit(y) == np.signbit(other)) | (np.isnan(y) & np.isnan(other))
    return {str(place): float(other[place]) for place in np.flatnonzero(~same)}
