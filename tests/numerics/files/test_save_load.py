"""nx.save and nx.load: QTensors of every recipe in one safetensors file, from NumPy and from torch."""

from __future__ import annotations

import warnings

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("torch")
import safetensors.numpy
import safetensors.torch
import torch

import numerics as nx
from numerics.files.safetensors import ML_DTYPES, NUMPY
from tests.helpers.bits import assert_same_bits
from tests.helpers.tensors import RECIPES, data

PLAIN = {
    "i": np.arange(6, dtype=np.int64).reshape(2, 3),
    "h": np.array([1.5, -0.0], ml_dtypes.bfloat16),
    "empty": np.empty((0, 3), np.float32),
    "one": np.array(3.0),
    "e": np.array([1.0, 448.0], ml_dtypes.float8_e4m3fn),
}

VIEWED = nx.quantize(torch.ones(2, 3), "int8")
META = nx.quantize(torch.ones(2, device="meta"), "int4")


def _nested(layout):
    with warnings.catch_warnings(action="ignore"):
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)


def test_every_recipe_comes_back(tmp_path):
    made = {f"w{k}": nx.quantize(data(torch.bfloat16), d, **o) for k, (d, o) in enumerate(RECIPES)}
    nx.save({**made, **PLAIN}, tmp_path / "all.safetensors")
    arrays, tensors = (nx.load(tmp_path / "all.safetensors", library=name) for name in ("numpy", "torch"))
    for name, q in made.items():
        assert tensors[name].spec == arrays[name].spec == q.spec
        for part in ("packed", "shared", "zero_point", "tensor_scale"):
            held = getattr(q, part)
            if held is not None:
                assert torch.equal(getattr(tensors[name], part), held)
                assert_same_bits(np.asarray(getattr(arrays[name], part), held.numpy().dtype), held.numpy())
        assert_same_bits(q.dequantize(), arrays[name].dequantize())
        assert tensors[name].dtype == torch.bfloat16
    for name, x in PLAIN.items():
        assert_same_bits(arrays[name], x)


def test_other_readers_see_plain_tensors(tmp_path):
    q = nx.quantize(np.float32([[0.5, -7.0], [2.0, 3.5]]), "int4", scheme=nx.per_channel(0))
    nx.save({"w": q, "w.scale": np.ones(1, np.float32)}, tmp_path / "q.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "q.safetensors")
    assert found["w"].tolist() == q.packed.tolist()
    assert found["w.scale_"].tolist() == q.scale.tolist()
    assert found["w.scale"].tolist() == [1.0]


def test_other_writers_files_are_read(tmp_path):
    safetensors.torch.save_file({"x": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    loaded = nx.load(tmp_path / "x.safetensors", library="torch")
    assert torch.equal(loaded["x"], torch.ones(2, dtype=torch.bfloat16))


def test_a_state_dict_survives(tmp_path):
    layer = torch.nn.Linear(64, 8)
    layer.weight = torch.nn.Parameter(nx.quantize(layer.weight, "mxfp6_e2m3"), requires_grad=False)
    x = torch.randn(2, 64)
    due = layer(x)
    nx.save(layer.state_dict(), tmp_path / "layer.safetensors")
    again = torch.nn.Linear(64, 8)
    again.load_state_dict(nx.load(tmp_path / "layer.safetensors", library="torch"), assign=True)
    assert isinstance(again.weight, nx.QTensor)
    assert torch.equal(again(x), due)


@pytest.mark.parametrize("kind", [*NUMPY, *ML_DTYPES])
def test_every_type_comes_back_from_either_library(tmp_path, kind):
    """All bytes, as 0 and 1 where it is bool: loaded and saved again they are the same file."""
    raw = np.arange(256, dtype=np.uint8) & (1 if kind == "BOOL" else 255)
    spelled = NUMPY.get(kind) or getattr(ml_dtypes, ML_DTYPES[kind])
    nx.save({"x": raw.view(spelled)}, tmp_path / "x")
    first = (tmp_path / "x").read_bytes()
    assert f'"dtype":"{kind}"'.encode() in first
    assert first.endswith(raw.tobytes())
    for library in ("numpy", "torch"):
        nx.save(nx.load(tmp_path / "x", library=library), tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == first


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i2", ">c8", ">u8"])
def test_the_order_of_bytes_is_the_files(tmp_path, kind):
    nx.save({"x": np.array([1, 2, 300], kind)}, tmp_path / "x")
    assert nx.load(tmp_path / "x")["x"].tolist() == [1, 2, 300]


@pytest.mark.parametrize("name", ["__metadata__", 1, None, "\ud800", b"w"])
@pytest.mark.parametrize("made", [np.ones(2), nx.quantize(np.ones(2), "int4")], ids=["array", "QTensor"])
def test_what_cannot_be_a_name_changes_nothing(tmp_path, name, made):
    nx.save(PLAIN, tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    with pytest.raises(nx.NumericsError, match="cannot name a tensor"):
        nx.save({"1": PLAIN["i"], name: made}, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p: nx.save({"x": object()}, p), "tensor 'x': safetensors has neither Python's objects"),
        (lambda p: nx.save({"x": np.ones(2, np.complex128)}, p), "tensor 'x': safetensors has no complex128"),
        (lambda p: nx.save({"x": torch.ones(2).to_sparse()}, p), "tensor 'x': a torch.sparse_coo tensor"),
        (lambda p: nx.save({"x": torch.ones(2, device="meta")}, p), "tensor 'x': a tensor on meta"),
        *(
            (lambda p, form=form: nx.save({"x": _nested(form)}, p), "tensor 'x': a nested tensor .*unbind")
            for form in (torch.strided, torch.jagged)
        ),
        (
            lambda p: torch.vmap(lambda x: nx.save({"x": x}, p) or x)(torch.ones(2, 3)),
            "tensor 'x': .* torch.vmap",
        ),
        *(
            (lambda p, view=view: nx.save({"x": view(VIEWED)}, p), r"view of a QTensor .* x\.dequantize\(\)")
            for view in (lambda q: q.t(), lambda q: q.expand(2, 2, 3), lambda q: q.unsqueeze(0))
        ),
        (lambda p: nx.save({"x": META}, p), "tensor 'x': .* meta"),
        (lambda p: nx.save([META], p), "takes tensors by name, as {'w': q} or .*, not a list"),
        (
            lambda p: nx.save({"state_dict": {"w": PLAIN["i"]}, "epoch": 3}, p),
            r"'state_dict' is no tensor but a dict of 1, such as 'w'; .* nx.save\(tensors",
        ),
        (lambda p: nx.save({"w": PLAIN["i"], "by": None}, p), "'by' is no tensor but None; leave it out"),
        (lambda p: nx.save({"w": PLAIN["i"], "by": "me"}, p), "'by' is no tensor but 'me'; leave it out"),
        (lambda p: nx.save({"x": PLAIN["i"]}, p / "none" / "x"), "cannot write"),
        (lambda p: nx.load(p, library="jax"), "unknown library 'jax'"),
    ],
)
def test_what_safetensors_cannot_hold_is_refused_and_no_file_is_left(tmp_path, call, said):
    with pytest.raises(nx.NumericsError, match=said):
        call(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_torch_are_not_mapped_in_silence(tmp_path):
    nx.save({"w": np.ones(3, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(nx.NumericsError, match="its tensors are copies"):
        nx.load(tmp_path / "w.safetensors", library="torch", mapped=True)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0,)])
@pytest.mark.parametrize("kind", ["float4_e2m1fn", "float8_e4m3fn", "bfloat16"])
def test_a_tensor_without_values_could_not_be_loaded(kind, shape, tmp_path):
    nx.save({"w": np.empty(shape, getattr(ml_dtypes, kind))}, tmp_path / "w.safetensors")
    assert nx.load(tmp_path / "w.safetensors")["w"].shape == shape
    loaded = nx.load(tmp_path / "w.safetensors", library="torch")["w"]
    assert loaded.numel() == 0
    assert tuple(loaded.shape[:-1]) == shape[:-1]


FOREIGN = {
    "fp8 of compressed-tensors": (
        {"a.weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn), "a.weight_scale": torch.ones(4, 1)}, None,
    ),
    "mxfp4 of compressed-tensors": (
        {"a.weight_packed": torch.zeros(4, 16, dtype=torch.uint8),
         "a.weight_scale": torch.zeros(4, 1, dtype=torch.uint8)}, None,
    ),
    "fp8 of DeepSeek": (
        {"a.weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn), "a.weight_scale_inv": torch.ones(1, 1)},
        None,
    ),
    "a shard without its scales": (
        {"a.weight": torch.zeros(4, 4, dtype=torch.float8_e4m3fn)},
        '{"quantization_config": {"quant_method": "fp8"}}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_codes_of_another_tool_came_without_a_word(tmp_path, name):
    tensors, config = FOREIGN[name]
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.warns(
        nx.NumericsWarning, match=r"'a.weight(_packed)?'.* codes.*checkpoints.loading.load.*conv"
    ):
        assert nx.load(tmp_path / "model.safetensors").keys() == tensors.keys()
    with pytest.raises(nx.NumericsError, match=r"does not fit.*numerics.checkpoints.loading.load.*convert"):
        nx.load_into(torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4)}), tmp_path / "model.safetensors")


def test_what_is_no_code_of_another_tool_comes_in_silence(tmp_path):
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "x"}}', encoding="utf-8")
    q = nx.quantize(np.ones((4, 32), np.float32), "int8")
    for tensors in ({"a.weight": q, "ids": np.arange(3, dtype=np.int32)}, {"a.weight": np.ones(3)},
                    {"a.weight": np.ones(3, np.float32), "a.weight_scale": np.ones(3)}):  # fmt: skip
        nx.save(tensors, tmp_path / "model.safetensors")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nx.load(tmp_path / "model.safetensors")


def test_a_folder_is_told_who_reads_it(tmp_path):
    with pytest.raises(nx.NumericsError, match=r"directory; numerics.checkpoints.loading.load .*`numerics c"):
        nx.load(tmp_path)
    with pytest.raises(
        nx.NumericsError, match=r"no \.safetensors file; name a file, or a folder with model\."
    ):
        nx.load_into(torch.nn.Linear(2, 2), tmp_path)
