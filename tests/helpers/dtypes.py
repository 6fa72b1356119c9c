"""The formats that tests go through: every one of the tables, and some that only a caller declares."""

from __future__ import annotations

import numerics as nx

ELEMENTS = [d for d in nx.dtypes() if d.kind != "block"]
DECLARED = [
    nx.float_format(4, 3, subnormals=False, name="e4m3_flushed"),
    nx.float_format(5, 0, specials="none", name="e5m0"),
    nx.float_format(5, 3, signed=False, name="ue5m3"),
    nx.float_format(4, 3, signed=False, specials="fn", subnormals=False, name="ue4m3_flushed"),
    nx.float_format(2, 5, bias=3, specials="fnuz", name="e2m5fnuz"),
    nx.float_format(8, 5, name="e8m5"),
    nx.float_format(6, 0, signed=False, subnormals=False, has_zero=False, specials="fn", name="e6m0"),
]
BLOCKS = [d for d in nx.dtypes() if d.kind == "block"]
DECLARED_BLOCKS = [
    nx.block_format(block=24, element="fp4"),
    nx.block_format(block=300, element="int4"),
    nx.block_format(block=128, element="fp8_e5m2"),
    nx.block_format(block=16, element="fp8_e4m3fnuz"),
    nx.block_format(block=16, mantissa=5, sub_block=4),
    nx.block_format(block=12, mantissa=3, sub_block=3),
    nx.block_format(block=6, mantissa=2, sub_block=2),
    nx.block_format(block=16, element="fp6_e2m3", scale="fp8_e5m2"),
]
