"""clip_gradient: in range is what rounds onto the grid, for every format and every way to scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import numerics as nx
from numerics.pytorch.gradients import reach
from numerics.pytorch.operators import OPERATORS

NEAR = 200


def mask(x: torch.Tensor, d: object, **options) -> list[float]:
    leaf = x.clone().requires_grad_()
    nx.fake_quantize(leaf, d, clip_gradient=True, **options).sum().backward()
    return leaf.grad.tolist()


def test_the_largest_element_keeps_its_gradient():
    """0.23 / 7 is rounded down as a scale, so 0.23 lay beyond 7 scales, and nothing was clipped."""
    assert mask(torch.tensor([0.23, 0.115]), "int4") == [1.0, 1.0]


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("d", "options"),
    [
        ("int4", {}),
        ("int8", {"scheme": "per_channel(0)"}),
        ("int16", {"scheme": "per_group(16)"}),
        ("uint4", {"symmetric": False, "zero_point_type": "float32", "scheme": "per_channel(0)"}),
        ("fp8_e4m3", {"scheme": "per_channel(0)"}),
        ("fp4", {"scheme": "per_group(16)", "rounding": "ceil"}),
        ("nvfp4", {}),
        ("nvfp4", {"rounding": "stochastic", "seed": 3}),
    ],
)
def test_where_a_scale_is_found_nothing_is_out_of_range(d, options, kind):
    """A scale that is rounded moves the largest element by less than half a step."""
    x = torch.from_numpy(np.random.default_rng(4).standard_normal((NEAR, 32))).to(kind)
    assert set(np.ravel(mask(x, d, **options))) == {1.0}


@pytest.mark.parametrize("zero", [0, 3, -8])
def test_the_mask_is_that_of_torch(zero):
    x = torch.linspace(-2, 2, 4001)
    leaf = x.clone().requires_grad_()
    torch.fake_quantize_per_tensor_affine(leaf, 0.125, zero, -8, 7).sum().backward()
    assert mask(x, "int4", scale=0.125, symmetric=False, zero_point=zero) == leaf.grad.tolist()


@pytest.mark.parametrize(
    "d", ["fp4", "fp6_e2m3", "fp8_e4m3", "fp8_e5m2", "fp8_e4m3fnuz", "e8m0", "int8", "uint4"]
)
def test_what_rounds_to_the_largest_value_is_in_range(d):
    """Against what the next value would be, were there one: exact, in float64."""
    d = nx.dtype(d)
    top, before = d.max, d.decode(d.encode(d.max) - 1)
    step = top - before if d.kind == "integer" or d.mantissa else top  # from a power of two on steps double
    tie = top + step / 2
    even = d.encode(d.max) % 2 == 0
    x = torch.tensor([top, np.nextafter(tie, 0), tie, np.nextafter(tie, np.inf)], dtype=torch.float64)
    given = {"scale": torch.tensor(1.0, dtype=torch.float64), "scale_type": "float"}
    assert mask(x, d, **given) == [1.0, 1.0, float(even), 0.0]
    assert reach(d).high == tie


@pytest.mark.parametrize("d", ["mxfp4", "mxfp8_e4m3", "mxint8", "mxfp6_e3m2"])
def test_in_a_block_it_is_the_element_that_is_rounded(d):
    """The block's largest value gives the scale, rounded down: what is beyond the format then was clipped."""
    d = nx.dtype(d)
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((64, 32)).astype(np.float32))
    blocks = d.encode(x)
    unit = d.element_unit * np.exp2(blocks.scale.numpy().astype(np.float64) - 127)
    end = reach(d.element)
    quotient = np.abs(x.numpy().astype(np.float64)) / unit
    due = (quotient <= end.high) if end.high_in else (quotient < end.high)
    found = np.asarray(mask(x, d))
    assert np.array_equal(found.astype(bool), due)
    assert d.name == "mxint8" or 0 < due.mean() < 1


@pytest.mark.filterwarnings("ignore:.* values are NaN and become .*:numerics.NumericsWarning")
def test_zeros_infinities_and_nan():
    for d in ("int8", "fp4", "mxfp4", "mx6", "nvfp4"):
        assert mask(torch.zeros(32), d) == [1.0] * 32
        assert mask(torch.tensor([torch.nan, torch.inf, -torch.inf]), d) == [0.0] * 3


def test_the_range_is_one_operator():
    """So that it is traced as such, in a graph of gradients too."""
    assert "within_range" in OPERATORS
    torch._dynamo.reset()
    x = torch.tensor([0.23, 0.115, -0.3], requires_grad=True)
    call = torch.compile(lambda x: nx.fake_quantize(x, "int4", clip_gradient=True), backend="aot_eager")
    call(x).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]
