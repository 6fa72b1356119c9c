"""What a check has to say: the law that is broken, the simplest input that breaks it, the dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.conform.warned import warned_once
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Element
from numerics.view.describe import plain


class Judged(Protocol):
    """What a target claims to do: a Task of a format, or the Claim of a product."""

    @property
    def dtype(self) -> Any:
        """The format, or both operands."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""


class Named(Protocol):
    """A known deviation: its name; its text says what it does."""

    @property
    def name(self) -> str:
        """The name that a verdict shows."""


class Number(NamedTuple):
    """A float32 number: its bits and its value."""

    bits: int
    value: float

    def __str__(self) -> str:
        return f"0x{self.bits:08X} ({self.value:.9g})"


def numbers(x: NDArray[np.float32]) -> tuple[Number, ...]:
    """float32 values with their bits.

    >>> [str(number) for number in numbers(np.float32([464]))]
    ['0x43E80000 (464)']
    """
    flat = np.ascontiguousarray(x).reshape(-1)
    return tuple(Number(b, v) for b, v in zip(flat.view(np.uint32).tolist(), flat.tolist(), strict=True))


RUN = 4  # equal texts one after the other that are shown once


def listed(texts: Iterable[str], between: str = ", ") -> str:
    """Texts one after the other; a run of four or more equal ones is one, with their number.

    >>> listed("0 0 0 0 0 7 0 0".split(), " ")
    '0 x5 7 0 0'
    """
    runs = [(text, len(list(same))) for text, same in groupby(texts)]
    parts = ([f"{text} x{count}"] if count >= RUN else [text] * count for text, count in runs)
    return between.join(chain.from_iterable(parts))


def code_text(code: int, dtype: Element, value: float) -> str:
    """A code and what it means.

    >>> from numerics.formats import fp8_e4m3
    >>> code_text(0x7E, fp8_e4m3, 448.0)
    '0x7E (448)'
    """
    return f"0x{code:0{-(-dtype.bits // 4)}X} ({value:.9g})"


@dataclass(frozen=True)
class Counterexample:
    """An input on which a law fails: what came, what was due, and the law's sentence."""

    law: str
    sentence: str
    input: tuple[Number, ...]
    came: str
    due: str
    differs: int = 1
    """How many of the tried inputs fail this law."""
    where: str = ""
    """What else belongs to the input: random bits, shapes, scale and zero point."""
    tensor: NDArray[Any] | None = field(default=None, repr=False, compare=False)
    """The input as an array that can be given to the target; None where it takes other things."""
    terms: tuple[str, ...] = ()
    """Of a product: the terms of the sum that is wrong."""
    given: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    """With what the target can be asked again: of a product all of it, of a block its random bits."""

    problem: Any = field(default=None, repr=False, compare=False)
    """Of a product: the problem, by which it can be asked in another process."""

    def __str__(self) -> str:
        shown = listed(map(str, self.input)) or ("" if self.terms else "-")
        said = "; ".join(part for part in (shown, self.where) if part)
        lines = [f"law {self.law}: {self.sentence}", f"  input {said}"]
        lines += [f"    {term}" for term in self.terms]
        return "\n".join([*lines, f"  came  {self.came}", f"  due   {self.due}"])

    @keywords
    def to_dict(self) -> dict[str, Any]:
        """Returns the counterexample as plain data."""
        again = {"tensor": None, "given": (), "problem": None}
        said = {name: value for name, value in asdict(replace(self, **again)).items() if name not in again}  # type: ignore[arg-type]
        return said | {"input": [number._asdict() for number in self.input]}


SCHEMA = 1
"""Of the JSON of a verdict: docs/conformance.md says what stands in it."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """Whether a target is right: true when it passed, and its text says why not.

    failures: the broken laws, the most telling first.  explain: looks for the dialects.

    >>> import numerics as nx
    >>> from numerics.conform.checking import check
    >>> bool(check(nx.fp4.encode, "fp4"))
    True
    >>> print(check(lambda x: nx.fp4.encode(x, rounding="half_away"), "fp4"))
    <lambda> is not right: fp4 encode, half_even, saturate
    law ties: A number midway between two values goes where the rounding says.
      input 0x3E800000 (0.25)
      came  0x1 (0.5)
      due   0x0 (0)
    it differs on 8 of 12030 inputs
    it matches the dialect "ties away": a tie goes away from zero (seen in microxcaling's default, \
qtorch 0.3.0)
    """

    target: str
    task: Judged
    laws: tuple[str, ...]
    tried: int
    differs: int = 0
    failures: tuple[Counterexample, ...] = ()
    explain: Callable[[], tuple[Named, ...]] = field(default=tuple, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    """What else is to be known: what was not judged, and where it ran."""
    inputs: str = "inputs"
    """What was tried."""

    def __bool__(self) -> bool:
        return not self.failures

    @cached_property
    def dialects(self) -> tuple[Named, ...]:
        """The known deviations that together explain everything that it returned; found when asked for."""
        with ieee_arithmetic(), warned_once():
            return self.explain()

    @property
    def dialect(self) -> str | None:
        """The names of its dialects; None where no known ones explain it."""
        return " + ".join(dialect.name for dialect in self.dialects) or None

    @property
    def law(self) -> str | None:
        """The name of the most telling broken law; None where it passed."""
        return self.failures[0].law if self.failures else None

    @property
    def counterexample(self) -> Counterexample | None:
        """The simplest input that breaks it; None where it passed."""
        return self.failures[0] if self.failures else None

    def __str__(self) -> str:
        if not self.failures:
            held = f"{len(self.laws)} laws hold on {self.tried} {self.inputs}"
            said = f"{self.target} is right: {self.task}; {held}"
            return "\n".join([said, *self.notes])
        lines = [f"{self.target} is not right: {self.task}", str(self.failures[0])]
        others = ", ".join(dict.fromkeys(each.law for each in self.failures if each.law != self.law))
        lines += [f"also broken: {others}"] if others else []
        if self.differs:
            lines.append(f"it differs on {self.differs} of {self.tried} {self.inputs}")
        return "\n".join([*lines, *self._dialect_lines(), *self.notes])

    def _dialect_lines(self) -> list[str]:
        if self.dialects:
            return [f'it matches the dialect "{dialect.name}": {dialect}' for dialect in self.dialects]
        return ["it matches no known dialect"] if self.differs else []

    __repr__ = __str__

    @keywords
    def to_json(self) -> str:
        """The verdict as one JSON object."""
        said = {
            "schema": SCHEMA,
            "passed": bool(self),
            "target": self.target,
            "task": str(self.task),
            "dtype": str(self.task.dtype),
            "kind": self.task.kind,
            "laws": list(self.laws),
            "tried": self.tried,
            "differs": self.differs,
            "notes": list(self.notes),
            "failures": [failure.to_dict() for failure in self.failures],
            "dialect": self.dialect,
        }
        return json.dumps(plain(said), indent=1, allow_nan=False)
