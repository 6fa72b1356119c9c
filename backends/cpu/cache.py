"""Machine code on disk, keyed by everything that shapes it, where nobody else can put any.

The key is the kernel's name, a hash of the sources that it is made from, the versions of Numba and
LLVM's binding, and the CPU.  A folder that cannot be written, a full disk or a damaged file means
compiling again, never an error.

Whoever could write here could run code in every process of ours.  So a folder serves only if it is
ours and nobody else may write to it, and a file in it likewise (on Windows, which has other rights
than these: the user's own folder for such data, unless NUMERICS_CACHE_DIR says another).  A file
holds the key that it is for, machine code and a checksum, and nothing that is interpreted.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import llvmlite
import numba

from numerics.backends.temporary import temporary_folder
from numerics.formats.errors import warn

Key = tuple[str, str]
"""The name of a kernel, and what machine it is for."""

PACKAGES = (
    "numerics.formats", "numerics.backends", "numerics.backends.array", "numerics.backends.host",
    "numerics.backends.cpu", "numerics.backends.cpu.product", "numerics.adapters",
)  # fmt: skip
"""Whose modules shape machine code."""

MAGIC = b"numerics kernel 1\n"
_HEAD = struct.Struct("<HHI")  # bytes of the name, of the machine, of the code
_SEAL = 32  # bytes of the checksum, which comes last
_LARGEST = 1 << 26  # bytes of a file that is looked at
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_HAS_OWNERS = hasattr(os, "geteuid")
_BY_FOLDER = os.open in os.supports_dir_fd
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NONBLOCK"))


# ---- which folder --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def folder() -> Path:
    """NUMERICS_CACHE_DIR, else `numerics` in the user's cache folder; where that is not ours alone, a
    fresh temporary one, and a NumericsWarning says so once.
    """
    chosen = os.environ.get("NUMERICS_CACHE_DIR")
    place = Path(chosen) if chosen else usual()
    fault = "there is no home folder" if place is None else _fault_of(place)
    if place is not None and fault is None:
        return place
    return _fresh(f"{'NUMERICS_CACHE_DIR' if chosen else 'the cache folder'} {place or ''}".rstrip(), fault)


def usual() -> Path | None:
    """`numerics` where this system keeps what can be made again; None where there is no such place."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or os.path.join("~", "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join("~", "Library", "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):  # the standard: such a path is to be passed over
            base = os.path.join("~", ".cache")
    base = os.path.expanduser(base)
    return Path(base) / "numerics" if os.path.isabs(base) else None


def _fault_of(place: Path) -> str | None:
    """Why nothing may be run that lies there; None for a folder of ours, or one that is not there yet."""
    if not place.is_absolute():
        return "its path is relative, another one wherever it is used"
    try:
        link, found = place.lstat(), place.stat()
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None  # and no folder can be made: nothing is kept, so nothing is found
    return _not_ours(link, link=stat.S_ISLNK(link.st_mode)) or _not_ours(found)


def _not_ours(found: os.stat_result, link: bool = False) -> str | None:
    """Why what was found is not ours alone; None where it is, or where the system knows no owners.

    link: the system's own will do, and the rights of a link say nothing.
    """
    if not _HAS_OWNERS:
        return None
    if found.st_uid != os.geteuid() and not (link and found.st_uid == 0):
        return f"it belongs to user {found.st_uid}, and this is user {os.geteuid()}"
    if found.st_mode & _OTHERS_WRITE and not link:
        return f"others may write to it (its mode is {stat.S_IMODE(found.st_mode):04o})"
    return None


def _fresh(unsafe: str, fault: str | None) -> Path:
    fresh = temporary_folder("numerics-")
    warn(
        f"compiled kernels are not kept in {unsafe}: {fault}. Every process compiles its own, until "
        "NUMERICS_CACHE_DIR names, by an absolute path, a folder that is yours and that nobody else may "
        "write to"
    )
    return fresh


# ---- which key -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def stamp() -> str | None:
    """A hash of the shared arithmetic, of how it is bound, and of what compiles it.

    None where there are no sources to be read, neither in folders nor in archives: nothing is kept then.
    """
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for package in PACKAGES:
        found = [*_sources(package)]
        if not found:
            return None
        for name, text in found:
            digest.update(f"{package} {name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def _sources(package: str) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of a package's modules, compiled ones where it comes without sources."""
    every = {item.name: item for item in files(package).iterdir()}
    for name in sorted(every):
        if name.endswith(".py") or (name.endswith(".pyc") and name[:-1] not in every):
            yield name, every[name].read_bytes()


def _name(key: Key) -> str:
    name, machine = key
    return f"{name}.{hashlib.sha256(machine.encode()).hexdigest()[:8]}.kernel"


# ---- files ---------------------------------------------------------------------------------------


class _Room:
    """The folder of this version's kernels, open: names in it mean what they meant when it was looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS) if _BY_FOLDER else None

    def open(self, name: str, flags: int) -> int:
        """A file of this folder, never what a link leads to."""
        if self.fd is None:
            return os.open(self.path / name, flags | _FLAGS, 0o600)
        return os.open(name, flags | _FLAGS, 0o600, dir_fd=self.fd)

    def replace(self, name: str, target: str) -> None:
        """os.replace inside the folder."""
        if self.fd is None:
            os.replace(self.path / name, self.path / target)
        else:
            os.replace(name, target, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """os.unlink inside the folder."""
        if self.fd is None:
            os.unlink(self.path / name)
        else:
            os.unlink(name, dir_fd=self.fd)


@contextmanager
def _room(make: bool = False) -> Iterator[_Room]:
    """The folder, if it is ours alone; raises OSError where there is none, or another's."""
    version = stamp()
    if version is None:
        raise FileNotFoundError
    path = folder() / version
    if make:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        path.mkdir(0o700, exist_ok=True)
    room = _Room(path)
    try:
        found = path.stat() if room.fd is None else os.fstat(room.fd)
        if _not_ours(found):
            raise PermissionError
        yield room
    finally:
        if room.fd is not None:
            os.close(room.fd)


def read(key: Key) -> bytes | None:
    """The machine code that was written under the key; None where there is none, or a damaged file."""
    try:
        with _room() as room, os.fdopen(room.open(_name(key), os.O_RDONLY), "rb") as file:
            found = os.fstat(file.fileno())
            alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= _LARGEST
            return _opened(file.read(), key) if alone and not _not_ours(found) else None
    except OSError:
        return None


def write(key: Key, code: bytes) -> None:
    """Keeps the code under the key where the disk allows it; readers see all of it or nothing."""
    name = _name(key)
    partial = f"{name}.{secrets.token_hex(4)}"
    with suppress(OSError), _room(make=True) as room:
        try:
            with os.fdopen(room.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(_sealed(code, key))
            room.replace(partial, name)
        except OSError:
            room.unlink(partial)


def _sealed(code: bytes, key: Key) -> bytes:
    """Magic, three lengths, the key's two texts, the code, and a checksum of all before it."""
    name, machine = (text.encode() for text in key)
    whole = MAGIC + _HEAD.pack(len(name), len(machine), len(code)) + name + machine + code
    return whole + hashlib.sha256(whole).digest()


def _opened(data: bytes, key: Key) -> bytes | None:
    """The code of a whole file of that key."""
    name, machine = (text.encode() for text in key)
    start = len(MAGIC) + _HEAD.size + len(name) + len(machine)
    code = data[start:-_SEAL]
    return code if data == _sealed(code, key) else None
