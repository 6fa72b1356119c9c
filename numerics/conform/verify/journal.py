"""A journal of finished proofs: what `numerics verify --resume` need not run again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from numerics._version import __version__
from numerics.backends.paths import kind_of, path_of
from numerics.conform.vectors.operations import ElementOperation
from numerics.conform.verify.hashes import shipped
from numerics.conform.verify.proof import BACKENDS, Advance, Result, prove
from numerics.formats.errors import NumericsError
from numerics.formats.forking import imported

ARITHMETIC = ("numerics.formats", "numerics.backends")  # whose sources compute what is proven


@cache
def arithmetic() -> str:
    """A hash of the sources that compute: a proof belongs to the code that it was made of.

    >>> len(arithmetic())
    64
    """
    found = hashlib.sha256()
    for package in ARITHMETIC:
        home = Path(str(imported(package).__file__)).parent
        for source in sorted(home.rglob("*.py")):
            found.update(source.relative_to(home).as_posix().encode() + b"\0" + source.read_bytes())
    return found.hexdigest()


LONGEST = 1 << 24  # bytes: a hundred runs of every case on every backend take less


class Journal:
    """Finished cases in a file, one JSON line each, so that an interrupted run can be resumed.

    Only what this version of the package and its very arithmetic found, with the right hash, counts as
    finished; a torn line counts for nothing.  Raises NumericsError for what is no journal.
    """

    BEGINNING = b'{"numerics": '

    def __init__(self, path: Path) -> None:
        self.path = path_of(path)
        with self._refusals(), self._open("a+b") as file:
            file.seek(0)
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise NumericsError(
                f"{path} is no journal of `numerics verify`: it has more than {LONGEST} bytes"
            )
        beginning = content[: len(self.BEGINNING)]
        if not self.BEGINNING.startswith(beginning):
            raise NumericsError(f"{path} is no journal of `numerics verify`: it begins with {beginning!r}")
        self.torn = not content.endswith(b"\n") and content != b""
        self.finished = {(e["case"], e["backend"]): e for e in self._entries(content)}

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as wrong:
            raise NumericsError(f"{self.path} cannot be the journal: {wrong.strerror}") from wrong

    def _open(self, mode: str) -> BinaryIO:
        """The file, made where there is none; raises NumericsError for what never ends: devices and pipes."""

        def regular(path: str, flags: int) -> int:
            # without O_NONBLOCK a pipe that nobody reads would be waited for
            handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
            what = kind_of(os.fstat(handle).st_mode)
            if what is None:
                return handle
            os.close(handle)
            raise NumericsError(f"{self.path} cannot be the journal: it is {what}; allowed: a regular file")

        return cast(BinaryIO, open(self.path, mode, opener=regular))

    @staticmethod
    def _entries(content: bytes) -> Iterator[dict[str, Any]]:
        for line in content.split(b"\n"):
            with suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if _is_finished(entry):
                    yield entry

    def known(self, case: ElementOperation, backend: str) -> Result | None:
        """The result of a case that is finished."""
        entry = self.finished.get((str(case), backend))
        if entry is None:
            return None
        return Result(str(case), backend, entry["inputs"], entry["sha256"], resumed=True)

    def add(self, result: Result) -> None:
        """Appends a finished case; on the disk when this returns."""
        entry = {"numerics": __version__, "arithmetic": arithmetic(), "case": result.case,
                 "backend": result.backend, "inputs": result.inputs, "sha256": result.sha256}  # fmt: skip
        with self._refusals(), self._open("ab") as file:
            file.write(b"\n" * self.torn + json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.torn = False


ENTRY = {"numerics": str, "arithmetic": str, "case": str, "backend": str, "inputs": int, "sha256": str}


def _is_finished(entry: Any) -> bool:
    """Is it whole, of this version, and right?"""
    if not isinstance(entry, dict) or any(type(entry.get(name)) is not kind for name, kind in ENTRY.items()):
        return False
    if entry["backend"] not in BACKENDS:
        return False
    ours = entry["numerics"] == __version__ and entry["arithmetic"] == arithmetic()
    return bool(ours and shipped().get(entry["case"]) == entry["sha256"])


def prove_all(
    wanted: Iterable[ElementOperation],
    backend: str = "cpu",
    journal: Journal | None = None,
    advance: Advance = lambda inputs: None,
) -> Iterator[Result]:
    """The result of each case in turn; those that the journal has are not run again.

    A journal keeps what has a shipped hash: a format of yours may be another one tomorrow.
    """
    for case in wanted:
        known = journal.known(case, backend) if journal else None
        if known:
            advance(known.inputs)
        result = known or prove(case, backend, advance)
        if journal and not known and str(case) in shipped():
            journal.add(result)
        yield result
