"""What the parts of a quantized tensor are, and the two checks that they are so.

Bytes, scales and zero points come from calls, files, pickles and other processes, and kernels read
them by their addresses: whoever makes a QTensor comes through `check_parts`, and so does whoever reads
one.  What a backend, or torch's operator, has just made is as it should be.  Their numbers are looked at
once, by `check_numbers`, where parts come from outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.quantizing import check_finite, check_in_range, to_host
from numerics.backends.host.tensors import check_memory, has_values, is_of_level, is_tensor, number_of
from numerics.backends.partition import fits_array, plain_shape
from numerics.formats.block import stored_scale
from numerics.formats.dtype import Float
from numerics.formats.errors import NumericsError, digits, said, text_in, with_article
from numerics.formats.floats import bfloat16, e8m0, float16
from numerics.tensor.spec import QuantSpec

PARTS = ("packed", "shared", "zero_point", "tensor_scale")
"""What a quantized tensor holds, as far as its format has it."""
ORIGINALS = ("float16", "bfloat16", "float32", "float64", "python")
SCALE_CODECS: Mapping[str, Float] = {"pof2": e8m0, "float16": float16, "bfloat16": bfloat16}
"""The formats of scales that are kept in float32 and stored in fewer bits."""


class Part(NamedTuple):
    """The type and the shape of one part."""

    kind: np.dtype[Any]
    shape: tuple[int, ...]
    name: str  # of the type, which NumPy takes microseconds to say

    @classmethod
    def of(cls, kind: DTypeLike, shape: tuple[int, ...]) -> Part:
        """The part of that type and shape."""
        found = np.dtype(kind)
        return cls(found, shape, found.name)

    def __str__(self) -> str:
        return f"{self.name} of shape {self.shape}"


def parts_of(spec: QuantSpec, shape: tuple[int, ...], original: str) -> Mapping[str, Part]:
    """What a tensor of that shape and float type consists of, quantized so.

    >>> parts_of(QuantSpec("mxfp4"), (2, 64), "float32")["shared"].shape
    (2, 2)
    """
    try:
        return _parts(spec, shape, original)
    except TypeError:  # sizes that torch.compile does not know yet cannot be remembered
        return _parts.__wrapped__(spec, shape, original)


@lru_cache(maxsize=4096)
def _parts(spec: QuantSpec, shape: tuple[int, ...], original: str) -> Mapping[str, Part]:
    shape = plain_shape(shape)
    found = {"packed": Part.of(np.uint8, (spec.packed_bytes(shape),))}
    shared = spec.shared_shape(shape)
    if not spec.blocked:
        wide = spec.stored_scale_type(original) == "float64"
        found["shared"] = Part.of(np.float64 if wide else np.float32, shared)
        if not spec.symmetric:
            found["zero_point"] = Part.of(spec.zero_point_type, shared)
        return found
    d = spec.block
    if d.scale_beside:
        found["shared"] = Part.of(d.scale_code_dtype, shared)
    if d.has_tensor_scale:
        found["tensor_scale"] = Part.of(np.float32, ())
    return found


def check_parts(spec: Any, shape: Any, original: Any, parts: Mapping[str, Any]) -> None:
    """Raises NumericsError unless these are the parts of a tensor of that shape and type, quantized so.

    parts: by the names of PARTS, None for what is not there.  Types, shapes, devices and kinds of memory
    are looked at, no number is: a part on a device is not waited for.  What torch.compile does not know
    yet, a size, is looked at when it runs.
    """
    if not isinstance(spec, QuantSpec):
        raise NumericsError(f"a quantized tensor has a QuantSpec, not {_kind(spec)}")
    if (original if type(original) is str else text_in(original)) not in ORIGINALS:
        raise NumericsError(f"a quantized tensor stands for {', '.join(ORIGINALS)}, not {said(original)}")
    due = parts_of(spec, check_shape(shape), original)
    for name in PARTS:
        part, planned = parts[name], due.get(name)
        if (part is None) != (planned is None):
            came = "nothing" if part is None else with_article(_kind(part))
            raise NumericsError(f"{_said(spec, shape)}: {name} must be {planned or 'None'}, not {came}")
        if planned is not None and not (type(part) is float and name == "tensor_scale"):
            _check(name, part, planned, parts["packed"], (spec, shape))
    number = parts["tensor_scale"]
    if type(number) is float and not 0.0 < number < math.inf:
        raise NumericsError(f"{_said(spec, shape)}: tensor_scale {number} is not positive and finite")


def check_numbers(spec: QuantSpec, original: str, parts: Mapping[str, Any]) -> None:
    """Raises NumericsError for scales and zero points that no tensor of that spec and float type has.

    parts: those of `check_parts`, which passed.  Scales of elements are finite numbers of their type, and 1
    in a cast; zero points are integers in the range of the format, or finite floats; the scale of a tensor is
    positive and finite (docs/formats.md, section 6).  All are read, from a GPU too: so this is asked once,
    where parts come from outside.  Parts without values, as on "meta", are not looked at.
    """
    found = {name: part for name, part in parts.items() if part is not None and _can_be_read(part)}
    if "tensor_scale" in found:
        stored_scale(number_of(found["tensor_scale"]))
    if spec.blocked:
        return
    with ieee_arithmetic():
        if "shared" in found:
            _check_scales(spec, original, to_host(found["shared"]))
        if "zero_point" in found:
            zero = to_host(found["zero_point"])
            check_in_range(zero, spec.element) if zero.dtype.kind == "i" else check_finite("zero_point", zero)


def _can_be_read(part: Any) -> bool:
    """Has it numbers?  At a level of torch.func they are those of nobody yet."""
    return not is_tensor(part) or (has_values(part) and not is_of_level(part))


def _check_scales(spec: QuantSpec, original: str, scale: Any) -> None:
    check_finite("scale", scale)
    kind = spec.stored_scale_type(original)
    due = SCALE_CODECS[kind].round(scale) if kind in SCALE_CODECS else scale
    if not spec.scaled:
        kind, due = f"1, as scales of {spec.dtype} without a scheme are", np.ones_like(scale)
    good = np.asarray(due == scale)
    if not good.all():
        first = digits(scale[~good][0] if scale.ndim else scale)
        raise NumericsError(f"scale {first} is not {kind}")


def check_shape(shape: Any) -> tuple[int, ...]:
    """The shape as a tuple; raises NumericsError for what is none, or none that an array can have."""
    if not isinstance(shape, (tuple, list)):
        raise NumericsError(f"{_kind(shape)} is not a shape")
    for n in shape:
        if type(n) is not int:
            if not _unknown(n):
                raise NumericsError(f"a shape is made of integers, not {_kind(n)}")
        elif n < 0:
            raise NumericsError(f"{tuple(shape)!s:.80} is not a shape: {n} is negative")
    if not fits_array([n if type(n) is int else 1 for n in shape]):
        raise NumericsError(f"{tuple(shape)!s:.80} is a shape that no array can have")
    return tuple(shape)


_ARRAYS = (np.ndarray, np.generic)
_PLAIN = ("Tensor", "Parameter")  # what tracing puts in their place has no memory


def _check(name: str, part: Any, due: Part, packed: Any, whole: tuple[QuantSpec, Any]) -> None:
    """One part of a whole, a spec and a shape: its kind of memory, its device, its type, its shape."""
    if isinstance(part, _ARRAYS):
        kind, alike = part.dtype, isinstance(packed, _ARRAYS)
        fits = kind.isnative and kind == due.kind and part.shape == due.shape
    elif is_tensor(part):
        check_memory(part)
        kind = str(part.dtype).removeprefix("torch.")
        fits = kind == due.name and sizes_fit(part.shape, due.shape)
        alike = is_tensor(packed)
        if alike and part.device != packed.device:
            where = f"{name} is on {part.device}, packed on {packed.device}"
            raise NumericsError(f"{_said(*whole)}: {where}")
        steps = zip(part.shape, part.stride(), strict=True) if type(part).__name__ in _PLAIN else ()
        if any(step == 0 and n > 1 for n, step in steps) and 0 not in part.shape:
            raise NumericsError(f"{_said(*whole)}: {name} is expanded: fewer numbers than it says")
    else:
        raise NumericsError(f"{_said(*whole)}: {name} must be {due}, not {_kind(part)}")
    if not alike:
        raise NumericsError(f"{_said(*whole)}: packed is {_kind(packed)}, {name} {_kind(part)}")
    if not fits:
        named = kind if isinstance(kind, str) else kind.name if kind.isnative else kind.str
        came = f"{named} of shape {tuple(part.shape)}"
        raise NumericsError(f"{_said(*whole)}: {name} must be {due}, not {came}")


def sizes_fit(came: Any, due: tuple[int, ...]) -> bool:
    """Are the sizes equal, as far as they are known?"""
    if len(came) != len(due):
        return False
    return all(_unknown(a) or _unknown(b) or a == b for a, b in zip(came, due, strict=True))


def _unknown(n: Any) -> bool:
    """Is it a size that torch.compile does not know yet?"""
    return type(n).__name__ == "SymInt"


def _said(spec: QuantSpec, shape: Any) -> str:
    return f"{spec.dtype} of shape {tuple(shape)!s:.80}"


def _kind(x: Any) -> str:
    return type(x).__name__
