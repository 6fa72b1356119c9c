"""The safetensors file: read with every doubt, written in place and moved when it is whole.

8 bytes of header length (little-endian), a JSON header, the tensors without gaps.  The format's own
Python writer holds a whole file in memory and its NumPy reader knows no bfloat16; these two stream.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import signal
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError

Array = NDArray[Any]

BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
NUMPY = {
    "F64": "<f8", "I64": "<i8", "U64": "<u8", "C64": "<c8", "F32": "<f4", "I32": "<i4", "U32": "<u4",
    "F16": "<f2", "I16": "<i2", "U16": "<u2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
ML_DTYPES = {
    "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
LONGEST_HEADER = 100_000_000  # as the format's own reader has it


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: safetensors' name of its type, its shape, its place after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * BITS[self.dtype] // 8

    @property
    def stop(self) -> int:
        """Where the next tensor begins."""
        return self.start + self.nbytes


class Reader:
    """A safetensors file: checked on opening, its tensors as views of the file.

    Raises NumericsError, naming the file and what is wrong, for a file that cannot be read, is cut
    short, or whose header contradicts it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                length = self._length(file.read(8), size)
                header = self._parse(file.read(length))
            self._bytes: Array = np.memmap(self.path, np.uint8, "r").view(np.ndarray)[8 + length :]
        except OSError as wrong:
            raise NumericsError(f"cannot read {self.path}: {wrong.strerror or wrong}") from wrong
        self.metadata = self._metadata(header.pop("__metadata__", {}))
        self.entries = {name: self._entry(name, facts) for name, facts in header.items()}
        self._check_places(size - 8 - length)

    def _fail(self, wrong: str) -> NoReturn:
        raise NumericsError(f"{self.path} is not a whole safetensors file: {wrong}")

    def _length(self, first: bytes, size: int) -> int:
        if len(first) < 8:
            self._fail(f"{size} bytes are too few for a header")
        length = int.from_bytes(first, "little")
        if length > min(size - 8, LONGEST_HEADER):
            self._fail(f"a header of {length} bytes is announced, and {size - 8} bytes follow")
        return length

    def _parse(self, text: bytes) -> dict[str, Any]:
        try:
            header = json.loads(text.decode(), object_pairs_hook=_without_twins)
        except (ValueError, RecursionError) as wrong:
            self._fail(f"the header is not JSON: {wrong}")
        if not isinstance(header, dict):
            self._fail("the header is not a JSON object")
        return header

    def _metadata(self, came: Any) -> dict[str, str]:
        if not isinstance(came, dict) or not all(isinstance(text, str) for text in came.values()):
            self._fail("__metadata__ is not a table of strings")
        return came

    def _entry(self, name: str, facts: Any) -> Entry:
        if not isinstance(facts, dict) or not {"dtype", "shape", "data_offsets"} <= facts.keys():
            self._fail(f"tensor {name!r} lacks dtype, shape or data_offsets")
        dtype, shape, offsets = facts["dtype"], facts["shape"], facts["data_offsets"]
        if not isinstance(dtype, str) or dtype not in BITS:
            self._fail(f"tensor {name!r} has the unknown type {dtype!r}; known: {', '.join(BITS)}")
        if not _sizes(shape):
            self._fail(f"tensor {name!r} has the shape {shape!r}")
        if not _sizes(offsets) or len(offsets) != 2:
            self._fail(f"tensor {name!r} has the data_offsets {offsets!r}")
        entry = Entry(dtype, tuple(shape), offsets[0])
        if entry.stop != offsets[1] or math.prod(shape) * BITS[dtype] % 8:
            self._fail(f"tensor {name!r}, {dtype} {shape}, does not fill {offsets}")
        return entry

    def _check_places(self, size: int) -> None:
        """The tensors follow each other without gap or overlap and end where the file ends."""
        end = 0
        for name, entry in sorted(self.entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start != end:
                fault = "overlaps the one before it" if entry.start < end else "leaves a gap before it"
                self._fail(f"tensor {name!r} at {entry.start} {fault}, which ends at {end}")
            end = entry.stop
        if end != size:
            self._fail(f"its tensors take {end} bytes, and {size} bytes follow the header")

    def raw(self, name: str) -> Array:
        """The bytes of a tensor (uint8): a view of the file."""
        entry = self.entries[name]
        return self._bytes[entry.start : entry.stop]

    def words(self, name: str) -> Array:
        """A tensor as NumPy has it, BF16 as uint16: a view of the file."""
        entry = self.entries[name]
        kind = NUMPY.get(entry.dtype, "<u2" if BITS[entry.dtype] == 16 else "|u1")
        return self.raw(name).view(kind).reshape(entry.shape)

    def tensor(self, name: str) -> Array:
        """A tensor in its own type: a view of the file; ml_dtypes supplies what NumPy lacks.

        Raises NumericsError where it is not installed, and for types of fewer than 8 bits.
        """
        kind = self.entries[name].dtype
        if kind in NUMPY:
            return self.words(name)
        try:
            import ml_dtypes

            return self.words(name).view(getattr(ml_dtypes, ML_DTYPES[kind]))
        except (ImportError, KeyError) as missing:
            help = "pip install ml_dtypes" if kind in ML_DTYPES else "it cannot be loaded"
            raise NumericsError(
                f"{self.path}: tensor {name!r} is {kind}, which NumPy does not have: {help}"
            ) from missing


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    "".join(found).encode()  # refuses half of a surrogate pair
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _sizes(came: Any) -> bool:
    return isinstance(came, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in came
    )


class Writer:
    """A safetensors file in the making: a context that leaves a whole file, or what was there before.

    The sizes are known beforehand, so the header goes first, and `put` fills the tensors in any order;
    what nobody put reads as zeros.  Written beside the target and moved onto it at the end.
    Raises NumericsError, naming the target, where the system refuses (folder, disk, rights).
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        entries: Mapping[str, Entry],
        metadata: Mapping[str, str],
    ) -> None:
        self.target = Path(os.path.realpath(target))
        self.partial = self.target.with_name(f".{self.target.name}.{secrets.token_hex(4)}.partial")
        self.entries = placed(entries)
        self._header = header_bytes(self.entries, metadata)
        # a signal may raise between any two steps: the finalizer also runs where __exit__ does not
        self._discard = weakref.finalize(self, _discard, self.partial)

    def __enter__(self) -> Writer:
        try:
            with self._refusals():
                self._file = open(self.partial, "xb")
                self._write(0, self._header)
        except BaseException:
            self._leave()
            raise
        return self

    def put(self, name: str, start: int, data: Array) -> int:
        """Elements of a tensor, in C order, from its byte `start` on; returns where they end."""
        little = data.astype(data.dtype.newbyteorder("<"), copy=False)
        flat = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
        entry, stop = self.entries[name], start + flat.size
        assert stop <= entry.nbytes, f"{name} is longer than planned"
        with self._refusals():
            self._write(len(self._header) + entry.start + start, flat.data)
        return stop

    def _write(self, position: int, data: bytes | memoryview) -> None:
        self._file.seek(position)
        self._file.write(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._leave()

    def _leave(self) -> None:
        with suppress(OSError, AttributeError):  # no file where a signal came while it was opened
            self._file.close()
        self._discard()

    def _finish(self) -> None:
        end = max((entry.stop for entry in self.entries.values()), default=0)
        with self._refusals():
            self._file.truncate(len(self._header) + end)
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.partial, self.target)
            sync_folder(self.target.parent)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as wrong:
            full = "; the disk is full" if wrong.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            raise NumericsError(
                f"cannot write {self.target}: {wrong.strerror or wrong}{full}; nothing was changed"
            ) from wrong


def _discard(partial: Path) -> None:
    with suppress(OSError):
        partial.unlink()  # gone already where all went well


def replace_file(target: str | os.PathLike[str], data: bytes) -> None:
    """The bytes as a file, whole or not at all; raises NumericsError where the system refuses."""
    place = Path(os.path.realpath(target))
    partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, place)
    except OSError as wrong:
        raise NumericsError(f"cannot write {place}: {wrong.strerror or wrong}") from wrong
    finally:
        _discard(partial)


def placed(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The entries with their places: wide types first, so that each lies aligned; no gaps."""
    found, start = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: -BITS[item[1].dtype]):
        found[name] = Entry(entry.dtype, entry.shape, start)
        start = found[name].stop
    return found


def header_bytes(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON header, filled with spaces to a multiple of 8."""
    facts: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, e in entries.items():
        facts[name] = {"dtype": e.dtype, "shape": list(e.shape), "data_offsets": [e.start, e.stop]}
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def sync_folder(folder: Path) -> None:
    """Makes a rename last; some systems cannot open folders, and need not."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def refuse_same_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Raises NumericsError where the target is the source, under whatever name."""
    with suppress(OSError):
        if os.path.samefile(source, target):
            raise NumericsError(f"the output {target} is the input; name another file")


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM inside becomes SystemExit, so that contexts clean up; where nobody else handles it."""
    free = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if free:
        signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
