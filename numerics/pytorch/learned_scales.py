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
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.tensors import check_memory, check_storage, has_values
from numerics.backends.partition import Partition
from numerics.formats import registry
from numerics.formats.block import ScaledBlock, scale_values
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError, with_article
from numerics.formats.text import text_of
from numerics.tensor.parts import sizes_fit
from numerics.tensor.spec import QuantSpec

INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
SMALLEST_SCALE = 2.0**-126  # the smallest normal float32


def integer(dtype: Any) -> Integer:
    """The format of that name, where it is one of integers; raises NumericsError for another."""
    d = registry.dtype(dtype)
    if not isinstance(d, Integer):
        others = isinstance(d, (Element, ScaledBlock))
        raise NumericsError(
            f"{d} is {with_article(d.kind)} format; TQT learns the thresholds of integer formats"
            + "; the scale of this one is learned by LSQ (nx.train.LSQ, qat='lsq')" * others
        )
    return d


def levels(d: Integer) -> int:
    """n of arXiv 1903.08066 §3: steps from 0 to the threshold, 2**(bits - 1), unsigned 2**bits."""
    return 1 << (d.bits - d.signed)


def learner(dtype: Any) -> Element | ScaledBlock:
    """The format of that name, where it has a scale that LSQ learns; raises NumericsError for another.

    Of blocks with a float scale, as nvfp4, that is the scale of the tensor.
    """
    d = registry.dtype(dtype)
    if isinstance(d, (Element, ScaledBlock)):
        return d
    raise NumericsError(
        f"{d} is {with_article(d.kind)} format; scales are learned for formats of single numbers, and for "
        "blocks with a scale of the tensor, such as nvfp4"
    )


def tqt_scale(log2_threshold: Tensor, d: Integer) -> Tensor:
    """2**ceil(log2 t) / n, within 2**-127 .. 2**127, in float64, where the least is no subnormal.

    Raises NumericsError where a threshold is no number.
    """
    found = log2_threshold.detach().to(torch.float64)
    if not bool(found.isfinite().all()):
        wrong = found[~found.isfinite()].flatten()[0]
        raise NumericsError(f"log2_threshold {float(wrong)} is not allowed: finite")
    low, high = POF2_EXPONENTS
    exponents = (found.ceil() + (1 - levels(d).bit_length())).clamp(low, high)
    return ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)


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
    d, shares = check_tqt(x, log2_threshold, recipe, gradient)
    scale, wide = tqt_scale(log2_threshold, d), _wide(x)
    steps = (wide / spread(scale, shares)).to(wide.dtype)
    least = d.min - 0.5 <= steps if d.min % 2 == 0 else d.min - 0.5 < steps  # half to even
    inside = least & (steps < d.max + 0.5)  # the largest is odd
    slope = _slope(steps, inside, recipe, torch.ones_like(log2_threshold), None)
    total = reduced(gradient * slope, shares, torch.sum, 0.0) * (scale * math.log(2))
    return _passed(gradient, inside), total.to(log2_threshold.dtype)


def lsq_gradients(
    gradient: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor | None, recipe: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of x, of the scale, and of a zero point that is learned, in their shapes.

    gradient: of the loss by the result.  That of x passes where x / s lies between the ends of the range
    (arXiv 1902.08153 §2); that of a zero point, where it does not (arXiv 2004.09576 §3); empty without one.
    """
    d, shares = check_lsq(x, scale, zero_point, recipe, gradient)
    if isinstance(d, ScaledBlock):
        inside, slope = slope_of_blocks(x, scale, recipe)
        total = (gradient * slope).sum() / shrinking(x, d)
        return _passed(gradient, inside), total.to(scale.dtype), x.new_empty(0)
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
    through_abs, shrunk = torch.where(scale < 0, -1.0, 1.0), (numel * d.extent).sqrt()
    of_zero = x.new_empty(0)
    if learned is not None:
        clipped = torch.where(inside | steps.isnan(), 0.0, -used)
        of_zero = (reduced(gradient * clipped, shares, torch.sum, 0.0) / shrunk).to(learned.dtype)
    return _passed(gradient, inside), (through_abs * total / shrunk).to(scale.dtype), of_zero


def slope_of_blocks(x: Tensor, scale: Tensor, recipe: str) -> tuple[Tensor, Tensor]:
    """Where elements of blocks lie within the range, and dy by the tensor's scale, each of x's shape.

    y = ts * s * e: the element e = round(x / (ts * s)) and the block's scale s = round(w), w = amax / (ts *
    the largest element), are both rounded straight through, or stay at the end that they were clipped to, so
    that dy / dts = (e - x / (ts * s)) * (s - w).  A block whose scales are 0, or no numbers, has no part.
    """
    spec, numerics = QuantSpec.parse(recipe), torch.ops.numerics
    d, wide = spec.block, _wide(x)
    assert isinstance(d, ScaledBlock)
    with ieee_arithmetic():
        ts = lsq_scale(scale)
        packed, codes, _, _ = numerics.quantize(x, recipe, tensor_scale=ts)
        own = scale_values(d, codes).to(wide.dtype)
        elements, _, _, _ = numerics.unpack_blocks(packed, codes, list(x.shape), text_of(d), spec.axis)
        shares = Partition(tuple(x.shape), spec.blocking(tuple(x.shape)).axis, d.block)
        e = _elements(elements, d, spread(codes, shares)).to(wide.dtype)
        wanted = reduced(wide.abs(), shares, torch.amax, 0.0) / (d.element.scale_end * d.element_unit) / ts
        of_block = own - torch.where(wanted < d.scale.max, wanted, 0.0)
        v = wide / spread(own * ts, shares)
        inside = (d.least_element < v) & (v < d.element.max * d.element_unit)
        slope = (e - torch.where(inside, v, 0.0)) * spread(of_block, shares)
        known = spread((own > 0) & own.isfinite() & wanted.isfinite(), shares)
        through_abs = torch.where(scale < 0, -1.0, 1.0)
        return inside & known, torch.where(known & ~e.isnan(), slope, 0.0) * through_abs


def _elements(codes: Tensor, d: ScaledBlock, scales: Tensor) -> Tensor:
    """What the elements of blocks are worth in units of both scales; scales: the code of each one's block."""
    found: Tensor = torch.ops.numerics.decode(codes, text_of(d.element)) * d.element_unit
    if d.integers is None:
        return found
    counts = torch.ops.numerics.decode(codes, text_of(d.integers)) * (d.step or 1.0)
    return torch.where(scales >> (d.scale.bits - 1) == 1, counts, found)


def shrinking(x: Tensor, d: ScaledBlock) -> float:
    """By what the gradient of a tensor's scale is divided, as LSQ divides that of a scale."""
    return math.sqrt(max(x.numel(), 1) * d.element.extent * d.element_unit)


def learns_zero(recipe: str) -> bool:
    """Is the zero point of that recipe a real number, which can be learned?"""
    spec = QuantSpec.parse(recipe)
    return not spec.blocked and not spec.symmetric and spec.zero_point_type == "float32"


# ---- operators are called by anybody -----------------------------------------------------------------


def check_tqt(
    x: Tensor, log2_threshold: Tensor, recipe: str, gradient: Tensor | None = None
) -> tuple[Integer, Partition]:
    """The format, and who shares a threshold; raises NumericsError for tensors that do not fit each other."""
    found = QuantSpec.parse(recipe)
    d = integer(found.dtype)
    check_threshold_scheme(found)
    _check("x", x, x, x.shape)
    shares = found.partition(tuple(x.shape))
    _check("log2_threshold", log2_threshold, x, shares.shared)
    if gradient is not None:
        _check("gradient", gradient, x, x.shape)
    return d, shares


def check_threshold_scheme(spec: QuantSpec) -> None:
    """Raises NumericsError for who shares a scale, but not a threshold."""
    if spec.scheme_of_elements.kind not in ("per_tensor", "per_channel"):
        raise NumericsError(
            f"scheme={spec.scheme!r} cannot be: TQT learns a threshold for a tensor, or for each channel "
            "(per_channel(axis)); LSQ learns a scale for each group"
        )


def check_lsq(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, recipe: str, gradient: Tensor | None = None
) -> tuple[Element | ScaledBlock, Partition]:
    """The format, and who shares a scale; raises NumericsError as `check_tqt`.

    Of blocks the scale of the tensor is learned.
    """
    found = QuantSpec.parse(recipe)
    d = learner(found.dtype)
    _check("x", x, x, x.shape)
    if isinstance(d, ScaledBlock):
        check_block_recipe(found)
        if zero_point is not None:
            raise NumericsError(f"{d} has no zero point")
        found = QuantSpec(d.element, scheme="per_tensor")
    shares = found.partition(tuple(x.shape))
    _check("scale", scale, x, shares.shared)
    if zero_point is not None:
        _check("zero_point", zero_point, x, shares.shared, (*FLOATS, *INTEGERS))
    if gradient is not None:
        _check("gradient", gradient, x, x.shape)
    return d, shares


def check_block_recipe(spec: QuantSpec) -> None:
    """Raises NumericsError for blocks whose scale of the tensor has no gradient here."""
    learner(spec.dtype)
    plain = QuantSpec(spec.dtype, axis=spec.axis)
    if spec != plain:
        raise NumericsError(
            f"{spec!r}: the scale of a tensor is learned where blocks find theirs by the default rule, alone "
            f"and rounded half to even; allowed: {plain!r}"
        )


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
