"""How far a judge has come, for whoever looks while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

Advance = Callable[[int, int | None], None]


class Watch:
    """Tells a callback how many things are done, and of how many where that is known, a thread at a time."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._done, self._lock = advance, 0, Lock()

    def at(self, done: int, total: int | None = None) -> None:
        """So many are done."""
        with self._lock:
            self._done = done
            self._advance(done, total)

    def one_more(self) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            self._advance(self._done, None)


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(advance: Advance) -> Iterator[None]:
    """What is judged inside tells that callback how far it has come.

    >>> with watched(lambda done, total: print(done, total)):
    ...     at(3, 5)
    ...     one_more()
    3 5
    4 None
    """
    before = _watch.set(Watch(advance))
    try:
        yield
    finally:
        _watch.reset(before)


def at(done: int, total: int | None = None) -> None:
    """So many are done; nobody hears it where nobody watches."""
    if (watch := _watch.get()) is not None:
        watch.at(done, total)


def one_more() -> None:
    """One more is done."""
    if (watch := _watch.get()) is not None:
        watch.one_more()
