"""tqt_quantize and lsq_quantize by our kernels: what is correct, and what Quark is asked of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import quark_trained
from numerics.adapters.base import Calls
from tests.helpers.adapter_slice import refuses

VECTORS = Path(__file__).parents[2] / "data" / "quark.json"
NONE = torch.zeros(1, dtype=torch.int32)


def made(name, correct, x, scale, *given, host=refuses):
    """The result, both gradients for an incoming gradient of ones, and who answered."""
    calls = Calls()
    function = quark_trained.trained(name, host, getattr(quark_trained, name)(correct), calls)
    x, scale = torch.tensor(x).requires_grad_(), torch.tensor(scale).requires_grad_()
    found = function.apply(x, scale, *given)
    found.sum().backward()
    return found.tolist(), x.grad.tolist(), scale.grad.tolist(), calls


def tqt(correct, x):
    return made("tqt", correct, x, [0.0], NONE, torch.tensor([2.0]), 8)  # int2, scale 1/2


TQT = [v for v in json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"] if v["op"].startswith("tqt")]


def floats(words):
    return (
        torch.tensor([int(word, 16) for word in words], dtype=torch.int64).to(torch.int32).view(torch.float32)
    )


@pytest.mark.parametrize("vector", TQT, ids=lambda v: v["id"])
def test_what_quark_computed_comes_out_with_both_gradients(vector):
    params = vector["params"]
    function = quark_trained.trained("tqt", refuses, quark_trained.tqt(False), Calls())
    x, threshold = (floats(v).requires_grad_() for v in (vector["input"].split(), [params["log_threshold"]]))
    found = function.apply(x, threshold, NONE, torch.tensor([float(params["domain"])]), 8)
    found.backward(floats(params["grad_output"]))
    made = (found.detach(), vector["output"].split()), (x.grad, vector["grad_input"])
    for ours, theirs in (*made, (threshold.grad, vector["grad_log_threshold"])):
        assert torch.equal(floats(theirs).view(torch.int32), ours.view(torch.int32))


def test_a_negative_tie_goes_up_in_quarks_gradient_and_to_even_where_it_is_correct():
    for correct, rounded in ((False, 0.0), (True, 0.0)):
        assert tqt(correct, [-0.25])[2] == [pytest.approx((rounded + 0.5) * 0.5 * math.log(2))]
    theirs, ours = tqt(False, [-0.75]), tqt(True, [-0.75])  # -1.5 steps: -2 forward in both
    assert theirs[0] == ours[0] == [-1.0]
    assert theirs[2] == [pytest.approx(+0.5 * 0.5 * math.log(2))]
    assert ours[2] == [pytest.approx(-0.5 * 0.5 * math.log(2))]


def test_nan_is_the_least_to_torch_and_zero_where_it_is_correct():
    assert tqt(False, [math.nan])[0] == [-1.0]
    assert tqt(True, [math.nan])[0] == [0.0]


def test_what_is_clipped_has_no_gradient_and_moves_the_threshold_by_its_end():
    found, of_x, of_threshold, calls = tqt(False, [5.0, -5.0, math.inf])
    assert (found, of_x) == ([0.5, -1.0, 0.5], [0.0, 0.0, 0.0])
    assert of_threshold == [pytest.approx((1 - 2 + 1) * 0.5 * math.log(2))]
    assert dict(calls.ours) == {"tqt": 1, "tqt backward": 1}
    assert not calls.passed_on


@pytest.mark.parametrize("axis", [0, 1, None])
def test_lsq_has_the_formula_of_its_gradient(axis):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 5, generator=generator) * 4
    scale = torch.rand(1 if axis is None else x.shape[axis], generator=generator) + 0.1
    zero = torch.arange(len(scale)).int() % 3
    found, of_x, of_scale, calls = made("lsq", False, x.tolist(), scale.tolist(), zero, 0.25, -8, 7, axis, 8)
    shape = [len(scale) if one == axis else 1 for one in range(2)] if axis is not None else [1, 1]
    step, moved = scale.view(shape), zero.view(shape)
    q = (torch.round(x * (1 / step)) + moved).clamp(-8, 7)
    steps = x / step + moved
    whole = torch.round(steps)
    inside = (whole >= -8) & (whole <= 7)
    slope = torch.where(inside, whole - steps, whole.clamp(-8, 7)) * 0.25
    assert torch.equal(torch.tensor(found), (q - moved) * step)
    assert of_x == inside.float().tolist()
    dims = [one for one in range(2) if one != axis]
    assert torch.allclose(torch.tensor(of_scale), slope.sum(dims).reshape(-1))
    assert not calls.passed_on


def test_inf_nan_and_a_second_derivative_are_quarks():
    asked = []

    def backward(ctx, gradient):
        asked.append((ctx.others, [one.shape for one in ctx.saved_tensors]))
        return gradient, ctx.saved_tensors[1] * 1.0, *(None,) * 6

    host = SimpleNamespace(__name__="Host", backward=backward)
    zero = torch.zeros(1)
    for x in ([[1.0, math.nan]], [[1.0, math.inf]]):  # by columns, which are no rows
        scale = [0.5, 0.5]
        *_, calls = made("lsq", False, x, scale, torch.zeros(2), 0.25, -8, 7, 1, 8, host=host)
        assert dict(calls.passed_on) == {"lsq backward": 1}
    assert asked == [((-8, 7, 1, 0.25), [(1, 2), (2,), (2,)])] * 2
    function = quark_trained.trained("lsq", host, quark_trained.lsq(False), calls)
    x, scale = torch.ones(2, requires_grad=True), torch.full((1,), 0.5, requires_grad=True)
    torch.autograd.grad(function.apply(x, scale, zero, 0.25, -8, 7, None, 8).sum(), x, create_graph=True)
    assert calls.passed_on["lsq backward"] == 2


@pytest.mark.parametrize(("x", "of_x"), [(math.nan, 1.0), (math.inf, 0.0), (-math.inf, 0.0), (3e38, 0.0)])
def test_inf_and_nan_reach_the_gradients_as_in_quarks_formula(x, of_x):
    """Where the step is NaN it counts as inside of the range; where it is infinite, Inf - Inf is summed."""
    zero = torch.zeros(1)
    found, gradient, of_scale, calls = made("lsq", False, [1.0, x], [0.5], zero, 0.25, -8, 7, None, 8)
    assert not calls.passed_on
    assert gradient == [1.0, of_x]
    assert math.isnan(of_scale[0])
    assert math.isnan(found[1]) if math.isnan(x) else abs(found[1]) >= 3.5


def test_what_is_not_taken_is_quarks():
    host = SimpleNamespace(
        __name__="Host", forward=lambda ctx, x, *_: x * 3, backward=lambda ctx, g: (g * 3, None, *[None] * 6)
    )
    x, zero = torch.ones(2, 3).T, torch.zeros(3)
    for given in (
        (torch.ones(3), zero, 0.1, -8, 7, 0, 8),
        (torch.ones(1), torch.zeros(1), 0.1, -9, 7, None, 8),
    ):
        calls = Calls()
        function = quark_trained.trained("lsq", host, quark_trained.lsq(False), calls)
        assert torch.equal(function.apply(x, *given), x * 3)
        assert dict(calls.passed_on) == {"lsq": 1}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "shape", [(3, 70000), (129, 2048), (257, 1025), (130000, 5), (1, 300000), (9, 3, 100, 111)]
)
def test_lsq_sums_some_channels_at_a_time_with_the_bits_of_torchs_sum_of_all(shape, threads):
    generator = torch.Generator().manual_seed(6)
    x, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    scale, zero = torch.rand(shape[0], generator=generator) + 0.1, torch.zeros(shape[0], dtype=torch.int32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _, backward = quark_trained.lsq(False)
        of_x, of_scale = backward(gradient, (x, scale, zero), (-8, 7, 0, 0.5))
        beside = [-1] + [1] * (len(shape) - 1)
        steps = x / scale.view(beside)
        inside = (steps >= -8.5) & (steps < 7.5)
        slope = torch.where(inside, steps.round() - steps, steps.round().clamp(-8, 7))
        due = (slope * gradient * 0.5).sum([*range(1, len(shape))]).unsqueeze(0)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(of_scale.view(torch.int32), due.view(torch.int32))
    assert torch.equal(of_x, inside.float() * gradient)
