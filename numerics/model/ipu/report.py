"""What was done to a model, and why: a row for every node that was changed, moved or left alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from onnx import NodeProto

from numerics.model.ipu.network import label
from numerics.view.patterns import SHOWN, in_one, patterns, template
from numerics.view.screen import Screen
from numerics.view.table import Table, clauses, name_column, records, text_column
from numerics.view.text import many

STEPS: Final = ("load", "calibrate", "keep", "approximate", "limit", "share", "quantize", "bias", "fold")
"""The steps as a report that is folded shows them: first what costs accuracy, last what computes the same."""
SAME: Final = ("fold", "bias")
"""Of those the ones that leave the numbers as they are: there the operators of rows may differ."""
UNWRITTEN: Final = "the device's own way of it is not written down"
"""Of functions whose integers are what QuantizeLinear and DequantizeLinear around them say."""


@dataclass(frozen=True)
class Row:
    """One thing that was done.

    node: which node, or tensor.  operator: what it computes.  step: who did it: load, fold, approximate,
    calibrate, quantize, keep, share, limit, bias.  what: what was done.  why: the reason or the source.
    """

    node: str
    operator: str
    step: str
    what: str
    why: str


@dataclass(repr=False)
class Report:
    """The rows, in the order in which things were done; as a text, those that are alike folded into one.

    >>> report = Report("xint8", "stx")
    >>> for k in 1, 2:
    ...     why = f"shift_cut was {16 + k}, allowed 0 .. 16"
    ...     report.add(f"conv{k}", "Conv", "limit", f"wpos of w{k} {13 + k} became 13", why)
    >>> report.add("exp", "Exp", "keep", "stays in float", "Ryzen AI does not list Exp for xint8")
    >>> print(report)
    xint8 for stx: 0 nodes are integer; 1 stays in float; 2 positions moved
    keep
      Exp  stays in float; Ryzen AI does not list Exp for xint8
           exp
    limit
      2 Conv  wpos of … 14 .. 15 became 13; shift_cut was 17 .. 18, allowed 0 .. 16
              conv{1-2}
    """

    config: str
    device: str
    rows: list[Row] = field(default_factory=list)

    def add(self, node: str, operator: str, step: str, what: str, why: str) -> None:
        """Appends a row."""
        self.rows.append(Row(node, operator, step, what, why))

    def about(self, node: NodeProto, step: str, what: str, why: str) -> None:
        """Appends a row about a node."""
        self.add(label(node), node.op_type, step, what, why)

    def of(self, step: str) -> list[Row]:
        """Returns the rows of one step."""
        return [row for row in self.rows if row.step == step]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    @property
    def totals(self) -> dict[str, int]:
        """How many nodes are integer (or bfloat16), in float, and computed in another way; and what moved.

        The nodes are those after folding and approximating.  unwritten: functions of which the device's
        own way is not known.
        """
        made = self.of("quantize")
        return {
            "quantized": sum(row.operator.count("+") + 1 for row in made),
            "in float": len(self.of("keep")),
            "approximated": len(self.of("approximate")),
            "unwritten": sum(UNWRITTEN in row.why for row in made),
            "positions moved": len(self.of("limit")),
            "scales shared": len(self.of("share")),
        }

    @property
    def summary(self) -> str:
        """The totals in words."""
        count = self.totals
        kind = "in bfloat16" if self.config == "bf16" else "integer"
        be = "is" if count["quantized"] == 1 else "are"
        said = [
            f"{self.config} for {self.device}: {many(count['quantized'], 'node')} {be} {kind}",
            f"{count['in float'] or 'none'} stay{'s' * (count['in float'] < 2)} in float",
            f"{count['approximated']} approximated" * bool(count["approximated"]),
            f"{count['unwritten']} in a way of the device's that is not written down"
            * bool(count["unwritten"]),
            f"{many(count['positions moved'], 'position')} moved" * bool(count["positions moved"]),
            f"{many(count['scales shared'], 'scale')} shared" * bool(count["scales shared"]),
        ]
        return "; ".join(text for text in said if text)

    def table(self, full: bool = False) -> str:
        """The rows as a text.

        full: every row, in lines as long as they are; else the totals first, what is alike folded into one,
        what costs accuracy before what computes the same, and it fits.
        """
        lines = self.lines(Screen() if full else Screen.of_text(), full)
        return "\n".join(line.rstrip() for line in lines)

    def lines(self, screen: Screen, full: bool = False) -> list[str]:
        """The same on that screen; every row where nobody looks."""
        if screen.width is None:
            return self._every().lines(screen)
        if full and self._every().fits(screen):
            return [*clauses(self.summary, screen), *self._every().lines(screen)]
        found = clauses(self.summary, screen)
        for step in (*STEPS, *sorted({row.step for row in self.rows} - {*STEPS})):
            if rows := self.of(step):
                found += _section(step, _alike(rows, full), screen)
        return found

    def _every(self) -> Table:
        """A line a row."""
        columns = [name_column("node"), *(text_column(name) for name in ("operator", "step", "what", "why"))]
        table = Table(columns)
        for row in self.rows:
            table.add(row.node, row.operator, row.step, row.what, row.why)
        return table

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and texts, for JSON."""
        return {
            "config": self.config,
            "device": self.device,
            "totals": self.totals,
            "rows": [asdict(row) for row in self.rows],
        }


def _alike(rows: Sequence[Row], full: bool) -> list[list[Row]]:
    """Rows that are alike but for names and numbers together; what needs more words first.  full: none."""
    if full:
        return [[row] for row in rows]
    found: dict[object, list[Row]] = {}
    for row in rows:
        operator = row.operator if row.step not in SAME else ""
        found.setdefault((operator, template(row.what), template(row.why)), []).append(row)
    return sorted(found.values(), key=lambda alike: UNWRITTEN not in alike[0].why)


def _section(step: str, groups: Sequence[Sequence[Row]], screen: Screen) -> list[str]:
    """The rows of a step under its name, with the clauses that all of them share."""
    said = [[part for name in ("what", "why") for part in _clauses(group, name)] for group in groups]
    shared = [part for part in said[0] if all(part in parts for parts in said)] if len(groups) > 1 else []
    pairs: list[tuple[str, str]] = []
    for group, parts in zip(groups, said, strict=True):
        names = [str(one) for one in patterns(row.node for row in group if row.node != "-")]
        shown = ", ".join(names[:SHOWN]) + f" and {len(names) - SHOWN} more of such" * (len(names) > SHOWN)
        texts = [text for text in ("; ".join(part for part in parts if part not in shared), shown) if text]
        pairs += zip((f"  {_label(group)}", ""), texts, strict=False)
    return [*clauses("; ".join([step, *shared]).replace("; ", ": ", 1), screen), *records(pairs, screen)]


def _label(group: Sequence[Row]) -> str:
    """How many there are, and of which operator where it is one."""
    operators = {row.operator for row in group}
    name = operators.pop() if len(operators) == 1 else "nodes"
    return f"{len(group)} {name}" if len(group) > 1 else name


def _clauses(group: Sequence[Row], name: str) -> list[str]:
    return in_one([getattr(row, name) for row in group]).split("; ")
