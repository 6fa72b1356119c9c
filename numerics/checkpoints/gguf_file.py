"""GGUF files, read with every doubt: what they say is kept as bytes, tensors are read one by one.

The file (https://github.com/ggml-org/ggml, the page of GGUF): "GGUF", version, number of tensors and of
values by name; the values; the tensors' names, dimensions, types and places; from a multiple of the alignment
on, the tensors.  All numbers are little-endian.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.partition import fits_array
from numerics.backends.paths import kind_of, path_of
from numerics.files.checkpoint import PathLike
from numerics.files.replacement import Replacement
from numerics.files.safetensors import BITS, ML_DTYPES, NUMPY
from numerics.files.signals import terminable
from numerics.formats.errors import NumericsError
from numerics.interop.gguf import KINDS, from_gguf

Array = NDArray[Any]
MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
ALIGNMENT_KEY = b"general.alignment"
LONGEST_NAME, LONGEST_KEY, AXES = 1 << 10, 1 << 16, 4
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; 8 is a text, 9 an array."""
TEXT, ARRAY, UINT32 = 8, 9, 4
NESTED = 4  # arrays of arrays

TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1),
    25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}  # fmt: skip
"""ggml's types by number: name, values of a block, bytes of a block."""
NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}


class Undecoded(NumericsError):
    """A tensor of a type that nothing here decodes; the file is whole.

    shape: of its values.  why: without the names of the file and the tensor.
    """

    def __init__(self, path: object, name: str, shape: tuple[int, ...], why: str) -> None:
        super().__init__(f"{path}: tensor {name!r}: {why}")
        self.shape, self.why = shape, why


@dataclass(frozen=True)
class Place:
    """One tensor of a file: its type, its shape (outermost axis first), where its bytes are."""

    kind: str
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return nbytes_of(self.kind, self.shape)


def nbytes_of(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor of a type takes."""
    _, values, size = TYPES[NUMBERS[kind]]
    return math.prod(shape) // values * size


class GGUFFile:
    """A GGUF file: its tensors by name; `head` is how many values it says, and their bytes.

    Raises NumericsError, naming the file and what is wrong, for one that cannot be read, is of another kind
    or version, is cut short or contradicts itself.  Memory: the names of its tensors, and one tensor.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = path_of(path)
        self.entries: dict[str, Place] = {}
        self.alignment = ALIGNMENT
        try:
            with open(self.path, "rb") as file:
                self._file = file
                status = os.fstat(file.fileno())
                if (what := kind_of(status.st_mode)) is not None:
                    raise NumericsError(f"cannot read {self.path}: it is {what}; a regular file is needed")
                self._size = status.st_size
                self._parse()
        except OSError as wrong:
            raise NumericsError(f"cannot read {self.path}: {wrong.strerror or wrong}") from wrong

    def _fail(self, wrong: str) -> NoReturn:
        raise NumericsError(f"{self.path} is not a whole GGUF file: {wrong}")

    def _take(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            self._fail(f"{count} bytes are due at {self._file.tell()}, and it has {self._size}")
        found = self._file.read(count)
        if len(found) != count:
            self._fail("it was cut while it was read")
        return found

    def _number(self, kind: str) -> int:
        return int(struct.unpack("<" + kind, self._take(struct.calcsize(kind)))[0])

    def _text(self, most: int) -> bytes:
        length = self._number("Q")
        if length > most:
            self._fail(f"a name of {length} bytes")
        return self._take(length)

    def _skip(self, count: int) -> None:
        if count > self._size - self._file.tell():
            self._fail(f"a value of {count} bytes is announced, and it has {self._size}")
        self._file.seek(count, os.SEEK_CUR)

    def _parse(self) -> None:
        if self._take(4) != MAGIC:
            self._fail("it does not begin with GGUF")
        version = self._number("I")
        if version not in VERSIONS:
            self._fail(f"version {version}; versions {VERSIONS} are read")
        tensors, values = self._number("Q"), self._number("Q")
        if tensors * 24 + values * 13 > self._size:
            self._fail(f"{tensors} tensors and {values} values do not fit into {self._size} bytes")
        begin = self._file.tell()
        for _ in range(values):
            self._value_of(self._text(LONGEST_KEY))
        self.values = values, begin, self._file.tell()
        for _ in range(tensors):
            self._info()
        self._begin = -(-self._file.tell() // self.alignment) * self.alignment
        self._check_places()

    def _value_of(self, key: bytes) -> None:
        kind = self._number("I")
        if key == ALIGNMENT_KEY:
            if kind != UINT32:
                self._fail(f"its alignment is of type {kind}")
            self.alignment = self._number("I")
            if self.alignment < 1 or self.alignment & (self.alignment - 1) or self.alignment > 1 << 20:
                self._fail(f"an alignment of {self.alignment}")
        else:
            self._skip_value(kind, NESTED)

    def _skip_value(self, kind: int, depth: int) -> None:
        if kind in SIZES:
            self._skip(SIZES[kind])
        elif kind == TEXT:
            self._skip(self._number("Q"))
        elif kind == ARRAY and depth:
            inner, count = self._number("I"), self._number("Q")
            if inner in SIZES:
                self._skip(SIZES[inner] * count)
                return
            if count * 8 > self._size - self._file.tell():
                self._fail(f"an array of {count} is announced, and it has {self._size} bytes")
            for _ in range(count):
                self._skip_value(inner, depth - 1)
        else:
            self._fail(f"a value of type {kind}")

    def _info(self) -> None:
        raw = self._text(LONGEST_NAME)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self._fail(f"the name {raw[:40]!r} is not UTF-8")
        axes = self._number("I")
        if axes > AXES:
            self._fail(f"tensor {name!r} has {axes} axes; {AXES} are read")
        shape = tuple(reversed([self._number("Q") for _ in range(axes)]))
        number, start = self._number("I"), self._number("Q")
        if name in self.entries:
            self._fail(f"tensor {name!r} stands twice")
        if number not in TYPES:
            self._fail(f"tensor {name!r} is of the unknown type {number}")
        kind, values, _ = TYPES[number]
        if not fits_array(shape) or (shape[-1] if shape else 1) % values:
            self._fail(f"tensor {name!r} has the shape {shape} in blocks of {values}")
        self.entries[name] = Place(kind, shape, start)

    def _check_places(self) -> None:
        """The tensors are in the file, aligned, and do not overlap."""
        end = 0
        for name, place in sorted(self.entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
            if place.start < end or place.start % self.alignment:
                self._fail(f"tensor {name!r} at {place.start} overlaps the one before it or is not aligned")
            end = place.start + place.nbytes
            if self._begin + end > self._size:
                self._fail(f"tensor {name!r} ends at {self._begin + end}, and it has {self._size} bytes")

    # ---- tensors ----------------------------------------------------------------------------------

    def raw(self, name: str) -> Array:
        """The bytes of a tensor (uint8), read now."""
        place = self.entries[name]
        try:
            with open(self.path, "rb") as file:
                file.seek(self._begin + place.start)
                found = np.fromfile(file, np.uint8, place.nbytes)
        except OSError as wrong:
            raise NumericsError(f"cannot read {self.path}: {wrong.strerror or wrong}") from wrong
        if found.size != place.nbytes:
            raise NumericsError(f"cannot read {self.path}: it was cut while it was read")
        return found

    def head(self) -> tuple[int, bytes]:
        """How many values it says, and the bytes that say them."""
        count, begin, end = self.values
        with open(self.path, "rb") as file:
            file.seek(begin)
            return count, file.read(end - begin)

    def tensor(self, name: str) -> Any:
        """A tensor: a QTensor of MXFP4, NVFP4, Q8_0 and Q4_0, an array of floats and integers.

        Of one that no QTensor holds, the reason: `decoded` has its values, `blocks` its bytes.
        """
        place = self.entries[name]
        if place.kind in BITS:
            return _plain(self.path, self.raw(name), place)
        if place.kind not in KINDS:
            return f"{place.kind} has scales that no scheme here has"
        beside = self._scale(name)
        if beside is not None and beside.size != 1:
            return f"it has {beside.size} tensor scales, one a matrix, and NVFP4 here has one"
        _, values, size = TYPES[NUMBERS[place.kind]]
        blocks = self.raw(name).reshape(*place.shape[:-1], place.shape[-1] // values * size)
        try:
            return from_gguf(blocks, place.kind, None if beside is None else float(beside[0]))
        except NumericsError as wrong:
            return str(wrong)

    def decoded(self, name: str) -> Array:
        """The values of blocks in float32, by the gguf package; raises NumericsError without it."""
        found, beside = _decoded(self.path, name, self.raw(name), self.entries[name]), self._scale(name)
        with np.errstate(all="ignore"):
            return found if beside is None else found * beside.reshape(-1, *[1] * (found.ndim - 1))

    def blocks(self, name: str) -> dict[str, tuple[str, tuple[int, ...], Array]]:
        """A tensor as the file has it, its type, shape and bytes, and what lies beside it as its scale."""
        return {
            part: (self.entries[part].kind, self.entries[part].shape, self.raw(part))
            for part in self.parts(name)
        }

    def parts(self, name: str) -> list[str]:
        """The name of a tensor, and that of what lies beside it as its scale."""
        return [name, *([scale_name(name)] if self.has_scale(name) else [])]

    def _scale(self, name: str) -> Array | None:
        """Of NVFP4: the numbers in the tensor beside it, as llama.cpp names it, where there is one."""
        return self.raw(scale_name(name)).view("<f4") if self.has_scale(name) else None

    def has_scale(self, name: str) -> bool:
        """Is there a tensor beside it with its tensor scale, or those of its matrices (experts)?"""
        place, beside = self.entries[name], self.entries.get(scale_name(name))
        if place.kind != "NVFP4" or beside is None or beside.kind != "F32":
            return False
        return math.prod(beside.shape) in (1, place.shape[0] if len(place.shape) > 2 else 1)


def scale_name(name: str) -> str:
    """What the tensor with NVFP4's tensor scale is called."""
    return name.removesuffix(".weight") + ".scale"


def _plain(path: object, raw: Array, place: Place) -> Array:
    if place.kind in NUMPY:
        return raw.view(NUMPY[place.kind]).reshape(place.shape)
    try:
        import ml_dtypes
    except ImportError as missing:
        raise NumericsError(
            f"{path}: {place.kind} is a type that NumPy lacks: pip install ml_dtypes"
        ) from missing
    return cast(Array, raw.view(getattr(ml_dtypes, ML_DTYPES[place.kind])).reshape(place.shape))


def _decoded(path: object, name: str, raw: Array, place: Place) -> Array:
    if not math.prod(place.shape):  # which the package cannot cut into blocks
        return np.empty(place.shape, np.float32)
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError as missing:
        why = f"{place.kind} is decoded by the gguf package: pip install gguf"
        raise Undecoded(path, name, place.shape, why) from missing
    _, values, size = TYPES[NUMBERS[place.kind]]
    rows = raw.reshape(-1, place.shape[-1] // values * size)
    try:
        with np.errstate(all="ignore"):
            found = quants.dequantize(rows, GGMLQuantizationType[place.kind])
    except NotImplementedError as wrong:
        why = f"the gguf package does not decode {place.kind}"
        raise Undecoded(path, name, place.shape, why) from wrong
    return cast(Array, found.astype(np.float32, copy=False).reshape(place.shape))


# ---- writing --------------------------------------------------------------------------------------


Kinded = tuple[str, tuple[int, ...]]  # a type of ggml's and a shape


class GGUFWriter:
    """A GGUF file in the making, as a context: whole or not at all, tensors put one by one.

    head: how many values, and their bytes, as another file has them; tensors: types and shapes by name.
    """

    def __init__(
        self, target: PathLike, head: tuple[int, bytes], tensors: Mapping[str, Kinded],
        alignment: int = ALIGNMENT,
    ) -> None:  # fmt: skip
        self._replacement = Replacement(target)
        self._places: dict[str, Place] = {}
        at, told = 0, []
        for name, (kind, shape) in tensors.items():
            text = name.encode()
            place = Place(kind, shape, at)
            told.append(struct.pack("<Q", len(text)) + text + struct.pack(
                f"<I{len(shape)}QIQ", len(shape), *reversed(shape), NUMBERS[kind], at))  # fmt: skip
            self._places[name] = place
            at += -(-place.nbytes // alignment) * alignment
        count, values = head
        begun = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), count) + values + b"".join(told)
        self._header = begun + b"\0" * (-len(begun) % alignment)
        self._size = len(self._header) + at

    def __enter__(self) -> GGUFWriter:
        self._signals = terminable()
        self._signals.__enter__()
        self._replacement.__enter__()
        with self._replacement.refusals():
            self._replacement.resize(self._size)
            self._replacement.write(0, self._header)
        return self

    def put(self, name: str, data: Array) -> None:
        """The bytes of a tensor."""
        place = self._places[name]
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        assert flat.size == place.nbytes, f"{name} is not as long as planned"
        with self._replacement.refusals():
            self._replacement.write(len(self._header) + place.start, flat.data)

    def __exit__(self, *raised: Any) -> None:
        try:
            self._replacement.__exit__(*raised)
        finally:
            self._signals.__exit__(*raised)


def value_of_text(key: str, text: str) -> bytes:
    """One value of a head: a text by its name."""
    parts = key.encode(), text.encode()
    return struct.pack("<Q", len(parts[0])) + parts[0] + struct.pack("<IQ", TEXT, len(parts[1])) + parts[1]
