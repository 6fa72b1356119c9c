"""Hostile files of every foreign kind: an error of ours or tensors, nothing else, and little memory."""

from __future__ import annotations

import json
import os
import re
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.checkpoints.gguf_file import GGUFFile, GGUFWriter, value_of_text
from numerics.checkpoints.loading import OpenedSafetensors, load, open_any
from numerics.files.safetensors import Entry, Writer
from numerics.interop import to_gguf

MUTATIONS = int(os.environ.get("NUMERICS_TEST_MUTATIONS", "150"))
RNG = np.random.default_rng(1)
MOST = 64 << 20  # bytes that a file of some kilobytes may take
FOREIGN = {
    "gpt-oss": {"e_blocks": ("U8", (2, 4, 2, 16)), "e_scales": ("U8", (2, 4, 2))},
    "deepseek": {"l.weight": ("F8_E4M3", (40, 48)), "l.weight_scale_inv": ("F32", (1, 1))},
    "nvfp4": {"l.weight_packed": ("U8", (8, 32)), "l.weight_scale": ("F8_E4M3", (8, 4)),
              "l.weight_global_scale": ("F32", (1,))},
    "modelopt": {"l.weight": ("U8", (8, 32)), "l.weight_scale": ("F8_E4M3", (8, 4)),
                 "l.weight_scale_2": ("F32", ())},
    "mxfp4": {"l.weight_packed": ("U8", (8, 32)), "l.weight_scale": ("U8", (8, 2))},
    "words": {"l.weight_packed": ("I32", (8, 8)), "l.weight_scale": ("BF16", (8, 2)),
              "l.weight_shape": ("I64", (2,)), "l.weight_zero_point": ("I32", (1, 2)),
              "l.weight_g_idx": ("I32", (64,))},
    "gptq": {"l.qweight": ("I32", (8, 64)), "l.qzeros": ("I32", (1, 8)), "l.scales": ("F16", (1, 64)),
             "l.g_idx": ("I32", (64,))},
    "awq": {"l.qweight": ("I32", (64, 8)), "l.qzeros": ("I32", (1, 8)), "l.scales": ("F16", (1, 64))},
    "F4": {"l.weight": ("F4", (8, 64)), "l.weight_scale": ("F8_E8M0", (8, 2))},
    "F6": {"l.weight": ("F6_E2M3", (8, 64)), "l.weight_scale": ("F8_E8M0", (8, 2))},
    "torchao": {"l._weight_qdata": ("I8", (8, 64)), "l._weight_scale": ("F32", (8, 2)),
                "l._weight_zero_point": ("I8", (8, 2))},
    "torchao-mx": {"l._weight_qdata": ("U8", (8, 32)), "l._weight_scale": ("F8_E8M0", (8, 2))},
    "torchao-fp8": {"l._weight_qdata": ("F8_E4M3", (8, 64)), "l._weight_scale": ("F32", (8, 1))},
}  # fmt: skip


def told_by_torchao(kind, **facts):
    """What the header of a file of torchao's says of one weight."""
    wide = {"_type": "torch.dtype", "_data": "bfloat16"}
    facts = {"block_size": [1, 32], "dtype": wide, "orig_dtype": wide, "act_quant_kwargs": None, **facts}
    names = ["qdata", "scale", "zero_point"][: 3 if kind == "Int8Tensor" else 2]
    said = {"_type": kind, "_data": facts, "_tensor_data_names": names}
    return {"tensor_names": '["l.weight"]', "l.weight": json.dumps(said)}


SAID = {
    "torchao": told_by_torchao("Int8Tensor"),
    "torchao-mx": told_by_torchao(
        "MXTensor", block_size=32, elem_dtype={"_type": "torch.dtype", "_data": "float4_e2m1fn_x2"},
        is_swizzled_scales=False,
    ),
    "torchao-fp8": told_by_torchao("Float8Tensor", block_size=[1, 64]),
}  # fmt: skip


def safetensors_of(path, tensors, said=None):
    entries = {name: Entry(*facts) for name, facts in tensors.items()}
    with Writer(path, entries, said or {}) as writer:
        for name, entry in entries.items():
            data = RNG.integers(0, 256, entry.nbytes).astype(np.uint8)
            if name.endswith("weight_shape"):
                data = np.int64([8, 64]).view(np.uint8)
            writer.put(name, 0, data)
    return path


def made(kind, folder):
    """A whole file of a kind, and how many bytes of it say what it is."""
    path = folder / f"whole.{kind}"
    if kind in FOREIGN:
        data = safetensors_of(path, FOREIGN[kind], SAID.get(kind)).read_bytes()
        return data, 8 + int.from_bytes(data[:8], "little")
    if kind == "gguf":
        x = RNG.standard_normal((4, 128)).astype(np.float32)
        tensors = {"a": ("NVFP4", (4, 128)), "b": ("F32", (4, 128)), "c": ("Q4_1", (4, 64))}
        head = 2, value_of_text("general.architecture", "x") + value_of_text("y", "z")
        with GGUFWriter(path, head, tensors) as writer:
            writer.put("a", to_gguf(nx.quantize(x, "nvfp4")))
            writer.put("b", x)
            writer.put("c", np.ones((4, 40), np.uint8))
        return path.read_bytes(), GGUFFile(path)._begin
    if kind == "pth":
        torch.save({"state_dict": {"w": torch.ones(4, 8), "v": torch.ones(3, dtype=torch.bfloat16)}}, path)
    else:
        onnx = pytest.importorskip("onnx")
        tensors = [onnx.numpy_helper.from_array(np.ones((4, 8), np.float32), "w")]
        graph = onnx.helper.make_graph([], "g", [], [], tensors)
        onnx.save(onnx.helper.make_model(graph, producer_name="test"), path)
    data = path.read_bytes()
    return data, len(data)


def damaged(data, told, rng):
    """Numbers that lie, digits of a header changed, bytes cut off or put in."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(min(told, len(found)), 1)))
        way = rng.integers(0, 5)
        if way == 0 and at < len(found):
            found[at] = int(rng.integers(256))
        elif way == 1:
            found[at : at + 8] = int(rng.integers(0, 1 << 62)).to_bytes(8, "little")
        elif way == 2:
            del found[at:]
        elif way == 3:
            found[at:at] = bytes(rng.integers(0, 256, rng.integers(1, 9)).astype(np.uint8))
        else:
            digits = [k for k in range(min(told, len(found))) if 48 <= found[k] <= 57]
            if digits:
                found[int(rng.choice(digits))] = int(rng.integers(48, 58))
    return bytes(found)


def memory_from_now():
    """kB of this process; the most that it had is forgotten, which other tests of it may have been."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return most_memory()


def most_memory():
    """kB that this process has had at most since then; 0 where no file says it."""
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


@pytest.mark.turns(6)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*FOREIGN, "gguf", "pth", "onnx"])
def test_a_damaged_file_gives_tensors_or_an_error_that_names_it(tmp_path, kind):
    data, told = made(kind, tmp_path)
    rng, path = np.random.default_rng(len(kind)), tmp_path / f"m.{kind}"
    refused = taken = 0
    tracemalloc.start()
    before = memory_from_now()
    for _ in range(MUTATIONS):
        path.write_bytes(damaged(data, told, rng))
        try:
            for x in load(path).values():
                if isinstance(x, nx.QTensor):
                    x.dequantize("float32")
            taken += 1
        except nx.NumericsError:
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused + taken == MUTATIONS
    assert refused > MUTATIONS // 10
    assert peak < MOST, f"{peak:,}"
    assert most_memory() - before < 4 << 20  # kB


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_that_lies_is_ignored_or_refused(tmp_path):
    for kind in ("words", "gptq", "deepseek"):
        path = safetensors_of(tmp_path / "m.safetensors", FOREIGN[kind])
        for value in (-1, 0, 1 << 70, "x", None, [], [0, 0], [1 << 40, 1 << 40], {"a": 1}, True, 3.5, 1e308):
            for key in ("bits", "num_bits", "group_size", "checkpoint_format", "weight_block_size"):
                said = {
                    "quantization_config": {key: value, "config_groups": {"g": {"weights": {key: value}}}}
                }
                (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
                try:
                    load(path)
                except nx.NumericsError as wrong:
                    assert "l.weight" in str(wrong)  # noqa: PT017 - either may be


def test_a_folder_may_say_anything_of_itself(tmp_path):
    safetensors_of(tmp_path / "m.safetensors", FOREIGN["F4"])
    groups = '{"quantization_config": {"config_groups": {"a": 1}}}'
    for text in ("[]", "{", '{"quantization_config": 3}', groups,
                 '{"torch_dtype": {}}', "[" * 10_000):  # fmt: skip
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert isinstance(load(tmp_path)["l.weight"], nx.QTensor)


def test_what_is_no_file_of_tensors_is_named(tmp_path):
    for name, data in {
        "a": b"",
        "b": b"hello" * 9,
        "c": b"GGUF",
        "d": b"\x80\x02}q\x00.",
        "e": b"<html>",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(nx.NumericsError, match=f"{tmp_path / name}"):
            load(tmp_path / name)
    with pytest.raises(nx.NumericsError, match="No such file"):
        load(tmp_path / "missing")


def test_a_header_of_some_lengths_made_a_pickle_of_the_file(tmp_path):
    """640 bytes begin as a pickle does, and torch.load reads such files: codes came in place of QTensors."""
    path, lengths = tmp_path / "a.safetensors", set()
    q = nx.quantize(np.ones((4, 64), np.float32), "int8")
    for longer in range(160):
        nx.save({"w" + "x" * longer: q}, path)
        length = int.from_bytes(path.read_bytes()[:8], "little")
        lengths.add(length)
        (x,) = load(path).values()
        assert isinstance(x, nx.QTensor), length
    assert {0x380, 0x480, 0x580} <= lengths
    for begun in (640, 896, 8, 0x108, 0x50, 0x550):  # plain ones, of pickles' and other kinds' first bytes
        text = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).ljust(begun)
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + b"\1")
        assert isinstance(open_any(path), OpenedSafetensors)


def test_small_floats_that_stay_codes_could_not_come_as_tensors(tmp_path):
    every = np.arange(256, dtype=np.uint8)
    entries = {name: Entry(name, (256,)) for name in ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ")}
    entries |= {"F4": Entry("F4", (512,)), "BF16": Entry("BF16", (128,)), "F6_E2M3": Entry("F6_E2M3", (64,))}
    with Writer(tmp_path / "a.safetensors", entries, {}) as writer:
        for name, entry in entries.items():
            writer.put(name, 0, every[: entry.nbytes])
    came = load(tmp_path / "a.safetensors", library="torch")
    assert came["F8_E4M3"].dtype == torch.float8_e4m3fn
    assert came["F8_E8M0"].dtype == torch.float8_e8m0fnu
    assert came["BF16"].dtype == torch.bfloat16
    for name in ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "BF16"):
        assert came[name].view(torch.uint8).numpy().tobytes() == every.tobytes(), name
    assert came["F4"].tolist()[:4] == [0, 0, 1, 0]


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT4",
                                  "UINT4", "INT2", "UINT2", "BOOL", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ",
                                  "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "FLOAT4E2M1", "FLOAT6E2M3",
                                  "FLOAT6E3M2"])  # fmt: skip
def test_every_byte_of_every_type_of_onnx_is_what_onnx_reads(tmp_path, kind):
    onnx = pytest.importorskip("onnx")
    number = getattr(onnx.TensorProto, kind, None)
    if number is None:
        pytest.skip(f"this onnx has no {kind}")
    wide = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)).itemsize
    raw = np.arange(256, dtype=np.uint8).repeat(wide) & (1 if kind == "BOOL" else 255)
    packed = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}.get(kind, 1)
    tensor = onnx.TensorProto(name="w", data_type=number, dims=[2, 128 * packed], raw_data=raw.tobytes())
    path = tmp_path / "a.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor])), path)
    came, due = load(path)["w"], onnx.numpy_helper.to_array(tensor)
    assert (came.dtype, came.shape, came.tobytes()) == (due.dtype, due.shape, due.tobytes())
