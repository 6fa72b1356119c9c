"""Checkpoints: what is written, what comes back, how much memory it takes, and every way to fail."""

import json
import math
import os
import signal
import tracemalloc
import warnings
from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import numerics as nx
from numerics.files import stream
from numerics.files.checkpoint import BYTES_PER_ELEMENT, dequantize_file, quantize_file
from numerics.files.chunks import Cut, random_bits, runs, size
from numerics.files.safetensors import Reader, Writer
from tests.helpers.disks import fill_up
from tests.helpers.marks import either_sign

RNG = np.random.default_rng(0)
TENSORS = {
    "w": RNG.standard_normal((24, 70)).astype(np.float32),
    "h": RNG.standard_normal((3, 5, 40)).astype(np.float16),
    "b": RNG.standard_normal((7, 33)).astype(ml_dtypes.bfloat16),
    "d": RNG.standard_normal((4, 9)),
    "one": RNG.standard_normal((1, 1, 50)).astype(np.float32),
    "bias": np.ones(5, np.float32),
    "ids": np.arange(6).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float32),
    "w.scale": np.ones(3, np.float32),  # takes the name that w's scales would have
    "flags": np.array([True, False]),
    "zero": np.zeros((2, 16), np.float32),
}
FLOATS = ("w", "h", "b", "d", "one", "empty", "zero")
SMALL, LARGE = BYTES_PER_ELEMENT * 48, 1 << 20

BLOCKS = [(d.name, {}) for d in nx.dtypes() if d.kind == "block"]
BLOCKS += [
    (name, {"axis": axis}) for name in ("mx6", "mx9", "mxfp4", "mxfp6_e3m2", "nvfp4") for axis in (0, -2)
]
ELEMENTS = [(d.name, {}) for d in nx.dtypes() if d.kind != "block"]
SCHEMES = [
    ("int4", {"scheme": scheme, "symmetric": symmetric, "scale_type": scale_type, "zero_point_type": zero})
    for scheme in ("per_tensor", "per_channel(0)", "per_channel(1)", "per_group(16)", "per_group(5, axis=0)")
    for symmetric in (True, False)
    for scale_type, zero in (("float", "int32"), ("pof2", "float32"), ("bfloat16", "int32"))
]
DRAWN = [
    (name, {"rounding": "stochastic", "seed": 5, **options})
    for name, options in (
        ("mx6", {"axis": 0}),
        ("int4", {}),
        ("mxfp4", {}),
        ("fp6_e2m3", {"scheme": "per_group(16)"}),
    )
]


def raw(x) -> bytes:
    return np.ascontiguousarray(x).tobytes()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "model.safetensors"
    save_file(TENSORS, path, {"format": "pt"})
    return path


@pytest.mark.turns(18)
@either_sign
@pytest.mark.parametrize(("name", "options"), BLOCKS + ELEMENTS + SCHEMES + DRAWN)
def test_what_comes_back_is_fake_quantize(source, tmp_path, name, options):
    for memory in (SMALL, LARGE):
        small, back = tmp_path / f"{memory}.safetensors", tmp_path / "back.safetensors"
        report = quantize_file(source, small, name, max_memory=memory, **options)
        assert report.bytes_after < report.bytes_before
        quantized = {tensor.name for tensor in report.tensors if tensor.dtype}
        assert all(name in FLOATS for name in quantized)
        dequantize_file(small, back, max_memory=memory)
        loaded, floats = nx.load(small), load_back(back)
        assert loaded.keys() == floats.keys() == TENSORS.keys()
        for key, x in TENSORS.items():
            due = nx.fake_quantize(x, name, **options) if key in quantized else x
            assert raw(floats[key]) == raw(due), key
            assert floats[key].dtype == x.dtype
            assert floats[key].shape == x.shape
            came = loaded[key].dequantize() if key in quantized else loaded[key]
            assert raw(came) == raw(due), key
        assert Reader(back).metadata == {"format": "pt"}
    assert (tmp_path / f"{SMALL}.safetensors").read_bytes() == (
        tmp_path / f"{LARGE}.safetensors"
    ).read_bytes()


def load_back(path):
    """Through our reader where safetensors' own knows no bfloat16, through both elsewhere."""
    found = nx.load(path)
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert {key: tuple(facts["shape"]) for key, facts in header.items() if key != "__metadata__"} == {
        key: value.shape for key, value in found.items()
    }
    return found


def test_the_output_is_a_plain_safetensors_file(source, tmp_path):
    out = tmp_path / "out.safetensors"
    quantize_file(source, out, "int4", scheme="per_group(16)", symmetric=False, scale_type="pof2")
    plain = load_file(out)
    assert plain["w"].dtype == np.uint8
    assert plain["w"].shape == (24 * 70 // 2,)
    assert plain["w.scale_"].shape == plain["w.zero_point"].shape == (24, 5)
    assert plain["w.scale_"].dtype == np.uint8
    assert plain["w.zero_point"].dtype == np.int32
    assert raw(plain["w.scale"]) == raw(TENSORS["w.scale"])
    said = json.loads(Reader(out).metadata["numerics"])
    assert (said["version"], said["layout"]) == (2, 1)
    assert said["tensors"]["w"]["names"] == {"codes": "w", "scale": "w.scale_", "zero_point": "w.zero_point"}
    quantize_file(source, out, "fp8_e4m3")
    assert load_file(out)["w"].shape == (24, 70)
    quantize_file(source, out, "int16")
    assert load_file(out)["w"].dtype == np.uint16


def test_what_one_writes_the_other_reads(tmp_path):
    """Our reader and writer against safetensors' own."""
    path = tmp_path / "a.safetensors"
    plain = {key: x for key, x in TENSORS.items() if x.dtype != ml_dtypes.bfloat16}
    save_file(plain, path, {"a": "b"})
    reader = Reader(path)
    with Writer(tmp_path / "b.safetensors", reader.entries, reader.metadata) as writer:
        for name in reader.entries:
            writer.put(name, 0, reader.raw(name))
    again = load_file(tmp_path / "b.safetensors")
    assert {key: raw(x) for key, x in again.items()} == {key: raw(x) for key, x in plain.items()}
    entries = Reader(tmp_path / "b.safetensors").entries
    assert all(entry.start % min(8, entry.nbytes // max(math.prod(entry.shape), 1) or 1) == 0
               for entry in entries.values())  # fmt: skip


def test_declared_formats_travel_with_the_file(source, tmp_path):
    out = tmp_path / "out.safetensors"
    for d in (
        nx.float_format(3, 1, bias=2, specials="none", name="mine"),
        nx.block_format(block=12, element="int4", name="block_of_mine"),
        nx.block_format(block=16, mantissa=3, sub_block=4),
        nx.block_format(block=16, element="fp4", scale=nx.float_format(5, 3, signed=False, name="ue5m3")),
    ):
        quantize_file(source, out, d)
        q = nx.load(out)["w"]
        assert q.dtype is d
        assert raw(q.dequantize()) == raw(nx.fake_quantize(TENSORS["w"], d))


def test_which_tensors_are_quantized(source, tmp_path):
    out = tmp_path / "out.safetensors"

    def quantized(**options):
        report = quantize_file(source, out, "int8", **options)
        assert [tensor.name for tensor in report.tensors] == list(Reader(source).entries)
        return {tensor.name for tensor in report.tensors if tensor.dtype}

    assert quantized() == set(FLOATS)
    assert quantized(exclude=["w", "?"]) == {"one", "empty", "zero"}
    assert quantized(include=["b*", "ids"]) == {"b", "bias"}
    assert quantized(include=["b*"], exclude=["bias"]) == {"b"}
    with pytest.raises(nx.NumericsError, match="include='x\\*' matches no tensor"):
        quantized(include=["x*"])


def test_the_report_lists_every_tensor_with_its_size_and_error(source, tmp_path):
    out = tmp_path / "out.safetensors"
    seen = []
    report = quantize_file(source, out, "mxfp4", progress=lambda *told: seen.append(told))
    assert report.bytes_before == sum(x.nbytes for x in TENSORS.values())
    assert report.bytes_after == sum(entry.nbytes for entry in Reader(out).entries.values())
    loaded = nx.load(out)
    for tensor in report.tensors:
        if tensor.dtype and tensor.name != "empty":
            q = loaded[tensor.name]
            assert tensor.bytes_after == q.nbytes
            assert tensor.bits == q.bits
            error = q.error(TENSORS[tensor.name])
            assert (tensor.sqnr, tensor.max_error) == (error.sqnr, error.max_error)
    assert seen[-1][1] == seen[-1][2] == report.bytes_before
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


# ---- memory -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), max_size=4), st.sampled_from([1, 3, 4, 6, 8, 16]), st.integers(1, 4),
       st.integers(-1, 3), st.booleans(), st.integers(1, 200))  # fmt: skip
def test_pieces_cover_a_tensor_once_in_order(shape, bits, block, axis, innermost, most):
    axis = axis if 0 <= axis < len(shape) else None
    order = sorted(range(len(shape)), key=lambda a: innermost and a == axis)
    cut = Cut(tuple(shape), tuple(order), bits, axis, block)
    whole = np.arange(math.prod(shape)).reshape(shape)
    pieces = list(cut.pieces(most))
    found = [whole[piece].transpose(order).reshape(-1) for piece in pieces]
    assert np.concatenate([*found, []]).tolist() == whole.transpose(order).reshape(-1).tolist()
    for piece in pieces[:-1]:
        assert size(piece) * bits % 8 == 0
    for piece in pieces:
        if axis is not None:
            assert piece[axis].start % block == 0
            assert piece[axis].stop % block == 0 or piece[axis].stop == shape[axis]
        stretches = [whole.reshape(-1)[first : first + count] for first, count in runs(tuple(shape), piece)]
        assert np.concatenate([*stretches, []]).tolist() == whole[piece].reshape(-1).tolist()


def test_a_piece_draws_what_the_whole_would():
    whole = random_bits(9, (5, 6, 7), (slice(0, 5), slice(0, 6), slice(0, 7)))
    piece = (slice(1, 5), slice(2, 4), slice(0, 7))
    assert raw(random_bits(9, (5, 6, 7), piece)) == raw(whole[piece])


@pytest.mark.turns(6)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mx6", {}),
        ("mx6", {"axis": 0}),
        ("int4", {}),
        ("nvfp4", {}),
        ("int4", {"scheme": "per_group(128)", "symmetric": False}),
    ],
)
def test_memory_is_bounded(tmp_path, monkeypatch, name, options):
    model, out, back = (tmp_path / f"{n}.safetensors" for n in ("model", "out", "back"))
    save_file({"w": np.ones((4, 512, 512), np.float32)}, model)  # 4 MiB
    largest = []
    piece = stream._Source.piece

    def measured(self, part):
        largest.append(size(part))
        return piece(self, part)

    monkeypatch.setattr(stream._Source, "piece", measured)
    budget = 256 << 10
    quantize_file(model, tmp_path / "warm.safetensors", name, max_memory=budget, **options)
    tracemalloc.start()
    quantize_file(model, out, name, max_memory=budget, **options)
    dequantize_file(out, back, max_memory=budget)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(largest) <= budget // BYTES_PER_ELEMENT
    assert peak < 4 * budget + (1 << 19)  # and what Python itself takes
    assert len(largest) > 100


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", ["mx6", "nvfp4"])
@pytest.mark.parametrize("part", [1 << 11, 1 << 13, 1 << 15])
def test_parts_that_are_worked_on_side_by_side_take_no_more_memory(tmp_path, monkeypatch, name, part):
    """A part may be less than a chunk of the sums, and helpers may be late: what is at work is bounded."""
    monkeypatch.setenv("NUMERICS_NUM_THREADS", "3")
    monkeypatch.setattr(stream, "CACHED", part)
    model, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file({"w": np.ones((4, 1024, 1024), np.float32)}, model)  # 16 MiB
    budget = 2 << 20
    quantize_file(model, out, name, max_memory=budget)
    tracemalloc.start()
    quantize_file(model, out, name, max_memory=budget)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < budget + (1 << 19)


# ---- what cannot be, and what is left behind ----------------------------------------------------


@pytest.fixture
def target(tmp_path):
    """A target with an old output, and the promise that it is still there, and nothing else."""
    path = tmp_path / "out.safetensors"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".partial"] == []


@pytest.mark.parametrize(
    ("stop", "error"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit),
        (None, KeyboardInterrupt),
        (None, RuntimeError),
    ],
)
def test_an_interrupted_run_leaves_the_old_output(source, target, stop, error):
    def progress(name, done, total):
        if done > total // 2:
            stop() if stop else None
            raise error

    with pytest.raises(error) as caught:
        quantize_file(source, target, "mx6", progress=progress, max_memory=SMALL)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if error is SystemExit:
        assert caught.value.code == 128 + signal.SIGTERM


def test_a_full_disk_leaves_the_old_output_and_no_other_file(source, target, monkeypatch):
    fill_up(monkeypatch, 3)
    with pytest.raises(
        nx.NumericsError, match=f"cannot write {target}: No space left on device; the disk is full"
    ):
        quantize_file(source, target, "mx6")
    fill_up(monkeypatch, 0)
    with pytest.raises(nx.NumericsError, match="the disk is full"):
        quantize_file(source, target, "mx6")


def test_a_disk_that_really_refuses(tmp_path, target):
    model = tmp_path / "model.safetensors"
    save_file({"w": np.ones((512, 512), np.float32)}, model)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(nx.NumericsError, match=f"cannot write {target}: File too large"):
            quantize_file(model, target, "mx9")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_output_may_not_be_the_input(source, tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(source.read_bytes())
    (tmp_path / "soft").symlink_to(model)
    os.link(model, tmp_path / "hard")
    for name in ("model.safetensors", "soft", "hard", f"../{tmp_path.name}/model.safetensors"):
        for verb in (lambda out: quantize_file(model, out, "mx6"), lambda out: dequantize_file(model, out)):
            with pytest.raises(nx.NumericsError, match="is the input; name another file"):
                verb(tmp_path / name)
    assert model.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "place", ["missing/out.safetensors", "file/out.safetensors", "folder", "/proc/out.safetensors"]
)
def test_a_place_that_cannot_be_written(source, tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(nx.NumericsError, match=f"cannot write .*{place}: .*; (nothing|that file) was "):
        quantize_file(source, tmp_path / place, "mx6")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_link_is_followed_and_replaced_at_its_end(source, tmp_path):
    real, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    real.write_bytes(b"old")
    link.symlink_to(real)
    quantize_file(source, link, "mx6")
    assert link.is_symlink()
    assert raw(nx.load(real)["w"].dequantize()) == raw(nx.fake_quantize(TENSORS["w"], "mx6"))


def test_options_that_do_not_fit_name_the_tensor(source, target):
    with pytest.raises(nx.NumericsError, match=r"tensor '.*': axis 2 does not exist in shape"):
        quantize_file(source, target, "mx6", axis=2)
    with pytest.raises(
        nx.NumericsError, match="unknown format 'mx7'; there is none of 7 bits: did you mean 'mx6'"
    ):
        quantize_file(source, target, "mx7")
    with pytest.raises(nx.NumericsError, match="needs either seed"):
        quantize_file(source, target, "mx6", rounding="stochastic")
    with pytest.raises(nx.NumericsError, match="max_memory=1 bytes are too few"):
        quantize_file(source, target, "mx6", max_memory=1)


def test_a_file_that_was_quantized_is_not_quantized_again(source, tmp_path):
    quantize_file(source, tmp_path / "a", "mx6")
    with pytest.raises(nx.NumericsError, match="was quantized already"):
        quantize_file(tmp_path / "a", tmp_path / "b", "mx6")
    with pytest.raises(nx.NumericsError, match="nothing to dequantize"):
        dequantize_file(source, tmp_path / "b")


def made(header, data=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGED = [
    (b"", "0 bytes are too few"),
    (b"1234567", "7 bytes are too few"),
    (made(b"{}", length=1 << 62), "a header of 4611686018427387904 bytes is announced, and 2 bytes follow"),
    (made(b"{"), "the header is not JSON"),
    (made(b"\xff\xfe"), "the header is not JSON"),
    (made(b"[" * 100_000), "the header is not JSON"),
    (made([1]), "the header is not a JSON object"),
    (made(b'{"a": 1, "a": 2}'), "a name stands twice"),
    (made(b'{"\\ud800": 1}'), "the header is not JSON"),
    (made({"__metadata__": {"a": 1}}), "__metadata__ is not a table of strings"),
    (made({"a": 3}), "tensor 'a' lacks"),
    (made({"a": {"dtype": "F32"}}), "tensor 'a' lacks"),
    (made({"a": entry("F33")}, b"8" * 8), "unknown type 'F33'; known: F64"),
    (made({"a": entry(["F32"])}, b"8" * 8), "unknown type"),
    (made({"a": entry(shape=(-2,))}, b"8" * 8), r"the shape \[-2\]"),
    (made({"a": entry(shape=(2.0,))}, b"8" * 8), r"the shape \[2.0\]"),
    (made({"a": entry(shape=(True,))}, b"8" * 8), r"the shape \[True\]"),
    (made({"a": entry(offsets=(0, 8, 9))}, b"8" * 8), "the data_offsets"),
    (made({"a": entry(offsets=(0, 4))}, b"8" * 4), r"does not fill \[0, 4\]"),
    (made({"a": entry(shape=(10**30,), offsets=(0, 8))}, b"8" * 8), "does not fill"),
    (made({"a": entry()}, b"8" * 4), "its tensors take 8 bytes, and 4 bytes follow"),
    (made({"a": entry()}, b"8" * 12), "its tensors take 8 bytes, and 12 bytes follow"),
    (made({"a": entry(), "b": entry(offsets=(4, 12))}, b"8" * 12), "'b' at 4 overlaps the one before it"),
    (made({"a": entry(), "b": entry(offsets=(12, 20))}, b"8" * 20), "'b' at 12 leaves a gap"),
]


@pytest.mark.parametrize(("content", "said"), DAMAGED)
def test_a_damaged_source_is_named(tmp_path, target, content, said):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    for verb in (nx.load, lambda p: quantize_file(p, target, "mx6"), lambda p: dequantize_file(p, target)):
        with pytest.raises(nx.NumericsError, match=f"{path} is not a whole safetensors file: .*{said}"):
            verb(path)


def test_a_source_that_is_not_there(tmp_path, target):
    with pytest.raises(nx.NumericsError, match=r"cannot read .*nothing: No such file"):
        quantize_file(tmp_path / "nothing", target, "mx6")
    with pytest.raises(nx.NumericsError, match=r"cannot read .*: Is a directory"):
        nx.load(tmp_path)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantized") / "q.safetensors"
    x = {"w": TENSORS["w"][:4], "bias": TENSORS["bias"]}
    save_file(x, path.with_name("model.safetensors"))
    quantize_file(path.with_name("model.safetensors"), path, "int4", scheme="per_group(16)", symmetric=False)
    return path.read_bytes()


def test_every_truncation_is_noticed(quantized, tmp_path):
    path = tmp_path / "cut.safetensors"
    for length in range(0, len(quantized), 7):
        path.write_bytes(quantized[:length])
        with pytest.raises(nx.NumericsError, match=str(path)):
            nx.load(path)


@settings(max_examples=300)
@given(st.data())
def test_a_changed_header_is_read_or_refused(quantized, tmp_path_factory, data):
    """Nothing but NumericsError comes out, whatever one byte of the header becomes."""
    length = int.from_bytes(quantized[:8], "little") + 8
    changed = bytearray(quantized)
    changed[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(32, 126))
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(changed)
    with suppress(nx.NumericsError):
        for value in nx.load(path).values():
            value.dequantize() if isinstance(value, nx.QTensor) else value.sum()
        dequantize_file(path, path.with_name("changed.back"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda said: said.update(version=3), "version and layout"),
        (lambda said: said.pop("recipes"), "cannot be read: KeyError"),
        (lambda said: said["recipes"][0].update(scheme="per_row"), "unknown scheme 'per_row'"),
        (lambda said: said["recipes"][0]["dtype"].update(kind="complex"), "does not describe a format"),
        (lambda said: said["recipes"][0]["dtype"].update(bits=99), "99"),
        (lambda said: said["tensors"]["w"].update(recipe=1), "recipe 1 is not one of the 1"),
        (lambda said: said["tensors"]["w"].update(shape=[4, -70]), "is no shape of 'w'"),
        (lambda said: said["tensors"]["w"].update(shape=[4, 71]), "the codes of 'w' should be"),
        (lambda said: said["tensors"]["w"].update(original="int8"), "'w' cannot stand for 'int8'"),
        (lambda said: said["tensors"]["w"]["names"].update(scale="bias"), "the scale of 'w' should be"),
        (lambda said: said["tensors"]["w"]["names"].update(scale="gone"), "not nothing"),
        (lambda said: said["tensors"].update(bias=said["tensors"]["w"]), "'bias' stands for two tensors"),
    ],
)
def test_a_wrong_text_is_named(quantized, tmp_path, change, said):
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(quantized)
    reader = Reader(path)
    text = json.loads(reader.metadata["numerics"])
    change(text)
    with Writer(tmp_path / "changed", reader.entries, {"numerics": json.dumps(text)}) as writer:
        for name in reader.entries:
            writer.put(name, 0, reader.raw(name))
    for verb in (nx.load, lambda p: dequantize_file(p, tmp_path / "back")):
        with pytest.raises(nx.NumericsError, match=f"changed: what it says of its quantization .*{said}"):
            verb(tmp_path / "changed")
    assert not (tmp_path / "back").exists()


def test_bfloat16_without_ml_dtypes(source, tmp_path, monkeypatch):
    quantize_file(source, tmp_path / "q", "mx6", include=["w"])
    quantize_file(source, tmp_path / "b", "mx6", include=["b"])
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(nx.NumericsError, match=r"tensor 'b' is BF16, .*pip install ml_dtypes"):
        nx.load(tmp_path / "q")
    dequantize_file(tmp_path / "b", tmp_path / "back")
    assert Reader(tmp_path / "back").entries["b"].dtype == "BF16"
    q = nx.load(tmp_path / "b")["b"]
    assert q.dequantize("float32").dtype == np.float32
    with pytest.raises(nx.NumericsError, match="pip install ml_dtypes"):
        q.dequantize()


@pytest.mark.parametrize("scheme", ["per_tensor", "per_channel(0)", "per_group(16)"])
@pytest.mark.parametrize("max_memory", [SMALL, LARGE])
def test_what_an_unsigned_format_loses_is_said_once_a_tensor(tmp_path, scheme, max_memory):
    """Nothing was said of scales that pieces share, and of each piece again where they do not."""
    x = RNG.standard_normal((8, 64)).astype(np.float32)
    nx.save({"w": x, "positive": abs(x)}, tmp_path / "x.safetensors")
    lost = f"tensor 'w': {(x < 0).sum()} of 512 values are negative and become 0: uint4 is unsigned"
    with pytest.warns(nx.NumericsWarning) as said:
        quantize_file(
            tmp_path / "x.safetensors",
            tmp_path / "q.safetensors",
            "uint4",
            scheme=scheme,
            max_memory=max_memory,
        )
    assert [str(warned.message).split(";")[0] for warned in said] == [lost]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype, options in (("uint4", {"symmetric": False}), ("int4", {})):
            quantize_file(
                tmp_path / "x.safetensors", tmp_path / "q.safetensors", dtype, scheme=scheme, **options
            )
