"""Child processes of the tests: none runs for ever, none outlives its test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LIMIT = 300.0
"""Seconds after which a child hangs; a slow machine needs some tens."""


@contextmanager
def child(command: list[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child process that is ended when the block is left, however that is."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
