"""What a target may be.  Beside the command line and the pytest plugin, which import nothing heavy."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "encode": "float32 values -> codes",
    "decode": "codes -> float32 values",
    "round": "float32 values -> the nearest values of the format (fake quantization)",
    "pack": "codes -> bytes",
    "unpack": "bytes, count -> codes",
    "affine": "float32 values, scale, zero point -> codes, or values where floats come back",
    "matmul": "a (m, k), b (n, k)[, bias] -> a times the rows of b, (m, n)",
}
"""What a target may be, and what it takes and returns; the first is the default."""
