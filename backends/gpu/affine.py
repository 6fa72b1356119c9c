"""Scales and zero points on the GPU: who shares one, and the kernels that use them.

How a scale follows from the extremes is done once a scale, on the host (backends/host/affine.py): one
arithmetic, at the price of waiting for the GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from numerics.backends.broadcast import each_row, reduced, spread
from numerics.backends.gpu.blocks import BFLOAT16
from numerics.backends.gpu.launch import launch, per_program, power_of_two
from numerics.backends.gpu.tensors import CODES, FLOATS, memory, pointers, random_bits, words
from numerics.backends.host.executor import Affine, Array
from numerics.backends.host.quantizing import AffineBackend, AffineOptions
from numerics.backends.partition import Partition
from numerics.formats import dispatch
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError
from numerics.formats.grid import Range, grid, range_of
from numerics.formats.rounding import Rounding


def find(low: torch.Tensor, high: torch.Tensor, d: Element, options: AffineOptions, scale: Any) -> Affine:
    """The scale and the zero point for values from low to high, by the host's arithmetic."""
    ends = low.cpu().numpy(), high.cpu().numpy()
    given = None if scale is None else np.asarray(scale)
    return _on(low.device, _host().find_affine(*ends, d, options, given))


def given_affine(
    scale: Array, zero: Array | None, options: AffineOptions, wide: str, device: torch.device
) -> Affine:
    """A scale, rounded to its type, and a zero point, both given."""
    return _on(device, _host().given_affine(scale, zero, options, wide, None))


def _on(device: torch.device, affine: Affine) -> Affine:
    return Affine(*(None if part is None else torch.from_numpy(part).to(device) for part in affine))


def _host() -> AffineBackend:
    return cast(AffineBackend, dispatch.host())


def extremes(x: torch.Tensor, partition: Partition) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest finite value; 0 where there is none; float32, or float64 as x is."""
    data = x if x.dtype == torch.float64 else x.to(torch.float32)
    infinity = torch.full((), math.inf, dtype=data.dtype, device=data.device)
    finite = data.isfinite()
    low = reduced(torch.where(finite, data, infinity), partition, torch.amin, math.inf)
    high = reduced(torch.where(finite, data, -infinity), partition, torch.amax, -math.inf)
    none = ~(low <= high)
    return low.masked_fill(none, 0), high.masked_fill(none, 0)


@dataclass(frozen=True)
class Cut:
    """Elements and whose scale they take, as programs take them: kernels.place_of_scales."""

    order: str  # "rows", "columns" or "groups"
    sizes: tuple[int, int, int, int, int, int]  # rows, n, scales, length, inner, group

    @classmethod
    def of(cls, partition: Partition) -> Cut:
        """Rows of neighbours that share a scale, where there are such."""
        shape, axis, size = partition.shape, partition.axis, partition.size
        total, scales = math.prod(shape), math.prod(partition.shared)
        if axis is None:
            return cls("rows", (1, total, 1, 1, 1, 1))
        length, inner = shape[axis], math.prod(shape[axis + 1 :])
        if size is None and inner == 1:
            return cls("columns", (total // max(length, 1), length, scales, 1, 1, 1))
        if size is None:
            return cls("rows", (total // max(inner, 1), inner, scales, 1, 1, 1))
        if partition.in_order:
            return cls("rows", (scales, total // max(scales, 1), scales, 1, 1, 1))
        return cls("groups", (1, total, scales, length, inner, min(size, max(length, 1))))

    @property
    def elements(self) -> int:
        """Elements of a program; fewer where each brings a scale and a zero point of its own."""
        return per_program(math.prod(self.sizes[:2])) // (1 if self.order == "rows" else 2)

    @property
    def width(self) -> int:
        """Elements of a row that a program takes."""
        return min(power_of_two(max(self.sizes[1], 1)), self.elements)

    @property
    def tile(self) -> int:
        """Rows that it takes."""
        return min(self.elements // self.width, power_of_two(max(self.sizes[0], 1)))

    @property
    def programs(self) -> tuple[int]:
        """The grid of a launch."""
        rows, n = self.sizes[:2]
        return (-(-rows // self.tile) * -(-n // self.width),)

    @property
    def constants(self) -> dict[str, Any]:
        """What is compiled in."""
        return {"ORDER": self.order, "TILE": self.tile, "WIDTH": self.width}


class How(NamedTuple):
    """What is done to elements: the format, who shares a scale, the rounding; `encode` or `round`."""

    dtype: Element
    partition: Partition
    rounding: Rounding
    what: str


def encode(x: torch.Tensor, affine: Affine, how: How) -> torch.Tensor:
    """Codes (`encode`) or values (`round`), in x's shape; values in x's type."""
    if x.dtype == torch.float64:
        return _encode64(x, affine, how)
    return _encode(x, None, affine, how)


def _encode(x: torch.Tensor, low: torch.Tensor | None, affine: Affine, how: How) -> torch.Tensor:
    d, partition, (rounding, _, draw), what = how
    draws, random, seed = random_bits(draw, x)
    kind = CODES[d.code_dtype] if what == "encode" else x.dtype
    out, source = torch.empty(x.shape, dtype=kind, device=x.device), memory(x)
    cut, (scale, zero, point) = Cut.of(partition.groups), _words(_each_row(affine, partition))
    launch(
        "affine_kernel", cut.programs,
        source, *pointers(source, low, random), scale, *pointers(scale, zero), memory(out), *cut.sizes, seed,
        f=grid(d, rounding, "saturate"), q=_range(d, point), rounding=rounding, WHAT=what, ZERO=point,
        KIND=FLOATS[x.dtype], BFLOAT16=BFLOAT16, DRAW=draws, LOW=low is not None, **cut.constants,
    )  # fmt: skip
    return out


def _each_row(affine: Affine, partition: Partition) -> Affine:
    return Affine(*(None if part is None else each_row(part, partition) for part in affine))


def _range(d: Element, zero: str) -> Range | None:
    """The integers of the format, where there is a zero point among them."""
    return range_of(d) if zero != "none" and isinstance(d, Integer) else None


def _words(affine: Affine) -> tuple[torch.Tensor, torch.Tensor | None, str]:
    """Scale and zero point as int32, flat, and what the zero point is."""
    scale = affine.scale.to(torch.float32).reshape(-1).contiguous().view(torch.int32)
    if affine.zero is None:
        return scale, None, "none"
    zero = affine.zero.reshape(-1).contiguous()
    if zero.dtype.is_floating_point:
        return scale, zero.to(torch.float32).view(torch.int32), "float"
    return scale, zero.to(torch.int32), "integer"


def decode(
    codes: torch.Tensor, d: Element, partition: Partition, affine: Affine, bits: int | None = None
) -> torch.Tensor:
    """(q - zero) * scale, in the type of the scale; raises NumericsError for scales of another shape.

    bits: of packed codes; None for codes in the tensor's shape.
    """
    for part in affine:
        if part is not None and tuple(part.shape) != partition.shared:
            due = partition.shared
            raise NumericsError(f"scale has shape {tuple(part.shape)}; {partition.shape} elements need {due}")
    if affine.scale.dtype == torch.float64:
        return _decode64(codes, d, partition, affine, bits)
    out = torch.empty(partition.shape, dtype=torch.float32, device=codes.device)
    cut, (scale, zero, point) = Cut.of(partition.groups), _words(_each_row(affine, partition))
    launch(
        "unaffine_kernel", cut.programs,
        memory(codes.contiguous()), scale, *pointers(scale, zero), memory(out), *cut.sizes,
        f=grid(d, "half_even", "saturate"), q=_range(d, point), ZERO=point, BITS=bits, **cut.constants,
    )  # fmt: skip
    return out


# ---- float64: divided and multiplied in float64, rounded by the kernels ---------------------------


def _encode64(x: torch.Tensor, affine: Affine, how: How) -> torch.Tensor:
    d, partition, rounding, what = how
    y = x / spread(affine.scale, partition)
    zero = affine.zero
    if zero is not None and zero.dtype.is_floating_point:
        point = spread(zero, partition).to(y.dtype)
        y = torch.where(x.isnan(), point, y + point)  # NaN counts as 0
        zero = torch.zeros_like(zero, dtype=torch.float32)
    wide, low = words(y, rounding.mode == "stochastic")
    one = Affine(torch.ones_like(affine.scale, dtype=torch.float32), zero)
    codes = _encode(wide, low, one, how._replace(what="encode"))
    return codes if what == "encode" else _decode64(codes, d, partition, affine)


def _decode64(
    codes: torch.Tensor, d: Element, partition: Partition, affine: Affine, bits: int | None = None
) -> torch.Tensor:
    one = Affine(torch.ones_like(affine.scale, dtype=torch.float32), None)
    value = decode(codes, d, partition, one, bits).to(torch.float64)
    if affine.zero is not None:
        value = value - spread(affine.zero, partition).to(torch.float64)
    return value * spread(affine.scale, partition)


def narrow(values: torch.Tensor, original: str) -> torch.Tensor:
    """float32 or float64 values in another float type, rounded once, half to even."""
    kind = getattr(torch, original)
    if values.dtype == kind or kind == torch.float64:
        return values.to(kind)
    return words(values)[0].to(kind)
