"""The judge by look-up against the judge by fractions, one number at a time."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.backends.host.executor import BlockFields
from numerics.backends.reference import lookup
from numerics.backends.reference.binary32 import QuantParams
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.formats.rounding import DETERMINISTIC, ROUNDINGS, BlockOptions, Draw
from tests.helpers.bits import assert_same_bits
from tests.helpers.dtypes import BLOCKS, DECLARED, DECLARED_BLOCKS, ELEMENTS
from tests.helpers.inputs import edges

EXACT = ReferenceExecutor()
pytestmark = pytest.mark.usefixtures("exact_judge")
DRAWS = np.array([0, 1, 5, 1 << 28, (1 << 29) - 1, 1 << 29, 3 << 28, (1 << 30) - 1, 1 << 30], np.uint32)
SCALES = (None, 0.37, 1e-38, 3e38)


def rows(block, count, rng):
    """Blocks that matter: specials, zeros, every magnitude, and neighbours of one magnitude."""
    x = rng.choice(edges(random=200), (count, block))
    x[4:] = np.where(np.isfinite(x[4:]), x[4:], np.float32(1))
    near = np.exp2(rng.integers(-140, 120, (count // 2, 1))) * rng.standard_normal((count // 2, block))
    x[: count // 2] = near.astype(np.float32)
    x[0], x[1], x[2, 0], x[3, -1] = 0, -0.0, np.nan, -np.inf
    return x


@pytest.mark.turns(18)
@pytest.mark.parametrize("dtype", ELEMENTS + DECLARED, ids=str)
def test_stochastic_elements(dtype):
    rng = np.random.default_rng(0)
    x = rng.choice(edges(random=200), 800)
    draws = rng.choice(DRAWS, x.size)
    for overflow in dtype.overflows:
        due = EXACT.encode(x, dtype, "stochastic", overflow, draws)
        assert_same_bits(lookup.encode(x, dtype, "stochastic", overflow, draws), due, x)


@pytest.mark.turns(30)
@pytest.mark.parametrize("dtype", BLOCKS + DECLARED_BLOCKS, ids=str)
def test_encoded_blocks(dtype):
    rng = np.random.default_rng(1)
    rules = dtype.scale_rules
    options = [(rounding, rule) for rounding in ROUNDINGS for rule in rules]
    for i, (rounding, rule) in enumerate(options):
        x = rows(dtype.block, 12, rng)
        draws = None if rounding in DETERMINISTIC else rng.choice(DRAWS, x.shape)
        whole = SCALES[i % 4] if isinstance(dtype, nx.ScaledBlock) else None
        asked = BlockOptions(rule, rounding, whole, Draw(bits=draws))
        came, due = lookup.encode_blocks(x, dtype, asked), EXACT.encode_blocks(x, dtype, asked)
        for field, right in zip(came, due, strict=True):
            assert (field is None) == (right is None)
            if right is not None:
                assert_same_bits(field, right, on=f"{rounding} {rule} {whole}")


@pytest.mark.turns
@pytest.mark.parametrize("dtype", BLOCKS + DECLARED_BLOCKS, ids=str)
def test_decoded_blocks(dtype):
    rng, d = np.random.default_rng(2), dtype
    codes = rng.integers(0, 1 << d.element_bits, (256, d.block)).astype(d.code_dtype)
    scale = (np.arange(256) % (1 << d.scale_bits)).astype(np.uint8)
    micro = rng.integers(0, 1 << d.sub_blocks, 256).astype(np.uint8) if d.sub_blocks else None
    for whole in SCALES if isinstance(d, nx.ScaledBlock) else (None,):
        came = lookup.decode_blocks(BlockFields(codes, scale, micro), d, whole)
        due = EXACT.decode_blocks(codes, scale, micro, whole, d)
        assert came.tobytes() == due.tobytes(), whole


@pytest.mark.turns(18)
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("dtype", [nx.int4, nx.uint8, nx.int16], ids=str)
def test_integers_with_a_scale_and_an_offset(dtype, rounding):
    rng = np.random.default_rng(0)
    for scale in (0.5, 0.1, 2.0**-130, 1e36):
        for zero in (0, 3, dtype.max, np.float32(0.25).item(), -7.5):
            shared = QuantParams(np.float32(scale).item(), zero)
            halves = np.arange(-40, 40, dtype=np.float32) / 2 * np.float32(scale)
            specials = np.float32([np.nan, np.inf, -np.inf, -0.0])
            x = np.concatenate([halves, rng.choice(edges(random=200), 60), specials])
            due = [shared.quantize(v, dtype, rounding) % (1 << dtype.bits) for v in x.tolist()]
            assert_same_bits(
                lookup.encode_affine(x, shared, dtype, rounding), np.array(due, dtype.code_dtype)
            )
            codes = np.arange(-8, 9)
            values = np.float32([float(shared.dequantize(int(q))) for q in codes])
            assert_same_bits(lookup.decode_affine(codes, shared), values)
