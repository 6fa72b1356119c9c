"""quantize, dequantize, fake_quantize: tensors in a format, with the scales that they need.

Torch tensors go through torch's operators (ops.py), which come back here with the backend's own
arrays.  The arithmetic is the backend's (backends/host/affine.py), the facts are FORMATS §6.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.affine import AffineBackend
from numerics.backends.host.arrays import listed
from numerics.backends.host.executor import Affine
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.tensors import is_tensor
from numerics.formats import dispatch
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, truth, warn
from numerics.formats.rounding import Draw, Rounding, check_random, check_rounding
from numerics.tensor.qtensor import ArrayQTensor, QTensor, affine_backend, check_quantized, to_host, wide_type
from numerics.tensor.scheme import Scheme, spelled
from numerics.tensor.spec import Recipe, recipe_of, recipe_text

Array = NDArray[Any]


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
    rounding = check_rounding(rounding)
    options = (dtype, spelled(scheme), symmetric, scale_type, zero_point_type, rounding, scale_rule, axis,
               scale is not None)  # fmt: skip
    seed = check_random(rounding, seed, random_bits)
    _refuse_quantized(x)
    face = dispatch.face(x)
    if face is not None:
        return cast(QTensor, face.quantize(x, recipe_text(*options), scale, zero_point, seed, random_bits))
    return quantized(x, recipe_of(*options), scale, zero_point, Draw(seed, random_bits))


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
    rounding = check_rounding(rounding)
    options = (dtype, spelled(scheme), symmetric, scale_type, zero_point_type, rounding, scale_rule, axis,
               scale is not None)  # fmt: skip
    seed = check_random(rounding, seed, random_bits)
    clip_gradient = truth("clip_gradient", clip_gradient)
    _refuse_quantized(x)
    if type(clip_gradient) is not bool:
        raise NumericsError(f"clip_gradient={clip_gradient!r} is not allowed: True or False")
    face = dispatch.face(x)
    if face is not None:
        recipe = recipe_text(*options)
        return face.fake_quantize(x, recipe, scale, zero_point, seed, random_bits, clip_gradient)
    return fake_quantized(x, recipe_of(*options), scale, zero_point, Draw(seed, random_bits))


def _refuse_quantized(x: Any) -> None:
    if isinstance(x, QTensor):
        raise NumericsError(f"{x!r} is quantized already; dequantize it first")


# ---- on the backend that owns the data -----------------------------------------------------------


def quantized(x: Any, recipe: Recipe, scale: Any, zero_point: Any, draw: Draw) -> ArrayQTensor:
    """`quantize`, its options checked."""
    recipe.refuse_given(scale, zero_point)
    if scale is not None:
        recipe = recipe.with_scale()
    target = affine_backend(x)
    data, original = target.prepare(x)
    if recipe.blocked:
        return pack_blocks(recipe, data, original, draw)
    affine = affine_of(recipe, target, data, original, scale, zero_point)
    return pack(recipe, target, data, original, affine, draw)


def fake_quantized(x: Any, recipe: Recipe, scale: Any, zero_point: Any, draw: Draw) -> Any:
    """`fake_quantize`, its options checked."""
    recipe.refuse_given(scale, zero_point)
    target = affine_backend(x)
    data, original = target.prepare(x)
    if recipe.blocked:
        options = recipe.block.check_options(
            recipe.scale_rule, recipe.rounding, None, None, draw.seed, draw.bits
        )
        values = dispatch.owner(data).round_blocks(data, recipe.block, cast(int, recipe.axis), *options, None)
    elif not recipe.scaled and scale is None:
        element = recipe.element
        values = dispatch.owner(data).round(
            data, element, Rounding(recipe.rounding, element.default_overflow, draw), None
        )
    else:
        affine = affine_of(recipe, target, data, original, scale, zero_point)
        partition = recipe.partition(tuple(data.shape))
        values = target.fake_quantize(
            data, recipe.element, partition, affine, Rounding(recipe.rounding, draw=draw)
        )
    return target.give(values, original)


def affine_of(
    recipe: Recipe, target: AffineBackend, data: Any, original: str, scale: Any = None, zero: Any = None
) -> Affine:
    """The scale and the zero point of a tensor: found, or given and checked; 1 of a cast."""
    partition = recipe.partition(tuple(data.shape))
    given = None if scale is None else _positive("scale", scale, partition.shared)
    zero = _given_zero(recipe, zero, given, partition.shared, wide_type(original))
    options = recipe.options(original)
    if given is None and not recipe.scaled:
        given = np.ones(partition.shared)
    if given is not None and (recipe.symmetric or zero is not None):
        return target.given_affine(given, zero, options, wide_type(original), data)
    low, high = target.extremes(data, partition)
    if recipe.symmetric and not recipe.element.signed:
        _say_clipped(recipe.element, low, data)
    return target.find_affine(low, high, recipe.element, options, given)


def _say_clipped(d: Element, low: Any, data: Any) -> None:
    """Warns of negative values that an unsigned format is about to lose."""
    if bool((low < 0).any()):
        keeps = "symmetric=False shifts its range" if d.kind == "integer" else "a signed format keeps them"
        count, size = int((data < 0).sum()), math.prod(data.shape)
        warn(f"{count} of {size} values are negative and become {d.min:g}: {d} is unsigned; {keeps}")


def pack(
    recipe: Recipe, target: AffineBackend, data: Any, original: str, affine: Affine, draw: Draw
) -> ArrayQTensor:
    """The quantized tensor, with that scale."""
    shape, element = tuple(data.shape), recipe.element
    if recipe.scaled:
        packed = target.quantize_packed(
            data, element, recipe.partition(shape), affine, Rounding(recipe.rounding, draw=draw)
        )  # fmt: skip
    else:
        overflow = element.default_overflow
        packed = dispatch.owner(data).encode_packed(data, element, Rounding(recipe.rounding, overflow, draw))
    scale, zero = stored(recipe, target, affine, original)
    return ArrayQTensor(
        recipe=recipe, shape=shape, packed=packed, shared=scale, zero_point=zero, original=original
    )


def stored(recipe: Recipe, target: AffineBackend, affine: Affine, original: str) -> Affine:
    """A scale and a zero point in the types in which they are kept."""
    kind = "float64" if recipe.stored_scale_type(original) == "float64" else "float32"
    zero = affine.zero
    if zero is not None and recipe.zero_point_type == "float32":
        zero = target.give(zero, "float32")
    return Affine(target.give(affine.scale, kind), zero)


def pack_blocks(
    recipe: Recipe, data: Any, original: str, draw: Draw, tensor_scale: float | None = None
) -> ArrayQTensor:
    """The quantized tensor, in blocks."""
    d = recipe.block
    options = d.check_options(recipe.scale_rule, recipe.rounding, None, tensor_scale, draw.seed, draw.bits)
    packed, scale, tensor_scale = affine_backend(data).quantize_blocks(
        data, d, cast(int, recipe.axis), *options
    )
    return ArrayQTensor(
        recipe=recipe, shape=tuple(data.shape), packed=packed, shared=scale, tensor_scale=tensor_scale,
        original=original,
    )  # fmt: skip


# ---- scales and zero points that are given -------------------------------------------------------


def _given_zero(recipe: Recipe, zero: Any, scale: Any, shape: tuple[int, ...], wide: str) -> Array | None:
    if zero is None:
        return None
    if recipe.symmetric:
        raise NumericsError("symmetric=True has no zero point; zero_point belongs to symmetric=False")
    if scale is None:
        raise NumericsError("zero_point is given without its scale; give scale= too")
    found = _numbers("zero_point", zero, shape)
    low, high = recipe.element.min, recipe.element.max
    if not np.all((low <= found) & (found <= high)):
        raise NumericsError(f"zero_point {_first(found, (low <= found) & (found <= high))} is outside "
                            f"{low:g} .. {high:g}, the range of {recipe.dtype}")  # fmt: skip
    if recipe.zero_point_type == "float32":
        with ieee_arithmetic():
            return found.astype(np.float32).astype(wide)
    if not np.all(found == np.rint(found)):
        raise NumericsError(f"zero_point {_first(found, found == np.rint(found))} is not an integer; "
                            "zero_point_type='float32' takes others")  # fmt: skip
    return found.astype(np.int32)


def _numbers(name: str, came: Any, shape: tuple[int, ...]) -> Array:
    try:
        found = to_host(came) if is_tensor(came) else listed(name, came)
        if found.dtype != np.float64 and found.dtype.kind in "fiuV":
            with ieee_arithmetic():
                found = found.astype(np.float64)
    except (ValueError, TypeError) as wrong:
        raise NumericsError(f"{name} cannot be read as numbers: {wrong}") from None
    if found.dtype != np.float64:
        raise NumericsError(f"{name} must be real numbers, not {found.dtype.name}")
    if found.shape != shape:
        raise NumericsError(f"{name} has shape {found.shape}; the scheme needs {shape}")
    return found


def _positive(name: str, came: Any, shape: tuple[int, ...]) -> Array:
    found = _numbers(name, came, shape)
    if found.size == 1 and 0 < found.item() < np.inf:
        return found
    good = np.asarray((found > 0) & (found < np.inf))
    if not good.all():
        raise NumericsError(f"{name} {_first(found, good)} is not allowed: positive and finite")
    return found


def _first(found: Array, good: Array) -> str:
    """The first one that is not good."""
    return f"{float(found[~good][0]) if found.ndim else float(found):g}"
