"""A bar on standard error while work is done: one line where somebody looks, nothing elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from numerics.view.screen import Screen, say
from numerics.view.text import cells, padded, shortened

OFTEN = 0.1  # seconds between two pictures
WIDTH = 20  # cells of the bar itself
SIZES = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Bytes in the unit that leaves few digits.

    >>> size(512), size(1_073_741_824)
    ('512 B', '1.07 GB')
    """
    unit = 0
    while count >= 1000 and unit < len(SIZES) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.3g} {SIZES[unit]}"


@dataclass
class Bar:
    """How far work is.  screen: None where nobody looks; counts: said as sizes in bytes."""

    screen: Screen | None
    in_bytes: bool = True
    _drawn: int = 0  # cells that stand on the line
    _next: float = 0.0
    _line: str = ""
    _start: float = field(default_factory=time.monotonic)

    def update(self, name: str, done: int | None, total: int | None) -> None:
        """So much of the total is done, at the thing of that name; None says nothing of how much."""
        now = time.monotonic()
        if self.screen is None or (now < self._next and done != total):
            return
        self._next = now + OFTEN
        self._line = self._picture(self.screen, name, done, total, now - self._start)
        self._draw(self._line)

    def say(self, *lines: str) -> None:
        """Lines on standard output, where they stand whole above the bar."""
        self.clear()
        say(*lines)
        if self._line:
            self._draw(self._line)

    def clear(self) -> None:
        """Takes the bar away."""
        if self._drawn:
            self._draw("")

    def _picture(self, screen: Screen, name: str, done: int | None, total: int | None, seconds: float) -> str:
        said = "" if done is None else (size if self.in_bytes else "{:,}".format)(done)
        tail = f"  {said}" if said else ""
        if total and done is not None:
            part = min(done / total, 1.0)
            left = seconds * (1 - part) / part if part else 0.0
            filled = round(WIDTH * part)
            whole = (size if self.in_bytes else "{:,}".format)(total)
            tail = f"  {screen.text('━') * filled}{' ' * (WIDTH - filled)} {part:4.0%}  {said} of {whole}"
            tail += f"  {left // 60:.0f}:{left % 60:02.0f}" if part else ""
        room = (screen.width or 80) - 1
        return shortened(
            shortened(screen.text(name), max(room - cells(tail), 8), screen.text("…")) + tail, room
        )

    def _draw(self, line: str) -> None:
        text = "\r" + padded(line, max(self._drawn, cells(line)))
        self._drawn = cells(line)
        try:
            sys.stderr.write(text + ("" if line else "\r"))
            sys.stderr.flush()
        except (OSError, ValueError):  # a terminal that went away
            self.screen, self._drawn, self._line = None, 0, ""


@contextmanager
def bar(quiet: bool = False, in_bytes: bool = True) -> Iterator[Bar]:
    """A bar that is gone when the work is; it draws nothing on what is no terminal, or on a dumb one."""
    looks = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    found = Bar(Screen.of(sys.stderr) if looks and not quiet else None, in_bytes)
    try:
        yield found
    finally:
        found._line = ""
        found.clear()
