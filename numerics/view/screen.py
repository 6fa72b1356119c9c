"""Where text goes: how wide, in which encoding, with colours or not; and what to do where it cannot go."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any, TextIO

from numerics.view.text import SPELL, fitted, hanging, wrapped

LONGEST = 2000  # letters of an error: what came may be a file's content


@dataclass(frozen=True)
class Screen:
    """What is known of a stream.  width: cells of a line, None where nobody looks.  plain: it is a text."""

    width: int | None = None
    encoding: str = "utf-8"
    colour: bool = False
    plain: bool = False

    @classmethod
    def of(cls, stream: TextIO | None) -> Screen:
        """A terminal has a width (COLUMNS where that is set) and, but for NO_COLOR and dumb ones, colours."""
        encoding = getattr(stream, "encoding", None) or "utf-8"
        if stream is None or not stream.isatty():
            return cls(encoding=encoding)
        colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(shutil.get_terminal_size((80, 24)).columns, encoding, colour)

    @classmethod
    def of_text(cls) -> Screen:
        """Of what Python prints and shows: as wide as the terminal (or COLUMNS), 80 cells without one."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        return cls(shutil.get_terminal_size((80, 24)).columns, encoding, plain=True)

    def text(self, text: str) -> str:
        """Foreign text as this stream will show it."""
        return fitted(text, self.encoding)


class Undelivered(Exception):
    """Standard output took not all of it; `done` says what was done all the same."""

    def __init__(self, wrong: str, broken_pipe: bool = False) -> None:
        super().__init__(wrong)
        self.broken_pipe = broken_pipe
        self.done = ""

    def __str__(self) -> str:
        wrong = f"standard output cannot be written: {super().__str__()}"
        return f"{self.done}, but {wrong}" if self.done else wrong


def prepare() -> None:
    """Makes standard streams take whatever comes; no file may land in the place of one that is closed."""
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest one that is free: this one
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BytesIO())  # nothing to be read
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors=SPELL)  # type: ignore[union-attr]


def say(*texts: str) -> None:
    """Lines to standard output, each harmless; raises Undelivered where they do not arrive.

    Where somebody looks, a line that is too long goes on below itself, in whole words.
    """
    tell(*(line for text in texts for line in text.split("\n")))


def tell(*texts: str) -> None:
    """Prose to standard output: as `say`, but what comes is a line each, whatever stands in it."""
    screen = Screen.of(sys.stdout)
    lines = map(screen.text, texts)
    draw(lines if screen.width is None else (part for line in lines for part in wrapped(line, screen.width)))


def draw(lines: Iterable[str]) -> None:
    """Lines as a table or records made them, colours and all; errors as for `say`."""
    deliver("".join(f"{line}\n" for line in lines))


def deliver(text: str) -> None:
    """Text as it is to standard output; errors as for `say`."""
    with _delivering() as stream:
        stream.write(text)


def deliver_bytes(chunks: Iterable[bytes]) -> None:
    """Bytes as they are to standard output; errors as for `say`."""
    for chunk in chunks:
        with _delivering() as stream:
            stream.buffer.write(chunk)


@contextmanager
def _delivering() -> Iterator[Any]:
    if sys.stdout is None:
        raise Undelivered("it is closed")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except OSError as refused:
        abandon(sys.stdout)
        raise Undelivered(refused.strerror or str(refused), refused.errno == errno.EPIPE) from None


@contextmanager
def printing_beside() -> Iterator[None]:
    """What is printed inside goes to standard error: by Python, and by C on file descriptor 1."""
    with redirect_stdout(sys.stderr), _descriptor_beside():
        yield


@contextmanager
def _descriptor_beside() -> Iterator[None]:
    """File descriptor 1 is standard error inside, where both are open."""
    try:
        before = os.dup(1)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)  # what C still holds is of inside, too
        os.dup2(before, 1)
        os.close(before)


@contextmanager
def after(done: str) -> Iterator[None]:
    """What is said inside tells of work that is done: so does the error where it is not delivered."""
    try:
        yield
    except Undelivered as lost:
        lost.done = done
        raise


def say_error(text: str) -> None:
    """One line on standard error, shortened where it is endless; lost where nobody can hear it.

    Where somebody looks, it goes on below in whole words; what is longer than a line, as a path, stays whole.
    """
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
    screen, said = Screen.of(sys.stderr), f"numerics: {line}"
    say_beside(
        said if screen.width is None else "\n".join(hanging(screen.text(said), screen.width, whole=True))
    )


def say_beside(text: str) -> None:
    """Lines on standard error, each harmless; lost where nobody can hear them."""
    if sys.stderr is None:
        return
    screen = Screen.of(sys.stderr)
    try:
        sys.stderr.write("".join(f"{screen.text(line)}\n" for line in text.split("\n")))
        sys.stderr.flush()
    except OSError:
        abandon(sys.stderr)


def abandon(stream: Any) -> None:
    """What a broken stream still holds goes nowhere: Python would fail again when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
