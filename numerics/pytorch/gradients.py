"""Where a value lies within what its scale can represent: where a clipped gradient passes.

In range is what rounds onto the grid: a value whose quotient by its scale, rounded half to even as if
there were no end, is one of the format's values.  So the largest element of a tensor whose scale was
found from it is in range whatever the last place of that scale, and neither a draw nor a direction of
rounding moves the range.  Inf and NaN are not in it.
"""

from __future__ import annotations

from functools import lru_cache
from math import frexp, ldexp
from typing import NamedTuple

import torch
from torch import Tensor

from numerics.backends.broadcast import spread
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.partition import Partition
from numerics.formats.block import ElementBlock, MXBlock, ScaledBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float, Integer
from numerics.formats.text import text_of
from numerics.tensor.spec import QuantSpec

Parts = tuple[Tensor, Tensor, Tensor, Tensor]


class Reach(NamedTuple):
    """What rounds to a format's values: from low to high, the ends in it or not."""

    low: float
    high: float
    low_in: bool
    high_in: bool

    def holds(self, y: Tensor) -> Tensor:
        """For every number: does it?"""
        wide = y.to(torch.float64)
        above = wide >= self.low if self.low_in else wide > self.low
        below = wide <= self.high if self.high_in else wide < self.high
        return above & below


@lru_cache(maxsize=256)
def reach(d: Element) -> Reach:
    """Half a step beyond the least and the largest value; a tie goes to the even code.

    >>> from numerics.formats import fp8_e4m3, int4
    >>> reach(int4), reach(fp8_e4m3).high
    (Reach(low=-8.5, high=7.5, low_in=True, high_in=False), 464.0)
    """
    if isinstance(d, Integer):
        return Reach(d.min - 0.5, d.max + 0.5, d.min % 2 == 0, d.max % 2 == 0)
    if isinstance(d, Codebook):
        least, most = d.finite[0], d.finite[-1]
        low, high = least - (d.finite[1] - least) / 2, most + (most - d.finite[-2]) / 2
        return Reach(low, high, d.encode(least) % 2 == 0, d.encode(most) % 2 == 0)
    assert isinstance(d, Float)
    step = ldexp(1.0, frexp(d.max)[1] - 1 - d.mantissa)
    high, even = d.max + step / 2, d.encode(d.max) % 2 == 0
    if d.signed:
        return Reach(-high, high, even, even)
    if d.has_zero:
        return Reach(-d.smallest_subnormal / 2, high, True, even)
    below = ldexp(1.0, frexp(d.min)[1] - 2 - d.mantissa)  # a step of the binade that ends at the least value
    return Reach(d.min - below / 2, high, True, even)


def within_range(
    x: Tensor, recipe: str, scale: Tensor | None = None, zero_point: Tensor | None = None,
    tensor_scale: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where x rounds onto the grid of its scale, found or given (bool, x's shape)."""
    r = QuantSpec.parse(recipe).replace(rounding="half_even")
    with ieee_arithmetic():  # where subnormals are flushed a quotient of them is another number
        parts = torch.ops.numerics.quantize(x, r.text, scale, zero_point, tensor_scale=tensor_scale)
        inside = _in_blocks(x, r, parts) if r.blocked else _of_elements(x, r, parts)
        return inside & x.isfinite()


def _of_elements(x: Tensor, r: QuantSpec, parts: Parts) -> Tensor:
    """By the quotient that the kernels round: in float32, of float64 in float64."""
    d, shares, wide = r.element, r.partition(tuple(x.shape)), _wide(x)
    y = x.to(wide) / spread(parts[1].to(wide), shares)
    if r.symmetric:
        return reach(d).holds(y)
    zero = spread(parts[2], shares)
    if zero.dtype.is_floating_point:
        return reach(d).holds(y + zero.to(wide))
    counts, offset = y.to(torch.float64).round(), zero.to(torch.float64)  # the zero point is added last
    return (d.min - offset <= counts) & (counts <= d.max - offset)


def _in_blocks(x: Tensor, r: QuantSpec, parts: Parts) -> Tensor:
    """By the quotient of each element and its block's scale; 0 alone is in a block whose scale is 0."""
    d, shares = r.block, Partition(tuple(x.shape), r.blocking(tuple(x.shape)).axis, r.block.block)
    if not isinstance(d, ElementBlock):
        most = (1 << (d.element_bits - 1)) - 0.5
        return Reach(-most, most, False, False).holds(x.to(torch.float64) / _steps(x, r, parts[0]))
    scale = torch.ops.numerics.decode(parts[1], text_of(d.scale))
    scale, negative = (abs(scale), scale.signbit()) if d.has_two_readings else (scale, None)
    if isinstance(d, MXBlock):  # a power of two: the quotient is exact
        y = x.to(torch.float64) / spread(scale, shares).to(torch.float64)
    else:
        scale = spread(scale * parts[3], shares)
        y = torch.where(scale == 0, torch.where(x == 0, 0.0, torch.inf), x.to(torch.float32) / scale)
    inside = _either_way(d.element).holds(y.to(torch.float64) / d.element_unit)
    if negative is None or not isinstance(d, ScaledBlock) or d.integers is None:
        return inside
    counts = _either_way(d.integers).holds((y * d.steps_in_one).to(torch.float64))
    return torch.where(spread(negative, shares), counts, inside)


def _either_way(d: Element) -> Reach:
    """How far elements of a block reach: as far on both sides, but those of a list as that does."""
    end = reach(d)
    if isinstance(d, Codebook):
        return end
    return Reach(-end.high, end.high, end.high_in, end.high_in)


def _steps(x: Tensor, r: QuantSpec, packed: Tensor) -> Tensor:
    """What a count of 1 is worth, for every element of microexponent blocks: they are decoded with it."""
    numerics, text = torch.ops.numerics, text_of(r.dtype)
    codes = torch.ones(x.shape, dtype=getattr(torch, r.block.code_dtype), device=x.device)
    _, exponents, micro, _ = numerics.unpack_blocks(packed, None, list(x.shape), text, r.axis)
    steps: Tensor = numerics.decode_blocks(codes, exponents, micro, None, text, r.axis)
    return steps.to(torch.float64)


def _wide(x: Tensor) -> torch.dtype:
    """The type that computes with it."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
