"""Commands on a terminal of a given size: drained while they run, ended when their time is over."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

NUMERICS = (sys.executable, "-m", "numerics")


class Ended(NamedTuple):
    """A command that ended: its exit code, what the terminal got, and stdout where that was a file."""

    code: int
    text: str
    printed: str

    @property
    def lines(self) -> list[str]:
        """The lines that stand on the terminal, without colours; what was drawn over is gone."""
        return [drawn(line) for line in self.text.replace("\r\n", "\n").rstrip("\n").split("\n")]


def drawn(line: str) -> str:
    r"""What stands on a line after carriage returns and colours.

    >>> drawn("12345\rab\x1b[31mc\x1b[0m")
    'abc45'
    """
    shown = ""
    for part in re.sub(r"\x1b\[[0-9;]*m", "", line).split("\r"):
        shown = part + shown[len(part) :]
    return shown.rstrip()


def run(
    command: Sequence[object],
    *,
    columns: int = 80,
    stdout_to_file: bool = False,
    timeout: float = 60,
    meanwhile: Callable[[subprocess.Popen[bytes]], None] | None = None,
    cwd: object = None,
    **environment: str,
) -> Ended:
    """Runs a command whose stdin, stdout and stderr are a terminal of so many columns.

    stdout_to_file: a bar on stderr, and stdout elsewhere.  meanwhile: called with the process while it
    runs.  The child and its children are killed when the time is over, or where anything goes wrong.
    """
    import fcntl  # these three are not on every system: whoever runs nothing here may import this there
    import pty
    import termios

    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    held = bytearray()
    with tempfile.TemporaryFile() as file:
        try:
            process = subprocess.Popen(
                [str(word) for word in command], stdin=terminal, stdout=file if stdout_to_file else terminal,
                stderr=terminal, env=_environment(environment), start_new_session=True, cwd=cwd,
            )  # fmt: skip
        finally:
            os.close(terminal)
        reader = threading.Thread(target=_drain, args=(master, held), daemon=True)
        reader.start()
        try:
            if meanwhile is not None:
                meanwhile(process)
            code = process.wait(timeout)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait(timeout)
            reader.join(5)
            os.close(master)
        file.seek(0)
        return Ended(code, held.decode(errors="replace"), file.read().decode(errors="replace"))


def _drain(master: int, held: bytearray) -> None:
    """All that the terminal gets: a full one would stop the child."""
    with suppress(OSError):  # the last one closed it
        while part := os.read(master, 1 << 16):
            held += part


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return {**kept, "TERM": "xterm", **changes}
