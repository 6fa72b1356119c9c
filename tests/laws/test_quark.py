"""Outputs of AMD Quark 0.13 (MIT), executed elsewhere and stored in tests/data/quark.json.

What docs/formats.md says should agree does, bit for bit.  What differs on purpose is named with its
reason, and the test fails when such a vector begins to agree.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import numerics as nx

DATA = json.loads((Path(__file__).parents[1] / "data" / "quark.json").read_text(encoding="utf-8"))
ROUNDINGS = {"rm0": "half_away", "rm1": "half_up", "rm2": "half_even"}

ZERO_SIGN = (
    "Quark's MX and BFP write +0 where we keep the sign of a zero or of what becomes zero, docs/formats.md §2"
)
INF = "Quark lets Inf and NaN through one by one; here the block becomes NaN (docs/formats.md §4, §5)"
LOG2 = "Quark's float log2 rounds up next to a power of two; exponents are exact here (docs/formats.md §4)"
RANGE = "Quark's scales leave 2**-127 .. 2**127 or flush subnormals; here clamped (docs/formats.md §4)"
BUMP = "Quark's BFP16 raises the exponent when the largest rounds up; here it saturates (blocks.py: bfp16)"
OLD = "amd-quark 0.6: a clamp one bit loose, kept for an adapter's legacy mode only (docs/formats.md §5)"


def array(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32).view(np.float32)


def vectors(*formats: str) -> list:
    return [pytest.param(v, id=v["id"]) for v in DATA["vectors"] if v["format"] in formats]


def ours(v: dict) -> np.ndarray:
    """The same call on this package."""
    params, x = v["params"], array(v["input"])
    if "shape" in params:
        x = x.reshape(params["shape"])
    axis = params.get("axis", -1)
    options = {"axis": axis}
    if v["format"] == "mx":
        dtype = nx.mx(params["mx_element_dtype"], params["block_size"])
        options["scale_rule"] = params["scale_calculation_mode"]
    else:
        dtype = nx.dtype(v["format"])
        options["rounding"] = next((r for k, r in ROUNDINGS.items() if f"/{k}/" in v["id"]), "half_even")
    return dtype.round(x, **options).ravel()


def differences(came: np.ndarray, due: np.ndarray) -> tuple[int, int]:
    """How many values differ, and how many zeros differ in their sign only."""
    same = (np.isnan(came) & np.isnan(due)) | (came.view(np.uint32) == due.view(np.uint32))
    zeros = ~same & (came == 0) & (due == 0)
    return int((~same & ~zeros).sum()), int(zeros.sum())


# Every vector whose values differ, and why.
ON_PURPOSE = {
    "bfp16/round_up_saturates": BUMP,
    "mx/fp4/ceil/subnormals": RANGE,
    "mx/fp4/even/max_float": RANGE,
    "mx/fp4/floor/just_below_2^10": LOG2,
    "mx/fp6_e2m3/ceil/subnormals": RANGE,
    "mx/fp6_e2m3/even/max_float": RANGE,
    "mx/fp6_e3m2/floor/subnormals": RANGE,
    "mx/fp8_e4m3/ceil/subnormals": RANGE,
    "mx/fp8_e4m3/even/one_inf": INF,
    "mx/fp8_e4m3/floor/just_below_2^5": LOG2,
    "mx/fp8_e4m3/floor/max_float": RANGE,
    "mx/fp8_e4m3/floor/subnormals": RANGE,
    "mx/fp8_e5m2/floor/max_float": RANGE,
    "mx/fp8_e5m2/floor/subnormals": RANGE,
    "mx/int8/ceil/max_float": RANGE,
    "mx/int8/ceil/subnormals": RANGE,
    "mx/int8/ceil/tiny_normals": RANGE,
    "mx/int8/even/subnormals": RANGE,
    "mx6/neg_inf_and_nan": INF,
    "onnx_bfp16/rm0/compiler1/one_inf": INF,
    "onnx_bfp16/rm1/compiler0/one_inf": INF,
    "onnx_bfp16/rm1/compiler1/one_inf": INF,
    "onnx_bfp16/rm1/compiler1/round_up_saturates": BUMP,
    "onnx_bfp16/rm2/compiler0/one_inf": INF,
    "onnx_bfp16/rm2/compiler1/max_float": BUMP,
}


@pytest.mark.parametrize("v", vectors("mx", "mx4", "mx6", "mx9", "bfp16"))
def test_blocks(v):
    if "quark060" in v["id"]:
        pytest.skip(OLD)
    values, zeros = differences(ours(v), array(v["output"]))
    assert (values > 0) == (v["id"] in ON_PURPOSE), ON_PURPOSE.get(v["id"], "differs, for no known reason")
    keeps_zeros = v["format"] in ("mx6", "mx9") and not v["id"].startswith("onnx")
    assert zeros == 0 or not keeps_zeros, ZERO_SIGN


UNBOUNDED = {"onnx_bfp16/rm2/compiler1/max_float": RANGE}


@pytest.mark.parametrize("v", [p for p in vectors("bfp16") if "compiler0" not in p.id])
@pytest.mark.parametrize("backend", ["array", "cpu", "ipu", "interpreter", "reference"])
def test_the_rule_bump_is_quarks(v, backend):
    """Codes that round past 127 raise the exponent in these kernels, and bfp16 was said to be theirs."""
    if v["id"].endswith("one_inf") or v["id"] in UNBOUNDED:
        pytest.skip(INF + "; " + RANGE)
    x = array(v["input"])
    if "onnx" not in v["id"]:
        x = x.reshape(-1, 8)
    rounding = next((r for k, r in ROUNDINGS.items() if f"/{k}/" in v["id"]), "half_even")
    with nx.use(backend):
        came = nx.bfp16.round(x, rounding=rounding, scale_rule="bump").ravel()
    values, _ = differences(came, array(v["output"]))
    assert values == 0


def test_the_rule_bump_is_not_floor():
    v = next(v for v in DATA["vectors"] if v["id"] == "bfp16/round_up_saturates")
    x, due = array(v["input"]), array(v["output"])
    assert differences(nx.bfp16.round(x), due)[0] > 0
    assert nx.bfp16.round(-x, scale_rule="bump").min() == -2.0  # -128 is a code, and needs no other scale
    assert nx.bfp16.encode(-x, scale_rule="bump").scale == nx.bfp16.encode(x).scale


@pytest.mark.parametrize("v", [p for p in vectors("mx6", "mx9") if "codes" in p.values[0]])
def test_microexponent_fields(v):
    """The codes, exponents and microexponents, where Quark gives them."""
    made = nx.dtype(v["format"]).encode(array(v["input"]))
    m = made.dtype.mantissa
    magnitude = (made.codes & ((1 << m) - 1)).astype(int)
    assert np.where(made.codes >> m, -magnitude, magnitude).tolist() == v["codes"][: made.codes.size]
    assert made.scale.tolist() == [v["block_exp_unbiased"] + 127]
    assert made.microexponents.tolist() == [v["subblock_shift_bits"]]


@pytest.mark.parametrize("v", vectors("bfloat16", "float16"))
def test_plain_casts(v):
    assert differences(nx.dtype(v["format"]).round(array(v["input"])), array(v["output"])) == (0, 0)


@pytest.mark.parametrize(
    "v", [p for p in vectors("fp4", "fp6_e2m3", "fp6_e3m2", "fp8_e4m3", "fp8_e5m2") if "lowfp" in p.id]
)
def test_small_floats(v):
    """All but Inf and NaN, which Quark lets through, and the sign of what becomes zero."""
    x = array(v["input"])
    finite = np.isfinite(x)
    values, _ = differences(nx.dtype(v["format"]).round(x)[finite], array(v["output"])[finite])
    assert values == 0
