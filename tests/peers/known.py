"""What was known of the field before: found by a survey in November 2026, each claim one row.

`python -m tests.peers` says which of them the judge reproduces and which it corrects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Known:
    """A library's answer to an input, as it was known.  call: a part that tells the call from others."""

    library: str
    dtype: str
    call: str
    input: str
    answer: str

    def found(self, peers: dict[str, Any]) -> str | None:
        """The answer that came now; None where the library was not judged."""
        for row in peers.get(self.library, {}).get("rows", []):
            if row["dtype"] == self.dtype and self.call in row["call"] and self.input in row["answers"]:
                return str(row["answers"][self.input])
        return None


E4M3 = ("464.01", "Inf", "NaN", "2^-10", "-0", "17")
FP4 = (".25", ".75", "1.25", "1.75", "2.5", "3.5", "5")
EVEN = ("0", "1", "1", "2", "2", "4", "4")
AWAY = ("0.5", "1", "1.5", "2", "3", "4", "6")
ZERO = ("0", "0.5", "1", "1.5", "2", "3", "4")

ROWS: tuple[tuple[str, str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("torch", "fp8_e4m3", "float8_e4m3fn", E4M3, ("448", "448", "nan", "0", "-0", "16")),
    ("ml_dtypes", "fp8_e4m3", "float8_e4m3fn", E4M3, ("nan", "nan", "nan", "0", "-0", "16")),
    ("gfloat", "fp8_e4m3", "TiesToEven, sat=False", E4M3, ("nan", "nan", "nan", "0", "-0", "16")),
    ("gfloat", "fp8_e4m3", "TiesToEven, sat=True", E4M3, ("448", "448", "nan", "0", "-0", "16")),
    ("tensorcast", "fp8_e4m3", "e4m3fn", E4M3, ("448", "448", "nan", "0", "-0", "16")),
    ("microxcaling", "fp8_e4m3", '"nearest", saturate_normals=False', E4M3,
     ("inf", "inf", "nan", "0.001953125", "0", "18")),
    ("microxcaling", "fp8_e4m3", '"even", saturate_normals=True', E4M3,
     ("448", "inf", "nan", "0", "0", "16")),
    ("qtorch", "fp8_e4m3", "4, 3", E4M3, ("480", "480", "480", "0.001953125", "0", "18")),
    ("microxcaling", "fp8_e4m3", '"nearest", saturate_normals=False', ("464",), ("inf",)),
    ("qtorch", "fp8_e4m3", "4, 3", ("464",), ("480",)),
    ("apytypes", "e4m3_ieee", "4, 3", E4M3, ("inf", "inf", "nan", "0", "-0", "16")),
    ("pychop", "e4m3_ieee", "Chop(4, 3", ("300", *E4M3), ("0", "0", "inf", "nan", "0", "0", "16")),
    ("torch", "fp8_e5m2", "float8_e5m2", ("61440",), ("inf",)),
    ("ml_dtypes", "fp8_e5m2", "float8_e5m2", ("61440",), ("inf",)),
    ("gfloat", "fp8_e5m2", "sat=False", ("61440",), ("inf",)),
    ("gfloat", "fp8_e5m2", "sat=True", ("61440",), ("57344",)),
    ("tensorcast", "fp8_e5m2", "e5m2", ("61440",), ("57344",)),
    ("microxcaling", "fp8_e5m2", '"nearest", saturate_normals=False', ("61440",), ("inf",)),
    ("microxcaling", "fp8_e5m2", '"nearest", saturate_normals=True', ("61440",), ("57344",)),
    ("apytypes", "fp8_e5m2", "5, 2", ("61440",), ("inf",)),
    ("pychop", "fp8_e5m2", "Chop(5, 2", ("61440", "65536"), ("65536", "0")),
    ("qtorch", "fp8_e5m2", "5, 2", ("61440",), ("65536",)),
    ("torchao", "fp4", "f32_to_f4", FP4, EVEN),
    ("ml_dtypes", "fp4", "float4", FP4, EVEN),
    ("gfloat", "fp4", "ocp_e2m1", FP4, EVEN),
    ("tensorcast", "fp4", "e2m1", FP4, EVEN),
    ("compressed-tensors", "fp4", "cast_to_fp4", FP4, EVEN),
    ("brevitas", "fp4", "2, 1", FP4, EVEN),
    ("microxcaling", "fp4", '"nearest", saturate_normals=False', FP4, AWAY),
    ("qtorch", "fp4", "2, 1", FP4, AWAY),
    ("nvidia-modelopt", "mxfp4", "MXFP4QTensor", (".25 of 4",), ("127: 4 0",)),
    ("torchao", "fp4", "f32_to_f4", ("NaN",), ("1.5",)),
    ("ml_dtypes", "fp4", "float4", ("NaN",), ("-0",)),
    ("compressed-tensors", "fp4", "cast_to_fp4", ("NaN", "-0"), ("nan", "0")),
    ("tensorcast", "fp4", "e2m1", ("NaN",), ("nan",)),
    ("microxcaling", "fp4", '"nearest", saturate_normals=False', ("-0",), ("0",)),
    ("microxcaling", "fp4", '"even", saturate_normals=False', ("below .25",), ("0.5",)),
    ("microxcaling", "bfloat16", '"nearest", saturate_normals=False', ("1+2^-8", "largest float32"),
     ("1.0078125", "nan")),
    ("qtorch", "bfloat16", "8, 7", ("1+2^-8",), ("1.0078125",)),
    ("tensorcast", "bfloat16", "bfloat16", ("2^-133",), ("nan",)),
    ("torch", "e8m0", "float8_e8m0fnu", (".75", "1.5", "3", "0", "-1"),
     ("1", "2", "4", "5.87747175e-39", "1")),
    ("ml_dtypes", "e8m0", "float8_e8m0fnu", (".75", "1.5", "3", "0", "-1"), ("1", "2", "4", "nan", "nan")),
    ("torchao", "mxfp4", "FLOOR", ("6", "6.5", "7", "7.9", "3.1", "below 8", "zeros"),
     ("127: 6", "127: 6", "127: 6", "127: 6", "126: 3", "127: 6", "0: 0")),
    ("torchao", "mxfp4", "EVEN", ("6", "6.5", "7", "7.9", "3.1"),
     ("127: 6", "127: 6", "128: 8", "128: 8", "126: 3")),
    ("torchao", "mxfp4", ", CEIL", ("6", "6.5", "7", "7.9", "3.1"),
     ("128: 6", "128: 6", "128: 8", "128: 8", "127: 3")),
    ("torchao", "mxfp4", "RCEIL", ("6", "6.5", "7", "7.9", "3.1"),
     ("127: 6", "128: 6", "128: 8", "128: 8", "127: 3")),
    ("torchao", "mxfp4", "RCEIL", ("above 6*2^10",), ("137: 6144",)),
    ("nvidia-modelopt", "mxfp4", "MXFP4QTensor", ("above 6*2^10",), ("137: 6144",)),
    ("torchao", "mxfp4", "FLOOR", ("Inf, 1", "NaN, 1", "largest float32"),
     ("253: inf 0", "255: nan nan", "252: 2.55211775e+38")),
    ("torchao", "mxfp4", "RCEIL", ("Inf, 1",), ("254: inf 0",)),
    ("torchao", "mxfp4", "EVEN", ("largest float32",), ("253: inf",)),
    ("torchao", "mxfp8_e4m3", "FLOOR", ("448", "449", "500"), ("127: 448", "127: 448", "127: 448")),
    ("torchao", "mxfp8_e4m3", "EVEN", ("448", "449", "500"), ("127: 448", "127: 448", "128: 512")),
    ("torchao", "mxfp8_e4m3", "RCEIL", ("448", "449", "500"), ("127: 448", "128: 448", "128: 512")),
    ("compressed-tensors", "mxfp8_e4m3", "num_bits=8", ("500",), ("512",)),
    ("gfloat", "mxfp4", "quantize_block", ("below 8", "NaN, 1"),
     ("6", "raises: ValueError: No NaN in format ocp_e2m1")),
    ("tensorcast", "mxfp4", "mxfp4e2", ("below 8", "Inf, 1", "NaN, 1"), ("6", "1.5 1", "nan 1")),
    ("microxcaling", "mxfp4", 'round="nearest"', ("below 8", "Inf, 1", "NaN, 1", "largest float32"),
     ("8", "nan nan", "nan nan", "inf")),
    ("brevitas", "mxfp4", "2, 1", ("7", "Inf, 1", "NaN, 1"), ("6", "nan nan", "nan nan")),
    ("amd-quark", "mxfp4", '"even"', ("7", "Inf, 1", "NaN, 1", "zeros"), ("8", "inf 0", "nan nan", "0")),
    ("amd-quark", "mxfp4", '"floor"', ("below 2^101",), ("2.5353012e+30",)),
    ("nvidia-modelopt", "mxfp4", "MXFP4QTensor", ("Inf, 1", "NaN, 1", "zeros"),
     ("0: -0 -0", "0: -0 -0", "0: -0")),
    ("nvidia-modelopt", "mxfp8_e4m3", "MXFP8QTensor", ("Inf, 1",), ("254: inf 0",)),
    ("pychop", "mxfp4", "mx_quantize", ("NaN, 1",), ("nan 1",)),
    ("microxcaling", "mxint8", 'round="nearest"', ("-1.999",), ("-1.984375",)),
    ("tensorcast", "mxint8", "mxint8", ("-1.999",), ("-1.984375",)),
    ("gfloat", "mxint8", "quantize_block", ("-1.999",), ("-2",)),
    ("pychop", "mxint8", "mx_quantize", ("-1.999",), ("-2",)),
    ("amd-quark", "mxint8", '"even"', ("-1.999", "1.999"), ("-2", "2")),
    ("brevitas", "mxint8", "MXInt8Weight", ("1", "1.999"), ("0.9921875", "0.9921875")),
    ("amd-quark", "mx6", "mx6", ("1 .9 .4 .3", "Inf, 1"), ("1 0.875 0.375 0.3125", "inf 1")),
    ("amd-quark", "mx9", "mx9", ("1 .9 .4 .3", "Inf, 1"), ("1 0.90625 0.3984375 0.296875", "inf 1")),
    ("tensorcast", "mx9", "mx9", ("1 .9 .4 .3", "Inf, 1"), ("1 0.90625 0.3984375 0.296875", "1.984375 1")),
)  # fmt: skip


def known() -> Iterator[Known]:
    """Each answer alone."""
    for library, dtype, call, inputs, answers in ROWS:
        for one, answer in zip(inputs, answers, strict=True):
            yield Known(library, dtype, call, one, answer)
