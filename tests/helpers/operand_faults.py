"""Faults of products, planted where operands are read: narrower types, memory, batches, earlier calls."""

from __future__ import annotations

import numpy as np

from numerics.tensor.spec import QuantSpec
from tests.helpers.product_faults import through

SCALED = {"scheme": "per_group(32)"}
OPERANDS = (
    "mxfp4", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxint8", "mx6", "mx9", "nvfp4",
    "int4 per_group(32)", "int8 per_channel(0)", "fp8_e4m3 per_tensor", "fp8_e5m2 per_channel(0)",
    "nf4 per_group(64)", "uint4 per_group(32) asymmetric", "float32", "bfloat16", "float16",
    QuantSpec("int8", scale_type="pof2", **SCALED), QuantSpec("fp4", scale_type="pof2", **SCALED),
    QuantSpec("int4", scale_type="bfloat16", **SCALED), QuantSpec("int8", scale_type="float16", **SCALED),
)  # fmt: skip
NARROWER = ("bfloat16", "float16", "tf32")
SHORT = {"mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxint8", "mx6"}
"""Blocks of which bfloat16 holds every number: the least is 2**-133 or more."""


POF2 = (OPERANDS[18], OPERANDS[19])
FINE = (*POF2, OPERANDS[20])  # of 11 bits and fewer: the int4 whose scales are bfloat16, too


def holds(kind, operand):
    """Has a narrower type every number of an operand?"""
    if kind == "bfloat16":
        return str(operand) in SHORT or operand == "bfloat16" or operand in POF2
    if kind == "float16":
        return operand == "float16"
    return str(operand) in SHORT | {"mxfp8_e4m3", "mx9", "float16", "bfloat16"} or operand in FINE


def values(x):
    """An operand as float32 numbers."""
    return np.asarray(x.dequantize("float32") if hasattr(x, "dequantize") else x, np.float32)


def narrowed(x, kind):
    """float32 by way of a narrower type, which has no more subnormal numbers than it has bits."""
    if kind != "tf32":
        return through(x, kind)
    bits = np.ascontiguousarray(x).view(np.uint32)
    kept = (bits + np.uint32(0xFFF) + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), kept.view(np.float32), x)


def float32_sums(a, b):
    """Sums of float32 in order; of batches, too."""
    with np.errstate(all="ignore"):
        total = np.float32(0)
        for k in range(a.shape[-1]):
            total = total + a[..., :, None, k] * b[..., None, :, k]
        return total.astype(np.float32)


def decoding(side, kind):
    """A product whose one side is decoded to a narrower type."""

    def kernel(a, b):
        with np.errstate(all="ignore"):
            a, b = (
                narrowed(values(x), kind) if name == side else values(x) for name, x in (("a", a), ("b", b))
            )
        return float32_sums(a, b)

    return kernel


DECODED = [
    (operand, side, kind, beside)
    for operand in OPERANDS for side in "ab" for kind in NARROWER for beside in ("float32", "mxfp4")
    if not holds(kind, operand)
]  # fmt: skip
"""An operand, its side, the type that it is decoded to, the other operand."""


# ---- what earlier calls leave ------------------------------------------------------------------------


class Adds:
    """A product that is added to what an earlier call left, in some shapes.

    by: makes of a shape what both calls share.
    """

    __name__ = "adds"

    def __init__(self, when, by):
        self.when, self.by, self.left, self.last = when, by, {}, None

    def __call__(self, a, b):
        total = float32_sums(values(a), values(b))
        shape = (*total.shape, a.shape[-1])
        if not self.when(*shape):
            self.last = None
            return total
        key = self.by(*shape)
        with np.errstate(all="ignore"):
            if self.last is not False and key in self.left and (self.by is not BEFORE or self.last == key):
                total = total + self.left[key]
        self.left[key], self.last = total.copy(), key
        return total


def BEFORE(m, n, k):
    """The call just before, if it was of the same shape."""
    return m, n, k


class Padded:
    """A product over rows that are padded in a buffer that is never cleared, in some shapes."""

    __name__ = "padded"

    def __init__(self, when, unit=32):
        self.when, self.unit, self.room = when, unit, {}

    def __call__(self, a, b):
        a, b = values(a), values(b)
        if not self.when(len(a), len(b), a.shape[1]):
            return float32_sums(a, b)
        length = -(-a.shape[1] // self.unit) * self.unit
        return float32_sums(*(self.padded(name, x, length) for name, x in (("a", a), ("b", b))))

    def padded(self, name, x, length):
        room = self.room.setdefault(name, np.zeros((1 << 11, 1 << 15), np.float32))
        room[: len(x), : x.shape[1]] = x
        return room[: len(x), :length]


class Keeps:
    """A product that packs one operand once for each shape, in some shapes."""

    __name__ = "keeps"

    def __init__(self, when, side):
        self.when, self.side, self.packed = when, side, {}

    def __call__(self, a, b):
        a, b = values(a), values(b)
        shape = (len(a), len(b), a.shape[1])
        if self.when(*shape):
            kept = self.packed.setdefault(shape, (a, b)["ab".index(self.side)].copy())
            a, b = (kept, b) if self.side == "a" else (a, kept)
        return float32_sums(a, b)


SIZES = {
    "more than 64 rows": lambda m, n, k: m > 64,
    "more than 64 columns": lambda m, n, k: n > 64,
    "more than 256 terms": lambda m, n, k: k > 256,
    "more than 4096 terms": lambda m, n, k: k > 4096,
    "more than 16 rows and 4096 terms": lambda m, n, k: m > 16 and k > 4096,
    "7 rows over of 16, past 100": lambda m, n, k: m > 100 and m % 16 == 7,
    "an odd column over of 128": lambda m, n, k: n > 128 and n % 128 == 1,
    "3 terms over of 32, past 64": lambda m, n, k: k > 64 and k % 32 == 3,
}
STATES = {
    "added to the call before": lambda when: Adds(when, BEFORE),
    "added to the last of its shape": lambda when: Adds(when, lambda m, n, k: (m, n, k, None)),
    "added to the last of its rows and columns": lambda when: Adds(when, lambda m, n, k: (m, n)),
    "padding is not cleared": Padded,
    "b is packed once": lambda when: Keeps(when, "b"),
    "a is packed once": lambda when: Keeps(when, "a"),
}
STATEFUL = [
    (state, size) for state in STATES for size in SIZES if "padding" not in state or "term" not in size
]
"""What is kept, and when."""


# ---- memory, and batches -----------------------------------------------------------------------------


def strided(x, strides):
    return np.lib.stride_tricks.as_strided(x, x.shape, strides)


def rows_dense(x):
    """Its rows as if they followed each other, where its numbers do."""
    if x.strides[-1] != x.itemsize:
        return x
    steps = [x.itemsize * int(np.prod(x.shape[at + 1 :])) for at in range(x.ndim)]
    return strided(x, steps)


def columns_dense(x):
    """The same of columns."""
    return strided(x, (x.itemsize, len(x) * x.itemsize)) if x.strides[0] == x.itemsize and len(x) > 1 else x


def batches_dense(x):
    """Its batches as if they followed each other, where rows are as long as a leading dimension says."""
    return x if x.ndim < 3 else strided(x, (x.shape[1] * x.strides[1], *x.strides[1:]))


def leading_of_a(a, b):
    """b with the leading dimension of a."""
    inner = a.strides[-1] == a.itemsize and b.strides[-1] == b.itemsize
    return strided(b, (a.strides[0], b.itemsize)) if inner and a.strides[0] < b.strides[0] else b


def read_past(x):
    """A number of what lies behind each row, times zero."""
    if x.strides[-1] != x.itemsize or x.strides[0] <= x.shape[1] * x.itemsize:
        return np.float32(0)
    with np.errstate(all="ignore"):
        return np.lib.stride_tricks.as_strided(x, (len(x), x.shape[1] + 1), x.strides)[:, -1:] * np.float32(0)


def write_past(x):
    """Zeros behind each row."""
    if x.strides[-1] == x.itemsize and x.strides[0] > x.shape[1] * x.itemsize:
        np.lib.stride_tricks.as_strided(x, (len(x), x.shape[1] + 1), x.strides)[:, -1] = 0
    return x


MEMORY = {
    "leading dimension of a ignored": ("nk", "strides", lambda a, b: float32_sums(rows_dense(a), b)),
    "leading dimension of b ignored": ("nk", "strides", lambda a, b: float32_sums(a, rows_dense(b))),
    "leading dimension of a turned a ignored": (
        "nk", "strides", lambda a, b: float32_sums(columns_dense(a), b),
    ),
    "b has the leading dimension of a": (
        "nk", "strides", lambda a, b: float32_sums(a, leading_of_a(rows_dense(a), b)),
    ),
    "what lies behind a row is read": ("nk", "strides", lambda a, b: float32_sums(a, b) + read_past(a)),
    "what lies behind a row is written": ("nk", "within", lambda a, b: float32_sums(a, write_past(b))),
    "stride of the batches of a ignored": (
        "bmk,bnk", "strides", lambda a, b: float32_sums(batches_dense(a), b),
    ),
    "stride of the batches of b ignored": (
        "bmk,bnk", "strides", lambda a, b: float32_sums(a, batches_dense(b)),
    ),
    "rows of all batches as if dense": ("bmk,nk", "strides", lambda a, b: float32_sums(rows_dense(a), b)),
}  # fmt: skip
"""Of float32: layout, the law that it breaks, the kernel."""


def whole(a, b, layout):
    """Both operands as (batches, rows, terms), turned as `float32_sums` takes them."""
    a, b = values(a), values(b)
    first, second = layout.split(",")
    a = np.swapaxes(a, -1, -2) if first.endswith("km") else a
    return a, np.swapaxes(b, -1, -2) if second.endswith("kn") else b


def of_batches(layout, change):
    """change(a, b) of operands that are not turned."""
    return lambda a, b: change(*whole(a, b, layout))


def _last_lost(y):
    y = y.copy()
    y[len(y) - 1 if len(y) > 2 else len(y) :] = 0
    return y


def _by_rows_of_a(a, b):
    """b's matrices begin as far from each other as a's do."""
    flat, step = b.reshape(-1), a.shape[-1] * a.shape[-2]
    places = np.arange(len(b))[:, None] * step + np.arange(b[0].size)
    return float32_sums(a, flat[np.minimum(places, flat.size - 1)].reshape(b.shape))


def _axes_exchanged(x):
    return x.reshape(x.shape[1], x.shape[0], *x.shape[2:]).swapaxes(0, 1)


BATCHES = {
    "every batch has the first b": ("bmk,bnk", lambda a, b: float32_sums(a, b[:1])),
    "every batch has the first a": ("bmk,bnk", lambda a, b: float32_sums(np.repeat(a[:1], len(a), 0), b)),
    "the last of many batches is not written": ("bmk,bnk", lambda a, b: _last_lost(float32_sums(a, b))),
    "stride of batches taken from a": ("bmk,bnk", _by_rows_of_a),
    "the batch before": ("bmk,bnk", lambda a, b: float32_sums(a, np.roll(b, 1, axis=0))),
    "batches past 16 read again": ("bmk,bnk", lambda a, b: float32_sums(a, b[np.arange(len(b)) % 16])),
    "batches past 64 have the first b": (
        "bmk,bnk", lambda a, b: float32_sums(a, b[np.where(np.arange(len(b)) < 64, np.arange(len(b)), 0)]),
    ),
    "rows of the next batch": ("bmk,nk", lambda a, b: float32_sums(np.roll(a, -1, axis=0), b)),
    "the first batch of a shared a": ("mk,bnk", lambda a, b: float32_sums(a, np.repeat(b[:1], len(b), 0))),
    "axes of batches exchanged": ("cbmk,cbnk", lambda a, b: float32_sums(a, _axes_exchanged(b))),
    "the second axis of batches ignored": ("cbmk,cbnk", lambda a, b: float32_sums(a, b[:1])),
    "a broadcast axis is taken for the other": (
        "cbmk,bnk", lambda a, b: float32_sums(a, b[:1] if a.shape[0] > a.shape[1] else b),
    ),
    "a broadcast axis is read on": (
        "cbmk,c1nk", lambda a, b: float32_sums(a, np.roll(b, 1, axis=0) if a.shape[1] > 2 else b),
    ),
    "turned b read as it lies": (
        "bmk,bkn", lambda a, b: float32_sums(a, b.swapaxes(-1, -2).reshape(b.shape) if b.shape[1] > 3 else b),
    ),
    "turned a read as it lies": (
        "bkm,bnk", lambda a, b: float32_sums(a.swapaxes(-1, -2).reshape(a.shape) if a.shape[1] > 3 else a, b),
    ),
    "turned a of one batch read as it lies": ("km,nk", lambda a, b: float32_sums(a.T.reshape(a.shape), b)),
}  # fmt: skip
"""Layout, and what is done with both operands."""
BATCHED = [(name, pair) for name in BATCHES for pair in (("float32", "float32"), ("mxfp8_e4m3", "mxfp4"))]
