"""The safetensors file: read with every doubt, written in place and moved when it is whole.

8 bytes of header length (little-endian), a JSON header, the tensors without gaps.  The format's own
Python writer holds a whole file in memory and its NumPy reader knows no bfloat16; these two stream.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.memory import room_of
from numerics.backends.partition import fits_array
from numerics.backends.paths import kind_of, path_of
from numerics.files.json_members import Members
from numerics.files.kinds import LOOKED_AT, known
from numerics.files.replacement import Before, Replacement
from numerics.formats.errors import NumericsError
from numerics.formats.floats import fp4, fp6_e2m3, fp6_e3m2

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
PACKED = {
    "F4": (fp4, "float4_e2m1fn"), "F6_E2M3": (fp6_e2m3, "float6_e2m3fn"),
    "F6_E3M2": (fp6_e3m2, "float6_e3m2fn"),
}  # fmt: skip
"""Types of fewer than 8 bits: one string of bits, element 0 lowest, as torch has F4; ml_dtypes' names."""
LONGEST_HEADER = 100_000_000  # as the format's own reader has it
OF_A_FOLDER = (
    "numerics.checkpoints.loading.load reads a folder of .safetensors files, its quantized weights as "
    "QTensors, and `numerics convert FOLDER OUT` writes them; here give one of the files in it"
)


@dataclass(frozen=True, slots=True)
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
    def itemsize(self) -> int:
        """Bytes of one element, where those are whole."""
        return BITS[self.dtype] // 8

    @property
    def stop(self) -> int:
        """Where the next tensor begins."""
        return self.start + self.nbytes


def may_be_one(first: bytes) -> bool:
    """Does a safetensors file begin so?  The length of a header may look like how another kind begins.

    >>> may_be_one((640).to_bytes(8, "little") + b'{"w":')  # as a pickle does: 0x80, 2
    True
    """
    length = int.from_bytes(first[:8], "little")
    return length <= LONGEST_HEADER and first[8:].lstrip(b" \t\r\n").startswith(b"{")


class Reader:
    """A safetensors file: checked on opening; its tensors as views of the file, or read piece by piece.

    mapped: whole tensors are views of the file, which must not be cut while they are used; else they are
    read into memory of their own when they are asked for.
    Raises NumericsError, naming the file and what is wrong, for a file that cannot be read, is of another
    kind, is cut short, or whose header contradicts it.  Memory: a few times the header's.
    """

    def __init__(self, path: str | os.PathLike[str], mapped: bool = True) -> None:
        self.path, self.mapped = path_of(path), mapped
        self.metadata: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        self._reading = Lock()  # of the place in the file
        with self._refusals():
            # without O_NONBLOCK a pipe that nobody writes would be waited for
            self._file = open(self.path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            self.status = os.fstat(self._file.fileno())
            self._size = self._regular(self.status)
            self._begin = 8 + self._length(self._read(0, min(self._size, LOOKED_AT)))
        self._parse(self._read(8, self._begin))
        self._check_places(self._size - self._begin)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as wrong:
            help = f"; {OF_A_FOLDER}" if isinstance(wrong, IsADirectoryError) else ""
            raise NumericsError(f"cannot read {self.path}: {wrong.strerror or wrong}{help}") from wrong

    def _regular(self, status: os.stat_result) -> int:
        """The file's size."""
        what = kind_of(status.st_mode)
        if what is not None:
            raise NumericsError(f"cannot read {self.path}: it is {what}; a regular file is needed")
        return status.st_size

    def _fail(self, wrong: str) -> NoReturn:
        raise NumericsError(f"{self.path} is not a whole safetensors file: {wrong}")

    def _length(self, first: bytes | bytearray) -> int:
        length, follow = int.from_bytes(first[:8], "little"), self._size - 8
        if len(first) >= 8 and length <= min(follow, LONGEST_HEADER):
            return length
        if what := known(first, self.path):
            self._fail(f"it looks like {what}")
        if len(first) < 8:
            self._fail(f"{self._size} bytes are too few for a header")
        return self._fail(f"a header of {length} bytes is announced, and {follow} bytes follow")

    def _parse(self, text: bytes | bytearray) -> None:
        """Fills `metadata` and `entries`."""
        if not text.lstrip(b" \t\r\n").startswith(b"{"):
            self._fail("the header is not a JSON object" if _is_json(text) else "the header is not JSON")
        faults: list[NumericsError] = []  # told where the rest is JSON
        try:
            said = Members(text.decode())
            for name in said.names():
                if name == "__metadata__":
                    self.metadata = _metadata(said)
                    continue
                facts = said.value()
                try:
                    self.entries[name] = self._entry(name, facts)
                except NumericsError as wrong:
                    faults = faults or [wrong]
            said.end()
        except ValueError as wrong:
            self._fail(f"the header is not JSON of safetensors: {wrong}")
        if faults:
            raise faults[0]

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
        if not fits_array(shape):
            self._fail(f"tensor {name!r} has the shape {shape!r}, which is more than an array can have")
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

    def read(self, name: str, start: int, stop: int) -> Array:
        """Bytes of a tensor (uint8), read now: a file that was cut meanwhile raises NumericsError."""
        begin = self._begin + self.entries[name].start
        found = room_of(stop - start)
        self._fill(found.data, begin + start)
        return found

    def _read(self, start: int, stop: int) -> bytearray:
        found = bytearray(stop - start)
        self._fill(memoryview(found), start)
        return found

    def _fill(self, rest: memoryview, start: int) -> None:
        """Fills memory with what lies in the file from `start` on; one thread at a time."""
        done = 0
        with self._reading, self._refusals():
            self._file.seek(start)
            while done < len(rest):
                count = self._file.readinto(rest[done:])
                if not count:
                    self._cut()
                done += count

    def check_unchanged(self, status: os.stat_result | None = None) -> None:
        """Raises NumericsError where the file was written since it was opened, or since `status`."""
        due, now = status or self.status, os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (due.st_size, due.st_mtime_ns):
            raise NumericsError(f"cannot read {self.path}: it was changed while it was read; begin again")

    def check_size(self) -> None:
        """Raises NumericsError where the file was cut: to touch its views would end the process."""
        if os.fstat(self._file.fileno()).st_size < self._size:
            self._cut()

    def _cut(self) -> NoReturn:
        raise NumericsError(f"cannot read {self.path}: it was cut while it was read")

    @cached_property
    def _bytes(self) -> Array:
        """What follows the header: a view of the file."""
        self.check_size()
        with self._refusals():
            mapped = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, np.uint8)[self._begin :]

    def raw(self, name: str) -> Array:
        """The bytes of a tensor (uint8)."""
        entry = self.entries[name]
        if not self.mapped:
            return self.read(name, 0, entry.nbytes)
        return self._bytes[entry.start : entry.stop]

    def words(self, name: str) -> Array:
        """A tensor as NumPy has it, BF16 as uint16."""
        entry = self.entries[name]
        return self.raw(name).view(word_type(entry.dtype)).reshape(entry.shape)

    def tensor(self, name: str) -> Array:
        """A tensor in its own type; ml_dtypes supplies what NumPy lacks.

        One element a byte for types of fewer than 8 bits.  Raises
        NumericsError where ml_dtypes is not installed.
        """
        entry = self.entries[name]
        if entry.dtype in NUMPY:
            return self.words(name)
        try:
            import ml_dtypes

            packed, spelled = PACKED.get(entry.dtype, (None, ML_DTYPES.get(entry.dtype, "")))
            own = getattr(ml_dtypes, spelled)
        except (ImportError, AttributeError) as missing:
            raise NumericsError(
                f"{self.path}: tensor {name!r} is {entry.dtype}, which NumPy does not have: "
                "pip install ml_dtypes"
            ) from missing
        codes: Array = self.words(name) if packed is None else packed.unpack(self.raw(name), entry.shape)
        return codes.view(own)


def word_type(kind: str) -> str:
    """NumPy's type for a safetensors type of whole bytes: its own, or words of its width."""
    return NUMPY.get(kind, "<u2" if BITS[kind] == 16 else "|u1")


def _metadata(said: Members) -> dict[str, str]:
    try:
        return dict(said.members(Members.text))
    except ValueError as wrong:
        raise ValueError(f"__metadata__ is not a table of strings: {wrong}") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_json(text: bytes | bytearray) -> bool:
    try:
        json.loads(text[:LOOKED_AT])
    except (ValueError, RecursionError):
        return False
    return True


def _sizes(came: Any) -> bool:
    return isinstance(came, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in came
    )


class Writer:
    """A safetensors file in the making: a context that leaves a whole file, or what was there before.

    The sizes are known beforehand, so the header goes first, and `put` fills the tensors in any order;
    what nobody put reads as zeros.  before: as Replacement's.  Errors as Replacement's, and for a header too
    long to be read again.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        entries: Mapping[str, Entry],
        metadata: Mapping[str, str],
        before: Before | None = None,
    ) -> None:
        self._file, self._writing = Replacement(target, before), Lock()
        self.entries = placed(entries)
        self._header = header_bytes(self.entries, metadata)
        if len(self._header) - 8 > LONGEST_HEADER:
            raise NumericsError(
                f"cannot write {target}: a header of {len(self._header) - 8} bytes; "
                f"safetensors allows {LONGEST_HEADER}: fewer tensors or shorter names"
            )

    def __enter__(self) -> Writer:
        self._file.__enter__()
        end = max((entry.stop for entry in self.entries.values()), default=0)
        try:
            with self._file.refusals():
                self._file.resize(len(self._header) + end)
                self._write(0, self._header)
        except BaseException:
            self._file.discard()
            raise
        return self

    def put(self, name: str, start: int, data: Array) -> int:
        """Elements of a tensor, in C order, from its byte `start` on; returns where they end."""
        little = data.astype(data.dtype.newbyteorder("<"), copy=False)
        flat = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
        entry, stop = self.entries[name], start + flat.size
        assert stop <= entry.nbytes, f"{name} is longer than planned"
        with self._file.refusals():
            self._write(len(self._header) + entry.start + start, flat.data)
        return stop

    def _write(self, position: int, data: bytes | memoryview) -> None:
        with self._writing:  # one thread at a time
            self._file.write(position, data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)


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
