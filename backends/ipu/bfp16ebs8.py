"""bfp16ebs8, the block float of the AIE2P core, as bytes: for those who feed buffers to kernels.

A block is 8 values in 9 bytes: E, then q0 .. q7 in two's complement; value = q * 2**(E - 133).  E is the
largest biased float32 exponent of the block.  There is no implicit bit and no sign bit of its own, so there
is one zero.  Layout and E: mlir-aie, `block_datatypes/helper.h`.

How q is rounded follows the core's mode, and what happens when the largest value rounds up to 128 has been
reported once and not by AMD; so the variants have names and none is "the hardware's" (VARIANTS).  NaN, Inf
and the exponent byte 255 are refused: what a core does with them is uncharacterised (virtio-accel issue 146).

Integers only, whatever the thread's floating-point mode; float32 subnormals are counted like the rest.

>>> x = np.array([1.0, -1.0, 0.5, 0.015625, 0.01, -0.01, 0.0, 1.9999999], np.float32)
>>> pack(x, "floor").tolist()
[[127, 64, 192, 32, 1, 0, 255, 0, 127]]
>>> pack(x, "even_bump").tolist()
[[128, 32, 224, 16, 0, 0, 0, 0, 64]]
>>> unpack(pack(x, "even_bump")).tolist()
[[1.0, -1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 2.0]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from numerics.formats.errors import NumericsError, one_of

BLOCK: Final = 8
BYTES: Final = 9
BIAS: Final = 133
SIGNIFICAND: Final = 24  # bits of float32's, the hidden one included
LARGEST_EXPONENT: Final = 254


@dataclass(frozen=True)
class Variant:
    """How q comes about.

    rounding: floor or half_even.  lowest: what q is clamped to below; above it is 127.  bumps: when a q would
    be 128, E is raised by one and the whole block is rounded again.  meaning: who does so.
    """

    rounding: str
    lowest: int
    bumps: bool
    meaning: str


VARIANTS: Final = {
    "floor": Variant("floor", -128, False, "the core's mode after reset; nothing can reach 128"),
    "even_sat": Variant("half_even", -128, False, "host packers: 128 saturates to 127"),
    "even_bump": Variant("half_even", -128, True, "the core in conv_even, as measured by a third party"),
    "quark": Variant("half_even", -127, False, "AMD Quark's ONNX kernel for BFP16: symmetric, by value"),
}
"""Name -> Variant.  quark: Quark keeps the sign of some zeros in its float output; here zero is zero."""

_Words = npt.NDArray[np.int64]


def pack(x: npt.NDArray[np.float32], variant: str) -> npt.NDArray[np.uint8]:
    """Float32 [..., 8 k] to blocks of 8 along the last axis, in C order: uint8 [n, 9].

    variant: a name from VARIANTS.  Raises NumericsError for an unknown variant, another dtype or shape, NaN
    or Inf, and where even_bump would raise the largest exponent, 254 (from 255 / 256 * 2**128 on).
    """
    v = VARIANTS[one_of("variant of bfp16ebs8", variant, VARIANTS)]
    bits = _blocks(x).view(np.uint32).astype(np.int64)
    magnitude = bits & 0x7FFFFFFF
    shared = (magnitude >> 23).max(axis=1, keepdims=True, initial=0)
    _refuse_255(shared, "NaN or Inf")
    field = np.maximum(magnitude >> 23, 1)  # a subnormal counts in the unit of the smallest normals
    digits = magnitude - ((field - 1) << 23)
    significand = np.where(bits >> 31, -digits, digits)  # value = significand * 2**(field - 150)
    q = _shift(significand, shared - field + 17, v.rounding)
    if v.bumps:
        shared = shared + (q > 127).any(axis=1, keepdims=True)
        _refuse_255(shared, "a block whose largest value rounds up to 2**128")
        q = _shift(significand, shared - field + 17, v.rounding)
    packed = np.empty((len(q), BYTES), np.uint8)
    packed[:, :1] = shared
    packed[:, 1:] = np.clip(q, v.lowest, 127) & 0xFF
    return packed


def unpack(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Bytes [n, 9] to the float32 values [n, 8] that they stand for, exactly; zero is +0.

    Raises NumericsError for another dtype or shape, the exponent byte 255, and -128 under the exponent 254:
    -2**128 is no float32.
    """
    b = np.asarray(packed)
    if b.dtype != np.uint8 or b.ndim != 2 or b.shape[1] != BYTES:
        raise NumericsError(f"packed blocks of {b.dtype} {b.shape}; allowed: uint8 [n, {BYTES}]")
    shared = b[:, :1].astype(np.int64)
    q = b[:, 1:].view(np.int8).astype(np.int64)
    _refuse_255(shared, "the exponent byte 255")
    if ((shared == LARGEST_EXPONENT) & (q == -128)).any():
        raise NumericsError("a block holds -128 * 2**(254 - 133) = -2**128, which is no float32")
    bits = _magnitude_bits(np.abs(q), shared) | np.where(q < 0, 0x80000000, 0)
    return bits.astype(np.uint32).view(np.float32)


def _blocks(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    x = np.asarray(x)
    if x.dtype != np.float32 or x.ndim == 0 or x.shape[-1] % BLOCK:
        raise NumericsError(f"values of {x.dtype} {x.shape}; allowed: float32 [..., {BLOCK} k]")
    return np.ascontiguousarray(x).reshape(-1, BLOCK)


def _refuse_255(shared: _Words, what: str) -> None:
    rows = np.flatnonzero(shared > LARGEST_EXPONENT)
    if len(rows):
        raise NumericsError(
            f"{what} in block {rows[0]}: what the hardware does with it is uncharacterised;"
            f" allowed are shared exponents 0 .. {LARGEST_EXPONENT}"
        )


def _shift(n: _Words, shift: _Words, rounding: str) -> _Words:
    """n / 2**shift to an integer; |n| < 2**24, so from a shift of 26 on all of it is remainder."""
    s = np.minimum(shift, SIGNIFICAND + 2)
    quotient = n >> s
    if rounding == "half_even":
        half = np.int64(1) << (s - 1)
        rest = n - (quotient << s)
        quotient = quotient + (rest > half - (quotient & 1))
    return quotient


def _magnitude_bits(m: _Words, shared: _Words) -> _Words:
    """The float32 bits of m * 2**(shared - 133), 0 <= m <= 128."""
    length = np.searchsorted(1 << np.arange(BLOCK), m, side="right")  # of m in bits
    field = length + shared - (BIAS - 126)  # m in [2**(length - 1), 2**length)
    normal = (field << 23) + (m << (SIGNIFICAND - length)) - (1 << 23)
    subnormal = m << np.minimum(shared + (149 - BIAS), SIGNIFICAND)  # in units of 2**-149
    return np.where((field < 1) | (m == 0), subnormal, normal)
