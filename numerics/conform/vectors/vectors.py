"""Vectors over a pipe: questions and answers as lines of hex, for whatever speaks stdin and stdout.

`generate` writes them, with or without the answers; `verify` reads somebody's answers and judges every
line against the exact truth.  The lines are described in docs/vectors.md; operations.py says what is due.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import each_inside_ieee, inside_ieee
from numerics.conform import watching
from numerics.conform.vectors.explained import Kept, explain
from numerics.conform.vectors.lines import CHUNK, Batch, Layout, shortened
from numerics.conform.vectors.operations import Fields, Operation, operation
from numerics.conform.vectors.readmemh import words
from numerics.conform.vectors.selection import Chosen, Expected
from numerics.conform.vectors.unknown import CAME, Unknown
from numerics.conform.verdict import Counterexample
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import check_seed

TITLE = "# numerics vectors 1"
FACTS = (
    "format",
    "operation",
    "rounding",
    "overflow",
    "scale-rule",
    "tensor-scale",
    "draw",
    "least",
    "vectors",
    "questions",
)
LONGEST_HEADER = 1000  # lines

# ---------------------------------------------------------------------------------------- generate


@inside_ieee
def generate(
    asked: Operation,
    *,
    count: int | None = None,
    exhaustive: bool = False,
    seed: int = 0,
    answers: bool = True,
) -> Iterator[bytes]:
    """The lines of vectors, in chunks, the header first.

    count: so many at random.  exhaustive: every code, or all 2**32 inputs.  Neither: the values that
    matter (of blocks, 512 at random beside them).  answers: False leaves them out, for a device to fill in.
    Raises NumericsError for a count below 1, a seed outside 0 .. 2**64 - 1, or where exhaustive or both
    cannot be.

    >>> lines = b"".join(generate(operation("fp4", "decode"))).decode().splitlines()
    >>> lines[0], lines[-1]
    ('# numerics vectors 1', 'f c0c00000')
    """
    chosen = _chosen(count, exhaustive, seed)
    total, source = chosen.questions(asked)
    layout = asked.layout if answers else Layout(asked.asked)
    return each_inside_ieee(_lines(asked, layout, total, source, chosen))


def _chosen(count: int | None, exhaustive: bool, seed: int) -> Chosen:
    if count is not None and (count < 1 or exhaustive):
        raise NumericsError(
            f"count={count}{' and exhaustive=True' * exhaustive}; allowed: 1 or more, or exhaustive=True"
        )
    return Chosen(count, exhaustive, check_seed(seed))


def readmemh(
    asked: Operation, *, count: int | None = None, exhaustive: bool = False, seed: int = 0
) -> Iterator[bytes]:
    """The same vectors as a file for Verilog's $readmemh, with the answers and the group of every one.

    Options and errors are those of `generate`.
    """
    return each_inside_ieee(words(asked, _chosen(count, exhaustive, seed)))


def _lines(
    asked: Operation, layout: Layout, total: int, source: Iterator[Fields], chosen: Chosen
) -> Iterator[bytes]:
    yield header(asked, total, chosen)
    for fields in source:
        yield layout.format(fields | asked.due(fields) if layout is asked.layout else fields)


def header(asked: Operation, total: int, chosen: Chosen | None = None) -> bytes:
    """The lines that say what follows; chosen: None for questions of somebody's own.

    >>> print(header(operation("mx6"), 2, Chosen(2, False, 0)).decode(), end="")
    # numerics vectors 1
    # format: mx6
    # operation: encode
    # rounding: half_even
    # vectors: 2
    # questions: numerics 0.1.0, 2 at random, seed 0
    # line: input (8 hex digits x 16) : scale (2 hex digits) microexponents (2 hex digits) code \
(2 hex digits x 16)
    """
    which = {"questions": chosen.text} if chosen else {}
    facts = {**asked.facts, "vectors": str(total), **which, "line": str(asked.layout)}
    return "".join(
        f"{line}\n" for line in (TITLE, *(f"# {name}: {fact}" for name, fact in facts.items()))
    ).encode()


# ------------------------------------------------------------------------------------------ verify


@dataclass(frozen=True)
class Mismatch:
    """A wrong answer: its line, which field (and element), the input, what came, what was due.

    input, came, due: hex, as in the lines.  value: the input as a number; None for codes and for
    what all elements of a block share.
    """

    line: int
    place: str
    input: str | None
    value: float | None
    came: str
    due: str

    def __str__(self) -> str:
        source = "" if self.input is None else f" for {self.input}"
        value = "" if self.value is None else f" ({self.value!r})"
        return f"line {self.line}: {self.place}{source}{value}: {self.came} came, {self.due} is due"


@dataclass
class Verdict:
    """What `verify` found; true when every answer is right."""

    operation: Operation
    vectors: int = 0
    mismatches: int = 0
    first: list[Mismatch] = field(default_factory=list)
    compared: bool = True
    """Were the questions those that the header says?  False where it does not say which they were."""
    counterexample: Counterexample | None = None
    """The law that is broken, and the simplest input that breaks it."""
    dialect: str | None = None
    """The known deviations that explain every answer that was looked at; None where none do."""
    unknown: Counterexample | None = None
    """The simplest question that is answered by a simulator's X or Z; None where none is."""

    def __bool__(self) -> bool:
        return self.mismatches == 0

    def __str__(self) -> str:
        counted = f"{self.operation}: {self.vectors} vectors, {self.mismatches} mismatches"
        if not self.compared:
            counted += "; whether all questions came back cannot be known, for the header does not say which"
        said = [counted, *map(str, self.first)]
        if self.counterexample is not None:
            matched = f'matches the dialect "{self.dialect}"' if self.dialect else "matches no known dialect"
            said += [str(self.counterexample), f"it {matched}"]
        if self.unknown is not None:
            said.append(str(self.unknown))
        return "\n".join(said)


@inside_ieee
def verify(stream: BinaryIO, *, strict_nan: bool = False, shown: int = 10) -> Verdict:
    """Judges somebody's answers, line by line, against the exact truth.

    NaN counts by class, unless strict_nan; `shown` mismatches are kept.
    Raises NumericsError for a header or line that is malformed, where fewer or more lines came than the
    header says, and for a line that answers another question than the one asked there.

    >>> import io
    >>> lines = b"".join(generate(operation("fp4", "decode")))
    >>> wrong = str(verify(io.BytesIO(lines.replace(b"f c0c00000", b"f c0c00001")))).splitlines()
    >>> print(*wrong[:3], *wrong[-5:], sep=chr(10))
    fp4 decode: 88 vectors, 13 mismatches
    line 22: value for f: c0c00001 came, c0c00000 is due
    line 34: value for f: c0c00001 came, c0c00000 is due
    law table: Every code decodes to the value that the format's row gives it.
      input -; code 0xF
      came  0xC0C00001 (-6.00000048)
      due   0xC0C00000 (-6)
    it matches no known dialect
    """
    asked, total, chosen, first, start = _read_header(stream)
    verdict = Verdict(asked, compared=chosen is not None)
    expected = Expected(asked, chosen, total) if chosen else None
    kept, unknown = Kept(asked), Unknown(asked)
    for batch in asked.layout.batches(stream, start, first):
        _refuse_unknown(batch, asked)
        if expected:
            expected.compare(batch)
        _judge(batch, verdict, (kept, unknown), (strict_nan, shown))
        watching.at(verdict.vectors, total)
        if verdict.vectors > total:
            break
    if verdict.vectors != total:
        raise NumericsError(f"the header says {total} vectors, {verdict.vectors} came; allowed: all of them")
    verdict.unknown = unknown.counterexample()
    if kept.came and verdict.mismatches > unknown.count:
        verdict.counterexample, verdict.dialect = explain(kept, strict_nan)
    return verdict


def _judge(batch: Batch, verdict: Verdict, keeps: tuple[Kept, Unknown], options: tuple[bool, int]) -> None:
    """keeps: who keep lines, and those with an X or Z; options: strict_nan, how many mismatches are shown."""
    asked, (strict_nan, shown), (kept, without) = verdict.operation, options, keeps
    due = asked.due(batch.fields)
    came = {f.name: batch.fields[f.name] for f in asked.answered}
    unknown = _unknown_lines(batch)
    without.take(batch, due, unknown)
    wrong = asked.differs(came, due, strict_nan)
    lines = np.logical_or.reduce([differs.any(axis=1) for differs in wrong.values()])
    kept.take(batch.fields, due, lines & ~unknown, ~unknown)
    lines |= unknown
    verdict.vectors += len(lines)
    verdict.mismatches += int(lines.sum())
    for row in np.flatnonzero(lines)[: shown - len(verdict.first)]:
        found = _mismatch(batch, int(row), asked, due, batch.unknown if unknown[row] else wrong)
        verdict.first.append(replace(found, came=CAME) if unknown[row] else found)


def _refuse_unknown(batch: Batch, asked: Operation) -> None:
    """Raises NumericsError for a simulator's X or Z in a question, which was asked without one."""
    for f in asked.asked:
        if f.name in batch.unknown:
            row = int(batch.unknown[f.name].any(axis=1).argmax())
            raise NumericsError(
                f"line {batch.lines[row]}: {f.name}, which is of the question, has an X or Z of a simulator; "
                "allowed: the question as it was asked"
            )


def _unknown_lines(batch: Batch) -> NDArray[np.bool_]:
    """The lines with a simulator's X or Z."""
    found: NDArray[np.bool_] = np.zeros(len(batch.lines), np.bool_)
    for marked in batch.unknown.values():
        found |= marked.any(axis=1)
    return found


def _mismatch(
    batch: Batch, row: int, asked: Operation, due: Fields, wrong: dict[str, NDArray[np.bool_]]
) -> Mismatch:
    """The first wrong field of a line."""
    answer = next(f for f in asked.answered if f.name in wrong and wrong[f.name][row].any())
    at = int(wrong[answer.name][row].argmax())
    place = answer.name if answer.count == 1 else f"{answer.name} {at}"
    came, right = (f"{fields[answer.name][row, at]:0{answer.digits}x}" for fields in (batch.fields, due))
    question = next((f for f in asked.asked if f.name in ("input", "code") and f.count == answer.count), None)
    if question is None:
        return Mismatch(int(batch.lines[row]), place, None, None, came, right)
    number = batch.fields[question.name][row, at]
    value = float(number.view(np.float32)) if question.name == "input" else None
    return Mismatch(int(batch.lines[row]), place, f"{number:0{question.digits}x}", value, came, right)


def _shown(line: bytes) -> str:
    return line[:60].decode("ascii", "backslashreplace").rstrip("\r\n")


def _read_header(stream: BinaryIO) -> tuple[Operation, int, Chosen | None, int, bytes]:
    """The operation, how many vectors are to come and which, the next line and its number."""
    number = 1
    facts: dict[str, str] = {}
    line = stream.readline(CHUNK).removeprefix(codecs.BOM_UTF8)
    while _is_blank(line) and number <= LONGEST_HEADER:
        number, line = number + 1, stream.readline(CHUNK)
    if not line:
        raise NumericsError(f"nothing came: did the device start?  Due is {TITLE!r}, and what follows it")
    if line.startswith(b"//"):
        raise NumericsError(
            f"line {number}: {_shown(line)!r} is of --format readmemh, which testbenches read and no "
            f"device answers; allowed: {TITLE!r}, as `vectors generate` writes it without that option"
        )
    if line.decode("ascii", "replace").rstrip() != TITLE:
        raise NumericsError(
            f"line {number}: {_shown(line)!r} is no header; allowed: {TITLE!r}, as `vectors generate` "
            "writes, in ASCII or UTF-8: a device copies every line that begins with #"
        )
    while line.startswith(b"#") or _is_blank(line):
        if number > LONGEST_HEADER or not line.endswith(b"\n"):
            raise NumericsError(
                f"line {number}: {line[:60]!r} is too much of a header; allowed: {LONGEST_HEADER} whole lines"
            )
        name, _, fact = line[1:].decode("ascii", "replace").partition(":")
        if name.strip() in FACTS:
            _keep(facts, name.strip(), fact.strip(), number)
        number, line = number + 1, stream.readline(CHUNK)
    asked, total = _operation_of(facts), _total(facts)
    chosen = Chosen.parse(facts.get("questions", ""))
    for name in asked.facts if chosen else ():  # who chose the questions wrote these, too
        _fact(facts, name)
    return asked, total, chosen, number, line


def _keep(facts: dict[str, str], name: str, fact: str, number: int) -> None:
    """Notes a fact; raises NumericsError where an earlier line says something else."""
    if facts.setdefault(name, fact) != fact:
        raise NumericsError(
            f"line {number}: '# {name}: {shortened(fact)}' comes after '# {name}: {shortened(facts[name])}'; "
            "allowed: one of them"
        )


def _is_blank(line: bytes) -> bool:
    """A line of nothing but blanks; not the end of a file."""
    return bool(line) and not line.strip()


def _operation_of(facts: dict[str, str]) -> Operation:
    named = ("rounding", "overflow", "scale-rule", "draw", "least")
    options: dict[str, Any] = {name.replace("-", "_"): facts.get(name) for name in named}
    if "tensor-scale" in facts:
        options["tensor_scale"] = _float32(facts["tensor-scale"])
    return operation(_fact(facts, "format"), _fact(facts, "operation"), **options)


def _fact(facts: dict[str, str], name: str) -> str:
    if name not in facts:
        raise NumericsError(f"the header lacks '# {name}: ...'")
    return facts[name]


def _float32(text: str) -> float:
    try:
        (value,) = struct.unpack(">f", bytes.fromhex(text))
    except (ValueError, struct.error):
        raise NumericsError(f"header: tensor-scale {text!r}; allowed: a float32 as 8 hex digits") from None
    return float(value)


def _total(facts: dict[str, str]) -> int:
    text = _fact(facts, "vectors")
    if not re.fullmatch("[1-9][0-9]{,18}", text):
        raise NumericsError(f"header: vectors {text[:20]!r}; allowed: a number of 1 or more")
    return int(text)
