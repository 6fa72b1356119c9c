"""What torch does around a function of a tensor: which of its own functions called it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType


def callers() -> Iterator[FrameType]:
    """Who called the function that asks, the nearest first: torch's own functions lie between, a few."""
    frame: FrameType | None = sys._getframe(2)  # past the asking function, which runs this generator
    for _ in range(9):
        if frame is None:
            return
        yield frame
        frame = frame.f_back
