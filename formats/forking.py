"""fork beside other threads: whoever forks waits until nothing is half done, so the child finds no lock held.

A child has one thread.  A lock that another thread held stays held in it for ever, and what the lock
guards stays half done: so whoever forks takes the locks first, each thread in the same order.

The hooks are registered while this module is imported, not by a first call, beside which another
thread may fork already.  The last registered is asked first: logging, whose lock an import may want,
has to come earlier.
"""

from __future__ import annotations

import importlib
import logging  # noqa: F401
import os
import threading
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

PATIENCE = 20.0  # seconds: who takes longer waits for a lock of whoever forks

_importing = threading.RLock()
_guarded: list[Any] = [_importing]
_held: list[Any] = []
_nobody_forks = threading.Event()
_nobody_forks.set()


def guard(*locks: Any) -> None:
    """Names locks (threading.RLock) that whoever forks takes, after those that were named before."""
    _guarded.extend(locks)


def give_way() -> None:
    """Waits while somebody forks: threads that take one lock after another would never let it in."""
    _nobody_forks.wait(PATIENCE)


def imported(name: str) -> ModuleType:
    """The module of that name; a child never waits for one that a thread, lost to it, was importing."""
    with _importing:
        return importlib.import_module(name)


def reached(package: str, names: Collection[str]) -> Callable[[str], ModuleType]:
    """A `__getattr__` for a package: its modules of those names, imported when they are first asked for."""

    def found(name: str) -> ModuleType:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return imported(f"{package}.{name}")

    return found


def _before() -> None:
    _nobody_forks.clear()
    for lock in _guarded:  # what an import names that is waited for here comes in this loop too
        if lock.acquire(timeout=PATIENCE):
            _held.append(lock)


def _after() -> None:
    while _held:
        _held.pop().release()
    _nobody_forks.set()


def _after_in_child() -> None:
    global _nobody_forks
    _nobody_forks = threading.Event()  # another thread may have held the lock inside
    for lock in _guarded:
        if lock not in _held:
            lock._at_fork_reinit()
    _after()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
