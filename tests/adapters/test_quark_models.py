"""Quark's own way to a quantized model, which compiles its kernels, reaches ours and gives the same bits."""

from __future__ import annotations

import importlib

import pytest

pytest.importorskip("torch")
import torch

from tests.adapters.hosts import asked, same_bits

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1800)]
STATIC = {"symmetric": True, "scale_type": "float", "round_method": "half_even", "is_dynamic": False}
BY_GROUP = {**STATIC, "ch_axis": -1, "group_size": 32}
BLOCKS = {"ch_axis": -1, "is_dynamic": False}
SPECS = {
    "int8 by channel": ("Int8PerChannelSpec", {**STATIC, "ch_axis": 0}, "scaled_fake_quantize"),
    "int8 by tensor": (
        "Int8PerTensorSpec", {**STATIC, "observer_method": "min_max"}, "scaled_fake_quantize"
    ),
    "int4 by group": ("Int4PerGroupSpec", BY_GROUP, "scaled_fake_quantize"),
    "uint4 by group": ("Uint4PerGroupSpec", {**BY_GROUP, "symmetric": False}, "scaled_fake_quantize"),
    "fp8": (
        "FP8E4M3PerTensorSpec", {"observer_method": "min_max", "is_dynamic": False}, "scaled_fake_quantize"
    ),
    "mxfp4": ("OCP_MXFP4Spec", {**BLOCKS, "scale_calculation_mode": "even"}, "scaled_fake_quantize"),
    "mxfp6": ("OCP_MXFP6E2M3Spec", BLOCKS, "scaled_fake_quantize"),
    "mx6": ("MX6Spec", {"ch_axis": -1, "block_size": 16}, "non_scaled_fake_quantize"),
    "mx9": ("MX9Spec", {"ch_axis": -1, "block_size": 16}, "non_scaled_fake_quantize"),
    "bfp16": ("BFP16Spec", {"ch_axis": -1}, "non_scaled_fake_quantize"),
}  # fmt: skip


INPUTS = ("int8 by tensor", "fp8")  # by which Quark quantizes a layer's inputs, too


def quantized(name, kind):
    """What a model that Quark quantized by a specification gives, its gradients, and what it gives frozen."""
    config = importlib.import_module("quark.torch.quantization.config.config")
    quantizer_of = importlib.import_module("quark.torch").ModelQuantizer
    spec, options, _ = SPECS[name]
    found = getattr(config, spec)(**options).to_quantization_spec()
    layers = config.QLayerConfig(weight=found, **({"input_tensors": found} if name in INPUTS else {}))
    torch.manual_seed(15)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64)).to(kind)
    x = torch.randn(16, 64, dtype=kind)
    quantizer = quantizer_of(config.QConfig(global_quant_config=layers))
    model = quantizer.quantize_model(model, torch.utils.data.DataLoader(x, batch_size=8))
    made = model(x)
    (made * torch.linspace(-1, 1, 64).to(kind)).sum().backward()
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    assert len(gradients) == 4
    return made.detach(), *gradients, quantizer.freeze(model)(x).detach()


def calls_of_the_same(name, kind=torch.float32):
    """The calls that were counted while a quantized model gave, substituted, the bits that it gives stock."""
    adapter = asked("quark")
    stock = quantized(name, kind)
    with adapter.substituted() as calls:
        found = quantized(name, kind)
    assert same_bits(stock, found)
    return calls


@pytest.mark.parametrize("name", SPECS)
def test_a_model_that_quark_quantizes_reaches_our_kernels_with_the_same_bits(name):
    calls = calls_of_the_same(name)
    least = 8 if name in INPUTS else 4  # two weights, before and after they are frozen
    assert calls.ours[SPECS[name][2]] >= least, calls
    assert not calls.passed_on, calls


@pytest.mark.parametrize("name", ["int8 by channel", "fp8", "mxfp4"])
def test_what_is_passed_on_is_compiled_as_quark_compiles_it(name):
    """In 16 bits a compiled call has other bits than one that is not compiled."""
    calls = calls_of_the_same(name, torch.bfloat16)
    assert calls.passed_on["scaled_fake_quantize"] >= 4, calls
    assert not calls.ours, calls


@pytest.mark.parametrize("name", ["int8 by tensor", "mxfp6"])
def test_a_model_that_is_not_compiled_reaches_our_kernels_too(name, monkeypatch):
    asked("quark")
    quantizers = importlib.import_module("quark.torch.quantization.tensor_quantize")
    monkeypatch.setattr(quantizers, "QUARK_DISABLE_COMPILE", True)
    calls = calls_of_the_same(name)
    assert calls.ours["scaled_fake_quantize"] >= 4, calls
    assert not calls.passed_on, calls
