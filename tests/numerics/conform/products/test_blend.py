"""Products that alpha multiplies, that are added to c, or written into memory of the caller's, judged."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.conform import check
from numerics.conform.products.cases.order import problems
from numerics.conform.products.certificate import answer
from numerics.conform.products.claim import Claim
from numerics.conform.products.lying import expanded
from numerics.conform.products.telling.deviations.table import DEVIATIONS, OF_BIASES, OF_BLENDS
from numerics.formats.errors import NumericsError
from tests.helpers.blend_faults import (
    BLENDS,
    EXPANDED,
    FLOAT,
    LATE,
    RESULTS,
    TO_BFLOAT16,
    TO_FLOAT16,
    UNNAMED,
    Scratch,
    blending,
    filling,
    right,
    times,
)
from tests.helpers.operand_faults import float32_sums, of_batches, values
from tests.helpers.product_faults import to_out

LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))
BOTH = {"alpha": True, "beta": True}
SINGLE = ((4, 6, 24), (17, 5, 33), (66, 4, 8))
BATCHES = ((3, 4, 6, 24), (2, 17, 5, 33))
CLAIMS = (FLOAT, TO_BFLOAT16, TO_FLOAT16)


def judged(target, **claim):
    """Kernels here are written for products that have terms; the law `empty` is tested apart."""
    return check(target, kind="matmul", **{"nonempty": True, **claim})


def shapes_of(layout):
    return SINGLE if "b" not in layout else BATCHES


# ---- alpha and beta ---------------------------------------------------------------------------------


@pytest.mark.turns(6)
@pytest.mark.parametrize("claim", CLAIMS if LONG else CLAIMS[:1], ids=str)
@pytest.mark.parametrize("name", BLENDS)
def test_a_fault_of_alpha_or_beta_had_no_name(name, claim):
    kernel = blending(BLENDS[name], claim.get("out", "float32"))
    found = judged(kernel, effort="quick", shapes=None if "exchanged" in name else SINGLE, **BOTH, **claim)
    assert found.law in ("alpha", "beta", "unread"), str(found)
    assert found.dialect == name
    assert found.counterexample.terms[-1].startswith("alpha ")


@pytest.mark.parametrize("name", UNNAMED)
def test_a_fault_of_alpha_or_beta_passed(name):
    found = judged(blending(UNNAMED[name]), effort="quick", **BOTH, **FLOAT)
    assert found.law in ("alpha", "beta"), str(found)


@pytest.mark.turns(8)
@pytest.mark.parametrize("claim", CLAIMS[1:], ids=str)
@pytest.mark.parametrize("name", LATE)
def test_a_product_that_is_rounded_before_it_is_blended_passed(name, claim):
    found = judged(blending(LATE[name](claim["out"]), claim["out"]), shapes=SINGLE, **BOTH, **claim)
    assert found.law in ("alpha", "beta")
    if claim is TO_FLOAT16:  # of bfloat16 an alpha of many bits is rounded in float32, too
        assert found.dialect == name


@pytest.mark.parametrize("claim", CLAIMS[1:], ids=str)
def test_an_alpha_of_few_bits_was_hidden_by_the_rounding_of_the_result(claim):
    kernel = blending(BLENDS["alpha and beta in bfloat16"], claim["out"])
    assert not judged(kernel, shapes=SINGLE, **BOTH, **claim)


def test_c_that_is_read_where_beta_is_0_was_told_as_a_wrong_sum():
    found = judged(blending(BLENDS["c read where beta is 0"]), shapes=SINGLE, **BOTH, **FLOAT)
    assert found.law == "unread"
    assert "beta 0, c " in found.counterexample.terms[-1]


@pytest.mark.turns(4)
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_a_fault_of_large_products_alone_had_no_name(kind):
    """As in torch, which multiplies small ones by a loop of its own."""

    def leaves_c(x, c, alpha, beta):
        return c if alpha == 0 and x.size > 20 else right(x, c, alpha, beta)

    claim = {"a": kind, "b": kind, "out": kind, "shapes": ((1, 2, 3), *SINGLE[:1]), **BOTH}
    found = judged(blending(leaves_c, kind), effort="quick", **claim)
    assert (found.law, found.dialect) == ("beta", "c left where alpha is 0"), str(found)
    assert "in shapes like this one" in str(found)
    assert judged(blending(right, kind), effort="quick", **claim)


def reference_blas(a, b, c, alpha, beta):
    """alpha multiplies each element of b, and sums begin with beta * c, as reference BLAS has it."""
    with np.errstate(all="ignore"):
        total = np.broadcast_to(times(beta, c), (len(a), len(b))).astype(np.float32)
        for k in range(a.shape[1]):
            total = total + a[:, k, None] * (np.float32(alpha) * b[None, :, k])
        return total if alpha else np.broadcast_to(times(beta, c), total.shape).astype(np.float32)


@pytest.mark.turns
def test_a_right_order_of_alpha_and_beta_was_blamed():
    for kernel, shapes in ((blending(right), None), (reference_blas, SINGLE)):
        found = judged(kernel, effort="quick", shapes=shapes, **BOTH, **FLOAT)
        assert found, str(found)
        assert {"alpha", "beta", "unread"} <= set(found.laws)


@pytest.mark.turns
def test_our_own_product_and_those_of_torch_were_blamed():
    def ours(a, b, c, alpha, beta):
        return np.float32(alpha) * nx.linear(a, b) + times(beta, c)

    def added(a, b, c, alpha, beta):
        return torch.addmm(c, a, b.T, alpha=alpha, beta=beta)

    def in_batches(a, b, c, alpha, beta):
        return torch.baddbmm(c, a, b, alpha=alpha, beta=beta)

    assert judged(ours, a="float32", b="mxfp4", shapes=SINGLE, **BOTH)
    assert judged(added, array="torch", shapes=SINGLE, **BOTH, **FLOAT)
    assert judged(in_batches, array="torch", layout="bmk,bkn", shapes=BATCHES, **BOTH, **FLOAT)


@pytest.mark.turns
def test_alpha_alone_and_c_alone_are_taken():
    assert judged(lambda a, b, alpha: np.float32(alpha) * (a @ b.T), alpha=True, shapes=SINGLE, **FLOAT)
    assert judged(lambda a, b, c, beta: a @ b.T + times(beta, c), beta=True, shapes=SINGLE, **FLOAT)
    found = judged(lambda a, b, alpha: a @ b.T, alpha=True, shapes=SINGLE, **FLOAT)
    assert found.dialect == "alpha ignored"


WHOLE = {"a": "int8", "b": "int8", "accumulate": "int32", **BOTH}


@pytest.mark.turns
def test_integers_are_blended_modulo_a_power_of_two():
    def kernel(a, b, c, alpha, beta):
        wide = alpha * (a.astype(np.int64) @ b.astype(np.int64).T) + beta * c.astype(np.int64)
        return wide.astype(np.int32)

    def unscaled(a, b, c, alpha, beta):
        return kernel(a, b, c, alpha, 1)

    assert judged(kernel, effort="quick", **WHOLE)
    assert judged(unscaled, effort="quick", **WHOLE).dialect == "beta ignored"


@pytest.mark.parametrize(
    "claim", [FLOAT, TO_FLOAT16, {"a": "float32", "b": "uint4 per_group(32) asymmetric"}]
)
def test_few_results_of_alpha_and_beta_were_decided(claim):
    asked = [one for one in problems(Claim.of(**claim, **BOTH), shapes=SINGLE) if one.law in LAWS]
    told = [answer(problem)[1] for problem in asked]
    for law in LAWS:
        mine = [one for problem, one in zip(asked, told, strict=True) if problem.law == law]
        assert len(mine) >= 9
        assert np.mean([one.mean() for one in mine]) > 0.6


LAWS = ("alpha", "beta", "unread")


BIASED = {
    "bias ignored": lambda x, bias, c, alpha, beta: right(x, c, alpha, beta),
    "alpha of the bias, too": lambda x, bias, c, alpha, beta: right(x + bias, c, alpha, beta),
    "beta of the bias, too": lambda x, bias, c, alpha, beta: right(x, c, alpha, beta) + times(beta, bias),
    "c ignored": lambda x, bias, c, alpha, beta: np.float32(alpha) * x + bias,
}
"""How a fault adds the bias of an epilogue; its name is that of the deviation."""


def biased(blend, out="float32"):
    """A product with an epilogue: a function adds bias and beta * c; what comes is rounded once."""

    def kernel(a, b, bias, c, alpha, beta):
        with np.errstate(all="ignore"):
            x = float32_sums(values(a), values(b))
            return to_out(np.float32(blend(x, values(bias), values(c), alpha, beta)), out)

    return kernel


def epilogue(x, bias, c, alpha, beta):
    return right(x, c, alpha, beta) + bias


@pytest.mark.turns
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [None, *BIASED])
def test_a_bias_was_not_judged_beside_alpha_and_beta(name, kind):
    """D = alpha * product + beta * c + bias, as epilogues of cuBLASLt have it."""
    claim = {"a": kind, "b": kind, "out": kind, "bias": True, "shapes": SINGLE, "effort": "quick", **BOTH}
    assert judged(biased(epilogue, kind), **claim)
    if name is not None:
        assert judged(biased(BIASED[name], kind), **claim).dialect == name


@pytest.mark.parametrize("options", [{}, BOTH])
def test_a_bias_that_is_added_after_rounding_had_no_name(options):
    def late(a, b, bias, c=0, alpha=1, beta=0):
        x = values(to_out(right(float32_sums(values(a), values(b)), values(c), alpha, beta), "bfloat16"))
        with np.errstate(all="ignore"):
            return to_out(x + values(bias), "bfloat16")

    found = judged(late, bias=True, shapes=SINGLE, effort="quick", **TO_BFLOAT16, **options)
    assert found.dialect == "bias after rounding", str(found)


@pytest.mark.turns
def test_few_results_of_a_bias_beside_alpha_and_beta_were_decided():
    asked = list(problems(Claim.of(**FLOAT, bias=True, **BOTH)))
    told = [
        (one, answer(one)[1].mean()) for one in asked if one.bias is not None and 0 not in one.sizes_of_all
    ]
    for law in ("alpha", "beta", "unread", "bias", "sums"):
        mine = [mean for one, mean in told if one.law == law]
        assert len(mine) >= 4
        assert np.mean(mine) > 0.6, law
    assert any(one.bias.any() and one.blend.alpha != 1 and one.blend.c.any() for one, mean in told if mean)


@pytest.mark.parametrize("given", [{"in_place": True, "fills": True},
                                   {"in_place": True, "beta": True}, {"alpha": 2.0}])  # fmt: skip
def test_options_of_alpha_and_beta_that_cannot_be_were_taken(given):
    with pytest.raises(NumericsError, match=r"alpha|beta|fills"):
        judged(np.matmul, **FLOAT, **given)
    with pytest.raises(NumericsError, match="matmul"):
        check(nx.fp4.encode, "fp4", beta=True)


def test_two_deviations_of_blends_had_the_same_name():
    known = [deviation.name for deviation in DEVIATIONS + OF_BLENDS + OF_BIASES]
    assert len(set(known)) == len(known)


# ---- the array of the result -------------------------------------------------------------------------


def gemm(reads, scaled=True):
    """gemm of BLAS, whose result holds c; reads: c where beta is 0, too."""

    def kernel(a, b, alpha, beta, c):
        with np.errstate(all="ignore"):
            before = np.float32(beta) * c if reads or beta else np.float32(0)
            c[...] = np.float32(alpha if scaled else 1) * (a @ b.T) + before

    return kernel


@pytest.mark.turns
def test_a_result_that_holds_c_was_not_judged():
    options = {"in_place": True, "fills": True, "shapes": SINGLE, **BOTH, **FLOAT}
    assert judged(gemm(False), **options)
    assert judged(gemm(True), **options).dialect == "c read where beta is 0"
    assert judged(gemm(False, scaled=False), **options).dialect == "alpha ignored"


@pytest.mark.parametrize("name", RESULTS)
def test_the_leading_dimension_of_a_result_was_not_asked(name):
    layout, write = RESULTS[name]
    options = {"fills": True, "layout": layout, "shapes": shapes_of(layout), **FLOAT}
    found = judged(filling(write), **options)
    assert found.law == "within", str(found)
    assert ", in a result " in found.counterexample.where
    assert judged(filling(write), contiguous=True, **options)


ADDING = {
    "always": lambda a, out: True,
    "past 16 rows": lambda a, out: len(a) > 16,
    "where rows have gaps": lambda a, out: not out.flags.c_contiguous,
    "the last column": lambda a, out: (np.arange(out.shape[1]) == out.shape[1] - 1) & (len(a) > 1),
}
"""Where a kernel adds to what lies in the array of its result."""


@pytest.mark.parametrize("out", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ADDING)
def test_a_kernel_that_adds_to_what_lies_in_its_result_was_not_told_so(name, out):
    """Small numbers, as memory held, are lost in most sums; a result that is 0 was told as not written."""

    def write(a, b, result):
        with np.errstate(all="ignore"):
            before = np.where(ADDING[name](a, result), result.astype(np.float32), np.float32(0))
            result[...] = to_out(before + float32_sums(values(a), values(b)), out)

    found = judged(write, a="float32", b="float32", out=out, fills=True, shapes=SINGLE)
    assert found.law == "written", str(found)
    assert "it adds to what memory held" in found.counterexample.where
    assert ("in a result" in found.counterexample.where) is (name == "where rows have gaps")


def test_a_kernel_that_adds_to_its_last_result_was_not_told_so():
    kept = {}

    def kernel(a, b):
        room = kept.setdefault((len(a), len(b)), np.zeros((len(a), len(b)), np.float32))
        room += a @ b.T
        return room.copy()

    found = judged(kernel, shapes=SINGLE, **FLOAT)
    assert found.law == "repeatable"
    assert "it adds to what came of the last one of that shape" in found.counterexample.where


def test_integers_that_are_added_to_memory_are_told_so():
    def write(a, b, result):
        result += a.astype(np.int32) @ b.astype(np.int32).T

    whole = {"a": "int8", "b": "int8", "accumulate": "int32", "fills": True, "shapes": SINGLE}
    assert "it adds to what memory held" in judged(write, **whole).counterexample.where


@pytest.mark.turns
@pytest.mark.parametrize("layout", ["nk", "bmk,bnk", "cbmk,1nk"])
@pytest.mark.parametrize("out", ["float32", "bfloat16", "float16"])
def test_a_right_kernel_that_fills_any_array_was_blamed(layout, out):
    def write(a, b, result):
        result[...] = to_out(float32_sums(values(a), values(b)), out)

    shapes = {"nk": SINGLE, "bmk,bnk": BATCHES}.get(layout, ((2, 3, 4, 5, 6),))
    assert judged(write, a="float32", b="float32", out=out, layout=layout, fills=True, shapes=shapes)


def test_a_tensor_with_gaps_is_filled():
    def write(a, b, result):
        torch.matmul(a, b.mT, out=result)

    assert judged(write, fills=True, array="torch", shapes=SINGLE, **FLOAT)


# ---- batches, with types of results, strides of 0, and threads ---------------------------------------


def _cut(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_result_of_one_batch_is_rounded_otherwise_and_passed(batch):
    def change(a, b):
        found = float32_sums(a, b)
        found[batch] = _cut(found[batch])
        return to_out(found, "bfloat16")

    layout = {"a": "float32", "b": "float32", "out": "bfloat16", "layout": "bmk,bnk", "effort": "quick"}
    found = judged(of_batches("bmk,bnk", change), **layout)
    assert found.law in ("one_term", "output"), str(found)


def test_what_does_not_depend_on_an_axis_has_a_stride_of_0_there():
    for x in (np.float32([[1, 2], [1, 2]]), np.float32([[1, 1], [2, 2]]), np.float32([[3, 3], [3, 3]])):
        y = expanded(x)
        assert np.array_equal(x, y)
        assert [not step for step in y.strides] == [bool((x.take([0], axis) == x).all()) for axis in (0, 1)]


@pytest.mark.parametrize("name", EXPANDED)
def test_an_operand_with_strides_of_0_was_not_given(name):
    layout, kernel = EXPANDED[name]
    options = {"layout": layout, "shapes": shapes_of(layout), **FLOAT}
    found = judged(kernel, **options)
    assert found.law == "strides"
    assert "strides of 0" in found.counterexample.where
    assert judged(kernel, effort="quick", contiguous=True, **options)


def test_c_with_strides_of_0_was_not_given():
    def kernel(a, b, c, alpha, beta):
        first = c if 0 not in c.strides or c.size == 1 else np.zeros_like(c)
        return right(a @ b.T, first, alpha, beta)

    assert judged(kernel, shapes=SINGLE, **BOTH, **FLOAT).law == "strides"


@pytest.mark.parametrize("layout", ["nk", "bmk,bnk"])
def test_two_threads_did_not_multiply_at_once(layout):
    options = {"layout": layout, "shapes": shapes_of(layout), **FLOAT}
    found = judged(Scratch(), **options)
    assert found.law == "threads", str(found)
    assert found.counterexample.where.endswith("while another thread called")
    alone = judged(Scratch(), one_thread=True, **options)
    assert alone
    assert "threads" not in alone.laws
    assert any("calls of two threads" in note for note in alone.notes)


@pytest.mark.turns
def test_the_command_line_takes_alpha_and_beta(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from numerics.cli import commands

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "their_gemm.py").write_text(
        "import numpy\n"
        "def gemm(a, b, alpha, beta, c):\n"
        "    c[...] = numpy.float32(alpha) * (a @ b.T) + beta * c\n",
        encoding="utf-8",
    )
    words = ["conform", "their_gemm:gemm", "--kind", "matmul", "--a", "float32", "--b", "float32", "--alpha",
             "--beta", "--in-place", "--fills", "--effort", "quick", "--here"]  # fmt: skip
    said = CliRunner().invoke(commands, words)
    assert said.exit_code == 1, said.output
    assert "law unread" in said.output
    assert "c read where beta is 0" in said.output
