"""The floating-point environment that the arithmetic needs, whatever the caller's thread is set to.

Scaling meets float32 subnormals, so flush-to-zero (torch.set_flush_denormal, -ffast-math libraries)
must be off inside.  The C library saves, resets and restores the thread's environment (C17 §7.6.4).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

_ROOM = 512  # bytes: more than any platform's fenv_t
_DEFAULT = ctypes.c_void_p(-1)  # FE_DFL_ENV in glibc and musl


@lru_cache(maxsize=1)
def _libm() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
    library.fegetenv.argtypes = library.fesetenv.argtypes = [ctypes.c_void_p]
    return library


@contextmanager
def ieee_arithmetic() -> Iterator[None]:
    """Rounding half to even, gradual underflow, no warnings; outside, everything as it was."""
    library = _libm()
    saved = ctypes.create_string_buffer(_ROOM)
    with np.errstate(all="ignore"):
        if library is None:
            yield
            return
        library.fegetenv(saved)
        library.fesetenv(_DEFAULT)
        try:
            yield
        finally:
            library.fesetenv(saved)
