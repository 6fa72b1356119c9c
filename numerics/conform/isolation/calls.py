"""Which call of a target is under way: in memory that two processes share, and that outlives either."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

THREADS = 16
"""Whose calls are told apart; more of them share."""
HEAD, ROOM = struct.Struct("=qd"), struct.Struct("=qq")
SIZE = HEAD.size + THREADS * ROOM.size
NOTHING, UNDER_WAY, BACK = range(3)
IMPORTS = (0, UNDER_WAY)
"""What is noted of the first thread while the target is imported: call number 0, which no other is."""


class Progress(NamedTuple):
    """How far a process has come.

    returned: calls that came back; longest: seconds that one took; threads: the number of each one's last
    call, and whether it is NOTHING, UNDER_WAY or BACK.
    """

    returned: int
    longest: float
    threads: tuple[tuple[int, int], ...]

    def those(self, state: int) -> list[int]:
        """The threads of that state."""
        return [thread for thread, (_, now) in enumerate(self.threads) if now == state]


class Calls:
    """The notes themselves, in a file in memory.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Calls(Path(folder) / "calls") as calls:
    ...         calls.begin(1, 7)
    ...         calls.progress().threads[:3]
    ((0, 0), (7, 1), (0, 0))
    """

    def __init__(self, path: Path) -> None:
        if not os.path.exists(path):
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SIZE)

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *raised: object) -> None:
        self._memory.close()

    def clear(self) -> None:
        """Forgets every call."""
        self._memory[:] = bytes(SIZE)

    def begin(self, thread: int, number: int) -> None:
        """A thread's call begins."""
        ROOM.pack_into(self._memory, HEAD.size + thread * ROOM.size, number, UNDER_WAY)

    def end(self, thread: int, seconds: float) -> None:
        """It came back, after so long."""
        at = HEAD.size + thread * ROOM.size
        ROOM.pack_into(self._memory, at, ROOM.unpack_from(self._memory, at)[0], BACK)
        count, longest = HEAD.unpack_from(self._memory)
        HEAD.pack_into(self._memory, 0, count + 1, max(longest, seconds))

    def progress(self) -> Progress:
        """Everything that was noted."""
        count, longest = HEAD.unpack_from(self._memory)
        return Progress(count, longest, tuple(ROOM.iter_unpack(self._memory[HEAD.size :])))
