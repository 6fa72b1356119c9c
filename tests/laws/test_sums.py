"""Signal, noise and largest error: the same bits from every executor and any number of threads."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from llvmlite import binding

import numerics as nx
from numerics.backends.cpu import EXECUTOR
from numerics.backends.cpu import threads as cpu_threads
from numerics.backends.cpu.target import architecture
from numerics.backends.host import random_bits, sums
from numerics.backends.host.quantizing import Prepared
from numerics.formats import dispatch
from numerics.formats.protocol import Given
from numerics.formats.rounding import Draw
from numerics.tensor.qtensor import ErrorSums, Figures
from tests.helpers.children import LIMIT

SIZES = (0, 1, sums.LANES - 1, sums.LANES + 1, sums.CHUNK - 1, sums.CHUNK, sums.CHUNK + 1, 70001)
KINDS = ("float32", "float64")


def arrays(size, kind_of_x="float32", kind_of_y="float32", seed=0):
    """A signal of many magnitudes with some NaN and Inf in it, and what it may have become."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(size) * np.exp2(rng.integers(-30, 30, size))
    y = x * (1 + rng.standard_normal(size) / 16)
    x[5::101], x[17::211] = np.nan, np.inf
    return x.astype(kind_of_x), y.astype(kind_of_y)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kinds", [(a, b) for a in KINDS for b in KINDS], ids="-".join)
def test_the_kernel_finds_the_bits_of_numpy(size, kinds):
    x, y = arrays(size, *kinds)
    due = sums.error_sums(x, y)
    assert EXECUTOR.error_sums(x, y).tobytes() == due.tobytes()
    kept = np.isfinite(x)
    signal, error = x[kept].astype(np.float64), x[kept].astype(np.float64) - y[kept]
    assert due[:, 0].sum() == pytest.approx(math.fsum(signal**2), rel=1e-13, abs=0)
    assert due[:, 1].sum() == pytest.approx(math.fsum(error**2), rel=1e-13, abs=0)
    assert due[:, 2].sum() == size - kept.sum()
    assert due[:, 3].max(initial=0) == np.abs(error).max(initial=0)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_sums_do_not_know_the_number_of_threads(monkeypatch, threads):
    x, y = arrays(cpu_threads.WORTHWHILE + 12345)
    monkeypatch.setenv("NUMERICS_NUM_THREADS", str(threads))
    assert EXECUTOR.error_sums(x, y).tobytes() == sums.error_sums(x, y).tobytes()


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_the_errors_of_a_report_were_summed_by_numpy(monkeypatch, kind):
    """94 % of a command's time, on one thread: where there are kernels, NumPy has no part in the sums."""
    x, y = (np.clip(part, -6e4, 6e4).astype(kind) for part in arrays(70001))
    due = ErrorSums()
    due.add(x, y)

    def never(*_):
        raise AssertionError("NumPy sums")

    monkeypatch.setattr(sums, "_chunk", never)
    found = ErrorSums()
    for laid in ((x, y), (np.asfortranarray(x[:70000].reshape(70, 1000)), y[:70000].reshape(70, 1000))):
        found.add(*laid)
    assert found.count == 140001
    again = ErrorSums()
    again.add(x, y)
    assert again == due


def test_nothing_behind_an_array_is_read():
    x = np.ones(64, np.float32)
    x[40:] = 1e30
    for size in range(1, 40):
        found = EXECUTOR.error_sums(x[:size], np.zeros(size, np.float32))
        assert found.tolist() == [[size, size, 0, 1.0]]


def test_strides_and_byte_order_are_not_taken_for_the_values():
    x, y = arrays(4000)
    due = ErrorSums()
    due.add(np.ascontiguousarray(x[::-2]), np.ascontiguousarray(y[::-2]))
    for kind in ("<f4", ">f4", ">f8"):
        found = ErrorSums()
        found.add(x.astype(kind)[::-2], y.astype(kind)[::-2])
        assert found == due


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_every_float_type_is_summed_by_its_values(name, executor):
    x, y = arrays(1000)
    x = np.clip(np.nan_to_num(x), -1000, 1000)
    x[3] = np.nan
    narrow = x.astype(name if name != "bfloat16" else pytest.importorskip("ml_dtypes").bfloat16)
    came, due = ErrorSums(), ErrorSums()
    came.add(narrow, y)
    due.add(narrow.astype(np.float64), y)
    assert came == due
    assert came.max_error > 0
    assert (came.count, came.non_finite) == (1000, 1)


def test_a_nan_that_was_made_is_an_error_and_one_that_came_is_not(executor):
    x = np.array([1.0, np.nan, 2.0], np.float32)
    found = ErrorSums()
    found.add(x, np.array([1.0, 7.0, 2.5], np.float32))
    assert (found.signal, found.noise, found.max_error) == (5.0, 0.25, 0.5)
    found.add(x, np.array([np.nan, 7.0, 2.5], np.float32))
    assert math.isnan(found.error.sqnr)
    assert math.isnan(found.max_error)


def test_without_numba_the_sums_are_numpy_s(monkeypatch):
    def missing(x):
        raise nx.NumericsError("backend 'cpu' needs numba, which is not installed")

    x, y = arrays(5000)
    due = ErrorSums()
    due.add(x, y)
    monkeypatch.setattr(dispatch, "owner", missing)
    monkeypatch.setitem(dispatch._backends, "cpu", None)
    found = ErrorSums()
    found.add(x, y)
    assert found == due


@pytest.mark.filterwarnings("ignore:.* values are NaN and become .*:numerics.NumericsWarning")
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("size", [1, 15, 16, 33, sums.CHUNK + 5])
def test_every_nan_and_inf_is_counted(name, library, size):
    torch = pytest.importorskip("torch")
    x = torch.linspace(-2, 2, size).to(getattr(torch, name))
    x[::3], x[1::7], x[2::11] = math.nan, math.inf, -math.inf
    due = size - int(x.isfinite().sum())
    if library == "numpy":
        kind = name if name != "bfloat16" else pytest.importorskip("ml_dtypes").bfloat16
        x = x.double().numpy().astype(kind)
    assert nx.quantize(x, "int8").error(x).non_finite == due


@pytest.mark.filterwarnings("ignore:.* values are NaN and become .*:numerics.NumericsWarning")
def test_without_a_finite_value_there_is_no_sqnr(executor):
    x = np.full(40, np.nan, np.float32)
    error = nx.quantize(x, "int4").error(x)
    assert math.isnan(error.sqnr)
    assert math.isnan(error.max_error)
    assert error.non_finite == 40
    one = ErrorSums()
    one.add(np.float32([np.inf]), np.float32([0]))
    one.merge(ErrorSums(1.0, 0.0, 0.0, 1, 0))
    assert math.isnan(one.error.sqnr)  # what is exact but for what is left out is not exact
    assert one.error.max_error == 0
    assert (one.count, one.error.non_finite) == (2, 1)


def test_what_is_exact_but_for_nan_and_inf_reads_as_exact(executor):
    for odd in (np.nan, np.inf):
        x = np.array([0.5, odd, -1.0, 3.5], np.float32)
        error = nx.quantize(x, "int4", scale=0.5).error(x)
        assert math.isnan(error.sqnr)
        assert (error.max_error, error.non_finite) == (0, 1)
    assert nx.quantize(x[:1], "int4", scale=0.5).error(x[:1]).sqnr == math.inf


def test_finite_values_that_became_nan_or_inf_are_counted(executor):
    x = np.array([1.0, np.nan, 2.0, 3.0], np.float32)
    found, other = ErrorSums(), ErrorSums()
    found.add(x, np.array([1.0, np.nan, 2.0, 3.5], np.float32))
    assert found.lost == 0
    found.add(x, np.array([1.0, np.inf, np.inf, 3.5], np.float32))
    other.add(x, np.array([np.nan, 1.0, -np.inf, 3.5], np.float32))
    other.add(x, np.array([np.nan, 1.0, 2.0, 3.5], np.float32))
    found.merge(other)
    assert found.lost == 4


def test_squares_beyond_float64_do_not_make_their_values_infinite():
    x = np.array([1e200, -3.0, np.nan, 2.0] * 9)
    y = x * 0.5
    assert EXECUTOR.error_sums(x, y).tobytes() == sums.error_sums(x, y).tobytes()
    assert EXECUTOR.error_sums(x, y)[0, 2:].tolist() == [9, 0.5e200]


@pytest.mark.parametrize("size", [32, sums.CHUNK + 32])
@pytest.mark.parametrize("power", [-1040, -700, -560, -450, -400, 0, 400, 500, 700, 1000])
@pytest.mark.parametrize("left", [0.0, 0.5, 1 - 2.0**-20])
def test_the_sqnr_does_not_know_in_which_units_values_are(executor, size, power, left):
    """Squares of 1e-200 are 0, and of 1e200 Inf: total loss read as exact, and as nothing."""
    x = np.ldexp(np.linspace(1, 2, size).astype(np.float32).astype(np.float64), power)
    found, due = ErrorSums(), ErrorSums()
    found.add(x, x * left)
    due.add(np.ldexp(x, -power), np.ldexp(x * left, -power))
    assert found.error.sqnr == pytest.approx(due.error.sqnr, abs=1e-9)
    turned = ErrorSums()
    turned.add(x.astype(">f8"), x * left)
    assert turned == found
    merged = ErrorSums()
    merged.merge(found)
    merged.merge(found)
    assert merged.error.sqnr == pytest.approx(due.error.sqnr, abs=1e-9)


def test_an_error_far_below_the_signal_is_no_exact_copy(executor):
    found = ErrorSums()
    found.add(np.array([1.0, 1e-200]), np.array([1.0, 0.0]))
    assert found.error.sqnr == pytest.approx(4000)
    found.add(np.array([1e200]), np.array([1e200]))
    assert found.error.sqnr == pytest.approx(8000)
    found.add(np.array([1.0]), np.array([np.nan]))
    assert math.isnan(found.error.sqnr)


@pytest.mark.turns(6)
@pytest.mark.parametrize("value", [1e-200, 1e160, -1e300, 5e-324])
@pytest.mark.parametrize("dtype", ["mxfp4", "fp8_e4m3", "mx6", "nvfp4", "int4"])
def test_what_is_lost_whole_has_0_dB(executor, value, dtype):
    x = np.full((1, 32), value)
    q = nx.quantize(x, dtype)
    error = q.error(x)
    assert error.max_error == np.abs(x - q.decoded()).max()
    if error.max_error / abs(value) > 0.999:
        assert abs(error.sqnr) < 0.01


# ---- what codes stand for ------------------------------------------------------------------------

SPECS = [
    nx.QuantSpec(name) for name in ("mxfp4", "mx4", "mx6", "mx9", "nvfp4", "mxfp8_e4m3", "fp8_e4m3", "nf4")
]
SPECS += [
    nx.QuantSpec("int8", scheme="per_channel(0)"), nx.QuantSpec("int4", scheme="per_group(32)"),
    nx.QuantSpec("int3", scheme="per_group(32)", symmetric=False),
    nx.QuantSpec("uint4", scheme="per_group(64)", symmetric=False, zero_point_type="float32"),
]  # fmt: skip


def weights(shape):
    """Values of many magnitudes."""
    rng = np.random.default_rng(11)
    return (rng.standard_normal(shape) * np.exp2(rng.integers(-9, 9, shape))).astype(np.float32)


@pytest.mark.turns
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.dtype}-{spec.scheme}")
@pytest.mark.parametrize("shape", [(4, 64), (9, 1984), (3, 20480), (2, 3, 5, 128), (700, 4096)], ids=str)
@pytest.mark.parametrize("threads", ["1", "3"])
def test_codes_were_decoded_into_memory_and_read_again(monkeypatch, spec, shape, threads):
    """A report took 1.3 to 1.6 times the CPU: rows that end within chunks, chunks that end within rows."""
    monkeypatch.setenv("NUMERICS_NUM_THREADS", threads)
    x = weights(shape)
    q = nx.quantize(x, spec)
    found = dispatch.get("cpu").error_sums_of(x, q.parts, q.spec)
    assert found is not None
    assert found.tobytes() == sums.error_sums(x.reshape(-1), q.decoded().reshape(-1)).tobytes()


@pytest.mark.turns(6)
@pytest.mark.parametrize("shape", [(3, 40), (2, 20, 36), (0, 64), (), (32, 5)], ids=str)
@pytest.mark.parametrize("spec", [*SPECS, nx.QuantSpec("mx6", axis=0), nx.QuantSpec("int16")], ids=str)
def test_what_no_kernel_sums_is_decoded_first(shape, spec, executor):
    x = weights(shape)
    try:
        q = nx.quantize(x, spec)
    except nx.NumericsError:
        return  # no axis, no groups
    assert q._figures(x) == Figures.of(x, q.decoded())


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.dtype}-{spec.scheme}")
def test_what_is_not_finite_is_counted_where_codes_are_summed(odd, spec):
    x = weights((5, 4096))
    x[2, 77] = x[4, 4095] = odd
    q, due = nx.quantize(x, spec), ErrorSums()
    due.add(x, q.decoded())
    assert repr(q.error(x)) == repr(due.error)
    y = np.nan_to_num(x, posinf=1, neginf=1)  # finite, and the codes that it is compared with are of NaN
    due = ErrorSums()
    due.add(y, q.decoded())
    assert repr(q.error(y)) == repr(due.error)


def test_the_largest_error_is_that_of_the_largest_square():
    """It is the root of a square: exact for float32's smallest difference, and for its largest."""
    for x, y in [(2.0**-149, 0.0), (-(2.0**-126), 2.0**-149), (3.4e38, -3.4e38), (1.1, -0.3)]:
        pair = np.full(40, x, np.float32), np.full(40, y, np.float32)
        found = EXECUTOR.error_sums(*pair)
        assert found.tobytes() == sums.error_sums(*pair).tobytes()
        assert found[0, 3] == abs(float(pair[0][0]) - float(pair[1][0]))


def run(code, **environment):
    """What a process of its own prints."""
    command, env = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT, check=True).stdout


LESSER = """
import hashlib, numpy as np, numerics as nx
from numerics.backends.host import sums
from numerics.formats import dispatch
x = np.random.default_rng(1).standard_normal((3, 4096)).astype(np.float32)
for d in ("mxfp4", "nvfp4", "mx6", "nf4", "int4", "int8"):
    q = nx.quantize(x, d)
    found = dispatch.get("cpu").error_sums_of(x, q.parts, q.spec)
    due = sums.error_sums(x.reshape(-1), q.decoded().reshape(-1))
    print(d, found.tobytes() == due.tobytes(), hashlib.sha256(q.decoded().tobytes()).hexdigest())
"""


@pytest.mark.skipif(architecture(binding.get_process_triple()) != "x86", reason="x86's processors")
def test_processors_without_tables_in_registers_sum_the_same(tmp_path):
    """Neither AVX-512 nor a fused multiply-add: the bits of those that have them."""
    cpu = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMERICS_CACHE_DIR": str(tmp_path)}
    found, due = run(LESSER, **cpu), run(LESSER)
    assert found == due
    assert found.count("True") == 6


MEASURED = [
    *((name, {}) for name in ("mxfp4", "mxfp6_e3m2", "mxfp8_e4m3", "mxint8", "nvfp4", "if4")),
    *((name, {}) for name in ("mx4", "mx6", "mx9")),
    ("nvfp4", {"scale_rule": "four_over_six"}), ("mxfp4", {"rounding": "stochastic"}),
    *((name, {"scheme": scheme}) for name in ("int4", "int8", "fp8_e4m3", "nf4")
      for scheme in ("per_group(32)", "per_group(128)", "per_channel(0)", "per_tensor()")),
    ("uint4", {"scheme": "per_group(64)", "symmetric": False}),
    ("int8", {"scheme": "per_channel(0)", "symmetric": False, "zero_point_type": "float32"}),
    ("int4", {"scheme": "per_group(64)", "scale_type": "float16"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), MEASURED, ids=lambda one: str(one))
def test_codes_that_are_summed_as_they_are_made_are_the_same(name, options):
    """One kernel encodes and sums; its codes are those of one that encodes, its figures error_sums'."""
    spec, backend = nx.QuantSpec(name, **options), dispatch.get("cpu")
    for shape in ((1, 128), (5, 384), (3, 48), (37, 640), (64, 4096 + 128)):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        x[0, :32] = 0
        draw = Draw(bits=random_bits.from_seed(7, x.size).reshape(shape)) if "rounding" in options else Draw()
        due = backend.quantize_prepared(Prepared(x, "float32"), spec, Given(), draw, whole=False)
        parts, figures = backend.quantize_measured(Prepared(x, "float32"), spec, Given(), draw)
        for one, other in zip(parts, due, strict=True):
            assert np.array_equal(one, other)
        values = backend.dequantize(due, spec, "float32").reshape(-1)
        if figures is not None:
            assert figures.tobytes() == sums.error_sums(x.reshape(-1), values).tobytes()
        elif shape[1] % 128 == 0:
            raise AssertionError(f"{spec} of {shape} is not summed")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "mx6"])
def test_summed_as_they_are_made_by_any_number_of_threads(monkeypatch, name, threads):
    x = np.random.default_rng(0).standard_normal((cpu_threads.WORTHWHILE // 256 + 3, 256)).astype(np.float32)
    monkeypatch.setenv("NUMERICS_NUM_THREADS", str(threads))
    backend, spec = dispatch.get("cpu"), nx.QuantSpec(name)
    parts, figures = backend.quantize_measured(Prepared(x, "float32"), spec, Given(), Draw())
    due = sums.error_sums(x.reshape(-1), backend.dequantize(parts, spec, "float32").reshape(-1))
    assert figures.tobytes() == due.tobytes()


def test_what_is_not_finite_is_not_summed_as_it_is_made():
    x = np.ones((4, 256), np.float32)
    x[2, 5] = np.nan
    backend = dispatch.get("cpu")
    for spec in (nx.QuantSpec("mxfp4"), nx.QuantSpec("int8", scheme="per_channel(0)")):
        assert backend.quantize_measured(Prepared(x, "float32"), spec, Given(), Draw())[1] is None
        for other in (x.astype(np.float64), x[:, ::2]):  # no kernel for either
            assert backend.quantize_measured(Prepared(other, "float32"), spec, Given(), Draw())[1] is None
