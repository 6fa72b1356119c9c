"""APyTypes: arrays of floats of any exponent and mantissa, IEEE-like: the top exponent is Inf and NaN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from apytypes import APyFloatArray

from numerics import float_format
from tests.peers.claims import Claim

FLOATS = {"bfloat16": (8, 7), "float16": (5, 10), "fp8_e5m2": (5, 2)}


def claims() -> Iterator[Claim]:
    """Half to even, from float64."""
    ieee = {**FLOATS, float_format(4, 3, specials="ieee", name="e4m3_ieee"): (4, 3)}
    for ours, (exponent, mantissa) in ieee.items():
        yield Claim(ours, f"APyFloatArray.from_float(x, {exponent}, {mantissa})",
                    lambda x, e=exponent, m=mantissa: _values(x, e, m), "round",
                    {"overflow": "nonsaturate"})  # fmt: skip


def _values(x: Any, exponent: int, mantissa: int) -> Any:
    made = APyFloatArray.from_float(x.astype(np.float64).reshape(-1), exponent, mantissa)
    return made.to_numpy().astype(np.float32).reshape(x.shape)
