"""The gradients of the gradients of scales that are learned: of their formulas, rounding straight through.

Each is made of the operators themselves: `tqt_backward(g, x, t)` begins with g where x lies in the range,
and s times the slope of y by s is y, less x where that lies in the range.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from numerics.backends.broadcast import reduced, spread
from numerics.formats.block import ScaledBlock
from numerics.pytorch.learned_scales import SMALLEST_SCALE, learns_zero, shrinking, slope_of_blocks
from numerics.tensor.spec import QuantSpec


def of_tqt(ctx: Any, *came: Tensor) -> tuple[Any, ...]:
    """Those of `tqt_backward`: of its gradient and of the threshold; x is rounded straight through."""
    gradient, x, log2_threshold = ctx.saved_tensors
    by_x, by_threshold = came
    of_range, shares = torch.ops.numerics.tqt_backward, QuantSpec.parse(ctx.spec).partition(tuple(x.shape))
    slope = torch.ops.numerics.tqt(x, log2_threshold, ctx.spec) - _known(
        of_range(_known(x), x, log2_threshold, ctx.spec)[0]
    )
    of_gradient = of_range(by_x, x, log2_threshold, ctx.spec)[0] + (
        spread(by_threshold * math.log(2), shares) * slope
    )
    total = of_range(gradient, x, log2_threshold, ctx.spec)[1]
    return of_gradient.to(gradient.dtype), None, by_threshold * total * math.log(2), None


def of_lsq(ctx: Any, *came: Tensor) -> tuple[Any, ...]:
    """Those of `lsq_backward`: of its gradient, of the scale and of a zero point that is learned."""
    gradient, x, scale, zero_point = ctx.saved_tensors
    spec, asked = ctx.spec, QuantSpec.parse(ctx.spec)
    of_range, rest = torch.ops.numerics.lsq_backward, (x, scale, zero_point, spec)
    by_x, by_scale, by_zero = came
    if isinstance(asked.dtype, ScaledBlock):
        inside, by_each = slope_of_blocks(x, scale, spec)
        of_gradient = torch.where(inside, by_x, 0.0) + by_scale / shrinking(x, asked.dtype) * by_each
        return of_gradient.to(gradient.dtype), None, None, None, None
    shares = asked.partition(tuple(x.shape))
    numel = reduced(
        torch.ones_like(scale, dtype=x.dtype).new_ones(()).expand(x.shape), shares, torch.sum, 0.0
    )
    shrunk = (numel.clamp(min=1) * asked.element.extent).sqrt()
    used = torch.where(scale < 0, -1.0, 1.0) * scale.abs().clamp(min=SMALLEST_SCALE)
    slope = torch.ops.numerics.lsq(x, scale, zero_point, spec) - of_range(_known(x), *rest)[0]
    of_gradient = of_range(by_x, *rest)[0] + spread(by_scale / shrunk / used, shares) * _known(slope)
    if not learns_zero(spec):
        return of_gradient.to(gradient.dtype), None, None, None, None
    beyond = (
        torch.where(x.isnan(), 0.0, 1.0) - of_range(torch.where(x.isnan(), 0.0, 1.0).to(x.dtype), *rest)[0]
    )
    of_gradient = of_gradient - spread(by_zero * used.abs() / shrunk, shares) * beyond
    total = of_range(gradient, *rest)[2] / used / shrunk  # each gradient by them is scaled, this one too
    return of_gradient.to(gradient.dtype), None, by_zero * total, by_scale * total, None


def _known(x: Tensor) -> Tensor:
    """x, and 0 where it is NaN, which has no part in any gradient."""
    return torch.where(x.isnan(), 0.0, x)
