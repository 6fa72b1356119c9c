"""Files that appear whole or not at all: written beside their target and moved onto it at the end."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from numerics.backends.paths import kind_of, path_of
from numerics.files.signals import terminable
from numerics.formats.errors import NumericsError

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl

STEM = 100  # bytes of the target's name in the hidden one, which has to be a name too
CROWD = 1000  # entries: a folder of more is looked through for leavings once a process
DANGLING = "a symbolic link that leads nowhere"
OTHERS = (
    ".safetensors", ".gguf", ".onnx", ".npy", ".npz", ".json", ".toml", ".pt", ".pth", ".bin", ".h5",
    ".tflite", ".html", ".htm", ".png", ".jpg", ".jpeg", ".svg", ".pdf", ".txt", ".csv", ".md", ".py",
    ".ipynb", ".zip",
)  # fmt: skip
"""Endings that say what a file holds: nothing else is written to a name that has one."""
Before = Callable[[Path], object]  # what is told of a whole file that has not its name yet
_crowded: set[Path] = set()


class Replacement:
    """A file in the making: a context that leaves the whole file at the target, or what was there before.

    The target is a regular file, whose mode and owner are kept, or none yet; a symbolic link is followed.
    What a process of this host left in the folder when it was killed is removed first.
    before: called with the path of the whole file before it gets its name; where it raises, nothing changes.
    Raises NumericsError, naming the target, where it is something else or where the system refuses.
    """

    def __init__(self, target: str | os.PathLike[str], before: Before | None = None) -> None:
        path, self._before = path_of(target), before
        self.target = Path(os.path.realpath(path))
        self._old(path)
        self.partial = _hidden(self.target)
        self._process = os.getpid()
        # a signal may raise between any two steps: the finalizer also runs where __exit__ does not
        self._put_away = weakref.finalize(self, _remove, self.partial, self._process)

    def __enter__(self) -> Replacement:
        try:
            with self.refusals():
                sweep(self.target.parent)
                self._open(0o600 if self._old(self.target) else 0o666)
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self.discard()

    def _open(self, mode: int) -> None:
        """Creates the hidden file, and locks it for as long as this process lives."""

        def locked(path: str, flags: int) -> int:
            while True:
                handle = os.open(path, flags, mode)
                lock(handle, wait=True)
                if os.name == "nt" or os.fstat(handle).st_nlink:
                    return handle
                os.close(handle)  # somebody took it for a leaving before it was locked

        self._file = open(self.partial, "xb", buffering=0, opener=locked)  # noqa: SIM115

    def write(self, position: int, data: bytes | memoryview) -> None:
        """Bytes from a place of the file on; between them there may be gaps, which read as zeros."""
        self._check_process()
        rest = memoryview(data)
        self._file.seek(position)
        while rest:
            rest = rest[self._file.write(rest) :]

    def resize(self, size: int) -> None:
        """Gives the file its size."""
        self._check_process()
        self._file.truncate(size)

    def _commit(self) -> None:
        self._check_process()
        with self.refusals():
            old = self._old(self.target)
            if old is not None:
                _take_over(self._file.fileno(), old)
            os.fsync(self._file.fileno())
            if self._before is not None:
                self._before(self.partial)
            if os.name == "nt":  # elsewhere the lock is held until it has its name
                self._file.close()
            os.replace(self.partial, self.target)
            self._file.close()
            sync_folder(self.target.parent)

    def discard(self) -> None:
        """Removes the hidden file, where it still is; a child that was forked meanwhile leaves it alone."""
        with suppress(OSError, AttributeError):  # no file where a signal came while it was opened
            self._file.close()
        self._put_away()

    def _old(self, path: Path) -> os.stat_result | None:
        """What is to be replaced, if anything; raises NumericsError where that is no regular file."""
        try:
            old = os.stat(path)
        except OSError:
            if os.path.islink(path):
                raise self._refused(DANGLING) from None
            return None
        what = kind_of(old.st_mode)
        if what is not None:
            raise self._refused(what)
        return old

    def _refused(self, what: str) -> NumericsError:
        return NumericsError(
            f"cannot write {self.target}: it is {what}; allowed: a regular file or a new name; "
            "nothing was changed"
        )

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise NumericsError(f"cannot write {self.target}: the process that forked this one writes it")

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """An OSError inside is told as a NumericsError."""
        try:
            yield
        except OSError as wrong:
            help = "; the disk is full" if wrong.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            if os.name == "nt" and isinstance(wrong, PermissionError):
                help = "; Windows replaces no file that is open or mapped, as nx.load maps it"
            folder = Path(self.target).parent
            if not os.path.isdir(folder):
                help += f"; there is no folder {folder}"
            help += "; that file was not changed" if os.path.lexists(self.target) else "; nothing was written"
            raise NumericsError(f"cannot write {self.target}: {wrong.strerror or wrong}{help}") from wrong


def replace_file(target: str | os.PathLike[str], data: bytes) -> None:
    """The bytes as a file, whole or not at all; errors as Replacement's."""
    with terminable(), Replacement(target) as file, file.refusals():
        file.write(0, data)


def refuse_same_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Raises NumericsError where the target is the source, under whatever name."""
    paths = path_of(source), path_of(target)
    with suppress(OSError):
        if os.path.samefile(*paths):
            raise NumericsError(f"the output {target} is the input; name another file")


def check_inputs(*sources: str | os.PathLike[str] | None) -> None:
    """Raises NumericsError for the first of the files and folders that is not there; None stands for none."""
    for source in sources:
        try:
            if source is not None:
                os.stat(path_of(source))
        except (FileNotFoundError, NotADirectoryError) as wrong:
            raise NumericsError(f"cannot read {source}: {wrong.strerror}") from None


def check_output(
    target: str | os.PathLike[str], endings: Sequence[str], *sources: str | os.PathLike[str] | None
) -> None:
    """Raises NumericsError where what is written would take the place of an input, or of another kind.

    endings: those of what is written.  A folder, and an ending that says nothing, are left to the writer.
    sources: what is read; None stands for nothing.  One that is not there is told before all else.
    """
    check_inputs(*sources)
    for source in sources:
        if source is not None:
            refuse_same_file(source, target)
    ending = path_of(target).suffix.lower()
    if ending in OTHERS and ending not in endings and not os.path.isdir(target):
        raise NumericsError(
            f"the output {target} has the name of another kind of file; allowed: names that end in "
            f"{', '.join(endings)}"
        )


def refuse_file_for_folder(target: str | os.PathLike[str]) -> None:
    """Raises NumericsError where a folder would have the place or the name of a file."""
    path = path_of(target)
    if os.path.isdir(path):
        return
    if os.path.exists(path):
        raise NumericsError(f"cannot write {target}: it is a file; name a folder")
    if path.suffix.lower() in OTHERS:
        raise NumericsError(
            f"the output {target} has the name of a file ({path.suffix}), and what is written is a folder: "
            "give it another name"
        )


def sync_folder(folder: Path) -> None:
    """Makes a rename last; some systems cannot open folders, and need not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _take_over(handle: int, old: os.stat_result) -> None:
    """Owner and mode of the file that is replaced; where its group cannot be kept, the group gets no more."""
    if not hasattr(os, "fchown"):
        return
    mode, made = stat.S_IMODE(old.st_mode) & 0o777, os.fstat(handle)
    for user, group in ((old.st_uid, old.st_gid), (-1, old.st_gid)):
        if (made.st_uid, made.st_gid) == (old.st_uid, old.st_gid):
            break
        with suppress(OSError):
            os.fchown(handle, user, group)
            break
    if os.fstat(handle).st_gid != old.st_gid:
        mode &= 0o707 | (mode & 0o007) << 3
    os.fchmod(handle, mode)


# ---- what killed processes leave ------------------------------------------------------------------


def _hidden(target: Path) -> Path:
    """A name beside the target that says which host writes it."""
    stem = os.fsencode(target.name)[:STEM].decode("utf-8", "ignore")
    return target.with_name(f".{stem}.{_host()}-{secrets.token_hex(4)}.partial")


def _host() -> str:
    import platform

    return f"{zlib.crc32(platform.node().encode('utf-8', 'replace')):08x}"


def _remove(partial: Path, process: int) -> None:
    if os.getpid() == process:
        with suppress(OSError):
            partial.unlink()  # gone already where all went well


def lock(handle: int, wait: bool) -> bool:
    """Locks an open file until it is closed; False where another process has it, or nothing can be locked."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Removes the hidden files of this host and user that no living process has locked."""
    if fcntl is None or folder in _crowded:
        return
    with suppress(OSError):
        names = os.listdir(folder)
        if len(names) > CROWD:
            _crowded.add(folder)
        left = re.compile(rf"\..*\.{_host()}-[0-9a-f]{{8}}\.partial", re.DOTALL)
        for name in filter(left.fullmatch, names):
            _remove_left(folder / name)


def _remove_left(path: Path) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and lock(handle, wait=False):
                path.unlink()
        finally:
            os.close(handle)
