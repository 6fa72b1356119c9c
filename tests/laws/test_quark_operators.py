"""Block formats in profile `npu` against AMD Quark's own operators, built from the source in its wheel.

Opt-in: needs amd-quark (only its files are used, nothing of it is imported) and g++; skipped without.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import onnxruntime

import numerics as nx
from tests.helpers.children import LIMIT

SOURCES = (
    "custom_op_library.cc", "custom_op_qdq.cc", "custom_op_in.cc", "custom_op_bfp.cc", "custom_op_mx.cc",
    "custom_op_lstm.cc", "bfp/cpu/bfp.cc", "bfp/cpu/bfp_kernel.cc", "mx/cpu/mx.cc", "mx/cpu/mx_kernel.cc",
)  # fmt: skip
INCLUDES = (
    "src",
    "include",
    "include/gsl-4.0.0",
    "include/onnxruntime-1.17.0",
    "include/onnxruntime-1.17.0/onnxruntime",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> str:
    """Quark's operators, compiled."""
    found = importlib.util.find_spec("quark")
    if found is None or not found.submodule_search_locations:
        pytest.skip("amd-quark is not installed")
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    home = Path(found.submodule_search_locations[0]) / "onnx" / "operators" / "custom_ops"
    out = tmp_path_factory.mktemp("quark") / "quark_ops.so"
    folders = [home / name for name in INCLUDES]
    folders += [p for p in (home / "include").rglob("session") if p.is_dir()]
    command = ["g++", "-O2", "-std=c++17", "-shared", "-fPIC", *(f"-I{p}" for p in folders), "-o", str(out)]
    command += [str(home / "src" / name) for name in SOURCES]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
    return str(out)


@pytest.mark.parametrize(("weights", "activations"), [("mxfp4", "mx9"), ("int8", "int8"), ("mx6", "uint8")])
def test_a_model_of_torch_with_quarks_operators_gives_what_torch_computes(
    library, tmp_path, weights, activations
):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32))
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5)).eval()
    observer = {"observer": "min_max"} if "int" in activations else {}
    m = nx.wrap(net, weights, activations=activations, example=x, **observer)
    m = nx.calibrate(m, [x]) if observer else m
    nx.ipu.export_quark(m, tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library)
    opened = onnxruntime.InferenceSession(
        str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"]
    )
    (came,) = opened.run(None, {opened.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert np.allclose(came, m(x).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "dtype", ["mx4", "mx6", "mx9", "bfp16", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4"]
)
def test_quarks_operator_gives_our_values(library, dtype):
    """Equal as numbers; Quark drops the sign of some zeros."""
    d, rng = nx.dtype(dtype), np.random.default_rng(6)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library)
    model = nx.ipu.export(d, "round", "npu").SerializeToString()
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    scales = np.exp2(rng.integers(-60, 60, (8192, 1)))
    ordinary = rng.standard_normal((8192, 4 * d.block)) * scales
    ties = rng.integers(-64, 65, (8192, 4 * d.block)) * scales
    for x in (ordinary.astype(np.float32), ties.astype(np.float32)):
        (came,) = opened.run(None, {"x": x})
        assert np.array_equal(came, d.round(x))
