"""Has the judge of products teeth, and does it leave right kernels alone, whatever their order?"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.conform import check, decidable, fingerprint
from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases.draw import SIGNIFICAND
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.cases.order import problems
from numerics.conform.products.certificate import answer
from numerics.conform.products.claim import ACCUMULATORS, Claim
from numerics.conform.products.telling.deviations.table import DEVIATIONS
from numerics.formats.errors import NumericsError
from numerics.tensor.spec import QuantSpec
from tests.helpers.authors_faults import FAULTS
from tests.helpers.operand_faults import (
    BATCHED,
    BATCHES,
    DECODED,
    MEMORY,
    OPERANDS,
    SIZES,
    STATEFUL,
    STATES,
    decoding,
    float32_sums,
    of_batches,
)
from tests.helpers.product_faults import (
    GROUPS,
    INT4,
    NO_FAULTS,
    RIGHT,
    UINT4,
    Kernel,
    accumulating,
    added,
    planted,
    tensor_core,
    to_out,
    toward_zero,
    zero_points_apart,
)

LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))
EVERY = 1 if LONG else 24
PLANTED = [case for case in planted() if (f"{Claim.of(**case[0]).dtype}", case[1]) not in NO_FAULTS]
PLANTED += FAULTS
SOME = PLANTED[::EVERY]
FAST = ((1, 1, 1), (1, 3, 33), (5, 4, 64))


def decoded(w):
    return w.dequantize() if isinstance(w, nx.QTensor) else w


def judged(target, **claim):
    """Kernels here are written for products that have terms; the law `empty` is tested apart."""
    return check(target, kind="matmul", **{"nonempty": True, **claim})


@pytest.mark.turns(30)
@pytest.mark.parametrize(("claim", "name", "kernel"), SOME, ids=[f"{c['a']}-{n}" for c, n, _ in SOME])
def test_a_planted_fault_of_a_product_passed(claim, name, kernel):
    found = judged(kernel, **claim)
    assert not found, f"{found}: {name}"
    again = found.counterexample
    assert again.came != again.due


def test_the_list_of_planted_faults_shrank():
    assert len(PLANTED) >= 320


LONG_OPERANDS = [
    *(("float32", b) for b in (
        "float32", "mxfp4", "mx6", "nvfp4", "nf4 per_group(64)", "fp8_e4m3 per_tensor", "int2 per_group(32)",
        "int4 per_group(32)", "int8 per_channel(0)", "int8 per_channel(1)", "int4 per_group(32) asymmetric",
        "uint4 per_group(32) asymmetric",
    )),
    ("float16", "int4 per_group(128)"), ("bfloat16", "nvfp4"), ("nvfp4", "nvfp4"),
    ("fp8_e4m3 per_tensor", "fp8_e4m3 per_tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), LONG_OPERANDS)
def test_a_product_of_all_bits_was_not_judged(a, b):
    """Each part that may have many bits has all of its type's once, and no result depends on an order."""
    claim = Claim.of(a, b)
    found = list(Maker(claim, np.random.default_rng(0)).whole((5, 7, 67), turn=1))
    assert len(found) == sum(op.is_value or op.scale is None or op.number for op in (claim.a, claim.b)) - (
        b == "mx6"
    )
    for problem in found:
        assert answer(problem)[1].all()
        assert problem.exact.all()


NO_ZERO = nx.codebook_format([-2, -1, 1, 2], name="signs_and_twos")
FAR_OPERANDS = [
    *LONG_OPERANDS, ("float32", "bfloat16 per_group(32)"),
    ("float32", QuantSpec("int4", scheme="per_group(32)", scale_type="float16")),
    ("nf4 per_group(64)", "nf4 per_group(64)"), ("mxfp8_e5m2", "mxfp6_e3m2"), ("mx9", "mx6"),
    ("int8 per_tensor", "int8 per_channel(0)"), ("int8 per_group(32)", "int8 per_group(32)"),
    ("int8 per_channel(0)", "int4 per_group(128)"), ("int8 per_group(32)", "int8 per_channel(0)"),
    ("int8 per_channel(0)", QuantSpec("int4", scheme="per_group(32)", scale_type="float16")),
    ("uint8 per_group(64) asymmetric", "uint4 per_group(64) asymmetric"),
    ("uint8 per_channel(0) asymmetric", "uint8 per_channel(0) asymmetric"),
]  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.parametrize("shape", [(2, 3, 16391), (1, 3, 16640)])
@pytest.mark.parametrize(("a", "b"), FAR_OPERANDS, ids=str)
def test_a_term_of_a_long_row_did_not_count(a, b, shape):
    """Nothing of 16,391 terms is left out that sums may fit, and all of it is decided."""
    problem = Maker(Claim.of(a, b), np.random.default_rng(0)).long(shape)
    assert answer(problem)[1].all()
    for side in (problem.a, problem.b):
        counts = side.values != 0
        assert counts[:, -1].any() or side.zero is not None
        assert counts.mean() > (0.7 if side.zero is None else 0.4)
    places = np.arange(shape[2])
    for n in range(15):
        short = problem.a.values[:, : 1 << n] @ problem.b.values[:, : 1 << n].T
        assert (short != problem.exact).any(), f"all past {1 << n} terms may be lost"
    for name, side in (("a", problem.a), ("b", problem.b)):
        for n in range(15) if side.op.share == "block" else ():
            group = places // side.op.size
            if group[-1] < 1 << n:
                break
            moved = side.factors.scale[:, (group & ((1 << n) - 1)) * side.op.size]
            wrong = (side.factors.element - side.factors.zero) * moved
            other = (problem.b if name == "a" else problem.a).values
            found = wrong @ other.T if name == "a" else other @ wrong.T
            assert (found != problem.exact).any(), f"groups past {1 << n} may have scales of others"


@pytest.mark.turns
def test_sums_of_a_long_row_were_of_one_row_of_many_columns_alone():
    """Kernels have paths of their own for one row, one column, more rows than a tile, and whole blocks."""
    shapes = {problem.shape for problem in problems(Claim.of("float32", INT4)) if problem.law == "sums"}
    long = [shape for shape in shapes if shape[2] > 4096]
    for kind in (lambda m, n: m == 1, lambda m, n: n == 1, lambda m, n: m > 16):
        assert any(kind(m, n) for m, n, _ in long)
    assert {k % 256 == 0 for _, _, k in long} == {True, False}


@pytest.mark.turns(6)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_a_bias_had_few_bits_and_was_always_a_number(kind):
    claim = Claim.of(kind, "mxfp4", bias=True, out=kind)
    asked = [problem for problem in problems(claim, quick=True) if problem.law == "bias"]
    assert len(asked) == 8
    for problem in asked:
        assert answer(problem)[1].mean() > 0.6
        finite = problem.bias[np.isfinite(problem.bias)]
        fewer = np.ldexp(np.frexp(finite)[0], SIGNIFICAND[kind] - 1 - 2 * problem.a.values.any())
        assert (fewer != np.rint(fewer)).any()
    ends = np.concatenate([problem.bias for problem in asked])
    assert np.isnan(ends).any()
    assert {np.inf, -np.inf} <= set(ends)


@pytest.mark.parametrize("b", ["int8 per_group(32)", "int8 per_channel(0)"])
def test_scales_of_codes_on_both_sides_had_few_bits_past_the_first_group(b):
    maker = Maker(Claim.of("int8 per_group(32)", b), np.random.default_rng(0))
    for problem in maker.groups(65):
        assert answer(problem)[1].all()
        assert problem.a.codes.all()
        assert problem.b.codes.all()


CLAIMS = [claim for claim, _ in GROUPS]


@pytest.mark.parametrize("claim", CLAIMS if LONG else CLAIMS[-1:], ids=lambda claim: str(Claim.of(**claim)))
@pytest.mark.parametrize("route", RIGHT if LONG else ["pairwise"])
def test_a_right_kernel_of_another_order_was_blamed(claim, route):
    out = "int32" if claim.get("accumulate") == "int32" else claim.get("out", "float32")
    found = judged(Kernel(route, RIGHT[route], out), seed=7, effort="default" if LONG else "quick", **claim)
    assert found, str(found)


PAST_FLOAT32 = [
    {"a": a, "b": b, **out} for a, b, out in (
        ("float32", "mxfp4", {}), ("float32", "float32", {}), ("bfloat16", "nvfp4", {}),
        ("mxfp8_e4m3", "mxfp4", {}),
        ("float32", nx.QuantSpec("int4", scheme="per_group(32)"), {"zero_point": "folded"}),
        ("float16", nx.QuantSpec("fp8_e4m3", scheme="per_channel(0)"), {}),
        ("bfloat16", "bfloat16", {"out": "bfloat16"}), ("float16", "mxfp6_e2m3", {"out": "float16"}),
    )
]  # fmt: skip


def summed(route, out, clamp=False):
    """A product whose terms are added in some order; clamp: what is past the largest number becomes it."""
    top = {"float32": 3.4028235e38, "bfloat16": 3.3895314e38, "float16": 65504.0}[out]

    def kernel(a, b):
        x, y = (
            np.asarray(z.dequantize("float32") if hasattr(z, "dequantize") else z, np.float64) for z in (a, b)
        )
        with np.errstate(all="ignore"):
            terms = x[:, None] * y[None]
            if route != "float64":
                terms = terms.astype(np.float32)
            while route == "pairwise" and terms.shape[2] > 1:
                odd = terms[:, :, -1:] if terms.shape[2] % 2 else terms[:, :, :0]
                terms = np.concatenate([terms[:, :, :-1:2] + terms[:, :, 1::2], odd], axis=2)
            found = to_out(np.cumsum(terms, axis=2, dtype=terms.dtype)[:, :, -1].astype(np.float32), out)
            finite = np.logical_and.outer(np.isfinite(x).all(axis=1), np.isfinite(y).all(axis=1))
            largest = to_out(np.copysign(np.float32(top), found.astype(np.float32)), out)
            return np.where(np.isinf(found) & finite & clamp, largest, found)

    return kernel


ALIKE = (0, 2, 3, 5)  # others have their type of results, and a zero point, in `make test`


@pytest.mark.turns(16)
@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(claim, marks=pytest.mark.long if place in ALIKE else [])
        for place, claim in enumerate(PAST_FLOAT32)
    ],
    ids=lambda claim: str(Claim.of(**claim)),
)
def test_the_largest_number_in_place_of_inf_was_called_undecided(claim):
    """Sums of terms of one sign past the largest number are Inf in every order of right additions."""
    out = Claim.of(**claim).out
    for route in ("in order", "pairwise", "float64") if LONG else ("in order",):
        assert judged(summed(route, out), effort="quick", **claim), route
        assert not judged(summed(route, out, clamp=True), **claim), route


@pytest.mark.parametrize("b", [INT4, UINT4] if LONG else [UINT4], ids=str)
def test_a_kernel_that_sums_zero_points_apart_was_blamed(b):
    """Codes that are shifted in a format without zero points make NaN of Inf: right of finite numbers."""
    effort = "default" if LONG else "quick"
    assert judged(zero_points_apart, a="float32", b=b, finite=b is INT4, effort=effort)


def test_sums_of_zero_points_apart_pass_where_they_were_not_claimed():
    """What zero_point='folded' claims is more: 2 terms have one right answer."""

    def kernel(a, b):
        return zero_points_apart(a, b)

    assert not judged(kernel, a="float32", b=UINT4, zero_point="folded")


OWN = ("mxfp8_e4m3", "mx6", "nvfp4", INT4, UINT4, nx.QuantSpec("int8", scheme="per_channel(1)"), "fp8_e5m2")


@pytest.mark.parametrize("b", OWN if LONG else OWN[1:2], ids=str)
def test_our_own_linear_breaks_its_claim(b):
    assert judged(nx.linear, a="float32", b=b), "docs/formats.md §11"


@pytest.mark.skipif(not LONG, reason="the same laws on other types: with NUMERICS_TEST_LONG")
@pytest.mark.parametrize(
    "claim",
    [
        {"a": "bfloat16", "b": "mxfp4", "out": "bfloat16", "bias": True},
        {"a": "float16", "b": INT4, "out": "float16"},
        {"a": "float32", "b": "mxfp4", "array": "torch"},
        {"a": "float32", "b": "mx9", "bias": True},
    ],
)
def test_our_own_linear_breaks_its_claim_in_other_types(claim):
    assert judged(nx.linear, **claim)


@pytest.mark.turns
def test_the_smallest_case_has_one_row_and_one_column_and_is_wrong_alone():
    kernel = next(kernel for _, name, kernel in planted() if name == "byte 0 is 0")
    found = judged(kernel, a="mxfp8_e4m3", b="mxfp4")
    assert found.law == "scale_range"
    assert found.counterexample.where.startswith("m=1 n=1 k=1,")
    a, b = found.counterexample.given
    assert kernel(a, b)[0, 0] == 0 != (a.dequantize("float64") @ b.dequantize("float64").T)[0, 0]


NAMED = {
    "nibbles swapped": ("nibbles swapped", {"a": "float32", "b": INT4}),
    "byte << 23": ("scale byte << 23", {"a": "mxfp8_e4m3", "b": "mxfp4"}),
    "a in bfloat16": ("a in bfloat16", {"a": "float32", "b": INT4}),
    "accumulates in bfloat16": ("accumulates in bfloat16", {"a": "mxfp8_e4m3", "b": "mxfp4"}),
    "zero point 8 assumed": ("zero point assumed", {"a": "float32", "b": UINT4}),
    "tail of 32 dropped": ("tail of 32 dropped", {"a": "float32", "b": INT4}),
    "sums in int16": ("wraps at int16", {"a": "int8", "b": "int8", "accumulate": "int32"}),
    "output cut": ("output truncated", {"a": "fp8_e4m3", "b": "fp8_e4m3", "out": "bfloat16"}),
    "scale of block 0": ("scale of block 0", {"a": "mxfp8_e4m3", "b": "mxfp4"}),
    "a in int8 by 32": ("a in int8/32", {"a": "float32", "b": INT4}),
}


@pytest.mark.turns(24)
@pytest.mark.parametrize("name", NAMED)
def test_a_known_deviation_of_products_had_no_name(name):
    said, claim = NAMED[name]
    kernel = next(
        kernel
        for given, planted_name, kernel in planted()
        if planted_name == name and given["a"] == claim["a"]
    )
    kernel.out = "int32" if claim.get("accumulate") else claim.get("out", "float32")
    assert judged(kernel, **claim).dialect == said


def test_two_deviations_had_the_same_name():
    assert len({deviation.name for deviation in DEVIATIONS}) == len(DEVIATIONS) >= 10


# ---- what is decided --------------------------------------------------------------------------------


def test_an_order_was_found_that_gives_other_bits_than_were_decided():
    """Random orders, fused or not, of ordinary data: where a result is decided, all of them agree."""
    rng = np.random.default_rng(0)
    a = nx.quantize(rng.standard_normal((16, 96)).astype(np.float32), "mxfp8_e4m3")
    b = nx.quantize(rng.standard_normal((24, 96)).astype(np.float32), "mxfp4")
    mask = decidable(a, b)
    assert 0.5 < mask.mean() <= 1
    x, y = a.dequantize("float32"), b.dequantize("float32")
    results = []
    for _ in range(8):
        order = rng.permutation(96)
        total = np.zeros((16, 24), np.float32)
        for k in order:
            total = total + np.multiply.outer(x[:, k], y[:, k])
        results.append(total)
    assert all((total == results[0])[mask].all() for total in results)


def test_what_a_narrow_accumulator_rounds_was_called_decided():
    a, b = np.float32([[256, 1, 1]]), np.float32([[1, 1, 1]])
    assert decidable(a, b).all()
    assert not decidable(a, b, accumulate="bfloat16").any()
    assert not decidable(np.float32([[1, 2**-30, -1]]), b).any()


@pytest.mark.turns
def test_exact_results_differed_from_fractions():
    from fractions import Fraction

    for problem in list(problems(Claim.of("float32", UINT4), seed=3))[:12]:
        due, decided = answer(problem)
        a, b = problem.a.factors, problem.b.factors
        for m, n in np.argwhere(decided)[:20]:
            total = sum(
                Fraction(float(a.element[m, k]))
                * Fraction(float(b.element[n, k] - b.zero[n, k]))
                * Fraction(float(b.scale[n, k]))
                for k in range(problem.shape[2])
            )
            assert due[m, n] == np.float32(float(total)), problem.law


@pytest.mark.parametrize(
    "given",
    [
        {"a": np.ones(3, np.float32)},
        {"a": np.ones((2, 3))},
        {"b": np.ones((1, 4), np.float32)},
        {"accumulate": "int32"},
        {"accumulate": 3},
    ],
)
def test_operands_that_do_not_fit_were_taken(given):
    fine = {"a": np.ones((2, 3), np.float32), "b": np.ones((1, 3), np.float32)}
    with pytest.raises(NumericsError):
        decidable(**(fine | given))


# ---- what a target may be ---------------------------------------------------------------------------


@pytest.mark.turns
def test_torch_tensors_are_given_and_taken_in_every_type():
    for name in ("float32", "bfloat16", "float16"):
        claim = {"a": name, "b": name, "out": name, "array": "torch", "shapes": FAST}
        # in float32: torch's own bfloat16 products flush subnormal results where AVX-512 multiplies them
        assert judged(lambda a, b: (a.float() @ b.float().T).to(a.dtype), **claim), name
    whole = {"a": "int8", "b": "int8", "accumulate": "int32", "array": "torch", "shapes": FAST}
    assert judged(lambda a, b: a.int() @ b.int().T, **whole)


@pytest.mark.turns
def test_a_turned_matrix_is_given_turned_with_its_scales():
    assert judged(lambda a, b: a @ b.dequantize(), a="float32", b=INT4, layout="kn", shapes=FAST)
    assert judged(
        lambda a, b: a.dequantize() @ b.dequantize(), a="mxfp8_e4m3", b="mx6", layout="kn", shapes=FAST
    )


@pytest.mark.turns
def test_a_kernel_that_reads_between_the_rows_passed():
    def packed_rows(a, b):
        return np.lib.stride_tricks.as_strided(a, a.shape, (4 * a.shape[1], 4)) @ b.T

    assert judged(packed_rows, a="float32", b="float32").law == "strides"


@pytest.mark.turns(6)
@pytest.mark.parametrize("written", ["a", "bias", "codes"])
def test_a_kernel_that_writes_beside_operands_with_gaps_passed(written):
    """Into a gap of a or of the bias, or behind the codes of b; where a is contiguous, nowhere."""

    def writes(a, b, bias):
        x = {"a": a, "bias": bias, "codes": b.packed.ravel()}[written]
        if a.strides[-1] > a.itemsize:
            place = x.size if written == "codes" else 1
            np.lib.stride_tricks.as_strided(x, (place + 1,), (x.itemsize,))[place] = 0
        return a @ b.dequantize().T + bias

    assert judged(writes, a="float32", b="int8 per_tensor", bias=True).law == "within"


@pytest.mark.parametrize("operand", ["e8m0", "e8m0 per_group(32)", "hifloat4", "if4", NO_ZERO], ids=str)
def test_an_operand_that_is_not_judged_was_refused_when_it_was_asked_or_not_at_all(operand):
    for sides in ({"a": operand, "b": "float32"}, {"a": "float32", "b": operand}):
        with pytest.raises(NumericsError, match="not judged; judge the kernel's decoding"):
            Claim.of(**sides)


def dense(x):
    """What a kernel reads that takes memory as it lies, without a look at strides."""
    steps = [x.itemsize * int(np.prod(x.shape[at + 1 :])) for at in range(x.ndim)]
    return np.lib.stride_tricks.as_strided(x, x.shape, steps)


@pytest.mark.turns(6)
@pytest.mark.parametrize(("a", "b"), [("mxfp4", "mxfp8_e4m3"), ("int8 per_tensor", "int4 per_group(32)"),
                                      ("float32", "mxfp4")])  # fmt: skip
def test_a_bias_beside_codes_had_no_gaps(a, b):
    options = {"a": a, "b": b, "bias": True, "effort": "default"}
    assert judged(lambda a, b, bias: nx.linear(a, b, dense(bias)), **options).law == "strides"


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", ["int8", "uint8"])
@pytest.mark.parametrize("side", [0, 1])
def test_arrays_of_integers_had_no_gaps(name, side):
    def product(*sides):
        a, b = (dense(x) if at == side else x for at, x in enumerate(sides))
        return a.astype(np.int32) @ b.astype(np.int32).T

    options = {"a": name, "b": "int8", "accumulate": "int32", "effort": "default"}
    assert judged(product, **options).law == "strides"
    assert judged(product, contiguous=True, **options)
    assert check(lambda a, b: a.astype(np.int32) @ b.astype(np.int32).T, kind="matmul", **options)


def test_a_bias_may_be_what_a_sum_begins_with():
    def first(a, b, bias):
        total = np.tile(bias, (len(a), 1))
        for k in range(a.shape[1]):
            total = (total + a[:, k, None] * b[None, :, k]).astype(np.float32)
        return total

    assert check(
        first, kind="matmul", a="float32", b="float32", bias=True, effort="quick", shapes=[(3, 5, 40)]
    )


@pytest.mark.turns
def test_a_kernel_that_answers_otherwise_the_second_time_passed():
    calls, once = [], len(list(problems(Claim.of("float32", "float32"))))

    def forgets(a, b):
        calls.append(1)
        return a @ b.T + np.float32(len(calls) > once)

    found = judged(forgets, a="float32", b="float32", contiguous=True)
    assert found.law == "repeatable"


@pytest.mark.parametrize(
    ("law", "kernel"),
    [
        ("runs", lambda a, b: 1 / 0),
        ("shape", lambda a, b: (a @ b.T).T[:1]),
        ("dtype", lambda a, b: (a @ b.T) * 1.0e0),
        ("result", lambda a, b: "no array"),
        ("inputs_unchanged", lambda a, b: [a.fill(0), a @ b.T][1]),
    ],
)
def test_what_is_no_result_was_compared(law, kernel):
    out = {"out": "bfloat16"} if law == "dtype" else {}
    assert judged(kernel, a="float32", b="float32", **out).law == law


@pytest.mark.parametrize(
    "given",
    [
        {"a": None},
        {"dtype": "fp4"},
        {"rounding": "floor"},
        {"accumulate": "int32"},
        {"accumulate": "fp99"},
        {"out": "int32"},
        {"layout": "x"},
        {"shapes": [(1, 2)]},
        {"shapes": 3},
        {"zero_point": "x"},
        {"seed": -1},
        {"b": nx.QuantSpec("mxfp4", axis=0)},
        {"b": nx.QuantSpec("int4", scheme="per_group(4, axis=0)")},
    ],
)
def test_options_that_a_product_has_not_were_taken(given):
    fine = {"a": "float32", "b": "float32"}
    with pytest.raises(NumericsError):
        judged(np.matmul, **(fine | given))
    with pytest.raises(NumericsError, match="matmul"):
        check(nx.fp4.encode, "fp4", bias=True)


@pytest.mark.parametrize(
    ("a", "b", "came"),
    [("float32", "int8", "float32"), ("int8", "bfloat16", "bfloat16"), ("int16", "int8", "int16"),
     ("int8 per_channel(0)", "int8", "per_channel"), (nx.QuantSpec("int8"), "int8", "QuantSpec")],
)  # fmt: skip
def test_a_float_operand_of_an_integer_product_was_an_unknown_format(a, b, came):
    with pytest.raises(
        NumericsError, match=f"'int32' needs integer operands of 8 bits or fewer, not .*{came}"
    ):
        judged(np.matmul, a=a, b=b, accumulate="int32")


def compensated(a, b, branch):
    """Sums of float32 products and what each addition lost: Kahan's, or with a branch Neumaier's."""
    total = np.zeros((len(a), len(b)), np.float32)
    lost = total.copy()
    with np.errstate(all="ignore"):
        for k in range(a.shape[1]):
            term = a[:, k, None] * b[None, :, k] - (0 if branch else lost)
            now = total + term
            if branch:
                larger = np.abs(total) >= np.abs(term)
                lost += np.where(larger, (total - now) + term, (term - now) + total)
            else:
                lost = (now - total) - term
            total = now
        return np.where(np.isfinite(total) & branch, total + lost, total)


@pytest.mark.turns
def test_what_the_page_says_of_compensated_sums_is_not_so():
    wide = {"accumulate": nx.conform.Accumulator(48, "any"), "shapes": FAST}
    halves = {"a": "bfloat16", "b": "bfloat16", **wide}  # whose products are float32's

    def floats(x):
        return np.asarray(x, np.float32)

    assert judged(lambda a, b: compensated(floats(a), floats(b), True), **halves)
    for kernel in (lambda a, b: a @ b.T, lambda a, b: compensated(a, b, True)):
        assert not judged(kernel, a="float32", b="float32", **(wide | {"shapes": ((17, 65, 96),)}))
    assert judged(lambda a, b: compensated(a, b, False), a="float32", b="float32").law == "two_terms"


@pytest.mark.turns
def test_a_verdict_on_a_product_is_a_record_too():
    said = json.loads(judged(lambda a, b: a @ b.T + 1, a="float32", b="float32").to_json())
    assert (said["kind"], said["dtype"], said["passed"]) == ("matmul", "float32 x float32", False)
    assert said["failures"][0]["terms"]


# ---- fingerprints -----------------------------------------------------------------------------------


@pytest.mark.turns
def test_the_bits_of_a_described_product_were_not_reproduced():
    toward = fingerprint(Kernel("cut", added(lambda x: toward_zero(x, 24))), shape=(2, 2, 12))
    assert (toward.bits, toward.rounding, toward.reproduced) == (24, "toward zero", 64)
    half = fingerprint(Kernel("half", accumulating("float16")), shape=(2, 2, 12))
    assert (half.bits, half.order, half.reproduced) == (11, "one after the other", 64)
    core = fingerprint(Kernel("core", tensor_core(23, 24, 4)), a="bfloat16", b="bfloat16", shape=(2, 2, 16))
    assert core.order.startswith("5 terms at once")
    assert core.reproduced == 64


def test_a_neighbour_that_changes_a_number_was_not_seen():
    def quantizing(a, b):
        scale = np.abs(a).max(axis=1, keepdims=True) / np.float32(127)
        return (np.rint(a / np.where(scale > 0, scale, 1)) * scale).astype(np.float32) @ b.T

    assert fingerprint(quantizing, shape=(4, 4, 16)).reach == 16


@pytest.mark.parametrize("shape", [(16, 16, 16), (4, 8, 8), (8, 8, 4)])
def test_a_product_of_a_turned_operand_was_described_as_one_of_rows(shape):
    with pytest.raises(NumericsError, match=r"right where b comes turned: layout='kn'"):
        fingerprint(torch.matmul, array="torch", shape=shape)
    assert fingerprint(lambda a, b: np.matmul(a, b), shape=shape, layout="kn").reach == 0
    with pytest.raises(NumericsError, match="right where a comes turned: layout='km,nk'"):
        fingerprint(lambda a, b: a.T @ b.T, shape=shape)
    with pytest.raises(NumericsError, match="where neither operand comes turned: layout='nk'"):
        fingerprint(np.inner, shape=shape, layout="kn")


def test_what_is_no_product_is_not_described():
    with pytest.raises(NumericsError, match=r"result \[0, 0\] is .* where .* is due, and 16 of 16"):
        fingerprint(lambda a, b: a @ b.T + 1, shape=(4, 4, 8))
    with pytest.raises(NumericsError, match="without batches"):
        fingerprint(np.inner, layout="bmk,bnk")


@pytest.mark.turns(6)
@pytest.mark.parametrize(
    ("a", "b"), [("float32", "float32"), ("float32", "mxfp4"), ("float32", "int4 per_channel(0)")]
)
def test_a_verdict_says_that_an_operand_comes_turned(a, b):
    turned = judged(lambda x, w: x @ decoded(w), a=a, b=b)
    assert "it multiplies right where b comes turned: layout='kn' (--layout kn)" in str(turned)
    wrong = judged(lambda x, w: x @ decoded(w) + 1, a=a, b=b)
    assert not any("turned" in note for note in wrong.notes)


@pytest.mark.parametrize("given", [{"a": "fp4"}, {"shape": (1, 4, 8)}, {"shape": (4, 4, 2)}, {"shape": 3}])
def test_a_fingerprint_was_taken_of_what_has_none(given):
    with pytest.raises(NumericsError):
        fingerprint(np.matmul, **given)


@pytest.mark.turns
def test_accumulators_of_hardware_have_names_that_a_claim_takes():
    for name in ACCUMULATORS:
        assert Claim.of("fp8_e4m3", "fp8_e4m3", accumulate=name).accumulator == ACCUMULATORS[name]
    hopper = Kernel("hopper", tensor_core(13, 14, 32))
    assert judged(hopper, a="fp8_e4m3", b="fp8_e4m3", accumulate="hopper_fp8", shapes=FAST)
    assert not judged(hopper, a="fp8_e4m3", b="fp8_e4m3")


def test_a_target_is_called_by_its_own_name():
    assert ProductTarget(torch.matmul, Claim.of("float32", "float32")).name == "matmul"


# ---- the command line and pytest --------------------------------------------------------------------


@pytest.mark.turns
def test_the_command_line_judges_and_describes_a_product(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from numerics.cli import commands

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "their_products.py").write_text(
        "import numpy\ndef wrong(a, b): return numpy.inner(a, b) + 1\n", encoding="utf-8"
    )
    run = CliRunner().invoke
    judged_wrong = run(commands, ["conform", "their_products:wrong", "--kind", "matmul", "--a", "float32",
                                    "--b", "float32"])  # fmt: skip
    assert judged_wrong.exit_code == 1, judged_wrong.output
    assert "law one_term" in judged_wrong.output
    described = run(commands, ["fingerprint", "numpy:inner", "--shape", "3,3,4"])
    assert described.exit_code == 0, described.output
    assert "random results" in described.output


@pytest.mark.turns(8)
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", ["a", "b"])
def test_an_operand_whose_subnormal_numbers_are_flushed_passed(name, side):
    """Scales of the other side absorbed them: no operand was subnormal."""

    def flushed(x):
        wide = x.astype(np.float32)
        return np.where(np.abs(wide) < 2.0**-126, np.float32(0), wide)

    def kernel(a, b):
        a, b = (flushed(a), b) if side == "a" else (a, flushed(b))
        return a.astype(np.float32) @ b.astype(np.float32).T

    assert judged(kernel, a=name, b=name).law == "subnormals"


@pytest.mark.turns
def test_a_plain_operand_beside_blocks_was_never_subnormal():
    def kernel(x, w):
        return nx.linear(np.where(np.abs(x) < 2.0**-126, np.float32(0), x), w)

    assert judged(kernel, a="float32", b="mxfp4").law == "subnormals"


@pytest.mark.turns
def test_a_kernel_that_always_takes_a_bias_was_blamed():
    """Some products came without one, though bias=True says that there is."""
    found = judged(
        lambda a, b, bias: nx.linear(a, b, bias), a="float32", b="mxfp4", bias=True, effort="quick"
    )
    assert found, str(found)


SECOND_TILES = {
    "terms over": lambda m, n, k: k > 64 and k % 64 == 33,
    "terms of the third tile": lambda m, n, k: 128 < k < 192 and k % 8 == 7,
    "rows over": lambda m, n, k: m > 64 and m % 64 == 63,
    "rows of the second tile": lambda m, n, k: m > 128,
    "columns over": lambda m, n, k: n > 128 and n % 128 == 1,
    "terms past a thousand": lambda m, n, k: 1024 < k < 2048,
}


TILED = [("float32", "float32"), ("float32", "mxfp4"), ("int8", "int8")]


@pytest.mark.turns
@pytest.mark.parametrize(
    ("name", "claim"),
    [
        pytest.param(name, claim, marks=[] if turn % 3 == place else pytest.mark.long)
        for turn, name in enumerate(SECOND_TILES) for place, claim in enumerate(TILED)
    ],
)  # fmt: skip
def test_the_second_tile_of_rows_or_terms_was_not_asked(name, claim):
    def wrong(a, b):
        other = b.dequantize() if hasattr(b, "dequantize") else b
        kinds = (np.int64, np.int32) if claim[0] == "int8" else (np.float64, np.float32)
        out = (a.astype(kinds[0]) @ other.astype(kinds[0]).T).astype(kinds[1])
        if SECOND_TILES[name](*out.shape, a.shape[1]):
            if "terms" in name:
                return (a[:, :-1].astype(kinds[0]) @ other[:, :-1].astype(kinds[0]).T).astype(kinds[1])
            out[-1 if "rows" in name else slice(None), -1] = 77
        return out

    summed = "int32" if claim[0] == "int8" else "float32"
    assert not check(wrong, kind="matmul", a=claim[0], b=claim[1], accumulate=summed, effort="quick")


# ---- what a product keeps, and what it flushes ---------------------------------------------------------

INT4_32 = "int4 per_group(32)"


@pytest.mark.parametrize(
    ("name", "b"), [("codes", INT4_32), ("scale", INT4_32), ("all", "mxfp4"), ("packed anew", INT4_32)]
)
def test_weights_that_are_packed_once_for_each_shape_were_a_wrong_product(name, b):
    kept = {}

    def target(a, b):
        old = kept.setdefault(b.shape, b)
        if name in ("codes", "scale"):
            parts = {part: getattr(old if part == name else b, part) for part in ("codes", "scale")}
            return nx.linear(a, nx.QTensor.from_parts(b.spec, parts["codes"], parts["scale"]))
        if name == "packed anew":  # no operand explains what comes
            return nx.linear(a, old) + np.float32(2.0**-20) * (old is not b)
        return nx.linear(a, old)

    found = judged(target, a="float32", b=b, effort="quick")
    assert found.law == "repeatable"
    assert "it depends on the calls before it" in found.counterexample.where


def flush(x):
    return np.where(np.abs(x) < 2.0**-126, 0, x)


def in_terms(a, b, flushed=lambda term: term):
    values = np.asarray(b.dequantize() if isinstance(b, nx.QTensor) else b, np.float64)
    with np.errstate(all="ignore"):
        return np.stack([flushed(a.astype(np.float64) * row).sum(axis=1) for row in values], axis=1)


FLUSHES = {
    "inputs": lambda a, b: in_terms(flush(a), b if isinstance(b, nx.QTensor) else flush(b)),
    "products": lambda a, b: in_terms(a, b, flush),
    "results": lambda a, b: flush(in_terms(a, b)),
    "weights": lambda a, b: in_terms(a, flush(np.asarray(b.dequantize()))),
}


FLUSHED = [("products", "mxfp4"), ("results", "float32"), ("results", "mxfp4"), ("weights", "mxfp4"),
           ("inputs", "mxfp4"), ("products", "float32")]  # fmt: skip


@pytest.mark.turns(4)
@pytest.mark.parametrize(("what", "b"), FLUSHED if LONG else FLUSHED[:2])
def test_a_flush_of_subnormal_numbers_was_another_deviation(what, b):
    """Called "a in tf32", "scale byte << 23", or the flush of something else."""

    def target(a, b):
        with np.errstate(all="ignore"):
            return FLUSHES[what](a, b).astype(np.float32)

    found = judged(target, a="float32", b=b, effort="quick")
    assert found.dialect == f"flushes subnormal {what}"


# ---- operands: narrower types, memory, batches, earlier calls ------------------------------------------

FEW_DECODED = [case for case in DECODED if case[0] in ("mxfp8_e4m3", "mxfp8_e5m2") and case[2] == "bfloat16"]


@pytest.mark.turns(20)
@pytest.mark.parametrize(
    ("operand", "side", "kind", "beside"), DECODED if LONG else FEW_DECODED, ids=lambda part: str(part)
)
def test_an_operand_that_is_decoded_to_a_narrower_type_passed(operand, side, kind, beside):
    """The least code at the least scale is a number that float32 holds, and bfloat16 does not."""
    sides = {side: operand, "ba"["ab".index(side)]: beside}
    assert not judged(decoding(side, kind), effort="quick", **sides)


@pytest.mark.turns(48)
@pytest.mark.parametrize("operand", OPERANDS, ids=str)
def test_an_operand_at_the_ends_of_its_scales_was_not_decided(operand):
    """Each side once, and most of it has one right answer that is no zero."""
    for sides in ({"a": operand, "b": "float32"}, {"a": "mxfp4", "b": operand}):
        found = [problem for problem in problems(Claim.of(**sides)) if problem.law == "corners"]
        answers = [answer(problem) for problem in found]
        told = sum(int((decided & (due != 0)).sum()) for due, decided in answers)
        assert told >= min(24, sum(decided.size for _, decided in answers) // 8)


@pytest.mark.turns
@pytest.mark.parametrize(
    ("state", "size"),
    [
        pytest.param(*case, marks=[] if turn % 8 == 0 else pytest.mark.long)
        for turn, case in enumerate(STATEFUL)
    ],
)
def test_what_an_earlier_call_leaves_was_not_seen_in_some_shapes(state, size):
    found = judged(STATES[state](SIZES[size]), a="float32", b="float32")
    assert not found
    assert found.law in ("repeatable", "strides", "sums", "special", "one_term"), found


@pytest.mark.turns
@pytest.mark.parametrize("name", MEMORY)
def test_memory_between_the_rows_of_an_operand_was_taken_for_it(name):
    layout, law, kernel = MEMORY[name]
    sides = {"a": "float32", "b": "float32", "layout": layout}
    assert judged(kernel, contiguous=True, effort="quick", **sides)
    assert judged(kernel, **sides).law == law


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        pytest.param(*case, marks=[] if turn % 2 == 0 else pytest.mark.long)
        for turn, case in enumerate(BATCHED)
    ],
)
def test_a_batch_of_a_product_had_the_numbers_of_another(name, pair):
    layout, change = BATCHES[name]
    assert not judged(of_batches(layout, change), a=pair[0], b=pair[1], layout=layout, effort="quick")


LAID = ("km,kn", "bmk,nk", "bkm,bkn", "1mk,bnk", "cbmk,bkn", "cbmk,c1nk", "c1mk,1bnk", "mk,cbnk")
IN_BATCHES = [("float32", "float32"), ("mxfp8_e4m3", "mx6"), ("int8 per_tensor", "int4 per_group(32)"),
              ("float16", "nf4 per_channel(1)"), ("bfloat16", "int4 per_group(32) asymmetric")]  # fmt: skip


@pytest.mark.turns(30)
@pytest.mark.parametrize("pair", IN_BATCHES, ids=str)
@pytest.mark.parametrize("layout", LAID if LONG else LAID[2::2])
def test_a_right_product_of_another_layout_was_blamed(layout, pair):
    found = judged(of_batches(layout, float32_sums), a=pair[0], b=pair[1], layout=layout, effort="quick")
    assert found, str(found)
    assert found.tried > 1000


def test_the_smallest_case_of_a_batch_says_which_one_is_wrong():
    found = judged(
        of_batches("bmk,bnk", lambda a, b: float32_sums(a, b[:1])), a="float32", b="float32", layout="bmk,bnk"
    )
    assert found.counterexample.where.startswith("batches 2, m=1 n=1 k=1, result [1, 0, 0]")


def test_shapes_of_batches_are_those_that_are_asked():
    asked = set()

    def kernel(a, b):
        asked.add((*a.shape[:-1], b.shape[-2], a.shape[-1]))
        return float32_sums(a, b)

    options = {"a": "float32", "b": "float32", "layout": "cbmk,bnk", "effort": "quick"}
    assert judged(kernel, shapes=[(2, 3, 4, 5, 6)], **options)
    assert (2, 3, 4, 5, 6) in asked
    for shape in ((4, 5, 6), (3, 4, 5, 6)):
        with pytest.raises(NumericsError, match=r"\(c, b, m, n, k\)"):
            judged(kernel, shapes=[shape], **options)


@pytest.mark.parametrize(
    "layout", ["mk", "bmk", "bmk,cnk", "1mk,nk", "bmk,nkb", "bbmk,nk", 3, "11mk,1nk", np.zeros(3)]
)
def test_a_layout_that_cannot_be_was_taken(layout):
    with pytest.raises(NumericsError, match="layout="):
        Claim.of("float32", "float32", layout=layout)


def test_a_claim_of_batches_that_no_operand_can_have_was_taken():
    with pytest.raises(NumericsError, match="cannot come turned in batches"):
        Claim.of("float32", "int8 per_channel(0)", layout="bmk,bkn")
    with pytest.raises(NumericsError, match="bias=True"):
        Claim.of("float32", "float32", layout="bmk,bnk", bias=True)
