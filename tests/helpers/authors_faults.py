"""Faults of products as authors of kernels make them: tails, swizzles, prefetches, split sums, bias."""

from __future__ import annotations

import numpy as np

import numerics as nx
from tests.helpers.product_faults import Kernel, in_order, only, table, tf32, through, to_out, where_b

f32 = np.float32
FAULTS: list = []


def fault(name, claim, kind=Kernel, **steps):
    """What a kernel does in place of some of its steps, or a kernel of another kind."""
    out = "int32" if claim.get("accumulate") == "int32" else claim.get("out", "float32")
    FAULTS.append((claim, name, kind(name, steps, out)))


FF = {"a": "float32", "b": "float32"}
MX = {"a": "mxfp8_e4m3", "b": "mxfp4"}
FMX = {"a": "float32", "b": "mxfp4"}
I4 = {"a": "float32", "b": nx.QuantSpec("int4", scheme="per_group(128)")}
I432 = {"a": "float16", "b": nx.QuantSpec("int4", scheme="per_group(32)"), "out": "float16"}
U4 = {"a": "float32", "b": nx.QuantSpec("uint4", scheme="per_group(32)", symmetric=False)}
U8 = {"a": "float32", "b": nx.QuantSpec("uint8", scheme="per_channel(0)", symmetric=False)}
I8R = {"a": "float32", "b": nx.QuantSpec("int8", scheme="per_channel(0)")}
W8A8 = {"a": "int8 per_tensor", "b": nx.QuantSpec("int8", scheme="per_channel(0)")}
FP8 = {"a": "fp8_e4m3 per_tensor", "b": "fp8_e4m3 per_tensor"}
NF4 = {"a": "float32", "b": nx.QuantSpec("nf4", scheme="per_group(64)")}
NV = {"a": "nvfp4", "b": "nvfp4"}
BF = {"a": "bfloat16", "b": "bfloat16", "out": "bfloat16"}
HALF = {"a": "float16", "b": "float16", "out": "float16"}
II = {"a": "int8", "b": "int8", "accumulate": "int32"}
UI = {"a": "uint8", "b": "int8", "accumulate": "int32"}


def chunks(ks, n):
    size = -(-len(ks) // n)
    return [ks[i : i + size] for i in range(0, len(ks), size)]


def split(n, least, narrow):
    def total(kernel, a, b, ks):
        if len(ks) < least:
            return in_order(a, b, ks)
        parts = [in_order(a, b, c) for c in chunks(ks, n)]
        parts = [through(p, narrow) for p in parts]
        return sum(parts[1:], parts[0])

    return total


# ---- split-K
fault(
    "split-K by 4, the remainder of k % 4 dropped",
    FF,
    ks=lambda k, ks: ks if len(ks) < 256 else ks[: len(ks) // 4 * 4],
)
fault("split-K partials in float16", FMX, sum=split(4, 512, "float16"))
fault("split-K partials in bfloat16 past 2048", I4, sum=split(4, 2048, "bfloat16"))
fault(
    "every split of K adds the bias",
    FMX | {"bias": True},
    bias=lambda k, x: x * f32(2) if k.k and k.k >= 128 else x,
)


# ---- swizzles
def swz(kernel, given):
    mem, i = given
    r, j = i // kernel.blocks, i % kernel.blocks
    if len(i) > 32:
        t, w = r // 128, r % 128
        p = t * 128 + (w % 32) * 4 + w // 32
        r = np.where(p < len(i), p, r)
    return mem, r * kernel.blocks + j


fault("scales swizzled twice in tiles of 128 x 4", MX, index=where_b(swz))
fault(
    "four scales of a word in the other order",
    FMX,
    block=where_b(lambda k, j: np.where(j // 4 * 4 + 3 <= j.max(), j ^ 3, j)),
)
# ---- groups, zero points
fault(
    "the last partial group has the scale before",
    I4,
    block=where_b(lambda k, j: np.minimum(j, max(len(j) // 128 - 1, 0)) if len(j) % 128 else j),
)
fault("zero point applied twice", U4, zero=where_b(lambda k, z: z * 2))
fault(
    "zero points two a byte: odd groups read the even one",
    U4,
    zero_index=where_b(lambda k, g: (g[0], g[1] - (g[1] % k.blocks) % 2)),
)


class ZeroTimesScale(Kernel):
    def side(self, which, x):
        if which == "a" or not hasattr(x, "codes"):
            return super().side(which, x)
        self.rows, self.op = len(x.codes), x
        q = table(x.spec.element)[np.asarray(x.codes)]
        z = self.spread(which, x, x.zero_point, "zero_index")
        s = self.scales(which, x)
        return (q * s - through((z * s).astype(f32), "float16")).astype(f32)


fault("zero point times scale kept in float16", U4, ZeroTimesScale)
# ---- bias
fault(
    "the sum is rounded to bfloat16 before the bias",
    BF | {"bias": True},
    sum=lambda k, a, b, ks: through(in_order(a, b, ks), "bfloat16"),
)
fault("bias read as bfloat16", FMX | {"bias": True}, bias=lambda k, x: through(x, "bfloat16"))


class Epilogue(Kernel):
    def __call__(self, a, b, bias=None):
        y = super().__call__(a, b)
        return (
            y if bias is None else ((y / b.scale.reshape(1, -1) + bias) * b.scale.reshape(1, -1)).astype(f32)
        )


fault("the bias is scaled with the sum", FP8 | {"bias": True}, Epilogue)


class BiasRow(Kernel):
    def __call__(self, a, b, bias=None):
        y = super().__call__(a, b)
        if bias is None:
            return y
        return (y + (bias[:, None] if len(y) == len(y.T) else bias)).astype(f32)


fault("a square result has its bias along rows", FMX | {"bias": True}, BiasRow)


# ---- accumulators narrowed a tile
def tiles(size, kind):
    def total(kernel, a, b, ks):
        found = np.zeros((len(a), len(b)), f32)
        for i in range(0, len(ks), size):
            for k in ks[i : i + size]:
                found = found + np.multiply.outer(a[:, k], b[:, k])
            if i + size < len(ks):
                found = through(found, kind)
        return found

    return total


fault("the accumulator becomes float16 between tiles of 64", FF, sum=tiles(64, "float16"))
fault("the accumulator becomes bfloat16 between tiles of 128", NF4, sum=tiles(128, "bfloat16"))
# ---- tails
fault(
    "rows of the last M tile of 16 read its first row",
    FMX,
    store=lambda k, y: (
        y
        if len(y) <= 16 or len(y) % 16 == 0
        else np.concatenate([y[: len(y) // 16 * 16], np.repeat(y[len(y) // 16 * 16 :][:1], len(y) % 16, 0)])
    ),
)
fault(
    "m % 8 of 5, 6, 7: the last row is the one before",
    HALF,
    store=lambda k, y: y if len(y) % 8 < 5 else np.concatenate([y[:-1], y[-2:-1]]),
)
fault(
    "the last n % 8 columns are not scaled",
    I8R,
    scale=where_b(
        lambda k, s: np.where((np.arange(len(s)) >= len(s) // 8 * 8)[:, None] & (len(s) > 8), f32(1), s)
    ),
)
# ---- prefetch
fault(
    "prefetch: the first of a group has the scale before",
    I4,
    block=where_b(lambda k, j: np.concatenate([j[:1], j[:-1]])),
)
fault(
    "ring of four stages: groups past 4 have the scale 4 before",
    U4,
    block=where_b(lambda k, j: np.where(j > 4, j - 4, j)),
)
# ---- integers
fault(
    "float32 sums past k = 2048",
    II,
    integers=lambda k, a, b, due: (
        due
        if a.shape[1] < 2048
        else in_order(a.astype(f32), b.astype(f32), range(a.shape[1])).astype(np.int64)
    ),
)


def maddubs(kernel, a, b, due):
    a, b = a.astype(np.int64), b.astype(np.int64)
    k2 = a.shape[1] // 32 * 32
    t = np.zeros_like(due)
    for k in range(0, k2, 2):
        t += np.clip(
            np.multiply.outer(a[:, k], b[:, k]) + np.multiply.outer(a[:, k + 1], b[:, k + 1]), -32768, 32767
        )
    return t + a[:, k2:] @ b[:, k2:].T


fault("maddubs saturates, the tail of 32 is right", UI, integers=maddubs)


def sgn(kernel, a, b, due):
    a, b = a.astype(np.int64), b.astype(np.int64)
    o = np.arange(a.shape[1]) % 2 == 1
    bad = np.where((b[None] == -128) & (a[:, None] < 0) & o, -128 * np.abs(a[:, None]), a[:, None] * b[None])
    return bad.sum(-1)


fault("psignb: -128 stays in odd lanes", II, integers=sgn)
fault(
    "compensation of 128 sums whole words of 4 only",
    II,
    integers=lambda k, a, b, due: (
        (a.astype(np.int64) + 128) @ b.astype(np.int64).T
        - 128 * b.astype(np.int64)[:, : b.shape[1] // 4 * 4].sum(1)
        if a.shape[1] > 4
        else due
    ),
)


# ---- subnormals
def ftz(kernel, a, b, ks):
    t = np.zeros((len(a), len(b)), f32)
    for k in ks:
        t = t + np.multiply.outer(a[:, k], b[:, k])
        t = np.where(np.abs(t) < 2.0**-126, f32(0), t)
    return t


fault("subnormal sums are flushed on the way", FF, sum=ftz)


def ftzp(kernel, a, b, ks):
    t = np.zeros((len(a), len(b)), f32)
    for k in ks:
        p = np.multiply.outer(a[:, k], b[:, k])
        t = t + np.where(np.abs(p) < 2.0**-126, f32(0), p)
    return t


fault("subnormal products are flushed", MX, sum=ftzp)


# ---- tensor cores
def half_sums(kernel, a, b, ks):
    t = np.zeros((len(a), len(b)), f32)
    for k in ks:
        t = through(t + np.multiply.outer(a[:, k], b[:, k]), "float16")
    return t


fault("float16 accumulators of fp8", FP8, sum=half_sums)
fault("b in tf32 where m >= 16", FF, plain=where_b(lambda k, x: tf32(x) if k.m >= 16 else x))


def x3(kernel, a, b, ks):
    ok = np.isfinite(a).all() and np.isfinite(b).all()
    if not ok:
        return in_order(a, b, ks)
    ah, bh = tf32(a), tf32(b)
    bl = (b - bh).astype(f32)
    return in_order(ah, bh, ks) + in_order(ah, bl, ks)


fault("3xTF32 without one cross term", FF, sum=x3)
# ---- partials
fault(
    "lane 31 of 32 lost in the shuffles",
    FMX,
    ks=lambda k, ks: [i for i in ks if len(ks) < 256 or i % 256 < 248],
)
fault(
    "the last warp of four lost where k >= 4096",
    I4,
    ks=lambda k, ks: [i for i in ks if len(ks) < 4096 or i // 32 % 4 < 3],
)
# ---- strides
fault(
    "a square b is taken for turned",
    FF,
    plain=where_b(lambda k, x: x.T if x.shape[0] == x.shape[1] and k.m != len(x) else x),
)


class ContiguousB(Kernel):
    def side(self, which, x):
        if which == "b" and not hasattr(x, "codes") and not x.flags.c_contiguous:
            x = np.lib.stride_tricks.as_strided(x, x.shape, (x.shape[1] * x.itemsize, x.itemsize))
        return super().side(which, x)


fault("strides of b ignored", FF, ContiguousB)
# ---- nf4
fault("table of nf4 in float16", NF4, elements=where_b(lambda k, c, v: through(v, "float16")))
fault(
    "one entry of nf4 a bit off",
    NF4,
    elements=where_b(lambda k, c, v: np.where(c == 11, np.nextafter(v, f32(9), dtype=f32), v)),
)
fault("nf4 with k past 4096 lost", NF4, ks=lambda k, ks: ks[:4096])
# ---- results
fault(
    "float16 results clamp at 65504",
    HALF | {"bias": True},
    store=lambda k, y: np.clip(y, -65504, 65504).astype(f32),
)


def rz(kernel, y):
    h = to_out(y, "float16")
    d = np.abs(h.astype(np.float64)) > np.abs(y)
    odd = (np.arange(len(y.T)) % 2 == 1)[None] & d & np.isfinite(h)
    return np.where(odd, (h.view(np.uint16) - 1).astype(np.uint16).view(np.float16), h)


fault("odd columns are cut, not rounded", HALF, out=rz)
fault(
    "NaN becomes the least number by max()",
    I432,
    out=lambda k, y: to_out(np.where(np.isnan(y), f32(-65504), y), "float16"),
)
# ---- scales and codes
fault(
    "scales turned where n is the number of groups",
    U4,
    index=where_b(
        lambda k, g: (
            g[0],
            (g[1] % k.blocks) * k.blocks + g[1] // k.blocks if len(g[1]) == k.blocks else g[1],
        )
    ),
)


class AddedExponents(Kernel):
    def __call__(self, a, b, bias=None):
        sa = np.repeat(a.scale.astype(int), 32, 1)[:, : a.codes.shape[1]]
        sb = np.repeat(b.scale.astype(int), 32, 1)[:, : b.codes.shape[1]]
        qa, qb = table(a.spec.block.element)[a.codes], table(b.spec.block.element)[b.codes]
        t = np.zeros((len(qa), len(qb)), f32)
        with np.errstate(all="ignore"):
            for k in range(qa.shape[1]):
                e = sa[:, k][:, None] + sb[:, k] - 127
                nan = (sa[:, k] == 255)[:, None] | (sb[:, k] == 255)
                s = np.where(nan, np.nan, np.ldexp(1.0, np.clip(e, 0, 254) - 127))
                t = t + (np.multiply.outer(qa[:, k], qb[:, k]) * s).astype(f32)
        return t


fault("the exponents of both scales added clip at a byte", MX, AddedExponents)
fault(
    "tensor scale of b in bfloat16", NV, number=where_b(lambda k, x: float(through(f32([x]), "bfloat16")[0]))
)


class RowSum(Kernel):
    def __call__(self, a, b, bias=None):
        q = table(b.spec.element)[np.asarray(b.codes)].astype(f32)
        s = np.asarray(b.scale, f32).reshape(-1)
        z = np.asarray(b.zero_point, f32).reshape(-1)
        with np.errstate(all="ignore"):
            rs = through(in_order(a, np.ones((1, a.shape[1]), f32), range(a.shape[1])), "float16")
            return ((in_order(a, q, range(a.shape[1])) - rs * z) * s).astype(f32)


fault("sums of rows in float16 for the zero points", U8, RowSum)
fault(
    "gemv: the last n % 4 columns not written",
    I4,
    store=lambda k, y: np.where(
        (np.arange(len(y.T)) >= len(y.T) // 4 * 4)[None] & (len(y) == 1) & (len(y.T) > 4), f32(0), y
    ),
)
fault(
    "gemv: a past 4096 read again",
    FMX,
    plain=only("a", lambda k, x: x[:, np.arange(x.shape[1]) % 4096] if len(x) == 1 else x),
)


class ProductOfScales(Kernel):
    def __call__(self, a, b, bias=None):
        qa, qb = (table(x.spec.element)[np.asarray(x.codes)].astype(np.int64) for x in (a, b))
        s = through(
            (np.asarray(a.scale, f32).reshape(-1, 1) * np.asarray(b.scale, f32).reshape(1, -1)).astype(f32),
            "bfloat16",
        )
        return ((qa @ qb.T).astype(f32) * s).astype(f32)


fault("product of both scales in bfloat16", W8A8, ProductOfScales)
fault("weights pass float16 on the way", U4, values=where_b(lambda k, v: through(v, "float16")))
fault(
    "columns past 128 have the scale of 128 before",
    I8R,
    scale=where_b(
        lambda k, s: (
            s[np.where(np.arange(len(s)) >= 128, np.arange(len(s)) - 128, np.arange(len(s)))]
            if len(s) > 1
            else s
        )
    ),
)


class ShiftedByEight(Kernel):
    def __call__(self, a, b, bias=None):
        q = table(b.spec.element)[np.asarray(b.codes)].astype(f32) + f32(8)
        s = np.asarray(b.scale, f32)
        g = 128
        t = np.zeros((len(a), len(q)), f32)
        with np.errstate(all="ignore"):
            for j in range(s.shape[1]):
                p = slice(j * g, min((j + 1) * g, a.shape[1]))
                n = range(p.stop - p.start)
                t = (
                    t
                    + in_order(a[:, p], q[:, p], n) * s[:, j]
                    - through(in_order(a[:, p], np.ones((1, len(n)), f32), n), "bfloat16") * f32(8) * s[:, j]
                )
        return t


fault("sums of groups in bfloat16 for the shift by 8", I4, ShiftedByEight)

# ---- what stood beside those that passed: bias, single rows and columns, long sums
B2 = FMX | {"bias": True}
BH = HALF | {"bias": True}
W4A8 = {
    "a": nx.QuantSpec("int8", scheme="per_channel(0)"),
    "b": nx.QuantSpec("int4", scheme="per_group(128)"),
}
W8G = {"a": nx.QuantSpec("int8", scheme="per_group(32)"), "b": nx.QuantSpec("int8", scheme="per_group(32)")}
fault("bias read as float16", FF | {"bias": True}, bias=lambda k, x: through(x, "float16"))
fault("subnormal bias flushed", B2, bias=lambda k, x: np.where(np.abs(x) < 2.0**-126, f32(0), x))
fault("NaN of the bias lost", BH, bias=lambda k, x: np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf))
fault("Inf of the bias clipped", B2, bias=lambda k, x: np.clip(x, f32(-3.4e38), f32(3.4e38)))
fault("no bias at m=1", B2, bias=lambda k, x: x if k.m > 1 else x * f32(0))
fault(
    "no bias past column 128",
    I4 | {"bias": True},
    bias=lambda k, x: np.where(np.arange(len(x)) < 128, x, f32(0)),
)
fault(
    "the bias is tf32",
    FF | {"bias": True},
    bias=lambda k, x: tf32(x),
)


class BiasRaw(Kernel):
    def __call__(self, a, b, bias=None):
        if bias is not None and len(bias) > 1 and not bias.flags.c_contiguous:
            bias = np.lib.stride_tricks.as_strided(bias, bias.shape, (bias.itemsize,))
        return super().__call__(a, b, bias)


fault("strides of the bias ignored", FF | {"bias": True}, BiasRaw)
fault("m >= 16 and k past 8192 lost", FMX, ks=lambda k, ks: ks[:8192] if k.m >= 16 else ks)
fault("n = 1 and k past 4096 lost", FF, ks=lambda k, ks: ks[:4096] if k.n == 1 else ks)
fault(
    "k past 4096 lost where k is a multiple of 32",
    FMX,
    ks=lambda k, ks: ks[:4096] if len(ks) % 32 == 0 else ks,
)
fault("whole blocks only: k past 4096 lost", FMX | {"whole_blocks": True}, ks=lambda k, ks: ks[:4096])
fault("gemv: group & 31", I4, block=where_b(lambda k, j: j & 31 if k.m == 1 else j))
fault("w4a8: group & 63", W4A8, block=where_b(lambda k, j: j & 63))
fault("w4a8: k past 8192 lost", W4A8, ks=lambda k, ks: ks[:8192])
fault(
    "w8a8: scales of later groups in bfloat16",
    W8G,
    scale=where_b(
        lambda k, s: np.concatenate([s[:, :32], through(s[:, 32:], "bfloat16")], 1) if s.shape[1] > 32 else s
    ),
)
fault(
    "w8a8: scales of later groups of a in float16",
    W8G,
    scale=only(
        "a",
        lambda k, s: np.concatenate([s[:, :32], through(s[:, 32:], "float16")], 1) if s.shape[1] > 32 else s,
    ),
)
fault("w8a8: k past 1024 lost", W8A8, ks=lambda k, ks: ks[:1024])
fault(
    "int8 rows past 32 of 48 read the first scale",
    W8A8,
    scale=where_b(
        lambda k, s: s[np.where(np.arange(len(s)) % 48 < 32, np.arange(len(s)), 0)] if len(s) > 1 else s
    ),
)
fault(
    "gemv of integers: k past 4096 lost",
    II,
    integers=lambda k, a, b, due: (
        a[:, :4096].astype(np.int64) @ b[:, :4096].astype(np.int64).T if len(a) == 1 else due
    ),
)
fault(
    "integers, m >= 17: k past 4096 lost",
    II,
    integers=lambda k, a, b, due: (
        a[:, :4096].astype(np.int64) @ b[:, :4096].astype(np.int64).T if len(a) >= 17 else due
    ),
)
fault("nf4: group & 63", NF4, block=where_b(lambda k, j: j & 63))
fault(
    "nf4: -1 counts half past k = 4096",
    NF4,
    elements=where_b(lambda k, c, v: np.where((c == 0) & (np.arange(c.shape[1]) >= 4096), v / 2, v)),
)
fault("nf4: k past 8192 lost", NF4, ks=lambda k, ks: ks[:8192])
