"""What the Numba executor promises besides bits: its cache, its threads, its vectors, its environment."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest
from llvmlite import binding

import numerics as nx
from numerics.backends.array.executor import ArrayExecutor
from numerics.backends.cpu import EXECUTOR, threads
from numerics.backends.cpu.lanes import joined_codes
from numerics.backends.host.executor import Affine
from numerics.formats.dtype import Element
from numerics.formats.grid import grid
from numerics.formats.rounding import BlockOptions, Rounding
from tests.helpers.bits import assert_same_bits
from tests.helpers.children import LIMIT
from tests.helpers.executors import EXECUTORS

X = np.random.default_rng(8).standard_normal(threads.WORTHWHILE + 37).astype(np.float32)

ENCODE = """
import numpy as np, numerics as nx
print(nx.fp8_e4m3.encode(np.ones(1000, np.float32))[0])
"""


def run(code: str, **environment: str) -> str:
    env = {**os.environ, **environment}
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True, timeout=LIMIT
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_kernels_are_found_on_disk(tmp_path):
    folder = {"NUMERICS_CACHE_DIR": str(tmp_path)}
    run(ENCODE, **folder)
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.kernel")}
    assert len(written) == 1
    assert int(run(ENCODE, **folder)) == 0x38
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.kernel")} == written


@pytest.mark.parametrize("place", ["/proc/none", "/dev/null/cache"])
def test_an_unwritable_cache_is_survived(place):
    assert int(run(ENCODE, NUMERICS_CACHE_DIR=place)) == 0x38


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    due = None
    for count in ("1", "2", "3", "7"):
        monkeypatch.setenv("NUMERICS_NUM_THREADS", count)
        found = [nx.fp6_e2m3.round(X), nx.mx6.round(X), nx.fp4.pack(nx.fp4.encode(X))]
        due = due or found
        for came, first in zip(found, due, strict=True):
            assert_same_bits(came, first)


def test_small_arrays_stay_on_the_callers_thread(monkeypatch):
    monkeypatch.setattr(threads, "share", lambda *_, **__: pytest.fail("handed to a thread"))
    nx.fp4.encode(X[: threads.WORTHWHILE - 1])


def test_many_python_threads_at_once():
    due = nx.mxfp6_e2m3.round(X)
    wrong = []

    def work() -> None:
        for _ in range(5):
            if not np.array_equal(nx.mxfp6_e2m3.round(X), due):
                wrong.append(1)

    every = [threading.Thread(target=work) for _ in range(6)]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join(LIMIT)
    assert not wrong


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes(method, tmp_path):
    code = f"""
import warnings; warnings.simplefilter("ignore", DeprecationWarning)
import multiprocessing as mp, numpy as np, numerics as nx
x = np.linspace(-9, 9, (1 << 21) + 37, dtype=np.float32)
def work(_):
    return nx.fp8_e4m3.encode(x).tobytes()
if __name__ == "__main__":
    due = work(0)
    with mp.get_context("{method}").Pool(2) as pool:
        print(all(found == due for found in pool.map(work, range(4))))
"""
    program = tmp_path / "program.py"
    program.write_text(code, encoding="utf-8")
    assert run(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')").strip() == "True"


def flush_to_zero(on: bool) -> None:
    """What torch.set_flush_denormal does: bits 6 and 15 of MXCSR, by fesetenv's image of it."""
    libm = ctypes.CDLL("libm.so.6")
    image = (ctypes.c_uint32 * 8)()
    libm.fegetenv(image)
    image[7] = (image[7] | 0x8040) if on else (image[7] & ~0x8040)
    libm.fesetenv(image)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the image of fenv_t is x86-64's")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's fenv_t")
@pytest.mark.parametrize("executor", [*EXECUTORS, "reference"])
@pytest.mark.parametrize(
    "dtype", [nx.bfloat16, nx.e8m0, nx.mxfp8_e5m2, nx.mxint8, nx.nvfp4, nx.mx9], ids=repr
)
def test_flush_to_zero_of_the_caller_changes_nothing(executor, dtype):
    """The judge itself was wrong in half of them: it entered no environment of its own."""
    with nx.use(executor):
        flushed_like_unflushed(dtype)


def flushed_like_unflushed(dtype):
    bits = np.random.default_rng(9).integers(0, 1 << 24, 4096).astype(np.uint32)
    x = bits.view(np.float32)
    due = dtype.round(x)
    flush_to_zero(True)
    try:
        flushed = np.float32(1e-40) * np.float32(1) == 0
        came = dtype.round(x)
        still = np.float32(1e-40) * np.float32(1) == 0
    finally:
        flush_to_zero(False)
    assert flushed
    assert still, "the caller's mode must come back"
    assert_same_bits(came, due, x)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the image of fenv_t is x86-64's")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's fenv_t")
@pytest.mark.parametrize("executor", ["array", "cpu"])
@pytest.mark.parametrize(
    "scheme", ["per_tensor", *(nx.per_channel(k) for k in range(3)), nx.per_group(16)], ids=str
)
def test_scales_of_subnormals_are_found_where_they_are_flushed(monkeypatch, executor, scheme):
    """A comparison, too, takes subnormals for zeros."""
    bits = np.random.default_rng(10).integers(1, 1 << 20, (6, 3, 64)).astype(np.uint32)
    x = bits.view(np.float32)
    monkeypatch.setattr(threads, "WORTHWHILE", 256)  # rows cut into parts, whose extremes are joined
    monkeypatch.setenv("NUMERICS_NUM_THREADS", "3")

    def everything():
        with nx.use(executor):
            q = nx.quantize(x, "int8", scheme=scheme)
            return [q.packed, np.asarray(q.scale), q.dequantize(), nx.fake_quantize(x, "int8", scheme=scheme)]

    due = everything()
    flush_to_zero(True)
    try:
        came = everything()
    finally:
        flush_to_zero(False)
    for one, wanted in zip(came, due, strict=True):
        assert_same_bits(one, wanted)


def test_kernels_are_few():
    """One kernel serves every format of a kind: counted over all formats, float32, two roundings."""
    code = """
import numpy as np, numerics as nx
from numerics.backends.cpu import EXECUTOR
x = np.ones(64, np.float32)
for d in nx.dtypes():
    for rounding in ("half_even", "floor"):
        made = d.encode(x, rounding=rounding)
        d.round(x, rounding=rounding)
        d.decode(made)
print(len(EXECUTOR.compiled))
"""
    assert int(run(code)) < 138  # IF4, IF3 and IF6 are three kinds: of a second reading in 4, 3 and 6 bits


@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx2"), reason="looks for AVX2 or better")
def test_kernels_are_vector_code():
    """The arithmetic of every hot kernel works on vector registers, and calls nothing."""
    code = """
import numpy as np, numerics as nx
from numerics.backends.cpu import EXECUTOR
x = np.ones(64, np.float32)
for d in (nx.fp8_e4m3, nx.int8):
    d.encode(x), d.round(x), d.encode(x, rounding="floor"), d.decode(d.encode(x))
for d in (nx.mxfp4, nx.mx6, nx.nvfp4):
    d.encode(x), d.round(x), d.decode(d.encode(x)), d.pack(d.encode(x))
for name in EXECUTOR.compiled:
    body = [line for line in EXECUTOR.assembly(name).splitlines() if "%ymm" in line or "%zmm" in line]
    print(name, len(body))
"""
    found = dict(line.split() for line in run(code, NUMERICS_CACHE_DIR="/proc/none").splitlines())
    assert len(found) > 15
    scalar = {name: count for name, count in found.items() if int(count) < 4}
    assert not scalar


@pytest.mark.parametrize("d", [d for d in nx.dtypes() if isinstance(d, Element) and d.bits <= 4], ids=str)
def test_a_table_in_a_register_holds_what_every_code_stands_for(d):
    """Packed codes of four bits are looked up; one a byte, they are computed."""
    for size in (1, 16, 33, 100):
        codes = (np.arange(size) % (1 << d.bits)).astype(np.uint8)
        with nx.use("cpu"):
            assert_same_bits(d.decode_packed(EXECUTOR.pack(codes, d.bits), size), d.decode(codes))


@pytest.mark.parametrize(
    "d", [nx.p3109(8, 4), nx.p3109(8, 3, extended=False), nx.hifloat8, nx.posit8], ids=str
)
def test_a_list_that_was_filled_up_was_searched(d):
    """Fillers behind the last step counted as two of one run: saturating encoders were six times slower."""
    for overflow in d.overflows:
        made = grid(d, "half_even", overflow)
        assert joined_codes(made.steps, made.codes) is not None, overflow
    bits = np.random.default_rng(4).integers(0, 1 << 32, 20000, dtype=np.uint32)
    x = np.concatenate([bits, np.uint32([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0xFF800000])]).view(np.float32)
    for overflow in d.overflows:
        came = d.encode(x, overflow=overflow)
        with nx.use("array"):
            assert_same_bits(came, d.encode(x, overflow=overflow))


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "nvfp4", "nvint4", "if4", "mxfp8_e5m2"])
@pytest.mark.parametrize("rule", ["floor", "four_over_six", "bump", "nvidia"])
def test_blocks_side_by_side_have_their_own_scales(name, rule):
    """A tile has several blocks, whose scales are one vector: zeros, NaN and Inf stay where they are."""
    d = getattr(nx, name)
    if rule not in d.scale_rules:
        pytest.skip("another format's rule")
    rng = np.random.default_rng(0)
    options = BlockOptions(rule, "half_even", 0.37 if d.has_tensor_scale else None)
    for count in (1, 16, 33):
        x = rng.standard_normal((count, d.block)).astype(np.float32)
        x *= np.exp2(rng.integers(-20, 20, (count, 1))).astype(np.float32)
        x[1::5], x[2::7, 3], x[3::9, 4] = 0, np.nan, np.inf
        made, due = (one.encode_blocks_packed(x, d, options) for one in (EXECUTOR, ArrayExecutor()))
        for one, other in zip(made, due, strict=True):
            assert np.array_equal(one, other)
        values = np.empty((2, *x.shape), np.float32)
        for out, one in zip(values, (EXECUTOR, ArrayExecutor()), strict=True):
            one.decode_blocks_packed(*due, d, options.tensor_scale, out)
        assert_same_bits(*values)


@pytest.mark.parametrize("rows", [3, 100_000])
@pytest.mark.parametrize("columns", [False, True])
def test_scales_of_another_count_are_refused_where_kernels_would_read_past_them(rows, columns):
    shape = (2, rows, 4) if columns else (rows, 4)
    x, due = np.ones(shape, np.float32), 8 if columns else rows
    for count in (due - 1, due + 1, 1):
        affine = Affine(np.ones(count, np.float32), None)
        with pytest.raises(nx.NumericsError, match=f"numbers has {count}, and {due} are needed"):
            EXECUTOR.encode_affine(x, nx.int8, affine, Rounding())
        with pytest.raises(nx.NumericsError, match=f"numbers has {count}, and {due} are needed"):
            EXECUTOR.decode_affine(x.astype(np.uint8), nx.int8, affine)


def test_arrays_that_are_shorter_than_what_a_kernel_reads_are_refused():
    scale = np.full(3, 127, np.uint8)
    out = np.empty((4, 32), np.float32)
    with pytest.raises(nx.NumericsError, match="array 1 has 3 bytes, and 128 elements take 4"):
        EXECUTOR.decode_blocks_packed(np.zeros(64, np.uint8), scale, nx.mxfp4, None, out)
    with pytest.raises(nx.NumericsError, match="array 1 has 20 bytes, and 6 elements take 24"):
        EXECUTOR.decode(np.zeros(6, np.uint8), nx.fp8_e4m3, np.empty(5, np.float32))
