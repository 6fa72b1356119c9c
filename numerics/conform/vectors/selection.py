"""Which questions were asked: what the header of vectors says of them, and whether the same came back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from numerics._version import __version__
from numerics.conform.vectors.lines import CHUNK, Batch, Words, shortened
from numerics.conform.vectors.operations import DrawnOperation, Fields, Operation
from numerics.conform.vectors.questions import Source, questions, random_draws
from numerics.formats.errors import NumericsError


@dataclass(frozen=True)
class Chosen:
    """Which questions: count at random, or all, or those that matter; seed: of what is random.

    >>> Chosen(5, False, 7).text, Chosen.parse(Chosen(5, False, 7).text)
    ('numerics 0.1.0, 5 at random, seed 7', Chosen(count=5, exhaustive=False, seed=7))
    """

    count: int | None
    exhaustive: bool
    seed: int

    @property
    def text(self) -> str:
        """The selection as the header says it."""
        some = "those that matter" if self.count is None else f"{self.count} at random"
        which = "all" if self.exhaustive else some
        return f"numerics {__version__}, {which}, seed {self.seed}"

    @staticmethod
    def parse(text: str) -> Chosen | None:
        """The inverse; None where another version chose, which may have chosen otherwise."""
        which = "all|those that matter|(?P<count>[1-9][0-9]{,18}) at random"
        said = re.fullmatch(rf"numerics (\S+), (?P<which>{which}), seed (?P<seed>[0-9]{{1,20}})", text)
        if not said or said[1] != __version__:
            return None
        count = None if said["count"] is None else int(said["count"])
        return Chosen(count, said["which"] == "all", int(said["seed"]))

    def questions(self, asked: Operation) -> tuple[int, Iterator[Fields]]:
        """How many there are, and they themselves in chunks; errors as `generate`."""
        rng = np.random.default_rng(self.seed)
        total, source = questions(asked, self.count, self.exhaustive, rng)
        return total, _chunks(asked, total, source, rng)


def _chunks(asked: Operation, total: int, source: Source, rng: np.random.Generator) -> Iterator[Fields]:
    rows = max(CHUNK // asked.layout.width, 1)
    for start in range(0, total, rows):
        fields = source(start, min(rows, total - start))
        if isinstance(asked, DrawnOperation) and asked.draws:
            drawn = fields["random"] if "random" in fields else random_draws(fields["input"].shape, rng)
            fields["random"] = asked.drawing.narrow(drawn)
        yield fields


class Expected:
    """The questions in their order, which every batch of lines must repeat.

    total: how many vectors the header says; raises NumericsError where the questions are not as many.
    """

    def __init__(self, asked: Operation, chosen: Chosen, total: int) -> None:
        self.asked, self._rest = asked, Fields()
        count, self._source = chosen.questions(asked)
        if count != total:
            raise NumericsError(
                f"the header says {total} vectors, but its questions ({chosen.text}) are {count}; "
                "allowed: the header as it was written, or one without the line '# questions:'"
            )

    def compare(self, batch: Batch) -> None:
        """Raises NumericsError for the first line that answers another question."""
        due = self._take(len(batch.lines))
        for f in self.asked.asked:
            came = batch.fields[f.name]
            size = min(len(came), len(due[f.name]))
            wrong = (came[:size] != due[f.name][:size]).any(axis=1)
            if wrong.any():
                row = int(wrong.argmax())
                one, other = (_hex(part[row], f.digits) for part in (came, due[f.name]))
                raise NumericsError(
                    f"line {batch.lines[row]} answers {f.name} {one}, but {other} was asked there"
                )

    def _take(self, count: int) -> Fields:
        """So many questions; fewer at the end."""
        parts = [self._rest] if self._rest else []
        while sum(len(next(iter(part.values()))) for part in parts) < count:
            chunk = next(self._source, None)
            if chunk is None:
                break
            parts.append(chunk)
        names = [f.name for f in self.asked.asked]
        joined = {
            name: np.concatenate([part[name] for part in parts] or [np.empty((0, 1))]) for name in names
        }
        self._rest = {name: numbers[count:] for name, numbers in joined.items()}
        return {name: numbers[:count] for name, numbers in joined.items()}


def _hex(numbers: Words, digits: int) -> str:
    return shortened(" ".join(f"{int(number):0{digits}x}" for number in numbers))
