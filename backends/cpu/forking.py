"""fork while another thread compiles: it waits until nothing is half done, so the child finds no lock held.

A child has one thread.  A lock that another thread held stays held in it for ever, and what the lock
guards stays half done: so whoever forks takes the locks first, in the order in which compiling does.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

PATIENCE = 20.0  # seconds: who compiles longer waits for a lock of whoever forks

LOCK = threading.RLock()
"""Held while a kernel is made."""


def _inner(holder: Any) -> Any:
    """The lock inside Numba's or LLVM's, whose own methods tell others of it."""
    return getattr(holder, "_lock", None)


_LOCKS = [
    lock
    for lock in (LOCK, _inner(global_compiler_lock), _inner(_inner(ffi.lib)))
    if hasattr(lock, "_is_owned") and hasattr(lock, "_at_fork_reinit")
]
_held: list[Any] = []
_nobody_forks = threading.Event()
_nobody_forks.set()


def compiling() -> bool:
    """Does this thread hold a lock of a compiler, but for the first?"""
    return any(lock._is_owned() for lock in _LOCKS[1:])


def give_way() -> None:
    """Waits while somebody forks: threads that compile one kernel after another would never let it in."""
    if not LOCK._is_owned():  # type: ignore[attr-defined]
        _nobody_forks.wait(PATIENCE)


def _before() -> None:
    _nobody_forks.clear()
    _held.extend([lock for lock in _LOCKS if lock.acquire(timeout=PATIENCE)])


def _after() -> None:
    while _held:
        _held.pop().release()
    _nobody_forks.set()


def _after_in_child() -> None:
    global _nobody_forks
    _nobody_forks = threading.Event()  # another thread may have held the lock inside
    for lock in _LOCKS:
        if lock not in _held:
            lock._at_fork_reinit()
    _after()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)
