"""microxcaling, from its sources: elements and MX blocks in two of its roundings."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mx.elemwise_ops import _quantize_elemwise
from mx.mx_ops import _quantize_mx

from tests.peers.claims import Claim, of_tensors

FLOATS = {"fp8_e4m3": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2", "fp6_e3m2": "fp6_e3m2", "fp6_e2m3": "fp6_e2m3",
          "fp4_e2m1": "fp4", "float16": "float16", "bfloat16": "bfloat16"}  # fmt: skip
BLOCKS = {"fp8_e4m3": "mxfp8_e4m3", "fp8_e5m2": "mxfp8_e5m2", "fp6_e3m2": "mxfp6_e3m2",
          "fp6_e2m3": "mxfp6_e2m3", "fp4_e2m1": "mxfp4", "int8": "mxint8"}  # fmt: skip
ROUNDINGS = ("nearest", "even")


def claims() -> Iterator[Claim]:
    """`nearest` is its default, `even` what OCP MX asks for."""
    for theirs, ours in FLOATS.items():
        for rounding in ROUNDINGS:
            for saturates in (False, True):
                yield _element(theirs, ours, rounding, saturates)
    for theirs, ours in BLOCKS.items():
        for rounding in ROUNDINGS:
            yield of_tensors(Claim(
                ours, f'_quantize_mx(x, 8, "{theirs}", 32, axes=[-1], round="{rounding}")',
                lambda x, e=theirs, r=rounding: _quantize_mx(x, 8, e, block_size=32, axes=[-1], round=r),
            ))  # fmt: skip


def _element(theirs: str, ours: str, rounding: str, saturates: bool) -> Claim:
    plain = ours.startswith(("fp6", "fp4"))
    overflow = {} if plain else {"overflow": "saturate" if saturates else "nonsaturate"}

    def quantize(x: torch.Tensor) -> torch.Tensor:
        return _quantize_elemwise(x, theirs, round=rounding, saturate_normals=saturates)

    said = f'_quantize_elemwise(x, "{theirs}", round="{rounding}", saturate_normals={saturates})'
    return of_tensors(Claim(ours, said, quantize, "round", overflow))
