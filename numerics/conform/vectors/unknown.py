"""Answers that are no code: a simulator's X or Z, or a number that stands for nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from numerics.conform.laws.law import hardness, sentence
from numerics.conform.targets.faults import SENTENCES
from numerics.conform.vectors.lines import Batch
from numerics.conform.vectors.operations import Fields, Operation
from numerics.conform.vectors.readmemh import groups
from numerics.conform.verdict import Counterexample, Number, numbers

MOST = 1 << 12  # lines with an X or Z among which the simplest is sought
GROUPS = 4  # groups that are listed
CAME = "an X or Z of a simulator"

Mask = NDArray[np.bool_]


def known() -> None:
    """Every digit of an answer is known: none is the X or Z of a simulator."""


class Unknown:
    """The lines of a run with an X or Z in their answers: all are counted, the first ones are kept."""

    def __init__(self, asked: Operation) -> None:
        self._asked, self.count, self._kept = asked, 0, 0
        self._lines: list[tuple[Fields, Fields, dict[str, Mask]]] = []
        self._places: list[NDArray[np.int64]] = []
        self._told = 0

    def take(self, batch: Batch, due: Fields, unknown: Mask) -> None:
        """Those of a batch; unknown: which lines have one."""
        found = np.flatnonzero(unknown)
        some = found[: MOST - self._kept]
        self.count += len(found)
        if len(some):
            self._kept += len(some)
            marked = {f.name: batch.unknown.get(f.name) for f in self._asked.answered}
            of = [{name: part[some] for name, part in fields.items()} for fields in (batch.fields, due)]
            every = {
                name: np.zeros(of[1][name].shape, np.bool_) if mask is None else mask[some]
                for name, mask in marked.items()
            }
            self._lines.append((of[0], of[1], every))
            self._places.append(self._told + some)
        self._told += len(unknown)

    def counterexample(self) -> Counterexample | None:
        """The simplest question that is answered so; None where none is."""
        if not self._lines:
            return None
        came, due, marked = (
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*self._lines, strict=True)
        )
        asked = {f.name: came[f.name] for f in self._asked.asked}
        at = simplest(asked)
        given, where = question(self._asked, came, at)
        place = int(np.concatenate(self._places)[at]) + 1
        parts = [where, f"vector {place}", f"X or Z came for {self._of_groups(asked, due)}"]
        names = (_where(f.name, marked[f.name][at]) for f in self._asked.answered)
        text = f"{CAME}: {', '.join(name for name in names if name)}"
        return Counterexample(
            known.__name__, sentence(known), given, text, answer(self._asked, due, at), self.count,
            "; ".join(part for part in parts if part),
        )  # fmt: skip

    def _of_groups(self, asked: Fields, due: Fields) -> str:
        """How many vectors, and of which groups of the files for a testbench."""
        counted = Counter(groups(self._asked, asked, due).tolist()).most_common()
        named = [f"{name} ({count})" if len(counted) > 1 else name for name, count in counted[:GROUPS]]
        more = f" and {len(counted) - GROUPS} others" if len(counted) > GROUPS else ""
        some = f"{'all ' * (self.count == self._told)}{self.count} vector{'s' * (self.count > 1)}"
        some += f", the first {self._kept}" * (self.count > self._kept)
        return f"{some} of group{'s' * (len(counted) > 1)} {', '.join(named)}{more}"


def _where(name: str, marked: Mask) -> str:
    """Of one field: nothing, the field, or how many of its places."""
    if not marked.any() or len(marked) == 1:
        return name * bool(marked.any())
    return f"{name} at {int(marked.sum())} of {len(marked)} places, the first {int(marked.argmax())} (from 0)"


def no_code(asked: Operation, came: Fields, due: Fields, wrong: Mask) -> Counterexample:
    """The simplest question whose answer stands for no code; wrong: the lines that have one."""
    lines = np.flatnonzero(wrong)
    at = int(lines[simplest({f.name: came[f.name][lines] for f in asked.asked})])
    given, where = question(asked, came, at)
    law = "code_range"
    return Counterexample(law, SENTENCES[law], given, answer(asked, came, at), answer(asked, due, at),
                          len(lines), where)  # fmt: skip


# ---- one line -------------------------------------------------------------------------------------


def simplest(asked: Fields) -> int:
    """Which question has the fewest numbers that are not 0, then the simplest; of codes, the least ones.

    >>> simplest({"input": np.float32([[1, 2], [0, -1], [0, 1]]).view(np.uint32)})
    2
    """
    name = "input" if "input" in asked else next(iter(asked))
    words = np.ascontiguousarray(asked[name], np.uint32)
    hard = hardness(words.view(np.float32)).max(axis=1) if name == "input" else words.max(axis=1)
    return int(np.lexsort((hard, np.count_nonzero(words, axis=1)))[0])


def question(asked: Operation, fields: Fields, at: int) -> tuple[tuple[Number, ...], str]:
    """The numbers of a question, and its other fields in words, each by its first number."""
    inputs = fields.get("input")
    given = () if inputs is None else numbers(np.ascontiguousarray(inputs[at], np.uint32).view(np.float32))
    others = " ".join(
        f"{field.name} {int(one):0{field.digits}x}"
        for field in asked.asked if field.name != "input" for one in fields[field.name][at][:1]
    )  # fmt: skip
    return given, others


def answer(asked: Operation, fields: Fields, at: int) -> str:
    """The answer of a line, as it is written."""
    return " ".join(f"{int(one):0{f.digits}x}" for f in asked.answered for one in fields[f.name][at])
