"""The codes of a format for the explorer: what each means, and what becomes of the numbers between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numerics.conform.deviations import elements
from numerics.conform.deviations.deviation import as_values, bent
from numerics.conform.deviations.table import DIALECTS
from numerics.conform.task import Task
from numerics.draw.grids import Array, differing
from numerics.formats.dtype import Element
from numerics.formats.rounding import DETERMINISTIC
from numerics.view.describe import bit_fields


def points(d: Element, others: list[Element]) -> dict[str, Any]:
    """Every code in its order: bits, value, the next value above, and the number midway to that.

    mid: what every rounding and every known deviation makes of the midway numbers, where it is not what the
    format makes of them.  in: what other formats make of the values themselves.
    """
    values = np.array(d.values())
    finite = np.unique(values[np.isfinite(values)])
    places = np.searchsorted(finite, values, side="right")
    above = [float(finite[p]) if math.isfinite(v) and p < len(finite) else None
             for v, p in zip(values, places, strict=True)]  # fmt: skip
    middle = np.array([math.nan if a is None else (v + a) / 2 for v, a in zip(values, above, strict=True)])
    found = d.round(middle)
    return {
        "format": str(d), "bits": d.bits, "b": [_bits(code, d) for code in range(len(values))],
        "y": values.tolist(), "above": above, "mid": middle.tolist(), "midto": found.tolist(),
        "r": {mode: differing(found, d.round(middle, rounding=mode)) for mode in DETERMINISTIC},
        "d": _deviated(d, middle.astype(np.float32), found),
        "in": {str(other): _in(other, values) for other in others},
    }  # fmt: skip


def _bits(code: int, d: Element) -> str:
    return " ".join(part for _, part in bit_fields(code, d))


def _in(other: Element, values: Array) -> list[float]:
    found: list[float] = other.round(values).tolist()
    return found


def _deviated(d: Element, x: Array, found: Array) -> dict[str, dict[str, float]]:
    """What known deviations make of numbers, where it is not what the format makes of them."""
    task, said = Task.of(d), {}
    for dialect in DIALECTS:
        if dialect.applies(task):
            with np.errstate(all="ignore"):
                y = as_values(task, bent(elements.exact, [dialect.deviation])(task, x, None))
            if others := differing(found, y):
                said[str(dialect)] = others
    return said
