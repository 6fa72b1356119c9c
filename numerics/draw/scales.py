"""The scale rules of a format beside each other on one tensor: what each of them loses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from numerics.draw.grids import array_of, rounded
from numerics.formats.arguments import keywords, unknown_argument
from numerics.formats.errors import NumericsError
from numerics.formats.notebook import rows_table
from numerics.tensor.qtensor import rank
from numerics.tensor.spec import QuantSpec
from numerics.tensor.words import OPTIONS
from numerics.view.table import MADE, Column, Table, measured, text_column
from numerics.view.text import became

Progress = Callable[[str, int, int], None]
RULE = "scale_rule"
OF_ONE = (
    "scale",
    "zero_point",
    "tensor_scale",
    "seed",
    "random_bits",
)  # what is of one tensor, beside a spec


@dataclass(frozen=True)
class RuleLoss:
    """What a scale rule loses of a tensor.

    rule: its name.  sqnr: in dB, of the finite values; inf where nothing is lost.  max_error: the largest
    magnitude of an error among them.  clipped: the share of all values, from 0 to 1, that lie more than half
    a step beyond what their scale can represent.  lost: how many finite values became NaN or Inf; sqnr and
    max_error are then NaN or infinite, as those of `Error` are.
    """

    rule: str
    sqnr: float
    max_error: float
    clipped: float
    lost: int = 0

    @property
    def rank(self) -> tuple[int, float, float]:
        """What sorts rules, the one that loses least first, and is the same of those that lose alike."""
        exact = self.max_error == 0  # beside NaN, which leaves no SQNR
        kept = math.inf if exact else rank(self.sqnr)
        return self.lost, -kept, math.inf if math.isnan(self.max_error) else self.max_error


@dataclass(frozen=True, repr=False)
class Scales:
    """What each scale rule of a format loses of a tensor, the one that loses least first; `str` is a table.

    spec: how it was quantized, by `floor`.  rules: a RuleLoss each; those that turn fewer finite values into
    NaN or Inf come before all others.

    >>> import numerics as nx
    >>> nx.scales([1.0, 0.3, -0.05, 5.0, 7.4], "mxfp4").best
    'ceil'
    """

    spec: QuantSpec
    rules: tuple[RuleLoss, ...]

    @property
    def best(self) -> str:
        """The rule that loses least: what `nx.quantize(..., scale_rule=)` takes.

        The first of them where several lose alike; `verdict` says that, and where it cannot be told.
        """
        return self.rules[0].rule

    @property
    def alike(self) -> tuple[str, ...]:
        """The rules that lose as little as the best one, which is the first; none where nobody can tell."""
        first = self.rules[0]
        if (first.lost or math.isnan(first.max_error)) and len({one.lost for one in self.rules}) == 1:
            return ()
        return tuple(one.rule for one in self.rules if one.rank == first.rank)

    @property
    def verdict(self) -> str:
        """Which rule loses least, in words; or why that cannot be told.

        >>> import numpy as np, numerics as nx
        >>> nx.scales(np.linspace(-1, 1, 64), "int4").verdict
        'full_range loses least'
        >>> nx.scales(np.float32([1, 2, np.nan, 4]), "mxfp4").verdict
        'which rule loses least cannot be told, as by every one 3 finite values became NaN or Inf'
        """
        first, alike = self.rules[0], self.alike
        lost = became(first.lost) if first.lost else ""
        if len(self) == 1:
            return f"{first.rule} is the one scale rule that it has{f'; {lost}' if lost else ''}"
        if not alike:
            why = f"by every one {lost}" if lost else "no value is finite"
            return f"which rule loses least cannot be told, as {why}"
        said = f"{' and '.join(alike)} {'lose' if alike[1:] else 'loses'} least"
        return f"{said}, and yet {lost}" if lost else said

    def __iter__(self) -> Iterator[RuleLoss]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return rows_table([column.heading for column in self.table().columns], self.table().rows)

    def as_dict(self) -> dict[str, Any]:
        """All of it as what JSON holds."""
        return {"spec": json.loads(self.spec.text), "rules": [asdict(one) for one in self.rules]}

    def table(self) -> Table:
        """A line a rule."""
        any_lost = any(one.lost for one in self.rules)
        made = Table([text_column("scale rule"), Column("SQNR dB"), Column("max error"), Column("clipped %"),
                      *[MADE] * any_lost])  # fmt: skip
        for one in self.rules:
            known = (measured(one.sqnr, "{:.2f}".format), measured(one.max_error))
            made.add(one.rule, *known, f"{100 * one.clipped:.3f}", *[f"{one.lost:d}"] * any_lost)
        return made


@keywords
def scales(x: Any, dtype: Any, **options: Any) -> Scales:
    """Returns what each scale rule that a format takes loses of a tensor, the one that loses least first.

    x: an array, a torch tensor, nested lists, or a QTensor, whose values are what is quantized here, once
    more.  dtype: a format, its name, or a QuantSpec, whose scale rule
    is of no effect here.  options: as for `nx.quantize`, but for scale_rule: scheme=, axis=, rounding= ...
    Formats of single numbers have the rule `floor` alone, symmetric signed integers `full_range` too.  Rules
    that lose alike stand in the order of `dtype.scale_rules`.  Raises what `nx.quantize` does.

    >>> import numpy as np, numerics as nx
    >>> x = np.random.default_rng(0).standard_normal(4096, np.float32)
    >>> nx.scales(x, "int4")
    scale rule  SQNR dB  max error  clipped %
    full_range    17.59   0.230514      0.000
    floor         17.07   0.246934      0.000
    >>> nx.scales(x, "nvfp4").best
    'mse'
    """
    return found_by(x, dtype, options)


def found_by(x: Any, dtype: Any, options: dict[str, Any], progress: Progress | None = None) -> Scales:
    """`scales`; progress is called with the name of a rule, how many are done, and of how many."""
    if RULE in options:
        raise NumericsError("scale_rule= is what nx.scales tells apart: leave it out")
    spec, given = _asked(dtype, options)
    data, names = array_of(x), _rules_of(spec)
    found = []
    for place, rule in enumerate(names):
        if progress is not None:
            progress(rule, place, len(names))
        found.append(_loss(data, spec.replace(scale_rule=rule), given))
    if progress is not None:
        progress(names[-1], len(names), len(names))
    return Scales(spec, tuple(sorted(found, key=lambda one: one.rank)))


def _asked(dtype: Any, options: dict[str, Any]) -> tuple[QuantSpec, dict[str, Any]]:
    """The spec by the rule of all, and what is of one tensor: its scales, its seed."""
    own = {name: value for name, value in options.items() if name in OPTIONS}
    rest = {name: value for name, value in options.items() if name not in OPTIONS}
    if unknown := [name for name in rest if name not in OF_ONE]:
        raise unknown_argument(scales, unknown, also=(*(name for name in OPTIONS if name != RULE), *OF_ONE))
    if isinstance(dtype, QuantSpec):
        return dtype.replace(scale_rule="floor", **own), rest
    return QuantSpec(dtype, **own), rest


def _rules_of(spec: QuantSpec) -> tuple[str, ...]:
    """The rules by which its scales can be found."""
    every: tuple[str, ...] = spec.dtype.scale_rules
    return every if spec.symmetric and spec.scaled else every[:1]


def _loss(data: Any, spec: QuantSpec, given: dict[str, Any]) -> RuleLoss:
    found = rounded(data, spec, **given)
    error = found.error
    clipped = found.clipped.size / data.size
    return RuleLoss(spec.scale_rule, error.sqnr, error.max_error, clipped, found.lost)
