"""Faults of products that alpha multiplies and beta * c is added to; of their memory, and of threads."""

from __future__ import annotations

import numpy as np

from tests.helpers.operand_faults import float32_sums, values, whole
from tests.helpers.product_faults import through, to_out

FLOAT, TO_BFLOAT16, TO_FLOAT16 = (
    {"a": "float32", "b": "float32"},
    {"a": "bfloat16", "b": "bfloat16", "out": "bfloat16"},
    {"a": "float16", "b": "int4 per_group(32)", "out": "float16"},
)


def times(beta, c):
    """beta * c, which is not read where beta is 0."""
    return np.float32(beta) * c if beta else np.float32(0)


def right(x, c, alpha, beta):
    return np.float32(alpha) * x + times(beta, c)


def blending(blend=right, out="float32", layout="nk"):
    """A product whose float32 sums a function blends, rounded once."""

    def kernel(a, b, c, alpha, beta):
        with np.errstate(all="ignore"):
            first, second = whole(a, b, layout if "," in layout else f"mk,{layout}")
            return to_out(blend(np.float32(first @ np.swapaxes(second, -1, -2)), values(c), alpha, beta), out)

    return kernel


def _narrow(kind):
    def blend(x, c, alpha, beta):
        return right(x, c, *(through(np.float32(y), kind) for y in (alpha, beta)))

    return blend


def _left_over(axis, unit=16):
    """alpha is forgotten behind the last whole tile of an axis."""

    def blend(x, c, alpha, beta):
        size = x.shape[axis]
        shape = [1, 1]
        shape[axis] = size
        inside = (np.arange(size) < size // unit * unit).reshape(shape)
        return np.where(inside, np.float32(alpha), np.float32(1)) * x + times(beta, c)

    return blend


def _past(rows):
    """c is added to the first rows alone."""

    def blend(x, c, alpha, beta):
        inside = np.arange(len(x))[:, None] < rows
        return np.float32(alpha) * x + np.where(inside, times(beta, c), np.float32(0))

    return blend


def _late(part):
    def blend(out):
        def rounded(x):
            return values(to_out(x, out))

        if part == "alpha":
            return lambda x, c, alpha, beta: np.float32(alpha) * rounded(x) + times(beta, c)
        return lambda x, c, alpha, beta: rounded(np.float32(alpha) * x) + times(beta, c)

    return blend


BLENDS = {
    "alpha ignored": lambda x, c, alpha, beta: x + times(beta, c),
    "beta ignored": lambda x, c, alpha, beta: np.float32(alpha) * x + c,
    "beta counts 1": lambda x, c, alpha, beta: np.float32(alpha) * x + times(bool(beta), c),
    "c ignored": lambda x, c, alpha, beta: np.float32(alpha) * x,
    "c read where beta is 0": lambda x, c, alpha, beta: np.float32(alpha) * x + np.float32(beta) * c,
    "c left where alpha is 0": lambda x, c, alpha, beta: right(x, c, alpha, beta) if alpha else c,
    "alpha and beta exchanged": lambda x, c, alpha, beta: right(x, c, beta, alpha),
    "alpha of c, too": lambda x, c, alpha, beta: np.float32(alpha) * (x + times(beta, c)),
    "alpha twice": lambda x, c, alpha, beta: right(x, c, alpha**2, beta),
    "alpha and beta in bfloat16": _narrow("bfloat16"),
}
"""How a fault blends; its name is that of the deviation."""
UNNAMED = {
    "alpha and beta in float16": _narrow("float16"),
    "alpha is a whole number": lambda x, c, alpha, beta: right(x, c, int(alpha), beta),
    "beta is a whole number": lambda x, c, alpha, beta: right(x, c, alpha, int(beta)),
    "alpha of the rows left over is forgotten": _left_over(0),
    "alpha of the columns left over is forgotten": _left_over(1),
    "c of rows past 64 is forgotten": _past(64),
    "c is turned": lambda x, c, alpha, beta: right(x, c.T.reshape(c.shape), alpha, beta),
    "c has the first row everywhere": lambda x, c, alpha, beta: right(x, c[:1], alpha, beta),
    "c has the first column everywhere": lambda x, c, alpha, beta: right(x, c[:, :1], alpha, beta),
}
"""Those that no deviation is like."""
LATE = {"alpha after rounding": _late("alpha"), "c after rounding": _late("c")}
"""Makes of the type of a result how a fault blends."""


# ---- results in memory of their own ------------------------------------------------------------------


def filling(write):
    """A product that a function writes into an array."""

    def kernel(a, b, out):
        write(out, float32_sums(values(a), values(b)))

    return kernel


def _behind_rows(out, found):
    out[...] = found
    if out.ndim > 1 and out.strides[-1] == out.itemsize and out.strides[-2] > out.shape[-1] * out.itemsize:
        shape = (*out.shape[:-1], out.shape[-1] + 1)
        np.lib.stride_tricks.as_strided(out, shape, out.strides)[..., -1] = 0


def _as_if_dense(out, found):
    steps = [out.itemsize * int(np.prod(out.shape[at + 1 :])) for at in range(out.ndim)]
    np.lib.stride_tricks.as_strided(out, out.shape, steps)[...] = found


def _as_if_not_turned(out, found):
    """The leading dimension is the longer stride; which axis has it is not looked at."""
    if out.strides[-1] == out.itemsize or out.ndim != 2 or out.strides[0] != out.itemsize:
        out[...] = found
        return
    size = min(out.strides[1] // out.itemsize * (out.shape[1] - 1) + out.shape[0], found.size)
    np.lib.stride_tricks.as_strided(out, (size,), (out.itemsize,))[...] = found.reshape(-1)[:size]


def _batches_as_if_dense(out, found):
    if out.ndim < 3:
        out[...] = found
        return
    steps = (out.shape[1] * out.strides[1], *out.strides[1:])
    np.lib.stride_tricks.as_strided(out, out.shape, steps)[...] = found


RESULTS = {
    "what lies behind a row is written": ("nk", _behind_rows),
    "leading dimension ignored": ("nk", _as_if_dense),
    "turned result as if it were not": ("nk", _as_if_not_turned),
    "what lies behind a row of a batch is written": ("bmk,bnk", _behind_rows),
    "stride of batches ignored": ("bmk,bnk", _batches_as_if_dense),
}
"""Layout, and how a result is written into the array for it."""


# ---- strides of 0, and threads ----------------------------------------------------------------------


def _step_of_one(x, axis):
    """An axis whose stride is 0, of which a kernel takes zeros for all but the first."""
    if x.shape[axis] < 2 or x.strides[axis]:
        return x
    moved = x.copy()
    index = [slice(None)] * x.ndim
    index[axis] = slice(1, None)
    moved[tuple(index)] = 0
    return moved


EXPANDED = {
    "rows of a": ("nk", lambda a, b: float32_sums(_step_of_one(a, 0), b)),
    "rows of b": ("nk", lambda a, b: float32_sums(a, _step_of_one(b, 0))),
    "terms of a": ("nk", lambda a, b: float32_sums(_step_of_one(a, 1), b)),
    "batches of a": ("bmk,bnk", lambda a, b: float32_sums(_step_of_one(a, 0), b)),
    "batches of b": ("bmk,bnk", lambda a, b: float32_sums(a, _step_of_one(b, 0))),
}
"""Layout, and a product to which a stride of 0 of some axis is none."""


class Scratch:
    """A product that keeps a in one place for all threads, in some shapes."""

    __name__ = "scratch"

    def __init__(self, when=lambda shape: True):
        self.when, self.shared = when, None

    def __call__(self, a, b):
        if not self.when(a.shape):
            return float32_sums(a, b)
        self.shared = np.array(a)
        found = []
        for at in range(len(b)):
            row = b[at]
            mine = self.shared
            found.append(float32_sums(mine[at] if a.ndim > 2 else mine, row if a.ndim > 2 else row[None]))
        return np.stack(found) if a.ndim > 2 else np.concatenate(found, axis=1)
