"""GGUF files against the gguf package: read as it reads them, written so that it reads them."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("gguf")
import gguf

import numerics as nx
from numerics.checkpoints.converting import convert
from numerics.checkpoints.gguf_file import NUMBERS, TYPES, GGUFFile, GGUFWriter, value_of_text
from numerics.checkpoints.loading import load
from numerics.interop import to_gguf
from tests.helpers.bits import assert_same_bits

RNG = np.random.default_rng(3)
DECODED = [
    "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K", "Q2_K", "Q3_K", "Q5_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0",
]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    """A file that the package wrote, of every type, with values of all kinds."""
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_string("general.name", "näme")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"] * 50)
    writer.add_array("numbers", [1, 2, 3])
    writer.add_float32("rope", 0.5)
    tensors = {"F32": RNG.standard_normal((3, 64)).astype(np.float32), "F16": np.ones((2, 5), np.float16),
               "I32": np.arange(6, dtype=np.int32)}  # fmt: skip
    for name, x in tensors.items():
        writer.add_tensor(name, x)
    x = RNG.standard_normal((4, 512)).astype(np.float32)
    for name in ("Q8_0", "Q4_0", "MXFP4"):
        kind = gguf.GGMLQuantizationType[name]
        tensors[name] = gguf.quants.quantize(x, kind)
        writer.add_tensor(name, tensors[name], raw_dtype=kind)
    for name in DECODED:
        kind = gguf.GGMLQuantizationType[name]
        _, values, size = TYPES[NUMBERS[name]]
        tensors[name] = RNG.integers(0, 120, (4, 512 // values * size)).astype(np.uint8)
        writer.add_tensor(name, tensors[name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, tensors


def test_every_type_has_the_sizes_of_the_package():
    for number, (name, values, size) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, values, size)


@pytest.mark.filterwarnings("ignore:.*came as no QTensor")
def test_a_file_is_read_as_the_package_reads_it(file):
    path, tensors = file
    found = load(path)
    assert found.keys() == tensors.keys()
    for tensor in gguf.GGUFReader(str(path)).tensors:
        kind, came = tensor.tensor_type, found[tensor.name]
        if tensor.name in ("F32", "F16", "I32"):
            assert came.tobytes() == tensors[tensor.name].tobytes()
            assert came.shape == tensors[tensor.name].shape
            continue
        with np.errstate(all="ignore"):
            due = gguf.quants.dequantize(np.array(tensor.data), kind)
        assert isinstance(came, nx.QTensor) == (tensor.name not in DECODED)
        ours = came.dequantize() if isinstance(came, nx.QTensor) else came
        assert_same_bits(ours + np.float32(0), due + np.float32(0))  # ggml reads MXFP4's -0 as 0


def file_of(path, kind, blocks, **others):
    """A file that the package wrote: one tensor `w.weight`, [rows, bytes], and float32 beside it."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tensor("w.weight", blocks, raw_dtype=gguf.GGMLQuantizationType[kind])
    for name, x in others.items():
        writer.add_tensor(f"w.{name}", np.float32(x))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


HALVES = {  # where in a block ggml has scales in float16
    "Q4_0": [0], "Q8_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
}  # fmt: skip


def every_scale(kind):
    """Random bytes under all 65,536 scales; of MXFP4 and NVFP4 every byte under every scale byte."""
    _, _, size = TYPES[NUMBERS[kind]]
    if kind in ("MXFP4", "NVFP4"):
        scale = 1 if kind == "MXFP4" else 4
        scales = np.repeat(np.arange(256, dtype=np.uint8), 256 // (size - scale))
        codes = np.tile(np.arange(256, dtype=np.uint8).reshape(-1, size - scale), (256, 1))
        return np.concatenate((np.repeat(scales[:, None], scale, axis=1), codes), axis=1)
    blocks = RNG.integers(0, 256, (1 << 16 if kind in HALVES else 1 << 12, size)).astype(np.uint8)
    for at in HALVES.get(kind, []):
        blocks[:, at : at + 2] = np.arange(1 << 16, dtype="<u2").view(np.uint8).reshape(-1, 2)
    return blocks


@pytest.mark.turns
@pytest.mark.filterwarnings("ignore:.*came as no QTensor")
@pytest.mark.parametrize("kind", sorted(name for name, values, _ in TYPES.values() if values > 1))
def test_every_scale_of_every_type_is_what_the_package_reads(kind, tmp_path):
    blocks = every_scale(kind)
    if kind == "MXFP4":  # those of no QTensor are another test's
        blocks = blocks[blocks[:, 0] != 255]
    if kind == "NVFP4":
        blocks = blocks[blocks[:, 0] < 127]
    came = load(file_of(tmp_path / "a.gguf", kind, blocks))["w.weight"]
    with np.errstate(all="ignore"):
        due = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    assert isinstance(came, nx.QTensor) == (kind in ("Q4_0", "Q8_0", "MXFP4", "NVFP4"))
    came = (came.dequantize() if isinstance(came, nx.QTensor) else came) + np.float32(0)
    lost = np.isnan(due)
    assert_same_bits(np.where(lost, 0, came), np.where(lost, 0, due + np.float32(0)))
    assert np.isnan(came[lost]).all()


UNFIT = {
    "a scale of NaN": ("MXFP4", 255, None, "64 values would change: blocks of NaN"),
    "a scale below zero": ("NVFP4", 200, None, "scales are NaN or below zero"),
    "NaN for a tensor scale": ("NVFP4", 56, [np.nan], "tensor_scale=nan is not a positive"),
    "a tensor scale of zero": ("NVFP4", 56, [0.0], "tensor_scale=0 is not a positive"),
    "one a matrix": ("NVFP4", 56, [2.0, 3.0], "it has 2 tensor scales, one a matrix"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_one_tensor_of_scales_that_no_qtensor_has_failed_the_whole_file(name, tmp_path):
    """Its values come as the package decodes them, and a GGUF file takes its bytes as they are."""
    kind, byte, scale, why = UNFIT[name]
    blocks = every_scale(kind)[:16].copy()
    blocks[3:5, 0] = byte
    if scale is not None and len(scale) > 1:
        blocks = blocks.reshape(2, 8, -1)
    path = file_of(tmp_path / "a.gguf", kind, blocks, **({} if scale is None else {"scale": scale}), bias=[1])
    with pytest.warns(nx.NumericsWarning, match=why):
        found = load(path)
    with np.errstate(all="ignore"):
        due = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
        due = due * np.float32(1 if scale is None else scale).reshape(-1, *[1] * (blocks.ndim - 1))
    assert found.keys() == {"w.weight", "w.bias"}
    lost = np.isnan(due)
    assert_same_bits(np.where(lost, 0, found["w.weight"]), np.where(lost, 0, due))
    convert(str(path), str(tmp_path / "b.gguf"), "gguf")
    before, after = (GGUFFile(file) for file in (path, tmp_path / "b.gguf"))
    assert before.entries.keys() == after.entries.keys()
    assert all(before.raw(part).tobytes() == after.raw(part).tobytes() for part in before.entries)


def test_a_scale_that_is_none_of_a_tensor_was_lost(tmp_path):
    found = load(file_of(tmp_path / "a.gguf", "NVFP4", every_scale("NVFP4")[:8], scale=[1.0, 2.0, 3.0]))
    assert found.keys() == {"w.weight", "w.scale"}


def test_the_way_that_an_error_names_leads_to_the_values(file, tmp_path):
    with pytest.raises(nx.NumericsError, match=r"GGUF file; numerics.checkpoints.loading.load reads it, `nu"):
        nx.load(file[0])
    q = nx.quantize(RNG.standard_normal((4, 128)).astype(np.float32), "mxfp4")
    with GGUFWriter(
        tmp_path / "a.gguf", (1, value_of_text("general.architecture", "llama")), {"w": ("MXFP4", (4, 128))}
    ) as writer:
        writer.put("w", to_gguf(q))
    convert(str(tmp_path / "a.gguf"), str(tmp_path / "a.safetensors"), "numerics")
    assert_same_bits(nx.load(tmp_path / "a.safetensors")["w"].dequantize(), q.dequantize())


def test_what_is_written_is_read_by_the_package(tmp_path):
    x = RNG.standard_normal((4, 128)).astype(np.float32)
    q = nx.quantize(x, "nvfp4")
    path = tmp_path / "a.gguf"
    head = 1, value_of_text("general.architecture", "llama")
    with GGUFWriter(
        path, head, {"w.weight": ("NVFP4", (4, 128)), "w.scale": ("F32", (1,)), "b": ("F32", (4, 128))}
    ) as writer:
        writer.put("b", x)
        writer.put("w.weight", to_gguf(q))
        writer.put("w.scale", np.float32([q.tensor_scale]))
    reader = gguf.GGUFReader(str(path))
    assert reader.fields["general.architecture"].contents() == "llama"
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert np.array(tensors["b"].data).tobytes() == x.tobytes()
    assert np.array(tensors["w.weight"].data).tobytes() == to_gguf(q).tobytes()
    found = load(path)
    assert found.keys() == {"w.weight", "b"}
    assert_same_bits(found["w.weight"].dequantize(), q.dequantize())


def test_the_head_of_a_file_is_kept_byte_for_byte(file, tmp_path):
    path, _ = file
    opened = GGUFFile(path)
    with GGUFWriter(tmp_path / "b.gguf", opened.head(), {"x": ("F32", (2,))}) as writer:
        writer.put("x", np.ones(2, np.float32))
    first, second = (gguf.GGUFReader(str(p)) for p in (path, tmp_path / "b.gguf"))
    names = [name for name in first.fields if not name.startswith("GGUF.")]
    assert [name for name in second.fields if not name.startswith("GGUF.")] == names
    for name in names:
        assert first.fields[name].contents() == second.fields[name].contents()


@pytest.mark.turns(6)
@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_refused_in_words(file, tmp_path, seed):
    """Bytes changed in what a file says of itself, and files cut short: errors of ours, or tensors."""
    path, _ = file
    data, rng = path.read_bytes(), np.random.default_rng(seed)
    end = GGUFFile(path)._begin
    out = tmp_path / "b.gguf"
    refused = 0
    for _ in range(250):
        damaged = bytearray(data if rng.random() < 0.8 else data[: rng.integers(1, len(data))])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, min(end, len(damaged))))
            damaged[at] = int(rng.choice([0, 1, 0x7F, 0xFF, int(rng.integers(256))]))
        out.write_bytes(damaged)
        with suppress(nx.NumericsError):
            opened = GGUFFile(out)
            for name in opened.entries:
                opened.raw(name)
            refused -= 1
        refused += 1
    assert refused > 50


@pytest.mark.turns(6)
@pytest.mark.filterwarnings("ignore:.*came as no QTensor:numerics.NumericsWarning")
@pytest.mark.parametrize("shape", [(0, 256), (0, 3, 256), (3, 0, 256), (3, 0), (0, 0), (0,)], ids=str)
@pytest.mark.parametrize("kind", sorted({name for name, _, _ in TYPES.values()}))
def test_a_tensor_without_numbers_was_a_fault_of_the_program(kind, shape, tmp_path):
    """The package cuts no blocks of nothing."""
    with GGUFWriter(tmp_path / "a.gguf", (0, b""), {"w.weight": (kind, shape)}) as writer:
        writer.put("w.weight", np.zeros(0, np.uint8))
    found = load(tmp_path / "a.gguf")["w.weight"]
    assert tuple(found.shape) == shape
    if hasattr(found, "dequantize"):
        assert found.dequantize().shape == shape
    convert(str(tmp_path / "a.gguf"), str(tmp_path / "a.safetensors"), "numerics")
    assert tuple(nx.load(tmp_path / "a.safetensors")["w.weight"].shape) == shape
