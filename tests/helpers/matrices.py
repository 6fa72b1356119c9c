"""Quantized matrices of every kind that products read, and rows to multiply them with."""

from __future__ import annotations

from typing import Any

import numpy as np

import numerics as nx

_SPECS: dict[str, Any] = {
    d.name: d.name for d in nx.dtypes() if d.kind == "block"
} | {
    "int2": "int2", "int3": "int3", "int4": "int4", "int16": "int16", "uint8": "uint8", "fp4": "fp4",
    "fp8_e5m2": "fp8_e5m2", "fp8_e4m3fnuz": "fp8_e4m3fnuz", "fp6_e3m2": "fp6_e3m2",
    "bfloat16": "bfloat16", "float16": "float16",
    "int8 rows": nx.QuantSpec("int8", scheme="per_channel(0)"),
    "int8 tokens": nx.QuantSpec("int8", scheme="per_token"),
    "fp8 tokens": nx.QuantSpec("fp8_e4m3", scheme="per_token"),
    "uint4 rows in one group": nx.QuantSpec("uint4", scheme="per_group(1024)", symmetric=False),
    "int4 groups": nx.QuantSpec("int4", scheme="per_group(32)"),
    "int4 groups of 64": nx.QuantSpec("int4", scheme="per_group(64)"),
    "uint4 groups": nx.QuantSpec("uint4", scheme="per_group(16)", symmetric=False),
    "int8 offset": nx.QuantSpec("int8", symmetric=False),
    "int8 rows offset": nx.QuantSpec("int8", scheme="per_channel(0)", symmetric=False),
    "int3 groups": nx.QuantSpec("int3", scheme="per_group(32)"),
    "fp6 groups": nx.QuantSpec("fp6_e2m3", scheme="per_group(16)"),
    "fp8 groups of 192": nx.QuantSpec("fp8_e4m3", scheme="per_group(192)"),
    "mine": nx.QuantSpec(nx.float_format(3, 1, name="mine"), scheme="per_group(32)"),
    "nf4 groups": nx.QuantSpec("nf4", scheme="per_group(64)"),
    "mine of 4 bits": nx.QuantSpec(nx.float_format(3, 0, specials="none", bias=1), scheme="per_group(16)"),
    "int5 groups": nx.QuantSpec(nx.integer_format(5), scheme="per_group(32)"),
    "uint6 rows offset": nx.QuantSpec(
        nx.integer_format(6, signed=False), scheme="per_channel(0)", symmetric=False
    ),
    "fp5 groups": nx.QuantSpec(nx.float_format(2, 2, name="fp5"), scheme="per_group(64)"),
    "codebook of 6 bits": nx.QuantSpec(
        nx.codebook_format(np.arange(-31, 33) / 3, name="thirds"), scheme="per_group(16)"
    ),
    "decoded columns": nx.QuantSpec("int8", scheme="per_channel(1)"),
    "decoded across": nx.QuantSpec("mxfp4", axis=0),
    "decoded float offset": nx.QuantSpec("uint4", symmetric=False, zero_point_type="float32"),
}  # fmt: skip
MATRICES = {
    name: spec if isinstance(spec, nx.QuantSpec) else nx.QuantSpec(spec) for name, spec in _SPECS.items()
}


IN_INT8 = [
    "mxfp4", "mxint8", "bfp16", "nvfp4", "nvint4", "int4", "uint8", "fp4", "int8 rows", "int4 groups",
    "int4 groups of 64", "uint4 groups", "int8 offset", "int8 rows offset", "mine of 4 bits", "int8 tokens",
    "uint4 rows in one group",
]  # fmt: skip
"""Those that products in int8 read."""


def rows(count: int, length: int, seed: int = 7) -> np.ndarray:
    """Numbers over some binades, that cancel here and there."""
    rng = np.random.default_rng(seed + count)
    x = rng.standard_normal((count, length)).astype(np.float32)
    x *= np.exp2(rng.integers(-6, 6, x.shape)).astype(np.float32)
    x[:, 1::5] = -x[:, 0:-1:5][:, : x[:, 1::5].shape[1]]
    return x


def matrix(name: str, shape: tuple[int, int]) -> Any:
    """A QTensor of arrays."""
    spec, values = MATRICES[name], rows(*shape, seed=3)
    return nx.quantize(abs(values) if spec.dtype is nx.uint8 else values, spec)
