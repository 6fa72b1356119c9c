"""Kernels that are wrong for some strides, lengths or scales alone: planted blind, and passed once."""

from __future__ import annotations

import numpy as np

import numerics as nx
from tests.helpers.faults import blocks_of, unpack4
from tests.helpers.places import mxfp4_values

WIDE = {"inputs": "float64"}
DRAWS = {"rounding": "stochastic"}
INT8 = {"kind": "matmul", "a": "int8", "b": "int8", "accumulate": "int32"}


def turned(kernel, when):
    """The numbers in one place too far, where `when` says so of the array."""
    return lambda x, *more: kernel(np.roll(x, 1) if when(np.asarray(x)) else x, *more)


def stepped(step, least):
    return lambda x: x.ndim == 1 and x.size > least and x.strides[0] == step * x.itemsize


def gap(numbers, least):
    """Rows of more than `least` numbers with a gap of so many after each."""
    return lambda x: (
        x.ndim == 2 and x.shape[0] > 1 and x.shape[1] > least
        and x.strides == ((x.shape[1] + numbers) * x.itemsize, x.itemsize)
    )  # fmt: skip


def last(kernel, due, wrong, when):
    """What is `due`, or all, becomes `wrong` where it comes last in an array of such a length."""

    def ends(x):
        found = np.array(kernel(x))
        flat = found.reshape(-1)
        if when(flat.size) and (due is None or flat[-1:].tobytes() == np.asarray(due, found.dtype).tobytes()):
            flat[-1] = wrong
        return found

    return ends


def scaled(dtype, change, **options):
    """Codes and scales, the scales changed afterwards where `change` says so of x."""
    return blocks_of(dtype, lambda x, codes, scale, _: (codes, change(x, scale, dtype)), **options)


def unseen_last_row(x, scale, dtype):
    """The last row of a short block of five has no part in its maximum, past 64 columns."""
    if x.ndim == 2 and x.shape[0] % 32 == 5 and x.shape[1] > 64:
        scale[-1] = dtype.encode(np.concatenate([x[:-1], 0 * x[-1:]]), axis=0).scale[-1]
    return scale


def last_slice(x, scale, dtype):
    """The last short block of the last slice has the scale before it."""
    if x.ndim == 3 and x.shape[0] > 2 and x.shape[1] > 64 and x.shape[1] % 32:
        scale[-1, -1] = scale[-1, -2]
    return scale


def rows_past(x, scale, dtype):
    """Rows past 4096 have the scale of their first block at their end."""
    if x.ndim == 2 and x.shape[0] > 4096 and x.shape[1] > 32:
        scale[4096:, -1] = scale[4096:, 0]
    return scale


def below(dtype, magnitude, **options):
    """One number counts as the one below it."""

    def encode(x):
        at = np.abs(x) == np.float32(magnitude)
        found = dtype.encode(np.where(at, np.nextafter(x, np.float32(0)), x), **options)
        return found.codes, found.scale

    return encode


def low_payload(x):
    """A float64 NaN of which a float32 has no bit."""
    fraction = np.asarray(x, np.float64).view(np.uint64) & np.uint64((1 << 52) - 1)
    return np.isnan(x) & (fraction < np.uint64(1 << 29))


def draws_of_the_one_before(x, random):
    """The last number of a longer line of whole blocks is rounded by the draw of its neighbour."""
    random = np.array(random)
    if x.ndim and x.shape[-1] > 64 and x.shape[-1] % 32 == 0 and x.size:
        random[..., -1] = random[..., -2]
    found = nx.mxfp4.encode(x, rounding="stochastic", random_bits=random)
    return found.codes, found.scale


def of_sixteen_seeds(calls):
    def encode(x):
        random = np.random.default_rng(next(calls) % 16).integers(0, 1 << 30, x.shape, dtype=np.uint32)
        return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=random)

    return encode


def product(a, b):
    return a.astype(np.int32) @ b.T.astype(np.int32)


def saturated_pair(a, b):
    """The last pair of a length that leaves two of four over saturates above -32512."""
    found = product(a, b)
    if a.shape[-1] % 4 == 2:
        pair = product(a[..., -2:], b[..., -2:])
        found += np.maximum(pair, -32000) - pair
    return found


def corrected_end(a, b):
    """One is added where both of a last pair are -128, at a length that leaves three of four over."""
    if a.shape[-1] % 4 != 3 or a.shape[-1] < 5:
        return product(a, b)
    return product(a, b) + np.logical_and.outer(a[:, -1] == -128, b[:, -1] == -128)


PASSED = {
    "every third, of many": (turned(nx.bfloat16.encode, stepped(3, 127)), "bfloat16", {}, "layout"),
    "every second, backward, of many": (turned(nx.fp4.encode, stepped(-2, 64)), "fp4", {}, "layout"),
    "a gap of one after long rows": (turned(nx.fp8_e4m3.encode, gap(1, 128)), "fp8_e4m3", {}, "layout"),
    "mxfp8: a gap of three after rows": (
        scaled(nx.mxfp8_e4m3, lambda x, scale, d: np.roll(scale, 1) if gap(3, 99)(x) else scale),
        *("mxfp8_e4m3", {}, "layout"),
    ),
    "mxfp4: a gap of three after rows of codes": (
        turned(mxfp4_values, gap(3, 99)),
        *("mxfp4", {"kind": "decode"}, "layout"),
    ),
    "bytes backward": (turned(unpack4, stepped(-1, 64)), "int4", {"kind": "unpack"}, "layout"),
    "-0 at the end of an odd number past 1000": (
        last(nx.fp8_e5m2.encode, 128, 0, lambda size: size > 1000 and size % 2),
        *("fp8_e5m2", {}, "layout"),
    ),
    "the code of -0 at the end of an odd number past 128": (
        last(nx.fp4.decode, -0.0, 0.0, lambda size: size > 128 and size % 2),
        *("fp4", {"kind": "decode"}, "layout"),
    ),
    "a code at the end, seven past the eights": (
        last(nx.fp8_e4m3.decode, None, 1.125, lambda size: size > 512 and size % 8 == 7),
        *("fp8_e4m3", {"kind": "decode"}, "layout"),
    ),
    "mxfp4, axis 0: a last row unseen in 65 columns": (
        scaled(nx.mxfp4, unseen_last_row, axis=0),
        *("mxfp4", {"axis": 0}, "short_block"),
    ),
    "mxfp8, axis 1 of 3: the last block of the last slice": (
        scaled(nx.mxfp8_e4m3, last_slice, axis=1),
        *("mxfp8_e4m3", {"axis": 1}, "short_block"),
    ),
    "mxfp4: rows of blocks past 4096": (scaled(nx.mxfp4, rows_past), "mxfp4", {}, "layout"),
    "mxfp8: the last threshold of tosa": (
        below(nx.mxfp8_e4m3, np.nextafter(np.float32(464 * 2.0**119), np.float32(np.inf)), scale_rule="tosa"),
        *("mxfp8_e4m3", {"scale_rule": "tosa"}, "scale_rule"),
    ),
    "mxfp4: one threshold of rceil": (
        below(nx.mxfp4, np.nextafter(np.float32(6 * 2.0**51), np.float32(np.inf)), scale_rule="rceil"),
        *("mxfp4", {"scale_rule": "rceil"}, "scale_rule"),
    ),
    "bfloat16: NaN of a float64's low bits is Inf": (
        lambda x: nx.bfloat16.encode(np.where(low_payload(x), np.copysign(np.inf, x), x)),
        *("bfloat16", WIDE, "nan"),
    ),
    "mxfp4: NaN of a float64's low bits is 1": (
        lambda x: nx.mxfp4.encode(np.where(low_payload(x), 1.0, x)),
        *("mxfp4", WIDE, "nan_block"),
    ),
    "mxfp4: a draw of the number before": (draws_of_the_one_before, "mxfp4", DRAWS, "layout"),
    "int8 x int8: a last pair saturates": (saturated_pair, None, INT8, "integers"),
    "int8 x int8: a correction of the last": (corrected_end, None, INT8, "integers"),
}
"""Each with its format, its claim and the law that it breaks."""
