"""Shared microexponents, mx6 and mx9: encode, encode to stored bytes, fake-quantize."""

from __future__ import annotations

from bench.bench_mx import encoding, rounding, storing

CASES = {
    "encode mx6": encoding("mx6"),
    "encode mx9": encoding("mx9"),
    "store mx6": storing("mx6"),
    "store mx9": storing("mx9"),
    "fake_quantize mx6": rounding("mx6"),
    "fake_quantize mx9": rounding("mx9"),
}
