"""Wrapped models with AMD Quark's operators: the nodes, and what they compute by our own rounding."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import numerics as nx
from numerics.formats import NumericsError

LONG = os.environ.get("NUMERICS_TEST_LONG") == "1"  # torch.onnx.export takes seconds each time
long = pytest.mark.skipif(not LONG, reason="make verify")
X = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32))
BFP = {("to_bfp_prime", 11): "mx4", ("to_bfp_prime", 13): "mx6", ("to_bfp_prime", 16): "mx9",
       ("to_bfp", 16): "bfp16"}  # fmt: skip
MX = {"fp4_e2m1": "mxfp4", "fp8_e4m3": "mxfp8_e4m3", "fp6_e2m3": "mxfp6_e2m3"}


def rounded(x, dtype, axis):
    return np.asarray(nx.fake_quantize(x, nx.QuantSpec(dtype, axis=axis)), np.float32)


class BFPQuantizeDequantize(OpRun):
    op_domain = "com.amd.quark"

    def _run(self, x, bfp_method, axis, bit_width, rounding_mode, **_):
        assert rounding_mode == 2
        return (rounded(x, BFP[bfp_method, bit_width], axis),)


class MXQuantizeDequantize(OpRun):
    op_domain = "com.amd.quark"

    def _run(self, x, element_dtype, axis, block_size, **_):
        assert block_size == 32
        return (rounded(x, MX[element_dtype], axis),)


def broadcast(x, y, axis):
    return y.reshape([-1 if k == (axis or 0) else 1 for k in range(x.ndim)]) if y.ndim else y


class ExtendedQuantizeLinear(OpRun):
    op_domain = "com.amd.quark"

    def _run(self, x, scale, zero, axis=None):
        scale, ends = broadcast(x, scale, axis), np.iinfo(zero.dtype)
        found = np.rint(x / scale) + broadcast(x, zero, axis).astype(np.float64)
        return (np.clip(found, ends.min, ends.max).astype(zero.dtype),)


class ExtendedDequantizeLinear(OpRun):
    op_domain = "com.amd.quark"

    def _run(self, x, scale, zero, axis=None):
        zero = broadcast(x, zero, axis).astype(np.float32)
        return ((x.astype(np.float32) - zero) * broadcast(x, scale, axis),)


OPERATORS = [BFPQuantizeDequantize, MXQuantizeDequantize, ExtendedQuantizeLinear, ExtendedDequantizeLinear]


def wrapped(weights, activations, **options):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5)).eval()
    observer = {"observer": "min_max"} if "int" in str(activations) else {}
    m = nx.wrap(net, weights, activations=activations, example=X, **observer, **options)
    return nx.calibrate(m, [X]) if observer else m


CHANNELS = nx.QuantSpec("int8", scheme="per_channel(0)")


@pytest.mark.turns(6)
@pytest.mark.parametrize("frozen", [False, pytest.param(True, marks=long)])
@pytest.mark.parametrize(
    ("weights", "activations", "operators"),
    [
        ("mxfp4", "mx9", {"MXQuantizeDequantize", "BFPQuantizeDequantize"}),
        pytest.param("mx6", "mxfp8_e4m3", {"MXQuantizeDequantize", "BFPQuantizeDequantize"}, marks=long),
        pytest.param("mx4", None, {"BFPQuantizeDequantize"}, marks=long),
        ("bfp16", "mxfp6_e2m3", {"MXQuantizeDequantize", "BFPQuantizeDequantize"}),
        (CHANNELS, "int8", {"ExtendedQuantizeLinear", "ExtendedDequantizeLinear"}),
        (
            "int16",
            nx.QuantSpec("uint8", symmetric=False),
            {"ExtendedQuantizeLinear", "ExtendedDequantizeLinear"},
        ),
    ],
)
def test_the_file_computes_what_torch_computes(tmp_path, weights, activations, operators, frozen):
    m = wrapped(weights, activations)
    m = nx.freeze(m) if frozen else m
    nx.ipu.export_quark(m, tmp_path / "m.onnx")
    made = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(made)
    nodes = [each for each in made.graph.node if each.domain == "com.amd.quark"]
    assert {each.op_type for each in nodes} == operators
    (came,) = ReferenceEvaluator(made, new_ops=OPERATORS).run(None, {made.graph.input[0].name: X.numpy()})
    with torch.no_grad():
        assert np.allclose(came, m(X).numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("weights", "activations", "said"),
    [
        ("nvfp4", None, "AMD Quark has no operator for nvfp4"),
        ("mxint8", None, "AMD Quark has no operator for mxint8"),
        ("fp8_e4m3", None, "AMD Quark has no operator for"),
        (nx.QuantSpec("mxfp4", scale_rule="even"), None, "with scale_rule='floor'"),
        ("mxfp4", nx.QuantSpec("mx9", rounding="half_away"), "round half_even"),
        (nx.QuantSpec("int8", scheme="per_group(32)"), None, "one scale a tensor or a channel"),
        (nx.QuantSpec("int8", symmetric=False), None, "one scale a tensor or a channel"),
    ],
)
def test_what_quark_has_no_operator_for_is_refused(tmp_path, weights, activations, said):
    with pytest.raises(NumericsError, match=said):
        nx.ipu.export_quark(wrapped(weights, activations), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_activations_without_a_scale_name_the_way_out(tmp_path):
    anew = nx.wrap(torch.nn.Linear(64, 5).eval(), "mxfp4", activations="int8", example=X)
    with pytest.raises(NumericsError, match="has no one scale of its own; way out"):
        nx.ipu.export_quark(anew, tmp_path / "m.onnx")
    with pytest.raises(NumericsError, match="not wrapped"):
        nx.ipu.export_quark(torch.nn.Linear(64, 5), tmp_path / "m.onnx")
