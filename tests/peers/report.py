"""docs/peers.md, from what was judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.peers.known import known
from tests.peers.questions import BLOCKS, ELEMENTS

Peers = dict[str, Any]
MARKS = {"agrees": "=", "dialect": "~", "differs": "x", "raises": "!"}
INTRODUCTION = """# The matrix of the field

Written by `make peers`, which installs what can be installed and judges each library as anybody's kernel is
judged ([conformance.md](conformance.md)): every claim by what the library documents, bit for bit, on a CPU.
Judged with {machine}.

A call agrees on all that was tried, or speaks known dialects, which explain every answer, or differs, and
then the simplest input that shows it is given. To be unlike is not always to be wrong: where no standard
decides, the dialect says which other choice was made.
"""


def markdown(peers: Peers, machine: str) -> str:
    """The whole page."""
    parts = [INTRODUCTION.format(machine=machine)]
    parts += [*_overview(peers), *_rows(peers), *_questions(peers), *_known(peers)]
    return "\n".join(parts).rstrip() + "\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _present(peers: Peers) -> list[str]:
    return [name for name, peer in peers.items() if peer["version"]]


def _overview(peers: Peers) -> Iterator[str]:
    """A format a line, a library a column: a mark a claim."""
    names = _present(peers)
    yield "## At a glance\n"
    yield "One mark a claim: = agrees, ~ speaks known dialects, x differs otherwise, ! raises.\n"
    formats = dict.fromkeys(row["dtype"] for name in names for row in peers[name]["rows"])
    lines = [[f"`{dtype}`", *(_marks(peers[name], dtype) for name in names)] for dtype in formats]
    yield _table(["format", *(f"{name} {peers[name]['version']}" for name in names)], lines)
    absent = [name for name in peers if not peers[name]["version"]]
    if absent:
        yield f"Not installed here: {', '.join(absent)}.\n"


def _marks(peer: dict[str, Any], dtype: str) -> str:
    return "".join(MARKS[row["verdict"]] for row in peer["rows"] if row["dtype"] == dtype)


def _rows(peers: Peers) -> Iterator[str]:
    """Each library's claims."""
    for name in _present(peers):
        yield f"## {name} {peers[name]['version']}\n"
        lines = [
            [f"`{row['dtype']}` {row['kind']}", f"`{row['call']}`", row["asked"], _verdict(row)]
            for row in peers[name]["rows"]
        ]
        yield _table(["format", "call", "asked", "verdict"], lines)


def _verdict(row: dict[str, Any]) -> str:
    if row["verdict"] == "agrees":
        return f"**agrees** on {row['tried']:,}"
    where = f" ({row['where']})" if row["where"] else ""
    shown = f"{row['input'] or '-'}{where}: {row['came']} came, {row['due']} is due"
    if row["verdict"] == "raises":
        return f"raises on {row['input']}: {row['came']}"
    counted = f"{row['differs']:,} of {row['tried']:,} differ, law {row['law']}: {shown}"
    if row["verdict"] == "dialect":
        return f"**{' + '.join(row['dialects'])}**; {counted}"
    also = f"; also {', '.join(row['also'])}" if row["also"] else ""
    return f"**differs**; {counted}{also}"


def _questions(peers: Peers) -> Iterator[str]:
    """The inputs on which they disagree, one by one."""
    yield "## Inputs on which they disagree\n"
    yield "Of blocks: the scale's byte, where there is one, and the values of the first elements.\n"
    for dtype, inputs in (ELEMENTS | BLOCKS).items():
        lines = [
            [name, f"`{row['call']}`", *(row["answers"][said] for said in inputs)]
            for name in _present(peers)
            for row in peers[name]["rows"]
            if row["dtype"] == dtype and row["answers"]
        ]
        if lines:
            yield f"### `{dtype}`\n"
            yield _table(["library", "call", *inputs], lines)


def _known(peers: Peers) -> Iterator[str]:
    """What was known before: reproduced, or corrected."""
    every = [(fact, fact.found(peers)) for fact in known()]
    judged = [(fact, found) for fact, found in every if found is not None]
    wrong = [(fact, found) for fact, found in judged if found != fact.answer]
    yield "## What was known before\n"
    yield (
        f"A survey of November 2026 listed answers by which libraries disagree. Of {len(judged)} that could "
        f"be asked again, {len(judged) - len(wrong)} come out as listed, {len(wrong)} are corrected here.\n"
    )
    if wrong:
        yield _table(
            ["library", "format", "call", "input", "was listed", "comes"],
            [[f.library, f"`{f.dtype}`", f"`{f.call}`", f.input, f.answer, found] for f, found in wrong],
        )
    if len(judged) < len(every):
        yield f"{len(every) - len(judged)} others are of libraries that were not judged here.\n"
