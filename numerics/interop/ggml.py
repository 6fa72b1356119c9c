"""ggml's own way to its blocks: Q8_0, Q4_0 and MXFP4 byte for byte as its reference quantizers make them.

The rules (ggml-quants.c, `quantize_row_q8_0_ref`, `quantize_row_q4_0_ref`, `quantize_row_mxfp4_ref`, in
float32) differ from `nx.quantize`: codes come from the scale before it is rounded to float16; Q4_0's scale is
the value of the largest magnitude by -8; ties of MXFP4 go to the smaller magnitude, and what becomes zero is
+0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError, one_of
from numerics.interop.gguf import BLOCK, from_gguf
from numerics.interop.native import check_array
from numerics.tensor.qtensor import QTensor

Array = NDArray[Any]
VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)  # of E2M1, doubled
CHUNK = 1 << 14  # blocks that are compared with all values at a time


def quantize_as_ggml(x: Any, kind: str) -> QTensor:
    """Returns a tensor in the blocks that ggml's reference quantizer makes of it, byte for byte.

    x: a NumPy array of finite float32, its last axis whole blocks of 32.  kind: Q8_0, Q4_0 or MXFP4.  Raises
    NumericsError for others.

    >>> import numpy as np
    >>> quantize_as_ggml(np.linspace(-8, 7, 32, dtype=np.float32), "Q4_0").scale
    array([1.], dtype=float32)
    """
    encode = ENCODERS[one_of("type of ggml's", kind, ENCODERS)]
    check_array(x)
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or not x.shape or x.shape[-1] % BLOCK:
        came = f"{x.dtype} of shape {tuple(x.shape)}"
        raise NumericsError(f"ggml quantizes NumPy's float32 in rows of whole blocks of {BLOCK}, not {came}")
    if not bool(np.isfinite(x).all()):
        raise NumericsError(f"{kind} has no NaN and no Inf, and they are among the values")
    with np.errstate(all="ignore"):
        blocks = encode(np.ascontiguousarray(x).reshape(-1, BLOCK))
    return from_gguf(blocks.reshape(*x.shape[:-1], -1), kind)


def _q8_0(x: Array) -> Array:
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    y = x * inverse
    away = np.floor(np.abs(y))
    away += np.floor(2 * (np.abs(y) - away))  # ties away from zero
    codes = (np.sign(y) * away).astype(np.int8)
    return np.concatenate((scale.astype(np.float16).view(np.uint8), codes.view(np.uint8)), axis=1)


def _q4_0(x: Array) -> Array:
    place = np.abs(x).argmax(axis=1, keepdims=True)
    scale = np.take_along_axis(x, place, axis=1) / np.float32(-8)
    inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    codes = np.trunc(x * inverse + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    return np.concatenate((scale.astype(np.float16).view(np.uint8), _nibbles(codes)), axis=1)


def _mxfp4(x: Array) -> Array:
    amax = np.abs(x).max(axis=1, keepdims=True)
    scale = np.where(amax > 0, np.floor(np.log2(amax)) - 2 + 127, 0).astype(np.uint8)
    wide = scale.astype(np.uint32)
    bits = np.where(scale < 2, np.uint32(0x00200000) << wide, (wide - 1) << np.uint32(23))
    step = bits.astype(np.uint32).view(np.float32)
    codes = np.empty(x.shape, np.uint8)
    for first in range(0, len(x), CHUNK):
        part = slice(first, first + CHUNK)
        errors = np.abs(step[part, :, None] * VALUES - x[part, :, None])
        codes[part] = np.argmin(errors, axis=-1)  # the first of equals
    return np.concatenate((scale, _nibbles(codes)), axis=1)


def _nibbles(codes: Array) -> Array:
    """The first half of a block low, the second high."""
    low, high = codes[:, : BLOCK // 2], codes[:, BLOCK // 2 :]
    return np.bitwise_or(low, np.left_shift(high, np.uint8(4)))


ENCODERS: Mapping[str, Callable[[Array], Array]] = {"Q8_0": _q8_0, "Q4_0": _q4_0, "MXFP4": _mxfp4}
