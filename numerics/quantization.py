"""quantize, dequantize, fake_quantize: tensors in a format, with the scales that they need.

A `Recipe` is the checked arguments of one call; checkpoint.py applies one to many tensors, a slice
at a time.  The arithmetic is the backend's (backends/affine.py), the facts are FORMATS §6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.affine import AffineBackend, AffineOptions
from numerics.backends.executor import Affine
from numerics.formats.aliases import dtype as find_dtype
from numerics.formats.backend import Draw
from numerics.formats.block import Block
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, one_of
from numerics.formats.rounding import SCALE_RULES, check_random, check_rounding
from numerics.scheme import Scheme, per_tensor
from numerics.tensor import QTensor, affine_backend, wide_type

Array = NDArray[Any]
SCALE_TYPES = ("float32", "float", "float16", "bfloat16", "pof2")
ZERO_POINT_TYPES = ("int32", "float32")


def quantize(
    x: Any,
    dtype: Any,
    *,
    scheme: Scheme | str | None = None,
    symmetric: bool = True,
    scale_type: str = "float32",
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
    scale_type: float32, float16, bfloat16, pof2 (a power of two, never below the scale wanted,
    2**-127 .. 2**127), float (x's own type).  A scale is found from the finite values of x: amax /
    max (1 where amax is 0), or for symmetric=False, integers only, (max - min) / (qmax - qmin) over
    the range widened to 0.  It is rounded to its type before use, never to zero or infinity: to the
    type's smallest or largest number instead.  scale, zero_point: given instead of found, in the
    shape that the scheme makes; a given scale is rounded to its type too.  zero_point_type: int32,
    or float32 for one that is not rounded.  Block formats take axis and scale_rule instead.
    rounding, seed, random_bits: as for `Dtype.encode`.  Raises NumericsError for what does not fit
    together.  FORMATS §6.

    >>> import numerics as nx
    >>> q = nx.quantize([-1.0, 0.5, 3.0], "int8", symmetric=False, scale_type="pof2")
    >>> q.codes.tolist(), float(q.scale), int(q.zero_point)
    ([128, 176, 0], 0.03125, -96)
    """
    recipe = Recipe.make(
        dtype, scheme=scheme, symmetric=symmetric, scale_type=scale_type, zero_point_type=zero_point_type,
        rounding=rounding, scale_rule=scale_rule, axis=axis,
    )  # fmt: skip
    check_random(recipe.rounding, seed, random_bits)
    target, (data, original) = affine_backend(x), affine_backend(x).prepare(x)
    draw = Draw(seed, random_bits)
    if isinstance(recipe.dtype, Block):
        recipe.refuse_given(scale, zero_point)
        return recipe.pack_blocks(data, original, draw)
    affine = recipe.affine(target, data, original, scale, zero_point)
    return recipe.pack(target, data, original, affine, draw)


def dequantize(q: QTensor) -> Any:
    """The values of a quantized tensor, in the type that was quantized.

    >>> import numerics as nx
    >>> nx.dequantize(nx.quantize([0.1, 0.7], "fp4"))
    [0.11666666716337204, 0.7000000029802322]
    """
    if not isinstance(q, QTensor):
        raise NumericsError(f"dequantize takes a QTensor, not {type(q).__name__}")
    return q.dequantize()


def fake_quantize(
    x: Any,
    dtype: Any,
    *,
    scheme: Scheme | str | None = None,
    symmetric: bool = True,
    scale_type: str = "float32",
    zero_point_type: str = "int32",
    rounding: str = "half_even",
    scale_rule: str = "floor",
    axis: int = -1,
    scale: Any = None,
    zero_point: Any = None,
    seed: int | None = None,
    random_bits: Any = None,
) -> Any:
    """dequantize(quantize(x)), bit for bit, in x's own type, without the bytes between.

    Arguments and errors as for `quantize`.

    >>> import numerics as nx
    >>> nx.fake_quantize([-1.0, 0.3, 3.5], "int4")
    [-1.0, 0.5, 3.5]
    """
    recipe = Recipe.make(
        dtype, scheme=scheme, symmetric=symmetric, scale_type=scale_type, zero_point_type=zero_point_type,
        rounding=rounding, scale_rule=scale_rule, axis=axis,
    )  # fmt: skip
    check_random(recipe.rounding, seed, random_bits)
    target, (data, original) = affine_backend(x), affine_backend(x).prepare(x)
    draw = Draw(seed, random_bits)
    if isinstance(recipe.dtype, Block):
        recipe.refuse_given(scale, zero_point)
        return target.give(recipe.round_blocks(data, draw), original)
    affine = recipe.affine(target, data, original, scale, zero_point)
    partition, element = recipe.scheme_of_elements.partition(data.shape), recipe.element
    values = target.fake_quantize(data, element, partition, affine, recipe.rounding, draw)
    return target.give(values, original)


@dataclass(frozen=True)
class Recipe:
    """How tensors are quantized: options that fit together."""

    dtype: Dtype
    scheme: Scheme | None
    symmetric: bool = True
    scale_type: str = "float32"
    zero_point_type: str = "int32"
    rounding: str = "half_even"
    scale_rule: str = "floor"
    axis: int | None = None

    @classmethod
    def make(
        cls,
        dtype: Any,
        *,
        scheme: Scheme | str | None = None,
        symmetric: bool = True,
        scale_type: str = "float32",
        zero_point_type: str = "int32",
        rounding: str = "half_even",
        scale_rule: str = "floor",
        axis: int = -1,
    ) -> Recipe:
        """The options of `quantize`, checked; raises NumericsError where they contradict each other."""
        found = find_dtype(dtype)
        one_of("scale type", scale_type, SCALE_TYPES)
        one_of("zero point type", zero_point_type, ZERO_POINT_TYPES)
        one_of("scale rule", scale_rule, SCALE_RULES)
        blocked = isinstance(found, Block)
        given = {"scheme": scheme, "symmetric": symmetric, "scale_type": scale_type,
                 "zero_point_type": zero_point_type, "scale_rule": scale_rule, "axis": axis}  # fmt: skip
        _refuse(found, given, FOR_ELEMENTS if blocked else FOR_BLOCKS)
        if not blocked and found.kind != "integer":
            _refuse(found, given, FOR_INTEGERS)
        chosen = None if blocked else Scheme.parse(scheme or per_tensor())
        return cls(found, chosen, symmetric, scale_type, zero_point_type,
                   check_rounding(rounding), scale_rule, axis if blocked else None)  # fmt: skip

    @property
    def element(self) -> Element:
        """The format, where it is one of single numbers."""
        return cast(Element, self.dtype)

    @property
    def scheme_of_elements(self) -> Scheme:
        """The scheme, where the format is one of single numbers."""
        assert self.scheme is not None
        return self.scheme

    def stored_scale_type(self, original: str) -> str:
        """The type of the scales of a tensor of that type: `float` means its own."""
        own = "float64" if original == "python" else original
        return own if self.scale_type == "float" else self.scale_type

    def options(self, original: str) -> AffineOptions:
        """What the backend must know to find a scale."""
        return AffineOptions(self.symmetric, self.stored_scale_type(original), self.zero_point_type)

    # ---- elements --------------------------------------------------------------------------

    def affine(self, target: AffineBackend, data: Any, original: str, scale: Any, zero: Any) -> Affine:
        """The scale and the zero point of a tensor: found, or given and checked."""
        partition = self.scheme_of_elements.partition(data.shape)
        given = None if scale is None else _positive("scale", scale, partition.shared)
        zero = self._given_zero(zero, given, partition.shared, wide_type(original))
        if given is not None and (self.symmetric or zero is not None):
            low = high = np.zeros(partition.shared, wide_type(original))
        else:
            low, high = target.extremes(data, partition)
        found = target.find_affine(low, high, self.element, self.options(original), given)
        return found if zero is None else found._replace(zero=zero)

    def _given_zero(self, zero: Any, scale: Any, shape: tuple[int, ...], wide: str) -> Array | None:
        if zero is None:
            return None
        if self.symmetric:
            raise NumericsError("symmetric=True has no zero point; zero_point belongs to symmetric=False")
        if scale is None:
            raise NumericsError("zero_point is given without its scale; give scale= too")
        found = _numbers("zero_point", zero, shape)
        low, high = self.element.min, self.element.max
        if not np.all((low <= found) & (found <= high)):
            raise NumericsError(f"zero_point {_first(found, (low <= found) & (found <= high))} is outside "
                                f"{low:g} .. {high:g}, the range of {self.dtype}")  # fmt: skip
        if self.zero_point_type == "float32":
            return found.astype(np.float32).astype(wide)
        if not np.all(found == np.rint(found)):
            raise NumericsError(f"zero_point {_first(found, found == np.rint(found))} is not an integer; "
                                "zero_point_type='float32' takes others")  # fmt: skip
        return found.astype(np.int32)

    def pack(self, target: AffineBackend, data: Any, original: str, affine: Affine, draw: Draw) -> QTensor:
        """The quantized tensor, with that scale."""
        partition = self.scheme_of_elements.partition(data.shape)
        packed = target.quantize_packed(data, self.element, partition, affine, self.rounding, draw)
        zero, stored = affine.zero, self.stored_scale_type(original)
        return QTensor(
            dtype=self.dtype,
            shape=data.shape,
            packed=packed,
            shared=affine.scale.astype("float64" if stored == "float64" else "float32"),
            zero_point=zero.astype(np.float32) if zero is not None and zero.dtype.kind == "f" else zero,
            scheme=self.scheme,
            scale_type=stored,
            original=original,
        )

    # ---- blocks ----------------------------------------------------------------------------

    def refuse_given(self, scale: Any, zero: Any) -> None:
        """Block formats find their scales themselves."""
        _refuse(self.dtype, {"scale": scale, "zero_point": zero}, {"scale": None, "zero_point": None})

    def pack_blocks(self, data: Any, original: str, draw: Draw, tensor_scale: float | None = None) -> QTensor:
        """The quantized tensor, in blocks."""
        dtype = cast(Block, self.dtype)
        options = dtype.check_options(
            self.scale_rule, self.rounding, None, tensor_scale, draw.seed, draw.bits
        )
        packed, scale, tensor_scale = affine_backend(data).quantize_blocks(
            data, dtype, cast(int, self.axis), *options
        )
        return QTensor(
            dtype=self.dtype,
            shape=data.shape,
            packed=packed,
            shared=scale,
            axis=self.axis,
            tensor_scale=tensor_scale,
            original=original,
        )

    def round_blocks(self, data: Any, draw: Draw) -> Any:
        """The values of pack_blocks."""
        return cast(Block, self.dtype).round(data, **self._block_options(draw))

    def _block_options(self, draw: Draw) -> dict[str, Any]:
        return {"axis": self.axis, "scale_rule": self.scale_rule, "rounding": self.rounding,
                "seed": draw.seed, "random_bits": draw.bits}  # fmt: skip


# Options that a kind of format cannot have, with the defaults that say nothing.
FOR_ELEMENTS = {"scheme": None, "symmetric": True, "scale_type": "float32", "zero_point_type": "int32"}
FOR_BLOCKS = {"scale_rule": "floor", "axis": -1}
FOR_INTEGERS = {"symmetric": True, "zero_point_type": "int32"}
_WHY = {
    "block": "a block format finds its own scales; allowed: axis, scale_rule, rounding",
    "integer": "an integer format takes a scheme; axis and scale_rule belong to block formats",
    "float": "a float format takes a scheme and is symmetric; "
    "zero points belong to integers, axis and scale_rule to block formats",
}


def _refuse(dtype: Dtype, given: Mapping[str, Any], silent: Mapping[str, Any]) -> None:
    for name, default in silent.items():
        if given[name] is not default and given[name] != default:
            raise NumericsError(f"{dtype}: {name}={given[name]!r} cannot be: {_WHY[dtype.kind]}")


def _numbers(name: str, came: Any, shape: tuple[int, ...]) -> Array:
    try:
        found = np.asarray(came)
        found = found.astype(np.float64) if found.dtype.kind in "fiuV" else found
    except (ValueError, TypeError) as wrong:
        raise NumericsError(f"{name} cannot be read as numbers: {wrong}") from None
    if found.dtype != np.float64:
        raise NumericsError(f"{name} must be real numbers, not {found.dtype.name}")
    if found.shape != shape:
        raise NumericsError(f"{name} has shape {found.shape}; the scheme needs {shape}")
    return found


def _positive(name: str, came: Any, shape: tuple[int, ...]) -> Array:
    found = _numbers(name, came, shape)
    good = np.isfinite(found) & (found > 0)
    if not np.all(good):
        raise NumericsError(f"{name} {_first(found, good)} is not allowed: positive and finite")
    return found


def _first(found: Array, good: Array) -> str:
    """The first one that is not good."""
    return f"{float(found[~good][0]) if found.ndim else float(found):g}"
