"""Scales and zero points on the GPU: who shares one, and the kernels that use them.

How a scale follows from the extremes is done once a scale, on the host (backends/affine.py): one
arithmetic, at the price of waiting for the GPU.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from numerics.backends.affine import AffineOptions, HostAffine, Partition
from numerics.backends.cpu import EXECUTOR
from numerics.backends.executor import Affine
from numerics.backends.gpu.blocks import BFLOAT16, power_of_two
from numerics.backends.gpu.launch import launch, per_program
from numerics.backends.gpu.tensors import CODES, FLOATS, memory, random_bits, words
from numerics.formats.backend import Draw
from numerics.formats.dtype import Element
from numerics.formats.grid import grid, range_of


class _Host(HostAffine):
    executor = EXECUTOR


def find(low: torch.Tensor, high: torch.Tensor, d: Element, options: AffineOptions, scale: Any) -> Affine:
    """FORMATS §6, by the host's arithmetic."""
    ends = low.cpu().numpy(), high.cpu().numpy()
    given = scale.detach().cpu().numpy() if isinstance(scale, torch.Tensor) else scale
    found = _Host().find_affine(*ends, d, options, None if given is None else np.asarray(given))
    return Affine(*(None if part is None else torch.from_numpy(part).to(low.device) for part in found))  # type: ignore[arg-type]


def extremes(x: torch.Tensor, partition: Partition) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest finite value; 0 where there is none; float32, or float64 as x is."""
    data = x if x.dtype == torch.float64 else x.to(torch.float32)
    infinity = torch.full((), math.inf, dtype=data.dtype, device=data.device)
    finite = data.isfinite()
    low = _reduced(torch.where(finite, data, infinity), partition, torch.amin, math.inf)
    high = _reduced(torch.where(finite, data, -infinity), partition, torch.amax, -math.inf)
    none = ~(low <= high)
    return low.masked_fill(none, 0), high.masked_fill(none, 0)


def _reduced(x: torch.Tensor, partition: Partition, reduce: Any, neutral: float) -> torch.Tensor:
    axis, size = partition.axis, partition.size
    if x.numel() == 0:
        return torch.full(partition.shared, neutral, dtype=x.dtype, device=x.device)
    if axis is None:
        return reduce(x)  # type: ignore[no-any-return]
    if size is None:
        others = [k for k in range(x.ndim) if k != axis]
        return reduce(x, others) if others else x  # type: ignore[no-any-return]
    size = min(size, x.shape[axis])
    missing = -x.shape[axis] % size
    lines = torch.nn.functional.pad(x.movedim(axis, -1), (0, missing), value=neutral)
    return reduce(lines.unflatten(-1, (-1, size)), -1).movedim(-1, axis)  # type: ignore[no-any-return]


def _geometry(partition: Partition) -> tuple[str, tuple[int, ...]]:
    """The order and the sizes of kernels.place_of_scales: rows where one scale's elements adjoin."""
    shape, axis = partition.shape, partition.axis
    total = math.prod(shape)
    if partition.in_order:
        scales = math.prod(partition.shared)
        return "rows", (scales, total // max(scales, 1), 1, 1, 1, 0, 0, 0)
    assert axis is not None
    length, inner = shape[axis], math.prod(shape[axis + 1 :])
    if partition.size is None:
        return "any", (0, total, length, inner, 1, 0, 1, 0)
    size = min(partition.size, length)
    return "any", (0, total, length, inner, size, -(-length // size) * inner, inner, 1)


def _cut(order: str, sizes: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """(grid, rows of a program, elements of a row)."""
    rows, n = sizes[:2]
    if order == "any":
        return (-(-n // per_program()),), 1, per_program()
    width = min(power_of_two(max(n, 1)), per_program())
    tile = min(per_program() // width, power_of_two(max(rows, 1)))
    return (-(-rows // tile), -(-n // width)), tile, width


def encode(
    x: torch.Tensor, d: Element, partition: Partition, affine: Affine, rounding: str, draw: Draw, what: str
) -> torch.Tensor:
    """Codes (`encode`) or values (`round`), in x's shape; values in x's type."""
    draws, random, seed = random_bits(draw, x)
    if x.dtype == torch.float64:
        return _encode64(x, d, partition, affine, rounding, draw, what)
    return _launch_encode(x, None, d, partition, affine, rounding, (draws, random, seed), what)


def _launch_encode(
    x: torch.Tensor, low: torch.Tensor | None, d: Element, partition: Partition, affine: Affine, rounding: str,
    drawn: tuple[str, torch.Tensor | None, int], what: str,
) -> torch.Tensor:  # fmt: skip
    draws, random, seed = drawn
    out = torch.empty(x.shape, dtype=CODES[d.code_dtype] if what == "encode" else x.dtype, device=x.device)
    source, order_sizes = memory(x), _geometry(partition)
    programs, tile, width = _cut(*order_sizes)
    order, sizes = order_sizes
    scale, zero, kind = _words(affine)
    launch(
        "affine_kernel", programs, source, source if low is None else low, source if random is None else random,
        scale, scale if zero is None else zero, memory(out), *sizes, seed,
        f=grid(d, rounding, "saturate"), q=range_of(d) if kind != "none" else None, rounding=rounding,  # type: ignore[arg-type]
        WHAT=what, ZERO=kind, KIND=FLOATS[x.dtype], BFLOAT16=BFLOAT16, DRAW=draws, LOW=low is not None, ORDER=order, TILE=tile,
        WIDTH=width,
    )  # fmt: skip
    return out


def _words(affine: Affine) -> tuple[torch.Tensor, torch.Tensor | None, str]:
    """Scale and zero point as int32, flat, and what the zero point is."""
    scale = affine.scale.to(torch.float32).reshape(-1).contiguous().view(torch.int32)
    if affine.zero is None:
        return scale, None, "none"
    zero = affine.zero.reshape(-1).contiguous()
    if zero.dtype.is_floating_point:
        return scale, zero.to(torch.float32).view(torch.int32), "float"
    return scale, zero.to(torch.int32), "integer"


def decode(codes: torch.Tensor, d: Element, partition: Partition, affine: Affine) -> torch.Tensor:
    """(q - zero) * scale, in the type of the scale."""
    if affine.scale.dtype == torch.float64:
        return _decode64(codes, d, partition, affine)
    out = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    order, sizes = _geometry(partition)
    programs, tile, width = _cut(order, sizes)
    scale, zero, kind = _words(affine)
    launch(
        "unaffine_kernel", programs, memory(codes.contiguous()), scale, scale if zero is None else zero, memory(out),
        *sizes, f=grid(d, "half_even", "saturate"), q=range_of(d) if kind != "none" else None,  # type: ignore[arg-type]
        ZERO=kind, ORDER=order, TILE=tile, WIDTH=width,
    )  # fmt: skip
    return out


# ---- float64: divided and multiplied in float64, rounded by the kernels ---------------------------


def spread(field: torch.Tensor, partition: Partition) -> torch.Tensor:
    """A scale or zero point for every element, to broadcast over the tensor."""
    axis, size = partition.axis, partition.size
    if axis is None:
        return field.reshape(())
    if size is None:
        return field.reshape([-1 if k == axis else 1 for k in range(len(partition.shape))])
    length = partition.shape[axis]
    return field.repeat_interleave(min(size, max(length, 1)), axis).narrow(axis, 0, length)


def _encode64(
    x: torch.Tensor, d: Element, partition: Partition, affine: Affine, rounding: str, draw: Draw, what: str
) -> torch.Tensor:
    y = x / spread(affine.scale, partition)
    zero = affine.zero
    if zero is not None and zero.dtype.is_floating_point:
        y, zero = y + spread(zero, partition), torch.zeros_like(zero, dtype=torch.float32)
    wide, low = words(y, rounding == "stochastic")
    one = Affine(torch.ones_like(affine.scale, dtype=torch.float32), zero)  # type: ignore[arg-type]
    codes = _launch_encode(wide, low, d, partition, one, rounding, random_bits(draw, x), "encode")
    return codes if what == "encode" else _decode64(codes, d, partition, affine)


def _decode64(codes: torch.Tensor, d: Element, partition: Partition, affine: Affine) -> torch.Tensor:
    one = Affine(torch.ones_like(affine.scale, dtype=torch.float32), None)  # type: ignore[arg-type]
    value = decode(codes, d, partition, one).to(torch.float64)
    if affine.zero is not None:
        value = value - spread(affine.zero, partition).to(torch.float64)
    return value * spread(affine.scale, partition)


def narrow(values: torch.Tensor, original: str) -> torch.Tensor:
    """float32 or float64 values in another float type, rounded once, half to even."""
    kind = getattr(torch, original)
    if values.dtype == kind or kind == torch.float64:
        return values.to(kind)
    return words(values)[0].to(kind)
