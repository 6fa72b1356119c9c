"""Files of torch.save, and folders of them as Hugging Face had them before safetensors: tensors only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numerics.backends.host.tensors import is_tensor
from numerics.backends.paths import path_of
from numerics.files import kinds
from numerics.files.checkpoint import PathLike
from numerics.files.nested import at, by_name, model_in, place_of
from numerics.files.pickled import held_in
from numerics.files.save_load import on_host
from numerics.files.shards import ENDING as SAFETENSORS
from numerics.files.shards import beside_shards, not_copied, said_of_names, weight_map
from numerics.files.ties import ties_among
from numerics.formats.errors import NumericsError, a_kind_of, said, warn
from numerics.tensor.qtensor import QTensor
from numerics.view.text import many

SHOWN = 6  # places of tensors that are named
ENDING = ".bin"
INDEX = f"pytorch_model{ENDING}.index.json"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # by which torch paints its errors


class OpenedPickle:
    """A file of torch.save: tensors only, nothing in it is executed."""

    def __init__(self, path: PathLike) -> None:
        import torch

        self.path = path_of(path)
        self.left: dict[str, str] = {}
        try:
            came = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception as wrong:  # whatever a damaged pickle raises
            raise NumericsError(f"cannot read {self.path}: {_why_unread(self.path, wrong)}") from wrong
        self._tensors = _state(came, str(self.path))
        self.ties = ties_among(self._tensors)

    @property
    def names(self) -> list[str]:
        """Of its tensors, each once."""
        return [name for name in self._tensors if name not in self.ties]

    @property
    def quantized(self) -> bool:
        """As Opened says."""
        return any(isinstance(x, QTensor) for x in self._tensors.values())

    def tensor(self, name: str) -> Any:
        """As Opened says."""
        x = self._tensors[name]
        if not type(x).__module__.startswith("torchao."):
            return on_host(name, x)
        from numerics.interop.torchao import from_host

        try:
            return on_host(name, from_host(x))
        except NumericsError as wrong:
            raise NumericsError(f"{self.path}: tensor {name!r}: {wrong}") from None

    def stored(self, name: str) -> None:
        """As Opened says: what tensors take in a pickle is what they take here."""


def _why_unread(path: Path, wrong: Exception) -> str:
    """Why torch.load(weights_only=True) does not take a file, and what does."""
    held, first = held_in(path), _ESCAPES.sub("", str(wrong)).strip().splitlines() or [type(wrong).__name__]
    if held is None:
        return f"it is a PyTorch pickle that is damaged or cut short (torch.load: {first[0]:.200})"
    if held.is_safe:
        return f"torch.load(weights_only=True): {first[0]:.300}"
    called = list(dict.fromkeys(f"{one.module}.{one.name}" for one in held.called if not one.is_safe))
    told = ", ".join(called[:SHOWN]) + ", ..." * (len(called) > SHOWN)
    what = kinds.known(kinds.first_of(path), path)
    return f"it would call {told}, and nothing in a pickle is executed here; it is {what}"


def _state(came: Any, path: str) -> dict[str, Any]:
    """The tensors of a state dict, alone or where training scripts put it; what lies beside it is warned of.

    Raises NumericsError where there is none, and where nothing says which of several is the model's.
    """
    try:
        found = model_in(came, is_tensor)
        if len(found.places) == 1:
            state = by_name(at(came, found.places[0]), is_tensor)
    except NumericsError as wrong:
        raise NumericsError(f"{path}: {wrong}") from None
    if not found.places:
        raise NumericsError(f"{path} holds no tensors by name, but {a_kind_of(came)}")
    if len(found.places) > 1:
        told = ", ".join(map(place_of, found.places[:SHOWN])) + ", ..." * (len(found.places) > SHOWN)
        one = place_of(found.places[0])
        raise NumericsError(
            f"{path} holds tensors under {told}, and none of these names says that it is the model's; "
            f"write the one that you want into a file: torch.save(torch.load({path!r}){one}, 'model.pth')"
        )
    if found.beside:
        told = ", ".join(f"{place_of(keys)} ({count})" for keys, count in list(found.beside.items())[:SHOWN])
        where = place_of(found.places[0])
        taken = f"those under {where} are taken" if where else "those that it has by name are taken"
        count = many(sum(found.beside.values()), "more tensor")
        warn(
            f"{path} holds {count}: {taken}, and left out is what lies under "
            f"{told}{', ...' * (len(found.beside) > SHOWN)}"
        )
    return {name: x.detach() for name, x in state.items()}


# ---- folders --------------------------------------------------------------------------------------


def holds_pickles(path: Path) -> bool:
    """Is it a folder of pickles with an index, or of a single one, without safetensors; or such an index?"""
    if path.name.endswith(f"{ENDING}.index.json"):
        return True
    if not os.path.isdir(path):
        return False
    try:
        names = os.listdir(path)
    except OSError:
        return False
    if any(name.endswith((SAFETENSORS, f"{SAFETENSORS}.index.json")) for name in names):
        return False
    return INDEX in names or _single(names) is not None


def _single(names: list[str]) -> str | None:
    """The only pickle among the names of a folder."""
    found = [name for name in names if re.fullmatch(r"(pytorch_)?model.*\.bin", name)]
    return found[0] if len(found) == 1 else None


class OpenedPickles:
    """A folder of files of torch.save, with the index of Hugging Face's: one of them at a time in memory."""

    folder = True

    def __init__(self, path: PathLike) -> None:
        came = path_of(path)
        self.path = came if os.path.isdir(came) else came.parent
        names = sorted(os.listdir(self.path))
        index = came if came != self.path else self.path / INDEX if INDEX in names else None
        told = weight_map(index, ENDING) if index is not None else {"": str(_single(names))}
        self.left: dict[str, str] = {}
        self.ties: dict[str, str] = {}
        self._index, self._shards = index, sorted(set(told.values()))
        self._shard_of: dict[str, str] = {}
        self._quantized = False
        self._open: tuple[str, OpenedPickle] | None = None
        for shard in self._shards:
            self._take(shard, told)
        missing = [name for name in told if name and name not in {*self._shard_of, *self.ties}]
        if missing:
            raise NumericsError(
                f"{index} lies: {missing[0]!r} should be in {told[missing[0]]}, which lacks it"
            )

    def _take(self, shard: str, told: Mapping[str, str]) -> None:
        opened = self._opened(shard)
        for name in (*opened.names, *opened.ties):
            if name in self._shard_of or name in self.ties:
                raise NumericsError(f"{said(name)} is in {shard} and in another file of {self.path}")
            if self._index is not None and told.get(name) != shard:
                where = f"says it is in {told[name]}" if name in told else "does not name it"
                raise NumericsError(f"{self._index} lies: {name!r} is in {shard}, and it {where}")
            if name not in opened.ties:
                self._shard_of[name] = shard
        self.ties |= opened.ties
        self._quantized |= opened.quantized

    def _opened(self, shard: str) -> OpenedPickle:
        if self._open is None or self._open[0] != shard:
            self._open = None  # before the next one comes into memory
            self._open = shard, OpenedPickle(self.path / shard)
        return self._open[1]

    @property
    def names(self) -> list[str]:
        """Of its tensors, each once."""
        return list(self._shard_of)

    @property
    def quantized(self) -> bool:
        """As Opened says."""
        return self._quantized

    @property
    def files_beside(self) -> list[Path]:
        """Configuration, tokenizer and what else lies beside the shards."""
        return beside_shards(self.path)

    def said_of_not_copied(self) -> list[str]:
        """One line that names what is not copied, where there is anything."""
        taken = {*self._shards, *([self._index.name] if self._index else [])}
        return said_of_names(not_copied(self.path, taken))

    def shard(self, name: str) -> str:
        """The file that a tensor of it goes to, as transformers names that."""
        return self._shard_of[name].removeprefix("pytorch_").removesuffix(ENDING) + SAFETENSORS

    def source_of(self, name: str) -> Path:
        """The file that has a tensor."""
        return self.path / self._shard_of[name]

    def tensor(self, name: str) -> Any:
        """As Opened says."""
        return self._opened(self._shard_of[name]).tensor(name)

    def stored(self, name: str) -> None:
        """As Opened says: what tensors take in a pickle is what they take here."""


__all__ = ["OpenedPickle", "OpenedPickles", "holds_pickles"]
