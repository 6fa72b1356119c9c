"""TABLE of the float formats, one row each, and `float_format` for a user's own."""

from __future__ import annotations

from typing import Any

from numerics.formats.arguments import keywords
from numerics.formats.dtype import NAME_LENGTH, SPECIALS, Float, Specials, named
from numerics.formats.errors import NumericsError, integer, one_of, said, shortened
from numerics.formats.registry import row

__all__ = [
    "bfloat16", "e8m0", "float16", "float_format", "fp3", "fp4", "fp6_e2m3", "fp6_e3m2", "fp8_e3m4",
    "fp8_e4m3", "fp8_e4m3fnuz", "fp8_e5m2", "fp8_e5m2fnuz", "ue5m3fn", "ue5m3ieee",
]  # fmt: skip

_IEEE = "IEEE 754-2019 §3.6"
_OFP8 = "OCP OFP8 1.0 §5"
_MX = "OCP MX 1.0 §5.3"
_FNUZ = "arXiv 2206.02915; LLVM APFloat"

# fmt: off
bfloat16: Float = row(Float, "bfloat16", "Intel bfloat16 1.0 (2018); IEEE 754 rules",
    names=("bf16", "BF16"),
    exponent=8, mantissa=7, bias=127, specials="ieee", default_overflow="nonsaturate")
float16: Float = row(Float, "float16", _IEEE,
    names=("fp16", "half", "F16", "binary16"),
    exponent=5, mantissa=10, bias=15, specials="ieee", default_overflow="nonsaturate")
fp8_e4m3: Float = row(Float, "fp8_e4m3", _OFP8,
    names=("float8_e4m3fn", "E4M3", "OFP8 E4M3", "fp8_e4m3fn", "FLOAT8E4M3FN", "F8_E4M3"),
    exponent=4, mantissa=3, bias=7, specials="fn")
fp8_e5m2: Float = row(Float, "fp8_e5m2", _OFP8,
    names=("float8_e5m2", "E5M2", "OFP8 E5M2", "FLOAT8E5M2", "F8_E5M2"),
    exponent=5, mantissa=2, bias=15, specials="ieee")
fp8_e3m4: Float = row(Float, "fp8_e3m4", "ml_dtypes float8_e3m4; IEEE 754 rules",
    names=("float8_e3m4", "E3M4"),
    exponent=3, mantissa=4, bias=3, specials="ieee")
fp8_e4m3fnuz: Float = row(Float, "fp8_e4m3fnuz", _FNUZ,
    names=("float8_e4m3fnuz", "FLOAT8E4M3FNUZ", "F8_E4M3FNUZ"),
    exponent=4, mantissa=3, bias=8, specials="fnuz")
fp8_e5m2fnuz: Float = row(Float, "fp8_e5m2fnuz", _FNUZ,
    names=("float8_e5m2fnuz", "FLOAT8E5M2FNUZ", "F8_E5M2FNUZ"),
    exponent=5, mantissa=2, bias=16, specials="fnuz")
fp6_e3m2: Float = row(Float, "fp6_e3m2", _MX,
    names=("float6_e3m2fn", "E3M2", "FLOAT6E3M2", "F6_E3M2"),
    exponent=3, mantissa=2, bias=3, specials="none")
fp6_e2m3: Float = row(Float, "fp6_e2m3", _MX,
    names=("float6_e2m3fn", "E2M3", "FLOAT6E2M3", "F6_E2M3"),
    exponent=2, mantissa=3, bias=1, specials="none")
fp4: Float = row(Float, "fp4", _MX,
    names=("fp4_e2m1", "float4_e2m1fn", "E2M1", "FLOAT4E2M1", "F4"),
    exponent=2, mantissa=1, bias=1, specials="none")
fp3: Float = row(Float, "fp3", "arXiv 2603.28765, its code (E2M0)",
    names=("fp3_e2m0", "E2M0"),
    exponent=2, mantissa=0, bias=1, specials="none")
e8m0: Float = row(Float, "e8m0", "OCP MX 1.0 §5.4.1",
    names=("float8_e8m0fnu", "E8M0", "FLOAT8E8M0", "F8_E8M0"),
    exponent=8, mantissa=0, bias=127, specials="fn",
    signed=False, subnormals=False, has_zero=False, default_overflow="nonsaturate")
"""Powers of two, 2**-127 .. 2**127, and NaN.  As an element: 0 and negatives become 0x00 (saturate) or 0xFF
(nonsaturate, its default), positive values below 2**-127 become 0x00, ties go to the even code."""
ue5m3fn: Float = row(Float, "ue5m3fn", "AMD Quark, kernel.float8_e5m3",
    names=("UE5M3FN", "float8_ue5m3fn"),
    exponent=5, mantissa=3, bias=15, specials="fn", signed=False)
ue5m3ieee: Float = row(Float, "ue5m3ieee", "IEEE 754-2019 §3.4, without the sign",
    names=("UE5M3IEEE",),
    exponent=5, mantissa=3, bias=15, specials="ieee", signed=False)
# fmt: on
"""What is called UE5M3 is one of two: up to 114688 with one NaN, or up to 61440 with Inf and NaN above."""


@keywords
def float_format(
    exponent: int,
    mantissa: int,
    *,
    bias: int | None = None,
    specials: Specials = "ieee",
    signed: bool = True,
    subnormals: bool = True,
    has_zero: bool = True,
    name: str | None = None,
) -> Float:
    """Returns a float format of your own; it gets every kernel.  The same facts give the same object.

    exponent, mantissa: bits; 1 to 8 of the exponent, 2 to 16 in all with the sign.
    bias: of the exponent, 2**(exponent - 1) - 1 by default.
    specials: where Inf and NaN are:
        ieee (the default): the highest exponent holds both (IEEE 754-2019 §3.4)
        fn: finite, and NaN at the highest magnitude only, as fp8_e4m3 (OCP OFP8 1.0 §5)
        fnuz: finite, and one NaN in the place of -0
        extended: Inf at the highest magnitude, and one NaN: where -0 would be, or above Inf without a sign
            (IEEE P3109, report 4.0)
        none: every code is a finite number, as fp4 (OCP MX 1.0 §5.3)
    signed: False leaves the sign bit out; negative values become the least code, or NaN.
    subnormals: False makes values below the smallest normal round to it or to zero.
    has_zero: False makes unsigned powers of two without a zero, as e8m0.
    name: by default made of the facts, as e5m3; not that of another format of the tables.
    Raises NumericsError for facts that contradict each other or do not fit in float32.  docs/formats.md §9.

    >>> e5m3 = float_format(5, 3, signed=False, name="e5m3")
    >>> e5m3.bits, e5m3.max, e5m3.round(0.3)
    (8, 61440.0, 0.3125)
    """
    exponent, mantissa = integer("exponent", exponent), integer("mantissa", mantissa)
    if bias is None:
        bias = (1 << min(max(exponent - 1, 0), 8)) - 1  # more exponent bits are refused below
    facts: dict[str, Any] = {
        "exponent": exponent, "mantissa": mantissa, "bias": bias,
        "specials": one_of("specials", specials, SPECIALS), "signed": signed,
        "subnormals": subnormals, "has_zero": has_zero,
    }  # fmt: skip
    made: Float = Float(name=_default_name(facts) if name is None else name, **facts)
    return made


def _default_name(facts: dict[str, Any]) -> str:
    """Returns a name such as e5m3 or e4m3none; e4m3ieee, since e4m3 is known for another format."""
    name = f"e{said(facts['exponent'])}m{said(facts['mantissa'])}"
    if facts["specials"] != "ieee":
        name += facts["specials"]
    elif named(name) is not None:
        try:
            return str(Float(name=name, **facts))  # the one that is known
        except NumericsError:
            name += "ieee"
    return shortened(name, NAME_LENGTH)
