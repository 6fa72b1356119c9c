"""What adapters compute with: rows of a tensor, a scale each, our kernels at those scales.

The scales are the host's, found by its own rule from one number a row; here they are given to our kernels as
the explicit argument that they take.  Rows whose scale no kernel takes (0, Inf, NaN), or with elements that
the host treats in a way of its own (Inf, NaN), are few; they come from elsewhere and are put in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.formats import dispatch
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError
from numerics.formats.integers import integer_format
from numerics.pytorch.qtensor import TensorQTensor
from numerics.quantization import fake_quantize, quantize
from numerics.tensor.scheme import Scheme, per_channel, per_tensor
from numerics.tensor.spec import QuantSpec

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
ZEROS = (torch.float32, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types of zero points beside which float32 stays float32."""
PER_ROW = per_channel(0)
LONG = {torch.float32: 256, torch.bfloat16: 256, torch.float16: 64}
"""The length of a row from which on `is_long`."""


def takes(*tensors: Any) -> bool:
    """Are these plain tensors on the CPU, with numbers in them?  Only such are taken from a host."""
    return all(
        type(x) in (Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and not x.is_nested
        and not x.is_neg()
        and not x._is_zerotensor()
        and x.numel()
        for x in tensors
    )


def is_odd(x: Any) -> bool:
    """Has a contiguous tensor an axis of one number with another stride than a new tensor's?

    Hosts differ in whether their results have it, too.
    """
    if not takes(x) or 1 not in x.shape or not x.is_contiguous():
        return False
    return x.stride() != torch.empty(x.shape, device="meta").stride()


def laid_like(made: Tensor, x: Tensor) -> Any:
    """A new tensor of x's shape, laid in memory as torch lays what it computes of each number of x.

    NotImplemented where hosts differ.
    """
    if x.is_contiguous():
        return NotImplemented if is_odd(x) else made
    strides = torch.empty_like(x, device="meta").stride()
    if made.stride() == strides:
        return made
    return torch.empty_strided(x.shape, strides, dtype=made.dtype).copy_(made)


def default_widens() -> bool:
    """Does a tensor that a host makes without a type turn float32 beside it into float64?"""
    return torch.get_default_dtype() == torch.float64


def scheme_of(scale: Tensor) -> Scheme:
    """One scale, or one a row."""
    return per_tensor() if scale.dim() == 0 else PER_ROW


def largest(rows: Tensor) -> Tensor:
    """The largest magnitude of each row; NaN where there is one."""
    low, high = extremes(rows)
    return torch.maximum(high, -low)


def has_specials(x: Tensor) -> bool:
    """May there be Inf or NaN?  One pass; sums that overflow say yes, too."""
    if x.dtype.itemsize == 2 and math.isfinite(float(x.sum())):  # the quicker sum of 16 bits overflows sooner
        return False
    return not math.isfinite(float(x.sum(dtype=torch.float32)))


def is_long(x: Tensor, length: int) -> bool:
    """Are torch's two reductions of such rows quicker than our one, and a look for Inf and NaN?"""
    return length >= LONG[x.dtype]


def extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest number of each row, in x's type; NaN where there is one."""
    if is_long(rows, rows.shape[1]):
        return rows.amin(-1), rows.amax(-1)
    odd = odd_rows(rows)
    low, high = _finite_extremes(rows)
    if len(odd):  # our kernel passes over what is not finite
        low[odd], high[odd] = rows[odd].amin(-1), rows[odd].amax(-1)
    return low, high


def _finite_extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest finite number of each row, in x's type; 0 where there is none."""
    owner = dispatch.owner(rows)
    data = owner.prepare(rows.detach()).data
    with ieee_arithmetic():
        found = owner.extremes(data, PER_ROW.partition(tuple(rows.shape)))
    low, high = (torch.as_tensor(end).to(rows.dtype) for end in found)
    return low, high


def ordinary(scale: Tensor) -> Tensor:
    """Which scales do our kernels take: positive and finite ones."""
    return (scale > 0) & (scale < math.inf)


def odd_rows(x: Tensor) -> Tensor:
    """The numbers of the rows with Inf or NaN."""
    if not has_specials(x):
        return torch.empty(0, dtype=torch.long)
    return (~torch.isfinite(x).all(-1)).nonzero().squeeze(1)


def put_in(made: Tensor, rows: Tensor, theirs: Callable[[Tensor], Tensor]) -> Tensor:
    """The result, with the rows of those numbers from elsewhere."""
    if len(rows):
        made[rows] = theirs(rows)
    return made


def shifted_codes(x: Tensor, zero_point: Tensor, element: Element) -> Tensor:
    """clamp(round(x) + zero_point) for each row, or for all where there is one zero point."""
    options: dict[str, Any] = {"scheme": scheme_of(zero_point), "symmetric": False}
    made = quantize(
        x, element, scale=torch.ones(zero_point.shape, dtype=torch.float32), zero_point=zero_point, **options
    )
    codes: Tensor = made.codes
    return codes


def values_of(codes: Tensor, scale: Tensor, zero_point: Tensor | None, element: Element) -> Tensor:
    """(code - zero_point) * scale for each row, or for all where there is one scale, as float32."""
    symmetric = zero_point is None
    spec = QuantSpec(element, scheme=scheme_of(scale), symmetric=symmetric)
    parts = {
        "packed": codes.reshape(-1).view(torch.uint8),
        "shared": scale.contiguous(),
        "zero_point": zero_point,
    }
    return TensorQTensor(spec, tuple(codes.shape), torch.float32, parts).dequantize()


def rows_of(shape: Sequence[int], block: Sequence[int]) -> int | None:
    """How long are the rows, where the elements of each block follow one another in memory?  Else None.

    >>> rows_of((4, 64), (1, 32)), rows_of((4, 64), (4, 64)), rows_of((4, 64), (4, 1))
    (32, 256, None)
    """
    if len(shape) != len(block) or any(size % one for size, one in zip(shape, block, strict=True)):
        return None
    before = True  # the axes of which a block has one element
    for size, one in zip(shape, block, strict=True):
        if not before and one != size:
            return None
        before = before and one == 1
    return math.prod(block)


def rows_of_blocks(x: Any, axis: int, size: int) -> Tensor | None:
    """Blocks of float32 along the last axis as rows; None where they are otherwise, or do not fill it."""
    if not takes(x) or x.dtype != torch.float32 or not x.is_contiguous() or x.dim() == 0 or size < 1:
        return None
    if axis not in (-1, x.dim() - 1) or x.shape[-1] % size:
        return None
    return x.view(-1, size)


def row_length(x: Any, block: Sequence[int]) -> int | None:
    """The length of rows, where each is a block and more than one element; None for tensors not taken."""
    if not takes(x) or x.dtype not in FLOATS or not x.is_contiguous():
        return None
    length = rows_of(x.shape, tuple(block))
    return length if length is not None and length > 1 else None


def within(zero: Tensor, element: Integer) -> bool:
    """Are all zero points integers of the format?"""
    whole = not zero.is_floating_point() or bool((zero == zero.round()).all())
    return whole and between(zero, element.min, element.max)


def between(x: Tensor, least: float, most: float) -> bool:
    """Do all numbers lie in that range?"""
    low, high = x.aminmax()
    return float(low) >= least and float(high) <= most


@lru_cache(maxsize=64)
def integer_of(low: float, high: float) -> Integer | None:
    """The integer format of that range; None where there is none.

    >>> integer_of(-8, 7), integer_of(-127, 127), integer_of(0, 15), integer_of(-10, 5)
    (int4, int8_narrow, uint4, None)
    """
    if not (float(low).is_integer() and float(high).is_integer() and low < high):
        return None
    try:
        made = integer_format(int(high).bit_length() + (low < 0), signed=low < 0, narrow=low == -high)
    except NumericsError:  # of too few or too many bits
        return None
    return made if (made.min, made.max) == (low, high) else None


def whole_steps(steps: Tensor, zero: Tensor, element: Integer, scheme: Scheme) -> Tensor:
    """clamp(round(x) + zero) - zero of steps, in their memory where there are no zero points."""
    if not bool(zero.any()):
        element.round(steps, out=steps)
        return steps
    options: dict[str, Any] = {"scheme": scheme, "symmetric": False}
    one = torch.ones(zero.shape, dtype=torch.float32)
    made: Tensor = fake_quantize(steps, element, scale=one, zero_point=zero.int(), **options)
    return made
