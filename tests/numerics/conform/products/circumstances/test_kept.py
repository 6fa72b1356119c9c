"""Is a kernel told that it keeps what it was given where it does, and not where it takes a constant?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check

U4, W4, W8 = "uint4 per_group(32) asymmetric", "int4 per_group(32)", "int8 per_tensor"
BEFORE = "it depends on the calls before it"
SHAPES = [(1, 1, 1), (4, 3, 40)]


def product(a, b):
    with np.errstate(all="ignore"):
        values = np.asarray(b.dequantize("float32"), np.float64)
        return (a.astype(np.float64) @ values.T).astype(np.float32)


def judged(kernel, b, shapes=SHAPES):
    return check(kernel, kind="matmul", a="float32", b=b, effort="quick", shapes=shapes)


CONSTANT = {
    "zero points are 0": (U4, lambda b: replace(b, zero_point=np.zeros_like(b.zero_point))),
    "zero points are 5": (U4, lambda b: replace(b, zero_point=np.full_like(b.zero_point, 5))),
    "scales are 1": (W4, lambda b: replace(b, shared=np.ones_like(b.scale))),
    "the scale is 1": (W8, lambda b: replace(b, shared=np.ones_like(b.scale))),
    "codes of scales are those of 1": ("mxfp4", lambda b: replace(b, shared=np.full_like(b.scale, 127))),
    "the tensor's scale is 1": ("nvfp4", lambda b: replace(b, tensor_scale=np.float32(1))),
}
"""What a kernel without memory takes b for: a number that the first call of a shape may have had."""


@pytest.mark.parametrize("name", CONSTANT)
def test_a_part_of_an_operand_that_is_ignored_was_told_as_kept_from_the_first_call(name):
    b, other = CONSTANT[name]
    found = judged(lambda a, b: product(a, other(b)), b)
    assert not found
    assert found.law != "repeatable"
    assert BEFORE not in found.counterexample.where


def test_zero_points_that_are_ignored_were_told_as_kept_from_the_first_call():
    b, other = CONSTANT["zero points are 0"]
    found = judged(lambda a, b: product(a, other(b)), b)
    assert found.dialect == "zero point ignored", str(found)


KEPT = {"zero_point": U4, "scale": W4, "tensor_scale": "nvfp4"}


@pytest.mark.parametrize("shapes", [SHAPES, SHAPES[1:]], ids=["one number", "several"])
@pytest.mark.parametrize("part", KEPT)
def test_a_part_of_an_operand_that_is_kept_for_a_shape_is_told_so(part, shapes):
    first = {}

    def kernel(a, b):
        parts = {
            name: getattr(first.setdefault((a.shape, b.shape), b) if name == part else b, name)
            for name in ("zero_point", "tensor_scale", "scale")
        }
        b = nx.QTensor.from_parts(b.spec, b.codes, parts["scale"], zero_point=parts["zero_point"],
                                  tensor_scale=parts["tensor_scale"])  # fmt: skip
        return product(a, b)

    found = judged(kernel, KEPT[part], shapes)
    assert found.law == "repeatable"
    assert BEFORE in found.counterexample.where
