"""The arithmetic of learned scales: TQT's power of two, LSQ's positive scale, the gradients of both.

What torch.ops.numerics.tqt and .lsq compute beside fake_quantize (operators.py);
numerics/train/ is what users call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from numerics.backends.broadcast import reduced, spread
from numerics.backends.host.affine import POF2_EXPONENTS
from numerics.backends.host.arrays import FLOATS
from numerics.backends.host.tensors import check_memory, check_storage, has_values
from numerics.backends.partition import Partition
from numerics.formats import registry
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError
from numerics.tensor.parts import sizes_fit
from numerics.tensor.spec import QuantSpec

INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
SMALLEST_SCALE = 2.0**-126  # the smallest normal float32


def integer(dtype: Any) -> Integer:
    """The format of that name, where it is one of integers; raises NumericsError for another."""
    d = registry.dtype(dtype)
    if not isinstance(d, Integer):
        raise NumericsError(f"{d} is a {d.kind} format; scales are learned for integer formats")
    return d


def single(dtype: Any) -> Element:
    """The format of that name, where it is one of single numbers; raises NumericsError for another."""
    d = registry.dtype(dtype)
    if not isinstance(d, Element):
        raise NumericsError(f"{d} is a {d.kind} format; scales are learned for formats of single numbers")
    return d


def levels(d: Integer) -> int:
    """n of arXiv 1903.08066 §3: steps from 0 to the threshold, 2**(bits - 1), unsigned 2**bits."""
    return 1 << (d.bits - d.signed)


def tqt_scale(log2_threshold: Tensor, d: Integer) -> float:
    """2**ceil(log2 t) / n, within 2**-127 .. 2**127; raises NumericsError where that is no number."""
    found = float(log2_threshold)
    if not math.isfinite(found):
        raise NumericsError(f"log2_threshold {found} is not allowed: finite")
    low, high = POF2_EXPONENTS
    exponent = math.ceil(found) + 1 - levels(d).bit_length()
    return math.ldexp(1.0, min(max(exponent, low), high))


def lsq_scale(scale: Tensor) -> Tensor:
    """The scale that is used: |scale|, never zero."""
    return _wide(scale.detach()).abs().clamp(min=SMALLEST_SCALE)


def lsq_zero(zero_point: Tensor, d: Element) -> Tensor:
    """The zero point that is used, where one is learned: a float32 within the format's range."""
    return zero_point.detach().to(torch.float32).clamp(d.min, d.max)


def tqt_gradients(gradient: Tensor, x: Tensor, log2_threshold: Tensor, recipe: str) -> tuple[Tensor, Tensor]:
    """Returns the gradients of x, in its shape, and of log2_threshold (arXiv 1903.08066 §3).

    gradient: of the loss by the result.  That of x passes where round(x / s) is a value of the format, else
    it is 0.
    """
    d = check_tqt(x, log2_threshold, recipe, gradient)
    scale = tqt_scale(log2_threshold, d)
    steps = _wide(x) / scale
    least = d.min - 0.5 <= steps if d.min % 2 == 0 else d.min - 0.5 < steps  # half to even
    inside = least & (steps < d.max + 0.5)  # the largest is odd
    slope = _slope(steps, inside, recipe, torch.ones_like(log2_threshold), None)
    total = (gradient * slope).sum() * (scale * math.log(2))
    return _passed(gradient, inside), total.to(log2_threshold.dtype)


def lsq_gradients(
    gradient: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor | None, recipe: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of x, of the scale, and of a zero point that is learned, in their shapes.

    gradient: of the loss by the result.  That of x passes where x / s lies between the ends of the range
    (arXiv 1902.08153 §2); that of a zero point, where it does not (arXiv 2004.09576 §3); empty without one.
    """
    d, shares = check_lsq(x, scale, zero_point, recipe, gradient)
    wide = _wide(x)
    used = spread(lsq_scale(scale).to(wide.dtype), shares)
    steps = wide / used
    learned = zero_point if learns_zero(recipe) else None
    zero_point = zero_point if learned is None else lsq_zero(learned, d)
    zero = 0.0 if zero_point is None else spread(zero_point.to(wide.dtype), shares)
    inside = (d.min - zero < steps) & (steps < d.max - zero)
    slope = _slope(steps, inside, recipe, torch.ones_like(scale), zero_point)
    total = reduced(gradient * slope, shares, torch.sum, 0.0)
    numel = reduced(wide.new_ones(()).expand(wide.shape), shares, torch.sum, 0.0).clamp(min=1)
    through_abs, shrunk = torch.where(scale < 0, -1.0, 1.0), (numel * d.max).sqrt()
    of_zero = x.new_empty(0)
    if learned is not None:
        clipped = torch.where(inside | steps.isnan(), 0.0, -used)
        of_zero = (reduced(gradient * clipped, shares, torch.sum, 0.0) / shrunk).to(learned.dtype)
    return _passed(gradient, inside), (through_abs * total / shrunk).to(scale.dtype), of_zero


def learns_zero(recipe: str) -> bool:
    """Is the zero point of that recipe a real number, which can be learned?"""
    spec = QuantSpec.parse(recipe)
    return not spec.symmetric and spec.zero_point_type == "float32"


# ---- operators are called by anybody -----------------------------------------------------------------


def check_tqt(x: Tensor, log2_threshold: Tensor, recipe: str, gradient: Tensor | None = None) -> Integer:
    """The format; raises NumericsError for tensors that do not fit each other, or are not floats."""
    found = QuantSpec.parse(recipe)
    d = integer(found.dtype)
    if found.scheme_of_elements.kind != "per_tensor":
        raise NumericsError(f"scheme={found.scheme!r} cannot be: a threshold is one of a whole tensor")
    _check("x", x, x, x.shape)
    _check("log2_threshold", log2_threshold, x, ())
    if gradient is not None:
        _check("gradient", gradient, x, x.shape)
    return d


def check_lsq(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, recipe: str, gradient: Tensor | None = None
) -> tuple[Element, Partition]:
    """The format, and who shares a scale; raises NumericsError as `check_tqt`."""
    found = QuantSpec.parse(recipe)
    d = single(found.dtype)
    _check("x", x, x, x.shape)
    shares = found.partition(tuple(x.shape))
    _check("scale", scale, x, shares.shared)
    if zero_point is not None:
        _check("zero_point", zero_point, x, shares.shared, (*FLOATS, *INTEGERS))
    if gradient is not None:
        _check("gradient", gradient, x, x.shape)
    return d, shares


def _check(name: str, came: Tensor, x: Tensor, shape: Sequence[int], kinds: Sequence[str] = FLOATS) -> None:
    """Raises NumericsError for a tensor of another type or shape, and for one on another device than x."""
    check_memory(came)
    if has_values(came):
        check_storage(came)
    kind = str(came.dtype).removeprefix("torch.")
    if kind not in kinds:
        raise NumericsError(f"{name} is {kind}; allowed: {', '.join(kinds)}")
    if not sizes_fit(came.shape, tuple(shape)):
        raise NumericsError(
            f"{name} has shape {tuple(came.shape)}; beside x of shape {tuple(x.shape)} it has {tuple(shape)}"
        )
    if came.ndim and came.device != x.device and not x.is_meta:
        raise NumericsError(f"{name} is on {came.device}, x on {x.device}")


# ---- arithmetic --------------------------------------------------------------------------------------


def _wide(x: Tensor) -> Tensor:
    """In the type that computes with it."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def _slope(steps: Tensor, inside: Tensor, recipe: str, one: Tensor, zero_point: Tensor | None) -> Tensor:
    """dy / ds: what rounding added to x / s, or the end that x was clipped to; NaN has no part in it."""
    rounded = torch.ops.numerics.fake_quantize(steps, recipe, one, zero_point)
    return torch.where(rounded.isnan(), 0.0, rounded - torch.where(inside, steps, 0.0))


def _passed(gradient: Tensor, inside: Tensor) -> Tensor:
    """Straight through where nothing was clipped; in plain order, as the operators promise."""
    return torch.where(inside, gradient, 0.0).contiguous()
