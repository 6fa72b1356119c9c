"""What was done to a model, and why: a row for every node that was changed, moved or left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from onnx import NodeProto

from numerics.view.screen import Screen
from numerics.view.table import Table, name_column, text_column


@dataclass(frozen=True)
class Row:
    """One thing that was done.

    node: which node, or tensor.  operator: what it computes.  step: who did it: load, fold, approximate,
    quantize, keep, share, limit, bias.  what: what was done.  why: the reason or the source.
    """

    node: str
    operator: str
    step: str
    what: str
    why: str


@dataclass(repr=False)
class Report:
    """The rows, in the order in which things were done; as a text, a table.

    >>> report = Report("xint8", "stx")
    >>> report.add("conv1", "Conv", "limit", "wpos 14 became 13", "shift_cut was 17, allowed 0 .. 16")
    >>> print(report)
    node   operator  step   what               why
    conv1  Conv      limit  wpos 14 became 13  shift_cut was 17, allowed 0 .. 16
    """

    config: str
    device: str
    rows: list[Row] = field(default_factory=list)

    def add(self, node: str, operator: str, step: str, what: str, why: str) -> None:
        """Appends a row."""
        self.rows.append(Row(node, operator, step, what, why))

    def about(self, node: NodeProto, step: str, what: str, why: str) -> None:
        """Appends a row about a node."""
        self.add(node.name or node.output[0], node.op_type, step, what, why)

    def of(self, step: str) -> list[Row]:
        """Returns the rows of one step."""
        return [row for row in self.rows if row.step == step]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines(Screen.of_text()))

    __repr__ = __str__

    def lines(self, screen: Screen) -> list[str]:
        """The table on that screen."""
        columns = [name_column("node"), *(text_column(name) for name in ("operator", "step", "what", "why"))]
        table = Table(columns)
        for row in self.rows:
            table.add(row.node, row.operator, row.step, row.what, row.why)
        return [*table.lines(screen), *table.left_out(screen)]

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and texts, for JSON."""
        return {"config": self.config, "device": self.device, "rows": [asdict(row) for row in self.rows]}
