"""Faults of single rows, columns and results, which have paths of their own; and of single terms."""

from __future__ import annotations

import numpy as np

from tests.helpers.tile_faults import BF16, numbers, product, through

FLOATS = {"a": "float32", "b": "float32"}
HALF = {"a": "float16", "b": "float16", "out": "float16"}
HALF_SUMS = {"a": "float16", "b": "float16"}
HALF_MX = {"a": "float16", "b": "mxfp4", "out": "float16"}
HALF_INT8 = {"a": "float16", "b": "int8 per_channel(0)", "out": "float16"}
HALF_INT4 = {"a": "float16", "b": "int4 per_group(128)", "out": "float16"}
FP8 = {"a": "fp8_e4m3 per_tensor", "b": "fp8_e4m3 per_tensor"}
FP8_ROWS = {"a": "fp8_e4m3 per_token", "b": "fp8_e4m3 per_channel(0)", "out": "bfloat16"}
INT8 = {"a": "int8 per_token", "b": "int8 per_channel(0)"}
NV = {"a": "bfloat16", "b": "nvfp4", "out": "bfloat16"}

PLACES = {
    "a single row": lambda m, n: m == 1,
    "a single column": lambda m, n: n == 1,
    "a single result": lambda m, n: m == n == 1,
    "a tile": lambda m, n: m >= 16 and n >= 16,
}
NORMAL = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}
LARGEST = {
    "float32": float(np.finfo(np.float32).max),
    "bfloat16": 2.0**127 * (2 - 2.0**-7),
    "float16": 65504.0,
}


def flushed(x, kind):
    return np.where(np.abs(x) < NORMAL[kind], 0.0, x)


def in_place(claim, place, **changes):
    """A product that is right but where it has a shape: of operands (a, b) or of a result x."""
    here, out = PLACES[place], claim.get("out", "float32")

    def read(a, b):
        return changes["read"](a, b) if "read" in changes and here(len(a), b.shape[1]) else (a, b)

    def write(x, k):
        return changes["write"](through(x, out), x) if "write" in changes and here(*x.shape) else x

    return product(claim, read=read, write=write)


def of_operand(name, claim):
    """Its subnormal numbers are zeros."""
    kind = claim[name]

    def read(a, b):
        return (flushed(a, kind), b) if name == "a" else (a, flushed(b, kind))

    return {"read": read}


def _signs(x):
    """Of the scales of an operand whose rows have one each: their signs."""
    return np.sign(np.asarray(x.scale, np.float64)).reshape(-1, 1)


def without_signs(claim, place):
    """A product that takes magnitudes of scales in a place."""

    def kernel(a, b):
        left, right = numbers(a), numbers(b)
        if PLACES[place](len(left), len(right)):
            left, right = left * _signs(a), right * _signs(b)
        with np.errstate(all="ignore"):
            return (left @ right.T).astype(np.float32)

    return kernel


def faults():
    """(name, claim, law or "" of any, kernel, place) of what is done in one place alone."""
    for place in PLACES:
        for claim in (FLOATS, BF16, HALF, HALF_SUMS, HALF_MX):
            for side in ("a", "b"):
                if claim[side] in NORMAL:
                    kernel = in_place(claim, place, **of_operand(side, claim))
                    yield f"{side} is flushed", claim, "subnormals", kernel, place
        for claim in (FLOATS, BF16, HALF, HALF_INT8, HALF_MX, INT8, FP8):
            out = claim.get("out", "float32")
            law = "subnormals" if claim is not HALF_MX else ""  # a scale of small results shows it as well
            yield (
                "results are flushed", claim, law,
                in_place(claim, place, write=lambda x, exact, out=out: flushed(x, out)), place,
            )  # fmt: skip
        for claim in (FLOATS, BF16, HALF, HALF_MX):
            most = LARGEST[claim.get("out", "float32")]
            yield (
                "finite sums saturate", claim, "output",
                in_place(claim, place, write=lambda x, exact, most=most: np.where(
                    np.isinf(x) & np.isfinite(exact), np.copysign(most, x), x)), place,
            )  # fmt: skip
        for claim in (FLOATS, HALF_MX):
            yield (
                "NaN is 0", claim, "special",
                in_place(claim, place, write=lambda x, exact: np.where(np.isnan(x), 0.0, x)), place,
            )  # fmt: skip
        yield "signs of scales are lost", INT8, "scale_range", without_signs(INT8, place), place
        for claim in (HALF_INT8, HALF_INT4, NV):
            kind = claim["out"]
            yield (
                f"weights in {kind}", claim, "",
                in_place(claim, place, read=lambda a, b, kind=kind: (a, through(b, kind))), place,
            )  # fmt: skip


# ---- single terms --------------------------------------------------------------------------------------


def _terms(a, b, change):
    """Sums in float64 of products that a change has been made of."""
    found = np.zeros((len(a), b.shape[1]))
    for k in range(len(b)):
        found = found + change(a[:, k, None], b[k])
    return found


def toward_zero(x, y):
    """The product, cut to float32."""
    exact = x * y
    near = exact.astype(np.float32)
    past = np.isfinite(near) & (np.abs(near.astype(np.float64)) > np.abs(exact))
    return np.where(past, np.nextafter(near, np.float32(0)), near).astype(np.float64)


def _halves(x):
    """The first twelve bits of float32 numbers, and what is left of them."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFFF000)
    normal = np.isfinite(x) & (np.abs(x) >= NORMAL["float32"])
    high = np.where(normal, bits.view(np.float32), x).astype(np.float64)
    return high, np.where(np.isfinite(x), x - high, 0.0)


def without_low_halves(x, y):
    """The product of halves, but that of both low ones."""
    (high, low), (other, rest) = _halves(x), _halves(y)
    found, exact = high * other + (high * rest + low * other), x * y
    return np.where(np.isfinite(exact), found, exact)


def of_terms(change):
    return product(FLOATS, sums=lambda a, b: _terms(a, b, change))


def scales_rounded(claim, kind, names="ab"):
    """A product whose scales a row are rounded to a type before they are used, but for very small ones."""

    def kernel(a, b):
        sides = []
        for name, x in (("a", a), ("b", b)):
            values, scale = numbers(x), np.asarray(x.scale, np.float64).reshape(-1, 1)
            near = through(scale, kind)
            near = np.where((np.abs(scale) < 2.0**-100) | ~np.isfinite(scale), scale, near)
            sides.append(values / scale * near if name in names else values)
        with np.errstate(all="ignore"):
            return through(sides[0] @ sides[1].T, claim["out"]).astype(np.float32)

    return kernel
