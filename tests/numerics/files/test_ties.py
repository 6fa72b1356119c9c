"""A tensor of several names is one in a file, and is all of them again when it is read."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors import safe_open
from safetensors.torch import save_model

import numerics as nx
from numerics.checkpoints import Source, decide, quantize
from numerics.checkpoints.converting import convert
from numerics.checkpoints.deciding import Request
from numerics.checkpoints.loading import load as load_any
from numerics.checkpoints.looking import compare, inspect
from numerics.files.checkpoint import dequantize_file, quantize_file
from numerics.files.safetensors import Entry, Writer
from numerics.files.ties import KEY
from numerics.formats.errors import NumericsError


class Language(torch.nn.Module):
    """An embedding that is the head, and the head of another task too."""

    def __init__(self):
        super().__init__()
        self.embedding, self.layer = torch.nn.Embedding(64, 32), torch.nn.Linear(32, 32)
        self.head, self.other = (torch.nn.Linear(32, 64, bias=False) for _ in range(2))
        self.head.weight = self.other.weight = self.embedding.weight
        self.register_buffer("table", torch.arange(32.0))
        self.layer.register_buffer("same", self.table)

    def forward(self, ids):
        x = self.layer(self.embedding(ids)) + self.table
        return self.head(x), self.other(x)


IDS = torch.arange(6)
TIED = {"head.weight", "other.weight", "layer.same"}
RULES = {"*embedding.weight": "mxfp4"}


def in_file(path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("kind", ["float", "wrapped", "frozen", "values"])
def test_tied_weights_of_a_model_are_written_once_and_come_back_tied(tmp_path, kind):
    model, path = Language(), tmp_path / "m.safetensors"
    due = model if kind == "float" else nx.wrap(Language(), "int8", rules=RULES, example=IDS)
    if kind in ("frozen", "values"):
        due = nx.freeze(due, keep="packed" if kind == "frozen" else "values")
    nx.save(due.state_dict(), path)
    assert not in_file(path) & TIED
    for library in ("numpy", "torch"):
        came = nx.load(path, library=library)
        assert came.keys() == due.state_dict().keys()
        assert came["head.weight"] is came["other.weight"] is came["embedding.weight"]
        assert came["layer.same"] is came["table"]
    if kind in ("float", "frozen"):
        again = nx.load_into(Language(), path)
        assert again.head.weight is again.embedding.weight
        assert all(torch.equal(a, b) for a, b in zip(again(IDS), due(IDS), strict=True))
    if kind == "wrapped":
        due.load_state_dict(nx.load(path, library="torch"))


def test_views_that_show_the_memory_in_another_way_are_tensors_of_their_own(tmp_path):
    x = torch.arange(16.0).reshape(4, 4)
    views = {"x": x, "row": x[0], "rows": x[:2], "turned": x.T,
             "words": x.view(torch.int32), "flat": x.view(-1), "wide": x[0].expand(4, 4), "copy": x.clone(),
             "none": x[:0], "and": x[2:2]}  # fmt: skip
    nx.save(views, tmp_path / "x.safetensors")
    assert in_file(tmp_path / "x.safetensors") == views.keys()
    came = nx.load(tmp_path / "x.safetensors", library="torch")
    assert all(torch.equal(came[name], view) for name, view in views.items())


def test_conjugates_of_one_memory_are_two(tmp_path):
    x = torch.tensor([1 + 2j, 3 - 1j])
    nx.save({"x": x, "conjugate": x.conj(), "again": x}, tmp_path / "x.safetensors")
    came = nx.load(tmp_path / "x.safetensors", library="torch")
    assert came["again"] is came["x"]
    assert torch.equal(came["conjugate"], x.conj())


@pytest.mark.parametrize("dtype", ["int4", "nvfp4", "mx6", "uint8"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_quantized_tensors_are_one_where_all_their_parts_are(tmp_path, dtype, library):
    w = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    spec = nx.QuantSpec(dtype) if dtype != "uint8" else nx.QuantSpec(dtype, symmetric=False)
    q, alike = (nx.quantize(torch.tensor(w) if library == "torch" else w, spec) for _ in range(2))
    beside = q.detach() if library == "torch" else q
    nx.save({"q": q, "q.scale": beside, "alike": alike}, tmp_path / "q.safetensors")
    came = nx.load(tmp_path / "q.safetensors", library=library)
    assert came.keys() == {"q", "q.scale", "alike"}
    assert came["q.scale"] is came["q"] is not came["alike"]
    assert np.array_equal(came["q"].dequantize(), q.dequantize())


def test_numbers_that_python_keeps_once_are_not_tied(tmp_path):
    nx.save({"a": 1.0, "b": 1.0}, tmp_path / "x.safetensors")
    assert in_file(tmp_path / "x.safetensors") == {"a", "b"}


@pytest.fixture
def tied(tmp_path):
    path, x = tmp_path / "tied.safetensors", torch.linspace(-1, 1, 4096).reshape(64, 64)
    nx.save({"emb.weight": x, "head.weight": x, "bias": torch.ones(3)}, path)
    return path


def test_jobs_keep_what_is_tied(tmp_path, tied):
    packed, back, other = (tmp_path / f"{name}.safetensors" for name in ("packed", "back", "other"))
    quantize_file(tied, packed, "mxfp4")
    dequantize_file(packed, back)
    quantize(tied, other, Request(nx.QuantSpec("mxfp4")))
    for path in (packed, back, other):
        came = nx.load(path)
        assert came["head.weight"] is came["emb.weight"], path
    assert not in_file(packed) & {"head.weight", "head.weight.scale"}


@pytest.mark.parametrize("name", ["emb", "head", "head.weight", "re:h.*"])
def test_a_rule_may_name_a_tied_tensor_by_each_of_its_names(tmp_path, tied, name):
    came = nx.load(tied) | {"other.weight": np.ones((64, 64), np.float32)}
    nx.save(came, tmp_path / "m.safetensors")
    source = Source(tmp_path / "m.safetensors")
    found = decide(source, Request(nx.QuantSpec("mxfp4"), rules={name: None}))
    assert found.plans.keys() == {"other.weight"}
    assert found.why["emb.weight"] == f"rule {name!r}"
    assert "emb.weight = head.weight" in str(found.plan)
    assert decide(source, Request(plan=found.plan)).plans.keys() == {"other.weight"}
    if not name.startswith("re:"):
        assert decide(source, Request(nx.QuantSpec("mxfp4"), exclude=[name])).plans.keys() == {"other.weight"}
        assert decide(source, Request(nx.QuantSpec("mxfp4"), include=[name])).plans.keys() == {"emb.weight"}


def test_what_is_tied_in_a_folder_stays_tied(tmp_path, tied):
    folder = tmp_path / "shards"
    folder.mkdir()
    tied.rename(folder / "model.safetensors")
    quantize(folder, tmp_path / "out", Request(rules={"head": "int8"}))
    convert(tmp_path / "out", tmp_path / "again")
    for path in (tmp_path / "out", tmp_path / "again"):
        came = load_any(path)
        assert came["head.weight"] is came["emb.weight"]
        assert came["head.weight"].spec == nx.QuantSpec("int8")


@pytest.mark.parametrize("kind", ["float", "frozen"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_that_does_not_tie_gets_tensors_of_its_own(tmp_path, kind, device):
    model, path = Language(), tmp_path / "m.safetensors"
    due = model if kind == "float" else nx.freeze(nx.wrap(model, "int8", rules=RULES, example=IDS))
    nx.save(due.state_dict(), path)
    with torch.device(device):
        apart = Language()
        apart.head.weight = torch.nn.Parameter(torch.empty(64, 32))
    nx.load_into(apart, path)
    one, other = apart.head.weight, apart.embedding.weight
    assert one is not other
    assert apart.other.weight is other
    if kind == "float":
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()
    else:
        assert torch.equal(one.packed, other.packed)
        assert one.packed.data_ptr() != other.packed.data_ptr()


@pytest.mark.parametrize("to", ["numerics", "safetensors"])
def test_conversions_keep_what_is_tied(tmp_path, tied, to):
    packed, out = tmp_path / "packed.safetensors", tmp_path / "out.safetensors"
    quantize_file(tied, packed, "mxfp4")
    convert(packed, out, to)
    assert "head.weight" not in in_file(out)
    came = load_any(out)
    assert came["head.weight"] is came["emb.weight"]
    found = compare(packed, out)
    assert found.equal
    assert found.same is (to == "numerics")  # safetensors' own types say nothing of what a weight was
    looks = {look.name: look for look in inspect(out)}
    assert looks["head.weight"].format == looks["emb.weight"].format == "mxfp4"
    assert looks["head.weight"].odd == ("tied: it is emb.weight",)
    assert looks["emb.weight"].nbytes > looks["head.weight"].nbytes == 0


def test_a_conversion_that_drops_a_name_says_so(tmp_path, tied):
    packed = tmp_path / "packed.safetensors"
    quantize_file(tied, packed, "mxfp4")
    assert any(
        "head.weight is emb.weight" in note for note in convert(packed, tmp_path / "out", "gguf").notes
    )


def test_what_torch_saved_tied_stays_tied(tmp_path):
    torch.save(Language().state_dict(), tmp_path / "m.pth")
    convert(tmp_path / "m.pth", tmp_path / "m.safetensors")
    assert not in_file(tmp_path / "m.safetensors") & TIED
    assert (
        load_any(tmp_path / "m.pth").keys()
        == nx.load(tmp_path / "m.safetensors").keys()
        == Language().state_dict().keys()
    )
    assert compare(tmp_path / "m.pth", tmp_path / "m.safetensors").same


def test_what_safetensors_saved_tied_comes_back_tied(tmp_path):
    model, path = Language(), tmp_path / "m.safetensors"
    save_model(model, path, {"format": "pt"})
    assert len(in_file(path) & {"embedding.weight", *TIED}) < 4
    came = nx.load(path, library="torch")
    assert came.keys() == model.state_dict().keys()
    assert came["head.weight"] is came["embedding.weight"]
    quantize_file(path, tmp_path / "q.safetensors", "mxfp4")
    packed = nx.load(tmp_path / "q.safetensors")
    assert packed.keys() == model.state_dict().keys()
    assert packed["head.weight"] is packed["embedding.weight"]


def test_a_file_that_ties_and_one_that_does_not_are_the_same(tmp_path, tied):
    came = nx.load(tied)
    nx.save({name: np.array(x) for name, x in came.items()}, tmp_path / "untied.safetensors")
    assert compare(tied, tmp_path / "untied.safetensors").same
    assert compare(tmp_path / "untied.safetensors", tied).same


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "cannot be read"), ("{", "cannot be read"), ('{"a": 1}', "cannot be read"),
        ('{"a": "x"} 1', "cannot be read"), ('{"a": "x", "a": "x"}', "cannot be read"),
        ('{"a": "gone"}', "'gone', which is not in it"), ('{"a": "b", "b": "x"}', "'b', which is not in it"),
        ('{"x": "x"}', "two tensors"), ('{"__metadata__": "x"}', "two tensors"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [nx.load, load_any])
def test_a_file_that_lies_about_ties_is_refused_by_name(tmp_path, text, said, read):
    path = tmp_path / "lie.safetensors"
    with Writer(path, {"x": Entry("F32", (1,))}, {KEY: text}) as writer:
        writer.put("x", 0, np.ones(1, np.float32))
    with pytest.raises(NumericsError, match=f"lie.safetensors.*{said}"):
        read(path)


def test_the_header_says_what_is_tied(tied):
    with safe_open(tied, "pt") as file:
        assert json.loads(file.metadata()[KEY]) == {"head.weight": "emb.weight"}
