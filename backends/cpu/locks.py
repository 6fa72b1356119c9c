"""The locks of whatever compiles, in the order in which it takes them; whoever forks takes them too."""

from __future__ import annotations

import threading
from typing import Any

from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from numerics.formats import forking

LOCK = threading.RLock()
"""Held while a kernel is made."""


def _inner(holder: Any) -> Any:
    """The lock inside Numba's or LLVM's, whose own methods tell others of it."""
    return getattr(holder, "_lock", None)


_THEIRS = [
    lock
    for lock in (_inner(global_compiler_lock), _inner(_inner(ffi.lib)))
    if hasattr(lock, "_is_owned") and hasattr(lock, "_at_fork_reinit")
]
forking.guard(LOCK, *_THEIRS)


def compiling() -> bool:
    """Does this thread hold a lock of a compiler?"""
    return any(lock._is_owned() for lock in _THEIRS)


def give_way() -> None:
    """Waits while somebody forks, unless this thread makes a kernel already."""
    if not LOCK._is_owned():  # type: ignore[attr-defined]
        forking.give_way()
