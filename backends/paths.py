"""Paths that come from users: what is one, and what lies there."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from numerics.formats.errors import NumericsError, said

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def path_of(came: Any) -> Path:
    """The path that came; raises NumericsError for what cannot be one."""
    try:
        text = os.fspath(came)
        if isinstance(text, str) and text and b"\0" not in os.fsencode(text):
            return Path(text)
    except (TypeError, ValueError):  # no path; half of a surrogate pair
        pass
    raise NumericsError(
        f"{said(came)} is not the path of a file; allowed: a text or os.PathLike, without NUL"
    )


def check_regular(path: Path) -> None:
    """Raises NumericsError for a pipe, a device or a folder where a file is due: reading one may not end."""
    try:
        what = kind_of(path.stat().st_mode)
    except OSError:
        return  # whoever opens it says why
    if what is not None:
        raise NumericsError(f"cannot read {path}: it is {what}; a regular file is needed")


def kind_of(mode: int) -> str | None:
    """What a file is that is no regular one, in words."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")
