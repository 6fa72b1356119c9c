"""Are operands asked that are one array, and tensors that begin within their storage?"""

from __future__ import annotations

import numpy as np
import pytest

from numerics.conform import check
from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases.aliasing import aliased
from numerics.conform.products.cases.order import problems
from numerics.conform.products.claim import INT32, VALUES, Claim
from numerics.conform.products.given import arguments
from numerics.formats.block import Block
from numerics.formats.dtype import Integer
from numerics.formats.errors import NumericsError
from numerics.formats.registry import dtypes

SCHEMES = ("per_tensor", "per_channel(0)", "per_token", "per_group(32)", "per_channel(1)")


def every_operand():
    """Plain numbers, each format of blocks, each element under a scheme in turn, with zero points too."""
    yield from VALUES
    for turn, dtype in enumerate(dtypes()):
        scheme = "" if isinstance(dtype, Block) else f" {SCHEMES[turn % len(SCHEMES)]}"
        yield f"{dtype}{scheme}"
        if isinstance(dtype, Integer):
            yield f"{dtype}{scheme} asymmetric"


OPERANDS = tuple(every_operand())
INTEGERS = ("int2", "int4", "int8", "uint2", "uint4", "uint8")
REFUSED = {"e8m0", "hifloat4", "if3", "if4", "if6_e2m3", "if6_e3m2"}
"""Formats whose products are not judged."""

PLAIN = {"a": "float32", "b": "float32"}
CODES = {"a": "mxfp4", "b": "mxfp4"}


def product(a, b):
    a, b = (x if isinstance(x, np.ndarray) else x.dequantize("float32") for x in (a, b))
    with np.errstate(all="ignore"):
        return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)


def one_object(a, b):
    return np.tril(product(a, b)) if a is b else product(a, b)


def one_memory(a, b):
    same = a is not b and a.ctypes.data == b.ctypes.data
    return np.tril(product(a, b)) if same else product(a, b)


def same_numbers(a, b):
    return np.tril(product(a, b)) if len(a) > 1 and np.array_equal(a, b) else product(a, b)


def square_by_itself(a, b):
    """a @ a of a square matrix, where b comes as (k, n)."""
    return product(a, b) if a is b and len(a) > 1 else product(a, b.T)


def claimed(a, b, **options):
    """A claim of these operands; None where it is refused."""
    try:
        return Claim.of(a, b, **options)
    except NumericsError:
        return None


@pytest.mark.parametrize("integers", [False, True], ids=["sums", "of integers"])
def test_a_matrix_of_a_format_without_signs_by_itself_ended_the_judge(integers):
    """A code of minus one was sought among unsigned integers, where there is none."""
    options = {"accumulate": INT32} if integers else {}
    asked = {op: claimed(op, op, **options) for op in (INTEGERS if integers else OPERANDS)}
    for op, claim in asked.items():
        if claim is not None:
            assert [*aliased(claim, np.random.default_rng(0))], op
    refused = {op.split()[0] for op, claim in asked.items() if claim is None}
    assert refused == (set() if integers else REFUSED)


@pytest.mark.turns(40)
@pytest.mark.parametrize("beside", ["itself", "the next", *VALUES])
@pytest.mark.parametrize("place", range(len(OPERANDS)))
def test_a_pair_of_operands_had_no_questions(place, beside):
    """Numbers were drawn beside wide elements, as mxfp8_e5m2's, that float16 does not hold."""
    a, other = OPERANDS[place], OPERANDS[(place + 7) % len(OPERANDS)]
    claim = claimed(a, {"itself": a, "the next": other}.get(beside, beside))
    if claim is not None:
        assert all([*map(arguments, problems(claim, 0, ((2, 3, 5), (2, 2, 1056))))])


def test_unsigned_integers_by_themselves_were_not_judged():
    def kernel(a, b):
        return (a.astype(np.int64) @ b.astype(np.int64).T).astype(np.int32)

    grouped = "uint4 per_group(32) asymmetric"
    for right, claim in (
        (kernel, Claim.of("uint8", "uint8", accumulate=INT32)),
        (product, Claim.of(grouped, grouped)),
    ):
        asked = [*aliased(claim, np.random.default_rng(0))]
        target, wrong = (
            ProductTarget(function, claim)
            for function in (right, lambda a, b, right=right: np.tril(right(a, b)))
        )
        assert not any(target.see(problem).wrong.any() for problem in asked)
        assert any(wrong.see(problem).wrong.any() for problem in asked)


@pytest.mark.turns(8)
@pytest.mark.parametrize(
    ("kernel", "claim", "said"),
    [
        (one_object, PLAIN, "that are one object"),
        (one_object, CODES, "that are one object"),
        (one_memory, PLAIN, "two views of the same memory"),
        (same_numbers, PLAIN, "that hold the same numbers"),
        (square_by_itself, {**PLAIN, "layout": "kn"}, "that are one object"),
    ],
)
def test_a_matrix_that_is_multiplied_by_itself_was_not_asked(kernel, claim, said):
    found = check(kernel, kind="matmul", effort="quick", **claim)
    assert found.law == "aliasing", str(found)
    assert said in found.counterexample.where


@pytest.mark.turns(6)
@pytest.mark.parametrize("layout", ["nk", "kn", "bmk,bkn"])
def test_numpys_own_way_for_a_matrix_by_itself_was_blamed(layout):
    def kernel(a, b):
        return np.matmul(a, b if layout.endswith("kn") else b.T)

    found = check(kernel, kind="matmul", effort="quick", layout=layout, **PLAIN)
    assert found, str(found)
    assert "aliasing" in found.laws


@pytest.mark.turns(12)
@pytest.mark.parametrize("which", ["a", "b", "bias", "packed", "shared"])
def test_a_kernel_that_reads_from_the_beginning_of_a_storage_passed(which):
    torch = pytest.importorskip("torch")

    def from_start(x):
        return x.as_strided(x.shape, x.stride(), 0)

    def kernel(a, b, bias):
        if which == "a":
            a = from_start(a)
        if which == "bias":
            bias = from_start(bias)
        if not isinstance(b, torch.Tensor) or hasattr(b, "packed"):
            parts = {name: getattr(b, name) for name in ("packed", "shared")}
            if which in parts:
                parts[which] = from_start(parts[which])
            b = b.with_parts(b.spec, tuple(b.shape), parts["packed"], parts["shared"], None)
            b = b.dequantize()
        elif which == "b":
            b = from_start(b)
        return (a.double() @ b.double().T + bias.double()).float()

    codes = which in ("packed", "shared")
    claim = {"a": "float32", "b": "mxfp4" if codes else "float32", "bias": True, "array": "torch"}
    found = check(kernel, kind="matmul", effort="quick", **claim)
    assert not found
    assert found.law == "strides", str(found)
    assert "begin within their storage" in str(found)
    which = "none"
    assert check(kernel, kind="matmul", effort="quick", **claim)


def of_a_turned_view(a, b):
    """Zeros, where b is a view of a that lies turned."""
    view = len(a) > 1 and np.shares_memory(a, b) and a.strides == b.strides[::-1] != b.strides
    return product(a, b) * np.float32(not view)


def of_turned_memory(a, b):
    """A square matrix that lies turned is read as it lies, whoever's memory it is."""
    turned = len(b) == b.shape[1] > 1 and b.strides == (b.itemsize, b.itemsize * len(b))
    return product(a, b.T if turned else b)


@pytest.mark.turns(4)
@pytest.mark.parametrize(
    ("kernel", "law", "said"),
    [
        (of_a_turned_view, "aliasing", "of b that is a turned, a view of it"),
        (of_turned_memory, "strides", "of b whose columns are dense, without gaps"),
    ],
)
def test_a_turned_view_of_a_was_called_one_object(kernel, law, said):
    found = check(kernel, kind="matmul", effort="quick", **PLAIN)
    assert found.law == law, str(found)
    assert said in found.counterexample.where
