"""python -m tests.peers.judge LIBRARY FILE: judges one library, in a process of its own, into a JSON file."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from numerics.conform import Verdict, check
from tests.peers.claims import LIBRARIES, Claim, Library
from tests.peers.questions import answers


def row(claim: Claim) -> dict[str, Any]:
    """One claim: how it was judged, and what came of it."""
    found = check(claim.kernel, claim.dtype, kind=claim.kind, **claim.options)
    said = {"dtype": str(claim.dtype), "kind": claim.kind, "call": claim.call, "asked": _asked(found, claim)}
    return said | _verdict(found) | {"answers": answers(claim)}


def _asked(found: Verdict, claim: Claim) -> str:
    """The options by which it was judged."""
    _, _, options = str(found.task).partition(f" {claim.kind}")
    takes = [name.replace("_", " ") for name in ("whole_blocks", "finite") if claim.options.get(name)]
    return ", ".join([options.strip(", "), *takes]).strip(", ")


def _verdict(found: Verdict) -> dict[str, Any]:
    first = found.counterexample
    if first is None:
        return {"verdict": "agrees", "tried": found.tried}
    said = {"law": first.law, "input": ", ".join(map(str, first.input)), "where": first.where,
            "came": first.came, "due": first.due, "also": [other.law for other in found.failures[1:]],
            "differs": found.differs, "tried": found.tried}  # fmt: skip
    if first.law == "runs":
        return {"verdict": "raises"} | said
    spoken = [dialect.name for dialect in found.dialects]
    return {"verdict": "dialect" if spoken else "differs", "dialects": spoken} | said


def judged(library: Library) -> dict[str, Any]:
    """A library: its version and a row a claim; no version where it is not installed."""
    version = library.version
    if version is None:
        return {"version": None, "rows": []}
    return {"version": version, "rows": [row(claim) for claim in library.claims()]}


def main(name: str, path: str) -> None:
    """Judges one library."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    Path(path).write_text(json.dumps(judged(LIBRARIES[name])), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
