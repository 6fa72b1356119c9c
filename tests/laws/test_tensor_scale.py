"""tensor_scale= of quantize and fake_quantize: the scale of a tensor whose blocks have float scales."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
import torch

import numerics as nx

X = np.random.default_rng(0).standard_normal((4, 40)).astype(np.float32)
OWN = nx.block_format(block=16, element="fp4", scale=nx.float_format(5, 3, signed=False, name="ue5m3"))
NUMBERS = [0.25, 1, 1e-41, Fraction(1, 3), np.float32(0.3), np.array([0.3]), torch.tensor(0.3),
           torch.tensor([[0.3]], dtype=torch.float64), torch.tensor(1e-41)]  # fmt: skip
NONE = [0.0, -1, float("nan"), float("inf"), 1e39, 10**400, [1.0], "1", np.ones(2), torch.ones(2),
        torch.ones(0), True, 1j, torch.tensor(True), torch.tensor(-1.0), np.array("1")]  # fmt: skip
KINDS = [np.asarray, torch.from_numpy]


def encode(x, name, **options):
    return nx.dtype(name).encode(x, **options)


@pytest.mark.parametrize("d", [nx.nvfp4, OWN], ids=["nvfp4", "own"])
@pytest.mark.parametrize("given", NUMBERS, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
def test_a_given_tensor_scale_is_what_encode_takes(kind, given, d):
    x = kind(X)
    due = d.encode(X, tensor_scale=given)
    q = nx.quantize(x, d, tensor_scale=given)
    assert float(q.tensor_scale) == due.tensor_scale
    assert np.array_equal(np.asarray(q.dequantize()), d.decode(due))
    assert np.array_equal(np.asarray(nx.fake_quantize(x, d, tensor_scale=given)), d.decode(due))


@pytest.mark.parametrize("given", NONE, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
@pytest.mark.parametrize("verb", [nx.quantize, nx.fake_quantize, encode], ids=["quantize", "fake", "encode"])
def test_what_is_no_tensor_scale_is_refused(kind, verb, given):
    with pytest.raises(nx.NumericsError, match=r"tensor_scale=.* is not a positive finite float32 number"):
        verb(kind(X), "nvfp4", tensor_scale=given)


@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
def test_a_number_that_is_refused_lost_its_digits(kind):
    """1e39 beyond float32, and a zero point half a step beyond int32."""
    for given, said in (
        (3.4028236e38, "3.4028236e+38"),
        (-16777217, "-16777217"),
        (-0.1234567891, "-0.1234567891"),
    ):
        with pytest.raises(nx.NumericsError, match=rf"tensor_scale={re.escape(said)} is not"):
            nx.nvfp4.encode(kind(X), tensor_scale=given)
    with pytest.raises(nx.NumericsError, match=r"zero_point 1234567\.5 is outside"):
        nx.quantize(kind(X), "int8", symmetric=False, scale=1.0, zero_point=1234567.5)


@pytest.mark.parametrize("d", [d for d in nx.dtypes() if not isinstance(d, nx.ScaledBlock)], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
def test_a_format_without_a_tensor_scale_refuses_it(kind, d):
    for verb in (nx.quantize, nx.fake_quantize):
        with pytest.raises(
            nx.NumericsError, match=f"{d} has no tensor scale; tensor_scale= belongs to blocks"
        ):
            verb(kind(X), d, tensor_scale=1.0)


@pytest.mark.parametrize("clip", [False, True])
def test_gradients_go_straight_through_a_given_tensor_scale(clip):
    x = torch.tensor([[1.0, 0.1, 1e6, -1e6] * 4], requires_grad=True)
    nx.fake_quantize(x, "nvfp4", tensor_scale=1.0, clip_gradient=clip).sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, *[0.0 if clip else 1.0] * 2] * 4]
    with pytest.raises(nx.NumericsError, match="tensor_scale requires a gradient"):
        nx.fake_quantize(x, "nvfp4", tensor_scale=torch.tensor(1.0, requires_grad=True))


def compiled(work):
    return torch.compile(work, fullgraph=True, backend="aot_eager")


def test_compiled_code_takes_a_tensor_scale():
    fake = compiled(lambda x, s: nx.fake_quantize(x, "nvfp4", tensor_scale=s, clip_gradient=True))
    whole = compiled(lambda x, s: nx.quantize(x, "nvfp4", tensor_scale=s).dequantize())
    for given in (torch.tensor(0.25), torch.tensor([0.5]), 0.001, 0.3, 0.7):
        x = torch.from_numpy(X).clone().requires_grad_()
        y = fake(x, given)
        y.sum().backward()
        assert torch.equal(y, nx.nvfp4.round(x, tensor_scale=given))
        assert torch.equal(whole(x.detach(), given), y)
        assert torch.equal(x.grad, torch.ops.numerics.within_range(
            x.detach(), '{"dtype": "nvfp4", "axis": -1}', tensor_scale=torch.as_tensor(given)
        ).float())  # fmt: skip


# ---- another scale of a tensor ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
@pytest.mark.parametrize("d", [nx.nvfp4, OWN], ids=["nvfp4", "own"])
def test_a_tensor_moves_to_another_scale_of_the_tensor_without_loss(kind, d):
    x = np.where(np.abs(X) < 0.05, np.float32(0.5), X)  # scales far from the least
    q = nx.quantize(kind(x), d, tensor_scale=0.01)
    moved = nx.transcode(q, tensor_scale=0.04)
    assert float(moved.tensor_scale) == np.float32(0.04)
    assert type(moved) is type(q)
    assert np.array_equal(np.asarray(moved.codes), np.asarray(q.codes))
    assert not np.array_equal(np.asarray(moved.scale), np.asarray(q.scale))
    before, after = (np.asarray(t.dequantize()).view(np.uint32) for t in (q, moved))
    assert np.array_equal(before, after)
    assert moved.dequantize().dtype == q.dequantize().dtype


@pytest.mark.parametrize("kind", KINDS, ids=["numpy", "torch"])
def test_a_move_that_would_change_values_is_refused_with_how_many(kind):
    q = nx.quantize(kind(X), "nvfp4", tensor_scale=0.01)
    values = np.asarray(q.dequantize())
    wanted = np.asarray(nx.nvfp4.scale.decode(q.blocks.scale)) * np.float32(0.01) / np.float32(0.013)
    total = nx.nvfp4.scale.round(np.asarray(wanted, np.float32)) * np.float32(0.013)
    due = np.repeat(total, 16, axis=1)[:, :40] * np.asarray(nx.fp4.decode(np.asarray(q.codes)))
    changed = int((due != values).sum())
    assert changed
    with pytest.raises(
        nx.NumericsError, match=rf"tensor_scale=0\.013\d* would change {changed} of 160 values"
    ):
        nx.transcode(q, tensor_scale=0.013)


def test_a_tensor_without_a_scale_of_the_tensor_is_not_moved():
    with pytest.raises(nx.NumericsError, match="mxfp4 has no tensor scale"):
        nx.transcode(nx.quantize(X, "mxfp4"), tensor_scale=1.0)
    with pytest.raises(nx.NumericsError, match="tensor_scale=0 is not a positive finite float32 number"):
        nx.transcode(nx.quantize(X, "nvfp4"), tensor_scale=0)


def test_a_rule_that_the_other_format_lacks_is_not_kept():
    q = nx.quantize(X, nx.QuantSpec("mxfp4", scale_rule="even"))
    to = nx.mx(nx.codebook_format([-6, -4, -3, -2, -1.5, -1, -0.5, -0.0, 0, 0.5, 1, 1.5, 2, 3, 4, 6]))
    moved = nx.transcode(q, to)
    assert moved.spec.scale_rule == "floor"
    assert np.array_equal(moved.dequantize(), q.dequantize())
