"""The floating-point environment that the arithmetic needs, whatever the caller's thread is set to.

Scaling meets float32 subnormals, so flush-to-zero (torch.set_flush_denormal, -ffast-math libraries)
must be off inside.  The C library saves, resets and restores the thread's environment (C17 §7.6.4).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np

from numerics.formats.errors import NumericsError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Mode = Callable[[], Callable[[], object]]
"""Sets the default environment; returns what sets the one that was before."""

_ROOM = 512  # bytes: more than any platform's fenv_t
_ONE, _HALF = np.float32(1), np.float32(0.5)
_LEAST_NORMAL, _QUARTER_STEP = np.float32(2.0**-126), np.float32(2.0**-25)


def is_ieee() -> bool:
    """Does this thread round half to even and keep subnormals?  Asking libm would take longer."""
    kept = _LEAST_NORMAL * _HALF != 0
    return bool(kept and _ONE + _QUARTER_STEP == _ONE and _ONE + 3 * _QUARTER_STEP != _ONE)


class ieee_arithmetic:
    """Rounding half to even, gradual underflow, no warnings; outside, everything as it was."""

    __slots__ = ("_errors", "_restore")

    def __enter__(self) -> None:
        self._errors = np.errstate(all="ignore")
        self._errors.__enter__()
        try:
            self._restore = None if is_ieee() else _mode()()
        except BaseException:
            self._errors.__exit__(None, None, None)
            raise

    def __exit__(self, *raised: Any) -> None:
        if self._restore is not None:
            self._restore()
        self._errors.__exit__(*raised)


def set_ieee() -> bool:
    """Sets this thread to IEEE arithmetic where something has left it otherwise, which it returns."""
    changed = not is_ieee()
    if changed:
        _mode()()
    return changed


def under_ieee(kind: type[T]) -> type[T]:
    """A class whose own public methods run under ieee_arithmetic."""
    for name, method in list(vars(kind).items()):
        if callable(method) and not name.startswith("_"):
            setattr(kind, name, inside_ieee(method))
    return kind


def inside_ieee(function: F) -> F:
    """A function that runs under ieee_arithmetic; its caller's arithmetic is as it was when it returns."""

    @functools.wraps(function)
    def inside(*arguments: Any, **options: Any) -> Any:
        with ieee_arithmetic():
            return function(*arguments, **options)

    return cast(F, inside)


def each_inside_ieee(source: Iterator[T]) -> Iterator[T]:
    """What an iterator gives, each found under ieee_arithmetic; between them the arithmetic is the caller's.

    >>> list(each_inside_ieee(iter([1, 2])))
    [1, 2]
    """
    while True:
        with ieee_arithmetic():
            try:
                found = next(source)
            except StopIteration:
                return
        yield found


# ---- how each system sets it ---------------------------------------------------------------------


@lru_cache(maxsize=1)
def _mode() -> Mode:
    """This system's; raises NumericsError where there is none, since the results would be wrong."""
    return _windows_mode() if sys.platform == "win32" else _posix_mode()


def _posix_mode() -> Mode:
    """fegetenv and fesetenv, with FE_DFL_ENV: -1 in glibc and musl, an object of Apple's and BSD's."""
    library = _library_with("fesetenv")
    library.fegetenv.argtypes = library.fesetenv.argtypes = [ctypes.c_void_p]
    default = _default_of(library)

    def enter() -> Callable[[], object]:
        saved = ctypes.create_string_buffer(_ROOM)
        library.fegetenv(saved)
        library.fesetenv(default)
        return functools.partial(library.fesetenv, saved)

    return enter


_DEFAULTS = () if sys.platform.startswith("linux") else ("_FE_DFL_ENV", "__fe_dfl_env")


def _default_of(library: ctypes.CDLL) -> ctypes.c_void_p:
    """FE_DFL_ENV."""
    for name in _DEFAULTS:
        if hasattr(library, name):
            return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, name)))
    return ctypes.c_void_p(-1)


def _library_with(function: str) -> ctypes.CDLL:
    """The C library or its mathematics, wherever this system keeps them."""
    for name in (None, "libm.so.6", ctypes.util.find_library("m"), ctypes.util.find_library("c")):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if hasattr(library, function):
            return library
    raise NumericsError(
        "this thread flushes subnormals to zero or rounds another way, and no C library is found that could "
        "change it for a call: set the mode back, as by torch.set_flush_denormal(False)"
    )


_MCW_DN, _MCW_RC = 0x03000000, 0x00000300  # what becomes of subnormals, and the rounding mode
_DN_SAVE = _RC_NEAR = 0


def _windows_mode() -> Mode:
    """_controlfp_s of the universal C run-time library."""
    control = ctypes.CDLL("ucrtbase")._controlfp_s
    control.argtypes = [ctypes.POINTER(ctypes.c_uint), ctypes.c_uint, ctypes.c_uint]
    ours = _MCW_DN | _MCW_RC

    def enter() -> Callable[[], object]:
        saved, now = ctypes.c_uint(), ctypes.c_uint()
        control(saved, 0, 0)
        control(now, _DN_SAVE | _RC_NEAR, ours)
        return lambda: control(now, saved.value, ours)

    return enter
