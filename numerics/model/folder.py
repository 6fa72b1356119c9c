"""A folder as Hugging Face's libraries read it: weights in one file or in several, and texts beside them.

All of it is written before any of it gets its name; the configuration comes last, and that of a model
that was there before goes first: who is interrupted leaves a folder that nobody takes for a whole model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from numerics.backends.paths import path_of
from numerics.files.checkpoint import PathLike
from numerics.files.folders import made_folder
from numerics.files.replacement import Replacement
from numerics.files.safetensors import Writer
from numerics.files.save_load import entry_of, on_host, packed_of
from numerics.files.signals import terminable
from numerics.formats.errors import NumericsError
from numerics.model.extras import missing

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SHARD = "50GB"  # as transformers has it
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def write_folder(
    folder: PathLike, tensors: Mapping[str, Tensor], texts: Mapping[str, str], shard: int | str = SHARD
) -> None:
    """Writes tensors and texts as a folder; weights that an earlier save left there are removed.

    texts: by the names of their files, config.json among them.  shard: bytes of a file of weights at most,
    or a text as "5GB"; a tensor that is larger has a file to itself.  Raises NumericsError without
    huggingface_hub, for a tensor that safetensors does not have, and for files that cannot be written.
    """
    files, texts = _split(tensors, shard), dict(texts)
    if len(files) > 1:
        texts[INDEX] = _index(files, tensors)
    path = Path(path_of(folder))
    with _folder(path), terminable(), ExitStack() as stack:
        for name, text in sorted(texts.items(), key=lambda item: item[0] != CONFIG):  # the last to exit
            file = stack.enter_context(Replacement(path / name))
            with file.refusals():
                file.write(0, text.encode())
        for name, names in files.items():
            _fill(stack, path / name, {tensor: tensors[tensor] for tensor in names})
        stack.push(_Clearing(path, {*files, *texts} - {CONFIG}))


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A folder that is made; raises NumericsError where it cannot be."""
    with ExitStack() as stack:
        try:
            stack.enter_context(made_folder(path))
        except OSError as wrong:
            raise NumericsError(f"cannot write {path}: {wrong.strerror or wrong}; name a folder") from wrong
        yield


def _split(tensors: Mapping[str, Tensor], shard: int | str) -> dict[str, list[str]]:
    """The names of the tensors in each file."""
    try:
        from huggingface_hub import split_torch_state_dict_into_shards
    except ImportError as wrong:
        raise missing("a folder for transformers", wrong) from wrong
    try:
        split = split_torch_state_dict_into_shards(dict(tensors), max_shard_size=shard)
    except ValueError as wrong:
        raise NumericsError(f"max_shard_size={shard!r}: {wrong}") from wrong
    return {name: list(names) for name, names in split.filename_to_tensors.items()}


def _index(files: Mapping[str, list[str]], tensors: Mapping[str, Tensor]) -> str:
    """The text that says which file has which tensor."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    places = {tensor: name for name, names in files.items() for tensor in names}
    return (
        json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=2, sort_keys=True) + "\n"
    )


def _fill(stack: ExitStack, path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A file of tensors, whole but for its name, which it gets when the stack is left."""
    arrays = {name: on_host(name, tensor) for name, tensor in tensors.items()}
    entries = {name: entry_of(name, x) for name, x in arrays.items()}
    writer = stack.enter_context(Writer(path, entries, {"format": "pt"}))
    for name, x in arrays.items():
        writer.put(name, 0, packed_of(x, entries[name]))


class _Clearing:
    """The first step of the exit: an older model's configuration goes, and weights that nothing replaces."""

    def __init__(self, folder: Path, kept: set[str]) -> None:
        self._folder, self._kept = folder, kept

    def __enter__(self) -> _Clearing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        for name in os.listdir(self._folder):
            if name == CONFIG or (_WEIGHTS.fullmatch(name) and name not in self._kept):
                self._remove(self._folder / name)

    def _remove(self, old: Path) -> None:
        try:
            old.unlink()
        except OSError as wrong:
            raise NumericsError(f"cannot replace {old}: {wrong.strerror or wrong}") from wrong


def config_of(model: Any, config: Any) -> dict[str, Any]:
    """Returns the model's configuration as a table.

    config: a mapping, or what has `to_dict`, instead of the model's own.  Raises NumericsError without one.
    """
    found: Any = getattr(model, "config", None) if config is None else config
    if hasattr(found, "to_dict"):
        found = found.to_dict()
    if not isinstance(found, Mapping):
        raise NumericsError(
            f"{type(model).__name__} has no configuration that transformers could read; give config=, "
            "a mapping or a PretrainedConfig"
        )
    return dict(found)
