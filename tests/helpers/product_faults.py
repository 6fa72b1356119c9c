"""A product over packed memory, and the faults that are planted in it: each a change of one of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

import numerics as nx
from numerics.backends.reference.executor import ReferenceExecutor

POISON = {4: 0x7, 8: 0x7E}
REFERENCE = ReferenceExecutor()


@cache
def table(dtype):
    return REFERENCE.decode(np.arange(1 << dtype.bits).astype(dtype.code_dtype), dtype)


def through(x, kind):
    """float32 by way of a narrower type."""
    if kind == "bfloat16":
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        kept = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(x), np.float32(np.nan), kept.view(np.float32))
    return x.astype(kind).astype(np.float32)


def toward_zero(x, bits):
    significand, exponent = np.frexp(x)
    return np.ldexp(np.trunc(np.ldexp(significand, bits)), exponent - bits)


def cut(x, bits):
    """float32 whose significands have so many bits, the others dropped."""
    mask = np.uint32(0xFFFFFFFF << (24 - bits) & 0xFFFFFFFF)
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) & mask).view(np.float32)


def tf32(x):
    """float32 rounded to 11 bits, as tl.dot does unless it is told not to; subnormals are kept."""
    normal = (np.abs(x) >= 2.0**-126) & np.isfinite(x)
    up = (np.ascontiguousarray(x, np.float32).view(np.uint32) + np.uint32(0x1000)).view(np.float32)
    return np.where(normal, cut(up, 11), x)


@dataclass
class Kernel:
    """float32 sums in order, over codes as they are packed.  steps: what a fault does in place of a step."""

    name: str = "right"
    steps: dict = field(default_factory=dict)
    out: str = "float32"
    turned: bool = False

    @property
    def __name__(self):
        return self.name

    def step(self, name, *given):
        """What a fault makes of the last argument; that itself where the step is right."""
        return self.steps[name](self, *given) if name in self.steps else given[-1]

    def __call__(self, a, b, bias=None):
        with np.errstate(all="ignore"):
            self.m, self.n, self.k = len(a.codes if hasattr(a, "codes") else a), None, None
            sides = [self.side(which, x) for which, x in (("a", a), ("b", b))]
            self.n, self.k = len(sides[1]), sides[1].shape[1]
            left, right = sides
            if self.out == "int32":
                return self.step(
                    "integers", left, right, left.astype(np.int64) @ right.astype(np.int64).T
                ).astype(np.int32)
            ks = self.step("ks", list(range(min(left.shape[1], right.shape[1]))))
            total = (
                self.steps["sum"](self, left, right, ks) if "sum" in self.steps else in_order(left, right, ks)
            )
            if bias is not None:
                total = total + self.step("bias", bias.astype(np.float32))
            total = self.step("store", total.astype(np.float32))
            if "out" in self.steps:
                return self.steps["out"](self, total)
            return to_out(total, self.out)

    def side(self, which, x):
        """One operand as float32 numbers; integers stay."""
        if not hasattr(x, "codes"):
            values = x if self.out == "int32" else np.asarray(x, np.float32)
            return self.step("plain", which, values)
        self.rows, self.op = len(x.codes), x
        codes = self.step("codes", which, packed_and_back(self, which, x))
        element = x.spec.block.element if x.spec.blocked else x.spec.element
        values = self.step("elements", which, codes, table(element)[codes])
        zero = self.step("zero", which, self.spread(which, x, x.zero_point, "zero_index"))
        scale = self.step("scale", which, self.scales(which, x))
        if x.tensor_scale is not None:
            scale = scale * np.float32(self.step("number", which, x.tensor_scale))
        return self.step("values", which, ((values - zero) * scale).astype(np.float32))

    def scales(self, which, x):
        raw = self.spread(which, x, x.scale, "index")
        if not x.spec.blocked:
            return raw.astype(np.float32)
        dtype = x.spec.block.scale
        return self.step("scale_codes", which, raw.astype(np.uint8), table(dtype)[raw.astype(np.uint8)])

    def spread(self, which, x, shared, step):
        """What blocks share, for each element: by the index row * blocks + block."""
        rows, length = x.codes.shape
        if shared is None:
            return np.float32(0)
        shared = np.asarray(shared)
        size = self.size_of(x)
        if not size:
            return np.broadcast_to(
                shared.reshape(-1, 1) if shared.size > 1 else shared.reshape(1, 1), (rows, length)
            )
        blocks = -(-length // size)
        block = self.step("block", which, np.arange(length) // size)
        index = np.arange(rows)[:, None] * blocks + np.clip(block, 0, blocks - 1)[None]
        self.blocks = blocks
        memory, index = self.step(step, which, (shared.reshape(-1), index))
        return memory[index]

    @staticmethod
    def size_of(x):
        if x.spec.blocked:
            return x.spec.block.block
        return x.scheme.size if x.scheme.kind == "per_group" else 0


def packed_and_back(kernel, which, x):
    """Codes read from packed rows, with poison behind them."""
    codes = np.asarray(x.codes)
    bits = (
        4
        if x.codes.max(initial=0) < 16
        and (x.spec.block.element if x.spec.blocked else x.spec.element).bits == 4
        else 8
    )
    if bits == 8:
        return codes
    rows, length = codes.shape
    room = np.full((rows + 1, -(-length // 32) * 32 + 32), POISON[4], np.uint8)
    room[:rows, :length] = codes
    low, high = room[:, 0::2], room[:, 1::2]
    low, high = kernel.step("nibbles", which, (low, high))
    found = np.empty_like(room)
    found[:, 0::2], found[:, 1::2] = low, high
    return found[:rows, :length]


def in_order(a, b, ks):
    total = np.zeros((len(a), len(b)), np.float32)
    for k in ks:
        total = total + np.multiply.outer(a[:, k], b[:, k])
    return total


def to_out(total, out):
    if out == "bfloat16":
        import ml_dtypes

        return total.astype(ml_dtypes.bfloat16)
    return total.astype(out)


# ---- right kernels by other routes ------------------------------------------------------------------


def pairwise(kernel, a, b, ks):
    terms = [np.multiply.outer(a[:, k], b[:, k]) for k in ks]
    while len(terms) > 1:
        terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=False)] + terms[len(terms) // 2 * 2 :]
    return terms[0]


def backward(kernel, a, b, ks):
    return in_order(a, b, ks[::-1])


def fused_lanes(kernel, a, b, ks, lanes=8):
    total = np.zeros((lanes, len(a), len(b)), np.float32)
    for k in ks:
        product = np.multiply.outer(a[:, k].astype(np.float64), b[:, k].astype(np.float64))
        total[k % lanes] = (total[k % lanes] + product).astype(np.float32)
    while len(total) > 1:
        total = total[: len(total) // 2] + total[len(total) // 2 :]
    return total[0]


RIGHT = {
    "in order": {},
    "backward": {"sum": backward},
    "pairwise": {"sum": pairwise},
    "fused": {"sum": fused_lanes},
}


def zero_points_apart(a, b):
    """sum(a q s) - sum(a s) z, with codes shifted to unsigned ones: what zero_point='split' allows."""
    size = Kernel.size_of(b) or b.codes.shape[1]
    rows, length = b.codes.shape
    shift = np.float32(8 if b.spec.element.signed else 0)
    codes = table(b.spec.element)[np.asarray(b.codes)] + shift
    scale = np.asarray(b.scale, np.float32).reshape(rows if np.size(b.scale) > 1 else 1, -1)
    zero = np.zeros_like(scale) if b.zero_point is None else np.asarray(b.zero_point).reshape(scale.shape)
    total = np.zeros((len(a), rows), np.float32)
    with np.errstate(all="ignore"):
        for block in range(scale.shape[1]):
            part = slice(block * size, min((block + 1) * size, length))
            ks = range(part.stop - part.start)
            total = total + in_order(a[:, part], codes[:, part], ks) * scale[:, block]
            sums = in_order(a[:, part], np.ones((1, len(ks)), np.float32), ks)
            total = total - sums * ((zero[:, block].astype(np.float32) + shift) * scale[:, block])[None]
    return total


# ---- what is planted --------------------------------------------------------------------------------


def only(side, change):
    """A fault of one side alone."""
    return lambda kernel, which, *given: change(kernel, *given) if which == side else given[-1]


def both(change):
    return lambda kernel, which, *given: change(kernel, *given)


def where_b(change):
    return only("b", change)


def elements(change):
    """change(kernel, codes, values) of both sides."""
    return {"elements": both(change)}


def move(change):
    """Another index into the scales: change(kernel, index, blocks)."""
    return {
        "index": where_b(
            lambda kernel, given: (given[0], np.clip(change(kernel, given[1]), 0, given[0].size - 1))
        )
    }


def block(change):
    return {"block": where_b(lambda kernel, j: np.maximum(change(kernel, j), 0))}


def stop(kernel, ks, unit, when=True):
    return ks[: len(ks) // unit * unit] if when else ks


def tensor_core(bits, out_bits, width):
    def total(kernel, a, b, ks):
        found = np.zeros((len(a), len(b)))
        for first in range(0, len(ks), width):
            part = ks[first : first + width]
            terms = [found] + [
                np.multiply.outer(a[:, k].astype(np.float64), b[:, k].astype(np.float64)) for k in part
            ]
            terms = np.stack(terms)
            top = np.where(terms != 0, np.frexp(terms)[1] - 1, -300).max(axis=0)
            step = np.ldexp(1.0, top - bits)
            cut = np.where(np.isfinite(terms), np.trunc(terms / step) * step, terms).sum(axis=0)
            found = np.where(np.isfinite(cut), toward_zero(np.where(np.isfinite(cut), cut, 0), out_bits), cut)
        return found.astype(np.float32)

    return {"sum": total}


def accumulating(kind, every=1):
    def total(kernel, a, b, ks):
        found = np.zeros((len(a), len(b)), np.float32)
        part = np.zeros_like(found)
        for i, k in enumerate(ks):
            part = part + np.multiply.outer(a[:, k], b[:, k])
            if i % every == every - 1 or i == len(ks) - 1:
                found, part = through(found + through(part, kind), kind), np.zeros_like(found)
        return found

    return {"sum": total}


def added(rule):
    def total(kernel, a, b, ks):
        found = np.zeros((len(a), len(b)))
        for k in ks:
            found = rule(found + np.multiply.outer(a[:, k].astype(np.float64), b[:, k].astype(np.float64)))
        return found.astype(np.float32)

    return {"sum": total}


def in_int8(reach):
    def change(kernel, x):
        rows, length = x.shape
        groups = -(-length // reach)
        room = np.zeros((rows, groups * reach), np.float32)
        room[:, :length] = x
        room = room.reshape(rows, groups, reach)
        scale = np.abs(room).max(axis=2, keepdims=True) / np.float32(127)
        whole = np.where(scale > 0, np.rint(room / np.where(scale > 0, scale, 1)), 0)
        return (whole * scale).reshape(rows, -1)[:, :length].astype(np.float32)

    return {"plain": only("a", change)}


def stored(change):
    return {"store": change}


def rows_of(change):
    """A fault of the stored result that depends on its shape."""

    def store(kernel, total):
        total = total.copy()
        change(kernel, total)
        return total

    return {"store": store}


def _set(total, part, value):
    total[part] = value


def integer(change):
    return {"integers": lambda kernel, a, b, due: change(kernel, a.astype(np.int64), b.astype(np.int64), due)}


def int16_pairs(kernel, a, b, due):
    shift = 128 if a.min(initial=0) < 0 else 0
    total = np.zeros_like(due)
    for k in range(0, a.shape[1], 2):
        pair = sum(np.multiply.outer(a[:, i] + shift, b[:, i]) for i in range(k, min(k + 2, a.shape[1])))
        total += np.clip(pair, -32768, 32767)
    return total - shift * b.sum(axis=1)[None]


def wraps(x, bits):
    half = 1 << (bits - 1)
    return (x + half) % (1 << bits) - half


def in_float32(kernel, a, b, due):
    return in_order(a.astype(np.float32), b.astype(np.float32), range(a.shape[1])).astype(np.int64)


def minus_128(kernel, a, b, due):
    turned = np.where(
        a[:, None] < 0, np.where(b[None] == -128, -128, -b[None]), np.where(a[:, None] == 0, 0, b[None])
    )
    return (np.abs(a)[:, None] * turned).sum(axis=-1)


MEMORY = {
    "nibbles swapped": {"nibbles": where_b(lambda kernel, halves: halves[::-1])},
    "nibbles of a swapped": {"nibbles": only("a", lambda kernel, halves: halves[::-1])},
    "row stride k/2": {
        "codes": where_b(
            lambda kernel, c: np.stack(
                [np.roll(c.reshape(-1), -r * (c.shape[1] // 2 * 2))[: c.shape[1]] for r in range(len(c))]
            )
        )
    },
    "last odd code lost": {
        "codes": where_b(
            lambda kernel, c: np.where(
                (np.arange(c.shape[1]) == c.shape[1] - 1) & (c.shape[1] % 2 == 1), 0, c
            )
        )
    },
    "last row read twice": {
        "codes": where_b(lambda kernel, c: c[np.minimum(np.arange(len(c)), max(len(c) - 2, 0))])
    },
    "rows past 64 read again": {"codes": where_b(lambda kernel, c: c[np.arange(len(c)) % 64])},
    "k past 128 read again": {"codes": where_b(lambda kernel, c: c[:, np.arange(c.shape[1]) % 128])},
    "codes shifted by one": {"codes": where_b(lambda kernel, c: np.roll(c, 1, axis=1))},
    "pairs of columns exchanged past 32": {
        "codes": where_b(
            lambda kernel, c: c[
                :,
                np.minimum(
                    np.where(np.arange(c.shape[1]) >= 32, np.arange(c.shape[1]) ^ 2, np.arange(c.shape[1])),
                    c.shape[1] - 1,
                ),
            ]
        )
    },
}
SCALES = {
    "blocks half as long": block(lambda kernel, j: np.arange(len(j)) // 16),
    "scale of the block before": block(lambda kernel, j: j - 1),
    "last block has the scale before": block(lambda kernel, j: np.where((j == j[-1]) & (j > 0), j - 1, j)),
    "scale of block 0": block(lambda kernel, j: j * 0),
    "scale of block 0 at m=1": block(lambda kernel, j: j * 0 if kernel.m == 1 else j),
    "scale of the next block in the last element": block(lambda kernel, j: np.append(j[1:], j[-1:])),
    "scale of the neighbour row": move(
        lambda kernel, i: np.minimum(
            i ^ kernel.blocks if kernel.blocks == 1 else np.concatenate([i[1:], i[:1]]), i.max()
        )
    ),
    "scales transposed": move(lambda kernel, i: i % kernel.blocks * len(i) + i // kernel.blocks),
    "scale rows by m": move(
        lambda kernel, i: i % kernel.blocks + i // kernel.blocks % max(kernel.m, 1) * kernel.blocks
    ),
    "scale stride padded to 8": move(
        lambda kernel, i: i % kernel.blocks + i // kernel.blocks * -(-kernel.blocks // 8) * 8
    ),
    "swizzle wrong past 32 rows": move(
        lambda kernel, i: (
            np.where(i // kernel.blocks >= 32, i ^ kernel.blocks, i)
            if kernel.blocks in (1, 2, 4)
            else np.roll(i, len(i) > 32 and 1, axis=0)
        )
    ),
    "scales of rows past 16 those of row 16": move(
        lambda kernel, i: np.minimum(i // kernel.blocks, 16) * kernel.blocks + i % kernel.blocks
    ),
}
SCALE_BYTES = {
    "byte << 23": {
        "scale_codes": both(lambda kernel, raw, due: (raw.astype(np.uint32) << 23).view(np.float32))
    },
    "raw byte at n<8": {
        "scale_codes": where_b(lambda kernel, raw, due: raw.astype(np.float32) if len(raw) < 8 else due)
    },
    "byte 0 is 0": {"scale_codes": both(lambda kernel, raw, due: np.where(raw == 0, np.float32(0), due))},
    "byte 255 is Inf": {
        "scale_codes": both(lambda kernel, raw, due: np.where(raw == 255, np.float32(np.inf), due))
    },
    "byte 255 is 1": {"scale_codes": both(lambda kernel, raw, due: np.where(raw == 255, np.float32(1), due))},
    "bias 126": {"scale_codes": where_b(lambda kernel, raw, due: due * np.float32(2))},
    "byte is signed": {
        "scale_codes": both(lambda kernel, raw, due: np.where(raw > 200, np.float32(0.5) * due, due))
    },
    "scale of a on both": {"scale_codes": where_b(lambda kernel, raw, due: due * 0 + due[0, 0])},
}
FLOAT_SCALES = {
    "scales in bfloat16": {"scale": where_b(lambda kernel, s: through(s, "bfloat16"))},
    "scales in float16": {"scale": where_b(lambda kernel, s: through(s, "float16"))},
    "scales cut to 16 bits": {"scale": where_b(lambda kernel, s: cut(s, 16))},
    "scales cut to 23 bits": {"scale": where_b(lambda kernel, s: cut(s, 23))},
    "scale by its reciprocal": {
        "scale": where_b(lambda kernel, s: np.float32(1) / (np.float32(1) / s).astype(np.float32))
    },
    "scale is a power of two": {
        "scale": where_b(lambda kernel, s: np.ldexp(np.float32(1), np.frexp(s)[1] - 1))
    },
}
ELEMENTS = {
    "subnormal codes are zero": elements(
        lambda kernel, c, v: np.where(
            np.abs(v) < (1.0 if len(np.unique(v)) < 17 else 2.0**-6), np.float32(0), v
        )
    ),
    "largest code is the one below": elements(
        lambda kernel, c, v: np.where(np.abs(v) == 6, np.sign(v) * np.float32(4), v)
    ),
    "sign of the last code lost": {"elements": where_b(lambda kernel, c, v: np.where(c == 15, np.abs(v), v))},
    "code 5 reads as 4": {
        "elements": where_b(lambda kernel, c, v: np.where(c == 5, v * np.float32(0.75), v))
    },
    "codes past 127 lose their sign": {
        "elements": both(lambda kernel, c, v: np.where(c > 127, np.abs(v), v))
    },
}
NAN_CODES = {
    "NaN code is 480": elements(lambda kernel, c, v: np.where(np.isnan(v), np.float32(480), v)),
    "NaN code is 0": elements(lambda kernel, c, v: np.where(np.isnan(v), np.float32(0), v)),
    "fnuz table": elements(
        lambda kernel, c, v: v / np.float32(2) if kernel.op.format.name.endswith("e4m3") else v
    ),
}
SUMS = {
    "tail of 32 dropped": {"ks": lambda kernel, ks: stop(kernel, ks, 32)},
    "tail of 16 dropped": {"ks": lambda kernel, ks: stop(kernel, ks, 16)},
    "tail of 64 dropped past 64": {
        "ks": lambda kernel, ks: stop(kernel, ks, 64, len(ks) > 64 and len(ks) % 32 == 0)
    },
    "tail dropped at m=1": {"ks": lambda kernel, ks: stop(kernel, ks, 32, kernel.m == 1)},
    "tail dropped past m=32": {"ks": lambda kernel, ks: stop(kernel, ks, 32, kernel.m > 32)},
    "the last of 20 dropped": {"ks": lambda kernel, ks: ks[:-1] if len(ks) == 20 else ks},
    "the last of 53 dropped": {"ks": lambda kernel, ks: ks[:-1] if len(ks) == 53 else ks},
    "tail summed twice": {"ks": lambda kernel, ks: ks + (ks[len(ks) // 32 * 32 :] if len(ks) > 32 else [])},
    "first term twice": {"ks": lambda kernel, ks: [*ks, 0]},
    "last term lost": {"ks": lambda kernel, ks: ks[:-1]},
    "k past 256 lost": {"ks": lambda kernel, ks: ks[:256]},
    "k past 4096 lost": {"ks": lambda kernel, ks: ks[:4096]},
    "the last of 16391 lost": {"ks": lambda kernel, ks: ks[:-1] if len(ks) == 16391 else ks},
    "accumulates in float16": accumulating("float16"),
    "accumulates in bfloat16": accumulating("bfloat16"),
    "partial sums in float16": accumulating("float16", 32),
    "partial sums in bfloat16": accumulating("bfloat16", 16),
    "14 bits, cut": tensor_core(13, 14, 32),
    "adds of 22 bits": added(lambda x: np.ldexp(np.rint(np.ldexp(np.frexp(x)[0], 22)), np.frexp(x)[1] - 22)),
    "zeros hide NaN": {
        "sum": lambda kernel, a, b, ks: in_order(
            np.where(np.isnan(a) & (b == 0).all(axis=0)[None], 0, a),
            np.where(np.isnan(b) & (a == 0).all(axis=0)[None], 0, b),
            ks,
        )
    },
    "NaN becomes 0": {
        "sum": lambda kernel, a, b, ks: np.nan_to_num(in_order(a, b, ks), posinf=np.inf, neginf=-np.inf)
    },
}
NEAREST = {
    "25 bits, cut": tensor_core(25, 24, 32),
    "adds toward zero": added(lambda x: toward_zero(x, 24)),
    "ties away from zero": added(
        lambda x: toward_zero(
            x + np.copysign(np.abs(toward_zero(x, 24) - toward_zero(x * (1 + 2.0**-23), 24)) / 2, x), 24
        )
    ),
}
RESULTS = {
    "columns past 64 not written": rows_of(
        lambda kernel, y: _set(y, np.s_[:, len(y.T) // 64 * 64 :], 0) if len(y.T) % 64 else None
    ),
    "last odd column copied": rows_of(
        lambda kernel, y: _set(y, np.s_[:, -1], y[:, -2]) if len(y.T) % 2 and len(y.T) > 1 else None
    ),
    "rows past 16 are row 0": rows_of(lambda kernel, y: _set(y, np.s_[16:], y[0])),
    "last row of an odd m not written": rows_of(
        lambda kernel, y: _set(y, np.s_[-1], 0) if len(y) % 2 else None
    ),
    "column 127 copied": rows_of(lambda kernel, y: _set(y, np.s_[:, 127:128], y[:, 126:127])),
    "subnormal results flushed": stored(lambda kernel, y: np.where(np.abs(y) < 2.0**-126, np.float32(0), y)),
    "through float16": stored(lambda kernel, y: through(y, "float16")),
    "Inf becomes the largest": stored(
        lambda kernel, y: np.clip(y, np.finfo(np.float32).min, np.finfo(np.float32).max)
    ),
    "clipped at 2**20": stored(lambda kernel, y: np.clip(y, -(2.0**20), 2.0**20).astype(np.float32)),
    "relu": stored(lambda kernel, y: np.maximum(y, np.float32(0))),
}
PLAIN = {
    "a in bfloat16": {"plain": only("a", lambda kernel, x: through(x, "bfloat16"))},
    "a in tf32": {"plain": only("a", lambda kernel, x: cut(x, 11))},
    "a in tf32, to nearest": {"plain": only("a", lambda kernel, x: tf32(x))},
    "a cut to 16 bits": {"plain": only("a", lambda kernel, x: cut(x, 16))},
    "a cut to 23 bits": {"plain": only("a", lambda kernel, x: cut(x, 23))},
    "a in int8 by 32": in_int8(32),
    "a in int8 by rows": in_int8(1 << 20),
    "b in bfloat16": {"values": where_b(lambda kernel, v: through(v, "bfloat16"))},
    "b in float16": {"values": where_b(lambda kernel, v: through(v, "float16"))},
    "subnormals of a flushed": {
        "plain": only("a", lambda kernel, x: np.where(np.abs(x) < 2.0**-126, np.float32(0), x))
    },
}
CUT_A = {name: PLAIN[name] for name in ("a in tf32, to nearest", "a cut to 16 bits", "a cut to 23 bits")}
CUT = CUT_A | {
    "b cut to 16 bits": {"plain": only("b", lambda kernel, x: cut(x, 16))},
    "b cut to 23 bits": {"plain": only("b", lambda kernel, x: cut(x, 23))},
    "both cut to 16 bits": {"plain": lambda kernel, which, x: cut(x, 16)},
    "the last column of a in tf32": {
        "plain": only("a", lambda kernel, x: np.concatenate([x[:, :-1], tf32(x[:, -1:])], axis=1))
    },
}
LAST = {
    "the last place is read again times 0": {
        "sum": lambda kernel, a, b, ks: (
            in_order(a, b, ks) + (a[:, -1:] * np.float32(0) if a.shape[1] % 64 else np.float32(0))
        )
    },
    "NaN is 0 in lane 63 of 64": {
        "plain": only(
            "a",
            lambda kernel, x: np.where(np.isnan(x) & (np.arange(x.shape[1]) % 64 == 63), np.float32(0), x),
        )
    },
    "NaN and Inf are 0 in the last rows of 16": {
        "plain": only(
            "a",
            lambda kernel, x: np.where(
                ~np.isfinite(x) & (np.arange(len(x)) >= len(x) // 16 * 16)[:, None], np.float32(0), x
            ),
        )
    },
}
FAR = {
    "group past 127 that of group 0": block(lambda kernel, j: j & 127),
    "group past 127 the one before": block(lambda kernel, j: np.where(j > 127, j - 1, j)),
    "k past 4096 lost": SUMS["k past 4096 lost"],
}
ZEROS = {
    "zero point 8 assumed": {"zero": where_b(lambda kernel, z: np.full_like(z, 8))},
    "zero point 8 at m=1": {"zero": where_b(lambda kernel, z: np.full_like(z, 8) if kernel.m == 1 else z)},
    "zero points ignored": {"zero": where_b(lambda kernel, z: np.zeros_like(z))},
    "zero points of neighbour blocks": {
        "zero_index": where_b(lambda kernel, given: (given[0], np.minimum(given[1] ^ 1, given[0].size - 1)))
    },
    "zero points dense in odd rows": {
        "zero_index": where_b(
            lambda kernel, given: (
                given[0],
                np.minimum(given[1] + given[1] // kernel.blocks * (kernel.blocks % 2), given[0].size - 1),
            )
        )
    },
    "zero points plus one": {"zero": where_b(lambda kernel, z: z + 1)},
    "zero point of row 0": {"zero": where_b(lambda kernel, z: np.broadcast_to(z[:1], z.shape))},
    "zero point 15 is 14": {"zero": where_b(lambda kernel, z: np.minimum(z, 14))},
}
INTEGERS = {
    "pairs saturate in int16": integer(int16_pairs),
    "pairs saturate at m=1": integer(
        lambda kernel, a, b, y: int16_pairs(kernel, a, b, y) if len(a) == 1 else y
    ),
    "-128 times -1": integer(minus_128),
    "sums in int16": integer(lambda kernel, a, b, y: wraps(y, 16)),
    "sums in int8": integer(lambda kernel, a, b, y: wraps(y, 8)),
    "sums in int24": integer(lambda kernel, a, b, y: wraps(y, 24)),
    "sums in float32": integer(in_float32),
    "sums in float16 steps": integer(
        lambda kernel, a, b, y: (
            through(y.astype(np.float32), "float16").astype(np.float64).clip(-65504, 65504).astype(np.int64)
        )
    ),
    "int16 by 64": integer(
        lambda kernel, a, b, y: sum(
            wraps(a[:, k : k + 64] @ b[:, k : k + 64].T, 16) for k in range(0, a.shape[1], 64)
        )
    ),
    "tail of 32 dropped": integer(
        lambda kernel, a, b, y: a[:, : a.shape[1] // 32 * 32] @ b[:, : a.shape[1] // 32 * 32].T
    ),
    "tail of 4 dropped": integer(
        lambda kernel, a, b, y: a[:, : a.shape[1] // 4 * 4] @ b[:, : a.shape[1] // 4 * 4].T
    ),
    "the last of 29 columns not written": integer(
        lambda kernel, a, b, y: np.where((np.arange(len(b)) == 28)[None] & (len(b) == 29), 0, y)
    ),
    "the last of 11 rows not written": integer(
        lambda kernel, a, b, y: np.where((np.arange(len(a)) == 10)[:, None] & (len(a) == 11), 0, y)
    ),
    "columns past 64 not written": integer(
        lambda kernel, a, b, y: np.where(
            (np.arange(len(b)) >= len(b) // 64 * 64)[None] & (len(b) % 64 > 0), 0, y
        )
    ),
    "a read as unsigned": integer(lambda kernel, a, b, y: (a & 255) @ b.T),
    "b read as unsigned": integer(lambda kernel, a, b, y: a @ (b & 255).T),
    "saturates at int16": integer(lambda kernel, a, b, y: np.clip(y, -32768, 32767)),
    "k past 4099 lost": integer(lambda kernel, a, b, y: a[:, :4099] @ b[:, :4099].T),
    "-128 read as -127": integer(lambda kernel, a, b, y: np.maximum(a, -127) @ np.maximum(b, -127).T),
}
NARROW_OUT = {
    "output cut": {"out": lambda kernel, y: to_out(cut(y, 8), "bfloat16")},
    "output through float16": {"out": lambda kernel, y: to_out(through(y, "float16"), "bfloat16")},
    "output saturates": {
        "out": lambda kernel, y: to_out(np.clip(y, -3.3895314e38, 3.3895314e38), "bfloat16")
    },
    "output ties away": {
        "out": lambda kernel, y: to_out(
            (
                (np.abs(y).view(np.uint32) + 0x8000 & np.uint32(0xFFFF0000)).view(np.float32) * np.sign(y)
            ).astype(np.float32),
            "bfloat16",
        )
    },
}
BIAS = {
    "bias forgotten": {"bias": lambda kernel, x: x * 0},
    "bias of column 0": {"bias": lambda kernel, x: x * 0 + x[0]},
    "bias of the column before": {"bias": lambda kernel, x: np.roll(x, 1)},
    "bias past 16 forgotten": {"bias": lambda kernel, x: np.where(np.arange(len(x)) < 16, x, np.float32(0))},
}
NUMBERS = {
    "tensor scale cut to 23 bits": {"number": where_b(lambda kernel, x: float(cut(np.float32([x]), 23)[0]))},
    "tensor scale forgotten": {"number": where_b(lambda kernel, x: 1.0)},
    "tensor scale of a alone": {
        "number": both(lambda kernel, x: x if kernel.op is not None and x > 1 else 1.0)
    },
    "scale is e5m2": {"scale_codes": both(lambda kernel, raw, due: table(nx.fp8_e5m2)[raw])},
    "scale subnormals are zero": {
        "scale_codes": both(
            lambda kernel, raw, due: np.where(np.abs(due) < 2.0**-6, 0, due).astype(np.float32)
        )
    },
    "sign of the scale read": {"scale_codes": both(lambda kernel, raw, due: np.where(raw > 0x77, -due, due))},
}

INT4 = nx.QuantSpec("int4", scheme="per_group(128)")
INT8_ROWS = nx.QuantSpec("int8", scheme="per_channel(0)")
UINT4 = nx.QuantSpec("uint4", scheme="per_group(32)", symmetric=False)
GROUPS = (
    (
        {"a": "mxfp8_e4m3", "b": "mxfp4"},
        MEMORY | SCALES | SCALE_BYTES | ELEMENTS | NAN_CODES | SUMS | NEAREST | RESULTS,
    ),
    ({"a": "float32", "b": "mxfp4", "bias": True}, PLAIN | BIAS | SUMS | LAST),
    ({"a": "float32", "b": INT4}, PLAIN | FLOAT_SCALES | SUMS | MEMORY | FAR),
    ({"a": "float32", "b": UINT4}, ZEROS | FLOAT_SCALES | CUT_A | FAR),
    ({"a": "float32", "b": INT8_ROWS, "zero_point": "folded"}, CUT_A | FLOAT_SCALES | LAST),
    ({"a": "float32", "b": "float32"}, CUT | SUMS | LAST),
    ({"a": "int8 per_tensor", "b": INT8_ROWS}, FLOAT_SCALES),
    ({"a": "int8", "b": "int8", "accumulate": "int32"}, INTEGERS),
    ({"a": "nvfp4", "b": "nvfp4"}, NUMBERS | SCALES | NEAREST),
    ({"a": "fp8_e4m3", "b": "fp8_e4m3"}, NAN_CODES | NEAREST),
    ({"a": "fp8_e4m3", "b": "fp8_e4m3", "out": "bfloat16"}, NARROW_OUT),
    ({"a": "bfloat16", "b": "bfloat16", "out": "bfloat16"}, NARROW_OUT),
)
NO_FAULTS = {
    ("float32 x mxfp4", "b in bfloat16"),  # exact: three bits and a power of two
    ("float32 x mxfp4", "b in float16"),
    ("mxfp8_e4m3 x mxfp4", "nibbles of a swapped"),  # a has none
    ("float32 x int4 per_group(128, axis=-1)", "nibbles of a swapped"),
    ("float32 x int4 per_group(128, axis=-1)", "zeros hide NaN"),  # integers are none
    ("nvfp4 x nvfp4", "blocks half as long"),  # of 16, as they are
}
"""What changes no decided result, or is right: told with the reason, never counted as caught."""


def planted():
    """(claim, name, kernel) of all of them."""
    for claim, faults in GROUPS:
        out = "int32" if claim.get("accumulate") == "int32" else claim.get("out", "float32")
        for name, steps in faults.items():
            yield claim, name, Kernel(name, steps, out)
