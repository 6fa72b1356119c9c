"""The floating-point environment that the arithmetic needs, whatever the caller's thread is set to.

Scaling meets float32 subnormals, so flush-to-zero (torch.set_flush_denormal, -ffast-math libraries)
must be off inside.  The C library saves, resets and restores the thread's environment (C17 §7.6.4).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from functools import lru_cache
from typing import Any

import numpy as np

_ROOM = 512  # bytes: more than any platform's fenv_t
_DEFAULT = ctypes.c_void_p(-1)  # FE_DFL_ENV in glibc and musl
_ONE, _HALF = np.float32(1), np.float32(0.5)
_LEAST_NORMAL, _QUARTER_STEP = np.float32(2.0**-126), np.float32(2.0**-25)


@lru_cache(maxsize=1)
def _libm() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
    library.fegetenv.argtypes = library.fesetenv.argtypes = [ctypes.c_void_p]
    return library


def _is_ieee() -> bool:
    """Does this thread round half to even and keep subnormals?  Asking libm would take longer."""
    kept = _LEAST_NORMAL * _HALF != 0
    return bool(kept and _ONE + _QUARTER_STEP == _ONE and _ONE + 3 * _QUARTER_STEP != _ONE)


class ieee_arithmetic:
    """Rounding half to even, gradual underflow, no warnings; outside, everything as it was."""

    __slots__ = ("_errors", "_saved")

    def __enter__(self) -> None:
        self._errors = np.errstate(all="ignore")
        self._errors.__enter__()
        self._saved = None if _is_ieee() else _ieee_environment()

    def __exit__(self, *raised: Any) -> None:
        if self._saved is not None:
            _libm().fesetenv(self._saved)  # type: ignore[union-attr]
        self._errors.__exit__(*raised)


def _ieee_environment() -> Any:
    """Sets the default environment; returns what was before, None where it cannot be set."""
    library = _libm()
    if library is None:
        return None
    saved = ctypes.create_string_buffer(_ROOM)
    library.fegetenv(saved)
    library.fesetenv(_DEFAULT)
    return saved
