"""pychop: Chop, which rounds to any exponent and significand, and MX blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pychop import Chop
from pychop.mx_formats import mx_quantize

from numerics import float_format
from tests.peers.claims import Claim

FLOATS = {"bfloat16": (8, 7), "float16": (5, 10), "fp8_e5m2": (5, 2)}
BLOCKS = {
    "mxfp8_e4m3": "mxfp8_e4m3", "mxfp8_e5m2": "mxfp8_e5m2", "mxfp6_e3m2": "mxfp6_e3m2",
    "mxfp6_e2m3": "mxfp6_e2m3", "mxfp4_e2m1": "mxfp4", "mxint8": "mxint8",
}  # fmt: skip


def claims() -> Iterator[Claim]:
    """IEEE-like floats, which overflow, and MX."""
    ieee = {**FLOATS, float_format(4, 3, specials="ieee", name="e4m3_ieee"): (4, 3)}
    for ours, (exponent, significand) in ieee.items():
        chop = Chop(exp_bits=exponent, sig_bits=significand, rmode=1)
        yield Claim(ours, f"Chop({exponent}, {significand}, rmode=1)(x)", lambda x, c=chop: _values(c(x), x),
                    "round", {"overflow": "nonsaturate"})  # fmt: skip
    for theirs, ours in BLOCKS.items():
        yield Claim(ours, f'mx_quantize(x, "{theirs}", 32)', lambda x, f=theirs: _blocks(x, f), "round",
                    {"whole_blocks": True})  # fmt: skip


def _values(made: Any, x: Any) -> Any:
    return np.asarray(made, np.float32).reshape(x.shape)


def _blocks(x: Any, name: str) -> Any:
    return _values(mx_quantize(np.ascontiguousarray(x).reshape(-1), format=name, block_size=32), x)
