"""torchao's safetensors without torchao: every code and scale byte as it is, and lies that are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import save_file

import numerics as nx
from numerics.checkpoints.converting import convert
from numerics.checkpoints.loading import load, open_any
from tests.helpers.bits import assert_same_bits

BYTES = torch.arange(256, dtype=torch.uint8)


def of(kind):
    return {"_type": "torch.dtype", "_data": kind}


def write(path, kind, facts, **parts):
    """A file with one weight, as torchao flattens it."""
    said = {"_type": kind, "_data": facts, "_tensor_data_names": list(parts)}
    metadata = {"tensor_names": '["l.weight", "l.bias"]', "l.weight": json.dumps(said),
                "l.bias": '{"_type": "Tensor"}'}  # fmt: skip
    tensors = {f"l._weight_{part}": x for part, x in parts.items()} | {"l.bias": torch.ones(3)}
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.filterwarnings("ignore")
def test_every_code_and_scale_of_mxfp4_mxfp8_and_nvfp4_is_kept(tmp_path):
    codes = BYTES.repeat(256, 1).contiguous()
    for kind, element, d, values in (
        ("MXTensor", "float4_e2m1fn_x2", "mxfp4", 512), ("MXTensor", "float8_e4m3fn", "mxfp8_e4m3", 256),
        ("MXTensor", "float8_e5m2", "mxfp8_e5m2", 256), ("NVFP4Tensor", None, "nvfp4", 512),
    ):  # fmt: skip
        size = nx.dtype(d).block
        facts = {"block_size": size, "orig_dtype": of("bfloat16"), "is_swizzled_scales": False,
                 "act_quant_kwargs": None}  # fmt: skip
        scale = BYTES.reshape(-1, 1).repeat(1, values // size).contiguous()
        if element:
            facts["elem_dtype"] = of(element)
        if kind == "NVFP4Tensor":
            scale = scale % 127  # no NaN among scales, nor a sign
        qdata = codes if values == 512 else codes.view(getattr(torch, element))
        kinds = torch.float8_e8m0fnu if element else torch.float8_e4m3fn
        path = write(tmp_path / f"{d}.safetensors", kind, facts, qdata=qdata, scale=scale.view(kinds))
        q = load(path)["l.weight"]
        assert q.format is nx.dtype(d)
        assert (q.shape, q.original) == ((256, values), "bfloat16")
        assert q.packed.tobytes() == codes.numpy().tobytes()
        assert q.shared.tobytes() == scale.numpy().tobytes()
        convert(path, tmp_path / "ours", "numerics")
        assert_same_bits(
            nx.load(tmp_path / "ours")["l.weight"].dequantize("float32"), q.dequantize("float32")
        )
        (tmp_path / "ours").unlink()


@pytest.mark.parametrize("kind", ["Int8Tensor", "IntxUnpackedToInt8Tensor"])
@pytest.mark.parametrize("shifted", [False, True])
def test_integers_with_and_without_zero_points(tmp_path, kind, shifted):
    bits = 8 if kind == "Int8Tensor" else 4
    codes = (torch.arange(-128, 128) >> (8 - bits)).to(torch.int8).repeat(4, 1)
    scale = torch.tensor([[0.5, 1.0], [3e-5, 2.0], [1e3, 7.0], [0.25, 1.5]])
    zero = torch.tensor([[-3, 5], [0, 1], [2, -8], [7, 0]], dtype=torch.int8) * shifted
    facts = {"block_size": [1, 128], "dtype": of("float32")}
    if bits == 4:
        facts |= {"target_dtype": of("int4"), "activation_quantization": None}
    path = write(tmp_path / "a.safetensors", kind, facts, qdata=codes, scale=scale, zero_point=zero)
    q = load(path)["l.weight"]
    assert q.spec == nx.QuantSpec(f"int{bits}", scheme="per_group(128)", symmetric=not shifted)
    wide = (codes.float().reshape(4, 2, 128) - zero.float()[..., None]) * scale[..., None]
    assert_same_bits(q.dequantize(), wide.reshape(4, 256).numpy())


FLOAT8 = {"block_size": [1, 256], "dtype": of("bfloat16"), "act_quant_kwargs": None}


def float8(path, kind="Float8Tensor", scale=None, **facts):
    scale = torch.ones(2, 1) if scale is None else scale
    codes = BYTES.repeat(2, 1).view(torch.float8_e4m3fn)
    return write(path, kind, {**FLOAT8, **facts}, qdata=codes, scale=scale)


def test_fp8_by_rows_tensors_groups_and_tiles(tmp_path):
    for block, scheme, shape in (
        ([1, 256], "per_channel(0)", (2, 1)),
        ([2, 256], "per_tensor()", (1, 1)),
        ([1, 64], "per_group(64)", (2, 4)),
        ([2, 64], "per_block((2, 64))", (1, 4)),
    ):
        scale = torch.rand(shape) + 0.5
        q = load(float8(tmp_path / "a.safetensors", block_size=block, scale=scale))["l.weight"]
        assert q.spec == nx.QuantSpec("fp8_e4m3", scheme=scheme)
        assert q.codes.tobytes() == BYTES.repeat(2, 1).numpy().tobytes()
        assert q.scale.tobytes() == scale.numpy().tobytes()


@pytest.mark.parametrize(("lie", "said"), [
    ({"kind": "Int4TilePackedTo4dTensor"}, "is none of"), ({"kind": ["Float8Tensor"]}, "is none of"),
    ({"kind": "Int8Tensor"}, "as torch.float8_e4m3fn"),
    ({"act_quant_kwargs": {"_type": "PerRow"}}, "about inputs"),
    ({"block_size": [1, 0]}, "no sizes"), ({"block_size": [7]}, ""),
    ({"block_size": "all"}, ""), ({"block_size": [1, True]}, "no sizes"), ({"dtype": of("int8")}, "allowed"),
    ({"dtype": of("__class__")}, "is not known"), ({"dtype": None}, ""),
    ({"scale": torch.ones(3, 1)}, "scales for"),
    ({"scale": torch.ones(2, 1, dtype=torch.int32)}, ""), ({"kind": "MXTensor", "block_size": 32}, ""),
    ({"kind": "MXTensor", "elem_dtype": of("float8_e5m2")}, ""), ({"kind": "NVFP4Tensor"}, ""),
    ({"qdata": "mine"}, None), ({"__class__": "mine"}, None),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_facts_that_lie_leave_the_codes_as_they_are(tmp_path, lie, said):
    opened = open_any(float8(tmp_path / "a.safetensors", **lie))
    x = opened.tensor("l.weight")
    if said is None:  # what a class has of its own is not asked of the file
        assert isinstance(x, nx.QTensor)
        return
    assert said in opened.left["l.weight"]
    assert x.view(np.uint8).tobytes() == BYTES.repeat(2, 1).numpy().tobytes()


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"_type": 3}', "[" * 10**5, '{"_tensor_data_names": [["qdata"]]}']
)
def test_a_header_that_says_rubbish_of_a_weight_is_that_of_a_plain_file(tmp_path, text):
    tensors = {"l._weight_qdata": torch.ones(2, 2, dtype=torch.int8), "l._weight_scale": torch.ones(2, 1)}
    save_file(tensors, tmp_path / "a", metadata={"tensor_names": '["l.weight"]', "l.weight": text})
    assert set(load(tmp_path / "a")) == set(tensors)
    save_file(tensors, tmp_path / "a", metadata={"tensor_names": text})
    assert set(load(tmp_path / "a")) == set(tensors)


def test_without_torchao_nothing_is_written_for_it(tmp_path):
    nx.save({"l.weight": nx.quantize(np.ones((2, 64), np.float32), "int8")}, tmp_path / "a.safetensors")
    try:
        import torchao  # noqa: F401
    except ImportError:
        with pytest.raises(nx.NumericsError, match="needs torchao"):
            convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "torchao")
        assert not (tmp_path / "b.safetensors").exists()
