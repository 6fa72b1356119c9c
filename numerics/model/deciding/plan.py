"""A plan: which parameters and computed tensors of a model get which format, and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, said
from numerics.model.deciding.agreeing import check_acting, check_rows
from numerics.model.deciding.fields import check_fields, check_whole, spec_in
from numerics.model.deciding.folded import table
from numerics.model.deciding.reach import unreached
from numerics.model.deciding.routers import ROUTER, told_routers
from numerics.model.deciding.rows import Row
from numerics.model.deciding.rules import observer_of
from numerics.model.deciding.written import read, shown, written
from numerics.view.screen import Screen
from numerics.view.table import clauses

if TYPE_CHECKING:
    from torch import nn

    from numerics.model.looking.trace import Site

APART = "no product takes it as it is"
"""How the reason begins of a parameter of two dimensions and more that is in arithmetic only."""
UNUSED = "undecided: the example never used it"
"""How the reason begins of a parameter that a format is asked for, and no product of the example has."""
MULTIPLIED = "which products take as it is"
"""What the reason says of a buffer that is multiplied."""


@dataclass(repr=False)
class Plan:
    """Which parameters and computed tensors of a model get which format, and why; made by `plan`.

    rows: one for every parameter, buffer, product input, output that is quantized, key-value cache and module
    that the example never called.  mode: eager_mode or fx_graph_mode.  device: CPU or IPU.  example: the
    arguments that the model was looked at with; None without.  fold: normalizations by their convolutions.
    looked: the rows as planning made them of the model; none of a plan from a file.

    Printed or shown, a plan folds equal rows into one screen, as wide as the terminal, 80 cells without one;
    `table(full=True)` is every row, and every letter of it.

    >>> import torch, numerics as nx
    >>> plan = nx.plan(torch.nn.Linear(64, 8), "mxfp4", example=torch.ones(1, 64))
    >>> list(plan.parameters), plan.parameters["weight"].format
    (['weight'], 'mxfp4')
    """

    rows: list[Row]
    mode: str = "eager_mode"
    device: str = "CPU"
    example: Any = None
    fold: dict[str, str] = field(default_factory=dict)
    looked: tuple[Row, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        own = {"mode": self.mode, "device": self.device, "fold": self.fold, "rows": self.rows}
        check_whole(own, Row)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__  # what a session shows is what it prints

    def _repr_html_(self) -> str:
        """A notebook's view: the folded table."""
        return shown(self.rows, self.summary)

    @keywords
    def table(self, full: bool = False) -> str:
        """The rows as a table, and what sums them up.

        full: every row, in lines as long as they are; else equal ones are folded into one, and it fits.
        """
        return "\n".join(self.lines(Screen() if full else Screen.of_text(), full))

    def lines(self, screen: Screen, full: bool = False) -> list[str]:
        """The same on that screen."""
        return [*table(self.rows, full, screen), *clauses(self.summary, screen)]

    @property
    def parameters(self) -> dict[str, Row]:
        """The rows of parameters that are quantized, by each of their names."""
        return {n: row for row in self.rows if row.kind == "parameter" and row.spec for n in row.names}

    @property
    def sites(self) -> dict[Site, Row]:
        """The rows of computed tensors that are quantized, by their sites."""
        return {row.site: row for row in self.rows if row.site is not None and row.spec}

    @property
    def summary(self) -> str:
        """One line: what is quantized, how many bytes that takes, and what stays as it is."""
        owned = [row for row in self.rows if row.kind in ("parameter", "buffer")]
        planned = [row for row in owned if row.spec]
        before = sum(row.unplanned_nbytes for row in owned)
        after = sum(row.nbytes for row in owned)
        formats = ", ".join(f"{n} {name}" for name, n in Counter(r.format for r in planned).most_common())
        parts = [
            f"{len(planned)} of {len(owned)} tensors quantized"
            + (f" ({formats}), {_share(planned, owned)} of all values" if planned else ""),
            f"{_bytes(before, before)} become {_bytes(after, before)}",
        ]
        computed = [row for row in self.rows if row.site is not None]
        if any(row.spec for row in computed):
            parts.append(
                f"{sum(row.spec is not None for row in computed)} of {len(computed)} computed tensors"
            )
        caches = [row.spec is not None for row in self.rows if row.kind == "cache"]
        if any(caches):
            parts.append(f"{sum(caches)} of {len(caches)} caches")
        apart = [row.name for row in owned if row.reason.startswith(APART)]
        if planned and apart:
            parts.append(
                f"{len(apart)} of two dimensions and more no product takes as they are, such as {apart[0]}"
            )
        factors = [row.name for row in owned if MULTIPLIED in row.reason]
        if factors:
            parts.append(
                f"{len(factors)} buffers are multiplied as they are, such as {factors[0]}"
                if factors[1:]
                else f"the buffer {factors[0]} is multiplied as it is"
            )
        if told := told_routers(row.name for row in planned if row.reason.endswith(ROUTER)):
            parts.append(told)
        if short := [row for row in planned if row.short]:
            some = f"such as {short[0].name}: {short[0].short}"
            parts.append(f"{len(short)} with groups or blocks shorter than asked, {some}")
        undecided = [row.name for row in owned if row.reason.startswith("undecided")]
        if undecided:
            parts.append(f"{len(undecided)} undecided, such as {undecided[0]}: give example=")
        if self.mode == "eager_mode" and (why := unreached(self.rows)):
            parts.append(f"nx.wrap refuses it as it is: {why}")
        return "; ".join(parts)

    # ---- as files -------------------------------------------------------------------------------

    @keywords
    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, as JSON and TOML take them."""
        rows = []
        for row in self.rows:
            found = {k: v for k, v in asdict(replace(row, spec=None)).items() if v not in (None, (), False)}
            found["shape"], found["site"] = list(row.shape), list(row.site) if row.site else None
            found["spec"] = row.spec.text if row.spec else None
            rows.append(
                {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if v is not None}
            )
        return {"mode": self.mode, "device": self.device, "fold": dict(self.fold), "rows": rows}

    @classmethod
    @keywords
    def from_dict(cls, came: Mapping[str, Any]) -> Plan:
        """The plan of such values; raises NumericsError for others, which names the row and the field."""
        check_fields(came)
        rows = [_row(values) for values in came["rows"]]
        check_rows(rows)
        return cls(rows, came["mode"], came["device"], fold=dict(came.get("fold", {})))

    @keywords
    def save(self, path: Any) -> None:
        """Writes the plan: .toml and .json for `Plan.load`, .html to look at.  Raises NumericsError for
        others.
        """
        written(self.as_dict(), self.rows, self.summary, _path(path))

    @staticmethod
    @keywords
    def load(path: Any) -> Plan:
        """The plan of a .toml or .json file; raises NumericsError for what is none."""
        came = read(_path(path))
        try:
            return Plan.from_dict(came)
        except NumericsError as wrong:
            raise NumericsError(f"{path}: {wrong}") from None

    @keywords
    def check_model(self, model: nn.Module) -> None:
        """Raises NumericsError where a model lacks what is planned, has it in another shape, or has more.

        More are floats that its state has, under names of which none has a row.
        """
        from numerics.model.folding import can_fold  # and with them torch, which a plan of files needs not
        from numerics.model.looking.trace import is_place

        check_rows(self.rows)
        check_acting(self.rows)
        shapes = {name: tuple(x.shape) for name, x in model.named_parameters(remove_duplicate=False)}
        wrong = [
            f"{name} of shape {row.shape}" + (f", which has {shapes[name]} here" if name in shapes else "")
            for name, row in self.parameters.items()
            if shapes.get(name) != row.shape
        ]
        modules = dict(model.named_modules(remove_duplicate=False))
        wrong += [str(site) for site in self.sites if site.module not in modules or not is_place(site)]
        wrong += [f"{norm} after {conv}" for norm, conv in self.fold.items()
                  if not can_fold(modules.get(norm), modules.get(conv))]  # fmt: skip
        if wrong:
            raise NumericsError(
                f"this plan is of another model: {'; '.join(wrong[:5])}{' ...' if wrong[5:] else ''} "
                "not found"
            )
        if more := self._without_row(model):
            raise NumericsError(
                f"this plan is of another model: {', '.join(more[:5])}{' ...' if more[5:] else ''} of this "
                f"{type(model).__name__} has no row in it; nx.plan(model, ...) makes one of all"
            )

    def _without_row(self, model: nn.Module) -> list[str]:
        """The floats of a model that no row has: parameters, and buffers that its state has."""
        own = {n for row in self.rows if row.kind in ("parameter", "buffer") for n in row.names}
        names: dict[int, list[str]] = {}
        for prefix, module in model.named_modules(remove_duplicate=False):
            unsaved = module._non_persistent_buffers_set
            for leaf, x in (*module._parameters.items(), *module._buffers.items()):
                if x is not None and x.is_floating_point() and leaf not in unsaved:
                    names.setdefault(id(x), []).append(f"{prefix}.{leaf}" if prefix else leaf)
        return [some[0] for some in names.values() if own.isdisjoint(some)]


def _path(came: Any) -> Path:
    if not isinstance(came, (str, os.PathLike)):
        raise NumericsError(f"path={said(came)} is no path: a text, or a pathlib.Path")
    return Path(came)


def _row(values: Mapping[str, Any]) -> Row:
    spec = values.get("spec")
    site = values.get("site")
    return Row(
        kind=values["kind"], name=values["name"], shape=tuple(values["shape"]),
        spec=None if spec is None else spec_in(spec), reason=values["reason"],
        uses=tuple(values.get("uses", ())), also=tuple(values.get("also", ())),
        observer=observer_of(values.get("observer")), site=None if site is None else _site(site),
        graph=values.get("graph", False), value_bits=values.get("value_bits", 32),
        weights=tuple(values.get("weights", ())), group=values.get("group"),
    )  # fmt: skip


def _site(came: Sequence[Any]) -> Site:
    from numerics.model.looking.trace import Site  # and with it torch, which a plan of files needs not

    return Site(*came)


def _share(some: Sequence[Row], all_: Sequence[Row]) -> str:
    whole = sum(row.size for row in all_)
    return f"{sum(row.size for row in some) / whole:.1%}" if whole else "none"


def _bytes(count: int, largest: int) -> str:
    """A size in the unit of the largest beside it, with a digit that counts."""
    if largest < 1e5:
        return f"{count} bytes"
    return f"{count / 1e6:.{1 if count >= 1e6 else 3}f} MB"
