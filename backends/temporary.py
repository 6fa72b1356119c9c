"""Folders that end with their process: it removes them, or whoever started it does."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_parents: list[Path] = []


def temporary_folder(prefix: str) -> Path:
    """A new folder, removed when this process ends; a child that is forked meanwhile leaves it alone.

    >>> temporary_folder("numerics-").name[:9]
    'numerics-'
    """
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=_parents[-1] if _parents else None))
    atexit.register(_remove, made, os.getpid())
    return made


def within(parent: Path) -> None:
    """From now on they are made in a folder that somebody else removes, also when this process is killed."""
    _parents.append(parent)


def _remove(place: Path, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(place, ignore_errors=True)
