"""Laws that a target breaks before there is a result to compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from numerics.conform.inputs import shapes
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample, numbers

SENTENCES: dict[str, str] = {
    "runs": "The target takes its input without raising.",
    "inputs_unchanged": "The target does not write into its input.",
    "within": "The target reads and writes nothing outside the arrays that it is given.",
    "written": "Every number of a result is written: none is what its memory held before the call.",
    "result": "The target returns what its kind says.",
    "shape": "The result has the shape that its kind says.",
    "dtype": "Codes are integers, bytes are uint8, values are float32.",
    "code_range": "A code lies in 0 .. 2**bits - 1.",
}
Case = tuple[Any, ...]
"""What a target is given: arrays and numbers; of a product the problem."""
FEW_SHOWN = 24  # bytes or codes of an input that are shown


class Fault(Exception):
    """The target broke a law of `SENTENCES`: there is nothing to compare.  at: the element that did it.

    case: all that it was given.
    """

    def __init__(self, law: str, inputs: tuple[Array, ...], came: str, due: str, at: int = 0) -> None:
        super().__init__(law)
        self.law, self.inputs = law, inputs
        self.case: Case = inputs
        x = inputs[0]
        shown = numbers(x.reshape(-1)[at : at + 1]) if x.dtype == np.float32 else ()
        strides = f", strides {shapes.steps_of(x)}" if x.size != 1 else ""
        where = "" if x.shape == (1,) and shown else f"an input of shape {x.shape}{strides}{_of_few(x)}"
        self.found = Counterexample(law, SENTENCES[law], shown, came, due, where=where)

    @classmethod
    def of(cls, found: Counterexample, inputs: tuple[Array, ...]) -> Fault:
        """The same of another law, whose counterexample is known."""
        fault = cls("runs", inputs, found.came, found.due)
        fault.law, fault.found = found.law, found
        return fault


def _of_few(x: Array) -> str:
    """The bytes or codes of a short line; nothing of numbers, and of more."""
    few = x.ndim == 1 and 0 < x.size <= FEW_SHOWN and x.dtype.kind == "u"
    return f", in hex {' '.join(f'{int(n):0{2 * x.itemsize}x}' for n in x)}" if few else ""
