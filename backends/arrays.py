"""What comes in and what goes out: kinds of input, codes, shapes and `out=`, checked and made plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numerics.backends.executor import Array
from numerics.backends.memory import empty
from numerics.backends.tensors import as_array, as_tensor, is_tensor, own_codes
from numerics.formats.block import Block
from numerics.formats.errors import NumericsError

FLOATS = ("float16", "bfloat16", "float32", "float64")
_PLAIN = {np.dtype(name) for name in ("float16", "float32", "float64")}  # a name costs a microsecond


def take(x: Any) -> tuple[Array, Callable[[Array], Any]]:
    """x as a C-contiguous array of a float type, and how to give a result back in x's kind."""
    give: Callable[[Array], Any]
    if isinstance(x, np.ndarray):
        data, give = x, _same
    elif isinstance(x, np.generic):
        data, give = np.asarray(x), _scalar
    elif is_tensor(x):
        data, give = as_array(x), as_tensor
    else:
        data, give = _from_python(x), _to_python
    if data.dtype not in _PLAIN and data.dtype.name not in FLOATS:
        raise NumericsError(
            f"cannot encode {data.dtype.name} data; allowed: {', '.join(FLOATS)} (x.astype(...) first)"
        )
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return (data if data.flags.c_contiguous else np.ascontiguousarray(data).reshape(data.shape)), give


def _giver(x: Any) -> Callable[[Array], Any]:
    return _same if isinstance(x, np.ndarray) else _scalar if isinstance(x, np.generic) else _to_python


def _same(result: Array) -> Array:
    return result


def _scalar(result: Array) -> Any:
    return result[()]


def _to_python(result: Array) -> Any:
    return result.tolist()


def _from_python(x: Any) -> Array:
    try:
        data = np.asarray(x)
        if data.dtype.kind in "iu" or data.size == 0:
            data = np.asarray(x, np.float64)
    except (ValueError, OverflowError, TypeError) as wrong:
        raise NumericsError(f"cannot make an array of this {type(x).__name__}: {wrong}") from None
    return data


def take_codes(codes: Any, bits: int, kind: str, name: str) -> tuple[Array, Callable[[Array], Any]]:
    """Codes as a C-contiguous array of their own unsigned type, checked against 2**bits."""
    give: Callable[[Array], Any]
    if is_tensor(codes):
        data, give = as_array(own_codes(codes, bits, kind, name)), as_tensor
    else:
        data, give = own_codes(np.asarray(codes), bits, kind, name), _giver(codes)
    if data.size == 0 and give is _to_python:
        data = data.astype(kind)
    if data.dtype.kind not in "iu":
        raise NumericsError(f"{name}: codes are unsigned integers ({kind}), not {data.dtype.name}")
    full = bits == 8 * np.dtype(kind).itemsize and data.dtype == kind
    if not full and data.size:
        low, high = int(data.min()), int(data.max())
        if low < 0 or high >= 1 << bits:
            raise NumericsError(f"{name}: code {low if low < 0 else high} is outside 0 .. {(1 << bits) - 1}")
    return np.ascontiguousarray(data, kind).reshape(data.shape), give


def check_bytes(came: int, count: int, bits: int) -> None:
    """Are there as many bytes as that many codes take?"""
    need = -(-count * bits // 8)
    if came != need:
        raise NumericsError(f"{count} codes of {bits} bits are {need} bytes, but {came} came")


def check_blocks(came: int, count: int, dtype: Block) -> None:
    """Are there as many bytes as that many whole blocks take?"""
    need = count * dtype.bytes_per_block
    if came != need:
        raise NumericsError(f"{count} {dtype.name} blocks are {need} bytes, but {came} came")


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape from an integer or a sequence of them."""
    sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if not all(isinstance(n, (int, np.integer)) and n >= 0 for n in sizes):
        raise NumericsError(f"{shape!r} is not a shape")
    return tuple(int(n) for n in sizes)


class Target:
    """Where a result goes: into the caller's `out` when it fits, else into a new array."""

    def __init__(self, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], source: Array) -> None:
        if is_tensor(out):
            out = as_array(out)
        fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype == dtype
        if out is not None and not fits:
            came = f"{out.dtype.name} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise NumericsError(f"out must be a {dtype.name} array of shape {shape}, not {came}")
        if out is not None and not out.flags.writeable:
            raise NumericsError("out is read-only")
        self.out, self.shape, self.dtype = out, shape, dtype
        usable = out is not None and out.flags.c_contiguous and not _overlaps(out, source)
        self.array: Array = out if usable else empty(shape, dtype)

    @property
    def flat(self) -> Array:
        """The target as one dimension."""
        return self.array.reshape(-1)

    def done(self, result: Array | None = None) -> Array:
        """The result in its place."""
        array = self.array if result is None else result.reshape(self.shape)
        if self.out is None:
            return array
        if array is not self.out:
            self.out[...] = array
        return self.out


def _overlaps(out: Array, source: Array) -> bool:
    """Do they share memory other than element by element?"""
    if not np.may_share_memory(out, source):
        return False
    same = out.__array_interface__["data"] == source.__array_interface__["data"]
    return not (same and out.dtype == source.dtype)
