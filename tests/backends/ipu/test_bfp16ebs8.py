"""Blocks of 8 that share an exponent, against a judge of exact integers.

The judge shares no code with them, and nothing here runs on, or says anything about, silicon.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")  # importing any module of the package imports its executor

from numerics.backends.ipu import bfp16ebs8
from numerics.formats import NumericsError

rng = np.random.default_rng(8)


def judged_block(values: list[float], variant: str) -> tuple[int, list[int]] | None:
    """E and q by the description, in Fractions; None where E would be 255."""
    shared = max(math.frexp(v)[1] + 126 if abs(v) >= 2.0**-126 else 0 for v in values)
    rounded = math.floor if variant == "floor" else round  # Python's round of a Fraction: half to even
    q = [rounded(Fraction(v) / Fraction(2) ** (shared - 133)) for v in values]
    if variant == "even_bump" and max(q) > 127:
        shared += 1
        q = [rounded(Fraction(v) / Fraction(2) ** (shared - 133)) for v in values]
    lowest = -127 if variant == "quark" else -128
    return None if shared > 254 else (shared, [min(max(n, lowest), 127) for n in q])


def blocks_of_bits(low: int, high: int, rows: int, mask: int = 0xFFFFFFFF) -> np.ndarray:
    bits = rng.integers(low, high, (rows, 8)).astype(np.uint32) & np.uint32(mask)
    return (bits | rng.integers(0, 2, bits.shape).astype(np.uint32) << np.uint32(31)).view(np.float32)


def ties(exponent: int) -> np.ndarray:
    """Blocks under one E whose elements are n + 1/2 units, or one float32 next to it, n up to 127."""
    n = rng.integers(0, 128, (24, 8))
    x = np.ldexp(n + 0.5, exponent - 133).astype(np.float32)
    x = np.where(rng.integers(0, 3, x.shape) == 0, np.nextafter(x, np.float32(0)), x)
    x = np.where(rng.integers(0, 4, x.shape) == 0, np.nextafter(x, np.float32(np.inf)), x)
    x[:, 0] = np.ldexp(64.0, exponent - 133)
    return (x * rng.choice(np.float32([-1, 1]), x.shape)).astype(np.float32)


def bumps(exponent: int) -> np.ndarray:
    """The largest just below, at and above 127.5 units, of either sign, among others."""
    top = np.ldexp(127.5, exponent - 133).astype(np.float32)
    rows = []
    for largest in (np.nextafter(top, np.float32(0)), top, np.nextafter(top, np.float32(np.inf))):
        for sign in (-1, 1):
            row = np.ldexp(rng.integers(-255, 256, 8) / 4, exponent - 133).astype(np.float32)
            row[rng.integers(8)] = sign * largest
            rows.append(row)
    return np.array(rows, np.float32)


BLOCKS = {
    "ordinary": rng.standard_normal((150, 8)).astype(np.float32),
    "any finite": blocks_of_bits(0, 0x7F000000, 150),
    "subnormal": blocks_of_bits(0, 1 << 23, 150),
    "few bits": blocks_of_bits(0, 1 << 17, 60),
    "around the smallest normal": blocks_of_bits(1 << 22, 3 << 23, 100),
    "one binade and those below": blocks_of_bits(100 << 23, 110 << 23, 150),
    "ties": np.concatenate([ties(e) for e in (1, 2, 17, 127, 200, 253)]),
    "bump": np.concatenate([bumps(e) for e in (1, 2, 3, 60, 127, 253)]),
    "largest": blocks_of_bits(253 << 23, 0x7F800000, 100),
    "corners": np.array(
        [
            [0.0] * 8,
            [-0.0] * 8,
            [2.0**-149, -(2.0**-149), 0, 0, 0, 0, 0, 0],
            [2.0**-133, 2.0**-134, 3 * 2.0**-134, -(2.0**-134), -3 * 2.0**-134, 5 * 2.0**-134, 0, 0],
            [2.0**-126, 2.0**-127, 2.0**-149, -(2.0**-149), 0, 0, 0, 0],
            [2.0**-126 - 2.0**-149, 0, 0, 0, 0, 0, 0, 0],
            [-(2.0**-126) + 2.0**-149, 0, 0, 0, 0, 0, 0, 0],
            [1.0, 2.0**-7, 2.0**-8, -(2.0**-7), 2.0**-149, -(2.0**-149), 0.0, -0.0],
            [1.9999999] * 8,
            [-1.9999999] * 8,
            [3.4028235e38, -3.4028235e38, 1, -1, 0, 0, 0, 0],
        ],
        np.float32,
    ),
}


@pytest.mark.parametrize("variant", bfp16ebs8.VARIANTS)
@pytest.mark.parametrize("kind", BLOCKS)
def test_pack_is_the_judge(kind, variant):
    for block in BLOCKS[kind]:
        due = judged_block([float(v) for v in block], variant)
        if due is None:
            with pytest.raises(NumericsError, match=r"rounds up to 2\*\*128 in block 0"):
                bfp16ebs8.pack(block, variant)
            continue
        shared, q = due
        packed = bfp16ebs8.pack(block, variant)
        assert packed.dtype == np.uint8
        assert packed.tolist() == [[shared, *(n % 256 for n in q)]]
        if (shared, min(q)) != (254, -128):
            values = bfp16ebs8.unpack(packed)[0]
            assert [Fraction(float(v)) for v in values] == [n * Fraction(2) ** (shared - 133) for n in q]


def test_the_kinds_hold_what_they_are_for():
    def judged_kind(kind: str, variant: str) -> list:
        return [judged_block([float(v) for v in block], variant) for block in BLOCKS[kind]]

    saturated, bumped = judged_kind("bump", "even_sat"), judged_kind("bump", "even_bump")
    assert sum(b[0] == s[0] + 1 for s, b in zip(saturated, bumped, strict=True)) >= 12
    assert None in judged_kind("largest", "even_bump")
    assert judged_kind("bump", "quark") != saturated
    assert {shared for shared, _ in judged_kind("subnormal", "floor")} == {0}


def test_the_bump_rounds_the_whole_block_again():
    x = np.array([255, 3, 1, -1, -3, -255, 2, 0], np.float32) / 2  # 127.5, 1.5, 0.5 ... units of 1
    as_signed = {v: bfp16ebs8.pack(x, v).view(np.int8).tolist()[0] for v in bfp16ebs8.VARIANTS}
    assert as_signed == {
        "floor": [-123, 127, 1, 0, -1, -2, -128, 1, 0],  # E = 133
        "even_sat": [-123, 127, 2, 0, 0, -2, -128, 1, 0],
        "even_bump": [-122, 64, 1, 0, 0, -1, -64, 0, 0],
        "quark": [-123, 127, 2, 0, 0, -2, -127, 1, 0],
    }


def test_unpack_is_exact_for_every_byte():
    shared, q = np.arange(255), np.arange(-128, 128)
    packed = np.empty((255, 32, 9), np.uint8)
    packed[:, :, 0] = shared[:, None]
    packed[:, :, 1:] = q.astype(np.int8).view(np.uint8).reshape(32, 8)
    packed = packed.reshape(-1, 9)
    inside = ~((packed[:, 0] == 254) & (packed[:, 1] == 128))
    came = bfp16ebs8.unpack(packed[inside])
    due = np.ldexp(packed[inside, 1:].view(np.int8).astype(np.float64), packed[inside, :1].astype(int) - 133)
    assert came.dtype == np.float32
    assert came.astype(np.float64).tobytes() == (due + 0.0).tobytes()
    with pytest.raises(NumericsError, match="no float32"):
        bfp16ebs8.unpack(packed[~inside])


def test_blocks_lie_along_the_last_axis():
    x = rng.standard_normal((3, 5, 24)).astype(np.float32)
    whole = bfp16ebs8.pack(x, "even_bump")
    assert whole.shape == (45, 9)
    rows = [bfp16ebs8.pack(x[i, j, 8 * k : 8 * k + 8], "even_bump") for i, j, k in np.ndindex(3, 5, 3)]
    assert whole.tobytes() == np.concatenate(rows).tobytes()
    assert bfp16ebs8.pack(x.transpose(1, 0, 2), "floor").tobytes() == (
        bfp16ebs8.pack(np.ascontiguousarray(x.transpose(1, 0, 2)), "floor").tobytes()
    )
    again = bfp16ebs8.unpack(whole).reshape(x.shape)
    assert bfp16ebs8.pack(again, "floor").shape == whole.shape


@pytest.mark.parametrize("variant", bfp16ebs8.VARIANTS)
def test_each_block_is_its_own(variant):
    for x in BLOCKS["bump"], BLOCKS["corners"][:-1]:
        alone = np.concatenate([bfp16ebs8.pack(block, variant) for block in x])
        assert bfp16ebs8.pack(x, variant).tobytes() == alone.tobytes()


def test_no_blocks_at_all():
    assert bfp16ebs8.pack(np.empty((3, 0), np.float32), "floor").shape == (0, 9)
    assert bfp16ebs8.unpack(np.empty((0, 9), np.uint8)).shape == (0, 8)


def test_pack_leaves_its_input_alone():
    x = rng.standard_normal((4, 8)).astype(np.float32)
    before = x.copy()
    x.flags.writeable = False
    bfp16ebs8.pack(x, "even_bump")
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize("variant", bfp16ebs8.VARIANTS)
@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF])
def test_nan_and_inf_are_refused(bits, variant):
    x = np.ones((3, 8), np.float32)
    x.view(np.uint32)[1, 6] = bits
    with pytest.raises(NumericsError, match=r"NaN or Inf in block 1.*uncharacterised"):
        bfp16ebs8.pack(x, variant)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.ones(8), "float64"),
        (np.ones(8, np.float16), "float16"),
        (np.ones(8, ">f4"), ">f4"),
        (np.ones(7, np.float32), r"allowed: float32 \[..., 8 k\]"),
        (np.ones((8, 4), np.float32), r"\(8, 4\)"),
        (np.float32(1), r"float32 \(\)"),
    ],
)
def test_bad_values(x, text):
    with pytest.raises(NumericsError, match=text):
        bfp16ebs8.pack(x, "floor")


def test_bad_variant_and_bytes():
    with pytest.raises(NumericsError, match=r"unknown variant of bfp16ebs8 'even'.*allowed: floor, even_sat"):
        bfp16ebs8.pack(np.ones(8, np.float32), "even")
    for packed in (np.ones((1, 9), np.int8), np.ones((1, 8), np.uint8), np.ones(9, np.uint8)):
        with pytest.raises(NumericsError, match=r"allowed: uint8 \[n, 9\]"):
            bfp16ebs8.unpack(packed)
    with pytest.raises(NumericsError, match="byte 255"):
        bfp16ebs8.unpack(np.array([[255, 1, 0, 0, 0, 0, 0, 0, 0]], np.uint8))
