"""Files of any kind as tensors by name: one opened file, and its tensors one at a time, or all at once."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from numerics.backends.paths import path_of
from numerics.checkpoints.foreign import Weight, read, weights_of
from numerics.checkpoints.gguf_file import MAGIC, GGUFFile, scale_name
from numerics.checkpoints.pickles import OpenedPickle, OpenedPickles, holds_pickles
from numerics.checkpoints.torchao_file import weights_in
from numerics.files import kinds
from numerics.files.arrays import ENDINGS as ARRAYS
from numerics.files.arrays import ArrayFile
from numerics.files.checkpoint import PathLike
from numerics.files.companions import json_of, quantization_config
from numerics.files.header import KEY, Plan, plans_of
from numerics.files.safetensors import BITS, LONGEST_HEADER, Reader, may_be_one
from numerics.files.save_load import LIBRARIES
from numerics.files.shards import Source
from numerics.files.stream import Shared, qtensor
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, one_of, warn
from numerics.pytorch.convert import as_tensors
from numerics.tensor.qtensor import QTensor

TOLD = (
    "bits", "w_bit", "group_size", "checkpoint_format", "weight_block_size", "num_bits", "activation_scheme",
)  # fmt: skip
"""What is read of a quantization_config."""


class Stored(NamedTuple):
    """A tensor as the file has it.

    kind: in the words of who wrote it, GGUF's type or the tool; None where what `tensor` gives says it.
    nbytes: of it and of all that belongs to it, scales included.
    """

    kind: str | None
    nbytes: int


class Opened(Protocol):
    """A file, or a folder of them, that is open: names of its tensors, and why some of them stay codes.

    left: of tensors that another tool quantized and that are no QTensor here, the reason; filled as they
    are read.  ties: further names of tensors, each with the one among `names`.
    """

    path: Path
    left: dict[str, str]
    ties: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Of its tensors: weights with their own name, whatever they consist of."""
        ...

    @property
    def quantized(self) -> bool:
        """Does it say that one of its tensors is quantized?  No tensor is read for it."""

    def tensor(self, name: str) -> Any:
        """A tensor: an array, or a QTensor of arrays.  Raises NumericsError for one that is damaged."""

    def stored(self, name: str) -> Stored | None:
        """How the file has a tensor; None where it has it as `tensor` gives it.  Its numbers are not read."""


@keywords
def open_any(path: PathLike, *, mapped: bool = True) -> Opened:
    """Opens a file of any kind that is known, or a folder.

    mapped: tensors of .safetensors files are views of them, which must not be cut while they are used; else
    each is read into memory of its own when it is asked for.

    Known are .safetensors files and PyTorch's pickles (tensors only), folders of either and their indexes,
    GGUF files, ONNX models, and NumPy's .npy and .npz.  Raises NumericsError, naming it, for what is none of
    them.
    """
    came = path_of(path)
    if holds_pickles(came):
        return OpenedPickles(came)
    if os.path.isdir(came) or came.name.endswith(".index.json"):
        return OpenedSafetensors(came, mapped)
    first = kinds.first_of(came)
    if came.suffix in ARRAYS:
        return OpenedArrays(came)
    if first.startswith(MAGIC):
        return OpenedGGUF(came)
    what = "" if may_be_one(first) else kinds.known(first) or ""
    if "PyTorch pickle" in what:
        return OpenedPickle(came)
    if "NumPy" in what:
        return OpenedArrays(came)
    if "ONNX" in what:
        return OpenedONNX(came)
    return OpenedSafetensors(came, mapped)


@keywords
def load(path: PathLike, *, library: str = "numpy") -> dict[str, Any]:
    """Returns the tensors of a file of any kind, or of a folder, by name; quantized ones as QTensors.

    path: as for `open_any`.  library: whose arrays come back: "numpy" (the default) or "torch".  Weights of
    other tools become QTensors without being dequantized where a format and a scheme here hold their values;
    else their codes and scales come as they are, with a NumericsWarning (docs/checkpoints.md has the table).
    Raises NumericsError for a file that is damaged or of no known kind.

    >>> import numerics as nx, numpy as np, tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     blocks, scales = np.full((2, 1, 16), 0x22, np.uint8), np.full((2, 1), 128, np.uint8)
    ...     save_file({"w_blocks": blocks, "w_scales": scales}, f"{folder}/gpt-oss.safetensors")
    ...     load(f"{folder}/gpt-oss.safetensors")
    {'w': QTensor(mxfp4, shape=(2, 32), axis=-1, 4.25 bits a value)}
    """
    one_of("library", library, LIBRARIES)
    return loaded(open_any(path), library)


def loaded(opened: Opened, library: str = "numpy") -> dict[str, Any]:
    """All tensors of a file that is open, as `load` gives them."""
    found = {name: opened.tensor(name) for name in opened.names}
    for name, why in list(opened.left.items())[:1]:
        warn(f"{opened.path}: {len(opened.left)} quantized weights came as no QTensor, such as {name}: {why}")
    if library == "torch":
        found = {name: as_tensors(x) if isinstance(x, QTensor) else _torch(x) for name, x in found.items()}
    return found | {name: found[kept] for name, kept in opened.ties.items()}


def _torch(x: Any) -> Any:
    """An array as a tensor; of what NumPy lacks as torch has it, and F4 and F6 as one code a byte."""
    import torch

    if x.dtype.isbuiltin == 1:
        return torch.from_numpy(np.array(x))
    own, words = getattr(torch, x.dtype.name, None), x.view(f"{'u' if x.itemsize == 1 else 'i'}{x.itemsize}")
    found = torch.from_numpy(np.array(words))
    return found.view(own) if isinstance(own, torch.dtype) else found


# ---- safetensors ------------------------------------------------------------------------------------


class OpenedSafetensors:
    """A .safetensors file or a folder of shards: ours, other tools', or plain."""

    def __init__(self, path: PathLike, mapped: bool = True) -> None:
        self.source, self._mapped = Source(path, own=True), mapped
        self.path = self.source.path
        self.left: dict[str, str] = {}
        self._readers: dict[str, Reader] = {}
        self._plans: dict[str, Plan] = {}
        taken: set[str] = set()
        for shard in self.source.shards:
            if KEY in shard.metadata:
                found = plans_of(shard.metadata[KEY], shard.entries, shard.path)
                self._plans |= found
                taken |= {part for plan in found.values() for part in plan.names.values()}
        others = {name: entry for name, entry in self.source.entries.items() if name not in taken}
        self.config = quantization_of(self.path if self.source.folder else self.path.parent)
        self.weights: dict[str, Weight] = {}
        theirs = [weight for shard in self.source.shards for weight in weights_in(shard.metadata, others)]
        for weight in (*theirs, *weights_of(others).values()):
            if not taken.isdisjoint(weight.parts.values()):
                continue  # torchao's, whatever its names look like
            if weight.name in others and weight.name != weight.parts["codes"]:
                continue  # two would have one name
            self.weights[weight.name] = weight
            taken |= set(weight.parts.values())
        self._names = [*self._plans, *self.weights, *(name for name in others if name not in taken)]
        self.ties = self._ties()

    @property
    def names(self) -> list[str]:
        """Of weights, ours and others', and of all else."""
        return self._names

    def _ties(self) -> dict[str, str]:
        """What the shards say of tied tensors, of weights by their names."""
        names = set(self._names)
        for alias, name in self.source.ties.items():
            if alias in names or name not in names:
                raise NumericsError(f"{self.path}: {alias!r} is tied to {name!r}, which cannot be")
        return self.source.ties

    @property
    def folder(self) -> bool:
        """Is it a folder, with what lies beside the shards?"""
        return self.source.folder

    @property
    def files_beside(self) -> list[Path]:
        """Configuration, tokenizer and what else lies beside the shards."""
        return self.source.beside

    def said_of_not_copied(self) -> list[str]:
        """One line that names what is not copied, where there is anything."""
        return self.source.said_of_not_copied()

    @property
    def quantized(self) -> bool:
        """As Opened says."""
        return bool(self._plans or self.weights)

    def reader(self, name: str) -> Reader:
        """The reader of the shard that has a tensor of the file."""
        shard = self.source.shard_of[name]
        if shard.name not in self._readers:
            self._readers = {shard.name: shard.open(self._mapped)}  # one at a time
        return self._readers[shard.name]

    def shard(self, name: str) -> str:
        """Which shard has a tensor, of weights their codes."""
        return self.source.shard_of[self.codes(name)].name

    def codes(self, name: str) -> str:
        """The tensor of the file that holds the codes of a weight; of others itself."""
        if name in self._plans:
            return self._plans[name].names["codes"]
        return self.weights[name].parts["codes"] if name in self.weights else name

    def tensor(self, name: str) -> Any:
        """As Opened says; a weight that is no QTensor here gives its codes."""
        if name in self._plans:
            plan, reader = self._plans[name], self.reader(self._plans[name].names["codes"])
            return qtensor(plan, plan.shape, reader.raw(plan.names["codes"]), Shared.read(reader, plan))
        if name not in self.weights:
            return self.reader(name).tensor(name)
        weight = self.weights[name]
        found = read(
            weight, self.source.entries, lambda part: np.array(self.reader(part).raw(part)), self.config
        )
        if isinstance(found, QTensor):
            return found
        self.left[name] = found
        codes = weight.parts["codes"]
        return self.reader(codes).tensor(codes)

    def stored(self, name: str) -> Stored | None:
        """As Opened says; a weight of other tools is named by them."""
        kind = self.weights[name].source if name in self.weights else None
        return Stored(kind, sum(self.source.entries[part].nbytes for part in self.parts(name)))

    def parts(self, name: str) -> list[str]:
        """The tensors of the files that any tensor consists of, ours, other tools' or plain."""
        return list(self._plans[name].names.values()) if name in self._plans else self.beside(name)

    def beside(self, name: str) -> list[str]:
        """The tensors of the file that a weight consists of."""
        return list(self.weights[name].parts.values()) if name in self.weights else [name]


def quantization_of(folder: Path) -> dict[str, Any]:
    """What a folder says of its quantization; nothing where it says nothing that is understood."""
    found: dict[str, Any] = {}
    told = quantization_config(folder)
    if told is not None:
        found = {name: told[name] for name in TOLD if name in told}
        groups = told.get("config_groups")
        if isinstance(groups, Mapping):
            every = [one.get("input_activations") for one in groups.values() if isinstance(one, Mapping)]
            found["input_activations"] = next(filter(None, every), None)
        if isinstance(groups, Mapping) and len(groups) == 1:
            group: Any = next(iter(groups.values()))
            weights: Any = group.get("weights") if isinstance(group, Mapping) else None
            if isinstance(weights, Mapping):
                said_of_weights = ("num_bits", "group_size", "block_structure")
                found |= {name: weights[name] for name in said_of_weights if name in weights}
    said = json_of(folder / "config.json")
    kind = said.get("torch_dtype", said.get("dtype"))
    return {**found, "dtype": kind} if isinstance(kind, str) else found


# ---- other files ------------------------------------------------------------------------------------


class OpenedGGUF:
    """A GGUF file."""

    def __init__(self, path: PathLike) -> None:
        self.file = GGUFFile(path)
        self.path = self.file.path
        self.left: dict[str, str] = {}
        self.ties: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Of its tensors, but those that hold the tensor scale of another."""
        entries = self.file.entries
        beside = {scale_name(name) for name in entries if self.file.has_scale(name)}
        return [name for name in entries if name not in beside]

    @property
    def quantized(self) -> bool:
        """As Opened says."""
        return any(place.kind not in BITS for place in self.file.entries.values())

    def tensor(self, name: str) -> Any:
        """As Opened says; of what no QTensor holds the values."""
        found = self.file.tensor(name)
        if not isinstance(found, str):
            return found
        values = self.file.decoded(name)
        self.left[name] = f"{found}; its values came as float32"
        return values

    def stored(self, name: str) -> Stored:
        """As Opened says; each has a type of ggml's."""
        size = sum(self.file.entries[part].nbytes for part in self.file.parts(name))
        return Stored(self.file.entries[name].kind, size)


class OpenedONNX:
    """The initializers of an ONNX model."""

    def __init__(self, path: PathLike) -> None:
        try:
            import onnx
        except ImportError as missing:
            raise NumericsError(f"{path} is an ONNX model: pip install onnx") from missing
        self.path = path_of(path)
        self.left: dict[str, str] = {}
        self.ties: dict[str, str] = {}
        try:
            if self.path.stat().st_size > 1 << 31:
                raise NumericsError(f"{self.path} is longer than a protobuf can be")
            model = onnx.load(str(self.path), load_external_data=False)
        except NumericsError:
            raise
        except Exception as wrong:  # whatever protobuf raises
            raise NumericsError(f"cannot read {self.path}: {wrong!s:.300}") from wrong
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    @property
    def names(self) -> list[str]:
        """Of its initializers."""
        return list(self._tensors)

    @property
    def quantized(self) -> bool:
        """As Opened says: its numbers are plain."""
        return False

    def tensor(self, name: str) -> Any:
        """As Opened says; raises NumericsError for data in a file beside the model."""
        from onnx import numpy_helper

        tensor = self._tensors[name]
        if tensor.data_location == tensor.EXTERNAL:
            raise NumericsError(
                f"{self.path}: {name!r} lies in another file; write the model again with its data inside"
            )
        try:
            return numpy_helper.to_array(tensor)
        except Exception as wrong:  # whatever onnx raises
            raise NumericsError(f"{self.path}: initializer {name!r}: {wrong!s:.300}") from wrong

    def stored(self, name: str) -> Stored:
        """As Opened says: initializers are plain, those of fewer than 8 bits without gaps."""
        from onnx import TensorProto, helper

        tensor = self._tensors[name]
        kind, count = TensorProto.DataType.Name(tensor.data_type), math.prod(tensor.dims)
        narrow = re.search(r"INT([124])$|(4)E2M1$", kind)
        bits = int(narrow[1] or narrow[2]) if narrow else 8 * self._itemsize(helper, tensor.data_type)
        return Stored(None, -(-count * bits // 8))

    @staticmethod
    def _itemsize(helper: Any, kind: int) -> int:
        try:
            return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
        except Exception as wrong:  # of types that onnx has no numbers for
            raise NumericsError(f"type {kind} of an initializer cannot be read: {wrong!s:.100}") from wrong


class OpenedArrays:
    """A file of NumPy's: an array, or several in a zip."""

    def __init__(self, path: PathLike) -> None:
        self.file = ArrayFile(path)
        self.path, self.names = self.file.path, self.file.names
        self.left: dict[str, str] = {}
        self.ties: dict[str, str] = {}

    @property
    def quantized(self) -> bool:
        """As Opened says: its numbers are plain."""
        return False

    def tensor(self, name: str) -> Any:
        """As Opened says."""
        return self.file.array(name)

    def stored(self, name: str) -> None:
        """As Opened says: arrays are plain."""


__all__ = ["LONGEST_HEADER", "Opened", "load", "open_any", "quantization_of"]
