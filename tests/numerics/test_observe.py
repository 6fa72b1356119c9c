"""Observers: what quantize finds, exact merging, and searches against brute force over the same ranges."""

import copy
import functools
import math
import pickle
import subprocess
import sys
from datetime import timedelta
from fractions import Fraction
from inspect import cleandoc

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("torch")
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

import numerics as nx
from numerics import observe
from numerics.formats.dtype import Element
from numerics.formats.registry import dtypes
from numerics.observe import (
    KL,
    MSE,
    OBSERVERS,
    Histogram,
    MinMax,
    MovingAverage,
    Percentile,
    Pof2,
    Pof2MSE,
    base,
)
from numerics.observe.bins import OCTAVES
from numerics.observe.divergence import boundaries
from tests.helpers.children import LIMIT, child
from tests.helpers.marks import either_sign

SCHEMES = [nx.per_tensor(), nx.per_channel(0), nx.per_channel(-1), nx.per_group(3), nx.per_group(2, axis=0)]
KINDS = ["int8", "uint8", "int4", "fp8_e4m3", "fp4"]
RNG = np.random.default_rng


def seen(observer, *batches):
    for batch in batches:
        observer.observe(batch)
    return observer


def small(name, dtype="int4", **options):
    """An observer by its name, with few bins where it has bins."""
    bins = {"bins": 64} if "bins" in OBSERVERS[name].own else {}
    return observe.observer(name, dtype, **bins, **options)


def heavy(seed, *shape):
    return RNG(seed).standard_t(2, shape).astype(np.float32)


def assert_same_state(one, other):
    mine, theirs = one.state, other.state
    assert mine.keys() == theirs.keys()
    for name, came in mine.items():
        due = theirs[name]
        if isinstance(came, np.ndarray):
            assert (came.dtype, came.shape, came.tobytes()) == (due.dtype, due.shape, due.tobytes()), name
        else:
            assert came == due, name


def assert_same(came, due):
    assert type(came) is type(due)
    assert came.dtype == due.dtype
    assert came.shape == due.shape
    assert came.tolist() == due.tolist()


# ---- MinMax: what quantize finds -----------------------------------------------------------------


@pytest.mark.turns
@either_sign
@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("scale_type", ["float", "float32", "float16", "bfloat16", "pof2"])
def test_min_max_of_one_batch_is_what_quantize_finds(host_executor, scheme, scale_type):
    x = heavy(1, 5, 7) * 3
    x[1, 2], x[3, 3], x[4] = np.nan, np.inf, 0
    for kind in KINDS:
        for more in ({}, {"symmetric": False}, {"symmetric": False, "zero_point_type": "float32"}):
            if more and nx.dtype(kind).kind != "integer":
                continue
            options = {"scheme": scheme, "scale_type": scale_type, **more}
            for original in ("float16", ml_dtypes.bfloat16, "float32", "float64"):
                data = x.astype(original)
                q, watching = nx.quantize(data, kind, **options), seen(MinMax(kind, **options), data)
                assert_same(watching.scale, q.scale)
                assert (watching.zero_point is None) == (q.zero_point is None)
                if q.zero_point is not None:
                    assert_same(watching.zero_point, q.zero_point)
                given = nx.quantize(
                    data, kind, scale=watching.scale, zero_point=watching.zero_point, **options
                )
                assert_same(given.scale, q.scale)
                assert_same(given.codes, q.codes)


@pytest.mark.parametrize("chosen", [None, "gpu"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_give_tensors(chosen, kind):
    """gpu: the code of the GPU's backend, on the CPU's memory."""
    x = torch.from_numpy(heavy(2, 6, 4)).to(kind).t().requires_grad_()
    options = {"scheme": nx.per_channel(0), "symmetric": False}
    array = x.detach().to(torch.float64).numpy().astype("float64" if kind == torch.float64 else "float32")
    for name in ("min_max", "percentile", "mse"):
        with nx.use(chosen or "cpu"):
            watching = seen(small(name, "int8", **options), x)
            scale, zero = watching.scale, watching.zero_point
        due = seen(small(name, "int8", **options), array)
        assert (scale.dtype, scale.device, zero.dtype) == (torch.float32, x.device, torch.int32)
        assert_same(scale.numpy(), due.scale)
        assert_same(zero.numpy(), due.zero_point)
        if name == "min_max":
            assert torch.equal(scale, nx.quantize(x, "int8", **options).shared)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_quantized_tensor_counts_by_its_values(library):
    q = nx.quantize(library(np.float32([[0.3, -2.0, 7.0], [1.0, 0.0, 3.5]])), "int4")
    for name in OBSERVERS:
        one, other = (observe.observer(name, "int8") for _ in range(2))
        one.observe(q)
        other.observe(q.dequantize())
        assert (one.low, one.high, one.scale) == (other.low, other.high, other.scale)


def test_python_numbers_and_numbers_alone():
    watching = seen(MinMax("int8", scale_type="float"), [1.0, [3.0, -127.5][1]], 2.0)
    assert_same(watching.scale, np.asarray(127.5 / 127))


@pytest.mark.parametrize("scheme", [nx.per_block((4, 5)), nx.per_token()], ids=str)
@pytest.mark.parametrize("kind", [MinMax, MSE, Percentile])
def test_each_block_and_each_token_is_observed_as_if_it_were_alone(kind, scheme):
    x = np.random.default_rng(3).standard_normal((9, 13)).astype(np.float32)
    rows, columns = scheme.block or (1, 13)
    whole = kind("int8", scheme=scheme)
    whole.observe(x)
    for place, scale in np.ndenumerate(whole.scale):
        one = kind("int8")
        down, across = place[0] * rows, place[1] * columns
        one.observe(np.ascontiguousarray(x[down : down + rows, across : across + columns]))
        assert scale == one.scale


def test_batches_become_one(host_executor):
    x = heavy(3, 40, 6)
    options = {"scheme": nx.per_channel(1), "symmetric": False}
    q = nx.quantize(x, "int8", **options)
    watching = seen(MinMax("int8", **options), x[:7], x[:0], x[7:8], x[8:])
    assert_same(watching.scale, q.scale)
    assert_same(watching.zero_point, q.zero_point)
    assert watching.batches == 3


# ---- MovingAverage, Pof2 -------------------------------------------------------------------------


def test_moving_average_by_hand():
    watching = MovingAverage("int8", symmetric=False, averaging_constant=0.25, scale_type="float")
    seen(watching, np.array([-4.0, 8.0]), np.array([2.0, 4.0, np.nan]), np.array([-1.0, -2.0]))
    assert watching.state["low"] == ((-4 * 0.75 + 2 * 0.25) * 0.75 + -2 * 0.25)
    assert watching.state["high"] == ((8 * 0.75 + 4 * 0.25) * 0.75 + -1 * 0.25)
    assert watching.scale == (watching.high - watching.low) / 255


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_moving_average_begins_where_something_finite_is(library):
    """For each scale by itself; zeros are something."""
    nothing, some = np.float32([[np.nan, np.inf], [0, np.nan], [2, 4]]), np.full((3, 2), 127, np.float32)
    watching = seen(MovingAverage("int8", scheme="per_channel(0)", averaging_constant=0.25), library(nothing))
    assert watching.scale.tolist() == np.float32([1, 1, 4 / 127]).tolist()
    watching.observe(library(some))
    assert watching.scale.tolist() == np.float32([1, 0.25, (4 * 0.75 + 127 * 0.25) / 127]).tolist()
    watching.observe(library(nothing))
    assert watching.high.tolist() == [127, 127 * 0.25 * 0.75, (4 * 0.75 + 127 * 0.25) * 0.75 + 4 * 0.25]
    again = MovingAverage("int8", scheme="per_channel(0)", averaging_constant=0.25)
    again.restore(watching.state)
    assert_same_state(again, watching)


def test_moving_average_of_one_batch_is_what_quantize_finds():
    x = heavy(4, 4, 5)
    assert_same(seen(MovingAverage("int4", scheme="per_channel(0)"), x).scale,
                nx.quantize(x, "int4", scheme="per_channel(0)").scale)  # fmt: skip


@pytest.mark.parametrize("original", ["float32", "float64"])
def test_nearest_power_of_two_is_the_nearest_in_log2(original):
    kind = np.dtype(original).type
    root = kind(127 * math.sqrt(2))
    amax = [
        np.nextafter(root, kind(0)),
        root,
        np.nextafter(root, kind(np.inf)),
        kind(127),
        kind(1e-30),
        kind(3e38),
    ]
    x = np.stack([amax, np.zeros_like(amax)], axis=1).astype(kind)
    found = seen(Pof2("int8", scheme=nx.per_channel(0)), x).scale
    for value, scale in zip(amax, found.tolist(), strict=True):
        exact = Fraction(
            float(kind(value) / kind(127))
        )  # the scale wanted; nearest: 2**-1 <= (it / found)**2 < 2
        assert math.frexp(scale)[0] == 0.5
        assert Fraction(1, 2) < (exact / Fraction(scale)) ** 2 < 2
    ceil = seen(Pof2("int8", scheme=nx.per_channel(0), rule="ceil"), x).scale
    assert_same(ceil, seen(MinMax("int8", scheme=nx.per_channel(0), scale_type="pof2"), x).scale)
    assert_same(ceil, nx.quantize(x, "int8", scheme=nx.per_channel(0), scale_type="pof2").scale)


@pytest.mark.parametrize("original", [np.float32, np.float64])
def test_the_nearest_power_of_two_of_next_to_nothing_is_the_least(original):
    for amax in (1e-44, 1e-40, 2.0**-149, 2.0**-120):
        assert seen(Pof2("int8"), original([amax])).scale == max(
            2.0**-127, 2.0 ** round(math.log2(amax / 127))
        )


def test_nearest_power_of_two_has_its_own_zero_point():
    watching = seen(Pof2("uint8", symmetric=False), np.float32([-85.0, 255.0]))
    assert (watching.scale, watching.zero_point) == (1.0, 85)  # 340 / 255 = 1.33, below the root of two
    assert (watching.scale.dtype, watching.zero_point.dtype) == (np.float32, np.int32)


# ---- the histogram -------------------------------------------------------------------------------


def place_of(value, bins):
    """Which bin, by fractions: the sign, the octave and the part of it; zero's is its own."""
    if value == 0:
        return (0,)
    octave = math.frexp(value)[1] - 1
    part = math.floor((abs(Fraction(value)) / Fraction(2) ** octave - 1) * bins)
    return (1, octave, part) if value > 0 else (-1, -octave, -part)


def histogram_of(values, bins):
    """The count, the least and the largest of every bin, in order."""
    found = {}
    for value in sorted(float(v) for v in values if math.isfinite(v)):
        found.setdefault(place_of(value, bins), []).append(value + 0.0)
    return [(len(some), min(some), max(some)) for _, some in sorted(found.items())]


def counted(watching, scale=0):
    """The same of an observer's scale."""
    own = watching.places // (OCTAVES * watching.bins) == scale
    fields = (watching.counts[own], watching.least[own], watching.largest[own])
    return list(zip(*(field.tolist() for field in fields), strict=True))


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
BATCHES = st.lists(st.lists(FLOATS, min_size=1, max_size=12), min_size=1, max_size=6)


@given(BATCHES)
@pytest.mark.filterwarnings("error")
def test_counts_are_exact_whatever_the_batches(batches):
    watching = seen(Histogram("int8", bins=64), *(np.float32(batch) for batch in batches))
    values = [v for batch in batches for v in batch]
    assert counted(watching) == histogram_of(np.float32(values), 64)
    together = seen(Histogram("int8", bins=64), np.float32(values))
    assert counted(together) == counted(watching)


@pytest.mark.parametrize("values", [
    [5e-324], [1e-323, 5e-324, -5e-324], [1.7976931348623157e308, 5e-324], [2.0**1023, -(2.0**1023)],
    [0.0, -0.0],
])  # fmt: skip
def test_counts_at_the_ends_of_float64(values):
    watching = seen(Histogram("int8", bins=64), np.array(values))
    assert counted(watching) == histogram_of(values, 64)


@pytest.mark.parametrize("original", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bins", [64, 256, 1 << 20])
def test_bins_are_octaves_cut_into_equal_parts(original, bins):
    facts, some = np.finfo(original), RNG(11)
    x = some.standard_t(1, 4000) * 2.0 ** some.integers(-30, 10, 4000)
    ends = [facts.max, facts.tiny, facts.smallest_subnormal, 3 * facts.smallest_subnormal, 0.0, 1.0]
    with np.errstate(over="ignore"):
        x = np.concatenate([x, ends, np.negative(ends), [np.nan, np.inf]]).astype(original)
    assert counted(seen(Histogram("int8", bins=bins), x)) == histogram_of(x, bins)


def test_memory_is_bounded_by_the_octaves_that_have_values():
    """However many batches come, and however far the outliers lie."""
    watching = Histogram("int8")
    for seed in range(30):
        watching.observe(np.append(RNG(seed).standard_t(4, 1 << 14), 10.0**seed).astype(np.float32))
    assert watching.counts.sum() == 30 * (2**14 + 1)
    assert watching.counts.size < 2 * 256 * 20


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_each_scale_has_its_own_histogram(scheme):
    x = heavy(5, 4, 7) * np.float32([[1e-3], [1], [30], [0]])
    x[2, 3] = np.nan
    watching = seen(Histogram("int8", scheme=scheme, bins=64), x[:, ::1], -x)
    groups = nx.quantize(x, "int8", scheme=scheme).scale.shape
    members = {}
    for index in np.ndindex(*x.shape):
        axis = None if scheme.axis is None else scheme.axis % 2
        key = {"per_tensor": (), "per_channel": (index[axis or 0],)}.get(scheme.kind)
        if key is None:
            key = tuple(i // scheme.size if k == axis else i for k, i in enumerate(index))
        members.setdefault(key, []).extend([x[index], -x[index]])
    assert len(members) == math.prod(groups)
    for key, values in members.items():
        scale = int(np.ravel_multi_index(key, groups)) if key else 0
        assert counted(watching, scale) == histogram_of(values, 64)


def test_chunks_come_to_the_same(monkeypatch):
    x = heavy(6, 5, 3, 7)

    def found():
        counted = seen(Histogram("int8", scheme=nx.per_group(2, axis=1)), x)
        return counted.counts, seen(MSE("int4", scheme=nx.per_channel(2)), x).scale

    due = found()
    monkeypatch.setattr("numerics.observe.histogram.CHUNK", 4)
    for came, wanted in zip(found(), due, strict=True):
        assert_same(came, wanted)


# ---- merging -------------------------------------------------------------------------------------


@given(BATCHES, st.randoms(use_true_random=False), st.sampled_from([MinMax, Histogram]))
def test_merging_is_exact_and_in_any_order(batches, random, kind):
    batches = [np.float32(batch) for batch in batches]
    due = seen(kind("int8", scale_type="pof2"), *batches)
    random.shuffle(batches)
    parts = [kind("int8", scale_type="pof2") for _ in range(3)]
    for batch in batches:
        random.choice(parts).observe(batch)
    random.shuffle(parts)
    total, *others = parts
    for other in others:
        total.merge(other)
    assert_same_state(total, due)


@pytest.mark.parametrize("name", [name for name in OBSERVERS if OBSERVERS[name].mergeable])
@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_merged_observers_find_what_one_finds(name, scheme):
    x = [heavy(k, 4, 6) * 10**k for k in range(3)]
    one, first, second = (small(name, scheme=scheme) for _ in range(3))
    seen(one, *x), seen(first, x[1]), seen(second, x[2], x[0])
    unmoved = copy.deepcopy(second)
    assert first.scale.shape == one.scale.shape  # found, and found again after merging
    first.merge(second)
    assert_same_state(first, one)
    assert_same(first.scale, one.scale)
    assert_same_state(second, unmoved)


def test_nothing_merges_with_something():
    x = heavy(7, 9)
    empty, full = KL("int8"), seen(KL("int8"), x)
    full.merge(KL("int8"))
    empty.merge(full)
    assert_same_state(empty, full)
    full.observe(x)
    assert empty.batches == 1
    assert empty.counts.sum() == 9


@pytest.mark.parametrize("name", OBSERVERS)
def test_pickles_copies_and_states(name):
    watching = seen(observe.observer(name, "int4", scheme="per_channel(0)"), heavy(8, 3, 50))
    again, other = pickle.loads(pickle.dumps(watching)), copy.deepcopy(watching)
    restored = observe.observer(name, "int4", scheme="per_channel(0)")
    restored.restore(watching.state)
    for one in (again, other, restored):
        assert_same_state(one, watching)
        assert_same(one.scale, watching.scale)
        one.observe(heavy(9, 3, 50))
    assert watching.batches == 1
    assert_same_state(again, restored)
    assert_same_state(again, other)


CHILD = """
import sys
from datetime import timedelta
import numpy as np, torch.distributed as dist
from numerics.observe import MSE, MinMax
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2, timeout=timedelta(seconds=60))
for kind in MinMax, MSE:
    watching = kind("int8", scheme="per_channel(1)")
    watching.observe(np.float32([[9, -1, 300]]))
    watching.observe(np.float32([[0.5, 2, 1]]))
    watching.all_reduce()
    print(watching.scale.tobytes().hex())
dist.destroy_process_group()
"""


def test_all_reduce_leaves_the_same_in_every_process(tmp_path):
    meet = f"file://{tmp_path}/meet"
    with child([sys.executable, "-c", CHILD, meet], stdout=subprocess.PIPE, text=True) as other:
        dist.init_process_group("gloo", init_method=meet, rank=0, world_size=2, timeout=timedelta(seconds=60))
        try:
            found = []
            for kind in (MinMax, MSE):
                watching, alone = (kind("int8", scheme="per_channel(1)") for _ in range(2))
                seen(watching, np.float32([[1, 2, 3], [4, 5, 6]])).all_reduce()
                seen(alone, np.float32([[9, -1, 300], [0.5, 2, 1]]), np.float32([[1, 2, 3], [4, 5, 6]]))
                alone.batches = 3
                assert_same_state(watching, alone)
                found.append(watching.scale.tobytes().hex())
        finally:
            dist.destroy_process_group()
        assert other.communicate(timeout=LIMIT)[0].split() == found


# ---- Percentile ----------------------------------------------------------------------------------


def test_the_tails_are_the_right_way_round():
    """Quark gives min = max = -8.69, scale .034, zero point 255 for such data: it swaps the tails."""
    x = RNG(0).normal(0, 2, 100_000).astype(np.float32)
    x[:1000] = 50
    watching = seen(Percentile("uint8", symmetric=False, percentile=97.9), x)
    low, high = np.percentile(x, [1.05, 98.95])
    assert -5 < low < -4 < 6 < high < 7
    assert abs(watching.scale * 255 - (high - low)) <= 2 * 50 / 1024  # two bins
    assert abs(watching.zero_point * watching.scale + low) <= watching.scale + 50 / 1024


def test_all_percent_is_min_max_and_what_lies_between_is_kept():
    for x in (heavy(11, 400), -np.abs(heavy(12, 400)), np.abs(heavy(13, 400)), np.zeros(4, np.float32)):
        for symmetric in (True, False):
            options = {"symmetric": symmetric}
            due = seen(MinMax("int8", **options), x)
            assert_same(seen(Percentile("int8", percentile=100, **options), x).scale, due.scale)
            assert seen(Percentile("int8", percentile=90, **options), x).scale <= due.scale


# ---- MSE, KL, Pof2MSE: beside MinMax; against brute force in observe/test_search.py -----------------


@pytest.mark.parametrize("kind", ["int8", "int3", "uint4", "fp4"])
@pytest.mark.parametrize("seed", range(3))
def test_pof2_mse_is_the_best_power_of_two(kind, seed):
    """Of the values themselves: the widest and eight of its halves."""
    x = heavy(seed, 2000) + seed
    widest = float(seen(Pof2(kind, rule="ceil"), x).scale)
    error = {
        scale: float(((nx.fake_quantize(x, kind, scale=scale).astype(np.float64) - x) ** 2).mean())
        for scale in (widest / 2**halved for halved in range(9))
    }
    assert error[float(seen(Pof2MSE(kind), x).scale)] <= min(error.values()) * (1 + 1e-3)


@pytest.mark.parametrize("kind", ["int8", "int4", "fp4", "fp8_e4m3"])
@pytest.mark.parametrize("scheme", [nx.per_tensor(), nx.per_channel(0)], ids=repr)
def test_the_true_error_is_less_than_that_of_the_widest_range(kind, scheme):
    x = heavy(14, 4, 20_000)
    error = {}
    for name in ("min_max", "mse"):
        scale = seen(observe.observer(name, kind, scheme=scheme), x).scale
        moved = nx.fake_quantize(x, kind, scheme=scheme, scale=scale).astype(np.float64) - x
        error[name] = (moved**2).sum(axis=1)
    assert error["mse"].sum() < error["min_max"].sum()
    if scheme.kind == "per_channel":
        assert (error["mse"] <= error["min_max"]).all()


ELEMENTS = [d.name for d in dtypes() if isinstance(d, Element) and d.bits <= 8]


@pytest.mark.turns
@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("kind", OBSERVERS)
def test_every_format_has_a_range(name, kind):
    """Formats without zero, without a sign, of one value a sign, too."""
    for x in (np.ones(16), np.zeros(16), -np.ones(4), np.linspace(-3, 3, 200), np.exp2(np.arange(-9.0, 9))):
        watching = seen(observe.observer(kind, name), x.astype(np.float32))
        assert 0 < watching.scale < np.inf, x


def test_kl_of_a_format_without_zero_keeps_what_is_nearest_to_zero():
    """e8m0 has nothing below 2**-127: what is nearer to zero goes there, and is counted there."""
    found = boundaries(nx.e8m0)
    assert found[:2].tolist() == [0, 1.5 * 2.0**-127]


LITTLE = [np.zeros(5), np.full(5, np.nan), np.full(5, 3e38), np.full(5, -1e-44), np.float64([0, 1])]


@pytest.mark.parametrize("name", ["mse", "kl", "pof2_mse"])
@pytest.mark.parametrize("x", LITTLE, ids=str)
def test_searches_of_little(name, x):
    for original in ("float32", "float64"):
        for symmetric in (True, False):
            watching = seen(small(name, symmetric=symmetric), x.astype(original))
            options = {"symmetric": symmetric, "scale_type": watching.spec.scale_type}
            assert 0 < watching.scale <= seen(MinMax("int4", **options), x.astype(original)).scale
            if not np.nan_to_num(x).any():
                assert watching.scale == 1


# ---- what cannot be ------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.sampled_from(sorted(OBSERVERS)))
def test_nothing_seen_is_said(name):
    watching = observe.observer(name, "int8")
    watching.observe(np.empty((0, 4), np.float32))
    for ask in ("scale", "zero_point", "state"):
        with pytest.raises(nx.NumericsError, match="has seen nothing"):
            getattr(watching, ask)


def after(name, options, *batches):
    """Sees batches of which the last is refused."""
    return lambda: seen(observe.observer(name, "int8", **options), *batches)


def restored_of_others():
    Histogram("int8").restore(seen(Histogram("int8", bins=64), [1.0]).state)


def restored(**other):
    MinMax("int8").restore({**seen(MinMax("int8"), [1.0]).state, **other})


def merged_of_another_type():
    seen(MinMax("int8"), [1.0]).merge(seen(MinMax("int8"), np.float32([1])))


CHANNELS, GROUPS = {"scheme": "per_channel(0)"}, {"scheme": "per_group(2)"}


@pytest.mark.parametrize(("make", "said"), [
    (lambda: observe.observer("mean_square", "int8"), "unknown observer 'mean_square'"),
    (lambda: MinMax("mxfp4"), "a block format finds its scales itself"),
    (lambda: MinMax("fp4", symmetric=False), "symmetric=False cannot be"),
    (lambda: MinMax("int8", scale_type="fp32"), "unknown scale type"),
    (lambda: MovingAverage("int8", averaging_constant=0), "averaging_constant=0 is not allowed"),
    (lambda: Percentile("int8", percentile=100.5), "percentile=100.5 is not allowed"),
    (lambda: Percentile("int8", percentile=math.nan), "percentile=nan is not allowed"),
    (lambda: Percentile("int8", percentile="99"), "percentile='99' is not allowed"),
    (lambda: Histogram("int8", bins=100), "bins=100 is not allowed"),
    (lambda: Histogram("int8", bins=32), "bins=32 is not allowed"),
    (lambda: KL("int16"), "int16 has 65536 codes, too many for 256 bins an octave; allowed: bins=32768"),
    (lambda: Histogram("int8", bins=1 << 21), "bins=2097152 is not allowed"),
    (lambda: Histogram("int8", bins=np.array([64, 64])), "bins must be an integer"),
    (lambda: Histogram("int8", bins=True), "bins must be an integer"),
    (lambda: Percentile("int8", percentile=np.array([99.0, 98.0])), "percentile=<ndarray"),
    (lambda: MovingAverage("int8", averaging_constant=np.array([0.5])), "averaging_constant=<ndarray"),
    (lambda: Pof2("int8", rule="floor"), "unknown rule 'floor'"),
    (lambda: Pof2("int8", scale_type="float32"), "scale type 'float32' of an observer that finds powers"),
    (lambda: Pof2MSE("int8", scale_type="float32"), "scale type 'float32' of an observer that finds powers"),
    (after("min_max", {}, np.float32([1]), np.float64([1])), "are float64, those .* before float32"),
    (after("min_max", CHANNELS, np.ones((2, 3)), np.ones((3, 2))), r"shape \(3,\), those .* \(2,\)"),
    (after("mse", GROUPS, np.ones((2, 4)), np.ones((3, 4))), r"\(3, 2\), those .* \(2, 2\)"),
    (after("min_max", {"scheme": "per_channel(2)"}, np.ones((2, 3))), "axis 2 does not exist"),
    (after("min_max", {}, np.array([1, 2])), "cannot compute with int64 data"),
    (after("min_max", {}, "text"), "no backend takes a"),
    (lambda: MinMax("int8").merge(MinMax("int4")), "made with other options"),
    (lambda: MinMax("int8").merge(Histogram("int8")), "made with other options"),
    (lambda: Percentile("int8").merge(Percentile("int8", percentile=99)), "made with other options"),
    (lambda: MinMax("int8").merge(3), "cannot take in 3"),
    (merged_of_another_type, "float32, those .* python"),
    (lambda: MovingAverage("int8").merge(MovingAverage("int8")), "depends on the order"),
    (lambda: MovingAverage("int8").all_reduce(), "depends on the order"),
    (lambda: MinMax("int8").all_reduce(), "not initialized"),
    (lambda: MinMax("int8").restore({}), "state of MinMax has spec, batches, original, device, low, high"),
    (lambda: MinMax("int8").restore(None), "a state is a table of names"),
    (lambda: restored(batches="x"), "batches must be an integer, not 'x'"),
    (lambda: restored(batches=0), "batches=0 is not allowed"),
    (restored_of_others, r"are not the bins of Histogram\(.*bins=256"),
])  # fmt: skip
def test_an_observer_or_a_state_that_contradicts_itself_is_refused(make, said):
    with pytest.raises(nx.NumericsError, match=said):
        make()


# ---- states that nothing gave, arrays of other kinds -----------------------------------------------


def histogram_state(**other):
    """A state of three bins, and another one with something else in it."""
    state = seen(Histogram("int8"), np.float32([-1, 2, 2, 3])).state
    return {**state, **{name: change(state[name]) for name, change in other.items()}}


BROKEN = [
    ("ragged lists", {"low": lambda _: [[1.0], [2.0, 3.0]]}),
    ("ragged counts", {"counts": lambda _: [[1], [2, 3]]}),
    ("NaN", {"low": lambda _: np.float32(np.nan)}),
    ("Inf", {"high": lambda _: np.float32(np.inf)}),
    ("a low above zero", {"low": lambda _: np.float32(1)}),
    ("a high that nothing reached", {"high": lambda _: np.float32(4)}),
    ("another type", {"low": np.float64}),
    ("another byte order", {"counts": lambda counts: counts.astype(">i8")}),
    ("no count", {"counts": lambda counts: counts * 0}),
    ("negative counts", {"counts": lambda counts: -counts}),
    ("counts past int64 together", {"counts": lambda counts: counts + (1 << 62)}),
    ("counts beyond int64", {"counts": lambda _: [1 << 64, 1, 1]}),
    ("float counts", {"counts": lambda counts: counts.astype(float)}),
    ("fewer counts", {"counts": lambda counts: counts[:2]}),
    ("two axes", {"counts": lambda counts: counts[None]}),
    ("bins in another order", {name: lambda part: part[::-1] for name in ("places", "least", "largest")}),
    ("a bin twice", {name: lambda part: part[[0, 1, 1]] for name in ("places", "least", "largest")}),
    ("values of another bin", {"least": lambda least: least - 1}),
    ("ends the wrong way round", {"least": lambda _: np.float32([-1, 2.001, 3]),
                                  "largest": lambda _: np.float32([-1, 2, 3])}),
    ("a bin of no scale", {"places": lambda places: places + OCTAVES * 256}),
    ("another scale's", {"places": lambda places: places - OCTAVES * 256}),
    ("NaN in a bin", {"largest": lambda largest: largest * np.float32(np.nan)}),
    ("hidden values", {"counts": lambda counts: np.ma.masked_array(counts, [0, 0, 1])}),
    ("None", {"low": lambda _: None}),
    ("a name of no type", {"original": lambda _: "float8"}),
    ("an array for a name", {"original": lambda _: np.array(["float32", "float32"])}),
    ("no batch", {"batches": lambda _: -1}),
    ("too many batches", {"batches": lambda _: 1 << 64}),
    ("half a batch", {"batches": lambda _: 1.5}),
    ("arrays of batches", {"batches": lambda _: np.array([1, 2])}),
    ("a truth", {"batches": lambda _: True}),
]  # fmt: skip


@pytest.mark.parametrize("change", [change for _, change in BROKEN], ids=[name for name, _ in BROKEN])
@pytest.mark.filterwarnings("error")
def test_a_state_that_contradicts_itself_is_refused_and_nothing_is_lost(change):
    watching = seen(Histogram("int8"), np.float32([5]))
    before = copy.deepcopy(watching)
    with pytest.raises(nx.NumericsError):
        watching.restore(histogram_state(**change))
    assert_same_state(watching, before)


@pytest.mark.parametrize(("low", "high"), [(math.nan, 1.0), (2.0, 1.0), (-math.inf, 0.0), (0.0, math.nan)])
@pytest.mark.parametrize("kind", [MinMax, MovingAverage])
def test_ends_that_contradict_each_other_are_refused(kind, low, high):
    state = seen(kind("int8"), [1.0]).state
    with pytest.raises(nx.NumericsError, match="low"):
        kind("int8").restore({**state, "low": np.array(low), "high": np.array(high)})


def test_names_of_a_state_may_be_anything_and_are_refused():
    for state in ({1: 2}, {None: 0, "low": 1}, {("a", "b"): 1}, [], "state", 5):
        with pytest.raises(nx.NumericsError, match="state"):
            Histogram("int8").restore(state)


def test_as_many_values_as_int64_counts():
    state = histogram_state(counts=lambda _: np.array([1, 2**62, 2**62 - 2]))
    for kind in (Histogram, MSE, KL):
        watching, other = kind("int8"), seen(kind("int8"), np.float32([1, 2]))
        watching.restore(state)
        assert watching.scale == np.float32(3) / np.float32(127) or kind is not Histogram
        before = copy.deepcopy(watching)
        with pytest.raises(nx.NumericsError, match="more than"):
            watching.merge(other)
        assert_same_state(watching, before)
    watching = Percentile("int8", percentile=50)
    watching.restore(state)
    assert watching._range() == (-2, 2)


@pytest.mark.parametrize("name", OBSERVERS)
def test_what_quantize_refuses_is_not_observed(name):
    """np.matrix and masks that hide nothing were observed, and `quantize` refused them afterwards."""
    x = np.float32([[1, -2, 3], [4, 5, 6]])
    hiding = np.ma.masked_array(np.float32([1, 1000]), [False, True])
    for more in (x.view(np.matrix), np.ma.masked_array(x), hiding, [x.view(np.matrix)], [hiding]):
        with pytest.raises(nx.NumericsError) as due:
            nx.quantize(more, "int8")
        watching = observe.observer(name, "int8")
        with pytest.raises(nx.NumericsError) as came:
            watching.observe(more)
        assert str(came.value) == str(due.value)
        assert watching.batches == 0
    others = [np.array([1.0, None]), np.array([1j]), [[1.0], [2.0, 3.0]], {"a": 1}, None]
    tensors = [torch.empty(3, device="meta"), torch.zeros(3).to_sparse(), torch.tensor([1, 2])]
    for other in others + tensors:
        with pytest.raises(nx.NumericsError):
            observe.observer(name, "int8").observe(other)


def test_a_mapped_file_is_observed_and_restored(tmp_path):
    x = np.float32([[1, -2, 3], [4, 5, 6]])
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    watching = seen(Percentile("int8"), mapped)
    assert_same(watching.scale, seen(Percentile("int8"), x).scale)
    assert {type(part) for part in watching.state.values() if isinstance(part, np.ndarray)} == {np.ndarray}


# ---- of the kind that was observed -----------------------------------------------------------------


def of_state(name, watching):
    made = small(name)
    made.restore(watching.state)
    return made


def of_merge(name, watching):
    made = small(name)
    made.merge(watching)
    return made


COPIES = {
    "state": of_state,
    "pickle": lambda _, watching: pickle.loads(pickle.dumps(watching)),
    "deepcopy": lambda _, watching: copy.deepcopy(watching),
    "merge": of_merge,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", OBSERVERS)
def test_a_copy_gives_what_was_observed_tensors_of_tensors(name, how):
    """A restored observer of tensors gave arrays."""
    if how == "merge" and not OBSERVERS[name].mergeable:
        pytest.skip("depends on the order")
    x = heavy(3, 4, 8)
    for batch in (torch.from_numpy(x), nx.quantize(torch.from_numpy(x), "int8"), x, x.tolist()):
        watching = seen(small(name, symmetric=True), batch)
        found = COPIES[how](name, watching)
        assert type(found.scale) is type(watching.scale)
        assert type(found.scale) is (torch.Tensor if isinstance(batch, torch.Tensor) else np.ndarray)
        assert np.asarray(found.scale).tobytes() == np.asarray(watching.scale).tobytes()
        assert found.state["device"] == watching.state["device"]


def test_a_state_of_other_options_is_refused():
    watching = MinMax("int4")
    with pytest.raises(nx.NumericsError, match=r"made with other options: .*int8"):
        watching.restore(seen(MinMax("int8"), [1.0]).state)
    state = seen(MinMax("int8"), [1.0]).state
    del state["spec"]  # as it was written before
    watching.restore(state)
    assert watching.batches == 1


@pytest.mark.parametrize("name", ["low", "high", "original", "places", "counts"])
def test_what_is_asked_for_before_anything_was_seen_is_refused_in_words(name):
    with pytest.raises(nx.NumericsError, match="has seen nothing"):
        getattr(Histogram("int8"), name)
    assert not hasattr(Histogram("int8"), "lows")


def test_who_saw_something_keeps_its_kind_when_it_merges():
    x = torch.ones(3)
    one, other = seen(MinMax("int8"), x.numpy()), seen(MinMax("int8"), x)
    one.merge(other)
    other.merge(seen(MinMax("int8"), x.numpy()))
    assert (type(one.scale), type(other.scale)) == (np.ndarray, torch.Tensor)


def test_a_state_of_before_is_one_of_arrays():
    state = seen(MinMax("int8"), torch.ones(3)).state
    del state["device"]
    watching = seen(MinMax("int8"), torch.ones(3))
    watching.restore(state)
    assert isinstance(watching.scale, np.ndarray)


@pytest.mark.parametrize("device", ["meta", "nowhere", "cuda:77", "xpu", b"cpu", 0, np.array("cpu")])
def test_a_device_that_is_not_here_is_named(device):
    watching = MinMax("int8")
    with pytest.raises(nx.NumericsError, match="device"):
        watching.restore({**seen(MinMax("int8"), torch.ones(3)).state, "device": device})
    assert watching.batches == 0


# ---- in a compiled function --------------------------------------------------------------------------


@pytest.mark.turns
@pytest.mark.parametrize("name", OBSERVERS)
def test_a_compiled_function_may_observe(name):
    """Tracing went into the arithmetic of arrays, and failed on a pointer."""
    made = functools.partial(small, name, "int4", symmetric="pof2" in name)
    watching, eager = made(), made()

    def step(x):
        y = x * 2
        watching.observe(y)
        inside = made()
        inside.observe(y)
        if inside.mergeable:
            inside.merge(watching)
        return nx.fake_quantize(y, "int4", symmetric=inside.spec.symmetric, scale=watching.scale,
                                zero_point=watching.zero_point) + 1, inside.scale  # fmt: skip

    compiled, inside = torch.compile(step, backend="eager"), None
    for seed in range(3):
        x = torch.from_numpy(heavy(seed, 4, 8))
        came, inside = compiled(x)
        eager.observe(x * 2)
        due = nx.fake_quantize(x * 2, "int4", symmetric=eager.spec.symmetric, scale=eager.scale,
                               zero_point=eager.zero_point) + 1  # fmt: skip
        assert torch.equal(came, due)
    assert isinstance(inside, torch.Tensor)
    assert_same_state(watching, eager)
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"compiler\.disable"):
        torch.compile(step, backend="eager", fullgraph=True)(x)


@pytest.mark.long
def test_a_hook_may_be_bound_before_torchs_compiler_is_imported():
    code = """
import sys, torch
from numerics import observe
watching, layer = observe.MSE("int8"), torch.nn.Linear(4, 4)
watch = watching.observe
layer.register_forward_hook(lambda module, inputs, output: watch(output))
assert "torch._dynamo" not in sys.modules
torch.compile(layer, backend="eager")(torch.ones(2, 4))
assert watching.batches == 1
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert found.returncode == 0, found.stderr


# ---- NVFP4's tensor scale --------------------------------------------------------------------------


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("original", ["float16", "float32", "float64"])
def test_nvfp4_has_its_tensor_scale_to_observe(library, original):
    """It was said that there is nothing to observe."""
    x = [library(heavy(seed, 4, 32).astype(original)) for seed in range(3)]
    watching = seen(MinMax("nvfp4"), *x)
    together = np.concatenate([np.asarray(batch) for batch in x])
    assert watching.tensor_scale == nx.nvfp4.encode(together).tensor_scale
    assert nx.nvfp4.encode(x[0], tensor_scale=watching.tensor_scale).tensor_scale == watching.tensor_scale
    one, other = seen(MinMax("nvfp4"), x[0]), seen(MinMax("nvfp4"), *x[1:])
    one.merge(other)
    assert one.tensor_scale == watching.tensor_scale
    clipped = seen(Percentile("nvfp4", percentile=90), *x)
    assert 0 < clipped.tensor_scale < watching.tensor_scale
    assert seen(MovingAverage("nvfp4", averaging_constant=1.0), *x).tensor_scale > 0


@pytest.mark.parametrize(("make", "said"), [
    (lambda: seen(MinMax("nvfp4"), [1.0]).scale, "what is observed is tensor_scale"),
    (lambda: seen(MinMax("nvfp4"), [1.0]).zero_point, "what is observed is tensor_scale"),
    (lambda: MinMax("nvfp4").tensor_scale, "has seen nothing"),
    (lambda: seen(MinMax("int8"), [1.0]).tensor_scale, "int8 has no tensor scale"),
    (lambda: MSE("nvfp4"), "nothing for MSE to observe; allowed: .* MinMax"),
    (lambda: KL("nvfp4"), "nothing for KL to observe"),
    (lambda: Pof2("nvfp4"), "scale_type='pof2' cannot be"),
    (lambda: MinMax("nvfp4", scheme="per_channel"), "cannot be"),
    (lambda: MinMax("mx9"), "a block format finds its scales itself"),
])  # fmt: skip
def test_what_nvfp4_has_not(make, said):
    with pytest.raises(nx.NumericsError, match=said):
        make()


ENDS = {
    "float32": [3.4e38, -3.4e38, 1e-45, 1e-40, 0.0], "float16": [65504, 6e-8], "bfloat16": [3.38e38, 9.2e-41],
    "float64": [1.7e308, 5e-324, 1e-320, 1e100, 1e-100],
}  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.parametrize("scale_type", ["float32", "float", "float16", "bfloat16", "pof2"])
@pytest.mark.parametrize("name", OBSERVERS)
def test_the_ends_of_a_type_made_a_scale_that_is_none(name, scale_type):
    """KL of 5e-324 with a scale of float16: ValueError: Maximum allowed size exceeded."""
    if name.startswith("pof2") and scale_type != "pof2":
        return
    for kind, values in ENDS.items():
        for dtype in ("int4", "uint8", "fp8_e4m3", "nf4"):
            for x in (torch.tensor(value, dtype=getattr(torch, kind)) for value in values):
                one = observe.observer(name, dtype, scale_type=scale_type)
                one.observe(x)
                one.observe(x.repeat(3))
                assert float(one.scale) > 0
                assert np.isfinite(float(one.scale)), (kind, dtype, x)


def test_observers_could_not_be_imported_where_docstrings_have_no_indentation():
    """Python 3.13 compiles docstrings without it: `import numerics.observe` was a ValueError there."""
    told = "One.\n\ndtype and the other options: as for `Observer`.\nscale_type: (asymmetric: 1).\n"
    found = base._with_options(told, cleandoc(base.Observer.__doc__))
    assert found == base._with_options(indented(told), indented(cleandoc(base.Observer.__doc__)))
    assert [found.count(f"\n{name}:") for name in ("scale_type", "symmetric")] == [1, 1]
    assert "\nzero_point_type: int32" in found
    assert "These options" not in found


def indented(text: str) -> str:
    return text.replace("\n", "\n    ")
