"""Rules by which scales are found, against the formulas of those who made them, by fractions."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import numerics as nx
from numerics.files.checkpoint import quantize_file
from numerics.formats.registry import dtypes
from numerics.formats.rounding import FULL_RANGE, SCALE_RULES
from numerics.observe import MinMax
from tests.helpers.float_scales import blocks, floor_log2

MX = [d for d in nx.dtypes() if isinstance(d, nx.MXBlock) and d.block == 32]


def tosa(d: nx.MXBlock, amax: float) -> int:
    """TOSA's calc_block_scale: e4m3 has a limit of its own, above which the exponent is one more."""
    a = Fraction(amax)
    if d.element is nx.fp8_e4m3:
        exponent = floor_log2(a / 464)
        exponent += Fraction(2) ** exponent != a / 464
    else:
        largest = Fraction(d.element.max) * Fraction(d.element_unit)
        digits = getattr(d.element, "mantissa", d.element.bits - 2)
        ulp = Fraction(2) ** (floor_log2(largest) - digits)
        exponent = floor_log2(a / (largest + ulp / 2)) + 1
    return min(max(exponent, -127), 127) + 127


def maxima() -> np.ndarray:
    """Around every significand on which an element's rule may turn, in binades at both ends, and any."""
    turns = np.array([464 / 256, 1.75, 1.9375, 1.96875, 255 / 128, 1.875, 1.0]) * (1 << 23)
    bits = [(e << 23) + int(t) - (1 << 23) for e in (1, 2, 3, 100, 127, 200, 253, 254) for t in turns]
    subnormal = [1, 2, *(int(t) >> 1 for t in turns), 0x7FFFFF]
    near = np.array([*bits, *subnormal])[:, None] + [-1, 0, 1]
    some = np.random.default_rng(0).integers(1, 0x7F800000, 200)
    return np.unique(np.clip(np.append(near, some), 1, 0x7F7FFFFF)).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("d", MX, ids=repr)
def test_tosa_is_the_formula_of_its_specification(executor, d):
    x = maxima()
    scale = d.encode(x.reshape(-1, 1), scale_rule="tosa").scale.ravel()
    due = np.array([tosa(d, float(a)) for a in x], np.uint8)
    assert np.array_equal(scale, due), x[scale != due][:4]


# ---- float scales: docs/formats.md §8 --------------------------------------------------------------

E4M3 = np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def transformer_engine(x: np.ndarray, tensor_scale: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Scales and elements in the order of its reference for blocks of 1 x 16, casts by ml_dtypes."""
    largest, one = np.finfo(np.float32).max, np.float32(1)
    with np.errstate(all="ignore"):
        encode_scale = np.minimum(one / tensor_scale, largest)
        wanted = np.abs(x).max(axis=1, keepdims=True) * (encode_scale * (one / np.float32(6)))
        scale = np.minimum(wanted, np.float32(448)).astype(ml_dtypes.float8_e4m3fn)
        inverse = np.minimum(one / (scale.astype(np.float32) * tensor_scale), largest)
        y = np.clip(x * inverse, np.float32(-6), np.float32(6))
    return scale.view(np.uint8), y.astype(ml_dtypes.float4_e2m1fn).view(np.uint8)


@pytest.mark.parametrize("given", [None, 1.0, 0.0123, 3e-39, 1e30])
def test_nvidia_is_the_order_of_transformer_engine(executor, given):
    x = blocks()
    made = nx.nvfp4.encode(x, scale_rule="nvidia", tensor_scale=given)
    if given is None:
        encode_scale = np.float32(448 * 6) / np.abs(x).max()
        assert made.tensor_scale == np.float32(1) / encode_scale
    scale, codes = transformer_engine(x, np.float32(made.tensor_scale))
    assert np.array_equal(made.scale, scale), np.argwhere(made.scale != scale)[:4]
    assert np.array_equal(made.codes, codes), np.argwhere(made.codes != codes)[:4]


def test_ceil_takes_the_least_scale_under_which_nothing_clips(executor):
    x = blocks()
    made = nx.nvfp4.encode(x, scale_rule="ceil", tensor_scale=0.5)
    due = [np.searchsorted(E4M3, float(Fraction(float(a)) / 6 / Fraction(1, 2))) for a in np.abs(x).max(1)]
    near = np.abs(x).max(1) / np.float32(6) / np.float32(0.5)  # one rounding of float32 before
    due = np.where(np.isin(near, E4M3), np.searchsorted(E4M3, near), due)
    assert np.array_equal(made.scale.ravel(), np.minimum(due, 126))


def errors(x: np.ndarray, total: np.ndarray, power: int) -> np.ndarray:
    """The error of each block by float64, elements nearest: ties cost the same either way."""
    with np.errstate(all="ignore"):
        y = np.where(total > 0, np.abs(x.astype(np.float64)) / np.where(total > 0, total, 1), 0)
    nearest = np.abs(y[..., None] - FP4).min(axis=-1) * total
    return (np.where(total > 0, nearest, np.abs(x)) ** power).sum(axis=1)


@pytest.mark.parametrize(("rule", "power"), [("four_over_six", 2), ("four_over_six_mae", 1)])
def test_four_over_six_takes_the_scale_with_less_error(executor, rule, power):
    x = blocks()
    made = nx.nvfp4.encode(x, scale_rule=rule)
    assert made.tensor_scale == np.abs(x).max() / np.float32(6 * 256)
    wanted = np.abs(x).max(axis=1, keepdims=True) / np.float32(6) / np.float32(made.tensor_scale)
    six, four = ((wanted * np.float32(f)).astype(ml_dtypes.float8_e4m3fn) for f in (1, 1.5))
    to_six, to_four = (errors(x, s.astype(np.float64) * made.tensor_scale, power) for s in (six, four))
    chosen = np.where(to_four < to_six, four.view(np.uint8).ravel(), six.view(np.uint8).ravel())
    decided = np.abs(to_four - to_six) > 1e-5 * to_six
    assert decided.mean() > 0.9
    assert 0.2 < (to_four < to_six).mean() < 0.8
    assert np.array_equal(made.scale.ravel()[decided], chosen[decided])


def test_four_over_six_leaves_a_tie_to_six(executor):
    made = nx.nvfp4.encode(np.float32([[6.0, 1.0, 2.0]]), scale_rule="four_over_six", tensor_scale=1.0)
    assert made.scale.tolist() == [[0x38]]
    assert made.codes.tolist() == [[7, 2, 4]]


def test_mse_finds_the_least_error_of_all_codes(executor):
    x = blocks(seed=1)
    made = nx.nvfp4.encode(x, scale_rule="mse")
    every = np.stack([errors(x, np.full((len(x), 1), v * made.tensor_scale), 2) for v in E4M3])
    came = every[made.scale.ravel(), np.arange(len(x))]
    assert np.all(came <= every.min(axis=0) * (1 + 1e-5) + 1e-30)
    assert np.mean(made.scale != nx.nvfp4.encode(x).scale) > 0.3


def test_a_rule_of_floats_is_refused_by_other_formats():
    for d, rule, said in (
        (nx.mxfp4, "nvidia", "allowed: floor, ceil, even, rceil, tosa, bump"),
        (nx.nvfp4, "even", "allowed: floor, ceil, nvidia, mse, four_over_six, four_over_six_mae"),
        (nx.nvint4, "four_over_six", "allowed: floor, ceil, nvidia, mse"),
        (nx.mx6, "mse", "is for float scales"),
    ):
        with pytest.raises(nx.NumericsError, match=said):
            d.encode([1.0], scale_rule=rule)


def test_observers_and_streams_find_the_tensor_scale_of_the_rule(tmp_path):
    x = blocks()
    for rule in nx.nvfp4.scale_rules:
        spec = nx.QuantSpec("nvfp4", scale_rule=rule)
        due = nx.quantize(x, spec)
        watching = MinMax(spec)
        watching.observe(x)
        assert watching.tensor_scale == due.tensor_scale, rule
        save_file({"w": x}, tmp_path / "x.safetensors")
        quantize_file(tmp_path / "x.safetensors", tmp_path / "q.safetensors", "nvfp4", scale_rule=rule)
        q = nx.load(tmp_path / "q.safetensors")["w"]
        assert q.tensor_scale == due.tensor_scale, rule
        assert np.array_equal(q.packed, due.packed), rule


# ---- integers: docs/formats.md §6 --------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["per_tensor()", "per_channel(0)", "per_group(7)"])
@pytest.mark.parametrize("name", ["int8", "int4", "int2"])
def test_full_range_divides_by_half_of_the_range(executor, name, scheme):
    x = blocks(rows=40)
    q = nx.quantize(x, name, scheme=scheme, scale_rule="full_range")
    d = nx.dtype(name)
    half = Fraction(int(d.max - d.min), 2)
    share = {"per_tensor()": 640, "per_channel(0)": 16, "per_group(7)": 7}[scheme]
    shape = {"per_tensor()": (), "per_channel(0)": (40,), "per_group(7)": (40, 3)}[scheme]
    lines = x.reshape(1, -1) if share == 640 else np.pad(x, ((0, 0), (0, -16 % share)))
    amax = np.abs(lines).reshape(-1, share).max(axis=1)
    due = np.where(amax == 0, np.float32(1), amax / np.float32(half))
    assert np.array_equal(q.scale, due.reshape(shape))
    spread = np.repeat(due, share).reshape(lines.shape)[:, : x.size if share == 640 else 16].reshape(x.shape)
    codes = np.clip(np.rint(x / spread), d.min, d.max)
    assert np.array_equal(q.dequantize(), (codes * spread).astype(np.float32) + np.float32(0))
    assert (codes == d.min).any()
    assert np.array_equal(nx.fake_quantize(x, q.spec), q.dequantize())


def test_every_format_says_which_rules_it_takes():
    """Formats of single numbers had no `scale_rules`: an AttributeError."""
    for d in dtypes():
        where = {} if d.kind == "block" else {"scheme": nx.per_channel(0)}
        for rule in (*SCALE_RULES, FULL_RANGE):
            if rule in d.scale_rules:
                assert nx.QuantSpec(d, scale_rule=rule, **where).scale_rule == rule
            else:
                with pytest.raises(nx.NumericsError, match="scale_rule"):
                    nx.QuantSpec(d, scale_rule=rule, **where)


def test_full_range_is_said_kept_and_refused(tmp_path):
    x = blocks()
    spec = nx.QuantSpec("int8", scale_rule="full_range")
    assert nx.QuantSpec.parse(spec.text) == spec
    watching = MinMax(spec)
    watching.observe(x)
    assert watching.scale == nx.quantize(x, spec).scale
    save_file({"w": x}, tmp_path / "x.safetensors")
    quantize_file(tmp_path / "x.safetensors", tmp_path / "q.safetensors", "int8", scale_rule="full_range")
    q = nx.load(tmp_path / "q.safetensors")["w"]
    assert q.spec == spec
    assert np.array_equal(q.packed, nx.quantize(x, spec).packed)
    assert (
        nx.transcode(nx.quantize(x[:1], "int4", scale_rule="full_range"), "fp8_e4m3").spec.scale_rule
        == "floor"
    )
    for dtype, symmetric in ((nx.uint8, True), (nx.fp4, True), (nx.int8, False), (nx.mxint8, True),
                             (nx.integer_format(8, narrow=True), True)):  # fmt: skip
        with pytest.raises(nx.NumericsError, match="scale_rule='full_range' cannot be; it is of symmetric"):
            nx.QuantSpec(dtype, symmetric=symmetric, scale_rule="full_range")
    with pytest.raises(nx.NumericsError, match="int8: scale_rule='even' cannot be"):
        nx.QuantSpec("int8", scale_rule="even")
    with pytest.raises(
        nx.NumericsError, match=r"nx.observe has scales.*; allowed here: scale_rule='full_range'"
    ):
        nx.quantize(x, "int4", scale_rule="mse")
