"""What a target may be.  Beside the command line and the pytest plugin, which import nothing heavy."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "encode": "float32 values -> codes",
    "decode": "codes -> float32 values",
    "round": "float32 values -> the nearest values of the format (fake quantization)",
    "pack": "codes -> bytes",
    "unpack": "bytes, count -> codes",
    "affine": "float32 values, scale, zero point -> codes, or values where floats come back",
    "quantize": "float32 values -> (codes, scales[, zero points]), which it finds itself",
    "fake_quantize": "float32 values -> their values under scales that it finds itself",
    "matmul": "a (m, k), b (n, k)[, bias][, c][, alpha][, beta] -> a times the rows of b, (m, n)",
}
"""What a target may be, and what it takes and returns; the first is the default."""
FINDS = ("quantize", "fake_quantize")
"""Of kernels that find the scales of single numbers themselves."""
OPERATIONS = tuple(kind for kind in KINDS if kind != "matmul")
"""What a device on a pipe may be."""

INPUTS: dict[str, str] = {
    "float32": "the default",
    "bfloat16": "all 65,536 numbers; of NumPy, ml_dtypes' type",
    "float16": "all 65,536 numbers",
    "float64": "float32's numbers, and those beside a middle that float32 cannot hold",
}
"""What a target may take in place of float32 values."""
EFFORTS: dict[str, str] = {
    "quick": "the inputs that matter, in shapes of all kinds",
    "default": "these, calls again, two threads, and some numbers that are drawn",
    "high": "these, ten times as many calls, and 2**24 numbers that are drawn",
}
"""How much a target is asked."""
