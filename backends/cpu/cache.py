"""Machine code on disk, keyed by everything that shapes it.

The key is the kernel's name, a hash of the sources that it is made from, the versions of Numba and
LLVM's binding, and the CPU.  A folder that cannot be written, a full disk or a damaged file means
compiling again, never an error.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import llvmlite
import numba

from numerics.backends import bind
from numerics.formats import codec

Key = tuple[str, str]
"""The name of a kernel, and what machine it is for."""


@lru_cache(maxsize=1)
def folder() -> Path:
    """NUMERICS_CACHE_DIR, else `numerics` in the user's cache folder."""
    chosen = os.environ.get("NUMERICS_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(chosen) if chosen else Path(base) / "numerics"


@lru_cache(maxsize=1)
def stamp() -> str:
    """A hash of the shared arithmetic, of how it is bound, and of what compiles it."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for place in (Path(codec.__file__).parent, Path(bind.__file__).parent, Path(__file__).parent):
        for source in sorted(place.glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _place(key: Key) -> Path:
    name, machine = key
    return folder() / stamp() / f"{name}.{hashlib.sha256(machine.encode()).hexdigest()[:8]}.kernel"


def _seal(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def read(key: Key) -> bytes | None:
    """What was written under the key; None where nothing was, or where it is damaged."""
    try:
        found = _place(key).read_bytes()
    except OSError:
        return None
    seal, data = found[:32], found[32:]
    return data if seal == _seal(data) else None


def write(key: Key, data: bytes) -> None:
    """Keeps the data under the key where the disk allows it; readers see all of it or nothing."""
    place = _place(key)
    partial = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_seal(data) + data)
        os.replace(partial, place)
    except OSError:
        with suppress(OSError):
            partial.unlink()
