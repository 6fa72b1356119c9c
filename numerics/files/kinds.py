"""Files of other kinds, known by their first bytes: what they are, and the way from them to safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from numerics.backends.paths import check_regular
from numerics.files.nested import Found, Keys, at, by_name, every, model_in, place_of, tensors_in
from numerics.files.pickled import MODULE, Held, Thing, held_in
from numerics.formats.errors import NumericsError

PathLike = str | os.PathLike[str]
_TORCH = "a PyTorch pickle"
_NAMED = "numerics.files.nested.by_name"  # of dicts in dicts
_GGUF = (
    "a GGUF file; numerics.checkpoints.loading.load reads it, `numerics convert FILE OUT.safetensors` makes "
    "one of these of it, quantized as it is, and `numerics dequantize FILE OUT.safetensors` one of floats, "
    "which can be quantized"
)
_GGML = "a file of ggml's older kinds, whose tensors are quantized; take the model's original .safetensors"
_READ = (
    "numerics.checkpoints.loading.load reads it, and `numerics convert FILE OUT.safetensors` makes one of "
    "these of it"
)
_NUMPY = f"a NumPy array; {_READ}"
_NPZ = f"NumPy arrays in a zip; {_READ}"
_HDF5 = "an HDF5 file, as Keras writes; read it with h5py and write its arrays with nx.save"
_ONNX = (
    "an ONNX model; numerics ipu quantize takes it whole, for AMD's NPU, and "
    "nx.save({i.name: onnx.numpy_helper.to_array(i) ...}) writes its initializers as a checkpoint"
)
_TFLITE = "a TensorFlow Lite model, whose tensors its own tools read"
_LFS = "a Git LFS pointer; fetch the file itself with `git lfs pull`"
_HTML = "an HTML page, not what its address should give; download it again"
_JSON = (
    "JSON, as the index of a sharded model; numerics.checkpoints.loading.load reads such an index, and "
    "else give the .safetensors files that it names, one by one"
)
_REPORT = "JSON of a model's report; `numerics explore` and `numerics plot model` take it"
_PICTURE = "a picture; `numerics plot image` draws it in formats"
_PDF = "a PDF document"
_PARQUET = "a Parquet file, whose tables its own tools read"
_TEXT = "text, which has no tensors"
_PACKED = "a compressed file; unpack it first"
_CUT_ZIP = "a zip, as torch.save and np.savez write it, that is damaged or cut short"
MAGICS = (
    (b"GGUF", _GGUF), (b"ggml", _GGML), (b"lmgg", _GGML), (b"\x93NUMPY", _NUMPY),
    (b"\x89HDF\r\n\x1a\n", _HDF5),
    *((magic, _PICTURE) for magic in (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8")), (b"%PDF-", _PDF),
    (b"PAR1", _PARQUET),
    (b"version https://git-lfs", _LFS), (b"\x1f\x8b", _PACKED), (b"BZh", _PACKED), (b"\xfd7zXZ\x00", _PACKED),
    (b"\x28\xb5\x2f\xfd", _PACKED), (b"7z\xbc\xaf\x27\x1c", _PACKED),
    *((b"\x80" + bytes([protocol]), _TORCH) for protocol in range(2, 6)),
)  # fmt: skip
LOOKED_AT = 4096  # bytes


def known(first: bytes | bytearray, path: PathLike | None = None) -> str | None:
    """What a file that begins so is, and what to do with it; None where it is nothing known.

    path: its, where what it has further inside is looked at, too.

    >>> known(b"version https://git-lfs.github.com/spec/v1")
    'a Git LFS pointer; fetch the file itself with `git lfs pull`'
    """
    for magic, said in MAGICS:
        if first.startswith(magic):
            return _of_torch(path) if said is _TORCH else said
    if first.startswith(b"PK\x03\x04"):
        return _of_zip(first, path)
    if first[4:8] == b"TFL3":
        return _TFLITE
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return _HTML
    if text[:1] in (b"{", b"["):
        return _REPORT if b'"layers"' in first and b'"weight_map"' not in first else _JSON
    if _is_onnx(first):
        return _ONNX
    return _TEXT if _is_text(first) else None


def first_of(path: Path) -> bytes:
    """The bytes with which a file begins; raises NumericsError for what is no file that can be read."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            return file.read(LOOKED_AT)
    except OSError as wrong:
        raise NumericsError(f"cannot read {path}: {wrong.strerror or wrong}") from wrong


def _of_zip(first: bytes | bytearray, path: PathLike | None) -> str:
    """Returns what a zip is by its first member: torch's is archive/data.pkl, NumPy's name.npy."""
    name = first[30 : 30 + int.from_bytes(first[26:28], "little")]
    if name.endswith(b".npy"):
        return _NPZ
    if b"data.pkl" in first or name.endswith((b".pkl", b"/version", b"/byteorder")):
        return _of_torch(path)
    return _PACKED if path is None or is_zipfile(path) else _CUT_ZIP


def _of_torch(path: PathLike | None) -> str:
    """Where the tensors of a file of torch.save lie, and what writes them again."""
    try:
        held = None if path is None else held_in(path)
        found = None if held is None else model_in(held.root, _is_tensor)
    except NumericsError:  # nested too deep
        held = found = None
    if held is None or found is None:
        return f"{_TORCH}; write the state_dict in it again with nx.save(state, 'out.safetensors')"
    places = found.places
    modules = [keys for keys, one in every(held.root) if one is MODULE]
    if places:
        way, under = _dict_of(at(held.root, places[0]), _loaded(held, places[0])), _said_under(places, found)
    elif modules:
        way, under = f"{_loaded(held, modules[0])}.state_dict()", ""
    elif isinstance(held.root, list) and any(map(_is_tensor, held.root)):
        way, under = f"{{str(k): x for k, x in enumerate({_loaded(held, ())})}}", ""
    elif _is_tensor(held.root):
        way, under = f"{{'tensor': {_loaded(held, ())}}}", ""
    else:
        calls = "" if held.is_safe else "; it would run code of its own wherever it is loaded: do not load it"
        return f"{_TORCH}, in which no tensors lie by name{calls}"
    what = f"{_TORCH} of a whole module" if not places and modules == [()] else _TORCH
    trusted = "" if held.is_safe else "where you trust it, "
    if len(places) == 1 and held.is_safe:
        command = "`numerics convert FILE OUT.safetensors` makes one of these of it"
        if way.startswith(_NAMED):
            return f"{what}; {command}{under}"
        return f"{what}; {command}, or write it again with nx.save({way}, 'out.safetensors'){under}"
    return f"{what}; {trusted}write it again with nx.save({way}, 'out.safetensors'){under}"


def _is_tensor(one: Any) -> bool:
    return isinstance(one, Thing) and one.is_tensor


def _loaded(held: Held, keys: Keys) -> str:
    """The expression that reads what lies there in a file."""
    return f"torch.load(path, weights_only={held.is_safe}){place_of(keys)}"


def _dict_of(one: Mapping[Any, Any], loaded: str) -> str:
    """The expression that gives its tensors, and nothing beside them, by name."""
    if all(isinstance(key, str) and _is_tensor(value) for key, value in one.items()):
        return loaded
    if len(by_name(one, _is_tensor)) > tensors_in(one, _is_tensor):
        return f"{_NAMED}({loaded}, torch.is_tensor)"
    return f"{{str(k): x for k, x in {loaded}.items() if torch.is_tensor(x)}}"


def _said_under(places: list[Keys], found: Found) -> str:
    """Where the tensors lie, and others beside them."""
    first, *others = map(place_of, [*places, *found.beside][:4])
    beside = f"; others lie under {', '.join(filter(None, others))}" if any(others) else ""
    return (", as its tensors lie under that name" if first else "") + beside


def _is_onnx(first: bytes | bytearray) -> bool:
    """A protobuf that begins as ModelProto: ir_version, and the producer's name or what comes later."""
    return (
        len(first) > 3 and first[0] == 0x08 and 1 <= first[1] <= 32 and first[2] in (0x12, 0x1A, 0x3A, 0x42)
    )


def _is_text(first: bytes | bytearray) -> bool:
    """Is there nothing that no text has?  A safetensors file begins with a length, whose last bytes are 0."""
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        return True
    return len(first) >= 8 and not any(byte < 32 and byte not in b"\t\n\v\f\r" for byte in first)
