"""Kernels that are wrong in some place, company or call alone: each a fault that once passed."""

from __future__ import annotations

import numpy as np

import numerics as nx

E4M3 = nx.fp8_e4m3.encode


def bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32).reshape(np.shape(x))


def without_place(dtype, place):
    """A reduction over the block that does not see one place, where the others are numbers."""

    def reduces(x):
        size, width = dtype.block, x.shape[-1]
        unseen = (np.arange(width) % size == place) & np.isfinite(x)
        scale, right = dtype.encode(np.where(unseen, np.float32(0), x)).scale, dtype.encode(x)
        return right.codes, np.where(right.scale == 255, right.scale, scale)

    return reduces


def forgets_sign_at(dtype, place):
    """The same, where the sign is forgotten to be taken away in one place."""

    def reduces(x):
        width = x.shape[-1]
        unseen = (np.arange(width) % dtype.block == place) & (x < 0) & np.isfinite(x)
        right = dtype.encode(x)
        scale = dtype.encode(np.where(unseen, np.float32(0), x)).scale
        return right.codes, np.where(right.scale == 255, right.scale, scale)

    return reduces


def sticky_without(bit):
    def encodes(x):
        b = bits(x)
        taken = np.where((b & 0xFFFFF) == 0x80000 | 1 << bit, b - np.uint32(1 << bit), b)
        return E4M3(taken.astype(np.uint32).view(np.float32))

    return encodes


def nan_without(bit):
    return lambda x: np.where(bits(x) & 0x7FFFFFFF == 0x7F800000 | 1 << bit, 0x7E, E4M3(x)).astype(np.uint8)


def tail(change, encode=E4M3, width=8):
    """What is left over of the width by a loop of its own."""

    def encodes(x):
        flat = np.ascontiguousarray(x).reshape(-1)
        codes, start = encode(flat).copy(), flat.size // width * width
        codes[start:] = change(flat[start:], codes[start:])
        return codes.reshape(x.shape)

    return encodes


def blocks_past(count):
    def encodes(x):
        b = nx.mxfp4.encode(x)
        codes, scale = b.codes.copy(), b.scale.copy()
        past = np.arange(scale.size).reshape(scale.shape) >= count
        codes[np.repeat(past, 32, -1)[..., : x.shape[-1]]] = 0
        return codes, np.where(past, 0, scale).astype(np.uint8)

    return encodes


def short_blocks(change):
    def encodes(x):
        b, over = nx.mxfp4.encode(x), x.shape[-1] % 32
        return change(x, b, over) if over else b

    return encodes


def off_the_line(x):
    """Wrong where an array does not begin on 32 bytes."""
    return E4M3(x) ^ np.uint8(x.ctypes.data % 32 != 0)


class Remembers:
    """Looks its answer up by shape and first number."""

    def __init__(self):
        self.seen = {}

    def __call__(self, x):
        key = x.shape, x.tobytes()[:4]
        return self.seen.setdefault(key, E4M3(x)).copy()


class Tires:
    """Right for so many calls."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self, x):
        self.left -= 1
        return E4M3(x) ^ np.uint8(self.left < 0)


class OneBuffer:
    """Returns the same memory each time."""

    def __init__(self):
        self.room = np.empty(1 << 23, np.uint8)

    def __call__(self, x):
        found = self.room[: x.size].reshape(x.shape)
        found[...] = E4M3(x)
        return found


def nvfp4_scale(change, tensor_scale=3e-5):
    """NVFP4 whose scale comes from another order of operations."""

    def encodes(x):
        right = nx.nvfp4.encode(x, tensor_scale=tensor_scale)
        if x.shape[-1] % 16:
            return right
        with np.errstate(all="ignore"):
            amax = np.abs(x.reshape(*x.shape[:-1], -1, 16)).max(-1)
            scale = nx.fp8_e4m3.encode(change(amax, np.float32(tensor_scale)).astype(np.float32))
        whole = np.isfinite(amax) & (amax > 0)
        return right.codes, np.where(whole, scale, right.scale).astype(np.uint8)

    return encodes


def _lost(x, b, over):
    y = x.copy()
    y[..., -over:] = np.where(np.isfinite(y[..., -over:]), y[..., -over:], 0)
    return nx.mxfp4.encode(y)


AWAY = {"rounding": "half_away"}
ONE, SIX = np.float32(1), np.float32(6)
MISSED = {
    **{
        f"mxfp4: the maximum does not see place {p}": (without_place(nx.mxfp4, p), "mxfp4", {}, "scale_rule")
        for p in (1, 16, 31)
    },
    "mxfp8_e4m3: the maximum does not see place 7": (
        without_place(nx.mxfp8_e4m3, 7),
        "mxfp8_e4m3",
        {},
        "scale_rule",
    ),
    "nvfp4: the maximum does not see place 9": (lambda x: without_place(nx.nvfp4, 9)(x), "nvfp4", {}, None),
    "mxfp4: a sign is forgotten in place 13": (forgets_sign_at(nx.mxfp4, 13), "mxfp4", {}, "scale_rule"),
    **{
        f"the sticky bit lacks input {b}": (sticky_without(b), "fp8_e4m3", {}, "nearest") for b in (1, 10, 18)
    },
    **{f"the detector of NaN lacks bit {b}": (nan_without(b), "fp8_e4m3", {}, "nan") for b in (1, 5, 20)},
    "fp4: other arrays than the codes in a row decode to 0": (
        lambda c: nx.fp4.decode(c) * np.float32(c.shape == (16,)),
        "fp4",
        {"kind": "decode"},
        "layout",
    ),
    "a loop at the end loses NaN": (tail(lambda x, c: np.where(np.isnan(x), 0x7E, c)), "fp8_e4m3", {}, None),
    "a loop at the end loses -0": (tail(lambda x, c: np.where(x == 0, 0, c)), "fp8_e4m3", {}, None),
    "a loop at the end rounds ties away": (
        tail(lambda x, c: nx.fp8_e5m2.encode(x, **AWAY), nx.fp8_e5m2.encode),
        "fp8_e5m2",
        {},
        "layout",
    ),
    "a loop at the end of fp6 rounds ties away": (
        tail(lambda x, c: nx.fp6_e2m3.encode(x, **AWAY), nx.fp6_e2m3.encode, 16),
        "fp6_e2m3",
        {},
        "layout",
    ),
    "blocks past 1,200 are zeros": (blocks_past(1200), "mxfp4", {}, "layout"),
    "blocks past 2,100 are zeros": (blocks_past(2100), "mxfp4", {}, "layout"),
    "rows of more than 96 columns are wrong": (
        lambda x: (lambda b: (b.codes ^ np.uint8(x.shape[-1] > 96), b.scale))(nx.mxfp4.encode(x)),
        "mxfp4",
        {},
        "layout",
    ),
    "a short block of 16 is wrong": (
        short_blocks(lambda x, b, over: (b.codes * (over != 16), b.scale)),
        "mxfp4",
        {},
        "short_block",
    ),
    "a short block of 20 is wrong": (
        short_blocks(lambda x, b, over: (b.codes * (over != 20), b.scale)),
        "mxfp4",
        {},
        "short_block",
    ),
    "a NaN in a short block is lost": (short_blocks(_lost), "mxfp4", {}, "short_block"),
    "arrays off a line of 32 bytes": (off_the_line, "fp8_e4m3", {}, "layout"),
    "every 31st number rounds ties away": (
        lambda x: np.where(np.arange(x.size).reshape(x.shape) % 31 == 30, E4M3(x, **AWAY), E4M3(x)),
        "fp8_e4m3",
        {},
        "layout",
    ),
    "arrays of more than 2**19 are wrong": (
        lambda x: E4M3(x) ^ np.uint8(x.size > 1 << 19),
        "fp8_e4m3",
        {},
        "layout",
    ),
    "a fifth axis is turned": (
        lambda x: E4M3(x[:, :, :, :, ::-1] if x.ndim == 5 else x),
        "fp8_e4m3",
        {},
        "layout",
    ),
    "rows further than 256 bytes apart": (
        lambda x: (
            E4M3(x)
            ^ np.uint8(x.ndim == 2 and x.shape[0] > 1 and x.strides[0] > 256 and not x.flags.c_contiguous)
        ),
        "fp8_e4m3",
        {},
        "layout",
    ),
    "an inner stride of 0": (
        lambda x: E4M3(x) ^ np.uint8(x.ndim == 2 and x.strides[1] == 0 and x.strides[0] != 0),
        "fp8_e4m3",
        {},
        "layout",
    ),
    "nvfp4: amax / (6 ts)": (nvfp4_scale(lambda a, s: a / (SIX * s)), "nvfp4", {"tensor_scale": 3e-5}, None),
    "nvfp4: amax / ts / 6": (nvfp4_scale(lambda a, s: a / s / SIX), "nvfp4", {"tensor_scale": 3e-5}, None),
    "nvfp4: amax / 6 * (1 / ts)": (
        nvfp4_scale(lambda a, s: a / SIX * (ONE / s)),
        "nvfp4",
        {"tensor_scale": 3e-5},
        None,
    ),
}
"""name -> (kernel, format, options, the law that is broken, or None for any)."""
STATEFUL = {
    "an answer remembered by shape and first number": (Remembers, None),
    "a buffer that is used again": (OneBuffer, "repeatable"),
    "wrong from the 120th call on": (lambda: Tires(120), None),
}


def where(holds, wrong, encode=E4M3):
    """The right codes, with others where something holds of the input: holds(x), wrong(codes)."""

    def encodes(x):
        codes = encode(x)
        return np.where(holds(x), wrong(codes), codes).astype(codes.dtype)

    return encodes


def between(dtype, low, high, wrong):
    """A threshold of a table that stands at one of the two numbers in place of the other."""
    return where(
        lambda x: (x >= np.float32(low)) & (x < np.float32(high)), lambda c: c * 0 + wrong, dtype.encode
    )


class Pool:
    """Returns memory that it keeps for each shape, of results that are so large."""

    def __init__(self, least, most, encode=E4M3):
        self.sizes, self.encode, self.rooms = (least, most), encode, {}

    def __call__(self, x):
        codes = self.encode(x)
        if not self.sizes[0] <= codes.size <= self.sizes[1]:
            return codes
        room = self.rooms.setdefault(codes.shape, np.empty_like(codes))
        room[...] = codes
        return room


def pair(decode, first, second):
    """Two codes are looked up at a time, and one entry of the table is wrong."""

    def decodes(codes, *shared):
        values = np.array(decode(codes, *shared))
        flat, looked = values.reshape(-1), np.asarray(codes).reshape(-1)
        end = flat.size // 2 * 2
        wrong = (looked[0:end:2] == first) & (looked[1:end:2] == second)
        flat[1:end:2][wrong] = 3.25
        return flat.reshape(values.shape)

    return decodes


def mxfp4_values(codes, scale):
    return nx.Blocks(nx.mxfp4, -1, codes, scale).decode()


def forgets_nan_before(least):
    """The maximum is compared with the first number: if that is NaN and the second is large, it is gone."""

    def encodes(x):
        first, second = x[..., 0::32], x[..., 1::32]
        first = first[..., : second.shape[-1]]
        lost = np.zeros(x.shape, np.bool_)
        lost[..., 0::32][..., : second.shape[-1]] = np.isnan(first) & (second > least)
        return nx.mxfp4.encode(np.where(lost, np.float32(0), x))

    return encodes


def long_lines(place, start, every):
    """In lines of more than 256 blocks, some blocks do not look at one place of theirs."""

    def encodes(x):
        if x.shape[-1] <= 32 * 256:
            return nx.mxfp4.encode(x)
        at = np.arange(x.shape[-1])
        unseen = (at % 32 == place) & (at // 32 % every == start) & np.isfinite(x)
        right = nx.mxfp4.encode(x)
        scale = nx.mxfp4.encode(np.where(unseen, np.float32(0), x)).scale
        return right.codes, np.where(right.scale == 255, right.scale, scale)

    return encodes


def blocks_from(count):
    def encodes(x):
        b = nx.mxfp4.encode(x)
        return b.codes, np.where(np.arange(b.scale.size).reshape(b.scale.shape) >= count, 0, b.scale)

    return encodes


def by_scales(scheme, change):
    """Integers with arrays of scales, which are changed: change(x, scale, zero_point)."""

    def quantizes(x, scale, zero_point):
        scale, zero_point = change(x, scale.copy(), zero_point.copy())
        return nx.quantize(
            x, "int8", scheme=scheme, symmetric=False, scale=scale, zero_point=zero_point
        ).codes

    return quantizes


def axis_by_length(axis, last):
    """Channels of the first, or the last, axis that is as long as the one that is meant."""

    def quantizes(x, scale, zero_point):
        like = [k for k, n in enumerate(x.shape) if n == x.shape[axis]]
        at = like[-1 if last else 0]
        return nx.quantize(
            x, "int8", scheme=nx.per_channel(at), symmetric=False, scale=scale, zero_point=zero_point
        ).codes

    return quantizes


def blocks_by_length(axis):
    """Blocks along the first axis that is as long as the one that is meant."""

    def encodes(x):
        if x.ndim < 3:
            return nx.mxfp4.encode(x, axis=axis)
        b = nx.mxfp4.encode(x, axis=x.shape.index(x.shape[axis]))
        return b.codes, b.scale if x.shape.index(x.shape[axis]) == axis % x.ndim else np.moveaxis(
            b.scale, 0, axis
        )

    return encodes


def one_batch(x, scale, zero_point):
    if x.ndim == 4 and len(x) == 1 and zero_point.shape[-1] > 1:
        zero_point[..., :1] = zero_point[..., 1:2]
    return scale, zero_point


def last_of(size, left):
    def changed(x, scale, zero_point):
        if x.shape[-1] > size and x.shape[-1] % size == left:
            scale[..., -1] = scale[..., -2]
        return scale, zero_point

    return changed


def narrows(dtype, **options):
    return lambda x: dtype.encode(x.astype(np.float32), **options)


def in_halves(terms):
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        terms = terms[..., :half] + terms[..., half:]
    return terms[..., 0]


def in_turn(terms):
    return np.add.accumulate(terms, axis=-1)[..., -1]


def beside_each_other(terms):
    while terms.shape[-1] > 1:
        terms = terms[..., ::2] + terms[..., 1::2]
    return terms[..., 0]


def in_float64(terms):
    return terms.astype(np.float64).sum(axis=-1)


def lanes_of_four(terms):
    return in_halves(in_turn(np.swapaxes(terms.reshape(*terms.shape[:-1], -1, 4), -1, -2)))


def least_error(total, measure=np.square, less=np.less):
    """NVFP4 by four over six, at tensor scale 1; total: how the errors of a block are added."""

    def tried(blocks, wanted):
        scale = E4M3(wanted)
        unit = nx.fp8_e4m3.decode(scale)[..., None]
        codes = nx.fp4.encode(np.where(unit == 0, np.copysign(np.float32(0), blocks), blocks / unit))
        return scale, codes, total(measure(unit * nx.fp4.decode(codes) - blocks))

    def encodes(x):
        blocks = x.reshape(*x.shape[:-1], -1, 16)
        wanted = np.abs(blocks).max(axis=-1, initial=0) / np.float32(6)
        one, other = tried(blocks, wanted), tried(blocks, wanted * np.float32(1.5))
        second = less(other[2], np.where(np.isnan(one[2]), np.float32(np.inf), one[2]))
        scale, codes = np.where(second, other[0], one[0]), np.where(second[..., None], other[1], one[1])
        return codes.reshape(x.shape), scale

    return encodes


def reads_by(total):
    """if4 at tensor scale 1, whose blocks are read as floats or counts by errors that are added so."""

    def encodes(x):
        b = nx.if4.encode(x, tensor_scale=1.0)
        blocks, scale = x.reshape(*x.shape[:-1], -1, 16), b.scale & 0x7F
        unit = nx.fp8_e4m3.decode(scale)[..., None]
        y = np.where(unit == 0, np.copysign(np.float32(0), blocks), blocks / unit)
        counts = np.clip(np.rint(y * np.float32(7 / 6)), -7, 7)
        floats = nx.fp4.encode(y)
        values = unit * nx.fp4.decode(floats), unit * (counts * np.float32(0.8571428571))
        float_error, count_error = (total((v - blocks) ** 2) for v in values)
        counted = (count_error < float_error)[..., None]
        codes = np.where(counted, counts.astype(np.int8) & 15, floats).astype(np.uint8)
        return codes.reshape(x.shape), np.where(counted[..., 0], scale | 0x80, scale)

    return encodes


def within_short_blocks(length):
    """Blocks of 2,048 whose short last block of one length sees no last number."""

    def encodes(x):
        b = LONGEST.encode(x)
        if x.shape[-1] % 2048 != length or not np.isfinite(x).all():
            return b
        scale = b.scale.copy()
        scale[..., -1:] = LONGEST.encode(x[..., -length:-1]).scale
        return b.codes, scale

    return encodes


LONGEST = nx.mx("fp4", 2048)
BY_ERROR = {"tensor_scale": 1.0, "whole_blocks": True, "finite": True}
BF16_SUBNORMAL = 2.0**-126
AFFINE, DECODE, WIDE = {"kind": "affine"}, {"kind": "decode"}, {"inputs": "float64"}
ADDED = (in_turn, beside_each_other, in_float64, lanes_of_four)
UNSEEN = {
    "nf4: a middle with five digits": (
        between(nx.nf4, 0.38931, 0.3893125355243683, 12),
        "nf4",
        {},
        "nearest",
    ),
    "nf4: a negative middle with four digits": (
        between(nx.nf4, -0.46, np.float64(-0.4599952697753906), 3),
        "nf4",
        {},
        "nearest",
    ),
    "elements past 65,535 warps": (
        where(lambda x: np.arange(x.size).reshape(x.shape) >= 65535 * 32, lambda c: c * 0),
        *("fp8_e4m3", {}, "layout"),
    ),
    "rows past 65,535": (
        where(
            lambda x: (
                np.arange(x.size).reshape(x.shape) // max(x.shape[-1:], default=1) >= 65535
                if x.ndim == 2 and x.size
                else np.zeros(x.shape, np.bool_)
            ),
            lambda c: c * 0,
        ),
        *("fp8_e4m3", {}, "layout"),
    ),
    "mxfp4: blocks past 65,535": (blocks_from(65535), "mxfp4", {}, "layout"),
    "a buffer for less than 64 results": (Pool(1, 63), "fp8_e4m3", {}, "repeatable"),
    "a buffer for more than 20,000 results": (Pool(20000, 1 << 20), "fp8_e4m3", {}, "repeatable"),
    "fp8_e5m2: a pair of codes": (pair(nx.fp8_e5m2.decode, 0x80, 0x80), "fp8_e5m2", DECODE, "layout"),
    "mxfp4: a pair of codes": (pair(mxfp4_values, 3, 15), "mxfp4", DECODE, "every_code"),
    "a pair of NaN and the largest": (
        where(lambda x: np.isnan(x) & (np.roll(x, -1, -1 if x.ndim else None) == 3 * 448), lambda c: c & 0),
        *("fp8_e4m3", {}, None),
    ),
    "bfloat16: subnormals in long arrays": (
        lambda c: (lambda y: np.where((np.abs(y) < BF16_SUBNORMAL) & (y.size > 65536), 0 * y, y))(
            nx.bfloat16.decode(c)
        ),
        *("bfloat16", DECODE, "layout"),
    ),
    "mxfp4: NaN before a large number": (forgets_nan_before(1), "mxfp4", {}, "nan_block"),
    "mxfp4: NaN before a very large number": (forgets_nan_before(1e15), "mxfp4", {}, "nan_block"),
    "mxfp4: a place in each fourth block": (long_lines(16, 3, 4), "mxfp4", {}, "layout"),
    "mxfp4: a place in block 300": (long_lines(5, 300, 320), "mxfp4", {}, "layout"),
    **{
        f"per_channel({axis}): another axis as long, {'the last' if last else 'the first'}": (
            axis_by_length(axis, last),
            *("int8", {**AFFINE, "scheme": f"per_channel({axis})"}, "scale_arrays"),
        )
        for axis, last in ((0, True), (1, True), (1, False))
    },
    "mxfp4: blocks of another axis that is as long": (blocks_by_length(-1), "mxfp4", {}, None),
    "per_channel(1): a batch of one": (
        by_scales("per_channel(1)", one_batch),
        *("int8", {**AFFINE, "scheme": "per_channel(1)"}, "scale_arrays"),
    ),
    **{
        f"per_group({size}): a last group of {left}": (
            by_scales(f"per_group({size})", last_of(size, left)),
            *("int8", {**AFFINE, "scheme": f"per_group({size})"}, "scale_arrays"),
        )
        for size, left in ((32, 1), (32, 29), (128, 5))
    },
    "bfloat16: a float64 among float32's subnormals": (
        lambda x: nx.bfloat16.encode(np.where(np.abs(x) < BF16_SUBNORMAL, x.astype(np.float32), x)),
        *("bfloat16", WIDE, "nearest"),
    ),
    **{
        f"{name}: a float64 becomes a float32 first": (
            narrows(nx.dtype(name), **options),
            name,
            {**WIDE, **options},
            None,
        )
        for name, options in (("mxfp4", {}), ("mx6", {}), ("nvfp4", {"tensor_scale": 1.0}))
    },
    **{
        f"four over six: errors are added {total.__name__}": (
            least_error(total),
            *("nvfp4", {**BY_ERROR, "scale_rule": "four_over_six"}, "scale_rule"),
        )
        for total in ADDED
    },
    **{
        f"four over six by magnitudes, added {total.__name__}": (
            least_error(total, np.abs),
            *("nvfp4", {**BY_ERROR, "scale_rule": "four_over_six_mae"}, "scale_rule"),
        )
        for total in ADDED
    },
    "four over six: the second of equals": (
        least_error(in_halves, less=np.less_equal),
        *("nvfp4", {**BY_ERROR, "scale_rule": "four_over_six"}, None),
    ),
    **{
        f"if4: errors are added {total.__name__}": (reads_by(total), "if4", BY_ERROR, "scale_rule")
        for total in ADDED
    },
    **{
        f"blocks of 2,048: the last number of {length}": (
            within_short_blocks(length),
            *(LONGEST, {}, "short_block"),
        )
        for length in (2, 33, 1024, 1791, 2047)
    },
    "blocks of 2,048: the maximum at place 1,337": (without_place(LONGEST, 1337), LONGEST, {}, None),
    "blocks of 2,048: a sign forgotten at place 2,040": (forgets_sign_at(LONGEST, 2040), LONGEST, {}, None),
}
"""Planted without a look at what is asked, and passed once; and their kin."""
