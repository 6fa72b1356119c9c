"""Products of rows with a quantized matrix: which sums they are, whoever computes them (docs/formats.md §11).

Here is how a matrix is read, for every executor, and the sums by NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.float_bits import odd_sum
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock, TieredBlock
from numerics.formats.dtype import Element, Float, Integer

if TYPE_CHECKING:
    from numerics.formats.protocol import Spec

Array = NDArray[Any]

LANES = 16
WORD = 32  # bits
WIDEST = 16  # bits of a code that a kernel reads as it is stored
FARTHEST = 2.0**40  # elements that reach beyond are multiplied by their scale first: sums would overflow


@dataclass(frozen=True)
class Order:
    """How rows of a quantized matrix are read.

    kind: `codes` of one string of bits, `blocks` that hold their scales and microexponents, a block a lane,
    or `values`, which are decoded first.  run: elements of a lane.  group: elements that share a scale, 0
    where a row or more does.
    """

    kind: str
    run: int
    group: int = 0

    @property
    def span(self) -> int:
        """Elements that a step reads."""
        return LANES * self.run

    def together(self, length: int) -> int:
        """Elements of a row of that length whose products are summed as integers: a group, or a span."""
        return max(self.group, self.span) if self.group else self.spans(length) * self.span

    def stored(self, length: int) -> int:
        """Elements that a row of that length is stored as: whole blocks, where they hold their scales."""
        return -(-length // self.run) * self.run if self.kind == "blocks" else length

    def spans(self, length: int) -> int:
        """How many spans a row of that length takes."""
        return -(-length // self.span)


VALUES = Order("values", 1)


class Int8Rows(NamedTuple):
    """Rows of x as integers of 8 bits.

    codes: int8 (m, length), from -127 to 127.  scale: float32, what one counts: (m,), or (m, groups) where
    groups of the matrix have a scale.  length: of a row.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.codes)


RUN_OF_INT8 = 4  # elements of a lane whose products are summed as integers
FARTHEST_STEP = 64  # steps from 0 that codes of 4 bits may reach: sums of four stay in 16 bits
FARTHEST_COUNT = 256  # from 0, that an integer of 8 bits may lie


def step_of(element: Element | None) -> float | None:
    """What all values of a format are small multiples of, as products in int8 need it; None where nothing is.

    >>> from numerics.formats import fp4, fp8_e4m3, int8
    >>> step_of(int8), step_of(fp4), step_of(fp8_e4m3)
    (1.0, 0.5, None)
    """
    if isinstance(element, Integer):
        return 1.0 if element.bits in (4, 8) else None
    if not isinstance(element, Float) or element.bits != 4 or not element.subnormals:
        return None
    if element.has_nan or element.has_inf or element.max > FARTHEST_STEP * element.smallest_subnormal:
        return None
    return float(element.smallest_subnormal)


@lru_cache(maxsize=4096)
def order_of(spec: Any, shape: tuple[int, ...]) -> Order:
    """How the rows of a matrix of that shape are read, quantized so: by its codes where that can be."""
    length = shape[-1]
    if spec.blocked:
        along = (spec.axis or 0) % len(shape) == len(shape) - 1
        return _order_of_blocks(spec.block, length) if along else VALUES
    bits, partition = spec.element.bits, spec.partition(shape)
    run, (axis, size) = run_of(bits), (partition.axis, partition.size)
    floating = spec.zero_point_type == "float32" and not spec.symmetric
    if bits > WIDEST or length * bits % 8 or floating or (spec.scaled and spec.element.extent >= FARTHEST):
        return VALUES
    along = axis == len(shape) - 1
    if size is None:  # a scale a tensor, or a row
        return Order("codes", run) if axis in (None, len(shape) - 2) else VALUES
    if along and (size == 0 or 0 < length <= size):  # a row is one group: a scale a row, however asked for
        return Order("codes", run)
    return Order("codes", run, size) if along and _aligned(size, run) else VALUES


def _order_of_blocks(d: Block, length: int) -> Order:
    if isinstance(d, TieredBlock):
        return VALUES
    if isinstance(d, MicroexponentBlock):
        fits = d.block == 16 and d.sub_block == 2 and d.mantissa in (2, 4, 7)  # mx4, mx6, mx9
        return Order("blocks", d.block, d.block) if fits else VALUES
    if isinstance(d, ElementBlock) and d.has_two_readings:
        return VALUES
    run = run_of(d.element_bits)
    whole = d.element_bits <= 8 and d.scale_bits == 8 and length * d.element_bits % 8 == 0
    return Order("codes", run, d.block) if whole and _aligned(d.block, run) else VALUES


def run_of(bits: int) -> int:
    """Codes that a lane reads at once: those that fill whole words; of 4 bits half a word.

    >>> [run_of(bits) for bits in (2, 3, 4, 6, 8, 16)]
    [16, 32, 4, 16, 4, 2]
    """
    return 4 if bits == 4 else WORD // gcd(bits, WORD)


def _aligned(group: int, run: int) -> bool:
    """Does no lane hold parts of two groups, and no span begin within one that it does not end?"""
    span = LANES * run
    return group % run == 0 and (span % group == 0 or group % span == 0)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Rows that are multiplied: the parts of a quantized matrix, or values and no spec.

    packed: one string of bits; values as float32 (rows, length).  shared: scales, float32 or codes of a
    byte, as the spec shares them.  zero: integers, as many.  number: the tensor's scale.
    """

    packed: Array
    shared: Array | None
    zero: Array | None
    number: float | None
    spec: Spec | None
    shape: tuple[int, int]

    @cached_property
    def order(self) -> Order:
        """How its rows are read."""
        spec: Any = self.spec  # frozen, and so hashable
        return VALUES if spec is None else order_of(spec, self.shape)

    @cached_property
    def element(self) -> Element | None:
        """The format of its codes; None for values, and for magnitudes under microexponents."""
        if self.spec is None or isinstance(self.block, MicroexponentBlock):
            return None
        return self.spec.element if self.block is None else self.block.element

    @cached_property
    def block(self) -> Any:
        """The format of its blocks; None where it has none."""
        return self.spec.block if self.spec is not None and self.spec.blocked else None

    @cached_property
    def unit(self) -> float:
        """What its elements count by, where they are integers of a block: a factor of the scale."""
        if isinstance(self.block, MicroexponentBlock):
            return 2.0 ** (1 - self.block.mantissa)
        return 1.0 if self.block is None else float(self.block.element_unit)

    @cached_property
    def row_scale(self) -> Any:
        """What a row's sum is multiplied by: a scale a row, or one; None where there is none."""
        if self.spec is None or self.block is not None or self.order.group or not self.spec.scaled:
            return None
        return self.shared

    @cached_property
    def refusal(self) -> str | None:
        """Why it cannot be multiplied with integers of 8 bits; None where it can."""
        named = "its values" if self.spec is None else str(self.spec)
        if self.order.kind != "codes":
            return f"{named} of shape {self.shape} is not read by its codes"
        if step_of(self.element) is None or self.order.run != RUN_OF_INT8:
            return f"{named} has no integers of 4 or 8 bits"
        zero = np.zeros(1, np.int64) if self.zero is None else self.zero.astype(np.int64)
        most = FARTHEST_COUNT + int(np.abs(zero).max(initial=0))
        if most * 127 * -(-self.order.together(self.shape[1]) // LANES) >= 1 << 31:
            return f"{named} of shape {self.shape}: sums of {self.shape[1]} products could leave 32 bits"
        return None


def fused(a: Array, b: Array, c: Array) -> NDArray[np.float32]:
    """a * b + c, rounded once: the product is exact in float64, the sum is rounded to odd there."""
    found: NDArray[np.float64] = odd_sum(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))
    return found.astype(np.float32)


def products(
    x: NDArray[np.float32], values: NDArray[np.float32], scales: NDArray[np.float32] | None, order: Order
) -> NDArray[np.float32]:
    """The sums by NumPy.  values: (rows, length); scales: (rows, groups), where groups have some."""
    (rows, length), many, run = values.shape, len(x), order.run
    spans = order.spans(length)
    v, u = (_in_spans(part, order) for part in (values, x))
    acc = np.zeros((many, rows, LANES), np.float32)
    if scales is not None:
        first = np.arange(spans * LANES) * run // order.group
        scales = scales[:, np.minimum(first, scales.shape[1] - 1)].reshape(rows, spans, LANES)
    with ieee_arithmetic(), np.errstate(all="ignore"):
        for span in range(spans):
            t = acc if scales is None else np.zeros_like(acc)
            for k in range(run):
                t = fused(v[None, :, span, :, k], u[:, None, span, :, k], t)
            acc = t if scales is None else fused(t, scales[None, :, span], acc)
    return halved(acc)


def products_of_int8(
    x: Int8Rows, values: NDArray[np.float32], scales: NDArray[np.float32] | None, order: Order
) -> NDArray[np.float32]:
    """The same by integers: a lane's products of a group, or of a row, are summed exactly."""
    v, u = (_in_spans(part.astype(np.float32), order).astype(np.float64) for part in (values, x.codes))
    acc = np.zeros((len(x), len(values), LANES), np.float32)
    step = order.together(values.shape[1]) // order.span
    with ieee_arithmetic(), np.errstate(all="ignore"):
        for span in range(0, v.shape[1], step):
            part = slice(span, span + step)
            t = np.einsum("nslk,mslk->mnl", v[:, part], u[:, part]).astype(np.float32)
            if scales is None:
                acc = t
            else:
                first = span * LANES + np.arange(LANES)
                group = np.minimum(first * order.run // order.group, scales.shape[1] - 1)
                acc = fused(t, scales[None, :, group] * x.scale[:, None, group], acc)
    return halved(acc)


def halved(lanes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lanes of the last axis, added in halves until one is left."""
    with ieee_arithmetic(), np.errstate(all="ignore"):
        while lanes.shape[-1] > 1:
            half = lanes.shape[-1] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def _in_spans(x: NDArray[np.float32], order: Order) -> NDArray[np.float32]:
    """(rows, length) as (rows, spans, lanes, run), zeros behind the end."""
    spans = order.spans(x.shape[1])
    filled = np.zeros((len(x), spans * order.span), np.float32)
    filled[:, : x.shape[1]] = x
    return filled.reshape(len(x), spans, LANES, order.run)


def linear(
    sums: Any, x: NDArray[np.float32] | Int8Rows, matrix: Matrix, bias: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """x (m, length) times the rows of a matrix, plus a bias: (m, rows); asked in IEEE arithmetic.

    sums: an executor's `products`.
    """
    rows, length = matrix.shape
    found: NDArray[np.float32] = (
        sums(x, matrix) if len(x) and rows and length else np.zeros((len(x), rows), np.float32)
    )
    if isinstance(x, Int8Rows) and x.scale.ndim == 1:
        found *= x.scale[:, None]
    for factor in (matrix.row_scale, matrix.number):
        if factor is not None:
            found *= np.float32(factor) if np.ndim(factor) == 0 else np.asarray(factor).reshape(-1)
    if bias is not None:
        found += bias
    return found
