"""The GPU backend without a GPU: what the interpreter shows beyond the laws that every executor obeys."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
import torch

import numerics as nx
from bench import bench_gpu
from numerics.backends.cpu import BACKEND as CPU
from numerics.backends.gpu import BACKEND as GPU
from numerics.backends.gpu import affine as affine_kernels
from numerics.backends.gpu import backend as gpu_backend
from numerics.backends.gpu import blocks, launch, native, packing, tables
from numerics.backends.gpu.blocks import Cut
from numerics.backends.host.executor import Affine
from numerics.backends.host.quantizing import AffineOptions
from numerics.backends.partition import Partition
from numerics.backends.reference.breakpoints import breakpoints
from numerics.conform.sweep import Sweep
from numerics.formats.grid import UNREACHED, grid
from numerics.formats.rounding import DETERMINISTIC, BlockOptions, Draw, Rounding
from tests.helpers.bits import assert_same_bits
from tests.helpers.children import LIMIT
from tests.helpers.dtypes import BLOCKS, DECLARED_BLOCKS
from tests.helpers.executors import LONG
from tests.helpers.inputs import edges
from tests.helpers.interpreted import DEVICE

rng = np.random.default_rng(11)
ROOT = Path(__file__).parents[2]
PARTITIONS = {
    "per_tensor": Partition((6, 20, 7)),
    "channels first": Partition((6, 20, 7), 0),
    "channels between": Partition((6, 20, 7), 1),
    "channels last": Partition((6, 20, 7), 2),
    "groups": Partition((6, 10, 8), 2, 4),
    "short groups": Partition((6, 20, 7), 2, 4),
    "groups across": Partition((6, 20, 7), 1, 8),
    "one element": Partition((1,), 0),
    "nothing": Partition((0, 4), 1),
}


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x).copy())


def affine(partition: Partition, zero: str, kind: type) -> Affine:
    shape = partition.shared
    scale = np.exp2(rng.uniform(-4, 2, shape)).astype(kind)
    points = {"none": None, "integer": rng.integers(-100, 100, shape).astype(np.int32),
              "float": rng.uniform(-100, 100, shape).astype(kind)}  # fmt: skip
    return Affine(np.asarray(scale), points[zero])


@pytest.mark.turns(18)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("zero", ["none", "integer", "float"])
@pytest.mark.parametrize("name", PARTITIONS)
def test_affine_equals_the_cpu(monkeypatch, name, zero, kind):
    monkeypatch.setattr(affine_kernels, "per_program", lambda n: 256)  # programs must meet without a seam
    partition = PARTITIONS[name]
    x = (100 * rng.standard_normal(partition.shape)).astype(kind)
    host = affine(partition, zero, kind)
    device = Affine(*(None if part is None else tensor(part) for part in host))
    turn = [*PARTITIONS].index(name) + ["none", "integer", "float"].index(zero)
    others = Rounding("floor"), Rounding("stochastic", draw=Draw(seed=7))
    for rounding in (*(others if LONG else others[turn % 2 :][:1]), Rounding()):
        due = CPU.encode_affine(x, nx.int8, partition, host, rounding)
        came = GPU.encode_affine(tensor(x), nx.int8, partition, device, rounding)
        assert_same_bits(came.numpy(), due, x)
        packed = GPU.quantize_packed(tensor(x), nx.int8, partition, device, rounding)
        assert_same_bits(packed.numpy(), due.reshape(-1))
        values = CPU.round_affine(x, nx.int8, partition, host, rounding)
        assert_same_bits(GPU.round_affine(tensor(x), nx.int8, partition, device, rounding).numpy(), values, x)
    values = CPU.decode_affine(due, nx.int8, partition, host)
    assert_same_bits(GPU.decode_affine(came, nx.int8, partition, device).numpy(), values)
    assert_same_bits(GPU.dequantize_packed(packed, nx.int8, partition, device).numpy(), values)
    assert_same_bits(CPU.dequantize_packed(packed.numpy(), nx.int8, partition, host), values)


@pytest.mark.parametrize("name", PARTITIONS)
def test_extremes_and_scales_equal_the_cpu(name):
    partition = PARTITIONS[name]
    x = rng.standard_normal(partition.shape).astype(np.float32)
    x.reshape(-1)[::5] = np.inf
    x.reshape(-1)[1::7] = np.nan
    ends = CPU.extremes(x, partition)
    found = GPU.extremes(tensor(x), partition)
    for came, due, widened in zip(found, ends, (np.minimum, np.maximum), strict=True):
        assert_same_bits(widened(came.numpy(), np.float32(0)), widened(due, np.float32(0)))
    options = AffineOptions(False, "bfloat16", "int32")
    due = CPU.find_affine(*ends, nx.int8, options)
    came = GPU.find_affine(*(tensor(end) for end in ends), nx.int8, options)
    for part, other in zip(came, due, strict=True):
        assert_same_bits(part.numpy(), other)


@pytest.mark.turns
@pytest.mark.parametrize("dtype", [d for d in (*BLOCKS, *DECLARED_BLOCKS) if d.block <= 128], ids=repr)
def test_stored_blocks_equal_the_cpu(dtype):
    x = (rng.standard_normal((5, 4 * dtype.block)) * np.exp2(rng.integers(-9, 9, (5, 1)))).astype(np.float32)
    x[1, :3] = (np.nan, np.inf, 0)
    scale = 0.5 if isinstance(dtype, nx.ScaledBlock) else None
    for rounding, draw in (("half_even", Draw()), ("stochastic", Draw(seed=3))):
        options = BlockOptions("floor", rounding, scale, draw)
        due = CPU.quantize_blocks(x, dtype, -1, options)
        came = GPU.quantize_blocks(tensor(x), dtype, -1, options)
        assert_same_bits(came.packed.numpy(), due.packed)
        if due.scale is not None:
            assert_same_bits(came.scale.numpy(), due.scale)
    assert_same_bits(GPU.dequantize_blocks(came).numpy(), CPU.dequantize_blocks(due))


@pytest.mark.turns(18)
@pytest.mark.parametrize("order", ["rows", "columns", "any"])
@pytest.mark.parametrize("dtype", [nx.mxfp4, nx.mx6, nx.nvfp4], ids=repr)
def test_programs_meet_without_a_seam(monkeypatch, dtype, order):
    """Many small programs, the last one not full, in every order of memory."""
    for module in (launch, gpu_backend, blocks, packing):
        monkeypatch.setattr(module, "per_program", lambda n: 128)
    shape, axis = {"rows": ((7, 160), 1), "columns": ((3, 70, 64), 1), "any": ((3, 70, 5), 1)}[order]
    assert Cut.of(shape, axis, dtype).order == order
    x = rng.standard_normal(shape).astype(np.float32)
    options = {"tensor_scale": 0.25} if isinstance(dtype, nx.ScaledBlock) else {}
    due = dtype.encode(x, axis=axis, rounding="stochastic", seed=5, **options)
    asked = BlockOptions("floor", "stochastic", options.get("tensor_scale"), Draw(seed=5))
    came = GPU.encode_blocks(tensor(x), dtype, axis, asked)
    for name in ("codes", "scale", "microexponents"):
        if getattr(due, name) is not None:
            assert_same_bits(getattr(came, name).numpy(), getattr(due, name))
    assert_same_bits(GPU.decode_blocks(came, None).numpy(), due.decode())


@pytest.mark.turns(30)
@pytest.mark.parametrize("bits", range(1, 17))
def test_small_programs_pack_every_width(monkeypatch, bits):
    for module in (launch, gpu_backend, blocks, packing):
        monkeypatch.setattr(module, "per_program", lambda n: 64)
    codes = rng.integers(0, 1 << bits, 1000).astype(np.uint8 if bits <= 8 else np.uint16)
    packed = packing.pack(tensor(codes), bits)
    assert_same_bits(packed.numpy(), CPU.executor.pack(codes, bits))
    assert_same_bits(packing.unpack(packed, (1000,), bits).numpy(), codes)
    if bits > 1:
        for module in (launch, gpu_backend, blocks, packing):
            monkeypatch.setattr(module, "per_program", lambda n: 512)
        d = nx.float_format(1 if bits == 2 else 2, max(bits - 3, 0), name=f"bits{bits}", specials="none")
        x = edges()[:3001]
        assert_same_bits(GPU.encode_packed(tensor(x), d, Rounding()).numpy(), d.encode_packed(x))


def test_tensors_stay_where_they_are():
    x = torch.linspace(-3, 3, 64).requires_grad_()
    with pytest.raises(nx.NumericsError, match=r"out must be a uint8 tensor of shape \(64,\), not float32"):
        GPU.encode(x, nx.fp4, Rounding(), torch.empty(64))
    with pytest.raises(nx.NumericsError, match="cannot compute with int32 data"):
        GPU.encode(x.detach().int(), nx.fp4, Rounding(), None)
    drawn = Draw(bits=torch.zeros(3, dtype=torch.int32))
    with pytest.raises(nx.NumericsError, match="random_bits must be uint32 of shape"):
        GPU.encode(x, nx.fp4, Rounding("stochastic", draw=drawn), None)
    out = torch.empty(64, 1, dtype=torch.uint8)[:, 0]
    assert GPU.encode(x, nx.fp4, Rounding(), out) is out
    assert not GPU.round(x, nx.fp4, Rounding(), None).requires_grad


@pytest.mark.parametrize("shape", [(0, 128), (128, 0), (0,)])
@pytest.mark.parametrize("dtype", ["int4", "uint4", "fp8_e4m3"])
def test_groups_of_nothing_come_back(dtype, shape):
    with nx.use("gpu"):
        q = nx.quantize(torch.zeros(shape), nx.QuantSpec(dtype, scheme="per_group(32)"))
        assert q.dequantize().shape == shape


def test_nothing_native_is_trusted_without_a_proof():
    for name, proofs in native.PROVEN.items():
        assert name in native.CAPABLE
        assert all(proof.capability >= native.CAPABLE[name] and proof.date for proof in proofs)
    assert native.native(nx.fp8_e4m3, "half_even", "saturate", torch.device("cpu")) is None


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT
    )


def test_a_tensor_on_the_cpu_never_reaches_triton():
    code = """
import sys, torch, numerics as nx
print(nx.fp4.encode(torch.tensor([0.5, 6.0])).tolist(), "triton" in sys.modules)
from numerics.backends.gpu import BACKEND
print(BACKEND.owns(torch.ones(3)))
"""
    found = python(code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["[1,", "7]", "False", "False"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said():
    code = """
import numerics as nx
from numerics.cli.doctor import examine
try:
    with nx.use("gpu"): pass
except nx.NumericsError as wrong: print(wrong)
print(examine()["backends"]["gpu"])
"""
    found = python(code)
    assert found.returncode == 0, found.stderr
    for line in found.stdout.splitlines():
        assert line.startswith("no GPU: torch ")
        assert "numerics-formats[gpu]" in line


@pytest.mark.parametrize("missing", ["torch", "triton"])
def test_what_is_missing_is_named_with_the_extra(missing):
    code = f"""
import sys; sys.modules["{missing}"] = None
import numerics as nx
with_numpy = nx.fp4.encode([1.0])
try:
    with nx.use("gpu"): pass
except nx.NumericsError as wrong: print(wrong)
"""
    found = python(code)
    assert found.returncode == 0, found.stderr
    assert missing in found.stdout
    assert "pip install 'numerics-formats[gpu]'" in found.stdout


def test_an_unwritable_cache_is_survived():
    code = """
import sys; sys.path.append(".")
from tests.compile_gpu import matrix
print([row.faults for row in matrix(["sm_90"], "encode fp8_e5m2")])
"""
    found = python(code, TRITON_CACHE_DIR="/proc/none")
    assert found.stdout.strip() == "[(), ()]", found.stderr


def test_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(nx.NumericsError, match=r"Tesla T4 has compute capability 7\.5; 8\.0 or later"):
        gpu_backend.check_device(torch.device("cuda", 0))


def test_a_launch_is_on_the_device_of_its_tensors(monkeypatch):
    guards, x = [], torch.empty(4, device="meta")

    class Guard:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            guards.append(self.device)

        def __exit__(self, *_: object) -> None:
            guards.append(None)

    class Kernel:
        def __getitem__(self, grid: object) -> object:
            return lambda *arguments, **options: guards.append(options)

    monkeypatch.setattr(launch, "interpreting", lambda: False)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    launch.execute(Kernel(), (1,), (3, x), {"BLOCK": 8})
    assert guards == [x.device, {"BLOCK": 8, **launch.OPTIONS}, None]
    assert launch.OPTIONS["enable_fp_fusion"] is False


def test_launches_go_through_triton():
    """Triton's own binder, with a driver that stands for a GPU: what a launch passes, it compiles."""
    code = """
import sys; sys.path.append(".")
import torch
from triton.runtime import driver
from tests import compile_gpu as matrix

class Driver:
    get_current_device = lambda self: 0
    get_current_stream = lambda self, device: 0
    get_current_target = lambda self: matrix.TARGETS["sm_90"]
    get_active_torch_device = lambda self: torch.device("cuda", 0)

driver.set_active(Driver())
made = []
matrix.launch.execute = lambda kernel, grid, arguments, constants: made.append(
    kernel.warmup(*arguments, grid=grid, **constants, **matrix.launch.OPTIONS))
matrix.backend.native = matrix.blocks.native = lambda *_: None
for case, call in matrix.cases().items():
    if "bfloat16" in case or "seed" in case or "per_group" in case: call()
print(len(made), {type(kernel).__name__ for kernel in made})
"""
    found = python(code)
    assert found.stdout.strip() == "10 {'CompiledKernel'}", found.stdout + found.stderr


BOOKS = {
    "uneven": [math.sin(k * k) for k in range(256)],
    "neighbours": [1 + k * 2.0**-23 for k in range(256)],
    "two clusters": [s * (1 + k * 2.0**-20) for s in (-1e-30, 1e30) for k in range(16)],
    "two": [0.0, 1.0],
    "subnormal": [0.0, 2.0**-149, -(2.0**-149), 2.0**-140],
    "zeros": [-0.0, 0.0, 1.0, -1.0],
    "ends": [3.4028234663852886e38, -3.4028234663852886e38, 0.0, 1.0],
    "infinite": [0.0, 1.0, math.inf, -math.inf],
    "unsigned": [2.0**k for k in range(-128, 128)],
}


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("name", BOOKS)
def test_runs_of_keys_say_what_a_search_finds(name, rounding):
    """Every key beside a step, beside the end of a run, and the last of all, which is a NaN's."""
    d = nx.codebook_format(BOOKS[name])
    f = grid(d, rounding, d.default_overflow)
    runs = tables.layout(f)[0].steps.runs
    borders = (np.arange(runs.first, runs.first + runs.last + 2) << runs.shift).clip(0, UNREACHED)
    keys = np.concatenate([np.array(f.steps), borders, -1 - borders, [UNREACHED, -1 - UNREACHED]])
    keys = np.unique(np.add.outer([-1, 0, 1], keys).clip(-1 - UNREACHED, UNREACHED))
    bits = np.where(keys < 0, -1 - keys - (1 << 31), keys).astype(np.int32)
    x = bits.view(np.float32)
    due = CPU.encode(x, d, Rounding(rounding, d.default_overflow), None)
    came = GPU.encode(tensor(x).to(DEVICE), d, Rounding(rounding, d.default_overflow), None)
    assert_same_bits(came.cpu().numpy(), due)


@pytest.mark.parametrize("name", BOOKS)
def test_draws_among_uneven_values(name):
    d = nx.codebook_format(BOOKS[name])
    steps = np.float32(BOOKS[name])
    x = np.concatenate([steps, np.nextafter(steps, np.float32(0)), edges()])
    how = Rounding("stochastic", d.default_overflow, Draw(seed=3))
    assert_same_bits(
        GPU.encode(tensor(x).to(DEVICE), d, how, None).cpu().numpy(), CPU.encode(x, d, how, None)
    )


def test_tables_are_made_once_and_not_within_a_capture(monkeypatch):
    f, beside = grid(nx.codebook_format([0.0, 1.0, 2.0, 5.0]), "half_even", "saturate"), torch.empty(1)
    assert tables.laid(f, beside)[1] is tables.laid(f, beside)[1]
    assert tables.laid(grid(nx.fp4, "half_even", "saturate"), beside)[1] is beside
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    other = grid(nx.codebook_format([0.0, 1.0, 2.0, 6.0]), "half_even", "saturate")
    with pytest.raises(nx.NumericsError, match="call it once before the capture"):
        tables.laid(other, torch.empty(1, device="meta"))


def test_the_sweep_of_the_gpu_script_can_fail():
    steps = breakpoints(nx.fp4, "half_even", "saturate", False)

    def encode(x: torch.Tensor) -> torch.Tensor:
        return GPU.encode(x, nx.fp4, Rounding(), None)

    def judged() -> Sweep:
        bounds = steps[2][0] - 500, steps[2][0] + 500
        return bench_gpu.sweep(encode, steps, False, torch.device("cpu"), bounds[1], start=bounds[0])

    assert judged() == Sweep(1000, 0)
    steps[2] = (steps[2][0] + 1, steps[2][1])
    assert judged() == Sweep(1000, 1, (steps[2][0] - 1, 2, 1))


def test_the_gpu_script_runs(tmp_path):
    found = python(
        f"import sys; sys.argv = ['', '--small', '--out', {str(tmp_path)!r}];"
        "sys.path.append('.'); from bench.bench_gpu import main; main()",
        TRITON_INTERPRET="1",
    )
    assert found.returncode == 0, found.stderr
    written = json.loads((tmp_path / "interpreter.json").read_text(encoding="utf-8"))
    elements = {
        f"{d} {rounding} {overflow}"
        for d in nx.dtypes() if d.kind in ("float", "codebook")
        for rounding in (DETERMINISTIC if d.bits < 16 else ["half_even"])
        for overflow in d.overflows
    }  # fmt: skip
    assert elements < written["proofs"].keys()
    assert written["proofs"].keys() - elements == {f"{d} blocks" for d in BLOCKS if d.block <= 128}
    assert not any(proof["mismatches"] for proof in written["proofs"].values())
    assert len(written["figures"]) == 37


RECORDED = Path(__file__).parents[1] / "data" / "gpu.json"


def test_every_kernel_compiles_for_gpus_that_are_not_here(tmp_path):
    """One target of the eight, each kernel in one of its cases, and none has grown since recorded.

    `make compile` has all targets and cases; NUMERICS_TEST_LONG=1 all cases.
    """
    made = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.compile_gpu", "--targets", "sm_90", "--json", str(made)]
    command += [] if LONG else ["--once"]
    found = subprocess.run(
        command, env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True, text=True, cwd=ROOT, timeout=LIMIT,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-2000:]
    now, then = json.loads(made.read_text(encoding="utf-8")), json.loads(RECORDED.read_text(encoding="utf-8"))
    assert len(now["kernels"]) > (50 if LONG else 12)
    if now["triton"] == then["triton"]:
        recorded = {(row["case"], row["target"]): row for row in then["kernels"]}
        grown = [row for row in now["kernels"]
                 if row["instructions"] > 1.02 * recorded[row["case"], row["target"]]["instructions"]
                 or row["registers"] > recorded[row["case"], row["target"]]["registers"] + 8]  # fmt: skip
        assert not grown
