"""A pretrained model, all-MiniLM-L6-v2, quantized by hosts on a CPU with our kernels under them."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("transformers")
import torch
import transformers

import numerics as nx
from tests.adapters.hosts import asked
from tests.helpers.children import LIMIT
from tests.helpers.pretrained import check_installed
from tests.helpers.transformers import ids, minilm, quantized

pytestmark = pytest.mark.filterwarnings("ignore")

FORMATS = {
    "MXFP8": "mxfp8_e4m3",
    "MXFP6": "mxfp6_e3m2",
    "MXFP4": "mxfp4",
    "NVFP4": "nvfp4",
    "MXINT8": "mxint8",
}
HIGHEST = nx.fp4.max * nx.fp8_e4m3.max  # of NVFP4: what the largest magnitude of a tensor becomes


def model():
    check_installed("MiniLM")
    return transformers.AutoModel.from_pretrained(minilm()).eval()


def hidden(found) -> torch.Tensor:
    """The last hidden state of two sentences."""
    with torch.no_grad():
        return found(ids())[0]


# ---- ModelOpt ----------------------------------------------------------------------------------------


def rounded(x, d, quantizer):
    """x by our format and NVIDIA's rule, at the scale of the tensor that ModelOpt has calibrated."""
    if not d.has_tensor_scale:
        return d.round(x, scale_rule="rceil")
    return d.round(x, tensor_scale=float(quantizer.amax) / HIGHEST)


def rounds_as(layer, theirs, d) -> int:
    """Makes a float layer round its input and its weight where ModelOpt's does; how many of both."""
    inputs, weights = (getattr(theirs, f"{what}_quantizer", None) for what in ("input", "weight"))
    inputs, weights = (one if one is not None and one.is_enabled else None for one in (inputs, weights))
    if weights is not None:
        layer.weight.data = rounded(layer.weight.data, d, weights)
    if inputs is not None:
        layer.register_forward_pre_hook(lambda _, given: (rounded(given[0], d, inputs), *given[1:]))
    return (inputs is not None) + (weights is not None)


@pytest.mark.parametrize("name", FORMATS)
def test_modelopt_quantizes_minilm_on_a_cpu_with_our_bits(name):
    adapter = asked("modelopt")
    import modelopt.torch.quantization as mtq

    config, d = getattr(mtq, f"{name}_DEFAULT_CFG"), nx.dtype(FORMATS[name])
    with adapter.substituted() as calls:
        theirs = mtq.quantize(model(), config, hidden)
        found = hidden(theirs)
        assert calls.ours["dynamic_block_quantize_op"] > 2 * 36
    ours = model()
    count = sum(rounds_as(layer, theirs.get_submodule(path), d) for path, layer in ours.named_modules())
    assert count == sum(one.is_enabled for one in theirs.modules() if hasattr(one, "is_enabled"))
    assert torch.equal(hidden(ours), found)
    assert not torch.equal(hidden(model()), found)


def test_modelopt_alone_cannot_do_it():
    """Where this fails, ModelOpt has kernels for a CPU: compare their bits in cases/modelopt.py."""
    asked("modelopt")
    import modelopt.torch.quantization as mtq

    with pytest.raises(Exception, match=r"CUDA|cuda|extension"):
        hidden(mtq.quantize(model(), mtq.MXFP8_DEFAULT_CFG, hidden))


# ---- transformers ------------------------------------------------------------------------------------

FRESH = """
import sys, torch, transformers, numerics.model.huggingface
from tests.helpers.transformers import ids
with torch.no_grad():
    torch.save(transformers.AutoModel.from_pretrained(sys.argv[1]).eval()(ids())[0], sys.argv[2])
"""


@pytest.mark.turns(4)
@pytest.mark.parametrize(
    "spec", ["mx6", "mxfp4", "nvfp4", nx.QuantSpec("int4", scheme="per_group(32)")], ids=str
)
def test_minilm_that_transformers_quantized_has_the_same_logits_in_a_fresh_process(spec, tmp_path):
    adapter = asked("transformers")
    from numerics.model.huggingface import NumericsConfig

    check_installed("MiniLM")
    with adapter.substituted() as calls:
        found = transformers.AutoModel.from_pretrained(
            minilm(), quantization_config=NumericsConfig(spec)
        ).eval()
        assert calls.ours["quantizer"] == 1
    assert len(quantized(found)) == 37
    found.save_pretrained(tmp_path / "saved")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        FRESH,
        str(tmp_path / "saved"),
        str(tmp_path / "logits.pt"),
    ]
    subprocess.run(command, check=True, timeout=LIMIT, capture_output=True)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), hidden(found))
