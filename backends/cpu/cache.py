"""Compiled kernels on disk, keyed by everything that shapes them.

Numba's own cache looks at the file that defines a function: it neither sees an edit of the shared
arithmetic nor ever hits for kernels made in a closure.  Here the key is the kernel's name, a hash of
the sources that it is made from, the Numba version and the CPU (Numba's own index adds both).
A folder that cannot be written, a full disk or a damaged file means compiling again, never an error.
"""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import caching

from numerics.backends import bind
from numerics.formats import codec


@lru_cache(maxsize=1)
def folder() -> Path:
    """NUMERICS_CACHE_DIR, else `numerics` in the user's cache folder."""
    chosen = os.environ.get("NUMERICS_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(chosen) if chosen else Path(base) / "numerics"


@lru_cache(maxsize=1)
def stamp() -> str:
    """A hash of the shared arithmetic, of how it is bound, and of what compiles it."""
    digest = hashlib.sha256(
        f"{numba.__version__} {llvmlite.__version__} {platform.python_version()}".encode()
    )
    for place in (Path(codec.__file__).parent, Path(bind.__file__).parent, Path(__file__).parent):
        for source in sorted(place.glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


class _Locator(caching._CacheLocator):
    """One folder a state of the sources, one file a kernel."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_cache_path(self) -> str:
        return str(folder() / stamp())

    def get_source_stamp(self) -> str:
        return stamp()

    def get_disambiguator(self) -> str:
        return self.name

    @classmethod
    def from_function(cls, function: Any, path: str) -> _Locator | None:
        locator = cls(function.__name__)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


class _Impl(caching.CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _Cache(caching.FunctionCache):
    _impl_class = _Impl

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        return signature, codegen.magic_tuple(), self._py_func.__name__

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return super().load_overload(signature, target)
        except Exception:  # a damaged file is a miss, whatever it makes the loader raise
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        for _ in range(2):  # the second time without an index that cannot be read
            try:
                super().save_overload(signature, data)
                return
            except Exception:
                with suppress(OSError):
                    self.flush()


def attach(dispatcher: Any, name: str) -> None:
    """Gives a Numba dispatcher this cache; leaves it without one where no folder can be written."""
    try:
        dispatcher._cache = _Cache(dispatcher.py_func)
    except (RuntimeError, OSError):
        return
