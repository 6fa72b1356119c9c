"""Judges that share nothing with us: ml_dtypes for half_even, gfloat for every mode that it has."""

from __future__ import annotations

import gfloat
import gfloat.formats as gf
import ml_dtypes
import numpy as np
import pytest

import numerics as nx
from tests.helpers.inputs import edges

COUNT = 1 << 22

ML_DTYPES = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e3m4": ml_dtypes.float8_e3m4,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4": ml_dtypes.float4_e2m1fn,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


def mixed() -> np.ndarray:
    """Half random bits, half numbers near one, and the edges."""
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 1 << 32, COUNT // 2, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = rng.standard_normal(COUNT // 2).astype(np.float32) * np.exp2(rng.integers(-12, 12, COUNT // 2))
    return np.concatenate([bits, near.astype(np.float32), edges()])


X = mixed()


@pytest.mark.parametrize("name", ML_DTYPES)
def test_half_even_equals_ml_dtypes(name):
    """NaN apart: NumPy and ml_dtypes keep payloads, and write a zero for NaN in fp6 and fp4."""
    d, x = nx.dtype(name), X[~np.isnan(X)]
    with np.errstate(all="ignore"):
        due = x.astype(ML_DTYPES[name]).view(d.code_dtype)
    overflow = d.overflows[-1]
    assert np.array_equal(d.encode(x, overflow=overflow), due)
    codes = np.arange(1 << d.bits).astype(d.code_dtype)
    values, due = d.decode(codes), codes.view(ML_DTYPES[name]).astype(np.float32)
    assert np.array_equal(np.isnan(values), np.isnan(due))
    real = ~np.isnan(values)
    assert np.array_equal(values[real].view(np.uint32), due[real].view(np.uint32))


def test_e8m0_equals_ml_dtypes_where_that_rounds_to_nearest():
    """ml_dtypes sends every tie up, and float32's subnormals above 2**-127 to code 1 (from 1 on).

    Ours are ties to the even code; so half_up is compared, and that subnormal range left out.
    """
    x = X[~np.isnan(X)]
    x = x[(x <= 0) | (x >= 2.0**-126)]
    with np.errstate(all="ignore"):
        due = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    assert np.array_equal(nx.e8m0.encode(x, rounding="half_up"), due)


GFLOAT = {
    "fp8_e4m3": gf.format_info_ocp_e4m3,
    "fp8_e5m2": gf.format_info_ocp_e5m2,
    "fp6_e3m2": gf.format_info_ocp_e3m2,
    "fp6_e2m3": gf.format_info_ocp_e2m3,
    "fp4": gf.format_info_ocp_e2m1,
    "float16": gf.format_info_binary16,
    "bfloat16": gf.format_info_bfloat16,
}
MODES = {
    "half_even": gfloat.RoundMode.TiesToEven,
    "half_away": gfloat.RoundMode.TiesToAway,
    "toward_zero": gfloat.RoundMode.TowardZero,
    "floor": gfloat.RoundMode.TowardNegative,
    "ceil": gfloat.RoundMode.TowardPositive,
}


@pytest.mark.turns(18)
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("name", GFLOAT)
def test_deterministic_modes_equal_gfloat(name, rounding):
    """Values, on all 4M patterns; saturating, and not where the format can."""
    d, x = nx.dtype(name), X[np.isfinite(X)]
    for overflow in d.overflows:
        if overflow == "nonsaturate" and rounding in ("toward_zero", "floor", "ceil"):
            continue  # gfloat overflows whatever the direction; IEEE 754-2019 §7.4 does not
        with np.errstate(all="ignore"):
            due = gfloat.round_ndarray(
                GFLOAT[name], x.astype(np.float64), MODES[rounding], overflow == "saturate"
            ).astype(np.float32)
        came = d.round(x, rounding=rounding, overflow=overflow)
        wrong = (came.view(np.uint32) != due.view(np.uint32)) & ~(np.isnan(came) & np.isnan(due))
        assert not wrong.any(), (x[wrong][:3], came[wrong][:3], due[wrong][:3])


@pytest.mark.turns
@pytest.mark.parametrize("name", GFLOAT)
def test_stochastic_with_given_bits_equals_gfloat(name):
    d, x = nx.dtype(name), X[np.isfinite(X)]
    bits = np.random.default_rng(4).integers(0, 1 << 30, x.size)
    with np.errstate(all="ignore"):
        due = gfloat.round_ndarray(
            GFLOAT[name], x.astype(np.float64), gfloat.RoundMode.StochasticFastest, True, bits, 30
        ).astype(np.float32)
    came = d.round(x, rounding="stochastic", overflow="saturate", random_bits=bits.astype(np.uint32))
    wrong = came.view(np.uint32) != due.view(np.uint32)
    assert not wrong.any(), (x[wrong][:3], bits[wrong][:3], came[wrong][:3], due[wrong][:3])
