"""Shift, round, saturate: how an AIE-ML core turns an accumulator into a narrower integer.

acc      int32 lane, the whole range
shift    0 .. 31, an int or an int32 lane: the result is acc / 2**shift, rounded
mode     a name from MODES, always static; the caller has checked it
low high the saturation's bounds, a row of SATURATIONS

Written in the dialect of the shared arithmetic (docs/dialect.md) and bound like it:
`bind(primitives, sources=(srs,))`.  No intermediate leaves int32, at no shift: the quotient and the
remainder are compared with a threshold, nothing is added to the accumulator.

Sources: UG1583 and UG1603 (AMD, AI Engine-ML kernel coding: rounding and saturation modes).  Nothing here
has been compared with silicon.

>>> import numpy as np
>>> from numerics.backends.array import primitives
>>> from numerics.backends.bind import bind
>>> from numerics.backends.ipu import srs as source
>>> names = ("where", "minimum", "maximum")
>>> bound = bind({name: getattr(primitives, name) for name in names}, sources=(source,))
>>> acc = np.array([-12, -4, 4, 12, 4000], np.int32)
>>> for mode in ("floor", "pos_inf", "conv_even"):
...     print(bound.srs(acc, 3, mode, -128, 127).tolist())
[-2, -1, 0, 1, 127]
[-1, 0, 1, 2, 127]
[-2, 0, 0, 2, 127]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from numerics.formats.primitives import Lane, maximum, minimum, where

MAGNITUDE = 0x7FFFFFFF
INT8_LOW = -128
INT8_HIGH = 127


@dataclass(frozen=True)
class Mode:
    """One rounding mode of the SRS unit.

    code: what an AIE-ML core holds in its rounding register (AIE1 numbers them otherwise).
    meaning: in words.  rounding: the same in `numerics.formats.rounding`, None where it has no name.
    """

    code: int
    meaning: str
    rounding: str | None


MODES: Final = {
    "floor": Mode(0, "toward -Inf; the core's state after reset", "floor"),
    "ceil": Mode(1, "toward +Inf", "ceil"),
    "sym_floor": Mode(2, "toward zero", "toward_zero"),
    "sym_ceil": Mode(3, "away from zero", None),
    "neg_inf": Mode(8, "nearest, ties toward -Inf", "half_down"),
    "pos_inf": Mode(9, "nearest, ties toward +Inf (Quark: DPU_ROUND)", "half_up"),
    "sym_zero": Mode(10, "nearest, ties toward zero", None),
    "sym_inf": Mode(11, "nearest, ties away from zero (Quark: STD_ROUND)", "half_away"),
    "conv_even": Mode(12, "nearest, ties to even (Quark: PY3_ROUND)", "half_even"),
    "conv_odd": Mode(13, "nearest, ties to odd", None),
}
"""Name in UG1583 -> Mode.  8 to 13 differ at ties only."""

SATURATIONS: Final = {
    "none": {8: (-0x80000000, MAGNITUDE), 16: (-0x80000000, MAGNITUDE)},
    "saturate": {8: (INT8_LOW, INT8_HIGH), 16: (-32768, 32767)},
    "symmetric": {8: (-INT8_HIGH, INT8_HIGH), 16: (-32767, 32767)},
}
"""Name -> bits -> (low, high).  none is the core's state after reset: the low bits of the result are kept
as they are, so its bounds are int32's own and the caller cuts."""


def srs(acc: Lane, shift: Lane, mode: str, low: Lane, high: Lane) -> Lane:
    """acc / 2**shift rounded by mode, within [low, high]; int32.  Shift 0 leaves acc as it is."""
    quotient = shift_down(acc, shift)
    rest = acc - (quotient << shift)
    above = threshold(acc, quotient, shift, mode)
    return minimum(maximum(quotient + where(rest > above, 1, 0), low), high)


def requantize(acc: Lane, shift: Lane, device: Any) -> Lane:
    """int32 accumulators to int8 values, saturated to [-128, 127], in the device's mode (devices.py)."""
    return srs(acc, shift, device.mode, INT8_LOW, INT8_HIGH)


def shift_down(acc: Lane, shift: Lane) -> Lane:
    """The floor of acc / 2**shift, of which `>>` sees nothing negative."""
    n = where(acc < 0, -1 - acc, acc) >> shift
    return where(acc < 0, -1 - n, n)


def threshold(acc: Lane, quotient: Lane, shift: Lane, mode: str) -> Lane:
    """The largest remainder, in 0 .. 2**shift - 1, that still rounds down; never below 0."""
    half = (((1 << shift) + 1) >> 1) & MAGNITUDE  # 2**(shift - 1); at shift 0, where nothing remains, 1
    odd = quotient & 1
    if mode == "floor":
        above = MAGNITUDE
    elif mode == "ceil":
        above = 0
    elif mode == "sym_floor":
        above = where(acc < 0, 0, MAGNITUDE)
    elif mode == "sym_ceil":
        above = where(acc < 0, MAGNITUDE, 0)
    elif mode == "neg_inf":
        above = half
    elif mode == "pos_inf":
        above = half - 1
    elif mode == "sym_zero":
        above = half - where(acc < 0, 1, 0)
    elif mode == "sym_inf":
        above = half - where(acc < 0, 0, 1)
    elif mode == "conv_even":
        above = half - odd
    else:  # conv_odd
        above = half - 1 + odd
    return above
