"""Every kind of tensor that a pinned host has is read without loss, or refused in words."""

from __future__ import annotations

import importlib
import pkgutil
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.formats.errors import NumericsError
from tests.adapters.hosts import asked

pytestmark = pytest.mark.filterwarnings("ignore")

# ---- torchao -----------------------------------------------------------------------------------------

READ = {"Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor", "MXTensor", "NVFP4Tensor"}
FOLDERS = ("torchao.quantization.quantize_.workflows", "torchao.prototype.mx_formats",
           "torchao.prototype.quantization", "torchao.prototype.dtypes")  # fmt: skip


def tensors_of_torchao():
    """Its classes of tensors that hold weights, of all modules that can be imported here."""
    found = {}
    for folder in FOLDERS:
        for module in pkgutil.walk_packages(importlib.import_module(folder).__path__, f"{folder}."):
            try:
                names = vars(importlib.import_module(module.name))
            except Exception:
                continue
            for one in names.values():
                if isinstance(one, type) and issubclass(one, torch.Tensor):
                    found[one.__name__] = one
    return {name: one for name, one in found.items() if one.__module__.startswith("torchao.")}


def test_a_class_of_torchaos_tensors_is_read_or_refused_by_its_name():
    adapter = asked("torchao")
    found = tensors_of_torchao()
    assert set(found) >= READ | {"Int4Tensor", "Int4PlainInt32Tensor", "IntxOpaqueTensor", "NF4Tensor"}
    for name in set(found) - READ - {"TorchAOBaseTensor"}:
        x = torch.Tensor._make_subclass(found[name], torch.zeros(2, 2))
        with pytest.raises(NumericsError, match=f"{name} is none of torchao's Int8Tensor"):
            adapter.from_host(x)


# ---- compressed-tensors ------------------------------------------------------------------------------

SHAPE = torch.tensor([32, 64])
SCALE = torch.ones(32, 2)
LEGACY = {
    "marlin-24": {"weight_packed": torch.zeros(2, 64, dtype=torch.int32), "scale_packed": SCALE,
                  "meta": torch.zeros(64, 4, dtype=torch.int16)},
    "sparse-24-bitmask": {"weight.compressed": torch.zeros(32, 32), "weight.shape": SHAPE,
                          "weight.bitmask": torch.zeros(32, 8, dtype=torch.uint8)},
    "sparse-bitmask": {"weight.compressed": torch.zeros(9), "weight.shape": SHAPE,
                       "weight.bitmask": torch.zeros(32, 8, dtype=torch.uint8),
                       "weight.row_offsets": torch.zeros(32, dtype=torch.int64)},
    "dense": {"weight": torch.zeros(32, 64)},
}  # fmt: skip


@pytest.mark.parametrize("name", LEGACY)
def test_a_format_of_compressed_tensors_that_is_no_qtensors_is_refused(name):
    adapter = asked("compressed_tensors")
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(num_bits=4, strategy="group", group_size=32)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=name)
    with pytest.raises(NumericsError):
        adapter.from_host(LEGACY[name], scheme)


def test_the_formats_of_compressed_tensors_are_the_ones_that_are_known():
    """A new one would be neither read nor refused by a test."""
    asked("compressed_tensors")
    from compressed_tensors.config import CompressionFormat

    read = {"int-quantized", "float-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized",
            "mxfp4-pack-quantized", "mxfp6-pack-quantized", "mxfp8-quantized"}  # fmt: skip
    assert {one.value for one in CompressionFormat} == read | set(LEGACY) | {"mixed-precision"}


# ---- ModelOpt ----------------------------------------------------------------------------------------


def test_a_class_of_modelopts_tensors_is_read_or_refused_by_its_name():
    adapter = asked("modelopt")
    hosts = importlib.import_module("modelopt.torch.quantization.qtensor")
    base = hosts.base_qtensor.BaseQuantizedTensor
    found = {name for name, one in vars(hosts).items() if isinstance(one, type) and issubclass(one, base)}
    read = {"INT8QTensor", "FP8QTensor", "MXFP8QTensor", "MXFP4QTensor", "NVFP4QTensor", "INT4QTensor"}
    assert found == read | {"NF4QTensor"} | ({"BaseQuantizedTensor"} & found)
    for name in found - read:
        x = getattr(hosts, name)(torch.Size((2, 32)), torch.float32, torch.zeros(32, dtype=torch.uint8))
        with pytest.raises(NumericsError, match=f"{name} is none of ModelOpt's INT8QTensor"):
            adapter.from_host(x, torch.ones(1))


# ---- Quark -------------------------------------------------------------------------------------------


def test_a_type_of_quarks_is_read_or_refused_by_its_name():
    adapter = asked("quark")
    from quark.torch.export.nn.modules.realquantizer import StaticScaledRealQuantizer
    from quark.torch.quantization.config.type import Dtype

    from numerics.adapters.tensors.quark import ELEMENTS

    names = {one.value for one in Dtype}
    assert names > set(ELEMENTS)
    for one in Dtype:
        if one.value not in ELEMENTS:
            quantizer = StaticScaledRealQuantizer.__new__(StaticScaledRealQuantizer)
            torch.nn.Module.__init__(quantizer)
            quantizer.real_quantized = True
            quantizer.qspec = SimpleNamespace(dtype=one, scale_format=None)
            with pytest.raises(
                NumericsError, match=f"{one.value} with scales .* is none of matrices of int2"
            ):
                adapter.from_host(torch.zeros(2, 2), quantizer)


@pytest.mark.parametrize("first", [-12, -3])
def test_a_qtensor_is_as_it_was_once_quark_has_packed_its_zero_point(first):
    """Quark masks the zero point of a whole int4 tensor in place and does not find its sign again."""
    adapter = asked("quark")
    x = torch.linspace(first, first + 15, 128 * 128).view(128, 128)
    q = nx.quantize(x, nx.QuantSpec("int4", scheme="per_tensor()", symmetric=False))
    zero = q.zero_point.clone()
    assert int(zero) == -8 - first
    if zero < 0:
        with pytest.raises(NumericsError, match="zero point of a whole int4 tensor is not negative"):
            adapter.to_host(q)
    else:
        weight, quantizer = adapter.to_host(q)
        assert torch.equal(quantizer(weight), q.dequantize())
        assert torch.equal(adapter.from_host(weight, quantizer).zero_point, zero)
    assert torch.equal(q.zero_point, zero)
