"""quantize, dequantize, fake_quantize: tensors in a format, with the scales that they need.

What the user asks for becomes one record, a QuantSpec; the rest is the backend's (backends/quantizing.py),
to which torch tensors come by way of torch's operators.
"""

from __future__ import annotations

from typing import Any

from numerics.formats import dispatch
from numerics.formats.errors import NumericsError, truth
from numerics.formats.protocol import Given
from numerics.formats.rounding import draw_of
from numerics.tensor.qtensor import ArrayQTensor, QTensor, check_quantized
from numerics.tensor.scheme import Scheme
from numerics.tensor.spec import spec_of


def quantize(
    x: Any,
    dtype: Any,
    *,
    scheme: Scheme | str | None = None,
    symmetric: bool = True,
    scale_type: str | None = None,
    zero_point_type: str = "int32",
    rounding: str = "half_even",
    scale_rule: str = "floor",
    axis: int = -1,
    scale: Any = None,
    zero_point: Any = None,
    seed: int | None = None,
    random_bits: Any = None,
) -> QTensor:
    """A tensor in a format: codes = clamp(round(x / scale) + zero_point).

    x: as for `Dtype.encode`.  Integers and floats take a scheme (per_tensor by default), and
    scale_type: float32 (the default), float16, bfloat16, pof2 (a power of two, never below the scale wanted,
    2**-127 .. 2**127), float (x's own type).  A scale is found from the finite values of x: amax /
    max (1 where amax is 0), or for symmetric=False, integers only, (max - min) / (qmax - qmin) over
    the range widened to 0.  It is rounded to its type before use, never to zero or infinity: to the
    type's smallest or largest number instead.  scale, zero_point: given instead of found, in the
    shape that the scheme makes; a given scale is rounded to its type too.  Negative values are lost in
    a symmetric unsigned format: where the scale is found, a NumericsWarning says how many.
    zero_point_type: int32, or float32 for one that is not rounded.  NaN becomes an integer as 0 does.
    Wide floats (bfloat16, float16: `Float.wide`) are a plain cast, scale 1 and Inf where `encode` gives
    it, unless scheme, scale_type or scale is given.  Block formats take axis and scale_rule instead.
    rounding, seed, random_bits: as for `Dtype.encode`.  Of a torch tensor: a tensor subclass
    (subclass.py), on its device.  Raises NumericsError for what does not fit together.  FORMATS §6.

    >>> import numerics as nx
    >>> q = nx.quantize([-1.0, 0.5, 3.0], "int8", symmetric=False, scale_type="pof2")
    >>> q.codes.tolist(), float(q.scale), int(q.zero_point)
    ([128, 176, 0], 0.03125, -96)
    """
    options = scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis
    spec = spec_of(scale is not None, dtype, *options)
    if isinstance(x, QTensor):
        raise _quantized(x)
    draw = draw_of(spec.rounding, seed, random_bits)
    made = dispatch.of(x).quantize(x, spec, Given(scale, zero_point), draw)
    return made if isinstance(made, QTensor) else ArrayQTensor.of_parts(spec, made)


def dequantize(q: QTensor) -> Any:
    """The values of a quantized tensor, in the type that was quantized.

    >>> import numerics as nx
    >>> nx.dequantize(nx.quantize([0.1, 0.7], "fp4"))
    [0.11666666716337204, 0.7000000029802322]
    """
    check_quantized("dequantize", q)
    return q.dequantize()


def fake_quantize(
    x: Any,
    dtype: Any,
    *,
    scheme: Scheme | str | None = None,
    symmetric: bool = True,
    scale_type: str | None = None,
    zero_point_type: str = "int32",
    rounding: str = "half_even",
    scale_rule: str = "floor",
    axis: int = -1,
    scale: Any = None,
    zero_point: Any = None,
    seed: int | None = None,
    random_bits: Any = None,
    clip_gradient: bool = False,
) -> Any:
    """dequantize(quantize(x)), bit for bit, in x's own type, without the bytes between.

    Arguments and errors as for `quantize`.  In torch the gradient goes straight through (arXiv
    1308.3432), with clip_gradient=True only where x lies within the range of the format.

    >>> import numerics as nx
    >>> nx.fake_quantize([-1.0, 0.3, 3.5], "int4")
    [-1.0, 0.5, 3.5]
    """
    options = scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis
    spec = spec_of(scale is not None, dtype, *options)
    if isinstance(x, QTensor):
        raise _quantized(x)
    draw = draw_of(spec.rounding, seed, random_bits)
    clip = truth("clip_gradient", clip_gradient)
    return dispatch.of(x).fake_quantize(x, spec, Given(scale, zero_point), draw, clip)


def _quantized(x: QTensor) -> NumericsError:
    return NumericsError(f"{x!r} is quantized already; dequantize it first")
