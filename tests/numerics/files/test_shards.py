"""What a checkpoint has, and every way in which its index or its shards may lie."""

from __future__ import annotations

import json
import time

import pytest

import numerics as nx
from numerics.checkpoints import Source
from numerics.files.safetensors import Entry, header_bytes, placed
from tests.helpers.shards import INDEX, tensors_of, write_shards


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "model", tensors_of(), 4)


def changed(folder, change):
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def test_a_folder_an_index_and_a_file_are_checkpoints(folder, tmp_path):
    whole = tensors_of()
    for path in (folder, folder / INDEX):
        source = Source(path)
        assert source.folder
        assert source.entries.keys() == whole.keys()
        assert all(source.entries[name].shape == x.shape for name, x in whole.items())
        assert not source.not_copied
        assert [file.name for file in source.beside] == ["config.json", "tokenizer.json"]
    nx.save(whole, tmp_path / "one.safetensors")
    assert Source(tmp_path / "one.safetensors").entries.keys() == whole.keys()
    assert not Source(tmp_path / "one.safetensors").folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(ghost="model-00001-of-00004.safetensors"), "lies: 'ghost' should be in"),
        (lambda m: m.pop("lm_head.weight"), "lies: 'lm_head.weight' is in .* it does not name it"),
        (
            lambda m: m.update({"lm_head.weight": "model-00001-of-00004.safetensors"}),
            "lies: 'lm_head.weight'",
        ),
        (lambda m: m.update(ghost="model-00009-of-00004.safetensors"), "cannot read .*00009.*No such file"),
        (lambda m: m.update(ghost="../../etc/x.safetensors"), "is no shard here"),
        (lambda m: m.update(ghost="config.json"), "is no shard here"),
        (lambda m: m.clear(), "has no weight_map"),
    ],
)
def test_an_index_that_lies_is_refused(folder, change, said):
    changed(folder, change)
    with pytest.raises(nx.NumericsError, match=said):
        Source(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}', "{" * 5000])
def test_an_index_that_is_none_is_refused(folder, text):
    (folder / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(nx.NumericsError, match="is no index"):
        Source(folder)


def test_a_truncated_shard_is_named(folder):
    shard = folder / "model-00003-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(nx.NumericsError, match=f"{shard} is not a whole safetensors file"):
        Source(folder)


def test_a_tensor_of_two_shards_is_refused_without_an_index_too(folder):
    (folder / INDEX).unlink()
    with pytest.raises(nx.NumericsError, match=r"has 4 .safetensors files and no index"):
        Source(folder)
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    with pytest.raises(nx.NumericsError, match=r"has no .safetensors file"):
        Source(folder)


def test_a_quantized_shard_is_refused(folder):
    shard = folder / "model-00002-of-00004.safetensors"
    held = {name: nx.quantize(x, "int8") if x.ndim > 1 else x for name, x in nx.load(shard).items()}
    nx.save(held, shard)
    with pytest.raises(nx.NumericsError, match=f"{shard} was quantized already"):
        Source(folder)


def test_a_thousand_headers_are_read_in_seconds(tmp_path):
    """Nothing but headers: the tensors of these files are holes of 400 GB in all."""
    places = {}
    for k in range(1000):
        entries = placed({f"l.{k}.{j}.weight": Entry("F32", (1024, 10240)) for j in range(10)})
        name = f"model-{k + 1:05d}-of-01000.safetensors"
        header = header_bytes(entries, {})
        with open(tmp_path / name, "wb") as file:
            file.write(header)
            file.truncate(len(header) + max(e.stop for e in entries.values()))
        places |= dict.fromkeys(entries, name)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    start = time.process_time()
    assert len(Source(tmp_path).entries) == 10_000
    assert time.process_time() - start < 10  # two on a machine that does nothing else


def test_numbers_beside_tensors_are_counted(folder):
    source = Source(folder)
    assert source.nbytes == sum(shard.path.stat().st_size for shard in source.shards)
    assert len({shard.header for shard in source.shards}) == 4
