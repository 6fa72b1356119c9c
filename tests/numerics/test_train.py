"""TQT and LSQ: values against fake_quantize, gradients against the papers' words and torch's autograd."""

import copy
import io
import json
import math
import pickle
import statistics
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import nn
from torch.nn.utils import parametrize

import numerics as nx
from bench import toy_tqt
from numerics import train
from tests.helpers.bits import assert_same_bits
from tests.helpers.inputs import edges

# What an unsigned format loses of a first batch is said: tests/laws/test_what_comes_in.py.
pytestmark = pytest.mark.filterwarnings("ignore:.* values are negative and become 0:numerics.NumericsWarning")

QUARK = json.loads((Path(__file__).parents[1] / "data" / "quark.json").read_text(encoding="utf-8"))["vectors"]
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPES = (nx.int8, nx.uint8, nx.int4, nx.uint4, nx.int2, nx.int16)
SCHEMES = (nx.per_tensor(), nx.per_channel(0), nx.per_channel(-1), nx.per_group(4), nx.per_group(3, axis=0))


def values(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradients(function, *learned, along=None):
    """y, and dL/d(each) for L = sum(along * y)."""
    leaves = [one.detach().clone().requires_grad_() for one in learned]
    y = function(*leaves)
    y.backward(torch.ones_like(y) if along is None else along.to(y.dtype))
    return y.detach(), *(leaf.grad for leaf in leaves)


def slopes(function, x, learned):
    """dy/d(learned) of each element by itself."""
    return [gradients(function, x, learned, along=one)[2].item() for one in torch.eye(len(x), dtype=x.dtype)]


# ---- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_values_are_those_of_fake_quantize(d, dtype):
    x = torch.from_numpy(edges(random=200)).to(dtype).reshape(2, -1)
    for log2_threshold in (-3.0, 0.2, 5.0):
        scale = 2.0 ** math.ceil(log2_threshold) / (d.max + 1)
        came = train.tqt(x, torch.tensor(log2_threshold), d)
        assert_same_bits(came, nx.fake_quantize(x, d, scale=scale))
    for scheme in SCHEMES:
        scale = train.lsq_init(values(1, *x.shape), d, scheme=scheme)
        assert_same_bits(
            train.lsq(x, scale, d, scheme=scheme), nx.fake_quantize(x, d, scheme=scheme, scale=scale)
        )


def test_float64_takes_a_float64_scale():
    x, scale = values(2, 50, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    steps = (x / scale).round().clamp(-8, 7) + 0.0  # an integer has no -0
    assert_same_bits(train.lsq(x, scale, "int4"), steps * scale)


@pytest.mark.parametrize(
    ("log2_threshold", "d", "scale"),
    [
        (2.0, "int8", 4 / 128),
        (2.0000002, "int8", 8 / 128),  # the next float32
        (1.9999999, "int8", 4 / 128),
        (-0.0, "uint8", 1 / 256),
        (-0.5, "int4", 1 / 8),
        (-1.0, "uint4", 0.5 / 16),
        (-1e30, "int8", 2.0**-127),
        (1e30, "int8", 2.0**127),
    ],
)
def test_the_scale_is_a_power_of_two(log2_threshold, d, scale):
    quantizer = train.TQT(d)
    quantizer.load_state_dict({"log2_threshold": torch.tensor(log2_threshold)})
    assert quantizer.scale.item() == scale
    x = torch.tensor([scale])
    assert quantizer(x).item() == scale


@pytest.mark.parametrize("v", [v for v in QUARK if v["op"].startswith("tqt")], ids=lambda v: v["id"])
def test_quark(v):
    """Values and dL/dx agree; dL/dlog2_threshold but for Quark's backward taking -1.5 to -1."""
    x, due, along, dx = (floats(v[key]) for key in ("input", "output", "along", "grad_input"))
    log2_threshold = floats(v["params"]["log_threshold"]).squeeze()
    y, came, total = gradients(lambda x, t: train.tqt(x, t, "int8"), x, log2_threshold, along=along)
    assert_same_bits(y + 0.0, due + 0.0)
    assert_same_bits(came, dx)
    scale = 2.0 ** math.ceil(log2_threshold.item()) / 128
    steps = x.double() / scale
    fault = along.double()[(steps < 0) & (steps % 1 == 0.5) & (steps.round() != steps.ceil())].sum()
    assert (v["id"] == "tqt/int8/logt0.0") == (fault != 0)
    due = floats(v["grad_log_threshold"]).item() - fault.item() * scale * math.log(2)
    assert total.item() == pytest.approx(due, rel=1e-6)


def floats(text):
    words = text.split() if isinstance(text, str) else text
    return torch.from_numpy(np.array([int(word, 16) for word in words], np.uint32).view(np.float32))


for _v in QUARK:
    if _v["op"].startswith("tqt"):
        _v["along"] = _v["params"]["grad_output"]


# ---- gradients by hand: ties, and the ends of the range ------------------------------------------------

X = torch.tensor([-1.5, 0.5, 2.5, -8.0, -8.5, -8.6, 6.9, 7.0, 7.4, 7.5, math.inf, -math.inf, math.nan])


def test_tqt_in_its_range_is_what_rounds_into_it():
    def quantized(x, log2_threshold):
        return train.tqt(x, log2_threshold, "int4")  # log2 t = 3: a step of 1

    y, dx, _ = gradients(quantized, X, torch.tensor(3.0))
    assert y.tolist() == [-2, 0, 2, -8, -8, -8, 7, 7, 7, 7, 7, -8, 0]
    assert dx.tolist() == [1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0]
    due = [-0.5, -0.5, -0.5, 0, 0.5, -8, 0.1, 0, -0.4, 7, 7, -8, 0]
    found = slopes(quantized, X, torch.tensor(3.0))
    assert found == pytest.approx([math.log(2) * slope for slope in due], abs=1e-6)


def test_lsq_in_its_range_is_what_lies_within_it():
    def quantized(x, scale):
        return train.lsq(x, scale, "int4")

    y, dx, _ = gradients(quantized, X, torch.tensor(1.0))
    assert y.tolist() == [-2, 0, 2, -8, -8, -8, 7, 7, 7, 7, 7, -8, 0]
    assert dx.tolist() == [1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    due = [-0.5, -0.5, -0.5, -8, -8, -8, 0.1, 7, 7, 7, 7, -8, 0]
    found = slopes(quantized, X, torch.tensor(1.0))
    assert found == pytest.approx([slope / math.sqrt(len(X) * 7) for slope in due], abs=1e-6)


def test_unsigned_ranges_begin_at_zero():
    x = torch.tensor([-0.4, -0.6, 0.0, 15.4, 15.6])
    y, dx, _ = gradients(lambda x, t: train.tqt(x, t, "uint4"), x, torch.tensor(4.0))
    assert (y.tolist(), dx.tolist()) == ([0, 0, 0, 15, 15], [1, 0, 1, 1, 0])
    y, dx, _ = gradients(lambda x, s: train.lsq(x, s, "uint4"), x, torch.tensor(1.0))
    assert (y.tolist(), dx.tolist()) == ([0, 0, 0, 15, 15], [0, 0, 0, 0, 0])


def test_a_zero_point_moves_the_range():
    x = torch.tensor([-5.0, -2.5, 0.0, 12.0, 13.5, math.nan])

    def quantized(x, scale):
        return train.lsq(x, scale, "uint4", zero_point=3)

    y, dx, _ = gradients(quantized, x, torch.tensor(1.0))
    assert y.tolist() == [-3, -2, 0, 12, 12, 0]
    assert dx.tolist() == [0, 1, 1, 0, 0, 0]
    due = [-3, 0.5, 0, 12, 12, 0]
    assert slopes(quantized, x, torch.tensor(1.0)) == pytest.approx([one / math.sqrt(6 * 15) for one in due])


# ---- gradients against autograd: rounding adds what has no derivative -----------------------------------


def rounded(v):
    return v + (v.round() - v).detach()


def held(x, low, high):
    """clamp, with the gradient of the papers at the ends, 1: torch's own is 0 there from 2.14 on."""
    return torch.where(x < low, low, torch.where(x > high, high, x))


def tqt_by_autograd(x, log2_threshold, d):
    whole = log2_threshold + (log2_threshold.ceil() - log2_threshold).detach()
    scale = whole.exp2() / (d.max + 1)
    return held(rounded(x / scale), d.min, d.max) * scale


def blocks_by_autograd(x, ts, d):
    """Blocks with a scale of the tensor, in float64; what is rounded is rounded straight through."""
    blocks, grid = x.reshape(-1, d.block), d.element.max * d.element_unit
    wanted = blocks.detach().abs().amax(1, keepdim=True) / grid / ts
    total = nearest(wanted.clamp(max=d.scale.max), d.scale) * ts
    v = (blocks / total).clamp(-grid, grid)
    return (nearest(v / d.element_unit, d.element) * d.element_unit * total).reshape(x.shape)


@pytest.mark.parametrize("factor", [1.0, 0.1, 0.4, 30.0])
@pytest.mark.parametrize("d", [nx.nvfp4, nx.nvfp3, nx.nvint4], ids=str)
def test_lsq_of_the_scale_of_a_tensor_against_autograd(d, factor):
    """It was refused: of NVFP4 the scale of a block is rounded, too, and follows the tensor, or clips."""
    x, along = values(5, 6, 64, dtype=torch.float64), values(6, 6, 64, dtype=torch.float64)
    x = x.float().double()  # which is what NVFP4 takes
    ts = (train.lsq_init(x, d) * factor).double()
    y, dx, dts = gradients(lambda x, s: train.lsq(x, s, d), x, ts, along=along)
    assert_same_bits(y, nx.fake_quantize(x, d, tensor_scale=float(ts)))
    due_y, due_dx, due = gradients(lambda x, s: blocks_by_autograd(x, s, d), x, ts, along=along)
    torch.testing.assert_close(y, due_y, rtol=1e-6, atol=1e-12)
    most = (x.reshape(-1, d.block) / ts).abs().amax(1) / (d.element.max * d.element_unit)
    assert bool((most > d.scale.max).any()) == (factor < 1)
    torch.testing.assert_close(dx, due_dx, rtol=1e-14, atol=0)
    shrunk = math.sqrt(x.numel() * d.element.max * d.element_unit)
    torch.testing.assert_close(dts, due / shrunk, rtol=1e-6, atol=1e-9)
    half, along = x.bfloat16(), along.bfloat16().double()
    came = gradients(lambda x, s: train.lsq(x, s, d), half, ts.float(), along=along)
    due = gradients(lambda x, s: train.lsq(x, s, d), half.double(), ts.float().double(), along=along)
    torch.testing.assert_close(came[2].double(), due[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d", [nx.if4, nx.if6_e2m3], ids=str)
def test_lsq_of_a_tensors_scale_where_blocks_have_two_readings(d):
    x, along = values(5, 6, 64), values(6, 6, 64)
    ts = train.lsq_init(x, d) * 0.9
    _, _, came = gradients(lambda x, s: train.lsq(x, s, d), x, ts, along=along)
    made = nx.quantize(x, d, tensor_scale=float(ts)).blocks
    own = d.scale.decode(made.scale).abs().double().repeat_interleave(d.block, -1)
    flags = (made.scale >> 7).repeat_interleave(d.block, -1) == 1
    assert 0 < int(flags.sum()) < flags.numel()
    e = torch.where(flags, d.integers.decode(made.codes) * d.step, d.element.decode(made.codes)).double()
    wide = x.double()
    wanted = wide.reshape(6, -1, d.block).abs().amax(-1).repeat_interleave(d.block, -1) / d.element.max / ts
    v = wide / (own * ts)
    of_block = own - torch.where(wanted < d.scale.max, wanted, 0)
    slope = (e - torch.where(v.abs() < d.element.max, v, 0)) * of_block
    due = (along * slope).sum() / math.sqrt(x.numel() * d.element.max)
    torch.testing.assert_close(came.double(), due, rtol=1e-4, atol=1e-6)


def test_a_learned_scale_of_a_tensor_trains_freezes_and_comes_back(tmp_path):
    """NaN and zeros have no part; blocks along another axis; a wrapped model learns it and keeps it."""
    x = values(3, 4, 32)
    x[0, :16], x[1, 3] = 0, math.nan
    ts = torch.tensor(1e-3, requires_grad=True)
    train.lsq(x, ts, "nvfp4")[1:2].nan_to_num().sum().backward()
    known = torch.tensor(1e-3, requires_grad=True)
    train.lsq(x[1:2, 16:], known, "nvfp4").sum().backward()
    torch.testing.assert_close(ts.grad * math.sqrt(x.numel()), known.grad * math.sqrt(16))
    across = nx.QuantSpec("nvfp4", axis=0)
    turned = train.lsq(values(4, 32, 6).T, torch.tensor(1e-3), "nvfp4")
    assert_same_bits(train.lsq(values(4, 32, 6), torch.tensor(1e-3), across), turned.T)
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8))
    data = values(9, 64, 32)
    learner = nx.wrap(model, "nvfp4", qat="lsq", example=data)
    with torch.no_grad():
        learner(data)
    steps = train.thresholds(learner)
    assert [tuple(one.shape) for one in steps] == [(), ()]
    before = [float(one.detach()) for one in steps]
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-4)
    learner(data).square().sum().backward()
    optimizer.step()
    assert [float(one.detach()) for one in steps] != before
    state = learner.state_dict()
    frozen = nx.freeze(copy.deepcopy(learner), keep="values")
    assert_same_bits(frozen(data), learner(data))
    again = nx.wrap(
        nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8)), "nvfp4", qat="lsq", example=data
    )
    again.load_state_dict(state)
    assert_same_bits(again(data), learner(data))


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("d", DTYPES, ids=str)
def test_a_threshold_for_each_channel_is_that_of_each_alone(d, axis):
    """TQT knew a tensor alone: each channel's values, gradients and first threshold are its own."""
    x, along = values(3, 5, 7, dtype=torch.float64), values(4, 5, 7, dtype=torch.float64)
    scheme = nx.per_channel(axis)
    first = train.TQT(d, scheme=scheme)
    y = first(x)
    assert first.scale.shape == first.threshold.shape == (x.shape[axis],)
    assert_same_bits(first.quantize(x).dequantize(), y.detach())
    learned = first.log2_threshold.detach().clone()
    came = gradients(lambda x, t: train.tqt(x, t, d, scheme=scheme), x, learned, along=along)
    for k in range(x.shape[axis]):
        own, by = x.select(axis, k), along.select(axis, k)
        alone = train.TQT(d)
        alone(own)
        assert_same_bits(alone.log2_threshold.detach(), learned[k])
        due = gradients(lambda x, t: tqt_by_autograd(x, t, d), own, learned[k], along=by)
        parts = came[0].select(axis, k), came[1].select(axis, k), came[2][k]
        torch.testing.assert_close(parts, due, rtol=1e-12, atol=1e-12)


def lsq_by_autograd(x, scale, zero, d):
    return (rounded((x / scale).clamp(d.min - zero, d.max - zero))) * scale


@pytest.mark.parametrize("d", DTYPES, ids=str)
def test_tqt_against_autograd(d):
    x, along = values(3, 7, 9, dtype=torch.float64), values(4, 7, 9, dtype=torch.float64)
    for log2_threshold in (-2.3, 0.0, 0.5, 3.0):
        learned = torch.tensor(log2_threshold, dtype=torch.float64)
        came = gradients(lambda x, t: train.tqt(x, t, d), x, learned, along=along)
        due = gradients(lambda x, t: tqt_by_autograd(x, t, d), x, learned, along=along)
        torch.testing.assert_close(came, due, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("d", DTYPES, ids=str)
def test_lsq_against_autograd(d, scheme):
    x, along = values(5, 7, 9, dtype=torch.float64), values(6, 7, 9, dtype=torch.float64)
    scale = train.lsq_init(x, d, scheme=scheme) * 0.7
    index = index_of_scale(scheme, x.shape)
    shared = torch.tensor([np.count_nonzero(index == k) for k in range(scale.numel())])
    factor = 1 / (shared * d.max).double().sqrt().reshape(scale.shape)
    for zero in (None, torch.randint(int(d.min), int(d.max) + 1, scale.shape, dtype=torch.int32)):
        _, dx, dscale = gradients(
            lambda x, s, z=zero: train.lsq(x, s, d, scheme=scheme, zero_point=z), x, scale, along=along
        )
        whole = torch.zeros_like(scale) if zero is None else zero.double()
        spread = torch.from_numpy(index)
        _, due_dx, due = gradients(
            lambda x, s, z=whole, k=spread: lsq_by_autograd(x, s.flatten()[k], z.flatten()[k], d), x, scale,
            along=along,
        )  # fmt: skip
        torch.testing.assert_close((dx, dscale), (due_dx, due * factor), rtol=1e-12, atol=1e-12)


def nearest(v, d):
    """The format's value nearest to v, straight through."""
    grid = torch.tensor(sorted({x for x in d.decode(list(range(2**d.bits))) if math.isfinite(x)})).double()
    return v + (grid[(v.detach()[..., None] - grid).abs().argmin(-1)] - v).detach()


@pytest.mark.parametrize("scheme", SCHEMES[:2], ids=str)
@pytest.mark.parametrize("d", [nx.fp8_e4m3, nx.fp8_e5m2, nx.fp4, nx.nf4], ids=str)
def test_lsq_of_floats_against_autograd(d, scheme):
    x, along = values(5, 7, 9, dtype=torch.float64), values(6, 7, 9, dtype=torch.float64)
    scale = x.abs().max() / d.max * 0.7 * torch.ones_like(train.lsq_init(x, d, scheme=scheme))
    index = torch.from_numpy(index_of_scale(scheme, x.shape))
    shared = torch.bincount(index.flatten(), minlength=scale.numel()).reshape(scale.shape)
    y, dx, dscale = gradients(lambda x, s: train.lsq(x, s, d, scheme=scheme), x, scale, along=along)

    def due(x, s):
        each = s.flatten()[index]
        return nearest((x / each).clamp(d.min, d.max), d) * each

    due_y, due_dx, due_scale = gradients(due, x, scale, along=along)
    factor = 1 / (shared * d.max).double().sqrt()
    torch.testing.assert_close((y, dx, dscale), (due_y, due_dx, due_scale * factor), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("d", "step"), [(nx.uint4, 0.3), (nx.int8, 0.01)], ids=str)
def test_a_zero_point_learns_where_x_is_clipped(d, step):
    x, along = values(5, 7, 9, dtype=torch.float64), values(6, 7, 9, dtype=torch.float64)
    scale, zero = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (step, 1.375))
    found = x.clone().requires_grad_()
    (train.lsq(found, scale, d, zero_point=zero) * along).sum().backward()
    mine = [v.detach().clone().requires_grad_() for v in (x, scale, zero)]
    u = (mine[0] / mine[1] + mine[2]).clamp(d.min, d.max)
    ((nearest(u, d) - mine[2]) * mine[1] * along).sum().backward()
    factor = 1 / math.sqrt(x.numel() * d.max)
    came, due = (found.grad, scale.grad, zero.grad), (mine[0].grad, *(v.grad * factor for v in mine[1:]))
    torch.testing.assert_close(came, due, rtol=1e-12, atol=1e-12)
    assert zero.grad != 0


def test_a_learned_zero_point_begins_at_the_ends_of_the_first_batch_and_finds_a_better_one():
    x = values(9, 64, 8).exp()
    quantizer = train.LSQ("uint4", zero_point="learned")
    first = error(quantizer(x), x)
    assert torch.equal(quantizer(x), nx.fake_quantize(x, "uint4", symmetric=False, zero_point_type="float32"))
    assert torch.equal(quantizer.quantize(x).dequantize(), quantizer(x))
    optimizer = torch.optim.Adam(quantizer.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        (quantizer(x) - x).square().sum().backward()
        optimizer.step()
    assert {name for name, _ in quantizer.named_parameters()} == {"step", "zero_point"}
    assert error(quantizer(x), x) < 0.9 * first
    again = train.LSQ("uint4", zero_point="learned")
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again(x), quantizer(x))


def index_of_scale(scheme, shape):
    """Which scale each element takes, from the words of docs/formats.md §6."""
    at = np.indices(shape)
    if scheme.kind == "per_tensor":
        return np.zeros(shape, int)
    axis = scheme.axis % len(shape)
    if scheme.kind == "per_channel":
        return at[axis]
    at[axis] //= scheme.size
    counts = [-(-n // scheme.size) if k == axis else n for k, n in enumerate(shape)]
    return np.ravel_multi_index(tuple(at), counts)


def test_the_smooth_part_against_finite_differences():
    """With what rounding adds to x / s held still, L is smooth in log2 t and in s."""
    x, along, h = values(7, 40, dtype=torch.float64), values(8, 40, dtype=torch.float64), 1e-6

    def slope(inside, up, down):
        still = torch.where(inside, steps.round() - steps, steps.clamp(-8, 7))
        loss = [(along * torch.where(inside, x + still * s, still * s)).sum().item() for s in (up, down)]
        return (loss[0] - loss[1]) / (2 * h)

    scale = 2.0 ** math.ceil(0.3) / 8
    steps = x / scale
    due = slope((steps.round() >= -8) & (steps.round() <= 7), scale * 2**h, scale * 2**-h)
    learned = torch.tensor(0.3, dtype=torch.float64)
    came = gradients(lambda x, t: train.tqt(x, t, "int4"), x, learned, along=along)[2]
    assert came.item() == pytest.approx(due, rel=1e-7)
    due = slope((steps > -8) & (steps < 7), scale + h, scale - h) / math.sqrt(40 * 7)
    learned = torch.tensor(scale, dtype=torch.float64)
    came = gradients(lambda x, s: train.lsq(x, s, "int4"), x, learned, along=along)[2]
    assert came.item() == pytest.approx(due, rel=1e-7)


def test_the_least_scale_is_there_where_the_caller_flushes_subnormals():
    quantizer = train.TQT("int8")
    quantizer(torch.tensor([2.0**-126]))
    torch.set_flush_denormal(True)
    try:
        bits = quantizer.scale.view(torch.int32).item()
    finally:
        torch.set_flush_denormal(False)
    assert bits == 1 << 22  # 2**-127


def test_nothing_comes_of_nothing():
    for shape, scheme in (((0,), "per_tensor"), ((3, 0), "per_channel"), ((0, 4), "per_group(2)")):
        x = torch.empty(shape)
        scale = train.lsq_init(x, "int8", scheme=scheme)
        y, dx, dscale = gradients(lambda x, s, how=scheme: train.lsq(x, s, "int8", scheme=how), x, scale)
        assert y.shape == dx.shape == shape
        assert (dscale == 0).all()
    y, dx, total = gradients(lambda x, t: train.tqt(x, t, "int8"), torch.empty(0), torch.tensor(0.0))
    assert (y.shape, dx.shape, total.item()) == ((0,), (0,), 0.0)


# ---- a scale that an optimizer drove away ----------------------------------------------------------------


def test_a_negative_scale_counts_by_its_magnitude():
    x, along = values(9, 30), values(10, 30)
    up = gradients(lambda x, s: train.lsq(x, s, "int4"), x, torch.tensor(0.3), along=along)
    down = gradients(lambda x, s: train.lsq(x, s, "int4"), x, torch.tensor(-0.3), along=along)
    assert_same_bits(down[0], up[0])
    assert_same_bits(down[1], up[1])
    assert_same_bits(down[2], -up[2])


def test_a_scale_of_zero_learns_its_way_back():
    x = values(11, 200)
    scale = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([scale], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (train.lsq(x, scale, "int4") - x).square().sum().backward()
        optimizer.step()
    assert error(train.lsq(x, scale, "int4"), x) < 0.1


# ---- where learning begins --------------------------------------------------------------------------------


def test_3sd():
    x = values(12, 5, 40) + 0.7
    exact = [Fraction(one) for one in x.flatten().tolist()]
    due = abs(statistics.mean(exact)) + 3 * Fraction(statistics.pstdev(exact))
    assert train.threshold_3sd(x) == pytest.approx(float(due), rel=1e-14)
    beside = torch.cat([x.flatten(), torch.tensor([math.nan, math.inf, -math.inf])])
    assert train.threshold_3sd(beside) == train.threshold_3sd(x)


def kl_j(x, n, bins=2048):
    """Algorithm 1 of arXiv 1805.07941 as Quark has it, loop by loop, but for the number of bins."""
    magnitudes = [abs(float(one)) for one in x.flatten()]
    largest = max(magnitudes)
    counts = [0] * bins
    for one in magnitudes:
        counts[min(int(one / largest * bins), bins - 1)] += 1
    cdf = np.cumsum(counts) / len(magnitudes)
    best = math.inf, 0.0
    for i in range(n + 1, bins + 1):
        p = np.copy(cdf)
        p[i - 1 :] = 1
        points = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, i), p[:i])
        q = np.copy(p)
        q[:i] = np.interp(np.linspace(0, 1, i), np.linspace(0, 1, n), points)
        some = np.nonzero(cdf)
        j = np.sum((cdf[some] - q[some]) * np.log2(cdf[some] / q[some]))
        if j <= best[0]:
            best = j, min((i + 0.5) / bins, 1.0) * largest
    return best[1]


@pytest.mark.parametrize("count", [40, 20_000])
@pytest.mark.parametrize("d", [nx.int8, nx.uint4], ids=str)
def test_kl_j_is_the_best_of_all_candidates(count, d):
    x = values(13, count) ** 3
    assert train.threshold_kl_j(x, d) == pytest.approx(kl_j(x, int(d.max) + 1), rel=1e-12)


def test_kl_j_cuts_an_outlier_off_however_few_there_are():
    """Quark's needs 16641 values before it looks at any: below that it takes max|x|."""
    for count in (50, 500, 5000):
        x = torch.cat([values(14, count), torch.tensor([1000.0])])
        assert train.threshold_kl_j(x, "int4") < 100


def fine_kl_j(x, n, per_octave=64):
    """The same as an integral, in bins that are narrow everywhere: octaves cut into equal ratios."""
    magnitudes = np.sort(np.abs(x.double().flatten().numpy()))
    least, largest = magnitudes[magnitudes > 0][[0, -1]]
    depth = math.ceil(math.log2(largest / least) + 1) * per_octave
    ends = largest * np.exp2(np.arange(-depth, 1) / per_octave)
    cdf = np.searchsorted(magnitudes, ends * (1 + 1e-12)) / len(magnitudes)
    widths, logs = np.diff(ends, prepend=0), np.log2(np.maximum(cdf, 1e-300))
    beyond = np.append(((cdf - 1) * logs * widths)[::-1].cumsum()[::-1], 0)
    found = []
    for kept in range(len(ends), len(ends) - 26 * per_octave, -2):
        p = np.append(cdf[: kept - 1], 1.0)
        points = np.linspace(0, ends[kept - 1], n)
        q = np.interp(ends[:kept], points, np.interp(points, ends[:kept], p))
        some = cdf[:kept] > 0
        j = (cdf[:kept] - q) * (logs[:kept] - np.log2(np.maximum(q, 1e-300))) * widths[:kept]
        found.append((j[some].sum() + beyond[kept], -ends[kept - 1]))
    return -min(found)[1]


@pytest.mark.turns
@pytest.mark.parametrize("outlier", [30.0, 1e3, 1e6, 1e8, 3e38])
@pytest.mark.parametrize("d", [nx.int8, nx.int4, nx.int2], ids=str)
def test_kl_j_is_that_of_very_many_bins_beside_an_outlier(outlier, d):
    """It sat on its lowest candidate: 63.23 for int8, 5000 of N(0, 1) and one 1000."""
    x = torch.cat([values(15, 5000), torch.tensor([outlier])])
    came = train.threshold_kl_j(x, d)
    assert 1 < came < 5
    if outlier < 1e7:  # in float64 the distances differ
        assert came == pytest.approx(fine_kl_j(x, int(d.max) + 1), rel=0.15)


@pytest.mark.parametrize("name", ["normal", "laplace", "relu", "cauchy"])
def test_kl_j_is_that_of_very_many_bins(name):
    x = torch.from_numpy({
        "normal": np.random.default_rng(0).standard_normal, "laplace": np.random.default_rng(1).laplace,
        "relu": lambda size: np.maximum(np.random.default_rng(2).standard_normal(size), 0),
        "cauchy": np.random.default_rng(3).standard_cauchy,
    }[name](size=20_000))  # fmt: skip
    for d in (nx.int4, nx.uint4):
        assert train.threshold_kl_j(x, d) == pytest.approx(fine_kl_j(x, int(d.max) + 1), rel=0.15)


def test_kl_j_keeps_two_values_that_are_far_apart():
    """Half of the values in the first bin are no reason to cut the others off."""
    for share in (0.3, 0.51, 0.9):
        x = torch.where(torch.rand(1000, generator=torch.Generator().manual_seed(1)) < share, 1e-5, 1.0)
        assert train.threshold_kl_j(x, "int8") > 0.9


def test_kl_j_follows_the_data_wherever_it_is():
    x = torch.cat([values(16, 3000), torch.tensor([1e4])]).double()
    due = train.threshold_kl_j(x, "int8")
    for size in (2.0**-1060, 2.0**1000):
        assert train.threshold_kl_j(x * size, "int8") / size == pytest.approx(due, rel=0.02)
    assert train.threshold_kl_j(torch.tensor([1e300, 1e-300, -5e-324], dtype=torch.float64), "int4") > 0


def test_3sd_at_the_ends_of_float64():
    for size in (5e-324, 1e-310, 1e300):
        x = torch.tensor([size, -size], dtype=torch.float64)
        assert train.threshold_3sd(x) == 3 * size
    assert math.isfinite(train.threshold_3sd(torch.tensor([1.7e308, -1.7e308], dtype=torch.float64)))


@pytest.mark.parametrize("found", [train.threshold_3sd, lambda x: train.threshold_kl_j(x, "int8")])
def test_thresholds_are_of_tensors_of_real_numbers(found):
    """An array had no detach, and of a complex tensor the real part counted."""
    quantized = nx.quantize(torch.ones(4), "int8")
    for other in (np.ones(3), [1.0], None, torch.ones(3, dtype=torch.complex64), torch.ones(3).to_sparse(),
                  torch.empty(3, device="meta"), quantized):  # fmt: skip
        with pytest.raises(nx.NumericsError):
            found(other)


def test_kl_j_cuts_nothing_off_for_nothing():
    assert train.threshold_kl_j(torch.linspace(-2, 2, 4001), "int8") == 2
    assert train.threshold_kl_j(torch.tensor([0.0, -2.0]), "int8") == 2
    assert train.threshold_kl_j(torch.tensor([2.0]), "int4") == 2  # every candidate is as good


@pytest.mark.parametrize("init", train.THRESHOLD_INIT)
def test_nothing_to_begin_with(init):
    for x in (torch.zeros(3), torch.empty(0), torch.tensor([math.nan, math.inf])):
        assert train.THRESHOLD_INIT[init](x, nx.int8) == 0
        quantizer = train.TQT("int8", init=init)
        quantizer(x)
        assert quantizer.threshold == 1
    assert train.THRESHOLD_INIT["_KL_J"] is train.THRESHOLD_INIT["_LL_J"]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_first_scale_of_lsq(scheme):
    x = values(15, 7, 9, dtype=torch.float64)
    x[0, 0], x[1, 1], x[2] = math.nan, math.inf, 0
    found = train.lsq_init(x, "int4", scheme=scheme)
    index = index_of_scale(scheme, x.shape)
    for k, came in enumerate(found.flatten().tolist()):
        some = [abs(Fraction(one)) for one in x.numpy()[index == k].tolist() if math.isfinite(one)]
        mean = sum(some) / max(len(some), 1)
        assert came == pytest.approx(2 * float(mean) / math.sqrt(7) if mean else 1, rel=1e-14)
    assert train.lsq_init(x.bfloat16(), "int4", scheme=scheme).dtype == torch.float32


# ---- modules ----------------------------------------------------------------------------------------------

MODULES = {
    "tqt": lambda: train.TQT("int8"),
    "tqt_unsigned": lambda: train.TQT("uint4", init="_LL_J"),
    "lsq": lambda: train.LSQ("int4"),
    "lsq_channels": lambda: train.LSQ("int8", scheme=nx.per_channel(1)),
    "lsq_groups": lambda: train.LSQ("int8", scheme="per_group(4)"),
    "lsq_offset": lambda: train.LSQ("uint8", zero_point=100),
}


@pytest.fixture(params=MODULES)
def quantizer(request):
    return MODULES[request.param]()


def test_a_learner_takes_its_first_scale_from_the_first_batch_only(quantizer):
    """Quark's LSQ begins anew with every batch."""
    assert not quantizer.initialized
    quantizer.eval()(values(16, 5, 10))
    assert quantizer.initialized
    before = copy.deepcopy(quantizer.state_dict())
    for mode in (True, False):
        quantizer.train(mode)(100 * values(17, 5, 10))
    torch.testing.assert_close(quantizer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_quantize_gives_the_values_of_forward(quantizer, dtype):
    x = values(18, 5, 10, dtype=dtype)
    y = quantizer(x)
    q = quantizer.quantize(x)
    assert isinstance(q, nx.QTensor)
    assert_same_bits(q.dequantize(), y.detach())
    assert (quantizer.scale > 0).all()


def test_it_comes_back_from_its_state(quantizer):
    x = values(19, 5, 10)
    fresh = copy.deepcopy(quantizer)
    due = quantizer(x)
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file))
    assert fresh.initialized
    for copied in (fresh, copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        copied(10 * x)
        assert_same_bits(copied(x).detach(), due.detach())


def test_it_compiles_whole_with_the_same_bits(quantizer):
    x, along = values(20, 5, 10).requires_grad_(), values(21, 5, 10)
    quantizer(x)
    torch._dynamo.reset()
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    found = []
    for call in (quantizer, compiled):
        x.grad = None
        quantizer.zero_grad()
        y = call(x)
        y.backward(along)
        found.append([y.detach(), x.grad, *(p.grad.clone() for p in quantizer.parameters())])
    for came, due in zip(*found, strict=True):
        assert_same_bits(came, due)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_inductor_gives_the_same_bits():
    layer = nn.Linear(10, 3)
    parametrize.register_parametrization(layer, "weight", train.LSQ("int4", scheme="per_channel"))
    model = nn.Sequential(train.TQT("uint8", init="_LL_J"), layer)
    torch._dynamo.reset()
    x = values(22, 6, 10)
    due = model(x)
    came = torch.compile(model, fullgraph=True)(x)
    assert_same_bits(came.detach(), due.detach())
    found = [torch.autograd.grad(y.sum(), list(model.parameters())) for y in (came, due)]
    for compiled, eager in zip(*found, strict=True):
        assert_same_bits(compiled, eager)


def test_it_must_have_begun_before_it_is_compiled():
    model = nn.Sequential(train.LSQ("int4"))
    with pytest.raises(
        torch._dynamo.exc.InternalTorchDynamoError, match="call it once before it is compiled"
    ):
        torch.compile(model, fullgraph=True, backend="aot_eager")(values(23, 4))
    assert not model[0].initialized


@pytest.mark.parametrize("name", MODULES)
def test_a_weight_learns_its_scale(name):
    layer = nn.Linear(10, 4)
    weight = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", MODULES[name]())
    quantizer = layer.parametrizations.weight[0]
    assert_same_bits(layer.weight.detach(), quantizer.quantize(weight).dequantize())
    layer(values(24, 3, 10)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    due = layer.weight.detach()
    parametrize.remove_parametrizations(layer, "weight")
    assert_same_bits(layer.weight.detach(), due)


def test_autocast_and_half_inputs():
    quantizer = train.TQT("int8")
    linear = nn.Linear(10, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = quantizer(linear(values(25, 3, 10)))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert quantizer.log2_threshold.grad.dtype == quantizer.log2_threshold.dtype == torch.float32
    assert linear.weight.grad.dtype == torch.float32


def test_it_can_be_frozen(quantizer):
    x = values(26, 5, 10).requires_grad_()
    quantizer(x)
    quantizer.requires_grad_(False)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in quantizer.parameters())


def test_an_optimizer_may_hold_it_before_it_begins():
    quantizer = train.LSQ("int4", scheme="per_channel")
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.1)
    quantizer(values(27, 3, 8)).sum().backward()
    before = quantizer.scale.clone()
    optimizer.step()
    assert (quantizer.scale != before).all()


# ---- operators, beside those of test_pytorch.py ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_operators_on_other_types_and_strides(dtype):
    ops, x = torch.ops.numerics, values(28, 4, 6, dtype=dtype).T.requires_grad_()
    learned = torch.tensor(0.5, requires_grad=True)
    torch.library.opcheck(ops.tqt.default, (x, learned, '{"dtype": "int4"}'))
    torch.library.opcheck(ops.lsq.default, (x, learned, None, '{"dtype": "int4"}'))
    x, learned = x.detach(), learned.detach()
    torch.library.opcheck(ops.tqt_backward.default, (x, x, learned, '{"dtype": "int4"}'))
    torch.library.opcheck(ops.lsq_backward.default, (x, x, learned, None, '{"dtype": "int4"}'))


# ---- learning ---------------------------------------------------------------------------------------------


def error(y, x):
    return (y - x).square().mean().item()


@pytest.mark.turns
@pytest.mark.parametrize("away", [-3, 3])
@pytest.mark.parametrize(("d", "sigma"), [("int4", 1.0), ("int8", 0.02), ("uint4", 3.0)])
def test_tqt_finds_the_best_power_of_two(d, sigma, away):
    """The toy of arXiv 1903.08066: a Gaussian and the squared error; it ends beside the optimum."""
    x = sigma * values(29, 1000)
    x = x.abs() if d == "uint4" else x
    best = min(range(-12, 8), key=lambda k: error(train.tqt(x, torch.tensor(float(k)), d), x))
    learned = torch.tensor(float(best + away), requires_grad=True)
    optimizer = torch.optim.Adam([learned], lr=0.05, betas=(0.9, 0.99))
    for _ in range(300):
        optimizer.zero_grad()
        ((train.tqt(x, learned, d) - x).square().mean() / 2).backward()
        optimizer.step()
    assert abs(math.ceil(learned.item()) - best) <= 1


@pytest.mark.turns
@pytest.mark.parametrize(
    ("name", "sigma"), [("int3", 1e-2), ("int3", 10.0), ("int4", 0.1), ("int8", 1.0), ("int8", 100.0)]
)
def test_tqt_ends_at_one_power_of_two_wherever_it_begins(name, sigma):
    """The toy of arXiv 1903.08066, from a 256th and from 256 times the best threshold, which integers find.

    A path ends where the gradient changes its sign: at a power of two, above which the next one is in use.
    """
    found = toy_tqt.trained(name, sigma, away=(-8, 8))
    assert [abs(way[0] - found.best) for way in found.paths] == [8, 8]
    (end,) = {round(end) for end in found.ends}
    assert max(abs(at - end) for at in found.ends) < 0.1
    assert found.best in (end, end + 1)


@pytest.mark.turns(6)
@pytest.mark.parametrize(("d", "zero"), [("int4", None), ("int8", None), ("uint4", None), ("uint4", 8)])
def test_lsq_finds_the_best_scale(d, zero):
    x = values(30, 4000)
    x = x.abs() if d == "uint4" and zero is None else x
    options = {"zero_point": zero}
    scales = [2 ** (k / 16) for k in range(-112, 16)]
    best = min(error(train.lsq(x, torch.tensor(s), d, **options), x) for s in scales)
    quantizer = train.LSQ(d, **options)
    quantizer(x)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.98**step
        optimizer.zero_grad()
        (quantizer(x) - x).square().mean().backward()
        optimizer.step()
    assert error(quantizer(x), x) < 1.05 * best


# ---- bad input --------------------------------------------------------------------------------------------

ONE = torch.ones(4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: train.TQT("fp8_e4m3"),
            "fp8_e4m3 is a float format; TQT .* learned by LSQ",
        ),
        (lambda: train.TQT("mx6"), "mx6 is a block format; TQT learns the thresholds of integer formats$"),
        (
            lambda: nx.wrap(
                torch.nn.Linear(4, 4),
                nx.QuantSpec("int4", symmetric=False),
                qat="lsq",
                example=torch.ones(1, 4),
            ),
            r"not learned here; .*nx\.train\.LSQ\(dtype, zero_point='learned'\)",
        ),
        (lambda: train.LSQ("mxfp4"), "mxfp4 is a block format; scales are learned for formats of single"),
        (lambda: train.LSQ("nvfp4", scheme="per_block((16, 16))"), "the scale of a tensor is learned where"),
        (
            lambda: train.LSQ(nx.QuantSpec("nvfp4", scale_rule="mse")),
            "the scale of a tensor is learned where",
        ),
        (lambda: train.LSQ("nvfp4", zero_point="learned"), "nvfp4 has no zero point"),
        (lambda: train.LSQ(nx.QuantSpec("int4")), "a QuantSpec is taken of blocks alone"),
        (lambda: train.lsq(ONE, torch.ones(2), "nvfp4"), r"scale has shape \(2,\)"),
        (lambda: train.LSQ("fp8_e4m3", zero_point="learned"), "zero points belong to integers"),
        (lambda: train.TQT("int9"), "unknown format"),
        (lambda: train.TQT("int8", init="_3DS"), "did you mean '_3SD'"),
        (lambda: train.threshold_kl_j(ONE, "fp4"), "fp4 is a float format"),
        (lambda: train.tqt(ONE, torch.zeros(1), "int8"), r"log2_threshold has shape \(1,\)"),
        (lambda: train.tqt(ONE, 0.5, "int8"), r"must be a tensor, not 0\.5"),
        (lambda: train.tqt(ONE, torch.tensor(math.nan), "int8"), "log2_threshold nan is not allowed"),
        (lambda: train.tqt(ONE, torch.tensor(math.inf), "int8"), "log2_threshold inf is not allowed"),
        (lambda: train.tqt(ONE, torch.tensor(0.0), nx.mxint8), "mxint8 is a block format"),
        (lambda: train.tqt([1.0], torch.tensor(0.0), "int8"), r"torch tensors, not \[1\.0\]"),
        (lambda: train.lsq(np.ones(3), torch.tensor(1.0), "int8"), "torch tensors, not <ndarray of shape"),
        (lambda: train.lsq(ONE, 0.5, "int8"), r"scale must be a tensor, not 0\.5"),
        (lambda: train.lsq(ONE, torch.tensor(math.nan), "int8"), "scale nan is not allowed"),
        (lambda: train.lsq(ONE, torch.ones(3), "int8"), r"scale has shape \(3,\)"),
        (lambda: train.lsq(ONE, torch.ones(4), "int8", scheme="per_chanel"), "did you mean 'per_channel'"),
        (lambda: train.lsq(ONE, torch.tensor(1.0), "uint8", zero_point=0.5), "zero_point 0.5 is not an"),
        (lambda: train.lsq(ONE, torch.tensor(1.0), "uint4", zero_point=99), "zero_point 99 is outside"),
        (
            lambda: train.lsq(ONE, torch.tensor(1.0), "uint4", zero_point="a"),
            "zero_point must be real numbers",
        ),
        (lambda: train.LSQ("uint4", zero_point="a"), "zero_point='a' is not allowed"),
        (lambda: train.LSQ("uint4", zero_point=2j), "zero_point must be real numbers"),
        (lambda: train.TQT("int8").scale, "has seen no batch yet"),
        (lambda: train.TQT("int8").threshold, "has seen no batch yet"),
        (lambda: train.LSQ("int8").quantize(ONE), "has seen no batch yet"),
    ],
)
def test_a_learner_that_cannot_work_is_refused(call, said):
    with pytest.raises(nx.NumericsError, match=said):
        call()


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.delattr(nx, "train", raising=False)  # nobody may have asked for it yet
    for name in [name for name in sys.modules if name.startswith("numerics.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(nx.NumericsError, match=r"needs torch.*numerics-formats\[torch\]"):
        nx.train  # noqa: B018


# ---- a learner is moved --------------------------------------------------------------------------------

LEARNERS = {"TQT": lambda: nx.train.TQT("int8"), "LSQ": lambda: nx.train.LSQ("int4", scheme="per_channel(0)")}


def learned(module):
    return next(module.parameters())


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_learned_stays_float32(name, swap):
    """A threshold of 3.001 in bfloat16 is 3, and half the scale."""
    module = torch.nn.Sequential(LEARNERS[name]())
    x = torch.randn(4, 8)
    module(x)
    learned(module).data.fill_(3.001)
    optimizer, due = torch.optim.SGD(module.parameters(), 0.1), module[0].scale.clone()
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        for convert in (
            module.bfloat16,
            module.half,
            module.double,
            lambda: module.to(torch.float16),
            module.float,
        ):
            convert()
            assert learned(module).dtype == torch.float32
            assert torch.equal(module[0].scale, due)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    module.bfloat16()(x.bfloat16()).sum().backward()
    before = learned(module).detach().clone()
    optimizer.step()
    assert not torch.equal(learned(module), before)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("name", LEARNERS)
def test_what_comes_from_meta_has_not_begun(name, begun):
    """It was "initialized", with a parameter of no element, and the first batch raised."""
    module, x = LEARNERS[name](), torch.randn(4, 8)
    due = LEARNERS[name]()(x)
    if begun:
        module(x * 3)
        state = {key: value.clone() for key, value in module.state_dict().items()}
    moved = module.to("meta")
    assert moved.initialized == begun
    moved = moved.to_empty(device="cpu")
    assert not moved.initialized
    if begun:
        again = copy.deepcopy(moved)
        again.load_state_dict(state)
        assert again.initialized
        assert torch.equal(learned(again), next(iter(state.values())))
    assert torch.equal(moved(x), due)
    assert moved.initialized
    assert learned(moved).dtype == torch.float32
    moved(x).sum().backward()
    assert learned(moved).grad is not None


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_after_a_first_batch_without_gradients(name, mode):
    """ "Inference tensors cannot be saved for backward"."""
    module = LEARNERS[name]()
    with mode():
        module(torch.randn(4, 8))
    x = torch.randn(4, 8, requires_grad=True)
    module(x).sum().backward()
    assert learned(module).grad is not None
    assert x.grad is not None


def test_schemes_that_tqt_has_not_are_named():
    with pytest.raises(nx.NumericsError, match="LSQ learns a scale for each group"):
        nx.train.TQT("int8", scheme="per_group(32)")
    assert nx.train.TQT("int8", scheme="per_tensor").spec.scheme == nx.per_tensor()
    for call in (nx.train.threshold_3sd, lambda x: nx.train.threshold_kl_j(x, "int8")):
        with pytest.raises(nx.NumericsError, match="a threshold is found for a tensor of real numbers"):
            call(np.ones(3))
    with pytest.raises(nx.NumericsError, match="clip_gradient='x'"):
        nx.fake_quantize(torch.ones(3), "int4", clip_gradient="x")


def test_a_learned_zero_point_could_not_be_frozen():
    """It was known by its gradient, and what has none was taken for an integer."""
    learner, x = nx.train.LSQ("int4", zero_point="learned"), torch.randn(8, 8)
    before = learner(x)
    nx.train.freeze_thresholds(learner)
    assert torch.equal(learner(x), before)
    found = nx.train.lsq(x, learner.step.detach(), "int4", zero_point=learner.zero_point.detach())
    assert torch.equal(found, before)


# ---- where scales begin, at the ends of the types --------------------------------------------------

BEGUN = {
    "LSQ": lambda: train.LSQ("int4"),
    "LSQ of two bits": lambda: train.LSQ("int2"),
    "LSQ of a float": lambda: train.LSQ("fp8_e4m3"),
    "LSQ of a codebook": lambda: train.LSQ("nf4"),
    "a step a channel": lambda: train.LSQ("int4", scheme="per_channel"),
    "a step a group": lambda: train.LSQ("int4", scheme="per_group(2, axis=0)"),
    "a zero point": lambda: train.LSQ("int4", zero_point=3),
    "LSQ+": lambda: train.LSQ("uint4", zero_point="learned"),
    "3SD": lambda: train.TQT("int8"),
    "LL_J": lambda: train.TQT("int8", init="_LL_J"),
    "KL_J": lambda: train.TQT("int4", init="_KL_J"),
}
NORMAL = 2.0**-126
EXTREMES = [
    (torch.float32, 3e38), (torch.float32, -3.4e38), (torch.float32, 1e-38), (torch.float32, 1e-45),
    (torch.bfloat16, 3.38e38), (torch.bfloat16, 9.2e-41), (torch.float16, 65504), (torch.float16, 6e-8),
    (torch.float64, 1.7e308), (torch.float64, 1e100), (torch.float64, 1e-100), (torch.float64, 5e-324),
]  # fmt: skip


@pytest.mark.turns(18)
@pytest.mark.parametrize(("dtype", "value"), EXTREMES)
@pytest.mark.parametrize("name", BEGUN)
def test_a_step_began_as_inf_or_0_and_stayed_so(name, dtype, value):
    """The sum of three 3e38 was Inf, and the step ever after; of 1e-45 it was less than what is used."""
    for x in (torch.full((5,), value, dtype=dtype), torch.tensor([value, 0, value / 2], dtype=dtype)):
        made = BEGUN[name]()
        y = made(x)
        for learned in made.parameters():
            assert bool(learned.isfinite().all())
            assert learned.dtype == torch.promote_types(dtype, torch.float32) or learned is made.zero_point
        if isinstance(made, train.LSQ):
            assert torch.equal(made.step.abs(), made.scale.to(made.step.dtype)), "another step is used"
        if abs(value) < 1e38 or dtype == torch.float16:
            assert bool((made.quantize(x).dequantize() == y).all())
        y.sum().backward()
        slope = next(made.parameters()).grad  # a zero point's, of a float32, is as large as a step of float64
        assert dtype.itemsize == 2 or bool(slope.isfinite().all())


@pytest.mark.parametrize("value", [1e300, 3e38, 1.0, 2.0**-100])
@pytest.mark.parametrize("dtype", ["int2", "int4", "fp8_e4m3", "nf4"])
def test_the_first_step_of_large_numbers_is_that_of_small_ones(dtype, value):
    """All is scaled by a power of two, so the bits are those of numbers about 1."""
    x = torch.tensor([1.0, -0.25, 0.5, 0.0, 0.75], dtype=torch.float64)
    unit = 2.0 ** math.floor(math.log2(value))
    kind = torch.float64 if value > 1e39 else torch.float32
    expected = train.lsq_init(x.to(kind), dtype).double() * unit
    assert torch.equal(train.lsq_init((x * unit).to(kind), dtype).double(), expected)


def test_the_first_step_is_at_most_what_its_type_holds():
    assert train.lsq_init(torch.full((3,), 3e38), "int2") == torch.finfo(torch.float32).max
    tiny = torch.tensor([[1e-45, 0.0], [0.0, 0.0], [3e38, 3e38]])
    assert train.lsq_init(tiny, "int4", scheme="per_channel").tolist()[:2] == [NORMAL, 1.0]


def test_lsq_plus_of_float64_began_in_float32():
    made = BEGUN["LSQ+"]()
    y = made(torch.tensor([1e100, -1e100, 5e99], dtype=torch.float64))
    assert made.step.dtype == torch.float64
    assert y.tolist() == pytest.approx([1e100, -1e100, 5e99], rel=0.1)
