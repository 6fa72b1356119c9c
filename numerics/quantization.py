"""quantize, dequantize, fake_quantize: tensors in a format, with the scales that they need.

What the user asks for becomes one record, a QuantSpec; the rest is the backend's
(backends/host/quantizing.py), to which torch tensors come by way of torch's operators.
"""

from __future__ import annotations

from typing import Any, Never

from numerics.formats import dispatch
from numerics.formats.arguments import MISSING, required, unknown_argument
from numerics.formats.errors import NumericsError, truth
from numerics.formats.protocol import Given
from numerics.formats.rounding import draw_of
from numerics.tensor.qtensor import ArrayQTensor, QTensor, check_quantized
from numerics.tensor.scheme import Scheme
from numerics.tensor.spec import (
    AXIS,
    NOTHING,
    ROUNDING,
    SCALE_RULE,
    SYMMETRIC,
    ZERO_POINT_TYPE,
    spec_of,
)


@required
def quantize(
    x: Any,
    dtype: Any,
    *unnamed: Never,
    scheme: Scheme | str | None = NOTHING,
    symmetric: bool = SYMMETRIC,
    scale_type: str | None = NOTHING,
    zero_point_type: str = ZERO_POINT_TYPE,
    rounding: str = ROUNDING,
    scale_rule: str = SCALE_RULE,
    axis: int = AXIS,
    scale: Any = None,
    zero_point: Any = None,
    tensor_scale: Any = None,
    seed: int | None = None,
    random_bits: Any = None,
    **unknown: Never,
) -> QTensor:
    """Returns a tensor in a format, as packed codes with the scales that they need.

    Single numbers become codes = clamp(round(x / scale) + zero_point); blocks find their own scales.

    x: a NumPy array or a torch tensor of float16, bfloat16, float32 or float64, of any shape and strides, or
        a Python number or nested list, which counts as float64.  It is not changed.
    dtype: the format: an object such as nx.int4, or its name, ours or another library's ("float8_e4m3fn").
        A QuantSpec says the format and its options in one, down to rounding and scale_rule; beside it only
        what is of one tensor may be given: scale, zero_point, tensor_scale, seed, random_bits.

    Integer and float formats take:
    scheme: which elements share a scale: nx.per_tensor() (the default), nx.per_channel(axis),
        nx.per_token(), nx.per_group(size, axis=-1), nx.per_block((rows, columns)), or such a text; of block
        formats only nx.per_block((rows, block)): rows of blocks share a scale, as in NVFP4 of 16 x 16.
    symmetric: True (the default): scale = amax / largest value (of codebooks: the largest magnitude), no zero
        point.  False, integers only: scale = (max - min) / (qmax - qmin), of the range widened to hold 0, and
        a zero point.
    scale_type: what a scale is rounded to before it is used: float32 (the default), float16, bfloat16,
        float (x's own type), or pof2 (the smallest power of two not below, 2**-127 .. 2**127).  It never
        becomes 0 or Inf: the type's smallest or largest number instead.
    zero_point_type: int32 (the default), or float32 for one that is not rounded to an integer.
    scale, zero_point: given instead of found, in the shape that the scheme makes: () for per_tensor, (n,)
        for per_channel; x's shape with 1 along the last axis for per_token, ceil(n / size) along the axis for
        per_group, ceil(m / rows) and ceil(n / columns) along the last two for per_block.
    Scales are found from the finite values of x; one is 1 where all are 0.  bfloat16 and float16 are a plain
    cast (scale 1; too large values become Inf) unless scheme, scale_type or scale is given.

    Block formats take instead:
    axis: along which blocks lie, the last by default.
    scale_rule: of OCP MX: floor (the default), ceil, even, rceil, tosa or bump; of float scales: floor, ceil,
        nvidia, mse, four_over_six or four_over_six_mae, as for `Block.encode`.  Symmetric signed integers
        take full_range: scale = amax / 127.5 (of int8), half of the range, so that the largest is clipped.
    tensor_scale: of blocks with float scales, such as NVFP4: the one scale of the tensor, given instead of
        found from the largest magnitude: a positive number within float32, or an array or tensor of one.

    All take:
    rounding: half_even (the default: a tie goes to the even code), half_away or round (away from zero),
        half_up, half_down, toward_zero, floor, ceil, to_odd or stochastic, as for `Element.encode`.
    seed, random_bits: of stochastic rounding, exactly one: a 64-bit integer, or uint32 in x's shape.

    Returns a QTensor; of a torch tensor one that is a torch tensor too, on its device.  In an integer format
    NaN becomes the code that 0 has, in other formats without NaN the largest value; `QTensor.error` says of
    how many.  Warns where a symmetric unsigned format loses negative values, and of NaN that a format does
    not have where x has no finite value but 0.  Raises NumericsError for an unknown option, and for options
    that do not fit together.  Every rule: docs/formats.md §6.

    >>> import numerics as nx
    >>> q = nx.quantize([[0.5, -3.5], [2.1, 7.0]], "int4", scheme=nx.per_channel(0))
    >>> q.codes.tolist(), q.scale.tolist(), q.dequantize()
    ([[1, 9], [2, 7]], [0.5, 1.0], [[0.5, -3.5], [2.0, 7.0]])
    >>> q = nx.quantize([-1.0, 0.5, 3.0], "int8", symmetric=False, scale_type="pof2")
    >>> q.codes.tolist(), float(q.scale), int(q.zero_point)
    ([128, 176, 0], 0.03125, -96)
    >>> nx.quantize([0.5, 6.0], "nvfp4", tensor_scale=0.25).tensor_scale
    0.25
    """
    if unknown or unnamed or x is MISSING or dtype is MISSING:
        raise unknown_argument(quantize, unknown, (x, dtype), unnamed)
    options = scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis
    spec = spec_of(scale is not None, dtype, *options)
    if isinstance(x, QTensor):
        raise _quantized(x)
    draw = draw_of(spec.rounding, seed, random_bits)
    made = dispatch.of(x).quantize(x, spec, Given(scale, zero_point, tensor_scale), draw)
    return made if isinstance(made, QTensor) else ArrayQTensor.of_parts(spec, made)


@required
def dequantize(q: QTensor, *unnamed: Never, **unknown: Never) -> Any:
    """Returns the values of a quantized tensor, in its shape and in the type that was quantized.

    q: a QTensor; `q.dequantize(dtype)` gives another type.  An integer is (code - zero_point) * scale, any
    other element its value times the scale, of a block format the block's; each operation is rounded once.
    Raises NumericsError for what is no QTensor.

    >>> import numerics as nx
    >>> nx.dequantize(nx.quantize([0.1, 0.7], "fp4"))
    [0.11666666716337204, 0.7000000029802322]
    """
    if unknown or unnamed or q is MISSING:
        raise unknown_argument(dequantize, unknown, (q,), unnamed)
    check_quantized("dequantize", q)
    return q.dequantize()


@required
def fake_quantize(
    x: Any,
    dtype: Any,
    *unnamed: Never,
    scheme: Scheme | str | None = NOTHING,
    symmetric: bool = SYMMETRIC,
    scale_type: str | None = NOTHING,
    zero_point_type: str = ZERO_POINT_TYPE,
    rounding: str = ROUNDING,
    scale_rule: str = SCALE_RULE,
    axis: int = AXIS,
    scale: Any = None,
    zero_point: Any = None,
    tensor_scale: Any = None,
    seed: int | None = None,
    random_bits: Any = None,
    clip_gradient: bool = False,
    **unknown: Never,
) -> Any:
    """Returns dequantize(quantize(x)), bit for bit, in x's own type and shape, made in one pass.

    x, dtype: as for `quantize`, and so are scheme (per_tensor, per_channel(axis), per_token,
    per_group(size, axis), per_block((rows, columns))), symmetric, scale_type (float32, float16, bfloat16,
    float, pof2), zero_point_type (int32, float32), scale, zero_point; of blocks axis and scale_rule (floor,
    ceil, even, rceil, tosa, bump; of float scales floor, ceil, nvidia, mse, four_over_six,
    four_over_six_mae; of symmetric signed integers full_range);
    rounding (half_even, half_away, half_up, half_down, toward_zero, floor, ceil, to_odd, stochastic), seed
    and random_bits.
    clip_gradient: in torch the gradient goes straight through (arXiv 1308.3432); True makes it 0 where x lies
        outside what its scale can represent, half a step beyond the outermost values, and at Inf and NaN.
    Raises NumericsError as `quantize` does.  Every rule: docs/formats.md §6, §7.

    >>> import numerics as nx
    >>> nx.fake_quantize([-1.0, 0.3, 3.5], "int4")
    [-1.0, 0.5, 3.5]
    """
    if unknown or unnamed or x is MISSING or dtype is MISSING:
        raise unknown_argument(fake_quantize, unknown, (x, dtype), unnamed)
    options = scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis
    spec = spec_of(scale is not None, dtype, *options)
    if isinstance(x, QTensor):
        raise _quantized(x)
    draw = draw_of(spec.rounding, seed, random_bits)
    clip = truth("clip_gradient", clip_gradient)
    return dispatch.of(x).fake_quantize(x, spec, Given(scale, zero_point, tensor_scale), draw, clip)


def _quantized(x: QTensor) -> NumericsError:
    return NumericsError(f"{x!r} is quantized already; dequantize it first")
