"""What comes in and what goes out: kinds of input, codes, shapes and `out=`, checked and made plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numerics.backends.host.executor import Array
from numerics.backends.host.memory import allocate
from numerics.backends.host.output import admit, overlap, written
from numerics.backends.host.tensors import (
    as_array,
    as_tensor,
    check_memory,
    check_plain,
    is_tensor,
    own_codes,
)
from numerics.formats.block import Block
from numerics.formats.errors import NumericsError

FLOATS = ("float16", "bfloat16", "float32", "float64")
_PLAIN = {np.dtype(name) for name in ("float16", "float32", "float64")}  # a name costs a microsecond

_NO_NUMBERS = {"U": "texts", "S": "bytes", "O": "objects that are no numbers"}
"""What an array holds, or a list, by its type's kind."""


def take(x: Any) -> tuple[Array, Callable[[Array], Any]]:
    """x as a C-contiguous array of a float type, and how to give a result back in x's kind."""
    give: Callable[[Array], Any]
    if isinstance(x, np.ndarray):
        check_plain("x", x)
        data, give = x, as_given
    elif isinstance(x, np.generic):
        data, give = np.asarray(x), _scalar
    elif is_tensor(x):
        if (name := str(x.dtype).removeprefix("torch.")) not in FLOATS:
            check_memory(x)
            raise NumericsError(
                f"cannot compute with {name} data; allowed: {', '.join(FLOATS)} (x.to(...) first)"
            )
        data, give = as_array(x), as_tensor
    else:
        data, give = _from_python(x), _to_python
    if data.dtype not in _PLAIN and data.dtype.name not in FLOATS:
        raise NumericsError(
            f"cannot compute with {_NO_NUMBERS.get(data.dtype.kind, f'{data.dtype.name} data')}; "
            f"allowed: {', '.join(FLOATS)} (x.astype(...) first)"
        )
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return (data if data.flags.c_contiguous else np.ascontiguousarray(data).reshape(data.shape)), give


def _giver(x: Any) -> Callable[[Array], Any]:
    return as_given if isinstance(x, np.ndarray) else _scalar if isinstance(x, np.generic) else _to_python


def as_given(result: Array) -> Array:
    """An array for an array."""
    return result


def _scalar(result: Array) -> Any:
    return result[()]


def _to_python(result: Array) -> Any:
    return result.tolist()


def _from_python(x: Any) -> Array:
    data = listed("x", x)
    return data if data.size and data.dtype.kind not in "iu" else listed("x", x, np.float64)


def listed(what: str, x: Any, kind: Any = None) -> Array:
    """Python's numbers and nested lists, or anybody's array, as a plain array of that type or their own.

    Raises NumericsError for what has none, ragged lists among it, and for arrays that are more than
    their numbers, in lists too.
    """
    try:
        check_plain(what, x)
        return np.asarray(x, kind)
    except NumericsError:
        raise
    except Exception as wrong:  # whatever what came raises: it is no array
        cannot = f"{what} cannot be read as numbers"
        failed = f"cannot make an array of this {type(x).__name__}" if what == "x" else cannot
        raise NumericsError(f"{failed}: {wrong}") from None


def take_codes(codes: Any, bits: int, kind: str, name: str) -> tuple[Array, Callable[[Array], Any]]:
    """Codes as a C-contiguous array of their own unsigned type, checked against 2**bits."""
    give: Callable[[Array], Any]
    if is_tensor(codes):
        data, give = as_array(own_codes(codes, bits, kind, name)), as_tensor
    else:
        data, give = own_codes(listed("codes", codes), bits, kind, name), _giver(codes)
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


class Target:
    """Where a result goes: into the caller's `out` when it fits, else into a new array.

    due: the shape and the type of the result.  source: what is read while it is written.
    give: how a new array is given back.
    """

    def __init__(
        self, out: Any, due: tuple[tuple[int, ...], np.dtype[Any]], source: Array,
        give: Callable[[Array], Any], name: str = "out",
    ) -> None:  # fmt: skip
        shape, dtype = due
        self.given, self.shape, self._give = out, shape, give
        self.out: Array | None = None
        self.direct = False
        if type(out) is np.ndarray and _fits(out, shape, dtype):
            self.out, self.direct = out, _apart(out, source)
        elif out is not None:
            admit(out, shape, dtype.name, name)
            self.out = as_array(out) if is_tensor(out) else out
            self.direct = self.out.flags.c_contiguous and self.out.dtype.isnative and _apart(self.out, source)
        self.array: Array = self.out if self.out is not None and self.direct else allocate(shape, dtype)

    @property
    def flat(self) -> Array:
        """The target as one dimension."""
        return self.array.reshape(-1)

    def done(self, result: Array | None = None) -> Any:
        """The result in its place: the caller's own, else in the kind that came."""
        array = self.array if result is None else result.reshape(self.shape)
        if self.out is None:
            return self._give(array)
        if array is not self.out:
            self.out[...] = array
        if self.given is not self.out:  # a tensor
            written(self.given)
        return self.given


def _fits(out: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Is nothing to be said against it?  Asked first, since `admit` looks at all that might be."""
    flags = out.flags
    return out.shape == shape and out.dtype == dtype and flags.c_contiguous and flags.writeable


def _apart(out: Array, source: Array) -> bool:
    """Does the source stay as it is while out is written, other than element by element?"""
    if not np.may_share_memory(out, source):
        return True
    same = out.__array_interface__["data"] == source.__array_interface__["data"]
    return (same and out.dtype == source.dtype) or not overlap(out, source)
