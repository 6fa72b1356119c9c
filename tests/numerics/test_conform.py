"""Has the judge teeth, and does it bite the right one?  Planted faults, each caught and named."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.conform import check
from numerics.conform.laws import everything
from numerics.formats.rounding import DETERMINISTIC, MX_RULES
from tests.helpers.company import PASSED, of_sixteen_seeds
from tests.helpers.dtypes import DECLARED, DECLARED_BLOCKS
from tests.helpers.faults import FAULTS, e4m3
from tests.helpers.places import (
    BY_ERROR,
    MISSED,
    STATEFUL,
    UNSEEN,
    in_halves,
    least_error,
    reads_by,
)
from tests.helpers.proofs import LONG, near_steps


@pytest.mark.turns(100)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_and_named(name):
    fault = FAULTS[name]
    found = check(fault.target, fault.dtype, **fault.options)
    assert not found
    assert found.law == fault.law, str(found)
    if fault.dialect:
        assert found.dialect == fault.dialect, str(found)
    assert sum(number.bits != 0 for number in found.counterexample.input) <= 3, str(found)
    assert fault.law in str(found)
    assert json.loads(found.to_json())["failures"][0]["law"] == fault.law


def caught(target, dtype, options, law):
    """A planted fault is caught, and by that law, where one is named."""
    found = check(target, dtype, **options)
    assert not found
    assert law in (None, found.law), str(found)


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", MISSED if LONG else list(MISSED)[1:-3:3])
def test_a_fault_of_one_place_passed(name):
    caught(*MISSED[name])


@pytest.mark.turns(120)
@pytest.mark.parametrize("name", UNSEEN)
def test_a_fault_planted_without_a_look_passed(name):
    with np.errstate(all="ignore"):
        caught(*UNSEEN[name])


@pytest.mark.turns(4)
@pytest.mark.parametrize("rule", ["four_over_six", "four_over_six_mae"])
def test_the_order_that_the_law_says_is_right(rule):
    kernel = least_error(in_halves, np.abs if rule.endswith("mae") else np.square)
    with np.errstate(all="ignore"):
        found = check(kernel, "nvfp4", scale_rule=rule, **BY_ERROR)
        other = check(reads_by(in_halves), "if4", **BY_ERROR)
    assert found, str(found)
    assert other, str(other)


@pytest.mark.turns(20)
@pytest.mark.parametrize("name", PASSED)
def test_a_fault_of_some_strides_lengths_and_scales_passed(name):
    assert PASSED[name][-1]  # each is named
    with np.errstate(all="ignore"):
        caught(*PASSED[name])


@pytest.mark.turns
def test_draws_that_come_again_after_sixteen_calls_passed():
    found = check(of_sixteen_seeds(count()), "fp8_e4m3", rounding="stochastic", draw="own")
    assert found.law == "independent", str(found)


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", STATEFUL)
def test_a_fault_of_some_calls_passed(name):
    made, law = STATEFUL[name]
    caught(made(), "fp8_e4m3", {}, law)


def test_a_counterexample_that_is_right_alone_says_what_it_depends_on():
    target, dtype, _, _ = MISSED["every 31st number rounds ties away"]
    found = check(target, dtype).counterexample
    assert found.law == "layout"
    assert "asked alone it is right" in found.where


@pytest.mark.turns
def test_codes_in_signed_bytes_were_refused():
    assert check(lambda x: e4m3(x).view(np.int8), "fp8_e4m3")


@pytest.mark.turns
def test_a_target_that_flushes_subnormals_for_everybody_spoiled_the_verdict():
    """Libraries of -Ofast set the thread so when they are loaded; integer kernels do not mind."""
    torch = pytest.importorskip("torch")

    def flushes(x):
        torch.set_flush_denormal(True)
        return nx.bfloat16.encode(x)

    try:
        assert check(flushes, "bfloat16")
    finally:
        torch.set_flush_denormal(False)


# ---- nothing right is refused -------------------------------------------------------------------


def options_of(dtype):
    """What every task of a format needs beside its kind."""
    return {"tensor_scale": 1.0} if isinstance(dtype, nx.ScaledBlock) else {}


def own(dtype, kind, **options):
    """This package's own kernel of a kind, with its options."""
    if kind in ("encode", "round"):
        call = getattr(dtype, kind)
        if options.get("rounding") == "stochastic":
            return lambda x, r: call(x, random_bits=r, **options)
        return lambda x: call(x, **options, **options_of(dtype))
    if dtype.kind != "block":
        return getattr(dtype, kind)
    scale = 1.0 if isinstance(dtype, nx.ScaledBlock) else None
    return lambda c, s, m=None: nx.Blocks(dtype, options.get("axis", -1), c, s, m, scale).decode()


KINDS = {True: ("encode", "round", "decode"), False: ("encode", "round", "decode", "pack", "unpack")}


@pytest.mark.turns(220)
@pytest.mark.parametrize("dtype", nx.dtypes(), ids=repr)
def test_our_own_kernels_pass(host_executor, dtype):
    for kind in KINDS[dtype.kind == "block"]:
        found = check(own(dtype, kind), dtype, kind=kind)
        assert found, str(found)


@pytest.mark.turns(112)
@pytest.mark.parametrize("rounding", [*DETERMINISTIC[1:], "stochastic"])
@pytest.mark.parametrize(
    "dtype", [nx.fp8_e4m3, nx.fp8_e5m2fnuz, nx.fp6_e2m3, nx.uint4, nx.e8m0, nx.mx6, nx.mxint8], ids=repr
)
def test_every_rounding_of_our_own_passes(dtype, rounding):
    for overflow in dtype.overflows:
        kernel = own(dtype, "encode", rounding=rounding, overflow=overflow)
        found = check(kernel, dtype, rounding=rounding, overflow=overflow)
        assert found, str(found)


@pytest.mark.turns(30)
@pytest.mark.parametrize("dtype", [*DECLARED, *DECLARED_BLOCKS], ids=repr)
def test_declared_formats_pass(dtype):
    for kind in ("encode",) if getattr(dtype, "block", 0) > 100 else ("encode", "round", "decode"):
        found = check(own(dtype, kind), dtype, kind=kind)
        assert found, str(found)


@pytest.mark.turns(80)
@pytest.mark.parametrize("rule", MX_RULES)
@pytest.mark.parametrize("axis", [0, 1, -2, 2])
def test_every_scale_rule_and_axis_passes(rule, axis):
    for kind in ("encode", "round"):
        found = check(
            own(nx.mxfp4, kind, axis=axis, scale_rule=rule), "mxfp4", kind=kind, axis=axis, scale_rule=rule
        )
        assert found, str(found)
    assert check(own(nx.mxfp4, "decode", axis=axis), "mxfp4", kind="decode", axis=axis)


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", ["int8", "int4", "uint4", "uint8", "int16"])
def test_affine_kernels_pass(name):
    def quantized(x, scale, zero_point):
        return nx.quantize(x, name, symmetric=False, scale=np.float32(scale), zero_point=np.int32(zero_point))

    def codes(x, scale, zero_point):
        return quantized(x, scale, zero_point).codes

    def values(x, scale, zero_point):
        return quantized(x, scale, zero_point).dequantize()

    for kernel in (codes, values):
        found = check(kernel, name, kind="affine")
        assert found, str(found)


@pytest.mark.turns(12)
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz"])
def test_foreign_kernels_pass(dtype):
    """Judges judged: ml_dtypes and torch, by the bits of their own types."""
    nan = dtype != "float8_e8m0fnu"
    if nan:
        found = check(lambda x: x.astype(dtype), dtype, overflow="nonsaturate")
        assert found, str(found)
    torch = pytest.importorskip("torch")
    back = check(lambda c: c.view(getattr(torch, dtype)).float(), dtype, kind="decode", array="torch")
    assert back, str(back)


@pytest.mark.turns
def test_signed_codes_and_values_by_their_own_types():
    assert check(lambda x: np.clip(np.nan_to_num(np.rint(x), nan=0), -8, 7).astype(np.int8), "int4")
    assert check(lambda x: nx.fp8_e4m3.encode(x).astype(np.int32), "fp8_e4m3")
    assert check(lambda x: nx.fp8_e4m3.encode(x.ravel()).reshape(x.shape), "fp8_e4m3")
    flat = lambda x: nx.fp8_e4m3.encode(x) if x.flags.c_contiguous and x.ndim == 1 else 1 / 0  # noqa: E731
    assert check(flat, "fp8_e4m3", contiguous=True)
    assert check(flat, "fp8_e4m3").law == "runs"


@pytest.mark.turns
def test_another_nan_is_right_unless_it_must_be_canonical():
    kernel = FAULTS["NaN payload"].target
    assert check(kernel, "float16")
    assert check(kernel, "float16", strict_nan=True).law == "canonical_nan"


# ---- all of float32 -----------------------------------------------------------------------------


@pytest.fixture
def every(monkeypatch):
    """How many inputs `exhaustive` tries: all, or those that decide (tests/helpers/proofs.py)."""
    if not LONG:
        monkeypatch.setattr(everything, "sweep", near_steps)
    return 1 << 32 if LONG else 1 << 19


@pytest.mark.proof
def test_all_of_float32_finds_what_the_probes_miss(every):
    hidden = np.float32(0.0123456789 if LONG else 0.25012347).view(np.uint32)

    def nearly(x):
        codes, bits = nx.fp4.encode(x), x.view(np.uint32).reshape(-1)
        if bits.size and bits[0] <= hidden <= bits[-1]:
            codes.reshape(-1)[bits == hidden] = 3
        return codes

    assert check(nearly, "fp4")
    found = check(nearly, "fp4", exhaustive=True)
    assert (found.law, found.differs) == ("nearest", 1)
    assert found.counterexample.input[0].bits == hidden
    assert found.tried > every


@pytest.mark.proof
def test_all_of_float32_passes_what_is_right(every):
    found = check(nx.fp8_e4m3.round, "fp8_e4m3", kind="round", overflow=None, exhaustive=True)
    assert found, str(found)
    assert found.tried >= every


# ---- bad requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((e4m3, "fp8_e4m4"), {}, "unknown format 'fp8_e4m4'; did you mean 'fp8_e4m3'"),
        ((e4m3, "fp8_e4m3"), {"kind": "encod"}, "unknown kind of fp8_e4m3 'encod'; did you mean 'encode'"),
        ((e4m3, "fp8_e4m3"), {"kind": "affine"}, "unknown kind of fp8_e4m3 'affine'"),
        ((e4m3, "mxfp4"), {"kind": "pack"}, "unknown kind of mxfp4 'pack'"),
        ((3, "fp8_e4m3"), {}, "the target is an int, which cannot be called"),
        (("numerics", "fp8_e4m3"), {}, "target 'numerics' is not spelled module:function"),
        (
            ("no_such_module:f", "fp8_e4m3"),
            {},
            "'no_such_module:f' cannot be imported: ModuleNotFoundError: No module",
        ),
        (("math:no_such", "fp8_e4m3"), {}, "target 'math:no_such' cannot be imported"),
        (("no_such.py:f", "fp8_e4m3"), {}, "a module is named without .py: no_such:f"),
        (("math:pi", "fp8_e4m3"), {}, "target 'math:pi' is a float, which cannot be called"),
        ((e4m3, "fp8_e4m3"), {"rounding": "half_evn"}, "unknown rounding mode 'half_evn'"),
        (
            (e4m3, "int8"),
            {"kind": "affine", "rounding": "stochastic"},
            "unknown rounding mode of an affine check",
        ),
        ((e4m3, "fp4"), {"overflow": "nonsaturate"}, "has neither Inf nor NaN"),
        (
            (e4m3, "fp4"),
            {"scale_rule": "ceil"},
            "scale_rule='ceil' belongs to block formats, which fp4 is not",
        ),
        ((e4m3, "fp4"), {"axis": 0}, "axis=0 belongs to block formats"),
        ((e4m3, "mxfp4"), {"axis": "x"}, "axis must be an integer, not 'x'"),
        ((e4m3, "mx6"), {"scale_rule": "ceil"}, "mx6 has one way to find its scale"),
        ((e4m3, "mxfp4"), {"exhaustive": True}, "exhaustive=True is for a deterministic encode or round"),
        ((e4m3, "fp8_e4m3"), {"array": "jax"}, "unknown array 'jax'; allowed: numpy, torch"),
        *(
            ((e4m3, "mxfp4"), {"kind": "decode", **given}, "is not for kind='decode', which does not round")
            for given in ({"rounding": "floor"}, {"scale_rule": "even"}, {"strict_nan": True})
        ),
        ((e4m3, "fp8_e5m2"), {"kind": "decode", "overflow": "nonsaturate"}, "is not for kind='decode'"),
        ((e4m3, "fp4"), {"kind": "pack", "rounding": "ceil"}, "rounding='ceil' is not for kind='pack'"),
        ((e4m3, "fp4"), {"whole_blocks": True}, "whole_blocks=True is for blocks and groups"),
        (
            (e4m3, None),
            {"kind": "matmul", "a": "float32", "b": "int8", "whole_blocks": True},
            "whole_blocks=True is for operands of blocks or groups",
        ),
        ((e4m3, "fp4"), {"kind": np.ones(3)}, "unknown kind of fp4 <ndarray of shape (3,)>"),
        ((e4m3, "fp4"), {"kind": ""}, "unknown kind of fp4 ''"),
        ((e4m3, "fp4"), {"axis": np.ones(3)}, "axis must be an integer, not <ndarray of shape (3,)>"),
        ((e4m3, "fp4"), {"scale_rule": np.ones(3)}, "unknown scale rule <ndarray of shape (3,)>"),
        ((e4m3, "fp4"), {"tensor_scale": 0.0}, "tensor_scale=0.0 belongs to block formats, which fp4 is not"),
        *(
            ((e4m3, "fp4"), {flag: None}, f"{flag}=None is not allowed: True or False")
            for flag in ("strict_nan", "exhaustive", "contiguous", "whole_blocks", "finite")
        ),
    ],
)
def test_bad_requests(arguments, options, said):
    with pytest.raises(nx.NumericsError) as wrong:
        check(*arguments, **options)
    assert said in str(wrong.value)


@pytest.mark.turns
def test_a_verdict_says_what_it_found():
    right = check(e4m3, "fp8_e4m3")
    assert (right.law, right.counterexample, right.dialect) == (None, None, None)
    first, sample = str(right).splitlines()
    assert repr(right) == str(right)
    assert first == f"e4m3 is right: {right.task}; {len(right.laws)} laws hold on {right.tried} inputs"
    assert "a sample of the 2^32 float32 inputs" in sample
    wrong = json.loads(check(lambda x: nx.fp8_e4m3.encode(-x), "fp8_e4m3").to_json())
    assert wrong["passed"] is False
    assert wrong["dtype"] == "fp8_e4m3"
    assert wrong["failures"][0]["input"][0]["bits"] == 0
    assert wrong["failures"][0]["came"] == "0x80 (-0)"
    assert wrong["failures"][0]["due"] == "0x00 (0)"


GENERAL = ("monotone", "sign_symmetry", "unbiased", "canonical_nan")
"""Laws that look at the answers as a whole; the others share the wrong answers among them."""


def garbage(dtype, kind):
    """A target whose answers have the right shapes and mean nothing: each follows from its input alone."""
    values = np.float32([0, -0.0, 1, -2, np.nan, np.inf])

    def mixed(x):
        bits = np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}").astype(np.uint64).reshape(x.shape)
        return (bits + np.uint64(77)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)

    def codes(x, bits):
        return (mixed(x) % np.uint64(1 << bits)).astype(np.uint8 if bits <= 8 else np.uint16)

    def blocks(x, *others):
        made = dtype.encode(x, **options_of(dtype))
        shared = codes(made.scale, dtype.scale_bits)
        micro = None if made.microexponents is None else codes(made.microexponents, 8)
        return nx.Blocks(dtype, -1, codes(x, dtype.element_bits), shared, micro)

    if kind != "encode":
        return lambda x, *others: values[mixed(x) % np.uint64(len(values))]
    return blocks if dtype.kind == "block" else lambda x, *others: codes(x, dtype.bits)


HINTS = {
    "array of tensors": (lambda x: torch.as_tensor(x).to(torch.float8_e4m3fn), 'array="torch"'),
    "contiguous memory": (lambda x: of_one_stretch(x), "contiguous=True (--contiguous)"),
    "a number": (lambda x: int(nx.fp8_e4m3.encode(float(x))), "numpy.vectorize"),
    "a number that is compared": (lambda x: 0 if x > 448 else 1, "numpy.vectorize"),
    "values": (lambda x: nx.fp8_e4m3.round(x), 'kind="round" (--kind round) judges values'),
}


def of_one_stretch(x):
    if not x.flags.c_contiguous:
        raise ValueError("ndarray is not C-contiguous")
    return nx.fp8_e4m3.encode(x)


@pytest.mark.parametrize("name", HINTS)
def test_what_a_stranger_meant_is_told(name):
    target, hint = HINTS[name]
    assert hint in str(nx.conform.check(target, "fp8_e4m3"))


@pytest.mark.turns
@pytest.mark.parametrize("kind", ["encode", "round", "decode"])
@pytest.mark.parametrize(
    "dtype", [nx.fp8_e4m3, nx.e8m0, nx.uint4, nx.fp8_e5m2fnuz, nx.mxint8, nx.mx6, nx.nvfp4]
)
def test_every_wrong_answer_falls_under_exactly_one_law(dtype, kind):
    roundings = ["half_even", "stochastic"] if dtype.kind == "block" else ["half_even", "floor", "stochastic"]
    for rounding in roundings if kind != "decode" else ["half_even"]:
        found = check(garbage(dtype, kind), dtype, kind=kind, rounding=rounding)
        shared = [failure for failure in found.failures if failure.law not in GENERAL]
        assert found.differs > 10
        if rounding != "stochastic":  # there the mean is judged on answers of its own
            assert sum(failure.differs for failure in shared) == found.differs, str(found)


def test_a_kernel_of_tensors_that_got_an_array_is_told_of_the_option():
    def encode(x):
        return x.to(torch.float8_e4m3fn).view(torch.uint8)

    said = str(nx.conform.check(encode, "fp8_e4m3", overflow="nonsaturate"))
    assert "no attribute 'to'; array=\"torch\" (--array torch) gives it tensors" in said
    assert "gives it tensors" not in str(
        nx.conform.check(encode, "fp8_e4m3", overflow="nonsaturate", array="torch")
    )


def test_a_target_that_its_module_does_not_have_is_told_the_nearest():
    with pytest.raises(nx.NumericsError, match=r"no attribute 'sqr'; did you mean math:sqrt\?"):
        nx.conform.check("math:sqr", "fp4")
