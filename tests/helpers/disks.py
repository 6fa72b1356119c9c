"""Disks that fail, for what writes files."""

from __future__ import annotations

import errno
import os

from numerics.files.safetensors import Writer


def fill_up(monkeypatch, writes: int) -> None:
    """The disk is full after so many writes."""
    write, left = Writer._write, writes

    def full(self, position, data):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, position, data)

    monkeypatch.setattr(Writer, "_write", full)
