"""Faults of products past a tile of rows and columns, in batches, of Inf, and of the signs of scales."""

from __future__ import annotations

import numpy as np

from numerics.backends.host.float_bits import bfloat16_type

BF16 = {"a": "bfloat16", "b": "bfloat16", "out": "bfloat16"}
W4 = {"a": "bfloat16", "b": "int4 per_group(128)", "out": "bfloat16"}
W4_FLOAT32 = {"a": "float32", "b": "int4 per_group(32)"}
U4 = {"a": "float32", "b": "uint4 per_group(32) asymmetric"}
BATCHED = {**BF16, "layout": "bmk,bkn"}
BIASED = {**BF16, "layout": "bmk,1kn", "bias": True}
TYPES = {"float32": np.dtype(np.float32), "bfloat16": bfloat16_type(), "float16": np.dtype(np.float16)}


def numbers(x):
    """An operand as float64."""
    return np.asarray(x.dequantize("float32") if hasattr(x, "dequantize") else x, np.float64)


def turned(b, layout):
    """b as (..., k, n)."""
    return numbers(b) if layout.endswith("kn") else np.swapaxes(numbers(b), -1, -2)


def through(x, kind):
    """float64 by way of a narrower type, and of float32."""
    return x.astype(np.float32).astype(TYPES[kind]).astype(np.float64)


def product(claim, read=None, sums=None, added=None, write=None):
    """A kernel that is right but for what is given.

    read(a, b): other operands.  sums(a, b): the product.  added(total, bias, k): the sum with its bias.
    write(result, k): what happens to results before they are rounded to the type that comes out.
    """
    layout, out = claim.get("layout", "nk"), claim.get("out", "float32")

    def kernel(a, b, bias=None):
        with np.errstate(all="ignore"):
            a, b = numbers(a), turned(b, layout)
            a, b = (a, b) if read is None else read(a, b)
            total = np.matmul(a, b) if sums is None else sums(a, b)
            if bias is not None:
                bias = numbers(bias)
                total = total + bias if added is None else added(total, bias, a.shape[-1])
            total = total if write is None else write(total, a.shape[-1])
            return total.astype(np.float32).astype(TYPES[out])

    return kernel


def tile(rows, columns, first=0):
    """Nothing is written past so many rows and columns of the batches from the first one on."""

    def write(total, k):
        total = total.copy()
        if total.shape[-2] > rows and total.shape[-1] > columns:
            total[(*[slice(first, None)] * (total.ndim - 2), slice(rows, None), slice(columns, None))] = 0
        return total

    return write


def _swizzled(total, k):
    """Tiles past the eighth of 128 rows are those at the beginning."""
    total = total.copy()
    if len(total) > 1024 and total.shape[1] >= 128:
        total[1024:] = total[: len(total) - 1024]
    return total


def _turned_if_square(a, b):
    return a, np.swapaxes(b, -1, -2) if b.shape[-1] == b.shape[-2] > 4 else b


def _last_lane_lost(a, b):
    """The last of 128 terms is not read in batches past the first."""
    if len(a) > 1 and a.shape[-1] >= 128 and a.shape[-1] % 128 == 127:
        a = a.copy()
        a[1:, :, -1] = 0
    return a, b


def _columns_again(total, bias, k):
    """Columns past 128 have the bias of the first one."""
    return total + np.where(np.arange(len(bias)) < 128, bias, bias[0])


def _ended(other):
    """What stands in place of Inf."""
    return lambda total, k: np.where(np.isinf(total.astype(np.float32)), other(total), total)


def _saturated(most):
    return lambda total, k: np.clip(total, -most, most)


def _largest(total):
    return np.copysign(3.38e38, total)


def _nothing(total):
    return np.zeros_like(total)


FAULTS = {
    "tiles past 64 rows and columns": (BF16, "sums", {"write": tile(64, 64)}),
    "tiles past 128 rows and columns": (BF16, "sums", {"write": tile(128, 128)}),
    "tiles past 256 rows and columns": (BF16, "sums", {"write": tile(256, 256)}),
    "tiles past 128 rows and columns of int4": (W4, "sums", {"write": tile(128, 128)}),
    "rows past 1024 beside 128 columns": (W4, "sums", {"write": _swizzled}),
    "tiles past 16 of later batches": (BATCHED, "sums", {"write": tile(16, 16, 1)}),
    "square b turned": (BATCHED, "sums", {"read": _turned_if_square}),
    "square b turned, beside a bias": (BIASED, "sums", {"read": _turned_if_square}),
    "last lane of later batches": (BIASED, "sums", {"read": _last_lane_lost}),
    "bias dropped past 1024 terms": (BIASED, "sums", {"added": lambda t, c, k: t + c * (k <= 1024)}),
    "bias twice past 2048 terms": (BIASED, "sums", {"added": lambda t, c, k: t + c * (1 + (k > 2048))}),
    "bias of columns past 128": (BIASED, "sums", {"added": _columns_again}),
    "rounded before the bias past 300 terms": (
        BIASED, "sums", {"added": lambda t, c, k: (t if k < 300 else through(t, "bfloat16")) + c},
    ),
    "Inf becomes 0": (W4_FLOAT32, "special", {"write": _ended(_nothing)}),
    "Inf becomes the largest number": (W4_FLOAT32, "special", {"write": _ended(_largest)}),
    "Inf becomes NaN": (W4_FLOAT32, "special", {"write": _ended(lambda x: np.full_like(x, np.nan))}),
    "Inf beside zero points becomes 0": (U4, "special", {"write": _ended(_nothing)}),
    "what is finite saturates": (
        {**W4, "finite": True}, "output", {"write": _saturated(3.3895313892515355e38)},
    ),
    "magnitudes of scales": (W4, "scale_range", {}),
}  # fmt: skip
"""The claim, the law that is broken, and what is done otherwise."""


def magnitudes(a, b):
    """A product that takes the magnitudes of b's scales."""
    length = b.shape[1]
    codes = np.asarray(b.codes).astype(np.int8).astype(np.float64)
    codes = np.where(codes > 7, codes - 16, codes)
    scale = np.repeat(np.abs(np.asarray(b.scale, np.float64)), 128, axis=1)[:, :length]
    return (numbers(a) @ (codes * scale).T).astype(np.float32).astype(TYPES["bfloat16"])


def fault(name):
    """A kernel of FAULTS."""
    claim, _, changes = FAULTS[name]
    return magnitudes if name == "magnitudes of scales" else product(claim, **changes)


def in_parts(length, kind, kept):
    """Sums of so many terms are rounded to a type, and added; kept: their sums are rounded to it, too."""

    def sums(a, b):
        total = np.zeros((len(a), b.shape[1]))
        for start in range(0, a.shape[1], length):
            total = total + through(a[:, start : start + length] @ b[start : start + length], kind)
            total = through(total, kind) if kept else total
        return total

    return sums


DIALECTS = {
    "parts of 1024 in bfloat16": {"sums": in_parts(1024, "bfloat16", False)},
    "parts of 2048 and their sums in bfloat16": {"sums": in_parts(2048, "bfloat16", True)},
    "saturates": {"write": _saturated(3.3895313892515355e38)},
    "through float16": {"write": lambda total, k: through(total, "float16")},
}
"""What is done otherwise, by the name that a verdict has for it."""
