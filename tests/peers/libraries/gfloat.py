"""gfloat: exact roundings in float64, with and without saturation; MX blocks one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gfloat import (
    BlockFormatInfo,
    FormatInfo,
    RoundMode,
    decode_ndarray,
    encode_ndarray,
    formats,
    round_ndarray,
)
from gfloat.block import compute_scale_amax, quantize_block

from tests.peers.claims import Claim

FLOATS = {
    "bfloat16": "bfloat16", "binary16": "float16", "ocp_e4m3": "fp8_e4m3", "ocp_e5m2": "fp8_e5m2",
    "ocp_e3m2": "fp6_e3m2", "ocp_e2m3": "fp6_e2m3", "ocp_e2m1": "fp4", "ocp_e8m0": "e8m0",
}  # fmt: skip
BLOCKS = {
    "mxfp8_e4m3": "mxfp8_e4m3", "mxfp8_e5m2": "mxfp8_e5m2", "mxfp6_e3m2": "mxfp6_e3m2",
    "mxfp6_e2m3": "mxfp6_e2m3", "mxfp4_e2m1": "mxfp4", "mxint8": "mxint8",
}  # fmt: skip
ROUNDINGS = {
    "TiesToAway": "half_away", "TowardZero": "toward_zero", "TowardNegative": "floor",
    "TowardPositive": "ceil",
}  # fmt: skip
WITHOUT_NAN = ("fp6_e3m2", "fp6_e2m3", "fp4")


def claims() -> Iterator[Claim]:
    """Every format, both policies; every rounding of fp8_e4m3; MX with its own scale."""
    for theirs, ours in FLOATS.items():
        info = getattr(formats, f"format_info_{theirs}")
        for saturates in (True,) if ours in WITHOUT_NAN else (True, False):
            yield _encoder(ours, info, "TiesToEven", {}, saturates)
        yield Claim(ours, f"decode_ndarray({theirs}, codes)", lambda c, f=info: _decoded(f, c), "decode")
    e4m3 = formats.format_info_ocp_e4m3
    for theirs, ours in ROUNDINGS.items():
        yield _encoder("fp8_e4m3", e4m3, theirs, {"rounding": ours}, True)
    for theirs, ours in BLOCKS.items():
        block = getattr(formats, f"format_info_{theirs}")
        options = {"whole_blocks": True} | ({} if theirs.startswith("mxfp8") else {"finite": True})
        said = f"quantize_block({theirs}, x, compute_scale_amax)"
        yield Claim(ours, said, lambda x, b=block: _blocks(b, x), "round", options)


def _encoder(ours: str, info: FormatInfo, mode: str, options: dict[str, Any], saturates: bool) -> Claim:
    name = f"encode_ndarray(f, round_ndarray({info.name}, x, {mode}, sat={saturates}))"
    policy = {"overflow": "saturate" if saturates else "nonsaturate"}
    overflow = {"finite": True} if ours in WITHOUT_NAN else policy  # it refuses NaN

    def encode(x: Any) -> Any:
        wide = x.astype(np.float64)
        return encode_ndarray(info, round_ndarray(info, wide, RoundMode[mode], saturates))

    return Claim(ours, name, encode, "encode", overflow | options)


def _decoded(info: FormatInfo, codes: Any) -> Any:
    return decode_ndarray(info, codes.astype(np.int64)).astype(np.float32)


def _blocks(info: BlockFormatInfo, x: Any) -> Any:
    rows = x.astype(np.float64).reshape(-1, 32)
    made = [quantize_block(info, row, compute_scale_amax) for row in rows]
    return np.array(made, np.float32).reshape(x.shape)
