"""Files that were made to hang, to fill memory, to be misread, or that are something else altogether."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import numerics as nx
from numerics.conform.vectors.lines import COMMENTS
from numerics.conform.vectors.operations import operation
from numerics.conform.vectors.vectors import LONGEST_HEADER, TITLE, generate, verify
from numerics.files import safetensors
from numerics.files.checkpoint import dequantize_file, quantize_file
from numerics.files.json_members import LONGEST, Members
from numerics.files.safetensors import Reader, Writer
from numerics.formats import text as text_of_formats
from numerics.tensor.spec import QuantSpec

HANG = 120  # seconds


def written(path, header, data=b""):
    """A file of that header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(kind, shape, *offsets):
    return {"dtype": kind, "shape": shape, "data_offsets": list(offsets)}


def refused(path, said="", out=None):
    """By everything that reads a file."""
    out = out or path.with_name("out")
    for verb in (nx.load, lambda p: quantize_file(p, out, "int8"), lambda p: dequantize_file(p, out)):
        with pytest.raises(nx.NumericsError, match=said):
            verb(path)
    assert not out.exists()


# ---- texts --------------------------------------------------------------------------------------

SCHEMES = [
    "per_group({0}", "per_group({0},{0}", "per_group({0}1,{0}axis{0}={0}1{0}", "{0}per_group", "per{0}(",
    "per_group(1,{0}axis{0}", "{0}({0}", "per_group(" + "1" * 50_000 + "{0}",
]  # fmt: skip


@pytest.mark.parametrize("spelled", SCHEMES)
def test_a_scheme_of_blanks_hung(spelled):
    """In a process of its own: the pattern of before takes minutes, and cannot be interrupted."""
    code = (
        "import sys, numerics as nx\n"
        "for blank in ' ', '\\t', '=':\n"
        "    text = sys.argv[1].format(blank * 20_000)\n"
        "    try: nx.Scheme.parse(text)\n"
        "    except nx.NumericsError: continue\n"
        "    raise SystemExit('taken')\n"
    )
    if spelled == SCHEMES[0]:
        subprocess.run([sys.executable, "-c", code, SCHEMES[1]], check=True, timeout=HANG)
    with pytest.raises(nx.NumericsError):
        nx.Scheme.parse(spelled.format(" " * 200))


@pytest.mark.parametrize(
    "text",
    [
        "per_group(axis=4)", "per_group(4, size=4)", "per_channel(size=1)", "per_group(,4)",
        "per_group(4,,1)", "per_group((4))", "per_group(4)4", "per_group(4, rows=1)",
    ],
)  # fmt: skip
def test_names_in_a_scheme_were_taken_for_others(text):
    with pytest.raises(nx.NumericsError):
        nx.Scheme.parse(text)


def test_names_in_a_scheme():
    assert nx.Scheme.parse("per_group(axis=0, size=4)") == nx.per_group(4, axis=0)
    assert nx.Scheme.parse("per_group(size=4)", axis=1) == nx.per_group(4, axis=1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.sampled_from([None, 1]))
def test_members_are_those_of_json(said, indent):
    text = json.dumps(said, indent=indent)
    read = Members(text)
    assert dict(read.members(Members.value)) == said
    read.end()


@given(st.text(alphabet='{}[]",:1a \\'))
def test_what_json_refuses_members_refuse(text):
    try:
        due = json.loads(text)
    except ValueError:
        due = None
    try:
        read = Members(text)
        found = dict(read.members(Members.value))
        read.end()
    except ValueError:
        assert not isinstance(due, dict) or len(due) < text.count(":")
    else:
        assert found == due


def test_values_of_any_length_up_to_the_limit():
    for length in (4_090, 4_096, 5_000, LONGEST - 10):
        value = "x" * (length - 2)
        assert dict(Members(json.dumps({"a": value, "b": 1})).members(Members.value)) == {"a": value, "b": 1}
    with pytest.raises(ValueError, match=f"goes on: {LONGEST} characters"):
        dict(Members(json.dumps({"a": "x" * LONGEST})).members(Members.value))


LISTS = "[]," * 1_000_000 + "[]]"
HEAD = '{"version": 2, "layout": 1, "recipes": ['
BOMBS = {
    "lists in lists": f'{{"a":[{LISTS}}}',
    "one bracket after another": '{"a":' + "[" * 3_000_000,
    "metadata": f'{{"__metadata__":{{"a":[{LISTS}}}}}',
    "a manifest": json.dumps({"__metadata__": {"numerics": f"[{LISTS}"}}),
    "recipes": json.dumps({"__metadata__": {"numerics": f"{HEAD}{LISTS}}}"}}),
    "a tensor of a manifest": json.dumps(
        {"__metadata__": {"numerics": f'{HEAD}], "tensors": {{"a": [{LISTS}}}}}'}}
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_header_took_thirty_times_its_size(tmp_path, what):
    path = written(tmp_path / "bomb", BOMBS[what].encode())
    tracemalloc.start()
    with pytest.raises(nx.NumericsError) as error:
        nx.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(BOMBS[what])
    assert len(str(error.value)) < 1000


# ---- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": entry("F32", [0, 2**63], 0, 0)}, "more than an array can have"),
        ({"a": entry("U8", [0, 2**62], 0, 0)}, "more than an array can have"),
        ({"a": entry("U8", [2**40, 2**40, 0], 0, 0)}, "more than an array can have"),
        ({"a": entry("F32", [1] * 65, 0, 4)}, "more than an array can have"),
        (b'{"__metadata__": {"a": "\\ud800"}}', "not JSON"),
        (b'{"__metadata__": {"\\udfff": "a"}}', "not JSON"),
        (b'{"__metadata__": {"a": "1", "a": "2"}}', "a name stands twice"),
        (b'{"__metadata__": {}, "__metadata__": {}}', "a name stands twice"),
        (b"{} {}", "not JSON"),
        (b'{"a": ' + b'{"dtype":' * 2000, "not JSON"),
        ({"a": entry("F4", [3], 0, 2)}, "does not fill"),
    ],
)
def test_hostile_headers_were_foreign_exceptions(tmp_path, header, said):
    refused(
        written(
            tmp_path / "hostile", header, bytes(4 if "65" in str(header) or "[1, 1" in str(header) else 0)
        ),
        said,
    )


SUBBYTE = {"F4": ("float4_e2m1fn", 4), "F6_E2M3": ("float6_e2m3fn", 6), "F6_E3M2": ("float6_e3m2fn", 6)}


@pytest.mark.parametrize("kind", SUBBYTE)
def test_types_of_fewer_than_8_bits_could_not_be_loaded(tmp_path, kind):
    spelled, bits = SUBBYTE[kind]
    codes = np.arange(64, dtype=np.uint8).reshape(4, 16) % (1 << bits)
    packed = np.packbits((codes.reshape(-1, 1) >> np.arange(bits)) & 1, bitorder="little").tobytes()
    header = {
        "a": entry(kind, [4, 16], 0, len(packed)),
        "w": entry("F32", [4, 8], len(packed), len(packed) + 128),
    }
    path = written(tmp_path / "x", header, packed + np.ones(32, np.float32).tobytes())
    found = nx.load(path)["a"]
    assert found.dtype.name == spelled
    assert found.view(np.uint8).tolist() == codes.tolist()
    nx.save({"a": found}, tmp_path / "again")
    assert (tmp_path / "again").read_bytes().endswith(packed)
    assert Reader(tmp_path / "again").entries["a"].shape == (4, 16)
    quantize_file(path, tmp_path / "q", "int8")
    dequantize_file(tmp_path / "q", tmp_path / "back")
    for copied in ("q", "back"):
        assert Reader(tmp_path / copied).raw("a").tobytes() == packed
        assert Reader(tmp_path / copied).entries["a"].dtype == kind
    with pytest.raises(nx.NumericsError, match="in whole bytes only"):
        nx.save({"a": found[0, :1]}, tmp_path / "odd")


def test_pairs_of_fp4_are_torchs_own(tmp_path):
    packed = torch.arange(16, dtype=torch.uint8).reshape(2, 8)
    nx.save({"a": packed.view(torch.float4_e2m1fn_x2)}, tmp_path / "x")
    assert Reader(tmp_path / "x").entries["a"].shape == (2, 16)
    found = nx.load(tmp_path / "x", library="torch")["a"]
    assert found.dtype == torch.float4_e2m1fn_x2
    assert torch.equal(found.view(torch.uint8), packed)
    nx.save(
        {"a": np.zeros((2, 3), ml_dtypes.float4_e2m1fn), "b": np.zeros(4, ml_dtypes.float6_e2m3fn)},
        tmp_path / "y",
    )
    with pytest.raises(nx.NumericsError, match=r"tensor '[ab]': "):
        nx.load(tmp_path / "y", library="torch")


def test_a_header_that_nobody_would_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "LONGEST_HEADER", 1000)
    with pytest.raises(nx.NumericsError, match="safetensors allows 1000"):
        nx.save({"a" * 1000: np.ones(1)}, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def zipped(name):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr(name, b"x" * 100)
    return made.getvalue()


def pickled(x):
    made = io.BytesIO()
    torch.save(x, made)
    return made.getvalue()


def array():
    made = io.BytesIO()
    np.save(made, np.ones(3))
    return made.getvalue()


def arrays():
    made = io.BytesIO()
    np.savez(made, a=np.ones(3))
    return made.getvalue()


def model():
    return nx.ipu.export("fp4", "round").SerializeToString()


FOREIGN = {
    "a PyTorch pickle": [
        lambda: pickled({"a": torch.ones(3)}),
        lambda: pickle.dumps([1, 2, 3, 4], protocol=2),
    ],
    "an ONNX model": [model],
    "a GGUF file": [lambda: b"GGUF\x03\0\0\0" + bytes(16)],
    "NumPy arrays in a zip": [arrays],
    "a NumPy array": [array],
    "a compressed file": [lambda: zipped("weights.txt"), lambda: b"\x1f\x8b\x08" + bytes(20)],
    "an HTML page": [lambda: b"<!DOCTYPE html><html></html>", lambda: b"\n<html>" + b" " * 20],
    "JSON": [lambda: b'{"weight_map": {"a": "b.safetensors"}}'],
    "a Git LFS pointer": [lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"],
    "an HDF5 file": [lambda: b"\x89HDF\r\n\x1a\n" + bytes(20)],
    "text, which has no tensors": [
        lambda: b"import numerics as nx\n",
        lambda: "Maße: 3 mal 4".encode("latin-1"),
        lambda: "some text".encode("utf-16"),
        lambda: b"a = 1\n" * 4000,
    ],
    "a TensorFlow Lite model": [lambda: b"\x1c\0\0\0TFL3" + bytes(20)],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_other_files_announced_a_header_of_578712552184433488_bytes(tmp_path, what):
    for make in FOREIGN[what]:
        (tmp_path / "file").write_bytes(make())
        refused(tmp_path / "file", f"file is not a whole safetensors file: it looks like {what}")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("made", "way"),
    [
        (lambda: {"w": torch.ones(2)}, "nx.save(torch.load(path, weights_only=True), 'out.safetensors')"),
        (lambda: {"epoch": 3, "state_dict": {"w": torch.ones(2)}},
         "weights_only=True)['state_dict'], 'out.safetensors'), as its tensors lie under that name"),
        (lambda: {"model": {"model.w": torch.ones(2)}}, "weights_only=True)['model'],"),
        (lambda: torch.nn.Sequential(torch.nn.Linear(2, 2)), "of a whole module; where you trust it"),
    ],
    ids=["flat", "state_dict", "model", "module"],
)  # fmt: skip
def test_a_pickle_of_torch_says_where_its_tensors_lie(tmp_path, made, way, old):
    torch.save(made(), tmp_path / "m.pt", _use_new_zipfile_serialization=not old)
    refused(tmp_path / "m.pt", re.escape(way))


# ---- manifests ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file with a format of every kind, its tensors and its manifest."""
    path = tmp_path_factory.mktemp("saved") / "saved"
    mine = nx.block_format(
        block=16, element=nx.float_format(3, 1, bias=2, specials="none", name="mine3"), name="blockmine"
    )
    x = np.ones((4, 32), np.float32)
    nx.save(
        {
            "b": nx.quantize(x, mine),
            "i": nx.quantize(x, "int4"),
            "n": nx.quantize(x, "nvfp4"),
            "p": np.arange(4),
        },
        path,
    )
    return path


def changed(saved, path, change):
    reader = Reader(saved)
    said = json.loads(reader.metadata["numerics"])
    said = change(said) or said
    with Writer(
        path, reader.entries, {"numerics": said if isinstance(said, str) else json.dumps(said)}
    ) as writer:
        for name in reader.entries:
            writer.put(name, 0, reader.raw(name))
    return path


def fact(name, value, element=False):
    def change(said):
        facts = said["recipes"][0]["dtype"]
        (facts["element"] if element else facts)[name] = value

    return change


ODD = [True, 3, -1, 12.0, 1e300, None, "x", [], {}, float("nan"), -(10**6), 10**400, 2**70]
FACTS = [
    (name, False)
    for name in ("block", "element", "scale", "mantissa", "sub_block", "name", "default_overflow", "kind")
]
FACTS += [
    (name, True)
    for name in ("bias", "exponent", "mantissa", "signed", "has_zero", "subnormals", "specials", "bits")
]


@pytest.mark.parametrize(("name", "element"), FACTS)
def test_hostile_facts_failed_at_dequantize_or_with_foreign_exceptions(saved, tmp_path, name, element):
    for value in ODD:
        path = changed(saved, tmp_path / "changed", fact(name, value, element))
        try:
            found = nx.load(path)
        except nx.NumericsError:
            continue
        for q in found.values():
            q.dequantize() if isinstance(q, nx.QTensor) else q.sum()


TEXTS = {
    "the name of a format": lambda said, x: said["recipes"][0]["dtype"].update(name=x),
    "a scheme": lambda said, x: said["recipes"][0].update(scheme=x),
    "a rounding": lambda said, x: said["recipes"][0].update(rounding=x),
    "the type that it stands for": lambda said, x: said["tensors"]["i"].update(original=x),
    "a version": lambda said, x: said.update(version=x),
    "a recipe": lambda said, x: said["tensors"]["i"].update(recipe=x),
    "a shape": lambda said, x: said["tensors"]["i"].update(shape=[x]),
}


@pytest.mark.parametrize("text", ["\ud800", "\x1b[2J", "x" * 1000, "x" * (LONGEST + 9), "x" * 10**6], ids=len)
@pytest.mark.parametrize("place", TEXTS)
def test_long_and_odd_texts_are_quoted_short(saved, tmp_path, place, text):
    """What Python's JSON reader says of its own buffer was told; halves of letters could not be printed."""
    path = changed(saved, tmp_path / "changed", lambda said: TEXTS[place](said, text))
    with pytest.raises(nx.NumericsError) as told:
        nx.load(path)
    said = str(told.value)
    assert len(said) < 800
    assert said.isprintable()
    assert "JSONDecodeError" not in said
    assert "Unterminated" not in said


@pytest.mark.parametrize("value", [-1, 0, None, "x", [], 1.5, True])
@pytest.mark.parametrize("name", ["shape", "names", "recipe", "original"])
def test_facts_of_other_kinds_are_named(saved, tmp_path, name, value):
    if (name, value) in (("recipe", 0), ("shape", [])):
        return
    path = changed(saved, tmp_path / "changed", lambda said: said["tensors"]["i"].update({name: value}))
    with pytest.raises(nx.NumericsError, match="is wrong: ") as told:
        nx.load(path)
    assert "object is not" not in str(told.value)


def test_whether_it_is_scaled_is_a_truth(saved, tmp_path):
    for value in (0, "no", None, 1.0):
        path = changed(saved, tmp_path / "changed", lambda said, x=value: said["recipes"][0].update(scaled=x))
        with pytest.raises(nx.NumericsError, match=r"scaled=.* is not allowed"):
            nx.load(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said["tensors"]["i"]["names"].update(more="p"), "'i' has no part more"),
        (lambda said: said["tensors"].update(j=said["tensors"]["i"]), "is part of two tensors"),
        (fact("block", 16.0), "must be an integer, not 16.0"),
        (fact("signed", 1, element=True), "=1 is not allowed: True or False"),
        (fact("more", 1), "has the facts"),
        (lambda said: said.update(version=2.0), "version and layout"),
        (lambda said: said.update(layout=True), "version and layout"),
        (lambda said: said.update(seed="x"), "seed='x' is not allowed"),
        (lambda said: said.update(seed=False), "seed=False is not allowed"),
        (lambda said: said["recipes"][0].update(scaled=1), "scaled=1 is not allowed"),
        (lambda said: said["recipes"][0].update(scaled=None), "scaled=None is not allowed"),
        (lambda said: said["recipes"].extend(said["recipes"] * 9), "more recipes than"),
        (lambda said: said["tensors"]["i"].update(shape=[1] * 70 + [4, 32]), "more than an array can have"),
        (lambda said: json.dumps(said) + "{}", "more follows"),
        (lambda said: said["tensors"]["i"]["names"].update(scale=["p"]), "cannot be read: TypeError"),
    ],
)  # fmt: skip
def test_manifests_that_were_taken(saved, tmp_path, change, said):
    refused(changed(saved, tmp_path / "changed", change), f"(quantized already|{said})")
    with pytest.raises(nx.NumericsError, match=said):
        nx.load(tmp_path / "changed")


def test_a_file_changed_formats_that_were_declared_later(saved, tmp_path):
    """12.0 equals 12: the format of the file stood for the program's own."""
    with pytest.raises(nx.NumericsError, match="must be an integer"):
        nx.load(
            changed(
                saved,
                tmp_path / "changed",
                lambda said: (fact("block", 24.0)(said), fact("name", "later")(said)) and said,
            )
        )
    mine = nx.block_format(
        block=24, element=nx.float_format(3, 1, bias=2, specials="none", name="mine3"), name="later"
    )
    assert type(mine.block) is int
    assert mine.encode(np.ones(24, np.float32)).scale.shape == (1,)


@pytest.mark.parametrize(
    "text", ["[" * 9000, "{" * 9000, '{"a":' * 1500, "[]", "1", '{"kind": 1}', "{" + " " * 20_000 + "}"]
)
def test_texts_of_formats_and_recipes(text):
    with pytest.raises(nx.NumericsError):
        text_of_formats.parse("{" + text)
    with pytest.raises(nx.NumericsError):
        QuantSpec.parse(text)


def bomb(path, block, shape):
    """Blocks far longer than what they hold: each line of the tensor is padded to whole ones."""
    d = nx.block_format(block=16, element="int4", name=f"bomb{block}")
    nx.save({"w": nx.quantize(np.ones(shape, np.float32), d)}, path)
    return changed(path, path.with_name("bomb"), fact("block", block))


@pytest.mark.parametrize(
    ("block", "shape"), [(1 << 23, (1,)), (1 << 28, (1,)), (1 << 70, (1,)), (1 << 20, (500, 1))]
)
def test_a_block_that_holds_one_value_took_gigabytes(tmp_path, block, shape):
    with pytest.raises(nx.NumericsError):
        nx.load(bomb(tmp_path / "x", block, shape))


def test_padding_counts_as_memory(tmp_path):
    path = bomb(tmp_path / "x", 1 << 12, (512, 1))
    tracemalloc.start()
    dequantize_file(path, tmp_path / "out", max_memory=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20
    assert (nx.load(tmp_path / "out")["w"] == 1).all()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tensor_scale_that_is_none(saved, tmp_path, value):
    reader = Reader(saved)
    with Writer(tmp_path / "x", reader.entries, reader.metadata) as writer:
        for name in reader.entries:
            writer.put(name, 0, np.array(value, np.float32) if name == "n.tensor_scale" else reader.raw(name))
    with pytest.raises(nx.NumericsError, match=r"n.tensor_scale' is .*, no scale"):
        nx.load(tmp_path / "x")


# ---- pipes --------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """Lines that never end, and how many bytes of them were read."""

    def __init__(self, first: bytes, then: bytes) -> None:
        self.first, self.then, self.taken = io.BytesIO(first), then, 0

    def readline(self, size=-1):
        return self.first.readline(size) or self._more(len(self.then))

    def read(self, size=-1):
        return self.first.read(size) or self._more(size)

    def _more(self, size):
        self.taken += size
        assert self.taken < 1 << 28, "read on and on"
        return self.then * (size // len(self.then))


LINES = b"".join(generate(operation("fp4", "decode")))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (TITLE.encode() + b"\n", b"# a comment of a device\n"),
        (TITLE.encode() + b"\n", b"# no end of line "),
        (LINES, b"# a comment of a device\n"),
        (LINES, b"#\n"),
        (LINES, b"# no end of line "),
        (LINES, b"\n"),
        (LINES, LINES.splitlines(keepends=True)[-1]),
    ],
)
def test_a_device_that_sends_comments_for_ever_filled_memory(first, then):
    stream = Endless(first, then)
    with pytest.raises(nx.NumericsError):
        verify(stream)


def test_comments_between_vectors_may_be():
    *lines, last = LINES.splitlines(keepends=True)
    some = b"# said by the device\n" * (COMMENTS // 2)
    assert verify(io.BytesIO(b"".join(lines) + some + last))
    header, rest = LINES.split(b"\n", 1)
    assert verify(io.BytesIO(header + b"\n" + b"# x: y\n" * (LONGEST_HEADER // 2) + rest))


def test_a_file_that_was_cut_after_it_was_loaded_ended_the_process(tmp_path):
    path = tmp_path / "cut.safetensors"
    values = np.arange(1 << 16, dtype=np.float32).reshape(256, 256)
    nx.save({"w": nx.quantize(values, "int8"), "x": values}, path)
    due = nx.quantize(values, "int8").dequantize()
    for library in ("numpy", "torch"):
        loaded = nx.load(path, library=library)
        size = path.stat().st_size
        data = path.read_bytes()
        os.truncate(path, 5000)
        assert np.array_equal(np.asarray(loaded["w"].dequantize()), due)
        assert np.array_equal(np.asarray(loaded["x"]), values)
        path.write_bytes(data)
        assert path.stat().st_size == size
    views = nx.load(path, mapped=True)
    assert not views["x"].flags.writeable
    assert np.array_equal(views["w"].dequantize(), due)
