"""What a checkpoint has: one safetensors file, or a folder of shards with the index of Hugging Face's."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numerics.backends.paths import path_of
from numerics.files.header import KEY, already_quantized
from numerics.files.json_members import Members
from numerics.files.replacement import replace_file
from numerics.files.safetensors import Entry, Reader, header_bytes
from numerics.files.ties import ties_of
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, said
from numerics.view.text import folded

SINGLE = "model.safetensors"  # the only file that readers look for without an index
INDEX = f"{SINGLE}.index.json"
ENDING = ".safetensors"
LONGEST_INDEX = 1 << 28  # bytes
WEIGHTS = re.compile(r".*(\.(safetensors|bin|pth|pt|gguf|onnx|h5|msgpack|ot)|\.index\.json)", re.DOTALL)
"""What is not copied beside the shards: other forms of the same weights, and their indexes."""


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint, as it was when it was looked at.

    metadata: what its header says beside the tensors.  header: its SHA-256.  ties: further names of its
    tensors, each with the one that it has.
    """

    name: str
    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    status: os.stat_result
    header: str
    ties: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self.status.st_size

    @property
    def stamp(self) -> dict[str, Any]:
        """What a journal knows it by."""
        return {"bytes": self.nbytes, "mtime_ns": self.status.st_mtime_ns, "header": self.header}

    def open(self, mapped: bool = True) -> Reader:
        """A reader; raises NumericsError where the file is another than it was."""
        reader = Reader(self.path, mapped)
        reader.check_unchanged(self.status)
        return reader


class Source:
    """A checkpoint: its shards, all tensors by name, and the files that lie beside them.

    path: of a .safetensors file, of an index, or of a folder with either.  own: shards that this package
    quantized are taken too.  Only headers are read.  Raises NumericsError, naming the file, for a shard that
    is missing, damaged or quantized already, and for an index that contradicts the shards: it says of each
    tensor which file has it, and they have no others.

    >>> import numerics as nx, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": np.ones((2, 32), np.float32)}, f"{folder}/model.safetensors")
    ...     Source(folder).entries["w"].shape
    (2, 32)
    """

    @keywords
    def __init__(self, path: str | os.PathLike[str], *, own: bool = False) -> None:
        self.own = own
        came = path_of(path)
        self.index: Path | None = None
        if came.name.endswith(".index.json"):
            self.index, came = came, came.parent
        self.path, self.folder = came, os.path.isdir(came)
        names = self._names() if self.folder else None
        files = [came] if names is None else [came / name for name in sorted(set(names.values()))]
        self.shards = tuple(_shard(file, own) for file in files)
        self.shard_of: dict[str, Shard] = {}
        for shard in self.shards:
            self._take(shard, names or {})
        if self.index is not None:
            self._check_index(names or {})

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """All tensors, by name."""
        return {name: shard.entries[name] for name, shard in self.shard_of.items()}

    @cached_property
    def ties(self) -> dict[str, str]:
        """Further names of tensors, each with the one among `entries`."""
        found = {alias: name for shard in self.shards for alias, name in shard.ties.items()}
        for alias in found.keys() & self.shard_of.keys():
            raise NumericsError(f"{self.path}: {said(alias)} stands for two tensors")
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def beside(self) -> list[Path]:
        """What is copied: the files of the folder that hold no weights, but hidden ones."""
        return beside_shards(self.path) if self.folder else []

    @property
    def not_copied(self) -> list[str]:
        """Names of what lies in the folder and goes nowhere: hidden files, folders, pipes, other weights."""
        if not self.folder:
            return []
        taken = {shard.name for shard in self.shards}
        return not_copied(self.path, taken | (set() if self.index is None else {self.index.name}))

    @keywords
    def said_of_not_copied(self) -> list[str]:
        """One line that names what is not copied, where there is anything."""
        return said_of_names(self.not_copied)

    def _names(self) -> dict[str, str]:
        """Which file has which tensor, as the index says; without one, of the only file, nothing."""
        try:
            files = sorted(entry.name for entry in self.path.iterdir())
        except OSError as wrong:
            raise NumericsError(f"cannot read {self.path}: {wrong.strerror or wrong}") from wrong
        if self.index is None:
            indexes = [name for name in files if name.endswith(f"{ENDING}.index.json")]
            if len(indexes) > 1 and INDEX not in indexes:
                raise NumericsError(
                    f"{self.path} has several indexes: {', '.join(indexes)}; name one of them"
                )
            if indexes:
                self.index = self.path / (INDEX if INDEX in indexes else indexes[0])
        if self.index is not None:
            return weight_map(self.index)
        shards = [name for name in files if name.endswith(ENDING) and not name.startswith(".")]
        if len(shards) != 1:
            what = f"{len(shards)} .safetensors files and no index" if shards else "no .safetensors file"
            pickled = not shards and any(name.endswith((".bin", ".bin.index.json")) for name in files)
            way = "; `numerics convert FOLDER OUT` makes one of its .bin files" if pickled else ""
            raise NumericsError(f"{self.path} has {what}; name a file, or a folder with {INDEX}{way}")
        return {"": shards[0]}

    def _take(self, shard: Shard, names: Mapping[str, str]) -> None:
        for name in shard.entries:
            if name in self.shard_of:
                raise NumericsError(f"{name!r} is in {self.shard_of[name].path} and in {shard.path}")
            if self.index is not None and names.get(name) != shard.name:
                told = f"says it is in {names[name]}" if name in names else "does not name it"
                raise NumericsError(f"{self.index} lies: {name!r} is in {shard.name}, and it {told}")
            self.shard_of[name] = shard

    def _check_index(self, names: Mapping[str, str]) -> None:
        for name, file in names.items():
            if name not in self.shard_of:
                raise NumericsError(f"{self.index} lies: {name!r} should be in {file}, which lacks it")


def beside_shards(folder: Path) -> list[Path]:
    """The files of a folder that hold no weights, but hidden ones."""
    found = sorted(entry for entry in folder.iterdir() if os.path.isfile(entry))
    return [file for file in found if not file.name.startswith(".") and not WEIGHTS.fullmatch(file.name)]


def said_of_names(names: list[str]) -> list[str]:
    """One line that names what is not copied, where there is anything."""
    return [f"not copied: {folded(names)}"] if names else []


def not_copied(folder: Path, taken: Set[str]) -> list[str]:
    """Names of what lies in a folder, but what is taken and what lies beside the shards."""
    copied = taken | {file.name for file in beside_shards(folder)}
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in copied)


def _shard(path: Path, own: bool) -> Shard:
    reader = Reader(path)
    if KEY in reader.metadata and not own:
        raise NumericsError(already_quantized(path))
    text = header_bytes(reader.entries, reader.metadata)
    header, ties = hashlib.sha256(text).hexdigest(), ties_of(reader, reader.entries)
    return Shard(path.name, path, reader.entries, reader.metadata, reader.status, header, ties)


def weight_map(index: Path, ending: str = ENDING) -> dict[str, str]:
    """What an index says; raises NumericsError where it says something else than names of such files."""
    try:
        if index.stat().st_size > LONGEST_INDEX:
            raise NumericsError(f"{index} is longer than {LONGEST_INDEX} bytes")
        text = index.read_text(encoding="utf-8")
        found: dict[str, str] = {}
        told = Members(text)
        for key in told.names():
            if key == "weight_map":
                found = dict(told.members(Members.text))
            else:
                told.value()
        told.end()
    except OSError as wrong:
        raise NumericsError(f"cannot read {index}: {wrong.strerror or wrong}") from wrong
    except ValueError as wrong:  # of the text, or of its encoding
        raise NumericsError(f"{index} is no index: {wrong}") from None
    if not found:
        raise NumericsError(f"{index} is no index: it has no weight_map")
    for name, file in found.items():
        if Path(file).name != file or not file.endswith(ending):
            raise NumericsError(f"{index} says that {said(name)} is in {said(file)}, which is no shard here")
    return found


def places_of(files: Mapping[str, Mapping[str, Entry]]) -> dict[str, str]:
    """Which file has which tensor; raises NumericsError for one that two have."""
    places: dict[str, str] = {}
    for file, entries in files.items():
        for twice in entries.keys() & places.keys():
            raise NumericsError(f"{twice!r} would stand for two tensors, in {places[twice]} and {file}")
        places |= dict.fromkeys(entries, file)
    return places


def write_index(folder: Path, names: Iterable[str]) -> None:
    """Writes the index of the shards of a folder; raises NumericsError for a tensor that two have."""
    files = {name: Reader(folder / name).entries for name in names}
    replace_file(folder / INDEX, _index(files))


def needs_index(names: Iterable[str]) -> bool:
    """Do readers find the weights of these files by an index alone?

    >>> needs_index(["model.safetensors"]), needs_index(["model-00001-of-00002.safetensors"])
    (False, True)
    """
    return list(names) != [SINGLE]


def _index(files: Mapping[str, Mapping[str, Entry]]) -> bytes:
    """The text of an index: which file has which tensor, and the bytes of all tensors."""
    places = dict(sorted(places_of(files).items()))
    nbytes = sum(entry.nbytes for entries in files.values() for entry in entries.values())
    facts = {"metadata": {"total_size": nbytes}, "weight_map": places}
    return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()
