"""From any kind to any other: the values stay, and what does not fit is refused."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

import numerics as nx
from numerics.checkpoints import Request, converting, quantize
from numerics.checkpoints.converting import Running, convert, dequantize
from numerics.checkpoints.loading import OpenedSafetensors, load
from numerics.checkpoints.looking import compare, inspect
from numerics.checkpoints.ranks import Ranks
from numerics.cli import commands
from numerics.files.safetensors import Reader
from tests.helpers.bits import assert_same_bits
from tests.helpers.checkpoint_jobs import kill_at_a_name, kill_until_done, run_ranks, started
from tests.helpers.children import LIMIT
from tests.helpers.disks import fill_up
from tests.helpers.executors import LONG
from tests.helpers.shards import INDEX, contents, tensors_of, write_shards

RNG = np.random.default_rng(11)
HALF = {"scheme": "per_group(32)", "scale_type": "float16"}
FORMATS = {
    "safetensors": ["mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "nvfp4", "fp8_e4m3"],
    "numerics": ["mxfp4", "mx6", "mx9", "nvfp4", "int3", "fp6_e2m3", "int16", "mxfp8_e5m2"],
    "compressed-tensors": ["mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "nvfp4", "fp8_e4m3", "int8", "int4", "int3"],
    "gguf": ["mxfp4", "nvfp4"],
}
CASES = [(to, nx.QuantSpec(name)) for to, names in FORMATS.items() for name in names]
CASES += [("gguf", nx.QuantSpec(name, **HALF)) for name in ("int8", "int4")]
CASES += [("compressed-tensors", nx.QuantSpec("int4", scheme="per_group(32)", symmetric=False))]


@pytest.mark.parametrize(("to", "spec"), CASES)
def test_the_values_stay_there_and_back(tmp_path, to, spec):
    x = RNG.standard_normal((16, 128)).astype(np.float32)
    given = {"l.weight": nx.quantize(x, spec), "b": np.ones(3, np.float32)}
    first, there, back = (tmp_path / name for name in ("a.safetensors", "there", "back.safetensors"))
    nx.save(given, first)
    found = convert(first, there, to)
    assert (found.quantized, found.plain, found.left) == (["l.weight"], ["b"], {})
    came = load(there)
    assert came.keys() == given.keys()
    q = came["l.weight"]
    assert q.format is spec.dtype
    assert q.codes.tobytes() == given["l.weight"].codes.tobytes()
    if spec.dtype is nx.nvfp4 and to == "compressed-tensors":  # which has the inverse of the tensor scale
        assert q.scale.tobytes() == given["l.weight"].scale.tobytes()
    else:
        assert_same_bits(q.dequantize("float32"), given["l.weight"].dequantize())
    convert(there, back if to != "compressed-tensors" else tmp_path / "folder", "numerics")


def test_a_tensor_scale_without_an_inverse_was_off_in_silence(tmp_path):
    """compressed-tensors divides by NVFP4's tensor scale: one in seven is the inverse of no float32."""
    scales = np.float32([1 / 3, 0.7, 1.5, 0.0072, 1.9999999, 0.25])
    q = nx.quantize(RNG.standard_normal((16, 32)).astype(np.float32), "nvfp4")
    given = {
        f"l{k}.weight": nx.QTensor.from_parts(q.spec, q.codes, q.scale, tensor_scale=float(scale))
        for k, scale in enumerate(scales)
    }
    nx.save(given, tmp_path / "a.safetensors")
    found = convert(tmp_path / "a.safetensors", tmp_path / "b", "compressed-tensors")
    came = load(tmp_path / "b")
    differ = {name for name, due in given.items() if came[name].tensor_scale != due.tensor_scale}
    assert differ
    assert found.rounded.keys() == differ
    for name, off in found.rounded.items():
        assert off == abs(came[name].tensor_scale / given[name].tensor_scale - 1) < 2**-23
    assert "not exact: " in found.notes[0]


def test_a_format_that_the_target_lacks_is_refused_and_nothing_written(tmp_path):
    x = RNG.standard_normal((16, 128)).astype(np.float32)
    for to, spec in (
        ("safetensors", "mx6"),
        ("gguf", "mx6"),
        ("compressed-tensors", "mx9"),
        ("gguf", "int8"),
    ):
        nx.save({"l.weight": nx.quantize(x, spec)}, tmp_path / "a.safetensors")
        out = tmp_path / f"{to}-{spec}"
        with pytest.raises(nx.NumericsError, match=r"l\.weight"):
            convert(tmp_path / "a.safetensors", out, to)
        assert not out.exists() or contents(out) == {}


def test_experts_in_one_parameter_are_no_layers_of_compressed_tensors(tmp_path):
    """What was refused as none by its name, and was to be left in float, though the file has no floats."""
    blocks, scales = RNG.integers(0, 256, (4, 64, 2, 16)).astype(np.uint8), np.full((4, 64, 2), 120, np.uint8)
    nx.save({"l.gate_up_proj_blocks": blocks, "l.gate_up_proj_scales": scales}, tmp_path / "oss.safetensors")
    due = "cannot store l.gate_up_proj: it stores a matrix a layer, and this parameter holds 4 of them"
    with pytest.raises(nx.NumericsError, match=f"{due}.*transformers and vLLM read gpt-oss as it is"):
        convert(tmp_path / "oss.safetensors", tmp_path / "a", "compressed-tensors")
    q = load(tmp_path / "oss.safetensors")["l.gate_up_proj"]
    nx.save({"l.gate_up_proj": q, "l.q": q[0]}, tmp_path / "ours.safetensors")
    with pytest.raises(nx.NumericsError, match=f"{due}.*--to numerics") as refused:
        convert(tmp_path / "ours.safetensors", tmp_path / "a", "compressed-tensors")
    assert "gpt-oss" not in str(refused.value)
    nx.save({"l.q": q[0]}, tmp_path / "ours.safetensors")
    with pytest.raises(nx.NumericsError, match=r"cannot store l\.q: .* none by its name"):
        convert(tmp_path / "ours.safetensors", tmp_path / "a", "compressed-tensors")
    nx.save({"l.weight": q[0]}, tmp_path / "expert.safetensors")  # of one expert the bytes are those of both
    convert(tmp_path / "expert.safetensors", tmp_path / "b", "compressed-tensors")
    stored = Reader(tmp_path / "b" / "model.safetensors")
    assert stored.raw("l.weight_packed").tobytes() == blocks[0].tobytes()
    assert stored.raw("l.weight_scale").tobytes() == scales[0].tobytes()


def test_what_stays_codes_is_copied_as_it_is(tmp_path):
    tensors = {"l.weight": np.zeros((64, 64), np.int8), "l.weight_scale": np.ones((3, 5), np.float32)}
    nx.save(tensors, tmp_path / "a.safetensors")
    found = convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert "of no scheme" in found.left["l.weight"]
    a, b = (Reader(tmp_path / f"{name}.safetensors") for name in "ab")
    assert {name: a.raw(name).tobytes() for name in a.entries} == {n: b.raw(n).tobytes() for n in b.entries}
    with pytest.raises(nx.NumericsError, match="stays codes and cannot be stored"):
        convert(tmp_path / "a.safetensors", tmp_path / "c", "compressed-tensors")


def test_a_folder_of_shards_becomes_one_with_its_index(tmp_path):
    model = write_shards(tmp_path / "model", tensors_of(1), 3)
    quantize(model, tmp_path / "q", Request(nx.QuantSpec("mxfp4"), {"lm_head": None}))
    convert(tmp_path / "q", tmp_path / "ct", "compressed-tensors")
    index = json.loads((tmp_path / "ct" / INDEX).read_text(encoding="utf-8"))["weight_map"]
    assert index["model.layers.0.self_attn.q_proj.weight_packed"]
    config = json.loads((tmp_path / "ct" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["format"] == "mxfp4-pack-quantized"
    assert config["quantization_config"]["ignore"] == ["lm_head", "model.layers.0.input_layernorm"]
    ours, theirs = load(tmp_path / "q"), load(tmp_path / "ct")
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        if isinstance(x, nx.QTensor):
            assert_same_bits(theirs[name].dequantize("float32"), x.dequantize())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("spec", ["mxfp4", "int8:per_channel(0)", "fp8_e4m3:per_channel(0)"])
def test_transformers_loads_what_a_job_made_of_its_folder(tmp_path, spec):
    """File to file: no model is made here, and from_pretrained finds the values of the QTensors."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    from tests.helpers.transformers import bert, quiet

    model = bert()
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    name, _, scheme = spec.partition(":")
    asked = Request(
        nx.QuantSpec(name, scheme=scheme) if scheme else nx.QuantSpec(name), {"*embeddings*": None}
    )
    quantize(tmp_path / "model", tmp_path / "q", asked)
    convert(tmp_path / "q", tmp_path / "ct", "compressed-tensors")
    with quiet():
        loaded = transformers.AutoModel.from_pretrained(tmp_path / "ct")
    weights, due = dict(loaded.named_parameters()), load(tmp_path / "q", library="torch")
    quantized = 0
    for key, x in due.items():
        if isinstance(x, nx.QTensor):
            quantized += 1
            assert torch.equal(weights[key].float(), x.dequantize().float()), key
    assert quantized > 5


def test_gguf_keeps_what_a_gguf_file_says(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_string("general.name", "mine")
    x = RNG.standard_normal((4, 512)).astype(np.float32)
    for name in ("MXFP4", "Q4_K"):
        kind = gguf.GGMLQuantizationType[name]
        data = (
            gguf.quants.quantize(x, kind)
            if name == "MXFP4"
            else RNG.integers(0, 99, (4, 288)).astype(np.uint8)
        )
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "gguf")
    first, second = (gguf.GGUFReader(str(tmp_path / f"{name}.gguf")) for name in "ab")
    assert second.fields["general.name"].contents() == "mine"
    for a, b in zip(first.tensors, second.tensors, strict=True):
        assert (a.name, a.tensor_type, bytes(a.data)) == (b.name, b.tensor_type, bytes(b.data))


KINDS = {"Q4_0": 18, "Q8_0": 34, "MXFP4": 17, "Q4_1": 20, "Q5_0": 22, "Q4_K": 144}  # bytes of a block


@pytest.mark.parametrize("to", ["gguf", "numerics", "dequantize"])
def test_quantized_tensors_that_no_qtensor_holds_were_counted_as_others_or_not_at_all(tmp_path, to):
    """Of six three were told as others, or not at all: what was kept or lost was not said."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    for name, size in KINDS.items():
        blocks = np.zeros((4, 256 // (256 if name == "Q4_K" else 32) * size), np.uint8)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType[name])
    writer.add_tensor("norm", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source, out = tmp_path / "a.gguf", tmp_path / ("b.gguf" if to == "gguf" else "b.safetensors")
    found = dequantize(source, out) if to == "dequantize" else convert(source, out, to)
    unheld = [f"{name}.weight" for name in ("Q4_1", "Q5_0", "Q4_K")]
    assert found.plain == ["norm"]
    assert list(found.left) == (unheld if to == "gguf" else [])
    assert list(found.decoded) == (unheld if to == "numerics" else [])
    assert {*found.quantized, *found.left, *found.decoded} == {f"{name}.weight" for name in KINDS}
    kept = {"gguf": " (3 left as they were)", "numerics": " (3 decoded to floats)"}
    said = f"6 quantized tensors{kept[to]}, 1 other" if to in kept else "6 tensors dequantized, 1 copied"
    assert str(found) == said
    if to != "dequantize":
        done = CliRunner().invoke(
            commands, ["convert", str(source), str(tmp_path / f"c{out.suffix}"), "--to", to]
        )
        assert done.exit_code == 0, done.output
        told = [line for line in done.output.splitlines() if "Q4_K.weight" in line]
        (line,) = told
        assert "Q4_K has scales that no scheme here has" in line
        assert ("left as it was" if to == "gguf" else "--to gguf keeps the bytes") in line


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "MXFP4"])
def test_a_gguf_file_of_floats_becomes_what_ggml_makes_of_it(tmp_path, kind):
    gguf = pytest.importorskip("gguf")
    x = RNG.standard_normal((8, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    for name, values in (("w", x), ("half", x.astype(np.float16)), ("norm", x[0]), ("odd", x[:, :33].copy())):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "gguf", ggml=kind)
    assert set(found.made.values()) == {kind}
    assert str(found).startswith(f"0 quantized tensors, {len(found.made)} made {kind}, ")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(str(tmp_path / "b.gguf")).tensors}
    number = gguf.GGMLQuantizationType[kind]
    for name, values in (("w", x), ("half", x.astype(np.float16).astype(np.float32))):
        assert tensors[name].tensor_type == number
        assert bytes(tensors[name].data) == gguf.quants.quantize(values, number).tobytes()
    assert bytes(tensors["norm"].data) == x[0].tobytes()
    assert tensors["odd"].tensor_type.name == "F32"
    with pytest.raises(nx.NumericsError, match="belongs to to='gguf'"):
        convert(tmp_path / "a.gguf", tmp_path / "c", "safetensors", ggml=kind)


# ---- FP8 of DeepSeek's kind -------------------------------------------------------------------------


def fp8_folder(path, *, scheme="dynamic", lone=False):
    """A folder with an FP8 matrix of 192 x 256 in tiles of 128, of which the last rows are fewer."""
    q = nx.quantize(
        RNG.standard_normal((192, 256)).astype(np.float32), "fp8_e4m3", scheme="per_block((128, 128))"
    )
    tensors = {"l.weight": torch.from_numpy(q.codes).view(torch.float8_e4m3fn), "n.weight": torch.ones(256)}
    if not lone:
        tensors["l.weight_scale_inv"] = torch.from_numpy(q.scale)
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    said = {"quant_method": "fp8", "activation_scheme": scheme, "weight_block_size": [128, 128]}
    (path / "config.json").write_text(
        json.dumps({"torch_dtype": "bfloat16", "quantization_config": said}), encoding="utf-8"
    )
    (path / "tokenizer.json").write_text("{}", encoding="utf-8")
    return q


def test_tiles_with_fewer_rows_at_the_end_were_refused_for_compressed_tensors(tmp_path):
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    from compressed_tensors.quantization import QuantizationArgs

    q = fp8_folder(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "compressed-tensors")
    config = json.loads((tmp_path / "b/config.json").read_text(encoding="utf-8"))["quantization_config"]
    (group,) = config["config_groups"].values()
    args = QuantizationArgs(**group["weights"])
    x = load(tmp_path / "b", library="torch")["l.weight"]
    assert_same_bits(x.dequantize(torch.float32).numpy(), q.dequantize())
    made = forward.dequantize(
        x.codes.view(torch.float8_e4m3fn), x.scale, None, args=args, dtype=torch.float32
    )
    assert_same_bits(made.float().numpy(), q.dequantize())


def test_what_is_said_of_inputs_was_dropped_without_a_word(tmp_path):
    fp8_folder(tmp_path / "a")
    fp8_folder(tmp_path / "s", scheme="static")
    assert not convert(tmp_path / "a", tmp_path / "b", "compressed-tensors").notes
    config = json.loads((tmp_path / "b/config.json").read_text(encoding="utf-8"))["quantization_config"]
    inputs = config["config_groups"]["group_0"]["input_activations"]
    assert (inputs["dynamic"], inputs["strategy"], inputs["group_size"]) == (True, "group", 128)
    for source, target, to in (
        ("s", "t", "compressed-tensors"),
        ("a", "n", "numerics"),
        ("b", "m", "safetensors"),
    ):
        (note,) = convert(tmp_path / source, tmp_path / target, to).notes
        assert "how inputs are quantized" in note


def test_a_conversion_that_fails_left_an_empty_folder(tmp_path):
    x = nx.quantize(np.ones((4, 64), np.float32), "mx9")
    nx.save({"a": np.ones(3, np.float32), "l.weight": x}, tmp_path / "a.safetensors")
    (tmp_path / "there").mkdir()
    for target in ("made/deep", "there"):
        with pytest.raises(nx.NumericsError, match="mx9"):
            convert(tmp_path / "a.safetensors", tmp_path / target, "compressed-tensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "there"]
    assert not any((tmp_path / "there").iterdir())


def test_fp8_codes_without_their_scale_were_written_as_if_they_were_values(tmp_path):
    fp8_folder(tmp_path / "a", lone=True)
    for work in (lambda out: convert(tmp_path / "a", out, "compressed-tensors"),
                 lambda out: dequantize(tmp_path / "a", out)):  # fmt: skip
        with pytest.raises(nx.NumericsError, match=r"no scale beside it|no quantized tensors"):
            work(tmp_path / "b")
    (odd,) = [look.odd for look in inspect(tmp_path / "a") if look.name == "l.weight"]
    assert "no scale beside it" in odd[0]


def test_foreign_folders_could_not_be_dequantized_nor_so_requantized(tmp_path):
    q = fp8_folder(tmp_path / "a")
    assert dequantize(tmp_path / "a", tmp_path / "f").quantized == ["l.weight"]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == [
        "config.json", "model.safetensors", "numerics_job.json", "tokenizer.json",
    ]  # fmt: skip
    assert "quantization_config" not in json.loads((tmp_path / "f/config.json").read_text(encoding="utf-8"))
    came = load(tmp_path / "f", library="torch")
    due = torch.from_numpy(q.dequantize()).to(torch.bfloat16)
    assert came["l.weight"].dtype == torch.bfloat16
    assert torch.equal(came["l.weight"], due)
    quantize(tmp_path / "f", tmp_path / "m", Request(nx.QuantSpec("mxfp4")))
    assert dequantize(tmp_path / "m", tmp_path / "back").quantized == ["l.weight"]
    with pytest.raises(nx.NumericsError, match="nothing to dequantize"):
        dequantize(tmp_path / "f", tmp_path / "x")


def test_the_command_dequantize_refused_folders_and_files_of_other_tools(tmp_path):
    fp8_folder(tmp_path / "a")
    for source, out in (("a", "f"), ("a/model.safetensors", "f.safetensors"), ("f", "g")):
        came = CliRunner().invoke(commands, ["dequantize", str(tmp_path / source), str(tmp_path / out)])
        assert came.exit_code == (1 if out == "g" else 0), came.output
    assert load(tmp_path / "f.safetensors")["l.weight"].dtype.name == "bfloat16"
    assert not (tmp_path / "g").exists()


def test_a_file_was_read_a_time_more_to_see_whether_anything_is_quantized(tmp_path, monkeypatch):
    """All plain tensors before the first quantized one were built, and built again to be written."""
    nx.save({f"b{k}": np.ones(8, np.float32) for k in range(4)}, tmp_path / "plain.safetensors")
    kept = {f"b{k}": np.ones(8, np.float32) for k in range(4)} | {"w": nx.quantize(np.ones((2, 64)), "int8")}
    nx.save(kept, tmp_path / "some.safetensors")
    read = []
    once = OpenedSafetensors.tensor
    monkeypatch.setattr(OpenedSafetensors, "tensor", lambda self, name: read.append(name) or once(self, name))
    with pytest.raises(nx.NumericsError, match="holds no quantized tensors"):
        dequantize(tmp_path / "plain.safetensors", tmp_path / "out.safetensors")
    assert not read
    assert dequantize(tmp_path / "some.safetensors", tmp_path / "out.safetensors").quantized == ["w"]
    assert sorted(read) == sorted([*kept] * 2)  # for the header, and to be written


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 10**5])
def test_a_configuration_of_rubbish_ends_a_conversion_in_pythons_words(text, tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    nx.save({"w": nx.quantize(np.ones((4, 64), np.float32), "int8")}, path / "model.safetensors")
    (path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(nx.NumericsError, match=r"config.json (is not JSON|holds)"):
        convert(path, tmp_path / "b")
    assert not (tmp_path / "b").exists()


# ---- folders as jobs ------------------------------------------------------------------------------

CODE = """
import sys, time
from numerics.checkpoints.converting import Running, convert, dequantize
from numerics.checkpoints.ranks import Ranks
source, *asked = sys.argv[1:]
running = Running(lambda *told: [print(*told, flush=True), time.sleep(0.002)], Ranks.of_environment())
for target, to in zip(asked[::2], asked[1::2], strict=True):
    if to == "floats":
        dequantize(source, target, running=running)
    else:
        convert(source, target, to, running=running)
"""
TARGETS = ("numerics", "safetensors", "compressed-tensors", "floats")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A folder of shards of two formats, and one whose names are in each other's way."""
    room = tmp_path_factory.mktemp("quantized")
    tensors = tensors_of(3) | {"model.layers.0.mlp.up_proj.weight.scale": np.ones((64, 64), np.float32)}
    model = write_shards(room / "model", tensors, 6)
    asked = Request(nx.QuantSpec("mxfp4"), {"lm_head": None, "*.down_proj": nx.QuantSpec("nvfp4")})
    quantize(model, room / "q", asked)
    return room / "q"


def converted(source, target, to):
    return dequantize(source, target) if to == "floats" else convert(source, target, to)


def test_ranks_could_not_share_a_conversion(quantized, tmp_path):
    """The same bytes by 1, 2 and 4 processes; each does all conversions, one after the other.

    One of these imports torch, for which four more processes are not begun where tests may not take long.
    """
    for to in TARGETS:
        converted(quantized, tmp_path / f"{to} by 1", to)
    for world in (2, 4):
        asked = [(tmp_path / f"{to} by {world}", to) for to in TARGETS]
        asked = [one for one in asked if LONG or world == 2 or one[1] != "compressed-tensors"]
        run_ranks(CODE, quantized, *itertools.chain(*asked), world=world)
        for out, to in asked:
            due = contents(tmp_path / f"{to} by 1")
            assert contents(out) == due, to
            assert len([name for name in due if name.endswith(".safetensors")]) == 6


@pytest.mark.parametrize("to", ["numerics", pytest.param("compressed-tensors", marks=pytest.mark.long)])
def test_a_conversion_that_was_killed_began_anew(quantized, tmp_path, to):
    """Killed at moments that differ, until it is done: finished files are never touched again."""
    converted(quantized, tmp_path / "whole", to)
    out, rng = tmp_path / "out", np.random.default_rng(6)

    def wait(process, kills):
        for _ in range(rng.integers(1, 40)):
            process.stdout.readline()

    stamps = kill_until_done(lambda: started(CODE, quantized, out, to), out, wait, runs=12)
    converted(quantized, out, to)
    assert all((out / shard).stat().st_mtime_ns == stamp for shard, stamp in stamps.items())
    assert contents(out) == contents(tmp_path / "whole")
    assert converted(quantized, out, to) == converted(quantized, tmp_path / "whole", to)  # done before


def test_a_file_that_had_its_name_when_the_conversion_was_killed_was_made_anew(quantized, tmp_path):
    out = tmp_path / "out"
    kill_at_a_name(CODE, quantized, out, "numerics", before=False)
    (shard,) = out.glob("*.safetensors")
    stamp = shard.stat()
    kill_at_a_name(CODE, quantized, out, "numerics", before=True)
    assert list(out.glob("*.safetensors")) == [shard]
    assert convert(quantized, out).resumed == 1
    assert (shard.stat().st_mtime_ns, shard.stat().st_ino) == (stamp.st_mtime_ns, stamp.st_ino)
    convert(quantized, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_conversion_of_something_else_is_not_gone_on_with(quantized, tmp_path):
    def stop(name, done, total):
        if done == 8:
            raise LookupError

    out = tmp_path / "out"
    with pytest.raises(LookupError):
        convert(quantized, out, running=Running(stop))
    for other in (lambda: convert(quantized, out, "compressed-tensors"), lambda: dequantize(quantized, out)):
        with pytest.raises(nx.NumericsError, match="an unfinished job of another kind"):
            other()
    done = len(list(out.glob("*.safetensors")))
    assert convert(quantized, out).resumed == done > 0
    assert convert(quantized, out).resumed == len(list(quantized.glob("*.safetensors")))
    with pytest.raises(nx.NumericsError, match=r"another job \(another kind of output\)"):
        convert(quantized, out, "safetensors")
    with pytest.raises(nx.NumericsError, match="lies in the input"):
        convert(quantized, quantized / "out")


def test_a_conversion_that_was_refused_left_a_shard_without_its_journal(quantized, tmp_path, monkeypatch):
    """Its one shard is to be done again, since the source changed; then another call was refused it all."""
    source, out = shutil.copytree(quantized, tmp_path / "q"), tmp_path / "out"

    def stop(name, done, total):
        if list(out.glob("*.safetensors")):
            raise LookupError

    def refuse(*_):
        raise nx.NumericsError("no luck")

    with pytest.raises(LookupError):
        convert(source, out, running=Running(stop))
    (shard,) = out.glob("*.safetensors")
    os.utime(source / shard.name, ns=(1, 1))
    with monkeypatch.context() as patched:
        patched.setattr(converting, "entry_of", refuse)
        with pytest.raises(nx.NumericsError, match="no luck"):
            convert(source, out)
    assert convert(source, out).resumed == 0


@pytest.mark.parametrize("work", [convert, dequantize])
def test_a_finished_conversion_whose_source_changed_gave_the_old_report(quantized, tmp_path, work):
    shutil.copytree(quantized, tmp_path / "q")
    work(tmp_path / "q", tmp_path / "out")
    shard = sorted((tmp_path / "q").glob("*.safetensors"))[1]
    os.utime(shard, ns=(1, 1))
    with pytest.raises(nx.NumericsError, match=rf"was made of another source: {shard.name} has changed"):
        work(tmp_path / "q", tmp_path / "out")


def test_two_conversions_into_one_folder_are_refused(quantized, tmp_path):
    said = []

    def meanwhile(name, done, total):
        if not said:
            with started(CODE, quantized, tmp_path / "out", "numerics") as other:
                said.append(other.communicate(timeout=LIMIT)[1])
            assert other.returncode

    convert(quantized, tmp_path / "out", running=Running(meanwhile))
    assert "another job is at work on" in said[0]


@pytest.mark.parametrize("change", ["cut", "written", "gone"])
def test_a_source_that_changes_while_it_is_converted_is_refused(quantized, tmp_path, change):
    shutil.copytree(quantized, tmp_path / "q")
    shard = sorted((tmp_path / "q").glob("*.safetensors"))[2]

    def meanwhile(name, done, total):
        data = shard.read_bytes() if shard.exists() else b""
        shard.unlink(missing_ok=True)
        if change != "gone":
            shard.write_bytes(data[:-64] if change == "cut" else data[:-1] + b"\0")

    out = tmp_path / "out"
    with pytest.raises(nx.NumericsError, match=str(shard)):
        convert(tmp_path / "q", out, running=Running(meanwhile))
    assert not (out / shard.name).exists()


def test_a_full_disk_ends_a_conversion_that_goes_on(quantized, tmp_path, monkeypatch):
    convert(quantized, tmp_path / "whole")
    fill_up(monkeypatch, 40)
    with pytest.raises(nx.NumericsError, match=r"cannot write .*model-0000.*the disk is full"):
        convert(quantized, tmp_path / "out")
    monkeypatch.undo()
    assert any((tmp_path / "out").glob("*.safetensors"))
    convert(quantized, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_tensor_that_two_files_would_have_was_written_twice(tmp_path):
    """The index named one of them."""
    tensors = {"a.weight": np.ones((4, 64), np.float32), "a.weight_packed": np.ones((2, 2), np.float32)}
    model = write_shards(tmp_path / "model", tensors, 2)
    quantize(model, tmp_path / "q", Request(nx.QuantSpec("mxfp4"), {"a.weight_packed": None}))
    with pytest.raises(nx.NumericsError, match=r"a\.weight_packed.* two tensors"):
        convert(tmp_path / "q", tmp_path / "out", "compressed-tensors")
    assert not (tmp_path / "out").exists()


def test_one_file_is_no_work_for_ranks(quantized, tmp_path):
    nx.save({"w": nx.quantize(np.ones((4, 64), np.float32), "mxfp4")}, tmp_path / "a.safetensors")
    with pytest.raises(nx.NumericsError, match="is one file, which ranks cannot share"):
        convert(tmp_path / "a.safetensors", tmp_path / "b", running=Running(ranks=Ranks(0, 2)))
    with pytest.raises(nx.NumericsError, match="is one file, which ranks cannot share"):
        convert(quantized, tmp_path / "b.gguf", "gguf", running=Running(ranks=Ranks(1, 2)))


@pytest.mark.turns(18)
@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("place", [0, 1])
def test_a_shard_that_was_cut_ended_the_process(tmp_path, to, place):
    """By a signal, since tensors were views of the file."""
    tensors = {f"l{k}.weight": np.ones((256, 2048), np.float32) for k in range(4)}
    model = write_shards(tmp_path / "m", tensors, 2)
    quantize(model, tmp_path / "q", Request(nx.QuantSpec("mxfp8_e4m3"), {"l2.weight": None}))
    shard = sorted((tmp_path / "q").glob("*.safetensors"))[place]
    code = CODE.replace("print(*told, flush=True)", f"os.truncate({str(shard)!r}, 20_000)")
    command = [sys.executable, "-c", "import os\n" + code, tmp_path / "q", tmp_path / "out", to]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert ran.returncode == 1
    assert f"NumericsError: cannot read {shard}: it was cut" in ran.stderr or f"{shard} is not" in ran.stderr


def test_what_gguf_says_when_it_is_to_be_quantized_went_in_a_circle(tmp_path):
    """`quantize` sent to `convert`, and what that made to the original; nobody named `dequantize`."""
    w = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    gguf, ours, floats, out = (
        tmp_path / name for name in ("a.gguf", "b.safetensors", "c.safetensors", "d.safetensors")
    )
    nx.save({"w": nx.quantize(w, "mxfp4"), "b": w[0]}, ours)
    convert(ours, gguf, "gguf")
    for quantized in (gguf, ours):
        with pytest.raises(nx.NumericsError, match="`numerics dequantize"):
            quantize(quantized, out, Request(nx.QuantSpec("mxfp4")))
    assert str(dequantize(gguf, floats)) == "1 tensor dequantized, 1 copied"
    assert [tensor.dtype for tensor in quantize(floats, out, Request(nx.QuantSpec("mxfp4"))).tensors].count(
        "mxfp4"
    ) == 1


# ---- the index of a folder ----------------------------------------------------------------------


def folder_of_scales_apart(folder):
    """Two shards, one of scales alone: what becomes of their weight is in one file."""
    q = nx.quantize(np.ones((128, 128), np.float32), "fp8_e4m3")
    folder.mkdir()
    codes = torch.from_numpy(q.codes.copy()).view(torch.float8_e4m3fn)
    files = {"model-00001-of-00002.safetensors": {"l.weight": codes},
             "model-00002-of-00002.safetensors": {"l.weight_scale_inv": torch.ones(1, 1)}}  # fmt: skip
    for name, tensors in files.items():
        save_file(tensors, folder / name)
    places = {tensor: name for name, tensors in files.items() for tensor in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("to", ["floats", "numerics", "compressed-tensors"])
def test_one_shard_with_a_number_in_its_name_had_no_index(tmp_path, to):
    """Readers look for model.safetensors, or for an index, and found neither."""
    source, out = folder_of_scales_apart(tmp_path / "in"), tmp_path / "out"
    dequantize(source, out) if to == "floats" else convert(source, out, to)
    index = json.loads((out / INDEX).read_text(encoding="utf-8"))["weight_map"]
    assert set(index.values()) == {"model-00001-of-00002.safetensors"}
    assert index.keys() == Reader(out / "model-00001-of-00002.safetensors").entries.keys()


@pytest.mark.parametrize(("name", "due"), [("b", True), ("model", False)])
def test_a_folder_with_one_file_gets_an_index_where_its_name_needs_one(tmp_path, name, due):
    (tmp_path / "a").mkdir()
    nx.save({"w.weight": np.ones((4, 64), np.float32)}, tmp_path / "a" / f"{name}.safetensors")
    quantize(tmp_path / "a", tmp_path / "q", Request(nx.QuantSpec("mxfp4")))
    dequantize(tmp_path / "q", tmp_path / "f")
    assert [(tmp_path / made / INDEX).exists() for made in ("q", "f")] == [due, due]
    assert load(tmp_path / "f")["w.weight"].tobytes() == np.ones((4, 64), np.float32).tobytes()


# ---- the type of the values ---------------------------------------------------------------------


TYPED = [("int4", "per_group(32)", "float32"), ("int8", "per_channel(0)", "float"),
         ("uint4", "per_group(32)", "float"), ("int8", "per_tensor", "float32"),
         ("fp8_e4m3", "per_channel(0)", "float")]  # fmt: skip


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize(("d", "scheme", "scale_type"), TYPED)
def test_integers_came_back_from_compressed_tensors_as_float32(tmp_path, kind, d, scheme, scale_type):
    """By the type of their scales, or of the configuration where those are float32."""
    (tmp_path / "in").mkdir()
    x = torch.from_numpy(RNG.standard_normal((16, 64)).astype(np.float32)).to(getattr(torch, kind))
    q = nx.quantize(x, d, scheme=scheme, scale_type=scale_type, symmetric=d != "uint4")
    nx.save({"l.weight": q}, tmp_path / "in" / "model.safetensors")
    (tmp_path / "in" / "config.json").write_text(json.dumps({"torch_dtype": kind}), encoding="utf-8")
    convert(tmp_path / "in", tmp_path / "ct", "compressed-tensors")
    dequantize(tmp_path / "ct", tmp_path / "back")
    found = load(tmp_path / "back", library="torch")["l.weight"]
    assert found.dtype == x.dtype
    assert torch.equal(found, q.dequantize())
    scales = {"BF16", "F16"} if scale_type == "float" else {"F32"}
    assert Reader(tmp_path / "ct" / "model.safetensors").entries["l.weight_scale"].dtype in scales
    compared = compare(tmp_path / "in", tmp_path / "ct")
    assert compared.equal
    assert not any("values of" in one.stored for one in compared.tensors)


# ---- what is written where something is ---------------------------------------------------------


def ended(*words):
    """What a command gave back, or its error, and what it said."""
    came = CliRunner().invoke(commands, [str(word) for word in words], standalone_mode=False)
    return came.exception, came.output


COMMANDS = {"quantize": ("--dtype", "mxfp4"), "convert": (), "dequantize": ()}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_was_replaced_without_a_word(tmp_path, command):
    x = RNG.standard_normal((4, 64)).astype(np.float32)
    given = x if command == "quantize" else nx.quantize(x, "int8")
    nx.save({"l.weight": given}, tmp_path / "a.safetensors")
    words = (command, tmp_path / "a.safetensors", tmp_path / "b.safetensors", *COMMANDS[command])
    assert "is replaced" not in ended(*words)[1]
    assert f"the file that was {tmp_path / 'b.safetensors'} is replaced" in ended(*words)[1]
    assert "is replaced" not in ended(*words, "--quiet")[1]
    if command == "quantize":
        assert "is replaced" not in ended(*words, "--dry-run")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_got_the_name_of_a_file(tmp_path, command):
    folder = tmp_path / "in"
    folder.mkdir()
    x = RNG.standard_normal((4, 64)).astype(np.float32)
    nx.save(
        {"l.weight": x if command == "quantize" else nx.quantize(x, "int8")}, folder / "model.safetensors"
    )
    options = COMMANDS[command]
    wrong, _ = ended(command, folder, tmp_path / "a.safetensors", *options)
    assert "a.safetensors has the name of a file (.safetensors), and what is written is a folder" in str(
        wrong
    )
    (tmp_path / "there").write_bytes(b"")
    wrong, _ = ended(command, folder, tmp_path / "there", *options)
    assert "there: it is a file; name a folder" in str(wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "there"]
    (tmp_path / "my.bin").mkdir()  # a folder is one, whatever its name
    assert ended(command, folder, tmp_path / "my.bin", *options)[0] is None


@pytest.mark.parametrize("to", ["numerics", "safetensors"])
def test_codes_without_their_scales_were_converted_without_a_word(tmp_path, to):
    """They counted as tensors that nobody quantized."""
    made = {"l.weight": torch.ones(2, 32).to(torch.float8_e4m3fn), "n": torch.ones(3)}
    save_file(made, tmp_path / "a.safetensors")
    found = convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to)
    assert (found.quantized, found.plain, list(found.left)) == ([], ["n"], ["l.weight"])
    assert str(found) == "1 quantized tensor (1 left as they were), 1 other"
    assert "float8_e4m3fn with no scale beside it" in found.left["l.weight"]
    assert load(tmp_path / "b.safetensors")["l.weight"].tobytes() == bytes([0x38]) * 64
    with pytest.raises(nx.NumericsError, match="holds no quantized tensors"):
        dequantize(tmp_path / "a.safetensors", tmp_path / "c.safetensors")


# ---- folders of pickles -------------------------------------------------------------------------


def folder_of_pickles(folder, lie=None, index=True):
    """Two files of torch.save with a tied head, configuration and tokenizer, as Hugging Face had them."""
    folder.mkdir()
    w = torch.from_numpy(RNG.standard_normal((8, 64)).astype(np.float32)).bfloat16()
    q = nx.quantize(w, "int8", scheme="per_channel(0)")
    files = {"pytorch_model-00001-of-00002.bin": {"embed.weight": w, "lm_head.weight": w},
             "pytorch_model-00002-of-00002.bin": {"l.weight": 2 * w, "q.weight": q}}  # fmt: skip
    for name, tensors in files.items():
        torch.save(tensors, folder / name)
    places = {tensor: name for name, tensors in files.items() for tensor in tensors} | (lie or {})
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}), encoding="utf-8")
    if index:
        told = {"metadata": {}, "weight_map": places}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def test_a_folder_of_pickles_could_not_be_read(tmp_path):
    folder = folder_of_pickles(tmp_path / "in")
    found = convert(folder, tmp_path / "out", "numerics")
    assert (found.quantized, sorted(found.plain)) == (
        ["q.weight"],
        ["embed.weight", "l.weight", "lm_head.weight"],
    )
    assert found.notes == []
    names = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX]
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*names, "numerics_job.json"])
    assert load(tmp_path / "out").keys() == load(folder).keys()
    assert compare(folder, tmp_path / "out").same
    assert convert(folder, tmp_path / "out", "numerics").resumed == 2
    looks = {look.name: look for look in inspect(folder / "pytorch_model.bin.index.json")}
    assert looks["lm_head.weight"].odd == ("tied: it is embed.weight",)
    wrong, _ = ended("quantize", folder, tmp_path / "q", "--dtype", "mxfp4")
    assert "has no .safetensors file; name a file" in str(wrong)
    assert "`numerics convert FOLDER OUT` makes one of its .bin files" in str(wrong)


def test_an_index_of_pickles_that_lies_is_refused(tmp_path):
    one, two = ("pytorch_model-0000{n}-of-00002.bin".replace("{n}", n) for n in "12")
    for n, (lie, said) in enumerate({"x": one, "l.weight": one}.items()):
        folder = folder_of_pickles(tmp_path / str(n), {lie: said})
        with pytest.raises(nx.NumericsError, match=f"index.json lies: '{lie}'"):
            load(folder)
    folder = folder_of_pickles(tmp_path / "twice")
    torch.save({"l.weight": torch.ones(2), "embed.weight": torch.ones(2)}, folder / two)
    with pytest.raises(nx.NumericsError, match=r"'embed\.weight' is in .*and in another file"):
        load(folder)
    (folder / two).unlink()
    with pytest.raises(nx.NumericsError, match=f"cannot read .*{two}"):
        load(folder)


def test_a_folder_with_one_pickle_is_read_without_an_index(tmp_path):
    (tmp_path / "in").mkdir()
    torch.save({"l.weight": torch.ones(2, 3)}, tmp_path / "in" / "pytorch_model.bin")
    (tmp_path / "in" / "training_args.bin").write_bytes(b"")
    found = convert(tmp_path / "in", tmp_path / "out", "numerics")
    assert found.notes == ["not copied: training_args.bin"]
    assert sorted(os.listdir(tmp_path / "out")) == ["model.safetensors", "numerics_job.json"]
    assert load(tmp_path / "out")["l.weight"].shape == (2, 3)


# ---- what was taken without a word, or told in wrong ones -------------------------------------------


def test_integers_of_four_bits_of_onnx_become_bytes_and_it_is_said(tmp_path):
    """`inspect` gave them 8 bits a value, and `convert` said that safetensors has no int4, of GGUF too."""
    onnx = pytest.importorskip("onnx")
    kinds = {"i4": onnx.TensorProto.INT4, "u4": onnx.TensorProto.UINT4}
    made = [onnx.helper.make_tensor(name, kind, [8], range(8)) for name, kind in kinds.items()]
    made[0] = onnx.helper.make_tensor("i4", onnx.TensorProto.INT4, [8], range(-8, 0))
    made.append(onnx.helper.make_tensor("f4", onnx.TensorProto.FLOAT4E2M1, [8], [1.0] * 8))
    graph = onnx.helper.make_graph([], "g", [], [], made)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    assert {look.name: (look.bits, look.nbytes) for look in inspect(tmp_path / "m.onnx")} == {
        "i4": (4, 4), "u4": (4, 4), "f4": (4, 4)
    }  # fmt: skip
    found = convert(tmp_path / "m.onnx", tmp_path / "m.safetensors")
    assert found.widened == {"i4": "int4 became int8", "u4": "uint4 became uint8"}
    assert any("i4: int4 became int8" in note for note in found.notes)
    came = nx.load(tmp_path / "m.safetensors")
    assert came["i4"].tolist() == list(range(-8, 0))
    assert came["u4"].tolist() == list(range(8))
    with pytest.raises(nx.NumericsError, match="GGUF has no uint8"):
        convert(tmp_path / "m.onnx", tmp_path / "m.gguf", "gguf")


def test_dequantize_and_quantize_sent_in_a_circle(tmp_path):
    """Codes in activation order: one said that the other decodes them, which said that it does not."""
    order = np.random.default_rng(0).permutation(np.arange(64) // 32).astype(np.int32)
    tensors = {
        "a.qweight": torch.zeros((8, 8), dtype=torch.int32),
        "a.qzeros": torch.zeros((2, 1), dtype=torch.int32),
        "a.scales": torch.ones((2, 8), dtype=torch.float16), "a.g_idx": torch.from_numpy(order),
    }  # fmt: skip
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(
        nx.NumericsError, match=r"of all that it reads, and that tool of the others \(activation"
    ):
        quantize(tmp_path / "m.safetensors", tmp_path / "q.safetensors", Request(nx.QuantSpec("mxfp4")))
    with pytest.raises(nx.NumericsError, match="no scheme; the tool that wrote it makes floats of it"):
        dequantize(tmp_path / "m.safetensors", tmp_path / "f.safetensors")


def test_names_that_llama_cpp_does_not_look_for_are_said(tmp_path):
    for name, said in (("model.layers.0.mlp.up_proj.weight", True), ("blk.0.ffn_up.weight", False)):
        nx.save({name: np.ones((4, 32), np.float32)}, tmp_path / "m.safetensors")
        notes = convert(tmp_path / "m.safetensors", tmp_path / "m.gguf", "gguf").notes
        assert any("llama.cpp looks for its own" in note for note in notes) == said


@pytest.mark.parametrize("sizes", [[0, 0], [-1, 128], ["a", 1], [128], 128, [128.0, 128], True, "128"])
def test_a_block_size_that_is_none_was_read_as_128(tmp_path, sizes):
    fp8_folder(tmp_path / "a")
    config = json.loads((tmp_path / "a/config.json").read_text(encoding="utf-8"))
    config["quantization_config"]["weight_block_size"] = sizes
    (tmp_path / "a/config.json").write_text(json.dumps(config), encoding="utf-8")
    found = convert(tmp_path / "a", tmp_path / "b", "numerics")
    assert "weight_block_size is" in found.left["l.weight"]
    with pytest.raises(nx.NumericsError, match=r"weight_block_size is .*two numbers above 0"):
        dequantize(tmp_path / "a", tmp_path / "c")


def test_a_config_that_is_no_json_was_copied_in_silence(tmp_path):
    (tmp_path / "a").mkdir()
    nx.save({"w": np.ones((4, 64), np.float32)}, tmp_path / "a/model.safetensors")
    (tmp_path / "a/config.json").write_text("{no", encoding="utf-8")
    with pytest.warns(nx.formats.errors.NumericsWarning, match="config.json is no JSON, and is copied"):
        quantize(tmp_path / "a", tmp_path / "b", Request(nx.QuantSpec("mxfp4")))
    assert (tmp_path / "b/config.json").read_text(encoding="utf-8") == "{no"


def test_a_shard_that_was_removed_is_missing_and_no_other(tmp_path):
    (tmp_path / "a").mkdir()
    nx.save({"w": np.ones((4, 64), np.float32)}, tmp_path / "a/model.safetensors")
    for _ in range(2):
        quantize(tmp_path / "a", tmp_path / "b", Request(nx.QuantSpec("mxfp4")))
    (tmp_path / "b/model.safetensors").unlink()
    with pytest.raises(nx.NumericsError, match=r"model\.safetensors is missing, which this job wrote"):
        quantize(tmp_path / "a", tmp_path / "b", Request(nx.QuantSpec("mxfp4")))


def test_an_output_in_no_folder_is_told_as_that(tmp_path):
    nx.save({"w": np.ones((4, 64), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(nx.NumericsError, match=r"there is no folder .*nosuch; nothing was written$"):
        quantize(
            tmp_path / "a.safetensors", tmp_path / "nosuch/o.safetensors", Request(nx.QuantSpec("mxfp4"))
        )


def test_a_tensor_without_a_name_has_a_name_in_lists(tmp_path):
    nx.save({"": np.ones((4, 64), np.float32)}, tmp_path / "a.safetensors")
    found = CliRunner().invoke(commands, ["inspect", str(tmp_path / "a.safetensors")])
    assert "''" in found.output


def test_junk_that_begins_as_a_zip_is_no_compressed_file(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"PK\3\4junk")
    with pytest.raises(nx.NumericsError, match=r"a zip, as torch.save .* damaged or cut short"):
        convert(tmp_path / "x.pth", tmp_path / "y.safetensors")


def test_an_observer_with_another_rounding_says_what_the_command_takes(tmp_path):
    nx.save({"w": np.ones((4, 64), np.float32)}, tmp_path / "a.safetensors")
    arguments = ["--dtype", "int4", "--observer", "mse", "--rounding", "stochastic", "--seed", "1"]
    found = CliRunner().invoke(
        commands, ["quantize", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"), *arguments]
    )
    assert str(found.exception).endswith("not under stochastic; give rounding='half_even'")


class Calls:
    def __reduce__(self):
        return os.getenv, ("HOME",)


def test_a_pickle_that_calls_code_is_told_as_that(tmp_path):
    torch.save({"a": Calls()}, tmp_path / "x.pth")
    with pytest.raises(nx.NumericsError, match=r"no tensors lie by name; it would run code of its own"):
        quantize(tmp_path / "x.pth", tmp_path / "y.safetensors", Request(nx.QuantSpec("mxfp4")))
