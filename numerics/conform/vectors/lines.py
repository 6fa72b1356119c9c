"""Lines of hex, as arrays: every line of a file has the same width, so a chunk of it is a matrix.

A line is fields of fixed numbers of hex digits, each separated from the next by a space, groups of
them by ` : `.  What is not quite so (CRLF, more blanks, comments) is straightened line by line first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError

Words = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

CHUNK = 1 << 20  # bytes read at a time
COMMENTS = 1 << 16  # lines more than there are vectors
SHOWN = 60  # characters of a malformed line in its error

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_NO_DIGIT = 16
_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
_UNKNOWN = 17  # a simulator's X or Z: a digit that is none
_DIGITS[np.frombuffer(b"xXzZ", np.uint8)] = _UNKNOWN
_DIGITS[_HEX] = _DIGITS[np.frombuffer(b"0123456789ABCDEF", np.uint8)] = np.arange(16)


def shortened(text: str) -> str:
    """A text as errors show it.

    >>> len(shortened("0" * 100))
    63
    """
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


@dataclass(frozen=True)
class Field:
    """`count` numbers of `bits` bits each, in hex; `opens` a group of its own, after ` : `."""

    name: str
    bits: int
    count: int = 1
    opens: bool = False

    @property
    def digits(self) -> int:
        """Hex digits of each number."""
        return -(-self.bits // 4)

    def holds(self, word: str) -> bool:
        """Is a word as many digits as it must be, or a simulator's X or Z, and no number too large?"""
        plain = re.fullmatch("[0-9a-fA-FxXzZ]*", word) and len(word) == self.digits
        return bool(plain) and int(re.sub("[xXzZ]", "0", word), 16) < 1 << self.bits

    def __str__(self) -> str:
        repeated = f" x {self.count}" if self.count > 1 else ""
        partly = f", {self.bits} bits" if self.bits % 4 else ""
        return f"{': ' if self.opens else ''}{self.name} ({self.digits} hex digits{partly}{repeated})"


class Batch(NamedTuple):
    """Some lines: each field's numbers, a row a line, and the numbers of the lines in the file."""

    fields: dict[str, Words]
    lines: NDArray[np.int64]
    unknown: dict[str, NDArray[np.bool_]]
    """The numbers in which a simulator wrote X or Z, which read as digits of 0; no field where it did not."""
    ended: int | None = None
    """The first of the empty lines after the last vector; None where there are none."""


@dataclass(frozen=True)
class Layout:
    """The fields of a line.

    >>> layout = Layout((Field("input", 32), Field("code", 6)))
    >>> print(layout)
    input (8 hex digits) code (2 hex digits, 6 bits)
    >>> layout.format({"input": np.uint32([[0x3F800000]]), "code": np.uint32([[0x08]])})
    b'3f800000 08\\n'
    """

    fields: tuple[Field, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.fields))

    @cached_property
    def template(self) -> Bytes:
        """A line of zeros, its end included."""
        line = b""
        for field in self.fields:
            line += (b" : " if field.opens else b" ") + b" ".join([b"0" * field.digits] * field.count)
        return np.frombuffer(line.lstrip(b" :") + b"\n", np.uint8)

    @property
    def width(self) -> int:
        """Bytes of a line."""
        return len(self.template)

    @cached_property
    def _columns(self) -> dict[str, list[slice]]:
        """Where the digits of each field stand, the highest first; a slice takes one of every number."""
        columns, start = {}, 0
        for field in self.fields:
            start += (3 if field.opens else 1) if start else 0
            step = field.digits + 1
            end = start + field.count * step - 1
            columns[field.name] = [slice(start + digit, end, step) for digit in range(field.digits)]
            start = end
        return columns

    def format(self, fields: dict[str, NDArray[Any]]) -> bytes:
        """The lines of some rows; each field an array [rows, count] of unsigned integers."""
        lines = np.empty((len(next(iter(fields.values()))), self.width), np.uint8)
        lines[...] = self.template
        for name, columns in self._columns.items():
            rest = fields[name].astype(np.uint32)
            for column in reversed(columns):
                lines[:, column] = _HEX[rest & 15]
                rest >>= 4
        return lines.tobytes()

    def parse(self, text: bytes) -> tuple[dict[str, Words], NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
        """The fields of lines of exactly `width` bytes; which are well formed, which numbers have an X."""
        lines = np.frombuffer(text, np.uint8).reshape(-1, self.width)
        digits = _DIGITS[lines]
        fine = np.where(_DIGITS[self.template] == _NO_DIGIT, lines == self.template, digits != _NO_DIGIT)
        unknown = self._unknown(digits)
        if unknown:
            digits = np.where(digits == _UNKNOWN, np.uint8(0), digits)
        right = np.ones(len(lines), np.bool_) if fine.all() else fine.all(axis=1)
        fields = {}
        for field in self.fields:
            fields[field.name] = number = self._numbers(digits, field)
            if field.bits % 4:
                right &= (number < 1 << field.bits).all(axis=1)
        return fields, right, unknown

    def _unknown(self, digits: Bytes) -> dict[str, NDArray[np.bool_]]:
        every = digits == _UNKNOWN
        if not every.any():
            return {}
        found = {
            name: np.logical_or.reduce([every[:, column] for column in columns])
            for name, columns in self._columns.items()
        }
        return {name: marked for name, marked in found.items() if marked.any()}

    def _numbers(self, digits: Bytes, field: Field) -> Words:
        first, *columns = self._columns[field.name]
        number = digits[:, first].astype(np.uint32)
        for column in columns:
            number <<= 4
            number |= digits[:, column]
        return number

    def read(self, text: bytes, first: int) -> Batch:
        """Whole lines, the first of which has that number.

        Raises NumericsError for a malformed one: its number, what came, what is allowed.
        """
        if len(text) % self.width == 0:
            fields, fine, unknown = self.parse(text)
            if fine.all():
                return Batch(fields, np.arange(first, first + len(fine)), unknown)
        return self._straightened(text, first)

    def _straightened(self, text: bytes, first: int) -> Batch:
        """Comments and the empty lines at the end left out, blanks made single, then as above."""
        every = enumerate(text.split(b"\n")[:-1], first)
        lines = {number: line for number, line in every if not line.startswith(b"#")}
        last = max((number for number, line in lines.items() if line.strip()), default=0)
        empty = [number for number in lines if number > last]
        lines = {number: line for number, line in lines.items() if number <= last}
        straight = [b" ".join(line.split()) + b"\n" for line in lines.values()]
        for number, line in zip(lines, straight, strict=True):
            if len(line) != self.width:
                raise self.malformed(number, lines[number])
        fields, fine, unknown = self.parse(b"".join(straight))
        for number, right in zip(lines, fine, strict=True):
            if not right:
                raise self.malformed(number, lines[number])
        return Batch(fields, np.array(list(lines), np.int64), unknown, min(empty, default=None))

    def malformed(self, number: int, line: bytes) -> NumericsError:
        """The error that names a line."""
        text = line.decode("ascii", "backslashreplace").rstrip("\r")
        why = self._why_not(text.split())
        return NumericsError(
            f"line {number}: {shortened(text)!r} is not a vector{why}; allowed: {self}, the answer last"
        )

    def _why_not(self, words: list[str]) -> str:
        """The first word of a line that is not as it must be, and what is due there."""
        due = [word for field in self.fields for word in [":"] * field.opens + [field] * field.count]
        for place, (word, wanted) in enumerate(zip(words, due, strict=False), 1):
            if not (word == wanted if isinstance(wanted, str) else wanted.holds(word)):
                name = "':'" if isinstance(wanted, str) else replace(wanted, count=1, opens=False)
                return f": word {place} is {shortened(word)!r}, where {name} is due"
        if len(words) < len(due):
            return f": it ends after {len(words)} words of {len(due)}" if words else ""
        return f": word {len(due) + 1} is {shortened(words[len(due)])!r}, one too many" * (
            len(words) > len(due)
        )

    def batches(self, stream: BinaryIO, start: bytes, first: int) -> Iterator[Batch]:
        """All lines from `start`, read before, and the stream after it, in bounded memory.

        first: the number of the first line.  Errors: as `read`.
        """
        kept, comments, ended = start, 0, None
        while came := stream.read(CHUNK):
            text, newline, kept = (kept + came).rpartition(b"\n")
            if newline:
                batch, lines = self.read(text + newline, first), text.count(b"\n") + 1
                ended = self._end(batch, ended)
                yield batch
                first += lines
                comments += lines - 2 * len(batch.lines)
                if comments > COMMENTS:
                    raise NumericsError(
                        f"line {first}: so many comments and empty lines came; allowed: {COMMENTS} "
                        "more than vectors"
                    )
            elif len(kept) > CHUNK + self.width:
                raise self.malformed(first, kept)
        if kept:
            batch = self.read(kept if kept.endswith(b"\n") else kept + b"\n", first)
            self._end(batch, ended)
            yield batch

    def _end(self, batch: Batch, ended: int | None) -> int | None:
        """The first empty line at the end so far; raises NumericsError where vectors follow it."""
        if ended is not None and len(batch.lines):
            raise self.malformed(ended, b"")
        return batch.ended if ended is None else ended
