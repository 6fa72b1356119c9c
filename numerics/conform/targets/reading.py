"""What came of a target, as arrays of the type and shape that are due."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.narrow import type_of
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.returned import Raised, Returned, Unreadable, parts_of, returned
from numerics.conform.task import Array
from numerics.formats.errors import kind_of


def read(came: Any, inputs: tuple[Array, ...]) -> Returned:
    """An array that came for inputs; raises Fault for what is none."""
    try:
        return returned(came)
    except Unreadable as wrong:
        raise Fault("result", inputs, str(wrong), "an array of numbers") from wrong


def arrays_of(came: Any, inputs: tuple[Array, ...]) -> list[Array]:
    """Everything that a target returned and that has memory; raises Fault where one is no array."""
    try:
        parts = parts_of(came)
    except Raised as wrong:
        raise Fault("result", inputs, f"{kind_of(came)} ({wrong})", "arrays") from wrong
    return [read(part, inputs).array for part in parts if part is not None]


def check_same_form(first: Array, later: Array, inputs: tuple[Array, ...]) -> None:
    """Raises Fault for a result that another call has made one of another type or shape."""
    if (first.shape, first.dtype) != (later.shape, later.dtype):
        due, came = (f"{x.dtype} of shape {x.shape}" for x in (first, later))
        raise Fault("result", inputs, f"{came}, after another call", due)


def per_group(came: Any, inputs: tuple[Array, ...], shared: tuple[int, ...]) -> Array:
    """An array of one number a group; axes of one number may be there or not."""
    told = read(came, inputs)
    array = told.array
    if told.dtype == "bfloat16" and array.dtype == np.uint16:  # torch's, by its bits
        array = (array.astype(np.uint32) << 16).view(np.float32)
    long = [[n for n in shape if n != 1] for shape in (array.shape, shared)]
    if long[0] != long[1]:
        raise Fault("shape", inputs, f"scales of shape {array.shape}", f"of shape {shared}")
    return np.ascontiguousarray(array).reshape(shared)


def scales_in(array: Array, inputs: tuple[Array, ...]) -> NDArray[np.float32]:
    """Scales of any float type, which float32 holds."""
    with np.errstate(all="ignore"):
        if array.dtype.kind not in "fV" or array.dtype.type is np.void:
            raise Fault("dtype", inputs, f"scales of {array.dtype.name}", "floats")
        scales = array.astype(np.float32)
        if array.dtype == np.float64 and not np.array_equal(scales, array, equal_nan=True):
            raise Fault("dtype", inputs, "scales of float64", "float32, or numbers that it holds")
    return scales


def zeros_in(array: Array, inputs: tuple[Array, ...]) -> NDArray[np.int32]:
    """Zero points of any type, which are whole."""
    with np.errstate(all="ignore"):
        zeros = array.astype(np.int32)
    if array.dtype.kind not in "iuf" or not np.array_equal(zeros, array):
        raise Fault("dtype", inputs, f"zero points of {array.dtype.name} that are not whole", "integers")
    return zeros


def one_number(came: Any, inputs: tuple[Array, ...]) -> float:
    array = read(came, inputs).array
    if array.size != 1:
        raise Fault("shape", inputs, f"a tensor scale of shape {array.shape}", "one number")
    if array.dtype.kind not in "fiu":
        raise Fault("dtype", inputs, f"a tensor scale of {array.dtype.name}", "a float")
    return float(np.float32(array.reshape(-1)[0]))


def plain_array(came: Any, inputs: tuple[Array, ...], shape: tuple[int, ...]) -> Array:
    """What came as a NumPy array of its own memory and type, and of the right shape."""
    array = read(came, inputs).array
    if array.dtype.type is np.void:  # bytes without a type, and records; not ml_dtypes' types
        raise Fault("dtype", inputs, array.dtype.name, "an array of numbers")
    if array.shape != shape:
        raise Fault("shape", inputs, str(array.shape), str(shape))
    return array.astype(array.dtype.newbyteorder("="))


def codes_in(array: Array, inputs: tuple[Array, ...], bits: int, signed: bool = False) -> Array:
    """Codes in the low bits; integers may also come as the numbers that they are."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "iu":
        if kind not in "fV" or size not in (1, 2) or (kind == "f" and size == 2 and bits != 16):
            raise Fault("dtype", inputs, array.dtype.name, "integers")
        array, kind = np.ascontiguousarray(array).view(f"u{size}").reshape(array.shape), "u"
    if kind == "u" and 8 * size == bits:  # every code that fits is one
        return array
    if kind == "i" and 8 * size == bits:  # a view of codes as signed bytes
        return array.view(f"u{size}")
    low, end = -(1 << (bits - 1)) if signed and kind == "i" else 0, 1 << bits
    if array.size and not low <= int(array.min()) <= int(array.max()) < end:
        outside = (array < low) | (array >= end)
        at = int(outside.reshape(-1).argmax()) if outside.shape == inputs[0].shape else 0
        place = ", ".join(map(str, np.argwhere(outside)[0]))
        came = f"{array[outside][0]} at place {place} of shape {array.shape}"
        raise Fault("code_range", inputs, came, f"{low} .. {end - 1}", at)
    found: Array = np.bitwise_and(array.astype(np.min_scalar_type(end - 1)), end - 1)
    return found


def values_in(array: Array, inputs: tuple[Array, ...], taken: str) -> NDArray[np.float32]:
    """float32 values; those of the type that was taken, widened."""
    if taken == "bfloat16" and array.dtype == np.uint16:  # torch's, by its bits
        array = array.view(type_of(taken))
    if taken != "float32" and array.dtype == type_of(taken):
        with np.errstate(all="ignore"):
            array = array.astype(np.float32)
    if array.dtype != np.float32:
        raise Fault("dtype", inputs, array.dtype.name, "float32")
    return np.ascontiguousarray(array).reshape(array.shape)
