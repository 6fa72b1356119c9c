"""HiFloat4 is what its authors' words make of a block, and lies in memory as CANN reads it."""

from __future__ import annotations

from functools import partial

import ml_dtypes
import numpy as np
import pytest

import numerics as nx
from numerics.backends.reference.executor import ReferenceExecutor
from tests.helpers.bits import assert_same_bits
from tests.helpers.executors import EXECUTORS

F32 = np.float32


def bf16(x):
    return np.asarray(x, F32).astype(ml_dtypes.bfloat16).astype(F32)


def e6m2(x: float) -> float:
    """To three digits, half to even, within 2**-48 and 1.5 * 2**15."""
    x = min(max(float(x), 2.0**-48), 49152.0)
    step = 2.0 ** (np.floor(np.log2(x)) - 2)
    return float(np.round(x / step) * step)


def by_the_words(block: np.ndarray) -> np.ndarray:
    """The values of 64 numbers (arXiv 2602.11287, its authors' code), ties of elements away from zero."""
    a = np.abs(block).astype(F32)
    scale = e6m2(bf16(a.max() * bf16(F32(1) / F32(7))))
    y = a * bf16(F32(1) / F32(scale))
    eights = np.repeat(y.reshape(8, 8).max(1) >= 4, 8)
    fours = np.repeat((y / (1 + eights)).reshape(16, 4).max(1) >= 2, 4)
    worth = (1 + eights) * (1.0 + fours)
    quarters = np.minimum(np.floor(y / worth * 4 + 0.5), 7) / 4
    return np.copysign(quarters * worth * scale, block).astype(F32)


def read_by_cann(packed: np.ndarray) -> np.ndarray:
    """36 bytes: nibbles of E1M2, then a word: E6M2, a bit for each eight, a bit for each four."""
    held = packed[:32]
    nibbles = np.stack([held & 15, held >> 4], 1).reshape(64)
    word = int(packed[32:].view("<u4")[0])
    scale = 2.0 ** ((word & 0xFF) >> 2) * 2.0**-48 * (1 + (word & 3) / 4)
    ups = [(word >> (8 + k // 8) & 1) + (word >> (16 + k // 4) & 1) for k in range(64)]
    values = (nibbles & 7) / 4 * 2.0 ** np.array(ups) * scale
    return np.where(nibbles >> 3 == 1, -values, values).astype(F32)


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Numbers over some binades, and blocks whose parts differ much."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 64)) * np.exp2(rng.integers(-40, 14, (count, 1)))
    x *= np.repeat(np.exp2(rng.integers(-4, 1, (count, 16))), 4, axis=1)
    x[::7] = np.round(x[::7] * 4) / 4
    return x.astype(F32)


def test_values_are_those_of_its_authors():
    x = rows(2000)
    due = np.stack([by_the_words(row) for row in x])
    assert_same_bits(nx.hifloat4.round(x, rounding="half_away"), due)
    packed = nx.hifloat4.pack(nx.hifloat4.encode(x, rounding="half_away")).reshape(-1, 36)
    assert_same_bits(np.stack([read_by_cann(row) for row in packed]), due)


SEVENTHS = [7 * scale * (1 + sign * 2.0**-p) for scale in (1.0, 1.125, 1.25, 1.375, 1.625, 1.875, 49152.0)
            for sign in (-1, 0, 1) for p in (7, 8, 9, 24)]  # fmt: skip


@pytest.mark.parametrize(
    "rounding", ["half_even", "half_away", "toward_zero", "ceil", "to_odd", "stochastic"]
)
def test_every_executor_is_the_judge(rounding):
    x = np.concatenate([rows(40, 1), np.zeros((len(SEVENTHS) + 6, 64), F32)])
    x[40 : 40 + len(SEVENTHS), 5] = SEVENTHS
    x[40 : 40 + len(SEVENTHS), 40:48] = np.float32(SEVENTHS)[:, None] / 3
    x[-6, 3], x[-5, 3], x[-4], x[-3], x[-2], x[-1, 0] = np.nan, np.inf, -0.0, 1e-45, 3e38, -1e-30
    options = {"rounding": rounding} | ({"seed": 5} if rounding == "stochastic" else {})
    with nx.use("reference"):
        due = nx.hifloat4.encode(x, **options)
        values = nx.hifloat4.decode(due)
    for name in EXECUTORS:
        with nx.use(name):
            came = nx.hifloat4.encode(x, **options)
            for part in ("codes", "scale", "microexponents"):
                assert_same_bits(getattr(came, part), getattr(due, part), on=f"{name} {part}")
            assert_same_bits(nx.hifloat4.decode(came), values, on=name)
            assert_same_bits(nx.hifloat4.round(x, **options), values, on=name)
            across = nx.hifloat4.encode(np.ascontiguousarray(x.T), axis=0, rounding="half_even")
            assert_same_bits(across.codes.T, nx.hifloat4.encode(x).codes, on=name)
            back = nx.hifloat4.unpack(nx.hifloat4.pack(came), x.shape)
            assert_same_bits(back.microexponents, came.microexponents, on=name)


def test_every_code_at_every_scale():
    """Decoding: 256 scales, microexponents of every place, every code."""
    codes = np.tile(np.arange(16, dtype=np.uint8), (256, 4))
    scale = np.arange(256, dtype=np.uint8)
    for micro in (0, 0xFFFFFF, *(1 << k for k in range(24))):
        made = nx.Blocks(nx.hifloat4, -1, codes, scale[:, None], np.full((256, 1), micro, np.uint32))
        with nx.use("reference"):
            due = nx.hifloat4.decode(made)
        packed = nx.hifloat4.pack(made).reshape(-1, 36)
        assert_same_bits(due[:255], np.stack([read_by_cann(row) for row in packed[:255]]))
        assert np.isnan(due[255]).all()
        for name in EXECUTORS:
            with nx.use(name):
                assert_same_bits(nx.hifloat4.decode(made), due, on=name)


def test_the_judge_knows_a_wrong_microexponent():
    """Microexponents of 24 bits were cut to 16 where the judge took them."""
    judged = partial(nx.conform.check, dtype="hifloat4", effort="quick")
    assert judged(nx.hifloat4.encode, kind="encode")

    def wrong(x):
        made = nx.hifloat4.encode(x)
        micro = np.where(made.scale == 255, 0, np.asarray(made.microexponents) ^ np.uint32(1 << 23))
        return nx.Blocks(nx.hifloat4, made.axis, made.codes, made.scale, micro)

    verdict = judged(wrong, kind="encode")
    assert not verdict
    assert "law microexponents" in str(verdict)

    def decoded(codes, scale, micro):
        return nx.hifloat4.decode(nx.Blocks(nx.hifloat4, -1, codes, scale, micro))

    assert judged(decoded, kind="decode")
    assert not judged(lambda c, s, m: decoded(c, s, m & np.uint32(0xFFFF)), kind="decode")


FACTS = [(2, 1, 1), (4, 2, 2), (4, 1, 4), (16, 1, 3), (16, 8, 8)]


@pytest.mark.parametrize("facts", FACTS, ids=str)
def test_blocks_of_two_tiers_are_whole_bytes_in_any_size(facts):
    """Codes that do not fill their bytes were one byte too long, so that nothing could be unpacked."""
    block, sub_block, mantissa = facts
    d = nx.TieredBlock(name="mine", block=block, mantissa=mantissa, sub_block=sub_block)
    _come_back(d, rows(5)[:, :block].copy())


def _come_back(d, x):
    with nx.use("reference"):
        made = d.encode(x)
    due = ReferenceExecutor().pack_blocks(made.codes, made.scale[:, 0], made.microexponents[:, 0], d)
    assert due.size == len(x) * d.bytes_per_block
    for name in EXECUTORS:
        with nx.use(name):
            packed = d.pack(made)
            assert_same_bits(packed, due, on=name)
            back = d.unpack(packed, x.shape)
            for part in ("codes", "scale", "microexponents"):
                assert_same_bits(getattr(back, part), getattr(made, part), on=f"{name} {part}")


@pytest.mark.parametrize("kind", [nx.MicroexponentBlock, nx.TieredBlock])
def test_codes_of_16_bits_come_back_from_their_bytes(kind):
    """The upper byte was lost: packing kept the lower ones of mantissa=15."""
    d = kind(name="mine", block=8, mantissa=15, sub_block=2)
    _come_back(d, rows(5)[:, :8].copy())


def test_what_blocks_of_two_tiers_cannot_be():
    with pytest.raises(nx.NumericsError, match="powers of two"):
        nx.TieredBlock(name="mine", block=64, mantissa=3, sub_block=2)
    with pytest.raises(nx.NumericsError, match="16777216 is outside"):
        nx.hifloat4.decode(
            nx.Blocks(nx.hifloat4, 0, np.zeros(64, np.uint8), np.uint8([3]), np.uint32([1 << 24]))
        )
    small = nx.TieredBlock(name="small", block=8, mantissa=3, sub_block=2)
    x = rows(3)[:, :8].copy()
    with nx.use("reference"):
        due = small.round(x)
    for name in EXECUTORS:
        with nx.use(name):
            assert_same_bits(small.round(x), due, on=name)
            assert_same_bits(small.unpack(small.pack(small.encode(x)), x.shape).decode(), due, on=name)


def test_a_block_of_any_integer_is_one_format():
    """NumPy's integer stood in the name as NumPy prints it, which made it another format."""
    made = nx.block_format(element="fp4", block=np.int64(24))
    assert made is nx.block_format(element="fp4", block=24)
    assert made.name == "block24_fp4_e8m0"
