"""Folders that are made for what is written: after an error, those that were made are gone again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Makes a folder, and those that it lies in; after an error those that were not there are removed.

    Whatever has come into one meanwhile stays, with the folder that it is in.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as room:
    ...     try:
    ...         with made_folder(Path(room) / "a" / "b"):
    ...             raise LookupError
    ...     except LookupError:
    ...         os.listdir(room)
    []
    """
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # not made yet, or something has come into it
                folder.rmdir()
        raise
