"""microxcaling: every element format and rounding, single and in blocks, against its own PyTorch path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from mx import mx_ops
from mx.elemwise_ops import _quantize_bfloat, _quantize_elemwise

from tests.adapters.hard import rows

FORMATS = ("fp8_e5m2", "fp8_e4m3", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1", "int8", "int4", "int2", "float16",
           "bfloat16")  # fmt: skip
BOTH = (False, True)


def cases() -> Iterator[tuple[str, Callable[[bool], Any]]]:
    """Names and functions."""
    for kind, rounding in product(
        (torch.float32, torch.bfloat16, torch.float16), ("nearest", "even", "floor")
    ):
        x = rows(kind)
        for name, saturates, subnormals in product(FORMATS, BOTH, BOTH):
            more = {"round": rounding, "saturate_normals": saturates, "allow_denorm": subnormals}
            yield f"elemwise {name} {kind} {more}", (
                lambda ours, x=x, n=name, m=more: _quantize_elemwise(x, n, custom_cuda=ours, **m)
            )  # fmt: skip
        for name, bits, flush, (size, axis) in product(FORMATS, (8, 5), BOTH, ((32, -1), (9, -1), (32, 0))):
            more = {"round": rounding, "flush_fp32_subnorms": flush, "block_size": size, "axes": [axis]}
            yield f"mx {name} {bits} {kind} {more}", (
                lambda ours, x=x, a=(bits, name), m=more: mx_ops._quantize_mx(x, *a, custom_cuda=ours, **m)
            )  # fmt: skip
        for bits in (10, 12, 16, 20):
            yield f"bfloat{bits} {kind} {rounding}", (
                lambda ours, x=x, b=bits, r=rounding: _quantize_bfloat(x, b, round=r, custom_cuda=ours)
            )  # fmt: skip
