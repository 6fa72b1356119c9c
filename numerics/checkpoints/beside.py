"""What lies beside the shards of a checkpoint: copied as it is, and known again by its hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from numerics.files.replacement import replace_file
from numerics.formats.errors import NumericsError, warn
from numerics.formats.text import json_in

CONFIG = "config.json"
RECORD = "numerics_job.json"  # of the job that made a folder, and of no other


def content_of(file: Path) -> bytes:
    """The bytes of a file that is copied; raises NumericsError, naming it, where they cannot be read."""
    try:
        return file.read_bytes()
    except OSError as wrong:
        raise NumericsError(f"cannot read {file}: {wrong.strerror or wrong}") from wrong


def hashes_beside(files: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of the files that are copied beside the shards, by name."""
    return {file.name: _hash(content_of(file)) for file in files if file.name != RECORD}


def copy_beside(files: Iterable[Path], folder: Path, but: Sequence[str] = ()) -> dict[str, str]:
    """Copies the files into a folder, the configuration last; returns the hashes of what was read.

    but: names of files that are written otherwise there.  Warns of a configuration that is no JSON.
    """
    hashes = {}
    for file in sorted(files, key=lambda file: file.name == CONFIG):
        if file.name == RECORD:
            continue
        data = content_of(file)
        hashes[file.name] = _hash(data)
        if file.name not in but:
            if file.name == CONFIG:
                _check_json(file, data)
            replace_file(folder / file.name, data)
    return hashes


def _check_json(file: Path, data: bytes) -> None:
    try:
        json_in(data.decode())
    except ValueError as wrong:
        warn(f"{file} is no JSON, and is copied as it is ({wrong})")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
