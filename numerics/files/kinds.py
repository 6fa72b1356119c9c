"""Files of other kinds, known by their first bytes: what they are, and the way from them to safetensors."""

from __future__ import annotations

_TORCH = (
    "a PyTorch pickle; write it again with nx.save(torch.load(path, weights_only=True){}, 'out.safetensors')"
)
_UNDER = ", as its tensors lie under that name"
_MODULE = (
    "a PyTorch pickle of a whole module; where you trust it, write it again with "
    "nx.save(torch.load(path, weights_only=False).state_dict(), 'out.safetensors')"
)
NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "ema")
"""Where training scripts put a state dict, beside other things."""
_GGUF = (
    "a GGUF file; numerics.checkpoints.loading.load reads it, and `numerics convert FILE OUT.safetensors` "
    "makes one of these of it"
)
_GGML = "a file of ggml's older kinds, whose tensors are quantized; take the model's original .safetensors"
_NUMPY = "a NumPy array; write it again with nx.save({'name': numpy.load(path)}, 'out.safetensors')"
_NPZ = "NumPy arrays in a zip; write them again with nx.save(dict(numpy.load(path)), 'out.safetensors')"
_HDF5 = "an HDF5 file, as Keras writes; read it with h5py and write its arrays with nx.save"
_ONNX = "an ONNX model; write its initializers with nx.save({i.name: onnx.numpy_helper.to_array(i) ...})"
_TFLITE = "a TensorFlow Lite model, whose tensors its own tools read"
_LFS = "a Git LFS pointer; fetch the file itself with `git lfs pull`"
_HTML = "an HTML page, not what its address should give; download it again"
_JSON = (
    "JSON, as the index of a sharded model; numerics.checkpoints.loading.load reads such an index, and "
    "else give the .safetensors files that it names, one by one"
)
_TEXT = "text, which has no tensors"
_PACKED = "a compressed file; unpack it first"
MAGICS = (
    (b"GGUF", _GGUF), (b"ggml", _GGML), (b"lmgg", _GGML), (b"\x93NUMPY", _NUMPY),
    (b"\x89HDF\r\n\x1a\n", _HDF5),
    (b"version https://git-lfs", _LFS), (b"\x1f\x8b", _PACKED), (b"BZh", _PACKED), (b"\xfd7zXZ\x00", _PACKED),
    (b"\x28\xb5\x2f\xfd", _PACKED), (b"7z\xbc\xaf\x27\x1c", _PACKED),
    *((b"\x80" + bytes([protocol]), _TORCH) for protocol in range(2, 6)),
)  # fmt: skip
LOOKED_AT = 4096  # bytes


def known(first: bytes | bytearray) -> str | None:
    """What a file that begins so is, and what to do with it; None where it is nothing known.

    >>> known(b"version https://git-lfs.github.com/spec/v1")
    'a Git LFS pointer; fetch the file itself with `git lfs pull`'
    """
    for magic, said in MAGICS:
        if first.startswith(magic):
            return _of_torch(first) if said is _TORCH else said
    if first.startswith(b"PK\x03\x04"):
        return _of_zip(first)
    if first[4:8] == b"TFL3":
        return _TFLITE
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return _HTML
    if text[:1] in (b"{", b"["):
        return _JSON
    if _is_onnx(first):
        return _ONNX
    return _TEXT if _is_text(first) else None


def _of_zip(first: bytes | bytearray) -> str:
    """Returns what a zip is by its first member: torch's is archive/data.pkl, NumPy's name.npy."""
    name = first[30 : 30 + int.from_bytes(first[26:28], "little")]
    if name.endswith(b".npy"):
        return _NPZ
    if b"data.pkl" in first or name.endswith((b".pkl", b"/version", b"/byteorder")):
        return _of_torch(first)
    return _PACKED


def _of_torch(first: bytes | bytearray) -> str:
    """Of the texts with which its pickle begins: a module's class, or the name that holds the state dict."""
    if b"ctorch.nn.modules." in first:
        return _MODULE
    for name in NESTED:
        if b"X" + len(name).to_bytes(4, "little") + name.encode() in first:  # pickle's BINUNICODE
            return _TORCH.format(f"[{name!r}]") + _UNDER
    return _TORCH.format("")


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
