"""QTensors as hosts' tensors and back: what needs no host, and compressed-tensors, which stands beside us.

All hosts: tests/adapters/test_tensors.py, which `make adapters` runs.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.formats.errors import NumericsError
from numerics.interop.host_tensors import block_of, scales_of, scheme_of
from numerics.interop.torchao import read_host

X = torch.linspace(-3, 4, 4 * 64).reshape(4, 64)


@pytest.mark.parametrize("scheme", ["per_tensor()", "per_channel(0)", "per_channel(1)", "per_group(16)",
                                    "per_group(2, axis=0)", "per_block((2, 32))"])  # fmt: skip
def test_the_block_of_a_scheme_makes_the_same_scheme(scheme):
    q = nx.quantize(X, nx.QuantSpec("int4", scheme=scheme))
    block = block_of(q)
    again = q.spec.replace(scheme=scheme_of(q.shape, block))
    assert again.shared_shape(tuple(q.shape)) == q.spec.shared_shape(tuple(q.shape)) or block[1] == 64
    assert torch.equal(scales_of(q).reshape(-1), q.scale.reshape(-1))
    assert nx.quantize(X, again, scale=q.scale.reshape(again.shared_shape((4, 64)))).codes.equal(q.codes)


def test_a_group_that_the_axis_cuts_is_refused():
    with pytest.raises(NumericsError, match="cuts the last group"):
        block_of(nx.quantize(X, nx.QuantSpec("int4", scheme="per_group(48)")))


@pytest.fixture
def adapter():
    pytest.importorskip("compressed_tensors")
    from numerics.adapters import compressed_tensors

    return compressed_tensors


SPECS = ("mxfp4", "nvfp4", "mxfp8_e4m3", "fp8_e4m3", nx.QuantSpec("int4", scheme="per_group(16)"),
         nx.QuantSpec("int8", symmetric=False), nx.QuantSpec("int8", scheme="per_channel(0)"),
         nx.QuantSpec(nx.integer_format(3), scheme="per_group(32)", symmetric=False))  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_compressed_weight_comes_back_with_every_code(spec, adapter):
    q = nx.quantize(X, spec)
    tensors, scheme = adapter.to_host(q)
    again = adapter.from_host(tensors, scheme)
    assert torch.equal(q.codes, again.codes)
    assert torch.equal(q.dequantize(), again.dequantize(torch.float32))


def test_what_compressed_tensors_cannot_hold_is_refused_with_what_it_can(adapter):
    with pytest.raises(NumericsError, match="cannot store the tensor: it has no mx6; mxfp6_e2m3 would fit"):
        adapter.to_host(nx.quantize(X, "mx6"))
    with pytest.raises(NumericsError, match="are not the parts of one compressed weight"):
        adapter.from_host({"weight": X}, adapter.to_host(nx.quantize(X, "mxfp4"))[1])
    with pytest.raises(NumericsError, match="takes a QTensor, not Tensor"):
        adapter.to_host(X)


def test_a_tensor_scale_comes_back_as_it_was_or_is_refused(adapter):
    refused = 0
    for scale in torch.linspace(1, 2, 401)[:-1] * 2.0**-9:
        given = nx.quantize(X, "nvfp4", tensor_scale=float(scale))
        mantissa = float(scale) * 2.0**9
        try:
            tensors, scheme = adapter.to_host(given)
        except NumericsError as why:
            said, refused = str(why), refused + 1
        else:
            said = ""
        if said:
            again = float(said.rpartition("=")[2])
            assert mantissa > 2**0.5
            assert abs(again - float(scale)) <= 2.0**-32
            given = nx.quantize(X, "nvfp4", tensor_scale=again)
            tensors, scheme = adapter.to_host(given)
        assert torch.equal(adapter.from_host(tensors, scheme).tensor_scale, given.tensor_scale)
    assert 0 < refused < 150


def test_a_tensor_of_torchaos_without_elements_is_refused_however_it_is_read():
    made = type("MXTensor", (), {"shape": (0, 64), "qdata": torch.empty(0, 64), "block_size": 32})
    with pytest.raises(NumericsError, match=r"torchao has no tensor of no elements, as of \(0, 64\)"):
        read_host(made())
